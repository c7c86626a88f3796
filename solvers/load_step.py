"""The start of Newton's method where prescribed values change: they enter as data of its first tangent steps.

Written into u at once, they would deform one layer of cells alone, and turn it inside out if they are larger than a
cell. Instead the first linear system has the increment ℓ = g − u as Dirichlet data of the step, at the state where u
still has its old boundary values,

    (H s)_i = −r_i at free dofs, s = ℓ at prescribed ones,

and only a part t of the step is taken where all of it leads to energies that are not finite; the rest enters with the
next one (infeasible start Newton: Boyd and Vandenberghe, Convex Optimization, §10.3).
"""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from fem.constraints.ties import ties_of
from fem.forms.constraints import Free
from fem.forms.discrete import DiscreteForm, FormValues
from fem.support.arithmetic import norm, per_item
from solvers.line_search import Bounds
from solvers.operators.system import LinearMethod, System
from solvers.report import Effort

HALVINGS = 10  # a step of which not even so small a part leads anywhere is given up


def prescribed(form: DiscreteForm, u: Tensor, bounds: Bounds | None) -> Tensor:
    """u with the prescribed values written into it, within its bounds."""
    u = form.constraint.insert(u, form.data)
    return u if bounds is None else bounds.clamp(u)


def load(
    form: DiscreteForm,
    u: Tensor,
    linear: LinearMethod,
    symmetric: bool,
    minimum: bool,
    bounds: Bounds | None,
    max_steps: int,
    effort: Effort,
) -> tuple[Tensor, Int[Tensor, "*b"]]:
    """u "*b *shape" with its prescribed values, and the steps that this took: none where they may be written into it.

    So they may where the Hessian stays what it is, since Newton's first step is then the tangent step; and they must
    where no tangent step exists or leads to a smaller residual. (Of energies a cell turned inside out may have little.)
    What its linear solves take adds to `effort`.
    """
    jump, fixed, lead = prescribed(form, u, bounds), form.constraint.fixed, u.ndim - len(form.space.shape)
    steps = torch.zeros(u.shape[:lead], dtype=torch.int64, device=u.device)
    # Ties move masters and slaves together: there is no step that moves prescribed dofs alone.
    if fixed is None or ties_of(form.constraint) is not None or not bool(((u != jump) & fixed).any()):
        return jump, steps
    start, free = u, replace(form, constraint=Free(form.space), data=None)
    going = torch.ones_like(steps, dtype=torch.bool)  # neither loaded nor given up
    loaded = ~going
    for k in range(max_steps):
        held = replace(form, data=u)
        system = System(held, u, fixed, symmetric)
        if k == 0 and system.same_matrix(System(form, jump, fixed, symmetric)):
            return jump, steps
        going &= system.finite
        if not bool(going.any()):
            break
        rest = torch.where(fixed, jump - u, 0)
        prepared = linear.prepare(system)
        s = prepared.solve(-held.residual(u) - system.project(free.hessian_product(u, rest))) + rest
        effort.add(prepared, going)
        going &= ~prepared.singular & torch.isfinite(norm(s, lead))
        if minimum or not prepared.exact:
            going &= ~prepared.indefinite
        s = torch.where(per_item(going, s), s, 0)
        t, waiting = torch.ones_like(going, dtype=u.dtype), going.clone()
        for _ in range(HALVINGS):
            if not bool(waiting.any()):
                break
            whole = per_item(t == 1, u) & fixed
            trial = torch.where(whole, jump, u + per_item(t, u) * s)
            trial = trial if bounds is None else bounds.clamp(trial)
            here = waiting & finite(replace(form, data=trial).evaluate(trial), lead)
            u = torch.where(per_item(here, u), trial, u)
            steps += here
            loaded |= here & (t == 1)
            waiting &= ~here
            t = torch.where(waiting, t / 2, t)
        going &= ~waiting & ~loaded
        if not bool(going.any()):
            break
    before, after = form.evaluate(jump), form.evaluate(torch.where(per_item(loaded, u), u, start))
    better = ~(norm(before.residual, lead) < norm(after.residual, lead))
    loaded &= better | ~finite(before, lead)
    return torch.where(per_item(loaded, u), u, jump), torch.where(loaded, steps, 0)


def finite(state: FormValues, lead: int) -> Tensor:
    """Whether value and residual are, item by item."""
    found = torch.isfinite(norm(state.residual, lead))
    return found if state.value is None else found & torch.isfinite(state.value)
