"""Isotropic damage at small strain with exponential softening, by an energy for each increment of load.

The stress is (1 − d(κ)) ∂ψ₀/∂ε with d = 1 − exp(−(κ − κ₀) / κ_f) for κ > κ₀, and κ the largest elastic energy ψ₀ that
the point has seen: its state. For the increment

    ψ = (1 − d(κ_n)) ψ₀                                      while ψ₀ ≤ κ_n,
    ψ = (1 − d(κ_n)) κ_n + κ_f (e(κ_n) − e(ψ₀)) beyond,     e(κ) = exp(−(κ − κ₀) / κ_f),  κ_n ≥ κ₀.

Softening makes what is computed depend on the size of cells, unless κ_f does too.

Source: Simo and Ju, International Journal of Solids and Structures 23, 1987; Jirásek and Bažant, Inelastic Analysis of
Structures, Wiley 2002, chapter 26.
"""

import torch
from torch import Tensor

from fem.materials.tensors import Number, check_range


def damage(elastic: Tensor, history: Tensor, threshold: Number, softening: Number) -> Tensor:
    """ψ "…" of an increment whose elastic energy at its end is ψ₀ "…", from κ_n "…" (0 before any load).

    Raises:
        ValueError: κ_f not positive.
    """
    check_range("damage", "softening", softening, 0, float("inf"))
    seen = history.clamp(min=threshold)
    whole = torch.exp(-(seen - threshold) / softening)
    beyond = whole * seen + softening * (whole - torch.exp(-(torch.maximum(elastic, seen) - threshold) / softening))
    return torch.where(elastic <= seen, whole * elastic, beyond)


def damage_history(elastic: Tensor, history: Tensor) -> Tensor:
    """κ "…" at the end of the increment."""
    return torch.maximum(elastic, history)
