"""Operators without a matrix, as in CEED's bake-off problems: unknowns per second of a Hessian product.

    BP1: y = M v, from J = ∫ ½u² dx        BP3: y = K v, from J = ∫ ½|∇u|² dx

in double precision on hexahedra of the unit cube, degrees 1 to 3, with p + 2 Gauss points per direction: on a uniform
grid, and on the same cells given as any mesh would be, with their numbers shuffled, all alike (affine) or bent. Figures
are of `energy.hessian_product`, which linearises the density at u anew each time. Claim: products on the grid and on
the mesh agree; and the figures printed, per core where one thread is taken.

For orientation: deal.II's BP3 on affine cells, one core of an Intel Xeon: 9.5, 25 and 21 MDOF/s for degrees 1, 2 and 3
(Fischer, Min, Rathnayake, Dutta, Kolev, Dobrev, Camier, Kronbichler, Warburton, Świrydowicz and Brown, Scalability of
high-performance PDE solvers, International Journal of High Performance Computing Applications 34, 2020).
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, table, use_threads
from examples.command_line import run, save, write
from fem import Energy, FunctionSpace, Lagrange, Mesh, compilation, unit_cube


def mass(x: Tensor, u: Tensor) -> Tensor:
    return 0.5 * u**2


def stiffness(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1)


PROBLEMS: dict[str, tuple[Callable, int]] = {"BP1": (mass, 0), "BP3": (stiffness, 1)}


def shuffled(mesh: Mesh, bend: float) -> Mesh:
    """The same cells in any order, numbers of nodes too, and bent by so much."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(mesh.nodes), generator=generator)
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order))
    cells = number[mesh.cells[torch.randperm(mesh.num_cells, generator=generator)]]
    x = mesh.nodes[order]
    return Mesh(x + bend * torch.sin(3 * x).flip(-1), cells, "hexahedron")


def spaces(degree: int, n: int) -> dict[str, FunctionSpace]:
    """The grid, and meshes of the same cells."""
    grid = unit_cube(n, n, n)
    meshes = {"grid": grid, "mesh, affine": shuffled(grid, 0.0), "mesh, bent": shuffled(grid, 0.05)}
    return {
        name: FunctionSpace(mesh, Lagrange(degree), quadrature_degree=2 * degree + 3) for name, mesh in meshes.items()
    }


def main(
    unknowns: int = 1_000_000,
    degrees: tuple[int, ...] = (1, 2, 3),
    repeats: int = 5,
    threads: int = 1,
    policy: str = "always",
    out: str | None = None,
) -> dict[str, float]:
    """Multiply in turns.

    Args:
        unknowns: about so many for each degree
        degrees: of the elements, 1 to 3
        repeats: products of each kind
        threads: threads of PyTorch; 0 for all cores
        policy: when kernels are compiled, "always" or, where no compiler is installed, "never"
        out: folder for the table and the picture; nothing is written without it

    Returns:
        "BP3 grid 2" in unknowns per second, and so for both problems, all meshes and degrees, "… difference" of the
        energies vᵀHv on the meshes from those on the grid.
    """
    use_threads(threads)
    with compilation(policy):
        return measure(unknowns, degrees, repeats, out)


def measure(unknowns: int, degrees: tuple[int, ...], repeats: int, out: str | None) -> dict[str, float]:
    """See `main`."""
    figures: dict[str, float] = {}
    rows = []
    for name, (density, derivatives) in PROBLEMS.items():
        for degree in degrees:
            found = spaces(degree, max(round((unknowns ** (1 / 3) - 1) / degree), 1))
            calls: dict[str, Callable[[Clock], Any]] = {}
            for place, V in found.items():
                energy = Energy(V, density, derivatives=derivatives)
                v = V.interpolate(lambda x: torch.sin(4 * x[..., 0]) * torch.cos(3 * x[..., 1]) + x[..., 2])
                calls[place] = lambda clock, energy=energy, v=v: (v, energy.hessian_product(torch.zeros_like(v), v))
            runs = interleaved(calls, repeats)
            products = {place: float((r.result[0] * r.result[1]).sum()) for place, r in runs.items()}
            for place, r in runs.items():
                figures[f"{name} {place} {degree}"] = found[place].num_dofs / r.seconds
            affine = products["mesh, affine"]
            figures[f"{name} {degree} difference"] = abs(affine - products["grid"]) / abs(products["grid"])
            own = [f"{figures[f'{name} {place} {degree}'] / 1e6:.1f}" for place in found]
            rows.append((name, degree, found["grid"].num_dofs, *own))
    head = ("", "degree", "unknowns", "grid", "mesh, affine", "mesh, bent")
    text = table("Millions of unknowns per second of a product without a matrix", head, rows)
    if out is not None:
        write(text, out, "throughput.md")
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True)
        for axes, name in zip(panels, PROBLEMS, strict=True):
            for place in ("grid", "mesh, affine", "mesh, bent"):
                values = [figures[f"{name} {place} {p}"] / 1e6 for p in degrees]
                axes.plot(degrees, values, "o-", label=place)
            axes.set(title=name, xlabel="degree", ylabel="MDOF/s", xticks=degrees)
            axes.grid(True, alpha=0.3)
        panels[1].plot([1, 2, 3], [9.5, 25, 21], "k--", label="deal.II, affine (2020)")
        panels[1].legend()
        figure.tight_layout()
        save(figure, out, "throughput.png")
    return figures


if __name__ == "__main__":
    run(main)
