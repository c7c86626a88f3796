"""Diffusion on grids from the coefficient to the solution, beside PyAMG, SciPy and PARDISO in the same run.

The problem is that of `diffusion`, in double precision: ν smooth with a contrast of 10³, to a relative residual of
10⁻⁸. "ritz" is everything from nodal values of ν to u by `minimize`; "ritz, linear" is its inner part, assembly and
hierarchy, then conjugate gradients. The peers start from the assembled matrix of the free dofs: PyAMG with its
Ruge–Stüben hierarchy and conjugate gradients, SciPy's SuperLU, and PARDISO with a Cholesky factorisation. With ν = 1
fast diagonalisation stands beside multigrid. Runs are interleaved, and medians compared. Claim: all residuals, computed
alike, are as small as asked for; and the ratios printed, which depend on the machine.

Sources of the peers: Bell, Olson, Schroder and Southworth, PyAMG, Journal of Open Source Software 8, 2023; Li, SuperLU,
ACM Transactions on Mathematical Software 31, 2005; Schenk and Gärtner, PARDISO, Future Generation Computer Systems 20,
2004.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from examples.benchmarks.diffusion import RTOL, Problem, label, problem
from examples.benchmarks.timing import Clock, interleaved, peer, seconds, table, use_threads
from examples.command_line import run, write
from fem import compilation
from fem.forms.parameters import Parameter
from solvers import FastDiagonalization, Multigrid
from solvers.operators.system import LinearMethod, System

Figures = dict[str, float]
Found = tuple[np.ndarray, int | None]  # values of the free dofs, and iterations
HEAD = ("", "set-up", "solve", "sum", "× ritz", "iterations", "relative residual")


def linear(here: Problem, nu: Parameter, free: np.ndarray, method: LinearMethod) -> Callable[[Clock], Found]:
    """Assembly and set-up, then the solution."""
    zero = torch.zeros(here.space.shape, dtype=here.space.dtype)
    rhs = -here.energy.residual(zero, nu, 1.0)

    @torch.no_grad()
    def call(clock: Clock) -> Found:
        prepared = method.prepare(System(here.energy.discrete_form((nu, 1.0)), zero))
        clock.lap("set-up")
        u = prepared.solve(rhs)
        clock.lap("solve")
        iterations = getattr(prepared, "iterations", None)
        return u.numpy()[free], None if iterations is None else int(iterations)

    return call


def multigrid_peer(pyamg: Any, A: Any, b: np.ndarray) -> Callable[[Clock], Found]:
    def call(clock: Clock) -> Found:
        history: list[float] = []
        hierarchy = pyamg.ruge_stuben_solver(A)
        clock.lap("set-up")
        u = hierarchy.solve(b, tol=RTOL, accel="cg", residuals=history)
        clock.lap("solve")
        return u, len(history) - 1

    return call


def pardiso_peer(pypardiso: Any, A: Any, b: np.ndarray) -> Callable[[Clock], Found]:
    """A Cholesky factorisation of the upper half."""
    upper = scipy.sparse.triu(A, format="csr")

    solver = pypardiso.PyPardisoSolver(mtype=2)

    def call(clock: Clock) -> Found:
        solver.free_memory(everything=True)
        clock.read()
        solver.factorize(upper)
        clock.lap("set-up")
        u = solver.solve(upper, b)
        clock.lap("solve")
        return u, None

    return call


def direct_peer(A: Any, b: np.ndarray) -> Callable[[Clock], Found]:
    return lambda clock: (np.asarray(scipy.sparse.linalg.spsolve(A, b)), None)


def compare(dim: int, n: int, degree: int, contrast: float, direct: int, repeats: int) -> tuple[Figures, str]:
    """One grid with variable ν: figures and their table."""
    here = problem(dim, n // degree, degree)
    values = here.coefficient(contrast=contrast)
    nu = here.space.function(values)
    A, b, free = here.matrix(nu)
    functions: dict[str, Callable[[Clock], Found]] = {
        "ritz": lambda clock: (here.solve(values).value.numpy()[free], None),
        "ritz, linear": linear(here, nu, free, Multigrid(rtol=RTOL)),
    }
    if pyamg := peer("pyamg"):
        functions["PyAMG"] = multigrid_peer(pyamg, A, b)
    if len(b) <= direct:
        functions["SciPy"] = direct_peer(A, b)
        if pypardiso := peer("pypardiso"):
            functions["PARDISO"] = pardiso_peer(pypardiso, A, b)
    runs, rows, figures, size = interleaved(functions, repeats), [], {}, label(dim, n)
    for name, found in runs.items():
        u, iterations = found.result
        relative = float(np.linalg.norm(b - A @ u) / np.linalg.norm(b))
        ratio = found.seconds / runs["ritz"].seconds
        figures |= {f"{size} {name}": found.seconds, f"{size} {name} ratio": ratio}
        figures |= {f"{size} {name} residual": relative}
        if iterations is not None:
            figures[f"{size} {name} iterations"] = iterations
        laps = [seconds(found.laps[lap]) if lap in found.laps else "" for lap in ("set-up", "solve")]
        rows.append((name, *laps, seconds(found.seconds), f"{ratio:.2f}", iterations or "", f"{relative:.1e}"))
    cells = f"{label(dim, n // degree)} cells of degree {degree}, {len(b)} unknowns"
    return figures, table(f"−∇·(ν∇u) = 1, contrast {contrast:.0f}, {cells}", HEAD, rows)


def compare_constant(dim: int, n: int, degree: int, repeats: int) -> tuple[Figures, str]:
    """The same grid with ν = 1."""
    here = problem(dim, n // degree, degree)
    A, b, free = here.matrix(1.0)
    functions = {
        "multigrid": linear(here, 1.0, free, Multigrid(rtol=RTOL)),
        "fast diagonalisation": linear(here, 1.0, free, FastDiagonalization()),
    }
    runs, rows, figures, size = interleaved(functions, repeats), [], {}, label(dim, n)
    largest = float(abs(A).sum(1).max())
    for name, found in runs.items():
        r, u = b - A @ found.result[0], found.result[0]
        backward = float(abs(r).max() / (largest * abs(u).max() + abs(b).max()))
        ratio = found.laps["solve"] / runs["fast diagonalisation"].laps["solve"]
        figures |= {f"{size} constant {name} {lap}": value for lap, value in found.laps.items()}
        figures |= {f"{size} constant {name} backward error": backward}
        rows.append((name, *map(seconds, found.laps.values()), f"{ratio:.1f}", f"{backward:.1e}"))
    head = ("", "set-up", "solve", "× fast", "normwise backward error")
    return figures, table(f"−Δu = 1, {label(dim, n // degree)} cells of degree {degree}, {len(b)} unknowns", head, rows)


def main(
    square: tuple[int, ...] = (256, 512, 1024),
    cube: tuple[int, ...] = (64,),
    degree: int = 1,
    contrast: float = 1e3,
    direct: int = 70_000,
    repeats: int = 5,
    policy: str = "always",
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        square: grids in two dimensions, by intervals between nodes in each direction
        cube: the same in three dimensions
        degree: polynomial degree, 1 to 3
        contrast: max ν / min ν
        direct: unknowns up to which SciPy and PARDISO take part
        repeats: solutions of each kind
        policy: when kernels are compiled, "always" or, where no compiler is installed, "never"
        threads: threads of PyTorch; 0 for all cores
        out: folder for the tables; nothing is written without it

    Returns:
        "512² ritz" in seconds, "512² ritz residual", the same for "ritz, linear", "PyAMG", "SciPy" and "PARDISO", with
        "… ratio" over ritz and "… iterations"; "512² constant multigrid solve", "… set-up" and "… backward error".
    """
    use_threads(threads)
    figures: Figures = {}
    tables: list[str] = []
    with compilation(policy):
        for dim, sizes in ((2, square), (3, cube)):
            for n in sizes:
                for found, text in (
                    compare(dim, n, degree, contrast, direct, repeats),
                    compare_constant(dim, n, degree, repeats),
                ):
                    figures |= found
                    tables.append(text)
    if out is not None:
        write("\n".join(tables), out, "solve.md")
    return figures


if __name__ == "__main__":
    run(main)
