"""Rhino's 3dm files through the package rhino3dm: curves and surfaces, those under the faces of Breps included.

openNURBS stores control points multiplied by their weights, and knot vectors without their first and last knot, which
have no influence; their neighbours are repeated in their place, so that ends stay clamped. Trimming is passed over.
Geometry that has no NURBS form (meshes, SubD, annotations) is left out with a warning.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.exchange import in_space, make_patch, warn_of, weights_of
from nurbs.geometry.patch import Patch


def load() -> Any:
    try:
        import rhino3dm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("3dm files need the package rhino3dm; `pip install rhino3dm`.") from error
    return rhino3dm


def read(path: Path) -> list[Patch]:
    try:
        model = load().File3dm.Read(str(path))
    except ModuleNotFoundError as error:
        raise GeometryError(str(error)) from error
    if model is None:
        raise GeometryError("it is damaged, or no 3dm file.")
    found: list[Patch] = []
    others: Counter[str] = Counter()
    for i in range(len(model.Objects)):
        geometry = model.Objects[i].Geometry
        kind, where = type(geometry).__name__, f"object {i}"
        if kind == "Extrusion":
            geometry = geometry.ToBrep(False)
        if hasattr(geometry, "Faces") and hasattr(geometry, "Surfaces"):
            surfaces = [geometry.Faces[k].UnderlyingSurface() for k in range(len(geometry.Faces))]
            found += [surface(s.ToNurbsSurface(), f"{where}, face {k}") for k, s in enumerate(surfaces)]
        elif hasattr(geometry, "ToNurbsSurface"):
            found.append(surface(geometry.ToNurbsSurface(), where))
        elif hasattr(geometry, "ToNurbsCurve"):
            found.append(curve(geometry.ToNurbsCurve(), where))
        else:
            others[kind] += 1
    warn_of(others, path)
    return found


def curve(nurbs: Any, where: str) -> Patch:
    if nurbs is None:
        raise GeometryError(f"{where}: it has no NURBS form.")
    rows = [nurbs.Points[i] for i in range(len(nurbs.Points))]
    return patch(np.array([[p.X, p.Y, p.Z, p.W] for p in rows]), nurbs, [nurbs.Knots], [nurbs.Order - 1], where)


def surface(nurbs: Any, where: str) -> Patch:
    if nurbs is None:
        raise GeometryError(f"{where}: it has no NURBS form.")
    grid = nurbs.Points
    rows = [[grid[i, j] for j in range(grid.CountV)] for i in range(grid.CountU)]
    points = np.array([[[p.X, p.Y, p.Z, p.W] for p in row] for row in rows])
    return patch(points, nurbs, [nurbs.KnotsU, nurbs.KnotsV], [nurbs.OrderU - 1, nurbs.OrderV - 1], where)


def patch(points: np.ndarray, nurbs: Any, lists: list[Any], degree: list[int], where: str) -> Patch:
    knots = []
    for values in lists:
        inner = np.array([values[i] for i in range(len(values))])
        knots.append(inner[[0, *range(len(inner)), -1]] if len(inner) else inner)
    if not nurbs.IsRational:
        return make_patch(points[..., :3], None, knots, degree, where)
    with np.errstate(all="ignore"):  # weights that are 0 are reported by the patch
        return make_patch(points[..., :3] / points[..., 3:], points[..., 3], knots, degree, where)


def write(path: Path, patches: list[Patch]) -> None:
    rhino3dm = load()
    model = rhino3dm.File3dm()
    for item in in_space(patches, "3dm"):
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
        (model.Objects.AddCurve if item.directions == 1 else model.Objects.AddSurface)(nurbs)
    if not model.Write(str(path), 7):
        raise OSError(None, "rhino3dm could not write the file")
