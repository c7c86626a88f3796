"""Refined meshes: measures, tags, parents, curved geometry, grids, functions taken along, derivatives, errors."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    MeshError,
    box,
    hanging_nodes,
    integrate,
    l2_error,
    unit_cube,
    unit_interval,
    unit_square,
)
from fem.mesh.jacobian import check_jacobians
from fem.reference.cells import CELLS
from solvers import Multigrid, minimize
from tests.problems import bend, boundary_nodes, disk, hard_mesh, mixed_mesh, poisson, polynomial, sine, sine_load

KINDS = list(CELLS)
SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))


def some(mesh: Mesh, seed: int = 0, share: float = 0.3) -> Tensor:
    return torch.rand(mesh.num_cells, generator=torch.Generator().manual_seed(seed)) < share


def size(mesh: Mesh, tag: str | None = None) -> float:
    """The measure of the mesh, or of the facets with a tag."""
    V = FunctionSpace(mesh, Discontinuous(0), quadrature_degree=8)
    if tag is None:
        return float(integrate(V, lambda x: torch.ones_like(x[..., 0])))
    one = {tag: lambda x, u, normal: torch.ones_like(x[..., 0])}
    return float(Energy(V, lambda x, u, grad_u: 0 * u, boundary=one)(torch.zeros(V.shape, dtype=V.dtype)))


@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("local", [False, True])
def test_measures_and_tags_stay(cell: str, kind: str, local: bool):
    mesh = hard_mesh(cell, kind)
    mesh = mesh.with_tags(cell_tags={"some": some(mesh, 1)}, node_tags={"first": [int(boundary_nodes(mesh)[0])]})
    fine = mesh.refine(some(mesh)).refine([0, 1]) if local else mesh.refine()
    check_jacobians(fine)
    assert abs(size(fine) / size(mesh) - 1) < 1e-13
    for tag in ["boundary", *mesh.facet_tags]:
        # On faces of bilinear cells that bend, the area is a root, which no quadrature sees exactly.
        exact = mesh.dim < 3 or kind == "plain"
        assert abs(size(fine, tag) / size(mesh, tag) - 1) < (1e-13 if exact and kind != "curved" else 1e-6)
    within = lambda mesh, n: mesh.nodes[n].sum(0)  # noqa: E731
    torch.testing.assert_close(
        within(fine, fine.nodes_tagged("first")), within(mesh, mesh.nodes_tagged("first")), rtol=0, atol=1e-15
    )
    if not local:
        assert fine.parents is not None
        assert torch.equal(fine.cell_tags["some"].sort().values, torch.nonzero(some(mesh, 1)[fine.parents]).flatten())
        assert torch.equal(fine.parents.bincount(), torch.full((mesh.num_cells,), 2**mesh.dim))


@pytest.mark.parametrize("mesh", [mixed_mesh(), mixed_mesh().curved(2, bend)], ids=["straight", "curved"])
def test_mixed_meshes_are_divided(mesh: Mesh):
    fine = mesh.refine()
    assert [b.num_cells for b in fine.blocks] == [4 * b.num_cells for b in mesh.blocks]
    assert abs(size(fine) / size(mesh) - 1) < 1e-13
    assert abs(size(fine, "left") / size(mesh, "left") - 1) < 1e-10
    assert int((fine.topology.facets.num_cells == 1).sum()) == 2 * len(mesh.topology.boundary)


@pytest.mark.parametrize("cell", KINDS)
def test_a_refined_grid_is_the_finer_grid(cell: str):
    d = CELLS[cell].dim
    mesh, finer = (box([0.0] * d, [1.0, 2.0, 4.0][:d], [k * n for n in (2, 1, 3)][:d], cell) for k in (1, 2))
    fine = mesh.refine()
    assert fine.grid == finer.grid
    assert fine.is_uniform == finer.is_uniform
    assert torch.equal(fine.nodes, finer.nodes)
    assert torch.equal(fine.cells, finer.cells)
    assert set(fine.facet_tags) == set(finer.facet_tags)
    assert fine.parents is not None
    centre = lambda mesh: mesh.nodes[mesh.cells].mean(1)  # noqa: E731
    V = FunctionSpace(mesh, Discontinuous(0))
    numbers = torch.arange(mesh.num_cells, dtype=torch.float64)
    assert torch.equal(V.evaluate(numbers, centre(fine)), numbers[fine.parents])


def test_a_grid_whose_nodes_were_moved_stays_one():
    mesh = unit_square(3).with_nodes(bend(unit_square(3).nodes))
    fine = mesh.refine()
    assert fine.grid == (6, 6)
    torch.testing.assert_close(fine.nodes[fine.cells].mean(1).mean(0), fine.nodes[fine.cells].mean((0, 1)))
    assert abs(size(fine) / size(mesh) - 1) < 1e-14
    curved = unit_square(2).curved(2, bend)
    assert abs(size(curved.refine()) / size(curved) - 1) < 1e-13
    named = unit_square(2).with_tags(
        cell_tags={"low": [0, 1]}, facet_tags={"half": lambda x: x[..., 0] + x[..., 1] < 0.6}
    )
    assert abs(size(named.refine(), "half") - 1) < 1e-14
    assert len(named.refine().cell_tags["low"]) == 8


def test_multigrid_serves_a_refined_grid():
    V = FunctionSpace(unit_square(8).refine().refine(), Lagrange(1))
    solution = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": 0.0})), (sine_load,), method=Multigrid())
    assert "multigrid" in solution.method.lower()
    assert float(l2_error(V, solution.value, sine)) < 1e-3


def test_a_large_grid_costs_nothing():
    fine = unit_cube(512).refine()
    assert fine.grid == (1024,) * 3
    assert fine.facet_tags == unit_cube(512).facet_tags


@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("local", [False, True])
def test_functions_are_taken_along_exactly(cell: str, kind: str, local: bool):
    mesh = hard_mesh(cell, kind)
    fine = mesh.refine(some(mesh)) if local else mesh.refine()
    generator = torch.Generator().manual_seed(0)
    for degree in (1, 2):
        W, V = FunctionSpace(mesh, Lagrange(degree)), FunctionSpace(fine, Lagrange(degree))
        u = torch.rand(3, W.num_dofs, dtype=W.dtype, generator=generator)
        v = V.interpolate(W.function(u))
        torch.testing.assert_close(v, W.evaluate(u, V.dof_coordinates), rtol=0, atol=1e-9)
        square = lambda V, u: Energy(V, lambda x, u, grad_u: u.square() + grad_u.square().sum(-1))(u)  # noqa: E731
        if kind != "curved" and CELLS[cell].is_simplex:  # quadrature sees the same on both
            torch.testing.assert_close(square(V, v), square(W, u), rtol=1e-12, atol=0)
    W, V = FunctionSpace(mesh, Discontinuous(1)), FunctionSpace(fine, Discontinuous(1))
    u = torch.rand(W.num_dofs, dtype=W.dtype, generator=generator)
    centre = torch.tensor(CELLS[cell].vertices, dtype=torch.float64).mean(0, keepdim=True)
    x = fine.map(0, None, centre)[0][:, 0]
    torch.testing.assert_close(V.evaluate(V.interpolate(W.function(u)), x), W.evaluate(u, x), rtol=0, atol=1e-9)
    values = torch.arange(mesh.num_cells, dtype=torch.float64)
    follow = FunctionSpace(fine, Discontinuous(0)).interpolate(W.per_cell(values))
    assert fine.parents is not None
    assert torch.equal(follow, values[fine.parents])


@pytest.mark.parametrize("cell", KINDS)
def test_functions_are_taken_along_over_several_refinements(cell: str):
    """Those that jump from cell to cell too, and where the meshes between are gone."""
    mesh = hard_mesh(cell, "curved")
    fine = mesh.refine(some(mesh)).refine().refine([0])
    W, V = FunctionSpace(mesh, Discontinuous(1)), FunctionSpace(fine, Discontinuous(2))
    u = torch.rand(W.num_dofs, dtype=W.dtype, generator=torch.Generator().manual_seed(0))
    centre = torch.tensor(CELLS[cell].vertices, dtype=torch.float64).mean(0, keepdim=True)
    x = fine.map(0, None, 0.9 * centre)[0][:, 0]
    torch.testing.assert_close(V.evaluate(V.interpolate(W.function(u)), x), W.evaluate(u, x), rtol=0, atol=1e-9)


def test_moved_meshes_are_not_taken_for_nested():
    mesh = unit_square(2, cell="triangle")
    fine = mesh.refine([0])
    moved = fine.with_nodes(0.9 * fine.nodes)
    W, V = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(moved, Lagrange(1))
    u = W.interpolate(lambda x: x[..., 0])
    torch.testing.assert_close(V.interpolate(W.function(u)), moved.nodes[:, 0])


def test_prolongation_is_differentiable():
    mesh = unit_square(2, cell="triangle")
    W, V = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh.refine([1]), Lagrange(1))
    u = torch.rand(W.num_dofs, dtype=W.dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: V.interpolate(W.function(u)), (u,), check_forward_ad=True)


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("local", [False, True])
def test_gradients_reach_the_nodes(cell: str, local: bool):
    mesh = hard_mesh(cell, "scrambled")
    nodes = mesh.nodes.clone().requires_grad_()
    moved = mesh.with_nodes(nodes)
    fine = moved.refine(some(mesh)) if local else moved.refine()
    V = FunctionSpace(fine, Discontinuous(0))
    f = lambda x: x[..., 0].square()  # noqa: E731
    (slope,) = torch.autograd.grad(integrate(V, f), nodes)
    (direct,) = torch.autograd.grad(integrate(FunctionSpace(moved, Discontinuous(0), quadrature_degree=6), f), nodes)
    torch.testing.assert_close(slope, direct)


@pytest.mark.parametrize(
    "refine", [lambda m: m.refine(), lambda m: m.refine(some(m)).refine(some(m.refine(some(m)), 1))]
)
@pytest.mark.parametrize("cell", ["triangle", "tetrahedron", "quadrilateral", "hexahedron"])
def test_node_tags_follow(cell: str, refine: Callable[[Mesh], Mesh]):
    """Corners and edges of a box, a whole side, a solid part, and a line inside."""
    d = CELLS[cell].dim
    mesh = box([0.0] * d, [1.0] * d, [4] * d, cell=cell)
    where: dict[str, Callable[[Tensor], Tensor]] = {
        "side": lambda x: x[..., 0] == 0,
        "part": lambda x: x[..., 1] >= 0.5,
        "line": lambda x: (x[..., 1:] == 0.25).all(-1),
    }
    fine = refine(mesh.with_tags(node_tags=where))
    x = fine.nodes
    for name, chosen in where.items():
        assert torch.equal(fine.nodes_tagged(name), torch.nonzero(chosen(x)).flatten()), name
    ends = {name: (k, end) for k in range(d) for end, name in enumerate(SIDES[k])}
    for name in mesh.node_tags:
        on = torch.stack([x[:, ends[side][0]] == ends[side][1] for side in name.split()]).all(0)
        assert torch.equal(fine.nodes_tagged(name), torch.nonzero(on).flatten()), name


def test_two_clamped_sides_clamp_nothing_between_them():
    """A triangle in a corner has all its vertices on two sides: the midpoint of its third edge is free."""
    nodes = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    mesh = Mesh(nodes, [[0, 1, 2], [1, 3, 2]], node_tags={"clamped": [0, 1, 2]})
    assert not bool((mesh.refine().nodes[mesh.refine().nodes_tagged("clamped")].sum(1) > 0.99).sum() > 2)


def test_a_solution_follows_curved_geometry():
    """u = (1 − r²) / 4 on the disk: the error falls with the mesh."""
    errors = []
    mesh = disk(2, 2)
    for _ in range(2):
        V = FunctionSpace(mesh, Lagrange(2))
        u = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}))).value
        errors.append(float(l2_error(V, u, lambda x: (1 - x.square().sum(-1)) / 4)))
        mesh = mesh.refine()
    assert errors[1] < errors[0]


@pytest.mark.parametrize("mesh", [unit_square(4), mixed_mesh()], ids=["quadrilaterals", "mixed"])
def test_polynomials_are_solved_over_hanging_nodes(mesh: Mesh):
    whole = size(mesh, "left")
    for seed in range(3):
        mesh = mesh.refine(some(mesh, seed))
    mesh = mesh.refine().refine([0])
    assert abs(size(mesh) - 1) < 1e-13
    assert abs(size(mesh, "left") / whole - 1) < 1e-13
    exact = polynomial(2, 2)
    V = FunctionSpace(mesh, Lagrange(2))
    energy = Energy(V, poisson, hanging_nodes(V) & Dirichlet(V, {"boundary": exact}))
    u = minimize(energy, (lambda x: -exact.laplacian(x),)).value
    assert float(l2_error(V, u, exact)) < 1e-11


def test_single_precision_devices_and_copies():
    mesh = unit_square(2, cell="triangle", dtype=torch.float32)
    fine = copy.deepcopy(mesh.refine(some(mesh)))
    assert fine.dtype == torch.float32
    assert fine.parents is not None
    double = fine.to(torch.float64).refine([0])
    assert abs(size(double) - 1) < 1e-6
    moved = fine.topology.to(torch.device("cpu"))
    assert torch.equal(moved.history.parents, fine.parents)


def test_surfaces_in_space():
    flat = unit_square(3, cell="triangle")
    mesh = Mesh(torch.cat([flat.nodes, flat.nodes[:, :1] ** 2], 1), flat.cells)
    assert abs(size(mesh.refine(some(mesh))) / size(mesh) - 1) < 1e-13
    assert abs(size(mesh.refine()) / size(mesh) - 1) < 1e-13


def test_nothing_named_changes_nothing():
    mesh = unit_cube(1, cell="tetrahedron")
    same = mesh.refine([])
    assert same.num_cells == mesh.num_cells
    assert torch.equal(same.nodes, mesh.nodes)
    assert mesh.parents is None


def test_what_cannot_be_refined():
    with pytest.raises(MeshError, match=r"`refine\(cells\)`: indices must lie in \[0, 4\)"):
        unit_square(2).refine([4])
    with pytest.raises(MeshError, match="a mask needs 4 entries"):
        unit_square(2).refine(torch.ones(3, dtype=torch.bool))
    with pytest.raises(MeshError, match="must be integers, a mask"):
        unit_square(2).refine([0.5])
    tetrahedron = torch.tensor([[2.0, 0, 0], [3, 0, 0], [2, 1, 0], [2, 0, 1]], dtype=torch.float64)
    nodes = torch.cat([unit_cube(1).nodes, tetrahedron])
    apart = Mesh(nodes, {"hexahedron": unit_cube(1).cells, "tetrahedron": [[8, 9, 10, 11]]})
    assert apart.refine().num_cells == 16
    with pytest.raises(ValueError, match="no solids of several kinds"):
        apart.refine([0])
    nodes = torch.tensor([[0.0, 0], [2, 0], [2, 1], [0, 1], [1, 1], [0, 2], [1, 2], [2, 2]], dtype=torch.float64)
    hung = Mesh(nodes, [[0, 1, 2, 3], [3, 4, 6, 5], [4, 2, 7, 6]], "quadrilateral", hanging=True)
    with pytest.raises(ValueError, match="this mesh has others"):
        hung.refine()
    assert unit_interval(3).refine([1]).num_cells == 4
