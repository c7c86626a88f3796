"""An estimate of the error and of where it is, for any energy with a minimum: no bound, what a richer space corrects.

    ‖u − u_h‖ ≈ ‖e‖,    H(u_h) e = −J′(u_h),    ‖e‖² = eᵀ H(u_h) e

over the Lagrange space of the next degree, or, where there is none, over the mesh refined once. What remains of the
residual there oscillates from cell to cell, so that a few iterations of conjugate gradients find most of e. As good as
the richer space is better than the poorer (Bank and Smith, A posteriori error estimates based on hierarchical bases,
1993).
"""

from collections.abc import Callable, Sequence

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
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.operators.system import System

ENOUGH = CG(rtol=0.05, max_iterations=50)

Problem = tuple[Energy, Sequence[Parameter]]


@outside_modes
@torch.no_grad()
def estimated(problem: Problem, u: Tensor, refined: Callable[[], Problem]) -> Float[Tensor, "*b e"]:
    """η of each cell, with ‖u − u_h‖² ≈ Σ η².

    Args:
        problem: an energy and its parameters; u minimises it.
        refined: makes the same problem over the mesh refined once.
    """
    energy, params = problem
    held = energy.constraint
    richer = None if ties_of(held) or isinstance(held, RigidMotionFree) else next_degree(energy, u)
    if richer is not None:
        return in_cells(*richer, params)
    finer, params = refined()
    eta = in_cells(finer, taken_along(energy.space, u, finer.space), params)
    parents, found = finer.space.mesh.parents, eta.new_zeros(*eta.shape[:-1], energy.space.mesh.num_cells)
    assert parents is not None
    return found.index_add(-1, parents, eta.square()).sqrt()


def taken_along(coarse: AnySpace, u: Tensor, fine: AnySpace) -> Tensor:
    """The dofs over a refined mesh of the function u, field by field."""
    fields = zip(coarse.fields, coarse.split(u), fine.fields, strict=True)
    return fine.join([V.interpolate(W.function(own)) for W, own, V in fields])


def in_cells(energy: Energy, u: Tensor, params: Sequence[Parameter]) -> Float[Tensor, "*b e"]:
    """√(eᵀ H e) cell by cell, terms on the boundary with the cells that they lie on."""
    form = energy.discrete_form(params).detach()
    batch, full = form.constrained(u)
    e = PreparedCG(System(form, full), ENOUGH).solve(-form.residual(full))
    space, lead = energy.space, len(batch)
    found = e.new_zeros(*batch, space.mesh.num_cells)
    for integral in cell_integrals(space, [term for term in energy.terms if not term.interior], params):
        slots, along = differentiable(integral.slots(full)), integral.slots(e)
        with torch.enable_grad():
            products = derivative_transposed(integral.fluxes(slots, batch, True), slots, along, False)
        pairs = [(p * a).flatten(lead + 2) for p, a in zip(products, along, strict=True) if p is not None]
        if pairs:
            own = (sum_of(p.sum(-1) for p in pairs) * integral.geometry.weights).sum(-1)
            cells = integral.domain.cells
            cells = torch.arange(own.shape[-1], device=e.device) if cells is None else cells
            found.index_add_(-1, space.mesh.block_starts[integral.domain.block] + cells, own)
    return found.clamp(min=0).sqrt()
