"""STEP files (ISO 10303-21; entities of ISO 10303-42): B-spline curves and surfaces, rational or not, of any AP.

Read are B_SPLINE_SURFACE/CURVE_WITH_KNOTS and the BEZIER_, UNIFORM_ and QUASI_UNIFORM_ forms, and SPHERICAL_SURFACE
and TOROIDAL_SURFACE as exact rational patches. Surfaces come whole: the loops that trim faces are passed over, and so
are the curves that serve faces as edges where the file holds surfaces. Coordinates stay in the file's own unit of
length and in the frame of each part: the transformations of assemblies are not applied. Unbounded surfaces (planes,
cylinders, cones) and those derived from others are left out with a warning.

Written are B-splines in one GEOMETRIC_SET of a geometrically bounded representation, in millimetres, under AP 214.
"""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nurbs.errors import GeometryError
from nurbs.files.exchange import (
    in_space,
    make_patch,
    read_integer,
    read_integers,
    read_numbers,
    read_text,
    warn_of,
    weights_of,
)
from nurbs.files.step_syntax import Reference, StepFile, StepRecord
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch
from nurbs.modelling.primitives import sphere, torus
from nurbs.modelling.transformation import transform

FORMS = ("BEZIER", "UNIFORM", "QUASI_UNIFORM")
SPLINES = {
    f"{prefix}_{kind}{suffix}": r
    for r, kind in ((1, "CURVE"), (2, "SURFACE"))
    for prefix, suffix in (("B_SPLINE", "_WITH_KNOTS"), *((form, "") for form in FORMS))
}
EDGES = ("EDGE_CURVE", "SURFACE_CURVE", "SEAM_CURVE", "INTERSECTION_CURVE", "PCURVE", "DEFINITIONAL_REPRESENTATION")
EDGES += ("TRIMMED_CURVE",)
LEFT_OUT = ("PLANE", "CYLINDRICAL_SURFACE", "CONICAL_SURFACE", "DEGENERATE_TOROIDAL_SURFACE")
LEFT_OUT += ("SURFACE_OF_LINEAR_EXTRUSION", "SURFACE_OF_REVOLUTION", "OFFSET_SURFACE")
LEFT_OUT += ("RECTANGULAR_TRIMMED_SURFACE", "CURVE_BOUNDED_SURFACE")
LEFT_OUT += ("MAPPED_ITEM", "REPRESENTATION_RELATIONSHIP_WITH_TRANSFORMATION")


def read(path: Path) -> list[Patch]:
    file = StepFile(read_text(path))
    keywords = {number: file.keyword(number) for number in file.bodies}
    edges: set[int] = set()
    found: list[tuple[int, Patch]] = []
    others: Counter[str] = Counter()
    for number, keyword in keywords.items():
        if keyword in EDGES:
            edges.update(file.references(number))
        elif keyword in SPLINES:
            (record,) = file.records(number)
            found.append((number, spline(file, number, keyword, record.parameters[1:])))
        elif keyword == "":
            parts = {record.keyword: record.parameters for record in file.records(number)}
            if (patch := complex_spline(file, number, parts)) is not None:
                found.append((number, patch))
            others.update(part for part in parts if part in LEFT_OUT)
        elif keyword in ("SPHERICAL_SURFACE", "TOROIDAL_SURFACE"):
            found.append((number, surface_of_circles(file, number)))
        elif keyword in LEFT_OUT:
            others[keyword] += 1
    warn_of(others, path)
    if any(patch.directions == 2 for _, patch in found):
        found = [(number, patch) for number, patch in found if patch.directions == 2 or number not in edges]
    return [patch for _, patch in found]


# -- B-splines ---------------------------------------------------------------------------------------------------------


def complex_spline(file: StepFile, number: int, parts: dict[str, list[Any]]) -> Patch | None:
    """An instance composed of a B-spline, the form of its knots, and perhaps weights."""
    for r, kind in ((1, "CURVE"), (2, "SURFACE")):
        forms = [name for name, directions in SPLINES.items() if directions == r and name in parts]
        base = parts.get(f"B_SPLINE_{kind}")
        if base is not None and forms:
            rational = parts.get(f"RATIONAL_B_SPLINE_{kind}")
            if rational is not None and len(rational) != 1:
                raise GeometryError(f"{file.place(number)}: one parameter with the weights was expected.")
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


def coordinates(file: StepFile, name: Any, keyword: str, where: str) -> list[float]:
    (values,) = parameters_of(file, name, keyword, 1, where)
    return read_numbers(values, file.place(name)).ravel().tolist()


def parameters_of(file: StepFile, name: Any, keyword: str, count: int, where: str) -> list[Any]:
    """The parameters, without the name, of an instance of one kind."""
    if not isinstance(name, Reference) or name not in file.bodies:
        raise GeometryError(
            f"{where}: a {keyword} was expected; {f'#{name} is not there' if name else 'none is named'}."
        )
    record: StepRecord = file.records(name)[0]
    if record.keyword != keyword or len(record.parameters) != count + 1:
        raise GeometryError(f"{where}: {file.place(name)} is no {keyword} with {count + 1} parameters.")
    return record.parameters[1:]


# -- spheres and tori --------------------------------------------------------------------------------------------------


def surface_of_circles(file: StepFile, number: int) -> Patch:
    """A sphere or a torus, whole, u the angle about its axis and v the other one, both scaled to [0, 1]."""
    where, (record,) = file.place(number), file.records(number)
    count = 1 if record.keyword == "SPHERICAL_SURFACE" else 2
    placement, *lengths = parameters_of(file, Reference(number), record.keyword, 1 + count, where)
    radii = [float(x) for x in read_numbers(lengths, f"{where}, radii").ravel()]
    if len(radii) != count or not all(0 < x < np.inf for x in radii) or radii[-1] > radii[0]:
        raise GeometryError(f"{where}: positive radii were expected, of a torus the larger one first; got {radii}.")
    origin, frame = axes(file, placement, where)
    patch = sphere(radii[0]) if count == 1 else torus(radii[0], radii[1])
    return transform(patch, torch.tensor(frame.T, device="cpu"), torch.tensor(origin, device="cpu"))


def axes(file: StepFile, name: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Origin and orthonormal axes "3 3" of an AXIS2_PLACEMENT_3D, its z axis and approximate x axis given or not."""
    point, *directions = parameters_of(file, name, "AXIS2_PLACEMENT_3D", 3, where)
    origin = read_numbers(coordinates(file, point, "CARTESIAN_POINT", where), where)
    z, x = (None if d is None else read_numbers(coordinates(file, d, "DIRECTION", where), where) for d in directions)
    z = np.array([0.0, 0, 1]) if z is None else z
    if x is None:
        x = np.array([1.0, 0, 0]) if z.shape != (3,) or abs(z[0]) < 0.9 * np.linalg.norm(z) else np.array([0.0, 1, 0])
    if not origin.shape == z.shape == x.shape == (3,):
        raise GeometryError(f"{where}: a placement of three coordinates was expected.")
    with np.errstate(all="ignore"):
        z = z / np.linalg.norm(z)
        x = x - (x @ z) * z
        frame = np.stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z])
    if not np.isfinite(frame).all() or not np.isfinite(origin).all():
        raise GeometryError(f"{where}: the axes of its placement are parallel, of no length, or not finite.")
    return origin, frame


# -- writing -----------------------------------------------------------------------------------------------------------

HEADER = """ISO-10303-21;
HEADER;
FILE_DESCRIPTION((''),'2;1');
FILE_NAME('{name}','{time}',(''),(''),'ritz','ritz','');
FILE_SCHEMA(('AUTOMOTIVE_DESIGN { 1 0 10303 214 1 1 1 1 }'));
ENDSEC;
DATA;
#1=APPLICATION_CONTEXT('core data for automotive mechanical design processes');
#2=APPLICATION_PROTOCOL_DEFINITION('international standard','automotive_design',2000,#1);
#3=PRODUCT_CONTEXT('',#1,'mechanical');
#4=PRODUCT('{name}','{name}','',(#3));
#5=PRODUCT_RELATED_PRODUCT_CATEGORY('part',$,(#4));
#6=PRODUCT_DEFINITION_FORMATION('','',#4);
#7=PRODUCT_DEFINITION_CONTEXT('part definition',#1,'design');
#8=PRODUCT_DEFINITION('design','',#6,#7);
#9=PRODUCT_DEFINITION_SHAPE('','',#8);
#10=SHAPE_DEFINITION_REPRESENTATION(#9,#11);
#12=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));
#13=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#14=(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT());
#15=UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-07),#12,'distance_accuracy_value','confusion accuracy');
#16=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT((#15))
GLOBAL_UNIT_ASSIGNED_CONTEXT((#12,#13,#14))REPRESENTATION_CONTEXT('',''));
"""


def write(path: Path, patches: list[Patch], name: str) -> None:
    name = name.encode("ascii", "replace").decode().replace("'", "''").replace("\\", "/")
    lines, items, free = [], [], 20
    patches = in_space(patches, "STEP")
    for patch in patches:
        points = patch.control_points.numpy().reshape(-1, 3).tolist()
        lines += [f"#{free + i}=CARTESIAN_POINT('',({listed(map(real, p))}));" for i, p in enumerate(points)]
        names = nested(np.arange(free, free + len(points)).reshape(patch.shape), "#{}".format)
        free += len(points)
        lines.append(f"#{free}={spline_text(patch, names)};")
        items.append(f"#{free}")
        free += 1
    surfaces = any(patch.directions == 2 for patch in patches)
    kind = "SURFACE" if surfaces else "WIREFRAME"
    lines.append(f"#19=GEOMETRIC_{'' if surfaces else 'CURVE_'}SET('',({listed(items)}));")
    lines.append("#18=CARTESIAN_POINT('',(0.,0.,0.));\n#17=AXIS2_PLACEMENT_3D('',#18,$,$);")
    lines.append(f"#11=GEOMETRICALLY_BOUNDED_{kind}_SHAPE_REPRESENTATION('',(#17,#19),#16);")
    time = datetime.now().replace(microsecond=0).isoformat()
    head = HEADER.replace("{name}", name).replace("{time}", time)
    path.write_text(head + "\n".join(lines) + "\nENDSEC;\nEND-ISO-10303-21;\n", encoding="ascii")


def spline_text(patch: Patch, names: str) -> str:
    kind = ("CURVE", "SURFACE")[patch.directions - 1]
    degrees, flags = listed(map(str, patch.degree)), ",".join([".UNSPECIFIED.", *[".F."] * (patch.directions + 1)])
    distinct = [np.unique(t.numpy(), return_counts=True) for t in patch.knots]
    repeats = ",".join(f"({listed(map(str, count))})" for _, count in distinct)
    knots = ",".join(f"({listed(map(real, values.tolist()))})" for values, _ in distinct)
    form = f"{repeats},{knots},.UNSPECIFIED."
    if patch.weights is None:
        return f"B_SPLINE_{kind}_WITH_KNOTS('',{degrees},{names},{flags},{form})"
    parts = [  # in the order of their names, as the standard has it
        *(f"BOUNDED_{kind}()", f"B_SPLINE_{kind}({degrees},{names},{flags})", f"B_SPLINE_{kind}_WITH_KNOTS({form})"),
        *("GEOMETRIC_REPRESENTATION_ITEM()", f"RATIONAL_B_SPLINE_{kind}({nested(weights_of(patch), real)})"),
        "REPRESENTATION_ITEM('')",
    ]
    parts.insert(3 if kind == "CURVE" else 6, f"{kind}()")
    return "(" + "\n".join(parts) + ")"


def listed(words: Any) -> str:
    """Words with commas, in lines of some eighty signs."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 78:
            lines.append("")
        lines[-1] += word + ","
    return "\n".join(lines)[:-1]


def nested(values: np.ndarray, text: Any) -> str:
    rows = values.tolist() if values.ndim == 2 else [values.tolist()]
    inner = [f"({listed(map(text, row))})" for row in rows]
    return f"({','.join(inner)})" if values.ndim == 2 else inner[0]


def real(x: float) -> str:
    """The shortest text that gives the same number, with the decimal point that STEP wants."""
    mantissa, _, exponent = repr(float(x)).partition("e")
    return mantissa + ("" if "." in mantissa else ".") + (f"E{exponent}" if exponent else "")
