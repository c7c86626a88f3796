"""Linear elasticity: strains, and the energies that they store.

In three dimensions, in plane strain and in plane stress, around an axis, with thermal strains; E is Young's modulus and
ν Poisson's ratio, of which λ = Eν / ((1 + ν)(1 − 2ν)) and μ = E / (2(1 + ν)).
"""

import torch
from torch import Tensor

from fem.materials.tensors import Number, check_range, deviator, identity, scaled, trace


def strain(grad_u: Tensor) -> Tensor:
    """ε = ½(∇u + ∇uᵀ) "… d d"."""
    return 0.5 * (grad_u + grad_u.mT)


def in_space(matrix: Tensor) -> Tensor:
    """A strain "… 2 2" of the plane as one of space "… 3 3", nothing happening in the third direction: plane strain."""
    return torch.nn.functional.pad(matrix, (0, 1, 0, 1))


def axisymmetric_strain(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    """ε "… 3 3" in (r, z, θ) of u = (u_r, u_z) over the half plane x = (r, z), r > 0: ε_θθ = u_r / r.

    Integrals over the body take 2π r dr dz: multiply densities by `2 * pi * x[..., 0]`.
    """
    hoop = u[..., 0] / x[..., 0]
    plane = in_space(strain(grad_u))
    return plane + torch.diag(hoop.new_tensor([0.0, 0.0, 1.0])) * hoop[..., None, None]


def thermal_strain(strain: Tensor, expansion: Number, difference: Number) -> Tensor:
    """ε − α ΔT I "… d d", which stores the energy; plane strain is `in_space(ε)` here."""
    return strain - scaled(expansion * difference, identity(strain))


def lame(young: Number, poisson: Number) -> tuple[Number, Number]:
    """λ and μ.

    Raises:
        ValueError: ν outside (−1, ½); towards ½ use `nearly_incompressible`, or a mixed form with λ⁻¹.
    """
    check_range("lame", "young", young, 0, float("inf"))
    check_range("lame", "poisson", poisson, -1, 0.5, " At ½ λ is infinite: a mixed form in u and p serves that.")
    return young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))


def isotropic(strain: Tensor, young: Number, poisson: Number) -> Tensor:
    """½λ (tr ε)² + μ ε:ε "…", in three dimensions or in plane strain."""
    lam, mu = lame(young, poisson)
    return 0.5 * lam * trace(strain).square() + mu * strain.square().sum((-2, -1))


def plane_stress(strain: Tensor, young: Number, poisson: Number) -> Tensor:
    """E / (2(1 − ν²)) (ν (tr ε)² + (1 − ν) ε:ε) "…" of ε "… 2 2": a thin sheet, free in its third direction."""
    lame(young, poisson)
    squares = poisson * trace(strain).square() + (1 - poisson) * strain.square().sum((-2, -1))
    return 0.5 * young / (1 - poisson**2) * squares


def transversely_isotropic(strain: Tensor, fibre: Tensor, young: Number, poisson: Number, stiffer: Number) -> Tensor:
    """The isotropic energy and ½ k (a·εa)² "…" of fibres along the unit vector a "… d" that are stiffer by k."""
    along = torch.einsum("...i,...ij,...j->...", fibre, strain, fibre)
    return isotropic(strain, young, poisson) + 0.5 * stiffer * along.square()


def von_mises(stress: Tensor) -> Tensor:
    """√(3/2 dev σ : dev σ) "…" of a stress "… 3 3"."""
    return (1.5 * deviator(stress).square().sum((-2, -1))).sqrt()
