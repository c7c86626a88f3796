"""A system is its matrix: products, diagonal, what nothing determines, and when two are the same."""

import pytest
import torch

import fem.forms.traced.loops
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from solvers import minimize
from solvers.operators.system import System
from tests.problems import laplace
from tests.solvers.systems import dense, distorted, stokes, system_of, taylor_hood


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


def test_unconstrained_directions_are_named_per_item_however_weak_what_holds_them():
    V = FunctionSpace(unit_square(3), Lagrange(1))
    reaction = torch.tensor([0.0, 1e-150], dtype=torch.float64)
    energy = Energy(V, lambda x, u, g, r: laplace(x, u, g) + r * u.square())
    ((name, free),) = System(
        energy.discrete_form((reaction,)), torch.zeros(2, *V.shape, dtype=V.dtype)
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
    found = System(energy.discrete_form(()), torch.zeros(X.shape, dtype=X.dtype)).unconstrained_directions()
    assert [name for name, _ in found] == ["component 0 of field 0", "component 1 of field 0", "constants of field 1"]
    assert [bool(free) for _, free in found] == expected


def test_same_matrix_is_true_between_states_of_a_quadratic_energy_only():
    system, _, _, u = system_of("batch")
    assert system.same_matrix(System(system.form, 2 * u))
    assert not system.same_matrix(System(system.form, u, system.fixed | (u > 0.5)))
    system, _, _, u = system_of("scalar")
    assert not system.same_matrix(System(system.form, 2 * u))


@pytest.mark.parametrize("on_grid", [True, False])
def test_no_matrix_outlives_what_it_is_made_of(on_grid, monkeypatch):
    """Numbers, tensors and fields changed in place, captured ones too: each solve is that of a fresh start."""
    monkeypatch.setattr(fem.forms.traced.loops, "GRID_CELLS", 1 if on_grid else 10**9)
    V = FunctionSpace(unit_square(8), Lagrange(1))
    captured, level = torch.tensor(1.0, dtype=V.dtype), [1.0]
    tensor, field = torch.tensor(1.0, dtype=V.dtype), torch.ones(V.shape, dtype=V.dtype)

    def density(x, u, g, number, k, f):
        return 0.5 * number * k * f * captured * level[0] * g.square().sum(-1) - u

    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    solved = lambda number: minimize(energy, (number, tensor, V.function(field)))  # noqa: E731
    reference = solved(1.0).value
    for change, number, scale in (
        (lambda: None, 50.0, 50),
        (lambda: tensor.mul_(50), 1.0, 50),
        (lambda: field.mul_(50), 1.0, 2500),
        (lambda: captured.mul_(50), 1.0, 50**3),
        (lambda: level.append(level.pop() * 50), 1.0, 50**4),
    ):
        change()
        found = solved(number)
        assert int(found.iterations) == 1
        torch.testing.assert_close(found.value * scale, reference, rtol=1e-10, atol=0)
