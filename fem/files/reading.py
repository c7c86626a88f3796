"""Meshes from files: whatever meshio reads, in our node order, with the file's own names for facets and cells.

The cells of highest dimension make the mesh; those one dimension lower only say which facets a name belongs to. Names
are Gmsh's physical groups, meshio's cell sets (Abaqus) and integer cell data called "material" or the like; a group
without a name goes by its number. Nodes that no cell uses are dropped, and so is a last coordinate that never varies.
"""

import warnings
from os import PathLike
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from fem.errors import MeshError
from fem.files.completion import complete
from fem.files.contents import read_contents
from fem.files.file_data import FileData, file_data
from fem.files.labels import labels, starts
from fem.files.node_order import cell_of, vtk_order
from fem.files.orientation import oriented
from fem.mesh.mesh import Mesh, make_block
from fem.mesh.tags import whole_facets
from fem.support.checks import check_floating, check_kind


@overload
def read_mesh(
    path: str | PathLike[str],
    *,
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
    fields: Literal[False] = ...,
) -> Mesh: ...
@overload
def read_mesh(
    path: str | PathLike[str], *, dtype: torch.dtype = ..., device: torch.device | str = ..., fields: Literal[True]
) -> tuple[Mesh, FileData]: ...
def read_mesh(
    path: str | PathLike[str],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    fields: bool = False,
) -> Mesh | tuple[Mesh, FileData]:
    """The mesh in a file of any format that meshio knows: Gmsh .msh, .vtu and .vtk, Abaqus .inp, .xdmf, .med, ….

    Intervals, triangles, quadrilaterals, tetrahedra and hexahedra of degree 1 to 3, mixed where they are of one
    dimension; VTK's Lagrange cells among them. Many programs write cells of either orientation: those that run the
    wrong way round are turned, provided that no cell then lies on top of its neighbour.

    Args:
        fields: whether to return the data in the file as well, at the last time where there are several.

    Returns:
        A mesh whose `facet_tags`, `cell_tags` and `node_tags` carry the names in the file, "3" for a group numbered 3
        without one (`fem.files.labels` has the rules); a set of nodes that holds whole boundary facets is a tag of
        these too. With `fields`, the mesh and a mapping from names to dofs on it, or values of its cells (`FileData`).

    Warns:
        UserWarning: once for all labels that name nothing in the mesh.

    Raises:
        MeshError: no such file, unreadable or without cells; unsupported kinds of cells; inverted, folded or degenerate
            cells; a group "boundary" that is not the whole boundary, as that name means in every mesh.
    """
    check_kind("read_mesh", "path", path, str | PathLike, "the path of a file")
    check_floating("read_mesh", dtype)
    path = Path(path)
    contents = read_contents(path)
    try:
        complete(contents)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error
    blocks = [(b.type, np.asarray(b.data)) for b in contents.cells]
    kinds = [cell_of(path, name) for name, _ in blocks]
    dim = max((kind.dim for kind, (_, rows) in zip(kinds, blocks, strict=True) if len(rows)), default=0)
    if dim == 0:
        raise MeshError(f"{path} contains no cells.")
    tops = [i for i, kind in enumerate(kinds) if kind.dim == dim]
    nodes, blocks, number = used_nodes(path, np.asarray(contents.points, dtype=np.float64), blocks, tops, dim)
    coordinates = torch.tensor(nodes, dtype=dtype, device=device)
    try:
        parts: dict[str, list[Tensor]] = {}
        for i in tops:
            name, rows = blocks[i]
            order = vtk_order(name, kinds[i], rows.shape[1])
            block = make_block(
                coordinates, kinds[i].name, torch.tensor(rows[:, order], dtype=torch.int64, device="cpu")
            )
            parts.setdefault(kinds[i].name, []).append(block.connectivity)
        if any(len({part.shape[1] for part in several}) > 1 for several in parts.values()):
            raise MeshError("cells of one kind must all be of one degree.")
        mesh = oriented(coordinates, {name: torch.cat(several) for name, several in parts.items()})
        named = labels(contents, blocks, kinds, list(parts), number)
        if "boundary" in named.facets:
            name = "boundary in the file"
            own = mesh.with_tags({name: named.facets.pop("boundary")}).facets_tagged(name).unique()
            if not torch.equal(own, mesh.topology.boundary):
                raise MeshError(
                    f"its group 'boundary' has {len(own)} facets, but that name means the whole boundary of "
                    f"{len(mesh.topology.boundary)}; give the group another name."
                )
        if "boundary" in named.nodes:
            own = torch.tensor(named.nodes.pop("boundary"), device=mesh.device)
            every = mesh.facets[mesh.topology.boundary].unique()
            if not torch.equal(own[torch.isin(own, mesh.topology.vertex_nodes)], every[every >= 0]):
                raise MeshError(
                    f"its node set 'boundary' has {len(own)} nodes, but that name means the whole boundary; give the "
                    "set another name."
                )
        for name, own in named.nodes.items():
            inside = torch.zeros(mesh.num_nodes, dtype=torch.bool, device=mesh.device)
            inside[own] = True
            if name in named.sets - set(named.facets) and len(whole := whole_facets(mesh.topology, inside)):
                named.facets[name] = whole
        mesh, data = mesh.with_tags(named.facets, named.cells, named.nodes), None
        if fields:
            first = starts(blocks, kinds, list(parts))
            cells = [(i, first[i] + np.arange(len(blocks[i][1]))) for i in tops]
            data = file_data(contents, mesh, number, cells, named.left_out)
        if named.left_out:
            warnings.warn(f"{path}: no tags are made of the labels {'; '.join(named.left_out)}.", stacklevel=2)
        return mesh if data is None else (mesh, data)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error


def used_nodes(
    path: Path, nodes: np.ndarray, blocks: list[tuple[str, np.ndarray]], tops: list[int], dim: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]], np.ndarray]:
    """Only the nodes of the cells, without last coordinates that are constant, the blocks in their numbers, and these:
    the node that each point of the file is, or −1."""
    connectivity = np.concatenate([blocks[i][1].ravel() for i in tops])
    if connectivity.min() < 0 or connectivity.max() >= len(nodes):
        wrong = connectivity[(connectivity < 0) | (connectivity >= len(nodes))][0]
        raise MeshError(f"{path}: a cell names node {wrong}, but there are {len(nodes)} nodes.")
    used = np.unique(connectivity)
    number = np.full(len(nodes), -1)
    number[used] = np.arange(len(used))
    nodes = nodes[used]
    extent = np.ptp(nodes, axis=0)
    while nodes.shape[1] > dim and extent[nodes.shape[1] - 1] <= 1e-7 * extent.max():
        nodes = nodes[:, :-1]
    return nodes, [(name, number[rows]) for name, rows in blocks], number
