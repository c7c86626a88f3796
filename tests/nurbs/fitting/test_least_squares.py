"""Linear fits against SciPy, against each other, and as minimisers of what they say they minimise."""

import numpy as np
import pytest
import torch
from scipy.interpolate import LSQBivariateSpline, make_lsq_spline
from torch import Tensor

from fem.reference.bspline import uniform_knots
from nurbs import Surface
from nurbs.fitting.alternation import as_cloud
from nurbs.fitting.least_squares import bending, solve_cloud, solve_grid

KNOTS = [uniform_knots(6, 3)[None], uniform_knots(5, 2)[None]]
DEGREE = (3, 2)


def data(batch: int = 1) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    u = [torch.rand(batch, q).double().sort().values for q in (14, 11)]
    return torch.randn(batch, 14, 11, 3).double(), u


def test_curves_as_scipy() -> None:
    points, u = data()
    x, y = u[0][0].numpy(), points[0, :, 0].numpy()
    expected = make_lsq_spline(x, y, KNOTS[0][0].numpy(), k=3, method="qr").c
    ours = solve_grid(points[:, :, 0], u[:1], KNOTS[:1], DEGREE[:1])
    np.testing.assert_allclose(ours[0].numpy(), expected, rtol=1e-10, atol=1e-10)


def test_surfaces_as_scipy() -> None:
    points, u = data()
    cloud = as_cloud(tuple(u))[0].numpy()
    inner = (KNOTS[0][0, 4:-4].numpy(), KNOTS[1][0, 3:-3].numpy())
    ours = solve_grid(points, u, KNOTS, DEGREE)[0]
    for d in range(3):
        z = points[0, ..., d].flatten().numpy()
        theirs = LSQBivariateSpline(cloud[:, 0], cloud[:, 1], z, *inner, bbox=[0, 1, 0, 1], kx=3, ky=2, eps=1e-14)
        np.testing.assert_allclose(ours[..., d].flatten().numpy(), theirs.get_coeffs(), rtol=1e-10, atol=1e-10)


def test_a_grid_is_a_cloud() -> None:
    points, u = data(batch=2)
    knots = [t.expand(2, -1) for t in KNOTS]
    grid = solve_grid(points, u, knots, DEGREE)
    torch.testing.assert_close(solve_cloud(points.flatten(1, 2), as_cloud(tuple(u)), knots, DEGREE), grid)


def test_many_rows_are_reduced_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    points, u = data()
    cloud = (points.flatten(1, 2), as_cloud(tuple(u)), KNOTS, DEGREE, torch.rand(1, 6, 5).double() + 0.5)
    whole = solve_cloud(*cloud, smoothing=1e-3)
    monkeypatch.setattr("fem.support.portions.MEMORY", 16 * 40 * 30)
    torch.testing.assert_close(solve_cloud(*cloud, smoothing=1e-3), whole)


def test_rational_fit_recovers_the_surface_it_is_given() -> None:
    torch.manual_seed(0)
    weights = torch.rand(1, 6, 5).double() + 0.5
    surface = Surface(torch.randn(1, 6, 5, 3).double(), weights, tuple(KNOTS), DEGREE)
    uv = torch.rand(1, 200, 2).double()
    torch.testing.assert_close(solve_cloud(surface.at(uv), uv, KNOTS, DEGREE, weights), surface.control_points)


@pytest.mark.parametrize("rational", [False, True])
def test_smoothing_minimises_distance_plus_bending(rational: bool) -> None:
    """The gradient of the functional, by autograd, vanishes."""
    points, u = data()
    points, uv = points.flatten(1, 2)[:, :20], as_cloud(tuple(u))[:, :20]  # fewer than control points
    weights = torch.rand(1, 6, 5).double() + 0.5 if rational else None
    P = solve_cloud(points, uv, KNOTS, DEGREE, weights, 1e-2).requires_grad_()
    surface = Surface(P, weights, tuple(KNOTS), DEGREE)
    value = (surface.at(uv) - points).square().sum() / 20 + 1e-2 * bending(surface).square().sum()
    (gradient,) = torch.autograd.grad(value, P)
    assert gradient.abs().max() < 1e-12


def test_bending_energy_of_a_polynomial() -> None:
    """z = u² + 3 u v - v²: z_uu = 2, z_uv = 3, z_vv = -2, so that the energy is 4 + 18 + 4."""
    grid = [torch.linspace(0, 1, 12).double()[None]] * 2
    x, y = torch.meshgrid(grid[0][0], grid[1][0], indexing="ij")
    P = solve_grid((x**2 + 3 * x * y - y**2)[None, ..., None], grid, KNOTS, DEGREE)
    assert bending(Surface(P, None, tuple(KNOTS), DEGREE)).square().sum().item() == pytest.approx(26, rel=1e-12)


def test_gradients() -> None:
    points, u = data()
    inputs = [points[:, ::3, ::3, :1].clone(), u[0][:, ::3].clone(), u[1][:, ::3].clone(), *(t.clone() for t in SMALL)]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda p, u, v, s, t: solve_grid(p, (u, v), (s, t), (2, 1)), inputs)
    weights = (torch.rand(1, 4, 3).double() + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, u, v, s, t, w: solve_cloud(p.flatten(1, 2), as_cloud((u, v)), (s, t), (2, 1), w, 1e-3),
        [*inputs, weights],
    )


SMALL = [uniform_knots(4, 2)[None], uniform_knots(3, 1)[None]]


def test_errors_say_what_is_missing_and_where() -> None:
    points, u = data()
    with pytest.raises(
        ValueError, match=r"no fewer points than control points in u; got 5 points for 6 control points"
    ):
        solve_grid(points[:, :5], [u[0][:, :5], u[1]], KNOTS, DEGREE)
    gap = u[0].where(u[0] > 0.7, 0.1 * u[0])
    with pytest.raises(
        ValueError, match=r"batch item 0 do not determine control point \[\d\] .*span is u in \[0\.\d+, 0\.\d+\]"
    ):
        solve_grid(points, [gap, u[1]], [uniform_knots(12, 3)[None], KNOTS[1]], DEGREE)
    with pytest.raises(ValueError, match="got 20 points for 6 x 5 control points"):
        solve_cloud(points.flatten(1, 2)[:, :20], as_cloud(tuple(u))[:, :20], KNOTS, DEGREE)
