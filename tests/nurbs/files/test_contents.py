"""Names and units of geometry files: there and back in every format that holds them."""

from pathlib import Path

import pytest
import torch

from nurbs import Curve, GeometryError, circle, read_geometry, sphere, write_geometry
from nurbs.files.contents import LENGTHS, PatchList, ratio, unit_name
from tests.nurbs.patches import PATCHES, random

HOLDERS = [".step", ".igs"]


def with_rhino(suffixes: list[str]) -> list:
    return [*suffixes, pytest.param(".3dm", marks=pytest.mark.skipif(not rhino(), reason="rhino3dm is not installed"))]


def rhino() -> bool:
    try:
        import rhino3dm  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def test_names_of_units():
    for name, metres in LENGTHS.items():
        assert unit_name(metres) == name
        assert ratio(name, "m") == metres
    assert unit_name(0.3) == "0.3 m"
    assert ratio("0.3 m", "mm") == pytest.approx(300)
    assert ratio("mm", "mm") == 1
    assert PatchList([1, 2]).names == ["", ""]


@pytest.mark.parametrize("suffix", with_rhino([*HOLDERS, ".json"]))
def test_names_there_and_back(suffix: str, tmp_path: Path):
    patches = [circle(center=(0.0, 0.0, 1.0)), Curve(random(4, 3))]
    names = ["rim; of, 'it'", "second"]
    found = read_geometry(write_geometry(tmp_path / f"part{suffix}", patches, names=names))
    assert found.names == names
    again = read_geometry(write_geometry(tmp_path / f"again{suffix}", found))
    assert again.names == names
    assert all(map(torch.equal, (p.control_points for p in found), (p.control_points for p in again)))


def test_other_alphabets_and_names_of_products(tmp_path: Path):
    """STEP knows all signs; what has no name of its own has that of the part, which is the file's."""
    found = read_geometry(write_geometry(tmp_path / "part.step", [circle(), circle()], names=["Nabe αβ 😀", ""]))
    assert found.names == ["Nabe αβ 😀", "part"]


@pytest.mark.parametrize("suffix", with_rhino(HOLDERS))
@pytest.mark.parametrize("unit", ["m", "mm", "inch", "ft", "um"])
def test_units_there_and_back(suffix: str, unit: str, tmp_path: Path):
    """The unit is said and not applied when writing, and applied when asked for in reading."""
    path = write_geometry(tmp_path / f"p{suffix}", circle(2.0), unit=unit)
    found = read_geometry(path)
    assert found.unit == unit
    assert found[0].control_points[0].tolist() == [2, 0, 0]
    scaled = read_geometry(path, unit="cm")
    assert (scaled.unit, float(scaled[0].control_points[0, 0])) == ("cm", pytest.approx(200 * LENGTHS[unit], rel=1e-14))
    again = write_geometry(tmp_path / f"again{suffix}", found)
    assert read_geometry(again).unit == unit
    assert read_geometry(write_geometry(tmp_path / f"plain{suffix}", circle())).unit == "mm"


@pytest.mark.parametrize("suffix", [".json", ".smesh"])
def test_files_without_units(suffix: str, tmp_path: Path):
    path = write_geometry(tmp_path / f"p{suffix}", circle())
    assert read_geometry(path).unit is None
    with pytest.raises(GeometryError, match="does not say its unit of length"):
        read_geometry(path, unit="mm")
    with pytest.raises(ValueError, match=r"only \.step .* files say a unit; got 'mm' for"):
        write_geometry(path, circle(), unit="mm")


def test_folders_of_several_units(tmp_path: Path):
    write_geometry(tmp_path / "a.step", circle(1.0), unit="inch")
    write_geometry(tmp_path / "b.igs", circle(1.0), unit="mm")
    with pytest.raises(GeometryError, match="its files are in inch and mm; ask for one"):
        read_geometry(tmp_path)
    found = read_geometry(tmp_path, unit="mm")
    assert [float(patch.control_points[0, 0]) for patch in found] == pytest.approx([25.4, 1])
    (tmp_path / "a.step").unlink()
    write_geometry(tmp_path / "c.json", circle(1.0))
    assert read_geometry(tmp_path).unit is None
    (tmp_path / "c.json").unlink()
    assert read_geometry(tmp_path).unit == "mm"


def test_wrong_names_and_units(tmp_path: Path):
    path = tmp_path / "p.step"
    for names in (["a"], "ab"):
        with pytest.raises(
            ValueError, match=r"`write_geometry\(names=\.\.\.\)` must be one text for each of 2 patches"
        ):
            write_geometry(path, [circle(), circle()], names=names)
    with pytest.raises(ValueError, match=r"`write_geometry\(unit=\.\.\.\)` must be one of m, mm, .*; got 'parsec'"):
        write_geometry(path, circle(), unit="parsec")
    with pytest.raises(ValueError, match=r"`read_geometry\(unit=\.\.\.\)` must be one of m, mm, .*; got 'parsec'"):
        read_geometry(path, unit="parsec")
    with pytest.raises(ValueError, match=r"IGES files know the units .*; got 'yd'"):
        write_geometry(tmp_path / "p.igs", circle(), unit="yd")


def test_items_of_batches_share_a_name(tmp_path: Path):
    found = read_geometry(
        write_geometry(tmp_path / "p.step", [PATCHES["batch of knots"], sphere()], names=["two", "one"])
    )
    assert found.names == ["two", "two", "one"]


def test_trim_curves_of_json_are_named(tmp_path: Path):
    path = write_geometry(tmp_path / "p.json", sphere())
    path.write_text(path.read_text().replace('"type": "spline",', '"type": "spline", "trims": {"data": [{}]},'))
    with pytest.warns(UserWarning, match=r"p\.json: whole, without their trim curves, are 1 surfaces\.$"):
        assert len(read_geometry(path)) == 1
