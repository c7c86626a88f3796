"""Steps along a path that may turn back: s is an unknown, and the length of the path the step.

    F(u; s) = 0,    ⟨t, (u − u₀, s − s₀)⟩ = Δ,

by Newton's method on both equations, each of whose steps solves twice with F_u (bordering). ⟨·,·⟩ weighs u and s alike
as they move at the start. Folds are located by where the tangent's s vanishes.

Source: Keller, Numerical solution of bifurcation and nonlinear eigenvalue problems, in Applications of Bifurcation
Theory, Academic Press 1977; Allgower and Georg, Numerical Continuation Methods, Springer 1990.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fem.forms.energy import Energy
from fem.support.arithmetic import norm
from fem.support.status import Status
from solvers.continuation.problem import EASY, GROWTH, SMALLEST, Problem, Trail, tangent_at
from solvers.linear.direct import Direct
from solvers.newton import Newton
from solvers.operators.system import LinearMethod, System
from solvers.solution import Solution, default_rtol

HARD = 8  # Newton steps: more are too many for one step along the path


def arcs(trail: Trail, method: Any) -> Solution:
    """Steps along the path, around folds."""
    linear = (method.linear if isinstance(method, Newton) else method) or Direct()
    problem, h, smallest = trail.problem, trail.h, SMALLEST
    u, s, _ = trail.points[-1]
    tangent = tangent_at(problem, u, s, linear)
    if tangent is None:
        raise ValueError(f"the path has no tangent at its start, s = {s:g}: begin elsewhere with `span=`.")
    metric = Metric(1 / max(float(tangent.square().sum()), torch.finfo(u.dtype).tiny), 1.0)
    direction = metric.unit(tangent, 1.0 if h > 0 else -1.0)
    size = first = abs(h) * 2**0.5  # as long as that step of s is
    status = Status.CONVERGED
    while trail.more:
        found = around(problem, metric, (u, s), direction, size, linear)
        if found is None:
            size /= 2
            if size < smallest * first:
                status = Status.STALLED
                break
            continue
        v, t, onward, count = found
        turned = onward[1] * direction[1] < 0
        turn = fold(problem, metric, (u, s), direction, size, linear, onward) if turned else (v, t)
        passed = [(w, r) for w, r in (turn, (v, t)) if r != s and (r - trail.stop) * (s - trail.stop) <= 0]
        if passed:  # the end, before the fold or after it: exactly there, in a step of s
            w, r = passed[0]
            final = problem.solve(trail.stop, u + (trail.stop - s) / (r - s) * (w - u))
            away = final.value.detach() - u
            # The end of this very branch is no farther away than a step that turns by 60 degrees leads.
            if final.converged and metric.dot(away, trail.stop - s, away, trail.stop - s) <= (2 * size) ** 2:
                trail.add(final.value, trail.stop, int(final.iterations))
                return final
            size /= 2
            if size < smallest * first:
                status = Status.STALLED
                break
            continue
        if turned:
            trail.folds.append(turn)
        u, s, direction = v, t, onward
        trail.add(u, s, count)
        size = size * GROWTH if count < EASY else size
    last = problem.solve(trail.points[-1][1], trail.points[-1][0])
    return last if status is Status.CONVERGED else replace(last, status=status)


@dataclass(frozen=True)
class Metric:
    """⟨(u, s), (v, t)⟩ = a u·v + b s t."""

    a: float
    b: float

    def dot(self, u: Tensor, s: float, v: Tensor, t: float) -> float:
        return self.a * float((u * v).sum()) + self.b * s * t

    def unit(self, u: Tensor, sign: float) -> tuple[Tensor, float]:
        """(u, 1) scaled to length one, turned by the sign."""
        length = self.dot(u, 1.0, u, 1.0) ** 0.5
        return sign / length * u, sign / length


@torch.no_grad()
def around(
    problem: Problem,
    metric: Metric,
    start: tuple[Tensor, float],
    direction: tuple[Tensor, float],
    size: float,
    linear: LinearMethod,
) -> tuple[Tensor, float, tuple[Tensor, float], int] | None:
    """The point of the path at so much along its direction from a start, the direction there, and Newton's steps."""
    (u0, s0), (tu, ts) = start, direction
    u, s, rtol = u0 + size * tu, s0 + size * ts, default_rtol(u0.dtype)
    small = torch.finfo(u.dtype).eps ** 0.75
    for k in range(HARD + 1):
        form = problem.form(s)
        state = form.evaluate(u)
        if not bool(torch.isfinite(state.residual).all()):
            return None
        prepared = linear.prepare(System(form, u, None, isinstance(problem.at(s), Energy)))
        along = prepared.solve(-problem.along(u, s))
        relative = float(norm(state.residual, 0)) / max(float(norm(state.magnitude, 0)), torch.finfo(u.dtype).tiny)
        left = metric.dot(tu, ts, u - u0, s - s0) - size
        step = prepared.solve(-state.residual)
        shift = -(left + metric.a * float((tu * step).sum())) / (metric.a * float((tu * along).sum()) + metric.b * ts)
        step = step + shift * along
        if not bool(torch.isfinite(step).all()):
            return None
        moved = metric.dot(step, shift, step, shift) ** 0.5
        if relative <= 10 * rtol or moved <= small * size:
            onward = metric.unit(along, 1.0)
            if metric.dot(tu, ts, *onward) < 0:
                onward = -onward[0], -onward[1]
            # A turn by more than 60 degrees: the step went too far, perhaps onto another branch.
            return (u, s, onward, k) if metric.dot(tu, ts, *onward) > 0.5 else None
        u, s = u + step, s + shift
    return None


def fold(
    problem: Problem,
    metric: Metric,
    start: tuple[Tensor, float],
    direction: tuple[Tensor, float],
    size: float,
    linear: LinearMethod,
    onward: tuple[Tensor, float],
) -> tuple[Tensor, float]:
    """Where the path turns back between a start and the point at so much along it: the zero of the direction's s.

    By the Illinois method; s has an extremum there, so that half of the digits suffice for all of s.
    """
    left, right, below, above = 0.0, size, direction[1], onward[1]
    best = start
    for _ in range(60):
        middle = (left * above - right * below) / (above - below)
        found = around(problem, metric, start, direction, middle, linear)
        if found is None:
            break
        best, value = (found[0], found[1]), found[2][1]
        if abs(value) < 1e-9 * abs(direction[1]) or right - left < 1e-9 * size:
            break
        if value * below > 0:
            left, below, above = middle, value, above / 2
        else:
            right, above, below = middle, value, below / 2
    return best
