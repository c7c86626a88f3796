"""Newton's method with a line search, for a whole batch at once: minima of energies and zeros of weak forms.

One step solves a quadratic energy exactly. Otherwise the step is halved until the energy (for weak forms the residual)
falls enough; where the Hessian is indefinite the step is one of conjugate gradients, along a direction of negative
curvature if they meet one, which is then searched outward, and an energy that never stops falling is reported. Bounds
are handled by projection: dofs at a bound that the energy presses against it are held there, the others take a Newton
step (Bertsekas, Projected Newton methods, 1982).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.support.arithmetic import norm, per_item
from fem.support.checks import check_integers, check_kind, check_numbers
from fem.support.status import Status
from solvers.line_search import Bounds, Line, State, chosen, descend, reduce_residual
from solvers.linear.blocks.saddle_point import PreparedSaddlePoint
from solvers.linear.choice import default_method
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.linear.multigrid import Multigrid
from solvers.load_step import load
from solvers.operators.system import LinearMethod, Prepared, System
from solvers.report import RUNNING, STATUSES, Effort, Report, finish, finish_small, round_off, settle
from solvers.reuse import Kept, Reuse
from solvers.solution import default_rtol

LINEAR = "a linear method, `Direct()`, `CG()`, `Multigrid()`, `AlgebraicMultigrid()`, …, or None"


@dataclass(frozen=True)
class Newton:
    """Newton's method.

    Args:
        linear: `Multigrid()`, `AlgebraicMultigrid()`, `Direct()` or `CG()`; by default multigrid on grids beyond
            some thousand dofs, a factorisation where that is cheap, else one of the others
            (`solvers/linear/choice.py`).
        rtol: stop at this relative residual (see `Solution.residual`); 1e-12 in float64, 1e-5 in float32.
        max_iterations: at most this many steps; 0 looks at the start and no further.

    Raises:
        ValueError, TypeError: settings out of range, or `linear` that is no linear method.
    """

    linear: LinearMethod | None = None
    rtol: float | None = None
    max_iterations: int = 50

    def __post_init__(self):
        if self.linear is not None:
            check_kind("Newton", "linear", self.linear, LinearMethod, LINEAR)
        check_numbers("Newton", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("Newton", 0, max_iterations=self.max_iterations)


def newton(
    form: DiscreteForm,
    u: Tensor,
    method: Newton,
    symmetric: bool = True,
    minimum: bool = True,
    bounds: Bounds | None = None,
    reuse: Reuse | None = None,
) -> Report:
    """Iterate from u "*b *shape" (of the full batch) to a stationary point; `minimum` asks for a minimum."""
    reuse = reuse or Reuse()
    lead = u.ndim - len(form.space.shape)
    rtol = default_rtol(u.dtype) if method.rtol is None else method.rtol
    linear = method.linear or default_method(form, u, symmetric, minimum)
    effort = Effort.none(u, u.shape[:lead])
    if isinstance(linear, Multigrid):
        linear.ahead(form, u)
    u, steps = load(form, u, linear, symmetric, minimum, bounds, method.max_iterations, effort)
    codes = torch.full(u.shape[:lead], RUNNING, device=u.device)
    report = Report(u, codes, steps, u.new_ones(u.shape[:lead]), effort)
    prepared: Prepared | None = None
    state = State.of(form, u)
    if state.value is not None:  # no step leads to such a place, and none from there is worth a try
        finish(codes, ~torch.isfinite(state.value), Status.NOT_FINITE)
    for step in range(int(steps.max()) if steps.numel() else 0, method.max_iterations + 1):
        r = state.residual
        fixed, report.active = form.constraint.fixed, None
        if bounds is not None:
            report.active = bounds.active(u, r)
            r = r.masked_fill(report.active, 0)
            fixed = report.active if fixed is None else report.active | fixed
        scale = state.scale
        found = torch.where(scale > 0, norm(r, lead) / scale, norm(r, lead))
        report.residual = torch.where(codes == RUNNING, found, report.residual)
        finish(codes, ~torch.isfinite(report.residual), Status.NOT_FINITE)
        finish_small(codes, report, form, u, scale, rtol)
        if step and bool((codes == RUNNING).any()):
            settle(codes, report, norm(r, lead), round_off(form, u, r, fixed))
        if not bool((codes == RUNNING).any()):
            break
        if step == method.max_iterations:
            finish(codes, codes == RUNNING, Status.MAX_ITERATIONS)
            break
        system = System(form, u, fixed, symmetric)
        if prepared is not None and not system.same_matrix(prepared.system):
            prepared = report.kept = None  # before another is made
        if prepared is None:
            prepared = prepare(system, linear, codes, report, reuse)
        if prepared is None:
            break
        running = codes == RUNNING
        s = -prepared.solve(r, 0.3 * rtol * scale)
        effort.add(prepared, running)
        if minimum and prepared.exact and bool((running & prepared.indefinite).any()):
            # H⁻¹ may point anywhere; conjugate gradients go downhill and find a direction of negative curvature.
            downhill = PreparedCG(system, CG(rtol=1e-2))
            s = torch.where(per_item(prepared.indefinite, s), downhill.solve(-r), s)
            effort.add(downhill, running & prepared.indefinite)
        if isinstance(prepared, PreparedSaddlePoint) and bool((running & prepared.unsolved).any()):
            report.detail = " (the linear iteration got stuck: `Direct()` may solve it, or say that it is singular)"
            finish(codes, prepared.unsolved, Status.STALLED)
        if not bool(running.all()):
            s = torch.where(per_item(running, s), s, 0)
        finish(codes, ~torch.isfinite(norm(s, lead)), Status.NOT_FINITE)
        if not minimum and not prepared.exact and bool((running & prepared.indefinite).any()):
            report.detail = " (conjugate gradients met negative curvature; use `Direct()`)"
            finish(codes, prepared.indefinite, Status.STALLED)
        line = Line(form, u, s, state, fixed, bounds)
        if minimum:
            u, state = descend(line, r, codes, prepared.indefinite)
        else:
            u = reduce_residual(line, r, codes)
            state = State.of(form, u)
        report.iterations += running
        del line, s, r, system  # they keep the last state alive
    if bounds is None and prepared is not None and method.rtol is None:
        u, state = refine(form, u, state, prepared, codes, effort)
    if minimum and bool((codes == STATUSES.index(Status.CONVERGED)).any()):
        prepared = check_minimum(System(form, u, fixed), linear, codes, report, reuse, prepared, bounds)
    reuse.leave(report.kept)
    report.u, report.prepared, report.energy = u, prepared, state.value
    return report


def refine(
    form: DiscreteForm, u: Tensor, state: State, prepared: Prepared, codes: Tensor, effort: Effort
) -> tuple[Tensor, State]:
    """One step of iterative refinement, kept where the residual falls: one more solve with factors, or a rough one.

    The assembled matrix carries round-off that a solution on a fine mesh amplifies by 1/h²; the residual does not.
    """
    lead, indefinite = u.ndim - len(form.space.shape), prepared.indefinite
    trial = u - prepared.solve(state.residual, 1e-2 * norm(state.residual, lead))
    prepared.indefinite = indefinite  # curvature along round-off tells nothing
    after, converged = State.of(form, trial), codes == STATUSES.index(Status.CONVERGED)
    effort.add(prepared, converged)
    better = converged & (norm(after.residual, lead) < norm(state.residual, lead))
    u = trial if bool(better.all()) else torch.where(per_item(better, u), trial, u)
    return u, chosen(better, after, state)


def prepare(
    system: System, linear: LinearMethod, codes: Tensor, report: Report, reuse: Reuse, kind: int = RUNNING
) -> Prepared | None:
    """The system made ready, or None if no item of that kind is left: some fail before, or in the factorisation."""
    report.kept = reuse.take(system, linear)
    if report.kept is not None:
        return report.kept.prepared
    directions, lost = system.unconstrained_directions(), torch.zeros_like(codes, dtype=torch.bool)
    for _, undetermined in directions:
        lost |= undetermined
    prepared = None if bool(lost.all()) else linear.prepare(system)
    finish(codes, ~system.finite, Status.NOT_FINITE, kind)  # after `prepare`, which leaves what tells that at no cost
    for name, undetermined in directions:
        if bool((undetermined & (codes == kind)).any()):
            report.detail = f" (nothing determines the {name})"
        finish(codes, undetermined, Status.SINGULAR, kind)
    if prepared is None:
        return None
    finish(codes, prepared.singular, Status.SINGULAR, kind)
    if bool((system.finite & ~lost & ~prepared.singular).all()):
        report.kept = Kept.of(prepared, linear)
    return prepared if bool((codes == kind).any()) else None


def check_minimum(
    system: System,
    linear: LinearMethod,
    codes: Tensor,
    report: Report,
    reuse: Reuse,
    prepared: Prepared | None,
    bounds: Bounds | None,
) -> Prepared | None:
    """Tell minima from other stationary points by the signs of the Hessian's eigenvalues there, where they are known.

    An energy with a negative one whose Hessian is the same elsewhere too is quadratic, and falls without end.
    """
    converged = STATUSES.index(Status.CONVERGED)
    stale = prepared is not None and bool(prepared.indefinite.any()) and not system.same_matrix(prepared.system)
    if prepared is None or stale:
        prepared = report.kept = None
        prepared = prepare(system, linear, codes, report, reuse, converged)
    if prepared is None or not bool(prepared.indefinite.any()):
        return prepared
    elsewhere = System(system.form, 2 * system.u + 1, system.fixed)
    quadratic = bounds is None and elsewhere.same_matrix(system)
    finish(codes, prepared.indefinite, Status.UNBOUNDED if quadratic else Status.SADDLE, converged)
    return prepared
