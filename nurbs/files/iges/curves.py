"""Curves of IGES files: arcs, composites, conics, polygons, lines, cubics, B-splines, each between its own ends."""

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import Unreadable, tensor
from nurbs.files.iges.directory import Entity
from nurbs.files.iges.placements import DEEPEST, own_map
from nurbs.files.iges.splines import read_spline
from nurbs.files.trimming.basis_curves import BasisCurve, Composite, Conic, Spline, ellipse, line
from nurbs.geometry.curve import Curve

CURVES = {100: "arc", 102: "composite curve", 104: "conic", 106: "polygon", 110: "line", 112: "spline curve"}
CURVES |= {126: "B-spline curve", 130: "offset curve"}
POLYGONS = (11, 12, 13, 63)  # forms of 106; the others are points and annotation
SAME = 1e-4  # ends of an arc whose radii differ by less than this part; files have few digits


def basis_curve(entities: dict[int, Entity], number: int, user: Entity, depth: int = 0) -> BasisCurve:
    """The curve that an entry of the directory is.

    Raises:
        Unreadable: it is of a kind that is not read, or has no ends.
    """
    entity = entities.get(number)
    if entity is None or entity.kind not in CURVES:
        raise Unreadable(f"D{number} is no curve")
    if depth > DEEPEST:
        raise GeometryError(f"{user.where}: its curves refer to each other in a circle.")
    matrix = own_map(entity, entities)
    if entity.kind == 126:
        found = read_spline(entity, matrix)
        assert isinstance(found, Curve)
        return Spline(found)
    if entity.kind == 102:
        parts: list[Curve] = []
        for name in entity.pointers(2, entity.count(1)):
            parts += basis_curve(entities, name, entity, depth + 1).whole()
        if not parts:
            raise Unreadable("of no curves")
        return Composite(parts).moved(matrix)
    makers = {100: arc, 104: conic, 106: polygon, 110: segment, 112: cubic}
    if entity.kind not in makers:
        raise Unreadable
    return makers[entity.kind](entity).moved(matrix)


def part(curve: Conic, first: float, last: float) -> Composite:
    return Composite(curve.cut(first, last))


def arc(entity: Entity) -> Composite:
    """Counterclockwise from its start to its end; the whole circle where they are the same."""
    z, *values = entity.finite(1, 7)
    center, start, end = np.array(values).reshape(3, 2)
    radii = [float(np.linalg.norm(p - center)) for p in (start, end)]
    if not min(radii) > 0 or abs(radii[1] - radii[0]) > SAME * max(radii):
        raise GeometryError(f"{entity.where}: the ends of an arc are as far from its centre; got {radii}.")
    angles = [float(np.arctan2(*(p - center)[::-1])) for p in (start, end)]
    origin = np.array([*center, z])
    return part(ellipse(origin, radii[0] * np.eye(3)[0], radii[0] * np.eye(3)[1]), *angles)


def conic(entity: Entity) -> Composite:
    """A x² + B x y + C y² + D x + E y + F = 0 from its start to its end, ellipses counterclockwise."""
    a, b, c, d, e, f, z, *ends = entity.finite(1, 11)
    start, end = np.array(ends).reshape(2, 2)
    M = np.array([[a, b / 2], [b / 2, c]])
    scale = abs(M).max()
    if not scale > 0:
        raise Unreadable("of no degree two")
    values, vectors = np.linalg.eigh(M)
    vectors[:, 1] *= np.sign(np.linalg.det(vectors))
    if abs(values).min() > 1e-12 * scale:
        center = np.linalg.solve(2 * M, [-d, -e])
        squares = (center @ M @ center - f) / values
        if (squares > 0).all():
            axes, kind = vectors * np.sqrt(squares), "ellipse"
        elif (squares > 0).any():
            real = int(squares[1] > 0)
            x, y = vectors[:, real], vectors[:, 1 - real]
            x = x if (start - center) @ x > 0 else -x
            axes, kind = np.column_stack([x * squares[real] ** 0.5, y * (-squares[1 - real]) ** 0.5]), "hyperbola"
        else:
            raise Unreadable("without points")
    else:  # λ ξ² + p ξ + q η + F = 0 along the axis η
        flat = int(abs(values[1]) < abs(values[0]))
        xi, eta, bend = vectors[:, 1 - flat], vectors[:, flat], values[1 - flat]
        p, q = np.array([d, e]) @ xi, np.array([d, e]) @ eta
        if not abs(q) > 1e-12 * scale:
            raise Unreadable("of straight lines")
        apex = -p / (2 * bend)
        center = apex * xi - (bend * apex**2 + p * apex + f) / q * eta
        focal = -q / (4 * bend)  # ξ² = 4 a η
        axes, kind = np.column_stack([focal * eta, focal * xi]), "parabola"
    origin, x, y = np.array([*center, z]), *(np.array([*axes[:, k], 0.0]) for k in (0, 1))
    curve = Conic(kind, origin, x, y, 0.0 if kind == "ellipse" else -np.inf, 2 * np.pi if kind == "ellipse" else np.inf)
    located = [curve.parameter(np.array([*p, z])) for p in (start, end)]
    size = max(np.linalg.norm(end - start), abs(axes).max() if kind == "ellipse" else 0.0)
    for t, p in zip(located, (start, end), strict=True):
        if np.linalg.norm(curve.at(t)[:2] - p) > SAME * size:
            raise GeometryError(f"{entity.where}: {p.tolist()}, an end of the conic, is not on it.")
    if kind != "ellipse" and located[0] == located[1]:
        raise Unreadable("of no length")
    return Composite(curve.cut(*located, forward=kind == "ellipse" or located[0] < located[1]))


def polygon(entity: Entity) -> Spline:
    kind, count = entity.pointers(1, 2)
    if entity.form not in POLYGONS:
        raise Unreadable(f"copious data of form {entity.form}")
    if kind not in (1, 2, 3) or not 2 <= count <= len(entity.words):
        raise GeometryError(f"{entity.where}: two or more points, each of 2, 3 or 6 numbers, were expected.")
    if kind == 1:
        points = entity.finite(4, 2 * count).reshape(count, 2)
        points = np.column_stack([points, np.full(count, entity.finite(3, 1)[0])])
    else:
        points = entity.finite(3, 3 * (kind - 1) * count).reshape(count, -1)[:, :3]
    if entity.form == 63 and (points[0] != points[-1]).any():
        points = np.concatenate([points, points[:1]])
    return Spline(Curve(tensor(points), degree=1))


def segment(entity: Entity) -> Composite:
    start, end = entity.finite(1, 6).reshape(2, 3)
    if entity.form:
        raise Unreadable("without ends")
    if (start == end).all():
        raise Unreadable("of no length")
    return Composite(line(start, end - start).piece(0.0, 1.0))


def cubic(entity: Entity) -> Spline:
    """Pieces a + b s + c s² + d s³, s from the break point on, as one B-spline."""
    count = entity.count(4)
    breaks = entity.finite(5, count + 1)
    lengths = np.diff(breaks)
    if count < 1 or not (lengths > 0).all():
        raise GeometryError(f"{entity.where}: break points that increase were expected.")
    a, b, c, d = np.moveaxis(entity.finite(6 + count, 12 * count).reshape(count, 3, 4), -1, 0)
    h = lengths[:, None]
    points = np.stack([a, a + b * h / 3, a + 2 * b * h / 3 + c * h**2 / 3, a + b * h + c * h**2 + d * h**3], 1)
    if count > 1 and abs(points[1:, 0] - points[:-1, 3]).max() > SAME * abs(points).max():
        raise Unreadable("with gaps")
    knots = np.repeat(breaks, [4, *[3] * (count - 1), 4])
    table = np.concatenate([points[:, :3].reshape(-1, 3), points[-1:, 3]])
    return Spline(Curve(tensor(table), None, tensor(knots), 3))
