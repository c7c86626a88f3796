"""What only damage or collapsed cells bring about: a node twice in one cell, or at two places of a curved mesh."""

import torch

from fem.errors import MeshError
from fem.mesh.mesh import Mesh


def check_nodes_of_cells(mesh: Mesh) -> None:
    """Raise where one node is two nodes of a cell, or the midpoint of one edge and a node elsewhere.

    Raises:
        MeshError: the cell and the node, or how many nodes stand for two.
    """
    for block in mesh.blocks:
        ordered = block.connectivity.sort(1).values
        twice = torch.nonzero(ordered[:, 1:] == ordered[:, :-1])
        if len(twice):
            cell, place = twice[0].tolist()
            raise MeshError(
                f"{block.cell.name} {cell} names node {int(ordered[cell, place])} twice: it is collapsed, or damaged. "
                "Cells of a smaller kind (triangles, tetrahedra) may stand in its place."
            )
    degree = max(block.degree for block in mesh.blocks)
    if degree > 1 and all(block.degree == degree for block in mesh.blocks):
        used = len(torch.cat([block.connectivity.flatten() for block in mesh.blocks]).unique())
        places = mesh.topology.num_lagrange_nodes(degree)
        if used < places:
            raise MeshError(
                f"{places - used} of its nodes stand for two: cells of degree {degree} have {places} different places "
                f"for nodes, but name {used}."
            )
