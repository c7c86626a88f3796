"""Modes diagonalise the 1-D matrices that spaces assemble; Fourier transforms are products with their matrices."""

from itertools import product

import pytest
import torch

from fem import Energy, FunctionSpace, Lagrange, unit_interval
from solvers.linear.axis_modes import Fourier, LagrangeLine, Matrix, modes, portions, supported_modes
from tests.problems import laplace

ENDS = list(product((True, False), repeat=2))


def rows(transform, n):
    """V of r ↦ r V."""
    return transform(torch.eye(n, dtype=torch.float64)[None])[0]


def diagonality(V, K, values):
    """max |VᵀKV − diag(values)| relative to the largest value."""
    return float((V.mT @ K @ V - values.diag_embed()).abs().max() / values.abs().max())


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("ends", ENDS)
def test_matrices_are_those_of_a_space_with_its_own_quadrature(degree, ends):
    n = 5
    for quadrature_degree in (2 * degree - 1, 2 * degree + 1):
        V = FunctionSpace(unit_interval(n), Lagrange(degree), quadrature_degree=quadrature_degree)
        axis = LagrangeLine(n, degree, quadrature_degree, ends)
        densities = (laplace, lambda x, u, g: 0.5 * u.square())
        for density, own, diagonal, scale in zip(densities, axis.matrices(), axis.diagonals(), (n, 1 / n), strict=True):
            zero = torch.zeros(V.shape, dtype=torch.float64)
            expected = Energy(V, density).hessian(zero).to_dense()[axis.free, axis.free]
            torch.testing.assert_close(scale * own, expected, rtol=1e-13, atol=1e-13 * n)
            torch.testing.assert_close(diagonal, own.diagonal())


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("cells", [1, 2, 7, 24])
def test_modes_make_both_matrices_diagonal(degree, ends, cells):
    for quadrature_degree in (2 * degree + 1, 1) if degree == 1 else (2 * degree + 1,):
        axis = LagrangeLine(cells, degree, quadrature_degree, ends)
        found, n = modes(axis), degree * cells + 1 - sum(ends)
        if n == 0:
            continue
        V, (K, M) = rows(found.transform, n), axis.matrices()
        assert diagonality(V, K, found.stiffness[0]) < 1e-14 * n
        assert diagonality(V, M, found.mass[0]) < 1e-14 * n
        assert found.constant == (not any(ends))
        if found.constant:
            assert found.stiffness[0, 0] == 0
            torch.testing.assert_close(V[:, 0], V[0, 0].expand(n))


def test_eigenvalues_of_linear_elements_in_closed_form():
    """λ_j = 6 (1 − cos θ_j) / (2 + cos θ_j) with θ_j = π j / n between fixed ends."""
    found = modes(LagrangeLine(9, 1, 3, (True, True)))
    theta = torch.pi * torch.arange(1, 9, dtype=torch.float64) / 9
    expected = 6 * (1 - theta.cos()) / (2 + theta.cos())
    torch.testing.assert_close((found.stiffness / found.mass)[0], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("cells", [1, 2, 13, 64, 97, 100])
def test_fourier_transforms_are_products_with_their_matrices(ends, cells):
    torch.manual_seed(0)
    fast, dense = (modes(LagrangeLine(cells, 1, 3, ends), dense=d).transform for d in (False, True))
    assert isinstance(fast, Fourier)
    assert isinstance(dense, Matrix)
    n = cells + 1 - sum(ends)
    if n == 0:
        return
    r = torch.randn(3, 5, 2, n, dtype=torch.float64)
    for transform, matrix in ((fast, dense), (fast.mT, dense.mT)):
        torch.testing.assert_close(transform(r), matrix(r), rtol=0, atol=1e-14 * n)
        strided = r.movedim(-1, 1).contiguous().movedim(1, -1)
        torch.testing.assert_close(transform(strided), transform(r), rtol=0, atol=0)
    single = fast(r.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), fast(r), rtol=0, atol=1e-6 * n)


@pytest.mark.parametrize("chunk", [1, 200, 1000, 10**6])
def test_transforms_in_portions_are_the_same(chunk, monkeypatch):
    torch.manual_seed(0)
    transform = modes(LagrangeLine(20, 1, 3, (True, False)), dense=False).transform
    r = torch.randn(4, 7, 20, dtype=torch.float64)
    expected = transform(r)
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * chunk)
    torch.testing.assert_close(transform(r), expected, rtol=0, atol=0)


def test_portions_cover_everything_once_in_parts_of_limited_size():
    for shape, limit in product([(1, 1), (1, 9), (5, 4), (7, 1)], [0, 1, 3, 8, 100]):
        seen = torch.zeros(shape)
        for place in portions(shape, limit):
            assert seen[place].numel() <= max(limit, 1)
            seen[place] += 1
        assert bool((seen == 1).all())


def test_modes_of_supported_ends_differ_from_item_to_item():
    axis, scale = LagrangeLine(6, 2, 5, (False, False)), torch.tensor([1.0, 2.5], dtype=torch.float64)
    ends = torch.tensor([[0.3, 0.0], [2.0, 1.0]], dtype=torch.float64)
    found, (K, M) = supported_modes(axis, scale, ends), axis.matrices()
    assert not found.constant
    eye = torch.eye(13, dtype=torch.float64).expand(2, -1, -1)
    V = found.transform(eye)
    for i in range(2):
        corners = torch.zeros(13, dtype=torch.float64)
        corners[[0, -1]] = ends[i]
        assert diagonality(V[i], scale[i] * K + corners.diag(), found.stiffness[i]) < 1e-13
        assert diagonality(V[i], M, found.mass[i]) < 1e-13
    assert bool((found.stiffness > 0).all())
    torch.testing.assert_close(found.transform.mT(eye), V.mT)


def test_a_quadrature_too_weak_for_a_mass_matrix_is_refused():
    with pytest.raises(ValueError, match=r"positive definite mass matrix.*`quadrature_degree`"):
        modes(LagrangeLine(4, 2, 1, (False, False)))
