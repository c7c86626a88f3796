"""Elements with values at nodes other than Lagrange's: what they share, where their dofs are, what they solve."""

from math import log2
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import (
    CrouzeixRaviart,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mini,
    Periodic,
    RigidMotionFree,
    Serendipity,
    at_points,
    integrate,
    l2_error,
    plot,
    project,
    read_mesh,
    unit_square,
    write_vtk,
)
from fem.reference.cells import CELLS
from solvers import minimize, reaction
from solvers.linear.choice import default_linear
from tests.conformance import assert_continuous
from tests.problems import disk, hard_mesh, mixed_mesh, poisson, polynomial, scrambled, small_mesh

SOLIDS = ["triangle", "tetrahedron"]
ON = [(CrouzeixRaviart(), c) for c in SOLIDS] + [(Mini(), c) for c in SOLIDS]
ON += [(Serendipity(2), c) for c in ("quadrilateral", "hexahedron")]
everywhere = pytest.mark.parametrize(("family", "cell"), ON)


WAVE = torch.tensor([2.0, -1.4, 1.0], dtype=torch.float64)


def wave(x: Tensor) -> Tensor:
    return torch.sin(x @ WAVE[: x.shape[-1]] + 0.3)


def wave_load(x: Tensor) -> Tensor:
    return WAVE[: x.shape[-1]].square().sum() * wave(x)


# -- across cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "cell"), [one for one in ON if one[0] != CrouzeixRaviart()])
def test_functions_are_continuous_across_cells_however_they_are_turned(family: Any, cell: str) -> None:
    assert_continuous(FunctionSpace(hard_mesh(cell, "scrambled"), family))


def test_serendipity_goes_with_triangles_that_have_midpoints() -> None:
    V = FunctionSpace(scrambled(mixed_mesh()), Serendipity(2))
    assert_continuous(V)
    assert V.num_dofs == FunctionSpace(V.mesh, Lagrange(2)).num_dofs - 2
    u = V.interpolate(polynomial(2, 2))
    assert l2_error(V, u, polynomial(2, 2)) < 1e-13


@pytest.mark.parametrize("cell", SOLIDS)
def test_jumps_of_crouzeix_and_raviart_have_no_mean(cell: str) -> None:
    V = FunctionSpace(hard_mesh(cell, "scrambled", 1 if cell == "tetrahedron" else 2), CrouzeixRaviart())
    u = torch.rand(V.shape, dtype=V.dtype)
    total = Energy(V, lambda x, u, g: 0 * u, interior={"": lambda x, u, g, n, h: u.plus - u.minus})
    assert abs(float(total(u))) < 1e-13
    jumps = Energy(V, lambda x, u, g: 0 * u, interior={"": lambda x, u, g, n, h: (u.plus - u.minus).square()})
    assert float(jumps(u)) > 1e-3


@everywhere
def test_dof_coordinates_agree_between_the_cells_that_share_them(family: Any, cell: str) -> None:
    for kind in ("scrambled", "curved"):
        mesh = hard_mesh(cell, kind)
        V = FunctionSpace(mesh, family)
        positions, _, _ = mesh.map(0, None, V.elements[0].nodes)  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(V.dof_coordinates[V.cell_dofs[0]], positions, rtol=0, atol=1e-14)


@everywhere
def test_dof_coordinates_differentiate_in_the_nodes(family: Any, cell: str) -> None:
    mesh = hard_mesh(cell, "scrambled", 1)
    nodes = mesh.nodes.clone().requires_grad_()
    assert gradcheck(lambda x: FunctionSpace(mesh.with_nodes(x), family).dof_coordinates, nodes)


# -- values at nodes ---------------------------------------------------------------------------------------------------


@everywhere
def test_linear_functions_are_interpolated_evaluated_and_projected_exactly(family: Any, cell: str) -> None:
    V, f = FunctionSpace(hard_mesh(cell, "scrambled"), family), polynomial(CELLS[cell].dim, 1)
    u = V.interpolate(f)
    x = torch.rand(5, V.mesh.dim, dtype=V.dtype, generator=torch.Generator().manual_seed(0))
    value, grad = V.evaluate(u, x, derivatives=1)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(grad, f.gradient(x))
    torch.testing.assert_close(project(V, f), u, rtol=0, atol=1e-11)
    W = FunctionSpace(V.mesh, Lagrange(1))
    torch.testing.assert_close(V.interpolate(W.function(W.interpolate(f))), u, rtol=0, atol=1e-12)
    assert torch.equal(V.interpolate(V.function(u)), u)


@pytest.mark.parametrize("cell", SOLIDS)
def test_the_bubble_is_what_the_centre_has_beyond_the_vertices(cell: str) -> None:
    V = FunctionSpace(hard_mesh(cell, "scrambled"), Mini())
    u, centres = V.interpolate(wave), V.mesh.nodes[V.mesh.cells].mean(1)
    torch.testing.assert_close(V.evaluate(u, centres), wave(centres))
    linear = FunctionSpace(V.mesh, Lagrange(1))
    facets = V.mesh.nodes[V.mesh.facets].mean(1)
    torch.testing.assert_close(V.evaluate(u, facets), linear.evaluate(linear.interpolate(wave), facets))


def test_functions_that_jump_have_no_nodal_values_elsewhere() -> None:
    V = FunctionSpace(unit_square(2, cell="triangle"), CrouzeixRaviart())
    u = V.interpolate(wave)
    with pytest.raises(ValueError, match="jumps between cells has no value at nodes"):
        FunctionSpace(V.mesh, Lagrange(1)).interpolate(V.function(u))
    broken = FunctionSpace(V.mesh, Discontinuous(1))
    torch.testing.assert_close(l2_error(broken, broken.interpolate(V.function(u)), wave), l2_error(V, u, wave))


# -- dofs of tags ------------------------------------------------------------------------------------------------------


@everywhere
def test_dofs_of_a_side_are_the_nodes_on_it(family: Any, cell: str) -> None:
    for mesh in (small_mesh(cell), hard_mesh(cell, "scrambled")):
        V = FunctionSpace(mesh, family)
        x = V.dof_coordinates
        assert torch.equal(V.dofs("left"), torch.nonzero(x[:, 0] < 1e-12).flatten())
        assert torch.equal(V.dofs("boundary"), torch.nonzero(((x < 1e-12) | (x > 1 - 1e-12)).any(1)).flatten())
        assert torch.equal(V.dofs(at_points(x[3])), torch.tensor([3]))
        held = Dirichlet(V, {"left": wave})
        torch.testing.assert_close(held.apply(torch.zeros(V.shape).double())[V.dofs("left")], wave(x[V.dofs("left")]))


def test_node_tags_mean_the_facets_between_their_nodes() -> None:
    mesh = unit_square(3, cell="triangle").with_tags(node_tags={"low": lambda x: x[:, 1] == 0})
    for family in (CrouzeixRaviart(), Mini()):
        V = FunctionSpace(mesh, family)
        assert torch.equal(V.dofs("low"), V.dofs("bottom"))
    with pytest.raises(ValueError, match="no dof of degree 1 stands at a node with the tag"):
        FunctionSpace(mesh.with_tags(node_tags={"corner": [0]}), CrouzeixRaviart()).dofs("corner")


def test_corners_and_edges_of_boxes() -> None:
    V = FunctionSpace(small_mesh("hexahedron"), Serendipity(2))
    x = V.dof_coordinates
    assert torch.equal(V.dofs("bottom left"), torch.nonzero((x[:, 0] == 0) & (x[:, 1] == 0)).flatten())
    corner = FunctionSpace(unit_square(2, cell="triangle"), Mini())
    assert corner.dof_coordinates[corner.dofs("bottom left")].tolist() == [[0, 0]]


def test_constraints_know_these_elements() -> None:
    mesh = unit_square(3, cell="triangle")
    for family in (CrouzeixRaviart(), Mini()):
        V, W = FunctionSpace(mesh, family), FunctionSpace(mesh, family, components=2)
        u = torch.rand(V.shape, dtype=V.dtype)
        assert abs(float(integrate(V, V.function(MeanZero(V).apply(u))))) < 1e-14
        same = Periodic(V, {"left": "right"}).apply(u)
        torch.testing.assert_close(*(V.evaluate(same, mesh.nodes.new_tensor([[e, 1 / 6]])) for e in (1e-9, 1 - 1e-9)))
        turned = torch.stack([-W.dof_coordinates[:, 1], W.dof_coordinates[:, 0]], 1)
        assert RigidMotionFree(W).apply(turned).abs().max() < 1e-13


# -- what they solve ---------------------------------------------------------------------------------------------------


@everywhere
def test_diffusion_converges_at_the_order_of_theory(family: Any, cell: str) -> None:
    errors = []
    order = family.degree + 1 if isinstance(family, Serendipity) else 2
    for n in (4, 8) if CELLS[cell].dim == 2 else (2, 4):
        V = FunctionSpace(hard_mesh(cell, "plain" if order == 3 else "scrambled", n), family)
        energy = Energy(V, poisson, Dirichlet(V, {"boundary": wave}))
        u = minimize(energy, (wave_load,)).value
        errors.append(float(l2_error(V, u, wave)))
        held, load = reaction(energy, u, "boundary", (wave_load,)), integrate(V, wave_load)
        torch.testing.assert_close(held, -load, rtol=1e-3, atol=0)
    assert log2(errors[0] / errors[1]) > order - 0.3


def test_default_methods_serve_them() -> None:
    """Three-dimensional scalars beyond what a factorisation takes: no method for splines alone."""
    V = FunctionSpace(small_mesh("hexahedron", 2), Serendipity(2))
    assert "FastDiagonalization" not in repr(default_linear(V, True, items=10**6))


# -- files and pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "kind"), [(CrouzeixRaviart(), "triangle"), (Mini(), "VTK_LAGRANGE_TRIANGLE")])
def test_files_hold_jumps_and_bubbles(family: Any, kind: str, tmp_path: Path) -> None:
    V = FunctionSpace(hard_mesh("triangle", "scrambled"), family)
    u = torch.rand(V.shape, dtype=V.dtype)
    grid = meshio.read(write_vtk(tmp_path / "u.vtu", V, {"u": u}))
    assert [block.type for block in grid.cells] == [kind]
    nodes = torch.from_numpy(grid.points[grid.cells[0].data][..., :2])
    values = torch.from_numpy(grid.point_data["u"][grid.cells[0].data])
    corners = nodes.mean(1, keepdim=True) + 0.999 * (nodes - nodes.mean(1, keepdim=True))  # in cells, where it jumps
    found = V.evaluate(u, corners.flatten(0, 1)).view(values.shape)
    torch.testing.assert_close(found, values, rtol=0, atol=0.05)


def test_values_of_files_with_serendipity_cells(tmp_path: Path) -> None:
    """Eight nodes map as they did, and values at them are dofs."""
    nodes = np.array([[0, 0], [2, 0], [2, 1], [0, 1], [1, 0.2], [2.1, 0.5], [1, 1.1], [0, 0.5]], dtype=float)
    data: dict[str, Any] = {"t": np.arange(8.0)}
    meshio.Mesh(np.pad(nodes, ((0, 0), (0, 1))), [("quad8", np.arange(8)[None])], data).write(tmp_path / "q.vtu")
    mesh, values = read_mesh(tmp_path / "q.vtu", fields=True)
    V = FunctionSpace(mesh, Serendipity(2))
    assert V.num_dofs == 8
    found = values.dofs("t", V)
    for x, t in zip(V.dof_coordinates, found, strict=True):
        assert float(t) == float(np.argmin(((nodes - x.numpy()) ** 2).sum(1)))


@pytest.mark.parametrize("family", [CrouzeixRaviart(), Mini()])
def test_pictures(family: Any) -> None:
    V = FunctionSpace(disk(1, 1), family)
    assert plot(V, V.interpolate(wave)) is not None


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_cells_that_they_are_not_for() -> None:
    with pytest.raises(ValueError, match=r"`CrouzeixRaviart\(\)` is for triangles and tetrahedra; got quadrilaterals"):
        FunctionSpace(unit_square(2), CrouzeixRaviart())
    with pytest.raises(ValueError, match=r"`Mini\(\)` is for triangles and tetrahedra; got hexahedrons"):
        FunctionSpace(small_mesh("hexahedron"), Mini())
    with pytest.raises(ValueError, match=r"`Serendipity\(degree=\.\.\.\)` must be 2; got 3"):
        Serendipity(3)
