"""The trunk, end to end: observed orders of convergence on every cell, and functionals with known values."""

from math import log, pi

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, h1_error, integrate, l2_error, unit_square
from fem.reference.cells import CELLS
from solvers import minimize
from tests.problems import TORSION_INTEGRAL, TORSION_MAXIMUM, disk, hard_mesh, poisson, sine, sine_load

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
