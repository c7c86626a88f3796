"""Control points by linear least squares, for given parameters, knots and weights.

    min_P  1/M Σ_m |S(u_m) - p_m|² + λ ∫ |S_uu|² + 2 |S_uv|² + |S_vv|² du dv

On a grid the pseudo-inverse of a Kronecker product is the Kronecker product of pseudo-inverses: one small QR
factorisation per direction. Weights, smoothing and scattered points mix the directions; then the rows of data and of
the energy are reduced block by block to one triangle, [R; A] = Q R⁺ (J. Demmel et al., Communication-optimal parallel
and sequential QR and LU factorizations, SIAM J. Sci. Comput. 34 (2012)). Condition numbers are nowhere squared, and
all is differentiable in data, parameters, knots and weights.
"""

from collections.abc import Sequence
from itertools import product
from math import factorial, prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.reference.bspline import basis_matrix
from fem.support.portions import at_a_time
from nurbs.fitting.design_matrix import CloudDesign
from nurbs.geometry.cell_quadrature import gauss_rule
from nurbs.geometry.curve import Curve
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch
from nurbs.geometry.surface import Surface


def solve_grid(
    points: Float[Tensor, "b *q d"],
    parameters: Sequence[Float[Tensor, "b _"]],
    knots: Sequence[Float[Tensor, "b _"]],
    degree: Sequence[int],
    name: str = "fit",
) -> Float[Tensor, "b *n d"]:
    """The polynomial patch that is nearest to a grid of points.

    Raises:
        ValueError: the data do not determine a control point; named `name` in the message.
    """
    values = points
    for axis, (u, t, p) in enumerate(zip(parameters, knots, degree, strict=True), 1):
        table = basis_matrix(t, p, u, check=False)[:, 0]
        moved = values.movedim(axis, 1)
        solution = _solve([(table, moved.flatten(2))], [t], [p], UVW[axis - 1], name)
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
) -> Float[Tensor, "b *n d"]:
    """The patch that is nearest to points at scattered parameters, λ = `smoothing`; errors as for `solve_grid`."""
    shape = [t.shape[-1] - p - 1 for t, p in zip(knots, degree, strict=True)]
    n, (b, q, d) = prod(shape), points.shape
    single = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (points, parameters, weights, *knots)
    )
    # A block that misses some functions has no derivative; it is there twice, with its factor.
    size = q if single else max(n, at_a_time(2 * b * n, points, roomy=True))

    def blocks():
        for first in range(0, q, size):
            rows = CloudDesign(knots, degree, parameters[:, first : first + size]).dense()
            if weights is not None:
                rows = rows * weights.flatten(1)[:, None]
                rows = rows / rows.sum(-1, keepdim=True)
            data = points[:, first : first + size]
            if smoothing and not first:
                bent = (smoothing * q) ** 0.5 * bending_rows(knots, degree, weights)
                rows = torch.cat([bent.expand(b, -1, -1), rows], 1)
                data = torch.cat([data.new_zeros(b, bent.shape[1], d), data], 1)
            yield rows, data

    return _solve(blocks(), knots, degree, UVW, name).unflatten(1, shape)


def bending_rows(
    knots: Sequence[Float[Tensor, "b _"]], degree: Sequence[int], weights: Float[Tensor, "b *n"] | None = None
) -> Float[Tensor, "b q n"]:
    """F with ∫ Σ |second derivatives|² = |F P|², by Gauss quadrature: exact for polynomial patches."""
    n = [t.shape[-1] - p - 1 for t, p in zip(knots, degree, strict=True)]
    unit = torch.eye(prod(n), dtype=knots[0].dtype, device=knots[0].device).reshape(*n, -1)
    return bending(_patch(len(n))(unit, weights, tuple(knots), tuple(degree), check_finite=False))


def bending(patch: Patch) -> Float[Tensor, "b q d"]:
    """Second derivatives at Gauss points times the roots of their weights: the squares sum up to the energy."""
    x, w = gauss_rule(patch, max(patch.degree) + 1)
    corners = [t[..., p : t.shape[-1] - p] for t, p in zip(patch.knots, patch.degree, strict=True)]
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


def _solve(blocks, knots: Sequence[Tensor], degree: Sequence[int], names: str, name: str) -> Tensor:
    triangle = image = size = None
    for rows, data in blocks:
        norms = rows.detach().square().sum(1)
        if triangle is None or image is None or size is None:
            size = norms
        else:
            rows, data, size = torch.cat([triangle, rows], 1), torch.cat([image, data], 1), size + norms
        count, n = rows.shape[1:]
        if count < n:
            shape = [t.shape[-1] - p - 1 for t, p in zip(knots, degree, strict=True)]
            raise ValueError(
                f"`{name}(points)` needs no fewer points than control points in {', '.join(names[: len(shape)])}; got "
                f"{count} points for {' x '.join(map(str, shape))} control points. Give more points, fewer control "
                "points, or `smoothing=`."
            )
        Q, triangle = torch.linalg.qr(rows)
        image = Q.mT @ data
    assert triangle is not None
    assert image is not None
    assert size is not None
    diagonal = triangle.detach().diagonal(dim1=-2, dim2=-1).abs()
    least = 10 * triangle.shape[-1] * torch.finfo(triangle.dtype).eps
    _check(diagonal <= least * size.sqrt(), triangle.detach(), knots, degree, names, name)
    return torch.linalg.solve_triangular(triangle, image, upper=True)


def _check(
    lost: Bool[Tensor, "b n"], triangle: Tensor, knots: Sequence[Tensor], degree: Sequence[int], names: str, name: str
) -> None:
    if not lost.any():
        return
    item = int(lost.any(-1).nonzero()[0])
    unseen = torch.linalg.svd(triangle[item]).Vh[-1].abs().argmax()
    shape = [t.shape[-1] - p - 1 for t, p in zip(knots, degree, strict=True)]
    index = [int(i) for i in torch.unravel_index(unseen, shape)]
    support = ", ".join(
        f"{names[axis]} in [{t[item, i].item():.6g}, {t[item, i + p + 1].item():.6g}]"
        for axis, (t, i, p) in enumerate(zip(knots, index, degree, strict=True))
    )
    raise ValueError(
        f"`{name}(points)` needs data wherever a control point acts: those of batch item {item} do not determine "
        f"control point {index} (in {', '.join(names[: len(shape)])}), whose span is {support}. Give more points "
        "there, fewer control points, other knots, or `smoothing=`."
    )
