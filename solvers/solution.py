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
        return worst(self.status) is Status.CONVERGED

    def __repr__(self) -> str:
        size = f"value {tuple(self.value.shape)}"
        if self.iterations.numel():
            size += f", iterations ≤ {int(self.iterations.max())}, residual ≤ {float(self.residual.max()):.2e}"
        return f"Solution({worst(self.status).name}, {self.method}; {size})"


def norm(v: Tensor, lead: int) -> Float[Tensor, "*b"]:
    """Euclidean norm over all but the leading batch axes, where squares would under- or overflow too."""
    flat, info = v.flatten(lead), torch.finfo(v.dtype)
    plain = torch.linalg.vector_norm(flat, dim=-1)
    if not v.is_cuda and bool(((plain > info.tiny**0.5 / info.eps) & (plain < info.max**0.5)).all()):
        return plain
    largest = flat.abs().amax(-1) if flat.shape[-1] else plain
    scaled = (largest > 0) & torch.isfinite(largest)
    unit = torch.linalg.vector_norm(flat / torch.where(scaled, largest, 1)[..., None], dim=-1)
    return torch.where(scaled, largest * unit, largest)


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
