"""Waves that leave: the Helmholtz equation with an impedance boundary, real and imaginary part as two fields.

    −Δu − k² n² u = 0,    ∂u/∂ν − i k u = g on the boundary,    u = a + i b

is where J(u) = ∫ ½ ∇u·∇u − ½ k² n² u² dx − ∮ ½ i k u² + g u ds, without complex conjugates, is stationary. J is
holomorphic, so its real part alone, as a function of a and b, says the same: one energy, written in complex numbers,
whose saddle point `solve` finds.

Claims: a plane wave e^(i k d·x) in a uniform medium (n = 1, g from it) is found with order p + 1 in L2 for p = 1, 2, 3.
A soft lens, n = 1 + s e^(−8 |x|²), focuses it; the derivative in s of the intensity |u|² behind the lens, by the
adjoint, is that of differences.

Source: Ihlenburg, Finite Element Analysis of Acoustic Scattering, 1998, chapters 1 and 4.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Energy, FunctionSpace, Lagrange, MixedSpace, box, l2_error, plot
from solvers import solve

DIRECTION = (math.cos(0.4), math.sin(0.4))
STEP = 1e-4


def along(x: Tensor) -> Tensor:
    """d·x."""
    return DIRECTION[0] * x[..., 0] + DIRECTION[1] * x[..., 1]


def density(x: Tensor, u: Any, grad_u: Any, k: Any, n: Any) -> Tensor:
    wave, slope = torch.complex(*u), torch.complex(*grad_u)
    return 0.5 * ((slope * slope).sum(-1) - (k * n) ** 2 * wave * wave).real


def impedance(x: Tensor, u: Any, normal: Tensor, k: Any, n: Any) -> Tensor:
    """What g = i k (d·ν − 1) e^(i k d·x) does: a plane wave comes in, and whatever goes out is let out."""
    wave = torch.complex(*u)
    g = 1j * k * (along(normal) - 1) * torch.exp(1j * k * along(x))
    return -(0.5j * k * wave * wave + g * wave).real


def waves(cells: int, degree: int, k: float, lens: float | Tensor = 0.0) -> tuple[FunctionSpace, Tensor, Tensor]:
    """The space of each part, and both parts, on (−1, 1)²."""
    V = FunctionSpace(box((-1.0, -1.0), (1.0, 1.0), (cells, cells)), Lagrange(degree))
    W = MixedSpace(V, V)
    index = lambda x: 1 + lens * torch.exp(-8 * x.square().sum(-1))  # noqa: E731
    u = solve(Energy(W, density, boundary={"boundary": impedance}), params=(k, index)).value
    a, b = W.split(u)
    return V, a, b


def intensity(cells: int, k: float, lens: float | Tensor) -> Tensor:
    """|u|² behind the lens."""
    V, a, b = waves(cells, 2, k, lens)
    point = 0.6 * torch.tensor([DIRECTION], dtype=V.dtype)
    return V.evaluate(a, point)[0].square() + V.evaluate(b, point)[0].square()


def main(cells: int = 12, wave_number: float = 8.0, lens: float = 0.6, out: str | None = None) -> dict[str, float]:
    """Let a plane wave pass through a square, empty and with a lens.

    Args:
        cells: cells in each direction for the rates, whose second mesh is twice as fine; twice as many for the lens
        wave_number: k
        lens: s, the strength of the lens
        out: folder for the picture; nothing is written without it

    Returns:
        "l2 DEGREE" on the finer mesh, "rate DEGREE", "focus" (|u|² behind the lens, 1 without it), "derivative", and
        "difference" (what differences of |u|² give for it).
    """

    def exact(x: Tensor) -> Tensor:
        return torch.exp(1j * wave_number * along(x))

    figures: dict[str, float] = {}
    for degree in (1, 2, 3):
        errors = []
        for n in (cells, 2 * cells):
            V, a, b = waves(n, degree, wave_number)
            parts = l2_error(V, a, lambda x: exact(x).real), l2_error(V, b, lambda x: exact(x).imag)
            errors.append(math.hypot(*map(float, parts)))
        figures[f"l2 {degree}"], figures[f"rate {degree}"] = errors[1], math.log2(errors[0] / errors[1])
        print(f"degree {degree}: L2 error {errors[1]:.2e}, rate {figures[f'rate {degree}']:.2f}")
    s = torch.tensor(lens, dtype=torch.float64, requires_grad=True)
    focus = intensity(2 * cells, wave_number, s)
    figures["focus"] = float(focus.detach())
    figures["derivative"] = float(torch.autograd.grad(focus, s)[0])
    ahead, behind = (float(intensity(2 * cells, wave_number, lens + step)) for step in (STEP, -STEP))
    figures["difference"] = (ahead - behind) / (2 * STEP)
    print(f"|u|² behind the lens: {figures['focus']:.4f}, its derivative in s {figures['derivative']:.6f}", end=" ")
    print(f"(differences: {figures['difference']:.6f})")
    if out is not None:
        figure, axes = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained", sharey=True)
        V, a, b = waves(2 * cells, 2, wave_number)
        plot(V, a, axes[0], cmap="RdBu_r", limits=(-2, 2), colorbar=False).set_title("a plane wave: Re u")
        V, a, b = waves(2 * cells, 2, wave_number, lens)
        plot(V, a, axes[1], cmap="RdBu_r", limits=(-2, 2), label="Re u").set_title("through a lens: Re u")
        plot(V, a.square() + b.square(), axes[2], cmap="magma", label="|u|²").set_title("through a lens: |u|²")
        angle = torch.linspace(0, 2 * math.pi, 200)
        for ax in axes[1:]:
            ax.plot(8**-0.5 * angle.cos(), 8**-0.5 * angle.sin(), color="gray", linewidth=1, linestyle="--")
        for ax in axes:
            ax.set(xlabel="x", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axes[0].set_ylabel("y")
        save(figure, out, "helmholtz.png")
    return figures


if __name__ == "__main__":
    run(main)
