"""FLAC3D grids, as text or binary: gridpoints, zones and faces with numbers of their own, and groups of both in slots.

Read here rather than by meshio, which puts groups of zones on other zones where there are faces.
"""

import re
import struct

import numpy as np

from fem.errors import MeshError
from fem.files.raw import RawBlock, RawMesh

# By the number of nodes, of zones and of faces: kind of meshio, and where the nodes of VTK's order stand.
KINDS = {
    ("Z", 4): ("tetra", (0, 1, 2, 3)),
    ("Z", 5): ("pyramid", (0, 1, 4, 2, 3)),
    ("Z", 6): ("wedge", (0, 1, 3, 2, 4, 5)),
    ("Z", 8): ("hexahedron", (0, 1, 4, 2, 3, 6, 7, 5)),
    ("F", 3): ("triangle", (0, 1, 2)),
    ("F", 4): ("quad", (0, 1, 2, 3)),
}
Cells = dict[tuple[str, int], list[tuple[int, ...]]]  # rows of a number and nodes, by zone or face and their count


def read_flac3d(data: bytes) -> RawMesh:
    """The contents of a file; a group in another slot than the first is called `name:slot`.

    Raises:
        MeshError: with the line or the byte where the file stops making sense.
    """
    reader = Grid()
    try:
        if b"\0" in data[:8]:
            reader.binary(data)
        else:
            reader.text(data.decode("utf-8", "replace").splitlines())
    except (struct.error, OverflowError) as error:
        raise MeshError(f"it is cut off, or a count is too large ({error}).") from None
    return reader.contents()


class Grid:
    """What has been read so far."""

    def __init__(self) -> None:
        self.points: dict[int, tuple[float, ...]] = {}
        self.cells: Cells = {}
        self.groups: list[tuple[str, str, list[int]]] = []  # zones or faces, name, their numbers

    def text(self, lines: list[str]) -> None:
        group: list[int] | None = None
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("*"):
                continue
            heading = re.fullmatch(r"""\s*([ZF])GROUP\s+(?:"(.*?)"|'(.*?)'|(\S+))(?:\s+SLOT\s+(\S+))?\s*""", line)
            try:
                if heading is not None:
                    group = []
                    name = next(found for found in heading.groups()[1:4] if found is not None)
                    self.groups.append((heading[1], named(name, heading[5] or ""), group))
                elif words[0] == "G":
                    group = None
                    self.add_point(int(words[1]), tuple(float(word) for word in words[2:]))
                elif words[0] in ("Z", "F"):
                    group = None
                    self.add_cell(words[0], int(words[2]), tuple(int(word) for word in words[3:]))
                elif group is not None:
                    group.extend(int(word) for word in words)
                else:
                    raise ValueError
            except (ValueError, IndexError, MeshError) as error:
                what = str(error) if isinstance(error, MeshError) else f"{line.strip()[:60]!r} makes no sense there."
                raise MeshError(f"line {number}: {what}") from None

    def binary(self, data: bytes) -> None:
        at = 8

        def take(form: str) -> tuple:
            nonlocal at
            found = struct.unpack_from("<" + form, data, at)
            at += struct.calcsize("<" + form)
            return found

        for _ in range(take("I")[0]):
            number, *x = take("I3d")
            self.add_point(number, tuple(x))
        for kind in "ZF":
            for _ in range(take("I")[0]):
                number, count = take("2I")
                self.add_cell(kind, number, take(f"{min(count, 9)}I"))
            for _ in range(take("I")[0]):
                name, slot = (take(f"{take('H')[0]}s")[0].decode("utf-8", "replace") for _ in range(2))
                count = take("I")[0]
                if 4 * count > len(data):
                    raise MeshError(f"byte {at}: a group of {count} in a file of {len(data)} bytes.")
                self.groups.append((kind, named(name, slot), list(take(f"{count}I"))))

    def add_point(self, number: int, x: tuple[float, ...]) -> None:
        if len(x) != 3 or number in self.points:
            raise MeshError(f"gridpoint {number} needs three coordinates, and comes once.")
        self.points[number] = x

    def add_cell(self, kind: str, number: int, nodes: tuple[int, ...]) -> None:
        if (kind, len(nodes)) not in KINDS:
            raise MeshError(
                f"zones with {len(nodes)} nodes are not supported." if kind == "Z" else "a face has 3 or 4."
            )
        self.cells.setdefault((kind, len(nodes)), []).append((number, *nodes))

    def contents(self) -> RawMesh:
        """All of it, by place instead of by number."""
        place = {number: i for i, number in enumerate(self.points)}
        blocks, owners = [], {}
        for key, rows in self.cells.items():
            kind, order = KINDS[key]
            wrong = next((n for row in rows for n in row[1:] if n not in place), None)
            if wrong is not None:
                raise MeshError(f"a {kind} names gridpoint {wrong}, which is not listed.")
            nodes = np.array([[place[n] for n in row[1:]] for row in rows])
            for i, row in enumerate(rows):
                if (key[0], row[0]) in owners:
                    raise MeshError(f"{'zone' if key[0] == 'Z' else 'face'} {row[0]} is listed twice.")
                owners[key[0], row[0]] = len(blocks), i
            blocks.append(RawBlock(kind, nodes[:, list(order)]))
        contents = RawMesh(np.array(list(self.points.values())).reshape(-1, 3), blocks)
        for kind, name, numbers in self.groups:
            sets: list[list[int]] = [[] for _ in blocks]
            for number in numbers:
                if (kind, number) not in owners:
                    raise MeshError(
                        f"the group {name!r} names {'zone' if kind == 'Z' else 'face'} {number}: not listed."
                    )
                block, row = owners[kind, number]
                sets[block].append(row)
            before = contents.cell_sets.get(name, [np.empty(0, dtype=np.int64)] * len(blocks))
            contents.cell_sets[name] = [
                np.union1d(a, np.array(b, dtype=np.int64)) for a, b in zip(before, sets, strict=True)
            ]
        return contents


def named(name: str, slot: str) -> str:
    """A group by name, with its slot where that is not the first."""
    return name if slot in ("", "1", "Default") else f"{name}:{slot}"
