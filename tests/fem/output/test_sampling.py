"""Sampling for pictures: what is drawn is the field and the curved geometry themselves, and each edge comes once."""

from math import pi

import numpy as np
import pytest
import torch

from fem import FunctionSpace, Lagrange, box, unit_cube, unit_square
from fem.output.sampling import View, edges, mosaic, subdivision
from fem.reference.cells import get_cell
from tests.problems import disk

DTYPE = torch.float64


def areas(x: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 3 - x.shape[1])))
    corners = x[triangles]
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_samples_are_the_polynomial(cell: str, degree: int):
    dim = 2 if cell in ("triangle", "quadrilateral") else 3
    mesh = box((0.0,) * dim, (2.0, 1.0, 1.0)[:dim], (2,) * dim, cell=cell)
    V = FunctionSpace(mesh, Lagrange(degree))
    u = V.interpolate(lambda x: (x @ torch.arange(1.0, dim + 1, dtype=DTYPE)) ** degree)
    x, triangles, values = mosaic(View(mesh, (V, u), 1.0))
    assert values is not None
    np.testing.assert_allclose(values, (x @ np.arange(1, dim + 1)) ** degree, rtol=1e-12)
    assert areas(x, triangles).sum() == pytest.approx(2 if dim == 2 else 10)


def test_curved_cells_look_curved():
    x, triangles, _ = mosaic(View(disk(2), None, 1.0))
    assert areas(x, triangles).sum() == pytest.approx(pi, rel=2e-3)
    outline = np.concatenate([lines.reshape(-1, 2) for lines in edges(View(disk(2), None, 1.0), only_boundary=True)])
    np.testing.assert_allclose(np.linalg.norm(outline, axis=1), 1, atol=2e-3)


def test_every_edge_is_drawn_once():
    mesh = unit_square(3, 2, cell="triangle")
    assert sum(len(lines) for lines in edges(View(mesh, None, 1.0))) == len(mesh.facets)
    assert sum(len(lines) for lines in edges(View(mesh, None, 1.0), only_boundary=True)) == 10


def test_of_a_solid_only_what_faces_the_observer():
    lines = edges(View(unit_cube(2), None, 1.0), observer=np.array([1.0, 0.0, 0.0]))
    ends = np.concatenate([part[:, [0, -1]].reshape(-1, 3) for part in lines])
    normals_across = {tuple(point) for point in ends.round(9).tolist()}
    assert all(point[0] == 1 or 0 in point or 1 in point for point in normals_across)
    assert (0.0, 0.5, 0.5) not in normals_across  # the middle of the face that looks away
    assert (1.0, 0.5, 0.5) in normals_across


def test_displacements_move_the_mesh():
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    u = V.interpolate(lambda x: torch.stack([0 * x[:, 0], x[:, 0]], -1))
    x, _, values = mosaic(View(V.mesh, (V, u), 3.0))
    assert values is not None
    np.testing.assert_allclose(values, x[:, 0], atol=1e-14)  # |u|, which is the first coordinate
    assert x[:, 1].max() == pytest.approx(4)
    x, _, _ = mosaic(View(V.mesh, (V, u), 0.0))
    assert x[:, 1].max() == 1


def test_triangles_are_cut_into_points_of_their_own() -> None:
    """No point lies beyond the triangle, where it would widen the axes of a picture."""
    points, triangles = subdivision(get_cell("triangle"), 3)
    assert len(points) == 10
    assert float(points.sum(1).max()) <= 1 + 1e-12
    assert sorted(set(triangles.flatten().tolist())) == list(range(10))
    assert len(triangles) == 9
