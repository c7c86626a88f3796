"""What a solver returns: the value, and for every batch item how it went and what to do if it did not go well."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.status import Status, worst


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
        linear_iterations: iterations of conjugate gradients in all linear solves of the item together, refinement
            included (a solve of the adjoint comes later and does not count); 0 where none ran, as with `Direct()`.
        contraction: by what factor one of those iterations shrinks ‖r‖, in the geometric mean,
            (Π_k ‖r_k‖ / ‖b_k‖)^(1 / linear_iterations) over the solves k; NaN where none ran.
    """

    value: Tensor
    status: Any
    iterations: Int[Tensor, "*b"]
    residual: Float[Tensor, "*b"]
    energy: Float[Tensor, "*b"]
    method: str
    linear_iterations: Int[Tensor, "*b"]
    contraction: Float[Tensor, "*b"]

    @property
    def converged(self) -> bool:
        """Whether every batch item did."""
        return worst(self.status) is Status.CONVERGED

    def __repr__(self) -> str:
        size = f"value {tuple(self.value.shape)}"
        if self.iterations.numel():
            size += f", iterations ≤ {int(self.iterations.max())}, residual ≤ {float(self.residual.max()):.2e}"
            if bool((self.linear_iterations > 0).any()):
                worst_rate = float(self.contraction.nan_to_num(0).max())
                size += f", linear iterations ≤ {int(self.linear_iterations.max())}, contraction ≤ {worst_rate:.2f}"
        return f"Solution({worst(self.status).name}, {self.method}; {size})"


def default_rtol(dtype: torch.dtype) -> float:
    """1e-12 in float64, 1e-5 in float32: round-off level."""
    return 1e-12 if dtype == torch.float64 else 1e-5
