"""Loops over the cells of any mesh: the same values and derivatives as by values at points, on all that they serve.

The path is chosen when a discrete form is made, by the number of points: here it is forced either way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import fem.forms.traced.mesh_cells
from fem import (
    Constant,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    WeakForm,
    box,
    by_cell_tag,
    compilation,
    gradient,
    unit_interval,
)
from fem.forms.cell_integral import CellIntegral
from fem.forms.discrete import DiscreteForm
from fem.forms.traced.mesh_integral import FacetIntegral, MeshIntegral
from fem.support.arithmetic import sum_of
from fem.support.native import find_compiler
from solvers import minimize
from tests.problems import conduction

F64: Any = {"dtype": torch.float64}
KINDS = ("interval", "triangle", "quadrilateral", "tetrahedron", "hexahedron")
compiled = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


@contextmanager
def path(by_loops: bool) -> Iterator[None]:
    """Within, energies are integrated by loops over cells wherever possible, or nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MESH_POINTS", "FACET_POINTS", "GROUPS"):
            patch.setattr(fem.forms.traced.mesh_cells, name, 1 if by_loops else 10**9)
        yield


def random(*shape: int, seed: int = 0, **options) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), **(F64 | options))


def mesh_of(kind: str, degree: int = 1, dtype: torch.dtype = torch.float64) -> Mesh:
    """A few cells of one kind with nodes moved at random, in two materials; of degree 2 their geometry is curved."""
    dim = {"interval": 1, "triangle": 2, "quadrilateral": 2}.get(kind, 3)
    whole = box((-0.5, 0.25, 1.0)[:dim], (1.0, 1.25, 3.0)[:dim], (3, 2, 2)[:dim], cell=kind, dtype=dtype)
    nodes, cells = whole.nodes, whole.blocks[0].connectivity
    if degree > 1:
        V = FunctionSpace(whole, Lagrange(degree))
        nodes, cells = V.dof_coordinates, V.cell_dofs[0]
    moved = nodes + (0.05 / degree) * (random(*nodes.shape, seed=9, dtype=dtype) - 0.5)
    return Mesh(moved, cells, kind).with_tags(
        cell_tags={"a": lambda x: x[..., 0] < 0.3, "b": lambda x: x[..., 0] >= 0.3}
    )


def nonlinear(x, u, g, k, f):
    slope = g.square().sum(-1)
    return 0.5 * k * slope * (1 + u.square()) + 0.1 * slope.square() + torch.cos(u) - f * u * x[..., 0]


def elastic(x, u, g, k, f):
    """Nonlinear in everything, with coupled components."""
    strain = 0.5 * (g + g.mT)
    trace = g.diagonal(dim1=-2, dim2=-1).sum(-1)
    cubic = u.square().sum(-1) ** 2 + (u[..., None, :] * g).sum((-2, -1)) ** 2
    return k * (strain.square().sum((-2, -1)) + 0.5 * trace.square()) + 0.3 * cubic - f * u[..., -1]


def results(form: DiscreteForm, u: Tensor, v: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        state, hessian = form.evaluate(u), form.hessians(u)[0]
        return {
            "residual": form.residual(u),
            "product": form.hessian_product(u, v),
            "transposed product": form.hessian_product(u, v, transpose=True),
            **({} if state.value is None else {"value": form.value(u), "value of the state": state.value}),
            "residual of the state": state.residual,
            "magnitude": state.magnitude,
            "matrix": form.matrix_values(u),
            "of a constant": form.join([hessian.times_constant(0, 0)[0]], u, form.full_batch(u)),
            "by size": form.join([hessian.times_constant(0, 0)[1]], u, form.full_batch(u)),
        }


def check(
    energy: Energy | WeakForm, params: tuple, u: Tensor, v: Tensor, when: str = "never", tolerance: float = 1e-12
) -> None:
    """Both paths give the same, and are those they are said to be."""
    found = []
    for wanted in (True, False):
        with path(wanted), compilation(when):
            form = energy.discrete_form(params)
            assert isinstance(form.integrals[0], MeshIntegral if wanted else CellIntegral)
            found.append(results(form, u, v))
    for name, value in found[0].items():
        other = found[1][name]
        assert value.shape == other.shape, name
        assert value.dtype == other.dtype, name
        scale = float(other.abs().max())
        torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance * scale, msg=lambda m: f"{name}: {m}")  # noqa: B023


# -- the same as by values at points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_scalars(kind: str, degree: int) -> None:
    V = FunctionSpace(mesh_of(kind), Lagrange(degree))
    energy = Energy(V, nonlinear, Dirichlet(V, {"boundary": 0.3}))
    params = (V.function(1 + random(*V.shape, seed=1)), lambda x: x.square().sum(-1))
    check(energy, params, random(*V.shape), random(*V.shape, seed=2))


@compiled
@pytest.mark.parametrize(
    ("kind", "degree"),
    [("tetrahedron", 1)] + [pytest.param(k, d, marks=pytest.mark.slow) for k in KINDS for d in (1, 2, 3)],
)
def test_compiled_scalars(kind: str, degree: int) -> None:
    V = FunctionSpace(mesh_of(kind), Lagrange(degree))
    energy = Energy(V, nonlinear, Dirichlet(V, {"boundary": 0.3}))
    params = (V.function(1 + random(*V.shape, seed=1)), lambda x: x.square().sum(-1))
    check(energy, params, random(*V.shape), random(*V.shape, seed=2), "always")


@pytest.mark.parametrize("when", ["never", pytest.param("always", marks=[compiled, pytest.mark.slow])])
@pytest.mark.parametrize(
    ("kind", "degree", "shape"),
    [("triangle", 2, 1), ("hexahedron", 1, 1), ("quadrilateral", 1, 2)]
    + [pytest.param("tetrahedron", *case, marks=pytest.mark.slow) for case in ((1, 1), (2, 2))],
)
def test_vectors_in_a_batch_and_curved_cells(kind: str, degree: int, shape: int, when: str) -> None:
    mesh = mesh_of(kind, shape)
    V = FunctionSpace(mesh, Lagrange(degree), components=mesh.dim)
    energy = Energy(V, elastic, Dirichlet(V, {"boundary": 0.1}))
    Q = FunctionSpace(mesh, Lagrange(3 - degree))
    params = (Q.function(1 + random(2, 1, *Q.shape, seed=1)), torch.tensor([0.3, 0.4, 0.5], **F64))
    check(energy, params, random(3, *V.shape), random(*V.shape, seed=2), when)


def many(x, u, g, cell, tag, slope, field, vector, matrix, jumping, number):
    inner = (g * vector).sum(-1) + (slope[..., None, :] @ matrix @ g[..., None])[..., 0, 0] + (field * slope).sum(-1)
    return 0.5 * cell * tag * inner.square() + jumping * u**2 + number * torch.exp(-u) * x[..., 1]


@pytest.mark.parametrize("when", ["never", pytest.param("always", marks=[compiled, pytest.mark.slow])])
@pytest.mark.parametrize("kind", ["triangle", "hexahedron"])
def test_all_kinds_of_parameters(kind: str, when: str) -> None:
    mesh = mesh_of(kind)
    V, d = FunctionSpace(mesh, Lagrange(1)), mesh.dim
    W, D = FunctionSpace(mesh, Lagrange(2), components=d), FunctionSpace(mesh, Discontinuous(1))
    params = (
        V.per_cell(1 + random(2, mesh.num_cells)),
        by_cell_tag({"a": 1.0, "b": torch.tensor(2.0, **F64)}),
        gradient(V.function(random(*V.shape, seed=3))),
        W.function(random(*W.shape, seed=4)),
        Constant(random(d, seed=5), (d,)),
        V.per_cell(random(mesh.num_cells, d, d, seed=6), shape=(d, d)),
        D.function(random(*D.shape, seed=7)),
        0.7,
    )
    check(Energy(V, many), params, random(*V.shape), random(*V.shape, seed=2), when)


def test_unknowns_that_jump_and_cells_of_two_kinds() -> None:
    nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.1, 1.0], [0.0, 1.2], [2.0, 0.3], [2.2, 1.0]], **F64)
    cells = {"quadrilateral": torch.tensor([[0, 1, 2, 3]]), "triangle": torch.tensor([[1, 4, 2], [4, 5, 2]])}
    mesh = Mesh(nodes, cells)
    for family in (Lagrange(2), Discontinuous(1)):
        V = FunctionSpace(mesh, family)
        energy, params = Energy(V, nonlinear), (V.function(1 + random(*V.shape, seed=1)), 0.5)
        u, v, found = random(*V.shape), random(*V.shape, seed=2), []
        for wanted in (True, False):
            with path(wanted):
                form = energy.discrete_form(params)
                assert all(isinstance(i, MeshIntegral if wanted else CellIntegral) for i in form.integrals)
                found.append((form.value(u), form.residual(u), form.hessian_product(u, v), form.matrix_values(u)))
        torch.testing.assert_close(*found)


def test_surfaces_in_space() -> None:
    flat = mesh_of("triangle")
    nodes = torch.cat([flat.nodes, (flat.nodes**2).sum(-1, keepdim=True)], -1)
    V = FunctionSpace(Mesh(nodes, flat.blocks[0].connectivity, "triangle"), Lagrange(2))
    params = (V.function(1 + random(*V.shape, seed=1)), 0.5)
    check(Energy(V, nonlinear), params, random(*V.shape), random(*V.shape, seed=2))


@pytest.mark.parametrize("when", ["never", pytest.param("always", marks=[compiled, pytest.mark.slow])])
def test_float32(when: str) -> None:
    V = FunctionSpace(mesh_of("triangle", dtype=torch.float32), Lagrange(1))
    f32: Any = {"dtype": torch.float32}
    params = (V.function(1 + random(*V.shape, seed=1, **f32)), 0.5)
    check(Energy(V, nonlinear), params, random(*V.shape, **f32), random(*V.shape, seed=2, **f32), when, 1e-5)


# -- derivatives with respect to everything ----------------------------------------------------------------------------


def derivatives(energy: Callable[..., tuple[Energy, tuple]], given: list[Tensor], u: Tensor, v: Tensor) -> list[Tensor]:
    """First and second derivatives of ⟨J′(u), v⟩ and J with respect to u and some tensors."""
    leaves = [t.clone().requires_grad_() for t in (u, *given)]
    J, params = energy(*leaves[1:])
    first = torch.autograd.grad(J(leaves[0], *params).sum(), leaves, create_graph=True)
    along = (J.residual(leaves[0], *params) * v).sum() + sum_of(f.square().sum() for f in first)
    product = (J.hessian_product(leaves[0], v, *params) * v).sum()
    return [*first, *torch.autograd.grad(along + product, leaves)]


@pytest.mark.parametrize("when", ["never", pytest.param("always", marks=[compiled, pytest.mark.slow])])
@pytest.mark.parametrize("kind", ["triangle", "quadrilateral"])
def test_derivatives_of_all_orders_reach_parameters_and_nodes(kind: str, when: str) -> None:
    mesh = mesh_of(kind)
    V = FunctionSpace(mesh, Lagrange(1))

    def energy(nodes: Tensor, k: Tensor, cells: Tensor, f: Tensor, tag: Tensor) -> tuple[Energy, tuple]:
        W = FunctionSpace(mesh.with_nodes(nodes), Lagrange(1))

        def density(x, u, g, k, cell, f, tag):
            return 0.5 * k * cell * g.square().sum(-1) * (1 + u**2) - f * tag * u**3 * x[..., 0]

        params = (W.function(k), W.per_cell(cells), f, by_cell_tag({"a": tag, "b": 2.0}))
        return Energy(W, density, Dirichlet(W, {"boundary": 0.2})), params

    given = [mesh.nodes, 1 + random(*V.shape, seed=3), 1 + random(mesh.num_cells, seed=4)]
    given += [torch.tensor(0.3, **F64), torch.tensor(1.5, **F64)]
    found = []
    for wanted in (True, False):
        with path(wanted), compilation(when):
            found.append(derivatives(energy, given, random(*V.shape), random(*V.shape, seed=2)))
    torch.testing.assert_close(*found)


def test_solutions_and_their_derivatives() -> None:
    mesh = mesh_of("tetrahedron")
    found = []
    for wanted in (True, False):
        k, nodes = 1 + random(mesh.num_nodes, seed=3), mesh.nodes.clone()
        k.requires_grad_()
        nodes.requires_grad_()
        V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(1))
        with path(wanted):
            u = minimize(Energy(V, conduction, Dirichlet(V, {"boundary": 0.0})), params=(V.function(k), 1.0)).value
            first = torch.autograd.grad(u.square().sum(), (k, nodes), create_graph=True)
            second = torch.autograd.grad(sum_of(f.square().sum() for f in first), (k, nodes))
        found.append((u, *first, *second))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


# -- results do not depend on threads ----------------------------------------------------------------------------------


@compiled
def test_threads_give_the_same_bits() -> None:
    mesh = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (9, 8, 7), cell="tetrahedron")
    V = FunctionSpace(mesh, Lagrange(1))
    params = (V.function(1 + random(*V.shape, seed=1)), lambda x: x.square().sum(-1))
    same_bits(Energy(V, nonlinear), params)


def same_bits(functional: Energy | WeakForm, params: tuple) -> None:
    """Whatever the number of threads."""
    space, threads, found = functional.space, torch.get_num_threads(), []
    u, v = random(*space.shape), random(*space.shape, seed=2)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with path(True), compilation("always"):
                found.append(results(functional.discrete_form(params), u, v))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], value) for name, value in other.items())


# -- which rule --------------------------------------------------------------------------------------------------------


def points(V: FunctionSpace, density: Callable, *params: Any) -> int:
    """How many quadrature points a cell has, where both paths give the same."""
    energy, u, v = Energy(V, density), random(*V.shape), random(*V.shape, seed=2)
    check(energy, params, u, v)
    with path(True):
        return len(energy.discrete_form(params).integrals[0].domain.weights)


def test_the_cheapest_exact_rule_is_taken() -> None:
    mesh = mesh_of("tetrahedron")
    V = FunctionSpace(mesh, Lagrange(1))
    default, k = len(V.quadrature.domains()[0].weights), V.function(1 + random(*V.shape))
    assert points(V, conduction, k, 1.0) == 1 < default
    assert points(V, conduction, V.per_cell(1 + random(mesh.num_cells)), 1.0) == 1
    assert points(V, lambda x, u, g, k: k * u.square(), 2.0) == 4
    assert points(V, lambda x, u, g, k: k * u.square(), k) == default  # of degree 3
    assert points(V, conduction, k, lambda x: x[..., 0]) == default  # a callable knows nothing of degrees
    assert points(V, lambda x, u, g: g.square().sum(-1).sqrt()) == 1  # constant in each cell
    assert points(V, lambda x, u, g: torch.exp(u)) == default
    assert points(FunctionSpace(mesh, Lagrange(1), quadrature_degree=2), conduction, k, 1.0) == 4
    assert points(FunctionSpace(mesh_of("triangle", 2), Lagrange(1)), lambda x, u, g: g.square().sum(-1)) > 1


# -- who else ----------------------------------------------------------------------------------------------------------


def test_everything_else_is_integrated_by_values_at_points() -> None:
    mesh = mesh_of("triangle")
    V = FunctionSpace(mesh, Lagrange(1))
    held = torch.tensor(1.0, **F64).requires_grad_()
    with path(True):
        forms = [
            Energy(V, lambda x, u, g: held * u.square()).discrete_form(),
            Energy(V, lambda x, u, g: u.square() if bool((u > 0).all()) else u).discrete_form(),
            Energy(FunctionSpace(mesh, Discontinuous(0)), lambda x, u, g: u.square()).discrete_form(),
        ]
        assert all(isinstance(f.integrals[0], CellIntegral) for f in forms)
        with_boundary = Energy(V, conduction, boundary={"boundary": lambda x, u, n, *_: u}).discrete_form((1.0, 1.0))
        assert [type(i) for i in with_boundary.integrals] == [MeshIntegral, FacetIntegral]
    assert isinstance(Energy(V, conduction).discrete_form((1.0, 1.0)).integrals[0], CellIntegral)  # a small mesh


def test_a_density_that_changes_is_traced_again() -> None:
    V, factor = FunctionSpace(unit_interval(4), Lagrange(1)), [1.0]
    moved = Mesh(V.mesh.nodes**2, V.mesh.blocks[0].connectivity, "interval")
    V = FunctionSpace(moved, Lagrange(1))
    energy, u = Energy(V, lambda x, u, g: factor[0] * u.square()), random(*V.shape)
    with path(True):
        before = energy(u)
        factor[0] = 3.0
        torch.testing.assert_close(energy(u), 3 * before)


def test_derivatives_on_boxes_keep_their_degree_in_other_directions() -> None:
    V = FunctionSpace(box((0.0, 0.0), (1.0, 2.0), (3, 2)), Discontinuous(1))
    assert points(V, lambda x, u, g: g.square().sum(-1)) == 4
    assert points(V, lambda x, u, g: g[..., 0]) == 1
