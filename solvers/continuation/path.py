"""Large loads: solutions along a path of problems, in steps as long as Newton's method stands.

`follow` solves F(u; s) = 0 from one s to another. The next start is predicted along the path's tangent,

    u(s + h) ≈ u + h u′,    F_u u′ = −F_s,

a step is halved where Newton's method fails and lengthened where it is easy. At a fold, where the path turns back, no
step of s leads on: `solvers.continuation.arc_length` goes around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.energy import Energy, Functional, WeakForm
from fem.forms.parameters import Parameter
from fem.support.checks import check_callable, check_flags, check_integers, check_kind, check_numbers, shown
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError, Status
from solvers.continuation.arc_length import arcs
from solvers.continuation.problem import EASY, GROWTH, SMALLEST, Problem, Trail, tangent_at
from solvers.linear.direct import Direct
from solvers.minimization import Method
from solvers.solution import Solution


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
