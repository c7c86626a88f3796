"""Splines of one patch on tensor grids of quadrature points: one small matrix per direction and order of derivative.

With u a grid of coefficients, the functions of direction k at its points in B_k and their derivatives in D_k,

    u = (B_z ⊗ B_y ⊗ B_x) u,    ∂u/∂ξ_x = (B_z ⊗ B_y ⊗ D_x) u, …,

at a cost of O(points × functions per direction), where a table of all products would hold cells × points × functions.
Sums over cells are the transposed products. Values live on the grid of all points "*b (z) y x", or by cells "*b e q".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.reference.bspline import basis_matrix
from fem.reference.rational import MultiIndex
from fem.reference.spline_element import BSpline
from fem.support.transforms import outside_transforms


@dataclass(frozen=True, eq=False)
class Factors:
    """The matrices of one patch's splines at the tensor grid of a quadrature rule.

    Attributes:
        shape: functions per direction, x first.
        cells: spans per direction.
        lines: per direction the 1-D points in [0, 1].
        index: per direction, which 1-D point each point "q" of a cell has.
        window: the functions of the last direction that live on these layers.
        matrices: per direction "o k n": orders of derivative in reference coordinates of the span, points, functions.
    """

    shape: tuple[int, ...]
    cells: tuple[int, ...]
    lines: tuple[Float[Tensor, "_"], ...]
    index: tuple[Tensor, ...]
    window: slice
    matrices: tuple[Float[Tensor, "_ _ _"], ...]

    @classmethod
    def of(cls, element: BSpline, points: Float[Tensor, "q r"], derivatives: int, layers: slice) -> "Factors | None":
        """Those of some layers of cells along the last direction; None where the points are no tensor grid, or the
        functions are rational."""
        pairs = [x.unique(return_inverse=True) for x in points.unbind(-1)]
        if element.weights is not None or prod(len(line) for line, _ in pairs) != len(points):
            return None
        matrices = []
        breakpoints = [*element.breakpoints]
        breakpoints[-1] = breakpoints[-1][layers.start : layers.stop + 1]
        for t, p, corners, (line, _) in zip(element.knots, element.degrees, breakpoints, pairs, strict=True):
            width = corners.diff()
            u = torch.lerp(corners[:-1, None], corners[1:, None], line.to(t))
            table = basis_matrix(t, p, u.flatten(), derivatives)
            scale = width.repeat_interleave(len(line))[None] ** torch.arange(derivatives + 1, device=t.device)[:, None]
            matrices.append(table * scale[..., None])
        lines, index = zip(*pairs, strict=True)
        spans, p = element.spans[-1][layers], element.degrees[-1]
        window = slice(int(spans[0]) - p, int(spans[-1]) + 1)
        matrices[-1] = matrices[-1][..., window]
        cells = tuple(len(c) - 1 for c in breakpoints)
        return cls(element.dof_shape, cells, lines, index, window, tuple(matrices))

    @property
    def point_shape(self) -> tuple[int, ...]:
        """Points per direction, x last."""
        return tuple(n * len(line) for n, line in zip(self.cells, self.lines, strict=True))[::-1]

    def values(self, u: Float[Tensor, "..."], orders: Sequence[MultiIndex]) -> list[Tensor]:
        """Derivatives "*b (z) y x" at all points of dofs "*b n"; products along x and y are shared."""
        r = len(self.shape)
        grid = u.unflatten(-1, self.shape[::-1])
        grid = grid.narrow(-r, self.window.start, self.window.stop - self.window.start)
        found: dict[tuple[int, ...], Tensor] = {(): grid}

        def partial(order: MultiIndex) -> Tensor:
            if order not in found:
                found[order] = along(self.matrices[len(order) - 1][order[-1]], partial(order[:-1]), -len(order))
            return found[order]

        return [partial(order) for order in orders]

    def sums(self, values: Sequence[Tensor], orders: Sequence[MultiIndex], magnitude: bool = False) -> Tensor:
        """Σ over points of values times derivatives of each function: the transpose of `values`, as dofs "*b n"."""
        r = len(self.shape)
        waiting: dict[MultiIndex, Tensor] = {}
        for value, order in zip(values, orders, strict=True):
            add(waiting, order, value)
        for axis in reversed(range(r)):
            merged: dict[MultiIndex, Tensor] = {}
            for order, value in waiting.items():
                A = self.matrices[axis][order[-1]]
                add(merged, order[:-1], along((A.abs() if magnitude else A).mT, value, -axis - 1))
            waiting = merged
        return self.whole(waiting[()])

    def pair_sums(self, value: Float[Tensor, "..."], one: MultiIndex, two: MultiIndex) -> Tensor:
        """Σ over points of a value times the product of two derivatives of each function, as dofs "*b n"."""
        for axis in reversed(range(len(self.shape))):
            A = self.matrices[axis]
            value = along((A[one[axis]] * A[two[axis]]).mT, value, -axis - 1)
        return self.whole(value)

    def whole(self, grid: Float[Tensor, "..."]) -> Float[Tensor, "*b n"]:
        """Values for the functions in the window as dofs, zeros elsewhere."""
        r = len(self.shape)
        if grid.shape[-r] != self.shape[-1]:
            sides = (self.window.start, self.shape[-1] - self.window.stop)
            grid = torch.nn.functional.pad(grid, (*[0] * (2 * r - 2), *sides))
        return grid.flatten(-r)

    def by_cells(self, values: Float[Tensor, "..."]) -> Float[Tensor, "*b e q"]:
        """From the tensor grid of points to cells."""
        r = len(self.shape)
        lead = values.ndim - r
        shape = [m for n, line in zip(self.cells[::-1], self.lines[::-1], strict=True) for m in (n, len(line))]
        split = values.reshape(*values.shape[:lead], *shape)
        order = [*range(lead), *(lead + 2 * k for k in range(r)), *(lead + 2 * k + 1 for k in range(r))]
        flat = split.permute(order).flatten(lead + r).flatten(lead, lead + r - 1)
        return flat if self.ordered else flat[..., self.position]

    def by_grid(self, values: Float[Tensor, "*b e q"]) -> Tensor:
        """The inverse of `by_cells`."""
        r, lead = len(self.shape), values.ndim - 2
        flat = values if self.ordered else values[..., self.position.argsort()]
        split = flat.reshape(*values.shape[:lead], *self.cells[::-1], *(len(line) for line in self.lines[::-1]))
        order = [*range(lead), *(lead + k // 2 + (k % 2) * r for k in range(2 * r))]
        return split.permute(order).reshape(*values.shape[:lead], *self.point_shape)

    @cached_property
    @outside_transforms()
    def position(self) -> Tensor:
        """Number, x fastest, of each point of a cell."""
        number, stride = torch.zeros_like(self.index[0]), 1
        for index, line in zip(self.index, self.lines, strict=True):
            number, stride = number + stride * index, stride * len(line)
        return number

    @cached_property
    @outside_transforms()
    def ordered(self) -> bool:
        return bool((self.position == torch.arange(len(self.position), device=self.position.device)).all())


def along(A: Float[Tensor, "*b m n"], values: Float[Tensor, "..."], axis: int, inner: int = 2) -> Tensor:
    """The matrix times the values along a (negative) axis.

    Args:
        inner: how many axes of the values come after the batch, if the matrix has one: they broadcast.
    """
    if A.ndim > 2:
        A = A[(..., *[None] * (inner - 2), slice(None), slice(None))]
        return (A @ values.movedim(axis, -2)).movedim(-2, axis)
    if axis == -1:
        return values @ A.mT
    rest = values.shape[axis + 1 :]
    return (A @ values.flatten(axis + 1)).unflatten(-1, rest)


def add(found: dict[MultiIndex, Tensor], order: MultiIndex, value: Tensor) -> None:
    found[order] = found[order] + value if order in found else value


def slot_orders(r: int, derivatives: int) -> list[tuple[int, ...]]:
    """The multi-index of each slot of a table: the value, first and second derivatives row by row."""
    units = [tuple(int(k == axis) for k in range(r)) for axis in range(r)]
    twice = [tuple(a + b for a, b in zip(one, two, strict=True)) for one in units for two in units]
    return [(0,) * r, *units, *twice][: sum(r**k for k in range(derivatives + 1))]


def layers_of(element: BSpline, cells: Int[Tensor, "e"] | None) -> slice | None:
    """The layers of cells along the last direction that these cells are, in order and whole; None if they are not."""
    if cells is None:
        return slice(0, element.grid_shape[-1])
    layer = prod(element.grid_shape[:-1])
    if len(cells) == 0 or len(cells) % layer or int(cells[0]) % layer:
        return None
    start = int(cells[0])
    if not torch.equal(cells, torch.arange(start, start + len(cells), device=cells.device)):
        return None
    return slice(start // layer, (start + len(cells)) // layer)
