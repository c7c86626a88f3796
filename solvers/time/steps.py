"""The problem of one step: J, and functionals of the rates c (u − w), as one form that is solved like any other.

Factorisations and hierarchies are kept for the last few sets of numbers c, so that steps of one size, and halves of
them, share theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from fem.forms.constraints import Free
from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy, Functional, differentiated
from fem.forms.parameters import Parameter
from fem.support.checks import check_params
from fem.support.status import ConvergenceError, Status, flatten
from fem.support.transforms import outside_transforms, plainly, transformed
from solvers.adjoint import attach
from solvers.linear.choice import beyond_cells, default_linear
from solvers.minimization import Method, solution_of
from solvers.operators.system import LinearMethod, Prepared, System
from solvers.reuse import Reuse
from solvers.time.rates import Rates

KEPT = 2  # sets of numbers c: those of a whole step and of its halves
Params = Sequence[Parameter] | Callable[[float], Sequence[Parameter]]


@dataclass(eq=False)
class StepProblem:
    """J′(u; t) + Σ R_i′(c_i (u − w_i)) = 0 for some functional J and rates R_i.

    Attributes:
        light: whether graphs keep no matrix.
        singular: whether some field has no mass.
        saddle: the time from which a step is no minimum, but a stationary point.
    """

    problem: Functional
    rates: tuple[Rates, ...]
    params: Params
    solver: Method
    light: bool = False
    singular: bool = field(init=False)
    saddle: float = field(init=False)
    kept: dict[Any, Reuse] = field(default_factory=dict)
    form: DiscreteForm | None = None  # of J, while its parameters do not change

    def __post_init__(self):
        space = self.problem.space
        idle, *_ = [massless(rates) for rates in self.rates]
        parts = [not bool(part.all()) for part in space.split(idle)]
        if not any(parts):
            raise ValueError(
                "`evolve(mass=...)` is zero everywhere: nothing resists change. `minimize` solves J′(u) = 0."
            )
        self.singular = not all(parts)
        self.saddle = -inf if self.singular or not isinstance(self.problem, Energy) else inf

    def form_at(self, time: float) -> DiscreteForm:
        """J at a time."""
        if callable(self.params):
            return self.problem.discrete_form(check_params("evolve", self.params(time)), time)
        if self.form is None:
            self.form = self.problem.discrete_form(self.params, time)
        if not time_dependent(self.form):
            return self.form
        return replace(self.form, data=self.problem.constraint.data(time))  # pyright: ignore[reportCallIssue]

    def held(self, time: float, u: Tensor) -> Tensor:
        """u with its constraint at a time."""
        form = self.form_at(time)
        return form.constraint.insert(u, form.data)

    def solve(
        self, time: float, start: Tensor, *rates: tuple[Tensor, float], before: tuple[float, float] | None = None
    ) -> Tensor:
        """u "*b *shape" for w_i and c_i, iterations starting from `start`.

        With `before` = (t₀, α) the time is (1 − α) t + α t₀, and so are prescribed values.
        """
        form = self.form_at(time if before is None else (1 - before[1]) * time + before[1] * before[0])
        if before is not None and form.data is not None and time_dependent(form):
            ends = [self.problem.constraint.data(t) for t in (time, before[0])]  # pyright: ignore[reportCallIssue]
            form = replace(form, data=(1 - before[1]) * ends[0] + before[1] * ends[1])
        numbers = tuple(c for _, c in rates)
        changes = [r.form(w, c) for r, (w, c) in zip(self.rates, rates, strict=False)]
        form = replace(form, integrals=sum((f.integrals for f in changes), form.integrals))
        reuse = self.kept.pop(numbers, None) or Reuse()
        self.kept[numbers] = reuse
        while len(self.kept) > KEPT:
            self.kept.pop(next(iter(self.kept)))
        given = "evolve", self.problem, form, start.detach(), [None, None]
        if time < self.saddle:
            try:
                return solution_of(*given, (self.solver, True, reuse, True, True), self.light).value
            except ConvergenceError as error:
                if not {Status.SADDLE, Status.UNBOUNDED} & set(flatten(error.solution.status)):
                    raise
            self.saddle = time
        return solution_of(*given, (self.solver, True, reuse, False, True), self.light).value

    def rate(self, time: float, u: Tensor, *velocity: Tensor) -> Tensor:
        """v with R₀′(v) = −J′(u; t) − R₁′(velocity), for a quadratic R₀; zero at dofs prescribed or without mass.

        (What v is at prescribed dofs at first has no part in any method's u.)

        Raises:
            ValueError: R₀ is not quadratic, or singular where it is not zero.
        """
        now = self.form_at(time)
        b = -differentiated(now, DiscreteForm.residual, u)
        for damping, v in zip(self.rates[1:], velocity, strict=False):
            b = b - differentiated(damping.form(torch.zeros_like(v), 1.0), DiscreteForm.residual, v)
        form = replace(
            self.rates[0].form(torch.zeros_like(u), 1.0), constraint=now.constraint, data=self.rate_data(now, None)
        )
        symmetric, chosen = isinstance(self.problem, Energy), getattr(self.solver, "linear", self.solver)
        if not isinstance(chosen, LinearMethod):
            chosen = default_linear(form.space, symmetric, prod(form.full_batch(b)), beyond_cells(form))
        problem = MassProblem(self.rates[0], form, chosen, symmetric)
        tensors = [b, *form.tensors()]
        return plainly(problem.solution, tensors)[0] if transformed() else problem.solution(*tensors)[0]

    def velocity(self, time: float, size: float, v: Tensor) -> Tensor:
        """v, at prescribed dofs the rate of their values."""
        now = self.form_at(time)
        rate = None
        if now.data is not None and time_dependent(now):
            h = size * torch.finfo(v.dtype).eps ** (1 / 3)
            one, two = (self.problem.constraint.data(time + k * h) for k in (1, 2))  # pyright: ignore[reportCallIssue]
            rate = (4 * one - 3 * now.data - two) / (2 * h)
        return now.constraint.insert(v, self.rate_data(now, rate))

    def rate_data(self, form: DiscreteForm, rate: Tensor | None) -> Tensor | None:
        """What the constraint of rates is made of: those of prescribed values, zero where none are given."""
        fixed, data = form.constraint.fixed, form.data
        if fixed is None or data is None:
            return data
        return data.masked_fill(fixed, 0) if rate is None else torch.where(fixed, rate, data)


@torch.no_grad()
def massless(rates: Rates, form: DiscreteForm | None = None) -> Tensor:
    """True at dofs, of the shape of the space, where R (whose `form` may be known) has no second derivative.

    Raises:
        ValueError: one that is negative, or not finite.
    """
    space = rates.functional.space
    like = torch.linspace(0.5, 1, space.num_dofs, dtype=space.dtype, device=space.device).view(space.shape)
    form = rates.form(torch.zeros_like(like), 1.0).detach() if form is None else form
    if transformed():  # which cannot be looked into: any masses tell the fields
        form = form.with_tensors([torch.full(t.shape, 0.7, dtype=t.dtype, device=t.device) for t in form.tensors()])
    with outside_transforms():
        diagonal = System(form, like).diagonal.reshape(-1, *space.shape)
        if not bool((diagonal >= 0).all()):
            least = float(diagonal.min())
            raise ValueError(
                f"`evolve({rates.name}=...)` must be finite and not negative (of a functional R convex); the least "
                f"diagonal entry of its matrix is {least:.3g}."
            )
        return (diagonal == 0).all(0)


def time_dependent(form: DiscreteForm) -> bool:
    """Whether prescribed values change with time."""
    return getattr(form.constraint, "time_dependent", False)


@dataclass(eq=False)
class MassProblem:
    """R′(v) = b for a quadratic R, v = 0 where there is no mass, with tensors (b, *θ): see `adjoint.Problem`."""

    rates: Rates
    form: DiscreteForm
    method: LinearMethod
    symmetric: bool
    mask: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.bool))  # dofs without mass
    prepared: Prepared | None = None

    def residual(self, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        form = self.form.with_tensors(tensors[1:])
        return (form.residual(y) - form.constraint.project(tensors[0], form.data)).masked_fill(self.mask, 0)

    def product(self, y: Tensor, tensors: Sequence[Tensor], v: Tensor, transpose: bool) -> Tensor:
        product = self.form.with_tensors(tensors[1:]).hessian_product(y, v.masked_fill(self.mask, 0), transpose)
        return product.masked_fill(self.mask, 0)

    def system(self, y: Tensor, tensors: Sequence[Tensor]) -> System:
        form, fixed = self.form.with_tensors([t.detach() for t in tensors[1:]]), self.form.constraint.fixed
        if bool(self.mask.any()):
            fixed = self.mask if fixed is None else self.mask | fixed
        return System(form, y.detach(), fixed, self.symmetric)

    def solve(self, rhs: Tensor, y: Tensor, tensors: Sequence[Tensor], transpose: bool) -> Tensor:
        if self.prepared is None:
            self.prepared = self.method.prepare(self.system(y, tensors))
        return self.prepared.solve(rhs.masked_fill(self.mask, 0), None, transpose)

    def solution(self, *tensors: Tensor) -> tuple[Tensor]:
        """v "*b *shape", attached to the graph."""
        zero = torch.zeros_like(tensors[0])
        with torch.no_grad():
            first = self.system(zero, tensors)
            self.mask = massless(self.rates, replace(first.form, constraint=Free(first.form.space), data=None))
            first = self.system(zero, tensors)
            if not System(first.form, zero + 0.7, first.fixed, self.symmetric).same_matrix(first):
                raise ValueError(
                    "this method starts from u′ (u″), which takes a quadratic mass; `ImplicitEuler()`, `BDF2()` and "
                    "`CrankNicolson(damped=True)` take any."
                )
            value = self.solve(-self.residual(zero, tensors), zero, tensors, False)
            assert self.prepared is not None
            if bool(self.prepared.singular.any()) or not bool(torch.isfinite(value).all()):
                raise ValueError("the mass is singular: some rate has none. Give it a positive mass everywhere.")
        return (attach(self, value, tensors),)
