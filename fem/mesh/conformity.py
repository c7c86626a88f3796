"""Whether cells fit together: no facet has more than two of them, one on each side, and both give it the same shape.

All this is a matter of numbers alone. Curves and surfaces in space may branch, so that their facets may have any number
of cells; no two cells may have the same vertices there either. What only coordinates tell: `fem.mesh.gaps`.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.jacobian import determinant
from fem.mesh.topology import Topology, unique_rows
from fem.reference.cells import Cell
from fem.reference.lagrange import lagrange_element

APART = 1e-4  # of the size of a cell: nodes of a facet that are nearer are the same but for their digits
FEW = 4  # cells that a message names


def check_facets(nodes: Float[Tensor, "n d"], topology: Topology) -> None:
    """Raise where cells stand twice or lie on their neighbours, or bend a facet that they share in different ways.

    Raises:
        MeshError: the cells are named.
    """
    if topology.dim == nodes.shape[1]:
        check_sides(topology)
    else:
        check_distinct(topology)
    check_common_shape(nodes, topology)


def check_distinct(topology: Topology) -> None:
    """Raise where two cells have the same vertices."""
    for i, vertices in enumerate(topology.cell_vertices):
        number, first = unique_rows(vertices.sort(1).values)
        if len(first) < len(number):
            again = int(torch.nonzero(first[number] != torch.arange(len(number), device=number.device))[0])
            start = topology.block_starts[i]
            raise MeshError(twice(topology, start + int(first[number[again]]), start + again))


def check_sides(topology: Topology) -> None:
    """Raise at facets with more than two cells, or with two on one side."""
    count, side = topology.facets.num_cells, torch.cat([sides(topology, kind) for kind in topology.facet_kinds])
    wrong = (count > 2) | ((count == 2) & (side != 0))
    if not bool(wrong.any()):
        return
    facet = int(torch.nonzero(wrong)[0])
    number, owner = topology.facets_of_cells()
    block, cell, _ = owner[:, number == facet].tolist()
    cells = [topology.block_starts[b] + c for b, c in zip(block, cell, strict=True)]
    vertices = [set(topology.cell_vertices[b][c].tolist()) for b, c in zip(block, cell, strict=True)]
    for i, mine in enumerate(vertices):
        if mine in vertices[:i]:
            raise MeshError(twice(topology, cells[vertices.index(mine)], cells[i]))
    nodes = [n for n in topology.facet_nodes[facet].tolist() if n >= 0]
    more = int(wrong.sum()) - 1
    raise MeshError(
        f"cells lie on top of their neighbours: {listed(topology, cells)} share the facet of the nodes {nodes}, which "
        f"has room for one on each side{f', and {more} more facets are like that' if more else ''}. Cells overlap, or "
        "nodes have crossed."
    )


def sides(topology: Topology, kind: Cell) -> Int[Tensor, "f"]:
    """Σ, over the cells at each facet of one kind, of the side of it, 1 or −1, on which they lie."""
    entities = topology.entities(kind)
    total = torch.zeros(len(entities.vertices), dtype=torch.int64, device=topology.device)
    for block, vertices, number in zip(topology.blocks, topology.cell_vertices, entities.of_cells, strict=True):
        if block.cell.facet_cell is kind:
            for local, facet in enumerate(block.cell.facets):
                total.index_add_(0, number[:, local], side_of_facet(block.cell, local, vertices[:, list(facet)]))
    return total


def side_of_facet(cell: Cell, local: int, vertices: Int[Tensor, "e v"]) -> Int[Tensor, "e"]:
    """1 or −1: the side of its facet on which a cell lies; two cells see the vertices of a facet in different orders.

    The sign of the permutation that sorts the vertices (of quadrilaterals: of the neighbours of the lowest), times that
    of the reference facet's frame (outward normal, tangents).
    """
    _, tangents = cell.frame(cell.facets[local])
    frame = torch.cat([cell.facet_normals[local][None], tangents])
    if vertices.shape[1] == 4:
        lowest = vertices.argmin(1, keepdim=True)
        vertices = vertices.gather(1, torch.cat([(lowest + 1) % 4, (lowest + 3) % 4], 1))
    odd = torch.zeros_like(vertices[:, 0], dtype=torch.bool)
    for i, j in combinations(range(vertices.shape[1]), 2):
        odd = odd ^ (vertices[:, i] > vertices[:, j])
    return round(float(determinant(frame).sign())) * (1 - 2 * odd.long())


def check_common_shape(nodes: Float[Tensor, "n d"], topology: Topology) -> None:
    """Raise where curved cells put the nodes of a facet that they share in different places."""
    degree = max(block.degree for block in topology.blocks)
    if degree == 1:
        return
    numbering, count = topology.lagrange_numbering(degree)

    def places() -> Iterator[tuple[Int[Tensor, "e a"], Float[Tensor, "e a d"]]]:
        """The nodes of that degree of some cells at a time, and where these cells put them."""
        for block, dofs in zip(topology.blocks, numbering, strict=True):
            table = block.element.tabulate(lagrange_element(block.cell, degree).nodes, 0).value[0].to(nodes)
            for cells in block.portions():
                corners = nodes[block.nodes_of(cells)]
                yield dofs[cells], corners if block.degree == degree else table @ corners

    place = nodes.new_empty(count, nodes.shape[1])
    for dofs, here in places():
        place[dofs] = here  # of cells that share a node one speaks for it
    for dofs, here in places():
        apart = (here - place[dofs]).norm(dim=-1)
        wrong = torch.nonzero(apart > APART * (here.amax(1) - here.amin(1)).amax(1, keepdim=True))
        if len(wrong):
            row, local = wrong[0].tolist()
            there = [torch.nonzero((own == dofs[row, local]).any(1)).flatten() for own in numbering]
            starts = topology.block_starts[:-1]
            cells = [n for start, own in zip(starts, there, strict=True) for n in (start + own).tolist()]
            raise MeshError(
                f"{listed(topology, cells)} bend what they share in different ways: their nodes there are "
                f"{float(apart[row, local]):.3g} apart, near {here[row, local].tolist()}."
            )


def listed(topology: Topology, cells: Sequence[int]) -> str:
    """Cells, numbered over all blocks, in words: "triangle 3 and quadrilateral 9"."""
    kinds = [
        next(b for b, stop in zip(topology.blocks, topology.block_starts[1:], strict=True) if c < stop) for c in cells
    ]
    names = [f"{block.cell.name} {cell}" for block, cell in zip(kinds, cells, strict=True)]
    names = names if len(names) <= FEW else [*names[: FEW - 1], f"{len(names) - FEW + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def twice(topology: Topology, first: int, second: int) -> str:
    """What is to say about two cells that have the same vertices."""
    block = max(b for b, start in enumerate(topology.block_starts[:-1]) if start <= second)
    vertices = topology.cell_vertices[block][second - topology.block_starts[block]]
    return (
        f"{listed(topology, [first, second])} are one cell that stands twice, over the nodes "
        f"{topology.vertex_nodes[vertices].tolist()}; it would count twice in every integral."
    )
