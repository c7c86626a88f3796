"""Shapes to round-off: every point on its circle or sphere, normals outwards, known areas, gradients in their sizes."""

from math import pi

import pytest
import torch
from torch.autograd import gradcheck

from nurbs import (
    Curve,
    Volume,
    annulus,
    arc,
    circle,
    compatible,
    cylinder,
    disk,
    extrude,
    line,
    revolve,
    ruled,
    sphere,
    torus,
    transform,
)
from nurbs.geometry.measure import measure

U = torch.linspace(0, 1, 64, dtype=torch.float64)
UPRIGHT = torch.tensor([[1, 0], [0, 0], [0, 1]], dtype=torch.float64)  # the plane as (x, z)


@pytest.mark.parametrize("angle", [0.1, pi / 2, -pi / 2, 2.0, pi, -4.0, 2 * pi, -2 * pi])
def test_arcs_lie_on_their_circle_from_start_to_end(angle):
    curve = arc(2.0, angle, 0.7, (3.0, -1.0))
    offset = curve(U) - torch.tensor([3.0, -1.0])
    assert (offset.norm(dim=-1) - 2).abs().max() < 1e-14 * 2
    ends = torch.tensor([0.7, 0.7 + angle], dtype=torch.float64)
    assert (offset[[0, -1]] - 2 * torch.stack([ends.cos(), ends.sin()], -1)).abs().max() < 4e-15
    turning = torch.linalg.det(torch.stack([offset, curve.derivative(U, order=1)], -1))
    assert (turning * angle > 0).all()
    assert abs(curve.length(20).item() / abs(2 * angle) - 1) < 1e-14


def test_circles_are_closed():
    curve = circle(1.3, (0.1, 0.2, 5.0))
    assert torch.equal(curve.control_points[0], curve.control_points[-1])
    assert (curve(U)[:, 2] - 5).abs().max() < 4e-15


def test_spheres_and_tori():
    center = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    ball = sphere(3.0, center)
    out = (ball(U, U) - center) / 3
    assert (out.norm(dim=-1) - 1).abs().max() < 1e-14
    assert (ball.normal(U, U) - out).abs().max() < 1e-13  # at the poles too
    assert abs(ball.area(20).item() / (36 * pi) - 1) < 1e-13
    ring = torus(2.0, 0.5, center)
    points = ring(U, U) - center
    axis = torch.nn.functional.normalize(points * torch.tensor([1, 1, 0]), dim=-1) * 2
    assert ((points - axis).norm(dim=-1) - 0.5).abs().max() < 1e-14
    assert (ring.normal(U, U) - (points - axis) / 0.5).abs().max() < 1e-13
    assert abs(ring.area(20).item() / (4 * pi**2) - 1) < 1e-13


def test_plane_shapes():
    quarter = annulus(1.0, 2.0, pi / 2)
    assert torch.linalg.det(quarter.jacobian(U, U)).min() > 0
    assert abs(quarter.area(20).item() / (3 * pi / 4) - 1) < 1e-14
    radius = quarter(U, U).norm(dim=-1)
    assert (radius - (1 + U)[:, None]).abs().max() < 4e-15  # u is the radius
    round_ = disk(2.0, (1.0, 1.0))
    sides = [round_(U, U[:1]), round_(U, U[-1:]), round_(U[:1], U), round_(U[-1:], U)]
    for side in sides:
        assert ((side - 1).norm(dim=-1) - 2).abs().max() < 1e-14
    assert torch.linalg.det(round_.jacobian(U[1:-1], U[1:-1])).min() > 0
    assert abs(round_.area(40).item() / (4 * pi) - 1) < 1e-9
    segment = line((0.0, 0.0, 1.0), (3.0, 4.0, 1.0))
    assert (segment.derivative(U, order=1).norm(dim=-1) - 5).abs().max() < 1e-14


def test_cylinders_extrusions_and_solids():
    tube = cylinder(2.0, 3.0, center=(0.0, 0.0, 1.0))
    points = tube(U, U)
    assert (points[..., :2].norm(dim=-1) - 2).abs().max() < 1e-14
    assert (points[..., 2] - (1 + 3 * U)).abs().max() < 1e-14
    assert (tube.normal(U, U) - points * torch.tensor([0.5, 0.5, 0])).abs().max() < 1e-13
    pipe = extrude(
        transform(annulus(1.0, 2.0), offset=None, matrix=torch.eye(3, 2, dtype=torch.float64)), (0.0, 0.0, 2.0)
    )
    assert isinstance(pipe, Volume)
    assert abs(measure(pipe, 12).item() / (6 * pi) - 1) < 1e-13
    assert torch.linalg.det(pipe.jacobian(U, U[:5], U[:5])).min() > 0
    tire = revolve(transform(disk(1.0, (3.0, 0.0)), UPRIGHT), pi)
    assert abs(measure(tire, 16).item() / (3 * pi**2) - 1) < 1e-7  # Pappus: half a turn, 2π · 3 · π / 2


def test_revolving_around_any_axis_keeps_distance_and_height():
    curve = Curve(torch.rand(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.5)
    axis, point = (
        torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64),
        torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
    )
    surface = revolve(curve, 5.0, axis, point)
    e = axis / axis.norm()

    def cylindrical(points):
        height = (points - point) @ e
        return height, (points - point - height[..., None] * e).norm(dim=-1)

    for found, wanted in zip(cylindrical(surface(U, U)), cylindrical(curve(U)), strict=True):
        assert (found - wanted).abs().max() < 1e-14
    assert (surface(U[:1], U)[0] - curve(U)).abs().max() < 1e-15


def test_ruled_surfaces_join_curves_of_different_kinds():
    wave = Curve(torch.rand(6, 2, dtype=torch.float64), degree=4)
    surface = ruled(circle(), wave)
    assert (surface(U, U[:1])[:, 0] - circle()(U)).abs().max() < 1e-14
    assert (surface(U, U[-1:])[:, 0] - wave(U)).abs().max() < 1e-14
    first, second = compatible(circle(), wave)
    assert first.degree == second.degree == (4,)
    assert torch.equal(first.knots[0], second.knots[0])
    assert first.knots[0].unique().tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_sizes_and_angles_may_be_batches_and_learnt():
    radii = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    areas = sphere(radii).area()
    assert torch.allclose(areas, 4 * pi * radii**2, rtol=1e-9)
    (gradient,) = torch.autograd.grad(areas.sum(), radii)
    assert torch.allclose(gradient, 8 * pi * radii.detach(), rtol=1e-9)
    angle = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    inputs = (radii.detach()[:2].requires_grad_(), angle)
    assert gradcheck(lambda radius, angle: annulus(radius, 4.0, angle)(U[::9], U[::9]), inputs, fast_mode=True)
    assert arc(torch.tensor(1.0)).dtype == torch.float32


def test_errors_name_what_was_given():
    cases = (
        (lambda: circle(-1.0), "`arc` needs a positive radius; got -1.0"),
        (lambda: arc(1.0, 7.0), "an angle other than 0, of at most 2π; got 7.0"),
        (lambda: annulus(2.0, 1.0), "needs inner < outer; got 2.0 and 1.0"),
        (lambda: revolve(circle()), "needs a patch in three dimensions; got 2"),
        (lambda: revolve(sphere(), axis=(0, 0, 0)), "axis of some length"),
        (lambda: extrude(circle(), (0, 0, 1)), r"in 2 dimensions cannot be moved by an offset of shape \(3,\)"),
        (lambda: transform(circle(), torch.eye(3)), r"in 2 dimensions needs a matrix of as many columns; got .*3, 3"),
        (lambda: ruled(circle(), sphere()), "got a `Curve` in 2 and a `Surface` in 3 dimensions"),
    )
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
