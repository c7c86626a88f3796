"""Partitions by compiled code: `costs.c` with `exact.c` or `merging.c`, one library for each degree."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.c_function import CFunction, c_text
from fem.support.native import WORTH
from splines.gains import gains

LAYERS, PENALISED, LAYER, COSTS = range(4)


@cache
def function(kind: str, degree: int) -> CFunction:
    return CFunction(c_text("splines", "costs.c", f"{kind}.c"), D=degree)


def available(kind: str, degree: int) -> bool:
    """Whether there is code for pieces of this degree, which is compiled now if it never was."""
    return function(kind, degree).ready(WORTH)


@dataclass(frozen=True, eq=False)
class Signals:
    """A batch for compiled code: contiguous, double precision, on the CPU; `roots` of weights, NULL for ones."""

    samples: Float[Tensor, "b n c"]
    roots: Float[Tensor, "b n"] | None
    seen: Int[Tensor, "b t"] | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        b, n, c = self.samples.shape
        return b, n, c

    def item(self, b: int, start: int = 0, stop: int | None = None) -> "Signals":
        cut = slice(start, stop)
        end = slice(start, None if stop is None else stop + 1)
        return Signals(
            self.samples[b : b + 1, cut].contiguous(),
            None if self.roots is None else self.roots[b : b + 1, cut].contiguous(),
            None if self.seen is None else self.seen[b : b + 1, end].contiguous(),
        )

    def call(self, kind: str, degree: int, *rest: Any) -> None:
        few = 1 if kind == "merging" and degree == 0 else self.sizes[1]  # it needs no table for constants
        table = None if self.roots is not None else gains(few, degree)
        failed = function(kind, degree)(*self.sizes, self.samples, self.roots, table, self.seen, *rest)
        if failed:
            raise MemoryError(
                f"not enough memory to search the break points of {failed} signals of {self.sizes[1]} samples."
            )

    def exact(
        self,
        mode: int,
        degree: int,
        k: int,
        least: int,
        breaks: Tensor | None,
        out: Tensor | None,
        penalty: float = 0.0,
        limit: float = 0.0,
    ) -> None:
        self.call("exact", degree, mode, k, least, penalty, limit, breaks, out)


def best_layers(
    signals: Signals, k: int, degree: int, least: int, limit: float
) -> tuple[Int[Tensor, "b t"], Float[Tensor, "b k"]]:
    """Breaks of the best k pieces, or of the fewest with a squared error within the limit, and the errors of 1 … k."""
    b, n, _ = signals.sizes
    breaks, errors = torch.full((b, k + 1), n, device="cpu"), torch.empty(b, k, dtype=torch.float64, device="cpu")
    signals.exact(LAYERS, degree, k, least, breaks, errors, limit=limit)
    return breaks, errors


def best_penalised(signals: Signals, penalty: float, degree: int, least: int) -> Int[Tensor, "b t"]:
    """Breaks of the pieces with the least squared error + penalty × number of pieces."""
    b, n, _ = signals.sizes
    breaks = torch.full((b, n + 1), n, device="cpu")
    signals.exact(PENALISED, degree, 1, least, breaks, None, penalty=penalty)
    return breaks


def best_degrees(signals: Signals, degrees: Sequence[int], least: Sequence[int]) -> Int[Tensor, "b t"]:
    """Breaks of the best pieces of these degrees, in this order."""
    b, n, _ = signals.sizes
    k = len(degrees)
    breaks = torch.full((b, k + 1), n, device="cpu")
    for i in range(b):
        one = signals.item(i)
        rows = torch.full((k + 1, n + 1), float("inf"), dtype=torch.float64, device="cpu")
        rows[0, 0] = 0
        for q, (d, m) in enumerate(zip(degrees, least, strict=True)):
            pair = rows[q : q + 2].clone()
            one.exact(LAYER, d, 1, m, None, pair)
            rows[q + 1] = pair[1]
        end = n
        for q in range(k - 1, -1, -1):
            part = one.item(0, 0, end)
            costs = torch.empty(end, dtype=torch.float64, device="cpu")
            part.exact(COSTS, degrees[q], 1, least[q], None, costs)
            total = rows[q, :end] + costs.flip(0)
            observed = (
                torch.arange(end, 0, -1, device="cpu") if part.seen is None else part.seen[0, end] - part.seen[0, :end]
            )
            total[observed < least[q]] = float("inf")
            breaks[i, q] = end = int(total.argmin())
    return breaks


def merged(
    signals: Signals, k: int, penalty: float, degrees: Sequence[int], least: Sequence[int]
) -> Int[Tensor, "b t"]:
    """Breaks of at most k pieces or, where the penalty is not negative, of as many as pay for it."""
    b, n, _ = signals.sizes
    breaks = torch.full((b, (k if penalty < 0 else n) + 1), n, device="cpu")
    same = len(set(degrees)) == 1 and len(set(least)) == 1
    signals.call("merging", max(degrees), k, penalty, degrees, least, min(least), int(same), breaks)
    return breaks
