"""Damage that no count shows: nodes that stand for two, cells that lie across others."""

import pytest
import torch

from fem.errors import MeshError
from fem.files.soundness import check_boundary, check_places
from fem.mesh.generators import unit_cube, unit_square
from fem.mesh.mesh import Mesh


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_a_midpoint_that_is_another_one(cell: str):
    mesh = unit_square(2, cell=cell).curved(2)
    cells = mesh.cells.clone()
    check_places(Mesh(mesh.nodes, cells, cell))
    edge = mesh.blocks[0].element.entity_nodes[1][0][0]
    first, second = cells[0, edge], cells[1, edge]
    cells[cells == first] = second
    nodes = mesh.nodes.clone()
    nodes[second] = (nodes[second] + nodes[first]) / 2
    sound = Mesh.from_topology(nodes, Mesh(mesh.nodes, mesh.cells, cell).topology, {}, {})
    check_places(sound)
    sound.cells[:] = cells
    with pytest.raises(MeshError, match="1 of its nodes stand for two: its cells of degree 2 have 25 different places"):
        check_places(sound)


def test_a_cell_across_others():
    """No vertex lies inside a cell, and no facet has three: only the boundary tells."""
    mesh = unit_square(3, 2, cell="triangle")
    check_boundary(mesh)
    check_boundary(unit_cube(2).curved(2, lambda x: x + 0.1 * torch.sin(3 * x.flip(-1))))
    cells = mesh.cells.clone()
    row = int(torch.nonzero((cells == torch.tensor([1, 2, 6])).all(1)))
    cells[row] = torch.tensor([4, 2, 6])
    with pytest.raises(MeshError, match=r"cells overlap: the boundary of triangle \d+ leads through triangle \d+ at"):
        check_boundary(Mesh(mesh.nodes, cells, merge=False))
