"""Which dofs belong to which cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Int
from torch import Tensor

from fem.mesh.topology import Topology


@dataclass(frozen=True, eq=False)
class CellDofs:
    """Numbers "e a" below `count` of the local dofs of every cell, one tensor for each block of the mesh.

    They are listed, or follow from a topology and the degree of Lagrange elements: those of a grid are made only for
    the cells that somebody asks for.
    """

    source: Topology | tuple[Int[Tensor, "_ _"], ...]
    count: int
    degree: int = 0

    @cached_property
    def blocks(self) -> tuple[Int[Tensor, "_ _"], ...]:
        return self.source.lagrange_numbering(self.degree)[0] if isinstance(self.source, Topology) else self.source

    def __iter__(self) -> Iterator[Int[Tensor, "_ _"]]:
        return iter(self.blocks)

    def __getitem__(self, block: int) -> Int[Tensor, "e a"]:
        return self.blocks[block]

    def of(self, block: int, cells: Int[Tensor, "e"] | None) -> Int[Tensor, "e a"]:
        """The rows of some cells of a block, or all."""
        if cells is not None and isinstance(self.source, Topology) and self.source.grid is not None:
            return self.source.grid.cell_nodes(self.degree, cells)
        return self[block] if cells is None else self[block][cells]
