"""Geometric multigrid on grids: a whole batch at once, from nothing but the stencil of the operator.

From level to level an axis first loses degrees, then every second vertex, and only while its couplings are strong, so
that stretched cells become nearly square before all axes are coarsened. Each coarse operator is the Galerkin product
PᵀAP, whatever the coefficients. Cycles (`solvers/linear/cycle.py`) run in single precision, in place and without
allocating, inside conjugate gradients in the precision of the system.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.constraints.ties import Ties, ties_of
from fem.space.space import FunctionSpace
from fem.support.arithmetic import norm, per_item
from fem.support.checks import check_integers, check_numbers, shown
from fem.support.conjugate_gradients import conjugate_gradients
from solvers.linear.coarsening import VertexCoarsening, coarsenable, next_steps, widths
from solvers.linear.conjugate_gradients import CG, PreparedCG, ritz_values
from solvers.linear.cycle import Level, chebyshev, v_cycle
from solvers.operators.stencil import Stencil, replaced_items
from solvers.operators.stencil_product import Product
from solvers.operators.system import System
from solvers.operators.workspace import Buffers, workspace_of

# Degree in D⁻¹A and ratio λ_max/λ_min of smoothing, by the number of axes that are not coarsened: along those the mass
# matrices of linear elements widen the spectrum by 3. (The finest level is content with degree one and a ratio of 3.)
SMOOTHING = ((2, 4.0), (2, 6.0), (3, 15.0))


@dataclass(frozen=True)
class Multigrid:
    """Conjugate gradients preconditioned by multigrid, for Lagrange spaces on grids; `CG(preconditioner=Multigrid())`.

    The mesh must be made as a grid of intervals, quadrilaterals or hexahedra (its nodes may have moved since), periodic
    along some axes or not, and the problem an energy. Its cost is proportional to the number of dofs: about ten
    iterations at any resolution.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.

    Raises:
        ValueError: settings out of range.
    """

    rtol: float | None = None
    max_iterations: int = 1000

    def __post_init__(self):
        check_numbers("Multigrid", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("Multigrid", max_iterations=self.max_iterations)

    def prepare(self, system: System) -> "PreparedMultigrid | PreparedCG":
        check_stencil(system)
        # Other projections around H than ties are those of the general iteration.
        if not system.holds_dofs_alone and not isinstance(system.form.constraint, Ties):
            return CG(self.rtol, self.max_iterations, self).prepare(system)
        return PreparedMultigrid(system, self)

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        return PreparedMultigrid(system, self).precondition


class PreparedMultigrid:
    exact = False

    @torch.no_grad()
    def __init__(self, system: System, method: Multigrid):
        stencil, space = check_stencil(system), system.form.space
        assert isinstance(space, FunctionSpace)
        self.system, self.method, self.grid = system, method, stencil.grid
        items, like = stencil.grid.items, system.u
        diagonal = items(stencil.grid.averaged(stencil.diagonal))
        self.finite = torch.isfinite(diagonal.sum((1, 2)))
        stencil = replaced_items(stencil, ~self.finite)
        self.singular = (diagonal == 0).flatten(1).any(-1).reshape(system.batch)
        self.indefinite = (diagonal < 0).flatten(1).any(-1).reshape(system.batch)
        memory = workspace_of(space).buffers(self, "multigrid")
        self.hierarchy = GridHierarchy(stencil, system.fixed_images, widths(space), torch.float32, memory)
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=like.device)
        if stencil is system.stencil:
            self.product = system.product
        else:
            self.product = Product(stencil, stencil.buffer(), stencil.buffer())
        self.x, self.r = (torch.zeros_like(stencil.diagonal) for _ in range(2))
        self.average, self.average_product = map(stencil.grid.averaging, (self.r, self.product.y))

    def flat(self, v: Tensor) -> Tensor:
        """Dofs "*b *shape", item by item with nodes and components apart."""
        space = self.system.form.space
        v = v.expand(*self.system.batch, *space.shape)
        return v.reshape(self.grid.batch, -1, self.grid.components)

    @torch.no_grad()
    def precondition(self, r: Tensor) -> Tensor:
        """One cycle: z ≈ H⁻¹ r, for dofs."""
        top, flat = self.hierarchy.levels[0], self.flat(r)
        size = norm(flat, 1)
        size = per_item(torch.where((size > 0) & torch.isfinite(size), size, 1), flat)
        self.grid.pack(flat / size, top.b)
        top.average_b()
        self.hierarchy.cycle()
        size = size * per_item(self.hierarchy.scale, flat)
        return (self.grid.unpack(top.x, r.dtype) * size).reshape(r.shape)

    @torch.no_grad()
    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """x with ‖b − H x‖ ≤ max(rtol ‖b‖, atol); items whose curvature turns negative stop there and are flagged."""
        system, grid, top = self.system, self.grid, self.hierarchy.levels[0]
        b = self.flat(system.project(rhs))
        size = norm(b, 1)
        rtol = self.method.rtol if self.method.rtol is not None else 0.1 * torch.finfo(b.dtype).eps ** 0.75
        target = rtol * torch.ones_like(size)
        if atol is not None:
            target = torch.maximum(target, atol.expand(system.batch).reshape(-1) / size)
        target = target / 2 ** (sum(grid.periodic) / 2)  # shared by so many ends, a residual is that much smaller
        good = (size > 0) & torch.isfinite(size) & self.finite
        x, r, items = self.x.zero_(), grid.pack(b, self.r), grid.items
        items(r).mul_(per_item(torch.where(good, 1 / size, 0), b))
        if not bool(good.all()):
            items(r)[~good] = 0
        self.average()

        def apply(p: Tensor) -> Tensor:
            self.product()
            self.average_product()
            return items(self.product.y)

        def precondition(r: Tensor) -> Tensor:
            items(top.b).copy_(r)
            self.hierarchy.cycle()
            return items(self.product.y.copy_(top.x))  # A p is no longer needed

        p = items(self.product.x)
        count, turned = conjugate_gradients(
            apply, precondition, items(x), items(r), p, target, self.method.max_iterations
        )
        self.iterations = count.reshape(system.batch)
        self.indefinite = self.indefinite | turned.reshape(system.batch)
        items(x).mul_(per_item(torch.where(self.finite, size, torch.nan), b))
        return grid.unpack(x).reshape(*system.batch, *system.form.space.shape)


def check_stencil(system: System) -> Stencil:
    """The stencil of a system that has one."""
    if system.stencil is None:
        space = system.form.space
        what = f"{space}" if system.symmetric else "a weak form, which has no symmetric operator"
        others = "`CG()` or `Direct()`" if system.symmetric else "`Direct()`"
        if ties_of(system.form.constraint) is not None:
            what = f"{shown(system.form.constraint)}, which ties dofs of different cells"
        elif system.form.couples_neighbours:
            what = "terms on interior facets, which couple more than the nodes of a cell"
        raise ValueError(
            "`Multigrid()` needs an energy over a Lagrange space on a mesh made as a grid of intervals, "
            f"quadrilaterals or hexahedra (`unit_square`, `box`, …); got {what}. Use {others}."
        )
    return system.stencil


class GridLevel(Level):
    """A stencil with its smoother, its buffers, and the steps to and from the next level."""

    def __init__(self, stencil: Stencil, fixed: Bool[Tensor, "t k"]):
        self.stencil, self.grid = stencil, stencil.grid
        self.images = tuple(stencil.buffer() for _ in range(3))
        self.x, self.r, self.b = (self.grid.shifted(image) for image in self.images)
        self.fixed, self.free = fixed, (~fixed).to(stencil.data)
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
        b = self.grid.items(self.b).reshape(self.grid.batch, -1, 1)
        self.grid.items(self.x).copy_((self.inverse @ b).view(self.grid.batch, len(self.grid.types), -1))


class GridHierarchy:
    """Levels from the finest to one small enough for a dense inverse, all in one precision."""

    def __init__(
        self,
        stencil: Stencil,
        fixed: Bool[Tensor, "t k"],
        width: list[Tensor],
        dtype: torch.dtype,
        memory: Buffers | None = None,
    ):
        (stencil, self.scale), width = scaled(stencil, dtype, memory or Buffers()), list(width)
        self.levels: list[GridLevel] = [GridLevel(stencil, fixed)]
        while True:
            level = self.levels[-1]
            steps = next_steps(level.stencil, width)
            if not steps:
                break
            operator = level.stencil
            operator.fix(fixed, 0.0)
            for step in steps:
                operator, fixed = step.operator(operator), step.fixed(fixed)
                if isinstance(step, VertexCoarsening):
                    width[step.axis] = step.width
            level.stencil.fix(level.fixed, 1.0)
            fixed = fixed | (operator.grid.averaged(operator.diagonal) == 0)
            operator.fix(fixed, 1.0)
            weak = len(coarsenable(level.grid)) - len(steps)
            level.set_smoother(*((1, 3.0) if len(self.levels) == 1 and not weak else SMOOTHING[weak]))
            coarse = GridLevel(operator, fixed)
            connect(level, coarse, steps)
            self.levels.append(coarse)
        level.inverse = dense_inverse(level.stencil)

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
    level.down += [partial(coarse.b.mul_, coarse.free), coarse.average_b]


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


def largest_eigenvalue(stencil: Stencil, steps: int = 8, sample: int = 2**13) -> Float[Tensor, "b"]:
    """The largest |λ| of |D|⁻¹A of each item on the middle layers of the slowest axis; never above that of all."""
    part, inverse = middle_layers(stencil, max(sample // (stencil.grid.batch * stencil.grid.strides[0]), 8))
    grid, diagonal = part.grid, part.diagonal.abs()
    product = Product(part, part.buffer(), part.buffer())
    average = grid.averaging(product.y)
    x, y, inverse, diagonal = (grid.items(t) for t in (product.x, product.y, inverse, diagonal))

    def apply(q: Tensor) -> Tensor:
        x.copy_(q)
        product()
        average()
        return y

    generator = torch.Generator(x.device).manual_seed(0)
    # All dofs weigh the same in |D|⁻¹, fixed ones with their ones on the diagonal too, whatever the scale of others.
    start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) * diagonal.sqrt() * (inverse > 0)
    start = y.copy_(start)
    average()
    largest = ritz_values(apply, lambda r: inverse * r, start.clone(), steps, lead=1).abs().amax(-1)
    return torch.where(largest > 0, largest, 1).to(x.dtype)


def middle_layers(stencil: Stencil, count: int) -> tuple[Stencil, Tensor]:
    """The part of a stencil on so many layers of the slowest axis, and 1/|D| there, zero outside.

    One more layer, of zeros, keeps items apart where layers are left out.
    """
    grid = stencil.grid
    count = min(count, grid.vertices[0])
    start = (grid.vertices[0] - count) // 2
    periodic = grid.periodic and (False, *grid.periodic[1:])
    small = replace(grid, vertices=(count + (count < grid.vertices[0]), *grid.vertices[1:]), periodic=periodic)
    part = Stencil.zeros(small, stencil.data, stencil.memory)
    whole = grid.shifted(stencil.data).unflatten(-1, (grid.batch, *grid.vertices))
    layers = small.shifted(part.data).unflatten(-1, (grid.batch, *small.vertices))
    layers[:, :, :count] = whole[:, :, start : start + count]
    diagonal = small.averaged(part.diagonal).abs()
    return part, torch.where(diagonal > 0, 1 / diagonal, 0)


def dense_inverse(stencil: Stencil) -> Float[Tensor, "b N N"]:
    """The inverse of each item's matrix, on periodic grids that of TᵀAT between dofs that are different."""
    matrix = stencil.dense().double()
    if stencil.grid.periodic:
        T = stencil.grid.periodic_basis(matrix)
        return (T @ definite_inverse(T.T @ matrix @ T) @ T.T).to(stencil.data.dtype)
    return definite_inverse(matrix).to(stencil.data.dtype)


def definite_inverse(matrix: Float[Tensor, "b N N"]) -> Float[Tensor, "b N N"]:
    """The inverse of each matrix; of those that are nearly singular or indefinite, one that is definite."""
    root = matrix.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    root = torch.where(root > 0, root, 1)
    matrix = matrix / root[:, :, None] / root[:, None]
    factor, info = torch.linalg.cholesky_ex(matrix)
    safe = (info == 0) & (factor.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2 > 1e-5)
    inverse = torch.cholesky_inverse(
        torch.where(safe[:, None, None], factor, torch.eye(len(matrix[0]), device="cpu").to(matrix))
    )
    if not bool(safe.all()):
        values, vectors = torch.linalg.eigh(matrix[~safe])
        sizes = values.abs()
        reciprocal = 1 / torch.maximum(sizes, 1e-5 * sizes.amax(-1, keepdim=True))
        inverse[~safe] = vectors * reciprocal[:, None] @ vectors.mT
    return inverse / root[:, :, None] / root[:, None]
