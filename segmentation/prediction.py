"""What a trained network says to images: `predict_masks`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fem.support.checks import check_integers, check_kind
from segmentation.layer import PiecewiseConstant
from solvers.surrogates.lift import evaluating


@torch.no_grad()
def predict_masks(
    network: nn.Module, images: Float[Tensor, "b c y x"], layer: PiecewiseConstant | None = None, batch: int = 16
) -> Float[Tensor, "b y x"]:
    """Probabilities σ(network(image)), through the layer if there is one; a mask is where they exceed 1/2."""
    check_kind("predict_masks", "network", network, nn.Module, "a network, an `nn.Module`")
    check_kind("predict_masks", "images", images, Tensor, "a tensor of images (b, c, y, x)")
    if layer is not None:
        check_kind("predict_masks", "layer", layer, nn.Module, "`PiecewiseConstant(...)` or None")
    check_integers("predict_masks", batch=batch)
    found = []
    with evaluating(network):
        for part in images.split(batch):
            p = network(part).float().sigmoid()
            found.append((p if layer is None else layer(p))[:, 0])
    return torch.cat(found)
