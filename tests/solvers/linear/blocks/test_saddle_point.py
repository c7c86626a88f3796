"""Saddle points by block preconditioning: Direct's answers, in as many iterations on any mesh and for any material."""

import pytest
import torch

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    Periodic,
    WeakForm,
    unit_cube,
    unit_square,
)
from solvers import ConvergenceError, Direct, Newton, SaddlePoint, Status, solve
from solvers.linear.blocks.schur import SaddlePointStructure
from solvers.linear.choice import default_method
from solvers.operators.system import System
from tests.problems import laplace
from tests.solvers.systems import distorted

DOUBLE = torch.float64


def divergence(grad_u):
    return grad_u.diagonal(dim1=-2, dim2=-1).sum(-1)


def stokes(x, u, grad_u, viscosity=1.0, f=1.0):
    return (
        0.5 * viscosity * grad_u[0].square().sum((-2, -1))
        - u[1] * divergence(grad_u[0])
        - f * u[0][..., 0] * torch.sin(3 * x[..., 1])
    )


def solid(x, u, grad_u, mu=1.0, compliance=1e-4):
    """μ |ε|² + p div u − p²/(2λ), with 1/λ."""
    strain = 0.5 * (grad_u[0] + grad_u[0].mT)
    return (
        mu * strain.square().sum((-2, -1))
        + u[1] * divergence(grad_u[0])
        - 0.5 * compliance * u[1].square()
        - u[0][..., 1]
    )


def weak_stokes(x, u, grad_u, v, grad_v, viscosity=1.0, sign=1.0):
    (_, p), (w, q), g, h = u, v, grad_u[0], grad_v[0]
    return viscosity * (g * h).sum((-2, -1)) - p * divergence(h) - sign * q * divergence(g) - w[..., 0] * x[..., 1]


def pair(mesh, swapped=False):
    """Taylor and Hood's, the pressure perhaps first."""
    V, Q = FunctionSpace(mesh, Lagrange(2), components=mesh.dim), FunctionSpace(mesh, Lagrange(1))
    return MixedSpace(Q, V) if swapped else MixedSpace(V, Q)


def swapped(density):
    return lambda x, u, grad_u, *params: density(x, u[::-1], grad_u[::-1], *params)


def problem(name, n, cell="triangle"):
    mesh = unit_cube(n, cell=cell) if cell in ("tetrahedron", "hexahedron") else distorted(n, cell=cell)
    X = pair(mesh)
    if name == "open":
        inflow = {
            ("left", 0): lambda x: torch.stack([x[..., 1] * (1 - x[..., 1]), *[0 * x[..., 0]] * (mesh.dim - 1)], -1)
        }
        return Energy(X, stokes, Dirichlet(X, {("bottom", 0): 0.0, ("top", 0): 0.0} | inflow))
    if name == "enclosed":
        return Energy(X, stokes, Dirichlet(X, {("boundary", 0): 0.0}) & MeanZero(X, field=1))
    if name == "solid":
        return Energy(X, solid, Dirichlet(X, {("left", 0): 0.0}))
    if name == "swapped":
        Y = pair(mesh, swapped=True)
        return Energy(Y, swapped(solid), Dirichlet(Y, {("left", 1): 0.0}))
    assert name == "periodic"
    square = pair(unit_square(n, cell=cell))
    held = Dirichlet(square, {("bottom", 0): 0.0, ("top", 0): 0.0}) & Periodic(square, {"right": "left"})
    return Energy(square, stokes, held & MeanZero(square, field=1))


def iterations(energy, *params, rtol=1e-8):
    found = solve(energy, params, method=Newton(SaddlePoint(rtol=rtol), max_iterations=1), throw=False)
    return int(found.linear_iterations.max())


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
@pytest.mark.parametrize("name", ["open", "enclosed", "solid"])
def test_it_agrees_with_direct(name, cell):
    energy = problem(name, {"triangle": 8, "quadrilateral": 8}.get(cell, 3), cell)
    found, wanted = (solve(energy, method=method) for method in (SaddlePoint(), Direct()))
    torch.testing.assert_close(found.value, wanted.value, rtol=1e-8, atol=1e-9 * float(wanted.value.abs().max()))
    assert int(found.iterations) == 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weak_forms_are_served_whatever_the_sign_of_the_continuity_equation(sign):
    """With their gradients, which are those of the transpose."""
    mesh = distorted(8, cell="triangle")
    X = pair(mesh)
    form, found = WeakForm(X, weak_stokes, Dirichlet(X, {("left", 0): 0.0, ("top", 0): 0.3})), []
    for method in (SaddlePoint(), Direct()):
        viscosity = torch.tensor(1.3, dtype=DOUBLE, requires_grad=True)
        value = solve(form, (viscosity, sign), method=method).value
        found.append((value.detach(), torch.autograd.grad(value.square().sum(), viscosity)[0]))
    scale = float(found[1][0].abs().max())
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-8, atol=1e-9 * scale)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-7, atol=0)


def test_weak_forms_that_are_not_symmetric_are_refused_where_cells_do_not_show_it():
    X = pair(unit_square(8, cell="triangle"))
    out = {"right": lambda x, u, v, normal: u[0][..., 0] * v[0][..., 1]}
    form = WeakForm(X, weak_stokes, Dirichlet(X, {("left", 0): 0.0}), boundary=out)
    with pytest.raises(ValueError, match=r"serves weak forms whose matrix is symmetric.*Use `Direct\(\)`"):
        solve(form, method=SaddlePoint())


@pytest.mark.parametrize("name", ["periodic", "swapped"])
def test_it_agrees_with_direct_with_ties_and_in_any_order_of_the_fields(name):
    energy = problem(name, 8)
    found, wanted = (solve(energy, method=method) for method in (SaddlePoint(), Direct()))
    torch.testing.assert_close(found.value, wanted.value, rtol=1e-8, atol=1e-9 * float(wanted.value.abs().max()))


@pytest.mark.parametrize(
    ("name", "cell", "sizes"),
    [
        ("open", "triangle", (8, 20)),
        ("solid", "triangle", (8, 20)),
        ("enclosed", "quadrilateral", (8, 20)),
        ("open", "tetrahedron", (3, 5)),
        ("enclosed", "hexahedron", (3, 5)),
    ],
)
def test_iterations_hardly_grow_as_cells_shrink(name, cell, sizes):
    coarse, fine = (iterations(problem(name, n, cell)) for n in sizes)
    assert fine <= 1.35 * coarse + 3
    assert fine <= 70


def test_iterations_depend_neither_on_viscosity_nor_on_how_incompressible_a_solid_is():
    energy = problem("open", 12)
    counts = [iterations(energy, nu, nu) for nu in (1e-6, 1.0, 1e6)]
    assert max(counts) <= 1.5 * min(counts)
    energy = problem("solid", 12)
    counts = [iterations(energy, 1.0, compliance) for compliance in (1.0, 1e-3, 1e-9, 0.0)]
    assert max(counts) <= 1.5 * min(counts) + 5


@pytest.mark.parametrize("name", ["open", "enclosed", "solid"])
def test_terms_of_time_steps_cost_little(name):
    """½ ρ |u|² / dt: long waves of the pressure see a Laplacian."""
    energy, density = problem(name, 16), solid if name == "solid" else stokes
    steps = Energy(
        energy.space, lambda x, u, g, rho: density(x, u, g) + 0.5 * rho * u[0].square().sum(-1), energy.constraint
    )
    counts = [iterations(steps, rho) for rho in (0.0, 1.0, 1e2, 1e4, 1e6)]
    assert max(counts) <= 2 * counts[0]


def test_viscosities_that_jump_by_six_orders_of_magnitude_cost_little():
    """The weights of the pressure's mass follow 1/ν."""
    energy = problem("enclosed", 16)
    x = energy.space.mesh.nodes[energy.space.mesh.cells].mean(1)
    nu = torch.where((x - 0.5).norm(dim=-1) < 0.25, 1e6, 1.0).to(DOUBLE)
    assert iterations(energy, energy.space.fields[0].per_cell(nu)) <= 2 * iterations(energy, 1.0)


def test_every_item_of_a_batch_is_solved():
    energy = problem("open", 8)
    nu = torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)
    found, wanted = (solve(energy, (nu,), method=method).value for method in (SaddlePoint(), Direct()))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    one = solve(energy, (0.1,), method=SaddlePoint()).value
    torch.testing.assert_close(found[0], one, rtol=1e-8, atol=1e-9)


def test_an_item_that_is_no_number_leaves_the_others_alone():
    energy = problem("open", 6)
    nu = torch.tensor([1.0, float("nan")], dtype=DOUBLE)
    found = solve(energy, (nu,), method=SaddlePoint(), throw=False)
    assert found.status == (Status.CONVERGED, Status.NOT_FINITE)
    torch.testing.assert_close(found.value[0], solve(energy, (1.0,)).value, rtol=1e-8, atol=1e-9)


def test_single_precision_ends_at_its_own_round_off():
    mesh = unit_square(8, cell="triangle", dtype=torch.float32)
    X = pair(mesh)
    energy = Energy(X, stokes, Dirichlet(X, {("boundary", 0): 0.0}) & MeanZero(X, field=1))
    found, wanted = (solve(energy, method=method).value for method in (SaddlePoint(), Direct()))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_gradients_are_those_of_direct_to_second_order():
    energy = problem("solid", 6)
    found = []
    for method in (SaddlePoint(), Direct()):
        mu = torch.tensor(1.3, dtype=DOUBLE, requires_grad=True)
        loss = solve(energy, (mu, 1e-3), method=method).value.square().sum()
        first = torch.autograd.grad(loss, mu, create_graph=True)[0]
        found.append(torch.stack([first, torch.autograd.grad(first, mu)[0]]))
    torch.testing.assert_close(*found, rtol=1e-8, atol=0)


def test_hierarchies_serve_other_viscosities(monkeypatch):
    import solvers.linear.algebraic_multigrid as multigrid

    made, original = [], multigrid.aggregate
    monkeypatch.setattr(multigrid, "aggregate", lambda *args: made.append(0) or original(*args))
    energy = problem("open", 16)
    V = FunctionSpace(energy.space.mesh, Lagrange(1))
    for amplitude in (0.1, 0.3, 0.5):
        nu = V.function(V.interpolate(lambda x, a=amplitude: 1 + a * torch.sin(5 * x[..., 0])))
        assert solve(energy, (nu,), method=SaddlePoint()).converged
    assert len(made) == 1


def test_large_saddle_points_are_not_factorised_by_default_and_small_ones_are():
    def chosen(energy):
        form = energy.discrete_form(())
        return default_method(form, torch.zeros(energy.space.shape, dtype=DOUBLE), True, False)

    assert isinstance(chosen(problem("open", 3, "tetrahedron")), Direct)
    large = problem("open", 7, "tetrahedron")
    assert isinstance(chosen(large), SaddlePoint)
    assert isinstance(chosen(problem("solid", 60, "quadrilateral")), SaddlePoint)
    elliptic = Energy(large.space, lambda x, u, g: laplace(x, u[1], g[1]) + g[0].square().sum((-2, -1)))
    assert not isinstance(chosen(elliptic), SaddlePoint)


def test_what_has_no_such_structure_is_refused():
    mesh = unit_square(4)
    X = pair(mesh)
    two = Energy(
        X, lambda x, u, g: g[0].square().sum((-2, -1)) + laplace(x, u[1], g[1]) - u[1], Dirichlet(X, {"left": 0.0})
    )
    wrong = Energy(X, lambda x, u, g: stokes(x, u, g) + u[1].square(), Dirichlet(X, {("left", 0): 0.0}))
    flow = WeakForm(
        X, lambda *a: weak_stokes(*a) + (a[2][0][..., 0] * a[3][0]).sum(-1), Dirichlet(X, {("left", 0): 0.0})
    )
    for functional in (two, wrong, flow):
        with pytest.raises(ValueError, match=r"`SaddlePoint\(\)` serves two fields.*Use `Direct\(\)`"):
            solve(functional, method=SaddlePoint())


def test_the_weight_of_the_pressure_is_known_in_closed_form():
    """1/ν for ½ ν |∇u|², 1/(2μ) + 1/λ for μ |ε|² and p²/(2λ)."""
    X = pair(unit_square(3))
    for density, weight in (
        (lambda x, u, g: stokes(x, u, g, 4.0), 0.25),
        (lambda x, u, g: solid(x, u, g, 3.0, 0.5), 1 / 6 + 0.5),
    ):
        energy = Energy(X, density)
        found = SaddlePointStructure.of(System(energy.discrete_form(()), torch.zeros(X.shape, dtype=DOUBLE)))
        assert found is not None
        torch.testing.assert_close(found.weights[0], torch.full((9,), weight, dtype=DOUBLE))


def test_what_gets_stuck_says_so():
    energy = problem("open", 12)
    with pytest.raises(ConvergenceError, match=r"linear iteration got stuck: `Direct\(\)` may"):
        solve(energy, method=SaddlePoint(max_iterations=2))
    free = Energy(energy.space, stokes, Dirichlet(energy.space, {("boundary", 0): 0.0}))
    with pytest.raises(ConvergenceError, match="nothing determines the constants of field 1"):
        solve(free, method=SaddlePoint())


def test_pairs_that_leave_pressures_undetermined_are_singular_and_others_are_not():
    for n in (8, 16):
        mesh = unit_square(n)
        V, Q = FunctionSpace(mesh, Lagrange(1), components=2), FunctionSpace(mesh, Lagrange(1))
        X = MixedSpace(V, Q)  # not stable: checkerboards
        energy = Energy(X, stokes, Dirichlet(X, {("boundary", 0): 0.0}) & MeanZero(X, field=1))
        assert solve(energy, method=SaddlePoint(), throw=False).status is Status.SINGULAR
        Y = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Discontinuous(0)))
        energy = Energy(Y, stokes, Dirichlet(Y, {("boundary", 0): 0.0}) & MeanZero(Y, field=1))
        found, wanted = (solve(energy, method=method).value for method in (SaddlePoint(), Direct()))
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9 * float(wanted.abs().max()))


def test_units_do_not_matter():
    """In pascals and metres the multiplier's equations are a billion times smaller than the others, or larger."""
    energy = problem("solid", 8)
    for mu in (1e-11, 1e11):
        assert solve(energy, (mu, 0.01 / mu), method=SaddlePoint()).converged


def test_settings_are_checked():
    with pytest.raises(ValueError, match="rtol"):
        SaddlePoint(rtol=-1.0)
    with pytest.raises(ValueError, match="max_iterations"):
        SaddlePoint(max_iterations=0)
