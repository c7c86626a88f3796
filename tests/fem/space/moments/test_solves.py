"""Raviart–Thomas and Nédélec fields through the solvers: adjoints, batches, eigenvalues, and who cannot serve them."""

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Mesh,
    MixedSpace,
    Nedelec,
    RaviartThomas,
    unit_cube,
    unit_square,
)
from solvers import (
    CG,
    AlgebraicMultigrid,
    Direct,
    FastDiagonalization,
    Multigrid,
    eigenmodes,
    minimize,
    reaction,
    solve,
)
from solvers.linear.choice import default_linear
from tests.problems import hard_mesh, taylor_rates

DTYPE = torch.float64


def darcy(mesh: Mesh, degree: int, inflow: Tensor | float = 1.0) -> Energy:
    """What is let in on the left leaves on the right, at pressure 0."""
    W = MixedSpace(FunctionSpace(mesh, RaviartThomas(degree)), FunctionSpace(mesh, Discontinuous(degree - 1)))

    def density(x, u, slopes, k):
        return 0.5 * u[0].square().sum(-1) / k - u[1] * slopes[0]

    walls = {(tag, 0): 0.0 for tag in mesh.facet_tags if tag not in ("left", "right")}
    return Energy(W, density, Dirichlet(W, {**walls, ("left", 0): inflow}))


@pytest.mark.parametrize(
    "check", [torch.autograd.gradcheck, pytest.param(torch.autograd.gradgradcheck, marks=pytest.mark.slow)]
)
def test_derivatives_in_permeability_and_inflow_to_second_order(check) -> None:
    mesh = hard_mesh("triangle", "scrambled", 1)
    k = torch.linspace(0.5, 2, mesh.num_cells, dtype=DTYPE).requires_grad_()
    inflow = torch.tensor(-1.3, dtype=DTYPE, requires_grad=True)

    def dissipated(k: Tensor, inflow: Tensor) -> Tensor:
        energy = darcy(mesh, 1, inflow)
        u = solve(energy, (energy.space.per_cell(k),)).value
        return u.square().sum()

    assert check(dissipated, (k, inflow), fast_mode=True)


@pytest.mark.parametrize("cell", ["quadrilateral", "tetrahedron"])
def test_derivatives_in_the_nodes(cell: str) -> None:
    mesh = hard_mesh(cell, "scrambled", 1 if cell == "tetrahedron" else 2)
    direction = torch.rand(mesh.nodes.shape, dtype=DTYPE, generator=torch.Generator().manual_seed(1))

    def total(nodes: Tensor) -> Tensor:
        energy = darcy(mesh.with_nodes(nodes), 1)
        return solve(energy, (2.0,)).value.square().sum()

    assert min(taylor_rates(total, mesh.nodes, direction)) > 1.9


def test_a_batch_is_its_items() -> None:
    mesh = hard_mesh("quadrilateral", "scrambled")
    energy = darcy(mesh, 1)
    k = 0.5 + torch.rand(3, mesh.num_cells, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    several = solve(energy, (energy.space.per_cell(k),)).value
    torch.testing.assert_close(several[1], solve(energy, (energy.space.per_cell(k[1]),)).value, rtol=0, atol=1e-12)


def source(n: int = 3) -> Energy:
    """curl curl E + E = f, which has a minimum."""
    V = FunctionSpace(unit_cube(n, n, n), Nedelec(1))
    walls = Dirichlet(V, {"boundary": 0.0})
    return Energy(V, lambda x, E, c: 0.5 * (c.square().sum(-1) + E.square().sum(-1)) - E[..., 0], walls)


def test_methods_agree_or_refuse_by_name() -> None:
    energy = source()
    found = minimize(energy)
    assert "Direct" in found.method
    torch.testing.assert_close(minimize(energy, method=CG()).value, found.value, rtol=0, atol=1e-9)
    for method in (Multigrid(), FastDiagonalization()):
        with pytest.raises(ValueError, match=r"needs .* Lagrange space .*Use .*`Direct\(\)`"):
            minimize(energy, method=method)
    with pytest.raises(ValueError, match=r"kernels of div and curl; Nedelec\(degree=1\) has moments"):
        minimize(energy, method=AlgebraicMultigrid())
    with pytest.raises(ValueError, match="flux through a side is `integrate"):
        reaction(energy, found.value, "left")


def test_the_default_is_direct_whatever_the_size() -> None:
    V = FunctionSpace(unit_cube(14, 14, 14), Nedelec(1))
    assert V.num_dofs > 8_000
    assert isinstance(default_linear(V, True), Direct)
    assert isinstance(default_linear(MixedSpace(V, FunctionSpace(V.mesh, Discontinuous(0))), True), Direct)


def cavity(width: Tensor | float = 1.0) -> tuple[Energy, Energy]:
    mesh = unit_square(4, cell="triangle")
    mesh = mesh.with_nodes(mesh.nodes * torch.stack([torch.as_tensor(width, dtype=DTYPE), torch.ones((), dtype=DTYPE)]))
    V = FunctionSpace(mesh, Nedelec(2))
    energy = Energy(V, lambda x, E, curl: 0.5 * curl.square(), Dirichlet(V, {"boundary": 0.0}))
    return energy, Energy(V, lambda x, E, curl: 0.5 * E.square().sum(-1))


def test_resonances_differentiate_with_the_shape() -> None:
    """λ = (π / width)² of the widest mode; and without `above` nothing but gradients."""
    width = torch.tensor(1.3, dtype=DTYPE, requires_grad=True)
    energy, mass = cavity(width)
    found = eigenmodes(energy, mass, 1, above=1.0).values[0]
    (slope,) = torch.autograd.grad(found, width)
    assert float(found.detach()) == pytest.approx(torch.pi**2 / 1.3**2, rel=1e-3)
    assert float(slope) == pytest.approx(-2 * torch.pi**2 / 1.3**3, rel=1e-2)
    assert eigenmodes(energy, mass, 3, near=-1.0).values.abs().max() < 1e-9


def test_what_is_wrong_with_above_is_told() -> None:
    energy, mass = cavity()
    with pytest.raises(ValueError, match="`near` or `above`, not both"):
        eigenmodes(energy, mass, 2, near=3.0, above=1.0)
    for above in (1e6, 0.0):  # 0 is an eigenvalue, of every gradient
        with pytest.raises(ValueError, match=rf"above={above:g}\)`: 0 of 2 modes exceed it".replace("+", r"\+")):
            eigenmodes(energy, mass, 2, above=above)
