"""IGES files: round trips to the last bit, transformations, free formats, and damage with its line."""

import re
from pathlib import Path

import pytest
import torch

from nurbs import Curve, Surface, circle, read_geometry, sphere, write_geometry
from nurbs.files.iges.directory import directory
from nurbs.files.iges.writing import wrapped
from tests.nurbs.file_cases import (
    CURVES,
    SHARED,
    SURFACES,
    VOLUMES,
    assert_equal,
    iges,
    in_space,
    needs_shared,
    refuse,
)
from tests.nurbs.patches import random

LINE = "126,1,1,0,0,1,0,0.,0.,1.,1.,1.,1.,1.,2.,3.,4.,5.,6.D0,0.,1.,0.,0.,0.;"
POINTS = [[1.0, 2, 3], [4, 5, 6]]
SQUARE = "128,1,1,1,1,0,0,1,0,0,0,0,1,1,0,0,1,1,1,1,1,1,0,0,0,1,0,0,0,1,0,1,1,0,0,1,0,1;"


@pytest.mark.parametrize("suffix", ["iges", "igs"])
@pytest.mark.parametrize("kind", ["curves", "surfaces", "both"])
def test_round_trip(kind: str, suffix: str, tmp_path: Path):
    patches = [*(CURVES.values() if kind != "surfaces" else ()), *(SURFACES.values() if kind != "curves" else ())]
    path = write_geometry(tmp_path / f"geometry, with a long 'name' of µ.{suffix}", patches)
    assert_equal(read_geometry(path), [in_space(patch) for patch in patches])
    lines = path.read_text(encoding="ascii").splitlines()
    assert {len(line) for line in lines} == {80}
    for letter in "SGDPT":
        numbers = [int(line[73:]) for line in lines if line[72] == letter]
        assert numbers == list(range(1, len(numbers) + 1))


@needs_shared
@pytest.mark.parametrize("folder", ["Stabilizer", "Roof"])
def test_real_patches(folder: str, tmp_path: Path):
    patches = read_geometry(SHARED / "nurbsdiff" / folder)
    assert_equal(read_geometry(write_geometry(tmp_path / "p.igs", patches)), patches)


def test_files_of_others(tmp_path: Path):
    """Exponents with D, parameters that are left out, other delimiters, u fastest."""
    path = tmp_path / "p.igs"
    path.write_text(iges([(126, LINE, {})]))
    (line,) = read_geometry(path)
    assert (line.control_points.tolist(), line.weights) == (POINTS, None)
    path.write_text(iges([(126, LINE.replace(",0.,1.,0.,0.,0.", ",,1.,,,").replace("0.,0.,1.,1.", ",,1.,1."), {})]))
    assert_equal(read_geometry(path), [line])
    path.write_text(iges([(126, LINE.replace(",", "/").replace(";", "#"), {})], head="1H//1H#/"))
    assert_equal(read_geometry(path), [line])
    path.write_text(iges([(128, SQUARE, {})]))
    assert read_geometry(path)[0].control_points[1].tolist() == [[1, 0, 0], [1, 1, 0]]


def test_transformations(tmp_path: Path):
    path = tmp_path / "p.igs"
    turn = "124,0.,-1.,0.,10.,1.,0.,0.,20.,0.,0.,1.,30.;"
    path.write_text(iges([(126, LINE, {"matrix": 3}), (124, turn, {})]))
    assert read_geometry(path)[0].control_points.tolist() == [[8, 21, 33], [5, 24, 36]]
    refuse(path, iges([(126, LINE, {"matrix": 5}), (124, turn, {})]), "line 3, entity 126: D5 is no transformation")
    refuse(path, iges([(126, LINE, {"matrix": 1})]), "D1 is no transformation")
    refuse(path, iges([(126, LINE, {"matrix": 3}), (124, "124,0.,1.;", {})]), "line 5, entity 124: 13 parameters were")


def test_edges_and_other_surfaces_are_left_out(tmp_path: Path):
    path = tmp_path / "p.igs"
    entities = [(128, SQUARE, {}), (126, LINE, {"status": "00010000"}), (126, LINE, {})]
    path.write_text(iges(entities))
    assert [type(patch) for patch in read_geometry(path)] == [Surface, Curve]
    path.write_text(iges(entities[1:]))  # where there is no surface it is no edge of one
    assert len(read_geometry(path)) == 2
    path.write_text(iges([*entities, (196, "196,1,2.,0;", {}), (120, "120,1,3,0.,1.;", {})]))
    with pytest.warns(UserWarning, match=r"p\.igs: not read are 1 sphere, 1 surface of revolution"):
        read_geometry(path)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("T      1", "X      1", "line 7: a line of IGES has one of S, G, D, P, T in column 73"),
        (r"(?s)^.*$", "garbage", "line 1: a line of IGES has one of"),
        (r"\n.{72}T      1\n", "\n", "it breaks off before the terminate section"),
        (r"\n.{72}D      2\n", "\n", "line 3: entries of the directory have two lines"),
        (r"\n.{72}P      2\n", "\n", "line 3: its parameters, lines P1 to P2, are not there"),
    ],
)
def test_damaged_sections(old: str, new: str, cause: str, tmp_path: Path):
    refuse(tmp_path / "p.igs", re.sub(old, new, iges([(126, LINE, {})]), count=1), cause)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (";", "", "its parameters do not end with ';'"),
        ("126,1,1,", "126,3,1,", "29 parameters were expected; got 24"),
        ("126,1,1,", "126,1,-1,", r"control points \[2\] and degrees \[-1\] make no sense"),
        ("126,1,1,", "126,9999999,1,", "10000009 parameters were expected; got 24"),
        ("126,1,1,", "126,x,1,", "numbers were expected"),
        ("4.,", "nan,", r"`control_points` must be finite; got nan at index \[1, 0\]"),
        ("0.,0.,1.,1.,1.,1.", "0.,2.,1.,1.,1.,1.", ".*knots"),
        ("1.,1.,1.,2.", "1.,0.,1.,2.", "`weights` must be positive"),
    ],
)
def test_damaged_parameters(old: str, new: str, cause: str, tmp_path: Path):
    refuse(tmp_path / "p.igs", iges([(126, LINE.replace(old, new, 1), {})]), f"line 3, entity 126.*{cause}")


def test_every_truncation_is_noticed(tmp_path: Path):
    text = write_geometry(tmp_path / "p.igs", sphere()).read_text()
    lines = text.splitlines(keepends=True)
    for count in range(1, len(lines)):
        refuse(tmp_path / "p.igs", "".join(lines[:count]), "breaks off|directory have two lines|are not there")


def test_what_iges_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match=r"IGES files hold curves and surfaces in two or three .* `Volume` in 3"):
        write_geometry(tmp_path / "p.igs", VOLUMES["box"])
    with pytest.raises(ValueError, match="got a `Curve` in 4"):
        write_geometry(tmp_path / "p.igs", Curve(random(4, 4)))


def test_no_number_is_broken_over_two_lines(tmp_path: Path):
    lines = wrapped([repr(x) for x in random(50).tolist()], 64)
    assert max(map(len, lines)) <= 64
    assert all(line.endswith((",", ";")) for line in lines)
    text = write_geometry(tmp_path / "p.igs", circle().to(torch.float32)).read_text()
    assert [entity.kind for entity in directory(text).values()] == [126]
