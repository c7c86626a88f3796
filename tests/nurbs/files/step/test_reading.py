"""STEP files: round trips to the last bit, real files of known radii, all forms of knots, damage with its line."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from nurbs import Curve, Surface, read_geometry, sphere, torus, write_geometry
from nurbs.files.step.writing import real
from tests.nurbs.file_cases import CURVES, SHARED, SURFACES, VOLUMES, assert_equal, in_space, needs_shared, refuse
from tests.nurbs.patches import random

TEXT = """ISO-10303-21;
HEADER;
ENDSEC;
DATA;
#1=CARTESIAN_POINT('',(0.,0.,0.));
#2=CARTESIAN_POINT('',(1.,0.,0.));
#3=CARTESIAN_POINT('',(1.,1.,0.));
#4=CARTESIAN_POINT('',(3.,1.,2.));
#5=B_SPLINE_CURVE_WITH_KNOTS('',2,(#1,#2,#3,#4),.UNSPECIFIED.,.F.,.F.,(3,1,3),(0.,0.5,1.),.UNSPECIFIED.);
#6=(BOUNDED_CURVE()B_SPLINE_CURVE(2,(#1,#2,#3),.UNSPECIFIED.,.F.,.F.)B_SPLINE_CURVE_WITH_KNOTS((3,3),(0.,1.),
.UNSPECIFIED.)CURVE()GEOMETRIC_REPRESENTATION_ITEM()RATIONAL_B_SPLINE_CURVE((1.,0.5,1.))REPRESENTATION_ITEM(''));
ENDSEC;
END-ISO-10303-21;
"""


def steps(patch: Curve | Surface, num: int = 17) -> list[torch.Tensor]:
    return [torch.lerp(a, b, torch.linspace(0, 1, num, dtype=torch.float64)) for a, b in patch.domain()]


@pytest.mark.parametrize("suffix", ["step", "STP"])
@pytest.mark.parametrize("kind", ["curves", "surfaces", "both"])
def test_round_trip(kind: str, suffix: str, tmp_path: Path):
    patches = [*(CURVES.values() if kind != "surfaces" else ()), *(SURFACES.values() if kind != "curves" else ())]
    path = write_geometry(tmp_path / f"a 'name' of µ.{suffix}", patches)
    assert_equal(read_geometry(path), [in_space(patch) for patch in patches])
    assert "a ''name'' of ?" in path.read_text(encoding="ascii")


def test_simple_and_rational_instances(tmp_path: Path):
    path = tmp_path / "p.step"
    path.write_text(TEXT)
    simple, rational = read_geometry(path)
    assert simple.knots[0].tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    assert simple.control_points.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [3, 1, 2]]
    assert (rational.degree, rational.weights.tolist()) == ((2,), [1, 0.5, 1])


@needs_shared
def test_a_real_sphere(tmp_path: Path):
    found = read_geometry(SHARED / "step/sphere.stp")
    assert [type(patch) for patch in found] == [Surface] * 6 + [Curve] * 3  # its axes are free curves
    radii = torch.stack([patch(*steps(patch)).norm(dim=-1) for patch in found[:6]])
    torch.testing.assert_close(radii, torch.ones_like(radii), rtol=1e-14, atol=0)
    assert float(sum(patch.area() for patch in found[:6])) == pytest.approx(4 * torch.pi, rel=1e-12)
    assert_equal(read_geometry(write_geometry(tmp_path / "s.step", found)), found)


@needs_shared
@pytest.mark.slow
def test_a_real_torus():
    """The file holds polynomials, whose tube has the radius 1/2 up to one per cent."""
    found = read_geometry(SHARED / "step/torus.stp")
    assert [(type(patch), patch.degree, patch.weights) for patch in found] == [(Surface, (4, 4), None)] * 30
    x = torch.stack([patch(*steps(patch)) for patch in found])
    tube = torch.hypot(torch.hypot(x[..., 0], x[..., 1]) - 2, x[..., 2] - (x[..., 2].amax() + x[..., 2].amin()) / 2)
    torch.testing.assert_close(tube, torch.full_like(tube, 0.5), rtol=0, atol=1e-2)


@needs_shared
@pytest.mark.slow
def test_a_real_surface_of_freecad(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_geometry(SHARED / "nurbsdiff/STEPFitting/AMSurface.step")
    assert [(patch.degree, patch.shape) for patch in found] == [((5, 4), (168, 8))]
    assert found[0](*steps(found[0])).isfinite().all()
    assert_equal(read_geometry(write_geometry(tmp_path / "s.step", found)), found)


@pytest.mark.parametrize(
    ("form", "inner"),
    [("BEZIER", [0, 0, 0, 1, 1, 2, 2, 2]), ("UNIFORM", [*range(-2, 6)]), ("QUASI_UNIFORM", [0, 0, 0, 1, 2, 3, 3, 3])],
)
def test_forms_of_knots(form: str, inner: list[int], tmp_path: Path):
    """`uniform` and its like are named and not listed, in simple instances and in rational ones."""
    path = tmp_path / "p.step"
    simple = f"#5={form}_CURVE('',2,(#1,#2,#3,#4,#1),.UNSPECIFIED.,.F.,.F.);"
    rational = f"#6=({form}_CURVE()B_SPLINE_CURVE(2,(#1,#2,#3,#4,#1),.UNSPECIFIED.,.F.,.F.)"
    rational += "RATIONAL_B_SPLINE_CURVE((1.,2.,1.,1.,1.)));"
    count = len(inner) - 3
    text = re.sub(r"(?s)#5=.*?\nENDSEC", f"{simple}\n{rational}\nENDSEC", TEXT)
    if count == 4:
        text = text.replace(",#1)", ")").replace(",1.))", "))")
    path.write_text(text)
    found = read_geometry(path)
    assert len(found) == 2
    for curve in found:
        assert curve.degree == (2,)
        assert curve.knots[0].tolist() == inner


ROUND = (
    TEXT[: TEXT.index("#1=")]
    + """#1=CARTESIAN_POINT('',(1.,2.,3.));
#2=DIRECTION('',(1.,1.,0.));
#3=AXIS2_PLACEMENT_3D('',#1,#2,$);
#4=SPHERICAL_SURFACE('',#3,2.5);
#5=TOROIDAL_SURFACE('',#3,3.,0.5);
ENDSEC;
END-ISO-10303-21;
"""
)


def test_spheres_and_tori_become_exact_patches(tmp_path: Path):
    """Whole, at their place, turned as their axes are, and with their normals outwards."""
    path = tmp_path / "p.step"
    path.write_text(ROUND)
    ball, ring = read_geometry(path)
    center = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    offset = ball(*steps(ball)) - center
    torch.testing.assert_close(offset, 2.5 * ball.normal(*steps(ball)), rtol=0, atol=1e-13)
    offset = ring(*steps(ring)) - center
    height = (offset[..., 0] + offset[..., 1]) / 2**0.5
    radius = torch.hypot((offset[..., 0] - offset[..., 1]) / 2**0.5, offset[..., 2])
    tube = torch.hypot(radius - 3, height)
    torch.testing.assert_close(tube, torch.full_like(tube, 0.5), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("#3,2.5", "#3,-2.5", r"line 8, #4: positive radii were expected, .*; got \[-2\.5\]"),
        ("#3,3.,0.5", "#3,0.5,3.", r"line 9, #5: positive radii .* the larger one first; got \[0\.5, 3\.0\]"),
        ("#3,2.5", "#1,2.5", "line 8, #4: line 5, #1 is no AXIS2_PLACEMENT_3D"),
        ("(1.,1.,0.)", "(0.,0.,0.)", "line 8, #4: the axes of its placement are parallel, of no length"),
        ("(1.,1.,0.)", "(1.,1.)", "line 8, #4: a placement of three coordinates was expected"),
    ],
)
def test_damaged_placements(old: str, new: str, cause: str, tmp_path: Path):
    refuse(tmp_path / "p.step", ROUND.replace(old, new, 1), cause)


def test_edges_and_other_surfaces_are_left_out(tmp_path: Path):
    path = write_geometry(tmp_path / "p.step", [torus(), CURVES["circle"], CURVES["unclamped"]])
    text = path.read_text()
    circle = re.findall(r"#(\d+)=\(BOUNDED_CURVE", text)[0]
    path.write_text(text.replace("DATA;\n", f"DATA;\n#900=EDGE_CURVE('',#1,#1,#{circle},.T.);\n"))
    assert [type(patch) for patch in read_geometry(path)] == [Surface, Curve]
    extra = "#901=PLANE('',#1);\n#902=CONICAL_SURFACE('',#1,2.,1.);\n#903=PLANE('',#1);\n"
    path.write_text(text.replace("DATA;\n", "DATA;\n" + extra))
    with pytest.warns(UserWarning, match=r"p\.step: not read are 1 CONICAL_SURFACE, 2 PLANE"):
        assert len(read_geometry(path)) == 3


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (TEXT, "", "it is empty"),
        (TEXT, "ISO-10303-21;\nDATA;\nENDSEC;\nEND-ISO-10303-21;\n", "it holds no curve, surface or volume"),
        (TEXT, TEXT[:300], "it breaks off before END-ISO-10303-21;"),
        ("#4=", "#44=", "line 9, #5: a CARTESIAN_POINT was expected; #4 is not there"),
        ("(#1,#2,#3,#4)", "(#1,#2,#3,$)", "line 9, #5: a CARTESIAN_POINT was expected; none is named"),
        ("(#1,#2,#3,#4)", "(#1,#2,#3,#5)", "line 9, #5: line 9, #5 is no CARTESIAN_POINT with 2 parameters"),
        ("(#1,#2,#3,#4)", "#1", "line 9, #5: lists of control points were expected"),
        ("(#1,#2,#3,#4)", "()", "line 9, #5: rows of equally many control points were expected"),
        ("(#1,#2,#3,#4)", "(#1,#2,#3)", "line 9, #5, knots in u: 6 are needed; got 3 values .* add up to 7"),
        ("(3,1,3)", "(3,3)", "line 9, #5, knots in u: 7 are needed; got 3 values and 2 multiplicities"),
        ("(3,1,3)", "(3,.T.,3)", "line 9, #5, knots in u: numbers were expected"),
        ("(3,1,3)", "(3,1.5,3)", "line 9, #5, knots in u: whole numbers were expected"),
        ("(3,1,3)", "(4,0,3)", "line 9, #5, knots in u: 7 are needed"),
        ("0.5,1.", "1.5,1.", "line 9, #5: .*knots"),
        ("'',2,(#1,#2,#3,#4)", "'',4,(#1,#2,#3,#4)", "line 9, #5: degree 4 in u does not fit 4 control points"),
        ("'',2,(#1,#2,#3,#4)", "'',$,(#1,#2,#3,#4)", "line 9, #5, degree: "),
        (",(0.,0.5,1.),.UNSPECIFIED.)", ")", "line 9, #5, B_SPLINE_CURVE_WITH_KNOTS: 8 parameters were expected"),
        ("(1.,1.,0.)", "(1.,'one',0.)", "line 7, #3: numbers were expected"),
        ("(1.,1.,0.)", "(1.,1.)", "line 9, #5, control points: numbers were expected"),
        ("(1.,1.,0.)", "(1.,1E999,0.)", r"line 9, #5: `control_points` must be finite; got inf at index \[2, 1\]"),
        ("((1.,0.5,1.))", "((1.,0.5))", r"line 10, #6: \(3,\) control points, but weights of shape \(2,\)"),
        ("((1.,0.5,1.))", "((1.,-0.5,1.))", "line 10, #6: `weights` must be positive"),
        ("((1.,0.5,1.))", "((1.,0.5,1.),$)", "line 10, #6: one parameter with the weights was expected"),
    ],
)
def test_damage(old: str, new: str, cause: str, tmp_path: Path):
    assert old in TEXT
    refuse(tmp_path / "p.step", TEXT.replace(old, new, 1), cause)


def test_every_truncation_is_noticed(tmp_path: Path):
    text = write_geometry(tmp_path / "p.step", sphere()).read_text()
    for length in range(13, len(text) - 2, 97):
        refuse(tmp_path / "p.step", text[:length], "it breaks off before END-ISO-10303-21")


def test_what_step_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match=r"STEP files hold curves and surfaces in two or three .* JSON and \.vtu"):
        write_geometry(tmp_path / "p.step", VOLUMES["box"])
    with pytest.raises(ValueError, match="got a `Curve` in 1"):
        write_geometry(tmp_path / "p.step", Curve(random(4, 1)))


@pytest.mark.parametrize(("x", "text"), [(1.0, "1.0"), (1e-7, "1.E-07"), (1e22, "1.E+22"), (-2.5e-300, "-2.5E-300")])
def test_numbers_have_a_decimal_point(x: float, text: str):
    assert real(x) == text
    assert float(text) == x
