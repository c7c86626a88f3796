"""STEP: the syntax of instances, all forms of B-splines, spheres and tori as exact patches."""

from pathlib import Path

import pytest
import torch

from nurbs import Curve, GeometryError, read_geometry
from nurbs.step_syntax import Enumeration, Record, StepFile

SHARED = Path(__file__).parents[3] / "shared" / "nurbs" / "step"


def file(*statements: str) -> str:
    return "\n".join(["ISO-10303-21;", "HEADER;", "ENDSEC;", "DATA;", *statements, "ENDSEC;", "END-ISO-10303-21;"])


POINTS = [f"#{i}=CARTESIAN_POINT('',({float(i)},{float(i * i)},0.));" for i in range(1, 8)]
NAMES = "(#1,#2,#3,#4,#5,#6,#7)"


def test_parameters_of_every_kind():
    found = StepFile(file("#7 = thing ( 'it''s; #1 /* no comment */', -1.5E-3, (#3,(2)), .T., $, *, LENGTH(2.) );"))
    text = "it's; #1 /* no comment */"
    wanted = Record("THING", [text, -0.0015, [3, [2.0]], Enumeration("T"), None, None, Record("LENGTH", [2.0])])
    assert found.records(7) == [wanted]
    assert StepFile(file("/* #1=A(); */ #2=(A(1)B());")).records(2) == [Record("A", [1.0]), Record("B", [])]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("#1=A(1 2);", r"line 5, #1: a comma is missing"),
        ("#1=A(,1);", "a parameter is missing before the comma"),
        ("#1=A((1);", "breaks off before its last parenthesis"),
        ("#1=A(1));", "one parenthesis too many"),
        ("#1=A(1);#1=A(2);", "#1 is there already"),
        ("#1=A(&);", "'&.*' is no STEP"),
    ],
)
def test_errors_of_syntax_name_line_and_instance(statement, message):
    with pytest.raises(GeometryError, match=message):
        StepFile(file(statement)).records(1)


@pytest.mark.parametrize(
    ("form", "knots"),
    [
        (
            "B_SPLINE_CURVE_WITH_KNOTS('',3,%s,.U.,.F.,.F.,(4,1,2,4),(0.,0.5,2.,3.),.U.)",
            [0, 0, 0, 0, 0.5, 2, 2, 3, 3, 3, 3],
        ),
        ("BEZIER_CURVE('',3,%s,.UNSPECIFIED.,.F.,.F.)", [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]),
        ("UNIFORM_CURVE('',3,%s,.UNSPECIFIED.,.F.,.F.)", list(range(-3, 8))),
        ("QUASI_UNIFORM_CURVE('',3,%s,.UNSPECIFIED.,.F.,.F.)", [0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4]),
    ],
)
def test_all_forms_of_knots(form, knots, tmp_path):
    path = tmp_path / "curve.stp"
    path.write_text(file(*POINTS, f"#20={form % NAMES};"))
    (curve,) = read_geometry(path)
    assert curve.knots[0].tolist() == knots
    assert torch.equal(curve.control_points[:, 1], torch.arange(1, 8, dtype=torch.float64) ** 2)


def test_rational_instances_are_composed_of_records(tmp_path):
    text = f"""#20=(BOUNDED_CURVE()B_SPLINE_CURVE(6,{NAMES},.UNSPECIFIED.,.F.,.F.)
    B_SPLINE_CURVE_WITH_KNOTS((7,7),(0.,1.),.UNSPECIFIED.)CURVE()GEOMETRIC_REPRESENTATION_ITEM()
    RATIONAL_B_SPLINE_CURVE((1.,2.,3.,4.,3.,2.,1.))REPRESENTATION_ITEM(''));"""
    path = tmp_path / "curve.stp"
    path.write_text(file(*POINTS, text))
    (curve,) = read_geometry(path)
    assert isinstance(curve, Curve)
    assert curve.weights is not None
    assert curve.weights.tolist() == [1, 2, 3, 4, 3, 2, 1]
    path.write_text(file(*POINTS, text.replace("4.,", "")))
    with pytest.raises(GeometryError, match=r"line 12, #20: \(7,\) control points, but weights of shape \(6,\)"):
        read_geometry(path)


def test_spheres_and_tori_become_exact_patches(tmp_path):
    placement = [
        "#30=CARTESIAN_POINT('',(1.,2.,3.));",
        "#31=DIRECTION('',(1.,1.,0.));",
        "#32=AXIS2_PLACEMENT_3D('',#30,#31,$);",
    ]
    path = tmp_path / "round.step"
    path.write_text(file(*placement, "#1=SPHERICAL_SURFACE('',#32,2.5);", "#2=TOROIDAL_SURFACE('',#32,3.,0.5);"))
    ball, ring = read_geometry(path)
    center = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    u, v = (torch.linspace(float(a), float(b), 41, dtype=torch.float64) for a, b in ball.domain())
    offset = ball(u, v) - center
    assert (offset.norm(dim=-1) / 2.5 - 1).abs().max() < 1e-14
    assert ((ball.normal(u, v) * offset).sum(-1) / 2.5 - 1).abs().max() < 1e-13
    u, v = (torch.linspace(float(a), float(b), 41, dtype=torch.float64) for a, b in ring.domain())
    offset = ring(u, v) - center
    height = offset @ torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64) / 2**0.5
    radius = (offset.square().sum(-1) - height**2).clamp_min(0).sqrt()
    assert (((radius - 3) ** 2 + height**2).sqrt() / 0.5 - 1).abs().max() < 1e-12


def test_what_is_not_read_is_said(tmp_path):
    path = tmp_path / "plane.step"
    path.write_text(
        file(*POINTS, f"#20=BEZIER_CURVE('',6,{NAMES},.U.,.F.,.F.);", "#21=PLANE('',$);", "#22=PLANE('',$);")
    )
    with pytest.warns(UserWarning, match="not read are 2 PLANE"):
        assert len(read_geometry(path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#20=BEZIER_CURVE('',6,(#1,#2,#3,#99),.U.,.F.,.F.);", "#20: a CARTESIAN_POINT was expected; #99 is not there"),
        ("#20=BEZIER_CURVE('',9,(#1,#2),.U.,.F.,.F.);", "degree 9 in u does not fit 2 control points"),
        ("#20=BEZIER_CURVE('',1.5,(#1,#2),.U.,.F.,.F.);", "degree: whole numbers were expected"),
        ("#20=BEZIER_CURVE('',1,#1,.U.,.F.,.F.);", "lists of control points were expected"),
        ("#20=BEZIER_CURVE('',1);", "5 parameters were expected besides the name"),
        ("#20=B_SPLINE_CURVE_WITH_KNOTS('',1,(#1,#2),.U.,.F.,.F.,(2,1),(0.,1.),.U.);", "4 are needed"),
    ],
)
def test_errors_name_the_instance(text, message, tmp_path):
    path = tmp_path / "bad.step"
    path.write_text(file(*POINTS, text))
    with pytest.raises(GeometryError, match=message):
        read_geometry(path)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared third-party files")
def test_a_sphere_of_another_program():
    patches = [patch for patch in read_geometry(SHARED / "sphere.stp") if patch.directions == 2]
    assert len(patches) == 6
    for patch in patches:
        box = [torch.linspace(float(a), float(b), 21, dtype=torch.float64) for a, b in patch.domain()]
        assert (patch(*box).norm(dim=-1) - 1).abs().max() < 1e-12
