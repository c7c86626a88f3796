"""Losses and their invariances, distances between surfaces, fits of clouds, training that goes on where it was."""

import pytest
import torch

from nurbs import (
    RandomPatches,
    SplineNet,
    Surface,
    chamfer,
    control_point_loss,
    control_points_of,
    fit_clouds,
    flat_patch,
    reconstruction_loss,
    surface_distance,
    surface_points,
    train_reconstruction,
)
from nurbs.reconstruction.losses import bending

CLOUDS = RandomPatches(num_points=80)


def network(shape=(5, 5)):
    torch.manual_seed(0)
    return SplineNet(shape, k=5, widths=(8, 16), features=32, hidden=(32,), corrections=1, width=8)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6)])
def test_the_supervised_loss_does_not_see_the_symmetries_of_the_grid(shape):
    p, target = (torch.rand(3, *shape, 3, dtype=torch.float64) for _ in range(2))
    turned = [p, p.flip(1), p.flip(2), p.flip(1, 2)]
    turned += [t.transpose(1, 2) for t in turned] if shape[0] == shape[1] else []
    assert len(turned) == (8 if shape[0] == shape[1] else 4)
    for t in turned:
        assert torch.allclose(control_point_loss(t, target), control_point_loss(p, target), atol=1e-15)
        assert not control_point_loss(p, t).any()
    assert (control_point_loss(p, target) <= (p - target).square().sum(-1).mean((1, 2)) + 1e-15).all()
    with pytest.raises(ValueError, match="grids of one shape"):
        control_point_loss(p, target[:, :-1])


def test_control_points_of_a_surface_in_the_space_are_its_own():
    p = torch.rand(2, 20, 7, 3, dtype=torch.float64)
    assert torch.allclose(control_points_of(Surface(p), (20, 7)), p, atol=1e-12)


def test_control_points_of_another_space_are_those_of_least_squares():
    p = torch.rand(1, 20, 20, 3, dtype=torch.float64)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    coarse = control_points_of(Surface(p), (5, 6)).requires_grad_()
    (gradient,) = torch.autograd.grad((Surface(coarse)(t, t) - Surface(p)(t, t)).square().sum(), coarse)
    assert gradient.abs().max() < 1e-10


def test_the_loss_is_chamfer_and_bending():
    points, surface = RandomPatches(num_points=80, dtype=torch.float64)(0, 2)
    p = surface.control_points.requires_grad_()
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    expected = chamfer(points, Surface(p)(t, t).flatten(1, 2)) + 0.5 * bending(p)
    assert torch.allclose(reconstruction_loss(points, p, (9, 9), 0.5), expected)
    assert surface_points(surface, (9, 7)).shape == (2, 63, 3)


@pytest.mark.parametrize("n", [20, 40, 80])
def test_bending_is_half_the_integral_of_squared_second_derivatives(n):
    """Of z = u² at control points of a uniform grid: ½ ∫ 2² = 2, up to the ends."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    assert bending(torch.stack([u, v, u**2], -1)) == pytest.approx(2, rel=1e-9)


def test_distances_between_surfaces():
    """Parallel rectangles at height h: 2 h²; and equal surfaces at the floor that the docstring names."""
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    low, high = (Surface(torch.stack([u, v, 0 * u + h], -1)) for h in (0.0, 0.3))
    assert surface_distance(low, high, 11, 3, one_sided=True) == pytest.approx(0.09, rel=0.01)
    assert surface_distance(low, high, 11, 3) == pytest.approx(0.18, rel=0.01)
    knots = torch.tensor([2.0, 2, 2, 2, 5, 5, 5, 5], dtype=torch.float64)
    elsewhere = Surface(low.control_points, knots=(knots, 0.1 * knots))
    assert surface_distance(elsewhere, high, 11, 3) == pytest.approx(float(surface_distance(low, high, 11, 3)))
    floor = surface_distance(low, low, 50, 4)
    assert 0.5 / (3 * 200**2) < floor < 1.1 / (3 * 200**2)


def test_fits_come_closer_than_the_flat_patch_and_ignore_size_and_place():
    points, surface = RandomPatches(num_points=150)(0, 4)
    fit = fit_clouds(points, (6, 6), steps=60, grid=(16, 16))
    before, after = (surface_distance(s, surface, 20) for s in (Surface(flat_patch(points, (6, 6))), fit))
    assert (after < before).all()
    assert after.mean() < 0.3 * before.mean()
    moved = fit_clouds(8 * points + 4, (6, 6), steps=60, grid=(16, 16))
    assert torch.allclose(moved.control_points, 8 * fit.control_points + 4, atol=0.05)
    alone = fit_clouds(points[1:2], (6, 6), steps=20, grid=(16, 16))
    assert torch.allclose(
        alone.control_points[0], fit_clouds(points, (6, 6), steps=20, grid=(16, 16)).control_points[1], atol=1e-3
    )
    again = fit_clouds(points, (6, 6), fit.control_points, steps=0)
    assert torch.allclose(again.control_points, fit.control_points, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(4, 6, 6, 3\); got \(4, 5, 6, 3\)"):
        fit_clouds(points, (6, 6), fit.control_points[:, 1:])
    with pytest.raises(
        ValueError, match=r"`fit_clouds\(points\)` needs finite coordinates; got nan at index \[0, 0, 0\]"
    ):
        fit_clouds(points * torch.nan)


@pytest.mark.parametrize("loss", ["chamfer", "control_points"])
def test_training_on_few_clouds_learns_them(loss):
    pytest.importorskip("lightning")
    few = CLOUDS(0, 2)
    done = train_reconstruction(
        network((4, 4)),
        lambda start, count: few,
        30,
        2,
        loss,
        5e-3,
        grid=(8, 8),
        held_out=few,
        every=10,
        progress=False,
    )
    assert [entry["step"] for entry in done.history] == [10, 20, 30]
    assert (done.steps, done.samples) == (30, 60)
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]
    assert done.history[-1]["chamfer"] < 0.5 * surface_distance(Surface(flat_patch(few[0], (4, 4))), few[1]).mean()
    assert 0 < done.history[0]["seconds"] < done.history[-1]["seconds"] < done.seconds
    assert done.network.training


def test_the_loss_compares_with_the_target_while_the_network_sees_the_clouds():
    pytest.importorskip("lightning")
    points, surface = CLOUDS(0, 2)
    aside, asked, seen = points + 0.5, [], []

    def target(start, count):
        asked.append((start, count))
        return aside, surface

    net = network((4, 4))
    first = net.stages(points)[-1].detach()
    stages, net.stages = net.stages, lambda x: seen.append(x) or stages(x)
    done = train_reconstruction(net, lambda *_: (points, surface), 2, 2, target=target, lr=0.0, every=1, progress=False)
    assert asked == [(0, 2), (2, 2)]
    assert all(torch.equal(x, points) for x in seen)
    assert done.history[0]["loss"] == pytest.approx(float(reconstruction_loss(aside, first).mean()), rel=1e-5)


@pytest.mark.slow
def test_training_without_labels_on_ever_new_clouds_carries_over_to_others_and_beats_labels():
    """Against the rectangle around each cloud, from which networks start."""
    pytest.importorskip("lightning")
    held_out = CLOUDS(1_000_000, 16)
    reached = {}
    for loss in ("chamfer", "control_points"):
        torch.manual_seed(0)
        net = SplineNet((5, 5), widths=(16, 32), features=64, hidden=(64,), corrections=1, width=16)
        done = train_reconstruction(net, CLOUDS, 120, 4, loss, 2e-3, grid=(16, 16), held_out=held_out, progress=False)
        reached[loss] = done.history[-1]["chamfer"]
    flat = surface_distance(Surface(flat_patch(held_out[0], (5, 5))), held_out[1], 32).mean()
    assert reached["chamfer"] < 0.3 * flat
    assert reached["chamfer"] < reached["control_points"]


def test_training_goes_on_bit_for_bit(tmp_path):
    pytest.importorskip("lightning")

    class StopError(Exception):
        pass

    def until(limit):
        def clouds(start, count):
            if start >= 2 * limit:
                raise StopError
            return CLOUDS(start, count)

        return clouds

    options = {"batch": 2, "grid": (8, 8), "every": 4, "num_points": 40, "progress": False}
    whole = train_reconstruction(network(), CLOUDS, 12, **options)
    with pytest.raises(StopError):
        train_reconstruction(network(), until(10), 12, folder=tmp_path, **options)
    rest = train_reconstruction(network(), CLOUDS, 12, folder=tmp_path, **options)
    for a, b in zip(whole.network.parameters(), rest.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [entry["loss"] for entry in rest.history] == [entry["loss"] for entry in whole.history]
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "logs"}
    with pytest.raises(ValueError, match="holds a run already"):
        train_reconstruction(network(), CLOUDS, 12, folder=tmp_path, resume=False, **options)
    with pytest.raises(ValueError, match="of another run: steps=12 there, 13 here"):
        train_reconstruction(network(), CLOUDS, 13, folder=tmp_path, **options)
    with pytest.raises(ValueError, match="another architecture"):
        train_reconstruction(network((4, 4)), CLOUDS, 12, folder=tmp_path, **options)
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="damaged"):
        train_reconstruction(network(), CLOUDS, 12, folder=tmp_path, **options)
    assert (tmp_path / "last.ckpt").read_bytes() == b"no checkpoint"


def test_a_training_that_diverges_stops_and_stores_nothing(tmp_path):
    pytest.importorskip("lightning")
    with pytest.raises(ValueError, match=r"finite|NaN"):
        train_reconstruction(network(), CLOUDS, 8, 2, lr=1e30, every=4, folder=tmp_path, progress=False)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, r"steps=\.\.\.\)` must be positive; got 0"), ({"loss": "emd"}, "emd")],
)
def test_errors(options, message):
    with pytest.raises((ValueError, TypeError), match=message):  # the annotation catches some
        train_reconstruction(network(), CLOUDS, **{"steps": 1, **options})
