"""Meshes made as grids: intervals, rectangles and boxes, cut into quadrilaterals, triangles, hexahedra or tetrahedra.

Vertices are numbered with x fastest, and so are cells. A grid remembers its shape, which
tells the rest: see `fem.mesh.grid`.

Facet tags of boxes are left and right (x), bottom and top (y), back and front (z). Where sides meet, nodes have the
names of all of them, y before x before z: the corners of a square are "bottom left", "bottom right", "top left" and
"top right"; in space that is an edge along z, "bottom back" one along x, "left back" one along y, and "bottom left
back" a corner.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, product
from math import inf, prod
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.mesh.grid import BoxNodes, Grid, Meet, Side
from fem.mesh.mesh import Mesh
from fem.mesh.topology import Block, Topology
from fem.reference.cells import get_cell
from fem.support.checks import check_floating, check_kind, shown

SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))


def unit_interval(n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Mesh:
    """[0, 1] in n intervals; facet tags left, right, boundary."""
    check_counts("unit_interval", n=n)
    return box((0.0,), (1.0,), (n,), cell="interval", dtype=dtype, device=device)


def unit_square(
    nx: int,
    ny: int | None = None,
    cell: str = "quadrilateral",
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Mesh:
    """[0, 1]² in nx × ny squares (ny = nx by default), each cut in two for `cell="triangle"`.

    Facet tags left, right (x), bottom, top (y), boundary; node tags of the corners "bottom left", ….
    """
    check_counts("unit_square", nx=nx, ny=nx if ny is None else ny)
    return box((0.0, 0.0), (1.0, 1.0), (nx, nx if ny is None else ny), cell=cell, dtype=dtype, device=device)


def unit_cube(
    nx: int,
    ny: int | None = None,
    nz: int | None = None,
    cell: str = "hexahedron",
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Mesh:
    """[0, 1]³ in nx × ny × nz cubes, each cut in six for `cell="tetrahedron"`.

    Facet tags left, right (x), bottom, top (y), back, front (z), boundary; node tags of edges, "bottom left", "bottom
    back", "left back", …, and corners, "bottom left back", ….
    """
    check_counts("unit_cube", nx=nx, ny=nx if ny is None else ny, nz=nx if nz is None else nz)
    shape = (nx, nx if ny is None else ny, nx if nz is None else nz)
    return box((0.0,) * 3, (1.0,) * 3, shape, cell=cell, dtype=dtype, device=device)


def box(
    lower: Sequence[float],
    upper: Sequence[float],
    shape: Sequence[int],
    cell: str | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Mesh:
    """The box between two corners as a grid of `shape` cells per direction, x first.

    Args:
        lower, upper: corners, in whatever unit of length the problem has.
        shape: cells per direction; its length is the dimension.
        cell: by default interval, quadrilateral or hexahedron; triangle and tetrahedron cut each grid cell along the
            diagonal from its lowest to its highest corner (Kuhn's subdivision, so neighbours match).

    Raises:
        ValueError, TypeError: sizes that do not agree, non-positive counts, or a cell of another dimension.
    """
    lower, upper, shape = (
        per_direction(name, value) for name, value in (("lower", lower), ("upper", upper), ("shape", shape))
    )
    check_floating("box", dtype)
    dim = len(shape)
    if not (len(lower) == len(upper) == dim) or dim not in (1, 2, 3):
        raise ValueError(f"`box` needs corners and shape of one length, 1 to 3; got {lower}, {upper}, {shape}.")
    if not all(is_count(n) for n in shape):
        raise ValueError(f"`box(shape=...)` must be positive whole numbers of cells; got {tuple(shape)}.")
    for end in (*lower, *upper):
        check_kind("box", "lower=..., upper", end, Real, "numbers")
    if any(not -inf < a < b < inf for a, b in zip(lower, upper, strict=True)):
        raise ValueError(f"`box` needs finite lower < upper in every direction; got {tuple(lower)} and {tuple(upper)}.")
    kind = get_cell(cell or ("interval", "quadrilateral", "hexahedron")[dim - 1])
    if kind.dim != dim:
        raise ValueError(f"a {kind.name} cannot fill a {dim}-dimensional box.")
    shape = tuple(int(n) for n in shape)
    axes = tuple(
        torch.linspace(a, b, n + 1, dtype=dtype, device=device) for a, b, n in zip(lower, upper, shape, strict=True)
    )
    grid = Grid(kind, shape, axes[0].device)
    tags = {name: Side(axis, end) for axis, names in enumerate(SIDES[:dim]) for end, name in enumerate(names)}
    topology = Topology([Block(kind, 1, grid)], prod(grid.node_shape(1)))
    return Mesh.from_topology(BoxNodes(axes), topology, tags, {}, meets(dim))


@cache
def meets(dim: int) -> dict[str, Meet]:
    """Edges and corners of a box, by the names of the sides that meet there."""
    found = {}
    for count in range(2, dim + 1):
        for axes in combinations([axis for axis in (1, 0, 2) if axis < dim], count):
            for ends in product((0, 1), repeat=count):
                sides = list(zip(axes, ends, strict=True))
                found[" ".join(SIDES[axis][end] for axis, end in sides)] = Meet(tuple(Side(*s) for s in sides))
    return found


def per_direction(name: str, values: Any) -> Any:
    check_kind("box", name, values, Sequence | Tensor | np.ndarray, "a sequence with one entry per direction")
    return values if isinstance(values, Sequence) else values.tolist()


def is_count(n: Any) -> bool:
    """A positive whole number, of whatever type."""
    try:
        return not isinstance(n, bool | str) and int(n) == n and int(n) >= 1
    except (TypeError, ValueError, OverflowError):
        return False


def check_counts(call: str, **counts: Any) -> None:
    for name, n in counts.items():
        if not is_count(n):
            remedy = f" Write `{call}({', '.join(map(str, n))})`." if isinstance(n, tuple | list) else ""
            raise ValueError(f"`{call}({name}=...)` must be a positive integer; got {shown(n)}.{remedy}")
