"""Training to a budget: accuracy that is known, stalls that are reported, budgets that are kept."""

import math

import pytest
import torch

from fem import unit_interval, unit_square
from solvers import PINN, ConvergenceError, Status, deep_ritz, fit_pinn, gauss_points, mismatch, strong_form
from tests.problems import laplace


def squares(network: torch.nn.Module, power: int = 2) -> torch.Tensor:
    """Σ pⁿ over all parameters."""
    return sum(((p**power).sum() for p in network.parameters()), torch.zeros(()))


def bubble(x):
    return (x * (1 - x)).prod(-1)


def bump(network, points):
    """−u″ = π² sin πx on (0, 1), u = 0 at both ends: u = sin πx."""
    return strong_form(
        network, points, lambda x, u, g, laplacian: laplacian + math.pi**2 * torch.sin(math.pi * x[:, 0])
    )


def error(network, dim=1):
    x = torch.linspace(0, 1, 51, dtype=torch.float64)
    x = torch.cartesian_prod(*[x] * dim).reshape(-1, dim)
    with torch.no_grad():
        return float((network(x) - torch.sin(math.pi * x).prod(-1)).abs().max())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PINN(1, width=12, depth=2, distance=bubble)


@pytest.fixture
def points(network):
    return network.at(*gauss_points(unit_interval(8), degree=7))


def test_the_strong_form_reaches_seven_digits(network, points):
    fit = fit_pinn(network, lambda: bump(network, points), steps=600, monitor=lambda: error(network))
    assert error(network) < 1e-6
    assert fit.adam == 60
    assert fit.history[0].measured > 0.1
    assert fit.history[-1].measured == error(network)
    assert fit.loss == fit.history[-1].loss == float(bump(network, points).detach())
    assert [r.iteration for r in fit.history] == sorted(r.iteration for r in fit.history)


def test_the_units_of_the_loss_do_not_matter(network, points):
    """`torch.optim.LBFGS` alone forgets its history in small units."""
    fit_pinn(network, lambda: 1e-12 * bump(network, points), steps=600)
    assert error(network) < 1e-6


def test_lift_and_distance_solve_with_boundary_values(network):
    """−u″ + u = 0, u(0) = 1, u(1) = e: u = exp x."""
    torch.manual_seed(0)
    network = PINN(1, width=12, depth=2, distance=bubble, lift=lambda x: 1 + (math.e - 1) * x[..., 0])
    points = network.at(*gauss_points(unit_interval(8), degree=7))
    fit_pinn(network, lambda: strong_form(network, points, lambda x, u, g, laplacian: laplacian - u), steps=600)
    x = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None]
    torch.testing.assert_close(network(x), x[:, 0].exp(), rtol=0, atol=1e-5)


def test_deep_ritz_finds_the_least_energy():
    """J(sin πx sin πy) = −π²/4, and J(v) − J(u) is the squared error in the energy norm."""

    def density(x, u, grad_u):
        return laplace(x, u, grad_u) - 2 * math.pi**2 * torch.sin(math.pi * x).prod(-1) * u

    torch.manual_seed(0)
    network = PINN(2, width=12, depth=2, distance=bubble)
    points = network.at(*gauss_points(unit_square(4), degree=9))
    fit = fit_pinn(network, lambda: deep_ritz(network, points, density), steps=300)
    assert fit.loss == pytest.approx(-(math.pi**2) / 4, abs=1e-5)
    assert error(network, 2) < 2e-3


def test_adam_alone_takes_random_points_and_soft_boundaries():
    torch.manual_seed(0)
    network = PINN(1, width=12, depth=2, dtype=torch.float32)
    ends = torch.tensor([[0.0], [1.0]])

    def loss():
        x = network.at(torch.rand(64, 1))
        residual = strong_form(network, x, lambda x, u, g, laplacian: laplacian + 2)
        return residual + 100 * mismatch(network, ends)

    fit = fit_pinn(network, loss, steps=1000, adam_share=1, lr=1e-2)
    assert (fit.adam, fit.lbfgs, fit.status) == (1000, 0, Status.BUDGET)
    x = torch.linspace(0, 1, 21)[:, None]
    torch.testing.assert_close(network(x), x[:, 0] * (1 - x[:, 0]), rtol=0, atol=2e-2)
    with pytest.raises(ValueError, match=r"L-BFGS needs one function.*`adam_share=1`"):
        fit_pinn(network, loss, steps=10)


def test_a_stall_is_detected_and_reported(network):
    """A loss that does not depend on the parameters where they are; and one at its minimum."""
    flat = fit_pinn(network, lambda: 1 + 0 * network.layers[0].weight.sum(), steps=500, adam_share=0)
    assert flat.status is Status.STALLED
    assert flat.lbfgs < 500
    least = fit_pinn(network, lambda: 5 + squares(network), steps=500)
    assert least.status is Status.STALLED
    assert least.lbfgs < 400
    assert least.loss == pytest.approx(5, abs=1e-12)


def test_a_fresh_start_is_tried_first(network):
    """A quartic, flat around its minimum, on which the line search gives up early."""
    fit = fit_pinn(network, lambda: squares(network, 4), steps=2000, adam_share=0)
    assert fit.loss < 1e-20
    assert fit.status is Status.BUDGET or fit.restarts >= 1


def test_a_loss_that_is_not_finite_ends_the_training_with_the_last_finite_parameters(network):
    calls = []

    def loss():
        calls.append(1)
        value = squares(network)
        return value if len(calls) < 9 else value * float("nan")

    for share in (1, 0):
        calls.clear()
        with torch.no_grad():
            network.layers[0].weight.fill_(1.0)
        with pytest.raises(ConvergenceError, match=r"`fit_pinn\(.*\)`: .* not finite .* `throw=False`") as caught:
            fit_pinn(network, loss, steps=200, adam_share=share)
        fit = caught.value.solution
        assert fit.status is Status.NOT_FINITE
        assert math.isfinite(fit.loss)
        assert fit.loss == float(sum(p.detach().square().sum() for p in network.parameters()))
        assert fit.loss == fit.history[-1].loss
        calls.clear()
        assert fit_pinn(network, loss, steps=200, adam_share=share, throw=False).status is Status.NOT_FINITE


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_budget_of_steps_is_kept_to_the_step(network, points, share):
    fit = fit_pinn(network, lambda: bump(network, points), steps=61, adam_share=share)
    assert fit.status is Status.BUDGET
    assert fit.adam + fit.lbfgs == 61
    assert fit.adam == math.ceil(61 * share)
    assert "BUDGET" in repr(fit)


def test_seconds_end_the_training(network, points):
    fit = fit_pinn(network, lambda: bump(network, points), seconds=0.2, steps=10**6)
    assert fit.status is Status.BUDGET
    assert fit.seconds >= 0.2
    assert fit.adam > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a budget"),
        ({"seconds": 0.0}, r"`fit_pinn\(seconds=\.\.\.\)` must be None or a positive number; got 0\.0"),
        ({"steps": -3}, r"`fit_pinn\(steps=\.\.\.\)` must be None or a positive integer; got -3"),
        ({"steps": 3, "lr": 0.0}, "lr.*must be a positive number"),
        ({"steps": 3, "history": 0}, "history.*must be a positive integer"),
        ({"steps": 3, "adam_share": 1.5}, r"from 0 to 1; got 1\.5"),
    ],
)
def test_bad_settings_are_told(network, points, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_pinn(network, lambda: bump(network, points), **settings)


def test_bad_losses_are_told(network):
    with pytest.raises(ValueError, match=r"finite scalar tensor at the start; got shape \(3, 1\)"):
        fit_pinn(network, lambda: network.layers[0].weight[:3] * 1, steps=3)
    with pytest.raises(ValueError, match="at the start; got tensor\\(nan"):
        fit_pinn(network, lambda: network.layers[0].weight.sum() * float("nan"), steps=3)
