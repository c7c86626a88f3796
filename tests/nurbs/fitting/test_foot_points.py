"""Nearest points: known ones of circle, sphere and line, conditions of optimality, batches, gradients of distances."""

import pytest
import torch
from torch import Tensor

from nurbs import Curve, Surface, Volume, circle, foot_points, sphere, torus
from nurbs.geometry.patch import Patch
from tests.nurbs.patches import PATCHES, grid, random


def distances(patch, points, **options):
    return torch.linalg.vector_norm(patch.at(foot_points(patch, points, **options)) - points, dim=-1)


def test_circle() -> None:
    points = 4 * random(200, 2) - 2
    expected = (torch.linalg.vector_norm(points, dim=-1) - 1.5).abs()
    torch.testing.assert_close(distances(circle(1.5), points), expected, rtol=0, atol=2e-15)


def test_sphere() -> None:
    points = 4 * random(300, 3) - 2
    patch = sphere(1.5)
    feet = patch.at(foot_points(patch, points))
    expected = 1.5 * points / torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    torch.testing.assert_close(feet, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        torch.linalg.vector_norm(feet - points, dim=-1),
        (torch.linalg.vector_norm(points, dim=-1) - 1.5).abs(),
        rtol=0,
        atol=1e-14,
    )


def test_the_ends_of_a_line() -> None:
    line = Curve(torch.tensor([[0.0, 0.0], [2.0, 0.0]]).double(), degree=1)
    u = foot_points(line, torch.tensor([[-1.0, 1.0], [0.5, 3.0], [5.0, -1.0]]).double())
    torch.testing.assert_close(u[:, 0], torch.tensor([0.0, 0.25, 1.0]).double())


def test_points_of_the_patch_are_their_own_feet() -> None:
    surface = Surface(torch.cat([random(6, 5, 2) * 0.1, random(6, 5, 1)], -1) + LATTICE, degree=(3, 2))
    uv = random(50, 2)
    torch.testing.assert_close(foot_points(surface, surface.at(uv)), uv, rtol=0, atol=1e-12)
    volume = Volume(torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 4).double() ** 1.2] * 3, indexing="ij"), -1))
    uvw = random(40, 3)
    torch.testing.assert_close(foot_points(volume, volume.at(uvw)), uvw, rtol=0, atol=1e-12)


LATTICE = torch.nn.functional.pad(
    torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij"), -1), (0, 1)
).double()


@pytest.mark.parametrize("name", PATCHES)
def test_nothing_on_a_fine_grid_is_nearer(name: str) -> None:
    patch = PATCHES[name]
    if 0 in patch.degree:
        pytest.skip("a patch with jumps is nearest in a whole span")
    points = 1.4 * random(7, patch.dim) - 0.2
    lines = grid(patch, 400 if patch.directions == 1 else 40 if patch.directions == 2 else 15)
    sampled = patch(*lines).flatten(len(patch.batch), -2)
    nearest = torch.cdist(points.expand(*patch.batch, -1, -1), sampled).amin(-1)
    assert (distances(patch, points, starts=10) <= nearest + 1e-14).all()


def test_batches_are_items_side_by_side() -> None:
    curves = Curve(random(2, 3, 7, 2))
    points = random(3, 5, 2, seed=1)
    together = foot_points(curves, points)
    assert together.shape == (2, 3, 5, 1)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], foot_points(curves[i, j], points[j]), rtol=0, atol=1e-9)


def test_the_distance_differentiates_with_the_feet_held() -> None:
    """The envelope theorem, against central differences of distances whose feet move."""
    control, points = random(7, 2), 2 * random(5, 2, seed=1)
    moved = [control.clone().requires_grad_(), points.clone().requires_grad_()]
    distances(Curve(moved[0]), moved[1]).sum().backward()
    for which in range(2):
        direction = random(*moved[which].shape, seed=2)
        ends = []
        for step in (1e-5, -1e-5):
            arguments = [x + step * direction if k == which else x for k, x in enumerate((control, points))]
            ends.append(distances(Curve(arguments[0]), arguments[1]).sum())
        slope = (moved[which].grad * direction).sum()
        assert slope.item() == pytest.approx(((ends[0] - ends[1]) / 2e-5).item(), rel=1e-7)


def test_the_centre_of_a_circle_has_some_foot() -> None:
    assert distances(circle(), torch.zeros(1, 2).double()).item() == pytest.approx(1, abs=1e-15)


def test_no_points_and_single_precision() -> None:
    assert foot_points(circle(), torch.zeros(0, 2).double()).shape == (0, 1)
    assert distances(circle().to(torch.float32), random(9, 2).float()).dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"needs points \(\*batch, q, 2\); got \(3, 3\)"):
        foot_points(circle(), random(3, 3))
    with pytest.raises(ValueError, match="finite points"):
        foot_points(circle(), torch.full((1, 2), torch.nan).double())
    with pytest.raises(TypeError, match="points"):
        foot_points(circle(), random(3, 2).float())


def test_the_nearer_of_two_valleys() -> None:
    curve = Curve(torch.tensor([[4.0, 5.3], [-8.2, -2.8], [-5.4, -5.0], [8.3, 0.0]], dtype=torch.float64))
    point = torch.zeros(1, 2).double()
    assert foot_points(curve, point).item() == pytest.approx(0.1840909, abs=1e-7)
    assert distances(curve, point).item() == pytest.approx(1.89506114864, abs=1e-10)


def clustered(patch: Patch, num: int) -> list[Tensor]:
    """Parameters on every span, equally spaced and crowded at its ends, where uneven weights put most of a patch."""
    steps = torch.linspace(0, 1, num, dtype=torch.float64)
    steps = torch.cat([steps, (28 * steps - 14).sigmoid()]).sort().values
    corners = [t[p : len(t) - p].unique() for t, p in zip(patch.unwrapped_knots, patch.degree, strict=True)]
    return [torch.lerp(c[:-1, None], c[1:, None], steps).flatten().unique() for c in corners]


def sampled_distance(patch: Patch, points: Tensor, num: int, best: int = 8) -> Tensor:
    """The least distance among samples, and among the minima that local searches find from the best valleys of them."""
    lines = clustered(patch, num)
    D = torch.stack([(patch(*lines) - point).square().sum(-1) for point in points])
    valley = torch.ones_like(D, dtype=torch.bool)
    for axis in range(1, D.ndim):
        infinite = torch.full_like(D.narrow(axis, 0, 1), torch.inf)
        valley &= torch.cat([infinite, D], axis).narrow(axis, 0, D.shape[axis]) >= D
        valley &= torch.cat([D, infinite], axis).narrow(axis, 1, D.shape[axis]) >= D
    index = D.masked_fill(~valley, torch.inf).flatten(1).topk(best, largest=False).indices
    index = torch.unravel_index(index, D.shape[1:])
    start = torch.stack([line[i] for line, i in zip(lines, index, strict=True)], -1)
    around = distances(patch, points.repeat_interleave(best, 0), initial=start.flatten(0, 1))
    return torch.minimum(around.unflatten(0, (-1, best)).amin(1), D.flatten(1).amin(1).sqrt())


def random_patch(seed: int, directions: int) -> Patch:
    """Degrees 2 to 9 of curves and 1 to 5 of surfaces, weights over four decades, knots of all kinds."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    degree = [draw(2, 9) if directions == 1 else draw(1, 5) for _ in range(directions)]
    shape = [p + 1 + seed % 2 * draw(0, 4) for p in degree]
    kind = seed % 5
    weights = None if kind == 3 else 10 ** (4 * numbers(*shape) - 2)
    points = 8 * numbers(*shape, draw(2, 4) if directions == 1 else 3) - 4
    knots = []
    for n, p in zip(shape, degree, strict=True):
        inner = numbers(n - p - 1).sort().values
        if kind == 1:
            inner[1:p] = inner[:1]  # repeated, up to p times
            inner = inner.sort().values
        ends = (numbers(p) * (kind == 2)).sort().values  # unclamped
        knots.append(torch.cat([ends - ends[-1:], inner.new_zeros(1), inner, inner.new_ones(1), 1 + ends]))
    if kind == 4:
        return (Curve, Surface)[directions - 1](
            points, weights, degree=degree, periodic=[True] + [False] * (directions - 1)
        )
    return (Curve, Surface)[directions - 1](points, weights, knots, degree)


def points_about(patch: Patch, seed: int) -> Tensor:
    """Points anywhere, far away, on the patch, near it, and its corners."""
    generator = torch.Generator().manual_seed(seed)
    bounds = [torch.stack(ends) for ends in patch.domain()]
    start, end = torch.stack(bounds, -1).unbind(0)
    on = patch.at(start + (end - start) * torch.rand(4, len(start), generator=generator, dtype=torch.float64))
    noise = torch.randn(12, patch.dim, generator=generator, dtype=torch.float64)
    corners = patch(*bounds).reshape(-1, patch.dim)
    return torch.cat([4 * noise[:6], 50 * noise[6:8], on, on + 1e-3 * noise[8:], corners])


def assert_global(patch: Patch, seed: int, samples: int) -> None:
    points = points_about(patch, seed)
    bound = sampled_distance(patch, points, samples)
    assert (distances(patch, points) <= bound * (1 + 1e-9) + 1e-8 * points.abs().amax(-1)).all()


@pytest.mark.parametrize("seed", range(20))
def test_no_valley_of_the_distance_to_a_random_curve_is_deeper(seed: int) -> None:
    assert_global(random_patch(seed, 1), seed, 300)


@pytest.mark.parametrize("seed", [*range(10), 75, 131, 201])
def test_no_valley_of_the_distance_to_a_random_surface_is_deeper(seed: int) -> None:
    assert_global(random_patch(seed, 2), seed, 40)


@pytest.mark.slow
def test_no_valley_is_deeper_of_many() -> None:
    for seed in range(400):
        assert_global(random_patch(seed, 1), seed, 600)
    for seed in range(100):
        assert_global(random_patch(seed, 2), seed, 60)


def test_a_folded_volume() -> None:
    volume = Volume(random(4, 4, 4, 3, seed=2), random(4, 4, 4, seed=3) + 0.1)
    points = 2 * random(30, 3) - 0.5
    assert (distances(volume, points) <= sampled_distance(volume, points, 7) + 1e-8).all()


def test_places_of_equal_distance() -> None:
    """Whole curves of feet end the search as well: axes, cores, and patches that are drawn together."""
    angle = 2 * torch.pi * random(20)
    core = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)
    torch.testing.assert_close(distances(torus(), core), torch.full((20,), 0.25).double(), rtol=0, atol=1e-14)
    axis = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, -3.0], [0.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(distances(sphere(), axis), torch.tensor([0.5, 2.0, 1.0]).double())
    points = random(20, 3)
    torch.testing.assert_close(
        distances(Surface(torch.ones(4, 4, 3).double()), points), torch.linalg.vector_norm(points - 1, dim=-1)
    )
    steps = torch.linspace(0, 1, 4, dtype=torch.float64)
    slanted = torch.stack([steps[:, None] + steps, torch.zeros(4, 4).double(), torch.zeros(4, 4).double()], -1)
    beyond = (points[:, :1] - 2).clamp_min(0) * (points[:, :1] > 2)
    expected = torch.linalg.vector_norm(torch.cat([beyond, points[:, 1:]], -1), dim=-1)
    torch.testing.assert_close(distances(Surface(slanted), points), expected)


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e5)])
def test_feet_do_not_depend_on_units_or_origin(scale: float, shift: float) -> None:
    surface = Surface(random(5, 4, 3, seed=4), random(5, 4) + 0.2)
    points = 2 * random(40, 3, seed=5) - 0.5
    moved = surface.replace(control_points=scale * surface.control_points + shift)
    expected = distances(surface, points)
    found = distances(moved, scale * points + shift) / scale
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 if shift else 1e-14)


def test_single_precision_finds_the_same_places() -> None:
    curve = Curve(random(9, 2, seed=6), 10 ** (4 * random(9) - 2), degree=5).to(torch.float32)
    points = 2 * random(60, 2, seed=7).float() - 0.5
    u = foot_points(curve.to(torch.float64), points.double())
    torch.testing.assert_close(foot_points(curve, points), u.float())


@pytest.mark.parametrize("degree", [1, 2])
def test_kinks(degree: int) -> None:
    """A bilinear net, and one of degree 2 as smooth: Newton's method stops at the first kink it meets."""
    knots = torch.cat(
        [torch.zeros(1).double(), torch.linspace(0, 1, 6).double().repeat_interleave(degree), torch.ones(1).double()]
    )
    n = len(knots) - degree - 1
    surface = Surface(2 * random(n, n, 3, seed=8), None, (knots, knots), degree)
    points = 2 * random(40, 3, seed=9)
    assert (distances(surface, points) <= sampled_distance(surface, points, 20) + 1e-9).all()
