"""Curves, surfaces, faces and subfigures of IGES files, made by hand; what is not read is named."""

from itertools import pairwise
from math import acosh, cos, cosh, hypot, pi, sin, sinh
from pathlib import Path

import numpy as np
import pytest
import torch

from nurbs import Curve, GeometryError, Surface
from tests.nurbs.file_cases import iges, read, refuse, size

TURN = (124, "124,0.,-1.,0.,10.,1.,0.,0.,20.,0.,0.,1.,30.;", {})  # x to y, and moved
CUBIC = "112,3,1,3,2,0.,1.,3.,0.,3.,0.,0.,0.,4.,0.,0.,0.,0.,0.,0.,3.,3.,0.,0.,4.,4.,0.,0.,0.,0.,0.,0.;"
SQUARE = "128,1,1,1,1,0,0,1,0,0,0,0,1,1,0,0,1,1,1,1,1,1,0,0,0,1,0,0,0,1,0,1,1,0,0,1,0,1;"


def ends(curve: Curve) -> np.ndarray:
    return curve(torch.stack(curve.domain()[0])).numpy()


@pytest.mark.parametrize(
    ("kind", "text", "form", "length", "start", "end"),
    [
        (110, "110,1.,2.,3.,4.,6.,3.;", 0, 5.0, (1, 2, 3), (4, 6, 3)),
        (100, "100,5.,1.,2.,3.,2.,1.,4.;", 0, pi, (3, 2, 5), (1, 4, 5)),
        (100, "100,5.,1.,2.,1.,4.,3.,2.;", 0, 3 * pi, (1, 4, 5), (3, 2, 5)),  # counterclockwise
        (100, "100,5.,1.,2.,3.,2.,3.,2.;", 0, 4 * pi, (3, 2, 5), (3, 2, 5)),
        (104, "104,1.,0.,1.,0.,0.,-4.,5.,2.,0.,0.,2.;", 1, pi, (2, 0, 5), (0, 2, 5)),
        (104, "104,1.,0.,1.,0.,0.,-4.,5.,0.,2.,2.,0.;", 1, 3 * pi, (0, 2, 5), (2, 0, 5)),
        (106, "106,1,3,2.,0.,0.,3.,0.,3.,4.;", 11, 7.0, (0, 0, 2), (3, 4, 2)),
        (106, "106,2,3,0.,0.,2.,3.,0.,2.,3.,4.,2.;", 12, 7.0, (0, 0, 2), (3, 4, 2)),
        (106, "106,2,3,0.,0.,2.,3.,0.,2.,3.,4.,2.;", 63, 12.0, (0, 0, 2), (0, 0, 2)),
        (106, "106,3,2,0.,0.,2.,9.,9.,9.,3.,0.,2.,9.,9.,9.;", 13, 3.0, (0, 0, 2), (3, 0, 2)),
        (112, CUBIC, 0, 15.0, (0, 0, 0), (9, 12, 0)),
    ],
)  # fmt: skip
def test_curves(kind: int, text: str, form: int, length: float, start: tuple, end: tuple, tmp_path: Path):
    found = read(tmp_path / "p.igs", iges([(kind, text, {"form": form})]))
    assert sum(map(size, found)) == pytest.approx(length, rel=1e-6)
    np.testing.assert_allclose([ends(found[0])[0], ends(found[-1])[1]], [start, end], atol=1e-14)


def test_other_conics(tmp_path: Path):
    """A turned ellipse, a hyperbola and a parabola: the middle lies on them, and between their ends."""
    c, s = cos(0.3), sin(0.3)

    def turned(x: float, y: float) -> tuple[float, float]:
        return c * x - s * y, s * x + c * y

    a, b, d = c * c / 4 + s * s, 2 * c * s * (1 / 4 - 1), s * s / 4 + c * c  # x²/4 + y² = 1 in turned axes
    numbers = [a, b, d, 0.0, 0.0, -1.0, 0.0, *turned(2, 0), *turned(-2, 0)]
    text = f"104,{','.join(map(repr, numbers))};"
    (curve,) = read(tmp_path / "p.igs", iges([(104, text, {"form": 1})]))
    assert size(curve) == pytest.approx(9.688448220547675 / 2, rel=1e-6)
    x = curve(torch.tensor([0.5], dtype=torch.float64))[0]
    np.testing.assert_allclose(x.numpy(), [*turned(0, 1), 0], atol=1e-12)
    hyperbola = [0.25, 0.0, -1.0, 0.0, 0.0, -1.0, 0.0, 2 * cosh(1), -sinh(1), 2 * cosh(0.5), sinh(0.5)]
    (curve,) = read(tmp_path / "p.igs", iges([(104, f"104,{','.join(map(repr, hyperbola))};", {"form": 2})]))
    x = curve(torch.linspace(0, 1, 7, dtype=torch.float64))
    torch.testing.assert_close(x[:, 0] ** 2 / 4 - x[:, 1] ** 2, torch.ones(7, dtype=torch.float64))
    assert acosh(float(x[0, 0]) / 2) == pytest.approx(1)
    parabola = [1.0, 0.0, 0.0, 2.0, -4.0, 9.0, 0.0, -3.0, 3.0, 3.0, 6.0]  # y = (x² + 2 x + 9) / 4
    (curve,) = read(tmp_path / "p.igs", iges([(104, f"104,{','.join(map(repr, parabola))};", {"form": 3})]))
    x = curve(torch.linspace(0, 1, 7, dtype=torch.float64))
    torch.testing.assert_close(4 * x[:, 1], x[:, 0] ** 2 + 2 * x[:, 0] + 9)
    np.testing.assert_allclose(ends(curve)[:, :2], [[-3, 3], [3, 6]], atol=1e-12)


def test_composites_and_transformations_of_transformations(tmp_path: Path):
    """A line and an arc, both moved themselves, and moved together; a matrix may have one of its own."""
    entities = [
        (102, "102,2,3,5;", {"matrix": 7}),
        (110, "110,0.,0.,0.,2.,0.,0.;", {"status": "00010000"}),
        (100, "100,0.,1.,0.,2.,0.,1.,1.;", {"status": "00010000"}),
        (TURN[0], TURN[1], {"matrix": 9}),
        (124, "124,1.,0.,0.,0.,0.,1.,0.,0.,0.,0.,1.,100.;", {}),
    ]
    found = read(tmp_path / "p.igs", iges(entities))
    assert [size(curve) for curve in found] == pytest.approx([2, pi / 2], rel=1e-6)
    np.testing.assert_allclose(ends(found[0]), [[10, 20, 130], [10, 22, 130]])
    np.testing.assert_allclose(ends(found[1]), [[10, 22, 130], [9, 21, 130]], atol=1e-14)
    entities[-1] = (124, entities[-1][1], {"matrix": 7})
    refuse(tmp_path / "p.igs", iges(entities), "its transformations go round in a circle")
    circle = [(102, "102,1,3;", {}), (102, "102,1,1;", {}), (122, "122,1,1.,3.,0.;", {})]
    refuse(tmp_path / "p.igs", iges(circle), "its curves refer to each other in a circle")


def test_ranges_in_use(tmp_path: Path):
    """The parameters at the end of a B-spline say which part of it is meant."""
    line = "126,1,1,0,0,1,0,0.,0.,1.,1.,1.,1.,0.,0.,0.,4.,0.,0.,0.25,0.75,0.,0.,0.;"
    (curve,) = read(tmp_path / "p.igs", iges([(126, line, {})]))
    np.testing.assert_allclose(ends(curve), [[1, 0, 0], [3, 0, 0]])
    (surface,) = read(tmp_path / "p.igs", iges([(128, SQUARE.replace("0,1,0,1;", "0,0.5,0.25,1;"), {})]))
    assert size(surface) == pytest.approx(0.375)
    refuse(
        tmp_path / "p.igs", iges([(126, line.replace("0.75,", "1.75,"), {})]), "parameters from 0.25 to 1.75 are not"
    )


def square_loop(width: float, height: float, first: int) -> list:
    """A composite curve of four lines, the entries from `first` on."""
    x = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    lines = [f"110,{a[0]!r},{a[1]!r},0.,{b[0]!r},{b[1]!r},0.;" for a, b in pairwise(x)]
    names = [first + 2 + 2 * k for k in range(4)]
    served = {"status": "00010000"}
    return [(102, f"102,4,{','.join(map(str, names))};", served), *((110, line, served) for line in lines)]


@pytest.mark.parametrize("in_space", [True, False])
def test_trimmed_surfaces(in_space: bool, tmp_path: Path):
    """By curves in space, or in the parameters alone (the square is its own parameters)."""
    pointers = "0,11" if in_space else "11,0"
    entities = [
        (144, "144,3,1,0,5;", {}),
        (128, SQUARE, {"status": "00010000"}),
        (142, f"142,0,3,{pointers},1;", {"status": "00010000"}),
        (110, "110,9.,9.,9.,8.,8.,8.;", {}),
        (110, "110,9.,9.,9.,8.,8.,7.;", {"status": "00010500"}),
        *square_loop(0.5, 0.75, 11),
    ]
    surface, free = read(tmp_path / "p.igs", iges(entities))
    assert isinstance(free, Curve)
    assert size(surface) == pytest.approx(0.375)
    entities[2] = (142, "142,0,3,0,7,1;", {"status": "00010000"})
    found = read(tmp_path / "p.igs", iges(entities), r"p\.igs: whole, without their boundaries, are 1 faces \(D1\)\.$")
    assert size(found[0]) == pytest.approx(1)
    whole = [(144, "144,3,0,0,0;", {}), (128, SQUARE, {"status": "00010000"})]
    assert [size(patch) for patch in read(tmp_path / "p.igs", iges(whole))] == pytest.approx([1.0])


def test_bounded_surfaces_and_planes(tmp_path: Path):
    """143 with 141, and 108 with its curve; unbounded planes are named."""
    served = {"status": "00010000"}
    entities = [
        (143, "143,0,3,1,5;", {"matrix": 17}),
        (128, SQUARE, served),
        (141, "141,0,1,3,1,7,1,0;", served),
        *square_loop(0.5, 0.5, 7),
        TURN,
        (108, "108,0.,0.,2.,0.,7,0.,0.,0.,0.;", {"form": 1}),
        (108, "108,0.,0.,2.,0.,0,0.,0.,0.,0.;", {}),
    ]
    found = read(tmp_path / "p.igs", iges(entities), r"not read are 1 plane\.$")
    assert [size(patch) for patch in found] == pytest.approx([0.25, 0.25])
    assert found[0].control_points[..., 2].unique().tolist() == [30]


@pytest.mark.parametrize(
    ("kind", "text", "form", "area"),
    [
        (120, "120,3,5,0.,1.5;", 0, 1.5 * 1.5 * 2**0.5),
        (120, "120,3,5,1.,7.283185307;", 0, 2 * pi * 1.5 * 2**0.5),
        (122, "122,5,1.,3.,0.;", 0, 3 * 2**0.5),
        (118, "118,5,7,0,0;", 1, 2**0.5),
        (118, "118,5,7,0,0;", 0, 2**0.5),
        (118, "118,5,9,1,0;", 1, 2**0.5),
        (196, "196,11,2.;", 0, 16 * pi),
        (198, "198,11,13,3.,1.;", 0, 12 * pi**2),
        (198, "198,11,13,3.,1.,15;", 1, 12 * pi**2),
    ],
)
def test_surfaces(kind: int, text: str, form: int, area: float, tmp_path: Path):
    served = {"status": "00010000"}
    entities = [
        (kind, text, {"form": form}),
        (110, "110,0.,0.,0.,0.,0.,5.;", served),
        (110, "110,1.,0.,0.,2.,0.,1.;", served),
        (110, "110,1.,1.,0.,2.,1.,1.;", served),
        (110, "110,2.,1.,1.,1.,1.,0.;", served),
        (116, "116,1.,2.,3.,0;", served),
        (123, "123,1.,1.,0.;", served),
        (123, "123,0.,0.,1.;", served),
    ]
    found = read(tmp_path / "p.igs", iges(entities))
    surface = next(patch for patch in found if isinstance(patch, Surface))
    assert size(surface) == pytest.approx(area, rel=1e-8)


@pytest.mark.parametrize(
    ("kind", "text", "form", "name"),
    [
        (110, "110,0.,0.,0.,1.,0.,0.;", 1, "line \\(without ends\\)"),
        (130, "130,3,1,0,0,1,0.,0.,0.,0.,0.,1.,0.,1.;", 0, "offset curve"),
        (114, "114,3,1,1,1,0.,1.,0.,1.,0.;", 0, "parametric spline surface"),
        (140, "140,0.,0.,1.,1.,3;", 0, "offset surface"),
        (190, "190,3,3;", 0, "plane surface"),
        (192, "192,11,13,2.;", 0, "cylinder"),
        (150, "150,1.,2.,3.;", 0, "block"),
        (414, "414,3,1,0.,0.,0.,1.,0.,1.,0;", 0, "circular array"),
        (104, "104,1.,0.,1.,0.,0.,4.,0.,1.,0.,0.,1.;", 1, "conic \\(without points\\)"),
    ],
)
def test_what_is_named(kind: int, text: str, form: int, name: str, tmp_path: Path):
    entities = [(kind, text, {"form": form}), (128, SQUARE, {}), (110, "110,0.,0.,0.,1.,0.,0.;", {})]
    found = read(tmp_path / "p.igs", iges(entities), rf"p\.igs: not read are 1 {name}\.$")
    assert any(isinstance(patch, Surface) for patch in found) or kind in (130, 140)


def test_subfigures(tmp_path: Path):
    """At every instance, scaled, moved and turned, and in each other; nowhere else."""
    used = {"status": "00010200"}
    entities = [
        (308, "308,0,4Hbolt,1,3;", {"status": "00000200"}),
        (110, "110,1.,0.,0.,2.,0.,0.;", used),
        (408, "408,1,5.,0.,0.,1.;", {}),
        (408, "408,1,0.,0.,0.,2.;", {"matrix": 9}),
        TURN,
        (308, "308,1,3Hset,2,13,15;", {"status": "00000200"}),
        (408, "408,1,0.,0.,1.,1.;", used),
        (408, "408,1,0.,0.,2.,1.;", used),
        (408, "408,11,100.,0.,0.;", {}),
    ]
    found = read(tmp_path / "p.igs", iges(entities))
    starts = [ends(curve)[0].tolist() for curve in found]
    assert starts == [[6, 0, 0], [10, 22, 30], [101, 0, 1], [101, 0, 2]]
    assert [size(curve) for curve in found] == pytest.approx([1, 2, 1, 1])
    assert found.names == ["bolt", "bolt", "set", "set"]
    entities[6] = (408, "408,11,0.,0.,1.,1.;", used)
    refuse(tmp_path / "p.igs", iges(entities), "its subfigures hold each other in a circle")
    entities[6] = (408, "408,3,0.,0.,1.,1.;", used)
    refuse(tmp_path / "p.igs", iges(entities), "D3 is no subfigure")
    alone = [(308, "308,0,4Hbolt,1,3;", {"status": "00000200"}), (110, "110,1.,0.,0.,2.,0.,0.;", used)]
    with pytest.raises(GeometryError, match="it holds no curve, surface or volume"):
        read(tmp_path / "p.igs", iges(alone))


def test_towers_of_subfigures_end(tmp_path: Path):
    entities: list = [(110, "110,1.,0.,0.,2.,0.,0.;", {"status": "00010200"}), (308, "308,0,1Ha,1,1;", {})]
    for _ in range(20):
        last = 2 * len(entities) - 1
        entities += [(408, f"408,{last},0.,0.,1.,1.;", {}), (408, f"408,{last},1.,0.,0.,1.;", {})]
        entities.append((308, f"308,1,1Ha,2,{last + 2},{last + 4};", {}))
    entities.append((408, f"408,{2 * len(entities) - 1},0.,0.,1.,1.;", {}))
    refuse(tmp_path / "p.igs", iges(entities), "its parts are placed more than 100000 times")


@pytest.mark.parametrize(
    ("kind", "text", "cause"),
    [
        (100, "100,5.,1.,2.,3.,2.,1.,5.;", "the ends of an arc are as far from its centre"),
        (100, "100,5.,1.,2.,1.,2.,1.,2.;", "the ends of an arc are as far from its centre"),
        (100, "100,5.,1.,2.;", "8 parameters were expected; got 4"),
        (104, "104,1.,0.,1.,0.,0.,-4.,5.,2.,0.,0.,3.;", "an end of the conic, is not on it"),
        (106, "106,2,99999999,0.,0.;", "two or more points"),
        (102, "102,99999999,1;", "99999999 of what is listed are announced"),
        (112, "112,3,1,3,2,0.,1.,1.;", "break points that increase"),
        (110, "110,0.,0.,nan,1.,1.,1.;", "finite numbers were expected"),
        (143, "143,0,3,1,5;", "D5 is no boundary"),
        (144, "144,3,1,0,5;", "D5 is no curve on a surface"),
    ],
)
def test_damage(kind: int, text: str, cause: str, tmp_path: Path):
    form = {104: 1, 106: 12}.get(kind, 0)
    refuse(
        tmp_path / "p.igs", iges([(kind, text, {"form": form}), (128, SQUARE, {})]), f"line 3, entity {kind}.*{cause}"
    )


def test_solids_of_faces(tmp_path: Path):
    """186 to 502: a cylinder as OpenCASCADE writes it in its mode for solids, with a seam used twice."""
    served = {"status": "00010000"}
    entities = [
        (510, "510,3,1,1,11;", served),
        (192, "192,5,7,2.,9;", {**served, "form": 1}),
        (116, "116,0.,0.,0.,0;", served),
        (123, "123,0.,0.,1.;", served),
        (123, "123,1.,0.,0.;", served),
        (508, "508,4,0,13,1,0,0,0,13,2,1,0,0,13,3,1,0,0,13,2,0,0;", {**served, "form": 1}),
        (504, "504,3,15,23,1,23,1,17,23,1,23,2,19,23,2,23,2;", {**served, "form": 1}),
        (100, "100,3.,0.,0.,2.,0.,2.,0.;", served),
        (110, "110,2.,0.,3.,2.,0.,0.;", served),
        (100, "100,0.,0.,0.,2.,0.,2.,0.;", served),
        (186, "186,25,1,0;", {}),
        (502, "502,2,2.,0.,3.,2.,0.,0.;", {**served, "form": 1}),
        (514, "514,1,1,1;", {**served, "form": 1}),
    ]
    entities[5] = (508, "508,4,0,13,1,0,0,0,13,2,1,0,0,13,3,1,0,0,13,2,0,0;", {**served, "form": 1})
    (found,) = read(tmp_path / "p.igs", iges(entities))
    assert size(found) == pytest.approx(2 * pi * 2 * 3, rel=1e-9)
    assert hypot(*found.control_points[0, 0, :2].tolist()) == pytest.approx(2)
