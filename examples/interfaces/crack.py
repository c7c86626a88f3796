"""Cracks that conduct heat badly, or not at all: on tagged facets the temperature may jump, and a conductance meets it.

    J(T) = ∫ ½ k |∇T|² dx  +  ∫_crack ½ h [T]² ds  +  terms that hold T together elsewhere and at its prescribed values

so that the flux through the crack is h [T]. Functions are discontinuous, with the interior penalty of
`discontinuous_galerkin.py` on all other facets; h = 0 is an open crack, and h → ∞ none.

Claims: two layers of conductivities 1 and 10, each half of a slab of thickness 1, pass the flux

    q = 1 / (½ / 1 + ½ / 10 + 1 / h),    [T] = q / h,    dq/dh = q² / h²        (q = 20 / 11 without resistance)

to round-off, seen from either side, however the cells are numbered. Around an open crack from the left edge to the
centre of a square, T = √r sin(θ/2): the order is that of the singularity at its tip, 1 in L2 and ½ in H1.

Source: Carslaw and Jaeger, Conduction of Heat in Solids, 1959, section 1.9 (contact resistance); Grisvard, Elliptic
Problems in Nonsmooth Domains, 1985, section 4.4 (the tip).
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
    box,
    by_cell_tag,
    h1_error,
    integrate,
    jump,
    l2_error,
    plot,
    plot_line,
)
from solvers import minimize

PENALTY = 20.0
LAYERS = {"left": 1.0, "right": 10.0}


def conduction(x: Tensor, u: Tensor, grad_u: Tensor, k: Any, *params: Any) -> Tensor:
    return 0.5 * k * grad_u.square().sum(-1)


def together(x: Tensor, u: Any, grad_u: Any, normal: Tensor, size: Tensor, k: Any, *params: Any) -> Tensor:
    """{k ∂T/∂n} [T] + ½ (σ/h) [T]²."""
    flux = 0.5 * (k.minus * (grad_u.minus * normal).sum(-1) + k.plus * (grad_u.plus * normal).sum(-1))
    return flux * jump(u) + 0.5 * PENALTY * torch.maximum(k.minus, k.plus) / size * jump(u).square()


def resistance(x: Tensor, u: Any, grad_u: Any, normal: Tensor, size: Tensor, k: Any, cell: Any, h: Any) -> Tensor:
    return 0.5 * h * jump(u).square()


def prescribed(value: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """T = value, by Nitsche's method."""

    def boundary(x: Tensor, u: Tensor, grad_u: Tensor, normal: Tensor, k: Any, cell: Any, *h: Any) -> Tensor:
        gap = u - value(x)
        return k * (0.5 * PENALTY / cell * gap.square() - (grad_u * normal).sum(-1) * gap)

    return boundary


def cracked(lower: tuple[float, float], cells: tuple[int, int], where: Callable[[Tensor], Tensor], seed: int) -> Mesh:
    """Triangles in any order between `lower` and (1, 1), with facets "crack" and the others inside "sound"."""
    grid = box(lower, (1.0, 1.0), cells, cell="triangle")
    order = torch.randperm(grid.num_cells, generator=torch.Generator().manual_seed(seed))
    sides = {"left": lambda x: x[..., 0] == lower[0], "right": lambda x: x[..., 0] == 1}
    layers = {"left": lambda x: x[..., 0] < 0.5, "right": lambda x: x[..., 0] > 0.5}
    mesh = Mesh(grid.nodes, grid.cells[order], facet_tags=sides, cell_tags=layers)
    crack = where(mesh.nodes[mesh.facets]).all(1)
    inside = torch.ones_like(crack)
    inside[mesh.facets_tagged("boundary")] = False
    return mesh.with_tags({"crack": crack, "sound": inside & ~crack})


def cell_size(V: FunctionSpace) -> Any:
    return V.per_cell(integrate(V, 1.0, per_cell=True).sqrt())


def slab(cells: int, h: float | Tensor | None, seed: int = 0) -> tuple[FunctionSpace, Tensor, list[Tensor]]:
    """T of two layers between 0 and 1 with a conductance h between them, and the flux seen from either."""
    mesh = cracked((0.0, 0.0), (2 * cells, cells), lambda x: (x[..., 0] - 0.5).abs() < 1e-9, seed)
    V = FunctionSpace(mesh, Discontinuous(1))
    ends = {"left": prescribed(lambda x: 0 * x[..., 0]), "right": prescribed(lambda x: 1 + 0 * x[..., 0])}
    inside = {"": together} if h is None else {"sound": together, "crack": resistance}
    energy = Energy(V, conduction, boundary=ends, derivatives=(1, 1), interior=inside)
    layers = by_cell_tag(LAYERS)
    T = minimize(energy, (layers, cell_size(V), *([] if h is None else [h]))).value
    flux = lambda x, u, grad_u, normal, k: k * (grad_u * normal).sum(-1)  # noqa: E731
    return V, T, [integrate(V, flux, ("crack", side), u=T, params=(layers,)) for side in LAYERS]


def tip(x: Tensor) -> Tensor:
    """√r sin(θ/2)."""
    return x.norm(dim=-1).sqrt() * torch.sin(0.5 * torch.atan2(x[..., 1], x[..., 0]))


def open_crack(cells: int) -> tuple[FunctionSpace, Tensor]:
    """T around a crack along y = 0, x < 0 that nothing passes."""
    mesh = cracked((-1.0, -1.0), (cells, cells), lambda x: (x[..., 1].abs() < 1e-9) & (x[..., 0] < 1e-9), 0)
    V = FunctionSpace(mesh, Discontinuous(1))
    around, one = {"boundary": prescribed(tip)}, V.per_cell(torch.ones(mesh.num_cells, dtype=V.dtype))
    energy = Energy(V, conduction, boundary=around, derivatives=(1, 1), interior={"sound": together})
    return V, minimize(energy, (one, cell_size(V))).value


def main(
    cells: int = 16, conductances: tuple[float, ...] = (1.0, 10.0), orders: int = 3, out: str | None = None
) -> dict[str, float]:
    """Conduct through a slab with and without a crack, and around an open one.

    Args:
        cells: cells in each direction around the open crack; a second mesh is twice as fine, that of the slab half
        conductances: of the crack in the slab
        orders: how often the cells of the slab are numbered at random
        out: folder for the picture; nothing is written without it

    Returns:
        "flux" (no resistance, from the left), "worst" (the greatest error of all fluxes, from either side), "jump" (of
        [T]), "derivative" (of dq/dh), "l2 rate" and "h1 rate" around the open crack.
    """
    figures: dict[str, float] = {"worst": 0.0, "jump": 0.0, "derivative": 0.0}
    half = max(cells // 2, 1)
    for h in (None, *conductances):
        exact = 1 / (0.5 / LAYERS["left"] + 0.5 / LAYERS["right"] + (0 if h is None else 1 / h))
        for seed in range(orders):
            conductance = None if h is None else torch.tensor(h, dtype=torch.float64, requires_grad=True)
            V, T, (left, right) = slab(half, conductance, seed)
            errors = [abs(float(left.detach()) - exact), abs(float(right.detach()) + exact)]
            figures["worst"] = max(figures["worst"], *errors)
            if h is None or conductance is None:
                figures["flux"] = float(left)
                continue
            leap = {("crack", "left"): lambda x, u, grad_u, normal, size: jump(u)}
            found = float(Energy(V, lambda x, u, grad_u: 0 * u, interior=leap)(T.detach()))
            figures["jump"] = max(figures["jump"], abs(found - exact / h))
            slope = float(torch.autograd.grad(left, conductance)[0])
            figures["derivative"] = max(figures["derivative"], abs(slope - (exact / h) ** 2))
        print(f"h = {'∞' if h is None else f'{h:g}':>3}: flux {exact:.6f}, largest error so far {figures['worst']:.1e}")
    errors = []
    for n in (cells, 2 * cells):
        V, T = open_crack(n)
        errors.append((float(l2_error(V, T, tip)), float(h1_error(V, T, tip))))
    for name, coarse, fine in zip(("l2", "h1"), *errors, strict=True):
        figures[f"{name} rate"] = math.log2(coarse / fine)
        print(f"open crack: {name} error {fine:.2e}, rate {figures[f'{name} rate']:.2f}")
    if out is not None:
        save(picture(half, conductances, V, T), out, "crack.png")
    return figures


def picture(half: int, conductances: tuple[float, ...], V: FunctionSpace, T: Tensor) -> Any:
    """Profiles through the slab, the square with its open crack, and both faces of that."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for h in (None, *conductances):
        W, u, _ = slab(half, h)
        plot_line(W, u, (0.0, 0.4), (1.0, 0.4), axes[0], count=2001, label="no crack" if h is None else f"h = {h:g}")
    axes[0].set(title="two layers", xlabel="x", ylabel="T")
    axes[0].legend(frameon=False)
    plot(V, T, axes[1], cmap="RdBu_r", label="T", limits=(-1.1, 1.1)).set(title="an open crack", xlabel="x", ylabel="y")
    axes[1].plot([-1, 0], [0, 0], color="black", linewidth=1.5)
    for y, name in ((1e-9, "above"), (-1e-9, "below")):
        plot_line(V, T, (-1.0, y), (1.0, y), axes[2], count=801, label=name)
    s = torch.linspace(0, 1, 200, dtype=torch.float64)
    faces = torch.stack([(1 - s).sqrt(), -(1 - s).sqrt()], 1)
    axes[2].plot(s, faces, color="black", linewidth=1, linestyle=":", label=["±√r", None])
    axes[2].set(title="along y = 0", xlabel="x + 1")
    axes[2].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
