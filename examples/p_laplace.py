"""A nonlinear energy: the p-capacity of a ring, by Newton's method.

    J(u) = ∫ (1/p) |∇u|^p dx over 1 < r < 2,    u = 0 inside, u = 1 outside

has the minimiser u = (r^a − 1) / (2^a − 1) with a = (p − 2)/(p − 1). A quarter of the ring is meshed with curved cells
of the elements' own degree. Claims: errors of order h^(d+1) in L2 and h^d in H1, as for a linear problem, and a number
of Newton steps that does not grow as the mesh is refined.

Source: Heinonen, Kilpeläinen and Martio, Nonlinear Potential Theory of Degenerate Elliptic Equations, 1993, 2.11.
"""

import math

import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, h1_error, l2_error, plot
from solvers import minimize


def density(x: Tensor, u: Tensor, grad_u: Tensor, p: float) -> Tensor:
    return grad_u.square().sum(-1) ** (p / 2) / p


def ring(x: Tensor) -> Tensor:
    """Polar coordinates (r, θ) to Cartesian ones."""
    return torch.stack([x[:, 0] * torch.cos(x[:, 1]), x[:, 0] * torch.sin(x[:, 1])], -1)


def main(
    cells: int = 8, degrees: tuple[int, ...] = (1, 2, 3), p: float = 4.0, out: str | None = None
) -> dict[str, float]:
    """Solve on two meshes per degree, starting from the solution for p = 2.

    Args:
        cells: cells in each direction of the coarser mesh; the finer one has twice as many
        degrees: polynomial degrees of elements and mesh, 1 to 3
        p: exponent above 1 and other than 2
        out: folder for the picture; nothing is written without it

    Returns:
        "l2 rate d", "h1 rate d" and "steps d" (Newton's, on the finer mesh) for degree d.
    """
    a = (p - 2) / (p - 1)
    figures = {}

    def exact(x: Tensor) -> Tensor:
        return (x.square().sum(-1) ** (a / 2) - 1) / (2**a - 1)

    print("degree   L2 error   rate   H1 error   rate   Newton steps")
    for degree in degrees:
        errors, steps = [], []
        for n in (cells, 2 * cells):
            mesh = box((1.0, 0.0), (2.0, math.pi / 2), (n, n)).curved(degree, ring)
            V = FunctionSpace(mesh, Lagrange(degree))
            energy = Energy(V, density, Dirichlet(V, {"left": 0.0, "right": 1.0}))
            linear = minimize(energy, params=(2.0,))
            solution = minimize(energy, params=(p,), initial=linear.value)
            u = solution.value
            errors.append((float(l2_error(V, u, exact)), float(h1_error(V, u, exact))))
            steps.append(int(solution.iterations))
        l2, h1 = (math.log2(coarse / fine) for coarse, fine in zip(*errors, strict=True))
        print(f"{degree:6}   {errors[1][0]:.2e}   {l2:4.2f}   {errors[1][1]:.2e}   {h1:4.2f}   {steps[0]}, {steps[1]}")
        figures |= {f"l2 rate {degree}": l2, f"h1 rate {degree}": h1, f"steps {degree}": float(steps[1])}
        if out is not None and degree == degrees[-1]:
            ax = plot(V, u, label="u")
            ax.set_title(f"p-capacity of a ring, p = {p:g}")
            save(ax.figure, out, "p_laplace.png")
    return figures


if __name__ == "__main__":
    run(main)
