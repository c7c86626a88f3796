"""Functions on plain tensors differentiate in every way, and layers with them."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, vmap

from fem.support.transforms import carries, mapped, plainly
from segmentation import piecewise_constant
from splines import fit_piecewise

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what PyTorch runs forward mode by

A = torch.linspace(0.2, 0.9, 3, dtype=torch.float64)
B = torch.linspace(1.5, 0.7, 3, dtype=torch.float64)


def direct(a, b):
    y = (a.sin() * b).cumsum(0)
    return y, (y * y).sum(), torch.arange(3)


def opaque(a, b):
    y, total, numbers = plainly(direct, [a, b])
    assert not numbers.is_floating_point()
    return y * total


@pytest.mark.parametrize(
    "way", [jacrev, jacfwd, hessian, lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacfwd(jacfwd(f)))]
)
def test_all_orders_and_mixtures(way):
    found, expected = way(opaque)(A, B), way(lambda a, b: direct(a, b)[0] * direct(a, b)[1])(A, B)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_forward_reverse_and_batches_against_differences():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    every = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(opaque, (a, b), **every)
    assert gradgradcheck(opaque, (a, b), check_fwd_over_rev=True)


def test_what_hangs_on_a_tensor():
    assert not carries(A)
    assert not mapped(A)
    assert carries(A.clone().requires_grad_())
    seen = []

    def look(a):
        seen.append((carries(a), mapped(a)))
        return a.sum()

    vmap(look)(A[:, None])
    jacrev(look)(A)
    assert seen == [(True, True), (True, False)]


IMAGE = torch.linspace(0, 7, 36, dtype=torch.float64).sin().view(1, 1, 6, 6)
SIGNAL = torch.linspace(0, 6, 20, dtype=torch.float64).sin()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (lambda x: piecewise_constant(x, 0.2), IMAGE),
        (lambda x: piecewise_constant(x, 0.2, background="components", min_size=2), IMAGE),
        (lambda x: fit_piecewise(x, pieces=3).values, SIGNAL),
        (lambda x: fit_piecewise(x, pieces=3, mask=SIGNAL < 0.99).coefficients, SIGNAL),
    ],
)
def test_layers(layer, x):
    expected = torch.autograd.functional.jacobian(layer, x)
    assert float(expected.abs().max()) > 0
    for way in (jacrev, jacfwd):
        torch.testing.assert_close(way(layer)(x), expected, rtol=1e-9, atol=1e-11)
    batched = torch.autograd.functional.jacobian(layer, x, vectorize=True)
    torch.testing.assert_close(batched, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(vmap(layer)(torch.stack([x, 2 * x]))[0], layer(x), rtol=1e-12, atol=0)
