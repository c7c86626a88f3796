"""Lengths, areas, volumes, normals and curvatures of shapes whose values are known."""

from itertools import pairwise
from math import pi, sqrt
from typing import Any

import pytest
import torch
from scipy.integrate import quad
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


CUSP = torch.tensor([[0.0, 0], [1, 1], [0, 1], [1, 0]], **f64)
LOOP = torch.tensor([[0.0, 0], [5, 1], [-4, 1], [1, 0]], **f64)


def adaptive_length(curve: Curve) -> float:
    """By QUADPACK, on pieces that crowd at the ends of the spans."""
    p, knots = curve.degree[0], curve.knots[0]
    corners = knots[p : len(knots) - p].unique().tolist()
    steps = [0.0, *[10.0**k for k in range(-9, 0)], 0.5]
    steps += [1 - s for s in reversed(steps[:-1])]

    def speed(u: float) -> float:
        return curve.derivative(torch.tensor([u], **f64), order=1).norm().item()

    total = 0.0
    for start, end in pairwise(corners):
        ends = [start + (end - start) * s for s in steps]
        total += sum(quad(speed, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pairwise(ends))
    return total


def uneven(seed: int) -> Curve:
    """Weights over eight decades."""
    generator = torch.Generator().manual_seed(seed)
    p = 2 + seed % 4
    points, weights = (torch.rand(n, 2, generator=generator, **f64)[: p + 3] for n in (p + 3, p + 3))
    return Curve(6 * points - 3, 10 ** (8 * weights[:, 0] - 4), degree=p)


def test_lengths_with_a_cusp_and_a_loop():
    assert Curve(CUSP).length().item() == pytest.approx(2 * sqrt(2) - 1, rel=1e-10)
    assert Curve(LOOP).length().item() == pytest.approx(adaptive_length(Curve(LOOP)), rel=1e-10)
    both = Curve(torch.stack([CUSP, LOOP]))
    torch.testing.assert_close(both.length(), torch.stack([both[0].length(), both[1].length()]), rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 6))])
def test_lengths_with_uneven_weights(seed: int):
    curve = uneven(seed)
    expected = adaptive_length(curve)
    assert curve.length().item() == pytest.approx(expected, rel=1e-10)
    assert curve.length(rtol=1e-4).item() == pytest.approx(expected, rel=1e-4)
    scaled = curve.replace(control_points=1e-6 * curve.control_points)
    assert scaled.length().item() == pytest.approx(1e-6 * expected, rel=1e-10)


def test_a_parametrisation_changes_no_area_or_volume():
    """The unit square and cube with weights that crowd their parameters, and an octant of the sphere likewise."""
    crowd = torch.tensor([1.0, 1e-4], **f64)
    square = torch.tensor([[[0.0, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 1, 0]]], **f64)
    assert Surface(square, crowd[:, None] / crowd, degree=1).area().item() == pytest.approx(1, rel=1e-10)
    cube = torch.stack(torch.meshgrid(*[torch.tensor([0.0, 1.0], **f64)] * 3, indexing="ij"), -1)
    weights = crowd[:, None, None] * crowd[:, None].sqrt() / crowd
    assert Volume(cube, weights, degree=1).volume(rtol=1e-6).item() == pytest.approx(1, rel=1e-6)
    octant = sphere(1.0)
    points, weights = octant.control_points[:3, 2:], octant.weights[:3, 2:]
    powers = 100.0 ** torch.arange(3, **f64)
    assert Surface(points, weights * powers[:, None] / powers, degree=2).area().item() == pytest.approx(
        pi / 2, rel=1e-10
    )


def test_an_area_with_a_cusp_inside():
    """A cone over the square: its tip, where the normal jumps, is no corner of a span."""
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, 4, **f64)] * 2, indexing="ij")
    cusp = Surface(torch.stack([x**3, y**3, 0 * x], -1))
    twice = cusp.area(rtol=1e-6).item()
    assert twice == pytest.approx(cusp.area(rtol=1e-8).item(), rel=1e-6)
    ruled = Surface(torch.stack([torch.nn.functional.pad(CUSP, (0, 1), value=z) for z in (0.0, 2.0)]), degree=(1, 3))
    assert ruled.area().item() == pytest.approx(2 * (2 * sqrt(2) - 1), rel=1e-10)


def test_arc_length_to_a_tolerance():
    curve, u = Curve(CUSP), torch.linspace(0, 1, 9, **f64)
    lengths = curve.arc_length(u)
    half = (2 * sqrt(2) - 1) / 2
    assert lengths[[0, 4, 8]].tolist() == pytest.approx([0, half, 2 * half], rel=1e-10)
    assert torch.allclose(lengths.diff(), lengths.diff().flip(0), rtol=1e-9)
    assert curve.arc_length(u[:0]).shape == (0,)
    shuffled = curve.arc_length(u[[3, 8, 3, 0]])
    assert torch.allclose(shuffled, lengths[[3, 8, 3, 0]], rtol=1e-10)
    many = Curve(torch.stack([CUSP, LOOP])).arc_length(torch.stack([u, u.flip(0)]))
    assert torch.allclose(many[0], lengths, rtol=1e-10)
    assert many[1, 0].item() == pytest.approx(Curve(LOOP).length().item(), rel=1e-10)


def test_measures_that_halve_spans_differentiate_in_everything():
    points, weights = LOOP.clone().requires_grad_(), torch.tensor([1.0, 0.01, 3, 0.2], **f64).requires_grad_()
    knots = torch.tensor([0.0, 0, 0, 0.3, 0.8, 1, 1], **f64).requires_grad_()
    u = torch.tensor([0.2, 0.77], **f64).requires_grad_()

    def lengths(p: Tensor, w: Tensor, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        curve = Curve(p, w, t, 2, check_finite=False)
        return curve.length(), curve.arc_length(u)

    assert gradcheck(lengths, (points, weights, knots, u), atol=1e-6)
    slope = torch.func.grad(lambda p: Curve(p, check_finite=False).length())(LOOP)
    (expected,) = torch.autograd.grad(Curve(points).length(), points)
    torch.testing.assert_close(slope, expected)
    mapped = torch.vmap(lambda p: Curve(p, check_finite=False).length())(torch.stack([CUSP, LOOP]))
    torch.testing.assert_close(mapped, Curve(torch.stack([CUSP, LOOP])).length())


@pytest.mark.slow
def test_a_tolerance_out_of_reach_is_said():
    generator = torch.Generator().manual_seed(3)
    folded = Surface(torch.rand(4, 4, 2, generator=generator, **f64))
    with pytest.warns(UserWarning, match=r"the area has an estimated relative error of .*, not rtol=1e-14.*folded"):
        folded.area(rtol=1e-14)
    with pytest.warns(UserWarning, match="the length of item 1 of the batch"):
        Curve(torch.stack([CUSP.clone(), LOOP])).replace(
            weights=torch.tensor([[1.0] * 4, [1, 1e-12, 1e12, 1]], **f64)
        ).length(rtol=1e-15)
    with pytest.raises(ValueError, match=r"`num_points` \(a fixed rule\) or `rtol`"):
        Curve(CUSP).length(8, rtol=1e-3)
    with pytest.raises(ValueError, match=r"`measure\(rtol=...\)` must be None or a number between 0 and 1; got 2"):
        Curve(CUSP).length(rtol=2)


def test_measures_in_single_precision_and_of_what_has_no_extent():
    assert Curve(CUSP.float()).length().item() == pytest.approx(2 * sqrt(2) - 1, rel=1e-5)
    assert Curve(torch.full((4, 2), 0.1, **f64)).length().item() == pytest.approx(0, abs=1e-15)
    assert Surface(torch.ones(4, 4, 3, **f64)).area().item() == 0
    shifted = Curve(CUSP + 1e4)
    assert shifted.length().item() == pytest.approx(2 * sqrt(2) - 1, rel=1e-9)
    repeated = torch.tensor([[0.0, 0, 0, 0.5, 0.5, 1, 1, 1], [0, 0, 0, 0.3, 0.7, 1, 1, 1]], **f64)
    curves = Curve(torch.rand(5, 2, generator=torch.Generator().manual_seed(1), **f64), None, repeated, 2)
    assert torch.allclose(curves.length(), torch.stack([curves[0].length(), curves[1].length()]), rtol=1e-12)
