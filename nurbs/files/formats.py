"""Geometry files of NURBS patches, whatever the format.

| ending | format | read | written |
|---|---|---|---|
| .json | geomdl's layout | curves, surfaces, volumes | the same, of one kind |
| .dat .smesh | smesh text | one curve, surface or volume | the same |
| .step .stp | STEP, ISO 10303-21 | curves, surfaces | curves, surfaces |
| .iges .igs | IGES 5.3 | curves, surfaces | curves, surfaces |
| .3dm | Rhino, by the package rhino3dm | curves, surfaces | curves, surfaces |
| .obj | Wavefront | no | polygons |
| .vtu | VTK, ParaView | no | exact Bézier cells, or straight cells |

Weights are those of the homogeneous form, control points Euclidean, u the first axis, whatever a format makes of them.
Trimmed surfaces come whole.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.checks import check_floating, check_kind, is_integer
from fem.support.files import put
from nurbs.errors import GeometryError
from nurbs.files import iges, json_layout, obj, rhino, smesh, step, vtk
from nurbs.geometry.items import items, plain
from nurbs.geometry.learned import LearnedPatch
from nurbs.geometry.patch import Patch

READ: dict[str, ModuleType] = {
    ".json": json_layout,
    **dict.fromkeys((".dat", ".smesh"), smesh),
    **dict.fromkeys((".step", ".stp"), step),
    **dict.fromkeys((".iges", ".igs"), iges),
    ".3dm": rhino,
}
WRITTEN = READ | {".obj": obj, ".vtu": vtk}
AnyField = Float[Tensor, "..."]


def read_geometry(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> list[Any]:
    """The curves, surfaces and volumes in a file, in its order; see the table of `nurbs.files.formats` for the formats.

    Args:
        path: a file; its ending says what it is. Or a folder: all files in it with a known ending, those with numbers
            in their names in numerical order.

    Returns:
        A list of `Curve`, `Surface` and `Volume`. A patch whose weights are all 1 is polynomial (`weights` None).

    Raises:
        GeometryError: no such file, unknown ending, damaged, no curve, surface or volume in it, or one that is none
            (knots, weights, values that are not finite): the message names the file, the line or entity, and the cause.
    """
    check_floating("read_geometry", dtype)
    path = path_of("read_geometry", path)
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in READ and f.is_file()), key=natural)
        if not files:
            raise GeometryError(f"cannot read {path}: no file in it ends in one of {' '.join(READ)}.")
        return [patch for file in files for patch in read_geometry(file, dtype=dtype, device=device)]
    try:
        if not path.is_file():
            raise GeometryError("no such file.")
        if path.suffix.lower() not in READ:
            raise GeometryError(f"the ending {path.suffix!r} is none of {' '.join(READ)}.")
        if path.stat().st_size == 0:
            raise GeometryError("it is empty.")
        patches = READ[path.suffix.lower()].read(path)
        if not patches:
            raise GeometryError("it holds no curve, surface or volume.")
        return [patch.to(device=device, dtype=dtype) for patch in patches]
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
    subdivisions: int | None = None,
    fields: Mapping[str, AnyField | Sequence[AnyField]] | None = None,
) -> Path:
    """Write patches to a file in the format of its ending (see the table of `nurbs.files.formats`); returns its path.

    Numbers are written such that reading gives the same double (3dm holds control points times weights: to round-off).
    The items of batched patches become patches of their
    own, periodic patches are unwrapped, gradients cut. STEP, IGES, 3dm and OBJ hold three coordinates: z = 0 is added.

    Args:
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
    suffix, given = path.suffix.lower(), patches if isinstance(patches, Sequence) else [patches]
    flat = [plain(item) for patch in given for item in items(patch)]
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
    put(path, lambda temporary: WRITTEN[suffix].write(temporary, flat, **options))
    return path
