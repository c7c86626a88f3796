"""Newton's method under bounds: exact minima, active bounds, batches of independent problems, honest endings."""

import torch
from torch import Tensor

from nurbs.fitting.projected_newton import minimize_bounded


def rosenbrock(x: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - x)² + c (y - x²)², c = 1, 10, 100, … per item."""
    c = 10.0**items
    a, b = x.unbind(-1)
    r = b - a.square()
    f = (1 - a).square() + c * r.square()
    g = torch.stack([-2 * (1 - a) - 4 * c * a * r, 2 * c * r], -1)
    H = torch.stack([2 - 4 * c * r + 8 * c * a.square(), -4 * c * a, -4 * c * a, 2 * c + 0 * a], -1)
    return f, g, H.unflatten(-1, (2, 2))


START = torch.tensor([[-1.2, 1.0]]).double().repeat(3, 1)


def box(lower: float, upper: float) -> tuple[Tensor, Tensor]:
    return torch.full_like(START, lower), torch.full_like(START, upper)


def test_finds_the_minimum_inside() -> None:
    found = minimize_bounded(rosenbrock, START.clone(), *box(-10, 10))
    assert found.converged.all()
    torch.testing.assert_close(found.x, torch.ones_like(START))
    assert (found.history.diff() <= 0).all()


def test_finds_the_minimum_on_a_bound() -> None:
    """On x ≤ 1/2 the minimum is x = 1/2, y = 1/4."""
    found = minimize_bounded(rosenbrock, START.clone(), *box(-10, 0.5), rtol=1e-14)
    assert found.converged.all()
    torch.testing.assert_close(found.x, torch.tensor([[0.5, 0.25]]).double().expand(3, 2), atol=1e-7, rtol=1e-7)


def test_items_do_not_disturb_each_other() -> None:
    together = minimize_bounded(rosenbrock, START.clone(), *box(-10, 10))
    alone = minimize_bounded(rosenbrock, START[:1].clone(), *(b[:1] for b in box(-10, 10)))
    torch.testing.assert_close(together.x[0], alone.x[0], atol=0, rtol=1e-12)
    assert together.iterations[0] == alone.iterations[0]


def test_says_when_it_ran_out_of_iterations() -> None:
    found = minimize_bounded(rosenbrock, START.clone(), *box(-10, 10), max_iterations=3)
    assert not found.converged.any()
    assert not found.stalled.any()
    assert (found.iterations == 3).all()


def test_stalls_where_nothing_but_the_start_is_finite() -> None:
    def island(x: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f, g, H = rosenbrock(x, items)
        return torch.where((x == START[0]).all(-1), f, torch.inf), g, H

    found = minimize_bounded(island, START.clone(), *box(-10, 10))
    assert found.stalled.all()
    assert torch.equal(found.x, START)


def test_reports_each_iteration() -> None:
    told = []
    minimize_bounded(
        rosenbrock, START.clone(), *box(-10, 10), max_iterations=4, tick=lambda i, f: told.append((i, f.shape))
    )
    assert told == [(i, (3,)) for i in range(1, 5)]
