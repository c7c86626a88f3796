"""Assembly: vectors and matrices against dense sums over cells and points, sparsity, patch tests."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MixedSpace,
    compilation,
    integrate,
    unit_interval,
    unit_square,
)
from fem.forms.assembly import (
    chunks,
    element_matrices,
    flat_dofs,
    make_pattern,
    pattern_by_keys,
    pattern_of,
    scatter_fluxes,
)
from fem.mesh.geometry import cell_domains
from fem.reference.cells import CELLS
from fem.reference.spline_element import BSpline
from tests.problems import bend, disk, hard_mesh, laplace, mixed_mesh, polynomial, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])


def random(V, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spaces(name: str) -> Any:
    if name == "curved":
        return FunctionSpace(hard_mesh("quadrilateral", "curved"), Lagrange(2))
    if name == "tetrahedra":
        return FunctionSpace(hard_mesh("tetrahedron", "scrambled", 1), Lagrange(2))
    if name == "kinds of cells":
        return FunctionSpace(scrambled(mixed_mesh()), Lagrange(3))
    if name == "vector":
        return FunctionSpace(scrambled(mixed_mesh()), Lagrange(2), components=2)
    if name == "spline":
        return FunctionSpace(unit_square(4, 3).curved(2, bend), BSpline.uniform((4, 3), 2))
    mesh = scrambled(unit_square(2, cell="triangle"))
    return MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))


SPACES = ("curved", "tetrahedra", "kinds of cells", "vector", "spline", "mixed")
all_spaces = pytest.mark.parametrize("name", SPACES)


def basis_at_points(V: FunctionSpace, domain) -> tuple[Tensor, Tensor]:
    """Every global function and its gradient at the points of a domain, "n e q" and "n e q d", one dof at a time."""
    geometry = V.quadrature.geometry(domain)
    values, gradients = V.quadrature.values(torch.eye(V.num_nodes, dtype=torch.float64), domain, geometry)
    return values, gradients


def dense_matrix(V: FunctionSpace, c0: Tensor, c1: Tensor, c01: Tensor) -> Tensor:
    """Σ w (c0 φ_a φ_b + c1 ∇φ_a·∇φ_b + φ_a c01·∇φ_b + c01·∇φ_a φ_b), written out."""
    total = torch.zeros(V.num_nodes, V.num_nodes, dtype=torch.float64)
    for domain in V.quadrature.domains():
        g = V.quadrature.geometry(domain)
        w = g.weights.expand(g.points.shape[:2])
        value, grad = basis_at_points(V, domain)
        cross = torch.einsum("eq,aeq,beqd,d->ab", w, value, grad, c01)
        total += c0 * torch.einsum("eq,aeq,beq->ab", w, value, value) + cross + cross.T
        total += c1 * torch.einsum("eq,aeqd,beqd->ab", w, grad, grad)
    return total


# -- against written-out sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["curved", "tetrahedra", "kinds of cells", "spline"])
def test_matrices_are_sums_over_cells_and_points(name: str) -> None:
    V = spaces(name)
    d = V.mesh.dim
    c0, c1, c01 = torch.tensor(1.7), torch.tensor(0.6), torch.arange(1.0, d + 1).double()
    energy = Energy(V, lambda x, u, g: 0.5 * c0 * u**2 + 0.5 * c1 * g.square().sum(-1) + u * (c01 * g).sum(-1))
    matrix = energy.hessian(random(V)).to_dense()
    torch.testing.assert_close(matrix, dense_matrix(V, c0, c1, c01), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["curved", "tetrahedra", "kinds of cells", "spline"])
def test_vectors_are_sums_over_cells_and_points(name: str) -> None:
    """r_a = Σ w (f₀ φ_a + f₁·∇φ_a), and with `magnitude` bounded below by it."""
    V = spaces(name)
    for domain in V.quadrature.domains():
        g = V.quadrature.geometry(domain)
        points = g.points.shape[:2]
        generator = torch.Generator().manual_seed(0)
        f0 = torch.rand(3, *points, dtype=torch.float64, generator=generator)
        f1 = torch.rand(3, *points, V.mesh.dim, dtype=torch.float64, generator=generator) - 0.5
        value, grad = basis_at_points(V, domain)
        w = g.weights.expand(points)
        wanted = torch.einsum("eq,beq,aeq->ba", w, f0, value) + torch.einsum("eq,beqd,aeqd->ba", w, f1, grad)
        found = scatter_fluxes(V, {0: f0, 1: f1}, domain, g, (3,))
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
        assert (scatter_fluxes(V, {0: f0, 1: f1}, domain, g, (3,), magnitude=True) >= found.abs() - 1e-14).all()


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", ["curved", "vector", "spline"])
def test_scattering_is_the_transpose_of_evaluation(name: str, order: int) -> None:
    """⟨w f, B u⟩ at points = ⟨Bᵀ w f, u⟩ at dofs, for values, gradients and second derivatives."""
    V, u = spaces(name), random(spaces(name))
    for domain in V.quadrature.domains():
        g = V.quadrature.geometry(domain, max(order, 1))
        slot = V.quadrature.values(u, domain, g, order)[order]
        flux = torch.rand(slot.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
        weights = g.weights.reshape(*g.weights.shape, *[1] * (slot.ndim - 2))
        at_points = (slot * flux * weights).sum()
        at_dofs = (scatter_fluxes(V, {order: flux}, domain, g, ()) * u).sum()
        torch.testing.assert_close(at_points, at_dofs, rtol=1e-11, atol=1e-12)


# -- masses and constants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
@cells
@degrees
def test_entries_of_the_mass_matrix_add_up_to_the_volume(cell: str, degree: int, kind: str) -> None:
    """Σ_ab ∫ φ_a φ_b = ∫ 1, and the stiffness matrix annihilates constants."""
    mesh = hard_mesh(cell, kind, 1 if CELLS[cell].dim == 3 and degree > 1 else 2)
    V = FunctionSpace(mesh, Lagrange(degree), quadrature_degree=8)
    mass = Energy(V, lambda x, u, g: 0.5 * u.square()).hessian(random(V))
    stiffness = Energy(V, laplace).hessian(random(V))
    torch.testing.assert_close(mass.values().sum(), integrate(V, 1.0, degree=8))
    constants = torch.ones(V.num_dofs, 1, dtype=torch.float64)
    assert (stiffness @ constants).abs().max() < 1e-12 * stiffness.values().abs().max()
    assert torch.linalg.eigvalsh(mass.to_dense()).min() > 0


def test_stiffness_of_one_triangle_and_one_interval() -> None:
    """Known by hand: cotangents of the angles, and 1 / h."""
    V = FunctionSpace(unit_interval(1), Lagrange(1))
    energy = Energy(V, laplace)
    wanted = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    torch.testing.assert_close(energy.hessian(random(V)).to_dense(), wanted)
    V = FunctionSpace(unit_square(1, cell="triangle"), Lagrange(1))
    found = Energy(V, laplace).hessian(random(V)).to_dense()
    wanted = torch.tensor([[1, -0.5, -0.5, 0], [-0.5, 1, 0, -0.5], [-0.5, 0, 1, -0.5], [0, -0.5, -0.5, 1]])
    torch.testing.assert_close(found, wanted.double(), rtol=0, atol=1e-14)


# -- sparsity ----------------------------------------------------------------------------------------------------------


@all_spaces
def test_the_pattern_couples_the_dofs_that_share_a_cell(name: str) -> None:
    V = spaces(name)
    pattern = make_pattern(V)
    wanted = torch.zeros(V.num_dofs, V.num_dofs, dtype=torch.bool)
    for domain in V.quadrature.domains():
        for dofs in flat_dofs(V, domain):
            wanted[dofs[:, None], dofs] = True
    found = torch.zeros_like(wanted)
    found[pattern.row, pattern.column] = True
    assert torch.equal(found, wanted)
    assert len(pattern.column) == wanted.sum()
    assert torch.equal(pattern.crow.diff(), wanted.sum(1))
    assert torch.equal(pattern.row[pattern.diagonal], torch.arange(V.num_dofs))
    assert torch.equal(pattern.column[pattern.diagonal], torch.arange(V.num_dofs))
    same_row = pattern.row.diff() == 0
    assert (pattern.column.diff()[same_row] > 0).all()


@all_spaces
def test_positions_lead_to_the_row_and_column_of_each_entry(name: str) -> None:
    V = spaces(name)
    pattern = make_pattern(V)
    for domain, position in zip(V.quadrature.domains(), pattern.positions.values(), strict=True):
        dofs = flat_dofs(V, domain)
        assert torch.equal(pattern.row[position], dofs[:, :, None].expand(position.shape))
        assert torch.equal(pattern.column[position], dofs[:, None, :].expand(position.shape))


@all_spaces
def test_matrices_are_valid_csr(name: str) -> None:
    V = spaces(name)
    pattern = make_pattern(V)
    values = torch.rand(2, len(pattern.column), dtype=torch.float64)
    for matrix in (pattern.csr(values), pattern.csr(values[0])):
        torch.sparse_csr_tensor(
            matrix.crow_indices(), matrix.col_indices(), matrix.values(), matrix.shape, check_invariants=True
        )


def test_patterns_are_made_once() -> None:
    V = spaces("vector")
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum((-2, -1)))
    first = energy.discrete_form().pattern
    energy.hessian(random(V))
    assert pattern_of(V) is first


# -- element matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (2,)])
@all_spaces
def test_diagonals_of_element_matrices(name: str, batch: tuple) -> None:
    V = spaces(name)
    if name == "mixed":
        energy = Energy(
            V, lambda x, u, g: u[1] * u[0].sum(-1) ** 2 + g[0].sum((-2, -1)) ** 2 * u[1] + g[1].sum(-1) ** 2
        )
    elif name == "vector":
        energy = Energy(
            V, lambda x, u, g: u.sum(-1) ** 3 + g.sum((-2, -1)) ** 2 * u[..., 0] + x[..., 0] * u[..., 1] ** 2
        )
    else:
        energy = Energy(V, lambda x, u, g: u**3 + g.sum(-1) ** 2 * u + x[..., 0] * g[..., 0] * u)
    form, u = energy.discrete_form(), random(V, *batch)
    for hessian in form.hessians(u):
        integral, coefficients = hessian.integral, hessian.coefficients
        arguments = (V, coefficients, integral.domain, integral.geometry, batch)
        whole, diagonal = element_matrices(*arguments), element_matrices(*arguments, diagonal=True)
        e, size = flat_dofs(V, integral.domain).shape
        assert whole.shape == (*batch, e, size, size)
        torch.testing.assert_close(diagonal, whole.diagonal(dim1=-2, dim2=-1), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(whole, whole.mT, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("step", [1, 3])
@all_spaces
def test_matrices_made_in_portions(name: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few cells at a time or all at once: the same matrix, and every cell in exactly one portion."""
    V = spaces(name)
    flat = (lambda x, u, g: u[1] ** 3 + g[0].sum((-2, -1)) ** 2) if name == "mixed" else None
    rank = -1 if name != "vector" else (-2, -1)
    energy = Energy(V, flat or (lambda x, u, g: (1 + x[..., 0]) * g.sum(rank) ** 4))
    u = random(V, 2)
    whole = energy.hessian(u).values()
    widest = max(flat_dofs(V, domain).shape[1] for domain in V.quadrature.domains())
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * step * 2 * widest**2)
    for domain in V.quadrature.domains():
        e = len(flat_dofs(V, domain))
        portions = [list(range(e))[p] for p in chunks(V, domain, (2,))]
        assert [cell for portion in portions for cell in portion] == list(range(e))
        assert len(portions[0]) == min(step, e) or len(V.quadrature.domains()) > 1
    torch.testing.assert_close(energy.hessian(u).values(), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("when", ["never", "always"])
@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize(("shape", "degree"), [((3, 2), 2), ((60, 40), 1), ((60, 40), 2)])
def test_uniform_grids_and_moved_ones_give_the_same_matrix(shape, degree, components, when) -> None:
    """The path with one shared Jacobian, and where cells are many the loop over the grid, against the general one."""
    grid = unit_square(*shape)
    matrices = []
    for mesh in (grid, grid.with_nodes(grid.nodes)):
        V = FunctionSpace(mesh, Lagrange(degree), components=components)
        assert mesh.is_uniform == (mesh is grid)

        def density(x, u, g, k):
            sizes = (g.square().sum(-1), u**2) if components is None else (g.square().sum((-1, -2)), u.square().sum(-1))
            return 0.5 * (1 + x[..., 0]) * k * sizes[0] + 0.25 * sizes[1] ** 2

        k = FunctionSpace(mesh, Lagrange(1)).function(random(FunctionSpace(mesh, Lagrange(1)), 2))
        with compilation(when):
            matrices.append(Energy(V, density).hessian(random(V), k).values())
    torch.testing.assert_close(*matrices, rtol=1e-12, atol=1e-13)


# -- patch tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["distorted", "scrambled", "curved"])
@cells
@degrees
def test_linear_functions_are_in_equilibrium(cell: str, degree: int, kind: str) -> None:
    """∫ ∇(b·x)·∇φ = 0 for every φ that vanishes on the boundary, on cells of degree p or less."""
    mesh = scrambled(small_mesh(cell).curved(degree, bend)) if kind == "curved" else hard_mesh(cell, kind)
    V = FunctionSpace(mesh, Lagrange(degree), quadrature_degree=2 * mesh.dim * degree)
    u = V.interpolate(polynomial(mesh.dim, 1))
    energy = Energy(V, laplace)
    residual = energy.residual(u)
    inside = ~Dirichlet(V, {"boundary": 0.0}).mask
    if inside.any():
        assert residual[inside].abs().max() < 1e-12
    assert residual.abs().max() > 1e-3


def test_constant_strain_is_in_equilibrium() -> None:
    V = FunctionSpace(disk(2, 2), Lagrange(2), components=2, quadrature_degree=8)
    A = torch.tensor([[0.3, -0.2], [0.5, 0.1]], dtype=torch.float64)
    u = V.interpolate(lambda x: x @ A.T)

    def elasticity(x, u, g):
        strain = 0.5 * (g + g.mT)
        return strain.square().sum((-2, -1)) + 0.7 * strain.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2

    residual = Energy(V, elasticity).residual(u)
    inside = ~Dirichlet(V, {"boundary": 0.0}).mask
    assert residual[inside].abs().max() < 1e-12
    assert residual.sum(0).abs().max() < 1e-12


def test_domains_and_blocks_agree() -> None:
    mesh = scrambled(mixed_mesh())
    assert [d.block for d in cell_domains(mesh, 2)] == [0, 1]


@all_spaces
def test_both_ways_to_make_a_pattern_agree(name: str) -> None:
    V = spaces(name)
    rows, keys = (
        make_pattern(V),
        pattern_by_keys([flat_dofs(V, domain) for domain in V.quadrature.domains()], V.num_dofs),
    )
    assert all(torch.equal(getattr(rows, part), getattr(keys, part)) for part in ("crow", "column", "row", "diagonal"))
    assert all(torch.equal(a.long(), b) for a, b in zip(rows.positions.values(), keys.positions.values(), strict=True))
