"""Grid integrals: the same values and derivatives as by gathering cell by cell, of all orders, on all that they serve.

The path is chosen when a discrete form is made, by the number of cells: here it is forced either way.
"""

from collections.abc import Callable
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import fem.forms.traced.loops
import fem.kernels.grid_inputs
from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    box,
    by_cell_tag,
    compilation,
    gradient,
    unit_square,
)
from fem.forms.assembly import element_matrices
from fem.forms.discrete import DiscreteForm
from fem.forms.grid_integral import GridIntegral
from fem.kernels.grid_inputs import Input
from fem.kernels.grid_integrand import GridIntegrand
from fem.kernels.integrand import IntegralSlopes
from fem.kernels.tape import record
from fem.reference.spline_element import BSpline
from fem.support.native import find_compiler
from solvers import minimize
from tests.problems import conduction, diffusion, distorted, laplace, poisson

F64: Any = {"dtype": torch.float64}
CELLS = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}


@contextmanager
def path(on_grid: bool):
    """Within, energies are integrated by grid integrals wherever possible, or nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fem.forms.traced.loops, "GRID_CELLS", 1 if on_grid else 10**9)
        yield


@pytest.fixture(autouse=True, params=["never", pytest.param("always", marks=pytest.mark.slow)])
def always_on_grids(request: pytest.FixtureRequest):
    """In PyTorch, and as C code where there is a compiler."""
    if request.param == "always" and find_compiler() is None:
        pytest.skip("needs a C compiler")
    with path(True), compilation(request.param):
        yield


def random(*shape: int, seed: int = 0, **options) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), **(F64 | options))


def grid(dim: int = 2, **options):
    """A box with another lower corner, size and number of cells along each axis, in two materials."""
    mesh = box((-0.5, 0.25, 1.0)[:dim], (1.0, 1.25, 3.0)[:dim], CELLS[dim], **options)
    return mesh.with_tags(cell_tags={"a": lambda x: x[..., 0] < 0.3, "b": lambda x: x[..., 0] > 0.3})


def space(dim: int = 2, degree: int = 1, **options) -> FunctionSpace:
    return FunctionSpace(grid(dim), Lagrange(degree), **options)


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
        state = form.evaluate(u)
        return {
            "value": form.value(u),
            "residual": form.residual(u),
            "product": form.hessian_product(u, v),
            "value of the state": state.value,
            "residual of the state": state.residual,
            "magnitude": state.magnitude,
        }


def check(energy: Energy, params: tuple, u: Tensor, v: Tensor, on_grid: bool = True, tolerance: float = 1e-11) -> None:
    """Both paths give the same, and are those they are said to be."""
    found = []
    for wanted in (on_grid, False):
        with path(on_grid if wanted else False):
            form = energy.discrete_form(params)
        assert isinstance(form.integrals[0], GridIntegral) == wanted
        found.append(results(form, u, v))
    for name, value in found[0].items():
        other = found[1][name]
        assert value.shape == other.shape, name
        assert value.dtype == other.dtype, name
        scale = float(other.abs().max())
        torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance * scale, msg=lambda m: f"{name}: {m}")  # noqa: B023


# -- the same as by gathering ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "degree"), list(product((1, 2, 3), (1, 2, 3))))
def test_scalars(dim: int, degree: int) -> None:
    V = space(dim, degree)
    energy = Energy(V, nonlinear, Dirichlet(V, {"left": 0.3}))
    params = (V.function(1 + random(*V.shape, seed=1)), lambda x: x.square().sum(-1))
    check(energy, params, random(*V.shape), random(*V.shape, seed=2))


@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 1), (2, 2), (2, 3), (3, 1)])
def test_vectors(dim: int, degree: int) -> None:
    V = space(dim, degree, components=dim)
    Q = FunctionSpace(V.mesh, Lagrange(3 - degree if degree < 3 else 1))
    energy = Energy(V, elastic, Dirichlet(V, {"left": 0.0, ("right", 0): 0.2}))
    check(energy, (Q.function(random(2, *Q.shape)), 0.4), random(*V.shape), random(2, *V.shape, seed=2))


def test_more_components_than_directions() -> None:
    V = space(components=3)
    energy = Energy(V, lambda x, u, g: (u[..., :2] * g[..., 2, :]).sum(-1) + u[..., 1] ** 3 + g[..., 0, 1] ** 2)
    check(energy, (), random(*V.shape), random(*V.shape, seed=2))


def parameters(V: FunctionSpace) -> dict[str, tuple[Callable, tuple]]:
    """Densities with one parameter of each kind, plain and in batches."""
    Q, W = FunctionSpace(V.mesh, Lagrange(2)), FunctionSpace(V.mesh, Lagrange(1), components=2)
    k = lambda x, u, g, p: (0.5 * p * g.square().sum(-1) + p**2 * u**3) * (1 + x[..., 1])  # noqa: E731
    b = lambda x, u, g, p: (p * g).sum(-1) ** 2 + p[..., 0] * u  # noqa: E731
    m = lambda x, u, g, p: ((p @ g[..., None])[..., 0] * g).sum(-1) + p[..., 0, 1] * u  # noqa: E731
    return {
        "number": (k, (0.7, 2, -0.0)),
        "scalar": (k, (torch.tensor(0.7, **F64), random(3), random(2, 1), random(2, 3))),
        "vector": (b, (Constant(random(2), (2,)), Constant(random(3, 2), (2,)), Constant(random(2, 3, 2), (2,)))),
        "matrix": (m, (Constant(random(2, 2), (2, 2)), Constant(random(3, 2, 2), (2, 2)))),
        "field": (k, tuple(Q.function(random(*b, *Q.shape)) for b in ((), (3,), (2, 1), (1,)))),
        "vector field": (b, tuple(W.function(random(*b, *W.shape)) for b in ((), (3,)))),
        "gradient": (b, tuple(gradient(Q.function(random(*b, *Q.shape))) for b in ((), (3,)))),
        "gradient of a vector field": (m, (gradient(W.function(random(3, *W.shape))),)),
        "material": (k, (by_cell_tag({"a": 0.5, "b": 2.0}), by_cell_tag({"a": random(3), "b": 2.0}))),
        "callable": (k, (lambda x: x[..., 0] * x[..., 1], lambda x: 0.3, lambda x: torch.tensor(0.3, **F64))),
        "vector callable": (b, (lambda x: x.flip(-1),)),
        "matrix callable": (m, (lambda x: x[..., None] * x[..., None, :],)),
        "field as callable": (k, (lambda x: Q.function(random(3, *Q.shape)),)),
        "constant as callable": (b, (lambda x: Constant(random(3, 2), (2,)),)),
    }


@pytest.mark.parametrize("name", parameters(space()))
def test_parameters(name: str) -> None:
    """In every combination of batches of u, of the parameter, and of the direction."""
    V = space()
    density, choices = parameters(V)[name]
    energy = Energy(V, density, Dirichlet(V, {"bottom": 0.1}))
    for parameter in choices:
        for batches in (((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1,), (1,))):
            u, v = (random(*batch, *V.shape, seed=i) for i, batch in enumerate(batches))
            check(energy, (parameter,), u, v)


def test_several_parameters_at_once() -> None:
    V = space(2, 2)
    Q = FunctionSpace(V.mesh, Lagrange(1))

    def density(x, u, g, number, field, b, material, slope, load):
        return (
            number * field * g.square().sum(-1) + material * (b * g).sum(-1) ** 2 + (slope * g).sum(-1) * u - load * u
        )

    params = (
        *(0.3, Q.function(random(2, 1, *Q.shape)), Constant(random(3, 2), (2,))),
        *(by_cell_tag({"a": 1.0, "b": random(3)}), gradient(V.function(random(*V.shape))), lambda x: x.sum(-1)),
    )
    check(Energy(V, density), params, random(*V.shape), random(2, 3, *V.shape, seed=1))


@pytest.mark.parametrize("cells", [1, 2, 4, 8])
@pytest.mark.parametrize("degree", [1, 2])
def test_chunks(cells: int, degree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer or two, of an item or two: nothing is left out or counted twice."""
    V = space(2, degree)
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * (cells * V.mesh.num_cells // 4))
    energy = Energy(V, nonlinear, Dirichlet(V, {"left": 0.3}))
    params = (V.function(random(3, *V.shape, seed=1)), lambda x: x[..., 1])
    for batch in ((), (3,)):
        check(energy, params, random(*batch, *V.shape), random(*V.shape, seed=2))
    check(
        Energy(V, nonlinear), (by_cell_tag({"a": random(3), "b": 1.0}), 0.3), random(*V.shape), random(*V.shape, seed=2)
    )


@pytest.mark.parametrize("dim", [1, 3])
def test_chunks_of_single_layers(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fem.support.portions.CACHE", 8)
    V = space(dim, 2)
    check(Energy(V, nonlinear), (0.7, lambda x: x[..., -1]), random(2, *V.shape), random(*V.shape, seed=2))


def test_single_precision() -> None:
    V = FunctionSpace(grid(dtype=torch.float32), Lagrange(2))
    k = V.function(random(2, *V.shape, dtype=torch.float32))
    u, v = random(*V.shape, dtype=torch.float32), random(*V.shape, seed=2, dtype=torch.float32)
    check(Energy(V, nonlinear), (k, lambda x: x[..., 0]), u, v, tolerance=1e-5)
    step = lambda x, u, g: torch.where(u > 0.5, 1.0, 0.1) * g.square().sum(-1) + (u > 0.2).to(u) * u  # noqa: E731
    check(Energy(V, step), (), u, v, tolerance=1e-5)


def test_values_alone() -> None:
    V = space(2, 2)
    check(
        Energy(V, lambda x, u: torch.exp(u) - x[..., 0] * u, derivatives=0), (), random(*V.shape), random(3, *V.shape)
    )


@pytest.mark.parametrize("order", [0, 1, 4, 7])
def test_other_quadrature(order: int) -> None:
    V = space(2, 2, quadrature_degree=order)
    check(Energy(V, nonlinear), (0.7, 0.2), random(*V.shape), random(*V.shape, seed=1))


def test_densities_that_depend_on_little() -> None:
    V = space(2, 2)
    one = torch.ones((), **F64)
    for density in (
        lambda x, u, g: 2 * one,
        lambda x, u, g: x[..., 0],
        lambda x, u, g: 3.0 * u,
        lambda x, u, g: g[..., 1],
        lambda x, u, g: 0 * u,
        lambda x, u, g: torch.zeros_like(u),
    ):
        for batch in ((), (3,)):
            check(Energy(V, density), (), random(*batch, *V.shape), random(*V.shape, seed=1))


def test_kinks_where_the_gradient_vanishes() -> None:
    """|∇u| at u = 0 has PyTorch's subgradient, 0, on both paths."""
    V = space()
    energy = Energy(V, lambda x, u, g: g.norm(dim=-1) + u.abs() + u.relu())
    zero = torch.zeros(V.shape, **F64)
    for on_grid in (True, False):
        with path(on_grid):
            assert energy.residual(zero).abs().max() == 0


def test_constraints() -> None:
    V = space(2, 2)
    held = Dirichlet(V, {"left": random(3, *V.shape)})
    check(Energy(V, nonlinear, held), (0.7, 0.2), random(*V.shape), random(*V.shape, seed=1))
    check(Energy(V, nonlinear, MeanZero(V)), (0.7, 0.2), random(*V.shape), random(2, *V.shape, seed=1))


def test_together_with_boundary_terms() -> None:
    V = space(2, 2)
    sides = {"right": lambda x, u, n, k, f: k * u**4, "bottom": lambda x, u, n, k, f: f * u}
    energy = Energy(V, nonlinear, Dirichlet(V, {"left": 0.3}), boundary=sides)
    check(energy, (random(2), 0.4), random(*V.shape), random(*V.shape, seed=1))


# -- derivatives -------------------------------------------------------------------------------------------------------


def everything(V: FunctionSpace) -> tuple[Callable, tuple[Tensor, ...]]:
    """An energy of its dofs and of all kinds of tensors that parameters are made of."""
    Q = FunctionSpace(V.mesh, Lagrange(1))

    def density(x, u, g, field, slope, number, b, load, material):
        bent = 0.5 * field * g.square().sum(-1) * (1 + u.square()) + number * (slope * g).sum(-1) * u**2
        return bent + material * (b * g).sum(-1) ** 2 - load.square() * u

    def energy(u, field, slope, number, b, c, steel):
        held = Dirichlet(V, {"left": lambda x: c[0] * x[..., 1]})
        load = lambda x: c[0] * x[..., 0] + c[1].square()  # noqa: E731
        params = (Q.function(field), gradient(V.function(slope)), number, Constant(b, (2,)), load)
        return Energy(V, density, held), u, (*params, by_cell_tag({"a": steel, "b": 2.0}))

    shapes = (V.shape, Q.shape, V.shape, (), (2,), (2,), ())
    return energy, tuple((random(*s, seed=i) + 0.2).requires_grad_() for i, s in enumerate(shapes))


@pytest.mark.parametrize("degree", [1, 2])
def test_derivatives_in_everything(degree: int) -> None:
    energy, tensors = everything(FunctionSpace(grid().with_tags(), Lagrange(degree)))
    v = random(*tensors[0].shape, seed=9)

    def value(*tensors):
        J, u, params = energy(*tensors)
        return J(u, *params)

    def residual(*tensors):
        J, u, params = energy(*tensors)
        return J.residual(u, *params)

    def along(*tensors):
        J, u, params = energy(*tensors)
        return J.hessian_product(u, v, *params)

    assert isinstance(energy(*tensors)[0].discrete_form(energy(*tensors)[2]).integrals[0], GridIntegral)
    assert gradcheck(value, tensors, fast_mode=True)
    assert gradgradcheck(value, tensors, fast_mode=True)
    if degree == 1:
        assert gradgradcheck(residual, tensors, fast_mode=True)
        assert gradcheck(along, tensors, fast_mode=True)


def test_third_derivatives_are_those_of_the_other_path() -> None:
    energy, tensors = everything(space())
    found = []
    for on_grid in (True, False):
        with path(on_grid):
            J, u, params = energy(*tensors)
            first = torch.autograd.grad(J(u, *params), tensors, create_graph=True)
            second = torch.autograd.grad(
                sum((f.sin().sum() for f in first), torch.zeros(())), tensors, create_graph=True
            )
            found.append(torch.autograd.grad(sum((s.sin().sum() for s in second), torch.zeros(())), tensors))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_gradients_of_batches_sum_over_what_was_broadcast() -> None:
    V = space()
    found = []
    for on_grid in (True, False):
        with path(on_grid):
            inputs = random(*V.shape), random(3, *V.shape, seed=1), random(2, 1, seed=2), random(1, 3, 2, seed=3)
            u, k, s, b = (t.requires_grad_() for t in inputs)
            density = lambda x, u, g, k, s, b: k * g.square().sum(-1) ** 2 + s * (b * g).sum(-1) * u  # noqa: E731
            value = Energy(V, density)(u, V.function(k), s, Constant(b, (2,)))
            assert value.shape == (2, 3)
            found.append(torch.autograd.grad((value * random(2, 3, seed=4)).sum(), (u, k, s, b)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_only_what_needs_a_gradient_gets_one() -> None:
    V = space()
    u, k = random(*V.shape), random(*V.shape, seed=1).requires_grad_()
    value = Energy(V, nonlinear)(u, V.function(k), 0.3)
    (slope,) = torch.autograd.grad(value, k)
    assert slope.shape == V.shape
    assert not Energy(V, nonlinear)(u, V.function(k.detach()), 0.3).requires_grad
    assert not Energy(V, nonlinear).residual(u, V.function(k.detach()), 0.3).requires_grad


# -- second derivatives at the points ----------------------------------------------------------------------------------


def integrand(
    V: FunctionSpace, density: Callable, params: tuple = ()
) -> tuple[GridIntegrand, list[Tensor], DiscreteForm]:
    form = Energy(V, density).discrete_form(params)
    assert isinstance(form.integrals[0], GridIntegral)
    return form.integrals[0].integrand, form.integrals[0].tensors(), form


@pytest.mark.parametrize(
    ("dim", "degree", "components"),
    [(1, 1, None), (1, 3, None), (2, 1, None), (2, 2, None), (3, 1, None), (2, 1, 2), (2, 2, 2), (1, 1, 2), (3, 1, 3)],
)
@pytest.mark.parametrize("layers", [1, 10**9])
def test_element_matrices(dim: int, degree: int, components: int | None, layers: int, monkeypatch) -> None:
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * layers)
    V = space(dim, degree, components=components)
    k = V.function(random(2, *V.shape, seed=1)) if components is None else torch.tensor([0.7, 2.0], **F64)
    u = random(2, *V.shape)
    given, tensors, form = integrand(V, nonlinear if components is None else elastic, (k, 0.3))
    (domain,), size = V.quadrature.domains(), (degree + 1) ** dim * (components or 1)
    found = torch.full((2, *CELLS[dim][::-1], size, size), torch.nan, **F64)
    i, j = torch.triu_indices(size, size)
    for (items, part), entries in given.element_matrices([u, *tensors]):
        values = entries.movedim(0, -1)
        found[items, part, ..., i, j] = values
        found[items, part, ..., j, i] = values
    coefficients = form.hessians(u)[0].coefficients
    wanted = element_matrices(
        V, coefficients, domain, V.quadrature.geometry(domain), (2,), False, slice(0, V.mesh.num_cells)
    )
    # Here local dofs are numbered with x fastest; there as the cell's nodes are.
    corners, nodes = V.dof_coordinates[V.quadrature.dofs(domain)[0]], torch.arange(size // (components or 1))
    keys = sorted(nodes.tolist(), key=lambda a: corners[a].flip(0).tolist())
    order = (torch.tensor(keys)[:, None] * (components or 1) + torch.arange(components or 1)).flatten()
    torch.testing.assert_close(found.flatten(1, dim), wanted[:, :, order][..., order], rtol=1e-11, atol=1e-11)


def test_element_matrices_do_not_hide_what_is_not_finite() -> None:
    V = space()
    given, tensors, _ = integrand(V, lambda x, u, g, k: k * g.square().sum(-1), (float("nan"),))
    ((_, entries),) = given.element_matrices([random(*V.shape), *tensors])
    assert entries.isnan().all()


def test_what_second_derivatives_depend_on() -> None:
    V = space()
    field, mu = V.function(random(*V.shape)), torch.tensor(0.7, **F64)
    for density, params, state, cell in (
        (poisson, (), False, False),
        (lambda x, u, g: laplace(x, u, g) - u * x[..., 0], (), False, False),
        (conduction, (mu,), False, False),
        (conduction, (field,), False, True),
        (poisson, (field,), False, False),
        (diffusion, (by_cell_tag({"a": 1.0, "b": 2.0}),), False, True),
        (lambda x, u, g: x[..., 0] * g.square().sum(-1), (), False, True),
        (lambda x, u, g: u**3, (), True, True),
        (lambda x, u, g: g.square().sum(-1).square(), (), True, True),
        (lambda x, u, g, k: (k * u) ** 2 * k, (field,), False, True),
    ):
        given, _, _ = integrand(V, density, params)
        assert (not given.quadratic, not given.uniform) == (state, cell)


# -- what is left to the other path ------------------------------------------------------------------------------------


def test_what_no_grid_integral_can_do() -> None:
    """The other path takes over, with the same results as ever."""
    V, mesh = space(2, 2), grid()
    triangles = FunctionSpace(unit_square(3, cell="triangle"), Lagrange(2))
    spline = FunctionSpace(unit_square(3), BSpline.uniform((3, 3), 2))
    moved = FunctionSpace(distorted(mesh), Lagrange(2))
    asked = FunctionSpace(grid().with_nodes(mesh.nodes.clone().requires_grad_()), Lagrange(1))
    for W in (triangles, spline, moved, asked):
        energy = Energy(W, nonlinear, Dirichlet(W, {"left": 0.3}) if W is not spline else None)
        check(energy, (0.7, 0.2), random(*W.shape), random(*W.shape, seed=1), on_grid=False)
    needy = torch.tensor(2.0, requires_grad=True, **F64)
    for density in (
        lambda x, u, g, k, f: needy * g.square().sum(-1) * k - f * u,
        lambda x, u, g, k, f: g.sort(-1).values[..., 0] ** 2 * k - f * u,
        lambda x, u, g, k, f: torch.linalg.inv(torch.eye(2, **F64) + 0.1 * g[..., None] * g[..., None, :])[..., 0, 0],
    ):
        check(Energy(V, density), (0.7, 0.2), random(*V.shape), random(*V.shape, seed=1), on_grid=False)
    check(Energy(V, nonlinear), (spline_field(V), 0.2), random(*V.shape), random(*V.shape, seed=1), on_grid=False)


def spline_field(V: FunctionSpace):
    S = FunctionSpace(V.mesh, BSpline.uniform(CELLS[2], 2))
    return S.function(random(*S.shape))


def test_captured_tensors_that_need_gradients_get_them() -> None:
    V = space()
    c = torch.tensor(2.0, requires_grad=True, **F64)
    u = random(*V.shape)
    value = Energy(V, lambda x, u, g: c * g.square().sum(-1))(u)
    (slope,) = torch.autograd.grad(value, c)
    torch.testing.assert_close(slope, Energy(V, lambda x, u, g: g.square().sum(-1))(u))


def test_spaces_and_forms_without_grid_integrals() -> None:
    mesh = grid()
    V = FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, FunctionSpace(mesh, Lagrange(2)))
    mixed = Energy(W, lambda x, u, g: u[0] ** 2 * u[1] + g[0].square().sum(-1))
    check(mixed, (), random(*W.shape), random(*W.shape, seed=1), on_grid=False)
    form = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) + u**3 * v)
    assert not isinstance(form.discrete_form().integrals[0], GridIntegral)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by forward differentiation itself
def test_transforms_see_the_density() -> None:
    V = space()
    energy = Energy(V, nonlinear, Dirichlet(V, {"left": 0.5}))
    u, k = random(4, *V.shape), random(4, seed=1)
    wanted = energy.residual(u, k, 0.5)
    grad = torch.func.grad(lambda u, k: energy(u, k, 0.5))
    torch.testing.assert_close(torch.func.vmap(grad)(u, k), wanted)
    torch.testing.assert_close(torch.func.jacrev(lambda u: energy(u, k, 0.5))(u).diagonal().T, wanted)
    torch.testing.assert_close(
        torch.func.jvp(lambda k: energy(u, k, 0.5), (k,), (k,))[1], energy(u, 2 * k, 0.5) - energy(u, k, 0.5)
    )
    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(energy(forward_ad.make_dual(u, u), k, 0.5)).tangent
    torch.testing.assert_close(along, (wanted * u).sum(-1))


def test_mistakes_are_told_as_ever() -> None:
    for dim in (1, 2):
        V = space(dim)
        with pytest.raises(ValueError, match="the density must return one number per point"):
            Energy(V, lambda x, u, g: g.square())(random(*V.shape))
        with pytest.raises(TypeError, match="the density must return a tensor"):
            Energy(V, lambda x, u, g: 1.0)(random(*V.shape))  # pyright: ignore[reportArgumentType]
        with pytest.raises(NameError):
            Energy(V, lambda x, u, g: no_such_thing * u)(random(*V.shape))  # pyright: ignore[reportUndefinedVariable]
        with pytest.raises(ValueError, match=r"u holds nan at index \[2\]"):
            Energy(V, lambda x, u, g: u)(random(*V.shape).index_fill(0, torch.tensor(2), torch.nan))


# -- changes -----------------------------------------------------------------------------------------------------------


def test_changed_constants_are_noticed() -> None:
    V = space()
    u, c = random(*V.shape), torch.tensor(1.0, **F64)
    level = 1.0

    def density(x, u, g):
        return c * level * u

    energy = Energy(V, density)
    first = energy(u)
    c.mul_(2)
    torch.testing.assert_close(energy(u), 2 * first)
    level = 3.0
    torch.testing.assert_close(energy(u), 6 * first)
    for s in (1.0, 2.0, 0.0, -0.0, -1.0):
        torch.testing.assert_close(Energy(V, lambda x, u, g, s: s * u)(u, s), s * first)


def test_the_sign_of_a_zero_counts() -> None:
    V = space()
    energy = Energy(V, lambda x, u, g, s: torch.copysign(u, torch.as_tensor(s, dtype=u.dtype)))
    u = random(*V.shape)
    torch.testing.assert_close(energy(u, -0.0), -energy(u, 0.0))


def test_inference_leaves_no_traces() -> None:
    """What is made in inference mode serves outside of it too."""
    V = space()
    energy, u = Energy(V, lambda x, u, g: (u**3 + g.square().sum(-1)) * 1.25), random(*V.shape)
    with torch.inference_mode():
        value = energy(u)
    torch.testing.assert_close(energy(u), value.clone())
    with path(False):
        wanted = energy.residual(u)
    torch.testing.assert_close(energy.residual(u), wanted)


# -- minimisation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2])
def test_minimisation_and_its_gradients(degree: int) -> None:
    V = space(2, degree)
    found = []
    for on_grid in (True, False):
        with path(on_grid):
            k, f = (random(*V.shape, seed=i).add(0.5).requires_grad_() for i in (1, 2))
            u = minimize(Energy(V, nonlinear, Dirichlet(V, {"left": 0.3})), (V.function(k), V.function(f))).value
            first = torch.autograd.grad((u**2).sum(), (k, f), create_graph=True)
            second = torch.autograd.grad(sum((g.sin().sum() for g in first), torch.zeros(())), (k, f))
            found.append((u.detach(), *first, *second))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-8, atol=1e-9)


def test_slopes_of_nothing() -> None:
    """An integrand of u alone, made by hand: ∂J/∂u of ∫ u is the integral of the basis."""
    V = space()
    tape = record(lambda x, u, g: u, [(2,), (), (2,)], torch.float64)
    inputs = (Input("field", ((0, 1), (1, 2)), (), 1),)
    made = GridIntegrand(V, tape, 1, tape.run, ((2,), (), (2,)), inputs)
    (slope,) = IntegralSlopes.apply(made, (0,), random(*V.shape))
    assert slope.sum().item() == pytest.approx(1.5)
