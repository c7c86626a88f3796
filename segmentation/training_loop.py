"""The loop behind `train_segmentation`: a Lightning module and its checkpoints."""

import time
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from tqdm import tqdm

from fem.trainings import Numbers, Whole, quiet, stored_run
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


class Module(LightningModule):
    """A step: images by their number, the network's masks, their loss. After each interval: figures, checkpoint."""

    def __init__(self, network: nn.Module, plan: Plan, held_out: ImageSet | None, path: Path | None, bar: tqdm):
        super().__init__()
        self.network, self.plan, self.held_out, self.path, self.bar = network, plan, held_out, path, bar
        self.history: list[dict[str, float]] = []
        self.losses: list[Tensor] = []

    def configure_optimizers(self) -> Any:
        plan = self.plan
        optimizer = torch.optim.Adam(self.network.parameters(), plan.lr, weight_decay=plan.weight_decay)

        def rate(k: int) -> float:
            return min((k + 1) / (plan.steps // 20 + 1), 1) * 0.5 * (1 + cos(pi * min(k / plan.steps, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        self.bar.update(self.global_step)
        self.begin = time.perf_counter()

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

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        self.bar.update()
        if self.global_step % self.plan.every and self.global_step < self.plan.steps:
            return
        self.history.append(self.figures())
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in self.history[-1].items() if k in ("loss", "jaccard")})
        for logger in self.trainer.loggers:
            logger.log_metrics(self.history[-1], self.global_step)
        if self.path is not None:
            self.trainer.save_checkpoint(self.path)
        self.begin = time.perf_counter()  # measuring is no training

    def figures(self) -> dict[str, float]:
        """What is known at the end of an interval; nothing but numbers is stored."""
        seconds = time.perf_counter() - self.begin + (self.history[-1]["seconds"] if self.history else 0.0)
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not isfinite(loss) or not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            raise ValueError(
                f"by step {self.global_step} the loss is {loss} or weights are not finite: a smaller lr may help. What "
                "was stored before is as it was."
            )
        found = {"step": self.global_step, "loss": loss, "seconds": seconds}
        if self.held_out is not None:
            p = predict_masks(self.network, self.held_out.images.to(self.device), self.plan.layer)
            found["jaccard"] = float(jaccard((p > 0.5).cpu(), self.held_out.masks).mean())
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ritz"] = {"facts": self.plan.facts(), "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["ritz"]["history"]


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
                "precision": precision,
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
    seconds = module.history[-1]["seconds"] if module.history else time.perf_counter() - begin
    return Training(network, trainer.global_step, seconds, module.history)
