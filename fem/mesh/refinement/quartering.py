"""Some quadrilaterals, triangles beside them, or hexahedra divided into 4 or 8, with nodes that hang on neighbours.

Neighbours across a facet differ by one level at most: where they would by more, they are divided too.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fem.mesh.refinement.bisection import SIZE, lookup, pair
from fem.mesh.refinement.division import children
from fem.mesh.refinement.history import Pieces
from fem.mesh.topology import Topology
from fem.reference.cells import Cell
from fem.reference.lagrange import lagrange_element


def quartered(
    topology: Topology, chosen: Bool[Tensor, "e"], levels: Int[Tensor, "e"], middles: Int[Tensor, "_ 3"]
) -> tuple[list[Int[Tensor, "_ _"]], int, tuple[Pieces, ...], Int[Tensor, "m"], Int[Tensor, "_ 3"]]:
    """Vertices of the cells, block by block, the old ones first, with their number, what they are pieces of, their
    levels, and which vertices stand halfway between two others.

    Args:
        middles: such vertices, which hang as long as the larger cell is not divided.
    """
    chosen, count = graded(topology, chosen, levels), len(topology.vertex_nodes)
    sizes = [block.num_cells for block in topology.blocks]
    parts = chosen.split(sizes)
    keys = [halfway(b.cell, v[c]) for b, v, c in zip(topology.blocks, topology.cell_vertices, parts, strict=True)]
    known, flat = middles[:, 0] * SIZE + middles[:, 1], torch.cat([own.flatten() for own in keys])
    new = flat[lookup(known, flat) < 0].unique()
    both, order = torch.cat([known, new]).sort()
    number = torch.cat([middles[:, 2], count + torch.arange(len(new), device=new.device)])[order]
    count += len(new)
    found, pieces = [], []
    for block, vertices, own, key in zip(topology.blocks, topology.cell_vertices, parts, keys, strict=True):
        nodes = torch.cat([vertices[own], number[lookup(both, key)]], 1)
        local = lagrange_element(block.cell, 2).nodes.to(new.device)
        if len(local) > nodes.shape[1]:
            centre = count + torch.arange(len(nodes), device=new.device)
            count, nodes = count + len(nodes), torch.cat([nodes, centre[:, None]], 1)
        table, every = children(block.cell)[0].to(new.device), torch.arange(len(own), device=new.device)
        kind = torch.arange(1, len(table) + 1, device=new.device).repeat(len(nodes))
        kind = torch.cat([torch.zeros_like(every[~own]), kind])
        parents, order = torch.cat([every[~own], every[own].repeat_interleave(len(table))]).sort(stable=True)
        found.append(torch.cat([vertices[~own], nodes[:, table].flatten(0, 1)])[order])
        pieces.append(Pieces(parents, kind[order], torch.cat([local[None, : block.cell.num_vertices], local[table]])))
    parents = torch.cat([own.parents + start for own, start in zip(pieces, topology.block_starts, strict=False)])
    middles = torch.stack([both // SIZE, both % SIZE, number], 1)
    return found, count, tuple(pieces), (levels + chosen)[parents], middles


def halfway(cell: Cell, vertices: Int[Tensor, "e v"]) -> Int[Tensor, "e k"]:
    """Pairs of vertices whose midpoints are the nodes of degree 2 on the edges and, in space, on the faces: of a face
    those of the diagonal at its lowest vertex."""
    first, second = torch.tensor(cell.edges, device=vertices.device).T
    found = [pair(vertices[:, first], vertices[:, second])]
    if cell.dim == 3:
        faces = vertices[:, torch.tensor(cell.faces, device=vertices.device)]
        lowest = faces.argmin(-1, keepdim=True)
        found.append(pair(faces.gather(-1, lowest)[..., 0], faces.gather(-1, (lowest + 2) % 4)[..., 0]))
    return torch.cat(found, 1)


def graded(topology: Topology, chosen: Bool[Tensor, "e"], levels: Int[Tensor, "e"]) -> Bool[Tensor, "e"]:
    """The chosen cells and those without which neighbours would differ by two levels."""
    number, (block, cell, _) = topology.facets_of_cells()
    cell = cell + torch.tensor(topology.block_starts, device=cell.device)[block]
    ends = torch.full((2, len(topology.facets.cell)), -1, device=cell.device)
    last = ends[0].scatter_reduce(0, number, cell, "amax")
    first = ends[1].scatter_reduce(0, number, cell, "amin", include_self=False)
    pairs = [torch.stack([first, last])]
    if topology.hanging is not None:
        pairs.append(torch.stack([first[topology.hanging.facets], topology.hanging.cells]))
    both = torch.cat(pairs, 1)
    one, two = torch.cat([both, both.flip(0)], 1)
    while True:
        level = levels + chosen
        more = chosen.clone()
        more[two[level[one] > level[two] + 1]] = True
        if torch.equal(more, chosen):
            return chosen
        chosen = more
