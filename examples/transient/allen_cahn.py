"""Motion by mean curvature: a disk of Allen and Cahn's equation shrinks, and its energy with it.

    J(u) = ∫ ½ |∇u|² + (1 − u²)² / 4ε² dx,    u′ = −J′(u),

moves interfaces of width ε by their curvature, so that the area of a disk falls by 2π in each unit of time, R² = R₀² −
2t, up to terms of order ε². A quarter of the disk is computed, by steps that each minimise ‖u − uₙ‖²/2τ + J(u).
Claims: the rate of the squared radius, and an energy that never rises.

Source: Bartels, Numerical Methods for Nonlinear Partial Differential Equations, 2015, chapter 6.
"""

import math

import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Energy, FunctionSpace, Lagrange, integrate, plot, unit_square
from solvers import ImplicitEuler, evolve


def density(x: Tensor, u: Tensor, grad_u: Tensor, eps: float) -> Tensor:
    return 0.5 * grad_u.square().sum(-1) + (1 - u**2) ** 2 / (4 * eps**2)


def main(
    cells: int = 48, eps: float = 0.04, radius: float = 0.6, time: float = 0.1, steps: int = 100, out: str | None = None
) -> dict[str, float]:
    """Let the disk shrink.

    Args:
        cells: cells in each direction
        eps: width of the interface
        radius: of the disk at first, below 1
        time: how long, below radius²/2
        steps: steps in time
        out: folder for the picture and a series of files for ParaView; nothing is written without it

    Returns:
        "rate" of the squared radius after the interface has formed, to be −2; "rise", the largest rise of the energy in
        a step; "radius" at the end.
    """
    V = FunctionSpace(unit_square(cells), Lagrange(1))
    J = Energy(V, density)
    start = V.interpolate(lambda x: torch.tanh((radius - x.norm(dim=-1)) / (math.sqrt(2) * eps)))
    files = None if out is None else f"{out}/allen_cahn.pvd"
    found = evolve(J, 1.0, start, torch.linspace(0, time, steps + 1), ImplicitEuler(), (eps,), output=files)
    energies = J(found.values, eps)
    areas = integrate(V, V.function((1 + found.values) / 2))
    squares = areas * 4 / math.pi
    begin = steps // 5
    rate = float((squares[-1] - squares[begin]) / (found.times[-1] - found.times[begin]))
    rise, end = float(energies.diff().max()), float(squares[-1].sqrt())
    exact = math.sqrt(radius**2 - 2 * time)
    print(f"d(R²)/dt = {rate:.4f} (−2), R = {end:.4f} at the end ({exact:.4f})")
    print(f"energy from {float(energies[0]):.4f} to {float(energies[-1]):.4f}, largest change in a step {rise:.1e}")
    if out is not None:
        ax = plot(V, found.values[-1], label="u")
        ax.set_title(f"t = {time:g}")
        save(ax.figure, out, "allen_cahn.png")
    return {"rate": rate, "rise": rise, "radius": end}


if __name__ == "__main__":
    run(main)
