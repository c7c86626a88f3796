"""Determinants, inverses and measures of small matrices, against LAPACK and by their identities."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import MeshError
from fem.mesh.jacobian import determinant, inverse, measure

sizes = pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3)])
tall = pytest.mark.parametrize("shape", [(2, 1), (3, 1), (3, 2)])


def random(*shape: int, seed: int = 0) -> Tensor:
    """Matrices with entries in [−½, ½], pushed away from singular ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator) - 0.5 + torch.eye(*shape[-2:])


@sizes
def test_determinant_and_inverse_are_those_of_lapack(shape) -> None:
    matrix = random(4, 5, *shape)
    torch.testing.assert_close(determinant(matrix), torch.linalg.det(matrix))
    torch.testing.assert_close(inverse(matrix, determinant(matrix)), torch.linalg.inv(matrix))


def test_determinant_of_nothing_is_one() -> None:
    assert torch.equal(determinant(torch.zeros(2, 3, 0, 0)), torch.ones(2, 3))


@tall
def test_inverse_of_tall_matrices_is_the_pseudo_inverse(shape) -> None:
    matrix = random(4, 5, *shape)
    torch.testing.assert_close(inverse(matrix, measure(matrix)), torch.linalg.pinv(matrix))


@tall
def test_measure_is_the_volume_of_the_edges(shape) -> None:
    """√det JᵀJ is the product of the singular values."""
    matrix = random(4, 5, *shape)
    torch.testing.assert_close(measure(matrix), torch.linalg.svdvals(matrix).prod(-1))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 1), (3, 1), (3, 2)])
def test_derivatives(shape) -> None:
    matrix = random(2, 1, *shape).requires_grad_()
    for function in (measure, lambda m: inverse(m, measure(m))):
        assert gradcheck(function, matrix)
        assert gradgradcheck(function, matrix)


def test_inverted_cells_are_named() -> None:
    matrix = random(4, 2, 2, 2)
    matrix[2, 1] = torch.tensor([[1.0, 0.0], [0.0, -0.5]])
    with pytest.raises(MeshError, match=r"triangle 12 is inverted: det J = -0\.5"):
        measure(matrix, "triangle", 10)
    with pytest.raises(MeshError, match=r"triangle 17 is inverted"):
        measure(matrix, "triangle", 10, torch.tensor([3, 5, 7, 9]))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (3, 2)])
def test_flat_cells_are_degenerate_at_any_scale_and_thin_ones_are_not(shape, scale: float) -> None:
    flat = torch.eye(*shape, dtype=torch.float64)
    flat[:, 0] = flat[:, 1] * 0.3
    with pytest.raises(MeshError, match="cell 0 is degenerate"):
        measure(scale * flat[None, None])
    thin = torch.eye(*shape, dtype=torch.float64)
    thin[:, 0] *= 1e-12
    assert measure(scale * thin[None, None]).item() == pytest.approx(1e-12 * scale ** shape[1])


def test_nan_is_not_a_cell() -> None:
    with pytest.raises(MeshError, match="det J = nan"):
        measure(torch.full((1, 1, 2, 2), torch.nan))
