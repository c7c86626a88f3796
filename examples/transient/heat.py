"""Heat in a bar whose end swings: NAFEMS T3, and the swing found again from one thermometer.

A bar of 0.1 m (k = 35 W/m°C, c = 440.5 J/kg°C, ρ = 7200 kg/m³) is at 0 °C; one end stays so, the other is at
100 sin(πt/40) °C. Claims: 36.60 °C at x = 0.08 m after 32 s to 0.1 %, order 2 of the method in time, and the amplitude
of the swing from the temperature measured there, by the gradient through all steps.

Source: NAFEMS, The Standard NAFEMS Benchmarks, 1990, test T3.
"""

import math

import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, plot_line
from solvers import BDF2, evolve

CONDUCTIVITY, CAPACITY, PUBLISHED = 35.0, 440.5 * 7200.0, 36.60  # W/m°C, J/m³°C, °C


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * CONDUCTIVITY * grad_u.square().sum(-1)


def main(cells: int = 20, steps: int = 64, out: str | None = None) -> dict[str, float]:
    """Heat the bar with steps of three sizes, and look for the amplitude.

    Args:
        cells: cells along the bar, of degree 2
        steps: steps in time; the rate comes from half and a quarter as many
        out: folder for the picture; nothing is written without it

    Returns:
        "temperature" in °C and "error" relative to the published one; "rate", the order in time; "amplitude" in °C,
        found from a measurement with 80.
    """
    V = FunctionSpace(box((0.0,), (0.1,), (cells,)), Lagrange(2))
    place = torch.tensor([[0.08]], dtype=V.dtype)

    def temperature(amplitude: Tensor | float, steps: int) -> tuple[Tensor, Tensor]:
        """u at the end of 32 s, and there at the thermometer."""
        end = lambda x, t: amplitude * math.sin(math.pi * t / 40) * torch.ones_like(x[..., 0])  # noqa: E731
        J = Energy(V, density, Dirichlet(V, {"left": 0.0, "right": end}))
        times = torch.linspace(0, 32, steps + 1)
        u = evolve(J, CAPACITY, lambda x: 0 * x[..., 0], times, BDF2(), every=steps, checkpoints=True).values[-1]
        return u, V.evaluate(u, place)[0]

    found = [temperature(100.0, n) for n in (steps // 4, steps // 2, steps)]
    first, second, last = (float(value) for _, value in found)
    rate = math.log2((second - first) / (last - second))
    print(f"{last:.3f} °C at 0.08 m after 32 s (published: {PUBLISHED}), order {rate:.2f} in time")

    # The temperature is linear in the amplitude: one step of Gauss and Newton's method finds it.
    guess = torch.tensor(50.0, dtype=V.dtype, requires_grad=True)
    value = temperature(guess, steps)[1]
    (slope,) = torch.autograd.grad(value, guess)
    amplitude = float(guess.detach() + (0.8 * last - value.detach()) / slope)
    print(f"a thermometer at {0.8 * last:.3f} °C tells an amplitude of {amplitude:.6f} °C")
    if out is not None:
        ax = plot_line(V, found[-1][0], (0.0,), (0.1,))
        ax.set(title="after 32 s", ylabel="temperature (°C)")
        save(ax.figure, out, "heat.png")
    error = abs(last - PUBLISHED) / PUBLISHED
    return {"temperature": last, "error": error, "rate": rate, "amplitude": amplitude}


if __name__ == "__main__":
    run(main)
