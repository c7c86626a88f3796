"""Parameters by chord length against hand-worked ones, and knots that leave no span without data."""

import pytest
import torch

from fem.reference.bspline import check_knots
from nurbs import parametrize, parametrize_grid
from nurbs.fitting.cloud_parameters import principal_parameters
from nurbs.fitting.parametrization import averaged_knots


def test_the_worked_example_of_the_nurbs_book() -> None:
    """Example 9.1: chord length parameters 5/17, 9/17, 14/17."""
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-1.0, 4.0], [-4.0, 0.0], [-4.0, -3.0]]).double()
    expected = torch.tensor([0, 5 / 17, 9 / 17, 14 / 17, 1]).double()
    torch.testing.assert_close(parametrize(points), expected)


def test_centripetal_and_uniform() -> None:
    points = torch.tensor([[0.0], [1.0], [5.0]]).double()
    assert parametrize(points, "centripetal").tolist() == pytest.approx([0, 1 / 3, 1])
    assert parametrize(points, "uniform").tolist() == [0, 0.5, 1]


def test_a_grid_takes_the_mean_of_its_rows_and_leaves_out_points_drawn_together() -> None:
    torch.manual_seed(0)
    grid = torch.rand(2, 4, 5, 3).double()
    grid[:, :, 0] = grid[:, :1, 0]  # a pole: the row v = 0 has no length
    u, v = parametrize_grid(grid)
    torch.testing.assert_close(u, torch.stack([parametrize(grid[:, :, k]) for k in range(1, 5)]).mean(0))
    torch.testing.assert_close(v, torch.stack([parametrize(grid[:, k]) for k in range(4)]).mean(0))
    assert (u[:, 0] == 0).all()
    assert (v[:, -1] == 1).all()


@pytest.mark.parametrize("count", [8, 9, 20, 101])
def test_every_span_of_averaged_knots_holds_a_parameter(count: int) -> None:
    torch.manual_seed(count)
    u = torch.rand(3, count).double().sort().values
    knots = averaged_knots(u, 8, 3)
    check_knots(knots, 3, 8)
    for item in range(3):
        assert (torch.histogram(u[item], knots[item, 3:-3]).hist > 0).all()


def test_principal_parameters_of_a_tilted_rectangle_are_its_coordinates() -> None:
    torch.manual_seed(0)
    uv = torch.rand(1, 200, 2).double()
    uv[0, :4] = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).double()
    turn = torch.linalg.qr(torch.randn(3, 3).double()).Q[:2]
    found = principal_parameters((uv * torch.tensor([5.0, 1.0])) @ turn, 2)
    assert (torch.minimum((found - uv).abs(), (1 - found - uv).abs()) < 0.1).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*'chord'"):
        parametrize(torch.rand(4, 2), "arc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two points or more; got 1"):
        parametrize(torch.rand(1, 2))
    with pytest.raises(ValueError, match="all those of a row coincide"):
        parametrize(torch.ones(4, 2))
    with pytest.raises(ValueError, match="fewer than 2 directions"):
        principal_parameters(torch.rand(1, 9, 1).double() * torch.ones(3).double(), 2)


def test_closed_rows_go_on_to_their_first_point() -> None:
    square = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0], [0.0, 1.0]]).double()
    expected = torch.tensor([0, 3 / 8, 4 / 8, 7 / 8]).double()
    torch.testing.assert_close(parametrize(square, closed=True), expected)
    twice = torch.cat([square, square[:1]])
    torch.testing.assert_close(parametrize(twice, closed=True), torch.cat([expected, expected.new_ones(1)]))
    assert parametrize(square, "uniform", closed=True).tolist() == [0, 0.25, 0.5, 0.75]
    assert parametrize(twice, "uniform", closed=True).tolist() == [0, 0.25, 0.5, 0.75, 1]
    u, v = parametrize_grid(square[:, None].expand(4, 3, 2) * torch.arange(1, 4)[:, None], "chord", (True, False))
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(v, torch.tensor([0, 0.5, 1]).double())


def test_averaged_knots_of_a_period() -> None:
    u = torch.cat([torch.zeros(1), torch.rand(29, generator=torch.Generator().manual_seed(0))]).double().sort().values
    knots = averaged_knots(u, 7, 3, closed=True)
    assert knots.shape == (8,)
    assert knots[[0, -1]].tolist() == [0, 1]
    assert (torch.histogram(u, knots).hist > 0).all()
    assert averaged_knots(u[:3], 7, 3, closed=True).tolist() == pytest.approx([k / 7 for k in range(8)])
