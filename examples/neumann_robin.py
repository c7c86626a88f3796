"""Dirichlet, Neumann and Robin conditions on one problem, as terms of the energy, at their optimal rates.

    −Δu = f in the unit square,    u given on the left and below,
    ∂u/∂n = g on the right,        ∂u/∂n + α u = h on top,          exact: u = eˣ cos 2y

minimises J(u) = ∫ ½|∇u|² − f u dx − ∫_right g u ds + ∫_top ½ α u² − h u ds. Claim: errors of order h^(d+1) in L2 and
h^d in H1 for every degree d.

Source: Brenner and Scott, The Mathematical Theory of Finite Element Methods, 3rd edition, 2008, chapter 5.
"""

import math

import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, h1_error, l2_error, plot, unit_square
from solvers import minimize

ALPHA = 2.0


def exact(x: Tensor) -> Tensor:
    return torch.exp(x[..., 0]) * torch.cos(2 * x[..., 1])


def flux(x: Tensor, normal: Tensor) -> Tensor:
    """∂u/∂n of the exact solution."""
    gradient = torch.stack([exact(x), -2 * torch.exp(x[..., 0]) * torch.sin(2 * x[..., 1])], -1)
    return (gradient * normal).sum(-1)


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1) - 3 * exact(x) * u


def neumann(x: Tensor, u: Tensor, normal: Tensor) -> Tensor:
    return -flux(x, normal) * u


def robin(x: Tensor, u: Tensor, normal: Tensor) -> Tensor:
    return 0.5 * ALPHA * u.square() - (flux(x, normal) + ALPHA * exact(x)) * u


def main(cells: int = 16, degrees: tuple[int, ...] = (1, 2, 3), out: str | None = None) -> dict[str, float]:
    """Solve on two grids and observe the rates.

    Args:
        cells: cells in each direction of the coarser grid; the finer one has twice as many
        degrees: polynomial degrees of the elements, 1 to 3
        out: folder for the picture; nothing is written without it

    Returns:
        "l2 rate d" and "h1 rate d" for degree d.
    """
    figures = {}
    print("degree   L2 error   rate   H1 error   rate")
    for degree in degrees:
        errors = []
        for n in (cells, 2 * cells):
            V = FunctionSpace(unit_square(n), Lagrange(degree))
            dirichlet = Dirichlet(V, {"left": exact, "bottom": exact})
            energy = Energy(V, density, dirichlet, boundary={"right": neumann, "top": robin})
            u = minimize(energy).value
            errors.append((float(l2_error(V, u, exact)), float(h1_error(V, u, exact))))
        l2, h1 = (math.log2(coarse / fine) for coarse, fine in zip(*errors, strict=True))
        print(f"{degree:6}   {errors[1][0]:.2e}   {l2:4.2f}   {errors[1][1]:.2e}   {h1:4.2f}")
        figures |= {f"l2 rate {degree}": l2, f"h1 rate {degree}": h1}
        if out is not None and degree == degrees[-1]:
            ax = plot(V, u, label="u")
            ax.set_title("Dirichlet left and below, Neumann right, Robin on top")
            save(ax.figure, out, "neumann_robin.png")
    return figures


if __name__ == "__main__":
    run(main)
