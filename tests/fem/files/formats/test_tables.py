"""Medit, TetGen, AVS UCD and Nastran as text: data by number, cells of degree 2, both bases of numbers."""

from pathlib import Path

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.medit import read_medit
from fem.files.formats.nastran import read_nastran
from fem.files.formats.tables import read_avs, read_tetgen
from fem.files.reading import read_mesh
from fem.mesh.generators import unit_cube
from tests.fem.files.broken_files import AVS, BDF, ELE, MESH, NODE


def test_medit_with_comments_words_on_lines_of_their_own_and_cells_of_degree_2():
    data = MESH.replace(b"Dimension 2", b"# a comment\n\nDimension\n2\nCorners\n1\n3").replace(
        b"End", b"RequiredVertices 2\n1\n2\nEnd"
    )
    found = read_medit(data)
    assert found.cells[0].data.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert (found.cell_data["medit:ref"][0].tolist(), found.point_data["medit:ref"].tolist()) == ([5, 6], [1, 1, 1, 1])
    data = b"MeshVersionFormatted 2 Dimension 3 Vertices 6\n" + b"".join(b"%d 0 0 0\n" % i for i in range(6))
    assert read_medit(data + b"TrianglesP2 1\n1 2 3 4 5 6 9\nEnd").cells[0].type == "triangle6"
    with pytest.raises(MeshError, match="line 9: expected a keyword, such as Vertices or Triangles; found 'Triangel'"):
        read_medit(MESH.replace(b"Triangles", b"Triangel"))


@pytest.mark.parametrize("first", [0, 1])
def test_tetgen(first: int, tmp_path: Path):
    rows = [line.split() for line in NODE.splitlines()[1:]]
    node = b"# nodes\n4 3 1 1\n" + b"".join(b"%d %s 0.5 %d\n" % (int(i) + first, b" ".join(x), 7) for i, *x in rows)
    (tmp_path / "m.node").write_bytes(node)
    (tmp_path / "m.ele").write_bytes(b"1 4 1\n%d %d %d %d %d 3 # region\n" % (first, *(first + i for i in range(4))))
    found = read_tetgen(tmp_path / "m.ele")
    assert found.cells[0].data.tolist() == [[0, 1, 2, 3]]
    assert (found.cell_data["tetgen:ref"][0].tolist(), found.point_data["tetgen:ref"].tolist()) == ([3], [7] * 4)
    assert found.point_data["tetgen:attr1"].tolist() == [0.5] * 4
    (tmp_path / "m.ele").unlink()
    with pytest.raises(MeshError, match=r"m\.ele belongs to it, but there is no such file"):
        read_mesh(tmp_path / "m.node")
    assert ELE.startswith(b"1 4 0")


def test_tetgen_with_midpoints(tmp_path: Path):
    """TetGen numbers the midpoints in an order of its own; read back, the cell is straight again."""
    mesh = unit_cube(1, cell="tetrahedron").curved(2)
    order = [0, 1, 2, 3, 9, 7, 4, 5, 8, 6]
    nodes = [f"{i} {x} {y} {z}" for i, (x, y, z) in enumerate(mesh.nodes.tolist())]
    (tmp_path / "m.node").write_text("\n".join([f"{len(nodes)} 3 0 0", *nodes]))
    cells = [" ".join(map(str, [i, *row])) for i, row in enumerate(mesh.cells[:, order].tolist())]
    (tmp_path / "m.ele").write_text("\n".join([f"{len(cells)} 10 0", *cells]))
    again = read_mesh(tmp_path / "m.node")
    np.testing.assert_allclose(again.nodes[again.cells].numpy(), mesh.nodes[mesh.cells].numpy(), atol=1e-15)


def test_avs():
    data = AVS.replace(b"4 2 0 0 0", b"4 2 3 1 0").replace(b"2 1 tri", b"9 5 tri")
    data += b"2 1 2\nT, K\nv, m/s\n1 1 0 0\n2 2 0 1\n4 4 1 1\n3 3 1 0\n1 1\npart, 1\n9 8\n1 6\n"
    found = read_avs(data)
    assert found.point_data["T"].tolist() == [1, 2, 3, 4]
    assert found.point_data["v"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert (found.cell_data["part"][0].tolist(), found.cell_data["avsucd:material"][0].tolist()) == ([6, 8], [1, 5])
    with pytest.raises(MeshError, match="data of other nodes or cells than there are"):
        read_avs(data.replace(b"9 8\n", b"8 8\n"))


def test_nastran_in_all_three_layouts(tmp_path: Path):
    small = b"GRID    1               0.0     0.0     0.0     \nGRID    2               1.      0.0     0.0\n"
    large = b"GRID*   3                               1.+0            1.D0            \n*       0.0\n"
    free = b"$ comment\nGRID,4,,.0,10.-1\nCTRIA3,1,7,1,2,3\n"
    cards = b"CTRIA3  2       8       1       3       4       \nPSHELL,7,1,.1\n"
    (tmp_path / "m.bdf").write_bytes(small + large + free + cards)
    mesh = read_mesh(tmp_path / "m.bdf")
    assert mesh.nodes.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert {name: cells.tolist() for name, cells in mesh.cell_tags.items()} == {"7": [0], "8": [1]}
    quadratic = b"".join(b"GRID,%d,,%d.,0.,0.\n" % (i, i) for i in range(1, 21))
    quadratic += b"CHEXA,1,1,1,2,3,4,5,6\n,7,8,9,10,11,12,13,14\n,15,16,17,18,19,20\n"
    rows = read_nastran(quadratic).cells[0].data + 1
    assert rows.tolist() == [[*range(1, 13), *range(17, 21), *range(13, 17)]]


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (b"CTRIA3,1", b"CORD2R,3,0\nCTRIA3,1", None),
        (b"GRID,1,,", b"CORD2R,3,0\nGRID,1,3,", "given in the coordinate system 3"),
        (b"ENDDATA\n", b"ENDDATA\nGRID,9\n", "line 9: more follows after ENDDATA"),
        (b"CTRIA3,2,1,1,3,4", b"CTETRA,2,1,1,3,4", "line 7: CTETRA with 3 nodes; it has 4 or 10"),
    ],
)
def test_what_nastran_files_must_not_hold(old: bytes, new: bytes, cause: str | None):
    if cause is None:
        assert len(read_nastran(BDF.replace(old, new)).cells[0].data) == 2
    else:
        with pytest.raises(MeshError, match=cause):
            read_nastran(BDF.replace(old, new))


def test_cards_that_may_be_cells_are_told(tmp_path: Path):
    (tmp_path / "m.bdf").write_bytes(BDF.replace(b"ENDDATA", b"CXYZ,1,2\nCELAS2,5,1.\nENDDATA"))
    with pytest.warns(UserWarning, match=r"cards CXYZ \(line 8\)"):
        assert read_mesh(tmp_path / "m.bdf").num_cells == 2
