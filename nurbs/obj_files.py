"""Wavefront OBJ: free-form curves and surfaces are read, tessellations with normals and parameters written.

Read are `cstype [rat] bspline` and `bezier` with `deg`, `curv`, `surf`, `parm` and `end`; weights stand behind the
coordinates of vertices, which are not multiplied by them. Trimming, other free-form types and polygons are passed over.
Written are quadrilaterals, or lines for curves, with `vt` = (u, v) scaled to [0, 1] and `vn` = S_u × S_v / |S_u × S_v|.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from nurbs.errors import GeometryError
from nurbs.exchange import in_space, make_patch, read_integers, read_numbers, read_text, u_fastest
from nurbs.patch import NAMES, Patch
from nurbs.tessellation import tessellate

# -- reading -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Patch]:
    vertices: list[list[float]] = []
    kind, degree, rational = "", [0, 0], False
    element: tuple[int, str, list[int]] | None = None
    knots: dict[str, np.ndarray] = {}
    found, polygons = [], 0
    for number, (keyword, *words) in statements(read_text(path)):
        where = f"line {number}, {keyword}"
        if keyword == "v":
            vertex = read_numbers(words, where).tolist()
            if not 3 <= len(vertex) <= 7:
                raise GeometryError(f"{where}: three coordinates, and perhaps a weight, were expected.")
            vertices.append(
                [*vertex, 1.0] if len(vertex) == 3 else vertex[:4] if len(vertex) == 4 else [*vertex[:3], 1.0]
            )
        elif keyword == "cstype":
            rational, kind = words[:1] == ["rat"], words[-1] if words else ""
        elif keyword == "deg":
            degree = read_integers(words, where)
        elif keyword in ("curv", "surf"):
            start = 2 if keyword == "curv" else 4
            named = [word.split("/")[0] for word in words[start:]]
            element, knots = (number, keyword, read_integers(named, where)), {}
        elif keyword == "parm" and words:
            knots[words[0]] = read_numbers(words[1:], where)
        elif keyword == "end" and element is not None:
            if kind in ("bspline", "bezier"):
                found.append(read_element(vertices, kind, degree, rational, element, knots))
            element = None
        polygons += keyword == "f"
    if element is not None:
        raise GeometryError(f"line {element[0]}, {element[1]}: it breaks off before `end`.")
    if not found and polygons:
        raise GeometryError(
            f"it holds {polygons} polygons, but no free-form curve or surface. Fit one to its vertices."
        )
    return found


def statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Statements as words with the number of their first line; a backslash continues a line, # begins a comment."""
    first, words = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].rstrip()
        first = first or number
        words += line.rstrip("\\").split()
        if not line.endswith("\\"):
            if words:
                yield first, words
            first, words = 0, []
    if words:
        yield first, words


def read_element(
    vertices: list[list[float]],
    kind: str,
    degree: list[int],
    rational: bool,
    element: tuple[int, str, list[int]],
    knots: dict[str, np.ndarray],
) -> Patch:
    number, keyword, named = element
    r = 1 if keyword == "curv" else 2
    where = f"line {number}, {keyword}"
    if len(degree) < r or min(degree) < 0 or any(name not in knots for name in NAMES[:r]):
        raise GeometryError(
            f"{where}: `deg` and `parm` of {r} direction(s) were expected; got {degree}, {list(knots)}."
        )
    vectors = [knots[name] for name in NAMES[:r]]
    if kind == "bezier":  # the ends of the pieces
        vectors = [
            t[:1].repeat(1).tolist() + t.repeat(min(p, len(named))).tolist() + t[-1:].tolist()
            for t, p in zip(vectors, degree, strict=False)
        ]
        vectors = [np.array(t) for t in vectors]
    counts = [len(t) - p - 1 for t, p in zip(vectors, degree, strict=False)]
    if min(counts) < 1:
        raise GeometryError(f"{where}: {[len(t) for t in vectors]} knots are too few for degrees {degree[:r]}.")
    index = [i - 1 if i > 0 else len(vertices) + i for i in named]
    if any(not 0 <= i < len(vertices) for i in index):
        raise GeometryError(f"{where}: it names a vertex that is not there.")
    table = u_fastest(np.array([vertices[i] for i in index]).reshape(-1, 4), counts, where)
    weights = table[..., 3] if rational else None
    return make_patch(table[..., :3], weights, vectors, degree[:r], where)


# -- writing -----------------------------------------------------------------------------------------------------------


def write(path: Path, patches: list[Patch], subdivisions: int) -> None:
    lines, before = ["# polygons on NURBS patches; vt: parameters scaled to [0, 1]"], np.zeros(3, dtype=int)
    for i, patch in enumerate(in_space(patches, "OBJ")):
        mesh = tessellate(patch, subdivisions)
        low, high = (torch.stack(bounds) for bounds in zip(*patch.range(), strict=True))
        lines.append(f"o patch_{i}")
        lines += rows("v", mesh.points) + rows("vt", (mesh.parameters - low) / (high - low))
        corners = [mesh.cells + 1 + offset for offset in before.tolist()]
        if patch.directions == 1:
            lines += [f"l {a}/{s} {b}/{t}" for (a, b), (s, t) in zip(*(c.tolist() for c in corners[:2]), strict=True)]
        else:
            assert mesh.normals is not None
            lines += rows("vn", mesh.normals)
            faces = torch.stack(corners, -1).tolist()
            lines += ["f " + " ".join("/".join(map(str, corner)) for corner in face) for face in faces]
        before += [len(mesh.points), len(mesh.points), len(mesh.points) if patch.directions == 2 else 0]
    path.write_text("\n".join([*lines, ""]), encoding="ascii")


def rows(keyword: str, values: torch.Tensor) -> list[str]:
    return [" ".join([keyword, *map(repr, row)]) for row in values.tolist()]
