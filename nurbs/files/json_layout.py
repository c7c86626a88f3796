"""Curves, surfaces or volumes as JSON in the layout of geomdl (NURBS-Python).

    {"shape": {"type": "surface", "count": 1, "data": [{"type": "spline", "rational": true, "dimension": 3,
        "degree_u": …, "knotvector_u": […], "size_u": …, …, "control_points": {"points": […], "weights": […]}}]}}

Points are Euclidean, v fastest, then u, then w. A file holds patches of one kind. Trim curves are not applied.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nurbs.errors import GeometryError
from nurbs.files.contents import PatchList
from nurbs.files.exchange import make_patch, read_integer, read_numbers, read_text, weights_of
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch

TYPES = ("curve", "surface", "volume")
SLOWEST_FIRST = ((0,), (0, 1), (2, 0, 1))  # the directions, in the order of the list of points


def read(path: Path) -> PatchList:
    try:
        contents = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise GeometryError(f"line {error.lineno}: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # nested without end; integers of thousands of digits
        raise GeometryError(f"this is no JSON that can be read ({error}).") from error
    shape = get(contents, "shape", "the file")
    kind, data = get(shape, "type", '"shape"'), get(shape, "data", '"shape"')
    if kind not in TYPES:
        raise GeometryError(f'"shape": the type must be one of {", ".join(TYPES)}; got {kind!r}.')
    if not isinstance(data, list):
        raise GeometryError('"shape": "data" must be a list.')
    patches = [read_patch(item, TYPES.index(kind) + 1, f"{kind} {i}") for i, item in enumerate(data)]
    trimmed = sum(isinstance(trims := item.get("trims"), dict) and bool(trims.get("data")) for item in data)
    return PatchList(
        patches,
        [name if isinstance(name := item.get("name"), str) else "" for item in data],
        remarks=[f"whole, without their trim curves, are {trimmed} surfaces"] if trimmed else [],
    )


def read_patch(item: Any, directions: int, where: str) -> Patch:
    def each(name: str) -> list[Any]:
        return [get(item, key, where) for key in keys(name, directions)]

    degree = [read_integer(value, f"{where}, degree") for value in each("degree")]
    knots = [read_numbers(value, f"{where}, knots").ravel() for value in each("knotvector")]
    block = get(item, "control_points", where)
    points = read_numbers(get(block, "points", where), f"{where}, control points")
    if points.ndim != 2:
        raise GeometryError(f"{where}: a list of control points was expected.")
    counts = [len(points)]
    if directions > 1:
        counts = [read_integer(value, f"{where}, sizes") for value in each("size")]
    order = SLOWEST_FIRST[directions - 1]
    listed = tuple(counts[axis] for axis in order)
    weights = np.ones(len(points))
    if block.get("weights") is not None:
        weights = read_numbers(block["weights"], f"{where}, weights")
    if min(counts) < 1 or weights.shape != points.shape[:1] or np.prod(listed, dtype=float) != len(points):
        raise GeometryError(
            f"{where}: {' × '.join(map(str, counts))} control points were announced; got {len(points)}, and weights "
            f"of shape {weights.shape}."
        )
    axes = np.argsort(order)
    table = points.reshape(*listed, -1).transpose(*axes, directions)
    return make_patch(table, weights.reshape(listed).transpose(axes), knots, degree, where)


def get(item: Any, key: str, where: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise GeometryError(f"{where}: {key!r} is missing.")
    return item[key]


def keys(name: str, directions: int) -> list[str]:
    return [name] if directions == 1 else [f"{name}_{direction}" for direction in UVW[:directions]]


def write(path: Path, patches: PatchList) -> None:
    kinds = {patch.directions for patch in patches}
    if len(kinds) != 1:
        raise ValueError("a JSON file in this layout holds curves, surfaces or volumes only; write one file for each.")
    (r,) = kinds
    data = []
    for patch, name in zip(patches, patches.names, strict=True):
        order = SLOWEST_FIRST[r - 1]
        points = patch.control_points.numpy().transpose(*order, r).reshape(-1, patch.dim).tolist()
        block = {"points": points}
        if patch.weights is not None:
            block["weights"] = weights_of(patch).transpose(order).ravel().tolist()
        item = {"type": "spline", "rational": patch.weights is not None, "dimension": patch.dim}
        item |= dict(zip(keys("degree", r), patch.degree, strict=True))
        item |= dict(zip(keys("knotvector", r), (t.tolist() for t in patch.knots), strict=True))
        if r > 1:
            item |= dict(zip(keys("size", r), patch.shape, strict=True))
        item |= {"name": name} if name else {}
        data.append(item | {"control_points": block})
    shape = {"type": TYPES[r - 1], "count": len(data), "data": data}
    path.write_text(json.dumps({"shape": shape}, indent=1), encoding="utf-8")
