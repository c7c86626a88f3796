"""Slow viscous flow: potentials of the rate of strain ε(u) of a velocity u, whose derivative is the viscous stress."""

from torch import Tensor

from fem.materials.elasticity import strain
from fem.materials.tensors import Number, check_range, trace


def viscous(grad_u: Tensor, mu: Number) -> Tensor:
    """μ ε:ε "…" of a Newtonian fluid: the stress is 2μ ε."""
    return mu * strain(grad_u).square().sum((-2, -1))


def power_law(grad_u: Tensor, consistency: Number, n: Number, epsilon: Number = 1e-6) -> Tensor:
    """K/(n + 1) (2 ε:ε + ε₀²)^{(n+1)/2} "…": the viscosity is K γ̇^{n−1} with γ̇ = √(2 ε:ε), bounded at rest by ε₀.

    n = 1 is `viscous` with μ = K, n < 1 thins where it is sheared (paint, ice with n = 1/3), n > 1 thickens.

    Raises:
        ValueError: n not positive.
    """
    check_range("power_law", "n", n, 0, float("inf"))
    rate = 2 * strain(grad_u).square().sum((-2, -1)) + epsilon**2
    return consistency / (n + 1) * rate ** (0.5 * (n + 1))


def stokes(grad_u: Tensor, p: Tensor, mu: Number) -> Tensor:
    """μ ε:ε − p ∇·u "…" of a velocity and a pressure: stationary, no minimum (`solve`, in Taylor–Hood elements)."""
    return viscous(grad_u, mu) - p * trace(grad_u)
