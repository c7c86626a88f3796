"""Lagrange elements: node order, entities, degrees. Conformance itself is tested in test_tabulation.py."""

import pytest
import torch

from fem import FunctionSpace, Lagrange
from fem.reference.cells import CELLS, Cell
from fem.reference.lagrange import LagrangeElement, entity_cell_of, lagrange_element, sub_entities
from tests.conformance import assert_continuous
from tests.problems import hard_mesh, mixed_mesh, node_symmetries, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])


@pytest.mark.parametrize("degree", [0, 4, -1, 1.5, True, "2", None])
def test_degree_must_be_one_two_or_three(degree) -> None:
    class Unchecked(Lagrange):  # as outside the tests, where annotations are not executed
        def __init__(self, degree):
            object.__setattr__(self, "degree", degree)
            self.__post_init__()

    with pytest.raises(ValueError, match=r"`Lagrange\(degree=\.\.\.\)` must be 1, 2 or 3; got " + repr(degree)):
        Unchecked(degree)


@cells
@degrees
def test_number_of_nodes(cell: Cell, degree: int) -> None:
    p = degree
    counts = {
        "interval": p + 1,
        "triangle": (p + 1) * (p + 2) // 2,
        "quadrilateral": (p + 1) ** 2,
        "tetrahedron": (p + 1) * (p + 2) * (p + 3) // 6,
        "hexahedron": (p + 1) ** 3,
    }
    assert lagrange_element(cell, degree).num_basis == counts[cell.name]


@cells
@degrees
def test_nodes_stand_entity_by_entity_and_are_equispaced(cell: Cell, degree: int) -> None:
    element = lagrange_element(cell, degree)
    corners = torch.tensor(cell.vertices, dtype=torch.float64)
    assert torch.equal(element.nodes[: cell.num_vertices], corners)
    for edge, own in zip(cell.edges if cell.dim > 1 else (), element.entity_nodes[1], strict=False):
        share = torch.arange(1, degree, dtype=torch.float64)[:, None] / degree
        start, end = corners[list(edge)]
        torch.testing.assert_close(element.nodes[list(own)], start + share * (end - start))
    lattice = element.nodes * degree
    torch.testing.assert_close(lattice, lattice.round())
    assert len(element.nodes.unique(dim=0)) == element.num_basis


@cells
@degrees
def test_entity_nodes_share_out_all_nodes(cell: Cell, degree: int) -> None:
    element = lagrange_element(cell, degree)
    owned = [node for dim in range(cell.dim + 1) for own in element.entity_nodes[dim] for node in own]
    assert owned == list(range(element.num_basis))


@cells
@degrees
def test_facet_nodes_are_those_of_the_closure(cell: Cell, degree: int) -> None:
    """The facet's own nodes, and those of every edge and vertex whose vertices are all the facet's."""
    element = lagrange_element(cell, degree)
    for facet, nodes in zip(cell.facets, element.facet_nodes, strict=True):
        closure = set()
        for dim in range(cell.dim):
            entities = sub_entities(cell, dim)
            closure |= {
                n
                for e, own in zip(entities, element.entity_nodes[dim], strict=True)
                if set(e) <= set(facet)
                for n in own
            }
        assert set(nodes) == closure
        assert len(nodes) == lagrange_element(entity_cell_of(cell, cell.dim - 1), degree).num_basis


@cells
@degrees
def test_functions_off_a_facet_vanish_on_it(cell: Cell, degree: int) -> None:
    """What makes Dirichlet values exact: on a facet only its own nodes count."""
    element = lagrange_element(cell, degree)
    generator = torch.Generator().manual_seed(0)
    for facet, nodes in zip(cell.facets, element.facet_nodes, strict=True):
        origin, tangents = cell.frame(facet)
        points = origin + torch.rand(5, cell.dim - 1, dtype=torch.float64, generator=generator) @ tangents
        value = element.tabulate(points, 0).value[0].clone()
        value[:, list(nodes)] = 0
        assert value.abs().max() < 1e-13


@cells
@degrees
def test_symmetries_of_the_cell_permute_the_nodes(cell: Cell, degree: int) -> None:
    count = lagrange_element(cell, degree).num_basis
    assert (node_symmetries(cell, degree).sort(1).values == torch.arange(count)).all()


@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
@cells
@degrees
def test_functions_are_continuous_across_cells(cell: Cell, degree: int, kind: str) -> None:
    assert_continuous(FunctionSpace(hard_mesh(cell.name, kind), Lagrange(degree)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["tetrahedron", "hexahedron"])
def test_interiors_of_edges_and_faces_meet_whatever_the_orientation(name: str, seed: int) -> None:
    assert_continuous(FunctionSpace(scrambled(small_mesh(name), seed), Lagrange(3)))


@degrees
def test_functions_are_continuous_where_kinds_of_cells_meet(degree: int) -> None:
    for seed in range(3):
        assert_continuous(FunctionSpace(scrambled(mixed_mesh(), seed), Lagrange(degree)))


@degrees
@cells
def test_node_order_is_that_of_vtk(cell: Cell, degree: int) -> None:
    vtk = pytest.importorskip("vtk")
    element = lagrange_element(cell, degree)
    torch.testing.assert_close(vtk_nodes(vtk, element), element.nodes, rtol=0, atol=1e-12)


def vtk_nodes(vtk, element: LagrangeElement) -> torch.Tensor:
    """Reference nodes in the order of VTK's Lagrange cells, asked of VTK itself."""
    p, dim = element.degree, element.cell.dim
    if element.cell.name == "interval":  # vtkLagrangeCurve: both ends, then the inside in order
        return torch.tensor([0, p, *range(1, p)], dtype=torch.float64)[:, None] / p
    made = getattr(vtk, f"vtkLagrange{VTK_NAMES[element.cell.name]}")()
    made.GetPointIds().SetNumberOfIds(element.num_basis)
    made.GetPoints().SetNumberOfPoints(element.num_basis)
    if element.cell.is_simplex:
        made.Initialize()
        rows = []
        for i in range(element.num_basis):
            index = [0] * 4
            made.ToBarycentricIndex(i, index)
            rows.append(index[:dim])
        return torch.tensor(rows, dtype=torch.float64) / p
    made.SetOrder(*[p] * dim)
    lattice = torch.cartesian_prod(*[torch.arange(p + 1)] * dim)
    order = [made.PointIndexFromIJK(*row, *[0] * (3 - dim)) for row in lattice.tolist()]
    nodes = torch.empty(element.num_basis, dim, dtype=torch.float64)
    nodes[order] = lattice.double() / p
    return nodes


VTK_NAMES = {
    "triangle": "Triangle",
    "quadrilateral": "Quadrilateral",
    "tetrahedron": "Tetra",
    "hexahedron": "Hexahedron",
}
