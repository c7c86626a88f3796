"""Energies and weak forms: values, residuals, Hessians, batches, constraints, derivatives in everything."""

from inspect import unwrap
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    MixedSpace,
    WeakForm,
    by_cell_tag,
    gradient,
    integrate,
    unit_square,
)
from fem.reference.cells import CELLS
from fem.reference.spline_element import BSpline
from tests.problems import bend, distorted, hard_mesh, laplace, mixed_mesh, poisson, polynomial, scrambled, taylor_rates

cells = pytest.mark.parametrize("cell", CELLS)


def random(V, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scalar_density(x, u, grad_u, kappa, f):
    """Nonlinear in u and ∇u, with a coefficient and a load."""
    slope = grad_u.square().sum(-1)
    return 0.5 * kappa * slope * (1 + u.square()) + 0.1 * slope.square() + torch.cos(u) - f * u


def elastic_density(x, u, grad_u, mu):
    """Hyperelastic: ½ μ |F|² − μ log det F + ½ (det F − 1)² with F = I + ∇u / 10."""
    F = torch.eye(2, dtype=grad_u.dtype) + 0.1 * grad_u
    det = F[..., 0, 0] * F[..., 1, 1] - F[..., 0, 1] * F[..., 1, 0]
    return 0.5 * mu * F.square().sum((-2, -1)) - mu * det.log() + 0.5 * (det - 1) ** 2 - u[..., 1]


def mixed_density(x, u, grad_u, nu):
    """A vector and a scalar that multiply each other."""
    (v, p), (grad_v, grad_p) = u, grad_u
    divergence = grad_v.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * nu * grad_v.square().sum((-2, -1)) - p * divergence + p.square() * v[..., 0] + (v * grad_p).sum(-1)


def plate_density(x, u, grad_u, hess_u, D):
    """A plate with membrane stiffness: second derivatives, nonlinear."""
    laplacian = hess_u.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (
        0.5 * D * hess_u.square().sum((-2, -1))
        + 0.1 * laplacian**3
        + 0.25 * grad_u.square().sum(-1) ** 2
        - u * x[..., 0]
    )


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def case(name: str):
    """(energy, parameters) for every kind of space: all checks below hold for each."""
    if name.startswith("scalar"):
        mesh = hard_mesh(
            "triangle" if "triangle" in name else "quadrilateral", "curved" if "curved" in name else "scrambled"
        )
        V = FunctionSpace(mesh, Lagrange(2))
        dirichlet = Dirichlet(V, {"left": 0.3, "top": lambda x: x[:, 0]})
        return Energy(V, scalar_density, dirichlet), (number(1.7), lambda x: x[..., 0])
    if name == "interval":
        V = FunctionSpace(hard_mesh("interval", "scrambled"), Lagrange(3))
        return Energy(V, scalar_density, Dirichlet(V, {"left": 1.0})), (1.7, 0.4)
    if name == "tetrahedra":
        V = FunctionSpace(hard_mesh("tetrahedron", "distorted", 1), Lagrange(2))
        return Energy(V, scalar_density, Dirichlet(V, {"left": 1.0})), (1.7, 0.4)
    if name == "hexahedra":
        V = FunctionSpace(hard_mesh("hexahedron", "distorted"), Lagrange(1))
        return Energy(V, scalar_density, Dirichlet(V, {"left": 1.0})), (1.7, 0.4)
    if name == "kinds of cells":
        V = FunctionSpace(scrambled(mixed_mesh()), Lagrange(2))
        return Energy(V, scalar_density, Dirichlet(V, {"left": 1.0})), (1.7, 0.4)
    if name == "free":
        V = FunctionSpace(unit_square(3, 2), Lagrange(1))
        return Energy(V, scalar_density), (1.7, 0.4)
    if name == "vector":
        V = FunctionSpace(scrambled(unit_square(2, cell="triangle")), Lagrange(2), components=2)
        dirichlet = Dirichlet(V, {"left": 0.0, ("right", 1): 0.2})
        return Energy(V, elastic_density, dirichlet), (2.0,)
    if name == "mixed":
        mesh = scrambled(unit_square(2, cell="triangle"))
        W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
        return Energy(W, mixed_density, Dirichlet(W, {("left", 0): 0.0, ("right", 0, 1): 0.3})), (2.0,)
    if name == "boundary":
        V = FunctionSpace(scrambled(unit_square(2, cell="triangle")), Lagrange(2))
        terms = {
            "right": lambda x, u, normal, kappa, f: kappa * u**4 - normal[..., 0] * u,
            "bottom": lambda x, u, normal, kappa, f: (x[..., 0] - normal[..., 1]) * u.square(),
        }
        return Energy(V, scalar_density, Dirichlet(V, {"left": 0.3}), boundary=terms), (number(1.7), 0.4)
    if name == "boundary gradients":
        V = FunctionSpace(distorted(unit_square(2)), Lagrange(2), components=2)
        term = {"right": lambda x, u, g, n, mu: mu * ((g * n[..., None, :]).sum(-1) * u).sum(-1) + u[..., 0] ** 3}
        return Energy(V, elastic_density, Dirichlet(V, {"left": 0.0}), boundary=term, derivatives=(1, 1)), (2.0,)
    if name == "plate":
        V = FunctionSpace(unit_square(4, 3), BSpline.uniform((4, 3), 3))
        return Energy(V, plate_density, derivatives=2), (number(0.7),)
    if name == "curved plate":
        V = FunctionSpace(unit_square(4, 3).curved(2, bend), BSpline.uniform((4, 3), 3))
        slope = {"left": lambda x, u, g, n, D: (g * n).sum(-1).square() * D}
        return Energy(V, plate_density, boundary=slope, derivatives=2), (number(0.7),)
    assert name == "values alone"
    V = FunctionSpace(unit_square(3, 2), Lagrange(2))
    return Energy(V, lambda x, u: torch.exp(u) - x[..., 0] * u, derivatives=0), ()


CASES = (
    *("scalar triangle", "scalar quadrilateral", "scalar triangle curved", "scalar quadrilateral curved", "interval"),
    *(
        "tetrahedra",
        "hexahedra",
        "kinds of cells",
        "free",
        "vector",
        "mixed",
        "boundary",
        "boundary gradients",
        "plate",
    ),
    *("curved plate", "values alone"),
)
cases = pytest.mark.parametrize("name", CASES)


def dense(matrix: Tensor) -> Tensor:
    return matrix.to_dense()


def jacobian(function, u: Tensor) -> Tensor:
    """d function / du as a matrix of flattened dofs."""
    found = torch.autograd.functional.jacobian(function, u)
    return found.reshape(u.numel(), u.numel())


# -- values ------------------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled"])
def test_value_in_closed_form(cell: str, kind: str) -> None:
    """½ |∇u|² − f u with polynomials, against their exact integrals."""
    V = FunctionSpace(hard_mesh(cell, kind), Lagrange(2), quadrature_degree=6)
    exact, load = polynomial(CELLS[cell].dim, 2), polynomial(CELLS[cell].dim, 1, seed=1)
    energy = Energy(V, poisson)
    wanted = integrate(V, lambda x: 0.5 * exact.gradient(x).square().sum(-1) - load(x) * exact(x), degree=8)
    torch.testing.assert_close(energy(V.interpolate(exact), load), wanted)


def test_values_of_known_integrals() -> None:
    """u = x: ∫ u² = 1/3, ∫ |∇u|² = 1, and ∫ u ds = 1 on the right."""
    V = FunctionSpace(scrambled(mixed_mesh()), Lagrange(1))
    u = V.interpolate(lambda x: x[:, 0])
    energy = Energy(V, lambda x, u, g: u.square() + g.square().sum(-1), boundary={"right": lambda x, u, n: 3 * u})
    assert energy(u).item() == pytest.approx(1 / 3 + 1 + 3)
    assert energy(torch.stack([u, 2 * u])).tolist() == pytest.approx([1 / 3 + 1 + 3, 4 / 3 + 4 + 6])


def test_dirichlet_values_are_inserted_before_anything_else() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    dirichlet = Dirichlet(V, {"boundary": lambda x: x[:, 0]})
    plain, held = (Energy(V, scalar_density, d) for d in (None, dirichlet))
    u = random(V)
    assert torch.equal(held(u, 1.0, 1.0), plain(dirichlet.apply(u), 1.0, 1.0))
    assert not torch.equal(held(u, 1.0, 1.0), plain(u, 1.0, 1.0))


def test_densities_may_be_constant_or_leave_out_the_points() -> None:
    V = FunctionSpace(unit_square(3, 2), Lagrange(1))
    assert Energy(V, lambda x, u, g: number(2.0))(random(V)).item() == pytest.approx(2)
    assert Energy(V, lambda x, u, g: number(2.0))(random(V, 4)).tolist() == pytest.approx([2] * 4)
    energy = Energy(V, lambda x, u, g: x[..., 0])
    assert energy.residual(random(V, 2)).abs().max() == 0
    assert torch.equal(dense(energy.hessian(random(V))), torch.zeros(12, 12, dtype=torch.float64))
    assert energy.hessian_product(random(V), random(V)).abs().max() == 0


# -- derivatives of first order ----------------------------------------------------------------------------------------


@cases
def test_residual_is_the_gradient_of_the_value(name: str) -> None:
    energy, params = case(name)
    u = random(energy.space).requires_grad_()
    (wanted,) = torch.autograd.grad(energy(u, *params), u)
    found = energy.residual(u, *params)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-11, atol=1e-12)
    if energy.constraint.fixed is not None:
        assert (found[energy.constraint.fixed] == 0).all()


@cases
def test_residual_needs_no_graph(name: str) -> None:
    energy, params = case(name)
    u = random(energy.space)
    with torch.no_grad():
        found = energy.residual(u, *params)
    assert not found.requires_grad
    torch.testing.assert_close(found, energy.residual(u, *params).detach())


@cases
def test_taylor(name: str) -> None:
    energy, params = case(name)
    u, v = random(energy.space, seed=1), random(energy.space, seed=2)
    assert min(taylor_rates(lambda u: energy(u, *params), u, v)) > 1.9


# -- derivatives of second order ---------------------------------------------------------------------------------------


@cases
def test_hessian_is_the_derivative_of_the_residual(name: str) -> None:
    """Symmetric; prescribed rows and columns zero with ones on the diagonal."""
    energy, params = case(name)
    u = random(energy.space)
    matrix = energy.hessian(u, *params)
    assert matrix.layout == torch.sparse_csr
    found = dense(matrix)
    assert found.shape == (energy.space.num_dofs,) * 2
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-11)
    wanted = jacobian(lambda u: energy.residual(u, *params), u)
    mask = energy.constraint.fixed
    if mask is not None:
        mask = mask.flatten()
        identity = torch.eye(len(mask), dtype=torch.float64)
        assert torch.equal(found[mask], identity[mask])
        assert torch.equal(found[:, mask], identity[:, mask])
        wanted = torch.where(mask[:, None] | mask, identity, wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@cases
def test_hessian_product_is_the_matrix_times_the_vector(name: str) -> None:
    energy, params = case(name)
    u, v = random(energy.space), random(energy.space, seed=1)
    wanted = (dense(energy.hessian(u, *params)) @ v.flatten()).reshape(v.shape)
    if energy.constraint.fixed is not None:  # on prescribed dofs the matrix is the identity, the product zero
        wanted = wanted.masked_fill(energy.constraint.fixed, 0)
    torch.testing.assert_close(energy.hessian_product(u, v, *params), wanted, rtol=1e-11, atol=1e-11)


@cases
def test_batches_are_loops(name: str) -> None:
    energy, params = case(name)
    V = energy.space
    u, v = random(V, 2, 3), random(V, 2, 3, seed=1)
    value, residual = energy(u, *params), energy.residual(u, *params)
    product, matrix = energy.hessian_product(u, v, *params), dense(energy.hessian(u, *params))
    assert value.shape == (2, 3)
    assert matrix.shape == (2, 3, V.num_dofs, V.num_dofs)
    for i, j in ((0, 0), (1, 2)):
        torch.testing.assert_close(value[i, j], energy(u[i, j], *params))
        torch.testing.assert_close(residual[i, j], energy.residual(u[i, j], *params))
        torch.testing.assert_close(product[i, j], energy.hessian_product(u[i, j], v[i, j], *params))
        torch.testing.assert_close(matrix[i, j], dense(energy.hessian(u[i, j], *params)))


@pytest.mark.parametrize("name", ["scalar triangle", "vector", "mixed", "plate"])
def test_derivatives_of_derivatives(name: str) -> None:
    """The residual and the Hessian product differentiate in u, what Newton's adjoint needs."""
    energy, params = case(name)
    u, v = random(energy.space).requires_grad_(), random(energy.space, seed=1).requires_grad_()
    assert gradcheck(lambda u: energy.residual(u, *params), u, fast_mode=True)
    assert gradcheck(lambda u, v: energy.hessian_product(u, v, *params), (u, v), fast_mode=True)


# -- batches of parameters ---------------------------------------------------------------------------------------------


def test_batched_parameters_against_a_plain_field() -> None:
    mesh = unit_square(4, 2).with_tags(cell_tags={"west": lambda x: x[:, 0] < 0.5, "east": lambda x: x[:, 0] > 0.5})
    V = FunctionSpace(mesh, Lagrange(2))
    Q = FunctionSpace(mesh, Lagrange(1))
    batches = {
        "number": (torch.rand(4, dtype=torch.float64), lambda p, i: p[i]),
        "field": (Q.function(random(Q, 4)), lambda p, i: Q.function(p.values[i])),
        "material": (
            by_cell_tag({"west": torch.rand(4, dtype=torch.float64), "east": 2.0}),
            lambda p, i: by_cell_tag({"west": p.values["west"][i], "east": 2.0}),
        ),
    }
    u, v = random(V), random(V, seed=1)
    energy = Energy(V, scalar_density, Dirichlet(V, {"left": 0.0}))
    for name, (parameter, pick) in batches.items():
        value, residual = energy(u, parameter, 0.3), energy.residual(u, parameter, 0.3)
        product, matrix = energy.hessian_product(u, v, parameter, 0.3), dense(energy.hessian(u, parameter, 0.3))
        assert value.shape == (4,), name
        for i in (0, 3):
            one = pick(parameter, i)
            torch.testing.assert_close(value[i], energy(u, one, 0.3))
            torch.testing.assert_close(residual[i], energy.residual(u, one, 0.3))
            torch.testing.assert_close(product[i], energy.hessian_product(u, v, one, 0.3))
            torch.testing.assert_close(matrix[i], dense(energy.hessian(u, one, 0.3)))


def test_batched_dirichlet_values() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    values = random(V, 3)
    batched = Energy(V, scalar_density, Dirichlet(V, {"left": values}))
    u = random(V, seed=1)
    assert batched(u, 1.0, 1.0).shape == (3,)
    assert batched.residual(u, 1.0, 1.0).shape == (3, 9)
    one = Energy(V, scalar_density, Dirichlet(V, {"left": values[1]}))
    torch.testing.assert_close(batched(u, 1.0, 1.0)[1], one(u, 1.0, 1.0))


def test_vector_parameters() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(2), components=2)
    b = Constant(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), (2,))
    energy = Energy(V, lambda x, u, g, b, w, s: (u * b).sum(-1) + (u * w).sum(-1) + s.sum((-2, -1)))
    u = V.interpolate(lambda x: x)
    w = V.function(V.interpolate(lambda x: torch.ones_like(x)))
    found = energy(u, b, w, gradient(V.function(u)))
    assert found.tolist() == pytest.approx([0.5 * 3 + 1 + 2, 0.5 * 7 + 1 + 2])


# -- sums of energies --------------------------------------------------------------------------------------------------


def test_energies_add_up() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    dirichlet = Dirichlet(V, {"left": 1.0})
    first, second = Energy(V, scalar_density, dirichlet), Energy(V, lambda x, u, g, k, f: k * u**4)
    whole = Energy(V, lambda x, u, g, k, f: scalar_density(x, u, g, k, f) + k * u**4, dirichlet)
    u = random(V)
    for total in (first + second, second + first):
        torch.testing.assert_close(total(u, 1.3, 0.2), whole(u, 1.3, 0.2))
        torch.testing.assert_close(total.residual(u, 1.3, 0.2), whole.residual(u, 1.3, 0.2))
        torch.testing.assert_close(dense(total.hessian(u, 1.3, 0.2)), dense(whole.hessian(u, 1.3, 0.2)))
    assert len(first.terms) == len(second.terms) == 1


def test_energies_that_do_not_add_up() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    first, second = (Energy(V, scalar_density, Dirichlet(V, {"left": value})) for value in (0.0, 1.0))
    with pytest.raises(ValueError, match="different constraints"):
        _ = first + second
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = first + Energy(FunctionSpace(V.mesh, Lagrange(1)), scalar_density)
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = first + WeakForm(V, lambda x, u, g, v, gv: u * v)  # pyright: ignore[reportOperatorIssue]


# -- constraints -------------------------------------------------------------------------------------------------------


def test_mean_zero_energies() -> None:
    """J(u − mean): shifting u changes nothing, and the residual is the gradient of that."""
    V = FunctionSpace(distorted(unit_square(3)), Lagrange(2))
    energy = Energy(V, scalar_density, MeanZero(V))
    u, v = random(V).requires_grad_(), random(V, seed=1)
    value = energy(u, 1.0, 0.5)
    torch.testing.assert_close(energy(u + 3, 1.0, 0.5), value)
    (wanted,) = torch.autograd.grad(value, u)
    torch.testing.assert_close(energy.residual(u, 1.0, 0.5).detach(), wanted)
    assert wanted.sum().abs() < 1e-13
    exact = jacobian(lambda u: energy.residual(u, 1.0, 0.5), u.detach()) @ v
    torch.testing.assert_close(energy.hessian_product(u.detach(), v, 1.0, 0.5), exact, rtol=1e-10, atol=1e-11)


# -- weak forms --------------------------------------------------------------------------------------------------------


def advection(x, u, grad_u, v, grad_v, b, nu):
    """Nonsymmetric and nonlinear: ν ∇u·∇v + (b·∇u) v + u² v."""
    return nu * (1 + u.square()) * (grad_u * grad_v).sum(-1) + (b * grad_u).sum(-1) * v + u.square() * v


def navier_stokes(x, u, grad_u, v, grad_v):
    (w, p), (grad_w, _), (s, q), (grad_s, _) = u, grad_u, v, grad_v
    div = [g.diagonal(dim1=-2, dim2=-1).sum(-1) for g in (grad_w, grad_s)]
    convection = ((grad_w @ w[..., None])[..., 0] * s).sum(-1)
    return (grad_w * grad_s).sum((-2, -1)) + convection - p * div[1] - q * div[0]


def form_case(name: str):
    mesh = scrambled(unit_square(2, cell="triangle"))
    b = Constant(torch.tensor([3.0, -1.0], dtype=torch.float64), (2,))
    if name == "scalar":
        V = FunctionSpace(mesh, Lagrange(2))
        return WeakForm(V, advection, Dirichlet(V, {"left": 1.0})), (b, 0.3)
    if name == "boundary":
        V = FunctionSpace(mesh, Lagrange(2))
        outflow = {"right": lambda x, u, v, n, b, nu: (b * n).sum(-1) * u.square() * v}
        return WeakForm(V, advection, Dirichlet(V, {"left": 1.0}), boundary=outflow), (b, 0.3)
    W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    return WeakForm(W, navier_stokes, Dirichlet(W, {("boundary", 0): 0.5})), ()


forms = pytest.mark.parametrize("name", ["scalar", "boundary", "mixed"])


@forms
def test_hessian_of_a_form_is_its_nonsymmetric_jacobian(name: str) -> None:
    form, params = form_case(name)
    u, v = random(form.space), random(form.space, seed=1)
    exact = jacobian(lambda u: form.residual(u, *params), u)
    assert (exact - exact.T).abs().max() > 0.1
    mask = form.constraint.fixed.flatten()
    wanted = torch.where(mask[:, None] | mask, torch.eye(len(mask), dtype=torch.float64), exact)
    torch.testing.assert_close(dense(form.hessian(u, *params)), wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        form.hessian_product(u, v, *params).flatten(), exact @ v.flatten(), rtol=1e-11, atol=1e-11
    )
    discrete = form.discrete_form(params)
    transposed = discrete.hessian_product(u, v, transpose=True).flatten()
    free = v.flatten().masked_fill(mask, 0)
    torch.testing.assert_close(transposed, (exact.T @ free).masked_fill(mask, 0), rtol=1e-11, atol=1e-11)


@forms
def test_forms_in_batches(name: str) -> None:
    form, params = form_case(name)
    u, v = random(form.space, 3), random(form.space, 3, seed=1)
    for found, one in (
        (form.residual(u, *params), lambda i: form.residual(u[i], *params)),
        (form.hessian_product(u, v, *params), lambda i: form.hessian_product(u[i], v[i], *params)),
        (dense(form.hessian(u, *params)), lambda i: dense(form.hessian(u[i], *params))),
    ):
        torch.testing.assert_close(found[2], one(2))


def test_forms_of_energies_are_their_residuals() -> None:
    V = FunctionSpace(distorted(unit_square(3)), Lagrange(2))
    energy = Energy(V, lambda x, u, g: laplace(x, u, g) + 0.25 * u**4 - x[..., 0] * u)
    form = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) + (u**3 - x[..., 0]) * v)
    u = random(V)
    torch.testing.assert_close(form.residual(u), energy.residual(u))
    torch.testing.assert_close(dense(form.hessian(u)), dense(energy.hessian(u)))


# -- differentiation in everything else --------------------------------------------------------------------------------


def everything(u: Tensor, coefficient: Tensor, scale: Tensor, held: Tensor, nodes: Tensor, mesh):
    """The energy as a function of all that it is made of."""
    moved = mesh.with_nodes(nodes)
    V = FunctionSpace(moved, Lagrange(1), quadrature_degree=2)
    dirichlet = Dirichlet(V, {"left": held, "right": lambda x: scale * x[:, 1]})
    load = {"top": lambda x, u, normal, k, s: s * u * (x * normal).sum(-1)}
    return Energy(V, scalar_density, dirichlet, boundary=load), (u, V.function(coefficient), scale)


def inputs(mesh):
    V = FunctionSpace(mesh, Lagrange(1))
    tensors = [random(V), 1 + random(V, seed=1), number(1.3), random(V, seed=2)[V.dofs("left")], mesh.nodes.clone()]
    return tuple(t.requires_grad_() for t in tensors)


def test_energy_differentiates_twice_in_everything_at_once() -> None:
    """Dofs, a coefficient field, a number, Dirichlet values, and the nodes."""
    mesh = distorted(unit_square(2, 1))

    def value(*tensors: Any) -> Tensor:
        energy, arguments = everything(*tensors, mesh=mesh)
        return energy(*arguments)

    assert gradcheck(value, inputs(mesh))
    assert gradgradcheck(value, inputs(mesh), fast_mode=True)


def test_residual_and_product_differentiate_in_everything() -> None:
    mesh = distorted(unit_square(2, 1, cell="triangle"))
    direction = random(FunctionSpace(mesh, Lagrange(1)), seed=5)

    def residual(*tensors: Any) -> Tensor:
        energy, arguments = everything(*tensors, mesh=mesh)
        return energy.residual(*arguments)

    def product(*tensors: Any) -> Tensor:
        energy, (u, *params) = everything(*tensors, mesh=mesh)
        return energy.hessian_product(u, direction, *params)

    assert gradcheck(residual, inputs(mesh))
    assert gradcheck(product, inputs(mesh))


def test_shape_derivative_along_a_dilation() -> None:
    """½ ∫ |∇u|² in the plane does not change when the plane is scaled and dofs are kept; ∫ u grows like the area."""
    mesh = distorted(unit_square(3, cell="triangle"))
    nodes = mesh.nodes.clone().requires_grad_()
    V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(2))
    u = random(V)
    for density, order in ((lambda x, u, g: g.square().sum(-1), 0), (lambda x, u, g: u, 2)):
        value = Energy(V, density)(u)
        (slope,) = torch.autograd.grad(value, nodes)
        torch.testing.assert_close((slope * nodes).sum(), order * value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("which", range(5))
def test_taylor_in_each_input(which: int) -> None:
    mesh = distorted(unit_square(2))
    tensors = [t.detach() for t in inputs(mesh)]
    direction = torch.rand(tensors[which].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

    def value(t: Tensor) -> Tensor:  # squared: the energy is linear in its coefficient, where there is no rate to see
        energy, arguments = everything(*[*tensors[:which], t, *tensors[which + 1 :]], mesh=mesh)
        return energy(*arguments).square()

    assert min(taylor_rates(value, tensors[which], direction, 1e-3 if which == 2 else 1e-2)) > 1.9


# -- the adjoint's view ------------------------------------------------------------------------------------------------


@cases
def test_a_lowered_functional_depends_on_its_tensors_alone(name: str) -> None:
    energy, params = case(name)
    u = random(energy.space)
    form = energy.discrete_form(params)
    again = form.with_tensors([t.clone() for t in form.tensors()])
    for found in (again, form.detach()):
        torch.testing.assert_close(found.value(u), energy(u, *params))
        torch.testing.assert_close(found.residual(u), energy.residual(u, *params))


@cases
def test_magnitude_bounds_the_residual(name: str) -> None:
    """Σ |contributions| ≥ |Σ contributions|, the scale against which a residual counts as zero."""
    energy, params = case(name)
    form, u = energy.discrete_form(params), random(energy.space)
    magnitude, residual = form.evaluate(u).magnitude, form.residual(u)
    assert (magnitude >= residual.abs() - 1e-14).all()
    assert magnitude.max() > 0


# -- torch.func --------------------------------------------------------------------------------------------------------


def test_energies_are_functions_to_torch() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    energy = Energy(V, scalar_density, Dirichlet(V, {"left": 0.5}))
    u = random(V, 4)
    grad = torch.func.grad(lambda u: energy(u, 1.0, 0.5))
    torch.testing.assert_close(grad(u[0]), energy.residual(u[0], 1.0, 0.5))
    torch.testing.assert_close(torch.func.vmap(lambda u: energy(u, 1.0, 0.5))(u), energy(u, 1.0, 0.5))
    torch.testing.assert_close(torch.func.vmap(grad)(u), energy.residual(u, 1.0, 0.5))
    kappa = torch.rand(4, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda u, k: energy(u, k, 0.5))(u, kappa), energy(u, kappa, 0.5))


# -- dtype -------------------------------------------------------------------------------------------------------------


def test_single_precision_in_single_precision_out() -> None:
    V = FunctionSpace(unit_square(3, dtype=torch.float32), Lagrange(2))
    energy = Energy(V, scalar_density, Dirichlet(V, {"left": 0.5}))
    u = random(V).float()
    for found in (energy(u, 1.0, 0.5), energy.residual(u, 1.0, 0.5), energy.hessian_product(u, u, 1.0, 0.5)):
        assert found.dtype == torch.float32
    assert energy.hessian(u, 1.0, 0.5).dtype == torch.float32


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [None, "left"])
def test_densities_that_forget_the_sum(tag) -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    forgetful = lambda x, u, g: g.square() if tag is None else u[..., None] * g  # noqa: E731
    if tag is None:
        energy, where = Energy(V, forgetful), "density"
    else:
        energy = Energy(V, lambda x, u, g: u, boundary={tag: forgetful})
        where = "boundary density on 'left'"
    message = rf"the {where} must return one number per point, shape \(.*\); got .*grad_u\.square\(\)\.sum\(-1\)"
    for call in (energy, energy.residual, energy.hessian):
        with pytest.raises(ValueError, match=message):
            call(random(V))


def test_densities_that_return_no_tensor() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(TypeError, match="the density must return a tensor with one number per point; got float"):
        Energy(V, lambda x, u, g: 1.0)(random(V))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`Energy` needs a callable; got float"):
        unwrap(Energy.__init__)(object.__new__(Energy), V, 1.0)


def test_values_that_are_not_finite_name_the_argument() -> None:
    mesh = unit_square(2).with_tags(cell_tags={"low": [0, 1], "high": [2, 3]})
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, lambda x, u, g, k, f: k * u.square() + torch.as_tensor(f))
    wind = Energy(V, lambda x, u, g, b: (b * g).sum(-1))
    bad = random(V)
    bad[3] = torch.nan
    nan = float("nan")
    for call, message in (
        (lambda: energy(bad, 1.0, 1.0), r"u holds nan at index \[3\]"),
        (lambda: energy(random(V), 1.0, V.function(bad)), r"parameter 1 holds nan at index \[3\]"),
        (lambda: energy(random(V), number(float("inf")), 1.0), r"parameter 0 holds inf\."),
        (lambda: energy(random(V), 1.0, nan), r"parameter 1 holds nan\."),
        (lambda: energy(random(V), torch.tensor([1.0, nan]).double(), 1.0), r"parameter 0 holds nan at index \[1\]"),
        (lambda: wind(random(V), gradient(V.function(bad))), r"parameter 0 holds nan at index \[3\]"),
        (
            lambda: wind(random(V), Constant(torch.tensor([1.0, nan]).double(), (2,))),
            r"parameter 0 holds nan at index \[1\]",
        ),
        (
            lambda: energy(random(V), lambda x: x[..., 0].sub(0.5).sqrt(), 1.0),
            r"parameter 0 is not finite at x = \[0\.\d+",
        ),
        (lambda: wind(random(V), lambda x: (x - 0.5).sqrt()), r"parameter 0 is not finite at x = \[0\.\d+"),
        (
            lambda: energy(random(V), by_cell_tag({"low": 1.0, "high": nan}), 1.0),
            r"parameter 0 is not finite at x = .*, 0\.6",
        ),
        (lambda: energy(random(V), lambda x: -1.0, lambda x: x[..., 0] / 0), "parameter 1 is not finite at x = "),
        (lambda: energy(random(V), lambda x: nan, 1.0), "parameter 0 is not finite at x = "),
        (
            lambda: Energy(V, lambda x, u, g: (-1 - u).log())(random(V)),
            r"the density is not finite in cell \d+, at x = \[0\.\d+, 0\.\d+\] for finite arguments",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_parameters_that_do_not_fit_are_named_by_position() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(TypeError, match=r"parameter 1 is torch\.float32"):
        Energy(V, scalar_density)(random(V), 1.0, torch.ones(()))


def test_second_derivatives_need_smooth_spaces() -> None:
    for V in (
        FunctionSpace(unit_square(2), Lagrange(3)),
        FunctionSpace(unit_square(2), BSpline.uniform((2, 2), 1)),
    ):
        with pytest.raises(ValueError, match="second derivatives need a basis with continuous first ones"):
            Energy(V, plate_density, derivatives=2)


@pytest.mark.parametrize("derivatives", [3, -1, (1, 3)])
def test_orders_of_derivatives(derivatives) -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match=r"`Energy\(derivatives=\.\.\.\)` must be 0, 1 or 2, or a pair of them"):
        Energy(V, scalar_density, derivatives=derivatives)


def test_constraints_and_tags_are_checked_at_once() -> None:
    V, other = (FunctionSpace(unit_square(2), Lagrange(1)) for _ in range(2))
    with pytest.raises(ValueError, match=r"`Energy\(dirichlet=\.\.\.\)` belongs to another space"):
        Energy(V, scalar_density, Dirichlet(other, {"left": 0.0}))
    with pytest.raises(ValueError, match="unknown facet tag 'wall'"):
        Energy(V, scalar_density, boundary={"wall": lambda x, u, n: u})


def test_dofs_are_checked() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    energy = Energy(V, scalar_density)
    with pytest.raises(ValueError, match=r"`u` must have the trailing shape \(9,\)"):
        energy(torch.zeros(8, dtype=torch.float64), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"`v` must have the trailing shape \(9,\)"):
        energy.hessian_product(random(V), torch.zeros(8, dtype=torch.float64), 1.0, 1.0)


def test_functionals_are_shown_in_three_lines() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    held = Dirichlet(V, {"left": 0.0, "top": lambda x: x[:, 0]})
    lines = repr(Energy(V, lambda x, u, g, k: k * u, held, boundary={"right": lambda x, u, n, k: u})).splitlines()
    assert lines[0] == "Energy(density (x, u, g, k), boundary density on 'right' (x, u, n, k)"
    assert lines[1] == f"  over {V}"
    assert lines[2] == "  Dirichlet('left': 0.0, 'top': the function `<lambda>`; 5 of 9 dofs))"
    assert len(lines) == 3
    assert repr(WeakForm(V, lambda x, u, g, v, gv: v)).splitlines() == [
        "WeakForm(form (x, u, g, v, gv)",
        f"  over {V})",
    ]
    assert repr(Energy(V, lambda x, u, g: u, MeanZero(V))).endswith("\n  MeanZero())")


def test_the_argument_of_a_weak_form_is_its_form() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    form = WeakForm(V, form=lambda x, u, g, v, gv: u * v)
    torch.testing.assert_close(form.residual(V.interpolate(1.0)).sum(), torch.ones((), dtype=V.dtype))


# -- facets inside the domain ----------------------------------------------------------------------------------------


def two_materials(order: Tensor | None = None) -> FunctionSpace:
    """Quadratic functions on a unit square with cells "soft" left and "stiff" right of the facets "mid"."""
    grid = unit_square(4, 3)
    mesh = grid if order is None else Mesh(grid.nodes, grid.cells[order], "quadrilateral")
    between = torch.nonzero((mesh.nodes[mesh.facets].mean(1)[:, 0] - 0.5).abs() < 1e-9).flatten()
    tags = {"soft": lambda x: x[:, 0] < 0.5, "stiff": lambda x: x[:, 0] > 0.5}
    return FunctionSpace(mesh.with_tags({"mid": between}, tags), Lagrange(2))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_the_flux_through_an_interface_is_the_same_from_both_sides_for_any_order_of_cells(seed: int | None) -> None:
    """k u′ = 1 / (½ / 1 + ½ / 10) = 20 / 11 everywhere, for u from 0 to 1."""
    order = None if seed is None else torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    V = two_materials(order)
    k, flux = by_cell_tag({"soft": 1.0, "stiff": 10.0}), 20 / 11
    u = V.interpolate(lambda x: torch.where(x[..., 0] < 0.5, flux * x[..., 0], 1 - flux * (1 - x[..., 0]) / 10))
    for side, sign in (("soft", 1.0), ("stiff", -1.0)):
        g = {("mid", side): lambda x, u, grad_u, n, k: k * (grad_u * n).sum(-1)}
        energy = Energy(V, lambda x, u, grad_u, k: 0 * u, boundary=g, derivatives=(1, 1))
        assert energy(u, k).item() == pytest.approx(sign * flux, rel=1e-12)
        assert "'mid', '" + side in repr(energy)
        h = {("mid", side): lambda x, u, grad_u, v, grad_v, n, k: k * (grad_u * n).sum(-1) * v}
        weak = WeakForm(V, lambda x, u, grad_u, v, grad_v, k: 0 * u * v, boundary=h, derivatives=(1, 1))
        assert weak.residual(u, k).sum().item() == pytest.approx(sign * flux, rel=1e-12)
        slope = integrate(V, gradient(V.function(u)), tag=("mid", side))
        assert slope.tolist() == pytest.approx([flux if side == "soft" else flux / 10, 0], rel=1e-12, abs=1e-12)
        assert integrate(V, k, tag=("mid", side)).item() == pytest.approx(1 if side == "soft" else 10, rel=1e-12)


@pytest.mark.parametrize("kind", [Energy, WeakForm])
def test_facets_inside_without_a_side_are_refused(kind: type) -> None:
    V = two_materials()
    density = (lambda x, u, g: u) if kind is Energy else (lambda x, u, g, v, gv: v)
    outer = (lambda x, u, n: u) if kind is Energy else (lambda x, u, v, n: v)
    with pytest.raises(ValueError, match=r"3 facets of 'mid' lie inside.*`\('mid', 'soft'\)`.*'soft', 'stiff'\."):
        kind(V, density, boundary={"mid": outer})
    mesh = unit_square(2)
    inside = torch.nonzero(mesh.topology.facets.num_cells == 2).flatten()
    bare = FunctionSpace(mesh.with_tags({"inside": inside}), Lagrange(1))
    with pytest.raises(ValueError, match=r"none yet: `mesh\.with_tags\(cell_tags=\.\.\.\)`"):
        kind(bare, density, boundary={"inside": outer})


def test_what_has_one_value_on_facets_inside_needs_no_side() -> None:
    V = two_materials()
    height = lambda x: x[..., 1]  # noqa: E731
    for value in (1.0, height, V.function(V.interpolate(height))):
        assert integrate(V, value, tag="mid").item() == pytest.approx(1.0 if value == 1.0 else 0.5, rel=1e-12)
    for value in (by_cell_tag({"soft": 1.0, "stiff": 2.0}), gradient(V.function(V.interpolate(height)))):
        with pytest.raises(ValueError, match="3 facets of 'mid' lie inside"):
            integrate(V, value, tag="mid")
    assert int(Dirichlet(V, {"mid": 1.0}).fixed.sum()) == 7


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
def test_derivatives_need_a_gradient_only_if_something_does(cell: str) -> None:
    V = FunctionSpace(unit_square(3, cell=cell), Lagrange(1))
    factor = torch.tensor(2.0, dtype=V.dtype)
    energy = Energy(V, lambda x, u, g, k: factor * 0.5 * k * g.square().sum(-1) - torch.exp(u))
    u, v, k = torch.zeros(V.shape, dtype=V.dtype), torch.ones(V.shape, dtype=V.dtype), torch.ones((), dtype=V.dtype)

    def found() -> list[bool]:
        return [t.requires_grad for t in (energy(u, k), energy.residual(u, k), energy.hessian_product(u, v, k))]

    assert found() == [False] * 3
    assert not energy.hessian(u, k).requires_grad
    energy.residual(u, k).numpy()
    for t in (u, k, factor):
        t.requires_grad_()
        assert found() == [True] * 3
        t.requires_grad_(False)
        assert found() == [False] * 3
    v.requires_grad_()
    assert found() == [False, False, True]
