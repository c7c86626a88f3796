"""Markers of SU2 keep their names, in any number and order, with comments, on mixed facets."""

from pathlib import Path

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.su2 import su2_markers
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


def test_markers(tmp_path: Path):
    path = tmp_path / "m.su2"
    path.write_text(
        SQUARE + "MARKER_TAG= lower wall % a comment\nMARKER_ELEMS= 1\n3 0 1\n% more\n"
        "MARKER_TAG= 7\nMARKER_ELEMS= 2\n3 1 2 0\n3 2 3 1\n"
    )
    assert {name: np.concatenate(f).tolist() for name, f in su2_markers(path).items()} == {
        "lower wall": [[0, 1]],
        "7": [[1, 2], [2, 3]],
    }
    mesh = read_mesh(path)
    assert {name: len(mesh.facets_tagged(name)) for name in mesh.facet_tags} == {"lower wall": 1, "7": 2}
    assert mesh.cell_tags == {}


@pytest.mark.parametrize("row", ["3 0", "3 0 x", "77 0 1", ""])
def test_what_is_no_facet(row: str, tmp_path: Path):
    path = tmp_path / "m.su2"
    path.write_text(SQUARE + f"MARKER_TAG= w\nMARKER_ELEMS= 1\n{row}\n")
    with pytest.raises(MeshError, match="marker 'w' needs 1 facets"):
        su2_markers(path)
