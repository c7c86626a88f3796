"""Multigrid: a definite preconditioner, solutions that agree with direct ones, and iterations that do not grow."""

import math

import pytest
import torch

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Periodic,
    WeakForm,
    box,
    compilation,
    unit_cube,
    unit_interval,
    unit_square,
)
from solvers import CG, Direct, Multigrid, Newton, minimize
from solvers.linear.grids.coarsening import widths
from solvers.linear.grids.hierarchy import GridHierarchy
from solvers.linear.multigrid import PreparedMultigrid
from solvers.minimization import fix_active
from solvers.operators.system import System
from solvers.operators.voids import unseen
from tests.problems import conduction, diffusion, laplace, poisson
from tests.solvers.operators.test_stencil import grid_system
from tests.solvers.systems import advection, system_of


def smooth_diffusion(mesh, degree, contrast, constraint=None):
    """−∇·(ν∇u) with ν = exp(smooth) between 1 and the contrast."""
    V = FunctionSpace(mesh, Lagrange(degree))

    def logarithm(x):
        phase = torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)[: x.shape[-1]]
        return 0.5 + 0.5 * torch.sin(2 * math.pi * x + phase).mean(-1)

    nu = lambda x: torch.exp(math.log(contrast) * logarithm(x))  # noqa: E731
    energy = Energy(V, diffusion, constraint or Dirichlet(V, {"boundary": 0.0}))
    return System(energy.discrete_form((nu,)), torch.zeros(V.shape, dtype=V.dtype))


def agrees_with_direct(system, tolerance=1e-9):
    torch.manual_seed(2)
    rhs = torch.randn(*system.batch, *system.form.space.shape, dtype=system.u.dtype)
    prepared = Multigrid(rtol=1e-12).prepare(system)
    found, expected = prepared.solve(rhs), Direct("superlu").prepare(system).solve(rhs)
    found, expected = map(system.form.linear_part, (found, expected))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert not bool((prepared.singular | prepared.indefinite).any())
    return prepared


@pytest.mark.parametrize("name", ["scalar", "robin", "vector", "batch", "mean zero"])
def test_solutions_agree_with_direct_ones_on_all_kinds_of_problems(name):
    system, *_ = system_of(name, 9)
    agrees_with_direct(system)


@pytest.mark.parametrize(
    ("degree", "dim", "components"), [(1, 1, None), (3, 1, None), (1, 2, 2), (3, 2, None), (1, 3, None), (2, 3, None)]
)
def test_solutions_agree_with_direct_ones_in_all_dimensions(degree, dim, components):
    agrees_with_direct(grid_system(degree, dim, components, cells=(90, 3, 2) if dim == 1 else (11, 6, 5)))


def test_solutions_agree_with_direct_ones_with_fixed_dofs_of_each_item():
    system = grid_system(1, 2, cells=(21, 18))
    torch.manual_seed(3)
    system.fixed = system.fixed | (torch.rand(system.u.shape) < 0.05)
    agrees_with_direct(system)


def test_partially_fixed_sides():
    mesh = unit_square(32).with_tags({"part": lambda x: (x[..., 0] == 0) & (x[..., 1] > 0.3) & (x[..., 1] < 0.6)})
    V = FunctionSpace(mesh, Lagrange(1))
    system = System(
        Energy(V, laplace, Dirichlet(V, {"part": 0.0})).discrete_form(()), torch.zeros(V.shape, dtype=V.dtype)
    )
    assert int(agrees_with_direct(system).iterations) <= 16


@pytest.mark.parametrize(("degree", "cells"), [(1, (13, 14)), (2, (7, 6)), (3, (4, 5))])
def test_a_cycle_is_symmetric_and_close_to_the_inverse(degree, cells):
    system = grid_system(degree, 2, cells=cells)
    prepared = Multigrid().prepare(system)
    assert isinstance(prepared, PreparedMultigrid)
    assert isinstance(system.form.space, FunctionSpace)
    assert system.stencil is not None
    assert system.fixed is not None
    prepared.hierarchy = GridHierarchy(system.stencil, system.fixed_images, widths(system.form.space), torch.float64)
    torch.manual_seed(4)
    V = torch.randn(24, *system.u.shape, dtype=torch.float64).masked_fill(system.fixed, 0)
    AV = torch.stack([system.apply(v) for v in V])
    MV, MAV = (torch.stack([prepared.precondition(w) for w in W]) for W in (V, AV))
    for item in range(2):
        M = V[:, item] @ MV[:, item].T
        torch.testing.assert_close(M, M.T, rtol=1e-11, atol=1e-12 * float(M.abs().max()))
        assert bool((torch.linalg.eigvalsh(M) > 0).all())
        # Rayleigh quotients of M A, in the inner product of A, on the span of V.
        A, AMA = AV[:, item] @ V[:, item].T, AV[:, item] @ MAV[:, item].T
        values = torch.linalg.eigvals(torch.linalg.solve(A, AMA)).real
        assert bool(((values > 0.1) & (values < 1.1)).all())


@pytest.mark.parametrize("void", [0.0, 0.3])
def test_a_cycle_for_rough_coefficients_is_symmetric_and_definite(void):
    """With two coarse grids below a level, and cycles that fill voids."""
    V = FunctionSpace(unit_square(90, 86), Lagrange(1))
    k = rough("noise", 86, 90) * (torch.rand(86, 90, generator=torch.manual_seed(1)) >= void)
    energy = Energy(V, diffusion, Dirichlet(V, {"left": 0.0}))
    form, u = energy.discrete_form((V.per_cell(k.flatten()),)), torch.zeros(V.shape, dtype=V.dtype)
    held = unseen(form, u)[0]
    assert bool(held.any()) == (void > 0)
    form = fix_active(form, held, u, [None, None])
    system = System(form, u, form.constraint.fixed)
    assert system.fixed is not None
    with compilation("never"):  # without band factors there are more levels
        prepared = Multigrid().prepare(system)
        assert isinstance(prepared, PreparedMultigrid)
        prepared.hierarchy = GridHierarchy(*prepared.operator(), widths(V), torch.float64)
        assert len(prepared.hierarchy.levels) == 4
        v = torch.randn(40, *V.shape, dtype=V.dtype).masked_fill(system.fixed, 0)
        M = v @ torch.stack([prepared.precondition(w) for w in v]).T
    torch.testing.assert_close(M, M.T, rtol=1e-10, atol=1e-11 * float(M.abs().max()))
    assert bool((torch.linalg.eigvalsh(M) > 0).all())


@pytest.mark.parametrize(
    ("make", "degree", "sizes"),
    [
        (unit_square, 1, (32, 64, 101)),
        (unit_square, 2, (16, 40)),
        (unit_square, 3, (10, 20)),
        (unit_cube, 1, (9, 20)),
        (unit_cube, 2, (5, 8)),
    ],
)
def test_iterations_are_few_and_do_not_grow(make, degree, sizes):
    for contrast, limit in ((1.0, 10), (1e3, 11), (1e6, 25)):
        counts = []
        for n in sizes:
            system = smooth_diffusion(make(n), degree, contrast)
            prepared = Multigrid(rtol=1e-8).prepare(system)
            b = system.project(torch.ones_like(system.u))
            x = prepared.solve(b)
            assert float((b - system.apply(x)).norm()) <= 1e-7 * float(b.norm())
            counts.append(int(prepared.iterations))
        assert max(counts) <= limit
        assert counts[-1] <= max(counts[0], 6) + 2  # few levels may make the first one exact


def rough(kind, *shape):
    """Coefficients that jump from cell to cell: noise, blocks, densities of a designed body."""
    generator = torch.manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "noise":
        return torch.exp(2 * noise)
    if kind == "blocks":
        chosen = torch.rand([-(-n // 8) for n in shape], generator=generator) < 0.5
        for k, n in enumerate(shape):
            chosen = chosen.repeat_interleave(8, k).narrow(k, 0, n)
        return torch.where(chosen, 1e6, 1.0).double()
    pool = torch.nn.functional.avg_pool2d if len(shape) == 2 else torch.nn.functional.avg_pool3d
    smooth = pool(noise[None, None], [min(n, 7) for n in shape], 1, [min(n, 7) // 2 for n in shape])[0, 0]
    return 1e-6 + (0.5 + smooth / smooth.std()).clamp(0, 1) ** 3


@pytest.mark.parametrize("kind", ["noise", "blocks", "densities"])
@pytest.mark.parametrize(("shape", "limit"), [((80, 96), 14), ((14, 20, 17), 10), ((1, 64, 48), 14)])
def test_rough_coefficients_cost_few_iterations(kind, shape, limit):
    V = FunctionSpace(box((0.0,) * len(shape), tuple(map(float, shape[::-1])), shape[::-1]), Lagrange(1))
    k = V.per_cell(rough(kind, *shape).flatten())
    system = System(
        Energy(V, diffusion, Dirichlet(V, {"left": 0.0})).discrete_form((k,)), torch.zeros(V.shape, dtype=V.dtype)
    )
    prepared = Multigrid(rtol=1e-8).prepare(system)
    assert isinstance(prepared, PreparedMultigrid)
    b = system.project(torch.randn(V.shape, dtype=V.dtype, generator=torch.manual_seed(1)))
    x = prepared.solve(b)
    assert len(prepared.hierarchy.levels) > 1
    assert float((b - system.apply(x)).norm()) <= 1e-7 * float(b.norm())
    assert int(prepared.iterations) <= limit


def test_rough_solutions_agree_with_direct_ones_and_so_do_batches_and_periodic_cells():
    V = FunctionSpace(unit_square(48), Lagrange(1))
    k = torch.stack([rough("noise", 48, 48), torch.ones(48, 48, dtype=V.dtype), rough("noise", 48, 48).T]).flatten(1)
    for constraint in (Dirichlet(V, {"left": 0.0}), Periodic(V, {"right": "left", "top": "bottom"}) & MeanZero(V)):
        form = Energy(V, diffusion, constraint).discrete_form((V.per_cell(k),))
        agrees_with_direct(System(form, torch.zeros(3, *V.shape, dtype=V.dtype)), 1e-7)


def test_rough_coefficients_go_with_a_mean_that_vanishes():
    V = FunctionSpace(unit_square(96), Lagrange(1))
    k = V.per_cell(rough("noise", 96, 96).flatten())
    energy = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - (x[..., 0] - 0.5) * u, MeanZero(V))
    solution = minimize(energy, (k,), method=Multigrid())
    direct = minimize(energy, (k,), method=Direct()).value
    assert int(solution.linear_iterations) <= 25
    torch.testing.assert_close(solution.value, direct, rtol=1e-8, atol=1e-8 * float(direct.abs().max()))


@pytest.mark.slow
def test_iterations_are_few_for_cubes_of_degree_three():
    system = smooth_diffusion(unit_cube(6), 3, 1e3)
    prepared = Multigrid(rtol=1e-8).prepare(system)
    prepared.solve(torch.ones_like(system.u))
    assert int(prepared.iterations) <= 13


@pytest.mark.parametrize("upper", [(1.0, 0.1), (20.0, 1.0), (1.0, 1.5), (1.0, 0.05, 3.0)])
def test_stretched_cells_cost_few_iterations(upper):
    mesh = box((0.0,) * len(upper), upper, (40, 40) if len(upper) == 2 else (16, 16, 16))
    prepared = Multigrid(rtol=1e-8).prepare(smooth_diffusion(mesh, 1, 10.0))
    prepared.solve(torch.ones_like(prepared.system.u))
    assert int(prepared.iterations) <= 9


@pytest.mark.parametrize("shape", [(96, 48, 1), (192, 96, 1), (1, 40, 80), (300, 1), (256, 3)])
@pytest.mark.parametrize("held", ["left", "bottom"])
def test_thin_bodies_cost_few_iterations(shape, held):
    """Slabs and strips of one cell or a few: coarse cells are flat there, and functions constant across them.

    Also where a side of the single cell is held.
    """
    h = 1 / max(shape)
    V = FunctionSpace(box((0.0,) * len(shape), [n * h for n in shape], shape), Lagrange(1))
    energy = Energy(V, laplace, Dirichlet(V, {held: 0.0}))
    system = System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype))
    assert int(agrees_with_direct(system, 1e-8).iterations) <= 16


def test_tensors_as_coefficients():
    V = FunctionSpace(unit_square(40), Lagrange(1))
    tensor = torch.tensor([[1.0, 0.3], [0.3, 20.0]], dtype=torch.float64)
    energy = Energy(V, lambda x, u, g: 0.5 * (g @ tensor * g).sum(-1), Dirichlet(V, {"boundary": 0.0}))
    prepared = agrees_with_direct(System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype)))
    assert int(prepared.iterations) <= 20


def test_items_converge_on_their_own():
    V = FunctionSpace(unit_square(24), Lagrange(1))
    k = torch.logspace(-12, 12, 5, dtype=V.dtype)
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    system = System(energy.discrete_form((k,)), torch.zeros(5, *V.shape, dtype=V.dtype))
    rhs = torch.randn(5, *V.shape, dtype=V.dtype) * torch.logspace(-30, 30, 5, dtype=V.dtype)[:, None]
    rhs[2] = 0
    prepared = Multigrid(rtol=1e-8).prepare(system)
    x = prepared.solve(rhs)
    residual = (system.project(rhs) - system.apply(x)).norm(dim=-1)
    assert bool((residual <= 1.1e-8 * system.project(rhs).norm(dim=-1)).all())
    assert prepared.iterations[2] == 0
    assert bool((x[2] == 0).all())
    enough = prepared.solve(rhs, torch.full((5,), torch.inf, dtype=V.dtype))
    assert bool((enough == 0).all())


def test_an_item_that_is_not_finite_leaves_the_others_alone():
    V = FunctionSpace(unit_square(8), Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    k = torch.tensor([1.0, torch.nan, 2.0], dtype=V.dtype)
    system = System(energy.discrete_form((k,)), torch.zeros(3, *V.shape, dtype=V.dtype))
    x = Multigrid(rtol=1e-10).prepare(system).solve(torch.ones(3, *V.shape, dtype=V.dtype))
    assert torch.isfinite(x).all(-1).tolist() == [True, False, True]
    torch.testing.assert_close(x[0], 2 * x[2])


def test_negative_curvature_is_flagged_and_that_direction_handed_back():
    V = FunctionSpace(unit_square(16), Lagrange(1))
    density = lambda x, u, g, r: laplace(x, u, g) - 0.5 * r * u.square()  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    reaction = torch.tensor([0.0, 100.0, 1e6], dtype=torch.float64)
    system = System(energy.discrete_form((reaction,)), torch.zeros(3, *V.shape, dtype=V.dtype))
    prepared = Multigrid().prepare(system)
    rhs = torch.ones(3, *V.shape, dtype=V.dtype)
    for _ in range(2):
        x = prepared.solve(rhs)
        assert prepared.indefinite.tolist() == [False, True, True]
        assert ((x * system.apply(x)).sum(-1) > 0).tolist() == [True, False, False]
        assert bool(((x * system.project(rhs)).sum(-1) > 0).all())


def test_as_a_preconditioner_and_alone_it_is_the_same_iteration():
    system = smooth_diffusion(unit_square(20), 2, 100.0)
    rhs = torch.randn_like(system.u)
    alone, inside = (m.prepare(system) for m in (Multigrid(rtol=1e-10), CG(rtol=1e-10, preconditioner=Multigrid())))
    torch.testing.assert_close(alone.solve(rhs), inside.solve(rhs), rtol=1e-7, atol=1e-9)
    assert abs(int(alone.iterations) - int(inside.iterations)) <= 1


def test_single_precision():
    V = FunctionSpace(unit_square(40, dtype=torch.float32), Lagrange(2))
    energy = Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}))
    found = minimize(energy, method=Newton(Multigrid()))
    assert found.converged
    torch.testing.assert_close(found.value, minimize(energy, method=Newton(Direct())).value, rtol=1e-3, atol=1e-6)


def test_a_mean_that_vanishes():
    V = FunctionSpace(unit_square(64), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) - (x[..., 0] - 0.5) * u, MeanZero(V))
    system = System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype))
    prepared = Multigrid(rtol=1e-8).prepare(system)
    prepared.solve(torch.randn_like(system.u))
    assert int(prepared.iterations) <= 12
    u = minimize(energy, method=Newton(Multigrid())).value
    torch.testing.assert_close(u, minimize(energy, method=Newton(Direct())).value, rtol=1e-8, atol=1e-10)


def test_weak_supports_cost_few_iterations():
    V = FunctionSpace(unit_square(48), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 1e-7 * u.square())
    prepared = Multigrid(rtol=1e-8).prepare(System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype)))
    prepared.solve(torch.ones_like(prepared.system.u))
    assert int(prepared.iterations) <= 15


def test_gradients_pass_gradcheck_and_equal_direct_ones():
    torch.manual_seed(0)
    V = FunctionSpace(unit_square(13), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    weights = torch.randn(V.shape, dtype=V.dtype)

    def functional(nu, method):
        return minimize(energy, (V.function(nu),), method=Newton(method)).value @ weights

    nu = (0.5 + torch.rand(V.shape, dtype=V.dtype)).requires_grad_()
    found, expected = (torch.autograd.grad(functional(nu, m), nu)[0] for m in (Multigrid(), Direct()))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert torch.autograd.gradcheck(lambda k: functional(k, Multigrid()), nu, fast_mode=True)


def test_where_there_is_no_stencil_the_error_says_what_works():
    V = FunctionSpace(unit_square(4, cell="triangle"), Lagrange(1))
    energy = Energy(V, laplace, Dirichlet(V, {"left": 0.0}))
    W = FunctionSpace(unit_interval(4), Lagrange(1))
    weak = WeakForm(FunctionSpace(unit_square(4), Lagrange(1)), advection)
    triangles = System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype))
    form = System(weak.discrete_form(()), torch.zeros(weak.space.shape, dtype=W.dtype), symmetric=False)
    remedies = {"triangles": r"`CG\(\)` or `Direct\(\)`", "weak form": r"`Direct\(\)`"}  # the latter has no CG either
    for system, (named, remedy) in zip((triangles, form), remedies.items(), strict=True):
        with pytest.raises(ValueError, match=rf"grid of intervals.*{named}.*Use {remedy}\."):
            Multigrid().prepare(system)
