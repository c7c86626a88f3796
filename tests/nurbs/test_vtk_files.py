"""VTK's own Bézier cells give the points of the patch: exactly, for every kind and degree."""

from itertools import product

import numpy as np
import pytest
import torch

from nurbs import Curve, Surface, circle, extrude, permute, sphere, torus, write_geometry
from nurbs.vtk_files import node_order
from tests.fem.test_vtk import evaluate_with_vtk, read_with_vtk
from tests.nurbs.patches import PATCHES, knots, random

PATCHES = {
    "circle": circle(2.0),
    "sphere": sphere(2.0),
    "polynomial": Surface(random(6, 5, 3), None, (knots(1, 1), None), (3, 2)),
    "jump": Curve(random(8, 2), random(8) + 0.5, torch.tensor([0, 0, 0, 0.5, 0.5, 0.5, 0.7, 0.7, 1, 1, 1]).double(), 2),
    "periodic": PATCHES["periodic"],
    "volume": extrude(Surface(random(4, 5, 3), random(4, 5) + 0.5, degree=(2, 3)), (0.0, 0.1, 1.0)),
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_vtk_evaluates_the_patch(patch, tmp_path):
    field = random(*patch.shape, seed=3)
    if any(patch.periodic):
        fields, r = None, patch.directions
    else:
        fields, r = {"field": field}, patch.directions
    grid = read_with_vtk(write_geometry(tmp_path / "patch.vtu", patch, fields=fields))
    spans = [t[p : len(t) - p].unique() for t, p in zip(patch.unwrapped_knots, patch.degree, strict=True)]
    assert grid.GetNumberOfCells() == np.prod([len(t) - 1 for t in spans])
    cells = product(*[range(len(t) - 1) for t in spans])
    for cell, index in enumerate(cells):
        for at in ([0.0] * r, [0.2, 0.7, 0.9][:r], [1.0] * r):
            inside = [torch.lerp(t[k], t[k + 1], 0.999999999 * x) for t, k, x in zip(spans, index, at, strict=True)]
            wanted = patch(*[x[None] for x in inside]).flatten()
            name = "field" if fields else grid.GetPointData().GetArrayName(0)
            position, value = evaluate_with_vtk(grid, name, cell, np.array(at))
            assert np.abs(position[: patch.dim] - wanted.numpy()).max() < 1e-7
            if fields:
                exact = patch.replace(control_points=field[..., None])(*[x[None] for x in inside]).item()
                assert abs(value - exact) < 1e-7


@pytest.mark.parametrize("patch", [circle(2.0), sphere(2.0)])
def test_round_shapes_are_round_in_vtk(patch, tmp_path):
    grid = read_with_vtk(write_geometry(tmp_path / "round.vtu", patch))
    for cell in range(grid.GetNumberOfCells()):
        for at in np.random.default_rng(cell).random((5, patch.directions)):
            position, _ = evaluate_with_vtk(grid, "RationalWeights", cell, at)
            assert abs(np.linalg.norm(position) - 2) < 1e-14


def test_degrees_may_differ_between_directions_and_patches(tmp_path):
    patches = [
        Surface(random(2, 5, 2), degree=(1, 4)),
        permute(Surface(random(2, 5, 2), degree=(1, 4)), (1, 0)),
        torus(),
    ]
    grid = read_with_vtk(write_geometry(tmp_path / "several.vtu", patches))
    assert grid.GetNumberOfCells() == 2 + 16
    degrees = grid.GetCellData().GetHigherOrderDegrees()
    assert degrees.GetTuple(0)[:2] == (1, 4)
    assert degrees.GetTuple(1)[:2] == (4, 1)
    for cell in range(2):
        position, _ = evaluate_with_vtk(grid, "RationalWeights", cell, np.array([0.3, 0.6]))
        at = torch.tensor([[0.3, 0.6]], dtype=torch.float64)
        assert np.abs(position[:2] - patches[cell].at(at)[0].numpy()).max() < 1e-14


@pytest.mark.parametrize("r", [1, 2, 3])
def test_nodes_are_all_there_once(r):
    order = node_order((2, 3, 4)[:r])
    assert len({tuple(row) for row in order.tolist()}) == np.prod([3, 4, 5][:r])
    corners = [[0, 0, 0], [2, 0, 0], [2, 3, 0], [0, 3, 0], [0, 0, 4], [2, 0, 4], [2, 3, 4], [0, 3, 4]]
    assert order[: 2**r].tolist() == [row[:r] for row in corners[: 2**r]]


def test_straight_cells_on_request(tmp_path):
    grid = read_with_vtk(write_geometry(tmp_path / "plain.vtu", sphere(), subdivisions=3))
    assert grid.GetNumberOfCells() == (4 * 3) * (2 * 3)
    assert grid.GetPointData().GetArray("RationalWeights") is None


def test_errors_name_what_was_given(tmp_path):
    path = tmp_path / "a.vtu"
    with pytest.raises(ValueError, match=r"degree 1 to 10 in at most three dimensions; got degree \(0,\) in 1"):
        write_geometry(path, Curve(random(4, 1), degree=0))
    with pytest.raises(ValueError, match=r"field 't' needs coefficients"):
        write_geometry(path, circle(), fields={"t": random(8)})
    with pytest.raises(ValueError, match="and a free name"):
        write_geometry(path, circle(), fields={"RationalWeights": random(9)})
