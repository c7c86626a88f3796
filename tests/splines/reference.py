"""Partitions by brute force, and polynomial fits by dense least squares."""

import torch
from torch import Tensor


def projector(length: int, degree: int, weights: Tensor | None = None) -> Tensor:
    """V (VᵀWV)⁻¹ VᵀW from powers on [−1, 1]; identity where there are fewer samples than powers."""
    t = torch.linspace(-1, 1, length, dtype=torch.float64) if length > 1 else torch.zeros(1, dtype=torch.float64)
    V = torch.stack([t**i for i in range(min(degree, length - 1) + 1)], -1)
    root = torch.ones(length, dtype=torch.float64) if weights is None else weights.sqrt()
    Q = torch.linalg.qr(root[:, None] * V).Q
    return (Q @ Q.T) * root / root[:, None]


def cost(x: Tensor, degree: int, weights: Tensor | None = None) -> float:
    """Squared error of the best polynomial, x "n c"."""
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    x, w = x[w > 0], w[w > 0]
    if len(x) <= degree + 1 and weights is None:
        return 0.0
    t = torch.linspace(-1, 1, len(w), dtype=torch.float64)
    if weights is not None:
        t = torch.linspace(-1, 1, len(weights), dtype=torch.float64)[weights > 0]
    V = torch.stack([t**i for i in range(degree + 1)], -1) * w.sqrt()[:, None]
    y = x * w.sqrt()[:, None]
    Q = torch.linalg.qr(V).Q
    return float((y - Q @ (Q.T @ y)).square().sum())


def best_errors(
    x: Tensor, degrees: tuple[int, ...], least: tuple[int, ...], weights: Tensor | None = None
) -> list[float]:
    """The least squared error of exactly 1, 2, … pieces with these degrees and least numbers of observed samples."""
    n = len(x)
    seen = torch.ones(n) if weights is None else (weights > 0).float()
    costs = {}
    for d, m in set(zip(degrees, least, strict=True)):
        for s in range(n):
            for r in range(s + 1, n + 1):
                if seen[s:r].sum() >= m:
                    costs[d, m, s, r] = cost(x[s:r], d, None if weights is None else weights[s:r])
    best = [0.0] + [float("inf")] * n
    errors = []
    for d, m in zip(degrees, least, strict=True):
        best = [
            min([best[s] + costs.get((d, m, s, r), float("inf")) for s in range(r)], default=float("inf"))
            for r in range(n + 1)
        ]
        errors.append(best[n])
    return errors


def error_of(x: Tensor, breaks: Tensor, degrees: tuple[int, ...], weights: Tensor | None = None) -> float:
    """The squared error of given pieces."""
    pieces = zip(breaks[:-1].tolist(), breaks[1:].tolist(), strict=True)
    return sum(
        cost(x[a:b], degrees[min(j, len(degrees) - 1)], None if weights is None else weights[a:b])
        for j, (a, b) in enumerate(pieces)
        if b > a
    )
