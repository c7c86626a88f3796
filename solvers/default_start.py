"""Where to start when nobody says so and zero will not do: energies whose Hessian does not exist or vanishes there.

|∇u|^p is no parabola at ∇u = 0: for p < 2 its slopes have none of their own there, for p > 2 the Hessian is zero. The
start is then the best of

    h + c w,    −Δh = 0,  −Δw = 1,    h with the prescribed values of u, w = 0 there,    c = 0, ±10^{−3}, …, ±10³,

whose gradient vanishes in single points at most: that with the lowest energy, item by item.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy
from fem.space.space import FunctionSpace
from fem.support.arithmetic import per_item
from fem.support.status import Status
from solvers.newton import Newton, newton
from solvers.report import STATUSES

HALF_DECADES = range(-6, 7)  # of c


def laplace(x: Tensor, u: Tensor, grad_u: Tensor, load: float) -> Tensor:
    """½|∇u|² − f u."""
    return 0.5 * grad_u.square().sum(-1) - load * u


def laplaces(x: Tensor, u: Tensor, grad_u: Tensor, load: float) -> Tensor:
    """The same for each component."""
    return laplace(x, u, grad_u, load).sum(-1)


@torch.no_grad()
def smooth_start(form: DiscreteForm, u: Tensor) -> Tensor | None:
    """The start "*b *shape" for a form of such a batch as u has; None where there is none of finite energy.

    So it is of spaces that know no ∇u, and where Laplace's equation leaves something undetermined too.
    """
    space = form.space
    if not isinstance(space, FunctionSpace) or space.moments is not None or space.continuity < 0:
        return None
    energy, found = Energy(space, laplace if space.components is None else laplaces, form.constraint), []
    for load in (0.0, 1.0):
        own = replace(energy.discrete_form((load,)).detach(), data=form.data)
        report = newton(own, torch.zeros_like(u), Newton())
        if not bool((report.codes == STATUSES.index(Status.CONVERGED)).all()):
            return None
        found.append(report.u)
    h, w = found[0], found[1] - found[0]
    best, least = h, torch.full(form.full_batch(u), float("inf"), dtype=u.dtype, device=u.device)
    for c in (0.0, *(sign * 10 ** (k / 2) for k in HALF_DECADES for sign in (1, -1))):
        value = form.value(h + c * w)
        better = value < least  # false where it is NaN
        best, least = torch.where(per_item(better, u), h + c * w, best), torch.where(better, value, least)
    return best if bool(torch.isfinite(least).all()) else None
