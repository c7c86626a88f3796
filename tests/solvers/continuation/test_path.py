"""Paths of solutions: folds known in closed form, steps that shorten and lengthen, ends that are told."""

import pytest
import torch

from fem import ConvergenceError, Dirichlet, Energy, FunctionSpace, Lagrange, Reals, Status, WeakForm, unit_interval
from fem import unit_square as square
from fem.materials import deformation_gradient, neo_hookean
from solvers import CG, follow, minimize

BRATU = 3.51383071912516  # the greatest λ at which −u″ = λ eᵘ has a solution on (0, 1)


def bratu(cells: int = 32) -> Energy:
    V = FunctionSpace(unit_interval(cells), Lagrange(3))
    density = lambda x, u, g, lam: 0.5 * g.square().sum(-1) - lam * torch.exp(u)  # noqa: E731
    return Energy(V, density, Dirichlet(V, {"boundary": 0.0}))


def truss(height: float = 1.0) -> Energy:
    """Von Mises' truss, (w²/2 − h w)² − P w: P = h³ c (1 − c²) with w = h (1 − c)."""
    return Energy(Reals(square(1)), lambda x, w, g, P: (w**2 / 2 - height * w) ** 2 - P * w, derivatives=1)


def test_arc_length_goes_around_the_fold_of_bratus_problem() -> None:
    energy = bratu()
    path = follow(energy, lambda s: (s,), span=(0.0, 5.0), step=0.3, arc_length=True, throw=False, max_steps=10)
    assert path.status is Status.MAX_ITERATIONS
    assert float(abs(path.folds[0] - BRATU)) < 1e-9
    assert path.folds.shape == (1,)
    assert path.fold_values.shape == (1, *energy.space.shape)
    assert float(path.fold_values[0].max()) == pytest.approx(1.18684, abs=1e-4)
    tops = path.values.amax(-1)
    assert bool((tops[1:] > tops[:-1]).all())
    assert float(path.parameters[-1]) < float(path.parameters.max())
    for u, s in zip(path.values, path.parameters.tolist(), strict=True):
        assert float(energy.residual(u, s).abs().max()) < 1e-10


@pytest.mark.parametrize("form", ["energy", "weak form"])
def test_what_lies_beyond_a_fold_is_no_solution(form: str) -> None:
    """Newton's method must not take a residual that bends for round-off, however small it is."""
    energy = bratu(16)
    V = energy.space
    problem = energy
    if form == "weak form":
        integrand = lambda x, u, g, v, h, lam: (g * h).sum(-1) - lam * torch.exp(u) * v  # noqa: E731
        problem = WeakForm(V, integrand, energy.constraint)
    path = follow(problem, lambda s: (s,), span=(0.0, 4.0), throw=False)
    assert path.status is not Status.CONVERGED
    assert BRATU - 0.01 < float(path.parameters[-1]) < BRATU
    with pytest.raises(ConvergenceError, match=r"came from s = 0 to 3.51\d* of 4 in .*`arc_length=True` goes around"):
        follow(problem, lambda s: (s,), span=(0.0, 4.0))
    near = follow(energy, lambda s: (s,), span=(0.0, 3.513)).value.detach()
    for beyond in (3.5139, 3.515, 3.52):
        assert minimize(energy, (beyond,), near, throw=False).status is not Status.CONVERGED


def test_a_truss_snaps_through_and_back() -> None:
    path = follow(truss(), lambda s: (s,), span=(0.0, 1.0), step=0.1, arc_length=True)
    top = 2 / 3 / 3**0.5
    torch.testing.assert_close(path.folds, torch.tensor([top, -top], dtype=torch.float64), rtol=1e-9, atol=0)
    c = 1 - path.values.flatten()
    torch.testing.assert_close(c * (1 - c**2), path.parameters, rtol=1e-9, atol=1e-12)
    assert float(path.parameters[-1]) == 1.0
    assert path.status is Status.CONVERGED
    down = follow(truss(), lambda s: (s,), span=(0.0, -1.0), step=0.1)  # the other way nothing turns
    assert float(down.value) < -0.3


@pytest.mark.parametrize("stop", [0.3, 0.38, 0.3848])
def test_an_end_just_before_a_fold_is_not_passed_by(stop: float) -> None:
    """The first solution with that load on the path, though a step may lead over the fold and back below it."""
    path = follow(truss(), lambda s: (s,), span=(0.0, stop), step=0.05, arc_length=True)
    assert float(path.value) < 1 - 1 / 3**0.5  # w at the fold
    assert len(path.folds) == 0
    assert float(path.parameters[-1]) == stop


def test_steps_are_long_where_it_is_easy_and_end_where_asked() -> None:
    energy = bratu(8)
    path = follow(energy, lambda s: (s,), span=(0.0, 2.0), step=0.1)
    assert len(path.parameters) < 12
    assert float(path.parameters[-1]) == 2.0
    torch.testing.assert_close(path.value, minimize(energy, (2.0,)).value)
    early = follow(energy, lambda s: (s,), span=(0.0, 2.0), until=lambda u, s: float(u.max()) > 0.1)
    assert early.status is Status.CONVERGED
    assert float(early.value.max()) > 0.1
    assert float(early.parameters[-1]) < 2


def test_the_last_solution_differentiates() -> None:
    energy = bratu(8)
    lam = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    path = follow(energy, lambda s: (s * lam,))
    (slope,) = torch.autograd.grad(path.value.sum(), lam)
    (expected,) = torch.autograd.grad(minimize(energy, (lam,)).value.sum(), lam)
    torch.testing.assert_close(slope, expected)


def test_prescribed_values_may_move_along_the_path() -> None:
    """A square pulled to three times its length, too far for one step of prescribed values."""
    V = FunctionSpace(square(3), Lagrange(1), components=2)

    def pulled(s: float) -> Energy:
        held = Dirichlet(V, {"left": 0.0, ("right", 0): 2 * s, ("right", 1): 0.0})
        return Energy(V, lambda x, u, g: neo_hookean(deformation_gradient(g), 1.0, 2.0), held)

    path = follow(pulled)
    assert float(path.value[:, 0].max()) == 2.0
    assert float(pulled(1.0).residual(path.value).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: follow(bratu(2), lambda s: (s,), span=(1.0, 1.0)), "must be two different numbers"),
        (lambda: follow(bratu(2), lambda s: (s,), step=-0.1), r"step"),
        (lambda: follow(bratu(2), lambda s: (s,), max_steps=0), r"`follow\(max_steps=...\)`"),
        (
            lambda: follow(bratu(2), lambda s: (torch.ones(5, dtype=torch.float64) * s,)),
            r"one problem at a time; here is a batch of shape \(5,\)",
        ),
    ],
)
def test_wrong_calls_are_told(call, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_linear_systems_may_be_solved_by_iterations() -> None:
    path = follow(bratu(8), lambda s: (s,), span=(0.0, 2.0), method=CG())
    torch.testing.assert_close(path.value, minimize(bratu(8), (2.0,)).value, rtol=1e-9, atol=1e-10)
