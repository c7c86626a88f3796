"""Knots as unknowns: one share σ_i ≥ 0 of the parameter range per span that is not empty,

    t_{i+1} - t_i = (φ/K + (1 - φ) σ_i / Σ σ) (t_n - t_p),    φ the `floor`, K the number of these spans,

so that an optimum with a double knot, whose span lies at the floor, is an active bound and not a limit at infinity.
Knots that are equal stay so.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class FreeKnots:
    """The knots of one direction, "b m", of that degree, about to move."""

    knots: Float[Tensor, "b m"]
    degree: int
    floor: float

    @property
    def corners(self) -> Float[Tensor, "b c"]:
        """The knots t_p, …, t_n of the range."""
        return self.knots[:, self.degree : self.knots.shape[-1] - self.degree]

    @property
    def count(self) -> int:
        return self.knots.shape[-1] - 2 * self.degree - 1

    def bounds(self) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The shares of the given knots, and lower and upper bounds of all shares."""
        spans = self.corners.diff() / (self.corners[:, -1:] - self.corners[:, :1])
        moving = spans > 0
        share = ((spans - self.floor / moving.sum(-1, keepdim=True)) / (1 - self.floor)).clamp_min(0) * moving
        upper = torch.where(moving, torch.inf, 0.0).to(share)
        return share / share.sum(-1, keepdim=True), torch.zeros_like(share), upper

    def at(
        self, sigma: Float[Tensor, "a k"], items: Int[Tensor, "a"]
    ) -> tuple[Float[Tensor, "a m"], Float[Tensor, "a k m"]]:
        """Knots and their derivatives in the shares of these items."""
        p, corners = self.degree, self.corners[items]
        start, length = corners[:, :1], corners[:, -1:] - corners[:, :1]
        moving = (corners.diff() > 0).to(sigma)
        fixed = moving.cumsum(-1) / moving.sum(-1, keepdim=True)
        total = sigma.sum(-1, keepdim=True)
        part = sigma.cumsum(-1) / total
        inner = start + length * torch.lerp(part, fixed, self.floor)[:, :-1]
        before = torch.ones(2 * part.shape[-1:], dtype=part.dtype, device=part.device).triu()  # σ_k moves what follows
        change = (length * (1 - self.floor) / total)[..., None] * (before - part[:, None])[..., :-1]
        knots = self.knots[items]
        return torch.cat([knots[:, : p + 1], inner, knots[:, -p - 1 :]], -1), pad(change, (p + 1, p + 1))
