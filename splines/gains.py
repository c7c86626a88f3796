"""By how much a least-squares polynomial changes when its piece grows by a sample.

Let p fit N − 1 samples, and let the N-th differ from p there by e. The fit to all N is p + e K, K the kernel polynomial
of the new end, and the squared error grows by (1 − ℓ) e² with the leverage ℓ = K(end). In binomials of the distance x
from the end, K(x) = Σ_i K_i binom(x, i). With the orthogonal polynomials of N samples (discrete Chebyshev polynomials),
Q_j = Σ_i (−1)^i binom(j+i, i) binom(j, i) binom(x, i) / binom(N−1, i), and their squared norms h_j,

    K_i = (−1)^i Σ_{j ≥ i} binom(j+i, i) binom(j, i) / (h_j binom(N−1, i)),    1 − ℓ = Π_{i ≤ d} (N − 1 − i) / (N + i):

sums of positive terms, exact to round-off for pieces of any length. Nothing depends on the signal.
"""

from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.portions import at_a_time


def gains(length: int, degree: int) -> Float[Tensor, "i n"]:
    """1 − ℓ, K_0, …, K_d for pieces of N = n, n − 1, …, 1 samples, so that N stands at n − N.

    Args:
        length: n, the most samples of a piece.
        degree: d; pieces of N ≤ d samples are interpolated by polynomials of degree N − 1.
    """
    table = torch.empty(degree + 2, length, dtype=torch.float64, device="cpu")
    step = at_a_time(1, table)
    for start in range(0, length, step):
        stop = min(start + step, length)
        table[:, start:stop] = column(
            torch.arange(length - start, length - stop, -1, dtype=torch.float64, device="cpu"), degree
        )
    return table


def column(N: Float[Tensor, "n"], degree: int) -> Float[Tensor, "i n"]:
    """The same for given N."""
    table = torch.zeros(degree + 2, len(N), dtype=torch.float64, device="cpu")
    table[0] = 1
    for i in range(degree + 1):
        table[0] *= (N - 1 - i).clamp(min=0) / (N + i)
    norm = N.clone()  # h_j; h_j / h_{j−1} = (2j − 1)(N + j) / ((2j + 1)(N − j))
    for j in range(degree + 1):
        if j:
            norm = norm * (2 * j - 1) / (2 * j + 1) * (N + j) / (N - j).clamp(min=1)
        below = torch.ones_like(N)  # binom(N − 1, i)
        for i in range(j + 1):
            if i:
                below = below * (N - i).clamp(min=1) / i
            term = (-1) ** i * comb(j + i, i) * comb(j, i) / (norm * below)
            table[1 + i] += torch.where(j < N, term, 0)
    return table
