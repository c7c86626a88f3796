"""Grids by arithmetic: the numbers and the places of nodes, cells and sides follow from the shape of the grid alone.

The nodes of degree p on a grid of n_k cells per direction are p n_k + 1 per direction. Axes run one way everywhere:

- what is told per direction (shapes, spacings, points of a rule, orders of derivatives) comes x first: (x, y, z);
- nodes, cells, the points of products of rules and local nodes in grid order are numbered with x fastest;
- an image has its axes the other way round, (z,) y, x, x last and contiguous: its flattened entries are then in that
  order, so that a vector of dofs *is* the image of the field.

The local nodes of a cell come in VTK's order where they are looked up in its connectivity, and in grid order where they
are told by arithmetic; `grid_order` alone translates. Nothing is made before somebody asks for it: a grid of 10⁹ cells
costs nothing until its connectivity is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import permutations
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.reference.cells import Cell
from fem.reference.lagrange import lagrange_element
from fem.support.transforms import carries, outside_transforms


@dataclass(frozen=True)
class Side:
    """The low (`end=0`) or high (`end=1`) end of a grid along one axis."""

    axis: int
    end: int


@dataclass(frozen=True)
class Meet:
    """Where some sides meet: a corner of a grid, or an edge of one in space."""

    sides: tuple[Side, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """`shape` grid cells per direction, x first, each filled by one cell or cut into two triangles or six tetrahedra.

    Cells are numbered grid cell after grid cell. Simplices follow Kuhn: one for each order in which a path from the
    lowest to the highest corner of the grid cell can take the axes.
    """

    cell: Cell
    shape: tuple[int, ...]
    device: torch.device

    def to(self, device: torch.device) -> "Grid":
        return replace(self, device=device)

    @property
    def num_cells(self) -> int:
        return prod(self.shape) * len(pieces(self.cell))

    @property
    def sides(self) -> tuple[Side, ...]:
        """All of them: the boundary."""
        return tuple(Side(axis, end) for axis in range(len(self.shape)) for end in (0, 1))

    def node_shape(self, degree: int) -> tuple[int, ...]:
        """Nodes of the given degree per direction, x first."""
        return tuple(degree * n + 1 for n in self.shape)

    def cell_nodes(self, degree: int, cells: Int[Tensor, "e"] | None = None) -> Int[Tensor, "e a"]:
        """Numbers of the local nodes of some cells, or of all."""
        offsets = number(node_offsets(self.cell, degree).unbind(-1), self.node_shape(degree)).to(self.device)  # "k a"
        if cells is None:
            lines = [degree * torch.arange(n, device=self.device) for n in self.shape]
            return (outer(lines, self.node_shape(degree))[:, None, None] + offsets).flatten(0, 1)
        position = [degree * i for i in places(cells // len(offsets), self.shape)]
        return number(position, self.node_shape(degree))[:, None] + offsets[cells % len(offsets)]

    def vertex_nodes(self, degree: int) -> Int[Tensor, "n"]:
        """Which nodes of the given degree stand at vertices."""
        lines = [degree * torch.arange(n + 1, device=self.device) for n in self.shape]
        return outer(lines, self.node_shape(degree))

    def side_nodes(self, degree: int, sides: Sequence[Side]) -> Int[Tensor, "n"]:
        """The nodes on some sides, in ascending order."""
        found = [self._layer(self.node_shape(degree), side) for side in sides]
        return found[0] if len(found) == 1 else torch.cat(found).unique()

    def meeting_nodes(self, degree: int, meet: Meet) -> Int[Tensor, "n"]:
        """The nodes where some sides meet, in ascending order."""
        return self._layer(self.node_shape(degree), *meet.sides)

    def side_cells(self, sides: Sequence[Side], facet: int) -> Int[Tensor, "e"]:
        """The cells whose local facet of that number lies on one of the sides, in ascending order."""
        corners, found = pieces(self.cell), []
        for side in sides:
            on_side = (corners[:, list(self.cell.facets[facet]), side.axis] == side.end).all(1)
            boxes = self._layer(self.shape, side)
            found += [boxes * len(corners) + piece for piece in torch.nonzero(on_side).flatten().tolist()]
        return torch.cat([torch.empty(0, dtype=torch.int64, device=self.device), *found]).sort().values

    def _layer(self, shape: tuple[int, ...], *sides: Side) -> Int[Tensor, "n"]:
        """What stands at one end of a grid of points of the given shape, or where several meet."""
        lines = [torch.arange(n, device=self.device) for n in shape]
        for side in sides:
            lines[side.axis] = lines[side.axis][[-1 if side.end else 0]]
        return outer(lines, shape)


@dataclass(frozen=True, eq=False)
class BoxNodes:
    """The vertices of a box grid: coordinates "n_k" along each axis, and all nodes "n d" once they are asked for."""

    axes: tuple[Float[Tensor, "_"], ...]

    @cached_property
    @outside_transforms()
    def nodes(self) -> Float[Tensor, "n d"]:
        return tensor_product(self.axes)

    @property
    def untouched(self) -> bool:
        """Whether the axes still tell where the nodes are: nobody moved one in place or asked for its gradient."""
        return "nodes" not in vars(self) or (self.nodes._version == 0 and not carries(self.nodes))

    @property
    def corners(self) -> Float[Tensor, "2 d"]:
        """The lowest and the highest corner of the box."""
        return torch.stack([axis[[0, -1]] for axis in self.axes], -1)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "BoxNodes":
        return BoxNodes(tuple(axis.to(device=device, dtype=dtype) for axis in self.axes))

    def first_cell(self, cell: Cell) -> Float[Tensor, "1 v d"]:
        """The vertices of the lowest cell; on a grid of whole grid cells all others are its translates."""
        index = torch.tensor(cell.vertices, device=self.axes[0].device).unbind(-1)
        return torch.stack([axis[i] for axis, i in zip(self.axes, index, strict=True)], -1)[None]

    def lines(self, steps: Float[Tensor, "q r"]) -> list[Float[Tensor, "e q"]]:
        """Per axis, the coordinates at some fractions of every interval."""
        pairs = zip(self.axes, steps.unbind(-1), strict=True)
        return [torch.lerp(axis[:-1, None], axis[1:, None], step) for axis, step in pairs]

    def at(self, points: Float[Tensor, "q r"], cells: Int[Tensor, "e"] | None) -> Float[Tensor, "e q d"]:
        """Positions of reference points in some of the grid cells, or in all."""
        lines = self.lines(points)
        if cells is not None:
            index = places(cells, [len(line) for line in lines])
            return torch.stack([line[i] for line, i in zip(lines, index, strict=True)], -1)
        dim = len(lines)
        views = [line.reshape(*[1] * (dim - 1 - k), len(line), *[1] * k, -1) for k, line in enumerate(lines)]
        return torch.stack(torch.broadcast_tensors(*views), -1).flatten(0, dim - 1)

    def halved(self) -> "BoxNodes":
        """Those of the grid of twice as many cells per direction."""
        middles = [axis[:-1].lerp(axis[1:], 0.5) for axis in self.axes]
        pairs = zip(self.axes, middles, strict=True)
        return BoxNodes(tuple(torch.cat([torch.stack([a[:-1], m], 1).flatten(), a[-1:]]) for a, m in pairs))

    def refined(self, degree: int, numbers: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        """Where the nodes of the given degree are: some of them, or all."""
        axes = self.axes
        if degree > 1:
            steps = torch.arange(degree, device="cpu").to(axes[0])[:, None].expand(-1, len(axes)) / degree
            axes = [torch.cat([line.flatten(), axis[-1:]]) for line, axis in zip(self.lines(steps), axes, strict=True)]
        if numbers is None:
            return tensor_product(axes)
        index = places(numbers, [len(axis) for axis in axes])
        return torch.stack([axis[i] for axis, i in zip(axes, index, strict=True)], -1)


@cache
@outside_transforms()
def pieces(cell: Cell) -> Int[Tensor, "k v d"]:
    """Vertices, each 0 or 1 per direction, of the cells that fill one grid cell."""
    if not cell.is_simplex or cell.dim == 1:
        return torch.tensor([cell.vertices], device="cpu")
    simplices = []
    for order in permutations(range(cell.dim)):
        path = [[int(axis in order[:steps]) for axis in range(cell.dim)] for steps in range(cell.dim + 1)]
        # Odd permutations run clockwise: exchange their last two vertices.
        inversions = sum(order[i] > order[j] for j in range(cell.dim) for i in range(j))
        simplices.append(path[:-2] + path[:-3:-1] if inversions % 2 else path)
    return torch.tensor(simplices, device="cpu")


@cache
@outside_transforms()
def node_offsets(cell: Cell, degree: int) -> Int[Tensor, "k a d"]:
    """Steps on the grid of nodes of the given degree from a grid cell's lowest corner to the nodes of its cells."""
    weights = lagrange_element(cell, 1).tabulate(lagrange_element(cell, degree).nodes, 0).value[0]
    return torch.round(degree * weights @ pieces(cell).double()).long()


@cache
@outside_transforms()
def grid_order(cell: Cell, degree: int) -> tuple[int, ...]:
    """The local nodes, by their VTK numbers, of a cell that is a whole grid cell, in grid order: x fastest."""
    (offsets,) = node_offsets(cell, degree)
    return tuple(number(offsets.unbind(-1), (degree + 1,) * cell.dim).argsort().tolist())


def tensor_product(axes: Sequence[Float[Tensor, "_"]]) -> Float[Tensor, "n d"]:
    """All points with these coordinates, x fastest."""
    return torch.stack(torch.meshgrid(*axes[::-1], indexing="ij")[::-1], -1).reshape(-1, len(axes))


def places(numbers: Int[Tensor, "..."], shape: Sequence[int]) -> list[Int[Tensor, "..."]]:
    """The index along each direction of what is numbered with x fastest."""
    found = []
    for n in shape:
        found.append(numbers % n)
        numbers = numbers // n
    return found


def number(index: Sequence[Int[Tensor, "..."]], shape: Sequence[int]) -> Int[Tensor, "..."]:
    """The inverse of `places`; the indices broadcast."""
    total = index[-1]
    for i, n in zip(index[-2::-1], shape[-2::-1], strict=True):
        total = total * n + i
    return total


def outer(lines: Sequence[Int[Tensor, "_"]], shape: Sequence[int]) -> Int[Tensor, "n"]:
    """The numbers of all points of a grid whose indices along each direction are those of the lines."""
    return number([line.reshape(-1, *[1] * k) for k, line in enumerate(lines)], shape).flatten()
