"""Two problems of the Mosaic benchmark, with one density per cell: a heated slab and a cantilever of hexahedra.

    thermal      −∇·(k ∇T) = f,  k(ρ) = k₀ (10⁻³ + (1 − 10⁻³) ρ³),  T = 0 at x = 0,  k ∂T/∂n = q at x = 2
    structural   −∇·σ(u) = 0,    E(ρ) = E₀ (10⁻³ + (1 − 10⁻³) ρ³),  u = 0 at x = 0,  σ n = t at x = 2

The quantity of interest is the compliance C(ρ) = ∫ q T ds or ∫ t·u ds over the face x = 2. Claims: C agrees with every
reference value within 6·10⁻⁷ (they are means over solvers, in single precision; most agree within 10⁻⁷, and scikit-fem
gives the 329.5524917 found here where the mean is 329.5523071); its gradient, by the adjoint, is that of finite
differences.

Source: Mosaic v0.2.0 (github.com/pasteurlabs/mosaic, Apache-2.0), problems thermal_mesh and structural_mesh; the values
are in the folders `references` there. Their wall-clock times at N = 1024 on cloud machines, forward / gradient, for
orientation: torch-fem 13.3 / 29.1 s (Tesla T4), FEniCS 11.8 s, deal.II 83.9 s, JAX-FEM 85.8 s, Firedrake 116 / 244 s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.benchmarks.timing import Clock, interleaved, seconds, table
from examples.command_line import markdown, run
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, integrate
from solvers import Reuse, minimize

VOID, YOUNG, POISSON = 1e-3, 70000.0, 0.3
STEPS = (4e-3, 2e-3, 1e-3)  # of central differences, extrapolated twice: an error of order h⁶


def simp(rho: Tensor) -> Tensor:
    return VOID + (1 - VOID) * rho**3


def conduction(x: Tensor, u: Tensor, grad_u: Tensor, rho: Tensor, f: Tensor) -> Tensor:
    return 0.5 * simp(rho) * grad_u.square().sum(-1) - f * u


def elasticity(x: Tensor, u: Tensor, grad_u: Tensor, rho: Tensor, f: Tensor) -> Tensor:
    strain = 0.5 * (grad_u + grad_u.mT)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    young = YOUNG * simp(rho) / (1 + POISSON)
    return 0.5 * young * (POISSON / (1 - 2 * POISSON) * trace.square() + strain.square().sum((-2, -1)))


@dataclass(frozen=True)
class Problem:
    """An energy held at x = 0, and the work of its loads, a function of u at points of the face x = 2."""

    energy: Energy
    work: Callable[[Tensor], Tensor]

    @property
    def num_cells(self) -> int:
        return self.energy.space.mesh.num_cells

    def compliance(self, rho: Tensor, source: Tensor | None = None) -> Tensor:
        """C "*b" of densities "*b e" and heat sources "*b e", as if nothing were known from the solve before."""
        V = self.energy.space
        assert isinstance(V, FunctionSpace)
        f = torch.zeros_like(rho) if source is None else source
        u = minimize(self.energy, (V.per_cell(rho), V.per_cell(f)), reuse=Reuse()).value
        return integrate(V, lambda x, u, grad_u, normal: self.work(u), "right", u=u)


def problem(
    shape: tuple[int, int, int], height: float, density: Callable[..., Tensor], work: Callable[[Tensor], Tensor]
) -> Problem:
    components = None if density is conduction else 3
    V = FunctionSpace(box((0.0, 0.0, 0.0), (2.0, 1.0, height), shape), Lagrange(1), components)
    sides = {"right": lambda x, u, normal, rho, f: -work(u)}
    return Problem(Energy(V, density, Dirichlet(V, {"left": 0.0}), boundary=sides), work)


def thermal(n: int) -> Problem:
    """A slab of n × n/2 × 1 cells with the thickness h = 2/n; the flux through its end is 1 in all."""
    return problem((n, max(1, n // 2), 1), 2 / n, conduction, lambda u: n / 2 * u)


def structural(n: int) -> Problem:
    """A cantilever of n × 2 × 4 cells; the force on its end is 1 in all, downwards."""
    return problem((n, 2, 4), 1.0, elasticity, lambda u: -u[..., 2])


def constant(problem: Problem, rho: float) -> Tensor:
    """One density, in single precision as all data there."""
    return torch.full((problem.num_cells,), rho, dtype=torch.float32).double()


def random(problem: Problem) -> Tensor:
    """0.5 + 0.3 z, between 0.05 and 0.95; z is standard normal, seed 0."""
    z = np.random.default_rng(0).standard_normal(problem.num_cells).astype(np.float32)
    return torch.from_numpy((0.5 + 0.3 * z).clip(0.05, 0.95)).double()


def gaussian(problem: Problem, amplitude: float) -> Tensor:
    """A source amplitude · exp(−|x − (1, ½)|² / (2 · 0.2²)) at the centres of the cells."""
    mesh = problem.energy.space.mesh
    x = mesh.nodes[mesh.cells].mean(1)[:, :2] - torch.tensor([1.0, 0.5], dtype=mesh.dtype)
    return (amplitude * torch.exp(-x.square().sum(-1) / (2 * 0.2**2))).float().double()


def heated(n: int, amplitude: float) -> Tensor:
    slab = thermal(n)
    return slab.compliance(constant(slab, 0.5), gaussian(slab, amplitude))


def of_constant(problem: Problem, rho: float) -> Tensor:
    return problem.compliance(constant(problem, rho))


def of_random(problem: Problem) -> Tensor:
    return problem.compliance(random(problem))


# The files of reference values: C as a function of what they sweep over.
CASES: dict[str, Callable[[float], Tensor]] = {
    "thermal_mesh_forward_agreement": lambda rho: of_constant(thermal(16), rho),
    "thermal_mesh_forward_baseline": lambda n: of_random(thermal(int(n))),
    "thermal_mesh_forward_source_baseline": lambda n: heated(int(n), 1.0),
    "thermal_mesh_forward_source_linearity": lambda amplitude: heated(16, amplitude),
    "structural_mesh_forward_agreement": lambda rho: of_constant(structural(8), rho),
    "structural_mesh_forward_baseline": lambda n: of_constant(structural(int(n)), 0.5),
}


def compare(folder: Path) -> dict[str, float]:
    """The largest relative difference from the reference values of each file, "agreement FILE"."""
    figures, rows = {}, []
    for name, compliance in CASES.items():
        differences = []
        with np.load(folder / f"{name}.npz") as file:
            for i, swept in enumerate(file["sweep_values"].tolist()):
                found, reference = float(compliance(swept)), float(file[f"reference_{i}"])
                differences.append(abs(found / reference - 1))
                rows.append((name, f"{swept:g}", f"{found:.9g}", f"{reference:.8g}", f"{differences[-1]:.1e}"))
        figures[f"agreement {name}"] = max(differences)
    print(markdown(("file", "at", "compliance", "reference", "relative difference"), rows))
    return figures


def central_difference(function: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """The derivative of a function "*b n" → "*b" at x "n" along d "*b n", all its values in one batch."""
    h = torch.tensor(STEPS, dtype=x.dtype)
    with torch.no_grad():
        value = function(x + torch.stack([h, -h]).view(2, -1, *[1] * d.ndim) * d)
    slopes = (value[0] - value[1]) / (2 * h.view(-1, *[1] * (d.ndim - 1)))
    for order in (4, 16):  # Richardson: the errors h², then h⁴ cancel
        slopes = (order * slopes[1:] - slopes[:-1]) / (order - 1)
    return slopes[0]


def gradient_error(problem: Problem, directions: int = 4) -> float:
    """The largest relative difference of ∇C · d, by the adjoint and by central differences, for random d."""
    rho = random(problem).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.compliance(rho), rho)
    d = torch.randn(directions, len(rho), generator=torch.Generator().manual_seed(1), dtype=rho.dtype)
    return float((central_difference(problem.compliance, rho.detach(), d) / (d @ gradient) - 1).abs().max())


def measure(n: int, density: str, repeats: int) -> tuple[float, float]:
    """Seconds of C and of its gradient, on the slab."""
    slab = thermal(n)
    rho = (constant(slab, 0.5) if density == "constant" else random(slab)).requires_grad_()

    def once(clock: Clock) -> None:
        C = slab.compliance(rho)
        clock.lap("forward")
        torch.autograd.grad(C, rho)
        clock.lap("gradient")

    laps = interleaved({density: once}, repeats)[density].laps
    return laps["forward"], laps["gradient"]


def main(
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024), repeats: int = 1, references: str | None = None
) -> dict[str, float]:
    """Compare with the reference values, check gradients, and take the time.

    Args:
        sizes: numbers N of cells along the slab whose solves are timed
        repeats: runs of which the medians are printed, after one to warm up
        references: folder with Mosaic's files of reference values, PROBLEM_EXPERIMENT.npz; none are compared without it

    Returns:
        "agreement FILE", "gradient PROBLEM" (relative differences), "forward N DENSITY" and "gradient N DENSITY"
        (seconds).
    """
    figures = {} if references is None else compare(Path(references))
    for name, one in (("thermal", thermal(24)), ("structural", structural(8))):
        figures[f"gradient {name}"] = gradient_error(one)
        print(f"{name} gradient, adjoint against differences: {figures[f'gradient {name}']:.1e}")
    rows = []
    for n in sizes:
        for density in ("constant", "random"):
            forward, gradient = measure(n, density, repeats)
            figures |= {f"forward {n} {density}": forward, f"gradient {n} {density}": gradient}
            rows.append((f"{n}", f"{2 * (n + 1) * (n // 2 + 1)}", density, seconds(forward), seconds(gradient)))
    table("The heated slab", ("N", "unknowns", "density", "forward", "gradient"), rows)
    return figures


if __name__ == "__main__":
    run(main)
