"""Stresses and fluxes as derivatives of the densities that store the energy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def stress(energy: Callable[..., Tensor], strain: Tensor, *params: Any) -> Tensor:
    """∂ψ/∂ε "… d d" (fluxes "… d") of ψ(ε, *params), differentiable in everything that ψ is.

    Of `isotropic` at strains it is the Cauchy stress, of `neo_hookean` at deformation gradients the first
    Piola–Kirchhoff stress, of `diffusion` at ∇u minus the flux. Off-diagonal entries of a strain count as two numbers,
    so that stresses are symmetric where strains are.

    For expressions, `project(V, lambda x, u, grad_u: stress(isotropic, strain(grad_u), 210e3, 0.3).flatten(-2), u)`.
    """
    needed = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (strain, *params))
    with torch.enable_grad():
        at = strain if strain.requires_grad else strain.detach().requires_grad_()
        found = energy(at, *params)
        (derivative,) = torch.autograd.grad(found.sum(), at, create_graph=needed)
    return derivative
