"""Gradient-based minimisation of the energy with the optimisers of PyTorch: the paper's own route, for comparison.

They see the same energy and its gradient with respect to the dofs, and nothing of its curvature, so their step counts
grow as the mesh is refined; `Newton` and its linear solvers do not. Each item's energy is handed over in units of its
first residual, far above 1: `torch.optim.LBFGS` forgets pairs with s·y below 1e-10, whatever the units, and Adam adds
1e-8 to the size of gradients; and the items of a batch weigh alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.support.arithmetic import norm, per_item
from fem.support.checks import check_integers, check_numbers
from fem.support.status import Status
from solvers.line_search import Bounds
from solvers.report import RUNNING, STATUSES, Effort, Report, finish, finish_small, round_off, settle


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with strong Wolfe line search (`torch.optim.LBFGS`) on the sum of the batch's energies.

    Items that end without success are tried once more, alone.

    Args:
        rtol: stop at this relative residual; 1e-6 in float64, 1e-3 in float32: near the minimum the line search sees
            the energy change in its last digits only, when the residual still has half of its own.
        max_iterations: at most this many steps.
        history: pairs kept.

    Raises:
        ValueError: settings out of range.
    """

    rtol: float | None = None
    max_iterations: int = 10_000
    history: int = 50

    def __post_init__(self):
        check_numbers("LBFGS", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("LBFGS", max_iterations=self.max_iterations, history=self.history)

    def steps(self, u: Tensor, closure) -> Iterator[int]:
        """Take steps for ever, some at a time; yields how many have been taken."""
        optimiser = torch.optim.LBFGS(
            [u], history_size=self.history, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        )
        taken = 0
        while True:
            some = min(20, self.max_iterations - taken)
            optimiser.param_groups[0].update(max_iter=some, max_eval=some + 25)
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

    Raises:
        ValueError: settings out of range.
    """

    lr: float = 1e-2
    rtol: float = 1e-4
    max_iterations: int = 20_000

    def __post_init__(self):
        check_numbers("Adam", "positive", lr=self.lr)
        check_numbers("Adam", "a tolerance", rtol=self.rtol)
        check_integers("Adam", max_iterations=self.max_iterations)

    def steps(self, u: Tensor, closure) -> Iterator[int]:
        """Take steps for ever, some at a time; yields how many have been taken."""
        taken, optimiser, lowest = 0, torch.optim.Adam([u], lr=self.lr), float("inf")
        while True:
            some, mean = min(50, self.max_iterations - taken), 0.0
            for _ in range(some):
                mean += float(torch.as_tensor(optimiser.step(closure), device=u.device)) / some
            if not mean < lowest:
                for group in optimiser.param_groups:
                    group["lr"] /= 2
            lowest, taken = min(lowest, mean), taken + some
            yield taken


def descent(form: DiscreteForm, u: Tensor, method: LBFGS | Adam, bounds: Bounds | None = None) -> Report:
    """Minimise from u "*b *shape", all items together; where L-BFGS ends without success an item gets a try alone.

    One that falls without end, or is far from the others in scale, spoils the steps of all. Adam's are dof by dof.
    """
    if bounds is not None:
        raise ValueError(f"`{type(method).__name__}()` has no bounds; use `Newton()`.")
    report = descend_together(form, u, method)
    if isinstance(method, Adam) or report.codes.numel() < 2:
        return report
    for index in map(tuple, (report.codes != STATUSES.index(Status.CONVERGED)).nonzero().tolist()):
        alone = descend_together(form.item(index), u[index], method)
        for name in ("u", "codes", "iterations", "residual"):
            getattr(report, name)[index] = getattr(alone, name)
    return report


def descend_together(form: DiscreteForm, u: Tensor, method: LBFGS | Adam) -> Report:
    """Minimise the sum of all items until each reaches the tolerance, none moves any more, or time is up."""
    lead = u.ndim - len(form.space.shape)
    leaf = u.clone().requires_grad_()
    codes = torch.full(u.shape[:lead], RUNNING, device=u.device)
    report = Report(u, codes, torch.zeros_like(codes), u.new_ones(u.shape[:lead]), Effort.none(u, u.shape[:lead]))
    with torch.no_grad():
        start = norm(form.residual(u), lead)
    scale = 1e-6 / torch.finfo(u.dtype).eps / torch.where(start > 0, start, 1)  # its square must not overflow
    rtol = method.rtol if method.rtol is not None else 1e-6 if u.dtype == torch.float64 else 1e-3

    def closure() -> Tensor:
        running, value = codes == RUNNING, leaf.detach()
        with torch.no_grad():
            leaf.grad = torch.where(per_item(running, u), per_item(scale, u) * form.residual(value), 0)
            return torch.where(running, scale * form.value(value), 0).sum()

    best, idle, taken, steps = float("inf"), 0, 0, method.steps(leaf, closure)
    while True:
        running, value = codes == RUNNING, leaf.detach().clone()
        with torch.no_grad():
            state = form.evaluate(value)
            r, size = state.residual, norm(state.magnitude, lead)
            found = torch.where(size > 0, norm(r, lead) / size, norm(r, lead))
            moved = round_off(form, value, r, form.constraint.fixed)
        # An item is what it was when it finished; the others move on.
        report.u = torch.where(per_item(running, u), value, report.u)
        report.residual = torch.where(running, found, report.residual)
        report.iterations = torch.where(running, taken, report.iterations)
        finish(codes, ~torch.isfinite(found), Status.NOT_FINITE)
        with torch.no_grad():
            finish_small(codes, report, form, value, size, rtol)
        if taken:
            settle(codes, report, norm(r, lead), moved)
        running = codes == RUNNING
        if not bool(running.any()):
            break
        worst = float(found[running].max())
        idle = 0 if worst < 0.99 * best else idle + 1
        best = min(best, worst)
        if idle >= 20:
            finish(codes, running, Status.STALLED)
            break
        if taken >= method.max_iterations:
            finish(codes, running, Status.MAX_ITERATIONS)
            break
        try:
            taken = next(steps)
        except IndexError:  # what the line search of PyTorch raises where no energy along it is finite
            finish(codes, running, Status.NOT_FINITE)
            break
    report.u = form.constraint.insert(report.u, form.data)
    return report
