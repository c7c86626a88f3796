"""Legacy VTK files, text or binary, up to version 5.1 ("VTK File Formats", Simple Legacy Formats)."""

import re
from urllib.parse import unquote

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import Scanner
from fem.files.formats.vtk.cells import grid, raw_mesh
from fem.files.raw import RawMesh

NAMES = """
    unsigned_char u1, char i1, unsigned_short u2, short i2, unsigned_int u4, int i4, unsigned_long u8, long i8,
    float f4, double f8, vtkIdType i4, vtktypeint8 i1, vtktypeint16 i2, vtktypeint32 i4, vtktypeint64 i8,
    vtktypeuint8 u1, vtktypeuint16 u2, vtktypeuint32 u4, vtktypeuint64 u8
"""
TYPES = dict(re.findall(r"(\w+) (\w+)", NAMES))
# Values of one point or cell, where the heading of the data does not say it.
COMPONENTS = {"VECTORS": 3, "NORMALS": 3, "TENSORS": 9, "TENSORS6": 6, "GLOBAL_IDS": 1, "PEDIGREE_IDS": 1}
CELLS_OF = {"VERTICES": 2, "LINES": 4, "POLYGONS": 7, "TRIANGLE_STRIPS": 6}


def read_vtk_legacy(data: bytes) -> RawMesh:
    """The contents of a file.

    Raises:
        MeshError: with the line or the byte where the file stops making sense.
    """
    reader = Reader(data)
    while re.compile(rb"\s*\S").match(data, reader.scanner.at):
        reader.section(reader.scanner.line("a section"))
    return reader.contents()


class Reader:
    """What has been read of a file so far."""

    def __init__(self, data: bytes):
        self.scanner = scanner = Scanner(data, order=">")
        header = re.match(rb"# vtk DataFile Version (\d)\.(\d+)[^\n]*\n[^\n]*\n\s*(ASCII|BINARY)\s*\n", data)
        if header is None:
            raise MeshError(
                "Illegal VTK header: it should begin with '# vtk DataFile Version', a title, and ASCII or BINARY."
            )
        self.version, scanner.binary, scanner.at = int(header[1]), header[3] == b"BINARY", header.end()
        self.dataset, self.shape, self.size = "", [1, 1, 1], 0
        self.geometry: dict[str, np.ndarray] = {}
        self.cells: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self.data: dict[str, dict[str, np.ndarray]] = {"POINT_DATA": {}, "CELL_DATA": {}, "": {}}
        self.of = ""

    def section(self, heading: str) -> None:
        """Reads one section by its heading."""
        scanner, (word, *rest) = self.scanner, heading.split()
        word = word.upper()
        try:
            if word == "DATASET":
                self.dataset = rest[0].upper()
            elif word == "DIMENSIONS":
                self.shape = [int(text) for text in rest]
                if len(self.shape) != 3 or min(self.shape) < 1:
                    raise ValueError
            elif word in ("ORIGIN", "SPACING", "ASPECT_RATIO"):
                self.geometry[word.replace("ASPECT_RATIO", "SPACING")] = np.array(rest, dtype=float).reshape(3)
            elif word == "POINTS":
                self.geometry[word] = self.array(rest[1], 3 * int(rest[0]), "coordinates").reshape(-1, 3)
            elif word in ("X_COORDINATES", "Y_COORDINATES", "Z_COORDINATES"):
                self.geometry[word] = self.array(rest[1], int(rest[0]), "coordinates")
            elif word == "CELLS" or word in CELLS_OF:
                self.cells.append((*self.connectivity(int(rest[0]), int(rest[1])), self.types_of(word, int(rest[0]))))
            elif word == "CELL_TYPES":
                if not self.cells or self.cells[-1][2] is not None:
                    raise MeshError(f"{scanner.place}: types of cells, but no cells before them.")
                self.cells[-1] = *self.cells[-1][:2], self.array("int", int(rest[0]), "types of cells")
            elif word in self.data:
                self.of, self.size = word, int(rest[0])
            elif word == "METADATA":
                end = re.compile(rb"\n[ \t\r]*(\n|$)").search(scanner.data, scanner.at - 1)
                scanner.at = len(scanner.data) if end is None else end.end()
            else:
                self.attribute(word, rest)
        except (ValueError, IndexError, KeyError) as error:
            raise (
                error if isinstance(error, MeshError) else scanner.wrong("a section of this format", heading)
            ) from None

    def types_of(self, word: str, count: int) -> np.ndarray | None:
        count -= self.version >= 5
        return np.full(max(count, 0), CELLS_OF[word]) if word in CELLS_OF else None

    def array(self, name: str, count: int, what: str) -> np.ndarray:
        """So many numbers of a type of VTK's; text runs up to the next line that begins with a letter."""
        scanner = self.scanner
        if name == "bit":
            packed = self.array("unsigned_char", -(-count // 8) if scanner.binary else count, what)
            return np.unpackbits(packed)[:count] if scanner.binary else packed
        dtype = np.dtype(TYPES[name if name in TYPES else name.lower()]).newbyteorder(">" if scanner.binary else "=")
        scanner.enough(count * dtype.itemsize if scanner.binary else 2 * count - 1, count, what)
        start = scanner.at
        if scanner.binary:
            scanner.at += count * dtype.itemsize
            return np.frombuffer(scanner.data, dtype, count, start)
        end = re.compile(rb"\n[ \t]*(?!nan|inf)[a-z]", re.IGNORECASE).search(scanner.data, max(start - 1, 0))
        scanner.at = len(scanner.data) if end is None else end.start() + 1
        words = scanner.data[start : scanner.at].split()
        if len(words) != count:
            first = scanner.data.count(b"\n", 0, start) + 1
            raise MeshError(f"line {first}: {count} numbers are announced, {what}, but {len(words)} follow.")
        try:
            return (
                np.array(words, dtype="S").astype(dtype)
                if dtype.kind == "f"
                else np.array(list(map(int, words)), dtype)
            )
        except (ValueError, OverflowError):
            first = scanner.data.count(b"\n", 0, start) + 1
            raise MeshError(f"line {first} and after: {what} should be numbers of the type {name}.") from None

    def connectivity(self, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of all cells, and where each cell ends."""
        scanner = self.scanner
        if self.version >= 5:
            parts = []
            for word, length in (("OFFSETS", count), ("CONNECTIVITY", size)):
                heading = scanner.line(word)
                found = re.fullmatch(rf"{word}\s+(\w+)", heading)
                if found is None:
                    raise scanner.wrong(f"{word} and a type", heading)
                parts.append(self.array(found[1], length, word.lower()).astype(np.int64))
            if count and parts[0][0] != 0:
                raise MeshError(f"{scanner.place}: the first offset is {parts[0][0]} instead of 0.")
            return parts[1], parts[0][1:]
        numbers, starts, at = self.array("int", size, "nodes of cells").astype(np.int64), [], 0
        for _ in range(count):
            if not at < size or not 0 <= numbers[at] < size - at:
                raise MeshError(f"{scanner.place}: cell {len(starts)} of {count} needs more nodes than follow.")
            starts.append(at)
            at += 1 + int(numbers[at])
        if at != size:
            raise MeshError(f"{scanner.place}: {count} cells take {at} numbers, but {size} are announced.")
        index = np.array(starts, dtype=np.int64)
        return np.delete(numbers, index), np.cumsum(numbers[index])

    def attribute(self, word: str, rest: list[str]) -> None:
        """Data of points, cells or of the whole, by name."""
        scanner, store, count = self.scanner, self.data[self.of], self.size
        if word == "FIELD":
            for _ in range(int(rest[1])):
                heading = scanner.line("an array").split()
                name, components, rows, kind = heading
                if kind == "string":
                    raise MeshError(f"{scanner.place}: the array {name!r} is of texts; leave it out.")
                values = self.array(kind, int(components) * int(rows), f"values of {name!r}")
                if self.of:
                    store[unquote(name)] = values.reshape(int(rows), int(components))
                if re.compile(rb"\s*METADATA").match(scanner.data, scanner.at):
                    self.section(scanner.line("METADATA"))
        elif word == "LOOKUP_TABLE":
            self.array("unsigned_char" if scanner.binary else "float", 4 * int(rest[1]), "colours")
        elif word == "SCALARS":
            components = int(rest[2]) if len(rest) > 2 else 1
            if re.compile(rb"\s*LOOKUP_TABLE\s").match(scanner.data, scanner.at):
                scanner.line("LOOKUP_TABLE")
            store[unquote(rest[0])] = self.array(rest[1], components * count, "scalars").reshape(count, components)
        elif word == "COLOR_SCALARS":
            kind, components = "unsigned_char" if scanner.binary else "float", int(rest[1])
            store[unquote(rest[0])] = self.array(kind, components * count, "colours").reshape(count, components)
        elif word == "TEXTURE_COORDINATES":
            components = int(rest[1])
            store[unquote(rest[0])] = self.array(rest[2], components * count, word).reshape(count, components)
        else:
            components = COMPONENTS[word]
            store[unquote(rest[0])] = self.array(rest[1], components * count, word).reshape(count, components)

    def contents(self) -> RawMesh:
        """All of it, grids written out."""
        geometry, shape = self.geometry, self.shape
        try:
            if self.dataset == "STRUCTURED_POINTS":
                sides = zip(geometry["ORIGIN"], geometry["SPACING"], shape, strict=True)
                axes = [o + s * np.arange(min(n, 10**7)) for o, s, n in sides]
            elif self.dataset == "RECTILINEAR_GRID":
                axes = [geometry[f"{axis}_COORDINATES"] for axis in "XYZ"]
            elif self.dataset in ("STRUCTURED_GRID", "UNSTRUCTURED_GRID", "POLYDATA"):
                axes = None
            else:
                raise MeshError(f"DATASET {self.dataset} holds no mesh, or is not known here.")
            if axes is None:
                points = geometry["POINTS"]
            else:
                shape = [len(axis) for axis in axes]
                if np.prod(shape, dtype=float) > max(len(self.scanner.data), 1e6):
                    raise MeshError(f"a grid of {' × '.join(map(str, shape))} points without data; make it with `box`.")
                points = np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], 1)
                points = points.reshape(*shape, 3).transpose(2, 1, 0, 3).reshape(-1, 3)
        except KeyError as error:
            raise MeshError(f"it has no section {error.args[0]}.") from None
        if self.dataset in ("UNSTRUCTURED_GRID", "POLYDATA"):
            if any(types is None for *_, types in self.cells):
                raise MeshError("it has no section CELL_TYPES.")
            starts = np.cumsum([0, *(len(nodes) for nodes, *_ in self.cells)])
            shifted = [end + start for start, (_, end, _) in zip(starts, self.cells, strict=False)]
            empty = np.empty(0, dtype=np.int64)
            nodes, ends, types = (
                np.concatenate([empty, *parts])
                for parts in ([c[0] for c in self.cells], shifted, [c[2] for c in self.cells if c[2] is not None])
            )
        elif np.prod(shape, dtype=float) != len(points):
            raise MeshError(f"a grid of {' × '.join(map(str, shape))} points, but there are {len(points)}.")
        else:
            nodes, ends, types = grid(shape)
        points_have, cells_have = (
            {name: values[:, 0] if values.shape[1] == 1 else values for name, values in self.data[of].items()}
            for of in ("POINT_DATA", "CELL_DATA")
        )
        return raw_mesh(points, nodes, ends, types, points_have, cells_have, old=self.version < 5)
