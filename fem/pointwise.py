"""Densities as arithmetic on numbers: what a user's expression does at one point, traced once and simplified.

A density is traced at a single point, where x is "d", u is "" and ∇u is "d", together with whatever derivatives are
wanted. Every tensor of the trace is then taken apart into its entries, so that what remains is arithmetic on scalars,
without zeros, ones or common subexpressions. Run on arrays instead of numbers, it evaluates all points at once with no
axis for directions or components: a compiler fuses that to a single loop, and without one nothing is computed twice.

The derivatives' structure comes for free: an energy is quadratic where its second derivatives do not mention u.
"""

import operator
import types
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten


class UntraceableError(Exception):
    """The density does something that has no meaning entry by entry; the cause is in the message."""


# -- derivatives of a function of one point --------------------------------------------------------------------------


def value_and_gradient(function: Callable[..., Tensor], wrt: Sequence[int]) -> Callable[..., list[Tensor]]:
    """(ψ, ∂ψ/∂arguments of the given positions)."""

    def both(*args: Tensor) -> list[Tensor]:
        value = function(*args)
        return [value, *gradients(value, [args[i] for i in wrt])]

    return both


def directional(function: Callable[..., Tensor], wrt: Sequence[int]) -> Callable[..., Tensor]:
    """ψ′: a function of the arguments and of one direction for each position of `wrt`, Σ ⟨∂ψ/∂aᵢ, wᵢ⟩."""

    def along(*args: Tensor) -> Tensor:
        arguments, directions = args[: len(args) - len(wrt)], args[len(args) - len(wrt) :]
        slopes = gradients(function(*arguments), [arguments[i] for i in wrt])
        return torch.stack([(g * w).sum() for g, w in zip(slopes, directions, strict=True)]).sum()

    return along


def hessian(function: Callable[..., Tensor], wrt: Sequence[int]) -> Callable[..., list[Tensor]]:
    """All second derivatives with respect to the entries of some arguments: one row for each entry, concatenated."""

    def rows(*args: Tensor) -> list[Tensor]:
        slots = [args[i] for i in wrt]
        fluxes = [f for g in gradients(function(*args), slots) for f in g.reshape(-1)]
        return [torch.cat([r.reshape(-1) for r in gradients(flux, slots)]) for flux in fluxes]

    return rows


def gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """∂value/∂inputs, zero where nothing depends on them."""
    if not inputs or not value.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    found = torch.autograd.grad(value, list(inputs), create_graph=True, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


# -- programs --------------------------------------------------------------------------------------------------------


class Program:
    """Arithmetic on scalars: `run(inputs)` takes one array for each entry of each argument, and gives the outputs.

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
        self.run: Callable[..., list[Any]] = GraphModule(torch.nn.Module(), graph)


class Builder:
    """A graph of scalar operations under construction: folds constants and finds common subexpressions."""

    def __init__(self):
        self.graph, self.inputs, self.known = Graph(), [], {}

    def input(self) -> "Scalar":
        node = self.graph.placeholder(f"s{len(self.inputs)}")
        self.inputs.append(node)
        return Scalar(self, node)

    def constant(self, value: Any) -> "Scalar":
        """A number in the place of a tensor: of no dimension, it leaves the type of the others as it is."""
        key = ("constant", type(value), value)
        if key not in self.known:
            dtype = torch.bool if isinstance(value, bool) else torch.float64
            self.known[key] = Scalar(self, self.graph.call_function(torch.scalar_tensor, (value,), {"dtype": dtype}))
        return self.known[key]

    def emit(self, target: Any, *args: Any) -> Any:
        """An operation on scalars and numbers."""
        operation = target.func if isinstance(target, partial) else target
        plain = operation in PLAIN.values()
        if not any(isinstance(a, Scalar) for a in args):
            return target(*args) if plain else number(target(*[torch.tensor(a) for a in args]))
        if plain:
            simple = simplified(target, args)
            if simple is not None:
                return simple
        else:
            tensors = [a.type.kind() == "TensorType" for a in operation._schema.arguments]
            args = tuple(
                self.constant(a) if t and not isinstance(a, Scalar) else a for a, t in zip(args, tensors, strict=False)
            )
        key = (str(target), *[(a.node,) if isinstance(a, Scalar) else (type(a), a) for a in args])
        if key not in self.known:
            nodes = tuple(a.node if isinstance(a, Scalar) else a for a in args)
            self.known[key] = Scalar(self, self.graph.call_function(target, nodes))
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


PLAIN = {
    aten.add: operator.add,
    aten.sub: operator.sub,
    aten.mul: operator.mul,
    aten.div: operator.truediv,
    aten.pow: operator.pow,
}


def simplified(target: Any, args: tuple[Any, ...]) -> Any:
    """The result where one operand makes the operation trivial, else None."""
    if len(args) != 2:
        return None
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
    if target is operator.pow and plain[1] and b in (0, 1, 2):
        return (1.0, a, a.builder.emit(operator.mul, a, a))[int(b)]
    return None


def number(value: Any) -> Any:
    """A Python number from a tensor of one element."""
    return value.item() if isinstance(value, Tensor) else value


# -- from a trace to a program ---------------------------------------------------------------------------------------


def trace(function: Callable[..., Any], examples: Sequence[Tensor]) -> Program:
    """The program of a function of one point, a list of tensors from tensors shaped like `examples`.

    Raises:
        UntraceableError: it branches on values, needs a gradient of a captured tensor, or uses an operation that is
            neither elementwise nor a sum, a product of matrices or a change of shape.
    """
    recorder = Recorder()
    inputs = [e.detach().clone().requires_grad_() for e in examples]
    for tensor in inputs:
        recorder.write(tensor, [recorder.builder.input() for _ in range(tensor.numel())])
    try:
        with torch.enable_grad(), recorder:
            outputs = function(*inputs)
        return Program(recorder.builder, [recorder.read(o) for o in outputs])
    except UntraceableError:
        raise
    except Exception as error:  # whatever a density can trip over at a single point
        raise UntraceableError(f"{type(error).__name__}: {error}") from error


class Recorder(TorchDispatchMode):
    """Follows numbers through memory: a table from the address of an entry to the scalar that it stands for.

    Views need no translation then, since they show the same addresses; whatever is not in the table is a constant.
    """

    def __init__(self):
        super().__init__()
        self.builder, self.table, self.alive = Builder(), {}, []

    def addresses(self, tensor: Tensor) -> list[int]:
        offsets = torch.zeros((), dtype=torch.int64)
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            offsets = offsets[..., None] + stride * torch.arange(size)
        return (tensor.data_ptr() + tensor.element_size() * offsets).reshape(-1).tolist()

    def write(self, tensor: Tensor, entries: Sequence[Any]) -> None:
        self.alive.append(tensor)  # its memory must not serve another tensor
        self.table.update(zip(self.addresses(tensor), entries, strict=True))

    def read(self, tensor: Tensor) -> np.ndarray:
        """The entries of a tensor as scalars and numbers."""
        if tensor.numel() > 1000:
            raise UntraceableError(f"it captures a tensor of shape {tuple(tensor.shape)}")
        known = [self.table.get(address) for address in self.addresses(tensor)]
        if any(k is None for k in known):
            if tensor.requires_grad:
                raise UntraceableError("a captured tensor requires a gradient")
            values = tensor.detach().reshape(-1).tolist()
            known = [v if k is None else k for k, v in zip(known, values, strict=True)]
        return object_array(known, tensor.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = [t for t in pieces([args, list(kwargs.values())]) if isinstance(t, Tensor) and self.knows(t)]
        if not known or func.is_view or func.overloadpacket in SAME:
            result = func(*args, **kwargs)
            self.alive += [r for r in pieces([result]) if isinstance(r, Tensor)]
            return result
        rule = rule_of(func)
        if rule is None:
            if func not in decompositions():
                raise UntraceableError(f"`{func}` has no meaning entry by entry")
            with self:
                return decompositions()[func](*args, **kwargs)
        arrays = tree_map_only(Tensor, self.read, args), tree_map_only(Tensor, self.read, kwargs)
        result = func(*args, **kwargs)
        results = [r for r in pieces([result]) if isinstance(r, Tensor)]
        outcomes = rule(self.builder, func, *arrays)
        for tensor, entries in zip(results, outcomes if isinstance(outcomes, list) else [outcomes], strict=True):
            self.write(tensor, np.broadcast_to(entries, tuple(tensor.shape)).reshape(-1).tolist())
        return result

    def knows(self, tensor: Tensor) -> bool:
        return any(address in self.table for address in self.addresses(tensor))


SAME = {aten.detach, aten.alias, aten.lift_fresh, aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like}
SAME |= {aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty, aten.new_empty_strided}


def object_array(entries: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array.reshape(tuple(shape))


def pieces(value: Any) -> list[Any]:
    """All leaves of nested argument lists."""
    return [p for v in value for p in pieces(v)] if isinstance(value, list | tuple) else [value]


@cache
def decompositions() -> dict[Any, Any]:
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def rule_of(func: Any) -> Any:
    """How an operation acts on arrays of scalars, or None."""
    if func.overloadpacket in RULES:
        return RULES[func.overloadpacket]
    return elementwise if torch.Tag.pointwise in func.tags else None


def elementwise(builder: Builder, func: Any, args: Any, kwargs: Any) -> np.ndarray:
    name, kwargs = func.overloadpacket.__name__, dict(kwargs)
    if func._schema.is_mutable:
        if not name.endswith("_"):
            raise UntraceableError(f"`{func}` writes into an argument")
        func = getattr(getattr(aten, name[:-1]), func._overloadname)
    alpha = kwargs.pop("alpha", 1)
    if alpha != 1:
        args = (args[0], args[1] * alpha, *args[2:])
    plain = PLAIN.get(func.overloadpacket) if not kwargs else None
    call = plain or (partial(func, **kwargs) if kwargs else func)
    arrays = [a if isinstance(a, np.ndarray) else object_array([a], ()) for a in args]
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    columns = [np.broadcast_to(a, shape).reshape(-1) for a in arrays]
    return object_array([builder.emit(call, *row) for row in zip(*columns, strict=True)], shape)


def moved(builder: Builder, func: Any, args: Any, kwargs: Any) -> Any:
    """An operation that only moves entries, found out by moving their numbers; whatever it fills in is zero."""
    pool: list[Any] = [0.0]

    def numbered(value: np.ndarray) -> Tensor:
        start = len(pool)
        pool.extend(value.reshape(-1))
        return torch.arange(start, len(pool)).reshape(value.shape)

    result = func(*tree_map_only(np.ndarray, numbered, args), **tree_map_only(np.ndarray, numbered, kwargs))
    found = [object_array([pool[i] for i in r.reshape(-1).tolist()], r.shape) for r in pieces([result])]
    return found if isinstance(result, list | tuple) else found[0]


def summed(builder: Builder, func: Any, args: Any, kwargs: Any) -> np.ndarray:
    array, ufunc = args[0], np.multiply if func.overloadpacket is aten.prod else np.add
    axes = axes_of(array, args[1] if len(args) > 1 else None)
    keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    total = reduced(ufunc, array, axes, keep)
    return total * (1 / prod(array.shape[a] for a in axes)) if func.overloadpacket is aten.mean else total


def euclidean(builder: Builder, func: Any, args: Any, kwargs: Any) -> np.ndarray:
    if len(args) > 1 and args[1] != 2:
        raise UntraceableError(f"a norm of order {args[1]}")
    keep = bool(args[3]) if len(args) > 3 else bool(kwargs.get("keepdim", False))
    total = reduced(np.add, args[0] * args[0], axes_of(args[0], args[2] if len(args) > 2 else None), keep)
    return object_array([builder.emit(aten.sqrt.default, e) for e in total.reshape(-1)], total.shape)


def axes_of(array: np.ndarray, dims: Any) -> list[int]:
    dims = [dims] if isinstance(dims, int) else dims or range(array.ndim)
    return sorted((d % array.ndim for d in dims), reverse=True)


def reduced(ufunc: Any, array: np.ndarray, axes: Sequence[int], keep: bool) -> np.ndarray:
    for axis in axes:
        array = np.asarray(ufunc.reduce(array, axis=axis, keepdims=keep), dtype=object)
    return array


def looked_at(builder: Builder, func: Any, args: Any, kwargs: Any) -> Any:
    raise UntraceableError("it looks at values, with `if`, `float` or `item`")


RULES: dict[Any, Any] = dict.fromkeys((aten.clone, aten._to_copy, aten._unsafe_view, aten.repeat, aten.flip, aten.roll, aten.cat, aten.stack, aten.select_scatter, aten.slice_scatter, aten.diagonal_scatter, aten.select_backward, aten.slice_backward, aten.diagonal_backward, aten.tril, aten.triu, aten.constant_pad_nd, aten.index, aten.index_select), moved)  # fmt: skip
RULES |= dict.fromkeys((aten.sum, aten.mean, aten.prod), summed)
RULES |= {packet: lambda builder, func, args, kwargs: args[0] @ args[1] for packet in (aten.mm, aten.bmm, aten.mv)}
RULES |= {
    aten.dot: lambda builder, func, args, kwargs: args[0] @ args[1],
    aten.addmm: lambda builder, func, args, kwargs: args[0] + args[1] @ args[2],
    aten.copy_: lambda builder, func, args, kwargs: args[1],
    aten.linalg_vector_norm: euclidean,
    aten._local_scalar_dense: looked_at,
    aten.is_nonzero: looked_at,
}


# -- one trace for many calls ----------------------------------------------------------------------------------------

_cache: "WeakKeyDictionary[Any, dict[Hashable, Any]]" = WeakKeyDictionary()


def cached(function: Callable[..., Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """`make()`, kept while the function and everything it refers to stay as they are."""
    full = (fingerprint(function), key)
    try:
        known = _cache.setdefault(function, {})
    except TypeError:  # an object without weak references
        return make()
    if full not in known:
        if len(known) > 64:
            known.clear()
        known[full] = make()
    return known[full]


def fingerprint(value: Any, seen: tuple[int, ...] = ()) -> Hashable:
    """What a function's result can depend on besides its arguments: closures, globals, defaults, attributes."""
    if isinstance(value, Tensor):
        return id(value), value._version, value.requires_grad
    if value is None or isinstance(value, int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(value), value
    if id(value) in seen or isinstance(value, types.ModuleType | type | types.BuiltinFunctionType):
        return id(value)
    seen = (*seen, id(value))
    if isinstance(value, tuple | list):
        return tuple(fingerprint(v, seen) for v in value)
    if isinstance(value, dict):
        return tuple((k, fingerprint(v, seen)) for k, v in value.items())
    if isinstance(value, types.MethodType):
        return fingerprint(value.__func__, seen), fingerprint(value.__self__, seen)
    if isinstance(value, partial):
        return tuple(fingerprint(v, seen) for v in (value.func, value.args, value.keywords))
    if isinstance(value, types.FunctionType):
        closure = [fingerprint(c.cell_contents, seen) for c in value.__closure__ or ()]
        named = [fingerprint(value.__globals__[n], seen) for n in names(value.__code__) if n in value.__globals__]
        return id(value), *closure, *named, fingerprint(value.__defaults__ or (), seen)
    inner = getattr(value, "__dict__", None)
    call = getattr(type(value), "__call__", None)
    return id(value), fingerprint(inner, seen), fingerprint(call, seen) if inner else None


def names(code: types.CodeType) -> list[str]:
    """Global names used by a function and the functions inside it."""
    inner = [n for c in code.co_consts if isinstance(c, types.CodeType) for n in names(c)]
    return [*code.co_names, *inner]
