"""Levels of multigrid on a grid, from the finest to one small enough for a direct solve, and the cycle through them.

Each coarse operator is the Galerkin product PᵀAP, whatever the coefficients (`coarsening.py`, where they are rough
`operator_coarsening.py`); which steps lead from one level to the next `strategy.py` decides.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.support.arithmetic import per_item
from solvers.linear.cycle import Level, chebyshev
from solvers.linear.grids.coarsening import CellCollapse, galerkin
from solvers.linear.grids.coarsest import solver
from solvers.linear.grids.strategy import (
    EASY,
    SMOOTHING,
    coarsenable,
    is_coarsest,
    is_rough,
    largest_eigenvalue,
    ways_down,
)
from solvers.operators.stencil import Stencil
from solvers.operators.stencil_product import Product
from solvers.operators.workspace import Buffers


class GridLevel(Level):
    """A stencil with its smoother, its buffers, and the steps to and from the next level."""

    def __init__(self, stencil: Stencil, fixed: Bool[Tensor, "t k"]):
        self.stencil, self.grid = stencil, stencil.grid
        self.images = tuple(stencil.buffer() for _ in range(3))
        self.x, self.r, self.b = (self.grid.shifted(image) for image in self.images)
        self.fixed = fixed
        self.product = Product(stencil, *self.images[:2])
        self.average_r, self.average_b = map(self.grid.averaging, (self.r, self.b))
        self.down: list[Callable[[], Any]] = []
        self.up: list[Callable[[], Any]] = []
        self.coarse: list[GridLevel] = []

    def set_smoother(self, steps: int, ratio: float) -> None:
        """Chebyshev on [λ/ratio, λ]; few iterations do not quite find the largest λ."""
        omega, self.factors = chebyshev(steps, ratio)
        diagonal = self.grid.averaged(self.stencil.diagonal).abs()
        items, step = self.grid.items(diagonal), omega / (1.1 * largest_eigenvalue(self.stencil))
        weight = (per_item(step, items) / items).transpose(0, 1).reshape(diagonal.shape)
        self.weight = weight.masked_fill_(self.fixed | (diagonal == 0), 1)

    def residual(self) -> None:
        self.product.residual(self.b)
        self.average_r()

    def restrict(self) -> None:
        for step in self.down:
            step()

    def interpolate(self) -> None:
        for step in self.up:
            step()


class GridHierarchy:
    """Levels from the finest to one small enough to be solved directly, all in one precision.

    A stencil that comes with its `scale` has that precision and is used as it is.

    Interpolation that follows a rough operator is made in double precision, and so are the coarse operators then: what
    is left of large couplings that cancel would be noise in another one. In the plane there are two coarse grids below
    each such level but the first, of even and of odd vertices along some axes (`front_layer.py`), and the mean of what
    they say is added: a cluster of strongly coupled vertices may lie between those of one grid, which misses its mean.
    """

    def __init__(
        self,
        stencil: Stencil,
        fixed: Bool[Tensor, "t k"],
        width: list[Tensor],
        dtype: torch.dtype,
        memory: Buffers | None = None,
        scale: Float[Tensor, "b"] | None = None,
    ):
        self.rough, self.dtype = scale is None and is_rough(stencil), dtype
        self.size, memory = stencil.grid.size // stencil.grid.batch, memory or Buffers()
        if scale is None:
            stencil, self.scale = scaled(stencil, torch.float64 if self.rough else dtype, memory)
        else:
            stencil, self.scale = Stencil(stencil.grid, stencil.data, memory), scale
        self.levels: list[GridLevel] = []  # the finest one first
        self.add(stencil, fixed, width, [])

    def add(
        self, stencil: Stencil, fixed: Bool[Tensor, "t k"], width: list[Tensor], before: list, branched: bool = False
    ) -> GridLevel:
        """The level of an operator, to which some steps have led, and all those below it."""
        ways, first = [], not self.levels
        if not is_coarsest(stencil, self.dtype, self.size if self.rough and not first else None):
            ways = ways_down(stencil, width, fixed if self.rough else None, before, branched)
        below = []
        stencil.fix(fixed, 0.0)
        for steps, _ in ways:
            operator, coarse = galerkin(stencil, steps), fixed
            for step in steps:
                coarse = step.fixed(coarse)
            coarse = coarse | (operator.grid.averaged(operator.diagonal) == 0)
            operator.fix(coarse, 1.0)
            below.append((operator, coarse))
        stencil.fix(fixed, 1.0)
        level = GridLevel(stencil.to(self.dtype), fixed)
        self.levels.append(level)
        if ways:
            level.set_smoother(*self.smoothing(stencil, ways[0][0], first))
        else:
            level.solve = solver(stencil, level.b, level.x)
        for (steps, width), (operator, coarse) in zip(ways, below, strict=True):
            level.coarse.append(self.add(operator, coarse, width, steps, branched or len(ways) > 1))
            connect(level, level.coarse[-1], steps, 1 / len(ways))
        return level

    def smoothing(self, stencil: Stencil, steps: list, first: bool) -> tuple[int, float]:
        """Degree and ratio λ_max/λ_min of a level from which some steps lead."""
        # Where coefficients are rough, a single cell collapses first: other axes have a level of their own.
        collapsed = self.rough and isinstance(steps[0], CellCollapse)
        weak = 0 if collapsed else len(coarsenable(stencil.grid)) - sum(len(step.axes) for step in steps)
        easy = first and not weak and (collapsed or not self.rough)
        return EASY if easy else SMOOTHING[weak]

    def cycle(self) -> None:
        """One cycle on b of the finest level into its x."""
        cycle(self.levels[0])


def cycle(level: GridLevel) -> None:
    """One cycle on b of a level into its x: a V-cycle but for the two coarse grids of rough operators."""
    if not level.coarse:
        level.solve()
        return
    level.presmooth()
    level.restrict()
    for coarse in level.coarse:
        cycle(coarse)
    level.interpolate()
    level.smooth()


def connect(level: GridLevel, coarse: GridLevel, steps: list, share: float) -> None:
    """Bind the steps between two levels to their buffers; so much of the residual is a matter of the coarse one."""
    (x, r, _), (coarse_x, _, coarse_b) = level.images, coarse.images
    between = [level.stencil.buffer(step.coarse) for step in steps[:-1]]
    down, up, back = [r, *between, coarse_b], [x, *between, coarse_x], []
    for i, step in enumerate(steps):
        restrict, interpolate = step.bind(down[i], down[i + 1], up[i], up[i + 1])
        if i > 0:
            interpolate = cleared(up[i], interpolate)
        level.down.append(restrict)
        back.insert(0, interpolate)
    level.up += back
    level.down += [partial(coarse.b.mul_, (~coarse.fixed).to(coarse.b) * share), coarse.average_b]


def cleared(buffer: Tensor, interpolate: Callable) -> Callable:
    """Interpolation that sets what it would add to."""

    def run() -> None:
        buffer.zero_()
        interpolate()

    return run


def scaled(stencil: Stencil, dtype: torch.dtype, memory: Buffers) -> tuple[Stencil, Float[Tensor, "b"]]:
    """A copy in another type, its items scaled to a largest diagonal entry of one, far from over- and underflow."""
    grid = stencil.grid
    largest = grid.items(stencil.diagonal).abs().flatten(1).amax(-1)
    copy = Stencil.zeros(grid, stencil.data, memory, dtype)
    scale = 1 / torch.where(largest > 0, largest, 1)
    factor = scale[:, None].expand(-1, grid.size // grid.batch)
    for source, target in zip(grid.shifted(stencil.data), grid.shifted(copy.data), strict=True):
        torch.mul(source.view(factor.shape), factor, out=target.view(factor.shape))
    return copy, scale
