"""All surfaces of a model fitted at once: one batch, each patch with knots of its own.

The patches of a folder of geometry files (or as many random ones) are sampled on grids; then points alone are left, and
surfaces with far fewer control points are fitted to them, with uniform and with free knots. Claim: one batched call
gives what one call per patch gives, and free knots lower the residual of every patch.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import markdown, run, save, write
from nurbs import Surface, fit_surface

HEAD = ("knots", "RMS error, mean", "RMS error, largest", "seconds", "seconds, one by one", "difference")


def generated(count: int) -> list[Surface]:
    """Wavy squares whose waves get shorter towards one corner, in another place in each."""
    generator = torch.Generator().manual_seed(0)
    s = torch.linspace(0, 1, 24, dtype=torch.float64)
    u, v = torch.meshgrid(s, s, indexing="ij")
    a, b, c = torch.rand(3, count, 1, 1, dtype=torch.float64, generator=generator)
    z = 0.15 * torch.sin(6 * (u + a) ** (2 + c)) * torch.cos(5 * (v + b) ** 2)
    points = torch.stack([u.expand(z.shape), v.expand(z.shape), z], -1)
    return [Surface(p) for p in points]


def read(folder: str) -> list[Surface]:
    from nurbs import read_geometry

    return [patch for patch in read_geometry(Path(folder)) if isinstance(patch, Surface) and patch.dim == 3]


def sample(surface: Surface, n: int) -> Tensor:
    """n × n points, equally spaced in the parameters."""
    steps = torch.linspace(0, 1, n, dtype=torch.float64)
    return surface(*(torch.lerp(start, end, steps) for start, end in surface.domain()))


def main(
    folder: str | None = None,
    patches: int = 16,
    points: int = 64,
    shape: tuple[int, ...] = (8, 8),
    out: str | None = None,
) -> dict[str, float]:
    """Fit all patches in one batch, and one by one for comparison.

    Args:
        folder: folder of geometry files; generated patches without it
        patches: how many patches to generate
        points: points per direction that are sampled on each
        shape: control points per direction of the fits
        out: folder for the table and the picture; nothing is written without it

    Returns:
        "fixed" and "knots": the root mean square error, mean over the patches, in units of the largest extent of a
        patch; "worst ratio" of the residuals with free and fixed knots; "difference" between batch and one by one.
    """
    clouds = torch.stack([sample(patch, points) for patch in (generated(patches) if folder is None else read(folder))])
    low, high = clouds.amin((1, 2), keepdim=True), clouds.amax((1, 2), keepdim=True)
    clouds = (clouds - low) / (high - low).amax(-1, keepdim=True)
    figures, rows, fits = {}, [], {}
    for name, free in (("fixed", ("control_points",)), ("knots", ("control_points", "knots"))):
        start = time.perf_counter()
        fit = fits[name] = fit_surface(clouds, shape, free=free)
        batch = time.perf_counter()
        singles = torch.stack([fit_surface(cloud, shape, free=free).residual for cloud in clouds])
        end = time.perf_counter()
        rms, difference = (3 * fit.residual).sqrt(), float((fit.residual - singles).abs().max())
        figures |= {name: float(rms.mean()), "difference": max(difference, figures.get("difference", 0.0))}
        times = (f"{batch - start:.2f}", f"{end - batch:.2f}")
        rows.append((name, f"{rms.mean():.1e}", f"{rms.max():.1e}", *times, f"{difference:.0e}"))
    figures["worst ratio"] = float((fits["knots"].residual / fits["fixed"].residual).max())
    text = markdown(HEAD, rows)
    print(text)
    if out is not None:
        write(text, out, "fit_patches.md")
        shown = min(4, len(clouds))
        figure, axes = plt.subplots(
            1,
            shown,
            figsize=(3.4 * shown, 3.2),
            subplot_kw={"projection": "3d", "computed_zorder": False},
            squeeze=False,
            layout="constrained",
        )
        u = torch.linspace(0, 1, 80, dtype=torch.float64)
        for item, ax in enumerate(axes[0]):
            surface = fits["knots"].surface[item]
            ax.plot_surface(*surface(u, u).unbind(-1), rstride=1, cstride=1, color="#dfe7ef", lw=0)
            across, along = (t.unique() for t in surface.knots)
            for line in (*surface(across, u), *surface(u, along).movedim(1, 0)):
                ax.plot(*line.unbind(-1), color="#1f2933", lw=0.8)
            ax.set(title=f"RMS {(3 * fits['knots'].residual[item]).sqrt():.1e}", xticks=[], yticks=[], zticks=[])
            ax.set_aspect("equal")
        save(figure, out, "fit_patches.png")
    return figures


if __name__ == "__main__":
    run(main)
