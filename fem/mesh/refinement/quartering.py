"""Some quadrilaterals or hexahedra divided into 4 or 8, with nodes that hang on neighbours which are not.

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
    topology: Topology,
    chosen: Bool[Tensor, "e"],
    levels: Int[Tensor, "e"],
    middles: Int[Tensor, "_ 3"],
) -> tuple[Int[Tensor, "m v"], int, Pieces, Int[Tensor, "m"], Int[Tensor, "_ 3"]]:
    """Vertices of the cells, the old ones first, with their number, what they are pieces of, their levels, and which
    vertices stand halfway between two others.

    Args:
        middles: such vertices, which hang as long as the larger cell is not divided.
    """
    (block,), (vertices,) = topology.blocks, topology.cell_vertices
    cell, count = block.cell, len(topology.vertex_nodes)
    chosen = graded(topology, chosen, levels)
    own = vertices[chosen]
    keys = halfway(cell, own)
    known = middles[:, 0] * SIZE + middles[:, 1]
    at = lookup(known, keys)
    new = keys[at < 0].unique()
    both, order = torch.cat([known, new]).sort()
    number = torch.cat([middles[:, 2], count + torch.arange(len(new), device=new.device)])[order]
    count += len(new)
    nine = torch.cat([own, number[lookup(both, keys)]], 1)
    count, nine = count + len(own), torch.cat([nine, count + torch.arange(len(own), device=own.device)[:, None]], 1)
    (table,) = children(cell).to(chosen.device)
    every = torch.arange(len(vertices), device=chosen.device)
    parents = torch.cat([every[~chosen], every[chosen].repeat_interleave(len(table))])
    kind = torch.arange(1, len(table) + 1, device=chosen.device).repeat(len(own))
    kind = torch.cat([torch.zeros_like(every[~chosen]), kind])
    cells = torch.cat([vertices[~chosen], nine[:, table].flatten(0, 1)])
    order = parents.argsort(stable=True)
    local = lagrange_element(cell, 2).nodes.to(chosen.device)
    shapes = torch.cat([local[None, : cell.num_vertices], local[table]])
    parents = parents[order]
    middles = torch.stack([both // SIZE, both % SIZE, number], 1)
    return cells[order], count, Pieces(parents, kind[order], shapes), (levels + chosen)[parents], middles


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
    number, (_, cell, _) = topology.facets_of_cells()
    count = len(topology.facets.cell)
    last = torch.full((count,), -1, device=cell.device).scatter_reduce(0, number, cell, "amax")
    pairs = [torch.stack([topology.facets.cell, last])]
    if topology.hanging is not None:
        pairs.append(torch.stack([topology.facets.cell[topology.hanging.facets], topology.hanging.cells]))
    both = torch.cat(pairs, 1)
    one, two = torch.cat([both, both.flip(0)], 1)
    while True:
        level = levels + chosen
        more = chosen.clone()
        more[two[level[one] > level[two] + 1]] = True
        if torch.equal(more, chosen):
            return chosen
        chosen = more
