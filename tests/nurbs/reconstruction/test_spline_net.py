"""The network against its definition on edges; order, motions, sizes and errors."""

import pytest
import torch

from nurbs import RandomPatches, SplineNet, cloud_frame
from nurbs.reconstruction.frames import flat_patch
from nurbs.reconstruction.spline_net import Correction, EdgeConvolution, MaxPool, largest, neighbours

SMALL = {"k": 5, "widths": (8, 8), "features": 16, "hidden": (16,), "width": 8}


def network(shape=(6, 5), **options):
    """Not as it is made, but with an answer of its own."""
    torch.manual_seed(0)
    net = SplineNet(shape, **{**SMALL, **options}).double()
    for p in net.parameters():
        if not p.detach().any():
            torch.nn.init.normal_(p, std=0.02)
    return net


def points(count=2, m=60):
    return RandomPatches(num_points=m, dtype=torch.float64)(0, count)[0]


def test_neighbours_are_the_nearest_others(monkeypatch):
    x = torch.rand(2, 40, 7, dtype=torch.float64)
    distance = torch.cdist(x, x)
    distance.diagonal(0, -2, -1).fill_(torch.inf)
    expected = distance.topk(5, largest=False).indices.sort(-1).values
    assert torch.equal(neighbours(x, 5).sort(-1).values, expected)
    monkeypatch.setattr("fem.support.portions.MEMORY", 8 * 300)
    assert torch.equal(neighbours(x, 5).sort(-1).values, expected)


def test_edge_convolution_is_the_maximum_over_edges():
    torch.manual_seed(0)
    layer = EdgeConvolution(7, 9, 5).double()
    x = torch.rand(2, 40, 7, dtype=torch.float64, requires_grad=True)
    around = torch.stack([item[index] for item, index in zip(x, neighbours(x, 5), strict=True)])
    own = x[:, :, None].expand_as(around)
    edges = layer.linear(torch.cat([own, around - own], -1))
    expected = torch.nn.functional.leaky_relu(layer.norm(edges.amax(2)), 0.2)
    assert torch.allclose(layer(x), expected, atol=1e-14)
    cotangent = torch.rand_like(expected)
    gradients = [torch.autograd.grad(y, [x, *layer.parameters()], cotangent) for y in (layer(x), expected)]
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(*gradients, strict=True))


def test_the_maximum_over_rows_and_its_gradient():
    x = torch.rand(30, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(30, (50, 6))
    assert torch.equal(largest(x, rows), x[rows].amax(1))
    assert torch.autograd.gradcheck(lambda x: largest(x, rows), x)


def test_the_pool_is_a_maximum_over_points():
    torch.manual_seed(0)
    pool = MaxPool(6, 4).double()
    x = torch.rand(3, 20, 6, dtype=torch.float64, requires_grad=True)
    expected = pool.linear(x).amax(1)
    assert torch.allclose(pool(x), expected, atol=1e-14)
    cotangent = torch.rand_like(expected)
    gradients = [torch.autograd.grad(y, [x, *pool.parameters()], cotangent) for y in (pool(x), expected)]
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(*gradients, strict=True))


def test_at_first_the_answer_is_the_flat_patch():
    x = points()
    assert torch.allclose(SplineNet((6, 5), **SMALL).double()(x), flat_patch(x, (6, 5)), atol=1e-7)


def test_the_order_of_the_points_does_not_matter():
    x, net = points(), network()
    order = torch.randperm(x.shape[1])
    assert torch.allclose(net(x[:, order]), net(x), atol=1e-11)


def test_the_answer_follows_motions_reflections_and_scalings():
    x, net = points(), network()
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=x.dtype)).Q
    shift = torch.tensor([3.0, -1, 2], dtype=x.dtype)
    for sign in (1, -1):
        assert torch.allclose(net(sign * 7 * x @ rotation + shift), sign * 7 * net(x) @ rotation + shift, atol=1e-9)


def test_items_do_not_influence_each_other():
    x, net = points(3), network()
    assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-12)


@pytest.mark.parametrize("m", [6, 33, 200])
@pytest.mark.parametrize("shape", [(4, 4), (20, 20), (7, 12)])
def test_any_number_of_points_and_any_grid(shape, m):
    net = SplineNet(shape, **SMALL)
    control_points = net(torch.rand(2, m, 3))
    assert control_points.shape == (2, *shape, 3)
    assert control_points.dtype == torch.float32
    control_points.sum().backward()
    assert all(p.grad is not None for p in net.head.parameters())


def test_all_parameters_and_the_points_get_gradients():
    x, net = points().requires_grad_(), network()
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_corrections_are_bounded_and_start_at_nothing():
    x = points()
    local = cloud_frame(x).local(x)
    correction = Correction((6, 5), 5, 8).double()
    start = torch.rand(2, 6, 5, 3, dtype=torch.float64)
    assert torch.equal(correction(local, start), start)
    torch.nn.init.constant_(correction.layers[-1].get_parameter("bias"), 1e3)
    assert torch.allclose(correction(local, start) - start, torch.full_like(start, 0.5), atol=1e-5)


def test_errors():
    net = network()
    with pytest.raises(ValueError, match="two numbers, 4 or more"):
        SplineNet((3, 4))
    with pytest.raises(ValueError, match="at least 6 points; got 5"):
        net(points()[:, :5])
    with pytest.raises(ValueError, match="at least 6 points; got 0"):
        net(points()[:, :0])
    with pytest.raises(ValueError, match=r"finite coordinates; got nan at index \[0, 0, 0\]"):
        net(points() * torch.nan)
    with pytest.raises(TypeError, match=r"`points` must be torch.float64 .*; got torch.float32"):
        net(points().float())
    with pytest.raises(ValueError, match="coincide"):
        net(torch.ones(1, 30, 3, dtype=torch.float64))
