"""Problems are told by their number, scaled without changing their solution, and refused where they make no sense."""

from typing import Any

import pytest
import torch

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
from solvers import DiffusionProblems, ExponentialSeries, GaussianField, minimize
from tests.problems import conduction

V = FunctionSpace(unit_square(8), Lagrange(1))
LOADED = DiffusionProblems(V, ExponentialSeries(), GaussianField(modes=4))


@pytest.mark.parametrize("problems", [DiffusionProblems(V, ExponentialSeries()), LOADED])
def test_the_same_number_is_the_same_problem(problems):
    images, params = problems(0, 6)
    later, these = problems(2, 3)
    torch.testing.assert_close(images[2:5], later)
    assert torch.equal(later, problems(2, 3)[0])
    for p, q in zip(params, these, strict=True):
        torch.testing.assert_close(p.values[2:5], q.values, rtol=1e-12, atol=0)
    assert not torch.equal(images, DiffusionProblems(V, problems.family, problems.load, seed=7)(0, 6)[0])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images[:, 0].flatten(1).mean(-1), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(images[:, 0].double(), V.to_grid(params[0].values.log()), atol=1e-5, rtol=1e-6)


def test_scaling_leaves_the_solution_as_it_is():
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    generator = torch.Generator().manual_seed(0)
    nu, f = (torch.rand(3, V.num_dofs, generator=generator, dtype=V.dtype) + 0.1 for _ in range(2))
    nu = 100 * nu
    params: Any = LOADED.of(nu, f)[1]
    torch.testing.assert_close(params[0].values.log().mean(-1), torch.zeros(3, dtype=V.dtype), atol=1e-12, rtol=0)
    u, v = (minimize(energy, p).value for p in ((V.function(nu), V.function(f)), params))
    torch.testing.assert_close(u, v)


def test_what_cannot_be_a_problem():
    problems, nu = DiffusionProblems(V, ExponentialSeries()), torch.ones(2, V.num_dofs, dtype=V.dtype)
    for value in (0.0, -1.0, torch.nan, torch.inf):
        bad = nu.clone()
        bad[1, 5] = value
        with pytest.raises(ValueError, match=r"ν must be positive and finite; it is .* at node 5 of item 1"):
            problems.of(bad)
    with pytest.raises(ValueError, match=r"`ν` needs shape \(b, 81\), nodal values; got \(2, 80\)"):
        problems.of(nu[:, 1:])
    with pytest.raises(ValueError, match="no load; leave f out"):
        problems.of(nu, nu)
    with pytest.raises(ValueError, match="a load; give f"):
        LOADED.of(nu)
    with pytest.raises(ValueError, match="f holds values that are not finite"):
        LOADED.of(nu, nu / 0)
