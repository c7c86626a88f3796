"""Stokes flow with the pairs that are stable: velocity and pressure at their orders, in an enclosed domain."""

from math import log2
from typing import Any

import pytest
import torch

from fem import (
    CrouzeixRaviart,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mini,
    MixedSpace,
    h1_error,
    integrate,
    l2_error,
)
from solvers import solve
from tests.problems import hard_mesh, stokes, vortex, vortex_load, vortex_pressure

# name: velocity, pressure, orders of the velocity in L2 and in H1 (cell by cell) and of the pressure in L2
PAIRS = {
    "Crouzeix–Raviart": (CrouzeixRaviart(), Discontinuous(0), 2, 1, 1),
    "MINI": (Mini(), Lagrange(1), 2, 1, 1),
    "Taylor–Hood": (Lagrange(2), Lagrange(1), 3, 2, 2),
}


def enclosed(velocity: Any, pressure: Any, kind: str, n: int) -> tuple[MixedSpace, torch.Tensor]:
    """The flow of the vortex's load in the unit square with walls all around."""
    mesh = hard_mesh("triangle", kind, n)
    W = MixedSpace(FunctionSpace(mesh, velocity, components=2), FunctionSpace(mesh, pressure))
    held = Dirichlet(W, {("boundary", 0): 0.0}) & MeanZero(W, field=1)
    return W, solve(Energy(W, stokes, held), (vortex_load,)).value


@pytest.mark.parametrize("kind", ["distorted", "scrambled"])
@pytest.mark.parametrize("name", PAIRS)
def test_errors_fall_at_the_orders_of_theory(name: str, kind: str) -> None:
    velocity, pressure, *orders = PAIRS[name]
    errors = []
    for n in (8, 16):
        W, (V, Q) = (found := enclosed(velocity, pressure, kind, n))[0], found[0].fields
        u, p = W.split(found[1])
        errors.append([l2_error(V, u, vortex), h1_error(V, u, vortex), l2_error(Q, p, vortex_pressure)])
        assert abs(float(integrate(Q, Q.function(p)))) < 1e-12
    for coarse, fine, order in zip(*errors, orders, strict=True):
        assert log2(float(coarse / fine)) > order - 0.15


def test_velocity_of_crouzeix_and_raviart_is_free_of_divergence_on_every_cell() -> None:
    W, found = enclosed(CrouzeixRaviart(), Discontinuous(0), "scrambled", 6)
    V = W.fields[0]
    (domain,) = V.quadrature.domains()
    gradient = V.quadrature.values(W.split(found)[0], domain, V.quadrature.geometry(domain))[1]
    assert gradient.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max() < 1e-11
