"""Which vertices of a grid depend on which corners of a coarse one, and all sums that follow: known from shapes alone.

Grids of one shape share them: solves that come back find them made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import torch
from torch import Tensor

from solvers.linear.grids.coarsening import coarsened_grid
from solvers.operators.stencil import StencilGrid

Bits = tuple[int, ...]  # an entry for each axis, slowest first
Coupling = tuple[int, Bits, Bits, list[tuple[int, int, Bits, int, Bits, float]]]


def below(bits: Bits) -> list[Bits]:
    """All bits o ≤ τ."""
    return list(product(*((0, 1)[: 1 + bit] for bit in bits)))


@dataclass(frozen=True, eq=False)
class Products:
    """What C code takes for sums of products over boxes (`operator_coarsening.c`), but for the numbers themselves."""

    work: int
    boxes: tuple
    operands: list[tuple]
    last: Tensor


class CornerTable:
    """The vertices 2I + τ of a grid, and the corners I + o, o ≤ τ, that they depend on, along some axes."""

    def __init__(self, grid: StencilGrid, axes: tuple[int, ...]):
        self.grid, self.axes, self.coarse = grid, axes, grid
        for axis in axes:
            self.coarse = coarsened_grid(self.coarse, axis)
        self.all_axes = tuple(int(k in axes) for k in range(grid.dim))
        self.rows = {pair: k for k, pair in enumerate((t, o) for t in below(self.all_axes) for o in below(t))}

    def range_of(self, t: Bits, offset: Bits | None = None) -> tuple[list[int], list[int]]:
        """The range of I, axis by axis, where 2I + τ and 2I + τ + δ are vertices."""
        low, high = [], []
        for k, (n, q, o) in enumerate(zip(self.grid.vertices, t, offset or (0,) * len(t), strict=True)):
            step = 2 if k in self.axes else 1
            low.append(-((q + o) // step) if q + o < 0 else 0)
            high.append((n - 1 - max(q, q + o)) // step + 1)
        return low, high

    @cached_property
    def couplings(self) -> list[Coupling]:
        """For each coupling of a vertex 2I + τ, kept in row k, with 2I + τ + δ, and each pair of corners of both:

        the rows of their weights, how far on those of the latter lie, the row of the coarse stencil where the coupling
        of the corners is kept, where, and how often it is met: that of one corner with itself from both sides.
        """
        zero, found = (0,) * self.grid.dim, []
        for t in below(self.all_axes):
            for (_, _, offset), k in self.grid.keys.items():
                moved = [q + o for q, o in zip(t, offset, strict=True)]
                other = tuple(m % 2 if a in self.axes else 0 for a, m in enumerate(moved))
                step = tuple(m // 2 if a in self.axes else m for a, m in enumerate(moved))
                pairs = []
                for mine, theirs in product(below(t), below(other)):
                    end = tuple(s + o for s, o in zip(step, theirs, strict=True))
                    between = tuple(e - o for e, o in zip(end, mine, strict=True))
                    start, row = mine, self.coarse.keys.get((0, 0, between))
                    if row is None:
                        if k == 0:  # the other way round it has been there already
                            continue
                        start, row = end, self.coarse.keys[0, 0, tuple(-d for d in between)]
                    twice = 2.0 if between == zero and k > 0 else 1.0
                    pairs.append((self.rows[t, mine], self.rows[other, theirs], step, row, start, twice))
                found.append((k, t, offset, pairs))
        return found

    @cached_property
    def restriction(self) -> Products:
        """Σ over τ of weights times fine images, at the corners."""
        boxes = [(*self.range_of(t), corner, 1.0) for t, corner in self.rows]
        return self.products(boxes, (self.coarse, self.corners), (self.coarse, self.own), (self.grid, self.vertices))

    @cached_property
    def interpolation(self) -> Products:
        """Σ over corners of weights times coarse images, at the vertices 2I + τ."""
        boxes = [(*self.range_of(t), (0,) * self.grid.dim, 1.0) for t, _ in self.rows]
        return self.products(boxes, (self.grid, self.vertices), (self.coarse, self.own), (self.coarse, self.corners))

    @property
    def own(self) -> list[int]:
        return [self.coarse.start(k) for k in self.rows.values()]

    @property
    def vertices(self) -> list[int]:
        return [self.grid.start(0, self.grid.shift(t)) for t, _ in self.rows]

    @property
    def corners(self) -> list[int]:
        return [self.coarse.start(0, self.coarse.shift(corner)) for _, corner in self.rows]

    @cached_property
    def galerkin(self) -> Products:
        """Σ of the coarse stencil, over couplings and pairs of corners: of values and two weights."""
        boxes, targets, values, mine, theirs = [], [], [], [], []
        for k, t, offset, pairs in self.couplings:
            low, high = self.range_of(t, offset)
            for one, other, step, target, start, factor in pairs:
                boxes.append((low, high, start, factor))
                targets.append(self.coarse.start(target, self.coarse.shift(start)))
                values.append(self.grid.start(k, self.grid.shift(t)))
                mine.append(self.coarse.start(one))
                theirs.append(self.coarse.start(other, self.coarse.shift(step)))
        return self.products(boxes, (self.coarse, targets), (self.grid, values), (self.coarse, mine), last=theirs)

    def products(
        self,
        boxes: Sequence[tuple[Sequence[int], Sequence[int], Bits, float]],
        *operands: tuple[StencilGrid, list[int]],
        last: Sequence[int] = (),
    ) -> Products:
        """Arguments of C code.

        Args:
            boxes: for each term the least I, the one after the largest, how far the target lies from I, and a factor.
            operands: the target, and the two that are multiplied: their grid, and where their entry for I = 0 stands.
            last: the same for a third one, on the grid of the second.
        """
        low, high, lag, factor = zip(*boxes, strict=True)
        return Products(
            len(boxes) * self.coarse.size,
            (
                len(boxes),
                self.grid.batch,
                *padded(self.coarse.vertices, 1)[:2],
                numbers(x for least in low for x in padded(least, 0)),
                numbers(x for most in high for x in padded(most, 1)),
                numbers(x for g in lag for x in padded(g, 0)[:2]),
                torch.tensor(factor, dtype=torch.float64, device="cpu"),
            ),
            [
                (numbers(places), numbers(padded(self.strides(grid), 0)), grid.size // grid.batch)
                for grid, places in operands
            ],
            numbers(last),
        )

    def strides(self, grid: StencilGrid) -> list[int]:
        """How far apart entries of successive I lie."""
        return [s * (2 if grid is self.grid and k in self.axes else 1) for k, s in enumerate(grid.strides)]


def padded(values: Sequence[int], fill: int) -> list[int]:
    """Rows first: axes that are missing stand between."""
    first = values[:-1]
    return [*first[:1], *[fill] * (3 - len(values)), *first[1:], values[-1]]


def numbers(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64, device="cpu")


@lru_cache(maxsize=64)
def corner_table(grid: StencilGrid, axes: tuple[int, ...]) -> CornerTable:
    """The table of a grid, the same for all of its shape."""
    return CornerTable(grid, axes)
