"""Surfaces and faces of IGES files: splines, quadrics, tori, ruled and swept surfaces, and parts of them."""

from math import pi, radians

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import Unreadable, moved
from nurbs.files.iges.curves import CURVES, basis_curve
from nurbs.files.iges.directory import Entity
from nurbs.files.iges.placements import own_map
from nurbs.files.iges.splines import read_spline
from nurbs.files.trimming import basis_surfaces
from nurbs.files.trimming.basis_curves import Spline
from nurbs.files.trimming.basis_surfaces import BasisSurface, Extruded, Plane, Revolved, SplineSurface
from nurbs.files.trimming.faces import read_face
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface
from nurbs.modelling.primitives import ruled
from nurbs.modelling.transformation import permute, reverse

SURFACES = {108: "plane", 114: "parametric spline surface", 118: "ruled surface", 120: "surface of revolution"}
SURFACES |= {122: "tabulated cylinder", 128: "B-spline surface", 140: "offset surface", 190: "plane surface"}
SURFACES |= {192: "cylinder", 194: "cone", 196: "sphere", 198: "torus"}
FACES = {143: "bounded surface", 144: "trimmed surface", 510: "face"}
FULL = 1e-8  # of a turn


def whole_surface(entities: dict[int, Entity], number: int, uncertainty: float) -> tuple[Surface, bool]:
    """A surface that no face cuts, or a face; and whether its boundary is applied.

    Raises:
        Unreadable: it has no end, or is of a kind that is not read.
    """
    entity = entities[number]
    if entity.kind == 108 and entity.form and entity.pointers(5, 1) != [0]:
        if entity.form < 0:
            raise Unreadable("a hole")
        loops = [basis_curve(entities, entity.pointers(5, 1)[0], entity).whole()]
        return read_face(basis_surface(entities, number, entity), loops, uncertainty)
    if entity.kind not in FACES:
        return basis_surface(entities, number, entity).whole(), True
    name = entity.pointers(2 if entity.kind == 143 else 1, 1)[0]
    support = entities.get(name)
    kind = SURFACES.get(support.kind, "") if support else ""
    try:
        surface = basis_surface(entities, name, entity)
    except Unreadable as reason:
        raise Unreadable(f"of {kind or 'nothing'} {reason}".strip()) from reason
    try:
        loops, tips = boundaries(entities, entity)
        if loops is None:
            return surface.whole(), True
        found, applied = read_face(surface, loops, uncertainty, np.array(tips) if tips else None)
    except Unreadable as reason:
        if not surface.finite:
            raise Unreadable(f"{kind} {reason}".strip()) from reason
        found, applied = surface.whole(), False
    return moved(found, own_map(entity, entities)), applied


def basis_surface(entities: dict[int, Entity], number: int, user: Entity) -> BasisSurface:
    """The surface that an entry of the directory is."""
    entity = entities.get(number)
    if entity is None or entity.kind not in SURFACES:
        raise Unreadable(f"D{number} is no surface")
    matrix = own_map(entity, entities)
    if entity.kind == 128:
        found = read_spline(entity, matrix)
        assert isinstance(found, Surface)
        return SplineSurface(found)
    makers = {108: plane, 118: between, 120: turned, 122: along}
    if entity.kind in makers:
        return makers[entity.kind](entities, entity).moved(matrix)
    if entity.kind in (114, 140):
        raise Unreadable
    return analytic(entities, entity).moved(matrix)


def plane(entities: dict[int, Entity], entity: Entity) -> Plane:
    """A x + B y + C z = D."""
    *normal, distance = entity.finite(1, 4)
    n = np.array(normal)
    if not np.linalg.norm(n) > 0:
        raise GeometryError(f"{entity.where}: a plane of no direction.")
    return Plane(n * distance / (n @ n), *across(n)[:2])


def across(normal: np.ndarray) -> np.ndarray:
    """Orthonormal axes "3 3" of which the last one points along the normal."""
    z = normal / np.linalg.norm(normal)
    x = np.cross(np.eye(3)[abs(z).argmin()], z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def analytic(entities: dict[int, Entity], entity: Entity) -> BasisSurface:
    """190 to 198: a point, a direction where there is one, sizes, and the direction of u = 0 in form 1."""
    count = {190: 0, 192: 1, 194: 2, 196: 1, 198: 2}[entity.kind]
    origin = numbers_of(entities, entity, 1, 116)
    if entity.kind == 196:
        sizes, places = entity.finite(2, 1), (3, 4)
    else:
        sizes, places = entity.finite(3, count), (2, 3 + count)
    z = x = None
    if entity.kind != 196 or entity.form:
        z = numbers_of(entities, entity, places[0], 123)
    if entity.form:
        x = numbers_of(entities, entity, places[1], 123)
    z = np.array([0.0, 0, 1]) if z is None else z
    frame = across(z)
    if x is not None:
        e = x - (x @ frame[2]) * frame[2]
        if not np.linalg.norm(e) > 1e-9 * np.linalg.norm(x):
            raise GeometryError(f"{entity.where}: its axes are parallel.")
        e = e / np.linalg.norm(e)
        frame = np.stack([e, np.cross(frame[2], e), frame[2]])
    if entity.kind == 190:
        return Plane(origin, *frame[:2])
    if not sizes[0] > 0 and not (entity.kind == 194 and sizes[0] == 0):
        raise GeometryError(f"{entity.where}: a positive radius was expected; got {sizes[0]}.")
    if entity.kind == 192:
        return basis_surfaces.cylinder(origin, frame, sizes[0])
    if entity.kind == 194:
        if not 0 < abs(sizes[1]) < 90:
            raise GeometryError(f"{entity.where}: an angle between 0 and 90° was expected; got {sizes[1]}.")
        return basis_surfaces.cone(origin, frame, sizes[0], radians(sizes[1]))
    if entity.kind == 196:
        return basis_surfaces.sphere(origin, frame, sizes[0])
    if not 0 < sizes[1] <= sizes[0]:
        raise GeometryError(
            f"{entity.where}: positive radii were expected, the larger one first; got {sizes.tolist()}."
        )
    return basis_surfaces.torus(origin, frame, *sizes)


def numbers_of(entities: dict[int, Entity], entity: Entity, place: int, kind: int) -> np.ndarray:
    """The point (116) or direction (123) "3" that a parameter names."""
    name = entity.pointers(place, 1)[0]
    other = entities.get(name)
    if other is None or other.kind != kind:
        raise Unreadable
    found, matrix = other.finite(1, 3), own_map(other, entities)
    found = matrix[:3, :3] @ found + (matrix[:3, 3] if kind == 116 else 0)
    if kind == 123 and not np.linalg.norm(found) > 0:
        raise GeometryError(f"{other.where}: a direction of some length was expected.")
    return found


def single(entities: dict[int, Entity], name: int, entity: Entity) -> Curve:
    parts = basis_curve(entities, name, entity).whole()
    if len(parts) != 1:
        raise Unreadable("of a curve in several pieces")
    return parts[0]


def between(entities: dict[int, Entity], entity: Entity) -> SplineSurface:
    """118: equal parameters are joined (form 1), or equal parts of the lengths (form 0) where it is the same."""
    names = entity.pointers(1, 2)
    first, second = (single(entities, name, entity) for name in names)
    if entity.form == 0 and not all(is_uniform(entities[name]) for name in names):
        raise Unreadable("by arc length")
    if entity.pointers(3, 1) == [1]:
        second = reverse(second)
    found = ruled(first, second)
    assert isinstance(found, Surface)
    return SplineSurface(found)


def is_uniform(entity: Entity) -> bool:
    """Straight: run through with constant speed."""
    return entity.kind == 110 or (entity.kind == 126 and entity.pointers(1, 2) == [1, 1])


def turned(entities: dict[int, Entity], entity: Entity) -> SplineSurface:
    """120: u along the curve, v the angle from its start to its end."""
    axis, profile = entity.pointers(1, 2)
    first, last = entity.finite(3, 2)
    other = entities.get(axis)
    if other is None or other.kind != 110:
        raise Unreadable
    matrix = own_map(other, entities)
    start, end = other.finite(1, 6).reshape(2, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    width = last - first
    if not 0 < width <= 2 * pi * (1 + FULL) or not np.linalg.norm(end - start) > 0:
        raise GeometryError(f"{entity.where}: an axis and angles that increase by 2π at most were expected.")
    width = 2 * pi if abs(width - 2 * pi) < 2 * pi * FULL else width
    curve = Spline(single(entities, profile, entity))
    around = Revolved(curve, start, (end - start) / np.linalg.norm(end - start))
    return SplineSurface(permute(around.piece((first, first + width), around.ranges[1]), (1, 0)))


def along(entities: dict[int, Entity], entity: Entity) -> SplineSurface:
    """122: from the start of the curve to a point."""
    curve = Spline(single(entities, entity.pointers(1, 1)[0], entity))
    way = entity.finite(2, 3) - curve.at(curve.start)
    if not np.linalg.norm(way) > 0:
        raise GeometryError(f"{entity.where}: it is extruded along no direction.")
    return SplineSurface(Extruded(curve, way).piece((curve.start, curve.end), (0.0, 1.0)))


def boundaries(entities: dict[int, Entity], entity: Entity) -> tuple[list[list[Curve]] | None, list[np.ndarray]]:
    """The loops of a face, None where its boundary is that of its surface, and the points of those that are points."""
    if entity.kind == 143:
        names = entity.pointers(4, entity.count(3))
        return [bounded(entities, name, entity) for name in names], []
    if entity.kind == 144:
        outer, count = entity.pointers(2, 1)[0], entity.count(3)
        names = entity.pointers(4, 1 + count)
        if outer == 0 and count == 0:
            return None, []
        if outer == 0:
            raise Unreadable("with holes")
        return [on_surface(entities, name, entity) for name in names], []
    loops: list[list[Curve]] = []
    tips: list[np.ndarray] = []
    for name in entity.pointers(4, entity.count(2)):
        curves, points = edges(entities, name)
        loops += [curves] if curves else []
        tips += points
    return loops, tips


def on_surface(entities: dict[int, Entity], name: int, user: Entity) -> list[Curve]:
    """The loop of a 142, in space, or in the parameters of a spline surface where it has no curve in space."""
    entity = entities.get(name)
    if entity is None or entity.kind != 142:
        raise GeometryError(f"{user.where}: D{name} is no curve on a surface.")
    surface, flat, in_space = entity.pointers(2, 3)
    if in_space:
        return [moved(c, own_map(entity, entities)) for c in basis_curve(entities, in_space, entity).whole()]
    if surface in entities and entities[surface].kind == 128 and flat:
        curves = basis_curve(entities, flat, entity).whole()
        return [c.replace(control_points=c.control_points[..., :2]) for c in curves]
    raise Unreadable("inside curves of its parameters")


def bounded(entities: dict[int, Entity], name: int, user: Entity) -> list[Curve]:
    """The loop of a 141, each of its curves in its sense."""
    entity = entities.get(name)
    if entity is None or entity.kind != 141:
        raise GeometryError(f"{user.where}: D{name} is no boundary.")
    found: list[Curve] = []
    place = 5
    for _ in range(entity.count(4)):
        curve, sense, others = entity.pointers(place, 3)
        parts = basis_curve(entities, curve, entity).whole()
        found += parts if sense != 2 else [reverse(part) for part in reversed(parts)]
        place += 3 + max(others, 0)
    return [moved(part, own_map(entity, entities)) for part in found]


def edges(entities: dict[int, Entity], name: int) -> tuple[list[Curve], list[np.ndarray]]:
    """The curves of a loop (508), or the point that it is."""
    entity = entities.get(name)
    if entity is None or entity.kind != 508:
        raise Unreadable(f"D{name} is no loop")
    found: list[Curve] = []
    points: list[np.ndarray] = []
    place = 2
    for _ in range(entity.count(1)):
        is_vertex, where, index, agrees, others = entity.pointers(place, 5)
        place += 5 + 2 * max(others, 0)
        table = entities.get(where)
        kind, step = (502, 3) if is_vertex else (504, 5)
        if table is None or table.kind != kind or not 1 <= index <= table.count(1):
            raise GeometryError(f"{entity.where}: D{where} has no {'vertex' if is_vertex else 'edge'} {index}.")
        values = table.finite(2 + step * (index - 1), step)
        if is_vertex:
            points.append(values)
            continue
        parts = basis_curve(entities, int(values[0]), table).whole()
        found += parts if agrees else [reverse(part) for part in reversed(parts)]
    return found, ([] if found else points)


def used_by(entity: Entity) -> list[int]:
    """The curves and surfaces that serve this entity, and those of its parts."""
    try:
        match entity.kind:
            case 102:
                return entity.pointers(2, entity.count(1))
            case 108:
                return entity.pointers(5, 1)
            case 118 | 120:
                return entity.pointers(1, 2)
            case 122 | 140:
                return entity.pointers(1 if entity.kind == 122 else 5, 1)
            case 130:
                return entity.pointers(1, 1)
            case 142:
                return entity.pointers(2, 3)
            case 144:
                return [*entity.pointers(1, 1), *entity.pointers(4, 1 + entity.count(3))]
            case 143:
                return [*entity.pointers(2, 1), *entity.pointers(4, entity.count(3))]
            case 141:
                found, place = entity.pointers(3, 1), 5
                for _ in range(entity.count(4)):
                    curve, _, others = entity.pointers(place, 3)
                    found += [curve, *entity.pointers(place + 3, max(others, 0))]
                    place += 3 + max(others, 0)
                return found
            case 504:
                return entity.pointers(2, entity.count(1), 5)
            case 508:
                found, place = [], 2
                for _ in range(entity.count(1)):
                    others = max(entity.pointers(place + 4, 1)[0], 0)
                    found += entity.pointers(place + 6, others, 2) if others else []
                    place += 5 + 2 * others
                return found
            case 510:
                return entity.pointers(1, 1)
            case _:
                return []
    except GeometryError:
        return []


KINDS = CURVES | SURFACES | FACES
