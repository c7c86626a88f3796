"""Loops over patches of splines: the same values and derivatives as by values at points, compiled and not.

The path is chosen when a discrete form is made, by the number of points: here it is forced either way.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor

import fem.forms.traced.patch_cells
import fem.kernels.patches.source
from fem import Constant, Dirichlet, Energy, compilation, gradient
from fem.forms.cell_integral import CellIntegral
from fem.forms.traced.patch_integral import PatchIntegral
from fem.support.native import find_compiler
from nurbs import Surface, annulus, ball_patches, disk_patches, extrude, isogeometric_space, transform
from nurbs.isogeometric.spline_space import SplineSpace
from solvers import CG, Direct, FastDiagonalization, minimize
from solvers.operators.system import System

F64: Any = {"dtype": torch.float64}
compiled = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


def ways(plain: Sequence[str], fast: Sequence[str] = ("annulus", "tube")) -> Any:
    """Cases in PyTorch, and some of them compiled, which takes a second or two each."""
    rows = [*[(name, "never") for name in plain], *[pytest.param(name, "always", marks=compiled) for name in fast]]
    return pytest.mark.parametrize(("name", "way"), rows)


@contextmanager
def path(by_loops: bool) -> Iterator[None]:
    """Within, energies are integrated by loops over patches wherever possible, or nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fem.forms.traced.patch_cells, "MESH_POINTS", 1 if by_loops else 10**12)
        yield


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), **F64).to(dtype)


def in_space(patch: Surface) -> Surface:
    return transform(patch, torch.eye(3, 2, **F64))


def closed() -> Surface:
    """A ring whose direction v is periodic, with control points of two circles."""
    angles = torch.arange(7, **F64) * 2 * pi / 7
    points = torch.stack([angles.cos(), angles.sin()], -1)
    knots = (torch.tensor([0.0, 0, 1, 1], **F64), torch.arange(8, **F64))
    return Surface(torch.stack([points, 2 * points]), knots=knots, degree=(1, 2), periodic=(False, True))


CASES: dict[str, Callable[[], tuple[Any, Any, Any, int | None]]] = {  # patches, degrees, spans, components
    "annulus": lambda: (annulus(1, 2, angle=pi / 2), (3, 2), (7, 20), None),
    "vectors": lambda: (annulus(1, 2, angle=pi / 2), 2, (4, 5), 2),
    "ring": lambda: (annulus(1, 2), 2, (3, 8), None),
    "periodic": lambda: (closed(), 2, (3, 8), None),
    "disk": lambda: (disk_patches(), 3, 4, None),
    "tube": lambda: (extrude(in_space(annulus(1, 2, angle=pi / 2)), [0.1, 0, 1.0]), (2, 1, 3), (3, 4, 9), None),
    "ball": lambda: (ball_patches(), 2, 2, None),
    "shell": lambda: (in_space(annulus(1, 2, angle=pi / 2)), 2, 4, None),
}


def scalars(x: Tensor, u: Tensor, grad_u: Tensor, k: Tensor, slope: Tensor, c: Tensor, f: Tensor) -> Tensor:
    return 0.5 * (k * grad_u.square().sum(-1) + c * u**4 * x[..., 0]) - f * u + (grad_u * slope).sum(-1) * u


def vectors(x: Tensor, u: Tensor, grad_u: Tensor, k: Tensor, slope: Tensor, c: Tensor, f: Tensor) -> Tensor:
    strain = 0.25 * (grad_u + grad_u.mT).square().sum((-1, -2))
    own = (0.25 * u.square().sum(-1) ** 2 - f * u[..., 0]) * x[..., 1]
    return k * strain + own + c * torch.einsum("...ii->...", grad_u) * slope.sum(-1)


def setting(name: str, dtype: torch.dtype = torch.float64) -> tuple[SplineSpace, Energy, list[Any], Tensor, Tensor]:
    patches, degree, spans, components = CASES[name]()
    V = isogeometric_space(patches, degree, spans, components).to(dtype=dtype)
    W = SplineSpace(V.mesh, None, V.quadrature_degree)
    k, s = (1 + random(W.num_dofs, seed=i, dtype=dtype) for i in (0, 1))
    c = torch.tensor([0.7, 1.2], dtype=dtype)
    params = [W.function(k), gradient(W.function(s)), Constant(c, ()), lambda x: torch.sin(3 * x[..., 0])]
    u, v = (random(*V.shape, seed=i, dtype=dtype) for i in (3, 4))
    density = scalars if components is None else vectors
    return V, Energy(V, density, Dirichlet(V, {next(iter(V.mesh.sides)): 0.0})), params, u, v


def everything(name: str, twice: bool = True) -> tuple[list[type], list[Tensor]]:
    """Values and derivatives of first and second order in u and parameters, and what solvers ask for."""
    _, energy, params, u, v = setting(name)
    k, s, c = (params[0].values, params[1].function.values, params[2].value)
    inputs = [t.clone().requires_grad_() for t in (u, k, s, c)]
    W = params[0].space
    given = [W.function(inputs[1]), gradient(W.function(inputs[2])), Constant(inputs[3], ()), params[3]]
    value = energy(inputs[0], *given)
    first, second = torch.autograd.grad(value.sum(), inputs, create_graph=twice), ()
    if twice:
        second = torch.autograd.grad((first[0] * v).sum() + sum(g.square().sum() for g in first[1:]), inputs)
    form = energy.discrete_form(params)
    found = form.evaluate(u)
    sizes = [t for h in form.hessians(u) for part in h.times_constant(0, 0) for t in part if t is not None]
    assert found.value is not None
    return [type(i) for i in form.integrals], [
        *(value.detach(), *[g.detach() for g in first], *second, energy.residual(u, *params)),
        *(energy.hessian_product(u, v, *params), found.value, found.residual, found.magnitude, *sizes),
    ]


@ways(list(CASES), ["annulus"])
def test_loops_agree_with_values_at_points(name: str, way: str) -> None:
    twice = way == "never"
    with path(False):
        kinds, expected = everything(name, twice)
        assert set(kinds) == {CellIntegral}
    with path(True), compilation(way):
        kinds, found = everything(name, twice)
        assert set(kinds) == {PatchIntegral}
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12 * float(theirs.abs().max()))


@ways(["annulus", "vectors"], ["annulus"])
def test_single_precision(name: str, way: str) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        with path(True), compilation(way):
            _, energy, params, u, v = setting(name, dtype)
            found.append([energy.residual(u, *params), energy.hessian_product(u, v, *params)])
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


@ways(["annulus", "vectors", "periodic", "disk", "tube", "ball"], ["vectors", "disk", "tube"])
def test_products_and_diagonals_are_those_of_the_matrix(name: str, way: str) -> None:
    V, energy, params, u, v = setting(name)
    params[2], expected = 0.7, []
    for by_loops in (False, True):
        with path(by_loops), compilation(way if by_loops else "never"):
            system = System(energy.discrete_form(params), u)
            assert system.tensor is not None
            expected.append([system.apply(v), system.diagonal])
    for mine, theirs in zip(*expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12 * float(theirs.abs().max()))
    H = energy.hessian(u, *params).to_dense()
    product = system.project((H @ system.project(v).flatten()).view(V.shape))
    assert (expected[1][0] - product).abs().max() < 1e-11 * product.abs().max()
    assert (expected[1][1].flatten() - H.diagonal()).abs().max() < 1e-11 * H.abs().max()


def test_control_points_and_weights_differentiate() -> None:
    """Energies and solutions as functions of the patch, as by values at points, and by differences."""
    patch = annulus(1, 2, angle=pi / 2)
    found = []
    for by_loops in (False, True):
        with path(by_loops):
            assert patch.weights is not None
            P, w = patch.control_points.clone().requires_grad_(), patch.weights.clone().requires_grad_()
            V = isogeometric_space(patch.replace(control_points=P, weights=w), 2, 5)
            energy = Energy(V, lambda x, u, g, f: 0.5 * g.square().sum(-1) - f * u, Dirichlet(V, {"boundary": 0.0}))
            load = lambda x: x[..., 0] + x[..., 1] ** 2  # noqa: E731
            kinds = [type(i) for i in energy.discrete_form((load,)).integrals]
            assert kinds == [PatchIntegral if by_loops else CellIntegral]
            u = minimize(energy, params=(load,), method=CG(preconditioner=FastDiagonalization())).value
            grads = torch.autograd.grad(u.square().sum(), (P, w), create_graph=True)
            second = torch.autograd.grad(grads[0].square().sum() + grads[1].sin().sum(), (P, w))
            found.append([t.detach() for t in (u, *grads, *second)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9 * float(theirs.abs().max()))


@compiled
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fem.kernels.patches.source, "LAYERS", 2)
    found = []
    with path(True), compilation("always"):
        for threads in (1, 2):
            monkeypatch.setattr("fem.support.c_function.num_threads", lambda threads=threads: threads)
            found.append(everything("annulus", False)[1])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


@compiled
def test_what_is_not_finite_stays_where_it_is() -> None:
    """A NaN among the dofs reaches the functions that share spans with it, and nobody else."""
    V, energy, params, u, _ = setting("annulus")
    params[2], place = 0.7, 75
    bad = u.clone()
    bad[place] = torch.nan
    with path(True), compilation("always"):
        good, found = energy.residual(u, *params), energy.residual(bad, *params)
    near = torch.zeros_like(u, dtype=torch.bool)
    local = V.cell_dofs[0]
    near[local[(local == place).any(1)].unique()] = True
    assert torch.equal(found.isnan(), near & (good != 0))
    assert torch.equal(found[~near], good[~near])


def test_spaces_of_other_degrees_and_knots_bring_parameters() -> None:
    """Fields of another basis over the same spans keep their own tables, also where all sizes are equal."""
    V = isogeometric_space(annulus(1, 2, angle=pi / 2), 2, 6)
    values, u = random(V.num_dofs, seed=5), random(V.num_dofs, seed=6)
    found = []
    for by_loops in (False, True):
        with path(by_loops):
            energy = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1))
            found.append(energy.residual(u, V.function(values)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


def test_batches_are_solved_item_by_item() -> None:
    V = isogeometric_space(disk_patches(), 3, 4)
    energy = Energy(
        V, lambda x, u, g, k, c: 0.5 * (k * g.square().sum(-1) + c * u**2) - u, Dirichlet(V, {"outer": 0.0})
    )
    k, c = 1 + random(3, V.num_dofs), torch.tensor([0.0, 3.0, 50.0], **F64)
    with path(True):
        method = CG(preconditioner=FastDiagonalization())
        together = minimize(energy, params=(V.function(k), c), method=method).value
        for i in range(3):
            alone = minimize(energy, params=(V.function(k[i]), float(c[i])), method=Direct()).value
            torch.testing.assert_close(together[i], alone, rtol=1e-10, atol=1e-12)
