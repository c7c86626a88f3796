"""Methods in time: orders of convergence, energies kept and lost, constraints without mass, and exact solutions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    box,
    l2_error,
    unit_interval,
    unit_square,
)
from solvers import BDF2, CrankNicolson, GeneralizedAlpha, ImplicitEuler, Newmark, Theta, evolve

F64 = torch.float64


def slope(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1)


def string() -> tuple[Energy, Tensor, float]:
    """½ ∫ |u′|² with fixed ends, a mode of its matrices and the mode's eigenvalue."""
    V = FunctionSpace(unit_interval(8), Lagrange(1))
    J, mass = Energy(V, slope, Dirichlet(V, {"boundary": 0.0})), Energy(V, lambda x, u, g: 0.5 * u**2)
    u = V.interpolate(lambda x: torch.sin(math.pi * x[..., 0]))
    return J, u, float(J(u) / mass(u))


FIRST = [
    (ImplicitEuler(), 1),
    (BDF2(), 2),
    (CrankNicolson(), 2),
    (CrankNicolson(damped=True), 2),
    (Theta(0.5), 2),
    (Theta(0.75), 1),
    (Theta(1.0), 1),
]


@pytest.mark.parametrize(("method", "order"), FIRST, ids=str)
def test_orders_of_first_derivatives_in_time(method: Any, order: int) -> None:
    """The mode decays like exp(−λt), and errors fall like τ^order."""
    J, u, rate = string()
    errors = []
    for n in (32, 64):
        found = evolve(J, 1.0, u, torch.linspace(0, 0.2, n + 1), method)
        assert found.converged
        assert found.values.shape == (n + 1, *u.shape)
        errors.append(float((found.values[-1] - math.exp(-0.2 * rate) * u).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("method", [ImplicitEuler(), BDF2(), CrankNicolson()], ids=str)
def test_steps_of_different_sizes(method: Any) -> None:
    """The order stays what it is on times that alternate between τ and 2τ."""
    J, u, rate = string()
    errors = []
    for n in (12, 24):
        sizes = torch.tensor([1.0, 2.0], dtype=F64).repeat(n // 2)
        times = torch.cat([torch.zeros(1, dtype=F64), sizes.cumsum(0)]) / float(sizes.sum()) * 0.2
        errors.append(float((evolve(J, 1.0, u, times, method).values[-1] - math.exp(-0.2 * rate) * u).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(method.order, abs=0.25)


def test_crank_nicolson_is_the_trapezoidal_rule() -> None:
    """A step multiplies a mode by (1 − λτ/2) / (1 + λτ/2), to round-off."""
    J, u, rate = string()
    z = rate * 0.3
    found = evolve(J, 1.0, u, [0.0, 0.3, 0.6], CrankNicolson())
    torch.testing.assert_close(found.values[-1], ((1 - z / 2) / (1 + z / 2)) ** 2 * u, rtol=0, atol=1e-12)


SECOND = [(Newmark(), 2), (GeneralizedAlpha(0.5), 2), (GeneralizedAlpha(0.0), 2)]


@pytest.mark.parametrize(("method", "order"), SECOND, ids=str)
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_orders_of_second_derivatives_in_time(method: Any, order: int, damping: float) -> None:
    """The mode swings like exp(−ct/2) (cos ωt + c/2ω sin ωt), ω² = λ − c²/4."""
    J, u, rate = string()
    time, w = 1.3, math.sqrt(rate - damping**2 / 4)
    exact = math.exp(-damping * time / 2) * (math.cos(w * time) + damping / 2 / w * math.sin(w * time)) * u
    errors = []
    for n in (40, 80):
        times = torch.linspace(0, time, n + 1)
        found = evolve(J, 1.0, (u, 0 * u), times, method, damping=damping if damping else None)
        assert found.velocities is not None
        errors.append(float((found.values[-1] - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("method", [Newmark(), GeneralizedAlpha(1.0)], ids=str)
def test_the_trapezoidal_rule_keeps_energy(method: Any) -> None:
    V = FunctionSpace(unit_square(4), Lagrange(1))
    J = Energy(V, slope, Dirichlet(V, {"left": 0.0}))
    kinetic = Energy(V, lambda x, u, g: 0.5 * (1 + x[..., 0]) * u**2)
    u, v = torch.rand(2, V.num_dofs, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = evolve(J, lambda x: 1 + x[..., 0], (u, v), torch.linspace(0, 2, 41), method)
    assert found.velocities is not None
    total = J(found.values) + kinetic(found.velocities)
    assert float((total / total[0] - 1).abs().max()) < 1e-10


def test_other_numbers_damp() -> None:
    """γ > ½ and ρ < 1 take energy from a mode with a step like its period, and leave less the smaller ρ is."""
    J, u, rate = string()
    times = torch.arange(21) * 2 * math.pi / math.sqrt(rate)
    left = []
    for method in (Newmark(), GeneralizedAlpha(0.5), GeneralizedAlpha(0.0), Newmark(0.3025, 0.6)):
        found = evolve(J, 1.0, (u, 0 * u), times, method)
        assert found.velocities is not None
        kinetic = Energy(J.space, lambda x, u, g: 0.5 * u**2)
        left.append(float((J(found.values[-1]) + kinetic(found.velocities[-1])) / J(u)))
    assert left[0] == pytest.approx(1, abs=1e-10)
    assert left[2] < left[1] < 0.1
    assert left[3] < 0.1


def test_a_driven_wave() -> None:
    """u = sin 2(x − t) between ends that move with it, whose velocities are not given: order 2 in u and u′."""
    V = FunctionSpace(unit_interval(20), Lagrange(3))
    wave = lambda x, t: torch.sin(2 * (x[..., 0] - t))  # noqa: E731
    held = Dirichlet(V, {"boundary": wave})
    J, v = Energy(V, slope, held), V.interpolate(lambda x: -2 * torch.cos(2 * x[..., 0]))
    for method in (Newmark(), GeneralizedAlpha(0.6)):
        errors = []
        for n in (20, 40):
            given = lambda x: wave(x, 0.0), v.masked_fill(held.fixed, 0)
            found = evolve(J, 1.0, given, torch.linspace(0, 1.5, n + 1), method)
            assert found.velocities is not None
            exact = (
                V.interpolate(lambda x: wave(x, 1.5)),
                V.interpolate(lambda x: -2 * torch.cos(2 * (x[..., 0] - 1.5))),
            )
            pairs = zip((found.values[-1], found.velocities[-1]), exact, strict=True)
            errors.append([float((a - b).abs().max()) for a, b in pairs])
        for coarse, fine in zip(*errors, strict=True):
            assert math.log2(coarse / fine) > 1.7


def test_nafems_t3() -> None:
    """A bar of 0.1 m whose end is at 100 sin(πt/40) °C: 36.60 °C at 0.08 m after 32 s (NAFEMS T3)."""
    V = FunctionSpace(box((0.0,), (0.1,), (16,)), Lagrange(2))
    held = Dirichlet(V, {"left": 0.0, "right": lambda x, t: 100 * math.sin(math.pi * t / 40)})
    J = Energy(V, lambda x, u, g: 0.5 * 35.0 * g.square().sum(-1), held)
    found = evolve(J, 440.5 * 7200.0, lambda x: 0 * x[..., 0], torch.linspace(0, 32, 65), every=64)
    value = V.evaluate(found.values[-1], torch.tensor([[0.08]], dtype=F64))
    assert float(value) == pytest.approx(36.60, rel=1e-3)


@pytest.mark.parametrize("method", [BDF2(), CrankNicolson()], ids=str)
def test_unsteady_stokes(method: Any) -> None:
    """Taylor and Green's vortices, u = exp(−2νt) (sin x cos y, −cos x sin y), with walls that move as they do."""
    mesh, nu = box((0.0, 0.0), (math.pi, math.pi), (10, 10), cell="triangle"), 0.5
    U, P = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(U, P)

    def vortices(x: Tensor, t: float) -> Tensor:
        X, Y = x[..., 0], x[..., 1]
        return math.exp(-2 * nu * t) * torch.stack([torch.sin(X) * torch.cos(Y), -torch.cos(X) * torch.sin(Y)], -1)

    def density(x: Tensor, u: Any, grad_u: Any) -> Tensor:
        divergence = grad_u[0][..., 0, 0] + grad_u[0][..., 1, 1]
        return 0.5 * nu * grad_u[0].square().sum((-1, -2)) - u[1] * divergence

    stokes = Energy(W, density, Dirichlet(W, {("boundary", 0): vortices}) & MeanZero(W, field=1))
    initial = W.join([U.interpolate(lambda x: vortices(x, 0.0)), torch.zeros(P.shape, dtype=F64)])
    found = evolve(stokes, {0: 1.0}, initial, torch.linspace(0, 1, 9), method)
    u, p = W.split(found.values[-1])
    assert float(l2_error(U, u, lambda x: vortices(x, 1.0))) < 5e-3
    assert float(p.abs().max()) < 1e-2


def test_minimising_movements_never_raise_the_energy() -> None:
    """A double well with steps in which each minimum is one: J falls, and from a batch of starts to ±1."""
    V = FunctionSpace(unit_interval(10), Lagrange(1))
    J = Energy(V, lambda x, u, g: slope(x, u, g) + (1 - u**2) ** 2 / 4)
    start = torch.stack([torch.full(V.shape, s, dtype=F64) for s in (0.5, -0.2)])
    start = start + 0.1 * torch.rand(V.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    found = evolve(J, 1.0, start, torch.linspace(0, 12, 13), ImplicitEuler())
    assert bool((J(found.values).diff(dim=0) <= 1e-14).all())
    torch.testing.assert_close(found.values[-1, :, 0], torch.tensor([1.0, -1.0], dtype=F64), atol=2e-3, rtol=0)


def test_a_dissipation_that_is_not_quadratic() -> None:
    """R = v⁴/4 + v²/2 and J = −2u: v³ + v = 2, u grows by 1 in each unit of time, whatever the steps."""
    V = FunctionSpace(unit_interval(3), Lagrange(1))
    J = Energy(V, lambda x, u, g: -2 * u)
    found = evolve(
        J, lambda x, u: u**4 / 4 + u**2 / 2, torch.zeros(V.shape, dtype=F64), [0.0, 0.5, 2.0], ImplicitEuler()
    )
    torch.testing.assert_close(found.values[:, 0], torch.tensor([0.0, 0.5, 2.0], dtype=F64))


FORMS: dict[str, Callable[[FunctionSpace], Any]] = {
    "field": lambda V: V.function(V.interpolate(lambda x: 1 + x[..., 0])),
    "callable": lambda V: lambda x: 1 + x[..., 0],
    "density": lambda V: lambda x, u: 0.5 * (1 + x[..., 0]) * u**2,
    "density with a slope": lambda V: lambda x, u, g: 0.5 * (1 + x[..., 0]) * u**2 + 0 * g.sum(-1),
    "energy": lambda V: Energy(V, lambda x, u, g: 0.5 * (1 + x[..., 0]) * u**2),
}


@pytest.mark.parametrize("method", [BDF2(), CrankNicolson()], ids=str)
def test_masses_of_all_kinds_are_one(method: Any) -> None:
    """The same mass in all the ways it may be written, and the same problem as a weak form."""
    V = FunctionSpace(unit_square(3), Lagrange(1))
    held = Dirichlet(V, {"left": 0.0})
    J = Energy(V, lambda x, u, g: slope(x, u, g) - u, held)
    weak = WeakForm(V, lambda x, u, g, v, gv: (g * gv).sum(-1) - v, held)
    zero, times = torch.zeros(V.shape, dtype=F64), torch.linspace(0, 1, 6)
    found = [evolve(J, mass(V), zero, times, method).values for mass in FORMS.values()]
    found += [evolve(weak, mass, zero, times, method).values for mass in (FORMS["field"](V), FORMS["callable"](V))]
    found.append(evolve(weak, lambda x, u, v: (1 + x[..., 0]) * u * v, zero, times, method).values)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


def test_per_cell_mass_and_parameters_of_time() -> None:
    """u′ = t / ρ in each half of a line whose halves do not meet: ρ u = t²/2."""
    from fem import Discontinuous

    V = FunctionSpace(unit_interval(2), Discontinuous(0))
    J = Energy(V, lambda x, u, g, f: -f * u)
    rho = V.per_cell(torch.tensor([1.0, 4.0], dtype=F64))
    found = evolve(
        J, rho, torch.zeros(V.shape, dtype=F64), torch.linspace(0, 2, 9), CrankNicolson(), params=lambda t: (t,)
    )
    torch.testing.assert_close(found.values[-1], torch.tensor([2.0, 0.5], dtype=F64))


def test_batches_and_single_precision() -> None:
    """A batch of coefficients is as good as one by one; float32 stays what it is, and its times are even."""
    V = FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(1))
    J = Energy(V, lambda x, u, g, k: k * slope(x, u, g) - u, Dirichlet(V, {"left": 0.0}))
    zero, times = torch.zeros(V.shape), torch.linspace(0, 1, 11)
    for method in (BDF2(), Newmark()):
        initial: Any = (zero, zero) if method.rates == 2 else zero
        both = evolve(J, 1.0, initial, times, method, params=(torch.tensor([1.0, 3.0]),))
        assert both.values.shape == (11, 2, V.num_dofs)
        assert both.values.dtype == torch.float32
        assert len(set(both.sizes)) == 1
        assert len(both.status) == 2
        for i, k in enumerate((1.0, 3.0)):
            single = evolve(J, 1.0, initial, times, method, params=(k,))
            torch.testing.assert_close(both.values[:, i], single.values, rtol=0, atol=1e-5)
