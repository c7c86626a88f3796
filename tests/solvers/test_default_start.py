"""Energies without a Hessian at zero: the default start is another, and says nothing where zero serves."""

import pytest
import torch

from fem import ConvergenceError, Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, Status, l2_error, unit_square
from fem.materials import p_laplace
from solvers import minimize
from solvers.default_start import smooth_start
from tests.problems import disk


@pytest.mark.parametrize("p", [1.2, 1.5, 3.0, 4.0, 6.0])
def test_p_laplace_converges_to_the_radial_solution(p: float) -> None:
    """−∇·(|∇u|^{p−2} ∇u) = 1 in the unit disk: u = (1 − r^q) / (q 2^{q−1}) with q = p / (p − 1)."""
    V = FunctionSpace(disk(6), Lagrange(2))
    energy = Energy(V, lambda x, u, g, p: p_laplace(g, p) - u, Dirichlet(V, {"boundary": 0.0}))
    solution = minimize(energy, (p,))
    q = p / (p - 1)
    exact = lambda x: (1 - x.square().sum(-1) ** (q / 2)) / q / 2 ** (q - 1)  # noqa: E731
    size = l2_error(V, torch.zeros_like(solution.value), exact)
    assert float(l2_error(V, solution.value, exact) / size) < 0.05


def test_items_of_a_batch_start_each_for_itself() -> None:
    V = FunctionSpace(unit_square(6), Lagrange(1), components=2)
    energy = Energy(V, lambda x, u, g, f: p_laplace(g.flatten(-2), 4.0) - f * u.sum(-1), Dirichlet(V, {"left": 0.0}))
    loads = torch.tensor([1e-3, -2.0, 50.0], dtype=torch.float64)
    both = minimize(energy, (loads,))
    for load, value in zip(loads.tolist(), both.value, strict=True):
        torch.testing.assert_close(value, minimize(energy, (load,)).value, rtol=1e-6, atol=1e-9)
    # u grows with the third root of the load.
    torch.testing.assert_close(both.value[2], both.value[1] * -(25 ** (1 / 3)), rtol=1e-6, atol=1e-9)


def test_prescribed_values_stay_and_a_given_start_is_kept() -> None:
    V = FunctionSpace(unit_square(6), Lagrange(1))
    held = Dirichlet(V, {"left": 0.0, "right": 1.0})
    energy = Energy(V, lambda x, u, g: p_laplace(g, 1.5), held)
    torch.testing.assert_close(minimize(energy).value, V.dof_coordinates[:, 0], rtol=0, atol=1e-9)
    zero = Energy(V, lambda x, u, g: p_laplace(g, 4.0) - u, Dirichlet(V, {"left": 0.0}))
    assert minimize(zero, initial=torch.zeros(V.shape, dtype=V.dtype), throw=False).status is Status.SINGULAR
    form = zero.discrete_form()
    start = smooth_start(form, torch.zeros(V.shape, dtype=V.dtype))
    assert start is not None
    assert float(form.value(start)) < 0


@pytest.mark.parametrize("constraint", [None, MeanZero])
def test_what_is_singular_stays_so(constraint) -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    held = None if constraint is None else constraint(V)
    energy = Energy(V, lambda x, u, g: 0.5 * g[..., 0] ** 2, held)
    with pytest.raises(ConvergenceError, match="singular"):
        minimize(energy)
