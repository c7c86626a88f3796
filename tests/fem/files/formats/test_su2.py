"""SU2 files: markers keep their names, in any number and order, with comments."""

from pathlib import Path

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.su2 import read_su2
from fem.files.reading import read_mesh

SQUARE = """NDIME= 2
NELEM= 2
5 0 1 2 0
5 0 2 3 1
NPOIN= 4
0 0 0
1 0 1
1 1 2
0 1 3
NMARK= 2
"""
MARKERS = """MARKER_TAG= lower wall % a comment
MARKER_ELEMS= 1
3 0 1
% more
MARKER_TAG= 7
MARKER_ELEMS= 2
3 1 2 0
3 2 3 1
"""


def test_markers(tmp_path: Path):
    path = tmp_path / "m.su2"
    path.write_text(SQUARE + MARKERS)
    assert {name: np.concatenate(f).tolist() for name, f in read_su2(path.read_bytes()).side_sets.items()} == {
        "lower wall": [[0, 1]],
        "7": [[1, 2], [2, 3]],
    }
    mesh = read_mesh(path)
    assert {name: len(mesh.facets_tagged(name)) for name in mesh.facet_tags} == {"lower wall": 1, "7": 2}
    assert mesh.cell_tags == {}


@pytest.mark.parametrize("row", ["3 0", "3 0 x", "77 0 1", "", "3 0 9", "3 -1 0"])
def test_what_is_no_facet(row: str, tmp_path: Path):
    path = tmp_path / "m.su2"
    path.write_text(SQUARE.replace("NMARK= 2", "NMARK= 1") + f"MARKER_TAG= w\nMARKER_ELEMS= 1\n{row}\n")
    with pytest.raises(MeshError, match=r"m\.su2"):
        read_mesh(path)
