"""Diffusion on unstructured meshes by algebraic multigrid, beside scikit-fem and PyAMG in the same run.

    −∇·(ν∇u) = f in the unit square or cube, u = 0 on its boundary,    ν = 1 + ½ sin(3x) cos(5y)

with linear elements on Delaunay triangles or tetrahedra of jittered points, to a relative residual of 10⁻⁸. Both sides
start from the same cells and integrate with the same degree. ritz assembles by differentiating the density and solves
with `AlgebraicMultigrid()`; scikit-fem assembles the bilinear form, and PyAMG solves with conjugate gradients and its
Ruge–Stüben hierarchy. "Cold" is everything from the arrays of the mesh on; a new ν needs a new matrix, and a new f a
right-hand side alone. Runs are interleaved, and medians compared. Claim: both solutions agree; and the ratios printed,
which depend on the machine: set OMP_NUM_THREADS=1 where others use it too.

Sources of the peers: Gustafsson and McBain, scikit-fem, Journal of Open Source Software 5, 2020; Bell, Olson, Schroder
and Southworth, PyAMG, Journal of Open Source Software 8, 2023.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyamg
import scipy.spatial
import skfem
import torch
from torch import Tensor

from examples.benchmarks.timing import Clock
from examples.command_line import run
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh
from solvers import AlgebraicMultigrid
from solvers.operators.system import System

RTOL = 1e-8
DEGREE = 2  # of the quadrature, on both sides
CELLS = {2: ("triangle", skfem.MeshTri, skfem.ElementTriP1), 3: ("tetrahedron", skfem.MeshTet, skfem.ElementTetP1)}

Timings = dict[str, float]


def delaunay(dim: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a grid of n cells in each direction, moved by up to a quarter of a cell, and their simplices."""
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * dim, indexing="ij"), -1).reshape(-1, dim)
    x += 0.5 / n * (rng.random(x.shape) - 0.5) * ((x > 0) & (x < 1))
    cells = scipy.spatial.Delaunay(x).simplices.astype(np.int64)
    volume = np.linalg.det(x[cells[:, 1:]] - x[cells[:, :1]])
    cells[volume < 0] = cells[volume < 0][:, [1, 0, *range(2, dim + 1)]]
    return x, cells[abs(volume) > 1e-3 / n**dim]


def diffusivity(a: float, x: Any, sin: Callable, cos: Callable) -> Any:
    return 1 + a * sin(3 * x[0]) * cos(5 * x[1])


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1)


def load(x: Tensor, u: Tensor, grad_u: Tensor, f: float) -> Tensor:
    return -f * u


@torch.no_grad()
def ours(x: np.ndarray, cells: np.ndarray) -> Iterator[tuple[Timings, np.ndarray, int]]:
    """Seconds of each part, solution and iterations: cold, with another ν, with another f."""
    clock = Clock()
    V = FunctionSpace(
        Mesh(torch.from_numpy(x), torch.from_numpy(cells), CELLS[x.shape[1]][0]), Lagrange(1), None, DEGREE
    )
    constraint = Dirichlet(V, {"boundary": 0.0})
    energy, loads, zero = (
        Energy(V, density, constraint),
        Energy(V, load, constraint),
        torch.zeros(V.shape, dtype=V.dtype),
    )
    seconds = {"mesh": clock.read()}
    for a, f in ((0.5, 1.0), (-0.4, 1.0)):
        system = System(
            energy.discrete_form((lambda x, a=a: diffusivity(a, x.unbind(-1), torch.sin, torch.cos),)), zero
        )
        rhs = -loads.residual(zero, f)
        assert len(system.matrices) == 1
        seconds["assembly"] = clock.read()
        prepared = AlgebraicMultigrid(rtol=RTOL).prepare(system)
        seconds["set-up"] = clock.read()
        u = prepared.solve(rhs)
        yield seconds | {"solve": clock.read()}, u.numpy(), int(prepared.iterations)
        clock, seconds = Clock(), {}
    rhs = -loads.residual(zero, 2.0)
    seconds = {"assembly": clock.read()}
    u = prepared.solve(rhs)
    yield seconds | {"solve": clock.read()}, u.numpy(), int(prepared.iterations)


def theirs(x: np.ndarray, cells: np.ndarray) -> Iterator[tuple[Timings, np.ndarray, int]]:
    """The same by scikit-fem and PyAMG."""
    clock = Clock()
    _, mesh, element = CELLS[x.shape[1]]
    basis = skfem.Basis(mesh(np.ascontiguousarray(x.T), np.ascontiguousarray(cells.T)), element(), intorder=DEGREE)
    dofs = basis.get_dofs()
    seconds = {"mesh": clock.read()}

    @skfem.BilinearForm
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        return diffusivity(w.a, w.x, np.sin, np.cos) * (u.grad * v.grad).sum(0)

    @skfem.LinearForm
    def loads(v: Any, w: Any) -> Any:
        return w.f * v

    def solve(hierarchy: Any, b: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, int]:
        history: list[float] = []
        u = np.zeros(basis.N)
        u[free] = hierarchy.solve(b, tol=RTOL, accel="cg", residuals=history)
        return u, len(history) - 1

    for a, f in ((0.5, 1.0), (-0.4, 1.0)):
        A, b, _, free = skfem.condense(stiffness.assemble(basis, a=a), loads.assemble(basis, f=f), D=dofs)
        seconds["assembly"] = clock.read()
        hierarchy = pyamg.ruge_stuben_solver(A)
        seconds["set-up"] = clock.read()
        u, iterations = solve(hierarchy, b, free)
        yield seconds | {"solve": clock.read()}, u, iterations
        clock, seconds = Clock(), {}
    b = loads.assemble(basis, f=2.0)[free]
    seconds = {"assembly": clock.read()}
    u, iterations = solve(hierarchy, b, free)
    yield seconds | {"solve": clock.read()}, u, iterations


def main(square: int = 450, cube: int = 46, repeats: int = 3) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        square: cells of the grid in each direction whose moved points make the triangles
        cube: the same for the tetrahedra
        repeats: how often everything is done from the start

    Returns:
        "2 cold ratio", "2 new ν ratio", "2 new f ratio" (the peers' median time over ours), the medians in seconds,
        "… iterations …" and "… difference" of both solutions relative to their size; the same for dimension 3.
    """
    figures: dict[str, float] = {}
    for dim, n in ((2, square), (3, cube)):
        x, cells = delaunay(dim, n)
        print(f"{len(x)} points, {len(cells)} {CELLS[dim][0]}s")
        print("                     mesh  assembly    set-up     solve       sum   iterations")
        runs: dict[tuple[str, str], list[Timings]] = {}
        found: dict[tuple[str, str], tuple[np.ndarray, int]] = {}
        for _ in range(repeats):
            for name, make in (("ritz", ours), ("peers", theirs)):
                for case, (seconds, u, iterations) in zip(("cold", "new ν", "new f"), make(x, cells), strict=True):
                    runs.setdefault((case, name), []).append(seconds)
                    found[case, name] = u, iterations
        for case in ("cold", "new ν", "new f"):
            for name in ("ritz", "peers"):
                times, iterations = runs[case, name], found[case, name][1]
                total = statistics.median(sum(t.values()) for t in times)
                parts = [
                    statistics.median(t.get(part, 0.0) for t in times)
                    for part in ("mesh", "assembly", "set-up", "solve")
                ]
                figures |= {f"{dim} {case} {name}": total, f"{dim} {case} iterations {name}": iterations}
                print(f"{case:7} {name:8} " + "".join(f"{t:8.2f} s" for t in (*parts, total)) + f"   {iterations:6}")
            mine, other = found[case, "ritz"][0], found[case, "peers"][0]
            difference = float(abs(mine - other).max() / abs(other).max())
            ratio = figures[f"{dim} {case} peers"] / figures[f"{dim} {case} ritz"]
            figures |= {f"{dim} {case} difference": difference, f"{dim} {case} ratio": ratio}
            print(f"{case:7} ratio {ratio:.2f}, difference {difference:.0e}")
    return figures


if __name__ == "__main__":
    run(main)
