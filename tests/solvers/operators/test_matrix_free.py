"""Without its matrix a Hessian is the same operator: products, stencil, diagonal, solutions and their gradients."""

from math import prod

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, compilation, unit_cube
from fem.forms.grid_integral import GridIntegral
from solvers import CG, Direct, Multigrid, minimize
from solvers.linear.multigrid import PreparedMultigrid
from solvers.operators import matrix_free
from solvers.operators.stencil import Stencil
from solvers.operators.system import System
from tests.problems import diffusion

CELLS = (14, 13, 13)
pytestmark = pytest.mark.usefixtures("both_ways", "any_size")


@pytest.fixture
def any_size(monkeypatch):
    """Small systems count as large ones, in portions of few layers."""
    monkeypatch.setattr(matrix_free, "LEAST", 0)
    monkeypatch.setattr(matrix_free, "LAYERS", (4, 5))


def reaction_diffusion(x, u, grad_u, k):
    return diffusion(x, u, grad_u, k) + 0.3 * k * (1 + x[..., 2]) * u.square()


def problem(degree=1, where="nodes", batch=(2,), scale=1.0, cells=CELLS, dtype=torch.float64):
    torch.manual_seed(0)
    V = FunctionSpace(unit_cube(*cells, dtype=dtype), Lagrange(degree))
    count = V.mesh.num_nodes if where == "nodes" else V.mesh.num_cells
    values = scale * (1 + 0.3 * torch.rand(*batch, count, dtype=dtype))
    k = FunctionSpace(V.mesh, Lagrange(1)).function(values) if where == "nodes" else V.per_cell(values)
    return V, Energy(V, reaction_diffusion, Dirichlet(V, {"left": 1.0, "top": 0.0})), k


def system_of(*args, **options):
    V, energy, k = problem(*args, **options)
    form = energy.discrete_form((k,))
    assert isinstance(form.integrals[0], GridIntegral)
    return System(form, torch.zeros(*form.batch, *V.shape, dtype=V.dtype))


@pytest.mark.parametrize(
    ("degree", "where", "batch", "scale"),
    [(1, "nodes", (2,), 1.0), (1, "cells", (), 1e60), (2, "nodes", (), 1.0)],
)
def test_operator_diagonal_and_stencil_are_those_of_the_matrix(degree, where, batch, scale):
    cells = (13, 13, 13) if degree == 1 else (13, 13, 14)
    system, assembled = (system_of(degree, where, batch, scale, cells) for _ in range(2))
    assembled.loop = None
    assert system.loop is not None
    assert assembled.stencil is not None
    v = torch.randn(system.u.shape, dtype=torch.float64)
    torch.testing.assert_close(system.apply(v) / scale, assembled.apply(v) / scale, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(system.diagonal, assembled.diagonal, rtol=1e-6, atol=0)
    assert bool(system.finite.all())
    grid, loop = assembled.stencil.grid, system.loop
    Stencil.fix(assembled.stencil, assembled.fixed_images, 0.0)
    Stencil.fix(loop.stencil, assembled.fixed_images, 0.0)
    found, wanted = (grid.items(grid.shifted(s.data)) for s in (loop.stencil, assembled.stencil))
    torch.testing.assert_close(found.double(), wanted * loop.scale[:, None, None], rtol=1e-6, atol=1e-7)
    assert float(found.abs().amax()) == pytest.approx(1, rel=0.5)


def test_coefficients_of_any_size_are_scaled_item_by_item():
    """Even where the first layers are no example for the others."""
    V, energy, _ = problem()
    z = V.dof_coordinates[:, 2]
    k = torch.stack([torch.where(z < 0.4, 1e-50, 1e-30), torch.full_like(z, 1e40)])
    system = System(energy.discrete_form((V.function(k),)), torch.zeros(2, *V.shape, dtype=V.dtype))
    assert system.loop is not None
    largest = system.loop.grid.items(system.loop.stencil.diagonal).flatten(1).amax(-1)
    assert bool(((largest > 0.5) & (largest < 2)).all())
    assert bool(system.finite.all())


@pytest.mark.parametrize(("degree", "bad"), [(1, None), (1, float("nan")), (2, None)])
def test_solutions_agree_with_those_by_the_stencil(degree, bad):
    system, assembled = (system_of(degree) for _ in range(2))
    assembled.loop = None
    b = system.project(torch.randn(system.u.shape, dtype=torch.float64))
    if bad is not None:
        b[1, 5] = bad
    prepared, other = Multigrid().prepare(system), Multigrid().prepare(assembled)
    assert isinstance(prepared, PreparedMultigrid)
    assert prepared.loop is not None
    x, y = prepared.solve(b), other.solve(b)
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10 * float(y[0].abs().max()), equal_nan=True)
    assert bool(((prepared.iterations - other.iterations).abs() <= 1).all())


def test_rough_and_broken_coefficients_get_their_matrix():
    V, energy, _ = problem()
    generator = torch.manual_seed(0)
    noise = torch.exp(2 * torch.randn(V.num_dofs, generator=generator, dtype=V.dtype))
    smooth = torch.ones_like(noise)
    broken = smooth.clone().index_fill_(0, torch.tensor([700]), float("nan"))
    for values in (noise, torch.stack([smooth, broken])):
        system = System(energy.discrete_form((V.function(values),)), torch.zeros(*values.shape, dtype=V.dtype))
        prepared = Multigrid().prepare(system)
        assert isinstance(prepared, PreparedMultigrid)
        assert prepared.loop is None
        assert system.loop is None
        b = system.project(torch.ones_like(system.u))
        x = prepared.solve(b)
        good = system.finite
        assert good.tolist() == (True if values.ndim == 1 else [True, False])
        error = (b - system.apply(x.nan_to_num(0)))[good]
        assert float(error.norm()) <= 1e-10 * float(b.norm())
        assert bool(torch.isfinite(x).all(-1).eq(good).all())


def test_one_layer_of_cells():
    V, energy, k = problem(cells=(60, 50, 1))
    found = [minimize(energy, (k,), method=method).value for method in (Multigrid(), Direct())]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)
    system = System(energy.discrete_form((k,)), torch.zeros(2, *V.shape, dtype=V.dtype))
    prepared = Multigrid().prepare(system)
    assert isinstance(prepared, PreparedMultigrid)
    assert prepared.loop is not None


def test_negative_curvature_is_told():
    V = FunctionSpace(unit_cube(*CELLS), Lagrange(1))
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - 200 * u.square() - u, Dirichlet(V, {"left": 0.0}))
    system = System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype))
    prepared = Multigrid().prepare(system)
    assert isinstance(prepared, PreparedMultigrid)
    assert prepared.loop is not None
    b = system.project(torch.ones_like(system.u))
    x = prepared.solve(b)
    assert bool(prepared.indefinite)
    assert float((x * system.apply(x)).sum()) <= 0 < float((x * b).sum())


def test_only_quadratic_energies_of_scalars_go_without():
    for density, components, there in (
        (lambda x, u, g: 0.5 * g.square().sum(-1), None, True),
        (lambda x, u, g: 0.25 * g.square().sum(-1) ** 2 + u.square(), None, False),
        (lambda x, u, g: 0.5 * g.square().sum((-1, -2)), 3, False),
    ):
        V = FunctionSpace(unit_cube(*CELLS), Lagrange(1), components=components)
        form = Energy(V, density, Dirichlet(V, {"left": 0.0})).discrete_form(())
        system = System(form, torch.zeros(V.shape, dtype=V.dtype))
        assert (system.loop is not None) is there
        robin = Energy(
            V, density, boundary={"left": lambda x, u, n: u.square().reshape(len(u), x.shape[1], -1).sum(-1)}
        )
        assert System(robin.discrete_form(()), system.u.clone()).loop is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_minimisers_and_their_gradients_are_the_same_by_all_ways(dtype):
    found = []
    for method in (None, Direct(), CG(preconditioner=Multigrid())):
        _V, energy, k = problem(dtype=dtype)
        k.values.requires_grad_()
        solution = minimize(energy, (k,), method=method)
        solution.value.square().sum().backward()
        found.append((solution.value.detach(), k.values.grad))
    rtol, atol = (1e-8, 1e-10) if dtype == torch.float64 else (1e-3, 1e-4)
    for some in found[1:]:
        torch.testing.assert_close(some, found[0], rtol=rtol, atol=atol)


def test_a_mean_that_is_held_goes_with_it():
    V = FunctionSpace(unit_cube(*CELLS), Lagrange(1))
    load = torch.sin(3 * V.dof_coordinates).sum(-1)
    energy = Energy(V, lambda x, u, g, f: 0.5 * g.square().sum(-1) - f * u, MeanZero(V))
    found = [minimize(energy, (V.function(load),), method=m).value for m in (Multigrid(), Direct())]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_results_do_not_depend_on_the_number_of_threads():
    V, energy, k = problem()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            system = System(energy.discrete_form((k,)), torch.zeros(2, *V.shape, dtype=V.dtype))
            assert system.loop is not None
            v = torch.linspace(-1, 1, prod(system.u.shape), dtype=V.dtype).view(system.u.shape)
            with compilation("always"):
                found.append((system.loop(v), system.loop.stencil.data.clone()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
