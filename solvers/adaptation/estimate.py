"""An estimate of the error and of where it is, for any energy with a minimum: no bound, what a richer space corrects.

    ‖u − u_h‖ ≈ ‖e‖,    H(u_h) e = −J′(u_h),    ‖e‖² = eᵀ H(u_h) e

over the Lagrange space of the next degree, or, where there is none, over the mesh refined once. What remains of the
residual there oscillates from cell to cell, so that a few iterations of conjugate gradients find most of e. As good as
the richer space is better than the poorer (Bank and Smith, A posteriori error estimates based on hierarchical bases,
1993). For a goal Q the same is found of the dual solution, H(u_h) z = Q′(u_h), whose error weighs that of u:

    |Q(u) − Q(u_h)| ≈ |e · H e*| ≤ Σ_K |e · H e*|_K,    H(u_h) e* = Q′(u_h) − H(u_h) z_h

(Becker and Rannacher, An optimal control approach to a posteriori error estimation, 2001, section 3).
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from fem.constraints.rigid_motion import RigidMotionFree
from fem.constraints.ties import ties_of
from fem.forms.derivatives import derivative_transposed, differentiable
from fem.forms.energy import Energy
from fem.forms.lowering import cell_integrals
from fem.forms.parameters import Parameter
from fem.space.space import AnySpace
from fem.support.arithmetic import sum_of
from fem.support.modes import outside_modes
from solvers.certificates.enrichment import next_degree
from solvers.linear.choice import beyond_cells, default_linear
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.operators.system import System

ENOUGH = CG(rtol=0.05, max_iterations=50)

Problem = tuple[Energy, Sequence[Parameter]]
Goal = Callable[[AnySpace, Tensor], Tensor]


@outside_modes
@torch.no_grad()
def estimated(
    problem: Problem, u: Tensor, refined: Callable[[], Problem], goal: Goal | None = None
) -> Float[Tensor, "*b e"]:
    """η of each cell, with ‖u − u_h‖² ≈ Σ η², or |Q(u) − Q(u_h)| ≲ Σ η² for a goal.

    Args:
        problem: an energy and its parameters; u minimises it.
        refined: makes the same problem over the mesh refined once.
        goal: Q(V, u), for any space V.
    """
    energy, params = problem
    held = energy.constraint
    richer = None if ties_of(held) or isinstance(held, RigidMotionFree) else next_degree(energy, u)
    if richer is not None:
        finer, lift = Tangent(*richer, params), lambda v: next_degree(energy, v)[1]  # type: ignore[index]
    else:
        over, given = refined()
        lift = lambda v: taken_along(energy.space, v, over.space)  # noqa: E731
        finer = Tangent(over, lift(u), given)
    e = weight = finer.correction(-finer.form.residual(finer.u))
    if goal is not None:
        coarse = Tangent(energy, u, params)
        linear = default_linear(energy.space, True, prod(coarse.batch), beyond_cells(coarse.form))
        z = finer.system.project(lift(linear.prepare(coarse.system).solve(coarse.slope(goal))))
        weight = finer.correction(finer.slope(goal) - finer.system.apply(z))
    squares = finer.in_cells(e, weight).abs()
    if richer is None:
        parents = finer.energy.space.mesh.parents
        assert parents is not None
        squares = squares.new_zeros(*finer.batch, energy.space.mesh.num_cells).index_add(-1, parents, squares)
    return squares.sqrt()


def taken_along(coarse: AnySpace, u: Tensor, fine: AnySpace) -> Tensor:
    """The dofs over a refined mesh of the function u, field by field."""
    fields = zip(coarse.fields, coarse.split(u), fine.fields, strict=True)
    return fine.join([V.interpolate(W.function(own)) for W, own, V in fields])


class Tangent:
    """An energy around one u: its Hessian there."""

    def __init__(self, energy: Energy, u: Tensor, params: Sequence[Parameter]):
        self.energy, self.params, self.form = energy, params, energy.discrete_form(params).detach()
        self.batch, self.u = self.form.constrained(u)
        self.system = System(self.form, self.u)

    def slope(self, goal: Goal) -> Tensor:
        """Q′(u) at dofs that may change."""
        with torch.enable_grad():
            u = self.u.detach().clone().requires_grad_()
            value = goal(self.energy.space, u)
            (found,) = torch.autograd.grad(value.sum(), u)
        return self.system.project(found)

    def correction(self, residual: Tensor) -> Tensor:
        """H⁻¹ of what is left, roughly."""
        return PreparedCG(self.system, ENOUGH).solve(residual)

    def in_cells(self, e: Tensor, weight: Tensor) -> Float[Tensor, "*b e"]:
        """eᵀ H w cell by cell, terms on the boundary with the cells that they lie on."""
        space, lead = self.energy.space, len(self.batch)
        found = e.new_zeros(*self.batch, space.mesh.num_cells)
        for integral in cell_integrals(space, [t for t in self.energy.terms if not t.interior], self.params):
            slots, along, against = differentiable(integral.slots(self.u)), integral.slots(e), integral.slots(weight)
            with torch.enable_grad():
                products = derivative_transposed(integral.fluxes(slots, self.batch, True), slots, along, False)
            pairs = [p * a for p, a in zip(products, against, strict=True) if p is not None]
            if pairs:
                at_points = sum_of(p.reshape(*p.shape[: lead + 2], -1).sum(-1) for p in pairs)
                own = (at_points * integral.geometry.weights).sum(-1)
                cells = integral.domain.cells
                cells = torch.arange(own.shape[-1], device=e.device) if cells is None else cells
                found.index_add_(-1, space.mesh.block_starts[integral.domain.block] + cells, own)
        return found
