"""Geometry files of every format: what is written comes back to the last bit; what is damaged is named."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from nurbs import (
    Curve,
    GeometryError,
    Surface,
    Volume,
    circle,
    extrude,
    line,
    read_geometry,
    sphere,
    torus,
    transform,
    write_geometry,
)
from tests.nurbs.patches import knots, random

SHARED = Path(__file__).parents[3] / "shared" / "nurbs"
CURVES = [Curve(random(8, 3), random(8) + 0.5, knots(1, 3)), Curve(random(5, 3) * 1e-7, degree=2)]
SURFACES = [Surface(random(6, 4, 3), random(6, 4) + 0.5, (knots(1, 1), None), (3, 2)), sphere(2.0), torus()]
VOLUME = extrude(Surface(random(4, 3, 3), random(4, 3) + 0.5, degree=(3, 1)), (0.0, 0.1, 1.0))
HOLDS = {
    ".json": [CURVES, SURFACES, [VOLUME]],
    ".smesh": [CURVES[:1], SURFACES[:1], [VOLUME]],
    ".step": [[*CURVES, *SURFACES], CURVES],
    ".igs": [[*CURVES, *SURFACES], CURVES],
    ".3dm": [[*CURVES, *SURFACES], CURVES],
}


def assert_equal(patch, other, exact=True):
    assert type(patch) is type(other)
    assert patch.degree == other.degree
    assert (patch.weights is None) == (other.weights is None)
    pairs = [(patch.control_points, other.control_points), *zip(patch.knots, other.knots, strict=True)]
    if patch.weights is not None:
        pairs.append((patch.weights, other.weights))
    for a, b in pairs:
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=4e-16, atol=0)


@pytest.mark.parametrize(("suffix", "patches"), [(s, p) for s, several in HOLDS.items() for p in several])
def test_nothing_changes_on_the_way_to_a_file_and_back(suffix, patches, tmp_path):
    if suffix == ".3dm":
        pytest.importorskip("rhino3dm")
    path = write_geometry(tmp_path / f"patch{suffix}", patches)
    found = read_geometry(path)
    assert len(found) == len(patches)
    for a, b in zip(patches, found, strict=True):
        assert_equal(a, b, exact=suffix != ".3dm")  # openNURBS keeps w P: one rounding there, one back
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("suffix", [".json", ".step", ".igs"])
def test_batches_periodic_plane_and_learnt_patches_are_written_as_what_they_are(suffix, tmp_path):
    closed = Curve(random(2, 6, 2), random(2, 6) + 0.5, periodic=True).learn("control_points")
    found = read_geometry(write_geometry(tmp_path / f"closed{suffix}", closed), dtype=torch.float32)
    assert len(found) == 2
    u = torch.linspace(0, 1, 9)
    for item, curve in enumerate(found):
        assert curve.dtype == torch.float32
        reference = closed.patch[item](u.double()).detach().float()
        assert torch.allclose(curve(u)[:, :2], reference, atol=1e-6)


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    for k in (2, 10, 1):
        write_geometry(tmp_path / f"part.{k}.dat", line((0.0, 0.0), (float(k), 0.0)))
    (tmp_path / "notes.md").write_text("nothing")
    assert [patch.control_points[1, 0].item() for patch in read_geometry(tmp_path)] == [1, 2, 10]


def test_geomdl_reads_what_is_written_and_its_files_are_read(tmp_path):
    exchange = pytest.importorskip("geomdl.exchange")
    surface = SURFACES[0]
    path = write_geometry(tmp_path / "surface.json", surface)
    (theirs,) = exchange.import_json(str(path))
    u = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        point = torch.tensor(theirs.evaluate_single((u[i].item(), u[j].item())), dtype=torch.float64)
        assert torch.allclose(point, surface(u[i : i + 1], u[j : j + 1])[0, 0], atol=1e-14)
    exchange.export_json(theirs, str(tmp_path / "theirs.json"))
    (back,) = read_geometry(tmp_path / "theirs.json")
    assert torch.allclose(back(u, u), surface(u, u), atol=1e-14)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_geometry(tmp_path / "curve.json", CURVES)
    before = path.read_bytes()
    monkeypatch.setattr(json, "dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_geometry(path, CURVES)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


SMESH = "2\n1\n2\n0 0 1 1\n0 0 1\n1 0 1\n"
JSON = '{"shape": {"type": "curve", "count": 1, "data": [%s]}}'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.dat", "", "a.dat: it is empty"),
        ("a.what", "nothing known", r"the ending '.what' is none of .json .dat"),
        ("a.dat", "2\n1\n2\n", "it ends before the knots in u"),
        ("a.dat", SMESH.replace("0 0 1 1", "0 0 1"), r"line 4, the knots in u: 2 \+ 1 \+ 1 were expected; got 3"),
        ("a.dat", SMESH.replace("1 0 1\n", "1 zero 1\n"), "control points from line 5 on: numbers were expected"),
        ("a.dat", SMESH.replace("1 0 1\n", ""), "2 control points were announced, but 1 are there"),
        ("a.dat", SMESH + "2 0 1\n", "line 7: more control points than the 2 announced"),
        ("a.dat", SMESH.replace("1 0 1\n", "1 nan 1\n"), "`control_points` must be finite; got nan"),
        ("a.dat", SMESH.replace("1 0 1\n", "1 0 -1\n"), "`weights` must be positive"),
        ("a.dat", SMESH.replace("0 0 1 1", "0 1 0 1"), "must not decrease"),
        ("a.json", '{"shape": ', "line 1: Expecting value"),
        ("a.json", "[]", "the file: 'shape' is missing"),
        ("a.json", JSON % "{}", "curve 0: 'degree' is missing"),
        ("a.json", JSON % "", "it holds no curve, surface or volume"),
        ("a.step", "ISO-10303-22;", "a STEP file begins with ISO-10303-21"),
        ("a.step", "ISO-10303-21;\nDATA;\n", "breaks off before END-ISO-10303-21"),
        ("a.igs", "too short\n", "line 1: a line of IGES has one of S, G, D, P, T in column 73"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "1 polygons, but no free-form curve or surface"),
        ("a.3dm", "no rhino", "does not begin as a 3dm file does"),
    ],
)
def test_damaged_files_are_one_error_with_file_place_and_cause(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(GeometryError, match=message) as error:
        read_geometry(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("suffix", [".json", ".smesh", ".step", ".igs", ".3dm"])
def test_files_that_break_off_anywhere_are_errors_and_never_half_of_the_patches(suffix, tmp_path):
    if suffix == ".3dm":
        pytest.importorskip("rhino3dm")
    whole = write_geometry(tmp_path / f"whole{suffix}", SURFACES[:1]).read_bytes()
    part = tmp_path / f"part{suffix}"
    for share in torch.linspace(0.02, 0.97, 25).tolist():
        part.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(GeometryError, match=r"cannot read .*part"):
            read_geometry(part)


@pytest.mark.parametrize("suffix", [".json", ".smesh", ".step", ".igs"])
def test_files_with_spoilt_signs_are_errors_or_patches_and_nothing_else(suffix, tmp_path):
    whole = write_geometry(tmp_path / f"whole{suffix}", SURFACES[:1]).read_bytes()
    spoilt = tmp_path / f"spoilt{suffix}"
    places = torch.randint(len(whole), (30,), generator=torch.Generator().manual_seed(0)).tolist()
    for place, sign in zip(places, b"9-.,;()#x\x00'* " * 5, strict=False):
        spoilt.write_bytes(whole[:place] + bytes([sign]) + whole[place + 1 :])
        try:
            patches = read_geometry(spoilt)
        except GeometryError:
            continue
        assert all(patch.control_points.isfinite().all() for patch in patches)


def test_what_a_format_cannot_hold_is_refused(tmp_path, monkeypatch):
    with pytest.raises(GeometryError, match="no such file"):
        read_geometry(tmp_path / "nothing.json")
    with pytest.raises(GeometryError, match="no file in it ends in one of"):
        read_geometry(tmp_path)
    for path, patches, message in (
        ("a.xyz", CURVES, r"knows the endings .json .dat"),
        ("a.json", [], "needs at least one patch"),
        ("a.json", [*CURVES, *SURFACES], "curves, surfaces or volumes only"),
        ("a.dat", CURVES, "holds one patch; got 2"),
        ("a.step", VOLUME, "STEP files hold curves and surfaces in two or three dimensions; got a `Volume` in 3"),
        ("a.igs", Curve(random(4, 4)), "IGES files hold .* got a `Curve` in 4"),
    ):
        with pytest.raises(ValueError, match=message):
            write_geometry(tmp_path / path, patches)
    with pytest.raises(ValueError, match=r"only \.vtu files hold fields"):
        write_geometry(tmp_path / "a.json", CURVES, fields={"t": [random(8), random(5)]})
    with pytest.raises(ValueError, match=r"`subdivisions` is a number >= 1 for \.obj and \.vtu files"):
        write_geometry(tmp_path / "a.json", CURVES, subdivisions=2)
    monkeypatch.setitem(sys.modules, "rhino3dm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        write_geometry(tmp_path / "a.3dm", CURVES)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared third-party files")
@pytest.mark.parametrize("suffix", [".json", ".smesh", ".step", ".igs"])
def test_real_files_survive_the_round_trip(suffix, tmp_path):
    files = [f for f in (SHARED / "nurbsdiff").rglob("*") if f.suffix in (".dat", ".step")]
    assert len(files) > 40
    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    for file in files:
        for patch in read_geometry(file):
            (back,) = read_geometry(write_geometry(tmp_path / f"again{suffix}", patch))
            assert_equal(patch, back)
            box = [torch.lerp(start, end, u) for start, end in patch.domain()]
            assert patch(*box).isfinite().all()


def test_circles_stay_round_in_every_format(tmp_path):
    flat = transform(circle(3.0), torch.eye(3, 2, dtype=torch.float64))
    u = torch.linspace(0, 1, 50, dtype=torch.float64)
    for suffix in (".json", ".smesh", ".step", ".igs"):
        (found,) = read_geometry(write_geometry(tmp_path / f"circle{suffix}", flat))
        assert isinstance(found, Curve)
        assert (found(u).norm(dim=-1) - 3).abs().max() < 1e-14


def test_every_reader_and_writer_names_its_format():
    from nurbs import files

    for module in set(files.READERS.values()):
        assert re.match(r"\S", module.__doc__ or "")
    assert isinstance(VOLUME, Volume)
