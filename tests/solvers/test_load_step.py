"""Prescribed values that change by more than a cell: they enter with the first tangent steps."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, WeakForm, unit_cube, unit_square
from solvers import CG, Multigrid, Newton, Status, minimize, solve
from solvers.operators.system import LinearMethod
from tests.problems import laplace
from tests.solvers.problems.finite_strain import neo_hookean, neo_hookean_forces, pressed, saint_venant


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("n", [4, 16])
def test_a_push_of_a_tenth_works_on_any_mesh(cell: str, degree: int, n: int) -> None:
    V = FunctionSpace(unit_square(n, cell=cell), Lagrange(degree), components=2)
    solution = minimize(Energy(V, neo_hookean, pressed(V, 0.1)))
    assert int(solution.iterations) <= 8
    # Homogeneous: the stretch b that is free makes the stress across it vanish.
    a, b = 0.9, 1 + float(solution.value[..., 0].max())
    assert b - 1 / b + 2 * torch.tensor(a * b).log().item() / b == pytest.approx(0, abs=1e-6)
    x = V.interpolate(lambda x: torch.stack([(b - 1) * x[:, 0], (a - 1) * x[:, 1]], -1))
    torch.testing.assert_close(solution.value, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("push", [-0.5, -0.3, 0.5, 3.0])
def test_clamped_sides_pushed_far(push: float) -> None:
    V = FunctionSpace(unit_square(8, cell="triangle"), Lagrange(1), components=2)
    held = Dirichlet(V, {"bottom": 0.0, ("top", 0): 0.1, ("top", 1): push})
    assert int(minimize(Energy(V, neo_hookean, held)).iterations) <= 20


def test_halves_of_the_increment_where_all_of_it_turns_cells_inside_out() -> None:
    V = FunctionSpace(unit_square(8, cell="triangle"), Lagrange(1), components=2)
    held = Dirichlet(V, {"bottom": 0.0, ("top", 0): 0.0, ("top", 1): -0.6})
    solution = minimize(Energy(V, neo_hookean, held))
    assert torch.equal(solution.value[V.dofs("top"), 1], torch.full((9,), -0.6, dtype=V.dtype))


@pytest.mark.parametrize("angle", [0.2, 0.8])
def test_a_twisted_cube(angle: float) -> None:
    V = FunctionSpace(unit_cube(3, 3, 3), Lagrange(1), components=3)
    turn = lambda x: angle * torch.stack([0 * x[:, 0], 0.5 - x[:, 2], x[:, 1] - 0.5], -1)  # noqa: E731
    assert int(minimize(Energy(V, neo_hookean, Dirichlet(V, {"left": 0.0, "right": turn}))).iterations) <= 8


def test_weak_forms_are_pushed_too() -> None:
    V = FunctionSpace(unit_square(8, cell="triangle"), Lagrange(2), components=2)
    solution = solve(WeakForm(V, neo_hookean_forces, pressed(V, 0.1)))
    assert int(solution.iterations) <= 8
    torch.testing.assert_close(solution.value, minimize(Energy(V, neo_hookean, pressed(V, 0.1))).value)


def test_cells_turned_inside_out_are_no_start_even_if_they_are_cheap() -> None:
    V = FunctionSpace(unit_square(16), Lagrange(1), components=2)
    solution = minimize(Energy(V, saint_venant, pressed(V, 0.1)))
    assert int(solution.iterations) <= 5
    top = solution.value[..., 1]
    torch.testing.assert_close(top, V.interpolate(lambda x: -0.1 * x)[..., 1])


def test_a_push_from_a_state_that_is_pushed_already() -> None:
    V = FunctionSpace(unit_square(16), Lagrange(1), components=2)
    first = minimize(Energy(V, neo_hookean, pressed(V, 0.1)))
    second = minimize(Energy(V, neo_hookean, pressed(V, 0.25)), initial=first.value)
    assert int(second.iterations) <= 8
    torch.testing.assert_close(second.value, minimize(Energy(V, neo_hookean, pressed(V, 0.25))).value)


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
@pytest.mark.parametrize("method", [None, CG()], ids=["default", "cg"])
def test_quadratic_energies_take_one_step_as_ever(cell: str, method: LinearMethod | None) -> None:
    V = FunctionSpace(unit_square(6, cell=cell), Lagrange(2))
    solution = minimize(Energy(V, laplace, Dirichlet(V, {"left": 1.0, "right": 3.0})), method=method)
    assert int(solution.iterations) == 1
    torch.testing.assert_close(solution.value, V.interpolate(lambda x: 1 + 2 * x[:, 0]))


@pytest.mark.parametrize("power", [1.5, 3.0, 4.0])
@pytest.mark.parametrize("method", [None, CG(), Multigrid()], ids=["default", "cg", "multigrid"])
def test_no_tangent_step_where_the_hessian_vanishes_or_is_infinite(power: float, method: LinearMethod | None) -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(V, lambda x, u, g: g.square().sum(-1) ** (power / 2), Dirichlet(V, {"left": 0.0, "right": 1.0}))
    start = V.interpolate(lambda x: x[:, 0] + 0.1 * x[:, 1])
    assert minimize(energy, initial=start, method=method, throw=False).status is Status.CONVERGED
    minimize(energy, method=method, throw=False)  # whatever comes of it, it is told by its status


def test_steps_under_load_count() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1), components=2)
    energy = Energy(V, neo_hookean, pressed(V, 0.1))
    looked = minimize(energy, method=Newton(max_iterations=0), throw=False)
    once = minimize(energy, method=Newton(max_iterations=1), throw=False)
    assert (int(looked.iterations), int(once.iterations)) == (0, 1)
    assert once.status is Status.MAX_ITERATIONS
    assert float(once.residual) < 0.1
