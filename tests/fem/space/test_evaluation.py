"""Functions at points: polynomials are evaluated exactly, and derivatives are those of the inverse map."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem.mesh.generators import box, unit_square
from fem.mesh.mesh import Mesh
from fem.mesh.search.location import attach, check_points
from fem.reference.cells import CELLS
from fem.reference.discontinuous import Discontinuous
from fem.reference.lagrange import Lagrange
from fem.reference.spline_element import BSpline
from fem.space.space import FunctionSpace, MixedSpace
from tests.fem.mesh.search.test_location import NAMES, bend, curved, grid, mixed_mesh, rand, scattered


def polynomial(x: Tensor, degree: int) -> Tensor:
    direction = torch.tensor([0.7, -1.1, 0.4], dtype=x.dtype)[: x.shape[-1]]
    return (0.3 + x @ direction) ** degree


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_polynomials_are_evaluated_exactly(name, degree):
    mesh = grid(name)
    mesh = mesh.with_nodes(mesh.nodes + 0.1 * (rand(*mesh.nodes.shape) - 0.5)) if CELLS[name].is_simplex else mesh
    V = FunctionSpace(mesh, Lagrange(degree))
    points = 0.05 + 0.9 * rand(300, mesh.dim)
    value = V.evaluate(V.interpolate(lambda x: polynomial(x, degree)), points)
    assert torch.allclose(value, polynomial(points, degree), rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_linear_functions_are_exact_on_curved_meshes(name, degree):
    mesh = curved(name, degree)
    points = scattered(mesh, 5)[0]
    V = FunctionSpace(mesh, Lagrange(degree))
    value = V.evaluate(V.interpolate(lambda x: polynomial(x, 1)), points)
    assert torch.allclose(value, polynomial(points, 1), rtol=0, atol=1e-9)


def test_batches_vectors_and_mixed_meshes():
    mesh = mixed_mesh()
    V, points = FunctionSpace(mesh, Lagrange(2), components=2), scattered(mesh, 3)[0]
    W = FunctionSpace(mesh, Lagrange(2))
    scale = rand(4, 3)
    u = W.interpolate(lambda x: polynomial(x, 1)) * scale[..., None]
    expected = polynomial(points, 1) * scale[..., None]
    assert torch.allclose(W.evaluate(u, points), expected, atol=1e-12)
    value = V.evaluate(torch.stack([u, 2 * u], -1), points)
    assert value.shape == (4, 3, len(points), 2)
    assert torch.allclose(value, torch.stack([expected, 2 * expected], -1), atol=1e-12)


def test_mixed_spaces_give_every_field():
    mesh = unit_square(3, cell="triangle")
    V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Q)
    velocity, pressure = rand(5, *V.shape), rand(5, *Q.shape)
    points = 1.2 * rand(40, 2)
    u, p = W.evaluate(W.join([velocity, pressure]), points, outside=-7.0)
    assert torch.equal(u, V.evaluate(velocity, points, -7.0))
    assert torch.equal(p, Q.evaluate(pressure, points, -7.0))


def curved_splines(dim: int, degree: tuple[int, ...], rational: bool) -> FunctionSpace:
    """B-splines or NURBS on a bent box."""
    shape = (4, 3, 2)[:dim]
    mesh = box((0.0,) * dim, (1.0,) * dim, shape).curved(2, bend)
    element = BSpline.uniform(shape, degree)
    if rational:
        element = BSpline(element.knots, degree, 0.5 + rand(element.num_dofs))
    return FunctionSpace(mesh, element)


@pytest.mark.parametrize("rational", [False, True])
@pytest.mark.parametrize(("dim", "degree"), [(1, (3,)), (2, (2, 3)), (3, (1, 2, 2))])
def test_spline_spaces(dim, degree, rational):
    V = curved_splines(dim, degree, rational)
    u, (domain,) = rand(2, *V.shape), V.quadrature.domains()
    (expected,) = V.quadrature.values(u, domain, V.quadrature.geometry(domain), 0)
    points = V.mesh.map(0, None, domain.points)[0].flatten(0, 1)
    assert torch.allclose(V.evaluate(u, points), expected.flatten(-2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mesh", [unit_square(3), unit_square(3, cell="triangle")], ids=["grid", "search"])
def test_points_outside_are_named_or_filled(mesh):
    V = FunctionSpace(mesh, Lagrange(1), components=2)
    u, points = V.interpolate(1.0), torch.tensor([[0.5, 0.5], [0.25, 1.5], [2.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"points\[1\]` = \[0.25, 1.5\] lies outside .* 2 of 3 .*outside=math.nan"):
        V.evaluate(u, points)
    assert torch.equal(V.evaluate(u, points, outside=3.0)[:, 0], torch.tensor([1.0, 3.0, 3.0], dtype=torch.float64))
    assert V.evaluate(u, points, outside=math.nan)[:, 1].isnan().tolist() == [False, True, True]
    points.requires_grad_()
    V.evaluate(V.interpolate(lambda x: x), points, outside=math.nan)[:1].sum().backward()
    assert points.grad is not None
    assert torch.allclose(points.grad, torch.tensor([[1.0, 1], [0, 0], [0, 0]], dtype=torch.float64))


# -- gradients -----------------------------------------------------------------------------------------------------


def spaces(mesh: Mesh, degree: int) -> list[FunctionSpace]:
    return [FunctionSpace(mesh, Lagrange(degree), 2), FunctionSpace(mesh, Discontinuous(degree))]


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_at_points_equal_those_by_automatic_differentiation(name, degree):
    for mesh in (grid(name), curved(name, min(degree, 2))):
        points = scattered(mesh, 2)[0].requires_grad_()
        for V in spaces(mesh, degree):
            u = rand(2, *V.shape)
            value, grad = V.evaluate(u, points, derivatives=1)
            assert torch.equal(value, V.evaluate(u, points))
            assert grad.shape == (*value.shape, mesh.dim)
            entries = value.movedim(1, -1).flatten(0, -2)  # "m" each
            for entry, found in zip(entries, grad.movedim(1, -2).flatten(0, -3), strict=True):
                (expected,) = torch.autograd.grad(entry.sum(), points, retain_graph=True)
                assert torch.allclose(found, expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("rational", [False, True])
@pytest.mark.parametrize(("dim", "degree"), [(1, (3,)), (2, (2, 3)), (3, (1, 2, 2))])
def test_gradients_of_spline_spaces(dim, degree, rational):
    V = curved_splines(dim, degree, rational)
    u, (domain,) = rand(2, *V.shape), V.quadrature.domains()
    value, grad = V.quadrature.values(u, domain, V.quadrature.geometry(domain), 1)
    points = V.mesh.map(0, None, domain.points)[0].flatten(0, 1)
    found = V.evaluate(u, points, derivatives=1)
    assert torch.allclose(found[0], value.flatten(-2), rtol=0, atol=1e-10)
    assert torch.allclose(found[1], grad.flatten(-3, -2), rtol=0, atol=1e-8)


def test_gradients_on_surfaces_are_tangential_and_mixed_spaces_give_them_by_field():
    plane = unit_square(3, cell="triangle")
    mesh = Mesh(torch.cat([plane.nodes, plane.nodes.sum(1, keepdim=True)], 1), plane.cells, "triangle")
    W = MixedSpace(FunctionSpace(mesh, Lagrange(1), 3), FunctionSpace(mesh, Lagrange(2)))
    u, p = (f.interpolate(g) for f, g in zip(W.fields, (lambda x: x, lambda x: x[:, 2]), strict=True))
    points = scattered(mesh, 1)[0]
    values, grads = W.evaluate(W.join([u, p]), points, derivatives=1)
    normal = torch.tensor([-1.0, -1, 1], dtype=torch.float64) / math.sqrt(3)
    tangential = torch.eye(3, dtype=torch.float64) - normal.outer(normal)
    assert torch.allclose(values[0], points, atol=1e-12)
    assert torch.allclose(grads[0], tangential.expand(len(points), 3, 3), atol=1e-12)
    assert torch.allclose(grads[1], tangential[2].expand(len(points), 3), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_gradients_in_dofs_points_and_nodes(name):
    mesh = curved(name, 2)
    points = scattered(mesh, 1)[0][:3]
    V = FunctionSpace(mesh, Lagrange(2))
    u = rand(*V.shape).requires_grad_()

    def slope(u, points, nodes):
        return FunctionSpace(mesh.with_nodes(nodes), V.family).evaluate(u, points, derivatives=1)[1]

    inputs = (u, points.requires_grad_(), mesh.nodes.clone().requires_grad_())
    assert gradcheck(slope, inputs, fast_mode=True)
    assert gradgradcheck(slope, inputs, fast_mode=True)


def test_gradients_outside_are_those_of_the_filling_or_of_the_nearest_point():
    V = FunctionSpace(unit_square(3, cell="triangle"), Lagrange(2))
    u = V.interpolate(lambda x: x[:, 0].square() + x[:, 1])
    points = torch.tensor([[0.5, 0.5], [0.25, 1.5], [2.0, -1.0]], dtype=torch.float64)
    assert V.evaluate(u, points, outside=2.0, derivatives=1)[1][1:].abs().max() == 0
    assert V.evaluate(u, points, outside=math.nan, derivatives=1)[1][1:].isnan().all()
    value, grad = V.evaluate(u, points, outside="nearest", derivatives=1)
    assert torch.allclose(value, torch.tensor([0.75, 1.0625, 1.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(grad, torch.tensor([[1.0, 1], [0.5, 1], [2, 1]], dtype=torch.float64), atol=1e-11)
    grid = FunctionSpace(unit_square(3), Lagrange(2))
    same = grid.evaluate(grid.interpolate(lambda x: x[:, 0].square() + x[:, 1]), points, "nearest", 1)
    assert torch.allclose(same[0], value, atol=1e-12)
    assert torch.allclose(same[1], grad, atol=1e-11)


@pytest.mark.parametrize("cell", ["quadrilateral", "triangle"])
def test_values_at_nearest_points_differentiate(cell):
    V = FunctionSpace(unit_square(3, cell=cell), Lagrange(2))
    points = torch.tensor([[0.4, 0.5], [0.25, 1.5], [2.0, -1.0]], dtype=torch.float64).requires_grad_()
    u = rand(*V.shape).requires_grad_()
    assert gradcheck(lambda u, points: V.evaluate(u, points, "nearest"), (u, points))


def test_unusable_points_are_refused():
    V = FunctionSpace(unit_square(2), Lagrange(1))
    u, points = V.interpolate(1.0), torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"`points` must be a tensor of shape \(m, 2\); got list"):
        check_points(V.mesh, [[0.0, 0.0]])
    with pytest.raises(TypeError, match=r"torch.float64 on cpu like the mesh; got torch.float32"):
        V.evaluate(u, points.float())
    with pytest.raises(ValueError, match=r"shape \(m, 2\), one row per point; got \(3, 3\)"):
        V.evaluate(u, torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"shape \(m, 2\), one row per point; got \(2,\)"):
        check_points(V.mesh, points[0])
    with pytest.raises(TypeError, match=r"must be None or a number, such as `math.nan`; got 'nearby'. .nearest. takes"):
        V.evaluate(u, points, outside="nearby")
    with pytest.raises(ValueError, match=r"`evaluate\(derivatives=...\)` must be 0 or 1; got 2"):
        V.evaluate(u, points, derivatives=2)
    points[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"`points\[2\]` is \[0.0, nan\]"):
        V.evaluate(u, points)


# -- derivatives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_in_dofs_points_and_nodes(name, degree):
    mesh = curved(name, degree)
    points = scattered(mesh, 1)[0][:4]
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    u = rand(*V.shape).requires_grad_()

    def value(u, points, nodes):
        return FunctionSpace(mesh.with_nodes(nodes), V.family, 2).evaluate(u, points)

    inputs = (u, points.requires_grad_(), mesh.nodes.clone().requires_grad_())
    assert gradcheck(value, inputs, fast_mode=True)
    assert gradgradcheck(value, inputs, fast_mode=True)


def test_second_derivatives_in_points_are_the_functions():
    """x² + x y on a curved mesh whose space holds it: gradient and Laplacian by automatic differentiation."""
    mesh = unit_square(3).curved(1, lambda x: x + 0.2 * x.prod(-1, keepdim=True))
    V = FunctionSpace(mesh, Lagrange(2))
    points = scattered(mesh, 4)[0].requires_grad_()
    value = V.evaluate(V.interpolate(lambda x: x[:, 0].square() + x[:, 0] * x[:, 1]), points)
    (grad,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    x, y = points.detach().T
    assert torch.allclose(grad, torch.stack([2 * x + y, x], 1), atol=1e-9)
    hess = torch.stack([torch.autograd.grad(grad[:, i].sum(), points, retain_graph=True)[0] for i in range(2)], 1)
    assert torch.allclose(hess, torch.tensor([[2.0, 1.0], [1.0, 0.0]], dtype=torch.float64).expand_as(hess), atol=1e-8)


def test_derivatives_of_spline_spaces_and_surfaces():
    mesh = unit_square(3, 2).curved(2, bend)
    points = scattered(mesh, 2)[0].requires_grad_()
    V = FunctionSpace(mesh, BSpline.uniform((3, 2), (2, 3)))
    assert gradcheck(V.evaluate, (rand(*V.shape).requires_grad_(), points), fast_mode=True)
    surface = Mesh(torch.cat([mesh.nodes, mesh.nodes.prod(1, keepdim=True)], 1), mesh.cells, "quadrilateral")
    W = FunctionSpace(surface, Lagrange(2))
    at, cells, reference = scattered(surface, 1)

    def along(
        shift: Tensor, nodes: Tensor
    ) -> Tensor:  # points that move with the surface: x + J δ stays on it to O(δ²)
        moved = surface.with_nodes(nodes)
        return attach(moved, 0, cells, reference, at + shift)

    inputs = (torch.zeros_like(at).requires_grad_(), surface.nodes.clone().requires_grad_())
    assert gradcheck(along, inputs, fast_mode=True)
    assert torch.allclose(W.evaluate(W.interpolate(lambda x: x.sum(-1)), at), at.sum(-1), atol=1e-12)


@pytest.mark.parametrize("which", ["points", "nodes"])
def test_taylor_remainders_are_of_second_order(which):
    mesh = curved("quadrilateral", 2)
    V, start = FunctionSpace(mesh, Lagrange(3)), scattered(mesh, 2)[0]
    u = V.interpolate(lambda x: torch.sin(x[:, 0]) * x[:, 1].exp())
    at = (start if which == "points" else mesh.nodes).clone().requires_grad_()
    direction = rand(*at.shape, seed=3) - 0.5

    def value(at: Tensor) -> Tensor:
        if which == "points":
            return V.evaluate(u, at).sum()
        return FunctionSpace(mesh.with_nodes(at), V.family).evaluate(u, start, outside=0.0).sum()

    base = value(at)
    (grad,) = torch.autograd.grad(base, at)
    slope = (grad * direction).sum()
    steps = [1e-4, 5e-5, 2.5e-5]
    remainders = [float((value((at + h * direction).detach()) - base - h * slope).abs().detach()) for h in steps]
    rates = [math.log2(a / b) for a, b in pairwise(remainders)]
    assert min(rates) > 1.9
