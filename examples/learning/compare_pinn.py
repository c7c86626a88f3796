"""Networks and finite elements on the same problem: a published table, with the baselines that it lacks.

    −Δu = 2π² sin πx sin πy,    u = 0 on the boundary,    exact: u = sin πx sin πy

- PINN 2021: as usually published. The residual and, a hundred times, the boundary values are penalised at points drawn
  anew each step; Adam, single precision.
- PINN, strong: boundary values built in, the residual at 24² Gauss points, Adam for a twentieth of the time and then
  L-BFGS, double precision.
- Deep Ritz: the same network and training, with the energy of the finite elements at 48² Gauss points; between 32² a
  network once in a while finds functions whose energy they do not see.
- Energy by L-BFGS: the dofs themselves by descent, the paper's own route. This load flatters it: it is an eigenvector
  of the grid's Laplacian, which three steps find; from a random start it takes 220 on 128² cells, more on finer ones.
- ritz: `minimize`, degrees 1 to 3.

Every network has 4 hidden layers of 50, and every training the same seconds. Claims: each `ritz` has the Galerkin error
and nothing else; the strong PINN stays below an RMS error of 1e-5 whatever the seed, better than the published splines;
and elements of degree 2 and 3 are more accurate by orders of magnitude in a small part of its time.

Source of the comparison: Cho et al., Differentiable Spline Approximations, NeurIPS 2021, Table 4 (see `poisson`).
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import markdown, run, save, write
from examples.poisson import PUBLISHED, density, discretise, exact, load
from fem import FunctionSpace, Lagrange, integrate, l2_error, plot, unit_square
from solvers import LBFGS, PINN, Fit, deep_ritz, fit_pinn, gauss_points, mismatch, strong_form

HEAD = ("method", "cells", "RMS error", "of all seeds", "L2 error", "max error", "seconds", "steps", "status")
COLORS = {"PINN 2021": "#9aa5b1", "Deep Ritz": "#d9902f", "PINN, strong": "#b3402f"}
INK = "#1f4e79"


def residual(x: Tensor, u: Tensor, grad_u: Tensor, laplacian_u: Tensor) -> Tensor:
    return laplacian_u + load(x)


def distance(x: Tensor) -> Tensor:
    return (x * (1 - x)).prod(-1)


Setting = tuple[PINN, Callable[[], Tensor], float, float]  # network, loss, share of Adam, its rate


def pinn_2021() -> Setting:
    network = PINN(2, dtype=torch.float32)

    def loss() -> Tensor:
        edge = torch.rand(400, 2)
        edge[torch.arange(400), torch.arange(400) % 2] = torch.randint(2, (400,)).float()
        return strong_form(network, network.at(torch.rand(1000, 2)), residual) + 100 * mismatch(network, edge)

    return network, loss, 1.0, 5e-3


def pinn_strong() -> Setting:
    network = PINN(2, distance=distance)
    points = network.at(*gauss_points(unit_square(6), degree=7))
    return network, lambda: strong_form(network, points, residual), 0.05, 1e-3


def ritz_network() -> Setting:
    network = PINN(2, distance=distance)
    points = network.at(*gauss_points(unit_square(12), degree=7))
    return network, lambda: deep_ritz(network, points, density, params=(load,)), 0.05, 1e-3


NETWORKS = {"PINN 2021": pinn_2021, "PINN, strong": pinn_strong, "Deep Ritz": ritz_network}


def values(network: PINN, x: Tensor) -> Tensor:
    """In double precision, whatever the network's, without a graph."""
    with torch.no_grad():
        return network(x.to(network.layers[0].weight.dtype)).to(x.dtype)


def error(network: PINN, x: Tensor) -> float:
    """RMS at points."""
    return float((values(network, x) - exact(x)).square().mean().sqrt())


def main(
    cells: tuple[int, ...] = (128, 256),
    degrees: tuple[int, ...] = (1, 2, 3),
    seeds: int = 3,
    seconds: float = 60.0,
    out: str | None = None,
) -> dict[str, float]:
    """Train, solve, measure.

    Args:
        cells: cells in each direction of the finite elements; networks are measured at the nodes of the last
        degrees: polynomial degrees of the elements, 1 to 3
        seeds: trainings of each network
        seconds: the budget of each training
        out: folder for picture and table; nothing is written without it

    Returns:
        "… rms", "… l2", "… max" and "… seconds" for each method, of networks the median over the seeds, and their
        "… worst", the highest RMS error; names of finite elements end with cells and degree, as in "ritz 128 2".
    """
    V = FunctionSpace(unit_square(cells[-1]), Lagrange(1))
    coarse = unit_square(64).nodes
    figures, rows, fits, maps = {}, [], {}, {}
    for name, make in NETWORKS.items():
        found = []
        for seed in range(seeds):
            print(f"{name}, seed {seed} ...", end=" ", flush=True)
            torch.manual_seed(seed)
            network, loss, share, lr = make()
            settings = {"adam_share": share, "lr": lr, "monitor": partial(error, network, coarse), "throw": False}
            fit = fit_pinn(network, loss, seconds, **settings)
            e = values(network, V.dof_coordinates) - exact(V.dof_coordinates)
            l2 = float(integrate(V, lambda x, n=network: (values(n, x) - exact(x)).square()).sqrt())
            found.append((float(e.square().mean().sqrt()), l2, float(e.abs().max()), fit))
            maps.setdefault(name, (V, e))
            print(f"RMS {found[-1][0]:.1e}, {fit.adam} steps of Adam and {fit.lbfgs} of L-BFGS", flush=True)
        fits[name] = [entry[-1] for entry in found]
        rms = [entry[0] for entry in found]
        spent = median(fit.seconds for fit in fits[name])
        keep(figures, name, median(rms), median(e[1] for e in found), median(e[2] for e in found), spent)
        figures[f"{name} worst"] = max(rms)
        steps = int(median(fit.adam + fit.lbfgs for fit in fits[name]))
        ended = ", ".join(f"{n} {s.lower()}" for s, n in Counter(fit.status.name for fit in fits[name]).items())
        rows.append(row(figures, name, name, "", f"{min(rms):.1e} to {max(rms):.1e}", steps, ended))
    for name, method, chosen in (("energy by L-BFGS", LBFGS(), (1,)), ("ritz", None, degrees)):
        for degree in chosen:
            for n in cells:
                V, solution, spent = discretise(n, degree, method)
                key, u = f"{name} {n} {degree}", solution.value
                e = u - V.interpolate(exact)
                l2 = float(l2_error(V, u, exact))
                keep(figures, key, float(e.square().mean().sqrt()), l2, float(e.abs().max()), spent)
                steps, ended = int(solution.iterations), solution.status.name.lower()
                rows.append(row(figures, key, f"{name}, d = {degree}", f"{n}²", "", steps, ended))
                if name == "ritz":
                    maps.setdefault(name, (V, e))
    for (n, degree), rms in PUBLISHED.items():
        if n in cells and degree in degrees:
            rows.append((f"published, d = {degree}", f"{n}²", f"{rms:.2e}", *[""] * 6))
    table = markdown(HEAD, rows)
    print(f"\n{table}")
    if out is not None:
        write(table, out, "compare_pinn.md")
        draw(out, figures, fits, maps, cells, degrees)
    return figures


def keep(figures: dict[str, float], name: str, rms: float, l2: float, largest: float, seconds: float) -> None:
    figures |= {f"{name} rms": rms, f"{name} l2": l2, f"{name} max": largest, f"{name} seconds": seconds}


def row(figures: dict[str, float], key: str, name: str, cells: str, span: str, steps: int, status: str):
    rms, l2, largest, seconds = (figures[f"{key} {what}"] for what in ("rms", "l2", "max", "seconds"))
    errors = (f"{rms:.2e}", span, f"{l2:.2e}", f"{largest:.2e}")
    return (name, cells, *errors, f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}", str(steps), status)


def draw(
    out: str,
    figures: dict[str, float],
    fits: dict[str, list[Fit]],
    maps: dict[str, tuple[FunctionSpace, Tensor]],
    cells: tuple[int, ...],
    degrees: tuple[int, ...],
) -> None:
    """Error against seconds, one line per training and one point per finite element solution; beside it, where."""
    figure, axes = plt.subplot_mosaic("TTAB;TTCD", figsize=(13, 5.4), layout="constrained")
    ax = axes["T"]
    for name, color in COLORS.items():
        for k, fit in enumerate(fits[name]):
            moments = [r for r in fit.history if r.seconds > 0.02]
            xy = [r.seconds for r in moments], [r.measured for r in moments]
            ax.loglog(*xy, color=color, linewidth=1.3, alpha=0.8, label=name if k == 0 else None)
    for name, marker, color in (("energy by L-BFGS", "s", "#5b8c5a"), ("ritz", "o", INK)):
        found = [(n, d) for n in cells for d in degrees if f"{name} {n} {d} rms" in figures]
        xy = [[figures[f"{name} {n} {d} {what}"] for n, d in found] for what in ("seconds", "rms")]
        ax.loglog(*xy, marker, color=color, markersize=7, label=name, linestyle="none", zorder=3)
        if name == "ritz":
            for (n, d), x, y in zip(found, *xy, strict=True):
                look = {"ha": "center", "fontsize": 8.5, "color": color, "textcoords": "offset points"}
                ax.annotate(f"d = {d}, {n}²", (x, y), (0, 8 if n == cells[0] else -15), **look)
    published = [error for (n, d), error in PUBLISHED.items() if n in cells and d in degrees]
    if published:
        ax.axhspan(min(published), max(published), color="#e8d9a0", zorder=0, label="published splines")
    ax.margins(x=0.08, y=0.08)
    ax.set(xlabel="seconds", ylabel="nodal RMS error")
    ax.grid(True, which="major", color="#e5e8ec", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.4), fontsize=9)
    for panel, (name, (V, e)) in zip("ABCD", maps.items(), strict=True):
        size = float(e.abs().max())
        title = f"{name}, d = {V.degree}" if name == "ritz" else name
        plot(V, e, axes[panel], cmap="RdBu_r", limits=(-size, size)).set_title(
            f"error of {title}", fontsize=10, loc="left"
        )
    save(figure, out, "compare_pinn.png")


if __name__ == "__main__":
    run(main)
