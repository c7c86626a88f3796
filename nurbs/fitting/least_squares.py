"""Control points by linear least squares, for given parameters, knots and weights.

    min_P  1/M Σ_m |S(u_m) - p_m|² + λ ∫ |S_uu|² + 2 |S_uv|² + |S_vv|² du dv

On a grid the pseudo-inverse of a Kronecker product is the Kronecker product of pseudo-inverses: one small QR
factorisation per direction. Weights, smoothing and scattered points mix the directions; then the rows of data and of
the energy are reduced block by block to one triangle, [R; A] = Q R⁺ (J. Demmel et al., Communication-optimal parallel
and sequential QR and LU factorizations, SIAM J. Sci. Comput. 34 (2012)). Condition numbers are nowhere squared, and
all is differentiable in data, parameters, knots and weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import factorial, prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.reference.bspline import basis_matrix
from fem.support.portions import at_a_time
from nurbs.fitting.design_matrix import CloudDesign
from nurbs.geometry.cell_quadrature import gauss_rule
from nurbs.geometry.curve import Curve
from nurbs.geometry.directions import UVW, continued
from nurbs.geometry.patch import Patch
from nurbs.geometry.surface import Surface


def solve_grid(
    points: Float[Tensor, "b *q d"],
    parameters: Sequence[Float[Tensor, "b _"]],
    knots: Sequence[Float[Tensor, "b _"]],
    degree: Sequence[int],
    name: str = "fit",
    periodic: Sequence[bool] | None = None,
    hold: bool = False,
) -> Float[Tensor, "b *n d"]:
    """The polynomial patch that is nearest to a grid of points.

    Args:
        periodic: per direction; its knots are one period "b n+1".
        hold: the first and last control points of each direction are those nearest to the first and last row of the
            grid alone (The NURBS Book, A9.7), so that knots should be clamped: the corners are interpolated.

    Raises:
        ValueError: the data do not determine a control point; named `name` in the message.
    """
    values, periodic = points, periodic or (False,) * len(degree)
    for axis, (u, t, p, ring) in enumerate(zip(parameters, knots, degree, periodic, strict=True), 1):
        long = continued(t, p) if ring else t
        table = _wrapped(basis_matrix(long, p, u, check=False)[:, 0], [long.shape[-1] - p - 1], [p], [ring])
        moved = values.movedim(axis, 1)
        data = moved.flatten(2)
        held = None
        if hold:
            held = Held(torch.tensor([0, table.shape[-1] - 1], device=u.device), data[:, [0, -1]])
        solution = _solve([(table, data)], table.shape[-1:], [long], [p], UVW[axis - 1], name, held)
        values = solution.unflatten(-1, moved.shape[2:]).movedim(1, axis)
    return values


def solve_cloud(
    points: Float[Tensor, "b q d"],
    parameters: Float[Tensor, "b q r"],
    knots: Sequence[Float[Tensor, "b _"]],
    degree: Sequence[int],
    weights: Float[Tensor, "b *n"] | None = None,
    smoothing: float = 0.0,
    name: str = "fit",
    periodic: Sequence[bool] | None = None,
    held: "Held | None" = None,
) -> Float[Tensor, "b *n d"]:
    """The patch that is nearest to points at scattered parameters, λ = `smoothing`; errors as for `solve_grid`.

    Args:
        periodic: per direction; its knots are one period "b n+1".
        held: control points that are given.
    """
    periodic = periodic or (False,) * len(degree)
    long = [continued(t, p) if ring else t for t, p, ring in zip(knots, degree, periodic, strict=True)]
    wide = [t.shape[-1] - p - 1 for t, p in zip(long, degree, strict=True)]
    shape = [n - p * ring for n, p, ring in zip(wide, degree, periodic, strict=True)]
    n, (b, q, d) = prod(shape), points.shape
    single = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (points, parameters, weights, *knots)
    )
    # A block that misses some functions has no derivative; it is there twice, with its factor.
    size = q if single else max(n, at_a_time(2 * b * n, points, roomy=True))

    def blocks():
        for first in range(0, q, size):
            rows = CloudDesign(long, degree, parameters[:, first : first + size]).dense()
            rows = _wrapped(rows, wide, degree, periodic)
            if weights is not None:
                rows = rows * weights.flatten(1)[:, None]
                rows = rows / rows.sum(-1, keepdim=True)
            data = points[:, first : first + size]
            if smoothing and not first:
                bent = (smoothing * q) ** 0.5 * bending_rows(knots, degree, weights, periodic)
                rows = torch.cat([bent.expand(b, -1, -1), rows], 1)
                data = torch.cat([data.new_zeros(b, bent.shape[1], d), data], 1)
            yield rows, data

    return _solve(blocks(), shape, long, degree, UVW, name, held).unflatten(1, shape)


@dataclass(frozen=True, eq=False)
class Held:
    """Control points that are given, by their index in the flattened net."""

    index: Int64[Tensor, "h"]
    values: Float[Tensor, "b h d"]


def _wrapped(
    rows: Float[Tensor, "b q n"], shape: Sequence[int], degree: Sequence[int], periodic: Sequence[bool]
) -> Float[Tensor, "b q m"]:
    """The columns of the last p functions of periodic directions added to those of the first p: they share them."""
    if not any(periodic):
        return rows
    rows = rows.unflatten(-1, list(shape))
    for axis, (n, p, ring) in enumerate(zip(shape, degree, periodic, strict=True), 2):
        if ring and p:
            first, last = rows.narrow(axis, 0, n - p), rows.narrow(axis, n - p, p)
            empty = torch.zeros_like(first.narrow(axis, 0, n - 2 * p))
            rows = first + torch.cat([last, empty], axis)
    return rows.flatten(2)


def bending_rows(
    knots: Sequence[Float[Tensor, "b _"]],
    degree: Sequence[int],
    weights: Float[Tensor, "b *n"] | None = None,
    periodic: Sequence[bool] | None = None,
) -> Float[Tensor, "b q n"]:
    """F with ∫ Σ |second derivatives|² = |F P|², by Gauss quadrature: exact for polynomial patches."""
    rings = periodic or (False,) * len(degree)
    n = [t.shape[-1] - 1 - (not ring) * p for t, p, ring in zip(knots, degree, rings, strict=True)]
    unit = torch.eye(prod(n), dtype=knots[0].dtype, device=knots[0].device).reshape(*n, -1)
    return bending(_patch(len(n))(unit, weights, tuple(knots), tuple(degree), periodic=rings, check_finite=False))


def bending(patch: Patch) -> Float[Tensor, "b q d"]:
    """Second derivatives at Gauss points times the roots of their weights: the squares sum up to the energy."""
    x, w = gauss_rule(patch, max(patch.degree) + 1)
    corners = [t[..., p : t.shape[-1] - p] for t, p in zip(patch.unwrapped_knots, patch.degree, strict=True)]
    points = [torch.lerp(c[..., :-1, None], c[..., 1:, None], x).flatten(-2) for c in corners]
    factors = [(c.diff()[..., None] * w).flatten(-2).sqrt() for c in corners]
    r = patch.directions
    for axis, factor in enumerate(factors):
        factors[axis] = factor.reshape(*factor.shape[:-1], *[1] * axis, -1, *[1] * (r - axis))
    orders = [order for order in product(range(3), repeat=r) if sum(order) == 2]
    values = patch.derivatives(*points, orders=orders)
    rows = [(2 / prod(map(factorial, order))) ** 0.5 * v for order, v in zip(orders, values, strict=True)]
    return torch.cat([(prod(factors) * row).flatten(-1 - r, -2) for row in rows], -2)


def _patch(directions: int) -> type[Patch]:
    return (Curve, Surface)[directions - 1]


def _solve(
    blocks: Iterable[tuple[Tensor, Tensor]],
    shape: Sequence[int],
    knots: Sequence[Tensor],
    degree: Sequence[int],
    names: str,
    name: str,
    held: Held | None = None,
) -> Tensor:
    triangle = image = size = free = None
    for rows, data in blocks:
        if held is not None:
            free = torch.ones(rows.shape[-1], dtype=torch.bool, device=rows.device)
            free[held.index] = False
            rows, data = rows[..., free], data - rows[..., held.index] @ held.values
            if not free.any():
                continue
        norms = rows.detach().square().sum(1)
        if triangle is None or image is None or size is None:
            size = norms
        else:
            rows, data, size = torch.cat([triangle, rows], 1), torch.cat([image, data], 1), size + norms
        count, n = rows.shape[1:]
        if count < n:
            raise ValueError(
                f"`{name}(points)` needs no fewer points than control points in {', '.join(names[: len(shape)])}; got "
                f"{count} points for {' x '.join(map(str, shape))} control points. Give more points, fewer control "
                "points, or `smoothing=`."
            )
        Q, triangle = torch.linalg.qr(rows)
        image = Q.mT @ data
    if triangle is None or image is None or size is None:
        assert held is not None  # all control points are
        return held.values
    diagonal = triangle.detach().diagonal(dim1=-2, dim2=-1).abs()
    least = 10 * triangle.shape[-1] * torch.finfo(triangle.dtype).eps
    lost = diagonal <= least * size.sqrt()
    if lost.any():
        item = int(lost.any(-1).nonzero()[0])
        column = torch.linalg.svd(triangle[item].detach()).Vh[-1].abs().argmax()
        column = column if free is None else free.nonzero()[column, 0]
        index = [int(i) for i in torch.unravel_index(column, tuple(shape))]
        support = ", ".join(
            f"{names[axis]} in [{t[item, i].item():.6g}, {t[item, i + p + 1].item():.6g}]"
            for axis, (t, i, p) in enumerate(zip(knots, index, degree, strict=True))
        )
        raise ValueError(
            f"`{name}(points)` needs data wherever a control point acts: those of batch item {item} do not determine "
            f"control point {index} (in {', '.join(names[: len(shape)])}), whose span is {support}. Give more points "
            "there, fewer control points, other knots, or `smoothing=`."
        )
    found = torch.linalg.solve_triangular(triangle, image, upper=True)
    if held is None or free is None:
        return found
    order = torch.cat([free.nonzero()[:, 0], held.index]).argsort()
    return torch.cat([found, held.values], 1)[:, order]
