"""The optimisers of PyTorch on an energy: the minimum of Newton, limits that are kept, and what they cannot do."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_interval, unit_square
from solvers import LBFGS, Adam, ConvergenceError, Status, minimize, solve
from tests.problems import conduction, diffusion, laplace, poisson


@pytest.fixture
def energy():
    V = FunctionSpace(unit_square(4), Lagrange(1))

    def density(x, u, grad_u, k):
        return diffusion(x, u, grad_u, k) + u**4 - 5 * u

    return Energy(V, density, Dirichlet(V, {"left": 0.5}))


@pytest.mark.parametrize(
    ("method", "accuracy"), [(LBFGS(), 1e-5), (LBFGS(history=3), 1e-5), (LBFGS(rtol=1e-8), 1e-7), (Adam(), 1e-3)]
)
def test_they_reach_the_minimum_of_newton(energy, method, accuracy):
    reference = minimize(energy, (1.5,))
    found = minimize(energy, (1.5,), method=method)
    assert found.status is Status.CONVERGED
    assert found.method == type(method).__name__
    assert float(found.residual) <= (method.rtol or 1e-6)
    torch.testing.assert_close(found.value, reference.value, rtol=0, atol=accuracy)
    # The energy is second-order accurate.
    torch.testing.assert_close(found.energy, reference.energy, rtol=1e-14, atol=10 * accuracy**2)
    assert bool((found.value[energy.space.dofs("left")] == 0.5).all())


def test_a_batch_descends_together(energy):
    stiffness = torch.tensor([0.1, 1.0, 100.0], dtype=torch.float64)
    wanted = minimize(energy, (stiffness,)).value
    initial = torch.cat([torch.zeros_like(wanted[:2]), wanted[2:]])  # so that one has finished when others begin
    found = minimize(energy, (stiffness,), initial, method=LBFGS())
    assert found.converged
    torch.testing.assert_close(found.value, wanted, rtol=0, atol=1e-5)
    # Value and residual of each item are those of the moment when it finished.
    assert len(set(found.iterations.tolist())) > 1
    form = energy.discrete_form((stiffness,))
    with torch.no_grad():
        r, size = form.residual(found.value), form.evaluate(found.value).magnitude
    torch.testing.assert_close(found.residual, r.norm(dim=-1) / size.norm(dim=-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [LBFGS, Adam])
def test_units_of_the_energy_do_not_matter(energy, kind):
    (term,) = energy.terms
    found = []
    for unit in (1e-6, 1.0, 1e6):
        scaled = Energy(energy.space, lambda *a, unit=unit: unit * term.density(*a), energy.constraint)
        found.append(minimize(scaled, (1.0,), method=kind()))
    for other in found[::2]:
        assert abs(int(other.iterations) - int(found[1].iterations)) <= 0.1 * int(found[1].iterations)
        torch.testing.assert_close(other.value, found[1].value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 7, 20, 30])
@pytest.mark.parametrize("kind", [LBFGS, Adam])
def test_the_limit_is_kept_to_the_step(energy, kind, limit):
    found = minimize(energy, (1.0,), method=kind(max_iterations=limit, rtol=1e-15), throw=False)
    assert found.status is Status.MAX_ITERATIONS
    assert int(found.iterations) == limit


def test_more_steps_lower_the_energy(energy):
    energies = [
        float(minimize(energy, (1.0,), method=LBFGS(max_iterations=k, rtol=1e-15), throw=False).energy)
        for k in (1, 3, 6, 12)
    ]
    assert energies == sorted(energies, reverse=True)
    with pytest.raises(ConvergenceError, match=r"raise `max_iterations`.*after 3 iterations of LBFGS"):
        minimize(energy, (1.0,), method=LBFGS(max_iterations=3))


def test_gradients_are_those_of_newton(energy):
    def derivative(method):
        k = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        value = minimize(energy, (k,), method=method).value
        return torch.autograd.grad(value.square().sum(), k)[0]

    torch.testing.assert_close(derivative(LBFGS(rtol=1e-8)), derivative(None), rtol=1e-7, atol=0)


def test_energies_that_are_not_finite_are_told():
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) - torch.log(u))
    for method in (LBFGS(), Adam()):
        assert minimize(energy, method=method, throw=False).status is Status.NOT_FINITE


def test_an_item_that_fails_leaves_the_others_alone(energy):
    start = torch.zeros(2, *energy.space.shape, dtype=torch.float64)
    start[1] = 1e200  # u⁴ overflows
    found = minimize(energy, (1.5,), initial=start, method=LBFGS(), throw=False)
    assert found.status == (Status.CONVERGED, Status.NOT_FINITE)
    torch.testing.assert_close(found.value[0], minimize(energy, (1.5,)).value, rtol=0, atol=1e-5)


def test_single_precision_has_a_tolerance_it_can_reach():
    V = FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(2))
    energy = Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}))
    found = minimize(energy, method=LBFGS())
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value, minimize(energy).value, rtol=0, atol=1e-3 * float(found.value.max()))


def test_a_kink_stalls():
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    energy = Energy(V, lambda x, u, g: (u - 0.3).abs() + 0.1 * g.square().sum(-1))
    assert minimize(energy, method=LBFGS(max_iterations=2000), throw=False).status is Status.STALLED


@pytest.mark.parametrize("method", [LBFGS(), Adam()])
def test_they_neither_know_bounds_nor_saddles(energy, method):
    name = type(method).__name__
    with pytest.raises(ValueError, match=rf"`{name}\(\)` has no bounds; use `Newton\(\)`"):
        minimize(energy, (1.0,), method=method, lower=0.0)
    with pytest.raises((ValueError, TypeError)):
        solve(energy, (1.0,), method=method)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0, 1e300])
@pytest.mark.parametrize("method", [LBFGS(max_iterations=100), Adam(max_iterations=1000)], ids=["LBFGS", "Adam"])
def test_one_bad_item_leaves_the_others(method, bad):
    """Not finite, singular, falling without end, or far from the others in scale; over two axes of items."""
    V = FunctionSpace(unit_square(4, cell="triangle"), Lagrange(1))
    shifted = torch.tensor([[0.0], [0.1]], dtype=torch.float64)  # boundary values are a batch as well
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": shifted.expand(2, len(V.dofs("boundary")))[:, None]}))
    stiffness = torch.tensor([1.0, bad, 2.0], dtype=torch.float64)
    found = minimize(energy, (stiffness,), method=method, throw=False)
    wanted = minimize(energy, (stiffness[::2],)).value
    for row in range(2):
        assert found.status[row][0] is found.status[row][2] is Status.CONVERGED
        assert found.status[row][1] is not Status.CONVERGED or bad == 1e300
        torch.testing.assert_close(found.value[row, ::2], wanted[row], rtol=0, atol=1e-4)


def test_a_line_search_without_finite_energies_ends_with_a_status():
    """Where all trial energies overflow, the line search of PyTorch raises an IndexError of its own."""
    V = FunctionSpace(unit_square(12), Lagrange(1))
    energy = Energy(
        V,
        lambda x, u, g, k: laplace(x, u, g) - 0.5 * k * u**2 - x[..., 0].exp() * u,
        Dirichlet(V, {"boundary": 0.0}),
    )
    k = torch.tensor([1.0, 500.0], dtype=torch.float64)
    found = minimize(energy, (k,), method=LBFGS(max_iterations=200), throw=False)
    assert found.status == (Status.CONVERGED, Status.NOT_FINITE)
    with pytest.raises(ConvergenceError, match="not finite"):
        minimize(energy, (500.0,), method=LBFGS(max_iterations=200))
