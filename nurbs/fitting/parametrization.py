"""Parameters for points that come without: uniform, by chord length, centripetal; and knots to go with them.

    ū_k = ū_{k-1} + |p_k - p_{k-1}|^α / Σ_j |p_j - p_{j-1}|^α,    α = 0 uniform, 1 chord length, 1/2 centripetal

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997 (equation and algorithm numbers below).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import uniform_knots
from nurbs.geometry.numbers import Coordinates, floating

Parametrization = Literal["uniform", "chord", "centripetal"]


def parametrize(
    points: Coordinates, method: Parametrization | str = "chord", closed: bool = False
) -> Float[Tensor, "*b q"]:
    """Parameters in [0, 1] of a row of points "*b q d" (eqs. 9.3 to 9.6).

    Args:
        closed: the row goes on from its last point to its first, which has parameter 1 again; both may be one point.

    Raises:
        ValueError: an unknown method; fewer than two points; all points of a row coincide.
    """
    (points,) = floating("parametrize", points=points)
    if points.ndim < 2:
        raise ValueError(f"`parametrize(points)` needs points (*batch, q, d); got shape {tuple(points.shape)}.")
    return _mean_over_rows(points.unsqueeze(-3), method, closed)


def parametrize_grid(
    points: Coordinates, method: Parametrization | str = "chord", closed: Sequence[bool] = (False, False)
) -> tuple[Float[Tensor, "*b u"], Float[Tensor, "*b v"]]:
    """Parameters of a grid "*b u v d": the mean over its rows of those of each, rows of no length left out (A9.3).

    Args:
        closed: per direction, as for `parametrize`.
    """
    (points,) = floating("parametrize_grid", points=points)
    if points.ndim < 3:
        raise ValueError(
            f"`parametrize_grid(points)` needs points of shape (*batch, u, v, d); got {tuple(points.shape)}."
        )
    rows = points.movedim(-2, -3), points
    u, v = (_mean_over_rows(row, method, ring) for row, ring in zip(rows, closed, strict=True))
    return u, v


def averaged_knots(u: Float[Tensor, "*b q"], num: int, degree: int, closed: bool = False) -> Float[Tensor, "*b m"]:
    """Clamped knots on [0, 1] for `num` control points: every span holds some of the sorted u (eqs. 9.68, 9.69).

    t_{p+j} = (1 - α) u_{i-1} + α u_i,    i = ⌊j δ⌋, α = j δ - i, δ = q / (n - p),    j = 1 … n - p - 1

    Equal spans where there are fewer parameters than control points. Of closed rows one period "*b num+1", whose knots
    stand at every (q / num)-th parameter, counted from 0.
    """
    if closed:
        where = torch.arange(1, num, device=u.device, dtype=torch.float64) * u.shape[-1] / num
        i, ring = where.long(), torch.cat([u, 1 + u[..., :1]], -1)
        inner = torch.lerp(ring[..., i], ring[..., i + 1], (where - i).to(u)) if u.shape[-1] >= num else None
        if inner is None or not (torch.cat([u[..., :1] * 0, inner, u[..., :1] * 0 + 1], -1).diff() > 0).all():
            return torch.linspace(0, 1, num + 1, dtype=u.dtype, device=u.device)
        ends = torch.zeros_like(u[..., :1])
        return torch.cat([ends, inner, ends + 1], -1)
    if u.shape[-1] < num or num <= degree:
        return uniform_knots(max(num, degree + 1), degree, u.dtype, u.device)
    where = torch.arange(1, num - degree, device=u.device, dtype=torch.float64) * u.shape[-1] / (num - degree)
    i = where.long().clamp(1, u.shape[-1] - 1)
    inner = torch.lerp(u[..., i - 1], u[..., i], (where - i).to(u).clamp(0, 1))
    first, last = (torch.full((*u.shape[:-1], degree + 1), end, dtype=u.dtype, device=u.device) for end in (0.0, 1.0))
    return torch.cat([first, inner, last], -1)


def _mean_over_rows(
    points: Float[Tensor, "*b rows q d"], method: Parametrization | str, closed: bool
) -> Float[Tensor, "*b q"]:
    if method not in get_args(Parametrization):
        raise ValueError(f"`parametrization` must be one of {get_args(Parametrization)}; got {method!r}.")
    if points.shape[-2] < 2:
        raise ValueError(f"`parametrization` needs rows of two points or more; got {points.shape[-2]}.")
    if closed:
        points = torch.cat([points, points[..., :1, :]], -2)
    chords = torch.linalg.vector_norm(points.diff(dim=-2), dim=-1)
    total = chords.sum(-1, keepdim=True)
    keep = total > 0
    if method == "uniform":
        gap = closed and bool((chords[..., -1:] > 1e-12 * total).any())  # or else the first point is there twice
        count = points.shape[-2] - (closed and not gap)
        row = torch.arange(points.shape[-2] - closed, dtype=points.dtype, device=points.device) / (count - 1)
        return row.expand(*points.shape[:-3], -1)
    if method == "centripetal":
        chords = chords.sqrt()
        total = chords.sum(-1, keepdim=True)
    if not keep.any(-2).all() or not total.isfinite().all():
        cause = "all those of a row coincide" if total.isfinite().all() else "the squares of their distances overflow"
        raise ValueError(f"`parametrization={method!r}` needs points that differ, by finite distances; {cause}.")
    share = torch.where(keep, chords / total.where(keep, 1), 0).sum(-2) / keep.sum(-2)
    inner = share.cumsum(-1)[..., :-1].clamp(0, 1)
    ends = [torch.full_like(share[..., :1], end) for end in (0.0, 1.0)]
    return torch.cat([ends[0], inner, *([] if closed else ends[1:])], -1)
