"""Labels in files of all kinds become tags, or are named in one warning; one model is the same in whatever format."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.labelling.labels import grouped, leader, simple
from fem.files.reading import read_mesh
from fem.forms.constraints import Dirichlet
from fem.forms.energy import Energy
from fem.forms.integrals import integrate
from fem.forms.parameters import by_cell_tag
from fem.mesh.mesh import Mesh
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace
from solvers.minimization import minimize

DATA = Path(__file__).parents[1] / "data"
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
BLOCKS: list[Any] = [("triangle", [[0, 1, 2], [0, 2, 3]]), ("line", [[3, 0], [1, 2]])]
NAMES = {"steel": "steel", "soft": "soft rubber", "clamp": "clamp", "load": "load"}
NUMBERS = {"steel": "11", "soft": "12", "clamp": "21", "load": "22"}
ENTITIES = {"steel": "1", "soft": "2", "clamp": "4", "load": "6"}  # of the geometry: Nastran knows no groups
MODELS: dict[str, dict[str, str]] = {
    "plate_2.2_0.msh": NAMES,
    "plate_2.2_1.msh": NAMES,
    "plate_4.1_0.msh": NAMES,
    "plate_4.1_1.msh": NAMES,
    "plate_4.0_0.msh": NAMES,
    "plate.med.gz": NAMES,
    "plate.inp": NAMES | {"soft": "soft_rubber"},
    "plate.vtk": NUMBERS,
    "plate.bdf": ENTITIES,
    "block_2.2_0.msh": NAMES,
    "block_4.1_0.msh": NAMES,
    "block.med.gz": NAMES,
    "block.inp": NAMES | {"soft": "soft_rubber"},
    "block.vtk": NUMBERS,
}


def unpacked(name: str, folder: Path) -> Path:
    """The file, or what is in it."""
    if not name.endswith(".gz"):
        return DATA / name
    pytest.importorskip("h5py")
    path = folder / name[:-3]
    path.write_bytes(gzip.decompress((DATA / name).read_bytes()))
    return path


def solve(mesh: Mesh, names: dict[str, str], degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """−div(k ∇u) = 1, clamped at x = 0 and loaded at x = 2: nodes in a definite order, and the values there."""
    V = FunctionSpace(mesh, Lagrange(degree))
    energy = Energy(
        V,
        lambda x, u, grad_u, k: 0.5 * k * grad_u.square().sum(-1) - u,
        Dirichlet(V, {names["clamp"]: 0.0}),
        boundary={names["load"]: lambda x, u, normal, k: -u * normal[..., 0]},
    )
    u = minimize(energy, (by_cell_tag({names["steel"]: 210.0, names["soft"]: 1.0}),)).value
    x = V.dof_coordinates
    order = np.lexsort(x.numpy().round(6).T)
    return x[order], u[order]


@pytest.mark.parametrize("name", MODELS)
def test_one_model_in_all_formats(name: str, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh, same = read_mesh(unpacked(name, tmp_path)), read_mesh(DATA / f"{name[:5]}_2.2_0.msh")
    names, degree = MODELS[name], 2 if name.startswith("plate") else 1
    assert float(integrate(FunctionSpace(mesh, Lagrange(1)), 1.0)) == pytest.approx(
        2, abs=1e-12 if names is not ENTITIES else 1e-8
    )
    for mine, theirs in zip(names.values(), NAMES.values(), strict=True):
        kind = "cell_tags" if theirs in same.cell_tags else "facet_tags"
        assert len(getattr(mesh, kind)[mine]) == len(getattr(same, kind)[theirs])
    if names is ENTITIES:
        torch.testing.assert_close(mesh.nodes, same.nodes, atol=1e-8, rtol=0)  # the digits that Gmsh writes there
        same = same.with_nodes(mesh.nodes)
        mesh = mesh.with_tags({"glue": mesh.facets_tagged("2")}, node_tags={"pin": lambda x: (x == 0).all(-1)})
    glued = mesh.facets_tagged("23" if names is NUMBERS else "glue")
    assert bool((mesh.nodes[mesh.facets[glued]][..., 0] == 1).all())
    pin = mesh.nodes_tagged("point 41" if names is NUMBERS else "pin")
    assert mesh.nodes[pin].tolist() == [[0.0, 0.0] if mesh.dim == 2 else [0.0, 0.0, 1.0]]
    if mesh.dim == 3:
        edge = mesh.nodes[mesh.nodes_tagged("curve 31" if names is NUMBERS else "edge")]
        assert bool((edge[:, 0] == 2).all())
        assert bool((np.ptp(edge.numpy(), axis=0)[1:] > 0).sum() == 1)
    for p in (degree, 2):
        for found, expected in zip(solve(mesh, names, p), solve(same, NAMES, p), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_markers_of_su2_have_names():
    mesh = read_mesh(DATA / "plate.su2")
    assert {name: len(mesh.facets_tagged(name)) for name in mesh.facet_tags} == {"clamp": 2, "load": 2, "glue": 2}
    for name, x in (("clamp", 0.0), ("load", 2.0), ("glue", 1.0)):
        assert bool((mesh.nodes[mesh.facets[mesh.facets_tagged(name)]][..., 0] == x).all())
    assert mesh.cell_tags == {}


@pytest.mark.parametrize(
    ("suffix", "key"),
    [
        (".vtu", "CellEntityIds"),
        (".vtu", "anything"),
        (".vtk", "MaterialIDs"),
        (".avs", "avsucd:material"),
        (".bdf", "nastran:ref"),
        (".mesh", "medit:ref"),
        (".meshb", "medit:ref"),
        (".xdmf", "region"),
    ],
)
def test_numbers_of_one_array(suffix: str, key: str, tmp_path: Path):
    if suffix == ".xdmf":
        pytest.importorskip("h5py")
    mesh = meshio.Mesh(SQUARE, BLOCKS, cell_data={key: [np.array([4, 5]), np.array([7, 8])]})
    mesh.write(tmp_path / f"m{suffix}")
    mesh = read_mesh(tmp_path / f"m{suffix}")
    assert ({k: v.tolist() for k, v in mesh.cell_tags.items()}) == {"4": [0], "5": [1]}
    assert mesh.facets[mesh.facets_tagged("7")].sort().values.tolist() == [[0, 3]]
    assert mesh.facets[mesh.facets_tagged("8")].sort().values.tolist() == [[1, 2]]


def test_netgen_and_tetgen(tmp_path: Path):
    index: dict[str, Any] = {"netgen:index": [np.array([1, 2]), np.array([3, 4])]}
    mesh = meshio.Mesh(SQUARE[:, :2], BLOCKS, cell_data=index, field_data={"inner": [2, 2], "wall": [3, 1]})
    mesh.write(tmp_path / "m.vol")
    mesh = read_mesh(tmp_path / "m.vol")
    assert "inner" in mesh.cell_tags
    assert "wall" in mesh.facet_tags
    (tmp_path / "m.node").write_text("4 3 0 1\n0 0 0 0 7\n1 1 0 0 7\n2 0 1 0 7\n3 0 0 1 0\n")
    (tmp_path / "m.ele").write_text("1 4 1\n0 0 1 2 3 5\n")
    mesh = read_mesh(tmp_path / "m.ele")
    assert mesh.cell_tags["5"].tolist() == [0]
    assert mesh.nodes_tagged("tetgen:ref=7").tolist() == [0, 1, 2]
    assert mesh.facet_tags == {}
    (tmp_path / "m.face").write_text("3 1\n0 0 1 2 -3\n1 0 1 3 4\n2 1 2 3 0\n# from TetGen\n")
    mesh = read_mesh(tmp_path / "m.ele")
    assert mesh.cell_tags["5"].tolist() == [0]
    assert set(mesh.facet_tags) == {"-3", "4"}
    assert mesh.facets[mesh.facets_tagged("4")].sort().values.tolist() == [[0, 1, 3]]
    (tmp_path / "m.face").write_text("1 1\n0 0 1 2\n")
    with pytest.raises(MeshError, match=r"m\.face: a face has a number, three nodes and a mark"):
        read_mesh(tmp_path / "m.ele")


def test_several_arrays_of_numbers(tmp_path: Path):
    """A known name leads; what else is numbered bears the name of its array; whole floating-point numbers count."""
    data: dict[str, Any] = {
        "grain": [np.array([3, 4]), np.array([0, 0])],
        "material": [np.array([1.0, 2.0]), np.array([np.nan, 9.0])],
        "density": [np.array([7.8, 1.0]), np.array([0.5, 0.5])],
        "id": [np.array([10, 11]), np.array([12, 13])],
    }
    meshio.Mesh(SQUARE, BLOCKS, cell_data=data).write(tmp_path / "m.vtu")
    mesh = read_mesh(tmp_path / "m.vtu")
    assert set(mesh.cell_tags) == {"1", "2", "grain=3", "grain=4", "id=10", "id=11"}
    assert set(mesh.facet_tags) == {"9", "grain=0", "id=12", "id=13"}


def test_what_is_no_label_is_named_in_one_warning(tmp_path: Path):
    n = 12
    x = np.linspace(0, 1, n + 1)
    points = np.stack([*np.meshgrid(x, x), np.zeros((n + 1, n + 1))], -1).reshape(-1, 3)
    corner = np.array([i * (n + 1) + j for i in range(n) for j in range(n)])
    cells = np.stack([corner, corner + 1, corner + n + 2, corner + n + 1], 1)
    data: dict[str, Any] = {
        "GlobalIds": [np.arange(n * n)],
        "rgb": [np.zeros((n * n, 3), dtype=int)],
        "material": [np.arange(n * n) % 3],
        "eta": [np.linspace(0, 1, n * n)],
    }
    ids = {"PointIds": np.arange(len(points)), "wall": (points[:, 0] == 0).astype(int)}
    meshio.Mesh(points, [("quad", cells)], ids, data).write(tmp_path / "m.vtu")
    with pytest.warns(UserWarning, match=r"left out are .*: these labels and data are not") as said:
        mesh = read_mesh(tmp_path / "m.vtu")
    assert len(said) == 1
    text = str(said[0].message)
    assert all(name in text for name in ("'GlobalIds'", "'rgb'", "'PointIds'"))
    assert "eta" not in text
    assert set(mesh.cell_tags) == {"0", "1", "2"}
    assert mesh.nodes_tagged("wall=1").tolist() == [i * (n + 1) for i in range(n + 1)]


def test_families_of_med_by_name(tmp_path: Path):
    pytest.importorskip("h5py")
    families: list[Any] = [np.array([-1, -2]), np.array([-3, 0])]
    contents: Any = meshio.Mesh(SQUARE[:, :2], BLOCKS, {"point_tags": np.array([2, 0, 0, 3])}, {"cell_tags": families})
    contents.cell_tags = {-1: ["steel", "everything"], -2: ["everything"], -3: ["left side"]}
    contents.point_tags = {2: ["origin"], 3: ["origin", "top left"]}
    contents.write(tmp_path / "m.med")
    mesh = read_mesh(tmp_path / "m.med")
    assert {k: v.tolist() for k, v in mesh.cell_tags.items()} == {"steel": [0], "everything": [0, 1]}
    assert mesh.facets[mesh.facets_tagged("left side")].sort().values.tolist() == [[0, 3]]
    assert {k: mesh.nodes_tagged(k).tolist() for k in mesh.node_tags} == {"origin": [0, 3], "top left": [3]}
    assert torch.equal(mesh.facets_tagged("origin"), mesh.facets_tagged("left side"))  # it holds the whole facet


def test_a_set_of_nodes_called_boundary(tmp_path: Path):
    text = "*NODE\n1,0,0\n2,1,0\n3,1,1\n4,0,1\n*ELEMENT,TYPE=CPS4\n1,1,2,3,4\n*NSET,NSET=boundary\n"
    (tmp_path / "m.inp").write_text(text + "1,2,3,4\n")
    assert read_mesh(tmp_path / "m.inp").node_tags == {}
    (tmp_path / "m.inp").write_text(text + "1,2\n")
    outer = read_mesh(tmp_path / "m.inp", rename={"boundary": "outer"})
    assert outer.nodes_tagged("outer").tolist() == [0, 1]
    assert len(outer.facets_tagged("outer")) == 1
    with pytest.raises(MeshError, match=r"m\.inp: its group 'boundary' has 2 nodes, .*; give the group another name"):
        read_mesh(tmp_path / "m.inp")


def test_words_of_labels():
    assert [simple(key) for key in ("MaterialIDs", "Material Id", "gmsh:physical", "CellEntityIds")] == [
        *("material", "material", "gmshphysical", "cellentity")
    ]
    assert leader({"a": [np.array([1.0])], "b": [np.array([1])]}) == "b"
    assert leader({"a": [np.array([1])], "b": [np.array([1])]}) is None
    assert leader({"a": [np.array([1])], "Region": [np.array([1])]}) == "Region"
    assert [(n, c.tolist()) for n, c in grouped(np.array([3.0, np.nan, -1, 3]))] == [(-1, [2]), (3, [0, 3])]


def test_entities_of_gmsh_where_there_are_no_groups(tmp_path: Path):
    """Numbers of the geometry are labels only in files without groups, which are made of them."""
    text = (DATA / "plate_2.2_0.msh").read_text()
    assert not {"1", "2"} & set(read_mesh(DATA / "plate_2.2_0.msh").cell_tags)
    start, end = text.index("$Elements\n"), text.index("$EndElements")
    rows = [line.split() for line in text[start:end].splitlines()[2:]]
    rows = [" ".join([*row[:3], "0", *row[4:]]) for row in rows]
    (tmp_path / "m.msh").write_text(text[:start] + f"$Elements\n{len(rows)}\n" + "\n".join(rows) + "\n$EndElements\n")
    mesh = read_mesh(tmp_path / "m.msh")
    assert set(mesh.cell_tags) == {"1", "2"}
    assert set(mesh.facet_tags) == {"2", "4", "6"}
    assert [name.split()[0] for name in mesh.node_tags] == ["point"]
