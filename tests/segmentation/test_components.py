"""Labels against SciPy and cc3d, by compiled code and by pointers; what cleaning takes away."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from segmentation.components import NAMED, by_pointers, clean_mask, components, label_components, reach_of


def same_partition(one: Tensor, two: Tensor) -> bool:
    """Equal up to a permutation of the labels, 0 being background in both."""
    pairs = torch.stack([one.flatten(), two.flatten()]).unique(dim=1)
    return len(pairs[0].unique()) == pairs.shape[1] == len(pairs[1].unique()) and torch.equal(one == 0, two == 0)


def spiral(n: int) -> Tensor:
    """One long arm, that no fixed number of sweeps can follow."""
    mask = torch.zeros(n, n, dtype=torch.bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    for length in [n - 1, *[m for k in range(n - 1, 0, -2) for m in (k, k)]]:
        for _ in range(length):
            if 0 <= y + dy < n and 0 <= x + dx < n:
                y, x = y + dy, x + dx
                mask[y, x] = True
        dy, dx = dx, -dy
    return mask


def snake(n: int) -> Tensor:
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def masks(dim: int) -> Tensor:
    """Random ones of several densities, checkerboards, full and empty."""
    grid = (23, 29) if dim == 2 else (7, 11, 9)
    generator = torch.Generator().manual_seed(0)
    found = [torch.rand(grid, generator=generator) < p for p in (0.1, 0.3, 0.5, 0.6, 0.8)]
    board = torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij")).sum(0) % 2 == 0
    return torch.stack([*found, board, torch.ones(grid, dtype=torch.bool), torch.zeros(grid, dtype=torch.bool)])


@pytest.mark.parametrize(("dim", "connectivity"), list(NAMED))
def test_masks(dim: int, connectivity: int, both_ways: None) -> None:
    batch = masks(dim)
    labels = label_components(batch, connectivity)
    structure = ndimage.generate_binary_structure(dim, NAMED[dim, connectivity])
    for mask, label in zip(batch, labels, strict=True):
        expected: Any = ndimage.label(mask.numpy(), structure)
        assert same_partition(label, torch.from_numpy(expected[0]).long())
        first = [int((label.flatten() == k).nonzero()[0]) for k in range(1, int(label.max()) + 1)]
        assert first == sorted(first)  # numbered in scan order
    assert torch.equal(labels, by_pointers(batch, NAMED[dim, connectivity])[0])


@pytest.mark.parametrize(("dim", "connectivity"), list(NAMED))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_several_labels(dim: int, connectivity: int, dtype: torch.dtype, both_ways: None) -> None:
    cc3d = pytest.importorskip("cc3d")
    image = torch.randint(0, 4, masks(dim).shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = label_components(image, connectivity)
    for one, label in zip(image, labels, strict=True):
        theirs = cc3d.connected_components(one.numpy().astype(np.uint8), connectivity=connectivity)
        assert same_partition(label, torch.from_numpy(theirs.astype(np.int64)))


@pytest.mark.parametrize("n", [17, 64])
def test_long_components(n: int, both_ways: None) -> None:
    for mask in (spiral(n), snake(n)):
        for connectivity in (4, 8):
            structure = ndimage.generate_binary_structure(2, NAMED[2, connectivity])
            expected: Any = ndimage.label(mask.numpy(), structure)
            assert same_partition(label_components(mask[None], connectivity)[0], torch.from_numpy(expected[0]).long())


def test_images_are_their_own(both_ways: None) -> None:
    batch = masks(2)
    labels, counts = components(batch, 2)
    for i, mask in enumerate(batch):
        one, count = components(mask[None], 2)
        assert torch.equal(one[0], labels[i])
        assert count[0] == counts[i] == labels[i].max()


def test_names_of_connectivity() -> None:
    batch = masks(3)
    for name, number in (("face", 6), ("full", 26)):
        assert torch.equal(label_components(batch, name), label_components(batch, number))
    assert reach_of(18, 3) == 2
    assert label_components(torch.zeros(0, 4, 5, dtype=torch.bool)).shape == (0, 4, 5)


def test_empty_images_and_views(both_ways: None) -> None:
    batch = masks(2)
    assert torch.equal(label_components(batch.mT.contiguous()), label_components(batch.mT))


@pytest.mark.parametrize(
    ("mask", "connectivity", "error", "message"),
    [
        (masks(2), 5, ValueError, r'must be "face", "full" or one of 4, 8 for images of 2 dimensions; got 5'),
        (masks(2), 26, ValueError, "got 26"),
        (masks(3), "edge", ValueError, "one of 6, 18, 26 for images of 3 dimensions; got 'edge'"),
        (masks(2)[0], 8, ValueError, r"takes a batch of images .* got shape \(23, 29\)"),
        (torch.rand(1, 3, 3), 8, TypeError, "takes a mask of bool or integer labels; got torch.float32"),
    ],
)
def test_errors(mask: Tensor, connectivity: int | str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        label_components(mask, connectivity)


def ring(n: int = 9) -> Tensor:
    mask = torch.zeros(1, n, n, dtype=torch.bool)
    mask[0, 2:7, 2:7] = True
    mask[0, 3:6, 3:6] = False
    return mask


def test_holes_are_filled(both_ways: None) -> None:
    mask = ring()
    filled = clean_mask(mask, fill_holes=True)
    assert torch.equal(filled[0], torch.from_numpy(ndimage.binary_fill_holes(mask[0].numpy())))
    assert torch.equal(clean_mask(mask, fill_holes=8), mask)
    assert torch.equal(clean_mask(mask, fill_holes=9), filled)
    mask[0, 2, 2] = False  # a corner: closed for objects joined at corners
    assert clean_mask(mask, fill_holes=True)[0, 4, 4]
    mask[0, 2, 3:5] = False
    assert not clean_mask(mask, fill_holes=True)[0, 4, 4]
    random = masks(2)
    expected = np.stack([np.asarray(ndimage.binary_fill_holes(m)) for m in random.numpy()])
    assert torch.equal(clean_mask(random, fill_holes=True), torch.from_numpy(expected))


def test_small_components_go(both_ways: None) -> None:
    batch = masks(2)
    labels = label_components(batch)
    cleaned = clean_mask(batch, min_size=5)
    largest = clean_mask(batch, keep_largest=2)
    for mask, label, one, two in zip(batch, labels, cleaned, largest, strict=True):
        sizes = torch.bincount(label.flatten())
        sizes[0] = 0
        assert torch.equal(one, mask & (sizes[label] >= 5))
        order = sizes.sort(descending=True, stable=True).indices[:2]
        assert torch.equal(two, mask & torch.isin(label, order[sizes[order] > 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": -1}, "got -1, False"),
        ({"keep_largest": 0}, "keep_largest >= 1"),
        ({"fill_holes": -2}, "-2"),
    ],
)
def test_cleaning_errors(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clean_mask(masks(2), **options)
    with pytest.raises(TypeError, match=r"takes a mask of bool; got torch\.int64"):
        clean_mask(masks(2).long())
