"""Pieces of sampled signals: which sample lies in which, sums over them, and their orthonormal polynomials.

What has as many entries as there are samples is made for a stretch of samples at a time, so that memory hardly grows
with the degree.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.portions import at_a_time
from splines.orthonormal import orthonormal, orthonormalized


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces [t_j, t_{j+1}) of each signal of a batch, with polynomials of degree d_j.

    Attributes:
        breaks: t, ascending from 0 to n; empty pieces at the end hold nothing.
        degrees: one per piece.
        length: n.
        weights: of the samples in inner products; ones without them.
        dtype: of the polynomials.
    """

    breaks: Int[Tensor, "b t"]
    degrees: tuple[int, ...]
    length: int
    weights: Float[Tensor, "b n"] | None
    dtype: torch.dtype = torch.float64

    @property
    def count(self) -> int:
        return self.breaks.shape[1] - 1

    def stretches(self) -> Iterator[slice]:
        """All samples, some at a time; all at once where weights need sums over pieces."""
        step = self.length if self.weights is not None else at_a_time(len(self.breaks), self.breaks)
        for start in range(0, self.length, step):
            yield slice(start, min(start + step, self.length))

    def owners(self, cut: slice) -> Int[Tensor, "b s"]:
        """The piece of each sample."""
        places = torch.arange(cut.start, cut.stop, device=self.breaks.device)
        return torch.searchsorted(
            self.breaks[:, 1:].contiguous(), places.expand(len(self.breaks), -1).contiguous(), right=True
        )

    def basis(self, cut: slice, owners: Int[Tensor, "b s"]) -> Iterator[Float[Tensor, "b s"]]:
        """The polynomials of each sample's piece at the sample, orthonormal with the weights; 0 above its degree."""
        starts, lengths = self.breaks[:, :-1], self.breaks.diff()
        m = lengths.to(self.dtype).gather(1, owners)
        middle = (starts + (lengths - 1) / 2).to(self.dtype).gather(1, owners)
        t = torch.arange(cut.start, cut.stop, dtype=self.dtype, device=m.device) - middle
        found = orthonormal(t, m, max(self.degrees))
        if self.weights is not None:
            w = self.weights
            inner = lambda a, b: self.sum(owners, (w * a * b)[..., None])[..., 0].gather(1, owners)  # noqa: E731
            found = iter(orthonormalized(found, inner))
        same = len(set(self.degrees)) == 1
        degrees = None if same else torch.tensor(self.degrees, device=m.device)[owners]
        for j, q in enumerate(found):
            yield q if degrees is None else torch.where(degrees >= j, q, 0)

    def sum(self, owners: Int[Tensor, "b s"], values: Float[Tensor, "b s c"]) -> Float[Tensor, "b k c"]:
        """Sums over pieces."""
        b, k = len(owners), self.count
        rows = owners if b == 1 else owners + k * torch.arange(b, device=owners.device)[:, None]
        total = values.new_zeros(b * k, values.shape[-1]).index_add_(0, rows.flatten(), values.flatten(0, 1))
        return total.view(b, k, -1)
