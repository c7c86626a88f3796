"""Contact without friction by bounds: an elastic block pressed onto a rigid cylinder, against Hertz.

    minimise  ∫ ½ σ(u):ε(u) dx   subject to   u_y ≥ −g on the lower side,   g(x) = x² / 2R,   u_y = −δ on the upper side

in plane strain; x = 0 is a plane of symmetry. The forces that the bounds exert are the residual of the energy without
them: λₙ = ∂J/∂uₙ, and λₙ ≥ 0, u_y + g ≥ 0, λₙ (u_y + g) = 0 node by node. Claims: those conditions hold, contact and
punch balance, the load's derivative by δ is that of finite differences, and the half-width of contact and the greatest
pressure under the load P per length come near those between a half-space and a cylinder,

    a = (4 P R / π E*)^½,    p₀ = 2 P / π a,    E* = E / (1 − ν²),    P = 2 Σ λₙ.

The half-width is measured by the second moment of the pressure, P a² / 4 for Hertz's ellipse.

Source: Johnson, Contact Mechanics, Cambridge University Press, 1985, chapter 4.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, integrate, plot, project, unit_square
from solvers import minimize, reaction

YOUNG, POISSON = 1.0, 0.3
STEP = 1e-5  # of the difference in δ, relative


def stress(grad_u: Tensor) -> Tensor:
    strain = 0.5 * (grad_u + grad_u.mT)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return YOUNG / (1 + POISSON) * (strain + POISSON / (1 - 2 * POISSON) * trace * torch.eye(2, dtype=strain.dtype))


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * (stress(grad_u) * grad_u).sum((-2, -1))


def graded(cells: int) -> Mesh:
    """The right half of the block, [0, 1]², in cells that shrink towards the contact: x ← x²."""
    square = unit_square(cells)
    return square.with_nodes(square.nodes.square())


def main(cells: int = 64, radius: float = 1.0, depth: float = 0.005, out: str | None = None) -> dict[str, float]:
    """Press, and compare.

    Args:
        cells: of the half block along each side
        radius: of the cylinder; the block is 2 wide and 1 high
        depth: δ, by which the upper side comes down
        out: folder for the picture; nothing is written without it

    Returns:
        "load", "balance" (of contact and punch), "force" (the least λₙ), "gap" (the least), "complementarity" (the
        greatest λₙ (u_y + g)), all relative to load and δ; "half-width", "pressure" (relative differences from Hertz),
        "slope" (of dP/dδ from a difference).
    """
    V = FunctionSpace(graded(cells), Lagrange(1), components=2)
    bottom = V.dofs("bottom")
    x = V.dof_coordinates[bottom, 0]
    foundation = -x.square() / (2 * radius)

    def press(delta: Tensor) -> tuple[Energy, Tensor]:
        energy = Energy(V, density, Dirichlet(V, {("left", 0): 0.0, ("top", 1): -delta}))
        return energy, minimize(energy, lower={("bottom", 1): foundation}).value

    def load(delta: Tensor) -> Tensor:
        energy, u = press(delta)
        return -2 * reaction(energy, u, ("top", 1))

    delta = torch.tensor(depth, dtype=V.dtype, requires_grad=True)
    energy, u = press(delta.detach())
    forces, gap = energy.residual(u)[bottom, 1], u[bottom, 1] - foundation
    P, punch = 2 * float(forces.sum()), float(load(delta.detach()))
    modulus = YOUNG / (1 - POISSON**2)
    a = (4 * P * radius / (torch.pi * modulus)) ** 0.5
    p0 = 2 * P / (torch.pi * a)
    shares = torch.zeros(V.shape, dtype=V.dtype, requires_grad=True)  # ∫ φₙ ds, from the integral of any function
    (shares,) = torch.autograd.grad(integrate(V, V.function(shares), "bottom").sum(), shares)
    pressure = forces / shares[bottom, 1]
    (slope,) = torch.autograd.grad(load(delta), delta)
    with torch.no_grad():
        difference = (load(delta * (1 + STEP)) - load(delta * (1 - STEP))) / (2 * STEP * delta)
    figures = {
        "load": P,
        "balance": abs(punch / P - 1),
        "force": float(forces.min()) / P,
        "gap": float(gap.min()) / depth,
        "complementarity": float((forces * gap).abs().max()) / (P * depth),
        "half-width": abs(2 * (2 * float(forces @ x.square()) / P) ** 0.5 / a - 1),
        "pressure": abs(float(pressure.max()) / p0 - 1),
        "slope": abs(float(slope / difference) - 1),
    }
    print(f"half-width {a:.4g}, greatest pressure {p0:.4g} by Hertz, {int((gap == 0).sum())} nodes in contact")
    print("\n".join(f"{name:16} {value:.3g}" for name, value in figures.items()))
    if out is not None:
        save(draw(V, u, x, pressure, a, p0, radius), out, "contact.png")
    return figures


def draw(V: FunctionSpace, u: Tensor, x: Tensor, pressure: Tensor, a: float, p0: float, radius: float) -> Any:
    """The block around the contact, deformed and coloured by its stress, and the pressure beside Hertz's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    W = FunctionSpace(V.mesh, Lagrange(1))
    vertical = project(W, lambda x, u, grad_u: -stress(grad_u)[..., 1, 1] / p0, V.function(u))
    deformed = FunctionSpace(V.mesh.with_nodes(V.mesh.nodes + u), Lagrange(1))
    plot(deformed, vertical, left, mesh=True, cmap="magma_r", limits=(0, 1), label="−σ_yy / p₀")
    left.set(xlim=(0, 3 * a), ylim=(-0.6 * a, 2.2 * a), xlabel="x", ylabel="y", title="Block on a rigid cylinder")
    s = torch.linspace(0, 3 * a, 200)
    left.fill_between(s, -s.square() / (2 * radius), -a, color="#9aa5b1")
    theory = p0 * (1 - (s / a).square()).clamp_min(0).sqrt()
    right.plot(s / a, theory / p0, color="#1f2933", label="Hertz")
    near = x < 2 * a
    right.plot(x[near] / a, pressure[near] / p0, "o", markersize=5, label="λₙ / ∫ φₙ ds")
    right.set(xlabel="x / a", ylabel="p / p₀", title="Contact pressure", xlim=(0, 2))
    right.legend(frameon=False)
    right.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    run(main)
