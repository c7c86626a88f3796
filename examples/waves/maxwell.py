"""Resonances of a cavity (Maxwell): Nédélec elements, and not one spurious eigenvalue among them.

The electric field in a cavity with perfectly conducting walls, n × E = 0,

    curl curl E = λ E,    as   ∫ ½ |curl E|² against ∫ ½ |E|².

Every gradient is an eigenfunction for λ = 0, as many as there are inner vertices; the resonances stand above. In the
square of side 1 they are π² (m² + n²), m + n ≥ 1, on grids and on distorted triangles in any order alike. In the
L-shaped cavity the field of the first is singular at the corner; Dauge's values stand beside those found.
"""

from math import pi

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, run, save
from fem import Dirichlet, Energy, FunctionSpace, Mesh, Nedelec, plot, unit_square, write_vtk
from solvers import Eigenmodes, eigenmodes

EXACT = [m + n for m, n in [(0, 1), (0, 1), (1, 1), (0, 4), (0, 4), (1, 4), (1, 4), (4, 4), (0, 9), (0, 9)]]  # / π²
# M. Dauge, Benchmark computations for Maxwell equations for the approximation of highly singular solutions (2004):
# (−1, 1)² without its quarter x > 0, y < 0.
L_SHAPE = [1.47562182408, 3.53403136678, 9.86960440109, 9.86960440109, 11.3894793979]


def distorted(mesh: Mesh, amount: float = 0.2) -> Mesh:
    """Inner nodes moved at random by up to `amount` times the spacing."""
    inner = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inner[mesh.facets[mesh.facets_tagged("boundary")]] = False
    random = torch.rand(mesh.nodes.shape, dtype=mesh.dtype, generator=torch.Generator().manual_seed(0))
    spacing = (2 / mesh.num_cells) ** 0.5
    return mesh.with_nodes(mesh.nodes + amount * spacing * (2 * random - 1) * inner[:, None])


def l_shape(n: int) -> Mesh:
    """(−1, 1)² without its quarter x > 0, y < 0, in triangles that shrink towards the corner."""
    square = unit_square(2 * n, cell="triangle")
    nodes = 2 * square.nodes - 1
    centre = nodes[square.cells].mean(1)
    kept = square.cells[~((centre[:, 0] > 0) & (centre[:, 1] < 0))]
    used, cells = kept.unique(return_inverse=True)
    x = nodes[used]
    distance = x.abs().amax(1, keepdim=True)
    return Mesh(torch.where(distance > 0, x * distance.clamp(min=1e-300), x), cells)


def resonances(mesh: Mesh, degree: int, count: int) -> tuple[FunctionSpace, Eigenmodes]:
    """The lowest ones above the gradients."""
    V = FunctionSpace(mesh, Nedelec(degree))
    walls = Dirichlet(V, {"boundary": 0.0})
    energy = Energy(V, lambda x, E, curl: 0.5 * curl.square(), walls)
    mass = Energy(V, lambda x, E, curl: 0.5 * E.square().sum(-1), walls)
    return V, eigenmodes(energy, mass, count, above=0.5)


def main(cells: int = 16, degree: int = 2, out: str | None = None) -> dict[str, float]:
    """The first ten resonances of a square on a grid and on distorted triangles, the first five of an L.

    Args:
        cells: in each direction of the square
        degree: of the elements, 1 or 2
        out: folder for picture and VTK file; nothing is written without it

    Returns:
        "grid", "triangles" and "L": the largest relative error of the eigenvalues there.
    """
    triangles = distorted(unit_square(cells, cell="triangle"))
    meshes = {"grid": unit_square(cells), "triangles": triangles, "L": l_shape(cells)}
    figures, drawn = {}, []
    for name, mesh in meshes.items():
        exact = torch.tensor(L_SHAPE if name == "L" else [pi**2 * value for value in EXACT], dtype=torch.float64)
        V, found = resonances(mesh, degree, len(exact))
        figures[name] = float((found.values / exact - 1).abs().max())
        print(f"{name:10} {V.num_dofs:6} dofs:", " ".join(f"{float(v):9.5f}" for v in found.values[:6]))
        print(f"{'exact':22}:", " ".join(f"{float(v):9.5f}" for v in exact[:6]), f"  error {figures[name]:.1e}")
        drawn.append((V, found))
    if out is not None:
        draw([(*drawn[1], 2), (*drawn[1], 7), (*drawn[2], 0)], out)
        V, found = drawn[2]
        write_vtk(folder(out) / "maxwell.vtu", V, {f"E{i}": mode for i, mode in enumerate(found.modes)})
    return figures


def draw(modes: list[tuple[FunctionSpace, Eigenmodes, int]], out: str) -> None:
    """|E| of some modes, with arrows along the field."""
    figure, axes = plt.subplots(1, len(modes), figsize=(4.6 * len(modes), 3.9), layout="constrained")
    for ax, (V, found, i) in zip(axes, modes, strict=True):
        field = found.modes[i]
        plot(V, field, ax, label="|E|", cmap="magma", limits=limits(V, field))
        x, at = V.mesh.nodes, torch.cartesian_prod(*[torch.linspace(0.04, 0.96, 14).double()] * 2)
        at = x.amin(0) + at * (x.amax(0) - x.amin(0))
        arrows = V.evaluate(field, at, outside=float("nan"))
        arrows = arrows / arrows.norm(dim=1, keepdim=True)
        ax.quiver(*at.T.numpy(), *arrows.T.numpy(), color="white", alpha=0.8, scale=26, width=0.004, pivot="middle")
        ax.set_title(f"λ = {float(found.values[i]):.4f}")
    save(figure, out, "maxwell.png")


def limits(V: FunctionSpace, field: Tensor) -> tuple[float, float]:
    """From 0 to what all but a hundredth of the cells stay below: a singular field has no largest value."""
    centres = torch.cat([V.mesh.nodes[block.connectivity].mean(1) for block in V.mesh.blocks])
    return 0.0, float(V.evaluate(field, centres).norm(dim=1).quantile(0.99))


if __name__ == "__main__":
    run(main)
