"""Derivatives of `minimize` and `solve` by forward mode, `torch.func` and batched gradients: those of reverse mode."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, WeakForm, unit_square
from solvers import ConvergenceError, Direct, Newton, eigenmodes, minimization, minimize, solve

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what PyTorch runs forward mode by

torch.manual_seed(0)
MESH = unit_square(5)
V = FunctionSpace(MESH, Lagrange(1))
LOAD = torch.rand(V.num_dofs, dtype=torch.float64)
K = torch.tensor(2.0, dtype=torch.float64)


def density(x, u, grad_u, k, f):
    return 0.5 * k * grad_u.square().sum(-1) + u**4 - f * u


ENERGY = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))


def by_parameter(k):
    return minimize(ENERGY, (k, V.function(LOAD))).value.square().sum()


def by_field(k):
    return minimize(ENERGY, (1.0, V.function(k * LOAD)), method=Direct()).value.square().sum()


def by_energy(k):
    return minimize(ENERGY, (k, V.function(LOAD))).energy


def by_batch(k):
    return minimize(ENERGY, (torch.stack([k, 2 * k]), V.function(LOAD))).value.square().sum()


def by_boundary_value(k):
    energy = Energy(V, density, Dirichlet(V, {"left": k, "right": 0.0}))
    return minimize(energy, (1.0, V.function(LOAD))).value.square().sum()


def by_nodes(k):
    W = FunctionSpace(Mesh(MESH.nodes * k, MESH.cells, cell="quadrilateral"), Lagrange(1))
    return minimize(Energy(W, density, Dirichlet(W, {"boundary": 0.1})), (1.0, W.function(LOAD))).value.square().sum()


def by_bound(k):
    return minimize(ENERGY, (0.1, V.function(30 * LOAD)), upper=0.1 * k).value.square().sum()


def by_weak_form(k):
    form = WeakForm(
        V,
        lambda x, u, g, v, gv, k, f: k * (g * gv).sum(-1) + 3 * g[..., 0] * v + u**3 * v - f * v,
        Dirichlet(V, {"left": k, "right": 0.0}),
    )
    return solve(form, (k, V.function(LOAD))).value.square().sum()


def by_residual(k):
    return ENERGY.residual(k * LOAD, k, V.function(LOAD)).square().sum()


def by_hessian_product(k):
    return ENERGY.hessian_product(k * LOAD, LOAD, k, V.function(LOAD)).square().sum()


FUNCTIONS = [
    by_parameter,
    by_field,
    by_energy,
    by_batch,
    by_boundary_value,
    by_nodes,
    by_bound,
    by_weak_form,
    by_residual,
    by_hessian_product,
]


def dual(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(K, torch.ones_like(K)))).tangent


FIRST = {
    "dual numbers": dual,
    "grad": lambda f: grad(f)(K),
    "vjp": lambda f: vjp(f, K)[1](torch.ones_like(K))[0],
    "jvp": lambda f: jvp(f, (K,), (torch.ones_like(K),))[1],
    "jacrev": lambda f: jacrev(f)(K),
    "jacfwd": lambda f: jacfwd(f)(K),
    "batch of gradients": lambda f: jacobian(f, K, vectorize=True),
    "batch of tangents": lambda f: jacobian(f, K, vectorize=True, strategy="forward-mode"),
}
SECOND = {
    "hessian": lambda f: torch.func.hessian(f)(K),
    "grad of grad": lambda f: grad(grad(f))(K),
    "forward over forward": lambda f: jacfwd(jacfwd(f))(K),
    "reverse over forward": lambda f: jacrev(jacfwd(f))(K),
    "batch of gradients": lambda f: hessian(f, K, vectorize=True),
}


@pytest.mark.parametrize("f", FUNCTIONS)
def test_every_way_gives_the_derivative_of_reverse_mode(f):
    once = jacobian(f, K)
    for name, way in FIRST.items():
        torch.testing.assert_close(way(f), once, rtol=1e-9, atol=0, msg=name)


@pytest.mark.parametrize("f", [by_parameter, by_boundary_value, by_nodes, by_weak_form])
def test_second_derivatives_too(f):
    twice = hessian(f, K)
    for name, way in SECOND.items():
        torch.testing.assert_close(way(f), twice, rtol=1e-8, atol=0, msg=name)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_tangents_are_limits_of_differences(f):
    h = 1e-5
    torch.testing.assert_close(dual(f), (f(K + h) - f(K - h)) / (2 * h), rtol=1e-5, atol=1e-9)


def by_start(k):
    return minimize(ENERGY, (0.1, V.function(30 * LOAD)), initial=k * LOAD).value.square().sum()


def by_nested_maps(k):
    return vmap(lambda j: by_field(k * j))(SEVERAL).sum()


SEVERAL = torch.tensor([1.0, 2.0, 3.5], dtype=torch.float64)
MAPPED = [f for f in FUNCTIONS if f is not by_nodes] + [by_start, by_nested_maps]


@pytest.mark.parametrize("f", MAPPED)
def test_vmap_is_a_batch_with_the_numbers_of_its_items(f):
    values, slopes = torch.stack([f(k) for k in SEVERAL]), torch.stack([grad(f)(k) for k in SEVERAL])
    curvatures = torch.stack([grad(grad(f))(k) for k in SEVERAL])
    torch.testing.assert_close(vmap(f)(SEVERAL), values, rtol=1e-12, atol=0)
    for way in (
        vmap(grad(f)),
        vmap(jacfwd(f)),
        vmap(lambda k: jvp(f, (k,), (torch.ones_like(k),))[1]),
        grad(lambda several: vmap(f)(several).sum()),
        lambda several: jacrev(vmap(f))(several).diagonal(),
    ):
        torch.testing.assert_close(way(SEVERAL), slopes, rtol=1e-9, atol=1e-12)
    for way in (vmap(grad(grad(f))), vmap(torch.func.hessian(f))):
        torch.testing.assert_close(way(SEVERAL), curvatures, rtol=1e-8, atol=1e-12)


def test_vmap_solves_once_for_all_items(monkeypatch):
    """Items that share nodes whose gradient is asked for are solved one by one: a mesh has no batch."""
    solves, newton = [], minimization.newton
    monkeypatch.setattr(minimization, "newton", lambda *given: (solves.append(given[1].shape), newton(*given))[1])
    vmap(grad(by_parameter))(SEVERAL)
    assert solves == [(3, *V.shape)]
    solves.clear()
    vmap(by_batch)(SEVERAL)
    assert solves == [(3, 2, *V.shape)]

    def by_nodes_and_load(scale, load):
        W = FunctionSpace(Mesh(MESH.nodes * scale, MESH.cells, cell="quadrilateral"), Lagrange(1))
        return minimize(Energy(W, density, Dirichlet(W, {"boundary": 0.1})), (1.0, load)).value.square().sum()

    found = vmap(grad(by_nodes_and_load, argnums=(0, 1)), in_dims=(None, 0))(K, SEVERAL)
    alone = [jacobian(by_nodes_and_load, (K, load)) for load in SEVERAL]
    for part, wanted in zip(found, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(wanted), rtol=1e-9, atol=0)


def test_densities_that_take_numbers_alone_are_mapped_item_by_item():
    """`k * grad_u` aligns a batch of k with the points; on 25 cells one of 25 items would even fit."""
    several = torch.linspace(1, 2, 25, dtype=torch.float64)
    held = Dirichlet(V, {"boundary": 0.0})
    before, after = (
        Energy(V, lambda x, u, g, k: 0.5 * (k * g.square()).sum(-1) - u, held),
        Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u, held),
    )
    for way in (vmap, lambda f: vmap(grad(f))):
        found, wanted = (way(lambda k: minimize(J, (k,)).value.sum())(several) for J in (before, after))  # noqa: B023
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)


def test_vmap_says_so_where_it_cannot():
    with pytest.raises(ValueError, match="give the parameters a leading axis"):
        vmap(lambda k: minimize(ENERGY, (k, 1.0), throw=False).value)(SEVERAL)
    with pytest.raises(ValueError, match="many meshes"):
        vmap(by_nodes)(SEVERAL)
    with pytest.raises(ConvergenceError, match=r"1 of 3 batch items \(the first is 1\)"):
        vmap(lambda k: minimize(ENERGY, (k, 1.0), method=Newton(max_iterations=2)).value)(
            torch.tensor([1e6, 0.1, 1e6]).double()
        )


def test_a_density_that_captures_what_is_transformed_raises():
    def captured(k):
        energy = Energy(V, lambda x, u, g: 0.5 * k * g.square().sum(-1) - u, ENERGY.constraint)
        return minimize(energy).value.sum()

    ways = [dual, *(FIRST[name] for name in ("grad", "jvp")), SECOND["hessian"], lambda f: vmap(f)(K.expand(2))]
    for way in ways:
        with pytest.raises(ValueError, match="captures a tensor"):
            way(captured)


def test_loops_over_grids_and_multigrid():
    """Beyond some thousand cells energies are integrated without values at points, except under transformations."""
    W = FunctionSpace(unit_square(48), Lagrange(1))
    energy = Energy(W, density, Dirichlet(W, {"boundary": 0.0}))
    f = lambda k: minimize(energy, (k, 1.0)).value.sum()  # noqa: E731
    once = jacobian(f, K)
    for name, way in FIRST.items():
        torch.testing.assert_close(way(f), once, rtol=1e-9, atol=0, msg=name)
    torch.testing.assert_close(hessian(f, K, vectorize=True), hessian(f, K), rtol=1e-8, atol=0)


def test_eigenvalues():
    W = FunctionSpace(unit_square(4), Lagrange(1))
    constraint = Dirichlet(W, {"boundary": 0.0})
    stiffness = Energy(W, lambda x, u, g, k: 0.5 * k * g.square().sum(-1), constraint)
    mass = Energy(W, lambda x, u, g: 0.5 * u.square(), constraint)
    f = lambda k: eigenmodes(stiffness, mass, 2, (k,)).values[0]  # noqa: E731
    for name, way in FIRST.items():
        torch.testing.assert_close(way(f), f(K) / K, rtol=1e-9, atol=0, msg=name)
