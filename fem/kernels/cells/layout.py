"""Which cells are taken together, and what they have of the nodes: made once for each map from cells to dofs.

Cells are put in the order of a space-filling curve (Morton, A computer oriented geodetic data base, 1966) and taken in
blocks. A block's cells share most of their nodes: those are read once, and what belongs to them is summed within the
block before the sums of all blocks meet at each node. Hardly anything of a cell then leaves the nearest cache, whatever
the numbering of the mesh, and no sum depends on the number of threads.
"""

from collections.abc import MutableMapping, Sequence
from threading import RLock
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.space.gather_scatter import GatherScatter
from fem.support.c_function import CFunction, c_text
from fem.support.cache import ByObject
from fem.support.native import WORTH

LOCAL = 1024  # local nodes of a block's cells, at most, as far as vectors of cells allow
FEWEST, MOST = 16, 256  # cells of a block


class Numbering(NamedTuple):
    """The nodes of each block: `nodes[start[b]:start[b + 1]]`, among which `local` "b a g" says where a cell's are.

    `place[first[n]:first[n + 1]]` is where node n stands in `nodes`; no block has more than `most` nodes.
    """

    start: Int[Tensor, "_"]
    nodes: Int[Tensor, "m"]
    local: Tensor
    first: Int[Tensor, "_"]
    place: Int[Tensor, "m"]
    most: int


class Layout:
    """The order of cells with positions "e d", and numberings of their dofs in blocks of at most `size` cells.

    Groups of cells, `counts` in each, follow one another. The cells of block b, all of one group, are
    `order[bounds[b]:bounds[b + 1]]`.
    """

    def __init__(self, positions: Float[Tensor, "e d"], counts: Sequence[int], size: int):
        self.count, self.size = len(positions), size
        x, ordered, bounds, groups, start = positions.detach().double().contiguous(), [], [0], list[int](), 0
        for group, count in enumerate(counts):
            order, room = (torch.empty(k * count, dtype=torch.int32, device="cpu") for k in (1, 3))
            function()(0, count, x.shape[1], x[start : start + count], order, room, *(0, 0, 0, size), *[None] * 9)
            ordered.append(order + start)
            start += count
            bounds += [*range(bounds[-1] + size, start, size), start]
            groups += [group] * (len(bounds) - 1 - len(groups))
        as_numbers = lambda values: torch.tensor(values, dtype=torch.int32, device="cpu")  # noqa: E731
        self.order, self.bounds, self.groups = torch.cat(ordered), as_numbers(bounds), as_numbers(groups)
        self.numberings: MutableMapping[GatherScatter, Numbering] = ByObject()

    @property
    def blocks(self) -> int:
        return len(self.groups)

    def numbering(self, cells: GatherScatter) -> Numbering:
        with _lock:
            if cells not in self.numberings:
                same = (n for other, n in self.numberings.items() if torch.equal(other.dofs, cells.dofs))
                self.numberings[cells] = next(same, None) or self.numbered(cells)
            return self.numberings[cells]

    def numbered(self, cells: GatherScatter) -> Numbering:
        dofs, n, a = cells.dofs.contiguous(), cells.count, cells.dofs.shape[1]
        assert self.size * a < 2**15, "local numbers of a block take 16 bits"
        room = lambda count, like=torch.int32: torch.empty(count, dtype=like, device="cpu")  # noqa: E731
        start, nodes = room(self.blocks + 1), room(self.count * a)
        local = room(self.blocks * a * self.size, torch.int16)
        stamp, first = torch.full((n,), -1, dtype=torch.int32, device="cpu"), torch.zeros_like(room(n + 1))
        given = self.blocks, a, n, self.size, self.bounds, dofs, stamp, room(n), start, nodes, local, first
        function()(1, self.count, 0, None, self.order, None, *given, None)
        place = room(int(start[-1]))
        function()(2, self.count, 0, None, self.order, None, *given, place)
        return Numbering(start, nodes[: len(place)].clone(), local, first, place, int(start.diff().max()))


def layout_of(cells: GatherScatter, positions: Float[Tensor, "e d"], counts: Sequence[int]) -> Layout | None:
    """The layout of some cells, with blocks of a size that fits their number of local dofs; None if not compiled."""
    with _lock:
        if cells in _layouts:
            return _layouts[cells]
        if not function().ready(WORTH) or cells.count >= 2**31 or cells.dofs.numel() >= 2**31:
            return None
        return _layouts.setdefault(cells, Layout(positions, counts, block_size(cells.dofs.shape[1])))


def block_size(local: int) -> int:
    """The power of two that is as large as it may be."""
    return min(max(1 << max(LOCAL // local, 1).bit_length() - 1, FEWEST), MOST)


def function() -> CFunction:
    return CFunction(c_text("fem.kernels.cells", "layout.c"))


_lock = RLock()
_layouts: MutableMapping[GatherScatter, Layout] = ByObject()
