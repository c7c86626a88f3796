"""Batches taken apart, and patches made plain."""

import pytest
import torch

from nurbs import Curve, circle
from nurbs.geometry.items import items, plain
from tests.nurbs.file_cases import assert_equal
from tests.nurbs.patches import PATCHES, random


def test_items_of_batches_and_learned_patches():
    batch = Curve(random(2, 3, 4, 2), random(4) + 0.5)
    assert_equal(items(batch), [batch[i, j] for i in range(2) for j in range(3)])
    assert_equal(items(batch[0, 0]), [batch[0, 0]])
    learned = circle().learn("control_points")
    assert_equal(items(learned), [learned.patch])
    with pytest.raises(TypeError):
        items(3)  # type: ignore[arg-type]


def test_plain_patches():
    periodic = PATCHES["periodic"].to(torch.float32)
    found = plain(periodic.replace(control_points=periodic.control_points.requires_grad_()))
    assert (found.dtype, found.control_points.requires_grad, found.periodic) == (torch.float64, False, (False,))
