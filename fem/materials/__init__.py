"""Ready densities, one readable page each: functions of ∇u and of material parameters, at a point.

They are ordinary expressions in PyTorch, to be called in one's own density beside loads and whatever else it holds:

    def density(x, u, grad_u, young, poisson, load):
        return isotropic(strain(grad_u), young, poisson) - (load * u).sum(-1)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fem.materials.elasticity import (
        axisymmetric_strain,
        in_space,
        isotropic,
        lame,
        plane_stress,
        strain,
        thermal_strain,
        transversely_isotropic,
        von_mises,
    )
    from fem.materials.flow import power_law, stokes, viscous
    from fem.materials.hyperelasticity import (
        deformation_gradient,
        mooney_rivlin,
        nearly_incompressible,
        neo_hookean,
        saint_venant_kirchhoff,
    )
    from fem.materials.plasticity import j2_plasticity, j2_return
    from fem.materials.softening import damage, damage_history
    from fem.materials.stresses import stress
    from fem.materials.transport import anisotropic_diffusion, diffusion, p_laplace
    from fem.materials.viscoelasticity import maxwell, maxwell_strain

_HOME = {
    "softening": ("damage", "damage_history"),
    "transport": ("anisotropic_diffusion", "diffusion", "p_laplace"),
    "elasticity": (
        "axisymmetric_strain",
        "in_space",
        "isotropic",
        "lame",
        "plane_stress",
        "strain",
        "thermal_strain",
        "transversely_isotropic",
        "von_mises",
    ),
    "flow": ("power_law", "stokes", "viscous"),
    "hyperelasticity": (
        "deformation_gradient",
        "mooney_rivlin",
        "nearly_incompressible",
        "neo_hookean",
        "saint_venant_kirchhoff",
    ),
    "plasticity": ("j2_plasticity", "j2_return"),
    "stresses": ("stress",),
    "viscoelasticity": ("maxwell", "maxwell_strain"),
}
_MODULE = {name: f"fem.materials.{module}" for module, names in _HOME.items() for name in names}

__all__ = [
    "anisotropic_diffusion",
    "axisymmetric_strain",
    "damage",
    "damage_history",
    "deformation_gradient",
    "diffusion",
    "in_space",
    "isotropic",
    "j2_plasticity",
    "j2_return",
    "lame",
    "maxwell",
    "maxwell_strain",
    "mooney_rivlin",
    "nearly_incompressible",
    "neo_hookean",
    "p_laplace",
    "plane_stress",
    "power_law",
    "saint_venant_kirchhoff",
    "stokes",
    "strain",
    "stress",
    "thermal_strain",
    "transversely_isotropic",
    "viscous",
    "von_mises",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'fem.materials' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
