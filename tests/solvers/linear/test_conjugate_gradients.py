"""Linear methods agree with dense algebra and each other; conjugate gradients, their limits and flags."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_interval, unit_square
from fem.support.conjugate_gradients import conjugate_gradients
from fem.support.status import Status
from solvers.linear.conjugate_gradients import CG, Jacobi, ritz_values
from solvers.linear.direct import Direct
from solvers.linear.fast_diagonalization import FastDiagonalization
from solvers.linear.multigrid import Multigrid
from solvers.minimization import minimize
from solvers.operators.system import System
from tests.problems import laplace
from tests.solvers.systems import dense, system_of


@pytest.fixture(autouse=True)
def needs_pardiso(request):
    if "pardiso" in request.node.name:
        pytest.importorskip("pypardiso")


@pytest.mark.parametrize(
    "method", [Direct("superlu"), Direct("pardiso"), CG(rtol=1e-13)], ids=["superlu", "pardiso", "cg"]
)
@pytest.mark.parametrize("name", ["scalar", "robin", "vector", "batch"])
def test_methods_agree_with_dense_algebra_on_definite_matrices(name, method):
    system, functional, params, u = system_of(name)
    rhs = torch.randn_like(u)
    lead = len(system.batch)
    fixed = torch.zeros_like(u, dtype=torch.bool) if system.fixed is None else system.fixed.expand(u.shape)
    H = dense(functional, u, params) + torch.diag_embed(fixed.flatten(lead).double())
    expected = torch.linalg.solve(H, rhs.masked_fill(fixed, 0).flatten(lead)).unflatten(-1, u.shape[lead:])
    prepared = method.prepare(system)
    torch.testing.assert_close(prepared.solve(rhs), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert not prepared.singular.any()
    assert not prepared.indefinite.any()


@pytest.mark.parametrize("method", [Direct("superlu"), Direct("pardiso"), CG()], ids=["superlu", "pardiso", "cg"])
def test_a_system_without_free_dofs_has_the_solution_zero(method):
    V = FunctionSpace(unit_interval(1), Lagrange(1))
    energy = Energy(V, laplace, Dirichlet(V, {"boundary": 1.0}))
    prepared = method.prepare(System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype)))
    assert prepared.solve(torch.ones(V.shape, dtype=V.dtype)).tolist() == [0.0, 0.0]
    assert not bool(prepared.singular | prepared.indefinite)


def test_cg_flags_negative_curvature_and_hands_back_that_direction():
    V = FunctionSpace(unit_square(6), Lagrange(1))
    density = lambda x, u, g, r: laplace(x, u, g) - 0.5 * r * u.square()  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    reaction = torch.tensor([0.0, 100.0, 1e6], dtype=torch.float64)  # definite, indefinite, negative on the diagonal
    system = System(energy.discrete_form((reaction,)), torch.zeros(3, *V.shape, dtype=V.dtype))
    prepared = CG().prepare(system)
    rhs = torch.ones(3, *V.shape, dtype=V.dtype)
    for _ in range(2):  # flags stay, and a second right-hand side is served like the first
        x = prepared.solve(rhs)
        assert prepared.indefinite.tolist() == [False, True, True]
        assert ((x * system.apply(x)).sum(-1) > 0).tolist() == [True, False, False]
        assert bool(((x * system.project(rhs)).sum(-1) > 0).all())


def test_cg_needs_a_symmetric_operator():
    system, *_ = system_of("weak")
    with pytest.raises(ValueError, match=r"needs a symmetric operator.*use `Direct\(\)`"):
        CG().prepare(system)


def test_cg_stops_at_its_tolerance_and_at_its_limit():
    system, _, _, u = system_of("batch", 6)
    rhs = system.project(torch.randn_like(u))
    counts = []
    for rtol in (1e-3, 1e-9):
        prepared = CG(rtol=rtol).prepare(system)
        found = prepared.solve(rhs)
        assert bool(((system.apply(found) - rhs).norm(dim=-1) <= 1.01 * rtol * rhs.norm(dim=-1)).all())
        counts.append(int(prepared.iterations.max()))
    assert counts[0] < counts[1]
    short = CG(max_iterations=3).prepare(system)
    short.solve(rhs)
    assert short.iterations.tolist() == [3, 3, 3]


# -- the iterations themselves -----------------------------------------------------------------------------------------


def random_pairs(items, n):
    """Symmetric positive definite A and B "items n n"."""
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, items, n, n, generator=generator, dtype=torch.float64)
    return (roots @ roots.mT + torch.eye(n, dtype=torch.float64)).unbind()


def product_with(matrix):
    return lambda v: (matrix @ v[..., None])[..., 0]


def test_an_energy_target_is_met_by_the_root_of_rz():
    A, B = random_pairs(3, 12)
    x, target = torch.zeros(3, 12, dtype=torch.float64), torch.tensor([1e-2, 1e-5, 1e-9], dtype=torch.float64)
    b = torch.ones_like(x)
    r, room = b.clone(), torch.empty_like(b)
    count, turned = conjugate_gradients(product_with(A), product_with(B), x, r, room, target, 100, energy=True)
    r = b - product_with(A)(x)
    assert bool(((r * product_with(B)(r)).sum(-1).sqrt() <= 1.001 * target).all())
    assert bool((count[1:] >= count[:-1]).all())
    assert not turned.any()


def test_all_steps_of_lanczos_find_all_eigenvalues_and_fewer_stay_inside():
    A, B = random_pairs(4, 9)
    start = torch.randn(4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = torch.linalg.eigvals(B @ A).real.sort().values
    found = ritz_values(product_with(A), product_with(B), start, 9, lead=1)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
    few = ritz_values(product_with(A), product_with(B), start, 4, lead=1)
    assert bool((few[:, 0] >= exact[:, 0] * (1 - 1e-12)).all())
    assert bool((few[:, -1] <= exact[:, -1] * (1 + 1e-12)).all())
    assert bool((few[:, -1] > 0.5 * exact[:, -1]).all())


def test_where_lanczos_has_nothing_left_to_find_it_repeats_a_value():
    A = torch.tensor([2.0, 5.0, 7.0], dtype=torch.float64).diag()
    start = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = ritz_values(product_with(A), lambda r: r, start, 3, lead=1)
    assert found.tolist() == [[5.0, 5.0, 5.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("preconditioner", [Jacobi(), Multigrid(), FastDiagonalization()])
def test_an_item_that_is_not_finite_does_not_reach_its_neighbours_on_a_grid(preconditioner, bad):
    """Nothing is prescribed between them: items lie side by side in memory, and zero times NaN is NaN."""
    V = FunctionSpace(unit_square(6), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: 0.5 * g.square().sum(-1) + 0.5 * k * u**2 - x[..., 0] * u)
    k, method = torch.tensor([1.0, bad, 2.0], dtype=torch.float64), CG(preconditioner=preconditioner)
    found, alone = minimize(energy, (k,), method=method, throw=False), minimize(energy, (k[::2],))
    assert [status is Status.CONVERGED for status in found.status] == [True, False, True]
    torch.testing.assert_close(found.value[::2], alone.value)
    k.requires_grad_()
    (slope,) = torch.autograd.grad(minimize(energy, (k,), method=method, throw=False).value.square().sum(), k)
    u, step = [minimize(energy, (k.detach()[::2] + h,)).value.square().sum(-1) for h in (-1e-6, 1e-6)], 2e-6
    torch.testing.assert_close(slope[::2], (u[1] - u[0]) / step, rtol=1e-6, atol=0)
    assert bool(slope[1].isnan())
