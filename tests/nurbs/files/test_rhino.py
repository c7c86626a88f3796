"""3dm files, by rhino3dm: round trips, Breps and meshes among the objects, damage, and no such package."""

import sys
from pathlib import Path

import pytest
import torch

from nurbs import Curve, GeometryError, Surface, circle, cylinder, read_geometry, torus, write_geometry
from nurbs.geometry.patch import Patch
from tests.nurbs.file_cases import CURVES, SURFACES, VOLUMES, in_space, refuse, size
from tests.nurbs.patches import random

rhino3dm = pytest.importorskip("rhino3dm")


def assert_near(found: Patch, expected: Patch) -> None:
    """Products with weights are stored, so that rational control points come back to round-off only."""
    assert (type(found), found.degree, found.shape) == (type(expected), expected.degree, expected.shape)
    torch.testing.assert_close(found.control_points, expected.control_points, rtol=3e-16, atol=0)
    assert (found.weights is None) == (expected.weights is None)
    if found.weights is not None:
        torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=0)
    for t, s in zip(found.knots, expected.knots, strict=True):
        assert torch.equal(t[1:-1], s[1:-1])


@pytest.mark.parametrize("name", [*CURVES, *SURFACES])
def test_round_trip(name: str, tmp_path: Path):
    patch = in_space((CURVES | SURFACES)[name])
    (found,) = read_geometry(write_geometry(tmp_path / "p.3dm", patch))
    assert_near(found, patch)
    lines = [torch.lerp(a, b, torch.linspace(0, 1, 9, dtype=torch.float64)) for a, b in patch.domain()]
    scale = float(patch.control_points.abs().max())
    torch.testing.assert_close(found(*lines), patch(*lines), rtol=0, atol=1e-15 * scale)


def test_rhino_evaluates_what_we_wrote(tmp_path: Path):
    model = rhino3dm.File3dm.Read(str(write_geometry(tmp_path / "p.3dm", [torus(), circle()])))
    surface, curve = (model.Objects[i].Geometry for i in range(2))
    u = torch.tensor([0.1, 0.77], dtype=torch.float64)
    for i, j in ((0, 0), (0, 1), (1, 0)):
        x = surface.PointAt(u[i].item(), u[j].item())
        assert torus()(u, u)[i, j].tolist() == pytest.approx([x.X, x.Y, x.Z], abs=1e-15)
    x = curve.PointAt(0.1)
    assert circle()(u)[0].tolist() == pytest.approx([x.X, x.Y], abs=1e-15)


def test_objects_of_rhino(tmp_path: Path):
    """Spheres and cylinders as Breps, lines and arcs; meshes and points are left out with a warning."""
    model = rhino3dm.File3dm()
    model.Objects.AddSphere(rhino3dm.Sphere(rhino3dm.Point3d(0, 0, 0), 3))
    model.Objects.AddBrep(rhino3dm.Sphere(rhino3dm.Point3d(0, 0, 0), 3).ToBrep())
    model.Objects.AddCircle(rhino3dm.Circle(rhino3dm.Point3d(0, 0, 0), 3))
    model.Objects.AddMesh(rhino3dm.Mesh())
    model.Objects.AddPoint(0, 0, 0)
    path = tmp_path / "p.3dm"
    model.Write(str(path), 7)
    with pytest.warns(UserWarning, match=r"p\.3dm: not read are 1 Mesh, 1 Point"):
        found = read_geometry(path)
    assert [type(patch) for patch in found] == [Surface, Surface, Curve]
    for patch in found:
        lines = [torch.lerp(a, b, torch.linspace(0, 1, 9, dtype=torch.float64)) for a, b in patch.domain()]
        radius = patch(*lines).norm(dim=-1)
        torch.testing.assert_close(radius, torch.full_like(radius, 3), rtol=1e-14, atol=0)


def test_damage(tmp_path: Path):
    data = write_geometry(tmp_path / "p.3dm", cylinder()).read_bytes()
    for length in range(1, len(data) - 1, 211):
        refuse(tmp_path / "p.3dm", data[:length], "it is damaged, or no 3dm file")
    refuse(tmp_path / "p.3dm", "solid", "it is damaged, or no 3dm file")
    refuse(tmp_path / "p.3dm", data[:36] + bytes([255] * 8) + data[44:], "it is damaged, or no 3dm file")
    rhino3dm.File3dm().Write(str(tmp_path / "p.3dm"), 7)
    with pytest.raises(GeometryError, match="it holds no curve, surface or volume"):
        read_geometry(tmp_path / "p.3dm")


def test_without_rhino3dm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_geometry(tmp_path / "p.3dm", circle())
    monkeypatch.setitem(sys.modules, "rhino3dm", None)
    with pytest.raises(GeometryError, match=r"p\.3dm: 3dm files need the package rhino3dm; `pip install rhino3dm`"):
        read_geometry(path)
    with pytest.raises(ModuleNotFoundError, match="3dm files need the package rhino3dm"):
        write_geometry(path, circle())
    assert [file.name for file in tmp_path.iterdir()] == ["p.3dm"]


def test_what_3dm_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match="3dm files hold curves and surfaces in two or three"):
        write_geometry(tmp_path / "p.3dm", VOLUMES["box"])
    with pytest.raises(ValueError, match="degrees from 1 on; got degree 0"):
        write_geometry(tmp_path / "p.3dm", Curve(random(4, 3), degree=0))


def test_faces_and_blocks(tmp_path: Path):
    """Faces are cut to their boundary; a block comes at each of its instances, and nowhere else."""
    model = rhino3dm.File3dm()
    attributes = rhino3dm.ObjectAttributes()
    attributes.Name = "can"
    center = rhino3dm.Point3d(0, 0, 0)
    model.Objects.AddBrep(rhino3dm.Cylinder(rhino3dm.Circle(center, 2.0), 3.0).ToBrep(True, True), attributes)
    own = rhino3dm.ObjectAttributes()
    model.InstanceDefinitions.Add("ring", "", "", "", center, (rhino3dm.Circle(center, 1.0).ToNurbsCurve(),), (own,))
    for x in (5, 7):
        block = rhino3dm.InstanceReference(model.InstanceDefinitions[0].Id, rhino3dm.Transform.Translation(x, 0, 0))
        model.Objects.AddInstanceObject(block)
    path = tmp_path / "p.3dm"
    model.Write(str(path), 7)
    found = read_geometry(path)
    assert found.names == ["can"] * 3 + ["ring"] * 2
    assert [size(patch) for patch in found[:3]] == pytest.approx([12 * torch.pi, 4 * torch.pi, 4 * torch.pi], rel=1e-9)
    assert [patch.control_points[0].tolist() for patch in found[3:]] == [[6, 0, 0], [8, 0, 0]]
