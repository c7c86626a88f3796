"""The tags of a refined mesh: of facets, cells and nodes that lie on what had them before."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.grid import Side
from fem.mesh.hanging import facets_of_block
from fem.mesh.refinement.history import Pieces
from fem.mesh.tags import solid_cells, whole_facets
from fem.mesh.topology import Block, Topology
from fem.reference.cells import Cell, interval
from fem.reference.lagrange import lagrange_element

NEAR = 1e-6  # in reference coordinates: on it


def facets_behind(old: Topology, new: Topology, pieces: tuple[Pieces, ...]) -> Int[Tensor, "f"]:
    """The facet that each new facet lies on, −1 inside cells."""
    number, (owner, cell, local) = new.facets_of_cells()
    found = torch.full((len(new.facets.cell),), -1, device=new.device)
    for i, (block, own) in enumerate(zip(new.blocks, pieces, strict=True)):
        on = on_entities(block.cell, own.shapes, block.cell.facets)  # "s v f"
        table = torch.stack([on[:, list(facet)].all(1) for facet in block.cell.facets], 1)  # "s k f"
        mine = owner == i
        c, n = cell[mine], number[mine]
        inside = table[own.kind[c], local[mine]]  # "m f"
        some = inside.any(1)
        found[n[some]] = facets_of_block(old, i)[own.parents[c[some]], inside[some].long().argmax(1)]
    return found


def on_entities(cell: Cell, points: Float[Tensor, "s v r"], entities: Any) -> Bool[Tensor, "s v k"]:
    """Whether points of the reference cell lie on the closure of each edge or face."""
    found = []
    for entity in entities:
        origin, tangents = (t.to(points) for t in cell.frame(entity))
        away = points - origin
        if len(tangents):
            away = away - away @ torch.linalg.pinv(tangents) @ tangents
        found.append(away.norm(dim=-1) < NEAR)
    return torch.stack(found, -1)


def facet_tags(mesh: Any, new: Topology) -> dict[str, Tensor | Side]:
    """Facets that lie on tagged ones; of those where nodes hang the small ones. Sides of grids remain what they are."""
    kept: dict[str, Tensor | Side] = {k: v for k, v in mesh.facet_tags.items() if isinstance(v, Side) and new.grid}
    names = [name for name in mesh.facet_tags if name not in kept]
    if not names:
        return kept
    behind = facets_behind(mesh.topology, new, new.history.pieces)
    if new.hanging is not None:
        behind[new.hanging.covered] = -1
    own = torch.nonzero(behind >= 0).flatten()
    behind = behind[own]
    inside = torch.zeros(len(mesh.facets), dtype=torch.bool, device=mesh.device)
    found: dict[str, Tensor | Side] = {}
    for name in mesh.facet_tags:
        if name in kept:
            found[name] = kept[name]
            continue
        inside[:] = False
        inside[mesh.facets_tagged(name)] = True
        found[name] = own[inside[behind]]
    return found


def cell_tags(mesh: Any, new: Topology) -> dict[str, Tensor]:
    """Cells whose parents are tagged."""
    inside, found = torch.zeros(mesh.num_cells, dtype=torch.bool, device=mesh.device), {}
    for name, cells in mesh.cell_tags.items():
        inside[:] = False
        inside[cells] = True
        found[name] = torch.nonzero(inside[new.history.parents]).flatten()
    return found


def node_tags(mesh: Any, new: Topology) -> dict[str, Any]:
    """Nodes that lie on what tagged nodes span: themselves, boundary facets and solid parts as of `nodes_between`, and
    edges with one end at least that is on neither, which are lines. Corners and edges of grids remain what they are.
    """
    if new.grid is not None and all(not isinstance(own, Tensor) for own in mesh.node_tags.values()):
        return dict(mesh.node_tags)
    found: dict[str, Any] = {}
    pieces = new.history.pieces
    places = [Places(block, own, kind) for block, own, kind in zip(new.blocks, pieces, mesh.blocks, strict=True)]
    for name, own in mesh.node_tags.items():
        if isinstance(own, Tensor):
            found[name] = torch.nonzero(nodes_on(mesh.topology, new, pieces, places, own)).flatten()
        elif new.grid is not None:
            found[name] = own
        else:
            sides = torch.ones(new.num_nodes, dtype=torch.bool, device=new.device)
            for side in own.sides:
                facets = mesh.topology.facets_on(side)
                sides &= marked(new, pieces, places, lambda i, f=facets: {"facet": on_facets(mesh.topology, i, f)})
            found[name] = torch.nonzero(sides).flatten()
    return found


class Places:
    """Of the nodes of the pieces of a cell: which lie on its nodes, edges and facets, and in it, "s a _"."""

    def __init__(self, block: Block, pieces: Pieces, old: Block):
        cell = block.cell
        table = lagrange_element(cell, 1).tabulate(block.element.nodes, 0).value[0].to(pieces.shapes)
        points = torch.einsum("av,svr->sar", table, pieces.shapes)
        self.node = torch.cdist(points, old.element.nodes.to(points)) < NEAR
        self.edge = on_entities(cell, points, cell.edges)
        self.facet = on_entities(cell, points, cell.facets)
        self.cell = torch.ones_like(self.node[..., :1])


def marked(new: Topology, pieces: tuple[Pieces, ...], places: list[Places], flags: Any) -> Bool[Tensor, "n"]:
    """The nodes that lie on what is flagged of old cells: of a block {"node", "edge", "facet", "cell": "e k"}."""
    found = torch.zeros(new.num_nodes, dtype=torch.bool, device=new.device)
    for i, (block, own, place) in enumerate(zip(new.blocks, pieces, places, strict=True)):
        given = flags(i)
        some = torch.zeros(len(next(iter(given.values()))), dtype=torch.bool, device=new.device)
        for flag in given.values():
            some |= flag.any(1)
        for cells in block.portions():
            cells = cells[some[own.parents[cells]]]
            for what, flag in given.items():
                hit = (getattr(place, what)[own.kind[cells]] & flag[own.parents[cells]][:, None]).any(-1)
                found[block.nodes_of(cells)[hit]] = True
    return found


def on_facets(old: Topology, block: int, facets: Int[Tensor, "f"]) -> Bool[Tensor, "e k"]:
    """Which facets of the cells of a block are among some."""
    inside = torch.zeros(len(old.facets.cell), dtype=torch.bool, device=old.device)
    inside[facets] = True
    return inside[facets_of_block(old, block)]


def nodes_on(
    old: Topology, new: Topology, pieces: tuple[Pieces, ...], places: list[Places], tagged: Int[Tensor, "k"]
) -> Bool[Tensor, "n"]:
    """The nodes that lie on what some nodes span; see `node_tags`."""
    inside = torch.zeros(old.num_nodes, dtype=torch.bool, device=old.device)
    inside[tagged] = True
    solid = solid_cells(old, inside)
    number, (owner, cell, _) = old.facets_of_cells()
    filled = torch.cat(solid)
    held = [whole_facets(old, inside), number[filled[cell + torch.tensor(old.block_starts, device=old.device)[owner]]]]
    if old.hanging is not None:
        held.append(old.hanging.facets[filled[old.hanging.cells]])
    on = [on_facets(old, i, torch.cat(held)) for i in range(len(old.blocks))]
    covered = torch.zeros_like(inside)
    for block, own in zip(old.blocks, on, strict=True):
        for local, nodes in enumerate(block.element.facet_nodes):
            covered[block.connectivity[own[:, local]][:, list(nodes)]] = True
    at_facets = edges_at(old, on)

    def flags(i: int) -> dict[str, Tensor]:
        block = old.blocks[i]
        nodes, between = block.connectivity, block.element.entity_nodes[1]
        lines = [(*ends, *middle) for ends, middle in zip(block.cell.edges, between, strict=True)]
        lines = nodes[:, torch.tensor(lines, device=nodes.device)]
        edge = at_facets[i] | (inside[lines].all(-1) & ~covered[lines].all(-1))
        return {"node": inside[nodes], "edge": edge, "facet": on[i], "cell": solid[i][:, None]}

    return marked(new, pieces, places, flags)


def edges_at(old: Topology, on: Sequence[Bool[Tensor, "_ _"]]) -> list[Bool[Tensor, "_ _"]]:
    """Which edges of cells belong to some facets of these or of other cells."""
    edges = old.entities(interval)
    found = torch.zeros(len(edges.vertices), dtype=torch.bool, device=old.device)
    for block, own, numbers in zip(old.blocks, on, edges.of_cells, strict=True):
        for k, ends in enumerate(block.cell.edges):
            around = [local for local, facet in enumerate(block.cell.facets) if set(ends) <= set(facet)]
            found[numbers[own[:, around].any(1), k]] = True
    return [found[numbers] for numbers in edges.of_cells]
