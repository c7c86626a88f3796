"""Plots: what is drawn has the points of the patch; wrong axes are refused."""

import numpy as np
import pytest
import torch

from nurbs import Curve, Volume, circle, disk, sphere
from nurbs.plotting import plot
from tests.nurbs.patches import random

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_curves_with_their_polygon():
    ax = plot([circle(), circle(2.0)])
    lines = [np.stack(line.get_data(), -1) for line in ax.get_lines()]
    radii = np.concatenate([np.linalg.norm(line, axis=1) for line in lines if len(line) > 100])
    assert np.allclose(np.abs(radii - 1.5), 0.5)
    assert any(len(line) == 9 for line in lines)  # the control polygon


def test_surfaces_in_the_plane_and_in_space():
    ax = plot(disk(), control_points=True)
    assert len(ax.collections) == 2
    assert plot(sphere()).name == "3d"
    box = torch.stack(torch.meshgrid(*[torch.arange(2.0, dtype=torch.float64)] * 3, indexing="ij"), -1)
    ax = plot(Volume(box, degree=1), subdivisions=2)
    assert len(ax.collections[0].get_facecolor()) >= 6 * 4


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"draws patches with 2 or with 3 coordinates; got \[4\]"):
        plot(Curve(random(4, 4)))
    with pytest.raises(ValueError, match="this patch needs a three-dimensional picture"):
        plot(sphere(), ax=plot(circle()))
