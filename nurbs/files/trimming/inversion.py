"""Point inversion: the parameters of points that lie on a surface.

Gauss–Newton steps from the nearest samples converge quadratically where the distance is zero, and cost little. Points
that they do not find, from several samples, go to `foot_points`.
"""

import numpy as np
import torch
from torch import Tensor

from fem.support.portions import at_a_time
from nurbs.files.exchange import tensor
from nurbs.fitting.foot_points import foot_points
from nurbs.geometry.surface import Surface
from nurbs.modelling.refinement import breakpoints

STEPS, STARTS = 8, 16  # steps, and samples to start from where the nearest one is not enough


def inverted(surface: Surface, points: np.ndarray, tolerance: float) -> np.ndarray:
    """The parameters "m 2" of points "m 3", of those beside the surface the ones of the nearest point.

    Args:
        tolerance: a distance below which points are the same.
    """
    p, (uv, x) = tensor(points), samples_of(surface)
    u = descended(surface, uv[nearest(p, x, 1)[:, 0]], p, tolerance)
    if (far := distance(surface, u, p) > 0.1 * tolerance).any():
        index = nearest(p[far], x, STARTS)
        again = p[far].repeat_interleave(index.shape[1], 0)
        found = descended(surface, uv[index.flatten()], again, tolerance)
        best = distance(surface, found, again).reshape(index.shape).argmin(-1)
        u[far] = found.reshape(*index.shape, 2)[torch.arange(len(index), device="cpu"), best]
    if (far := distance(surface, u, p) > 0.1 * tolerance).any():
        u[far] = foot_points(surface, p[far])
    return u.numpy()


def samples_of(surface: Surface) -> tuple[Tensor, Tensor]:
    """Parameters "n 2" and points "n 3", degree + 2 per span and direction."""
    lines = []
    for axis, p in enumerate(surface.degree):
        t, share = breakpoints(surface, axis).values, (tensor(np.arange(p + 2.0)) + 0.5) / (p + 2)
        lines.append(torch.lerp(t[:-1, None], t[1:, None], share).flatten())
    return torch.cartesian_prod(*lines), surface(*lines).flatten(0, 1)


def nearest(p: Tensor, x: Tensor, count: int) -> Tensor:
    """The numbers "m count" of the samples nearest to each point."""
    parts = p.split(at_a_time(len(x), p))
    return torch.cat([torch.cdist(q, x).topk(min(count, len(x)), largest=False).indices for q in parts])


def descended(surface: Surface, u: Tensor, p: Tensor, tolerance: float) -> Tensor:
    """Gauss–Newton for |S(u) - p|² inside the range of the parameters."""
    low, high = (torch.stack(bounds) for bounds in zip(*surface.domain(), strict=True))
    for _ in range(STEPS):
        x, *tangents = surface.derivatives_at(u, orders=[(0, 0), (1, 0), (0, 1)])
        J, gap = torch.stack(tangents, -1), p - x
        if gap.norm(dim=-1).max() < 1e-4 * tolerance:
            break
        square = J.mT @ J
        damping = 1e-12 * square.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-300)
        step = torch.linalg.solve(square + torch.diag_embed(damping[:, None].expand(-1, 2)), J.mT @ gap[..., None])
        u = (u + step[..., 0]).clamp(low, high)
    return u


def distance(surface: Surface, u: Tensor, p: Tensor) -> Tensor:
    return (surface.at(u) - p).norm(dim=-1)
