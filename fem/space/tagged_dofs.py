"""Dofs of Lagrange spaces that the tags of a mesh mean."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from fem.mesh.geometry import facet_cells
from fem.mesh.mesh import Mesh
from fem.mesh.tags import nodes_between
from fem.reference.lagrange import LagrangeElement
from fem.space.cell_dofs import CellDofs


def tagged_dofs(mesh: Mesh, elements: Sequence[LagrangeElement], dofs: CellDofs, tag: str) -> Int[Tensor, "k"]:
    """Nodes of the space on the facets with that tag and at the nodes with that tag, in ascending order.

    Raises:
        ValueError: no such tag, or no dof of this space at any node that has it.
    """
    if tag not in mesh.node_tags:
        return dofs_on_facets(mesh, elements, dofs, tag)
    found = nodes_between(mesh.topology, mesh.node_tags[tag], dofs.degree)
    if tag in mesh.facet_tags:
        return torch.cat([found, dofs_on_facets(mesh, elements, dofs, tag)]).unique()
    if len(found) == 0:
        raise ValueError(f"no dof of degree {dofs.degree} stands at a node with the tag {tag!r}.")
    return found


def dofs_on_facets(mesh: Mesh, elements: Sequence[LagrangeElement], dofs: CellDofs, tag: str) -> Int[Tensor, "k"]:
    """Nodes of the space on the facets with that tag, in ascending order.

    Raises:
        ValueError: no such tag.
    """
    sides, grid = mesh.sides_tagged(tag), mesh.topology.grid
    if sides is not None and grid is not None:
        return grid.side_nodes(dofs.degree, sides)
    marked = torch.zeros(dofs.count, dtype=torch.bool, device=mesh.device)
    for i, element in enumerate(elements):
        for nodes, cells in zip(element.facet_nodes, facet_cells(mesh, tag, i), strict=True):
            marked[dofs.of(i, cells)[:, list(nodes)]] = True
    return torch.nonzero(marked).flatten()
