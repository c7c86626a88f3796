"""What a solver returns: the value, and for every batch item how it went and what to do if it did not go well."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Status(Enum):
    """How a solve ended; `str(status)` says what to do about it."""

    CONVERGED = "converged"
    MAX_ITERATIONS = (
        "the iteration limit was reached: raise `max_iterations`, start closer with `initial=`, or loosen `rtol`"
    )
    STALLED = (
        "no step reduces the energy or the residual further: start closer with `initial=`, or check that the "
        "density is smooth where the solution lies"
    )
    SINGULAR = (
        "the problem is singular: some change of u leaves every equation as it is. Prescribe values with `Dirichlet`, "
        "fix the mean of a pure Neumann problem with `MeanZero(V)`, or add a term that sees that change; if only the "
        "Hessian at the start is to blame, start elsewhere with `initial=`"
    )
    UNBOUNDED = (
        "the energy has no lower bound: it keeps falling along a direction of negative curvature. Check the signs of "
        "the density; use `solve` if a saddle point is meant"
    )
    SADDLE = (
        "the stationary point is a saddle, not a minimum: start elsewhere with `initial=`, or use `solve` if a "
        "saddle point is meant"
    )
    NOT_FINITE = (
        "the energy or its derivatives are not finite at the iterate: start elsewhere with `initial=`, and look for "
        "logarithms, roots or divisions outside their domain"
    )
    BUDGET = "the budget of seconds or steps is used up: raise `seconds` or `steps`"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of `minimize` or `solve`, all but `method` per batch item.

    Attributes:
        value: dofs "*b n", "*b n c" or "*b N", differentiable in whatever the problem was made of.
        status: a `Status`; for a batch, nested tuples of them.
        iterations: Newton steps, or steps of the method asked for.
        residual: relative: ‖Σ_q r_q‖ / ‖Σ_q |r_q|‖ over the contributions r_q of the quadrature points and of each
            derivative in the density: 1 means forces that do not balance at all and round-off means equilibrium,
            whatever the scale of the problem or the initial guess. Where nothing is left but the round-off of u
            itself, ‖r‖ / ‖|H||u|‖.
        energy: J at the value; NaN for weak forms.
        method: what ran, in words.
    """

    value: Tensor
    status: Any
    iterations: Int[Tensor, "*b"]
    residual: Float[Tensor, "*b"]
    energy: Float[Tensor, "*b"]
    method: str

    @property
    def converged(self) -> bool:
        """Whether every batch item did."""
        return all(s is Status.CONVERGED for s in flatten(self.status))

    def __repr__(self) -> str:
        worst = next((s for s in flatten(self.status) if s is not Status.CONVERGED), Status.CONVERGED)
        return (
            f"Solution({worst.name}, {self.method}; value {tuple(self.value.shape)}, "
            f"iterations ≤ {int(self.iterations.max())}, residual ≤ {float(self.residual.max()):.2e})"
        )


class ConvergenceError(RuntimeError):
    """A solver did not reach its tolerance; `.solution` holds what it has."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


def flatten(status: Any) -> list[Status]:
    """All statuses of nested tuples, in order."""
    return [status] if isinstance(status, Status) else [s for part in status for s in flatten(part)]


def nest(statuses: list[Status], batch: tuple[int, ...]) -> Any:
    """A flat list of statuses as nested tuples of the batch shape."""
    if not batch:
        return statuses[0]
    step = len(statuses) // batch[0] if batch[0] else 0
    return tuple(nest(statuses[i * step : (i + 1) * step], batch[1:]) for i in range(batch[0]))


def norm(v: Tensor, lead: int) -> Float[Tensor, "*b"]:
    """Euclidean norm over all but the leading batch axes."""
    return torch.linalg.vector_norm(v.flatten(lead), dim=-1)


def dot(a: Tensor, b: Tensor, lead: int) -> Float[Tensor, "*b"]:
    """Inner product over all but the leading batch axes."""
    a, b = a.flatten(lead), b.flatten(lead)
    if a.shape == b.shape and a.shape[:-1].numel() == 1:  # by BLAS, in one pass
        return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(a.shape[:-1])
    return torch.linalg.vecdot(a, b)


def per_item(t: Tensor, like: Tensor) -> Tensor:
    """A batch scalar with trailing axes of length one, to multiply dofs with."""
    return t.reshape((*t.shape, *[1] * (like.ndim - t.ndim)))


def default_rtol(dtype: torch.dtype) -> float:
    """1e-12 in float64, 1e-5 in float32: round-off level."""
    return 1e-12 if dtype == torch.float64 else 1e-5
