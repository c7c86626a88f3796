"""Bulk data of Nastran: cards of fields, separated by commas or of 8 or 16 characters each (Quick Reference Guide).

Read here rather than by meshio, which wants a line BEGIN BULK, that not all programs write, and takes points in a
coordinate system of their own for points in the common one.
"""

import difflib
import re
from collections.abc import Iterator

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import whole_numbers
from fem.files.raw import RawBlock, RawMesh

# Kind of meshio by the number of nodes; more fields may follow those of the nodes on plates and lines.
LINE, TRIANGLE, QUAD, PYRAMID = {2: "line"}, {3: "triangle"}, {4: "quad"}, {5: "pyramid", 13: "pyramid13"}
CELLS = {
    "CROD": LINE,
    "CTUBE": LINE,
    "CBAR": LINE,
    "CBEAM": LINE,
    "CTRIA3": TRIANGLE,
    "CTRIAR": TRIANGLE,
    "CQUAD4": QUAD,
    "CQUADR": QUAD,
    "CSHEAR": QUAD,
    "CTRIA6": {6: "triangle6"},
    "CQUAD8": {8: "quad8"},
    "CQUAD": {9: "quad9"},
    "CQUAD9": {9: "quad9"},
    "CTETRA": {4: "tetra", 10: "tetra10"},
    "CHEXA": {8: "hexahedron", 20: "hexahedron20"},
    "CPENTA": {6: "wedge", 15: "wedge15"},
    "CPYRAM": PYRAMID,
    "CPYRA": PYRAMID,
}
SOLIDS = ("CTETRA", "CHEXA", "CPENTA", "CPYRAM", "CPYRA")
HEXAHEDRON = [*range(12), *range(16, 20), *range(12, 16)]  # Nastran has the edges in the middle before those at the top
# Cards that begin like those of cells and are none: springs, masses, loads, ….
OTHER_CARDS = (
    *("CONM", "CELAS", "CBUSH", "CDAMP", "CMASS", "CGAP", "CVISC", "CWELD", "CFAST", "CSEAM"),
    *("CAERO", "CHBDY", "CREEP", "CYAX", "CYJOIN", "CSUPER"),
)
Card = tuple[int, str, list[str]]  # line, name, fields


def read_nastran(data: bytes) -> RawMesh:
    """The contents of a file; numbers of properties are cell data "nastran:ref", those in field CP data of points.

    Raises:
        MeshError: with the line where the file stops making sense.
    """
    points: dict[int, list[float]] = {}
    refs, systems, left_out = [], set(), []
    rows: dict[str, list[tuple[int, list[int]]]] = {}
    numbers: set[int] = set()
    for line, name, fields in cards(data.decode("utf-8", "replace").splitlines()):
        if name == "GRID":
            number = integer(line, name, fields, 0)
            if number in points:
                raise MeshError(f"line {line}: GRID {number} is listed twice.")
            points[number] = [real(line, text) for text in [*fields[2:5], "", "", ""][:3]]
            refs.append(integer(line, name, fields, 1, 0))
        elif name in CELLS:
            number, ref = integer(line, name, fields, 0), integer(line, name, fields, 1, 0)
            if number in numbers:
                raise MeshError(f"line {line}: element {number} is listed twice.")
            numbers.add(number)
            sizes = CELLS[name]
            given = len([text for text in fields[2:] if text])
            size = given if name in SOLIDS else max(sizes)
            if size not in sizes:
                raise MeshError(f"line {line}: {name} with {given} nodes; it has {' or '.join(map(str, sizes))}.")
            nodes = [integer(line, name, fields, 2 + i) for i in range(size)]
            rows.setdefault(sizes[size], []).append((ref, nodes))
        elif name == "INCLUDE":
            raise MeshError(f"line {line}: it includes another file; put its contents into this one.")
        elif name.startswith("CORD"):
            systems.add(integer(line, name, fields, 0))
        elif close := difflib.get_close_matches(name[:8], [*CELLS, "GRID"], 1, 0.7):
            raise MeshError(f"line {line}: no card {name} is known; {close[0]} may be meant.")
        elif name.startswith("C") and not name.startswith(OTHER_CARDS):
            left_out.append(f"cards {name} (line {line})")
    if not points:
        raise MeshError("it has no card GRID.")
    if systems & set(refs):
        system = min(systems & set(refs))
        raise MeshError(f"points are given in the coordinate system {system}; write them in the basic one.")
    place = {number: i for i, number in enumerate(points)}
    blocks = []
    for kind, cells in rows.items():
        wrong = [node for _, nodes in cells for node in nodes if node not in place]
        if wrong:
            raise MeshError(f"an element names node {wrong[0]}, which is not listed.")
        nodes = np.array([[place[node] for node in nodes] for _, nodes in cells])
        blocks.append(RawBlock(kind, nodes[:, HEXAHEDRON] if kind == "hexahedron20" else nodes))
    cell_refs = [np.array([ref for ref, _ in cells]) for cells in rows.values()]
    return RawMesh(
        np.array(list(points.values())),
        blocks,
        {"nastran:ref": np.array(refs)} if any(refs) else {},
        {"nastran:ref": cell_refs} if any(ref.any() for ref in cell_refs) else {},
        left_out=left_out,
    )


def cards(lines: list[str]) -> Iterator[Card]:
    """The cards of the bulk data; what continues a card is part of it."""
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*BEGIN\s+BULK", line, re.IGNORECASE)]
    card: Card | None = None
    for number, line in enumerate(lines[starts[0] + 1 if starts else 0 :], starts[0] + 2 if starts else 1):
        line = line.partition("$")[0].rstrip().expandtabs(8)
        if not line or line.startswith(("//", "#")):
            continue
        if line[:12].strip().upper().startswith("ENDDATA"):
            if card is not None:
                yield card
            if any(rest.strip() and not rest.startswith("$") for rest in lines[number:]):
                raise MeshError(f"line {number + 1}: more follows after ENDDATA.")
            return
        first, *fields = split(line)
        if card is not None and (not first or first[0] in "+*"):
            card[2].extend(fields)
            continue
        if card is not None:
            yield card
        name = first.rstrip("*").upper()
        if not (name.isalnum() and name[0].isalpha() and name.isascii()):
            raise MeshError(f"line {number}: expected the name of a card; found {first[:20]!r}.")
        card = number, name, fields
    if starts:
        raise MeshError("the file ends without ENDDATA; it is cut off.")
    if card is not None:
        yield card


def split(line: str) -> list[str]:
    """The fields of a line: its name or mark of continuation first, without the mark at its end."""
    if "," in line:
        words = [word.strip() for word in line.split(",")]
        return words[:9] + [""] * (9 - len(words))
    if line.upper().startswith("INCLUDE"):
        return ["INCLUDE"]
    width, count = (16, 4) if "*" in line[:8] else (8, 8)
    return [line[:8].strip(), *(line[8 + i * width : 8 + (i + 1) * width].strip() for i in range(count))]


def integer(line: int, name: str, fields: list[str], index: int, default: int | None = None) -> int:
    """A field of a card as a number."""
    text = fields[index] if index < len(fields) else ""
    if not text and default is not None:
        return default
    try:
        return whole_numbers([text])[0]
    except ValueError:
        raise MeshError(f"line {line}: field {index + 2} of {name} should be an integer; found {text!r}.") from None


def real(line: int, text: str) -> float:
    """A number, whose exponent may have no letter: 1.5-3 is 0.0015."""
    found = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:[EeDd]?([-+]?\d{1,4}))?", text or "0.0")
    if found is None:
        raise MeshError(f"line {line}: a coordinate should be a number; found {text!r}.")
    return float(f"{found[1]}e{found[2] or 0}")
