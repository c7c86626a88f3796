"""The entry points: `minimize` an energy, `solve` for a stationary point or a weak form.

Both lower the problem to tensors at quadrature points, solve it detached, and attach the solution to the graph through
the implicit adjoint, so that it differentiates in every parameter, in the prescribed values and in the mesh nodes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import inf, prod
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fem.constraints.fixed_dofs import FixedDofs
from fem.constraints.rigid_motion import RigidMotionFree
from fem.constraints.ties import ties_of
from fem.forms.constraints import Dirichlet, MeanZero
from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy, Functional, WeakForm
from fem.forms.parameters import Parameter
from fem.space.field import Function
from fem.space.space import AnySpace, FunctionSpace
from fem.support.arithmetic import common_batch
from fem.support.checks import check_flags, check_kind, check_params, shown
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError, Status, first_failure, nest
from fem.support.threads import alone_if_small, sharing_cores
from fem.support.transforms import Plain, mapped, outside_transforms, plainly, transformed
from solvers.adjoint import Deferred, Stationary, attach
from solvers.data_checks import check_capture, check_linear, check_tensors
from solvers.default_start import smooth_start
from solvers.descent import LBFGS, Adam, descent
from solvers.line_search import Bounds
from solvers.linear.choice import default_method
from solvers.newton import Newton, newton
from solvers.operators.system import LinearMethod
from solvers.operators.voids import unseen
from solvers.report import STATUSES, Report
from solvers.reuse import Reuse, reuse_of
from solvers.solution import Solution

Method = Newton | LinearMethod | LBFGS | Adam
Bound = float | Tensor | Function | Callable[[Tensor], Tensor] | Mapping[Any, Any] | None
MAPPED = ("value", "iterations", "residual", "energy", "linear_iterations", "contraction")  # tensors of a solution
METHODS = "a method, `Newton()`, `Multigrid()`, `AlgebraicMultigrid()`, `Direct()`, `CG()`, `LBFGS()` or `Adam()`"


def minimize(
    energy: Energy,
    params: Sequence[Parameter] = (),
    initial: Tensor | None = None,
    method: Method | None = None,
    lower: Bound = None,
    upper: Bound = None,
    throw: bool = True,
    reuse: Reuse | None = None,
) -> Solution:
    """u = argmin J(u; params), a whole batch at once, differentiable by the implicit adjoint.

    Dofs that J does not see, as nodes between cells of zero stiffness, keep their initial values, where no load acts on
    them; so does one dof of a part of a scalar problem that floats, where the loads on it balance. (Derivatives in the
    stiffness of void cells are those with these dofs held.) A load that nothing bears is an error.

    Args:
        energy: what to minimise.
        params: the parameters of its density, as for `energy(u, *params)`.
        initial: dofs to start from; zero by default, or where a Hessian is missing there a smooth function that is not
            (`solvers/default_start.py`).
        method: `Newton()` (the default: one step where the energy is quadratic), `LBFGS()`, `Adam()`, or a linear
            method, `Multigrid()`, `Direct()`, `CG()`, …, which means Newton's method with that linear solver.
        lower, upper: bounds on u, dof by dof: a number, dofs, or a callable of x; or on some dofs alone, given as to
            `Dirichlet`: `{("bottom", 1): gap}` for contact.
        throw: raise where an item does not converge; False returns the status.
        reuse: where the last factorisation or hierarchy is taken from, if the matrix is still the same, and left
            afterwards; by default the energy's own, so that new loads and time steps need no other.

    Raises:
        ConvergenceError: with `.solution` and a remedy, unless `throw=False`.
        ValueError, TypeError: parameters that do not fit, hold NaN, or hide in the density.
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"`minimize` takes an `Energy`; got {shown(energy)}. Weak forms go to `solve`.")
    return run("minimize", energy, params, initial, method, (lower, upper), throw, reuse, minimum=True)


def solve(
    problem: Functional,
    params: Sequence[Parameter] = (),
    initial: Tensor | None = None,
    method: Newton | LinearMethod | None = None,
    throw: bool = True,
    reuse: Reuse | None = None,
) -> Solution:
    """A stationary point of an energy (saddle points too), or the u with a(u; v) = 0 for all v of a `WeakForm`.

    Arguments, result and errors as for `minimize`.
    """
    if not isinstance(problem, Energy | WeakForm):
        raise TypeError(f"`solve` takes an `Energy` or a `WeakForm`; got {shown(problem)}.")
    if isinstance(method, LBFGS | Adam):
        raise ValueError(
            f"`solve` looks for stationary points, and `{type(method).__name__}()` only descends: it goes with "
            "`minimize`."
        )
    return run("solve", problem, params, initial, method, (None, None), throw, reuse, minimum=False)


@outside_modes
@sharing_cores
def run(
    call: str,
    problem: Functional,
    params: Sequence[Parameter],
    initial: Tensor | None,
    method: Method | None,
    bounds: tuple[Bound, Bound],
    throw: bool,
    reuse: Reuse | None,
    minimum: bool,
) -> Solution:
    """Lower, and solve: under transformations of PyTorch on plain tensors, what they map being a batch if it can be."""
    if method is not None:
        check_kind(call, "method", method, Method, METHODS)
    check_flags(call, throw=throw)
    space = problem.space
    form = problem.discrete_form(check_params(call, params))
    u = torch.zeros((), dtype=space.dtype, device=space.device).expand(space.shape)
    if initial is not None:
        u = space.check(initial, "initial").detach()
    limits = [bound_dofs(space, b, name) for b, name in zip(bounds, ("lower", "upper"), strict=True)]
    settings = method, throw, reuse, minimum, initial is not None
    return solution_of(call, problem, form, u, limits, settings)


def solution_of(
    call: str,
    problem: Functional,
    form: DiscreteForm,
    u: Tensor,
    limits: Sequence[Tensor | None],
    settings: tuple[Method | None, bool, Reuse | None, bool, bool],
    light: bool = False,
) -> Solution:
    """`solved`, under any transformation of PyTorch; `form` is the problem's, or one like it to be solved alike."""
    alone_if_small(form.space.num_dofs * prod(form.full_batch(u)))
    if not transformed():
        return solved(problem, form, u, limits, *settings, light=light)

    numberless = [torch.full(t.shape, 0.7, dtype=t.dtype, device=t.device) for t in form.tensors()]
    check_capture(form.with_tensors(numberless), torch.full(u.shape, 0.7, dtype=u.dtype, device=u.device))
    solves = Solves(problem, form, u, limits, settings)
    found = plainly(solves, [*form.tensors(), u, *(b for b in limits if b is not None)])
    if not settings[1] and mapped(found[0]):
        raise ValueError(
            f"`{call}(throw=False)` cannot tell statuses under `torch.vmap`; it solves batches by itself: give the "
            "parameters a leading axis instead."
        )
    return replace(solves.solutions[0], **dict(zip(MAPPED, found, strict=True)))


class Solves:
    """`solved` as a function of plain tensors: those of the form, the start and bounds. Each problem is solved once."""

    def __init__(
        self,
        problem: Functional,
        form: DiscreteForm,
        u: Tensor,
        limits: Sequence[Tensor | None],
        settings: tuple[Any, ...],
    ):
        self.problem, self.form, self.settings, self.given = problem, form, settings, [b is not None for b in limits]
        self.count, rank = len(form.tensors()), len(form.space.shape)
        self.shapes = [(tuple(t.shape), t.dtype) for t in form.tensors()]
        batches = [b.shape[: b.ndim - rank] for b in limits if b is not None]
        self.lead = len(common_batch(form.full_batch(u), *batches))
        self.item_axes = [*form.item_axes, rank, *[rank] * len(batches)]
        self.known: dict[Any, tuple[list[Tensor], Report]] = {}
        self.solutions: list[Solution] = []

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors[self.count + 1 :])
        limits = [next(rest) if given else None for given in self.given]
        form, u = self.form.with_tensors(tensors[: self.count]), tensors[self.count]
        self.solutions.append(solved(self.problem, form, u, limits, *self.settings, known=self.known))
        return tuple(getattr(self.solutions[-1], name) for name in MAPPED)

    def folded(self, extended: Sequence[bool]) -> Plain | None:
        """The same for tensors some of which have an axis more, in front: it becomes the first one of the batch."""
        pairs = list(zip(extended, self.item_axes, strict=True))
        if any(more and own is None for more, own in pairs) or not self.keeps_apart(extended):
            return None
        return lambda *tensors: self(*self.with_axis(tensors, extended))

    def with_axis(self, tensors: Sequence[Tensor], extended: Sequence[bool]) -> list[Tensor]:
        """Tensors with the axis that some have in front before all batch axes of the problem."""
        return [
            t.reshape(len(t), *[1] * (self.lead + 1 + (own or 0) - t.ndim), *t.shape[1:]) if more else t
            for t, own, more in zip(tensors, self.item_axes, extended, strict=False)
        ]

    @outside_transforms()
    @torch.no_grad()
    def keeps_apart(self, extended: Sequence[bool]) -> bool:
        """Whether the integrands take two items, as `k * grad_u` with a number k does not: tried with any numbers."""
        space = self.form.space
        u = torch.full(space.shape, 0.6, dtype=space.dtype, device=space.device)
        like = [(shape, {"dtype": dtype, "device": space.device}) for shape, dtype in self.shapes]
        each = [
            [
                torch.full(shape, 0.7 + i / 9 if more else 0.7, **kind)
                for (shape, kind), more in zip(like, extended, strict=False)
            ]
            for i in range(2)
        ]
        both = [torch.stack(pair) if more else pair[0] for *pair, more in zip(*each, extended, strict=False)]
        try:
            together = self.form.with_tensors(self.with_axis(both, extended)).residual(u)
            alone = torch.stack([self.form.with_tensors(tensors).residual(u) for tensors in each])
        except (RuntimeError, ValueError):
            return False
        return torch.allclose(together, alone, equal_nan=True)


def solved(
    problem: Functional,
    form: DiscreteForm,
    u: Tensor,
    limits: Sequence[Tensor | None],
    method: Method | None,
    throw: bool,
    reuse: Reuse | None,
    minimum: bool,
    given: bool,
    known: dict[Any, tuple[list[Tensor], Report]] | None = None,
    light: bool = False,
) -> Solution:
    """Check, iterate without a graph, attach; `known` keeps how that ended for the same tensors.

    Args:
        given: whether somebody chose the start u.
        light: the graph holds the solution and the tensors of the form, and no matrix or factorisation.
    """
    space, detached = problem.space, form.detach()
    detail = check_tensors(detached, some=True)
    if not bool(torch.isfinite(u).all()):
        raise ValueError("`initial` holds values that are not finite.")
    for limit, name in zip(limits, ("lower", "upper"), strict=True):
        if limit is not None and bool(limit.isnan().any()):
            raise ValueError(f"`{name}` holds NaN; an infinite bound is written `math.inf`.")
    batches = [b.shape[: b.ndim - len(space.shape)] for b in limits if b is not None]
    batch = detached.full_batch(u)
    if batches:
        batch = common_batch(batch, *batches)
    start, u = u, u.expand(*batch, *space.shape)
    if torch.is_grad_enabled():
        with inner_graphs(light):
            check_capture(detached, u)
    if isinstance(problem, WeakForm):
        check_linear(detached, u)

    box = None
    if any(b is not None for b in limits):
        if isinstance(problem.constraint, MeanZero | RigidMotionFree):
            name = type(problem.constraint).__name__
            raise ValueError(
                f"`lower` and `upper` do not go with `{name}`: shifting u would cross them. Leave one of them out."
            )
        if ties_of(problem.constraint) is not None:
            raise ValueError("`lower` and `upper` do not go with ties: a dof at its bound would hold others.")
        box = Bounds(*[None if b is None else b.detach().expand(*batch, *space.shape) for b in limits])
        if box.lower is not None and box.upper is not None and bool((box.lower > box.upper).any()):
            raise ValueError("`lower` exceeds `upper` at some dofs, so no u is allowed.")
    symmetric = isinstance(problem, Energy)
    inputs = [*form.tensors(), start, *(b for b in limits if b is not None)]
    key = batch, *[(t.data_ptr(), *[pair for pair in zip(t.shape, t.stride(), strict=True) if pair[1]]) for t in inputs]
    report = None if known is None or key not in known else known[key][1]
    if isinstance(method, LBFGS | Adam):
        linear, name = default_method(detached, u, symmetric, True), type(method).__name__
        report = report or descent(detached, u, method, box)
    else:
        chosen = Newton() if method is None else method if isinstance(method, Newton) else Newton(method)
        with torch.no_grad(), inner_graphs(light):
            linear = chosen.linear or default_method(detached, u, symmetric, minimum)
            chosen, reuse = replace(chosen, linear=linear), reuse or reuse_of(problem)
            report = report or newton(detached, u, chosen, symmetric, minimum, box, reuse)
            if symmetric and box is None and bool((report.codes == STATUSES.index(Status.SINGULAR)).any()):
                held, found = unseen(detached, u)
                if bool(held.any()):
                    again = fix_active(detached, held, u, limits)
                    report = newton(again, u, chosen, symmetric, minimum, box, reuse)
                    report.active = held
                report.detail = found or report.detail
            if unlucky(report) and minimum and symmetric and not given and box is None:
                better = smooth_start(detached, u)
                again = better is not None and newton(detached, better, chosen, symmetric, minimum, box, reuse)
                report = again if again and not unlucky(again, at_start=False) else report
        name = f"Newton with {linear}"
    if known is not None:
        known[key] = inputs, report

    if report.active is not None:
        form = fix_active(form, report.active, report.u, limits)
        detached = form.detach()
    equation = Stationary(detached, linear, symmetric, report.prepared)
    value = attach(equation.light(reuse or reuse_of(problem)) if light else equation, report.u, form.tensors())
    value = form.constraint.insert(value, form.data)
    value = value.expand(*batch, *space.shape)
    nan = torch.full(batch, float("nan"), dtype=space.dtype, device=space.device)
    statuses = [STATUSES[code] for code in report.codes.flatten().tolist()]
    energy = nan if not symmetric else value_of(form, value, report)
    found, effort = (value, nest(statuses, batch), report.iterations, report.residual.detach(), energy), report.effort
    solution = Solution(*found, name, effort.iterations, effort.contraction)
    if throw and (failure := first_failure(solution.status)) is not None:
        detail = report.detail or detail
        if not detail and symmetric and statuses[failure[0]] is Status.NOT_FINITE:
            item = tuple(int(i) for i in np.unravel_index(failure[0], batch))
            where = detached.item(item).where_not_finite(report.u[item])
            detail = f" (the density is not finite{where})" if where else ""
        raise ConvergenceError(message(*failure, solution, detail), solution)
    return solution


def inner_graphs(light: bool) -> AbstractContextManager[Any]:
    """Where graphs are made and used up: the checkpoints that `light` ones are for must not see what these save."""
    return saved_tensors_hooks(lambda t: t, lambda t: t) if light else nullcontext()


def unlucky(report: Report, at_start: bool = True) -> bool:
    """Whether some item failed for want of a Hessian, without a step if that is to be `at_start`."""
    codes = [STATUSES.index(status) for status in (Status.NOT_FINITE, Status.SINGULAR)]
    lost = (report.codes == codes[0]) | (report.codes == codes[1])
    return bool((lost & (report.iterations == 0) if at_start else lost).any())


def value_of(form: DiscreteForm, u: Tensor, report: Report) -> Tensor:
    """J at the solution: what the iteration ended with, unless somebody may differentiate it."""
    attached = torch.is_grad_enabled() and (u.requires_grad or any(t.requires_grad for t in form.tensors()))
    if report.energy is None or report.active is not None:
        return form.value(u)
    return Deferred.apply(form, report.energy, u, *form.tensors()) if attached else report.energy


def message(item: int, failure: str, solution: Solution, detail: str) -> str:
    """What went wrong, where, and what to do about it."""
    return (
        f"{failure}{detail}. Relative residual {float(solution.residual.flatten()[item]):.2e} after "
        f"{int(solution.iterations.flatten()[item])} iterations of {solution.method}; "
        "`throw=False` returns the solution as it is."
    )


def bound_dofs(space: AnySpace, bound: Any, name: str) -> Tensor | None:
    """A bound as dofs "*b *shape"."""
    if bound is None:
        return None
    if isinstance(bound, Mapping):
        some = Dirichlet(space, bound)
        return torch.where(some.fixed, some.data(), -inf if name == "lower" else inf)
    if isinstance(bound, Function):
        bound = bound.values
    if isinstance(bound, bool) or (isinstance(bound, Tensor) and bound.dtype == torch.bool):
        raise TypeError(
            f"`{name}` must be a number, dofs, a callable of x, a mapping from tags or None; got {shown(bound)}."
        )
    if isinstance(bound, Tensor) and bound.ndim:
        return space.check(bound, name)
    if isinstance(bound, Real | Tensor):
        return torch.as_tensor(bound, dtype=space.dtype, device=space.device).expand(space.shape)
    if not isinstance(space, FunctionSpace):
        raise ValueError(f"`{name}` on a mixed space must be a number, dofs or a mapping {{(tag, field): value}}.")
    return space.interpolate(bound)


def fix_active(form: DiscreteForm, active: Tensor, u: Tensor, limits: Sequence[Tensor | None]) -> DiscreteForm:
    """The functional with some dofs prescribed as they are; gradients reach the bounds on which they sit."""
    data = form.data if form.constraint.fixed is not None else None
    data = torch.zeros_like(u) if data is None else data.expand(u.shape)
    data = torch.where(active, u, data)
    for bound, side in zip(limits, (torch.le, torch.ge), strict=True):
        if bound is not None:
            data = torch.where(active & side(u, bound.detach()), bound, data)
    fixed = active if form.constraint.fixed is None else active | form.constraint.fixed
    unseen = active if all(bound is None for bound in limits) else None
    return replace(form, constraint=FixedDofs(form.space, fixed, unseen), data=data)
