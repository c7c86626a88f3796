"""Linear elasticity: Cook's membrane, a tapered panel clamped on the left and sheared on the right.

    J(u) = ∫ E / (2(1 − ν²)) (ν (tr ε)² + (1 − ν) ε:ε) dx − ∫_right t·u ds,    ε = ½(∇u + ∇uᵀ)

in plane stress with thickness 1, E = 1, ν = ⅓ and a total shear force of 1. Claim: the vertical displacement at the
middle of the loaded side tends to 23.96, on which the finest meshes of the literature agree.

Source: Cook, Improved two-dimensional finite element, Journal of the Structural Division ASCE 100, 1974; Bergan and
Felippa, Computer Methods in Applied Mechanics and Engineering 50, 1985 (23.9).
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, plot, unit_square
from solvers import minimize

REFERENCE = 23.96
YOUNG, POISSON = 1.0, 1 / 3


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    strain = 0.5 * (grad_u + grad_u.mT)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    squares = POISSON * trace.square() + (1 - POISSON) * strain.square().sum((-2, -1))
    return 0.5 * YOUNG / (1 - POISSON**2) * squares


def shear(x: Tensor, u: Tensor, normal: Tensor) -> Tensor:
    return -u[..., 1] / 16  # a force of 1 over a side of length 16


def membrane(n: int) -> Mesh:
    """The quadrilateral (0, 0), (48, 44), (48, 60), (0, 44) in n × n cells."""
    square = unit_square(n)
    s, t = square.nodes.unbind(-1)
    return square.with_nodes(torch.stack([48 * s, 44 * s + t * (44 - 28 * s)], -1))


def main(cells: tuple[int, ...] = (8, 16, 32, 64), degree: int = 2, out: str | None = None) -> dict[str, float]:
    """Refine the membrane and watch its tip.

    Args:
        cells: even numbers of cells in each direction, one mesh after another
        degree: polynomial degree of the elements, 1 to 3
        out: folder for the picture; nothing is written without it

    Returns:
        "tip n" for n cells in each direction.
    """
    figures = {}
    print(f"cells   tip displacement   (reference {REFERENCE})")
    for n in cells:
        V = FunctionSpace(membrane(n), Lagrange(degree), components=2)
        energy = Energy(V, density, Dirichlet(V, {"left": 0.0}), boundary={"right": shear})
        u = minimize(energy).value
        figures[f"tip {n}"] = float(V.to_grid(u)[1, degree * n // 2, -1])
        print(f"{n:4}²   {figures[f'tip {n}']:.3f}")
        if out is not None and n == min(cells):
            figure, ax = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
            plot(V.mesh, ax=ax)
            plot(V, u, ax, mesh=True, label="|u|")
            ax.set_title("Cook's membrane, before and after")
            save(figure, out, "elasticity.png")
    return figures


if __name__ == "__main__":
    run(main)
