"""Coarse operators are Galerkin products, interpolation reproduces polynomials, restriction is its transpose."""

import pytest
import torch

from fem import FunctionSpace, Lagrange, compilation
from solvers.linear.grids import coarsening
from solvers.linear.grids.coarsening import CellCollapse, DegreeCoarsening, VertexCoarsening, embedding, galerkin
from solvers.operators.stencil import Stencil, StencilGrid, grid_of
from solvers.operators.stencil_product import Product
from tests.solvers.operators.test_stencil import grid_system
from tests.solvers.systems import distorted

pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.mark.parametrize("cells", [(4, 6, 2), (5, 3, 3), (7, 1, 2)])
@pytest.mark.parametrize(("dim", "components"), [(1, None), (2, None), (3, None), (2, 2)])
def test_coarse_operators_are_galerkin_products(cells, dim, components):
    system = grid_system(1, dim, components, cells)
    stencil = system.stencil
    for axis in range(dim):
        n = stencil.grid.vertices[axis] - 1
        check_step(
            VertexCoarsening(stencil.grid, axis, torch.rand(n, dtype=torch.float64) + 0.5)
            if n > 1
            else CellCollapse(stencil.grid, axis),
            stencil,
        )


@pytest.mark.parametrize("cells", [(9, 12, 11), (8, 7, 20)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2), (1, 2)])
def test_coarse_operators_made_layer_by_layer_are_the_same(cells, axes, monkeypatch):
    stencil = grid_system(1, 3, None, cells).stencil
    assert stencil is not None
    steps, grid = [], stencil.grid
    for axis in axes:
        steps.append(VertexCoarsening(grid, axis, torch.rand(grid.vertices[axis] - 1, dtype=torch.float64) + 0.5))
        grid = steps[-1].coarse
    whole = galerkin(stencil, steps)
    monkeypatch.setattr(coarsening, "MEMORY", 0)
    monkeypatch.setattr(coarsening, "at_a_time", lambda *args, **options: 1)
    torch.testing.assert_close(galerkin(stencil, steps).data, whole.data, rtol=0, atol=0)


@pytest.mark.parametrize(("high", "low"), [(2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("dim", [1, 2])
def test_operators_of_lower_degree_are_galerkin_products(high, low, dim):
    stencil = grid_system(high, dim).stencil
    assert stencil is not None
    for axis in range(dim):
        step = DegreeCoarsening(stencil.grid, axis, low)
        check_step(step, stencil)
        stencil = step.operator(stencil)


def check_step(step, stencil):
    """PᵀAP densely, with P read off the step's own interpolation, and its restriction the transpose."""
    grid, coarse = step.grid, step.coarse
    like, n = stencil.data, coarse.size * len(coarse.types)
    P = []
    for i in range(n):
        x, fine = coarse.buffer(like), grid.buffer(like)
        flat = torch.zeros(n, dtype=like.dtype)
        flat[i] = 1
        coarse.shifted(x).copy_(flat.view(len(coarse.types), -1))
        step.bind(grid.buffer(like), coarse.buffer(like), fine, x)[1]()
        P.append(grid.items(grid.shifted(fine)).flatten())
    P = torch.stack(P, 1)  # all items: rows item by item, columns type by type
    A = torch.block_diag(*stencil.dense())
    order = coarse.items(torch.arange(n).view(len(coarse.types), -1)).flatten()
    exist = ~grid.fixed_images(None, like)  # couplings of dofs that do not exist are nothing, but for their diagonal
    keep = grid.items(exist).flatten()
    A = A * keep * keep[:, None]
    clean = Stencil(grid, stencil.data.clone())
    clean.fix(~exist, 0.0)
    found = torch.block_diag(*step.operator(clean).dense())
    torch.testing.assert_close(found, (P.T @ A @ P)[order][:, order], rtol=1e-12, atol=1e-12)
    r = grid.buffer(like)
    grid.shifted(r).copy_(torch.randn(len(grid.types), grid.size, dtype=like.dtype) * exist)
    c = coarse.buffer(like)
    step.bind(r, c, grid.buffer(like), coarse.buffer(like))[0]()
    expected = (P.T @ grid.items(grid.shifted(r)).flatten())[order]
    torch.testing.assert_close(coarse.items(coarse.shifted(c)).flatten(), expected, rtol=1e-12, atol=1e-12)


def test_embedded_basis_functions_reproduce_polynomials():
    for high, low in ((2, 1), (3, 1), (3, 2)):
        for power in range(low + 1):
            values = dict.fromkeys(range(high), 0.0)
            for t, s, u, w in embedding(high, low):
                values[t] += w * (u + s / low) ** power
            assert list(values.values()) == pytest.approx([(t / high) ** power for t in range(high)])


def test_interpolation_is_exact_on_linear_functions_of_uneven_grids():
    mesh = distorted(5)
    grid = grid_of(FunctionSpace(mesh, Lagrange(1)), 1)
    width = torch.rand(5, dtype=torch.float64) + 0.5
    assert grid is not None
    step = VertexCoarsening(grid, 1, width)
    x, fine = step.coarse.buffer(width), grid.buffer(width)
    ends = torch.cat([torch.zeros(1), step.width.cumsum(0)]).to(width)
    step.coarse.along(x, 1)[0].copy_(ends[:, None].expand(6, 4, 1))
    step.bind(grid.buffer(width), step.coarse.buffer(width), fine, x)[1]()
    expected = torch.cat([torch.zeros(1), width.cumsum(0)]).to(width)
    torch.testing.assert_close(grid.along(fine, 1)[0, 0, :, 0], expected)


@pytest.mark.parametrize("vertices", [(9001,), (9002,), (130, 71), (71, 130), (24, 17, 21), (2, 3000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_work_is_the_same_in_portions(vertices, dtype):
    """On grids that are worked on by several threads: products, residuals, coarse operators, transfers."""
    generator = torch.Generator().manual_seed(0)
    grid = StencilGrid(vertices, (1,) * len(vertices), batch=2)
    stencil = Stencil.zeros(grid, torch.zeros((), dtype=dtype))
    grid.shifted(stencil.data).copy_(torch.rand(len(grid.keys), grid.size, generator=generator, dtype=dtype))
    found = []
    for when in ("never", "always"):
        x, y, b = (grid.buffer(stencil.data) for _ in range(3))
        grid.shifted(x).copy_(torch.rand(1, grid.size, generator=torch.Generator().manual_seed(1), dtype=dtype))
        with compilation(when):
            work = Product(stencil, x, y)
            work()
            found.append([grid.shifted(y).clone()])
            work.residual(grid.shifted(x))
            found[-1].append(grid.shifted(y))
            for axis, n in enumerate(vertices):
                if n > 2:
                    step = VertexCoarsening(grid, axis, torch.linspace(1, 2, n - 1, dtype=dtype))
                    c = step.coarse.buffer(stencil.data)
                    restrict, interpolate = step.bind(x, c, b, c)
                    restrict()
                    interpolate()
                    found[-1] += [step.operator(stencil).data, c, b.clone()]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
