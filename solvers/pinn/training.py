"""Training of networks that stand for solutions: Adam with a decaying rate, then L-BFGS on a fixed loss, to a budget.

`torch.optim.LBFGS` keeps a pair (s, y) of its history only where s·y > 1e-10, whatever the units of the loss, so at
small losses it forgets the curvature and stands still. Here it sees the loss in units of its round-off, which every
restart renews. A stall is a number of steps that lower the loss by no more than round-off, or a line search without a
step. L-BFGS then starts afresh without its history, and is called stalled where that does not help.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fem.support.checks import check_callable, check_integers, check_kind, check_numbers
from fem.support.status import Status, check_fit

CHUNK = 25  # steps between two looks at the clock


class Record(NamedTuple):
    """A moment of the training; `measured` is what `monitor` said, NaN without one."""

    seconds: float
    iteration: int
    loss: float
    measured: float


@dataclass(frozen=True)
class Fit:
    """How a training went.

    Attributes:
        status: `BUDGET` (used up), `STALLED` (L-BFGS cannot lower the loss any more), or `NOT_FINITE` (the loss became
            so; the network holds the last parameters where it was not).
        loss: of the network as it is.
        adam, lbfgs: steps of each phase.
        restarts: of L-BFGS.
        seconds: of training, without those of `monitor`.
        history: moments, at the start and at least every 25 steps.
    """

    status: Status
    loss: float
    adam: int
    lbfgs: int
    restarts: int
    seconds: float
    history: tuple[Record, ...] = field(repr=False)


def fit_pinn(
    network: nn.Module,
    loss: Callable[[], Tensor],
    seconds: float | None = None,
    steps: int | None = None,
    adam_share: float = 0.1,
    lr: float = 1e-3,
    history: int = 100,
    monitor: Callable[[], float] | None = None,
    throw: bool = True,
) -> Fit:
    """Minimise loss() over the parameters of a network until the budget is used, or until nothing helps.

    Args:
        network: whose parameters are changed in place.
        loss: a scalar. L-BFGS needs the same function each time, so points may be drawn at random only under Adam.
        seconds, steps: the budget; one is enough, and the first to be used ends the training.
        adam_share: of the budget that goes to Adam, the rest to L-BFGS; 1 is Adam alone.
        lr: first rate of Adam, which decays geometrically to a hundredth.
        history: pairs that L-BFGS keeps.
        monitor: called at each record, outside the time, for an error to note down.
        throw: raise where the loss does not stay finite; False returns the fit with that status.

    Raises:
        ConvergenceError: the loss became NaN or infinite, unless `throw=False`; the fit, of the last parameters where
            it was not, is its `.solution`. To run out of the budget or to stall is an ordinary end.
        ValueError: no budget or none left, a share or a rate out of range, a loss that is not a finite scalar at the
            start or that changes under L-BFGS.
    """
    if seconds is None and steps is None:
        raise ValueError("`fit_pinn` needs a budget: `seconds=`, `steps=`, or both.")
    check_kind("fit_pinn", "network", network, nn.Module, "a network, an `nn.Module`")
    check_callable("fit_pinn", "loss", loss, "a function without arguments that returns the loss: `lambda: ...`")
    check_callable("fit_pinn", "monitor", monitor, "a function without arguments, or None", optional=True)
    check_numbers("fit_pinn", "positive", optional=True, seconds=seconds)
    check_integers("fit_pinn", optional=True, steps=steps)
    check_numbers("fit_pinn", "positive", lr=lr)
    check_numbers("fit_pinn", "a share", adam_share=adam_share)
    check_integers("fit_pinn", history=history)
    training = Run(network, loss, seconds, steps, monitor)
    if adam_share < 1:
        training.check_fixed()
    adam = training.adam(adam_share, lr)
    status, restarts = Status.BUDGET, 0
    if training.finite and adam_share < 1:
        status, restarts = training.lbfgs(history)
    if not training.finite:
        training.restore()
        status = Status.NOT_FINITE
    last = training.record[-1]
    fit = Fit(status, last.loss, adam, training.taken - adam, restarts, last.seconds, tuple(training.record))
    return check_fit("fit_pinn(network, loss)", fit, throw)


class Run:
    """The state of a training: the clock, the record, and the last parameters with a finite loss."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[], Tensor],
        seconds: float | None,
        steps: int | None,
        monitor: Callable[[], float] | None,
    ):
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.loss, self.seconds, self.steps, self.monitor = loss, seconds, steps, monitor
        self.taken, self.record, self.finite, self.kept = 0, [], True, [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.Adam(self.parameters)  # imports for seconds what is no part of the training
        self.start = time.perf_counter()
        value = loss()
        if not isinstance(value, Tensor) or value.ndim or not bool(torch.isfinite(value)):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else repr(value)
            raise ValueError(f"the loss must be a finite scalar tensor at the start; got {got}.")
        if not value.requires_grad:
            raise ValueError("the loss does not depend on the network's parameters: it must call the network.")
        self.note(float(value.detach()))

    def check_fixed(self) -> None:
        """Raise where the loss is another one each time."""
        before, again = self.record[0].loss, self.value()
        if abs(before - again) > 1e-3 * abs(before):
            raise ValueError(
                f"the loss is {before} and then {again} for the same parameters, and L-BFGS needs one function: draw "
                "its points once, or train by Adam alone with `adam_share=1`."
            )

    def used(self) -> float:
        """Of the budget, as a share."""
        share = 0.0 if self.seconds is None else (time.perf_counter() - self.start) / self.seconds
        return share if self.steps is None else max(share, self.taken / self.steps)

    def left(self) -> int:
        """Steps until the next look at the clock: no more than the budget has room for at the pace so far."""
        if not self.taken:
            return 1
        return max(1, min(CHUNK, round(self.taken * (1 / self.used() - 1))))

    def note(self, loss: float) -> None:
        """Keep parameters with a finite loss, and record the moment with the clock stopped."""
        now = time.perf_counter()
        finite = [torch.isfinite(p).all() for p in self.parameters]
        self.finite = bool(torch.stack(finite).all()) and loss == loss and abs(loss) != float("inf")
        if self.finite:
            self.kept = [p.detach().clone() for p in self.parameters]
            measured = float("nan") if self.monitor is None else float(self.monitor())
            self.record.append(Record(now - self.start, self.taken, loss, measured))
        self.start += time.perf_counter() - now

    def value(self) -> float:
        with torch.no_grad():
            return float(self.loss())

    def restore(self) -> None:
        with torch.no_grad():
            for p, kept in zip(self.parameters, self.kept, strict=True):
                p.copy_(kept)

    def backward(self, scale: float = 1.0) -> Tensor:
        for p in self.parameters:
            p.grad = None
        value = scale * self.loss()
        value.backward()
        return value.detach()

    def adam(self, share: float, lr: float) -> int:
        """Steps of Adam for a share of the budget."""
        while self.finite and self.used() < share:
            for _ in range(self.left()):
                progress = self.used() / share
                if progress >= 1:
                    break
                self.optimiser.param_groups[0]["lr"] = lr * 0.01**progress
                self.backward()
                self.optimiser.step()
                self.taken += 1
            self.note(self.value())
        return self.taken

    def lbfgs(self, history: int) -> tuple[Status, int]:
        """L-BFGS until the budget is used or a fresh start gains nothing; how it ended, and fresh starts."""
        limits, value, restarts = torch.finfo(self.parameters[0].dtype), self.value(), 0
        eps = limits.eps
        while True:
            first, scale = value, 1 / max(eps * abs(value), limits.tiny**0.5)
            optimiser = torch.optim.LBFGS(
                self.parameters,
                1,
                history_size=history,
                tolerance_grad=0,
                tolerance_change=0,
                line_search_fn="strong_wolfe",
            )
            stalled = False
            while not stalled:
                if self.used() >= 1:
                    return Status.BUDGET, restarts
                some, before, taken = self.left(), value, self.taken
                optimiser.param_groups[0].update(max_iter=some, max_eval=25 * some)
                done = optimiser.state[self.parameters[0]].get("n_iter", 0)
                optimiser.step(lambda scale=scale: self.backward(scale))
                self.taken += optimiser.state[self.parameters[0]].get("n_iter", 0) - done
                value = self.value()
                self.note(value)
                if not self.finite:
                    return Status.NOT_FINITE, restarts
                stalled = self.taken - taken < some or before - value <= 10 * eps * abs(value)
            if first - value <= 1000 * eps * abs(value):
                return Status.STALLED, restarts
            restarts += 1
