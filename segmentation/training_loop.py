"""The loop behind `train_segmentation`: a Lightning module and its checkpoints."""

import time
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from tqdm import tqdm

from fem.support.training import IntervalModule, fit
from segmentation.datasets import ImageSet, augment, batch_of
from segmentation.layer import PiecewiseConstant
from segmentation.metrics import jaccard
from segmentation.training import Training, predict_masks


@dataclass(frozen=True, eq=False)
class Plan:
    """What is trained, and how: the arguments of `train_segmentation` of these names."""

    data: ImageSet
    steps: int
    layer: PiecewiseConstant | None
    warm_up: float
    mix: float
    batch: int
    lr: float
    weight_decay: float
    crop: int | None
    turn: float
    seed: int
    every: int

    def facts(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        found = {k: v for k, v in vars(self).items() if k not in ("data", "layer")}
        return found | {"images": len(self.data), "layer": repr(self.layer)}


class Module(IntervalModule):
    """A step: images by their number, the network's masks, their loss. After each interval: figures, checkpoint."""

    def __init__(self, network: nn.Module, plan: Plan, held_out: ImageSet | None, path: Path | None, bar: tqdm):
        super().__init__(network, plan, path, bar)
        self.held_out = held_out

    def configure_optimizers(self) -> Any:
        plan = self.plan
        optimizer = torch.optim.Adam(self.network.parameters(), plan.lr, weight_decay=plan.weight_decay)

        def rate(k: int) -> float:
            return min((k + 1) / (plan.steps // 20 + 1), 1) * 0.5 * (1 + cos(pi * min(k / plan.steps, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: int, index: int) -> Tensor:
        plan, step = self.plan, self.global_step
        picked = plan.data.subset(batch_of(plan.data, step, plan.batch, plan.seed))
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        images, masks = augment(picked.images, picked.masks, generator, plan.crop, plan.turn)
        truth = masks[:, None].float().to(self.device)
        logits = self.network(images.to(self.device))
        with torch.autocast(self.device.type, enabled=False):
            logits = logits.float()
            loss = binary_cross_entropy_with_logits(logits, truth)
            if plan.layer is not None and step >= plan.warm_up * plan.steps:
                p = plan.layer(logits.sigmoid()).clamp(1e-6, 1 - 1e-6)
                loss = plan.mix * binary_cross_entropy(p, truth) + (1 - plan.mix) * loss
        self.losses.append(loss.detach())
        return loss

    def measured(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        p = predict_masks(self.network, self.held_out.images.to(self.device), self.plan.layer)
        return {"jaccard": float(jaccard((p > 0.5).cpu(), self.held_out.masks).mean())}


def run(
    network: nn.Module,
    plan: Plan,
    held_out: ImageSet | None,
    folder: Path | None,
    resume: bool,
    precision: str,
    progress: bool,
    options: dict[str, Any],
) -> Training:
    """`train_segmentation` with its arguments checked."""
    begin = time.perf_counter()
    options = {"precision": precision, **options}
    make = lambda path, bar: Module(network, plan, held_out, path, bar)  # noqa: E731
    module, steps = fit(make, network, plan, folder, resume, progress, options)
    seconds = module.history[-1]["seconds"] if module.history else time.perf_counter() - begin
    return Training(network, steps, seconds, module.history)
