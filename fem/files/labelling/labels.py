"""Labels in files (groups, sets, families, numbers of materials) as tags of facets, cells and nodes.

Names stay names. What a file only numbers goes by its number, "3", where one array of numbers leads, the first in
`MARKERS` or the only one; those of other arrays are `key=3`. Groups of points, and in space of curves, become tags of
nodes; where they have no name they are `point 3`, `curve 3` and `node set 3`, since the same number may mean something
else for facets, and numbers at points are `key=3` always.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fem.errors import MeshError
from fem.files.labelling.scikit_fem import decoded, is_name
from fem.reference.cells import Cell

# Cell data that numbers materials or boundary parts, as the common programs call it, in small letters alone.
MARKERS = (
    *("gmshphysical", "meditref", "celltags", "material", "attribute", "region", "subdomain", "netgenindex"),
    *("avsucdmaterial", "tetgenref", "nastranref", "ugridref", "cellentity", "objgroup", "gmshgeometrical"),
)
KEPT = ("cell_ids", "gmsh:dim_tags", "su2:tag")  # what meshio keeps for itself, or is here by name
Groups = dict[str, list[np.ndarray]]  # cells by name, block by block


@dataclass
class Labels:
    """Facets as nodes "f v" at their vertices, padded with −1, cells and nodes by number.

    `sets` are the tags of nodes that the file has as sets of nodes; `left_out` says what names nothing in the mesh.
    """

    facets: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: dict[str, np.ndarray] = field(default_factory=dict)
    sets: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


def labels(
    contents: Any, blocks: list[tuple[str, np.ndarray]], kinds: list[Cell], order: list[str], number: np.ndarray
) -> Labels:
    """All labels of a file.

    Args:
        blocks: kinds of cells by name and their nodes, −1 for those that the mesh has not.
        order: the kinds of cells of the mesh, which are numbered kind after kind.
        number: the node of the mesh that each point of the file is, or −1.
    """
    dim = max(kind.dim for kind in kinds if kind.name in order)
    left_out: list[str] = list(getattr(contents, "left_out", ()))
    facets: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[np.ndarray]] = {}
    nodes: dict[str, list[np.ndarray]] = {}
    start = starts(blocks, kinds, order)
    for name, chosen in groups(contents, kinds, left_out).items():
        for i, (kind, (_, rows)) in enumerate(zip(kinds, blocks, strict=True)):
            if len(chosen[i]) == 0:
                continue
            if kind.dim == dim:
                cells.setdefault(name, []).append(start[i] + chosen[i])
            elif kind.dim == dim - 1:
                facets.setdefault(name, []).append(rows[chosen[i], : kind.num_vertices])
            else:
                what = ("point", "curve")[kind.dim]
                nodes.setdefault(f"{what} {name}" if name.isdecimal() else name, []).append(rows[chosen[i]].ravel())
    by_bits, in_cells = decoded(contents.cell_data, blocks)
    for name, parts in by_bits.items():
        facets.setdefault(name, []).extend(parts)
    for name, chosen in in_cells.items():
        for i, kind in enumerate(kinds):
            if kind.dim == dim and len(chosen[i]):
                cells.setdefault(name, []).append(start[i] + chosen[i])
    for name, sides in getattr(contents, "side_sets", {}).items():
        if any(len(side) for side in sides):
            facets.setdefault(name, []).extend(number[within(side, len(number), name)] for side in sides)
    found = Labels(left_out=left_out)
    for name, points in point_sets(contents):
        nodes.setdefault(name, []).append(number[within(points, len(number), name)])
        found.sets.add(name)
    for name, points in point_numbers(contents, left_out):
        nodes.setdefault(name, []).append(number[points])
    for name, parts in nodes.items():
        known = np.unique(np.concatenate(parts))
        found.nodes[name] = known[known >= 0]
        if len(parts) and len(found.nodes[name]) == 0:
            del found.nodes[name]
            left_out.append(f"{name!r}, whose nodes belong to no cell")
    for name, parts in facets.items():
        width = max(part.shape[1] for part in parts)
        padded = [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=-1) for p in parts]
        found.facets[name] = np.concatenate(padded)
    found.cells = {name: np.unique(np.concatenate(parts)) for name, parts in cells.items()}
    return found


def within(chosen: np.ndarray, count: int, name: str) -> np.ndarray:
    """Indices of points or cells, if there are so many.

    Raises:
        MeshError: there are not.
    """
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
        wrong = chosen.max() if chosen.max() >= count else chosen.min()
        raise MeshError(f"the group {name!r} names point or cell {wrong}, counted from 0, but there are {count}.")
    return chosen


def starts(blocks: list[tuple[str, np.ndarray]], kinds: list[Cell], order: list[str]) -> list[int]:
    """The number in the mesh of the first cell of each block."""
    next_one, found = {}, []
    count = 0
    for name in order:
        next_one[name] = count
        count += sum(len(rows) for kind, (_, rows) in zip(kinds, blocks, strict=True) if kind.name == name)
    for kind, (_, rows) in zip(kinds, blocks, strict=True):
        found.append(next_one.get(kind.name, 0))
        next_one[kind.name] = found[-1] + len(rows)
    return found


def groups(contents: Any, kinds: list[Cell], left_out: list[str]) -> Groups:
    """Sets and numbers of cells by name, block by block."""
    found: Groups = {}

    def add(name: str, block: int, chosen: Any) -> None:
        own = found.setdefault(name, [np.empty(0, dtype=np.int64) for _ in kinds])
        chosen = within(np.asarray(chosen, dtype=np.int64), len(contents.cells[block].data), name)
        own[block] = np.union1d(own[block], chosen)

    for name, chosen in contents.cell_sets.items():
        if not name.startswith("gmsh:"):
            for i, own in enumerate(chosen):
                if own is not None and len(own):
                    add(name, i, own)
    names = {
        (int(v[1]), int(v[0])): name
        for name, v in contents.field_data.items()
        if np.size(v) == 2 and np.asarray(v).dtype.kind in "iuf"
    }
    arrays = dict(numbers({k: v for k, v in contents.cell_data.items() if not is_name(k)}, left_out))
    if "gmsh:physical" in arrays or any(not name.startswith("gmsh:") for name in contents.cell_sets):
        arrays.pop("gmsh:geometrical", None)  # physical groups are made of these
    leading = leader(arrays)
    for key, blocks in arrays.items():
        for i, values in enumerate(blocks):
            for value, chosen in grouped(values):
                if value == 0 and key.startswith("gmsh:"):
                    continue  # no group
                name = names.get((kinds[i].dim, value), str(value)) if key == leading else f"{key}={value}"
                if name not in contents.cell_sets:
                    add(name, i, chosen)
    return found


def point_sets(contents: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Sets of points by name."""
    for name, chosen in contents.point_sets.items():
        if len(chosen):
            yield f"node set {name}" if name.isdecimal() else name, np.asarray(chosen, dtype=np.int64)


def point_numbers(contents: Any, left_out: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Points by the numbers that data give them: integers, or floating-point numbers where the name says labels."""
    data = {
        key: [np.asarray(values)]
        for key, values in contents.point_data.items()
        if np.asarray(values).dtype.kind in "iu" or simple(key) in MARKERS
    }
    for key, (values,) in numbers(data, left_out):
        for value, chosen in grouped(values):
            if value or simple(key) not in MARKERS:
                yield f"{key}={value}", chosen


def numbers(data: dict[str, list], left_out: list[str]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Those arrays that hold nothing but whole numbers, fewer than there are cells or points; NaN is none."""
    for key, blocks in data.items():
        parts = [np.asarray(values).reshape(len(values), np.size(values) // max(len(values), 1)) for values in blocks]
        if key in KEPT or not parts or any(part.dtype.kind not in "biuf" for part in parts):
            continue
        whole = all(part.dtype.kind != "f" for part in parts)
        if any(part.shape[1] != 1 and len(part) for part in parts):
            if whole:
                left_out.append(f"{key!r}, which has several numbers in one place")
            continue
        flat = np.concatenate([part.ravel() for part in parts])
        known = flat[~np.isnan(flat)] if flat.dtype.kind == "f" else flat
        if len(known) == 0 or not (np.abs(known.astype(float)) < 2**53).all() or (known != np.round(known)).any():
            continue
        different = len(np.unique(known))
        if different > 64 and different > len(known) / 2:
            if whole:
                left_out.append(f"{key!r}, which numbers {len(known)} places instead of naming some")
            continue
        yield key, [part.ravel() for part in parts]


def leader(arrays: dict[str, list[np.ndarray]]) -> str | None:
    """The array whose numbers need no further name: the first in `MARKERS`, or the only one of integers."""
    for marker in MARKERS:
        for key in arrays:
            if simple(key) == marker:
                return key
    whole = [key for key, parts in arrays.items() if all(part.dtype.kind != "f" for part in parts)]
    return whole[0] if len(whole) == 1 else None


def simple(key: str) -> str:
    """The name of an array in small letters, without signs and "id" or "ids" at its end."""
    return re.sub(r"ids?$", "", re.sub("[^a-z0-9]", "", key.lower()))


def grouped(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each number that occurs, and where."""
    order = np.argsort(values, kind="stable")
    known = order[~np.isnan(values[order])] if values.dtype.kind == "f" else order
    different, first = np.unique(values[known], return_index=True)
    for value, chosen in zip(different, np.split(known, first[1:]), strict=False):
        yield int(value), np.sort(chosen)
