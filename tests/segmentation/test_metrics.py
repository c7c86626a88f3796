"""Measures of masks: known cases, perfect and empty predictions, brute force."""

import pytest
import torch
from torch import Tensor

from segmentation.components import label_components
from segmentation.metrics import (
    boundary_f,
    false_components,
    holes,
    jaccard,
    measures,
    object_f1,
    pooled_jaccard,
)


def square(y: int, x: int, size: int, n: int = 16) -> Tensor:
    mask = torch.zeros(1, n, n, dtype=torch.bool)
    mask[0, y : y + size, x : x + size] = True
    return mask


EMPTY = torch.zeros(1, 16, 16, dtype=torch.bool)


def test_overlap() -> None:
    one, two = square(0, 0, 4), square(0, 2, 4)
    assert jaccard(one, two).item() == pytest.approx(8 / 24)
    assert jaccard(EMPTY, EMPTY).item() == 1
    assert jaccard(EMPTY, one).item() == 0
    both = torch.cat([one, two]), torch.cat([two, two])
    assert pooled_jaccard(*both) == pytest.approx((8 + 16) / (24 + 16))
    assert pooled_jaccard(EMPTY, EMPTY) == 1


def test_false_components() -> None:
    truth = square(0, 0, 4)
    prediction = truth | square(8, 8, 2) | square(12, 0, 3)
    assert false_components(torch.cat([prediction, truth, EMPTY]), torch.cat([truth] * 3)).tolist() == [2, 0, 0]


def test_holes() -> None:
    truth = square(2, 2, 9)
    truth[0, 4:6, 4:6] = False  # a true one
    prediction = truth.clone()
    prediction[0, 8, 8] = False
    prediction[0, 2, 2] = False  # at the edge of the object: no hole
    assert holes(torch.cat([prediction, truth, ~EMPTY, EMPTY]), torch.cat([truth] * 4)).tolist() == [1, 0, 0, 0]


def test_boundaries() -> None:
    one = square(4, 4, 6)
    assert boundary_f(one, one).item() == 1
    assert boundary_f(one, square(4, 5, 6), tolerance=1).item() == 1
    assert boundary_f(one, square(4, 10, 6), tolerance=1).item() < 0.5
    assert boundary_f(EMPTY, EMPTY).item() == 1
    assert boundary_f(EMPTY, one).item() == 0


def test_objects() -> None:
    truth = (square(0, 0, 4).long() + 2 * square(8, 8, 4).long()) * 5
    assert object_f1(truth, truth).item() == 1
    assert object_f1(label_components(square(0, 0, 4)), truth).item() == pytest.approx(2 / 3)
    assert object_f1(square(0, 2, 4).long(), truth).item() == 0
    assert object_f1(EMPTY.long(), EMPTY.long()).item() == 1
    joined = (truth > 0).long()  # two objects under one label match neither
    assert object_f1(joined, truth).item() == 0


def test_all_of_them() -> None:
    labels = square(0, 0, 4).long() + 2 * square(8, 8, 4).long()
    found = measures(labels > 0, labels)
    assert found == {"jaccard": 1, "pooled": 1, "false": 0, "holes": 0, "boundary": 1, "objects": 1}
