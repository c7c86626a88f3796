"""Piecewise polynomials: searches for break points beside ruptures and binary segmentation, in the same run.

Exact constants beside `KernelCPD` (its exact search, in C); exact straight lines beside `Dynp` with the same cost;
merging on long signals beside binary segmentation of constants by prefix sums in NumPy, and beside the optimum with a
penalty on a signal a tenth as long; a batch beside single fits one after another, ours and ruptures'. ruptures searches
with `min_size=1, jump=1`, or 2 for lines. Claims: where both are exact the errors agree; merging is never worse than
binary segmentation and within 1.1 of the optimum; and the ratios printed, which depend on the machine.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.benchmarks.timing import interleaved, peer, seconds, table, use_threads
from examples.command_line import run, write
from splines import fit_piecewise

HEAD = ("task", "by", "median", "over ritz", "squared error")


def main(
    constants: int = 10_000,
    lines: int = 2_000,
    long: int = 1_000_000,
    pieces: int = 100,
    items: int = 256,
    slow_lines: int = 200,
    repeats: int = 3,
    threads: int = 0,
    out: str | None = None,
) -> dict[str, float]:
    """Search in turns, and compare.

    Args:
        constants: samples of the signal of 10 constant pieces
        lines: samples of the signal of 10 straight pieces
        long: samples of the long signal that is merged
        pieces: pieces of the long signal
        items: signals of 1000 samples in the batch
        slow_lines: samples up to which ruptures' `Dynp` is run, as it takes minutes for more
        repeats: searches of each kind
        threads: threads of PyTorch; 0 for all cores
        out: folder for the table; nothing is written without it

    Returns:
        seconds and squared errors, such as "constants ritz" and "constants ritz error", for "constants", "lines", "few
        lines", "merge", "constants merge", "tenth", "batch".
    """
    use_threads(threads)
    ruptures = peer("ruptures")
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []

    def compare(task: str, text: str, calls: dict[str, Callable[[Any], float]]) -> None:
        found = interleaved(calls, repeats)
        for name, runs in found.items():
            ratio = runs.seconds / found["ritz"].seconds
            figures[f"{task} {name}"], figures[f"{task} {name} error"] = runs.seconds, runs.result
            rows.append((text, name, seconds(runs.seconds), f"{ratio:.3g}", f"{runs.result:.6g}"))

    def ours(x: Tensor, method: str = "exact", **options: Any) -> Callable[[Any], float]:
        return lambda clock: float(fit_piecewise(x, method=method, **options).error.sum())

    x = signal(constants, 10, 0)
    calls = {"ritz": ours(x, pieces=10, degree=0)}
    if ruptures:
        search = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1)
        calls["KernelCPD"] = lambda clock: errors(x, search.fit(x[:, None].numpy()).predict(9), 0)
    compare("constants", f"exact, constants, n = {constants}, k = 10", calls)

    x = signal(lines, 10, 1)
    compare("lines", f"exact, lines, n = {lines}, k = 10", {"ritz": ours(x, pieces=10, degree=1)})
    if ruptures:
        y = signal(slow_lines, 4, 1)
        design = np.column_stack([y.numpy(), np.ones(len(y)), np.arange(len(y))])
        compare(
            "few lines",
            f"exact, lines, n = {slow_lines}, k = 4",
            {
                "ritz": ours(y, pieces=4, degree=1),
                "Dynp": lambda clock: errors(
                    y, ruptures.Dynp(model="linear", min_size=2, jump=1).fit(design).predict(3), 1
                ),
            },
        )

    x = signal(long, pieces, 1)
    compare("merge", f"merge, lines, n = {long}, k = {pieces}", {"ritz": ours(x, "merge", pieces=pieces, degree=1)})
    x = signal(long, pieces, 0)
    calls = {
        "ritz": ours(x, "merge", pieces=pieces, degree=0),
        "binary segmentation": lambda clock: errors(x, binary_segmentation(x.numpy(), pieces), 0),
    }
    compare("constants merge", f"merge, constants, n = {long}, k = {pieces}", calls)

    x = signal(long // 10, pieces, 1)
    penalty = 6 * float(np.log(len(x)))
    count = int(fit_piecewise(x, degree=1, penalty=penalty).num_pieces)
    calls = {
        "ritz": ours(x, "merge", pieces=count, degree=1),
        "ritz, exact with a penalty": ours(x, degree=1, penalty=penalty),
    }
    compare("tenth", f"merge, lines, n = {long // 10}, k = {count}", calls)

    x = torch.stack([signal(1000, 8, 1, seed) for seed in range(items)])
    single = lambda clock: sum(float(fit_piecewise(one, pieces=8, degree=1).error) for one in x)  # noqa: E731
    calls = {"ritz": ours(x, pieces=8, degree=1), "ritz, one by one": single}
    compare("batch", f"exact, lines, {items} × 1000, k = 8", calls)
    x = torch.stack([signal(1000, 8, 0, seed) for seed in range(items)])
    calls = {"ritz": ours(x, pieces=8, degree=0)}
    if ruptures:
        search = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1)
        calls["KernelCPD, one by one"] = lambda clock: sum(
            errors(one, search.fit(one[:, None].numpy()).predict(7), 0) for one in x
        )
    compare("constant batch", f"exact, constants, {items} × 1000, k = 8", calls)

    text = table("Break points of piecewise polynomials", HEAD, rows)
    if out is not None:
        write(text, out, "splines.md")
    return figures


def signal(n: int, k: int, degree: int, seed: int = 0) -> Tensor:
    """Pieces of random lengths with random levels, and slopes for degree 1, and noise of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    breaks = (n * torch.rand(k - 1, generator=generator)).long().sort().values
    piece = torch.searchsorted(breaks, torch.arange(n), right=True)
    level, slope = 3 * torch.randn(2, k, generator=generator, dtype=torch.float64)
    within = (torch.arange(n) / n).double()
    x = level[piece] + (slope[piece] * within * k if degree else 0)
    return x + torch.randn(n, generator=generator, dtype=torch.float64)


def errors(x: Tensor, breaks: list[int], degree: int) -> float:
    """Squared error of the best polynomials between breaks."""
    total = 0.0
    for a, b in zip([0, *breaks[:-1]], breaks, strict=True):
        if degree == 0:
            total += float((x[a:b] - x[a:b].mean()).square().sum())
        else:
            t = np.arange(b - a)
            total += float(np.square(x[a:b].numpy() - np.polyval(np.polyfit(t, x[a:b].numpy(), degree), t)).sum())
    return total


def binary_segmentation(x: np.ndarray, k: int) -> list[int]:
    """The piece is broken whose error falls most; costs of constants by prefix sums."""
    sums = np.concatenate([[0], np.cumsum(x)])

    def best(a: int, b: int) -> tuple[float, int, int, int]:
        s = np.arange(a + 1, b)
        if not len(s):
            return -np.inf, a, a, b
        left, right, whole = sums[s] - sums[a], sums[b] - sums[s], sums[b] - sums[a]
        gain = left**2 / (s - a) + right**2 / (b - s) - whole**2 / (b - a)
        at = int(gain.argmax())
        return float(gain[at]), int(s[at]), a, b

    waiting, breaks = [best(0, len(x))], [len(x)]
    while len(breaks) < k:
        top = max(waiting)
        waiting.remove(top)
        breaks.append(top[1])
        waiting += [best(top[2], top[1]), best(top[1], top[3])]
    return sorted(breaks)


if __name__ == "__main__":
    run(main)
