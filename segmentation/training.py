"""`train_segmentation`: a network learns masks from images, with the piecewise-constant layer at its end if asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segmentation.datasets import ImageSet
from segmentation.layer import PiecewiseConstant


@dataclass(frozen=True)
class Training:
    """A training that ended: the network, in place, the steps, the seconds and the figures of each interval."""

    network: nn.Module
    steps: int
    seconds: float
    history: list[dict[str, float]] = field(repr=False)


def train_segmentation(
    network: nn.Module,
    data: ImageSet,
    steps: int,
    *,
    layer: PiecewiseConstant | None = None,
    warm_up: float = 0.8,
    mix: float = 0.2,
    batch: int = 16,
    lr: float = 3e-4,
    weight_decay: float = 1e-4,
    crop: int | None = None,
    turn: float = 15.0,
    seed: int = 0,
    held_out: ImageSet | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    every: int = 100,
    precision: str = "32-true",
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Training:
    """Minimise the binary cross-entropy of p = σ(network(image)), and of layer(p), against the masks:

        mix · BCE(layer(p)) + (1 − mix) · BCE(p)    after the share `warm_up` of the steps,    BCE(p) before it.

    The optimiser is Adam (β = 0.9, 0.999) with a step length that rises for a twentieth of the steps and falls along a
    cosine. Images are mirrored, turned, scaled and cut anew at each step, by chance that follows from `seed` and the
    number of the step alone: a run that was killed goes on from its last checkpoint as if nothing had happened.

    Args:
        network: images "b c y x" → logits "b 1 y x"; trained in place, on its device.
        layer: the piecewise-constant layer the network is to end in; without it the loss is BCE(p) throughout.
        warm_up: the share of the steps without the layer, whose components mean nothing at first.
        mix: the layer's share of the loss.
        crop: pixels of squares that are cut out of the images to train on; whole images without it.
        turn: largest angle of the augmentation, in degrees.
        held_out: images whose Jaccard index is measured after each interval.
        folder: for `last.ckpt` and CSV logs; nothing is written without it.
        resume: go on from the checkpoint in `folder`, if there is one.
        every: steps between checkpoints.
        precision: of Lightning: "bf16-mixed" computes convolutions in half precision.
        options: more arguments of Lightning's `Trainer`.

    Raises:
        ImportError: Lightning is missing.
        ValueError: arguments out of range, a folder that holds another run, a loss that is no number.
    """
    if steps < 1 or batch < 1 or every < 1:
        raise ValueError(f"`train_segmentation` needs steps, batch and every >= 1; got {steps}, {batch} and {every}.")
    if not (0 <= warm_up <= 1 and 0 <= mix <= 1):
        raise ValueError(f"`train_segmentation` needs warm_up and mix in [0, 1]; got {warm_up} and {mix}.")
    if resume and folder is None:
        raise ValueError("`train_segmentation(resume=True)` needs the `folder` of the run.")
    try:
        from segmentation.training_loop import Plan, run
    except ImportError as error:
        raise ImportError("`train_segmentation` needs Lightning: pip install 'ritz[train]'") from error
    plan = Plan(data, steps, layer, warm_up, mix, batch, lr, weight_decay, crop, turn, seed, every)
    path = None if folder is None else Path(folder)
    return run(network, plan, held_out, path, resume, precision, progress, dict(options or {}))


@torch.no_grad()
def predict_masks(
    network: nn.Module, images: Float[Tensor, "b c y x"], layer: PiecewiseConstant | None = None, batch: int = 16
) -> Float[Tensor, "b y x"]:
    """Probabilities σ(network(image)), through the layer if there is one; a mask is where they exceed 1/2."""
    training = network.training
    network.eval()
    try:
        found = []
        for part in images.split(batch):
            p = network(part).float().sigmoid()
            found.append((p if layer is None else layer(p))[:, 0])
    finally:
        network.train(training)
    return torch.cat(found)
