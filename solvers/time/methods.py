"""Methods in time: how the rate at the end of a step follows from u there and from what is known before.

Each of them turns a step into one stationary problem, J′(u) + R′(c (u − w)) = 0 (`solvers.time.rates`), and is told by
its c and w. Sizes of steps may vary.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from fem.support.checks import check_flags, check_numbers, refuse


@dataclass(frozen=True, eq=False)
class State:
    """What a method knows at one time: u, what it needs beside it, and the size of the step that led there."""

    time: float
    u: Tensor
    more: tuple[Tensor, ...] = ()
    size: float | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.u, *self.more


@runtime_checkable
class Steps(Protocol):
    """The problem of one step, as methods ask for it (`solvers.time.steps`)."""

    singular: bool

    def solve(
        self, time: float, start: Tensor, *rates: tuple[Tensor, float], before: tuple[float, float] | None = None
    ) -> Tensor: ...

    def rate(self, time: float, u: Tensor, *velocity: Tensor) -> Tensor: ...

    def velocity(self, time: float, size: float, v: Tensor) -> Tensor: ...


@runtime_checkable
class TimeMethod(Protocol):
    """A frozen value with a method's settings.

    `rates` is the order of the time derivative that it is for, `order` that of its errors.
    """

    @property
    def rates(self) -> int: ...

    @property
    def order(self) -> int: ...

    def start(self, steps: Steps, state: State, size: float) -> State:
        """What the method needs beside u (and u′) at first."""
        ...

    def step(self, steps: Steps, state: State, time: float, size: float) -> State: ...


@dataclass(frozen=True)
class ImplicitEuler:
    """M (u − uₙ) / τ = −J′(u; t + τ), of order 1.

    For an energy each step minimises ‖u − uₙ‖²_M / 2τ + J(u) (a minimising movement): while data stay, J never rises.
    """

    rates, order = 1, 1

    def start(self, steps: Steps, state: State, size: float) -> State:
        return state

    def step(self, steps: Steps, state: State, time: float, size: float) -> State:
        return State(time, steps.solve(time, state.u, (state.u, 1 / size)), (), size)


@dataclass(frozen=True)
class BDF2:
    """M u′ = −J′(u; t + τ) with the derivative of the parabola through u, uₙ and uₙ₋₁ there, of order 2.

    It damps what is fast, as implicit Euler does, which takes its first step. With ω = τ / τₙ

        u′ = [(1 + 2ω)/(1 + ω) u − (1 + ω) uₙ + ω²/(1 + ω) uₙ₋₁] / τ,

    stable for ω up to 1 + √2.
    """

    rates, order = 1, 2
    halving = 1.7  # the error ∝ (1 + ω)²/(ω + 2ω²) τ³ of a step with ω = 2 is 2.7 times that of its halves

    def start(self, steps: Steps, state: State, size: float) -> State:
        return state

    def step(self, steps: Steps, state: State, time: float, size: float) -> State:
        if state.size is None:
            return State(time, steps.solve(time, state.u, (state.u, 1 / size)), (state.u,), size)
        ratio = size / state.size
        share = ratio**2 / (1 + 2 * ratio)
        w = state.u + share * (state.u - state.more[0])
        c = (1 + 2 * ratio) / (1 + ratio) / size
        return State(time, steps.solve(time, state.u, (w, c)), (state.u,), size)


@dataclass(frozen=True)
class Theta:
    """M (u − uₙ) / τ = −θ J′(u; t + τ) − (1 − θ) J′(uₙ; t), of order 1, and 2 for θ = ½.

    It keeps v = u′, so that J′ at the start of a step is −M v: w = uₙ + (1 − θ) τ vₙ, c = 1/(θτ). The first v solves
    M v = −J′(u₀), which takes a quadratic mass.

    Args:
        theta: from ½ to 1, where it is implicit Euler's.
        damped: take the first step as two halves by implicit Euler, which damp a u₀ that is not smooth or does not fit
            the prescribed values (Rannacher, Finite element solution of diffusion problems with irregular data, 1984).
            So it is without being asked where parts of u have no mass (pressures).
    """

    theta: float
    damped: bool = False

    rates = 1

    def __post_init__(self):
        check_numbers(type(self).__name__, "a share", theta=self.theta)
        check_flags(type(self).__name__, damped=self.damped)
        if self.theta < 0.5:
            refuse(type(self).__name__, "theta", "at least ½, below which steps are not stable", self.theta)

    @property
    def order(self) -> int:
        return 2 if self.theta == 0.5 else 1

    def start(self, steps: Steps, state: State, size: float) -> State:
        if self.theta == 1 or self.damped or steps.singular:
            return state
        return State(state.time, state.u, (steps.rate(state.time, state.u),))

    def step(self, steps: Steps, state: State, time: float, size: float) -> State:
        if self.theta == 1:
            return ImplicitEuler().step(steps, state, time, size)
        if not state.more:
            half = size / 2
            u = steps.solve(time - half, state.u, (state.u, 1 / half))
            after = steps.solve(time, u, (u, 1 / half))
            return State(time, after, ((after - u) / half,), size)
        w = state.u + (1 - self.theta) * size * state.more[0]
        c = 1 / (self.theta * size)
        u = steps.solve(time, state.u, (w, c))
        return State(time, u, (c * (u - w),), size)


@dataclass(frozen=True)
class CrankNicolson(Theta):
    """The trapezoidal rule, M (u − uₙ) / τ = −½ J′(u; t + τ) − ½ J′(uₙ; t), of order 2: see `Theta`."""

    theta: float = field(default=0.5, init=False)


@dataclass(frozen=True)
class GeneralizedAlpha:
    """M a + C v = −J′(u) for M u″ + C u′ = −J′(u; t), of order 2, balanced inside the step:

        M a_m + C v_f = −J′(u_f; t_f),    x_m = (1 − α_m) x + α_m xₙ,    x_f = (1 − α_f) x + α_f xₙ,
        u = uₙ + τ vₙ + τ² ((½ − β) aₙ + β a),    v = vₙ + τ ((1 − γ) aₙ + γ a)

    (Chung and Hulbert, A time integration algorithm for structural dynamics with improved numerical dissipation, 1993).

    Args:
        rho: by what factor a step damps the highest frequencies, from 0 (at once) to 1 (not at all).
    """

    rho: float = 0.8

    rates, order = 2, 2

    def __post_init__(self):
        check_numbers(type(self).__name__, "a share", rho=self.rho)

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """α_m, α_f, β, γ."""
        m, f = (2 * self.rho - 1) / (self.rho + 1), self.rho / (self.rho + 1)
        return m, f, (1 - m + f) ** 2 / 4, 0.5 - m + f

    def start(self, steps: Steps, state: State, size: float) -> State:
        v = steps.velocity(state.time, size, state.more[0])
        return State(state.time, state.u, (v, steps.rate(state.time, state.u, v)))

    def step(self, steps: Steps, state: State, time: float, size: float) -> State:
        u, (v, a), (m, f, beta, gamma) = state.u, state.more, self.numbers
        # u and v at the end but for what the new acceleration, (u − ahead) / βτ², adds.
        ahead = u + size * v + size**2 * (0.5 - beta) * a
        speed = v + size * (1 - gamma) * a
        # a_m = c (u_f − w), v_f = d (u_f − z).
        c, d = (1 - m) / ((1 - f) * beta * size**2), gamma / (beta * size)
        base = f * u + (1 - f) * ahead
        w = base - (m / c) * a
        z = base - ((1 - f) * speed + f * v) / d
        inner = steps.solve(time, u, (w, c), (z, d), before=None if f == 0 else (state.time, f))
        new = inner if f == 0 else (inner - f * u) / (1 - f)
        a = (new - ahead) / (beta * size**2)
        return State(time, new, (speed + gamma * size * a, a), size)


@dataclass(frozen=True)
class Newmark(GeneralizedAlpha):
    """M a + C v = −J′(u; t + τ) at the end of each step, with u and v as for `GeneralizedAlpha`.

    With the default numbers (the trapezoidal rule) it is of order 2 and keeps ½ vᵀM v + J for quadratic J to round-off
    (Newmark, A method of computation for structural dynamics, 1959).

    Args:
        beta, gamma: stable for 2β ≥ γ ≥ ½; γ > ½ damps, and is of order 1.
    """

    rho: float = field(default=1.0, init=False, repr=False)
    beta: float = 0.25
    gamma: float = 0.5

    def __post_init__(self):
        check_numbers("Newmark", "positive", beta=self.beta, gamma=self.gamma)
        if not 2 * self.beta >= self.gamma >= 0.5:
            raise ValueError(
                f"`Newmark(beta, gamma)` is stable for 2β ≥ γ ≥ ½; got beta={self.beta!r}, gamma={self.gamma!r}."
            )

    @property
    def order(self) -> int:
        return 2 if self.gamma == 0.5 else 1

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        return 0.0, 0.0, self.beta, self.gamma
