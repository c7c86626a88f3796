"""Free knots and weights by variable projection: the control points are eliminated, what is left is a small problem.

For knots and weights x let Φ(x) be the matrix of rational functions at the data points p. The best control points are
P(x) = Φ⁺ p, and

    f(x) = ½ |p - Φ(x) P(x)|²,    ∂f/∂x_k = -r · D_k,    D_k = (∂Φ/∂x_k) P,    r = p - Φ P,

is minimised by `minimize_bounded` with Kaufman's matrix H_kl = D_k · (I - ΦΦ⁺) D_l. All of it comes from Gram matrices
and transforms of fields over the data (`nurbs/fitting/design_matrix.py`), so that the columns of free weights, one per
control point, are never written out:

    R_i = w_i N_i / W,    ∂S/∂log w_i = R_i (P_i - S)

The unknowns are the shares of the knots' spans (`nurbs/fitting/free_knots.py`) and the logarithms of the weights.

Source: G. Golub, V. Pereyra, Separable nonlinear least squares: the variable projection method and its applications,
Inverse Problems 19 (2003); L. Kaufman, A variable projection method for solving separable nonlinear least squares
problems, BIT 15 (1975).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nurbs.fitting.design_matrix import CloudDesign, Design, GridDesign
from nurbs.fitting.free_knots import FreeKnots

WEIGHT_RANGE = 1e3  # weights stay between its inverse and itself


@dataclass(frozen=True, eq=False)
class ReducedProblem:
    """f of the free knots and weights, for each item of a batch.

    Args:
        points: data "b q d", a grid flattened.
        parameters: a tuple of "b q", one per direction of a grid, or scattered "b q r".
        knots: "b m" per direction, where the search starts.
        degree: per direction.
        weights: "b n", the start, or what they are where not free; None for a polynomial patch.
        free_knots, free_weights: what is searched for.
        floor: no span becomes shorter than this times the mean one.
    """

    points: Float[Tensor, "b q d"]
    parameters: tuple[Float[Tensor, "b _"], ...] | Float[Tensor, "b q r"]
    knots: Sequence[Float[Tensor, "b _"]]
    degree: Sequence[int]
    weights: Float[Tensor, "b n"] | None
    free_knots: bool
    free_weights: bool
    floor: float

    @property
    def moving(self) -> list[FreeKnots]:
        pairs = zip(self.knots, self.degree, strict=True)
        return [FreeKnots(t, p, self.floor) for t, p in pairs] if self.free_knots else []

    def start(self) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """x, and its lower and upper bounds."""
        parts = [knots.bounds() for knots in self.moving]
        if self.free_weights:
            assert self.weights is not None
            bound = torch.full_like(self.weights, log(WEIGHT_RANGE))
            parts.append((self.weights.log(), -bound, bound))
        x, lower, upper = (torch.cat(part, -1) for part in zip(*parts, strict=True))
        return x, lower, upper

    def unpack(
        self, x: Float[Tensor, "a k"], items: Int[Tensor, "a"]
    ) -> tuple[list[Float[Tensor, "a _"]], list[Float[Tensor, "a _ _"]], Float[Tensor, "a n"] | None]:
        """Knots, their derivatives in x per direction, and weights."""
        moving = self.moving
        *shares, logarithms = x.tensor_split(list(accumulate(k.count for k in moving)), -1)
        pairs = [knots.at(sigma, items) for knots, sigma in zip(moving, shares, strict=True)]
        weights = logarithms.exp() if self.free_weights else None if self.weights is None else self.weights[items]
        return [t for t, _ in pairs] or [t[items] for t in self.knots], [change for _, change in pairs], weights

    def design(self, knots: Sequence[Tensor], tangents: Sequence[Tensor], items: Tensor) -> Design:
        if isinstance(self.parameters, Tensor):
            return CloudDesign(knots, self.degree, self.parameters[items], tangents)
        return GridDesign(knots, self.degree, [u[items] for u in self.parameters], tangents)

    def __call__(
        self, x: Float[Tensor, "a k"], items: Int[Tensor, "a"]
    ) -> tuple[Float[Tensor, "a"], Float[Tensor, "a k"], Float[Tensor, "a k k"]]:
        """f, its gradient and Kaufman's matrix; f is infinite where the data do not determine the control points."""
        knots, tangents, w = self.unpack(x, items)
        points, Phi = self.points[items], self.design(knots, tangents, items)
        polynomial = w is None
        w = torch.ones_like(points[:, :1, 0]) if w is None else w
        W = torch.ones_like(points[..., :1]) if polynomial else Phi.synthesise(w[..., None])

        def over(fields: Tensor) -> Tensor:
            return fields if polynomial else fields / W.reshape(*W.shape[:2], *[1] * (fields.ndim - 2))

        ww = w[:, :, None] * w[:, None, :]
        gram = ww * Phi.gram(over(over(torch.ones_like(W))))[:, 0]
        scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(x.dtype).tiny).rsqrt()
        factor, info = torch.linalg.cholesky_ex(gram * scale[:, :, None] * scale[:, None, :])
        pivot = factor.diagonal(dim1=-2, dim2=-1).amin(-1)
        lost = (info > 0) | ~(pivot > 10 * torch.finfo(x.dtype).eps ** 0.5)
        factor = torch.where(lost[:, None, None], torch.eye(factor.shape[-1], device="cpu").to(factor), factor)
        image = scale[..., None] * w[..., None] * Phi.analyse(over(points))
        P = scale[..., None] * torch.cholesky_solve(image, factor)
        S = over(Phi.synthesise(w[..., None] * P))
        r = points - S
        f = 0.5 * r.square().sum((-1, -2)).masked_fill(lost, torch.inf)
        gradient, columns, square = [], [], None  # -r · D, ΦᵀD "a n k d", D · D "a k k"
        if tangents:
            D = Phi.changes(w[..., None] * P)
            if not polynomial:
                D = D - S[:, None] * Phi.changes(w[..., None])
            D = over(D.movedim(1, 2))  # "a q k d"
            gradient.append(-torch.einsum("aqd,aqkd->ak", r, D))
            transformed = w[..., None, None] * Phi.analyse(over(D).flatten(-2)).unflatten(-1, D.shape[-2:])
            columns.append(transformed)
            square = torch.einsum("aqkd,aqld->akl", D, D)
        if self.free_weights:
            fields = over(over(torch.cat([S, S.square().sum(-1, keepdim=True)], -1)))
            moments = ww[:, None] * Phi.gram(fields)  # R_i · S_d R_j, R_i · |S|² R_j
            first, second = moments[:, :-1].movedim(1, -1), moments[:, -1]
            both = Phi.analyse(over(torch.cat([r, (r * S).sum(-1, keepdim=True)], -1)))
            gradient.append(-w * ((P * both[..., :-1]).sum(-1) - both[..., -1]))
            columns.append(gram[..., None] * P[:, None] - first)
            mixed = (P[:, :, None] * first).sum(-1)
            corner = gram * (P @ P.mT) - mixed - mixed.mT + second
            if square is None:
                square = corner
            else:
                along = w[..., None] * Phi.analyse(over((D * S[:, :, None]).sum(-1)))
                side = (P[:, :, None] * transformed).sum(-1) - along
                square = torch.cat([torch.cat([square, side.mT], -1), torch.cat([side, corner], -1)], -2)
        stacked = torch.cat(columns, 2)
        Y = torch.linalg.solve_triangular(factor, scale[..., None] * stacked.flatten(2), upper=False)
        Y = Y.unflatten(-1, stacked.shape[2:]).movedim(2, -1).flatten(1, 2)
        return f, torch.cat(gradient, -1), square - Y.mT @ Y
