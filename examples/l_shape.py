"""A re-entrant corner: the rate that the singularity costs, and the graded mesh that wins it back.

    −Δu = 0 in (−1, 1)² without its lower right quarter,    u = r^⅔ sin ⅔θ on the boundary and everywhere else

has ∇u ~ r^(−⅓) at the corner. Claim: on uniform meshes the H1 error falls as h^⅔ whatever the degree d; moving nodes by
x ↦ x ‖x‖∞^(β−1) with β > 3d/2 crowds them around the corner and restores h^d with as many unknowns.

Source: Grisvard, Elliptic Problems in Nonsmooth Domains, 1985, section 8.4.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, box, h1_error, plot
from solvers import minimize


def exact(x: Tensor) -> Tensor:
    r = x.square().sum(-1).sqrt()
    theta = torch.atan2(x[..., 1], x[..., 0]) % (2 * torch.pi)
    return r ** (2 / 3) * torch.sin(2 / 3 * theta)


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1)


def l_shape(n: int, grading: float) -> Mesh:
    """n × n squares per quarter: a box without the cells of one quarter, its nodes pulled towards the corner."""
    square = box((-1.0, -1.0), (1.0, 1.0), (2 * n, 2 * n))
    centres = square.nodes[square.cells].mean(1)
    cells = square.cells[(centres[:, 0] < 0) | (centres[:, 1] > 0)]
    distance = square.nodes.abs().max(-1, keepdim=True).values
    return Mesh(square.nodes * distance ** (grading - 1), cells, "quadrilateral")


def main(cells: int = 16, degrees: tuple[int, ...] = (1, 2), out: str | None = None) -> dict[str, float]:
    """Solve on two uniform and two graded meshes per degree and observe the rates.

    Args:
        cells: cells along the re-entrant edges of the coarser mesh; the finer one has twice as many
        degrees: polynomial degrees of the elements, 1 to 3
        out: folder for the picture; nothing is written without it

    Returns:
        "uniform rate d" and "graded rate d" of the H1 error for degree d.
    """
    figures = {}
    print("degree   mesh       H1 error   rate")
    for degree in degrees:
        for name, grading in (("uniform", 1.0), ("graded", 1.5 * degree + 0.5)):
            errors = []
            for n in (cells, 2 * cells):
                V = FunctionSpace(l_shape(n, grading), Lagrange(degree))
                u = minimize(Energy(V, density, Dirichlet(V, {"boundary": exact}))).value
                errors.append(float(h1_error(V, u, exact)))
            rate = math.log2(errors[0] / errors[1])
            print(f"{degree:6}   {name:7}   {errors[1]:.2e}   {rate:4.2f}")
            figures[f"{name} rate {degree}"] = rate
    if out is not None:
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
        for ax, (name, grading) in zip(axes, (("uniform", 1.0), ("graded", 2.0)), strict=True):
            V = FunctionSpace(l_shape(8, grading), Lagrange(2))
            u = minimize(Energy(V, density, Dirichlet(V, {"boundary": exact}))).value
            plot(V, u, ax, mesh=True, label="u").set_title(name)
        save(figure, out, "l_shape.png")
    return figures


if __name__ == "__main__":
    run(main)
