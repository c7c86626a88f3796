"""Bisection: shapes stay regular over many refinements, no node hangs, facets and orientation stay."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from fem import Mesh, box
from fem.mesh.jacobian import check_jacobians
from tests.problems import hard_mesh


def smallest_angle(mesh: Mesh) -> float:
    """Of triangles in degrees; of tetrahedra between faces."""
    x = mesh.nodes[mesh.cells]
    gradients = torch.linalg.inv(x[:, 1:] - x[:, :1]).mT  # of barycentric coordinates: normals to facets
    gradients = torch.cat([-gradients.sum(1, keepdim=True), gradients], 1)
    unit = gradients / gradients.norm(dim=-1, keepdim=True)
    cosines = torch.stack([-(unit[:, i] * unit[:, j]).sum(-1) for i, j in combinations(range(mesh.dim + 1), 2)])
    return float(torch.rad2deg(torch.acos(cosines)).min())


def refined_at_random(mesh: Mesh, times: int, share: float) -> Mesh:
    generator = torch.Generator().manual_seed(0)
    for _ in range(times):
        centre = torch.rand(mesh.dim, dtype=torch.float64, generator=generator) ** 4  # often near a corner
        distance = (mesh.nodes[mesh.cells].mean(1) - centre).norm(dim=1)
        mesh = mesh.refine(distance.argsort()[: max(int(share * mesh.num_cells), 1)])
    return mesh


def conforming(mesh: Mesh) -> Mesh:
    """The same cells looked at anew, which warns of nodes that hang."""
    sides = {tag: mesh.facets[mesh.facets_tagged(tag)] for tag in mesh.facet_tags}
    return Mesh(mesh.nodes, mesh.cells, mesh.blocks[0].cell.name, sides)


@pytest.mark.parametrize("kind", ["plain", "scrambled"])
@pytest.mark.parametrize("cell", ["triangle", "tetrahedron"])
def test_angles_stay_bounded_over_thirty_refinements(cell: str, kind: str):
    mesh = hard_mesh(cell, kind)
    fine = refined_at_random(mesh, 30, 0.0 if cell == "tetrahedron" else 0.02)
    conforming(fine)
    check_jacobians(fine)
    assert smallest_angle(fine) > 0.3 * smallest_angle(mesh)
    volume = torch.linalg.det(fine.nodes[fine.cells[:, 1:]] - fine.nodes[fine.cells[:, :1]])
    assert float(volume.min()) < 1e-3 * float(volume.max())  # it went deep
    assert abs(float(volume.sum()) / (2 if mesh.dim == 2 else 6) - 1) < 1e-13


def test_as_many_shapes_as_there_may_be():
    """All triangles from one are of four shapes, whichever are named: told by their angles."""
    mesh = Mesh(torch.tensor([[0.0, 0], [1, 0], [0.3, 0.6]], dtype=torch.float64), [[0, 1, 2]])
    x = (fine := refined_at_random(mesh, 12, 0.2)).nodes[fine.cells]
    sides = torch.stack([(x[:, i] - x[:, j]).norm(dim=1) for i, j in ((0, 1), (1, 2), (2, 0))], 1).sort(1).values
    shapes = {tuple(row) for row in (sides / sides[:, :1]).mul(1e6).round().tolist()}
    assert len(shapes) <= 4


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4])
def test_shapes_of_tetrahedra_are_few(shift: int):
    generator = torch.Generator().manual_seed(shift)
    corners = torch.rand(4, 3, dtype=torch.float64, generator=generator)
    mesh = Mesh(
        corners, [[0, 1, 2, 3] if torch.linalg.det(corners[1:] - corners[0]) > 0 else [1, 0, 2, 3]], "tetrahedron"
    )
    counts = []
    for _ in range(3):
        mesh = mesh.refine(torch.arange(mesh.num_cells))
        x = mesh.nodes[mesh.cells]
        volume = torch.linalg.det(x[:, 1:] - x[:, :1])
        lengths = torch.stack([(x[:, i] - x[:, j]).norm(dim=1) for i, j in combinations(range(4), 2)], 1)
        shapes = lengths.sort(1).values / volume[:, None] ** (1 / 3)
        counts.append(len({tuple(row) for row in shapes.mul(1e5).round().tolist()}))
    assert mesh.num_cells == 8**3
    assert counts[-1] <= 72


def test_named_cells_have_all_their_edges_halved():
    mesh = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 2, 2), "tetrahedron")
    fine = mesh.refine([5, 17])
    assert fine.parents is not None
    middles = mesh.nodes[mesh.cells[[5, 17]]][:, [[i, j] for i, j in combinations(range(4), 2)]].mean(2).reshape(-1, 3)
    assert float(torch.cdist(middles, fine.nodes).amin(1).max()) == 0.0
    assert bool((fine.parents.bincount()[[5, 17]] >= 8).all())


def test_uniform_and_local_refinement_go_together():
    mesh = hard_mesh("triangle", "scrambled")
    angle = smallest_angle(mesh)
    one: Tensor = torch.tensor([0])
    for _ in range(3):
        mesh = mesh.refine(one).refine()
    conforming(mesh)
    assert smallest_angle(mesh) > 0.3 * angle
