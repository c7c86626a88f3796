"""What solvers return: statuses with remedies, batches of them, and how a solution prints."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_interval, unit_square
from solvers import (
    CG,
    LBFGS,
    AlgebraicMultigrid,
    ConvergenceError,
    Direct,
    Multigrid,
    Newton,
    Reuse,
    Solution,
    Status,
    minimize,
)
from solvers.solution import default_rtol
from tests.problems import conduction


def solution_of(status, batch=()):
    count = torch.zeros(batch, dtype=torch.int64)
    zero = torch.zeros(batch, dtype=torch.float64)
    value = torch.zeros(*batch, 3, dtype=torch.float64)
    return Solution(value, status, count, zero, zero, "Newton with CG()", count, zero + torch.nan)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (Status.MAX_ITERATIONS, "raise `max_iterations`"),
        (Status.STALLED, "`initial="),
        (Status.SINGULAR, "`MeanZero(V)`"),
        (Status.UNBOUNDED, "use `solve` if a saddle"),
        (Status.SADDLE, "start elsewhere with `initial=`"),
        (Status.NOT_FINITE, "logarithms, roots or divisions"),
        (Status.BUDGET, "raise `seconds`"),
    ],
)
def test_every_failure_says_what_to_do(status, remedy):
    assert remedy in str(status)
    assert not solution_of(status).converged


def test_a_batch_has_converged_when_every_item_has():
    good, bad = Status.CONVERGED, Status.SADDLE
    assert solution_of((good, good), (2,)).converged
    assert not solution_of(((good, good), (good, bad)), (2, 2)).converged


def test_repr_tells_the_worst_status_the_method_and_the_shape():
    text = repr(solution_of((Status.CONVERGED, Status.SINGULAR), (2,)))
    assert text == "Solution(SINGULAR, Newton with CG(); value (2, 3), iterations ≤ 0, residual ≤ 0.00e+00)"
    assert "CONVERGED" in repr(solution_of(Status.CONVERGED))


def test_the_error_carries_the_solution():
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    sign = torch.tensor([[1.0, 1.0, -1.0]], dtype=V.dtype)
    with pytest.raises(ConvergenceError, match="1 of 3 batch items") as caught:
        minimize(energy, (sign,))
    assert isinstance(caught.value, RuntimeError)
    solution = caught.value.solution
    assert solution.status == ((Status.CONVERGED, Status.CONVERGED, Status.UNBOUNDED),)
    assert solution.value.shape == (1, 3, 5)
    assert solution.residual.shape == solution.iterations.shape == solution.energy.shape == (1, 3)


def test_default_tolerances_are_those_of_the_type():
    assert default_rtol(torch.float64) == 1e-12
    assert default_rtol(torch.float32) == 1e-5


def test_an_empty_batch_is_shown():
    empty = solution_of((), (0,))
    assert repr(empty) == "Solution(CONVERGED, Newton with CG(); value (0, 3))"


@pytest.mark.parametrize("method", [CG(rtol=1e-8), Multigrid(rtol=1e-8), AlgebraicMultigrid(rtol=1e-8)])
def test_it_tells_iterations_and_contraction_of_each_item_of_a_batch(method):
    V = FunctionSpace(unit_square(16, 16), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    torch.manual_seed(0)
    k = torch.stack([torch.ones(V.num_dofs), torch.exp(2 * torch.randn(V.num_dofs))]).to(V.dtype)
    solution = minimize(energy, (V.function(k), 1.0), method=Newton(method, rtol=1e-8), reuse=Reuse())
    count, rate = solution.linear_iterations, solution.contraction
    assert count.shape == rate.shape == (2,)
    assert bool((count > 0).all())
    assert bool((rate < 1).all())
    # One linear solve from zero: its residual falls by 10⁻⁸ in all, and little further.
    assert bool((rate**count <= 1e-8).all())
    assert bool((rate ** (count - 1) > 1e-10).all())
    alone = minimize(energy, (V.function(k[1]), 1.0), method=Newton(method, rtol=1e-8), reuse=Reuse())
    assert abs(int(alone.linear_iterations) - int(count[1])) <= 1
    assert "contraction ≤" in repr(solution)


def test_iterations_of_all_newton_steps_add_up():
    V = FunctionSpace(unit_square(8, 8), Lagrange(1))
    energy = Energy(V, lambda x, u, g: g.square().sum(-1) + u**4 - u, Dirichlet(V, {"left": 0.0}))
    steps = [minimize(energy, method=Newton(CG(), max_iterations=k), throw=False) for k in (1, 2, 3)]
    counts = [int(s.linear_iterations) for s in steps]
    assert 0 < counts[0] < counts[1] < counts[2]
    assert all(0 < float(s.contraction) < 1 for s in steps)


@pytest.mark.parametrize("method", [Direct(), LBFGS()])
def test_without_conjugate_gradients_there_is_no_contraction(method):
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    solution = minimize(energy, (1.0, 1.0), method=method)
    assert int(solution.linear_iterations) == 0
    assert bool(solution.contraction.isnan())
    assert "contraction" not in repr(solution)
