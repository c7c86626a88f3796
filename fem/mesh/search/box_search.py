"""Which of many axis-aligned boxes hold a point: all pairs of the two, found by binning.

Boxes of like size share a grid of bins as wide as the largest of them, and are listed once, in the bin of their lowest
corner; whatever holds a point then lies in the point's own bin or the one before, in each direction, on each level of
size. So the index grows with the number of boxes alone, and grading costs one more level per factor of two.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.portions import at_a_time


class Boxes:
    """Closed boxes between corners `lower` and `upper`; always float64, so that bins are exact."""

    def __init__(self, lower: Float[Tensor, "e d"], upper: Float[Tensor, "e d"]):
        self.lower, self.upper = lower.double(), upper.double()
        extent = self.upper - self.lower
        size = extent.amax(1)
        level = torch.unique((size.max() / size).log2().floor(), return_inverse=True)[1]
        # A little wider than every box of the level, so that none reaches beyond the next bin.
        width = extent.new_zeros(int(level.max()) + 1, extent.shape[1])
        width = 1.000001 * width.scatter_reduce(0, level[:, None].expand_as(extent), extent, "amax")
        self.origin = self.lower.amin(0)
        self.width = torch.maximum(width, (self.upper.amax(0) - self.origin) / (2**self.bits - 2))
        self.keys, self.order = self.bin(self.lower[:, None], level[:, None])[:, 0].sort()

    @property
    def bits(self) -> int:
        """Bins per direction as a power of two: the level and all indices fit one int64."""
        return 18 if len(self.origin) == 3 else 27

    def bin(self, points: Float[Tensor, "m #k d"], level: Int[Tensor, "#m k"]) -> Int[Tensor, "m k"]:
        """One number for the level and the bin on it, x fastest; what lies beyond the first or last bin joins it."""
        dim = len(self.origin)
        index = ((points - self.origin) / self.width[level]).floor().clamp(0, 2**self.bits - 1).long()
        return (index << (self.bits * torch.arange(dim, device=index.device))).sum(-1) + (level << (self.bits * dim))

    def pairs(self, points: Float[Tensor, "m d"], start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Every point (counted from `start`) with every box that holds it, once each, in chunks that fit in memory."""
        (m, d), most = points.shape, at_a_time(8, self.lower, roomy=True)  # numbers for each pair
        levels = torch.arange(len(self.width), device=points.device)
        total = m * len(levels) << d
        if total <= most or m == 1:
            x = points.double()
            key = self.bin(x[:, None], levels[None])
            for axis in range(1, d):  # the bin before in x is the key before; in y and z it is a stride away
                key = torch.cat([key, key - (1 << (self.bits * axis))], 1)
            first = torch.searchsorted(self.keys, key - 1).flatten()
            count = torch.searchsorted(self.keys, key, right=True).flatten() - first
            total = int(count.sum())
            if total <= most or m == 1:
                window = torch.arange(len(count), device=x.device).repeat_interleave(count, output_size=total)
                place = torch.arange(total, device=x.device) + (first - count.cumsum(0) + count)[window]
                point, box = window // key.shape[1], self.order[place]
                for axis in range(d):  # many fail in the first direction already
                    coordinate = x[:, axis][point]
                    hit = (self.lower[:, axis][box] <= coordinate) & (coordinate <= self.upper[:, axis][box])
                    point, box = point[hit], box[hit]
                yield point + start, box
                return
        yield from self.pairs(points[: m // 2], start)
        yield from self.pairs(points[m // 2 :], start + m // 2)
