"""One problem for each s, the tangent of their solutions, and the trail that a path leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy, Functional
from fem.forms.parameters import Parameter
from solvers.minimization import minimize, solve
from solvers.operators.system import LinearMethod, System
from solvers.solution import Solution

EASY = 4  # Newton steps: below, the next step along the path is longer
GROWTH = 1.6
SMALLEST = 1e-4  # of the first step; below, the path is given up


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


def tangent_at(problem: Problem, u: Tensor, s: float, linear: LinearMethod) -> Tensor | None:
    """u′ = −F_u⁻¹ F_s "*shape"; None where it is not finite."""
    prepared = linear.prepare(System(problem.form(s), u, None, isinstance(problem.at(s), Energy)))
    if bool(prepared.singular):
        return None
    found = prepared.solve(-problem.along(u, s))
    return found if bool(torch.isfinite(found).all()) else None


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
