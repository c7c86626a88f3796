"""Diffusion on NURBS patches: time, iterations and memory from the coefficient to the solution.

    −∇·(ν∇u) = 1 in a quarter of an annulus, of a tube, and in a disk of five patches, u = 0 on the boundary

with B-splines as smooth as they can be and ν = 1 + ½ sin 3x cos 5y, by the defaults of `minimize`, to round-off. Every
run has a process of its own, whose peak of memory is counted from after a small solution; a second solve with another ν
is timed. Claims: iterations are flat as spans grow short, time per unknown as the degree grows; seconds depend on the
machine.

Source of the method: Sangalli and Tani, Isogeometric preconditioners based on fast solvers for the Sylvester equation,
SIAM Journal on Scientific Computing 38, 2016.
"""

from collections.abc import Callable
from math import pi
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.benchmarks.timing import alone, peak_memory, seconds, table, timed, use_threads
from examples.command_line import run, save, write
from fem import Dirichlet, Energy
from nurbs import annulus, disk_patches, extrude, isogeometric_space, transform
from nurbs.geometry.patch import Patch
from solvers import minimize

HEAD = ("", "unknowns", "first", "time", "per unknown", "iterations", "memory", "relative residual")


def quarter_annulus() -> list[Patch]:
    return [annulus(1.0, 2.0, angle=pi / 2)]


def quarter_tube() -> list[Patch]:
    flat = transform(annulus(1.0, 2.0, angle=pi / 2), torch.eye(3, 2, dtype=torch.float64))
    return [extrude(flat, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))]


def five_patches() -> list[Patch]:
    return list(disk_patches())


SHAPES: dict[str, Callable[[], list[Patch]]] = {"annulus": quarter_annulus, "tube": quarter_tube, "disk": five_patches}


def density(x: Tensor, u: Tensor, grad_u: Tensor, a: Tensor) -> Tensor:
    nu = 1 + a * torch.sin(3 * x[..., 0]) * torch.cos(5 * x[..., 1])
    return 0.5 * nu * grad_u.square().sum(-1) - u


def measure(shape: str, degree: int, spans: int, threads: int) -> dict[str, Any]:
    """Seconds of the first solve and of the second, iterations, and bytes at the peak beyond what was held before."""
    use_threads(threads)

    def problem(n: int) -> Energy:
        V = isogeometric_space(SHAPES[shape](), degree, n)
        return Energy(V, density, Dirichlet(V, {"boundary": 0.0}))

    number = lambda a: torch.tensor(a, dtype=torch.float64)  # noqa: E731
    minimize(problem(4), params=(number(0.1),))
    before = peak_memory()
    energy = problem(spans)
    first, _ = timed(lambda: minimize(energy, params=(number(0.4),)))
    again, solution = timed(lambda: minimize(energy, params=(number(0.5),)))
    return {
        "unknowns": energy.space.num_dofs,
        "first": first,
        "seconds": again,
        "iterations": int(solution.linear_iterations),
        "bytes": peak_memory() - before,
        "residual": float(solution.residual),
        "method": solution.method,
    }


def draw(out: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Time per unknown over unknowns."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, figures in found.items():
        points = [(f["unknowns"], 1e6 * f["seconds"] / f["unknowns"]) for f in figures]
        axes.loglog(*zip(*points, strict=True), "o-", label=name)
    axes.set(xlabel="unknowns", ylabel="time per unknown (µs)", title="−∇·(ν∇u) = 1 on patches, to round-off")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    save(figure, out, "isogeometric.png")


def main(
    annulus: tuple[int, ...] = (64, 128, 256),
    tube: tuple[int, ...] = (16, 32, 64),
    disk: tuple[int, ...] = (16, 32, 64, 128),
    degrees: tuple[int, ...] = (1, 3, 4),
    threads: int = 0,
    out: str | None = None,
) -> dict[str, Any]:
    """Solve on every patch.

    Args:
        annulus: spans per direction of the annulus
        tube: the same of the tube
        disk: the same of each patch of the disk
        degrees: of the splines
        threads: threads of PyTorch; 0 for all cores
        out: folder for the picture and the table; nothing is written without it

    Returns:
        "annulus, degree 3, 256² seconds", "… first", "… unknowns", "… iterations", "… bytes", "… residual" and
        "… method".
    """
    figures: dict[str, Any] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for shape, sizes in (("annulus", annulus), ("tube", tube), ("disk", disk)):
        for degree in degrees:
            for n in sizes:
                own = alone(measure, shape=shape, degree=degree, spans=n, threads=threads)
                name = f"{shape}, degree {degree}"
                found.setdefault(name, []).append(own)
                label = f"{name}, {'5 × ' if shape == 'disk' else ''}{n}{'³' if shape == 'tube' else '²'}"
                figures |= {f"{label} {key}": value for key, value in own.items()}
                share = f"{1e6 * own['seconds'] / own['unknowns']:.2f} µs"
                times = seconds(own["first"]), seconds(own["seconds"]), share
                memory = f"{own['bytes'] / 1e9:.2f} GB"
                rows.append((label, own["unknowns"], *times, own["iterations"], memory, f"{own['residual']:.1e}"))
                print(*rows[-1], own["method"], sep="   ", flush=True)
    text = table("−∇·(ν∇u) = 1 on patches of splines", HEAD, rows)
    if out is not None:
        write(text, out, "isogeometric.md")
        draw(out, found)
    return figures


if __name__ == "__main__":
    run(main)
