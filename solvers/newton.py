"""Newton's method with a line search, for a whole batch at once: minima of energies and zeros of weak forms.

One step solves a quadratic energy exactly. Otherwise the step is halved until the energy (for weak forms the residual)
falls enough; where the Hessian is indefinite the step is one of conjugate gradients, along a direction of negative
curvature if they meet one, which is then searched outward, and an energy that never stops falling is reported. Bounds
are handled by projection: dofs at a bound that the energy presses against it are held there, the others take a Newton
step (Bertsekas, Projected Newton methods, 1982).
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.discrete import DiscreteForm, FormValues
from fem.support.checks import check_integers, check_kind, check_numbers
from fem.support.status import Status
from solvers.linear.choice import default_linear
from solvers.linear.conjugate_gradients import CG
from solvers.operators.system import LinearMethod, Prepared, System
from solvers.reuse import Kept, Reuse
from solvers.solution import default_rtol, dot, norm, per_item

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


@dataclass(eq=False)
class Report:
    """What an iteration ended with, per batch item, and the last factorisation for the adjoint to use."""

    u: Tensor
    codes: Tensor  # index into STATUSES
    iterations: Tensor
    residual: Tensor
    active: Tensor | None = None
    prepared: Prepared | None = None
    kept: Kept | None = None  # the same, where the next solve may take it
    energy: Tensor | None = None
    detail: str = ""


STATUSES = list(Status)
RUNNING = len(STATUSES)  # no status: nothing takes an item that is left running for one that has ended
ROUND_OFF = 2  # residuals up to so many times their round-off count as zero


@dataclass(frozen=True, eq=False)
class Bounds:
    """lower ≤ u ≤ upper, dof by dof; either may be missing."""

    lower: Tensor | None
    upper: Tensor | None

    def clamp(self, u: Tensor) -> Tensor:
        if self.lower is not None:
            u = torch.maximum(u, self.lower)
        return u if self.upper is None else torch.minimum(u, self.upper)

    def active(self, u: Tensor, r: Tensor) -> Bool[Tensor, "..."]:
        """Dofs at a bound whose residual presses them against it."""
        found = torch.zeros_like(u, dtype=torch.bool)
        if self.lower is not None:
            found |= (u <= self.lower) & (r > 0)
        if self.upper is not None:
            found |= (u >= self.upper) & (r < 0)
        return found


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
    linear = method.linear or default_linear(form.space, symmetric and minimum, prod(u.shape[:lead]))
    u = form.constraint.insert(u, form.data)
    if bounds is not None:
        u = bounds.clamp(u)
    codes = torch.full(u.shape[:lead], RUNNING, device=u.device)
    report = Report(u, codes, torch.zeros_like(codes), torch.ones(u.shape[:lead], dtype=u.dtype, device=u.device))
    prepared: Prepared | None = None
    state = form.evaluate(u)
    for step in range(method.max_iterations + 1):
        r = state.residual
        fixed, report.active = form.constraint.fixed, None
        if bounds is not None:
            report.active = bounds.active(u, r)
            r = r.masked_fill(report.active, 0)
            fixed = report.active if fixed is None else report.active | fixed
        scale = norm(state.magnitude, lead)
        found = torch.where(scale > 0, norm(r, lead) / scale, norm(r, lead))
        report.residual = torch.where(codes == RUNNING, found, report.residual)
        finish(codes, ~torch.isfinite(report.residual), Status.NOT_FINITE)
        finish(codes, report.residual <= rtol, Status.CONVERGED)
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
        s = prepared.solve(-r, 0.3 * rtol * scale)
        if minimum and prepared.exact and bool((running & prepared.indefinite).any()):
            # H⁻¹ may point anywhere; conjugate gradients go downhill and find a direction of negative curvature.
            s = torch.where(per_item(prepared.indefinite, s), CG(rtol=1e-2).prepare(system).solve(-r), s)
        s = torch.where(per_item(running, s), s, 0)
        finish(codes, ~torch.isfinite(norm(s, lead)), Status.NOT_FINITE)
        if not minimum and not prepared.exact and bool((running & prepared.indefinite).any()):
            report.detail = " (conjugate gradients met negative curvature; use `Direct()`)"
            finish(codes, prepared.indefinite, Status.STALLED)
        if minimum:
            u, state = descend(form, u, s, r, state, codes, bounds, prepared.indefinite)
        else:
            u = reduce_residual(form, u, s, r, codes)
            state = form.evaluate(u)
        report.iterations += running
    if bounds is None and prepared is not None and method.rtol is None:
        u, state = refine(form, u, state, prepared, codes)
    if minimum and bool((codes == STATUSES.index(Status.CONVERGED)).any()):
        prepared = check_minimum(System(form, u, fixed), linear, codes, report, reuse, prepared, bounds)
    reuse.leave(report.kept)
    report.u, report.prepared, report.energy = u, prepared, state.value
    return report


def refine(
    form: DiscreteForm, u: Tensor, state: FormValues, prepared: Prepared, codes: Tensor
) -> tuple[Tensor, FormValues]:
    """One step of iterative refinement, kept where the residual falls: one more solve with factors, or a rough one.

    The assembled matrix carries round-off that a solution on a fine mesh amplifies by 1/h²; the residual does not.
    """
    lead, indefinite = u.ndim - len(form.space.shape), prepared.indefinite
    trial = u + prepared.solve(-state.residual, 1e-2 * norm(state.residual, lead))
    prepared.indefinite = indefinite  # curvature along round-off tells nothing
    after = form.evaluate(trial)
    better = norm(after.residual, lead) < norm(state.residual, lead)
    better &= codes == STATUSES.index(Status.CONVERGED)
    return torch.where(per_item(better, u), trial, u), chosen(better, after, state)


def chosen(items: Tensor, state: FormValues, other: FormValues) -> FormValues:
    """One state for some items, another for the rest."""
    if bool(items.all()):
        return state
    pick = lambda a, b: torch.where(per_item(items, a), a, b)  # noqa: E731
    value = None if state.value is None else pick(state.value, other.value)
    return FormValues(value, pick(state.residual, other.residual), pick(state.magnitude, other.magnitude))


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


def finish(codes: Tensor, items: Tensor, status: Status, kind: int = RUNNING) -> None:
    """Record the status of items that are still running (or of another kind)."""
    codes.masked_fill_((codes == kind) & items, STATUSES.index(status))


def settle(codes: Tensor, report: Report, size: Tensor, floor: Tensor) -> None:
    """Record convergence of items whose residual is nothing but round-off, and its size relative to ‖|H||u|‖ ≈ floor/ε.

    All contributions may be round-off too (a constant u), and then say nothing about its size.
    """
    items = (size <= ROUND_OFF * floor) & (codes == RUNNING)
    eps = torch.finfo(size.dtype).eps
    report.residual = torch.where(items & (floor > 0), eps * size / floor, report.residual)
    finish(codes, items, Status.CONVERGED)


def round_off(form: DiscreteForm, u: Tensor, r: Tensor, fixed: Tensor | None) -> Float[Tensor, "*b"]:
    """How far the residual moves when u does in its last digit: below this no u is better than another."""
    generator = torch.Generator(u.device).manual_seed(0)
    sign = torch.randint(0, 2, u.shape, generator=generator, device=u.device).to(u.dtype) * 2 - 1
    moved = form.residual(u * (1 + torch.finfo(u.dtype).eps * sign))
    difference = moved - r
    if fixed is not None:
        difference = difference.masked_fill(fixed, 0)
    return norm(difference, u.ndim - len(form.space.shape))


def descend(
    form: DiscreteForm,
    u: Tensor,
    s: Tensor,
    r: Tensor,
    state: FormValues,
    codes: Tensor,
    bounds: Bounds | None,
    indefinite: Tensor,
) -> tuple[Tensor, FormValues]:
    """A step along s that lowers the energy enough (Armijo), outward where the curvature is negative."""
    lead, energy = u.ndim - len(form.space.shape), state.value
    assert energy is not None
    slope = dot(r, s, lead)
    # sᵀHs = −sᵀr for a Newton step: uphill means negative curvature, and its opposite leads down.
    negative = (slope > 0) | (indefinite & (slope != 0))
    s = torch.where(per_item(slope > 0, s), -s, s)
    slope = -slope.abs()
    eps = torch.finfo(u.dtype).eps
    t = torch.where(codes == RUNNING, 1.0, 0.0).to(u.dtype)
    accepted, best, value = codes != RUNNING, u, energy
    for _ in range(40):
        trial = u + per_item(t, u) * s
        if bounds is not None:
            trial = bounds.clamp(trial)
        state = form.evaluate(trial)  # the first trial is accepted nearly always, and the next step starts from there
        found = state.value
        assert found is not None
        # Near the minimum the decrease drowns in the round-off of J.
        enough = (found - energy <= 1e-4 * t * slope + 10 * eps * energy.abs()) & torch.isfinite(found)
        new = enough & ~accepted
        all_new = bool(new.all())
        best = trial if all_new else torch.where(per_item(new, u), trial, best)
        value = torch.where(new, found, value)
        accepted = accepted | enough
        if bool(accepted.all()):
            break
        t = torch.where(accepted, t, t / 2)
    finish(codes, ~accepted, Status.STALLED)
    outward = negative & accepted & (codes == RUNNING)
    moved = not all_new or bool(outward.any())
    for _ in range(60):
        if not bool(outward.any()):
            break
        t = torch.where(outward, 4 * t, t)
        trial = u + per_item(t, u) * s
        if bounds is not None:
            trial = bounds.clamp(trial)
        found = form.value(trial)
        outward = outward & (found < value)
        best, value = torch.where(per_item(outward, u), trial, best), torch.where(outward, found, value)
    finish(codes, outward, Status.UNBOUNDED)
    return best, form.evaluate(best) if moved else state


def reduce_residual(form: DiscreteForm, u: Tensor, s: Tensor, r: Tensor, codes: Tensor) -> Tensor:
    """A step along s that lowers ‖r‖, for equations without an energy."""
    lead = u.ndim - len(form.space.shape)
    before, t = norm(r, lead), torch.where(codes == RUNNING, 1.0, 0.0).to(u.dtype)
    accepted, best = codes != RUNNING, u
    for _ in range(40):
        trial = u + per_item(t, u) * s
        after = norm(form.residual(trial), lead)
        # At round-off level the residual cannot fall; one such step is harmless and lets the caller see it.
        enough = (after <= (1 - 1e-4 * t) * before) | (t * norm(s, lead) <= 1e-10 * norm(u, lead))
        new = enough & ~accepted & torch.isfinite(after)
        best, accepted = torch.where(per_item(new, u), trial, best), accepted | new
        if bool(accepted.all()):
            break
        t = torch.where(accepted, t, t / 2)
    finish(codes, ~accepted, Status.STALLED)
    return best
