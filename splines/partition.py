"""Where piecewise polynomials break: the best places, or good ones in nearly linear time.

The squared error of a piece is not a Monge array: constants on the overlapping segments (1, 0) and (0, 1) of x = (1, 0,
1) leave 1/2 + 1/2, on their union and intersection 2/3 + 0, which is less. Divide-and-conquer and SMAWK would therefore
be inexact; `exact` looks at all segments but those that provably cannot win.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splines import compiled, search
from splines.pieces import Pieces
from splines.projection import SquaredError, project


@dataclass(frozen=True)
class Wish:
    """What pieces are wanted.

    Attributes:
        degrees, least: of each piece the degree and how many samples it holds at least; one entry serves a free number.
        penalty: that each piece costs; −1 for a number of pieces that is given.
        limit: on the squared error, within which the fewest pieces are taken; −∞ without.
    """

    degrees: tuple[int, ...]
    least: tuple[int, ...]
    penalty: float = -1.0
    limit: float = float("-inf")


def partition(
    samples: Float[Tensor, "b n c"], weights: Float[Tensor, "b n"] | None, wish: Wish, method: str
) -> Int[Tensor, "b t"]:
    """Break points 0 = t_0 < … = n, padded with n; every piece holds enough samples with a weight.

    Raises:
        ValueError: no partition leaves enough observed samples to each piece, or none is within the limit.
    """
    if wish.limit > float("-inf"):
        return within(samples, weights, wish, method)
    breaks, _ = (best if method == "exact" else good)(samples, weights, wish)
    if bool((breaks[:, 0] < 0).any()):
        raise ValueError(
            f"no partition was found that leaves each piece the {min(wish.least)} or more observed samples it needs; "
            'method="exact", fewer pieces or a smaller `min_size` may help.'
        )
    return breaks


def best(samples: Tensor, weights: Tensor | None, wish: Wish) -> tuple[Tensor, Tensor | None]:
    """The optimum, and the least errors of 1 … k pieces where k is given."""
    errors = None
    degree, one = max(wish.degrees), len(set(zip(wish.degrees, wish.least, strict=True))) == 1
    if samples.device.type == "cpu" and all(compiled.available("exact", d) for d in set(wish.degrees)):
        signals = signals_of(samples, weights)
        if wish.penalty >= 0:
            breaks = compiled.best_penalised(signals, wish.penalty, degree, wish.least[0])
            breaks = trimmed(breaks, samples.shape[1])
        elif one:
            breaks, errors = compiled.best_layers(signals, len(wish.degrees), degree, wish.least[0], wish.limit)
        else:
            breaks = compiled.best_degrees(signals, wish.degrees, wish.least)
    else:
        breaks, errors = search.partition(samples, weights, wish.degrees, wish.least, wish.penalty, wish.limit)
    if weights is not None or not one:
        breaks = checked(breaks, weights, wish)
    return breaks, errors


def good(samples: Tensor, weights: Tensor | None, wish: Wish) -> tuple[Tensor, None]:
    """A partition by merging."""
    n, k = samples.shape[1], len(wish.degrees)
    if samples.device.type == "cpu" and compiled.available("merging", max(wish.degrees)):
        signals = signals_of(samples, weights)
        breaks = compiled.merged(signals, k, wish.penalty, wish.degrees, wish.least)
    else:
        breaks = search.merged(samples, weights, wish.degrees, wish.least, wish.penalty)
    breaks = trimmed(breaks, n) if wish.penalty >= 0 else breaks
    return checked(breaks, weights, wish), None


def within(samples: Tensor, weights: Tensor | None, wish: Wish, method: str) -> Tensor:
    """The fewest pieces with a squared error within the limit: numbers are doubled, then halved in between."""
    n, most = samples.shape[1], samples.shape[1] // wish.least[0]
    k, low, breaks = 1, 0, samples.new_zeros(len(samples), 2, dtype=torch.int64)
    while True:
        asked = Wish(wish.degrees[:1] * k, wish.least[:1] * k, limit=wish.limit)
        breaks, errors = (best if method == "exact" else good)(samples, weights, asked)
        if errors is None:
            errors = errors_of(samples, weights, breaks, wish.degrees[0])[:, None]
        enough = errors.min(1).values <= wish.limit
        if bool(enough.all()):
            break
        if k == most:
            item = int((~enough).nonzero()[0])
            raise ValueError(
                f"signal {item} cannot be brought within `max_error` = {wish.limit:g}: {most} pieces leave "
                f"{float(errors.min(1).values[item]):g}. Use a larger `max_error`, a higher degree or a smaller "
                "`min_size`."
            )
        low, k = k, min(2 * k, most)
    if method == "exact" or k == 1:
        return trimmed(breaks, n)
    found = []
    for i in range(len(samples)):  # each by its own number of pieces
        one, w = samples[i : i + 1], None if weights is None else weights[i : i + 1]
        below, above, kept = low if len(samples) == 1 else 0, k, breaks[i : i + 1]
        while above - below > 1:
            middle = (above + below) // 2
            tried, _ = good(one, w, Wish(wish.degrees[:1] * middle, wish.least[:1] * middle))
            if float(errors_of(one, w, tried, wish.degrees[0])) <= wish.limit:
                above, kept = middle, tried
            else:
                below = middle
        found.append(kept)
    width = max(t.shape[1] for t in found)
    return trimmed(torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1]), value=n) for t in found]), n)


def signals_of(samples: Tensor, weights: Tensor | None) -> compiled.Signals:
    if weights is None:
        return compiled.Signals(samples.contiguous(), None, None)
    seen = torch.nn.functional.pad((weights > 0).cumsum(1), (1, 0))
    return compiled.Signals(samples.contiguous(), weights.sqrt().contiguous(), seen.contiguous())


def trimmed(breaks: Int[Tensor, "b t"], n: int) -> Int[Tensor, "b u"]:
    """Without columns that all signals fill up with n."""
    return breaks[:, : int((breaks < n).sum(1).max()) + 1]


def checked(breaks: Tensor, weights: Tensor | None, wish: Wish) -> Tensor:
    """Items whose pieces hold too few samples, because there was no better way, begin at −1."""
    seen = torch.arange(int(breaks.max()) + 1, device=breaks.device).expand(len(breaks), -1)
    if weights is not None:
        seen = torch.nn.functional.pad((weights > 0).cumsum(1), (1, 0))
    held = seen.gather(1, breaks.clamp(min=0)).diff()
    count = breaks.shape[1] - 1
    least = torch.tensor((*wish.least, *[wish.least[-1]] * count)[:count], device=breaks.device)
    padding = (breaks[:, 1:] == breaks[:, -1:]) & (breaks[:, :-1] == breaks[:, -1:])
    if len(set(wish.degrees)) > 1:
        padding = torch.zeros_like(padding)
    bad = ((held < least) & ~padding).any(1)
    return torch.where(bad[:, None], -1, breaks)


def errors_of(samples: Tensor, weights: Tensor | None, breaks: Tensor, degree: int) -> Float[Tensor, "b"]:
    """Squared errors of the best polynomials on given pieces."""
    pieces = Pieces(breaks, (degree,) * (breaks.shape[1] - 1), samples.shape[1], weights)
    error: Any = SquaredError.apply(samples, project(samples, pieces)[0], pieces)
    return error
