"""Geometric multigrid on grids: a whole batch at once, from nothing but the stencil of the operator.

Cycles (`solvers/linear/grids/hierarchy.py`) run in single precision, in place and without allocating, inside conjugate
gradients in the precision of the system.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from fem.constraints.ties import Ties, ties_of
from fem.forms.discrete import DiscreteForm
from fem.space.space import FunctionSpace
from fem.support.arithmetic import norm, per_item
from fem.support.checks import check_integers, check_numbers, shown
from fem.support.conjugate_gradients import conjugate_gradients
from fem.support.portions import large_empty, large_zeros
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.linear.grids import coarsening
from solvers.linear.grids.coarsening import widths
from solvers.linear.grids.filling import filled
from solvers.linear.grids.hierarchy import GridHierarchy
from solvers.linear.grids.strategy import is_rough
from solvers.operators import stencil_product
from solvers.operators.matrix_free import MatrixFree
from solvers.operators.periodic_grid import grid_of_form
from solvers.operators.stencil import Stencil, replaced_items
from solvers.operators.stencil_product import Product
from solvers.operators.system import System
from solvers.operators.workspace import workspace_of

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Multigrid:
    """Conjugate gradients preconditioned by multigrid, for Lagrange spaces on grids; `CG(preconditioner=Multigrid())`.

    The mesh must be made as a grid of intervals, quadrilaterals or hexahedra (its nodes may have moved since), periodic
    along some axes or not, and the problem an energy. Its cost is proportional to the number of dofs: about ten
    iterations at any resolution.

    Quadratic energies of scalars in three dimensions go without the matrix of the finest level on large uniform grids
    (from 80³ cells on, on GPUs from 512³ on), unless coefficients are rough. `minimize` then holds, of degree 1, so
    many bytes per unknown in double (single) precision while it iterates, with one coefficient per node:

        stencil in single precision, 14 numbers                     57   (57)
        coarser levels: stencils 9, vectors and weights 2           11   (11)
        finest level: x, b, r, weight; between two levels           19   (19)
        prescribed dofs                                              2    (2)
        conjugate gradients: x, r, p, and A p or z                  32   (16)
        u, its residual, the coefficient                            24   (12)
                                                                   145  (117)

    By this count 256³ cells take 2.5 GB, 970³ cells 133 GB, and 1024³ cells in single precision 126 GB.

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
        self.ahead(system.form, system.u)
        check_grid(system)
        # Other projections around H than ties are those of the general iteration.
        if not system.holds_dofs_alone and not isinstance(system.form.constraint, Ties):
            return CG(self.rtol, self.max_iterations, self).prepare(system)
        return PreparedMultigrid(system, self)

    def ahead(self, form: DiscreteForm, u: Tensor) -> None:
        """Begin to compile what serves all operators, beside what is done until one is there."""
        grid = grid_of_form(form, prod(form.full_batch(u)))
        if grid is not None and u.is_cpu:
            for code, dtype in (
                (stencil_product, u.dtype),
                (stencil_product, torch.float32),
                (coarsening, torch.float32),
            ):
                code.function(dtype).library.begin(grid.size * len(grid.keys))

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        return PreparedMultigrid(system, self).precondition


class PreparedMultigrid:
    exact = False

    @torch.no_grad()
    def __init__(self, system: System, method: Multigrid):
        space = system.form.space
        assert isinstance(space, FunctionSpace)
        self.system, self.method = system, method
        if system.loop is not None and not serves(system.loop):
            system.loop.memory.forget()
            system.loop = None
        self.loop = system.loop
        check_grid(system)
        if self.loop is None:
            stencil, scale = system.stencil, None
            assert stencil is not None
        else:
            stencil, scale = self.loop.stencil, self.loop.scale
        self.grid = stencil.grid
        diagonal = self.grid.items(self.grid.averaged(stencil.diagonal))
        self.finite = torch.isfinite(diagonal.sum((1, 2)))
        self.singular = (diagonal == 0).flatten(1).any(-1).reshape(system.batch)
        self.indefinite = (diagonal < 0).flatten(1).any(-1).reshape(system.batch)
        if self.loop is None:
            stencil = replaced_items(stencil, ~self.finite)
            self.product = system.product
            if stencil is not system.stencil:
                self.product = Product(stencil, stencil.buffer(), stencil.buffer())
            self.average_product = self.grid.averaging(self.product.y)
        self.stencil, self.scale = stencil, scale
        self.empty = system.unseen_images if self.loop is None and len(stencil.grid.types) == 1 else None
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=system.u.device)
        self.reduction = torch.ones(system.batch, dtype=system.u.dtype, device=system.u.device)

    @cached_property
    def hierarchy(self) -> GridHierarchy:
        """Made for the first cycle: systems that turn out to be singular need none."""
        space = self.system.form.space
        assert isinstance(space, FunctionSpace)
        memory = workspace_of(space).buffers(self, "multigrid")
        return GridHierarchy(*self.operator(), widths(space), torch.float32, memory, self.scale)

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
        system, grid = self.system, self.grid
        b = self.flat(rhs if self.loop is not None else system.project(rhs))
        r = large_empty(b, *b.shape).copy_(b)
        del b
        if self.loop is not None:
            self.loop.clear(r)
        size = norm(r, 1)
        rtol = self.method.rtol if self.method.rtol is not None else 0.1 * torch.finfo(r.dtype).eps ** 0.75
        target = rtol * torch.ones_like(size)
        if atol is not None:
            target = torch.maximum(target, atol.expand(system.batch).reshape(-1) / size)
        target = target / 2 ** (sum(grid.periodic) / 2)  # shared by so many ends, a residual is that much smaller
        good = (size > 0) & torch.isfinite(size) & self.finite
        unit = torch.where(good, 1 / size, 0)
        r.mul_(per_item(unit, r))
        if not bool(good.all()):
            r[~good] = 0
        iterate = self.by_stencil if self.loop is None else self.by_loop
        x = iterate(r, target)
        x.mul_(per_item(torch.where(self.finite, size, torch.nan), x))
        return x.reshape(*system.batch, *system.form.space.shape)

    def by_stencil(self, b: Tensor, target: Tensor) -> Tensor:
        """Conjugate gradients in the layout of the stencil: dofs "b n c" x with H x ≈ b, ‖b − H x‖ ≤ `target`."""
        grid, top, items = self.grid, self.hierarchy.levels[0], self.grid.items
        x, r = (large_zeros(b, len(grid.types), grid.size) for _ in range(2))
        grid.pack(b, r)
        grid.averaging(r)()

        def apply(p: Tensor) -> Tensor:
            self.product()
            self.average_product()
            return items(self.product.y)

        def precondition(r: Tensor) -> Tensor:
            items(top.b).copy_(r)
            return items(self.product.y.copy_(self.cycle()))  # A p is no longer needed

        self.iterate(apply, precondition, items(x), items(r), items(self.product.x), target)
        return grid.unpack(x)

    def by_loop(self, r: Tensor, target: Tensor) -> Tensor:
        """The same on dofs as they are, with products by the loop over cells; overwrites the right-hand side."""
        grid, top, loop = self.grid, self.hierarchy.levels[0], self.loop
        assert loop is not None
        x, p, q = large_zeros(r, *r.shape), *(large_empty(r, *r.shape) for _ in range(2))

        def apply(p: Tensor) -> Tensor:
            loop.product(p, q)
            return q

        def precondition(r: Tensor) -> Tensor:
            grid.pack(r, top.b)
            self.hierarchy.cycle()
            return grid.unpack(top.x, out=q)  # A p is no longer needed

        self.iterate(apply, precondition, x, r, p, target)
        return x

    def iterate(self, apply: Map, precondition: Map, x: Tensor, r: Tensor, p: Tensor, target: Tensor) -> None:
        """Conjugate gradients in place, and how they went."""
        batch, first = self.system.batch, norm(r, 1)
        count, turned = conjugate_gradients(apply, precondition, x, r, p, target, self.method.max_iterations)
        self.iterations = count.reshape(batch)
        self.reduction = torch.where(count > 0, norm(r, 1) / first, 1).reshape(batch)
        self.indefinite = self.indefinite | turned.reshape(batch)


def serves(loop: MatrixFree) -> bool:
    """Whether a stencil in single precision has all that a hierarchy needs: not where coefficients are rough."""
    if is_rough(loop.sample()):  # mostly told by a few layers
        return False
    return bool(loop.finite.all() & (loop.stencil.diagonal != 0).all()) and not is_rough(loop.stencil)


def check_grid(system: System) -> None:
    """Raise where a system is not one of a grid."""
    if system.loop is None and system.stencil is None:
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
