"""Adaptation: optimal rates at a corner, bounds that hold, batches, gradients, hanging nodes, what is out of reach."""

import warnings
from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from examples.adaptive import STIFFNESS, l_shape, main, stiffness, torsion
from fem import (
    ConvergenceError,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    h1_error,
    hanging_nodes,
    integrate,
    unit_cube,
    unit_interval,
    unit_square,
)
from solvers import Adaptation, Newton, adapt, minimize
from solvers.adaptation.adapt import marked
from tests.problems import conduction, laplace, poisson


def over(degree: int, density: Callable[..., Tensor] = poisson, **held: float) -> Callable[[Mesh], Energy]:
    def build(mesh: Mesh) -> Energy:
        V = FunctionSpace(mesh, Lagrange(degree))
        return Energy(V, density, Dirichlet(V, held or {"boundary": 0.0}))

    return build


@pytest.mark.parametrize(("degree", "tol"), [(1, 0.2), (3, 0.01)])
def test_the_order_is_restored_at_a_reentrant_corner(degree: int, tol: float):
    """‖u − u_h‖ ~ n^(−d/2), where uniform meshes have n^(−⅓); the bound holds, as ‖u − u_h‖² = ∫u − ∫u_h."""
    answer = adapt(lambda mesh: torsion(mesh, degree), l_shape(), tol)
    assert answer.converged
    assert answer.bound is not None
    assert float(answer.history[-1].relative) <= tol
    missing = STIFFNESS - stiffness(answer.space, answer.value)
    assert 1 <= float(answer.bound) / missing**0.5 < 1.6
    first, last = answer.history[len(answer.history) // 2], answer.history[-1]
    rate = log(float(first.error / last.error)) / log(last.unknowns / first.unknowns)
    assert rate > 0.4 * degree
    assert answer.certificate is not None
    assert float(answer.certificate.lower_bound) <= missing**0.5
    sizes = [cycle.unknowns for cycle in answer.history]
    assert sizes == sorted(sizes)


@pytest.mark.slow
def test_a_stiffness_guaranteed_to_a_millionth():
    """With far less than a twentieth of the unknowns of uniform meshes."""
    figures = main(tol=3e-3)
    assert figures["missing"] < figures["bound"] < 1e-6
    assert figures["fewer"] > 100


def test_smooth_problems_are_refined_evenly():
    answer = adapt(over(1), unit_square(4, cell="triangle"), 0.1)
    cells = answer.space.mesh.nodes[answer.space.mesh.cells]
    area = torch.linalg.det(cells[:, 1:] - cells[:, :1])
    assert float(area.max() / area.min()) <= 32


def test_gradients_are_those_of_the_last_mesh():
    kappa = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def build(mesh: Mesh) -> tuple[Energy, tuple[Tensor]]:
        return over(1, conduction)(mesh), (kappa,)

    answer = adapt(build, unit_square(2, cell="triangle"), 0.4)
    energy, params = build(answer.space.mesh)
    (slope,) = torch.autograd.grad(answer.value.sum(), kappa)
    (direct,) = torch.autograd.grad(minimize(energy, params).value.sum(), kappa)
    torch.testing.assert_close(slope, direct)
    torch.testing.assert_close(slope, -answer.value.detach().sum() / kappa.detach())


def test_every_item_of_a_batch_meets_the_tolerance():
    """Loads at opposite corners: cells are small at both."""
    corners = torch.tensor([[0.1, 0.1], [0.9, 0.9]], dtype=torch.float64)

    def build(mesh: Mesh) -> tuple[Energy, tuple[Any]]:
        energy = over(2, lambda x, u, g, f: laplace(x, u, g) - f * u)(mesh)
        load = lambda x: torch.stack([torch.exp(-200 * (x - c).square().sum(-1)) for c in corners])  # noqa: E731
        space = energy.space
        assert isinstance(space, FunctionSpace)
        return energy, (space.function(load(space.dof_coordinates)),)

    answer = adapt(build, unit_square(4, cell="triangle"), 0.1)
    assert answer.value.shape[0] == 2
    assert bool((answer.history[-1].relative <= 0.1).all())
    centres = answer.space.mesh.nodes[answer.space.mesh.cells].mean(1)
    near = (torch.cdist(centres, corners) < 0.15).sum(0)
    other = (torch.cdist(centres, corners.flip(1) * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])) < 0.15).sum(0)
    assert int(near.min()) > 2 * int(other.max())


def quadrilaterals(mesh: Mesh) -> Energy:
    V = FunctionSpace(mesh, Lagrange(2))
    held: Any = Dirichlet(V, {"boundary": 0.0})
    return Energy(V, poisson, held if mesh.topology.hanging is None else hanging_nodes(V) & held)


def strip(mesh: Mesh) -> Energy:
    """Elasticity of a strip, held at the left and pulled down at the right."""
    V = FunctionSpace(mesh, Lagrange(1), components=2)
    bending = lambda x, u, g: 0.25 * (g + g.mT).square().sum((-1, -2)) + g.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2  # noqa: E731
    return Energy(V, bending, Dirichlet(V, {"left": 0.0}), boundary={"right": lambda x, u, normal: u[..., 1]})


ESTIMATED = {
    "hanging nodes": (quadrilaterals, unit_square(2), 0.03),
    "elasticity": (strip, unit_square(2, cell="triangle"), 0.2),
    "three dimensions": (over(1), unit_cube(2, cell="tetrahedron"), 0.4),
    "cubic in one": (over(3, lambda x, u, g: poisson(x, u, g, torch.exp(2 * x[..., 0]))), unit_interval(2), 1e-3),
    "reaction": (
        over(1, lambda x, u, g: (1 + u.square()) * u.square() + poisson(x, u, g)),
        unit_square(3, cell="triangle"),
        0.1,
    ),
    "nonlinear": (over(1, lambda x, u, g: (1 + g.square().sum(-1)).sqrt() - u), unit_square(3, cell="triangle"), 0.15),
}


def test_a_goal_asks_for_small_cells_where_it_depends_on_u():
    """Two loads in a medium in which all decays soon: the mean near one is nothing to the other."""
    at = torch.tensor([[0.2, 0.2], [0.8, 0.8]], dtype=torch.float64)
    near = lambda x, i: torch.exp(-200 * (x - at[i]).square().sum(-1))  # noqa: E731
    build = over(1, lambda x, u, g: laplace(x, u, g) + 200 * u.square() - (near(x, 0) + near(x, 1)) * u)
    mesh = unit_square(4, cell="triangle")
    answer = adapt(build, mesh, 0.05, goal=lambda V, u: integrate(V, lambda x, u, grad_u: near(x, 0) * u, u=u))
    assert answer.bound is None
    fine = answer.space.mesh
    close = (torch.cdist(fine.nodes[fine.cells].mean(1), at) < 0.2).sum(0)
    assert int(close[0]) > 4 * int(close[1])
    energy = build(fine.refine().refine())
    mean = lambda V, u: float(integrate(V, lambda x, u, grad_u: near(x, 0) * u, u=u, degree=12))  # noqa: E731
    error = abs(mean(energy.space, minimize(energy).value) - mean(answer.space, answer.value))
    assert 0.5 * error < float(answer.estimate) < 10 * error


@pytest.mark.parametrize("problem", list(ESTIMATED))
def test_where_nothing_is_guaranteed_an_estimate_serves(problem: str):
    """It is near to the distance from a solution on a mesh that is much finer."""
    build, mesh, tol = ESTIMATED[problem]
    answer = adapt(build, mesh, tol)
    assert answer.bound is None
    assert answer.certificate is None
    assert float(answer.history[-1].relative) <= tol
    fine = answer.space.mesh.refine().refine() if answer.space.mesh.dim < 3 else answer.space.mesh.refine()
    energy = build(fine)
    u = minimize(energy).value
    gap = float(answer.solution.energy - energy(u))
    assert 0.5 < float(answer.estimate) / (2 * gap) ** 0.5 < 1.25


def test_an_estimate_of_nothing_on_a_first_mesh_is_not_believed():
    """One tetrahedron, all of it prescribed: no degree sees a load there."""
    nodes = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    answer = adapt(over(1), Mesh(nodes, [[0, 1, 2, 3]], "tetrahedron"), 0.5, max_unknowns=3000)
    assert answer.space.mesh.num_cells > 100
    assert float(answer.value.abs().max()) > 0


def test_solutions_in_the_space_need_no_refinement():
    answer = adapt(over(1, laplace, left=0.0, right=1.0), unit_square(2, cell="triangle"), 1e-8)
    assert len(answer.history) == 1
    V = answer.space
    assert isinstance(V, FunctionSpace)
    assert float(h1_error(V, answer.value, lambda x: x[..., 0])) < 1e-12


def test_a_load_that_no_coarse_mesh_sees_is_found():
    """Fine rules of the bound see it, which it says by being large."""

    def build(mesh: Mesh) -> tuple[Energy, tuple[Any]]:
        return over(2, poisson)(mesh), (lambda x: torch.exp(-2000 * (x - 0.37).square().sum(-1)),)

    answer = adapt(build, unit_square(4, cell="triangle"), 0.2)
    assert float(answer.history[0].relative) > 1
    assert float(answer.history[-1].relative) <= 0.2


def test_warnings_are_those_of_the_last_mesh():
    def build(mesh: Mesh) -> tuple[Energy, tuple[Any]]:
        return over(1, poisson)(mesh), (lambda x: ((x - 0.37).norm(dim=-1) < 0.1).to(x),)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapt(build, unit_square(4, cell="triangle"), 1e-3, max_cycles=8, throw=False)  # two of them would warn
    (note,) = told
    assert "far above the error" in str(note.message)


def test_marked_cells_are_the_fewest():
    shares = torch.tensor([1.0, 3.0, 2.0, 0.5], dtype=torch.float64)
    assert marked(shares, 0.5).tolist() == [1]
    assert marked(shares, 0.7).tolist() == [1, 2]
    assert marked(torch.zeros(3, dtype=torch.float64), 0.5).tolist() == [0, 1, 2]
    both = torch.stack([shares, 1e-9 * shares.flip(0)])
    assert set(marked(both, 0.6).tolist()) == {1, 2}


def test_what_cannot_be_reached_says_what_was():
    with pytest.raises(
        ConvergenceError, match=r"`max_unknowns=100` is passed. The bound of the error is .* unknowns"
    ) as e:
        adapt(over(1), unit_square(2, cell="triangle"), 1e-6, max_unknowns=100)
    reached = e.value.solution
    assert isinstance(reached, Adaptation)
    assert not reached.converged
    assert "not converged" in repr(reached)
    answer = adapt(over(1), unit_square(2, cell="triangle"), 1e-6, max_cycles=2, throw=False)
    assert len(answer.history) == 2
    assert answer.value.shape == answer.space.shape


def test_what_is_asked_wrongly():
    mesh = unit_square(2, cell="triangle")
    with pytest.raises(TypeError, match="a function that returns an `Energy`"):
        adapt(lambda mesh: 3, mesh)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="over the mesh that it is given"):
        adapt(lambda _: over(1)(unit_square(2)), mesh)
    with pytest.raises(ValueError, match=r"`adapt\(share=...\)` must lie in"):
        adapt(over(1), mesh, share=2.0)
    with pytest.raises(ValueError, match="tol"):
        adapt(over(1), mesh, tol=-1.0)
    with pytest.raises(ValueError, match="hanging_nodes"):
        adapt(over(2), unit_square(2), 1e-3)
    assert adapt(over(1), mesh, 0.5, method=Newton()).converged
