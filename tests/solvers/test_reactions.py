"""Reactions balance loads exactly, forces and moments alike, whatever the mesh, the degree and the energy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MixedSpace,
    Periodic,
    WeakForm,
    average,
    integrate,
    jump,
    unit_cube,
    unit_square,
)
from solvers import minimize, reaction, solve
from tests.problems import conduction, disk, hard_mesh, mixed_mesh, taylor_rates

MESHES = {
    "mixed": mixed_mesh,
    "curved": lambda: disk(3),
    "grid": lambda: unit_square(48),
    "tetrahedra": lambda: hard_mesh("tetrahedron", "distorted"),
}


def elastic(x: Tensor, u: Tensor, grad_u: Tensor, load: Tensor) -> Tensor:
    """Isotropic, λ = μ = 1, under a body force."""
    strain = 0.5 * (grad_u + grad_u.mT)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * trace.square() + strain.square().sum((-2, -1)) - (load * u).sum(-1)


def body_force(x: Tensor) -> Tensor:
    return torch.stack([torch.sin(3 * x[..., 0]), *[x[..., 0] - k for k in range(1, x.shape[-1])]], -1)


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("degree", [1, 2])
def test_flux_balances_sources(name: str, degree: int) -> None:
    """Nonlinear conduction, batched: what flows in through the boundary is minus the source, to round-off."""
    V = FunctionSpace(MESHES[name](), Lagrange(degree))
    density = lambda x, u, grad_u, f, g: (1 + grad_u.square().sum(-1)) ** 0.75 - f * g * u  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": lambda x: x[..., 0]}))
    f, g = torch.tensor([1.0, -2.0], dtype=torch.float64), lambda x: 1 + x[..., 0]
    u = minimize(energy, (f, g)).value
    source = f * integrate(V, g, degree=V.quadrature_degree)
    torch.testing.assert_close(reaction(energy, u, "boundary", (f, g)), -source, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dim", [2, 3])
def test_forces_and_moments_of_a_clamped_body(dim: int) -> None:
    """Held on one side, under body forces and a traction: Σ forces = 0 and Σ moments = 0 about any point."""
    mesh = unit_square(6, cell="triangle") if dim == 2 else unit_cube(3, 3, 3)
    V = FunctionSpace(mesh, Lagrange(2), components=dim)
    pull = lambda x, u, normal, load: -(x[..., 1] * u[..., 0])  # noqa: E731
    energy = Energy(V, elastic, Dirichlet(V, {"left": 0.0}), boundary={"right": pull})
    u = minimize(energy, (body_force,)).value
    about = [0.3, -0.2, 0.7][:dim]
    traction = lambda x: torch.stack([x[..., 1], *[torch.zeros_like(x[..., 1])] * (dim - 1)], -1)  # noqa: E731
    degree = V.quadrature_degree
    force = integrate(V, body_force, degree=degree) + integrate(V, traction, "right", degree=degree)
    torch.testing.assert_close(reaction(energy, u, "left", (body_force,)), -force, rtol=0, atol=1e-12)
    # Rotations are in the space: the moments of loads are those of the nodal ones.
    nodal = -Energy(V, elastic, boundary={"right": pull}).residual(torch.zeros_like(u), body_force)
    arms = V.dof_coordinates - torch.tensor(about, dtype=V.dtype)
    moments = torch.linalg.cross(*(torch.nn.functional.pad(t, (0, 3 - dim)) for t in (arms, nodal))).sum(0)
    found = reaction(energy, u, "left", (body_force,), about=about)
    torch.testing.assert_close(found, -(moments[2] if dim == 2 else moments), rtol=0, atol=1e-12)


def test_components_weak_forms_and_mixed_spaces() -> None:
    mesh = unit_square(5)
    V = FunctionSpace(mesh, Lagrange(1), components=2)
    energy = Energy(V, elastic, Dirichlet(V, {"left": 0.0, ("bottom", 1): 0.0}))
    load = torch.tensor([1.0, 3.0], dtype=torch.float64)
    u = minimize(energy, (lambda x: load.expand_as(x),)).value
    params = (lambda x: load.expand_as(x),)
    left = reaction(energy, u, "left", params)
    assert left.shape == (2,)
    torch.testing.assert_close(reaction(energy, u, ("left", 1), params), left[1])
    torch.testing.assert_close(reaction(energy, u, ("left", np.int64(1)), params), left[1])
    Q = FunctionSpace(mesh, Lagrange(1))
    form = WeakForm(Q, lambda x, u, grad_u, v, grad_v: (grad_u * grad_v).sum(-1) - v, Dirichlet(Q, {"boundary": 0.0}))
    assert float(reaction(form, solve(form).value, "boundary")) == pytest.approx(-1, abs=1e-13)
    W = MixedSpace(V, Q)
    mixed = Energy(
        W,
        lambda x, u, grad_u: elastic(x, u[0], grad_u[0], load.expand_as(x)) + 0.5 * grad_u[1].square().sum(-1) - u[1],
        Dirichlet(W, {("left", 0): 0.0, ("boundary", 1): 0.0}),
    )
    w = minimize(mixed).value
    torch.testing.assert_close(reaction(mixed, w, ("left", 0)), -load, rtol=0, atol=1e-12)
    assert float(reaction(mixed, w, ("boundary", 1))) == pytest.approx(-1, abs=1e-13)
    torch.testing.assert_close(reaction(mixed, w, ("left", 0, 1)), -load[1], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"that of one field, \(tag, field\); 'left' has dofs of fields \[0, 1\]"):
        reaction(mixed, w, "left")


def test_ties_and_terms_on_facets_are_in_the_balance() -> None:
    """A periodic channel that loses heat at its top, with a term on inner facets, for two conductivities at once."""
    V = FunctionSpace(unit_square(5, cell="triangle"), Lagrange(2))
    loss = lambda x, u, normal, k, f: 0.5 * (1 + x[..., 1]) * u.square()  # noqa: E731
    kinks = lambda x, u, grad_u, n, size, k, f: 0.1 * size * average(k) * jump(grad_u).square().sum(-1)  # noqa: E731
    tied = Dirichlet(V, {"bottom": lambda x: torch.cos(6 * x[..., 0] - 3)}) & Periodic(V, {"right": "left"})
    energy = Energy(V, conduction, tied, boundary={"top": loss}, interior={"": kinks})
    k = 1 + torch.rand(2, V.mesh.num_cells, dtype=V.dtype, generator=torch.manual_seed(0))
    params = V.per_cell(k), 2.0
    u = minimize(energy, params).value
    lost = 2 * integrate(V, V.function(u), "top")
    torch.testing.assert_close(reaction(energy, u, "bottom", params), lost - 2, rtol=0, atol=1e-12)


def test_derivatives_of_reactions() -> None:
    """Taylor test of a flux in a conductivity per cell: through the solution and through the residual."""
    V = FunctionSpace(mixed_mesh(), Lagrange(2))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0, "right": lambda x: 1 + x[..., 1]}))
    k, d = (1 + torch.rand(V.mesh.num_cells, dtype=torch.float64, generator=torch.manual_seed(s)) for s in (0, 1))

    def flux(k: Tensor) -> Tensor:
        params = V.per_cell(k), 1.0
        return reaction(energy, minimize(energy, params).value, "right", params)

    assert min(taylor_rates(flux, k, d)) > 1.9


def test_wrong_calls() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    u = V.interpolate(0.0)
    with pytest.raises(ValueError, match="'middle'"):
        reaction(energy, u, "middle", (1.0,))
    with pytest.raises(ValueError, match="this field has None"):
        reaction(energy, u, "left", (1.0,), about=(0.0, 0.0))
    W = FunctionSpace(V.mesh, Lagrange(1), components=2)
    plate = Energy(W, elastic, Dirichlet(W, {"left": 0.0}))
    with pytest.raises(ValueError, match=r"must be a point of 2 coordinates; got \(0\.0,\)"):
        reaction(plate, W.interpolate(0.0), "left", (body_force,), about=(0.0,))
