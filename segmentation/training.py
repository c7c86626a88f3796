"""`train_segmentation`: a network learns masks from images, with the piecewise-constant layer at its end if asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from torch.optim import Optimizer

from fem.support import training
from fem.support.checks import check_integers, check_kind, check_numbers
from fem.support.training.plan import MakeOptimizer, Plan, Task, Training
from segmentation.datasets import ImageSet, augment, batch_of
from segmentation.layer import PiecewiseConstant
from segmentation.metrics import jaccard
from segmentation.prediction import predict_masks


@dataclass(frozen=True, eq=False)
class MaskTask(Task):
    """Images by their number, a network's masks, their loss: the arguments of `train_segmentation`.

    layer_from: the first step with the layer.
    """

    data: ImageSet
    layer: PiecewiseConstant | None
    layer_from: float
    mix: float
    weight_decay: float
    crop: int | None
    turn: float
    seed: int

    def facts(self) -> dict[str, Any]:
        found = {k: v for k, v in vars(self).items() if k not in ("data", "layer")}
        return found | {"images": len(self.data), "layer": repr(self.layer)}

    def draw(self, number: int, batch: int, part: slice) -> tuple[Tensor, Tensor]:
        picked = self.data.subset(batch_of(self.data, number, batch, self.seed))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        images, masks = augment(picked.images, picked.masks, generator, self.crop, self.turn)
        return images[part], masks[part, None].float()

    def loss(self, network: nn.Module, items: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, Tensor]:
        images, truth = (x.to(device_of(network)) for x in items)
        logits = network(images)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            loss = binary_cross_entropy_with_logits(logits, truth)
            if self.layer is not None and step >= self.layer_from:
                p = self.layer(logits.sigmoid()).clamp(1e-6, 1 - 1e-6)
                loss = self.mix * binary_cross_entropy(p, truth) + (1 - self.mix) * loss
        return loss, loss

    def measure(self, network: nn.Module, held_out: ImageSet) -> dict[str, float]:
        p = predict_masks(network, held_out.images.to(device_of(network)), self.layer)
        return {"jaccard": float(jaccard((p > 0.5).cpu(), held_out.masks).mean())}

    def optimizer(self, parameters: Iterable[tuple[str, nn.Parameter]], lr: float) -> Optimizer:
        return torch.optim.Adam([p for _, p in parameters], lr, weight_decay=self.weight_decay)

    def warm_up_steps(self, steps: int) -> int:
        return steps // 20 + 1


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def train_segmentation(
    network: nn.Module,
    data: ImageSet,
    steps: int,
    batch: int = 16,
    *,
    lr: float = 3e-4,
    layer: PiecewiseConstant | None = None,
    warm_up: float = 0.8,
    mix: float = 0.2,
    weight_decay: float = 1e-4,
    crop: int | None = None,
    turn: float = 15.0,
    seed: int = 0,
    held_out: ImageSet | None = None,
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
    """Minimise the binary cross-entropy of p = σ(network(image)), and of layer(p), against the masks:

        mix · BCE(layer(p)) + (1 − mix) · BCE(p)    after the share `warm_up` of the steps,    BCE(p) before it.

    Images are mirrored, turned, scaled and cut anew at each step, by chance that follows from `seed` and the number of
    the batch alone.

    Args:
        network: images "b c y x" → logits "b 1 y x"; trained in place, on its device.
        steps: of the optimiser; the step length rises for a twentieth of them and falls to zero as a cosine.
        batch: images per step, over all processes together.
        lr: of Adam (β = 0.9, 0.999), which trains the network unless `optimizer` says otherwise.
        layer: the piecewise-constant layer the network is to end in; without it the loss is BCE(p) throughout.
        warm_up: the share of the steps without the layer, whose components mean nothing at first.
        mix: the layer's share of the loss.
        weight_decay: of Adam.
        crop: pixels of squares that are cut out of the images to train on; whole images without it.
        turn: largest angle of the augmentation, in degrees.
        held_out: images to measure on. The history gets "jaccard", the mean Jaccard index.
        every: so many steps make an interval, at whose end all is measured, logged and stored.
        folder: for the checkpoint `last.ckpt`, logs as CSV and for TensorBoard where installed, and in the end the
            network, `network.safetensors`; without one nothing is written.
        resume: continue from the folder's checkpoint, bit for bit as if there had been no break (on CPUs, with as many
            threads). Without `resume` a folder that holds a run is refused.
        clip: norm to which gradients are cut; 0 for none.
        precision: Lightning's: "bf16-mixed" computes convolutions in half precision; the loss stays in single.
        devices: processes on this machine; each takes its share of the batch.
        optimizer: makes one from the network's named parameters; their rates are then those of the first step.
        progress: a bar with loss, held-out error and samples per second.
        trainer: more options for `lightning.pytorch.Trainer`, as a dict: callbacks such as `EarlyStopping` and
            `ModelCheckpoint(monitor="jaccard", mode="max")`, `accumulate_grad_batches`, …; or a `Trainer`, which keeps
            its own logs and progress bar, and takes `steps` and `every` from here.

    Raises:
        ImportError: Lightning is not installed.
        ValueError: bad arguments; a folder that holds another run or a damaged checkpoint, which is left as it is; a
            loss that is not finite.
    """
    check_kind("train_segmentation", "data", data, ImageSet, "an `ImageSet`")
    if layer is not None:
        check_kind("train_segmentation", "layer", layer, nn.Module, "`PiecewiseConstant(...)` or None")
    check_numbers("train_segmentation", "non-negative", weight_decay=weight_decay, turn=turn)
    check_integers("train_segmentation", optional=True, crop=crop)
    check_integers("train_segmentation", None, seed=seed)
    if not (0 <= warm_up <= 1 and 0 <= mix <= 1):
        raise ValueError(f"`train_segmentation` needs warm_up and mix in [0, 1]; got {warm_up} and {mix}.")
    shared = (held_out, every, folder, resume, clip, precision, devices, optimizer, progress, trainer)
    plan = Plan("train_segmentation", steps, batch, lr, *shared)
    task = MaskTask(data, layer, warm_up * steps, mix, weight_decay, crop, turn, seed)
    return training.train(network, task, plan)
