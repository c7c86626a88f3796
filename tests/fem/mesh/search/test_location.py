"""Points in meshes: reference points come back from where the mesh maps them; shared and boundary points belong to the
lowest cell."""

import math

import pytest
import torch
from torch import Tensor

from fem.mesh.generators import box, unit_interval, unit_square
from fem.mesh.mesh import Mesh
from fem.mesh.search.inverse_map import to_bernstein
from fem.mesh.search.location import locate
from fem.reference.cells import CELLS, Cell
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.reference.quadrature import quadrature
from fem.space.space import FunctionSpace

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
