"""Grids by arithmetic: their numbers and places are those of the same mesh given explicitly."""

import math

import pytest
import torch
from torch import Tensor

from fem import FunctionSpace, Lagrange, Mesh, box
from fem.mesh.grid import BoxNodes, Side, grid_order, number, outer, pieces, places
from fem.reference.cells import CELLS
from fem.reference.lagrange import lagrange_element
from fem.reference.quadrature import quadrature
from tests.problems import bend

cells = pytest.mark.parametrize("cell", CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])
SIDES = ("left", "right", "bottom", "top", "back", "front")


def grid_of(cell: str) -> Mesh:
    dim = CELLS[cell].dim
    return box((-1.0, 0.5, 2.0)[:dim], (1.0, 3.5, 4.0)[:dim], (3, 2, 1)[:dim], cell=cell)


def explicit(mesh: Mesh) -> Mesh:
    """The same mesh from its nodes and cells, with sides told by coordinates: it does not know that it is a grid."""
    lower, upper = mesh.nodes.amin(0), mesh.nodes.amax(0)
    ends = [end[k] for k in range(mesh.dim) for end in (lower, upper)]
    tags = {
        name: lambda x, axis=i // 2, end=end: x[..., axis] == end
        for i, (name, end) in enumerate(zip(SIDES, ends, strict=False))
    }
    return Mesh(mesh.nodes, mesh.cells, mesh.blocks[0].cell.name, facet_tags=tags)


def as_set(x: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in x.reshape(-1, x.shape[-1]).mul(1e9).round().tolist()}


def test_numbers_and_places_are_inverse() -> None:
    shape = (3, 4, 5)
    numbers = torch.arange(60).reshape(6, 10)
    assert torch.equal(number(places(numbers, shape), shape), numbers)
    assert torch.equal(outer([torch.arange(n) for n in shape], shape), torch.arange(60))
    assert outer([torch.tensor([1]), torch.tensor([0, 2])], (3, 4)).tolist() == [1, 7]


@cells
def test_pieces_fill_the_grid_cell_once(cell: str) -> None:
    """Positive determinants that add up to 1, the volume of the unit cube times the factor of the reference cell."""
    kind, corners = CELLS[cell], pieces(CELLS[cell]).double()
    if kind.is_simplex:
        volumes = torch.linalg.det(corners[:, 1:] - corners[:, :1]) * kind.volume
        torch.testing.assert_close(volumes, torch.full_like(volumes, 1 / len(volumes)))
    else:
        assert corners.shape == (1, 2**kind.dim, kind.dim)


@pytest.mark.parametrize("cell", ["interval", "quadrilateral", "hexahedron"])
@degrees
def test_grid_order_counts_x_fastest(cell: str, degree: int) -> None:
    """Of local nodes; and as quadrature counts the points of products of rules."""
    kind = CELLS[cell]
    nodes = lagrange_element(kind, degree).nodes[list(grid_order(kind, degree))]
    line = torch.arange(degree + 1) / degree
    axes = torch.meshgrid(*[line.double()] * kind.dim, indexing="ij")
    torch.testing.assert_close(nodes, torch.stack(axes[::-1], -1).reshape(-1, kind.dim))
    points, line = quadrature(kind, degree).points, quadrature("interval", degree).points[:, 0]
    assert torch.equal(points, torch.stack(torch.meshgrid(*[line] * kind.dim, indexing="ij")[::-1], -1).flatten(0, -2))


@cells
@degrees
def test_some_cells_have_the_rows_of_all(cell: str, degree: int) -> None:
    grid = grid_of(cell).topology.grid
    assert grid is not None
    every, some = grid.cell_nodes(degree), torch.tensor([grid.num_cells - 1, 0])
    assert len(every) == grid.num_cells
    assert torch.equal(grid.cell_nodes(degree, some), every[some])
    assert torch.equal(every.unique(), torch.arange(math.prod(grid.node_shape(degree))))


@cells
@degrees
def test_dofs_sit_where_those_of_the_explicit_mesh_do(cell: str, degree: int) -> None:
    mesh = grid_of(cell)
    V, W = FunctionSpace(mesh, Lagrange(degree)), FunctionSpace(explicit(mesh), Lagrange(degree))
    assert V.num_dofs == W.num_dofs
    assert as_set(V.dof_coordinates) == as_set(W.dof_coordinates)
    local = W.dof_coordinates[W.cell_dofs[0]]
    torch.testing.assert_close(V.dof_coordinates[V.cell_dofs[0]], local, rtol=0, atol=1e-14)
    for tag in ("boundary", *mesh.facet_tags):
        dofs = V.dofs(tag)
        assert (dofs.diff() > 0).all()
        assert as_set(V.dof_coordinates[dofs]) == as_set(W.dof_coordinates[W.dofs(tag)])
        assert torch.equal(V.mesh.lagrange_nodes(V.degree, dofs), V.dof_coordinates[dofs])
        torch.testing.assert_close(
            W.mesh.lagrange_nodes(W.degree, W.dofs(tag)), W.dof_coordinates[W.dofs(tag)], rtol=0, atol=0
        )


@pytest.mark.parametrize("how", ["plain", "moved", "curved"])
@cells
def test_domains_of_sides_are_those_of_the_explicit_mesh(cell: str, how: str) -> None:
    """Cells, local facets, points, weights and normals, also where the grid was bent after it was made."""
    mesh = grid_of(cell)
    other = explicit(mesh)
    if how != "plain":
        mesh, other = (
            m.with_nodes(bend(m.nodes / 4)) if how == "moved" else m.curved(2, lambda x: bend(x / 4))
            for m in (mesh, other)
        )
    V, W = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(other, Lagrange(1))
    for tag in ("boundary", *mesh.facet_tags):
        found = {d.facet: (d, V.quadrature.geometry(d)) for d in V.quadrature.domains(tag)}
        wanted = {d.facet: (d, W.quadrature.geometry(d)) for d in W.quadrature.domains(tag)}
        assert found.keys() == wanted.keys()
        for facet, (domain, geometry) in found.items():
            against, expected = wanted[facet]
            order, reverse = against.cells.argsort(), domain.cells.argsort()
            assert torch.equal(domain.cells[reverse], against.cells[order])
            torch.testing.assert_close(geometry.points[reverse], expected.points[order], rtol=0, atol=1e-14)
            for part in ("weights", "normal", "inverse"):
                a, b = (getattr(g, part) for g in (geometry, expected))
                a, b = (t.expand(len(order), len(domain.points), *t.shape[2:]) for t in (a, b))
                torch.testing.assert_close(a[reverse], b[order], rtol=1e-12, atol=1e-14)


def test_nodes_of_a_box_are_made_once_and_tell_when_they_are_touched() -> None:
    nodes = BoxNodes((torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.5])))
    assert nodes.untouched
    assert nodes.nodes.tolist() == [[0, 0], [1, 0], [2, 0], [0, 0.5], [1, 0.5], [2, 0.5]]
    assert nodes.nodes is nodes.nodes
    assert nodes.untouched
    assert nodes.refined(2, torch.tensor([1, 5, 14])).tolist() == [[0.5, 0], [0, 0.25], [2, 0.5]]
    nodes.nodes.requires_grad_()
    assert not nodes.untouched
    nodes.nodes.requires_grad_(False)
    nodes.nodes[0] = 3
    assert not nodes.untouched


def test_sides_compare_by_value() -> None:
    mesh = box((0.0,), (1.0,), (2,))
    assert mesh.sides_tagged("right") == (Side(0, 1),)
    assert mesh.sides_tagged("boundary") == (Side(0, 0), Side(0, 1))
    again = mesh.with_tags({"right": [0]})
    assert again.sides_tagged("right") is None
    assert FunctionSpace(again, Lagrange(2)).dofs("right").tolist() == [0]
    with pytest.raises(ValueError, match="unknown facet tag 'top'"):
        mesh.sides_tagged("top")
