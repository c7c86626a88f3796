"""Lengths, areas, volumes, normals and curvatures of shapes whose values are known."""

from math import pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from nurbs import Curve, Surface, Volume

f64: Any = {"dtype": torch.float64}


def arcs(quarters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, weights and knots of as many quarters of the unit circle (The NURBS Book, section 7.5)."""
    corners = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0)][: 2 * quarters + 1]
    weights = torch.tensor([1.0, sqrt(0.5)] * quarters + [1.0], **f64)
    inner = torch.arange(quarters + 1, **f64).repeat_interleave(2) / quarters
    return torch.tensor(corners, **f64), weights, torch.cat([inner[:1], inner, inner[-1:]])


def circle(radius: float = 1.0) -> Curve:
    points, weights, knots = arcs(4)
    return Curve(radius * points, weights, knots, 2)


def sphere(radius: float = 2.0) -> Surface:
    """Half a circle from the south pole (along v) turned about the z-axis (along u): the normal points outwards."""
    around, wu, ku = arcs(4)
    half, wv, kv = arcs(2)
    rho, z = half[:, 1], -half[:, 0]
    points = torch.cat([around[:, None] * rho[:, None], z[:, None].expand(9, 5, 1)], -1)
    return Surface(radius * points, wu[:, None] * wv, (ku, kv), (2, 2))


def box_of_spans(lengths: tuple[float, float, float], degree: int = 2) -> Volume:
    lines = [size * torch.linspace(0, 1, degree + 1, **f64) for size in lengths]
    return Volume(torch.stack(torch.meshgrid(*lines, indexing="ij"), -1), degree=degree)


def test_circle_is_round_and_its_length_and_curvature_are_known():
    curve, u = circle(2.0), torch.linspace(0, 1, 37, **f64)
    assert torch.allclose(curve(u).norm(dim=-1), torch.tensor(2.0, **f64), rtol=1e-15, atol=0)
    assert curve.length().item() == pytest.approx(4 * pi, rel=1e-10)
    assert curve.length(num_points=16).item() == pytest.approx(4 * pi, rel=1e-14)
    assert torch.allclose(curve.curvature(u), torch.tensor(0.5, **f64), rtol=1e-12)
    assert torch.allclose(curve.normal(u), -curve(u) / 2, atol=1e-13)  # turns left: towards the centre
    lifted = curve.replace(control_points=torch.nn.functional.pad(curve.control_points, (0, 1)))
    assert torch.allclose(lifted.curvature(u), torch.tensor(0.5, **f64), rtol=1e-12)
    assert torch.allclose(lifted.normal(u)[:, :2], -curve(u) / 2, atol=1e-12)


def test_twisted_cubic_has_its_curvature_and_tangent():
    curve = Curve(torch.tensor([[0.0, 0, 0], [1 / 3, 0, 0], [2 / 3, 1 / 3, 0], [1, 1, 1]], **f64))
    t = torch.linspace(0, 1, 9, **f64)
    expected = 2 * (9 * t**4 + 9 * t**2 + 1).sqrt() / (9 * t**4 + 4 * t**2 + 1) ** 1.5
    assert torch.allclose(curve.curvature(t), expected, rtol=1e-12)
    direction = torch.stack([torch.ones_like(t), 2 * t, 3 * t**2], -1)
    assert torch.allclose(curve.tangent(t), torch.nn.functional.normalize(direction, dim=-1), rtol=1e-12)


def test_arc_length_grows_with_the_speed_and_ends_with_the_length():
    curve = circle()
    u = torch.tensor([0.0, 0.1, 0.25, 0.6, 1.0], **f64).requires_grad_()
    lengths = curve.arc_length(u)
    assert torch.allclose(lengths[[0, 2, 4]], torch.tensor([0, pi / 2, 2 * pi], **f64), atol=1e-12)
    (slope,) = torch.autograd.grad(lengths.sum(), u)
    speed = curve.derivative(u.detach(), order=1).norm(dim=-1)
    assert torch.allclose(slope, speed, rtol=1e-9)
    with pytest.raises(ValueError, match="must lie in the range"):
        curve.arc_length(torch.tensor([1.5], **f64))


def test_sphere_has_its_area_normals_and_curvatures():
    surface = sphere()
    u, v = torch.linspace(0, 1, 9, **f64), torch.linspace(0, 1, 11, **f64)
    assert torch.allclose(surface(u, v).norm(dim=-1), torch.tensor(2.0, **f64), rtol=1e-14)
    assert surface.area().item() == pytest.approx(16 * pi, rel=1e-9)
    assert torch.allclose(surface.normal(u, v), surface(u, v) / 2, atol=1e-12)  # the poles included
    uv = torch.stack(torch.meshgrid(u, v, indexing="ij"), -1).reshape(-1, 2)
    assert torch.allclose(surface.normal_at(uv).reshape(9, 11, 3), surface.normal(u, v), atol=1e-12)
    gaussian, mean = surface.curvatures(u, v[1:-1])
    assert torch.allclose(gaussian, torch.tensor(0.25, **f64), rtol=1e-9)
    assert torch.allclose(mean, torch.tensor(-0.5, **f64), rtol=1e-9)
    with pytest.raises(ValueError, match="three dimensions"):
        surface.replace(control_points=surface.control_points[..., :2]).normal(u, v)


def test_saddle_has_its_curvatures_in_oblique_coordinates():
    saddle = Surface(torch.tensor([[[0.0, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 1, 1]]], **f64), degree=1)  # z = x y
    x, y = torch.linspace(0, 1, 5, **f64), torch.linspace(0, 1, 4, **f64)
    size = 1 + x[:, None] ** 2 + y**2
    gaussian, mean = saddle.curvatures(x, y)
    assert torch.allclose(gaussian, -1 / size**2, rtol=1e-12)
    assert torch.allclose(mean, -x[:, None] * y / size**1.5, atol=1e-14)


def test_volume_of_a_box_and_of_a_batch_with_knots_of_fewer_axes():
    assert box_of_spans((2.0, 3.0, 0.5)).volume().item() == pytest.approx(3, rel=1e-13)
    sizes = torch.rand(2, 3, 1, 1, 1, 1, **f64) + 0.5
    box = box_of_spans((1.0, 1.0, 1.0))
    knots = torch.tensor([0, 0, 0, 1, 1, 1], **f64) * torch.rand(3, 1, **f64)
    many = box.replace(control_points=sizes * box.control_points, knots=(knots, knots, knots))
    assert torch.allclose(many.volume(), sizes.flatten(2)[..., 0] ** 3, rtol=1e-12)


def test_measures_differentiate_in_points_weights_and_knots():
    points, weights = torch.rand(5, 4, 3, **f64).requires_grad_(), (torch.rand(5, 4, **f64) + 0.5).requires_grad_()
    knots = torch.tensor([0, 0, 0, 0.3, 0.6, 1, 1, 1], **f64).requires_grad_()
    plain = torch.tensor([0, 0, 0, 0.5, 1, 1, 1], **f64)
    assert gradcheck(lambda p, w, t: Surface(p, w, (t, plain), 2, check_finite=False).area(6), (points, weights, knots))
