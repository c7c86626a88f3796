"""Loops as C give what they give in PyTorch: values, derivatives of all kinds, on all kinds of grids."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fem.forms.traced.loops
import fem.kernels.c_source
from fem import Energy, FunctionSpace, Lagrange, box, compilation
from fem.forms.grid_integral import GridIntegral
from fem.support.native import find_compiler
from tests.fem.kernels.test_tracing import SCALARS

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
WITHOUT = {"rounding division", "saturating", "gelu by tanh", "hypot"}  # densities that C code is not written for


@pytest.fixture(autouse=True)
def always_on_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.forms.traced.loops, "GRID_CELLS", 1)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each loop that could be C was C."""
    seen, original = [], fem.kernels.c_source.GeneratedLoop.__call__

    def call(*args):
        found = original(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(fem.kernels.c_source.GeneratedLoop, "__call__", call)
    return seen


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 0.1 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def nonlinear(x: Tensor, u: Tensor, g: Tensor, k: Tensor, f: Tensor, a: Tensor) -> Tensor:
    slope = g.square().sum(-1)
    return a * k * slope * (1 + u.square()) + torch.cos(u) - f * u.exp() * x[..., 0] + x[..., -1] * u


def elastic(x: Tensor, u: Tensor, g: Tensor, k: Tensor, f: Tensor, a: Tensor) -> Tensor:
    strain = 0.5 * (g + g.mT)
    return a * k * strain.square().sum((-2, -1)) + u.square().sum(-1) ** 2 - f * x[..., 0] * u[..., -1]


def results(energy: Energy, params: tuple, u: Tensor, v: Tensor) -> list[Tensor]:
    """Values and derivatives of first and second order, in u and in all parameters."""
    fields = [u, *[p for p in params if isinstance(p, Tensor)]]
    form = energy.discrete_form(params)
    (integral,) = form.integrals
    assert isinstance(integral, GridIntegral)
    with torch.no_grad():
        state = form.evaluate(u)
        found = [state.value, state.residual, state.magnitude, form.hessian_product(u, v)]
        found += [m for _, m in integral.integrand.element_matrices([u, *integral.tensors()])]
    fields = [f.clone().requires_grad_() for f in fields]
    values = energy(fields[0], *[*fields[1:], *params][: len(params)])
    return [*found, *torch.autograd.grad(values.square().sum(), fields)]


def check(energy: Energy, params: tuple, u: Tensor, tolerance: float = 1e-11) -> None:
    v, found = random(*u.shape, seed=9, dtype=u.dtype), []
    for when in ("never", "always"):
        with compilation(when):
            found.append(results(energy, params, u, v))
    for wanted, given in zip(*found, strict=True):
        torch.testing.assert_close(given, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


GRIDS = [(5,), (300,), (3, 4), (2, 300), (40, 3), (2, 3, 2), (3, 2, 33)]
QUICK = [((300,), 2), ((5,), 3), ((2, 300), 2)]  # of those with nodes inside of cells


def space(cells: tuple[int, ...], degree: int, dtype: torch.dtype = torch.float64, **options) -> FunctionSpace:
    """Over a box with another lower corner and another size along each axis, no two numbers alike: grids share code."""
    dim = len(cells)
    mesh = box((-0.5, 0.25, 1.0)[:dim], (1.03, 1.31, 3.17)[:dim], cells[::-1], dtype=dtype)
    return FunctionSpace(mesh, Lagrange(degree), **options)


@pytest.mark.parametrize(
    ("cells", "degree"),
    [  # each is compiled anew; degree 3 in 3-D is long to compile, and nothing new
        pytest.param(cells, degree, marks=[] if degree == 1 or (cells, degree) in QUICK else [pytest.mark.slow])
        for cells in GRIDS
        for degree in (1, 2, 3)
        if (len(cells), degree) != (3, 3)
    ],
)
def test_grids_and_degrees(cells: tuple[int, ...], degree: int, compiled: list[bool]) -> None:
    """Longer rows than one loop takes, more layers than one portion; a field, values at points and numbers."""
    V = space(cells, degree)
    K = FunctionSpace(V.mesh, Lagrange(1))
    params = (K.function(random(*K.shape, seed=1)), lambda x: x.square().sum(-1), random(2, seed=3))
    check(Energy(V, nonlinear), params, random(2, *V.shape))
    assert compiled
    assert any(compiled)


def test_vectors_and_single_precision(compiled: list[bool]) -> None:
    V = space((3, 4), 2, torch.float32, components=2)
    K = FunctionSpace(V.mesh, Lagrange(1))
    params = (K.function(random(*K.shape, seed=1, dtype=torch.float32)), 0.3, 1.5)
    check(Energy(V, elastic), params, random(2, *V.shape, dtype=torch.float32), 2e-5)
    assert any(compiled)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    V = space((40, 30), 2)
    params, u, found = (1.0, 2.0, 3.0), random(*V.shape), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with compilation("always"):
            found.append(results(Energy(V, nonlinear), params, u, u))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def energy_of(density: Callable[..., Tensor]) -> tuple[Energy, tuple, Tensor]:
    V = space((4, 5), 1)
    return Energy(V, density), (V.function(random(*V.shape, seed=1)),), random(*V.shape)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in SCALARS if n not in WITHOUT])
def test_operations(name: str, compiled: list[bool]) -> None:
    check(*energy_of(SCALARS[name]))
    assert compiled
    assert any(compiled)


def test_operations_all_at_once(compiled: list[bool]) -> None:
    chosen = [d for name, d in SCALARS.items() if name not in WITHOUT]
    check(*energy_of(lambda x, u, g, k: torch.stack([d(x, u, g, k).expand(u.shape) for d in chosen]).sum(0)))
    assert any(compiled)


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_what_is_not_written_in_c_runs_as_before(name: str, compiled: list[bool]) -> None:
    energy, params, u = energy_of(SCALARS[name])
    assert not compiled
    with compilation("auto"):
        assert energy(u, *params).isfinite()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(value: float, compiled: list[bool]) -> None:
    """In choices, extremes, roots and functions of several numbers at once, as PyTorch has it."""

    def density(x: Tensor, u: Tensor, g: Tensor) -> Tensor:
        parts = [u.clamp(0.2, 0.8), torch.maximum(u, x[..., 0]), u.relu(), torch.where(u > 0.5, u, 1.0), u.sign()]
        parts += [u.exp(), u.sqrt(), u.tanh(), u.abs() ** 1.5, u.isnan() * 1.0, u**-2, torch.fmax(u, x[..., 1])]
        return torch.stack([(p * 2.0**-i).nan_to_num(3.0, 5.0, -7.0) for i, p in enumerate(parts)]).sum(0)

    V = space((2, 3), 1)
    u = random(*V.shape)
    u[4] = value
    energy, found = Energy(V, density), []
    for when in ("never", "always"):
        with compilation(when), torch.no_grad():
            found.append(energy(u))
    torch.testing.assert_close(*found)
    assert compiled == [False, True]
