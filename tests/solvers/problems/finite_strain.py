"""Elastic squares and cubes at finite strain, for tests of Newton's method."""

import torch
from torch import Tensor

from fem import Dirichlet, FunctionSpace


def deformation(g: Tensor) -> Tensor:
    return g + torch.eye(g.shape[-1], dtype=g.dtype)


def neo_hookean(x: Tensor, u: Tensor, g: Tensor) -> Tensor:
    """½ (F:F − d − 2 ln J) + ln² J, zero at rest: μ = 1, λ = 2."""
    F = deformation(g)
    log = torch.log(torch.linalg.det(F))
    return 0.5 * (F.square().sum((-2, -1)) - g.shape[-1] - 2 * log) + log**2


def neo_hookean_forces(x: Tensor, u: Tensor, g: Tensor, v: Tensor, grad_v: Tensor) -> Tensor:
    """The same as a weak form: P : ∇v."""
    F = deformation(g)
    inverse = torch.linalg.inv(F).mT
    stress = F + (2 * torch.log(torch.linalg.det(F)) - 1)[..., None, None] * inverse
    return (stress * grad_v).sum((-2, -1))


def saint_venant(x: Tensor, u: Tensor, g: Tensor) -> Tensor:
    """E:E + ½ · 2 tr² E: μ = 1, λ = 2. Cells turned inside out cost it nothing infinite."""
    F = deformation(g)
    strain = 0.5 * (F.mT @ F - torch.eye(g.shape[-1], dtype=g.dtype))
    return strain.square().sum((-2, -1)) + strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()


def pressed(V: FunctionSpace, load: float | Tensor) -> Dirichlet:
    """A square on rollers, pressed from the top by a load."""
    return Dirichlet(V, {("left", 0): 0.0, ("bottom", 1): 0.0, ("top", 1): -load})
