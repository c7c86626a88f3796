"""Geometry files of NURBS patches, whatever the format.

| ending | format | read | written |
|---|---|---|---|
| .json | geomdl's layout | curves, surfaces, volumes | the same, of one kind |
| .dat .txt .smesh | smesh text | one curve, surface or volume | the same |
| .step .stp .p21 | STEP, ISO 10303-21 | curves, surfaces | curves, surfaces |
| .iges .igs | IGES 5.3 | curves, surfaces | curves, surfaces |
| .3dm | Rhino, by the package rhino3dm | curves, surfaces | curves, surfaces |
| .obj | Wavefront | free-form curves, surfaces | polygons |
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
from torch import Tensor

from fem.files import put
from nurbs import iges_files, json_files, obj_files, rhino_files, smesh_files, step_files, vtk_files
from nurbs.errors import GeometryError
from nurbs.exchange import items, plain
from nurbs.learned import LearnedPatch
from nurbs.patch import Patch

READERS: dict[str, ModuleType] = {
    ".json": json_files,
    **dict.fromkeys((".dat", ".txt", ".smesh"), smesh_files),
    **dict.fromkeys((".step", ".stp", ".p21"), step_files),
    **dict.fromkeys((".iges", ".igs"), iges_files),
    ".3dm": rhino_files,
    ".obj": obj_files,
}
SIGNATURES = {rb"\s*ISO-10303-21;": ".step", rb"3D Geometry File Format": ".3dm", rb"\s*\{": ".json"}
SIGNATURES |= {rb".{72}S *1\s": ".iges"}


def read_geometry(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> list[Any]:
    """The curves, surfaces and volumes in a file, in its order; see the table of `nurbs.files` for the formats.

    Args:
        path: a file; the ending says what it is, and where that is unknown, its first bytes. Or a folder: all files in
            it with a known ending, those with numbers in their names in numerical order.

    Returns:
        A list of `Curve`, `Surface` and `Volume`. A patch whose weights are all 1 is polynomial (`weights` None).

    Raises:
        GeometryError: no such file, unknown format, damaged, no curve, surface or volume in it, or one that is none
            (knots, weights, values that are not finite): the message names the file, the line or entity, and the cause.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in READERS and f.is_file()), key=natural)
        if not files:
            raise GeometryError(f"cannot read {path}: no file in it ends in one of {' '.join(READERS)}.")
        return [patch for file in files for patch in read_geometry(file, dtype=dtype, device=device)]
    if not path.is_file():
        raise GeometryError(f"cannot read {path}: no such file.")
    try:
        patches = READERS[format_of(path)].read(path)
        if not patches:
            raise GeometryError("it holds no curve, surface or volume.")
        return [patch.to(device=device, dtype=dtype) for patch in patches]
    except ValueError as error:  # also of numbers that are too large or too close for the dtype
        raise GeometryError(f"cannot read {path}: {error}") from error


def format_of(path: Path) -> str:
    """The ending that tells the format."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise GeometryError("it is empty.")
    if (suffix := path.suffix.lower()) in READERS:
        return suffix
    for signature, known in SIGNATURES.items():
        if re.match(signature, start):
            return known
    raise GeometryError(
        f"the ending {path.suffix!r} is none of {' '.join(READERS)}, and its first bytes tell no format."
    )


def natural(path: Path) -> list[tuple[int, str]]:
    """smesh.2 before smesh.10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path.name)]


def write_geometry(
    path: str | os.PathLike[str],
    patches: Patch | LearnedPatch | Sequence[Patch | LearnedPatch],
    *,
    subdivisions: int | None = None,
    fields: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
) -> Path:
    """Write patches to a file in the format of its ending (see the table of `nurbs.files`); returns its path.

    Numbers are written such that reading gives the same double. The items of batched patches become patches of their
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
    path = Path(path)
    suffix, given = path.suffix.lower(), patches if isinstance(patches, Sequence) else [patches]
    flat = [plain(item) for patch in given for item in items(patch)]
    if not flat:
        raise ValueError("`write_geometry(path, patches)` needs at least one patch; got none.")
    if suffix not in READERS and suffix != ".vtu":
        raise ValueError(f"`write_geometry` knows the endings {' '.join(READERS)} .vtu; got {str(path)!r}.")
    if subdivisions is not None and (suffix not in (".obj", ".vtu") or subdivisions < 1):
        raise ValueError(
            f"`subdivisions` is a number >= 1 for .obj and .vtu files; got {subdivisions} for {path.name!r}."
        )
    if fields and suffix != ".vtu":
        raise ValueError(f"only .vtu files hold fields; got {list(fields)} for {path.name!r}.")
    if suffix == ".vtu":
        several = {name: [f] if isinstance(f, Tensor) else list(f) for name, f in (fields or {}).items()}
        vtk_files.write(path, flat, subdivisions, {k: [f.detach().cpu() for f in v] for k, v in several.items()})
    elif suffix == ".obj":
        put(path, lambda temporary: obj_files.write(temporary, flat, subdivisions or 8))
    else:
        put(path, lambda temporary: READERS[suffix].write(temporary, flat))
    return path
