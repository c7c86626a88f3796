"""Tessellations: corners on the patch, cells that turn with the normal, areas that converge, OBJ files of them."""

from math import pi

import pytest
import torch

from nurbs import Curve, circle, cylinder, read_geometry, sphere, tessellate, torus, write_geometry
from tests.nurbs.patches import PATCHES, random


def area(mesh):
    a, b, c = mesh.points[mesh.cells].unbind(-2)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2


def test_corners_lie_on_the_patch_and_areas_converge():
    gaps = []
    for n in (4, 8):
        mesh = tessellate(sphere(), n, triangles=True)
        assert (mesh.points.norm(dim=-1) - 1).abs().max() < 1e-14
        assert torch.allclose(mesh.normals, mesh.points, atol=1e-12)
        gaps.append(4 * pi - area(mesh))
    assert 3.8 < gaps[0] / gaps[1] < 4.2


def test_quadrilaterals_turn_counterclockwise_about_the_normal():
    mesh = tessellate(torus(2.0, 0.5), 3)
    a, b, c, d = mesh.points[mesh.cells].unbind(-2)
    turned = torch.linalg.cross(c - a, d - b)
    assert ((turned * mesh.normals[mesh.cells].mean(1)).sum(-1) > 0).all()


@pytest.mark.parametrize("patch", [p for p in PATCHES.values() if not p.batch])
def test_all_kinds_have_points_at_their_parameters(patch):
    mesh = tessellate(patch, 2)
    assert mesh.cells.shape[1] == 2**patch.directions
    assert mesh.cells.unique().numel() == len(mesh.points)
    scattered = patch.at(mesh.parameters)
    assert torch.allclose(scattered, mesh.points, atol=1e-13)


def test_obj_files_hold_polygons_with_normals(tmp_path):
    text = write_geometry(tmp_path / "tube.obj", [cylinder(), circle()], subdivisions=2).read_text().splitlines()
    count = {key: sum(row.split()[0] == key for row in text) for key in ("v", "vt", "vn", "f", "l", "o")}
    assert count == {"v": 9 * 3 + 9, "vt": 9 * 3 + 9, "vn": 9 * 3, "f": 8 * 2, "l": 8, "o": 2}
    last = [row for row in text if row.startswith("l ")][-1]
    assert last == "l 35/35 36/36"


def test_free_form_obj_files_are_read(tmp_path):
    points = random(3, 4, 4) + 0.5
    rows = ["v " + " ".join(map(repr, p)) for p in points.transpose(0, 1).flatten(0, 1).tolist()]
    (tmp_path / "a.obj").write_text(
        "\n".join([*rows, "cstype rat bspline", "deg 2 2", "surf 0 1 0 1 " + " ".join(map(str, range(1, 13)))])
        + "\nparm u 0 0 0 1 1 1\nparm v 0 0 0 \\\n 0.5 1 1 1\nend\n"
    )
    (surface,) = read_geometry(tmp_path / "a.obj")
    assert torch.equal(surface.control_points, points[..., :3])
    assert torch.equal(surface.weights, points[..., 3])
    assert surface.knots[1].tolist() == [0, 0, 0, 0.5, 1, 1, 1]


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match="needs one patch and at least 1 subdivision; got a batch of shape"):
        tessellate(Curve(random(2, 4, 2)))
    with pytest.raises(ValueError, match="is for surfaces; got a `Curve`"):
        tessellate(circle(), triangles=True)
