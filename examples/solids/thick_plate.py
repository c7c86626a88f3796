"""A thick plate under pressure: NAFEMS benchmark LE10, supported along an edge that is no side of any face.

A quarter of an elliptic plate with an elliptic hole, 0.6 m thick, carries 1 MPa on its upper face,

    J(u) = ∫ ½ λ (tr ε)² + μ ε:ε dx + ∫_top p u·n ds,    ε = ½(∇u + ∇uᵀ),

with symmetry at x = 0 and y = 0; the outer face cannot move in the plane, and its middle line not vertically either. In
MPa and m: E = 210 000, ν = 0.3; the ellipses have the semi-axes 2 × 1 and 3.25 × 2.75. Claim: at D, the corner (2, 0,
0.6) of the hole, σ_yy is within 2 % of −5.38, whether the stress is the derivative of the displacement there or
projected onto continuous functions.

Source: NAFEMS, The Standard NAFEMS Benchmarks, TNSB rev. 3, 1990, test LE10.
"""

from math import pi

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, plot, project, unit_cube, write_vtk
from solvers import minimize

TARGET = -5.38
YOUNG, POISSON, PRESSURE, THICKNESS = 210_000.0, 0.3, 1.0, 0.6
HOLE, RIM = (2.0, 1.0), (3.25, 2.75)
LAMBDA, MU = YOUNG * POISSON / (1 + POISSON) / (1 - 2 * POISSON), YOUNG / 2 / (1 + POISSON)


def stress(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    """σ = λ tr ε I + 2 μ ε."""
    trace = grad_u.diagonal(dim1=-2, dim2=-1).sum(-1)
    return LAMBDA * trace[..., None, None] * torch.eye(3, dtype=u.dtype) + MU * (grad_u + grad_u.mT)


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * (stress(x, u, grad_u) * grad_u).sum((-2, -1))


def pressure(x: Tensor, u: Tensor, normal: Tensor) -> Tensor:
    return PRESSURE * (u * normal).sum(-1)


def plate(n: int, degree: int) -> Mesh:
    """n cells from the hole to the rim and through the thickness, 2 n around, small near D, as curved as elements."""

    def shape(x: Tensor) -> Tensor:
        r, s, z = x[:, 0] * (1 + x[:, 0]) / 2, x[:, 1] * (1 + x[:, 1]) / 2, THICKNESS * x[:, 2]
        angle = 0.5 * pi * s
        a, b = (inner + r * (outer - inner) for inner, outer in zip(HOLE, RIM, strict=True))
        return torch.stack([a * angle.cos(), b * angle.sin(), z], -1)

    def on_middle_line(x: Tensor) -> Tensor:
        level = (x[:, 0] / RIM[0]).square() + (x[:, 1] / RIM[1]).square()
        return ((level - 1).abs() < 1e-9) & ((x[:, 2] - 0.5 * THICKNESS).abs() < 1e-9)

    return unit_cube(n, 2 * n, n).curved(degree, shape).with_tags(node_tags={"middle line": on_middle_line})


def main(cells: tuple[int, ...] = (4, 6, 8), degree: int = 2, out: str | None = None) -> dict[str, float]:
    """Refine the plate and watch the stress at the corner of its hole.

    Args:
        cells: numbers of cells from the hole to the rim, one mesh after another
        degree: polynomial degree of displacements and geometry, 1 to 3
        out: folder for the picture and the VTK file; nothing is written without it

    Returns:
        "evaluated n" and "projected n": σ_yy at D in MPa.
    """
    figures, corner = {}, torch.tensor([[HOLE[0], 0.0, THICKNESS]], dtype=torch.float64)
    print(f"cells      dofs   σ_yy at D: evaluated   projected   (reference {TARGET} MPa)")
    for n in cells:
        V = FunctionSpace(plate(n, degree), Lagrange(degree), components=3)
        held = {("bottom", 1): 0.0, ("top", 0): 0.0, ("right", 0): 0.0, ("right", 1): 0.0, ("middle line", 2): 0.0}
        energy = Energy(V, density, Dirichlet(V, held), boundary={"front": pressure})
        u = minimize(energy).value
        value, slope = V.evaluate(u, corner, derivatives=1)
        S = FunctionSpace(V.mesh, Lagrange(degree), components=9)
        projected = project(S, lambda *at: stress(*at).flatten(-2), V.function(u))
        figures[f"evaluated {n}"] = float(stress(corner, value, slope)[0, 1, 1])
        figures[f"projected {n}"] = float(S.evaluate(projected, corner)[0, 4])
        print(f"{n:5} {V.num_dofs:9} {figures[f'evaluated {n}']:22.3f} {figures[f'projected {n}']:11.3f}")
        if out is not None and n == max(cells):
            T = FunctionSpace(V.mesh, Lagrange(degree))
            sigma = projected[:, 4].contiguous()
            draw(T, sigma, out)
            write_vtk(f"{out}/thick_plate.vtu", V, {"u": u, "sigma_yy": T.function(sigma)})
    return figures


def draw(T: FunctionSpace, sigma: Tensor, out: str) -> None:
    figure = plt.figure(figsize=(8, 5), layout="constrained")
    ax = figure.add_subplot(projection="3d")
    most = float(sigma.abs().max())
    plot(T, sigma, ax, label="σ_yy in MPa", cmap="coolwarm", limits=(-most, most))
    ax.view_init(elev=35, azim=-125)
    ax.set_box_aspect((*RIM, THICKNESS), zoom=0.95)  # pyright: ignore[reportArgumentType]
    ax.text(HOLE[0], -0.1, THICKNESS, "D", zorder=10)
    ax.set(xlabel="x in m", ylabel="y in m", title="Thick plate under pressure (LE10)")
    save(figure, out, "thick_plate.png")


if __name__ == "__main__":
    run(main)
