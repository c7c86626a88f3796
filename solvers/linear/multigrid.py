"""Geometric multigrid on grids: a whole batch at once, from nothing but the stencil of the operator.

Cycles (`solvers/linear/grids/hierarchy.py`) run in single precision, in place and without allocating, inside conjugate
gradients in the precision of the system.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fem.constraints.ties import Ties, ties_of
from fem.space.space import FunctionSpace
from fem.support.arithmetic import norm, per_item
from fem.support.checks import check_integers, check_numbers, shown
from fem.support.conjugate_gradients import conjugate_gradients
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.linear.grids.coarsening import widths
from solvers.linear.grids.filling import filled
from solvers.linear.grids.hierarchy import GridHierarchy
from solvers.operators.stencil import Stencil, replaced_items
from solvers.operators.stencil_product import Product
from solvers.operators.system import System
from solvers.operators.workspace import workspace_of


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
        self.stencil, self.empty = stencil, system.unseen_images if len(stencil.grid.types) == 1 else None
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=like.device)
        self.reduction = torch.ones(system.batch, dtype=like.dtype, device=like.device)
        if stencil is system.stencil:
            self.product = system.product
        else:
            self.product = Product(stencil, stencil.buffer(), stencil.buffer())
        self.x, self.r = (torch.zeros_like(stencil.diagonal) for _ in range(2))
        self.average, self.average_product = map(stencil.grid.averaging, (self.r, self.product.y))

    @cached_property
    def hierarchy(self) -> GridHierarchy:
        """Made for the first cycle: systems that turn out to be singular need none."""
        space = self.system.form.space
        assert isinstance(space, FunctionSpace)
        memory = workspace_of(space).buffers(self, "multigrid")
        return GridHierarchy(*self.operator(), widths(space), torch.float32, memory)

    def operator(self) -> tuple[Stencil, Tensor]:
        """What cycles are made for, and its fixed dofs."""
        fixed = self.system.fixed_images
        if self.empty is None:
            return self.stencil, fixed
        fixed = fixed & ~self.empty
        return filled(self.stencil, self.empty, fixed), fixed

    def cycle(self) -> Tensor:
        """One cycle on b of the finest level; its x, nothing at dofs that are held."""
        self.hierarchy.cycle()
        x = self.hierarchy.levels[0].x
        return x if self.empty is None else x.masked_fill_(self.empty, 0)

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
        x = self.cycle()
        size = size * per_item(self.hierarchy.scale, flat)
        return (self.grid.unpack(x, r.dtype) * size).reshape(r.shape)

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
            return items(self.product.y.copy_(self.cycle()))  # A p is no longer needed

        p, first = items(self.product.x), norm(items(r), 1)
        count, turned = conjugate_gradients(
            apply, precondition, items(x), items(r), p, target, self.method.max_iterations
        )
        self.iterations = count.reshape(system.batch)
        self.reduction = torch.where(count > 0, norm(items(r), 1) / first, 1).reshape(system.batch)
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
