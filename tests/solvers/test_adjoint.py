"""The implicit adjoint: gradcheck, gradgradcheck, Taylor tests, and plain backpropagation through an iteration."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    by_cell_tag,
    unit_interval,
    unit_square,
)
from solvers import CG, LBFGS, Direct, minimize, solve
from solvers.adjoint import Stationary
from tests.problems import conduction, poisson

F64: Any = {"dtype": torch.float64}
MINIMIZE = minimize


def grid(n=2, cell="quadrilateral"):
    """A small distorted square with two materials."""
    torch.manual_seed(5)
    mesh = unit_square(n, cell=cell)
    inside = ((mesh.nodes > 0) & (mesh.nodes < 1)).all(1, keepdim=True)
    mesh = mesh.with_nodes(mesh.nodes + inside * 0.2 / n * (torch.rand_like(mesh.nodes) - 0.5))
    return mesh.with_tags(cell_tags={"a": lambda x: x[..., 0] < 0.5, "b": lambda x: x[..., 0] > 0.5})


MESH = grid()
V = FunctionSpace(MESH, Lagrange(1))
HELD = Dirichlet(V, {"left": 0.3})


def nonlinear(x, u, grad_u, k, f):
    return 0.5 * k * (1 + u.square()) * grad_u.square().sum(-1) + 0.25 * u**4 - f * u


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), **F64)


# Each case: a function of one tensor that gives dofs, and the tensor to take it at.


def coefficient_field(density):
    return lambda k: minimize(Energy(V, density, HELD), (V.function(k), 2.0)).value, random(*V.shape) + 0.5


def load_field(density):
    return lambda f: minimize(Energy(V, density, HELD), (1.3, V.function(f))).value, 3 * random(*V.shape)


def number(density):
    return lambda k: minimize(Energy(V, density, HELD), (k, 2.0)).value, torch.tensor(0.8, **F64)


def dirichlet_values(density):
    def value(g):
        return minimize(Energy(V, density, Dirichlet(V, {"left": g})), (1.0, 2.0)).value

    return value, random(len(V.dofs("left")))


def nodes(density):
    def value(x):
        W = FunctionSpace(MESH.with_nodes(x), Lagrange(1))
        held = Dirichlet(W, {"left": lambda x: x[..., 1] ** 2})
        return minimize(Energy(W, density, held), (lambda x: 1 + x[..., 0] * x[..., 1], lambda x: 2 + x[..., 1])).value

    return value, MESH.nodes.clone()


def robin(density):
    def value(alpha):
        sides = {"right": lambda x, u, normal, k, f, a: 0.5 * a * (u - 1).square()}
        energy = Energy(V, lambda x, u, g, k, f, a: density(x, u, g, k, f), boundary=sides)
        return minimize(energy, (1.0, 2.0, alpha)).value

    return value, torch.tensor(1.7, **F64)


def materials(density):
    def value(k):
        return minimize(Energy(V, density, HELD), (by_cell_tag({"a": k[0], "b": k[1]}), 2.0)).value

    return value, torch.tensor([0.7, 2.0], **F64)


def closure(density):
    def value(c):
        return minimize(Energy(V, density, HELD), (lambda x: 1 + c[0] * x[..., 0] ** 2 + c[1] ** 2, 2.0)).value

    return value, torch.tensor([0.6, 0.4], **F64)


def wind(density):
    def value(w):
        energy = Energy(V, lambda x, u, g, w: density(x, u, g - w, 1.0, 1.0), HELD)
        return minimize(energy, (Constant(w, shape=(2,)),)).value

    return value, torch.tensor([0.6, -0.4], **F64)


def weak(density):
    def value(c):
        def form(x, u, g, v, dv, beta):
            bend = u.square() * v if density is nonlinear else 0
            return (g * dv).sum(-1) + 4 * beta * g[..., 0] * v + 2 * u * beta * dv[..., 1] + bend - v

        sides = {"right": lambda x, u, v, normal, beta: beta * u * v}
        return solve(WeakForm(V, form, HELD, boundary=sides), (V.function(c),)).value

    return value, random(*V.shape) + 0.2


def mean_zero(density):
    def value(k):
        def balanced(x, u, g, k):
            extra = (1 + u.square()) if density is nonlinear else 1
            return 0.5 * k * extra * g.square().sum(-1) - x[..., 0] * k * u

        return minimize(Energy(V, balanced, MeanZero(V)), (V.function(k),)).value

    return value, random(*V.shape) + 0.5


def mean_zero_nodes(density):
    def value(x):
        W = FunctionSpace(MESH.with_nodes(x), Lagrange(1))
        return minimize(Energy(W, density, MeanZero(W)), (1.0, lambda x: x[..., 0] * x[..., 1] + 1)).value

    return value, MESH.nodes.clone()


def vector(density):
    W = FunctionSpace(MESH, Lagrange(1), components=2)

    def value(k):
        def elastic(x, u, g, k):
            strain = 0.5 * (g + g.mT)
            extra = (1 + u.square().sum(-1)) if density is nonlinear else 1
            return k * extra * strain.square().sum((-2, -1)) - x[..., 0] * u[..., 1]

        held = Dirichlet(W, {"left": 0.0, ("bottom", 1): 0.1})
        return minimize(Energy(W, elastic, held), (V.function(k),)).value

    return value, random(*V.shape) + 0.5


def flow(density):
    S, P = FunctionSpace(MESH, Lagrange(2), components=2), FunctionSpace(MESH, Lagrange(1))
    X = MixedSpace(S, P)

    def value(mu):
        def lagrangian(x, u, g, mu):
            strength = mu * (1 + g[0].square().sum((-2, -1))) if density is nonlinear else mu
            return 0.5 * strength * g[0].square().sum((-2, -1)) - u[1] * g[0].diagonal(dim1=-2, dim2=-1).sum(-1)

        inflow = lambda x: torch.stack([x[..., 1] * (1 - x[..., 1]), 0 * x[..., 0]], -1)  # noqa: E731
        held = Dirichlet(X, {("left", 0): inflow, ("top", 0): 0.0, ("bottom", 0): 0.0})
        return solve(Energy(X, lagrangian, held), (by_cell_tag({"a": mu[0], "b": mu[1]}),)).value

    return value, torch.tensor([1.0, 2.5], **F64)


def batch(density):
    def value(k):
        return minimize(Energy(V, density, HELD), (V.function(k), torch.tensor([1.0, 3.0], **F64))).value

    return value, random(2, *V.shape) + 0.5


def batch_shared(density):
    """One tensor for three items."""

    def value(k):
        return minimize(Energy(V, density, HELD), (V.function(k), torch.tensor([1.0, 2.0, 3.0], **F64))).value

    return value, random(*V.shape) + 0.5


CASES = [
    coefficient_field,
    load_field,
    number,
    dirichlet_values,
    nodes,
    robin,
    materials,
    closure,
    wind,
    weak,
    mean_zero,
    mean_zero_nodes,
    vector,
    flow,
    batch,
    batch_shared,
]
EVERY = pytest.mark.parametrize("case", CASES, ids=[c.__name__ for c in CASES])
LINEAR = pytest.param(conduction, id="quadratic")
BOTH = pytest.mark.parametrize("density", [LINEAR, nonlinear])


def functional(value):
    """A scalar of the dofs with derivatives of all orders, which no symmetry makes vanish."""

    def j(t):
        u = value(t)
        weights = torch.linspace(0.5, 1.7, u.numel(), **F64).reshape(u.shape)
        return (weights * (u + 0.3 * u**3)).sum()

    return j


def taylor(j, t, direction, order):
    """log2 of the remainder's decrease for each halving of the step: order + 1 at least, if derivatives are right."""
    t = t.clone().requires_grad_()
    value = j(t)
    (gradient,) = torch.autograd.grad(value, t, create_graph=order > 1)
    slope = (gradient * direction).sum()
    curvature = torch.autograd.grad(slope, t)[0].mul(direction).sum() if order > 1 else torch.tensor(0.0, **F64)
    remainders = []
    for h in (2e-2, 1e-2, 5e-3):
        with torch.no_grad():
            remainders.append(float((j(t + h * direction) - value - h * slope - 0.5 * h * h * curvature).abs()))
    return [float(torch.log2(torch.tensor(a / b))) for a, b in pairwise(remainders)]


@EVERY
@BOTH
def test_gradients(case, density):
    value, t = case(density)
    # Along a random direction where there are many entries; `test_taylor` takes another.
    assert gradcheck(functional(value), t.requires_grad_(), atol=1e-7, rtol=1e-5, fast_mode=t.numel() > 4)


@EVERY
@pytest.mark.parametrize("density", [LINEAR, pytest.param(nonlinear, marks=pytest.mark.slow)])  # `test_taylor`
def test_second_derivatives(case, density):
    value, t = case(density)
    assert gradgradcheck(functional(value), t.requires_grad_(), atol=1e-6, rtol=1e-4, fast_mode=t.numel() > 4)


@EVERY
@BOTH
def test_taylor(case, density):
    value, t = case(density)
    direction = torch.rand(t.shape, generator=torch.Generator().manual_seed(9), **F64) - 0.3
    if t.shape == MESH.nodes.shape:
        direction = 0.3 * direction
    j = functional(value)
    assert min(taylor(j, t, direction, 1)) > 1.9
    assert min(taylor(j, t, direction, 2)) > 2.9


def test_third_derivatives():
    value, t = closure(nonlinear)
    j = functional(value)

    def slope_of_slope(c):
        (first,) = torch.autograd.grad(j(c), c, create_graph=True)
        return torch.autograd.grad(first.sum(), c, create_graph=True)[0]

    assert gradcheck(slope_of_slope, t.requires_grad_(), eps=1e-5, atol=1e-5, rtol=1e-4)


def test_second_derivatives_are_symmetric_across_inputs():
    k, f = (random(*V.shape) + 0.5).requires_grad_(), random(*V.shape, seed=1).requires_grad_()
    j = functional(lambda pair: minimize(Energy(V, nonlinear, HELD), (V.function(pair[0]), V.function(pair[1]))).value)
    dk, df = torch.autograd.grad(j((k, f)), (k, f), create_graph=True)
    a, b = random(*V.shape, seed=2), random(*V.shape, seed=3)
    (mixed,) = torch.autograd.grad((dk * a).sum(), f, retain_graph=True)
    (other,) = torch.autograd.grad((df * b).sum(), k)
    torch.testing.assert_close((mixed * b).sum(), (other * a).sum(), rtol=1e-9, atol=1e-12)


# -- against plain backpropagation -------------------------------------------------------------------------------------


def unrolled(energy, params, u, steps):
    """Newton's method with plain conjugate gradients, every operation on the tape."""
    for _ in range(steps):
        r = -energy.residual(u, *params)
        s, p = torch.zeros_like(r), r
        for _ in range(energy.space.num_dofs):
            if float(r.detach().norm()) < 1e-14:
                break
            Hp = energy.hessian_product(u, p, *params)
            rr = (r * r).sum()
            alpha = rr / (p * Hp).sum()
            s, r = s + alpha * p, r - alpha * Hp
            p = r + (r * r).sum() / rr * p
        u = u + s
    return u


@pytest.mark.parametrize(("density", "steps"), [(conduction, 1), (nonlinear, 6)])
@pytest.mark.parametrize("method", [Direct("superlu"), Direct(), CG(rtol=1e-14)], ids=["superlu", "direct", "cg"])
def test_adjoint_equals_backpropagation_through_an_unrolled_iteration(density, steps, method):
    W = FunctionSpace(grid(3, "triangle"), Lagrange(1))
    g = random(len(W.dofs("left")), seed=4)
    inputs = [(random(*W.shape) + 0.5), random(*W.shape, seed=1), g]

    def setup():
        k, f, values = (t.clone().requires_grad_() for t in inputs)
        held = Dirichlet(W, {"left": values})
        return (k, f, values), Energy(W, density, held), held, (W.function(k), W.function(f))

    tensors, energy, _, params = setup()
    u = minimize(energy, params, method=method).value
    adjoint = torch.autograd.grad((u + u**3).sum(), tensors)
    tensors, energy, held, params = setup()
    v = unrolled(energy, params, held.apply(torch.zeros(W.shape, **F64)), steps)
    plain = torch.autograd.grad((v + v**3).sum(), tensors)
    torch.testing.assert_close(u, v, rtol=0, atol=1e-12)
    for a, b in zip(adjoint, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


@pytest.mark.parametrize("case", [c for c in CASES if c not in (weak, flow)])
def test_the_method_makes_no_difference(case, monkeypatch):
    gradients = []
    for method in (Direct("superlu"), Direct(), CG()):
        monkeypatch.setitem(globals(), "minimize", partial(MINIMIZE, method=method))
        value, t = case(nonlinear)
        t = t.clone().requires_grad_()
        (first,) = torch.autograd.grad(functional(value)(t), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t)
        gradients.append((first.detach(), second))
    for first, second in gradients[1:]:
        torch.testing.assert_close(first, gradients[0][0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(second, gradients[0][1], rtol=1e-7, atol=1e-8)


def test_a_solution_found_by_descent_has_the_same_adjoint():
    gradients = []
    for method in (None, LBFGS(rtol=1e-8)):
        k = (random(*V.shape) + 0.5).requires_grad_()
        u = minimize(Energy(V, nonlinear, HELD), (V.function(k), 2.0), method=method).value
        gradients.append(torch.autograd.grad((u**2).sum(), k)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-7)


# -- bounds ------------------------------------------------------------------------------------------------------------


def string(load, lower):
    """A string pressed on an obstacle, in contact over the middle."""
    W = FunctionSpace(unit_interval(12), Lagrange(1))
    energy = Energy(W, conduction, Dirichlet(W, {"boundary": 0.0}))
    return minimize(energy, (1.0, W.function(load)), lower=lower)


def test_gradients_at_an_obstacle():
    load = -6 - random(13)
    lower = -0.2 + 0.02 * random(13, seed=1)
    contact = string(load, lower).value == lower
    assert 2 < int(contact.sum()) < 10
    j = functional(lambda pair: string(*pair).value)
    pair = (load.requires_grad_(), lower.requires_grad_())
    assert gradcheck(lambda *pair: j(pair), pair, atol=1e-7)
    assert gradgradcheck(lambda *pair: j(pair), pair, atol=1e-6, rtol=1e-4, fast_mode=True)
    by_load, by_lower = torch.autograd.grad(string(load, lower).value.sum(), (load, lower))
    # Where it rests, the string moves with the obstacle; elsewhere the obstacle is not felt.
    assert float(by_lower[~contact].abs().max()) == 0.0
    assert float(by_lower[contact].min()) > 0.9
    # A load that stands over the contact alone only presses.
    inner = contact & contact.roll(1) & contact.roll(-1)
    assert float(by_load[inner].abs().max()) < 1e-14


def test_gradients_at_an_obstacle_of_one_number():
    level = torch.tensor(-0.2, requires_grad=True, **F64)
    u = string(-8 * torch.ones(13, **F64), level).value
    (slope,) = torch.autograd.grad(u.sum(), level)
    h = 1e-6
    moved = [string(-8 * torch.ones(13, **F64), level.detach() + s).value.sum() for s in (h, -h)]
    torch.testing.assert_close(slope, (moved[0] - moved[1]) / (2 * h), rtol=1e-7, atol=0)


# -- how it is used ----------------------------------------------------------------------------------------------------


def test_backward_may_be_repeated():
    k = (random(*V.shape) + 0.5).requires_grad_()
    u = minimize(Energy(V, nonlinear, HELD), (V.function(k), 2.0)).value
    first = [torch.autograd.grad(u[i], k, retain_graph=True)[0] for i in (4, 7, 4)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    (u**2).sum().backward(retain_graph=True)
    once = k.grad.clone()
    (u**2).sum().backward()
    torch.testing.assert_close(k.grad, 2 * once, rtol=1e-14, atol=0)


def test_nodes_that_require_gradients_in_place_work_again_and_again():
    mesh = grid()
    W = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(W, nonlinear, Dirichlet(W, {"left": 0.3}))
    before = minimize(energy, (1.0, 2.0)).value
    mesh.nodes.requires_grad_()
    gradients = []
    for _ in range(3):
        u = minimize(energy, (1.0, 2.0)).value
        gradients.append(torch.autograd.grad((u**2).sum(), mesh.nodes)[0])
    torch.testing.assert_close(u.detach(), before, rtol=0, atol=1e-14)
    assert torch.equal(gradients[0], gradients[2])

    def value(x):
        moved = FunctionSpace(mesh.with_nodes(x), Lagrange(1))
        return minimize(Energy(moved, nonlinear, Dirichlet(moved, {"left": 0.3})), (1.0, 2.0)).value

    x = mesh.nodes.detach().clone().requires_grad_()
    torch.testing.assert_close(gradients[0], torch.autograd.grad((value(x) ** 2).sum(), x)[0], rtol=1e-12, atol=1e-14)


def test_a_parameter_of_two_terms_gets_the_gradient_of_both():
    def value(a):
        sides = {"right": lambda x, u, normal, a: 0.5 * a * u.square()}
        return minimize(Energy(V, poisson, HELD, boundary=sides), (a,)).value

    assert gradcheck(functional(value), torch.tensor(1.2, requires_grad=True, **F64), eps=1e-6, atol=1e-8)


def test_the_energy_at_the_minimum_has_the_partial_derivative():
    """dJ/dk = ∂J/∂k where ∂J/∂u = 0."""
    k = torch.tensor(0.8, requires_grad=True, **F64)
    energy = Energy(V, nonlinear, HELD)
    solution = minimize(energy, (k, 2.0))
    (total,) = torch.autograd.grad(solution.energy, k)
    (partial_derivative,) = torch.autograd.grad(energy(solution.value.detach(), k, 2.0), k)
    torch.testing.assert_close(total, partial_derivative, rtol=1e-12, atol=0)


def test_the_energy_at_the_minimum_differentiates_without_a_solve(monkeypatch: pytest.MonkeyPatch):
    """In parameters and prescribed values; second derivatives do solve, and are right."""

    def value(k, g):
        return minimize(Energy(V, nonlinear, Dirichlet(V, {"left": g})), (V.function(k), 2.0)).energy

    k, g = (random(*V.shape) + 0.5).requires_grad_(), torch.tensor(0.3, requires_grad=True, **F64)
    assert gradcheck(value, (k, g), eps=1e-6, atol=1e-8)
    assert gradgradcheck(value, (k, g), eps=1e-6, atol=1e-7)
    energy = value(k, g)
    monkeypatch.setattr(Stationary, "solve", lambda *_: pytest.fail("a linear solve"))
    assert all(bool(torch.isfinite(grad).all()) for grad in torch.autograd.grad(energy, (k, g)))


def test_only_what_needs_a_gradient_gets_one():
    k, f = random(*V.shape) + 0.5, random(*V.shape, seed=1).requires_grad_()
    u = minimize(Energy(V, nonlinear, HELD), (V.function(k), V.function(f))).value
    u.sum().backward()
    assert k.grad is None
    assert f.grad is not None


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return result


def test_no_intermediate_grows_with_the_square_of_the_dofs():
    largest = []
    for n in (16, 32):
        W = FunctionSpace(unit_square(n), Lagrange(1))
        energy = Energy(W, nonlinear, Dirichlet(W, {"left": 0.3}))
        k = torch.ones(W.shape, **F64).requires_grad_()
        with Largest() as spy:
            u = minimize(energy, (W.function(k), 2.0)).value
            (first,) = torch.autograd.grad((u**2).sum(), k, create_graph=True)
            first.sum().backward()
        largest.append(spy.numel)
    assert largest[1] < W.num_dofs**2 / 8
    assert largest[1] < 4.5 * largest[0]
