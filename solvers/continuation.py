"""Large loads: solutions along a path of problems, in steps as long as Newton's method stands, and around folds.

`follow` solves F(u; s) = 0 from one s to another. In steps of s the next start is predicted along the path's tangent,

    u(s + h) ≈ u + h u′,    F_u u′ = −F_s,

a step is halved where Newton's method fails and lengthened where it is easy. At a fold, where the path turns back, no
step of s leads on: there (`arc_length=True`) s becomes an unknown, and steps are measured along the path,

    F(u; s) = 0,    ⟨t, (u − u₀, s − s₀)⟩ = Δ,

by Newton's method on both equations, each of whose steps solves twice with F_u (bordering). ⟨·,·⟩ weighs u and s alike
as they move at the start. Folds are located by where the tangent's s vanishes.

Source: Keller, Numerical solution of bifurcation and nonlinear eigenvalue problems, in Applications of Bifurcation
Theory, Academic Press 1977; Allgower and Georg, Numerical Continuation Methods, Springer 1990.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy, Functional, WeakForm
from fem.forms.parameters import Parameter
from fem.support.arithmetic import norm
from fem.support.checks import check_callable, check_flags, check_integers, check_kind, check_numbers, shown
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError, Status
from solvers.linear.direct import Direct
from solvers.minimization import Method, minimize, solve
from solvers.newton import Newton
from solvers.operators.system import LinearMethod, System
from solvers.solution import Solution, default_rtol

EASY, HARD = 4, 8  # Newton steps: below, the next step is longer; more are too many where s is an unknown too
GROWTH = 1.6
SMALLEST = 1e-4  # of the first step; below, the path is given up


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions along a path.

    Attributes:
        values: dofs "t *shape", without gradient.
        parameters: s "t", not monotonic around folds.
        solution: the last one, at the last s; its value differentiates as that of `minimize`.
        status: `CONVERGED` where the end was reached; else how the step ended that could not be made.
        folds: s "k" where the path turns back, and `fold_values` "k *shape" there; only with `arc_length=True`.
        iterations: Newton steps "t" of each.
    """

    values: Tensor
    parameters: Float[Tensor, "t"]
    solution: Solution
    status: Status
    folds: Float[Tensor, "k"]
    fold_values: Tensor
    iterations: Tensor

    @property
    def value(self) -> Tensor:
        """The last solution."""
        return self.solution.value

    def __repr__(self) -> str:
        turns = f", folds at s = {', '.join(f'{float(s):.6g}' for s in self.folds)}" if len(self.folds) else ""
        first, last = float(self.parameters[0]), float(self.parameters[-1])
        return f"Path({self.status.name}; {len(self.parameters)} solutions from s = {first:g} to {last:g}{turns})"


@dataclass(frozen=True)
class Problem:
    """F(u; s): the functional at s, and its parameters."""

    functional: Functional | Callable[[float], Functional]
    params: Callable[[Any], Sequence[Parameter]]
    minimum: bool
    method: Any

    def at(self, s: float) -> Functional:
        return self.functional if isinstance(self.functional, Functional) else self.functional(s)

    def solve(self, s: float, initial: Tensor | None) -> Solution:
        """At one s."""
        functional = self.at(s)
        if self.minimum and isinstance(functional, Energy):
            return minimize(functional, self.params(s), initial, self.method, throw=False)
        return solve(functional, self.params(s), initial, self.method, throw=False)

    def form(self, s: float | Tensor) -> DiscreteForm:
        return self.at(float(s.detach()) if isinstance(s, Tensor) else s).discrete_form(self.params(s))

    def along(self, u: Tensor, s: float) -> Tensor:
        """F_s, by differentiating through the parameters where s as a tensor makes them, else by a difference."""
        with torch.enable_grad():
            t = torch.tensor(s, dtype=u.dtype, device=u.device, requires_grad=True)
            try:
                r = self.form(t).residual(u)
            except TypeError:  # parameters that need a number
                r = u.new_zeros(())
            if r.requires_grad:
                v = torch.zeros_like(r, requires_grad=True)
                (slope,) = torch.autograd.grad(r, t, v, create_graph=True, allow_unused=True)
                if slope is not None and slope.requires_grad:
                    return torch.autograd.grad(slope, v)[0].detach()
        h = 1e-6 * max(abs(s), 1.0)
        with torch.no_grad():
            return (self.form(s + h).residual(u) - self.form(s - h).residual(u)) / (2 * h)


@outside_modes
def follow(
    functional: Functional | Callable[[float], Functional],
    params: Callable[[Any], Sequence[Parameter]] = lambda s: (),
    span: tuple[float, float] = (0.0, 1.0),
    step: float | None = None,
    initial: Tensor | None = None,
    method: Method | None = None,
    arc_length: bool = False,
    max_steps: int = 200,
    until: Callable[[Tensor, float], bool] | None = None,
    throw: bool = True,
) -> Path:
    """Solutions of a path of problems from one s to another, one problem at a time (no batches).

    Args:
        functional: an `Energy` or `WeakForm`, or `lambda s: ...` that makes one over the same space, for prescribed
            values that depend on s.
        params: `lambda s: (...)`, the parameters at s. s comes as a number, and as a tensor where the path's tangent is
            taken: `s * load` serves both.
        span: the first s and the last.
        step: of s at first; a tenth of the span by default. With `arc_length` the length of path that it is there.
        initial: dofs to start from at the first s; zero by default.
        method: for each solve, as for `minimize`. With `arc_length` stationary points are followed, stable or not, and
            linear systems are factorised, or solved by the method's `linear`.
        arc_length: go around folds.
        max_steps: solutions at most.
        until: `lambda u, s: ...`; the path ends where that is true.
        throw: raise where the end is not reached; False returns the path as far as it goes.

    Returns:
        The `Path`; with an energy, minima (stationary points with `arc_length`).

    Raises:
        ConvergenceError: with the path as `.solution`, and how far it came.
        ValueError, TypeError: settings out of range, a batch.
    """
    if not isinstance(functional, Functional) and not callable(functional):
        raise TypeError(f"`follow` takes an `Energy`, a `WeakForm`, or a callable of s; got {shown(functional)}.")
    check_callable("follow", "params", params, "a callable of s that returns the parameters")
    check_callable("follow", "until", until, "a callable of u and s, or None", optional=True)
    check_flags("follow", throw=throw, arc_length=arc_length)
    check_integers("follow", max_steps=max_steps)
    if not isinstance(span, tuple | list) or len(span) != 2 or span[0] == span[1]:
        raise ValueError(f"`follow(span=...)` must be two different numbers, the first s and the last; got {span!r}.")
    start, stop = map(float, span)
    check_numbers("follow", "finite", start=start, stop=stop)
    check_numbers("follow", "positive", optional=True, step=step)
    h = (0.1 * abs(stop - start) if step is None else float(step)) * (1 if stop > start else -1)
    problem = Problem(functional, params, not arc_length, method)
    check_kind("follow", "functional", problem.at(start), Energy | WeakForm, "an `Energy` or a `WeakForm` at each s")
    space = problem.at(start).space
    first = problem.solve(start, initial)
    if first.iterations.ndim:
        raise ValueError(
            f"`follow` takes one problem at a time; here is a batch of shape {tuple(first.iterations.shape)}."
        )
    points: list[tuple[Tensor, float, int]] = [(first.value.detach(), start, int(first.iterations))]
    folds: list[tuple[Tensor, float]] = []
    trail = Trail(problem, points, folds, stop, h, max_steps, until)
    solution = first
    if first.converged:
        solution = arcs(trail, method) if arc_length else steps(trail, first)
    reached = solution.status if solution.status is not Status.CONVERGED or trail.done else Status.MAX_ITERATIONS
    path = Path(
        torch.stack([u for u, *_ in points]),
        torch.tensor([s for _, s, _ in points], dtype=space.dtype, device="cpu"),
        solution,
        reached,
        torch.tensor([s for _, s in folds], dtype=space.dtype, device="cpu"),
        torch.stack([u for u, _ in folds]) if folds else points[0][0].new_empty(0, *space.shape),
        torch.tensor([k for *_, k in points], device="cpu"),
    )
    if throw and path.status is not Status.CONVERGED:
        end = points[-1][1] if first.converged else None
        where = "did not solve at the first s" if end is None else f"came from s = {start:g} to {end:g} of {stop:g}"
        hint = (
            "" if arc_length or end is None else " Where the path turns back, `arc_length=True` goes around the fold."
        )
        raise ConvergenceError(
            f"`follow` {where} in {len(points)} solutions: {path.status}.{hint} `throw=False` returns the path.", path
        )
    return path


@dataclass(eq=False)
class Trail:
    """The path so far, and where it goes."""

    problem: Problem
    points: list[tuple[Tensor, float, int]]
    folds: list[tuple[Tensor, float]]
    stop: float
    h: float
    max_steps: int
    until: Callable[[Tensor, float], bool] | None
    done: bool = False

    def add(self, u: Tensor, s: float, iterations: int) -> None:
        self.points.append((u.detach(), s, iterations))
        self.done = s == self.stop or (self.until is not None and bool(self.until(u.detach(), s)))

    @property
    def more(self) -> bool:
        return not self.done and len(self.points) < self.max_steps


def steps(trail: Trail, solution: Solution) -> Solution:
    """Steps of s; the last solution that was found, or the one that was not."""
    h, smallest = trail.h, SMALLEST * abs(trail.h)
    while trail.more:
        _, s, _ = trail.points[-1]
        last = abs(trail.stop - s) <= abs(h) * (1 + 1e-9)
        to = trail.stop if last else s + h
        found = trail.problem.solve(to, predicted(trail, to))
        if found.converged:
            solution = found
            trail.add(found.value, to, int(found.iterations))
            h = h * GROWTH if int(found.iterations) < EASY else h
        elif abs(h) / 2 < smallest:
            return found
        else:
            h = (to - s) / 2
    return solution


@torch.no_grad()
def predicted(trail: Trail, to: float) -> Tensor:
    """u + (to − s) u′, or u where the problem's space of admissible u changes along the path or u′ is not finite."""
    u, s, _ = trail.points[-1]
    problem = trail.problem
    if not isinstance(problem.functional, Functional):
        if len(trail.points) < 2:
            return u
        before, then, _ = trail.points[-2]
        return u + (to - s) / (s - then) * (u - before)
    tangent = tangent_at(problem, u, s, Direct()) if u.device.type == "cpu" else None
    guess = u if tangent is None else u + (to - s) * tangent
    value = None if not isinstance(problem.functional, Energy) else problem.form(to).value(guess)
    return guess if value is None or bool(torch.isfinite(value)) else u


def tangent_at(problem: Problem, u: Tensor, s: float, linear: LinearMethod) -> Tensor | None:
    """u′ = −F_u⁻¹ F_s "*shape"; None where it is not finite."""
    prepared = linear.prepare(System(problem.form(s), u, None, isinstance(problem.at(s), Energy)))
    if bool(prepared.singular):
        return None
    found = prepared.solve(-problem.along(u, s))
    return found if bool(torch.isfinite(found).all()) else None


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
        if (t - trail.stop) * (s - trail.stop) <= 0 and t != s:  # past the end: exactly there, in a step of s
            final = problem.solve(trail.stop, u + (trail.stop - s) / (t - s) * (v - u))
            if final.converged:
                trail.add(final.value, trail.stop, int(final.iterations))
                return final
        if onward[1] * direction[1] < 0:
            trail.folds.append(fold(problem, metric, (u, s), direction, size, linear, onward))
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
