"""Curves of STEP files: cut by parameters and points, in radians and degrees, composed, of every kind."""

from math import asinh, cos, cosh, pi, radians, sin, sinh, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from nurbs import Curve, GeometryError
from nurbs.files.contents import PatchList
from tests.nurbs.file_cases import read, refuse, size, step

BASE = """#1=CARTESIAN_POINT('',(1.,2.,3.));
#2=DIRECTION('',(0.,1.,0.));
#3=DIRECTION('',(0.,0.,1.));
#4=AXIS2_PLACEMENT_3D('',#1,#2,#3);
#5=VECTOR('',#2,2.);
#6=LINE('',#1,#5);
#7=CIRCLE('',#4,2.);
#8=ELLIPSE('',#4,2.,1.);
#9=HYPERBOLA('',#4,2.,1.);
#10=PARABOLA('',#4,0.5);
#11=CARTESIAN_POINT('',(0.,0.,0.));
#12=CARTESIAN_POINT('',(1.,0.,0.));
#13=CARTESIAN_POINT('',(1.,1.,0.));
#14=CARTESIAN_POINT('',(0.,1.,0.));
#15=POLYLINE('',(#11,#12,#13,#14,#11));
#16=B_SPLINE_CURVE_WITH_KNOTS('',1,(#11,#12,#13,#14),.UNSPECIFIED.,.F.,.F.,(2,1,1,2),(0.,1.,2.,3.),.UNSPECIFIED.);
#17=B_SPLINE_CURVE_WITH_KNOTS('',1,(#11,#12,#13,#11),.UNSPECIFIED.,.F.,.F.,(2,1,1,2),(0.,1.,2.,3.),.UNSPECIFIED.);
"""
CENTER, X, Y = np.array([1.0, 2, 3]), np.array([0.0, 0, 1]), np.array([1.0, 0, 0])  # y = z × x
FORMULA = {
    6: lambda t: CENTER + 2 * t * np.array([0.0, 1, 0]),
    7: lambda t: CENTER + 2 * cos(t) * X + 2 * sin(t) * Y,
    8: lambda t: CENTER + 2 * cos(t) * X + sin(t) * Y,
    9: lambda t: CENTER + 2 * cosh(t) * X + sinh(t) * Y,
    10: lambda t: CENTER + 0.5 * (t * t * X + 2 * t * Y),
}


def base(*numbers: int) -> str:
    """Points and axes, and the curves with these numbers."""
    wanted = {1, 2, 3, 4, 5, 11, 12, 13, 14, *numbers}
    return "".join(line for line in BASE.splitlines(True) if int(line[1 : line.index("=")]) in wanted)


def cut(basis: int, first: str, last: str, sense: str = "T", master: str = "PARAMETER", more: str = "") -> str:
    items = f"#20=TRIMMED_CURVE('part',#{basis},({first}),({last}),.{sense}.,.{master}.);\n"
    return step(f"{base(basis)}{more}{items}#21=GEOMETRIC_SET('',(#20));")


def parameter(value: float) -> str:
    return f"PARAMETER_VALUE({value!r})"


def point(number: int, x: np.ndarray) -> str:
    return f"#{number}=CARTESIAN_POINT('',({','.join(map(repr, x.tolist()))}));\n"


def on(curve: Curve, t: float) -> np.ndarray:
    start, end = curve.domain()[0]
    return curve(torch.lerp(start, end, torch.tensor([t], dtype=torch.float64)))[0].numpy()


@pytest.mark.parametrize("basis", FORMULA)
@pytest.mark.parametrize(("first", "last"), [(0.25, 1.5), (-0.5, 0.75)])
@pytest.mark.parametrize("by", ["parameter", "point", "both"])
def test_lines_and_conics_between_parameters_and_points(basis: int, first: float, last: float, by: str, tmp_path: Path):
    """Ends and a point between them lie where the formulas of the standard say."""
    ends = [FORMULA[basis](t) for t in (first, last)]
    more = point(30, ends[0]) + point(31, ends[1])
    said = {"parameter": [parameter(first), parameter(last)], "point": ["#30", "#31"]}
    said["both"] = [",".join(pair) for pair in zip(*said.values(), strict=True)]
    master = "CARTESIAN" if by == "point" else "PARAMETER"
    (curve,) = read(tmp_path / "p.step", cut(basis, *said[by], master=master, more=more))
    np.testing.assert_allclose([on(curve, 0.0), on(curve, 1.0)], ends, atol=1e-12)
    inside = on(curve, 0.5) - CENTER
    a, b = inside @ X, inside @ Y
    residual = {
        6: a**2 + b**2,
        7: a * a + b * b - 4,
        8: a * a / 4 + b * b - 1,
        9: a * a / 4 - b * b - 1,
        10: 2 * a - b * b,
    }
    assert abs(residual[basis]) < 1e-12
    t = {6: inside[1] / 2, 7: np.arctan2(b, a), 8: np.arctan2(b, a / 2), 9: asinh(b), 10: b}[basis]
    assert first < t < last
    assert read(tmp_path / "p.step", cut(basis, *said[by], master=master, more=more)).names == ["part"]


@pytest.mark.parametrize(
    ("basis", "first", "last", "sense", "length"),
    [
        (7, 0.0, 0.5, "T", 1.0),
        (7, 0.5, 0.0, "T", 2 * (2 * pi - 0.5)),  # around the start
        (7, 0.5, 0.0, "F", 1.0),
        (7, 0.0, 0.5, "F", 2 * (2 * pi - 0.5)),
        (7, 0.0, 2 * pi, "T", 4 * pi),
        (7, 1.0, 1.0 + 2 * pi, "T", 4 * pi),
        (6, 0.0, 0.25, "T", 0.5),
        (6, 0.25, 0.0, "F", 0.5),
        (15, 0.5, 2.25, "T", 1.75),
        (15, 3.5, 0.25, "T", 0.75),  # a closed polygon, around its start
        (16, 0.5, 2.25, "T", 1.75),
        (16, 2.25, 0.5, "F", 1.75),
        (17, 2.0, 1.0, "T", 1 + sqrt(2)),
    ],
)
def test_senses_and_closed_curves(basis: int, first: float, last: float, sense: str, length: float, tmp_path: Path):
    found = read(tmp_path / "p.step", cut(basis, parameter(first), parameter(last), sense))
    assert sum(map(size, found)) == pytest.approx(length, rel=1e-6)
    start, end = on(found[0], 0.0), on(found[-1], 1.0)
    if basis in FORMULA:
        np.testing.assert_allclose([start, end], [FORMULA[basis](t) for t in (first, last)], atol=1e-12)


DEGREES = """#40=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#41=PLANE_ANGLE_MEASURE_WITH_UNIT(PLANE_ANGLE_MEASURE({factor}),#40);
#42=(CONVERSION_BASED_UNIT('DEGREE',#41)NAMED_UNIT(#43)PLANE_ANGLE_UNIT());
#43=DIMENSIONAL_EXPONENTS(0.,0.,0.,0.,0.,0.,0.);
#44=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNIT_ASSIGNED_CONTEXT((#42))REPRESENTATION_CONTEXT('',''));
#45=SHAPE_REPRESENTATION('',(#21),#44);
"""


@pytest.mark.parametrize("factor", ["0.017453292519943295", "0.01745329252", "0.0174533"])
def test_degrees(factor: str, tmp_path: Path):
    """Angles of circles and ellipses are in the unit of the context; parameters of lines and splines have none."""
    more = DEGREES.replace("{factor}", factor)
    (found,) = read(tmp_path / "p.step", cut(7, parameter(30.0), parameter(75.0), more=more))
    assert size(found) == pytest.approx(2 * radians(45), rel=1e-12)
    (found,) = read(tmp_path / "p.step", cut(7, parameter(0.0), parameter(360.0), more=more))
    assert size(found) == pytest.approx(4 * pi, rel=1e-7)
    for basis in (6, 15):
        (found,) = read(tmp_path / "p.step", cut(basis, parameter(0.0), parameter(0.5), more=more))
        assert size(found) == pytest.approx(1.0 if basis == 6 else 0.5)


def test_what_is_cut_twice_or_composed(tmp_path: Path):
    text = step(
        base(6, 7, 15)
        + """#20=TRIMMED_CURVE('',#6,(PARAMETER_VALUE(0.)),(PARAMETER_VALUE(4.)),.T.,.PARAMETER.);
#21=TRIMMED_CURVE('',#20,(#30),(#31),.T.,.CARTESIAN.);
#22=TRIMMED_CURVE('',#7,(PARAMETER_VALUE(0.)),(PARAMETER_VALUE(1.)),.T.,.PARAMETER.);
#23=COMPOSITE_CURVE_SEGMENT(.CONTINUOUS.,.F.,#22);
#24=COMPOSITE_CURVE_SEGMENT(.CONTINUOUS.,.T.,#15);
#25=COMPOSITE_CURVE('whole',(#23,#24),.U.);
#26=GEOMETRIC_CURVE_SET('',(#21,#25));
"""
        + point(30, FORMULA[6](1.0))
        + point(31, FORMULA[6](2.5))
    )
    found = read(tmp_path / "p.step", text)
    assert [size(curve) for curve in found] == pytest.approx([3.0, 2.0, 4.0], rel=1e-6)
    assert found.names == ["", "whole", "whole"]
    np.testing.assert_allclose([on(found[1], 0.0), on(found[1], 1.0)], [FORMULA[7](1.0), FORMULA[7](0.0)], atol=1e-12)


def test_whole_curves_and_curves_without_end(tmp_path: Path):
    """Circles, ellipses and polygons are closed; lines, hyperbolas and parabolas have no ends, and are named."""
    text = step(base(6, 7, 8, 9, 10, 15, 16) + "#20=GEOMETRIC_CURVE_SET('',(#6,#7,#8,#9,#10,#15,#16));")
    warns = r"p\.step: not read are 1 HYPERBOLA, 1 LINE, 1 PARABOLA\."
    found = read(tmp_path / "p.step", text, warns)
    assert [size(curve) for curve in found] == pytest.approx([4 * pi, 9.688448220547675, 4, 3], rel=1e-5)
    assert found.remarks == ["not read are 1 HYPERBOLA, 1 LINE, 1 PARABOLA"]


def edge(first: int, last: int, basis: int, sense: str) -> str:
    return f"""#20=VERTEX_POINT('',#{first});
#21=VERTEX_POINT('',#{last});
#22=EDGE_CURVE('',#20,#21,#{basis},.{sense}.);
#23=CONNECTED_EDGE_SET('',(#22));
#24=EDGE_BASED_WIREFRAME_MODEL('frame',(#23));
#25=SHAPE_REPRESENTATION('',(#24),$);
"""


@pytest.mark.parametrize(("sense", "length"), [("T", 2.0), ("F", 4 * pi - 2)])
def test_edges_of_wire_frames(sense: str, length: float, tmp_path: Path):
    more = point(30, FORMULA[7](0.5)) + point(31, FORMULA[7](1.5))
    found = read(tmp_path / "p.step", step(base(7) + more + edge(30, 31, 7, sense)))
    assert [size(curve) for curve in found] == pytest.approx([length], rel=1e-6)
    np.testing.assert_allclose([on(found[0], 0.0), on(found[0], 1.0)], [FORMULA[7](0.5), FORMULA[7](1.5)], atol=1e-12)
    assert found.names == ["frame"]
    found = read(tmp_path / "p.step", step(base(16) + edge(13, 11, 16, "F")))
    assert sum(map(size, found)) == pytest.approx(2.0)


def test_edges_of_nothing_are_named(tmp_path: Path):
    text = base(7, 15) + edge(30, 31, 7, "T") + point(30, FORMULA[7](0.5)) + point(31, FORMULA[7](1.5))
    text = text[: text.index("#23=")] + "#23=GEOMETRIC_CURVE_SET('',(#15));\n" + text[text.index("#30=") :]
    assert len(read(tmp_path / "p.step", step(text), r"not read are 1 EDGE_CURVE\.$")) == 1


def check_left_out(text: str, why: str, path: Path) -> None:
    """Beside a polygon that is read."""
    polygon = BASE[BASE.index("#15=") : BASE.index("#16=")]
    whole = text.replace("#21=GEOMETRIC_SET('',(#20))", polygon + "#21=GEOMETRIC_SET('',(#20,#15))")
    found: PatchList = read(path, whole, f"not read are 1 {why}")
    assert [size(curve) for curve in found] == pytest.approx([4.0])
    with pytest.raises(GeometryError, match=rf"it holds no curve, surface or volume\. not read are 1 {why}"):
        read(path, text)


def test_contradictions_are_named_and_not_read(tmp_path: Path):
    path, more = tmp_path / "p.step", point(30, FORMULA[7](0.5)) + point(31, FORMULA[7](1.5) + 0.1)
    both = cut(7, f"#30,{parameter(0.6)}", parameter(2.0), more=more)
    check_left_out(both, r"TRIMMED_CURVE \(its points and parameters differ\)", path)
    check_left_out(cut(7, "#30", "#31", more=more), r"TRIMMED_CURVE \(cut at points beside it\)", path)
    check_left_out(cut(16, parameter(0.0), parameter(9.0)), r"TRIMMED_CURVE \(cut where it is not\)", path)
    check_left_out(cut(16, parameter(2.0), parameter(1.0)), r"TRIMMED_CURVE \(cut where it is not\)", path)
    offset = "#32=OFFSET_CURVE_3D('',#7,1.,.F.,#2);\n"
    check_left_out(
        cut(32, parameter(0.0), parameter(1.0), more=BASE[BASE.index("#7=") : BASE.index("#8=")] + offset),
        r"TRIMMED_CURVE \(OFFSET_CURVE_3D\)",
        path,
    )


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("(PARAMETER_VALUE(0.5))", "()", "#20: a list of instances was expected"),
        ("(PARAMETER_VALUE(0.5))", "(#2)", "#20: line 9, #2 is no CARTESIAN_POINT"),
        ("(PARAMETER_VALUE(0.5))", "(#999)", "#20: a CARTESIAN_POINT was expected; #999 is not there"),
        ("PARAMETER_VALUE(0.5)", "PARAMETER_VALUE('x')", "#20: numbers were expected"),
        ("PARAMETER_VALUE(0.5)", "LENGTH_MEASURE(0.5)", "#20: a PARAMETER_VALUE or a point was expected"),
        (".T.,.PARAMETER.", "$,.PARAMETER.", r"#20: \.T\. or \.F\. was expected"),
        ("'part',#7", "'part',#20", "#20: it refers to itself"),
        ("'part',#7", "'part',#999", "#20: a curve was expected; #999 is not there"),
        ("CIRCLE('',#4,2.)", "CIRCLE('',#4,-2.)", "#7: positive lengths were expected"),
        ("CIRCLE('',#4,2.)", "CIRCLE('',#1,2.)", "#7: line 8, #1 is no AXIS2_PLACEMENT_3D"),
        ("CIRCLE('',#4,2.)", "CIRCLE('',#4)", "#7: .* is no CIRCLE with 3 parameters"),
    ],
)
def test_damage(old: str, new: str, cause: str, tmp_path: Path):
    text = cut(7, parameter(0.5), parameter(1.0))
    assert old in text
    refuse(tmp_path / "p.step", text.replace(old, new, 1), cause)
