"""Pictures of patches: what is drawn lies on the patch, in the axes it belongs to, and covers what it should."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nurbs import Curve, circle, cylinder, disk, plot, sphere, torus
from nurbs.output.plotting import faces
from tests.nurbs.file_cases import VOLUMES
from tests.nurbs.patches import PATCHES, random

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt: Any = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def polygons(ax: Any) -> np.ndarray:
    """Corners "e 4 3" of all polygons in space."""
    (collection,) = ax.collections
    return np.array(collection._faces)


def test_a_curve_with_its_knots_and_control_polygon():
    ax = plot(circle(), subdivisions=8)
    curve, knots, net = (line.get_xydata() for line in ax.lines)
    np.testing.assert_allclose(np.hypot(*curve.T), 1, atol=1e-15)
    assert (len(curve), len(knots)) == (33, 5)
    np.testing.assert_array_equal(net, circle().control_points)
    assert len(plot(circle(), ax, control_net=False, knots=False).lines) == 4
    assert ax.get_aspect() == 1


def test_a_plane_surface_covers_its_area():
    ax = plot(disk(), subdivisions=40, control_net=False)
    tiles, lines = ax.collections
    x = np.array([path.vertices[:4] for path in tiles.get_paths()])
    cross = np.cross(np.pad(x[:, 2] - x[:, 0], ((0, 0), (0, 1))), np.pad(x[:, 3] - x[:, 1], ((0, 0), (0, 1))))[:, 2]
    assert cross.sum() / 2 == pytest.approx(np.pi, rel=1e-3)
    assert len(lines.get_segments()) == 4


def test_a_surface_in_space():
    ax = plot(sphere(), subdivisions=6, knots=False)
    x = polygons(ax)
    assert x.shape == (4 * 2 * 36, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-15)
    assert len(ax.lines) == 9 + 5
    assert len(polygons(plot(sphere(), subdivisions=6))) == len(x) + 5 * 12 + 3 * 24
    ax.figure.canvas.draw()


def test_the_sides_of_a_volume():
    solid = VOLUMES["volume"]
    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    at = [torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)]
    sides = faces(solid)
    assert [side.degree for side in sides] == [(1, 2)] * 2 + [(3, 2)] * 2 + [(3, 1)] * 2
    for k, side in enumerate(sides):
        axis, end = divmod(k, 2)
        lines = [u, u]
        lines.insert(axis, at[end])
        torch.testing.assert_close(side(u, u), solid(*lines).squeeze(axis))
    assert len(polygons(plot(solid, subdivisions=4, knots=False))) == 16 * 2 * (2 * 3 + 1 * 3 + 1 * 2)


@pytest.mark.parametrize("name", ["curve", "unclamped", "periodic", "batch of knots", "surface", "volume"])
def test_every_patch_is_drawn(name: str):
    """Unclamped, periodic and batched ones, learned ones, and those in single precision that require gradients."""
    patch = PATCHES[name].to(torch.float32)
    ax = plot(patch.learn("control_points"), subdivisions=3)
    ax.figure.canvas.draw()
    assert (ax.name == "3d") == (patch.dim == 3)
    points = patch.control_points.reshape(-1, patch.dim)
    limits = [ax.get_xlim(), ax.get_ylim(), *([ax.get_zlim()] if patch.dim == 3 else [])]
    for column, (low, high) in zip(points.T, limits, strict=True):
        assert low <= column.min() + 1e-6
        assert high >= column.max() - 1e-6


def test_several_in_given_axes():
    ax = plt.figure().add_subplot(projection="3d")
    assert plot([sphere(), torus(2.0), cylinder()], ax, control_net=False, subdivisions=3) is ax
    assert len(ax.collections) == 3
    assert ax.get_xlim()[1] >= 2.25


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"with 2 or with 3 coordinates; got \[1\]"):
        plot(Curve(random(4, 1)))
    with pytest.raises(ValueError, match=r"with 2 or with 3 coordinates; got \[2, 3\]"):
        plot([circle(), sphere()])
    with pytest.raises(ValueError, match=r"coordinates; got \[\]"):
        plot([])
    with pytest.raises(ValueError, match="do not fit; this patch needs a three-dimensional picture"):
        plot(sphere(), plt.subplots()[1])
    with pytest.raises(ValueError, match="do not fit; this patch needs a flat one"):
        plot(circle(), plt.figure().add_subplot(projection="3d"))
