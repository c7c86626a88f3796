"""Cells that touch without sharing nodes: found by their coordinates, told in words, and joined on request.

Functions may jump there. What a cut leaves are facets that belong to one cell alone, so that only vertices of the
boundary are looked at: whether two are at one place, and whether one hangs on a cell that does not have it, or lies
inside it.
"""

from collections.abc import Iterator, Sequence
from math import ceil, log10

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.conformity import check_sides, listed
from fem.mesh.search.box_search import Boxes
from fem.mesh.search.inverse_map import bounds, pull_back
from fem.mesh.topology import Block, Topology
from fem.reference.lagrange import barycentric_map
from fem.support.portions import at_a_time

NEAR = 1e-6  # of the size of a cell: what is nearer lies at the same place
DEEP = 1e-2  # of the size of a cell: what lies less deep inside may belong to a curved boundary, met by a polygon


def gaps(nodes: Float[Tensor, "n d"], topology: Topology, may_hang: bool = False) -> str:
    """Where cells touch without being connected, and what to do, in words; nothing where all that touch are.

    Args:
        may_hang: hanging nodes are meant.

    Raises:
        MeshError: cells reach into one another; they are named.
    """
    nodes = nodes.detach()
    if len(topology.boundary) == 0:  # a closed surface
        return ""
    glued, coincidence = glue(nodes, topology)
    hung = hanging(nodes, glued)
    found = list(filter(None, [coincidence, "" if may_hang else hung]))
    if not found:
        return ""
    return " ".join(["some cells touch without sharing their nodes.", *found, "`merge=False` says that it is meant."])


def glue(nodes: Float[Tensor, "n d"], topology: Topology) -> tuple[Topology, str]:
    """The cells as if vertices of the boundary at one place were one, and what there is to say about these.

    Raises:
        MeshError: cells overlap then.
    """
    rim = rim_of(topology)
    reach = near(nodes) * shortest_edges(nodes, topology)
    pairs = rim[coincident(nodes[rim], reach[rim])]
    if pairs.shape[1] == 0:
        return topology, ""
    lowest = lowest_of_each(len(nodes), pairs)
    glued = Topology([Block(b.cell, b.degree, lowest[b.connectivity]) for b in topology.blocks], len(nodes))
    if topology.dim == nodes.shape[1]:
        check_sides(glued)
    extra = torch.nonzero(lowest != torch.arange(len(lowest), device=lowest.device)).flatten()
    first, again = int(lowest[extra[0]]), int(extra[0])
    distance = float((nodes[pairs[0]] - nodes[pairs[1]]).norm(dim=1).max())
    distance = max(distance, 1e-10 * float(nodes.max() - nodes.min()))
    facets = (len(topology.boundary) - len(glued.boundary)) // 2
    return glued, (
        f"Nodes that coincide with another one: {len(extra)}, such as nodes {first} and {again} at "
        f"{nodes[again].tolist()}; facets that stand twice: {facets}. "
        f"`merge={10.0 ** ceil(log10(2 * distance)):g}` makes one node of those at one place."
    )


def hanging(nodes: Float[Tensor, "n d"], topology: Topology) -> str:
    """What there is to say about vertices of the boundary that lie on cells that do not have them.

    Raises:
        MeshError: one lies inside a cell, or another point of a cell at the boundary does.
    """
    points, owner = probes(nodes, topology)
    hung = dict[int, int]()
    for point, cell, depth in holders(nodes, topology, points, owner):
        if topology.dim == nodes.shape[1] and bool((depth > DEEP).any()):
            k = int(depth.argmax())
            own, x, holder = int(owner[point[k]]), points[point[k]].tolist(), listed(topology, [int(cell[k])])
            what = f"node {-1 - own}" if own < 0 else f"a point of {listed(topology, [own])}"
            raise MeshError(
                f"cells overlap: {what} at {x} lies inside {holder}. Where bodies in contact may overlap, say so by "
                "`merge=False`."
            )
        pairs = zip(owner[point].tolist(), cell.tolist(), strict=True)
        hung |= {-1 - own: number for own, number in pairs if own < 0}
    if not hung:
        return ""
    node, cell = min(hung.items())
    return (
        f"Hanging nodes: {len(hung)}, such as node {node} at {nodes[node].tolist()}, which lies on "
        f"{listed(topology, [cell])} but is no vertex of it; divide such cells so that they share the node, or let it "
        "hang: `Mesh(..., hanging=True)`, with `hanging_nodes(V)` among the constraints."
    )


def near(nodes: Tensor) -> float:
    """How near, relative to the size of a cell, is at the same place."""
    return max(NEAR, torch.finfo(nodes.dtype).eps ** (2 / 3))


def rim_of(topology: Topology) -> Int[Tensor, "k"]:
    """The mesh nodes at the vertices of the boundary."""
    vertices = topology.facets.vertices[topology.boundary].unique()
    return topology.vertex_nodes[vertices[vertices >= 0]]


def cells_at(topology: Topology) -> list[Int[Tensor, "e"]]:
    """The cells that have a facet on the boundary, block by block."""
    facets, boundary = topology.facets, topology.boundary
    block, cell = facets.block[boundary], facets.cell[boundary]
    return [cell[block == i].unique() for i in range(len(topology.blocks))]


def shortest_edges(nodes: Float[Tensor, "n d"], topology: Topology) -> Float[Tensor, "n"]:
    """The length of the shortest edge at each vertex, among those of cells at the boundary."""
    shortest = nodes.new_full((len(nodes),), torch.inf)
    for block, cells in zip(topology.blocks, cells_at(topology), strict=True):
        ends, length = edges(nodes, block, cells)
        shortest = shortest.scatter_reduce(0, ends.flatten(), length[..., None].expand_as(ends).flatten(), "amin")
    return shortest


def edges(
    nodes: Float[Tensor, "n d"], block: Block, cells: Int[Tensor, "e"]
) -> tuple[Int[Tensor, "e k 2"], Float[Tensor, "e k"]]:
    """The nodes at the ends of the edges of some cells, and how far they are from each other."""
    ends = block.nodes_of(cells)[:, torch.tensor(block.cell.edges, device=nodes.device)]
    return ends, (nodes[ends[..., 0]] - nodes[ends[..., 1]]).norm(dim=-1)


def probes(nodes: Float[Tensor, "n d"], topology: Topology) -> tuple[Float[Tensor, "m d"], Int[Tensor, "m"]]:
    """Points of the boundary, with the cell that each belongs to, or −1 − n for the vertex n.

    Where cells fill their space, a point inside each cell near each of its facets on the boundary goes with the
    vertices: they do not tell where cells cross that have all of them in common, or on the boundary of each other.
    """
    rim, facets = rim_of(topology), topology.facets
    points, owners = [nodes[rim]], [-1 - rim]
    for i, block in enumerate(topology.blocks if topology.dim == nodes.shape[1] else ()):
        vertices = torch.tensor(block.cell.vertices, dtype=torch.float64, device="cpu")
        for local, facet in enumerate(block.cell.facets):
            inside = 0.8 * vertices[list(facet)].mean(0) + 0.2 * vertices.mean(0)
            here = topology.boundary[
                (facets.block[topology.boundary] == i) & (facets.local[topology.boundary] == local)
            ]
            weights = block.element.tabulate(inside[None], 0).value[0, 0].to(nodes)
            points.append(weights @ nodes[block.nodes_of(facets.cell[here])])
            owners.append(topology.block_starts[i] + facets.cell[here])
    return torch.cat(points), torch.cat(owners)


def holders(
    nodes: Float[Tensor, "n d"], topology: Topology, points: Float[Tensor, "m d"], owner: Int[Tensor, "m"]
) -> Iterator[tuple[Int[Tensor, "k"], Int[Tensor, "k"], Float[Tensor, "k"]]]:
    """Which points lie in cells that are not their owners (see `probes`): the points, the cells and how deep they lie,
    the least of the cell's coordinates λ."""
    lower, upper = bounds(nodes, topology.blocks)
    roundoff = 8 * torch.finfo(nodes.dtype).eps * float(nodes.abs().max())
    slack = near(nodes) * (upper - lower).amax(1) + 2 * roundoff
    for point, candidate in Boxes(lower - slack[:, None], upper + slack[:, None]).pairs(points):
        for i, block in enumerate(topology.blocks):
            start, stop = topology.block_starts[i : i + 2]
            here = (candidate >= start) & (candidate < stop)
            p, c = point[here], candidate[here]
            vertices = block.connectivity[:, : block.cell.num_vertices][c - start]
            foreign = (owner[p] != c) & (vertices != (-1 - owner[p])[:, None]).all(1)
            pairs = torch.stack([p[foreign], c[foreign]])
            width = 8 * block.connectivity[0].numel() * points.shape[1]  # what is made of each coordinate of a node
            for p, c in pairs.split(at_a_time(width, points, roomy=True), 1):
                corners = nodes[block.connectivity[c - start]]
                at, inside = pull_back(block.element, corners, points[p], slack[c], near(nodes), roundoff)
                matrix, offset = barycentric_map(block.cell)
                depth = (at[inside] @ matrix.T.to(at) + offset.to(at)).amin(1)
                yield p[inside], c[inside], depth


def coincident(points: Float[Tensor, "n d"], reach: Float[Tensor, "n"]) -> Int[Tensor, "2 m"]:
    """Pairs i ≠ j with |x_i − x_j| ≤ min(reach_i, reach_j): enough of them that every such i and j hang together.

    Points are sorted along a direction that no mesh is aligned with: partners are then neighbours, or nearly so.
    """
    direction = points.new_tensor([0.5436, 0.7259, 0.4213])[: points.shape[1]]
    along, order = ((points @ direction) / direction.norm()).sort()
    points, reach = points[order], reach[order]
    # What a partner further down the line may still reach; round-off in `along` is that of the coordinates.
    far = along + reach + 8 * torch.finfo(along.dtype).eps * along.abs().max()
    found, first, step = [], torch.arange(len(points), device=points.device), 1
    while len(first := first[first + step < len(points)]):
        first = first[along[first + step] <= far[first]]
        second = first + step
        distance = (points[first] - points[second]).norm(dim=1)
        near = distance <= torch.minimum(reach[first], reach[second])
        found.append(torch.stack([order[first[near]], order[second[near]]]))
        # A copy that reaches as far finds the other partners by itself.
        first, step = first[(distance > 0) | (reach[second] < reach[first])], step + 1
    return torch.cat(found, 1) if found else order.new_zeros(2, 0)


def lowest_of_each(count: int, pairs: Int[Tensor, "2 m"]) -> Int[Tensor, "n"]:
    """The lowest of all numbers that pairs lead to, for each of 0, …, count − 1."""
    lowest = torch.arange(count, device=pairs.device)
    both = torch.cat([pairs, pairs.flip(0)], 1)
    while True:
        better = lowest.scatter_reduce(0, both[0], lowest[both[1]], "amin")
        better = better[better]  # as far as the partner itself has come: twice the way each time
        if torch.equal(better, lowest):
            return lowest
        lowest = better


def merged(nodes: Float[Tensor, "n d"], blocks: Sequence[Block], distance: float) -> Int[Tensor, "n"]:
    """For each node the one that takes its place: the lowest-numbered of those that lie within `distance`, in chains.

    Raises:
        MeshError: nodes of one cell would become one.
    """
    nodes = nodes.detach()
    used = torch.zeros(len(nodes), dtype=torch.bool, device=nodes.device)
    for block in blocks:
        used[block.connectivity] = True
        for cells in block.portions():
            length = edges(nodes, block, cells)[1].amin(1) / block.degree
            if bool((length <= distance).any()):
                wrong = int(torch.nonzero(length <= distance)[0])
                raise MeshError(
                    f"`merge={distance:g}` would make one of two nodes of {block.cell.name} {int(cells[wrong])}, which "
                    f"are {float(length[wrong]):.3g} apart; give a smaller distance."
                )
    used = torch.nonzero(used).flatten()
    pairs = used[coincident(nodes[used], torch.full_like(nodes[used, 0], distance))]
    return lowest_of_each(len(nodes), pairs)
