"""Whether an integrand is an expression at a point: many points at once must give what each of them gives alone.

Asked once for each kind of arguments, at points of the domain and with values of u that no solve has chosen: the same
points are evaluated beside others, whose values must not matter, and a few alone, so that no axis but those of
components and directions can matter either.
"""

from collections.abc import Callable, Sequence
from itertools import count
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fem.forms.parameters import PointValues
from fem.kernels.tape import name_of
from fem.kernels.tracing import tensors_in
from fem.space.facets.two_sides import TwoSided
from fem.support.arithmetic import common_batch

POINTS = 2**13  # at most, evaluated at once
SIZES = (0.5, 0.01)  # of u and its derivatives
LEAVING = ("numpy", "__array__", "tolist", "__dlpack__", "untyped_storage", "data_ptr")


class LeavesError(Exception):
    """Numbers of u leave PyTorch, or their precision: what the integrand does, and what it should."""


class NoLeaving(TorchFunctionMode):
    """Follows u and all that is made of it; what leaves PyTorch takes its derivatives with it, a cast their digits."""

    def __init__(self, watched: Sequence[Tensor]):
        super().__init__()
        self.alive, self.known = list(watched), {id(t) for t in watched}
        self.cast = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tensors_in([args, list(kwargs.values())]) if id(t) in self.known]
        if given:
            if name_of(func) in LEAVING:
                raise LeavesError(
                    f"takes u out of PyTorch with `{name_of(func)}`, where its derivatives are lost; write it with "
                    "functions of torch, such as `torch.where`, and tensors"
                )
            made = func(*args, **kwargs)
            for t in tensors_in(made):
                finer = [g.dtype for g in given if g.is_floating_point() and g.dtype.itemsize > t.dtype.itemsize]
                if finer and t.is_floating_point():
                    self.cast = f"casts u from {finer[0]} to {t.dtype} with `{name_of(func)}`; leave the cast out"
            self.alive += tensors_in(made)
            self.known |= {id(t) for t in tensors_in(made)}
            return made
        return func(*args, **kwargs)


def check_pointwise(name: str, density: Callable[..., Any], arguments: Sequence[Any], slots: int) -> None:
    """Raise where an integrand mixes points, depends on how many there are, or takes u out of PyTorch.

    Args:
        arguments: at the points of a domain, in tuples on mixed spaces.
        slots: how many of them after x are u, its derivatives, and what tests them: these get other values.

    Raises:
        ValueError: with the remedy.
    """
    given = [p for p in leaves(arguments) if isinstance(p.value, Tensor)]
    lead = common_batch(*[p.value.shape[: p.value.ndim - p.rank] for p in given])
    some, points = chosen(arguments, lead)
    for size in SIZES:
        seeds = count()
        own = [
            each(lambda p: PointValues(scattered(p.value, size, next(seeds)), p.rank), argument)  # noqa: B023
            for argument in some[1 : slots + 1]
        ]
        check_values(name, density, [some[0], *own, *some[slots + 1 :]], points, own)


def check_values(
    name: str, density: Callable[..., Any], arguments: Sequence[Any], lead: tuple[int, ...], own: Sequence[Any]
) -> None:
    """The same for given values of u; whatever else is wrong with an integrand is told when it is evaluated."""

    def at(*args: Any) -> Tensor | None:
        """Its values at all points."""
        found = evaluated(density, args)
        try:
            return None if found is None else found.expand(lead)
        except RuntimeError:  # told where it is evaluated in earnest
            return None

    try:
        with NoLeaving([p.value for p in leaves(own)]) as watch:
            values = at(*arguments)
        if watch.cast and values is not None and values.dtype in (torch.float32, torch.float64):
            raise LeavesError(watch.cast)  # of other results `Term.check` tells
    except LeavesError as error:
        raise ValueError(f"the {name} {error}.") from None
    if values is None:
        return
    mask = torch.arange(lead[-2], device=values.device)[:, None] + torch.arange(lead[-1], device=values.device)
    for kept in (mask % 2 == 0, mask % 2 == 1):
        others = at(*each(lambda p, kept=kept: mixed(p, kept), arguments))
        same = kept.expand(lead)
        if others is not None and differ(values[same], others[same]) and not differ(values, at(*arguments)):
            raise ValueError(message(name, "with the values at other points"))
    for k in (0, values.numel() // 2, values.numel() - 1):
        place = tuple(int(i) for i in np.unravel_index(k, lead))
        single = evaluated(density, alone(arguments, place, lead, False))
        if single is None or single.ndim:
            single = evaluated(density, alone(arguments, place, lead, True))
        if single is None or single.numel() != 1:
            continue
        if differ(values[place], single.reshape(()), values) and not differ(values, at(*arguments)):
            raise ValueError(message(name, "with how many points are evaluated at once"))


def each(function: Callable[[PointValues], Any], arguments: Any) -> Any:
    """Some function of all arguments, in the tuples in which they stand on mixed spaces."""
    if isinstance(arguments, PointValues):
        return function(arguments)
    if isinstance(arguments, TwoSided):
        return arguments.map(lambda side: each(function, side))
    found = [each(function, a) for a in arguments]
    return tuple(found) if isinstance(arguments, tuple) else found


def leaves(arguments: Any) -> list[PointValues]:
    if isinstance(arguments, PointValues):
        return [arguments]
    parts = (arguments.minus, arguments.plus) if isinstance(arguments, TwoSided) else arguments
    return [p for part in parts for p in leaves(part)]


def message(name: str, how: str) -> str:
    return (
        f"the {name} is no expression at a point: its value at a point changes {how}. Let functions act on components "
        "and directions alone: `grad_u.square().sum(-1)` instead of `.sum()`, likewise `.mean(-1)`, `.norm(dim=-1)`, "
        "`.amax(-1)`; and let nothing depend on `x.ndim`, `x.shape[0]` or `len(x)`."
    )


def evaluated(density: Callable[..., Any], arguments: Sequence[Any]) -> Tensor | None:
    """What a density gives, None where it gives no tensor or fails: that is told where it is evaluated in earnest."""
    try:
        with torch.enable_grad():
            found = density(*each(lambda p: p.value, arguments))
    except LeavesError:
        raise
    except Exception:
        return None
    return found.detach() if isinstance(found, Tensor) else None


def differ(a: Tensor, b: Tensor | None, scale: Tensor | None = None) -> bool:
    """Whether two values of one expression are different by more than round-off, which is large where terms cancel."""
    if b is None or not a.is_floating_point() or not a.numel():
        return False
    finite = (a if scale is None else scale).nan_to_num(0, 0, 0).abs().max()
    tolerance = 10 * torch.finfo(a.dtype).eps ** 0.5
    return not torch.allclose(a, b.to(a), rtol=tolerance, atol=tolerance * float(finite), equal_nan=True)


def scattered(like: Tensor, size: float, seed: int) -> Tensor:
    """Positive numbers around `size`, all different and always the same."""
    made = torch.rand(like.shape, dtype=torch.float64, device="cpu", generator=torch.Generator("cpu").manual_seed(seed))
    return (size * (0.6 + 0.8 * made)).to(like).requires_grad_()


def chosen(arguments: Sequence[Any], lead: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    """The arguments at some of the cells, if all are too many, and how many points these are."""
    number = min(max(POINTS // prod([*lead[:-2], lead[-1]]), 2), lead[-2])
    if number == lead[-2]:
        return list(arguments), lead
    cells = torch.arange(number, device="cpu") * (lead[-2] // number)

    def some(p: PointValues) -> PointValues:
        axis = -2 - p.rank
        if not isinstance(p.value, Tensor) or p.value.ndim < -axis or p.value.shape[axis] == 1:
            return p
        return PointValues(fresh(p.value.index_select(axis, cells.to(p.value.device)), p.value), p.rank)

    return each(some, arguments), (*lead[:-2], number, lead[-1])


def mixed(p: PointValues, kept: Tensor) -> PointValues:
    """The same at the points to be kept, at others what is at their neighbours'."""
    if not isinstance(p.value, Tensor) or tuple(p.value.shape[-2 - p.rank : p.value.ndim - p.rank]) != kept.shape:
        return p
    moved = p.value.detach().roll(1, -2 - p.rank)
    return PointValues(fresh(torch.where(kept.reshape(*kept.shape, *[1] * p.rank), p.value, moved), p.value), p.rank)


def alone(arguments: Sequence[Any], place: tuple[int, ...], lead: tuple[int, ...], axes: bool) -> list[Any]:
    """The arguments at one point, with leading axes of length one or without."""

    def picked(p: PointValues) -> PointValues:
        if not isinstance(p.value, Tensor):
            return p
        own = p.value.shape[: p.value.ndim - p.rank]
        index = [i if n > 1 else 0 for i, n in zip(place[len(lead) - len(own) :], own, strict=True)]
        return PointValues(fresh(p.value[tuple(slice(i, i + 1) if axes else i for i in index)], p.value), p.rank)

    return each(picked, arguments)


def fresh(value: Tensor, like: Tensor) -> Tensor:
    """A tensor that begins a graph, if another takes part in one."""
    return value.detach().requires_grad_(like.requires_grad)
