"""Levels of multigrid on a grid, from the finest to one small enough for a dense inverse, and the cycle through them.

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
from solvers.linear.cycle import Level, chebyshev, v_cycle
from solvers.linear.grids.coarsening import CellCollapse, galerkin
from solvers.linear.grids.strategy import SMOOTHING, coarsenable, is_coarsest, is_rough, largest_eigenvalue, next_steps
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
        self.inverse: Tensor | None = None

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

    def solve(self) -> None:
        assert self.inverse is not None
        b = self.grid.items(self.b).reshape(self.grid.batch, -1, 1).to(self.inverse.dtype)
        self.grid.items(self.x).copy_((self.inverse @ b).view(self.grid.batch, len(self.grid.types), -1))


class GridHierarchy:
    """Levels from the finest to one small enough for a dense inverse, all in one precision.

    A stencil that comes with its `scale` has that precision and is used as it is.

    Interpolation that follows a rough operator is made in double precision, and so are the coarse operators then: what
    is left of large couplings that cancel would be noise in another one.
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
        rough, width, memory = scale is None and is_rough(stencil), list(width), memory or Buffers()
        if scale is None:
            stencil, self.scale = scaled(stencil, torch.float64 if rough else dtype, memory)
        else:
            stencil, self.scale = Stencil(stencil.grid, stencil.data, memory), scale
        self.levels: list[GridLevel] = []
        before: list = []
        while not is_coarsest(stencil.grid, rough and len(self.levels) > 0):
            steps = next_steps(stencil, width, fixed if rough else None)
            if not steps:
                break
            stencil.fix(fixed, 0.0)
            operator, coarse = galerkin(stencil, steps), fixed
            for step in steps:
                coarse = step.fixed(coarse)
            stencil.fix(fixed, 1.0)
            coarse = coarse | (operator.grid.averaged(operator.diagonal) == 0)
            operator.fix(coarse, 1.0)
            level = self.add(GridLevel(stencil.to(dtype), fixed), before)
            # Where coefficients are rough, a single cell collapses first: other axes have a level of their own.
            collapsed = rough and isinstance(steps[0], CellCollapse)
            weak = 0 if collapsed else len(coarsenable(stencil.grid)) - sum(len(step.axes) for step in steps)
            easy = len(self.levels) == 1 and not weak and (collapsed or not rough)
            level.set_smoother(*((1, 3.0) if easy else SMOOTHING[weak]))
            stencil, fixed, before = operator, coarse, steps
        self.add(GridLevel(stencil.to(dtype), fixed), before).inverse = dense_inverse(stencil)

    def add(self, level: GridLevel, steps: list) -> GridLevel:
        """Another level, to which these steps lead."""
        if self.levels:
            connect(self.levels[-1], level, steps)
        self.levels.append(level)
        return level

    def cycle(self) -> None:
        """One V-cycle on b of the finest level into its x."""
        v_cycle(self.levels)


def connect(level: GridLevel, coarse: GridLevel, steps: list) -> None:
    """Bind the steps between two levels to their buffers."""
    (x, r, _), (coarse_x, _, coarse_b) = level.images, coarse.images
    between = [level.stencil.buffer(step.coarse) for step in steps[:-1]]
    down, up = [r, *between, coarse_b], [x, *between, coarse_x]
    for i, step in enumerate(steps):
        restrict, interpolate = step.bind(down[i], down[i + 1], up[i], up[i + 1])
        if i > 0:
            interpolate = cleared(up[i], interpolate)
        level.down.append(restrict)
        level.up.insert(0, interpolate)
    free = (~coarse.fixed).to(coarse.b)
    level.down += [partial(coarse.b.mul_, free), coarse.average_b]


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


def dense_inverse(stencil: Stencil) -> Float[Tensor, "b N N"]:
    """The inverse of each item's matrix, on periodic grids that of TᵀAT between dofs that are different."""
    matrix, least = stencil.dense().double(), 1e-5 if stencil.data.dtype == torch.float32 else 1e-12
    if stencil.grid.periodic:
        T = stencil.grid.periodic_basis(matrix)
        return (T @ definite_inverse(T.T @ matrix @ T, least) @ T.T).to(stencil.data.dtype)
    return definite_inverse(matrix, least).to(stencil.data.dtype)


def definite_inverse(matrix: Float[Tensor, "b N N"], least: float) -> Float[Tensor, "b N N"]:
    """The inverse of each matrix; of those that are nearly singular or indefinite, one that is definite.

    Constants are mostly what a singular one does not see: with something added for them it is tried again.
    """
    root = matrix.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    root = torch.where(root > 0, root, 1)
    matrix = matrix / root[:, :, None] / root[:, None]
    inverse, bad = by_cholesky(matrix, least)
    if bool(bad.any()):
        constants = torch.nn.functional.normalize(root[bad], dim=-1)
        inverse[bad], still = by_cholesky(matrix[bad] + 1e-5 * constants[:, :, None] * constants[:, None], least)
        bad = bad.masked_scatter(bad, still)
    if bool(bad.any()):
        values, vectors = torch.linalg.eigh(matrix[bad])
        sizes = values.abs()
        largest = sizes.amax(-1, keepdim=True)
        reciprocal = 1 / torch.where(sizes > least * largest, sizes, 1e-5 * largest)
        inverse[bad] = vectors * reciprocal[:, None] @ vectors.mT
    return inverse / root[:, :, None] / root[:, None]


def by_cholesky(matrix: Float[Tensor, "b N N"], least: float) -> tuple[Float[Tensor, "b N N"], Bool[Tensor, "b"]]:
    """Inverses, and which of them are none: pivots of less than that."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    bad = (info != 0) | ~(factor.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2 > least)
    eye = torch.eye(len(matrix[0]), device=matrix.device, dtype=matrix.dtype)
    return torch.cholesky_inverse(torch.where(bad[:, None, None], eye, factor)), bad
