"""Linear systems: every method against dense algebra, inertia and singularity against the spectrum, and limits."""

import sys

import pytest
import torch

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    unit_cube,
    unit_interval,
    unit_square,
)
from solvers.direct import Direct
from solvers.linear import CG, default_linear
from solvers.system import System

BACKENDS = ["superlu", "pardiso"]


@pytest.fixture(autouse=True)
def needs_pardiso(request):
    if "pardiso" in request.node.name:
        pytest.importorskip("pypardiso")


def laplace(x, u, grad_u, *params):
    return 0.5 * grad_u.square().sum(-1)


def elasticity(x, u, grad_u, mu=0.7):
    strain = 0.5 * (grad_u + grad_u.mT)
    return mu * strain.square().sum((-2, -1)) + 0.4 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()


def advection(x, u, grad_u, v, grad_v):
    return (grad_u * grad_v).sum(-1) + 20 * grad_u[..., 0] * v + u * grad_u[..., 1] * v


def stokes(x, u, grad_u, viscosity=1.0):
    return 0.5 * viscosity * grad_u[0].square().sum((-2, -1)) - u[1] * grad_u[0].diagonal(dim1=-2, dim2=-1).sum(-1)


def taylor_hood(mesh):
    return MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))


def distorted(n, **kwargs):
    torch.manual_seed(0)
    mesh = unit_square(n, **kwargs)
    return mesh.with_nodes(mesh.nodes + 0.2 / n * (torch.rand_like(mesh.nodes) - 0.5))


def problem(name, n=4):
    """A functional and parameters for it; its constraint leaves a nonsingular matrix."""
    mesh = distorted(n)
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1), components=2)
    if name == "scalar":
        return Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) + u**4, Dirichlet(V, {"left": 1.0})), (2.0,)
    if name == "robin":
        robin = {"right": lambda x, u, normal, k: 0.5 * k * (u - 1).square() * (1 + x[..., 1])}
        return Energy(V, laplace, boundary=robin), (3.0,)
    if name == "vector":
        return Energy(W, elasticity, Dirichlet(W, {("left", 0): 0.0, ("bottom", 1): 0.1})), ()
    if name == "batch":
        field = torch.rand(3, *V.shape, dtype=torch.float64) + 0.5
        energy = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1), Dirichlet(V, {"boundary": 0.0}))
        return energy, (V.function(field),)
    if name == "mixed":
        X = taylor_hood(mesh)
        return Energy(X, stokes, Dirichlet(X, {("left", 0): 0.0, ("top", 0): 0.0, ("bottom", 0): 0.0})), ()
    if name == "weak":
        return WeakForm(V, advection, Dirichlet(V, {"left": 0.0, "right": 1.0})), ()
    assert name == "mean zero"
    return Energy(V, laplace, MeanZero(V)), ()


def system_of(name, n=4):
    functional, params = problem(name, n)
    lowered = functional.lower(params)
    torch.manual_seed(1)
    u = torch.rand(*lowered.batch, *functional.space.shape, dtype=torch.float64)
    return System(lowered, u, symmetric=isinstance(functional, Energy)), functional, params, u


def dense(functional, u, params):
    """The Hessian as a dense matrix "*b N N", column by column from products: assembly has no part in it."""
    space = functional.space
    lead = u.ndim - len(space.shape)
    eye = torch.eye(space.num_dofs, dtype=torch.float64).unflatten(-1, space.shape)
    with torch.no_grad():
        columns = functional.hessian_product(u, eye.reshape(-1, *[1] * lead, *space.shape), *params)
    return columns.flatten(1 + lead).movedim(0, -1)


@pytest.mark.parametrize("name", ["scalar", "robin", "vector", "batch", "mixed", "weak"])
def test_apply_and_diagonal_are_those_of_the_matrix(name):
    system, functional, params, u = system_of(name)
    H = dense(functional, u, params)
    v = torch.rand_like(u)
    lead = len(system.batch)
    expected = (H @ v.flatten(lead)[..., None])[..., 0]
    torch.testing.assert_close(system.apply(v).flatten(lead), expected, rtol=1e-12, atol=1e-12)
    free = torch.ones(u.shape[lead:], dtype=torch.bool) if system.fixed is None else ~system.fixed
    diagonal = H.diagonal(dim1=-2, dim2=-1).unflatten(-1, u.shape[lead:])
    ones = torch.ones_like(diagonal)
    torch.testing.assert_close(system.diagonal, torch.where(free, diagonal, ones), rtol=1e-12, atol=1e-12)
    assembled = functional.hessian(u, *params)
    parts = [assembled] if not system.batch else [assembled[i] for i in range(len(u))]
    whole = torch.stack([part.to_dense() for part in parts]).reshape(H.shape)
    torch.testing.assert_close(whole, H + torch.diag((~free).flatten().double()), rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transpose", [False, True])
def test_direct_solves_with_a_nonsymmetric_matrix_and_its_transpose(backend, transpose):
    system, functional, params, u = system_of("weak")
    H = dense(functional, u, params) + torch.diag(system.fixed.double())
    assert (H - H.mT).norm() > 0.1 * H.norm()
    rhs = torch.randn_like(u).masked_fill(system.fixed, 0)
    found = Direct(backend).prepare(system).solve(rhs, transpose=transpose)
    torch.testing.assert_close(found, torch.linalg.solve(H.mT if transpose else H, rhs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [4, 12])
@pytest.mark.parametrize("viscosity", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
def test_direct_solves_saddle_point_problems_in_any_units(backend, n, viscosity, cell):
    X = taylor_hood(unit_square(n, cell=cell))
    walls = Dirichlet(X, {("left", 0): 0.0, ("top", 0): 0.0, ("bottom", 0): 0.0})
    system = System(Energy(X, stokes, walls).lower((viscosity,)), torch.zeros(X.shape, dtype=torch.float64))
    prepared = Direct(backend).prepare(system)
    torch.manual_seed(0)
    velocity, pressure = X.split(system.project(torch.randn(X.shape, dtype=torch.float64)))
    forces = system.apply(X.join([velocity, viscosity * pressure]))
    found = X.split(prepared.solve(forces))
    torch.testing.assert_close(found[0], velocity, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1] / viscosity, pressure, rtol=1e-9, atol=1e-9)
    assert bool(prepared.indefinite)
    assert not bool(prepared.singular)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mean_border_solves_in_the_space_of_mean_zero(backend):
    system, _, _, u = system_of("mean zero")
    rhs = torch.randn_like(u)
    prepared = Direct(backend).prepare(system)
    found = prepared.solve(rhs)
    assert abs(float(found @ system.lowered.data)) < 1e-13 * float(found.abs().max())
    torch.testing.assert_close(system.apply(found), system.project(rhs), rtol=1e-10, atol=1e-12)
    assert not bool(prepared.singular | prepared.indefinite)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("constraint", ["dirichlet", "mean zero"])
@pytest.mark.parametrize("reaction", [0.0, 8.0, 15.0, 40.0, 300.0])
def test_inertia_is_that_of_the_spectrum(backend, constraint, reaction):
    V = FunctionSpace(unit_square(3, 4), Lagrange(2))
    held = Dirichlet(V, {"boundary": 0.0}) if constraint == "dirichlet" else MeanZero(V)
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - 0.5 * reaction * u.square(), held)
    u = torch.zeros(V.shape, dtype=torch.float64)
    prepared = Direct(backend).prepare(System(energy.lower(()), u))
    assert bool(prepared.indefinite) == bool((torch.linalg.eigvalsh(dense(energy, u, ())) < -1e-10).any())
    # ½|∇u|² − ½ r u² turns indefinite at r = 2π² with Dirichlet sides, at π² with a vanishing mean alone.
    assert bool(prepared.indefinite) == (reaction > (2 if constraint == "dirichlet" else 1) * torch.pi**2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [3, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_singular_matrices_are_told(backend, n, dtype):
    mesh = distorted(n, dtype=dtype)
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1), components=2)
    constants = System(Energy(V, laplace).lower(()), torch.zeros(V.shape, dtype=dtype))
    assert bool(Direct(backend).prepare(constants).singular)
    corner = torch.zeros(W.shape, dtype=torch.bool)
    corner[0] = True  # one node held: the body still turns about it
    lowered, zero = Energy(W, elasticity).lower(()), torch.zeros(W.shape, dtype=dtype)
    assert bool(Direct(backend).prepare(System(lowered, zero, corner)).singular)
    held = corner.clone()
    held[1, 1] = True
    assert not bool(Direct(backend).prepare(System(lowered, zero, held)).singular)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_matrices_with_empty_rows_are_singular(backend, symmetric):
    V = FunctionSpace(unit_square(4), Lagrange(1))

    def half(x):
        return torch.where(x[..., 0] > 0.5, 1.0, 0.0)

    if symmetric:
        functional = Energy(V, lambda x, u, grad_u: half(x) * (u.square() + grad_u.square().sum(-1)))
    else:
        functional = WeakForm(V, lambda x, u, grad_u, v, grad_v: half(x) * (u * v + (grad_u * grad_v).sum(-1)))
    system = System(functional.lower(()), torch.zeros(V.shape, dtype=torch.float64), symmetric=symmetric)
    assert bool(Direct(backend).prepare(system).singular)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kappa", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("contrast", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_units_and_contrast_are_not_taken_for_singularity(backend, kappa, contrast, dtype):
    if dtype == torch.float32:
        contrast = contrast**0.375  # the same share of the digits
    V = FunctionSpace(unit_square(16, dtype=dtype), Lagrange(2))

    def density(x, u, grad_u):
        inside = ((x - 0.5).abs() < 0.25).all(-1)
        return 0.5 * kappa * torch.where(inside, contrast, 1.0) * grad_u.square().sum(-1)

    energy = Energy(V, density, Dirichlet(V, {"left": 0.0}))
    prepared = Direct(backend).prepare(System(energy.lower(()), torch.zeros(V.shape, dtype=dtype)))
    assert not bool(prepared.singular | prepared.indefinite)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_meshes_and_weak_supports_are_not_taken_for_singularity(backend):
    V = FunctionSpace(unit_interval(5000), Lagrange(2))
    line = Energy(V, laplace, Dirichlet(V, {"left": 0.0}))
    assert not bool(Direct(backend).prepare(System(line.lower(()), torch.zeros(V.shape, dtype=V.dtype))).singular)
    Q = FunctionSpace(unit_square(30), Lagrange(1))
    weak = Energy(Q, lambda x, u, g: 0.5 * g.square().sum(-1) + 1e-8 * u.square())
    system = System(weak.lower(()), torch.zeros(Q.shape, dtype=Q.dtype))
    assert not bool(Direct(backend).prepare(system).singular)


def test_unconstrained_directions_are_named_per_item_however_weak_what_holds_them():
    V = FunctionSpace(unit_square(3), Lagrange(1))
    reaction = torch.tensor([0.0, 1e-150], dtype=torch.float64)
    energy = Energy(V, lambda x, u, g, r: 0.5 * g.square().sum(-1) + r * u.square())
    ((name, free),) = System(
        energy.lower((reaction,)), torch.zeros(2, *V.shape, dtype=V.dtype)
    ).unconstrained_directions()
    assert name == "constants of u"
    assert free.tolist() == [True, False]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({("left", 0, 0): 0.0}, [False, True, False]),
        ({("left", 0): 0.0}, [False, False, False]),
        ({("boundary", 0): 0.0}, [False, False, True]),  # an enclosed flow does not know its pressure
    ],
)
def test_unconstrained_directions_of_a_flow(held, expected):
    X = taylor_hood(distorted(4))
    energy = Energy(X, stokes, Dirichlet(X, held))
    found = System(energy.lower(()), torch.zeros(X.shape, dtype=X.dtype)).unconstrained_directions()
    assert [name for name, _ in found] == ["component 0 of field 0", "component 1 of field 0", "constants of field 1"]
    assert [bool(free) for _, free in found] == expected


@pytest.mark.parametrize("method", [Direct("superlu"), Direct("pardiso"), CG()], ids=["superlu", "pardiso", "cg"])
def test_a_system_without_free_dofs_has_the_solution_zero(method):
    V = FunctionSpace(unit_interval(1), Lagrange(1))
    energy = Energy(V, laplace, Dirichlet(V, {"boundary": 1.0}))
    prepared = method.prepare(System(energy.lower(()), torch.zeros(V.shape, dtype=V.dtype)))
    assert prepared.solve(torch.ones(V.shape, dtype=V.dtype)).tolist() == [0.0, 0.0]
    assert not bool(prepared.singular | prepared.indefinite)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_may_hold_different_dofs_fixed(backend):
    system, _, _, u = system_of("batch")
    torch.manual_seed(2)
    held = System(system.lowered, u, system.fixed | (torch.rand(u.shape) < 0.3))
    rhs = torch.randn_like(u)
    found = Direct(backend).prepare(held).solve(rhs)
    assert float(found[held.fixed].abs().max()) == 0.0
    torch.testing.assert_close(held.apply(found), rhs.masked_fill(held.fixed, 0), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_item_that_is_not_finite_leaves_the_others_alone(backend):
    system, functional, params, u = system_of("batch")
    values = params[0].values.clone()
    values[1] = float("nan")
    spoilt = System(functional.lower((functional.space.function(values),)), u)
    assert spoilt.finite.tolist() == [True, False, True]
    prepared = Direct(backend).prepare(spoilt)
    assert prepared.singular.tolist() == [False, True, False]
    rhs = torch.randn_like(u)
    expected = Direct(backend).prepare(system).solve(rhs)
    torch.testing.assert_close(prepared.solve(rhs)[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-14)


def test_same_matrix_is_true_between_states_of_a_quadratic_energy_only():
    system, _, _, u = system_of("batch")
    assert system.same_matrix(System(system.lowered, 2 * u))
    assert not system.same_matrix(System(system.lowered, u, system.fixed | (u > 0.5)))
    system, _, _, u = system_of("scalar")
    assert not system.same_matrix(System(system.lowered, 2 * u))


# -- conjugate gradients -----------------------------------------------------------------------------------------------


def test_cg_flags_negative_curvature_and_hands_back_that_direction():
    V = FunctionSpace(unit_square(6), Lagrange(1))
    density = lambda x, u, g, r: 0.5 * g.square().sum(-1) - 0.5 * r * u.square()  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    reaction = torch.tensor([0.0, 100.0, 1e6], dtype=torch.float64)  # definite, indefinite, negative on the diagonal
    system = System(energy.lower((reaction,)), torch.zeros(3, *V.shape, dtype=V.dtype))
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


# -- choices -----------------------------------------------------------------------------------------------------------


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"`Direct\(backend=\.\.\.\)` must be .*; got 'mumps'"):
        Direct("mumps")


def test_without_pypardiso_superlu_serves_and_the_other_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypardiso", None)
    system, *_ = system_of("scalar")
    assert "SuperLU" in type(Direct().prepare(system).factors[0]).__name__
    with pytest.raises(ImportError, match=r"needs pypardiso: pip install"):
        Direct("pardiso").prepare(system)


def test_direct_is_the_default_but_for_large_three_dimensional_energies():
    small, large = (FunctionSpace(unit_cube(n), Lagrange(1)) for n in (4, 20))
    assert isinstance(default_linear(small, True), Direct)
    assert isinstance(default_linear(large, True), CG)
    assert isinstance(default_linear(large, False), Direct)
