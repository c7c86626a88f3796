"""L2 projections: functions of the space come back, stresses converge, derivatives to second order."""

import math
from itertools import pairwise

import meshio
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import (
    BSpline,
    ConvergenceError,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    gradient,
    integrate,
    l2_error,
    project,
    unit_cube,
    unit_square,
    write_vtk,
)
from fem.output import projection
from solvers import minimize
from tests.fem.mesh.search.test_location import NAMES, curved, grid, mixed_mesh, rand

ELEMENTS = [Lagrange(1), Lagrange(2), Lagrange(3), *map(Discontinuous, range(4))]


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_functions_of_the_space_come_back(name, element):
    for mesh in (grid(name), curved(name, 2)):
        V = FunctionSpace(mesh, element)
        u = rand(2, *V.shape) - 0.5
        assert torch.allclose(project(V, lambda x, u, grad_u: u, u), u, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rational", [False, True])
def test_splines_and_vectors_come_back(rational):
    mesh, element = unit_square(5, 4), BSpline.uniform((5, 4), (3, 2))
    if rational:
        element = BSpline(element.knots, (3, 2), 0.5 + rand(element.num_dofs))
    V = FunctionSpace(mesh, element, components=2)
    u = rand(3, *V.shape)
    assert torch.allclose(project(V, V.function(u)), u, rtol=0, atol=1e-12)
    M = FunctionSpace(mixed_mesh(), Lagrange(2), components=2)
    u = rand(*M.shape)
    assert torch.allclose(project(M, lambda x, u, grad_u: u, u), u, rtol=0, atol=1e-12)


def test_small_cells_beside_large_ones_are_as_exact():
    nodes = torch.cat([torch.zeros(1), 2.0 ** torch.arange(-40, 1)]).double()[:, None]
    mesh = Mesh(nodes, torch.arange(42).unfold(0, 2, 1), "interval")
    V = FunctionSpace(mesh, Lagrange(2))
    u = rand(*V.shape) - 0.5
    assert torch.allclose(project(V, V.function(u)), u, rtol=0, atol=1e-12)


def test_gradients_parameters_and_several_fields():
    """κ∇u of a quadratic u is linear: exact in a space that holds it, whatever spaces the fields live on."""
    mesh = unit_square(4, cell="triangle")
    U, K, W = (
        FunctionSpace(mesh, Lagrange(2)),
        FunctionSpace(mesh, Discontinuous(0)),
        FunctionSpace(mesh, Lagrange(1), 2),
    )
    u = U.function(U.interpolate(lambda x: x[:, 0].square() + x[:, 0] * x[:, 1]))
    kappa = torch.tensor([1.0, 2.0], dtype=torch.float64)
    flux = project(W, lambda x, u, grad_u, k: k[..., None] * grad_u, u, (kappa,))
    exact = W.interpolate(lambda x: torch.stack([2 * x[:, 0] + x[:, 1], x[:, 0]], 1))
    assert torch.allclose(flux, kappa[:, None, None] * exact, rtol=0, atol=1e-12)
    assert torch.allclose(project(W, gradient(u)), exact, rtol=0, atol=1e-12)
    three = K.function(K.interpolate(3.0))
    both = project(W, lambda x, fields, grads: fields[1][..., None] * grads[0], (u, three))
    assert torch.allclose(both, 3 * exact, rtol=0, atol=1e-12)
    assert torch.allclose(project(W, lambda x: x), W.interpolate(lambda x: x), rtol=0, atol=1e-12)
    assert torch.allclose(project(FunctionSpace(mesh, Lagrange(1)), 2.0), torch.tensor(2.0).double(), atol=1e-12)


def test_the_error_is_orthogonal_to_the_space():
    V = FunctionSpace(curved("triangle", 2), Lagrange(2))
    f = lambda x: torch.exp(x[..., 0]) * x[..., 1]  # noqa: E731
    w, v = V.function(project(V, f)), rand(*V.shape)
    left = integrate(V, lambda x, u, _, w: (w - f(x)) * u, degree=V.quadrature_degree, u=v, params=(w,))
    assert abs(float(left)) < 1e-13


# Of linear functions gradients are superconvergent inside: one order more than theirs, half of it near the boundary.
RATES = [(Lagrange(1), 1, 1.5), (Lagrange(1), 2, 2), (Discontinuous(1), 2, 2), (Lagrange(2), 3, 3)]


@pytest.mark.parametrize(("element", "degree", "rate"), RATES)
def test_projected_fluxes_converge(element, degree, rate):
    """∇ of an interpolated function of one degree more than it is projected onto, p: order p + 1."""
    errors = []
    for n in (8, 16, 32):
        mesh = unit_square(n, cell="triangle")
        U, W = FunctionSpace(mesh, Lagrange(degree)), FunctionSpace(mesh, element, 2)
        u = U.interpolate(lambda x: torch.sin(2 * x[:, 0]) * torch.exp(x[:, 1]))
        exact = lambda x: torch.stack(  # noqa: E731
            [2 * torch.cos(2 * x[..., 0]) * torch.exp(x[..., 1]), torch.sin(2 * x[..., 0]) * torch.exp(x[..., 1])], -1
        )
        errors.append(float(l2_error(W, project(W, lambda x, u, grad_u: grad_u, U.function(u)), exact)))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > rate - 0.1


@pytest.mark.parametrize("element", [Lagrange(1), Discontinuous(1)], ids=repr)
def test_stresses_of_a_solution_converge(element):
    """u = ∇(eˣ sin y), which needs no body force: of quadratic displacements stresses have order 2."""
    errors = []
    exact = lambda x: torch.exp(x[..., :1]) * torch.stack([torch.sin(x[..., 1]), torch.cos(x[..., 1])], -1)  # noqa: E731

    def stress(x, u, grad_u):
        strain = 0.5 * (grad_u + grad_u.mT)
        return 2 * strain + strain.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * torch.eye(2, dtype=x.dtype)

    def wanted(x):
        u, v = exact(x).unbind(-1)
        return 2 * torch.stack([u, v, v, -u], -1)

    for n in (4, 8):
        V = FunctionSpace(unit_square(n, cell="triangle"), Lagrange(2), components=2)
        W = FunctionSpace(V.mesh, element, components=4)
        energy = Energy(V, lambda x, u, g: 0.5 * (stress(x, u, g) * g).sum((-2, -1)), Dirichlet(V, {"boundary": exact}))
        u = V.function(minimize(energy).value)
        errors.append(float(l2_error(W, project(W, lambda x, u, g: stress(x, u, g).flatten(-2), u), wanted)))
    assert math.log2(errors[0] / errors[1]) > 1.9


@pytest.mark.parametrize("element", [Lagrange(2), Discontinuous(1)], ids=repr)
@pytest.mark.parametrize("name", ["triangle", "quadrilateral"])
def test_derivatives_in_fields_parameters_and_nodes(name, element):
    mesh = curved(name, 2, 1)

    def stress(u: Tensor, k: Tensor, nodes: Tensor) -> Tensor:
        moved = mesh.with_nodes(nodes)
        U, V = FunctionSpace(moved, Lagrange(2)), FunctionSpace(moved, element)
        return project(V, lambda x, u, grad_u, k: k * grad_u.square().sum(-1) + u, U.function(u), (k,))

    u = rand(2, *FunctionSpace(mesh, Lagrange(2)).shape)
    inputs = [t.requires_grad_() for t in (u, rand(2)[:1], mesh.nodes.clone())]
    assert gradcheck(stress, inputs, fast_mode=True)
    assert gradgradcheck(stress, inputs, fast_mode=True)


@pytest.mark.parametrize("element", [Lagrange(2), Discontinuous(1)], ids=repr)
def test_transformations(element):
    V = FunctionSpace(unit_square(3), element)
    square = lambda u: project(V, lambda x, u, grad_u: u.square(), u)  # noqa: E731
    u, t = rand(4, *V.shape), rand(*V.shape, seed=1)
    assert torch.allclose(torch.vmap(square)(u), square(u), rtol=0, atol=1e-13)
    assert torch.allclose(
        torch.func.jvp(square, (u[0],), (t,))[1], square(u[0] + 0.5 * t) - square(u[0] - 0.5 * t), rtol=0, atol=1e-12
    )
    expected = torch.stack([torch.func.jvp(square, (u[0],), (e,))[1] for e in torch.eye(V.num_dofs).double()], 1)
    assert torch.allclose(torch.func.jacrev(square)(u[0]), expected, rtol=0, atol=1e-12)


def test_single_precision_and_dimensions():
    V = FunctionSpace(unit_cube(3, 2, 2, dtype=torch.float32), Lagrange(2))
    u = rand(*V.shape).float()
    assert torch.allclose(project(V, V.function(u)), u, rtol=0, atol=1e-5)


def test_what_is_wrong_is_told(monkeypatch):
    V = FunctionSpace(unit_square(3), Lagrange(1))
    u = V.interpolate(0.0)
    with pytest.raises(ValueError, match=r"onto scalar components needs values of shape \(\) .*; got \(2,\)"):
        project(V, lambda x, u, grad_u: grad_u, u)
    with pytest.raises(ValueError, match=r"must return one value for each point, shape \(9, 4\) .*; got \(4,\)"):
        project(V, lambda x, u, grad_u: x.new_ones(4), u)
    with pytest.raises(ValueError, match="the expression is no expression at a point"):
        project(V, lambda x, u, grad_u: x.norm() * u, u)
    with pytest.raises(ValueError, match="is not finite at some points"):
        project(V, lambda x, u, grad_u: u / u, u)
    with pytest.raises(ValueError, match="is a field over another mesh"):
        project(V, lambda x, u, grad_u: u, FunctionSpace(unit_square(3), Lagrange(1)).function(u))
    with pytest.raises(TypeError, match=r"`project\(value=...\)` must be an expression `lambda x, u, grad_u"):
        project(V, V.function(u), u)
    with pytest.raises(ValueError, match=r"`project\(params=...\)` are those of an expression of a field"):
        project(V, lambda x: x[..., 0], params=(1.0,))
    monkeypatch.setattr(projection, "MAX_ITERATIONS", 2)
    with pytest.raises(ConvergenceError, match="`project` did not solve for 1 of 1 items"):
        project(V, lambda x: x[..., 0].exp())


def test_fluxes_are_written_with_their_jumps(tmp_path):
    """∇u of a quadratic u on two triangles, and of two functions with a kink between them, cell by cell in the file."""
    mesh = unit_square(2, cell="triangle")
    U, D = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Discontinuous(1), 2)
    u = rand(*U.shape)
    flux = project(D, lambda x, u, grad_u: grad_u, U.function(u))
    write_vtk(tmp_path / "flux.vtu", U, {"u": u, "flux": D.function(flux)})
    found = meshio.read(tmp_path / "flux.vtu")
    cells = torch.as_tensor(found.cells[0].data.astype("int64"))
    x = torch.as_tensor(found.points[:, :2])[cells]
    centre = x[:, :3].mean(1)
    nudged = 0.999999 * x + 0.000001 * centre[:, None]  # inside the cell, whose gradient it is
    expected = U.evaluate(u, nudged.flatten(0, 1), derivatives=1)[1].unflatten(0, x.shape[:2])
    assert torch.allclose(torch.as_tensor(found.point_data["flux"][:, :2])[cells], expected, rtol=0, atol=1e-4)
