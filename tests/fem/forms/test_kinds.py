"""Every kind of parameter and of constraint: derivatives to second order, transformations, batches, single precision.

A case makes a minimiser from a vector t of data: values per cell, prescribed values, offsets, coordinates of nodes.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    MixedSpace,
    Periodic,
    RigidMotionFree,
    Ties,
    at_points,
    average,
    gradient,
    jump,
    unit_interval,
    unit_square,
)
from fem.forms.grid_integral import GridIntegral
from fem.forms.traced import loops
from solvers import minimize, solve
from tests.problems import conduction, laplace, mixed_mesh

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what PyTorch runs forward mode by

Case = tuple[int, Callable[[Tensor], Tensor]]  # length of t; "*b t" → dofs "*b *shape"


def triangles(dtype: torch.dtype) -> Mesh:
    return unit_square(2, cell="triangle", dtype=dtype)


def curve(x: Tensor, u: Tensor, grad_u: Tensor, *params: Any) -> Tensor:
    """Something nonlinear: ½|∇u|² + ¼u⁴ − x u."""
    return laplace(x, u, grad_u) + 0.25 * u**4 - x[..., 0] * u


# -- parameters --------------------------------------------------------------------------------------------------------


def scalar_per_cell(dtype: torch.dtype) -> Case:
    """In cells and on the boundary, where the cell behind the facet counts; triangles beside quadrilaterals."""
    V = FunctionSpace(mixed_mesh().to(dtype=dtype), Lagrange(1))
    edge = lambda x, u, normal, k: k**2 * u + 0.5 * u**2 * k  # noqa: E731
    energy = Energy(V, lambda x, u, g, k: k * laplace(x, u, g), Dirichlet(V, {"left": 0.1}), boundary={"right": edge})
    return V.mesh.num_cells, lambda t: minimize(energy, (V.per_cell(1 + t),)).value


def matrix_per_cell(dtype: torch.dtype) -> Case:
    V = FunctionSpace(triangles(dtype), Lagrange(1))
    eye = 2 * torch.eye(2, dtype=dtype)
    density = lambda x, u, g, K: 0.5 * (g * (K @ g[..., None])[..., 0]).sum(-1) + 0.5 * (u - x[..., 0]) ** 2  # noqa: E731
    energy, shape = Energy(V, density), (V.mesh.num_cells, 2, 2)
    return prod(shape), lambda t: minimize(energy, (V.per_cell(eye + t.unflatten(-1, shape), shape=(2, 2)),)).value


def loop_over_a_grid(dtype: torch.dtype) -> Case:
    V = FunctionSpace(unit_square(3, dtype=dtype), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
    params = lambda t: (V.per_cell(1 + t), 1.0)  # noqa: E731
    assert isinstance(energy.discrete_form(params(torch.zeros(9, dtype=dtype))).integrals[0], GridIntegral)
    return 9, lambda t: minimize(energy, params(t)).value


def function_with_jumps(dtype: torch.dtype) -> Case:
    V = FunctionSpace(mesh := triangles(dtype), Lagrange(1))
    W = FunctionSpace(mesh, Discontinuous(1))
    energy = Energy(V, lambda x, u, g, f, s: laplace(x, u, g) + (1 + s.square().sum(-1)) * u**2 - f * u)
    fields = lambda f: (f, gradient(f))  # noqa: E731
    return W.num_dofs, lambda t: minimize(energy, fields(W.function(t))).value


def both_sides(x: Tensor, u: Any, grad_u: Any, normal: Tensor, size: Tensor, k: Any) -> Tensor:
    """Interior penalty, with a jump that a quartic holds together too."""
    flux = average(k) * (average(grad_u) * normal).sum(-1)
    return flux * jump(u) + 20 * k.plus * k.minus / size * jump(u) ** 2 + jump(u) ** 4


def sides_of_facets(dtype: torch.dtype) -> Case:
    V = FunctionSpace(unit_interval(3, dtype=dtype), Discontinuous(1))
    energy = Energy(V, lambda x, u, g, k: k * laplace(x, u, g) + 0.5 * (u - x[..., 0]) ** 2, interior={"": both_sides})
    return V.mesh.num_cells, lambda t: minimize(energy, (V.per_cell(1 + t),)).value


def nodes(dtype: torch.dtype) -> Case:
    """Of a mesh with terms on its inner facets."""
    mesh = triangles(dtype)

    def solved(t: Tensor) -> Tensor:
        V = FunctionSpace(mesh.with_nodes(mesh.nodes + 0.3 * t.unflatten(-1, (-1, 2))), Discontinuous(1))
        density = lambda x, u, g, k: laplace(x, u, g) + 0.5 * (u - x[..., 0]) ** 2  # noqa: E731
        kinks = lambda x, u, g, n, s, k: 0.1 * s * jump(g).square().sum(-1) + 5 / s * jump(u) ** 2  # noqa: E731
        return minimize(Energy(V, density, interior={"": kinks}), (1.0,)).value

    return mesh.nodes.numel(), solved


# -- constraints -------------------------------------------------------------------------------------------------------


def values_at_nodes_cells_and_points(dtype: torch.dtype) -> Case:
    square = triangles(dtype)
    corner = {"corner": lambda x: x[..., 0] + x[..., 1] < 0.1}
    V = FunctionSpace(square.with_tags(cell_tags={"block": torch.tensor([1])}, node_tags=corner), Lagrange(1))
    few, at = V.dofs("block"), at_points([[1.0, 1.0], [0.0, 1.0]])
    assert not {*few.tolist(), 0} & set(V.dofs(at).tolist())

    def solved(t: Tensor) -> Tensor:
        block, points, node = t.split([len(few), 2, 1], -1)
        return minimize(Energy(V, curve, Dirichlet(V, {"corner": node, "block": block, at: points}))).value

    return len(few) + 3, solved


def periodic(dtype: torch.dtype, sign: int = 1) -> Case:
    V = FunctionSpace(triangles(dtype), Lagrange(1))

    def solved(t: Tensor) -> Tensor:
        held = Dirichlet(V, {"bottom": t[..., :1].expand(*t.shape[:-1], 3)}) if sign == 1 else None
        tied = Periodic(V, {"right": "left"}, sign=sign)
        load = V.per_cell(t[..., 1:])
        density = lambda x, u, g, f: laplace(x, u, g) + u**2 - f * u  # noqa: E731
        return minimize(Energy(V, density, held & tied if held else tied), (load,)).value

    return 1 + V.mesh.num_cells, solved


def antiperiodic(dtype: torch.dtype) -> Case:
    return periodic(dtype, -1)


def ties(dtype: torch.dtype) -> Case:
    """Offsets, beside prescribed masters."""
    V = FunctionSpace(triangles(dtype), Lagrange(1))
    matrix = torch.zeros(2, V.num_dofs, dtype=dtype)
    matrix[0, 0], matrix[0, 5], matrix[1, 1] = 0.5, 0.25, -1.0
    dofs = torch.tensor([4, 7])
    assert V.dofs("left").tolist() == [0, 3, 6]

    def solved(t: Tensor) -> Tensor:
        held = Dirichlet(V, {"left": t[..., :3]})
        return minimize(Energy(V, curve, held & Ties(V, dofs, matrix, t[..., 3:]))).value

    return 5, solved


def mean_of_one_field(dtype: torch.dtype) -> Case:
    """Flow in a box: walls that move, and a pressure without mean."""
    mesh = triangles(dtype)
    W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))

    def stokes(x: Tensor, u: Any, grad_u: Any, nu: Any) -> Tensor:
        (v, p), (grad_v, _) = u, grad_u
        force = x[..., 0] * v[..., 1]
        return nu * grad_v.square().sum((-2, -1)) - p * grad_v.diagonal(dim1=-2, dim2=-1).sum(-1) - force

    def solved(t: Tensor) -> Tensor:
        lid = torch.stack([t[..., :5], 0 * t[..., :5]], -1)
        held = Dirichlet(W, {("boundary", 0): 0.0, ("top", 0): lid}) & MeanZero(W, field=1)
        return solve(Energy(W, stokes, held), (W.fields[0].per_cell(1 + t[..., 5:]),)).value

    return 5 + mesh.num_cells, solved


def free_body(dtype: torch.dtype) -> Case:
    V = FunctionSpace(triangles(dtype), Lagrange(1), components=2)

    def elastic(x: Tensor, u: Tensor, grad_u: Tensor, k: Any) -> Tensor:
        strain = 0.5 * (grad_u + grad_u.mT)
        return k * strain.square().sum((-2, -1))

    pull = lambda x, u, n, k: -((x[..., 1] - 0.5) ** 2) * u[..., 0] * n[..., 0]  # noqa: E731
    energy = Energy(V, elastic, RigidMotionFree(V), boundary={"boundary": pull})
    return V.mesh.num_cells, lambda t: minimize(energy, (V.per_cell(1 + t),)).value


CASES = [
    scalar_per_cell,
    matrix_per_cell,
    loop_over_a_grid,
    function_with_jumps,
    sides_of_facets,
    values_at_nodes_cells_and_points,
    periodic,
    antiperiodic,
    ties,
    mean_of_one_field,
    free_body,
]


@pytest.fixture(autouse=True)
def _small_grids_are_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "GRID_CELLS", 9)


def data(size: int, *batch: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 0.5 * torch.rand(*batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def figure(solved: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Some number of the solution."""

    def number(t: Tensor) -> Tensor:
        u = solved(t).flatten(t.ndim - 1)
        return (u * torch.arange(u.shape[-1]).to(u).cos()).sum(-1) + u.square().sum(-1)

    return number


@pytest.mark.parametrize("case", [*CASES, nodes])
def test_derivatives_to_second_order(case: Callable[[torch.dtype], Case]) -> None:
    """Of a function and of its gradient, against central differences along a direction."""
    size, solved = case(torch.float64)
    f, d, h = figure(solved), data(size, seed=1), 1e-4

    def value_and_slope(t: Tensor, second: bool = False) -> tuple[Tensor, Tensor]:
        value = f(t.requires_grad_())
        return value, torch.autograd.grad(value, t, create_graph=second)[0]

    t = data(size)
    slope = value_and_slope(t, True)[1]
    product = torch.autograd.grad(slope @ d, t)[0]
    ahead, behind = (value_and_slope(t.detach() + step * d) for step in (h, -h))
    for found, a, b in zip((slope @ d, product), ahead, behind, strict=True):
        difference = (a - b) / (2 * h)
        assert float((found - difference).detach().norm()) < 1e-6 * float(difference.detach().norm())


@pytest.mark.parametrize("case", CASES)
def test_batches_are_their_items(case: Callable[[torch.dtype], Case]) -> None:
    """Values, and gradients through the whole batch at once."""
    size, solved = case(torch.float64)
    t = data(size, 2, 1).requires_grad_()
    together = figure(solved)(t)
    alone = torch.stack([figure(solved)(item) for item in t[:, 0]])[:, None]
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    slopes = (torch.autograd.grad(f.sum(), t)[0] for f in (together, alone))
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_transformations_give_the_same(case: Callable[[torch.dtype], Case]) -> None:
    """Reverse mode, forward over reverse, and a batch that `vmap` makes."""
    size, solved = case(torch.float64)
    f, several = figure(solved), data(size, 2)
    t, v = several.clone().requires_grad_(), data(size, seed=1)
    slopes = torch.autograd.grad(f(t).sum(), t, create_graph=True)[0]
    product = torch.autograd.grad(slopes[0] @ v, t)[0][0]
    once, twice = torch.func.jvp(grad(f), (several[0],), (v,))[:2]
    torch.testing.assert_close(once, slopes[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(twice, product, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(vmap(grad(f))(several), slopes, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_single_precision(case: Callable[[torch.dtype], Case]) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        size, solved = case(dtype)
        t = data(size, dtype=torch.float32).to(dtype).requires_grad_()
        value = figure(solved)(t)
        found.append((value.detach(), torch.autograd.grad(value, t)[0]))
        assert value.dtype == dtype
    for single, double in zip(*found, strict=True):
        assert 0 < float((single - double).norm()) < 2e-3 * float(double.norm())
