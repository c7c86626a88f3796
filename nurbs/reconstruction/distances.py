"""Distances between point clouds, differentiable, in memory proportional to the number of points.

Nearest points are found without a gradient, in blocks that stay in the cache, from differences of coordinates:
|a|² + |b|² − 2ab would cancel far from the origin. The gradient is that of the distance to the nearest point found,
which is the derivative wherever the nearest point is unique.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.reference.bspline import check_dtype
from fem.support.arithmetic import common_batch
from fem.support.checks import check_kind
from fem.support.modes import outside_modes
from fem.support.portions import at_a_time

GROUP = 32


@outside_modes
def nearest(a: Float[Tensor, "*#b m d"], b: Float[Tensor, "*#b n d"]) -> Int64[Tensor, "*b m"]:
    """For each point of `a` the index of the nearest one of `b`; no gradient.

    Raises:
        TypeError: clouds that differ in dtype.
        ValueError: empty clouds, coordinates that are not finite or differ in number, batches that do not broadcast.
    """
    a, b = _checked("nearest", a, b)
    return _nearest(a, b)


@outside_modes
def squared_distance(a: Float[Tensor, "*#b m d"], b: Float[Tensor, "*#b n d"]) -> Float[Tensor, "*b m"]:
    """min_j |a_i − b_j|² for each point of `a`; errors as for `nearest`."""
    a, b = _checked("squared_distance", a, b)
    return _squared_distance(a, b)


@outside_modes
def chamfer(a: Float[Tensor, "*#b m d"], b: Float[Tensor, "*#b n d"], one_sided: bool = False) -> Float[Tensor, "*b"]:
    """mean_i min_j |a_i − b_j|² + mean_j min_i |a_i − b_j|²; with `one_sided` the first mean alone.

    In squared units of length. Errors as for `nearest`.
    """
    a, b = _checked("chamfer", a, b)
    forward = _squared_distance(a, b).mean(-1)
    return forward if one_sided else forward + _squared_distance(b, a).mean(-1)


@outside_modes
def hausdorff(a: Float[Tensor, "*#b m d"], b: Float[Tensor, "*#b n d"], one_sided: bool = False) -> Float[Tensor, "*b"]:
    """max_i min_j |a_i − b_j|, and the larger of this and its counterpart from b to a unless `one_sided`.

    In units of length; where it vanishes the gradient is zero. Errors as for `nearest`.
    """
    a, b = _checked("hausdorff", a, b)
    largest = _squared_distance(a, b).amax(-1)
    if not one_sided:
        largest = torch.maximum(largest, _squared_distance(b, a).amax(-1))
    positive = largest > 0
    return torch.where(positive, torch.where(positive, largest, 1).sqrt(), 0)


@outside_modes
def laplacian(control_points: Float[Tensor, "*b i j d"]) -> Float[Tensor, "*b"]:
    """Mean of |P_{i−1} − 2 P_i + P_{i+1}|² over both directions of a control grid, at least 3 × 3.

    Raises:
        ValueError: a smaller grid.
    """
    if min(control_points.shape[-3:-1]) < 3:
        raise ValueError(
            f"`laplacian(control_points)` needs a grid of at least 3 x 3; got {tuple(control_points.shape)}."
        )
    along = [control_points.diff(n=2, dim=axis).square().sum(-1).mean((-2, -1)) for axis in (-3, -2)]
    return (along[0] + along[1]) / 2


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    index = _nearest(a, b)
    return (a - b.gather(-2, index[..., None].expand(*index.shape, b.shape[-1]))).square().sum(-1)


@torch.no_grad()
def _nearest(a: Tensor, b: Tensor) -> Tensor:
    batch, m, n = a.shape[:-2], a.shape[-2], b.shape[-2]
    rows = a.reshape(-1, *a.shape[-2:]).mT.contiguous()  # "b d m": each coordinate in one piece
    columns = b.reshape(-1, *b.shape[-2:]).mT
    columns = torch.cat([columns, columns[..., -1:].expand(*columns.shape[:-1], -n % GROUP)], -1)
    size = at_a_time(len(rows) * columns.shape[-1], a)
    found = [_closest(block, columns) for block in rows.split(size, -1)]
    return torch.cat(found, -1).clamp(max=n - 1).reshape(*batch, m)


def _closest(rows: Tensor, columns: Tensor) -> Tensor:
    pairs = list(zip(rows[..., None].unbind(1), columns[:, :, None].unbind(1), strict=True))
    total = (pairs[0][0] - pairs[0][1]).square_()
    buffer = torch.empty_like(total)
    for x, y in pairs[1:]:
        torch.sub(x, y, out=buffer)
        total.addcmul_(buffer, buffer)
    groups = total.unflatten(-1, (-1, GROUP))  # PyTorch finds least values by vector instructions, but not their places
    best = groups.amin(-1).argmin(-1, keepdim=True)
    inside = groups.gather(-2, best[..., None].expand(*best.shape, GROUP))[..., 0, :]
    return best[..., 0] * GROUP + inside.argmin(-1)


def _checked(call: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for name, cloud in (("a", a), ("b", b)):
        check_kind(call, name, cloud, Tensor, "a tensor of points (*batch, points, coordinates)")
    check_dtype("b", b, a)
    for name, cloud in (("a", a), ("b", b)):
        if cloud.ndim < 2 or 0 in cloud.shape[-2:]:
            raise ValueError(
                f"`{call}(a, b)` needs clouds of shape (*batch, points, coordinates) with at least one point; "
                f"`{name}` has shape {tuple(cloud.shape)}. Leave empty clouds out."
            )
        if not (finite := cloud.detach().isfinite()).all():
            index = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"`{call}(a, b)` needs finite coordinates; `{name}` is {cloud[tuple(index)].item()} at index {index}."
            )
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"`{call}(a, b)` needs as many coordinates in both; got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    try:
        batch = common_batch(a.shape[:-2], b.shape[:-2])
    except ValueError as error:
        raise ValueError(
            f"The batch axes of `{call}(a, b)` must broadcast; got {tuple(a.shape)} and {tuple(b.shape)}."
        ) from error
    return a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
