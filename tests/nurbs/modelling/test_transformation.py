"""The same points under reversed, swapped and rescaled parameters, and affine images point by point."""

import pytest
import torch

from nurbs import permute, reparametrize, reverse, sphere, transform
from tests.nurbs.patches import PATCHES, grid, random


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_points_are_the_same(patch):
    r, box = patch.directions, grid(patch)
    steps = patch.degree[0] == 0
    if steps:
        box = [0.98 * box[0] + 0.013]  # not on the jumps
    for direction in range(r):
        start, end = (bound[..., None] for bound in patch.domain()[direction])
        mirrored = [start + end - x if k == direction else x for k, x in enumerate(box)]
        assert (reverse(patch, direction)(*mirrored) - patch(*box)).abs().max() < 2e-15
    scaled = [
        2 + 3 * (x - start[..., None]) / (end - start)[..., None]
        for x, (start, end) in zip(box, patch.domain(), strict=True)
    ]
    scaled = [x.clamp(2, 5) for x in scaled]
    assert (reparametrize(patch, *[(2, 5)] * r)(*scaled) - patch(*box)).abs().max() < 2e-14
    order = [*range(1, r), 0]
    swapped = permute(patch, order)(*[box[k] for k in order])
    assert (swapped - patch(*box).movedim([k - r - 1 for k in order], list(range(-r - 1, -1)))).abs().max() < 1e-15
    matrix, offset = random(3, patch.dim, seed=1), random(3, seed=2)
    assert (transform(patch, matrix, offset)(*box) - (patch(*box) @ matrix.mT + offset)).abs().max() < 4e-15


def test_batches_of_maps_make_batches_of_patches():
    matrices, offsets = random(5, 3, 3), random(5, 3, seed=1)
    many = transform(sphere(), matrices, offsets)
    u = torch.linspace(0, 1, 4, dtype=torch.float64)
    assert many.batch == (5,)
    wanted = torch.einsum("bed,uvd->buve", matrices, sphere()(u, u)) + offsets[:, None, None]
    assert (many(u, u) - wanted).abs().max() < 1e-14


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"`direction` of a `Surface` must be 0, 1; got 2"):
        reverse(sphere(), 2)
    with pytest.raises(ValueError, match=r"needs an order of \[0, 1\]; got \(0, 0\)"):
        permute(sphere(), (0, 0))
    with pytest.raises(ValueError, match=r"start < end or None for each of 2"):
        reparametrize(sphere(), (1.0, 0.0), None)
