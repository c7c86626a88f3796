"""Polynomials orthonormal on the samples of a piece: the basis of piecewise polynomials on sampled signals.

On m equispaced samples they are discrete Chebyshev (Gram) polynomials, which three-term recurrences give without an
inner product: with t the distance from the middle and b_j = j √((m² − j²) / (4 (4j² − 1))),

    q_0 = 1/√m,    b_{j+1} q_{j+1} = t q_j − b_j q_{j−1}.

Where samples have weights the same space is orthonormalised on them. Unlike powers of t both stay well conditioned,
whatever the length of a piece.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Num
from torch import Tensor

from fem.reference.element import Tabulation


def jacobi(length: Num[Tensor, "*s"], j: int) -> Float[Tensor, "*s"]:
    """b_j, the off-diagonal entries of the Jacobi matrix; 0 from j = m on, where there are no more polynomials."""
    square = length.to(torch.float64) ** 2 if not length.is_floating_point() else length**2
    return j * ((square - j * j).clamp(min=0) / (4 * (4 * j * j - 1))).sqrt()


def orthonormal(t: Float[Tensor, "*s"], length: Float[Tensor, "*s"], degree: int) -> Iterator[Float[Tensor, "*s"]]:
    """q_0, …, q_degree at the distance t from the middle of a piece of m samples; 0 from j = m on."""
    below, value, b = torch.zeros_like(t), length.rsqrt(), torch.zeros_like(t)
    for j in range(degree + 1):
        yield value
        if j < degree:
            after = jacobi(length, j + 1)
            following = torch.where(after > 0, (t * value - b * below) / torch.where(after > 0, after, 1), 0)
            below, value, b = value, following, after


def orthonormalized(
    polynomials: Iterator[Float[Tensor, "*s"]], inner: Callable[[Tensor, Tensor], Tensor]
) -> list[Float[Tensor, "*s"]]:
    """The same polynomials by Gram and Schmidt, twice, for an inner product that is given at each sample of its piece.

    What has no part of its own left, because a piece has too few samples with a weight, becomes 0.
    """
    found: list[Tensor] = []
    for p in polynomials:
        size = inner(p, p)
        for _ in range(2):
            for q in found:
                p = p - inner(p, q) * q
        square = inner(p, p)
        kept = square > 1e-20 * size
        found.append(torch.where(kept, p / torch.where(kept, square, 1).sqrt(), 0))
    return found


def tabulate_samples(length: int, degree: int, like: Tensor | None = None) -> Tabulation:
    """The orthonormal polynomials of a piece at its own samples, value "1 q a"; rows are samples.

    Args:
        length: m ≥ degree + 1 samples.
        degree: of the polynomials.
        like: a tensor whose dtype and device the values have; double precision on the CPU without it.

    Raises:
        ValueError: fewer samples than polynomials.
    """
    if not 0 <= degree < length:
        raise ValueError(
            f"`tabulate_samples(length, degree)` needs 0 <= degree < length; got degree {degree} and length {length}."
        )
    like = torch.empty(0, dtype=torch.float64, device="cpu") if like is None else like
    m = torch.full((length,), length, dtype=like.dtype, device=like.device)
    t = torch.arange(length, dtype=like.dtype, device=like.device) - (length - 1) / 2
    return Tabulation(torch.stack(list(orthonormal(t, m, degree)), -1)[None])
