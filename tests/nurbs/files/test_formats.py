"""The two functions for all formats: dispatch, options, folders, dtype; nothing is lost when writing fails."""

import re
from pathlib import Path

import pytest
import torch

from nurbs import Curve, GeometryError, circle, read_geometry, sphere, torus, write_geometry
from nurbs.files.formats import READ, WRITTEN
from tests.nurbs.file_cases import assert_equal, in_space
from tests.nurbs.patches import PATCHES, random


@pytest.mark.parametrize("suffix", sorted(set(READ) - {".3dm"}))
def test_every_format_holds_a_sphere_exactly(suffix: str, tmp_path: Path):
    """A new format is one file and one row of the table; single precision and gradients are no obstacle."""
    shape = sphere()
    path = tmp_path / f"p{suffix.upper()}"
    assert write_geometry(str(path), shape.learn("control_points")) == path
    assert_equal(read_geometry(str(path)), [shape])
    assert read_geometry(path, dtype=torch.float32)[0].dtype == torch.float32
    write_geometry(path, shape.to(torch.float32))
    assert_equal(read_geometry(path, dtype=torch.float32), [shape.to(torch.float32)])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".json", ".step", ".igs"])
def test_batches_and_periodic_patches(suffix: str, tmp_path: Path):
    batch, periodic = PATCHES["batch of knots"], PATCHES["periodic"]
    found = read_geometry(write_geometry(tmp_path / f"p{suffix}", [batch, periodic]))
    expected = [batch[0], batch[1], periodic.unwrapped()]
    assert_equal(found, expected if suffix == ".json" else [in_space(patch) for patch in expected])


def test_a_folder_is_read_in_numerical_order(tmp_path: Path):
    for i in (10, 9, 1):
        write_geometry(tmp_path / f"part.{i}.dat", circle(float(i)))
    write_geometry(tmp_path / "all.obj", circle())
    (tmp_path / "notes.md").write_text("no geometry")
    found = read_geometry(tmp_path)
    assert [patch.control_points[0, 0].item() for patch in found] == [1, 9, 10]
    (tmp_path / "empty").mkdir()
    with pytest.raises(GeometryError, match=r"empty: no file in it ends in one of \.json"):
        read_geometry(tmp_path / "empty")
    (tmp_path / "part.2.dat").write_text("3\n")
    with pytest.raises(GeometryError, match=r"part\.2\.dat: it ends before the degrees"):
        read_geometry(tmp_path)


def test_what_cannot_be_read(tmp_path: Path):
    with pytest.raises(GeometryError, match=r"cannot read .*none\.step: no such file"):
        read_geometry(tmp_path / "none.step")
    (tmp_path / "p.xyz").write_text("0 0 0")
    with pytest.raises(GeometryError, match=re.escape(f"the ending '.xyz' is none of {' '.join(READ)}.")):
        read_geometry(tmp_path / "p.xyz")
    for suffix in READ:
        (tmp_path / f"p{suffix}").write_bytes(b"")
        with pytest.raises(GeometryError, match="it is empty"):
            read_geometry(tmp_path / f"p{suffix}")
        (tmp_path / f"p{suffix}").write_bytes(bytes(range(256)) * 4)
        with pytest.raises(GeometryError, match=rf"cannot read .*p\{suffix}: "):
            read_geometry(tmp_path / f"p{suffix}")


def test_numbers_too_large_for_the_dtype(tmp_path: Path):
    path = write_geometry(tmp_path / "p.json", circle(1e300))
    with pytest.raises(GeometryError, match=r"p\.json: `control_points` must be finite"):
        read_geometry(path, dtype=torch.float32)


def test_what_cannot_be_written(tmp_path: Path):
    path = tmp_path / "p.json"
    with pytest.raises(ValueError, match="needs at least one patch; got none"):
        write_geometry(path, [])
    with pytest.raises(TypeError):
        write_geometry(path, [torch.ones(3)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=re.escape(f"knows the endings {' '.join(WRITTEN)}; got")):
        write_geometry(tmp_path / "p.xyz", circle())
    for subdivisions, name in ((4, "p.json"), (0, "p.obj"), (-1, "p.vtu")):
        with pytest.raises(ValueError, match=f"`subdivisions` is a number >= 1 .* got {subdivisions} for '{name}'"):
            write_geometry(tmp_path / name, circle(), subdivisions=subdivisions)
    with pytest.raises(ValueError, match=r"only \.vtu files hold fields; got \['f'\]"):
        write_geometry(path, circle(), fields={"f": random(9)})
    with pytest.raises(OSError, match=r"make the directory .*none' first"):
        write_geometry(tmp_path / "none" / "p.json", circle())
    assert not list(tmp_path.iterdir())


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path: Path):
    path = write_geometry(tmp_path / "p.step", torus())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="got a `Curve` in 4"):
        write_geometry(path, Curve(random(4, 4)))
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (before, 1)


@pytest.mark.parametrize("suffix", [".json", ".smesh", ".step", ".igs"])
def test_spoilt_signs_give_errors_or_patches_and_nothing_else(suffix: str, tmp_path: Path):
    whole = write_geometry(tmp_path / f"whole{suffix}", circle()).read_bytes()
    spoilt = tmp_path / f"spoilt{suffix}"
    places = torch.randint(len(whole), (30,), generator=torch.Generator().manual_seed(0)).tolist()
    for place, sign in zip(places, b"9-.,;()#x\x00'* " * 5, strict=False):
        spoilt.write_bytes(whole[:place] + bytes([sign]) + whole[place + 1 :])
        try:
            patches = read_geometry(spoilt)
        except GeometryError:
            continue
        assert all(patch.control_points.isfinite().all() for patch in patches)
