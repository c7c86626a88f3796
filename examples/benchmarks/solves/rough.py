"""Diffusion with rough coefficients on grids: iterations and time of `minimize`, beside a smooth coefficient.

    −∇·(ν∇u) = 1 in the unit square or cube, u = 0 on its boundary, bilinear or trilinear elements

ν is smooth with a contrast of 3; noise, exp(2 N) in each vertex or cell; blocks of 8 cells a side of contrast 10⁶; a
density to the third power, ν = ε + ρ³, as in topology optimisation, with ρ a random number in each cell, or 0 and 1 in
blobs; a third of the cells (almost) void, in blobs, where there is no load either. Solved with the defaults of
`minimize`, to round-off, nothing kept from the solve before; iterations are told to a residual of 10⁻⁸ too, by the
mean contraction, and beside PyAMG's (Ruge–Stüben, conjugate gradients) on the same matrix. Runs are interleaved, and
medians compared. Claim: both solutions agree where PyAMG converges; and the figures printed; seconds depend on the
machine.

Sources: Dendy, Black box multigrid, Journal of Computational Physics 48, 1982; Bell, Olson, Schroder and Southworth,
PyAMG, Journal of Open Source Software 8, 2023 (the peer).
"""

from collections.abc import Callable, Iterator
from math import log
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, peer, seconds, table, use_threads
from examples.command_line import run, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_cube, unit_square
from fem.space.field import Function
from solvers import Reuse, Solution, minimize

RTOL = 1e-8
Shape = tuple[int, ...]
Params = tuple[Function, Function | float]


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor, f: float) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1) - f * u


def blobs(shape: Shape, random: Tensor, share: float) -> Tensor:
    """0 in a share of the cells and 1 in the others, in blobs of some cells: noise smoothed and cut."""
    smooth = gaussian_filter(random.reshape(shape).numpy(), 2.0)
    return torch.from_numpy(smooth > np.quantile(smooth, share)).to(random.dtype).flatten()


def held(solid: Tensor, shape: Shape) -> Tensor:
    """The parts that reach an edge of the grid: others would be free to move."""
    parts: Any = label(solid.reshape(shape).numpy())[0]  # pyright: ignore[reportIndexIssue]
    reached = [parts.take(i, axis) for axis, n in enumerate(shape) if n > 1 for i in (0, -1)]
    numbers = np.unique(np.concatenate([r.ravel() for r in reached]))
    return torch.from_numpy(np.isin(parts, numbers[numbers > 0])).to(solid.dtype).flatten()


def fields(V: FunctionSpace, shape: Shape) -> Iterator[tuple[str, Function]]:
    """What coefficients are called, and they."""
    generator = torch.Generator().manual_seed(0)
    cells = V.mesh.num_cells
    rand = lambda n: torch.rand(n, dtype=V.dtype, generator=generator)  # noqa: E731
    randn = lambda n: torch.randn(n, dtype=V.dtype, generator=generator)  # noqa: E731
    yield "smooth", V.function(V.interpolate(lambda x: 1 + 0.5 * torch.sin(3 * x[..., 0]) * torch.cos(5 * x[..., 1])))
    yield "noise in vertices, σ = 2", V.function(torch.exp(2 * randn(V.num_dofs)))
    yield "noise in cells, σ = 2", V.per_cell(torch.exp(2 * randn(cells)))
    blocks = rand(torch.Size(-(-n // 8) for n in shape).numel()).reshape([-(-n // 8) for n in shape])
    for axis in range(len(shape)):
        blocks = blocks.repeat_interleave(8, axis)
    blocks = blocks[tuple(slice(n) for n in shape)].flatten()
    yield "blocks of contrast 10⁶", V.per_cell(torch.where(blocks < 0.5, 1e-6, 1.0).to(V.dtype))
    random, parts = rand(cells), blobs(shape, rand(cells), 0.5)
    for exponent in (6, 9):
        yield f"10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[exponent]} + ρ³", V.per_cell(10.0**-exponent + random**3)
        yield f"10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[exponent]} + ρ, ρ in blobs", V.per_cell(10.0**-exponent + parts)
    solid = held(blobs(shape, rand(cells), 1 / 3), shape)
    yield "a third of the cells at 10⁻⁶", V.per_cell(solid + 1e-6 * (1 - solid))
    yield "a third of the cells void", V.per_cell(solid)


def multigrid_peer(energy: Energy, params: Params) -> Callable[[Clock], tuple[np.ndarray, int]] | None:
    """PyAMG on the matrix, without the rows that are zero."""
    pyamg = peer("pyamg")
    if pyamg is None:
        return None
    import scipy.sparse

    zero = torch.zeros(energy.space.shape, dtype=torch.float64)
    H, b = energy.hessian(zero, *params), -energy.residual(zero, *params).numpy()
    A = scipy.sparse.csr_array((H.values().numpy(), H.col_indices().numpy(), H.crow_indices().numpy()), shape=H.shape)
    free = A.diagonal() > 0
    part = A[free][:, free]

    def solve(clock: Clock) -> tuple[np.ndarray, int]:
        history: list[float] = []
        u = np.zeros(len(b))
        u[free] = pyamg.ruge_stuben_solver(part).solve(b[free], tol=RTOL, accel="cg", residuals=history, maxiter=300)
        return u, len(history) - 1

    return solve


def compare(name: str, mesh: Mesh, shape: Shape, repeats: int, peers: bool) -> tuple[dict[str, float], str]:
    """All coefficients on one mesh."""
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(
        V,
        density,
        Dirichlet(V, {"boundary": 0.0} if min(shape) > 1 else dict.fromkeys(("left", "right", "bottom", "top"), 0.0)),
    )
    figures: dict[str, float] = {}
    rows = []
    for field, nu in fields(V, shape):
        params = (nu, V.per_cell((nu.values > 0).to(V.dtype)) if "void" in field else 1.0)

        def solve(clock: Clock, params: Params = params) -> Solution:
            return minimize(energy, params=params, throw=False, reuse=Reuse())

        calls: dict[str, Callable[[Clock], Any]] = {"ritz": solve}
        if peers and (other := multigrid_peer(energy, params)) is not None:
            calls["PyAMG"] = other
        runs = interleaved(calls, repeats)
        solution = runs["ritz"].result
        count, contraction = int(solution.linear_iterations), float(solution.contraction)
        figures |= {f"{name} {field}": runs["ritz"].seconds, f"{name} {field} iterations": count}
        figures |= {f"{name} {field} converged": float(solution.converged), f"{name} {field} contraction": contraction}
        row = [field, seconds(runs["ritz"].seconds), f"{runs['ritz'].seconds / figures[f'{name} smooth']:.2f}"]
        row += [
            str(count),
            f"{contraction:.2f}",
            "" if not 0 < contraction < 1 else f"{log(RTOL) / log(contraction):.0f}",
        ]
        if "PyAMG" in runs:
            u, iterations = runs["PyAMG"].result
            figures[f"{name} {field} PyAMG"] = runs["PyAMG"].seconds
            figures[f"{name} {field} difference"] = float(abs(solution.value.numpy() - u).max() / abs(u).max())
            row += [seconds(runs["PyAMG"].seconds), str(iterations), f"{figures[f'{name} {field} difference']:.0e}"]
        rows.append((*row, *[""] * (9 - len(row))))
    head = ("", "time", "× smooth", "iterations", "contraction", "to 10⁻⁸", "PyAMG", "iterations", "difference")
    return figures, table(f"−∇·(ν∇u) = 1, {name} cells, from ν to u", head, rows)


def main(
    square: tuple[int, ...] = (256,),
    cube: tuple[int, ...] = (48,),
    layer: tuple[int, ...] = (256,),
    repeats: int = 3,
    peers: int = 1,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        square: cells in each direction in two dimensions
        cube: the same in three dimensions
        layer: cells along a layer that is half as wide and one cell thick
        repeats: solutions of each kind
        peers: 1 where PyAMG takes part
        threads: threads of PyTorch; 0 for all cores
        out: folder for the tables; nothing is written without it

    Returns:
        "256² smooth" in seconds, "256² smooth iterations" and so for all coefficients, with "… contraction",
        "… converged", "… PyAMG" and "… difference".
    """
    use_threads(threads)
    figures: dict[str, float] = {}
    texts = []
    meshes = [(f"{n}²", lambda n=n: unit_square(n, n), (n, n)) for n in square]
    meshes += [(f"{n}³", lambda n=n: unit_cube(n, n, n), (n, n, n)) for n in cube]
    meshes += [(f"{n} × {n // 2} × 1", lambda n=n: unit_cube(n, n // 2, 1), (1, n // 2, n)) for n in layer]
    for name, make, shape in meshes:
        found, text = compare(name, make(), shape, repeats, bool(peers))
        figures |= found
        texts.append(text)
    if out is not None:
        write("\n".join(texts), out, "rough.md")
    return figures


if __name__ == "__main__":
    run(main)
