"""Refined meshes: how cells are divided is told by kind of cell; this makes a mesh of what comes out."""

from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.grid import BoxNodes
from fem.mesh.hanging import hanging_facets
from fem.mesh.refinement.bisection import bisected
from fem.mesh.refinement.division import divided, halved
from fem.mesh.refinement.history import History, Made
from fem.mesh.refinement.names import cell_tags, facet_tags, node_tags
from fem.mesh.refinement.quartering import quartered
from fem.mesh.tags import indices, indices_or_mask
from fem.mesh.topology import Block, Topology, first_positions
from fem.reference.lagrange import lagrange_element


def refined(mesh: Any, cells: Any) -> tuple[Tensor | BoxNodes, Topology, dict, dict, dict]:
    """What `Mesh.refine` makes a mesh of: nodes, topology, and tags of facets, cells and nodes."""
    old = mesh.topology
    if cells is None and old.grid is not None:
        grid, make = halved(old.grid)
        history, degree = History(old.identity, (mesh.num_cells,), make, before=old.history), mesh.blocks[0].degree
        size = prod(grid.node_shape(degree))
        blocks = [Block(grid.cell, degree, grid)]
    else:
        vertices, count, history = parts(mesh, cells)
        blocks = [Block(block.cell, 1, own) for block, own in zip(mesh.blocks, vertices, strict=True)]
        degree, size = max(block.degree for block in mesh.blocks), count
        if degree > 1:
            numbers, size = Topology(blocks, count).lagrange_numbering(degree)
            blocks = [Block(block.cell, degree, own) for block, own in zip(blocks, numbers, strict=True)]
    links = {sides: pairs[:0] for sides, pairs in old.links.items()}
    new = Topology(blocks, size, links=links).continuing(object(), history)
    nodes = mesh.box.halved() if new.grid is not None and mesh.box is not None else positions(mesh, new)
    if history.levels is not None:
        assert isinstance(nodes, Tensor)
        new.hang(hanging_facets(nodes.detach(), new))
    tagged = facet_tags(mesh, new), cell_tags(mesh, new), node_tags(mesh, new)
    return nodes, new, *tagged


def parts(mesh: Any, cells: Any) -> tuple[list[Int[Tensor, "_ v"]], int, History]:
    """Vertices of the new cells, block by block, their number, and what they are pieces of."""
    old, nodes = mesh.topology, mesh.nodes.detach()
    history, sizes = old.history or History(None, (), Made(())), tuple(block.num_cells for block in mesh.blocks)
    if old.hanging is not None and history.levels is None:
        raise ValueError("`refine` knows no hanging nodes but those that it makes itself; this mesh has others.")
    if cells is None and old.hanging is None:
        vertices, count, pieces = divided(nodes, old)
        marks = history.marks
        if marks is not None:  # the pieces of triangles have their edges in the same order
            marks = None if mesh.dim == 3 else marks[pieces[0].parents]
        return vertices, count, History(old.identity, sizes, Made(pieces), marks, before=old.history)
    chosen = torch.ones(mesh.num_cells, dtype=torch.bool, device=mesh.device)
    if cells is not None:
        given = indices("`refine(cells)`", indices_or_mask("`refine(cells)`", cells, mesh.device), mesh.num_cells)
        chosen = torch.zeros_like(chosen).index_fill(0, given, True)
    if len(mesh.blocks) > 1 and mesh.dim == 3:
        raise ValueError("`refine(cells)` knows no solids of several kinds; `refine()` divides all cells of any mesh.")
    if len(mesh.blocks) == 1 and mesh.blocks[0].cell.is_simplex:
        vertices, count, pieces, marks = bisected(nodes, old, chosen, history.marks)
        return [vertices], count, History(old.identity, sizes, Made((pieces,)), marks, before=old.history)
    levels = torch.zeros_like(chosen, dtype=torch.int64) if history.levels is None else history.levels
    middles = levels.new_empty(0, 3) if history.middles is None else history.middles
    vertices, count, pieces, levels, middles = quartered(old, chosen, levels, middles)
    return vertices, count, History(old.identity, sizes, Made(pieces), None, levels, middles, old.history)


def positions(mesh: Any, new: Topology) -> Float[Tensor, "n d"]:
    """Where the nodes of pieces stand: one of the parents at each of them speaks, differentiably in its nodes."""
    flat = torch.cat([block.connectivity.flatten() for block in new.blocks])
    owner, start = first_positions(flat, new.num_nodes), 0
    found = mesh.nodes.new_zeros(new.num_nodes, mesh.num_coordinates)
    for block, old, own in zip(new.blocks, mesh.blocks, new.history.pieces, strict=True):
        local = lagrange_element(block.cell, 1).tabulate(block.element.nodes, 0).value[0].to(own.shapes)
        at = torch.einsum("av,svr->sar", local, own.shapes)
        table = old.element.tabulate(at.flatten(0, 1).to(mesh.nodes), 0).value[0].unflatten(0, at.shape[:2])
        width = at.shape[1]
        end = start + block.num_cells * width
        rows = torch.nonzero((owner >= start) & (owner < end)).flatten()
        cell, a = (owner[rows] - start) // width, (owner[rows] - start) % width
        corners = mesh.nodes[old.nodes_of(own.parents[cell])]
        found = found.index_copy(0, rows, torch.einsum("na,nad->nd", table[own.kind[cell], a], corners))
        start = end
    return found
