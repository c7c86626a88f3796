"""Integrals and error norms, exact on polynomials."""

from math import pi, sqrt
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fem import Constant, FunctionSpace, Lagrange, by_cell_tag, gradient, h1_error, integrate, l2_error, unit_square
from fem.reference.cells import CELLS
from fem.reference.spline_element import BSpline
from tests.problems import disk, hard_mesh, mixed_mesh, polynomial, scrambled, sine

cells = pytest.mark.parametrize("cell", CELLS)


def exact_integral(function) -> float:
    """Σ c Π 1 / (i + 1) over the unit box."""
    return float((function.coefficients / (function.exponents + 1).prod(1)).sum())


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled"])
def test_integrals_of_polynomials(cell: str, kind: str) -> None:
    V = FunctionSpace(hard_mesh(cell, kind), Lagrange(1))
    function = polynomial(CELLS[cell].dim, 3)
    assert integrate(V, function).item() == pytest.approx(exact_integral(function), rel=1e-12, abs=1e-13)


@cells
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_integrals_of_fields_are_those_of_the_functions(cell: str, degree: int) -> None:
    V = FunctionSpace(hard_mesh(cell, "scrambled"), Lagrange(degree))
    function = polynomial(CELLS[cell].dim, degree)
    u = V.interpolate(function)
    assert integrate(V, V.function(u)).item() == pytest.approx(exact_integral(function), rel=1e-12, abs=1e-13)
    slopes = torch.tensor([exact_integral(function.derivative(d)) for d in range(CELLS[cell].dim)])
    torch.testing.assert_close(integrate(V, gradient(V.function(u))), slopes.double(), rtol=1e-10, atol=1e-6)


def test_everything_a_density_takes_can_be_integrated() -> None:
    mesh = unit_square(4, 2).with_tags(cell_tags={"west": lambda x: x[:, 0] < 0.5, "east": lambda x: x[:, 0] > 0.5})
    V = FunctionSpace(mesh, Lagrange(2))
    assert integrate(V, 3).item() == pytest.approx(3)
    assert integrate(V, torch.tensor([1.0, 2.0], dtype=torch.float64)).tolist() == pytest.approx([1, 2])
    assert integrate(V, by_cell_tag({"west": 1.0, "east": 5.0})).item() == pytest.approx(3)
    vector = Constant(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), (2,))
    assert integrate(V, vector).flatten().tolist() == pytest.approx([1, 2, 3, 4])
    assert integrate(V, lambda x: x).tolist() == pytest.approx([0.5, 0.5])
    assert integrate(V, lambda x: 2.0).item() == pytest.approx(2)  # pyright: ignore[reportArgumentType]


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled"])
def test_integrals_over_facets(cell: str, kind: str) -> None:
    V = FunctionSpace(hard_mesh(cell, kind), Lagrange(1))
    dim = CELLS[cell].dim
    assert integrate(V, lambda x: 1 + x[..., 0], tag="right").item() == pytest.approx(2)
    assert integrate(V, lambda x: 1 + x[..., 0], tag="left").item() == pytest.approx(1)
    assert integrate(V, lambda x: x[..., 0], tag="boundary").item() == pytest.approx(dim)
    u = V.interpolate(lambda x: x[:, 0])
    assert integrate(V, V.function(u), tag="boundary").item() == pytest.approx(dim)


def test_batches_and_vectors() -> None:
    V = FunctionSpace(scrambled(mixed_mesh()), Lagrange(2), components=3)
    u = torch.rand(2, 4, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = integrate(V, V.function(u))
    assert found.shape == (2, 4, 3)
    scalar = FunctionSpace(V.mesh, Lagrange(2))
    torch.testing.assert_close(found[1, 2, 1], integrate(scalar, scalar.function(u[1, 2, :, 1])))


def test_the_degree_of_quadrature_counts() -> None:
    """Degree 1 sees one point per cell, and x² is not its square: 1/3 − 1/12 n²."""
    V = FunctionSpace(unit_square(2), Lagrange(1))
    assert integrate(V, lambda x: x[..., 0] ** 2, degree=1).item() == pytest.approx(1 / 3 - 1 / 48)
    assert integrate(V, lambda x: x[..., 0] ** 2, degree=2).item() == pytest.approx(1 / 3)


def test_moments_of_the_disk() -> None:
    V = FunctionSpace(disk(4), Lagrange(1))
    errors = []
    for n in (2, 4):
        V = FunctionSpace(disk(n), Lagrange(1))
        errors.append(abs(integrate(V, lambda x: x.square().sum(-1), degree=8).item() - pi / 2))
    assert errors[0] / errors[1] > 2**3.8


# -- errors ------------------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_errors_of_interpolated_polynomials_vanish(cell: str, kind: str, degree: int) -> None:
    V = FunctionSpace(hard_mesh(cell, kind), Lagrange(degree))
    function = polynomial(CELLS[cell].dim, degree)
    u = V.interpolate(function)
    assert l2_error(V, u, function) < 1e-13
    assert h1_error(V, u, function) < 1e-12
    assert h1_error(V, u, function, function.gradient) < 1e-12


def test_errors_of_zero_are_norms() -> None:
    """‖sin πx sin πy‖ = ½ and |sin πx sin πy|₁ = π/√2, to the accuracy of quadrature of degree 8 on 8 × 8 cells."""
    V = FunctionSpace(unit_square(8), Lagrange(2))
    zero = torch.zeros(V.shape, dtype=torch.float64)
    assert l2_error(V, zero, sine).item() == pytest.approx(0.5, rel=1e-10)
    assert h1_error(V, zero, sine).item() == pytest.approx(pi / sqrt(2), rel=1e-10)


def test_exact_may_be_a_number_or_dofs() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    u = V.interpolate(lambda x: x[:, 0])
    assert l2_error(V, u, 0.0).item() == pytest.approx(1 / sqrt(3))
    assert l2_error(V, u, torch.zeros_like(u)).item() == pytest.approx(1 / sqrt(3))
    assert h1_error(V, u, torch.zeros_like(u)).item() == pytest.approx(1)
    assert h1_error(V, u, 0.0).item() == pytest.approx(1)
    assert l2_error(V, u, u).item() == 0


def test_vectors_add_their_components() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1), components=2)
    u = V.interpolate(lambda x: torch.stack([x[:, 0], 2 * x[:, 1]], -1))
    assert l2_error(V, u, lambda x: torch.zeros_like(x)).item() == pytest.approx(sqrt(5 / 3))
    assert h1_error(V, u, lambda x: x * torch.tensor([1.0, 0.0]).to(x)).item() == pytest.approx(2)
    assert h1_error(V, u, lambda x: torch.stack([x[..., 0], 2 * x[..., 1]], -1)) < 1e-13


def test_batches_of_functions() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    u = torch.arange(3, dtype=torch.float64)[:, None] * V.interpolate(lambda x: x[:, 0])
    assert l2_error(V, u, lambda x: x[..., 0]).tolist() == pytest.approx([1 / sqrt(3), 0, 1 / sqrt(3)])
    assert h1_error(V, u, lambda x: x[..., 0]).tolist() == pytest.approx([1, 0, 1], abs=1e-13)


def test_spline_spaces_have_errors_too() -> None:
    spline = BSpline.uniform((3, 2), 2)
    V = FunctionSpace(unit_square(3, 2), spline)
    u = spline.greville()[0].repeat(spline.dof_shape[1])
    assert l2_error(V, u, lambda x: x[..., 0]) < 1e-14
    assert h1_error(V, u, lambda x: x[..., 0]) < 1e-13


def test_interpolation_converges_at_the_rates_of_theory() -> None:
    """d + 1 in L2 and d in H1."""
    for degree in (1, 2, 3):
        errors = []
        for n in (4, 8):
            V = FunctionSpace(unit_square(n, cell="triangle"), Lagrange(degree))
            u = V.interpolate(sine)
            errors.append((l2_error(V, u, sine).item(), h1_error(V, u, sine).item()))
        assert errors[0][0] / errors[1][0] > 2 ** (degree + 1 - 0.2)
        assert errors[0][1] / errors[1][1] > 2 ** (degree - 0.2)


def test_errors_check_the_dofs() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    with pytest.raises(ValueError, match="`u` must have the trailing shape"):
        l2_error(V, torch.zeros(3, dtype=torch.float64), 0.0)
    with pytest.raises(ValueError, match="`exact` must have the trailing shape"):
        l2_error(V, V.interpolate(0.0), torch.zeros(3, dtype=torch.float64))


def test_errors_against_fields_and_numbers() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    finer = FunctionSpace(V.mesh, Lagrange(2))
    u, exact = V.interpolate(lambda x: x[..., 0]), lambda x: x[..., 0] ** 2
    field = finer.function(finer.interpolate(exact))
    for error in (l2_error, h1_error):
        torch.testing.assert_close(error(V, u, field), error(V, u, exact))
    torch.testing.assert_close(h1_error(V, u, 3.0), torch.ones((), dtype=V.dtype))
    three: Any = lambda x: 3.0  # noqa: E731
    torch.testing.assert_close(h1_error(V, u, three), torch.ones((), dtype=V.dtype))
    torch.testing.assert_close(l2_error(V, V.interpolate(1.0), 3), torch.full((), 2.0, dtype=V.dtype))


def test_shapes_are_not_broadcast_by_chance() -> None:
    """Four cells of four points: values "e q 1" would broadcast against "e q"."""
    V = FunctionSpace(unit_square(2), Lagrange(1))
    u = V.interpolate(0.0)
    points = V.quadrature.domains(None, 6)[0].weights
    assert len(points) == 16
    with pytest.raises(ValueError, match=r"must have shape \(4, 16\), one for each point x"):
        l2_error(V, u, lambda x: x[..., :1])


# -- expressions, and cell by cell -------------------------------------------------------------------------------------


def test_integrals_per_cell_add_up_and_are_those_of_the_cells() -> None:
    mesh = mixed_mesh()
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    u = V.function(torch.stack([V.interpolate(lambda x: x.exp()), V.interpolate(lambda x: x.sin())]))
    found = integrate(V, u, per_cell=True)
    assert found.shape == (2, mesh.num_cells, 2)
    assert torch.allclose(found.sum(1), integrate(V, u), rtol=1e-13)
    areas = integrate(V, 1.0, per_cell=True)
    for e in (0, mesh.num_cells - 1):
        one = V.per_cell(torch.eye(mesh.num_cells, dtype=torch.float64)[e])
        assert torch.allclose(integrate(V, one), areas[e], rtol=1e-13)
    sides = integrate(V, 1.0, "boundary", per_cell=True)
    assert torch.allclose(sides.sum(), integrate(V, 1.0, "boundary"))
    facets = mesh.topology.facets
    behind = torch.tensor(mesh.block_starts)[facets.block] + facets.cell
    assert set(sides.nonzero()[:, 0].tolist()) == set(behind[mesh.topology.boundary].tolist())


def test_expressions_of_fields_and_parameters() -> None:
    """∫ κ |∇u|² and ∮ κ ∂u/∂n for u = x² − y², κ = 3: 3 · 8/3, and 0 in all, 2 κ on the right."""
    mesh = unit_square(3, cell="triangle")
    V = FunctionSpace(mesh, Lagrange(2))
    scale = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    u = V.interpolate(lambda x: x[:, 0].square() - x[:, 1].square()) * scale
    kappa = V.per_cell(torch.full((mesh.num_cells,), 3.0, dtype=torch.float64))
    energy = integrate(V, lambda x, u, grad_u, k: k * grad_u.square().sum(-1), u=u, params=(kappa,))
    assert torch.allclose(energy, 8 * scale[:, 0] ** 2, rtol=1e-13)
    flux = lambda x, u, grad_u, normal, k: k * (grad_u * normal).sum(-1)  # noqa: E731
    assert torch.allclose(integrate(V, flux, "right", u=u, params=(kappa,)), 6 * scale[:, 0], rtol=1e-13)
    assert integrate(V, flux, "boundary", u=u, params=(kappa,)).abs().max() < 1e-12
    matrices = V.per_cell(torch.eye(2, dtype=torch.float64).expand(mesh.num_cells, 2, 2), shape=(2, 2))
    trace = integrate(V, lambda x, u, grad_u: u.diagonal(dim1=-2, dim2=-1).sum(-1), u=matrices)
    assert float(trace) == pytest.approx(2)
    mixed = integrate(V, lambda x, u, grad_u: u[0] * grad_u[1][..., 0], u=(V.function(u), V.function(u)))
    assert torch.allclose(mixed, scale[:, 0] ** 2 * (1 / 2 - 1 / 3), rtol=1e-12)


def test_derivatives_of_expressions_per_cell() -> None:
    mesh = unit_square(2, cell="triangle").curved(2, lambda x: x + 0.1 * x.prod(1, keepdim=True))

    def energy(u: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(1))
        return integrate(V, lambda x, u, grad_u: grad_u.square().sum(-1) + u.exp(), u=u, per_cell=True)

    u = torch.linspace(0, 1, 9, dtype=torch.float64, requires_grad=True)
    inputs = (u, mesh.nodes.clone().requires_grad_())
    assert gradcheck(energy, inputs, fast_mode=True)
    assert gradgradcheck(energy, inputs, fast_mode=True)


def test_expressions_that_are_none() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    u = V.interpolate(1.0)
    with pytest.raises(TypeError, match=r"`integrate\(value=...\)` must be an expression `lambda x, u, grad_u"):
        integrate(V, 2.0, u=u)
    with pytest.raises(ValueError, match="the expression is no expression at a point"):
        integrate(V, lambda x, u, grad_u: u.mean(), u=u)
    with pytest.raises(ValueError, match=r"`integrate\(params=...\)` are those of an expression of a field; give"):
        integrate(V, lambda x, k: k, params=(1.0,))
