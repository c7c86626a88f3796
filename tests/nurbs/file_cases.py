"""What the tests of geometry files share: patches of every kind in space, and comparison to the last bit."""

from pathlib import Path

import pytest
import torch

from nurbs import Surface, Volume, circle, read_geometry, sphere, torus
from nurbs.geometry.patch import Patch
from tests.nurbs.patches import PATCHES, random

SHARED = Path(__file__).parents[3] / "shared" / "nurbs"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared geometry is not here")

SURFACES = {
    "sphere": sphere(2.0, (1.0, -1.0, 1 / 3)),
    "torus": torus(),
    "polynomial": Surface(random(4, 5, 3) * 1e3 - 500, degree=(3, 1)),
    "unwrapped": PATCHES["surface"].unwrapped(),
}
CURVES = {"circle": circle(center=(0.0, 0.0, 1.0)), "unclamped": PATCHES["unclamped"], "tiny": PATCHES["curve"]}
CURVES["tiny"] = CURVES["tiny"].replace(control_points=CURVES["tiny"].control_points * 1e-20)
VOLUMES = {"volume": PATCHES["volume"][0], "box": Volume(random(2, 3, 4, 3), degree=1)}


def in_space(patch: Patch) -> Patch:
    return patch.replace(control_points=torch.nn.functional.pad(patch.control_points, (0, 3 - patch.dim)))


def assert_equal(found: list, expected: list) -> None:
    """Kind, degrees, knots, weights and control points are the same, bit by bit."""
    assert len(found) == len(expected)
    for patch, other in zip(found, expected, strict=True):
        assert (type(patch), patch.degree) == (type(other), other.degree)
        assert torch.equal(patch.control_points, other.control_points)
        assert all(torch.equal(s, t) for s, t in zip(patch.knots, other.knots, strict=True))
        assert (patch.weights is None) == (other.weights is None)
        assert patch.weights is None or torch.equal(patch.weights, other.weights)


def refuse(path: Path, text: str | bytes, cause: str) -> None:
    """The file cannot be read: one error with its name, and this cause."""
    from nurbs import GeometryError

    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(GeometryError, match=cause) as error:
        read_geometry(path)
    assert str(error.value).startswith(f"cannot read {path}: ")
