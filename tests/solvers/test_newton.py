"""Newton's method: steps, line search, non-convex energies, bounds, and every way to fail told by its status."""

from itertools import pairwise
from math import pi

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, MixedSpace, WeakForm, unit_interval, unit_square
from solvers import CG, ConvergenceError, Direct, Multigrid, Newton, Reuse, Status, minimize, solve
from solvers.report import RUNNING, STATUSES, finish
from tests.problems import diffusion, laplace

METHODS = pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG()], ids=["superlu", "direct", "cg"])


@pytest.fixture
def V():  # noqa: N802
    return FunctionSpace(unit_square(6), Lagrange(1))


@pytest.fixture
def clamped(V):
    return Dirichlet(V, {"boundary": 0.0})


def double_well(x, u, grad_u, epsilon):
    return diffusion(x, u, grad_u, epsilon) + 0.25 * (u.square() - 1).square()


def helmholtz(x, u, grad_u, reaction, load):
    return laplace(x, u, grad_u) - 0.5 * reaction * u.square() - load * u


# -- convergence -------------------------------------------------------------------------------------------------------


@METHODS
def test_a_quadratic_energy_takes_one_step(V, clamped, method):
    solution = minimize(Energy(V, helmholtz, clamped), (-2.0, lambda x: x[..., 0]), method=method)
    assert solution.status is Status.CONVERGED
    assert int(solution.iterations) == 1
    assert float(solution.residual) < 1e-12


def test_a_solution_is_recognised_without_a_step(V, clamped):
    energy = Energy(V, helmholtz, clamped)
    first = minimize(energy, (-2.0, 1.0))
    again = minimize(energy, (-2.0, 1.0), initial=first.value)
    assert int(again.iterations) == 0
    assert torch.equal(again.value, first.value)


def test_convergence_is_quadratic(V, clamped):
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 5 * u**4 - 20 * u, clamped)
    residuals = [float(minimize(energy, method=Newton(max_iterations=k), throw=False).residual) for k in range(1, 12)]
    small = [r for r in residuals if 1e-14 < r < 1e-2]
    assert len(small) >= 2
    assert all(after < 10 * before**2 + 1e-14 for before, after in pairwise(small))


def test_the_line_search_shortens_a_step_that_would_raise_the_energy():
    V = FunctionSpace(unit_interval(1), Lagrange(1))
    energy = Energy(V, lambda x, u, g: (1 + u.square()).sqrt())  # the full step from u is −u³: it diverges
    start = torch.full(V.shape, 3.0, dtype=V.dtype)
    solution = minimize(energy, initial=start)
    assert solution.converged
    torch.testing.assert_close(solution.value, torch.zeros_like(start), rtol=0, atol=1e-12)


@METHODS
@pytest.mark.parametrize("epsilon", [1e-1, 1e-3])
def test_a_double_well_ends_in_a_minimum(V, method, epsilon):
    torch.manual_seed(0)
    starts = torch.randn(4, *V.shape, dtype=V.dtype)
    solution = minimize(Energy(V, double_well), (epsilon,), initial=starts, method=method)
    assert solution.converged
    assert bool((solution.residual < 1e-10).all())
    for u in solution.value:
        spectrum = torch.linalg.eigvalsh(Energy(V, double_well).hessian(u, epsilon).to_dense())
        assert float(spectrum[0]) > 0
    assert bool((solution.energy < Energy(V, double_well)(starts, epsilon)).all())


def test_a_solution_where_every_force_vanishes_is_recognised(V):
    # At u = 1 all contributions are zero, so that a residual relative to them is round-off over round-off.
    solution = minimize(Energy(V, double_well), (0.1,), initial=torch.full(V.shape, 0.3, dtype=V.dtype))
    torch.testing.assert_close(solution.value, torch.ones_like(solution.value), rtol=1e-14, atol=0)
    assert float(solution.residual) < 1e-15


@pytest.mark.parametrize("kappa", [1e-12, 1e12])
def test_units_do_not_matter(V, clamped, kappa):
    def density(x, u, grad_u, k):
        return k * (laplace(x, u, grad_u) + u**4 - 30 * x[..., 0] * u)

    reference = minimize(Energy(V, density, clamped), (1.0,))
    scaled = minimize(Energy(V, density, clamped), (kappa,))
    torch.testing.assert_close(scaled.value, reference.value, rtol=1e-11, atol=1e-13)
    assert int(scaled.iterations) == int(reference.iterations)


def test_items_of_a_batch_stop_on_their_own(V, clamped):
    energy = Energy(V, lambda x, u, g, k: laplace(x, u, g) + k * u**4 - 20 * u, clamped)
    strengths = torch.tensor([0.0, 1.0, 1e3], dtype=V.dtype)
    together = minimize(energy, (strengths,))
    assert int(together.iterations[0]) == 1
    for i, k in enumerate(strengths):
        alone = minimize(energy, (k,))
        assert int(alone.iterations) == int(together.iterations[i])
        torch.testing.assert_close(alone.value, together.value[i], rtol=1e-11, atol=1e-13)


def test_a_nonlinear_weak_form_with_a_shortened_step():
    V = FunctionSpace(unit_interval(20), Lagrange(1))
    form = WeakForm(
        V, lambda x, u, g, v, dv: (g * dv).sum(-1) + 50 * torch.atan(5 * u - 2) * v, Dirichlet(V, {"left": 3.0})
    )
    solution = solve(form)
    assert solution.converged
    assert float(form.residual(solution.value).detach().norm()) < 1e-10
    assert bool(torch.isnan(solution.energy))


# -- how it fails ------------------------------------------------------------------------------------------------------


def failure(*args, how=minimize, **kwargs):
    """The error that is raised, checked against the status that is returned instead of it on request."""
    with pytest.raises(ConvergenceError) as caught:
        how(*args, **kwargs)
    status = how(*args, throw=False, **kwargs).status
    assert caught.value.solution.status == status
    return status, str(caught.value)


@METHODS
@pytest.mark.parametrize("load", [0.0, 1.0])
def test_singular_pure_neumann(V, method, load):
    status, message = failure(Energy(V, helmholtz), (0.0, load), method=method)
    assert status is Status.SINGULAR
    assert "MeanZero" in message
    assert "nothing determines the constants of u" in message
    assert "`throw=False` returns the solution as it is" in message


def test_singular_rotation():
    V = FunctionSpace(unit_square(4), Lagrange(1), components=2)

    def density(x, u, grad_u):
        return (grad_u + grad_u.mT).square().sum((-2, -1)) - u[..., 0]

    status, message = failure(Energy(V, density, MeanZero(V)))
    assert status is Status.SINGULAR
    assert "`Dirichlet`" in message
    assert "nothing determines" not in message


def test_singular_enclosed_flow():
    mesh = unit_square(4)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    density = lambda x, u, g: g[0].square().sum((-2, -1)) - u[1] * g[0].diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731
    status, message = failure(Energy(X, density, Dirichlet(X, {("boundary", 0): 0.0, ("top", 0, 0): 1.0})), how=solve)
    assert status is Status.SINGULAR
    assert "nothing determines the constants of field 1" in message


@METHODS
def test_unbounded_by_its_sign(V, clamped, method):
    status, message = failure(Energy(V, lambda x, u, g: -0.5 * g.square().sum(-1) - u, clamped), method=method)
    assert status is Status.UNBOUNDED
    assert "no lower bound" in message
    assert "use `solve`" in message


@METHODS
def test_unbounded_by_a_strong_reaction(V, clamped, method):
    status, _ = failure(Energy(V, helmholtz, clamped), (200.0, 1.0), method=method)
    assert status is Status.UNBOUNDED


@pytest.mark.parametrize("method", [Direct("superlu"), Direct()], ids=["superlu", "direct"])
@pytest.mark.parametrize("load", [0.0, lambda x: torch.sin(3 * pi * x[..., 0]) * torch.sin(2 * pi * x[..., 1])])
def test_unbounded_along_a_mode_that_the_load_does_not_touch(V, clamped, method, load):
    # r = 40 lies between the first two eigenvalues of −Δ: Newton's step is the way to a saddle, and lowers the energy.
    status, _ = failure(Energy(V, helmholtz, clamped), (40.0, load), method=method)
    assert status is Status.UNBOUNDED
    assert solve(Energy(V, helmholtz, clamped), (40.0, load), method=method).converged


@pytest.mark.parametrize("method", [Direct("superlu"), Direct()], ids=["superlu", "direct"])
def test_unbounded_with_a_vanishing_mean(V, method):
    status, _ = failure(Energy(V, helmholtz, MeanZero(V)), (30.0, lambda x: x[..., 0]), method=method)
    assert status is Status.UNBOUNDED


@pytest.mark.parametrize("method", [Direct("superlu"), Direct()], ids=["superlu", "direct"])
def test_saddle(V, clamped, method):
    energy = Energy(V, double_well, clamped)
    status, message = failure(energy, (1e-3,), method=method)  # u = 0 between the wells, where it starts
    assert status is Status.SADDLE
    assert "`initial=`" in message
    assert solve(energy, (1e-3,), method=method).converged
    torch.manual_seed(0)
    start = torch.randn(V.shape, dtype=V.dtype)
    assert minimize(energy, (1e-3,), initial=start, method=method).converged


def test_max_iterations(V, clamped):
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 5 * u**4 - 20 * u, clamped)
    status, message = failure(energy, method=Newton(max_iterations=2))
    assert status is Status.MAX_ITERATIONS
    assert "raise `max_iterations`" in message
    assert "after 2 iterations of Newton with Direct" in message


def test_what_still_runs_has_no_status():
    with pytest.raises(IndexError):
        STATUSES[RUNNING]
    codes, every = torch.full((len(STATUSES),), RUNNING), torch.eye(len(STATUSES), dtype=torch.bool)
    for item, status in zip(every, Status, strict=True):
        finish(codes, item, status)
        finish(codes, item, Status.CONVERGED)  # too late
    assert [STATUSES[code] for code in codes] == list(Status)


@pytest.mark.parametrize("power", [0.5, 1.5])
def test_not_finite(V, clamped, power):
    # u^½ has no slope at zero, |∇u|^1.5 has one but no curvature.
    inner = (lambda u, g: (u + 0.0) ** power) if power < 1 else (lambda u, g: (g.square().sum(-1)) ** (power / 2))
    energy = Energy(V, lambda x, u, g: inner(u, g) + laplace(x, u, g) - u, clamped)
    status, message = failure(energy, initial=torch.zeros(V.shape, dtype=V.dtype))
    assert status is Status.NOT_FINITE
    assert "logarithms, roots or divisions" in message


def test_stalled_at_a_kink(V, clamped):
    status, message = failure(Energy(V, lambda x, u, g: laplace(x, u, g) + 5 * u.abs() - u, clamped))
    assert status is Status.STALLED
    assert "smooth" in message


def test_a_weak_form_without_a_solution_stalls():
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    form = WeakForm(V, lambda x, u, g, v, dv: (1 + u.square()) * v + 1e-3 * (g * dv).sum(-1))
    status, _ = failure(
        form, initial=torch.full(V.shape, 2.0, dtype=V.dtype), how=solve, method=Newton(max_iterations=500)
    )
    assert status is Status.STALLED


def test_one_failing_item_leaves_the_others_alone(V, clamped):
    reaction = torch.tensor([[0.0, 200.0], [5.0, 300.0]], dtype=V.dtype)
    with pytest.raises(ConvergenceError, match=r"2 of 4 batch items \(the first is 1\)") as caught:
        minimize(Energy(V, helmholtz, clamped), (reaction, 1.0))
    solution = caught.value.solution
    good, bad = Status.CONVERGED, Status.UNBOUNDED
    assert solution.status == ((good, bad), (good, bad))
    for i in range(2):
        alone = minimize(Energy(V, helmholtz, clamped), (reaction[i, 0], 1.0))
        torch.testing.assert_close(solution.value[i, 0], alone.value, rtol=1e-11, atol=1e-13)


def test_cg_needs_a_symmetric_problem():
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    with pytest.raises(ValueError, match=r"`CG\(\)` needs a symmetric operator"):
        solve(WeakForm(V, lambda x, u, g, v, dv: (u - 1) * v), method=CG())


# -- bounds ------------------------------------------------------------------------------------------------------------


@METHODS
def test_between_bounds_forces_vanish_and_at_them_they_press(V, method):
    energy = Energy(V, lambda x, u, g: 0.5 * u.square() - u * x[..., 0] + laplace(x, u, g))
    solution = minimize(energy, lower=0.3, upper=0.6, method=method)
    u = solution.value
    assert bool(((u >= 0.3) & (u <= 0.6)).all())
    r = energy.residual(u).detach()
    inside = (u > 0.3) & (u < 0.6)
    assert bool(inside.any())
    assert float(r[inside].abs().max()) < 1e-12
    assert bool((r[u == 0.3] >= -1e-14).all())
    assert bool((r[u == 0.6] <= 1e-14).all())


def test_prescribed_values_outweigh_bounds(V):
    energy = Energy(V, helmholtz, Dirichlet(V, {"left": 2.0, "right": 0.0}))
    u = minimize(energy, (0.0, 0.0), upper=1.0).value
    assert bool((u[V.dofs("left")] == 2.0).all())
    others = torch.ones(V.shape, dtype=torch.bool)
    others[V.dofs("left")] = False
    assert float(u[others].max()) <= 1.0


# -- what is kept between solves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Direct("superlu"), Multigrid(), CG()], ids=["superlu", "multigrid", "cg"])
def test_a_new_load_needs_no_new_set_up_and_anything_else_does(V, clamped, method, monkeypatch):
    prepared, prepare = [], type(method).prepare
    monkeypatch.setattr(type(method), "prepare", lambda self, system: prepared.append(1) or prepare(self, system))
    energy = Energy(V, helmholtz, clamped, boundary={"left": lambda x, u, n, r, f: 0.5 * u.square()})
    other = Energy(V, helmholtz, clamped, boundary={"right": lambda x, u, n, r, f: 0.5 * u.square()})
    clamped_left = Energy(V, helmholtz, Dirichlet(V, {"left": 0.0}))
    field, reuse = V.function(torch.full(V.shape, -1.0, dtype=V.dtype)), Reuse()
    first = minimize(energy, (-1.0, 1.0), method=method, reuse=reuse)
    again = minimize(energy, (-1.0, 2.0), method=method, reuse=reuse)
    torch.testing.assert_close(again.value, 2 * first.value, rtol=1e-10, atol=0)
    assert len(prepared) == 1
    minimize(energy, (-2.0, 1.0), method=method, reuse=reuse)  # another matrix
    minimize(other, (-2.0, 1.0), method=method, reuse=reuse)  # the same numbers elsewhere
    minimize(clamped_left, (-2.0, 1.0), method=method, reuse=reuse)  # other fixed dofs
    assert len(prepared) == 4
    minimize(energy, (field, 1.0), method=method, reuse=reuse)
    minimize(energy, (field, 2.0), method=method, reuse=reuse)
    assert len(prepared) == 5
    V.mesh.nodes.mul_(2)  # the same numbers on another mesh
    doubled = minimize(energy, (field, 2.0), method=method, reuse=reuse)
    assert len(prepared) == 6
    reuse.forget()
    minimize(energy, (field, 2.0), method=method, reuse=reuse)
    assert len(prepared) == 7
    assert float(doubled.value.max()) > 2 * float(first.value.max())


def test_on_grids_a_number_that_the_matrix_depends_on_counts_and_another_does_not(monkeypatch):
    V = FunctionSpace(unit_square(48), Lagrange(1))
    clamped = Dirichlet(V, {"boundary": 0.0})
    prepared, prepare, reuse = [], Multigrid.prepare, Reuse()
    monkeypatch.setattr(Multigrid, "prepare", lambda self, system: prepared.append(1) or prepare(self, system))

    def solve_it(r, f):
        energy = Energy(V, lambda *args: helmholtz(*args), clamped)
        return minimize(energy, (r, f), method=Multigrid(), reuse=reuse).value

    first = solve_it(-1.0, 1.0)
    torch.testing.assert_close(solve_it(-1.0, 2.0), 2 * first, rtol=1e-9, atol=0)
    assert len(prepared) == 1
    assert float(solve_it(-50.0, 1.0).max()) < 0.7 * float(first.max())
    assert len(prepared) == 2
    field = V.function(torch.full(V.shape, -50.0, dtype=V.dtype))
    torch.testing.assert_close(solve_it(field, 1.0), solve_it(-50.0, 1.0), rtol=1e-9, atol=1e-15)
    before = solve_it(field, 1.0)
    field.values.mul_(2)  # what an optimiser does
    assert float(solve_it(field, 1.0).max()) < 0.7 * float(before.max())


@pytest.mark.parametrize("n", [6, 48])
@pytest.mark.parametrize("method", [Direct("superlu"), CG(), Multigrid()], ids=["superlu", "cg", "multigrid"])
def test_an_energy_without_second_derivatives_has_no_minimum_unless_its_boundary_brings_some(n, method):
    """The same on grids large enough for integrals without a gather."""
    V = FunctionSpace(unit_square(n), Lagrange(1))
    linear = lambda x, u, grad_u: -u  # noqa: E731
    assert minimize(Energy(V, linear), method=method, throw=False).status is Status.SINGULAR
    support = Energy(V, linear, boundary={"right": lambda x, u, normal: u.square()})
    assert minimize(support, method=method, throw=False).status is Status.SINGULAR  # the inside is still free
    held = Energy(V, linear, Dirichlet(V, {"boundary": 0.0}))
    assert minimize(held, method=method, throw=False).status is Status.SINGULAR
