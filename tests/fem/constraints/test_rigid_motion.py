"""Bodies that nothing holds: the same strains as under any statically determined support, and no rigid motion."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    RigidMotionFree,
    at_points,
    gradient,
    integrate,
    unit_cube,
    unit_square,
)
from solvers import CG, AlgebraicMultigrid, Direct, certify, minimize
from tests.problems import distorted, mixed_mesh, taylor_rates


def elastic(x: Tensor, u: Tensor, grad_u: Tensor, *_: Any) -> Tensor:
    strain = 0.5 * (grad_u + grad_u.mT)
    return strain.square().sum((-2, -1)) + 0.5 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()


MESHES = {
    "triangles": lambda: distorted(unit_square(5, cell="triangle")),
    "mixed": mixed_mesh,
    "hexahedra": lambda: unit_cube(2, 2, 2),
}
CORNERS = {
    2: [((0.0, 0.0), (0, 1)), ((1.0, 0.0), (1,))],
    3: [((0.0, 0.0, 0.0), (0, 1, 2)), ((1.0, 0.0, 0.0), (1, 2)), ((0.0, 1.0, 0.0), (2,))],
}


def pulled(x: Tensor, u: Tensor, normal: Tensor, *size: Tensor) -> Tensor:
    """A pressure that varies as (x − ½)² along x and acts on both ends: in balance."""
    return -((x[..., 1] - 0.5).square() * u[..., 0]) * normal[..., 0]


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("degree", [1, 2])
def test_strains_are_those_of_a_supported_body(name: str, degree: int) -> None:
    mesh = MESHES[name]()
    V = FunctionSpace(mesh, Lagrange(degree), components=mesh.dim)
    supports = {(at_points(p), c): 0.0 for p, components in CORNERS[mesh.dim] for c in components}
    held = minimize(Energy(V, elastic, Dirichlet(V, supports), boundary={"boundary": pulled})).value
    free, zero = RigidMotionFree(V), V.interpolate(0.0)
    strain_energy = Energy(V, lambda x, u, grad_u, g: elastic(x, u, g))
    for method in (None, Direct(), CG(), AlgebraicMultigrid()):
        u = minimize(Energy(V, elastic, free, boundary={"boundary": pulled}), method=method).value
        difference = gradient(V.function(u - held))
        assert float(strain_energy(zero, difference)) < 1e-20
        torch.testing.assert_close(free.apply(held), u, rtol=0, atol=1e-10)
        assert float(integrate(V, V.function(u)).abs().max()) < 1e-12


@pytest.mark.parametrize("mesh", [unit_square(3, cell="triangle"), unit_cube(2, 2, 2)], ids=["2-D", "3-D"])
def test_the_map_and_its_transpose(mesh: Mesh) -> None:
    """A projection: rigid motions vanish, ⟨A v, r⟩ = ⟨v, Aᵀ r⟩, batched; mean rotations vanish."""
    V = FunctionSpace(mesh, Lagrange(2), components=mesh.dim)
    free = RigidMotionFree(V)
    u, r = (torch.rand(2, *V.shape, dtype=V.dtype, generator=torch.manual_seed(s)) for s in (0, 1))
    data = free.data()
    w = free.apply(u)
    torch.testing.assert_close(free.apply(w), w)
    torch.testing.assert_close((w * r).sum((-2, -1)), (u * free.project(r, data)).sum((-2, -1)))
    assert float(free.apply(free.modes.movedim(-1, 0)).abs().max()) < 1e-13
    turn = lambda x, v: x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]  # noqa: E731
    assert float((data[:, 0] * turn(V.dof_coordinates, w)).sum(-1).abs().max()) < 1e-13


def test_derivatives() -> None:
    """In a stiffness per cell, by a Taylor test."""
    V = FunctionSpace(mixed_mesh(), Lagrange(1), components=2)
    stiff = lambda x, u, grad_u, k: k * elastic(x, u, grad_u)  # noqa: E731
    energy = Energy(V, stiff, RigidMotionFree(V), boundary={"boundary": pulled})
    k, d = (1 + torch.rand(V.mesh.num_cells, dtype=V.dtype, generator=torch.manual_seed(s)) for s in (0, 1))
    assert min(taylor_rates(lambda k: minimize(energy, (V.per_cell(k),)).value.square().sum(), k, d)) > 1.9


@pytest.mark.parametrize("mesh", [unit_square(1, 2, cell="triangle"), unit_cube(1)], ids=["2-D", "3-D"])
def test_derivatives_in_nodes(mesh: Mesh) -> None:
    """First and second ones, of the solution and of the map itself."""

    def body(x: Tensor) -> FunctionSpace:
        return FunctionSpace(mesh.with_nodes(x), Lagrange(1), components=mesh.dim)

    def moved(x: Tensor) -> Tensor:
        V = body(x)
        return minimize(Energy(V, elastic, RigidMotionFree(V), boundary={"boundary": pulled})).value

    x = distorted(mesh).nodes.clone().requires_grad_()
    assert torch.autograd.gradcheck(moved, (x,), fast_mode=True)
    assert mesh.dim == 3 or torch.autograd.gradgradcheck(moved, (x,), fast_mode=True)
    u = torch.rand(mesh.num_nodes, mesh.dim, dtype=x.dtype, generator=torch.manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: RigidMotionFree(body(x)).apply(u), (x,), fast_mode=True)


def test_wrong_calls() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match="takes a space of displacements with values at nodes"):
        RigidMotionFree(V)
    W = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    with pytest.raises(ValueError, match="goes with no other constraint"):
        RigidMotionFree(W) & Dirichlet(W, {"left": 0.0})
    energy = Energy(W, elastic, RigidMotionFree(W), boundary={"boundary": pulled})
    with pytest.raises(ValueError, match="do not go with `RigidMotionFree`"):
        minimize(energy, lower=0.0)
    with pytest.raises(ValueError, match="no free bodies"):
        certify(energy, minimize(energy).value)
