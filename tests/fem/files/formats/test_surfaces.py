"""OFF, STL, OBJ, WKT and PLY: surfaces whose corners are shared, in text and binary."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.ply import read_ply
from fem.files.formats.surfaces import read_obj, read_off, read_stl, read_wkt
from fem.files.reading import read_mesh
from tests.fem.files.broken_files import BINARY_STL, FACET, OBJ, OFF, PLY, WKT

CELLS = [[0, 1, 2], [0, 2, 3]]


def test_off():
    assert read_off(OFF).cells[0].data.tolist() == CELLS
    found = read_off(b"OFF 4 2 0 # counts\n" + OFF.split(b"\n", 2)[2].replace(b"3 0 2 3", b"4 0 1 2 3 255 0 0"))
    assert [block.type for block in found.cells] == ["triangle", "quad"]


def test_stl_joins_corners_and_solids():
    both = b"solid a\n" + FACET % b"1 1 0" + b"endsolid a\nsolid b\n" + FACET % b"1 -1 0" + b"endsolid b\n"
    found = read_stl(both)
    assert (len(found.points), len(found.cells[0].data)) == (4, 2)
    found = read_stl(BINARY_STL)
    assert found.points[found.cells[0].data[0]].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_obj(tmp_path: Path):
    (tmp_path / "m.obj").write_bytes(
        b"mtllib x.mtl\no plate\n" + OBJ.replace(b"f 1 2 3", b"vn 0 0 1\ng low\nf 1//1 -3/2/1 3")
    )
    mesh = read_mesh(tmp_path / "m.obj")
    assert mesh.cells.tolist() == CELLS
    assert mesh.cell_tags["low"].tolist() == [0, 1]
    assert read_obj(OBJ + b"f 1 2 3 4\n").cells[1].data.tolist() == [[0, 1, 2, 3]]


def test_wkt():
    found = read_wkt(WKT.replace(b"TIN", b"TIN Z").replace(b"), (", b" ) ,\n("))
    corners = found.points[found.cells[0].data]
    assert corners.tolist() == [[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]]


def test_ply():
    found = read_ply(PLY.replace(b"element face", b"property float t\nelement face").replace(b" 0\n", b" 0 7\n"))
    assert (found.cells[0].data.tolist(), found.point_data["t"].tolist()) == (CELLS, [7, 7, 7, 7])
    for name, order in (("little", "<"), ("big", ">")):
        head = PLY[: PLY.index(b"end_header")].replace(b"ascii", f"binary_{name}_endian".encode())
        head = head.replace(
            b"vertex_indices\n", b"vertex_indices\nproperty uchar part\nproperty list uchar float more\n"
        )
        body = b"".join(struct.pack(order + "3d", *x) for x in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)))
        body += struct.pack(order + "B3iBBf", 3, 0, 1, 2, 200, 1, 0.5) + struct.pack(
            order + "B3iBB", 3, 0, 2, 3, 100, 0
        )
        found = read_ply(head + b"end_header\n" + body)
        assert found.cells[0].data.tolist() == CELLS
        np.testing.assert_array_equal(found.cell_data["part"][0], [200, 100])
    with pytest.raises(MeshError, match="face 1 of 2 is cut off"):
        read_ply(head + b"end_header\n" + body[:-3])
