"""Periodic grids: which ties make them, and what multigrid makes of them."""

import math
from collections.abc import Callable
from typing import Any

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
    Periodic,
    Ties,
    box,
    l2_error,
    unit_cube,
    unit_square,
)
from solvers import CG, Direct, Multigrid, minimize
from solvers.linear.choice import beyond_cells, default_linear
from solvers.linear.grids.coarsening import widths
from solvers.linear.grids.hierarchy import GridHierarchy
from solvers.linear.multigrid import PreparedMultigrid
from solvers.operators.periodic_grid import grid_of_form
from solvers.operators.system import System
from tests.problems import diffusion, laplace, poisson
from tests.solvers.systems import elasticity

SIDES = {"right": "left", "top": "bottom", "front": "back"}


def space(cells: tuple[int, ...], degree: int = 1, components: int | None = None) -> FunctionSpace:
    mesh = box((0.0,) * len(cells), tuple(n / 8 for n in cells), cells)
    return FunctionSpace(mesh, Lagrange(degree), components=components)


def periodic(V: FunctionSpace, axes: int) -> Any:
    """Periodic along the first axes, and held at both ends of the next, or without mean if there is none."""
    ties = Periodic(V, dict(list(SIDES.items())[:axes]))
    if axes == V.mesh.dim:
        return ties & MeanZero(V)
    first, last = list(SIDES.items())[axes]
    return Dirichlet(V, {first: 0.0, last: 1.0}) & ties


def rough_system(V: FunctionSpace, constraint: Any, batch: int = 2, low: float = 0.5) -> System:
    """Random conductivities, or moduli, per cell."""
    k = low + torch.rand(batch, V.mesh.num_cells, dtype=V.dtype, generator=torch.manual_seed(0))
    density = diffusion if V.components is None else lambda x, u, g, k: k * elasticity(x, u, g)
    form = Energy(V, density, constraint).discrete_form((V.per_cell(k),))
    return System(form, torch.zeros(batch, *V.shape, dtype=V.dtype))


def axes_of(constraint: Any) -> tuple[bool, ...] | None:
    grid = grid_of_form(Energy(constraint.space, laplace, constraint).discrete_form(()), 1)
    return None if grid is None else grid.periodic


def test_which_ties_make_a_grid_periodic() -> None:
    V, W = space((3, 4), 2), space((2, 3, 2))
    assert axes_of(Periodic(V, {"right": "left"})) == (False, True)
    assert axes_of(Periodic(V, {"bottom": "top"}) & Periodic(V, {"left": "right"})) == (True, True)
    assert axes_of(Periodic(W, {"front": "back", "right": "left"}) & MeanZero(W)) == (True, False, True)
    assert axes_of(Dirichlet(V, {"top": 0.0, "left": 0.0}) & Periodic(V, {"top": "bottom"})) == (False, False)
    assert axes_of(Dirichlet(V, {"left": 0.0}) & Periodic(V, {"top": "bottom"})) == (True, False)
    assert axes_of(Dirichlet(V, {"left": 0.0})) == ()
    wrapped = Periodic(V, {"right": "left"})
    rows = torch.tensor(wrapped.matrix.toarray(), dtype=V.dtype)[wrapped.slaves]
    offset = torch.rand(len(rows), dtype=V.dtype)
    assert axes_of(Ties(V, wrapped.slaves, rows, offset)) == (False, True)
    assert axes_of(Ties(V, wrapped.slaves[1:], rows[1:])) is None
    assert axes_of(Ties(V, wrapped.slaves, rows.roll(1, 0))) is None
    assert axes_of(Ties(V, wrapped.slaves, 2 * rows)) is None
    assert axes_of(Periodic(V, {"right": "left"}, sign=-1)) is None
    eye = torch.eye(V.num_dofs, dtype=V.dtype)
    assert axes_of(wrapped & Ties(V, [9], eye[10:11])) is None
    vector = space((3, 3), 1, 2)
    own = Periodic(vector, {"right": "left"})
    assert axes_of(own) == (False, True)
    first = own.slaves[::2]
    assert axes_of(Ties(vector, first, torch.tensor(own.matrix.toarray(), dtype=V.dtype)[first])) is None


@pytest.mark.parametrize(
    ("cells", "degree", "components", "axes"),
    [
        ((37,), 2, None, 1),
        ((18, 21), 1, None, 1),
        ((18, 21), 1, None, 2),
        ((9, 12), 2, None, 2),
        ((6, 7), 3, None, 1),
        ((12, 9), 1, 2, 2),
        ((7, 6, 5), 1, None, 1),
        ((7, 6, 5), 1, None, 2),
        ((6, 8, 7), 1, None, 3),
        ((3, 4, 3), 2, None, 3),
        ((4, 4, 5), 1, 3, 3),
        ((1, 40), 1, None, 2),
    ],
)
def test_solutions_agree_with_direct_ones(
    cells: tuple[int, ...], degree: int, components: int | None, axes: int
) -> None:
    V = space(cells, degree, components)
    system = rough_system(V, periodic(V, axes))
    rhs = torch.randn(system.u.shape, dtype=V.dtype, generator=torch.manual_seed(1))
    assert system.stencil is not None
    expected = Direct("superlu").prepare(system).solve(rhs)
    for method in (Multigrid(rtol=1e-13), CG(rtol=1e-13, preconditioner=Multigrid())):
        prepared = method.prepare(system)
        found, wanted = (system.form.linear_part(x) for x in (prepared.solve(rhs), expected))
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
        assert not bool((prepared.singular | prepared.indefinite).any())


@pytest.mark.parametrize("axes", [1, 2])
def test_a_cycle_is_symmetric_and_close_to_the_inverse(axes: int) -> None:
    """Between dofs that are different, whatever stands for one that is tied."""
    V = space((13, 14))
    system = rough_system(V, Dirichlet(V, {"left": 0.0} if axes == 1 else {}) & Periodic(V, {"top": "bottom"}), 1)
    if axes == 2:
        system = rough_system(V, Periodic(V, dict(list(SIDES.items())[:2])), 1)
    assert system.stencil is not None
    prepared = PreparedMultigrid(system, Multigrid())
    prepared.hierarchy = GridHierarchy(system.stencil, system.fixed_images, widths(V), torch.float64)
    v = torch.randn(24, *system.u.shape, dtype=V.dtype, generator=torch.manual_seed(4))
    r = torch.stack([system.apply(w) for w in v])  # in balance, so that the free torus is no exception
    z = torch.stack([prepared.precondition(w) for w in r])
    M, A = (r.flatten(1) @ z.flatten(1).T), (v.flatten(1) @ r.flatten(1).T)
    torch.testing.assert_close(M, M.T, rtol=1e-11, atol=1e-12 * float(M.abs().max()))
    values = torch.linalg.eigvals(torch.linalg.solve(A, M)).real
    assert bool(((values > 0.2) & (values < 1.1)).all())


@pytest.mark.parametrize(
    ("make", "degree", "sizes"), [(unit_square, 1, (33, 96)), (unit_square, 3, (10, 20)), (unit_cube, 1, (9, 16))]
)
def test_iterations_are_those_of_prescribed_sides(make: Callable[..., Mesh], degree: int, sizes: Any) -> None:
    counts: dict[str, list[int]] = {"held": [], "one": [], "all": []}
    for n in sizes:
        V = FunctionSpace(make(n), Lagrange(degree))
        x = V.mesh.nodes[V.mesh.cells].mean(1)
        phase = torch.tensor([1.0, 2.0, 3.0], dtype=V.dtype)[: V.mesh.dim]
        nu = 1e3 ** (0.5 + 0.5 * torch.sin(2 * math.pi * x + phase).mean(-1))
        b = torch.randn(V.shape, dtype=V.dtype, generator=torch.manual_seed(2))
        constraints = {"held": Dirichlet(V, {"boundary": 0.0}), "one": periodic(V, 1), "all": periodic(V, V.mesh.dim)}
        for name, constraint in constraints.items():
            form = Energy(V, diffusion, constraint).discrete_form((V.per_cell(nu),))
            system = System(form, torch.zeros(V.shape, dtype=V.dtype))
            prepared = Multigrid(rtol=1e-8).prepare(system)
            rest = system.project(b) - system.apply(prepared.solve(b))
            assert float(rest.norm()) <= 1.01e-8 * float(system.project(b).norm())
            counts[name].append(int(prepared.iterations))
    for found in counts.values():
        assert max(found) <= max(counts["held"]) + 2
        assert found[-1] <= found[0] + 1


@pytest.mark.parametrize("degree", [1, 2])
def test_exact_solutions_at_their_rates(degree: int) -> None:
    def exact(x: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * x[..., 0]) * torch.sin(math.pi * x[..., 1])

    errors = []
    for n in (12, 24):
        V = FunctionSpace(unit_square(n), Lagrange(degree))
        both = Dirichlet(V, {"bottom": 0.0, "top": 0.0}) & Periodic(V, {"right": "left"})
        load = lambda x: 5 * math.pi**2 * exact(x)  # noqa: E731
        found = minimize(Energy(V, poisson, both), (load,), method=Multigrid())
        errors.append(float(l2_error(V, found.value, exact)))
        assert torch.equal(both.apply(found.value), found.value)
    assert math.log2(errors[0] / errors[1]) > degree + 0.8


def test_a_batch_is_what_its_items_are_and_an_item_that_is_not_finite_leaves_the_others() -> None:
    V = space((20, 16))
    both = Dirichlet(V, {"bottom": torch.tensor([[0.0], [1.0], [2.0]], dtype=V.dtype).expand(3, 21)}) & Periodic(
        V, {"right": "left"}
    )
    k = torch.rand(3, V.mesh.num_cells, dtype=V.dtype, generator=torch.manual_seed(0)) + 0.1
    density = lambda x, u, g, k: diffusion(x, u, g, k) - u * x[..., 0]  # noqa: E731
    energy = Energy(V, density, both)
    together = minimize(energy, (V.per_cell(k),), method=Multigrid()).value
    for item in range(3):
        held = Dirichlet(V, {"bottom": float(item)}) & Periodic(V, {"right": "left"})
        alone = minimize(Energy(V, density, held), (V.per_cell(k[item]),), method=Multigrid()).value
        torch.testing.assert_close(together[item], alone, rtol=1e-11, atol=1e-12)
    system = System(energy.discrete_form((V.per_cell(k),)), torch.zeros(3, *V.shape, dtype=V.dtype))
    rhs = torch.ones(3, *V.shape, dtype=V.dtype)
    rhs[1, 40] = torch.inf
    x = Multigrid(rtol=1e-10).prepare(system).solve(rhs)
    assert torch.isfinite(x).all(-1).tolist() == [True, False, True]


def test_void_cells_beside_a_periodic_side_leave_its_nodes_to_the_cells_beyond() -> None:
    V = space((16, 12))
    k = torch.ones(12, 16, dtype=V.dtype)
    k[:, -1] = 0
    energy = Energy(V, lambda x, u, g, k: diffusion(x, u, g, k) - u, periodic(V, 1))
    found, expected = (minimize(energy, (V.per_cell(k.flatten()),), method=m).value for m in (Multigrid(), Direct()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gradients_in_coefficients_and_prescribed_values() -> None:
    V = space((9, 8))

    def functional(k: Tensor, g: Tensor, method: Any) -> Tensor:
        both = Dirichlet(V, {"bottom": g, "top": 0.0}) & Periodic(V, {"right": "left"})
        density = lambda x, u, grad_u, k: diffusion(x, u, grad_u, k) - u * x[..., 0]  # noqa: E731
        u = minimize(Energy(V, density, both), (V.per_cell(k),), method=method).value
        return (u * torch.linspace(1, 2, V.num_dofs, dtype=V.dtype)).sum()

    generator = torch.manual_seed(0)
    k = (0.5 + torch.rand(72, dtype=V.dtype, generator=generator)).requires_grad_()
    g = torch.rand(10, dtype=V.dtype, generator=generator)
    g[-1] = g[0]
    g = g.requires_grad_()
    found, expected = (torch.autograd.grad(functional(k, g, m), (k, g)) for m in (Multigrid(), Direct()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    mg = lambda k, t: functional(k, g.detach() + t, Multigrid())  # noqa: E731
    t = torch.zeros((), dtype=V.dtype, requires_grad=True)
    assert torch.autograd.gradcheck(mg, (k, t), fast_mode=True)
    assert torch.autograd.gradgradcheck(mg, (k, t), fast_mode=True)


def test_large_periodic_grids_are_solved_by_multigrid_by_default() -> None:
    V = space((20, 20, 20))
    for constraint, beyond in ((periodic(V, 2), False), (Periodic(V, {"right": "left"}, sign=-1), True)):
        form = Energy(V, laplace, constraint).discrete_form(())
        assert beyond_cells(form) == beyond
        assert isinstance(default_linear(V, True, couples_neighbours=beyond_cells(form)), Multigrid) == (not beyond)
    with pytest.raises(ValueError, match="which ties dofs of different cells"):
        minimize(Energy(V, laplace, Periodic(V, {"right": "left"}, sign=-1)), method=Multigrid())


def test_averages_are_those_of_all_ends() -> None:
    V = space((3, 2, 4), 2, 2)
    grid = grid_of_form(Energy(V, elasticity, Periodic(V, SIDES)).discrete_form(()), 2)
    assert grid is not None
    assert grid.periodic == (True, True, True)
    u = torch.rand(2, V.num_dofs, dtype=V.dtype)
    flat = grid.pack(u.view(2, *V.shape), grid.shifted(grid.buffer(u)))
    T = torch.tensor(Periodic(V, SIDES).matrix.toarray(), dtype=V.dtype)
    T = T[:, T.any(0)]
    expected = u @ T @ torch.linalg.inv(T.T @ T) @ T.T
    torch.testing.assert_close(grid.unpack(grid.averaged(flat)).flatten(1), expected)
    basis = grid.periodic_basis(u)
    projection = basis @ torch.linalg.inv(basis.T @ basis) @ basis.T
    found = grid.items(flat).flatten(1) @ projection
    torch.testing.assert_close(found, grid.items(grid.averaged(flat)).flatten(1))
