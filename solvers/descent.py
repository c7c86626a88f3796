"""Gradient-based minimisation of the energy with the optimisers of PyTorch: the paper's own route, for comparison.

They see the same energy and its gradient with respect to the dofs, and nothing of its curvature, so their step counts
grow as the mesh is refined; `Newton` and its linear solvers do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fem.energy import Lowered
from solvers.newton import RUNNING, STATUSES, Bounds, Report, finish
from solvers.solution import Status, norm


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with strong Wolfe line search (`torch.optim.LBFGS`) on the sum of the batch's energies.

    Args:
        rtol: stop at this relative residual.
        max_iterations: at most this many steps.
        history: pairs kept.
    """

    rtol: float = 1e-8
    max_iterations: int = 10_000
    history: int = 50

    def steps(self, u: Tensor, closure) -> Iterator[int]:
        """Take steps for ever, some at a time; yields how many have been taken."""
        optimiser = torch.optim.LBFGS(
            [u], history_size=self.history, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        )
        taken = 0
        while True:
            optimiser.param_groups[0].update(max_iter=min(20, self.max_iterations - taken), max_eval=10**6)
            optimiser.step(closure)
            taken = optimiser.state[u]["n_iter"]
            yield taken


@dataclass(frozen=True)
class Adam:
    """Adam (`torch.optim.Adam`), with the step length halved each time the energy stops falling.

    Args:
        lr: first step length, in units of u.
        rtol: stop at this relative residual.
        max_iterations: at most this many steps.
    """

    lr: float = 1e-2
    rtol: float = 1e-4
    max_iterations: int = 20_000

    def steps(self, u: Tensor, closure) -> Iterator[int]:
        """Take steps for ever, some at a time; yields how many have been taken."""
        taken, optimiser, lowest = 0, torch.optim.Adam([u], lr=self.lr), float("inf")
        while True:
            some, mean = min(50, self.max_iterations - taken), 0.0
            for _ in range(some):
                mean += float(torch.as_tensor(optimiser.step(closure))) / some
            if not mean < lowest:
                for group in optimiser.param_groups:
                    group["lr"] /= 2
            lowest, taken = min(lowest, mean), taken + some
            yield taken


def descent(lowered: Lowered, u: Tensor, method: LBFGS | Adam, bounds: Bounds | None = None) -> Report:
    """Minimise from u "*b *shape" until every item reaches the tolerance, none moves any more, or time is up."""
    if bounds is not None:
        raise ValueError(f"`{type(method).__name__}()` has no bounds; use `Newton()`.")
    lead = u.ndim - len(lowered.space.shape)
    u = u.clone()
    leaf = u.requires_grad_()

    def closure() -> Tensor:
        leaf.grad = lowered.residual(leaf.detach()).detach()
        with torch.no_grad():
            return lowered.value(leaf).sum()

    codes = torch.full(u.shape[:lead], RUNNING, device=u.device)
    report = Report(u, codes, torch.zeros_like(codes), torch.ones(u.shape[:lead], dtype=u.dtype, device=u.device))
    best, idle, taken, steps = float("inf"), 0, 0, method.steps(leaf, closure)
    while True:
        with torch.no_grad():
            value = leaf.detach()
            r, size = lowered.residual(value), norm(lowered.residual(value, magnitude=True), lead)
            report.residual = torch.where(size > 0, norm(r, lead) / size, norm(r, lead))
        finish(codes, ~torch.isfinite(report.residual), Status.NOT_FINITE)
        codes[report.residual <= method.rtol] = STATUSES.index(Status.CONVERGED)
        worst = float(report.residual.max())
        idle = 0 if worst < 0.99 * best else idle + 1
        best = min(best, worst)
        if idle >= 20:
            finish(codes, codes == RUNNING, Status.STALLED)
        if not bool((codes == RUNNING).any()):
            break
        if taken >= method.max_iterations:
            finish(codes, codes == RUNNING, Status.MAX_ITERATIONS)
            break
        taken = next(steps)
        report.iterations += codes.eq(RUNNING) * (taken - report.iterations)
    report.u = lowered.constraint.insert(leaf.detach(), lowered.data)
    return report
