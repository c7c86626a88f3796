"""The entry point in time: `evolve` a functional from one time to the next, with the adjoint through all steps.

A step is a node of the graph with an implicit adjoint of its own, so that gradients go backward through them, one
linear solve each. With checkpoints a segment of steps keeps nothing but where it starts, and is run again, step for
step, when its gradient is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, isfinite, prod, sqrt
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fem.forms.energy import Functional
from fem.space.space import AnySpace, FunctionSpace
from fem.support.arithmetic import common_batch
from fem.support.checks import (
    check_callable,
    check_flags,
    check_integers,
    check_kind,
    check_numbers,
    check_params,
    refuse,
    shown,
)
from fem.support.modes import outside_modes
from fem.support.status import ConvergenceError, Status, nest, worst
from fem.support.threads import sharing_cores
from fem.support.transforms import mapped, transformed
from solvers.minimization import METHODS, Method
from solvers.newton import Newton
from solvers.operators.system import LinearMethod
from solvers.solution import default_rtol
from solvers.time.control import Control, Part, crossing, sizes_of
from solvers.time.methods import BDF2, Newmark, State, TimeMethod
from solvers.time.rates import Mass, rates_of
from solvers.time.reporting import Output, Report, output_of, progress_of
from solvers.time.steps import Params, StepProblem


@dataclass(frozen=True, eq=False)
class Evolution:
    """The result of `evolve`.

    Attributes:
        values: dofs "t *b n", "t *b n c" or "t *b N", the initial ones first; differentiable.
        velocities: u′, alike, where the equation is of second order in time; else None.
        times: "t", when these are.
        status: a `Status`; for a batch, nested tuples of them.
        sizes: of all steps, as many as were taken, which may be more than there are times.
        event: when the event happened; None where none did.
        method: what ran, in words.
    """

    values: Float[Tensor, "t ..."]
    velocities: Float[Tensor, "t ..."] | None
    times: Float[Tensor, "t"]
    status: Any
    sizes: tuple[float, ...]
    event: float | None
    method: str

    @property
    def converged(self) -> bool:
        """Whether every batch item did, in all steps."""
        return worst(self.status) is Status.CONVERGED

    def __repr__(self) -> str:
        return (
            f"Evolution({worst(self.status).name}, {self.method}; values {tuple(self.values.shape)}, "
            f"{len(self.sizes)} steps from t = {float(self.times[0]):g} to {float(self.times[-1]):g})"
        )


@outside_modes
@sharing_cores
def evolve(
    problem: Functional,
    mass: Mass,
    initial: Any,
    times: Sequence[float] | Tensor,
    method: TimeMethod | None = None,
    params: Params = (),
    damping: Mass = None,
    mass_params: Sequence[Any] = (),
    damping_params: Sequence[Any] = (),
    solver: Method | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    every: int = 1,
    event: Callable[..., Any] | None = None,
    checkpoints: bool | int = False,
    output: Output = None,
    progress: bool = False,
    throw: bool = True,
) -> Evolution:
    """Solve M u′ = −J′(u; t), or M u″ + C u′ = −J′(u; t), step by step; for a weak form a(u; v) stands for J′(u) v.

    Prescribed values hold at the end of each step. Fields without mass (a pressure, a multiplier) and what belongs to
    them are solved for at the end of each step too. The mass may be any R(u′), J then falls along R′(u′) = −J′(u).

    Args:
        problem: an `Energy` J (J itself need not have a minimum) or a `WeakForm`. Values of its `Dirichlet` may be
            callables of (x, t).
        mass: ρ of M = ∫ ρ u v: a number, a tensor "*b", a field, one value per cell, a callable of x; on a mixed space
            {field: ρ}, others having none. Or R, a density of (x, u) or (x, u, ∇u), of (x, u, v) … for weak forms, or
            an `Energy` (`WeakForm`) without constraint, with M v = R′(v): ½ ρ u² is the same as ρ.
        initial: u "*b *shape" at the first time, or (u, u′) for the second order; callables of x are interpolated.
            Constraints of that time are applied to it.
        times: "t", increasing: one step from each to the next. With `rtol` or `atol` as many steps as that takes.
        method: `BDF2()` (the default), `ImplicitEuler()`, `CrankNicolson()`, `Theta(θ)`; of second order in time
            `Newmark()` (the default for a pair `initial`), `GeneralizedAlpha()`.
        params: the parameters of J, or a callable of t that gives them.
        damping: C, as `mass`, of second order in time.
        mass_params, damping_params: the parameters of a mass or damping that is a density or functional.
        solver: what solves a step, as `minimize(method=...)`.
        rtol, atol: adaptive steps. Of each step, the error of u as half steps tell it is at most atol + rtol |u|, root
            mean squares of each field, for each item of a batch; rtol = 10⁻³ and atol = 0 where only one is given.
        every: values are kept at every so many times (and at the first and the last).
        event: a callable of (t, u), or (t, u, u′), that gives a number. Where it changes its sign the evolution ends,
            at the very time to round-off, which itself has no gradient.
        checkpoints: True divides n times into √n segments, a number k into k: gradients are bitwise the same, and take
            one more pass of steps, and the memory of one segment and its checkpoints.
        output: at every time kept, as it goes: a path `.pvd` for ParaView, or a callable of (t, u), (t, u, u′).
        progress: show a bar (tqdm or rich).
        throw: raise where a step does not converge; False returns what was reached.

    Raises:
        ConvergenceError: with `.solution`, the evolution so far, and the time at which it failed.
        ValueError, TypeError: times that do not increase, no mass, no velocity, values that are not finite or do not
            fit.
    """
    check_kind("evolve", "problem", problem, Functional, "an `Energy` or a `WeakForm`")
    pair = isinstance(initial, tuple | list)
    method = (Newmark() if pair else BDF2()) if method is None else method
    check_kind("evolve", "method", method, TimeMethod, "`BDF2()`, `ImplicitEuler()`, `CrankNicolson()`, `Newmark()`, …")
    check_numbers("evolve", "a tolerance", optional=True, rtol=rtol)
    check_numbers("evolve", "non-negative", optional=True, atol=atol)
    check_integers("evolve", 1, every=every)
    check_flags("evolve", progress=progress, throw=throw)
    check_callable("evolve", "event", event, "a callable of (t, u)", optional=True)
    if not isinstance(checkpoints, bool):
        check_integers("evolve", 1, checkpoints=checkpoints)
    if solver is not None:
        check_kind("evolve", "solver", solver, Method, METHODS)
    instants, space = checked_times(times), problem.space
    given_in = times.dtype if isinstance(times, Tensor) and times.is_floating_point() else torch.float64
    sizes = sizes_of(instants, torch.finfo(given_in).eps)
    if pair != (method.rates == 2) or (pair and len(initial) != 2):
        wanted = "a pair (u, u′)" if method.rates == 2 else "the dofs u alone"
        given = f"{len(initial)} of them" if pair else shown(initial)
        raise ValueError(
            f"`evolve(initial=...)` must be {wanted} for `{type(method).__name__}()`, a method for "
            f"{'second' if method.rates == 2 else 'first'} derivatives in time; got {given}."
        )
    if damping is not None and method.rates == 1:
        raise ValueError(f"`evolve(damping=...)` belongs to u″; `{type(method).__name__}()` solves for u′, use `mass`.")
    start = [
        dofs(space, value, name) for value, name in zip(initial if pair else (initial,), ("u", "u′"), strict=False)
    ]
    rates = [rates_of("evolve", "mass", problem, mass, mass_params)]
    if damping is not None:
        rates.append(rates_of("evolve", "damping", problem, damping, damping_params))
    params = params if callable(params) else check_params("evolve", params)
    light = bool(checkpoints) and not transformed() and torch.is_grad_enabled()
    steps = StepProblem(problem, tuple(rates), params, exact(solver, space.dtype), light)
    control = None
    if rtol is not None or atol is not None:
        control = Control(method, space, 1e-3 if rtol is None and not atol else rtol or 0.0, atol or 0.0)
    last, report = len(instants) - 1, output_of(space, output)
    count = 1 if not light else ceil(sqrt(last)) if checkpoints is True else min(int(checkpoints), last)
    with progress_of(progress, instants[0], instants[-1]) as move:
        run = Run(steps, method, instants, sizes, every, control, event, report, move)
        kept, failure = run.all(start, count)
    return run.finished(kept, failure, throw)


Kept = list[tuple[float, tuple[Tensor, ...]]]  # times, with u and perhaps u′


@dataclass(eq=False)
class Run:
    """One evolution under way, and the plan of its steps, which a second pass through some of them follows."""

    steps: StepProblem
    method: TimeMethod
    times: list[float]
    sizes: list[float]
    every: int
    control: Control | None
    event: Callable[..., Any] | None
    report: Report
    move: Callable[[float], None]
    plan: dict[int, Part] = field(default_factory=dict)  # of the steps to each of the times
    last: int = 0  # the last of the times that is come to: where the event happens, if it does
    before: float = 0.0  # what the event tells at the beginning of a step
    happened: bool = False

    def all(self, start: Sequence[Tensor], segments: int) -> tuple[Kept, ConvergenceError | None]:
        """u (and u′) at the times kept, and why there are no more, if that is so."""
        time, kept = self.times[0], []
        self.last = len(self.times) - 1
        state = State(time, self.steps.held(time, start[0]), tuple(start[1:]))
        state = self.method.start(self.steps, state, self.sizes[0])
        self.keep(state, kept, True)
        self.before = self.look(state)
        ends = [1 + self.last * k // segments for k in range(segments + 1)]
        try:
            for begin, end in pairwise(ends):
                if not self.happened:
                    state = self.segment(state, range(begin, end), kept)
        except ConvergenceError as error:
            return kept, error
        return kept, None

    def segment(self, state: State, targets: range, kept: Kept) -> State:
        """The state after some of the times; with checkpoints nothing in between is held for gradients."""
        if not self.steps.light:
            return self.through(state, targets, kept)
        found: list[tuple[Kept, State]] = []

        def steps(*tensors: Tensor) -> tuple[Tensor, ...]:
            own: Kept = []
            after = self.through(State(state.time, tensors[0], tensors[1:], state.size), targets, own)
            found.append((own, after))
            return *after.tensors, *[t for _, parts in own for t in parts]

        given = checkpoint(steps, *state.tensors, use_reentrant=False, preserve_rng_state=False)
        (own, after), (u, *rest) = found.pop(), given
        more, flat = rest[: len(after.more)], iter(rest[len(after.more) :])
        kept += [(time, tuple(next(flat) for _ in parts)) for time, parts in own]
        return State(after.time, u, tuple(more), after.size)

    def through(self, state: State, targets: range, kept: Kept) -> State:
        """Steps to some of the times."""
        for i in targets:
            new = i not in self.plan
            state = self.onward(state, i)
            if i % self.every == 0 or i == self.last:
                self.keep(state, kept, new)
            if new:
                self.move(state.time)
            if i == self.last:
                break
        return state

    def onward(self, state: State, i: int) -> State:
        """The state at the next of the times: by the plan, where there is one or none has to be found."""
        if i not in self.plan and self.control is None and self.event is None:
            self.plan[i] = [(self.times[i], self.sizes[i - 1])]
        if i not in self.plan:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.steps.light):
                after, self.plan[i] = self.trial(state, i)
            if not self.steps.light:
                return after
        return self.take(state, self.plan[i])

    def take(self, state: State, part: Part) -> State:
        """Some steps.

        Raises:
            ConvergenceError: one of them cannot be solved; its time is named.
        """
        for time, size in part:
            try:
                state = self.method.step(self.steps, state, time, size)
            except ConvergenceError as error:
                raise ConvergenceError(f"at t = {time:.6g}: {error}", error.solution) from error
        return state

    def trial(self, state: State, i: int) -> tuple[State, Part]:
        """The state at the next of the times or at the event before it, and the steps to it."""
        if self.control is None:
            part = [(self.times[i], self.sizes[i - 1])]
            parts: Any = ((state, self.take(state, part), part) for _ in range(1))
        else:
            parts = self.control.steps(self.take, state, self.times[i])
        plan: Part = []
        for before, after, part in parts:
            state, value = after, self.look(after)
            if value * self.before < 0:
                with torch.no_grad():
                    part = crossing(self.take, self.look, before, part, (self.before, value))
                self.happened, self.last = True, i
                return self.take(before, part), plan + part
            self.before, plan = value, plan + part
        return state, plan

    def look(self, state: State) -> float:
        """What the event tells.

        Raises:
            ValueError: no number.
        """
        if self.event is None:
            return 0.0
        with torch.no_grad():
            value = self.event(state.time, *[t.detach() for t in self.shown(state)])
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
            raise ValueError(
                f"`evolve(event=...)` must give a finite number, of which the sign tells; got {shown(value)} at "
                f"t = {state.time:g}. Of a batch it sees all items at once."
            )
        return float(value)

    def shown(self, state: State) -> tuple[Tensor, ...]:
        """u, and u′ where the method has it."""
        return state.tensors[: self.method.rates]

    def keep(self, state: State, kept: Kept, new: bool) -> None:
        kept.append((state.time, self.shown(state)))
        if new:
            self.report(*kept[-1])

    def finished(self, kept: Kept, failure: ConvergenceError | None, throw: bool) -> Evolution:
        """The result.

        Raises:
            ConvergenceError: with it, if that is to be told so.
        """
        space, parts = self.steps.problem.space, list(zip(*[parts for _, parts in kept], strict=True))
        batch = common_batch(*[t.shape[: t.ndim - len(space.shape)] for part in parts for t in part])
        u, *more = (torch.stack([t.expand(*batch, *space.shape) for t in part]) for part in parts)
        status = nest([Status.CONVERGED] * prod(batch), batch)
        if failure is not None:
            status = getattr(failure.solution, "status", nest([Status.STALLED] * prod(batch), batch))
        times = torch.tensor([time for time, _ in kept], dtype=torch.float64, device="cpu")
        sizes = tuple(size for part in self.plan.values() for _, size in part)
        event = kept[-1][0] if self.happened else None
        found = Evolution(u, more[0] if more else None, times, status, sizes, event, repr(self.method))
        if failure is not None and throw:
            raise ConvergenceError(f"`evolve` stopped {failure}", found) from failure
        return found


def checked_times(times: Any) -> list[float]:
    """Times as numbers.

    Raises:
        ValueError: not two or more that are finite and increase.
    """
    flat = times.detach().flatten().tolist() if isinstance(times, Tensor) else times
    if isinstance(times, Tensor) and times.ndim != 1:
        refuse("evolve", "times", "one axis of increasing times", times)
    try:
        found = [float(t) for t in flat]
    except (TypeError, ValueError):
        found = []
    if len(found) < 2 or not all(map(isfinite, found)):
        refuse("evolve", "times", "two or more finite numbers, such as `torch.linspace(0, 1, 101)`", times)
    for i, (a, b) in enumerate(pairwise(found)):
        if b <= a:
            raise ValueError(f"`evolve(times=...)` must increase; got {b:g} after {a:g} at index {i + 1}.")
    return found


def dofs(space: AnySpace, given: Any, name: str) -> Tensor:
    """Initial values: dofs, or a callable of x that is interpolated.

    Raises:
        ValueError, TypeError: what is neither, does not fit or is not finite.
    """
    if callable(given) and not isinstance(given, Tensor):
        if not isinstance(space, FunctionSpace):
            raise ValueError("`evolve(initial=...)` on a mixed space takes dofs, `W.join([u, p])`.")
        given = space.interpolate(given)
    u = space.check(given, f"initial {name}")
    if not mapped(u) and not bool(torch.isfinite(u).all()):
        raise ValueError(f"`evolve(initial=...)`: {name} holds values that are not finite.")
    return u


def exact(solver: Method | None, dtype: torch.dtype) -> Method:
    """The solver of steps: Newton's method to round-off, without the refinement after it."""
    chosen = Newton() if solver is None else Newton(solver) if isinstance(solver, LinearMethod) else solver
    named = isinstance(chosen, Newton) and chosen.rtol is None
    return replace(chosen, rtol=default_rtol(dtype)) if named else chosen
