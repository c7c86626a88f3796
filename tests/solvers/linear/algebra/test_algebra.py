"""Block matrices multiply as dense ones do, and aggregates are what they say, compiled or not."""

import numpy as np
import pytest
import scipy.sparse
import torch

from fem.support.compilation import compilation
from fem.support.native import find_compiler
from solvers.linear.algebra.aggregates import aggregates
from solvers.linear.algebra.blocks import BlockMatrix, of_scipy

compiled = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
WAYS = ["never", pytest.param("always", marks=compiled)]


def random_blocks(rows, columns, r, c, seed):
    """About five blocks in a row, some rows empty."""
    rng = np.random.default_rng(seed)
    shape = scipy.sparse.csr_matrix(rng.random((rows, columns)) < 5 / columns)
    data = rng.standard_normal((shape.nnz, r, c))
    return of_scipy(scipy.sparse.bsr_matrix((data, shape.indices, shape.indptr), shape=(rows * r, columns * c)))


def dense(matrix):
    return torch.from_numpy(matrix.scipy().toarray())


def second_difference(n):
    return scipy.sparse.csr_matrix(2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))


def graph(n):
    """The seven-point Laplacian of an n³ grid, its nodes in random order, and one node that nothing is coupled to."""
    line = second_difference(n)
    one = scipy.sparse.identity(n)
    kron = scipy.sparse.kron
    A = kron(line, kron(one, one)) + kron(one, kron(line, one)) + kron(one, kron(one, line))
    order = np.random.default_rng(0).permutation(n**3)
    A = scipy.sparse.block_diag([A.tocsr()[order][:, order], [[1.0]]], format="csr")
    return of_scipy(A.tobsr((1, 1)))


@pytest.mark.parametrize("when", WAYS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 3, 6), (6, 3, 6), (2, 1, 3)])
def test_products_are_those_of_dense_matrices(sizes, when):
    r, k, s = sizes
    A, B = random_blocks(300, 200, r, k, 0), random_blocks(200, 90, k, s, 1)
    with compilation(when):
        torch.testing.assert_close(dense(A @ B), dense(A) @ dense(B))
        torch.testing.assert_close(dense(B.transposed() @ A.transposed()), (dense(A) @ dense(B)).T)


@compiled
def test_products_are_the_same_on_two_threads_bit_by_bit():
    A, B = random_blocks(5000, 3000, 1, 1, 0), random_blocks(3000, 700, 1, 1, 1)
    before, found = torch.get_num_threads(), []
    with compilation("always"):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(A @ B)
    torch.set_num_threads(before)
    one, two = found
    assert torch.equal(one.crow, two.crow)
    assert torch.equal(one.column, two.column)
    assert torch.equal(one.values, two.values)


def test_blocks_are_taken_from_numbers_and_scaled():
    A = random_blocks(40, 40, 3, 3, 2)
    numbers = of_scipy(A.scipy().tobsr((1, 1)))
    torch.testing.assert_close(dense(numbers.in_blocks(3)), dense(A))
    left, right = torch.rand(40, 3, dtype=torch.float64), torch.rand(40, 3, dtype=torch.float64)
    expected = left.flatten()[:, None] * dense(A) * right.flatten()
    torch.testing.assert_close(dense(A.scaled(left, right)), expected)
    torch.testing.assert_close(A.diagonal().flatten(), dense(A).diagonal())
    torch.testing.assert_close(A.csr(torch.float64, torch.device("cpu")).to_dense(), dense(A))


@pytest.mark.parametrize("when", WAYS)
def test_aggregates_are_neighbourhoods_of_roots_that_are_apart(when):
    A = graph(9)
    with compilation(when):
        found, count = aggregates(A, 0.1)
    found = found.long()
    assert int(found[-1]) == -1
    assert bool((found[:-1] >= 0).all())
    assert int(found.max()) + 1 == count
    inside = dense(A)[:-1, :-1] != 0
    same = found[:-1, None] == found[None, :-1]
    within = (inside & same).double()
    assert bool(((torch.linalg.matrix_power(within, 4) > 0) == same).all())  # each is connected, and of diameter four
    assert 4 <= (len(found) - 1) / count <= 27


@compiled
def test_aggregates_are_the_same_compiled_or_not():
    for A, theta in ((graph(9), 0.1), (random_symmetric(500), 0.05), (random_symmetric(500), 0.3)):
        with compilation("always"):
            one, ones = aggregates(A, theta)
        with compilation("never"):
            two, twos = aggregates(A, theta)
        assert ones == twos
        assert torch.equal(one, two)


def random_symmetric(n):
    A = random_blocks(n, n, 2, 2, 3).scipy()
    return of_scipy((A + A.T + 3 * scipy.sparse.identity(2 * n)).tobsr((2, 2)))


def test_weak_couplings_count_for_nothing():
    """Lines along the strong direction: no aggregate takes nodes of two of them."""
    n = 30
    line = second_difference(n)
    A = scipy.sparse.kron(scipy.sparse.identity(n), line) + 1e-4 * scipy.sparse.kron(line, scipy.sparse.identity(n))
    found, count = aggregates(of_scipy(A.tobsr((1, 1))), 0.04)
    row = torch.arange(n * n) // n
    for k in range(count):
        assert len(row[found == k].unique()) == 1


def test_an_empty_matrix_has_no_aggregates():
    empty = BlockMatrix(
        torch.zeros(4, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0, 1, 1).double(), 3
    )
    found, count = aggregates(empty, 0.1)
    assert (found.tolist(), count) == ([-1, -1, -1], 0)
