"""Fewer knots or a lower degree: the nearest map of the smaller space, and a bound on how far away it is.

The coefficients of both in a common finer space are compared, direction by direction, in least squares; clamped ends
are kept exactly. What a smaller space holds it gives back up to round-off, so that removal undoes insertion and
reduction undoes elevation.

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997, sections 5.4 and 5.6 (the tasks; there they are
done knot by knot).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.space.factors import along
from fem.support.modes import outside_modes
from nurbs.geometry.directions import UVW, per_direction
from nurbs.geometry.numbers import floating
from nurbs.geometry.patch import AnyPatch, Patch, check_patch
from nurbs.modelling.refinement import Breakpoints, KnotList, breakpoints, change_matrix, one_each, rebuilt


@outside_modes
def remove_knots(patch: AnyPatch, *knots: KnotList) -> tuple[AnyPatch, Float[Tensor, "*b"]]:
    """The nearest map without some of its inner knots, and a bound on |difference| over the whole range.

    Directions that change get clamped ends, unless they are periodic.

    Args:
        knots: list of numbers or tensor "k" per direction, a number as often as its knot is to be removed; None where
            nothing is.

    Raises:
        ValueError: not one per direction; a number that is no inner knot, or more often than it is there; items of a
            batch that repeat different knots, or do not all have these; weights that come out not positive.
    """
    check_patch("remove_knots(patch)", patch)
    bound = patch.control_points.new_zeros(())
    for axis, given in enumerate(one_each(patch, knots, "remove_knots")):
        if given is None:
            continue
        found = breakpoints(patch, axis)
        given = torch.atleast_1d(*floating("remove_knots", patch.control_points, knots=given))
        inner = found.values[..., 1:-1].detach()
        there = (inner[..., None, :] - given[:, None]).abs() <= 16 * torch.finfo(patch.dtype).eps * inner.abs().amax()
        there = there.reshape(-1, *there.shape[-2:])
        times = found.times.clone()
        times[1:-1] -= there[0].sum(0)
        if (there != there[0]).any() or not there[0].any(-1).all() or (times < 0).any():
            have = inner.reshape(-1, inner.shape[-1])[0].repeat_interleave(found.times[1:-1]).tolist()
            raise ValueError(
                f"`remove_knots` needs inner knots of {UVW[axis]}, no more often than every item has them; "
                f"got {given.tolist()}, and there are {have}."
            )
        patch, more = _project(patch, axis, found, times, patch.degree[axis])
        bound = bound + more
    return patch, bound


@outside_modes
def reduce_degree(patch: AnyPatch, by: int | Sequence[int] = 1) -> tuple[AnyPatch, Float[Tensor, "*b"]]:
    """The nearest map of lower degree on the same spans, and a bound on |difference| over the whole range.

    An inner knot of multiplicity m keeps m - by, at least 1. Directions that change get clamped ends, unless they are
    periodic.

    Args:
        by: per direction, 0 or more.

    Raises:
        ValueError: a negative number, or one above the degree; items of a batch that repeat different knots; weights
            that come out not positive.
    """
    check_patch("reduce_degree(patch)", patch)
    by = per_direction("by", by, patch.directions, type(patch).__name__, int)
    if min(by) < 0 or any(k > p for k, p in zip(by, patch.degree, strict=True)):
        raise ValueError(f"`reduce_degree(patch, by)` needs 0 <= by <= degree = {patch.degree}; got {by}.")
    bound = patch.control_points.new_zeros(())
    for axis, k in enumerate(by):
        if k:
            found = breakpoints(patch, axis)
            times = (found.times - k).clamp(min=1)
            patch, more = _project(patch, axis, found, times, patch.degree[axis] - k)
            bound = bound + more
    return patch, bound


def _project(
    patch: AnyPatch, axis: int, found: Breakpoints, times: Int64[Tensor, "k"], q: int
) -> tuple[AnyPatch, Float[Tensor, "*b"]]:
    """The nearest map on knots repeated so often and of degree q ≤ p, in the least squares of common coefficients."""
    p, r, closed = patch.degree[axis], patch.directions, patch.periodic[axis]
    t, new = patch.knots[axis], found.knots(times)
    common = found.knots(torch.maximum(found.times, torch.where(times > 0, times + p - q, 0)))
    H = along(change_matrix(t, p, common, p, closed, closed), patch.homogeneous, axis - r - 1, r + 1)
    A = change_matrix(new, q, common, p, closed, closed)
    A, target = A[(..., *[None] * (r - 1), slice(None), slice(None))], H.movedim(axis - r - 1, -2)
    if closed or q == 0:
        c = _least_squares(A, target)
    else:  # at clamped ends the outer coefficients of both are the values
        first, last = target[..., :1, :], target[..., -1:, :]
        inner = _least_squares(A[..., 1:-1], target - A[..., :1] @ first - A[..., -1:] @ last)
        c = torch.cat([first, inner, last], -2)
    knots, degree = list(patch.knots), list(patch.degree)
    knots[axis], degree[axis] = new, q
    result = rebuilt(patch, c.movedim(-2, axis - r - 1), knots, degree, patch.periodic)
    return result, _bound(A @ c - target, result, target, r)


def _least_squares(A: Float[Tensor, "*#b j i"], values: Float[Tensor, "*#b j d"]) -> Float[Tensor, "*b i d"]:
    Q, R = torch.linalg.qr(A)
    return torch.linalg.solve_triangular(R, Q.mT @ values, upper=True)


def _bound(difference: Tensor, result: Patch, target: Tensor, r: int) -> Float[Tensor, "*b"]:
    """max |S - S̃|, from S - S̃ = (ΔN - S̃ ΔW) / W for S = N / W and the convex hulls of all of them."""

    def largest(points: Tensor) -> Tensor:
        return torch.linalg.vector_norm(points, dim=-1).flatten(-r).amax(-1)

    if result.weights is None:
        return largest(difference)
    lowest = target[..., -1].flatten(-r).amin(-1)
    return (largest(difference[..., :-1]) + largest(result.control_points) * largest(difference[..., -1:])) / lowest
