"""Poisson's equation on the unit square, against its exact solution and the figures of a published solver.

    −Δu = 2π² sin πx sin πy,    u = 0 on the boundary,    exact: u = sin πx sin πy

is solved by minimising J(u) = ∫ ½|∇u|² − f u dx over Lagrange elements. Claim: J is minimised to round-off, so nothing
but the discretisation error is left, of order h^(d+1) in L2, and below the published errors at every degree and grid.

Source of the comparison: Cho, Balu, Joshi, Deva Prasad, Khara, Sarkar, Ganapathysubramanian, Krishnamurthy and Hegde,
Differentiable Spline Approximations, NeurIPS 2021, Table 4, which prints the nodal error ‖u − u_exact‖₂ / √N.
"""

import time

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, markdown, run, save, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, l2_error, plot, unit_square, write_vtk
from solvers import Solution, minimize
from solvers.minimization import Method

PUBLISHED = {
    (128, 1): 3.32e-5,
    (128, 2): 2.16e-5,
    (128, 3): 2.37e-5,
    (256, 1): 2.57e-5,
    (256, 2): 2.79e-5,
    (256, 3): 2.59e-5,
}
HEAD = ("cells", "degree", "unknowns", "seconds", "nodal RMS error", "L2 error", "published RMS")


def exact(x: Tensor) -> Tensor:
    return torch.sin(torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])


def load(x: Tensor) -> Tensor:
    return 2 * torch.pi**2 * exact(x)


def density(x: Tensor, u: Tensor, grad_u: Tensor, f: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1) - f * u


def discretise(cells: int, degree: int, method: Method | None = None) -> tuple[FunctionSpace, Solution, float]:
    """Space, minimiser, and the seconds for both."""
    start = time.perf_counter()
    V = FunctionSpace(unit_square(cells), Lagrange(degree))
    solution = minimize(Energy(V, density, Dirichlet(V, {"boundary": 0.0})), params=(load,), method=method)
    return V, solution, time.perf_counter() - start


def main(
    cells: tuple[int, ...] = (128, 256), degrees: tuple[int, ...] = (1, 2, 3), out: str | None = None
) -> dict[str, float]:
    """Solve on every grid with every degree.

    Args:
        cells: cells in each direction, one grid after another
        degrees: polynomial degrees of the elements, 1 to 3
        out: folder for the picture (lowest degree), VTK file (highest) and table; nothing is written without it

    Returns:
        "rms n d", "l2 n d" and "seconds n d" for n cells and degree d.
    """
    figures, rows, solutions = {}, [], []
    for n in cells:
        for degree in degrees:
            print(f"{n} x {n} cells, degree {degree} ...", end=" ", flush=True)
            V, solution, seconds = discretise(n, degree)
            u = solution.value
            rms = float((u - V.interpolate(exact)).square().mean().sqrt())
            l2 = float(l2_error(V, u, exact))
            print(f"{seconds:.1f} s", flush=True)
            figures |= {f"rms {n} {degree}": rms, f"l2 {n} {degree}": l2, f"seconds {n} {degree}": seconds}
            published = PUBLISHED.get((n, degree))
            entries = (f"{n}²", degree, V.num_dofs, f"{seconds:.1f}", f"{rms:.2e}", f"{l2:.2e}", published or "–")
            rows.append(tuple(map(str, entries)))
            if n == cells[0]:
                solutions.append((V, u))
    table = markdown(HEAD, rows)
    print(f"\n{table}")
    if out is not None:
        draw(out, *solutions[0])
        V, u = solutions[-1]
        wanted = V.interpolate(exact)
        print(f"wrote {write_vtk(folder(out) / 'poisson.vtu', V, {'u': u, 'exact': wanted, 'difference': u - wanted})}")
        write(table, out, "poisson.md")
    return figures


def draw(out: str, V: FunctionSpace, u: Tensor) -> None:
    """The picture: load, solution, exact solution and their difference."""
    wanted = V.interpolate(exact)
    size = float((u - wanted).abs().max())
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 6.4), layout="constrained", sharex=True, sharey=True)
    plot(V, V.interpolate(load), axes[0, 0]).set_title("load $f$")
    plot(V, u, axes[0, 1]).set_title(f"solution $u$, degree {V.degree}")
    plot(V, wanted, axes[1, 0]).set_title("exact solution")
    plot(V, u - wanted, axes[1, 1], cmap="RdBu_r", limits=(-size, size)).set_title("difference at the nodes")
    save(figure, out, "poisson.png")


if __name__ == "__main__":
    run(main)
