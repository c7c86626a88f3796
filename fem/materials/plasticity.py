"""J2 plasticity at small strain with linear isotropic hardening, by an energy for each increment of load.

The state is the plastic strain ε^p "… 3 3" and its accumulated length α "…", at the start of the increment. Backward
Euler's return mapping is the minimum over the plastic increment of

    ½K (tr ε)² + μ |dev ε − ε^p|² + dissipation,    yield where q = √(3/2) |dev σ| > σ_y + H α,

which has a closed form: with the trial stress s = 2μ (dev ε − ε^p), q = √(3/2) |s| and f = q − σ_y − H α,

    ψ = ½K (tr ε)² + |s|² / 4μ − max(f, 0)² / (2(3μ + H)),
    Δα = max(f, 0) / (3μ + H),    Δε^p = Δα 3s / 2q.

Each increment minimises ∫ψ, and its derivative is the consistent tangent; then `j2_return` gives the state of the next.

Source: Simo and Hughes, Computational Inelasticity, Springer 1998, boxes 3.1 and 3.2; Ortiz and Stainier, Computer
Methods in Applied Mechanics and Engineering 171, 1999 (the energy).
"""

import torch
from torch import Tensor

from fem.materials.elasticity import lame
from fem.materials.tensors import Number, check_range, deviator, scaled, trace


def trial(
    strain: Tensor, plastic: Tensor, alpha: Tensor, young: Number, poisson: Number, yield_stress: Number, hard: Number
) -> tuple[Tensor, Tensor, Tensor, Number]:
    """s "… 3 3", q "…", max(f, 0) "…" and μ. At s = 0 q has no derivative: a square root of zero is left out."""
    mu = lame(young, poisson)[1]
    check_range("j2_plasticity", "yield_stress", yield_stress, 0, float("inf"))
    if isinstance(mu, float):
        check_range("j2_plasticity", "hardening", hard, -3 * mu, float("inf"))  # softer than that nothing is unique
    s = scaled(2 * mu, deviator(strain) - plastic)
    square = 1.5 * s.square().sum((-2, -1))
    still = square == 0
    q = torch.where(still, 0.0, torch.where(still, 1.0, square).sqrt())
    return s, q, (q - yield_stress - hard * alpha).clamp(min=0), mu


def j2_plasticity(
    strain: Tensor,
    plastic: Tensor,
    alpha: Tensor,
    young: Number,
    poisson: Number,
    yield_stress: Number,
    hardening: Number = 0.0,
) -> Tensor:
    """ψ "…" of an increment that ends with ε "… 3 3" (`in_space` for plane strain) and starts with ε^p and α.

    Raises:
        ValueError: strains of the plane, moduli out of range, no yield stress, softening by 3μ or more.
    """
    s, _, f, mu = trial(strain, plastic, alpha, young, poisson, yield_stress, hardening)
    bulk = young / (3 * (1 - 2 * poisson))
    elastic = 0.5 * bulk * trace(strain).square() + 0.25 / mu * s.square().sum((-2, -1))
    return elastic - 0.5 * f.square() / (3 * mu + hardening)


def j2_return(
    strain: Tensor,
    plastic: Tensor,
    alpha: Tensor,
    young: Number,
    poisson: Number,
    yield_stress: Number,
    hardening: Number = 0.0,
) -> tuple[Tensor, Tensor]:
    """ε^p "… 3 3" and α "…" at the end of the increment; arguments as for `j2_plasticity`."""
    s, q, f, mu = trial(strain, plastic, alpha, young, poisson, yield_stress, hardening)
    growth = f / (3 * mu + hardening)
    direction = 1.5 * s / torch.where(q == 0, 1.0, q)[..., None, None]
    return plastic + growth[..., None, None] * direction, alpha + growth
