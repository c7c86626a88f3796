"""Abaqus input files: nodes, elements, their sets and surfaces, in parts, instances and assemblies or without.

Read here rather than by meshio, which knows neither surfaces nor assemblies, loses elements of a set that several
blocks share, and leaves out what is not in capitals.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fem.errors import MeshError
from fem.files.formats.abaqus.elements import FACES, POINTLIKE, STRAIGHT, exposed, in_vtk_order, kind_of
from fem.files.formats.abaqus.keywords import Keyword, keywords
from fem.files.raw import RawBlock, RawMesh

GENERATORS = ("NGEN", "NFILL", "NCOPY", "NMAP", "ELGEN", "ELCOPY", "SYSTEM")
Members = dict[str, np.ndarray]  # numbers of nodes or elements by instance, "" for those of the scope itself


@dataclass
class Definition:
    """A set or surface: its name as first written, and the keywords that add to it."""

    name: str
    parts: list[Keyword] = field(default_factory=list)


@dataclass
class Scope:
    """What a part, an assembly or a flat file defines; numbers are its own, names are kept in capitals."""

    nodes: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    elements: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)  # kind, numbers, nodes
    others: list[np.ndarray] = field(default_factory=list)  # numbers of elements that are no cells
    sets: dict[str, dict[str, Definition]] = field(default_factory=lambda: {"NSET": {}, "ELSET": {}, "SURFACE": {}})

    def add(self, kind: str, name: str, part: Keyword) -> None:
        """Add to a set, which may be there already."""
        self.sets[kind].setdefault(name.upper(), Definition(name)).parts.append(part)


@dataclass
class Body:
    """A scope in its place, with points and blocks numbered through the whole mesh."""

    key: str
    name: str
    scope: Scope
    first_point: int
    first_block: int

    @cached_property
    def node_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of its nodes in ascending order, and where each stands."""
        return ordered([ids for ids, _ in self.scope.nodes])

    @cached_property
    def element_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of its elements in ascending order, and where each stands; those that are no cells come last."""
        return ordered([ids for _, ids, _ in self.scope.elements] + self.scope.others)

    def points(self, ids: np.ndarray, what: str) -> np.ndarray:
        """Points of the mesh for numbers of nodes."""
        return self.first_point + find(*self.node_numbers, ids, f"{what} names node")

    def cells(self, ids: np.ndarray, what: str) -> Iterator[tuple[int, str, np.ndarray]]:
        """(block, kind, rows) of the elements with these numbers."""
        place, start = find(*self.element_numbers, ids, f"{what} names element"), 0
        for i, (kind, numbers, _) in enumerate(self.scope.elements):
            chosen = place[(place >= start) & (place < start + len(numbers))]
            if len(chosen):
                yield self.first_block + i, kind, np.unique(chosen - start)
            start += len(numbers)


def read_abaqus(path: Path) -> RawMesh:
    """Nodes and elements of all instances, with sets of nodes and elements, and surfaces as side sets.

    A set or surface of a part bears its own name where the part has one instance and the assembly does not use that
    name too, else that of the instance before it, `Wheel-2.Rim`, as in Abaqus.

    Raises:
        MeshError: with the line where the file stops making sense, or where it has Abaqus generate nodes or elements.
    """
    model = Model()
    for keyword in keywords(path):
        model.take(keyword)
    return model.contents()


class Model:
    """What has been read so far."""

    def __init__(self) -> None:
        self.root = self.scope = Scope()
        self.parts: dict[str, tuple[str, Scope]] = {}
        self.instances: dict[str, tuple[str, Scope, np.ndarray]] = {}  # name, part, the lines that place it
        self.left_out: dict[str, None] = {}

    def take(self, keyword: Keyword) -> None:
        """Read one keyword; those that say nothing of mesh, sets or surfaces are passed over."""
        name = keyword.name
        if name in GENERATORS or (name == "NODE" and "SYSTEM" in keyword.parameters):
            raise MeshError(f"{keyword.place}: *{name} has Abaqus generate or move nodes; write the mesh out in full.")
        if name == "PART":
            self.scope = Scope()
            self.parts[keyword.required("NAME").upper()] = keyword.required("NAME"), self.scope
        elif name == "INSTANCE":
            self.instance(keyword)
        elif name in ("END PART", "END INSTANCE", "ASSEMBLY", "END ASSEMBLY"):
            self.scope = self.root
        elif name == "NODE":
            self.nodes(keyword)
        elif name == "ELEMENT":
            self.elements(keyword)
        elif name in ("NSET", "ELSET"):
            self.scope.add(name, keyword.required(name), keyword)
        elif name == "SURFACE":
            self.surface(keyword)

    def instance(self, keyword: Keyword) -> None:
        label, part = keyword.required("NAME"), keyword.parameters.get("PART", "")
        if part and part.upper() not in self.parts:
            raise MeshError(f"{keyword.place}: instance {label} is of part {part}, which is not defined before.")
        scope = self.parts[part.upper()][1] if part else Scope()
        self.instances[label.upper()] = label, scope, keyword.numbers(float)
        self.scope = self.root if part else scope

    def nodes(self, keyword: Keyword) -> None:
        rows = [[word or "0" for word in row] for row in keyword.rows()]
        width = 4 if any(len(row) != len(rows[0]) for row in rows) else len(rows[0]) if rows else 4
        if width not in (2, 3, 4) or any(len(row) > width and "".join(row[4:]) for row in rows):
            raise MeshError(f"{keyword.place}: *NODE needs a number and one to three coordinates on each line.")
        lines = [",".join((row + ["0"] * 3)[:4]) for row in rows]
        table = Keyword("NODE", {}, lines, keyword.place).numbers(float).reshape(-1, 4)
        ids = table[:, 0].astype(np.int64)
        if (ids != table[:, 0]).any() or (ids < 1).any():
            raise MeshError(f"{keyword.place}: numbers of nodes must be positive integers.")
        self.scope.nodes.append((ids, table[:, 1:]))
        self.add_numbers("NSET", keyword, ids)

    def elements(self, keyword: Keyword) -> None:
        wanted = keyword.required("TYPE").upper()
        kind = kind_of(wanted)
        if kind is None:
            if not re.match(POINTLIKE, wanted):
                raise MeshError(f"{keyword.place}: elements of type {wanted} are not supported.")
            first = Keyword(keyword.name, {}, [line.split(",")[0] for line in keyword.lines], keyword.place)
            self.scope.others.append(first.numbers(int))
            self.left_out[f"elements of type {wanted}"] = None
            return
        straight = kind.rstrip("0123456789")
        rows = keyword.integers(1 + (STRAIGHT[kind] if kind == straight else int(kind[len(straight) :])))
        if len(rows):
            self.scope.elements.append((kind, rows[:, 0], rows[:, 1:]))
            self.add_numbers("ELSET", keyword, rows[:, 0])

    def add_numbers(self, kind: str, keyword: Keyword, ids: np.ndarray) -> None:
        """The set that a block of nodes or elements belongs to."""
        if keyword.parameters.get(kind):
            lines = [str(i) for i in ids.tolist()]
            self.scope.add(kind, keyword.parameters[kind], Keyword(kind, {}, lines, keyword.place))

    def surface(self, keyword: Keyword) -> None:
        label, kind = keyword.required("NAME"), keyword.parameters.get("TYPE", "ELEMENT").upper()
        if kind == "NODE":
            lines = [row[0] for row in keyword.rows()]
            self.scope.add("NSET", label, Keyword("NSET", keyword.parameters, lines, keyword.place))
        elif kind == "ELEMENT" and keyword.parameters.get("COMBINE", "UNION").upper() == "UNION":
            self.scope.add("SURFACE", label, keyword)
        else:
            self.left_out[f"the surface {label!r} ({kind.lower()})"] = None

    # -- what the names mean -------------------------------------------------------------------------------------------

    @cached_property
    def bodies(self) -> list[Body]:
        """The assembly or flat file itself, then every instance; without any, every part."""
        placed = self.instances or {key: (label, scope, None) for key, (label, scope) in self.parts.items()}
        bodies, points, blocks = [], 0, 0
        for key, label, scope in [
            ("", "", self.root),
            *((key, label, scope) for key, (label, scope, _) in placed.items()),
        ]:
            bodies.append(Body(key, label, scope, points, blocks))
            points += sum(len(ids) for ids, _ in scope.nodes)
            blocks += len(scope.elements)
        return bodies

    def body(self, key: str, place: str) -> Body:
        for body in self.bodies:
            if body.key == key.upper():
                return body
        raise MeshError(f"{place}: there is no instance {key!r}.")

    def members(self, kind: str, scope: Scope, name: str, place: str, seen: tuple = ()) -> Members:
        """Numbers of the nodes or elements of a set, by instance."""
        key, definition = name.upper(), scope.sets[kind].get(name.upper())
        if definition is None or key in seen:
            what = "leads in a circle to itself" if definition else "is not defined"
            raise MeshError(f"{place}: the {kind.lower()} {name!r} {what}.")
        found: dict[str, list[np.ndarray]] = {}
        for part in definition.parts:
            instance = part.parameters.get("INSTANCE", "")
            if kind == "NSET" and part.parameters.get("ELSET"):
                several = [self.nodes_of(scope, part.parameters["ELSET"], part.place)]
            elif "GENERATE" in part.parameters:
                several = [{instance.upper(): generated(part)}]
            else:
                words = [word for row in part.rows() for word in row if word]
                numbers = [int(word) for word in words if word.isdecimal()]
                several = [{instance.upper(): np.array(numbers, dtype=np.int64)}]
                for word in words:
                    if not word.isdecimal():
                        several.append(self.named(kind, scope, instance, word, part.place, (*seen, key)))
            for own in several:
                for where, ids in own.items():
                    found.setdefault(where, []).append(ids)
        return {where: np.unique(np.concatenate(ids)) for where, ids in found.items()}

    def named(self, kind: str, scope: Scope, instance: str, word: str, place: str, seen: tuple = ()) -> Members:
        """What a name or a number on a line of data means, `Part-1.Left` and `Part-1.7` among them."""
        prefix, dot, rest = word.partition(".")
        if dot and word.upper() not in scope.sets[kind]:
            instance, word = prefix, rest
        if word.isdecimal():
            return {instance.upper(): np.array([int(word)])}
        if instance and word.upper() in (own := self.body(instance, place).scope).sets[kind]:
            return {instance.upper(): ids for ids in self.members(kind, own, word, place).values()}
        return self.members(kind, scope, word, place, seen)

    def nodes_of(self, scope: Scope, elset: str, place: str) -> Members:
        """The nodes of the elements of a set."""
        found = {}
        for key, ids in self.members("ELSET", scope, elset, place).items():
            own = self.body(key, place).scope if key else scope
            chosen = [rows[np.isin(numbers, ids)].ravel() for _, numbers, rows in own.elements]
            found[key] = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *chosen]))
        return found

    def contents(self) -> RawMesh:
        """The whole mesh."""
        parts, cells = [np.empty((0, 3))], []
        for body in self.bodies:
            place = self.instances[body.key][2] if body.key in self.instances else np.empty(0)
            parts += [moved(x, place, body.name) for _, x in body.scope.nodes]
        points = np.concatenate(parts)
        for body in self.bodies:
            for kind, ids, rows in body.scope.elements:
                nodes = body.points(rows.ravel(), f"a {kind} element (of {ids[0]}, …)").reshape(rows.shape)
                cells.append(RawBlock(kind, in_vtk_order(kind, nodes, points)))
        contents = RawMesh(points, cells, left_out=list(self.left_out))
        several = len(self.bodies) > 2
        for body in self.bodies:
            for kind, definitions in body.scope.sets.items():
                for key, definition in definitions.items():
                    prefixed = body.key and (several or key in self.root.sets[kind])
                    name = f"{body.name}.{definition.name}" if prefixed else definition.name
                    self.put(contents, kind, body, name, definition)
        return contents

    def put(self, contents: RawMesh, kind: str, body: Body, name: str, definition: Definition) -> None:
        """Write one set or surface into the mesh."""
        place = definition.parts[0].place
        if kind == "SURFACE":
            for part in definition.parts:
                self.put_surface(contents, body, name, part)
            return
        for key, ids in self.members(kind, body.scope, definition.name, place).items():
            own = self.body(key, place) if key else body
            if kind == "NSET":
                chosen = own.points(ids, f"{place}: the nset {name!r}")
                contents.point_sets[name] = np.concatenate([contents.point_sets.get(name, chosen[:0]), chosen])
            else:
                self.put_cells(contents, own, name, ids, place)

    def put_cells(self, contents: RawMesh, body: Body, name: str, ids: np.ndarray, place: str) -> None:
        nothing = [np.empty(0, dtype=np.int64) for _ in contents.cells]
        sets = contents.cell_sets.setdefault(name, nothing)
        for block, _, rows in body.cells(ids, f"{place}: the elset {name!r}"):
            sets[block] = np.union1d(sets[block], rows)

    def put_surface(self, contents: RawMesh, body: Body, name: str, part: Keyword, depth: int = 0) -> None:
        sides = contents.side_sets.setdefault(name, [])
        for row in part.rows():
            if "COMBINE" in part.parameters:
                for word in row:
                    other = body.scope.sets["SURFACE"].get(word.upper())
                    if other is None or depth > 8:
                        raise MeshError(f"{part.place}: the surface {word!r} is not defined, or is part of itself.")
                    for own in other.parts:
                        self.put_surface(contents, body, name, own, depth + 1)
                continue
            face = row[1].upper() if len(row) > 1 else ""
            for key, ids in self.named("ELSET", body.scope, "", row[0], part.place).items():
                own = self.body(key, part.place) if key else body
                if face in ("SPOS", "SNEG"):
                    self.put_cells(contents, own, name, ids, part.place)
                    continue
                for block, kind, rows in own.cells(ids, f"{part.place}: the surface {name!r}"):
                    cells = contents.cells[block].data[rows]
                    faces = FACES.get(kind.rstrip("0123456789"), ())
                    number = int(face[1:]) if re.fullmatch(r"[SE][1-6]", face) else 0
                    if face and not 1 <= number <= len(faces):
                        raise MeshError(f"{part.place}: a {kind} has no face {row[1]!r}.")
                    chosen = [cells[:, list(f)] for f in (faces[number - 1 : number] if face else faces)]
                    sides += chosen if face else [exposed(contents.cells, tuples) for tuples in chosen]


def ordered(numbers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in ascending order, and where each of them stands."""
    together = np.concatenate([np.empty(0, dtype=np.int64), *numbers])
    order = np.argsort(together, kind="stable")
    if (twice := np.flatnonzero(np.diff(together[order]) == 0)).size:
        raise MeshError(f"two nodes or two elements have the number {together[order][twice[0]]}.")
    return together[order], order


def find(numbers: np.ndarray, order: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Where the wanted numbers stand among those in ascending order."""
    place = np.searchsorted(numbers, wanted).clip(max=max(len(numbers) - 1, 0))
    if len(numbers) == 0 or (numbers[place] != wanted).any():
        missing = wanted if len(numbers) == 0 else wanted[numbers[place] != wanted]
        if len(missing):
            raise MeshError(f"{what} {missing[0]}, which is not defined.")
    return order[place] if len(numbers) else wanted


def generated(part: Keyword) -> np.ndarray:
    """first, last and step (or 1) on each line."""
    found = []
    for row in part.rows():
        if len(row) not in (2, 3) or not all(word.isdecimal() for word in row):
            raise MeshError(f"{part.place}: a line of a generated set is first, last, step; got {', '.join(row)}.")
        first, last, step = (*map(int, row), 1)[:3]
        if step < 1 or not 0 <= last - first < 10**8:
            raise MeshError(f"{part.place}: a generated set goes from first to last; got {', '.join(row)}.")
        found.append(np.arange(first, last + 1, step))
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def moved(x: np.ndarray, place: np.ndarray, name: str) -> np.ndarray:
    """Points of an instance: translated by three numbers, then turned about an axis through two points, in degrees."""
    if len(place) not in (0, 3, 10):
        raise MeshError(f"instance {name} is placed by three numbers, and seven more that turn it; got {len(place)}.")
    x = x + place[:3] if len(place) else x
    if len(place) < 10:
        return x
    start, axis, angle = place[3:6], place[6:9] - place[3:6], np.deg2rad(place[9])
    if not np.linalg.norm(axis) > 0:
        raise MeshError(f"instance {name} is turned about an axis of length 0.")
    k, v = axis / np.linalg.norm(axis), x - start
    return start + v * np.cos(angle) + np.cross(k, v) * np.sin(angle) + np.outer(v @ k, k) * (1 - np.cos(angle))
