"""Patches as meshes of straight cells, for programs and pictures that know nothing else."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.support.checks import is_integer
from nurbs.geometry.patch import Patch, check_patch
from nurbs.geometry.surface import Surface


@dataclass(frozen=True, eq=False)
class Tessellation:
    """Points on a patch, their parameters, unit normals (surfaces in space) and cells in VTK's order of corners.

    Cells are segments, quadrilaterals and hexahedra.
    """

    points: Float[Tensor, "n d"]
    parameters: Float[Tensor, "n r"]
    cells: Int64[Tensor, "e v"]
    normals: Float[Tensor, "n 3"] | None


def tessellate(patch: Patch, subdivisions: int = 8) -> Tessellation:
    """Straight cells with corners on the patch, `subdivisions` on each knot span and direction; differentiable points.

    Every knot is a corner line, so that creases stay sharp. Cells of surfaces turn counterclockwise about S_u × S_v.

    Args:
        patch: a curve, surface or volume, not a batch of them; periodic directions get both of their ends.

    Raises:
        ValueError: a batch; fewer than one subdivision.
    """
    check_patch("tessellate(patch)", patch)
    if patch.batch or not is_integer(subdivisions, 1):
        raise ValueError(
            f"`tessellate(patch, subdivisions)` needs one patch and at least 1 subdivision; got a batch of shape "
            f"{tuple(patch.batch)} and {subdivisions!r}. Pick an item, `patch[0]`."
        )
    patch = patch.unwrapped()
    lines = [sample_spans(patch, axis, subdivisions) for axis in range(patch.directions)]
    points = patch(*lines).flatten(0, -2)
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, -2)
    normals = None
    if isinstance(patch, Surface) and patch.dim == 3:
        normals = patch.normal(*lines).flatten(0, 1)
    number = torch.arange(len(points), device=patch.device).reshape([len(t) for t in lines])
    return Tessellation(points, grid, grid_cells(number), normals)


def sample_spans(patch: Patch, axis: int, subdivisions: int) -> Float[Tensor, "q"]:
    """Parameters in one direction: the distinct knots in the range and equal steps between them."""
    t, p = patch.unwrapped_knots[axis].detach(), patch.degree[axis]
    corners = t[p : len(t) - p].unique_consecutive()
    steps = torch.arange(subdivisions, dtype=t.dtype, device=t.device) / subdivisions
    inner = torch.lerp(corners[:-1, None], corners[1:, None], steps).flatten()
    return torch.cat([inner, corners[-1:]])


def grid_cells(number: Int64[Tensor, "*n"]) -> Int64[Tensor, "e v"]:
    """The cells of a grid of numbered points, corners in VTK's order."""
    cells = number[..., None]
    for axis in range(number.ndim):
        low, high = cells.narrow(axis, 0, cells.shape[axis] - 1), cells.narrow(axis, 1, cells.shape[axis] - 1)
        # the second pair of a quadrilateral runs back; a hexahedron is two quadrilaterals
        cells = torch.cat([low, high.flip(-1) if axis == 1 else high], -1)
    return cells.flatten(0, -2)
