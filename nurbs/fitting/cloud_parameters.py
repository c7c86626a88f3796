"""Parameters for clouds that come without: on a plane, around an axis, around a ring."""

import warnings
from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOURS, SEEN = 4, 600  # for `apart`: of each point, and points that are looked at
FLAT = 1e-7  # smoothing of clouds, for the sake of control points without data
FAR = 3.0  # largest distances of points from the middle of the cloud
FEW = 100  # points of which it says nothing


def cloud_parameters(points: Float[Tensor, "*b q d"], periodic: Sequence[bool]) -> Float[Tensor, "*b q 2"]:
    """Parameters in [0, 1] to begin with: coordinates on a plane where no direction is periodic, else angles.

    The plane is the first of the principal ones over which the cloud is a graph. Around the principal axis from which
    the distances vary least go the angle and, along it, the height; where both directions are periodic, the angle
    around the ring on which the cloud then lies on average.

    Warns:
        UserWarning: the cloud is a graph over none of the planes.
    """
    if not any(periodic):
        return _on_a_plane(points)
    if points.shape[-1] != 3:
        raise ValueError(
            f"A cloud with a periodic direction needs points in three dimensions; got {points.shape[-1]}. Give `uv=`."
        )
    centred = points - points.mean(-2, keepdim=True)
    x = centred @ _principal_axes(centred).mT
    radii = torch.stack([x[..., [j for j in range(3) if j != i]].square().sum(-1).sqrt() for i in range(3)], -1)
    axis = (radii.std(-2) / radii.mean(-2)).argmin(-1)  # none but the axis of a tube leaves it hollow
    turned = x.gather(-1, ((axis[..., None] + torch.arange(1, 4, device=x.device)) % 3)[..., None, :].expand(x.shape))
    along, radius = turned[..., 2], torch.linalg.vector_norm(turned[..., :2], dim=-1)
    angle = torch.atan2(turned[..., 1], turned[..., 0]) / (2 * pi) + 0.5
    if all(periodic):
        low, high = radius.aminmax(dim=-1, keepdim=True)
        other = torch.atan2(along - along.mean(-1, keepdim=True), radius - (low + high) / 2) / (2 * pi) + 0.5
    else:
        low, high = along.aminmax(dim=-1, keepdim=True)
        if not (high > low).all():
            raise ValueError("The points lie in one plane, around which nothing goes. Give `uv=`.")
        other = (along - low) / (high - low)
    pair = (angle, other) if periodic[0] else (other, angle)
    return torch.stack(pair, -1)


def _on_a_plane(points: Float[Tensor, "*b q d"]) -> Float[Tensor, "*b q 2"]:
    first, d = principal_parameters(points, 2), points.shape[-1]
    if d < 3 or points.shape[-2] < FEW:
        return first
    centred = (points - points.mean(-2, keepdim=True)).reshape(-1, *points.shape[-2:])
    x = centred @ _principal_axes(centred).mT
    pairs = [[0, 1], [0, 2], [1, 2]][: x.shape[-1]]
    found = torch.stack([apart(x, pair) for pair in pairs], -1)
    limit = max(1.45, 1.45 * (min(points.shape[-2], SEEN) / 200) ** (1 / 3))
    which = torch.where(found[:, 0] <= limit, 0, found.argmin(-1))
    if (bad := found.gather(-1, which[:, None])[:, 0] > limit).any():
        item = f" {int(bad.nonzero()[0])} of the batch" if len(x) > 1 else ""
        warnings.warn(
            f"`fit_surface(points)`: the cloud{item} is no graph over a plane, where its parameters begin: neighbours "
            "in the plane are far apart in space, and the surface will be folded. Give `uv=`, "
            "`periodic=(True, False)` for a tube or `periodic=True` for a ring, or fit it in parts.",
            stacklevel=5,
        )
    chosen = x.gather(-1, torch.tensor(pairs, device=x.device)[which][:, None].expand(-1, x.shape[1], -1))
    lower, upper = chosen.amin(1, keepdim=True), chosen.amax(1, keepdim=True)
    return torch.where(
        (which == 0)[:, None, None], first.reshape(chosen.shape), (chosen - lower) / (upper - lower)
    ).reshape(first.shape)


def principal_parameters(points: Float[Tensor, "*b q d"], directions: int) -> Float[Tensor, "*b q r"]:
    """Coordinates along the principal axes of a cloud, scaled to fill [0, 1]: parameters to begin with."""
    centred = points - points.mean(-2, keepdim=True)
    along = centred @ _principal_axes(centred)[..., :directions, :].mT
    lower, upper = along.amin(-2, keepdim=True), along.amax(-2, keepdim=True)
    extent = upper - lower
    if not (extent > 100 * torch.finfo(points.dtype).eps * extent.amax(-1, keepdim=True)).all():
        raise ValueError(
            f"The points lie in fewer than {directions} directions, which gives no parameters to begin with. "
            "Give `uv=`."
        )
    return (along - lower) / extent


def _principal_axes(centred: Float[Tensor, "*b q d"]) -> Float[Tensor, "*b k d"]:
    """As rows, by falling variance."""
    axes = torch.linalg.svd(centred, full_matrices=False).Vh
    return axes * torch.gather(axes, -1, axes.abs().argmax(-1, keepdim=True)).sign()  # the same on every machine


@torch.no_grad()
def apart(x: Float[Tensor, "b q d"], plane: Sequence[int]) -> Float[Tensor, "b"]:
    """How far apart in space the neighbours in a coordinate plane are, in units of the distance of those in space.

    About 1 for a graph. For several sheets it grows as √q with the number of points, for noise as the cube root.
    """
    x = x[:, torch.linspace(0, x.shape[1] - 1, min(x.shape[1], SEEN), device=x.device).long()]
    space, flat = (torch.cdist(y, y) for y in (x, x[..., list(plane)]))
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    space, flat = (y.masked_fill(itself, torch.inf) for y in (space, flat))
    near = space.gather(-1, flat.topk(NEIGHBOURS, largest=False).indices).mean((1, 2))
    return near / space.topk(NEIGHBOURS, largest=False).values.mean((1, 2)).clamp_min(torch.finfo(x.dtype).tiny)


@torch.no_grad()
def warn_of_outliers(points: Float[Tensor, "*b q d"], control: Float[Tensor, "*b n m d"]) -> None:
    """A warning where control points are far from their cloud: the data hardly determine them."""
    middle = points.mean(-2, keepdim=True)
    size = torch.linalg.vector_norm(points - middle, dim=-1).amax(-1)
    reach = torch.linalg.vector_norm(control.flatten(-3, -2) - middle, dim=-1).amax(-1)
    if (bad := reach > FAR * size).any():
        where = bad.flatten().nonzero()[0]
        share = (reach / size).flatten()[where].item()
        warnings.warn(
            f"`fit_surface(points)`: control points lie {share:.3g} times as far from the middle of the cloud as any "
            "point of it: the surface is hardly determined there. Raise `smoothing=`, take fewer control points, or "
            "give `uv=`.",
            stacklevel=4,
        )
