"""Knots as shares of the range: there and back, derivatives, floors, and knots that stay equal."""

import torch

from fem.reference.bspline import uniform_knots
from nurbs.fitting.free_knots import FreeKnots

KNOTS = torch.stack([uniform_knots(8, 3), uniform_knots(8, 3)])
KNOTS[1, 4:8] = torch.tensor([0.1, 0.3, 0.3, 0.9]).double()
FREE, ITEMS = FreeKnots(KNOTS, 3, 1e-2), torch.arange(2)


def test_the_start_gives_the_given_knots() -> None:
    sigma, lower, upper = FREE.bounds()
    knots, _ = FREE.at(sigma, ITEMS)
    torch.testing.assert_close(knots, KNOTS)
    assert (lower == 0).all()
    assert (upper == 0).tolist() == [[False] * 5, [False, False, True, False, False]]


def test_derivatives() -> None:
    sigma = FREE.bounds()[0] + 0.1 * (FREE.bounds()[2] > 0)
    exact = torch.autograd.functional.jacobian(lambda s: FREE.at(s, ITEMS)[0].sum(0), sigma).permute(1, 2, 0)
    torch.testing.assert_close(FREE.at(sigma, ITEMS)[1], exact)


def test_spans_end_at_the_floor_and_equal_knots_stay_equal() -> None:
    sigma = torch.tensor([[0, 0, 1, 0, 3], [0, 2, 0, 0, 0]]).double()
    spans = FREE.at(sigma, ITEMS)[0].diff()[:, 3:-3]
    torch.testing.assert_close(spans[0, [0, 1, 3]], torch.full((3,), 1e-2 / 5).double())
    assert spans[1, 2] == 0
    torch.testing.assert_close(spans[1, [0, 3, 4]], torch.full((3,), 1e-2 / 4).double())
