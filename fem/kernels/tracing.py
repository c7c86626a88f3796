"""Densities as arithmetic on numbers: what a user's expression does at one point, traced once and simplified.

A density is traced at a single point, where x is "d", u is "" and ∇u is "d", together with whatever derivatives are
wanted. Every tensor of the trace is then taken apart into its entries, so that what remains is a program of scalars.
What cannot be taken apart is refused, and so is a program that gives other values than the density at a second point:
that is how numbers show which went past the trace.

The derivatives' structure comes for free: an energy is quadratic where its second derivatives do not mention u.
"""

import operator
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import count
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fem.kernels.program import Builder, Program, UntraceableError, object_array

aten = torch.ops.aten

ENTRIES = 1000  # of one tensor: larger ones are better left whole


# -- from a trace to a program ---------------------------------------------------------------------------------------


def trace(function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> Program:
    """The program of a function of one point, a list of tensors from tensors of these shapes."""
    return trace_parts(lambda *args: [function(*args)], shapes, dtype, [len(shapes)])[0]


def trace_parts(
    function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, counts: Sequence[int]
) -> list[Program]:
    """Several programs of one trace: of a function that gives lists, the k-th of the first counts[k] arguments.

    Raises:
        UntraceableError: it branches on values, needs a gradient of a captured tensor, or uses an operation that is
            neither elementwise nor a sum, a product of matrices or a change of shape.
    """
    recorder = Recorder(dtype)
    try:
        # A user's inference mode would leave no gradients to trace.
        with torch.inference_mode(False), torch.enable_grad():
            here, there = (at_random(shapes, dtype, start) for start in (0.0, 0.7))
            for tensor in here:
                recorder.write(tensor, [recorder.builder.input() for _ in range(tensor.numel())])
            with recorder:
                parts = [list(part) for part in function(*here)]
            arrays = [[recorder.read(o) for o in part] for part in parts]
            sizes = [sum(t.numel() for t in here[:count]) for count in counts]
            programs = [Program(recorder.builder, a, size) for a, size in zip(arrays, sizes, strict=True)]
            wanted = torch.cat([w.detach().reshape(-1, 1) for part in function(*there) for w in part])
            entries = [entry for t in there for entry in t.detach().reshape(-1, 1)]
            found = [v for p, size in zip(programs, sizes, strict=True) for v in p.values(entries[:size])]
    except UntraceableError:
        raise
    except Exception as error:  # whatever a density can trip over at a single point
        raise UntraceableError(f"{type(error).__name__}: {error}") from error
    same = torch.stack([torch.as_tensor(f, dtype=wanted.dtype, device="cpu").reshape(1) for f in found])
    tolerance = torch.finfo(dtype).eps ** 0.5
    if not torch.allclose(same, wanted, rtol=tolerance, atol=tolerance * finite_size(wanted), equal_nan=True):
        raise UntraceableError("its values depend on more than its arguments, or on how numbers left their tensors")
    return programs


def at_random(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, start: float) -> list[Tensor]:
    """Arguments at some point, all entries different and between 0.3 and 0.7."""
    numbers = numbers_at(tuple(shapes), start)
    return [torch.tensor(n, dtype=dtype, device="cpu", requires_grad=True) for n in numbers]


@lru_cache(256)
def numbers_at(shapes: tuple[tuple[int, ...], ...], start: float) -> list[Any]:
    fractions = ((start + k * 0.6180339887498949) % 1 for k in count())
    return [np.reshape([0.3 + 0.4 * next(fractions) for _ in range(prod(s))], s).tolist() for s in shapes]


def finite_size(values: Tensor) -> float:
    """The largest finite number."""
    return float(values.nan_to_num(0, 0, 0).abs().max()) if len(values) else 0.0


class Recorder(TorchDispatchMode):
    """Follows numbers through memory: a table from the address of an entry to the scalar that it stands for.

    Views need no translation then, since they show the same addresses; whatever is not in the table is a constant.
    Truth values stay such, all other numbers are floating ones.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.builder, self.table = Builder(dtype), {}
        self.made: set[int | None] = set()  # memory that belongs to the trace
        self.written: set[int | None] = set()  # memory with entries in the table
        self.alive: list[Tensor] = []  # keeps memory from serving another tensor meanwhile

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else PyTorch imports its compiler for this, which takes a second or two

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor may hold anything but constants."""
        return memory(tensor) in self.written

    def captured(self, tensor: Tensor) -> bool:
        """Whether a tensor comes from outside and wants a gradient, which no program can give."""
        return tensor.requires_grad and torch.is_grad_enabled() and memory(tensor) not in self.made

    def write(self, tensor: Tensor, entries: Sequence[Any]) -> None:
        if entries:
            self.alive.append(tensor)
            self.made.add(memory(tensor))
            self.written.add(memory(tensor))
            self.table.update(zip(addresses(tensor), entries, strict=True))

    def read(self, tensor: Tensor, like: Tensor | None = None) -> np.ndarray:
        """The entries of a tensor as scalars and numbers; truth values as numbers too where `like` has numbers."""
        if tensor.numel() > ENTRIES:
            raise UntraceableError(f"it works with {tensor.numel()} numbers at a point, shape {tuple(tensor.shape)}")
        if self.captured(tensor):
            raise UntraceableError("a captured tensor requires a gradient")
        known = [self.table.get(a) for a in addresses(tensor)] if self.knows(tensor) else [None] * tensor.numel()
        if any(k is None for k in known):
            values = tensor.detach().clone().reshape(-1).tolist()
            known = [v if k is None else k for k, v in zip(known, values, strict=True)]
        if like is not None and tensor.dtype is torch.bool and like.dtype is not torch.bool:
            known = [self.builder.convert(k, self.builder.dtype) for k in known]
        return object_array(known, tensor.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, rule = kwargs or {}, rule_of(func)
        tensors = tensors_in([args, list(kwargs.values())])
        known = [t for t in tensors if self.knows(t)]
        if known and rule is None:
            if func not in decompositions():
                raise UntraceableError(f"`{func}` has no meaning entry by entry")
            with self:
                return decompositions()[func](*args, **kwargs)
        if rule is not unchanged and any(self.captured(t) for t in tensors):
            raise UntraceableError("a captured tensor requires a gradient")
        if known and func._schema.is_mutable:
            self.write(args[0], self.read(args[0]).reshape(-1).tolist())  # constants, before they are overwritten
        outcome = func(*args, **kwargs)
        results = tensors_in([outcome])
        self.alive += results
        self.made |= {memory(r) for r in results} - {memory(t) for t in tensors}
        if known and func.is_view and any(r.dtype != known[0].dtype for r in results):
            raise UntraceableError(f"`{func}` reads numbers as another type")
        if known and rule is not unchanged:
            found = rule(self, func, args, kwargs, results)
            for tensor, entries in zip(results, found, strict=True):
                array, shape = np.asarray(entries, dtype=object), tuple(tensor.shape)
                self.write(
                    tensor, (array if array.shape == shape else np.broadcast_to(array, shape)).reshape(-1).tolist()
                )
        return outcome


def memory(tensor: Tensor) -> int | None:
    """Which piece of memory a tensor lies in; empty ones, and zeros as autograd makes them, have none."""
    return None if tensor.numel() == 0 or tensor._is_zerotensor() else tensor.untyped_storage().data_ptr()


def addresses(tensor: Tensor) -> list[int]:
    """Where the entries of a tensor lie in memory, last axis fastest."""
    found, width = [tensor.data_ptr()], tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        found = [a + width * stride * k for a in found for k in range(size)]
    return found


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, Tensor):
        return [value]
    found = []
    if isinstance(value, (list, tuple)):
        for v in value:
            if isinstance(v, Tensor):
                found.append(v)
            elif isinstance(v, (list, tuple)):
                found += tensors_in(v)
    return found


@cache
def decompositions() -> dict[Any, Any]:
    from torch._decomp import decomposition_table

    return dict(decomposition_table)


# -- rules: how operations act on arrays of scalars -------------------------------------------------------------------


@cache
def rule_of(func: Any) -> Any:
    """How an operation acts, or None."""
    if func.is_view:
        return unchanged
    if func.overloadpacket in RULES:
        return RULES[func.overloadpacket]
    return elementwise if torch.Tag.pointwise in func.tags else None


def unchanged(*_: Any) -> None:
    """Results are views, or new and independent of values."""


def elementwise(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    kwargs = dict(kwargs)
    if func._schema.is_mutable:
        name = func.overloadpacket.__name__
        if not name.endswith("_"):
            raise UntraceableError(f"`{func}` writes into an argument")
        func = getattr(getattr(aten, name[:-1]), func._overloadname)
    plain = None if results[0].dtype is torch.bool else PLAIN.get(func.overloadpacket)
    alpha = kwargs.pop("alpha", 1) if plain else 1
    call = func if kwargs or plain is None else plain
    like = None if call is func else results[0]
    arrays = [recorder.read(a, like) if isinstance(a, Tensor) else object_array([a], ()) for a in args]
    if alpha != 1:
        arrays[1] = np.asarray(arrays[1] * alpha, dtype=object)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    columns = [(a if a.shape == shape else np.broadcast_to(a, shape)).reshape(-1) for a in arrays]
    return [object_array([recorder.builder.emit(call, *row, **kwargs) for row in zip(*columns, strict=True)], shape)]


def copied(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    """Into another tensor or another type."""
    source, target = args[0] if func.overloadpacket is aten._to_copy else args[1], results[0]
    array = recorder.read(source, target)
    if source.dtype == target.dtype or (source.dtype is torch.bool and not target.is_floating_point()):
        return [array]
    if target.dtype is torch.bool or target.is_floating_point():
        entries = [recorder.builder.convert(e, target.dtype) for e in array.reshape(-1)]
    elif source.is_floating_point():
        entries = [recorder.builder.emit(aten.trunc.default, e) for e in array.reshape(-1)]
    else:
        return [array]
    return [object_array(entries, array.shape)]


def moved(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    """An operation that only moves entries, found out by moving their numbers; whatever it fills in is zero."""
    pool: list[Any] = [0.0]

    def numbered(tensor: Tensor) -> Tensor:
        start = len(pool)
        pool.extend(recorder.read(tensor, results[0]).reshape(-1))
        return torch.arange(start, len(pool), device="cpu").reshape(tensor.shape)

    if func.overloadpacket is aten.constant_pad_nd and args[2:] not in ((), (0,)):
        raise UntraceableError("it pads with another number than zero")
    if func.overloadpacket in (aten.index, aten.index_select):
        fixed(recorder, args[1:])
        args = (numbered(args[0]), *args[1:])
    else:
        args, kwargs = tree_map_only(Tensor, numbered, args), tree_map_only(Tensor, numbered, kwargs)
    return [
        object_array([pool[i] for i in r.reshape(-1).tolist()], r.shape) for r in tensors_in([func(*args, **kwargs)])
    ]


def put(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    """Entries written, or added, at indices."""
    target, values = recorder.read(args[0]).copy(), recorder.read(args[2], results[0])
    fixed(recorder, args[1])
    index = tuple(slice(None) if i is None else i.numpy() for i in args[1])
    if len(args) > 3 and args[3]:
        np.add.at(target, index, values)  # type: ignore[arg-type]
    else:
        target[index] = values
    return [target]


def fixed(recorder: Recorder, indices: Any) -> None:
    if any(recorder.knows(i) for i in tensors_in(list(indices))):
        raise UntraceableError("it takes entries at indices that depend on values")


def summed(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    array = recorder.read(args[0], results[0])
    axes = axes_of(array, args[1] if len(args) > 1 else None)
    keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    total = reduced(np.multiply if func.overloadpacket is aten.prod else np.add, array, axes, keep)
    return [total * (1 / prod(array.shape[a] for a in axes)) if func.overloadpacket is aten.mean else total]


def extreme(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    call = aten.maximum.default if func.overloadpacket is aten.amax else aten.minimum.default
    pairwise = np.frompyfunc(lambda a, b: recorder.builder.emit(call, a, b), 2, 1)
    array = recorder.read(args[0], results[0])
    keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    return [reduced(pairwise, array, axes_of(array, args[1] if len(args) > 1 else None), keep)]


def euclidean(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    if len(args) > 1 and args[1] != 2:
        raise UntraceableError(f"it takes a norm of order {args[1]}")
    array = recorder.read(args[0])
    keep = bool(args[3]) if len(args) > 3 else bool(kwargs.get("keepdim", False))
    total = reduced(np.add, array * array, axes_of(array, args[2] if len(args) > 2 else None), keep)
    roots = [recorder.builder.emit(aten.sqrt.default, e) for e in total.reshape(-1)]
    return [object_array(roots, total.shape)]


def axes_of(array: np.ndarray, dims: Any) -> list[int]:
    dims = [dims] if isinstance(dims, int) else dims or range(array.ndim)
    return sorted((d % array.ndim for d in dims), reverse=True)


def reduced(ufunc: Any, array: np.ndarray, axes: Sequence[int], keep: bool) -> np.ndarray:
    for axis in axes:
        array = np.asarray(ufunc.reduce(array, axis=axis, keepdims=keep), dtype=object)
    return array


def matrix_product(recorder: Recorder, func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> list[Any]:
    *added, left, right = [recorder.read(a) for a in args]
    total = np.asarray(left @ right, dtype=object) * kwargs.get("alpha", 1)
    return [total if not added else total + added[0] * kwargs.get("beta", 1)]


def looked_at(*_: Any) -> Any:
    raise UntraceableError("it looks at values, with `if`, `float` or `item`")


PLAIN = {
    aten.add: operator.add,
    aten.sub: operator.sub,
    aten.mul: operator.mul,
    aten.div: operator.truediv,
    aten.pow: operator.pow,
}
RULES: dict[Any, Any] = {}
for rule, packets in {
    unchanged: (
        *(aten.detach, aten.alias, aten.lift_fresh, aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like),
        *(aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty, aten.new_empty_strided),
    ),
    copied: (aten.copy_, aten.copy, aten._to_copy),
    moved: (
        *(aten.clone, aten._unsafe_view, aten.repeat, aten.flip, aten.roll, aten.cat, aten.stack, aten.tril, aten.triu),
        *(aten.select_scatter, aten.slice_scatter, aten.diagonal_scatter, aten.constant_pad_nd),
        *(aten.select_backward, aten.slice_backward, aten.diagonal_backward, aten.index, aten.index_select),
    ),
    put: (aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put),
    summed: (aten.sum, aten.mean, aten.prod),
    extreme: (aten.amax, aten.amin),
    matrix_product: (aten.mm, aten.bmm, aten.mv, aten.dot, aten.addmm),
    euclidean: (aten.linalg_vector_norm,),
    looked_at: (aten._local_scalar_dense, aten.is_nonzero, aten.equal),
}.items():
    RULES |= dict.fromkeys(packets, rule)
