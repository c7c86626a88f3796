"""Mesh files: areas and volumes of real meshes agree with Gmsh's, names arrive, VTK's own files are read, and whatever
cannot be used ends in one quiet `MeshError`."""

import os
import re
from math import pi
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.node_order import GMSH_EDGES, exchanged_edges, vtk_order
from fem.files.orientation import oriented
from fem.files.reading import read_mesh
from fem.mesh.generators import box, unit_cube, unit_square
from fem.mesh.geometry import cell_domains, geometry
from fem.mesh.mesh import Mesh
from fem.reference.cells import CELLS
from fem.reference.lagrange import lagrange_element

SHARED = Path(os.environ.get("RITZ_SHARED", Path(__file__).parents[4] / "shared"))
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])

# Kinds and degrees of the cells, and their measure as Gmsh 4.15.2 integrates it, or as it is known exactly.
SOUND = {
    "meshes/dealii__grid_in_msh_01.3da.v41.msh": ("200 hexahedron 1", 1.47254196),
    "meshes/meshio__02_raw_compressed.vtu": ("162 tetrahedron 1", 1.0),
    "meshes/meshio__insulated-4.1.msh": ("111 triangle 1", 27.8543639818),
    "meshes/mfem__beam-hex.vtk": ("8 hexahedron 1", 8.0),
    "meshes/mfem__compass.msh": ("8 triangle 1, 4 quadrilateral 1", 8**0.5),
    "meshes/mfem__escher-p2.vtk": ("42 tetrahedron 2", 6.38685762439),
    "meshes/mfem__periodic-annulus-sector.msh": ("26 triangle 3", 1.57079518761),
    "meshes/mfem__periodic-cube.msh": ("64 hexahedron 1", 1.0),
    "meshes/mfem__periodic-torus-sector.msh": ("36 hexahedron 3", 6.58267725032),
    "meshes/mfem__quad_ascii.vtu": ("9 quadrilateral 1", 9.0),
    "meshes/mfem__quad_binary_compress.vtu": ("9 quadrilateral 1", 9.0),
    "meshes/mfem__star-mixed-p2.vtk": ("10 quadrilateral 2, 20 triangle 2", 4.75527981098),
    "meshes/scikit-fem__annulus.msh": ("98 triangle 1", 0.735267103881),
    "meshes/scikit-fem__beams.msh": ("851 tetrahedron 1", 0.12),
    "meshes/scikit-fem__cube_oriented_sub.msh": ("184 tetrahedron 1", 0.125),
    "meshes/scikit-fem__cylinder_stokes.msh": ("293 triangle 1", 48.4504709374),
    "meshes/scikit-fem__interface.msh": ("170 triangle 1", 1.0),
    "meshes/scikit-fem__mixedtriquad.msh": ("16 triangle 1, 36 quadrilateral 1", 0.386444076504),
    "meshes/scikit-fem__quadratic_quad.msh": ("237 quadrilateral 2", 0.785397594157),
    "meshes/scikit-fem__quadratic_sphere_tet.msh": ("722 tetrahedron 2", 0.523518637745),
    "meshes/scikit-fem__quadratic_tri.msh": ("119 triangle 2", 0.785389070712),
    "meshes/scikit-fem__square.msh": ("184 triangle 1", 1.0),
    "meshes/scikit-fem__tagged_gmsh4.msh": ("80 triangle 1", 0.55),
    "meshes/scikit-fem__troublesome_mesh.vtk": ("724 triangle 1", 2.64),
    "meshes/sfepy__abaqus_hex.inp": ("2 hexahedron 1", 2.0),
    "meshes/sfepy__abaqus_quad_tri.inp": ("20 quadrilateral 1, 8 triangle 1", 4389.53226507),
    "meshes/sfepy__abaqus_tet.inp": ("14 tetrahedron 1", 0.666666702142),
    "meshes_derived/ball-o1.msh": ("679 tetrahedron 1", 4.04216831050),
    "meshes_derived/ball-o2.msh": ("679 tetrahedron 2", 4.18814421776),
    "meshes_derived/ball-o3.msh": ("679 tetrahedron 3", 4.18902997979),
    "meshes_derived/cube-v2.2-bin.msh": ("184 tetrahedron 1", 0.125),
    "meshes_derived/cube-v4.0-asc.msh": ("184 tetrahedron 1", 0.125),
    "meshes_derived/cube-v4.1-bin.msh": ("184 tetrahedron 1", 0.125),
    "meshes_derived/disk-o1.msh": ("117 triangle 1", 3.10266286831),
    "meshes_derived/disk-o2.msh": ("117 triangle 2", 3.14155628285),
    "meshes_derived/disk-o3.msh": ("117 triangle 3", 3.14159802615),
    "meshes_derived/square-v2.2-bin.msh": ("184 triangle 1", 1.0),
    "meshes_derived/square-v4.0-asc.msh": ("184 triangle 1", 1.0),
    "meshes_derived/square-v4.1-bin.msh": ("184 triangle 1", 1.0),
}
UNUSABLE = {
    "meshes/mfem__fichera-mixed-p2.vtk": "contains wedge18 cells; supported are",
}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared meshes are not here")


def size(mesh: Mesh) -> float:
    parts = (geometry(mesh, domain) for domain in cell_domains(mesh, 8))
    return sum(float(part.weights.expand(part.points.shape[:2]).sum()) for part in parts)


@needs_shared
@pytest.mark.parametrize("name", SOUND)
def test_real_meshes(name: str, capfd: pytest.CaptureFixture):
    mesh = read_mesh(SHARED / name)
    kinds, measure = SOUND[name]
    assert ", ".join(f"{b.num_cells} {b.cell.name} {b.degree}" for b in mesh.blocks) == kinds
    assert size(mesh) == pytest.approx(measure, rel=1e-8)
    assert len(mesh.nodes) == len(torch.cat([b.connectivity.flatten() for b in mesh.blocks]).unique())
    assert mesh.nodes.shape[1] == mesh.dim
    assert capfd.readouterr() == ("", "")


@needs_shared
@pytest.mark.parametrize("name", UNUSABLE)
def test_real_files_that_hold_no_usable_mesh(name: str, capfd: pytest.CaptureFixture):
    with pytest.raises(MeshError, match=UNUSABLE[name]):
        read_mesh(SHARED / name)
    assert capfd.readouterr() == ("", "")


@needs_shared
@pytest.mark.parametrize("name", ["square_quad", "cube_tetra"])
def test_xdmf_needs_h5py(name: str):
    path = SHARED / f"meshes/dolfinx__create_unit_{name}.xdmf"
    try:
        import h5py  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(MeshError, match="needs the package h5py; `pip install h5py`"):
            read_mesh(path)
    else:
        assert size(read_mesh(path)) == pytest.approx(1.0)


@needs_shared
def test_curved_meshes_approach_disk_and_ball():
    """Geometry of degree p on one set of cells: the error falls by far more than the factor 10 from 1 to 2 and 3."""
    for shape, exact in (("disk", pi), ("ball", 4 * pi / 3)):
        errors = [abs(size(read_mesh(SHARED / f"meshes_derived/{shape}-o{p}.msh")) - exact) for p in (1, 2, 3)]
        assert errors[1] < errors[0] / 100
        assert errors[2] < errors[1]


@needs_shared
def test_real_names():
    def counts(tags):
        return {name: len(chosen) for name, chosen in tags.items()}

    square = read_mesh(SHARED / "meshes/scikit-fem__square.msh")
    assert counts(square.facet_tags) == {"left": 8, "right": 8, "top": 8}
    assert bool((square.nodes[square.facets[square.facets_tagged("left")]][..., 0] == 0).all())
    again = read_mesh(SHARED / "meshes_derived/square-v4.1-bin.msh")  # names are cell sets in this version
    assert counts(again.facet_tags) == counts(square.facet_tags)
    wire = read_mesh(SHARED / "meshes/meshio__insulated-4.1.msh")
    assert (counts(wire.cell_tags), counts(wire.facet_tags)) == ({"wire": 45, "insulation": 66}, {"convection": 21})
    interface = read_mesh(SHARED / "meshes/scikit-fem__interface.msh")
    inner = interface.topology.facets.num_cells[interface.facets_tagged("interfacee")]
    assert inner.tolist() == [2] * 8
    compass = read_mesh(SHARED / "meshes/mfem__compass.msh")
    assert counts(compass.cell_tags) == {f"{side} {kind}": 1 for kind in ("Even", "Odd") for side in "NWSE"} | {
        "Base": 4
    }
    assert bool((compass.cell_tags["Base"] >= 8).all())  # the quadrilaterals come after the eight triangles
    assert counts(read_mesh(SHARED / "meshes/mfem__beam-hex.vtk").cell_tags) == {"1": 4, "2": 4}
    assert counts(read_mesh(SHARED / "meshes/sfepy__abaqus_tet.inp").cell_tags) == {"MAT1": 9, "MAT2": 5, "EB1": 14}
    torus = read_mesh(SHARED / "meshes/mfem__periodic-torus-sector.msh")  # numbers stand in where there are no names
    assert {name: n for name, n in counts(torus.facet_tags).items() if not name.startswith("periodic ")} == {
        "1": 12,
        "2": 12,
        "3": 24,
    }


@pytest.mark.parametrize("cell", GMSH_EDGES)
def test_gmsh_cubic_order_is_a_permutation(cell: str):
    count = lagrange_element(CELLS[cell], 3).num_basis
    order = vtk_order(
        {"quadrilateral": "quad16", "tetrahedron": "tetra20"}.get(cell, "hexahedron64"), CELLS[cell], count
    )
    assert sorted(order) == list(range(count))
    assert order[: CELLS[cell].num_vertices] == list(range(CELLS[cell].num_vertices))


@pytest.mark.parametrize("version", ["2.2", "4.1"])
def test_gmsh_groups(version: str, tmp_path: Path):
    """Two materials, a named side, a numbered one, an unused node and a point: what a typical file of Gmsh holds."""
    points = np.vstack([[[9.0, 9, 0]], SQUARE])
    cells: list[Any] = [
        ("vertex", [[1]]),
        ("line", [[1, 4]]),
        ("line", [[2, 3]]),
        ("triangle", [[1, 2, 3]]),
        ("triangle", [[1, 3, 4]]),
    ]
    numbers: list[Any] = [np.array([n]) for n in (9, 1, 5, 3, 4)]
    contents = meshio.Mesh(points, cells, cell_data={"gmsh:physical": numbers, "gmsh:geometrical": numbers})
    contents.field_data = {"left": np.array([1, 1]), "steel": np.array([3, 2]), "air": np.array([4, 2])}
    if version == "4.1":
        contents.point_data["gmsh:dim_tags"] = np.array([[0, 9], [1, 1], [1, 5], [2, 3], [2, 4]])
    contents.write(tmp_path / "m.msh", file_format="gmsh22" if version == "2.2" else "gmsh")
    mesh = read_mesh(tmp_path / "m.msh", dtype=torch.float32)
    assert mesh.nodes.dtype == torch.float32
    assert mesh.nodes.tolist() == SQUARE[:, :2].tolist()
    assert {name: c.tolist() for name, c in mesh.cell_tags.items()} == {"steel": [0], "air": [1]}
    assert mesh.facets[mesh.facets_tagged("left")].sort().values.tolist() == [[0, 3]]
    assert mesh.facets[mesh.facets_tagged("5")].sort().values.tolist() == [[1, 2]]


def test_a_group_called_boundary_must_be_the_boundary(tmp_path: Path):
    cells: list[Any] = [("triangle", [[0, 1, 2], [0, 2, 3]]), ("line", [[0, 1], [1, 2], [2, 3], [3, 0]])]
    names = {"boundary": np.array([1, 1])}
    data: dict[str, Any] = {
        "gmsh:physical": [np.zeros(2, dtype=int), np.ones(4, dtype=int)],
        "gmsh:geometrical": [np.ones(2), np.ones(4)],
    }
    data["gmsh:geometrical"] = [values.astype(int) for values in data["gmsh:geometrical"]]
    meshio.Mesh(SQUARE, cells, cell_data=data, field_data=names).write(tmp_path / "m.msh", file_format="gmsh22")
    assert read_mesh(tmp_path / "m.msh").facet_tags == {}
    data["gmsh:physical"][1][2:] = 2
    meshio.Mesh(SQUARE, cells, cell_data=data, field_data=names).write(tmp_path / "m.msh", file_format="gmsh22")
    with pytest.raises(MeshError, match=r"its group 'boundary' has 2 facets, .* whole boundary of 4; give the group"):
        read_mesh(tmp_path / "m.msh")


def test_facets_that_no_cell_has_are_left_out_by_name(tmp_path: Path):
    points = np.vstack([SQUARE, [[7.0, 7, 0], [8, 7, 0]]])
    cells: list[Any] = [("triangle", [[0, 1, 2], [0, 2, 3]]), ("line", [[1, 3], [0, 1], [4, 5]]), ("line", [[1, 3]])]
    mesh = meshio.Mesh(points, cells, cell_data={"material": [np.array(n) for n in ([1, 2], [7, 7, 7], [8])]})
    mesh.write(tmp_path / "m.vtk", file_format="vtk")
    with pytest.warns(
        UserWarning, match=r"m\.vtk: left out are 2 of 3 facets in the group '7', .*1 of 1 .* '8', which no"
    ):
        read = read_mesh(tmp_path / "m.vtk")
    assert list(read.facet_tags) == ["7"]
    assert read.facets[read.facets_tagged("7")].sort().values.tolist() == [[0, 1]]


def counts(mesh: Mesh) -> dict[str, int]:
    """How many facets each name has."""
    return {name: len(mesh.facets_tagged(name)) for name in mesh.facet_tags}


def groups_file(path: Path, cells: list[Any], groups: list[Any], names: dict[str, Any], points: np.ndarray = SQUARE):
    """A file of Gmsh's version 2.2; groups are those of the rows of each block."""
    data: dict[str, Any] = {name: [np.array(g) for g in groups] for name in ("gmsh:physical", "gmsh:geometrical")}
    mesh = meshio.Mesh(points, cells, cell_data=data, field_data={k: np.array(v) for k, v in names.items()})
    mesh.write(path, file_format="gmsh22")


@pytest.mark.parametrize("degree", [1, 2])
def test_cells_listed_once_for_each_of_their_groups(degree: int, tmp_path: Path):
    """Two materials and a group of all; quadrilaterals between the lists, one of which starts elsewhere in its cell."""
    mesh = unit_square(2).curved(degree)
    nodes = np.pad(mesh.nodes.numpy(), ((0, 0), (0, 1)))
    quad, name = mesh.cells.numpy(), ("quad", "quad9")[degree - 1]
    turned = quad[:, [1, 2, 3, 0]] if degree == 1 else quad[:, [1, 2, 3, 0, 5, 6, 7, 4, 8]]
    corners = mesh.facets[mesh.facets_tagged("left")].numpy()
    cells: list[Any] = [
        (name, quad[:2]),
        ("line", corners),
        (name, quad[2:]),
        ("line", corners[:1]),
        (name, turned[1:]),
    ]
    groups = [[3, 3], [7, 7], [4, 0], [8], [5, 5, 5]]
    names = {"steel": (3, 2), "air": (4, 2), "all": (5, 2), "left": (7, 1)}
    groups_file(tmp_path / "m.msh", cells, groups, names, nodes)
    read = read_mesh(tmp_path / "m.msh")
    assert (read.num_cells, size(read)) == (4, pytest.approx(1))
    assert {k: v.tolist() for k, v in read.cell_tags.items()} == {"steel": [0, 1], "air": [2], "all": [1, 2, 3]}
    assert counts(read) == {"left": 2, "8": 1}
    assert len(read.topology.boundary) == 8


def test_a_cell_listed_twice_in_one_group_is_damage(tmp_path: Path):
    groups_file(tmp_path / "m.msh", [("triangle", [[0, 1, 2], [0, 2, 3], [2, 1, 0]])], [[1, 1, 1]], {"steel": (1, 2)})
    with pytest.raises(MeshError, match=r"m\.msh: triangle 0 and triangle 2 are one cell that stands twice"):
        read_mesh(tmp_path / "m.msh")
    meshio.Mesh(SQUARE, [("triangle", [[0, 1, 2], [0, 2, 3], [1, 2, 0]])]).write(tmp_path / "m.vtu")
    with pytest.raises(MeshError, match=r"m\.vtu: triangle 0 and triangle 2 are one cell that stands twice"):
        read_mesh(tmp_path / "m.vtu")


def two_squares(path: Path, gap: float = 0.0) -> Path:
    """Side by side, each with nodes of its own, and with its names."""
    points = np.vstack([SQUARE, SQUARE + np.array([1 + gap, 0, 0])])
    cells: list[Any] = [("quad", [[0, 1, 2, 3], [4, 5, 6, 7]]), ("line", [[0, 3], [5, 6], [4, 7]])]
    groups_file(path, cells, [[3, 4], [1, 2, 9]], {"left": (1, 1), "right": (2, 1), "seam": (9, 1)}, points)
    return path


def test_nodes_at_one_place_are_told_or_merged(tmp_path: Path):
    path = two_squares(tmp_path / "m.msh")
    with pytest.warns(
        UserWarning, match=r"m\.msh: some cells touch .* coincide with another one: 2, .* twice: 1\. `merge="
    ):
        assert len(read_mesh(path).topology.boundary) == 8
    assert len(read_mesh(path, merge=False).topology.boundary) == 8
    for merge, gap in ((0, 0.0), (1e-9, 0.0), (1e-4, 1e-5)):
        mesh = read_mesh(two_squares(path, gap), merge=merge)
        assert mesh.nodes.shape == (6, 2)
        assert len(mesh.topology.boundary) == 6
        assert counts(mesh) == {"left": 1, "right": 1, "seam": 1}
        assert mesh.topology.facets.num_cells[mesh.facets_tagged("seam")].tolist() == [2]
    with pytest.raises(MeshError, match=r"m\.msh: `merge=1` would make one of two nodes of quadrilateral 0"):
        read_mesh(path, merge=1)
    with pytest.raises(ValueError, match=r"`read_mesh\(merge=\.\.\.\)` must be a non-negative number"):
        read_mesh(path, merge=-1)


def test_merged_nodes_of_curved_cells(tmp_path: Path):
    mesh = unit_square(2, cell="triangle").curved(3, lambda x: x + 0.1 * torch.sin(3 * x.flip(-1)))
    points = np.pad(mesh.nodes[mesh.cells].flatten(0, 1).numpy(), ((0, 0), (0, 1)))
    meshio.Mesh(points, [("triangle10", np.arange(len(points)).reshape(-1, 10))]).write(
        tmp_path / "m.msh", file_format="gmsh22"
    )
    read = read_mesh(tmp_path / "m.msh", merge=1e-12)
    assert len(read.nodes) == len(mesh.nodes)
    assert size(read) == pytest.approx(size(mesh), rel=1e-14)


def test_hanging_nodes_and_overlaps_in_files(tmp_path: Path):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0.4, 0], [2, 0, 0], [2, 1, 0]])
    cells: list[Any] = [("quad", [[0, 1, 2, 3], [1, 5, 6, 4]]), ("triangle", [[4, 6, 2]])]
    meshio.Mesh(points, cells).write(tmp_path / "m.vtu")
    with pytest.warns(
        UserWarning, match=r"m\.vtu: .*Hanging nodes: 1, such as node 4 at \[1\.0, 0\.4\], which lies on quadr"
    ):
        assert size(read_mesh(tmp_path / "m.vtu")) == pytest.approx(2)
    points[4] = [0.5, 0.4, 0]
    meshio.Mesh(points, cells).write(tmp_path / "m.vtu")
    with pytest.raises(MeshError, match=r"m\.vtu: cells overlap: .* quadrilateral 0"):
        read_mesh(tmp_path / "m.vtu")


def test_groups_get_other_names(tmp_path: Path):
    cells: list[Any] = [("triangle", [[0, 1, 2], [0, 2, 3]]), ("line", [[0, 1], [1, 2], [2, 3]])]
    names = {"boundary": (1, 1), "lid": (2, 1), "steel": (3, 2)}
    groups_file(tmp_path / "m.msh", cells, [[3, 4], [1, 1, 2]], names)
    with pytest.raises(
        MeshError, match=r"its group 'boundary' has 2 facets, .* of 4; .*rename=\{'boundary': 'outer'\}"
    ):
        read_mesh(tmp_path / "m.msh")
    mesh = read_mesh(tmp_path / "m.msh", rename={"boundary": "outer", "4": "air"})
    assert counts(mesh) == {"outer": 2, "lid": 1}
    assert {k: v.tolist() for k, v in mesh.cell_tags.items()} == {"steel": [0], "air": [1]}
    joined = read_mesh(tmp_path / "m.msh", rename={"boundary": "sides", "lid": "sides", "4": "steel"})
    assert counts(joined) == {"sides": 3}
    assert {k: v.tolist() for k, v in joined.cell_tags.items()} == {"steel": [0, 1]}
    with pytest.raises(ValueError, match=r"names no group of the file by 'led'; it has .*'lid'.* Did you mean 'lid'"):
        read_mesh(tmp_path / "m.msh", rename={"led": "lid"})


def test_curves_and_surfaces_keep_the_coordinates_that_vary(tmp_path: Path):
    tilted = SQUARE @ np.array([[1.0, 0, 0], [0, 1, 1], [0, 0, 1]])
    meshio.Mesh(tilted, [("quad", [[0, 1, 2, 3]])]).write(tmp_path / "s.vtu")
    assert size(read_mesh(tmp_path / "s.vtu")) == pytest.approx(2**0.5)
    meshio.Mesh(SQUARE, [("line", [[0, 1], [1, 2]])]).write(tmp_path / "c.vtu")
    curve = read_mesh(tmp_path / "c.vtu")
    assert (curve.nodes.shape[1], size(curve)) == (2, pytest.approx(2))
    meshio.Mesh(SQUARE + 3, [("line", [[0, 1]]), ("vertex", [[0], [1]])]).write(tmp_path / "i.vtu")
    assert read_mesh(tmp_path / "i.vtu").nodes.tolist() == [[3.0], [4.0]]


def test_noise_in_the_last_coordinate_is_a_plane(tmp_path: Path):
    mesh = unit_square(5, cell="triangle")
    noise = 1e-8 * np.random.default_rng(0).standard_normal((mesh.num_nodes, 1))
    for size, dim in ((1.0, 2), (1e3, 3)):
        points = np.concatenate([mesh.nodes.numpy(), size * noise], 1)
        meshio.Mesh(points, [("triangle", mesh.cells.numpy())]).write(tmp_path / "m.vtu")
        assert read_mesh(tmp_path / "m.vtu").nodes.shape[1] == dim


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
@pytest.mark.parametrize("degree", [1, 3])
def test_cells_of_either_orientation(cell: str, degree: int):
    dim = CELLS[cell].dim
    mesh = box((0.0,) * dim, (1.0,) * dim, (3,) * dim, cell=cell).curved(degree)
    nodes = lagrange_element(CELLS[cell], degree).nodes
    swapped = torch.cat([nodes[:, [1, 0]], nodes[:, 2:]], 1)
    mirror = torch.cdist(swapped, nodes).argmin(1)
    some = torch.arange(mesh.num_cells) % 3 == 1
    mixed = torch.where(some[:, None], mesh.cells[:, mirror], mesh.cells)
    assert torch.equal(oriented(mesh.nodes, {cell: mixed}).cells, mesh.cells)


def test_crossed_nodes_are_not_hidden_by_turning():
    mesh = unit_square(4, cell="triangle")
    nodes = mesh.nodes.clone()
    nodes[12] = torch.tensor([1.3, 0.5])  # the centre is dragged beyond the right side
    with pytest.raises(MeshError, match="cells lie on top of their neighbours: triangle 10 and triangle 13 share"):
        oriented(nodes, {"triangle": mesh.cells})


@pytest.mark.parametrize(
    ("kind", "old"), [("vtu", False), ("vtu", True), ("appended vtu", False), ("appended vtu", True), ("vtk", False)]
)
def test_lagrange_hexahedra_of_vtk(kind: str, old: bool, tmp_path: Path):
    """VTK 9 exchanged two edges of Lagrange hexahedra and raised the version of its files."""
    vtk = pytest.importorskip("vtk")
    mesh = unit_cube(1).curved(3, lambda x: x + 0.1 * torch.sin(2 * x.flip(-1)))
    nodes = mesh.nodes[mesh.cells[0]]
    grid, points, ids = vtk.vtkUnstructuredGrid(), vtk.vtkPoints(), vtk.vtkIdList()
    points.SetDataTypeToDouble()
    for i, node in enumerate((nodes[exchanged_edges(64)] if old else nodes).tolist()):
        points.InsertNextPoint(*node)
        ids.InsertNextId(i)
    grid.SetPoints(points)
    grid.InsertNextCell(vtk.VTK_LAGRANGE_HEXAHEDRON, ids)
    writer = vtk.vtkUnstructuredGridWriter() if kind == "vtk" else vtk.vtkXMLUnstructuredGridWriter()
    path = tmp_path / f"h.{kind.split()[-1]}"
    writer.SetInputData(grid)
    writer.SetFileName(str(path))
    if kind == "vtu":
        writer.SetDataModeToBinary()
    writer.Write()
    if old:
        text = path.read_bytes()
        assert b' version="2.' in text
        path.write_bytes(re.sub(rb' version="2[^"]*"', b' version="0.1"', text, count=1))
    again = read_mesh(path)
    torch.testing.assert_close(again.nodes[again.cells[0]], nodes, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "contents", "cause"),
    [
        ("none.msh", None, "no such file"),
        ("a.msh", "$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$Nodes\n1 x", "cannot read .*a.msh"),
        ("b.msh", "", "cannot read .*b.msh: it is empty"),
        ("b.msh", "$MeshFormat\n9.9 0 8\n$EndMeshFormat\n", "Need mesh format"),
        ("c.vtu", "<VTKFile type='PolyData'></VTKFile>", "Expected type UnstructuredGrid"),
        ("c.vtu", "garbage", "cannot read .*c.vtu"),
        ("d.vtk", "garbage", "Illegal VTK header"),
        ("e.xyz", "garbage", "Could not deduce file format"),
        ("f.inp", "garbage", "cannot read .*f.inp|contains no cells"),
        ("g.stl", "solid\nendsolid", "cannot read .*g.stl|contains no cells"),
    ],
)
def test_unreadable_files_end_in_one_quiet_error(
    name: str, contents: str | None, cause: str, tmp_path: Path, capfd: pytest.CaptureFixture
):
    if contents is not None:
        (tmp_path / name).write_text(contents)
    with pytest.raises(MeshError, match=cause) as error:
        read_mesh(tmp_path / name)
    assert name in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_files_that_are_readable_but_of_no_use(tmp_path: Path):
    with pytest.raises(MeshError, match="it is a directory"):
        read_mesh(tmp_path)
    path = tmp_path / "m.vtu"

    def expect(cause: str, cells: list, points: np.ndarray = SQUARE, **data) -> None:
        meshio.Mesh(points, cells, **data).write(path)
        with pytest.raises(MeshError, match=cause) as error:
            read_mesh(path)
        assert "m.vtu" in str(error.value)

    expect("contains no cells", [("vertex", [[0]])])
    expect(
        "contains pyramid cells; supported are",
        [("pyramid", [list(range(5))])],
        np.random.default_rng(0).random((5, 3)),
    )
    expect("quadrilateral 0 is ", [("quad8", [list(range(8))])], np.random.default_rng(0).random((8, 2)) @ np.eye(2, 3))
    expect("contains wedge cells", [("wedge", [list(range(6))])], np.random.default_rng(0).random((6, 3)))
    expect("contains polygon cells", [("polygon", [[0, 1, 2, 3, 4]])], np.random.default_rng(0).random((5, 3)))
    expect("triangle 1 is degenerate", [("triangle", [[0, 1, 2], [0, 1, 1]])])
    expect("a cell names node 7, but there are 4 nodes", [("triangle", [[0, 1, 7]])])
    six = np.vstack([SQUARE, [[0.5, 0, 0], [1, 0.5, 0], [0.5, 0.5, 0]]])
    expect("all be of one degree", [("triangle", [[0, 2, 3]]), ("triangle6", [[0, 1, 2, 4, 5, 6]])], six)
    expect("node 1 has the coordinates", [("triangle", [[0, 1, 2]])], SQUARE + np.array([[0.0], [np.nan], [0], [0]]))
    text = path.read_bytes().replace(b'version="0.1"', b'version="5.0"')
    path.write_bytes(text.replace(b"triangle", b""))
    with pytest.raises(MeshError):
        read_mesh(path)


def test_unknown_cells_are_not_left_out_in_silence(tmp_path: Path):
    text = "# vtk DataFile Version 3.0\nm\nASCII\nDATASET UNSTRUCTURED_GRID\nPOINTS 12 double\n"
    text += "0 0 0 1 0 0 0 1 0 1 1 0 0 0 1 1 0 1 0 1 1 1 1 1 5 0 0 6 0 0 5 1 0 5 0 1\n"
    text += "CELLS 2 14\n8 0 1 2 3 4 5 6 7\n4 8 9 10 11\nCELL_TYPES 2\n11\n10\n"
    for number, cause in ((11, ""), (17, "cell 0 is of type 17, which VTK has not"), (42, "contains polyhedron cells")):
        (tmp_path / "v.vtk").write_text(text.replace("TYPES 2\n11", f"TYPES 2\n{number}"))
        if cause:
            with pytest.raises(MeshError, match=cause):
                read_mesh(tmp_path / "v.vtk")
        else:
            assert [block.cell.name for block in read_mesh(tmp_path / "v.vtk").blocks] == ["hexahedron", "tetrahedron"]
