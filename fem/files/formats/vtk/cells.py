"""Cells of VTK files, legacy and XML, from their three arrays: nodes of all cells, where each cell ends, and types."""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.node_order import exchanged_edges, num_nodes
from fem.files.raw import RawBlock, RawMesh

# VTK's types of cells (vtkCellType.h) as meshio calls them, or would.
CODES = """
    1 vertex, 2 poly_vertex, 3 line, 4 poly_line, 5 triangle, 6 triangle_strip, 7 polygon, 8 pixel, 9 quad,
    10 tetra, 11 voxel, 12 hexahedron, 13 wedge, 14 pyramid, 15 pentagonal_prism, 16 hexagonal_prism, 21 line3,
    22 triangle6, 23 quad8, 24 tetra10, 25 hexahedron20, 26 wedge15, 27 pyramid13, 28 quad9, 29 hexahedron27,
    30 quad6, 31 wedge12, 32 wedge18, 33 hexahedron24, 34 triangle7, 35 line4, 42 polyhedron, 68 VTK_LAGRANGE_CURVE,
    69 VTK_LAGRANGE_TRIANGLE, 70 VTK_LAGRANGE_QUADRILATERAL, 71 VTK_LAGRANGE_TETRAHEDRON,
    72 VTK_LAGRANGE_HEXAHEDRON, 73 VTK_LAGRANGE_WEDGE, 74 VTK_LAGRANGE_PYRAMID, 75 VTK_BEZIER_CURVE,
    76 VTK_BEZIER_TRIANGLE, 77 VTK_BEZIER_QUADRILATERAL, 78 VTK_BEZIER_TETRAHEDRON, 79 VTK_BEZIER_HEXAHEDRON,
    80 VTK_BEZIER_WEDGE, 81 VTK_BEZIER_PYRAMID
"""
KINDS = {int(code): name for code, name in re.findall(r"(\w+) (\w+)", CODES)}
POLYGONS = {3: "triangle", 4: "quad"}


def raw_mesh(
    points: np.ndarray,
    connectivity: np.ndarray,
    ends: np.ndarray,
    types: np.ndarray,
    point_data: dict[str, np.ndarray],
    cell_data: dict[str, np.ndarray],
    old: bool = False,
) -> RawMesh:
    """The mesh, one block for each kind of cells.

    Args:
        old: whether Lagrange hexahedra have their nodes in the order that VTK had before version 9.

    Raises:
        MeshError: ends that go down or beyond the nodes, types that VTK has not, data of another length.
    """
    if len(ends) != len(types):
        raise MeshError(f"there are {len(types)} types of cells, but {len(ends)} cells.")
    connectivity, ends, types = (array.astype(np.int64) for array in (connectivity, ends, types))
    sizes = np.diff(ends, prepend=0)
    if len(ends) and (sizes.min() < 0 or ends[-1] != len(connectivity)):
        wrong = int(np.argmin(sizes)) if sizes.min() < 0 else len(ends) - 1
        raise MeshError(
            f"cell {wrong} should end at entry {ends[wrong]} of the connectivity of {len(connectivity)} entries, of "
            "which each cell has its part, one after another: the offsets are damaged."
        )
    if not len(ends) and len(connectivity):
        raise MeshError(f"there are {len(connectivity)} nodes of cells, but no cells.")
    for data, count, what in ((point_data, len(points), "points"), (cell_data, len(ends), "cells")):
        for name, values in data.items():
            if len(values) != count:
                raise MeshError(f"{name!r} has {len(values)} values for {count} {what}.")
    blocks, which = [], []
    for kind, size in dict.fromkeys(zip(types.tolist(), sizes.tolist(), strict=True)):
        chosen = np.flatnonzero((types == kind) & (sizes == size))
        rows = connectivity[ends[chosen, None] - size + np.arange(size)]
        block = block_of(kind, rows, int(chosen[0]))
        if old and block is not None and block.type == "VTK_LAGRANGE_HEXAHEDRON":
            block.data = rows[:, exchanged_edges(size)]
        if block is not None:
            blocks.append(block)
            which.append(np.repeat(chosen, len(block.data) // len(chosen)))
    return RawMesh(
        points,
        blocks,
        point_data,
        {name: [values[chosen] for chosen in which] for name, values in cell_data.items()},
    )


def block_of(kind: int, rows: np.ndarray, first: int) -> RawBlock | None:
    """Cells of one type and size; what has no cells of its own (a strip of lines or triangles) is taken apart."""
    name, size = KINDS.get(kind), rows.shape[1]
    if kind == 0 and size == 0:
        return None
    if name is None:
        raise MeshError(f"cell {first} is of type {kind}, which VTK has not, or which is not known here.")
    if name == "polygon" and size in POLYGONS:
        return RawBlock(POLYGONS[size], rows)
    if name == "poly_vertex" and size:
        return RawBlock("vertex", rows.reshape(-1, 1))
    if name == "poly_line" and size > 1:
        return RawBlock("line", np.stack([rows[:, :-1], rows[:, 1:]], 2).reshape(-1, 2))
    if name == "triangle_strip" and size > 2:
        # Every other triangle of a strip runs the other way round.
        triangles = np.stack([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]], 2)
        triangles[:, 1::2] = triangles[:, 1::2, [1, 0, 2]]
        return RawBlock("triangle", triangles.reshape(-1, 3))
    straight = {"pixel": ("quad", [0, 1, 3, 2]), "voxel": ("hexahedron", [0, 1, 3, 2, 4, 5, 7, 6])}
    expected = num_nodes(straight[name][0] if name in straight else name)
    if expected is not None and size != expected:
        raise MeshError(f"cell {first} is a {name} with {size} nodes instead of {expected}.")
    if name in straight:
        return RawBlock(straight[name][0], rows[:, straight[name][1]])
    return RawBlock(name, rows)


def grid(shape: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Connectivity, ends and types of the cells of a grid of so many points per direction, x fastest."""
    axes = [i for i, n in enumerate(shape) if n > 1]
    numbers = np.arange(int(np.prod(shape))).reshape(shape[::-1])
    corners = [numbers]
    for axis in axes:
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[2 - axis], high[2 - axis] = slice(0, -1), slice(1, None)
        corners = [c[tuple(low)] for c in corners] + [c[tuple(high)] for c in corners]
    rows = np.stack([c.ravel() for c in corners], 1)
    kind = {0: 1, 1: 3, 2: 8, 3: 11}[len(axes)]
    return rows.ravel(), rows.shape[1] * np.arange(1, len(rows) + 1), np.full(len(rows), kind)
