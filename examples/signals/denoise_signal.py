"""A noisy signal of straight pieces with jumps: where it breaks, and what lies under the noise.

The signal is Donoho and Johnstone's "Blocks" with slopes: lines between known break points, and noise. They are looked
for in four ways: the optimum with as many pieces as there are, the optimum with a penalty that knows nothing but the
variance of the noise, merging in nearly linear time, and binary segmentation by ruptures where it is installed. Claim:
the exact fit leaves the least squared error, merging is as good or nearly so, and both take milliseconds.

Source: D. Donoho and I. Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 81, 1994 (the
places and jumps).
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from examples.command_line import markdown, run, save, write
from splines import fit_piecewise

PLACES = (0.1, 0.13, 0.15, 0.23, 0.25, 0.40, 0.44, 0.65, 0.76, 0.78, 0.81)
JUMPS = (4.0, -5.0, 3.0, -4.0, 5.0, -4.2, 2.1, 4.3, -3.1, 2.1, -4.2)
SLOPES = (5.0, -20.0, 60.0, 10.0, -80.0, -6.0, 40.0, 8.0, -12.0, 50.0, -40.0, 4.0)  # per unit of length
HEAD = ("method", "pieces", "squared error", "RMS to the truth", "furthest break", "milliseconds")


def truth(n: int) -> tuple[Tensor, Tensor]:
    """The signal without noise, and its break points with 0 and n."""
    t = torch.arange(n, dtype=torch.float64) / n
    places = torch.tensor([0.0, *PLACES], dtype=torch.float64)
    piece = torch.searchsorted(places, t, right=True) - 1
    level = torch.tensor([0.0, *JUMPS], dtype=torch.float64).cumsum(0)
    slopes = torch.tensor(SLOPES, dtype=torch.float64)
    breaks = torch.tensor([*[int(torch.searchsorted(t, p)) for p in places], n])
    return level[piece] + slopes[piece] * (t - places[piece]), breaks


def main(n: int = 2048, sigma: float = 1.0, seed: int = 0, out: str | None = None) -> dict[str, float]:
    """Fit in all ways, and compare.

    Args:
        n: samples
        sigma: standard deviation of the noise
        seed: of the noise
        out: folder for the picture and the table; nothing is written without it

    Returns:
        "exact", "penalty", "merge" and, where ruptures is installed, "ruptures" squared errors; the same names followed
        by " rms" for the distance to the truth, and by " pieces".
    """
    clean, breaks = truth(n)
    x = clean + sigma * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    k = len(breaks) - 1
    calls = {
        "exact": lambda: fit_piecewise(x, pieces=k, degree=1),
        "penalty": lambda: fit_piecewise(x, degree=1, penalty=6 * sigma**2 * float(np.log(n))),
        "merge": lambda: fit_piecewise(x, pieces=k, degree=1, method="merge"),
    }
    rows, figures, found = [], {}, {}
    for name, call in calls.items():
        call()  # compiled, if it is the first
        start = time.perf_counter()
        fit = call()
        found[name] = (fit.breakpoints[fit.breakpoints < n].tolist(), fit.values, time.perf_counter() - start)
    other = segmented_by_ruptures(x, k)
    if other is not None:
        found["ruptures"] = other
    for name, (starts, values, took) in found.items():
        figures[name] = float((x - values).square().sum())
        figures[f"{name} rms"] = float((values - clean).square().mean().sqrt())
        figures[f"{name} pieces"] = len(starts)
        away = (torch.tensor([*starts, n])[:, None] - breaks).abs().min(0).values.max()
        rows.append(
            (
                name,
                str(len(starts)),
                f"{figures[name]:.1f}",
                f"{figures[f'{name} rms']:.4f}",
                str(int(away)),
                f"{1e3 * took:.1f}",
            )
        )
    table = markdown(HEAD, rows)
    print(table)
    if out is not None:
        write(table, out, "denoise_signal.md")
        save(picture(x, clean, found), out, "denoise_signal.png")
    return figures


def segmented_by_ruptures(x: Tensor, k: int) -> tuple[list[int], Tensor, float] | None:
    """Binary segmentation with linear pieces."""
    try:
        import ruptures
    except ImportError:
        return None
    t = np.arange(len(x))
    design = np.column_stack([x.numpy(), np.ones(len(x)), t])
    start = time.perf_counter()
    ends = ruptures.Binseg(model="linear", min_size=2, jump=1).fit(design).predict(k - 1)
    took = time.perf_counter() - start
    values = np.empty(len(x))
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        values[a:b] = np.polyval(np.polyfit(t[a:b] - a, x[a:b].numpy(), 1), t[a:b] - a)
    return [0, *ends[:-1]], torch.from_numpy(values), took


def picture(x: Tensor, clean: Tensor, found: dict[str, tuple[list[int], Tensor, float]]):
    """One row for each method: samples, truth, fit and breaks."""
    figure, axes = plt.subplots(
        len(found), 1, figsize=(9, 1.9 * len(found)), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, (starts, values, _)) in zip(axes, found.items(), strict=True):
        axis.plot(x, ".", color="0.75", ms=2)
        axis.plot(clean, color="black", lw=0.8, ls="--", label="truth")
        for a, b in zip(starts, [*starts[1:], len(x)], strict=True):
            axis.plot(range(a, b), values[a:b], color="C3", lw=1.4, label="fit" if a == 0 else None)
        for place in starts[1:]:
            axis.axvline(place, color="C0", lw=0.5)
        rms = float((values - clean).square().mean().sqrt())
        axis.set_title(f"{name}: {len(starts)} pieces, {rms:.3f} from the truth", fontsize="medium", loc="left")
    axes[0].legend(loc="upper right", fontsize="small")
    axes[-1].set_xlabel("sample")
    return figure


if __name__ == "__main__":
    run(main)
