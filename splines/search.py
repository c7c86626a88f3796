"""Partitions in PyTorch, for a whole batch at once, on any device: what compiled code does on CPUs.

Fits to pieces are triangular systems R p = z in the orthonormal polynomials of their length (`splines/orthonormal.py`);
two neighbours are joined by Givens rotations, and samples are pieces of length one. The best pieces between given
places are found by dynamic programming: between all places, that is exact; merging starts from few, which it then
refines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splines.orthonormal import jacobi
from splines.pieces import Pieces
from splines.projection import Analysis, Synthesis


@dataclass(frozen=True, eq=False)
class Fits:
    """Least-squares fits to pieces.

    Attributes:
        length: samples.
        seen: observed ones.
        R: upper triangular, the identity without weights.
        z: right side; the tail beyond a degree adds to the error of fits of that degree.
        error: what the highest degree leaves.
    """

    length: Float[Tensor, "b e"]
    seen: Float[Tensor, "b e"]
    R: Float[Tensor, "b e a a"]
    z: Float[Tensor, "b e a c"]
    error: Float[Tensor, "b e"]

    def __getitem__(self, cut: slice) -> "Fits":
        return Fits(*(getattr(self, name)[:, cut] for name in self.__dataclass_fields__))

    def where(self, kept: Bool[Tensor, "b e"], other: "Fits") -> "Fits":
        pick = lambda a, b: torch.where(kept.view(*kept.shape, *[1] * (a.ndim - 2)), a, b)  # noqa: E731
        return Fits(*(pick(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__))

    def take(self, index: Int[Tensor, "b i"]) -> "Fits":
        rows = torch.arange(len(index), device=index.device)[:, None]
        return Fits(*(getattr(self, name)[rows, index] for name in self.__dataclass_fields__))

    def cost(self, degree: int) -> Float[Tensor, "b e"]:
        return self.error + self.z[:, :, degree + 1 :].square().sum((-2, -1))


def cat(*parts: Fits) -> Fits:
    return Fits(*(torch.cat([getattr(p, name) for p in parts], 1) for name in Fits.__dataclass_fields__))


def fits(
    samples: Float[Tensor, "b n c"], weights: Float[Tensor, "b n"] | None, breaks: Int[Tensor, "b t"], degree: int
):
    """Fits to the pieces between breaks (none of them empty)."""
    n = samples.shape[1]
    pieces = Pieces(breaks, (degree,) * (breaks.shape[1] - 1), n, weights)
    whole = slice(0, n)
    owners = pieces.owners(whole)
    y = samples if weights is None else samples * weights[..., None]
    z = Analysis.apply(y, pieces)
    rest = (samples - Synthesis.apply(z, pieces)).square().sum(-1, keepdim=True)
    length = breaks.diff().to(samples.dtype)
    if weights is None:
        there = torch.arange(degree + 1, device=z.device) < length[..., None]
        R, seen = torch.diag_embed(there.to(z.dtype)), length
    else:
        rest, bare = rest * weights[..., None], Pieces(breaks, pieces.degrees, n, None)
        rows = torch.stack(list(pieces.basis(whole, owners)), -1) * weights[..., None]
        columns = list(bare.basis(whole, owners))
        R = torch.stack([pieces.sum(owners, rows * q[..., None]) for q in columns], -1).triu()
        seen = pieces.sum(owners, (weights > 0).to(z.dtype)[..., None])[..., 0]
    return Fits(length, seen, R, z, pieces.sum(owners, rest)[..., 0])


def connection(whole: Float[Tensor, "b e"], part: Float[Tensor, "b e"], shift: Float[Tensor, "b e"], size: int):
    """W with Q_j = Σ_i W_ji q_i on a part of the samples of Q, whose middle lies at `shift` from that of the whole."""
    b = [jacobi(part, j) for j in range(size + 1)]
    W = [[part.new_zeros(part.shape) for _ in range(size)] for _ in range(size)]
    W[0][0] = (part / whole).sqrt()
    for j in range(size - 1):
        following, now = jacobi(whole, j + 1), jacobi(whole, j)
        scale = torch.where(following > 0, 1 / torch.where(following > 0, following, 1), 0)
        for i in range(j + 2):
            total = shift * W[j][i]
            if i > 0:
                total = total + b[i] * W[j][i - 1]
            if i < j:
                total = total + b[i + 1] * W[j][i + 1]
            if j > 0:
                total = total - now * W[j - 1][i]
            W[j + 1][i] = total * scale
    return torch.stack([torch.stack(row, -1) for row in W], -2)


def join(one: Fits, two: Fits) -> Fits:
    """Fits to pairs of neighbours."""
    whole, size = one.length + two.length, one.R.shape[-1]
    R = one.R @ connection(whole, one.length, -two.length / 2, size).mT
    rows = two.R @ connection(whole, two.length, one.length / 2, size).mT
    z, error = one.z, one.error + two.error
    for r in range(size):
        v, y = rows[:, :, r], two.z[:, :, r]
        for i in range(size):
            a, s = R[:, :, i, i], v[:, :, i]
            length = torch.hypot(a, s)
            still = length == 0
            safe = torch.where(still, 1, length)
            c, s = torch.where(still, 1, a / safe)[..., None], (s / safe)[..., None]
            line, right = R[:, :, i], z[:, :, i]
            R = torch.cat([R[:, :, :i], (c * line + s * v)[:, :, None], R[:, :, i + 1 :]], 2)
            z = torch.cat([z[:, :, :i], (c * right + s * y)[:, :, None], z[:, :, i + 1 :]], 2)
            v, y = c * v - s * line, c * y - s * right
        error = error + y.square().sum(-1)
    return Fits(whole, one.seen + two.seen, R.triu(), z, error)


def best_pieces(
    blocks: Fits, degrees: Sequence[int], least: Sequence[int], penalty: float = -1.0, limit: float = float("-inf")
) -> tuple[Int[Tensor, "b t"], Float[Tensor, "b k"]]:
    """The best pieces made of blocks, as numbers of blocks at which they break, and the least errors of 1 … k pieces.

    Exact, by dynamic programming; one degree and least number of observed samples per piece. With a penalty ≥ 0 their
    number is free, and the first degree serves all. Within the limit on the error the fewest pieces are chosen, else
    those that reach the least error; where a degree is given for each, all.
    """
    b, m = blocks.length.shape
    free, k = penalty >= 0, len(degrees)
    rows = 1 if free else k
    kinds = sorted(set(zip(degrees, least, strict=True)))
    best = blocks.error.new_full((b, rows + 1, m + 1), float("inf"))
    best[:, 0, 0] = 0
    start = torch.zeros(b, rows + 1, m + 1, dtype=torch.int64, device=best.device)
    now = blocks[:1]
    for c in range(1, m + 1):  # sequential by nature: places before c must be known
        if c > 1:
            last = blocks[c - 1 : c]
            now = cat(join(now, last.take(torch.zeros_like(now.length, dtype=torch.int64))), last)
        cost = {(d, s): torch.where(now.seen >= s, now.cost(d), float("inf")) for d, s in kinds}
        if free:
            found = (best[:, 0, :c] + cost[kinds[0]] + penalty).min(1)
            best[:, 0, c], start[:, 1, c] = found
            continue
        for q in range(1, rows + 1):
            best[:, q, c], start[:, q, c] = (best[:, q - 1, :c] + cost[degrees[q - 1], least[q - 1]]).min(1)
    items = torch.arange(b, device=best.device)
    at = torch.full((b,), m, device=best.device)
    if free:
        path = [at]
        while bool((at > 0).any()):
            at = start[items, 1, at]
            path.append(at)
        breaks = torch.stack(path, 1).sort(1).values
        zeros = (breaks == 0).sum(1, keepdim=True) - 1  # items with fewer pieces have waited at 0
        index = torch.arange(len(path), device=at.device) + zeros
        return torch.where(index < len(path), breaks.gather(1, index.clamp(max=len(path) - 1)), m), best[:, 0, m:]
    errors = best[:, 1:, m]
    count = torch.full((b,), k, device=best.device)
    if len(kinds) == 1:
        enough = torch.maximum(errors.min(1, keepdim=True).values, errors.new_tensor(limit))
        count = 1 + (errors <= enough).to(torch.int8).argmax(1)
    breaks = torch.full((b, k + 1), m, device=best.device)
    for q in range(k, 0, -1):
        within = q <= count
        at = torch.where(within, start[items, q, at], at)
        breaks[:, q - 1] = torch.where(within, at, m)
    return breaks, errors


def partition(
    samples: Float[Tensor, "b n c"],
    weights: Float[Tensor, "b n"] | None,
    degrees: Sequence[int],
    least: Sequence[int],
    penalty: float = -1.0,
    limit: float = float("-inf"),
) -> tuple[Int[Tensor, "b t"], Float[Tensor, "b k"]]:
    """The best break points."""
    b, n, _ = samples.shape
    each = torch.arange(n + 1, device=samples.device).expand(b, -1)
    return best_pieces(fits(samples, weights, each, max(degrees)), degrees, least, penalty, limit)


def merged(
    samples: Float[Tensor, "b n c"],
    weights: Float[Tensor, "b n"] | None,
    degrees: Sequence[int],
    least: Sequence[int],
    penalty: float = -1.0,
) -> Int[Tensor, "b t"]:
    """Good break points: blocks are merged in pairs, all but the 2k pairs whose error grows most; the best pieces made
    of what is left are refined between ever closer neighbours of their breaks."""
    b, n, _ = samples.shape
    if penalty >= 0 and b > 1:
        items = [
            merged(samples[i : i + 1], None if weights is None else weights[i : i + 1], degrees, least, penalty)
            for i in range(b)
        ]
        width = max(t.shape[1] for t in items)
        return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1]), value=n) for t in items])
    degree, k = max(degrees), len(degrees)
    block = max(2 * (degree + 1), min(least))
    count = max(n // block, 1)
    places = torch.arange(count + 1, device=samples.device) * block
    places[-1] = n
    places = places.expand(b, -1)
    blocks, odd, idle = fits(samples, weights, places, degree), 0, 0
    while blocks.length.shape[1] > 1 and idle < 2:
        pairs = (blocks.length.shape[1] - odd) // 2
        if penalty < 0 and pairs <= 2 * k:
            break
        end = odd + 2 * pairs
        one, two = blocks[odd:end:2], blocks[odd + 1 : end : 2]
        both = join(one, two)
        growth = both.error - one.error - two.error
        if penalty < 0:
            kept = torch.zeros_like(growth, dtype=torch.bool).scatter_(1, growth.topk(2 * k, 1).indices, True)
        else:
            kept = growth > penalty
        idle = idle + 1 if bool(kept.all()) else 0
        # Each pair leaves both together, or its first block and, further on in the same list, its second.
        number = torch.arange(pairs, device=kept.device).expand(b, -1)
        stays = torch.stack([torch.ones_like(kept), kept], 2)
        order = torch.stack([number, number + pairs], 2)[stays].view(b, -1)
        blocks = cat(blocks[:odd], cat(one.where(kept, both), two).take(order), blocks[end:])
        odd = 1 - odd
    places = torch.nn.functional.pad(blocks.length.cumsum(1), (1, 0)).round().long()
    step = n
    while True:
        found, _ = best_pieces(fits(samples, weights, places, degree), degrees, least, penalty)
        breaks = places.gather(1, found)
        step = min(step // 2, n // (2 * breaks.shape[1])) if step == n else step // 2
        if step == 0:
            return breaks
        places = around(breaks, step, n)


def around(breaks: Int[Tensor, "b t"], step: int, n: int) -> Int[Tensor, "b i"]:
    """The breaks with their neighbours on both sides, without empty pieces between them; items are made equally many
    by further places at the beginning."""
    near = torch.cat([breaks, breaks - step, breaks + step], 1).clamp(0, n)
    rows = [row.unique() for row in near]
    width = max(len(row) for row in rows)
    full = []
    for row in rows:
        spare = torch.ones(n + 1, dtype=torch.bool, device=row.device)
        spare[row] = False
        full.append(torch.cat([row, spare.nonzero()[: width - len(row), 0]]).sort().values)
    return torch.stack(full)
