"""One value per cell as data of a solve: every linear method gives the same, derivatives come back cell by cell."""

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_cube, unit_square
from solvers import CG, Direct, Multigrid, Newton, certify, minimize
from tests.problems import conduction, mixed_mesh, taylor_rates


def problem(mesh: Mesh, degree: int = 1) -> tuple[FunctionSpace, Energy]:
    V = FunctionSpace(mesh, Lagrange(degree))
    return V, Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": lambda x: x[..., 1]}))


def conductivities(*shape: int, seed: int = 0) -> Tensor:
    """Between 1/10 and 10, independent from cell to cell."""
    return 10 ** (2 * torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1)


@pytest.mark.parametrize("mesh", [unit_square(48), unit_cube(14, 13, 12)], ids=["2-D", "3-D"])
def test_linear_methods_agree(mesh: Mesh) -> None:
    V, energy = problem(mesh)
    k = V.per_cell(conductivities(2, mesh.num_cells))
    found = [
        minimize(energy, (k, 1.0), method=Newton(linear=linear)).value
        for linear in (Direct(), Multigrid(), CG(preconditioner=Multigrid()))
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-9 * float(found[0].abs().max()))


@pytest.mark.parametrize("mesh", [unit_square(48), mixed_mesh()], ids=["grid", "mixed cells"])
def test_derivatives_of_solves(mesh: Mesh) -> None:
    """Taylor tests of a functional of the solution, batched."""
    V, energy = problem(mesh)
    k, d = conductivities(2, mesh.num_cells), conductivities(2, mesh.num_cells, seed=1)
    rates = taylor_rates(lambda k: minimize(energy, (V.per_cell(k), 1.0)).value.square().sum(), k, d)
    assert min(rates) > 1.9


def test_a_batch_is_its_items() -> None:
    V, energy = problem(unit_square(48))
    k = conductivities(3, V.mesh.num_cells)
    together = minimize(energy, (V.per_cell(k), 1.0)).value
    for item, value in zip(k, together, strict=True):
        torch.testing.assert_close(minimize(energy, (V.per_cell(item), 1.0)).value, value, rtol=0, atol=1e-11)


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
def test_certificates_with_jumps_between_cells(cell: str) -> None:
    """lower ≤ truth ≤ upper, the truth by nested refinement of the same cells' values in degree 3."""
    mesh = unit_square(6, cell=cell)
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    k = conductivities(mesh.num_cells)
    u = minimize(energy, (V.per_cell(k), 1.0)).value
    certificate = certify(energy, u, params=(V.per_cell(k), 1.0))
    fine = unit_square(48, cell=cell)
    W = FunctionSpace(fine, Lagrange(3))
    centres = fine.nodes[fine.cells].mean(1)
    D = FunctionSpace(mesh, Lagrange(1)).per_cell(k)
    on_fine = W.per_cell(D.space.evaluate(k, centres))
    reference = Energy(W, conduction, Dirichlet(W, {"boundary": 0.0}))
    best = reference(minimize(reference, (on_fine, 1.0)).value, on_fine, 1.0)
    error = float((2 * (energy(u, V.per_cell(k), 1.0) - best)).sqrt())
    lower, upper = certificate.lower_bound, certificate.upper_bound
    assert float(lower) <= error * 1.01
    assert float(upper) >= error * 0.999
