"""Writing STEP files: B-splines in one GEOMETRIC_SET of a geometrically bounded representation, under AP 214."""

from datetime import datetime
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from nurbs.files.contents import PatchList, in_metres
from nurbs.files.exchange import in_space, weights_of
from nurbs.files.step.syntax import encoded
from nurbs.files.step.units import PREFIXES
from nurbs.geometry.patch import Patch

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
{unit}
#13=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#14=(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT());
#15=UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-07),#12,'distance_accuracy_value','confusion accuracy');
#16=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT((#15))
GLOBAL_UNIT_ASSIGNED_CONTEXT((#12,#13,#14))REPRESENTATION_CONTEXT('',''));
"""


def write(path: Path, contents: PatchList, name: str) -> None:
    name = name.encode("ascii", "replace").decode().replace("'", "''").replace("\\", "/")
    lines, items, free = [], [], 20
    patches = in_space(contents, "STEP")
    for patch, own in zip(patches, contents.names, strict=True):
        points = patch.control_points.numpy().reshape(-1, 3).tolist()
        lines += [f"#{free + i}=CARTESIAN_POINT('',({listed(map(real, p))}));" for i, p in enumerate(points)]
        names = nested(np.arange(free, free + len(points)).reshape(patch.shape), "#{}".format)
        free += len(points)
        lines.append(f"#{free}={spline_text(patch, names, encoded(own))};")
        items.append(f"#{free}")
        free += 1
    surfaces = any(patch.directions == 2 for patch in patches)
    kind = "SURFACE" if surfaces else "WIREFRAME"
    lines.append(f"#19=GEOMETRIC_{'' if surfaces else 'CURVE_'}SET('',({listed(items)}));")
    lines.append("#18=CARTESIAN_POINT('',(0.,0.,0.));\n#17=AXIS2_PLACEMENT_3D('',#18,$,$);")
    lines.append(f"#11=GEOMETRICALLY_BOUNDED_{kind}_SHAPE_REPRESENTATION('',(#17,#19),#16);")
    time = datetime.now().replace(microsecond=0).isoformat()
    head = (
        HEADER.replace("{name}", name).replace("{time}", time).replace("{unit}", unit_text(contents.unit or "mm", free))
    )
    path.write_text(head + "\n".join(lines) + "\nENDSEC;\nEND-ISO-10303-21;\n", encoding="ascii")


def unit_text(unit: str, free: int) -> str:
    """Instance #12, the unit of length, and what defines it, with numbers from `free` on."""
    metres = in_metres(unit)
    prefix = next((f".{name}." for name, size in PREFIXES.items() if isclose(size, metres)), "$")
    if prefix != "$" or metres == 1:
        return f"#12=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT({prefix},.METRE.));"
    return (
        f"#12=(CONVERSION_BASED_UNIT('{unit.upper()}',#{free})LENGTH_UNIT()NAMED_UNIT(#{free + 1}));\n"
        f"#{free}=LENGTH_MEASURE_WITH_UNIT(LENGTH_MEASURE({real(metres)}),#{free + 2});\n"
        f"#{free + 1}=DIMENSIONAL_EXPONENTS(1.,0.,0.,0.,0.,0.,0.);\n"
        f"#{free + 2}=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT($,.METRE.));"
    )


def spline_text(patch: Patch, names: str, own: str) -> str:
    kind = ("CURVE", "SURFACE")[patch.directions - 1]
    degrees, flags = listed(map(str, patch.degree)), ",".join([".UNSPECIFIED.", *[".F."] * (patch.directions + 1)])
    distinct = [np.unique(t.numpy(), return_counts=True) for t in patch.knots]
    repeats = ",".join(f"({listed(map(str, count))})" for _, count in distinct)
    knots = ",".join(f"({listed(map(real, values.tolist()))})" for values, _ in distinct)
    form = f"{repeats},{knots},.UNSPECIFIED."
    if patch.weights is None:
        return f"B_SPLINE_{kind}_WITH_KNOTS('{own}',{degrees},{names},{flags},{form})"
    parts = [  # in the order of their names, as the standard has it
        *(f"BOUNDED_{kind}()", f"B_SPLINE_{kind}({degrees},{names},{flags})", f"B_SPLINE_{kind}_WITH_KNOTS({form})"),
        *("GEOMETRIC_REPRESENTATION_ITEM()", f"RATIONAL_B_SPLINE_{kind}({nested(weights_of(patch), real)})"),
        f"REPRESENTATION_ITEM('{own}')",
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
