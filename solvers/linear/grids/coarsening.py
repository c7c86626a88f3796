"""Coarser grids for multigrid: interpolation along one axis, its transpose, and the Galerkin products PᵀAP of stencils.

A step drops every second vertex of an axis, makes one of the two vertices of a single cell, or lowers the degree along
an axis in the same cells. Steps compose: an operator coarsened along all axes is the product with the tensor product of
their interpolations. As a stencil reaches one cell, so does PᵀAP, and it comes from shifted arrays alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.space.space import FunctionSpace
from fem.support.c_function import CFunction, c_text
from fem.support.portions import MEMORY, at_a_time
from solvers.operators.stencil import Stencil, StencilGrid, reachable
from solvers.operators.workspace import Buffers

MINUS, PLUS, CENTRE, RESTRICTED, INTERPOLATED = range(5)  # kinds of work for C code
UNIT = 4096  # entries of one unit of work, at least


def widths(space: FunctionSpace) -> list[Tensor]:
    """Mean width of each layer of cells along each axis, slowest axis first."""
    mesh = space.mesh
    assert mesh.grid is not None
    if mesh.is_uniform:
        return [torch.ones(n, dtype=mesh.dtype, device=mesh.device) for n in mesh.grid[::-1]]
    nodes = mesh.nodes.detach()[mesh.topology.vertex_nodes].reshape(*(n + 1 for n in mesh.grid[::-1]), -1)
    edges = [nodes.diff(dim=k).norm(dim=-1).movedim(k, 0) for k in range(mesh.dim)]
    return [e.reshape(len(e), -1).mean(1) for e in edges]


class VertexCoarsening:
    """Linear interpolation along one axis, and its transpose, between buffers; weights follow the widths of cells."""

    def __init__(self, grid: StencilGrid, axis: int, width: Float[Tensor, "k"]):
        self.axis, self.axes, self.grid, self.coarse = axis, (axis,), grid, coarsened_grid(grid, axis)
        pairs = width[: len(width) // 2 * 2].view(-1, 2)
        right = pairs[:, 0] / pairs.sum(1)
        # The last vertex of an odd number of cells is there on both grids.
        self.width = torch.cat([pairs.sum(1), width[len(pairs) * 2 :]])
        right = torch.cat([right, right.new_ones(len(width) % 2)])
        self.left, self.right = (1 - right)[:, None], right[:, None]
        self.odd = len(right)

    def operator(self, stencil: Stencil, pairs: slice = slice(None)) -> Stencil:
        """PᵀAP, on some pairs of cells along the axis."""
        return coarsen(stencil, self.axis, *(w[pairs].to(stencil.data) for w in (self.left, self.right)))

    def fixed(self, fixed: Bool[Tensor, "t k"]) -> Bool[Tensor, "t c"]:
        n, stride = self.grid.vertices[self.axis], self.grid.strides[self.axis]
        shaped = fixed.unflatten(-1, (-1, n, stride))
        return torch.cat([shaped[:, :, ::2], shaped[:, :, n - 1 : n * (1 - n % 2)]], 2).flatten(1)

    def bind(self, fine: Tensor, coarse: Tensor, x_fine: Tensor, x_coarse: Tensor) -> tuple[Callable, Callable]:
        """Restriction from `fine` to `coarse` (set), and interpolation from `x_coarse` to `x_fine` (added)."""
        left, right, odd = self.left.to(fine), self.right.to(fine), self.odd
        starts = [(self.grid.start(k), self.coarse.start(k)) for k in range(len(self.grid.types))]
        down = compiled(self.grid, self.axis, left, right, fine, coarse, [(RESTRICTED, f, f, f, c) for f, c in starts])
        up = compiled(
            self.grid, self.axis, left, right, x_fine, x_coarse, [(INTERPOLATED, f, f, f, c) for f, c in starts]
        )

        def restrict() -> None:
            if down():
                return
            f, c = self.grid.along(fine, self.axis), self.coarse.along(coarse, self.axis)
            even, between = f[:, :, ::2], f[:, :, 1::2]
            torch.addcmul(even[:, :, :odd], between, left, out=c[:, :, :odd])
            c[:, :, odd].copy_(even[:, :, odd] if even.shape[2] > odd else torch.zeros_like(c[:, :, odd]))
            c[:, :, 1:].addcmul_(between, right)

        def interpolate() -> None:
            if up():
                return
            f, c = self.grid.along(x_fine, self.axis), self.coarse.along(x_coarse, self.axis)
            f[:, :, ::2].add_(c[:, :, : f.shape[2] - odd])
            f[:, :, 1::2].addcmul_(c[:, :, :-1], left).addcmul_(c[:, :, 1:], right)

        return restrict, interpolate


class CellCollapse:
    """Functions constant along an axis of a single cell: its two vertices become one."""

    def __init__(self, grid: StencilGrid, axis: int):
        vertices = (*grid.vertices[:axis], 1, *grid.vertices[axis + 1 :])
        self.axis, self.axes, self.grid, self.coarse = axis, (axis,), grid, replace(grid, vertices=vertices)

    def operator(self, stencil: Stencil) -> Stencil:
        """PᵀAP: the sum of a column's couplings with another column."""
        coarse = Stencil.zeros(self.coarse, stencil.data, stencil.memory)
        for a, b, (left, same, right) in taps(self.coarse, self.axis):
            if (k := self.coarse.keys.get((a, b, same))) is not None:
                minus, centre, plus = (stencil.entries(a, b, o, self.axis) for o in (left, same, right))
                total = centre.sum(1, keepdim=True) + plus[:, :1] + minus[:, 1:]
                self.coarse.along(coarse.data[k], self.axis).copy_(total)
        return coarse

    def fixed(self, fixed: Bool[Tensor, "t k"]) -> Bool[Tensor, "t c"]:
        return fixed.unflatten(-1, (-1, 2, self.grid.strides[self.axis])).all(2).flatten(1)

    def bind(self, fine: Tensor, coarse: Tensor, x_fine: Tensor, x_coarse: Tensor) -> tuple[Callable, Callable]:
        """Restriction from `fine` to `coarse` (set), and interpolation from `x_coarse` to `x_fine` (added)."""
        (f, x), (c, y) = (
            [grid.along(buffer, self.axis) for buffer in buffers]
            for grid, buffers in ((self.grid, (fine, x_fine)), (self.coarse, (coarse, x_coarse)))
        )
        return partial(torch.sum, f, 2, keepdim=True, out=c), partial(x.add_, y)


class DegreeCoarsening:
    """Basis functions of a lower degree along one axis, in the same cells."""

    def __init__(self, grid: StencilGrid, axis: int, degree: int):
        self.axis, self.axes, self.degree = axis, (axis,), degree
        self.grid, self.coarse = grid, lowered_grid(grid, axis, degree)
        numbers = {t: i for i, t in enumerate(self.coarse.types)}
        self.pairs = []  # fine type, coarse type, shift, weight
        for a, fine in enumerate(grid.types):
            for t, s, u, w in embedding(grid.degrees[axis], degree):
                if t == fine[axis]:
                    b = numbers[(*fine[:axis], s, *fine[axis + 1 :])]
                    self.pairs.append((a, b, u * grid.strides[axis], w))

    def operator(self, stencil: Stencil) -> Stencil:
        return lower_degree(stencil, self.axis, self.degree)

    def fixed(self, fixed: Bool[Tensor, "t k"]) -> Bool[Tensor, "c k"]:
        # A coarse dof is fixed where the fine ones nearest to it are.
        p = self.grid.degrees[self.axis]
        nearest = [{s * p // self.degree, -(-s * p // self.degree)} for s in range(self.degree)]
        numbers = {t: i for i, t in enumerate(self.grid.types)}
        rows = []
        for t in self.coarse.types:
            close = [numbers[(*t[: self.axis], s, *t[self.axis + 1 :])] for s in nearest[t[self.axis]]]
            rows.append(fixed[close].all(0))
        return torch.stack(rows)

    def bind(self, fine: Tensor, coarse: Tensor, x_fine: Tensor, x_coarse: Tensor) -> tuple[Callable, Callable]:
        shifted = self.grid.shifted
        down = [(shifted(coarse[b]), shifted(fine[a], -u), w) for a, b, u, w in self.pairs]
        up = [(shifted(x_fine[a]), shifted(x_coarse[b], u), w) for a, b, u, w in self.pairs]

        def restrict() -> None:
            coarse.zero_()
            for target, source, w in down:
                target.add_(source, alpha=w)

        def interpolate() -> None:
            for target, source, w in up:
                target.add_(source, alpha=w)

        return restrict, interpolate


# -- Galerkin products -------------------------------------------------------------------------------------------------


def galerkin(stencil: Stencil, steps: Sequence[Any]) -> Stencil:
    """PᵀAP of some steps one after another; of a large stencil layer by layer, without wholes between the steps."""
    large = stencil.data.numel() * stencil.data.element_size() > MEMORY // 2
    if large and all(isinstance(step, VertexCoarsening) for step in steps):
        return by_layers(stencil, steps)
    memory, between = stencil.memory, Buffers()
    for k, step in enumerate(steps, 1):
        stencil = step.operator(replace(stencil, memory=memory if k == len(steps) else between))
    return stencil


def by_layers(stencil: Stencil, steps: Sequence[VertexCoarsening]) -> Stencil:
    """The same for some layers of coarse vertices at a time: they come from those of the fine ones that they reach."""
    grid, coarse = stencil.grid, Stencil.zeros(steps[-1].coarse, stencil.data, stencil.memory)
    source, target = layers_of(stencil), layers_of(coarse)
    factor, count = 2 if any(step.axis == 0 for step in steps) else 1, coarse.grid.vertices[0]
    at_once = max(at_a_time(8 * len(grid.keys) * grid.strides[0] * factor, stencil.data, roomy=True), 4)
    memory = Buffers()
    for item, first in product(range(grid.batch), range(0, count, at_once)):
        last = min(first + at_once, count)
        low, high = factor * max(first - 1, 0), grid.vertices[0] if last == count else factor * last + 1
        memory.rewind()
        part = Stencil.zeros(replace(grid, vertices=(high - low, *grid.vertices[1:]), batch=1), stencil.data, memory)
        layers_of(part).copy_(source[:, item : item + 1, low:high])
        for (_, _, offset), k in grid.keys.items():  # what leads out of this part
            if offset[0] > 0 or (offset[0] < 0 and low > 0):
                layers_of(part)[k, :, -1 if offset[0] > 0 else 0] = 0
        for step in steps:
            part = step.operator(part, slice(low // 2, high // 2) if step.axis == 0 else slice(None))
        start = first - low // factor
        target[:, item, first:last] = layers_of(part)[:, 0, start : start + last - first]
    return coarse


def layers_of(stencil: Stencil) -> Float[Tensor, "z b *vertices"]:
    """The images of a stencil with their axes apart."""
    return stencil.grid.shifted(stencil.data).unflatten(-1, (stencil.grid.batch, *stencil.grid.vertices))


def coarsened_grid(grid: StencilGrid, axis: int) -> StencilGrid:
    """Every second vertex along one axis; the last cell of an odd number stays as it is."""
    vertices = list(grid.vertices)
    vertices[axis] = vertices[axis] // 2 + 1
    return replace(grid, vertices=tuple(vertices))


def coarsen(stencil: Stencil, axis: int, left: Float[Tensor, "k 1"], right: Float[Tensor, "k 1"]) -> Stencil:
    """PᵀAP for interpolation along one axis: odd vertex 2j + 1 gets left(j) u(j) + right(j) u(j + 1).

    With taps A₋, A₀, A₊ along the axis and, for odd rows, L = A₋ + left A₀, R = A₊ + right A₀:

        tap 0 at I:  A₀(2I) + left(I) A₊(2I) + right(I−1) A₋(2I) + left(I) L(2I+1) + right(I−1) R(2I−1)
        tap + at I:  right(I) A₊(2I) + left(I) R(2I+1)
        tap − at I:  left(I−1) A₋(2I) + right(I−1) L(2I−1)
    """
    fine, grid = stencil.grid, coarsened_grid(stencil.grid, axis)
    coarse = Stencil.zeros(grid, stencil.data, stencil.memory)
    odd = fine.vertices[axis] // 2  # odd vertices; as many even ones, or one more
    even = fine.vertices[axis] - odd
    shape = (fine.size // fine.vertices[axis] // fine.strides[axis], odd, fine.strides[axis])
    if compiled(fine, axis, left, right, stencil.data, coarse.data, galerkin_work(stencil, coarse, axis))():
        return coarse
    to_left, to_right = (stencil.data.new_empty(shape) for _ in range(2))
    for a, b, offsets in taps(grid, axis):
        minus, centre, plus = (stencil.entries(a, b, o, axis) for o in offsets)
        rows = [grid.keys.get((a, b, o)) for o in offsets]
        targets = [None if k is None else grid.along(coarse.data[k], axis) for k in rows]
        torch.addcmul(minus[:, 1::2], centre[:, 1::2], left, out=to_left)
        torch.addcmul(plus[:, 1::2], centre[:, 1::2], right, out=to_right)
        if (target := targets[0]) is not None:
            torch.mul(to_left, right, out=target[:, 1:])
            target[:, 1:even].addcmul_(minus[:, 2::2], left[: even - 1])
        if (target := targets[1]) is not None:
            target[:, :even].copy_(centre[:, ::2])
            target[:, :odd].addcmul_(plus[:, ::2][:, :odd], left)
            target[:, 1:even].addcmul_(minus[:, 2::2], right[: even - 1])
            target[:, :odd].addcmul_(to_left, left)
            target[:, 1:].addcmul_(to_right, right)
        if (target := targets[2]) is not None:
            torch.mul(to_right, left, out=target[:, :odd])
            target[:, :odd].addcmul_(plus[:, ::2][:, :odd], right)
    return coarse


def taps(grid: StencilGrid, axis: int) -> Iterator[tuple[int, int, list[tuple[int, ...]]]]:
    """For each pair of types and offset across an axis the three offsets that differ along it."""
    for a, b, across in dict.fromkeys((a, b, (*o[:axis], 0, *o[axis + 1 :])) for a, b, o in grid.keys):
        yield a, b, [(*across[:axis], s, *across[axis + 1 :]) for s in (-1, 0, 1)]


def galerkin_work(stencil: Stencil, coarse: Stencil, axis: int) -> list[tuple[int, int, int, int, int]]:
    """The same as work for C code: which coarse coupling comes of which three."""
    found = []
    for a, b, offsets in taps(coarse.grid, axis):
        images = [stencil.grid.start(*stencil.place(a, b, o)) for o in offsets]
        for kind, o in zip((MINUS, CENTRE, PLUS), offsets, strict=True):
            if (k := coarse.grid.keys.get((a, b, o))) is not None:
                found.append((kind, *images, coarse.grid.start(k)))
    return found


@cache
def function(dtype: torch.dtype) -> CFunction:
    return CFunction(c_text("solvers.linear.grids", "coarsening.c"), T=dtype)


def compiled(
    grid: StencilGrid,
    axis: int,
    left: Float[Tensor, "k 1"],
    right: Float[Tensor, "k 1"],
    fine: Float[Tensor, "t m"],
    coarse: Float[Tensor, "c n"],
    groups: Sequence[tuple[int, int, int, int, int]],
) -> Callable[[], bool]:
    """Work between two buffers by C code; calls tell whether it did it.

    Args:
        groups: for each kind of work on one image where images A, B and C of the fine grid and the coarse one begin.
    """
    n, inner = grid.vertices[axis], grid.strides[axis]
    if not fine.is_cpu or fine.dtype not in (torch.float32, torch.float64) or n <= 2:
        return lambda: False
    outer, work = grid.size // (n * inner), grid.size * len(groups)
    portions = max(min(outer, grid.size // UNIT), 1)
    parts = max(min(n // 2, grid.size // (UNIT * portions), 16 // portions), 1)
    kinds, *starts = zip(*groups, strict=True)
    code = function(fine.dtype).bind(
        n,
        inner,
        outer,
        portions,
        parts,
        left.contiguous(),
        right.contiguous(),
        len(groups),
        kinds,
        fine,
        coarse,
        *starts,
    )

    def run() -> bool:
        return code.ready(work) and code() == 0

    return run


def embedding(degree: int, lower: int) -> list[tuple[int, int, int, float]]:
    """(t, s, u, w): in a cell, the basis function of type s at corner u of degree `lower` has value w at t/degree."""
    found = []
    for t in range(degree):
        for j in range(lower + 1):
            w = prod((t * lower - m * degree) / (degree * (j - m)) for m in range(lower + 1) if m != j)
            if w != 0:
                found.append((t, j % lower, j // lower, w))
    return found


def lowered_grid(grid: StencilGrid, axis: int, degree: int) -> StencilGrid:
    return replace(grid, degrees=(*grid.degrees[:axis], degree, *grid.degrees[axis + 1 :]))


def lower_degree(stencil: Stencil, axis: int, degree: int) -> Stencil:
    """PᵀAP for the embedding of a lower degree along one axis into the same cells."""
    fine, grid = stencil.grid, lowered_grid(stencil.grid, axis, degree)
    coarse = Stencil.zeros(grid, stencil.data, stencil.memory)
    numbers = {t: i for i, t in enumerate(grid.types)}
    table = embedding(fine.degrees[axis], degree)
    for (a, row), (b, column) in product(enumerate(fine.types), repeat=2):
        for (t, s, u, w), (z, v, x, y) in product(table, repeat=2):
            if t != row[axis] or z != column[axis]:
                continue
            coarse_a = numbers[(*row[:axis], s, *row[axis + 1 :])]
            coarse_b = numbers[(*column[:axis], v, *column[axis + 1 :])]
            for offset in reachable(row, column):
                moved = (*offset[:axis], offset[axis] + x - u, *offset[axis + 1 :])
                if (k := grid.keys.get((coarse_a, coarse_b, moved))) is not None:
                    values = stencil.entries(a, b, offset, axis)
                    grid.along(coarse.data[k], axis, u * fine.strides[axis]).add_(values, alpha=w * y)
    return coarse
