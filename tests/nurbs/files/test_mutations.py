"""Damaged geometry files of all formats give patches or the package's error, soon, in little memory."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nurbs import Curve, GeometryError, Surface, Volume, circle, read_geometry, sphere, write_geometry
from tests.nurbs import patches
from tests.nurbs.file_cases import iges, step
from tests.nurbs.files.iges.test_entities import SQUARE, TURN, square_loop
from tests.nurbs.files.mutations import mutated
from tests.nurbs.files.step.builder import Builder
from tests.nurbs.files.step.test_assembly import ASSEMBLY, product
from tests.nurbs.files.step.test_surfaces import arc, quadric, ring

ROOT = Path(__file__).parents[3]


def corpus(folder: Path, rhino: bool) -> Path:
    """Small files of every format: own ones, faces, assemblies, subfigures."""
    folder.mkdir()
    surface = Surface(patches.random(3, 4, 3), patches.random(3, 4) + 0.5, degree=2)
    write_geometry(folder / "own.json", [surface, sphere()], names=["a", "b"])
    write_geometry(folder / "volume.json", Volume(patches.random(2, 3, 2, 3), degree=1))
    write_geometry(folder / "own.smesh", surface)
    for suffix in (".step", ".igs", *([".3dm"] if rhino else [])):
        write_geometry(folder / f"own{suffix}", [circle(), surface, Curve(patches.random(5, 3))], names=["a", "", "b"])
    (folder / "assembly.step").write_text(step(ASSEMBLY + product(30, "bolt", 10) + product(40, "machine", 11)))
    b = Builder()
    low, high, edge = ring(b, 2, 1), ring(b, 2, 4), b.segment((2, 0, 1), (2, 0, 4))
    b.face(quadric(b, "CYLINDRICAL", 2), b.loop(low, edge, (high, "F"), (edge, "F")), name="pipe")
    b.face(quadric(b, "SPHERICAL", 2), b.loop(ring(b, 1.6, 1.2)))
    plane = b.add(f"PLANE('',#{b.axes(origin=(0, 0, 1))})")
    b.face(plane, b.loop(arc(b, 2, 1, 0, 1.5), b.segment((0.1, 2, 1), (2, 0, 1))))
    b.add(f"TRIMMED_CURVE('',#{b.circle(2)},(PARAMETER_VALUE(0.5)),(PARAMETER_VALUE(2.)),.T.,.PARAMETER.)")
    (folder / "faces.step").write_text(b.text())
    trimmed = [
        (144, "144,3,1,0,5;", {}),
        (128, SQUARE, {"status": "00010000"}),
        (142, "142,0,3,0,7,1;", {"status": "00010000"}),
        *square_loop(0.5, 0.75, 7),
        TURN,
    ]
    (folder / "trimmed.igs").write_text(iges(trimmed))
    used = {"status": "00010200"}
    figures = [
        (308, "308,0,4Hbolt,2,3,5;", {"status": "00000200"}),
        (110, "110,1.,0.,0.,2.,0.,0.;", used),
        (100, "100,5.,1.,2.,3.,2.,1.,4.;", used),
        (408, "408,1,5.,0.,0.,1.;", {"matrix": 9}),
        TURN,
        (104, "104,1.,0.,1.,0.,0.,-4.,5.,2.,0.,0.,2.;", {"form": 1}),
    ]
    (folder / "figures.igs").write_text(iges(figures))
    return folder


def test_some_mutations(tmp_path: Path):
    """Sixty, in this process."""
    files = sorted(corpus(tmp_path / "whole", False).iterdir())
    for i in range(60):
        path = tmp_path / f"p{files[i % len(files)].suffix}"
        path.write_bytes(mutated(files[i % len(files)].read_bytes(), random.Random(i)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **kwargs: None)
            message = f"cannot read {path}: "
            try:
                found = read_geometry(path)
            except GeometryError as error:
                message, found = str(error), []
        assert message.startswith(f"cannot read {path}: ")
        assert all(bool(torch.isfinite(p.control_points).all()) for p in found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_two_thousand_mutations(tmp_path: Path):
    """Each within five seconds and one gigabyte, in a process with these limits."""
    pytest.importorskip("rhino3dm")
    folder = corpus(tmp_path / "whole", True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.nurbs.files.mutations", str(folder), "0", "2000"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert len(found.stdout.splitlines()) == 1, found.stdout[:4000]
    assert found.stdout.startswith("done ")
