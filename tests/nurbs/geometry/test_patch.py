"""Patches against SciPy on homogeneous coordinates, their derivatives by gradcheck, knots by the closed formula."""

import numpy as np
import pytest
import torch
from scipy.interpolate import NdBSpline
from torch.autograd import gradcheck, gradgradcheck

from fem.reference.bspline import basis_matrix
from nurbs import Curve, Surface, Volume

KINDS = (Curve, Surface, Volume)


def draw(kind, degree, batch=(), rational=True, repeat=False, seed=0):
    """A random patch with knots of its own per item; with `repeat` one inner knot of multiplicity `degree`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    r = kind.directions
    shape = [degree + 3 + axis for axis in range(r)]
    knots = []
    for n in shape:
        inner = random(*batch, n - degree - 1).sort(-1).values
        if repeat:
            inner[..., :degree] = inner[..., :1]
        ends = torch.ones(*batch, degree + 1, dtype=torch.float64)
        knots.append(torch.cat([0 * ends, inner.sort(-1).values, ends], -1))
    weights = random(*batch, *shape) + 0.5 if rational else None
    return kind(random(*batch, *shape, 3), weights, knots, degree)


def parameters(r, num=4):
    return [torch.linspace(0, 1, num + axis, dtype=torch.float64) for axis in range(r)]


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("degree", range(1, 6))
@pytest.mark.parametrize("kind", KINDS)
def test_values_agree_with_scipy_on_homogeneous_coordinates(kind, degree, repeat):
    patch = draw(kind, degree, batch=(2,), repeat=repeat)
    grid = parameters(kind.directions)
    values = patch(*grid)
    points = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1)
    for item in range(2):
        one = patch[item]
        reference = NdBSpline(tuple(t.numpy() for t in one.knots), one.homogeneous.numpy(), degree)(points.numpy())
        assert np.abs(reference[..., :-1] / reference[..., -1:] - values[item].numpy()).max() < 1e-13
    scattered = patch.at(points.reshape(-1, kind.directions))
    assert torch.allclose(scattered.reshape(values.shape), values, rtol=0, atol=1e-13)
    corner = (slice(None), *(0,) * kind.directions)
    assert torch.allclose(values[corner], patch.control_points[corner], rtol=1e-15, atol=0)  # (w P) / w rounds twice
    assert torch.equal(patch.replace(weights=None)(*grid)[corner], patch.control_points[corner])


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("degree", range(1, 6))
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_everything(kind, degree, scattered):
    patch = draw(kind, degree, batch=(2,))
    grid = [u[1:-1] + 0.01 for u in parameters(kind.directions)]
    points = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1).reshape(-1, kind.directions)
    given = (points,) if scattered else grid
    inputs = [x.requires_grad_() for x in (patch.control_points, patch.weights, *patch.knots, *given)]

    def evaluate(points, weights, *rest):
        knots, at = rest[: kind.directions], rest[kind.directions :]
        new = kind(points, weights, knots, degree, check_finite=False)
        return new.at(*at) if scattered else new(*at)

    assert gradcheck(evaluate, inputs, fast_mode=True)
    assert gradgradcheck(evaluate, inputs, fast_mode=True)


def test_derivatives_of_rational_patches_are_those_of_their_values():
    surface = draw(Surface, 4)
    u = torch.tensor([[0.31, 0.72]], dtype=torch.float64, requires_grad=True)
    for order in ((1, 0), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (2, 2)):
        value = surface.at(u)[..., 0].sum()
        for axis, times in enumerate(order):
            for _ in range(times):
                value = torch.autograd.grad(value, u, create_graph=True)[0][0, axis]
        for found in (surface.derivative_at(u, order), surface.derivative(u[:, 0], u[:, 1], order=order)):
            assert torch.allclose(found.flatten()[0], value, rtol=1e-9)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_knot_gradients_equal_the_closed_formula(degree):
    curve = draw(Curve, degree, rational=False)
    knots, points = curve.knots[0].requires_grad_(), curve.control_points
    u = torch.tensor([0.37], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: Curve(points, None, t, degree)(u)[0], knots)
    t = knots.detach()
    for j in range(degree + 1, len(t) - degree - 1):
        finer = torch.cat([t[: j + 1], t[j : j + 1], t[j + 1 :]])
        table = basis_matrix(finer, degree, u)[0, 0]
        i = torch.arange(j - degree, j + 1)
        expected = (table[i] / (t[i + degree] - t[i])) @ (points[i - 1] - points[i])
        assert torch.allclose(jacobian[:, j], expected, rtol=1e-12, atol=1e-12)


def test_gaussian_gradients_of_steps_are_jumps_times_the_gaussian():
    points = torch.tensor([[1.0], [4.0], [2.0]], dtype=torch.float64)
    u = torch.linspace(0, 1, 7, dtype=torch.float64)

    def jacobian(degree, points, knots):
        def values(t):
            return Curve(points, None, t, degree, knot_gradient="gaussian", sigma=0.2)(u)[:, 0]

        return torch.autograd.functional.jacobian(values, torch.tensor(knots, dtype=torch.float64))

    found = jacobian(0, points, [0, 0.25, 0.6, 1])
    for j, (knot, jump) in enumerate([(0.25, 1 - 4), (0.6, 4 - 2)], 1):
        gauss = torch.distributions.Normal(knot, 0.2).log_prob(u).exp()
        assert torch.allclose(found[:, j], jump * gauss)
    # at a double knot of a discontinuous line the outer pieces meet: one jump, shared between the copies
    line = torch.tensor([[0.0], [1.0], [3.0], [3.0]], dtype=torch.float64)
    both = jacobian(1, line, [0, 0, 0.5, 0.5, 1, 1])[:, 2:4].sum(-1)
    pieces = torch.where(u < 0.5, 2.0, 0.0) * -torch.where(u < 0.5, u, 0 * u) / 0.5
    gauss = torch.distributions.Normal(0.5, 0.2).log_prob(u).exp()
    assert torch.allclose(both, pieces + (2 * u - 3) * gauss)


def test_gaussian_knot_gradients_converge_to_the_exact_ones():
    exact = draw(Surface, 2, rational=False)
    grid = [torch.linspace(0, 1, 400, dtype=torch.float64)] * 2

    def gradient(patch):
        knots = [t.clone().requires_grad_() for t in patch.knots]
        loss = patch.replace(knots=knots)(*grid).square().mean()
        return torch.cat(torch.autograd.grad(loss, knots))

    true = gradient(exact)
    errors = [
        (gradient(exact.replace(knot_gradient="gaussian", sigma=sigma)) - true).norm() for sigma in (0.1, 0.03, 0.01)
    ]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


@pytest.mark.parametrize("kind", KINDS)
def test_scattered_evaluation_keeps_spans_and_functions_but_no_gathered_points(kind):
    r, q = kind.directions, 1001
    points = torch.rand(*[10] * r, 3, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.shape), x)[1], lambda x: x):
        kind(points, degree=3).at(torch.rand(q, r, dtype=torch.float64))
    assert sum(shape.numel() for shape in kept if q in shape) <= q * (1 + 4 * r)


@pytest.mark.parametrize("kind", KINDS)
def test_portions_of_points_add_up(kind, monkeypatch):
    patch, points = draw(kind, 2), torch.rand(50, kind.directions, dtype=torch.float64)
    inputs = [patch.control_points.requires_grad_(), *(t.requires_grad_() for t in patch.knots)]
    whole = torch.autograd.grad(patch.at(points).square().sum(), inputs)
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * 7 * 4 * 3**kind.directions)
    parts = torch.autograd.grad(patch.at(points).square().sum(), inputs)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(whole, parts, strict=True))


def test_double_and_triple_knots_give_finite_gradients():
    for patch in (draw(Curve, 3, repeat=True), draw(Surface, 2, repeat=True)):
        knots = [t.requires_grad_() for t in patch.knots]
        values = patch(*parameters(patch.directions, 9))
        gradients = torch.autograd.grad(values.square().sum(), knots)
        assert all(g.isfinite().all() for g in gradients)


def test_periodic_curves_have_no_ends():
    curve = Curve(torch.rand(6, 2, dtype=torch.float64), degree=3, periodic=True)
    u = torch.tensor([0.0, 0.3], dtype=torch.float64)
    assert torch.allclose(curve(u), curve(u + 1))
    rolled = curve.replace(control_points=curve.control_points.roll(-1, 0))
    around = torch.linspace(0, 1, 25, dtype=torch.float64)
    assert torch.allclose(rolled(around), curve(around + 1 / 6), atol=1e-14)
    assert torch.allclose(curve.unwrapped()(around), curve(around), atol=1e-15)
    assert torch.allclose(curve.derivative(u, order=2), curve.derivative(u - 1, order=2))
    seam = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(curve(seam)[:, 0].sum(), seam)[0]
    assert torch.allclose(slope, curve.derivative(seam.detach(), order=1)[:, 0])


def test_a_learned_patch_is_the_patch_it_was_made_from():
    patch = draw(Surface, 3, batch=(2,))
    module = patch.learn("control_points", "weights", "knots")
    grid = parameters(2)
    assert torch.allclose(module(*grid), patch(*grid), atol=1e-9)
    module(*grid).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_learnt_knots_stay_in_order_and_equal_ones_equal():
    knots = torch.tensor([0, 0, 0, 0.2, 0.5, 0.5, 1, 1, 1], dtype=torch.float64)
    module = Curve(torch.rand(6, 2, dtype=torch.float64), None, knots, 2).learn("knots", floor=1e-3)
    with torch.no_grad():
        module.knots["u"].get_parameter("logits").mul_(100)
    moved = module.patch.knots[0]
    assert torch.equal(moved.diff() > 0, knots.diff() > 0)
    assert moved.diff()[knots.diff() > 0].min() >= 0.999e-3 / 3
    assert torch.equal(moved[[0, -1]], knots[[0, -1]])
    with pytest.raises(ValueError, match="takes some of"):
        module.patch.learn("knot")
    with pytest.raises(ValueError, match="must lie in"):
        module.patch.learn("knots", floor=-1.0)


def test_single_precision_stays_single():
    patch = draw(Surface, 3, batch=(2,))
    grid = parameters(2)
    values = patch.to(torch.float32)(*(u.float() for u in grid))
    assert values.dtype == torch.float32
    assert torch.allclose(values.double(), patch(*grid), atol=1e-5)
    with pytest.raises(TypeError, match="float64"):
        patch(*(u.float() for u in grid))


def test_errors_name_what_was_given():
    points = torch.rand(5, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="not decrease"):
        Curve(points, None, torch.tensor([0, 0, 0, 0.6, 0.5, 1, 1, 1], dtype=torch.float64), 2)
    with pytest.raises(ValueError, match="at least degree"):
        Curve(points, degree=5)
    with pytest.raises(ValueError, match="positive and finite"):
        Curve(points, torch.tensor([1, 1, 0, 1, 1], dtype=torch.float64), degree=2)
    with pytest.raises(ValueError, match="must be finite"):
        Curve(points * torch.nan, degree=2)
    with pytest.raises(ValueError, match="must lie in the range"):
        Curve(points, degree=2)(torch.tensor([1.5], dtype=torch.float64))
    with pytest.raises(ValueError, match="must be one int or one per direction"):
        Curve(points, degree=(2, 2))
    with pytest.raises(ValueError, match="must be one bool or one per direction"):
        Surface(points[None].expand(5, 5, 2), degree=2, periodic=(True,))
    with pytest.raises(ValueError, match="must broadcast"):
        Curve(points.expand(2, 5, 2), torch.ones(3, 5, dtype=torch.float64), degree=2)
