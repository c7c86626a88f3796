"""Direct solves on the coarsest level: band factors and dense inverses of the same matrices."""

import pytest
import torch

from fem import compilation
from fem.support.native import find_compiler
from solvers.linear.grids.coarsest import banded, bandwidth, solver
from solvers.operators.stencil import Stencil
from tests.solvers.operators.test_stencil import grid_system


@pytest.mark.parametrize("cells", [(9,), (7, 12), (1, 9), (3, 4, 5), (4, 1, 3)])
@pytest.mark.parametrize("when", ["never", "always"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_solves_with_the_matrix_of_each_item(cells: tuple[int, ...], when: str, dtype: torch.dtype) -> None:
    if when == "always" and find_compiler() is None:
        pytest.skip("needs a C compiler")
    system = grid_system(1, len(cells), None, cells)
    stencil = system.stencil
    assert stencil is not None
    grid = stencil.grid
    matrix = stencil.dense()[0]
    order = banded(stencil)[1]
    distance = (matrix[order][:, order] != 0).nonzero().diff(dim=1).abs()
    assert int(distance.max()) <= bandwidth(grid) <= max(grid.shift(o) for _, _, o in grid.keys)
    images = [grid.buffer(stencil.data, dtype=dtype) for _ in range(2)]
    b, x = (grid.shifted(image) for image in images)
    b.copy_(torch.randn(b.shape, generator=torch.manual_seed(0)))
    with compilation(when):
        solver(stencil, b, x)()
    A, rhs = stencil.dense(), grid.items(b).reshape(grid.batch, -1, 1).double()
    expected = torch.linalg.solve(A, rhs).reshape(grid.batch, -1)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(grid.items(x).reshape(grid.batch, -1).double(), expected, rtol=tolerance, atol=tolerance)


def test_what_is_not_definite_gets_a_definite_inverse() -> None:
    system = grid_system(1, 2, None, (6, 7))
    assert system.stencil is not None
    stencil = Stencil(system.stencil.grid, system.stencil.data.clone())
    grid = stencil.grid
    stencil.diagonal.copy_(-stencil.diagonal)
    b, x = (grid.shifted(grid.buffer(stencil.data)) for _ in range(2))
    for when in ("never", "auto"):
        with compilation(when):
            solve = solver(stencil, b, x)
        for i in range(grid.size):
            b.zero_()[0, i] = 1
            solve()
            assert float(x[0, i]) > 0
