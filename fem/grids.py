"""Meshes made as grids: intervals, rectangles and boxes, cut into quadrilaterals, triangles, hexahedra or tetrahedra.

Vertices are numbered with x fastest, and so are cells; a grid remembers its shape.
"""

from collections.abc import Sequence
from functools import partial
from itertools import permutations
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from fem.cells import Cell, get_cell
from fem.mesh import Mesh
from fem.topology import Block, Topology

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
    axes = [
        torch.linspace(a, b, n + 1, dtype=dtype, device=device) for a, b, n in zip(lower, upper, shape, strict=True)
    ]
    nodes = torch.stack(torch.meshgrid(*axes[::-1], indexing="ij")[::-1], -1).reshape(-1, dim)

    strides = [1]
    for n in shape[:-1]:
        strides.append(strides[-1] * (n + 1))
    ranges = [stride * torch.arange(n, device=device) for n, stride in zip(shape, strides, strict=True)]
    corner = sum(torch.meshgrid(*ranges[::-1], indexing="ij"))
    assert isinstance(corner, Tensor)
    offsets = torch.tensor(cell_offsets(kind, strides), device=device)
    connectivity = (corner.reshape(-1, 1, 1) + offsets).reshape(-1, offsets.shape[1])
    tags = {}
    for axis, names in enumerate(SIDES[:dim]):
        for name, end in zip(names, (0, shape[axis]), strict=True):
            tags[name] = partial(facets_on_side, axis=axis, end=end)
    return Mesh.from_topology(
        nodes, Topology([Block(kind, 1, connectivity)], len(nodes), shape), tags, {}, uniform=kind.factors == (1,) * dim
    )


def facets_on_side(topology: Topology, axis: int, end: int) -> Int[Tensor, "f"]:
    """Boundary facets whose vertices all stand at one end of a grid, wherever its nodes have moved since."""
    assert topology.grid is not None
    vertices, stride = topology.facets.vertices[topology.boundary], prod(n + 1 for n in topology.grid[:axis])
    position = vertices // stride % (topology.grid[axis] + 1)
    return topology.boundary[(position == end).all(1)]


def cell_offsets(kind: Cell, strides: Sequence[int]) -> list[list[int]]:
    """Vertex numbers of the cells in one grid cell, relative to its lowest corner."""
    if not kind.is_simplex or kind.dim == 1:
        return [[sum(x * s for x, s in zip(vertex, strides, strict=True)) for vertex in kind.vertices]]
    simplices = []
    for order in permutations(range(kind.dim)):
        path = [0]
        for axis in order:
            path.append(path[-1] + strides[axis])
        # Odd permutations run clockwise: exchange their last two vertices.
        inversions = sum(order[i] > order[j] for j in range(kind.dim) for i in range(j))
        simplices.append(path[:-2] + path[:-3:-1] if inversions % 2 else path)
    return simplices
