"""VTU files in all the ways in which their arrays may be written: by hand, and by VTK."""

import base64
from itertools import product
from typing import Any

import numpy as np
import pytest

from fem.files.formats.vtk.vtu import read_vtu
from tests.fem.files.broken_files import VTU, ZLIB, appended_vtu, packed, plain, square_arrays

SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
CELLS = [[0, 1, 2], [0, 2, 3]]


def encoded(data: bytes) -> bytes:
    """The header and the data of a compressed array, each a stream of base64."""
    return base64.b64encode(packed(data)[:16]) + base64.b64encode(packed(data)[16:])


@pytest.mark.parametrize(
    "data",
    [
        VTU,
        appended_vtu(square_arrays(plain), ""),
        appended_vtu(square_arrays(packed), ZLIB),
        appended_vtu([base64.b64encode(array) for array in square_arrays(plain)], "", "base64"),
        appended_vtu(square_arrays(encoded), ZLIB, "base64"),
    ],
    ids=["text", "raw", "raw zlib", "base64", "base64 zlib"],
)
def test_the_square(data: bytes):
    found = read_vtu(data)
    assert (found.points.tolist(), found.cells[0].type, found.cells[0].data.tolist()) == (SQUARE, "triangle", CELLS)


def test_pieces_are_put_together():
    start, end = VTU.index(b"<Piece"), VTU.index(b"</Piece>") + 8
    found = read_vtu(VTU[:end] + VTU[start:end] + VTU[end:])
    assert found.points.tolist() == SQUARE * 2
    assert found.cells[0].data.tolist() == [*CELLS, [4, 5, 6], [4, 6, 7]]


def test_all_ways_of_vtk():
    vtk: Any = pytest.importorskip("vtk")
    grid, points = vtk.vtkUnstructuredGrid(), vtk.vtkPoints()
    points.SetDataTypeToDouble()
    for x in SQUARE:
        points.InsertNextPoint(*x)
    grid.SetPoints(points)
    for triangle in CELLS:
        ids = vtk.vtkIdList()
        for i in triangle:
            ids.InsertNextId(i)
        grid.InsertNextCell(vtk.VTK_TRIANGLE, ids)
    values = vtk.vtkDoubleArray()
    values.SetName("u")
    for i in range(4):
        values.InsertNextValue(i / 3)
    grid.GetPointData().AddArray(values)
    for mode, packing, encode, header, order in product(
        ("Ascii", "Binary", "Appended"), ("None", "ZLib", "LZMA"), (0, 1), ("32", "64"), ("Little", "Big")
    ):
        writer = vtk.vtkXMLUnstructuredGridWriter()
        writer.SetInputData(grid)
        getattr(writer, f"SetDataModeTo{mode}")()
        getattr(writer, f"SetCompressorTypeTo{packing}")()
        writer.SetEncodeAppendedData(encode)
        getattr(writer, f"SetHeaderTypeToUInt{header}")()
        getattr(writer, f"SetByteOrderTo{order}Endian")()
        writer.SetBlockSize(64)
        writer.WriteToOutputStringOn()
        writer.Write()
        text = writer.GetOutputString()
        found = read_vtu(text if isinstance(text, bytes) else text.encode("latin-1", "surrogateescape"))
        assert (found.points.tolist(), found.cells[0].data.tolist()) == (SQUARE, CELLS)
        np.testing.assert_allclose(found.point_data["u"], np.arange(4) / 3, rtol=1e-15)
