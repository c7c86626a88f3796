"""Polynomials on samples: orthonormal, of the right degree, the same at any place; zero where there are no more."""

import pytest
import torch

from splines.orthonormal import orthonormal, orthonormalized, tabulate_samples


@pytest.mark.parametrize("length", [6, 7, 100, 100_000])
def test_orthonormal(length: int) -> None:
    value = tabulate_samples(length, 5).value[0]
    assert (value.T @ value - torch.eye(6, dtype=torch.float64)).abs().max() < 1e-11


def test_they_span_polynomials() -> None:
    value = tabulate_samples(30, 4).value[0]
    t = torch.linspace(-1, 1, 30, dtype=torch.float64)
    for j in range(5):
        part = value[:, : j + 1]
        assert (part @ (part.T @ t**j) - t**j).abs().max() < 1e-13
        assert value[-1, j] > 0


def test_short_pieces_have_few_polynomials() -> None:
    m = torch.full((3,), 3.0, dtype=torch.float64)
    values = list(orthonormal(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), m, 5))
    Q = torch.stack(values, -1)
    assert (Q[:, :3].T @ Q[:, :3] - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-15
    assert (Q[:, 3:] == 0).all()


def test_weights() -> None:
    w = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w[3:9] = 0
    columns = iter(tabulate_samples(20, 5).value[0].unbind(-1))
    Q = torch.stack(orthonormalized(columns, lambda a, b: (w * a * b).sum().expand(20)), -1)
    assert (Q.T @ (w[:, None] * Q) - torch.eye(6, dtype=torch.float64)).abs().max() < 1e-14
    few = torch.zeros(20, dtype=torch.float64)
    few[[2, 11]] = 1.0
    columns = iter(tabulate_samples(20, 3).value[0].unbind(-1))
    Q = torch.stack(orthonormalized(columns, lambda a, b: (few * a * b).sum().expand(20)), -1)
    assert (Q[:, 2:] == 0).all()


def test_dtype_follows() -> None:
    assert tabulate_samples(9, 2, torch.empty(0)).value.dtype == torch.float32


@pytest.mark.parametrize(("length", "degree"), [(3, 3), (0, 0), (4, -1)])
def test_more_polynomials_than_samples(length: int, degree: int) -> None:
    with pytest.raises(ValueError, match=rf"got degree {degree} and length {length}"):
        tabulate_samples(length, degree)
