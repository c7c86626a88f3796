"""Guaranteed bounds hold the true error between them, are close to it, and absent where there is none."""

from functools import cache
from math import pi
from typing import Any

import pytest
import torch

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    at_points,
    h1_error,
    unit_cube,
    unit_interval,
    unit_square,
)
from solvers import ExponentialSeries, certify, minimize
from tests.problems import diffusion, irregular, laplace, poisson


def anisotropic(x, u, g, nu):
    """A has off-diagonal entries and varies from point to point."""
    p, q = g.unbind(-1)
    return 0.5 * ((2 + x[..., 0]) * p * p + 2 * nu * p * q + (1 + x[..., 1]) * q * q)


def loaded(x, u, g, nu, f):
    return diffusion(x, u, g, nu) - f * u


def problem(V, held, density=diffusion) -> Any:
    return Energy(V, density, Dirichlet(V, held))


SIDES = {"all": {"boundary": 0.0}, "two": {"left": 1.0, "right": 0.0}, "one": {"top": 0.5}}
FLUXES = {"left": lambda x, u, normal, nu, f: -torch.cos(3 * x[..., 1]) * u, "right": lambda x, u, normal, nu, f: 2 * u}
LOADS = {
    "number": lambda L, _: 3.0,
    "smooth": lambda L, _: lambda x: 10 * torch.sin(5 * x[..., 0] + 2 * x[..., 1]),
    "fields": lambda L, x: L.function(torch.stack([10 * torch.sin(k + 4 * x[:, 0] * x[:, 1]) for k in range(3)])),
    "rough": lambda L, _: lambda x: 100 * torch.sin(40 * x[..., 0]) * torch.cos(55 * x[..., 1]),
}


@cache
def truth(sides, load, fluxes, cell="quadrilateral", degree=1, n=12):
    """An energy with its parameters, and ‖u − v‖ by a solution of the next degree on a grid four times as fine."""
    V, F = (FunctionSpace(unit_square(m, cell=cell), Lagrange(p)) for m, p in ((n, degree), (4 * n, degree + 1)))
    L, K = (FunctionSpace(S.mesh, Lagrange(1)) for S in (V, F))
    series, x, y = ExponentialSeries(), L.dof_coordinates, K.dof_coordinates
    nu = 0.4 + 0.3 * torch.tanh(series.log(series.sample(3), x))
    f = LOADS[load](L, x)
    fine_f = K.function(L.evaluate(f.values, y)) if load == "fields" else f
    params, fine_params = (L.function(nu), f), (K.function(L.evaluate(nu, y)), fine_f)
    energy, fine = (Energy(S, loaded, Dirichlet(S, SIDES[sides]), FLUXES if fluxes else None) for S in (V, F))
    reference = minimize(fine, fine_params).value

    def error(v):
        return (2 * Energy(F, diffusion)(V.evaluate(v, F.dof_coordinates) - reference, fine_params[0])).sqrt()

    return energy, params, error


def perturbed(energy, u, kind):
    if kind == "solution":
        return u
    x, noise = energy.space.dof_coordinates, torch.rand(u.shape, generator=torch.Generator().manual_seed(0)).to(u)
    return energy.constraint.apply(u + 0.01 * noise + 0.05 * torch.sin(3 * x[:, 0] + x[:, 1]))


@pytest.mark.parametrize("kind", ["solution", "prediction"])
@pytest.mark.parametrize("load", ["number", "smooth", "fields"])
@pytest.mark.parametrize(("sides", "fluxes"), [("all", False), ("two", False), ("one", False), ("one", True)])
def test_with_sources_the_error_lies_between_the_bounds_and_they_are_close(sides, fluxes, load, kind):
    energy, params, error = truth(sides, load, fluxes)
    v = perturbed(energy, minimize(energy, params).value, kind)
    found, true = certify(energy, v, params), error(v)
    above, below = found.upper_bound / true, found.lower_bound / true
    assert float(above.min()) > 1
    assert float(above.mean()) < 2
    assert float(below.max()) < 1
    assert float(below.mean()) > 0.8


@pytest.mark.parametrize(("cell", "degree"), [("triangle", 1), ("triangle", 2), ("quadrilateral", 2)])
def test_other_elements_with_sources(cell, degree):
    energy, params, error = truth("one", "smooth", True, cell, degree, 6)
    u = minimize(energy, params).value
    found, true = certify(energy, u, params), error(u)
    assert float((found.upper_bound / true).min()) > 1
    assert float((found.upper_bound / true).mean()) < 2
    assert float((found.lower_bound / true).mean()) > 0.8
    assert float((found.lower_bound / true).max()) < 1


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "mixed"])
@pytest.mark.parametrize("degree", [1, 2])
def test_irregular_meshes_beside_an_exact_solution(cell, degree):
    """u = sin πx sin πy/2: a source, a flux through the right side, none through the upper one."""
    wave = lambda x: torch.sin(pi * x[..., 0]) * torch.sin(0.5 * pi * x[..., 1])  # noqa: E731
    mesh = irregular(cell, 8).with_tags(
        facet_tags={"held": lambda x: (x[..., 0] == 0) | (x[..., 1] == 0), "right": lambda x: x[..., 0] == 1}
    )
    V = FunctionSpace(mesh, Lagrange(degree))
    energy = Energy(
        V,
        lambda x, u, g: laplace(x, u, g) - 1.25 * pi**2 * wave(x) * u,
        Dirichlet(V, {"held": 0.0}),
        {"right": lambda x, u, normal: pi * torch.sin(0.5 * pi * x[..., 1]) * u},
    )
    u = minimize(energy).value
    found, true = certify(energy, u), float(h1_error(V, u, wave))
    assert 0.8 * true < float(found.lower_bound) < true < float(found.upper_bound) < 2 * true


@pytest.mark.parametrize("fluxes", [False, True])
def test_sources_that_no_polynomial_follows_are_bounded(fluxes):
    energy, params, error = truth("one", "rough", fluxes)
    u = minimize(energy, params).value
    found, true = certify(energy, u, params), error(u)
    assert bool((found.upper_bound > true).all())
    assert bool((found.lower_bound < true).all())
    assert bool((found.bound_indicator.square().sum(-1).sqrt() > true).all())


@pytest.mark.parametrize(("cell", "degree"), [("triangle", 2), ("quadrilateral", 1)])
def test_a_parabola_by_hand(cell, degree):
    """u = x(1 − x)/2 for ν = f = 1 between two sides: ‖u − 0‖² = ∫ (½ − x)² = 1/12, and σ = ∇u is found."""
    V = FunctionSpace(unit_square(4, cell=cell), Lagrange(degree))
    energy = problem(V, {"left": 0.0, "right": 0.0}, poisson)
    found = certify(energy, torch.zeros(V.shape, dtype=V.dtype))
    assert float(found.upper_bound) == pytest.approx(12**-0.5, rel=1e-12)
    assert float(found.lower_bound) == pytest.approx(12**-0.5, rel=1e-2)
    # A flux of 2x through the right side, with no source: u = 2x².
    energy = Energy(
        V,
        lambda x, u, g: laplace(x, u, g) + 4 * u,
        Dirichlet(V, {"left": 0.0}),
        {"right": lambda x, u, normal: -4 * x[..., 0] * u},
    )
    found = certify(energy, torch.zeros(V.shape, dtype=V.dtype))
    assert float(found.upper_bound) == pytest.approx((16 / 3) ** 0.5, rel=1e-12)


def test_between_nodes_the_error_is_known_in_one_dimension():
    """−u″ = 1: u_h is exact at nodes, and ‖u − u_h‖² = h²/12; the next degree has u."""
    V = FunctionSpace(unit_interval(10), Lagrange(1))
    energy = problem(V, {"boundary": 0.0}, poisson)
    found = certify(energy, minimize(energy).value)
    assert 0.95 * 0.1 / 12**0.5 < float(found.lower_bound) < (1 + 1e-9) * 0.1 / 12**0.5
    assert found.upper_bound is None


def test_lower_bounds_of_vectors_reactions_and_means():
    C = FunctionSpace(unit_cube(3), Lagrange(1), components=2, quadrature_degree=9)
    S = FunctionSpace(unit_square(6), Lagrange(1), quadrature_degree=9)
    vectors = lambda x, u, g: g.square().sum((-2, -1)) + u.square().sum(-1) + u[..., 0] * u[..., 1]  # noqa: E731
    scalars = lambda x, u, g: g.square().sum(-1) - torch.cos(4 * x[..., 0]) * u  # noqa: E731
    robin = {"right": lambda x, u, normal: u.square().sum(-1)}
    cases = [
        (C, vectors, lambda V: Dirichlet(V, {"left": 0.0, ("right", 1): 0.5}), robin),
        (S, scalars, MeanZero, None),
        (S, lambda x, u, g: scalars(x, u, g) + u.square(), lambda V: None, None),
    ]
    for V, density, held, boundary in cases:
        W = FunctionSpace(V.mesh, Lagrange(3), V.components, 9)
        energy, better = (Energy(X, density, held(X), boundary) for X in (V, W))
        u = minimize(energy).value
        true = (2 * (energy(u) - minimize(better).energy)).sqrt()
        assert 0.7 * float(true) < float(certify(energy, u).lower_bound) < float(true)


def test_shares_of_cells_add_up_and_are_where_the_error_is(monkeypatch):
    energy, params, _ = truth("two", "smooth", False)
    assert isinstance(energy.space, FunctionSpace)
    u, x = minimize(energy, params).value, energy.space.dof_coordinates
    v = u + (1 - (x - 0.75).square().sum(-1) / 0.04).clamp(min=0)
    found = certify(energy, v, params)
    assert found.bound_indicator is not None
    monkeypatch.setattr("fem.support.portions.CACHE", 16 * 1000)  # a dozen cells at a time
    torch.testing.assert_close(found.bound_indicator, certify(energy, v, params).bound_indicator)
    assert found.bound_indicator.shape == (3, energy.space.mesh.num_cells)
    total = found.bound_indicator.square().sum(-1).sqrt()
    assert bool((total <= found.upper_bound * (1 + 1e-9)).all())
    assert bool((total > 0.99 * found.upper_bound).all())
    centres = energy.space.mesh.nodes[energy.space.mesh.cells].mean(1)
    near = (centres - 0.75).norm(dim=-1) < 0.25
    assert float((found.bound_indicator[:, near].square().sum(-1) / total.square()).min()) > 0.8


HELD: dict[str, Any] = {
    "two sides": {"left": 1.0, "right": 0.0},
    "three sides": {"left": 1.0, "right": 0.0, "bottom": 0.5},
    "all sides": {"left": lambda x: x[:, 1], "top": 1.0, "right": lambda x: x[:, 1], "bottom": 0.0},
    "one side": {"left": lambda x: torch.sin(3 * x[:, 1])},
    "pieces": {"corner": 1.0, "right": 0.0, "edge": 2.0},
}


@cache
def beside_a_reference(name, density) -> Any:
    """The problem and its solution on a grid, and the space and solution of one four times as fine, with the same
    interpolated coefficients and boundary values."""
    pieces = {
        "corner": lambda x: (x[..., 0] < 1e-9) & (x[..., 1] < 0.51),
        "edge": lambda x: (x[..., 1] > 1 - 1e-9) & (x[..., 0] < 0.51),
    }
    coarse, fine = (FunctionSpace(unit_square(n).with_tags(facet_tags=pieces), Lagrange(1)) for n in (16, 64))
    series = ExponentialSeries()
    nu = 0.4 + 0.3 * torch.tanh(series.log(series.sample(3), coarse.dof_coordinates))
    energy, params = problem(coarse, HELD[name], density), (coarse.function(nu),)
    u, x = minimize(energy, params).value, fine.dof_coordinates
    finer, boundary = (fine.function(coarse.evaluate(nu, x)),), fine.function(coarse.evaluate(u, x))
    reference = minimize(problem(fine, dict.fromkeys(HELD[name], boundary), density), finer).value
    return energy, params, u, Energy(fine, density), finer, reference


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("density", [diffusion, anisotropic])
@pytest.mark.parametrize("kind", ["solution", "prediction"])
def test_the_bound_is_above_the_error_and_close(held, density, kind):
    """Beside a reference four times as fine, with the same interpolated boundary values."""
    energy, params, v, norm, finer, reference = beside_a_reference(held, density)
    if kind == "prediction":
        noise = torch.rand(v.shape, generator=torch.Generator().manual_seed(0), dtype=v.dtype)
        v = energy.constraint.apply(v + 0.02 * noise)
    bound = certify(energy, v, params).upper_bound
    errors = (2 * norm(energy.space.evaluate(v, norm.space.dof_coordinates) - reference, *finer)).sqrt()
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


def test_coefficients_that_are_not_positive_bound_nothing():
    V = FunctionSpace(unit_square(8), Lagrange(1))
    energy = problem(V, {"left": 1.0, "right": 0.0})
    nu = torch.ones(2, V.num_dofs, dtype=V.dtype)
    nu[1, 40] = -0.01  # only near this node, and at no quadrature point of the energy
    bound = certify(energy, 1 - V.dof_coordinates[:, 0], (V.function(nu),)).upper_bound
    assert bound[0] < 1e-7
    assert bound[1] == torch.inf


def test_nodes_of_whole_facets_are_these_facets_and_single_ones_have_no_bound():
    mesh = unit_square(8, cell="triangle").with_tags(
        cell_tags={"some": [3]},
        node_tags={"outside": lambda x: ((x == 0) | (x == 1)).any(1), "pin": [40], "left": [40]},
    )
    V = FunctionSpace(mesh, Lagrange(1))
    bounds = {}
    for held in ("boundary", "outside", "pin", "left", "some", at_points([0.5, 0.5])):
        energy = Energy(V, lambda x, u, g: diffusion(x, u, g, 1.0) - u, Dirichlet(V, {held: 0.0}))
        bounds[held] = certify(energy, minimize(energy).value).upper_bound
    torch.testing.assert_close(bounds["outside"], bounds["boundary"])
    assert [bounds[held] for held in bounds if held not in ("boundary", "outside")] == [None] * 4


def test_where_there_is_none():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    held = {"left": 1.0, "right": 0.0}
    v = torch.zeros(V.shape, dtype=V.dtype)
    curved = V.mesh.curved(2)
    B = FunctionSpace(curved, Lagrange(1))
    between = torch.nonzero(V.mesh.topology.facets.num_cells == 2).flatten()[:1]
    inner = V.mesh.with_tags({"inner": between}, {"side": V.mesh.topology.facets.cell[between]})
    I = FunctionSpace(inner, Lagrange(1))  # noqa: E741
    plain = lambda x, u, g: g.square().sum(-1)  # noqa: E731
    cases = [
        (Energy(V, lambda x, u, g: g.square().sum(-1) + u**2, Dirichlet(V, held)), v + 1),
        (Energy(V, lambda x, u, g: g.square().sum(-1) + u * g[..., 0], Dirichlet(V, held)), v),
        (Energy(V, plain, Dirichlet(V, held), {"top": lambda x, u, n: u**2}), v),
        (Energy(I, plain, Dirichlet(I, held), {("inner", "side"): lambda x, u, n: u}), v),
        (Energy(V, lambda x, u, g: g.square().sum(-1) - torch.cos(3 * x[..., 0]) * u, MeanZero(V)), v),
        (Energy(B, lambda x, u, g: g.square().sum(-1) - u, Dirichlet(B, held)), v),
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
