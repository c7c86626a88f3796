"""Geometry files of NURBS patches, whatever the format.

| ending | format | read | written |
|---|---|---|---|
| .json | geomdl's layout | curves, surfaces, volumes | the same, of one kind |
| .dat .smesh | smesh text | one curve, surface or volume | the same |
| .step .stp | STEP, ISO 10303-21 | curves, surfaces, faces | curves, surfaces |
| .iges .igs | IGES 5.3 | curves, surfaces, faces | curves, surfaces |
| .3dm | Rhino, by the package rhino3dm | curves, surfaces, faces | curves, surfaces |
| .obj | Wavefront | no | polygons |
| .vtu | VTK, ParaView | no | exact Bézier cells, or straight cells |

Weights are those of the homogeneous form, control points Euclidean, u the first axis, whatever a format makes of them.
Faces are cut to their boundary where that is one patch. What is not read, and boundaries that are not applied, are
named in one warning per file.
"""

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.checks import check_floating, check_kind, is_integer
from fem.support.files import put
from nurbs.errors import GeometryError
from nurbs.files import json_layout, obj, rhino, smesh, vtk
from nurbs.files.contents import PatchList, check_unit, ratio
from nurbs.files.iges import reading as iges_reading
from nurbs.files.iges import writing as iges_writing
from nurbs.files.step import reading as step_reading
from nurbs.files.step import writing as step_writing
from nurbs.geometry.items import items, plain
from nurbs.geometry.learned import LearnedPatch
from nurbs.geometry.patch import Patch

READ: dict[str, Callable[[Path], PatchList]] = {
    ".json": json_layout.read,
    **dict.fromkeys((".dat", ".smesh"), smesh.read),
    **dict.fromkeys((".step", ".stp"), step_reading.read),
    **dict.fromkeys((".iges", ".igs"), iges_reading.read),
    ".3dm": rhino.read,
}
WRITTEN: dict[str, Callable[..., None]] = {
    ".json": json_layout.write,
    **dict.fromkeys((".dat", ".smesh"), smesh.write),
    **dict.fromkeys((".step", ".stp"), step_writing.write),
    **dict.fromkeys((".iges", ".igs"), iges_writing.write),
    ".3dm": rhino.write,
    ".obj": obj.write,
    ".vtu": vtk.write,
}
WITH_UNITS = (".step", ".stp", ".iges", ".igs", ".3dm")
AnyField = Float[Tensor, "..."]


def read_geometry(
    path: str | os.PathLike[str],
    *,
    unit: str | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> PatchList:
    """The curves, surfaces and volumes in a file, in its order; see the table of `nurbs.files.formats` for the formats.

    Args:
        path: a file; its ending says what it is. Or a folder: all files in it with a known ending, those with numbers
            in their names in numerical order.
        unit: of the coordinates that are returned, "m", "mm", "inch", …; None leaves those of the file.

    Returns:
        A list of `Curve`, `Surface` and `Volume`. A patch whose weights are all 1 is polynomial (`weights` None). The
        list has `unit`, that of its coordinates or None where the file (JSON, smesh) does not say, and `names`, one per
        patch: its own, or else that of the body or product to which it belongs, or "".

    Raises:
        GeometryError: no such file, unknown ending, damaged, no curve, surface or volume in it, or one that is none
            (knots, weights, values that are not finite): the message names the file, the line or entity, and the cause.
            A `unit` is asked for that the file does not say; files of a folder have different ones and none is asked.
        ValueError: an unknown `unit`.

    Warns:
        UserWarning: once per file, what was not read (unbounded curves and surfaces, meshes), and faces that come whole
            because no patch ends at their boundary; the list has it as `remarks`.
    """
    check_floating("read_geometry", dtype)
    check_unit("read_geometry", unit)
    path = path_of("read_geometry", path)
    if not path.is_dir():
        files = [path]
    elif not (files := sorted((f for f in path.iterdir() if f.suffix.lower() in READ and f.is_file()), key=natural)):
        raise GeometryError(f"cannot read {path}: no file in it ends in one of {' '.join(READ)}.")
    found = [read_file(file, unit, dtype, device) for file in files]
    for file, patches in zip(files, found, strict=True):
        if patches.remarks:
            warnings.warn(f"{file}: {'; '.join(patches.remarks)}.", stacklevel=2)
    units = {patches.unit for patches in found}
    if len(said := sorted(unit for unit in units if unit is not None)) > 1:
        raise GeometryError(f"cannot read {path}: its files are in {' and '.join(said)}; ask for one, `unit='mm'`.")
    return PatchList(
        [patch for patches in found for patch in patches],
        [name for patches in found for name in patches.names],
        said[0] if len(units) == 1 and said else None,
        [remark for patches in found for remark in patches.remarks],
    )


def read_file(path: Path, unit: str | None, dtype: torch.dtype, device: torch.device | str) -> PatchList:
    try:
        if not path.is_file():
            raise GeometryError("no such file.")
        if path.suffix.lower() not in READ:
            raise GeometryError(f"the ending {path.suffix!r} is none of {' '.join(READ)}.")
        if path.stat().st_size == 0:
            raise GeometryError("it is empty.")
        found = READ[path.suffix.lower()](path)
        if not found:
            raise GeometryError(" ".join(["it holds no curve, surface or volume.", *(f"{r}." for r in found.remarks)]))
        factor = 1.0 if unit is None else ratio(found.unit, unit)
        patches = [p if factor == 1 else p.replace(control_points=p.control_points * factor) for p in found]
        patches = [patch.to(device=device, dtype=dtype) for patch in patches]
        return PatchList(patches, found.names, unit or found.unit, found.remarks)
    except ValueError as error:  # also of numbers that are too large or too close for the dtype
        raise GeometryError(f"cannot read {path}: {error}") from error


def path_of(call: str, path: Any) -> Path:
    check_kind(call, "path", path, (str, os.PathLike), "a path")
    return Path(path)


def natural(path: Path) -> list[tuple[int, str]]:
    """smesh.2 before smesh.10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path.name)]


def write_geometry(
    path: str | os.PathLike[str],
    patches: Patch | LearnedPatch | Sequence[Patch | LearnedPatch],
    *,
    names: Sequence[str] | None = None,
    unit: str | None = None,
    subdivisions: int | None = None,
    fields: Mapping[str, AnyField | Sequence[AnyField]] | None = None,
) -> Path:
    """Write patches to a file in the format of its ending (see the table of `nurbs.files.formats`); returns its path.

    Numbers are written such that reading gives the same double (3dm holds control points times weights: to round-off).
    The items of batched patches become patches of their
    own, periodic patches are unwrapped, gradients cut. STEP, IGES, 3dm and OBJ hold three coordinates: z = 0 is added.

    Args:
        names: one per patch, in STEP, IGES, 3dm and JSON files; by default those of a list from `read_geometry`.
        unit: in which the coordinates are, in STEP, IGES and 3dm files: "mm", "m", "inch", …; by default that of a list
            from `read_geometry`, or else "mm". Coordinates stay as they are.
        subdivisions: straight cells per knot span and direction: of OBJ files (8 by default) and, where given, of .vtu
            files instead of exact Bézier cells.
        fields: for .vtu files; name → coefficients "*n" or "*n c" of a function in the basis of the patch itself, a
            list of them for several patches.

    Raises:
        ValueError: an unknown ending; nothing to write; what the format cannot hold.
        ModuleNotFoundError: a 3dm file without rhino3dm.
        OSError: the directory is missing or cannot be written to; an existing file stays as it was.
    """
    path = path_of("write_geometry", path)
    check_unit("write_geometry", unit)
    suffix, given = path.suffix.lower(), patches if isinstance(patches, Sequence) else [patches]
    if names is None:
        names = patches.names if isinstance(patches, PatchList) else [""] * len(given)
    if isinstance(names, str) or len(names) != len(given) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`write_geometry(names=...)` must be one text for each of {len(given)} patches; got {names!r}."
        )
    if unit is not None and suffix in WRITTEN and suffix not in WITH_UNITS:
        raise ValueError(f"only {' '.join(WITH_UNITS)} files say a unit; got {unit!r} for {path.name!r}.")
    pairs = [(plain(item), name) for patch, name in zip(given, names, strict=True) for item in items(patch)]
    unit = unit or (patches.unit if isinstance(patches, PatchList) else None) or "mm"
    flat = PatchList([patch for patch, _ in pairs], [name for _, name in pairs], unit)
    if not flat:
        raise ValueError("`write_geometry(path, patches)` needs at least one patch; got none.")
    if suffix not in WRITTEN:
        raise ValueError(f"`write_geometry` knows the endings {' '.join(WRITTEN)}; got {str(path)!r}.")
    if subdivisions is not None and (suffix not in (".obj", ".vtu") or not is_integer(subdivisions, 1)):
        raise ValueError(
            f"`subdivisions` is a number >= 1 for .obj and .vtu files; got {subdivisions!r} for {path.name!r}."
        )
    if fields is not None:
        check_kind("write_geometry", "fields", fields, Mapping, "a mapping of names to coefficients")
    if fields and suffix != ".vtu":
        raise ValueError(f"only .vtu files hold fields; got {list(fields)} for {path.name!r}.")
    options: dict[str, Any] = {}
    if suffix in (".step", ".stp", ".iges", ".igs"):
        options = {"name": path.stem}
    elif suffix == ".obj":
        options = {"subdivisions": subdivisions or 8}
    elif suffix == ".vtu":
        several = {name: list(f) if isinstance(f, Sequence) else [f] for name, f in (fields or {}).items()}
        for name, f in ((name, f) for name, parts in several.items() for f in parts):
            check_kind("write_geometry", f"fields[{name!r}]", f, Tensor, "a tensor of coefficients, or a list of them")
        options = {"subdivisions": subdivisions, "fields": {k: [f.detach() for f in v] for k, v in several.items()}}
    put(path, lambda temporary: WRITTEN[suffix](temporary, flat, **options))
    return path
