"""Fits of curves and surfaces: what they recover, the optima they reach, batches, gradients, honest endings, errors."""

import pytest
import torch
from torch import Tensor

from fem import ConvergenceError
from fem.reference.bspline import uniform_knots
from nurbs import Curve, FitStatus, Surface, fit_curve, fit_surface, sphere
from tests.nurbs.patches import random

EVERYTHING = ("control_points", "knots", "weights")


def line(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


LINE = line(0, 1, 60)


def bukin(n: int) -> Tensor:
    """z = 100 √|y - x²/100| + |x + 10|/100 on [-15, 5] × [-3, 5]: a kink along a parabola."""
    x, y = torch.meshgrid(line(-15, 5, n), line(-3, 5, n), indexing="ij")
    return torch.stack([x, y, 100 * (y - 0.01 * x.square()).abs().sqrt() + 0.01 * (x + 10).abs()], -1)


def bent(*batch: int, knots: Tensor | None = None, weights: Tensor | None = None) -> Curve:
    return Curve(random(*batch, 7, 2, seed=3), weights, knots, 3)


def test_linear_fits_recover_what_they_are_given() -> None:
    curve = bent(2)
    fit = fit_curve(curve(LINE), 7, parameters=LINE, knots=curve.knots[0])
    torch.testing.assert_close(fit.curve.control_points, curve.control_points)
    assert fit.residual.shape == (2,)
    assert fit.status == (FitStatus.CONVERGED,) * 2
    assert fit.converged
    assert repr(fit).startswith("CurveFit(CONVERGED, Curve((2,) × ")
    surface = Surface(random(2, 6, 5, 3), degree=(3, 2))
    fit = fit_surface(surface(LINE, line(0, 1, 30)), shape=(6, 5), degree=(3, 2))
    torch.testing.assert_close(fit.surface.control_points, surface.control_points)
    uv = random(2, 300, 2)
    fit = fit_surface(surface.at(uv), shape=(6, 5), degree=(3, 2), uv=uv)
    torch.testing.assert_close(fit.surface.control_points, surface.control_points)


def test_free_knots_recover_the_knots_of_a_batch_each_its_own() -> None:
    knots = uniform_knots(7, 3).repeat(2, 1)
    knots[:, 4:7] = torch.tensor([[0.15, 0.3, 0.55], [0.4, 0.7, 0.8]])
    curve = bent(2, knots=knots)
    fit = fit_curve(curve(LINE), 7, free=("control_points", "knots"), parameters=LINE)
    assert fit.status == (FitStatus.CONVERGED,) * 2
    torch.testing.assert_close(fit.curve.knots[0], knots, rtol=0, atol=1e-6)
    assert fit.residual.max() < 1e-20
    for item in range(2):
        alone = fit_curve(curve(LINE)[item], 7, free=("control_points", "knots"), parameters=LINE)
        torch.testing.assert_close(fit.curve.knots[0][item], alone.curve.knots[0], rtol=0, atol=1e-9)


def test_free_knots_reach_a_double_knot() -> None:
    """|x - 0.4| in parabolas: exact with a double knot at 0.4, which two simple ones have to form."""
    x = line(0, 1, 1001)
    fit = fit_curve(torch.stack([x, (x - 0.4).abs()], -1), 5, 2, ("control_points", "knots"), x, floor=1e-6)
    torch.testing.assert_close(fit.curve.knots[0][3:5], torch.full((2,), 0.4).double(), rtol=0, atol=1e-3)
    assert fit.residual < 1e-15
    assert fit.history[0] > 1e-5


def test_free_weights_find_a_circle() -> None:
    angle = LINE * torch.pi / 2
    t = angle.tan() / (1 + angle.tan())  # any parameters in which the arc is rational of degree 2
    arc = Curve(
        torch.tensor([[1.0, 0], [1, 1], [0, 1]]).double(), torch.tensor([1, 0.5**0.5, 1], dtype=torch.float64), degree=2
    )
    fit = fit_curve(arc(t), 3, 2, ("control_points", "weights"), t)
    assert (torch.linalg.vector_norm(fit.curve(LINE), dim=-1) - 1).abs().max() < 1e-9
    w = fit.curve.weights
    assert (w[1].square() / (w[0] * w[2])).item() == pytest.approx(0.5, rel=1e-7)  # what no reparametrisation changes


@pytest.mark.parametrize("n", [128, 256])
def test_bukin_on_uniform_knots(n: int) -> None:
    """The least-squares optima, as any exact solver has them."""
    fit = fit_surface(bukin(n), shape=(8, 8), degree=(3, 3))
    assert fit.residual.item() == pytest.approx({128: 19.838, 256: 19.849}[n], abs=1e-3)


def test_bukin_with_free_knots() -> None:
    """A local minimum with a double knot in v, above which nothing near it lies."""
    points = bukin(48)
    fit = fit_surface(points, shape=(8, 8), degree=(3, 3), free=("control_points", "knots"))
    u = line(0, 1, 48)
    assert fit.status is FitStatus.CONVERGED
    assert fit.residual.item() == pytest.approx((fit.surface(u, u) - points).square().mean().item(), rel=1e-12)
    assert fit.residual < 8.22
    assert fit.surface.knots[1].diff()[4].item() == pytest.approx(1e-4 / 5)  # the floor
    assert (fit.history.diff() <= 0).all()
    for axis in range(2):
        for knot in range(4, 8):
            moved = [t.clone() for t in fit.surface.knots]
            moved[axis][knot] += 1e-4 if axis == 0 or knot > 5 else 1e-4 * (2 * knot - 9)
            assert fit_surface(points, shape=(8, 8), knots=moved).residual > fit.residual


@pytest.mark.slow
@pytest.mark.parametrize("n", [128, 256])
def test_bukin_below_the_published_errors(n: int) -> None:
    """Cho et al. (2021), Table 2: 8.25 and 8.23."""
    fit = fit_surface(bukin(n), shape=(8, 8), degree=(3, 3), free=("control_points", "knots"))
    assert fit.residual.item() == pytest.approx({128: 8.140, 256: 8.103}[n], abs=1e-3)
    assert fit_surface(bukin(n), shape=(8, 8), degree=(3, 3), free=EVERYTHING).residual < 1


def test_more_starts_are_never_worse() -> None:
    x = line(0, 1, 120)
    points = torch.stack([x, torch.sin(40 * x**3)], -1)
    residuals = [
        fit_curve(points, 12, free=("control_points", "knots"), parameters=x, starts=s).residual.item() for s in (1, 6)
    ]
    assert residuals[1] < 0.8 * residuals[0]


def test_knots_of_a_cloud_as_those_of_a_grid() -> None:
    points, u = bukin(20), line(0, 1, 20)
    options = {"shape": (6, 5), "degree": (3, 2), "free": EVERYTHING, "max_iterations": 6}
    grid = fit_surface(points, **options)
    uv = torch.cartesian_prod(u, u)
    cloud = fit_surface(points.flatten(0, 1), uv=uv, **options)
    torch.testing.assert_close(grid.surface.knots, cloud.surface.knots, rtol=0, atol=1e-8)
    torch.testing.assert_close(grid.residual, cloud.residual)
    assert grid.status is FitStatus.MAX_ITERATIONS


def test_projection_finds_the_parameters_of_a_cloud() -> None:
    """Points of a cylinder, in no order; foot points lower the residual of the first parameters by far."""
    angle, height = (2 * random(600, 2) - 1).unbind(-1)
    cloud = torch.stack([(1.4 * angle).sin(), (1.4 * angle).cos(), height], -1)
    cloud = cloud @ torch.linalg.qr(random(3, 3)).Q
    first = fit_surface(cloud, shape=(6, 6), projections=0)
    fit = fit_surface(cloud, shape=(6, 6), projections=20)
    assert fit.residual < 0.1 * first.residual
    assert isinstance(fit.parameters, Tensor)
    assert fit.parameters.shape == (600, 2)
    torch.testing.assert_close(
        (fit.surface.at(fit.parameters) - cloud).square().mean(), fit.residual, rtol=1e-10, atol=0
    )


def test_projection_improves_chord_length_and_knots_with_it() -> None:
    angle = (2 * torch.pi * line(0, 1, 80) ** 1.5)[None] * torch.tensor([[1.0], [0.5]])
    points = torch.stack([2 * angle.cos(), angle.sin()], -1)
    plain = fit_curve(points, 8)
    better = fit_curve(points, 8, projections=10)
    best = fit_curve(points, 8, free=("control_points", "knots"), projections=10)
    assert (better.residual < 0.3 * plain.residual).all()
    assert (best.residual < better.residual).all()
    assert (best.history.diff()[:, -3:] <= 1e-9).all()


def test_points_of_a_sphere_projected_onto_a_rational_patch() -> None:
    """A fit that starts with the exact weights and knots of an octant stays on the sphere."""
    patch = sphere()
    uv = random(400, 2)
    fit = fit_surface(
        patch.at(uv), shape=patch.shape, degree=patch.degree, uv=uv, knots=patch.knots, weights=patch.weights
    )
    assert fit.residual < 1e-28


def test_fewer_points_than_control_points() -> None:
    few = random(10, 3)
    uv = random(10, 2)
    with pytest.raises(ValueError, match=r"got 10 points for 6 x 6 control points.*smoothing="):
        fit_surface(few, shape=(6, 6), uv=uv)
    fit = fit_surface(few, shape=(6, 6), uv=uv, smoothing=1e-12)
    assert fit.residual < 1e-8
    flat = fit_surface(few, shape=(6, 6), uv=uv, smoothing=1e6)  # the regression plane
    rows = torch.cat([torch.ones(10, 1).double(), uv], -1)
    plane = rows @ torch.linalg.lstsq(rows, few).solution
    torch.testing.assert_close(flat.surface.at(uv), plane, rtol=0, atol=1e-6)


def test_gradients_flow_and_that_of_the_residual_is_whole() -> None:
    """With free knots the residual's derivative in the data, against central differences of whole fits."""
    points = torch.stack([LINE, (3 * LINE).sin() + (LINE - 0.4).abs()], -1)
    direction = random(60, 2)

    def residual(points: Tensor) -> Tensor:
        return fit_curve(points, 8, free=("control_points", "knots"), parameters=LINE, rtol=1e-13).residual

    moved = points.clone().requires_grad_()
    residual(moved).backward()
    step = 1e-5
    slope = (residual(points + step * direction) - residual(points - step * direction)) / (2 * step)
    assert (moved.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5)
    knots = uniform_knots(8, 3).requires_grad_()
    fit_curve(points, 8, parameters=LINE, knots=knots).curve(LINE).sum().backward()
    assert knots.grad.abs().max() > 0


def test_data_that_leave_no_room_for_knots_give_no_nan() -> None:
    """As many points as control points: the residual is zero, and a knot that moves far loses its data."""
    u = line(0, 1, 9)
    fit = fit_curve(random(9, 2), 9, free=EVERYTHING, parameters=u)
    assert fit.residual.isfinite()
    assert fit.residual < 1e-15
    assert fit.curve.control_points.isfinite().all()


def test_progress_and_single_precision() -> None:
    told = []
    fit = fit_curve(
        bent()(LINE).float(),
        5,
        free=("control_points", "knots"),
        parameters=LINE.float(),
        progress=lambda i, r: told.append((i, r.item())),
    )
    assert fit.residual.dtype == torch.float32
    assert fit.status is FitStatus.CONVERGED
    assert [i for i, _ in told] == list(range(1, len(told) + 1)) == list(range(1, int(fit.iterations) + 1))
    assert told[-1][1] == pytest.approx(fit.residual.item(), rel=1e-3)


def test_batch_axes_come_back() -> None:
    points = random(2, 3, 12, 10, 3)
    fit = fit_surface(points, shape=(5, 4), degree=(3, 2), free=("control_points", "knots"), max_iterations=2)
    assert fit.surface.control_points.shape == (2, 3, 5, 4, 3)
    assert fit.surface.knots[0].shape == (2, 3, 9)
    assert fit.residual.shape == fit.iterations.shape == (2, 3)
    assert [len(row) for row in fit.status] == [3, 3]
    assert fit.history.shape == (2, 3, 3)


def test_chord_length_on_a_grid() -> None:
    warped = torch.stack(torch.meshgrid(LINE**2, LINE, indexing="ij"), -1)
    fit = fit_surface(warped, shape=(5, 5), parametrization="chord")
    assert fit.residual < 1e-25
    assert fit_surface(warped, shape=(5, 5)).residual < 1e-25  # a polynomial of the uniform parameters as well
    torch.testing.assert_close(fit.parameters[0], LINE**2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(0, 3).double()}, r"needs points; got none \(shape \(0, 3\)\)"),
        ({"points": torch.full((9, 3), torch.nan).double()}, r"finite points; got nan at index \[0, 0\]"),
        ({"uv": random(30, 2) + 0.5}, r"parameters in the range of the knots, \[0, 1\]; got 1\.\d+ in u"),
        ({"uv": random(30, 3)}, r"uv of shape \(\*batch, q, 2\)"),
        ({"uv": random(29, 2)}, r"needs `uv` of shape \(30, 2\)"),
        ({"uv": random(2, 30, 2)}, r"needs `uv` of shape \(30, 2\), or without batch axes; got \(2, 30, 2\)"),
        ({"free": ("control_points", "degrees")}, r"free=.*takes \"control_points\" and any of .*'degrees'"),
        ({"free": ("knots",)}, 'takes "control_points"'),
        ({"free": ("control_points", "knots"), "smoothing": 1e-3}, "fixed knots and weights"),
        ({"shape": (3, 4)}, "degree \\+ 1 control points or more in u; got 3 of degree 3"),
        ({"degree": 0, "free": ("control_points", "knots")}, "jumps have no gradient"),
        ({"weights": -torch.ones(4, 4).double()}, "positive and finite"),
        ({"smoothing": -1.0}, "smoothing >= 0"),
        ({"starts": 0}, "starts >= 1"),
        ({"knots": (uniform_knots(5, 3), uniform_knots(4, 3))}, r"`knots` of shape \(8,\)"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    arguments = {"points": random(30, 3), "shape": (4, 4), "uv": random(30, 2), **change}
    if len(arguments["points"]) == 9:
        arguments["uv"] = random(9, 2)
    with pytest.raises(ValueError, match=message):
        fit_surface(**arguments)


def test_errors_of_curves_and_dtypes() -> None:
    with pytest.raises(ValueError, match="got 4 points for 6 control points"):
        fit_curve(random(4, 2), 6)
    with pytest.raises(ValueError, match="do not determine control point"):
        fit_curve(random(30, 2), 12, parameters=0.1 * random(30))
    with pytest.raises(TypeError, match="uv"):
        fit_surface(random(30, 3), (4, 4), uv=random(30, 2).float())


@pytest.mark.parametrize("free", [("control_points",), ("control_points", "knots")])
def test_residuals_that_overflow_are_a_failure_of_their_item_alone(free: tuple) -> None:
    points = torch.stack([bent()(LINE), 1e200 * bent()(LINE)])
    with pytest.raises(
        ConvergenceError, match=r"`fit_curve\(points\)`: 1 of 2 batch items \(the first is 1\)"
    ) as caught:
        fit_curve(points, 5, free=free, parameters=LINE)
    fit = fit_curve(points, 5, free=free, parameters=LINE, throw=False)
    for found in (fit, caught.value.solution):
        assert found.status == (FitStatus.CONVERGED, FitStatus.NOT_FINITE)
        assert repr(found).startswith("CurveFit(NOT_FINITE, ")
        assert not found.converged
    alone = fit_curve(points[0], 5, free=free, parameters=LINE)
    torch.testing.assert_close(fit.curve.control_points[0], alone.curve.control_points, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="the squares of their distances overflow"):
        fit_curve(points, 5)


def test_to_be_out_of_iterations_is_no_failure() -> None:
    fit = fit_curve(random(60, 2), 8, free=("control_points", "knots"), parameters=LINE, max_iterations=1)
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert "raise `max_iterations`" in str(fit.status)


ROUND = 2 * torch.pi * line(0, 1, 51)[:-1]
RING = torch.stack([2 * ROUND.cos(), ROUND.sin(), 0.3 * (3 * ROUND).sin()], -1)


@pytest.mark.parametrize("parametrization", ["chord", "centripetal", "uniform"])
@pytest.mark.parametrize("twice", [False, True])
def test_closed_curves_have_smooth_seams(parametrization: str, twice: bool) -> None:
    points = torch.cat([RING, RING[:1]]) if twice else RING
    fit = fit_curve(points, 16, periodic=True, parametrization=parametrization, projections=3)
    assert fit.residual < 1e-5
    seam = torch.tensor([0.0, -1e-9]).double()
    for order, jump in enumerate((1e-7, 1e-6, 1e-5)):
        before, after = fit.curve.derivative(seam, order=order)
        torch.testing.assert_close(before, after, rtol=0, atol=jump)
    shifted = fit_curve(points.roll(7, 0) if not twice else RING.roll(7, 0), 16, periodic=True, projections=20)
    assert abs(shifted.curve.length() / fit.curve.length() - 1) < 1e-3


def test_a_periodic_fit_recovers_what_it_is_given() -> None:
    knots = torch.tensor([0.0, 0.1, 0.3, 0.45, 0.7, 0.8, 1.0]).double()
    curve = Curve(random(2, 6, 2), random(6) + 0.5, knots, periodic=True)
    fit = fit_curve(curve(LINE[:-1]), 6, parameters=LINE[:-1], knots=knots, weights=curve.weights, periodic=True)
    torch.testing.assert_close(fit.curve.control_points, curve.control_points)
    surface = Surface(random(7, 5, 3), degree=(3, 2), periodic=(False, True))
    fit = fit_surface(surface(LINE, line(0, 1, 30)), (7, 5), (3, 2), periodic=(False, True), uv=(LINE, line(0, 1, 30)))
    torch.testing.assert_close(fit.surface.control_points, surface.control_points)
    uv = random(300, 2)
    for smoothing in (0.0, 1e-14):
        cloud = fit_surface(surface.at(uv), (7, 5), (3, 2), uv=uv, periodic=(False, True), smoothing=smoothing)
        torch.testing.assert_close(cloud.surface.control_points, surface.control_points, rtol=1e-6, atol=1e-6)


def test_grids_that_close() -> None:
    """A tube whose last row is the first, and one that stops before."""
    tube = torch.cat([RING[:, None, :2].expand(50, 9, 2), line(0, 1, 9).expand(50, 9)[..., None]], -1)
    for rows in (tube, torch.cat([tube, tube[:1]])):
        for parametrization in ("uniform", "chord"):
            fit = fit_surface(rows, (12, 4), periodic=(True, False), parametrization=parametrization)
            assert fit.residual < 2e-5
            ends = fit.surface(torch.tensor([0.0, 1.0]).double(), LINE)
            torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("rational", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 1e-5])
def test_curves_hold_their_ends(rational: bool, smoothing: float) -> None:
    points = torch.stack([LINE, (5 * LINE).sin() + 0.2 * random(60)], -1)
    weights = random(8) + 0.5 if rational else None
    options = {"weights": weights, "smoothing": smoothing}
    fit = fit_curve(points, 8, hold="ends", projections=2, **options)
    torch.testing.assert_close(fit.curve(line(0, 1, 2)), points[[0, -1]], rtol=0, atol=1e-15)
    fixed = fit_curve(points, 8, hold="ends", **options)
    free = fit_curve(points, 8, **options)
    assert free.residual < fixed.residual < 2 * free.residual
    moved = fixed.curve.control_points.clone().requires_grad_()
    (fixed.curve.replace(control_points=moved)(fixed.parameters[0]) - points).square().mean().backward()
    if not smoothing:  # the best of all that hold them
        assert moved.grad[1:-1].abs().max() < 1e-12 < moved.grad[[0, -1]].abs().max()


def test_surfaces_hold_their_corners_and_sides() -> None:
    x, y = torch.meshgrid(line(0, 1, 20), line(0, 1, 15), indexing="ij")
    points = torch.stack([x, y, (4 * x).sin() * y + 0.1 * random(20, 15)], -1)
    ends, corners = line(0, 1, 2), points[[0, -1]][:, [0, -1]]
    fits = [fit_surface(points, (7, 6), hold=hold) for hold in (None, "corners", "boundary")]
    for fit in fits[1:]:
        torch.testing.assert_close(fit.surface(ends, ends), corners, rtol=0, atol=1e-15)
    assert fits[0].residual < fits[1].residual < fits[2].residual < 1.2 * fits[0].residual
    for axis, n in ((0, 6), (1, 7)):
        for side in (0, -1):
            row = points.select(axis, side)
            alone = fit_curve(row, n, hold="ends", parametrization="uniform").curve
            net = fits[2].surface.control_points.select(axis, side)
            torch.testing.assert_close(net, alone.control_points)
    rational = fit_surface(points, (7, 6), hold="corners", weights=random(7, 6) + 0.5)
    torch.testing.assert_close(rational.surface(ends, ends), corners, rtol=0, atol=1e-15)
    least = fit_surface(points, (4, 4), hold="corners", degree=(1, 3)).residual
    assert least.isfinite()


def test_held_and_closed_fits_differentiate() -> None:
    points = RING[::3].clone().requires_grad_()
    u = line(0, 1, 18)[:-1]

    def held(points: Tensor) -> Tensor:
        return fit_curve(points, 6, parameters=u, hold="ends").curve.control_points

    def closed(points: Tensor) -> Tensor:
        return fit_curve(points, 6, parameters=u, periodic=True).curve.control_points

    assert torch.autograd.gradcheck(held, points)
    assert torch.autograd.gradcheck(closed, points)


def test_closed_clouds_are_fitted_round() -> None:
    """A tube and a ring, turned, to the area they have."""
    turn = torch.linalg.qr(random(3, 3)).Q
    angle, height = 2 * torch.pi * random(500), random(500, seed=1)
    tube = torch.stack([angle.cos(), angle.sin(), height], -1) @ turn
    fit = fit_surface(tube, (10, 5), periodic=(True, False))
    assert fit.surface.area().item() == pytest.approx(2 * torch.pi, rel=0.04)  # its rims are ragged
    other = 2 * torch.pi * height
    rho = 1 + 0.4 * other.cos()
    ring = torch.stack([rho * angle.cos(), rho * angle.sin(), 0.4 * other.sin()], -1) @ turn
    fit = fit_surface(ring, (12, 8), periodic=True)
    assert fit.surface.area().item() == pytest.approx(4 * torch.pi**2 * 0.4, rel=0.02)
    assert fit.residual.sqrt() < 2e-3


@pytest.mark.parametrize("projections", [0, 4])
def test_a_cloud_that_is_no_graph_is_named_and_its_net_stays_near(projections: int) -> None:
    angle = 2 * torch.pi * random(500)
    tube = torch.stack([angle.cos(), angle.sin(), random(500, seed=1)], -1)
    with pytest.warns(UserWarning, match="no graph over a plane|times as far"):
        fit = fit_surface(tube, (12, 6), projections=projections)
    assert fit.surface.control_points.abs().max() < 30


def test_seconds_and_a_bar(capsys: pytest.CaptureFixture) -> None:
    points = torch.stack([LINE, (9 * LINE).sin()], -1)
    options = {"free": ("control_points", "knots"), "projections": 50}
    fit = fit_curve(points, 8, seconds=1e-9, **options)
    assert fit.status is FitStatus.BUDGET
    assert "raise `seconds`" in str(fit.status)
    assert fit.iterations == 0
    assert fit.residual.isfinite()
    fit_curve(points, 8, progress=True, **(options | {"projections": 2}))
    assert "residual=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"metod": "chord"}, TypeError, "`fit_surface` has no option `metod`. It has shape, degree, free, uv, param"),
        (
            {"projection": 3},
            TypeError,
            "no option `projection`. Did you mean 'projections'. It has .*seconds, progress",
        ),
        ({"free": ("control_points", "knot")}, ValueError, '"knots", "weights"; got .*Did you mean \'knots\'?'),
        ({"hold": "corner"}, ValueError, "None, \"corners\" or \"boundary\"; got 'corner'. Did you mean 'corners'?"),
        ({"hold": "corners", "uv": random(30, 2)}, ValueError, "needs a grid of points"),
        ({"hold": "corners", "periodic": True}, ValueError, "needs ends: no direction periodic"),
        ({"hold": "boundary", "smoothing": 1.0}, ValueError, "needs no weights and no smoothing"),
        ({"hold": "corners", "knots": [line(0, 1, 8)] * 2}, ValueError, "needs clamped knots"),
        ({"periodic": (True, True, True)}, ValueError, "`periodic` of a `fit_surface` must be one bool"),
        ({"periodic": True, "free": ("control_points", "knots")}, ValueError, "go with fixed knots and weights"),
        ({"seconds": 0}, ValueError, "None or a positive number; got 0"),
    ],
)
def test_wrong_options_name_the_right_ones(change: dict, kind: type[Exception], message: str) -> None:
    points = random(30, 3) if "uv" in change else random(9, 8, 3)
    with pytest.raises(kind, match=message):
        fit_surface(points, **{"shape": (4, 4)} | change)


def test_a_periodic_curve_has_no_ends_to_hold() -> None:
    with pytest.raises(ValueError, match="needs ends; a periodic curve has none"):
        fit_curve(RING, 8, periodic=True, hold="ends")
