"""Points in meshes: reference points come back from where the mesh maps them, polynomials are evaluated exactly, shared
and boundary points belong to the lowest cell, and derivatives are those of the inverse map."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem.mesh.generators import box, unit_interval, unit_square
from fem.mesh.location import attach, check_points, locate, to_bernstein
from fem.mesh.mesh import Mesh
from fem.reference.cells import CELLS, Cell
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.reference.quadrature import quadrature
from fem.reference.spline_element import BSpline
from fem.space.space import FunctionSpace, MixedSpace

NAMES = list(CELLS)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grid(name: str, n: int | None = None) -> Mesh:
    dim = CELLS[name].dim
    n = n or (3, 3, 2)[dim - 1]
    return box((0.0,) * dim, (1.0,) * dim, (n,) * dim, cell=name)


def bend(x: Tensor) -> Tensor:
    """A smooth map of the box that moves the boundary too."""
    turned = x.roll(1, -1)
    return 2 * x + 0.25 * torch.sin(2.5 * turned + 0.3) + 0.1 * x * turned


def curved(name: str, degree: int, n: int = 2) -> Mesh:
    """A bent grid whose nodes are also moved at random, by up to a tenth of their distance."""

    def mapping(x: Tensor) -> Tensor:
        return bend(x) + 0.2 / (n * degree) * (rand(*x.shape) - 0.5)

    return grid(name, n).curved(degree, mapping)


def reference_points(cell: Cell, count: int, seed: int = 0) -> Tensor:
    """Random points inside the reference cell."""
    x = rand(count, cell.dim, seed=seed)
    if cell.is_simplex and cell.dim > 1:  # differences of sorted numbers are uniform on the simplex
        x = torch.diff(x.sort(1)[0], dim=1, prepend=x.new_zeros(count, 1))
    return 0.001 + 0.99 * x


def scattered(mesh: Mesh, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points in every cell, with their cells and reference coordinates."""
    points, cells, references = [], [], []
    for i, block in enumerate(mesh.blocks):
        reference = reference_points(block.cell, count, i)
        position = mesh.map(i, None, reference.to(mesh.nodes))[0]
        points.append(position.detach().flatten(0, 1))
        cells.append(torch.arange(block.num_cells).repeat_interleave(count) + mesh.block_starts[i])
        references.append(reference.repeat(block.num_cells, 1))
    order = torch.randperm(mesh.num_cells * count, generator=torch.Generator().manual_seed(0))
    return torch.cat(points)[order], torch.cat(cells)[order], torch.cat(references)[order]


def assert_comes_back(mesh: Mesh, count: int = 10, atol: float = 1e-10) -> None:
    points, cells, references = scattered(mesh, count)
    cell, reference = locate(mesh, points)
    assert torch.equal(cell, cells)
    assert torch.allclose(reference, references.to(reference), rtol=0, atol=atol)


def mixed_mesh() -> Mesh:
    """The unit square: quadrilaterals on the left, triangles on the right; nodes and cells in random order."""
    quads, triangles = unit_square(6, 6), unit_square(6, 6, cell="triangle")
    left = quads.cells[quads.nodes[quads.cells].mean(1)[:, 0] < 0.5]
    right = triangles.cells[triangles.nodes[triangles.cells].mean(1)[:, 0] > 0.5]
    generator = torch.Generator().manual_seed(1)
    number = torch.randperm(len(quads.nodes), generator=generator)
    nodes = torch.empty_like(quads.nodes).index_copy(0, number, bend(quads.nodes))
    left, right = (number[c[torch.randperm(len(c), generator=generator)]] for c in (left, right))
    return Mesh(nodes, {"triangle": right, "quadrilateral": left})


# -- finding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_mapped_points_are_found_with_their_reference_coordinates(name, degree):
    assert_comes_back(grid(name))
    assert_comes_back(curved(name, degree))


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_quadrature_points_are_found(name, degree):
    mesh = curved(name, degree)
    rule = quadrature(CELLS[name], 5)
    position, _, _ = mesh.map(0, None, rule.points)
    cell, reference = locate(mesh, position.flatten(0, 1))
    assert torch.equal(cell, torch.arange(mesh.num_cells).repeat_interleave(len(rule.points)))
    assert torch.allclose(reference, rule.points.repeat(mesh.num_cells, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["quadrilateral", "hexahedron"])
def test_cells_close_to_folding(name):
    """A corner almost pulled through the diagonal: Newton's method from the centre would leave the cell."""
    cell = CELLS[name]
    nodes = torch.tensor(cell.vertices, dtype=torch.float64)
    nodes[-2] = {2: 0.53, 3: 0.69}[cell.dim]
    assert_comes_back(Mesh(nodes, torch.arange(len(nodes))[None], name), 500, 1e-9)


@pytest.mark.parametrize("degree", [2, 3])
def test_cells_bent_into_half_rings(degree):
    """The segment from one end of the cell to the other runs outside it."""
    angle = {2: 0.7, 3: 1.0}[degree] * math.pi

    def ring(x: Tensor) -> Tensor:
        radius, phi = 0.6 + x[:, 1], angle * (1 - x[:, 0])
        return torch.stack([radius * phi.cos(), radius * phi.sin()], 1)

    assert_comes_back(unit_square(1, 3).curved(degree, ring), 300, 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_uniform_grids_agree_with_the_search(name):
    dim = CELLS[name].dim
    mesh = box((-1.0, 0.5, 2.0)[:dim], (2.0, 1.0, 2.25)[:dim], (3, 4, 5)[:dim], cell=name)
    lattice = (mesh.nodes + mesh.nodes.roll(7, 0)) / 2  # vertices, midpoints of edges, faces and cells
    wide = (rand(200, dim) * 1.4 - 0.2) * (mesh.nodes[-1] - mesh.nodes[0]) + mesh.nodes[0]
    points = torch.cat([mesh.nodes, lattice, wide])
    searched = mesh.with_nodes(mesh.nodes.clone())
    assert not searched.is_uniform
    (cell, reference), (other, expected) = locate(mesh, points), locate(searched, points)
    assert torch.equal(cell, other)
    assert torch.allclose(reference, expected, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shared_points_belong_to_the_lowest_cell(name, degree):
    """The nodes of the mesh lie on vertices, edges, faces and the boundary."""
    mesh = curved(name, degree)
    cells = mesh.cells
    owner = torch.arange(len(cells))[:, None].expand_as(cells)
    lowest = torch.full((len(mesh.nodes),), len(cells)).scatter_reduce(0, cells.flatten(), owner.flatten(), "amin")
    cell, reference = locate(mesh, mesh.nodes)
    assert torch.equal(cell, lowest)
    local = (cells[cell] == torch.arange(len(mesh.nodes))[:, None]).long().argmax(1)
    assert torch.allclose(reference, mesh.blocks[0].element.nodes[local], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_points_beyond_the_boundary_are_outside(name):
    mesh = curved(name, 1)
    centre = mesh.nodes[mesh.cells].mean(1).mean(0)
    boundary = mesh.nodes[mesh.facets[mesh.topology.boundary]].mean(1)  # on the straight boundary, not at its nodes
    assert (locate(mesh, boundary)[0] >= 0).all() or name == "hexahedron"  # whose faces are not flat
    beyond = torch.cat([boundary + s * (boundary - centre) for s in (0.1, 1.0, 1e6)])
    cell, reference = locate(mesh, beyond)
    assert (cell == -1).all()
    assert reference.isnan().all()


def test_the_boundary_is_as_wide_as_the_tolerance():
    for mesh in (unit_square(3), unit_square(3, cell="triangle"), unit_square(3).curved(2)):
        points = torch.tensor([[1 + 1e-12, 0.5], [1 + 1e-8, 0.5], [0.3, -1e-12], [0.3, -1e-8]], dtype=torch.float64)
        assert ((locate(mesh, points)[0] >= 0) == torch.tensor([True, False, True, False])).all()


def test_mixed_and_randomly_numbered_meshes():
    mesh = mixed_mesh()
    assert_comes_back(mesh)
    curved_mesh = mesh.curved(2)
    cells = {block.cell.name: block.connectivity for block in curved_mesh.blocks}
    assert_comes_back(Mesh(curved_mesh.nodes + 0.004 * (rand(*curved_mesh.nodes.shape) - 0.5), cells))


@pytest.mark.parametrize("name", ["interval", "triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_strongly_graded_meshes(name):
    """Cells whose sizes differ by nine orders of magnitude (tetrahedra five), thin ones among them."""
    n = 24 if CELLS[name].dim < 3 else 5
    mesh = grid(name, n)
    power = (5 if name == "tetrahedron" else 9) / math.log10(n)
    assert_comes_back(mesh.with_nodes(mesh.nodes**power), 3, 1e-6)


def test_meshes_far_from_the_origin_and_in_single_precision():
    mesh = curved("quadrilateral", 2)
    assert_comes_back(mesh.with_nodes(mesh.nodes + 1e5), 10, 1e-8)
    single = mesh.to(dtype=torch.float32)
    assert_comes_back(single, 10, 1e-4)
    assert (locate(single, single.nodes)[0] >= 0).all()


def test_curves_and_surfaces_in_space():
    def sphere(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], x[:, 1], (3 - x.square().sum(1)).sqrt()], 1)

    plane = unit_square(4, cell="triangle").curved(3)
    surface = Mesh(sphere(plane.nodes), plane.cells, "triangle")
    assert_comes_back(surface, 20)
    line = unit_interval(8).curved(2)
    circle = Mesh(torch.cat([(3 * line.nodes).cos(), (3 * line.nodes).sin()], 1), line.cells, "interval")
    assert_comes_back(circle, 20)
    flat = Mesh(torch.cat([plane.nodes, torch.zeros(len(plane.nodes), 1)], 1), plane.cells, "triangle")
    assert_comes_back(flat)
    for mesh, off in ((surface, 2), (circle, 0), (flat, 2)):
        points = scattered(mesh, 2)[0]
        points[:, off] += 1e-3
        assert (locate(mesh, points)[0] == -1).all()


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_control_points_hold_the_cell(name, degree):
    element = lagrange_element(CELLS[name], degree)
    nodal = rand(element.num_basis, 50) - 0.5
    control = to_bernstein(element) @ nodal
    values = element.tabulate(reference_points(CELLS[name], 500), 0).value[0] @ nodal
    assert (values <= control.amax(0) + 1e-12).all()
    assert (values >= control.amin(0) - 1e-12).all()
    vertices = CELLS[name].num_vertices
    assert torch.allclose(control[:vertices], nodal[:vertices], atol=1e-12)


def test_nodes_moved_in_place_are_noticed():
    mesh = unit_square(4, cell="triangle")
    point = torch.tensor([[1.5, 0.5]], dtype=torch.float64)
    assert int(locate(mesh, point)[0]) == -1
    mesh.nodes.mul_(2)
    assert int(locate(mesh, point)[0]) >= 0


def test_no_points_at_all():
    for mesh in (unit_square(2), unit_square(2, cell="triangle")):
        V = FunctionSpace(mesh, Lagrange(1), components=2)
        assert V.evaluate(V.interpolate(1.0), torch.empty(0, 2, dtype=torch.float64)).shape == (0, 2)


# -- evaluating ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("rational", [False, True])
@pytest.mark.parametrize(("dim", "degree"), [(1, (3,)), (2, (2, 3)), (3, (1, 2, 2))])
def test_spline_spaces(dim, degree, rational):
    shape = (4, 3, 2)[:dim]
    mesh = box((0.0,) * dim, (1.0,) * dim, shape).curved(2, bend)
    element = BSpline.uniform(shape, degree)
    if rational:
        element = BSpline(element.knots, degree, 0.5 + rand(element.num_dofs))
    V = FunctionSpace(mesh, element)
    u, (domain,) = rand(2, *V.shape), V.quadrature.domains()
    (expected,) = V.quadrature.values(u, domain, V.quadrature.geometry(domain), 0)
    points = mesh.map(0, None, domain.points)[0].flatten(0, 1)
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
    assert torch.allclose(points.grad, torch.tensor([[1.0, 1], [0, 0], [0, 0]], dtype=torch.float64))


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
