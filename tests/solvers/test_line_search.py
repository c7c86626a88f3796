"""Small loads: where an energy is nothing but its own round-off, slopes and residuals tell what to do."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, WeakForm, unit_square
from solvers import CG, Direct, Solution, Status, minimize, solve
from solvers.line_search import Line, State
from solvers.operators.system import LinearMethod
from tests.problems import laplace
from tests.solvers.problems.finite_strain import neo_hookean, neo_hookean_forces, pressed, saint_venant

Density = Callable[..., Tensor]
Call = Callable[..., Solution]
LOADS = (1e-7, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1)
MESHES = {
    "quadrilaterals": (unit_square(3), 2),
    "triangles": (unit_square(4, cell="triangle"), 1),
    "fine": (unit_square(10), 1),
}


def space(name: str) -> FunctionSpace:
    mesh, degree = MESHES[name]
    return FunctionSpace(mesh, Lagrange(degree), components=2)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("density", [neo_hookean, saint_venant])
@pytest.mark.parametrize("call", [minimize, solve])
def test_every_load_takes_a_few_steps(mesh: str, density: Density, call: Call) -> None:
    V = space(mesh)
    strains = []
    for load in LOADS:
        solution = call(Energy(V, density, pressed(V, load)))
        assert int(solution.iterations) <= 8
        strains.append(float(solution.value[..., 0].max()) / load)
    assert strains[0] == pytest.approx(strains[1], rel=1e-5)  # linear elasticity
    assert strains[0] == pytest.approx(1 / 2, rel=1e-5)  # λ/(λ + 2μ) of plane strain


@pytest.mark.parametrize("load", [1e-7, 1e-4, 1e-3, 1e-1])
def test_a_constant_in_the_density_changes_nothing(load: float) -> None:
    V = space("quadrilaterals")
    plain, shifted = (
        minimize(Energy(V, lambda x, u, g, c=c: neo_hookean(x, u, g) + c, pressed(V, load))) for c in (0.0, 1.0)
    )
    assert float((plain.value - shifted.value).abs().max()) < 1e-8 * load + 1e-14


@pytest.mark.parametrize("load", LOADS)
def test_weak_forms_of_small_loads(load: float) -> None:
    V = space("triangles")
    solution = solve(WeakForm(V, neo_hookean_forces, pressed(V, load)))
    assert int(solution.iterations) <= 8
    torch.testing.assert_close(
        solution.value, minimize(Energy(V, neo_hookean, pressed(V, load))).value, rtol=1e-6, atol=1e-6 * load
    )


@pytest.mark.parametrize("load", [1e-4, 1e-3, 1e-2, 1e-1])
def test_small_loads_in_single_precision(load: float) -> None:
    V = FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(1), components=2)
    solution = minimize(Energy(V, neo_hookean, pressed(V, load)))
    assert int(solution.iterations) <= 8
    assert float(solution.value[..., 0].max()) / load == pytest.approx(1 / 2, rel=0.1)


@pytest.mark.parametrize("method", [Direct(), CG()], ids=["direct", "cg"])
def test_loads_of_a_batch_do_not_wait_for_each_other(method: LinearMethod | None) -> None:
    V = space("triangles")
    loads = torch.tensor([0.0, 1e-7, 1e-3, 0.1, 0.4], dtype=V.dtype)
    together = minimize(Energy(V, neo_hookean, pressed(V, loads[:, None].expand(-1, 5))), method=method)
    assert int(together.iterations.max()) <= 8
    for load, value in zip(loads.tolist(), together.value, strict=True):
        alone = minimize(Energy(V, neo_hookean, pressed(V, load)))
        torch.testing.assert_close(value, alone.value, rtol=1e-6, atol=1e-6 * load + 1e-16)


def test_a_residual_that_may_fall_is_not_settled() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    form = Energy(V, lambda x, u, g: laplace(x, u, g) + 0.25 * u**4, Dirichlet(V, {"left": 0.0})).discrete_form()
    u = form.constraint.insert(torch.full(V.shape, 1e-3, dtype=V.dtype), form.data)
    with torch.no_grad():
        state = State.of(form, u)
        for part in (0.1, 0.5, 1.0, 2.0):  # no Newton step: too short, or along the gradient
            line = Line(form, u, -part * state.residual, state, form.constraint.fixed)
            line = replace(line, state=replace(state, scale=1e6 * state.scale))
            assert not bool(line.settled(state.residual, form.residual(line.at(1.0))))


def test_a_minimum_of_higher_order_is_walked_to() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    solution = minimize(Energy(V, lambda x, u, g: (u - 1) ** 4 + g.square().sum(-1)), throw=False)
    assert solution.status is Status.CONVERGED or solution.status is Status.MAX_ITERATIONS
    if solution.status is Status.CONVERGED:
        assert float((solution.value - 1).abs().max()) < 1e-3
