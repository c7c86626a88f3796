"""Sides that a file says are one another's images: facet tags, and which node of the one is which of the other."""

from typing import Any

import numpy as np
import torch

from fem.mesh.mesh import Mesh
from fem.mesh.tags import facet_numbers

KINDS = ("point", "curve", "surface")


def linked(mesh: Mesh, contents: Any, number: np.ndarray) -> Mesh:
    """The mesh with tags such as "periodic curve 2" for the sides, and `mesh.topology.links` of these.

    Args:
        number: the node of the mesh that each point of the file is, negative for those that it has not.
    """
    tags, links, boundary = {}, {}, mesh.topology.boundary
    for dim, tag, other, pairs in getattr(contents, "links", ()):
        nodes = torch.as_tensor(number[pairs], device=mesh.device)
        nodes = nodes[(nodes >= 0).all(1)]
        if dim != mesh.dim - 1 or len(nodes) == 0:
            continue
        image = torch.full((mesh.num_nodes + 1,), -1, device=mesh.device)  # the last is where a facet has no node
        image[nodes[:, 0]] = nodes[:, 1]
        vertices = mesh.facets[boundary]
        known = ((image[vertices] >= 0) | (vertices < 0)).all(1)  # files may pair vertices alone
        facets, there = boundary[known], facet_numbers(mesh.topology, image[vertices[known]])
        name, opposite = (f"periodic {KINDS[dim]} {n}" for n in (tag, other))
        if bool((there >= 0).any()):
            tags[name], tags[opposite] = facets[there >= 0], there[there >= 0]
            links[name, opposite] = nodes
    if links:
        mesh = mesh.with_tags(tags)
        mesh.topology.links = links
    return mesh
