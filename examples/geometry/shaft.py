"""The cross-section of a shaft that resists torsion best for its area is a circle, found from a rectangle.

The section is five spline patches: a square core and four around it, whose outer control points are free. The stiffness
against torsion (per unit of shear modulus) is D = 2 ∫ φ with −Δφ = 2 inside and φ = 0 on the boundary (Prandtl). D / A²
does not change with size, so that it is maximised without a constraint, by smoothed gradients through `minimize` in
the control points; steps that fold a patch, or make things worse, are halved. Geometry and derivative are exact, and no
mesh is ever made. Claim: D / A² rises to that of the circle, 1 / 2π, the largest there is (Saint-Venant), and the
boundary becomes round.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import markdown, run, save, write
from fem import Dirichlet, Energy, integrate, write_vtk
from nurbs import GeometryError, SplineSpace, Surface, isogeometric_space
from solvers import minimize

CIRCLE = 1 / (2 * torch.pi)  # D / A²
CORE = 0.3  # half the side of the square inside
SPANS = 2  # knot spans of each quarter of the boundary
SMOOTHING = 1.0  # of gradients, by second differences along the boundary
HEAD = ("iteration", "D / A²", "below the circle", "radius, largest / smallest")


def section(points: Tensor) -> list[Surface]:
    """Patches inside the closed boundary of control points "n 2", four cubic quarters one after another."""
    n = len(points) // 4
    corners = CORE * torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]).to(points)
    patches = [Surface(torch.stack([corners[[3, 2]], corners[[0, 1]]]), degree=1)]
    for k in range(4):
        outer = torch.cat([points, points[:1]])[k * n : (k + 1) * n + 1]
        inner = torch.lerp(corners[k], corners[(k + 1) % 4], greville(n + 1).to(points)[:, None])
        patches.append(Surface(torch.stack([inner, outer]), degree=(1, 3), sides=("core", "outer", "first", "last")))
    return patches


def greville(count: int) -> Tensor:
    """Where control points of a line lie for even speed."""
    inner = torch.linspace(0, 1, count - 2, dtype=torch.float64)
    knots = torch.cat([inner[:1].repeat(3), inner, inner[-1:].repeat(3)])
    return knots.unfold(0, 3, 1)[1:-1].mean(1)


def rectangle(width: float, height: float, count: int) -> Tensor:
    """Control points of a closed boundary, from the lower right corner on, `count` to a side."""
    corners = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    corners = corners * torch.tensor([width / 2, height / 2], dtype=torch.float64)
    at = greville(count + 1)[:-1, None]
    return torch.cat([torch.lerp(a, b, at) for a, b in pairwise(corners)])


def torsion(V: SplineSpace) -> tuple[Tensor, Tensor]:
    """D / A² and the stress function φ."""
    energy = Energy(V, lambda x, u, grad_u: 0.5 * grad_u.square().sum(-1) - 2 * u, Dirichlet(V, {"outer": 0.0}))
    phi = minimize(energy).value
    area = integrate(V, lambda x: torch.ones_like(x[..., 0]))
    return 2 * integrate(V, V.function(phi)) / area**2, phi


def main(
    width: float = 3.0,
    height: float = 1.4,
    degree: int = 3,
    spans: int = 4,
    iterations: int = 20,
    out: str | None = None,
) -> dict[str, float]:
    """Maximise the stiffness, and compare with the circle.

    Args:
        width: of the rectangle at the start
        height: of the rectangle at the start
        degree: of the analysis basis
        spans: of the analysis basis, per direction of each patch
        iterations: of the optimisation
        out: folder for the picture, the table and the VTK file of the last section; nothing is written without it

    Returns:
        "start" and "end": D / A² over that of the circle; "round": the largest over the smallest radius at the end.
    """
    points = rectangle(width, height, SPANS + 2)
    V = isogeometric_space(section(points), degree, spans)
    eye = torch.eye(len(points), dtype=points.dtype)
    smooth = torch.linalg.inv(eye + SMOOTHING * (2 * eye - eye.roll(1, 0) - eye.roll(-1, 0)))
    shown, rows, step, value = [], [], 1.0, torch.zeros(())
    for k in range(iterations + 1):
        points.requires_grad_()
        W = V.with_patches(section(points))
        value, phi = torsion(W)
        (g,) = torch.autograd.grad(value, points)
        points, value, phi = points.detach(), value.detach(), phi.detach()
        W = V.with_patches(section(points))
        edge = boundary(points)
        radius = (edge - edge.mean(0)).norm(dim=1)
        shown.append((k, W, phi, edge))
        rows.append(
            (
                str(k),
                f"{float(value):.6f}",
                f"{1 - float(value) / CIRCLE:.1e}",
                f"{float(radius.max() / radius.min()):.4f}",
            )
        )
        for _ in range(30 if k < iterations else 0):
            moved = points + step / CIRCLE * (smooth @ g)
            if better(V, moved, value):
                points, step = moved, 1.5 * step
                break
            step /= 2
    chosen = sorted({0, 1, 2, 4, 8, 16, iterations} & set(range(iterations + 1)))
    table = markdown(HEAD, [rows[k] for k in chosen])
    print(table)
    if out is not None:
        write(table, out, "shaft.md")
        save(picture([shown[k] for k in chosen[:: max(1, len(chosen) // 6)]]), out, "shaft.png")
        print(f"wrote {write_vtk(f'{out}/shaft.vtu', shown[-1][1], {'phi': shown[-1][2]})}")
    return {
        "start": float(rows[0][1]) / CIRCLE,
        "end": float(value) / CIRCLE,
        "round": float(radius.max() / radius.min()),
    }


def better(V: SplineSpace, points: Tensor, value: Tensor) -> bool:
    """Whether the section of these points is stiffer, and not folded."""
    try:
        return bool(torsion(V.with_patches(section(points)))[0] > value)
    except GeometryError:
        return False


def boundary(points: Tensor) -> Tensor:
    """Points on the boundary."""
    u, end = torch.linspace(0, 1, 33, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return torch.cat([patch(end, u)[0, :-1] for patch in section(points)[1:]])


def picture(shown: list):
    """The stress function on the sections."""
    figure, axes = plt.subplots(1, len(shown), figsize=(2.6 * len(shown), 2.6), layout="constrained", squeeze=False)
    for axis, (k, V, phi, edge) in zip(axes[0], shown, strict=True):
        u = torch.linspace(0, 1, 25, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(u, u, indexing="ij"), -1).flatten(0, 1)
        for i, patch in enumerate(V.mesh.patches):
            x = patch(u, u)
            values = V.at_parameters(phi, grid, i).view(25, 25)
            top = float(phi.max())
            axis.pcolormesh(x[..., 0].numpy(), x[..., 1].numpy(), values.numpy(), shading="gouraud", vmin=0, vmax=top)
        closed = torch.cat([edge, edge[:1]])
        axis.plot(closed[:, 0], closed[:, 1], color="black", lw=0.8)
        axis.set_title(f"iteration {k}", fontsize="medium")
        axis.set_aspect("equal")
        axis.set_axis_off()
    return figure


if __name__ == "__main__":
    run(main)
