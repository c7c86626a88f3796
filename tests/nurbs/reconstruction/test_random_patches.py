"""Random patches: numbered, sampled uniformly, of unit size, with noise and holes as asked for."""

import pytest
import torch

from nurbs import RandomPatches, Surface, area_parameters, squared_distance
from nurbs.reconstruction.random_patches import random_numbers

DOUBLE = RandomPatches(dtype=torch.float64)


def test_random_numbers_are_uniform_and_independent():
    x = random_numbers(torch.arange(200), 200, seed=3)
    assert x.min() >= 0
    assert x.max() < 1
    assert x.mean() == pytest.approx(0.5, abs=0.005)
    assert x.var() == pytest.approx(1 / 12, abs=0.002)
    assert x.unique().numel() == x.numel()
    for a, b in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1])):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.02
    assert not torch.equal(x, random_numbers(torch.arange(200), 200, seed=4))


def test_splitmix_gives_the_published_sequence():
    """First outputs of the generator with state 1234567, as in Steele, Lea and Flood's reference code."""
    from nurbs.reconstruction.random_patches import _mixed

    states = torch.arange(1, 4) * -0x61C8864680B583EB + 1234567
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    signed = inverse - 2**64 if inverse >= 2**63 else inverse
    found = [int(x) % 2**64 for x in _mixed(states * signed)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_an_item_does_not_depend_on_what_it_is_asked_for_with():
    points, surface = DOUBLE(0, 12)
    some, part = DOUBLE(7, 3)
    assert torch.allclose(some, points[7:10], rtol=0, atol=1e-14)
    assert torch.allclose(part.control_points, surface.control_points[7:10], rtol=0, atol=1e-14)
    assert not torch.allclose(RandomPatches(seed=1, dtype=torch.float64)(0, 12)[0], points)


def test_noise_holes_and_the_number_of_points_leave_the_surfaces_as_they_are():
    _, surface = DOUBLE(5, 6)
    _, same = RandomPatches(1024, noise=0, holes=0, dtype=torch.float64)(5, 6)
    assert torch.equal(surface.control_points, same.control_points)


def test_without_noise_points_lie_on_the_surface():
    points, surface = RandomPatches(noise=0, num_points=50, dtype=torch.float64)(0, 4)
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    assert squared_distance(points, surface(t, t).flatten(1, 2)).max().sqrt() < 0.01
    assert points.dtype == surface.dtype == torch.float64


def test_noise_has_the_deviation_drawn():
    quiet, loud = (RandomPatches(noise=s, dtype=torch.float64)(0, 30)[0] for s in (0, 0.01))
    deviation = (loud - quiet).std((1, 2))
    assert 0 < deviation.min() < 0.002
    assert 0.008 < deviation.max() < 0.0105


def test_patches_have_unit_size_in_any_position():
    _, surface = DOUBLE(0, 64)
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    points = surface(t, t).flatten(1, 2)
    diameter = torch.cdist(points, points).amax((-2, -1))
    assert diameter.min() >= 1 - 1e-12  # the longest side of a box around it
    assert diameter.max() < 3**0.5
    assert surface.control_points.shape == (64, 20, 20, 3)


def test_points_are_uniform_in_area():
    flat = RandomPatches(wave=0, bend=0, twist=0, noise=0, holes=0, num_points=20_000, dtype=torch.float64)
    points, surface = flat(0, 1)
    corner, along = surface.control_points[0, 0, 0], surface.control_points[0, -1, 0] - surface.control_points[0, 0, 0]
    x = ((points[0] - corner) @ along) / along.square().sum()
    assert torch.histc(x, 10, 0, 1).sub(2000).abs().max() < 200


def test_points_are_uniform_in_area_on_any_domain_and_where_they_may_lie():
    """S = (u², v): the share of area below u is u² / 9 on [0, 3]."""
    x = torch.tensor([[0.0], [0], [9]], dtype=torch.float64)
    y = torch.tensor([-1.0, 1], dtype=torch.float64)
    p = torch.stack([x.expand(3, 2), y.expand(3, 2), torch.zeros(3, 2, dtype=x.dtype)], -1)
    knots = (torch.tensor([0.0, 0, 0, 3, 3, 3]).double(), torch.tensor([-1.0, -1, 1, 1]).double())
    surface = Surface(p, None, knots, (2, 1))
    numbers = torch.rand(20_000, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    u, v = area_parameters(surface, numbers).unbind(-1)
    assert torch.histc(u**2 / 9, 10, 0, 1).sub(2000).abs().max() < 200
    assert torch.histc(v, 10, -1, 1).sub(2000).abs().max() < 200
    where = torch.zeros(32, 32, dtype=torch.bool)
    where[8:16] = True
    u, _ = area_parameters(surface, numbers, where).unbind(-1)
    assert 0.75 <= u.min() < u.max() <= 1.5


def test_holes_are_empty():
    """With holes some small cells of parameters stay empty, which without is as good as impossible."""
    options = {"wave": 0, "bend": 0, "twist": 0, "noise": 0, "num_points": 5000, "dtype": torch.float64}
    empty = []
    for holes in (0, 2):
        points, surface = RandomPatches(holes=holes, **options)(0, 20)
        p = surface.control_points
        u, v = p[:, -1, 0] - p[:, 0, 0], p[:, 0, -1] - p[:, 0, 0]
        axes = torch.stack([w / w.square().sum(-1, keepdim=True) for w in (u, v)], -1)
        cell = ((points - p[:, :1, 0]) @ axes).clamp(0, 0.9999).mul(16).long()
        index = cell[..., 0] * 16 + cell[..., 1]
        empty.append(256 - torch.zeros(20, 256).scatter(1, index, 1.0).sum(-1))
    assert not empty[0].any()
    assert (empty[1] > 0).float().mean() > 0.4


def test_errors():
    with pytest.raises(ValueError, match="count >= 1; got 0 and 0"):
        DOUBLE(0, 0)
