"""What solvers return: statuses with remedies, batches of them, and how a solution prints."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_interval
from fem.support.arithmetic import dot, norm, per_item
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


def test_norms_and_products_leave_the_batch_axes():
    a, b = torch.rand(2, 3, 5, 2, dtype=torch.float64), torch.rand(2, 3, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(norm(a, 2), a.square().sum((2, 3)).sqrt())
    torch.testing.assert_close(dot(a, b, 1), (a * b).sum((1, 2, 3)))
    assert per_item(torch.ones(2, 3), a).shape == (2, 3, 1, 1)


def test_default_tolerances_are_those_of_the_type():
    assert default_rtol(torch.float64) == 1e-12
    assert default_rtol(torch.float32) == 1e-5


def test_an_empty_batch_is_shown():
    empty = solution_of((), (0,))
    assert repr(empty) == "Solution(CONVERGED, Newton with CG(); value (0, 3))"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [0, 1])
def test_norms_scale(dtype: torch.dtype, lead: int) -> None:
    v = torch.randn(3, 50, dtype=dtype)
    info = torch.finfo(dtype)
    for scale in (info.tiny, info.tiny**0.6, 1.0, info.max**0.6, info.max / 1e3):
        torch.testing.assert_close(norm(scale * v, lead) / scale, norm(v, lead))


def test_norms_of_what_has_none() -> None:
    v = torch.tensor([[0.0, 0.0], [3e-30, 4e-30], [float("nan"), 1.0], [float("inf"), 1.0], [3e30, 4e30]])
    expected = torch.tensor([0.0, 5e-30, float("nan"), float("inf"), 5e30])
    torch.testing.assert_close(norm(v, 1), expected, equal_nan=True, rtol=1e-6, atol=0)
    assert norm(torch.zeros(2, 0), 1).tolist() == [0, 0]
