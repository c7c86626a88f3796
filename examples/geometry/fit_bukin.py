"""A NURBS surface for a function with a crease: where the knots lie matters more than how many there are.

Bukin's function N. 6,    z = 100 √|y − 0.01 x²| + 0.01 |x + 10|,    x ∈ [−15, 5], y ∈ [−3, 5],

has a crease along a parabola. Cubic surfaces of 8 × 8 control points are fitted to n × n points of it, with parameters
uniform on [0, 1]²: knots fixed and uniform, free knots, free knots and weights. Claim: Newton's method with the control
points eliminated goes below the published residuals (Cho et al., 2021, Table 2) in seconds; it needs no learning rate.

Source: M. Cho et al., Differentiable spline approximations, NeurIPS 2021, section 4.1, Table 2 and Figure 2.
"""

import time

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import markdown, run, save, write
from nurbs import fit_surface
from nurbs.fitting.fit import SurfaceFit

PUBLISHED = {128: 8.25, 256: 8.23}  # Table 2: learnt knots
FREE = {
    "fixed": ("control_points",),
    "knots": ("control_points", "knots"),
    "knots and weights": ("control_points", "knots", "weights"),
}
HEAD = ("points", "free", "residual", "published", "steps", "seconds", "status")


def bukin(n: int) -> Tensor:
    """Points (x, y, z) of the function on a grid, "u v d"."""
    x, y = torch.linspace(-15, 5, n, dtype=torch.float64), torch.linspace(-3, 5, n, dtype=torch.float64)
    x, y = torch.meshgrid(x, y, indexing="ij")
    return torch.stack([x, y, 100 * (y - 0.01 * x**2).abs().sqrt() + 0.01 * (x + 10).abs()], -1)


def picture(points: Tensor, fits: dict[str, SurfaceFit]):
    """The target and the fits from above, with their knot lines, and below them |z - target|."""
    x, y, z = points.unbind(-1)
    u = torch.linspace(0, 1, len(points), dtype=torch.float64)
    figure, axes = plt.subplots(2, len(fits) + 1, figsize=(3.4 * len(fits) + 3.8, 6), layout="constrained")
    shown = {"vmin": float(z.min()), "vmax": float(z.max()), "shading": "gouraud", "rasterized": True}
    values = axes[0, 0].pcolormesh(x, y, z, **shown)
    axes[0, 0].set_title("target")
    axes[1, 0].plot(y[len(y) // 4], z[len(z) // 4], color="0.6", lw=3, label="target")
    errors = {name: (fit.surface(u, u)[..., 2] - z).abs() for name, fit in fits.items()}
    largest = max(float(error.max()) for error in errors.values())
    for column, (name, fit) in enumerate(fits.items(), 1):
        surface = fit.surface(u, u)
        axes[0, column].pcolormesh(x, y, surface[..., 2], **shown)
        across, along = (t.unique() for t in fit.surface.knots)
        for lines in (fit.surface(across, u), fit.surface(u, along).movedim(1, 0)):
            for line in lines:
                axes[0, column].plot(line[:, 0], line[:, 1], color="white", lw=0.8)
        axes[0, column].set_title(f"{name}: {float(fit.residual):.3f}")
        error = axes[1, column].pcolormesh(
            x, y, errors[name], cmap="magma", vmin=0, vmax=largest, shading="gouraud", rasterized=True
        )
        axes[1, 0].plot(y[len(y) // 4], surface[len(z) // 4, :, 2], lw=1, label=name)
    figure.colorbar(values, ax=axes[0], label="z, and knot lines")
    figure.colorbar(error, ax=axes[1], label="|z − target|")
    axes[1, 0].set(xlabel="y", title=f"section at x = {float(x[len(x) // 4, 0]):.3g}")
    axes[1, 0].legend(fontsize="x-small", loc="lower right")
    for ax in (*axes[0], *axes[1, 1:]):
        ax.set(xlabel="x", ylabel="y")
    return figure


def main(
    points: tuple[int, ...] = (128, 256), shape: tuple[int, ...] = (8, 8), out: str | None = None
) -> dict[str, float]:
    """Fit each grid of points in three ways.

    Args:
        points: points per direction
        shape: control points per direction
        out: folder for the table and a picture of the first grid; nothing is written without it

    Returns:
        "fixed n", "knots n" and "knots and weights n": mean squared error over the n × n points and their coordinates.
    """
    figures, rows, first = {}, [], {}
    for n in points:
        for name, free in FREE.items():
            start = time.perf_counter()
            fit = fit_surface(bukin(n), shape, (3, 3), free)
            seconds = time.perf_counter() - start
            figures[f"{name} {n}"] = float(fit.residual)
            published = f"{PUBLISHED[n]}" if name == "knots" and n in PUBLISHED and shape == (8, 8) else ""
            ends = (f"{int(fit.iterations)}", f"{seconds:.1f}", fit.status.name.lower())
            rows.append((f"{n}²", name, f"{float(fit.residual):.3f}", published, *ends))
            if n == points[0]:
                first[name] = fit
    text = markdown(HEAD, rows)
    print(text)
    if out is not None:
        write(text, out, "fit_bukin.md")
        save(picture(bukin(points[0]), first), out, "fit_bukin.png")
    return figures


if __name__ == "__main__":
    run(main)
