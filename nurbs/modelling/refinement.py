"""The same map on more knots or of higher degree: inserted knots, split spans, raised degrees, Bézier pieces, parts.

All of it is one matrix per direction, `fem.reference.bspline.basis_change`, applied to homogeneous control points, and
exact up to round-off. Periodic directions stay periodic where that makes sense: the last p columns of the matrix
between the continued knots belong to the first p control points. Differentiable in everything; items of a batch may
have knots of their own, which must be repeated alike where their multiplicity matters.

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997, chapter 5 (what is computed; not how).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fem.reference.bspline import basis_change, check_knots
from fem.space.factors import along
from fem.support.arithmetic import common_batch
from fem.support.modes import outside_modes
from nurbs.geometry.directions import UVW, continued, per_direction
from nurbs.geometry.numbers import floating
from nurbs.geometry.patch import AnyPatch, Patch, check_patch
from nurbs.modelling.transformation import check_direction, is_pair

KnotList = Float[Tensor, "..."] | Sequence[float] | None


@outside_modes
def insert_knots(patch: AnyPatch, *knots: KnotList) -> AnyPatch:
    """The same map with knots inserted (Boehm's and the Oslo algorithm's result).

    Args:
        knots: one tensor "*b k" or list of numbers per direction, in any order, repeated for multiplicity; None where
            nothing is inserted.

    Raises:
        ValueError: not one per direction; knots outside the parameter range, or repeated more than degree + 1 times.
    """
    check_patch("insert_knots(patch)", patch)
    new: list[Tensor | None] = []
    for axis, values in enumerate(one_each(patch, knots, "insert_knots")):
        if values is None:
            new.append(None)
            continue
        t, (values,) = patch.knots[axis], floating("insert_knots", patch.control_points, knots=values)
        (start, end), inside = patch.domain()[axis], patch.wrapped(values, axis)
        if (bad := ~((inside >= start[..., None]) & (inside <= end[..., None]))).any():
            raise ValueError(
                f"`insert_knots` needs knots in the range of {UVW[axis]}, {_range(patch, axis)}; "
                f"got {values.expand(bad.shape)[bad][0].item()}."
            )
        if not inside.ndim:
            raise ValueError(f"`insert_knots` takes a list or tensor of knots for {UVW[axis]}; got {values.item()}.")
        batch = common_batch(t.shape[:-1], inside.shape[:-1])
        new.append(torch.cat([t.expand(*batch, -1), inside.expand(*batch, -1)], -1).sort(-1).values)
    return express(patch, new)


def refine(patch: AnyPatch, parts: int | Sequence[int] = 2) -> AnyPatch:
    """The same map with each span split into that many equal ones by simple knots (h-refinement).

    Args:
        parts: per direction; 1 leaves a direction as it is.

    Raises:
        ValueError: less than one part; items of a batch that repeat different knots.
    """
    check_patch("refine(patch)", patch)
    counts = per_direction("parts", parts, patch.directions, type(patch).__name__, int)
    if min(counts) < 1:
        raise ValueError(f"`refine(patch, parts)` needs 1 or more parts per direction; got {counts}.")
    new: list[KnotList] = []
    for axis, count in enumerate(counts):
        values = breakpoints(patch, axis).values
        share = torch.arange(1, count, dtype=patch.dtype, device=patch.device) / count
        new.append(torch.lerp(values[..., :-1, None], values[..., 1:, None], share).flatten(-2) if count > 1 else None)
    return insert_knots(patch, *new)


@outside_modes
def elevate_degree(patch: AnyPatch, by: int | Sequence[int] = 1) -> AnyPatch:
    """The same map with the degree raised: every knot is repeated that many times more, the smoothness stays.

    Directions whose degree changes get clamped ends, unless they are periodic.

    Args:
        by: per direction, 0 or more.

    Raises:
        ValueError: a negative number; items of a batch that repeat different knots.
    """
    check_patch("elevate_degree(patch)", patch)
    by = per_direction("by", by, patch.directions, type(patch).__name__, int)
    if min(by) < 0:
        raise ValueError(f"`elevate_degree(patch, by)` raises degrees; got {by}. Lower them with `reduce_degree`.")
    new: list[Tensor | None] = []
    for axis, k in enumerate(by):
        found = breakpoints(patch, axis) if k else None
        new.append(found.knots(found.times + k) if found else None)
    return express(patch, new, [p + k for p, k in zip(patch.degree, by, strict=True)])


@outside_modes
def clamp(patch: AnyPatch) -> AnyPatch:
    """The same map with end knots repeated p + 1 times, so that it starts and ends at its outer control points.

    Periodic and unclamped directions become clamped ones.
    """
    check_patch("clamp(patch)", patch)
    return restrict(patch, *[(None, None)] * patch.directions)


@outside_modes
def restrict(patch: AnyPatch, *ranges: tuple[float | Tensor | None, float | Tensor | None] | None) -> AnyPatch:
    """The part of the map over a smaller box of parameters, clamped there; the parameters keep their values.

    Args:
        ranges: (start, end) per direction, numbers or tensors "*b"; None for what is there already, and in the place
            of a whole pair for a direction that is left alone.

    Raises:
        ValueError: not one range per direction, or one that is empty or not inside the patch's; items of a batch of
            whose knots different ones are inside.
    """
    check_patch("restrict(patch)", patch)
    patch = patch.unwrapped()
    new: list[Tensor | None] = []
    for axis, bounds in enumerate(one_each(patch, ranges, "restrict")):
        if bounds is None:
            new.append(None)
            continue
        if not is_pair(bounds):
            raise ValueError(f"`restrict` takes a pair (start, end) for {UVW[axis]}, or None; got {bounds!r}.")
        old = patch.domain()[axis]
        start, end = (
            whole if bound is None else floating("restrict", patch.control_points, ranges=bound)[0]
            for bound, whole in zip(bounds, old, strict=True)
        )
        if not ((start >= old[0]) & (start < end) & (end <= old[1])).all():
            raise ValueError(
                f"`restrict` needs ranges inside that of the patch, which is {_range(patch, axis)} in {UVW[axis]}; "
                f"got {bounds}."
            )
        p, t = patch.degree[axis], patch.knots[axis]
        inside = (t > start[..., None]) & (t < end[..., None])
        inner = t.expand(inside.shape)[..., same_for_all(inside)]
        first, last = (x[..., None].expand(*inner.shape[:-1], p + 1) for x in (start, end))
        new.append(torch.cat([first, inner, last], -1))
    return express(patch, new)


def split(patch: AnyPatch, at: float | Tensor, direction: int = 0) -> tuple[AnyPatch, AnyPatch]:
    """The parts of the map before and after a parameter; errors as for `restrict`."""
    check_patch("split(patch)", patch)
    check_direction(patch, direction)
    ranges: list[list] = [[None] * patch.directions for _ in range(2)]
    ranges[0][direction], ranges[1][direction] = (None, at), (at, None)
    return restrict(patch, *ranges[0]), restrict(patch, *ranges[1])


@outside_modes
def bezier(patch: AnyPatch) -> AnyPatch:
    """The polynomial or rational pieces of the map, one per span, as a batch of Bézier patches "*b *e".

    Piece [..., i, j] of a surface covers the span i in u and j in v; its knots are the ends of these spans, so that
    parameters keep their values. Pieces of a batch need items that repeat the same knots.

    Raises:
        ValueError: items of a batch that repeat different knots.
    """
    check_patch("bezier(patch)", patch)
    r, ends, new = patch.directions, [], []
    for axis, p in enumerate(patch.degree):
        t = breakpoints(patch, axis).values
        new.append(t.repeat_interleave(p + 1, -1))  # p + 1 times inside too: pieces that share nothing
        own = torch.stack([t[..., :-1], t[..., 1:]], -1).repeat_interleave(p + 1, -1)
        ends.append(own[(..., *[None] * axis, slice(None), *[None] * (r - 1 - axis), slice(None))])
    whole = express(patch, new, closed=False)

    def cut(values: Tensor, trailing: int) -> Tensor:
        lead = values.ndim - r - trailing
        for axis, p in enumerate(patch.degree):
            values = values.unflatten(lead + 2 * axis, (-1, p + 1))
        return values.movedim([lead + 2 * axis for axis in range(r)], [lead + axis for axis in range(r)])

    weights = None if whole.weights is None else cut(whole.weights, 0)
    return whole.replace(control_points=cut(whole.control_points, 1), weights=weights, knots=ends)


@dataclass(frozen=True, eq=False)
class Breakpoints:
    """The different knots "*b k" in a direction's range, and how often each is there; ends count as clamped.

    In a periodic direction both ends are the seam.
    """

    values: Float[Tensor, "*b k"]
    times: Int64[Tensor, "k"]
    closed: bool

    def knots(self, times: Int64[Tensor, "k"]) -> Float[Tensor, "*b m"]:
        """The knot vector (one period of it) that has each of the values that often."""
        if self.closed:
            times = torch.cat([times[:-1], times.new_ones(1)])  # the seam's repetitions stand at the start
        return self.values.repeat_interleave(times, -1)


def breakpoints(patch: Patch, axis: int) -> Breakpoints:
    """The different knots in the parameter range of a direction.

    Raises:
        ValueError: items of a batch that repeat different knots.
    """
    p, closed, t = patch.degree[axis], patch.periodic[axis], patch.knots[axis]
    inner = t if closed else t[..., p : t.shape[-1] - p]
    first = torch.cat([inner.new_ones(1, dtype=torch.bool), same_for_all(inner.diff() > 0)])
    index = first.nonzero()[:, 0]
    times = torch.cat([index, index.new_tensor([inner.shape[-1]])]).diff()
    times[[0, -1]] = times[0] + times[-1] - 1 if closed else p + 1
    return Breakpoints(inner[..., index], times, closed)


def express(
    patch: AnyPatch, knots: Sequence[Tensor | None], degree: Sequence[int] | None = None, closed: bool = True
) -> AnyPatch:
    """The same map on other knots (None: those it has) and of degrees as high or higher.

    Args:
        closed: periodic directions stay so, and their knots are one period; otherwise they become open ones.
    """
    if all(s is None for s in knots):
        return patch
    degree, r = patch.degree if degree is None else degree, patch.directions
    H, stays = patch.homogeneous, [c and (closed or s is None) for c, s in zip(patch.periodic, knots, strict=True)]
    for axis, (s, q) in enumerate(zip(knots, degree, strict=True)):
        if s is not None:
            check_knots(continued(s, q) if stays[axis] else s, q)
            t, p, was = patch.knots[axis], patch.degree[axis], patch.periodic[axis]
            H = along(change_matrix(t, p, s, q, was, stays[axis]), H, axis - r - 1, r + 1)
    new = [t if s is None else s for t, s in zip(patch.knots, knots, strict=True)]
    return rebuilt(patch, H, new, degree, stays)


def change_matrix(
    t: Float[Tensor, "*#b m"], p: int, s: Float[Tensor, "*#b k"], q: int, closed: bool, stays: bool
) -> Float[Tensor, "*b j i"]:
    """`basis_change` from t, one period if `closed`, to s, one period if it `stays` so."""
    long = continued(s, q) if stays else s
    A = basis_change(continued(t, p) if closed else t, p, long, q)
    if stays:  # functions that end where the period starts are known from its end
        k = s.shape[-1] - 1
        before = (long[..., q + 1 : 2 * q + 1] <= s[..., :1])[..., None]
        A = torch.cat([torch.where(before, A[..., k:, :], A[..., :q, :]), A[..., q:k, :]], -2)
    if closed:  # the control points at the end are those of the start
        n = t.shape[-1] - 1
        A = A.new_zeros(*A.shape[:-1], n).index_add(-1, torch.arange(A.shape[-1], device=A.device) % n, A)
    return A


def rebuilt(patch: AnyPatch, H: Tensor, knots: Sequence[Tensor], degree: Sequence[int], periodic) -> AnyPatch:
    """A patch with these homogeneous control points, and all else like the given one."""
    kept = {name: getattr(patch, name) for name in ("knot_gradient", "sigma", "check_finite", "sides")}
    return patch.from_homogeneous(H, knots, degree, patch.weights is not None, periodic=periodic, **kept)


def same_for_all(mask: Bool[Tensor, "*b m"]) -> Bool[Tensor, "m"]:
    """A mask "*b m" that is the same for all items, as "m"."""
    rows = mask.reshape(-1, mask.shape[-1])
    if (rows != rows[0]).any():
        raise ValueError("The items of this batch repeat different knots. Treat `patch[i]` one by one.")
    return rows[0]


def one_each(patch: Patch, given: Sequence, call: str) -> Sequence:
    if len(given) != patch.directions:
        raise ValueError(
            f"`{call}` takes one argument per direction of a `{type(patch).__name__}` ({patch.directions}), None where "
            f"nothing is to be done; got {len(given)}."
        )
    return given


def _range(patch: Patch, axis: int) -> list:
    return [bound.tolist() for bound in patch.domain()[axis]]
