"""All cells divided at the midpoints of their edges: intervals into 2, triangles and quadrilaterals into 4, tetrahedra
and hexahedra into 8.

The vertices of the pieces are nodes of degree 2 of the cell. Triangles fall into four similar ones. What four similar
tetrahedra leave of a tetrahedron is an octahedron, which is cut along the shortest of its three diagonals; of two that
are equal along the one between edges 02 and 13, which divides Kuhn's tetrahedra into such again (Bey, Tetrahedral grid
refinement, 1995; Zhang, Successive subdivisions of tetrahedra, 1995).
"""

from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.grid import Grid, number, pieces, places
from fem.mesh.jacobian import determinant
from fem.mesh.refinement.history import Pieces
from fem.mesh.topology import Block, Topology
from fem.reference.cells import Cell, tetrahedron, triangle
from fem.reference.lagrange import lagrange_element
from fem.support.transforms import outside_transforms

PAIRS = ((0, 2), (1, 3)), ((0, 1), (2, 3)), ((0, 3), (1, 2))  # opposite edges: the ends of the diagonals


def divided(
    nodes: Float[Tensor, "n d"], topology: Topology
) -> tuple[list[Int[Tensor, "_ v"]], int, tuple[Pieces, ...]]:
    """Vertices of the new cells, block by block, the old ones first; their number, and what the cells are pieces of."""
    dofs, count = topology.lagrange_numbering(2)
    found, origin = [], []
    for block, own in zip(topology.blocks, dofs, strict=True):
        table = children(block.cell).to(own.device)  # "w k v"
        way = shortest_diagonal(nodes, block) if block.cell is tetrahedron else torch.zeros_like(own[:, 0])
        local = table[way]
        found.append(own[:, None].expand(-1, local.shape[1], -1).gather(2, local).flatten(0, 1))
        cells = torch.arange(len(own), device=own.device)
        kind = way[:, None] * table.shape[1] + torch.arange(table.shape[1], device=own.device)
        shapes = lagrange_element(block.cell, 2).nodes[children(block.cell)].flatten(0, 1).to(nodes)
        origin.append(Pieces(cells.repeat_interleave(table.shape[1]), kind.flatten(), shapes))
    return found, count, tuple(origin)


def shortest_diagonal(nodes: Float[Tensor, "n d"], block: Block) -> Int[Tensor, "e"]:
    """Which of `PAIRS` has its midpoints nearest to each other, the first of those that are equal but for round-off."""
    x = nodes[block.connectivity[:, :4]]
    length = [(x[:, a].sum(1) - x[:, b].sum(1)).norm(dim=-1) for a, b in (map(list, pair) for pair in PAIRS)]
    return (torch.stack(length, 1) * (1 + 1e-6 * torch.arange(3, device=x.device))).argmin(1)


@cache
@outside_transforms()
def children(cell: Cell) -> Int[Tensor, "w k v"]:
    """The nodes of degree 2 at the vertices of the pieces, for each way to divide the cell (tetrahedra: `PAIRS`)."""
    nodes, corners = lagrange_element(cell, 2).nodes, torch.tensor(cell.vertices, dtype=torch.float64, device="cpu")
    if cell is triangle:  # each with its edges in the order of the parent's
        return torch.tensor([[[0, 3, 5], [3, 1, 4], [5, 4, 2], [4, 5, 3]]], device="cpu")
    if cell is not tetrahedron:
        places = 0.5 * (corners[:, None] + corners)
        return torch.cdist(places.flatten(0, 1), nodes).argmin(1).view(1, *places.shape[:2])
    middle = lambda i, j: int(torch.cdist(0.5 * (corners[i] + corners[j])[None], nodes).argmin())  # noqa: E731
    tips = [[v if i == v else middle(i, v) for i in range(4)] for v in range(4)]
    ways = []
    for one, two in PAIRS:
        ends = [middle(*one), middle(*two)]
        ring = [middle(one[0], two[0]), middle(two[0], one[1]), middle(one[1], two[1]), middle(two[1], one[0])]
        ways.append(tips + [positive(nodes, [*ends, ring[i - 1], ring[i]]) for i in range(4)])
    return torch.tensor(ways, device="cpu")


def positive(nodes: Float[Tensor, "a r"], vertices: list[int]) -> list[int]:
    """The vertices of a simplex in an order that runs the right way round."""
    edges = nodes[vertices[1:]] - nodes[vertices[0]]
    return vertices if float(determinant(edges)) > 0 else [*vertices[:-2], *vertices[:-3:-1]]


def halved(grid: Grid) -> tuple[Grid, partial[tuple[Pieces, ...]]]:
    """The grid of twice as many cells per direction, and what makes its pieces when somebody asks for them."""
    finer = Grid(grid.cell, tuple(2 * n for n in grid.shape), grid.device)
    return finer, partial(grid_pieces, grid, finer)


def grid_pieces(grid: Grid, finer: Grid) -> tuple[Pieces, ...]:
    owner, shapes = grid_children(grid.cell)
    cells, per_box = torch.arange(finer.num_cells, device=grid.device), len(pieces(grid.cell))
    index = places(cells // per_box, finer.shape)
    kind = number([i % 2 for i in index], [2] * len(index)) * per_box + cells % per_box
    box = number([i // 2 for i in index], grid.shape)
    return (Pieces(box * per_box + owner.to(grid.device)[kind], kind, shapes.to(grid.device)),)


@cache
@outside_transforms()
def grid_children(cell: Cell) -> tuple[Int[Tensor, "s"], Float[Tensor, "s v r"]]:
    """Of the cells in each half (quarter, eighth) of a grid cell: which of its cells they lie in, and where in it."""
    corners, dim = pieces(cell).double(), cell.dim
    offsets = torch.stack(places(torch.arange(2**dim, device="cpu"), [2] * dim), -1)
    small = (0.5 * (corners + offsets[:, None, None])).flatten(0, 1)
    if len(corners) == 1:
        return torch.zeros(len(small), dtype=torch.int64, device="cpu"), small
    origin, frame = corners[:, 0], (corners[:, 1:] - corners[:, :1]).mT  # x = origin + frame ξ
    at = torch.einsum("krd,skvd->skvr", torch.linalg.inv(frame), small[:, None] - origin[:, None])
    at = (at * 2).round() / 2
    centre = at.mean(2)
    owner = torch.minimum(centre.amin(-1), 1 - centre.sum(-1)).argmax(1)
    return owner, at[torch.arange(len(owner), device="cpu"), owner]
