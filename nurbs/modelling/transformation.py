"""The same shape described otherwise or put elsewhere: directions reversed or swapped, other ranges, affine images."""

from collections.abc import Sequence
from numbers import Real as Number
from typing import Any

from jaxtyping import Real
from torch import Tensor

from fem.support.checks import is_integer
from fem.support.modes import outside_modes
from nurbs.geometry.numbers import Vector, floating
from nurbs.geometry.patch import AnyPatch, Patch, check_patch


def reverse(patch: AnyPatch, direction: int = 0) -> AnyPatch:
    """The same points with one parameter run backwards, u → start + end - u."""
    check_patch("reverse(patch)", patch)
    check_direction(patch, direction)
    axis = direction - patch.directions
    t = patch.knots[axis]
    weights = None if patch.weights is None else patch.weights.flip(axis)
    points = patch.control_points.flip(axis - 1)
    if patch.periodic[axis]:  # the p functions that reach over the seam come first on both sides of it
        p = patch.degree[axis]
        points, weights = points.roll(p, axis - 1), None if weights is None else weights.roll(p, axis)
    knots = [*patch.knots]
    knots[axis] = (t[..., :1] + t[..., -1:]) - t.flip(-1)
    sides = None if patch.sides is None else [*patch.sides]
    if sides is not None:
        sides[2 * direction], sides[2 * direction + 1] = sides[2 * direction + 1], sides[2 * direction]
    return patch.replace(control_points=points, weights=weights, knots=knots, sides=sides)


def permute(patch: AnyPatch, order: Sequence[int]) -> AnyPatch:
    """The patch whose direction k is direction order[k] of this one: `permute(surface, (1, 0))` is (u, v) → S(v, u).

    Raises:
        ValueError: not a permutation of the directions.
    """
    check_patch("permute(patch)", patch)
    r = patch.directions
    if not isinstance(order, Sequence) or set(order) != set(range(r)) or len(order) != r:
        raise ValueError(f"`permute` of a `{type(patch).__name__}` needs an order of {list(range(r))}; got {order!r}.")
    points, weights = patch.control_points, patch.weights
    return patch.replace(
        control_points=points.movedim([k - r - 1 for k in order], list(range(-r - 1, -1))),
        weights=None if weights is None else weights.movedim([k - r for k in order], list(range(-r, 0))),
        sides=None if patch.sides is None else [patch.sides[2 * k + end] for k in order for end in (0, 1)],
        **{name: tuple(getattr(patch, name)[k] for k in order) for name in ("knots", "degree", "periodic")},
    )


def reparametrize(patch: AnyPatch, *ranges: tuple[float, float] | None) -> AnyPatch:
    """The same points over other parameter ranges, by an affine map of the knots; None leaves a direction alone.

    Args:
        ranges: (start, end) per direction; (0, 1) for all if there are none.

    Raises:
        ValueError: not one range per direction, or one that is empty.
    """
    check_patch("reparametrize(patch)", patch)
    ranges = ranges or ((0.0, 1.0),) * patch.directions
    if len(ranges) != patch.directions or not all(r is None or (is_pair(r) and r[0] < r[1]) for r in ranges):
        raise ValueError(
            f"`reparametrize` needs (start, end) with start < end or None for each of {patch.directions} direction(s); "
            f"got {ranges}."
        )
    knots = list(patch.knots)
    for axis, bounds in enumerate(ranges):
        if bounds is not None:
            start, end = (x[..., None] for x in patch.domain()[axis])
            t = (knots[axis] - start) / (end - start)
            knots[axis] = bounds[0] * (1 - t) + bounds[1] * t
    return patch.replace(knots=knots)


@outside_modes
def transform(
    patch: AnyPatch,
    matrix: Real[Tensor, "*#b e d"] | Sequence[Sequence[float]] | None = None,
    offset: Vector | None = None,
) -> AnyPatch:
    """The image M S + o under an affine map, which may lead into another dimension (the plane into space).

    Args:
        matrix: M "*b e d", in the patch's dtype, like the offset.
        offset: o "*b e".

    Raises:
        ValueError: a matrix or an offset of other dimensions than the patch and its image.

    Source: affine invariance, *The NURBS Book*, P4.9.
    """
    check_patch("transform(patch)", patch)
    points, r = patch.control_points, patch.directions
    if matrix is not None:
        (M,) = floating("transform", points, matrix=matrix)
        if M.ndim < 2 or M.shape[-1] != patch.dim:
            raise ValueError(
                f"`transform` of a patch in {patch.dim} dimensions needs a matrix of as many columns; got the shape "
                f"{tuple(M.shape)}."
            )
        points = points @ M.mT[(..., *[None] * (r - 1), slice(None), slice(None))]
    if offset is not None:
        (o,) = floating("transform", points, offset=offset)
        if o.shape[-1:] != points.shape[-1:]:
            raise ValueError(
                f"A patch in {points.shape[-1]} dimensions cannot be moved by an offset of shape "
                f"{tuple(o.shape)}. `transform(patch, torch.eye(3, 2))` takes the plane into space."
            )
        points = points + o[(..., *[None] * r, slice(None))]
    return patch.replace(control_points=points)


def is_pair(ends: Any) -> bool:
    """Whether these are two numbers, scalar tensors among them, or None for an end as it is."""
    kinds = Number | Tensor | None
    return isinstance(ends, list | tuple) and len(ends) == 2 and all(isinstance(end, kinds) for end in ends)


def check_direction(patch: Patch, direction: int) -> None:
    if not is_integer(direction) or not 0 <= direction < patch.directions:
        allowed = ", ".join(map(str, range(patch.directions)))
        raise ValueError(f"`direction` of a `{type(patch).__name__}` must be {allowed}; got {direction!r}.")
