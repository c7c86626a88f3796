"""Diffusion and elasticity on unstructured meshes, as a user calls them, beside scikit-fem, PyAMG, SciPy and torch-fem.

    −∇·(ν∇u) = 1, u = 0 on the boundary;    −∇·(ν(2ε(u) + tr ε(u) I)) = e, u = 0 on the boundary

in the unit square or cube, of simplices by Delaunay through moved points of a grid, numbered at random; ν has a value
in every vertex. "ritz" is `minimize` with its defaults (to round-off) for another ν each time, "ritz, first" the same
from the arrays of the mesh on, "and gradient" the solution with its gradient in ν. The peers have their meshes and
bases ready, assemble and solve: PyAMG by smoothed aggregation, with rigid motions in elasticity, and conjugate
gradients to 10⁻⁸; SciPy by a factorisation; torch-fem, if it is installed, with its defaults and one ν per cell
(elasticity on linear tetrahedra alone). "ritz, energy and residual" stands beside scikit-fem's assembly of the
residual's own linear form, and of the load alone. Runs are interleaved, and medians compared. Claim: all solutions
agree within 10⁻⁶; and the ratios printed, which depend on the machine: set OMP_NUM_THREADS=1 where others use it too.

Sources of the peers: Gustafsson and McBain, scikit-fem, Journal of Open Source Software 5, 2020; Bell, Olson, Schroder
and Southworth, PyAMG, Journal of Open Source Software 8, 2023; Meyer, torch-fem, github.com/meyer-nils/torch-fem.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import scipy.spatial
import torch
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, peer, seconds, table, use_threads
from examples.command_line import run, save, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh
from solvers import minimize

RTOL = 1e-8
SHARE = 0.1  # of ν that changes from one run to the next
Calls = dict[str, Callable[[Clock], Any]]


def delaunay(dim: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a grid of n cells in each direction, moved by up to a quarter of a cell, and their simplices."""
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * dim, indexing="ij"), -1).reshape(-1, dim)
    x += 0.5 / n * (rng.random(x.shape) - 0.5) * ((x > 0) & (x < 1))
    x = x[rng.permutation(len(x))]
    cells = scipy.spatial.Delaunay(x).simplices.astype(np.int64)
    volume = np.linalg.det(x[cells[:, 1:]] - x[cells[:, :1]])
    cells[volume < 0] = cells[volume < 0][:, [1, 0, *range(2, dim + 1)]]
    return x, cells[abs(volume) > 1e-3 / n**dim]


def diffusion(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1) - u


def elasticity(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor) -> Tensor:
    strain = 0.5 * (grad_u + grad_u.mT)
    return nu * (strain.square().sum((-1, -2)) + 0.5 * strain.diagonal(dim1=-1, dim2=-2).sum(-1) ** 2) - u.sum(-1)


@dataclass(frozen=True)
class Case:
    """One problem on one mesh, for ritz and for everybody else."""

    dim: int
    n: int
    degree: int
    elastic: bool

    def __str__(self) -> str:
        cells = "triangles" if self.dim == 2 else "tetrahedra"
        return f"{'elasticity' if self.elastic else 'diffusion'}, {cells} of degree {self.degree}"

    @cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        return delaunay(self.dim, self.n)

    def coefficient(self, k: int) -> np.ndarray:
        """ν in the vertices, a little different each time."""
        x, other = self.mesh[0], np.random.default_rng(k).random(len(self.mesh[0]))
        return 1 + 0.5 * np.sin(3 * x[:, 0]) * np.cos(5 * x[:, 1]) + SHARE * other

    def ritz(self) -> tuple[Energy, FunctionSpace]:
        """The energy, and the space of ν."""
        x, cells = map(torch.from_numpy, self.mesh)
        mesh = Mesh(x, cells, "triangle" if self.dim == 2 else "tetrahedron")
        V = FunctionSpace(mesh, Lagrange(self.degree), components=self.dim if self.elastic else None)
        density = elasticity if self.elastic else diffusion
        return Energy(V, density, Dirichlet(V, {"boundary": 0.0})), FunctionSpace(mesh, Lagrange(1))

    @cached_property
    def energy(self) -> tuple[Energy, FunctionSpace]:
        return self.ritz()

    @cached_property
    def points(self) -> np.ndarray:
        """Vertices, where solutions are compared: the numbers of ritz's dofs there."""
        V = self.energy[0].space
        nearest = scipy.spatial.cKDTree(V.dof_coordinates.numpy()).query(self.mesh[0])  # type: ignore[union-attr]
        assert nearest[0].max() < 1e-12
        return nearest[1]

    def numbered(self, call: Callable[[np.ndarray, Clock], Any]) -> Callable[[Clock], Any]:
        """The call with the first coefficient, then with the second, …, read before the clock is started."""
        numbers = count()

        def again(clock: Clock) -> Any:
            nu = self.coefficient(next(numbers))
            clock.read()
            result = call(nu, clock)
            clock.lap("last")
            return result

        return again

    def own(self) -> Calls:
        """ritz."""
        energy, nodal = self.energy
        other = copy(energy)  # so that no solve finds the matrix of another
        other.reuse = None

        def solve(nu: np.ndarray, clock: Clock) -> np.ndarray:
            return minimize(energy, params=(nodal.function(torch.from_numpy(nu)),)).value.numpy()[self.points]

        def first(nu: np.ndarray, clock: Clock) -> np.ndarray:
            made, space = self.ritz()
            return minimize(made, params=(space.function(torch.from_numpy(nu)),)).value.numpy()[self.points]

        def differentiate(nu: np.ndarray, clock: Clock) -> np.ndarray:
            u = minimize(other, params=(nodal.function(torch.from_numpy(nu).requires_grad_()),)).value
            u.sum().backward()
            return u.detach().numpy()[self.points]

        def evaluate(nu: np.ndarray, clock: Clock) -> None:
            u, parameter = torch.zeros(energy.space.shape, dtype=torch.float64), nodal.function(torch.from_numpy(nu))
            energy(u, parameter)
            energy.residual(u, parameter)

        calls: dict[str, Callable] = {"ritz": solve, "ritz, first": first, "ritz, and gradient": differentiate}
        calls["ritz, energy and residual"] = evaluate
        return {name: self.numbered(call) for name, call in calls.items()}

    def peers(self, direct: int) -> Calls:
        """scikit-fem with PyAMG, and with SciPy up to so many unknowns."""
        skfem, pyamg = peer("skfem"), peer("pyamg")
        if skfem is None or pyamg is None:
            return {}
        from skfem.helpers import ddot, dot, eye, grad, sym_grad, trace

        x, cells = (np.ascontiguousarray(a.T) for a in self.mesh)
        mesh, kind = (skfem.MeshTri, "Tri") if self.dim == 2 else (skfem.MeshTet, "Tet")
        element, vertex = getattr(skfem, f"Element{kind}P{self.degree}")(), getattr(skfem, f"Element{kind}P1")()
        element = skfem.ElementVector(element) if self.elastic else element
        basis = skfem.Basis(mesh(x, cells), element)
        around = skfem.Basis(basis.mesh, vertex, quadrature=basis.quadrature)
        fixed = basis.get_dofs()

        def product(u: Any, v: Any) -> Any:
            if not self.elastic:
                return dot(grad(u), grad(v))  # pyright: ignore[reportArgumentType]
            strain: Any = sym_grad(u)
            return ddot(2 * strain + eye(trace(strain), self.dim), sym_grad(v))

        @skfem.BilinearForm
        def stiffness(u: Any, v: Any, w: Any) -> Any:
            return w.nu * product(u, v)

        @skfem.LinearForm
        def load(v: Any, w: Any) -> Any:
            return sum(v) if self.elastic else 1.0 * v

        @skfem.LinearForm
        def residual(v: Any, w: Any) -> Any:
            return w.nu * product(w.u, v) - (sum(v) if self.elastic else v)

        def system(nu: np.ndarray, clock: Clock) -> tuple[Any, np.ndarray, np.ndarray]:
            A, b = stiffness.assemble(basis, nu=around.interpolate(nu)), load.assemble(basis)
            A, b, _, free = skfem.condense(A, b, D=fixed)
            clock.lap("assembly")
            return A, b, free

        def in_vertices(part: np.ndarray, free: np.ndarray) -> np.ndarray:
            u = np.zeros(basis.N)
            u[free] = part
            return u[basis.nodal_dofs].T if self.elastic else u[basis.nodal_dofs[0]]

        def iterate(nu: np.ndarray, clock: Clock) -> np.ndarray:
            A, b, free = system(nu, clock)
            modes = {"B": rigid_motions(basis)[free]} if self.elastic else {}
            A = A.tobsr((self.dim, self.dim)) if self.elastic else A
            return in_vertices(pyamg.smoothed_aggregation_solver(A, **modes).solve(b, tol=RTOL, accel="cg"), free)

        def factorise(nu: np.ndarray, clock: Clock) -> np.ndarray:
            A, b, free = system(nu, clock)
            return in_vertices(skfem.solve(A, b), free)

        def residuals(nu: np.ndarray, clock: Clock) -> None:
            residual.assemble(basis, nu=around.interpolate(nu), u=basis.interpolate(basis.zeros()))

        calls = {"scikit-fem + PyAMG": iterate}
        if direct >= basis.N:
            calls["scikit-fem + SciPy"] = factorise
        calls |= {"scikit-fem, residual": residuals, "scikit-fem, load": lambda nu, clock: load.assemble(basis)[:0]}
        return {name: self.numbered(call) for name, call in calls.items()}

    def torch_fem(self) -> Calls:
        """torch-fem, for elasticity in linear tetrahedra, with one ν per cell."""
        if not self.elastic or self.dim == 2 or self.degree > 1 or peer("torchfem") is None:
            return {}
        from torchfem import Solid  # pyright: ignore[reportMissingImports]
        from torchfem.materials import IsotropicElasticity3D  # pyright: ignore[reportMissingImports]

        x, cells = map(torch.from_numpy, self.mesh)
        edge = ((x == 0) | (x == 1)).any(1)
        volume = torch.linalg.det(x[cells[:, 1:]] - x[cells[:, :1]]).abs() / 6
        share = x.new_zeros(len(x)).index_add_(0, cells.flatten(), (volume / 4).repeat_interleave(4))

        def solve(nu: np.ndarray, clock: Clock) -> None:
            before, own = torch.get_default_dtype(), torch.from_numpy(nu)[cells].mean(1)
            torch.set_default_dtype(torch.float64)
            try:
                model = Solid(x, cells, IsotropicElasticity3D(E=2.5 * own, nu=0.25 * torch.ones_like(own)))  # λ = μ = ν
                model.constraints[edge] = True
                model.forces[:] = share[:, None]
                model.solve()
            finally:
                torch.set_default_dtype(before)

        return {"torch-fem": self.numbered(solve)}


def rigid_motions(basis: Any) -> np.ndarray:
    """Translations and rotations at the dofs of a vector basis, "N k"."""
    x, dim = basis.doflocs, len(basis.doflocs)
    component = np.empty(basis.N, dtype=int)
    for dofs in (basis.nodal_dofs, basis.edge_dofs, basis.facet_dofs, basis.interior_dofs):
        for k, numbers in enumerate(dofs if dofs is not None else ()):
            component[numbers] = k % dim
    moves = [(component == k).astype(float) for k in range(dim)]
    turns = [np.where(component == i, -x[j], np.where(component == j, x[i], 0.0)) for i in range(dim) for j in range(i)]
    return np.stack(moves + turns, 1)


def compare(case: Case, direct: int, repeats: int) -> tuple[dict[str, float], str]:
    """Figures of one case, and their table."""
    runs = interleaved(case.own() | case.peers(direct) | case.torch_fem(), repeats)
    unknowns, figures, rows = case.energy[0].space.num_dofs, {"unknowns": float(case.energy[0].space.num_dofs)}, []
    reference, evaluation = (
        runs["ritz"].result,
        ("ritz, energy and residual", "scikit-fem, residual", "scikit-fem, load"),
    )
    for name, found in runs.items():
        figures[name] = sum(found.laps.values())
        against = figures["ritz, energy and residual" if name in evaluation else "ritz"]
        row = [name, seconds(figures[name]), f"{figures[name] / against:.2f}", ""]
        if found.result is not None and name not in evaluation:
            figures[f"{name} difference"] = float(abs(found.result - reference).max() / abs(reference).max())
            row[-1] = f"{figures[f'{name} difference']:.0e}"
        rows.append(tuple(row))
    title = f"{case}: {len(case.mesh[1])} cells, {unknowns} unknowns"
    return figures, table(title, ("", "time", "× ritz", "difference"), rows)


def draw(out: str, found: dict[str, list[dict[str, float]]]) -> None:
    """Time per unknown over unknowns, a panel for each problem."""
    figure, panels = plt.subplots(2, (len(found) + 1) // 2, figsize=(5 * ((len(found) + 1) // 2), 8), squeeze=False)
    for axes, (title, figures) in zip(panels.flat, found.items(), strict=False):
        for name in (
            "ritz",
            "ritz, first",
            "ritz, and gradient",
            "scikit-fem + PyAMG",
            "scikit-fem + SciPy",
            "torch-fem",
        ):
            own = [(f["unknowns"], 1e6 * f[name] / f["unknowns"]) for f in figures if name in f]
            if own:
                axes.loglog(*zip(*own, strict=True), "o-" if name.startswith("ritz") else "s--", label=name)
        axes.set(xlabel="unknowns", ylabel="time per unknown (µs)", title=title)
        axes.grid(True, which="both", alpha=0.3)
    panels.flat[0].legend()
    figure.tight_layout()
    save(figure, out, "unstructured.png")


def main(
    square: tuple[int, ...] = (75, 150, 300),
    cube: tuple[int, ...] = (8, 16, 32),
    degrees: tuple[int, ...] = (1, 2),
    direct: int = 100_000,
    repeats: int = 3,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Solve in turns and compare.

    Args:
        square: cells of the grids in each direction whose moved points make the triangles
        cube: the same for the tetrahedra; of degree 2 and 3 they have as many cells less
        degrees: of the elements, 1 to 3 in two dimensions, 1 to 2 in three
        direct: unknowns up to which SciPy takes part
        repeats: solutions of each kind
        threads: threads of PyTorch; 0 for all cores
        out: folder for the tables and the picture; nothing is written without it

    Returns:
        "diffusion, triangles of degree 1, 5776 unknowns: ritz" in seconds, and so for all who take part; with
        "… difference" of each solution from ritz's.
    """
    use_threads(threads)
    cases = [Case(2, n, p, False) for p in degrees for n in square]
    cases += [Case(3, n // p, p, False) for p in degrees if p < 3 for n in cube]
    cases += [Case(3, n, 1, True) for n in cube]
    found: dict[str, list[dict[str, float]]] = {}
    texts, figures = [], {}
    for case in cases:
        own, text = compare(case, direct, repeats)
        found.setdefault(str(case), []).append(own)
        texts.append(text)
        figures |= {f"{case}, {own['unknowns']:.0f} unknowns: {name}": value for name, value in own.items()}
    if out is not None:
        write("\n".join(texts), out, "unstructured.md")
        draw(out, found)
    return figures


if __name__ == "__main__":
    run(main)
