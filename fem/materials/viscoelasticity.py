"""Linear viscoelasticity: springs beside dampers, by an energy for each step of time.

One Maxwell branch is a spring μ_v in the deviator behind a damper with relaxation time τ; its state is the viscous
strain ε^v "… 3 3". Backward Euler over a step Δt minimises

    μ_v |dev ε − ε^v|² + μ_v τ / Δt |ε^v − ε^v_n|²    over ε^v:    ε^v = ε^v_n + Δt / (τ + Δt) (dev ε − ε^v_n),

which leaves μ_v τ / (τ + Δt) |dev ε − ε^v_n|² beside the elastic energy. Several branches add up (a Prony series).

Source: Simo and Hughes, Computational Inelasticity, Springer 1998, chapter 10.
"""

from torch import Tensor

from fem.materials.tensors import Number, deviator, scaled


def maxwell(strain: Tensor, viscous: Tensor, mu: Number, relaxation: Number, step: Number) -> Tensor:
    """The energy "…" that a branch adds in a step that ends with ε "… 3 3" and starts with ε^v."""
    return mu * relaxation / (relaxation + step) * (deviator(strain) - viscous).square().sum((-2, -1))


def maxwell_strain(strain: Tensor, viscous: Tensor, relaxation: Number, step: Number) -> Tensor:
    """ε^v "… 3 3" at the end of the step."""
    return viscous + scaled(step / (relaxation + step), deviator(strain) - viscous)
