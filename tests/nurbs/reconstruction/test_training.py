"""Training on clouds: with labels or without, against a target, and on where it was."""

from typing import Any

import pytest
import torch

from nurbs import (
    RandomPatches,
    SplineNet,
    Surface,
    flat_patch,
    reconstruction_loss,
    surface_distance,
    train_reconstruction,
)

pytest.importorskip("lightning")
CLOUDS = RandomPatches(num_points=80)


def network(shape=(5, 5)):
    torch.manual_seed(0)
    return SplineNet(shape, k=5, widths=(8, 16), features=32, hidden=(32,), corrections=1, width=8)


@pytest.mark.parametrize("loss", ["chamfer", "control_points"])
def test_training_on_few_clouds_learns_them(loss):
    few = CLOUDS(0, 2)
    done = train_reconstruction(
        network((4, 4)),
        lambda start, count: few,
        30,
        2,
        loss=loss,
        lr=5e-3,
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
    points, surface = CLOUDS(0, 2)
    aside, asked, seen = points + 0.5, [], []

    def target(start, count):
        asked.append((start, count))
        return aside, surface

    net: Any = network((4, 4))
    first = net.stages(points)[-1].detach()
    stages, net.stages = net.stages, lambda x: seen.append(x) or stages(x)
    done = train_reconstruction(net, lambda *_: (points, surface), 2, 2, target=target, lr=0.0, every=1, progress=False)
    assert asked == [(0, 2), (2, 2)]
    assert all(torch.equal(x, points) for x in seen)
    assert done.history[0]["loss"] == pytest.approx(float(reconstruction_loss(aside, first).mean()), rel=1e-5)


@pytest.mark.slow
def test_training_without_labels_on_ever_new_clouds_carries_over_to_others_and_beats_labels():
    """Against the rectangle around each cloud, from which networks start."""
    held_out = CLOUDS(1_000_000, 16)
    reached = {}
    for loss in ("chamfer", "control_points"):
        torch.manual_seed(0)
        net = SplineNet((5, 5), widths=(16, 32), features=64, hidden=(64,), corrections=1, width=16)
        done = train_reconstruction(
            net, CLOUDS, 120, 4, loss=loss, lr=2e-3, grid=(16, 16), held_out=held_out, progress=False
        )
        reached[loss] = done.history[-1]["chamfer"]
    flat = surface_distance(Surface(flat_patch(held_out[0], (5, 5))), held_out[1], 32).mean()
    assert reached["chamfer"] < 0.3 * flat
    assert reached["chamfer"] < reached["control_points"]


def test_training_goes_on_bit_for_bit(tmp_path):

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
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "logs", "network.safetensors"}
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
    with pytest.raises(ValueError, match=r"finite|NaN"):
        train_reconstruction(network(), CLOUDS, 8, 2, lr=1e30, every=4, folder=tmp_path, progress=False)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, r"steps=\.\.\.\)` must be a positive integer; got 0"), ({"loss": "emd"}, "emd")],
)
def test_errors(options, message):
    with pytest.raises((ValueError, TypeError), match=message):  # the annotation catches some
        train_reconstruction(network(), CLOUDS, **{"steps": 1, **options})
