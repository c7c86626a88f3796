"""SU2's native meshes: points, cells by VTK's type, and markers, which are parts of the boundary with names.

Read here rather than by meshio, which replaces the names by numbers of its own and stops where a count says so.
"""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import Scanner, whole_numbers
from fem.files.raw import RawBlock, RawMesh

# VTK's types: kind of meshio and number of nodes.
CELLS = {
    3: ("line", 2),
    5: ("triangle", 3),
    9: ("quad", 4),
    10: ("tetra", 4),
    12: ("hexahedron", 8),
    13: ("wedge", 6),
    14: ("pyramid", 5),
}


def read_su2(data: bytes) -> RawMesh:
    """The contents of a file; markers are side sets.

    Raises:
        MeshError: with the line where the file stops making sense.
    """
    scanner = Scanner(re.sub(rb"%[^\n]*", b"", data))
    dim, points, cells, name, markers = 0, None, [], "", None
    sides: dict[str, list[np.ndarray]] = {}
    while re.compile(rb"\s*\S").match(scanner.data, scanner.at):
        heading = scanner.line("a keyword")
        key, _, value = (part.strip() for part in heading.partition("="))
        count = value.split()[0] if value else ""
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", key) or not value:
            raise scanner.wrong("KEYWORD= value, after as many rows as the last one announces", heading)
        if key == "MARKER_TAG":
            name = value
            continue
        if key not in ("NDIME", "NPOIN", "NELEM", "NMARK", "MARKER_ELEMS"):
            continue
        if not re.fullmatch(r"\d{1,18}", count):
            raise scanner.wrong(f"{key}= and a number", heading)
        if key == "NDIME":
            dim = int(count)
        elif key == "NMARK":
            markers = int(count)
        elif key == "NPOIN":
            if dim not in (2, 3) or points is not None:
                raise MeshError(f"{scanner.place}: NPOIN needs NDIME= 2 or 3 before it, and comes once.")
            points = read_points(scanner, int(count), dim)
        elif key == "NELEM":
            cells += [RawBlock(CELLS[code][0], rows) for code, rows in read_cells(scanner, int(count)).items()]
        else:
            found = read_cells(scanner, int(count))
            sides.setdefault(name, []).extend(rows for code, rows in found.items() if code in (3, 5, 9))
    if points is None:
        raise MeshError("it has no section NPOIN.")
    if markers is not None and markers != len(sides):
        raise MeshError(f"NMARK= {markers} markers are announced, but there are {len(sides)}.")
    return RawMesh(points, cells, side_sets=sides)


def read_points(scanner: Scanner, count: int, dim: int) -> np.ndarray:
    """Coordinates, each row with the number of the point behind or without."""
    rows = scanner.rows_of_words(count, "a point")
    widths = {len(row) for row in rows}
    if not widths <= {dim, dim + 1} or len(widths) > 1:
        index = next(i for i, row in enumerate(rows) if len(row) not in (dim, dim + 1) or len(row) != len(rows[0]))
        raise scanner.wrong_row(index, f"a point of {dim} coordinates", rows[index])
    try:
        table = np.array(rows, dtype=float).reshape(count, -1)
    except ValueError:
        raise MeshError(f"{scanner.place} or before: coordinates should be numbers.") from None
    if widths == {dim + 1} and (table[:, dim] != np.arange(count)).any():
        raise MeshError(f"{scanner.place} or before: points must be numbered one after another from 0.")
    return table[:, :dim]


def read_cells(scanner: Scanner, count: int) -> dict[int, np.ndarray]:
    """Nodes of cells by VTK's type, each row with the number of the cell behind or without."""
    cells: dict[int, list[list[int]]] = {}
    for i, words in enumerate(scanner.rows_of_words(count, "a cell")):
        try:
            code, *nodes = whole_numbers(words)
            if len(nodes) not in (CELLS[code][1], CELLS[code][1] + 1):
                raise ValueError
        except (ValueError, KeyError):
            raise scanner.wrong_row(i, "a cell: type and nodes", words) from None
        cells.setdefault(code, []).append(nodes[: CELLS[code][1]])
    return {code: np.array(rows) for code, rows in cells.items()}
