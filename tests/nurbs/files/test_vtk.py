"""VTK files: VTK itself evaluates the Bézier cells, and finds the shape and fields on them to round-off."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from nurbs import Curve, Surface, Volume, annulus, circle, extrude, sphere, torus, write_geometry
from nurbs.files.vtk import LARGEST_DEGREE, bezier_cells, node_order
from tests.nurbs.patches import PATCHES, knots, random

vtk = pytest.importorskip("vtk")
AT = [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.13, 0.71, 0.44), (0.9, 0.2, 0.05)]
EVERYTHING = {name: patch for name, patch in PATCHES.items() if name not in ("steps", "batch of knots")}
EVERYTHING["volume"] = PATCHES["volume"][0]
EVERYTHING["jump"] = Curve(random(8, 2), knots=knots(4))
EVERYTHING["degree 5 and 1"] = Surface(random(7, 3, 3), random(7, 3) + 0.5, degree=(5, 1))
EVERYTHING["degrees 3, 2, 4"] = Volume(random(5, 3, 6, 3), random(5, 3, 6) + 0.5, degree=(3, 2, 4))


def read(path: Path):
    reader = vtk.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def evaluate(grid, cell: int, at: tuple[float, ...], name: str | None = None) -> np.ndarray:
    """Position in a cell, or the value of a field there, by VTK's own basis functions."""
    subject = grid.GetCell(cell)
    weights, position = [0.0] * subject.GetNumberOfPoints(), [0.0] * 3
    subject.EvaluateLocation(vtk.reference(0), at, position, weights)
    if name is None:
        return np.array(position)
    array = grid.GetPointData().GetArray(name)
    return np.array(weights) @ np.array([array.GetTuple(subject.GetPointId(i)) for i in range(len(weights))])


def spans(patch) -> list[list[tuple[float, float]]]:
    """The boxes of parameters of the cells, the last direction fastest."""
    patch, boxes = patch.unwrapped(), [[]]
    for t, p in zip(patch.knots, patch.degree, strict=True):
        ends = t[p : len(t) - p].unique().tolist()
        boxes = [[*box, span] for box in boxes for span in pairwise(ends)]
    return boxes


@pytest.mark.parametrize("name", EVERYTHING)
def test_vtk_finds_the_patch_on_its_cells(name: str, tmp_path: Path):
    patch = EVERYTHING[name]
    values = random(*patch.shape, 2, seed=3)
    fields = {"a": values[..., 0], "b": values} if not any(patch.periodic) else None
    grid = read(write_geometry(tmp_path / "p.vtu", patch, fields=fields))
    boxes = spans(patch)
    assert grid.GetNumberOfCells() == len(boxes)
    lifted = patch.replace(control_points=torch.cat([patch.control_points, values], -1))
    for cell, box in enumerate(boxes):
        for at in AT:
            inside = [low + x * (high - low) * (1 - 1e-14) for x, (low, high) in zip(at, box, strict=False)]
            expected = lifted.at(torch.tensor([inside], dtype=torch.float64))[0].numpy()
            np.testing.assert_allclose(evaluate(grid, cell, at)[: patch.dim], expected[: patch.dim], atol=1e-13)
            if fields:
                np.testing.assert_allclose(evaluate(grid, cell, at, "a"), expected[-2:-1], atol=1e-13)
                np.testing.assert_allclose(evaluate(grid, cell, at, "b"), [*expected[-2:], 0], atol=1e-13)


def distance(points: np.ndarray, shape: str) -> np.ndarray:
    rho = np.hypot(points[:, 0], points[:, 1])
    return {
        "circle": rho - 1,
        "sphere": np.linalg.norm(points, axis=1) - 1,
        "torus": np.hypot(rho - 1, points[:, 2]) - 0.25,
        "pipe": np.maximum(rho - 2, 1 - rho).clip(0),
    }[shape]


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ("circle", circle()),
        ("sphere", sphere()),
        ("torus", torus()),
        ("pipe", extrude(annulus(center=(0.0, 0.0, 0.0)), (0.0, 0.0, 1.0))),
    ],
)
def test_round_shapes_are_round_in_vtk(shape: str, patch, tmp_path: Path):
    """What ParaView's "nonlinear subdivision" makes of the cells lies on the shape."""
    grid = read(write_geometry(tmp_path / "r.vtu", patch))
    found = [evaluate(grid, cell, at) for cell in range(grid.GetNumberOfCells()) for at in AT]
    assert abs(distance(np.array(found), shape)).max() < 2e-15
    surface = vtk.vtkDataSetSurfaceFilter()
    surface.SetNonlinearSubdivisionLevel(3)
    surface.SetInputData(grid)
    surface.Update()
    drawn = np.array([surface.GetOutput().GetPoint(i) for i in range(surface.GetOutput().GetNumberOfPoints())])
    if shape != "circle":
        assert len(drawn) > 4 * grid.GetNumberOfPoints() / 2
        assert abs(distance(drawn, shape)).max() < 1e-6  # it works in single precision


@pytest.mark.parametrize("degree", [(3, 2), (2, 5), (3, 2, 4), (1, 1, 1), (2, 2, 2), (4,)])
def test_nodes_are_numbered_as_in_vtk(degree: tuple[int, ...]):
    order = node_order(degree).tolist()
    assert sorted(order) == list(range(len(order)))
    if len(degree) == 1:
        assert order == [0, degree[0], *range(1, degree[0])]
        return
    cell = {2: vtk.vtkBezierQuadrilateral, 3: vtk.vtkBezierHexahedron}[len(degree)]
    for number, index in enumerate(np.ndindex(*[p + 1 for p in degree])):
        assert order[cell.PointIndexFromIJK(*index, degree)] == number


def test_neighbours_share_nodes_but_not_across_jumps():
    curve = Curve(random(8, 2), knots=knots(1, 3))
    assert len(bezier_cells(curve)[0]) == 3 * 3 + 1
    assert len(bezier_cells(EVERYTHING["jump"])[0]) == 2 * 4


def test_several_patches_in_one_file(tmp_path: Path):
    """Of different kinds and degrees, rational or not; polynomial ones get weights 1, and fields one tensor each."""
    patches = [circle(), Surface(random(4, 5, 3), degree=(3, 1)), EVERYTHING["volume"]]
    fields = {'a " & <µ>': [random(*p.shape) for p in patches]}
    grid = read(write_geometry(tmp_path / "s.vtu", patches, fields=fields))
    number = grid.GetCellData().GetArray("patch")
    assert [int(number.GetValue(i)) for i in range(grid.GetNumberOfCells())] == [0] * 4 + [1] * 4 + [2] * 6
    assert grid.GetPointData().GetRationalWeights() is not None
    assert grid.GetPointData().GetArray('a " & <µ>').GetNumberOfTuples() == grid.GetNumberOfPoints()
    kinds = [grid.GetCellType(i) for i in range(grid.GetNumberOfCells())]
    assert kinds == [vtk.VTK_BEZIER_CURVE] * 4 + [vtk.VTK_BEZIER_QUADRILATERAL] * 4 + [vtk.VTK_BEZIER_HEXAHEDRON] * 6
    for cell, (patch, box) in enumerate([(p, box) for p in patches for box in spans(p)]):
        middle = torch.tensor([[(a + b) / 2 for a, b in box]], dtype=torch.float64)
        np.testing.assert_allclose(evaluate(grid, cell, AT[0])[: patch.dim], patch.at(middle)[0], atol=1e-14)


def test_polynomial_patches_have_no_weights(tmp_path: Path):
    grid = read(write_geometry(tmp_path / "p.vtu", Curve(random(5, 3))))
    assert grid.GetPointData().GetRationalWeights() is None
    assert grid.GetCellData().GetHigherOrderDegrees().GetTuple(0) == (3, 0, 0)


def test_straight_cells(tmp_path: Path):
    patches = [circle(), torus(), EVERYTHING["volume"]]
    path = write_geometry(
        tmp_path / "s.vtu",
        patches,
        subdivisions=4,
        fields={"f": [p.control_points for p in patches[:1]] + [random(*p.shape, 2) for p in patches[1:]]},
    )
    grid = read(path)
    kinds = [grid.GetCellType(i) for i in range(grid.GetNumberOfCells())]
    assert kinds == [vtk.VTK_LINE] * 16 + [vtk.VTK_QUAD] * 256 + [vtk.VTK_HEXAHEDRON] * (6 * 4**3)
    assert grid.GetPointData().GetRationalWeights() is None
    points = np.array([grid.GetPoint(i) for i in range(17)])
    values = np.array([grid.GetPointData().GetArray("f").GetTuple(i) for i in range(17)])
    np.testing.assert_array_equal(points, values)  # the control points as a field are the map


def test_the_file_is_sound_xml(tmp_path: Path):
    root = ElementTree.parse(write_geometry(tmp_path / "x.vtu", torus())).getroot()
    assert root.attrib["version"] == "2.1"
    assert root.find("*/*/PointData").attrib == {"RationalWeights": "RationalWeights"}


def test_what_vtk_files_cannot_hold(tmp_path: Path):
    path = tmp_path / "x.vtu"
    steep = Curve(random(12, 2), degree=11)
    with pytest.raises(ValueError, match=rf"degree 1 to {LARGEST_DEGREE} .* got degree \(11,\) in 2\. Write straight"):
        write_geometry(path, steep)
    with pytest.raises(ValueError, match=r"in at most three dimensions; got degree \(3,\) in 4"):
        write_geometry(path, Curve(random(4, 4)), subdivisions=2)
    for fields in (
        {"f": random(3)},
        {"f": [random(9), random(9)]},
        {"f": random(9, 2, 2)},
        {"RationalWeights": random(9)},
    ):
        with pytest.raises(ValueError, match=r"field .(f|RationalWeights). needs"):
            write_geometry(path, circle(), fields=fields)
    assert not list(tmp_path.iterdir())
    write_geometry(path, steep, subdivisions=2)
