"""Meshes made as grids: intervals, rectangles and boxes, cut into quadrilaterals, triangles, hexahedra or tetrahedra.

Vertices are numbered with x fastest, and so are cells. A grid remembers its shape, which
tells the rest: see `fem.mesh.grid`.
"""

from collections.abc import Sequence
from math import prod

import torch

from fem.mesh.grid import BoxNodes, Grid, Side
from fem.mesh.mesh import Mesh
from fem.mesh.topology import Block, Topology
from fem.reference.cells import get_cell

SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))


def unit_interval(n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Mesh:
    """[0, 1] in n intervals; facet tags left, right, boundary."""
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

    Facet tags left, right (x), bottom, top (y), boundary.
    """
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

    Facet tags left, right (x), bottom, top (y), back, front (z), boundary.
    """
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
        ValueError: sizes that do not agree, non-positive counts, or a cell of another dimension.
    """
    dim = len(shape)
    if not (len(lower) == len(upper) == dim) or dim not in (1, 2, 3):
        raise ValueError(f"`box` needs corners and shape of one length, 1 to 3; got {lower}, {upper}, {shape}.")
    if any(isinstance(n, bool) or int(n) != n or n < 1 for n in shape):
        raise ValueError(f"`box(shape=...)` must be positive whole numbers of cells; got {tuple(shape)}.")
    if any(not a < b for a, b in zip(lower, upper, strict=True)):
        raise ValueError(f"`box` needs lower < upper in every direction; got {tuple(lower)} and {tuple(upper)}.")
    kind = get_cell(cell or ("interval", "quadrilateral", "hexahedron")[dim - 1])
    if kind.dim != dim:
        raise ValueError(f"a {kind.name} cannot fill a {dim}-dimensional box.")
    shape = tuple(int(n) for n in shape)
    axes = tuple(
        torch.linspace(a, b, n + 1, dtype=dtype, device=device) for a, b, n in zip(lower, upper, shape, strict=True)
    )
    grid = Grid(kind, shape, axes[0].device)
    tags = {name: Side(axis, end) for axis, names in enumerate(SIDES[:dim]) for end, name in enumerate(names)}
    return Mesh.from_topology(BoxNodes(axes), Topology([Block(kind, 1, grid)], prod(grid.node_shape(1))), tags, {})
