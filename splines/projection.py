"""Orthogonal projection onto polynomials on given pieces, as a differentiable map.

With q_ja orthonormal on the samples of piece j (inner product Σ_i w_i f_i g_i),

    c_ja = Σ_i q_ja(i) w_i x_i,    h_i = Σ_a q_ja(i) c_ja    for i in piece j.

Coefficients from samples (analysis) and samples from coefficients (synthesis) are each other's transpose, so that the
derivative of one is the other, to any order, in O(n) time; nothing is kept but the break points. Without weights the
Jacobian of h is the block-diagonal projector V (VᵀV)⁻¹ Vᵀ of "Differentiable Spline Approximations" (Cho et al., 2021,
section 3.1).
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from fem.support.transforms import hidden, plainly
from splines.pieces import Pieces


class Analysis(Function):
    """c_ja = Σ_i q_ja(i) y_i."""

    @staticmethod
    def forward(ctx: Any, y: Float[Tensor, "b n c"], pieces: Pieces) -> Float[Tensor, "b k a c"]:
        ctx.pieces = pieces
        found = y.new_zeros(len(y), pieces.count, max(pieces.degrees) + 1, y.shape[-1])
        for cut in pieces.stretches():
            owners, part = pieces.owners(cut), y[:, cut]
            for a, q in enumerate(pieces.basis(cut, owners)):
                found[:, :, a] += pieces.sum(owners, part * q[..., None])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return linear(Synthesis, grads[0], ctx.pieces), None


class Synthesis(Function):
    """h_i = Σ_a q_ja(i) c_ja."""

    @staticmethod
    def forward(ctx: Any, c: Float[Tensor, "b k a c"], pieces: Pieces) -> Float[Tensor, "b n c"]:
        ctx.pieces = pieces
        found = c.new_empty(len(c), pieces.length, c.shape[-1])
        for cut in pieces.stretches():
            owners = pieces.owners(cut)
            at = owners[..., None].expand(-1, -1, c.shape[-1])
            found[:, cut] = sum(
                q[..., None] * c[:, :, a].gather(1, at) for a, q in enumerate(pieces.basis(cut, owners))
            )
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return linear(Analysis, grads[0], ctx.pieces), None


class SquaredError(Function):
    """Σ_i w_i |x_i − h_i|², which keeps nothing but references to x and h."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b n c"], h: Float[Tensor, "b n c"], pieces: Pieces) -> Float[Tensor, "b"]:
        ctx.save_for_backward(x, h)
        ctx.weights = w = pieces.weights
        total = x.new_zeros(len(x))
        for cut in pieces.stretches():
            square = (x[:, cut] - h[:, cut]).square().sum(-1)
            total += (square if w is None else square * w[:, cut]).sum(1)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        x, h = ctx.saved_tensors
        g = 2 * grads[0][:, None, None] * (x - h)
        g = g if ctx.weights is None else g * ctx.weights[..., None]
        return g, -g, None


def linear(map: type[Function], values: Tensor, pieces: Pieces) -> Tensor:
    """One of the two maps, also for a batch of gradients that PyTorch hides."""
    found: Any = (
        plainly(lambda t: (map.apply(t, pieces),), [values])[0] if hidden(values) else map.apply(values, pieces)
    )
    return found


def project(x: Float[Tensor, "b n c"], pieces: Pieces) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b k a c"]]:
    """The values h and the coefficients c of the projection of x."""
    y = x if pieces.weights is None else x * pieces.weights[..., None]
    coefficients: Any = Analysis.apply(y, pieces)
    values: Any = Synthesis.apply(coefficients, pieces)
    return values, coefficients
