"""B-spline curves and surfaces of STEP files, rational or not, and polygons as splines of degree 1."""

from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import make_patch, read_integer, read_integers, read_numbers
from nurbs.files.step.entities import coordinates, parts_of
from nurbs.files.step.syntax import StepFile
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch

FORMS = ("BEZIER", "UNIFORM", "QUASI_UNIFORM")
SPLINES = {
    f"{prefix}_{kind}{suffix}": r
    for r, kind in ((1, "CURVE"), (2, "SURFACE"))
    for prefix, suffix in (("B_SPLINE", "_WITH_KNOTS"), *((form, "") for form in FORMS))
}


def read_spline(file: StepFile, number: int) -> Patch | None:
    """The B-spline that an instance is; None where it is none."""
    keyword = file.keyword(number)
    if keyword in SPLINES:
        (record,) = file.records(number)
        return spline(file, number, keyword, record.parameters[1:])
    return complex_spline(file, number, parts_of(file, number)) if keyword == "" else None


def complex_spline(file: StepFile, number: int, parts: dict[str, list[Any]]) -> Patch | None:
    """An instance composed of a B-spline, the form of its knots, and perhaps weights."""
    for r, kind in ((1, "CURVE"), (2, "SURFACE")):
        forms = [name for name, directions in SPLINES.items() if directions == r and name in parts]
        base = parts.get(f"B_SPLINE_{kind}")
        if base is not None and forms:
            rational = parts.get(f"RATIONAL_B_SPLINE_{kind}")
            if rational is not None and len(rational) != 1:
                raise GeometryError(f"{file.place(number)}: one parameter with the weights was expected.")
            known = [*forms, f"B_SPLINE_{kind}", f"RATIONAL_B_SPLINE_{kind}", f"BOUNDED_{kind}", kind]
            for part in parts:
                if part not in (*known, "GEOMETRIC_REPRESENTATION_ITEM", "REPRESENTATION_ITEM"):
                    raise GeometryError(f"{file.place(number)}: {part} is no part of a B-spline.")
            return spline(file, number, forms[0], base + parts[forms[0]], rational[0] if rational else None)
    return None


def spline(file: StepFile, number: int, form: str, parameters: list[Any], weights: Any = None) -> Patch:
    """A patch from degrees, control points, flags, multiplicities and knots, in this order."""
    r, where = SPLINES[form], file.place(number)
    count = 2 * r + 3 + (2 * r + 1 if form.endswith("_WITH_KNOTS") else 0)
    if len(parameters) != count:
        raise GeometryError(f"{where}, {form}: {count} parameters were expected besides the name.")
    degree = [read_integer(value, f"{where}, degree") for value in parameters[:r]]
    points = control_points(file, parameters[r], r, where)
    table = read_numbers(weights, f"{where}, weights") if weights is not None else None
    if table is not None and table.shape != points.shape[:-1]:
        raise GeometryError(f"{where}: {points.shape[:-1]} control points, but weights of shape {table.shape}.")
    knots = []
    for axis, (p, n) in enumerate(zip(degree, points.shape, strict=False)):
        at = f"{where}, knots in {UVW[axis]}"
        if not 0 <= p < n:
            raise GeometryError(f"{where}: degree {p} in {UVW[axis]} does not fit {n} control points there.")
        if form.endswith("_WITH_KNOTS"):
            repeats, values = (parameters[k] for k in (2 * r + 3 + axis, 3 * r + 3 + axis))
            knots.append(repeated(read_numbers(values, at).ravel(), read_integers(repeats, at), n + p + 1, at))
        elif form.startswith("BEZIER"):
            spans = (n - 1) // max(p, 1)
            knots.append(repeated(np.arange(spans + 1.0), [p + 1, *[p] * (spans - 1), p + 1], n + p + 1, at))
        elif form.startswith("UNIFORM"):
            knots.append(np.arange(-p, n + 1.0))
        else:
            knots.append(np.arange(-p, n + 1.0).clip(0, n - p))
    return make_patch(points, table, knots, degree, where)


def repeated(values: np.ndarray, repeats: list[int], count: int, where: str) -> np.ndarray:
    """The knot vector of these distinct values and multiplicities."""
    if len(values) != len(repeats) or min(repeats, default=0) < 1 or sum(repeats) != count:
        raise GeometryError(
            f"{where}: {count} are needed; got {len(values)} values and {len(repeats)} multiplicities "
            f"that add up to {sum(repeats)}."
        )
    return np.repeat(values, repeats)


def control_points(file: StepFile, names: Any, r: int, where: str) -> np.ndarray:
    """The coordinates of the points that a list, or a list of lists, names."""
    rows = names if r == 2 else [names]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise GeometryError(f"{where}: lists of control points were expected.")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise GeometryError(f"{where}: rows of equally many control points were expected.")
    table = [[coordinates(file, name, "CARTESIAN_POINT", where) for name in row] for row in rows]
    points = read_numbers(table, f"{where}, control points")
    return points if r == 2 else points[0]
