"""Facets, cells and nodes that get a name: chosen by index, by their vertices, or by where they are."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.grid import Meet
from fem.mesh.topology import Topology, unique_rows
from fem.reference.lagrange import lagrange_element
from fem.support.checks import shown

FacetTag = str | tuple[str, str]  # facets, or facets seen from the cells with the second name
Selector = Tensor | Callable[..., Any] | Any
Nodes = Callable[[], Tensor]  # coordinates "n d", made only where somebody looks at them


def select_facets(
    topology: Topology, nodes: Nodes, name: str, selector: Selector, merged: Int[Tensor, "n"] | None = None
) -> Int[Tensor, "f"]:
    """Indices of the facets meant, each once: vertex tuples "f v", indices, a mask "f", or a callable that is true on
    all their vertices; `merged` tells which node of a tuple another one stands for.

    Raises:
        MeshError: there are no such facets.
    """
    device = topology.device
    if callable(selector) and not isinstance(selector, Tensor):
        facets = topology.facet_nodes[topology.boundary]
        on_vertices = indices_or_mask(f"facet tag {name!r}", selector(nodes()[facets.clamp(min=0)]), device)
        if on_vertices.numel() != facets.numel():
            raise MeshError(
                f"facet tag {name!r}: its callable must say of each vertex whether it is meant, shape "
                f"{tuple(facets.shape)}; got {shown(on_vertices)}."
            )
        inside = on_vertices.reshape(facets.shape).bool() | (facets < 0)
        if not bool(inside.all(1).any()):
            raise MeshError(f"facet tag {name!r}: its callable is true on no boundary facet.")
        return topology.boundary[inside.all(1)]
    given = indices_or_mask(f"facet tag {name!r}", selector, device)
    if given.ndim == 1:
        return indices(f"facet tag {name!r}", given, len(topology.facets.vertices))
    width = topology.facet_kinds[-1].num_vertices
    if given.ndim != 2 or given.shape[1] > width or given.dtype == torch.bool:
        raise MeshError(
            f"facet tag {name!r} must be vertex tuples 'f v' with v = {width}, indices, a mask 'f', or a callable; "
            f"got {given.dtype} of shape {tuple(given.shape)}."
        )
    given = given.long()
    if merged is not None:
        given = torch.where((given >= 0) & (given < len(merged)), merged[given.clamp(0, len(merged) - 1)], given)
    found = facet_numbers(topology, given)
    if bool((found < 0).any()):
        wrong = given[found < 0][0].tolist()
        raise MeshError(f"facet tag {name!r}: no facet of this mesh has the vertices {wrong}.")
    return once(found)


def facet_numbers(topology: Topology, tuples: Int[Tensor, "k _"]) -> Int[Tensor, "k"]:
    """The facet with these vertices, mesh nodes in any order and padded with −1; −1 where there is none."""
    known = topology.facet_nodes
    width = max(known.shape[1], tuples.shape[1])
    both = torch.cat([torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=-1) for rows in (known, tuples)])
    number, _ = unique_rows(both.sort(1).values - min(int(both.min()), 0))
    index = torch.full((int(number.max()) + 1,), -1, dtype=torch.int64, device=topology.device)
    index[number[: len(known)]] = torch.arange(len(known), device=topology.device)
    return index[number[len(known) :]]


def select_cells(topology: Topology, nodes: Nodes, name: str, selector: Selector) -> Int[Tensor, "e"]:
    """Indices of the cells meant: indices, a mask "e", or a callable of the cells' centres.

    Raises:
        MeshError: there are no such cells.
    """
    if callable(selector) and not isinstance(selector, Tensor):
        centres = [nodes()[b.nodes_of(some)].mean(1) for b in topology.blocks for some in b.portions()]
        selector = selector(torch.cat(centres))
    given = indices_or_mask(f"cell tag {name!r}", selector, topology.device)
    return indices(f"cell tag {name!r}", given, topology.num_cells)


def indices(what: str, given: Tensor, count: int) -> Int[Tensor, "k"]:
    """Indices from indices or a mask of `count` things, each once.

    Raises:
        MeshError: numbers beyond them, or a mask of another length.
    """
    if given.dtype == torch.bool:
        if given.shape != (count,):
            raise MeshError(f"{what}: a mask needs {count} entries; got {tuple(given.shape)}.")
        return torch.nonzero(given).flatten()
    given = given.long().reshape(-1)
    wrong = given[(given < 0) | (given >= count)]
    if len(wrong):
        raise MeshError(f"{what}: indices must lie in [0, {count}); got up to {int(wrong[0])}.")
    return once(given)


def once(numbers: Int[Tensor, "k"]) -> Int[Tensor, "m"]:
    """The numbers as they are, or in ascending order where some are repeated."""
    distinct = numbers.unique()
    return distinct if len(distinct) < len(numbers) else numbers


def select_nodes(
    topology: Topology, nodes: Nodes, name: str, selector: Selector, merged: Int[Tensor, "n"] | None = None
) -> Int[Tensor, "k"]:
    """Indices of the nodes meant, in ascending order: indices, a mask "n", or a callable of coordinates "n d"; `merged`
    tells which node another one stands for.

    Raises:
        MeshError: there are no such nodes.
    """
    if callable(selector) and not isinstance(selector, Tensor):
        selector = selector(nodes())
    what = f"node tag {name!r}"
    given = indices(what, indices_or_mask(what, selector, topology.device), topology.num_nodes)
    return (given if merged is None else merged[given]).unique()


def numbers_of(topology: Topology, chosen: Tensor | Meet) -> Int[Tensor, "k"]:
    """The mesh nodes of a node tag."""
    if isinstance(chosen, Tensor):
        return chosen
    assert topology.grid is not None
    return topology.grid.meeting_nodes(topology.blocks[0].degree, chosen)


def at_degree(topology: Topology, tags: dict[str, Tensor | Meet], degree: int) -> dict[str, Tensor | Meet]:
    """The same node tags where cells are given the nodes of another degree."""
    finer = [lagrange_element(block.cell, degree) for block in topology.blocks], *topology.lagrange_numbering(degree)
    return {
        name: nodes_between(topology, own, *finer) if isinstance(own, Tensor) else own for name, own in tags.items()
    }


def without_meets(tags: dict[str, Tensor | Meet], taken: set[str]) -> dict[str, Tensor | Meet]:
    """Node tags without the names of corners and edges of a box that somebody gives to facets or cells."""
    return {name: own for name, own in tags.items() if isinstance(own, Tensor) or name not in taken}


def nodes_between(
    topology: Topology,
    tagged: Int[Tensor, "k"],
    elements: Sequence[Any],
    numbering: Sequence[Int[Tensor, "_ _"]],
    count: int,
) -> Int[Tensor, "n"]:
    """Which nodes of elements some tagged mesh nodes mean: those at the same place, and those between them.

    A set of vertices stands for more than its points where a basis has nodes on edges and faces too. A boundary facet
    belongs to it, with all its nodes, if all mesh nodes of the facet do. Cells and the facets inside do so where it is
    solid (`solid_cells`): two clamped sides clamp nothing that runs across the corner between them.
    """
    inside = torch.zeros(topology.num_nodes, dtype=torch.bool, device=topology.device)
    inside[tagged] = True
    if all(bool(inside[block.connectivity].all()) for block in topology.blocks):
        return torch.arange(count, device=topology.device)
    found, alone = torch.zeros(count, dtype=torch.bool, device=topology.device), True
    for block, element, numbers in zip(topology.blocks, elements, numbering, strict=True):
        ours, theirs = torch.nonzero(torch.cdist(element.nodes, block.element.nodes) < 1e-9).T.to(topology.device)
        found[numbers[:, ours][inside[block.connectivity[:, theirs]]]] = True
        alone &= len(ours) == len(element.nodes)
    if alone:
        return torch.nonzero(found).flatten()
    facets, whole, solid = topology.facets, whole_facets(topology, inside), solid_cells(topology, inside)
    for i, (element, numbers, own) in enumerate(zip(elements, numbering, solid, strict=True)):
        found[numbers[own]] = True
        for local, nodes in enumerate(element.facet_nodes):
            cells = facets.cell[whole][(facets.block[whole] == i) & (facets.local[whole] == local)]
            found[numbers[cells][:, list(nodes)]] = True
    return torch.nonzero(found).flatten()


def whole_facets(topology: Topology, inside: Bool[Tensor, "n"]) -> Int[Tensor, "f"]:
    """The boundary facets all of whose mesh nodes are in a set."""
    facets, found = topology.facets, []
    for i, block in enumerate(topology.blocks):
        for local, nodes in enumerate(block.element.facet_nodes):
            own = topology.boundary[(facets.block == i)[topology.boundary] & (facets.local == local)[topology.boundary]]
            found.append(own[inside[block.connectivity[facets.cell[own]][:, list(nodes)]].all(1)])
    return torch.cat(found).sort().values


def solid_cells(topology: Topology, inside: Bool[Tensor, "n"]) -> list[Bool[Tensor, "_"]]:
    """Block by block, the cells all of whose nodes are inside a set that holds more than a boundary.

    Those in a corner of the domain may have all their nodes on its sides, and say nothing: they count if, from one to
    the next across facets, they lead to one that has a vertex inside the domain.
    """
    surface = torch.zeros_like(inside)
    facets = topology.facet_nodes[topology.boundary]
    surface[facets[facets >= 0]] = True
    full, solid = [], []
    for block in topology.blocks:
        full.append(inside[block.connectivity].all(1))
        solid.append(full[-1] & ~surface[block.connectivity[:, : block.cell.num_vertices]].all(1))
    sizes, whole, solid = [len(own) for own in full], torch.cat(full), torch.cat(solid)
    number, (owner, cell, _) = topology.facets_of_cells()
    cell = cell + torch.tensor([0, *sizes], device=cell.device).cumsum(0)[owner]
    while True:
        reached = torch.zeros(len(topology.facets.cell), dtype=torch.bool, device=cell.device)
        reached[number[solid[cell]]] = True
        grown = solid.clone()
        grown[cell[reached[number]]] = True
        grown &= whole
        if torch.equal(grown, solid):
            return list(solid.split(sizes))
        solid = grown


def indices_or_mask(what: str, selector: Any, device: torch.device) -> Tensor:
    """What a user gave, or a callable of a user returned, as a tensor.

    Raises:
        MeshError: neither integers nor booleans.
    """
    try:
        given = torch.as_tensor(selector, device=device)
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or (given.numel() and (given.is_floating_point() or given.is_complex())):
        raise MeshError(f"{what} must be integers, a mask or a callable of coordinates; got {shown(selector)}.")
    return given
