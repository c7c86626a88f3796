"""VTK files: VTK itself reads back the polynomials written, on every cell, degree and geometry; nothing is lost when
writing fails."""

import os
from pathlib import Path
from xml.etree import ElementTree

import meshio
import numpy as np
import pytest
import torch
from torch import Tensor

from fem.files.reading import read_mesh
from fem.forms.integrals import integrate
from fem.mesh.generators import box, unit_interval, unit_square
from fem.mesh.mesh import Mesh
from fem.output.vtk import TimeSeries, write_pvd, write_vtk
from fem.reference.cells import CELLS
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.reference.spline_element import BSpline
from fem.space.space import FunctionSpace, MixedSpace

DTYPE = torch.float64


def a_mesh(cell: str, degree: int = 1, curved: bool = False) -> Mesh:
    """Two cells per direction with geometry of the given degree, bent or straight."""
    dim = CELLS[cell].dim
    mesh = box((0.0,) * dim, (1.0,) * dim, (2,) * dim, cell=cell)
    return mesh.curved(degree, lambda x: x + 0.1 * torch.sin(2 * x.flip(-1) + 1) if curved else x)


def polynomial(x: Tensor, degree: int) -> Tensor:
    weights = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    return 1 + (x @ weights) ** degree + x[..., 0] ** degree


def read_with_vtk(path: Path):
    vtk = pytest.importorskip("vtk")
    reader = vtk.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def evaluate_with_vtk(grid, name: str, cell: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and value of a field inside one cell, by VTK's own parametric map and interpolation."""
    subject = grid.GetCell(cell)
    weights, position = [0.0] * subject.GetNumberOfPoints(), [0.0] * 3
    subject.EvaluateLocation(pytest.importorskip("vtk").reference(0), [*at, *[0.0] * (3 - len(at))], position, weights)
    array = grid.GetPointData().GetArray(name)
    values = np.array([array.GetTuple(subject.GetPointId(i)) for i in range(len(weights))])
    return np.array(position), np.array(weights) @ values


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_vtk_interpolates_what_was_written(cell: str, degree: int, curved: bool, tmp_path: Path):
    mesh = a_mesh(cell, degree, curved)
    V = FunctionSpace(mesh, Lagrange(degree))
    u = torch.randn(V.num_dofs, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    grid = read_with_vtk(write_vtk(tmp_path / "u.vtu", V, {"u": u}))
    assert grid.GetNumberOfCells() == mesh.num_cells
    assert grid.GetNumberOfPoints() == V.num_nodes
    points = torch.rand(3, mesh.dim, dtype=DTYPE, generator=torch.Generator().manual_seed(1)) / mesh.dim
    position, _, _ = mesh.map(0, None, points)
    table = lagrange_element(CELLS[cell], degree).tabulate(points, 0).value[0]
    value = u[V.cell_dofs[0]] @ table.T
    for e in range(mesh.num_cells):
        for q, at in enumerate(points.numpy()):
            found, field = evaluate_with_vtk(grid, "u", e, at)
            np.testing.assert_allclose(found[: mesh.dim], position[e, q], atol=1e-12)
            np.testing.assert_allclose(field[0], value[e, q], atol=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_probing_finds_the_polynomial(cell: str, degree: int, tmp_path: Path):
    vtk = pytest.importorskip("vtk")
    V = FunctionSpace(a_mesh(cell), Lagrange(degree))
    grid = read_with_vtk(write_vtk(tmp_path / "u.vtu", V, {"u": V.interpolate(lambda x: polynomial(x, degree))}))
    at = 0.05 + 0.9 * torch.rand(20, V.mesh.dim, dtype=DTYPE, generator=torch.Generator().manual_seed(2))
    where, cloud = vtk.vtkPoints(), vtk.vtkPolyData()
    where.SetDataTypeToDouble()
    for x in at.tolist():
        where.InsertNextPoint(*x, *[0.0] * (3 - len(x)))
    cloud.SetPoints(where)
    probe = vtk.vtkProbeFilter()
    probe.SetInputData(cloud)
    probe.SetSourceData(grid)
    probe.Update()
    found = probe.GetOutput().GetPointData()
    assert all(found.GetArray(probe.GetValidPointMaskArrayName()).GetTuple1(i) == 1 for i in range(len(at)))
    values = [found.GetArray("u").GetTuple1(i) for i in range(len(at))]
    # VTK inverts the map of a quadratic tetrahedron by an iteration that it stops at about 1e-5.
    np.testing.assert_allclose(
        values, polynomial(at, degree), rtol=1e-4 if (cell, degree) == ("tetrahedron", 2) else 1e-12
    )


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_round_trip_through_a_file(cell: str, degree: int, curved: bool, tmp_path: Path):
    mesh = a_mesh(cell, degree, curved)
    V = FunctionSpace(mesh, Lagrange(degree))
    material = torch.arange(mesh.num_cells) % 2
    again = read_mesh(write_vtk(tmp_path / "m.vtu", V, {}, {"material": material}))
    assert [(b.cell.name, b.degree) for b in again.blocks] == [(cell, degree)]
    W = FunctionSpace(again, Lagrange(degree))

    def moment(x: Tensor) -> Tensor:
        return x.square().sum(-1)

    torch.testing.assert_close(again.nodes[again.cells], V.dof_coordinates[V.cell_dofs[0]], atol=1e-14, rtol=0)
    torch.testing.assert_close(integrate(W, moment), integrate(V, moment))
    assert len(again.topology.boundary) == len(mesh.topology.boundary)
    assert torch.equal(again.cell_tags["1"], torch.nonzero(material).flatten())


def test_low_degree_fields_and_high_degree_geometry_meet(tmp_path: Path):
    mesh = a_mesh("triangle", 3, curved=True)
    V, W = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(mesh, Lagrange(2), components=2)
    Z = FunctionSpace(mesh, Lagrange(3))
    u, w = torch.randn(V.shape, dtype=DTYPE), torch.randn(W.shape, dtype=DTYPE)
    grid = meshio.read(write_vtk(tmp_path / "u.vtu", V, {"u": u, "w": W.function(w)}))
    assert [block.type for block in grid.cells] == ["VTK_LAGRANGE_TRIANGLE"]
    inner = Z.cell_dofs[0][:, -1]  # the cubic node at the centre of each triangle
    centre = torch.full((1, 2), 1 / 3, dtype=DTYPE)
    for name, space, values in (("u", V, u[:, None]), ("w", W, w)):
        table = space.elements[0].tabulate(centre, 0).value[0]
        expected = (table @ values[space.cell_dofs[0]])[:, 0]
        np.testing.assert_allclose(
            grid.point_data[name].reshape(Z.num_nodes, -1)[inner, : expected.shape[1]], expected, atol=1e-13
        )
    assert grid.point_data["w"].shape == (Z.num_nodes, 3)
    assert not grid.point_data["w"][:, 2].any()


def test_mixed_meshes_and_mixed_spaces(tmp_path: Path):
    nodes = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [2, 0]], dtype=DTYPE)
    mesh = Mesh(nodes, {"quadrilateral": torch.tensor([[0, 1, 2, 3]]), "triangle": torch.tensor([[1, 4, 2]])})
    V = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    up = torch.randn(V.num_dofs, dtype=DTYPE, requires_grad=True)
    fields = {name: W.function(part) for name, W, part in zip("up", V.fields, V.split(up), strict=True)}
    path = write_vtk(tmp_path / "up.vtu", V, fields, {"p0": torch.tensor([1.0, 2.0]), "flux": torch.ones(2, 2)})
    grid = meshio.read(path)
    assert [(block.type, len(block)) for block in grid.cells] == [("quad9", 1), ("triangle6", 1)]
    np.testing.assert_array_equal(grid.point_data["u"][:, :2], V.split(up)[0].detach())
    np.testing.assert_array_equal(grid.cell_data["p0"], [[1.0], [2.0]])
    assert grid.cell_data["flux"][1].shape == (1, 3)
    with pytest.raises(ValueError, match=r"'up' lives in a mixed space; pass its parts"):
        write_vtk(path, V, {"up": up})


def test_splines_are_written_exactly(tmp_path: Path):
    mesh = unit_square(3, 2)
    V = FunctionSpace(mesh, BSpline.uniform((3, 2), (2, 3)))
    u = torch.randn(V.num_dofs, dtype=DTYPE)
    grid = meshio.read(write_vtk(tmp_path / "s.vtu", V, {"u": u}))
    element = lagrange_element(CELLS["quadrilateral"], 3)
    dofs, _ = mesh.topology.lagrange_numbering(3)
    at = torch.rand(4, 2, dtype=DTYPE)
    expected = V.elements[0].tabulate(at, 0).value @ u[V.cell_dofs[0]][..., None]
    found = torch.tensor(grid.point_data["u"])[dofs[0]] @ element.tabulate(at, 0).value[0].T
    torch.testing.assert_close(found, expected[..., 0])
    jumps = FunctionSpace(unit_interval(2), BSpline([torch.tensor([0, 0, 0.5, 0.5, 1, 1], dtype=DTYPE)], (1,)))
    with pytest.raises(ValueError, match="'u' jumps between cells"):
        write_vtk(tmp_path / "s.vtu", jumps, {"u": torch.arange(4, dtype=DTYPE)})


def test_types_and_special_values_survive(tmp_path: Path):
    V = FunctionSpace(unit_square(2, dtype=torch.float32), Lagrange(1))
    u = torch.arange(9, dtype=torch.float32)
    u[4] = torch.nan
    fields = {"single": u, "half": u.half(), "whole": torch.arange(9), "logical": u > 3}
    grid = meshio.read(write_vtk(tmp_path / "u.vtu", V, fields))
    assert {name: values.dtype.name for name, values in grid.point_data.items()} == {
        "single": "float32",
        "half": "float32",
        "whole": "int64",
        "logical": "uint8",
    }
    assert grid.points.dtype == np.float32
    np.testing.assert_array_equal(grid.point_data["single"], u)
    assert b"vtkZLibDataCompressor" in (tmp_path / "u.vtu").read_bytes()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_writes_the_same_file(tmp_path: Path):
    V = FunctionSpace(a_mesh("hexahedron", 2, curved=True), Lagrange(3))
    u = V.interpolate(lambda x: polynomial(x, 2))
    low, material = FunctionSpace(V.mesh, Lagrange(1)).function(V.mesh.nodes[:27, 0]), torch.arange(8)
    expected = write_vtk(tmp_path / "cpu.vtu", V, {"u": u, "low": low}, {"m": material})
    G = V.to("cuda")
    fields = {"u": u.cuda(), "low": FunctionSpace(G.mesh, Lagrange(1)).function(low.values.cuda())}
    found = write_vtk(tmp_path / "gpu.vtu", G, fields, {"m": material.cuda()})
    one, other = meshio.read(expected), meshio.read(found)
    np.testing.assert_allclose(one.points, other.points, atol=1e-14)
    for name in fields:
        np.testing.assert_allclose(one.point_data[name], other.point_data[name], atol=1e-12)


def test_what_does_not_fit_is_named(tmp_path: Path):
    V = FunctionSpace(unit_square(2), Lagrange(1))
    good, path = torch.zeros(9, dtype=DTYPE), tmp_path / "u.vtu"
    with pytest.raises(ValueError, match=r"must end in \.vtu; got .*u\.vtk"):
        write_vtk(tmp_path / "u.vtk", V, {"u": good})
    with pytest.raises(ValueError, match=r"'u' is a batch of shape \(5,\); pick an item.*write_pvd"):
        write_vtk(path, V, {"u": good.expand(5, 9)})
    with pytest.raises(ValueError, match=r"'u' must have the shape \(9,\) of its space; got \(8,\)"):
        write_vtk(path, V, {"u": good[1:]})
    with pytest.raises(TypeError, match=r"'u' must be a tensor of dofs or|violates type hint"):
        write_vtk(path, V, {"u": 1.0})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'u' is over another mesh"):
        write_vtk(path, V, {"u": FunctionSpace(unit_square(2), Lagrange(1)).function(good)})
    with pytest.raises(ValueError, match=r"cell data 'k' must be a tensor of shape \(4,\), \(4, c\) or .* got \(9,\)"):
        write_vtk(path, V, {}, {"k": good})
    with pytest.raises(TypeError, match=r"written from a function space; got Mesh|violates type hint"):
        write_vtk(path, V.mesh, {})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_failures_keep_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    V = FunctionSpace(unit_square(1), Lagrange(1))
    path = write_vtk(tmp_path / "u.vtu", V, {"u": torch.zeros(4, dtype=DTYPE)})
    before = path.read_bytes()

    def interrupted(self, target, **_):
        Path(target).write_text("half a fi")
        raise KeyboardInterrupt

    def full(self, target, **_):
        raise OSError(28, "No space left on device")

    for broken, error in ((interrupted, KeyboardInterrupt), (full, OSError)):
        monkeypatch.setattr(meshio.Mesh, "write", broken)
        with pytest.raises(error):
            write_vtk(path, V, {"u": torch.ones(4, dtype=DTYPE)})
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path):
    V = FunctionSpace(unit_square(1), Lagrange(1))
    with pytest.raises(FileNotFoundError, match=r"cannot write .*u\.vtu .*make the directory .*missing' first"):
        write_vtk(tmp_path / "missing" / "u.vtu", V, {})
    with pytest.raises(FileNotFoundError, match="make the directory"):
        write_pvd(tmp_path / "missing" / "u.pvd", V, [0.0], {})
    (tmp_path / "a.vtu").mkdir()
    with pytest.raises(IsADirectoryError, match="choose a place that you can write to"):
        write_vtk(tmp_path / "a.vtu", V, {})
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="choose a place that you can write to"):
            write_vtk(tmp_path / "locked" / "u.vtu", V, {})


def test_time_series(tmp_path: Path):
    V = FunctionSpace(unit_square(2), Lagrange(2))
    times = torch.tensor([0.0, 0.1, 0.5], dtype=DTYPE)
    u = times[:, None] * V.interpolate(lambda x: x[:, 0])
    W = FunctionSpace(V.mesh, Lagrange(1), components=2)
    w = W.function(times[:, None, None] * torch.ones(W.shape, dtype=DTYPE))
    path = write_pvd(tmp_path / "run.pvd", V, times, {"u": u, "w": w}, {"k": times[:, None].expand(3, 4)})
    entries = ElementTree.parse(path).getroot().findall(".//DataSet")
    assert [float(entry.get("timestep", "nan")) for entry in entries] == times.tolist()
    for entry, values, time in zip(entries, u, times, strict=True):
        grid = meshio.read(tmp_path / entry.get("file", ""))
        np.testing.assert_array_equal(grid.point_data["u"], values)
        np.testing.assert_allclose(grid.point_data["w"][:, 0], time)
        np.testing.assert_array_equal(grid.cell_data["k"], time.expand(1, 4))
    with pytest.raises(ValueError, match=r"'u' needs a leading axis of 2 times; got shape \(3, 25\)"):
        write_pvd(path, V, [0.0, 1.0], {"u": u})
    with pytest.raises(ValueError, match="one or more finite times"):
        write_pvd(path, V, [0.0, float("nan")], {"u": u[:2]})
    with pytest.raises(ValueError, match=r"must end in \.pvd"):
        write_pvd(tmp_path / "run.vtu", V, times, {"u": u})


def test_a_series_grows_and_can_be_read_at_any_time(tmp_path: Path) -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    series = TimeSeries(tmp_path / "u.pvd", V)
    for i, time in enumerate((0.0, 0.5, 2.0)):
        u = torch.full(V.shape, float(i), dtype=V.dtype)
        file = series.write(time, {"u": u})
        np.testing.assert_array_equal(meshio.read(file).point_data["u"], u.numpy())
        assert (tmp_path / "u.pvd").read_text().count("DataSet") == i + 1
    assert 'timestep="0.5" file="u/u_0001.vtu"' in (tmp_path / "u.pvd").read_text()
    with pytest.raises(ValueError, match=r"must end in \.pvd"):
        TimeSeries(tmp_path / "u.vtu", V)
