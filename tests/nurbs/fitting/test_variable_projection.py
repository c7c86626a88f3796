"""The reduced functional against the dense problem: value, gradient and Kaufman's matrix."""

import pytest
import torch
from torch import Tensor

from fem.reference.bspline import basis_matrix, uniform_knots
from nurbs.fitting.alternation import as_cloud
from nurbs.fitting.variable_projection import ReducedProblem

DEGREE, SHAPE, SIZES = (3, 2), (6, 4), (12, 9)


def problem(knots: bool, weights: bool, cloud: bool = False) -> tuple[ReducedProblem, Tensor, Tensor]:
    torch.manual_seed(0)
    t = [uniform_knots(n, p).expand(2, -1) for n, p in zip(SHAPE, DEGREE, strict=True)]
    u = tuple(torch.rand(2, q).double().sort().values for q in SIZES)
    w = torch.rand(2, 24).double() + 0.5 if weights else None
    points, parameters = torch.randn(2, 108, 3).double(), as_cloud(u) if cloud else u
    reduced = ReducedProblem(points, parameters, t, DEGREE, w, knots, weights, 1e-4)
    x = reduced.start()[0]
    return reduced, x * (1 + 0.2 * torch.rand_like(x)), torch.arange(2)


def columns(reduced: ReducedProblem, x: Tensor) -> Tensor:
    """Φ, dense and differentiable."""
    knots, _, w = reduced.unpack(x, torch.arange(2))
    rows = [basis_matrix(t, p, u)[:, 0] for t, p, u in zip(knots, DEGREE, reduced.parameters, strict=True)]
    Phi = torch.einsum("bqi,bsj->bqsij", *rows).flatten(1, 2).flatten(2)
    return Phi if w is None else w[:, None] * Phi / (Phi @ w[..., None])


def value(reduced: ReducedProblem, x: Tensor) -> Tensor:
    Phi = columns(reduced, x)
    return 0.5 * (reduced.points - Phi @ torch.linalg.lstsq(Phi, reduced.points).solution).square().sum((1, 2))


@pytest.mark.parametrize(("knots", "weights"), [(True, False), (False, True), (True, True)])
def test_value_gradient_and_matrix(knots: bool, weights: bool) -> None:
    reduced, x, items = problem(knots, weights)
    f, gradient, H = reduced(x, items)
    torch.testing.assert_close(f, value(reduced, x))
    exact = torch.autograd.functional.jacobian(lambda x: value(reduced, x).sum(), x)
    torch.testing.assert_close(gradient, exact, rtol=1e-8, atol=1e-10)
    Phi = columns(reduced, x)
    P = torch.linalg.lstsq(Phi, reduced.points).solution
    V = torch.randn(4, *x.shape).double()
    D = torch.stack([torch.func.jvp(lambda x: columns(reduced, x) @ P, (x,), (v,))[1] for v in V], 1)
    normal = D - torch.einsum("bqn,bnm,bkmd->bkqd", Phi, torch.linalg.pinv(Phi), D)
    torch.testing.assert_close(
        torch.einsum("kbi,bij,lbj->bkl", V, H, V), torch.einsum("bkqd,blqd->bkl", normal, normal), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize(("knots", "weights"), [(True, False), (False, True), (True, True)])
def test_a_grid_is_a_cloud(knots: bool, weights: bool) -> None:
    for one, other in zip(*(p(x, i) for p, x, i in (problem(knots, weights, c) for c in (False, True))), strict=True):
        torch.testing.assert_close(one, other)


def test_infinite_where_the_data_do_not_determine_the_control_points() -> None:
    """A span without data under a function of its own: not a number would spread, infinity is refused."""
    reduced, x, items = problem(True, False)
    x[0, :3] = torch.tensor([1.0, 0.0, 0.0])
    x[0, 0] = 1e6
    f, gradient, H = reduced(x, items)
    assert f.isfinite().tolist() == [False, True]
    assert gradient.isfinite().all()
    assert H.isfinite().all()
