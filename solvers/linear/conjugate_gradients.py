"""Conjugate gradients on any device, with any preconditioner; and what they tell of eigenvalues (Lanczos)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fem.space.reals import Reals
from fem.support.arithmetic import dot, norm, per_item
from fem.support.checks import check_integers, check_kind, check_numbers
from fem.support.conjugate_gradients import conjugate_gradients
from solvers.operators.system import Preconditioner, System


@dataclass(frozen=True)
class Jacobi:
    """z = D⁻¹ r, with the absolute values of the diagonal."""

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        diagonal = system.diagonal
        inverse = torch.where(diagonal == 0, 1, 1 / diagonal.abs())
        return lambda r: inverse * r


@dataclass(frozen=True)
class CG:
    """Preconditioned conjugate gradients, all batch items at once, on any device.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.
        preconditioner: what approximates the inverse; by default that of the diagonal (Jacobi).

    Raises:
        ValueError, TypeError: settings out of range, or `preconditioner` that is none.
    """

    rtol: float | None = None
    max_iterations: int = 20_000
    preconditioner: Preconditioner = Jacobi()

    def __post_init__(self):
        check_numbers("CG", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("CG", max_iterations=self.max_iterations)
        wanted = "a preconditioner, `Jacobi()`, `Multigrid()`, `AlgebraicMultigrid()` or `FastDiagonalization()`"
        check_kind("CG", "preconditioner", self.preconditioner, Preconditioner, wanted)

    def prepare(self, system: System) -> "PreparedCG":
        if not system.symmetric:
            raise ValueError("`CG()` needs a symmetric operator, and a weak form has none; use `Direct()`.")
        check_global_unknowns(system)
        return PreparedCG(system, self)


def check_global_unknowns(system: System) -> None:
    """Raise where global unknowns are multipliers, which an energy sees along with others alone."""
    space = system.form.space
    for i, field in enumerate(space.fields):
        if isinstance(field, Reals) and bool((space.split(system.diagonal)[i] == 0).any()):
            raise ValueError(
                "`CG()` and what preconditions it look for minima, and global unknowns that are multipliers (`Reals`) "
                "make a saddle point; `solve(..., method=Direct())` finds it, on the CPU."
            )


class PreparedCG:
    exact = False

    def __init__(self, system: System, method: CG):
        self.system, self.method = system, method
        self.precondition = method.preconditioner.preconditioner(system)  # first: it may leave an assembled diagonal
        diagonal = system.diagonal
        lead = len(system.batch)
        self.singular = (diagonal == 0).flatten(lead).any(-1)
        self.indefinite = (diagonal < 0).flatten(lead).any(-1)
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=system.u.device)
        self.reduction = torch.ones(system.batch, dtype=diagonal.dtype, device=system.u.device)

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """x with ‖b − H x‖ ≤ max(rtol ‖b‖, atol); items whose curvature turns negative stop there and are flagged."""
        b, target = self.goal(rhs, atol)
        x, _, self.iterations, self.reduction = self.iterate(b, target, self.method.max_iterations)
        return x

    def goal(self, rhs: Tensor, atol: Tensor | None) -> tuple[Tensor, Tensor]:
        """The right-hand side of the whole batch, and the norms of residuals "*b" that will do."""
        system, lead = self.system, len(self.system.batch)
        b = system.project(rhs).expand(*system.batch, *system.form.space.shape)
        rtol = self.method.rtol if self.method.rtol is not None else 0.1 * torch.finfo(b.dtype).eps ** 0.75
        target = rtol * norm(b, lead)
        return b, target if atol is None else torch.maximum(target, atol)

    def iterate(self, b: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, what it leaves of b (nothing for items that met negative curvature), the iterations "*b" and ‖r‖ / ‖b‖.

        NaN where b or the matrix is not finite.
        """
        size = norm(b, target.ndim)  # in units of it no product of two residuals underflows
        known = torch.isfinite(size) & self.system.finite
        size = torch.where((size > 0) & known, size, 1)
        precondition = self.precondition
        if not bool(known.all()):  # what is no number would reach other items through products with zeros
            precondition = lambda r: torch.where(per_item(known, r), self.precondition(r), 0)  # noqa: E731
            b = torch.where(per_item(known, b), b, 0)
        x, r, p = torch.zeros_like(b), b / per_item(size, b), torch.empty_like(b)
        iterations, turned = conjugate_gradients(self.system.apply, precondition, x, r, p, target / size, limit)
        self.indefinite = self.indefinite | turned
        reduction = torch.where(iterations > 0, norm(r, target.ndim), 1)
        x.mul_(per_item(torch.where(known, size, torch.nan), x))
        return x, r.masked_fill(per_item(turned, r), 0).mul_(per_item(size, r)), iterations, reduction


def ritz_values(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    r: Float[Tensor, "..."],
    steps: int,
    lead: int,
) -> Float[Tensor, "*b k"]:
    """What so many steps of Lanczos' iteration from r know of the eigenvalues of BA, item by item, in ascending order.

    The outermost come close first, always from inside. Where nothing new is left to find, a value is repeated.

    Args:
        apply, precondition: A and B, both symmetric; what they return may be overwritten by their next call.
        lead: batch axes of r "*b …".
    """
    before, z, least = r, precondition(r), torch.finfo(r.dtype).eps ** 0.5
    beta, diagonal, beside = dot(r, z, lead).clamp(min=0).sqrt(), [], []
    going = beta > 0
    for k in range(steps):
        scale = per_item(torch.where(going, 1 / beta, 0), r)
        p, q = scale * r, scale * z  # p = B⁻¹ q, qᵀ p = 1
        r = torch.addcmul(apply(q), per_item(beta, r), before, value=-1) if k else apply(q)
        alpha = dot(q, r, lead)
        r = torch.addcmul(r, per_item(alpha, r), p, value=-1)
        diagonal.append(torch.where(going, alpha, diagonal[0]) if k else alpha)
        if k + 1 < steps:
            before, z = p, precondition(r)
            beta = dot(r, z, lead).clamp(min=0).sqrt()
            going = beta > least * alpha.abs()  # what is left else is round-off
            beta = torch.where(going, beta, 0)
            beside.append(beta)
    off = torch.stack(beside, -1).double().diag_embed(-1)
    return torch.linalg.eigvalsh(off + off.mT + torch.stack(diagonal, -1).double().diag_embed())
