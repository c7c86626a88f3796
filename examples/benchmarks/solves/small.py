"""Small problems, where what surrounds the arithmetic is all the time there is: from a parameter to the solution.

    −(ν u′)′ = 1 on 20 intervals;    −∇·(ν∇u) = 1 on 64² squares and on 2 · 20² triangles;    u = 0 on the boundary

"again" solves once more with the same matrix, "new ν" with another one, "gradient" brings the gradient in ν too; 100
time steps are 100 solves with new loads on one matrix. scikit-fem, its basis ready, assembles and solves by SciPy. Runs
are interleaved, and medians compared. Claim: both solutions agree; and the times printed, which depend on the machine.

Source of the peer: Gustafsson and McBain, scikit-fem, Journal of Open Source Software 5, 2020.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, peer, seconds, table, use_threads
from examples.command_line import run, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_interval, unit_square
from solvers import minimize

MESHES: dict[str, Callable[[], Mesh]] = {
    "20 intervals": lambda: unit_interval(20),
    "20² squares cut in two": lambda: unit_square(20, 20, cell="triangle"),
    "64² squares": lambda: unit_square(64, 64),
}


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor, f: float) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1) - f * u


def scikit_fem(mesh: Mesh) -> Callable[[Clock], np.ndarray] | None:
    """Assembly and solution by the peer, on the same mesh."""
    skfem = peer("skfem")
    if skfem is None:
        return None
    names = {"interval": ("Line", "LineP1"), "triangle": ("Tri", "TriP1"), "quadrilateral": ("Quad", "Quad1")}
    kind, element = names[mesh.blocks[0].cell.name]
    x, cells = (np.ascontiguousarray(t.numpy().T) for t in (mesh.nodes, mesh.cells))
    basis = skfem.Basis(getattr(skfem, f"Mesh{kind}")(x, cells), getattr(skfem, f"Element{element}")())
    fixed, nu = basis.get_dofs(), basis.ones()

    @skfem.BilinearForm
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        return w.nu * (u.grad * v.grad).sum(0)

    @skfem.LinearForm
    def load(v: Any, w: Any) -> Any:
        return 1.0 * v

    def solve(clock: Clock) -> np.ndarray:
        A, b = stiffness.assemble(basis, nu=basis.interpolate(nu)), load.assemble(basis)
        return np.asarray(skfem.solve(*skfem.condense(A, b, D=fixed)))

    return solve


def main(repeats: int = 31, threads: int = 0, out: str | None = None) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        repeats: solutions of each kind
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        "20 intervals again", "… new ν", "… gradient", "… time step", "… scikit-fem" in seconds, and "… difference" from
        scikit-fem, relative; the same for "20² squares cut in two" and "64² squares".
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    rows = []
    for name, make in MESHES.items():
        mesh = make()
        V = FunctionSpace(mesh, Lagrange(1))
        energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
        one, numbers = torch.ones(V.num_dofs, dtype=V.dtype), count()

        def solve(nu: Tensor, f: float = 1.0, energy: Energy = energy, V: FunctionSpace = V) -> Tensor:
            return minimize(energy, params=(V.function(nu), f)).value

        def gradient(clock: Clock, solve: Callable = solve, one: Tensor = one) -> Tensor:
            nu = one.clone().requires_grad_()
            return torch.autograd.grad(solve(nu).sum(), nu)[0]

        calls: dict[str, Callable[[Clock], Any]] = {
            "again": lambda clock, solve=solve, one=one: solve(one),
            "new ν": lambda clock, solve=solve, one=one, numbers=numbers: solve(one + 0.01 * next(numbers) * one),
            "gradient": gradient,
            "100 time steps": lambda clock, solve=solve, one=one: [solve(one, 1.0 + k) for k in range(100)],
        }
        reference = scikit_fem(mesh)
        if reference is not None:
            calls["scikit-fem"] = reference
        runs = interleaved(calls, repeats)
        figures |= {f"{name} {call}": found.seconds for call, found in runs.items()}
        figures[f"{name} time step"] = figures.pop(f"{name} 100 time steps") / 100
        if reference is not None:
            found = runs["scikit-fem"].result
            figures[f"{name} difference"] = float(abs(runs["again"].result.numpy() - found).max() / abs(found).max())
        own = [figures.get(f"{name} {call}") for call in ("again", "new ν", "gradient", "time step", "scikit-fem")]
        rows.append((name, V.num_dofs, *("" if value is None else seconds(value) for value in own)))
    head = ("", "unknowns", "again", "new ν", "with gradient", "one of 100 time steps", "scikit-fem + SciPy")
    text = table("−∇·(ν∇u) = 1, from ν to u", head, rows)
    if out is not None:
        write(text, out, "small.md")
    return figures


if __name__ == "__main__":
    run(main)
