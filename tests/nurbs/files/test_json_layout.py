"""JSON in geomdl's layout: geomdl reads ours, we read its, and damage is named with the patch."""

import json
from pathlib import Path

import pytest
import torch

from nurbs import Curve, Surface, circle, read_geometry, torus, write_geometry
from nurbs.files.json_layout import TYPES
from tests.nurbs.file_cases import CURVES, SURFACES, VOLUMES, assert_equal, refuse
from tests.nurbs.patches import random

ALL = {"curve": [*CURVES.values()], "surface": [*SURFACES.values()], "volume": [*VOLUMES.values()]}


@pytest.mark.parametrize("kind", TYPES)
def test_round_trip(kind: str, tmp_path: Path):
    path = write_geometry(tmp_path / "p.json", ALL[kind])
    assert_equal(read_geometry(path), ALL[kind])
    assert json.loads(path.read_text())["shape"]["type"] == kind


@pytest.mark.parametrize("kind", TYPES)
def test_geomdl_reads_what_we_write_and_we_what_it_writes(kind: str, tmp_path: Path):
    exchange = pytest.importorskip("geomdl.exchange")
    patches = ALL[kind]
    theirs = exchange.import_json(str(write_geometry(tmp_path / "ours.json", patches)))
    for patch, other in zip(patches, theirs, strict=True):
        lines = [torch.linspace(0.05, 0.95, 4, dtype=torch.float64) for _ in patch.degree]
        lines = [torch.lerp(a, b, x) for x, (a, b) in zip(lines, patch.domain(), strict=True)]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(-1, patch.directions)
        first, last = (torch.stack([t[k] for t in patch.knots]) for k in (0, -1))
        at = ((grid - first) / (last - first)).tolist()  # geomdl scales knots to [0, 1]
        found = [other.evaluate_single(x[0] if len(x) == 1 else x) for x in at]
        expected, scale = patch.at(grid), float(patch.control_points.abs().max())
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=0, atol=1e-13 * scale)
        exchange.export_json(other, str(tmp_path / "theirs.json"))
        (again,) = read_geometry(tmp_path / "theirs.json")
        assert (type(again), again.degree, again.shape) == (type(patch), patch.degree, patch.shape)
        torch.testing.assert_close(again.control_points, patch.control_points, rtol=1e-14, atol=0)
        assert again.weights is None or torch.equal(again.weights, patch.weights)


def one(**changes) -> str:
    """A parabola, with changes; None leaves an entry out."""
    points = {"points": [[0, 0], [1, 2], [2, 0]], "weights": [1, 0.5, 1]}
    item = {"degree": 2, "knotvector": [0, 0, 0, 1, 1, 1], "control_points": points} | changes
    item = {key: value for key, value in item.items() if value is not None}
    return json.dumps({"shape": {"type": "curve", "data": [item]}})


def test_the_parabola_of_the_tests_of_damage_is_sound(tmp_path: Path):
    (tmp_path / "p.json").write_text(one())
    (curve,) = read_geometry(tmp_path / "p.json")
    assert curve(torch.tensor([0.5], dtype=torch.float64)).tolist() == [[1, pytest.approx(2 / 3)]]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "it is empty"),
        ('{"shape":\n {"type": ', "line 2: Expecting value"),
        ("[" * 100000, "no JSON that can be read"),
        ("[1]", "the file: 'shape' is missing"),
        ('{"shape": 3}', "\"shape\": 'type' is missing"),
        ('{"shape": {"type": "mesh", "data": []}}', "must be one of curve, surface, volume; got 'mesh'"),
        ('{"shape": {"type": "curve", "data": 3}}', '"data" must be a list'),
        ('{"shape": {"type": "curve", "data": []}}', "it holds no curve, surface or volume"),
        ('{"shape": {"type": "curve", "data": [3]}}', "curve 0: 'degree' is missing"),
        (one(degree=None), "curve 0: 'degree' is missing"),
        (one(degree="two"), "curve 0, degree: numbers were expected"),
        (one(degree=[2, 2]), "curve 0, degree: one number was expected; got 2"),
        (one(degree=1.5), "curve 0, degree: whole numbers were expected"),
        (one(degree=3), "curve 0: `Curve` of degree 3 in u needs"),
        (one(knotvector=[0, 0, 1, 1]), "curve 0: 3 control points of degree 2 in u need 6 knots"),
        (one(knotvector={}), "curve 0, knots: numbers were expected"),
        (one(knotvector=[0, 0, 0, 1, 1, None]), "curve 0: .*knots"),
        (one(control_points=[]), "curve 0: 'points' is missing"),
        (one(control_points={"points": [1, 2, 3]}), "curve 0: a list of control points was expected"),
        (one(control_points={"points": [[1, 2], [3]]}), "curve 0, control points: numbers were expected"),
        (one(control_points={"points": [[0, 0], [1, float("nan")], [2, 0]]}), r"must be finite; got nan at index \[1"),
        (one(control_points={"points": [[0, 0]] * 3, "weights": [1, 2]}), r"got 3, and weights of shape \(2,\)"),
        (one(control_points={"points": [[0, 0]] * 3, "weights": [1, 0, 1]}), "`weights` must be positive"),
        (one().replace("curve", "surface"), "surface 0: 'degree_u' is missing"),
    ],
)
def test_damage(text: str, cause: str, tmp_path: Path):
    refuse(tmp_path / "p.json", text, cause)


def test_sizes_that_do_not_fit(tmp_path: Path):
    text = write_geometry(tmp_path / "s.json", torus()).read_text()
    refuse(
        tmp_path / "s.json", text.replace('"size_u": 9', '"size_u": 8'), "8 × 9 control points were announced; got 81"
    )


def test_one_kind_in_a_file(tmp_path: Path):
    with pytest.raises(ValueError, match="curves, surfaces or volumes only; write one file for each"):
        write_geometry(tmp_path / "p.json", [circle(), torus()])
    batch = Surface(random(2, 4, 4, 4))  # four coordinates are fine here
    assert_equal(read_geometry(write_geometry(tmp_path / "p.json", batch)), [batch[0], batch[1]])
    assert_equal(read_geometry(write_geometry(tmp_path / "p.json", Curve(random(4, 1)))), [Curve(random(4, 1))])
