"""Quadrilaterals and hexahedra with hanging nodes: one level between neighbours, vertices that are shared again."""

import pytest
import torch

from fem import Mesh, box
from fem.reference.cells import CELLS


def towards_a_corner(cell: str, times: int) -> Mesh:
    d = CELLS[cell].dim
    mesh = box([0.0] * d, [1.0] * d, [2] * d, cell)
    for _ in range(times):
        mesh = mesh.refine([int(mesh.nodes[mesh.cells].mean(1).sum(1).argmin())])
    return mesh


@pytest.mark.parametrize("cell", ["quadrilateral", "hexahedron"])
def test_neighbours_differ_by_one_level(cell: str):
    mesh = towards_a_corner(cell, 4)
    width = (mesh.nodes[mesh.cells[:, 1]] - mesh.nodes[mesh.cells[:, 0]]).norm(dim=1)
    assert float(width.min()) == 2.0**-5
    table, hanging = mesh.topology.facets, mesh.topology.hanging
    assert torch.equal(width[hanging.cells], 2 * width[table.cell[hanging.facets]])
    assert len(hanging.facets) == 2 ** (mesh.dim - 1) * len(hanging.covered)


@pytest.mark.parametrize("cell", ["quadrilateral", "hexahedron"])
def test_all_divided_are_as_the_grid(cell: str):
    """Vertices that hung are found again when the larger cell is divided."""
    mesh = towards_a_corner(cell, 1)
    largest = torch.nonzero((mesh.nodes[mesh.cells[:, 1]] - mesh.nodes[mesh.cells[:, 0]]).norm(dim=1) > 0.3).flatten()
    whole = mesh.refine(largest)
    assert len(whole.topology.hanging.facets) == 0
    assert whole.num_nodes == 5**mesh.dim
    assert whole.num_cells == 4**mesh.dim
    assert mesh.refine().num_cells == 2**mesh.dim * mesh.num_cells
