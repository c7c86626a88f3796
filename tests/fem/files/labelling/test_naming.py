"""Labels become tags of the mesh: under other names, joined, without what no cell has, and "boundary" for itself."""

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.labelling.labels import Labels
from fem.files.labelling.naming import tagged
from fem.mesh.generators import unit_square
from fem.mesh.mesh import Mesh

SQUARE = unit_square(2)
MESH = Mesh(SQUARE.nodes, SQUARE.cells, "quadrilateral")
LEFT = np.array([[0, 3], [6, 3], [3, 0]])


def test_names_and_other_names():
    found = Labels({"l": LEFT, "b": np.array([[0, 1]])}, {"l": np.array([0]), "m": np.array([3])}, {"l": np.array([8])})
    mesh = tagged(MESH, found, {"l": "side", "m": "side"})
    assert {len(mesh.facets_tagged("side")), len(mesh.facets_tagged("b"))} == {2, 1}
    assert mesh.cell_tags["side"].tolist() == [0, 3]
    assert mesh.nodes_tagged("side").tolist() == [8]
    with pytest.raises(ValueError, match="names no group of the file by 'n'; it has 'l', 'b', 'm'"):
        tagged(MESH, found, {"n": "x"})


def test_sets_of_nodes_are_tags_of_the_facets_that_they_hold():
    found = Labels(nodes={"left": np.array([0, 3, 6, 4]), "point": np.array([0, 1, 2])}, sets={"left"})
    mesh = tagged(MESH, found, {})
    assert set(mesh.facet_tags) == {"left"}
    assert mesh.facets[mesh.facets_tagged("left")].sort().values.tolist() == [[0, 3], [3, 6]]
    found = Labels({"left": LEFT[:1]}, nodes={"left": np.array([0, 3, 6])}, sets={"left"})
    assert len(tagged(MESH, found, {}).facets_tagged("left")) == 1  # the file says which facets


def test_facets_of_no_cell_are_left_out():
    found = Labels({"l": np.array([[0, 3], [0, 4], [-2, -2]]), "none": np.array([[0, 8]])})
    assert set(tagged(MESH, found, {}).facet_tags) == {"l"}
    assert found.left_out == [
        *("2 of 3 facets in the group 'l', which no cell has", "1 of 1 facets in the group 'none', which no cell has")
    ]


def test_boundary_is_taken():
    whole = MESH.facets[MESH.topology.boundary].numpy()
    outside = np.unique(whole)
    assert tagged(MESH, Labels({"boundary": whole}, nodes={"boundary": outside}), {}).facet_tags == {}
    with pytest.raises(MeshError, match=r"its group 'boundary' has 2 facets, .* of 8; give the group another name"):
        tagged(MESH, Labels({"boundary": LEFT}), {})
    with pytest.raises(MeshError, match=r"its group 'boundary' has 9 nodes, .*; give the group another name"):
        tagged(MESH, Labels(nodes={"boundary": np.arange(9)}), {})
    assert set(tagged(MESH, Labels({"boundary": LEFT}), {"boundary": "outer"}).facet_tags) == {"outer"}
