"""Topology: entities counted and shared, facets and their owners, dof numberings."""

from math import comb

import pytest
import torch

from fem import Lagrange, Mesh, unit_cube, unit_square
from fem.mesh.topology import interior_order, quadrilateral_orders, unique_rows
from fem.reference.cells import CELLS, entity_cell, hexahedron, interval, point, quadrilateral, tetrahedron, triangle
from fem.reference.lagrange import entity_cell_of, lagrange_element
from tests.problems import disk, mixed_mesh, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])


def num_entities(mesh: Mesh) -> list[int]:
    """Vertices, edges, …, cells of a mesh of one kind."""
    cell = mesh.blocks[0].cell
    return [len(mesh.topology.entities(entity_cell_of(cell, k)).vertices) for k in range(cell.dim + 1)]


@cells
def test_euler_characteristic_of_a_box(cell: str) -> None:
    for mesh in (small_mesh(cell, 3), scrambled(small_mesh(cell, 3))):
        assert sum((-1) ** k * n for k, n in enumerate(num_entities(mesh))) == 1


@pytest.mark.parametrize(("nx", "ny"), [(1, 1), (3, 2)])
def test_edges_of_grids(nx: int, ny: int) -> None:
    straight = nx * (ny + 1) + ny * (nx + 1)
    assert num_entities(unit_square(nx, ny))[1] == straight
    assert num_entities(unit_square(nx, ny, cell="triangle"))[1] == straight + nx * ny


@cells
def test_an_entity_has_the_same_number_in_every_cell_that_holds_it(cell: str) -> None:
    mesh = scrambled(small_mesh(cell))
    kind, vertices = CELLS[cell], mesh.topology.cell_vertices[0]
    for dim in range(1, kind.dim):
        entities = mesh.topology.entities(entity_cell_of(kind, dim))
        local = kind.edges if dim == 1 else kind.faces
        own = vertices[:, torch.tensor(local)].sort(-1).values
        assert torch.equal(entities.vertices.sort(-1).values[entities.of_cells[0]], own)
        assert len(entities.vertices.sort(-1).values.unique(dim=0)) == len(entities.vertices)


@cells
def test_facets_know_their_first_owner_and_how_many_share_them(cell: str) -> None:
    mesh = scrambled(small_mesh(cell))
    facets, kind = mesh.topology.facets, CELLS[cell]
    own = torch.tensor(kind.facets)[facets.local]
    assert torch.equal(mesh.topology.cell_vertices[0][facets.cell].gather(1, own), facets.vertices)
    assert facets.num_cells.sum() == mesh.num_cells * len(kind.facets)
    assert set(facets.num_cells.tolist()) <= {1, 2}
    sides = {1: 2, 2: 4 * 2, 3: 6 * 4 * (2 if cell == "tetrahedron" else 1)}
    assert len(mesh.topology.boundary) == sides[kind.dim]


def test_boundary_of_a_disk_is_its_rim() -> None:
    mesh = disk(2)
    rim = mesh.nodes[mesh.facets[mesh.topology.boundary]]
    torch.testing.assert_close(rim.norm(dim=-1), torch.ones(12, 2, dtype=torch.float64))


def test_facets_of_mixed_meshes() -> None:
    mesh = scrambled(mixed_mesh())
    counts = mesh.topology.facets.num_cells
    assert [b.num_cells for b in mesh.blocks] == [2, 4]
    assert (len(counts), int((counts == 1).sum())) == (14, 8)
    assert len(mesh.topology.entities(triangle).vertices) == 4
    assert len(mesh.topology.entities(quadrilateral).vertices) == 2
    assert len(mesh.topology.entities(interval).vertices) == 14
    assert len(mesh.topology.entities(point).vertices) == 9


def test_facets_of_two_kinds_are_padded() -> None:
    """A hexahedron and, apart from it, a tetrahedron."""
    cube = torch.tensor(hexahedron.vertices, dtype=torch.float64)
    simplex = torch.tensor(tetrahedron.vertices, dtype=torch.float64) + 2
    mesh = Mesh(
        torch.cat([cube, simplex]), {"hexahedron": torch.arange(8)[None], "tetrahedron": 8 + torch.arange(4)[None]}
    )
    assert mesh.facets.shape == (10, 4)
    assert ((mesh.facets < 0).sum(1) == torch.tensor([1] * 4 + [0] * 6)).all()
    assert set(mesh.facets[:4, :3].flatten().tolist()) == {8, 9, 10, 11}


@cells
@degrees
def test_number_of_dofs(cell: str, degree: int) -> None:
    """Grids: Π (p n + 1). Simplices too, since Kuhn's cut refines the lattice of the grid. Same number scrambled."""
    mesh = small_mesh(cell, 2)
    dofs, count = mesh.topology.lagrange_numbering(degree)
    assert count == (2 * degree + 1) ** mesh.dim
    mixed, scrambled_count = scrambled(mesh).topology.lagrange_numbering(degree)
    assert scrambled_count == count
    for numbers in (dofs[0], mixed[0]):
        assert torch.equal(numbers.unique(), torch.arange(count))
        assert numbers.sort(1).values.diff(dim=1).min() > 0


@degrees
def test_number_of_dofs_by_entities(degree: int) -> None:
    """Σ_k (entities of dimension k) × (interior nodes of each)."""
    mesh = scrambled(unit_cube(2, 1, 1, cell="tetrahedron"))
    inner = [1, degree - 1, comb(degree - 1, 2), comb(degree - 1, 3)]
    wanted = sum(n * k for n, k in zip(num_entities(mesh), inner, strict=True))
    assert mesh.topology.lagrange_numbering(degree)[1] == wanted


@cells
@degrees
def test_grids_are_numbered_with_x_fastest(cell: str, degree: int) -> None:
    mesh = small_mesh(cell)
    (dofs,), count = mesh.topology.lagrange_numbering(degree)
    kind = CELLS[cell]
    where, _, _ = mesh.map(0, None, lagrange_element(kind, degree).nodes)
    x = torch.empty(count, kind.dim, dtype=torch.float64)
    x[dofs] = where
    steps = torch.round(x * 2 * degree).long()
    strides = torch.tensor([(2 * degree + 1) ** k for k in range(kind.dim)])
    assert torch.equal((steps * strides).sum(1), torch.arange(count))


@cells
def test_numberings_are_made_once_and_shared_by_moved_meshes(cell: str) -> None:
    mesh = small_mesh(cell)
    first = mesh.topology.lagrange_numbering(2)
    assert mesh.with_nodes(mesh.nodes * 2).topology.lagrange_numbering(2) is first


def test_high_order_vertices_are_the_geometry_nodes_that_are_corners() -> None:
    mesh = disk(1, 3)
    assert len(mesh.nodes) == 37
    assert len(mesh.topology.vertex_nodes) == 7
    assert Lagrange(3).on(triangle).num_basis == mesh.cells.shape[1]


# -- helpers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 10**6, 10**15])
def test_unique_rows_agree_with_a_sort_of_rows(scale: int) -> None:
    """Also where the product of the columns' ranges would overflow an integer."""
    rows = scale * torch.randint(5, (200, 4), generator=torch.Generator().manual_seed(0))
    number, first = unique_rows(rows)
    wanted, inverse = rows.unique(dim=0, return_inverse=True)
    assert torch.equal(rows[first][number], rows)
    assert len(first) == len(wanted)
    assert torch.equal(
        first.sort().values, torch.stack([(inverse == i).nonzero()[0, 0] for i in range(len(wanted))]).sort().values
    )


def test_unique_rows_that_would_overflow_are_told_apart() -> None:
    """With four columns in base 2³² a single 64-bit key would keep the last two alone."""
    largest = 2**32 - 1
    rows = torch.tensor([[0, 0, 0, largest], [1, 0, 0, largest], [2, 0, 0, largest], [1, 0, 0, largest]])
    number, first = unique_rows(rows)
    assert len(first) == 3
    assert torch.equal(rows[first][number], rows)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_shared_lattices_of_quadrilaterals_start_at_the_corner_and_run_to_the_neighbour(side: int) -> None:
    """Position of a node = steps from the shared origin along the first axis + side × steps along the second."""
    orders = quadrilateral_orders(side * side, torch.device("cpu"))
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    nodes = torch.stack([x, y], -1).reshape(-1, 2)
    for lowest in range(4):
        for swap in range(2):
            origin = corners[lowest] * (side - 1)
            first, second = (corners[(lowest + s) % 4] - corners[lowest] for s in ((1, 3), (3, 1))[swap])
            steps = (nodes - origin) @ torch.stack([first, second]).T
            assert torch.equal(orders[lowest, swap], steps[:, 0] + side * steps[:, 1])


def test_interior_order_is_the_same_from_both_sides() -> None:
    edges = torch.tensor([[[3, 7]], [[7, 3]]])
    assert interior_order(interval, 2, edges).tolist() == [[[0, 1]], [[1, 0]]]
    assert interior_order(triangle, 1, torch.tensor([[[3, 7, 5]]])).tolist() == [[[0]]]


def test_entity_cells_by_vertices() -> None:
    assert [entity_cell(k).name for k in (1, 2, 3, 4)] == ["point", "interval", "triangle", "quadrilateral"]
