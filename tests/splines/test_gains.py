"""Fits that grow by a sample: the errors are those of dense least squares, for short and long pieces."""

import pytest
import torch

from splines.gains import gains
from tests.splines.reference import cost


@pytest.mark.parametrize("degree", range(6))
def test_growing_fits(degree: int) -> None:
    x = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(degree))
    table, p, error = gains(len(x), degree), torch.zeros(degree + 1, dtype=torch.float64), 0.0
    for i in range(len(x)):
        leverage_left, *K = table[:, len(x) - 1 - i]
        for j in range(degree - 1, -1, -1):
            p[j] -= p[j + 1].clone()
        e = x[i, 0] - p[0]
        error += float(leverage_left * e**2)
        p += torch.stack(K) * e
        assert error == pytest.approx(cost(x[: i + 1], degree), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("degree", range(6))
def test_leverage_of_long_pieces(degree: int) -> None:
    table = gains(10**6, degree)
    assert torch.equal(table[0, -1 - degree :], torch.zeros(degree + 1, dtype=torch.float64))
    assert (table[0] + table[1] - 1).abs().max() < 1e-14
