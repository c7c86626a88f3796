"""Networks as trial functions: derivatives, boundary values, and losses against what they must be."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from fem import Energy, FunctionSpace, Lagrange, unit_interval, unit_square
from solvers import PINN, deep_ritz, gauss_points, mismatch, strong_form
from solvers.pinn.network import Tanh, jet_of
from tests.problems import conduction


def bubble(x):
    return (x * (1 - x)).prod(-1)


def lift(x):
    return 1 + torch.exp(x[..., 0]) * x.sum(-1)


def network_of(dim, **settings):
    torch.manual_seed(dim)
    return PINN(dim, width=8, depth=3, **settings)


def points_of(dim, count=11):
    return torch.rand(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"distance": bubble}, {"distance": bubble, "lift": lift}])
def test_derivatives_are_those_of_nested_automatic_differentiation(dim, settings):
    network, x = network_of(dim, **settings), points_of(dim)
    leaf = x.clone().requires_grad_()
    value = network(leaf)
    (grad,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    rows = [torch.autograd.grad(grad[:, i].sum(), leaf, create_graph=True)[0][:, i] for i in range(dim)]
    wanted = (value, grad, torch.stack(rows).sum(0))
    u = network.jet(network.at(x))
    assert u.laplacian is not None
    found = (u.value, u.grad, u.laplacian)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # And so are the gradients of a loss in the parameters.
    sums = [
        sum(((k + 1) * t.square().sum() for k, t in enumerate(parts)), torch.zeros(())) for parts in (found, wanted)
    ]
    for a, b in zip(*[torch.autograd.grad(s, list(network.parameters())) for s in sums], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("laplacian", [False, True])
def test_the_layer_differentiates_exactly(dim, laplacian):
    z = torch.randn(dim + 1 + laplacian, 4, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, b: Tanh.apply(z, b, dim), (z, bias))


def test_first_derivatives_alone_are_the_same():
    network, x = network_of(2, distance=bubble, lift=lift), points_of(2)
    short, full = network.jet(network.at(x), laplacian=False), network.jet(network.at(x))
    assert short.laplacian is None
    torch.testing.assert_close(short.value, full.value, rtol=0, atol=0)
    torch.testing.assert_close(short.grad, full.grad, rtol=1e-14, atol=1e-14)


def test_boundary_values_are_exact_whatever_the_parameters():
    network, mesh = network_of(2, distance=bubble, lift=lift), unit_square(5)
    edge = mesh.nodes[FunctionSpace(mesh, Lagrange(1)).dofs("boundary")]
    assert torch.equal(network(edge), lift(edge))
    assert float(mismatch(network, edge, lift).detach()) == 0
    inside = torch.full((2,), 0.5, dtype=torch.float64)
    assert network(inside).shape == ()  # batches of any shape
    assert float((network(inside) - lift(inside)).detach().abs()) > 1e-3


def test_functions_that_are_constant_or_linear_have_the_derivatives_they_have():
    x = points_of(2)
    for function, slope in ((lambda x: torch.ones_like(x[..., 0]), 0.0), (lambda x: x.sum(-1), 1.0)):
        found = jet_of(function, x)
        assert found.laplacian is not None
        torch.testing.assert_close(found.grad, torch.full_like(x, slope))
        torch.testing.assert_close(found.laplacian, torch.zeros_like(x[:, 0]))


def test_the_energy_of_deep_ritz_is_that_of_finite_elements():
    """A network without hidden curvature, u = c x(1 − x), is in the space of degree 2."""

    def load(x):
        return 1 + x[..., 0]

    network = network_of(1, distance=bubble)
    with torch.no_grad():
        network.layers[-1].weight.zero_()
        network.layers[-1].bias.fill_(3.0)
    V = FunctionSpace(unit_interval(4), Lagrange(2))
    points = network.at(*gauss_points(V.mesh, degree=5))
    found = deep_ritz(network, points, conduction, (2.0, load))
    wanted = Energy(V, conduction)(V.interpolate(lambda x: 3 * bubble(x)), 2.0, load)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-14, atol=0)
    # −Δu = 6 here, so the squared residual of −Δu = 4 integrates to 4, and its mean is the same.
    for p in (points, network.at(points_of(1))):
        loss = strong_form(network, p, lambda x, u, grad_u, laplacian_u: laplacian_u + 4)
        torch.testing.assert_close(loss.detach(), torch.tensor(4.0, dtype=torch.float64))


def test_quadrature_points_integrate():
    x, weights = gauss_points(unit_square(2, 3), degree=5)
    assert x.shape == (6 * 9, 2)
    torch.testing.assert_close(weights @ (x[:, 0] ** 5 * x[:, 1] ** 3), torch.tensor(1 / 24, dtype=torch.float64))


def test_single_precision_and_the_seed_are_the_users():
    torch.manual_seed(3)
    a = PINN(2, dtype=torch.float32)
    torch.manual_seed(3)
    b = PINN(2, dtype=torch.float32)
    x = torch.rand(5, 2)
    assert a(x).dtype == torch.float32
    assert torch.equal(a(x), b(x))


def test_what_does_not_fit_is_told():
    network = network_of(2)
    with pytest.raises(ValueError, match=r"takes points \(\.\.\., 2\); got a tensor of shape \(4, 3\)"):
        network(torch.rand(4, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"computes in torch\.float64; got points in torch\.float32"):
        network.at(torch.rand(4, 2))
    wrong: tuple[dict[str, Any], ...] = ({"dim": 0}, {"dim": 1, "width": 0}, {"dim": 1, "depth": 0})
    for settings in wrong:
        with pytest.raises(ValueError, match="must be a positive integer; got 0"):
            PINN(**settings)
    with pytest.raises(ValueError, match="only together with `distance=`"):
        PINN(2, lift=lift)
    with pytest.raises(
        ValueError, match=r"`distance` of points \(11, 2\) must have shape \(11,\); got shape \(11, 2\)"
    ):
        network_of(2, distance=lambda x: x).at(points_of(2))
    with pytest.raises(ValueError, match=r"`lift` of points \(11, 2\) must have shape \(11,\); got 1\.0"):
        network_of(2, distance=bubble, lift=lambda x: 1.0).at(points_of(2))
    with pytest.raises(ValueError, match="`distance` or one of its first two derivatives is not finite"):
        network_of(1, distance=lambda x: x[..., 0].sqrt()).at(torch.zeros(1, 1, dtype=torch.float64))


def ritz_loss(network: PINN, points: Any) -> Tensor:
    return deep_ritz(network, points, lambda x, u, g: 0.5 * g.square().sum(-1) + u**3 - u)


def residual_loss(network: PINN, points: Any) -> Tensor:
    return strong_form(network, points, lambda x, u, g, laplacian: laplacian + u * u + 1)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what PyTorch runs forward mode by
@pytest.mark.parametrize("loss", [ritz_loss, residual_loss])
def test_losses_under_transformations_of_pytorch(loss: Any) -> None:
    """Gradients, tangents, maps over weights and Hessian products are those of reverse mode and of differences."""
    torch.manual_seed(0)
    network = PINN(2, 5, 3, distance=lambda x: (x * (1 - x)).prod(-1))
    points = network.at(torch.rand(7, 2, dtype=torch.float64))

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self) -> Tensor:
            return loss(self.network, points)

    module = Loss()
    weights = {name: p.detach() for name, p in module.named_parameters()}
    along = {name: torch.randn_like(p) for name, p in weights.items()}
    at = lambda w: functional_call(module, w, ())  # noqa: E731
    moved = lambda t: {name: p + t * along[name] for name, p in weights.items()}  # noqa: E731
    slope = dict(zip(weights, torch.autograd.grad(module(), list(module.parameters())), strict=True))
    torch.testing.assert_close(grad(at)(weights), slope)
    rate = torch.stack([(slope[name] * along[name]).sum() for name in weights]).sum()
    torch.testing.assert_close(jvp(at, (weights,), (along,))[1], rate)
    with forward_ad.dual_level():
        dual = at({name: forward_ad.make_dual(p, along[name]) for name, p in weights.items()})
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, rate)
    several = {name: torch.stack([p, moved(0.1)[name]]) for name, p in weights.items()}
    torch.testing.assert_close(vmap(at)(several), torch.stack([at(weights), at(moved(0.1))]))
    for name, found in vmap(grad(at))(several).items():
        torch.testing.assert_close(found[0], slope[name])
    for name, bend in jvp(grad(at), (weights,), (along,))[1].items():
        difference = (grad(at)(moved(1e-5))[name] - grad(at)(moved(-1e-5))[name]) / 2e-5
        torch.testing.assert_close(bend, difference, rtol=1e-5, atol=1e-8)
    u, eye = network.jet(points).value, torch.eye(7, dtype=torch.float64)
    bias = network.layers[0].bias
    (together,) = torch.autograd.grad(u, bias, eye, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(together, torch.stack([torch.autograd.grad(v, bias, retain_graph=True)[0] for v in u]))
