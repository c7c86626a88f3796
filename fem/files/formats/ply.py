"""PLY files, text or binary: a header that describes elements, the vertices and faces among them.

Read here rather than by meshio, which believes every count and takes unsigned bytes for signed ones.
"""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.raw import RawBlock, RawMesh

NAMES = """
    char i1, uchar u1, short i2, ushort u2, int i4, uint u4, float f4, double f8,
    int8 i1, uint8 u1, int16 i2, uint16 u2, int32 i4, uint32 u4, int64 i8, uint64 u8, float32 f4, float64 f8
"""
TYPES = dict(re.findall(r"(\w+) (\w+)", NAMES))
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
KINDS = {2: "line", 3: "triangle", 4: "quad"}
Property = tuple[str, str, str]  # name, type, type of the length of a list or nothing


def read_ply(data: bytes) -> RawMesh:
    """The contents of a file: points, faces of three or four, and their other properties.

    Raises:
        MeshError: with the line of the header, or the element whose data are not there.
    """
    found = re.match(rb"ply\s*\n(.*?)\nend_header[ \t\r]*\n", data, re.DOTALL)
    if found is None:
        raise MeshError("a PLY file begins with a line 'ply' and a header up to 'end_header'.")
    order, elements = header(found[1].decode("utf-8", "replace").splitlines())
    body: Body = Body(data, found.end(), order)
    columns = {name: body.element(name, count, properties) for name, count, properties in elements}
    if data[body.at :].strip():
        raise MeshError(f"{len(data) - body.at} bytes follow after as many elements as the header announces.")
    vertices, faces = columns.get("vertex", {}), columns.get("face", {})
    if not all(axis in vertices for axis in "xyz"):
        raise MeshError("it has no vertices with x, y and z.")
    points = np.array([vertices.pop(axis) for axis in "xyz"], dtype=float).T
    corners = next((faces.pop(name) for name in ("vertex_indices", "vertex_index") if name in faces), [])
    sizes = np.array([len(row) for row in corners], dtype=np.int64)
    wrong = [size for size in set(sizes.tolist()) if size not in KINDS]
    if wrong:
        raise MeshError(f"face {int(np.argmax(sizes == wrong[0]))} has {wrong[0]} vertices; it may have 2, 3 or 4.")
    chosen = {size: np.flatnonzero(sizes == size) for size in KINDS if (sizes == size).any()}
    blocks = [RawBlock(KINDS[size], np.array([corners[i] for i in rows])) for size, rows in chosen.items()]
    numbers = {name: np.array(v) for name, v in faces.items() if not isinstance(v[0] if len(v) else 0, list)}
    return RawMesh(
        points,
        blocks,
        {name: np.array(v) for name, v in vertices.items() if not isinstance(v[0] if len(v) else 0, list)},
        {name: [values[rows] for rows in chosen.values()] for name, values in numbers.items()},
    )


def header(lines: list[str]) -> tuple[str, list[tuple[str, int, list[Property]]]]:
    """The order of bytes ("" for text), and each element with its count and properties."""
    order, elements = None, []
    for number, line in enumerate(lines, 2):
        words = line.split()
        match words:
            case [] | ["comment", *_] | ["obj_info", *_]:
                pass
            case ["format", kind, "1.0"] if kind in ORDERS:
                order = ORDERS[kind]
            case ["element", name, count] if re.fullmatch(r"\d{1,18}", count):
                elements.append((name, int(count), []))
            case ["property", kind, name] if kind in TYPES and elements:
                elements[-1][2].append((name, TYPES[kind], ""))
            case ["property", "list", length, kind, name] if length in TYPES and kind in TYPES and elements:
                elements[-1][2].append((name, TYPES[kind], TYPES[length]))
            case _:
                raise MeshError(f"line {number}: expected format, element or property; found {line[:60]!r}.")
    if order is None:
        raise MeshError("its header does not say which format it is of.")
    return order, elements


class Body:
    """The data after the header, and how far they have been read."""

    def __init__(self, data: bytes, at: int, order: str):
        self.data, self.at, self.order = data, at, order

    def element(self, name: str, count: int, properties: list[Property]) -> dict[str, list]:
        """The values of each property, of lists a list each."""
        if count > len(self.data) - self.at:
            raise MeshError(
                f"{count} elements {name!r} are announced, but only {len(self.data) - self.at} bytes follow."
            )
        columns: dict[str, list] = {key: [] for key, *_ in properties}
        for i in range(count):
            try:
                row = self.text(properties) if not self.order else self.binary(properties)
            except (ValueError, IndexError):
                raise MeshError(f"{name} {i} of {count} is cut off, or not what the header describes.") from None
            for key, value in zip(columns, row, strict=True):
                columns[key].append(value)
        return columns

    def text(self, properties: list[Property]) -> list:
        """The next line that is not blank."""
        words: list[str] = []
        while not words and self.at < len(self.data):
            end = self.data.find(b"\n", self.at)
            end = len(self.data) if end < 0 else end
            words, self.at = self.data[self.at : end].decode("utf-8", "replace").split(), end + 1
        row = []
        for _, kind, length in properties:
            cast = float if kind[0] == "f" else int
            size = int(words.pop(0)) if length else 1
            if not 0 <= size <= len(words):
                raise ValueError
            values = [cast(word) for word in words[:size]]
            row.append(values if length else values[0])
            words = words[size:]
        if words:
            raise ValueError
        return row

    def binary(self, properties: list[Property]) -> list:
        """The next record."""
        row = []
        for _, kind, length in properties:
            size = int(self.take(length, 1)[0]) if length else 1
            values = self.take(kind, size).tolist()
            row.append(values if length else values[0])
        return row

    def take(self, kind: str, count: int) -> np.ndarray:
        """So many numbers of one type."""
        dtype = np.dtype(self.order + kind)
        if not 0 <= count * dtype.itemsize <= len(self.data) - self.at:
            raise ValueError
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values
