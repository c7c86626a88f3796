"""A frame that belongs to a point cloud: what is done in it follows every motion and scaling of the cloud.

The normal is the direction of least variance; about it, the axes are the sides of the rectangle of least area around
the projected points, so that a patch with corners lies as its own rectangle does (principal axes say nothing about how
a square lies). The longer side comes first. All signs make the third moments positive.
"""

from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import greville, uniform_knots
from fem.support.checks import shown
from nurbs.geometry.directions import per_direction

DIRECTIONS = 90  # in a half turn, an even number


@dataclass(frozen=True, eq=False)
class Frame:
    """x = origin + Σ_r axes_r size_r y_r, with unit vectors as rows of `axes` "b 3 3" and half sides in `size` "b 3".

    y runs through [−1, 1] along the sides of the rectangle; along the normal the unit is the mean of the half sides.
    """

    origin: Float[Tensor, "b 3"]
    axes: Float[Tensor, "b 3 3"]
    size: Float[Tensor, "b 3"]

    def local(self, points: Float[Tensor, "b *m 3"]) -> Float[Tensor, "b *m 3"]:
        """y of points x."""
        flat = points.flatten(1, -2) - self.origin[:, None]
        return (flat @ self.axes.mT / self.size[:, None]).reshape(points.shape)

    def world(self, points: Float[Tensor, "b *m 3"]) -> Float[Tensor, "b *m 3"]:
        """x of points y."""
        flat = points.flatten(1, -2) * self.size[:, None]
        return (flat @ self.axes + self.origin[:, None]).reshape(points.shape)


def check_clouds(call: str, points: Tensor, least: int = 1) -> None:
    """An error that names the call, unless the points are clouds "b m 3", m ≥ least, of finite coordinates."""
    if not isinstance(points, Tensor) or not points.is_floating_point():
        raise TypeError(f"`{call}` needs floating point clouds; got {shown(points)}.")
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(
            f"`{call}` needs clouds of shape (batch, points, 3); got {tuple(points.shape)}. Give a single cloud as "
            "`points[None]`."
        )
    if points.shape[1] < least:
        raise ValueError(f"`{call}` needs clouds of at least {least} points; got {points.shape[1]}.")
    if not (finite := points.detach().isfinite()).all():
        index = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"`{call}` needs finite coordinates; got {points[tuple(index)].item()} at index {index}. Leave such points "
            "out."
        )


@torch.no_grad()
def cloud_frame(points: Float[Tensor, "b m 3"]) -> Frame:
    """The frame of each cloud; it carries no gradient.

    Raises:
        ValueError: another shape, no points, coordinates that are not finite, or all points in one place.
    """
    check_clouds("cloud_frame(points)", points)
    mean = points.mean(1, keepdim=True)
    x = points - mean
    axes = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(-1).mT  # rows, by falling variance
    angle = torch.arange(DIRECTIONS, dtype=x.dtype, device=x.device) * (pi / DIRECTIONS)
    fan = torch.stack([angle.cos(), angle.sin()])
    extent = x @ axes[:, :2].mT @ fan
    width = extent.amax(1) - extent.amin(1)
    across = width.roll(-DIRECTIONS // 2, -1)
    best = (width * across).masked_fill(width < across, torch.inf).argmin(-1)
    c, s = angle[best].cos()[:, None], angle[best].sin()[:, None]
    axes = torch.stack([c * axes[:, 0] + s * axes[:, 1], c * axes[:, 1] - s * axes[:, 0], axes[:, 2]], 1)
    y = x @ axes.mT
    sign = torch.where(y.pow(3).sum(1) < 0, -1.0, 1.0).to(y)
    y, axes = y * sign[:, None], axes * sign[..., None]
    low, high = y.amin(1), y.amax(1)
    size = (high - low) / 2
    if not (size[:, 0] > 0).all():
        item = int((size[:, 0] <= 0).nonzero()[0])
        raise ValueError(f"`cloud_frame(points)` needs points in different places; those of item {item} coincide.")
    size = torch.stack([size[:, 0], size[:, 1], size[:, :2].mean(-1)], -1)
    size = size.clamp_min(1e-3 * size[:, :1])  # of points on a line
    centre = torch.cat([(low + high)[:, :2] / 2, torch.zeros_like(low[:, 2:])], -1)
    origin = mean[:, 0] + (centre[:, None] @ axes)[:, 0]
    return Frame(origin, axes, size)


def flat_grid(shape: tuple[int, int], like: Tensor) -> Float[Tensor, "i j 3"]:
    """Control points of the square [−1, 1]² × 0 as a bicubic surface on clamped uniform knots, linear in u and v."""
    u, v = (2 * greville(uniform_knots(n, 3, like.dtype, like.device), 3) - 1 for n in shape)
    x, y = torch.meshgrid(u, v, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1)


def flat_patch(points: Float[Tensor, "b m 3"], shape: tuple[int, int]) -> Float[Tensor, "b i j 3"]:
    """Control points "b i j 3" of the rectangle around each cloud: where a fit may start."""
    grid = flat_grid(per_direction("shape", shape, 2, "flat_patch", int), points)
    return cloud_frame(points).world(grid.expand(len(points), *grid.shape))
