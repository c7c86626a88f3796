"""Serendipity cells become those of ours with the same map; nodes that add nothing go."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.completion import SERENDIPITY, serendipity_weights
from fem.files.reading import read_mesh
from fem.mesh.generators import unit_cube, unit_square
from fem.reference.cells import CELLS
from fem.reference.lagrange import lagrange_element


@pytest.mark.parametrize("name", SERENDIPITY)
def test_weights_reproduce_what_serendipity_elements_can(name: str):
    """ξ², ξη², ξηζ and the like are among the functions of both elements; ξ²η² is not."""
    cell = SERENDIPITY[name][0]
    nodes = lagrange_element(CELLS[cell], 2).nodes.numpy()
    weights = serendipity_weights(cell)
    old = nodes[: weights.shape[1]]
    powers = [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (1, 2, 0),
        (1, 1, 0),
        *([(1, 1, 1), (2, 1, 1)] if nodes.shape[1] == 3 else []),
    ]
    for power in powers:
        values = (nodes ** power[: nodes.shape[1]]).prod(1)
        np.testing.assert_allclose(weights @ values[: len(old)], values[len(old) :], atol=1e-14)


@pytest.mark.parametrize("name", SERENDIPITY)
@pytest.mark.parametrize("suffix", ["vtu", "msh"])
def test_a_curved_mesh_and_its_data(name: str, suffix: str, tmp_path: Path):
    """The map of a serendipity mesh, and u = x at its nodes, are kept: u is x everywhere, on the new nodes too."""
    size = int(name.strip("quadhexron"))
    box = unit_square(3, 2) if name == "quad8" else unit_cube(2, 1, 1)
    mesh = box.curved(2, lambda x: x + 0.05 * torch.sin(3 * x.flip(-1)))
    rows = mesh.cells[:, :size].numpy()
    used, rows = np.unique(rows, return_inverse=True)
    points = np.pad(mesh.nodes.numpy()[used], ((0, 0), (0, 3 - mesh.dim)))
    groups: Any = {
        "gmsh:physical": [np.ones(len(mesh.cells), dtype=int)],
        "gmsh:geometrical": [np.ones(len(mesh.cells), dtype=int)],
    }
    data = {"u": points[:, 0], "mark": (points[:, 0] < 0.1).astype(np.int32)}
    contents = meshio.Mesh(points, [(name, rows.reshape(-1, size))], data, groups)
    contents.write(tmp_path / f"m.{suffix}", file_format={"vtu": "vtu", "msh": "gmsh22"}[suffix])
    again, fields = read_mesh(tmp_path / f"m.{suffix}", fields=True)
    assert (again.blocks[0].degree, again.num_nodes) == (2, mesh.num_nodes)
    torch.testing.assert_close(again.nodes[again.cells[:, :size]], mesh.nodes[mesh.cells[:, :size]], atol=1e-14, rtol=0)
    torch.testing.assert_close(fields["u"], again.lagrange_nodes(2)[:, 0], atol=1e-14, rtol=0)
    weights = torch.tensor(serendipity_weights(again.blocks[0].cell.name))
    new = torch.einsum("kn,end->ekd", weights, again.nodes[again.cells[:, :size]])
    torch.testing.assert_close(again.nodes[again.cells[:, size:]], new, atol=1e-14, rtol=0)


def test_centres_of_triangles_go_where_they_add_nothing(tmp_path: Path):
    mesh = unit_square(2, cell="triangle").curved(2, lambda x: x + 0.05 * torch.sin(3 * x.flip(-1)))
    corners = mesh.nodes[mesh.cells]
    centres = 4 / 9 * corners[:, 3:].sum(1) - corners[:, :3].sum(1) / 9
    for move in (0.0, 0.01):
        points = torch.cat([mesh.nodes, centres + move]).numpy()
        rows = torch.cat([mesh.cells, mesh.num_nodes + torch.arange(len(centres))[:, None]], 1).numpy()
        text = "# vtk DataFile Version 3.0\nm\nASCII\nDATASET UNSTRUCTURED_GRID\n"
        text += f"POINTS {len(points)} double\n" + "\n".join(f"{x!r} {y!r} 0" for x, y in points.tolist())
        text += f"\nCELLS {len(rows)} {8 * len(rows)}\n" + "\n".join(
            "7 " + " ".join(map(str, row)) for row in rows.tolist()
        )
        text += f"\nCELL_TYPES {len(rows)}\n" + "34 " * len(rows) + "\n"
        (tmp_path / "m.vtk").write_text(text)
        if move:
            with pytest.raises(MeshError, match="triangle 0 has a node in its interior that moves it"):
                read_mesh(tmp_path / "m.vtk")
        else:
            again = read_mesh(tmp_path / "m.vtk")
            torch.testing.assert_close(again.nodes[again.cells], corners, atol=1e-14, rtol=0)
