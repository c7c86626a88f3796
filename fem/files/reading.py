"""Meshes from files: whatever meshio reads, in our node order, with the file's own names for facets and cells.

The cells of highest dimension make the mesh; those one dimension lower only say which facets a name belongs to. Names
are Gmsh's physical groups, meshio's cell sets (Abaqus) and integer cell data called "material" or the like; a group
without a name goes by its number. Nodes that no cell uses are dropped, and so is a last coordinate that never varies.
"""

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.errors import MeshError
from fem.files.contents import read_contents
from fem.files.labels import tags
from fem.files.node_order import cell_of, vtk_order
from fem.files.orientation import oriented
from fem.files.repetition import once
from fem.mesh.construction import make_block
from fem.mesh.gaps import gaps, merged
from fem.mesh.mesh import Mesh
from fem.mesh.tags import facet_numbers
from fem.support.checks import check_floating, check_kind, check_numbers, did_you_mean


def read_mesh(
    path: str | PathLike[str],
    *,
    merge: float | bool | None = None,
    rename: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Mesh:
    """The mesh in a file of any format that meshio knows: Gmsh .msh, .vtu and .vtk, Abaqus .inp, .xdmf, .med, ….

    Intervals, triangles, quadrilaterals, tetrahedra and hexahedra of degree 1 to 3, mixed where they are of one
    dimension; VTK's Lagrange cells among them. Many programs write cells of either orientation: those that run the
    wrong way round are turned, provided that no cell then lies on top of its neighbour. A cell that the file lists
    once for each of its groups is one cell. Facets of a group that are facets of no cell are left out with a warning.

    Args:
        merge: nodes within this distance become one; None warns of parts that touch without sharing nodes, False says
            that they are meant: see `Mesh`.
        rename: name in the file → name on the mesh, as in `{"boundary": "outer"}`; groups given one name are joined.

    Returns:
        A mesh whose `facet_tags` and `cell_tags` carry the names in the file ("3" for a group numbered 3 without one).

    Raises:
        MeshError: no such file, unreadable or without cells; unsupported kinds of cells; inverted, folded or degenerate
            or overlapping cells; a group "boundary" that is not the whole boundary, as that name means in every mesh.
        ValueError: `rename` names no group of the file.
    """
    check_kind("read_mesh", "path", path, str | PathLike, "the path of a file")
    check_kind("read_mesh", "rename", rename or {}, Mapping, "a mapping from names in the file to other names")
    if merge is not None and merge is not False:
        check_numbers("read_mesh", "non-negative", merge=merge)
    check_floating("read_mesh", dtype)
    path = Path(path)
    contents, version = read_contents(path)
    blocks = [(b.type, np.asarray(b.data)) for b in contents.cells]
    kinds = [cell_of(path, name) for name, _ in blocks]
    dim = max((kind.dim for kind, (_, rows) in zip(kinds, blocks, strict=True) if len(rows)), default=0)
    if dim == 0:
        raise MeshError(f"{path} contains no cells.")
    tops = [i for i, kind in enumerate(kinds) if kind.dim == dim]
    nodes, blocks = used_nodes(path, np.asarray(contents.points, dtype=np.float64), blocks, tops, dim)
    old_hexahedra = version is not None and version < (2, 1)
    try:
        if merge is not None and merge is not False:
            number = merged_nodes(nodes, [(kinds[i].name, blocks[i][1]) for i in tops], float(merge))
            blocks = [(name, np.where(rows < 0, rows, number[rows])) for name, rows in blocks]
            nodes, blocks = used_nodes(path, nodes, blocks, tops, dim)
        blocks = once(contents, blocks, [kind.dim for kind in kinds])
        coordinates = torch.tensor(nodes, dtype=dtype, device=device)
        parts: dict[str, list[Tensor]] = {}
        for i in tops:
            name, rows = blocks[i]
            if len(rows) == 0:
                continue
            order = vtk_order(name, kinds[i], rows.shape[1], old_hexahedra)
            block = make_block(
                coordinates, kinds[i].name, torch.tensor(rows[:, order], dtype=torch.int64, device="cpu")
            )
            parts.setdefault(kinds[i].name, []).append(block.connectivity)
        if any(len({part.shape[1] for part in several}) > 1 for several in parts.values()):
            raise MeshError("cells of one kind must all be of one degree.")
        mesh = oriented(coordinates, {name: torch.cat(several) for name, several in parts.items()})
        if merge is not False and (text := gaps(mesh.nodes, mesh.topology)):
            warnings.warn(f"{path}: {text}", stacklevel=2)
        facet_tags, cell_tags = tags(contents, blocks, kinds, dim, list(parts))
        facet_tags, missing = facets_of(mesh, facet_tags)
        if missing:
            warnings.warn(f"{path}: left out are {', '.join(missing)}.", stacklevel=2)
        facet_tags, cell_tags = renamed(facet_tags, cell_tags, rename or {})
        own, boundary = facet_tags.pop("boundary", None), mesh.topology.boundary
        if own is not None and not torch.equal(own.unique(), boundary):
            raise MeshError(
                f"its group 'boundary' has {len(own.unique())} facets, but that name means the whole boundary of "
                f"{len(boundary)}; give the group another name, `read_mesh(..., rename={{'boundary': 'outer'}})`."
            )
        return mesh.with_tags(facet_tags, cell_tags)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error


def merged_nodes(nodes: np.ndarray, cells: list[tuple[str, np.ndarray]], distance: float) -> np.ndarray:
    """The number of the node that takes the place of each, where those within a distance become one."""
    points = torch.from_numpy(nodes)
    return merged(points, [make_block(points, name, rows) for name, rows in cells], distance).numpy()


def facets_of(mesh: Mesh, tags: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], list[str]]:
    """The facets with the vertices that a file gives, and in words what no cell has: helper lines, other bodies."""
    facets, missing = {}, []
    for name, tuples in tags.items():
        found = facet_numbers(mesh.topology, torch.as_tensor(tuples, device=mesh.device))
        lost = int((found < 0).sum())
        if lost:
            missing.append(f"{lost} of {len(found)} facets in the group {name!r}, which no cell has")
        if lost < len(found):
            facets[name] = found[found >= 0]
    return facets, missing


def renamed(
    facet_tags: Mapping[str, Tensor], cell_tags: Mapping[str, Any], rename: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tags under other names; those that come to have one name are joined.

    Raises:
        ValueError: no tag has the old name.
    """
    known = list(dict.fromkeys([*facet_tags, *cell_tags]))
    for name in rename:
        if name not in known:
            raise ValueError(
                f"`read_mesh(rename=...)` names no group of the file by {name!r}; it has "
                f"{', '.join(map(repr, known)) or 'none'}.{did_you_mean(name, known)}"
            )
    result: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    for new, given in zip(result, (facet_tags, cell_tags), strict=True):
        for name, chosen in given.items():
            key, several = rename.get(name, name), torch.as_tensor(chosen)
            new[key] = torch.cat([new[key], several]).unique() if key in new else several
    return result


def used_nodes(
    path: Path, nodes: np.ndarray, blocks: list[tuple[str, np.ndarray]], tops: list[int], dim: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Only the nodes of the cells, without last coordinates that are constant, and the blocks in their numbers.

    Nodes of facets that no cell uses are −2 there: −1 is where a facet has no node.
    """
    connectivity = np.concatenate([blocks[i][1].ravel() for i in tops])
    if connectivity.min() < 0 or connectivity.max() >= len(nodes):
        wrong = connectivity[(connectivity < 0) | (connectivity >= len(nodes))][0]
        raise MeshError(f"{path}: a cell names node {wrong}, but there are {len(nodes)} nodes.")
    used = np.unique(connectivity)
    number = np.full(len(nodes), -2)
    number[used] = np.arange(len(used))
    nodes = nodes[used]
    extent = np.ptp(nodes, axis=0)
    while nodes.shape[1] > dim and extent[nodes.shape[1] - 1] <= 1e-12 * extent.max():
        nodes = nodes[:, :-1]
    return nodes, [(name, np.where(rows < 0, rows, number[rows])) for name, rows in blocks]
