"""Tessellations: corners on the patch and on every knot, cells that fill it the right way round, gradients."""

import pytest
import torch

from nurbs import Curve, Surface, Volume, circle, cylinder, sphere, tessellate, torus
from tests.nurbs.patches import PATCHES, knots, random


@pytest.mark.parametrize("name", ["curve", "unclamped", "periodic", "surface", "volume"])
def test_points_lie_on_the_patch_at_their_parameters(name: str):
    patch = PATCHES[name][0] if PATCHES[name].batch else PATCHES[name]
    mesh = tessellate(patch, 3)
    torch.testing.assert_close(mesh.points, patch.at(mesh.parameters), rtol=0, atol=1e-14)
    assert mesh.cells.shape[1] == 2**patch.directions
    assert torch.equal(mesh.cells.unique(), torch.arange(len(mesh.points)))
    for (low, high), column in zip(patch.domain(), mesh.parameters.T, strict=True):
        assert (column.min(), column.max()) == (low, high)


def test_every_knot_is_a_corner():
    curve = Curve(random(8, 2), knots=knots(1, 3))
    assert set(curve.knots[0].tolist()) <= set(tessellate(curve, 3).parameters[:, 0].tolist())


def test_cells_fill_the_patch_and_turn_with_its_normal():
    x = tessellate(Surface(torch.cartesian_prod(*[torch.tensor([0.0, 1, 3])] * 2).reshape(3, 3, 2), degree=1), 2)
    side = x.points[x.cells].diff(dim=1)
    assert (side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0]).sum() == 9
    cube = torch.stack(torch.meshgrid(*[torch.arange(2.0)] * 3, indexing="ij"), -1)
    solid = tessellate(Volume(cube, degree=1), 2)
    corners = solid.points[solid.cells]
    edges = torch.stack([corners[:, 1], corners[:, 3], corners[:, 4]], 1) - corners[:, :1]
    torch.testing.assert_close(torch.linalg.det(edges), torch.full((8,), 1 / 8))
    assert ((corners[:, 6] - corners[:, 0]) == 0.5).all()


@pytest.mark.parametrize("shape", [sphere(2.0), cylinder(), torus()])
def test_normals_are_unit_vectors_outwards(shape: Surface):
    mesh = tessellate(shape, 4)
    assert mesh.normals is not None
    torch.testing.assert_close(mesh.normals.norm(dim=-1), torch.ones(len(mesh.points), dtype=torch.float64))
    corners = mesh.points[mesh.cells]
    turned = torch.linalg.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    assert ((turned * mesh.normals[mesh.cells].sum(1)).sum(-1) > 0).all()


def test_the_length_of_polygons_converges_with_order_two():
    def error(n: int) -> float:
        x = tessellate(circle(), n)
        return 2 * torch.pi - float(x.points[x.cells].diff(dim=1).norm(dim=-1).sum())

    assert error(8) / error(16) == pytest.approx(4, rel=0.02)


def test_points_differentiate():
    points = random(4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: tessellate(Curve(p), 3).points, points)


def test_dtype_follows():
    assert tessellate(circle().to(torch.float32)).points.dtype == torch.float32


def test_what_is_no_patch_or_number():
    with pytest.raises(ValueError, match=r"a batch of shape \(2,\) and 8\. Pick an item"):
        tessellate(PATCHES["batch of knots"])
    with pytest.raises(ValueError, match="at least 1 subdivision"):
        tessellate(circle(), 0)
