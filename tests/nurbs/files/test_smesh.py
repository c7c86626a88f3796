"""The smesh layout: real patches to the last bit, the order of control points, and damage with its line."""

from pathlib import Path

import pytest
import torch

from nurbs import Curve, Surface, read_geometry, write_geometry
from tests.nurbs.file_cases import CURVES, SHARED, SURFACES, VOLUMES, assert_equal, needs_shared, refuse
from tests.nurbs.patches import random

TEXT = """3
1 2
2 3
0 0 1 1
0 0 0 2 2 2
0 0 0 1
1 0 0 1
0 1 0 0.5
1 1 0 0.5
0 2 0 1
1 2 7 1
0
1
"""


def test_u_runs_fastest_and_points_are_not_multiplied_by_weights(tmp_path: Path):
    path = tmp_path / "s.dat"
    path.write_text(TEXT)
    (surface,) = read_geometry(path)
    assert (surface.degree, surface.shape) == ((1, 2), (2, 3))
    assert surface.control_points[1].tolist() == [[1, 0, 0], [1, 1, 0], [1, 2, 7]]
    assert surface.weights.tolist() == [[1, 0.5, 1]] * 2
    assert surface.domain()[1][1] == 2


@pytest.mark.parametrize("name", [*CURVES, *SURFACES, *VOLUMES])
def test_round_trip(name: str, tmp_path: Path):
    patch = (CURVES | SURFACES | VOLUMES)[name]
    path = write_geometry(tmp_path / "p.smesh", patch)
    assert_equal(read_geometry(path), [patch])
    text = path.read_text()
    write_geometry(path, read_geometry(path))
    assert path.read_text() == text


@needs_shared
@pytest.mark.parametrize(
    ("folder", "count"), [("Aorta", 18), ("Stabilizer", 27), ("ValveReconstruction", 6), ("Roof", 1)]
)
def test_real_patches(folder: str, count: int, tmp_path: Path):
    patches = read_geometry(SHARED / "nurbsdiff" / folder)
    assert len(patches) == count
    for patch in patches:
        assert_equal(read_geometry(write_geometry(tmp_path / "p.dat", patch)), [patch])
        corners = patch.replace(weights=None).control_points.reshape(-1, 3)
        x = patch(*(torch.lerp(a, b, torch.linspace(0, 1, 9, dtype=torch.float64)) for a, b in patch.domain()))
        assert (x.amax((0, 1)) <= corners.amax(0) + 1e-12).all()
        assert (x.amin((0, 1)) >= corners.amin(0) - 1e-12).all()


@needs_shared
def test_the_roof_is_a_cylinder_of_radius_25():
    (roof,) = read_geometry(SHARED / "nurbsdiff/Roof/smesh.1.dat")
    (a, b), (c, d) = roof.domain()
    steps = torch.linspace(0, 1, 33, dtype=torch.float64)
    x = roof(torch.lerp(a, b, steps), torch.lerp(c, d, steps))
    radius = torch.hypot(x[..., 0], x[..., 2])
    torch.testing.assert_close(radius, torch.full_like(radius, 25), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (TEXT, "", "it is empty"),
        (TEXT, "\n\n", "it ends before the number of coordinates"),
        (TEXT, "3\n1 2\n", "it ends before the numbers of control points"),
        ("3\n1 2", "4\n1 2", "line 1, the number of coordinates: 1, 2 or 3 was expected; got 4"),
        ("3\n1 2", "3 3\n1 2", "line 1, the number of coordinates: one number was expected; got 2"),
        ("1 2\n2 3", "1 2 1 1\n2 3", "line 2, the degrees: one per direction was expected; got 4"),
        ("1 2\n2 3", "1 2\n2", r"line 3, .*: 2 positive ones were expected; got \[2\]"),
        ("1 2\n2 3", "1 2\n2 -3", r"line 3, .*: 2 positive ones were expected; got \[2, -3\]"),
        ("1 2\n2 3", "1 2\n2 2.5", r"line 3, .*: whole numbers were expected; got \[2.0, 2.5\]"),
        ("1 2\n2 3", "1 2\n2 nan", "line 3, .*: whole numbers were expected"),
        ("0 0 1 1", "0 0 1", r"line 4, the knots in u: 2 \+ 1 \+ 1 were expected; got 3"),
        ("0 0 1 1", "0 0 1 x", "line 4, the knots in u: numbers were expected .*'x'"),
        ("0 0 1 1", "0 0 2 1", "cannot read .*knots.*"),
        ("1 0 0 1", "1 0 1", "line 7: 3 coordinates and a weight were expected; got 3 words"),
        ("1 0 0 1", "1 zero 0 1", "control points from line 6 on: numbers were expected .*'zero'"),
        ("1 0 0 1", "1 nan 0 1", r"`control_points` must be finite; got nan at index \[1, 0, 1\]"),
        ("1 1 0 0.5", "1 1 0 -0.5", r"`weights` must be positive and finite; got -0.5 at index \[1, 1\]"),
        ("1 2 7 1\n0\n1\n", "", "2 × 3 control points were announced, but 5 are there"),
        ("1 2 7 1\n", "1 2 7 1\n1 3 7 1\n", "line 12: more control points than the 6 announced"),
    ],
)
def test_damage(old: str, new: str, cause: str, tmp_path: Path):
    refuse(tmp_path / "s.dat", TEXT.replace(old, new, 1), cause)


def test_one_patch_in_three_coordinates_at_most(tmp_path: Path):
    with pytest.raises(ValueError, match="holds one patch; got 2"):
        write_geometry(tmp_path / "s.dat", Surface(random(2, 4, 4, 3)))
    with pytest.raises(ValueError, match="at most three coordinates; got 4"):
        write_geometry(tmp_path / "s.dat", Curve(random(4, 4)))
    assert not list(tmp_path.iterdir())
