"""What formats share: the order of control points, numbers that are none."""

import numpy as np
import pytest
import torch

from nurbs import GeometryError, Volume, circle
from nurbs.files.exchange import in_space, make_patch, read_integer, read_numbers, to_u_fastest, u_fastest
from tests.nurbs.patches import PATCHES, random


def test_u_fastest_there_and_back():
    volume = PATCHES["volume"][0]
    points, weights = to_u_fastest(volume)
    assert torch.equal(torch.tensor(points[1]), volume.control_points[1, 0, 0])
    assert torch.equal(torch.tensor(points[4]), volume.control_points[0, 1, 0])
    assert torch.equal(torch.tensor(points[12]), volume.control_points[0, 0, 1])
    np.testing.assert_array_equal(u_fastest(points, volume.shape, "here"), volume.control_points)
    np.testing.assert_array_equal(u_fastest(weights, volume.shape, "here"), volume.weights)
    with pytest.raises(GeometryError, match="here: 4 × 4 control points were announced, but 60 are there"):
        u_fastest(points, (4, 4), "here")


@pytest.mark.parametrize("given", ["x", [1, [2, 3]], None, {}, [10**400], [1, "1.0.0"]])
def test_what_is_no_number(given):
    with pytest.raises(GeometryError, match=r"^here: "):
        read_integer(given, "here")
    assert read_numbers(["1.5", 2], "here").tolist() == [1.5, 2]


@pytest.mark.parametrize("given", [1.5, float("nan"), float("inf"), 2.0**40, [1, 2], []])
def test_what_is_no_count(given):
    with pytest.raises(GeometryError, match=r"here: (whole numbers were|one number was) expected"):
        read_integer(given, "here")


def test_weights_of_one_are_left_out():
    args = (np.eye(3), np.ones(3), [np.array([0, 0, 0, 1, 1, 1.0])], [2], "here")
    assert make_patch(*args).weights is None
    assert make_patch(args[0], np.full(3, 2.0), *args[2:]).weights.tolist() == [2, 2, 2]
    with pytest.raises(GeometryError, match="here: `weights` must be positive and finite; got nan"):
        make_patch(args[0], np.array([1, np.nan, 1]), *args[2:])


def test_in_space():
    assert in_space([circle()], "Any")[0].control_points.shape == (9, 3)
    with pytest.raises(ValueError, match=r"Any files hold curves and surfaces .* got a `Volume` in 3"):
        in_space([Volume(random(2, 2, 2, 3), degree=1)], "Any")
