"""The trunk, end to end: observed orders of convergence on every cell, and functionals with known values."""

from math import log, pi

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MixedSpace,
    Nedelec,
    RaviartThomas,
    h1_error,
    integrate,
    l2_error,
    project,
    unit_square,
)
from fem.reference.cells import CELLS
from solvers import eigenmodes, minimize, solve
from tests.problems import (
    TORSION_INTEGRAL,
    TORSION_MAXIMUM,
    disk,
    hard_mesh,
    poisson,
    scrambled,
    sine,
    sine_load,
    small_mesh,
)

WAVE = torch.tensor([2.0, -1.4, 1.0], dtype=torch.float64)


def wave(x: Tensor) -> Tensor:
    """u = sin(k·x + 0.3), which vanishes nowhere in particular: its boundary values are prescribed."""
    return torch.sin(x @ WAVE[: x.shape[-1]] + 0.3)


def wave_load(x: Tensor) -> Tensor:
    return WAVE[: x.shape[-1]].square().sum() * wave(x)


def solution(V: FunctionSpace, load, boundary) -> Tensor:
    """−Δu = load with u prescribed on the whole boundary."""

    return minimize(Energy(V, poisson, Dirichlet(V, {"boundary": boundary})), (load,)).value


def rates(errors: list[float], sizes: tuple[int, ...]) -> list[float]:
    pairs = zip(errors, errors[1:], sizes, sizes[1:], strict=False)
    return [log(a / b) / log(n / m) for a, b, m, n in pairs]


@pytest.mark.parametrize("kind", ["plain", "distorted", "scrambled"])
@pytest.mark.parametrize(
    ("cell", "degree"),
    [
        pytest.param(cell, degree, marks=[pytest.mark.slow] if (cell, degree) == ("hexahedron", 3) else [])
        for cell in CELLS
        for degree in (1, 2, 3)
    ],
)
def test_errors_fall_at_the_orders_of_theory(cell: str, kind: str, degree: int) -> None:
    sizes = {1: (8, 16), 2: (12, 24), 3: (4, 8)}[CELLS[cell].dim]
    spaces = [FunctionSpace(hard_mesh(cell, kind, n), Lagrange(degree)) for n in sizes]
    solutions = [solution(V, wave_load, wave) for V in spaces]
    l2 = [float(l2_error(V, u, wave)) for V, u in zip(spaces, solutions, strict=True)]
    h1 = [float(h1_error(V, u, wave)) for V, u in zip(spaces, solutions, strict=True)]
    assert rates(l2, sizes)[0] >= degree + 0.9
    assert rates(h1, sizes)[0] >= degree - 0.1


@pytest.mark.parametrize("cell", ["quadrilateral", "tetrahedron", "hexahedron"])
def test_numbering_does_not_change_the_solution(cell: str) -> None:
    spaces = [FunctionSpace(hard_mesh(cell, kind), Lagrange(3)) for kind in ("distorted", "scrambled")]
    sorted_, scrambled = (V.evaluate(solution(V, wave_load, wave), spaces[0].dof_coordinates) for V in spaces)
    assert (sorted_ - scrambled).abs().max() < 1e-12


@pytest.mark.parametrize(("degree", "expected"), [(1, 2.97e-5), (2, 6.0e-8), (3, 8.5e-11)])
def test_errors_on_128_by_128_quadrilaterals_are_those_of_the_galerkin_solution(degree: int, expected: float) -> None:
    V = FunctionSpace(unit_square(128, 128), Lagrange(degree))
    error = float(l2_error(V, solution(V, sine_load, 0.0), sine))
    assert abs(error / expected - 1) < 0.03


@pytest.mark.parametrize(("degree", "order", "sizes"), [(1, 2, (16, 32)), (2, 4, (64, 128)), (3, 4, (16, 32))])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_torsion_of_a_square_shaft(cell: str, degree: int, order: int, sizes: tuple[int, int]) -> None:
    if (cell, degree) == ("quadrilateral", 2):
        sizes = (96, 192)  # the corners' logarithm: the order is reached slowly from below
    errors = []
    for n in sizes:
        V = FunctionSpace(unit_square(n, n, cell), Lagrange(degree))
        u = solution(V, 1.0, 0.0)
        errors.append(abs(float(integrate(V, V.function(u))) - TORSION_INTEGRAL))
    assert abs(rates(errors, sizes)[0] - order) < 0.2
    assert abs(float(u.max()) - TORSION_MAXIMUM) < {1: 3e-4, 2: 1e-9, 3: 1e-7}[degree]


def test_torsion_of_a_round_shaft_with_curved_cells() -> None:
    sizes, errors = (4, 8, 16), []
    for n in sizes:
        V = FunctionSpace(disk(n, 3), Lagrange(3))
        errors.append(abs(float(integrate(V, V.function(solution(V, 1.0, 0.0)))) - pi / 8))
    assert min(rates(errors, sizes)) >= 3.9


def cosines(x: Tensor) -> Tensor:
    """p = Π cos πx_i, without flux through the sides of the unit box; −Δp = d π² p."""
    return torch.cos(pi * x).prod(-1)


def cosine_flux(x: Tensor) -> Tensor:
    """σ = −∇p."""
    own = torch.eye(x.shape[-1], dtype=torch.bool)
    return torch.where(own, pi * torch.sin(pi * x)[..., None], torch.cos(pi * x)[..., None]).prod(-2)


def cosine_source(x: Tensor) -> Tensor:
    return x.shape[-1] * pi**2 * cosines(x)


def mixed_density(x: Tensor, u, slopes, f: Tensor) -> Tensor:
    return 0.5 * u[0].square().sum(-1) - u[1] * (slopes[0] - f)


def pressure(x: Tensor, u, normal: Tensor, f: Tensor) -> Tensor:
    return cosines(x) * (u[0] * normal).sum(-1)


@pytest.mark.parametrize(
    ("cell", "degree"),
    [
        pytest.param(cell, degree, marks=[pytest.mark.slow] if degree == 2 and CELLS[cell].dim == 3 else [])
        for cell in ("triangle", "quadrilateral", "tetrahedron", "hexahedron")
        for degree in (1, 2)
    ],
)
def test_mixed_darcy(cell: str, degree: int) -> None:
    """Flux and pressure at order k, on simplices distorted at random; div σ = P f in every cell.

    On tetrahedra the meshes are coarse: from 4 to 6 cells per side the orders of degree 2 are 2.03 and 2.00.
    """
    sizes, errors = {2: (4, 8), 3: (2, 4)}[CELLS[cell].dim], []
    for n in sizes:
        simplices = cell in ("triangle", "tetrahedron")
        mesh = hard_mesh(cell, "scrambled", n) if simplices else scrambled(small_mesh(cell, n))
        V, Q = FunctionSpace(mesh, RaviartThomas(degree)), FunctionSpace(mesh, Discontinuous(degree - 1))
        W = MixedSpace(V, Q)
        energy = Energy(W, mixed_density, Dirichlet(W, {("left", 0): 0.0}), {"boundary": pressure})
        flux, p = W.split(solve(energy, (cosine_source,)).value)
        errors.append([float(l2_error(V, flux, cosine_flux)), float(l2_error(Q, p, cosines))])
        f = Q.function(project(Q, cosine_source, degree=W.quadrature_degree))
        miss = integrate(V, lambda x, u, divergence, f: (divergence - f).square(), u=flux, params=(f,))
        assert float(miss) ** 0.5 < 1e-12 * float(integrate(V, lambda x: cosine_source(x).square())) ** 0.5
    assert rates([flux for flux, _ in errors], sizes)[0] > degree - 0.2
    assert rates([p for _, p in errors], sizes)[0] > degree - 0.2


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize(
    ("cell", "kind"), [("triangle", "plain"), ("triangle", "scrambled"), ("quadrilateral", "plain")]
)
def test_resonances_of_a_square_cavity(cell: str, kind: str, degree: int) -> None:
    """The first ten of curl curl E = λ E are π² (m² + n²), each as often as it should be, at order 2k."""
    exact = torch.tensor([1, 1, 2, 4, 4, 5, 5, 8, 9, 9], dtype=torch.float64) * pi**2
    sizes, errors = (6, 12), []
    for n in sizes:
        V = FunctionSpace(hard_mesh(cell, kind, n), Nedelec(degree))
        energy = Energy(V, lambda x, E, curl: 0.5 * curl.square(), Dirichlet(V, {"boundary": 0.0}))
        found = eigenmodes(energy, Energy(V, lambda x, E, curl: 0.5 * E.square().sum(-1)), 10, above=1.0)
        assert found.residual.max() < 1e-10
        errors.append(float((found.values / exact - 1).abs().sum()))
    assert errors[1] < {1: 0.5, 2: 0.01}[degree]
    assert rates(errors, sizes)[0] > 2 * degree - 0.4
