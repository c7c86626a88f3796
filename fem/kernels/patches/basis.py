"""The splines of one patch at the tensor grid of a quadrature's points: one small table per direction.

On span e of a direction the p + 1 functions from first[e] on live, with values and derivatives in the reference
coordinate of the span in tables[o, e, q, a] at the 1-D points q.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from fem.reference.bspline import basis_functions, find_span
from fem.support.transforms import outside_transforms

Order = tuple[int, ...]  # of derivatives, per direction, x first


@dataclass(frozen=True, eq=False)
class PatchBasis:
    """Tensor-product splines on the spans of a patch.

    Attributes:
        shape: functions per direction, x first.
        tables: per direction "o e q a" with o = 0, 1, 2.
        first: per direction "e".
        numbers: of the local functions "n" (x fastest) among the dofs of the space; None where they are these.
    """

    shape: tuple[int, ...]
    tables: tuple[Float[Tensor, "o e q a"], ...]
    first: tuple[Int[Tensor, "e"], ...]
    numbers: Int[Tensor, "n"] | None = None
    made: dict[Any, list[Tensor]] = field(default_factory=dict)

    @classmethod
    @outside_transforms()
    def of(
        cls,
        knots: Sequence[Tensor],
        degrees: Sequence[int],
        corners: Sequence[Float[Tensor, "_"]],
        lines: Sequence[Float[Tensor, "_"]],
        numbers: Tensor | None = None,
    ) -> "PatchBasis":
        """Those of knots per direction at 1-D points `lines` in [0, 1] of the spans between `corners`."""
        tables, starts = [], []
        for t, p, c, line in zip(knots, degrees, corners, lines, strict=True):
            t, c = t.detach(), c.detach().to(t)
            u = torch.lerp(c[:-1, None], c[1:, None], line.to(t))
            span = find_span(t, p, 0.5 * (c[:-1] + c[1:]))
            table = basis_functions(t, p, u, 2, span[:, None].expand(u.shape)).movedim(1, 0)
            tables.append(table * c.diff()[:, None, None] ** torch.arange(3, device=c.device)[:, None, None, None])
            starts.append(span - p)
        shape = tuple(len(t) - p - 1 for t, p in zip(knots, degrees, strict=True))
        return cls(shape, tuple(tables), tuple(starts), numbers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Functions on a span, per direction."""
        return tuple(t.shape[-1] for t in self.tables)

    @property
    def num_points(self) -> tuple[int, ...]:
        """Points on a span, per direction."""
        return tuple(t.shape[2] for t in self.tables)

    @property
    def num_spans(self) -> tuple[int, ...]:
        return tuple(t.shape[1] for t in self.tables)

    @cached_property
    def pairs(self) -> tuple[Float[Tensor, "o e q a"], ...]:
        """Products of derivatives o ≤ p of each function, as `pair_order` counts them."""
        return tuple(torch.stack([t[o] * t[p] for p in range(len(t)) for o in range(p + 1)]) for t in self.tables)

    def matrix(self, axis: int, order: int, kind: str = "plain", spans: slice = slice(None)) -> Float[Tensor, "k n"]:
        """All functions of a direction at the points of some spans; of their absolute values or their products."""
        table = (self.pairs if kind == "pairs" else self.tables)[axis][order][spans]
        e, q, a = table.shape
        matrix = table.new_zeros(e, q, self.shape[axis])
        index = (self.first[axis][spans, None] + torch.arange(a, device=table.device))[:, None].expand(e, q, a)
        return matrix.scatter(2, index, table.abs() if kind == "size" else table).flatten(0, 1)

    def laid_out(self, kind: str, width: int, dtype: torch.dtype) -> list[Tensor]:
        """Tables for generated code: along lines "o q a e" with spans inmost, padded to a multiple of `width`, within
        layers (a one on surfaces) and across them "o e q a"."""
        key = kind, width, dtype
        if key not in self.made:
            tables = [
                (t.abs() if kind == "size" else t).to(dtype) for t in (self.pairs if kind == "pairs" else self.tables)
            ]
            line = pad(tables[0].movedim(1, -1), (0, -tables[0].shape[1] % width)).contiguous()
            middle = tables[1] if len(tables) == 3 else torch.ones(1, dtype=dtype, device="cpu")
            self.made[key] = [line, middle.contiguous(), tables[-1].contiguous()]
        return self.made[key]

    def local(self, u: Float[Tensor, "b n c"]) -> Float[Tensor, "b m c"]:
        """What a dof tensor has on the patch."""
        return u if self.numbers is None else u[:, self.numbers]

    def add_to(self, total: Float[Tensor, "b n c"], part: Float[Tensor, "b m c"]) -> None:
        """The transpose of `local`."""
        if self.numbers is None:
            total += part
        else:
            total.index_add_(1, self.numbers, part)


def pair_order(one: Order, two: Order) -> Order:
    """Which of a table's `pairs` belongs to two derivatives, per direction."""
    return tuple(min(o, p) + max(o, p) * (max(o, p) + 1) // 2 for o, p in zip(one, two, strict=True))
