"""Legacy VTK files: integers of either size, both layouts of cells, grids, all kinds of data, VTK's own output."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.vtk.legacy import read_vtk_legacy
from fem.files.reading import read_mesh
from tests.fem.files.broken_files import BINARY_VTK, GRID, VTK, VTK5

SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("kind", [b"vtktypeint32", b"vtktypeint64", b"int", b"vtkIdType"])
def test_both_layouts_and_integers_of_all_sizes(kind: bytes):
    for data in (VTK, VTK5.replace(b"vtktypeint32", kind), BINARY_VTK):
        found = read_vtk_legacy(data)
        assert found.points.tolist() == SQUARE
        assert [(block.type, block.data.tolist()) for block in found.cells] == [("triangle", [[0, 1, 2], [0, 2, 3]])]


def test_all_kinds_of_data():
    data = (
        VTK
        + b"""VECTORS v float
1 2 3 4 5 6
POINT_DATA 4
TENSORS t double
"""
        + b" 1" * 36
        + b"""
NORMALS n float
0 0 1 0 0 1
0 0 1 0 0 1
TEXTURE_COORDINATES c 2 float
0 0 1 1 2 2 3 3
FIELD more 2
a%20b 1 4 int
1 2 3 4
METADATA
INFORMATION 0

w 2 4 float
nan inf 0 0 0 0 0 -inf
COLOR_SCALARS rgb 3
0 0 0 0 0 0 0 0 0 0 0 1
LOOKUP_TABLE greys 2
0 0 0 1 1 1 1 1
GLOBAL_IDS ids vtkIdType
7 8 9 10
"""
    )
    found = read_vtk_legacy(data)
    shapes = {name: values.shape for name, values in found.point_data.items()}
    assert shapes == {"t": (4, 9), "n": (4, 3), "c": (4, 2), "a b": (4,), "w": (4, 2), "rgb": (4, 3), "ids": (4,)}
    assert found.point_data["a b"].tolist() == [1, 2, 3, 4]
    assert found.cell_data["material"][0].tolist() == [1, 2]
    assert found.cell_data["v"][0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_grids_and_surfaces(tmp_path: Path):
    (tmp_path / "g.vtk").write_bytes(
        GRID % (3, 2, 2) + b"CELL_DATA 2\nSCALARS material int\nLOOKUP_TABLE default\n1 2\n"
    )
    mesh = read_mesh(tmp_path / "g.vtk")
    assert (mesh.num_cells, mesh.num_nodes, mesh.nodes.amax(0).tolist()) == (2, 12, [2, 1, 1])
    assert {name: cells.tolist() for name, cells in mesh.cell_tags.items()} == {"1": [0], "2": [1]}
    head = GRID[: GRID.index(b"DATASET")]
    axes = b"DATASET RECTILINEAR_GRID\nDIMENSIONS 3 2 1\nX_COORDINATES 3 float\n0 1 3\n"
    axes += b"Y_COORDINATES 2 float\n0 1\nZ_COORDINATES 1 float\n0\n"
    (tmp_path / "r.vtk").write_bytes(head + axes)
    assert read_mesh(tmp_path / "r.vtk").nodes.tolist() == [[0, 0], [1, 0], [3, 0], [0, 1], [1, 1], [3, 1]]
    points = b"DIMENSIONS 2 2 1\nPOINTS 4 float\n0 0 0 1 0 0 0 1 0 1 1 0\n"
    assert read_vtk_legacy(head + b"DATASET STRUCTURED_GRID\n" + points).cells[0].data.tolist() == [[0, 1, 3, 2]]
    with pytest.raises(MeshError, match="a grid of 2 × 2 × 2 points, but there are 4"):
        read_vtk_legacy(head + b"DATASET STRUCTURED_GRID\n" + points.replace(b"2 2 1", b"2 2 2"))
    strips = b"DATASET POLYDATA\nPOINTS 4 float\n0 0 0 1 0 0 0 1 0 1 1 0\n"
    strips += b"TRIANGLE_STRIPS 1 5\n4 0 1 2 3\nLINES 1 4\n3 0 1 3\n"
    found = read_vtk_legacy(head + strips)
    assert found.cells[0].data.tolist() == [[0, 1, 2], [2, 1, 3]]
    assert found.cells[1].data.tolist() == [[0, 1], [1, 3]]


def test_voxels_and_pixels_are_cells(tmp_path: Path):
    points = b"POINTS 8 double\n0 0 0 1 0 0 0 1 0 1 1 0 0 0 1 1 0 1 0 1 1 1 1 1\n"
    head = VTK[: VTK.index(b"POINTS")] + points
    (tmp_path / "v.vtk").write_bytes(
        head + b"CELLS 2 14\n8 0 1 2 3 4 5 6 7\n4 0 1 2 3\nCELL_TYPES 2\n11 8\nCELL_DATA 2\nSCALARS material int\n"
        b"LOOKUP_TABLE default\n1 2\n"
    )
    mesh = read_mesh(tmp_path / "v.vtk")
    assert (mesh.blocks[0].cell.name, mesh.num_cells) == ("hexahedron", 1)
    assert mesh.facets[mesh.facets_tagged("2")].sort().values.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("version", [42, 51])
def test_files_that_vtk_writes(binary: bool, version: int, tmp_path: Path):
    vtk: Any = pytest.importorskip("vtk")
    grid, points = vtk.vtkUnstructuredGrid(), vtk.vtkPoints()
    for x in SQUARE:
        points.InsertNextPoint(*x)
    grid.SetPoints(points)
    for triangle in ((0, 1, 2), (0, 2, 3)):
        ids = vtk.vtkIdList()
        for i in triangle:
            ids.InsertNextId(i)
        grid.InsertNextCell(vtk.VTK_TRIANGLE, ids)
    values = vtk.vtkIntArray()
    values.SetName("a name")
    for i in range(4):
        values.InsertNextValue(i)
    grid.GetPointData().AddArray(values)
    writer = vtk.vtkUnstructuredGridWriter()
    writer.SetInputData(grid)
    writer.SetFileVersion(version)
    writer.SetFileName(str(tmp_path / "m.vtk"))
    (writer.SetFileTypeToBinary if binary else writer.SetFileTypeToASCII)()
    writer.Write()
    found = read_vtk_legacy((tmp_path / "m.vtk").read_bytes())
    assert found.cells[0].data.tolist() == [[0, 1, 2], [0, 2, 3]]
    np.testing.assert_array_equal(found.point_data["a name"], range(4))
