"""MSH files in all versions: parametric nodes, partitions, entities of several groups or of none, data."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.gmsh import read_gmsh
from fem.files.reading import read_mesh
from tests.fem.files.broken_files import MSH2, MSH4

PARTITIONED = MSH4[: MSH4.index(b"$Nodes")].replace(
    b"$EndEntities\n",
    b"""$EndEntities
$PartitionedEntities
2
1
9 1
0 0 2 0
5 2 1 1 1 0 0 0 1 1 0 1 7 0
6 2 1 1 2 0 0 0 1 1 0 1 7 0
$EndPartitionedEntities
""",
)
PARTITIONED += b"""$Nodes
2 4 1 4
2 5 1 3
10
20
30
0 0 0 0 0
1 0 0 1 0
1 1 0 1 1
2 6 0 1
40
0 1 0
$EndNodes
$Elements
2 2 1 2
2 5 2 1
1 10 20 30
2 6 2 1
2 10 30 40
$EndElements
$GhostElements
1
1 1 1 2
$EndGhostElements
"""


def test_partitions_parametric_nodes_and_numbers_with_gaps(tmp_path: Path):
    (tmp_path / "p.msh").write_bytes(PARTITIONED)
    mesh = read_mesh(tmp_path / "p.msh")
    assert (mesh.num_cells, mesh.num_nodes, len(mesh.cell_tags["7"])) == (2, 4, 2)


def test_an_entity_may_be_in_several_groups_and_a_name_in_two_dimensions():
    names = b'$PhysicalNames\n3\n2 7 "plate"\n2 8 "all of it"\n1 8 "plate"\n$EndPhysicalNames\n$Entities\n'
    data = MSH4.replace(b"$Entities\n0 0 1 0", names + b"0 1 1 0\n3 0 0 0 1 0 0 1 8 0").replace(
        b" 1 7 0\n", b" 3 7 8 -9 0\n"
    )
    data = data.replace(b"$Elements\n1 2 1 2", b"$Elements\n2 3 1 3\n1 3 1 1\n9 1 2")
    found = read_gmsh(data)
    assert [block.type for block in found.cells] == ["line", "triangle"]
    assert {name: [len(part) for part in parts] for name, parts in found.cell_sets.items()} == {
        "plate": [1, 2],
        "all of it": [0, 2],
        "9": [0, 2],
    }


def test_data_go_by_numbers_and_windows_ends_its_lines_its_way():
    data = MSH2 + b'$NodeData\n1\n"u"\n1\n0.5\n3\n0\n1\n3\n4 40\n1 10\n3 30\n$EndNodeData\n'
    data += b'$ElementData\n1\n"s"\n1\n0\n3\n0\n3\n2\n2 1 2 3\n1 4 5 6\n$EndElementData\n'
    for text in (data, data.replace(b"\n", b"\r\n")):
        found = read_gmsh(text)
        np.testing.assert_array_equal(found.point_data["u"], [10, np.nan, 30, 40])
        assert found.cell_data["s"][0].tolist() == [[4, 5, 6], [1, 2, 3]]
    with pytest.raises(MeshError, match="'u' has a value at node 9, which is not listed"):
        read_gmsh(data.replace(b"4 40\n", b"9 40\n"))


def binary(version: bytes, order: str) -> bytes:
    """The square in binary of either order of bytes."""
    head = b"$MeshFormat\n" + version + b" 1 8\n" + struct.pack(order + "i", 1) + b"\n$EndMeshFormat\n"
    points = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0)]
    if version == b"2.2":
        nodes = b"4\n" + b"".join(struct.pack(order + "i3d", i + 1, *x) for i, x in enumerate(points))
        cells = b"2\n" + struct.pack(order + "3i", 2, 2, 2)
        cells += struct.pack(order + "12i", 1, 7, 1, 1, 2, 3, 2, 8, 1, 1, 3, 4)
    else:
        nodes = struct.pack(order + "4Q3iQ4Q", 1, 4, 1, 4, 2, 1, 0, 4, 1, 2, 3, 4)
        nodes += b"".join(struct.pack(order + "3d", *x) for x in points)
        cells = struct.pack(order + "4Q3iQ8Q", 1, 2, 1, 2, 2, 1, 2, 2, 1, 1, 2, 3, 2, 1, 3, 4)
    return head + b"$Nodes\n" + nodes + b"\n$EndNodes\n$Elements\n" + cells + b"\n$EndElements\n"


@pytest.mark.parametrize("version", [b"2.2", b"4.1"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_files_of_either_order(version: bytes, order: str):
    found = read_gmsh(binary(version, order))
    assert found.cells[0].data.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert found.points.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert [len(part[0]) for part in found.cell_sets.values()] == ([1, 1] if version == b"2.2" else [])
    with pytest.raises(MeshError, match=r"byte .* are announced|cut off"):
        read_gmsh(binary(version, order)[:-40])


def test_groups_of_entities_that_are_not_listed_are_told(tmp_path: Path):
    (tmp_path / "m.msh").write_bytes(MSH4.replace(b"2 1 2 2\n1 1 2 3", b"2 5 2 2\n1 1 2 3"))
    with pytest.warns(UserWarning, match="groups of entity 5 of dimension 2, which is not listed"):
        assert read_mesh(tmp_path / "m.msh").num_cells == 2
