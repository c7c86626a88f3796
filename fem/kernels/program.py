"""Programs: arithmetic on scalars, without zeros, ones or common subexpressions.

A program is built operation by operation; constants are folded as they meet. Run on arrays instead of numbers, it
evaluates all points at once with no axis for directions or components: a compiler fuses that to a single loop, and
without one nothing is computed twice.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from copy import copy
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, GraphModule

aten = torch.ops.aten

LARGEST = 10_000  # operations: beyond, one loop over everything is slower than one loop for each operation


class UntraceableError(Exception):
    """The density does something that has no meaning entry by entry; the cause is in the message."""


class Program:
    """Arithmetic on scalars: `run(*inputs)` takes one array for each entry of each argument, and gives the outputs.

    Outputs are arrays, or plain numbers where nothing is computed. `used` tells which inputs matter at all.
    """

    def __init__(self, builder: "Builder", outputs: Sequence[np.ndarray], num_inputs: int | None = None):
        """What a builder has made of (the first) inputs, as far as the outputs need it."""
        self.shapes = [o.shape for o in outputs]
        self.results = [entry for o in outputs for entry in o.reshape(-1)]
        needed = {e for e in self.results if isinstance(e, Scalar)}
        for scalar in reversed(builder.scalars):  # each stands behind those that it is made of
            if scalar in needed:
                needed.update(a for a in scalar.args if isinstance(a, Scalar))
        self.inputs = builder.inputs[:num_inputs]
        self.operations = [s for s in builder.scalars if s.target is not None and s in needed]
        self.used = tuple(s in needed for s in self.inputs)
        assert not needed.intersection(builder.inputs[len(self.inputs) :])
        names = {s: f"%{i}" for i, s in enumerate(s for s in builder.scalars if s in needed)}
        named = lambda args: [names[a] if isinstance(a, Scalar) else a for a in args]  # noqa: E731
        self.outputs = named(self.results)
        # Equal for programs that compute the same from the inputs that matter, whatever others they are given.
        lines = [(str(o.target), repr(named(o.args)), repr(o.options)) for o in self.operations]
        self.signature = (sum(self.used), *lines, repr(self.outputs))

    @cached_property
    def run(self) -> Callable[..., list[Any]]:
        """As a Python function, made when it is called first: some programs are only read."""
        graph = Graph()
        made: dict[Any, Any] = {s: graph.placeholder(f"s{i}") for i, s in enumerate(self.inputs)}
        placed = lambda args: [made[a] if isinstance(a, Scalar) else a for a in args]  # noqa: E731
        for o in self.operations:
            made[o] = graph.call_function(o.target, tuple(placed(o.args)), o.options)
        graph.output(placed(self.results))
        return GraphModule(torch.nn.Module(), graph)

    def values(self, inputs: Sequence[Any], compute: Callable[..., Any] | None = None) -> list[Any]:
        """The outputs for some inputs, one operation after another, without making a function.

        Args:
            compute: what to make of an operation, its arguments and its options; without it their value.
        """
        known: dict[Any, Any] = dict(zip(self.inputs, inputs, strict=True))
        for o in self.operations:
            args = [known[a] if isinstance(a, Scalar) else a for a in o.args]
            known[o] = compute(o.target, args, o.options) if compute else o.target(*args, **o.options)
        return [known[e] if isinstance(e, Scalar) else e for e in self.results]

    def only(self, places: Sequence[int]) -> "Program":
        """The program of some of the outputs, which take all of its operations."""
        part = copy(self)
        vars(part).pop("run", None)
        part.results, part.outputs = [self.results[k] for k in places], [self.outputs[k] for k in places]
        return part

    def is_arithmetic(self, numbers: Collection[int]) -> bool:
        """Whether some inputs take part in sums, products and quotients alone: their values would not simplify it."""
        alone = {self.inputs[i] for i in numbers}  # what depends on nothing else
        for o in self.operations:
            given = [a for a in o.args if isinstance(a, Scalar)]
            if any(a in alone for a in given):
                if o.target not in ARITHMETIC:
                    return False
                if all(a in alone for a in given):
                    alone.add(o)
        return True


class Builder:
    """Operations on scalars under construction: folds constants and finds common subexpressions."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.inputs: list[Scalar] = []
        self.scalars: list[Scalar] = []  # inputs and operations, in the order in which they were made
        self.known: dict[Any, Scalar] = {}

    def input(self) -> "Scalar":
        self.inputs.append(Scalar(self))
        self.scalars.append(self.inputs[-1])
        return self.inputs[-1]

    def constant(self, value: Any) -> "Scalar":
        """A number in the place of a tensor: of no dimension, it leaves the type of the others as it is."""
        dtype = torch.bool if isinstance(value, bool) else self.dtype
        return self.known_or(torch.scalar_tensor, (value,), {"dtype": dtype})

    def convert(self, value: Any, dtype: torch.dtype) -> Any:
        """A scalar or number as a truth value, or as a floating number of some type."""
        if isinstance(value, Scalar):
            return self.known_or(aten._to_copy.default, (value,), {"dtype": dtype})
        return bool(value) if dtype is torch.bool else float(value)

    def emit(self, target: Any, *args: Any, **options: Any) -> Any:
        """An operation on scalars and numbers."""
        if target in PLAIN:
            if not any(isinstance(a, Scalar) for a in args):
                return folded(target, args)
            simple = simplified(target, args)
            return self.known_or(target, args) if simple is None else simple
        pairs = list(zip(args, takes_tensors(target), strict=False))
        if not any(isinstance(a, Scalar) for a in args):
            return target(*[exact(a) if t else a for a, t in pairs], **options).item()
        numbers = (bool, int, float)
        full = tuple(self.constant(a) if t and isinstance(a, numbers) else a for a, t in pairs)
        return self.known_or(target, full, options)

    def known_or(self, target: Any, args: tuple[Any, ...], options: dict[str, Any] | None = None) -> "Scalar":
        """The result of an operation, the known one where the same has been done before."""
        # Numbers by their names, since 0 and −0, 1 and True are equal.
        key = (target, *[a if isinstance(a, Scalar) else repr(a) for a in args], repr(options) if options else "")
        if key not in self.known:
            if len(self.known) > LARGEST:
                raise UntraceableError(f"it takes more than {LARGEST} operations at a point")
            self.known[key] = Scalar(self, target, args, options)
            self.scalars.append(self.known[key])
        return self.known[key]


class Scalar:
    """One number of a program: an input (without target), or what an operation makes of others.

    Sums and products of object arrays of these come from NumPy.
    """

    __slots__ = ("args", "builder", "options", "target")

    def __init__(
        self, builder: Builder, target: Any = None, args: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ):
        self.builder, self.target, self.args, self.options = builder, target, args, options or {}

    @property
    def factor(self) -> Any:
        """The number this is a multiple of `base` by."""
        return self.args[1] if self.target is operator.mul and not isinstance(self.args[1], Scalar) else 1

    @property
    def base(self) -> "Scalar":
        return self if self.factor == 1 else self.args[0]

    def __add__(self, other: Any) -> Any:
        return self.builder.emit(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self.builder.emit(operator.add, self, other)

    def __mul__(self, other: Any) -> Any:
        return self.builder.emit(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.builder.emit(operator.mul, self, other)


PLAIN = {operator.add, operator.sub, operator.mul, operator.truediv, operator.pow}
ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.truediv} | {aten.neg.default, aten.rsub.Scalar}


def folded(target: Any, args: tuple[Any, ...]) -> Any:
    """Arithmetic on numbers alone, as PyTorch does it: 1 / 0 is inf and (−1)^½ is nan."""
    if target in (operator.truediv, operator.pow):
        return target(*[exact(a) for a in args]).item()
    return target(*args)


def exact(value: Any) -> Any:
    """A number as a tensor that holds all its digits; whatever is no number as it is."""
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.bool if isinstance(value, bool) else torch.float64, device="cpu")
    return value


@cache
def takes_tensors(operation: Any) -> list[bool]:
    """For each argument of an operation whether it is a tensor."""
    return [str(a.type) in ("Tensor", "Optional[Tensor]") for a in operation._schema.arguments]


def simplified(target: Any, args: tuple[Any, ...]) -> Any:
    """The result where one operand makes the operation trivial, else None."""
    a, b = args
    plain = not isinstance(a, Scalar), not isinstance(b, Scalar)
    if target is operator.add:
        return b if plain[0] and a == 0 else a if plain[1] and b == 0 else None
    if target is operator.sub:
        return a if plain[1] and b == 0 else None
    if target is operator.mul:
        if plain[0]:
            return b.builder.emit(operator.mul, b, a)
        if plain[1] and b in (0, 1):
            return a if b else 0.0
        # Numbers go outermost, where they meet and cancel.
        if plain[1]:
            return None if a.factor == 1 else a.builder.emit(operator.mul, a.base, a.factor * b)
        factor = a.factor * b.factor
        if a.base is a and b.base is b:
            return None
        return a.builder.emit(operator.mul, a.builder.emit(operator.mul, a.base, b.base), factor)
    if target is operator.truediv:
        return a if plain[1] and b == 1 else 0.0 if plain[0] and a == 0 else None
    if plain[1] and b in (0, 1):  # powers
        return a if b else 1.0
    return a.builder.emit(operator.mul, a, a) if plain[1] and b == 2 else None


def object_array(entries: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array.reshape(tuple(shape))
