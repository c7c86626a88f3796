"""Quotients: their derivatives of any order against automatic differentiation, in both modes."""

import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from fem.reference.rational import divide, lower_orders, quotient

ORDERS = [(0, 0), (1, 0), (3, 0), (1, 2), (2, 2)]


def derivatives(f, x: Tensor, y: Tensor) -> dict[tuple[int, ...], Tensor]:
    """Of f(x, y), by automatic differentiation, at all multi-indices up to ORDERS."""
    found = {}
    for order in lower_orders(ORDERS):
        value = f(x, y)
        for variable, count in zip((x, y), order, strict=True):
            for _ in range(count):
                (value,) = grad(value.sum(), variable, create_graph=True)
        found[order] = value
    return found


def test_derivatives_of_quotients_are_those_of_autograd():
    x, y = torch.linspace(0.1, 0.9, 10, dtype=torch.float64).view(2, 5).requires_grad_().unbind(0)
    numerator = lambda x, y: (x * y).exp() + x**3 * y**2  # noqa: E731
    denominator = lambda x, y: 2 + (x - y).sin()  # noqa: E731
    found = divide(derivatives(numerator, x, y), derivatives(denominator, x, y), ORDERS)
    expected = derivatives(lambda x, y: numerator(x, y) / denominator(x, y), x, y)
    for order, value in zip(ORDERS, found, strict=True):
        assert torch.allclose(value, expected[order], rtol=1e-12, atol=1e-12), order


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_quotients_differentiate_in_both_modes():
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 3), (4, 3, 2), (4, 3, 2, 2), (4,), (4, 2), (4, 2, 2)
    parts = [torch.rand(s, dtype=torch.float64, generator=generator) + 1 for s in shapes]
    parts[2], parts[5] = parts[2] + parts[2].mT, parts[5] + parts[5].mT
    inputs = [p.requires_grad_() for p in parts]
    f = lambda *parts: quotient(parts[:3], parts[3:])[1]  # noqa: E731
    assert gradcheck(f, inputs, check_forward_ad=True)
    assert gradgradcheck(f, inputs)
    value, first, second = quotient(parts[:3], parts[3:])
    w, dw, ddw = (p[:, None] for p in parts[3:])
    assert torch.allclose(value * w, parts[0])
    assert torch.allclose(first * w[..., None] + value[..., None] * dw, parts[1])
    cross = first[..., :, None] * dw[..., None, :]
    product = second * w[..., None, None] + cross + cross.mT + value[..., None, None] * ddw
    assert torch.allclose(product, parts[2])
