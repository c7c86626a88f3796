"""Slip: u·n prescribed on flat, oblique, curved walls and at corners, in any space, with its derivatives."""

from math import cos, log2, pi, sin
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem import (
    CrouzeixRaviart,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    Mini,
    MixedSpace,
    Periodic,
    Serendipity,
    integrate,
    l2_error,
    unit_square,
)
from fem.constraints.ties import Ties
from solvers import CG, Direct, Multigrid, minimize, solve
from tests.problems import disk, hard_mesh, small_mesh, stokes, taylor_rates


def random(V: Any, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(dim: int, angle: float = 0.4) -> Tensor:
    c, s = cos(angle), sin(angle)
    plane = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    if dim == 2:
        return plane
    first, second = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    first[:2, :2], second[1:, 1:] = plane, plane
    return first @ second


def turned(mesh: Mesh) -> Mesh:
    return mesh.with_nodes(mesh.nodes @ rotation(mesh.dim).T)


def vectors(mesh: Mesh, family: Any = None) -> FunctionSpace:
    return FunctionSpace(mesh, family or Lagrange(2), components=mesh.num_coordinates)


# -- flat walls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_walls_along_axes_fix_components(cell: str) -> None:
    V = vectors(small_mesh(cell))
    slip = Dirichlet(V, {("left", "normal"): 0.0, ("top", "normal"): lambda x: x[:, 0], "bottom": 1.0})
    vertical = {2: 1, 3: 1}[V.mesh.dim]
    plain = Dirichlet(V, {("left", 0): 0.0, ("top", vertical): lambda x: x[:, 0], "bottom": 1.0})
    assert isinstance(slip, Dirichlet)
    assert torch.equal(slip.fixed, plain.fixed)
    torch.testing.assert_close(slip.apply(random(V)), plain.apply(random(V)))


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_a_turned_box_holds_what_the_straight_one_does(cell: str) -> None:
    """Sides, edges and corners: R u of the straight box, whose tag "boundary" has corners within."""
    straight = vectors(small_mesh(cell))
    for tags in (["left", "top"], ["boundary"]):
        keys = {(tag, "normal"): 0.5 for tag in tags}
        V, R = vectors(turned(straight.mesh)), rotation(straight.mesh.dim)
        plain, slip = Dirichlet(straight, keys), Dirichlet(V, keys)
        u = slip.apply(random(V)) @ R
        torch.testing.assert_close(plain.apply(u), u, rtol=0, atol=1e-13)
        assert int(slip.fixed.sum()) == int(plain.fixed.sum())
        torch.testing.assert_close(slip.apply(slip.apply(random(V))), slip.apply(random(V)), rtol=0, atol=1e-14)


def stretched(x: Tensor, u: Tensor, grad_u: Tensor, force: Any) -> Tensor:
    """Plane stress, ν = 0.3, loaded by a body force that is given in the coordinates of the block."""
    strain = 0.5 * (grad_u + grad_u.mT)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (0.5 * 0.3 * trace.square() + 0.5 * 0.7 * strain.square().sum((-1, -2))) / 0.91 - (force(x) * u).sum(-1)


@pytest.mark.parametrize("method", [Direct(), CG()])
def test_a_block_that_slides_on_an_oblique_wall_is_the_rotated_one(method: Any) -> None:
    straight, R = vectors(unit_square(4)), rotation(2)
    V = vectors(turned(straight.mesh))
    force = lambda x: torch.stack([torch.sin(3 * x[..., 1]), -x[..., 0]], -1)  # noqa: E731
    held = {("bottom", "normal"): 0.0, ("left", "normal"): 0.1}
    reference = minimize(Energy(straight, lambda x, u, g: stretched(x, u, g, force), Dirichlet(straight, held)))
    energy = Energy(V, lambda x, u, g: stretched(x, u, g, lambda y: force(y @ R) @ R.T), Dirichlet(V, held))
    found = minimize(energy, method=method)
    assert (found.value @ R - reference.value).abs().max() < 1e-10


# -- curved walls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Lagrange(1), Lagrange(2), Lagrange(3), Mini(), CrouzeixRaviart()])
def test_nothing_flows_through_a_wall_of_facets_on_the_whole(family: Any) -> None:
    """The flux ∫ u·n vanishes for every function that slips, though u·n does not everywhere."""
    V = vectors(disk(3, 1), family)
    u = Dirichlet(V, {("boundary", "normal"): 0.0}).apply(random(V))
    flux = Energy(V, lambda x, u, g: 0 * u[..., 0], boundary={"boundary": lambda x, u, n: (u * n).sum(-1)})
    assert abs(float(flux(u))) < 1e-13
    assert abs(float(flux(random(V)))) > 1e-3


def swirl(x: Tensor) -> Tensor:
    """u = (1 − r²/3) (−y, x): tangential on the unit circle, where ∂u/∂r is normal; −Δu = 8/3 (−y, x)."""
    return (1 - x.square().sum(-1, keepdim=True) / 3) * torch.stack([-x[..., 1], x[..., 0]], -1)


def swirl_load(x: Tensor) -> Tensor:
    return 8 / 3 * torch.stack([-x[..., 1], x[..., 0]], -1)


def vector_laplace(x: Tensor, u: Tensor, grad_u: Tensor, f: Any) -> Tensor:
    return 0.5 * grad_u.square().sum((-1, -2)) - (f * u).sum(-1)


@pytest.mark.parametrize(("degree", "geometry", "order"), [(1, 1, 2), (2, 2, 2.5), (2, 3, 3), (3, 3, 3.5)])
def test_flow_in_a_circle_converges(degree: int, geometry: int, order: float) -> None:
    """Normals are of an order less than the geometry, which costs half an order where that is of the degree of u."""
    errors = []
    for n in (4, 8):
        V = vectors(disk(n, geometry), Lagrange(degree))
        energy = Energy(V, vector_laplace, Dirichlet(V, {("boundary", "normal"): 0.0}))
        errors.append(float(l2_error(V, minimize(energy, (swirl_load,)).value, swirl)))
    assert log2(errors[0] / errors[1]) > order - 0.15


@pytest.mark.parametrize(
    "pair", [(Lagrange(2), Lagrange(1)), (Mini(), Lagrange(1)), (CrouzeixRaviart(), Discontinuous(0))]
)
def test_stokes_flow_in_a_circle(pair: tuple[Any, Any]) -> None:
    errors = []
    for n in (4, 8):
        mesh = disk(n, 2)
        W = MixedSpace(vectors(mesh, pair[0]), FunctionSpace(mesh, pair[1]))
        held = Dirichlet(W, {("boundary", 0, "normal"): 0.0}) & MeanZero(W, field=1)
        u, p = W.split(solve(Energy(W, stokes, held), (swirl_load,)).value)
        errors.append(float(l2_error(W.fields[0], u, swirl)))
        assert abs(float(integrate(W.fields[1], W.fields[1].function(p)))) < 1e-12
    assert log2(errors[0] / errors[1]) > 1.7


# -- normals and corners -----------------------------------------------------------------------------------------------


def test_normals_of_a_ball_point_outward_in_every_space() -> None:
    cube = hard_mesh("tetrahedron", "plain", 3)
    x = 2 * cube.nodes - 1
    ball = cube.with_nodes(x * x.abs().amax(1, keepdim=True) / x.norm(dim=1, keepdim=True).clamp(min=1e-9))
    for family in (Lagrange(1), Lagrange(2), Lagrange(3), Mini(), CrouzeixRaviart()):
        V = vectors(ball, family)
        dofs = V.dofs("boundary")
        at = V.dof_coordinates[dofs]
        u = Dirichlet(V, {("boundary", "normal"): 1.0}).apply(torch.zeros(V.shape, dtype=V.dtype))
        u = Dirichlet(V, {("boundary", "normal"): 1.0}).apply(V.dof_coordinates)[dofs]
        assert ((u * at).sum(1) > 0).all()


def test_serendipity_faces_have_outward_normals_at_their_vertices() -> None:
    V = vectors(turned(hard_mesh("hexahedron", "plain", 2)), Serendipity(2))
    normal = rotation(3) @ torch.tensor([-1.0, 0, 0]).double()
    u = Dirichlet(V, {("left", "normal"): 2.0}).apply(random(V))[V.dofs("left")]
    torch.testing.assert_close(u @ normal, torch.full((len(u),), 2.0).double())


def test_two_tags_of_one_smooth_wall_are_one_wall() -> None:
    mesh = disk(4, 2)
    halves = {"east": lambda x: x[..., 0] > -1e-9, "west": lambda x: x[..., 0] < 1e-9}
    split = mesh.with_tags(facet_tags=halves)
    V = vectors(split)
    whole = Dirichlet(V, {("boundary", "normal"): 0.5})
    parts = Dirichlet(V, {("east", "normal"): 0.5, ("west", "normal"): 0.5})
    torch.testing.assert_close(parts.apply(random(V)), whole.apply(random(V)))


# -- with others -------------------------------------------------------------------------------------------------------


def test_with_prescribed_values_periodic_sides_and_several_fields() -> None:
    mesh = unit_square(4)
    V = vectors(mesh, Lagrange(1))
    held = Dirichlet(V, {("bottom", "normal"): 0.0, ("top", "normal"): 0.0}) & Periodic(V, {"left": "right"})
    u = held.apply(random(V))
    assert u[V.dofs("bottom"), 1].abs().max() == 0
    torch.testing.assert_close(u[V.dofs("left")], u[V.dofs("right")])
    oblique = vectors(turned(mesh), Lagrange(1))
    W = MixedSpace(oblique, oblique)
    both = Dirichlet(W, {("left", 0, "normal"): 1.0, ("left", 1, "normal"): 2.0, ("top", 1): 0.0})
    assert isinstance(both, Ties)
    normal = rotation(2) @ torch.tensor([-1.0, 0.0]).double()
    first, second = (u[oblique.dofs("left")] @ normal for u in W.split(both.apply(random(W))))
    torch.testing.assert_close(first, torch.ones_like(first))
    inside = ~torch.isin(oblique.dofs("left"), oblique.dofs("top"))
    torch.testing.assert_close(second[inside], torch.full_like(second[inside], 2.0))
    assert W.split(both.apply(random(W)))[1][oblique.dofs("top")].abs().max() == 0


def channel(n: int, bent: float = 0.0) -> Mesh:
    """A turned channel with walls "bottom" and "top" and straight ends, its walls bent but for `bent` = 0."""
    mesh = unit_square(n, cell="triangle").curved(2)
    x, y = mesh.nodes.T
    wavy = torch.stack([2 * x, y + bent * torch.sin(2 * pi * x + 0.7)], 1)
    return mesh.with_nodes(wavy @ rotation(2).T)


@pytest.mark.parametrize("bent", [0.0, 0.1])
def test_walls_between_periodic_ends(bent: float) -> None:
    """Where a wall meets an end, its normal and that of the image tie the same dofs; in any order, with more beside."""
    mesh = channel(4, bent)
    V = vectors(mesh)
    slip, ends = Dirichlet(V, {("bottom", "normal"): 0.0, ("top", "normal"): 0.0}), Periodic(V, {"right": "left"})
    u = (slip & ends).apply(random(V))
    torch.testing.assert_close((ends & slip).apply(random(V)), u)
    assert (ends.apply(u) - u).abs().max() < 1e-14
    assert (slip.apply(u) - u).abs().max() < (0.1 if bent else 1e-14)  # the image of a corner has a normal of its own
    W = MixedSpace(V, FunctionSpace(mesh, Lagrange(1)))
    walls = {("bottom", 0, "normal"): 0.0, ("top", 0): 0.0}
    both = Dirichlet(W, walls) & Periodic(W, {"right": "left"}) & MeanZero(W, field=1)
    flow, _ = W.split(solve(Energy(W, stokes, both), (torch.cos,)).value)
    torch.testing.assert_close(flow[V.dofs("right")].sum(0), flow[V.dofs("left")].sum(0))
    assert flow[V.dofs("top")].abs().max() == 0
    if not bent:
        normal = rotation(2) @ torch.tensor([0.0, -1.0]).double()
        assert (flow[V.dofs("bottom")] @ normal).abs().max() < 1e-14


def test_a_prescribed_component_leaves_the_condition_to_the_others() -> None:
    V = vectors(turned(unit_square(2)), Lagrange(1))
    slip = Dirichlet(V, {("left", "normal"): 0.0, ("left", 0): 3.0})
    u = slip.apply(random(V))[V.dofs("left")]
    normal = rotation(2) @ torch.tensor([-1.0, 0.0]).double()
    assert (u[:, 0] == 3).all()
    assert (u @ normal).abs().max() < 1e-14


def test_methods_that_serve_no_ties_serve_walls_along_axes() -> None:
    V = vectors(unit_square(16), Lagrange(1))
    energy = Energy(V, vector_laplace, Dirichlet(V, {("boundary", "normal"): 0.0}))
    found = [minimize(energy, (lambda x: x.flip(-1),), method=method).value for method in (Direct(), Multigrid())]
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)


# -- derivatives and batches -------------------------------------------------------------------------------------------


def test_derivatives_in_the_prescribed_values() -> None:
    V = vectors(disk(1, 2), Lagrange(1))
    count = len(V.dofs("boundary"))
    f = lambda g: Dirichlet(V, {("boundary", "normal"): g}).apply(random(V))  # noqa: E731
    assert gradcheck(f, torch.rand(count, dtype=V.dtype, requires_grad=True))

    def compliance(g: Tensor) -> Tensor:
        energy = Energy(V, vector_laplace, Dirichlet(V, {("boundary", "normal"): lambda x: g * x[:, 0] ** 2}))
        u = minimize(energy, (swirl_load,)).value
        return u.square().sum()

    g = torch.tensor(0.7, dtype=V.dtype, requires_grad=True)
    assert gradcheck(compliance, g)
    assert gradgradcheck(compliance, g)
    assert min(taylor_rates(compliance, g, torch.tensor(1.0).double(), 1e-1)) > 1.9


def test_closures_are_evaluated_at_each_use() -> None:
    V = vectors(disk(1, 2), Lagrange(1))
    g = torch.tensor(2.0, dtype=V.dtype, requires_grad=True)
    energy = Energy(V, vector_laplace, Dirichlet(V, {("boundary", "normal"): lambda x: g * x[:, 0]}))
    for _ in range(2):
        (slope,) = torch.autograd.grad(minimize(energy, (swirl_load,)).value.square().sum(), g)
    assert torch.isfinite(slope)


def test_single_precision() -> None:
    mesh = unit_square(4)
    ties = 0
    for single in (mesh.to(torch.float32), turned(mesh).to(torch.float32)):
        V = vectors(single)
        slip = Dirichlet(V, {("boundary", "normal"): 0.5})
        u = slip.apply(random(V).float())
        assert u.dtype == torch.float32
        torch.testing.assert_close(slip.apply(u), u)
        ties += isinstance(slip, Ties)
    assert ties == 1


def test_batches_equal_single_problems() -> None:
    V = vectors(disk(2, 2), Lagrange(2))
    g = torch.rand(3, len(V.dofs("boundary")), dtype=V.dtype)
    solutions = [
        minimize(Energy(V, vector_laplace, Dirichlet(V, {("boundary", "normal"): own})), (swirl_load,)).value
        for own in (g, *g)
    ]
    torch.testing.assert_close(solutions[0], torch.stack(solutions[1:]), rtol=0, atol=1e-11)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_wrong_calls() -> None:
    mesh = unit_square(2)
    scalar, V = FunctionSpace(mesh, Lagrange(1)), vectors(mesh, Lagrange(1))
    with pytest.raises(ValueError, match="needs a vector with values at nodes"):
        Dirichlet(scalar, {("left", "normal"): 0.0})
    with pytest.raises(ValueError, match=r"on facets with a tag is \(tag, field, \"normal\"\)"):
        Dirichlet(MixedSpace(V, scalar), {("left", "normal"): 0.0})
    with pytest.raises(ValueError, match=r"the field must be an integer in \[0, 2\)"):
        Dirichlet(MixedSpace(V, scalar), {("left", 2, "normal"): 0.0})
    with pytest.raises(ValueError, match="unknown facet tag 'lft'"):
        Dirichlet(V, {("lft", "normal"): 0.0})
    inside = mesh.with_tags(facet_tags={"inside": torch.nonzero(mesh.topology.facets.num_cells == 2).flatten()})
    with pytest.raises(ValueError, match="facets inside the domain have two normals"):
        Dirichlet(vectors(inside), {("inside", "normal"): 0.0})
    moving = vectors(mesh.with_nodes(mesh.nodes.clone().requires_grad_()), Lagrange(1))
    with pytest.raises(ValueError, match="no derivatives in the nodes of the mesh"):
        Dirichlet(moving, {("left", "normal"): 0.0})
    with pytest.raises(ValueError, match="must be a number or have the trailing shape"):
        Dirichlet(V, {("left", "normal"): torch.zeros(7, dtype=V.dtype)})
    with pytest.raises(ValueError, match="is not finite"):
        Dirichlet(V, {("left", "normal"): float("nan")})


def test_conditions_that_contradict_one_another() -> None:
    """A component that is prescribed along what is all but the normal; the tip of a crack, u·n = 1 and −u·n = 1."""
    mesh = unit_square(1, 2)
    nearly = mesh.with_nodes(mesh.nodes + 0.01 * mesh.nodes.flip(1))
    V = vectors(nearly, Lagrange(1))
    with pytest.raises(ValueError, match="all but contradict each other"):
        Dirichlet(V, {("bottom", "normal"): 0.0, ("bottom", 1): 0.0})
    grid = unit_square(2)
    cells = grid.cells.clone()
    cells[3, 1] = grid.num_nodes  # the crack from the centre to the right has two sides
    on_it = lambda x: (x[..., 1] == 0.5) & (x[..., 0] >= 0.5)  # noqa: E731
    nodes = torch.cat([grid.nodes, grid.nodes[5:6]])
    V = vectors(Mesh(nodes, cells, cell="quadrilateral", facet_tags={"crack": on_it}, merge=False))
    assert Dirichlet(V, {("crack", "normal"): 0.0}).apply(random(V))[V.dofs("crack"), 1].abs().max() == 0
    with pytest.raises(ValueError, match=r"at x = \[0\.5, 0\.5\] .* contradict one another"):
        Dirichlet(V, {("crack", "normal"): 1.0})
