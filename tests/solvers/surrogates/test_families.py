"""Fields of both families: values by the formula, positive, in order, on any points."""

from concurrent.futures import ThreadPoolExecutor
from math import cos, exp, pi, sin

import pytest
import torch

from fem import FunctionSpace, Lagrange, unit_square
from solvers import ExponentialSeries, GaussianField


def test_the_series_is_the_formula():
    family, omega = ExponentialSeries(), torch.tensor([-0.26, -0.77, -0.37, -0.92], dtype=torch.float64)
    x, y = 0.3, 0.8
    total = 0.0
    for a, w in zip((1.72, 4.05, 6.85, 9.82), omega.tolist(), strict=True):
        xi, eta = (0.5 * a * cos(a * t) + sin(a * t) for t in (x, y))
        total += w * xi * eta / (1 + 0.25 * a**2)
    found = family(omega, torch.tensor([x, y], dtype=torch.float64))
    assert float(found) == pytest.approx(exp(total), rel=1e-13)


def test_the_series_has_the_contrast_it_is_known_for():
    x = FunctionSpace(unit_square(64), Lagrange(1)).dof_coordinates
    family = ExponentialSeries()
    log = family.log(family.sample(256), x)
    contrast = (log.amax(1) - log.amin(1)) / torch.log(torch.tensor(10.0))
    assert 2.7 < float(contrast.median()) < 3.3
    assert float(contrast.max()) < 5.7


@pytest.mark.parametrize("family", [ExponentialSeries(), GaussianField(modes=4)])
def test_coefficients_are_told_by_their_number(family):
    whole = family.sample(10, seed=3)
    assert torch.equal(torch.cat([family.sample(4, seed=3), family.sample(6, start=4, seed=3)]), whole)
    assert not torch.equal(family.sample(10, seed=4), whole)
    assert whole.shape == (10, family.size)
    assert family.sample(0).shape == (0, family.size)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gaussian_fields_have_their_mean_and_deviation(dim):
    family = GaussianField(dim=dim, deviation=0.7, modes=5)
    x = torch.rand(200, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = family.log(family.sample(2000), x)
    assert float(g.mean().abs()) < 0.05
    assert float(g.square().mean().sqrt()) == pytest.approx(0.7, rel=0.05)
    k = torch.zeros(family.size, dtype=torch.float64)
    k[0] = 1.0  # the slowest wave of the last axis
    ratio = family.log(k, x) / torch.cos(pi * x[:, -1])
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_fields_take_batches_dtypes_and_grids_of_points():
    family, x = ExponentialSeries(), torch.rand(3, 5, 2)
    omega = family.sample(6).view(2, 3, 4)
    found = family(omega, x)
    assert found.shape == (2, 3, 3, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[1, 2], family(omega[1, 2], x))
    with pytest.raises(ValueError, match=r"has 4 coefficients; got ω of shape \(2, 3\)"):
        family(torch.zeros(2, 3), x)


@pytest.mark.parametrize("family", [ExponentialSeries(), GaussianField(modes=4)])
def test_threads_do_not_disturb_each_other(family):
    alone = [family.sample(4, 4 * i, seed=3) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            drawn = list(pool.map(lambda i: family.sample(4, 4 * i, seed=3), range(64)))
            assert all(map(torch.equal, alone, drawn))
