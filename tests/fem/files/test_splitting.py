"""Solid cells divided into tetrahedra: volume, conformity, labels and data stay."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem import FunctionSpace, Lagrange, MeshError, integrate, read_mesh
from fem.files.splitting import FACES, tetrahedra

UNIT = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=float)
SHAPES = {"hexahedron": UNIT, "pyramid": np.vstack([UNIT[:4], [[0.5, 0.5, 1]]]), "wedge": UNIT[[0, 1, 3, 4, 5, 7]]}
VOLUMES = {"hexahedron": 1.0, "pyramid": 1 / 3, "wedge": 0.5}


def volumes(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return np.linalg.det(points[cells[:, 1:]] - points[cells[:, :1]]) / 6


@pytest.mark.parametrize("kind", FACES)
def test_the_parts_fill_the_cell_however_it_is_numbered(kind: str):
    points, generator = SHAPES[kind], np.random.default_rng(0)
    for _ in range(50):
        order = generator.permutation(len(points))
        (parts,) = tetrahedra(order[None], FACES[kind])
        place = np.empty_like(points)
        place[order] = points
        assert (volumes(place, parts) > 1e-9).all()
        assert volumes(place, parts).sum() == pytest.approx(VOLUMES[kind])


def several(path: Path, seed: int) -> Path:
    """A cube, a wedge to its right and a pyramid on top, with some of their faces, numbered at random."""
    points = np.vstack([UNIT, [[2, 0, 0], [2, 0, 1], [0.5, 0.5, 2]]])
    cells = {
        "hexahedron": [list(range(8))],
        "wedge": [[1, 2, 8, 5, 6, 9]],
        "pyramid": [[4, 5, 6, 7, 10]],
        "quad": [[0, 3, 7, 4], [0, 1, 5, 4]],
        "triangle": [[1, 2, 8]],
    }
    material = {"hexahedron": [1], "wedge": [2], "pyramid": [3], "quad": [11, 12], "triangle": [11]}
    order = np.random.default_rng(seed).permutation(len(points))
    place = np.empty_like(points)
    place[order] = points
    blocks: list[Any] = [(kind, order[np.array(rows)]) for kind, rows in cells.items()]
    data: dict[str, Any] = {"material": [np.array(material[kind]) for kind in cells]}
    meshio.Mesh(place, blocks, {"z": place[:, 2]}, data).write(path)
    return path


@pytest.mark.parametrize("seed", range(4))
def test_a_mesh_of_several_kinds(seed: int, tmp_path: Path):
    mesh, data = read_mesh(several(tmp_path / "m.vtu", seed), split=True, fields=True)
    assert [(block.cell.name, block.num_cells) for block in mesh.blocks] == [("tetrahedron", 11)]
    V = FunctionSpace(mesh, Lagrange(1))
    measure = integrate(V, lambda x: torch.ones_like(x[:, :, 0]), per_cell=True)
    for name, volume in {"1": 1.0, "2": 0.5, "3": 1 / 3}.items():
        assert float(measure[mesh.cell_tags[name]].sum()) == pytest.approx(volume)
    assert int((mesh.topology.facets.num_cells == 2).sum()) == (4 * 11 - len(mesh.topology.boundary)) / 2
    assert len(mesh.topology.boundary) == 2 * 3 + 2 + 2 * 2 + 2 + 4  # faces of the cube, the wedge, the pyramid
    assert [len(mesh.facets_tagged(tag)) for tag in ("11", "12")] == [3, 2]
    torch.testing.assert_close(data.dofs("z", V), V.dof_coordinates[:, 2])


def test_what_to_do_is_said(tmp_path: Path):
    with pytest.raises(MeshError, match=r"contains wedge cells; .*`read_mesh\(path, split=True\)`"):
        read_mesh(several(tmp_path / "m.vtu", 0))
    with pytest.raises(TypeError, match="split"):
        read_mesh(several(tmp_path / "m.vtu", 0), split=1)  # pyright: ignore[reportCallIssue, reportArgumentType]
