"""Exodus files: blocks, node sets and side sets by name, every side where the manual has it, data of the end."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.formats.exodus import HEXAHEDRON, SIDES, joined
from fem.files.reading import read_mesh
from fem.forms.constraints import Dirichlet
from fem.forms.energy import Energy
from fem.mesh.generators import unit_cube
from fem.reference.cells import CELLS, Cell
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.space.space import FunctionSpace
from solvers.minimization import minimize

netcdf: Any = pytest.importorskip("netCDF4")
CUBE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
Blocks = list[tuple[str, Any]]
Sides = dict[str, tuple[list[int], list[int]]]


def names(file: Any, variable: str, dimension: str, values: list[str]) -> None:
    made = file.createVariable(variable, "S1", (dimension, "len_string"))
    for i, value in enumerate(values):
        made[i] = netcdf.stringtochar(np.array([value.encode()], "S33"))[0]


def write(
    path: Path,
    points: np.ndarray,
    blocks: Blocks,
    block_names: list[str] | None = None,
    node_sets: dict[str, list[int]] | None = None,
    side_sets: Sides | None = None,
    at_nodes: dict[str, np.ndarray] | None = None,
    in_cells: dict[str, np.ndarray] | None = None,
    named: bool = True,
) -> Path:
    """A file such as Cubit's; numbers of nodes, elements and sides count from 1, data have an axis of times first."""
    node_sets, side_sets, at_nodes, in_cells = node_sets or {}, side_sets or {}, at_nodes or {}, in_cells or {}
    with netcdf.Dataset(str(path), "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.api_version, file.version = np.float32(5.1), np.float32(5.1)
        file.floating_point_word_size, file.file_size, file.title = np.int32(8), np.int32(1), "a model"
        sizes = {"len_string": 33, "len_line": 81, "four": 4, "time_step": None, "num_dim": points.shape[1]}
        sizes |= {"num_nodes": len(points), "num_elem": sum(len(c) for _, c in blocks), "num_el_blk": len(blocks)}
        sizes |= {"num_node_sets": len(node_sets), "num_side_sets": len(side_sets)}
        sizes |= {"num_nod_var": len(at_nodes), "num_elem_var": len(in_cells)}
        for name, size in sizes.items():
            if size != 0:
                file.createDimension(name, size)
        for i, x in enumerate("xyz"[: points.shape[1]]):
            file.createVariable(f"coord{x}", "f8", ("num_nodes",))[:] = points[:, i]
        file.createVariable("eb_status", "i4", ("num_el_blk",))[:] = 1
        made = file.createVariable("eb_prop1", "i4", ("num_el_blk",))
        made[:] = 10 * (1 + np.arange(len(blocks)))
        made.setncattr("name", "ID")
        if block_names:
            names(file, "eb_names", "num_el_blk", block_names)
        for i, (kind, cells) in enumerate(blocks, 1):
            cells = np.asarray(cells)
            file.createDimension(f"num_el_in_blk{i}", len(cells))
            file.createDimension(f"num_nod_per_el{i}", cells.shape[1])
            made = file.createVariable(f"connect{i}", "i4", (f"num_el_in_blk{i}", f"num_nod_per_el{i}"))
            made[:] = cells
            made.elem_type = kind
        for what, sets in (("ns", node_sets), ("ss", side_sets)):
            if sets:
                dimension = {"ns": "num_node_sets", "ss": "num_side_sets"}[what]
                file.createVariable(f"{what}_prop1", "i4", (dimension,))[:] = 100 + np.arange(len(sets))
                if named:
                    names(file, f"{what}_names", dimension, list(sets))
        for i, nodes in enumerate(node_sets.values(), 1):
            file.createDimension(f"num_nod_ns{i}", len(nodes))
            file.createVariable(f"node_ns{i}", "i4", (f"num_nod_ns{i}",))[:] = nodes
        for i, (elements, sides) in enumerate(side_sets.values(), 1):
            file.createDimension(f"num_side_ss{i}", len(elements))
            file.createVariable(f"elem_ss{i}", "i4", (f"num_side_ss{i}",))[:] = elements
            file.createVariable(f"side_ss{i}", "i4", (f"num_side_ss{i}",))[:] = sides
        steps = max([len(v) for v in (*at_nodes.values(), *in_cells.values())], default=1)
        file.createVariable("time_whole", "f8", ("time_step",))[:] = np.arange(steps, dtype=float)
        if at_nodes:
            names(file, "name_nod_var", "num_nod_var", list(at_nodes))
        for i, values in enumerate(at_nodes.values(), 1):
            file.createVariable(f"vals_nod_var{i}", "f8", ("time_step", "num_nodes"))[:] = values
        if in_cells:
            names(file, "name_elem_var", "num_elem_var", list(in_cells))
        for i, values in enumerate(in_cells.values(), 1):
            part = values[:, : len(blocks[0][1])]  # the first block alone has it
            file.createVariable(f"vals_elem_var{i}eb1", "f8", ("time_step", "num_el_in_blk1"))[:] = part
    return path


def on(mesh: Any, name: str) -> list[float]:
    """Mean coordinates of the facets with a name, one after another."""
    return mesh.nodes[mesh.facets[mesh.facets_tagged(name).unique()]].mean(1).flatten().tolist()


def test_sets_and_blocks(tmp_path: Path):
    two = np.concatenate([CUBE, CUBE[[1, 2, 5, 6]] + [1, 0, 0]])
    right = [2, 9, 10, 3, 6, 11, 12, 7]
    sides = {"out": ([2], [2]), "between": ([1, 2], [2, 4])}
    blocks: Blocks = [("HEX8", [range(1, 9)]), ("hex", [right]), ("BEAM2", [[1, 2]])]
    path = write(tmp_path / "m.e", two, blocks, ["steel", "", "edge"], {"in": [1, 4, 5, 8], "pin": [7]}, sides)
    mesh = read_mesh(path)
    assert {k: v.tolist() for k, v in mesh.cell_tags.items()} == {"steel": [0], "20": [1]}
    assert on(mesh, "out") == [2, 0.5, 0.5]
    assert on(mesh, "between") == [1, 0.5, 0.5]
    assert on(mesh, "in") == [0, 0.5, 0.5]  # the set of nodes holds the whole facet
    assert mesh.nodes[mesh.nodes_tagged("pin")].tolist() == [[1, 1, 1]]
    assert sorted(mesh.nodes[mesh.nodes_tagged("edge")].tolist()) == [[0, 0, 0], [1, 0, 0]]
    mesh = read_mesh(write(tmp_path / "m.exo", two, blocks, None, {"in": [1, 4, 5, 8]}, sides, named=False))
    assert set(mesh.cell_tags) == {"10", "20"}
    assert set(mesh.facet_tags) == {"100", "101", "node set 100"}


@pytest.mark.parametrize("kind", ["TRI", "QUAD4", "TETRA", "HEX8"])
def test_sides_as_in_the_manual(kind: str, tmp_path: Path):
    """Side i lies where the manual draws it: named here by the vertices that it leaves out."""
    cell: Cell = CELLS[
        {"TRI": "triangle", "QUAD4": "quadrilateral", "TETRA": "tetrahedron", "HEX8": "hexahedron"}[kind]
    ]
    left_out = {
        "TRI": ([2], [0], [1]),
        "QUAD4": ([2, 3], [0, 3], [0, 1], [1, 2]),
        "TETRA": ([2], [0], [1], [3]),
        "HEX8": ([2, 3, 6, 7], [0, 3, 4, 7], [0, 1, 4, 5], [1, 2, 5, 6], [4, 5, 6, 7], [0, 1, 2, 3]),
    }[kind]
    sides: Sides = {f"side {i}": ([1], [i]) for i in range(1, 1 + len(left_out))}
    points = np.array(cell.vertices, dtype=float)
    mesh = read_mesh(write(tmp_path / "m.e", points, [(kind, [range(1, len(points) + 1)])], side_sets=sides))
    for i, others in enumerate(left_out, 1):
        (facet,) = mesh.facets[mesh.facets_tagged(f"side {i}")].tolist()
        assert set(facet) - {-1} == set(range(len(points))) - set(others)


def test_sides_of_shells(tmp_path: Path):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [2, 0, 0], [2, 1, 0]])
    blocks: Blocks = [("SHELL4", [[1, 2, 3, 4], [2, 5, 6, 3]])]
    mesh = read_mesh(write(tmp_path / "m.e", points, blocks, side_sets={"face": ([2], [1]), "edge": ([1], [6])}))
    assert mesh.cell_tags["face"].tolist() == [1]
    assert sorted(mesh.facets[mesh.facets_tagged("edge")][0].tolist()) == [0, 3]
    assert "face" not in mesh.facet_tags


def test_side_sets_clamp_and_load(tmp_path: Path):
    """A bar in tension, u = x."""
    mesh = unit_cube(2)
    centre = mesh.nodes[mesh.cells].mean(1)[:, 0]
    left, right = ((torch.nonzero(c).flatten() + 1).tolist() for c in (centre < 0.5, centre > 0.5))
    nodes = (torch.nonzero(mesh.nodes[:, 0] == 0).flatten() + 1).tolist()
    sides: Sides = {"clamp": (left, [4] * 4), "pull": (right, [2] * 4)}
    path = tmp_path / "m.e"
    mesh = read_mesh(write(path, mesh.nodes.numpy(), [("HEX8", mesh.cells.numpy() + 1)], None, {"held": nodes}, sides))
    for clamp in ("clamp", "held"):
        V = FunctionSpace(mesh, Lagrange(2))
        energy = Energy(
            V,
            lambda x, u, grad_u: 0.5 * grad_u.square().sum(-1),
            Dirichlet(V, {clamp: 0.0}),
            boundary={"pull": lambda x, u, normal: -u * normal[..., 0]},
        )
        torch.testing.assert_close(minimize(energy).value, V.dof_coordinates[:, 0], atol=1e-12, rtol=0)


def test_order_of_nodes_is_that_of_vtk(tmp_path: Path):
    vtk = pytest.importorskip("vtk")
    x = lagrange_element(CELLS["hexahedron"], 2).nodes.numpy()
    x = x + 0.05 * np.sin(3 * x[:, [1, 2, 0]])
    path = write(tmp_path / "m.e", x[np.argsort(HEXAHEDRON)], [("HEX27", [range(1, 28)])])
    mesh = read_mesh(path)
    np.testing.assert_array_equal(mesh.nodes[mesh.cells[0]].numpy(), x)
    reader = vtk.vtkExodusIIReader()
    reader.SetFileName(str(path))
    reader.Update()
    block = reader.GetOutput().GetBlock(0).GetBlock(0)
    found = [block.GetPoint(block.GetCell(0).GetPointId(i)) for i in range(27)]
    np.testing.assert_allclose(found, x, atol=1e-6)


def test_data_of_the_last_time(tmp_path: Path):
    x = CUBE[:, 0]
    at_nodes = {"T": np.stack([0 * x, x]), **{f"disp_{c}": np.stack([x, (i + 1) * x]) for i, c in enumerate("xyz")}}
    blocks: Blocks = [("HEX8", [range(1, 9)])]
    path = write(tmp_path / "m.e", CUBE, blocks, at_nodes=at_nodes, in_cells={"p": np.array([[0.5], [1.5]])})
    mesh, data = read_mesh(path, fields=True)
    V = FunctionSpace(mesh, Lagrange(1))
    assert torch.equal(data["T"], V.interpolate(lambda x: x[:, 0]))
    assert torch.equal(data["disp"], data["T"][:, None] * torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert data["p"].tolist() == [1.5]
    scalars = {name: np.zeros(2) for name in ("x", "aX", "aY", "b_x", "c")}
    assert {name: values.shape for name, values in joined(scalars).items()} == {
        "x": (2,),
        "a": (2, 2),
        "b_x": (2,),
        "c": (2,),
    }


def test_what_is_refused(tmp_path: Path):
    blocks: Blocks = [("HEX8", [range(1, 9)])]
    for sides, cause in (
        ({"s": ([2], [1])}, "the side set 's' names an element that the file has not"),
        ({"s": ([1], [7])}, "the side set 's' names side 7 of a hexahedron"),
        ({"s": ([1], [0])}, "the side set 's' names side 0 of a hexahedron"),
    ):
        with pytest.raises(MeshError, match=cause):
            read_mesh(write(tmp_path / "m.e", CUBE, blocks, side_sets=sides))
    with pytest.raises(MeshError, match="elements of type SUPER are not supported"):
        read_mesh(write(tmp_path / "m.e", CUBE, [("SUPER", [range(1, 9)])]))
    (tmp_path / "m.e").write_bytes(b"something else")
    with pytest.raises(MeshError, match="it is damaged or no Exodus file"):
        read_mesh(tmp_path / "m.e")


def test_what_meshio_writes(tmp_path: Path):
    contents = meshio.Mesh(CUBE, [("hexahedron", [list(range(8))])], point_sets={"in": np.array([0, 3, 4, 7])})
    contents.write(tmp_path / "m.e")
    mesh = read_mesh(tmp_path / "m.e")
    assert on(mesh, "in") == [0, 0.5, 0.5]


def test_every_side_of_every_kind_is_there():
    for kind, sides in SIDES.items():
        if kind not in ("line", "triangle", "quad"):
            edges = [frozenset(e) for side in sides for e in zip(side, (*side[1:], side[0]), strict=True)]
            assert all(edges.count(edge) == 2 for edge in edges)
