"""Sizes of steps: adaptive ones by comparing a step with its two halves, and the step that ends at an event.

A step of size τ and two of τ/2 from the same state differ, for a method of order p, by 2ᵖ − 1 times the error of the
latter, up to higher orders (Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, II.4). The halves
are what is kept. Sizes change seldom and by much, since each of them has its own factorisation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf

import torch
from torch import Tensor

from fem.space.space import AnySpace
from fem.support.status import ConvergenceError
from solvers.time.methods import BDF2, State, TimeMethod

Part = list[tuple[float, float]]  # times and sizes of some steps
Take = Callable[[State, Part], State]
LEAST = 1e-10  # of the time to go: steps that must be smaller are given up
KEEP = 1.6  # sizes that would not grow by more stay as they are


@dataclass(eq=False)
class Control:
    """The size of the next step, for tolerances."""

    method: TimeMethod
    space: AnySpace
    rtol: float
    atol: float
    size: float | None = None

    def steps(self, take: Take, state: State, target: float) -> Iterator[tuple[State, State, Part]]:
        """Accepted steps up to a time: the state before, after, and what led from one to the other.

        Raises:
            ConvergenceError: a step that would have to be too small.
        """
        start = state.time
        while state.time < target:
            rest = target - state.time
            size = rest / 16 if self.size is None else self.size
            count = max(ceil(rest / size * (1 - 1e-9)), 1)
            size, end = rest / count, target if count == 1 else state.time + rest / count
            part = [(state.time + size / 2, size / 2), (end, size / 2)]
            failure, error = None, inf
            try:
                after = take(state, part)
                with torch.no_grad():
                    error = self.error(take(state, [(end, size)]).u, after.u, state.size is None)
            except ConvergenceError as reason:
                after, failure = state, reason
            order = self.local_order(state)
            factor = 0.25 if error == inf else min(max(0.9 * max(error, 1e-12) ** (-1 / (order + 1)), 0.2), 4.0)
            if error <= 1:
                if count == 1 and self.size is not None:  # a step cut short by the target
                    size = max(size, min(self.size, size * factor))
                self.size = size if factor < KEEP else size * factor
                yield state, after, part
                state = after
                continue
            self.size = smaller = size * factor
            if smaller < LEAST * (target - start):
                why = failure or f"the error of steps of {size:.3g} is {error:.3g} times what is asked for"
                raise ConvergenceError(
                    f"at t = {end:.6g}: no step is small enough for rtol={self.rtol:g}, atol={self.atol:g}: {why}",
                    None if failure is None else failure.solution,
                )

    def local_order(self, state: State) -> int:
        """The order of the next step: that of implicit Euler where more is to be known and is not."""
        return 1 if isinstance(self.method, BDF2) and state.size is None else self.method.order

    def error(self, whole: Tensor, halves: Tensor, first: bool) -> float:
        """The error over what is allowed: fields by their root mean squares, the worst of them and of all items."""
        share, worst = 2.0**self.method.order - 1, 0.0
        if isinstance(self.method, BDF2):
            share = 1.0 if first else self.method.halving
        for field, a, b in zip(self.space.fields, self.space.split(whole), self.space.split(halves), strict=True):
            dims = tuple(range(-len(field.shape), 0))
            rms = [t.detach().square().mean(dims).sqrt() for t in ((b - a) / share, b)]
            allowed = self.atol + self.rtol * rms[1]
            ratio = torch.where(rms[0] > 0, rms[0] / allowed, 0)
            worst = max(worst, float(ratio.nan_to_num(inf, inf).max()))
        return worst


def crossing(take: Take, look: Callable[[State], float], state: State, part: Part, ends: tuple[float, float]) -> Part:
    """The part of some steps that ends where what `look` tells, `ends` before and after them, is zero.

    By the Illinois variant of regula falsi (Dowell and Jarratt, 1971), to round-off.
    """

    def scaled(share: float) -> Part:
        return [(state.time + share * (time - state.time), share * size) for time, size in part]

    (a, b), (low, high) = (0.0, 1.0), ends
    for _ in range(100):
        share = (a * high - b * low) / (high - low)
        value, near = look(take(state, scaled(share))), abs(share - b) < 1e-13
        if value == 0:
            return scaled(share)
        if value * high < 0:
            a, low = b, high
        else:
            low /= 2
        b, high = share, value
        if near:
            break
    return scaled(b)


def sizes_of(times: Sequence[float], eps: float) -> list[float]:
    """Differences of times, each equal to the one before where they differ by round-off: one size, one matrix."""
    slack = 4 * eps * max(map(abs, times))
    found: list[float] = []
    for i in range(1, len(times)):
        size = times[i] - times[i - 1]
        found.append(found[-1] if found and abs(size - found[-1]) <= slack else size)
    return found
