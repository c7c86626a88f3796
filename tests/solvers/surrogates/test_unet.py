"""The network takes any size, sees contrast, and tells what it cannot take."""

from typing import Any

import pytest
import torch

from solvers import UNet
from solvers.surrogates.lift import positions
from solvers.surrogates.unet import refined


@pytest.mark.parametrize(("dim", "size"), [(2, (65, 65)), (2, (64, 37)), (2, (5, 4)), (3, (9, 8, 10))])
def test_images_keep_their_size(dim, size):
    network = UNet(2, 3, width=4, dim=dim, activation=torch.nn.Sigmoid())
    image = network(torch.rand(2, 2, *size)).detach()
    assert image.shape == (2, 3, *size)
    assert 0 < float(image.min()) < float(image.max()) < 1


def test_coarse_pixels_are_nodes_of_the_fine_grid():
    """Linear functions are the same on both, but where averages end at the boundary."""
    for size in ((9, 17), (5, 9, 17)):
        x = positions(size, torch.zeros((), dtype=torch.float64)).movedim(-1, 0)[None]
        coarse = UNet(dim=len(size)).pool(x)
        every_other = x[(..., *[slice(None, None, 2)] * len(size))]
        inner = (..., *[slice(1, -1)] * len(size))
        torch.testing.assert_close(coarse[inner], every_other[inner])
        torch.testing.assert_close(refined(every_other, size), x)


def test_gradients_reach_all_parameters_and_the_input():
    network, image = UNet(width=4), torch.rand(1, 1, 16, 16, requires_grad=True)
    network(image).square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_contrast_of_the_input_is_seen():
    """With a norm after the first convolution, and no coordinates, it is not."""
    torch.manual_seed(0)
    image = torch.randn(1, 1, 32, 32)
    blind: dict[str, Any] = {"norm_first": True, "coordinates": False}
    for options, seen in (({}, True), (blind, False)):
        network = UNet(width=4, **options)
        with torch.no_grad():
            change = (network(3 * image) - network(image)).abs().max() / network(image).abs().max()
        assert (float(change) > 0.05) == seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 4}, "must be 2 or 3; got"),
        ({"width": 0}, r"`UNet.width=\.\.\..` must be a positive integer"),
        ({"depth": -1}, "depth"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(**options)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (1, 1, 4, 8, 8)])
def test_bad_images(shape):
    with pytest.raises(ValueError, match=r"takes images \(b, 1, y, x\); got a tensor of shape"):
        UNet()(torch.zeros(shape))
