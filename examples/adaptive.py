"""Torsion of an L-shaped shaft to a guaranteed accuracy, on meshes that follow the error.

    −Δu = 1 in (−1, 1)² without its lower right quarter,    u = 0 on the boundary

∇u ~ r^(−⅓) at the re-entrant corner. Claim: `adapt` restores the order d of degree d, error ~ n^(−d/2) for n unknowns,
where uniform meshes have n^(−⅓) whatever the degree, and its bound holds: as ∫u = ∫|∇u|², the square of the bound of
‖∇u − ∇u_h‖ bounds what is missing to the torsional stiffness ∫u = 0.2140758027.

Source: Dörfler, A convergent adaptive algorithm for Poisson's equation, 1996; the reference value is that of a
fine computation with singular functions.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
import torch

from examples.command_line import run, save
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, box, integrate, plot
from solvers import adapt, minimize

STIFFNESS = 0.2140758027


def density(x: torch.Tensor, u: torch.Tensor, grad_u: torch.Tensor) -> torch.Tensor:
    return 0.5 * grad_u.square().sum(-1) - u


def torsion(mesh: Mesh, degree: int) -> Energy:
    V = FunctionSpace(mesh, Lagrange(degree))
    return Energy(V, density, Dirichlet(V, {"boundary": 0.0}))


def stiffness(V: Any, u: torch.Tensor) -> float:
    """∫u."""
    return float(integrate(V, lambda x, u, grad_u: u, u=u))


def l_shape() -> Mesh:
    """Six triangles."""
    square = box((-1.0, -1.0), (1.0, 1.0), (2, 2), "triangle")
    centres = square.nodes[square.cells].mean(1)
    return Mesh(square.nodes, square.cells[(centres[:, 0] < 0) | (centres[:, 1] > 0)])


def main(degree: int = 2, tol: float = 3e-3, out: str | None = None) -> dict[str, float]:
    """Refine until the guaranteed bound meets the tolerance, and uniformly for comparison.

    Args:
        degree: polynomial degree of the elements, 1 to 3
        tol: of the error relative to the solution, in the energy norm
        out: folder for the picture; nothing is written without it

    Returns:
        "unknowns", the rate of the bound in the unknowns, what is "missing" to the stiffness, its guaranteed "bound",
        the "effectivity" of the bound in the energy norm, and "fewer": how many times as many unknowns uniform meshes
        would need for what is missing, by their rate n^(−⅔).
    """
    answer = adapt(lambda mesh: torsion(mesh, degree), l_shape(), tol)
    assert answer.bound is not None
    V, history = answer.space, answer.history
    missing, bound = STIFFNESS - stiffness(V, answer.value), float(answer.bound) ** 2
    middle = history[len(history) // 2]
    rate = math.log(float(middle.error) / float(history[-1].error)) / math.log(history[-1].unknowns / middle.unknowns)
    mesh, uniform = l_shape(), []
    for _ in range(5):
        mesh = mesh.refine()
        energy = torsion(mesh, degree)
        uniform.append((energy.space.num_dofs, STIFFNESS - stiffness(energy.space, minimize(energy).value)))
    n, error = uniform[-1]
    fewer = n * (error / missing) ** 1.5 / history[-1].unknowns
    print("unknowns   ‖∇u − ∇u_h‖ at most   relative")
    for cycle in history:
        print(f"{cycle.unknowns:8}   {float(cycle.error):19.2e}   {float(cycle.relative):8.1e}")
    print(f"∫u is {missing:.2e} below {STIFFNESS}, at most {bound:.2e}; uniform meshes: {fewer:.0f} × the unknowns")
    if out is not None:
        figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        plot(V, answer.value.detach(), axes[0], mesh=True, label="u").set_title(f"{V.mesh.num_cells} triangles")
        axes[1].loglog([c.unknowns for c in history], [float(c.error) for c in history], "o-", label="bound, adapted")
        axes[1].loglog([n for n, _ in uniform], [e**0.5 for _, e in uniform], "s-", label="error, uniform")
        axes[1].set(xlabel="unknowns", ylabel="‖∇u − ∇u_h‖", title=f"degree {degree}, rate {rate:.2f}")
        axes[1].legend()
        save(figure, out, "adaptive.png")
    found = {"unknowns": history[-1].unknowns, "rate": rate, "missing": missing, "bound": bound, "fewer": fewer}
    return found | {"effectivity": (bound / missing) ** 0.5}


if __name__ == "__main__":
    run(main)
