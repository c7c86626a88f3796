"""Stencils are the assembled matrix: products, diagonals, fixed dofs."""

from dataclasses import replace

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, unit_cube, unit_square
from fem.forms.assembly import element_matrices, flat_dofs
from fem.forms.grid_integral import GridIntegral
from solvers.operators.stencil import Stencil, grid_of
from solvers.operators.system import System
from tests.problems import diffusion, laplace
from tests.solvers.systems import elasticity, system_of

pytestmark = pytest.mark.usefixtures("both_ways")


def reaction_diffusion(x, u, grad_u, k):
    return diffusion(x, u, grad_u, k) + 0.3 * k * u.square()


def grid_system(degree, dim, components=None, cells=(3, 4, 2), moved=True, batch=2):
    """A batch of problems with all kinds of terms, a Robin side and a fixed side, on an uneven moved grid."""
    torch.manual_seed(0)
    sizes = (5 / 16, 7 / 16, 9 / 16)  # of cells, to the last digit: grids share code
    mesh = box((0.0,) * dim, tuple(n * h for n, h in zip(cells[:dim], sizes, strict=False)), cells[:dim])
    if moved:
        mesh = mesh.with_nodes(mesh.nodes + 0.1 / max(cells[:dim]) * torch.rand_like(mesh.nodes))
    V = FunctionSpace(mesh, Lagrange(degree), components=components)
    density = (
        reaction_diffusion if components is None else lambda x, u, g, k: k * elasticity(x, u, g) + u.square().sum(-1)
    )
    robin = {"right": lambda x, u, n, k: 0.5 * (1 + x[..., 0]) * (u.square() if components is None else u[..., 0] ** 2)}
    k = torch.rand(batch, mesh.topology.num_nodes, dtype=V.dtype) + 0.5
    energy = Energy(V, density, Dirichlet(V, {"left": 1.0}), boundary=robin)
    form = energy.discrete_form((FunctionSpace(mesh, Lagrange(1)).function(k),))
    return System(form, torch.zeros(batch, *V.shape, dtype=V.dtype))


def by_matrices(system, v):
    """H v by sparse products, free rows and columns alone."""
    fixed = system.fixed if system.fixed is not None else torch.zeros(())
    v = v.masked_fill(fixed.bool(), 0).expand(*system.batch, *system.form.space.shape)
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
    one = torch.eye(system.form.space.num_dofs, dtype=v.dtype)[3].reshape(v.shape[1:])
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
    assert System(Energy(V, laplace).discrete_form(()), torch.zeros(V.shape, dtype=V.dtype)).stencil is None


def dof_numbers(grid):
    """Which dof stands at each vertex of each type, type after type; −1 where none does."""
    nodes = torch.tensor([p * (n - 1) + 1 for n, p in zip(grid.vertices, grid.degrees, strict=True)]).prod()
    numbers = torch.arange(int(nodes) * grid.components).view(1, int(nodes), grid.components).expand(grid.batch, -1, -1)
    flat = torch.full((len(grid.types), grid.size), -1)
    return grid.items(grid.pack(numbers, flat))[0].flatten()


@pytest.mark.parametrize(("degree", "components", "facet"), [(2, None, False), (1, 2, False), (2, None, True)])
@pytest.mark.parametrize("listed", [False, True])
def test_a_stencil_is_what_element_matrices_add_up_to(degree, components, facet, listed):
    """Of integrals over all cells, over cells that are listed by number, and over facets."""
    system = grid_system(degree, 2, components)
    hessian = system.hessians[int(facet)]
    integral, space = hessian.integral, system.form.space
    assert (integral.domain.facet is not None) == facet
    if listed and not facet:
        every = replace(integral.domain, cells=torch.arange(space.mesh.num_cells))
        hessian = replace(integral, domain=every).hessian(hessian.u, hessian.batch)
    grid = grid_of(space, 2)
    assert grid is not None
    stencil = Stencil.zeros(grid, system.u)
    stencil.add(hessian)
    matrices = element_matrices(space, hessian.coefficients, integral.domain, integral.geometry, system.batch)
    dofs = flat_dofs(space, integral.domain)
    expected = torch.zeros(2, space.num_dofs, space.num_dofs, dtype=space.dtype)
    for dof, matrix in zip(dofs, matrices.unbind(1), strict=True):
        expected[:, dof[:, None], dof[None, :]] += matrix
    numbers = dof_numbers(grid)
    exist = torch.nonzero(numbers >= 0).flatten()
    found = stencil.dense()[:, exist[:, None], exist[None, :]]
    chosen = numbers[exist]
    torch.testing.assert_close(found, expected[:, chosen[:, None], chosen[None, :]], rtol=1e-12, atol=1e-13)


def test_packing_is_undone_by_unpacking():
    V = FunctionSpace(unit_cube(2, 3, 1), Lagrange(3), components=2)
    grid = grid_of(V, 2)
    v = torch.randn(2, *V.shape, dtype=V.dtype)
    flat = grid.pack(v, grid.shifted(grid.buffer(v)))
    assert torch.equal(grid.unpack(flat), v)
    assert int((~grid.fixed_images(None, v)).sum()) == v.numel()


@pytest.mark.parametrize(
    ("degree", "dim", "components"),
    [(1, 1, None), (1, 2, None), (2, 2, None), (3, 2, None), (1, 2, 2), (1, 3, None), (2, 3, None)],
)
@pytest.mark.parametrize("cells", [(3, 4, 2), (5, 20, 17)])
def test_integrals_without_a_gather_make_the_same_stencil(degree, dim, components, cells, monkeypatch):
    found = []
    for smallest in (1, 10**9):
        monkeypatch.setattr("fem.forms.traced.loops.GRID_CELLS", smallest)
        system = grid_system(degree, dim, components, cells, moved=False)
        assert any(isinstance(i, GridIntegral) for i in system.form.integrals) == (smallest == 1)
        found.append(system.stencil.data)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)
