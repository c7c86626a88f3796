"""What a density does with its arguments at one point, call after call of PyTorch, with all the numbers it brings.

A density may depend on anything: attributes, files, other modules. Nothing can tell from outside whether that has
changed, so that the density is run at one point whenever it is used: it does the same as before where its tape, with
all constants on it, is the same. Programs are made from tapes, never from the density; they cannot outlive it.

A density that looks at numbers, or takes them out of tensors, is not told by its tape and refused.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fem.kernels.program import UntraceableError
from fem.kernels.tracing import ENTRIES, at_random, memory, tensors_in

aten = torch.ops.aten

KINDS = (
    *(
        "shape",
        "ndim",
        "dtype",
        "device",
        "requires_grad",
        "layout",
        "is_leaf",
        "grad_fn",
        "is_cuda",
        "is_cpu",
        "names",
    ),
    *("is_sparse", "is_nested", "is_quantized", "is_meta", "is_mps", "itemsize", "nbytes", "output_nr", "_version"),
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "storage_offset", "get_device"),
    *("is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_inference", "is_conj", "is_neg"),
    *("__len__", "__hash__", "is_tensor", "result_type", "can_cast", "is_same_size"),
)  # what tells the kind of a tensor and none of its numbers


class Known(NamedTuple):
    """A tensor on the tape."""

    place: int

    def value(self, places: dict[Any, Any]) -> Any:
        return places[self.place]


class Plain:
    """A number, a type or a word; told by type and `repr`, since 0 and −0 are equal and nan is not itself."""

    __slots__ = ("kept", "key")

    def __init__(self, value: Any):
        self.kept, self.key = value, (type(value), repr(value))

    def value(self, places: dict[Any, Any]) -> Any:
        return self.kept

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.key == other.key


class Fixed(Plain):
    """A tensor from outside, told by its numbers."""

    __slots__ = ()

    def __init__(self, value: Tensor):
        self.kept = value.detach().clone()
        self.key = tuple(value.shape), value.dtype, value.device, repr(self.kept.tolist())

    def value(self, places: dict[Any, Any]) -> Any:
        return self.kept.clone()


class Several(NamedTuple):
    """A list, tuple or slice."""

    kind: Callable[..., Any]
    parts: tuple[Any, ...]

    def value(self, places: dict[Any, Any]) -> Any:
        parts = [p.value(places) for p in self.parts]
        return slice(*parts) if self.kind is slice else self.kind(parts)


class Call(NamedTuple):
    """One function of PyTorch: its arguments, whether derivatives were recorded, and where its tensors stand from."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]
    graph: bool
    start: int


class Tape:
    """Calls one after another, and the value at the end. Equal where everything on it is."""

    def __init__(self, calls: tuple[Call, ...], end: Any):
        self.calls, self.end = calls, end
        self.hash = hash((calls, end))

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Tape) or self.hash != other.hash:
            return self is other
        return self.end == other.end and self.calls == other.calls

    def run(self, *arguments: Any) -> Tensor:
        """The value for other arguments, differentiable as the density is; numbers among them stand on the tape."""
        places: dict[Any, Any] = dict(enumerate(a for a in arguments if isinstance(a, Tensor)))
        for call in self.calls:
            with nullcontext() if call.graph else torch.no_grad():
                options = {name: v.value(places) for name, v in call.options}
                made = call.function(*[a.value(places) for a in call.arguments], **options)
            places.update(enumerate(tensors_in(made), call.start))
        return self.end.value(places)


PLAIN = (int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, np.generic)
PLAIN += (type(None), type(Ellipsis))


def record(
    density: Callable[..., Any], arguments: Sequence[Any], dtype: torch.dtype, start: float = 0.0, strict: bool = False
) -> Tape:
    """The tape of a density at a point; arguments are shapes of tensors, or the numbers that they are.

    Args:
        start: which point.
        strict: also look for operations that pass by the tape, such as those of compiled functions.

    Raises:
        UntraceableError: it looks at numbers, takes them out of tensors, or needs a gradient of a captured tensor.
    """
    made = iter(at_random([a for a in arguments if isinstance(a, tuple)], dtype, start))
    given = [next(made) if isinstance(a, tuple) else a for a in arguments]
    watch = Watch([g for g in given if isinstance(g, Tensor)])
    try:
        # A user's inference mode would leave no gradients to trace.
        with torch.inference_mode(False), torch.enable_grad(), Bypass(watch) if strict else nullcontext(), watch:
            value = density(*given)
        if not isinstance(value, Tensor):
            raise watch.refuse(f"it gives {type(value).__name__}")
        end = watch.named(value)
    except UntraceableError:
        raise
    except Exception as error:  # whatever a density can trip over at a single point
        raise UntraceableError(f"{type(error).__name__}: {error}") from error
    if watch.refused:  # and the density went on
        raise UntraceableError(watch.refused)
    return Tape(tuple(watch.calls), end)


def check(density: Callable[..., Any], arguments: Sequence[Any], dtype: torch.dtype, tape: Tape) -> None:
    """Raise where a tape that has not been met before does not tell all: where another point leaves another one."""
    if record(density, arguments, dtype, 0.7, strict=True) != tape:
        raise UntraceableError("its values depend on more than its arguments, or on how numbers left their tensors")


class Watch(TorchFunctionMode):
    """Writes the tape while a density runs."""

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.places = {id(t): i for i, t in enumerate(inputs)}
        self.count = len(inputs)
        self.alive = list(inputs)  # or else ids come back with other tensors
        self.memory: set[int | None] = set()
        self.looked = 0  # how many of `alive` are in `memory`
        self.calls: list[Call] = []
        self.refused, self.inside = "", False

    def refuse(self, why: str) -> UntraceableError:
        self.refused = self.refused or why
        return UntraceableError(why)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in KINDS:
            return func(*args, **kwargs)
        given = tensors_in(args) + (tensors_in(list(kwargs.values())) if kwargs else [])
        if not any(id(t) in self.places for t in given):  # constants stay such until they meet the arguments
            if any(self.shows(t) for t in given):
                raise self.refuse("it reads numbers where PyTorch does not see it")
            return func(*args, **kwargs)
        if "out" in kwargs or (name == "__setitem__" and id(args[0]) not in self.places):
            raise self.refuse("it writes values into a captured tensor")
        arguments = tuple([self.named(a) for a in args])
        options = tuple([(k, self.named(kwargs[k])) for k in sorted(kwargs)]) if kwargs else ()
        graph, self.inside = torch.is_grad_enabled(), True
        try:
            made = func(*args, **kwargs)
        finally:
            self.inside = False
        results = tensors_in(made)
        if any(r is t for r in results for t in given if id(t) not in self.places):
            raise self.refuse("it writes values into a captured tensor")
        if not results and name != "__setitem__":
            raise self.refuse(f"it looks at values, or takes them out of tensors, with `{name}`")
        self.calls.append(Call(func, arguments, options, graph, self.count))
        for t in results:
            self.places[id(t)] = self.count
            self.count += 1
        self.alive += results
        return made

    def named(self, value: Any) -> Any:
        """An argument as the tape has it."""
        if isinstance(value, Tensor):
            if value.grad_fn is not None and isinstance(value.grad_fn, BackwardCFunction):
                raise self.refuse("it has a derivative of its own")
            place = self.places.get(id(value))
            return self.fixed(value) if place is None else Known(place)
        if isinstance(value, PLAIN):
            return Plain(value)
        if isinstance(value, list | tuple):
            return Several(list if isinstance(value, list) else tuple, tuple(map(self.named, value)))
        if isinstance(value, slice):
            return Several(slice, tuple(map(self.named, (value.start, value.stop, value.step))))
        raise self.refuse(f"it hands {type(value).__name__} to PyTorch")

    def fixed(self, value: Tensor) -> "Fixed":
        """A tensor from outside."""
        if value.requires_grad and torch.is_grad_enabled():
            raise self.refuse("a captured tensor requires a gradient")
        if value.numel() > ENTRIES:
            raise self.refuse(f"it works with {value.numel()} numbers at a point, shape {tuple(value.shape)}")
        if self.shows(value):
            raise self.refuse("it reads numbers where PyTorch does not see it")
        self.alive.append(value)
        return Fixed(value)

    def shows(self, value: Tensor) -> bool:
        """Whether a tensor that is not on the tape lies in the memory of one that is."""
        self.memory |= {memory(t) for t in self.alive[self.looked :] if id(t) in self.places}
        self.looked = len(self.alive)
        return memory(value) in self.memory - {None}


class Bypass(TorchDispatchMode):
    """Notices operations on arguments that are part of no call on the tape."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `fem.kernels.tracing.Recorder`

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            not self.watch.inside
            and func is not aten.detach.default
            and any(
                id(t) in self.watch.places or self.watch.shows(t)
                for t in tensors_in([args, list((kwargs or {}).values())])
            )
        ):
            raise self.watch.refuse(f"`{func}` is called where PyTorch does not tell of it")
        return func(*args, **(kwargs or {}))


def name_of(function: Any) -> str:
    """What a function, or the attribute that it reads, is called."""
    name = getattr(function, "__name__", "")
    return getattr(function.__self__, "__name__", name) if name == "__get__" else name
