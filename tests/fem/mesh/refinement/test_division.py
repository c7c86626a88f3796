"""Uniform division: tetrahedra keep their shape, orders of children, grids by arithmetic."""

import pytest
import torch

from fem import Mesh
from fem.mesh.refinement.division import children, grid_children
from fem.reference.cells import CELLS
from fem.reference.lagrange import lagrange_element
from tests.fem.mesh.refinement.test_bisection import smallest_angle
from tests.problems import hard_mesh, scrambled


@pytest.mark.parametrize("cell", list(CELLS))
def test_children_fill_their_parent(cell: str):
    kind = CELLS[cell]
    shapes = lagrange_element(kind, 2).nodes[children(kind)]
    for way in shapes:
        mesh = Mesh(way.flatten(0, 1), torch.arange(way[..., 0].numel()).view(len(way), -1), cell, merge=1e-9)
        assert mesh.num_cells == 2**kind.dim
        assert len(mesh.topology.boundary) == len(kind.facets) * 2 ** (kind.dim - 1)


@pytest.mark.parametrize("cell", list(CELLS))
def test_pieces_of_grid_cells_lie_in_their_owner(cell: str):
    owner, shapes = grid_children(CELLS[cell])
    assert torch.equal(owner.bincount(), torch.full((len(owner) // 2 ** CELLS[cell].dim,), 2 ** CELLS[cell].dim))
    assert float(shapes.min()) == 0.0
    assert float((shapes.sum(-1) if CELLS[cell].is_simplex else shapes).max()) == 1.0


@pytest.mark.parametrize("kind", ["plain", "scrambled", "distorted"])
def test_tetrahedra_stay_regular(kind: str):
    mesh = scrambled(hard_mesh("tetrahedron", "plain")) if kind == "scrambled" else hard_mesh("tetrahedron", kind)
    angles = [smallest_angle(mesh)]
    for _ in range(3):
        mesh = mesh.refine()
        angles.append(smallest_angle(mesh))
    assert angles[-1] > 0.99 * angles[1]
    assert angles[-1] > 0.5 * angles[0]
    if kind == "plain":
        assert abs(angles[-1] - angles[0]) < 1e-10
