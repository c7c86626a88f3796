"""Sides that a file of Gmsh calls periodic: in all versions, for `Periodic(V)`, with its pairs of nodes checked."""

import struct
from pathlib import Path

import pytest
import torch

from fem import FunctionSpace, Lagrange, Mesh, MeshError, Periodic, read_mesh, unit_square
from tests.fem.files.broken_files import MSH2, MSH4
from tests.fem.files.formats.test_gmsh import binary

AFFINE = "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"
PAIRS = "2\n2 1\n3 4\n"
TEXT = {
    "2.2": (MSH2, f"Affine {AFFINE}\n"),
    "2.2 without a map": (MSH2, ""),
    "4.1": (MSH4, f"16 {AFFINE}\n"),
    "4.1 without a map": (MSH4, "0\n"),
}
SHARED = Path(__file__).parents[4].parent / "shared" / "meshes"


def read(path: Path, data: bytes) -> Mesh:
    (path / "square.msh").write_bytes(data)
    return read_mesh(path / "square.msh")


def section(affine: str, pairs: str = PAIRS) -> bytes:
    return f"$Periodic\n2\n0 2 1\n{affine}1\n2 1\n1 2 4\n{affine}{pairs}$EndPeriodic\n".encode()


def check(mesh: Mesh) -> None:
    assert {sides: pairs.tolist() for sides, pairs in mesh.topology.links.items()} == {
        ("periodic curve 2", "periodic curve 4"): [[1, 0], [2, 3]]
    }
    for moved in (mesh, mesh.curved(2), mesh.with_nodes(2 * mesh.nodes)):
        V = FunctionSpace(moved, Lagrange(2), components=2)
        u = Periodic(V).apply(torch.rand(V.shape, dtype=V.dtype, generator=torch.manual_seed(0)))
        x = V.dof_coordinates
        at = [u[x[:, 0] == end][x[x[:, 0] == end][:, 1].argsort()] for end in (0, float(x.max()))]
        torch.testing.assert_close(*at)


@pytest.mark.parametrize("version", TEXT)
def test_in_text(tmp_path: Path, version: str) -> None:
    data, affine = TEXT[version]
    check(read(tmp_path, data + section(affine)))


def test_in_binary(tmp_path: Path) -> None:
    """MSH 2 has the section as text in binary files too."""
    check(read(tmp_path, binary(b"2.2", "<") + section(f"Affine {AFFINE}\n")))
    for order in "<>":
        links = struct.pack(order + "Q3iQ16dQ4Q", 1, 1, 2, 4, 16, *map(float, AFFINE.split()), 2, 2, 1, 3, 4)
        check(read(tmp_path, binary(b"4.1", order) + b"$Periodic\n" + links + b"\n$EndPeriodic\n"))


def test_pairs_that_no_motion_makes(tmp_path: Path) -> None:
    mesh = read(tmp_path, MSH2 + section("", "2\n2 4\n3 1\n"))
    with pytest.raises(ValueError, match=r"the file pairs nodes \d and \d, which the motion found here leaves 1 apart"):
        Periodic(FunctionSpace(mesh, Lagrange(1)))


@pytest.mark.parametrize("pairs", ["2\n2 1\n3 9\n", "2\n2 1\n", "2\n2 1 3\n4 1 2\n", "-1\n", "99999999999\n2 1\n"])
def test_damage_is_told(tmp_path: Path, pairs: str) -> None:
    with pytest.raises(MeshError, match=r"names node 9|line \d+|cut off"):
        read(tmp_path, MSH2 + section("", pairs))


def test_other_meshes_must_name_their_sides() -> None:
    with pytest.raises(ValueError, match=r"got none, and the mesh is of no file that says which"):
        Periodic(FunctionSpace(unit_square(1), Lagrange(1)))


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
@pytest.mark.parametrize(("name", "links"), [("cube", 3), ("annulus-sector", 1), ("torus-sector", 5)])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_files_of_others(name: str, links: int) -> None:
    """Translations in three directions, and rotations of curved cells, which turn vectors along."""
    mesh = read_mesh(SHARED / f"mfem__periodic-{name}.msh")
    assert len(mesh.topology.links) == links
    V = FunctionSpace(mesh, Lagrange(2), components=mesh.dim)
    P = Periodic(V)
    if name != "cube":  # fields that turn with the body
        x = V.dof_coordinates
        radial = torch.cat([x[:, :2], torch.zeros_like(x[:, 2:])], 1)
        torch.testing.assert_close(P.apply(radial), radial, rtol=0, atol=1e-9)
    else:
        assert int((~P.fixed).sum()) == 3 * 8**3
