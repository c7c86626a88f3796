"""Data in files come back as the functions that they were written from, to the last digit, whoever wrote them."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch
from torch import Tensor

from fem.files.reading import read_mesh
from fem.forms.constraints import Dirichlet
from fem.forms.energy import Energy
from fem.mesh.generators import box, unit_square
from fem.mesh.mesh import Mesh
from fem.output.vtk import KINDS, write_vtk
from fem.reference.discontinuous import Discontinuous
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace

CELLS = {"interval": 1, "triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 3}


def parabola(x: Tensor) -> Tensor:
    return x[..., 0] + x[..., -1] ** 2


def grid(cell: str) -> Mesh:
    dim = CELLS[cell]
    return box((0.0,) * dim, (1.0,) * dim, (2,) * dim, cell=cell)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("geometry", [1, 2, 3])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_what_ritz_writes(cell: str, geometry: int, degree: int, tmp_path: Path):
    mesh = grid(cell).curved(geometry, lambda x: x + 0.05 * torch.sin(3 * x.flip(-1)) if geometry > 1 else x)
    V, W = FunctionSpace(mesh, Lagrange(degree)), FunctionSpace(mesh, Lagrange(degree), components=2)
    u = V.interpolate(parabola)
    eta = torch.arange(mesh.num_cells, dtype=torch.float64) / 7
    w = W.function(torch.stack([u, 2 * u], -1))
    write_vtk(tmp_path / "u.vtu", V, {"u": u, "w": w}, {"eta": eta, "part": eta > 0.1})
    again, data = read_mesh(tmp_path / "u.vtu", fields=True)
    space = FunctionSpace(again, Lagrange(max(geometry, degree)))
    points = mesh.map(0, None, torch.rand(3, mesh.dim, generator=torch.Generator().manual_seed(0)) / 3)[0]
    points = points.flatten(0, 1).double()
    torch.testing.assert_close(space.evaluate(data["u"], points), V.evaluate(u, points), atol=1e-12, rtol=0)
    if geometry == 1 and degree > 1:
        torch.testing.assert_close(data["u"], space.interpolate(parabola), atol=1e-14, rtol=0)
    torch.testing.assert_close(data.dofs("u", FunctionSpace(again, Lagrange(degree))).sort().values, u.sort().values)
    torch.testing.assert_close(
        data.dofs("w", FunctionSpace(again, Lagrange(3), components=2))[:, 1],
        2 * data.dofs("u", FunctionSpace(again, Lagrange(3))),
    )
    assert torch.equal(data["eta"], eta)
    assert data["part"].tolist() == (eta > 0.1).long().tolist()


@pytest.mark.parametrize("cell", CELLS)
def test_what_meshio_writes(cell: str, tmp_path: Path):
    """Nodes in any order, one that no cell uses, cells of either orientation, z without use."""
    mesh = grid(cell).curved(2)
    order = torch.randperm(mesh.num_nodes, generator=torch.Generator().manual_seed(1))
    points = np.full((mesh.num_nodes + 1, 3), 0.25)
    points[order.numpy(), : mesh.dim] = mesh.nodes.numpy()
    u = points[:, 0] + points[:, mesh.dim - 1] ** 2
    cells = order[mesh.cells].numpy()
    contents = meshio.Mesh(points, [(KINDS[cell][1], cells)], {"u": u, "v": np.stack([u, -u, 0 * u], 1)})
    contents.write(tmp_path / "m.vtu")
    again, data = read_mesh(tmp_path / "m.vtu", fields=True)
    V = FunctionSpace(again, Lagrange(2))
    torch.testing.assert_close(data["u"], V.interpolate(parabola), atol=1e-14, rtol=0)
    assert tuple(data["v"].shape) == (V.num_nodes, 2 if mesh.dim == 2 else 3)
    assert torch.equal(data["v"][:, 1], -data["u"])


@pytest.mark.parametrize("cell", CELLS)
def test_what_vtk_writes(cell: str, tmp_path: Path):
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import numpy_to_vtk  # pyright: ignore[reportMissingImports]

    mesh = grid(cell).curved(2)
    found = vtk.vtkUnstructuredGrid()
    points = vtk.vtkPoints()
    points.SetDataTypeToDouble()
    x = np.pad(mesh.nodes.numpy(), ((0, 0), (0, 3 - mesh.dim)))
    points.SetData(numpy_to_vtk(x, deep=True))
    found.SetPoints(points)
    kinds = {
        "interval": vtk.VTK_QUADRATIC_EDGE,
        "triangle": vtk.VTK_QUADRATIC_TRIANGLE,
        "quadrilateral": vtk.VTK_BIQUADRATIC_QUAD,
        "tetrahedron": vtk.VTK_QUADRATIC_TETRA,
        "hexahedron": vtk.VTK_TRIQUADRATIC_HEXAHEDRON,
    }
    for nodes in mesh.cells.tolist():
        found.InsertNextCell(kinds[cell], len(nodes), nodes)
    values = numpy_to_vtk(x[:, 0] + x[:, mesh.dim - 1] ** 2, deep=True)
    values.SetName("u")
    found.GetPointData().AddArray(values)
    writer = vtk.vtkXMLUnstructuredGridWriter()
    writer.SetInputData(found)
    writer.SetFileName(str(tmp_path / "m.vtu"))
    writer.Write()
    again, data = read_mesh(tmp_path / "m.vtu", fields=True)
    space = FunctionSpace(again, Lagrange(2))
    torch.testing.assert_close(data["u"], space.interpolate(parabola), atol=1e-14, rtol=0)


def test_mixed_cells(tmp_path: Path):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0.5, 0], [1, 1, 0], [0, 1, 0]])
    cells: list[Any] = [("triangle", [[1, 2, 3]]), ("quad", [[0, 1, 3, 4]]), ("line", [[0, 1]])]
    data: dict[str, Any] = {"stress": [np.array([[1.0, 2]]), np.array([[3.0, 4]]), np.array([[0.0, 0]])]}
    meshio.Mesh(points, cells, {"u": points[:, 0] - points[:, 1]}, data).write(tmp_path / "m.vtu")
    mesh, found = read_mesh(tmp_path / "m.vtu", fields=True, dtype=torch.float32)
    V = FunctionSpace(mesh, Lagrange(3))
    torch.testing.assert_close(found.dofs("u", V), V.interpolate(lambda x: x[:, 0] - x[:, 1]))
    assert found["stress"].tolist() == [[1, 2], [3, 4]]
    assert found["stress"].dtype == torch.float32
    assert [block.cell.name for block in mesh.blocks] == ["triangle", "quadrilateral"]


@pytest.mark.parametrize("kind", ["quad8", "hexahedron20"])
def test_serendipity_cells(kind: str, tmp_path: Path):
    """The nodes that these lack get the values of their own functions, of which u is one."""
    mesh = grid({"quad8": "quadrilateral", "hexahedron20": "hexahedron"}[kind]).curved(2)
    x = np.pad(mesh.nodes.numpy(), ((0, 0), (0, 3 - mesh.dim)))
    u = x[:, 0] + x[:, mesh.dim - 1] ** 2
    cells = mesh.cells[:, : int(kind.lstrip("adehnoqrux"))].numpy()
    meshio.Mesh(x, [(kind, cells)], {"u": u}).write(tmp_path / "m.vtu")
    again, data = read_mesh(tmp_path / "m.vtu", fields=True)
    torch.testing.assert_close(data["u"], FunctionSpace(again, Lagrange(2)).interpolate(parabola), atol=1e-14, rtol=0)


def test_discontinuous_spaces(tmp_path: Path):
    mesh = unit_square(3, cell="triangle")
    V = FunctionSpace(mesh, Lagrange(1))
    eta = torch.arange(18, dtype=torch.float64)
    write_vtk(
        tmp_path / "u.vtu", V, {"u": V.interpolate(lambda x: x[:, 0])}, {"eta": eta, "s": torch.stack([eta, -eta], 1)}
    )
    mesh, data = read_mesh(tmp_path / "u.vtu", fields=True)
    W = FunctionSpace(mesh, Discontinuous(1))
    assert torch.equal(data.dofs("u", W), W.dof_coordinates[:, 0])
    assert torch.equal(data.dofs("eta", FunctionSpace(mesh, Discontinuous(0))), eta)
    assert torch.equal(data.dofs("s", FunctionSpace(mesh, Discontinuous(0), components=2))[:, 1], -eta)
    energy = Energy(W, lambda x, u, grad_u, k: k * u, Dirichlet(W, {}))
    half = energy(torch.ones(W.shape, dtype=torch.float64), W.per_cell(data["eta"]))
    assert float(half) == pytest.approx(float(eta.sum() / 18))


def test_merged_nodes(tmp_path: Path):
    """Points that become one node have one value; another one is named."""
    x = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    cells: list[Any] = [("triangle", [[0, 1, 2], [3, 4, 5]])]
    jump = np.arange(6.0)
    meshio.Mesh(x, cells, {"u": x[:, 0] + x[:, 1], "jump": jump}).write(tmp_path / "m.vtu")
    with pytest.warns(UserWarning, match="'jump' at points that became one node, but for the first"):
        mesh, data = read_mesh(tmp_path / "m.vtu", merge=1e-9, fields=True)
    assert mesh.num_nodes == 4
    V = FunctionSpace(mesh, Lagrange(1))
    assert torch.equal(data["u"], V.interpolate(lambda x: x.sum(-1)))
    assert sorted(data["jump"].tolist()) == [0, 1, 2, 4]


def test_wrong_calls(tmp_path: Path):
    mesh = unit_square(2, cell="triangle").curved(2)
    V = FunctionSpace(mesh, Lagrange(2))
    u = V.interpolate(parabola)
    write_vtk(tmp_path / "u.vtu", V, {"u": u, "both": u}, {"both": torch.arange(8.0), "eta": torch.arange(8.0)})
    mesh, data = read_mesh(tmp_path / "u.vtu", fields=True)
    assert "u" in data
    assert "v" not in data
    assert list(data) == ["u", "both", "eta"]
    assert "'u' (25,)" in repr(data)
    assert torch.equal(data.cell_data["both"], torch.arange(8.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="'both' is data of nodes and of cells"):
        data["both"]
    with pytest.raises(KeyError, match="no data 'v'; there are 'u'"):
        data["v"]
    with pytest.raises(ValueError, match="there are no data 'v', but 'u', 'both'"):
        data.dofs("v", FunctionSpace(mesh, Lagrange(2)))
    with pytest.raises(
        ValueError, match=r"'u' is a function of degree 2 on triangles, which Lagrange\(degree=1\) cannot"
    ):
        data.dofs("u", FunctionSpace(mesh, Lagrange(1)))
    with pytest.raises(ValueError, match="'u' needs a space with `components=None`; this one has 2"):
        data.dofs("u", FunctionSpace(mesh, Lagrange(2), components=2))
    with pytest.raises(ValueError, match="'u' belongs to another mesh than the space"):
        data.dofs("u", V)
    with pytest.raises(ValueError, match=r"'eta' are values of cells: `Discontinuous\(0\)` holds them"):
        data.dofs("eta", FunctionSpace(mesh, Lagrange(2)))
