"""Meshes from files of other programs, in our node order, with the file's own names for facets, cells and nodes.

The cells of highest dimension make the mesh; those one dimension lower only say which facets a name belongs to, those
below which nodes. What becomes of labels: `fem.files.labelling`. Nodes that no cell uses are dropped, and so is a
last coordinate that never varies.
"""

import warnings
from collections.abc import Mapping
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
from fem.files.labelling.labels import labels, starts
from fem.files.labelling.links import linked
from fem.files.labelling.naming import tagged
from fem.files.labelling.repetition import once
from fem.files.node_order import cell_of, vtk_order
from fem.files.orientation import oriented
from fem.files.soundness import check_boundary, check_places
from fem.files.splitting import split as split_cells
from fem.mesh.construction import make_block
from fem.mesh.gaps import gaps, merged
from fem.mesh.mesh import Mesh
from fem.support.checks import check_flags, check_floating, check_kind, check_numbers


@overload
def read_mesh(
    path: str | PathLike[str],
    *,
    merge: float | bool | None = ...,
    hanging: bool = ...,
    rename: Mapping[str, str] | None = ...,
    split: bool = ...,
    fields: Literal[False] = ...,
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
) -> Mesh: ...
@overload
def read_mesh(
    path: str | PathLike[str],
    *,
    merge: float | bool | None = ...,
    hanging: bool = ...,
    rename: Mapping[str, str] | None = ...,
    split: bool = ...,
    fields: Literal[True],
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
) -> tuple[Mesh, FileData]: ...
def read_mesh(
    path: str | PathLike[str],
    *,
    merge: float | bool | None = None,
    hanging: bool = False,
    rename: Mapping[str, str] | None = None,
    split: bool = False,
    fields: bool = False,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Mesh | tuple[Mesh, FileData]:
    """The mesh in a file: Gmsh .msh, .vtu and .vtk, Abaqus .inp, Exodus .e, .med, Nastran .bdf, .xdmf, SU2, ….

    Intervals, triangles, quadrilaterals, tetrahedra and hexahedra of degree 1 to 3, mixed where they are of one
    dimension; VTK's Lagrange cells among them. Those of degree 2 without nodes inside (8 or 20) are given them, with
    the same geometry. A last coordinate that varies by less than 1e-7 of the mesh is dropped. Many programs write cells
    of either orientation: those that run the wrong way round are turned, provided that no cell then lies on top of its
    neighbour. A cell that the file lists once for each of its groups is one cell.

    Args:
        merge: nodes within this distance become one; None warns of parts that touch without sharing nodes, False says
            that they are meant: see `Mesh`.
        hanging: nodes may hang on larger neighbours: see `Mesh`.
        rename: name in the file → name on the mesh, as in `{"boundary": "outer"}`; groups given one name are joined.
        split: whether to divide wedges, pyramids and hexahedra of degree 1 into tetrahedra, quadrilateral faces into
            triangles; labels and data follow.
        fields: whether to return the data in the file as well, at the last time where there are several.

    Returns:
        A mesh whose `facet_tags`, `cell_tags` and `node_tags` carry the names in the file, "3" for a group numbered 3
        without one (`fem.files.labelling` has the rules); a set of nodes that holds whole boundary facets is a tag of
        these too, and what `$Periodic` of Gmsh names is there for `Periodic(V)`. With `fields`, the mesh and a mapping
        from names to dofs on it, or values of its cells (`FileData`).

    Warns:
        UserWarning: once for all labels that are left out, facets of a group among them that are facets of no cell.

    Raises:
        MeshError: no such file, without cells, damaged, at odds with its own counts, or leading to files outside of its
            folder, with the line where that is known; unsupported kinds of cells; inverted, folded, degenerate or
            overlapping cells; a group "boundary" that is not the whole boundary, as that name means in every mesh.
        ValueError: `rename` names no group of the file.
    """
    check_kind("read_mesh", "path", path, str | PathLike, "the path of a file")
    check_kind("read_mesh", "rename", rename or {}, Mapping, "a mapping from names in the file to other names")
    if merge is not None and merge is not False:
        check_numbers("read_mesh", "non-negative", merge=merge)
    check_flags("read_mesh", split=split, fields=fields, hanging=hanging)
    check_floating("read_mesh", dtype)
    path = Path(path)
    contents = read_contents(path)
    try:
        if split:
            split_cells(contents)
        complete(contents)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error
    blocks = [(b.type, np.asarray(b.data)) for b in contents.cells]
    kinds = [cell_of(path, name) for name, _ in blocks]
    dim = max((kind.dim for kind, (_, rows) in zip(kinds, blocks, strict=True) if len(rows)), default=0)
    if dim == 0:
        raise MeshError(f"{path} contains no cells.")
    tops = [i for i, kind in enumerate(kinds) if kind.dim == dim]
    for name, rows in blocks:
        wrong = rows[(rows < 0) | (rows >= len(contents.points))]
        if len(wrong):
            raise MeshError(
                f"{path}: a cell ({name}) names node {wrong[0]}, but there are {len(contents.points)} nodes."
            )
    nodes, blocks, number = used_nodes(np.asarray(contents.points, dtype=np.float64), blocks, tops, dim)
    try:
        if merge is not None and merge is not False:
            one = merged_nodes(nodes, [(kinds[i].name, blocks[i][1]) for i in tops], float(merge))
            blocks = [(name, np.where(rows < 0, rows, one[rows])) for name, rows in blocks]
            nodes, blocks, again = used_nodes(nodes, blocks, tops, dim)
            number = np.where(number < 0, number, again[one[number]])
        blocks = once(contents, blocks) if path.suffix.lower() == ".msh" else blocks
        coordinates = torch.tensor(nodes, dtype=dtype, device=device)
        parts: dict[str, list[Tensor]] = {}
        for i in tops:
            name, rows = blocks[i]
            if len(rows) == 0:
                continue
            order = vtk_order(name, kinds[i], rows.shape[1])
            block = make_block(
                coordinates, kinds[i].name, torch.tensor(rows[:, order], dtype=torch.int64, device="cpu")
            )
            parts.setdefault(kinds[i].name, []).append(block.connectivity)
        if any(len({part.shape[1] for part in several}) > 1 for several in parts.values()):
            raise MeshError("cells of one kind must all be of one degree.")
        mesh = oriented(coordinates, {name: torch.cat(several) for name, several in parts.items()}, hanging)
        check_places(mesh)
        if merge is not False and (text := gaps(mesh.nodes, mesh.topology, hanging)):
            warnings.warn(f"{path}: {text}", stacklevel=2)
        if merge is not False:
            check_boundary(mesh)
        found = labels(contents, blocks, kinds, list(parts), number)
        mesh, data = linked(tagged(mesh, found, rename or {}), contents, number), None
        if fields:
            first = starts(blocks, kinds, list(parts))
            cells = [(i, first[i] + np.arange(len(blocks[i][1]))) for i in tops]
            data = file_data(contents, mesh, number, cells, found.left_out)
        if found.left_out:
            listed = ", ".join(found.left_out)
            warnings.warn(f"{path}: left out are {listed}: these labels and data are not on the mesh.", stacklevel=2)
        return mesh if data is None else (mesh, data)
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error


def merged_nodes(nodes: np.ndarray, cells: list[tuple[str, np.ndarray]], distance: float) -> np.ndarray:
    """The number of the node that takes the place of each, where those within a distance become one."""
    points = torch.from_numpy(nodes)
    return merged(points, [make_block(points, name, rows) for name, rows in cells], distance).numpy()


def used_nodes(
    nodes: np.ndarray, blocks: list[tuple[str, np.ndarray]], tops: list[int], dim: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]], np.ndarray]:
    """Only the nodes of the cells, without last coordinates that are constant, the blocks in their numbers, and the
    node that each point of the file is.

    Points that no cell uses are −2 in both: −1 is where a facet has no node.
    """
    used = np.unique(np.concatenate([blocks[i][1].ravel() for i in tops]))
    number = np.full(len(nodes), -2)
    number[used] = np.arange(len(used))
    nodes = nodes[used]
    extent = np.ptp(nodes, axis=0)
    while nodes.shape[1] > dim and extent[nodes.shape[1] - 1] <= 1e-7 * extent.max():
        nodes = nodes[:, :-1]
    return nodes, [(name, np.where(rows < 0, rows, number[rows])) for name, rows in blocks], number
