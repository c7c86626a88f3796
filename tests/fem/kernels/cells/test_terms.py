"""Loops over cells for mixed spaces, weak forms and facets: the same as by values at points."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fem import (
    Constant,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    average,
    by_cell_tag,
    compilation,
    gradient,
    jump,
    unit_cube,
    unit_square,
)
from fem.forms.traced.mesh_integral import FacetIntegral, MeshIntegral
from fem.support.arithmetic import sum_of
from solvers import minimize, solve
from tests.fem.kernels.cells.test_integrand import check, compiled, mesh_of, path, random, results, same_bits
from tests.problems import scrambled

WHEN = ["never", pytest.param("always", marks=[compiled, pytest.mark.slow])]


def stationary(x, u, grad_u, k, force):
    """Nonlinear, with all fields coupled."""
    (v, p, c), (dv, dp, dc) = u, grad_u
    strain = 0.5 * (dv + dv.mT)
    flow = k * (1 + c**2) * strain.square().sum((-2, -1)) - p * dv.diagonal(dim1=-2, dim2=-1).sum(-1)
    return flow + dp.square().sum(-1) * torch.exp(c) + (v * force).sum(-1) + c**4 * x[..., 0] + (dc * dp).sum(-1)


def transported(x, u, g, v, h, k, wind):
    return k * (1 + u**2) * (g * h).sum(-1) + (wind * g).sum(-1) * v + torch.sin(u) * v * x[..., 0]


def flowing(x, u, g, v, h, k):
    (w, p), (dw, dp), (z, q), (dz, _) = u, g, v, h
    moved = ((dw @ w[..., None])[..., 0] * z).sum(-1)
    divergence = dw.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (
        k * (dw * dz).sum((-2, -1))
        + moved
        - p * dz.diagonal(dim1=-2, dim2=-1).sum(-1)
        + q * divergence
        + dp[..., 0] * q
    )


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", ["triangle", "hexahedron"])
def test_mixed_spaces(kind: str, when: str) -> None:
    mesh = mesh_of(kind)
    V, Q, D = FunctionSpace(mesh, Lagrange(2), components=mesh.dim), FunctionSpace(mesh, Lagrange(1)), Discontinuous(1)
    X = MixedSpace(V, Q, FunctionSpace(mesh, D))
    energy = Energy(X, stationary, Dirichlet(X, {("boundary", 0): 0.1}))
    params = (Q.function(1 + random(2, *Q.shape, seed=3)), Constant(random(mesh.dim, seed=4), (mesh.dim,)))
    check(energy, params, random(*X.shape), random(2, *X.shape, seed=2), when)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", ["interval", "quadrilateral", "tetrahedron"])
def test_weak_forms(kind: str, when: str) -> None:
    mesh = mesh_of(kind)
    V, W = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Discontinuous(0))
    form = WeakForm(V, transported, Dirichlet(V, {"boundary": 0.3}))
    params = (W.function(1 + random(*W.shape, seed=3)), gradient(V.function(random(2, *V.shape, seed=4))))
    check(form, params, random(*V.shape), random(2, *V.shape, seed=2), when)


@pytest.mark.parametrize("when", WHEN)
def test_weak_forms_on_mixed_spaces_and_grids(when: str) -> None:
    for mesh in (mesh_of("triangle"), unit_square(4, 3)):
        V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
        X = MixedSpace(V, Q)
        form = WeakForm(X, flowing, Dirichlet(X, {("boundary", 0): 0.1}))
        check(
            form,
            (by_cell_tag({"a": 1.0, "b": 2.0}) if mesh.cell_tags else 0.7,),
            random(*X.shape),
            random(*X.shape),
            when,
        )


@pytest.mark.parametrize("when", WHEN)
def test_derivatives_of_weak_forms_reach_parameters_and_nodes(when: str) -> None:
    mesh = mesh_of("triangle")
    V = FunctionSpace(mesh, Lagrange(1))
    given = [random(*V.shape), 1 + random(*V.shape, seed=3), random(2, seed=4), mesh.nodes]
    test, along, found = random(*V.shape, seed=5), random(*V.shape, seed=6), []
    for wanted in (True, False):
        u, k, wind, nodes = leaves = [t.clone().requires_grad_() for t in given]
        W = FunctionSpace(mesh.with_nodes(nodes), Lagrange(1))
        form, params = WeakForm(W, transported), (W.function(k), Constant(wind, (2,)))
        with path(wanted), compilation(when):
            first = torch.autograd.grad((form.residual(u, *params) * test).sum(), leaves, create_graph=True)
            second = (form.hessian_product(u, along, *params) * test).sum() + sum_of(f.square().sum() for f in first)
            found.append([*first, *torch.autograd.grad(second, leaves)])
    torch.testing.assert_close(*found)


def test_forms_that_are_not_linear_in_the_test_function_raise() -> None:
    V = FunctionSpace(mesh_of("triangle"), Lagrange(1))
    form = WeakForm(V, lambda x, u, g, v, h: (g * h).sum(-1) + v**2, Dirichlet(V, {"boundary": 0.0}))
    with path(True), pytest.raises(ValueError, match="not linear in v"):
        solve(form)


def test_stokes_flow_and_its_derivative() -> None:
    mesh, found = mesh_of("triangle"), []
    V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    X = MixedSpace(V, Q)

    def density(x, u, g, k):
        (v, p), (dv, _) = u, g
        return (
            k * dv.square().sum((-2, -1)) - p * dv.diagonal(dim1=-2, dim2=-1).sum(-1) - v[..., 0] * torch.sin(x[..., 1])
        )

    for wanted in (True, False):
        k = (1 + random(mesh.num_cells, seed=3)).requires_grad_()
        energy = Energy(X, density, Dirichlet(X, {("boundary", 0): 0.0}) & MeanZero(X, field=1))
        with path(wanted):
            assert isinstance(energy.discrete_form((V.per_cell(k),)).integrals[0], MeshIntegral) == wanted
            u = solve(energy, params=(V.per_cell(k),)).value
            found.append((u, *torch.autograd.grad(u.square().sum(), k)))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


# -- facets ------------------------------------------------------------------------------------------------------------


def compare(functional: Any, params: tuple, u: Tensor, v: Tensor, when: str = "never") -> None:
    """Both paths give the same for terms on facets, whose groups are one integral by loops."""
    found = []
    for wanted in (True, False):
        with path(wanted), compilation(when):
            form = functional.discrete_form(params)
            assert any(isinstance(i, FacetIntegral) for i in form.integrals) == wanted
            whole = results(form, u, v)
            constant = [h.times_constant(0, 0) for h in form.hessians(u)]
            whole |= {name: form.join([c[k] for c in constant], u, form.full_batch(u)) for k, name in enumerate("cd")}
            found.append({n: t for n, t in whole.items() if n not in ("of a constant", "by size")})
    for name, value in found[0].items():
        other = found[1][name]
        scale = float(other.abs().max())
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12 * scale, msg=lambda m: f"{name}: {m}")  # noqa: B023


def penalty(x, u, g, n, s, k, field, slope, tag, number):
    slip = jump(u).square().sum(-1) / s * average(k) * tag.plus
    flux = (average(g) @ n[..., None])[..., 0]
    return (
        slip * (1 + field * number) - (flux * jump(u)).sum(-1) + (jump(u) * jump(slope)).sum(-1) * torch.exp(x[..., 0])
    )


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", ["triangle", "hexahedron"])
def test_facets_inside_the_domain(kind: str, when: str) -> None:
    mesh = scrambled(mesh_of(kind)).with_tags(
        cell_tags={"a": lambda x: x[..., 0] < 0.3, "b": lambda x: x[..., 0] >= 0.3}
    )
    V = FunctionSpace(mesh, Discontinuous(1), components=mesh.dim)
    C = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, lambda x, u, g, *_: g.square().sum((-1, -2)), interior={"": penalty})
    params = (
        V.per_cell(1 + random(2, mesh.num_cells, seed=3)),
        C.function(random(*C.shape, seed=4)),
        gradient(C.function(random(*C.shape, seed=5))),
        by_cell_tag({"a": 1.0, "b": 2.0}),
        0.3,
    )
    compare(energy, params, random(*V.shape), random(*V.shape, seed=2), when)


@pytest.mark.parametrize("when", WHEN)
def test_boundary_facets(when: str) -> None:
    for mesh in (mesh_of("tetrahedron"), mesh_of("quadrilateral", 2)):
        V = FunctionSpace(mesh, Lagrange(2))
        load = FunctionSpace(mesh, Lagrange(1))

        def robin(x, u, g, n, k, f):
            return 0.5 * k * u**4 - f * u * n[..., 0] + (g * n).sum(-1) * u

        energy = Energy(V, lambda x, u, g, *_: g.square().sum(-1), boundary={"boundary": robin}, derivatives=(1, 1))
        params = (load.function(1 + random(2, *load.shape, seed=3)), lambda x: x.square().sum(-1))
        compare(energy, params, random(*V.shape), random(*V.shape, seed=2), when)


@pytest.mark.parametrize("when", WHEN)
def test_weak_forms_on_facets_of_mixed_spaces(when: str) -> None:
    mesh = scrambled(mesh_of("triangle"))
    V = FunctionSpace(mesh, Discontinuous(1), components=2, quadrature_degree=3)  # one rule for both
    Q = FunctionSpace(mesh, Discontinuous(0))
    X = MixedSpace(V, Q)

    def inside(x, u, g, v, h, n, s, k):
        (w, p), (z, q), (dw, _) = u, v, g
        upwind = 0.5 * (average(w) * n).sum(-1).abs() * (jump(w) * jump(z)).sum(-1)
        return (
            upwind / s
            + average(p) * (jump(z) * n).sum(-1)
            + k * jump(p) * jump(q)
            + (jump(z) * average(dw)[..., 0]).sum(-1)
        )

    def outside(x, u, v, n, k):
        return k * u[1] * (v[0] * n).sum(-1) + u[1] ** 2 * v[1]

    form = WeakForm(X, flowing, boundary={"boundary": outside}, interior={"": inside})
    compare(form, (0.7,), random(*X.shape), random(2, *X.shape, seed=2), when)


@pytest.mark.parametrize("when", WHEN)
def test_derivatives_of_terms_on_facets_reach_parameters_and_nodes(when: str) -> None:
    mesh = scrambled(mesh_of("triangle"))
    V = FunctionSpace(mesh, Discontinuous(1))
    given = [random(*V.shape), 1 + random(*V.shape, seed=3), 1 + random(mesh.num_cells, seed=4), mesh.nodes]
    test, found = random(*V.shape, seed=5), []

    def inside(x, u, g, n, s, k, c):
        return average(k) * average(c) / s * jump(u) ** 2 - (average(g) * n).sum(-1) * jump(u)

    for wanted in (True, False):
        u, k, c, nodes = leaves = [t.clone().requires_grad_() for t in given]
        W = FunctionSpace(mesh.with_nodes(nodes), Discontinuous(1))
        outside = {"boundary": lambda x, u, n, k, c: k * c * u**3 * n[..., 0]}
        energy = Energy(W, lambda x, u, g, *_: g.square().sum(-1), interior={"": inside}, boundary=outside)
        params = (W.function(k), W.per_cell(c))
        with path(wanted), compilation(when):
            first = torch.autograd.grad(energy(u, *params), leaves, create_graph=True)
            second = (energy.hessian_product(u, test, *params) * test).sum() + sum_of(f.square().sum() for f in first)
            found.append([*first, *torch.autograd.grad(second, leaves)])
    torch.testing.assert_close(*found)


def test_what_is_not_finite_on_a_facet_is_told_with_its_cell() -> None:
    mesh = scrambled(mesh_of("triangle"))
    V = FunctionSpace(mesh, Discontinuous(1))
    cells = lambda x, u, g: g.square().sum(-1)  # noqa: E731
    inside = Energy(V, cells, interior={"": lambda x, u, g, n, s: torch.log(-s) * jump(u)})
    outside = Energy(V, cells, boundary={"boundary": lambda x, u, n: torch.log(-1 - u**2)})
    for wanted in (True, False):
        for energy in (inside, outside):
            with path(wanted), pytest.raises(ValueError, match=r"in cell .*, at x = "):
                energy(random(*V.shape))


def test_solutions_with_jumps_do_not_depend_on_the_path() -> None:
    mesh, found = scrambled(mesh_of("quadrilateral")), []
    for wanted in (True, False):
        V, k = FunctionSpace(mesh, Discontinuous(1)), (1 + random(mesh.num_cells, seed=3)).requires_grad_()
        energy = Energy(
            V,
            lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u,
            interior={"": lambda x, u, g, n, s, k: 8 * average(k) / s * jump(u) ** 2},
            boundary={"boundary": lambda x, u, n, k: 20 * k * u**2},
        )
        with path(wanted):
            u = minimize(energy, params=(V.per_cell(k),)).value
            found.append((u, *torch.autograd.grad(u.square().sum(), k)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@compiled
@pytest.mark.slow
def test_threads_give_the_same_bits_on_facets_and_for_weak_forms() -> None:
    mesh = scrambled(unit_cube(6, 5, 4, cell="tetrahedron"))
    X = MixedSpace(FunctionSpace(mesh, Discontinuous(1), components=3), FunctionSpace(mesh, Lagrange(1)))

    def inside(x, u, g, v, h, n, s, k):
        return k / s * (jump(u[0]) * jump(v[0])).sum(-1) + average(u[1]) * (jump(v[0]) * n).sum(-1)

    outside = {"boundary": lambda x, u, v, n, k: k * u[1] * (v[0] * n).sum(-1)}
    same_bits(WeakForm(X, flowing, boundary=outside, interior={"": inside}), (0.7,))
