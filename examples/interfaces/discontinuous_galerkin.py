"""A Poisson problem by functions that jump between cells, held together by terms on the facets (interior penalty).

    J(u) = ∫ ½|∇u|² − f u dx  +  Σ_interior ∫ {∂u/∂n} [u] + ½ (σ/h) [u]² ds
                              +  ∫_boundary −∂u/∂n (u − g) + ½ (σ/h) (u − g)² ds

with the jump [u] = u₊ − u₋ and the mean {·} of both sides; n points from − to +, and σ = 4 (p + 1)². Its residual is
zero at the exact u; boundary values are a term like the others.

Claims: order p + 1 in L2 for p = 1, 2, 3 on shuffled triangles, distorted quadrilaterals and a grid; what each cell
gains through its facets and its source sums up to zero, cell by cell, as no continuous method has it.

Source: Arnold, An interior penalty finite element method with discontinuous elements, SIAM J. Numer. Anal. 19, 1982;
Nitsche, Abhandlungen aus dem Mathematischen Seminar der Universität Hamburg 36, 1971 (the boundary).
"""

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import (
    Discontinuous,
    Energy,
    FunctionSpace,
    Mesh,
    average,
    integrate,
    jump,
    l2_error,
    plot,
    plot_line,
    unit_square,
)
from solvers import minimize


def exact(x: Tensor) -> Tensor:
    return torch.sin(4 * x[..., 0] + 1) * torch.cos(3 * x[..., 1])


def source(x: Tensor) -> Tensor:
    return 25 * exact(x)


def poisson(V: FunctionSpace) -> tuple[Energy, tuple[Any, ...]]:
    """The energy J and its parameters: the source, and on the boundary the size of the cell behind the facet."""
    weight = 4 * (V.degree + 1) ** 2

    def density(x: Tensor, u: Tensor, grad_u: Tensor, f: Any, h: Any) -> Tensor:
        return 0.5 * grad_u.square().sum(-1) - f * u

    def interior(x: Tensor, u: Any, grad_u: Any, normal: Tensor, size: Tensor, f: Any, h: Any) -> Tensor:
        return (average(grad_u) * normal).sum(-1) * jump(u) + 0.5 * weight / size * jump(u).square()

    def boundary(x: Tensor, u: Tensor, grad_u: Tensor, normal: Tensor, f: Any, h: Any) -> Tensor:
        gap = u - exact(x)
        return -(grad_u * normal).sum(-1) * gap + 0.5 * weight / h * gap.square()

    energy = Energy(V, density, boundary={"boundary": boundary}, derivatives=(1, 1), interior={"": interior})
    return energy, (source, V.per_cell(integrate(V, 1.0, per_cell=True).sqrt()))


def irregular(cell: str, n: int) -> Mesh:
    """The unit square in n × n cells (or twice as many triangles), in any order, vertices inside moved about."""
    grid, generator = unit_square(n, cell=cell), torch.Generator().manual_seed(n)
    shift = 0.4 / n * (torch.rand(grid.nodes.shape, dtype=grid.dtype, generator=generator) - 0.5)
    inside = ((grid.nodes > 0) & (grid.nodes < 1)).all(1, keepdim=True)
    return Mesh(grid.nodes + shift * inside, grid.cells[torch.randperm(grid.num_cells, generator=generator)], cell)


MESHES: dict[str, Callable[[int], Mesh]] = {
    "triangles": lambda n: irregular("triangle", n),
    "quadrilaterals": lambda n: irregular("quadrilateral", n),
    "grid": unit_square,
}


def balance(V: FunctionSpace, energy: Energy, u: Tensor, params: tuple[Any, ...]) -> float:
    """The greatest of ∂J/∂u along the indicator of a cell: its fluxes and its source, which cancel."""
    residual = energy.residual(u, *params)
    return max(float(residual[dofs].sum(1).abs().max()) for dofs in V.cell_dofs)


def main(cells: int = 8, degrees: tuple[int, ...] = (1, 2, 3), out: str | None = None) -> dict[str, float]:
    """Solve on two meshes of each kind, the second twice as fine.

    Args:
        cells: cells in each direction of the coarser mesh
        degrees: of the polynomials
        out: folder for the picture; nothing is written without it

    Returns:
        "KIND l2 DEGREE" on the finer mesh, "KIND rate DEGREE", "balance" (the greatest of all cells).
    """
    figures: dict[str, float] = {"balance": 0.0}
    for kind, mesh in MESHES.items():
        for degree in degrees:
            errors = []
            for n in (cells, 2 * cells):
                V = FunctionSpace(mesh(n), Discontinuous(degree))
                energy, params = poisson(V)
                u = minimize(energy, params).value
                errors.append(float(l2_error(V, u, exact)))
                figures["balance"] = max(figures["balance"], balance(V, energy, u, params))
            figures[f"{kind} l2 {degree}"] = errors[1]
            figures[f"{kind} rate {degree}"] = math.log2(errors[0] / errors[1])
            print(f"{kind:>15}, degree {degree}: L2 error {errors[1]:.2e}, rate {figures[f'{kind} rate {degree}']:.2f}")
    print(f"what is left of the balance of a cell: {figures['balance']:.1e}")
    if out is not None:
        save(picture(), out, "discontinuous_galerkin.png")
    return figures


def picture() -> Any:
    """Few triangles: functions of degree 1 to 3, and all of them along a line."""
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.6), layout="constrained", width_ratios=(1, 1, 1.3))
    start, end = (0.0, 0.37), (1.0, 0.63)
    for degree, ax in zip((1, 2), axes[:2], strict=True):
        V = FunctionSpace(irregular("triangle", 3), Discontinuous(degree))
        energy, params = poisson(V)
        u = minimize(energy, params).value
        plot(V, u, ax, mesh=True, limits=(-1.1, 1.1), cmap="RdBu_r", label="u", colorbar=degree == 2)
        ax.plot(*zip(start, end, strict=True), color="black", linewidth=1, linestyle="--")
        ax.set(title=f"degree {degree}", xlabel="x", ylabel="y", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        plot_line(V, u, start, end, axes[2], count=2000, label=f"degree {degree}")
    s = torch.linspace(0, 1, 300, dtype=torch.float64)[:, None]
    ends = torch.tensor([start, end], dtype=torch.float64)
    line = (1 - s) * ends[0] + s * ends[1]
    axes[2].plot(s[:, 0] * (ends[1] - ends[0]).norm(), exact(line), color="black", linewidth=1, label="exact")
    axes[2].set(title="along the dashed line", xlabel="distance")
    axes[2].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
