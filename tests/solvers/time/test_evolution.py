"""`evolve`: gradients through all steps, checkpoints, transformations, adaptive steps, events, output, failures."""

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, Mesh, unit_interval, unit_square
from solvers import (
    BDF2,
    CG,
    ConvergenceError,
    CrankNicolson,
    GeneralizedAlpha,
    ImplicitEuler,
    Multigrid,
    Newmark,
    Newton,
    Status,
    Theta,
    evolve,
)
from tests.wrong_calls import misunderstood

F64 = torch.float64
METHODS = [
    ImplicitEuler(),
    BDF2(),
    CrankNicolson(),
    CrankNicolson(damped=True),
    Theta(0.7),
    Newmark(),
    GeneralizedAlpha(0.6),
]


def numbers(*values: float) -> list[Tensor]:
    return [torch.tensor(v, dtype=F64, requires_grad=True) for v in values]


class Problem:
    """A nonlinear equation of which everything is a leaf: start, mass, coefficient, load and prescribed values."""

    def __init__(self, cells: int = 4):
        self.V = FunctionSpace(unit_interval(cells), Lagrange(1))
        generator = torch.Generator().manual_seed(3)
        self.u, self.rho = (
            (torch.rand(self.V.num_dofs, dtype=F64, generator=generator) + 0.5).requires_grad_() for _ in range(2)
        )
        self.k, self.f, self.g = numbers(0.7, 0.4, 1.3)
        self.leaves = [self.u, self.rho, self.k, self.f, self.g]

    def run(self, method: Any, steps: int = 4, **settings: Any) -> Any:
        u, rho, k, f, g = self.leaves
        held = Dirichlet(self.V, {"left": 0.0, "right": lambda x, t: g * math.cos(t) * torch.ones_like(x[..., 0])})
        J = Energy(self.V, lambda x, u, s, k, f: 0.5 * k * s.square().sum(-1) + 0.25 * u**4 - f * u, held)
        conductivity, initial = k.exp(), (u, 0 * u) if method.rates == 2 else u
        if method.rates == 2:
            settings["damping"] = 0.3
        load = lambda t: lambda x: f * math.cos(t) * x[..., 0]  # noqa: E731
        params = lambda t: (conductivity, load(t))  # noqa: E731
        return evolve(J, self.V.function(rho), initial, torch.linspace(0, 1, steps + 1), method, params, **settings)

    def value(self, *args: Any, **settings: Any) -> Tensor:
        found = self.run(*args, **settings).values
        return found[-1].square().sum() + found[len(found) // 2].sum()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_gradients_are_differences_and_checkpoints_change_no_bit(method: Any) -> None:
    """In the start, the mass, a coefficient made of another, a load and values at the boundary."""
    problem = Problem()
    value = problem.value(method)
    gradients = torch.autograd.grad(value, problem.leaves)
    for checkpoints in (True, 3):
        again = problem.value(method, checkpoints=checkpoints)
        assert torch.equal(value, again)
        for a, b in zip(gradients, torch.autograd.grad(again, problem.leaves), strict=True):
            assert torch.equal(a, b)
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(t.shape, dtype=F64, generator=generator) for t in problem.leaves]
    slope = sum(float((d * g).sum()) for d, g in zip(directions, gradients, strict=True))
    ends = []
    with torch.no_grad():
        for h in (1e-5, -2e-5):
            for leaf, d in zip(problem.leaves, directions, strict=True):
                leaf += h * d
            ends.append(float(problem.value(method)))
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.slow
def test_gradient_through_two_hundred_steps_in_little_memory() -> None:
    """The derivative is the difference to 1e-6; of 200 loads that were made none is kept, without checkpoints all."""
    V = FunctionSpace(unit_interval(6), Lagrange(1))
    J = Energy(V, lambda x, u, g, a, f: 0.5 * a * g.square().sum(-1) - f * u, Dirichlet(V, {"left": 0.0}))
    (a,) = numbers(0.4)

    def final(a: Tensor) -> tuple[Tensor, int]:
        loads: list[StorageWeakRef] = []

        def params(t: float) -> tuple[Any, Any]:
            load = a * math.sin(t) * torch.ones(V.num_dofs, dtype=F64)
            loads.append(StorageWeakRef(load.untyped_storage()))
            return a, V.function(load)

        times = torch.linspace(0, 6, 201)
        found = evolve(J, 1.0, V.interpolate(lambda x: x[..., 0]), times, BDF2(), params, **more)
        assert len(found.values) == 2
        gc.collect()
        return found.values[-1].sum(), sum(not load.expired() for load in loads)

    more: dict[str, Any] = {"every": 200, "checkpoints": True}
    value, alive = final(a)
    assert alive <= 15
    (slope,) = torch.autograd.grad(value, a)
    more["checkpoints"] = False
    value, alive = final(a)
    assert alive >= 200
    assert torch.equal(slope, torch.autograd.grad(value, a)[0])
    with torch.no_grad():
        ends = [float(final(a + h)[0]) for h in (1e-4, -1e-4)]
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow) for m in (BDF2(), CrankNicolson(), Newmark())], ids=str
)
def test_derivatives_of_all_kinds(method: Any) -> None:
    """Second order, forward mode, batches of gradients and `torch.func`, as for a single solve."""
    V = FunctionSpace(unit_interval(2), Lagrange(1))
    J = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) + 0.25 * u**4 - u, Dirichlet(V, {"left": 0.0}))
    start = torch.tensor([0.0, 0.3, 0.7], dtype=F64, requires_grad=True)

    def final(k: Tensor, rho: Tensor, u: Tensor, checkpoints: Any = False) -> Tensor:
        initial: Any = (u, 0 * u) if method.rates == 2 else u
        return evolve(J, rho, initial, [0.0, 0.5, 1.0], method, (k,), checkpoints=checkpoints).values[-1]

    k, rho = numbers(0.5, 1.5)
    assert torch.autograd.gradcheck(final, (k, rho, start), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(final, (k, rho, start))
    assert torch.autograd.gradgradcheck(lambda k, rho, u: final(k, rho, u, 2), (k, rho, start))
    plain = (k.detach(), rho.detach(), start.detach())
    (wanted,) = torch.autograd.grad(final(k, rho, start).sum(), k)
    for checkpoints in (False, True):
        found = torch.func.grad(lambda k, c=checkpoints: final(k, *plain[1:], c).sum())(plain[0])
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    ks = torch.tensor([0.5, 0.8], dtype=F64)
    mapped = torch.func.vmap(lambda k: final(k, *plain[1:]))(ks)
    torch.testing.assert_close(mapped, torch.stack([final(k, *plain[1:]) for k in ks]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "method", [BDF2(), *(pytest.param(m, marks=pytest.mark.slow) for m in (CrankNicolson(), Newmark()))], ids=str
)
def test_derivatives_in_the_nodes(method: Any) -> None:
    base = unit_square(2, cell="triangle")
    nodes = base.nodes.clone().requires_grad_()

    def final(nodes: Tensor, checkpoints: Any = False) -> Tensor:
        V = FunctionSpace(Mesh(nodes, base.cells, cell="triangle"), Lagrange(1))
        J = Energy(
            V, lambda x, u, g: 0.5 * g.square().sum(-1) - u, Dirichlet(V, {"boundary": lambda x, t: t * x[..., 0]})
        )
        zero = torch.zeros(V.shape, dtype=F64)
        initial: Any = (zero, zero) if method.rates == 2 else zero
        return evolve(J, 1.0, initial, [0.0, 0.5, 1.0], method, checkpoints=checkpoints).values[-1]

    assert torch.autograd.gradcheck(final, (nodes,))
    a, b = (torch.autograd.grad(final(nodes, c).square().sum(), nodes)[0] for c in (False, 2))
    assert torch.equal(a, b)


# -- adaptive steps and events -----------------------------------------------------------------------------------------


def decay() -> tuple[Energy, Tensor, float]:
    V = FunctionSpace(unit_interval(8), Lagrange(2))
    J, u = Energy(V, lambda x, u, g: 0.5 * u**2), torch.ones(V.shape, dtype=F64)
    return J, u, 1.0


@pytest.mark.parametrize("method", [ImplicitEuler(), BDF2(), CrankNicolson()], ids=str)
def test_adaptive_steps_meet_the_tolerance(method: Any) -> None:
    """u′ = −u: the error is that of some steps, falls with the tolerance, and times asked for are met exactly."""
    J, u, _ = decay()
    counts, errors = [], []
    tolerances = (1e-2, 1e-3) if method.order == 1 else (1e-3, 1e-5)
    for rtol in tolerances:
        found = evolve(J, 1.0, u, [0.0, 0.7, 3.0], method, rtol=rtol)
        assert found.times.tolist() == [0.0, 0.7, 3.0]
        assert sum(found.sizes) == pytest.approx(3.0)
        exact = torch.exp(-found.times)[:, None] * u
        errors.append(float(((found.values - exact) / exact).abs().max()))
        counts.append(len(found.sizes))
        assert errors[-1] < rtol * counts[-1]
    assert counts[1] > 2 * counts[0]
    share = method.order / (method.order + 1)  # of the tolerance's power in the error at the end
    assert errors[1] < 2 * errors[0] * (tolerances[1] / tolerances[0]) ** share


def test_adaptive_steps_grow_where_nothing_happens_and_serve_waves() -> None:
    J, u, _ = decay()
    sizes = evolve(J, 1.0, u, (0.0, 20.0), rtol=1e-4, atol=1e-4).sizes
    assert max(sizes) > 10 * min(sizes)
    found = evolve(J, 1.0, (u, 0 * u), (0.0, 5.0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.values[-1], math.cos(5.0) * u, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "settings", [{}, {"rtol": 1e-6}, {"checkpoints": True}, {"rtol": 1e-6, "checkpoints": 2}], ids=str
)
def test_events_are_found_to_round_off(settings: dict[str, Any]) -> None:
    """u = exp(−t) passes ½ at log 2, or where the method has it, and the evolution ends there."""
    J, u, _ = decay()
    u.requires_grad_()
    found = evolve(J, 1.0, u, torch.linspace(0, 2, 21), CrankNicolson(), event=lambda t, u: u.mean() - 0.5, **settings)
    assert found.event == float(found.times[-1])
    assert found.event == pytest.approx(math.log(2), abs=2e-3 if "rtol" not in settings else 1e-5)
    assert float(found.values[-1].detach().mean()) == pytest.approx(0.5, abs=1e-12)
    (slope,) = torch.autograd.grad(found.values[-1].sum(), u)
    torch.testing.assert_close(slope, found.values[-1].detach(), rtol=1e-10, atol=0)  # u is proportional to the start
    assert evolve(J, 1.0, u, [0.0, 0.1], event=lambda t, u: u.mean() - 0.5).event is None


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints", [False, 2])
def test_output_goes_along_once(tmp_path: Path, checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Every second time and the last, as it goes and never again; files for ParaView grow."""
    J, u, _ = decay()
    u.requires_grad_()
    seen: list[float] = []
    given = {"every": 2, "checkpoints": checkpoints}
    found = evolve(J, 1.0, u, torch.arange(6.0), output=lambda t, u: seen.append(t), **given)
    found.values.sum().backward()
    assert seen == found.times.tolist() == [0.0, 2.0, 4.0, 5.0]
    pytest.importorskip("tqdm")
    evolve(J, 1.0, (u, u), torch.arange(6.0), output=tmp_path / "swing.pvd", progress=True, **given)
    assert "t = 5 of 5" in capsys.readouterr().err
    assert (tmp_path / "swing.pvd").read_text().count("DataSet") == len(list((tmp_path / "swing").iterdir())) == 4


def test_failures_name_the_time_and_bring_what_was_reached() -> None:
    """With one Newton step the second step fails, where u⁴ is too steep."""
    V = FunctionSpace(unit_interval(4), Lagrange(1))
    J = Energy(V, lambda x, u, g, f: 0.25 * u**4 - f * u)
    zero, params = torch.zeros(V.shape, dtype=F64), lambda t: (0.0 if t < 1.5 else 100.0,)
    given: Any = (J, 1.0, zero, [0.0, 1.0, 2.0], ImplicitEuler(), params)
    with pytest.raises(ConvergenceError, match=r"`evolve` stopped at t = 2: ") as caught:
        evolve(*given, solver=Newton(max_iterations=1))
    assert caught.value.solution.times.tolist() == [0.0, 1.0]
    found = evolve(*given, solver=Newton(max_iterations=1), throw=False)
    assert found.status is Status.MAX_ITERATIONS
    assert not found.converged
    with pytest.raises(ConvergenceError, match=r"at t = .*no step is small enough for rtol=0\.001, atol=0: .* limit"):
        evolve(J, 1.0, zero + 1, (0.0, 2.0), params=params, rtol=1e-3, solver=Newton(max_iterations=0))


def test_one_factorisation_serves_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of times that differ by round-off, with values at the boundary that change, and for the gradient too."""
    from solvers.linear.direct import Direct

    made = []
    plain = Direct.prepare
    monkeypatch.setattr(Direct, "prepare", lambda self, system: made.append(1) or plain(self, system))
    V = FunctionSpace(unit_interval(8), Lagrange(1))
    held = Dirichlet(V, {"boundary": lambda x, t: t + 0 * x[..., 0]})
    (k,) = numbers(0.3)
    J = Energy(V, lambda x, u, g, f: 0.5 * g.square().sum(-1) - f * u, held)
    found = evolve(J, 1.0, torch.zeros(V.shape, dtype=F64), torch.linspace(0, 1, 31), ImplicitEuler(), (k,))
    found.values[-1].sum().backward()
    assert len(made) == 1


@pytest.mark.parametrize("solver", [Multigrid(), CG()], ids=str)
def test_other_solvers_take_the_same_steps(solver: Any) -> None:
    V = FunctionSpace(unit_square(16), Lagrange(1))
    J = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - u, Dirichlet(V, {"boundary": 0.0}))
    zero, times = torch.zeros(V.shape, dtype=F64), torch.linspace(0, 0.2, 5)
    for method in (BDF2(), CrankNicolson(), Newmark()):
        initial: Any = (zero, zero) if method.rates == 2 else zero
        a, b = (evolve(J, 1.0, initial, times, method, solver=s).values for s in (None, solver))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


SETUP = """
import math
import torch
from fem import *
from solvers import *
V = FunctionSpace(unit_interval(4), Lagrange(1))
u = torch.ones(V.shape, dtype=V.dtype)
t = torch.linspace(0, 1, 5)
J = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1))
weak = WeakForm(V, lambda x, u, g, v, gv: u * v)
W = MixedSpace(V, V)
K = Energy(W, lambda x, u, g: 0.5 * (u[0] - u[1])**2)
moving = Dirichlet(V, {"left": lambda x, t: t + 0 * x[..., 0]})
"""

WRONG = {
    "evolve(J, 1.0, u, [0, 1, 1])": r"`evolve\(times=\.\.\.\)` must increase; got 1 after 1 at index 2",
    "evolve(J, 1.0, u, [0.0])": r"two or more finite numbers, such as `torch.linspace\(0, 1, 101\)`; got \[0\.0\]",
    "evolve(J, 1.0, u, [0.0, math.nan])": "two or more finite numbers",
    "evolve(J, 1.0, u, t[None])": r"one axis of increasing times; got a tensor of shape \(1, 5\)",
    "evolve(J, None, u, t)": r"`evolve\(mass=\.\.\.\)` must be a number, .*; got None",
    "evolve(J, 0.0, u, t)": r"`evolve\(mass=\.\.\.\)` is zero everywhere",
    "evolve(J, -1.0, u, t)": r"`evolve\(mass=\.\.\.\)` must be finite and not negative",
    "evolve(J, math.nan, u, t)": r"`evolve\(mass=\.\.\.\)` must be finite",
    "evolve(J, u, u, t)": r"`evolve\(mass=\.\.\.\)`: parameter 0 is a tensor of shape \(5,\)",
    "evolve(J, {1: 1.0}, u, t)": r"takes fields of \[0, 1\); got \[1\]",
    "evolve(J, weak, u, t)": r"must be of the same kind .* `Energy` over .*; got",
    "evolve(J, Energy(V, lambda x, u, g: u**2, moving), u, t)": "has a constraint of its own",
    "evolve(K, 1.0, W.join([u, u]), t)": r"on a mixed space says which fields it belongs to, `mass={0: 1\.0}`",
    "evolve(J, 1.0, u, t, mass_params=(1.0,))": "are those of a density or functional; got 1.0",
    "evolve(J, lambda x, u: u**4, u, t, CrankNicolson())": "takes a quadratic mass",
    "evolve(J, 1.0, (u, u), t, BDF2())": r"must be the dofs u alone for `BDF2\(\)`, .* first derivatives",
    "evolve(J, 1.0, u, t, Newmark())": r"must be a pair \(u, u′\) for `Newmark\(\)`, .* second derivatives",
    "evolve(J, 1.0, u[:3], t)": r"`initial u` must have the trailing shape \(5,\)",
    "evolve(J, 1.0, u * math.nan, t)": "u holds values that are not finite",
    "evolve(J, 1.0, u, t, BDF2)": r"got the class `BDF2`, not an object",
    "evolve(J, 1.0, u, t, damping=1.0)": r"`evolve\(damping=\.\.\.\)` belongs to u″",
    "evolve(J, 1.0, u, t, params=2.0)": r"`params=\(2\.0,\)`",
    "evolve(J, 1.0, u, t, params=lambda t: 2.0)": r"must be a tuple of parameters; got 2\.0",
    "evolve(J, 1.0, u, t, event=lambda t, u: u)": "must give a finite number",
    "evolve(J, 1.0, u, t, every=0)": r"`evolve\(every=\.\.\.\)` must be a positive integer",
    "evolve(J, 1.0, u, t, checkpoints=0)": r"`evolve\(checkpoints=\.\.\.\)` must be a positive integer",
    "evolve(J, 1.0, u, t, rtol=1)": r"`evolve\(rtol=\.\.\.\)` must be",
    "evolve(J, 1.0, u, t, output='u.vtu')": r"must end in \.pvd",
    "evolve(u, 1.0, u, t)": r"`evolve\(problem=\.\.\.\)` must be an `Energy` or a `WeakForm`",
    "Theta(0.4)": r"`Theta\(theta=\.\.\.\)` must be at least ½",
    "Newmark(0.1)": "stable for 2β ≥ γ ≥ ½; got beta=0.1",
    "GeneralizedAlpha(2)": r"`GeneralizedAlpha\(rho=\.\.\.\)` must be a number from 0 to 1",
    "minimize(Energy(V, lambda x, u, g: u**2, moving))": r"functions of \(x, t\): .* `dirichlet\.at\(t\)`",
    "moving & Dirichlet(V, {'left': 0.0})": "dof 0 is prescribed twice, by functions of time",
}


def test_wrong_calls() -> None:
    assert misunderstood(SETUP, WRONG) == {}
