"""3dm files that are not whole are refused before openNURBS, which might not come back, sees them."""

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nurbs import circle, read_geometry, sphere, write_geometry
from nurbs.files import rhino_archive
from nurbs.files.rhino_archive import check_archive
from tests.nurbs.file_cases import refuse, size

rhino3dm = pytest.importorskip("rhino3dm")


def test_whole_files_need_no_second_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their checksums are right, splines and Breps, in all versions that have some."""
    monkeypatch.setattr(subprocess, "run", None)
    check_archive(write_geometry(tmp_path / "p.3dm", [sphere(), circle()]))
    model = rhino3dm.File3dm()
    model.Objects.AddBrep(rhino3dm.Cylinder(rhino3dm.Circle(rhino3dm.Point3d(0, 0, 0), 2.0), 3.0).ToBrep(True, True))
    for version in (5, 6, 7):
        model.Write(str(tmp_path / "b.3dm"), version)
        check_archive(tmp_path / "b.3dm")
    assert sum(map(size, read_geometry(tmp_path / "b.3dm"))) == pytest.approx(20 * 3.141592653589793, rel=1e-9)


def test_every_changed_coordinate_is_noticed(tmp_path: Path):
    data = write_geometry(tmp_path / "p.3dm", circle(7.0)).read_bytes()
    number = struct.pack("<d", 7.0)
    assert number in data
    place = data.index(number)
    for k in range(8):
        changed = data[: place + k] + bytes([data[place + k] ^ 1]) + data[place + k + 1 :]
        refuse(tmp_path / "p.3dm", changed, "the checksum of the spline at byte .* is wrong")


def test_what_does_not_end_or_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Such files are given to another process first, for a few seconds."""
    path = write_geometry(tmp_path / "p.3dm", circle())
    data = path.read_bytes()
    monkeypatch.setattr(rhino_archive, "chunks_match", lambda body: False)
    monkeypatch.setattr(rhino_archive, "SECONDS", 0.5)
    monkeypatch.setattr(rhino_archive, "PROBE", "while True: pass")
    refuse(path, data, "openNURBS does not come to its end")
    monkeypatch.setattr(rhino_archive, "PROBE", "import os; os.abort()")
    refuse(path, data, "it is damaged, or no 3dm file")
    monkeypatch.setattr(rhino_archive, "PROBE", "pass")
    assert len(read_geometry(path)) == 1


def test_versions_without_lengths_of_eight_bytes(tmp_path: Path):
    model: Any = rhino3dm.File3dm()
    model.Objects.AddCircle(rhino3dm.Circle(rhino3dm.Point3d(0, 0, 0), 3))
    model.Write(str(tmp_path / "p.3dm"), 4)
    assert [size(curve) for curve in read_geometry(tmp_path / "p.3dm")] == pytest.approx(
        [6 * 3.141592653589793], rel=1e-6
    )
