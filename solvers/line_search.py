"""Line searches along a Newton step, for a whole batch at once: downhill for energies, towards a smaller residual else.

Near a minimum the decrease of J drowns in the round-off of J, which is that of the density's own arithmetic: F − I is
small, F is not, and |J| says nothing of it. There the slopes decide, which keep their digits twice as long (Hager and
Zhang, A new conjugate gradient method with guaranteed descent, 2005). Where a full step leaves a residual that is
noise as well, no u is better than another, and the item has converged.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.support.arithmetic import dot, norm, per_item
from fem.support.status import Status
from solvers.report import ROUND_OFF, RUNNING, finish


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


@dataclass(frozen=True, eq=False)
class State:
    """What a form is at some u: J "*b" (None for weak forms), ∂J/∂u, and the size "*b" beside which that is small."""

    value: Tensor | None
    residual: Tensor
    scale: Tensor

    @classmethod
    def of(cls, form: DiscreteForm, u: Tensor) -> "State":
        found = form.evaluate(u)
        return cls(found.value, found.residual, norm(found.magnitude, u.ndim - len(form.space.shape)))


def chosen(items: Tensor, state: State, other: State) -> State:
    """One state for some items, another for the rest."""
    if bool(items.all()):
        return state
    pick = lambda a, b: torch.where(per_item(items, a), a, b)  # noqa: E731
    value = None if state.value is None else pick(state.value, other.value)
    return State(value, pick(state.residual, other.residual), pick(state.scale, other.scale))


@dataclass(frozen=True, eq=False)
class Line:
    """A Newton step s "*b *shape" from u, where the form has the values `state` and some dofs are held fixed."""

    form: DiscreteForm
    u: Tensor
    s: Tensor
    state: State
    fixed: Tensor | None
    bounds: Bounds | None = None

    @property
    def lead(self) -> int:
        return self.u.ndim - len(self.form.space.shape)

    def at(self, t: Tensor | float) -> Tensor:
        trial = torch.addcmul(
            self.u, per_item(torch.as_tensor(t, dtype=self.u.dtype, device=self.u.device), self.u), self.s
        )
        return trial if self.bounds is None else self.bounds.clamp(trial)

    def free(self, r: Tensor) -> Tensor:
        """A residual at the dofs that may move."""
        return r if self.fixed is None else r.masked_fill(self.fixed, 0)

    def settled(self, r: Tensor, after: Tensor) -> Bool[Tensor, "*b"]:
        """Whether the residual is nothing but round-off before the full step, so that it cannot fall.

        Newton's step leaves next to nothing of a residual that is small already. Where much is left, the second
        difference of r along the step tells why, over all of it and over four times as much: noise is the same in both,
        while a residual that bends, as near a fold, bends sixteen times as much. (Unless it levels off so far away, but
        steps that move u by more than a tenth are none of round-off.)
        """
        size, scale = norm(r, self.lead), self.state.scale
        stuck = (norm(after, self.lead) > 0.1 * size) & (size <= torch.finfo(r.dtype).eps ** 0.25 * scale)
        stuck &= norm(self.s, self.lead) <= 0.1 * norm(self.u, self.lead)
        if bool(stuck.any()):
            middle, twice, far = [self.free(self.form.residual(self.at(t))) for t in (0.5, 2.0, 4.0)]
            noise = norm(r - 2 * middle + after, self.lead)
            stuck &= (size <= ROUND_OFF * noise) & (norm(r - 2 * twice + far, self.lead) <= 4 * noise)
        return stuck

    def noise(self, t: Tensor, value: Tensor, before: Tensor, slope: Tensor) -> Float[Tensor, "*b"]:
        """The round-off of J about u + t s: how far it is from the parabola of its slopes at both ends of the step.

        So near the end a third derivative counts for a tenth of what it would take to hide a rise of J.
        """
        found = torch.finfo(value.dtype).eps * value.abs()
        for h in (-1 / 8, -1 / 16, 1 / 16, 1 / 8):
            parabola = value + h * t * (slope + h / 2 * (slope - before))
            found = torch.maximum(found, (self.form.value(self.at((1 + h) * t)) - parabola).abs())
        return found


def descend(line: Line, r: Tensor, codes: Tensor, indefinite: Tensor) -> tuple[Tensor, State]:
    """A step along s that lowers the energy enough (Armijo), outward where the curvature is negative."""
    form, u, s, lead, energy = line.form, line.u, line.s, line.lead, line.state.value
    assert energy is not None
    slope = dot(r, s, lead)
    # sᵀHs = −sᵀr for a Newton step: uphill means negative curvature, and its opposite leads down.
    negative = (slope > 0) | (indefinite & (slope != 0))
    line = replace(line, s=torch.where(per_item(slope > 0, s), -s, s))
    slope = -slope.abs()
    eps, size = torch.finfo(u.dtype).eps, norm(r, lead)
    t = torch.where(codes == RUNNING, 1.0, 0.0).to(u.dtype)
    accepted, best, value = codes != RUNNING, u, energy
    for k in range(40):
        trial = line.at(t)
        state = State.of(form, trial)  # the first trial is accepted nearly always, and the next step starts from there
        found, after = state.value, line.free(state.residual)
        assert found is not None
        enough = (found - energy <= 1e-4 * t * slope + 10 * eps * energy.abs()) & torch.isfinite(found)
        left = norm(after, lead)
        if k == 0:
            settled = ~accepted & ~negative & line.settled(r, after)
            finish(codes, settled, Status.CONVERGED)
            accepted = accepted | settled
            better = settled & (left < size)
            best, value = torch.where(per_item(better, u), trial, best), torch.where(better, found, value)
        doubtful = ~enough & ~accepted & (left <= (1 - t / 2) * size)
        if bool(doubtful.any()):
            end = dot(after, line.s, lead)
            doubtful &= end <= -(1 - 2e-4) * slope
            enough |= doubtful & (found - energy <= 10 * line.noise(t, found, slope, end))
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
        trial = line.at(t)
        found = form.value(trial)
        outward = outward & (found < value)
        best, value = torch.where(per_item(outward, u), trial, best), torch.where(outward, found, value)
    finish(codes, outward, Status.UNBOUNDED)
    return best, State.of(form, best) if moved else state


def reduce_residual(line: Line, r: Tensor, codes: Tensor) -> Tensor:
    """A step along s that lowers ‖r‖, for equations without an energy."""
    u, s, lead = line.u, line.s, line.lead
    before, t = norm(r, lead), torch.where(codes == RUNNING, 1.0, 0.0).to(u.dtype)
    accepted, best = codes != RUNNING, u
    for k in range(40):
        trial = line.at(t)
        residual = line.free(line.form.residual(trial))
        after = norm(residual, lead)
        # At round-off level the residual cannot fall; one such step is harmless and lets the caller see it.
        enough = (after <= (1 - 1e-4 * t) * before) | (t * norm(s, lead) <= 1e-10 * norm(u, lead))
        if k == 0:
            settled = ~accepted & line.settled(r, residual)
            finish(codes, settled, Status.CONVERGED)
            accepted, enough = accepted | (settled & (after >= before)), enough | settled
        new = enough & ~accepted & torch.isfinite(after)
        best, accepted = torch.where(per_item(new, u), trial, best), accepted | new
        if bool(accepted.all()):
            break
        t = torch.where(accepted, t, t / 2)
    finish(codes, ~accepted, Status.STALLED)
    return best
