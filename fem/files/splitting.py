"""Wedges, pyramids and hexahedra divided into tetrahedra, their quadrilateral faces into triangles, without new nodes.

A face is divided from its vertex with the lowest number, a cell into what its own lowest vertex v makes with the
triangles of all faces without v; faces with v are then divided from v. Neighbours agree, because they see the same
numbers: pulling of vertices, as in Lee, Subdivisions and triangulations of polytopes (1997).
"""

from typing import Any

import numpy as np

from fem.files.raw import RawBlock

# Faces with their vertices counterclockwise from outside.
FACES = {
    "pyramid": ((0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4), (0, 3, 2, 1)),
    "wedge": ((0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)),
    "hexahedron": ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
}


def split(contents: Any) -> None:
    """Divides the solid cells of degree 1 in `contents`, and quadrilaterals beside them; labels and data follow."""
    solid = any(block.type in FACES and len(block.data) for block in contents.cells)
    parts = []
    for i, block in enumerate(contents.cells):
        rows, kind, count = np.asarray(block.data), block.type, 1
        if block.type in FACES:
            rows = tetrahedra(rows, FACES[block.type])
            kind, count = "tetra", rows.shape[1]
        elif block.type == "quad" and solid:
            kind, rows, count = "triangle", triangles(rows), 2
        contents.cells[i] = RawBlock(kind, rows.reshape(-1, rows.shape[-1]))
        parts.append(count)
    for name, blocks in contents.cell_data.items():
        contents.cell_data[name] = [np.repeat(values, k, axis=0) for values, k in zip(blocks, parts, strict=True)]
    for name, blocks in contents.cell_sets.items():
        contents.cell_sets[name] = [
            own if own is None else (np.asarray(own)[:, None] * k + np.arange(k)).ravel()
            for own, k in zip(blocks, parts, strict=True)
        ]
    for name, sides in getattr(contents, "side_sets", {}).items():
        contents.side_sets[name] = [side for given in sides for side in divided(np.asarray(given), solid)]


def divided(sides: np.ndarray, solid: bool) -> list[np.ndarray]:
    """Facets "f v", quadrilaterals among them as triangles."""
    if not solid or sides.ndim != 2 or sides.shape[1] < 4:
        return [sides]
    three = sides[:, 3] < 0
    return [sides[three, :3], triangles(sides[~three]).reshape(-1, 3)]


def triangles(rows: np.ndarray) -> np.ndarray:
    """Two triangles "f 2 3" for each quadrilateral "f 4"."""
    even = rows[:, [0, 2]].min(1) < rows[:, [1, 3]].min(1)
    choices = [rows[:, order].reshape(-1, 2, 3) for order in ([0, 1, 2, 0, 2, 3], [1, 2, 3, 1, 3, 0])]
    return np.where(even[:, None, None], *choices)


def tetrahedra(rows: np.ndarray, faces: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Two, three or six tetrahedra "e k 4" for each pyramid, wedge or hexahedron "e v"."""
    found = np.empty((len(rows), {5: 2, 6: 3, 8: 6}[rows.shape[1]], 4), dtype=rows.dtype)
    lowest = rows.argmin(1)
    for v in range(rows.shape[1]):
        own = rows[lowest == v]
        opposite = [own[:, list(face)] for face in faces if v not in face]
        cut = np.concatenate([triangles(f) if f.shape[1] == 4 else f[:, None] for f in opposite], 1)
        apex = np.broadcast_to(own[:, v, None, None], (*cut.shape[:2], 1))
        found[lowest == v] = np.concatenate([cut[..., ::-1], apex], 2)
    return found
