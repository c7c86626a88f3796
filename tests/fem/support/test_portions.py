"""Portions fit their room, whatever the type of numbers, and are never empty."""

import pytest
import torch

from fem import FunctionSpace, Lagrange, unit_square
from fem.support.portions import CACHE, MEMORY, PAGE, at_a_time, large_zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
@pytest.mark.parametrize("width", [1, 3, 1000, 10**5])
@pytest.mark.parametrize("roomy", [False, True])
def test_portions_fill_their_room(dtype: torch.dtype, width: int, roomy: bool) -> None:
    for device, room in (("cpu", MEMORY if roomy else CACHE), ("meta", MEMORY)):
        item = width * dtype.itemsize
        count = at_a_time(width, torch.empty(0, dtype=dtype, device=device), roomy)
        assert count * item <= room < (count + 1) * item


def test_one_item_at_least() -> None:
    like = torch.empty(0)
    assert at_a_time(10**12, like) == 1
    assert at_a_time(0, like) == at_a_time(1, like)


def test_whatever_has_a_type_and_a_device_will_do() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    assert at_a_time(5, V) == at_a_time(5, V.mesh) == at_a_time(5, V.mesh.nodes)


@pytest.mark.parametrize("count", [0, 7, 2 * PAGE // 4 - 1, 2 * PAGE // 4, 3 * PAGE // 4 + 5])
def test_large_arrays_are_zeros_of_their_shape_and_type(count: int) -> None:
    found = large_zeros(torch.empty(2, dtype=torch.float64), count, 1, dtype=torch.float32)
    assert found.shape == (count, 1)
    assert found.dtype == torch.float32
    assert not bool(found.any())
