"""Diffusion: energies of gradients."""

import torch
from torch import Tensor

from fem.materials.tensors import Number, check_range


def diffusion(grad_u: Tensor, k: Number) -> Tensor:
    """½ k |∇u|² "…": heat conduction, electrostatics, Darcy's flow; the flux is −k ∇u."""
    return 0.5 * k * grad_u.square().sum(-1)


def anisotropic_diffusion(grad_u: Tensor, K: Tensor) -> Tensor:
    """½ ∇u·K ∇u "…" with a symmetric positive definite matrix K "… d d" (`Constant(K, shape=(d, d))` for one)."""
    return 0.5 * (grad_u * torch.einsum("...ij,...j->...i", K, grad_u)).sum(-1)


def p_laplace(grad_u: Tensor, p: Number, epsilon: Number = 0.0) -> Tensor:
    """(|∇u|² + ε²)^{p/2} / p "…", whose stationary points solve −∇·(|∇u|^{p−2} ∇u) = f; p = 1, ε = 1: minimal surfaces.

    Raises:
        ValueError: p below 1, where it is not convex.
    """
    check_range("p_laplace", "p", p, 1 - 1e-12, float("inf"))
    return (grad_u.square().sum(-1) + epsilon**2) ** (0.5 * p) / p
