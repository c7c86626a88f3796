"""Ties: affine maps and their transposes, hanging nodes, derivatives, and what every linear method makes of them."""

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
    MixedSpace,
    Periodic,
    Ties,
    unit_interval,
    unit_square,
)
from fem.constraints.ties import ties_of
from solvers import (
    CG,
    AlgebraicMultigrid,
    Direct,
    FastDiagonalization,
    Multigrid,
    Newton,
    certify,
    minimize,
)
from tests.problems import conduction, laplace, poisson, taylor_rates


def halves() -> tuple[FunctionSpace, Ties]:
    """[0, 1] × [0, 1] in two rows of cells, the upper ones half as wide: every second node between them hangs."""
    x, y = torch.meshgrid(torch.linspace(0, 1, 5), torch.tensor([0.5, 1.0]), indexing="ij")
    lower = unit_square(2, 1)
    nodes = torch.cat([lower.nodes * torch.tensor([1, 0.5]), torch.stack([x.flatten(), y.flatten()], 1).double()])
    number = torch.arange(10).reshape(5, 2) + lower.num_nodes
    upper = torch.stack([number[:-1, 0], number[1:, 0], number[1:, 1], number[:-1, 1]], 1)
    cells = torch.cat([lower.cells, upper])
    tags = {"around": lambda p: (p[..., 0] == 0) | (p[..., 0] == 1) | (p[..., 1] == 0) | (p[..., 1] == 1)}
    mesh = Mesh(nodes, cells, cell="quadrilateral", facet_tags=tags, merge=False)
    V = FunctionSpace(mesh, Lagrange(1))
    at = V.dof_coordinates
    line = [int(k) for k in torch.nonzero(at[:, 1] == 0.5).flatten()]
    coarse, fine = [k for k in line if k < lower.num_nodes], [k for k in line if k >= lower.num_nodes]
    matrix = torch.zeros(len(fine), V.num_dofs, dtype=V.dtype)
    for row, k in enumerate(fine):
        for j in coarse:
            matrix[row, j] = (1 - 2 * (at[k, 0] - at[j, 0]).abs()).clamp(min=0)
    return V, Ties(V, fine, matrix)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- the map -----------------------------------------------------------------------------------------------------------


def test_the_map_its_linear_part_and_its_transpose() -> None:
    """u = T w + g; ⟨T v, r⟩ = ⟨v, Tᵀ r⟩, batched, with prescribed values and offsets."""
    V = FunctionSpace(unit_interval(5), Lagrange(1))
    matrix = torch.zeros(2, 6, dtype=torch.float64)
    matrix[0, 1], matrix[0, 4], matrix[1, 0] = 0.5, -2.0, 3.0
    g = torch.tensor([1.0, -1.0], dtype=torch.float64)
    tied = Dirichlet(V, {"left": 2.0}) & Ties(V, [2, 3], matrix.to_sparse(), g)
    u, v, r = random(4, 6), random(4, 6, seed=1), random(4, 6, seed=2)
    found = tied.apply(u)
    wanted = u.clone()
    wanted[:, 0] = 2
    wanted[:, 2], wanted[:, 3] = 0.5 * u[:, 1] - 2 * u[:, 4] + 1, 3 * 2.0 - 1
    torch.testing.assert_close(found, wanted)
    data = tied.data()
    torch.testing.assert_close(tied.insert(u + v, data) - tied.insert(u, data), tied.linear(v, data))
    torch.testing.assert_close((tied.linear(v, data) * r).sum(-1), (v * tied.project(r, data)).sum(-1))
    assert tied.fixed.tolist() == [True, False, True, True, False, False]


def test_hanging_nodes_pass_the_patch_test() -> None:
    """Linear functions are exact across a line with hanging nodes, and nothing jumps."""
    V, ties = halves()
    exact = lambda x: 1 + 2 * x[..., 0] - 3 * x[..., 1]  # noqa: E731
    held = Dirichlet(V, {"around": exact})
    free = torch.nonzero(~held.fixed[ties.slaves]).flatten()
    kept = Ties(V, ties.slaves[free], torch.tensor(ties.matrix.toarray())[ties.slaves[free]])
    for method in (None, CG()):
        u = minimize(Energy(V, laplace, held & kept), method=method).value
        torch.testing.assert_close(u, V.interpolate(exact))


# -- solves ------------------------------------------------------------------------------------------------------------


def tied_problem(offset: Tensor | None = None) -> tuple[FunctionSpace, Energy]:
    """Two dofs inside a square follow others, beside prescribed values."""
    V = FunctionSpace(unit_square(6), Lagrange(1))
    matrix = torch.zeros(2, V.num_dofs, dtype=V.dtype)
    matrix[0, 10], matrix[0, 11], matrix[1, 30] = 0.5, 0.25, -1.0
    return V, Energy(V, conduction, Dirichlet(V, {"left": lambda x: x[..., 1]}) & Ties(V, [24, 17], matrix, offset))


@pytest.mark.parametrize("method", [Direct(), CG(), AlgebraicMultigrid(), CG(preconditioner=AlgebraicMultigrid())])
def test_linear_methods_serve_ties(method: Any) -> None:
    """Against the dense reduced system, in batches."""
    V, energy = tied_problem(torch.tensor([0.3, -0.1], dtype=torch.float64))
    k = 1 + random(3, V.num_dofs)
    u = minimize(energy, (V.function(k), 1.0), method=Newton(linear=method)).value
    ties = ties_of(energy.constraint)
    assert ties is not None
    T = torch.tensor(ties.matrix.toarray())[:, ~ties.fixed]
    start = ties.apply(V.interpolate(0.0))
    whole = Energy(V, conduction)
    for item, found in zip(k, u, strict=True):
        params = V.function(item), 1.0
        H, r = whole.hessian(start, *params).to_dense(), whole.residual(start, *params)
        torch.testing.assert_close(found, start - T @ torch.linalg.solve(T.T @ H @ T, T.T @ r))


def test_what_knows_no_ties_says_so() -> None:
    V, energy = tied_problem()
    params = 1.0, 1.0
    u = minimize(energy, params).value
    with pytest.raises(ValueError, match="which ties dofs of different cells"):
        minimize(energy, params, method=Multigrid())
    with pytest.raises(ValueError, match="FastDiagonalization"):
        minimize(energy, params, method=FastDiagonalization())
    with pytest.raises(ValueError, match="certificates know no ties and no free bodies"):
        certify(energy, u, params)
    with pytest.raises(ValueError, match="`lower` and `upper` do not go with ties"):
        minimize(energy, params, lower=0.0)
    for constraint in (energy.constraint, Ties(V, [24], torch.eye(V.num_dofs, dtype=V.dtype)[:1]) & MeanZero(V)):
        with pytest.raises(ValueError, match=r"`hessian` knows no ties .*`hessian_product"):
            Energy(V, laplace, constraint).hessian(u)


def test_derivatives_through_ties() -> None:
    """In parameters and in offsets, by Taylor tests."""

    def value(t: Tensor) -> Tensor:
        V, energy = tied_problem(t[:2])
        return minimize(energy, (V.function(1 + t[2:]), 1.0)).value.square().sum()

    t, d = random(2 + 49), random(2 + 49, seed=1)
    assert min(taylor_rates(value, t, d)) > 1.9


def test_nonlinear_energies() -> None:
    """The residual vanishes at free dofs, what slaves owe being with their masters."""
    V = FunctionSpace(unit_square(6), Lagrange(1))
    matrix = torch.zeros(1, V.num_dofs, dtype=V.dtype)
    matrix[0, 10] = 1.0
    both = Dirichlet(V, {"boundary": 0.0}) & Ties(V, [24], matrix)
    density = lambda x, u, grad_u: (1 + grad_u.square().sum(-1)) ** 0.75 - 20 * u  # noqa: E731
    energy = Energy(V, density, both)
    u = minimize(energy).value
    assert float(u[24] - u[10]) == 0
    r = Energy(V, density).residual(u)
    assert float((r[10] + r[24]).abs()) < 1e-10
    r[10] = r[24] = 0
    assert float(r.masked_fill(both.fixed, 0).abs().max()) < 1e-10


def test_magnitudes_hold_what_slaves_contribute() -> None:
    """The scale against which a residual is small is nowhere below it, however stiff a slave's cells are."""
    V, energy = tied_problem()
    k = torch.ones(V.num_dofs, dtype=V.dtype)
    k[24] = 1e6
    form = energy.discrete_form((V.function(k), 1.0))
    found = form.evaluate(random(V.num_dofs))
    assert float(found.residual[10].abs()) > 1e3
    assert bool((found.magnitude >= found.residual.abs() * (1 - 1e-12)).all())


def test_a_mean_beside_ties() -> None:
    """Pure Neumann with two dofs tied: the mean vanishes, and so does their difference."""
    V = FunctionSpace(unit_square(5), Lagrange(1))
    matrix = torch.zeros(1, V.num_dofs, dtype=V.dtype)
    matrix[0, 0] = 1.0
    load = lambda x: x[..., 0] - 0.5  # noqa: E731
    for constraint in (Ties(V, [35], matrix) & MeanZero(V), MeanZero(V) & Ties(V, [35], matrix)):
        for method in (None, CG()):
            u = minimize(Energy(V, poisson, constraint), (load,), method=method).value
            assert float(u[35] - u[0]) == pytest.approx(0, abs=1e-12)
            assert float(MeanZero(V).data() @ u) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="do not let field 0 be shifted by a constant"):
        Ties(V, [35], 2 * matrix) & MeanZero(V)


def test_any_order_of_joining_is_the_same() -> None:
    """Corners of a periodic square that are prescribed too, and a dof that follows others with an offset."""
    V = FunctionSpace(unit_square(3), Lagrange(1))
    matrix = torch.zeros(1, 16, dtype=V.dtype)
    matrix[0, 9] = 2.0
    held, along = Dirichlet(V, {"left": 1.0}), Periodic(V, {"top": "bottom"})
    tied, u = Ties(V, [6], matrix, torch.ones(1, dtype=V.dtype)), random(16)
    orders = [(held & along) & tied, held & (along & tied), (along & tied) & held, (tied & held) & (along & held)]
    orders += [tied & along & held, held & tied & along]
    for both in orders:
        torch.testing.assert_close(both.apply(u), orders[0].apply(u), rtol=0, atol=0)
        assert torch.equal(both.fixed, orders[0].fixed)
    assert float(orders[0].apply(u)[6] - 2 * u[9]) == pytest.approx(1)
    across = Periodic(V, {"right": "left"})
    whole = Periodic(V, {"top": "bottom", "right": "left"}) & tied
    for both in (along & (tied & across), (along & tied) & across, across & along & tied):
        torch.testing.assert_close(both.apply(u), whole.apply(u), rtol=0, atol=0)
    for joined in (lambda t: (held & along) & t, lambda t: held & (along & t), lambda t: (held & t) & along):
        with pytest.raises(ValueError, match="dof 4 is tied to others and prescribed too"):
            joined(Ties(V, [4], matrix))


# -- wrong calls -------------------------------------------------------------------------------------------------------


def test_wrong_calls() -> None:
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    eye = torch.eye(5, dtype=V.dtype)
    with pytest.raises(ValueError, match=r"must be \(1, 5\).*got \(2, 5\)"):
        Ties(V, [1], eye[:2])
    with pytest.raises(ValueError, match="dof 2 is tied to others and has others tied to it"):
        Ties(V, [1, 2], eye[[2, 3]])
    with pytest.raises(ValueError, match="1 of 2 are given twice"):
        Ties(V, [1, 1], eye[[2, 3]])
    with pytest.raises(ValueError, match=r"must lie in \[0, 5\)"):
        Ties(V, [7], eye[:1])
    with pytest.raises(TypeError, match=r"float32 but the space is torch\.float64"):
        Ties(V, [1], eye[:1].float())
    with pytest.raises(ValueError, match="dof 0 is tied to others and prescribed too"):
        Dirichlet(V, {"left": 0.0}) & Ties(V, [0], eye[2:3])
    twice = Dirichlet(V, {"left": 0.0}) & Ties(V, [1], eye[2:3]) & Dirichlet(V, {"right": 2.0})
    assert twice.apply(torch.ones(5, dtype=V.dtype)).tolist() == [0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match=r"dof 0 is prescribed twice, as 0\.0 and as 1\.0"):
        Dirichlet(V, {"left": 0.0}) & Ties(V, [1], eye[2:3]) & Dirichlet(V, {"left": 1.0})
    with pytest.raises(ValueError, match="one and the same space"):
        Dirichlet(FunctionSpace(V.mesh, Lagrange(1)), {"left": 0.0}) & Ties(V, [1], eye[2:3])
    with pytest.raises(ValueError, match="ties have no derivatives in their coefficients"):
        Ties(V, [1], eye[2:3].clone().requires_grad_())
    with pytest.raises(ValueError, match=r"`Ties\(offset=...\)` must be \(\.\.\., 1\), like the dofs; got \(2,\)"):
        Ties(V, [1], eye[2:3], torch.zeros(2, dtype=V.dtype))
    with pytest.raises(ValueError, match="holds numbers that are not finite"):
        Ties(V, [1], eye[2:3], torch.tensor([float("nan")], dtype=V.dtype))
    with pytest.raises(TypeError, match=r"`Ties\(offset=...\)` is torch\.float32 but the space is torch\.float64"):
        Ties(V, [1], eye[2:3], torch.zeros(1))
    W = MixedSpace(V, V)
    both = Ties(W, [1], torch.eye(10, dtype=V.dtype)[7:8]) & Ties(W, [3], torch.eye(10, dtype=V.dtype)[9:])
    assert sorted(both.slaves.tolist()) == [1, 3]


def test_chains_and_repeated_ties_become_one_set() -> None:
    """u1 = 2 u2 + 1 with u2 = 3 u3 + 4 is u1 = 6 u3 + 9, in either order; a tie that says the same twice is one."""
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    eye = torch.eye(5, dtype=V.dtype)
    one, four = torch.tensor([1.0], dtype=V.dtype, requires_grad=True), torch.tensor([4.0], dtype=V.dtype)
    a, b = Ties(V, [1], 2 * eye[2:3], one), Ties(V, [2], 3 * eye[3:4], four)
    same = Ties(V, [1], 6 * eye[3:4], torch.tensor([9.0], dtype=V.dtype))
    u = random(5)
    for both in (a & b, b & a, a & b & same, Dirichlet(V, {"right": u[4]}) & a & b):
        found = both.apply(u)
        torch.testing.assert_close(found, torch.stack([u[0], 6 * u[3] + 9, 3 * u[3] + 4, u[3], u[4]]))
        assert torch.autograd.grad(found.sum(), one)[0].tolist() == [1.0]
    with pytest.raises(ValueError, match="dof 1 is tied twice, and not to the same"):
        _ = a & Ties(V, [1], eye[2:3])
    with pytest.raises(ValueError, match="tied twice, with offsets that differ by 1"):
        _ = a & Ties(V, [1], 2 * eye[2:3], torch.tensor([2.0], dtype=V.dtype))
    with pytest.raises(ValueError, match="tied in circles"):
        _ = a & Ties(V, [2], eye[1:2])
