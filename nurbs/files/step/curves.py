"""Curves of STEP files: splines, lines, conics, polygons, those composed and cut from others, and edges."""

from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import Unreadable, tensor
from nurbs.files.step.entities import (
    Scope,
    flag,
    keyword_of,
    lengths,
    listed_names,
    number_of,
    parameters_of,
    placement,
    point,
    vector,
)
from nurbs.files.step.splines import SPLINES, control_points, read_spline
from nurbs.files.step.syntax import Enumeration, Reference, StepRecord
from nurbs.files.trimming.basis_curves import BasisCurve, Composite, Conic, Spline, ellipse, line
from nurbs.geometry.curve import Curve
from nurbs.modelling.transformation import reverse

CONICS = ("CIRCLE", "ELLIPSE", "HYPERBOLA", "PARABOLA")
ON_SURFACES = ("SURFACE_CURVE", "SEAM_CURVE", "INTERSECTION_CURVE", "BOUNDED_SURFACE_CURVE")
OTHERS = ("OFFSET_CURVE_3D", "OFFSET_CURVE_2D", "CURVE_REPLICA", "PCURVE", "CLOTHOID", "DEGENERATE_PCURVE")
COMPOSED = ("TRIMMED_CURVE", "COMPOSITE_CURVE", "COMPOSITE_CURVE_ON_SURFACE", "BOUNDARY_CURVE", "OUTER_BOUNDARY_CURVE")
CURVES = (*(name for name, r in SPLINES.items() if r == 1), *CONICS, *ON_SURFACES, *OTHERS, *COMPOSED)
CURVES += ("LINE", "POLYLINE", "EDGE_CURVE")


def whole_curve(scope: Scope, number: int) -> list[Curve]:
    """A curve from end to end, in pieces where it has several.

    Raises:
        Unreadable: it has no ends, or is of a kind that is not read.
    """
    if scope.file.keyword(number) == "EDGE_CURVE":
        return edge(scope, Reference(number), scope.file.place(number))
    return basis_curve(scope, Reference(number), scope.file.place(number)).whole()


def basis_curve(scope: Scope, name: Any, where: str) -> BasisCurve:
    """The curve that an instance is, by its own parameter."""
    file = scope.file
    keyword = keyword_of(file, name, "curve", where)
    where = file.place(name)
    with scope.reading(name):
        if keyword in CONICS:
            return conic(scope, name, keyword, where)
        if keyword == "LINE":
            start, along = parameters_of(file, name, keyword, 2, where)
            found = vector(file, along, where)
            if not np.linalg.norm(found) > 0:
                raise GeometryError(f"{where}: a line of no direction.")
            return line(point(file, start, where), found)
        if keyword == "POLYLINE":
            (names,) = parameters_of(file, name, keyword, 1, where)
            points = control_points(file, names, 1, where)
            if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 2:
                raise GeometryError(f"{where}: two or more points in space were expected.")
            knots = tensor(np.arange(-1.0, len(points) + 1).clip(0, len(points) - 1))
            return Spline(Curve(tensor(np.pad(points, ((0, 0), (0, 3 - points.shape[1])))), None, knots, 1))
        if keyword in ON_SURFACES:
            return basis_curve(scope, parameters_of(file, name, keyword, 3, where)[0], where)
        if keyword == "TRIMMED_CURVE":
            return Composite(trimmed(scope, name, where))
        if keyword in COMPOSED:
            return Composite(composite(scope, parameters_of(file, name, keyword, 2, where)[0], where))
        found = read_spline(file, name)
        if not isinstance(found, Curve):
            raise Unreadable(keyword or "complex instance")
        return Spline(found)


def conic(scope: Scope, name: Reference, keyword: str, where: str) -> Conic:
    file, count = scope.file, {"CIRCLE": 1, "PARABOLA": 1}.get(keyword, 2)
    position, *sizes = parameters_of(file, name, keyword, 1 + count, where)
    origin, (x, y, _) = placement(file, position, where)
    a, b = [*lengths(sizes, where), 0.0][:2]
    if keyword in ("CIRCLE", "ELLIPSE"):
        return ellipse(origin, a * x, (b if count == 2 else a) * y)
    return Conic(keyword.lower(), origin, a * x, (b if keyword == "HYPERBOLA" else a) * y)


def trimmed(scope: Scope, name: Reference, where: str) -> list[Curve]:
    """A TRIMMED_CURVE: by parameters or points, the preferred ones of both where both are there and agree."""
    basis_name, *ends, sense, master = parameters_of(scope.file, name, "TRIMMED_CURVE", 5, where)
    basis = basis_curve(scope, basis_name, where)
    prefers = master.name if isinstance(master, Enumeration) else ""
    scale = scope.angle if isinstance(basis, Conic) and basis.kind == "ellipse" else 1.0
    found = [trim_end(scope, basis, end, scale, prefers, where) for end in ends]
    return basis.cut(found[0], found[1], flag(sense, where))


def trim_end(scope: Scope, basis: BasisCurve, end: Any, scale: float, prefers: str, where: str) -> float:
    values, points = [], []
    for item in listed_names(end, where):
        if isinstance(item, Reference):
            points.append(point(scope.file, item, where))
        elif not isinstance(item, StepRecord) or item.keyword == "PARAMETER_VALUE":
            values.append(scale * number_of(item, where))
        else:
            raise GeometryError(f"{where}: a PARAMETER_VALUE or a point was expected; got {item.keyword}.")
    located = [basis.parameter(p) for p in points[:1]]
    for t, p in zip(located, points, strict=False):
        if np.linalg.norm(basis.at(t) - p) > near(scope, p, basis.at(t)):
            raise Unreadable("cut at points beside it")
    if located and isinstance(basis, Conic) and basis.kind == "parabola":  # some programs count its parameter otherwise
        return located[0]
    if values and located and np.linalg.norm(basis.at(values[0]) - points[0]) > near(scope, points[0]):
        raise Unreadable("its points and parameters differ")
    both = [*located, *values] if prefers == "CARTESIAN" else [*values, *located]
    return both[0]


def near(scope: Scope, *points: np.ndarray) -> float:
    """The distance below which points in files are the same."""
    size = max(float(abs(p).max()) for p in points)
    return max(1e-6 * size, min(10 * scope.uncertainty, 1e-3 * size), 1e-9)


def composite(scope: Scope, segments: Any, where: str) -> list[Curve]:
    """The segments of a COMPOSITE_CURVE, each in its sense."""
    found: list[Curve] = []
    for segment in listed_names(segments, where):
        keyword = keyword_of(scope.file, segment, "COMPOSITE_CURVE_SEGMENT", where)
        if keyword == "REPARAMETRISED_COMPOSITE_CURVE_SEGMENT":
            raise Unreadable(keyword)
        record = scope.file.records(segment)[0]
        if record.keyword != "COMPOSITE_CURVE_SEGMENT" or len(record.parameters) != 3:
            raise GeometryError(f"{where}: {scope.file.place(segment)} is no COMPOSITE_CURVE_SEGMENT.")
        _, sense, parent = record.parameters
        parts = basis_curve(scope, parent, where).whole()
        found += parts if flag(sense, where) else [reverse(part) for part in reversed(parts)]
    return found


def edge(scope: Scope, name: Any, where: str) -> list[Curve]:
    """An EDGE_CURVE from its first vertex to its second one.

    Raises:
        Unreadable: its vertices are not on its curve.
    """
    first, last, geometry, sense = parameters_of(scope.file, name, "EDGE_CURVE", 4, where)
    where, basis = scope.file.place(name), basis_curve(scope, geometry, where)
    ends = [vertex(scope, v, where) for v in (first, last)]
    located = [basis.parameter(p) for p in ends]
    if any(np.linalg.norm(basis.at(t) - p) > near(scope, *ends) for t, p in zip(located, ends, strict=True)):
        raise Unreadable("EDGE_CURVE whose ends are beside its curve")
    forward = flag(sense, where)
    if basis.period is None:
        if located[0] == located[1]:
            raise Unreadable("EDGE_CURVE of no length")
        forward = located[0] < located[1]
    return basis.cut(*located, forward=forward)


def vertex(scope: Scope, name: Any, where: str) -> np.ndarray:
    (location,) = parameters_of(scope.file, name, "VERTEX_POINT", 1, where)
    return point(scope.file, location, where)
