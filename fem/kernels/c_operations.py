"""A density's program as C, operation by operation."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fem.kernels.program import Program

aten = torch.ops.aten

LARGEST = 20_000  # operations in a cell: beyond, C compilers take minutes

Value = str | float  # a C expression without side effects, or a number


class UnsupportedError(Exception):
    """Something that C code is not written for."""


class LoopBody:
    """The body of a loop over cells: every intermediate result has a name and is computed once."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.numbers: dict[str, str] = {}
        self.functions: set[str] = set()

    def text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return str(int(value))
        # 0 and −0 are equal, and nan is not itself: they are told by their names.
        return self.numbers.setdefault(repr(float(value)), f"k[{len(self.numbers)}]")

    def let(self, expression: str) -> str:
        if expression not in self.names:
            if len(self.lines) > LARGEST:
                raise UnsupportedError
            self.names[expression] = f"t{len(self.names)}"
            self.lines.append(f"const T {self.names[expression]} = {expression};")
        return self.names[expression]

    def combination(self, terms: Sequence[tuple[float, Value]]) -> Value:
        """Σ c v."""
        parts = [(c, v) for c, v in terms if c and v != 0]
        if not parts:
            return 0.0
        if len(parts) == 1 and parts[0][0] == 1:
            return parts[0][1]
        return self.let(" + ".join(self.text(v) if c == 1 else f"{self.text(c)} * {self.text(v)}" for c, v in parts))

    def call(self, name: str, *args: str) -> str:
        """A call by itself: within a choice it would be one for some cells only, which vectors cannot do."""
        self.functions.add(name)
        return self.let(f"F_{name}({', '.join(args)})")

    def run(self, program: Program, inputs: Sequence[Value | None]) -> list[Value]:
        """The outputs of a program."""
        return program.values(inputs, self.operation)

    def operation(self, target: Any, args: list[Any], options: dict[str, Any]) -> Value:
        packet = getattr(target, "overloadpacket", target)
        if target is torch.scalar_tensor:
            return self.text(args[0])
        if packet in CONDITIONS and not options:  # truth values stay expressions, which compilers turn into masks
            return CONDITIONS[packet](*map(self.text, args))
        if packet is aten._to_copy:
            return self.converted(args[0], **options)
        if packet in (operator.pow, aten.pow):
            return self.let(self.power(*args))
        if packet in FUNCTIONS and not options:
            return self.let(self.call(packet.__name__.replace("round", "nearbyint"), *map(self.text, args)))
        if packet in FORMULAS and options.keys() <= {"alpha", "value"}:
            factors = {name: self.text(value) for name, value in options.items()}
            return self.let(FORMULAS[packet](self, *[None if a is None else self.text(a) for a in args], **factors))
        raise UnsupportedError

    def converted(self, value: Value, dtype: torch.dtype | None = None, **others: Any) -> Value:
        """A truth value, marked by its parentheses, as a number, or the other way round."""
        if dtype not in (torch.bool, self.dtype) or others:
            raise UnsupportedError
        text = self.text(value)
        if dtype is torch.bool:
            return text if text.startswith("(") else f"({text} != 0)"
        return self.let(f"{text} ? 1 : 0") if text.startswith("(") else value

    def power(self, base: Any, exponent: Any) -> str:
        if isinstance(exponent, int | float) and float(exponent).is_integer() and 1 <= abs(exponent) <= 8:
            factors = " * ".join([self.text(base)] * abs(int(exponent)))
            return factors if exponent > 0 else f"1 / ({factors})"
        if exponent in (0.5, -0.5):
            root = self.call("sqrt", self.text(base))
            return root if exponent > 0 else f"1 / {root}"
        return self.call("pow", self.text(base), self.text(exponent))

    @property
    def declarations(self) -> list[str]:
        """The functions of the C library that are called, for the type of numbers."""
        real, found = "" if self.dtype == torch.float64 else "f", []
        for name in sorted(self.functions):
            vector, args = "" if name in INLINE else "VECTOR ", "T, T" if name in TWO else "T"
            found.append(f"#define F_{name} {name}{real}\n{vector}T F_{name}({args});")
        return found

    @property
    def constants(self) -> Tensor:
        """The numbers, as the code counts them."""
        return torch.tensor([float(n) for n in self.numbers], dtype=self.dtype, device="cpu")


def inserted(template: str, **parts: Sequence[str]) -> str:
    """A text with lines in the places that name them."""
    return re.sub(r"/\* insert (\w+) \*/", lambda place: "\n".join(parts[place[1]]), template)


def c_clamp(body: LoopBody, x: str, low: str | None = None, high: str | None = None) -> str:
    x = x if low is None else body.let(f"{x} < {low} ? {low} : {x}")
    return x if high is None else f"{x} > {high} ? {high} : {x}"


def c_nan_to_num(
    body: LoopBody, x: str, nan: str | None = None, high: str | None = None, low: str | None = None
) -> str:
    largest = torch.finfo(body.dtype).max
    nan, high, low = (body.text(d) if v is None else v for v, d in ((nan, 0.0), (high, largest), (low, -largest)))
    x = body.let(f"{x} != {x} ? {nan} : {x}")
    x = body.let(f"{x} > {body.text(largest)} ? {high} : {x}")
    return f"{x} < {body.text(-largest)} ? {low} : {x}"


INFIX: dict[Any, str] = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/"}
CONDITIONS: dict[Any, Callable[..., str]] = {
    aten.gt: "({} > {})".format,
    aten.ge: "({} >= {})".format,
    aten.lt: "({} < {})".format,
    aten.le: "({} <= {})".format,
    aten.eq: "({} == {})".format,
    aten.ne: "({} != {})".format,
    aten.logical_and: "({} && {})".format,
    aten.logical_or: "({} || {})".format,
    aten.logical_not: "(!{})".format,
    aten.bitwise_and: "({} && {})".format,
    aten.bitwise_or: "({} || {})".format,
    aten.bitwise_not: "(!{})".format,
    aten.isnan: "({0} != {0})".format,
}
FUNCTIONS = {
    *(aten.exp, aten.exp2, aten.expm1, aten.log, aten.log2, aten.log10, aten.log1p, aten.sqrt, aten.erf, aten.erfc),
    *(aten.sin, aten.cos, aten.tan, aten.asin, aten.acos, aten.atan, aten.atan2, aten.hypot, aten.fmod),
    *(aten.sinh, aten.cosh, aten.tanh, aten.asinh, aten.acosh, aten.atanh),
    *(aten.floor, aten.ceil, aten.trunc, aten.round),
}
FORMULAS: dict[Any, Callable[..., str]] = {
    **{target: lambda c, a, b, sign=sign: f"{a} {sign} {b}" for target, sign in INFIX.items()},
    aten.neg: lambda c, a: f"-{a}",
    aten.abs: lambda c, a: c.call("fabs", a),
    aten.reciprocal: lambda c, a: f"1 / {a}",
    aten.rsqrt: lambda c, a: f"1 / {c.call('sqrt', a)}",
    aten.square: lambda c, a: f"{a} * {a}",
    aten.where: lambda c, a, b, d: f"{a} ? {b} : {d}",
    aten.maximum: lambda c, a, b: f"{a} > {b} || {a} != {a} ? {a} : {b}",
    aten.minimum: lambda c, a, b: f"{a} < {b} || {a} != {a} ? {a} : {b}",
    aten.clamp: c_clamp,
    aten.clamp_min: c_clamp,
    aten.clamp_max: lambda c, a, b: c_clamp(c, a, None, b),
    aten.nan_to_num: c_nan_to_num,
    aten.relu: lambda c, a: f"{a} < 0 ? 0 : {a}",
    aten.sign: lambda c, a: f"(T)(({a} > 0) - ({a} < 0))",
    aten.sgn: lambda c, a: f"(T)(({a} > 0) - ({a} < 0))",
    aten.sigmoid: lambda c, a: f"1 / (1 + {c.call('exp', '-' + a)})",
    aten.sigmoid_backward: lambda c, g, a: f"{g} * (1 - {a}) * {a}",
    aten.tanh_backward: lambda c, g, a: f"{g} * (1 - {a} * {a})",
    aten.threshold_backward: lambda c, g, a, b: f"{a} <= {b} ? 0 : {g}",
    aten.masked_fill: lambda c, a, m, v: f"{m} ? {v} : {a}",
    aten.rsub: lambda c, a, b, alpha="1": f"{b} - {alpha} * {a}",
    aten.frac: lambda c, a: f"{a} - {c.call('trunc', a)}",
    aten.copysign: lambda c, a, b: c.call("copysign", a, b),
    aten.fmax: lambda c, a, b: f"{a} > {b} || {b} != {b} ? {a} : {b}",
    aten.fmin: lambda c, a, b: f"{a} < {b} || {b} != {b} ? {a} : {b}",
    aten.lerp: lambda c, a, b, w: f"{a} + {w} * ({b} - {a})",
    aten.addcmul: lambda c, a, b, d, value="1": f"{a} + {value} * {b} * {d}",
    aten.addcdiv: lambda c, a, b, d, value="1": f"{a} + {value} * {b} / {d}",
    aten.xlogy: lambda c, a, b: f"{a} == 0 && {b} == {b} ? 0 : {a} * {c.call('log', b)}",
    aten.leaky_relu: lambda c, a, slope="(T)0.01": f"{a} > 0 ? {a} : {slope} * {a}",
    aten.leaky_relu_backward: lambda c, g, a, slope, _: f"{a} > 0 ? {g} : {slope} * {g}",
    aten.softplus: lambda c, a, beta="1", limit="20": (
        f"{a} * {beta} > {limit} ? {a} : {c.call('log1p', c.call('exp', f'{a} * {beta}'))} / {beta}"
    ),
    aten.softplus_backward: lambda c, g, a, beta, limit: (
        f"{a} * {beta} > {limit} ? {g} : {g} / (1 + {c.call('exp', f'-{a} * {beta}')})"
    ),
}
INLINE = {"sqrt", "copysign", "fabs", "floor", "ceil", "trunc", "nearbyint"}  # instructions, not functions
TWO = ("pow", "atan2", "hypot", "fmod", "copysign")  # functions of two numbers
