"""Boxes by bins: the pairs are those that comparing every point with every box would give."""

import pytest
import torch

from fem.mesh.search.box_search import Boxes


def all_pairs(lower, upper, points):
    return torch.nonzero(((lower <= points[:, None]) & (points[:, None] <= upper)).all(-1))


def found_pairs(lower, upper, points):
    parts = list(Boxes(lower, upper).pairs(points))
    pairs = torch.stack([torch.cat([p for p, _ in parts]), torch.cat([b for _, b in parts])], 1)
    return pairs[torch.argsort(pairs[:, 0] * len(lower) + pairs[:, 1])]


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("decades", [0, 3, 12])
@pytest.mark.parametrize("chunk", [500, 2**21])
def test_pairs_are_those_of_brute_force(dim, decades, chunk, monkeypatch):
    monkeypatch.setattr("fem.support.portions.MEMORY", 64 * chunk)
    generator = torch.Generator().manual_seed(dim)
    lower, extent, share = torch.rand(3, 300, dim, dtype=torch.float64, generator=generator)
    upper = lower + extent * 10 ** (-decades * share[:, :1])
    points = torch.cat([torch.rand(60, dim, dtype=torch.float64, generator=generator) * 3 - 1, lower[:50], upper[:50]])
    assert torch.equal(found_pairs(lower, upper, points), all_pairs(lower, upper, points))


@pytest.mark.parametrize("offset", [0.0, -1e3, 1e9])
def test_boxes_that_tile_the_plane_and_flat_ones_in_space(offset):
    corner = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0)).double() / 20 + offset
    corner = torch.cat([corner, torch.zeros(400, 1)], 1)
    upper = corner + torch.tensor([1 / 20, 1 / 20, 1e-12])
    far = torch.tensor([[1e300, -1e300, 0.0]], dtype=torch.float64)
    points = torch.cat([corner, (corner + upper) / 2, far])
    assert torch.equal(found_pairs(corner, upper, points), all_pairs(corner, upper, points))


def test_an_index_holds_every_box_once():
    lower = torch.rand(1000, 2, dtype=torch.float64)
    index = Boxes(lower, lower + 10 ** -(9 * torch.rand(1000, 1, dtype=torch.float64)))
    assert torch.equal(index.order.sort()[0], torch.arange(1000))
