"""Energies and weak forms of vector fields with moments as dofs: derivatives, parameters, both sides, files."""

from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    MixedSpace,
    Nedelec,
    RaviartThomas,
    WeakForm,
    gradient,
    integrate,
    jump,
    l2_error,
    plot,
    project,
    unit_square,
    write_vtk,
)
from tests.problems import hard_mesh, mixed_mesh, taylor_rates

FAMILIES = (RaviartThomas, Nedelec)
DTYPE = torch.float64


def nonlinear(x: Tensor, u: Tensor, slope: Tensor, k: Tensor) -> Tensor:
    slope = slope.square().sum(-1) if slope.ndim > x.ndim - 1 and slope.shape == x.shape else slope.square()
    return k * (1 + u.square().sum(-1)).sqrt() * (1 + slope) + x[..., 0] * u[..., 1]


def random(V: FunctionSpace | MixedSpace, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, *V.shape, dtype=DTYPE, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize(("cell", "family"), [("triangle", RaviartThomas), ("tetrahedron", Nedelec)])
def test_residual_and_hessian_are_derivatives_of_the_energy(cell: str, family) -> None:
    V = FunctionSpace(hard_mesh(cell, "scrambled", 1), family(2))
    through = lambda x, u, n, k: (u * n).sum(-1) ** 2  # noqa: E731
    held = Dirichlet(V, {"left": 0.0})
    energy = Energy(V, nonlinear, held, boundary={"right": through})
    u, k = held.apply(random(V)), torch.tensor(0.7, dtype=DTYPE)
    (grad,) = torch.autograd.grad(energy(v := u.clone().requires_grad_(), k), v)
    torch.testing.assert_close(energy.residual(u, k), grad, rtol=0, atol=1e-12)
    hessian = torch.autograd.functional.hessian(lambda u: energy(u, k), u)
    free = ~energy.constraint.fixed
    matrix = energy.hessian(u, k).to_dense()
    torch.testing.assert_close(matrix[free][:, free], hessian[free][:, free], rtol=0, atol=1e-11)
    v = energy.constraint.project(random(V, seed=1), energy.constraint.data())
    torch.testing.assert_close(energy.hessian_product(u, v, k), matrix @ v, rtol=0, atol=1e-11)


def test_mixed_weak_forms_over_both_kinds_of_cells() -> None:
    """A form on triangles and quadrilaterals at once: its matrix is the residual's derivative, rows in order."""
    mesh = mixed_mesh()
    W = MixedSpace(FunctionSpace(mesh, RaviartThomas(2)), FunctionSpace(mesh, Nedelec(1)))

    def form(x, u, du, v, dv):
        (a, b), (div, curl), (s, t), (div_s, curl_t) = u, du, v, dv
        return (a * s).sum(-1) + (b * s).sum(-1) * div + curl * curl_t + (a * t).sum(-1) * curl + div * div_s

    weak = WeakForm(W, form)
    u = random(W)
    jacobian = torch.autograd.functional.jacobian(weak.residual, u)
    torch.testing.assert_close(weak.hessian(u).to_dense(), jacobian, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_of_facets(family) -> None:
    """Penalties on the jumps that are left: matrix and energy agree, and what is continuous does not jump."""
    V = FunctionSpace(hard_mesh("triangle", "scrambled"), family(2))

    def facet(x, u, du, normal, size):
        across = jump(u)
        normal = (across * normal).sum(-1)
        kept = normal.square() if family is RaviartThomas else across.square().sum(-1) - normal.square()
        return size * (across.square().sum(-1) + 100 * kept + jump(du).square())

    energy = Energy(V, lambda x, u, du: 0 * u[..., 0], interior={"": facet})
    u, v = random(V), random(V, seed=1)
    matrix = energy.hessian(u)
    torch.testing.assert_close((u * (matrix @ u)).sum() / 2, energy(u), rtol=1e-12, atol=0)
    torch.testing.assert_close(energy.hessian_product(u, v), matrix @ v, rtol=0, atol=1e-11)
    constant = V.interpolate(lambda x: torch.tensor([1.0, -2.0], dtype=DTYPE).expand(x.shape))
    assert energy(constant) < 1e-24


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_are_parameters_and_batches_their_items(family) -> None:
    mesh = hard_mesh("quadrilateral", "scrambled")
    V, Q = FunctionSpace(mesh, family(1)), FunctionSpace(mesh, Discontinuous(0))
    field = random(V, 3)
    energy = Energy(Q, lambda x, q, _, w, dw: (w.sum(-1) + dw) * q)
    q = random(Q)
    values = energy(q, V.function(field), gradient(V.function(field)))
    single = integrate(V, lambda x, u, du, q: (u.sum(-1) + du) * q, u=field[1], params=(Q.function(q),), degree=5)
    torch.testing.assert_close(values[1], single)
    several = Energy(V, nonlinear).residual(field, 2.0)
    torch.testing.assert_close(several[2], Energy(V, nonlinear).residual(field[2], 2.0))


def test_magnitudes_bound_residuals() -> None:
    V = FunctionSpace(hard_mesh("tetrahedron", "scrambled", 1), Nedelec(2))
    values = Energy(V, nonlinear).discrete_form((1.0,)).evaluate(random(V))
    assert bool((values.magnitude >= values.residual.abs()).all())


@pytest.mark.parametrize(("cell", "family"), [("triangle", RaviartThomas), ("hexahedron", Nedelec)])
def test_projections(cell: str, family) -> None:
    """Functions of the space stay; onto broken spaces and back; derivatives through mass matrix and nodes."""
    mesh = hard_mesh(cell, "scrambled", 1)
    V, D = FunctionSpace(mesh, family(1)), FunctionSpace(mesh, Discontinuous(2), components=mesh.dim)
    u = random(V, 2)
    torch.testing.assert_close(project(V, lambda x, u, du: u, u), u, rtol=0, atol=1e-12)
    if cell == "triangle":
        torch.testing.assert_close(project(V, D.function(project(D, V.function(u)))), u, rtol=0, atol=1e-12)

    def total(nodes: Tensor) -> Tensor:
        W = FunctionSpace(mesh.with_nodes(nodes), family(1))
        return (project(W, lambda x: x.sin()) * u[0]).sum()

    assert min(taylor_rates(total, mesh.nodes, torch.ones_like(mesh.nodes) * mesh.nodes.flip(1))) > 1.9


def test_files_and_pictures_show_the_jumps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    mesh = hard_mesh("triangle", "distorted")
    V, Q = FunctionSpace(mesh, RaviartThomas(1)), FunctionSpace(mesh, Discontinuous(0))
    u = random(V)
    W = MixedSpace(V, Q)
    written = meshio.read(write_vtk(tmp_path / "u.vtu", W, {"u": V.function(u), "q": Q.function(random(Q))}))
    centre = mesh.nodes[mesh.cells].mean(1)
    there = written.points[written.cells[0].data].mean(1)
    np.testing.assert_allclose(there[:, :2], centre.numpy(), atol=1e-14)
    values = written.point_data["u"][written.cells[0].data].mean(1)
    np.testing.assert_allclose(values[:, :2], V.evaluate(u, centre).numpy(), atol=1e-13)
    ax = plot(V, u)
    top = max(image.norm.vmax for image in ax.collections if image.norm.vmax is not None)
    assert top == pytest.approx(float(V.evaluate(u, mesh.nodes).norm(dim=-1).max()), rel=0.5)


def test_second_derivatives_are_refused() -> None:
    V = FunctionSpace(unit_square(2), RaviartThomas(1))
    with pytest.raises(ValueError, match=r"RaviartThomas\(degree=1\) functions have one derivative"):
        Energy(V, lambda x, u, du, ddu: ddu, derivatives=2, interior={"": lambda *a: a[0]})


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_of_functions_and_of_their_derivatives(family) -> None:
    V = FunctionSpace(unit_square(2), family(2))
    linear = lambda x: torch.stack([x[..., 1], 2 * x[..., 0]], -1)  # noqa: E731
    u = V.interpolate(linear)
    assert l2_error(V, u, linear) < 1e-13
    torch.testing.assert_close(l2_error(V, 2 * u, V.function(u)), l2_error(V, u, 0.0))
