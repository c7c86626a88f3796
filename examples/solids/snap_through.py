"""A shallow arch that snaps through: the path of its equilibria around both of its folds.

    J(u; p) = ∫ ½λ (tr E)² + μ E:E dx + p ∫_top u_y ds,    E = ½(FᵀF − I),  F = I + ∇u

An arch of circle, clamped at both ends, carries a vertical pressure p on its back. At the first fold the load cannot
grow any more: the arch jumps to the other side. `follow` goes on along the unstable states between both folds by arc
length. Beside it stands von Mises' truss, whose limit load is known, P = 2h³ / 3√3 for ψ = (w²/2 − h w)².

Claims: the truss turns at ± its limit load to nine digits; the arch has two folds, from which the load rises again.

Source: Crisfield, A fast incremental/iterative solution procedure that handles snap-through, Computers and Structures
13, 1981.
"""

from math import asin, cos

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, Reals, plot, unit_square
from fem.materials import deformation_gradient, saint_venant_kirchhoff
from solvers import Path, follow

SPAN, RISE, THICKNESS = 2.0, 0.2, 0.05


def arch(cells: int) -> Mesh:
    """Quadrilaterals along an arch of circle over so wide a span, so high, bent in their nodes."""
    radius = (SPAN**2 / 4 + RISE**2) / (2 * RISE)
    half = asin(SPAN / 2 / radius)

    def bend(x: Tensor) -> Tensor:
        angle, r = half * (2 * x[..., 0] - 1), radius + THICKNESS * (x[..., 1] - 0.5)
        return torch.stack([r * torch.sin(angle), r * torch.cos(angle) - radius * cos(half)], -1)

    return unit_square(cells, 2).curved(2, bend)


def density(x: Tensor, u: Tensor, grad_u: Tensor, pressure: Tensor) -> Tensor:
    return saint_venant_kirchhoff(deformation_gradient(grad_u), 1.0, 1.5)


def weight(x: Tensor, u: Tensor, normal: Tensor, pressure: Tensor) -> Tensor:
    return pressure * u[..., 1]


def truss() -> Path:
    """Height 1, up to a load that only the other side carries."""
    energy = Energy(Reals(unit_square(1)), lambda x, w, grad_w, load: (w**2 / 2 - w) ** 2 - load * w)
    return follow(energy, lambda s: (s,), span=(0.0, 1.0), step=0.1, arc_length=True)


def main(cells: int = 24, degree: int = 2, out: str | None = None) -> dict[str, float]:
    """Follow both.

    Args:
        cells: cells along the arch, an even number
        degree: of the elements, 1 to 3
        out: folder for the picture; nothing is written without it

    Returns:
        "truss error" of the limit load, relative; "upper" and "lower" pressure at the folds of the arch; "snap", how
        far its middle has come at the end, in rises; "solutions".
    """
    limit = 2 / 3 / 3**0.5
    error = float((truss().folds.abs() - limit).abs().max()) / limit
    V = FunctionSpace(arch(cells), Lagrange(degree), components=2)
    energy = Energy(V, density, Dirichlet(V, {"left": 0.0, "right": 0.0}), boundary={"top": weight})
    scale = (THICKNESS / SPAN) ** 2 * RISE
    path = follow(energy, lambda s: (s * scale,), span=(0.0, 5.0), step=0.3, arc_length=True)
    middle = torch.linalg.vector_norm(V.dof_coordinates - torch.tensor([0.0, RISE]), dim=-1).argmin()
    drop = -path.values[:, middle, 1] / RISE
    figures = {"truss error": error, "snap": float(drop[-1]), "solutions": float(len(drop))}
    figures |= {"upper": scale * float(path.folds[0]), "lower": scale * float(path.folds[1])}
    print(f"truss: folds within {error:.0e} of ±2h³/3√3")
    print(f"arch: {path}")
    print(
        f"pressure at the folds {figures['upper']:.4e}, {figures['lower']:.4e}; middle at {figures['snap']:.2f} rises"
    )
    if out is not None:
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        left.plot(drop, path.parameters * scale, "o-", ms=3)
        turns = -path.fold_values[:, middle, 1] / RISE
        left.plot(turns, path.folds * scale, "rs", label="folds")
        left.set(xlabel="drop of the middle / rise", ylabel="pressure", title="Equilibria")
        left.grid(True, alpha=0.3)
        left.legend()
        last = path.values[-1]
        for u in (path.values[0], *path.fold_values, last):
            plot(V, u, ax=right, colorbar=u is last, limits=(0.0, 2 * RISE), label="|u|")
        right.set(title="At rest, at both folds and at the end", aspect="equal")
        save(figure, out, "snap_through.png")
    return figures


if __name__ == "__main__":
    run(main)
