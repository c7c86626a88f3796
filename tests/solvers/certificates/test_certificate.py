"""Certificates bracket the error and find it within a few per cent; predictions meet their tolerance."""

from typing import Any

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, by_cell_tag, unit_cube, unit_interval, unit_square
from solvers import AlgebraicMultigrid, Direct, ExponentialSeries, Multigrid, Newton, UNet, certify, minimize, predict
from tests.problems import diffusion, laplace


def family(items=8, n=32, degree=1, bound=3.0) -> Any:
    """Diffusion from left to right through fields of the series."""
    V = FunctionSpace(unit_square(n), Lagrange(degree))
    energy = Energy(V, diffusion, Dirichlet(V, {"left": 1.0, "right": 0.0}))
    series = ExponentialSeries(bound=bound)
    params = (V.function(series(series.sample(items), V.dof_coordinates)),)
    return V, energy, params, minimize(energy, params, method=Newton(Direct())).value


def size(energy, params, u):
    """The energy norm, from the energy of u with boundary values of its own."""
    return (2 * Energy(energy.space, energy.terms[0].density)(u, *params)).sqrt()


def wrong(u, kind):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(u.shape, generator=generator, dtype=u.dtype)
    if kind == "noise":
        return u + 1e-2 * noise
    image = noise.unflatten(-1, (round(u.shape[-1] ** 0.5),) * 2).cumsum(-1).cumsum(-2)
    return u + 1e-3 * image.flatten(-2)


@pytest.mark.parametrize("kind", ["noise", "smooth"])
@pytest.mark.parametrize("degree", [1, 2])
def test_the_error_is_found_and_bracketed(kind, degree):
    _, energy, params, u = family(degree=degree)
    v = energy.constraint.apply(wrong(u, kind))
    found = certify(energy, v, params)
    truth = size(energy, params, v - u)
    ratio = found.energy_error / truth
    assert 0.9 < float(ratio.min()) <= float(ratio.max()) < 1 + 1e-6
    assert bool((found.bracket[0] <= truth * (1 + 1e-6)).all())
    assert bool((truth <= found.bracket[1]).all())
    torch.testing.assert_close(found.relative, truth / size(energy, params, u), rtol=0.2, atol=0)
    torch.testing.assert_close(found.gap, energy(v, *params) - energy(u, *params), rtol=0.2, atol=0)


def test_the_indicator_is_where_the_error_is():
    V, energy, params, u = family()
    x = V.dof_coordinates
    v = u + 0.1 * (1 - (x - 0.75).square().sum(-1) / 0.04).clamp(min=0)
    found = certify(energy, v, params)
    assert found.indicator.shape == (8, V.mesh.num_cells)
    centres = V.mesh.nodes[V.mesh.blocks[0].connectivity].mean(1)
    near = (centres - 0.75).norm(dim=-1) < 0.25
    share = found.indicator[:, near].square().sum(-1) / found.indicator.square().sum(-1)
    assert float(share.min()) > 0.8
    total = found.indicator.square().sum(-1).sqrt()
    assert bool((total <= found.energy_error * (1 + 1e-6)).all())
    assert bool((total > 0.8 * found.energy_error).all())


@pytest.mark.parametrize("mesh", [unit_interval(50), unit_cube(8)])
def test_other_dimensions_loads_and_robin_sides(mesh):
    V = FunctionSpace(mesh, Lagrange(1))
    robin = {"right": lambda x, u, normal: 0.5 * (u - 1).square()}
    held = Dirichlet(V, {"left": 0.5})
    energy = Energy(V, lambda x, u, g: g.square().sum(-1) + u.square() - x[..., 0] * u, held, robin)
    u = minimize(energy).value
    v = held.apply(u + 0.1 * torch.rand(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype))
    found, gap = certify(energy, v), float(energy(v) - energy(u))
    assert 0.9 < float(found.gap) / gap < 1 + 1e-6
    assert gap < 0.5 * float(found.bracket[1]) ** 2
    assert float(found.indicator.square().sum()) == pytest.approx(2 * gap, rel=0.2)


def test_the_minimiser_has_no_error():
    _, energy, params, u = family()
    found = certify(energy, u, params)
    assert float(found.relative.max()) < 1e-10


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
def test_predictions_meet_their_tolerance(tol):
    V, energy, params, u = family()
    torch.manual_seed(0)
    network = UNet(width=4)
    image = V.to_grid(params[0].values.log()).float()[:, None]
    found = predict(network, energy, image, params, tol)
    assert network.training
    assert bool((found.certificate.bracket[1] <= 1.1 * tol * size(energy, params, u)).all())
    assert bool((size(energy, params, found.value - u) <= tol * size(energy, params, u)).all())
    assert bool((found.cycles > 0).all())
    assert int(found.cycles.max()) < 30


def test_without_a_tolerance_the_answer_is_the_network_s():
    V, energy, params, _ = family(2)
    network = lambda image: 0.5 * image[:, 0]  # noqa: E731
    found = predict(network, energy, V.to_grid(params[0].values)[:, None], params, None)
    assert int(found.cycles.max()) == 0
    torch.testing.assert_close(found.value, energy.constraint.apply(0.5 * params[0].values))


def test_each_part_of_a_network_stays_in_its_mode():
    V, energy, params, _ = family(2)
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).double()
    network[2].eval()
    seen = [predict(network, energy, V.to_grid(params[0].values)[:, None], params, None).value for _ in range(2)]
    assert [m.training for m in network] == [True, True, False]
    torch.testing.assert_close(*seen)


def test_a_good_answer_is_left_alone():
    V, energy, params, u = family(2)
    found = predict(lambda image: image, energy, V.to_grid(u), params, 1e-6)
    assert int(found.cycles.max()) == 0
    torch.testing.assert_close(found.value, u)


def test_what_cannot_be_certified():
    V, energy, params, u = family(2)
    with pytest.raises(ValueError, match="quadratic energies; the Hessian of this one depends on u"):
        certify(Energy(V, lambda x, u, g: u**4 + g.square().sum(-1)), u)
    with pytest.raises(ValueError, match="not convex: is a coefficient negative or zero"):
        certify(energy, u, (V.function(-params[0].values),))
    with pytest.raises(ValueError, match="parameter 0 is nan"):
        certify(energy, u, (V.function(params[0].values * torch.nan),))
    with pytest.raises(ValueError, match="`v` holds values that are not finite"):
        certify(energy, u / 0, params)
    with pytest.raises(ValueError, match=r"`v` is a batch \(2,\) of fields and the parameters are a batch \(3,\)"):
        certify(energy, u, (V.function(torch.ones(3, V.num_dofs, dtype=V.dtype)),))
    with pytest.raises(ValueError, match="the batch is empty"):
        certify(energy, u[:0], (V.function(params[0].values[:0]),))
    with pytest.raises(ValueError, match="the network's answer to item 1 is not finite"):
        predict(lambda image: image / torch.tensor([1.0, 0.0])[:, None, None], energy, V.to_grid(u), params)
    for shear, method in ((1.2, Direct()), (2.0, Direct()), (2.0, Multigrid())):  # diagonals are positive

        def saddle(x, u, g, shear=shear):
            return laplace(x, u, g) + shear * g[..., 0] * g[..., 1]

        with pytest.raises(ValueError, match="not convex: is a coefficient negative or zero"):
            certify(Energy(V, saddle, energy.constraint), u, method=method)
    for value in (-1e2, -1e3):  # at one node, where the diagonal may stay positive
        nu = params[0].values.clone()
        nu[1, 500] = value
        with pytest.raises(ValueError, match="not convex: is a coefficient negative or zero"):
            certify(energy, u + 0.1, (V.function(nu),))
    with pytest.raises(ValueError, match="`from_grid` needs an image of shape"):
        predict(lambda image: image[..., 1:], energy, V.to_grid(u), params)
    with pytest.raises(ValueError, match="must be None or a number between 0 and 1"):
        predict(lambda image: image, energy, V.to_grid(u), params, 2.0)


def test_unstructured_meshes_take_another_preconditioner():
    mesh = unit_square(12, cell="triangle").with_tags(
        cell_tags={"a": lambda x: x[..., 0] < 0.5, "b": lambda x: x[..., 0] > 0.5}
    )
    V = FunctionSpace(mesh, Lagrange(2))
    held = Dirichlet(V, {"left": 1.0, "right": 0.0})
    energy = Energy(V, diffusion, held)
    params = (by_cell_tag({"a": 1.0, "b": 50.0}),)
    v = torch.rand(V.shape, generator=torch.Generator().manual_seed(0), dtype=V.dtype)
    v = held.apply(v)
    truth = size(energy, params, v - minimize(energy, params).value)
    for method in (None, Direct(), AlgebraicMultigrid()):
        found = certify(energy, v, params, method)
        assert 0.9 < float(found.energy_error / truth) < 1 + 1e-6


def test_certificates_and_predictions_are_shown_in_three_lines():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - u, Dirichlet(V, {"boundary": 0.0}))
    one = certify(energy, torch.zeros(V.shape, dtype=V.dtype))
    assert repr(one).startswith("Certificate(energy error between 1.")
    assert f"{float(one.bracket[0]):.3e} and {float(one.bracket[1]):.3e}; relative from 1.000e+00 on, " in repr(one)
    assert "up to a quarter low after `predict`" in repr(one)
    several = certify(energy, torch.zeros(3, *V.shape, dtype=V.dtype))
    assert repr(several).startswith("Certificate(worst of 3 items: energy error between ")
    prediction = predict(lambda images: images[:, 0], energy, torch.zeros(2, 1, 5, 5, dtype=V.dtype), tol=1e-8)
    lines = repr(prediction).splitlines()
    assert lines[0].startswith("Prediction(value (2, 25), cycles ≤ ")
    assert len(lines) == 2


@pytest.mark.parametrize("way", [torch.func.grad, torch.vmap])
def test_certificates_are_refused_under_transformations_of_pytorch(way):
    V = FunctionSpace(unit_square(4), Lagrange(1))
    energy, v = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u), V.interpolate(0.0)
    k = torch.ones(() if way is torch.func.grad else (2,), dtype=torch.float64)
    with pytest.raises(ValueError, match="`certify` looks at numbers"):
        way(lambda k: certify(energy, v, (k,)).energy_error)(k)
