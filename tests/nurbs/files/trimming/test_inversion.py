"""Points on surfaces are found again, on waves, at poles, beside seams; points beside a surface have a foot point."""

import pytest
import torch

from nurbs import Surface, cylinder, foot_points, sphere, torus
from nurbs.files.trimming.inversion import inverted
from tests.nurbs.patches import random

GRID = torch.cartesian_prod(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in (12, 9))).reshape(12, 9, 2)
WAVY = Surface(torch.cat([GRID, random(12, 9, 1)], -1), random(12, 9) + 0.5, degree=(3, 2))


@pytest.mark.parametrize("surface", [WAVY, sphere(2.0), torus(), cylinder(2.0, 3.0)])
def test_points_are_found_again(surface: Surface):
    ends = torch.cartesian_prod(*(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64),) * 2)
    points = surface.at(torch.cat([random(200, 2), ends]))
    found = surface.at(torch.from_numpy(inverted(surface, points.numpy(), 1e-6)))
    torch.testing.assert_close(found, points, rtol=0, atol=1e-7)


def test_points_beside_a_surface():
    points = WAVY.at(random(5, 2)) + torch.tensor([0, 0, 0.3], dtype=torch.float64)
    found = torch.from_numpy(inverted(WAVY, points.numpy(), 1e-6))
    far, near = ((WAVY.at(u) - points).norm(dim=-1) for u in (found, foot_points(WAVY, points)))
    torch.testing.assert_close(far, near)
