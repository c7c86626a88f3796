"""The public fit and layer: shapes, derivatives, idempotence, weights and masks, errors."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fem import ConvergenceError, Status
from splines import PiecewisePolynomial, fit_piecewise
from tests.splines.reference import projector

ROOT = Path(__file__).parents[2]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["exact", "merge"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes(method: str, batch: tuple[int, ...]) -> None:
    fit = fit_piecewise(random(*batch, 30), pieces=4, degree=2, method=method)
    assert fit.values.shape == (*batch, 30)
    assert fit.breakpoints.shape == (*batch, 5)
    assert fit.coefficients.shape == (*batch, 4, 3)
    assert fit.error.shape == fit.num_pieces.shape == batch
    assert fit.breakpoints.dtype == torch.int64
    vector = fit_piecewise(random(*batch, 30, 2), pieces=4, degree=2, method=method, vector=True)
    assert vector.values.shape == (*batch, 30, 2)
    assert vector.coefficients.shape == (*batch, 4, 3, 2)
    assert vector.error.shape == batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows(dtype: torch.dtype) -> None:
    x = random(2, 50).to(dtype).requires_grad_()
    fit = fit_piecewise(x, pieces=3)
    fit.values.sum().backward()
    assert fit.values.dtype == fit.coefficients.dtype == fit.error.dtype == x.grad.dtype == dtype


def test_coefficients_belong_to_the_orthonormal_basis() -> None:
    from splines.orthonormal import tabulate_samples

    x = random(60) + 5
    fit = fit_piecewise(x, pieces=3, degree=2)
    for j, (a, b) in enumerate(zip(fit.breakpoints[:-1].tolist(), fit.breakpoints[1:].tolist(), strict=True)):
        Q = tabulate_samples(b - a, 2).value[0]
        assert (Q @ fit.coefficients[j] - fit.values[a:b]).abs().max() < 1e-13
        assert (Q.T @ x[a:b] - fit.coefficients[j]).abs().max() < 1e-12
    assert fit.error.item() == pytest.approx((x - fit.values).square().sum().item(), rel=1e-13)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_projecting_twice_changes_nothing(degree: int) -> None:
    x = random(4, 80) + 1e6
    once = fit_piecewise(x, pieces=5, degree=degree).values
    twice = fit_piecewise(once, pieces=5, degree=degree).values
    assert ((twice - once) / once).abs().max() < 1e-12
    small = fit_piecewise(random(4, 80), pieces=5, degree=degree).values
    assert (fit_piecewise(small, pieces=5, degree=degree).values - small).abs().max() < 1e-12


@pytest.mark.parametrize("degree", [0, 2])
def test_more_pieces_never_leave_more(degree: int) -> None:
    x = random(3, 60)
    errors = torch.stack([fit_piecewise(x, pieces=k, degree=degree).error for k in range(1, 61 // (degree + 1))])
    assert (errors.diff(dim=0) <= 1e-12).all()
    assert errors[-1].max() < 1e-20 or degree > 0


@pytest.mark.parametrize("options", [{"degree": 0}, {"degree": 2}, {"degree": (0, 1, 2)}, {"method": "merge"}])
def test_gradients(options: dict[str, Any]) -> None:
    x = random(2, 18).requires_grad_()
    f = lambda x: (lambda fit: (fit.values, fit.coefficients, fit.error))(fit_piecewise(x, pieces=3, **options))  # noqa: E731
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x, fast_mode=True)


@pytest.mark.parametrize("degree", [0, 1, 4])
def test_jacobian_is_the_projector(degree: int) -> None:
    x = random(40)
    layer = PiecewisePolynomial(pieces=3, degree=degree)
    J = torch.autograd.functional.jacobian(layer, x)
    breaks = fit_piecewise(x, pieces=3, degree=degree).breakpoints.tolist()
    expected = torch.block_diag(*[projector(b - a, degree) for a, b in itertools.pairwise(breaks)])
    assert (J - expected).abs().max() < 1e-12
    assert (J.sum(1) - 1).abs().max() < 1e-12


def test_layer_in_a_network() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(5, 30), PiecewisePolynomial(pieces=3, degree=1)).double()
    network(random(4, 5)).square().sum().backward()
    assert network[0].get_parameter("weight").grad.isfinite().all()
    assert "pieces=3" in repr(network)
    assert "vector" not in repr(network)


def test_samples_without_weight_play_no_part() -> None:
    x = random(2, 50).requires_grad_()
    mask = torch.rand(2, 50, generator=torch.Generator().manual_seed(0)) > 0.3
    spoiled = torch.where(mask, x, torch.nan)
    fit = fit_piecewise(spoiled, pieces=3, mask=mask)
    other = fit_piecewise(torch.where(mask, x, 1e3), pieces=3, weights=mask.double())
    assert fit.values.isfinite().all()
    assert torch.equal(fit.breakpoints, other.breakpoints)
    assert (fit.values - other.values).abs().max() < 1e-9
    (g,) = torch.autograd.grad(fit.values.sum(), x)
    assert (g[~mask] == 0).all()
    assert g.isfinite().all()


def test_whole_weights_repeat_samples_of_constants() -> None:
    x, counts = random(20), torch.randint(1, 4, (20,), generator=torch.Generator().manual_seed(0))
    fit = fit_piecewise(x, pieces=4, degree=0, weights=counts.double())
    repeated = fit_piecewise(x.repeat_interleave(counts), pieces=4, degree=0)
    assert fit.error.item() == pytest.approx(repeated.error.item(), rel=1e-12)
    assert (fit.values.repeat_interleave(counts) - repeated.values).abs().max() < 1e-12


def test_a_penalty_and_a_limit_choose_the_number() -> None:
    level = torch.tensor([0.0, 3.0, -2.0, 1.0], dtype=torch.float64).repeat_interleave(50)
    x = level + 0.3 * random(200)
    choices: tuple[dict[str, Any], ...] = ({"penalty": 2 * 0.09 * 2 * 5.3}, {"max_error": 200 * 0.09 * 1.3})
    for options in choices:
        for method in ("exact", "merge"):
            fit = fit_piecewise(x, degree=0, method=method, **options)
            assert fit.breakpoints.tolist() == [0, 50, 100, 150, 200]


def test_invariance() -> None:
    """Of the projection under affine maps, reversal and common translations of the samples."""
    x = random(70)
    fit = fit_piecewise(x, pieces=4, degree=2)
    assert (fit_piecewise(3 * x - 7, pieces=4, degree=2).values - (3 * fit.values - 7)).abs().max() < 1e-12
    assert (fit_piecewise(x.flip(0), pieces=4, degree=2).values - fit.values.flip(0)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (random(5), {"pieces": 6, "degree": 0}, "6 pieces of at least 1 samples .* the signal has 5"),
        (random(9), {"pieces": 3, "degree": 3}, "3 pieces of at least 4 samples"),
        (random(9), {"pieces": 0}, r"`fit_piecewise\(pieces=...\)` must be a positive whole number; got 0"),
        (random(9), {"pieces": 2, "degree": 6}, "must be 0 to 5"),
        (random(9), {"pieces": 2, "degree": (1, 1, 1)}, "names 3 degrees for pieces=2"),
        (random(9), {}, "got none of them"),
        (random(9), {"pieces": 2, "penalty": 1.0}, "got pieces=2 and penalty=1.0"),
        (random(9), {"penalty": -1.0}, "at least 0; got -1.0"),
        (random(9), {"pieces": 2, "method": "fast"}, 'must be "exact" or "merge"; got \'fast\''),
        (random(9), {"pieces": 2, "min_size": 1}, "must exceed the degree"),
        (torch.empty(0, dtype=torch.float64), {"pieces": 1}, r"with samples; got shape \(0,\)"),
        (torch.tensor([1.0, 2.0, torch.nan, 4.0, torch.inf]), {"pieces": 2}, "sample 2 is nan, the first of 2"),
        (random(9), {"pieces": 2, "weights": -torch.ones(9)}, "at least 0; got -1.0"),
        (random(9), {"pieces": 2, "weights": torch.ones(8)}, r"must have the shape \(9,\)"),
        (random(9), {"pieces": 2, "weights": torch.ones(9).requires_grad_()}, "nothing differentiates in `weights`"),
    ],
)
def test_errors(x: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_piecewise(x, **options)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a floating-point tensor; got a tensor of torch.int64"):
        fit_piecewise(torch.arange(9), pieces=2)


@pytest.mark.parametrize("degree", [0, 1])
def test_errors_that_overflow_are_a_failure_of_their_signal_alone(degree: int) -> None:
    x = random(3, 1, 40)
    x[1] *= 1e200
    with pytest.raises(
        ConvergenceError, match=r"`fit_piecewise\(x\)`: 1 of 3 batch items \(the first is 1\)"
    ) as caught:
        fit_piecewise(x, pieces=3, degree=degree)
    fit = fit_piecewise(x, pieces=3, degree=degree, throw=False)
    for found in (fit, caught.value.solution):
        assert found.status == ((Status.CONVERGED,), (Status.NOT_FINITE,), (Status.CONVERGED,))
    assert torch.equal(fit.values[::2], fit_piecewise(x[::2], pieces=3, degree=degree).values)
    x[1, 0, 5] = torch.nan
    unchecked = fit_piecewise(x, pieces=3, degree=degree, check_finite=False)
    assert unchecked.status == fit.status


def test_fits_print_in_a_line() -> None:
    x = random(2, 3, 40)
    assert repr(fit_piecewise(x, pieces=3)).startswith(
        "PiecewiseFit(CONVERGED, 2 × 3 signals of 40 samples; degree 1, 3 pieces, error ≤ "
    )
    single = fit_piecewise(x[0].mT, pieces=2, degree=(0, 2), vector=True)
    assert repr(single).startswith(
        "PiecewiseFit(CONVERGED, a signal of 40 samples of 3 components; degree 2, 2 pieces, "
    )
    assert single.status is Status.CONVERGED
    assert " to " in repr(fit_piecewise(torch.stack([x[0, 0], 0 * x[0, 0]]), penalty=1.0))


MEMORY = """
import torch
from examples.benchmarks.timing import peak_memory
from splines import fit_piecewise
torch.set_num_threads(2)
x = torch.randn(10**6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
fit_piecewise(x[:1000], pieces=3, degree={degree}, method="merge").values.sum().backward()
before = peak_memory()
fit_piecewise(x, pieces=100, degree={degree}, method="merge").values.square().sum().backward()
print((peak_memory() - before) / 10**6 / ({degree} + 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_memory(degree: int) -> None:
    """Bytes per sample and coefficient of forward and backward together."""
    code = MEMORY.format(degree=degree)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40


@pytest.mark.parametrize("make", [fit_piecewise, PiecewisePolynomial])
def test_unknown_options_are_answered_with_the_known(make) -> None:
    given = (torch.rand(20),) if make is fit_piecewise else ()
    with pytest.raises(TypeError, match=r"has no option `metod`. Did you mean 'method'\? It has .*degree, method, pen"):
        make(*given, pieces=2, metod="merge")
