"""Names in files of scikit-fem are facets, one bit for each of a cell, and cells."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np

from fem.files.labelling.scikit_fem import decoded, is_name
from fem.files.reading import read_mesh


def test_bits_are_facets():
    blocks = [("triangle", np.array([[0, 1, 2], [1, 2, 3]])), ("vertex", np.array([[0]]))]
    data = {"skfem:b:all": [np.array([5, 2]), np.array([0])], "skfem:s:one": [np.array([0.0, 1]), np.array([np.nan])]}
    facets, cells = decoded(data, blocks)
    assert np.concatenate(facets["all"]).tolist() == [[0, 1], [2, 3], [0, 2]]
    assert [chosen.tolist() for chosen in cells["one"]] == [[1], []]
    assert [is_name(key) for key in ("skfem:b:a", "skfem:s:a", "skfem:b:", "material")] == [True, True, False, False]


def test_names_of_a_file(tmp_path: Path):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    data: dict[str, Any] = {
        "skfem:b:left": [np.array([4, 0])],
        "skfem:s:upper": [np.array([0, 1])],
        "n": [np.array([7, 8])],
    }
    meshio.Mesh(points, [("triangle", [[0, 1, 2], [1, 2, 3]])], cell_data=data).write(tmp_path / "m.vtu")
    mesh = read_mesh(tmp_path / "m.vtu")
    assert {name: chosen.tolist() for name, chosen in mesh.cell_tags.items()} == {"7": [0], "8": [1], "upper": [1]}
    assert set(mesh.facet_tags) == {"left"}
    assert mesh.facets[mesh.facets_tagged("left")].sort().values.tolist() == [[0, 2]]
