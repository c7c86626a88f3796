"""Losses and their invariances, distances between surfaces, fits of clouds."""

import pytest
import torch

from nurbs import (
    RandomPatches,
    SplineNet,
    Surface,
    chamfer,
    control_point_loss,
    control_points_of,
    reconstruction_loss,
    surface_distance,
    surface_points,
)
from nurbs.reconstruction.losses import bending

CLOUDS = RandomPatches(num_points=80)


def network(shape=(5, 5)):
    torch.manual_seed(0)
    return SplineNet(shape, k=5, widths=(8, 16), features=32, hidden=(32,), corrections=1, width=8)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6)])
def test_the_supervised_loss_does_not_see_the_symmetries_of_the_grid(shape):
    p, target = (torch.rand(3, *shape, 3, dtype=torch.float64) for _ in range(2))
    turned = [p, p.flip(1), p.flip(2), p.flip(1, 2)]
    turned += [t.transpose(1, 2) for t in turned] if shape[0] == shape[1] else []
    assert len(turned) == (8 if shape[0] == shape[1] else 4)
    for t in turned:
        assert torch.allclose(control_point_loss(t, target), control_point_loss(p, target), atol=1e-15)
        assert not control_point_loss(p, t).any()
    assert (control_point_loss(p, target) <= (p - target).square().sum(-1).mean((1, 2)) + 1e-15).all()
    with pytest.raises(ValueError, match="grids of one shape"):
        control_point_loss(p, target[:, :-1])


def test_control_points_of_a_surface_in_the_space_are_its_own():
    p = torch.rand(2, 20, 7, 3, dtype=torch.float64)
    assert torch.allclose(control_points_of(Surface(p), (20, 7)), p, atol=1e-12)


def test_control_points_of_another_space_are_those_of_least_squares():
    p = torch.rand(1, 20, 20, 3, dtype=torch.float64)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    coarse = control_points_of(Surface(p), (5, 6)).requires_grad_()
    (gradient,) = torch.autograd.grad((Surface(coarse)(t, t) - Surface(p)(t, t)).square().sum(), coarse)
    assert gradient.abs().max() < 1e-10


def test_the_loss_is_chamfer_and_bending():
    points, surface = RandomPatches(num_points=80, dtype=torch.float64)(0, 2)
    p = surface.control_points.requires_grad_()
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    expected = chamfer(points, Surface(p)(t, t).flatten(1, 2)) + 0.5 * bending(p)
    assert torch.allclose(reconstruction_loss(points, p, (9, 9), 0.5), expected)
    assert surface_points(surface, (9, 7)).shape == (2, 63, 3)


@pytest.mark.parametrize("n", [20, 40, 80])
def test_bending_is_half_the_integral_of_squared_second_derivatives(n):
    """Of z = u² at control points of a uniform grid: ½ ∫ 2² = 2, up to the ends."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    assert bending(torch.stack([u, v, u**2], -1)) == pytest.approx(2, rel=1e-9)


def test_distances_between_surfaces():
    """Parallel rectangles at height h: 2 h²; and equal surfaces at the floor that the docstring names."""
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    low, high = (Surface(torch.stack([u, v, 0 * u + h], -1)) for h in (0.0, 0.3))
    assert surface_distance(low, high, 11, 3, one_sided=True) == pytest.approx(0.09, rel=0.01)
    assert surface_distance(low, high, 11, 3) == pytest.approx(0.18, rel=0.01)
    knots = torch.tensor([2.0, 2, 2, 2, 5, 5, 5, 5], dtype=torch.float64)
    elsewhere = Surface(low.control_points, knots=(knots, 0.1 * knots))
    assert surface_distance(elsewhere, high, 11, 3) == pytest.approx(float(surface_distance(low, high, 11, 3)))
    floor = surface_distance(low, low, 50, 4)
    assert 0.5 / (3 * 200**2) < floor < 1.1 / (3 * 200**2)
