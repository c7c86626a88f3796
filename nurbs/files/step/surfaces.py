"""Surfaces and faces of STEP files: splines, planes, cylinders, cones, spheres, tori, swept surfaces, parts of them."""

from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import Unreadable, read_numbers
from nurbs.files.step.curves import basis_curve, composite, edge, vertex
from nurbs.files.step.entities import (
    Scope,
    axes,
    axis_line,
    flag,
    keyword_of,
    lengths,
    listed_names,
    number_of,
    parameters_of,
    point,
    vector,
)
from nurbs.files.step.splines import SPLINES, read_spline
from nurbs.files.step.syntax import Reference
from nurbs.files.trimming import basis_surfaces
from nurbs.files.trimming.basis_curves import Conic, line
from nurbs.files.trimming.basis_surfaces import BasisSurface, Extruded, Plane, Revolved, SplineSurface
from nurbs.files.trimming.faces import read_face
from nurbs.geometry.curve import Curve
from nurbs.geometry.surface import Surface
from nurbs.modelling.transformation import reverse

ELEMENTARY = {"PLANE": 0, "CYLINDRICAL_SURFACE": 1, "CONICAL_SURFACE": 2, "SPHERICAL_SURFACE": 1, "TOROIDAL_SURFACE": 2}
UNBOUNDED = ("PLANE", "CYLINDRICAL_SURFACE", "CONICAL_SURFACE")
SWEPT = ("SURFACE_OF_LINEAR_EXTRUSION", "SURFACE_OF_REVOLUTION")
OTHERS = ("OFFSET_SURFACE", "SURFACE_REPLICA", "DEGENERATE_TOROIDAL_SURFACE", "RECTANGULAR_COMPOSITE_SURFACE")
OTHERS += ("ORIENTED_SURFACE",)
SURFACES = (*(name for name, r in SPLINES.items() if r == 2), *ELEMENTARY, *SWEPT, *OTHERS)
SURFACES += ("RECTANGULAR_TRIMMED_SURFACE", "CURVE_BOUNDED_SURFACE")
FACES = ("ADVANCED_FACE", "FACE_SURFACE")


def whole_surface(scope: Scope, number: int) -> tuple[Surface, bool]:
    """A surface that no face cuts, or a face; and whether its boundary is applied.

    Raises:
        Unreadable: it has no end, or is of a kind that is not read.
    """
    file, where, keyword = scope.file, scope.file.place(number), scope.file.keyword(number)
    name = Reference(number)
    if keyword in FACES:
        return face(scope, name, keyword, where)
    if keyword == "CURVE_BOUNDED_SURFACE":
        basis, boundaries, _ = parameters_of(file, name, keyword, 3, where)
        loops = []
        for boundary in listed_names(boundaries, where):
            kind = keyword_of(file, boundary, "boundary", where)
            loops.append(composite(scope, parameters_of(file, boundary, kind, 2, where)[0], where))
        return read_face(basis_surface(scope, basis, where), loops, scope.uncertainty)
    if keyword == "RECTANGULAR_TRIMMED_SURFACE":
        return rectangle(scope, name, where), True
    if keyword in UNBOUNDED:
        raise Unreadable
    return basis_surface(scope, name, where).whole(), True


def basis_surface(scope: Scope, name: Any, where: str) -> BasisSurface:
    """The surface that an instance is, by its own parameters."""
    file, keyword = scope.file, keyword_of(scope.file, name, "surface", where)
    where = file.place(name)
    with scope.reading(name):
        if keyword in ELEMENTARY:
            return elementary(scope, name, keyword, where)
        if keyword == "SURFACE_OF_LINEAR_EXTRUSION":
            swept, along = parameters_of(file, name, keyword, 2, where)
            profile, way = basis_curve(scope, swept, where), vector(file, along, where)
            if not np.linalg.norm(way) > 0:
                raise GeometryError(f"{where}: it is extruded along no direction.")
            if isinstance(profile, Conic) and profile.kind == "line":
                if np.linalg.norm(np.cross(profile.x, way)) < 1e-9 * np.linalg.norm(profile.x) * np.linalg.norm(way):
                    raise GeometryError(f"{where}: a line is extruded along itself.")
                return Plane(profile.origin, profile.x, way)
            return Extruded(profile, way)
        if keyword == "SURFACE_OF_REVOLUTION":
            swept, axis = parameters_of(file, name, keyword, 2, where)
            return Revolved(basis_curve(scope, swept, where), *axis_line(file, axis, where))
        if keyword == "RECTANGULAR_TRIMMED_SURFACE":
            return SplineSurface(rectangle(scope, name, where))
        found = read_spline(file, name)
        if not isinstance(found, Surface):
            raise Unreadable(keyword or "complex instance")
        return SplineSurface(found)


def elementary(scope: Scope, name: Reference, keyword: str, where: str) -> BasisSurface:
    position, *sizes = parameters_of(scope.file, name, keyword, 1 + ELEMENTARY[keyword], where)
    if keyword in ("SPHERICAL_SURFACE", "TOROIDAL_SURFACE"):
        radii = [float(x) for x in read_numbers(sizes, f"{where}, radii").ravel()]
        if len(radii) != len(sizes) or not all(0 < x < np.inf for x in radii) or radii[-1] > radii[0]:
            raise GeometryError(f"{where}: positive radii were expected, of a torus the larger one first; got {radii}.")
        origin, frame = axes(scope.file, position, where)
        if keyword == "SPHERICAL_SURFACE":
            return basis_surfaces.sphere(origin, frame, radii[0])
        return basis_surfaces.torus(origin, frame, radii[0], radii[1])
    origin, frame = axes(scope.file, position, where)
    if keyword == "PLANE":
        return Plane(origin, frame[0], frame[1])
    if keyword == "CYLINDRICAL_SURFACE":
        return basis_surfaces.cylinder(origin, frame, *lengths(sizes, where))
    radius, angle = number_of(sizes[0], where), scope.angle * number_of(sizes[1], where)
    if not radius >= 0 or not 0 < abs(angle) < np.pi / 2:
        raise GeometryError(f"{where}: a radius of 0 or more and an angle below 90° were expected; got {sizes}.")
    return basis_surfaces.cone(origin, frame, radius, angle)


def rectangle(scope: Scope, name: Reference, where: str) -> Surface:
    """A RECTANGULAR_TRIMMED_SURFACE."""
    keyword = "RECTANGULAR_TRIMMED_SURFACE"
    basis_name, *bounds, u_sense, v_sense = parameters_of(scope.file, name, keyword, 7, where)
    basis = basis_surface(scope, basis_name, where)
    u, v, angle = [number_of(b, where) for b in bounds[:2]], [number_of(b, where) for b in bounds[2:]], scope.angle
    if isinstance(basis, Revolved):
        u = [angle * x for x in u]
        v = [angle * x for x in v] if isinstance(basis.profile, Conic) and basis.profile.kind == "ellipse" else v
    elif isinstance(basis, Extruded) and isinstance(basis.profile, Conic) and basis.profile.kind == "ellipse":
        u = [angle * x for x in u]
    senses = flag(u_sense, where), flag(v_sense, where)
    found = basis.cut((u[0], u[1], senses[0]), (v[0], v[1], senses[1]))
    for axis, forward in enumerate(senses):
        found = found if forward else reverse(found, axis)
    return found


def face(scope: Scope, name: Reference, keyword: str, where: str) -> tuple[Surface, bool]:
    """A face: its surface inside its loops.

    Raises:
        Unreadable: the name of its surface, and why.
    """
    bounds, surface_name, sense = parameters_of(scope.file, name, keyword, 3, where)
    kind = keyword_of(scope.file, surface_name, "surface", where) or "spline"
    if not isinstance(bounds, list):
        raise GeometryError(f"{where}: a list of boundaries was expected.")
    try:
        surface = basis_surface(scope, surface_name, where)
    except Unreadable as reason:
        raise Unreadable(str(reason) or kind) from reason
    loops: list[list[Curve]] = []
    tips: list[np.ndarray] = []
    try:
        for bound in bounds:
            curves, points = boundary(scope, bound, where)
            loops += [curves] if curves else []
            tips += points
        if not flag(sense, where):
            loops = [[reverse(curve) for curve in reversed(loop)] for loop in loops]
        if not bounds and isinstance(surface, SplineSurface):
            return surface.whole(), True
        return read_face(surface, loops, scope.uncertainty, np.array(tips) if tips else None)
    except Unreadable as reason:
        if surface.finite:
            return surface.whole(), False
        raise Unreadable(f"{kind} {reason}".strip()) from reason


def boundary(scope: Scope, name: Any, where: str) -> tuple[list[Curve], list[np.ndarray]]:
    """The curves of a FACE_BOUND in its direction, and the points of one that is a point."""
    file, keyword = scope.file, keyword_of(scope.file, name, "FACE_BOUND", where)
    if keyword not in ("FACE_BOUND", "FACE_OUTER_BOUND"):
        raise GeometryError(f"{where}: {file.place(name)} is no FACE_BOUND.")
    loop, orientation = parameters_of(file, name, keyword, 2, where)
    where, kind = file.place(name), keyword_of(file, loop, "loop", where)
    if kind == "VERTEX_LOOP":
        return [], [vertex(scope, parameters_of(file, loop, kind, 1, where)[0], where)]
    (names,) = parameters_of(file, loop, kind if kind in ("EDGE_LOOP", "POLY_LOOP") else "EDGE_LOOP", 1, where)
    found: list[Curve] = []
    if kind == "POLY_LOOP":
        corners = [point(file, corner, where) for corner in listed_names(names, where)]
        for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            if np.linalg.norm(end - start) > 0:
                found += line(start, end - start).piece(0.0, 1.0)
    else:
        for oriented in listed_names(names, where):
            *_, element, forward = parameters_of(file, oriented, "ORIENTED_EDGE", 4, where)
            parts = edge(scope, element, where)
            found += parts if flag(forward, where) else [reverse(part) for part in reversed(parts)]
    return (found if flag(orientation, where) else [reverse(part) for part in reversed(found)]), []
