"""Global unknowns: multipliers of integrals and what they are worth, derivatives, batches, one full row each."""

from math import pi

import pytest
import torch
from torch import Tensor

from fem import (
    BSpline,
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    Reals,
    RigidMotionFree,
    WeakForm,
    gradient,
    integrate,
    jump,
    unit_cube,
    unit_interval,
    unit_square,
)
from solvers import CG, AlgebraicMultigrid, Direct, FastDiagonalization, Multigrid, minimize, solve
from tests.problems import mixed_mesh, poisson

MESHES = {
    "intervals": lambda: unit_interval(7),
    "grid": lambda: unit_square(48),
    "mixed": mixed_mesh,
    "tetrahedra": lambda: unit_cube(2, cell="tetrahedron"),
}


def load(x: Tensor) -> Tensor:
    return 1 + x[..., 0] + torch.sin(3 * x.sum(-1))


def held(x: Tensor, u: tuple[Tensor, ...], grad_u: tuple[Tensor, ...], f: Tensor, k: Tensor | float = 1.0) -> Tensor:
    """½ k |∇u|² − f u + λ u."""
    return 0.5 * k * grad_u[0].square().sum(-1) - f * u[0] + u[1] * u[0]


@pytest.mark.parametrize("name", MESHES)
def test_a_mean_with_its_multiplier(name: str) -> None:
    """Pure Neumann with ∫ λ u: the answer of `MeanZero`, and λ is the mean of the load."""
    mesh = MESHES[name]()
    V = FunctionSpace(mesh, Lagrange(1 if name == "grid" else 2))
    W = MixedSpace(V, Reals(mesh))
    u, multiplier = W.split(solve(Energy(W, held), (load,)).value)
    mean = integrate(V, load, degree=V.quadrature_degree) / integrate(V, 1.0)
    wanted = minimize(Energy(V, poisson, MeanZero(V)), (lambda x: load(x) - mean,)).value
    torch.testing.assert_close(u, wanted, rtol=0, atol=1e-11)
    torch.testing.assert_close(multiplier[0], mean, rtol=1e-11, atol=0)


def test_a_flux_through_a_uniform_pressure() -> None:
    """∫_right u = Q under an unknown pressure p on the right, u = 0 on the left: u = p x with p = Q."""
    mesh = unit_square(5, cell="triangle")
    W = MixedSpace(FunctionSpace(mesh, Lagrange(1)), Reals(mesh))
    flux = lambda x, u, normal, Q: -u[1] * (u[0] - Q)  # noqa: E731
    energy = Energy(
        W, lambda x, u, grad_u, Q: 0.5 * grad_u[0].square().sum(-1), Dirichlet(W, {("left", 0): 0.0}), {"right": flux}
    )
    u, p = W.split(solve(energy, (3.0,)).value)
    torch.testing.assert_close(u, 3 * mesh.nodes[:, 0])
    torch.testing.assert_close(p, torch.full_like(p, 3.0))


def test_several() -> None:
    """Three multipliers hold the rigid motions of a plane body: its strains are those of `RigidMotionFree`."""
    mesh = mixed_mesh()
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    W = MixedSpace(V, Reals(mesh, 3))

    def elastic(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        strain = 0.5 * (grad_u + grad_u.mT)
        return strain.square().sum((-2, -1)) + 0.5 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()

    def motions(x: Tensor, u: Tensor) -> Tensor:
        return torch.stack([u[..., 0], u[..., 1], x[..., 0] * u[..., 1] - x[..., 1] * u[..., 0]], -1)

    pull = lambda x, u, normal: -(x[..., 1] - 0.5).square() * u[..., 0] * normal[..., 0]  # noqa: E731
    energy = Energy(
        W,
        lambda x, u, grad_u: elastic(x, u[0], grad_u[0]) + (u[1] * motions(x, u[0])).sum(-1),
        boundary={"boundary": lambda x, u, normal: pull(x, u[0], normal)},
    )
    u, multipliers = W.split(solve(energy).value)
    assert multipliers.shape == (1, 3)
    assert float(multipliers.abs().max()) < 1e-12
    free = minimize(Energy(V, elastic, RigidMotionFree(V), boundary={"boundary": pull})).value
    strains = integrate(V, lambda x, u, g: elastic(x, u, g), u=V.function(u - free))
    assert float(strains) < 1e-22


def test_derivatives_and_batches() -> None:
    """First and second ones of u and λ in the load, the stiffness and the nodes; a batch is its items."""
    mesh = unit_square(1, cell="triangle")
    nodes = mesh.nodes + 0.05 * torch.rand(mesh.nodes.shape, dtype=torch.float64, generator=torch.manual_seed(0))

    def answer(f: Tensor, k: Tensor, x: Tensor) -> Tensor:
        moved = mesh.with_nodes(x)
        V = FunctionSpace(moved, Lagrange(1))
        W = MixedSpace(V, Reals(moved))
        return solve(Energy(W, held), (V.function(f), Constant(k[..., 0], ()))).value

    f = torch.rand(2, mesh.num_nodes, dtype=torch.float64, generator=torch.manual_seed(1), requires_grad=True)
    k = torch.tensor([[1.0], [2.5]], dtype=torch.float64, requires_grad=True)
    x = nodes.requires_grad_()
    together = answer(f, k, x)
    for i in range(2):
        torch.testing.assert_close(together[i], answer(f[i], k[i], x))
    assert torch.autograd.gradcheck(answer, (f, k, x), fast_mode=True)
    assert torch.autograd.gradgradcheck(answer, (f.detach()[:1], k[:1], x), fast_mode=True)


def test_one_full_row_each() -> None:
    """The matrix has n more entries in a row and in a column for each, and is that of the energy."""
    mesh = unit_square(6)
    V, R = FunctionSpace(mesh, Lagrange(1)), Reals(mesh, 2)
    W = MixedSpace(V, R)

    def density(x: Tensor, u: tuple[Tensor, Tensor], grad_u: tuple[Tensor, Tensor]) -> Tensor:
        constraints = torch.stack([u[0], x[..., 0] * u[0].square()], -1)
        return 0.5 * grad_u[0].square().sum(-1) + (u[1] * constraints).sum(-1) + 0.5 * u[1].square().sum(-1)

    energy, u = Energy(W, density), torch.rand(W.num_dofs, dtype=W.dtype, generator=torch.manual_seed(0))
    H = energy.hessian(u)
    assert H.values().numel() == Energy(V, poisson).hessian(u[: V.num_dofs]).values().numel() + 4 * V.num_dofs + 4
    torch.testing.assert_close(H.to_dense(), torch.func.hessian(energy)(u))


def test_in_other_terms() -> None:
    """On facets between cells, in weak forms, with second derivatives, as a parameter on a grid; ∇λ = 0."""
    mesh = mixed_mesh()
    V = FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Reals(mesh))
    jumps = lambda x, u, grad_u, normal, size: u[1].plus * u[0].plus + jump(u[1])  # noqa: E731
    energy = Energy(W, lambda x, u, grad_u: 0.5 * grad_u[0].square().sum(-1), interior={"": jumps})
    u = torch.rand(W.num_dofs, dtype=W.dtype, generator=torch.manual_seed(0))
    torch.testing.assert_close(energy.hessian(u).to_dense(), torch.func.hessian(energy)(u))

    form = WeakForm(
        W, lambda x, u, g, v, w: (g[0] * w[0]).sum(-1) - load(x) * v[0] + u[1] * v[0] + u[0] * v[1] + g[1].sum(-1)
    )
    torch.testing.assert_close(solve(form).value, solve(Energy(W, held), (load,)).value)

    grid = unit_square(4)
    S = FunctionSpace(grid, BSpline.uniform((4, 4), 2))
    bending = Energy(
        MixedSpace(S, Reals(grid)),
        lambda x, u, grad_u, hess_u: (
            0.5 * hess_u[0].square().sum((-2, -1)) + u[1] * u[0] - torch.cos(pi * x[..., 0]) * u[0]
        ),
        derivatives=2,
    )
    v = torch.rand(bending.space.num_dofs, dtype=torch.float64, generator=torch.manual_seed(1))
    torch.testing.assert_close(bending.hessian(v).to_dense(), torch.func.hessian(bending)(v))

    fine = unit_square(48)
    V, R = FunctionSpace(fine, Lagrange(1)), Reals(fine)
    number = R.interpolate(2.0)
    conduction = lambda x, u, grad_u, k, slope: 0.5 * k * grad_u.square().sum(-1) + slope[..., 0]  # noqa: E731
    energy, u = Energy(V, conduction), V.interpolate(lambda x: x[:, 0])
    torch.testing.assert_close(float(energy(u, R.function(number), gradient(R.function(number)))), 1.0)


def test_values_and_moves() -> None:
    """Numbers in, numbers out, everywhere the same; the space follows its mesh to single precision."""
    mesh = unit_square(2)
    R = Reals(mesh, 2)
    given = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert torch.equal(R.interpolate(given), given[None])
    values, slopes = R.evaluate(given[None], torch.rand(3, 2, dtype=torch.float64), derivatives=1)
    assert torch.equal(values, given.expand(3, 2))
    assert not slopes.any()
    moved = MixedSpace(FunctionSpace(mesh, Lagrange(1)), R).to(dtype=torch.float32)
    assert isinstance(moved.fields[1], Reals)
    assert (moved.fields[1].shape, moved.dtype) == ((1, 2), torch.float32)
    assert "Reals(2)" in repr(moved)


@pytest.mark.parametrize("count", [0, -1])
def test_a_wrong_count(count: int) -> None:
    with pytest.raises(ValueError, match=r"`Reals\(count=...\)` must be a positive integer"):
        Reals(unit_square(1), count)


def test_wrong_calls() -> None:
    mesh = unit_square(2)
    V, R = FunctionSpace(mesh, Lagrange(1)), Reals(mesh)
    W = MixedSpace(V, R)
    with pytest.raises(ValueError, match=r"stands at no facet and no node, .*`Dirichlet\(W, \{\('left', 0\)"):
        Dirichlet(W, {"left": 0.0})
    with pytest.raises(ValueError, match="have no nodes"):
        R.dof_coordinates  # noqa: B018
    with pytest.raises(TypeError, match="needs numbers, 1 of them; got a function"):
        R.interpolate(load)
    energy = Energy(W, held)
    for method in (CG(), AlgebraicMultigrid()):
        with pytest.raises(ValueError, match=r"`CG\(\)` .* make a saddle point"):
            solve(energy, (load,), method=method)
    for method in (Multigrid(), FastDiagonalization()):
        with pytest.raises(ValueError, match=rf"`{type(method).__name__}\(\)` needs"):
            solve(energy, (load,), method=method)
    with pytest.raises(Exception, match="use `solve` if a saddle point is meant"):
        minimize(energy, (load,), method=Direct())
