"""Nearest points: known ones of circle, sphere and line, conditions of optimality, batches, gradients of distances."""

import pytest
import torch

from nurbs import Curve, Surface, Volume, circle, foot_points, sphere
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
