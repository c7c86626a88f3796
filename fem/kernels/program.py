"""Programs: arithmetic on scalars, without zeros, ones or common subexpressions.

A program is built operation by operation; constants are folded as they meet. Run on arrays instead of numbers, it
evaluates all points at once with no axis for directions or components: a compiler fuses that to a single loop, and
without one nothing is computed twice.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten

LARGEST = 10_000  # operations: beyond, one loop over everything is slower than one loop for each operation


class UntraceableError(Exception):
    """The density does something that has no meaning entry by entry; the cause is in the message."""


class Program:
    """Arithmetic on scalars: `run(*inputs)` takes one array for each entry of each argument, and gives the outputs.

    Outputs are arrays, or plain numbers where nothing is computed. `used` tells which inputs matter at all.
    """

    def __init__(self, builder: "Builder", outputs: Sequence[np.ndarray]):
        self.shapes = [o.shape for o in outputs]
        flat = [entry for o in outputs for entry in o.reshape(-1)]
        self.outputs = [e.node.name if isinstance(e, Scalar) else e for e in flat]
        graph = builder.graph
        graph.output([e.node if isinstance(e, Scalar) else e for e in flat])
        graph.eliminate_dead_code()
        self.used = tuple(bool(node.users) for node in builder.inputs)
        self.graph = graph
        # Equal for programs that compute the same from the inputs that matter, whatever others they are given.
        nodes = [node for node in graph.nodes if node.op != "placeholder" or node.users]
        names = {node: f"%{i}" for i, node in enumerate(nodes)}
        self.signature = tuple(
            (n.op, n.op == "placeholder" or str(n.target), repr(map_arg((n.args, n.kwargs), names.__getitem__)))
            for n in nodes
        )

    @cached_property
    def run(self) -> Callable[..., list[Any]]:
        """As a Python function, made when it is called first: some programs are only read."""
        return GraphModule(torch.nn.Module(), self.graph)

    def values(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for some inputs, one operation after another: for once, without making a function."""
        given, known = iter(inputs), {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(given)
            elif node.op == "output":
                return list(map_arg(node.args[0], known.__getitem__))
            else:
                known[node] = node.target(*map_arg(node.args, known.__getitem__), **node.kwargs)
        raise AssertionError("a graph ends with its output")

    def is_arithmetic(self, numbers: Collection[int]) -> bool:
        """Whether some inputs take part in sums, products and quotients alone: their values would not simplify it."""
        nodes = list(self.graph.nodes)
        alone = {nodes[i] for i in numbers}  # what depends on nothing else
        for node in nodes:
            given = [a for a in node.args if isinstance(a, Node)] if node.op == "call_function" else []
            if any(a in alone for a in given):
                if node.target not in ARITHMETIC:
                    return False
                if all(a in alone for a in given):
                    alone.add(node)
        return True


class Builder:
    """A graph of scalar operations under construction: folds constants and finds common subexpressions."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.graph, self.inputs, self.known = Graph(), [], {}

    def input(self) -> "Scalar":
        node = self.graph.placeholder(f"s{len(self.inputs)}")
        self.inputs.append(node)
        return Scalar(self, node)

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
        key = (target, *[a.node if isinstance(a, Scalar) else repr(a) for a in args], repr(options or {}))
        if key not in self.known:
            if len(self.known) > LARGEST:
                raise UntraceableError(f"it takes more than {LARGEST} operations at a point")
            nodes = tuple(a.node if isinstance(a, Scalar) else a for a in args)
            self.known[key] = Scalar(self, self.graph.call_function(target, nodes, options or {}))
        return self.known[key]


class Scalar:
    """One number of a program; sums and products of object arrays of these come from NumPy."""

    def __init__(self, builder: Builder, node: Node):
        self.builder, self.node = builder, node

    @property
    def factor(self) -> Any:
        """The number this is a multiple of `base` by."""
        scaled = self.node.target is operator.mul and not isinstance(self.node.args[1], Node)
        return self.node.args[1] if scaled else 1

    @property
    def base(self) -> "Scalar":
        return self if self.factor == 1 else Scalar(self.builder, self.node.args[0])  # type: ignore[arg-type]

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
