"""What the formats of geometry files share: patches from the numbers in a file, and the numbers of patches."""

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nurbs.errors import GeometryError
from nurbs.geometry.items import PATCHES
from nurbs.geometry.patch import AnyPatch, Patch
from nurbs.modelling.transformation import transform


class Unreadable(Exception):  # noqa: N818 (not an error of the file)
    """What a file says well, but this package cannot hold or follow: left out, and named in a warning."""


def read_text(path: Path) -> str:
    """The text of a file; bytes that are no UTF-8 become signs that no format knows."""
    return path.read_bytes().decode("utf-8-sig", errors="replace")


def read_numbers(values: Any, where: str) -> np.ndarray:
    """An array of doubles from numbers, nested lists of them, or their text."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise GeometryError(f"{where}: numbers were expected ({error}).") from error


def read_integers(values: Any, where: str) -> list[int]:
    """Counts and degrees: whole numbers."""
    found = read_numbers(values, where).ravel()
    if not ((abs(found) < 2**31) & (found == np.round(found))).all():
        raise GeometryError(f"{where}: whole numbers were expected; got {found.tolist()}.")
    return [int(x) for x in found]


def read_integer(value: Any, where: str) -> int:
    found = read_integers(value, where)
    if len(found) != 1:
        raise GeometryError(f"{where}: one number was expected; got {len(found)}.")
    return found[0]


def tensor(values: np.ndarray | np.floating | float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def moved(patch: AnyPatch, matrix: np.ndarray) -> AnyPatch:
    """The image of a patch in space under a map "4 4"."""
    if (matrix == np.eye(4)).all():
        return patch
    return transform(patch, tensor(matrix[:3, :3]), tensor(matrix[:3, 3]))


def make_patch(
    points: np.ndarray,
    weights: np.ndarray | None,
    knots: Sequence[np.ndarray],
    degree: Sequence[int],
    where: str,
) -> Patch:
    """The patch of these numbers, points "*n d" Euclidean; weights that are all 1 are left out.

    Raises:
        GeometryError: what `Patch` does not accept, at the entity `where`.
    """
    if weights is not None and (weights == 1).all():
        weights = None
    try:
        return PATCHES[len(degree) - 1](
            tensor(points),
            None if weights is None else tensor(weights),
            tuple(map(tensor, knots)),
            tuple(degree),
        )
    except ValueError as error:
        raise GeometryError(f"{where}: {error}") from error


def remarks_of(others: Counter[str], said: str = "not read are") -> list[str]:
    """What a file holds besides, for the warning."""
    return [f"{said} " + ", ".join(f"{count} {name}" for name, count in sorted(others.items()))] if others else []


def u_fastest(values: np.ndarray, counts: Sequence[int], where: str) -> np.ndarray:
    """The list "n …" of values at control points, those in direction u next to each other, as "u v w …"."""
    if len(values) != prod(counts):
        wanted = " × ".join(map(str, counts))
        raise GeometryError(f"{where}: {wanted} control points were announced, but {len(values)} are there.")
    trailing = range(len(counts), len(counts) + values.ndim - 1)
    return values.reshape(*reversed(counts), *values.shape[1:]).transpose(*reversed(range(len(counts))), *trailing)


def to_u_fastest(patch: Patch) -> tuple[np.ndarray, np.ndarray]:
    """Control points "n d" and weights "n" in that order."""
    r = patch.directions
    points = patch.control_points.numpy().transpose(*reversed(range(r)), r)
    return points.reshape(-1, patch.dim), weights_of(patch).transpose().reshape(-1)


def weights_of(patch: Patch) -> np.ndarray:
    return np.ones(patch.shape) if patch.weights is None else patch.weights.numpy()


def in_space(patches: Sequence[Patch], format_name: str) -> list[Patch]:
    """Curves and surfaces with three coordinates, z = 0 where there were two, for formats that know nothing else."""
    for patch in patches:
        if patch.directions == 3 or not 2 <= patch.dim <= 3:
            raise ValueError(
                f"{format_name} files hold curves and surfaces in two or three dimensions; got a "
                f"`{type(patch).__name__}` in {patch.dim}. JSON and .vtu files hold volumes."
            )
    pad = torch.nn.functional.pad
    return [p if p.dim == 3 else p.replace(control_points=pad(p.control_points, (0, 1))) for p in patches]
