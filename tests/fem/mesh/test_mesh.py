"""Meshes: tags, orientation, other meshes made from one, and what is refused."""

import pytest
import torch
from torch.autograd import gradcheck

from fem import FunctionSpace, Lagrange, Mesh, MeshError, integrate, unit_cube, unit_interval, unit_square
from fem.mesh.construction import mirrored_nodes
from fem.reference.cells import CELLS
from tests.problems import bend, disk, hard_mesh, mixed_mesh, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])


def square(**kwargs) -> Mesh:
    """Two triangles, counterclockwise; the nodes are the corners of the unit square, counterclockwise."""
    nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    return Mesh(nodes, torch.tensor([[0, 1, 2], [0, 2, 3]]), **kwargs)


def area(mesh: Mesh) -> float:
    return integrate(FunctionSpace(mesh, Lagrange(1)), 1.0).item()


# -- facet tags --------------------------------------------------------------------------------------------------------


def test_facets_by_vertex_tuples_in_any_order() -> None:
    mesh = square(facet_tags={"bottom": torch.tensor([[1, 0]]), "sides": [[2, 1], [3, 0]], "cut": [[0, 2]]})
    assert set(mesh.facets[mesh.facets_tagged("bottom")].flatten().tolist()) == {0, 1}
    assert {frozenset(f) for f in mesh.facets[mesh.facets_tagged("sides")].tolist()} == {
        frozenset((1, 2)),
        frozenset((0, 3)),
    }
    assert mesh.topology.facets.num_cells[mesh.facets_tagged("cut")].tolist() == [2]


def test_facets_by_index_and_by_callable() -> None:
    first = square(facet_tags={"bottom": lambda x: x[..., 1] == 0})
    index = first.facets_tagged("bottom")
    second = square(facet_tags={"bottom": index, "again": index.tolist()})
    for name in ("bottom", "again"):
        assert torch.equal(second.facets_tagged(name), index)
    assert set(first.facets[index].flatten().tolist()) == {0, 1}


def test_facets_named_twice_count_once() -> None:
    mesh = square(facet_tags={"tuples": [[0, 1], [1, 0], [0, 2]], "indices": [3, 1, 3], "one": [2]})
    assert {frozenset(f) for f in mesh.facets[mesh.facets_tagged("tuples")].tolist()} == {
        frozenset((0, 1)),
        frozenset((0, 2)),
    }
    assert len(mesh.facets_tagged("tuples")) == 2
    assert mesh.facets_tagged("indices").tolist() == [1, 3]
    V = FunctionSpace(mesh.with_tags({"again": [[1, 2], [2, 1], [1, 2]]}, {"cells": [1, 1]}), Lagrange(1))
    assert integrate(V, 1.0, "again").item() == pytest.approx(1)
    assert V.mesh.cell_tags["cells"].tolist() == [1]


@pytest.mark.parametrize(
    "mesh", [unit_square(2), mixed_mesh(), small_mesh("interval"), hard_mesh("tetrahedron", "curved")]
)
def test_masks_of_facets(mesh: Mesh) -> None:
    """True for the facets meant, in the order of `mesh.facets`; as a tensor, an array or a list."""
    mask = torch.arange(len(mesh.facets)) % 3 == 1
    tagged = mesh.with_tags({"a": mask, "b": mask.numpy(), "c": mask.tolist(), "none": ~mask & mask})
    for name in "abc":
        assert torch.equal(tagged.facets_tagged(name), torch.nonzero(mask).flatten())
    assert len(tagged.facets_tagged("none")) == 0
    with pytest.raises(MeshError, match=rf"facet tag 'a': a mask needs {len(mask)} entries; got \({len(mask) - 1},\)"):
        mesh.with_tags({"a": mask[1:]})
    with pytest.raises(
        MeshError, match=r"facet tag 'a' must be vertex tuples .*, a mask 'f', or .*; got torch\.bool of sh"
    ):
        mesh.with_tags({"a": mask[:, None]})


def test_the_boundary_is_no_name_for_anything_else() -> None:
    mesh = square(facet_tags={"boundary": [[0, 1], [1, 2], [3, 2], [3, 0]]})
    assert "boundary" not in mesh.facet_tags  # it is there anyway
    assert "boundary" not in square(facet_tags={"boundary": lambda x: x[..., 0] < 9}).facet_tags
    for own in ([[0, 1]], [[0, 1], [1, 2], [3, 2], [3, 0], [0, 2]], lambda x: x[..., 1] == 0, torch.tensor([True] * 5)):
        with pytest.raises(MeshError, match=r"'boundary' always means the whole boundary, which has 4 facets; got \d"):
            square(facet_tags={"boundary": own})
        with pytest.raises(MeshError, match="'boundary' always means the whole boundary"):
            square().with_tags({"boundary": own})
    with pytest.raises(MeshError, match="'boundary' always means the whole boundary, which has 8"):
        unit_square(2).with_tags({"boundary": lambda x: x[..., 0] == 0})


def test_callables_mean_boundary_facets_alone() -> None:
    """The diagonal satisfies this callable too, but lies inside."""
    mesh = square(facet_tags={"low": lambda x: (x[..., 0] - x[..., 1]).abs() + x[..., 1] < 1.5})
    assert {frozenset(f) for f in mesh.facets[mesh.facets_tagged("low")].tolist()} <= {
        frozenset(f) for f in mesh.facets[mesh.facets_tagged("boundary")].tolist()
    }


def test_points_are_facets_of_intervals() -> None:
    mesh = Mesh(unit_interval(3).nodes, unit_interval(3).cells, "interval", facet_tags={"middle": [[1], [2]]})
    assert mesh.facets[mesh.facets_tagged("middle")].tolist() == [[1], [2]]
    assert mesh.facets[mesh.facets_tagged("boundary")].flatten().tolist() == [0, 3]


@cells
def test_vertex_tuples_name_every_facet(cell: str) -> None:
    mesh = scrambled(small_mesh(cell))
    again = Mesh(mesh.nodes, mesh.cells, cell, facet_tags={"all": mesh.facets.flip(1).flip(0)})
    assert torch.equal(again.facets_tagged("all"), torch.arange(len(mesh.facets)).flip(0))


def test_tags_of_mixed_meshes() -> None:
    mesh = mixed_mesh()
    assert (mesh.nodes[mesh.facets[mesh.facets_tagged("left")]][..., 0] == 0).all()
    assert len(mesh.facets_tagged("right")) == 2
    with pytest.raises(ValueError, match=r"mixes kinds of cells; use `mesh\.blocks`"):
        _ = mesh.cells


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ([[1, 3]], r"facet tag 'wall': no facet of this mesh has the vertices \[1, 3\]"),
        ([[0, 1, 2]], r"facet tag 'wall' must be vertex tuples 'f v' with v = 2"),
        ([0, 5], r"indices must lie in \[0, 5\); got up to 5"),
        ([-1], r"indices must lie in \[0, 5\)"),
        (lambda x: x[..., 0] > 2, "its callable is true on no boundary facet"),
    ],
)
def test_facet_tags_that_fit_nothing(selector, message: str) -> None:
    with pytest.raises(MeshError, match=message):
        square(facet_tags={"wall": selector})


def test_unknown_facet_tags_are_told_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown facet tag 'lid'; this mesh has 'boundary', 'left', 'right', 'bottom', 'top'"
    ):
        unit_square(2).facets_tagged("lid")


# -- cell tags ---------------------------------------------------------------------------------------------------------


def test_cells_by_index_mask_and_callable() -> None:
    selectors = {"index": [1], "mask": torch.tensor([False, True]), "callable": lambda x: x[..., 1] > 0.5}
    mesh = square(cell_tags=selectors)
    for name in selectors:
        assert mesh.cell_tags[name].tolist() == [1]


def test_cell_tags_count_through_the_blocks() -> None:
    mesh = mixed_mesh().with_tags(cell_tags={"right": lambda x: x[..., 0] > 0.5})
    assert mesh.cell_tags["right"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "selector", [[2], [-1], torch.tensor([True, False, True])], ids=["beyond", "negative", "mask too long"]
)
def test_cell_tags_that_fit_nothing(selector) -> None:
    with pytest.raises(MeshError, match="cell tag 'steel'"):
        square(cell_tags={"steel": selector})


# -- orientation -------------------------------------------------------------------------------------------------------


@cells
@degrees
def test_meshes_that_run_the_wrong_way_round_are_turned(cell: str, degree: int) -> None:
    mesh = scrambled(small_mesh(cell).curved(degree, bend))
    mirror = mirrored_nodes(CELLS[cell], degree)
    turned = Mesh(mesh.nodes, mesh.cells[:, mirror], cell)
    assert torch.equal(turned.cells, mesh.cells)
    assert torch.equal(torch.arange(len(mirror)), torch.tensor(mirror)[mirror])


def test_reflected_nodes_are_repaired() -> None:
    mesh = unit_square(3, 2)
    nodes = mesh.nodes * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert area(Mesh(nodes, mesh.cells, "quadrilateral")) == pytest.approx(1)


def test_a_single_reversed_cell_is_an_error_that_names_it() -> None:
    with pytest.raises(MeshError, match=r"triangle 1 is inverted: det J = -1\."):
        Mesh(square().nodes, torch.tensor([[0, 1, 2], [0, 3, 2]]))


def test_quadrilaterals_in_lexicographic_order_are_told_apart() -> None:
    with pytest.raises(MeshError, match=r"quadrilateral 0 is (inverted|degenerate)"):
        Mesh(square().nodes, torch.tensor([[0, 1, 3, 2]]), "quadrilateral")


def test_flat_cells_are_degenerate() -> None:
    nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(MeshError, match="triangle 1 is degenerate"):
        Mesh(nodes, torch.tensor([[0, 1, 3], [0, 1, 2]]))


def test_cells_are_numbered_through_the_blocks() -> None:
    mesh = mixed_mesh()
    quadrilaterals, triangles = (block.connectivity for block in mesh.blocks)
    triangles = triangles.clone()
    triangles[3] = triangles[3, [0, 2, 1]]
    with pytest.raises(MeshError, match="triangle 5 is inverted"):
        Mesh(mesh.nodes, {"quadrilateral": quadrilaterals, "triangle": triangles})


# -- other meshes from one ---------------------------------------------------------------------------------------------


def test_with_nodes_moves_and_shares() -> None:
    mesh = square(facet_tags={"bottom": [[0, 1]]}, cell_tags={"steel": [0]})
    moved = mesh.with_nodes(mesh.nodes * 3)
    assert area(moved) == pytest.approx(9)
    assert moved.topology is mesh.topology
    assert torch.equal(moved.facets_tagged("bottom"), mesh.facets_tagged("bottom"))
    assert torch.equal(moved.cell_tags["steel"], mesh.cell_tags["steel"])
    with pytest.raises(MeshError, match="triangle 0 is inverted"):
        mesh.with_nodes(mesh.nodes.flip(1))
    with pytest.raises(ValueError, match=r"`with_nodes` needs nodes of shape \(4, 2\); got \(3, 2\)"):
        mesh.with_nodes(mesh.nodes[:3])


def test_grids_keep_their_sides_when_bent() -> None:
    """Sides of a grid wait as callables of the *straight* coordinates; bending must not lose them."""
    mesh = unit_square(3, 2)
    left = unit_square(3, 2).facets_tagged("left")
    assert torch.equal(mesh.with_nodes(bend(mesh.nodes)).facets_tagged("left"), left)
    other = unit_square(3, 2)
    curved = other.curved(2, bend)
    corners = {frozenset(f) for f in curved.facets[curved.facets_tagged("left")].tolist()}
    straight = other.curved(2)
    assert corners == {frozenset(f) for f in straight.facets[straight.facets_tagged("left")].tolist()}


def test_grids_keep_their_sides_when_nodes_are_changed_in_place() -> None:
    mesh = unit_square(3, 2)
    left = unit_square(3, 2).facets_tagged("left")
    mesh.nodes.mul_(2).add_(1)
    assert torch.equal(mesh.facets_tagged("left"), left)


def test_with_tags_adds_and_leaves_the_old_mesh_alone() -> None:
    mesh = unit_square(2)
    more = mesh.with_tags({"door": lambda x: (x[..., 0] == 0) & (x[..., 1] <= 0.5)}, {"steel": [0]})
    assert len(more.facets_tagged("door")) == 1
    assert len(more.facets_tagged("left")) == 2
    assert more.cell_tags["steel"].tolist() == [0]
    assert "door" not in mesh.facet_tags
    assert not mesh.cell_tags
    assert more.is_uniform


@cells
@degrees
def test_curved_without_a_mapping_is_the_same_domain(cell: str, degree: int) -> None:
    mesh = hard_mesh(cell, "scrambled")
    curved = mesh.curved(degree)
    assert curved.blocks[0].degree == degree
    points = torch.full((1, mesh.dim), 0.2, dtype=torch.float64)
    for found, wanted in zip(curved.map(0, None, points), mesh.map(0, None, points), strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted)
    for tag in ("left", "right"):
        assert torch.equal(curved.facets_tagged(tag), mesh.facets_tagged(tag))


@cells
@degrees
def test_curved_maps_every_node(cell: str, degree: int) -> None:
    """A cell of degree p reproduces a mapping of degree p: here the nodes, and between them polynomials of degree p."""

    def mapping(x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * x.roll(1, -1) ** degree

    mesh = scrambled(small_mesh(cell))
    curved = mesh.curved(degree, mapping)
    points = torch.full((3, mesh.dim), 0.2, dtype=torch.float64)
    points[1:, 0] = torch.tensor([0.0, 0.4])
    straight, _, _ = mesh.map(0, None, points)
    torch.testing.assert_close(curved.map(0, None, points)[0], mapping(straight))


def test_curved_grids_stay_grids() -> None:
    assert unit_square(3, 2).curved(3, bend).grid == (3, 2)
    assert disk(2).grid is None


def test_curved_refuses_mappings_that_fold() -> None:
    with pytest.raises(MeshError, match="is inverted"):
        unit_square(2).curved(2, lambda x: torch.stack([(x[:, 0] - 0.6) ** 2, x[:, 1]], -1))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_gradients_reach_the_nodes(degree: int) -> None:
    """Also those of nodes that many cells share: each counts once."""
    mesh = scrambled(mixed_mesh())
    nodes = mesh.nodes.clone().requires_grad_()

    def curved_nodes(nodes: torch.Tensor) -> torch.Tensor:
        return mesh.with_nodes(nodes).curved(degree, bend).nodes

    assert gradcheck(curved_nodes, nodes)


def test_to_another_dtype() -> None:
    mesh = unit_square(2).with_tags(cell_tags={"steel": [1]})
    single = mesh.to(dtype=torch.float32)
    assert single.dtype == single.nodes.dtype == torch.float32
    assert mesh.dtype == torch.float64
    assert torch.equal(single.facets_tagged("top"), mesh.facets_tagged("top"))
    assert torch.equal(single.cell_tags["steel"], mesh.cell_tags["steel"])
    assert single.is_uniform
    assert torch.equal(single.to("cpu", torch.float64).nodes, mesh.nodes)


def test_geometry_degree_is_told_by_the_columns() -> None:
    for degree, columns in ((1, 4), (2, 9), (3, 16)):
        mesh = unit_square(1).curved(degree)
        assert mesh.cells.shape == (1, columns)
        assert Mesh(mesh.nodes, mesh.cells, "quadrilateral").blocks[0].degree == degree


def test_repr_says_what_it_is() -> None:
    assert repr(unit_cube(1)) == (
        "Mesh(1 hexahedrons of degree 1; 8 nodes in 3-D; facet tags boundary, left, right, bottom, top, back, front)"
    )


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 1, 4]], r"triangle 0 names the nodes \[0, 1, 4\], but there are 4 nodes"),
        ([[0, 1, 2], [0, 2, -1]], r"triangle 1 names the nodes \[0, 2, -1\]"),
        ([[0, 1, 2, 3]], r"v = 3, 6, 10 \(degree 1, 2, 3\); got torch.int64 of shape \(1, 4\)"),
        ([0, 1, 2], r"got torch.int64 of shape \(3,\)"),
        ([[0.0, 1.0, 2.0]], "triangle cells must be integers"),
        (torch.zeros(0, 3, dtype=torch.int64), "has no triangle cells"),
    ],
)
def test_unusable_connectivity(cells, message: str) -> None:
    with pytest.raises(MeshError, match=message):
        Mesh(square().nodes, torch.as_tensor(cells))


def test_unusable_nodes() -> None:
    nodes, cells = square().nodes, square().cells
    broken = nodes.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(MeshError, match=r"node 2 has the coordinates \[1\.0, nan\]"):
        Mesh(broken, cells)
    with pytest.raises(TypeError, match=r"floating-point tensor; got torch\.int64"):
        Mesh(nodes.long(), cells)
    with pytest.raises((MeshError, TypeError), match=r"shape"):
        Mesh(nodes[0], cells)


def test_cells_that_do_not_fit_together() -> None:
    with pytest.raises(MeshError, match="cells of one dimension; got triangle, interval"):
        Mesh(square().nodes, {"triangle": [[0, 1, 2]], "interval": [[0, 3]]})
    with pytest.raises(MeshError, match="tetrahedron cells need more than 2 coordinates"):
        Mesh(square().nodes, torch.tensor([[0, 1, 2, 3]]), "tetrahedron")
    with pytest.raises(ValueError, match="`cell` must be one of interval"):
        Mesh(square().nodes, torch.tensor([[0, 1, 2]]), "polygon")
