"""Where the cells of a refined mesh come from, and what the next refinement has to know of the last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.topology import unique_rows
from fem.reference.cells import Cell
from fem.reference.lagrange import lagrange_element
from fem.support.transforms import outside_transforms


@dataclass(frozen=True, eq=False)
class Pieces:
    """The new cells of one block: each is the image of one of a few simplices or boxes within its parent's reference
    cell, `shapes[kind]`, told by their vertices.

    parents: numbers within the block.
    """

    parents: Int[Tensor, "e"]
    kind: Int[Tensor, "e"]
    shapes: Float[Tensor, "s v r"]

    @classmethod
    def of(cls, parents: Int[Tensor, "e"], corners: Float[Tensor, "e v r"]) -> "Pieces":
        """From the vertices of every cell."""
        number = torch.unique(corners.flatten(1), return_inverse=True)[1]
        kind, first = unique_rows(number)
        return cls(parents, kind, corners[first])

    def to(self, device: torch.device) -> "Pieces":
        return Pieces(self.parents.to(device), self.kind.to(device), self.shapes.to(device))


@dataclass(frozen=True, eq=False)
class History:
    """Of the cells of a topology: `identity` is that of the one they are pieces of, block by block, which may have a
    history before.

    marks: of simplices that know their next bisections (`fem.mesh.refinement.bisection`).
    levels, middles: how often quadrilaterals and hexahedra were divided, and which vertices stand halfway between two
        others, (lower, higher, middle), sorted by the pair: of neighbours that differ in level.
    """

    identity: object
    num_parents: tuple[int, ...]
    make: Callable[[], tuple[Pieces, ...]]
    marks: Int[Tensor, "e 3"] | None = None
    levels: Int[Tensor, "e"] | None = None
    middles: Int[Tensor, "m 3"] | None = None
    before: "History | None" = None

    @cached_property
    @outside_transforms()
    def pieces(self) -> tuple[Pieces, ...]:
        return self.make()

    @property
    def parents(self) -> Int[Tensor, "e"]:
        """The parent of each cell, counted over all blocks."""
        starts = [0, *accumulate(self.num_parents)]
        return torch.cat([own.parents + start for own, start in zip(self.pieces, starts, strict=False)])

    def seen_from_parents(
        self, kinds: Sequence[Cell], cells: Int[Tensor, "m"], at: Float[Tensor, "m r"]
    ) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
        """The parents of some cells, and reference coordinates there of points given in the cells.

        Args:
            kinds: of each block.
        """
        parents, found, start, behind = torch.empty_like(cells), torch.empty_like(at), 0, 0
        for kind, own, count in zip(kinds, self.pieces, self.num_parents, strict=True):
            end = start + len(own.parents)
            rows = torch.nonzero((cells >= start) & (cells < end)).flatten()
            piece = cells[rows] - start
            weights = lagrange_element(kind, 1).tabulate(at[rows], 0).value[0]
            found[rows] = torch.einsum("mv,mvr->mr", weights, own.shapes.to(at)[own.kind[piece]])
            parents[rows] = behind + own.parents[piece]
            start, behind = end, behind + count
        return parents, found

    def to(self, device: torch.device) -> "History":
        """The same on another device."""
        moved = lambda t: None if t is None else t.to(device)  # noqa: E731
        return History(
            self.identity,
            self.num_parents,
            Made(tuple(own.to(device) for own in self.pieces)),
            *map(moved, (self.marks, self.levels, self.middles, self.before)),
        )


@dataclass(frozen=True, eq=False)
class Made:
    """What is there already, as something to call."""

    pieces: tuple[Pieces, ...]

    def __call__(self) -> tuple[Pieces, ...]:
        return self.pieces
