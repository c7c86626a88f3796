"""What only damage brings about: a node that stands at two places of a curved mesh, a boundary inside other cells."""

import torch

from fem.errors import MeshError
from fem.mesh.conformity import listed
from fem.mesh.gaps import DEEP, holders
from fem.mesh.geometry import facet_domains, geometry
from fem.mesh.mesh import Mesh


def check_places(mesh: Mesh) -> None:
    """Raise where one node is the midpoint of an edge, say, and a node elsewhere.

    Raises:
        MeshError: how many nodes stand for two.
    """
    degree = max(block.degree for block in mesh.blocks)
    if degree == 1 or any(block.degree != degree for block in mesh.blocks):
        return
    used = len(torch.cat([block.connectivity.flatten() for block in mesh.blocks]).unique())
    places = mesh.topology.num_lagrange_nodes(degree)
    if used < places:
        raise MeshError(
            f"{places - used} of its nodes stand for two: its cells of degree {degree} have {places} different places "
            f"for nodes, but name {used}."
        )


def check_boundary(mesh: Mesh) -> None:
    """Raise where the boundary leads through a cell: a cell with a wrong node lies on others, without a vertex in them.

    Raises:
        MeshError: the two cells and the place.
    """
    if mesh.dim != mesh.num_coordinates:
        return
    points, owners = [], []
    for domain in facet_domains(mesh, "boundary", 2):
        assert domain.cells is not None
        points.append(geometry(mesh, domain).points)
        owners.append(torch.repeat_interleave(mesh.block_starts[domain.block] + domain.cells, len(domain.points)))
    place, owner = torch.cat([part.flatten(0, 1) for part in points]), torch.cat(owners)
    for k, cell, depth in holders(mesh.nodes, mesh.topology, place, owner):
        if bool((depth > DEEP).any()):
            worst = int(depth.argmax())
            one, other = int(owner[k[worst]]), int(cell[worst])
            raise MeshError(
                f"cells overlap: the boundary of {listed(mesh.topology, [one])} leads through "
                f"{listed(mesh.topology, [other])} at {place[k[worst]].tolist()}. Where bodies that touch may overlap, "
                "`merge=False` says so."
            )
