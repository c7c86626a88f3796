"""What solvers return: statuses with remedies, batches of them, and how a solution prints."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_interval
from solvers import ConvergenceError, Solution, Status, minimize
from solvers.solution import default_rtol
from tests.problems import conduction


def solution_of(status, batch=()):
    count = torch.zeros(batch, dtype=torch.int64)
    zero = torch.zeros(batch, dtype=torch.float64)
    return Solution(torch.zeros(*batch, 3, dtype=torch.float64), status, count, zero, zero, "Newton with CG()")


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
