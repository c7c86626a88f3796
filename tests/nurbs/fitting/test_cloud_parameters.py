"""Where the parameters of clouds begin: which clouds are graphs, over which plane; angles around tubes and rings."""

import warnings
from math import pi

import pytest
import torch
from torch import Tensor

from nurbs.fitting.cloud_parameters import apart, cloud_parameters, principal_parameters, warn_of_outliers
from tests.nurbs.patches import random

ANGLE, HEIGHT = 2 * pi * random(800), random(800, seed=1)
UNIT = torch.nn.functional.normalize(torch.randn(800, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
TURN = torch.linalg.qr(random(3, 3)).Q


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


def ring(radius: float) -> Tensor:
    around = 2 * pi * HEIGHT
    rho = 1 + radius * around.cos()
    return torch.stack([rho * ANGLE.cos(), rho * ANGLE.sin(), radius * around.sin()], -1)


def tube(height: float, angle: Tensor = ANGLE) -> Tensor:
    return torch.stack([angle.cos(), angle.sin(), height * HEIGHT], -1)


XY = random(800, 2)
CLOSED = {
    "tube": tube(1.0),
    "long tube": tube(6.0) + 0.03 * noise(800, 3),
    "most of a tube": tube(1.0, 0.85 * ANGLE),
    "sphere": UNIT,
    "sphere with noise": UNIT + 0.05 * noise(800, 3),
    "ring": ring(0.4),
    "roll": torch.stack([(3 * ANGLE) * (2 * ANGLE).cos(), 20 * HEIGHT, (3 * ANGLE) * (2 * ANGLE).sin()], -1),
}
GRAPHS = {
    "plane": torch.cat([XY, 0 * XY[:, :1]], -1),
    "noise": torch.cat([XY, 0.08 * noise(800, 1)], -1),
    "waves": torch.cat([XY, 0.1 * (8 * pi * XY[:, :1]).sin()], -1),
    "step": torch.cat([XY, (XY[:, :1] > 0.5).double()], -1),
    "saddle": torch.cat([XY, 2 * (XY[:, :1] - 0.5) * (XY[:, 1:] - 0.5)], -1) + 0.02 * noise(800, 3),
    "half a sphere": torch.cat([UNIT[:, :2], UNIT[:, 2:].abs()], -1),
    "half a tube": tube(1.0, ANGLE / 2),
    "flat": XY,
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("count", [250, 800])
def test_clouds_that_are_no_graphs_are_named(name: str, count: int) -> None:
    with pytest.warns(UserWarning, match=r"the cloud is no graph over a plane.*`periodic="):
        cloud_parameters(CLOSED[name][:count] @ TURN, (False, False))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("count", [150, 800])
def test_graphs_are_not(name: str, count: int) -> None:
    points = GRAPHS[name][:count]
    points = points @ TURN if points.shape[1] == 3 else points
    uv = cloud_parameters(points, (False, False))
    assert uv.amin(0).tolist() == [0, 0]
    assert uv.amax(0).tolist() == [1, 1]


def test_the_plane_is_one_over_which_the_cloud_is_a_graph() -> None:
    """Half a short tube is flattest along its axis, and no graph there."""
    points = tube(1.0, pi * HEIGHT.flip(0))
    principal = principal_parameters(points, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = cloud_parameters(points, (False, False))
    assert not torch.equal(principal, chosen)
    both = torch.cat([chosen, points], -1)
    assert apart(both[None], [0, 1]).item() < 1.5
    batch = torch.stack([points, GRAPHS["saddle"]])
    torch.testing.assert_close(
        cloud_parameters(batch, (False, False)), torch.stack([chosen, principal_parameters(GRAPHS["saddle"], 2)])
    )


def test_the_item_is_named() -> None:
    with pytest.warns(UserWarning, match="the cloud 1 of the batch"):
        cloud_parameters(torch.stack([GRAPHS["saddle"], UNIT]), (False, False))


@pytest.mark.parametrize("height", [0.5, 2.0, 9.0])
def test_angle_and_height_of_a_tube(height: float) -> None:
    uv = cloud_parameters(tube(height) @ TURN, (True, False))
    up = (HEIGHT - HEIGHT.min()) / (HEIGHT.max() - HEIGHT.min())
    assert min(float((uv[:, 1] - x).abs().max()) for x in (up, 1 - up)) < 0.2
    shift = torch.exp(2j * pi * uv[:, 0]) / torch.exp(1j * ANGLE)
    mirrored = torch.exp(2j * pi * uv[:, 0]) * torch.exp(1j * ANGLE)
    assert min(float((s / s.mean() - 1).abs().max()) for s in (shift, mirrored)) < 0.2
    torch.testing.assert_close(cloud_parameters(tube(height) @ TURN, (False, True)), uv.flip(-1))


def test_both_angles_of_a_ring() -> None:
    uv = cloud_parameters(ring(0.4) @ TURN, (True, True))
    around = [torch.exp(2j * pi * uv[:, 1]) * torch.exp(sign * 2j * pi * HEIGHT) for sign in (-1, 1)]
    assert min(float((s / s.mean() - 1).abs().mean()) for s in around) < 0.1


def test_errors_and_outliers() -> None:
    with pytest.raises(ValueError, match="periodic direction needs points in three dimensions; got 2"):
        cloud_parameters(XY, (True, False))
    centred = UNIT - UNIT.mean(0)
    net = centred.unflatten(0, (20, 40)) / torch.linalg.vector_norm(centred, dim=-1).amax()
    warn_of_outliers(centred, 2 * net)
    with pytest.warns(UserWarning, match=r"control points lie 4.* times as far .* `smoothing=`"):
        warn_of_outliers(torch.stack([UNIT, centred]), torch.stack([net, 4.4 * net]))
