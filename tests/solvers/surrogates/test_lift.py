"""Boundary values are exact whatever the network says, in any precision, with finite derivatives."""

import pytest
import torch
from torch import nn

from fem import FunctionSpace, Lagrange, unit_cube, unit_square
from solvers import BoundedLift, Lift, UNet
from solvers.surrogates.lift import nodal_values, positions


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image):
        return self.value * torch.ones_like(image)


@pytest.mark.parametrize("value", [-1e4, -3.0, 0.0, 5.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_lifts_stay_between_their_bounds_and_are_exact_at_the_ends(value, dtype):
    network = BoundedLift(Constant(value), lambda x: 3 - x[..., 0], lower=2.0, upper=3.0).to(dtype)
    u = network(torch.zeros(2, 1, 9, 17, dtype=dtype))
    u.sum().backward()
    assert bool(network.network.get_parameter("value").grad.isfinite())
    u = u.detach()
    assert u.dtype == dtype
    assert bool((u[..., 0] == 3).all())
    assert bool((u[..., -1] == 2).all())
    assert 2 <= float(u.min()) <= float(u.max()) <= 3


def test_without_a_correction_the_lift_is_its_base():
    x = positions((5, 9), torch.zeros((), dtype=torch.float64))
    for network in (
        BoundedLift(Constant(0.0), lambda x: 1 - x[..., 0]),
        Lift(Constant(0.0), lambda x: 1 - x[..., 0], lambda x: x[..., 0] * (1 - x[..., 0])),
    ):
        u = network.double()(torch.zeros(1, 1, 5, 9, dtype=torch.float64))
        torch.testing.assert_close(u[0, 0], 1 - x[..., 0])


def test_on_a_line_the_correction_is_the_logarithm_of_a_ratio_of_resistances():
    """u = R(x, 1)/R(0, 1), R the integral of 1/ν: logit u − logit (1 − x) = log R(x, 1)/(1 − x) − log R(0, x)/x."""
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    ones = torch.ones(1, 1, 2, 1001, dtype=torch.float64)
    for contrast in (1.0, 5.0, 10.0):
        mid = 0.5 * (x[1:] + x[:-1])
        left = torch.cat([x[:1], (torch.exp(-contrast * torch.sin(6 * mid)) / 1000).cumsum(0)])
        u = 1 - left / left[-1]
        correction = torch.log((u / (1 - x)) / ((1 - u) / x)).nan_to_num()
        assert float(correction.abs().max()) < 2 * contrast + 1e-12

        class Given(nn.Module):
            def forward(self, image, value=correction):
                return value * image

        found = BoundedLift(Given(), lambda x: 1 - x[..., 0])(ones)
        torch.testing.assert_close(found[0, 0, 0], u, atol=1e-7, rtol=0)


def test_lifts_are_exact_in_half_precision_too():
    torch.manual_seed(0)
    inner = UNet(width=4)
    for network in (
        BoundedLift(inner, lambda x: 1 - x[..., 0]),
        Lift(inner, lambda x: 1 - x[..., 0], lambda x: x[..., 0] * (1 - x[..., 0])),
    ):
        image = torch.randn(1, 1, 17, 17)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            u = network(image)
        assert u.dtype == torch.float32
        assert bool((u[..., 0] == 1).all())
        assert float(u[..., -1].abs().max()) == 0
        with torch.no_grad():
            single = network(image)
        torch.testing.assert_close(u, single, atol=0.1, rtol=0)
        assert not torch.equal(u, single)


def test_images_are_dofs_of_scalar_and_vector_spaces():
    V = FunctionSpace(unit_square(3, 2), Lagrange(2))
    image = torch.randn(2, 1, 5, 7)
    assert torch.equal(nodal_values(V, image), V.from_grid(image[:, 0]).double())
    assert torch.equal(nodal_values(V, image[:, 0]), V.from_grid(image[:, 0]).double())
    W = FunctionSpace(unit_cube(2), Lagrange(1), components=3)
    assert nodal_values(W, torch.randn(2, 3, 3, 3, 3)).shape == (2, 27, 3)
    with pytest.raises(ValueError, match="`from_grid` needs an image of shape"):
        nodal_values(V, torch.randn(2, 1, 7, 5))


def test_bounds_in_order():
    with pytest.raises(ValueError, match=r"needs lower < upper; got 1.0 and 0.0"):
        BoundedLift(UNet(), lambda x: x[..., 0], lower=1.0, upper=0.0)
