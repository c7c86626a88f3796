"""Rhino's 3dm files through the package rhino3dm: curves, surfaces, and the faces of Breps and extrusions.

openNURBS stores control points multiplied by their weights, and knot vectors without their first and last knot, which
have no influence; their neighbours are repeated in their place, so that ends stay clamped. Faces are cut to their
boundary where one patch ends there, and come whole with a warning otherwise. Blocks come at all their instances.
Geometry that has no NURBS form (meshes, SubD, annotations) is left out with a warning.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.contents import PatchList, known_unit
from nurbs.files.exchange import Unreadable, in_space, make_patch, moved, remarks_of, weights_of
from nurbs.files.rhino_archive import check_archive
from nurbs.files.trimming.basis_surfaces import SplineSurface
from nurbs.files.trimming.faces import read_face
from nurbs.geometry.curve import Curve
from nurbs.geometry.patch import Patch
from nurbs.geometry.surface import Surface
from nurbs.modelling.transformation import reverse

UNITS = {"m": "Meters", "mm": "Millimeters", "cm": "Centimeters", "dm": "Decimeters", "km": "Kilometers"}
UNITS |= {"um": "Microns", "nm": "Nanometers", "inch": "Inches", "ft": "Feet", "yd": "Yards", "mile": "Miles"}
UNITS |= {"mil": "Mils", "uin": "Microinches"}
DEEPEST, MOST = 40, 100_000  # blocks in blocks, placed objects


def load() -> Any:
    try:
        import rhino3dm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("3dm files need the package rhino3dm; `pip install rhino3dm`.") from error
    return rhino3dm


def read(path: Path) -> PatchList:
    try:
        rhino3dm = load()
        check_archive(path)
        model = rhino3dm.File3dm.Read(str(path))
    except ModuleNotFoundError as error:
        raise GeometryError(str(error)) from error
    if model is None:
        raise GeometryError("it is damaged, or no 3dm file.")
    reader = _Reader(model)
    found: list[tuple[Patch, str]] = []
    for i in range(len(model.Objects)):
        if not model.Objects[i].Attributes.IsInstanceDefinitionObject:
            found += reader.placed(model.Objects[i], f"object {i}", np.eye(4), "", 0)
    remarks = remarks_of(reader.others)
    if reader.untrimmed:
        remarks.append(f"whole, without their boundaries, are {reader.untrimmed} faces")
    system = model.Settings.ModelUnitSystem.name
    unit = next((unit for unit, name in UNITS.items() if name == system), None)
    return PatchList([item for item, _ in found], [name for _, name in found], unit, remarks)


class _Reader:
    """Reads objects, and counts what it cannot read or follow."""

    def __init__(self, model: Any):
        self.model, self.others, self.untrimmed, self.count = model, Counter[str](), 0, 0

    def placed(self, item: Any, where: str, matrix: np.ndarray, holder: str, depth: int) -> list[tuple[Patch, str]]:
        """The patches of an object at its place, each with its name or that of the block it is in."""
        if item is None:
            raise GeometryError(f"{where}: an object of its block is not there.")
        geometry, name = item.Geometry, item.Attributes.Name or holder
        self.count += 1
        if depth > DEEPEST or self.count > MOST:
            raise GeometryError(f"{where}: its blocks hold each other, or too many objects.")
        if type(geometry).__name__ != "InstanceReference":
            return [(moved(p, matrix), name) for p in self.patches(geometry, where)]
        block = self.model.InstanceDefinitions.FindId(geometry.ParentIdefId)
        if block is None:
            raise GeometryError(f"{where}: its block is not there.")
        x = geometry.Xform
        own = np.array([[getattr(x, f"M{i}{j}") for j in range(4)] for i in range(4)])
        found: list[tuple[Patch, str]] = []
        for identity in block.GetObjectIds():
            member = self.model.Objects.FindId(identity)
            found += self.placed(member, where, matrix @ own, name or block.Name, depth + 1)
        return found

    def patches(self, geometry: Any, where: str) -> list[Patch]:
        kind = type(geometry).__name__
        if kind == "Extrusion":
            geometry = geometry.ToBrep(False)
        if hasattr(geometry, "Faces") and hasattr(geometry, "Surfaces"):
            faces = [self.face(geometry.Faces[k], f"{where}, face {k}") for k in range(len(geometry.Faces))]
            return [found for found in faces if found is not None]
        if hasattr(geometry, "ToNurbsSurface"):
            return [surface(geometry.ToNurbsSurface(), where)]
        if hasattr(geometry, "ToNurbsCurve"):
            return [curve(geometry.ToNurbsCurve(), where)]
        self.others[kind] += 1
        return []

    def face(self, face: Any, where: str) -> Patch | None:
        whole, alone = surface(face.UnderlyingSurface().ToNurbsSurface(), where), face.DuplicateFace(False)
        if alone is None or alone.IsSurface:
            return whole
        loops = [loop_of(alone, alone.Faces[0].Loops[k], where) for k in range(len(alone.Faces[0].Loops))]
        try:
            tolerance = float(self.model.Settings.ModelAbsoluteTolerance)
            found, applied = read_face(SplineSurface(whole), [loop for loop in loops if loop], tolerance)
        except Unreadable as reason:
            self.others[f"face ({reason})"] += 1
            return None
        self.untrimmed += not applied
        return found


def loop_of(brep: Any, loop: Any, where: str) -> list[Curve]:
    """The edges of a loop in its direction; sides that are a point have none."""
    found = []
    for trim in (loop.Trims[i] for i in range(len(loop.Trims))):
        if trim.EdgeIndex >= 0:
            edge = curve(brep.Edges[trim.EdgeIndex].ToNurbsCurve(), where)
            found.append(reverse(edge) if trim.IsReversed else edge)
    return found


def curve(nurbs: Any, where: str) -> Curve:
    if nurbs is None:
        raise GeometryError(f"{where}: it has no NURBS form.")
    rows = [nurbs.Points[i] for i in range(len(nurbs.Points))]
    found = patch(np.array([[p.X, p.Y, p.Z, p.W] for p in rows]), nurbs, [nurbs.Knots], [nurbs.Order - 1], where)
    assert isinstance(found, Curve)
    return found


def surface(nurbs: Any, where: str) -> Surface:
    if nurbs is None:
        raise GeometryError(f"{where}: it has no NURBS form.")
    grid = nurbs.Points
    rows = [[grid[i, j] for j in range(grid.CountV)] for i in range(grid.CountU)]
    points = np.array([[[p.X, p.Y, p.Z, p.W] for p in row] for row in rows])
    found = patch(points, nurbs, [nurbs.KnotsU, nurbs.KnotsV], [nurbs.OrderU - 1, nurbs.OrderV - 1], where)
    assert isinstance(found, Surface)
    return found


def patch(points: np.ndarray, nurbs: Any, lists: list[Any], degree: list[int], where: str) -> Patch:
    knots = []
    for values in lists:
        inner = np.array([values[i] for i in range(len(values))])
        knots.append(inner[[0, *range(len(inner)), -1]] if len(inner) else inner)
    if not nurbs.IsRational:
        return make_patch(points[..., :3], None, knots, degree, where)
    with np.errstate(all="ignore"):  # weights that are 0 are reported by the patch
        return make_patch(points[..., :3] / points[..., 3:], points[..., 3], knots, degree, where)


def write(path: Path, contents: PatchList) -> None:
    rhino3dm = load()
    model = rhino3dm.File3dm()
    model.Settings.ModelUnitSystem = getattr(rhino3dm.UnitSystem, UNITS[known_unit(contents.unit, UNITS, "3dm")])
    for item, name in zip(in_space(contents, "3dm"), contents.names, strict=True):
        if min(item.degree) < 1:
            raise ValueError("3dm files hold degrees from 1 on; got degree 0.")
        rational, orders = item.weights is not None, [p + 1 for p in item.degree]
        weights = weights_of(item)[..., None]
        points = np.concatenate([item.control_points.numpy() * weights, weights], -1)
        if item.directions == 1:
            nurbs = rhino3dm.NurbsCurve(3, rational, *orders, *item.shape)
            lists = [nurbs.Knots]
        else:
            nurbs = rhino3dm.NurbsSurface.Create(3, rational, *orders, *item.shape)
            lists = [nurbs.KnotsU, nurbs.KnotsV]
        for index in np.ndindex(*item.shape):
            nurbs.Points[index[0] if item.directions == 1 else index] = rhino3dm.Point4d(*points[index].tolist())
        for values, t in zip(lists, item.knots, strict=True):
            for i, knot in enumerate(t[1:-1].tolist()):
                values[i] = knot
        attributes = rhino3dm.ObjectAttributes()
        attributes.Name = name
        (model.Objects.AddCurve if item.directions == 1 else model.Objects.AddSurface)(nurbs, attributes)
    if not model.Write(str(path), 7):
        raise OSError(None, "rhino3dm could not write the file")
