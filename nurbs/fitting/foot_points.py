"""The nearest points of a patch: where it is sampled first, then by Newton's method from the best places."""

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import check_dtype
from fem.support.checks import check_integers
from fem.support.modes import outside_modes
from fem.support.portions import at_a_time
from nurbs.fitting.projected_newton import minimize_bounded
from nurbs.geometry.patch import Patch, check_patch


@outside_modes
def foot_points(
    patch: Patch,
    points: Float[Tensor, "*#b q d"],
    starts: int = 3,
    samples: int | None = None,
    initial: Float[Tensor, "*#b q r"] | None = None,
) -> Float[Tensor, "*b q r"]:
    """Parameters u of the points S(u) nearest to each p: minimisers of ½ |S(u) - p|² over the patch's range.

        g = Jᵀ (S - p),    H = JᵀJ + Σ_d (S - p)_d ∂²S_d;    JᵀJ alone where H is not positive definite

    (The NURBS Book, section 6.1, with damping and, at the ends of the range, projection.) The patch is sampled on each
    knot span; Newton's method starts from the nearest samples of the `starts` nearest spans, and the nearest result is
    taken. The distance is `patch.at(u) - points`. No gradient flows: at a foot point that of |S(u) - p| through u is
    zero.

    Args:
        patch: curve, surface or volume, with any batch axes.
        points: in the patch's coordinates.
        starts: spans from which the search starts; more for patches that come close to themselves.
        samples: samples per span and direction, degree + 2 by default.
        initial: parameters from which to search instead, for points near known feet.

    Raises:
        TypeError: points of another dtype.
        ValueError: points of another dimension, or not finite.
    """
    check_patch("foot_points(patch, points)", patch)
    check_dtype("points", points, patch.control_points)
    check_integers("foot_points", starts=starts)
    check_integers("foot_points", optional=True, samples=samples)
    if points.ndim < 2 or points.shape[-1] != patch.dim:
        raise ValueError(
            f"`foot_points(patch, points)` needs points (*batch, q, {patch.dim}); got {tuple(points.shape)}."
        )
    if not points.isfinite().all():
        raise ValueError("`foot_points(patch, points)` needs finite points; got NaN or infinity. Remove them.")
    with torch.no_grad():
        patch = patch.detach().unwrapped().replace(check_finite=False)
        batch = torch.broadcast_shapes(patch.batch, points.shape[:-2])
        p = points.detach().expand(*batch, *points.shape[-2:]).flatten(0, -3) if batch else points.detach()[None]
        flat = _flat_batch(patch, batch)
        if p.shape[-2] == 0:
            return points.new_zeros(*batch, 0, patch.directions)
        if initial is None:
            begin = _nearest_samples(flat, p, starts, samples)
        else:
            begin = initial.detach().expand(*batch, *initial.shape[-2:]).reshape(*p.shape[:-1], 1, -1)
        u = _newton(flat, p, begin)
    return u.reshape(*batch, *u.shape[-2:])


def _flat_batch(patch: Patch, batch: tuple[int, ...]) -> Patch:
    """The patch with exactly one batch axis."""
    r = patch.directions

    def flat(tensor: Tensor, own: int) -> Tensor:
        return tensor.expand(*batch, *tensor.shape[tensor.ndim - own :]).reshape(-1, *tensor.shape[tensor.ndim - own :])

    return patch.replace(
        control_points=flat(patch.control_points, r + 1),
        weights=None if patch.weights is None else flat(patch.weights, r),
        knots=tuple(flat(t, 1) for t in patch.knots),
    )


def _nearest_samples(patch: Patch, p: Tensor, starts: int, samples: int | None) -> Float[Tensor, "b q s r"]:
    """The nearest sample of each of the `starts` nearest spans (cells of the knot grid)."""
    r, lines, counts = patch.directions, [], []
    for t, degree in zip(patch.knots, patch.degree, strict=True):
        corners = t[..., degree : t.shape[-1] - degree]
        count = samples or degree + 2
        at = (torch.arange(count, dtype=t.dtype, device=t.device) + 0.5) / count  # not at poles, where one u is any u
        lines.append(torch.lerp(corners[..., :-1, None], corners[..., 1:, None], at).flatten(-2))
        counts.append((corners.shape[-1] - 1, count))
    values = patch(*lines)
    cells, inside = prod(c for c, _ in counts), prod(k for _, k in counts)

    def by_cell(grid: Tensor) -> Tensor:  # "b *(c k) D" → "b (*c) (*k) D"
        for axis, (c, k) in enumerate(counts):
            grid = grid.unflatten(1 + 2 * axis, (c, k))
        order = [0, *range(1, 2 * r, 2), *range(2, 2 * r + 1, 2), 2 * r + 1]
        return grid.permute(order).reshape(len(grid), cells, inside, -1)

    grids = [
        line.reshape(len(line), *[1] * axis, -1, *[1] * (r - 1 - axis)).expand(values.shape[:-1])
        for axis, line in enumerate(lines)
    ]
    parameters = by_cell(torch.stack(grids, -1)).flatten(1, 2)
    values = by_cell(values).flatten(1, 2)
    found, k = [], min(starts, cells)
    for part in p.split(at_a_time(len(p) * cells * inside, p), 1):
        least, which = torch.cdist(part, values).unflatten(-1, (cells, inside)).min(-1)
        cell = least.topk(k, largest=False).indices
        index = cell * inside + which.gather(-1, cell)
        found.append(parameters.gather(1, index.flatten(1)[..., None].expand(-1, -1, r)).unflatten(1, cell.shape[1:]))
    return torch.cat(found, 1)


def _newton(patch: Patch, p: Tensor, u: Float[Tensor, "b q s r"]) -> Float[Tensor, "b q r"]:
    b, q, s, r = u.shape
    target = p[:, :, None].expand(b, q, s, -1).flatten(0, 2)
    start, end = (torch.stack(side, -1) for side in zip(*patch.domain(), strict=True))
    first = [tuple(int(axis == k) for axis in range(r)) for k in range(r)]
    pairs = [[tuple(map(sum, zip(one, other, strict=True))) for other in first] for one in first]
    orders = [(0,) * r, *dict.fromkeys([*first, *(pair for row in pairs for pair in row)])]

    def evaluate(x: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of = items // (q * s)  # the patch of each search, and which of its searches this is
        counts = torch.bincount(of, minlength=b)
        place = torch.arange(len(items), device=x.device) - (counts.cumsum(0) - counts)[of]
        padded = start[:, None].repeat(1, int(counts.max()), 1)
        padded[of, place] = x
        values = [v[of, place] for v in patch.derivatives_at(padded, orders=orders)]
        found = dict(zip(orders, values, strict=True))
        gap = found[orders[0]] - target[items]
        J = torch.stack([found[order] for order in first], -1)
        gauss = J.mT @ J
        bend = torch.stack([torch.stack([(gap * found[pair]).sum(-1) for pair in row], -1) for row in pairs], -1)
        positive = torch.linalg.cholesky_ex(gauss + bend).info == 0
        H = torch.where(positive[:, None, None], gauss + bend, gauss)
        return 0.5 * gap.square().sum(-1), (gap[:, None] @ J)[:, 0], H

    centred = patch.control_points - patch.control_points.mean(tuple(range(1, r + 1)), keepdim=True)
    atol = (torch.finfo(p.dtype).eps * centred.abs().flatten(1).amax(-1)).square().repeat_interleave(q * s)
    bounds = [side[:, None, None].expand(u.shape).flatten(0, 2) for side in (start, end)]
    found = minimize_bounded(
        evaluate, u.flatten(0, 2), *bounds, max_iterations=50, rtol=torch.finfo(p.dtype).eps, atol=atol, damping=1e-6
    )
    best = found.value.unflatten(0, (b, q, s)).argmin(-1)
    return found.x.unflatten(0, (b, q, s)).gather(2, best[..., None, None].expand(-1, -1, 1, r))[:, :, 0]
