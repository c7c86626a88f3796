"""Files that are damaged, cut off, at odds with themselves or hostile, and what is said of each: used by tests."""

import base64
import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MSH2 = b"""$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
1
2 1 "all"
$EndPhysicalNames
$Nodes
4
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
$EndNodes
$Elements
2
1 2 2 1 1 1 2 3
2 2 2 1 1 1 3 4
$EndElements
"""
MSH4 = b"""$MeshFormat
4.1 0 8
$EndMeshFormat
$Entities
0 0 1 0
1 0 0 0 1 1 0 1 7 0
$EndEntities
$Nodes
1 4 1 4
2 1 0 4
1
2
3
4
0 0 0
1 0 0
1 1 0
0 1 0
$EndNodes
$Elements
1 2 1 2
2 1 2 2
1 1 2 3
2 1 3 4
$EndElements
"""
VTK = b"""# vtk DataFile Version 3.0
square
ASCII
DATASET UNSTRUCTURED_GRID
POINTS 4 double
0 0 0 1 0 0 1 1 0 0 1 0
CELLS 2 8
3 0 1 2
3 0 2 3
CELL_TYPES 2
5 5
CELL_DATA 2
SCALARS material int 1
LOOKUP_TABLE default
1 2
"""
VTK5 = VTK.replace(b"Version 3.0", b"Version 5.1").replace(
    b"CELLS 2 8\n3 0 1 2\n3 0 2 3\n",
    b"CELLS 3 6\nOFFSETS vtktypeint32\n0 3 6\nCONNECTIVITY vtktypeint32\n0 1 2 0 2 3\n",
)
VTU = b"""<?xml version="1.0"?>
<VTKFile type="UnstructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt32">
<UnstructuredGrid>
<Piece NumberOfPoints="4" NumberOfCells="2">
<Points><DataArray type="Float64" NumberOfComponents="3" format="ascii">0 0 0 1 0 0 1 1 0 0 1 0</DataArray></Points>
<Cells>
<DataArray type="Int64" Name="connectivity" format="ascii">0 1 2 0 2 3</DataArray>
<DataArray type="Int64" Name="offsets" format="ascii">3 6</DataArray>
<DataArray type="UInt8" Name="types" format="ascii">5 5</DataArray>
</Cells>
</Piece>
</UnstructuredGrid>
</VTKFile>
"""
XDMF = b"""<Xdmf Version="3.0"><Domain><Grid Name="square">
<Geometry GeometryType="XY"><DataItem DataType="Float" Dimensions="4 2" Format="XML" Precision="8">
0 0 1 0 1 1 0 1</DataItem></Geometry>
<Topology TopologyType="Triangle" NumberOfElements="2"><DataItem DataType="Int" Dimensions="2 3" Format="XML"
Precision="8">0 1 2 0 2 3</DataItem></Topology>
</Grid></Domain></Xdmf>
"""
INP = b"*NODE\n1, 0, 0\n2, 1, 0\n3, 1, 1\n4, 0, 1\n*ELEMENT, TYPE=CPS3, ELSET=all\n1, 1, 2, 3\n2, 1, 3, 4\n"
BDF = b"""BEGIN BULK
GRID,1,,0.,0.,0.
GRID,2,,1.,0.,0.
GRID,3,,1.,1.,0.
GRID,4,,0.,1.,0.
CTRIA3,1,1,1,2,3
CTRIA3,2,1,1,3,4
ENDDATA
"""
MESH = b"""MeshVersionFormatted 2
Dimension 2
Vertices
4
0 0 1
1 0 1
1 1 1
0 1 1
Triangles
2
1 2 3 5
1 3 4 6
End
"""
SU2 = b"""NDIME= 2
NELEM= 2
5 0 1 2 0
5 0 2 3 1
NPOIN= 4
0 0 0
1 0 1
1 1 2
0 1 3
NMARK= 1
MARKER_TAG= low
MARKER_ELEMS= 1
3 0 1
"""
VOL = b"""mesh3d
dimension
2
geomtype
0
surfaceelements
2
1 1 0 0 3 1 2 3
1 1 0 0 3 1 3 4
points
4
0 0 0
1 0 0
1 1 0
0 1 0
endmesh
"""
AVS = b"""4 2 0 0 0
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
1 1 tri 1 2 3
2 1 tri 1 3 4
"""
OFF = b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
OBJ = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n"
WKT = b"TIN (((0 0 0, 1 0 0, 1 1 0, 0 0 0)), ((0 0 0, 1 1 0, 0 1 0, 0 0 0)))"
PLY = b"""ply
format ascii 1.0
element vertex 4
property double x
property double y
property double z
element face 2
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
1 1 0
0 1 0
3 0 1 2
3 0 2 3
"""
TECPLOT = b"""VARIABLES = "X", "Y"
ZONE NODES = 4, ELEMENTS = 2, DATAPACKING = POINT, ZONETYPE = FETRIANGLE
0 0
1 0
1 1
0 1
1 2 3
1 3 4
"""
POST = b"""!PERMAS DataFile Version 18.0
$ENTER COMPONENT NAME=A
$STRUCTURE
$COOR
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
$ELEMENT TYPE=TRIMS3
1 1 2 3
2 1 3 4
$END STRUCTURE
$EXIT COMPONENT
$FIN
"""
MDPA = b"""Begin ModelPartData
End ModelPartData
Begin Nodes
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
End Nodes
Begin Elements Triangle2D3
1 0 1 2 3
2 0 1 3 4
End Elements
"""
ANSYS = b"""(1 "made by hand")
(2 3)
(10 (0 1 4 0))
(12 (0 1 2 0))
(10 (1 1 4 1 3)(
0 0 0
1 0 0
1 1 0
0 1 0
))
(12 (1 1 2 1 1)(
1 2 3
1 3 4
))
"""
FACET = b"facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex %s\nendloop\nendfacet\n"
STL = b"solid s\n" + FACET % b"1 1 0" + b"endsolid s\n"
NODE = b"4 3 0 0\n0 0 0 0\n1 1 0 0\n2 0 1 0\n3 0 0 1\n"
ELE = b"1 4 0\n0 0 1 2 3\n"
SOUND = {"a.msh": MSH2, "b.msh": MSH4, "a.vtk": VTK, "b.vtk": VTK5, "a.vtu": VTU, "a.xdmf": XDMF, "a.inp": INP}
SOUND |= {"a.bdf": BDF, "a.mesh": MESH, "a.su2": SU2, "a.vol": VOL, "a.avs": AVS, "a.off": OFF, "a.obj": OBJ}
SOUND |= {"a.wkt": WKT, "a.ply": PLY, "a.dat": TECPLOT, "a.stl": STL, "a.node": NODE, "a.ele": ELE}
SOUND |= {"a.post": POST, "a.mdpa": MDPA, "c.msh": ANSYS}
MEASURES = {"a.stl": 0.5, "a.node": 1 / 6, "a.ele": 1 / 6}  # all others are the unit square

# Name in `SOUND`, what is replaced by what, and what is said of the result.
CHANGES: list[tuple[str, bytes, bytes, str]] = [
    ("a.msh", b"$Nodes\n4", b"$Nodes\n1000000000000", r"line 10: 1000000000000 nodes are announced, but only"),
    ("a.msh", b"$Nodes\n4", b"$Nodes\n3", r"line 13: expected \$EndNodes after as many rows"),
    ("a.msh", b"$Nodes\n4", b"$Nodes\n5", r"line 14: expected 4 numbers, nodes; found '\$EndNodes'"),
    ("a.msh", b"2 1 0 0\n", b"2 nan 0 0\n", "node 1 has the coordinates"),
    ("a.msh", b"2 1 0 0\n", b"2 1e999 0 0\n", "node 1 has the coordinates"),
    ("a.msh", b"2 1 0 0\n", b"2 1e300 0 0\n", ""),
    ("a.msh", b"2 1 0 0\n", b"1 1 0 0\n", "node 1 is listed twice"),
    ("a.msh", b"2 1 0 0\n", b"2 1 0\n", r"line 11: expected 4 numbers, nodes; found '2 1 0'"),
    ("a.msh", b"1 2 2 1 1 1 2 3", b"1 2 2 1 1 0 2 3", "element 1 names node 0, which is not listed"),
    ("a.msh", b"1 2 2 1 1 1 2 3", b"1 2 2 1 1 1 2 -3", "element 1 names node -3, which is not listed"),
    ("a.msh", b"1 2 2 1 1 1 2 3", b"1 2 2 1 1 1 2", "line 17: expected number, type"),
    ("a.msh", b"1 2 2 1 1 1 2 3", b"1 140 2 1 1 1 2 3", "there is no element of type 140"),
    ("a.msh", b"1 2 2 1 1 1 2 3", b"1 2 2 1 1 1 2 4", "cells"),
    ("a.msh", b"$Elements\n2", b"$Elements\n1", r"expected \$EndElements after as many rows"),
    ("a.msh", b"$EndElements\n", b"", r"the file ends where \$EndElements should follow"),
    ("a.msh", b"$Elements", b"$Elephants", "no .EndElephants"),
    ("a.msh", b'1\n2 1 "all"', b"1\n2 1 all", 'expected dimension, number and "name"'),
    ("a.msh", b"2.2 0 8", b"1.0 0 8", "Need mesh format"),
    ("a.msh", b"2.2 0 8", b"2.2 1 8", "the number 1 should follow in binary"),
    ("b.msh", b"1 4 1 4\n", b"1 5 1 4\n", "5 nodes are announced, but the blocks hold 4"),
    ("b.msh", b"2 1 0 4\n", b"2 1 7 4\n", "with nodes of kind 7"),
    ("b.msh", b"2 1 0 4\n", b"2 1 0 400000000000\n", "400000000000 numbers of nodes are announced"),
    ("b.msh", b"2 1 2 2\n", b"2 1 4 2\n", "expected 5 numbers, elements; found '1 1 2 3'"),
    ("b.msh", b"0 0 1 0\n", b"0 0 100000000000 0\n", "line"),
    ("b.msh", b"1 2 1 2\n", b"1 3 1 2\n", "3 elements are announced, but the blocks hold 2"),
    ("a.vtk", b"POINTS 4", b"POINTS 1000000000000", "announced"),
    ("a.vtk", b"POINTS 4", b"POINTS 3", "line 6: 9 numbers are announced, coordinates, but 12 follow"),
    ("a.vtk", b"CELLS 2 8", b"CELLS 1 8", "1 cells take 4 numbers, but 8 are announced"),
    ("a.vtk", b"3 0 2 3", b"9 0 2 3", "cell 1 of 2 needs more nodes than follow"),
    ("a.vtk", b"3 0 2 3", b"3 0 2 4", "a cell .triangle. names node 4, but there are 4 nodes"),
    ("a.vtk", b"3 0 2 3", b"3 0 2 -1", "a cell .triangle. names node -1"),
    ("a.vtk", b"3 0 2 3", b"3 0 2 x", "nodes of cells"),
    ("a.vtk", b"\n5 5\n", b"\n5 99\n", "cell 1 is of type 99, which VTK has not"),
    ("a.vtk", b"\n5 5\n", b"\n5 10\n", "cell 1 is a tetra with 3 nodes instead of 4"),
    ("a.vtk", b"CELL_TYPES 2\n5 5\n", b"", "no section CELL_TYPES"),
    ("a.vtk", b"SCALARS material int 1", b"SCALARS material int 2", "4 scalars are announced, but only"),
    ("a.vtk", b"DATASET UNSTRUCTURED_GRID", b"DATASET TABLE", "DATASET TABLE holds no mesh"),
    ("a.vtk", b"# vtk", b"# vtl", "Illegal VTK header"),
    ("b.vtk", b"0 3 6\n", b"0 7 6\n", "the offsets are damaged"),
    ("b.vtk", b"0 3 6\n", b"1 3 6\n", "the first offset is 1 instead of 0"),
    ("b.vtk", b"CELLS 3 6", b"CELLS 3 5", "5 numbers are announced, connectivity, but 6 follow"),
    ("a.vtu", b">3 6<", b">6 3<", "the offsets are damaged"),
    ("a.vtu", b">3 6<", b">3 5<", "the offsets are damaged"),
    ("a.vtu", b'NumberOfPoints="4"', b'NumberOfPoints="3"', "a Piece of 3 points, but the array"),
    ("a.vtu", b'NumberOfPoints="4"', b'NumberOfPoints="1000000000000"', "a Piece of 1000000000000 points"),
    ("a.vtu", b'NumberOfCells="2"', b'NumberOfCells="1"', "a Piece of 1 cells, but with 2 offsets"),
    ("a.vtu", b"0 2 3<", b"0 2 4<", "a cell names node 4, but there are 4 nodes"),
    ("a.vtu", b"0 2 3<", b"0 2 x<", "'connectivity' of 1 × Int64 is damaged"),
    ("a.vtu", b'type="Int64"', b'type="Complex"', "of type 'Complex'"),
    ("a.vtu", b"LittleEndian", b"MiddleEndian", "byte_order 'MiddleEndian'"),
    ("a.vtu", b"</Cells>", b"", "not well-formed XML"),
    ("a.vtu", b'Name="offsets"', b'Name="onsets"', "no array 'offsets'"),
    ("a.vtu", b'format="ascii">0 1 2', b'format="binary">0 1 2', "'connectivity' of 1 × Int64 is damaged: base64"),
    ("a.vtu", b'format="ascii">0 1 2', b'format="appended" offset="99">0 1 2', "its offset 99 is beyond"),
    ("a.xdmf", b'Dimensions="4 2"', b'Dimensions="1000000 2"', "has .* characters"),
    (
        "a.xdmf",
        b'Format="XML" Precision="8">\n',
        b'Format="HDF" Precision="8">/etc/hostname:/x',
        "outside of its folder",
    ),
    ("a.xdmf", b'"XML" Precision="8">\n', b'"HDF" Precision="8">../a.h5:/x', "outside of its folder"),
    ("a.xdmf", b"<Domain>", b'<xi:include href="/etc/passwd"/><Domain>', "includes other files, which is refused"),
    ("a.xdmf", b"Triangle", b"Trapezoid", ""),
    ("a.inp", b"*ELEMENT", b"*INCLUDE, INPUT=../../other.inp\n*ELEMENT", "outside of its folder"),
    ("a.inp", b"CPS3", b"CPS5", ""),
    ("a.inp", b"1, 1, 2, 3", b"1, 1, 2, 9", ""),
    ("a.inp", b"1, 1, 2, 3", b"1, 1, 2", ""),
    ("a.bdf", b"CTRIA3,2,1,1,3,4", b"CTRIA3,2,1,1,3,9", "an element names node 9, which is not listed"),
    ("a.bdf", b"CTRIA3,2,1,1,3,4", b"CTRIX3,2,1,1,3,4", "no card CTRIX3 is known; CTRIA3 may be meant"),
    ("a.bdf", b"CTRIA3,2,1,1,3,4", b"CTRIA3,1,1,1,3,4", "element 1 is listed twice"),
    ("a.bdf", b"ENDDATA", b"", "the file ends without ENDDATA"),
    ("a.bdf", b"1.,0.,0.", b"one,0.,0.", "line 3: a coordinate should be a number; found 'one'"),
    ("a.bdf", b"BEGIN BULK", b"BEGIN BULK\nINCLUDE '../x.bdf'", "line 2: it includes another file"),
    ("a.mesh", b"Vertices\n4", b"Vertices\n3", "line 8: expected a keyword, after as many rows"),
    ("a.mesh", b"Vertices\n4", b"Vertices\n4000000000", "4000000000 Vertices are announced"),
    ("a.mesh", b"1 3 4 6", b"1 3 4", "expected 4 numbers, Triangles; found '1 3 4'"),
    ("a.mesh", b"1 3 4 6", b"0 3 4 6", "names node -1"),
    ("a.su2", b"NELEM= 2", b"NELEM= 1", "line 4: expected KEYWORD= value, after as many rows"),
    ("a.su2", b"NPOIN= 4", b"NPOIN= 400000000000", "400000000000 a point are announced"),
    ("a.su2", b"NMARK= 1", b"NMARK= 2", "2 markers are announced, but there are 1"),
    ("a.su2", b"5 0 2 3 1", b"7 0 2 3 1", "line 4: expected a cell"),
    ("a.vol", b"points\n4", b"points\n400000000000", "announced in a file of|cut off|damaged"),
    ("a.vol", b"surfaceelements\n2", b"surfaceelements\n900000000", "announced in a file of|cut off|damaged"),
    ("a.avs", b"4 2 0", b"4 1 0", "line 7: expected the end of the file"),
    ("a.avs", b"4 2 0", b"9999999999 2 0", "9999999999 nodes are announced"),
    ("a.avs", b"2 1 tri", b"2 1 tro", "line 7: expected number, material, one of"),
    ("a.off", b"4 2 0", b"4 1 0", "line 8: expected the end of the file"),
    ("a.off", b"4 2 0", b"4 3 0", "cut off"),
    ("a.off", b"3 0 2 3", b"5 0 2 3", "expected a face"),
    ("a.obj", b"f 1 3 4", b"g 1 3 4\nq 1", "line 7: expected v and three coordinates"),
    ("a.obj", b"f 1 3 4", b"f 1 3 5", "names node 4, but there are 4 nodes"),
    ("a.wkt", b"0 1 0, 0 0 0))", b"0 1 0, 0 0 1))", "ring 2 is no triangle"),
    ("a.ply", b"element face 2", b"element face 1", "bytes follow after as many elements"),
    ("a.ply", b"element face 2", b"element face 2000000000", "2000000000 elements 'face' are announced"),
    ("a.ply", b"3 0 2 3", b"3 0 2", "face 1 of 2 is cut off"),
    ("a.stl", b"endsolid", b"", "expected a facet|ends without endsolid"),
    ("a.stl", b"vertex 1 1 0", b"vertex 1 1", "line 2 and after: expected a facet of three vertices"),
    ("a.node", b"4 3 0 0", b"3 3 0 0", "expected the end of the file, after as many rows"),
    ("a.node", b"4 3 0 0", b"400000000 3 0 0", "400000000 rows are announced"),
    ("a.node", b"3 0 0 1", b"9 0 0 1", "numbered one after another"),
    ("a.dat", b"NODES = 4", b"NODES = 4000000000", "announced in a file of"),
    ("a.dat", b"ZONE", b"ZONK", ""),
    ("a.avs", b"4 2 0 0 0", b"4 2 99999999999 0 0", "line 1: expected the numbers of nodes, cells"),
    ("a.post", b"$ELEMENT", b"$ELEMNT", "line 9: no keyword .ELEMNT is known"),
    ("a.post", b"3 1 1 0\n", b"! a comment\n3 1 1 0\n", "line 8: these numbers belong to no section"),
    ("a.post", b"$FIN", b"", "the file ends without .FIN"),
    ("a.mdpa", b"Begin Elements", b"Begin Elephants", "line 9: no block 'Elephants' is known"),
    ("a.mdpa", b"End Nodes\n", b"", "line 11: 'End Elements' ends a block|does not end"),
    ("a.mdpa", b"End Elements\n", b"", "the block 'Elements' does not end"),
    ("c.msh", b"(12 (1 1 2 1 1)(", b"(12 (1 2 2 1 1)(", "it announces 2 cells, but 1 were found"),
    ("c.msh", b"(10 (0 1 4 0))", b"(10 (0 1 5 0))", "it announces 5 nodes, but 4 were found"),
    ("c.msh", b"))\n(12 (1", b"\n(12 (1", ""),
]


def appended_vtu(arrays: list[bytes], compressor: str, encoding: str = "raw", cut: int = 0) -> bytes:
    """The square with its arrays behind the XML."""
    offsets = np.cumsum([0, *map(len, arrays)])
    text = VTU.replace(b'header_type="UInt32"', b'header_type="UInt32" ' + compressor.encode())
    for old, offset in zip((b"0 0 0 1 0 0 1 1 0 0 1 0", b"0 1 2 0 2 3", b"3 6", b"5 5"), offsets, strict=False):
        text = text.replace(b'format="ascii">' + old + b"<", b'format="appended" offset="%d"><' % offset)
    body = b"".join(arrays)
    return text.replace(
        b"</VTKFile>",
        b'<AppendedData encoding="'
        + encoding.encode()
        + b'">_'
        + body[: len(body) - cut]
        + b"</AppendedData></VTKFile>",
    )


def square_arrays(pack: Callable[[bytes], bytes]) -> list[bytes]:
    """Points, connectivity, offsets and types, each as it stands in the file."""
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype="<f8")
    arrays = (points, np.array([0, 1, 2, 0, 2, 3], "<i8"), np.array([3, 6], "<i8"), np.array([5, 5], "u1"))
    return [pack(array.tobytes()) for array in arrays]


def plain(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def packed(data: bytes) -> bytes:
    small = zlib.compress(data)
    return struct.pack("<4I", 1, len(data), 0, len(small)) + small


ZLIB = 'compressor="vtkZLibDataCompressor"'
BINARY_VTK = VTK[: VTK.index(b"POINTS")].replace(b"ASCII", b"BINARY") + b"".join(
    [
        *(b"POINTS 4 double\n", np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0], ">f8").tobytes()),
        *(b"\nCELLS 2 8\n", np.array([3, 0, 1, 2, 3, 0, 2, 3], ">i4").tobytes()),
        *(b"\nCELL_TYPES 2\n", np.array([5, 5], ">i4").tobytes(), b"\n"),
    ]
)
BINARY_STL = bytes(80) + struct.pack("<I", 1) + struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0)
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]><VTKFile>&j;</VTKFile>"
)


def made() -> Iterator[tuple[str, bytes, str]]:
    """Broken files that are no replacement in a text: name, contents, what is said."""
    for name, data in SOUND.items():
        yield f"cut-{name}", data[: len(data) * 2 // 3], ""
        yield f"empty-{name}", b"", "it is empty"
        yield f"garbage-{name}", bytes(range(256)) * 4, ""
        yield f"zeros-{name}", bytes(1000), ""
    yield "utf16-odd.msh", b"\xff\xfe" + MSH2.decode().encode("utf-16-le")[:-5], ""
    yield "bomb.vtu", BOMB, "defines entities"
    yield "bomb.xdmf", BOMB, "defines entities"
    yield "bomb.vol.gz", gzip.compress(bytes(10**8)), "unpacks to more than 100 times its size"
    yield "cut.vol.gz", gzip.compress(VOL)[:-20], "cut off"
    yield "damaged.vol.gz", b"\x1f\x8b" + bytes(40), "compression is damaged|cut off"
    arrays = square_arrays(packed)
    bitten = [arrays[0][:30] + bytes([arrays[0][30] ^ 255]) + arrays[0][31:], *arrays[1:]]
    huge = [struct.pack("<4I", 1, 2**31, 0, len(arrays[0]) - 16) + arrays[0][16:], *arrays[1:]]
    many = [struct.pack("<4I", 2**31, 2**31, 0, 9) + arrays[0][16:], *arrays[1:]]
    yield "zlib-damaged.vtu", appended_vtu(bitten, ZLIB), "array 'points'"
    yield "zlib-huge.vtu", appended_vtu(huge, ZLIB), "holds 96 bytes instead of 2147483648"
    yield "zlib-blocks.vtu", appended_vtu(many, ZLIB), "2147483648 compressed blocks are announced"
    yield "zlib-cut.vtu", appended_vtu(arrays, ZLIB, cut=4), "compressed bytes are announced, but only"
    yield "raw-cut.vtu", appended_vtu(square_arrays(plain), "", cut=1), "bytes are announced, but only"
    yield (
        "unknown-compressor.vtu",
        appended_vtu(arrays, 'compressor="vtkLZ4DataCompressor"'),
        "it is compressed by vtkLZ4",
    )
    encoded = [base64.b64encode(array) for array in square_arrays(plain)]
    yield "base64-damaged.vtu", appended_vtu([b"?" + encoded[0][1:], *encoded[1:]], "", "base64"), "base64"
    big = appended_vtu(square_arrays(plain), "").replace(b"LittleEndian", b"BigEndian")
    yield "order.vtu", big, "bytes are announced, but only|damaged"
    yield "cut-binary.vtk", BINARY_VTK[:-6], "announced"
    yield "types-binary.vtk", BINARY_VTK[:-2] + b"\x09\n", "cell 1 is a quad with 3 nodes instead of 4"
    yield "count-binary.vtk", BINARY_VTK.replace(b"POINTS 4 ", b"POINTS 999999999999 "), "announced"
    yield "count.stl", BINARY_STL[:80] + struct.pack("<I", 2**31) + BINARY_STL[84:], "a binary STL file of 2147483648"
    yield "more.stl", BINARY_STL + b"x", "a binary STL file of 1 triangles has 134 bytes; this one has 135"
    yield "grid.vtk", GRID % (10**5, 10**5, 10**5), "points without data"
    yield "zero.vtk", GRID % (1, 1, 1), "contains no cells"
    for suffix in (
        "med",
        "xdmf",
        "cgns",
        "h5m",
        "hmf",
        "e",
        "exo",
        "meshb",
        "ugrid",
        "f3grid",
        "mdpa",
        "post",
        "xml",
        "xyz",
    ):
        yield f"garbage.{suffix}", b"this is no mesh, 1 2 3\n" * 9, ""


GRID = b"""# vtk DataFile Version 3.0
grid
ASCII
DATASET STRUCTURED_POINTS
DIMENSIONS %d %d %d
ORIGIN 0 0 0
SPACING 1 1 1
"""


def all_of_them() -> list[tuple[str, bytes, str]]:
    """Name, contents and what is said of all."""
    found = []
    for i, (name, old, new, cause) in enumerate(CHANGES):
        assert old in SOUND[name], (name, old)
        found.append((f"{i}-{name}", SOUND[name].replace(old, new, 1), cause))
    return [*found, *made()]


def write(folder: Path, name: str, data: bytes) -> Path:
    """The file in a folder; those of TetGen come in pairs."""
    path = folder / name
    path.write_bytes(data)
    if path.suffix == ".node":
        path.with_suffix(".ele").write_bytes(ELE)
    if path.suffix == ".ele":
        path.with_suffix(".node").write_bytes(NODE)
    return path
