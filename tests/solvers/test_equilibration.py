"""Guaranteed bounds are never below the true error, close to it, and absent where there is none."""

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_cube, unit_square
from solvers import ExponentialSeries, certify, minimize


def diffusion(x, u, g, nu):
    return 0.5 * nu * g.square().sum(-1)


def anisotropic(x, u, g, nu):
    """A has off-diagonal entries and varies from point to point."""
    p, q = g.unbind(-1)
    return 0.5 * ((2 + x[..., 0]) * p * p + 2 * nu * p * q + (1 + x[..., 1]) * q * q)


def problem(V, held, density=diffusion):
    return Energy(V, density, Dirichlet(V, held))


@pytest.mark.parametrize(
    "held",
    [
        {"left": 1.0, "right": 0.0},
        {"left": 1.0, "right": 0.0, "bottom": 0.5},
        {"left": lambda x: x[:, 1], "top": 1.0, "right": lambda x: x[:, 1], "bottom": 0.0},
        {"left": lambda x: torch.sin(3 * x[:, 1])},
        {"corner": 1.0, "right": 0.0, "edge": 2.0},
    ],
    ids=["two sides", "three sides", "all sides", "one side", "pieces"],
)
@pytest.mark.parametrize("density", [diffusion, anisotropic])
@pytest.mark.parametrize("kind", ["solution", "prediction"])
def test_the_bound_is_above_the_error_and_close(held, density, kind):
    """Beside a reference four times as fine, with the same interpolated boundary values."""
    errors = []
    for n in (16, 64):
        pieces = {
            "corner": lambda x: (x[..., 0] < 1e-9) & (x[..., 1] < 0.51),
            "edge": lambda x: (x[..., 1] > 1 - 1e-9) & (x[..., 0] < 0.51),
        }
        mesh = unit_square(n).with_tags(facet_tags=pieces)
        V = FunctionSpace(mesh, Lagrange(1))
        if n == 16:
            coarse, series = V, ExponentialSeries()
            nu = 0.4 + 0.3 * torch.tanh(series.log(series.sample(3), V.dof_coordinates))
            energy, params = problem(V, held, density), (V.function(nu),)
            u = v = minimize(energy, params).value
            if kind == "prediction":
                noise = torch.rand(v.shape, generator=torch.Generator().manual_seed(0), dtype=v.dtype)
                v = energy.constraint.apply(v + 0.02 * noise)
            bound = certify(energy, v, params).upper_bound
        else:
            x = V.dof_coordinates
            params = (V.function(coarse.evaluate(nu, x)),)
            boundary = coarse.evaluate(u, x)
            fine = minimize(problem(V, {tag: V.function(boundary) for tag in held}, density), params).value
            errors = (2 * Energy(V, density)(coarse.evaluate(v, x) - fine, *params)).sqrt()
    ratio = bound / errors
    assert float(ratio.min()) > 1
    assert float(ratio.mean()) < 2


def test_no_error_no_bound():
    V = FunctionSpace(unit_square(4, cell="triangle"), Lagrange(2))
    x = V.dof_coordinates
    energy = problem(V, {"left": 1.0, "right": 0.0})
    assert float(certify(energy, 1 - x[:, 0], (1.7,)).upper_bound) < 1e-7
    saddle = x[:, 0] ** 2 - x[:, 1] ** 2
    energy = problem(V, {"boundary": V.function(saddle)})
    assert float(certify(energy, saddle, (1.7,)).upper_bound) < 1e-7


def test_linear_elements_converge_with_their_order():
    found = []
    for n in (8, 16, 32):
        V = FunctionSpace(unit_square(n), Lagrange(1))
        exact = lambda x: torch.exp(x[:, 0]) * torch.sin(x[:, 1])  # noqa: E731
        energy = problem(V, {"boundary": exact})
        found.append(float(certify(energy, minimize(energy, (1.0,)).value, (1.0,)).upper_bound))
    assert found[0] / found[1] > 1.9
    assert found[1] / found[2] > 1.9


def test_a_reaction_where_the_prediction_vanishes_is_noticed():
    V = FunctionSpace(unit_square(8), Lagrange(1))
    reaction = lambda x, u, g: g.square().sum(-1) + 100 * (x[..., 0] > 0.5) * u**2  # noqa: E731
    energy = Energy(V, reaction, Dirichlet(V, {"left": 1.0}))
    v = (1 - 4 * V.dof_coordinates[:, 0]).clamp(min=0)
    assert certify(energy, v).upper_bound is None


def test_where_there_is_none():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    held = {"left": 1.0, "right": 0.0}
    v = torch.zeros(V.shape, dtype=V.dtype)
    cases = [
        (Energy(V, lambda x, u, g: g.square().sum(-1) - u, Dirichlet(V, held)), v),
        (Energy(V, lambda x, u, g: g.square().sum(-1) + u**2, Dirichlet(V, held)), v + 1),
        (Energy(V, lambda x, u, g: g.square().sum(-1), Dirichlet(V, held), {"top": lambda x, u, n: u}), v),
    ]
    C = FunctionSpace(unit_cube(2), Lagrange(1))
    cases.append(
        (Energy(C, lambda x, u, g: g.square().sum(-1), Dirichlet(C, held)), torch.zeros(C.shape, dtype=C.dtype))
    )
    ring = unit_square(3, cell="quadrilateral")
    hole = Mesh(ring.nodes, ring.blocks[0].connectivity[[0, 1, 2, 3, 5, 6, 7, 8]], cell="quadrilateral")
    H = FunctionSpace(hole, Lagrange(1))
    cases.append(
        (
            Energy(H, lambda x, u, g: g.square().sum(-1), Dirichlet(H, {"boundary": 0.0})),
            torch.ones(H.shape, dtype=H.dtype),
        )
    )
    for energy, v in cases:
        assert certify(energy, v).upper_bound is None
