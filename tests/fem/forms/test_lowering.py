"""Discrete forms: whoever integrates, on cells of a grid or of any mesh, gives the same; numbers share a program."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

import fem.forms.traced.loops
import fem.kernels.integrand
from fem import Constant, Energy, FunctionSpace, Lagrange, box, gradient
from fem.forms.cell_integral import CellIntegral
from fem.forms.grid_integral import GridIntegral
from fem.forms.lowering import cell_integral, cell_integrals, traced_integral
from tests.problems import diffusion

F64 = torch.float64


@pytest.fixture(autouse=True)
def small_grids_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.forms.traced.loops, "GRID_CELLS", 1)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each trace of a density."""
    found, trace = [], fem.kernels.integrand.trace
    monkeypatch.setattr(fem.kernels.integrand, "trace", lambda *args: (found.append(1), trace(*args))[1])
    return found


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def space(components: int | None = None, degree: int = 1) -> FunctionSpace:
    return FunctionSpace(box((-0.5, 0.25), (1.0, 1.25), (3, 4)), Lagrange(degree), components)


def nonlinear(x, u, g, k, slope, w, mu):
    return 0.5 * k * g.square().sum(-1) * (1 + u.square()) + (w * slope).sum(-1) * u + mu * torch.cos(u) * x[..., 0]


def parameters(V: FunctionSpace) -> tuple:
    """A field in a batch, a gradient, a constant vector and a number."""
    k, w = V.function(rand(2, *V.shape, seed=1)), Constant(rand(2, seed=2), (2,))
    return k, gradient(V.function(rand(*V.shape, seed=3))), w, 0.7


# -- one face ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2])
def test_integrals_have_one_face(degree: int) -> None:
    V = space(degree=degree)
    (term,), (domain,) = Energy(V, nonlinear).terms, V.quadrature.domains()
    grid, cells = (make(V, term, domain, parameters(V)) for make in (traced_integral, cell_integral))
    assert isinstance(grid, GridIntegral)
    assert isinstance(cells, CellIntegral)
    batch, close = (2,), partial(torch.testing.assert_close, rtol=1e-11, atol=1e-12)
    assert grid.batch == cells.batch == batch
    u, v = rand(2, *V.shape, seed=4), rand(2, *V.shape, seed=5)
    close(grid.value(u, batch), cells.value(u, batch))
    for mine, theirs in (
        (grid.residual(u, batch), cells.residual(u, batch)),
        (grid.hessian_product(u, v, batch, False), cells.hessian_product(u, v, batch, False)),
        *zip(grid.evaluate(u, batch)[1:], cells.evaluate(u, batch)[1:], strict=True),
        *zip(grid.hessian(u, batch).times_constant(0, 0), cells.hessian(u, batch).times_constant(0, 0), strict=True),
    ):
        close(*mine, *theirs)
    again = grid.with_tensors(iter([2 * t for t in grid.tensors()]))
    close(again.value(u, batch), grid.at_points().with_tensors(iter(again.at_points().tensors())).value(u, batch))


@pytest.mark.parametrize(("density", "same"), [("quadratic", True), ("nonlinear", False)])
def test_hessians_know_whether_they_are_equal_and_finite(density: str, same: bool) -> None:
    V = space()
    psi = (lambda x, u, g, k: k * g.square().sum(-1)) if same else (lambda x, u, g, k: k * u**4)
    (term,), (domain,) = Energy(V, psi).terms, V.quadrature.domains()
    u, v = rand(*V.shape), rand(*V.shape, seed=1)
    for make in (traced_integral, cell_integral):
        one, two = make(V, term, domain, (V.function(u),)), make(V, term, domain, (V.function(v),))
        assert one.hessian(u, ()).equals(one.hessian(v, ())) == same
        assert one.hessian(u, ()).equals(make(V, term, domain, (V.function(u),)).hessian(u, ()))
        assert not one.hessian(u, ()).equals(two.hessian(u, ()))
        assert bool(one.hessian(u, ()).finite())
        broken = make(V, term, domain, (V.function(u.index_fill(0, torch.tensor([3]), torch.inf)),))
        assert not bool(broken.hessian(u, ()).finite())
    assert (
        not traced_integral(V, term, domain, (1.5,))
        .hessian(u, ())
        .equals(cell_integral(V, term, domain, (1.5,)).hessian(u, ()))
    )


def test_those_who_look_at_single_cells_get_values_at_points() -> None:
    V = space()
    energy = Energy(V, lambda x, u, g, k: k * u**2, boundary={"right": lambda x, u, n, k: k * u})
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    found = cell_integrals(V, energy.terms, (k,))
    assert all(isinstance(i, CellIntegral) and not i.tensors()[0].requires_grad for i in found)
    assert [i.domain.facet is None for i in found] == [True, False]
    u = rand(*V.shape)
    torch.testing.assert_close(sum(i.value(u, ()) for i in found), energy(u, 2.0))


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_share_a_program(traces: list[int]) -> None:
    V = space()
    energy = Energy(V, lambda x, u, g, k, f: diffusion(x, u, g, k) - (1 - f) / k * u * x[..., 0])
    u = rand(*V.shape)
    energy(u, 0.7, 0.3)
    before = len(traces)
    for k, f in ((1.7, 0.4), (-2.5, 30.0), (1e-3, -1e5)):
        tensors = (torch.tensor(k, dtype=F64), torch.tensor(f, dtype=F64))
        torch.testing.assert_close(energy(u, k, f), energy(u, *tensors), rtol=1e-13, atol=0)
    assert len(traces) == before


@pytest.mark.parametrize(
    "density",
    [
        lambda x, u, g, k: (u + 2) ** k,
        lambda x, u, g, k: (u + 2) ** (2 * k - 1),
        lambda x, u, g, k: math.exp(k) * u**2,
        lambda x, u, g, k: u**3 if k > 2 else u**2,
        lambda x, u, g, k: sum(u**i for i in range(round(k))) + 0 * u,
        lambda x, u, g, k: torch.where(u > k - 2, u, 2 * u),
        lambda x, u, g, k: torch.full_like(u, k) * u,
    ],
)
def test_numbers_whose_values_matter(density) -> None:
    """Exponents, branches, arguments of functions that take numbers alone: as by values at points."""
    V = space()
    (term,), (domain,), u = Energy(V, density).terms, V.quadrature.domains(), rand(*V.shape)
    for k in (2.5, 1.5, 3.0, 0.0, 1.0):
        grid, cells = (make(V, term, domain, (k,)) for make in (traced_integral, cell_integral))
        assert grid is not None
        torch.testing.assert_close(grid.value(u, ()), cells.value(u, ()), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(grid.residual(u, ()), cells.residual(u, ()), rtol=1e-11, atol=1e-14)


def test_what_a_density_closes_over_may_change(traces: list[int]) -> None:
    V, level = space(), [1.0]
    energy = Energy(V, lambda x, u, g, k: k * level[0] * u**2)
    u = rand(*V.shape)
    first = energy(u, 0.7)
    level[0] = 3.0
    torch.testing.assert_close(energy(u, 0.7), 3 * first)
    level[0] = 1.0
    count = len(traces)
    torch.testing.assert_close(energy(u, 0.7), first)
    assert len(traces) == count
