"""What a solve leaves for the next belongs to an object that the user holds, and goes with it."""

import copy
import gc
import pickle
from typing import Any
from weakref import ref

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from solvers import CG, AlgebraicMultigrid, Direct, Multigrid, Reuse, forget, minimize
from solvers.reuse import reuse_of
from tests.problems import poisson


def loaded(x, u, grad_u, k, f):
    return 0.5 * k * grad_u.square().sum(-1) - f * u


def membrane(n=48) -> Any:
    V = FunctionSpace(unit_square(n), Lagrange(1))
    return Energy(V, loaded, Dirichlet(V, {"boundary": 0.0}))


@pytest.fixture
def prepared(monkeypatch):
    """Counts how often `Direct` makes a matrix ready."""
    calls, prepare = [], Direct.prepare
    monkeypatch.setattr(Direct, "prepare", lambda self, system: calls.append(1) or prepare(self, system))
    return calls


def test_an_energy_carries_what_its_last_solve_left(prepared):
    one, two = membrane(), membrane()
    first = minimize(one, (1.0, 1.0)).value
    torch.testing.assert_close(minimize(one, (1.0, 3.0)).value, 3 * first, rtol=1e-10, atol=0)
    assert len(prepared) == 1
    minimize(two, (1.0, 1.0))
    assert len(prepared) == 2
    minimize(one, (1.0, 1.0))  # the other energy has its own
    assert len(prepared) == 2
    minimize(one, (1.0, 1.0), reuse=Reuse())
    assert len(prepared) == 3
    one.reuse.forget()
    minimize(one, (1.0, 1.0))
    assert len(prepared) == 4


def test_a_number_before_one_of_the_matrix_may_become_anything(prepared):
    V = FunctionSpace(unit_square(48), Lagrange(1))
    energy = Energy(V, lambda x, u, g, f, k: loaded(x, u, g, k, f), Dirichlet(V, {"boundary": 0.0}))
    for f in (1.0, 0.0, 3.0, torch.tensor(2.0, dtype=V.dtype), V.function(torch.ones(V.shape, dtype=V.dtype))):
        minimize(energy, (f, 2.0))
    assert len(prepared) == 1
    minimize(energy, (3.0, 4.0))
    assert len(prepared) == 2


def test_gradients_take_what_the_solve_made(prepared):
    energy, f = membrane(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        minimize(energy, (1.0, f)).value.sum().backward()
    assert len(prepared) == 1


@pytest.mark.parametrize("method", [Direct(), Multigrid(), CG(), AlgebraicMultigrid()], ids=str)
def test_nothing_outlives_the_energy_and_its_space(method):
    energy = membrane()
    nu = energy.space.function(torch.ones(energy.space.shape, dtype=torch.float64, requires_grad=True))
    for _ in range(2):
        minimize(energy, (nu, 1.0), method=method).value.sum().backward()
    kept = energy.reuse._kept[0].prepared
    seen = [ref(energy), ref(energy.space), ref(kept), ref(kept.system)]
    gc.collect()
    gc.disable()  # without a search for circles
    try:
        del energy, nu, kept
        assert [r() for r in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_copies_and_sums_start_with_nothing():
    energy = membrane(4)
    minimize(energy, (1.0, 1.0))
    assert len(energy.reuse._kept) == 1
    for again in (copy.deepcopy(energy.reuse), pickle.loads(pickle.dumps(energy.reuse))):
        assert isinstance(again, Reuse)
        assert not again._kept
    assert (energy + energy).reuse is None


def test_a_solve_that_fails_leaves_nothing():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    floating = Energy(V, loaded)
    assert not minimize(floating, (1.0, 1.0), throw=False).converged
    assert not floating.reuse._kept


def test_forgetting_empties_what_all_energies_carry() -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energies = [Energy(V, poisson, Dirichlet(V, {"boundary": 0.0})) for _ in range(2)]
    for energy in energies:
        minimize(energy)
    assert all(reuse_of(energy)._kept for energy in energies)
    forget()
    assert not any(reuse_of(energy)._kept for energy in energies)
