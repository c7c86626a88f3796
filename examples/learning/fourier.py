"""Any network of images takes the place of the UNet: a Fourier neural operator, from the library `neuraloperator`.

The family of `parametric_poisson` in small: −∇·(ν(ω) ∇u) = 0, u = 1 on the left and 0 on the right. The same energy
trains a UNet and an FNO (Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, 2021) for as
many steps, and certificates judge both. It needs `pip install neuraloperator`; without it the UNet is alone. Claim:
both learn from the energy alone, and `predict` makes either answer as good as asked for.
"""

import torch
from torch import nn

from examples.certificate import problem
from examples.command_line import markdown, run, write
from examples.learning.parametric_poisson import HELD_OUT, TRAINED, surrogate
from solvers import BoundedLift, DiffusionProblems, ExponentialSeries, minimize, predict, train_surrogate

HEAD = ("network", "parameters", "samples/s", "L2, mean", "L2, max", "certified energy error", "cycles to 1e-6")


def fourier(width: int, modes: int) -> nn.Module | None:
    """An FNO with the boundary values built in, or None where its library is not installed."""
    try:
        from neuralop.models import FNO  # type: ignore[import-not-found]
    except ImportError:
        print("neuraloperator is not installed: the FNO is left out")
        return None
    return BoundedLift(FNO((modes, modes), 1, 1, hidden_channels=width), lambda x: 1 - x[..., 0])


def main(
    cells: int = 32, steps: int = 1000, batch: int = 16, width: int = 16, modes: int = 12, out: str | None = None
) -> dict[str, float]:
    """Train both in the same way and compare.

    Args:
        cells: cells in each direction
        steps: training steps of each network
        batch: problems per step
        width: channels of both networks
        modes: frequencies of the FNO along each axis
        out: folder for the table; nothing is written without it

    Returns:
        "UNet l2", "UNet l2 max", "UNet certified", "UNet worst" (relative energy error of `predict` to 1e-6), and for
        the FNO, where it is installed, the same.
    """
    V, energy, _ = problem(cells, torch.float32)
    series = ExponentialSeries()
    W, precise, norm = problem(cells)
    images, params = DiffusionProblems(W, series, seed=HELD_OUT)(0, 64)
    u = minimize(precise, params).value
    figures, rows = {}, []
    for name in ("UNet", "FNO"):
        torch.manual_seed(0)
        network = surrogate(width) if name == "UNet" else fourier(width, modes)
        if network is None:
            continue
        # The coefficients of an FNO are complex, and of no matrix: Adam at its usual rate suits them.
        make = None if name == "UNet" else lambda named: torch.optim.Adam([p for _, p in named], 2e-3)
        done = train_surrogate(
            network, energy, DiffusionProblems(V, series, seed=TRAINED), steps, batch, optimizer=make, every=steps
        )
        raw = predict(network, precise, images, params, tol=None)
        better = predict(network, precise, images, params, tol=1e-6)
        distance = (raw.value - u).norm(dim=-1) / u.norm(dim=-1)
        error = ((2 * norm(better.value - u, *params)).clamp(min=0) / (2 * norm(u, *params))).sqrt()
        certified, cycles = float(raw.certificate.relative.mean()), int(better.cycles.max())
        figures |= {f"{name} l2": float(distance.mean()), f"{name} l2 max": float(distance.max())}
        figures |= {f"{name} certified": certified, f"{name} worst": float(error.max())}
        size, speed = sum(p.numel() for p in network.parameters()), done.history[-1]["samples_per_second"]
        errors = (f"{distance.mean():.1e}", f"{distance.max():.1e}", f"{certified:.1e}")
        rows.append((name, f"{size:,}", f"{speed:.0f}", *errors, str(cycles)))
    text = markdown(HEAD, rows)
    print(f"\n{text}")
    if out is not None:
        write(text, out, "fourier.md")
    return figures


if __name__ == "__main__":
    run(main)
