"""Norms and inner products item by item, of any size; sums and common shapes."""

import pytest
import torch

from fem.support.arithmetic import common_batch, dot, norm, per_item, sum_of


def test_norms_and_products_leave_the_batch_axes():
    a, b = torch.rand(2, 3, 5, 2, dtype=torch.float64), torch.rand(2, 3, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(norm(a, 2), a.square().sum((2, 3)).sqrt())
    torch.testing.assert_close(dot(a, b, 1), (a * b).sum((1, 2, 3)))
    assert per_item(torch.ones(2, 3), a).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [0, 1])
def test_norms_scale(dtype: torch.dtype, lead: int) -> None:
    v = torch.randn(3, 50, dtype=dtype)
    info = torch.finfo(dtype)
    for scale in (info.tiny, info.tiny**0.6, 1.0, info.max**0.6, info.max / 1e3):
        torch.testing.assert_close(norm(scale * v, lead) / scale, norm(v, lead))


def test_norms_of_what_has_none() -> None:
    v = torch.tensor([[0.0, 0.0], [3e-30, 4e-30], [float("nan"), 1.0], [float("inf"), 1.0], [3e30, 4e30]])
    expected = torch.tensor([0.0, 5e-30, float("nan"), float("inf"), 5e30])
    torch.testing.assert_close(norm(v, 1), expected, equal_nan=True, rtol=1e-6, atol=0)
    assert norm(torch.zeros(2, 0), 1).tolist() == [0, 0]


def test_sums_and_shapes() -> None:
    a, b = torch.rand(2, 3), torch.rand(3)
    assert torch.equal(sum_of([a, b, a]), a + b + a)
    assert common_batch((2, 1), (), (3,)) == (2, 3)
    with pytest.raises(ValueError, match=r"batches of shapes \(2,\) and \(3,\) do not go together"):
        common_batch((2,), (3,))
