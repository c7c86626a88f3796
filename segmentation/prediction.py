"""What a trained network says to images: `predict_masks`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segmentation.layer import PiecewiseConstant
from solvers.surrogates.lift import evaluating


@torch.no_grad()
def predict_masks(
    network: nn.Module, images: Float[Tensor, "b c y x"], layer: PiecewiseConstant | None = None, batch: int = 16
) -> Float[Tensor, "b y x"]:
    """Probabilities σ(network(image)), through the layer if there is one; a mask is where they exceed 1/2."""
    found = []
    with evaluating(network):
        for part in images.split(batch):
            p = network(part).float().sigmoid()
            found.append((p if layer is None else layer(p))[:, 0])
    return torch.cat(found)
