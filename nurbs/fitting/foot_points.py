"""The nearest points of a patch: samples, Newton's method from the nearest, and bounds that say where else to look."""

from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.reference.bspline import check_dtype
from fem.support.arithmetic import common_batch
from fem.support.checks import check_integers
from fem.support.modes import outside_modes
from fem.support.portions import at_a_time
from nurbs.fitting.distance_bounds import Pieces, nearer
from nurbs.fitting.projected_newton import minimize_bounded
from nurbs.geometry.patch import Patch, check_patch
from nurbs.geometry.spans import flat_batch

GAIN = 1e-9  # of the squared distance: what a further search should reach, or less will count as nearer


@outside_modes
def foot_points(
    patch: Patch,
    points: Float[Tensor, "*#b q d"],
    starts: int = 1,
    samples: int | None = None,
    initial: Float[Tensor, "*#b q r"] | None = None,
) -> Float[Tensor, "*b q r"]:
    """Parameters u of the points S(u) nearest to each p: global minimisers of ½ |S(u) - p|² over the patch's range.

        g = Jᵀ (S - p),    H = JᵀJ + Σ_d (S - p)_d ∂²S_d;    JᵀJ alone where H is not positive definite

    (The NURBS Book, section 6.1, with damping and, at the ends of the range, projection.) The patch is sampled on each
    knot span, and Newton's method starts from the nearest samples of the `starts` nearest spans. Bounds on the distance
    (`nurbs/fitting/distance_bounds.py`) then find every place that is nearer than the result, by more than 1e-10 of its
    square or than round-off, and the search goes on from there until there is none. The distance is
    `patch.at(u) - points`. No gradient flows: at a foot point that of |S(u) - p| through u is zero. Everything is
    computed in double precision.

    Args:
        patch: curve, surface or volume, with any batch axes.
        points: in the patch's coordinates.
        starts: spans from which the search starts; it changes nothing but the time.
        samples: samples per span and direction, degree + 2 by default; they change nothing but the time.
        initial: parameters from which to search instead, for points near known feet: then the minimum is a local one.

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
        precise = points.dtype if points.device.type == "mps" else torch.float64
        patch = patch.detach().unwrapped().replace(check_finite=False).to(precise)
        batch = common_batch(patch.batch, points.shape[:-2])
        if points.shape[-2] == 0:
            return points.new_zeros(*batch, 0, patch.directions)
        p = points.detach().to(precise).expand(*batch, *points.shape[-2:])
        p = p.reshape(-1, *p.shape[-2:]) if patch.batch else p.reshape(1, -1, p.shape[-1])
        flat = flat_batch(patch, batch if patch.batch else ())
        if initial is None:
            u = _global(flat, p, starts, samples)
        else:
            begin = initial.detach().to(precise).expand(*batch, *initial.shape[-2:]).reshape(-1, patch.directions)
            item = torch.arange(len(p), device=p.device).repeat_interleave(p.shape[1])
            u, _ = _newton(flat, p.flatten(0, 1), item, begin)
    return u.to(points.dtype).reshape(*batch, points.shape[-2], patch.directions)


def _global(patch: Patch, p: Float[Tensor, "b q d"], starts: int, samples: int | None) -> Float[Tensor, "bq r"]:
    begin = _nearest_samples(patch, p, starts, samples)
    item = torch.arange(len(p), device=p.device).repeat_interleave(p.shape[1])
    p, s = p.flatten(0, 1), begin.shape[2]
    each, begin = torch.arange(len(p), device=p.device), begin.flatten(0, 2)
    u, D = _newton(patch, p.repeat_interleave(s, 0), item.repeat_interleave(s), begin)
    best = D.unflatten(0, (-1, s)).argmin(-1) + s * each
    u, D = u[best], D[best]
    pieces, tau = Pieces.of(patch), torch.ones_like(D)
    while len(each):
        which, begin, piece = nearer(pieces, p[each], item[each], u[each], D[each], tau[each])
        each = each[which]
        if len(each):  # inside a piece first: where pieces meet in a kink, Newton's method may get stuck
            low = pieces.start[piece]
            begin, _ = _newton(patch, p[each], item[each], begin, (low, low + pieces.width[piece]))
            moved, reached = _newton(patch, p[each], item[each], begin)
            tau[each] *= torch.where(reached < (1 - GAIN) * D[each], 1.0, 10.0)
            better = reached < D[each]
            u[each[better]], D[each[better]] = moved[better], reached[better]
    return u


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


def _newton(
    patch: Patch,
    p: Float[Tensor, "m d"],
    item: Int64[Tensor, "m"],
    u: Float[Tensor, "m r"],
    bounds: tuple[Float[Tensor, "m r"], Float[Tensor, "m r"]] | None = None,
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "m"]]:
    """Minimisers that the method finds from u within bounds, for the item of each point, and squared distances."""
    b, r = len(patch.control_points), patch.directions
    start, end = (torch.stack(side, -1) for side in zip(*patch.domain(), strict=True))
    first = [tuple(int(axis == k) for axis in range(r)) for k in range(r)]
    pairs = [[tuple(map(sum, zip(one, other, strict=True))) for other in first] for one in first]
    orders = [(0,) * r, *dict.fromkeys([*first, *(pair for row in pairs for pair in row)])]

    def evaluate(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of = item[rows]  # the patch of each search, and which of its searches this is
        counts = torch.bincount(of, minlength=b)
        place = torch.arange(len(rows), device=x.device) - (counts.cumsum(0) - counts)[of]
        padded = start[:, None].repeat(1, int(counts.max()), 1)
        padded[of, place] = x
        values = [v[of, place] for v in patch.derivatives_at(padded, orders=orders)]
        found = dict(zip(orders, values, strict=True))
        gap = found[orders[0]] - p[rows]
        J = torch.stack([found[order] for order in first], -1)
        gauss = J.mT @ J
        bend = torch.stack([torch.stack([(gap * found[pair]).sum(-1) for pair in row], -1) for row in pairs], -1)
        positive = torch.linalg.cholesky_ex(gauss + bend).info == 0
        H = torch.where(positive[:, None, None], gauss + bend, gauss)
        return 0.5 * gap.square().sum(-1), (gap[:, None] @ J)[:, 0], H

    centred = patch.control_points - patch.control_points.mean(tuple(range(1, r + 1)), keepdim=True)
    atol = (torch.finfo(p.dtype).eps * centred.abs().flatten(1).amax(-1)).square()
    rtol = torch.finfo(p.dtype).eps
    found = minimize_bounded(
        evaluate, u, *(bounds or (start[item], end[item])), max_iterations=50, rtol=rtol, atol=atol[item], damping=1e-6
    )
    return found.x, 2 * found.value
