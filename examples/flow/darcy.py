"""Flow through layered ground (Darcy): fluxes in Raviart–Thomas elements, the pressure cell by cell.

Water seeps from a pond (p = 1, on top) to a drain (p = 0, at the bottom) through sand, clay and silt; the clay has a
gap. Find the saddle point of

    ∫ ½ |σ|² / k − p div σ dx + ∫_top σ·n ds,    so that σ = −k ∇p and div σ = 0 in every cell.

What flows into a cell flows out of it, to round-off. By how much more the ground drains if one of its layers does comes
with the same solve; these shares, k ∂Q/∂k, add up to the rate Q, as Euler's theorem on homogeneous functions says.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, run, save
from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Mesh,
    MixedSpace,
    RaviartThomas,
    box,
    integrate,
    plot,
    write_vtk,
)
from solvers import solve

LAYERS = {"sand": (1.0, 0.4), "clay": (1e-3, 0.2), "silt": (1e-1, 0.4)}  # permeability and height, from top to bottom
GAP = (0.9, 1.1)  # where the clay is sand


def density(x: Tensor, u: tuple[Tensor, Tensor], derivatives: tuple[Tensor, Tensor], k: Tensor) -> Tensor:
    (flux, p), (divergence, _) = u, derivatives
    return 0.5 * flux.square().sum(-1) / k - p * divergence


def inflow(x: Tensor, u: tuple[Tensor, Tensor], normal: Tensor, k: Tensor) -> Tensor:
    return (u[0] * normal).sum(-1)  # times the pressure on top, 1


def layers(mesh: Mesh, gap: bool) -> Tensor:
    """The number of each cell's layer."""
    centre = torch.cat([mesh.nodes[block.connectivity].mean(1) for block in mesh.blocks])
    bottoms = 1 - torch.tensor([height for _, height in LAYERS.values()], dtype=mesh.dtype).cumsum(0)
    layer = (centre[:, 1:] < bottoms).sum(1)
    inside = (centre[:, 0] > GAP[0]) & (centre[:, 0] < GAP[1])
    return torch.where(inside & (layer == 1) & gap, 0, layer)


def main(cells: int = 20, degree: int = 2, cell: str = "triangle", out: str | None = None) -> dict[str, float]:
    """Solve with the gap in the clay and without it, where the rate is that of layers in series.

    Args:
        cells: over the height of the block, a multiple of ten
        degree: of the elements, 1 or 2
        cell: triangle or quadrilateral
        out: folder for picture and VTK file; nothing is written without it

    Returns:
        "rate" and "rate without gap" through the bottom, "exact without gap"; "imbalance", the largest flow that any
        cell keeps, and "lost" between top and bottom, both over the rate; "share of" each layer, k ∂Q/∂k / Q.
    """
    mesh = box((0.0, 0.0), (2.0, 1.0), (2 * cells, cells), cell=cell)
    V, Q = FunctionSpace(mesh, RaviartThomas(degree)), FunctionSpace(mesh, Discontinuous(degree - 1))
    W = MixedSpace(V, Q)
    walls = Dirichlet(W, {("left", 0): 0.0, ("right", 0): 0.0})
    energy = Energy(W, density, walls, boundary={"top": inflow})
    k = torch.tensor([value for value, _ in LAYERS.values()], dtype=torch.float64, requires_grad=True)

    def flow(gap: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Flux, pressure, and permeability of every cell."""
        permeability = k[layers(mesh, gap)]
        flux, pressure = W.split(solve(energy, (V.per_cell(permeability),)).value)
        return flux, pressure, permeability

    def through(flux: Tensor, tag: str) -> Tensor:
        return integrate(V, lambda x, u, divergence, n: (u * n).sum(-1), tag, u=flux)

    flux, pressure, permeability = flow(True)
    rate = through(flux, "bottom")
    shares = torch.autograd.grad(rate, k)[0] * k.detach() / rate.detach()
    flux, pressure, permeability = (t.detach() for t in (flux, pressure, permeability))
    kept = integrate(V, lambda x, u, divergence: divergence.abs(), u=flux, per_cell=True)
    figures = {
        "rate": float(rate.detach()),
        "rate without gap": float(through(flow(False)[0], "bottom").detach()),
        "exact without gap": 2 / sum(height / value for value, height in LAYERS.values()),
        "imbalance": float(kept.max() / rate.detach()),
        "lost": abs(float((through(flux, "top") + rate.detach()) / rate.detach())),
        **{f"share of {name}": float(share) for name, share in zip(LAYERS, shares, strict=True)},
    }
    print(f"rate {figures['rate']:.5f}, without the gap {figures['rate without gap']:.5f} ", end="")
    print(f"(layers in series: {figures['exact without gap']:.5f})")
    print(f"largest flow that a cell keeps: {figures['imbalance']:.1e} of it")
    print("shares: " + ", ".join(f"{name} {100 * float(s):.1f} %" for name, s in zip(LAYERS, shares, strict=True)))
    if out is not None:
        draw(V, Q, flux, pressure, permeability, out)
        fields = {"flux": flux, "pressure": Q.function(pressure)}
        write_vtk(folder(out) / "darcy.vtu", V, fields, cell_data={"permeability": permeability})
    return figures


def draw(V: FunctionSpace, Q: FunctionSpace, flux: Tensor, pressure: Tensor, permeability: Tensor, out: str) -> None:
    """The ground with stream lines, and the pressure."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 7.4), layout="constrained")
    ground = FunctionSpace(V.mesh, Discontinuous(0))
    plot(ground, permeability.log10(), above, cmap="YlOrBr_r", label="log₁₀ k")
    x, y = torch.linspace(0.005, 1.995, 160).double(), torch.linspace(0.005, 0.995, 80).double()
    at = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], 1)
    speed = V.evaluate(flux, at).reshape(len(y), len(x), 2).numpy()
    width = (speed**2).sum(-1) ** 0.5
    above.streamplot(
        x.numpy(),
        y.numpy(),
        *speed.transpose(2, 0, 1),
        color="#1f6fb2",
        density=1.3,
        arrowsize=0.8,
        linewidth=0.4 + 2 * (width / width.max()) ** 0.5,
    )
    above.set_title("Seepage through sand, clay with a gap, and silt")
    plot(Q, pressure, below, label="pressure")
    below.set_title("Pressure")
    save(figure, out, "darcy.png")


if __name__ == "__main__":
    run(main)
