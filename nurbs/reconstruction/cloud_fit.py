"""Surfaces fitted to point clouds one by one, without a network: descent on the loss that networks are trained with."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import check_dtype
from fem.support.checks import check_flags, check_integers, check_numbers, named_options
from fem.support.modes import outside_modes
from fem.support.status import Status, check_fit, nest, worst
from nurbs.geometry.directions import per_direction
from nurbs.geometry.numbers import Coordinates, floating
from nurbs.geometry.surface import Surface
from nurbs.reconstruction.frames import check_clouds, flat_patch
from nurbs.reconstruction.losses import GRID, STIFFNESS, reconstruction_loss


@dataclass(frozen=True, eq=False, repr=False)
class CloudFit:
    """The result of `fit_clouds`.

    Attributes:
        surface: one for each cloud "b".
        loss: `reconstruction_loss` "b", with lengths in units of the cloud's root mean square radius.
        status: a tuple of one `Status` per cloud: `BUDGET` after all steps, or `NOT_FINITE` (descent ran away; the
            surface is the last before).
        steps: taken.
    """

    surface: Surface
    loss: Float[Tensor, "b"]
    status: Any
    steps: int

    @property
    def control_points(self) -> Float[Tensor, "b i j 3"]:
        return self.surface.control_points

    def __repr__(self) -> str:
        size = f", loss ≤ {float(self.loss.max()):.2e}" if len(self.loss) else ""
        return f"CloudFit({worst(self.status).name}, {self.surface}; {self.steps} steps{size})"


@named_options
@outside_modes
def fit_clouds(
    points: Coordinates,
    shape: tuple[int, int] = (20, 20),
    initial: Float[Tensor, "b i j 3"] | None = None,
    steps: int = 200,
    lr: float = 0.02,
    grid: tuple[int, int] = GRID,
    stiffness: float = STIFFNESS,
    throw: bool = True,
) -> CloudFit:
    """Surfaces "b" that minimise `reconstruction_loss`, one for each cloud, by Adam on their control points.

    All clouds at once, none influences another. No gradient flows through the fit.

    Args:
        points: "b m 3".
        initial: control points to start from, a network's answer for instance; the rectangle around each cloud
            (`flat_patch`) by default.
        lr: of the first step, in units of the cloud's root mean square radius; falls to zero as a cosine.
        throw: raise where the fit of a cloud fails; False returns it with that status.

    Raises:
        ConvergenceError: control points or the loss of a cloud are not finite, unless `throw=False`; the `CloudFit` is
            its `.solution`.
        ValueError: initial control points of another shape; clouds as for `cloud_frame`.
    """
    (points,) = floating("fit_clouds", points=points)
    check_clouds("fit_clouds(points)", points)
    check_flags("fit_clouds", throw=throw)
    check_integers("fit_clouds", 0, steps=steps)
    check_numbers("fit_clouds", "positive", lr=lr)
    check_numbers("fit_clouds", "non-negative", stiffness=stiffness)
    shape = per_direction("shape", shape, 2, "fit_clouds", int)
    grid = per_direction("grid", grid, 2, "fit_clouds", int)
    if min(shape) < 4 or min(grid) < 1:
        raise ValueError(
            f"`fit_clouds` needs a shape of at least 4 x 4 and a grid of at least 1 x 1; got {shape} and {grid}."
        )
    if initial is not None:
        check_dtype("initial", initial, points)
    start = flat_patch(points, shape) if initial is None else initial
    if start.shape != (len(points), *shape, 3):
        raise ValueError(
            f"`fit_clouds(initial=...)` needs control points of shape {(len(points), *shape, 3)}; "
            f"got {tuple(start.shape)}."
        )
    points = points.detach()
    mean = points.mean(1, keepdim=True)
    radius = (points - mean).square().sum(-1).mean(1).sqrt()[:, None, None]  # rms
    unit = (points - mean) / radius
    control = ((start.detach() - mean[:, None]) / radius[..., None]).requires_grad_()
    lost = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    optimizer = torch.optim.Adam([control], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        with torch.enable_grad():
            optimizer.zero_grad()
            reconstruction_loss(unit, control, grid, stiffness).sum().backward()
        kept = control.detach().clone()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            lost |= ~control.flatten(1).isfinite().all(-1)
            control.copy_(torch.where(lost[:, None, None, None], kept, control))
    control = control.detach()
    loss = reconstruction_loss(unit, control, grid, stiffness)
    lost |= ~loss.isfinite()
    surface = Surface(control * radius[..., None] + mean[:, None])
    ends = [Status.NOT_FINITE if failed else Status.BUDGET for failed in lost.tolist()]
    return check_fit("fit_clouds(points)", CloudFit(surface, loss, nest(ends, (len(ends),)), steps), throw)
