"""Files that refer to others: beside the file they are read, elsewhere they are not, and no size is believed."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.reading import read_mesh
from tests.fem.files.broken_files import XDMF

h5py: Any = pytest.importorskip("h5py")
SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
CELLS: Any = [("triangle", np.array([[0, 1, 2], [0, 2, 3]]))]


def in_hdf5(name: str) -> bytes:
    """The square with its nodes in a file of HDF5."""
    return XDMF.replace(b'"XML" Precision="8">\n0 0 1 0 1 1 0 1', f'"HDF" Precision="8">{name}:/x'.encode())


def test_arrays_in_other_files(tmp_path: Path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    (folder / "c").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (folder / "x.h5", folder / "c/x.h5", elsewhere / "x.h5"):
        with h5py.File(path, "w") as file:
            file["x"] = SQUARE
    (folder / "link.h5").symlink_to(elsewhere / "x.h5")
    for name in ("x.h5", "c/x.h5", "./c/../x.h5"):
        (folder / "m.xdmf").write_bytes(in_hdf5(name))
        assert read_mesh(folder / "m.xdmf").num_cells == 2
    for name in ("../b/x.h5", str(elsewhere / "x.h5"), "link.h5", "/dev/zero"):
        (folder / "m.xdmf").write_bytes(in_hdf5(name))
        with pytest.raises(MeshError, match=r"m\.xdmf: it refers to .*, outside of its folder"):
            read_mesh(folder / "m.xdmf")
    (folder / "m.xdmf").write_bytes(in_hdf5("y.h5"))
    with pytest.raises(MeshError, match=r"it refers to 'y\.h5': no such file"):
        read_mesh(folder / "m.xdmf")


def test_binary_arrays_lie_beside_the_file_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    meshio.Mesh(SQUARE, CELLS).write("m.xdmf", data_format="Binary")
    monkeypatch.chdir(tmp_path)
    assert read_mesh("a/m.xdmf").num_cells == 2


def test_links_of_hdf5_that_lead_elsewhere(tmp_path: Path):
    path = tmp_path / "x.h5"
    (tmp_path / "m.xdmf").write_bytes(in_hdf5("x.h5"))
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/x")
    with pytest.raises(MeshError, match=r"//?x refers to the file /etc/other\.h5, which is refused"):
        read_mesh(tmp_path / "m.xdmf")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4, 2), "f8", external=[("/etc/hostname", 0, 64)])
    with pytest.raises(MeshError, match="/x refers to other files, which is refused"):
        read_mesh(tmp_path / "m.xdmf")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**9, 100), "f8", chunks=(1000, 100))
    with pytest.raises(MeshError, match="/x announces 100000000000 numbers in a file of"):
        read_mesh(tmp_path / "m.xdmf")
    with h5py.File(path, "w") as file:  # groups in a circle end
        file["g"] = file["/"]
        file["x"] = SQUARE
    assert read_mesh(tmp_path / "m.xdmf").num_cells == 2
