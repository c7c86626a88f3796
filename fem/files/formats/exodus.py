"""Exodus II files: blocks, node sets and side sets with their names, and the data of the last time.

Read here with netCDF4 rather than by meshio, which knows no side sets, no names of blocks, and no second time. Sides
are numbered as in the Exodus II manual (Sandia report SAND92-2137), Table "Side set side ordering".
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from fem.errors import MeshError
from fem.files.formats.netcdf import check_head
from fem.files.raw import RawBlock, RawMesh
from fem.files.references import PACKED

STRAIGHT = {
    "SPH": "vertex",
    "CIR": "vertex",
    "NOD": "vertex",
    "BAR": "line",
    "BEA": "line",
    "TRU": "line",
    "EDG": "line",
    "ROD": "line",
    "TRI": "triangle",
    "QUA": "quad",
    "SHE": "quad",
    "TET": "tetra",
    "HEX": "hexahedron",
    "WED": "wedge",
    "PYR": "pyramid",
}
VERTICES = {"vertex": 1, "line": 2, "triangle": 3, "quad": 4, "tetra": 4, "pyramid": 5, "wedge": 6, "hexahedron": 8}
SIDES = {
    "line": ((0,), (1,)),
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 1, 3), (1, 2, 3), (0, 3, 2), (0, 2, 1)),
    "pyramid": ((0, 1, 4), (1, 2, 4), (2, 3, 4), (0, 4, 3), (0, 3, 2, 1)),
    "wedge": ((0, 1, 4, 3), (1, 2, 5, 4), (0, 3, 5, 2), (0, 2, 1), (3, 4, 5)),
    "hexahedron": ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (0, 4, 7, 3), (0, 3, 2, 1), (4, 5, 6, 7)),
}
# Where the nodes of VTK's order stand in that of Exodus, if it is another.
HEXAHEDRON = (*range(12), *range(16, 20), *range(12, 16), 23, 24, 25, 26, 21, 22, 20)
ORDER = {"hexahedron20": HEXAHEDRON[:20], "hexahedron27": HEXAHEDRON, "wedge15": (*range(9), 12, 13, 14, 9, 10, 11)}


def read_exodus(path: Path) -> RawMesh:
    """Blocks as cell sets, node sets as point sets, side sets as facets; numbers stand for names where there are none.

    Raises:
        MeshError: elements or sides that are unknown, or that the file has not.
    """
    import netCDF4

    data = path.read_bytes()
    if data[:3] == b"CDF":
        check_head(data)
    try:
        with netCDF4.Dataset(str(path)) as file:
            file.set_auto_mask(False)
            packed = PACKED if file.data_model.startswith("NETCDF4") else 1
            for name, variable in file.variables.items():
                if variable.size * np.dtype(variable.dtype).itemsize > packed * len(data):
                    raise MeshError(f"the variable {name!r} announces {variable.size} numbers, more than there can be.")
            return File(file).contents()
    except MeshError:
        raise
    except Exception as error:  # a damaged file may end in anything
        raise MeshError(f"it is damaged or no Exodus file ({' '.join(str(error).split())[:80]}).") from error


class File:
    """An open file."""

    def __init__(self, file: Any):
        self.variables = dict(file.variables)
        self.as_vtk = str(getattr(file, "title", "")).startswith("Created by meshio")
        self.left_out: list[str] = []

    def array(self, name: str) -> np.ndarray:
        """All of a variable."""
        return np.asarray(self.variables[name][:])

    def indexed(self, prefix: str) -> list[int]:
        """The numbers i of the variables `prefix`i, in ascending order."""
        found = (re.fullmatch(rf"{prefix}(\d+)", name) for name in self.variables)
        return sorted(int(match[1]) for match in found if match)

    def strings(self, name: str) -> list[str]:
        """Names, empty where there are none."""
        rows = self.array(name) if name in self.variables else np.empty((0, 0), dtype="S1")
        return [b"".join(row.tolist()).split(b"\0")[0].decode("utf-8", "replace").strip() for row in rows]

    def named(self, what: str, numbers: list[int]) -> list[str]:
        """The names of blocks (eb), node sets (ns) or side sets (ss), else their own numbers."""
        names = self.strings(f"{what}_names")
        own = self.array(f"{what}_prop1").tolist() if f"{what}_prop1" in self.variables else []
        return [(names[i - 1] if i <= len(names) else "") or str(own[i - 1] if i <= len(own) else i) for i in numbers]

    def contents(self) -> RawMesh:
        blocks = self.indexed("connect")
        cells, shells = [], []
        for i in blocks:
            variable = self.variables[f"connect{i}"]
            kind = str(getattr(variable, "elem_type", "")).upper()
            name = self.kind(kind, variable.shape[1])
            rows = np.asarray(variable[:], dtype=np.int64) - 1
            cells.append(RawBlock(name, rows if self.as_vtk or name not in ORDER else rows[:, ORDER[name]]))
            shells.append("SHE" in kind)
        contents = RawMesh(self.points(), cells, left_out=self.left_out)
        nothing = np.empty(0, dtype=np.int64)
        for k, name in enumerate(self.named("eb", blocks)):
            sets = contents.cell_sets.setdefault(name, [nothing] * len(cells))
            sets[k] = np.arange(len(cells[k].data))
        numbers = self.indexed("node_ns")
        for i, name in zip(numbers, self.named("ns", numbers), strict=True):
            chosen = self.array(f"node_ns{i}").astype(np.int64).ravel() - 1
            contents.point_sets[name] = np.union1d(contents.point_sets.get(name, nothing), chosen)
        numbers = self.indexed("elem_ss")
        for i, name in zip(numbers, self.named("ss", numbers), strict=True):
            self.add_sides(contents, shells, name, self.array(f"elem_ss{i}") - 1, self.array(f"side_ss{i}"))
        self.add_data(contents, blocks)
        return contents

    def kind(self, element: str, size: int) -> str:
        """What meshio calls elements of a type with so many nodes."""
        straight = STRAIGHT.get(element[:3])
        if straight is None:
            raise MeshError(f"elements of type {element or 'without a name'} are not supported.")
        straight = "triangle" if element.startswith("SHE") and size in (3, 6) else straight
        return straight if size == VERTICES[straight] else f"{straight}{size}"

    def points(self) -> np.ndarray:
        if "coord" in self.variables:
            return self.array("coord").astype(float).T
        return np.stack([self.array(f"coord{x}").astype(float) for x in "xyz" if f"coord{x}" in self.variables], 1)

    def add_sides(
        self, contents: RawMesh, shells: list[bool], name: str, elements: np.ndarray, side: np.ndarray
    ) -> None:
        """One side set: the facets, and the shells that are named by one of their two faces."""
        ends = np.cumsum([len(block.data) for block in contents.cells])
        if len(elements) and not (elements.min() >= 0 and elements.max() < ends[-1]):
            raise MeshError(f"the side set {name!r} names an element that the file has not.")
        facets = contents.side_sets.setdefault(name, [])
        for k, block in enumerate(contents.cells):
            inside = (elements < ends[k]) & (elements >= ends[k] - len(block.data))
            rows, local = elements[inside] - (ends[k] - len(block.data)), side[inside].astype(np.int64) - 1
            straight = block.type.rstrip("0123456789")
            known = SIDES.get(straight, ())
            if straight == "triangle" and len(local) and not shells[k] and contents.points.shape[1] == 3:
                # Triangles in space have two faces before their edges; files for the plane count edges from the first.
                shells[k] = bool(local.max() > 2) or bool(np.ptp(contents.points[:, 2]) > 0)
            if shells[k] and (local < 2).any():
                sets = contents.cell_sets.setdefault(name, [np.empty(0, dtype=np.int64)] * len(contents.cells))
                sets[k] = np.union1d(sets[k], rows[local < 2])
                rows, local = rows[local >= 2], local[local >= 2]
            local = local - 2 if shells[k] else local
            if len(local) and not (local.min() >= 0 and local.max() < len(known)):
                raise MeshError(f"the side set {name!r} names side {local.max() + 1} of a {straight}.")
            for j, corners in enumerate(known):
                if (local == j).any():
                    facets.append(block.data[rows[local == j]][:, list(corners)])
        if not facets:
            del contents.side_sets[name]

    def add_data(self, contents: RawMesh, blocks: list[int]) -> None:
        """Data at nodes and in cells at the last time; cells of blocks without it have NaN."""
        at_nodes: dict[str, np.ndarray] = {}
        for i, name in enumerate(self.strings("name_nod_var"), 1):
            if f"vals_nod_var{i}" in self.variables:
                steps = self.variables[f"vals_nod_var{i}"]
            elif "vals_nod_var" in self.variables:
                steps = self.array("vals_nod_var")[:, i - 1]
            else:
                continue
            if len(steps):
                at_nodes[name] = np.asarray(steps[-1])
        contents.point_data.update(joined(at_nodes))
        ends = np.cumsum([len(block.data) for block in contents.cells])[:-1]
        in_cells = {}
        for i, name in enumerate(self.strings("name_elem_var"), 1):
            parts = []
            for block, number in zip(contents.cells, blocks, strict=True):
                steps = self.variables.get(f"vals_elem_var{i}eb{number}", ())
                parts.append(np.asarray(steps[-1]) if len(steps) else np.full(len(block.data), np.nan))
            in_cells[name] = np.concatenate(parts)
        contents.cell_data.update({name: np.split(values, ends) for name, values in joined(in_cells).items()})


def joined(scalars: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Data by name, those called `u_x`, `u_y` (and `u_z`) or `uX`, `uY`, … as columns of one vector `u`."""
    found, done = {}, set()
    for name, values in scalars.items():
        names = [name[:-1] + letter for letter in ("xyz" if name.endswith("x") else "XYZ")]
        names = [other for other in names if other in scalars]
        if name in done:
            continue
        if name[-1:] in ("x", "X") and len(name) > 1 and len(names) > 1:
            found[name[:-1].rstrip("_") or name] = np.stack([scalars[other] for other in names], 1)
            done.update(names)
        else:
            found[name] = values
    return found
