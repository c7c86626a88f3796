"""Exact shapes: lines, arcs, disks, annuli, cylinders, spheres, tori; ruled, extruded and revolved patches.

An arc of angle Δ ≤ 90° around the origin is the rational quadratic Bézier piece with control points P₀,
(P₀ + P₂) / (1 + cos Δ), P₂ and weights 1, cos(Δ/2), 1; longer arcs are several of them, with double knots between.
Sizes, angles and points may be tensors, whose batch axes the shape takes over and to which gradients flow; dtype and
device are theirs (float64 on the CPU for numbers and integers).

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997, sections 7.3 to 7.5, 8.3 to 8.5.
"""

from math import ceil, pi
from typing import overload

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from fem.reference.bspline import check_dtype, uniform_knots
from nurbs.geometry.curve import Curve
from nurbs.geometry.numbers import Number, Vector, floating
from nurbs.geometry.patch import AnyPatch, Patch, check_patch
from nurbs.geometry.surface import Surface
from nurbs.geometry.volume import Volume
from nurbs.modelling.refinement import breakpoints, clamp, elevate_degree, insert_knots
from nurbs.modelling.transformation import reparametrize, transform


def line(start: Vector, end: Vector) -> Curve:
    """The segment from one point "*b d" to another, with constant speed on [0, 1]."""
    ends = floating("line", start=start, end=end)
    if any(end.ndim < 1 or end.shape[-1] != ends[0].shape[-1] for end in ends):
        raise ValueError(f"`line` needs points of as many coordinates; got {start!r} and {end!r}.")
    return Curve(torch.stack(torch.broadcast_tensors(*ends), -2), degree=1)


def arc(radius: Number = 1.0, angle: Number = pi / 2, start: Number = 0.0, center: Vector = (0.0, 0.0)) -> Curve:
    """The arc from the angle `start` on, counterclockwise for a positive `angle`, of 360° at most.

    In three dimensions it lies in the plane z = z of the centre. The knots are equal spans of [0, 1].

    Raises:
        ValueError: a radius that is not positive, an angle of zero or above 360°, a centre that is not in two or three
            dimensions.
    """
    radius, angle, start, center = floating("arc", radius=radius, angle=angle, start=start, center=center)
    near = max(1e-12, 4 * torch.finfo(angle.dtype).eps)  # of a full turn, relatively
    _positive("arc", radius=radius)
    largest = angle.detach().abs().max().item()
    if not (angle != 0).all() or not largest <= 2 * pi * (1 + near):
        raise ValueError(f"`arc` needs an angle other than 0, of at most 2π; got {angle.tolist()}.")
    _check_center("arc", center)
    pieces = ceil(largest / (pi / 2) - 4 * near)
    part = torch.linspace(0, 1, pieces + 1, dtype=angle.dtype, device=angle.device)
    theta = start[..., None] + angle[..., None] * part
    ends = torch.stack([theta.cos(), theta.sin()], -1)
    full = (angle.detach().abs() >= 2 * pi * (1 - near))[..., None, None]
    ends = torch.cat([ends[..., :-1, :], torch.where(full, ends[..., :1, :], ends[..., -1:, :])], -2)
    step = angle / pieces
    middle = (ends[..., :-1, :] + ends[..., 1:, :]) / (1 + step.cos())[..., None, None]
    points = torch.cat([torch.stack([ends[..., :-1, :], middle], -2).flatten(-3, -2), ends[..., -1:, :]], -2)
    points = pad(radius[..., None, None] * points, (0, center.shape[-1] - 2)) + center[..., None, :]
    inner = (step / 2).cos()[..., None].expand(*step.shape, pieces)
    weights = pad(torch.stack([torch.ones_like(inner), inner], -1).flatten(-2), (0, 1), value=1.0)
    return Curve(points, weights, _arc_knots(part), 2)


def circle(radius: Number = 1.0, center: Vector = (0.0, 0.0)) -> Curve:
    """The whole circle from angle 0 counterclockwise, nine control points; start and end are the same point."""
    return arc(radius, 2 * pi, center=center)


def disk(radius: Number = 1.0, center: Vector = (0.0, 0.0)) -> Surface:
    """The disk as one biquadratic patch, each side a quarter of the circle.

    Its Jacobian is singular at the four corners only (where two sides meet at 180°), not in the middle.
    """
    radius, center = floating("disk", radius=radius, center=center)
    _positive("disk", radius=radius)
    _check_center("disk", center)
    one = torch.tensor([-1.0, 0.0, 1.0], dtype=radius.dtype, device=radius.device)
    grid = torch.stack(torch.meshgrid(one, one, indexing="ij"), -1)
    h, count = one.new_tensor(0.5).sqrt(), grid.abs().sum(-1)  # coordinates that are not zero: 2 at a corner
    weights = torch.where(count == 1, h, 1)
    points = radius[..., None, None, None] * grid * torch.where(count == 2, h, 2 * h)[..., None]
    points = pad(points, (0, center.shape[-1] - 2)) + center[..., None, None, :]
    return Surface(points, weights, degree=2)


def annulus(
    inner: Number = 1.0,
    outer: Number = 2.0,
    angle: Number = 2 * pi,
    start: Number = 0.0,
    center: Vector = (0.0, 0.0),
) -> Surface:
    """The part of a ring between two circles: u along the radius, v along the angle; errors as for `arc`.

    Its sides are called "inner", "outer", "start" and "end".

    Raises:
        ValueError: radii that do not increase.
    """
    inner, outer, angle, start, center = floating(
        "annulus", inner=inner, outer=outer, angle=angle, start=start, center=center
    )
    if not (inner < outer).all():
        raise ValueError(f"`annulus` needs inner < outer; got {inner.tolist()} and {outer.tolist()}.")
    arcs = [arc(radius, angle, start, center) for radius in (inner, outer)]
    return Surface(
        torch.stack(torch.broadcast_tensors(*(a.control_points for a in arcs)), -3),
        arcs[0].homogeneous[..., None, :, -1].expand(*arcs[0].batch, 2, -1),
        (uniform_knots(2, 1, arcs[0].dtype, arcs[0].device), arcs[0].knots[0]),
        (1, 2),
        sides=("inner", "outer", "start", "end"),
    )


def cylinder(
    radius: Number = 1.0, height: Number = 1.0, angle: Number = 2 * pi, center: Vector = (0.0, 0.0, 0.0)
) -> Surface:
    """The side of a cylinder on the plane z = z of the centre: u around, v along z, the normal outwards."""
    radius, height, angle, center = floating("cylinder", radius=radius, height=height, angle=angle, center=center)
    return extrude(arc(radius, angle, center=center), torch.stack([0 * height, 0 * height, height], -1))


def sphere(radius: Number = 1.0, center: Vector = (0.0, 0.0, 0.0)) -> Surface:
    """The sphere: u is the longitude, v the latitude from south to north, the normal outwards; poles at v = 0 and 1."""
    radius, center = floating("sphere", radius=radius, center=center)
    return _around(arc(radius, pi, -pi / 2), center)


def torus(major: Number = 1.0, minor: Number = 0.25, center: Vector = (0.0, 0.0, 0.0)) -> Surface:
    """The torus around the z axis: u around the axis, v around the tube, the normal outwards.

    Raises:
        ValueError: radii that are not 0 < minor; the tube may reach over the axis, and then cuts itself.
    """
    major, minor, center = floating("torus", major=major, minor=minor, center=center)
    return _around(transform(circle(minor), offset=torch.stack([major, 0 * major], -1)), center)


def _around(section: Curve, center: Vector) -> Surface:
    """A plane curve (ρ, z) turned around the z axis, and moved."""
    space = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=section.dtype, device=section.device)
    return transform(revolve(transform(section, space)), offset=center)


@overload
def extrude(patch: Curve, vector: Vector) -> Surface: ...
@overload
def extrude(patch: Surface, vector: Vector) -> Volume: ...
def extrude(patch: Curve | Surface, vector: Vector) -> Surface | Volume:
    """P(…) + s · vector for s in [0, 1], the new last direction: a curve gives a surface, a surface a volume."""
    check_patch("extrude(patch)", patch)
    (vector,) = floating("extrude", patch.control_points, vector=vector)
    return ruled(patch, transform(patch, offset=vector))


def ruled(first: Curve | Surface, second: Curve | Surface) -> Surface | Volume:
    """(1 - s) first + s second for s in [0, 1], the new last direction, after both are brought to common knots.

    Both are taken over [0, 1] and to the higher degree; knots that only one of them has are inserted into the other.
    (With weights the line from point to point is not run through with constant speed.)

    Raises:
        ValueError: a curve and a surface, two volumes, or dimensions that differ.
    """
    for patch in (first, second):
        check_patch("ruled(first, second)", patch)
    if type(first) is not type(second) or not isinstance(first, Curve | Surface) or first.dim != second.dim:
        raise ValueError(
            "`ruled` needs two curves or two surfaces of the same dimension; got a "
            f"`{type(first).__name__}` in {first.dim} and a `{type(second).__name__}` in {second.dim} dimensions."
        )
    first, second = compatible(first, second)
    kind = _next(first)
    points = torch.stack(torch.broadcast_tensors(first.control_points, second.control_points), -2)
    weights = None
    if first.weights is not None and second.weights is not None:
        weights = torch.stack(torch.broadcast_tensors(first.weights, second.weights), -1)
    return kind(points, weights, (*first.knots, uniform_knots(2, 1, first.dtype, first.device)), (*first.degree, 1))


@overload
def revolve(patch: Curve, angle: Number = ..., axis: Vector = ..., point: Vector = ...) -> Surface: ...
@overload
def revolve(patch: Surface, angle: Number = ..., axis: Vector = ..., point: Vector = ...) -> Volume: ...
def revolve(
    patch: Curve | Surface, angle: Number = 2 * pi, axis: Vector = (0.0, 0.0, 1.0), point: Vector = (0.0, 0.0, 0.0)
) -> Surface | Volume:
    """The patch turned around the axis through a point, the angle being the new first direction (A8.1).

    Raises:
        ValueError: a patch that is not in three dimensions; an axis of length zero; angles as for `arc`.
    """
    check_patch("revolve(patch)", patch)
    kind, r = _next(patch), patch.directions
    if patch.dim != 3:
        raise ValueError(f"`revolve` needs a patch in three dimensions; got {patch.dim}. Place it with `transform`.")
    axis, point, angle = floating("revolve", patch.control_points, axis=axis, point=point, angle=angle)
    if axis.shape[-1:] != (3,) or point.shape[-1:] != (3,):
        raise ValueError(
            f"`revolve` needs an axis and a point of three coordinates; got shapes {tuple(axis.shape)} and "
            f"{tuple(point.shape)}."
        )
    if not (torch.linalg.vector_norm(axis, dim=-1) > 0).all():
        raise ValueError(f"`revolve` needs an axis of some length; got {axis.tolist()}.")
    turn = arc(1.0, angle)
    inner = (..., *[None] * r, slice(None))
    e, point = normalize(axis, dim=-1)[inner], point[inner]
    arm = patch.control_points - point
    along = (arm * e).sum(-1, keepdim=True) * e
    arm = (arm - along).unsqueeze(-r - 2)
    across = torch.linalg.cross(e.unsqueeze(-r - 2).expand_as(arm), arm)
    cos, sin = (x[(..., *[None] * (r + 1))] for x in turn.control_points.unbind(-1))
    points = (point + along).unsqueeze(-r - 2) + cos * arm + sin * across
    weights = turn.homogeneous[..., -1][(..., *[None] * r)]
    weights = (
        weights.expand(*weights.shape[:-r], *patch.shape)
        if patch.weights is None
        else weights * patch.weights.unsqueeze(-r - 1)
    )
    return kind(points, weights, (*turn.knots, *patch.unwrapped_knots), (2, *patch.degree))


def compatible(first: AnyPatch, second: AnyPatch) -> tuple[AnyPatch, AnyPatch]:
    """Both patches on [0, 1] with the same degrees and knots, and with weights if one of them has some.

    Knots of the two that differ by less than 1e-12 (5e-7 in single precision) are taken for the same.

    Raises:
        TypeError: patches of two dtypes.
    """
    for patch in (first, second):
        check_patch("compatible(first, second)", patch)
    if first.directions != second.directions:
        raise ValueError(f"`compatible` needs two patches of one kind; got {first} and {second}.")
    check_dtype("the second patch", second.control_points, first.control_points)
    near = max(1e-12, 4 * torch.finfo(first.dtype).eps)
    pair = [reparametrize(clamp(patch)) for patch in (first, second)]
    degree = [max(p, q) for p, q in zip(first.degree, second.degree, strict=True)]
    pair = [elevate_degree(patch, [q - p for p, q in zip(patch.degree, degree, strict=True)]) for patch in pair]
    for axis in range(first.directions):
        found = [breakpoints(patch, axis) for patch in pair]
        missing = []
        for own, other in (found, found[::-1]):
            same = (own.values[..., None, :] - other.values[..., :, None]).abs() < near
            have = (same * own.times).sum(-1).reshape(-1, same.shape[-2])
            if (have != have[0]).any():
                raise ValueError("The items of this batch have different knots. Treat `patch[i]` one by one.")
            missing.append(other.values.repeat_interleave((other.times - have[0]).clamp(min=0), -1))
        pair = [
            insert_knots(patch, *(knots if k == axis else None for k in range(first.directions)))
            for patch, knots in zip(pair, missing, strict=True)
        ]
    if any(patch.weights is not None for patch in pair):
        pair = [
            p if p.weights is not None else p.replace(weights=torch.ones_like(p.control_points[..., 0])) for p in pair
        ]
    return pair[0], pair[1].replace(knots=pair[0].knots)


def _next(patch: Patch) -> type[Surface] | type[Volume]:
    """The kind with one direction more."""
    kinds = {Curve: Surface, Surface: Volume}
    if type(patch) not in kinds:
        raise ValueError(f"Only curves and surfaces gain a direction; got a `{type(patch).__name__}`.")
    return kinds[type(patch)]


def _arc_knots(ends: Tensor) -> Tensor:
    return torch.cat([ends[:1], ends.repeat_interleave(2), ends[-1:]])


def _check_center(call: str, center: Tensor) -> None:
    if center.ndim < 1 or center.shape[-1] not in (2, 3):
        raise ValueError(f"`{call}` needs a centre of two or three coordinates; got shape {tuple(center.shape)}.")


def _positive(call: str, **sizes: Tensor) -> None:
    for name, size in sizes.items():
        if not (size > 0).all():
            raise ValueError(f"`{call}` needs a positive {name}; got {size.tolist()}.")
