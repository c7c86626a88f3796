"""What a STEP file puts where: the representations of its parts, their items, names and units, and their placements.

A representation is placed in another one as a MAPPED_ITEM, or by a relationship with a transformation (which part of an
assembly is meant to be the larger one, the product structure says, else the order in the relationship). Relationships
without one join representations of the same thing.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.step.curves import CURVES
from nurbs.files.step.entities import (
    direction,
    instance_name,
    keyword_of,
    number_of,
    parameters_of,
    parts_of,
    placement,
    point,
)
from nurbs.files.step.surfaces import FACES, SURFACES
from nurbs.files.step.syntax import Reference, StepFile
from nurbs.files.step.units import Units, read_units

MOST = 100_000  # placed items
CONTAINERS = ("MANIFOLD_SOLID_BREP", "BREP_WITH_VOIDS", "FACETED_BREP", "SHELL_BASED_SURFACE_MODEL", "OPEN_SHELL")
CONTAINERS += ("FACE_BASED_SURFACE_MODEL", "CLOSED_SHELL", "ORIENTED_CLOSED_SHELL", "ORIENTED_OPEN_SHELL", "WIRE_SHELL")
CONTAINERS += ("CONNECTED_FACE_SET", "CONNECTED_FACE_SUB_SET", "ORIENTED_FACE", "GEOMETRIC_SET", "GEOMETRIC_CURVE_SET")
CONTAINERS += ("EDGE_BASED_WIREFRAME_MODEL", "SHELL_BASED_WIREFRAME_MODEL", "CONNECTED_EDGE_SET", "EDGE_LOOP")
CONTAINERS += ("ORIENTED_EDGE", "PATH", "OPEN_PATH", "COMPOUND_REPRESENTATION_ITEM")
OPERATOR = "CARTESIAN_TRANSFORMATION_OPERATOR_3D"
PASSED_OVER = ("AXIS", "CARTESIAN", "POINT", "VERTEX", "DIRECTION", "VECTOR", "PLACEMENT", "PLANAR_BOX", "CAMERA")
PASSED_OVER += (
    "DESCRIPTIVE",
    "MEASURE",
    "VALUE",
    "INTEGER",
    "REAL_",
    "QUALIFIED",
    "STYLED",
    "OVER_RIDING",
    "POLY_LOOP",
)


@dataclass(frozen=True)
class Part:
    """A representation: its items (number → the name of what holds it), and others placed in it by a map "4 4"."""

    units: Units
    items: dict[int, str] = field(default_factory=dict)
    placed: list[tuple[int, np.ndarray]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Occurrence:
    """A representation at a place of the whole: the map "4 4" from its coordinates, and the name of its product.

    `length` is the unit of the whole, in metres.
    """

    part: Part
    matrix: np.ndarray
    name: str = ""
    length: float | None = None


def is_item(file: StepFile, number: int) -> bool:
    """Whether an instance is a curve, a surface or a face."""
    keyword = file.keyword(number)
    if keyword:
        return keyword in CURVES or keyword in SURFACES or keyword in FACES
    return any(part.startswith(("B_SPLINE_CURVE", "B_SPLINE_SURFACE")) for part in parts_of(file, number))


def read_assembly(file: StepFile) -> list[Occurrence]:
    """The representations of shapes, each as often as it is placed."""
    parts, groups = {}, _Groups()
    products = _products(file)
    for number in file.bodies:
        part = _representation(file, number)
        if part is not None:
            parts[number] = part
    usages = _usages(file)
    for number in file.bodies:
        _relate(file, number, parts, groups, products, usages)
    members: dict[int, list[int]] = defaultdict(list)
    for number in parts:
        members[groups.of(number)].append(number)
    units = {g: next((u for n in ns if (u := parts[n].units.length) is not None), None) for g, ns in members.items()}
    names = {g: next((products[n].name for n in ns if n in products), "") for g, ns in members.items()}
    children: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for outer, numbers in members.items():
        for inner, matrix in (placed for n in numbers for placed in parts[n].placed):
            if inner not in parts:
                raise GeometryError(
                    f"{file.place(outer)}: {file.place(inner)}, which is placed in it, is no representation."
                )
            inner = groups.of(inner)
            children[outer].append((inner, matrix @ scaling(units[inner], units[outer])))
    roots = set(members) - {c for placed in children.values() for c, _ in placed}
    found: list[Occurrence] = []
    for root in sorted(roots):
        stack = [(root, np.eye(4), 0)]
        while stack:
            group, matrix, depth = stack.pop()
            if depth >= len(members):
                raise GeometryError(f"{file.place(group)}: a representation is placed in itself.")
            for n in members[group]:
                own = matrix @ scaling(parts[n].units.length, units[group])
                found.append(Occurrence(parts[n], own, names[group], units[root]))
            stack += [(c, matrix @ m, depth + 1) for c, m in reversed(children[group])]
            if len(found) + len(stack) > MOST:
                raise GeometryError(f"its parts are placed more than {MOST} times.")
    held = {id(o.part) for o in found}
    for numbers in members.values():
        if lost := [n for n in numbers if id(parts[n]) not in held]:
            raise GeometryError(f"{file.place(lost[0])}: a representation is placed in itself.")
    return found


def scaling(unit: float | None, wanted: float | None) -> np.ndarray:
    """The map "4 4" from coordinates in one unit to those in another, where both are known."""
    if unit is None or wanted is None or unit == wanted:
        return np.eye(4)
    return np.diag([unit / wanted] * 3 + [1.0])


class _Groups:
    """Representations of the same thing (union-find)."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}

    def of(self, number: int) -> int:
        while (above := self.parent.get(number, number)) != number:
            number = above
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.of(one), self.of(other)))
        if low != high:
            self.parent[high] = low


@dataclass(frozen=True)
class Product:
    name: str
    definition: int


def _products(file: StepFile) -> dict[int, Product]:
    """Representation → the product whose shape it is."""
    found = {}
    for number in file.bodies:
        if file.keyword(number) == "SHAPE_DEFINITION_REPRESENTATION":
            parameters = file.records(number)[0].parameters
            if len(parameters) == 2 and all(isinstance(p, Reference) for p in parameters):
                shape, representation = parameters
                definition = _follow(file, shape, "PRODUCT_DEFINITION_SHAPE", 2)
                formation = _follow(file, definition, "PRODUCT_DEFINITION", 2)
                product = _follow(file, formation, "PRODUCT_DEFINITION_FORMATION", 2)
                words = _parameters(file, product, "PRODUCT")[:2]
                name = next((w for w in reversed(words) if isinstance(w, str) and w.strip()), "")
                found[representation] = Product(name, definition or 0)
    return found


def _parameters(file: StepFile, number: int | None, keyword: str) -> list[Any]:
    """The parameters of an instance whose keyword begins like this; none where it is another one."""
    if number is None or number not in file.bodies or not file.keyword(number).startswith(keyword):
        return []
    return file.records(number)[0].parameters


def _follow(file: StepFile, number: int | None, keyword: str, index: int) -> int | None:
    parameters = _parameters(file, number, keyword)
    return parameters[index] if len(parameters) > index and isinstance(parameters[index], Reference) else None


def _representation(file: StepFile, number: int) -> Part | None:
    keyword = file.keyword(number)
    if keyword:
        parameters = file.records(number)[0].parameters if keyword.endswith("REPRESENTATION") else []
    else:
        parameters = parts_of(file, number).get("REPRESENTATION", [])
    if len(parameters) < 3 or not isinstance(parameters[1], list) or keyword == "DEFINITIONAL_REPRESENTATION":
        return None
    units = read_units(file, parameters[2]) if isinstance(parameters[2], Reference) else Units()
    part = Part(units)
    stack = [(name, "") for name in reversed(parameters[1]) if isinstance(name, Reference)]
    seen: set[int] = set()
    while stack:
        name, holder = stack.pop()
        if name not in file.bodies:
            raise GeometryError(f"{file.place(number)}: #{name} is not there.")
        kind = file.keyword(name)
        if name in seen:
            continue
        seen.add(name)
        if is_item(file, name):
            part.items[name] = holder
        elif kind in CONTAINERS:
            holder = instance_name(file, name) or holder
            stack += [(inner, holder) for inner in reversed(file.references(name))]
        elif kind == "MAPPED_ITEM":
            source, target = parameters_of(file, name, kind, 2, file.place(number))
            keyword_of(file, source, "REPRESENTATION_MAP", file.place(name))
            record = file.records(source)[0]
            if len(record.parameters) != 2 or not isinstance(record.parameters[1], Reference):
                raise GeometryError(f"{file.place(name)}: {file.place(source)} is no REPRESENTATION_MAP.")
            origin, mapped = record.parameters
            part.placed.append((mapped, _operator(file, target, name) @ np.linalg.inv(_operator(file, origin, name))))
        elif kind and not kind.startswith(PASSED_OVER) and "SHAPE" in keyword and "ANNOTATION" not in kind:
            part.others.append(kind)
    return part


def _operator(file: StepFile, name: Any, user: int) -> np.ndarray:
    """The map "4 4" of a placement or of a transformation operator."""
    where, matrix, scale = file.place(user), np.eye(4), 1.0
    keyword_of(file, name, "placement", where)
    records = parts_of(file, name)
    if OPERATOR in records:
        base = [*records.get(OPERATOR.removesuffix("_3D"), []), *records[OPERATOR]]
        if len(base) < 5:
            raise GeometryError(f"{where}: {file.place(name)} is no {OPERATOR}.")
        first, second, origin, factor, third = base[-5:]
        z = np.array([0.0, 0, 1]) if third is None else direction(file, third, where)
        x = np.array([1.0, 0, 0]) if first is None else direction(file, first, where)
        x = x - (x @ z) * z
        if not np.linalg.norm(x) > 0:
            raise GeometryError(f"{where}: the axes of {file.place(name)} are parallel.")
        x = x / np.linalg.norm(x)
        y = np.cross(z, x)
        if second is not None and y @ direction(file, second, where) < 0:
            y = -y
        scale = 1.0 if factor is None else number_of(factor, where)
        if not scale > 0:
            raise GeometryError(f"{where}: the scale of {file.place(name)} must be positive.")
        o, frame = point(file, origin, where), np.stack([x, y, z])
    else:
        o, frame = placement(file, name, where)
    matrix[:3, :3], matrix[:3, 3] = scale * frame.T, o
    return matrix


def _relate(
    file: StepFile,
    number: int,
    parts: dict[int, Part],
    groups: _Groups,
    products: dict[int, Product],
    usages: dict[int, list[Any]],
) -> None:
    """Join the two representations of a relationship, or place one in the other."""
    keyword = file.keyword(number)
    if keyword and not keyword.endswith("REPRESENTATION_RELATIONSHIP"):
        return
    records = parts_of(file, number)
    base = records.get("REPRESENTATION_RELATIONSHIP") or (records[keyword] if keyword else None)
    if base is None or len(base) < 4:
        return
    one, other = base[2:4]
    if one not in parts or other not in parts:
        return
    operator = records.get("REPRESENTATION_RELATIONSHIP_WITH_TRANSFORMATION")
    if operator is None:
        groups.join(one, other)
        return
    where = file.place(number)
    kind = keyword_of(file, operator[0] if operator else None, "transformation", where)
    if kind == "ITEM_DEFINED_TRANSFORMATION":
        record = file.records(operator[0])[0]
        if len(record.parameters) != 4:
            raise GeometryError(f"{where}: {file.place(operator[0])} is no {kind} with 4 parameters.")
        first, second = (_operator(file, item, operator[0]) for item in record.parameters[2:])
        matrix = second @ np.linalg.inv(first)
    else:
        matrix = _operator(file, operator[0], number)
    if number in usages:
        ends = [products[n].definition if n in products else None for n in (one, other)]
        if ends == usages[number] and ends[0] != ends[1]:  # the first is the whole, the second its part
            one, other, matrix = other, one, np.linalg.inv(matrix)
    parts[other].placed.append((one, matrix))


def _usages(file: StepFile) -> dict[int, list[Any]]:
    """Relationship → the products, whole and part, whose assembly it describes."""
    keyword, found = "CONTEXT_DEPENDENT_SHAPE_REPRESENTATION", {}
    for number in file.bodies:
        if file.keyword(number) == keyword:
            shape = _follow(file, number, keyword, 1)
            usage = _follow(file, shape, "PRODUCT_DEFINITION_SHAPE", 2)
            parameters = _parameters(file, usage, "NEXT_ASSEMBLY_USAGE_OCCURRENCE")
            if len(parameters) >= 5:
                found[file.records(number)[0].parameters[0]] = parameters[3:5]
    return found
