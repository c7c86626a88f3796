"""Separable problems solved exactly, and told from others; as a preconditioner, iterations that no grid changes."""

from functools import partial
from itertools import product
from math import log

import pytest
import torch

import solvers.linear.axis_modes
from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    WeakForm,
    box,
    unit_cube,
    unit_interval,
    unit_square,
)
from nurbs import Curve, Surface, Volume, isogeometric_space
from solvers import CG, Direct, FastDiagonalization, Newton, minimize
from solvers.linear.conjugate_gradients import Jacobi
from solvers.operators.system import LinearMethod, Preconditioner, Prepared, System
from tests.problems import conduction, diffusion, laplace
from tests.solvers.systems import advection, elasticity, taylor_hood

SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))
ENDS = list(product((True, False), repeat=2))
SHAPES = ((7,), (5, 3), (3, 2, 4))


def separable(x, u, grad_u, c, m):
    return 0.5 * (c * grad_u.square()).sum(-1) + 0.5 * m * u.square()


def grid(shape, dtype=torch.float64):
    """A box whose sides are no multiples of each other, away from the origin."""
    lower = (0.3, -1.0, 2.0)[: len(shape)]
    return box(lower, tuple(a + 1 + 0.7 * k for k, a in enumerate(lower)), shape, dtype=dtype)


def sides(ends):
    """Tags of the sides that are fixed, axis by axis."""
    return {SIDES[k][i]: 0.0 for k, pair in enumerate(ends) for i in (0, 1) if pair[i]}


def system(functional, params=()):
    form = functional.discrete_form(params)
    u = torch.zeros(*form.batch, *functional.space.shape, dtype=functional.space.dtype)
    return System(form, u, symmetric=isinstance(functional, Energy))


def separable_system(shape, degree, ends, batch=(3,), smallest=0.5):
    """Diffusion per axis and reaction from `smallest` on, different in every item."""
    V, constraint = FunctionSpace(grid(shape), Lagrange(degree)), sides(ends)
    c = smallest + torch.rand(*batch, len(shape), dtype=torch.float64)
    m = smallest + torch.rand(batch, dtype=torch.float64)
    energy = Energy(V, separable, Dirichlet(V, constraint) if constraint else None)
    return system(energy, (Constant(c, shape=(len(shape),)), m))


def backward_error(s, x, rhs):
    """max |H x − b| / (‖H‖∞ max |x| + max |b|) of the worst item."""
    b, lead = s.project(rhs), len(s.batch)
    pattern, values = s.form.pattern, s.values.abs()
    rows = values.new_zeros(*s.batch, len(pattern.diagonal)).index_add_(-1, pattern.row, values).amax(-1)
    size = rows * x.abs().flatten(lead).amax(-1) + b.abs().flatten(lead).amax(-1)
    return float(((s.apply(x) - b).abs().flatten(lead).amax(-1) / size).max())


def agrees(s, rtol=1e-11):
    """Whether the solution is that of a factorisation."""
    rhs = torch.randn(*s.batch, *s.form.space.shape, dtype=s.u.dtype)
    prepared = FastDiagonalization().prepare(s)
    assert isinstance(prepared, Prepared)
    found, expected = prepared.solve(rhs), Direct("superlu").prepare(s).solve(rhs)
    torch.testing.assert_close(found, expected, rtol=0, atol=rtol * float(expected.abs().max()))
    assert backward_error(s, found, rhs) <= 1e-14
    assert not prepared.singular.any()
    assert not prepared.indefinite.any()
    if s.fixed is not None:
        assert not found[s.fixed.expand_as(found)].any()
    return prepared, found, rhs


# -- as a direct method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_solutions_agree_with_a_factorisation_for_all_mixes_of_ends(degree, shape):
    torch.manual_seed(0)
    mixes = list(product(ENDS, repeat=len(shape)))
    if len(shape) == 3:  # every pair of ends on every axis, and both extremes
        mixes = [*(tuple(ENDS[(i + k) % 4] for k in range(3)) for i in range(4)), mixes[0], mixes[-1]]
    for ends in mixes:
        prepared, found, rhs = agrees(separable_system(shape, degree, ends))
        torch.testing.assert_close(prepared.solve(rhs, transpose=True), found)


@pytest.mark.parametrize(("shape", "degree"), [((2, 3), 1), ((31, 64), 1), ((97, 16), 1), ((1, 5), 2), ((23, 40), 2)])
def test_thin_prime_and_unequal_grids(shape, degree):
    torch.manual_seed(0)
    for ends in ([(True, True)] * 2, [(True, False), (False, True)]):
        agrees(separable_system(shape, degree, ends, batch=()))


@pytest.mark.parametrize("shape", [(40,), (12, 9), (5, 4, 6)])
def test_fourier_and_dense_transforms_give_one_solution(shape, monkeypatch):
    torch.manual_seed(0)
    for ends in [[pair] * len(shape) for pair in ENDS] + [[*ENDS, *ENDS][i : i + len(shape)] for i in range(4)]:
        s, found = separable_system(shape, 1, ends, batch=(2, 1)), []
        rhs = torch.randn(2, 1, *s.form.space.shape, dtype=torch.float64)
        for limit in (0, 1000):
            solvers.linear.axis_modes.modes.cache_clear()
            monkeypatch.setattr(solvers.linear.axis_modes, "DENSE", limit)
            found.append(FastDiagonalization().prepare(s).solve(rhs))
        torch.testing.assert_close(*found, rtol=0, atol=1e-12 * float(found[0].abs().max()))
    solvers.linear.axis_modes.modes.cache_clear()


@pytest.mark.parametrize("mesh", [partial(unit_square, 128), partial(unit_cube, 24), partial(unit_interval, 4000)])
def test_solutions_are_exact_to_round_off_on_finer_grids(mesh):
    torch.manual_seed(0)
    V = FunctionSpace(mesh(), Lagrange(1))
    for values in ({"boundary": 0.0}, {"left": 0.0}):
        s = system(Energy(V, laplace, Dirichlet(V, values)))
        prepared = FastDiagonalization().prepare(s)
        for rhs in (torch.randn(V.shape, dtype=V.dtype), torch.ones(V.shape, dtype=V.dtype)):
            assert backward_error(s, prepared.solve(rhs), rhs) <= 1e-15 * 4


def test_single_precision_solves_in_single_precision():
    V = FunctionSpace(grid((20, 70), torch.float32), Lagrange(1))
    s = system(Energy(V, laplace, Dirichlet(V, {"left": 0.0})))
    rhs = torch.ones(V.shape, dtype=torch.float32)
    found = FastDiagonalization().prepare(s).solve(rhs)
    assert found.dtype == torch.float32
    assert backward_error(s, found, rhs) <= 2 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("degree", [1, 2])
def test_robin_terms_on_whole_sides(degree):
    torch.manual_seed(0)
    for shape in SHAPES:
        V, last = FunctionSpace(grid(shape), Lagrange(degree)), SIDES[len(shape) - 1][1]
        robin = lambda x, u, n, c, a: 0.5 * a * (u - 1).square()  # noqa: E731
        energies = [
            Energy(V, lambda x, u, g, c, a: 0.5 * c * g.square().sum(-1), constraint, boundary=boundary)
            for constraint, boundary in (
                (None, {"left": robin}),
                (None, {"boundary": robin}),
                (Dirichlet(V, {"left": 0.0}), {"boundary": robin}),
                (Dirichlet(V, {"left": 0.0}), {last: lambda x, u, n, c, a: a * u.square()}),
            )
        ]
        a, c = (torch.tensor(t, dtype=torch.float64) for t in ([0.5, 3.0], [1.0, 2.0]))
        for energy in energies:
            agrees(system(energy, (c, a)))


def test_components_that_do_not_couple_are_solved_one_by_one():
    torch.manual_seed(0)
    V = FunctionSpace(grid((6, 4)), Lagrange(2), components=2)
    weight = torch.tensor([[1.0, 2.0], [0.5, 3.0]], dtype=torch.float64)
    density = lambda x, u, g: 0.5 * (weight * g.square()).sum((-2, -1)) + u.square().sum(-1)  # noqa: E731
    agrees(system(Energy(V, density, Dirichlet(V, {("left", 0): 0.0, ("bottom", 1): 0.0, "right": 0.0}))))


def test_sums_of_terms_whose_couplings_cancel():
    V = FunctionSpace(grid((6, 4)), Lagrange(1))
    terms = [
        Energy(V, partial(lambda sign, x, u, g: laplace(x, u, g) + sign * 0.3 * g[..., 0] * g[..., 1], sign))
        for sign in (-1, 1)
    ]
    torch.manual_seed(0)
    constrained = Energy(V, lambda x, u, g: u.square(), Dirichlet(V, {"top": 0.0}))
    agrees(system(terms[0] + terms[1] + constrained))
    with pytest.raises(ValueError, match="diffusion tensor with entries off its diagonal"):
        FastDiagonalization().prepare(system(terms[0] + constrained))


def test_weak_forms_of_separable_operators_are_solved_too():
    V = FunctionSpace(grid((6, 4)), Lagrange(2))
    form = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) + u * v, Dirichlet(V, {"left": 0.0}))
    torch.manual_seed(0)
    agrees(system(form))


@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("degree", [1, 3])
def test_pure_neumann_problems_with_mean_zero(degree, components):
    def density(x, u, g, m):
        both = g.square().sum(-1) + m * u.square()
        return 0.5 * (both if components is None else both.sum(-1))

    torch.manual_seed(0)
    V = FunctionSpace(grid((5, 4)), Lagrange(degree), components=components)
    for m in (0.0, 2.0):
        s = system(Energy(V, density, MeanZero(V)), (m,))
        rhs = torch.randn(V.shape, dtype=torch.float64)
        prepared = FastDiagonalization().prepare(s)
        found, expected = prepared.solve(rhs), Direct("superlu").prepare(s).solve(rhs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))
        assert not prepared.singular
        assert not prepared.indefinite


def test_singular_and_indefinite_items_are_flagged():
    V = FunctionSpace(unit_square(6), Lagrange(1))
    c = Constant(torch.ones(4, 2, dtype=torch.float64), shape=(2,))
    m = torch.tensor([0.0, 1.0, -30.0, 1e-9], dtype=torch.float64)
    prepared = FastDiagonalization().prepare(system(Energy(V, separable), (c, m)))
    assert prepared.singular.tolist() == [True, False, False, False]
    assert prepared.indefinite.tolist() == [False, False, True, False]
    rhs = torch.randn(4, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = prepared.solve(rhs)
    residual = prepared.system.apply(found) - rhs
    assert bool((residual.norm(dim=-1) <= 1e-12 * rhs.norm(dim=-1))[1:3].all())
    with_mean = FastDiagonalization().prepare(system(Energy(V, separable, MeanZero(V)), (c, m)))
    assert not with_mean.singular.any()
    assert with_mean.indefinite.tolist() == [False, False, True, False]


@pytest.mark.parametrize("degree", [1, 2])
def test_a_weak_reaction_is_not_lost_in_round_off(degree):
    """∫ H x = m ∫ x: what the load's total and the weakest reaction make of the mean."""
    V, m = FunctionSpace(unit_square(80, 3), Lagrange(degree)), 1e-8
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 0.5 * m * u.square())
    load = -Energy(V, lambda x, u, g: -(1 + x[..., 0]) * u).residual(torch.zeros(V.shape, dtype=V.dtype))
    found = FastDiagonalization().prepare(system(energy)).solve(load)
    total = (found * MeanZero(V).data()).sum()
    torch.testing.assert_close(m * total, load.sum(), rtol=1e-12, atol=0)


def test_items_that_are_not_finite_are_singular():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    c = torch.tensor([[1.0, 1.0], [torch.inf, 1.0], [torch.nan, 1.0]], dtype=torch.float64)
    energy = Energy(V, separable, Dirichlet(V, {"left": 0.0}))
    prepared = FastDiagonalization().prepare(system(energy, (Constant(c, shape=(2,)), 1.0)))
    assert prepared.singular.tolist() == [False, True, True]


def test_a_system_without_free_dofs_has_the_solution_zero():
    V = FunctionSpace(unit_square(1), Lagrange(1))
    s = system(Energy(V, laplace, Dirichlet(V, {"boundary": 1.0})))
    prepared = FastDiagonalization().prepare(s)
    assert not prepared.solve(torch.ones(V.shape, dtype=V.dtype)).any()
    assert not bool(prepared.singular | prepared.indefinite)
    assert not FastDiagonalization().preconditioner(s)(torch.ones(V.shape, dtype=V.dtype)).any()


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "match"),
    [
        (lambda x, u, g: (1 + x[..., 0]) * g.square().sum(-1), r"density that vary between .* and .*`CG\(precond"),
        (lambda x, u, g: g.square().sum(-1) + (u + x[..., 1]) ** 4, "density that vary between"),
        (lambda x, u, g: g.square().sum(-1) + g[..., 0] * g[..., 1], "diffusion tensor with entries off its diagonal"),
        (lambda x, u, g: g.square().sum(-1) + u * g[..., 0], "couples derivatives"),
    ],
)
def test_coefficients_that_are_not_separable_are_refused(density, match):
    V = FunctionSpace(unit_square(3), Lagrange(1))
    s = system(Energy(V, density, Dirichlet(V, {"left": 0.0})))
    with pytest.raises(ValueError, match=match):
        FastDiagonalization().prepare(s)


def test_couplings_and_terms_on_parts_of_sides_are_refused():
    V, W = FunctionSpace(unit_square(3), Lagrange(1)), FunctionSpace(unit_square(3), Lagrange(1), components=2)
    with pytest.raises(ValueError, match="couple components or axes"):
        FastDiagonalization().prepare(system(Energy(W, elasticity, Dirichlet(W, {"left": 0.0}))))
    with pytest.raises(ValueError, match="couples derivatives"):
        FastDiagonalization().prepare(system(WeakForm(V, advection, Dirichlet(V, {"left": 0.0}))))
    half = unit_square(4).with_tags(facet_tags={"half": lambda x: (x[..., 0] == 1) & (x[..., 1] <= 0.5)})
    V = FunctionSpace(half, Lagrange(1))
    with pytest.raises(ValueError, match="boundary density on 'half' that covers no whole side"):
        FastDiagonalization().prepare(system(Energy(V, laplace, boundary={"half": lambda x, u, n: u.square()})))
    varying, uniform = ({"left": lambda x, u, n, k=k: (1 + k * x[..., 1].round()) * u.square()} for k in (1, 0))
    with pytest.raises(ValueError, match="boundary density on 'left' that vary between 2 and 4"):
        FastDiagonalization().prepare(system(Energy(V, laplace, boundary=varying)))
    with pytest.raises(ValueError, match="`MeanZero` beside supported"):
        FastDiagonalization().prepare(system(Energy(V, laplace, MeanZero(V), boundary=uniform)))


@pytest.mark.parametrize("use", ["prepare", "preconditioner"])
def test_other_meshes_spaces_and_prescribed_dofs_are_refused(use):
    ready = getattr(FastDiagonalization(), use)
    moved = unit_square(4)
    moved = moved.with_nodes(moved.nodes**2)
    for mesh in (unit_square(4, cell="triangle"), moved):
        V = FunctionSpace(mesh, Lagrange(1))
        with pytest.raises(ValueError, match=r"on a grid of intervals.*whose nodes nobody moved.*got FunctionSpace"):
            ready(system(Energy(V, laplace, Dirichlet(V, {"left": 0.0}))))
    X = taylor_hood(unit_square(2))
    mixed = Energy(X, lambda x, u, g: g[0].square().sum((-2, -1)) + u[1].square())
    with pytest.raises(ValueError, match="needs a single Lagrange space"):
        ready(system(mixed))
    half = unit_square(4).with_tags(facet_tags={"half": lambda x: (x[..., 0] == 1) & (x[..., 1] <= 0.5)})
    V = FunctionSpace(half, Lagrange(1))
    with pytest.raises(ValueError, match=r"whole sides of the box.*got 3 fixed dofs apart"):
        ready(system(Energy(V, laplace, Dirichlet(V, {"half": 0.0, "left": 0.0}))))
    s = system(Energy(V, laplace))
    masks = torch.zeros(2, *V.shape, dtype=torch.bool)
    masks[0, V.dofs("left")] = True
    with pytest.raises(ValueError, match="the same in all batch items"):
        ready(System(s.form, torch.zeros(2, *V.shape, dtype=V.dtype), masks))


# -- as a preconditioner -----------------------------------------------------------------------------------------------


def smooth(x, contrast=10.0):
    """exp of a smooth function, between its extremes a factor of `contrast`."""
    return torch.exp(0.5 * log(contrast) * torch.sin(5 * x[..., 0] + 1) * torch.cos(4 * x[..., -1]))


def iterations(functional, params, preconditioner):
    """Conjugate gradients until the residual has fallen by 1e-10."""
    s = system(functional, params)
    torch.manual_seed(0)
    prepared = CG(rtol=1e-10, preconditioner=preconditioner).prepare(s)
    rhs = torch.randn(*s.batch, *functional.space.shape, dtype=torch.float64)
    found = prepared.solve(rhs)
    lead = len(s.batch)
    residual = (s.apply(found) - s.project(rhs)).flatten(lead).norm(dim=-1)
    assert bool((residual <= 1.1e-10 * s.project(rhs).flatten(lead).norm(dim=-1)).all())
    return int(prepared.iterations.max())


@pytest.mark.parametrize("constraint", ["boundary", "left", "mean", "robin"])
def test_iterations_stay_few_on_every_grid_for_smooth_coefficients(constraint):
    counts, robin = [], {"boundary": lambda x, u, normal, nu: (1 + x[..., 0]) * u.square()}
    for n in (8, 32):
        V = FunctionSpace(unit_square(n), Lagrange(1))
        if constraint in ("mean", "robin"):
            fixed = MeanZero(V) if constraint == "mean" else None
        else:
            fixed = Dirichlet(V, {constraint: 0.0})
        energy = Energy(V, diffusion, fixed, boundary=robin if constraint == "robin" else {})
        counts.append(iterations(energy, (smooth,), FastDiagonalization()))
    assert max(counts) <= 18
    assert counts[1] <= counts[0] + 3
    assert iterations(energy, (smooth,), Jacobi()) >= 4 * counts[1]


def test_other_degrees_dimensions_contrasts_and_batches():
    V = FunctionSpace(unit_square(8), Lagrange(3))
    W = FunctionSpace(unit_cube(6), Lagrange(1))
    for space, contrast, most in ((V, 10.0, 14), (V, 1000.0, 22), (W, 10.0, 14)):
        energy = Energy(space, diffusion, Dirichlet(space, {"boundary": 0.0}))
        assert iterations(energy, (partial(smooth, contrast=contrast),), FastDiagonalization()) <= most
    field = torch.stack([space.interpolate(smooth), 1e6 * space.interpolate(lambda x: 1 + x[..., 1])])
    assert iterations(energy, (space.function(field),), FastDiagonalization()) <= 14


def test_without_scaling_jumps_cost_no_more_on_finer_grids():
    counts = []
    for n in (8, 32):
        V = FunctionSpace(unit_square(n), Lagrange(1))
        energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
        jump = lambda x: 1 + 99.0 * (4 * x).floor().sum(-1).remainder(2)  # noqa: E731
        counts.append([iterations(energy, (jump,), FastDiagonalization(scaled)) for scaled in (True, False)])
    assert counts[1][1] <= 1.5 * counts[0][1]
    assert counts[1][0] > 2 * counts[0][0]


def test_coupled_components_are_preconditioned_by_their_own_laplacians():
    counts = []
    for n in (6, 18):
        W = FunctionSpace(unit_square(n), Lagrange(1), components=2)
        counts.append(iterations(Energy(W, elasticity, Dirichlet(W, {"left": 0.0})), (), FastDiagonalization()))
    assert max(counts) <= 30
    assert counts[1] <= counts[0] + 5


def test_the_preconditioner_is_symmetric_and_definite_even_of_singular_systems():
    torch.manual_seed(0)
    V = FunctionSpace(grid((4, 3)), Lagrange(1))
    for energy in (Energy(V, diffusion), Energy(V, diffusion, Dirichlet(V, {"left": 0.0}))):
        s = system(energy, (smooth,))
        free = torch.ones(V.shape, dtype=torch.bool) if s.fixed is None else ~s.fixed
        P = FastDiagonalization().preconditioner(s)
        matrix = torch.stack([P(e) for e in torch.eye(V.num_dofs, dtype=V.dtype)])[free][:, free]
        torch.testing.assert_close(matrix, matrix.mT)
        assert float(torch.linalg.eigvalsh(matrix)[0]) > 0


# -- in solvers --------------------------------------------------------------------------------------------------------


def test_it_is_a_linear_method_and_a_preconditioner():
    assert isinstance(FastDiagonalization(), LinearMethod)
    assert isinstance(FastDiagonalization(), Preconditioner)


@pytest.mark.parametrize("constraint", ["dirichlet", "mean"])
def test_gradients_through_minimize(constraint):
    V = FunctionSpace(grid((6, 4)), Lagrange(1))
    fixed = Dirichlet(V, {"left": 1.0, "top": 0.0}) if constraint == "dirichlet" else MeanZero(V)
    energy = Energy(V, conduction, fixed)
    values = torch.rand(V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def solution(kappa, load, method):
        return minimize(energy, (kappa, V.function(load)), method=Newton(method)).value

    grads = []
    for method in (FastDiagonalization(), Direct("superlu")):
        kappa, load = torch.tensor(1.7, dtype=torch.float64, requires_grad=True), values.clone().requires_grad_()
        u = solution(kappa, load, method)
        grads.append([u, *torch.autograd.grad((u**2 * torch.linspace(0, 1, V.num_dofs)).sum(), (kappa, load))])
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    kappa = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: solution(k, values, FastDiagonalization()), (kappa,))
    assert torch.autograd.gradgradcheck(lambda k: solution(k, values, FastDiagonalization()).square().sum(), (kappa,))


def test_newton_with_it_as_preconditioner_meets_newton_with_factors():
    V = FunctionSpace(unit_square(8), Lagrange(1))
    density = lambda x, u, g: (0.01 + g.square().sum(-1)) ** 1.5 / 3 - u  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    found, expected = (
        minimize(energy, method=Newton(linear)).value
        for linear in (CG(preconditioner=FastDiagonalization()), Direct("superlu"))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.max()))
    with pytest.raises(ValueError, match="density that vary between"):
        minimize(energy, initial=expected, method=Newton(FastDiagonalization()))


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_on_a_patch_that_is_a_box_splines_are_solved_exactly(dim, scaled):
    """With constant coefficients the preconditioner is the inverse itself, on curves, surfaces and volumes."""
    corners = [torch.tensor([0.0, 1.0 + 0.5 * k], dtype=torch.float64) for k in range(dim)]
    control = torch.stack(torch.meshgrid(*corners, indexing="ij"), -1)
    V = isogeometric_space((Curve, Surface, Volume)[dim - 1](control, degree=(1,) * dim), 3, 5)
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + u.square(), Dirichlet(V, {"left": 0.0}))
    prepared = CG(rtol=1e-9, preconditioner=FastDiagonalization(scaled)).prepare(system(energy))
    assert prepared.system.tensor is not None
    prepared.solve(torch.randn(V.shape, dtype=V.dtype, generator=torch.Generator().manual_seed(0)))
    assert int(prepared.iterations) == 1
