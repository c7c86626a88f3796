"""Direct methods against dense algebra, inertia and singularity against the spectrum, in any units."""

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
    gradient,
    integrate,
    unit_interval,
    unit_square,
)
from solvers import CG, AlgebraicMultigrid, ConvergenceError, FastDiagonalization, Multigrid, Reuse, minimize, solve
from solvers.linear import direct
from solvers.linear.direct import Direct, pardiso_is_there
from solvers.operators.system import System
from tests.problems import laplace
from tests.solvers.systems import dense, distorted, elasticity, stokes, system_of, taylor_hood

BACKENDS = ["superlu", "pardiso"]


@pytest.fixture(autouse=True)
def needs_pardiso(request):
    if "pardiso" in request.node.name:
        pytest.importorskip("pypardiso")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transpose", [False, True])
def test_direct_solves_with_a_nonsymmetric_matrix_and_its_transpose(backend, transpose):
    system, functional, params, u = system_of("weak")
    H = dense(functional, u, params) + torch.diag(system.fixed.double())
    assert (H - H.mT).norm() > 0.1 * H.norm()
    assert system.fixed is not None
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
    system = System(Energy(X, stokes, walls).discrete_form((viscosity,)), torch.zeros(X.shape, dtype=torch.float64))
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
    assert system.form.data is not None
    assert abs(float(found @ system.form.data)) < 1e-13 * float(found.abs().max())
    torch.testing.assert_close(system.apply(found), system.project(rhs), rtol=1e-10, atol=1e-12)
    assert not bool(prepared.singular | prepared.indefinite)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("constraint", ["dirichlet", "mean zero"])
@pytest.mark.parametrize("reaction", [0.0, 8.0, 15.0, 40.0, 300.0])
def test_inertia_is_that_of_the_spectrum(backend, constraint, reaction):
    V = FunctionSpace(unit_square(3, 4), Lagrange(2))
    held = Dirichlet(V, {"boundary": 0.0}) if constraint == "dirichlet" else MeanZero(V)
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) - 0.5 * reaction * u.square(), held)
    u = torch.zeros(V.shape, dtype=torch.float64)
    prepared = Direct(backend).prepare(System(energy.discrete_form(()), u))
    assert bool(prepared.indefinite) == bool((torch.linalg.eigvalsh(dense(energy, u, ())) < -1e-10).any())
    # ½|∇u|² − ½ r u² turns indefinite at r = 2π² with Dirichlet sides, at π² with a vanishing mean alone.
    assert bool(prepared.indefinite) == (reaction > (2 if constraint == "dirichlet" else 1) * torch.pi**2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [3, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_singular_matrices_are_told(backend, n, dtype):
    mesh = distorted(n, dtype=dtype)
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1), components=2)
    constants = System(Energy(V, laplace).discrete_form(()), torch.zeros(V.shape, dtype=dtype))
    assert bool(Direct(backend).prepare(constants).singular)
    corner = torch.zeros(W.shape, dtype=torch.bool)
    corner[0] = True  # one node held: the body still turns about it
    form, zero = Energy(W, elasticity).discrete_form(()), torch.zeros(W.shape, dtype=dtype)
    assert bool(Direct(backend).prepare(System(form, zero, corner)).singular)
    held = corner.clone()
    held[1, 1] = True
    assert not bool(Direct(backend).prepare(System(form, zero, held)).singular)


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
    system = System(functional.discrete_form(()), torch.zeros(V.shape, dtype=torch.float64), symmetric=symmetric)
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
    prepared = Direct(backend).prepare(System(energy.discrete_form(()), torch.zeros(V.shape, dtype=dtype)))
    assert not bool(prepared.singular | prepared.indefinite)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_meshes_and_weak_supports_are_not_taken_for_singularity(backend):
    V = FunctionSpace(unit_interval(5000), Lagrange(2))
    line = Energy(V, laplace, Dirichlet(V, {"left": 0.0}))
    assert not bool(
        Direct(backend).prepare(System(line.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype))).singular
    )
    Q = FunctionSpace(unit_square(30), Lagrange(1))
    weak = Energy(Q, lambda x, u, g: laplace(x, u, g) + 1e-8 * u.square())
    system = System(weak.discrete_form(()), torch.zeros(Q.shape, dtype=Q.dtype))
    assert not bool(Direct(backend).prepare(system).singular)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_may_hold_different_dofs_fixed(backend):
    system, _, _, u = system_of("batch")
    torch.manual_seed(2)
    held = System(system.form, u, system.fixed | (torch.rand(u.shape) < 0.3))
    rhs = torch.randn_like(u)
    found = Direct(backend).prepare(held).solve(rhs)
    assert held.fixed is not None
    assert float(found[held.fixed].abs().max()) == 0.0
    torch.testing.assert_close(held.apply(found), rhs.masked_fill(held.fixed, 0), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_item_that_is_not_finite_leaves_the_others_alone(backend):
    system, functional, params, u = system_of("batch")
    values = params[0].values.clone()
    values[1] = float("nan")
    spoilt = System(functional.discrete_form((functional.space.function(values),)), u)
    assert spoilt.finite.tolist() == [True, False, True]
    prepared = Direct(backend).prepare(spoilt)
    assert prepared.singular.tolist() == [False, True, False]
    rhs = torch.randn_like(u)
    expected = Direct(backend).prepare(system).solve(rhs)
    torch.testing.assert_close(prepared.solve(rhs)[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-14)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"`Direct\(backend=\.\.\.\)` must be .*; got 'mumps'"):
        Direct("mumps")


def test_without_pypardiso_superlu_serves_and_the_other_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypardiso", None)
    pardiso_is_there.cache_clear()
    system, *_ = system_of("scalar")
    assert "SuperLU" in type(Direct().prepare(system).factors[0]).__name__
    with pytest.raises(ImportError, match=r"needs pypardiso: pip install"):
        Direct("pardiso").prepare(system)
    pardiso_is_there.cache_clear()


@pytest.mark.parametrize("penalty", [0.0, 1e-6])
@pytest.mark.parametrize("problem", ["stokes", "mixed poisson"])
def test_saddle_points_are_factorised_once_and_like_their_weak_forms(monkeypatch, penalty, problem):
    made = []
    monkeypatch.setattr(direct, "lu", lambda *a, _lu=direct.lu, **options: made.append(_lu(*a, **options)) or made[-1])
    mesh = unit_square(8)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))

    def part(v, grad_v, w, grad_w):
        return (grad_v * grad_w).sum((-2, -1)) if problem == "stokes" else (v * w).sum(-1)

    def divergence(grad_v):
        return grad_v.diagonal(dim1=-2, dim2=-1).sum(-1)

    def density(x, u, g):
        return 0.5 * part(u[0], g[0], u[0], g[0]) - u[1] * divergence(g[0]) - 0.5 * penalty * u[1].square()

    def form(x, u, g, v, h):
        flow = part(u[0], g[0], v[0], h[0])
        return flow - u[1] * divergence(h[0]) - v[1] * divergence(g[0]) - penalty * u[1] * v[1]

    held = Dirichlet(X, {(side, 0): 0.0 for side in ("left", "top", "bottom")})
    zero, rhs = torch.zeros(X.shape, dtype=torch.float64), torch.randn(X.shape, dtype=torch.float64)
    prepared = [
        Direct("superlu").prepare(System(f.discrete_form(()), zero, symmetric=symmetric))
        for f, symmetric in ((Energy(X, density, held), True), (WeakForm(X, form, held), False))
    ]
    assert len(made) == 2
    assert made[0].nnz <= 1.1 * made[1].nnz
    assert bool(prepared[0].indefinite)
    found, expected = (p.solve(rhs) for p in prepared)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", [Energy, WeakForm])
def test_an_enclosed_flow_is_the_one_with_a_pressure_of_mean_zero(kind):
    """The load (1, 1) is ∇p of p = x + y − 1, and nothing flows."""
    X = taylor_hood(unit_square(6))

    def divergence(g):
        return g.diagonal(dim1=-2, dim2=-1).sum(-1)

    def density(x, u, g):
        return 0.5 * g[0].square().sum((-2, -1)) - u[1] * divergence(g[0]) - u[0].sum(-1)

    def form(x, u, g, v, h):
        return (g[0] * h[0]).sum((-2, -1)) - u[1] * divergence(h[0]) - v[1] * divergence(g[0]) - v[0].sum(-1)

    walls = Dirichlet(X, {("boundary", 0): 0.0})
    problem = kind(X, density if kind is Energy else form, walls & MeanZero(X, field=1))
    velocity, pressure = X.split(solve(problem).value)
    assert float(velocity.abs().max()) < 1e-12
    torch.testing.assert_close(pressure, X.fields[1].interpolate(lambda x: x.sum(-1) - 1), rtol=0, atol=1e-11)
    with pytest.raises(
        ConvergenceError, match=r"`Dirichlet\(W, \.\.\.\) & MeanZero\(W, field=1\)`.*constants of field 1"
    ):
        solve(kind(X, density if kind is Energy else form, walls))


def test_the_adjoint_of_an_enclosed_flow():
    X = taylor_hood(unit_square(2))
    walls = Dirichlet(X, {("boundary", 0): 0.0})

    def density(x, u, g, viscosity, f):
        flow = 0.5 * viscosity * g[0].square().sum((-2, -1))
        return flow - u[1] * g[0].diagonal(dim1=-2, dim2=-1).sum(-1) - f * x[..., 1] * u[0][..., 0]

    energy = Energy(X, density, walls & MeanZero(X, field=1))
    viscosity, f = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0))
    assert torch.autograd.gradcheck(lambda *params: solve(energy, params).value, (viscosity, f))


def test_a_free_body_is_held_by_weak_springs_as_the_message_says():
    """Pulled by ±1 at its sides, its strain is σ = 2ε + tr ε for σ = diag(1, 0): ε = diag(3/8, −1/8)."""
    V = FunctionSpace(unit_square(4, cell="triangle"), Lagrange(2), components=2)

    def density(x, u, g, spring):
        strain = 0.5 * (g + g.mT)
        trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
        return strain.square().sum((-2, -1)) + 0.5 * trace.square() + spring * u.square().sum(-1)

    pull = {"left": lambda x, u, n, s: u[..., 0], "right": lambda x, u, n, s: -u[..., 0]}
    energy = Energy(V, density, boundary=pull)
    with pytest.raises(ConvergenceError, match=r"weak springs, `\+ 1e-6 \* stiffness \* u\.square\(\)\.sum\(-1\)`"):
        minimize(energy, params=(0.0,))
    found = integrate(V, gradient(V.function(minimize(energy, params=(1e-6,)).value)))
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.375, -0.125], dtype=V.dtype)), rtol=0, atol=1e-6)


class EvenOnly:
    """u(x) = u(1 − x) on an interval: a projection that prescribes no dof."""

    fixed = None

    def __init__(self, space):
        self.space = space

    def data(self):
        return None

    def insert(self, u, data):
        return 0.5 * (u + u.flip(-1))

    def project(self, residual, data):
        return self.insert(residual, data)


def test_a_constraint_without_a_mask_is_refused_and_goes_with_conjugate_gradients():
    V = FunctionSpace(unit_interval(8), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 0.5 * u.square() - x[..., 0] * u, EvenOnly(V))
    with pytest.raises(ValueError, match=r"`Direct\(\)` serves .*; got an object of class `EvenOnly`.*`CG\(\)`"):
        minimize(energy)
    torch.testing.assert_close(minimize(energy, method=CG()).value, torch.full((9,), 0.5, dtype=torch.float64))


class EvenAndHeld(EvenOnly):
    """The same, zero at both ends: it has a mask, and does more than the mask says."""

    @property
    def fixed(self):
        return torch.arange(self.space.num_dofs) % (self.space.num_dofs - 1) == 0

    def insert(self, u, data):
        return super().insert(u, data).masked_fill(self.fixed, 0)


@pytest.mark.parametrize("kind", [EvenOnly, EvenAndHeld])
@pytest.mark.parametrize("preconditioner", [None, Multigrid(), AlgebraicMultigrid(), FastDiagonalization()])
def test_every_method_serves_such_a_constraint_or_names_one_that_does(kind, preconditioner):
    V = FunctionSpace(unit_interval(16), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 0.5 * u.square() - x[..., 0] ** 2 * u, kind(V))
    halves = torch.eye(V.num_dofs, dtype=torch.float64)
    basis = torch.linalg.svd(kind(V).insert(halves, None))[0][:, : 9 if kind is EvenOnly else 8]
    zero = torch.zeros(V.shape, dtype=torch.float64)
    whole = Energy(V, energy.terms[0].density)
    H, r = basis.T @ whole.hessian(zero).to_dense() @ basis, -basis.T @ whole.residual(zero)
    expected = basis @ torch.linalg.solve(H, r)
    served = CG() if preconditioner is None else CG(preconditioner=preconditioner)
    assert int(minimize(energy, method=served).iterations) <= 2
    torch.testing.assert_close(minimize(energy, method=served).value, expected)
    if isinstance(preconditioner, Multigrid | AlgebraicMultigrid):
        torch.testing.assert_close(minimize(energy, method=preconditioner).value, expected)
        return
    refused = Direct() if preconditioner is None else preconditioner
    remedy = r"`CG\(\)`" if preconditioner is None else r"`CG\(preconditioner=FastDiagonalization\(\)\)`"
    with pytest.raises(ValueError, match=f"got an object.*{remedy}|found an object.*{remedy}"):
        minimize(energy, method=refused)


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
@pytest.mark.parametrize("wave", [30.0, 300.0])
def test_waves_are_factorised_once_as_long_as_the_pivots_serve(cell, wave, monkeypatch):
    """½|∇u|² − ½ k² u² − f u: a positive diagonal, eigenvalues of both signs; no minimum, one stationary point."""
    made = []
    monkeypatch.setattr(direct, "lu", lambda *a, _lu=direct.lu, **options: made.append(_lu(*a, **options)) or made[-1])
    V = FunctionSpace(unit_square(24, cell=cell), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) - 0.5 * wave * u**2 - x[..., 0] * u, Dirichlet(V, {"left": 0}))
    found = solve(energy, method=Direct("superlu"))
    assert len(made) == 1
    H, zero = dense(energy, found.value, ()), torch.zeros_like(found.value)
    left = V.dofs("left")
    H[left, left] = 1
    torch.testing.assert_close(found.value, torch.linalg.solve(H, -energy.residual(zero)), rtol=1e-9, atol=1e-12)
    with pytest.raises(ConvergenceError, match="no lower bound"):
        minimize(energy, method=Direct("superlu"))
    made.clear()
    monkeypatch.setattr(direct, "is_stable", lambda *a: False)
    torch.testing.assert_close(solve(energy, method=Direct("superlu"), reuse=Reuse()).value, found.value)
    assert len(made) == 2


def test_pivots_as_they_come_are_not_trusted_where_they_are_tiny():
    scipy = pytest.importorskip("scipy.sparse")
    tiny = scipy.csc_array(torch.tensor([[1e-18, 1.0], [1.0, 1.0]]).double().numpy())
    good = scipy.csc_array(torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double().numpy())
    for matrix, stable in ((tiny, False), (good, True)):
        kept = {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        assert direct.is_stable(direct.lu(matrix, **kept), matrix) is stable
