"""Labels of a file as tags of its mesh: facets found by their nodes, other names, the one name that is taken."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fem.errors import MeshError
from fem.files.labelling.labels import Labels
from fem.mesh.mesh import Mesh
from fem.mesh.tags import facet_numbers, whole_facets
from fem.support.checks import did_you_mean

Tags = dict[str, Tensor]


def tagged(mesh: Mesh, labels: Labels, rename: Mapping[str, str]) -> Mesh:
    """The mesh with the labels as tags, which may bear other names; what is left out is added to `labels.left_out`.

    Raises:
        MeshError: facets or nodes called "boundary" that are not the whole boundary.
        ValueError: `rename` names no label.
    """
    nodes = {name: torch.as_tensor(own, device=mesh.device) for name, own in labels.nodes.items()}
    cells = {name: torch.as_tensor(own, device=mesh.device) for name, own in labels.cells.items()}
    facets = facets_of(mesh, labels)
    for name, own in nodes.items():
        inside = torch.zeros(mesh.num_nodes, dtype=torch.bool, device=mesh.device)
        inside[own] = True
        if name in labels.sets - set(labels.facets) and len(whole := whole_facets(mesh.topology, inside)):
            facets[name] = whole
    facets, cells, nodes = renamed((facets, cells, nodes), rename)
    remedy = "give the group another name, `read_mesh(..., rename={'boundary': 'outer'})`."
    boundary = mesh.topology.boundary
    if "boundary" in nodes:
        own, every = nodes.pop("boundary"), mesh.facets[boundary].unique()
        if not torch.equal(own[torch.isin(own, mesh.topology.vertex_nodes)].unique(), every[every >= 0]):
            raise MeshError(
                f"its group 'boundary' has {len(own)} nodes, but that name means the whole boundary; {remedy}"
            )
    if "boundary" in facets and not torch.equal(own := facets.pop("boundary").unique(), boundary):
        raise MeshError(
            f"its group 'boundary' has {len(own)} facets, but that name means the whole boundary of {len(boundary)}; "
            f"{remedy}"
        )
    return mesh.with_tags(facets, cells, nodes)


def facets_of(mesh: Mesh, labels: Labels) -> Tags:
    """The facets with the vertices that a file gives; what no cell has is left out: helper lines, other bodies."""
    facets = {}
    for name, tuples in labels.facets.items():
        found = facet_numbers(mesh.topology, torch.as_tensor(tuples, device=mesh.device))
        lost = int((found < 0).sum())
        if lost:
            labels.left_out.append(f"{lost} of {len(found)} facets in the group {name!r}, which no cell has")
        if lost < len(found):
            facets[name] = found[found >= 0]
    return facets


def renamed(tags: tuple[Tags, ...], rename: Mapping[str, str]) -> tuple[Tags, ...]:
    """Tags of several kinds under other names; those of one kind that come to have one name are joined.

    Raises:
        ValueError: no tag has the old name.
    """
    known = list(dict.fromkeys(name for kind in tags for name in kind))
    for name in rename:
        if name not in known:
            raise ValueError(
                f"`read_mesh(rename=...)` names no group of the file by {name!r}; it has "
                f"{', '.join(map(repr, known)) or 'none'}.{did_you_mean(name, known)}"
            )
    result: list[Tags] = []
    for kind in tags:
        result.append({})
        for name, chosen in kind.items():
            key = rename.get(name, name)
            result[-1][key] = torch.cat([result[-1][key], chosen]).unique() if key in result[-1] else chosen
    return tuple(result)
