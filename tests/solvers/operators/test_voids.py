"""Cells of zero stiffness: what they touch alone stays as it is, what they cut off is held or said to be loose."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MixedSpace, unit_cube, unit_square
from solvers import CG, AlgebraicMultigrid, ConvergenceError, Direct, Multigrid, Status, minimize
from tests.problems import conduction

METHODS = [Multigrid(), CG(), Direct(), AlgebraicMultigrid()]


def plate(n: int = 12, **boundary: float) -> Energy:
    V = FunctionSpace(unit_square(n, n), Lagrange(1))
    return Energy(V, conduction, Dirichlet(V, boundary or {"left": 0.0, "right": 1.0}))


def with_hole(n: int = 12) -> torch.Tensor:
    """One, but for a square of voids, in the middle of which two cells float."""
    k = torch.ones(n, n, dtype=torch.float64)
    k[3:9, 3:9] = 0
    k[5, 5:7] = 2
    return k.flatten()


def inside(V: FunctionSpace | MixedSpace, lower: float, upper: float) -> torch.Tensor:
    """Nodes strictly between lines."""
    assert isinstance(V, FunctionSpace)
    return ((V.dof_coordinates > lower + 1e-9) & (V.dof_coordinates < upper - 1e-9)).all(-1)


@pytest.mark.parametrize("method", METHODS)
def test_voids_are_the_limit_of_soft_cells_and_unseen_dofs_keep_their_values(method):
    energy, k = plate(), with_hole()
    V = energy.space
    start = torch.full((V.num_dofs,), 7.0, dtype=V.dtype)
    solution = minimize(energy, (V.per_cell(k), 0.0), initial=start, method=method)
    soft = minimize(energy, (V.per_cell(k + 1e-10), 0.0), method=Direct()).value
    hole = inside(V, 3 / 12, 9 / 12)
    torch.testing.assert_close(solution.value[~hole], soft[~hole], rtol=1e-8, atol=1e-8)
    island = torch.zeros(13, 13, dtype=torch.bool)
    island[5:7, 5:8] = True
    island = island.flatten()
    assert bool((solution.value[hole & ~island] == 7).all())
    assert float(solution.value[island].std()) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["void", "island"])
def test_loads_on_what_nothing_holds_are_an_error_that_says_where(method, where):
    energy, k = plate(), with_hole()
    V = energy.space
    f = torch.zeros(12, 12, dtype=V.dtype)
    f[(4, 4) if where == "void" else (5, 5)] = 1
    if where == "island":
        assert k.view(12, 12)[5, 5] > 0
    with pytest.raises(ConvergenceError, match=r"singular.*a load acts near x = \(0\.\d*, 0\.\d*\)"):
        minimize(energy, (V.per_cell(k), V.per_cell(f.flatten())), method=method)


@pytest.mark.parametrize("method", [Multigrid(), Direct()])
def test_a_load_that_balances_is_borne_by_an_island(method):
    energy, k = plate(), with_hole()
    V = energy.space
    f = torch.zeros(12, 12, dtype=V.dtype)
    f[5, 5], f[5, 6] = 1, -1
    u = minimize(energy, (V.per_cell(k), V.per_cell(f.flatten())), method=method).value
    soft = minimize(energy, (V.per_cell(k + 1e-10), V.per_cell(f.flatten())), method=Direct()).value
    rows = (slice(5, 7), slice(5, 8))
    (u, soft) = (v.view(13, 13)[rows] for v in (u, soft))
    torch.testing.assert_close(u - u.mean(), soft - soft.mean(), rtol=1e-6, atol=1e-9)


def test_each_item_of_a_batch_has_its_own_voids():
    energy, k = plate(), with_hole()
    V = energy.space
    f = torch.zeros(3, 144, dtype=V.dtype)
    f[2, 4 * 12 + 4] = 1
    both = V.per_cell(torch.stack([k, torch.ones_like(k), k]))
    solution = minimize(energy, (both, V.per_cell(f)), method=Multigrid(), throw=False)
    assert solution.status == (Status.CONVERGED, Status.CONVERGED, Status.SINGULAR)
    for i in (0, 1):
        alone = minimize(energy, (V.per_cell(both.values[i]), V.per_cell(f[i])), method=Direct()).value
        torch.testing.assert_close(solution.value[i], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", [Multigrid(), Direct()])
def test_gradients_of_what_is_seen_are_right(method):
    energy, k = plate(6), torch.ones(6, 6, dtype=torch.float64)
    k[1:4, 2:5] = 0
    V, solid = energy.space, k.flatten() > 0

    def outflow(some: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        values = torch.zeros(36, dtype=V.dtype).masked_scatter(solid, some)
        held = Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": right}))
        u = minimize(held, (V.per_cell(values), 0.0), method=method).value
        return u.square().sum()

    torch.manual_seed(0)
    some = (1 + torch.rand(int(solid.sum()), dtype=V.dtype)).requires_grad_()
    right = torch.tensor(1.5, dtype=V.dtype, requires_grad=True)
    assert torch.autograd.gradcheck(outflow, (some, right))


def test_a_body_of_voxels_keeps_the_nodes_that_no_voxel_touches():
    V = FunctionSpace(unit_cube(6, 5, 4), Lagrange(1), components=3)

    def elastic(x, u, grad_u, E, f):
        strain = 0.5 * (grad_u + grad_u.mT)
        return (
            0.5 * E * (strain.square().sum((-2, -1)) + 0.5 * strain.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2)
            - f * u[..., 2]
        )

    energy = Energy(V, elastic, Dirichlet(V, {"left": 0.0}))
    E = torch.ones(4, 5, 6, dtype=V.dtype)
    E[1:, :, 3:] = 0
    u = minimize(energy, (V.per_cell(E.flatten()), V.per_cell(E.flatten())), method=Multigrid()).value
    soft = minimize(energy, (V.per_cell(E.flatten() + 1e-10), V.per_cell(E.flatten())), method=Direct()).value
    void = (V.dof_coordinates[:, 0] > 0.5 + 1e-9) & (V.dof_coordinates[:, 2] > 0.25 + 1e-9)
    torch.testing.assert_close(u[~void], soft[~void], rtol=1e-6, atol=1e-6)
    assert bool((u[void] == 0).all())


def test_where_nothing_is_seen_at_all_the_problem_stays_singular():
    energy = plate()
    zero = energy.space.per_cell(torch.zeros(144, dtype=torch.float64))
    assert minimize(energy, (zero, 0.0), throw=False).status is Status.SINGULAR
    free = Energy(energy.space, conduction)
    k = energy.space.per_cell(with_hole())
    assert minimize(free, (k, 0.0), method=Multigrid(), throw=False).status is Status.SINGULAR


def test_exact_voids_cost_few_iterations():
    energy = plate(96)
    V = energy.space
    k = (torch.rand(96**2, generator=torch.manual_seed(0)) > 1 / 3).to(V.dtype)
    solution = minimize(energy, (V.per_cell(k), 0.0), method=Multigrid())
    assert int(solution.linear_iterations) <= 20  # to 1e-12


@pytest.mark.parametrize("method", [Multigrid(), Direct()])
def test_a_hessian_that_vanishes_at_the_start_alone_is_no_void(method):
    """|∇u|⁴ has none at zero away from prescribed values; the minimiser is linear all the same."""
    V = FunctionSpace(unit_square(8), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: 0.25 * k * g.square().sum(-1) ** 2, Dirichlet(V, {"left": 0.0, "right": 1.0}))
    one = V.per_cell(torch.ones(64, dtype=V.dtype))
    for start in (None, torch.zeros(V.shape, dtype=V.dtype)):
        solution = minimize(energy, (one,), initial=start, method=method, throw=False)
        error = float((solution.value - V.dof_coordinates[:, 0]).abs().max())
        assert error < 1e-4 or not solution.converged
