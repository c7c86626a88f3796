"""What the tests of geometry files share: patches of every kind, files made by hand, comparison to the last bit."""

from pathlib import Path

import pytest
import torch

from nurbs import Surface, Volume, circle, read_geometry, sphere, torus
from nurbs.files.contents import PatchList
from nurbs.geometry.measure import measure
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


def step(instances: str, *, schema: str = "AUTOMOTIVE_DESIGN") -> str:
    """A STEP file with these instances."""
    head = f"FILE_DESCRIPTION((''),'2;1');\nFILE_NAME('','',(''),(''),'','','');\nFILE_SCHEMA(('{schema}'));\n"
    return f"ISO-10303-21;\nHEADER;\n{head}ENDSEC;\nDATA;\n{instances}\nENDSEC;\nEND-ISO-10303-21;\n"


def iges(entities: list[tuple[int, str, dict]], head: str = "1H,,1H;,") -> str:
    """A file made by hand of (entity, parameters, {field of the directory: value})."""
    lines, entries, parameters = [f"{'':72}S      1", f"{head:72}G      1"], [], []
    for kind, text, fields in entities:
        body = [text[k : k + 64] for k in range(0, len(text), 64)]
        first = [kind, len(parameters) + 1, 0, 0, 0, 0, fields.get("matrix", 0), 0, fields.get("status", "00000000")]
        second = [kind, 0, 0, len(body), fields.get("form", 0), "", "", "", 0]
        for row in (first, second):
            entries.append("".join(f"{value:>8}" for value in row) + f"D{len(entries) + 1:7}")
        parameters += [f"{line:64}{len(entries) - 1:8}P{len(parameters) + i + 1:7}" for i, line in enumerate(body)]
    end = f"S{1:7}G{1:7}D{len(entries):7}P{len(parameters):7}"
    return "\n".join([*lines, *entries, *parameters, f"{end:72}T      1", ""])


def read(path: Path, text: str | bytes, warns: str | None = None, **options) -> PatchList:
    """The patches of a file made of a text; a warning is expected where `warns` says what is in it."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if warns is None:
        return read_geometry(path, **options)
    with pytest.warns(UserWarning, match=warns) as said:
        found = read_geometry(path, **options)
    assert len(said) == 1
    return found


def size(patch: Patch) -> float:
    """Length or area."""
    return float(measure(patch))
