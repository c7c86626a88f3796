"""Break points: the optimum against brute force, compiled and in PyTorch; what merging promises."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fem import compilation
from splines import compiled
from splines.partition import Wish, errors_of, partition
from tests.splines.reference import best_errors, error_of

INFINITE = float("inf")


def signal(n: int, channels: int, seed: int, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(4, channels, generator=generator, dtype=torch.float64).repeat_interleave(n // 4 + 1, 0)[:n]
    return 2 * level + torch.randn(n, channels, generator=generator, dtype=torch.float64) + offset


def weights_of(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.where(torch.rand(n, generator=generator) < 0.2, 0.0, w)


def check_exact(degree: int, seed: int, channels: int = 1, weighted: bool = False) -> None:
    generator = torch.Generator().manual_seed(100 + seed)
    least = degree + 1 + int(torch.randint(0, 2, (), generator=generator))
    n = int(torch.randint(4 * least, 5 * least + 8, (), generator=generator))
    k = 1 + int(torch.randint(0, 3, (), generator=generator))
    x, w = signal(n, channels, seed, 1e3 * (seed % 2)), weights_of(n, seed) if weighted else None
    if w is not None and (w > 0).sum() < k * least:
        return
    expected = best_errors(x, (degree,) * k, (least,) * k, w)
    breaks = partition(x[None], None if w is None else w[None], Wish((degree,) * k, (least,) * k), "exact")[0]
    found = error_of(x, breaks, (degree,), w)
    assert found == pytest.approx(min(expected), rel=1e-9, abs=1e-10)
    held = torch.ones(n) if w is None else (w > 0).float()
    assert all(held[a:b].sum() >= least for a, b in itertools.pairwise(breaks) if b > a)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("degree", range(4))
def test_exact_is_the_optimum(degree: int) -> None:
    for seed in range(5):
        check_exact(degree, seed)
    check_exact(degree, 5, channels=2)
    check_exact(degree, 6, weighted=True)


@pytest.mark.slow
@pytest.mark.parametrize("degree", range(4))
def test_exact_is_the_optimum_of_many(degree: int) -> None:
    """500 small signals."""
    for seed in range(125):
        check_exact(degree, seed, channels=1 + (seed % 5 == 4), weighted=seed % 3 == 2)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_penalty(degree: int, weighted: bool) -> None:
    for seed in range(4):
        x, w = signal(24, 1, seed), weights_of(24, seed) if weighted else None
        most = int((24 if w is None else (w > 0).sum()) // (degree + 1))
        errors = best_errors(x, (degree,) * most, (degree + 1,) * most, w)
        expected = min(e + 1.5 * (q + 1) for q, e in enumerate(errors))
        wish = Wish((degree,), (degree + 1,), penalty=1.5)
        breaks = partition(x[None], None if w is None else w[None], wish, "exact")[0]
        count = int((breaks.diff() > 0).sum())
        assert error_of(x, breaks, (degree,), w) + 1.5 * count == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("both_ways")
def test_a_degree_for_each_piece() -> None:
    for seed in range(3):
        x, degrees = signal(20, 1, seed), (0, 2, 1)
        least = tuple(d + 1 for d in degrees)
        breaks = partition(x[None], None, Wish(degrees, least), "exact")[0]
        assert error_of(x, breaks, degrees) == pytest.approx(best_errors(x, degrees, least)[-1], rel=1e-10)
        merged = partition(x[None], None, Wish(degrees, least), "merge")[0]
        assert (merged.diff() >= torch.tensor(least)).all()


@pytest.mark.usefixtures("both_ways")
def test_the_fewest_pieces_within_a_limit() -> None:
    x = torch.stack([signal(30, 1, seed) for seed in range(3)])
    errors = torch.tensor([best_errors(one, (1,) * 12, (2,) * 12) for one in x])
    breaks = partition(x, None, Wish((1,), (2,), limit=12.0), "exact")
    for one, row in zip(errors, breaks, strict=True):
        assert int((row.diff() > 0).sum()) == 1 + int((one <= 12.0).int().argmax())
    merged = partition(x, None, Wish((1,), (2,), limit=12.0), "merge")
    assert (errors_of(x, None, merged, 1) <= 12.0).all()
    with pytest.raises(ValueError, match="signal 0 cannot be brought within `max_error` = 1e-09"):
        partition(x, None, Wish((1,), (7,), limit=1e-9), "exact")


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_are_items(degree: int, weighted: bool, both_ways: None) -> None:
    x = torch.stack([signal(60, 2, seed) for seed in range(4)])
    w = torch.stack([weights_of(60, seed) for seed in range(4)]) if weighted else None
    for method in ("exact", "merge"):
        wish = Wish((degree,) * 4, (degree + 1,) * 4)
        together = partition(x, w, wish, method)
        for i in range(4):
            assert torch.equal(
                together[i], partition(x[i : i + 1], None if w is None else w[i : i + 1], wish, method)[0]
            )


def test_against_ruptures() -> None:
    ruptures = pytest.importorskip("ruptures")
    x = signal(2000, 1, 3)
    breaks = partition(x[None], None, Wish((0,) * 10, (1,) * 10), "exact")[0]
    theirs = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1).fit(x.numpy()).predict(9)
    assert error_of(x, breaks, (0,)) == pytest.approx(error_of(x, torch.tensor([0, *theirs]), (0,)), rel=1e-12)


@pytest.mark.slow
def test_against_ruptures_on_a_long_signal() -> None:
    ruptures = pytest.importorskip("ruptures")
    x = signal(10_000, 1, 3)
    breaks = partition(x[None], None, Wish((0,) * 10, (1,) * 10), "exact")[0]
    theirs = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1).fit(x.numpy()).predict(9)
    assert error_of(x, breaks, (0,)) == pytest.approx(error_of(x, torch.tensor([0, *theirs]), (0,)), rel=1e-12)


def binary_segmentation(x: np.ndarray, k: int) -> list[int]:
    """By prefix sums of the samples and of their squares, constants only."""
    sums = np.concatenate([[0], np.cumsum(x)])
    pieces, breaks = {(0, len(x))}, [0, len(x)]
    while len(breaks) <= k:
        gains = []
        for a, b in pieces:
            s = np.arange(a + 1, b)
            if len(s):
                left, right, whole = sums[s] - sums[a], sums[b] - sums[s], sums[b] - sums[a]
                gain = left**2 / (s - a) + right**2 / (b - s) - whole**2 / (b - a)
                gains.append((gain.max(), int(s[gain.argmax()]), a, b))
        _, s, a, b = max(gains)
        pieces = (pieces - {(a, b)}) | {(a, s), (s, b)}
        breaks.append(s)
    return sorted(breaks)


@pytest.mark.parametrize("seed", range(6))
def test_merging_is_never_worse_than_binary_segmentation(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, dtype=torch.float64, generator=generator).repeat_interleave(50)
    x = (x + (0.3 + seed % 3) * torch.randn(400, dtype=torch.float64, generator=generator))[:, None]
    breaks = partition(x[None], None, Wish((0,) * 8, (1,) * 8), "merge")[0]
    other = torch.tensor(binary_segmentation(x[:, 0].numpy(), 8))
    assert error_of(x, breaks, (0,)) <= error_of(x, other, (0,)) * (1 + 1e-12)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_merging_is_near_the_optimum(degree: int, weighted: bool, both_ways: None) -> None:
    """Pieces that stand out of the noise are found; the bound is what the docstring says of the merging stage."""
    x, w = signal(200, 1, degree), weights_of(200, degree)[None] if weighted else None
    wish = Wish((degree,) * 4, (degree + 1,) * 4)
    best, merged = (errors_of(x[None], w, partition(x[None], w, wish, m), degree) for m in ("exact", "merge"))
    assert (best <= merged * (1 + 1e-10)).all()
    assert (merged <= 1.1 * best).all()


def test_merging_with_many_pieces() -> None:
    """Beyond the number of candidates of which all pairs are looked at."""
    x = signal(4000, 1, 1)
    x = x + 3 * torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).repeat_interleave(
        8, 0
    )
    wish = Wish((0,) * 450, (1,) * 450)
    best, merged = (errors_of(x[None], None, partition(x[None], None, wish, m), 0) for m in ("exact", "merge"))
    assert (best <= merged).all()
    assert (merged <= 1.2 * best).all()
    breaks = partition(x[None], None, Wish((0,), (1,), penalty=12.0), "merge")
    optimum = partition(x[None], None, Wish((0,), (1,), penalty=12.0), "exact")
    value = [errors_of(x[None], None, b, 0) + 12 * (b.diff() > 0).sum() for b in (breaks, optimum)]
    assert (value[1] <= value[0] * (1 + 1e-12)).all()
    assert (value[0] <= 1.1 * value[1]).all()


def test_constant_signals_and_ties(both_ways: None) -> None:
    for x in (
        torch.full((1, 30, 1), 0.1, dtype=torch.float64),
        torch.arange(30.0).double().remainder(2)[None, :, None],
    ):
        for method in ("exact", "merge"):
            first = partition(x, None, Wish((0,) * 4, (1,) * 4), method)
            assert torch.equal(first, partition(x.clone(), None, Wish((0,) * 4, (1,) * 4), method))
            assert first[0, 0] == 0
            assert first[0, -1] == 30
            assert (first.diff() >= 0).all()


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_offsets_cost_no_digits(degree: int, both_ways: None) -> None:
    x = signal(150, 1, degree)
    moved = (x + 2.0**20) - 2.0**20  # what is left of the digits
    for method in ("exact", "merge"):
        wish = Wish((degree,) * 4, (degree + 1,) * 4)
        assert torch.equal(
            partition(moved[None] + 2.0**20, None, wish, method), partition(moved[None], None, wish, method)
        )


def test_too_few_observed_samples(both_ways: None) -> None:
    w = torch.zeros(1, 20, dtype=torch.float64)
    w[0, :1] = 1
    for method in ("exact", "merge"):
        with pytest.raises(ValueError, match="leaves each piece the 2 or more observed samples"):
            partition(signal(20, 1, 0)[None], w, Wish((1,) * 3, (2,) * 3), method)


def test_code_is_there_for_each_degree() -> None:
    from fem.support.native import find_compiler

    if find_compiler() is None:
        pytest.skip("needs a C compiler")
    assert all(compiled.available(kind, d) for kind in ("exact", "merging") for d in (0, 5))
    with compilation("never"):
        assert not compiled.available("exact", 1)
