"""Advection against little diffusion: a weak form, its Galerkin least-squares version, and a least-squares energy.

    −ε u″ + u′ = 1 in (0, 1),    u(0) = u(1) = 0,    u = x − (e^((x−1)/ε) − e^(−1/ε)) / (1 − e^(−1/ε))

has a boundary layer of width ε on the right, narrower than a cell. Linear elements with

    Galerkin:                 ∫ ε u′v′ + u′v − v dx = 0
    Galerkin least squares:   the same + ∫ τ (u′ − 1) v′ dx,    τ = ½ h (coth Pe − 1/Pe),    Pe = h / 2ε
    least squares:            J(u, q) = ½ ∫ (q − ε u′)² / ε + (q′ − u′ + 1)² dx,    q = ε u′, minimised

Claims: Galerkin oscillates, Galerkin least squares is exact at the nodes; the energy, of quadratic elements on a mesh
that resolves the layer, converges with order h² in H1, and is minimised although the operator is not symmetric.

Source: Hughes, Franca and Hulbert, Computer Methods in Applied Mechanics and Engineering 73, 1989; Bochev and
Gunzburger, Least-Squares Finite Element Methods, 2009, chapter 10.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MixedSpace, WeakForm, h1_error, plot, unit_interval
from solvers import minimize, solve


def form(x: Tensor, u: Tensor, grad_u: Tensor, v: Tensor, grad_v: Tensor, epsilon: float, tau: float) -> Tensor:
    slope, test_slope = grad_u[..., 0], grad_v[..., 0]
    return epsilon * slope * test_slope + (slope - 1) * (v + tau * test_slope)


def least_squares(x: Tensor, fields: tuple[Tensor, ...], grads: tuple[Tensor, ...], epsilon: float) -> Tensor:
    flux, slope, flux_slope = fields[1], grads[0][..., 0], grads[1][..., 0]
    return 0.5 * (flux - epsilon * slope).square() / epsilon + 0.5 * (flux_slope - slope + 1).square()


def main(cells: int = 20, epsilon: float = 0.01, out: str | None = None) -> dict[str, float]:
    """Solve the three ways.

    Args:
        cells: cells of the weak forms' mesh; those of the energy lie 16 and 32 times as dense
        epsilon: diffusion
        out: folder for the picture; nothing is written without it

    Returns:
        "galerkin" and "stabilised" (largest nodal errors), "least squares rate" in H1.
    """

    def exact(x: Tensor) -> Tensor:
        e = math.exp(-1 / epsilon)
        return x[..., 0] - (torch.exp((x[..., 0] - 1) / epsilon) - e) / (1 - e)

    peclet = 0.5 / (cells * epsilon)
    tau = 0.5 / cells * (1 / math.tanh(peclet) - 1 / peclet)
    V = FunctionSpace(unit_interval(cells), Lagrange(1))
    weak = WeakForm(V, form, Dirichlet(V, {"boundary": 0.0}))
    galerkin, stabilised = (solve(weak, params=(epsilon, t)).value for t in (0.0, tau))
    figures = {
        name: float((u - V.interpolate(exact)).abs().max())
        for name, u in (("galerkin", galerkin), ("stabilised", stabilised))
    }

    errors = []
    for refinement in (16, 32):
        W = FunctionSpace(unit_interval(refinement * cells), Lagrange(2))
        space = MixedSpace(W, W)
        energy = Energy(space, least_squares, Dirichlet(space, {("boundary", 0): 0.0}))
        u, _ = space.split(minimize(energy, params=(epsilon,)).value)
        errors.append(float(h1_error(W, u, exact)))
    figures["least squares rate"] = math.log2(errors[0] / errors[1])
    print(f"largest nodal error:  Galerkin {figures['galerkin']:.2e}   least squares {figures['stabilised']:.2e}")
    print(f"H1 error of the energy's minimiser: {errors[1]:.2e}, rate {figures['least squares rate']:.2f}")
    if out is not None:
        figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
        plot(W, u, ax, label="least-squares energy, resolved")
        plot(V, galerkin, ax, label="Galerkin")
        plot(V, stabilised, ax, label="Galerkin least squares")
        ax.set(title=f"boundary layer, ε = {epsilon:g}", xlabel="x", ylabel="u")
        ax.legend()
        save(figure, out, "advection_diffusion.png")
    return figures


if __name__ == "__main__":
    run(main)
