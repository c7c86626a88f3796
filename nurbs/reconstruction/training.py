"""Training a network that gives surfaces for point clouds, without labels or with them.

Each step draws clouds by their number, and nothing else about it is random.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fem.support import training
from fem.support.training.plan import MakeOptimizer, Plan, Task, Training, mean_over_processes
from nurbs.geometry.surface import Surface
from nurbs.reconstruction.losses import (
    GRID,
    STIFFNESS,
    control_point_loss,
    control_points_of,
    reconstruction_loss,
    surface_distance,
)
from nurbs.reconstruction.spline_net import SplineNet

Clouds = Callable[[int, int], tuple[Tensor, Surface]]
CloudLoss = Literal["chamfer", "control_points"]
RESOLUTION = 32  # of `surface_distance` on held-out clouds


@dataclass(frozen=True, eq=False)
class CloudTask(Task):
    """Clouds by their number, a network's surfaces, their loss: the arguments of `train_reconstruction`."""

    clouds: Clouds
    target: Clouds | None
    objective: CloudLoss
    num_points: int | None
    grid: tuple[int, int]
    stiffness: float

    def facts(self) -> dict[str, Any]:
        settings = {"num_points": self.num_points, "grid": tuple(self.grid), "stiffness": self.stiffness}
        return {"loss": self.objective, **settings}

    def draw(self, number: int, batch: int, part: slice) -> tuple[Tensor, Tensor, Surface]:
        """What the network sees, what the loss sees, and the true surfaces."""
        start, count = number * batch + part.start, part.stop - part.start
        points, surface = self.clouds(start, count)
        wanted = points
        if self.target is not None and self.objective == "chamfer":
            wanted, _ = self.target(start, count)
        return points[:, : self.num_points], wanted, surface

    def loss(self, network: nn.Module, items: tuple[Tensor, Tensor, Surface], step: int) -> tuple[Tensor, Tensor]:
        seen, wanted, surface = items
        stages = network.stages(seen) if isinstance(network, SplineNet) else [network(seen)]
        with torch.autocast(seen.device.type, enabled=False):
            stages = [p.to(seen.dtype) for p in stages]
            if self.objective == "chamfer":
                values = [reconstruction_loss(wanted, p, self.grid, self.stiffness).mean() for p in stages]
            else:
                _, i, j, _ = stages[0].shape
                target = control_points_of(surface, (i, j))
                values = [control_point_loss(p, target).mean() for p in stages]
        total = torch.stack(values)
        # The gradient of Σ log of the means over the batch: relative, so that cutting it means the same at any time.
        return (total / mean_over_processes(total)).sum(), values[-1]

    def measure(self, network: nn.Module, held_out: tuple[Tensor, Surface]) -> dict[str, float]:
        points, surface = held_out
        distance = surface_distance(Surface(network(points)), surface, RESOLUTION)
        return {"chamfer": float(distance.mean())}


def train_reconstruction(
    network: nn.Module,
    clouds: Clouds,
    steps: int,
    batch: int = 16,
    *,
    lr: float = 4e-4,
    loss: CloudLoss = "chamfer",
    num_points: int | None = None,
    target: Clouds | None = None,
    grid: tuple[int, int] = GRID,
    stiffness: float = STIFFNESS,
    held_out: tuple[Tensor, Surface] | None = None,
    every: int = 200,
    folder: str | Path | None = None,
    resume: bool = True,
    clip: float = 1.0,
    precision: str = "32-true",
    devices: int = 1,
    optimizer: MakeOptimizer | None = None,
    progress: bool = True,
    trainer: Any = None,
) -> Training:
    """Train a network that gives control points for clouds.

    Args:
        network: from clouds "b m 3" to control points "b i j 3": a `SplineNet`.
        clouds: gives (clouds "b m 3", true surfaces) by number: `RandomPatches`, or any such callable. The true
            surfaces are for `loss="control_points"` alone.
        steps: of the optimiser; the step length rises for the first hundred, or tenth of all, and falls to zero as a
            cosine.
        batch: clouds per step, over all processes together; batch k has the numbers from k · batch on.
        lr: of Adam, which trains the network unless `optimizer` says otherwise.
        loss: "chamfer" (unsupervised) or "control_points" (supervised).
        num_points: how many points of each cloud the network sees, the first ones; all by default. The loss sees all.
        target: the clouds that "chamfer" compares with, by the same numbers; `clouds` by default. Where noise and holes
            are put in, as augmentation, the clouds without them teach the network to leave them out:
            `RandomPatches(noise=0, holes=0)` for `RandomPatches()`.
        grid, stiffness: of `reconstruction_loss`.
        held_out: clouds and true surfaces to measure on. The history gets "chamfer", the mean distance to the surfaces
            (`surface_distance`).
        every: so many steps make an interval, at whose end all is measured, logged and stored.
        folder: for the checkpoint `last.ckpt`, logs as CSV and for TensorBoard where installed, and in the end the
            network, `network.safetensors`; without one nothing is written.
        resume: continue from the folder's checkpoint, bit for bit as if there had been no break (on CPUs, with as many
            threads). Without `resume` a folder that holds a run is refused.
        clip: norm to which gradients are cut; 0 for none.
        precision: Lightning's, such as "bf16-mixed"; distances stay as precise as the clouds.
        devices: processes on this machine; each takes its share of the batch.
        optimizer: makes one from the network's named parameters; their rates are then those of the first step.
        progress: a bar with loss, held-out error and samples per second.
        trainer: more options for `lightning.pytorch.Trainer`, as a dict: callbacks such as `EarlyStopping` and
            `ModelCheckpoint(monitor="chamfer")`, `accumulate_grad_batches`, …; or a `Trainer`, which keeps its own logs
            and progress bar, and takes `steps` and `every` from here.

    Raises:
        ImportError: Lightning is not installed.
        ValueError: bad arguments; a folder that holds another run or a damaged checkpoint, which is left as it is; a
            loss that is not finite.
    """
    if loss not in ("chamfer", "control_points"):
        raise ValueError(f'`train_reconstruction(loss=...)` must be "chamfer" or "control_points"; got {loss!r}.')
    shared = (held_out, every, folder, resume, clip, precision, devices, optimizer, progress, trainer)
    plan = Plan("train_reconstruction", steps, batch, lr, *shared)
    return training.train(network, CloudTask(clouds, target, loss, num_points, grid, stiffness), plan)
