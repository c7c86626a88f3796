"""Stencils are the assembled matrix: products, diagonals, held dofs, and Galerkin products with dense algebra."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, unit_cube, unit_square
from fem.assembly import element_matrices
from solvers.multigrid import Embedding, Interpolation
from solvers.stencil import Stencil, assemble, embedding, grid_of, local_dofs, needed_entries
from solvers.system import System
from tests.solvers.systems import distorted, elasticity, laplace, system_of


def diffusion(x, u, grad_u, k):
    return 0.5 * k * grad_u.square().sum(-1) + 0.3 * k * u.square()


def grid_system(degree, dim, components=None, cells=(3, 4, 2), moved=True, batch=2):
    """A batch of problems with all kinds of terms, a Robin side and a fixed side, on an uneven moved grid."""
    torch.manual_seed(0)
    mesh = box((0.0,) * dim, (1.0, 2.0, 0.5)[:dim], cells[:dim])
    if moved:
        mesh = mesh.with_nodes(mesh.nodes + 0.1 / max(cells[:dim]) * torch.rand_like(mesh.nodes))
    V = FunctionSpace(mesh, Lagrange(degree), components=components)
    density = diffusion if components is None else lambda x, u, g, k: k * elasticity(x, u, g) + u.square().sum(-1)
    robin = {"right": lambda x, u, n, k: 0.5 * (1 + x[..., 0]) * (u.square() if components is None else u[..., 0] ** 2)}
    k = torch.rand(batch, mesh.topology.num_nodes, dtype=V.dtype) + 0.5
    energy = Energy(V, density, Dirichlet(V, {"left": 1.0}), boundary=robin)
    lowered = energy.lower((FunctionSpace(mesh, Lagrange(1)).function(k),))
    return System(lowered, torch.zeros(batch, *V.shape, dtype=V.dtype))


def by_matrices(system, v):
    """H v by sparse products, free rows and columns alone."""
    fixed = system.fixed if system.fixed is not None else torch.zeros(())
    v = v.masked_fill(fixed.bool(), 0).expand(*system.batch, *system.lowered.space.shape)
    flat = v.reshape(len(system.matrices), -1)
    products = torch.stack([matrix @ x for matrix, x in zip(system.matrices, flat, strict=True)])
    return products.reshape(v.shape).masked_fill(fixed.bool(), 0)


CASES = [(p, d, None) for d in (1, 2, 3) for p in (1, 2, 3)] + [(1, 3, 3), (2, 2, 2)]


@pytest.mark.parametrize(("degree", "dim", "components"), CASES)
def test_products_and_diagonals_are_those_of_the_matrix(degree, dim, components):
    system = grid_system(degree, dim, components, cells=(3, 2, 2))
    assert system.stencil is not None
    v = torch.randn(system.u.shape, dtype=torch.float64)
    torch.testing.assert_close(system.apply(v), by_matrices(system, v), rtol=1e-12, atol=1e-12)
    one = torch.eye(system.lowered.space.num_dofs, dtype=v.dtype)[3].reshape(v.shape[1:])
    assert system.diagonal.shape == v.shape
    free = 1 if system.fixed is None else ~system.fixed
    found = (system.apply(one) * one).flatten(1).sum(1)
    torch.testing.assert_close(found, (system.diagonal * one * free).flatten(1).sum(1))


def test_fixed_dofs_may_differ_from_item_to_item():
    system = grid_system(2, 2)
    torch.manual_seed(1)
    system.fixed = system.fixed | (torch.rand(system.u.shape) < 0.3)
    v = torch.randn_like(system.u)
    torch.testing.assert_close(system.apply(v), by_matrices(system, v), rtol=1e-12, atol=1e-12)
    assert bool((system.diagonal[system.fixed] == 1).all())


def test_weak_forms_mixed_spaces_and_other_cells_have_no_stencil():
    assert system_of("weak")[0].stencil is None
    assert system_of("mixed")[0].stencil is None
    V = FunctionSpace(unit_square(3, cell="triangle"), Lagrange(1))
    assert System(Energy(V, laplace).lower(()), torch.zeros(V.shape, dtype=V.dtype)).stencil is None


def test_a_stencil_of_entries_is_that_of_element_matrices():
    system = grid_system(2, 2)
    space, (term, entries) = system.lowered.space, system.coefficients[0]
    expected = assemble(space, [(term, entries)], system.batch, system.u)
    matrices = element_matrices(space, entries, term.domain, term.geometry, system.batch)
    needed = needed_entries(expected.grid, local_dofs(space))
    values = [(a, b, matrices[..., a, b].unflatten(-1, (4, 3))) for a, b in needed]
    found = Stencil.from_entries(space, 2, values, system.u)
    torch.testing.assert_close(found.data, expected.data)


def test_packing_is_undone_by_unpacking():
    V = FunctionSpace(unit_cube(2, 3, 1), Lagrange(3), components=2)
    grid = grid_of(V, 2)
    v = torch.randn(2, *V.shape, dtype=V.dtype)
    flat = grid.pack(v, grid.shifted(grid.buffer(v)))
    assert torch.equal(grid.unpack(flat), v)
    assert int((~grid.fixed(None, v)).sum()) == v.numel()


@pytest.mark.parametrize("cells", [(4, 6, 2), (5, 3, 3), (7, 1, 2)])
@pytest.mark.parametrize(("dim", "components"), [(1, None), (2, None), (3, None), (2, 2)])
def test_coarse_operators_are_galerkin_products(cells, dim, components):
    system = grid_system(1, dim, components, cells)
    stencil = system.stencil
    for axis in range(dim):
        n = stencil.grid.vertices[axis] - 1
        if n > 1:
            check_step(Interpolation(stencil.grid, axis, torch.rand(n, dtype=torch.float64) + 0.5), stencil)


@pytest.mark.parametrize(("high", "low"), [(2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("dim", [1, 2])
def test_operators_of_lower_degree_are_galerkin_products(high, low, dim):
    stencil = grid_system(high, dim).stencil
    for axis in range(dim):
        step = Embedding(stencil.grid, axis, low)
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
    found = torch.block_diag(*step.operator(stencil).dense())
    order = coarse.items(torch.arange(n).view(len(coarse.types), -1)).flatten()
    exist = ~grid.fixed(None, like)  # couplings of dofs that do not exist are nothing, but for their diagonal
    keep = grid.items(exist).flatten()
    A = A * keep * keep[:, None]
    clean = Stencil(grid, stencil.data.clone())
    clean.hold(~exist, 0.0)
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
    step = Interpolation(grid, 1, width)
    x, fine = step.coarse.buffer(width), grid.buffer(width)
    ends = torch.cat([torch.zeros(1), step.width.cumsum(0)]).to(width)
    step.coarse.along(x, 1)[0].copy_(ends[:, None].expand(6, 4, 1))
    step.bind(grid.buffer(width), step.coarse.buffer(width), fine, x)[1]()
    expected = torch.cat([torch.zeros(1), width.cumsum(0)]).to(width)
    torch.testing.assert_close(grid.along(fine, 1)[0, 0, :, 0], expected)
