"""Some intervals, triangles or tetrahedra divided, and as many neighbours as it takes that no node hangs.

A simplex is halved at the midpoint of its refinement edge, the one between its vertices 0 and 1; where that leaves a
node on an edge of a neighbour, the neighbour is halved at its own refinement edge, until nothing hangs. The first
refinement edge is the longest. Later ones follow from the vertices that are newest, so that triangles fall into four
classes of similar ones at most for each of the first mesh, tetrahedra into 72 (Mitchell, A comparison of adaptive
refinement techniques for elliptic problems, 1989; Arnold, Mukherjee and Pouly, Locally adapted tetrahedral meshes using
bisection, 2000).

Marks of a tetrahedron (v₀, v₁, v₂, v₃) with refinement edge v₀v₁: the faces opposite to v₀ and to v₁ have a marked edge
each, told by the vertex of the face that is not on it; both faces at v₀v₁ have that one. A child's refinement edge is
the marked edge of the face that it has from its parent, halves of faces have the edge opposite to the new vertex
marked, and so has the face between the children, unless the parent is flagged and has all marked edges in one plane:
then the edge from the new vertex to the one that the marked edges share. Children of a parent with all marked edges in
one plane that is not flagged are flagged.
"""

from functools import cache
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.refinement.history import Pieces
from fem.mesh.topology import Topology
from fem.reference.cells import Cell, interval
from fem.support.transforms import outside_transforms

SIZE = 2**31  # more vertices than there are: pairs of them fit into one integer


def bisected(
    nodes: Float[Tensor, "n d"], topology: Topology, chosen: Bool[Tensor, "e"], marks: Int[Tensor, "e 3"] | None
) -> tuple[Int[Tensor, "m v"], int, Pieces, Int[Tensor, "m 3"]]:
    """Vertices of the cells, the old ones first, with their number, what they are pieces of, and their marks.

    The chosen cells are halved as often as they have dimensions, so that all of their edges are.
    """
    (block,), (vertices,) = topology.blocks, topology.cell_vertices
    cell, count = block.cell, len(topology.vertex_nodes)
    corners = torch.tensor(cell.vertices, dtype=nodes.dtype, device=nodes.device).expand(len(vertices), -1, -1)
    if marks is None:
        order, marks = longest_first(nodes, topology)
        vertices, corners = vertices.gather(1, order), rows(corners, order)
    parents, left = torch.arange(len(vertices), device=nodes.device), cell.dim * chosen.long()
    pairs, middles = vertices.new_empty(0), vertices.new_empty(0)  # edges that were halved, in ascending order
    while True:
        halve = left > 0
        maybe = torch.nonzero(~halve).flatten()
        keys = edges_of(cell, vertices[maybe])
        halve[maybe[(lookup(pairs, keys) >= 0).any(1)]] = True
        if not bool(halve.any()):
            break
        own, key = vertices[halve], pair(vertices[halve, 0], vertices[halve, 1])
        new = key[lookup(pairs, key) < 0].unique()
        pairs, order = torch.cat([pairs, new]).sort()
        middles = torch.cat([middles, count + torch.arange(len(new), device=new.device)])[order]
        count += len(new)
        own = torch.cat([own, middles[lookup(pairs, key)][:, None]], 1)
        place = torch.cat([corners[halve], corners[halve][:, :2].mean(1, keepdim=True)], 1)
        parts = [[t[~halve]] for t in (vertices, corners, marks, parents, left)]
        for side in (0, 1):
            order, marked = child(cell, marks[halve], side)
            young = own.gather(1, order), rows(place, order), marked, parents[halve], (left[halve] - 1).clamp(min=0)
            for part, new in zip(parts, young, strict=True):
                part.append(new)
        vertices, corners, marks, parents, left = (torch.cat(part) for part in parts)
    order = parents.argsort(stable=True)
    return vertices[order], count, Pieces.of(parents[order], corners[order]), marks[order]


def rows(values: Float[Tensor, "e v r"], order: Int[Tensor, "e w"]) -> Float[Tensor, "e w r"]:
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


def pair(first: Int[Tensor, "*s"], second: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """One number for two vertices, in whatever order."""
    return torch.minimum(first, second) * SIZE + torch.maximum(first, second)


def edges_of(cell: Cell, vertices: Int[Tensor, "e v"]) -> Int[Tensor, "e k"]:
    first, second = torch.tensor(cell.edges, device=vertices.device).T
    return pair(vertices[:, first], vertices[:, second])


def lookup(known: Int[Tensor, "m"], keys: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """Where each key stands among ascending ones, −1 where it does not."""
    if len(known) == 0:
        return torch.full_like(keys, -1)
    at = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
    return torch.where(known[at] == keys, at, -1)


def longest_first(nodes: Float[Tensor, "n d"], topology: Topology) -> tuple[Int[Tensor, "e v"], Int[Tensor, "e 3"]]:
    """Orders of the vertices, even permutations, by which the longest edges come first, and marks of the faces.

    Of equal edges the one with the higher number counts as longer, wherever it is seen from.
    """
    cell, edges = topology.blocks[0].cell, topology.entities(interval)
    if cell.dim == 1:
        return topology.cell_vertices[0].new_tensor([0, 1]).expand(topology.num_cells, -1), no_marks(topology)
    ends = nodes[topology.vertex_nodes[edges.vertices]]
    rank = torch.empty_like(edges.vertices[:, 0])
    rank[(ends[:, 0] - ends[:, 1]).norm(dim=-1).argsort(stable=True)] = torch.arange(len(rank), device=rank.device)
    rank = rank[edges.of_cells[0]]  # "e k"
    order = leading(cell).to(rank.device)[rank.argmax(1)]
    marks = no_marks(topology)
    if cell.dim == 3:
        between = torch.zeros(4, 4, dtype=torch.int64, device=rank.device)
        for k, (i, j) in enumerate(cell.edges):
            between[i, j] = between[j, i] = k
        for face in (0, 1):
            # Of the face opposite to this vertex, each vertex is opposite to an edge.
            off = torch.tensor([v for v in range(4) if v != face], device=rank.device)
            others = order[:, [[v for v in off.tolist() if v != o] for o in off.tolist()]]  # "e 3 2"
            marks[:, face] = off[rank.gather(1, between[others[..., 0], others[..., 1]]).argmax(1)]
    return order, marks


def no_marks(topology: Topology) -> Int[Tensor, "e 3"]:
    return torch.zeros(topology.num_cells, 3, dtype=torch.int64, device=topology.device)


def is_even(order: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in combinations(order, 2)) % 2 == 0


@cache
@outside_transforms()
def leading(cell: Cell) -> Int[Tensor, "k v"]:
    """For each edge an even permutation of the vertices that starts with it."""
    found = []
    for edge in cell.edges:
        order = (*edge, *(v for v in range(cell.num_vertices) if v not in edge))
        found.append(order if is_even(order) else (order[1], order[0], *order[2:]))
    return torch.tensor(found, device="cpu")


def child(cell: Cell, marks: Int[Tensor, "e 3"], side: int) -> tuple[Int[Tensor, "e v"], Int[Tensor, "e 3"]]:
    """The half of each simplex that keeps vertex 0 or 1: its vertices, of which the new one is the last, as an even
    permutation of the parent's with the new one in the other's place, and its marks."""
    table, swapped = halves(cell, side)
    off = marks[:, 1 - side] if cell.dim == 3 else torch.zeros_like(marks[:, 0])
    order, young = table.to(marks.device)[off], torch.zeros_like(marks)
    if cell.dim == 3:
        plane, flagged = marks[:, 0] == marks[:, 1], marks[:, 2] == 1
        kept = swapped.to(marks.device)[off].long()  # where the kept vertex stands
        young[:, :2] = 3
        young.scatter_(1, kept[:, None], torch.where(plane & flagged, 2, 3)[:, None])
        young[:, 2] = (plane & ~flagged).long()
    return order, young


@cache
@outside_transforms()
def halves(cell: Cell, side: int) -> tuple[Int[Tensor, "o v"], Bool[Tensor, "o"]]:
    """Orders of `child` for each vertex that is off the inherited face's marked edge, and whether the first two changed
    places for it to be even."""
    new, orders, swapped = cell.dim + 1, [], []
    for off in range(cell.num_vertices):
        rest = [v for v in range(cell.num_vertices) if v != 1 - side]
        if cell.dim == 3:
            if off == 1 - side:  # not on the face
                orders.append([0] * 4)
                swapped.append(False)
                continue
            rest = [*(v for v in rest if v != off), off]
        order = [*rest, new]
        # The place of the vertex that the new one replaces, in its order.
        even = cell.dim == 1 or is_even(tuple(1 - side if v == new else v for v in order))
        if cell.dim == 1:
            order = [0, new] if side == 0 else [new, 1]
        orders.append(order if even else [order[1], order[0], *order[2:]])
        swapped.append(not even)
    return torch.tensor(orders, device="cpu"), torch.tensor(swapped, device="cpu")
