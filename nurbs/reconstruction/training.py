"""The loop behind `train_reconstruction`: a Lightning module and its checkpoints.

A step draws clouds by its number, and nothing else about it is random, so that weights, optimiser and schedule are all
that a checkpoint holds. Checkpoints are written beside their place and moved there when complete.
"""

import time
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fem.support.training import IntervalModule, fit
from nurbs.geometry.surface import Surface
from nurbs.reconstruction.losses import (
    Clouds,
    Loss,
    Training,
    control_point_loss,
    control_points_of,
    reconstruction_loss,
    surface_distance,
)
from nurbs.reconstruction.spline_net import SplineNet

WARM_UP = 100  # steps in which the step length rises, a tenth of all at most
RESOLUTION = 32  # of `surface_distance` on held-out clouds


@dataclass(frozen=True, eq=False)
class Plan:
    """What is trained, and how: the arguments of `train_reconstruction` of these names."""

    clouds: Clouds
    target: Clouds
    steps: int
    batch: int
    loss: Loss
    lr: float
    num_points: int | None
    grid: tuple[int, int]
    stiffness: float
    every: int
    clip: float

    def facts(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {name: value for name, value in vars(self).items() if name not in ("clouds", "target")}


class Module(IntervalModule):
    """A step: clouds by their number, the network's surfaces, their loss. After each interval: figures, checkpoint."""

    def __init__(
        self, network: nn.Module, plan: Plan, held_out: tuple[Tensor, Surface] | None, path: Path | None, bar: tqdm
    ):
        super().__init__(network, plan, path, bar)
        self.held_out = held_out

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.network.parameters(), self.plan.lr)
        warm_up = min(WARM_UP, self.plan.steps // 10 + 1)

        def rate(k: int) -> float:
            return min((k + 1) / warm_up, 1) * 0.5 * (1 + cos(pi * min(k / self.plan.steps, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: int, index: int) -> Tensor:
        plan = self.plan
        points, surface = plan.clouds(self.global_step * plan.batch, plan.batch)
        seen = points[:, : plan.num_points]
        stages = self.network.stages(seen) if isinstance(self.network, SplineNet) else [self.network(seen)]
        if plan.loss == "chamfer":
            if plan.target is not plan.clouds:
                points, _ = plan.target(self.global_step * plan.batch, plan.batch)
            values = [reconstruction_loss(points, p, plan.grid, plan.stiffness).mean() for p in stages]
        else:
            _, i, j, _ = stages[0].shape
            target = control_points_of(surface, (i, j))
            values = [control_point_loss(p, target).mean() for p in stages]
        self.losses.append(values[-1].detach())
        return torch.stack(values).log().sum()  # relative, so that cutting gradients means the same early and late

    def measured(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        points, surface = self.held_out
        self.network.eval()
        distance = surface_distance(Surface(self.network(points)), surface, RESOLUTION)
        self.network.train()
        return {"chamfer": float(distance.mean())}


def run(
    network: nn.Module,
    plan: Plan,
    held_out: tuple[Tensor, Surface] | None,
    folder: Path | None,
    resume: bool,
    progress: bool,
    options: dict[str, Any],
) -> Training:
    """`train_reconstruction` with its arguments checked."""
    begin = time.perf_counter()
    options = {"gradient_clip_val": plan.clip, **options}
    make = lambda path, bar: Module(network, plan, held_out, path, bar)  # noqa: E731
    module, steps = fit(make, network, plan, folder, resume, progress, options)
    return Training(network, steps, steps * plan.batch, time.perf_counter() - begin, module.history)
