"""Homogenisation: what a periodic cell is worth as a material, and how that depends on its phases.

A mean gradient e is carried by u = e · x + w with a periodic corrector w, the minimiser of the cell's energy, and

    ½ e · K e = min_w ∫ ½ k |e + ∇w|²,        K e = ∫ k (e + ∇w),

the flux on the right being the derivative of the energy in e. Claims: K of a checkerboard comes out as √(k₁ k₂)
(Keller) to three digits in spite of its singular corners, on cells graded towards them, and its derivatives in both
phases as ½ √(k₂/k₁) and ½ √(k₁/k₂), by one backward pass; K of round fibres in a square array agrees with Rayleigh's
series; the plane bulk modulus of an elastic checkerboard of one shear modulus is Hill's; and moving a cell by whole
voxels changes nothing.

Sources: J. B. Keller, A theorem on the conductivity of a composite medium, J. Math. Phys. 5, 1964. W. T. Perrins, D. R.
McKenzie and R. C. McPhedran, Transport properties of regular arrays of cylinders, Proc. R. Soc. A 369, 1979, eq. (14).
R. Hill, Theory of mechanical properties of fibre-strengthened materials, J. Mech. Phys. Solids 12, 1964.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Constant, Energy, FunctionSpace, Lagrange, MeanZero, Mesh, Periodic, box, plot, unit_square
from solvers import Direct, minimize

SMALLER = 0.25  # each layer of cells towards a corner than the one before


def conduction(x: Tensor, w: Tensor, grad_w: Tensor, k: Tensor, e: Tensor) -> Tensor:
    """½ k |e + ∇w|²."""
    return 0.5 * k * (e + grad_w).square().sum(-1)


def elasticity(x: Tensor, w: Tensor, grad_w: Tensor, lame: Tensor, e: Tensor) -> Tensor:
    """½ λ (tr ε)² + μ ε : ε with the strain ε = e + sym ∇w and the shear modulus μ = 1, in plane strain."""
    strain = e + 0.5 * (grad_w + grad_w.mT)
    return 0.5 * lame * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square() + strain.square().sum((-2, -1))


def effective(energy: Energy, phase: Tensor, modes: Tensor, method: Any = None) -> tuple[Tensor, Tensor]:
    """The effective tensor, mean fluxes along mean gradients "m …" of an orthogonal basis, and the correctors "m n".

    Args:
        phase: the modulus of each cell of the mesh.
    """
    k, shape = energy.space.per_cell(phase), modes.shape[1:]
    w = minimize(energy, (k, Constant(modes, shape)), method=method).value
    e = modes.clone().requires_grad_()
    (flux,) = torch.autograd.grad(energy(w, k, Constant(e, shape)).sum(), e, create_graph=True)
    return flux.flatten(1) @ modes.flatten(1).T, w.detach()


def periodic_energy(mesh: Mesh, degree: int, density: Any, components: int | None = None) -> Energy:
    V = FunctionSpace(mesh, Lagrange(degree), components)
    return Energy(V, density, Periodic(V, {"right": "left", "top": "bottom"}) & MeanZero(V))


def graded_square(layers: int) -> Mesh:
    """Cells of the unit square that shrink by a factor towards 0, ½ and 1 along both axes, so towards all corners."""
    steps = 0.25 * SMALLER ** torch.arange(layers - 1, -1, -1, dtype=torch.float64)
    quarter = torch.cat([torch.zeros(1, dtype=torch.float64), steps])
    half = torch.cat([quarter, 0.5 - quarter[:-1].flip(0)])
    line = torch.cat([half, 0.5 + half[1:]])
    square = unit_square(len(line) - 1)
    return square.with_nodes(line[(square.nodes * (len(line) - 1)).round().long()])


def checkerboard(mesh: Mesh) -> Tensor:
    """Which phase, 0 or 1, each cell belongs to."""
    x = mesh.nodes[mesh.cells].mean(1)
    return ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)).long()


def fibre(n: int, radius: float) -> tuple[Mesh, Tensor]:
    """The unit cell about 0 with a disk in its middle, of curved cells that follow the circle, and which are inside.

    A core, a ring up to the circle and one from there to the sides are drawn with |ξ|∞ up to ¼, ½ and 1, and rounded.
    """
    core, ring = box((-0.25, -0.25), (0.25, 0.25), (n, n)), box((0.25, -1.0), (1.0, 1.0), (3 * (n // 2), n))
    arm = ring.nodes[:, :1] * torch.stack([torch.ones_like(ring.nodes[:, 0]), ring.nodes[:, 1]], 1)
    turns = [torch.tensor([[c, s], [-s, c]], dtype=arm.dtype) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    nodes = torch.cat([core.nodes, *[arm @ turn for turn in turns]])
    cells = torch.cat([core.cells, *[ring.cells + len(core.nodes) + i * len(arm) for i in range(4)]])
    _, number = (nodes * 1e6).round().long().unique(dim=0, return_inverse=True)
    merged = nodes.new_empty(int(number.max()) + 1, 2).index_copy(0, number, nodes)
    inside = nodes[cells].mean(1).abs().amax(1) < 0.5

    def rounded(xi: Tensor) -> Tensor:
        size = xi.abs().amax(1, keepdim=True)
        square, tilted = xi / size.clamp(min=1e-9), xi[:, 1].abs() > xi[:, 0].abs()
        angle = torch.pi / 4 * torch.where(tilted, square[:, 0] / square[:, 1], square[:, 1] / square[:, 0])
        near, far = angle.nan_to_num().cos(), angle.nan_to_num().sin()
        circle = torch.stack([torch.where(tilted, far, near), torch.where(tilted, near, far)], 1)
        circle = circle * torch.where(tilted, square[:, 1], square[:, 0]).sign()[:, None]
        first, second = (4 * size - 1).clamp(0, 1), (2 * size - 1).clamp(0, 1)
        inner = (1 - first) * (4 * size).clamp(max=1) * 0.5 * radius * square + first * radius * circle
        return (1 - second) * inner + second * 0.5 * square

    ends = {"left": (0, -0.5), "right": (0, 0.5), "bottom": (1, -0.5), "top": (1, 0.5)}
    tags = {name: lambda x, k=k, end=end: (x[..., k] - end).abs() < 1e-9 for name, (k, end) in ends.items()}
    return Mesh(merged, number[cells], "quadrilateral").curved(3, rounded).with_tags(tags), inside


def series(contrast: float, fraction: float) -> float:
    """The conductivity of a square array of cylinders in a matrix of conductivity 1 (Perrins et al., eq. 14)."""
    t, f = (1 + contrast) / (1 - contrast), fraction
    return 1 - 2 * f / (t + f - 0.305827 * f**4 * t / (t**2 - 1.402958 * f**8) - 0.013362 * f**8 / t)


def main(
    layers: int = 8,
    degree: int = 3,
    contrast: float = 10.0,
    radius: float = 0.35,
    cells: int = 8,
    voxels: int = 48,
    out: str | None = None,
) -> dict[str, float]:
    """Homogenise a checkerboard, an array of fibres, an elastic checkerboard and random voxels.

    Args:
        layers: of cells from each corner of the checkerboard to the middle of its edges
        degree: polynomial degree of the elements
        contrast: conductivity of the second phase over that of the first
        radius: of the fibres
        cells: along a quarter of a fibre's circumference
        voxels: along a side of the random cell
        out: folder for the picture; nothing is written without it

    Returns:
        Effective moduli, what they should be, and derivatives of the first one in both phases.
    """
    axes, figures = torch.eye(2, dtype=torch.float64), {}
    board = periodic_energy(graded_square(layers), degree, conduction)
    which = checkerboard(board.space.mesh)
    phases = torch.tensor([1.0, contrast], dtype=torch.float64, requires_grad=True)
    K, w = effective(board, phases[which], axes, Direct())
    slopes, mean = torch.autograd.grad(K[0, 0], phases)[0].tolist(), math.sqrt(contrast)
    # Both phases take the same part, so that the dual problem has the same energy: an upper bound is a lower one too.
    figures |= {"checkerboard": K[0, 0].item(), "lower": contrast / K[0, 0].item(), "across": K[0, 1].item()}
    figures |= {"keller": mean, "in the first": slopes[0], "in the second": slopes[1]}
    print(f"checkerboard            {figures['lower']:.5f} ≤ K ≤ {figures['checkerboard']:.5f}, √(k₁ k₂) = {mean:.5f}")
    print(f"  ∂K/∂k₁, ∂K/∂k₂        {slopes[0]:.5f}, {slopes[1]:.5f}, exact {mean / 2:.5f}, {0.5 / mean:.5f}")

    mesh, inside = fibre(cells, radius)
    fibres = periodic_energy(mesh, degree, conduction)
    conductivity = torch.where(inside, contrast, 1.0).double()
    K, w_fibres = effective(fibres, conductivity, axes)
    figures |= {"fibres": K[0, 0].item(), "series": series(contrast, math.pi * radius**2)}
    print(f"fibres                  {figures['fibres']:.5f}, Rayleigh's series {figures['series']:.5f}")

    plates = periodic_energy(graded_square(layers), degree, elasticity, components=2)
    strains = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]]).double() / math.sqrt(2)
    C, _ = effective(plates, phases.detach()[which], strains, Direct())
    figures |= {"bulk": C[0, 0].item() / 2, "hill": 2 / (1 / 3 + 1 / (contrast + 2)) - 1, "shear": C[1, 1].item() / 2}
    print(f"elastic checkerboard    bulk modulus {figures['bulk']:.5f}, Hill {figures['hill']:.5f}")

    noise = periodic_energy(unit_square(voxels), 1, conduction)
    k = contrast ** torch.rand(voxels, voxels, dtype=torch.float64, generator=torch.manual_seed(0))
    moved = k.roll((voxels // 3, voxels // 2), (0, 1))
    here, there = (effective(noise, given.flatten(), axes)[0] for given in (k, moved))
    figures["moved"] = ((here - there).abs().max() / here.abs().max()).item()
    print(f"random voxels, moved    K changes by {figures['moved']:.1e}")
    if out is not None:
        rows = {"checkerboard": (board, phases[which], w[0]), "fibres": (fibres, conductivity, w_fibres[0])}
        save(picture(rows), out, "homogenization.png")
    return figures


def picture(rows: dict[str, tuple[Energy, Tensor, Tensor]]) -> Any:
    """Cells with their conductivity, and the temperature for a mean gradient along x."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained", sharey="row")
    for row, (name, (energy, k, w)) in zip(axes, rows.items(), strict=True):
        V = energy.space
        assert isinstance(V, FunctionSpace)
        plot(V, V.per_cell(k.detach()), row[0], mesh=True, label="k", cmap="cividis").set_title(f"{name}: conductivity")
        plot(V, V.dof_coordinates[:, 0] + w, row[1], label="u = x + w").set_title("temperature, mean gradient along x")
    return figure


if __name__ == "__main__":
    run(main)
