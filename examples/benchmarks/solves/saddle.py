"""Saddle points: Stokes flow and nearly incompressible elasticity, as energies and as weak forms, over finer grids.

    −Δu + ∇p = f,  ∇·u = 0 in the unit square or cube, u = 0 on its boundary;    −∇·(2μ ε(u) − p I) = f,  ∇·u = −p / λ

in Taylor–Hood elements (degree 2, pressure of degree 1) on squares, cubes and tetrahedra; ∫ p = 0 in the flow. Both are
solved with the defaults of `solve`; the table tells which method that was. Runs are interleaved, and medians compared.
Claims: energy and weak form have one solution; iterations, where a method has some, are flat as cells grow small.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, peak_memory, seconds, table, use_threads
from examples.command_line import run, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, Mesh, MixedSpace, WeakForm, unit_cube, unit_square
from solvers import Reuse, Solution, solve

Pair = tuple[Tensor, Tensor]


def div(gradient: Tensor) -> Tensor:
    return gradient.diagonal(dim1=-2, dim2=-1).sum(-1)


def force(x: Tensor) -> Tensor:
    return torch.cat([torch.sin(3 * x[..., 1:2]), torch.cos(4 * x[..., :1]), *[x[..., :1] * x[..., 1:]]], -1)[
        ..., : x.shape[-1]
    ]


def flow(x: Tensor, w: Pair, grad_w: Pair, stiffness: float) -> Tensor:
    (u, p), g = w, grad_w[0]
    return 0.5 * g.square().sum((-1, -2)) - p * div(g) - (force(x) * u).sum(-1)


def weak_flow(x: Tensor, w: Pair, grad_w: Pair, test: Pair, grad_test: Pair, stiffness: float) -> Tensor:
    (_, p), (v, q), g, h = w, test, grad_w[0], grad_test[0]
    return (g * h).sum((-1, -2)) - p * div(h) - q * div(g) - (force(x) * v).sum(-1)


def solid(x: Tensor, w: Pair, grad_w: Pair, stiffness: float) -> Tensor:
    (u, p), g = w, grad_w[0]
    strain = 0.5 * (g + g.mT)
    return strain.square().sum((-1, -2)) - p * div(g) - 0.5 * p**2 / stiffness - (force(x) * u).sum(-1)


def weak_solid(x: Tensor, w: Pair, grad_w: Pair, test: Pair, grad_test: Pair, stiffness: float) -> Tensor:
    (_, p), (v, q), g, h = w, test, grad_w[0], grad_test[0]
    strain = 0.5 * (g + g.mT)
    return 2 * (strain * h).sum((-1, -2)) - p * div(h) - q * div(g) - p * q / stiffness - (force(x) * v).sum(-1)


def compare(
    title: str, mesh: Mesh, forms: tuple[Callable, Callable], repeats: int, weak: bool
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Figures of one problem on one mesh, and their row."""
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=mesh.dim), FunctionSpace(mesh, Lagrange(1)))
    constraint = Dirichlet(X, {("boundary", 0): 0.0})
    constraint = constraint & MeanZero(X, field=1) if forms[0] is flow else constraint
    problems = {"energy": Energy(X, forms[0], constraint)} | (
        {"weak form": WeakForm(X, forms[1], constraint)} if weak else {}
    )

    def call(name: str) -> Callable[[Clock], Solution]:
        return lambda clock: solve(problems[name], (1e4,), reuse=Reuse())

    runs = interleaved({name: call(name) for name in problems}, repeats)
    found = runs["energy"].result
    figures = {f"{title} {name}": other.seconds for name, other in runs.items()}
    figures |= {f"{title} unknowns": X.num_dofs, f"{title} iterations": int(found.linear_iterations)}
    figures[f"{title} residual"] = float(found.residual)
    row: list[Any] = [title, X.num_dofs, seconds(runs["energy"].seconds), "", "", ""]
    if weak:
        other = runs["weak form"]
        figures[f"{title} difference"] = float((found.value - other.result.value).abs().max() / found.value.abs().max())
        ratio = runs["energy"].seconds / other.seconds
        row[3:] = [seconds(other.seconds), f"{ratio:.2f}", f"{figures[f'{title} difference']:.0e}"]
    return figures, (*row, int(found.linear_iterations), found.method.removeprefix("Newton with ").split("(")[0])


def main(
    square: tuple[int, ...] = (12, 24, 48),
    cube: tuple[int, ...] = (4, 8, 16),
    largest: int = 20_000,
    repeats: int = 3,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, Any]:
    """Solve in turns and compare.

    Args:
        square: cells in each direction in two dimensions
        cube: the same in three dimensions
        largest: unknowns up to which weak forms, which are factorised, take part
        repeats: solutions of each kind
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        "flow, 24² squares energy" in seconds, with "… weak form", "… difference", "… iterations", "… residual" and
        "… unknowns", for all problems and meshes.
    """
    use_threads(threads)
    meshes: list[tuple[str, Callable[[], Mesh]]] = [(f"{n}² squares", lambda n=n: unit_square(n, n)) for n in square]
    for n in cube:
        meshes += [(f"{n}³ cubes", lambda n=n: unit_cube(n, n, n))]
        meshes += [(f"{n}³ cubes cut into tetrahedra", lambda n=n: unit_cube(n, n, n, cell="tetrahedron"))]
    figures: dict[str, Any] = {}
    rows = []
    for kind, forms in (("flow", (flow, weak_flow)), ("solid", (solid, weak_solid))):
        for name, make in meshes:
            mesh = make()
            size = mesh.dim * (2 * round(mesh.num_cells ** (1 / mesh.dim))) ** mesh.dim
            own, row = compare(f"{kind}, {name}", mesh, forms, repeats, size <= largest)
            figures |= own
            rows.append(row)
            print(*row, sep="   ", flush=True)
    head = ("", "unknowns", "energy", "weak form", "ratio", "difference", "iterations", "method")
    text = table("Taylor–Hood elements", head, rows) + f"\npeak of memory {peak_memory() / 1e9:.1f} GB\n"
    if out is not None:
        write(text, out, "saddle.md")
    return figures


if __name__ == "__main__":
    run(main)
