"""Cells that stand twice or lie on one another are refused by name, and nothing else is."""

import pytest
import torch
from torch import Tensor

from fem import Mesh, MeshError, box
from fem.mesh.conformity import sides
from fem.reference.cells import CELLS
from tests.problems import bend, hard_mesh, irregular, mixed_mesh, node_symmetries, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
full = pytest.mark.parametrize("cell", [c for c in CELLS if CELLS[c].dim > 1])


def points(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@cells
@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
def test_two_cells_lie_on_the_two_sides_of_their_facet(cell: str, kind: str):
    """Whatever the order of their vertices; and one alone on one of them."""
    topology = hard_mesh(cell, kind).topology
    (facet,) = topology.facet_kinds
    assert torch.equal(sides(topology, facet).abs(), 2 - topology.facets.num_cells)


@pytest.mark.parametrize("mesh", [mixed_mesh(), scrambled(mixed_mesh(), 1), irregular("mixed", 5)])
def test_sides_in_mixed_meshes(mesh: Mesh):
    found = torch.cat([sides(mesh.topology, facet) for facet in mesh.topology.facet_kinds])
    assert torch.equal(found.abs(), 2 - mesh.topology.facets.num_cells)


@cells
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1])
def test_a_cell_that_stands_twice_is_named_with_its_copy(cell: str, degree: int, number: int):
    """In whatever order its nodes come the second time."""
    mesh = small_mesh(cell).curved(degree, bend)
    again = mesh.cells[number, node_symmetries(CELLS[cell], degree)[-1]]
    message = rf"{cell} {number} and {cell} {mesh.num_cells} are one cell that stands twice, over the nodes \["
    with pytest.raises(MeshError, match=message):
        Mesh(mesh.nodes, torch.cat([mesh.cells, again[None]]), cell)
    with pytest.raises(MeshError, match=message):  # however it is to be connected
        Mesh(mesh.nodes, torch.cat([mesh.cells, again[None]]), cell, merge=False)


def test_a_cell_that_stands_twice_in_space():
    """Where facets may have any number of cells, two cells still differ."""
    sheet = box((0.0, 0.0), (1.0, 1.0), (2, 2))
    nodes = torch.cat([sheet.nodes, sheet.nodes.prod(1, keepdim=True)], 1)
    with pytest.raises(MeshError, match="quadrilateral 2 and quadrilateral 4 are one cell"):
        Mesh(nodes, torch.cat([sheet.cells, sheet.cells[2:3].roll(1, 1)]), "quadrilateral")
    with pytest.raises(MeshError, match="interval 0 and interval 1 are one cell"):
        Mesh(nodes, [[0, 1], [1, 0], [1, 2]], "interval")


@full
def test_a_third_cell_at_a_facet(cell: str):
    """Over the facet that the first two share, in the room of one of them."""
    dim = CELLS[cell].dim
    mesh = box((0.0,) * dim, (2.0, *(1.0,) * (dim - 1)), (2, *(1,) * (dim - 1)), cell=cell)
    shared = int(torch.nonzero(mesh.topology.facets.num_cells == 2)[0])
    facets = mesh.topology.facets
    first, local = int(facets.cell[shared]), int(facets.local[shared])
    third = mesh.cells[first].clone()
    others = [v for v in range(CELLS[cell].num_vertices) if v not in CELLS[cell].facets[local]]
    extra = 0.9 * mesh.nodes[third[others]] + 0.1 * mesh.nodes[third].mean(0)
    third[others] = len(mesh.nodes) + torch.arange(len(others))
    nodes = torch.cat([mesh.nodes, extra])
    with pytest.raises(
        MeshError, match=rf"lie on top of .*: {cell} \d+, {cell} \d+ and {cell} {mesh.num_cells} share the"
    ):
        Mesh(nodes, torch.cat([mesh.cells, third[None]]), cell)
    facet = sorted(mesh.facets[shared].tolist())
    with pytest.raises(MeshError, match="share the facet of the nodes") as error:
        Mesh(nodes, torch.cat([mesh.cells, third[None]]), cell, merge=False)
    assert sorted(int(n) for n in str(error.value).split("nodes [")[1].split("]")[0].split(",")) == facet


def test_three_triangles_at_an_edge_are_refused_in_the_plane_and_allowed_in_space():
    corners = points((0, 0), (1, 0), (0.5, 1), (0.5, -1), (0.5, 2))
    connectivity = [[0, 1, 2], [1, 0, 3], [0, 1, 4]]
    with pytest.raises(MeshError, match=r"triangle 0, triangle 1 and triangle 2 share the facet of the nodes \[0, 1\]"):
        Mesh(corners, connectivity)
    raised = torch.cat([corners, points((0.0,), (0.0,), (0.0,), (0.0,), (1.0,))], 1)
    assert Mesh(raised, connectivity).topology.facets.num_cells.max() == 3


def test_two_cells_on_one_side():
    corners = points((0, 0), (1, 0), (0.2, 1), (0.8, 1))
    with pytest.raises(MeshError, match="triangle 0 and triangle 1 share the facet"):
        Mesh(corners, [[0, 1, 2], [0, 1, 3]])
    with pytest.raises(MeshError, match=r"interval 0 and interval 1 share the facet of the nodes \[0\]"):
        Mesh(points((0,), (1,), (2,)), [[0, 1], [0, 2]], "interval")
    five = points((0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.7))
    with pytest.raises(MeshError, match="quadrilateral 0 and triangle 1 share the facet"):
        Mesh(five, {"quadrilateral": [[0, 1, 2, 3]], "triangle": [[0, 1, 4]]})


@full
def test_nodes_that_crossed_their_neighbours(cell: str):
    """One inner node far outside: cells turned so that none is negative still lie on one another."""
    mesh = small_mesh(cell)
    nodes = mesh.nodes.clone()
    centre = int((nodes - 0.5).norm(dim=1).argmin())
    nodes[centre, 0] = 3.0
    with pytest.raises(MeshError, match=r"inverted|degenerate|lie on top of their neighbours"):
        Mesh(nodes, mesh.cells, cell)


def test_curved_cells_that_disagree_about_their_edge():
    """Each with a node of its own between the same vertices: at one place they are one edge, otherwise none."""
    six = points((0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 0.5), (0.5, 0.5))
    connectivity = torch.tensor([[0, 1, 2, 4, 5, 6], [0, 2, 3, 9, 7, 8]])
    assert Mesh(six, connectivity).topology.facets.num_cells.max() == 2
    moved = six.clone()
    moved[9] += 0.05
    with pytest.raises(MeshError, match=r"triangle 0 and triangle 1 bend what they share .* 0\.0707 apart, near \[0\."):
        Mesh(moved, connectivity)


def test_straight_cells_next_to_curved_ones():
    """A quadrilateral of degree 2 beside a triangle of degree 1: fine until the edge between them is bent."""
    quad = box((0.0, 0.0), (1.0, 1.0), (1, 1)).curved(2)
    nodes = torch.cat([quad.nodes, points((2, 0.5))])
    corner = [int((quad.nodes - points(x)).norm(dim=1).argmin()) for x in ((1, 0), (1, 1), (1, 0.5))]
    blocks = {"quadrilateral": quad.cells, "triangle": torch.tensor([[corner[0], 9, corner[1]]])}
    assert Mesh(nodes, blocks).num_cells == 2
    nodes[corner[2], 0] += 0.1
    with pytest.raises(MeshError, match=r"quadrilateral 0 and triangle 1 bend what they share"):
        Mesh(nodes, blocks)


def test_cubic_edges_told_in_the_wrong_order():
    """The two nodes of a bent edge exchanged in one of its two cells."""
    mesh = scrambled(box((0.0, 0.0), (1.0, 1.0), (1, 1), cell="triangle").curved(3, bend))
    wrong = mesh.cells.clone()
    shared = next(k for k in (3, 5, 7) if int((wrong[1] == wrong[0, k]).sum()))
    wrong[0, [shared, shared + 1]] = wrong[0, [shared + 1, shared]]
    with pytest.raises(MeshError, match=r"bend what they share|inverted"):
        Mesh(mesh.nodes, wrong)


def test_a_vertex_that_stands_twice_in_a_cell():
    """A square with two corners in one: an edge without length would be part of the boundary, in the midst of cells."""
    with pytest.raises(MeshError, match=r"quadrilateral 0 is degenerate: two of its vertices \[0, 1, 2, 2\] are one"):
        Mesh(points((0, 0), (1, 0), (1, 1)), [[0, 1, 2, 2]], "quadrilateral")


def test_numbers_that_count_from_one():
    with pytest.raises(
        MeshError, match=r"names the nodes \[1, 2, 3\], but there are 3 nodes\. Nodes count from 0: subt"
    ):
        Mesh(points((0, 0), (1, 0), (1, 1)), [[1, 2, 3]])
