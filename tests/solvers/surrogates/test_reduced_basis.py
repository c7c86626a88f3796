"""The reduced solution is the best in its space, and snapshots come back."""

from typing import Any

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from solvers import ExponentialSeries, ReducedBasis, minimize
from tests.problems import diffusion

V = FunctionSpace(unit_square(16), Lagrange(1))


def family(items=12, start=0) -> Any:
    energy = Energy(
        V, lambda x, u, g, nu: diffusion(x, u, g, nu) - x[..., 0] * u, Dirichlet(V, {"left": 1.0, "right": 0.0})
    )
    series = ExponentialSeries(bound=1.0)
    return energy, (V.function(series(series.sample(items, start), V.dof_coordinates)),)


def test_snapshots_come_back():
    energy, params = family()
    found = ReducedBasis.of_snapshots(energy, params)(params)
    torch.testing.assert_close(found, minimize(energy, params).value, rtol=1e-8, atol=1e-8)


def test_more_functions_leave_less_energy_and_it_is_the_least_in_their_span():
    energy, params = family()
    other = family(4, start=100)[1]
    exact = energy(minimize(energy, other).value, *other)
    gaps = []
    for size in (1, 3, 6, 11):
        basis = ReducedBasis.of_snapshots(energy, params, size)
        u = basis(other)
        assert basis.functions.shape == (size, *energy.space.shape)
        gaps.append(energy(u, *other) - exact)
        assert bool((gaps[-1] > 0).all())
        for f in basis.functions:
            assert bool((energy(u + 0.01 * f, *other) >= energy(u, *other)).all())
        torch.testing.assert_close(energy.constraint.apply(u), u)
    for more, fewer in zip(gaps[1:], gaps, strict=False):
        assert bool((more < fewer).all())
    assert float((gaps[-1] / gaps[0]).max()) < 0.05


def test_a_batch_is_each_of_its_items():
    energy, params = family()
    basis = ReducedBasis.of_snapshots(energy, params, 5)
    nu = family(3, start=50)[1][0].values
    together = basis((V.function(nu),))
    for item, u in zip(nu, together, strict=True):
        torch.testing.assert_close(basis((V.function(item),)), u)


def test_what_cannot_be():
    energy, params = family(4)
    field = params[0].values
    with pytest.raises(ValueError, match="one batch of at least two snapshots"):
        ReducedBasis.of_snapshots(energy, (V.function(field[0]),))
    with pytest.raises(ValueError, match="4 snapshots give 1 to 3 functions; got size=4"):
        ReducedBasis.of_snapshots(energy, params, 4)
    with pytest.raises(ValueError, match="not convex on the reduced basis"):
        ReducedBasis.of_snapshots(energy, params)((V.function(-field),))
    nonlinear = Energy(V, lambda x, u, g, nu: nu * g.square().sum(-1) + u**4, energy.constraint)
    with pytest.raises(ValueError, match="quadratic energies"):
        ReducedBasis.of_snapshots(nonlinear, params)(params)
