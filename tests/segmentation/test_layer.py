"""The piecewise-constant layer: means of components, its own transpose, options, errors."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from segmentation import PiecewiseConstant, piecewise_constant


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Smooth enough for components of several pixels."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    size: Any = (1, 1, *[3] * (len(shape) - 2))  # one for each axis
    smooth = torch.from_numpy(ndimage.uniform_filter(noise.numpy(), size, mode="wrap"))
    return smooth.to(dtype)


def components_of(mask: np.ndarray, structure: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    found: Any = ndimage.label(mask, structure)
    return found


def by_numpy(x: Tensor, background: str) -> np.ndarray:
    """Component by component."""
    found = x.numpy().copy()
    dim = x.ndim - 2
    for b, c in np.ndindex(*x.shape[:2]):
        image = x[b, c].numpy()
        labels, count = components_of(image > 0.5, np.ones((3,) * dim))
        parts = [labels == k for k in range(1, count + 1)]
        if background == "components":
            labels, count = components_of(image <= 0.5)
            parts += [labels == k for k in range(1, count + 1)]
        if background == "single":
            parts.append(image <= 0.5)
        for part in parts:
            if part.any():
                found[b, c][part] = image[part].mean()
    return found


@pytest.mark.parametrize("background", ["keep", "components", "single"])
@pytest.mark.parametrize("shape", [(3, 2, 17, 20), (2, 1, 6, 7, 8)])
def test_means(background: str, shape: tuple[int, ...], both_ways: None) -> None:
    x = random(*shape)
    h = piecewise_constant(x, background=background)
    assert np.abs(h.numpy() - by_numpy(x, background)).max() < 1e-14
    again = piecewise_constant(h, background=background)
    assert (again - h).abs().max() < 1e-14  # a projection
    single = piecewise_constant(x.float(), background=background)
    assert single.dtype == torch.float32
    same = (x.float() > 0.5) == (x > 0.5)
    assert (single - h)[same].abs().max() < 1e-6


@pytest.mark.parametrize("background", ["keep", "components"])
def test_gradients(background: str, both_ways: None) -> None:
    x = random(2, 1, 6, 7).requires_grad_()
    f = lambda x: piecewise_constant(x, background=background)  # noqa: E731
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(lambda x: f(x) ** 2, x)


def test_jacobian_is_the_projector() -> None:
    x = random(1, 1, 6, 7)
    J = torch.autograd.functional.jacobian(piecewise_constant, x).view(42, 42)
    assert (J - J.T).abs().max() < 1e-15
    assert (J @ J - J).abs().max() < 1e-15
    assert (J.sum(1) - 1).abs().max() < 1e-15


def disc_with_hole() -> Tensor:
    x = torch.full((1, 1, 12, 12), 0.1, dtype=torch.float64)
    x[0, 0, 2:9, 2:9] = 0.9
    x[0, 0, 4:6, 4:6] = 0.3  # a hole of four pixels
    x[0, 0, 10, 10] = 0.7  # a speck
    return x


@pytest.mark.parametrize("background", ["keep", "components", "single"])
def test_options(background: str, both_ways: None) -> None:
    x = disc_with_hole()
    h = piecewise_constant(x, background=background, min_size=3, fill_holes=True)[0, 0]
    piece = h[2:9, 2:9]
    assert (piece - x[0, 0, 2:9, 2:9].mean()).abs().max() < 1e-15
    if background == "keep":
        assert h[10, 10] == 0
        assert h[0, 0] == 0.1
    else:
        outside = torch.ones(12, 12, dtype=torch.bool)
        outside[2:9, 2:9] = False
        assert (h[outside] - x[0, 0][outside].mean()).abs().max() < 1e-15
    kept = piecewise_constant(x, background=background, keep_largest=1)[0, 0]
    assert kept[10, 10] <= 0.5
    assert kept[4, 4] == pytest.approx(0.3) if background != "single" else kept[4, 4] < 0.3
    assert torch.autograd.gradcheck(
        lambda x: piecewise_constant(x, background=background, min_size=3, fill_holes=True), x.requires_grad_()
    )


def test_layer() -> None:
    layer = PiecewiseConstant(background="components", min_size=4)
    x = random(2, 1, 9, 9)
    assert torch.equal(layer(x), piecewise_constant(x, background="components", min_size=4))
    layer.enabled = False
    assert layer(x) is x
    assert repr(layer) == ("PiecewiseConstant(threshold=0.5, connectivity='full', background='components', min_size=4)")


def test_nothing_and_everything_above_the_threshold(both_ways: None) -> None:
    x = random(2, 1, 5, 5)
    assert torch.equal(piecewise_constant(x, threshold=2.0), x)
    assert (piecewise_constant(x, threshold=-1.0) - x.mean((2, 3), keepdim=True)).abs().max() < 1e-15


def test_errors() -> None:
    x = random(2, 1, 5, 5)
    with pytest.raises(ValueError, match=r"takes images \(b, c, y, x\) .* got shape \(1, 5, 5\)"):
        piecewise_constant(x[0])
    with pytest.raises(ValueError, match='must be "keep", "components" or "single"; got \'none\''):
        PiecewiseConstant(background="none")
    with pytest.raises(ValueError, match="got 5"):
        piecewise_constant(x, connectivity=5)
    x[1, 0, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"image 1, channel 0 is nan at pixel \(2, 3\)"):
        piecewise_constant(x)
    assert piecewise_constant(x, check_finite=False)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_have_no_means(dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        piecewise_constant(torch.ones(1, 1, 4, 4).to(dtype))
