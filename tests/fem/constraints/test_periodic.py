"""Periodic functions: on any mesh whose sides match, in several directions, under rotations, with other constraints."""

from math import log2, pi

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    MixedSpace,
    Periodic,
    box,
    l2_error,
    unit_cube,
    unit_square,
)
from solvers import minimize, solve
from tests.problems import conduction, laplace, poisson, scrambled


def wave(x: Tensor) -> Tensor:
    return torch.sin(2 * pi * x[..., 0]) * torch.cos(2 * pi * x[..., 1])


def scrambled_square(n: int, cell: str = "triangle") -> Mesh:
    """Cells and nodes in any order, the inside distorted alone."""
    mesh = unit_square(n, cell=cell)
    inside = ((mesh.nodes > 0) & (mesh.nodes < 1)).all(1, keepdim=True)
    moved = mesh.nodes + inside * (torch.rand(mesh.nodes.shape, generator=torch.manual_seed(1)) - 0.5) * 0.3 / n
    sides = {
        "left": lambda x: x[..., 0] == 0,
        "right": lambda x: x[..., 0] == 1,
        "bottom": lambda x: x[..., 1] == 0,
        "top": lambda x: x[..., 1] == 1,
    }
    return scrambled(mesh.with_nodes(moved)).with_tags(sides)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_a_torus(cell: str, degree: int) -> None:
    """−Δu = f on a periodic square: order p + 1, on meshes in any order."""
    errors = []
    for n in (4, 8):
        V = FunctionSpace(scrambled_square(n, cell), Lagrange(degree))
        both = Periodic(V, {"right": "left", "top": "bottom"}) & MeanZero(V)
        u = minimize(Energy(V, poisson, both), (wave,)).value
        errors.append(float(l2_error(V, u, lambda x: wave(x) / (8 * pi**2))))
        assert float((both.apply(u) - u).abs().max()) < 1e-14
    assert log2(errors[0] / errors[1]) > degree + 0.4


def test_three_directions() -> None:
    """Edges and corners of a cube are one dof each; constants cost nothing."""
    V = FunctionSpace(unit_cube(3, 3, 3), Lagrange(1))
    P = Periodic(V, {"right": "left", "top": "bottom", "front": "back"})
    assert int((~P.fixed).sum()) == 27
    in_turn = Periodic(V, {"right": "left"}) & Periodic(V, {"top": "bottom"}) & Periodic(V, {"front": "back"})
    assert torch.equal(in_turn.fixed, P.fixed)
    u = torch.rand(V.num_dofs, dtype=V.dtype)
    torch.testing.assert_close(in_turn.apply(u), P.apply(u))


def test_a_translation_of_the_cell_changes_nothing() -> None:
    """Coefficients moved by whole cells move the solution alone."""
    V = FunctionSpace(unit_square(8), Lagrange(1))
    both = Periodic(V, {"right": "left", "top": "bottom"}) & MeanZero(V)
    along = torch.tensor([1.0, 0.0], dtype=torch.float64)
    energy = Energy(V, lambda x, u, grad_u, k: 0.5 * k * (grad_u + along).square().sum(-1), both)
    k = 10 ** torch.rand(8, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    effective = []
    for shift in (0, 3):
        given = V.per_cell(k.roll((shift, 2 * shift), (0, 1)).flatten())
        effective.append(energy(minimize(energy, (given,)).value, given))
    torch.testing.assert_close(effective[0], effective[1], rtol=1e-12, atol=0)


def test_with_prescribed_values() -> None:
    """A channel: corners belong to both, and stay prescribed; other sides follow."""
    for mesh in (unit_square(6), scrambled_square(6)):
        V = FunctionSpace(mesh, Lagrange(2))
        held = Dirichlet(V, {"bottom": 1.0, "top": 0.0})
        for constraint in (held & Periodic(V, {"right": "left"}), Periodic(V, {"left": "right"}) & held):
            u = minimize(Energy(V, laplace, constraint)).value
            torch.testing.assert_close(u, V.interpolate(lambda x: 1 - x[:, 1]))
    V = FunctionSpace(unit_square(4), Lagrange(1))
    u = minimize(Energy(V, laplace, Dirichlet(V, {"right": 3.0}) & Periodic(V, {"right": "left"}))).value
    torch.testing.assert_close(u, torch.full_like(u, 3.0))  # the other side is prescribed with it
    with pytest.raises(ValueError, match=r"are one by `Periodic`, but different values are prescribed, 1\.0 and 0\.0"):
        Dirichlet(V, {"left": 0.0, "right": 1.0}) & Periodic(V, {"right": "left"})


def test_antiperiodic() -> None:
    """u(1) = −u(0): sin πx and cos πx; where two such directions meet only 0 is left."""
    V = FunctionSpace(unit_square(16, 4), Lagrange(2))
    constraint = Periodic(V, {"right": "left"}, sign=-1) & Periodic(V, {"top": "bottom"})
    exact = lambda x: torch.cos(pi * x[..., 0])  # noqa: E731
    u = minimize(Energy(V, poisson, constraint), (lambda x: pi**2 * exact(x),)).value
    assert float(l2_error(V, u, exact)) < 1e-4
    left, right = V.dofs("left"), V.dofs("right")
    torch.testing.assert_close(u[left], -u[right])
    twice = Periodic(V, {"right": "left", "top": "bottom"}, sign=-1)
    assert twice.apply(torch.ones_like(u)).unique().tolist() == [-1.0, 1.0]


def test_coordinates_that_are_rounded() -> None:
    """Sides whose normals differ by the digits of a file are translated: no vector is turned, corners are one."""
    mesh = unit_square(4)
    noise = 1e-7 * (torch.rand(mesh.nodes.shape, dtype=torch.float64, generator=torch.manual_seed(0)) - 0.5)
    V = FunctionSpace(mesh.with_nodes(mesh.nodes + noise), Lagrange(1), components=2)
    exact = FunctionSpace(mesh, Lagrange(1), components=2)
    sides = {"right": "left", "top": "bottom"}
    u = torch.rand(V.shape, dtype=V.dtype, generator=torch.manual_seed(1))
    assert torch.equal(Periodic(V, sides).apply(u), Periodic(exact, sides).apply(u))


@pytest.mark.parametrize("components", [None, 2])
def test_sectors_of_a_ring(components: int | None) -> None:
    """A quarter of a ring, periodic under a quarter turn, is the whole ring; vectors turn with it."""

    def ring(x: Tensor, angle: float) -> Tensor:
        r, t = 1 + x[..., 0], angle * x[..., 1]
        return torch.stack([r * torch.cos(t), r * torch.sin(t)], -1)

    def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        radial = x / x.norm(dim=-1, keepdim=True)
        load = (
            u
            if components is None
            else (radial * u).sum(-1) + (radial[..., 0] * u[..., 1] - radial[..., 1] * u[..., 0])
        )
        return 0.5 * grad_u.square().flatten(x.ndim - 1).sum(-1) - load

    quarter, whole = (
        (box((0.0, 0.0), (1.0, 1.0), (4, n))).curved(3, lambda x, a=a: ring(x, a))
        for n, a in ((4, pi / 2), (16, 2 * pi))
    )
    V = FunctionSpace(quarter, Lagrange(2), components=components)
    u = minimize(Energy(V, density, Dirichlet(V, {"left": 0.0}) & Periodic(V, {"top": "bottom"}))).value
    W = FunctionSpace(whole, Lagrange(2), components=components)
    w = minimize(Energy(W, density, Dirichlet(W, {"left": 0.0}) & Periodic(W, {"top": "bottom"}))).value
    points = ring(torch.rand(20, 2, dtype=torch.float64, generator=torch.manual_seed(0)), pi / 2)
    torch.testing.assert_close(V.evaluate(u, points), W.evaluate(w, points), rtol=0, atol=1e-10)


def test_fields_of_mixed_spaces() -> None:
    mesh = unit_square(4)
    V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Q)
    velocity = Periodic(W, {"right": "left"}, field=0).fixed
    assert [int(f.sum()) for f in W.split(velocity)] == [18, 0]
    assert [int(f.sum()) for f in W.split(Periodic(W, {"right": "left"}).fixed)] == [18, 5]
    # Flow driven by a body force between two walls, periodic along: Poiseuille, and the pressure has no mean.

    def stokes(x: Tensor, u: tuple[Tensor, Tensor], grad_u: tuple[Tensor, Tensor]) -> Tensor:
        (v, p), (grad_v, _) = u, grad_u
        return 0.5 * grad_v.square().sum((-2, -1)) - p * grad_v.diagonal(dim1=-2, dim2=-1).sum(-1) - v[..., 0]

    walls = Dirichlet(W, {("bottom", 0): 0.0, ("top", 0): 0.0})
    flow = solve(Energy(W, stokes, walls & Periodic(W, {"right": "left"}) & MeanZero(W, field=1))).value
    v, p = W.split(flow)
    exact = V.interpolate(lambda x: torch.stack([0.5 * x[:, 1] * (1 - x[:, 1]), 0 * x[:, 1]], -1))
    torch.testing.assert_close(v, exact, rtol=0, atol=1e-11)
    torch.testing.assert_close(p, torch.zeros_like(p), rtol=0, atol=1e-10)


def test_batches_and_derivatives() -> None:
    """A batch equals its items; gradcheck of the effective energy in conductivities."""
    V = FunctionSpace(scrambled_square(4), Lagrange(1))
    both = Periodic(V, {"right": "left", "top": "bottom"}) & MeanZero(V)
    energy = Energy(V, conduction, both)
    k = 1 + torch.rand(3, V.mesh.num_cells, dtype=torch.float64, generator=torch.manual_seed(0))
    solved = lambda k: minimize(energy, (V.per_cell(k), wave)).value  # noqa: E731
    torch.testing.assert_close(solved(k), torch.stack([solved(item) for item in k]), rtol=0, atol=1e-12)
    k = k[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda k: solved(k).square().sum(), k, fast_mode=True)


def test_sides_that_do_not_match() -> None:
    uneven = torch.tensor([0.0, 0.2, 0.6, 1.0], dtype=torch.float64)
    mesh = unit_square(3, 3)
    nodes = mesh.nodes.clone()
    right = nodes[:, 0] == 1
    nodes[right, 1] = uneven
    V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(1))
    with pytest.raises(ValueError, match=r"do not match under a translation: the image of a node misses .* by 0\.0833"):
        Periodic(V, {"right": "left"})
    V = FunctionSpace(unit_square(3, 4), Lagrange(1))
    with pytest.raises(ValueError, match="the sides have 5 and 4 nodes"):
        Periodic(V, {"right": "bottom"})
    with pytest.raises(ValueError, match=r"unknown facet tag 'rihgt'.*right"):
        Periodic(V, {"rihgt": "left"})
    with pytest.raises(ValueError, match="needs two sides"):
        Periodic(V, {"left": "left"})
    with pytest.raises(ValueError, match="must name sides"):
        Periodic(V, {})
    with pytest.raises(ValueError, match="sign"):
        Periodic(V, {"right": "left"}, sign=2)
    W = FunctionSpace(unit_square(4), Lagrange(1), components=3)
    with pytest.raises(ValueError, match="a component for each of the 2 coordinates; this field has 3"):
        Periodic(W, {"right": "bottom"})


def test_sides_in_parts_that_turn_alike() -> None:
    """A sector whose straight sides have two names each: the dofs between these follow one other, not twice."""
    square = unit_square(4, 3)
    r, angle = 1 + square.nodes[:, 0], square.nodes[:, 1] * pi / 3
    mesh = square.with_nodes(torch.stack([r * angle.cos(), r * angle.sin()], 1))
    parts = {}
    for name in ("bottom", "top"):
        facets = mesh.facets_tagged(name)
        inner = mesh.nodes[mesh.facets[facets]].norm(dim=-1).mean(1) < 1.5
        parts |= {f"{name} inside": facets[inner], f"{name} outside": facets[~inner]}
    mesh = mesh.with_tags(parts)
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    u = torch.rand(V.shape, dtype=V.dtype, generator=torch.manual_seed(0))
    whole = Periodic(V, {"top": "bottom"})
    halves = Periodic(V, {"top inside": "bottom inside", "top outside": "bottom outside"})
    torch.testing.assert_close(halves.apply(u), whole.apply(u))
    radial = V.interpolate(lambda x: x)
    torch.testing.assert_close(halves.apply(radial), radial)
