"""MED files: groups of elements in any family or none, biquadratic elements in VTK's order, fields with profiles."""

import gzip
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.formats.med import ORDER, read_med
from fem.files.reading import read_mesh
from fem.forms.integrals import integrate
from fem.mesh.generators import unit_cube
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace

h5py: Any = pytest.importorskip("h5py")
DATA = Path(__file__).parents[1] / "data"
SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    path = tmp_path / "plate.med"
    path.write_bytes(gzip.decompress((DATA / "plate.med.gz").read_bytes()))
    return path


def elements(file: Any) -> Any:
    mesh = file["ENS_MAA"]["untitled"]
    return mesh[next(iter(mesh))]["MAI"]


def test_elements_in_no_family(plate: Path):
    with h5py.File(plate, "a") as file:
        del elements(file)["PO1"]["FAM"]
        del elements(file)["SE3"]["FAM"]
    mesh = read_mesh(plate)
    assert set(mesh.cell_tags) == {"steel", "soft rubber"}
    assert mesh.facet_tags == mesh.node_tags == {}


def test_biquadratic_elements(tmp_path: Path):
    mesh = unit_cube(1).curved(2, lambda x: x + 0.1 * torch.sin(2 * x.flip(-1)))
    nodes = mesh.nodes[mesh.cells[0]].numpy()[np.argsort(ORDER["hexahedron27"])]
    with h5py.File(tmp_path / "m.med", "w") as file:
        made = file.create_group("ENS_MAA/m")
        made.attrs["ESP"] = 3
        made["NOE/COO"] = nodes.T.ravel()
        made["MAI/H27/NOD"] = np.arange(1, 28)
        made["MAI/H27/FAM"] = np.array([-7])
    again = read_mesh(tmp_path / "m.med")
    np.testing.assert_array_equal(again.nodes[again.cells[0]].numpy(), mesh.nodes[mesh.cells[0]].numpy())
    assert again.cell_tags["7"].tolist() == [0]  # a family that no group names goes by its number
    volumes = [float(integrate(FunctionSpace(m, Lagrange(1), quadrature_degree=8), 1.0)) for m in (mesh, again)]
    assert volumes[0] == pytest.approx(volumes[1])


def test_fields(tmp_path: Path):
    points = SQUARE[:, 0] + 2 * SQUARE[:, 1]
    cells: list[Any] = [("triangle", [[0, 1, 2], [0, 2, 3]])]
    stress: Any = {"stress": [np.array([[1.0, 2, 3], [4, 5, 6]])]}
    meshio.Mesh(SQUARE, cells, {"u": points, "v": np.stack([points, -points], 1)}, stress).write(tmp_path / "m.med")
    mesh, data = read_mesh(tmp_path / "m.med", fields=True)
    V = FunctionSpace(mesh, Lagrange(2))
    torch.testing.assert_close(data.dofs("u", V), V.interpolate(lambda x: x[:, 0] + 2 * x[:, 1]))
    assert torch.equal(data["v"][:, 1], -data["u"])
    assert data["stress"].tolist() == [[1, 2, 3], [4, 5, 6]]
    with h5py.File(tmp_path / "m.med", "a") as file:  # a later step that is known in one cell alone
        steps = file["CHA"]["stress"]
        later = steps.create_group("z later").create_group("MAI.TR3")
        later.attrs["PFL"] = np.bytes_("part")
        later["part/CO"] = np.array([7.0, 8, 9])
        later["part"].attrs["NGA"] = 1
        file["PROFILS/part/PFL"] = np.array([2])
    values = read_med(tmp_path / "m.med").cell_data["stress"][0]
    assert np.isnan(values[0]).all()
    assert values[1].tolist() == [7, 8, 9]


def test_what_is_refused(plate: Path):
    def expect(cause: str) -> None:
        with pytest.raises(MeshError, match=cause) as error:
            read_mesh(plate)
        assert "plate.med" in str(error.value)

    with h5py.File(plate, "a") as file:
        elements(file)["SE3"]["FAM"].attrs["NBR"] = 6
        del elements(file)["SE3"]["FAM"]
        elements(file)["SE3"]["FAM"] = np.zeros(4)
    expect("SE3 has 6 entries, but 4 numbers of families")
    with h5py.File(plate, "a") as file:
        del elements(file)["SE3"]["NOD"]
        elements(file)["SE3"]["NOD"] = np.zeros(7)
    expect("holds 7 numbers, which are not 3 for 2 entries")
    with h5py.File(plate, "a") as file:
        elements(file).move("SE3", "POG")
    expect("elements of kind 'POG' are not supported")
    with h5py.File(plate, "a") as file:
        file.copy("ENS_MAA/untitled", "ENS_MAA/other")
    expect(r"it holds 2 meshes \(other, untitled\)")
    plate.write_bytes(b"\x89HDF\r\n\x1a\n but no more")
    expect("damaged")
