"""A shape that finds itself: of all cross-sections with the same area, the disc twists least.

    P = 4 ∫ u dx,    −Δu = 1 in Ω,    u = 0 on the boundary

is the torsional rigidity of a bar with the cross-section Ω. The boundary r(θ) = 1 + Σ_k a_k cos kθ + b_k sin kθ moves
the nodes of the mesh, and L-BFGS maximises P / area² over its coefficients: P is minus eight times the minimum of the
energy, which differentiates in the node coordinates. Claim: from a lopsided clover it comes to the disc, with
P / area² = 1 / 2π (Saint-Venant's inequality).

Source: Pólya and Szegő, Isoperimetric Inequalities in Mathematical Physics, 1951, chapter 5.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, box, integrate, plot
from solvers import minimize


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1) - u


def shaped(square: Mesh, coefficients: Tensor) -> Mesh:
    """The square's nodes moved into the shape, squares around the centre becoming copies of the boundary."""
    x, y = square.nodes.unbind(-1)
    theta, size = torch.atan2(y, x), square.nodes.abs().max(-1).values
    waves = [f((k + 2) * theta) for k in range(len(coefficients) // 2) for f in (torch.cos, torch.sin)]
    radius = 1 + size * (coefficients @ torch.stack(waves))
    return square.with_nodes((size * radius)[:, None] * torch.stack([torch.cos(theta), torch.sin(theta)], -1))


def rigidity(square: Mesh, coefficients: Tensor) -> tuple[Tensor, FunctionSpace, Tensor]:
    """P / area², and the solution for the picture."""
    V = FunctionSpace(shaped(square, coefficients), Lagrange(2))
    solution = minimize(Energy(V, density, Dirichlet(V, {"boundary": 0.0})))
    return -8 * solution.energy / integrate(V, 1.0) ** 2, V, solution.value


def main(cells: int = 16, steps: int = 20, out: str | None = None) -> dict[str, float]:
    """Start from a clover and let the shape go where the rigidity grows.

    Args:
        cells: cells in each direction
        steps: steps of L-BFGS
        out: folder for the picture; nothing is written without it

    Returns:
        "start", "end" (P / area²) and "disc" (1 / 2π).
    """
    square = box((-1.0, -1.0), (1.0, 1.0), (cells, cells))
    first = torch.tensor([0.1, 0.05, 0.0, 0.2, -0.05, 0.1], dtype=torch.float64)  # k = 2, 3, 4
    coefficients = first.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([coefficients], lr=0.5, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -rigidity(square, coefficients)[0]
        loss.backward()
        return loss

    optimiser.step(closure)
    start, end = (float(rigidity(square, c.detach())[0]) for c in (first, coefficients))
    figures = {"start": start, "end": end, "disc": 0.5 / math.pi}
    print("P / area²:  " + "   ".join(f"{name} {value:.5f}" for name, value in figures.items()))
    if out is not None:
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharex=True, sharey=True)
        for ax, (name, c) in zip(axes, (("start", first), ("end", coefficients)), strict=True):
            _, V, u = rigidity(square, c.detach())
            plot(V, u, ax, mesh=True, label="u").set_title(f"{name}: P / area² = {figures[name]:.4f}")
        save(figure, out, "shape.png")
    return figures


if __name__ == "__main__":
    run(main)
