"""Facets that lie on larger ones of their neighbours, where nodes hang and are meant to (2:1 refinement).

They are no boundary, neither the small ones nor the large ones that they cover. Functions are continuous there if their
values at nodes of the small cells are those of the large cell's polynomials: `fem.space.facets.hanging`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.conformity import listed
from fem.mesh.gaps import holders, near
from fem.mesh.search.inverse_map import bounds, pull_back
from fem.mesh.topology import Topology
from fem.support.arithmetic import sum_of


@dataclass(frozen=True, eq=False)
class Hanging:
    """Small facets "k", the cell "k" (over all blocks) that each lies on, and the large facets that they cover."""

    facets: Int[Tensor, "k"]
    cells: Int[Tensor, "k"]
    covered: Int[Tensor, "m"]

    def to(self, device: Any) -> "Hanging":
        return Hanging(*(numbers.to(device) for numbers in vars(self).values()))


def hanging_facets(nodes: Float[Tensor, "n d"], topology: Topology) -> Hanging:
    """All of them, found by the place of their centres.

    Raises:
        MeshError: facets that lie on one another without one holding the other, or that cover a part of another.
    """
    rim, table = topology.boundary, topology.facets
    starts = torch.tensor(topology.block_starts, device=rim.device)
    owner = starts[table.block[rim]] + table.cell[rim]
    points = places_of(nodes, topology, rim)
    pairs = [(p, c) for p, c, _ in holders(nodes, topology, points[:, 0], owner)]
    small, cells = (torch.cat(parts) for parts in zip(*pairs, strict=True)) if pairs else (rim[:0], rim[:0])
    at, inside = pulled_back(nodes, topology, cells, points[small])
    within = inside.all(1)  # centres of large facets lie on small cells too
    others, beside, small, cells, at = small[~within], cells[~within], small[within], cells[within], at[within]
    large, share = torch.full_like(small, -1), nodes.new_zeros(len(table.cell))
    for i, block in enumerate(topology.blocks):
        numbers = facets_of_block(topology, i)
        for local, facet in enumerate(block.cell.facets):
            corners = torch.tensor([block.cell.vertices[v] for v in facet], dtype=nodes.dtype, device=nodes.device)
            normal = block.cell.facet_normals[local].to(nodes)
            own = (cells >= starts[i]) & (cells < starts[i + 1])
            own &= (((at - corners[0]) @ normal).abs() < 1e-6).all(1)
            large[own] = numbers[cells[own] - starts[i], local]
            share.index_add_(0, large[own], measure(at[own, 1:]) / measure(corners[None]))
    wrong = (large < 0) | torch.isin(rim[small], large) | (torch.bincount(small, minlength=len(rim))[small] > 1)
    facet = torch.cat([small[wrong], others[~torch.isin(rim[others], large)]])
    if len(facet):
        pair = [int(owner[facet[0]]), int(torch.cat([cells[wrong], beside[~torch.isin(rim[others], large)]])[0])]
        raise MeshError(
            f"facets of {listed(topology, pair)} lie on one another, and neither holds the other; nodes may hang where "
            "small facets divide a large one. `merge=` joins nodes at one place."
        )
    covered = large.unique()
    partly = torch.nonzero((share[covered] - 1).abs() > 1e-6).flatten()
    if len(partly):
        facet = int(covered[partly[0]])
        cell = int(starts[table.block[facet]] + table.cell[facet])
        raise MeshError(
            f"neighbours with hanging nodes cover {100 * float(share[facet]):.3g} % of a facet of "
            f"{listed(topology, [cell])}; they must cover all of it."
        )
    return Hanging(rim[small], cells, covered)


def places_of(nodes: Float[Tensor, "n d"], topology: Topology, facets: Int[Tensor, "f"]) -> Float[Tensor, "f v d"]:
    """The centre and then the vertices of facets; triangles among quadrilaterals have their last vertex twice."""
    table, width = topology.facets, topology.facet_kinds[-1].num_vertices
    found = nodes.new_zeros(len(facets), 1 + width, nodes.shape[1])
    for i, block in enumerate(topology.blocks):
        for local, facet in enumerate(block.cell.facets):
            corners = [block.cell.vertices[v] for v in (*facet, *facet[-1:] * (width - len(facet)))]
            corners = torch.tensor(corners, dtype=torch.float64, device="cpu")
            reference = torch.cat([corners[: len(facet)].mean(0, keepdim=True), corners])
            own = (table.block[facets] == i) & (table.local[facets] == local)
            weights = block.element.tabulate(reference, 0).value[0].to(nodes)
            found[own] = weights @ nodes[block.nodes_of(table.cell[facets[own]])]
    return found


def pulled_back(
    nodes: Float[Tensor, "n d"], topology: Topology, cells: Int[Tensor, "k"], points: Float[Tensor, "k m d"]
) -> tuple[Float[Tensor, "k m r"], Bool[Tensor, "k m"]]:
    """Reference coordinates of points in a cell for each row of them, and whether they lie in it."""
    lower, upper = bounds(nodes, topology.blocks)
    roundoff = 8 * torch.finfo(nodes.dtype).eps * float(nodes.abs().max())
    slack = near(nodes) * (upper - lower).amax(1) + 2 * roundoff
    at, inside = points.new_zeros(*points.shape[:2], topology.dim), torch.zeros_like(points[..., 0], dtype=torch.bool)
    for i, block in enumerate(topology.blocks):
        start, stop = topology.block_starts[i : i + 2]
        own = torch.nonzero((cells >= start) & (cells < stop)).flatten()
        if len(own):
            each = cells[own].repeat_interleave(points.shape[1])
            corners = nodes[block.nodes_of(each - start)]
            found, hit = pull_back(
                block.element, corners, points[own].flatten(0, 1), slack[each], near(nodes), roundoff
            )
            at[own], inside[own] = found.unflatten(0, (len(own), -1)), hit.unflatten(0, (len(own), -1))
    return at, inside


def facets_of_block(topology: Topology, block: int) -> Int[Tensor, "e k"]:
    """The numbers of the facets of each cell of a block."""
    kind, start = topology.blocks[block].cell.facet_cell, 0
    for other in topology.facet_kinds[: topology.facet_kinds.index(kind)]:
        start += len(topology.entities(other).vertices)
    return start + topology.entities(kind).of_cells[block]


def measure(corners: Float[Tensor, "k v r"]) -> Float[Tensor, "k"]:
    """The length or area of facets with these vertices."""
    sides = corners[:, 1:] - corners[:, :1]
    if sides.shape[1] == 1:
        return sides[:, 0].norm(dim=1)
    pairs = zip(sides.unbind(1), sides.unbind(1)[1:], strict=False)
    return 0.5 * sum_of(torch.linalg.cross(a, b).norm(dim=1) for a, b in pairs)
