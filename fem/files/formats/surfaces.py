"""Surfaces in space: OFF, and STL as text or binary, whose triangles share the corners that have equal coordinates."""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import without_comments
from fem.files.raw import RawBlock, RawMesh

NUMBERS = rb"\s+([-+.\w]+)" * 3
FACET = re.compile(
    rb"\s*facet\s+normal" + NUMBERS + rb"\s+outer\s+loop" + (rb"\s+vertex" + NUMBERS) * 3 + rb"\s+endloop\s+endfacet",
    re.IGNORECASE,
)


def read_off(data: bytes) -> RawMesh:
    """Geomview's OFF: points in space, and faces of which those with three or four are cells here.

    Raises:
        MeshError: with the line where the file stops making sense.
    """
    scanner = without_comments(data)
    heading = scanner.line("OFF").split()
    if not heading or heading[0] not in ("OFF", "COFF"):
        raise MeshError("Expected the first line to be `OFF`.")
    counts = heading[1:] or scanner.line("the numbers of vertices, faces and edges").split()
    what = "the numbers of vertices, faces and edges"
    num_points, num_faces, *_ = [*scanner.integers(what, counts), -1, -1]
    if num_points < 0 or num_faces < 0:
        raise scanner.wrong(what, " ".join(counts))
    rows = scanner.rows_of_words(num_points, "a vertex")
    try:
        points = np.array([row[:3] for row in rows], dtype=float).reshape(-1, 3)
    except ValueError:
        raise MeshError(f"{scanner.place} or before: a vertex needs three coordinates.") from None
    faces: dict[int, list[list[int]]] = {}
    for _ in range(num_faces):
        words = scanner.line("a face").split()
        size = int(words[0]) if words[0].isdecimal() and int(words[0]) < len(words) else 0
        if size not in (3, 4):
            raise scanner.wrong("a face: 3 or 4, and as many vertices", " ".join(words))
        faces.setdefault(size, []).append(scanner.integers("a face", words[1 : 1 + size]))
    scanner.nothing_more()
    kinds = {3: "triangle", 4: "quad"}
    return RawMesh(points, [RawBlock(kinds[size], np.array(rows)) for size, rows in faces.items()])


def read_stl(data: bytes) -> RawMesh:
    """The contents of a file.

    Raises:
        MeshError: another number of triangles than announced, or text that is no facet.
    """
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count and len(data) > 84:
        facets = np.frombuffer(data, np.dtype([("x", "<f4", (4, 3)), ("attribute", "<u2")]), count, 84)
        corners = facets["x"][:, 1:].astype(float)
    elif data.lstrip()[:5].lower() == b"solid":
        corners = np.array(stl_facets(data), dtype=float).reshape(-1, 3, 3)
    else:
        raise MeshError(
            f"a binary STL file of {count} triangles has {84 + 50 * count} bytes; this one has {len(data)}, and does "
            "not begin with 'solid' as text does, or holds no triangles."
        )
    points, number = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return RawMesh(points, [RawBlock("triangle", number.reshape(-1, 3))])


def stl_facets(data: bytes) -> list[list[float]]:
    """The nine coordinates of each facet of a text; several solids may follow one another."""
    found, at = [], 0
    while at < len(data):
        between = re.compile(rb"\s*(solid|endsolid)[^\n]*(\n|$)|\s+$", re.IGNORECASE).match(data, at)
        match = between or FACET.match(data, at)
        try:
            if match is None:
                raise ValueError
            if between is None:
                found.append([float(word) for word in match.groups()[3:]])
        except ValueError:
            line = data.count(b"\n", 0, at) + 1
            raise MeshError(f"line {line} and after: expected a facet of three vertices, or endsolid.") from None
        at = match.end()
    if not re.search(rb"endsolid", data[-200:], re.IGNORECASE):
        raise MeshError("the file ends without endsolid; it is cut off.")
    return found


# What OBJ files may hold besides vertices and faces, none of which is the mesh.
OBJ_OTHERS = (
    "vn",
    "vt",
    "vp",
    "l",
    "p",
    "s",
    "mtllib",
    "usemtl",
    "o",
    "maplib",
    "usemap",
    "lod",
    "cstype",
    "deg",
    "end",
)


def read_obj(data: bytes) -> RawMesh:
    """Wavefront's OBJ: vertices, and faces of three or four; names of groups are sets of cells.

    Raises:
        MeshError: with the line that is none of this.
    """
    scanner = without_comments(data)
    points: list[list[float]] = []
    faces: dict[int, list[list[int]]] = {3: [], 4: []}
    groups: dict[str, dict[int, list[int]]] = {}
    current: list[str] = []
    while re.compile(rb"\s*\S").match(scanner.data, scanner.at):
        text = scanner.line("a vertex or a face")
        key, *words = text.split()
        if key == "v" and len(words) >= 3 and all(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", w) for w in words[:3]):
            points.append([float(word) for word in words[:3]])
        elif key == "f" and len(words) in faces and all(re.fullmatch(r"-?\d{1,18}(/-?\d*){0,2}", w) for w in words):
            numbers = [int(word.split("/")[0]) for word in words]
            for group in current:
                groups.setdefault(group, {3: [], 4: []})[len(words)].append(len(faces[len(words)]))
            faces[len(words)].append([n - 1 if n > 0 else len(points) + n if n else -1 for n in numbers])
        elif key == "g":
            current = words
        elif key not in OBJ_OTHERS:
            raise scanner.wrong("v and three coordinates, or f and three or four vertices", text)
    kinds = {3: "triangle", 4: "quad"}
    sizes = [size for size, rows in faces.items() if rows]
    sets = {name: [np.array(chosen[size], dtype=np.int64) for size in sizes] for name, chosen in groups.items()}
    blocks = [RawBlock(kinds[size], np.array(faces[size])) for size in sizes]
    return RawMesh(np.array(points, dtype=float).reshape(-1, 3), blocks, cell_sets=sets)


def read_wkt(data: bytes) -> RawMesh:
    """Well-known text of a TIN: triangles as closed rings of four points, the last as the first.

    Raises:
        MeshError: another geometry, or a ring that is no triangle.
    """
    text = data.decode("utf-8", "replace").strip()
    if re.fullmatch(r"TIN\s*Z?\s*\(\s*\(\s*\(.*\)\s*\)\s*\)\s*;?", text, re.IGNORECASE | re.DOTALL) is None:
        raise MeshError("expected TIN (((x y z, x y z, x y z, x y z)), …), or it is cut off.")
    inner = text[text.index("(") + 1 : text.rindex(")")]
    corners = []
    for number, ring in enumerate(re.split(r"\)\s*\)\s*,", inner), 1):
        points = [point.split() for point in ring.strip().lstrip("( ").rstrip(") \n").split(",")]
        try:
            found = np.array(points, dtype=float)
        except ValueError:
            found = np.empty(0)
        if found.shape not in ((4, 2), (4, 3)) or (found[0] != found[3]).any():
            raise MeshError(f"ring {number} is no triangle of four points, of which the last is the first.")
        corners.append(np.pad(found[:3], ((0, 0), (0, 3 - found.shape[-1]))))
    points, number = np.unique(np.concatenate(corners), axis=0, return_inverse=True)
    return RawMesh(points, [RawBlock("triangle", number.reshape(-1, 3))])
