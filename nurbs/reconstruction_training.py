"""The loop behind `train_reconstruction`: a Lightning module and its checkpoints.

A step draws clouds by its number, and nothing else about it is random, so that weights, optimiser and schedule are all
that a checkpoint holds. Checkpoints are written beside their place and moved there when complete.
"""

import time
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from tqdm import tqdm

from fem.trainings import Numbers, Whole, quiet, stored_run
from nurbs.reconstruction import (
    Clouds,
    Loss,
    Training,
    control_point_loss,
    control_points_of,
    reconstruction_loss,
    surface_distance,
)
from nurbs.spline_net import SplineNet
from nurbs.surface import Surface

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


class Module(LightningModule):
    """A step: clouds by their number, the network's surfaces, their loss. After each interval: figures, checkpoint."""

    def __init__(
        self, network: nn.Module, plan: Plan, held_out: tuple[Tensor, Surface] | None, path: Path | None, bar: tqdm
    ):
        super().__init__()
        self.network, self.plan, self.held_out, self.path, self.bar = network, plan, held_out, path, bar
        self.history: list[dict[str, float]] = []
        self.losses: list[Tensor] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.network.parameters(), self.plan.lr)
        warm_up = min(WARM_UP, self.plan.steps // 10 + 1)

        def rate(k: int) -> float:
            return min((k + 1) / warm_up, 1) * 0.5 * (1 + cos(pi * min(k / self.plan.steps, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        self.bar.update(self.global_step)
        self.begin = time.perf_counter()

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

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        self.bar.update()
        if self.global_step % self.plan.every and self.global_step < self.plan.steps:
            return
        self.history.append(self.figures())
        self.bar.set_postfix({k: f"{v:.2e}" for k, v in self.history[-1].items() if k in ("loss", "chamfer")})
        for logger in self.trainer.loggers:
            logger.log_metrics(self.history[-1], self.global_step)
        if self.path is not None:
            self.trainer.save_checkpoint(self.path)
        self.begin = time.perf_counter()  # measuring is no training

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """What is known at the end of an interval; nothing but numbers is stored."""
        seconds = time.perf_counter() - self.begin + (self.history[-1]["seconds"] if self.history else 0.0)
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not isfinite(loss) or not all(p.isfinite().all() for p in self.network.parameters()):
            raise ValueError(
                f"by step {self.global_step} the loss is {loss} or weights are not finite: a smaller lr may help. What "
                "was stored before is as it was."
            )
        found = {"step": self.global_step, "loss": loss, "seconds": seconds}
        if self.held_out is not None:
            points, surface = self.held_out
            self.network.eval()
            distance = surface_distance(Surface(self.network(points)), surface, RESOLUTION)
            self.network.train()
            found["chamfer"] = float(distance.mean())
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ritz"] = {"facts": self.plan.facts(), "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["ritz"]["history"]


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
    begin, device, training = time.perf_counter(), next(network.parameters()).device, network.training
    path = None if folder is None else folder / "last.ckpt"
    stored = None if path is None else stored_run(path, network, plan.facts(), resume)
    with quiet(), tqdm(total=plan.steps, disable=not progress, dynamic_ncols=True) as bar:
        module = Module(network.train(), plan, held_out, path, bar)
        trainer = Trainer(
            **{
                "accelerator": "gpu" if device.type == "cuda" else device.type,
                "devices": [device.index or 0] if device.type == "cuda" else 1,
                "max_steps": plan.steps,
                "max_epochs": -1,
                "gradient_clip_val": plan.clip,
                "logger": False if folder is None else CSVLogger(folder, "logs", flush_logs_every_n_steps=1),
                "plugins": [Whole()],
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **options,
            }
        )
        try:
            trainer.fit(module, train_dataloaders=Numbers(), ckpt_path=stored)
        finally:
            network.to(device).train(training)  # Lightning leaves it on the CPU
    steps = trainer.global_step
    return Training(network, steps, steps * plan.batch, time.perf_counter() - begin, module.history)
