"""Interpolation that follows the operator: Galerkin products, transposes, constants, and what one dimension knows."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Periodic, box
from solvers.linear.grids.operator_coarsening import OperatorCoarsening
from solvers.operators.stencil import Stencil
from solvers.operators.system import System
from tests.problems import diffusion
from tests.solvers.operators.test_stencil import grid_system

pytestmark = pytest.mark.usefixtures("both_ways")


def interpolation(step: OperatorCoarsening, like: Tensor) -> Tensor:
    """P, column by column, all items together."""
    x, fine, columns = step.coarse.buffer(like), step.grid.buffer(like), []
    interpolate = step.bind(step.grid.buffer(like), step.coarse.buffer(like), fine, x)[1]
    for i in range(step.coarse.size):
        fine.zero_()
        step.coarse.shifted(x.zero_())[0, i] = 1
        interpolate()
        columns.append(step.grid.shifted(fine)[0].clone())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("cells", [(5,), (4, 5), (5, 4), (4, 3, 2), (3, 2, 3)])
def test_coarse_operators_are_galerkin_products(cells: tuple[int, ...]) -> None:
    """Along all sets of axes, with even and odd numbers of cells."""
    dim = len(cells)
    system = grid_system(1, dim, None, cells)
    stencil = system.stencil
    assert stencil is not None
    sets = [axes for count in range(1, dim + 1) for axes in combinations(range(dim), count)]
    for axes in sets if dim < 3 else ((0, 1, 2), (0, 2)):
        step = OperatorCoarsening(stencil, axes, system.fixed_images)
        P, A = interpolation(step, stencil.data), torch.block_diag(*stencil.dense())
        found = torch.block_diag(*step.operator(stencil).dense())
        torch.testing.assert_close(found, P.T @ A @ P, rtol=1e-12, atol=1e-12)
        r, c = step.grid.buffer(stencil.data), step.coarse.buffer(stencil.data)
        step.grid.shifted(r).copy_(torch.randn(1, step.grid.size, dtype=r.dtype))
        step.bind(r, c, step.grid.buffer(r), step.coarse.buffer(r))[0]()
        torch.testing.assert_close(step.coarse.shifted(c)[0], P.T @ step.grid.shifted(r)[0], rtol=1e-12, atol=1e-12)
        assert bool((P[system.fixed_images[0]] == 0).all())


def rough_stencil(cells: tuple[int, ...], constraint: str = "free") -> tuple[Stencil, Tensor]:
    V = FunctionSpace(box((0.0,) * len(cells), tuple(map(float, cells)), cells), Lagrange(1))
    k = torch.exp(3 * torch.randn(2, V.mesh.num_cells, dtype=V.dtype, generator=torch.manual_seed(0)))
    held = {
        "free": lambda: None,
        "left": lambda: Dirichlet(V, {"left": 0.0}),
        "periodic": lambda: Periodic(V, {"right": "left", "top": "bottom"}),
    }
    form = Energy(V, diffusion, held[constraint]()).discrete_form((V.per_cell(k),))
    system = System(form, torch.zeros(2, *V.shape, dtype=V.dtype))
    assert system.stencil is not None
    return system.stencil, system.fixed_images


@pytest.mark.parametrize("cells", [(9,), (8, 7), (5, 4, 3)])
def test_constants_are_kept(cells: tuple[int, ...]) -> None:
    stencil, fixed = rough_stencil(cells)
    P = interpolation(OperatorCoarsening(stencil, range(len(cells)), fixed), stencil.data)
    torch.testing.assert_close(P.sum(1), torch.ones(len(P), dtype=P.dtype))


def test_in_one_dimension_it_is_elimination() -> None:
    """A P vanishes between coarse vertices, beside a prescribed value too."""
    stencil, fixed = rough_stencil((11,), "left")
    P = interpolation(OperatorCoarsening(stencil, (0,), fixed), stencil.data)
    A = torch.block_diag(*stencil.dense())
    odd = torch.tensor([1, 3, 5, 7, 9])
    rest = (A @ P)[torch.cat([odd, 12 + odd])]
    assert float(rest.abs().max()) < 1e-12 * float(A.max())


@pytest.mark.parametrize("cells", [(8, 6), (7, 9), (4, 5, 3)])
def test_periodic_functions_stay_periodic(cells: tuple[int, ...]) -> None:
    stencil, fixed = rough_stencil(cells, "periodic")
    step = OperatorCoarsening(stencil, range(len(cells)), fixed)
    x, fine = step.coarse.buffer(stencil.data), step.grid.buffer(stencil.data)
    step.coarse.shifted(x).copy_(torch.rand(1, step.coarse.size, dtype=x.dtype))
    step.coarse.averaging(step.coarse.shifted(x))()
    step.bind(step.grid.buffer(x), step.coarse.buffer(x), fine, x)[1]()
    found = step.grid.shifted(fine)
    torch.testing.assert_close(step.grid.averaged(found), found, rtol=1e-13, atol=1e-13)
