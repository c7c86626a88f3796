"""The lines of the contract on fields, constraints, facets and what comes after a solve, as they are promised."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fem
from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    Periodic,
    RigidMotionFree,
    at_points,
    average,
    integrate,
    jump,
    project,
    unit_square,
)
from solvers import minimize, reaction, solve


def density(x: Tensor, u: Tensor, grad_u: Tensor, *params: Any) -> Tensor:
    return 0.5 * grad_u.square().sum(-1) + 0.5 * u.square()


def test_one_value_per_cell() -> None:
    mesh = unit_square(3)
    V = FunctionSpace(mesh, Lagrange(1))
    values = torch.linspace(1, 2, mesh.num_cells, dtype=V.dtype)
    rho = V.per_cell(values)
    weight = Energy(V, lambda x, u, grad_u, rho: rho * u)
    assert float(weight(V.interpolate(1.0), rho)) == pytest.approx(1.5)
    W = FunctionSpace(mesh, Discontinuous(1))
    assert W.num_dofs == 4 * mesh.num_cells
    matrices = V.per_cell(values[:, None, None].expand(2, -1, 2, 2), shape=(2, 2))
    trace = Energy(V, lambda x, u, grad_u, K: K.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert trace(V.interpolate(1.0), matrices).tolist() == pytest.approx([3, 3])


def test_prescribed_values_and_ties_compose() -> None:
    mesh = unit_square(3)
    V = FunctionSpace(mesh, Lagrange(1))
    held = Dirichlet(V, {"left": 0.0, at_points([[0.0, 0.0]]): 0.0})
    assert torch.equal(held.fixed, Dirichlet(V, {"left": 0.0}).fixed)
    both = Dirichlet(V, {"left": 0.0}) & Periodic(V, {"bottom": "top"})
    u = torch.rand(V.shape, dtype=V.dtype, generator=torch.manual_seed(0))
    torch.testing.assert_close(both.apply(u)[V.dofs("bottom")], both.apply(u)[V.dofs("top")])
    matrix = torch.zeros(1, V.num_dofs, dtype=V.dtype)
    matrix[0, 9] = 1.0
    first, second, third = Dirichlet(V, {"left": 0.0}), Periodic(V, {"bottom": "top"}), fem.Ties(V, [6], matrix)
    torch.testing.assert_close(((first & second) & third).apply(u), (first & (second & third)).apply(u), rtol=0, atol=0)
    with pytest.raises(ValueError, match="different values are prescribed"):
        _ = Dirichlet(V, {"bottom": 0.0, "top": 1.0}) & Periodic(V, {"bottom": "top"})


def test_one_field_without_mean_and_a_free_body() -> None:
    mesh = unit_square(3)
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    W = MixedSpace(V, FunctionSpace(mesh, Lagrange(1)))
    enclosed = Dirichlet(W, {("boundary", 0): 0.0}) & MeanZero(W, field=1)
    p = W.split(enclosed.apply(torch.ones(W.num_dofs, dtype=W.dtype)))[1]
    assert float(integrate(W.fields[1], W.fields[1].function(p))) == pytest.approx(0, abs=1e-14)
    free = RigidMotionFree(V)
    turned = V.interpolate(lambda x: torch.stack([1 - x[:, 1], x[:, 0]], 1))
    assert float(free.apply(turned).abs().max()) < 1e-14


def test_both_sides_of_facets() -> None:
    """The term of the contract is a placeholder, which says what it is when it is evaluated."""
    mesh = unit_square(3)
    W = FunctionSpace(mesh, Discontinuous(1))
    g = lambda x, u, normal, *params: 10 * u.square()  # noqa: E731
    energy = Energy(
        W,
        density,
        boundary={"left": g},
        interior={"": lambda x, u, grad_u, normal, size, *params: ...},  # type: ignore[dict-item,arg-type,return-value]
    )
    with pytest.raises(
        TypeError, match="interior density must return a tensor with one number per point; got ellipsis"
    ):
        energy(W.interpolate(0.0))
    term = lambda x, u, grad_u, normal, size, *params: (  # noqa: E731
        (average(grad_u) * normal).sum(-1) * jump(u) + 5 / size * (u.plus - u.minus) ** 2
    )
    energy = Energy(W, density, boundary={"left": g}, interior={"": term})
    u = W.interpolate(lambda x: x[:, 0])
    V = FunctionSpace(mesh, Lagrange(1))
    smooth = Energy(V, density, boundary={"left": g})
    torch.testing.assert_close(energy(u), smooth(V.interpolate(lambda x: x[:, 0])))


def normal_flux(x: Tensor, u: Tensor, div_u: Tensor) -> Tensor:
    return 0.5 * u.square().sum(-1) + 0.5 * (div_u - 2).square()


def circulation(x: Tensor, u: Tensor, curl_u: Tensor) -> Tensor:
    return 0.5 * u.square().sum(-1) + 0.5 * (curl_u - 2).square()


@pytest.mark.parametrize(("name", "expression"), [("RaviartThomas", normal_flux), ("Nedelec", circulation)])
@pytest.mark.parametrize("degree", [1, 2])
def test_elements_of_vectors(name: str, expression: Any, degree: int) -> None:
    """u = x and its rotation have div u = 2 and curl u = 2: what the densities get."""
    V = FunctionSpace(unit_square(3, cell="triangle"), getattr(fem, name)(degree))
    turned = (lambda x: x) if name == "RaviartThomas" else lambda x: torch.stack([-x[..., 1], x[..., 0]], -1)
    u = V.interpolate(turned)
    assert float(Energy(V, expression)(u)) == pytest.approx(1 / 3)
    assert minimize(Energy(V, expression)).value.shape == u.shape


@pytest.mark.parametrize("side", ["steel", "air"])
def test_facets_inside_are_seen_from_a_side(side: str) -> None:
    mesh = unit_square(4)
    ends = mesh.nodes[mesh.facets][..., 0]
    mesh = mesh.with_tags(
        {"interface": ((ends - 0.5).abs() < 1e-9).all(1)},
        {"steel": lambda x: x[:, 0] < 0.5, "air": lambda x: x[:, 0] > 0.5},
    )
    V = FunctionSpace(mesh, Lagrange(1))
    seen = Energy(V, density, boundary={("interface", side): lambda x, u, normal: normal[..., 0]})
    assert float(seen(V.interpolate(0.0))) == pytest.approx(1 if side == "steel" else -1)
    with pytest.raises(ValueError, match=r"`\('interface', 'steel'\)`"):
        Energy(V, density, boundary={"interface": lambda x, u, normal: normal[..., 0]})


def test_after_the_solve() -> None:
    mesh = unit_square(6)
    V = FunctionSpace(mesh, Lagrange(2))
    u = V.interpolate(lambda x: x[:, 0] ** 2)
    points = torch.tensor([[0.3, 0.2], [0.9, 0.4]], dtype=V.dtype)
    value, grad = V.evaluate(u, points, derivatives=1)
    torch.testing.assert_close(value, points[:, 0] ** 2)
    torch.testing.assert_close(grad, torch.stack([2 * points[:, 0], 0 * points[:, 0]], 1))
    outside = torch.tensor([[1.5, 0.5]], dtype=V.dtype)
    torch.testing.assert_close(V.evaluate(u, outside, outside="nearest"), torch.ones(1, dtype=V.dtype))
    slope = project(V, lambda x, u, grad_u: grad_u[..., 0], u)
    torch.testing.assert_close(slope, V.interpolate(lambda x: 2 * x[:, 0]))
    energy = Energy(V, lambda x, u, grad_u, f: 0.5 * grad_u.square().sum(-1) - f * u, Dirichlet(V, {"left": 0.0}))
    params = (3.0,)
    assert float(reaction(energy, solve(energy, params).value, "left", params=params)) == pytest.approx(-3, abs=1e-12)
