"""Round shapes are exact: NURBS patches of every kind, measured, drawn with their nets, and written for ParaView.

A polynomial spline only comes near a circle; with weights it is one. Claim: length, area and volume of all shapes agree
with the formulas of the school book to round-off, and in the .vtu file they are round at any zoom (rational Bézier
cells, VTK 9 and later). Among them are the hyperboloid, ruled between two circles of which one is turned, and solids.
"""

from math import asinh, hypot, pi

import matplotlib.pyplot as plt
import torch

from examples.command_line import folder, markdown, run, save
from nurbs import (
    Curve,
    Surface,
    Volume,
    annulus,
    arc,
    circle,
    cylinder,
    disk,
    extrude,
    line,
    plot,
    revolve,
    ruled,
    sphere,
    torus,
    transform,
    write_geometry,
)
from nurbs.geometry.measure import measure

UPRIGHT = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # (ρ, z) → (ρ, 0, z)


def shapes() -> dict[str, tuple[Curve | Surface | Volume, float]]:
    """Patches, and their lengths, areas or volumes."""
    turned = [arc(1.0, 2 * pi, angle, (0.0, 0.0, z)) for angle, z in ((-pi / 3, -1.0), (pi / 3, 1.0))]
    a, k = 0.5, hypot(0.75, 0.75**0.5)  # ρ² = a² + 3/4 z², and dA = 2π √(a² + k² z²) dz
    section = transform(disk(0.4), UPRIGHT, (1.0, 0.0, 0.0))
    pipe = annulus(0.5, 1.0, 1.5 * pi, center=(0.0, 0.0, 0.0))
    return {
        "arc": (arc(1.0, 4 * pi / 3, -pi / 6), 4 * pi / 3),
        "circle": (circle(), 2 * pi),
        "disk": (disk(), pi),
        "annulus": (annulus(0.5, 1.0, 1.5 * pi), 9 * pi / 16),
        "cylinder": (cylinder(0.6, 1.5), 1.8 * pi),
        "cone": (ruled(circle(1.0, (0.0, 0.0, 0.0)), circle(0.25, (0.0, 0.0, 1.0))), 1.25 * pi * 1.25),
        "hyperboloid": (ruled(*turned), 2 * pi * (hypot(a, k) + a * a / k * asinh(k / a))),
        "sphere": (sphere(), 4 * pi),
        "torus": (torus(1.0, 0.4), 1.6 * pi**2),
        "frustum": (revolve(line((1.0, 0.0, 0.0), (0.5, 0.0, 1.0)), 1.5 * pi), 0.75 * pi * 1.5 * 1.25**0.5),
        "extruded annulus": (extrude(pipe, (0.0, 0.0, 0.6)), 0.6 * 9 * pi / 16),
        "revolved disk": (revolve(section, 1.5 * pi), 0.24 * pi**2),
    }


def main(points: int = 40, out: str | None = None) -> dict[str, float]:
    """Measure, draw and write the shapes.

    Args:
        points: Gauss points per knot span and direction
        out: folder for picture and geometry; nothing is written without it

    Returns:
        The relative error of each shape's length, area or volume.
    """
    patches = shapes()
    figures = {name: abs(float(measure(patch, points)) / exact - 1) for name, (patch, exact) in patches.items()}
    print(markdown(("shape", "relative error"), [(name, f"{error:.1e}") for name, error in figures.items()]))
    if out is not None:
        figure = plt.figure(figsize=(12, 9), layout="constrained")
        for i, (name, (patch, _)) in enumerate(patches.items(), 1):
            space = {"projection": "3d", "proj_type": "ortho"} if patch.dim == 3 else {}
            ax = plot(patch, figure.add_subplot(3, 4, i, **space))
            ax.set_title(name)
            ax.set_axis_off()
        save(figure, out, "nurbs_gallery.png")
        path = write_geometry(folder(out) / "nurbs_gallery.vtu", [patch for patch, _ in patches.values()])
        print(f"wrote {path}")
    return figures


if __name__ == "__main__":
    run(main)
