"""FLAC3D grids: zones and faces of every kind in VTK's order, groups in their slots, as text and binary."""

import struct
from pathlib import Path

import pytest

from fem.errors import MeshError
from fem.files.formats.flac3d import read_flac3d
from fem.files.reading import read_mesh

GRID = """* FLAC3D grid
* GRIDPOINTS
G 1 0 0 0
G 2 1 0 0
G 3 0 1 0
G 4 0 0 1
G 5 1 1 0
G 6 0 1 1
G 7 1 0 1
G 8 1 1 1
G 9 0.5 0.5 2
* ZONES
Z B8 10 1 2 3 4 5 6 7 8
Z T4 20 4 7 6 9
Z T4 30 7 8 6 9
ZGROUP "all of it" SLOT 1
10 20
30
ZGROUP 'roof' SLOT geology
20 30
F Q4 1 1 2 5 3
F T3 2 4 7 9
FGROUP "floor" SLOT Default
1
FGROUP steep
2
"""


def binary() -> bytes:
    points = [line.split()[1:] for line in GRID.splitlines() if line.startswith("G ")]
    found = [struct.pack("<2I", 1, 2), struct.pack("<I", len(points))]
    found += [struct.pack("<I3d", int(n), *map(float, x)) for n, *x in points]
    for kind, groups in (("Z", [("all of it", "1", [10, 20, 30]), ("roof", "geology", [20, 30])]), ("F", [])):
        cells = [list(map(int, line.split()[2:])) for line in GRID.splitlines() if line.startswith(kind + " ")]
        found.append(struct.pack("<I", len(cells)))
        found += [struct.pack(f"<2I{len(nodes)}I", number, len(nodes), *nodes) for number, *nodes in cells]
        found.append(struct.pack("<I", len(groups)))
        for *names, members in groups:
            found += [struct.pack(f"<H{len(name)}s", len(name), name.encode()) for name in names]
            found.append(struct.pack(f"<I{len(members)}I", len(members), *members))
    return b"".join(found)


@pytest.mark.parametrize("data", [GRID.encode(), binary()], ids=["text", "binary"])
def test_zones_and_groups(data: bytes):
    found = read_flac3d(data)
    assert [(block.type, len(block.data)) for block in found.cells] == [
        *(("hexahedron", 1), ("tetra", 2), ("quad", 1), ("triangle", 1))
    ]
    corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
    assert found.points[found.cells[0].data[0]].tolist() == corners
    assert [chosen.tolist() for chosen in found.cell_sets["all of it"]] == [[0], [0, 1], [], []]
    assert [chosen.tolist() for chosen in found.cell_sets["roof:geology"]] == [[], [0, 1], [], []]


def test_faces_are_tags(tmp_path: Path):
    start, end = GRID.index("Z T4 20"), GRID.index("F Q4")
    text = GRID[:start] + GRID[end : GRID.index("F T3")] + GRID[GRID.index("FGROUP") :].replace("FGROUP steep\n2\n", "")
    (tmp_path / "m.f3grid").write_text(text)
    mesh = read_mesh(tmp_path / "m.f3grid")
    assert bool((mesh.nodes[mesh.facets[mesh.facets_tagged("floor")]][..., 2] == 0).all())


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("G 9 0.5 0.5 2", "G 9 0.5 0.5", "line 11: gridpoint 9 needs three coordinates"),
        ("G 9 0.5 0.5 2", "G 8 0.5 0.5 2", "line 11: gridpoint 8 .* comes once"),
        ("6 9\n", "6 99\n", "a tetra names gridpoint 99, which is not listed"),
        ("Z T4 30", "Z T4 20", "zone 20 is listed twice"),
        ("Z T4 30 7", "Z T4 30 7 7 7 7", "zones with 7 nodes are not supported"),
        ("20 30\nF", "20 40\nF", "the group 'roof:geology' names zone 40: not listed"),
        ("20 30\nF", "20 x\nF", "line 20: '20 x' makes no sense there"),
        ("* ZONES", "ZONES", "line 12: 'ZONES' makes no sense there"),
    ],
)
def test_what_is_refused(old: str, new: str, cause: str):
    with pytest.raises(MeshError, match=cause):
        read_flac3d(GRID.replace(old, new, 1).encode())


def test_binary_files_that_are_cut_off():
    data = binary()
    for end in range(9, len(data) - 3, 7):
        with pytest.raises(MeshError):
            read_flac3d(data[:end])
