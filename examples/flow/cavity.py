"""Flow in a square cavity whose lid moves, from creeping flow to Reynolds number 400.

    −Δu + Re (u·∇) u + ∇p = 0,   ∇·u = 0 in (0, 1)²,   u = (1, 0) on the lid, 0 on the walls,   ∫ p = 0

as a weak form in Taylor–Hood elements on quadrilaterals that are finer at the walls. The corners belong to the walls,
so that nothing leaks through these. Each flow starts Newton's method for the next Reynolds number.

Claims: the least horizontal velocity on the vertical centre line is that of the literature, −0.21404 at Re = 100 and
−0.32873 at Re = 400, and the profile is that of Ghia, Ghia and Shin within the error of their grid.

Source: Ghia, Ghia and Shin, Journal of Computational Physics 48, 1982, table I; Botella and Peyret, Computers and
Fluids 27, 1998 (Re = 100); Marchi, Suero and Araki, Journal of the Brazilian Society of Mechanical Sciences and
Engineering 31, 2009 (Re = 400).
"""

from math import pi

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, run, save
from fem import Dirichlet, FunctionSpace, Lagrange, MeanZero, MixedSpace, WeakForm, unit_square, write_vtk
from solvers import solve

HEIGHTS = (0.0547, 0.0625, 0.0703, 0.1016, 0.1719, 0.2813, 0.4531, 0.5, 0.6172, 0.7344, 0.8516, 0.9531, 0.9609, 0.9688)
GHIA = {  # u at x = ½ and these heights
    100: (
        *(-0.03717, -0.04192, -0.04775, -0.06434, -0.10150, -0.15662, -0.21090),
        *(-0.20581, -0.13641, 0.00332, 0.23151, 0.68717, 0.73722, 0.78871),
    ),
    400: (
        *(-0.08186, -0.09266, -0.10338, -0.14612, -0.24299, -0.32726, -0.17119),
        *(-0.11477, 0.02135, 0.16256, 0.29093, 0.55892, 0.61756, 0.68439),
    ),
}
PUBLISHED = {100: -0.21404, 400: -0.32873}
Pair = tuple[Tensor, Tensor]


def form(x: Tensor, w: Pair, grad_w: Pair, test: Pair, grad_test: Pair, reynolds: Tensor) -> Tensor:
    (u, p), (v, q), grad_u, grad_v = w, test, grad_w[0], grad_test[0]
    div = lambda g: g.diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731
    inertia = (torch.einsum("...ij,...j->...i", grad_u, u) * v).sum(-1)
    return (grad_u * grad_v).sum((-1, -2)) + reynolds * inertia - p * div(grad_v) - q * div(grad_u)


def main(cells: int = 32, reynolds: tuple[float, ...] = (0.0, 100, 400), out: str | None = None) -> dict[str, float]:
    """Solve for one Reynolds number after the other.

    Args:
        cells: cells per side
        reynolds: Reynolds numbers, in ascending order
        out: folder for the picture and the VTK files; nothing is written without it

    Returns:
        For each Reynolds number "minimum Re" of u on the vertical centre line, for 100 and 400 "ghia Re", the largest
        difference from the table.
    """
    mesh = unit_square(cells, cells)
    mesh = mesh.with_nodes(mesh.nodes - torch.sin(2 * pi * mesh.nodes) / (4 * pi))  # half as wide at the walls
    W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    V, Q = W.fields
    lid = torch.tensor([1.0, 0.0], dtype=W.dtype)
    walls = {(side, 0): 0.0 for side in ("left", "right", "bottom")}
    held = Dirichlet(W, {("top", 0): lid, **walls}) & MeanZero(W, field=1)
    weak, w, figures, flows = WeakForm(W, form, held), None, {}, {}
    height = torch.linspace(0, 1, 2001, dtype=W.dtype)
    line = lambda y: torch.stack([torch.full_like(y, 0.5), y], 1)  # noqa: E731
    for number in reynolds:
        w = solve(weak, params=(number,), initial=w).value
        flows[number] = W.split(w)
        profile = V.evaluate(flows[number][0], line(height))[:, 0]
        figures[f"minimum {number:g}"] = float(profile.min())
        text = f"Re {number:5g}: least u on the centre line {float(profile.min()):.5f}"
        if number in GHIA:
            table = torch.tensor(GHIA[int(number)], dtype=W.dtype)
            there = V.evaluate(flows[number][0], line(torch.tensor(HEIGHTS, dtype=W.dtype)))[:, 0]
            figures[f"ghia {number:g}"] = float((there - table).abs().max())
            text += f" (published {PUBLISHED[int(number)]}); Ghia's table within {figures[f'ghia {number:g}']:.4f}"
        print(text)
    if out is not None:
        for number, (u, p) in flows.items():
            fields = {"velocity": u, "pressure": Q.function(p)}
            print(f"wrote {write_vtk(folder(out) / f'cavity_{number:g}.vtu', V, fields)}")
        draw(V, {number: u for number, (u, _) in flows.items()}, line, height, out)
    return figures


def draw(V: FunctionSpace, flows: dict[float, Tensor], line, height: Tensor, out: str) -> None:
    """Stream lines over the speed of each flow, and the profiles on the centre line."""
    figure, axes = plt.subplots(1, len(flows) + 1, figsize=(3.6 * (len(flows) + 1), 3.9), layout="constrained")
    side = torch.linspace(0, 1, 101, dtype=V.dtype)
    points = torch.cartesian_prod(side, side).flip(1)  # x runs fastest
    for ax, (number, u) in zip(axes, flows.items(), strict=False):
        velocity = V.evaluate(u, points).T.reshape(2, len(side), len(side)).numpy()
        speed = (velocity**2).sum(0) ** 0.5
        colours = ax.imshow(speed, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap="viridis")
        ax.streamplot(side.numpy(), side.numpy(), *velocity, color="white", linewidth=0.6, density=1.1, arrowsize=0.6)
        ax.set(title=f"Re = {number:g}", xlabel="x", ylabel="y", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    figure.colorbar(colours, ax=axes[:-1], label="speed", shrink=0.8)
    for k, (number, u) in enumerate(flows.items()):
        axes[-1].plot(V.evaluate(u, line(height))[:, 0], height, color=f"C{k}", label=f"Re = {number:g}")
        if number in GHIA:
            axes[-1].plot(GHIA[int(number)], HEIGHTS, "o", color=f"C{k}", markersize=4, label="Ghia et al. 1982")
    axes[-1].set(title="on the vertical centre line", xlabel="horizontal velocity", ylabel="y", ylim=(0, 1))
    axes[-1].legend(fontsize=8, loc="lower right")
    save(figure, out, "cavity.png")


if __name__ == "__main__":
    run(main)
