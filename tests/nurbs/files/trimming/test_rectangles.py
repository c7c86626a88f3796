"""Cutting surfaces to loops of their own parameter lines: the same points as before, wherever the loop lies."""

import numpy as np
import pytest
import torch

from nurbs import Curve, Surface, cylinder, disk, line, sphere, split, torus
from nurbs.files.trimming.flat_regions import flat_patch
from nurbs.files.trimming.rectangles import repeated, smooth_parts, trim
from nurbs.modelling.refinement import restrict
from nurbs.modelling.transformation import permute, reverse
from tests.nurbs.patches import random

GRID = torch.cartesian_prod(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in (5, 6))).reshape(5, 6, 2)
WAVY = Surface(torch.cat([GRID, random(5, 6, 1)], -1), random(5, 6) + 0.5, degree=(2, 3))


def iso(surface: Surface, u: float | None, v: float | None) -> Curve:
    """The curve of the surface at u, or at v."""
    axis, at = (0, u) if u is not None else (1, v)
    assert at is not None
    start, end = (float(x) for x in surface.domain()[axis])
    part = surface if at in (start, end) else split(surface, at, axis)[0]
    last = 0 if at == start else -1
    points = part.control_points.select(axis, last)
    weights = None if part.weights is None else part.weights.select(axis, last)
    return Curve(points, weights, part.knots[1 - axis], part.degree[1 - axis])


def rectangle(surface: Surface, u: tuple[float, float], v: tuple[float, float]) -> list[Curve]:
    cut = restrict(surface, u, v)
    return [iso(cut, None, v[0]), iso(cut, u[1], None), reverse(iso(cut, None, v[1])), reverse(iso(cut, u[0], None))]


@pytest.mark.parametrize("surface", [WAVY, cylinder(2.0, 3.0), sphere(), torus(), permute(torus(), (1, 0))])
@pytest.mark.parametrize("ranges", [((0.1, 0.7), (0.25, 0.5)), ((0.0, 0.7), (0.25, 1.0)), ((0.5, 1.0), (0.0, 1.0))])
@pytest.mark.parametrize("turned", [False, True])
def test_rectangles(surface: Surface, ranges: tuple, turned: bool):
    """In either direction of the loop: what is inside is the same, except where a side is a point."""
    loop = rectangle(surface, *ranges)
    loop = [reverse(curve) for curve in loop[::-1]] if turned else loop
    found = trim(surface, [loop], 1e-6)
    if turned and ranges[1][1] == 1 and surface.shape == (9, 5):  # at the pole of a sphere: the other part
        part = float(restrict(surface, *ranges).area())
        assert found is None or float(found.area()) == pytest.approx(4 * np.pi - part, rel=1e-9)
        return
    assert isinstance(found, Surface)
    assert [tuple(map(float, bounds)) for bounds in found.domain()] == [pytest.approx(r, abs=1e-9) for r in ranges]
    lines = [torch.lerp(a, b, torch.linspace(0, 1, 7, dtype=torch.float64)) for a, b in found.domain()]
    torch.testing.assert_close(found(*lines), surface(*lines), rtol=0, atol=1e-12)


def test_around_the_seam():
    """Two parts of a cylinder that meet at its seam are one patch."""
    surface = cylinder(2.0, 3.0)
    first, second = (restrict(surface, bounds, (0.25, 0.5)) for bounds in ((0.8, 1.0), (0.0, 0.3)))
    loop = [iso(first, None, 0.25), iso(second, None, 0.25), iso(second, 0.3, None)]
    loop += [reverse(iso(second, None, 0.5)), reverse(iso(first, None, 0.5)), reverse(iso(first, 0.8, None))]
    found = trim(surface, [loop], 1e-6)
    assert isinstance(found, Surface)
    assert float(found.area()) == pytest.approx(float(first.area() + second.area()), rel=1e-12)
    u, v = (torch.lerp(a, b, torch.linspace(0, 1, 7, dtype=torch.float64)) for a, b in found.domain())
    torch.testing.assert_close(found(u, v), surface(u % 1, v), rtol=0, atol=1e-12)


def test_curves_in_the_parameters():
    """A polygon of (u, v), split at its corners."""
    corners = [[0.1, 0.2], [0.6, 0.2], [0.6, 0.9], [0.1, 0.9], [0.1, 0.2]]
    loop = Curve(torch.tensor(corners, dtype=torch.float64), degree=1)
    assert len(smooth_parts(loop)) == 4
    found = trim(WAVY, [[loop]], 1e-6)
    assert isinstance(found, Surface)
    torch.testing.assert_close(found.control_points, restrict(WAVY, (0.1, 0.6), (0.2, 0.9)).control_points)


def test_what_is_no_rectangle():
    u, v = (0.1, 0.7), (0.25, 0.5)
    loop = rectangle(WAVY, u, v)
    corners = [[0.1, 0.2], [0.6, 0.2], [0.6, 0.5], [0.3, 0.5], [0.3, 0.9], [0.1, 0.9], [0.1, 0.2]]
    step = Curve(torch.tensor(corners, dtype=torch.float64), degree=1)
    slant = Curve(torch.tensor([[0.1, 0.2], [0.6, 0.2], [0.6, 0.9], [0.1, 0.2]], dtype=torch.float64), degree=1)
    twice = [*loop, *loop]
    for loops in ([loop[:3]], [loop[::-1]], [loop, loop], [[step]], [[slant]], [twice], [[]], []):
        assert trim(WAVY, loops, 1e-6) is None
    outside = Curve(torch.tensor([[0.1, 0.2], [1.6, 0.2], [1.6, 0.9], [0.1, 0.9], [0.1, 0.2]]).double(), degree=1)
    assert trim(WAVY, [[outside]], 1e-6) is None
    away = [curve.replace(control_points=curve.control_points + 1e-5) for curve in loop]
    assert trim(WAVY, [away], 1e-6) is None
    assert trim(WAVY, [away], 1e-4) is not None


def test_closed_surfaces_without_loops():
    for surface in (sphere(), torus()):
        assert trim(surface, [], 1e-6) is surface
    assert trim(cylinder(), [], 1e-6) is None


def test_repeated():
    surface = torus()
    twice = repeated(surface, 0)
    u, v = torch.linspace(0, 2, 17, dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(twice(u, v), surface(u.clamp(max=2 - 1e-12) % 1, v), rtol=0, atol=1e-9)


def test_flat_patches_run_as_the_normal_says():
    """Either way around: the patch's normal is the given one."""
    corners = torch.tensor([[0.0, 0, 1], [2, 0, 1], [2, 1, 1], [0, 1, 1]], dtype=torch.float64)
    loop = [line(corners[k], corners[(k + 1) % 4]) for k in range(4)]
    for edges in (loop, [reverse(edge) for edge in loop[::-1]]):
        for z in (1.0, -1.0):
            found = flat_patch([edges], np.array([0, 0, z]), 1e-6)
            assert isinstance(found, Surface)
            middle = torch.tensor([0.5], dtype=torch.float64)
            assert found.normal(middle, middle)[0, 0].tolist() == pytest.approx([0, 0, z])
            assert float(found.area()) == pytest.approx(2)


def test_flat_loops_that_are_none():
    corners = torch.tensor([[0.0, 0, 1], [2, 0, 1], [2, 1, 1], [0, 1, 1]], dtype=torch.float64)
    loop, up = [line(corners[k], corners[(k + 1) % 4]) for k in range(4)], np.array([0, 0, 1.0])
    bow_tie = [line(corners[a], corners[b]) for a, b in ((0, 1), (1, 3), (3, 2), (2, 0))]
    for loops in ([], [[]], [loop[:2]], [bow_tie], [loop[:1]], [[loop[0], reverse(loop[0])]]):
        assert flat_patch(loops, up, 1e-6) is None
    assert flat_patch([loop], np.array([0, 0.6, 0.8]), 1e-6) is None
    rim = disk(2.0, (0.0, 0.0, 1.0))
    edges = rectangle(rim, (0.0, 1.0), (0.0, 1.0))
    found = flat_patch([edges], up, 1e-6)
    assert isinstance(found, Surface)
    assert float(found.area()) == pytest.approx(4 * np.pi, rel=1e-9)
    assert flat_patch([edges[:3]], up, 1e-6) is None
    assert flat_patch([[*edges, *edges]], up, 1e-6) is None
