"""Markers of SU2 files: parts of the boundary with names, which meshio replaces by numbers of its own."""

from pathlib import Path

import numpy as np

from fem.errors import MeshError

SIZES = {1: 1, 3: 2, 5: 3, 9: 4}  # nodes of VTK's kinds of cells that may lie on a boundary


def su2_markers(path: Path) -> dict[str, list[np.ndarray]]:
    """The facets "f v" of each marker, as indices of points.

    Raises:
        MeshError: with the line that is no facet.
    """
    lines = (line.partition("%")[0].strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    numbered = iter([(number, line) for number, line in enumerate(lines, 1) if line])
    found: dict[str, list[np.ndarray]] = {}
    name = None
    for _, line in numbered:
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "MARKER_TAG":
            name = value
        elif key == "MARKER_ELEMS" and name and value.isdecimal():
            rows: dict[int, list[list[int]]] = {}
            for _ in range(int(value)):
                number, line = next(numbered, (0, ""))
                words = line.split()
                size = SIZES.get(int(words[0])) if words and words[0].isdecimal() else None
                if size is None or len(words) <= size or not all(word.isdecimal() for word in words[1 : 1 + size]):
                    raise MeshError(f"line {number}: marker {name!r} needs {value} facets; got {line[:60]!r}.")
                rows.setdefault(size, []).append([int(word) for word in words[1 : 1 + size]])
            found.setdefault(name, []).extend(np.array(same) for same in rows.values())
    return found
