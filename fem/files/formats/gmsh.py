"""Gmsh's MSH files of versions 2, 4.0 and 4.1, as text or binary (reference manual, "MSH file format").

Read here rather than by meshio, which lets no file pass that has parametric nodes, partitions or elements without
groups, knows one group of each entity, and stops reading where a count says so, whatever follows.
"""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import Scanner, whole_numbers
from fem.files.node_order import dimension, num_nodes
from fem.files.raw import RawBlock, RawMesh

# Gmsh's codes of elements as meshio calls them; a number in the name is that of the nodes.
CODES = """
    15 vertex, 1 line, 8 line3, 26 line4, 27 line5, 28 line6, 2 triangle, 9 triangle6, 20 triangle9, 21 triangle10,
    23 triangle15, 25 triangle21, 3 quad, 10 quad9, 16 quad8, 36 quad16, 37 quad25, 38 quad36, 39 quad12, 4 tetra,
    11 tetra10, 29 tetra20, 30 tetra35, 31 tetra56, 137 tetra16, 5 hexahedron, 12 hexahedron27, 17 hexahedron20,
    92 hexahedron64, 93 hexahedron125, 99 hexahedron32, 6 wedge, 13 wedge18, 18 wedge15, 90 wedge40, 7 pyramid,
    14 pyramid14, 19 pyramid13
"""
KINDS = {int(code): name for code, name in re.findall(r"(\w+) (\w+)", CODES)}
# Where the nodes of VTK's order stand in Gmsh's, for cells of degree 2; those of degree 3 are left as they are.
HEXAHEDRON = (*range(8), 8, 11, 13, 9, 16, 18, 19, 17, 10, 12, 14, 15, 22, 23, 21, 24, 20, 25, 26)
ORDER = {
    "tetra10": (0, 1, 2, 3, 4, 5, 6, 7, 9, 8),
    "hexahedron20": HEXAHEDRON[:20],
    "hexahedron27": HEXAHEDRON,
}
Group = tuple[int, int]  # dimension and number


def read_gmsh(data: bytes) -> RawMesh:
    """The contents of a file; groups, named or numbered, are cell sets.

    Raises:
        MeshError: with the line or the byte where the file stops making sense.
    """
    reader = Reader(data)
    scanner = reader.scanner
    while re.compile(rb"\s*\S").match(data, scanner.at):
        heading = scanner.line("a section")
        if not re.fullmatch(r"\$[A-Za-z]\w*", heading):
            raise scanner.wrong("a section such as $Nodes", heading)
        reader.section(heading[1:])
    return reader.contents()


class Reader:
    """What has been read of a file so far."""

    def __init__(self, data: bytes):
        self.scanner = Scanner(data)
        self.version = self.minor = 0
        self.names: dict[str, list[Group]] = {}
        self.groups: dict[Group, list[int]] | None = None  # numbers of the groups of each entity
        self.nodes: list[tuple[np.ndarray, np.ndarray]] = []
        self.elements: list[tuple[int, list[int] | np.ndarray, np.ndarray, np.ndarray]] = []
        self.geometry: list[np.ndarray] = []  # numbers of the entities that the elements are of, block by block
        self.left_out: list[str] = []
        self.links: list[tuple[int, int, int, np.ndarray]] = []  # dimension, two entities, pairs of nodes "m 2"
        self.fields: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def section(self, name: str) -> None:
        """Reads one section, or passes over it."""
        scanner, old = self.scanner, self.version == 2
        readers = {
            "MeshFormat": self.header,
            "PhysicalNames": self.physical_names,
            "Entities": self.entities,
            "PartitionedEntities": lambda: self.entities(partitioned=True),
            "Nodes": self.nodes_2 if old else self.nodes_4,
            "ParametricNodes": lambda: self.nodes_2(parametric=True),
            "Elements": self.elements_2 if old else self.elements_4,
            "Periodic": self.periodic,
            "NodeData": lambda: self.field("node"),
            "ElementData": lambda: self.field("element"),
        }
        if name not in readers:
            end = re.compile(rb"\n\$End" + re.escape(name.encode()) + rb"[ \t\r]*(\n|$)").search(
                scanner.data, scanner.at - 1
            )
            if end is None:
                raise MeshError(f"{scanner.place}: the section ${name} has no $End{name}.")
            scanner.at = end.end()
            return
        if name != "MeshFormat" and not self.version:
            raise MeshError(f"the section ${name} comes before $MeshFormat, or the file is of MSH version 1.")
        if (name in ("Nodes", "ParametricNodes") and self.nodes) or (name == "Elements" and self.elements):
            raise MeshError(f"{scanner.place}: a second section ${name}.")
        readers[name]()
        end = scanner.line(f"$End{name}")
        if end != f"$End{name}":
            raise scanner.wrong(f"$End{name} after as many rows as its heading announces", end)

    def header(self) -> None:
        scanner = self.scanner
        text = scanner.line("the version of the format")
        found = re.fullmatch(r"(\d+)(?:\.(\d+))?\s+([01])\s+([48])", text)
        if found is None:
            raise scanner.wrong("version, 0 or 1 (binary), and size of integers", text)
        version, minor = int(found[1]), int(found[2] or 0)
        if version not in (2, 4) or minor > {2: 2, 4: 1}[version]:
            raise MeshError(f"Need mesh format 4.1, 4.0 or 2.2 (Gmsh: Save as, Version 4); it is {text.split()[0]}.")
        self.version, self.minor = version, 1 if version == 4 and found[2] is None else minor
        scanner.size = int(found[4])
        if found[3] == "1":
            one = scanner.data[scanner.at : scanner.at + 4]
            if one not in (b"\1\0\0\0", b"\0\0\0\1"):
                raise MeshError(f"{scanner.place}: the number 1 should follow in binary.")
            scanner.binary, scanner.order, scanner.at = True, "<" if one[0] else ">", scanner.at + 4
        # Gmsh writes 4 with nodes and elements in the order of 4.0, meshio that of 4.1: told from the first heading.
        if text.startswith("4 ") and re.search(rb"\$Nodes\s+\d+[ \t]+\d+[ \t]*\r?\n", scanner.data):
            self.minor = 0

    def physical_names(self) -> None:
        for _ in range(self.scanner.count("the number of names")):
            text = self.scanner.line("a name")
            found = re.fullmatch(r'([0-3])\s+(-?\d+)\s+"(.*)"', text)
            if found is None:
                raise self.scanner.wrong('dimension, number and "name"', text)
            self.names.setdefault(found[3], []).append((int(found[1]), int(found[2])))

    def entities(self, partitioned: bool = False) -> None:
        scanner, what = self.scanner, "an entity"
        self.groups = {} if self.groups is None else self.groups
        if partitioned:
            _, ghosts = scanner.record("NN", "the numbers of partitions and ghosts")
            scanner.array("i", 2 * ghosts, "ghosts")
        counts = scanner.record("NNNN", "the numbers of entities")
        for dim, count in enumerate(counts):
            for _ in range(count):
                (tag,) = scanner.record("i", what)
                if partitioned:
                    scanner.record("ii", what)
                    scanner.counted("i", "partitions")
                scanner.record("ddd" if dim == 0 and self.minor else "dddddd", what)
                self.groups[dim, tag] = scanner.counted("i", "groups").tolist()
                if dim:
                    scanner.counted("i", "bounding entities")

    def nodes_2(self, parametric: bool = False) -> None:
        scanner = self.scanner
        count = scanner.count("the number of nodes")
        if not parametric:
            tag, *x = scanner.table("iddd", count, "nodes")
            self.nodes.append((tag, np.stack(x, 1)))
            return
        for _ in range(count):
            tag, *x, dim, _ = scanner.record("idddii", "a node")
            scanner.record("d" * dim if dim in (1, 2) else "", "a node")
            self.nodes.append((np.array([tag]), np.array([x])))

    def nodes_4(self) -> None:
        scanner = self.scanner
        blocks, total, *_ = scanner.record("NNNN" if self.minor else "NN", "the numbers of blocks and nodes")
        for _ in range(blocks):
            dim, tag, parametric, count = scanner.record("iiiN", "an entity with nodes")
            dim = dim if self.minor else tag
            if not 0 <= dim <= 3 or parametric not in (0, 1):
                raise MeshError(f"{scanner.place}: an entity of dimension {dim} with nodes of kind {parametric}.")
            if self.minor:
                (tags,) = scanner.table("N", count, "numbers of nodes")
                x = scanner.table("ddd" + "d" * dim * parametric, count, "coordinates of nodes")
            else:
                tags, *x = scanner.table("iddd" + "d" * dim * parametric, count, "nodes")
            self.nodes.append((tags, np.stack(x[:3], 1)))
        self.agree("nodes", total, sum(len(tags) for tags, _ in self.nodes))

    def agree(self, what: str, announced: int, found: int) -> None:
        if announced != found:
            raise MeshError(f"{self.scanner.place}: {announced} {what} are announced, but the blocks hold {found}.")

    def num_nodes(self, code: int) -> int:
        if code not in KINDS:
            raise MeshError(f"{self.scanner.place}: there is no element of type {code}, or none that is known here.")
        return num_nodes(KINDS[code]) or 0

    def elements_2(self) -> None:
        scanner = self.scanner
        count = scanner.count("the number of elements")
        while count > 0 and scanner.binary:
            code, several, tags = scanner.record("iii", "a block of elements")
            if not (0 < several <= count and 0 <= tags < 1000):
                raise MeshError(f"{scanner.place}: {several} elements with {tags} tags, where {count} are left.")
            columns = scanner.table("i" * (1 + tags + self.num_nodes(code)), several, "elements")
            rows = np.stack(columns, 1)
            groups = rows[:, 1] if tags else np.zeros(several, dtype=int)
            self.elements.append((code, groups, rows[:, 0], rows[:, 1 + tags :]))
            self.geometry.append(rows[:, 2] if tags > 1 else np.zeros(several, dtype=int))
            count -= several
        if scanner.binary:
            return
        by_code: dict[int, list[list[int]]] = {}
        for i, words in enumerate(scanner.rows_of_words(count, "elements")):
            try:
                number, code, tags, *rest = whole_numbers(words)
            except ValueError:
                number, code, tags, rest = 0, 15, -1, []
            if not 0 <= tags <= len(rest) or len(rest) != tags + self.num_nodes(code):
                raise scanner.wrong_row(i, "number, type, number of tags, tags and nodes", words)
            entity = rest[1] if tags > 1 else 0
            by_code.setdefault(code, []).append([number, rest[0] if tags else 0, entity, *rest[tags:]])
        for code, several in by_code.items():
            rows = np.array(several)
            self.elements.append((code, rows[:, 1], rows[:, 0], rows[:, 3:]))
            self.geometry.append(rows[:, 2])

    def elements_4(self) -> None:
        scanner = self.scanner
        blocks, total, *_ = scanner.record("NNNN" if self.minor else "NN", "the numbers of blocks and elements")
        for _ in range(blocks):
            dim, tag, code, count = scanner.record("iiiN", "an entity with elements")
            dim, tag = (dim, tag) if self.minor else (tag, dim)
            columns = scanner.table(("N" if self.minor else "i") * (1 + self.num_nodes(code)), count, "elements")
            groups = [] if self.groups is None else self.groups.get((dim, tag))
            if groups is None:
                self.left_out.append(f"groups of entity {tag} of dimension {dim}, which is not listed")
                groups = []
            self.elements.append((code, groups, columns[0], np.stack(columns[1:], 1)))
            self.geometry.append(np.full(count, tag))
        self.agree("elements", total, sum(len(numbers) for *_, numbers, _ in self.elements))

    def periodic(self) -> None:
        """Entities whose nodes are one another's images; in MSH 2 this is text even in binary files."""
        scanner, what = self.scanner, "two periodic entities"
        binary, scanner.binary = scanner.binary, scanner.binary and self.version == 4
        (links,) = scanner.record("N", "the number of periodic entities")
        for _ in range(links):
            dim, tag, other = scanner.record("iii", what)
            if self.minor and self.version == 4:
                scanner.counted("d", "numbers of an affine map")
            elif re.compile(rb"\s*Affine").match(scanner.data, scanner.at):
                scanner.line("an affine map")
            (count,) = scanner.record("N", "the number of nodes")
            self.links.append((dim, tag, other, np.stack(scanner.table("NN", count, "pairs of nodes"), 1)))
        scanner.binary = binary

    def field(self, of: str) -> None:
        scanner = self.scanner
        names = [scanner.line("a name").strip('"') for _ in range(scanner.count("the number of names"))]
        for _ in range(scanner.count("the number of real tags")):
            scanner.line("a real tag")
        _, components, count, *_ = [
            *(scanner.count("an integer tag") for _ in range(scanner.count("the number of integer tags"))),
            *(-1, -1, -1),
        ]
        if not names or components not in range(1, 10) or count < 0:
            raise MeshError(f"{scanner.place}: $NodeData and the like need a name, 1, 3 or 9 components and a count.")
        number, *values = scanner.table("i" + "d" * components, count, f"values at {of}s")
        self.fields[of, names[0]] = number, np.stack(values, 1)

    def contents(self) -> RawMesh:
        """All of it, nodes by their place instead of their number."""
        if not self.nodes or not self.elements:
            raise MeshError(f"it has no section ${'Elements' if self.nodes else 'Nodes'}, or an empty one.")
        tags = np.concatenate([tags for tags, _ in self.nodes]).astype(np.int64)
        order = np.argsort(tags, kind="stable")
        ordered = tags[order]
        if (ordered[1:] == ordered[:-1]).any():
            raise MeshError(f"node {ordered[1:][ordered[1:] == ordered[:-1]][0]} is listed twice.")
        cells, sets = [], {}
        for code, groups, numbers, rows in self.elements:
            name = KINDS[code]
            place = np.searchsorted(ordered, rows).clip(max=len(tags) - 1)
            unknown = ordered[place] != rows
            if unknown.any():
                first = np.flatnonzero(unknown.any(1))[0]
                raise MeshError(f"element {numbers[first]} names node {rows[unknown][0]}, which is not listed.")
            connectivity = order[place]
            cells.append(RawBlock(name, connectivity[:, ORDER[name]] if name in ORDER else connectivity))
            for key, chosen in self.members(dimension(name), groups, len(rows)).items():
                sets.setdefault(key, {})[len(cells) - 1] = chosen
        blocks = range(len(cells))
        nothing = np.empty(0, dtype=np.int64)
        everything = RawMesh(
            np.concatenate([x for _, x in self.nodes]),
            cells,
            cell_sets={key: [parts.get(i, nothing) for i in blocks] for key, parts in sets.items()},
            left_out=self.left_out,
        )
        self.add_fields(everything, tags)
        for dim, tag, other, pairs in self.links:
            place = np.searchsorted(ordered, pairs).clip(max=len(tags) - 1)
            if (ordered[place] != pairs).any():
                raise MeshError(f"$Periodic names node {pairs[ordered[place] != pairs][0]}, which is not listed.")
            everything.links.append((dim, tag, other, order[place]))
        if not sets:  # of which groups are made
            everything.cell_data["gmsh:geometrical"] = self.geometry
        return everything

    def members(self, dim: int, groups: list[int] | np.ndarray, count: int) -> dict[str, np.ndarray]:
        """Which of the elements of a block are in each group, by name; groups are of a block or of each element."""
        names: dict[Group, list[str]] = {}
        for name, several in self.names.items():
            for group in several:
                names.setdefault(group, []).append(name)
        if isinstance(groups, list):
            chosen = {int(group): np.arange(count) for group in groups}
        else:
            chosen = {int(group): np.flatnonzero(groups == group) for group in np.unique(groups) if group}
        return {
            name: which for group, which in chosen.items() for name in names.get((dim, abs(group)), [str(abs(group))])
        }

    def add_fields(self, contents: RawMesh, tags: np.ndarray) -> None:
        """Data of nodes and elements in the order of `contents`; what has no value is NaN."""
        numbers = np.concatenate([numbers for *_, numbers, _ in self.elements]).astype(np.int64)
        for (of, name), (keys, values) in self.fields.items():
            wanted = tags if of == "node" else numbers
            order = np.argsort(wanted, kind="stable")
            place = order[np.searchsorted(wanted[order], keys).clip(max=len(wanted) - 1)]
            if (wanted[place] != keys).any():
                raise MeshError(f"{name!r} has a value at {of} {keys[wanted[place] != keys][0]}, which is not listed.")
            full = np.full((len(wanted), values.shape[1]), np.nan)
            full[place] = values
            full = full[:, 0] if full.shape[1] == 1 else full
            if of == "node":
                contents.point_data[name] = full
            else:
                ends = np.cumsum([len(block.data) for block in contents.cells])[:-1]
                contents.cell_data[name] = np.split(full, ends)
