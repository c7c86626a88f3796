"""Faces of STEP files: cut to their boundaries exactly, or whole with a warning; never anything in silence."""

from math import cos, hypot, pi, sin, tan
from pathlib import Path

import numpy as np
import pytest
import torch

from nurbs import GeometryError, Surface, write_geometry
from tests.nurbs.file_cases import read, refuse, size
from tests.nurbs.files.step.builder import Builder

UP = (0.0, 0.0, 1.0)


def ring(b: Builder, radius: float, z: float) -> int:
    return b.edge((radius, 0, z), (radius, 0, z), b.circle(radius, origin=(0, 0, z)))


def arc(b: Builder, radius: float, z: float, first: float, last: float) -> int:
    ends = [(radius * cos(t), radius * sin(t), z) for t in (first, last)]
    return b.edge(ends[0], ends[1], b.circle(radius, origin=(0, 0, z)))


def points(surface: Surface, num: int = 9) -> torch.Tensor:
    lines = [torch.lerp(a, b, torch.linspace(0, 1, num, dtype=torch.float64)) for a, b in surface.domain()]
    return surface(*lines)


def quadric(b: Builder, kind: str, *sizes: float) -> int:
    return b.add(f"{kind}_SURFACE('',#{b.axes()},{','.join(map(repr, map(float, sizes)))})")


@pytest.mark.parametrize("seam", [True, False])
def test_a_whole_cylinder(seam: bool, tmp_path: Path):
    b = Builder()
    low, high = ring(b, 2, 1), ring(b, 2, 4)
    if seam:
        edge = b.segment((2, 0, 1), (2, 0, 4))
        bounds = [b.loop(low, edge, (high, "F"), (edge, "F"))]
    else:
        bounds = [b.loop(low), b.loop((high, "F"), outer=False)]
    b.face(quadric(b, "CYLINDRICAL", 2), *bounds, name="pipe")
    found = read(tmp_path / "p.step", b.text())
    assert size(found[0]) == pytest.approx(2 * pi * 2 * 3, rel=1e-9)
    assert found.names == ["pipe"]
    x = points(found[0])
    torch.testing.assert_close(torch.hypot(x[..., 0], x[..., 1]), torch.full((9, 9), 2.0, dtype=torch.float64))
    assert (float(x[..., 2].min()), float(x[..., 2].max())) == (1.0, 4.0)


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (-0.5, 0.75), (3.0, 4.0), (5.0, 9.0)])
@pytest.mark.parametrize("sense", ["T", "F"])
def test_parts_of_cylinders(first: float, last: float, sense: str, tmp_path: Path):
    """Around the seam as well, and as one patch."""
    b = Builder()
    low, high = arc(b, 2, 1, first, last), arc(b, 2, 4, first, last)
    sides = [b.segment((2 * cos(t), 2 * sin(t), 1), (2 * cos(t), 2 * sin(t), 4)) for t in (first, last)]
    edges = [(low, "T"), (sides[1], "T"), (high, "F"), (sides[0], "F")]
    if sense == "F":
        edges = [(edge, "F" if way == "T" else "T") for edge, way in edges[::-1]]
    b.face(quadric(b, "CYLINDRICAL", 2), b.loop(*edges), sense=sense)
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx((last - first) * 2 * 3, rel=1e-9)
    x = points(found)
    middle = (first + last) / 2
    angle = torch.atan2(x[..., 1], x[..., 0]) - middle
    assert float((angle - (angle / (2 * pi)).round() * 2 * pi).abs().max()) < (last - first) / 2 + 1e-9


@pytest.mark.parametrize("apex", ["seam", "point", "none"])
def test_cones(apex: str, tmp_path: Path):
    b = Builder()
    low = ring(b, 2, 0)
    if apex == "seam":
        edge = b.segment((2, 0, 0), (0, 0, 4))
        bounds = [b.loop(low, edge, (edge, "F"))]
    else:
        bounds = [b.loop(low), *([b.tip(0, 0, 4)] if apex == "point" else [])]
    b.face(quadric(b, "CONICAL", 2, -np.arctan(0.5)), *bounds)
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx(pi * 2 * hypot(2, 4), rel=1e-9)


def test_a_part_of_a_cone_between_two_circles(tmp_path: Path):
    b = Builder()
    angle = 0.3
    low, high = arc(b, 2, 0, 0.5, 2.5), arc(b, 2 + 3 * tan(angle), 3, 0.5, 2.5)
    sides = [
        b.segment((2 * cos(t), 2 * sin(t), 0), ((2 + 3 * tan(angle)) * cos(t), (2 + 3 * tan(angle)) * sin(t), 3))
        for t in (0.5, 2.5)
    ]
    b.face(quadric(b, "CONICAL", 2, angle), b.loop(low, sides[1], (high, "F"), (sides[0], "F")))
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx((2 + 2 + 3 * tan(angle)) * 3 / cos(angle), rel=1e-9)


@pytest.mark.parametrize(("way", "height"), [("T", 2 - 1.2), ("F", 2 + 1.2)])
def test_caps_of_spheres(way: str, height: float, tmp_path: Path):
    """One circle bounds two caps; the inside is to its left."""
    b = Builder()
    r = 1.6
    b.face(quadric(b, "SPHERICAL", 2), b.loop((ring(b, r, 1.2), way)))
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx(2 * pi * 2 * height, rel=1e-9)


def test_spheres_between_circles_and_meridians(tmp_path: Path):
    b = Builder()
    b.face(quadric(b, "SPHERICAL", 2), b.loop(ring(b, 1.6, -1.2)), b.loop((ring(b, 1.6, 1.2), "F"), outer=False))
    south, north = (0, 0, -2), (0, 0, 2)
    meridians = [b.edge(south, north, b.circle(2, z=(sin(t), -cos(t), 0), x=(cos(t), sin(t), 0))) for t in (-0.5, 0.75)]
    b.face(quadric(b, "SPHERICAL", 2), b.loop(meridians[1], (meridians[0], "F")))
    b.face(quadric(b, "SPHERICAL", 2), b.loop(meridians[0], (meridians[1], "F")))
    b.face(quadric(b, "SPHERICAL", 2), b.tip(*south))
    b.face(quadric(b, "SPHERICAL", 2), b.loop(meridians[0], (meridians[0], "F")))
    found = read(tmp_path / "p.step", b.text())
    areas = [2 * pi * 2 * 2.4, 1.25 * 8, (2 * pi - 1.25) * 8, 16 * pi, 16 * pi]
    assert [size(face) for face in found] == pytest.approx(areas, rel=1e-9)


@pytest.mark.parametrize("outside", [True, False])
def test_bands_of_a_torus(outside: bool, tmp_path: Path):
    """The top and the bottom circle bound an outer and an inner band."""
    b = Builder()
    low, high = ring(b, 3, -1), ring(b, 3, 1)
    ways = ("T", "F") if outside else ("F", "T")
    b.face(quadric(b, "TOROIDAL", 3, 1), b.loop((low, ways[0])), b.loop((high, ways[1]), outer=False))
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx(2 * pi * (3 * pi + (2 if outside else -2)), rel=1e-9)


def test_plane_faces(tmp_path: Path):
    """Rectangles, triangles, trapezia with a corner too many, disks, rings, sectors, slots and half disks."""
    b = Builder()
    plane = b.add(f"PLANE('',#{b.axes(origin=(0, 0, 1))})")
    b.face(plane, b.polygon((0, 0, 1), (2, 0, 1), (2, 3, 1), (0, 3, 1)))
    b.face(plane, b.polygon((0, 0, 1), (2, 0, 1), (0, 3, 1)))
    b.face(plane, b.polygon((0, 0, 1), (1, 0, 1), (2, 0, 1), (1, 1, 1), (0, 1, 1)))
    b.face(plane, b.loop(ring(b, 2, 1)))
    b.face(plane, b.loop(ring(b, 2, 1)), b.loop((ring(b, 1, 1), "F"), outer=False))
    ends = [(2 * cos(t), 2 * sin(t), 1) for t in (0.5, 1.5)]
    b.face(plane, b.loop(b.segment((0, 0, 1), ends[0]), arc(b, 2, 1, 0.5, 1.5), b.segment(ends[1], (0, 0, 1))))
    b.face(plane, b.loop(arc(b, 2, 1, 0, pi), b.segment((-2, 0, 1), (2, 0, 1))))
    left, right = (b.circle(1, origin=(x, 0, 1)) for x in (-3, 3))
    turns = [b.edge((3, -1, 1), (3, 1, 1), right), b.edge((-3, 1, 1), (-3, -1, 1), left)]
    b.face(plane, b.loop(turns[0], b.segment((3, 1, 1), (-3, 1, 1)), turns[1], b.segment((-3, -1, 1), (3, -1, 1))))
    long = b.add(f"ELLIPSE('',#{b.axes(origin=(0, 0, 1))},3.,1.)")
    b.face(plane, b.loop(b.edge((3, 0, 1), (3, 0, 1), long)))
    found = read(tmp_path / "p.step", b.text())
    areas = [6, 3, 1.5, 4 * pi, 3 * pi, 2, 2 * pi, 12 + pi, 3 * pi]
    assert [size(face) for face in found] == pytest.approx(areas, rel=1e-9)
    for face in found:
        normal = face.normal(*(torch.lerp(s, e, torch.tensor([0.3], dtype=torch.float64)) for s, e in face.domain()))
        torch.testing.assert_close(normal[0, 0], torch.tensor(UP, dtype=torch.float64))


def test_plane_faces_that_are_no_patch(tmp_path: Path):
    """Holes, many corners, folds: named, not read."""
    b = Builder()
    plane = b.add(f"PLANE('',#{b.axes()})")
    square = [(0, 0, 0), (4, 0, 0), (4, 4, 0), (0, 4, 0)]
    b.face(
        plane,
        b.polygon(*square),
        b.loop((b.edge((3, 2, 0), (3, 2, 0), b.circle(1, origin=(2, 2, 0))), "F"), outer=False),
    )
    b.face(plane, b.polygon((0, 0, 0), (4, 0, 0), (4, 1, 0), (1, 1, 0), (1, 4, 0), (0, 4, 0)))
    b.face(plane, b.polygon((0, 0, 0), (4, 0, 0), (1, 1, 0), (0, 4, 0)))  # a dart folds as a bilinear patch
    b.face(plane, b.polygon(*square))
    warns = r"not read are 3 ADVANCED_FACE \(PLANE inside boundaries that no patch fills\)\.$"
    found = read(tmp_path / "p.step", b.text(), warns)
    assert [size(face) for face in found] == pytest.approx([16.0])


def spline_face(b: Builder, patch: Surface, *bounds: int) -> None:
    names = [[b.point(*p) for p in row] for row in patch.control_points.tolist()]
    rows = ",".join(f"({','.join(f'#{n}' for n in row)})" for row in names)
    distinct = [np.unique(t.numpy(), return_counts=True) for t in patch.knots]
    repeats = ",".join(f"({','.join(map(str, n))})" for _, n in distinct)
    knots = ",".join(f"({','.join(map(repr, t.tolist()))})" for t, _ in distinct)
    degree = ",".join(map(str, patch.degree))
    flags = ".UNSPECIFIED.,.F.,.F.,.F."
    surface = b.add(f"B_SPLINE_SURFACE_WITH_KNOTS('',{degree},({rows}),{flags},{repeats},{knots},.UNSPECIFIED.)")
    b.face(surface, *bounds)


def spline_edge(b: Builder, patch: Surface, *ends: tuple[float, float]) -> int:
    """The polygon through many points of the surface between two of them; exact where it is straight there."""
    t = torch.linspace(0, 1, 2, dtype=torch.float64)[:, None]
    x = patch.at(torch.lerp(torch.tensor(ends[0], dtype=torch.float64), torch.tensor(ends[1], dtype=torch.float64), t))
    return b.segment(tuple(x[0].tolist()), tuple(x[-1].tolist()))


def bilinear(b: Builder, patch: Surface, *corners: tuple[float, float]) -> int:
    return b.loop(*(spline_edge(b, patch, p, q) for p, q in zip(corners, [*corners[1:], corners[0]], strict=True)))


HYPERBOLIC = Surface(torch.tensor([[[0.0, 0, 0], [0, 2, 1]], [[3, 0, 1], [3, 2, 0]]], dtype=torch.float64), degree=1)


def test_spline_faces(tmp_path: Path):
    """On their own sides whole, to the last bit; between parameter lines cut; along others whole, with a warning."""
    b = Builder()
    spline_face(b, HYPERBOLIC, bilinear(b, HYPERBOLIC, (0, 0), (1, 0), (1, 1), (0, 1)))
    u, v = (0.25, 0.75), (0.125, 0.5)
    spline_face(
        b,
        HYPERBOLIC,
        bilinear(b, HYPERBOLIC, *((a, c) for a, c in zip(u + u[::-1], (v[0], v[0], v[1], v[1]), strict=True))),
    )
    spline_face(b, HYPERBOLIC)
    whole, part, free = read(tmp_path / "p.step", b.text())
    assert torch.equal(whole.control_points, HYPERBOLIC.control_points)
    assert torch.equal(free.control_points, HYPERBOLIC.control_points)
    ends = [torch.tensor(pair, dtype=torch.float64) for pair in (u, v)]
    torch.testing.assert_close(part.control_points, HYPERBOLIC(*ends), rtol=0, atol=1e-14)
    assert [tuple(map(float, bounds)) for bounds in part.domain()] == [pytest.approx(u), pytest.approx(v)]
    flat = HYPERBOLIC.replace(control_points=HYPERBOLIC.control_points.clone())
    flat.control_points[..., 2] = 0
    bent = flat.replace(control_points=flat.control_points + torch.tensor([0, 0, 1.0], dtype=torch.float64))
    bent.control_points[0, 0, 2] = 5
    b = Builder()
    spline_face(b, bent, bilinear(b, bent, (1, 0), (1, 1), (0, 1)))
    (found,) = read(tmp_path / "p.step", b.text(), r"p\.step: whole, without their boundaries, are 1 faces \(#\d+\)\.$")
    assert torch.equal(found.control_points, bent.control_points)
    b = Builder()
    spline_face(b, flat, bilinear(b, flat, (0, 0), (1, 0), (0, 1)))
    (found,) = read(tmp_path / "p.step", b.text())
    assert size(found) == pytest.approx(3.0)


def test_edges_beside_their_surface_are_not_followed(tmp_path: Path):
    b = Builder()
    moved = HYPERBOLIC.replace(control_points=HYPERBOLIC.control_points + 0.01)
    spline_face(b, HYPERBOLIC, bilinear(b, moved, (0, 0), (1, 0), (1, 1), (0, 1)))
    read(tmp_path / "p.step", b.text(), "whole, without their boundaries, are 1 faces")
    b = Builder()
    spline_face(
        b, HYPERBOLIC, b.loop(spline_edge(b, HYPERBOLIC, (0, 0), (1, 0)), spline_edge(b, HYPERBOLIC, (1, 0), (1, 1)))
    )
    read(tmp_path / "p.step", b.text(), "whole, without their boundaries, are 1 faces")


def test_surfaces_swept_and_cut(tmp_path: Path):
    b = Builder()
    axis = b.add(f"AXIS1_PLACEMENT('',#{b.point(0, 0, 0)},#{b.direction(0, 0, 1)})")
    profile = b.add(f"POLYLINE('',(#{b.point(1, 0, 0)},#{b.point(2, 0, 1)}))")
    turned = b.add(f"SURFACE_OF_REVOLUTION('',#{profile},#{axis})")
    angles = (0.5, 2.0)
    ends = [[(r * cos(t), r * sin(t), r - 1) for t in angles] for r in (1, 2)]
    sides = [b.segment(ends[0][k], ends[1][k]) for k in range(2)]
    b.face(turned, b.loop(arc(b, 1, 0, *angles), sides[1], (arc(b, 2, 1, *angles), "F"), (sides[0], "F")))
    vector = b.add(f"VECTOR('',#{b.direction(0, 0, 1)},1.)")
    moved = b.add(f"SURFACE_OF_LINEAR_EXTRUSION('',#{b.circle(2)},#{vector})")
    b.face(moved, b.loop(ring(b, 2, -1)), b.loop((ring(b, 2, 2), "F"), outer=False))
    tube = quadric(b, "CYLINDRICAL", 2)
    b.add(f"RECTANGULAR_TRIMMED_SURFACE('',#{tube},0.5,1.5,1.,4.,.T.,.T.)")
    b.add(f"RECTANGULAR_TRIMMED_SURFACE('',#{quadric(b, 'SPHERICAL', 2)},1.5,0.5,0.,{pi / 2!r},.T.,.T.)")
    found = read(tmp_path / "p.step", b.text())
    areas = [1.5 * 1.5 * 2**0.5, 12 * pi, 6, (2 * pi - 1) * 4]
    assert [size(face) for face in found] == pytest.approx(areas, rel=1e-9)
    b.add(f"OFFSET_SURFACE('',#{tube},1.,.F.)")
    b.face(b.add(f"OFFSET_SURFACE('',#{tube},1.,.F.)"), b.loop(ring(b, 3, 0)))
    warns = r"not read are 1 ADVANCED_FACE \(OFFSET_SURFACE\), 1 OFFSET_SURFACE\.$"
    assert len(read(tmp_path / "p.step", b.text(), warns)) == 4


def test_boundaries_without_parameter_lines(tmp_path: Path):
    """A slanted cut through a cylinder: named, because the whole one has no end."""
    b = Builder()
    tilt = b.add(f"ELLIPSE('',#{b.axes(origin=(0, 0, 3), z=(-1, 0, 1), x=(1, 0, 1))},{2 * 2**0.5!r},2.)")
    b.face(
        quadric(b, "CYLINDRICAL", 2),
        b.loop(ring(b, 2, 0)),
        b.loop((b.edge((2, 0, 5), (2, 0, 5), tilt), "F"), outer=False),
    )
    b.face(
        b.add(f"PLANE('',#{b.axes(origin=(0, 0, 3), z=(-1, 0, 1), x=(1, 0, 1))})"),
        b.loop(b.edge((2, 0, 5), (2, 0, 5), tilt)),
    )
    warns = r"1 ADVANCED_FACE \(CYLINDRICAL_SURFACE inside boundaries that no patch fills\)"
    (found,) = read(tmp_path / "p.step", b.text(), warns)
    assert size(found) == pytest.approx(4 * pi * 2**0.5, rel=1e-9)


def test_poly_loops(tmp_path: Path):
    b = Builder()
    corners = [b.point(*x) for x in ((0, 0, 0), (2, 0, 0), (2, 3, 0), (0, 3, 0))]
    loop = b.add(f"POLY_LOOP('',({','.join(f'#{n}' for n in corners)}))")
    b.face(b.add(f"PLANE('',#{b.axes()})"), b.add(f"FACE_OUTER_BOUND('',#{loop},.T.)"))
    assert [size(face) for face in read(tmp_path / "p.step", b.text())] == pytest.approx([6.0])


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("CYLINDRICAL_SURFACE('',", "CYLINDRICAL_SURFACE(", "is no CYLINDRICAL_SURFACE with 3 parameters"),
        (",2.0);", ",-2.0);", "positive lengths were expected"),
        ("VERTEX_POINT('',#", "VERTEX_POINT('',#9", "a CARTESIAN_POINT was expected"),
        ("EDGE_LOOP(", "EDGE_LOOPS(", "is no EDGE_LOOP with 2 parameters"),
        ("FACE_OUTER_BOUND(", "FACE_BOUNDS(", "is no FACE_BOUND"),
        (",.T.);\nENDSEC;\nEND", ",*);\nENDSEC;\nEND", r"\.T\. or \.F\. was expected"),
    ],
)
def test_damage(old: str, new: str, cause: str, tmp_path: Path):
    b = Builder()
    loops = b.loop(ring(b, 2, 0)), b.loop((ring(b, 2, 3), "F"), outer=False)
    b.face(quadric(b, "CYLINDRICAL", 2), *loops)
    assert old in b.text()
    refuse(tmp_path / "p.step", b.text().replace(old, new), cause)


def test_a_cut_patch_survives_the_round_trip(tmp_path: Path):
    """What was cut is written as any other patch."""
    b = Builder()
    b.face(quadric(b, "SPHERICAL", 2), b.loop(ring(b, 1.6, 1.2)), name="cap")
    found = read(tmp_path / "p.step", b.text())
    again = read(write_geometry(tmp_path / "q.igs", found), (tmp_path / "q.igs").read_text())
    assert (size(again[0]), again.names) == (pytest.approx(size(found[0]), rel=1e-14), ["cap"])


def test_nothing_but_unbounded_surfaces(tmp_path: Path):
    b = Builder()
    b.add(f"PLANE('',#{b.axes()})")
    with pytest.raises(GeometryError, match=r"it holds no curve, surface or volume\. not read are 1 PLANE"):
        read(tmp_path / "p.step", b.text())
