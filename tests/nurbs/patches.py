"""Patches of every kind for tests of what keeps the map."""

import torch

from nurbs import Curve, Surface, Volume


def random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def knots(*times):
    """Clamped cubic knots on [0, 1] whose inner ones 0.2, 0.5, … are repeated so often."""
    inner = torch.linspace(0, 1, len(times) + 2, dtype=torch.float64)[1:-1].repeat_interleave(torch.tensor(times))
    return torch.cat([inner.new_zeros(4), inner, inner.new_ones(4)])


PATCHES = {
    "curve": Curve(random(8, 2), random(8) + 0.5, knots(1, 3)),
    "unclamped": Curve(random(8, 2), None, torch.linspace(-1, 2, 12, dtype=torch.float64)),
    "periodic": Curve(random(6, 2), random(6) + 0.5, random(7).cumsum(-1), periodic=True),
    "closed degree 2": Curve(random(3, 2), degree=2, periodic=True),
    "batch of knots": Curve(random(2, 9, 2), random(9) + 0.5, torch.stack([knots(2, 3), knots(2, 3) ** 2])),
    "surface": Surface(random(7, 5, 3), random(7, 5) + 0.5, (knots(2, 1), None), (3, 2), periodic=(False, True)),
    "volume": Volume(random(2, 4, 3, 5, 3), random(4, 3, 5) + 0.5, degree=(3, 1, 2)),
    "steps": Curve(random(4, 1), degree=0),
}


def grid(patch, num=23):
    steps = torch.linspace(0, 1, num, dtype=torch.float64)
    return [torch.lerp(start[..., None], end[..., None], steps) for start, end in patch.domain()]


def assert_same(patch, other, tolerance=4e-15):
    assert (patch(*grid(patch)) - other(*grid(patch))).abs().max() < tolerance
