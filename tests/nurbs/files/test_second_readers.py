"""What is written, read by others: OpenCASCADE (cadquery-ocp), VTK and rhino3dm see the same points and units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nurbs import Curve, Surface, circle, cylinder, read_geometry, sphere, torus, write_geometry
from tests.nurbs.file_cases import size
from tests.nurbs.patches import random

PATCHES: list[Curve | Surface] = [
    sphere(2.0, (1.0, -1.0, 0.5)),
    torus(),
    cylinder(2.0, 3.0),
    Surface(random(4, 5, 3), random(4, 5) + 0.5, degree=(3, 2)),
    Surface(random(4, 5, 3), degree=(1, 3)),
]
CURVES: list[Curve | Surface] = [
    circle(center=(0.0, 0.0, 1.0)),
    Curve(random(6, 3), random(6) + 0.5),
    Curve(random(5, 3), degree=2),
]
INCH = 25.4


def parameters(patch: Curve | Surface) -> list[torch.Tensor]:
    return [torch.lerp(a, b, torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64)) for a, b in patch.domain()]


def transferred(path: Path) -> Any:
    """The shape that OpenCASCADE makes of a file, in millimetres."""
    step_control = pytest.importorskip("OCP.STEPControl")
    iges_control = pytest.importorskip("OCP.IGESControl")
    reader = step_control.STEPControl_Reader() if path.suffix == ".step" else iges_control.IGESControl_Reader()
    reader.ReadFile(str(path))
    reader.TransferRoots()
    return reader.OneShape()


def static(owner: Any, name: str) -> Any:
    """A static method, whose name the bindings end with _s or not."""
    return getattr(owner, f"{name}_s", None) or getattr(owner, name)


def parts(shape: Any, kind: str) -> list[Any]:
    from OCP.TopAbs import TopAbs_ShapeEnum  # pyright: ignore[reportMissingImports]
    from OCP.TopExp import TopExp_Explorer  # pyright: ignore[reportMissingImports]
    from OCP.TopoDS import TopoDS  # pyright: ignore[reportMissingImports]

    explorer, found = TopExp_Explorer(shape, getattr(TopAbs_ShapeEnum, f"TopAbs_{kind.upper()}")), []
    while explorer.More():
        found.append(static(TopoDS, kind.capitalize())(explorer.Current()))
        explorer.Next()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".step", ".igs"])
@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("inch", INCH)])
def test_opencascade(suffix: str, unit: str, factor: float, tmp_path: Path):
    pytest.importorskip("OCP")
    from OCP.BRep import BRep_Tool  # pyright: ignore[reportMissingImports]

    shape = transferred(write_geometry(tmp_path / f"s{suffix}", PATCHES, unit=unit))
    faces = [static(BRep_Tool, "Surface")(face) for face in parts(shape, "face")]
    assert len(faces) == len(PATCHES)
    for patch, face in zip(PATCHES, faces, strict=True):
        u, v = parameters(patch)
        expected = factor * patch(u, v)
        got = [[face.Value(float(a), float(b)).Coord() for b in v] for a in u]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * factor)
    curves = CURVES if suffix == ".step" else CURVES[1:]  # of IGES files it splits those with double knots
    edges = parts(transferred(write_geometry(tmp_path / f"c{suffix}", curves, unit=unit)), "edge")
    assert len(edges) == len(curves)
    for patch, edge in zip(curves, edges, strict=True):
        (u,) = parameters(patch)
        curve = static(BRep_Tool, "Curve")(edge, 0.0, 1.0)
        curve = curve[0] if isinstance(curve, tuple) else curve
        np.testing.assert_allclose([curve.Value(float(a)).Coord() for a in u], factor * patch(u), atol=1e-10 * factor)


def solids() -> dict[str, Any]:
    """Shapes whose faces are all patches."""
    from OCP import BRepPrimAPI as Make  # pyright: ignore[reportMissingImports]
    from OCP.BRepAlgoAPI import BRepAlgoAPI_Cut  # pyright: ignore[reportMissingImports]
    from OCP.BRepFilletAPI import BRepFilletAPI_MakeFillet  # pyright: ignore[reportMissingImports]
    from OCP.gp import gp_Ax2, gp_Dir, gp_Pnt  # pyright: ignore[reportMissingImports]

    tilted = gp_Ax2(gp_Pnt(1, 2, 3), gp_Dir(1, 1, 0))
    box, cylinder = Make.BRepPrimAPI_MakeBox(4.0, 4.0, 4.0).Shape(), Make.BRepPrimAPI_MakeCylinder
    fillet = BRepFilletAPI_MakeFillet(box)
    for edge in parts(box, "edge")[::2]:
        fillet.Add(0.5, edge)
    return {
        "box": Make.BRepPrimAPI_MakeBox(1.0, 2.0, 3.0).Shape(),
        "cylinder": cylinder(tilted, 2.0, 5.0).Shape(),
        "sector": cylinder(2.0, 5.0, 1.2).Shape(),
        "cone": Make.BRepPrimAPI_MakeCone(tilted, 2.0, 1.0, 5.0).Shape(),
        "tip": Make.BRepPrimAPI_MakeCone(2.0, 0.0, 5.0).Shape(),
        "sphere": Make.BRepPrimAPI_MakeSphere(2.0).Shape(),
        "zone": Make.BRepPrimAPI_MakeSphere(2.0, -0.5, 1.2, 1.0).Shape(),
        "cap": Make.BRepPrimAPI_MakeSphere(2.0, 0.3, np.pi / 2).Shape(),
        "torus": Make.BRepPrimAPI_MakeTorus(3.0, 1.0).Shape(),
        "pipe": BRepAlgoAPI_Cut(cylinder(2.0, 5.0).Shape(), cylinder(1.0, 5.0).Shape()).Shape(),
        "rounded": fillet.Shape(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["step", "igs of faces", "igs of solids"])
def test_files_of_opencascade(kind: str, tmp_path: Path):
    """Every face becomes a patch of its area, without a warning."""
    pytest.importorskip("OCP")
    from OCP.BRepGProp import BRepGProp  # pyright: ignore[reportMissingImports]
    from OCP.GProp import GProp_GProps  # pyright: ignore[reportMissingImports]
    from OCP.IGESControl import IGESControl_Writer  # pyright: ignore[reportMissingImports]
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer  # pyright: ignore[reportMissingImports]

    for name, shape in solids().items():
        areas = []
        for face in parts(shape, "face"):
            properties = GProp_GProps()
            static(BRepGProp, "SurfaceProperties")(face, properties)
            areas.append(properties.Mass())
        path = tmp_path / f"{name}.{kind.split()[0]}"
        if kind == "step":
            writer = STEPControl_Writer()
            writer.Transfer(shape, STEPControl_StepModelType.STEPControl_AsIs)
        else:
            writer = IGESControl_Writer("MM", int(kind.endswith("solids")))
            writer.AddShape(shape)
            writer.ComputeModel()
        writer.Write(str(path))
        found = read_geometry(path)
        assert sorted(map(size, found)) == pytest.approx(sorted(areas), rel=1e-8), name
        assert found.unit == "mm"


@pytest.mark.slow
def test_vtk(tmp_path: Path):
    """Areas of the exact cells, refined by VTK."""
    pytest.importorskip("vtk")
    from vtkmodules.vtkFiltersCore import vtkMassProperties, vtkTriangleFilter
    from vtkmodules.vtkFiltersGeometry import vtkDataSetSurfaceFilter
    from vtkmodules.vtkIOXML import vtkXMLUnstructuredGridReader

    for patch, area in ((sphere(2.0), 16 * np.pi), (torus(), np.pi**2)):
        reader = vtkXMLUnstructuredGridReader()
        reader.SetFileName(str(write_geometry(tmp_path / "p.vtu", patch)))
        surface, triangles, mass = vtkDataSetSurfaceFilter(), vtkTriangleFilter(), vtkMassProperties()
        surface.SetNonlinearSubdivisionLevel(4)
        surface.SetInputConnection(reader.GetOutputPort())
        triangles.SetInputConnection(surface.GetOutputPort())
        mass.SetInputConnection(triangles.GetOutputPort())
        mass.Update()
        assert mass.GetSurfaceArea() == pytest.approx(area, rel=5e-3)


@pytest.mark.slow
def test_rhino(tmp_path: Path):
    rhino3dm = pytest.importorskip("rhino3dm")
    both, names = [*PATCHES, *CURVES], [f"patch {i}" for i in range(len(PATCHES) + len(CURVES))]
    model = rhino3dm.File3dm.Read(str(write_geometry(tmp_path / "p.3dm", both, names=names, unit="inch")))
    assert model.Settings.ModelUnitSystem == rhino3dm.UnitSystem.Inches
    assert [model.Objects[i].Attributes.Name for i in range(len(model.Objects))] == names
    for i, patch in enumerate(both):
        geometry, lines = model.Objects[i].Geometry, parameters(patch)
        grid = torch.cartesian_prod(*lines).reshape(-1, len(lines))
        got = [geometry.PointAt(*map(float, uv)) for uv in grid]
        np.testing.assert_allclose([[p.X, p.Y, p.Z] for p in got], patch.at(grid), rtol=0, atol=1e-14)
