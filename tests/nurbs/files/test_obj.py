"""OBJ files: vertices on the patch, faces that turn with its normals, numbers that go on from patch to patch."""

from pathlib import Path

import pytest
import torch

from nurbs import GeometryError, circle, extrude, line, read_geometry, sphere, torus, write_geometry
from tests.nurbs.file_cases import VOLUMES


def parse(path: Path) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for words in map(str.split, path.read_text(encoding="ascii").splitlines()):
        found.setdefault(words[0], []).append(words[1:])
    return found


def numbers(rows: list[list[str]]) -> torch.Tensor:
    return torch.tensor([[float(word) for word in row] for row in rows], dtype=torch.float64)


def test_several_patches(tmp_path: Path):
    """A curve in the plane, two surfaces: each corner names position, parameters and normal of one point."""
    patches = [circle(), torus(), sphere(2.0)]
    found = parse(write_geometry(tmp_path / "p.obj", patches, subdivisions=3))
    v, vn = numbers(found["v"]), numbers(found["vn"])
    u, vt = numbers(found["vt"][:13])[:, 0], torch.nn.functional.pad(numbers(found["vt"][13:]), (0, 0, 13, 0))
    assert found["o"] == [["patch_0"], ["patch_1"], ["patch_2"]]
    assert (len(v), len(vt), len(vn)) == (13 + 169 + 13 * 7, len(v), len(v) - 13)
    lines = torch.tensor([[[int(n) for n in corner.split("/")] for corner in row] for row in found["l"]]) - 1
    assert lines.tolist() == [[[i, i], [i + 1, i + 1]] for i in range(12)]
    torch.testing.assert_close(v[:13, :2], circle()(u))
    faces = torch.tensor([[[int(n) for n in corner.split("/")] for corner in row] for row in found["f"]]) - 1
    assert (len(faces), faces.shape[1:]) == (144 + 72, (4, 3))
    for patch, corners in ((torus(), faces[:144]), (sphere(2.0), faces[144:])):
        x, uv, normal = v[corners[..., 0]], vt[corners[..., 1]], vn[corners[..., 2]]
        torch.testing.assert_close(x, patch.at(uv.reshape(-1, 2)).reshape(x.shape))
        torch.testing.assert_close(normal, patch.normal_at(uv.reshape(-1, 2)).reshape(x.shape))
        turned = torch.linalg.cross(x[:, 2] - x[:, 0], x[:, 3] - x[:, 1])
        assert ((turned * normal.sum(1)).sum(-1) > 0).all()


def test_surfaces_in_the_plane_and_other_ranges(tmp_path: Path):
    flat = extrude(line((0.0, 0.0), (2.0, 0.0)), (0.0, 1.0))
    flat = flat.replace(knots=tuple(3 * t + 1 for t in flat.knots))
    found = parse(write_geometry(tmp_path / "p.obj", flat))
    assert numbers(found["vn"]).unique(dim=0).tolist() == [[0, 0, 1]]
    assert numbers(found["v"]).amax(0).tolist() == [2, 1, 0]
    assert (numbers(found["vt"]).amin(0).tolist(), numbers(found["vt"]).amax(0).tolist()) == ([0, 0], [1, 1])
    assert len(found["f"]) == 64


def test_only_written_and_no_volumes(tmp_path: Path):
    with pytest.raises(ValueError, match="OBJ files hold curves and surfaces in two or three"):
        write_geometry(tmp_path / "p.obj", VOLUMES["box"])
    with pytest.raises(GeometryError, match=r"the ending '\.obj' is none of \.json"):
        read_geometry(write_geometry(tmp_path / "p.obj", torus()))
