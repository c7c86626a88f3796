"""Formats that are little more than a table of nodes and one of cells: TetGen's pair of files, AVS UCD.

Read here rather than by meshio, which believes every count and stops reading where it says so.
"""

from pathlib import Path

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import Scanner, text_of, whole_numbers, without_comments
from fem.files.raw import RawBlock, RawMesh

# AVS UCD: kind of meshio, and where its nodes stand in the file's.
AVS = {
    "pt": ("vertex", [0]),
    "line": ("line", [0, 1]),
    "tri": ("triangle", [0, 1, 2]),
    "quad": ("quad", [0, 1, 2, 3]),
    "tet": ("tetra", [0, 1, 3, 2]),
    "pyr": ("pyramid", [1, 2, 3, 4, 0]),
    "prism": ("wedge", [3, 4, 5, 0, 1, 2]),
    "hex": ("hexahedron", [4, 5, 6, 7, 0, 1, 2, 3]),
}


def read_tetgen(path: Path) -> RawMesh:
    """TetGen's `.node` and `.ele` files, and `.face` if there is one; numbers of boundaries and regions are data
    "tetgen:ref".

    Raises:
        MeshError: with the line where one of the files stops making sense, or no such file.
    """
    tables = []
    for suffix, least in ((".node", 4), (".ele", 3)):
        part = path.with_suffix(suffix)
        if not part.is_file():
            raise MeshError(f"{part.name} belongs to it, but there is no such file.")
        scanner = without_comments(text_of(part.read_bytes()))
        heading = scanner.integers(f"{least} counts")
        if len(heading) < least or min(heading) < 0 or max(heading[1:]) > 100:
            raise scanner.wrong(f"{least} counts", " ".join(map(str, heading)))
        count, size, *more = heading
        if size not in ((2, 3) if suffix == ".node" else (4, 10)):
            raise scanner.wrong("nodes of dimension 2 or 3, cells of 4 or 10 nodes", " ".join(map(str, heading)))
        attributes, marks = (more[0], more[1]) if suffix == ".node" else (0, 0)
        kinds = "N" + ("d" * (size + attributes) + "i" * marks if suffix == ".node" else "N" * size + "d" * more[0])
        tables.append((size, attributes, scanner.table(kinds, count, "rows")))
        scanner.nothing_more()
    (dim, attributes, nodes), (size, _, cells) = tables
    first = int(nodes[0][0]) if len(nodes[0]) else 0
    if (nodes[0] != first + np.arange(len(nodes[0]))).any() or first not in (0, 1):
        raise MeshError(f"{path.stem}.node: nodes must be numbered one after another from 0 or 1.")
    ends = [f"{i + 1}" if i else "" for i in range(max(len(nodes), len(cells)))]
    point_data = {f"tetgen:attr{i + 1}": nodes[1 + dim + i] for i in range(attributes)}
    point_data |= {f"tetgen:ref{e}": v for e, v in zip(ends, nodes[1 + dim + attributes :], strict=False)}
    # TetGen numbers the midpoints of edges 5 to 10 so: (2, 3), (0, 3), (0, 1), (1, 2), (1, 3), (0, 2).
    order = [0, 1, 2, 3, 6, 7, 9, 5, 8, 4][:size] if size == 10 else range(4)
    rows = np.stack([cells[1 + i] for i in order], 1) - first
    cell_data = {f"tetgen:ref{e}": [whole(v)] for e, v in zip(ends, cells[1 + size :], strict=False)}
    blocks = [RawBlock("tetra" if size == 4 else "tetra10", rows)]
    if path.with_suffix(".face").is_file():
        faces, marks = tetgen_faces(path.with_suffix(".face"))
        blocks.append(RawBlock("triangle", faces - first))
        cell_data = {key: [*values, np.full(len(faces), np.nan)] for key, values in cell_data.items()}
        cell_data["tetgen:ref"] = [cell_data.get("tetgen:ref", [np.full(len(rows), np.nan)])[0], marks]
    return RawMesh(np.stack(nodes[1 : 1 + dim], 1), blocks, point_data, cell_data)


def tetgen_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The corners of faces, by the numbers of nodes, and the numbers of the boundary parts that they are on, or NaN."""
    scanner = without_comments(text_of(path.read_bytes()))
    count, marked, *_ = [*scanner.integers("2 counts"), 0]
    found = [scanner.integers("a face: number and nodes", words) for words in scanner.rows_of_words(count, "a face")]
    if any(len(row) < 4 + (marked > 0) for row in found):
        raise MeshError(f"{path.name}: a face has a number, three nodes{' and a mark' * (marked > 0)}.")
    place = 4 if all(len(row) < 8 for row in found) else 7  # after midpoints of edges
    marks = [row[place] if marked and row[place] else np.nan for row in found]
    return np.array([row[1:4] for row in found], dtype=np.int64).reshape(-1, 3), np.array(marks, dtype=float)


def whole(values: np.ndarray) -> np.ndarray:
    """The values as integers, where they are whole."""
    return values.astype(np.int64) if (values == np.round(values)).all() and (abs(values) < 2**53).all() else values


def read_avs(data: bytes) -> RawMesh:
    """AVS UCD files as text; numbers of materials are data "avsucd:material".

    Raises:
        MeshError: with the line where the file stops making sense.
    """
    scanner = without_comments(data)
    what = "the numbers of nodes, cells, data of nodes, of cells and of the whole"
    counts = scanner.integers(what)
    if len(counts) != 5 or min(counts) < 0 or max(counts[2:]) > len(data):
        raise scanner.wrong(what, " ".join(map(str, counts)))
    tags, *x = scanner.table("Nddd", counts[0], "nodes")
    number = {tag: i for i, tag in enumerate(tags.tolist())}
    rows: dict[str, list[list[int]]] = {}
    ids: list[int] = []
    place: dict[str, list[int]] = {}
    for i, words in enumerate(scanner.rows_of_words(counts[1], "a cell")):
        try:
            cell, material, *nodes = whole_numbers([*words[:2], *words[3:]])
            if len(nodes) != len(AVS[words[2]][1]):
                raise ValueError
        except (ValueError, LookupError):
            raise scanner.wrong_row(i, f"number, material, one of {', '.join(AVS)}, nodes", words) from None
        unknown = [node for node in nodes if node not in number]
        if unknown:
            raise MeshError(f"cell {cell} names node {unknown[0]}, which is not listed.")
        place.setdefault(words[2], []).append(len(ids))
        ids.append(cell)
        rows.setdefault(words[2], []).append([material, *(number[node] for node in nodes)])
    if len(number) != len(tags) or len(set(ids)) != len(ids):
        raise MeshError("a number of nodes or cells stands for two of them.")
    blocks = [RawBlock(AVS[kind][0], np.array(several)[:, 1:][:, AVS[kind][1]]) for kind, several in rows.items()]
    materials = [np.array(several)[:, 0] for several in rows.values()]
    point_data = read_avs_data(scanner, tags, counts[2])
    cell_data = {"avsucd:material": materials}
    for name, values in read_avs_data(scanner, np.array(ids), counts[3]).items():
        cell_data[name] = [values[which] for which in place.values()]
    if not counts[4]:
        scanner.nothing_more()
    return RawMesh(np.stack(x, 1), blocks, point_data, cell_data)


def read_avs_data(scanner: Scanner, ids: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Data of nodes or cells by name, in the order of `ids`."""
    if count == 0:
        return {}
    what = "how many data, and of how many components each"
    several, *sizes = scanner.integers(what)
    if several != len(sizes) or min(sizes, default=0) < 1 or sum(sizes) != count:
        raise scanner.wrong(what, " ".join(map(str, [several, *sizes])))
    names = [scanner.line("a name and a unit").split(",")[0].strip().replace(" ", "_") for _ in sizes]
    tags, *columns = scanner.table("N" + "d" * count, len(ids), "data")
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(np.sort(tags), ids[order]):
        raise MeshError(f"{scanner.place}: data of other nodes or cells than there are.")
    values = np.empty((len(ids), count))
    values[order] = np.stack(columns, 1)[np.argsort(tags, kind="stable")]
    parts = np.split(values, np.cumsum(sizes)[:-1], axis=1)
    return {name: whole(v[:, 0]) if v.shape[1] == 1 else v for name, v in zip(names, parts, strict=True)}
