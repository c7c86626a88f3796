"""What an iteration knows of each item of a batch: how it ended, and whether its residual is more than round-off."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.support.arithmetic import norm
from fem.support.status import Status
from solvers.operators.system import Prepared
from solvers.reuse import Kept


@dataclass(eq=False)
class Effort:
    """Iterations of all linear solves, and the logarithm of the product of their reductions ‖r‖ / ‖b‖, per item."""

    iterations: Tensor
    logarithm: Tensor

    @classmethod
    def none(cls, u: Tensor, batch: Sequence[int]) -> "Effort":
        return cls(torch.zeros(batch, dtype=torch.int64, device=u.device), u.new_zeros(batch))

    def add(self, prepared: Prepared, items: Tensor) -> None:
        """The last solve of some items."""
        if prepared.iterations is not None and prepared.reduction is not None:
            self.iterations += torch.where(items, prepared.iterations, 0)
            self.logarithm += torch.where(items, prepared.reduction.log(), 0)

    @property
    def contraction(self) -> Float[Tensor, "*b"]:
        """The geometric mean of the reduction of each iteration; NaN where there was none."""
        return (self.logarithm / self.iterations).exp()


@dataclass(eq=False)
class Report:
    """What an iteration ended with, per batch item, and the last factorisation for the adjoint to use."""

    u: Tensor
    codes: Tensor  # index into STATUSES
    iterations: Tensor
    residual: Tensor
    effort: Effort
    active: Tensor | None = None
    prepared: Prepared | None = None
    kept: Kept | None = None  # the same, where the next solve may take it
    energy: Tensor | None = None
    detail: str = ""


STATUSES = list(Status)
RUNNING = len(STATUSES)  # no status: nothing takes an item that is left running for one that has ended
ROUND_OFF = 2  # residuals up to so many times their round-off count as zero


def finish(codes: Tensor, items: Tensor, status: Status, kind: int = RUNNING) -> None:
    """Record the status of items that are still running (or of another kind)."""
    codes.masked_fill_((codes == kind) & items, STATUSES.index(status))


def settle(codes: Tensor, report: Report, size: Tensor, floor: Tensor) -> None:
    """Record convergence of items whose residual is nothing but round-off, and its size relative to ‖|H||u|‖ ≈ floor/ε.

    All contributions may be round-off too (a constant u), and then say nothing about its size.
    """
    items = (size <= ROUND_OFF * floor) & (codes == RUNNING)
    eps = torch.finfo(size.dtype).eps
    report.residual = torch.where(items & (floor > 0), eps * size / floor, report.residual)
    finish(codes, items, Status.CONVERGED)


def finish_small(codes: Tensor, report: Report, form: DiscreteForm, u: Tensor, scale: Tensor, rtol: float) -> None:
    """Record convergence of items whose residual is small, unless that is so because every form of size one underflows.

    Args:
        scale: ‖Σ_q |r_q|‖ "*b" at u.
    """
    small, tiny, fixed = (
        (codes == RUNNING) & (report.residual <= rtol),
        torch.finfo(u.dtype).tiny,
        form.constraint.fixed,
    )
    lost = small & (scale < tiny)
    if bool(lost.any()) and not (fixed is not None and bool(fixed.all())):
        lost &= norm(form.evaluate(u + signs(u)).magnitude, scale.ndim) < tiny
        if bool(lost.any()):
            report.detail = f" (all contributions underflow in {str(u.dtype).removeprefix('torch.')}: scale the data)"
        finish(codes, lost, Status.SINGULAR)
    finish(codes, small, Status.CONVERGED)


def signs(u: Tensor) -> Tensor:
    """±1 at random, the same each time."""
    generator = torch.Generator(u.device).manual_seed(0)
    return torch.randint(0, 2, u.shape, generator=generator, device=u.device).to(u.dtype) * 2 - 1


def round_off(form: DiscreteForm, u: Tensor, r: Tensor, fixed: Tensor | None) -> Float[Tensor, "*b"]:
    """How far the residual moves when u does in its last digit: below this no u is better than another."""
    moved = form.residual(u * (1 + torch.finfo(u.dtype).eps * signs(u)))
    difference = moved - r
    if fixed is not None:
        difference = difference.masked_fill(fixed, 0)
    return norm(difference, u.ndim - len(form.space.shape))
