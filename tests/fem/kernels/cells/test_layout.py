"""Layouts: every cell once, group by group; blocks know their nodes, and nodes their blocks."""

import pytest
import torch
from torch import Tensor

from fem.kernels.cells.layout import Layout, Numbering, block_size, function
from fem.space.gather_scatter import GatherScatter
from fem.support.native import WORTH, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


def made(counts: tuple[int, ...], nodes: int, local: int, size: int) -> tuple[Layout, GatherScatter, Numbering]:
    generator, cells = torch.Generator().manual_seed(0), sum(counts)
    assert function().ready(WORTH)
    dofs = torch.randint(nodes, (cells, local), generator=generator)
    layout = Layout(torch.rand(cells, 3, generator=generator), counts, size)
    cells_dofs = GatherScatter(dofs, nodes)
    return layout, cells_dofs, layout.numbering(cells_dofs)


def global_numbers(layout: Layout, numbering: Numbering, local: int) -> Tensor:
    """The dofs of all cells in order, as the blocks have them."""
    numbers = numbering.local.long().view(layout.blocks, local, layout.size) + numbering.start[:-1, None, None]
    found = numbering.nodes.long()[numbers].mT
    return torch.cat([block[:n] for block, n in zip(found, layout.bounds.diff().tolist(), strict=True)])


@pytest.mark.parametrize("counts", [(100,), (1,), (33, 7, 64, 1)])
def test_blocks_have_the_dofs_of_their_cells(counts: tuple[int, ...]) -> None:
    layout, cells, numbering = made(counts, 50, 4, 16)
    order = layout.order.long()
    assert torch.equal(order.sort().values, torch.arange(sum(counts)))
    assert torch.equal(global_numbers(layout, numbering, 4), cells.dofs[order])
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert torch.equal(group[order], torch.repeat_interleave(layout.groups.long(), layout.bounds.diff().long()))


def test_nodes_know_where_they_stand() -> None:
    _, cells, numbering = made((100,), 50, 4, 16)
    times = numbering.first.diff().long()
    assert torch.equal(times, torch.bincount(numbering.nodes.long(), minlength=cells.count))
    assert torch.equal(numbering.nodes[numbering.place.long()].long(), torch.repeat_interleave(torch.arange(50), times))
    assert numbering.most == int(numbering.start.diff().max())


def test_neighbours_stand_together() -> None:
    """Blocks of cells in space have far fewer nodes than cells times nodes of a cell, whatever the numbers."""
    x = torch.cartesian_prod(*[torch.arange(16.0)] * 3)
    corners = torch.cartesian_prod(*[torch.arange(2)] * 3)
    dofs = ((x.long()[:, None] + corners) * torch.tensor([17 * 17, 17, 1])).sum(-1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    numbering = Layout(x[order], (len(x),), 64).numbering(GatherScatter(dofs[order], 17**3))
    assert numbering.most == 5**3  # cubes of four cells a side


def test_equal_maps_have_one_numbering() -> None:
    layout, cells, numbering = made((40,), 20, 3, 16)
    assert layout.numbering(GatherScatter(cells.dofs.clone(), cells.count)) is numbering


def test_blocks_are_vectors_of_cells() -> None:
    assert [block_size(a) for a in (3, 4, 8, 10, 27, 64, 2000)] == [256, 256, 128, 64, 32, 16, 16]
