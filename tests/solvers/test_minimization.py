"""`minimize` and `solve` on problems with exact solutions, and what they refuse."""

from itertools import pairwise
from math import pi
from typing import Any

import pytest
import torch

from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    box,
    by_cell_tag,
    gradient,
    integrate,
    l2_error,
    unit_cube,
    unit_interval,
    unit_square,
)
from fem.support.arithmetic import sum_of
from solvers import (
    CG,
    LBFGS,
    Adam,
    AlgebraicMultigrid,
    ConvergenceError,
    Direct,
    Multigrid,
    Newton,
    Status,
    minimize,
    solve,
)
from tests.problems import conduction, diffusion, laplace, poisson

CELLS = ["interval", "triangle", "quadrilateral", "tetrahedron", "hexahedron"]
F64: Any = {"dtype": torch.float64}


def distorted(cell, n=2, seed=0, **kwargs):
    """A small grid whose interior nodes are moved, so that no symmetry helps."""
    if cell == "interval":
        mesh = unit_interval(2 * n, **kwargs)
    elif cell in ("triangle", "quadrilateral"):
        mesh = unit_square(n, n + 1, cell=cell, **kwargs)
    else:
        mesh = unit_cube(n, cell=cell, **kwargs)
    torch.manual_seed(seed)
    inside = ((mesh.nodes > 0) & (mesh.nodes < 1)).all(1, keepdim=True)
    return mesh.with_nodes(mesh.nodes + inside * 0.3 / n * (torch.rand_like(mesh.nodes) - 0.5))


def rate(errors):
    return [float(torch.log2(a / b)) for a, b in pairwise(errors)]


# -- the contract ------------------------------------------------------------------------------------------------------


def test_the_contract():
    V = FunctionSpace(unit_square(16, 16), Lagrange(2))

    def load(x):
        return 2 * torch.pi**2 * torch.sin(torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])

    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    kappa = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    solution = minimize(energy, params=(kappa, load))
    u = solution.value
    u.sum().backward()
    # u is proportional to 1/κ.
    torch.testing.assert_close(kappa.grad, -u.detach().sum() / kappa.detach(), rtol=1e-10, atol=0)
    exact = lambda x: torch.sin(torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])  # noqa: E731
    assert float(l2_error(V, u.detach(), exact)) < 4e-5
    assert solution.status is Status.CONVERGED
    assert int(solution.iterations) == 1
    assert float(solution.residual) < 1e-12
    torch.testing.assert_close(solution.energy, energy(u, kappa, load), rtol=1e-14, atol=0)
    assert repr(solution).startswith("Solution(CONVERGED, Newton with Direct(backend=None); value (1089,), iterations")


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_poisson_converges_at_order_degree_plus_one(degree):
    exact = lambda x: torch.sin(pi * x[..., 0]) * torch.exp(x[..., 1])  # noqa: E731
    errors = []
    for n in (4, 8, 16):
        V = FunctionSpace(unit_square(n, cell="triangle"), Lagrange(degree))
        energy = Energy(V, conduction, Dirichlet(V, {"boundary": exact}))
        u = minimize(energy, (1.0, lambda x: (pi**2 - 1) * exact(x))).value
        errors.append(l2_error(V, u, exact))
    assert min(rate(errors)) > degree + 0.85


# -- patch tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("method", [Direct(), CG()], ids=["direct", "cg"])
def test_patch_test(cell, degree, method):
    """−Δu = f with a polynomial u of degree p, its boundary values and its f: the discrete solution is u itself."""
    # On a distorted quadrilateral Qp holds no polynomial in x of degree p > 1: only affine maps keep those.
    mesh = distorted(cell) if degree == 1 or cell in ("interval", "triangle", "tetrahedron") else box_of(cell)
    V = FunctionSpace(mesh, Lagrange(degree))
    a = torch.tensor([0.7, -1.3, 0.4], **F64)[: mesh.dim]

    def exact(x):
        return 1 + (x * a).sum(-1) ** degree

    def load(x):
        factor = degree * (degree - 1) * a.square().sum()
        return -factor * (x * a).sum(-1) ** max(degree - 2, 0)

    energy = Energy(V, conduction, Dirichlet(V, {"boundary": exact}))
    solution = minimize(energy, (1.0, load), method=method)
    torch.testing.assert_close(solution.value, V.interpolate(exact), rtol=0, atol=1e-11)


def box_of(cell):
    return unit_square(3, 2) if cell == "quadrilateral" else unit_cube(2, 3, 1)


@pytest.mark.parametrize("cell", CELLS[1:])
def test_elasticity_patch_test(cell):
    mesh = distorted(cell)
    V = FunctionSpace(mesh, Lagrange(1), components=mesh.dim)
    d = mesh.dim
    torch.manual_seed(3)
    A, b = torch.rand(d, d, **F64), torch.rand(d, **F64)

    def density(x, u, grad_u, mu, lam):
        strain = 0.5 * (grad_u + grad_u.mT)
        return mu * strain.square().sum((-2, -1)) + 0.5 * lam * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()

    exact = V.interpolate(lambda x: x @ A.T + b)
    energy = Energy(V, density, Dirichlet(V, {"boundary": lambda x: x @ A.T + b}))
    torch.testing.assert_close(minimize(energy, (1.3, 0.4)).value, exact, rtol=0, atol=1e-12)

    # The same from tractions σn on one side, and the values of single components on others.
    strain = 0.5 * (A + A.T)
    stress = 2 * 1.3 * strain + 0.4 * strain.trace() * torch.eye(d, **F64)
    pull = {"right": lambda x, u, normal, *params: -((normal @ stress) * u).sum(-1)}
    sides = {side: lambda x: x @ A.T + b for side in ("left", "bottom", "top", "back", "front")[: 2 * d - 1]}
    loaded = Energy(V, density, Dirichlet(V, sides), boundary=pull)
    torch.testing.assert_close(minimize(loaded, (1.3, 0.4)).value, exact, rtol=0, atol=1e-12)


# -- boundary terms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_neumann_robin_and_free_sides(cell):
    """u = x₀² − x₀ with flux 1 at x₀ = 1, ∂u/∂n + 2 (u − g) = 0 at x₀ = 0, and nothing at the other sides."""
    mesh = box_of(cell) if cell in ("quadrilateral", "hexahedron") else distorted(cell)
    V = FunctionSpace(mesh, Lagrange(2))
    exact = V.interpolate(lambda x: x[..., 0] ** 2 - x[..., 0])
    natural = {
        "right": lambda x, u, normal, f, alpha, g: -1.0 * u,
        "left": lambda x, u, normal, f, alpha, g: 0.5 * alpha * (u - g).square(),
    }
    energy = Energy(V, lambda x, u, grad_u, f, *_: laplace(x, u, grad_u) - f * u, boundary=natural)
    # ∂u/∂n = 1 at the left side, so that u − g = −½ there.
    solution = minimize(energy, (-2.0, 2.0, 0.5))
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-11)


def test_normals_point_outward():
    """u = x·a from nothing but its flux a·n on all sides, up to the mean."""
    V = FunctionSpace(distorted("triangle", 3), Lagrange(1))
    a = torch.tensor([2.0, -3.0], **F64)
    flux = {"boundary": lambda x, u, normal: -(normal * a).sum(-1) * u}
    u = minimize(Energy(V, laplace, MeanZero(V), boundary=flux)).value
    exact = V.interpolate(lambda x: ((x - 0.5) * a).sum(-1))
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-12)


def test_two_materials_meet_in_a_kink():
    mesh = unit_interval(8).with_tags(cell_tags={"soft": lambda x: x[..., 0] < 0.5, "stiff": lambda x: x[..., 0] > 0.5})
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": 1.0}))
    u = minimize(energy, (by_cell_tag({"soft": 1.0, "stiff": 4.0}), 0.0)).value
    # The flux κu′ is constant: 0.8 = 1/(½ + ½/4) · ½ … u = 1.6 x up to the middle, 0.8 + 0.4 (x − ½) beyond.
    exact = V.interpolate(lambda x: torch.where(x[..., 0] < 0.5, 1.6 * x[..., 0], 0.8 + 0.4 * (x[..., 0] - 0.5)))
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-13)


def test_vector_constants_and_gradients_are_parameters():
    V = FunctionSpace(distorted("triangle", 3), Lagrange(2))
    psi = V.interpolate(lambda x: x[..., 0] * x[..., 1])
    wind = Constant(torch.tensor([1.0, 2.0], **F64), shape=(2,))
    energy = Energy(
        V, lambda x, u, g, w, h: 0.5 * (g - w - h).square().sum(-1), Dirichlet(V, {"left": lambda x: 2 * x[..., 1]})
    )
    u = minimize(energy, (wind, gradient(V.function(psi)))).value
    exact = V.interpolate(lambda x: x[..., 0] + 2 * x[..., 1] + x[..., 0] * x[..., 1])
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-12)


# -- pure Neumann ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG()], ids=["superlu", "direct", "cg"])
def test_pure_neumann_with_a_vanishing_mean(method):
    errors = []
    exact = lambda x: torch.cos(pi * x[..., 0]) * torch.cos(2 * pi * x[..., 1])  # noqa: E731
    for n in (4, 8, 16):
        V = FunctionSpace(unit_square(n), Lagrange(2))
        energy = Energy(V, conduction, MeanZero(V))
        solution = minimize(energy, (1.0, lambda x: 5 * pi**2 * exact(x)), method=method)
        assert int(solution.iterations) == 1
        assert abs(float(integrate(V, V.function(solution.value)))) < 1e-14
        errors.append(l2_error(V, solution.value, exact))
    assert min(rate(errors)) > 2.8


@pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG()], ids=["superlu", "direct", "cg"])
def test_an_incompatible_load_is_met_up_to_its_mean(method):
    V = FunctionSpace(distorted("quadrilateral", 4), Lagrange(2))
    energy = Energy(V, conduction, MeanZero(V))
    even = minimize(energy, (1.0, lambda x: x[..., 0] - 0.5), method=method)
    uneven = minimize(energy, (1.0, lambda x: x[..., 0] + 7.0), method=method)
    torch.testing.assert_close(uneven.value, even.value, rtol=0, atol=1e-12)
    assert float(uneven.residual) < 1e-12


def test_the_mean_of_a_vector_vanishes_per_component():
    V = FunctionSpace(unit_square(4), Lagrange(1), components=2)
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum((-2, -1)) - (x * u).sum(-1), MeanZero(V))
    u = minimize(energy).value
    torch.testing.assert_close(integrate(V, V.function(u)), torch.zeros(2, **F64), rtol=0, atol=1e-15)
    scalar = FunctionSpace(V.mesh, Lagrange(1))
    single = Energy(scalar, lambda x, u, g: laplace(x, u, g) - x[..., 1] * u, MeanZero(scalar))
    torch.testing.assert_close(u[:, 1], minimize(single).value, rtol=0, atol=1e-14)


# -- saddle points and weak forms --------------------------------------------------------------------------------------


def lagrangian(x, u, grad_u, viscosity):
    """½ μ|∇v|² − p ∇·v."""
    return 0.5 * viscosity * grad_u[0].square().sum((-2, -1)) - u[1] * grad_u[0].diagonal(dim1=-2, dim2=-1).sum(-1)


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
@pytest.mark.parametrize("backend", ["superlu", None])
@pytest.mark.parametrize("viscosity", [1e-3, 1.0, 1e6])
def test_poiseuille_flow_is_exact(cell, backend, viscosity):
    """v = (y (1 − y), 0), p = 2μ (1 − x): quadratic and linear, so Taylor–Hood elements hold it."""
    mesh = distorted("triangle", 3) if cell == "triangle" else unit_square(3, 2)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    profile = lambda x: torch.stack([x[..., 1] * (1 - x[..., 1]), torch.zeros_like(x[..., 0])], -1)  # noqa: E731
    # At the outflow μ ∂v/∂n − p n = 0 holds by itself: ∂v/∂n = 0 and p = 0 there.
    held = Dirichlet(X, {("left", 0): profile, ("top", 0): 0.0, ("bottom", 0): 0.0})
    solution = solve(Energy(X, lagrangian, held), (viscosity,), method=Direct(backend))
    v, p = X.split(solution.value)
    torch.testing.assert_close(v, X.fields[0].interpolate(profile), rtol=0, atol=1e-10)
    pressure = X.fields[1].interpolate(lambda x: 2 * viscosity * (1 - x[..., 0]))
    torch.testing.assert_close(p / viscosity, pressure / viscosity, rtol=0, atol=1e-9)


def test_a_lagrangian_has_no_minimum_and_is_not_for_conjugate_gradients():
    mesh = unit_square(2)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    held = Dirichlet(X, {("left", 0): 1.0, ("top", 0): 0.0, ("bottom", 0): 0.0})
    energy = Energy(X, lagrangian, held)
    assert minimize(energy, (1.0,), throw=False).status is Status.UNBOUNDED
    assert solve(energy, (1.0,), throw=False, method=CG()).status is Status.SINGULAR
    V = FunctionSpace(mesh, Lagrange(2))
    helmholtz = Energy(V, lambda x, u, g: g.square().sum(-1) - 60 * u.square() - u, Dirichlet(V, {"boundary": 0.0}))
    assert solve(helmholtz).converged
    with pytest.raises(ConvergenceError, match=r"conjugate gradients met negative curvature; use `Direct\(\)`"):
        solve(helmholtz, method=CG())


def test_saddle_points_are_factorised_by_default_whatever_their_size():
    V = FunctionSpace(unit_cube(20), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    assert minimize(energy, (1.0, 0.0)).method.startswith("Newton with Multigrid")
    assert solve(energy, (1.0, 0.0)).method.startswith("Newton with Direct")


def layer(x, epsilon):
    """The solution of −ε u″ + u′ = 0, u(0) = 0, u(1) = 1."""
    return torch.expm1(x / epsilon) / torch.expm1(torch.tensor(1 / epsilon, **F64))


def test_advection_and_diffusion_as_a_weak_form():
    epsilon, errors = 0.1, []
    form = lambda x, u, g, v, dv, e: e * (g * dv).sum(-1) + g[..., 0] * v  # noqa: E731
    for n in (8, 16, 32):
        V = FunctionSpace(unit_interval(n), Lagrange(2))
        problem = WeakForm(V, form, Dirichlet(V, {"left": 0.0, "right": 1.0}))
        solution = solve(problem, (epsilon,))
        assert int(solution.iterations) == 1
        assert torch.isnan(solution.energy)
        errors.append(l2_error(V, solution.value, lambda x: layer(x[..., 0], epsilon)))
    assert min(rate(errors)) > 2.7


def test_an_outflow_needs_no_condition():
    """u′ = 1 with u(0) = 0 by its weak form with a boundary term: (u′ − 1, v) + ε(u′, v′) − ε[u′ v] at the outflow."""
    V = FunctionSpace(unit_interval(5), Lagrange(1))
    outflow = {"right": lambda x, u, v, normal, e: -e * v}
    form = lambda x, u, g, v, dv, e: (g[..., 0] - 1) * v + e * (g * dv).sum(-1)  # noqa: E731
    u = solve(WeakForm(V, form, Dirichlet(V, {"left": 0.0}), boundary=outflow), (0.3,)).value
    torch.testing.assert_close(u, V.interpolate(lambda x: x[..., 0]), rtol=0, atol=1e-12)


def test_advection_and_diffusion_as_least_squares():
    """min ½∫ (σ − ε u′)² + (u′ − σ′)² over (u, σ), which vanishes where −ε u″ + u′ = 0."""
    epsilon, errors = 0.2, []

    def density(x, u, grad_u):
        du, flux, divergence = grad_u[0][..., 0], u[1], grad_u[1][..., 0]
        return 0.5 * (flux - epsilon * du).square() + 0.5 * (du - divergence).square()

    for n in (8, 16, 32):
        mesh = unit_interval(n)
        X = MixedSpace(FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(2)))
        energy = Energy(X, density, Dirichlet(X, {("left", 0): 0.0, ("right", 0): 1.0}))
        solution = minimize(energy)
        u, _ = X.split(solution.value)
        errors.append(l2_error(X.fields[0], u, lambda x: layer(x[..., 0], epsilon)))
    assert float(solution.energy.detach()) < 1e-7  # the least-squares residual vanishes with the mesh size
    assert min(rate(errors)) > 2.7


# -- nonlinear problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.5, 3.0, 4.0])
def test_the_p_laplacian_in_one_dimension(p):
    """−(|u′|^{p−2} u′)′ = 1 on (0, 1), u(0) = 0, u′(1) = 0: u = (1 − (1 − x)^q)/q with q = p/(p − 1)."""
    q = p / (p - 1)
    exact = lambda x: (1 - (1 - x[..., 0]).clamp(min=0) ** q) / q  # noqa: E731
    errors = []
    for n in (10, 20, 40):
        V = FunctionSpace(unit_interval(n), Lagrange(1))
        held = Dirichlet(V, {"left": 0.0})
        linear = minimize(Energy(V, poisson, held)).value
        # Where u′ = 0 the curvature is 0 or ∞; 1e−20 moves u by less than 1e−10.
        energy = Energy(V, lambda x, u, g: (g.square().sum(-1) + 1e-20) ** (p / 2) / p - u, held)
        # From above the solution Newton's step overshoots for p < 2, from below for p > 2.
        solution = minimize(energy, initial=0 * linear if p < 2 else linear)
        errors.append(l2_error(V, solution.value, exact))
        assert float(solution.residual) < 1e-12
    assert min(rate(errors)) > min(1.8, q)


def test_scherk_s_minimal_surface():
    """u = log(cos y / cos x) has no mean curvature."""
    exact = lambda x: torch.log(torch.cos(x[..., 1]) / torch.cos(x[..., 0]))  # noqa: E731
    errors = []
    for n in (4, 8, 16):
        V = FunctionSpace(unit_square(n), Lagrange(2))
        energy = Energy(V, lambda x, u, g: (1 + g.square().sum(-1)).sqrt(), Dirichlet(V, {"boundary": exact}))
        solution = minimize(energy)
        assert int(solution.iterations) < 20
        errors.append(l2_error(V, solution.value, exact))
    assert min(rate(errors)) > 2.8


# -- obstacles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG()], ids=["superlu", "direct", "cg"])
def test_a_string_over_a_plane(method):
    """−u″ = −8 on (0, 1) over the obstacle −¼ with u = 0 at the ends: contact on [¼, ¾], where u leaves it smoothly.

    u = 4 (¼ − x)² − ¼ up to the contact; linear elements have the exact values at their nodes.
    """
    V = FunctionSpace(unit_interval(16), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    solution = minimize(energy, (1.0, -8.0), lower=-0.25, method=method)
    u, x = solution.value, V.dof_coordinates[:, 0]
    gap = torch.minimum(x, 1 - x)
    exact = 4 * (0.25 - gap).clamp(min=0) ** 2 - 0.25
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-12)
    assert torch.equal(u == -0.25, (x >= 0.25) & (x <= 0.75))
    r = energy.residual(u, 1.0, -8.0).detach()
    inside = (x > 0.25) & (x < 0.75)
    torch.testing.assert_close(r[inside], torch.full_like(r[inside], 8 / 16), rtol=1e-12, atol=0)
    assert float(r[(x < 0.25) | (x > 0.75)].abs().max()) < 1e-12


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_complementarity_over_a_curved_obstacle(cell):
    V = FunctionSpace(unit_square(12, cell=cell), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    bump = lambda x: 0.3 - 2 * (x - 0.5).square().sum(-1)  # noqa: E731
    obstacle = V.interpolate(bump)
    for lower in (bump, obstacle):
        solution = minimize(energy, (1.0, 0.5), lower=lower)
        u = solution.value
        r = energy.residual(u, 1.0, 0.5).detach()
        contact = u <= obstacle
        assert bool((u >= obstacle).all())
        assert 5 < int(contact.sum()) < len(u) / 2
        assert float(r.min()) > -1e-12
        assert float(r[~contact].abs().max()) < 1e-12
        assert int(solution.iterations) < 20
    # No admissible u has less energy.
    torch.manual_seed(0)
    for _ in range(5):
        other = torch.maximum(u + 0.01 * torch.randn_like(u), obstacle)
        assert float(energy(other, 1.0, 0.5)) > float(solution.energy)


def test_elastic_plastic_torsion_between_two_bounds():
    """|u| ≤ distance to the boundary: both bounds are met for loads of both signs, batched."""
    V = FunctionSpace(unit_square(10), Lagrange(1))
    distance = V.interpolate(lambda x: torch.minimum(x, 1 - x).amin(-1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    load = torch.tensor([-10.0, 0.5, 10.0], **F64)
    solution = minimize(energy, (1.0, load), lower=-distance, upper=distance)
    u = solution.value
    torch.testing.assert_close(u[0], -u[2], rtol=0, atol=1e-13)
    assert bool((u.abs() <= distance).all())
    assert int((u[2] == distance).sum()) > 50  # more than the boundary alone
    torch.testing.assert_close(u[1], minimize(energy, (1.0, 0.5)).value, rtol=0, atol=1e-13)


def test_bounds_of_some_dofs():
    """A bar pulled to the right stops at a wall: the bound of its end alone; of one field of a mixed space."""
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}), boundary={"right": lambda x, u, normal, k, f: -u})
    gap = torch.tensor(0.25, requires_grad=True, **F64)
    u = minimize(energy, (1.0, 0.0), upper={"right": gap}).value
    torch.testing.assert_close(u, 0.25 * V.dof_coordinates[:, 0], rtol=0, atol=1e-15)
    torch.testing.assert_close(torch.autograd.grad(u.sum(), gap)[0], torch.tensor(2.5, **F64))
    assert float(minimize(energy, (1.0, 0.0), upper={"right": 2.0}).value[-1]) == pytest.approx(1.0)
    W = MixedSpace(V, V)

    def both(x, u, grad_u):
        return sum_of(0.5 * g.square().sum(-1) - value for g, value in zip(grad_u, u, strict=True))

    held = Dirichlet(W, {("boundary", 0): 0.0, ("left", 1): 0.0})
    first, second = W.split(minimize(Energy(W, both, held), upper={("right", 1): 0.1}).value)
    assert float(first.max()) == pytest.approx(1 / 8)
    assert float(second[-1]) == 0.1


def test_bounds_may_be_batched():
    V = FunctionSpace(unit_interval(8), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    levels = torch.tensor([-0.02, -0.2], **F64)[:, None].expand(2, *V.shape)
    both = minimize(energy, (1.0, -1.0), lower=levels).value
    for level, u in zip(levels, both, strict=True):
        torch.testing.assert_close(u, minimize(energy, (1.0, -1.0), lower=level).value, rtol=0, atol=1e-14)


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG()], ids=["superlu", "direct", "cg"])
def test_a_batch_equals_single_solutions(method):
    V = FunctionSpace(unit_square(6), Lagrange(2))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": 1.0}))
    torch.manual_seed(0)
    K = FunctionSpace(V.mesh, Lagrange(1))  # positive between its nodes too
    fields = torch.exp(torch.randn(16, *K.shape, **F64))
    batch = minimize(energy, (K.function(fields), 1.0), method=method)
    assert batch.status == (Status.CONVERGED,) * 16
    for i in range(16):
        single = minimize(energy, (K.function(fields[i]), 1.0), method=method)
        torch.testing.assert_close(batch.value[i], single.value, rtol=0, atol=1e-10)
        torch.testing.assert_close(batch.energy[i], single.energy, rtol=1e-10, atol=0)


def test_loads_and_prescribed_values_may_be_batched_and_broadcast():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    torch.manual_seed(0)
    values = torch.rand(2, 1, len(V.dofs("left")), **F64)
    loads = torch.rand(3, *V.shape, **F64)
    held = Dirichlet(V, {"left": values})
    solution = minimize(Energy(V, conduction, held), (2.0, V.function(loads)))
    assert solution.value.shape == (2, 3, *V.shape)
    assert solution.residual.shape == solution.energy.shape == solution.iterations.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            single = Energy(V, conduction, Dirichlet(V, {"left": values[i, 0]}))
            u = minimize(single, (2.0, V.function(loads[j]))).value
            torch.testing.assert_close(solution.value[i, j], u, rtol=0, atol=1e-12)
    assert solution.status == ((Status.CONVERGED,) * 3,) * 2


def test_an_unbatched_problem_broadcasts_against_a_batched_start():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    torch.manual_seed(0)
    solution = minimize(energy, (1.0, 1.0), initial=torch.rand(3, *V.shape, **F64))
    assert solution.value.shape == (3, *V.shape)
    single = minimize(energy, (1.0, 1.0)).value
    torch.testing.assert_close(solution.value, single.expand(3, -1), rtol=0, atol=1e-13)


def test_materials_may_be_batched():
    mesh = unit_interval(4).with_tags(cell_tags={"a": lambda x: x[..., 0] < 0.5, "b": lambda x: x[..., 0] > 0.5})
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": 1.0}))
    stiffness = torch.tensor([1.0, 3.0, 9.0], **F64)
    u = minimize(energy, (by_cell_tag({"a": 1.0, "b": stiffness}), 0.0)).value
    torch.testing.assert_close(u[:, 2], stiffness / (1 + stiffness), rtol=1e-13, atol=0)


# -- precision, starts, throw ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, Direct("superlu"), CG()], ids=["default", "superlu", "cg"])
def test_single_precision_in_and_out(method):
    def solution(dtype):
        V = FunctionSpace(unit_square(16, dtype=dtype), Lagrange(2))
        energy = Energy(V, lambda x, u, g, k: diffusion(x, u, g, k) + u**4 - 30 * u, Dirichlet(V, {"left": 0.5}))
        kappa = torch.tensor(1.5, dtype=dtype, requires_grad=True)
        found = minimize(energy, (kappa,), method=method)
        found.value.sum().backward()
        return found, kappa.grad

    (single, slope), (double, exact_slope) = solution(torch.float32), solution(torch.float64)
    for part in (single.value, single.residual, single.energy, slope):
        assert part.dtype == torch.float32
    assert float(single.residual) < 1e-5
    torch.testing.assert_close(single.value.double(), double.value, rtol=0, atol=3e-5)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-4, atol=0)


def test_methods_by_name_are_newtons():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    for method in (CG(rtol=1e-13), Direct("superlu"), Newton(CG()), Newton(rtol=1e-9)):
        solution = minimize(energy, (1.0, 1.0), method=method)
        assert solution.converged
        assert solution.method.startswith("Newton with ")
    assert solution.method == "Newton with Direct(backend=None)"


def test_initial_chooses_the_well():
    V = FunctionSpace(unit_square(3), Lagrange(1))
    energy = Energy(V, lambda x, u, g: 0.05 * g.square().sum(-1) + (u.square() - 1).square())
    for sign in (-1.0, 1.0):
        start = torch.full(V.shape, 0.5 * sign, **F64)
        u = minimize(energy, initial=start).value
        torch.testing.assert_close(u, torch.full_like(start, sign), rtol=0, atol=1e-13)


def test_without_gradients_there_is_no_graph():
    V = FunctionSpace(unit_square(3), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    kappa = torch.tensor(1.0, requires_grad=True, **F64)
    plain = minimize(energy, (1.0, 1.0))
    assert not plain.value.requires_grad
    assert not plain.energy.requires_grad
    with torch.no_grad():
        assert not minimize(energy, (kappa, 1.0)).value.requires_grad
    assert minimize(energy, (kappa, 1.0)).value.requires_grad
    assert not minimize(energy, (kappa, 1.0)).residual.requires_grad


def test_throw_false_returns_the_unfinished_value():
    V = FunctionSpace(unit_square(3), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: diffusion(x, u, g, k) + u**4 - 20 * u, Dirichlet(V, {"left": 0.0}))
    solution = minimize(energy, (1.0,), method=Newton(max_iterations=1), throw=False)
    assert solution.status is Status.MAX_ITERATIONS
    assert not solution.converged
    assert float(solution.energy) < 0
    resumed = minimize(energy, (1.0,), initial=solution.value)
    torch.testing.assert_close(resumed.value, minimize(energy, (1.0,)).value, rtol=0, atol=1e-12)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    return V, Energy(V, conduction, Dirichlet(V, {"left": 0.0}))


def test_parameters_that_are_not_finite_are_named(small):
    V, energy = small
    field = torch.ones(V.shape, **F64)
    field[4] = float("nan")
    with pytest.raises(ValueError, match=r"parameter 0 is nan at a quadrature point of the density \(index \[0, "):
        minimize(energy, (V.function(field), 1.0))
    with pytest.raises(ValueError, match="parameter 1 is inf"):
        minimize(energy, (1.0, float("inf")))
    with pytest.raises(ValueError, match="parameter 1 is nan"):
        minimize(energy, (1.0, lambda x: (x[..., 0] - 0.3).log()))


SCALES = {torch.float32: (1e-37, 1e-30, 1e-23, 1e20, 1e30), torch.float64: (1e-306, 1e-200, 1e-170, 1e170, 1e300)}
SCALED = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]


@pytest.mark.parametrize(("dtype", "scale"), SCALED)
@pytest.mark.parametrize("method", [Direct(), CG(), Multigrid(), LBFGS()], ids=["direct", "cg", "multigrid", "lbfgs"])
def test_squares_that_under_or_overflow_are_no_convergence(dtype: torch.dtype, scale: float, method: Any) -> None:
    V = FunctionSpace(unit_square(8, dtype=dtype), Lagrange(1))
    held = Dirichlet(V, {"left": 0.0, "right": 1.0})
    solution = minimize(Energy(V, lambda x, u, g: 0.5 * scale * g.square().sum(-1), held), method=method, throw=False)
    exact = V.interpolate(lambda x: x[:, 0])
    assert solution.status is Status.CONVERGED or isinstance(method, LBFGS)
    if solution.status is Status.CONVERGED:
        torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-2 if isinstance(method, LBFGS) else 1e-5)


@pytest.mark.parametrize("method", [Direct(), CG(), Multigrid()], ids=["direct", "cg", "multigrid"])
def test_ten_nanometres_in_metres_and_single_precision(method: Any) -> None:
    units, nano = box((0, 0, 0), (1, 1, 1), (4, 4, 4)), box((0, 0, 0), (1e-8,) * 3, (4, 4, 4), dtype=torch.float32)
    found = []
    for mesh, k, f in ((units, 1.0, 1.0), (nano, 1.036e-10, 1602.0)):
        V = FunctionSpace(mesh, Lagrange(1))
        energy = Energy(
            V, lambda x, u, g, k=k, f=f: 0.5 * k * g.square().sum(-1) - f * u, Dirichlet(V, {"boundary": 0})
        )
        found.append(float(minimize(energy, method=method).value.max()))
    assert found[1] == pytest.approx(found[0] * 1602.0 / 1.036e-10 * 1e-16, rel=1e-4)


@pytest.mark.parametrize("call", [minimize, solve])
def test_an_energy_of_which_nothing_is_left_says_so(call: Any) -> None:
    V = FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(1))
    energy = Energy(V, lambda x, u, g: 1e-44 * g.square().sum(-1), Dirichlet(V, {"left": 0.0, "right": 1.0}))
    assert call(energy, throw=False).status is Status.SINGULAR
    with pytest.raises(ConvergenceError):
        call(energy)


def test_nothing_to_do_is_no_underflow() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    assert int(minimize(Energy(V, laplace, Dirichlet(V, {"left": 0.0}))).iterations) == 0
    cell = FunctionSpace(unit_square(1), Lagrange(1))  # all dofs are prescribed
    assert float(minimize(Energy(cell, laplace, Dirichlet(cell, {"boundary": 2.0}))).value.max()) == 2


BAD = {"nan": float("nan"), "infinite": float("inf"), "singular": 0.0, "unbounded": -1.0}
METHODS = {"direct": Direct(), "cg": CG(), "multigrid": Multigrid(), "amg": AlgebraicMultigrid(), "default": None}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
def test_one_bad_item_of_a_batch_leaves_the_others(bad: str, name: str, cell: str) -> None:
    if cell == "triangle" and name == "multigrid":
        cell = "quadrilateral"
    V = FunctionSpace(unit_square(6, cell=cell), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    kappa = torch.tensor([1.0, BAD[bad], 3.0], **F64)
    with pytest.raises(ConvergenceError, match="1 of 3 batch items") as raised:
        minimize(energy, (kappa, 1.0), method=METHODS[name])
    solution = raised.value.solution
    assert [s is Status.CONVERGED for s in solution.status] == [True, False, True]
    if bad in ("nan", "infinite"):
        assert solution.status[1] is Status.NOT_FINITE
        assert "parameter 0 is" in str(raised.value)
    for i in (0, 2):
        alone = minimize(energy, (kappa[i], 1.0))
        torch.testing.assert_close(solution.value[i], alone.value)


def test_good_items_differentiate_beside_a_bad_one() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    kappa = torch.tensor([1.0, float("nan"), 3.0], **F64, requires_grad=True)
    values = minimize(energy, (kappa, 1.0), throw=False).value
    (found,) = torch.autograd.grad(values[[0, 2]].sum(), kappa)
    for i in (0, 2):
        alone = kappa[i].detach().requires_grad_()
        (expected,) = torch.autograd.grad(minimize(energy, (alone, 1.0)).value.sum(), alone)
        torch.testing.assert_close(found[i], expected)


def test_items_with_bad_fields_and_loads_are_named(small: Any) -> None:
    V, energy = small
    fields = torch.ones(3, *V.shape, **F64)
    fields[2, 4] = float("nan")
    for params in ((V.function(fields), 1.0), (1.0, V.function(fields))):
        statuses = minimize(energy, params, throw=False).status
        assert [s.name for s in statuses] == ["CONVERGED", "CONVERGED", "NOT_FINITE"]
    with pytest.raises(ValueError, match="parameter 0 is nan"):
        minimize(energy, (V.function(fields[2:]), 1.0))


def test_an_item_that_does_not_converge_leaves_the_others() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(
        V,
        lambda x, u, g, a: 0.5 * g.square().sum(-1) + a * u.exp() - u,
        Dirichlet(V, {"boundary": 0.0}),
    )
    a = torch.tensor([1.0, 1e300, -5000.0, 0.5], **F64)
    solution = minimize(energy, (a,), throw=False)
    for i in (0, 3):
        assert solution.status[i] is Status.CONVERGED
        torch.testing.assert_close(solution.value[i], minimize(energy, (a[i],)).value)
    assert solution.status[2] is not Status.CONVERGED


def test_a_wrong_start_is_named(small):
    _, energy = small
    with pytest.raises(
        ValueError, match=r"`initial` must have the trailing shape \(9,\) of the space's dofs; got \(8,\)"
    ):
        minimize(energy, (1.0, 1.0), initial=torch.zeros(8, **F64))
    with pytest.raises(ValueError, match="`initial` holds values that are not finite"):
        minimize(energy, (1.0, 1.0), initial=torch.full((9,), float("nan"), **F64))
    with pytest.raises(TypeError, match="float32"):
        minimize(energy, (1.0, 1.0), initial=torch.zeros(9))


def test_precisions_do_not_mix(small):
    _, energy = small
    with pytest.raises(TypeError, match=r"parameter 0 is torch.float32 but the space is torch.float64"):
        minimize(energy, (torch.tensor(1.0), 1.0))
    with pytest.raises(TypeError, match=r"parameter 1 is torch.float32"):
        minimize(energy, (1.0, lambda x: x[..., 0].float()))
    with pytest.raises(TypeError, match=r"float32"):
        minimize(energy, (1.0, 1.0), lower=torch.zeros(9))


def test_entry_points_take_what_they_are_for(small):
    V, energy = small
    form = WeakForm(V, lambda x, u, g, v, dv: u * v)
    wrong = (TypeError,)
    try:
        from beartype.roar import BeartypeCallHintParamViolation

        wrong = (TypeError, BeartypeCallHintParamViolation)  # the tests execute annotations first
    except ImportError:
        pass
    with pytest.raises(wrong):
        minimize(form)  # pyright: ignore[reportArgumentType]
    with pytest.raises(wrong):
        solve(lambda u: u)  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, *wrong)):
        solve(energy, (1.0, 1.0), method=LBFGS())  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, *wrong)):
        solve(energy, (1.0, 1.0), method=Adam())  # pyright: ignore[reportArgumentType]


def test_bounds_that_leave_nothing_are_refused(small):
    V, energy = small
    with pytest.raises(ValueError, match="`lower` exceeds `upper`"):
        minimize(energy, (1.0, 1.0), lower=1.0, upper=0.0)
    with pytest.raises(ValueError, match=r"`upper` must have the trailing shape \(9,\)"):
        minimize(energy, (1.0, 1.0), upper=torch.zeros(4, **F64))
    free = Energy(V, conduction, MeanZero(V))
    with pytest.raises(ValueError, match="do not go with `MeanZero`"):
        minimize(free, (1.0, 1.0), lower=0.0)


def test_a_density_that_hides_a_tensor_is_told_the_remedy(small):
    V, _ = small
    kappa = torch.tensor(2.0, requires_grad=True, **F64)
    hidden = Energy(V, lambda x, u, g: diffusion(x, u, g, kappa) - u, Dirichlet(V, {"left": 0.0}))
    with pytest.raises(
        ValueError, match=r"the density captures a tensor that requires a gradient.*Pass it in `params`"
    ):
        minimize(hidden)
    edge = Energy(V, conduction, boundary={"right": lambda x, u, normal, *params: kappa * u.square()})
    with pytest.raises(ValueError, match=r"the boundary density on 'right' captures"):
        minimize(edge, (1.0, 1.0))
    with torch.no_grad():
        torch.testing.assert_close(minimize(hidden).value, minimize(small[1], (2.0, 1.0)).value)


def test_an_energy_without_lower_bound(small):
    V, _ = small
    with pytest.raises(ConvergenceError, match="the energy has no lower bound"):
        minimize(Energy(V, lambda x, u, g: -g.square().sum(-1) + u, Dirichlet(V, {"left": 0.0})))


@pytest.mark.parametrize("n", [3, 48])
def test_in_inference_mode_derivatives_are_what_they_are_outside(n):
    """On grids and where integrals gather; nothing kept from there spoils later derivatives."""
    V = FunctionSpace(unit_square(n), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: diffusion(x, u, g, k) + u**4 - u, Dirichlet(V, {"boundary": 0.0}))
    with torch.inference_mode():
        k = torch.tensor(2.0, dtype=V.dtype)
        found = minimize(energy, (k,)).value
        residual, product = energy.residual(found + 1, k), energy.hessian_product(found, found, k)
    k = torch.tensor(2.0, dtype=V.dtype, requires_grad=True)
    u = minimize(energy, (k,)).value
    torch.testing.assert_close(found, u.detach())
    torch.testing.assert_close(residual, energy.residual(u + 1, k).detach())
    torch.testing.assert_close(product, energy.hessian_product(u, u, k).detach())
    (slope,) = torch.autograd.grad(u.sum(), k)
    assert slope < 0
