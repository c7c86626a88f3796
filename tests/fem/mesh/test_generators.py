"""Grids: shapes, numbering, volumes, sides, and what they refuse."""

import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, box, integrate, unit_cube, unit_interval, unit_square
from fem.reference.cells import CELLS
from tests.problems import bend

SHAPES = {
    "interval": (5,),
    "triangle": (3, 2),
    "quadrilateral": (3, 2),
    "tetrahedron": (3, 2, 1),
    "hexahedron": (3, 2, 1),
}
PER_GRID_CELL = {"interval": 1, "triangle": 2, "quadrilateral": 1, "tetrahedron": 6, "hexahedron": 1}
LOWER, UPPER = (-1.0, 2.0, 0.5), (1.5, 2.5, 4.0)
SIDES = ("left", "right", "bottom", "top", "back", "front")
cells = pytest.mark.parametrize("cell", CELLS)


def make(cell: str, **kwargs):
    dim = CELLS[cell].dim
    return box(LOWER[:dim], UPPER[:dim], SHAPES[cell], cell=cell, **kwargs)


@cells
def test_counts_and_numbering_with_x_fastest(cell: str) -> None:
    mesh, shape = make(cell), SHAPES[cell]
    assert mesh.grid == shape
    assert mesh.num_cells == PER_GRID_CELL[cell] * torch.tensor(shape).prod()
    axes = [torch.linspace(a, b, n + 1, dtype=torch.float64) for a, b, n in zip(LOWER, UPPER, shape, strict=False)]
    for k, axis in enumerate(axes):
        stride = int(torch.tensor([n + 1 for n in shape[:k]]).prod())
        assert torch.equal(mesh.nodes[:, k], axis[(torch.arange(len(mesh.nodes)) // stride) % (shape[k] + 1)])
    first = mesh.nodes[mesh.cells].mean(1).reshape(-1, PER_GRID_CELL[cell], len(shape)).mean(1)
    middles = torch.meshgrid(*[(a[1:] + a[:-1]) / 2 for a in reversed(axes)], indexing="ij")
    torch.testing.assert_close(first, torch.stack(middles[::-1], -1).reshape(-1, len(shape)))


@cells
def test_cells_fill_the_box_with_equal_volumes(cell: str) -> None:
    mesh = make(cell)
    _, jacobian, _ = mesh.map(0, None, torch.full((1, mesh.dim), 0.25, dtype=torch.float64))
    volumes = torch.linalg.det(jacobian).flatten() * CELLS[cell].volume
    total = (torch.tensor(UPPER) - torch.tensor(LOWER))[: mesh.dim].double().prod()
    torch.testing.assert_close(volumes, (total / mesh.num_cells).expand(volumes.shape))
    assert integrate(FunctionSpace(mesh, Lagrange(1)), 1.0).item() == pytest.approx(total.item(), rel=1e-13)


@cells
def test_sides_have_their_names_and_together_are_the_boundary(cell: str) -> None:
    mesh = make(cell)
    dim, names = mesh.dim, SIDES[: 2 * mesh.dim]
    for k, name in enumerate(names):
        axis, end = k // 2, (LOWER, UPPER)[k % 2][k // 2]
        facets = mesh.facets_tagged(name)
        assert (mesh.nodes[mesh.facets[facets]][..., axis] == end).all()
        area = torch.tensor([UPPER[d] - LOWER[d] for d in range(dim) if d != axis]).prod()
        assert integrate(FunctionSpace(mesh, Lagrange(1)), 1.0, tag=name).item() == pytest.approx(
            area.item(), rel=1e-13
        )
    together = torch.cat([mesh.facets_tagged(name) for name in names])
    assert torch.equal(together.sort().values, mesh.topology.boundary)


def test_makers_are_boxes() -> None:
    assert unit_interval(3).grid == (3,)
    assert unit_square(3).grid == (3, 3)
    assert unit_square(3, 2).grid == (3, 2)
    assert unit_cube(3).grid == (3, 3, 3)
    assert unit_cube(3, 2, 1).grid == (3, 2, 1)
    assert unit_square(2, 2, "triangle").blocks[0].cell.name == "triangle"
    assert unit_cube(1, cell="tetrahedron").num_cells == 6
    for mesh in (unit_interval(3), unit_square(2), unit_cube(1)):
        assert torch.equal(
            torch.stack([mesh.nodes.amin(0), mesh.nodes.amax(0)]),
            torch.tensor([[0.0], [1.0]]).expand(2, mesh.dim).double(),
        )


@cells
def test_dtype(cell: str) -> None:
    mesh = make(cell, dtype=torch.float32)
    assert mesh.dtype == torch.float32
    assert len(mesh.facets_tagged("left")) == len(make(cell).facets_tagged("left"))
    assert len(make(cell, dtype=torch.float32).facets_tagged("right")) == len(make(cell).facets_tagged("right"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_ends_are_met_exactly(dtype: torch.dtype) -> None:
    """Sides are told by equality, whatever the spacing rounds to."""
    for n in range(1, 50):
        mesh = box((0.1, -0.3), (0.7, 1 / 3), (n, 3), dtype=dtype)
        assert len(mesh.facets_tagged("right")) == 3
        assert len(mesh.facets_tagged("top")) == n


def test_uniform_grids_know_until_somebody_moves_them() -> None:
    mesh = unit_square(2)
    assert mesh.is_uniform
    assert not unit_square(2, cell="triangle").is_uniform
    assert not mesh.with_nodes(bend(mesh.nodes)).is_uniform
    mesh.nodes[4] += 0.1
    assert not mesh.is_uniform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0.0,), (1.0, 1.0), (2, 2)), "one length, 1 to 3"),
        (((0.0,) * 4, (1.0,) * 4, (1,) * 4), "one length, 1 to 3"),
        (((), (), ()), "one length, 1 to 3"),
        (((0.0, 0.0), (1.0, 1.0), (2, 0)), r"positive whole numbers of cells; got \(2, 0\)"),
        (((0.0, 0.0), (1.0, 1.0), (2, True)), "positive whole numbers"),
        (((0.0, 1.0), (1.0, 1.0), (2, 2)), "lower < upper"),
        (((0.0, float("nan")), (1.0, 1.0), (2, 2)), "lower < upper"),
        (((0.0, 0.0), (1.0, 1.0), (2, 2), "hexahedron"), "a hexahedron cannot fill a 2-dimensional box"),
        (((0.0, 0.0), (1.0, 1.0), (2, 2), "pentagon"), "`cell` must be one of"),
    ],
)
def test_what_a_box_refuses(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box(*arguments)


# -- what is not made --------------------------------------------------------------------------------------------------


def made(mesh) -> set[str]:
    """Which of the large things that a grid can do without exist."""
    parts = {**vars(mesh), **vars(mesh.topology), **vars(mesh.blocks[0])}
    found = {
        name
        for name in ("nodes", "connectivity", "vertex_nodes", "cell_vertices", "facets", "boundary")
        if name in parts
    }
    return found | ({"numbering"} if mesh.topology._numberings else set())


@pytest.mark.parametrize("degree", [1, 2, 3])
@cells
def test_boundary_conditions_and_images_need_no_connectivity(cell: str, degree: int) -> None:
    mesh = make(cell)
    V = FunctionSpace(mesh, Lagrange(degree), components=2)
    dirichlet = Dirichlet(V, {"boundary": 0.0, "left": lambda x: x[:, :1].expand(-1, 2), ("right", 0): 2.0})
    u = dirichlet.apply(V.interpolate(1.0))
    V.from_grid(V.to_grid(u))
    V.function(u)
    FunctionSpace(mesh.to(dtype=torch.float32), Lagrange(degree)).dofs("right")
    repr(V)
    assert mesh.version == 0
    assert made(mesh) == set()
    assert "blocks" not in vars(V.cell_dofs)


@cells
def test_integrals_over_sides_need_no_facets(cell: str) -> None:
    """Nodes they need where cells are not translates of each other."""
    mesh = make(cell)
    V = FunctionSpace(mesh, Lagrange(2))
    for tag in ("left", "boundary"):
        energy = Energy(V, lambda x, u, g: 0 * u, boundary={tag: lambda x, u, normal: u**2})
        energy.terms = energy.terms[1:]
        energy.residual(V.interpolate(1.0))
    assert made(mesh) <= (set() if mesh.is_uniform else {"nodes"})


def test_points_of_uniform_grids_need_neither_nodes_nor_connectivity() -> None:
    mesh = make("hexahedron")
    V = FunctionSpace(mesh, Lagrange(1))
    (domain,) = V.quadrature.domains()
    geometry = V.quadrature.geometry(domain)
    assert geometry.inverse.shape[:2] == (1, 1)
    assert V.evaluate(V.interpolate(lambda x: x[:, 2]), mesh.box.corners.mean(0, keepdim=True)) == 2.25
    assert made(mesh) == set()
    moved = mesh.with_nodes(mesh.nodes.clone())
    torch.testing.assert_close(geometry.points, FunctionSpace(moved, Lagrange(1)).quadrature.geometry(domain).points)


def test_a_billion_nodes_cost_nothing_until_asked_for() -> None:
    V = FunctionSpace(unit_cube(1024), Lagrange(1), components=3)
    assert V.num_dofs == 3 * 1025**3
    assert torch.equal(V.dofs("left"), 1025 * torch.arange(1025**2))
    (domain,) = V.quadrature.domains("top")
    assert len(V.quadrature.geometry(domain).points) == 1024**2
    assert V.mesh.lagrange_nodes(V.degree, torch.tensor([V.num_nodes - 1])).tolist() == [[1, 1, 1]]
    assert V.cell_dofs.of(0, torch.tensor([0]))[0, :4].tolist() == [0, 1, 1026, 1025]
    assert made(V.mesh) == set()


def test_a_touched_box_goes_by_its_nodes() -> None:
    """Whoever shares the nodes sees that they moved."""
    mesh = unit_square(2)
    other, V = mesh.with_tags(cell_tags={"all": [0, 1, 2, 3]}), FunctionSpace(mesh, Lagrange(2))
    assert other.is_uniform
    (domain,) = V.quadrature.domains()
    before = V.quadrature.geometry(domain)
    mesh.nodes.mul_(2)
    assert not mesh.is_uniform
    assert not other.is_uniform
    torch.testing.assert_close(V.quadrature.geometry(domain).points, 2 * before.points)
    torch.testing.assert_close(V.dof_coordinates.amax(0), torch.tensor([2.0, 2.0]).double())
    mesh.nodes.requires_grad_()
    assert mesh.version is None
    (slope,) = torch.autograd.grad(V.mesh.lagrange_nodes(V.degree, V.dofs("right"))[:, 0].sum(), mesh.nodes)
    assert slope[:, 0].tolist() == [0, 0, 1.5, 0, 0, 2, 0, 0, 1.5]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_memory_of_a_large_grid() -> None:
    """17 million nodes: a space, boundary conditions and a field, in a small multiple of the field's own size."""
    script = """
import re, torch
from pathlib import Path
from fem import Dirichlet, FunctionSpace, Lagrange, unit_cube
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
mesh = unit_cube(256, 256, 256)
V = FunctionSpace(mesh, Lagrange(1))
start = peak()
dirichlet = Dirichlet(V, {"boundary": 0.0, "left": lambda x: x[:, 1]})
u = dirichlet.apply(torch.ones(V.shape, dtype=torch.float64))
V.to_grid(u), V.function(u)
print((peak() - start) / V.num_dofs)
x = V.dof_coordinates
print((peak() - start) / V.num_dofs)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    fields, coordinates = map(float, run.stdout.split())
    assert fields < 48  # mask 1, values, their copy, ones and u 8 bytes each
    assert coordinates < 72


@cells
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_where_sides_meet_nodes_have_the_names_of_all_of_them(cell: str, degree: int) -> None:
    """Corners and, in space, edges with all dofs on them, on curved grids too; in the order y, x, z of the names."""
    for mesh in (make(cell), make(cell).curved(2)):
        V, dim = FunctionSpace(mesh, Lagrange(degree)), mesh.dim
        x, found = V.dof_coordinates, set()
        for count in range(2, dim + 1):
            for axes in combinations([axis for axis in (1, 0, 2) if axis < dim], count):
                for ends in product((0, 1), repeat=count):
                    name = " ".join(SIDES[2 * axis + end] for axis, end in zip(axes, ends, strict=True))
                    wanted = torch.ones(len(x), dtype=torch.bool)
                    for axis, end in zip(axes, ends, strict=True):
                        wanted &= (x[:, axis] - (UPPER if end else LOWER)[axis]).abs() < 1e-12
                    assert torch.equal(V.dofs(name), torch.nonzero(wanted).flatten()), name
                    found.add(name)
        assert found == set(mesh.node_tags)
        assert len(found) == {1: 0, 2: 4, 3: 20}[dim]


def test_corners_are_prescribed_and_their_names_may_be_given_away() -> None:
    mesh = unit_cube(2)
    assert mesh.nodes_tagged("top right front").tolist() == [26]
    V = FunctionSpace(mesh.to(torch.float32), Lagrange(2), components=3)
    held = Dirichlet(V, {"bottom left back": 0.0, ("bottom left", 2): 1.0})
    assert int(held.fixed.sum()) == 3 + 4
    mine = mesh.with_tags(facet_tags={"bottom left": lambda x: (x[..., 1] == 0) & (x[..., 0] <= 0.5)})
    W = FunctionSpace(mine, Lagrange(1))
    assert len(W.dofs("bottom left")) == 6
    assert len(W.dofs("top left")) == 3
    with pytest.raises(ValueError, match="Did you mean 'bottom left'"):
        W.dofs("botom left")
    with pytest.raises(ValueError, match="Values are prescribed at nodes, but integrals need facets"):
        integrate(W, 1.0, "top left")
