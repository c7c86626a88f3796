"""Where a patch may be nearer to a point than a known distance: branch and bound on its Bézier pieces.

With the homogeneous piece (A, W), S = A / W, a point q and a squared distance D,

    F(u) = |A - W q|² - D W² = (|q|² - D) W² - 2 q · A W + |A|²,    |S - q|² < D where F < 0,

is a polynomial of twice the degree, and its Bernstein coefficients F_k bound it: if no F_k is below -τ (W²)_k the piece
is nowhere nearer than √(D - τ). Otherwise it is halved in the direction in which the F_k bend most. A part on which F
is convex is settled as well if the foot point that gave D lies on it and is a minimum there. At corners the F_k are
values of F; one that is negative is a nearer point, from which the search for the foot point goes on.

Source: T. Sederberg, T. Nishita, Curve intersection using Bézier clipping, CAD 22 (1990), for the distance as a Bézier
function; G. Farin, *Curves and Surfaces for CAGD*, 5th ed., Morgan Kaufmann 2002, for Bernstein polynomials.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fem.reference.bspline import basis_change
from fem.space.factors import along
from fem.support.portions import at_a_time
from nurbs.geometry.evaluation import homogeneous
from nurbs.geometry.patch import Patch
from nurbs.geometry.spans import nonempty_spans, on_spans

RTOL = 1e-10  # a nearer point by less of the squared distance is none
DEEPEST = 45  # halvings of one direction
CROWD = 1024  # parts of one point at a time; with more of them (points of equal distance along a curve) τ grows


@dataclass(frozen=True, eq=False)
class Pieces:
    """The Bézier pieces of the items of a batch, and what F of each is made of.

    Attributes:
        item: which item of the batch each is of.
        start, width: of its parameters.
        middle, radius: of a ball around it.
        size: the largest extent of its item.
        table: coefficients of W², -2 A W and |A|², with A relative to the middle and W at most 1.
        rational: whether W is not 1.
    """

    item: Int64[Tensor, "c"]
    start: Float[Tensor, "c r"]
    width: Float[Tensor, "c r"]
    middle: Float[Tensor, "c d"]
    radius: Float[Tensor, "c"]
    size: Float[Tensor, "c"]
    table: Float[Tensor, "c d+2 *k"]
    rational: bool

    @staticmethod
    def of(patch: Patch) -> "Pieces":
        """Those of a patch with one batch axis."""
        r = patch.directions
        item, spans = nonempty_spans(patch)
        local = on_spans(patch, item, spans)
        ends = [t[:, p : p + 2] for t, p in zip(local.knots, local.degree, strict=True)]
        H, w = homogeneous(local.control_points, local.weights)
        H = torch.cat([H, torch.ones_like(H[..., :1]) if w is None else w], -1)
        for axis, (t, end, p) in enumerate(zip(local.knots, ends, local.degree, strict=True)):
            H = along(basis_change(t, p, end.repeat_interleave(p + 1, -1)), H, axis - r - 1, r + 1)
        P, W = H[..., :-1] / H[..., -1:], H[..., -1:]
        W = torch.ones_like(W) if w is None else W / W.flatten(1).amax(-1).reshape(-1, *[1] * (r + 1))
        flat = P.flatten(1, r)
        middle = (flat.amin(1) + flat.amax(1)) / 2
        A = W * (P - middle.reshape(-1, *[1] * r, P.shape[-1]))
        radius = torch.linalg.vector_norm(flat - middle[:, None], dim=-1).amax(-1)
        size = (patch.control_points.flatten(1, r).amax(1) - patch.control_points.flatten(1, r).amin(1)).amax(-1)
        width = at_a_time(2 * (A[0].numel() + 1) * A[0, ..., 0].numel(), A, roomy=True)
        tables = [_products(a, w) for a, w in zip(A.split(width), W.split(width), strict=True)]
        start, end = (torch.stack([e[:, side] for e in ends], -1) for side in (0, 1))
        return Pieces(item, start, end - start, middle, radius, size[item], torch.cat(tables), w is not None)


def _products(A: Float[Tensor, "c *n d"], W: Float[Tensor, "c *n 1"]) -> Float[Tensor, "c d+2 *k"]:
    """Bernstein coefficients of W², -2 A W and |A|²: (f g)_k = Σ_{i+j=k} C(p,i) C(p,j) / C(2p,k) f_i g_j."""
    r, degrees = A.ndim - 2, [n - 1 for n in A.shape[1:-1]]
    left, right = (x.reshape(len(x), -1, x.shape[-1]) for x in (A, W))
    pairs = [
        right[:, :, None] * right[:, None],
        -2 * left[:, :, None] * right[:, None],
        torch.einsum("cid,cjd->cij", left, left)[..., None],
    ]
    found = torch.cat(pairs, -1).movedim(-1, 1).unflatten(-1, A.shape[1:-1]).unflatten(2, A.shape[1:-1])
    order = [0, 1, *(axis for a in range(r) for axis in (2 + a, 2 + r + a))]
    found = found.permute(order)
    for axis, p in enumerate(degrees):
        found = found.flatten(2 + axis, 3 + axis)
        found = along(_multiplication(p).to(found), found, 2 + axis - found.ndim)
    return found


@lru_cache(maxsize=32)
def _multiplication(p: int) -> Float[Tensor, "k ij"]:
    rows = torch.zeros(2 * p + 1, p + 1, p + 1, dtype=torch.float64, device="cpu")
    for i in range(p + 1):
        for j in range(p + 1):
            rows[i + j, i, j] = comb(p, i) * comb(p, j) / comb(2 * p, i + j)
    return rows.flatten(1)


@lru_cache(maxsize=32)
def _halves(n: int) -> Float[Tensor, "two k i"]:
    """de Casteljau at ½: the coefficients on both halves."""
    rows = [[comb(k, i) / 2**k for i in range(n + 1)] for k in range(n + 1)]
    left = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return torch.stack([left, left.flip(0, 1)])


@dataclass(frozen=True, eq=False)
class _Parts:
    """Parts of pieces that may be nearer to points: [low, low + 2^-halvings] of a piece, F and M = W² there.

    One coefficient per direction is enough for M where W is 1.
    """

    point: Int64[Tensor, "s"]
    piece: Int64[Tensor, "s"]
    low: Float[Tensor, "s r"]
    halvings: Int64[Tensor, "s r"]
    F: Float[Tensor, "s *k"]
    M: Float[Tensor, "s *l"]

    def __getitem__(self, rows: Tensor) -> "_Parts":
        return _Parts(*(x[rows] for x in vars(self).values()))

    @property
    def extent(self) -> Float[Tensor, "s r"]:
        return torch.exp2(-self.halvings.to(self.low))

    def weighted(self, tau: Float[Tensor, "s"]) -> Float[Tensor, "s *k"]:
        """F + τ W²."""
        return self.F + tau.reshape(-1, *[1] * (self.F.ndim - 1)) * self.M

    def corners(self) -> tuple[Float[Tensor, "s two"], Float[Tensor, "s two r"]]:
        """|S - q|² - D at all corners, and where in the piece they are."""
        F, M = (x[(slice(None), *(slice(None, None, max(n - 1, 1)) for n in x.shape[1:]))] for x in (self.F, self.M))
        values = F / M
        ends = torch.cartesian_prod(
            *(torch.arange(n, dtype=self.low.dtype, device=self.low.device) for n in values.shape[1:])
        )
        ends = ends.reshape(-1, self.low.shape[1])
        inwards = 2.0**-48  # on this side of where the patch may jump
        return values.flatten(1), (self.low[:, None] + self.extent[:, None] * ends).clamp(inwards, 1 - inwards)

    def settled(self, t: Float[Tensor, "s r"], tau: Float[Tensor, "s"]) -> Bool[Tensor, "s"]:
        """Whether F ≥ -τ W² follows from F and its gradient g at t in [0, 1]^r: from F - ½ |g|ᵀ C⁻¹ |g| ≥ -τ min W².

        The matrix C has the least F_aa and the largest -|F_ab|; every Hessian of F is above it where it is positive
        definite. Components of g do not count that point inwards at an end.
        """
        axes = [axis for axis in range(1, self.F.ndim) if self.F.shape[axis] > 1]
        matrix, slopes = self.F.new_zeros(len(t), len(axes), len(axes)), []
        for i, a in enumerate(axes):
            n, x = self.F.shape[a] - 1, t[:, a - 1]
            matrix[:, i, i] = n * (n - 1) * self.F.diff(n=2, dim=a).flatten(1).amin(1)
            for j, b in enumerate(axes[:i]):
                mixed = n * (self.F.shape[b] - 1) * self.F.diff(dim=a).diff(dim=b).flatten(1)
                matrix[:, i, j] = matrix[:, j, i] = -mixed.abs().amax(1)
            slope = n * _value(self.F.diff(dim=a), t)
            slopes.append(torch.where(x <= 1e-9, -slope, torch.where(x >= 1 - 1e-9, slope, slope.abs())).clamp_min(0))
        factor, info = torch.linalg.cholesky_ex(matrix)
        factor = torch.where((info == 0)[:, None, None], factor, torch.eye(len(axes), dtype=t.dtype, device=t.device))
        g = torch.stack(slopes, -1) if slopes else t[:, :0]
        lower = _value(self.F, t) - 0.5 * (g * torch.cholesky_solve(g[..., None], factor)[..., 0]).sum(-1)
        return (info == 0) & (lower >= -tau * self.M.flatten(1).amin(1))

    def halved(self) -> "_Parts":
        """Both halves of each, in the direction in which the coefficients bend most."""
        bends = [
            n * self.F.diff(n=2, dim=axis).abs().flatten(1).amax(1) if n else self.low.new_full((len(self.F),), -1.0)
            for axis, n in ((axis, size - 1) for axis, size in enumerate(self.F.shape[1:], 1))
        ]
        direction = torch.stack(bends, -1).argmax(-1)
        found = []
        for axis in range(len(bends)):
            part = self[(direction == axis).nonzero()[:, 0]]
            halvings = part.halvings.clone()
            halvings[:, axis] += 1
            for side in (0, 1):
                F, M = (
                    along(_halves(x.shape[axis + 1] - 1)[side].to(x), x, axis + 1 - x.ndim) for x in (part.F, part.M)
                )
                low = part.low.clone()
                low[:, axis] += side * torch.exp2(-halvings[:, axis].to(low))
                found.append(_Parts(part.point, part.piece, low, halvings, F, M))
        return _Parts(*map(torch.cat, zip(*(vars(part).values() for part in found), strict=True)))


def _value(F: Float[Tensor, "s *k"], t: Float[Tensor, "s r"]) -> Float[Tensor, "s"]:
    """The polynomial with these Bernstein coefficients at t."""
    for x in t.unbind(-1):
        k, n = torch.arange(F.shape[1], dtype=t.dtype, device=t.device), F.shape[1] - 1
        binomials = F.new_tensor([comb(n, i) for i in range(n + 1)])
        basis = binomials * x[:, None] ** k * (1 - x[:, None]) ** (n - k)
        F = (basis.reshape(*basis.shape, *[1] * (F.ndim - 2)) * F).sum(1)
    return F


def nearer(
    pieces: Pieces,
    q: Float[Tensor, "m d"],
    item: Int64[Tensor, "m"],
    u: Float[Tensor, "m r"],
    D: Float[Tensor, "m"],
    tau: Float[Tensor, "m"],
) -> tuple[Int64[Tensor, "k"], Float[Tensor, "k r"], Int64[Tensor, "k"]]:
    """Points to which their item is nearer than √D, parameters of nearer places, and the pieces of these.

    Args:
        q, item: points, and the items whose distance from them is asked for.
        u, D: local minima of the distance, and its squares there.
        tau: how much of the squared distance counts, in units of 1e-10 D and of round-off.
    """
    counts = torch.bincount(pieces.item)
    first = counts.cumsum(0) - counts
    slot = torch.arange(int(counts.max()), device=q.device)
    found = []
    width = at_a_time(8 * pieces.table[0, 0].numel() + len(slot) * q.shape[1], q, roomy=True)
    for rows in torch.arange(len(q), device=q.device).split(width):
        of = item[rows]
        ball = (first[of, None] + slot).clamp(max=len(pieces.item) - 1)
        apart = torch.linalg.vector_norm(q[rows, None] - pieces.middle[ball], dim=-1)
        close = (apart - pieces.radius[ball] < D[rows, None].sqrt()) & (slot < counts[of, None])
        point, index = close.nonzero().unbind(-1)
        found.append(_search(pieces, q, u, D, tau, rows[point], ball[point, index]))
    which, start, piece = map(torch.cat, zip(*found, strict=True))
    return which, start, piece


def _search(
    pieces: Pieces, q: Tensor, u: Tensor, D: Tensor, tau: Tensor, point: Int64[Tensor, "s"], piece: Int64[Tensor, "s"]
) -> tuple[Int64[Tensor, "k"], Float[Tensor, "k r"], Int64[Tensor, "k"]]:
    shift = q[point] - pieces.middle[piece]
    square = shift.square().sum(-1)
    round_off = 64 * torch.finfo(q.dtype).eps * (pieces.radius[piece] + square.sqrt() + D[point].sqrt()).square()
    tau = tau * (RTOL * D).scatter_reduce(0, point, round_off, "amax")
    factors = torch.cat([(square - D[point])[:, None], shift, torch.ones_like(shift[:, :1])], -1)
    table = pieces.table[piece]
    F = (factors[:, None] @ table.flatten(2))[:, 0].unflatten(1, table.shape[2:])
    zeros = torch.zeros_like(u[point])
    cut = (slice(None), *[slice(1)] * (F.ndim - 1))
    parts = _Parts(point, piece, zeros, zeros.long(), F, table[:, 0] if pieces.rational else torch.ones_like(F[cut]))
    best = torch.zeros_like(D)
    start, inside = torch.zeros_like(u), torch.full_like(D, -1, dtype=torch.int64)
    while len(parts.point):
        parts = parts[(parts.weighted(tau[parts.point]).flatten(1).amin(1) < 0).nonzero()[:, 0]]
        values, places = parts.corners()
        value, corner = values.min(-1)
        best = best.scatter_reduce(0, parts.point, value, "amin")
        hit = ((value < -tau[parts.point]) & (value == best[parts.point])).nonzero()[:, 0]
        where = places[hit, corner[hit]] * pieces.width[parts.piece[hit]] + pieces.start[parts.piece[hit]]
        start[parts.point[hit]], inside[parts.point[hit]] = where, parts.piece[hit]
        x = (u[parts.point] - pieces.start[parts.piece]) / pieces.width[parts.piece]
        t = (x - parts.low) / parts.extent
        open_ = (inside[parts.point] < 0) & (parts.halvings < DEEPEST).all(-1)
        holds = (open_ & ((t >= -1e-9) & (t <= 1 + 1e-9)).all(-1)).nonzero()[:, 0]
        open_[holds] = ~parts[holds].settled(t[holds].clamp(0, 1), tau[parts.point[holds]])
        parts = parts[open_.nonzero()[:, 0]]
        if len(parts.point):
            parts = parts.halved()
            crowd = torch.bincount(parts.point, minlength=len(tau)) > CROWD
            tau = torch.where(crowd, 4 * tau, tau)
    which = (inside >= 0).nonzero()[:, 0]
    return which, start[which], inside[which]
