"""Elasticity at finite strain: energies of the deformation gradient F = I + ∇u, with J = det F.

Where J ≤ 0, matter turned inside out, they are infinite: a line search steps back from there. In plane strain F is that
of space with F₃₃ = 1, `deformation_gradient(in_space(grad_u))`, wherever a formula counts dimensions.

Source: Holzapfel, Nonlinear Solid Mechanics, Wiley 2000, chapter 6; Simo and Pister, Computer Methods in Applied
Mechanics and Engineering 46, 1984 (the compressible neo-Hookean energy).
"""

import torch
from torch import Tensor

from fem.materials.tensors import Number, check_range, identity, trace


def deformation_gradient(grad_u: Tensor) -> Tensor:
    """F = I + ∇u "… d d"."""
    return grad_u + identity(grad_u)


def determinant(F: Tensor) -> tuple[Tensor, Tensor]:
    """J "…", replaced by 1 where it is not positive, and where that was."""
    J = torch.linalg.det(F)
    inverted = J <= 0
    return torch.where(inverted, 1.0, J), inverted


def infinite(energy: Tensor, inverted: Tensor) -> Tensor:
    return torch.where(inverted, float("inf"), energy)


def neo_hookean(F: Tensor, mu: Number, lam: Number) -> Tensor:
    """μ/2 (F:F − d − 2 ln J) + λ/2 ln² J "…", which near F = I is linear elasticity with λ and μ.

    Raises:
        ValueError: μ or λ out of range.
    """
    check_range("neo_hookean", "mu", mu, 0, float("inf"))
    J, inverted = determinant(F)
    log = torch.log(J)
    return infinite(0.5 * mu * (F.square().sum((-2, -1)) - F.shape[-1] - 2 * log) + 0.5 * lam * log.square(), inverted)


def mooney_rivlin(F: Tensor, c1: Number, c2: Number, bulk: Number) -> Tensor:
    """c₁ (J^{−2/3} I₁ − 3) + c₂ (J^{−4/3} I₂ − 3) + κ/2 (J − 1)² "…" of F "… 3 3": μ = 2(c₁ + c₂).

    With I₁ = tr C, I₂ = ½(I₁² − tr C²), C = FᵀF.
    """
    J, inverted = determinant(F)
    C = in_three(F, "mooney_rivlin")
    first = trace(C)
    second = 0.5 * (first.square() - C.square().sum((-2, -1)))
    isochoric = c1 * (J ** (-2 / 3) * first - 3) + c2 * (J ** (-4 / 3) * second - 3)
    return infinite(isochoric + 0.5 * bulk * (J - 1).square(), inverted)


def nearly_incompressible(F: Tensor, p: Tensor, mu: Number, bulk: Number) -> Tensor:
    """μ/2 (J^{−2/3} I₁ − 3) − p (J − 1) − p² / (2κ) "…" of F "… 3 3" and a pressure p "…": stationary, no minimum.

    p = −κ (J − 1) where it is stationary, so that J = 1 at κ = ∞ (`float("inf")`). In Taylor–Hood elements it does not
    lock.

    Source: Brink and Stein, Computational Mechanics 19, 1996.
    """
    J, inverted = determinant(F)
    first = trace(in_three(F, "nearly_incompressible"))
    return infinite(0.5 * mu * (J ** (-2 / 3) * first - 3) - p * (J - 1) - 0.5 * p.square() / bulk, inverted)


def saint_venant_kirchhoff(F: Tensor, mu: Number, lam: Number) -> Tensor:
    """λ/2 (tr E)² + μ E:E "…" of E = ½(FᵀF − I): large turns, small strains. Compressed to nothing it stays finite."""
    E = 0.5 * (F.mT @ F - identity(F))
    return 0.5 * lam * trace(E).square() + mu * E.square().sum((-2, -1))


def in_three(F: Tensor, call: str) -> Tensor:
    """C = FᵀF.

    Raises:
        ValueError: F is not that of space.
    """
    if F.shape[-1] != 3:
        raise ValueError(
            f"`{call}` takes F of three dimensions; got {F.shape[-1]} × {F.shape[-1]}: "
            "`deformation_gradient(in_space(grad_u))` for plane strain."
        )
    return F.mT @ F
