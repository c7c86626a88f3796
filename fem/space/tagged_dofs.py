"""Where the nodes of a space are, and which of them the tags of a mesh, or points, mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.geometry import facet_cells
from fem.mesh.grid import Meet
from fem.mesh.mesh import Mesh
from fem.mesh.tags import nodes_between
from fem.mesh.topology import Topology, first_positions
from fem.space.cell_dofs import CellDofs
from fem.support.arithmetic import common_batch
from fem.support.checks import check_numbers, is_integer, shown


@dataclass(frozen=True)
class NearestNodes:
    """The nodes of a space at some points: made by `at_points`."""

    points: tuple[tuple[float, ...], ...]
    tolerance: float | None = None

    def __repr__(self) -> str:
        return f"at_points({[list(p) for p in self.points]})"


@dataclass(frozen=True, eq=False)
class NumberedNodes:
    """Nodes of one numbering, by their numbers."""

    dofs: CellDofs
    numbers: Int[Tensor, "k"]
    name: str

    def __repr__(self) -> str:
        return f"{len(self.numbers)} nodes: {self.name}"


def at_points(points: Any, tolerance: float | None = None) -> NearestNodes:
    """A key of `Dirichlet`: the node of the space nearest to each point, `{at_points([[0.0, 0.0]]): 0.0}`.

    Args:
        points: "k d" as nested lists or a tensor, or one point "d".
        tolerance: how far the node may be from its point; by default 1e-6 times the size of the mesh.

    Raises:
        ValueError, TypeError: no points, or numbers that are not finite. Where it is used: a point without a node
            within the tolerance (the nearest is named), or two points with one node.
    """
    try:
        given = torch.as_tensor(points, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"`at_points(points)` must be numbers (k, d), such as [[0.0, 0.0]]; got {shown(points)}."
        ) from None
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or 0 in given.shape or not bool(torch.isfinite(given).all()):
        raise ValueError(f"`at_points(points)` must be finite numbers (k, d); got {shown(points)}.")
    check_numbers("at_points", "non-negative", optional=True, tolerance=tolerance)
    return NearestNodes(tuple(map(tuple, given.tolist())), None if tolerance is None else float(tolerance))


def node_coordinates(
    mesh: Mesh, elements: Sequence[Any], dofs: CellDofs, numbers: Int[Tensor, "k"] | None = None
) -> Float[Tensor, "n d"]:
    """Where nodes are, all or some: of the cells that share one, the first speaks. Differentiable in `mesh.nodes`."""
    if isinstance(dofs.source, Topology):
        return mesh.lagrange_nodes(dofs.degree, numbers)
    x = torch.cat([mesh.map(i, None, element.nodes)[0].flatten(0, 1) for i, element in enumerate(elements)])
    first = first_positions(torch.cat([own.flatten() for own in dofs]), dofs.count)
    return x[first if numbers is None else first[numbers]]


def nearest_dofs(mesh: Mesh, nodes: Float[Tensor, "n d"], at: NearestNodes) -> Int[Tensor, "k"]:
    """The dof at each point, in the order of the points."""
    points = torch.tensor(at.points, dtype=nodes.dtype, device=nodes.device)
    if points.shape[1] != nodes.shape[1]:
        raise ValueError(f"`{at}` has points of {points.shape[1]} coordinates; the mesh has {nodes.shape[1]}.")
    distance, found = torch.stack([(nodes - p).norm(dim=1) for p in points]).min(1)
    allowed = 1e-6 * float((nodes.amax(0) - nodes.amin(0)).max()) if at.tolerance is None else at.tolerance
    if bool((distance > allowed).any()):
        k = int(distance.argmax())
        raise ValueError(
            f"`{at}`: no node lies within {allowed:.3g} of {list(at.points[k])}; the nearest is "
            f"{float(distance[k]):.3g} away, at {nodes[found[k]].tolist()}. `at_points(…, tolerance=...)` takes it."
        )
    if len(found.unique()) < len(found):
        raise ValueError(f"`{at}`: two of the points mean one node; give each node once.")
    return found


def tagged_dofs(
    mesh: Mesh, elements: Sequence[Any], dofs: CellDofs, tag: str | NearestNodes | NumberedNodes
) -> Int[Tensor, "k"]:
    """Nodes of the space on the facets with that tag and at the nodes with that tag, in ascending order.

    A name that no facets and no nodes have may be one of cells: all their dofs. Those of `at_points` follow the points.

    Raises:
        ValueError: no such tag, or no dof of this space at any node that has it.
    """
    if isinstance(tag, NumberedNodes):
        if tag.dofs is not dofs:
            raise ValueError(f"{tag} belong to another space; prescribe them on this one.")
        return tag.numbers
    if isinstance(tag, NearestNodes):
        return nearest_dofs(mesh, node_coordinates(mesh, elements, dofs).detach(), tag)
    if tag in mesh.cell_tags and tag not in mesh.facet_tags and tag not in mesh.node_tags:
        starts, cells, found = mesh.block_starts, mesh.cell_tags[tag], []
        for i, (start, stop) in enumerate(pairwise(starts)):
            found.append(dofs.of(i, cells[(cells >= start) & (cells < stop)] - start).flatten())
        return torch.cat(found).unique()
    if tag not in mesh.node_tags:
        return dofs_on_facets(mesh, elements, dofs, tag)
    chosen, grid = mesh.node_tags[tag], mesh.topology.grid
    if isinstance(chosen, Meet) and grid is not None:
        found = dofs_where_sides_meet(mesh, elements, dofs, chosen)
    else:
        found = nodes_between(mesh.topology, mesh.nodes_tagged(tag), elements, dofs.blocks, dofs.count)
    if tag in mesh.facet_tags:
        return torch.cat([found, dofs_on_facets(mesh, elements, dofs, tag)]).unique()
    if len(found) == 0:
        raise ValueError(f"no dof of degree {elements[0].degree} stands at a node with the tag {tag!r}.")
    return found


def dofs_on_facets(mesh: Mesh, elements: Sequence[Any], dofs: CellDofs, tag: str) -> Int[Tensor, "k"]:
    """Nodes of the space on the facets with that tag, in ascending order.

    Raises:
        ValueError: no such tag.
    """
    sides, grid = mesh.sides_tagged(tag), mesh.topology.grid
    if sides is not None and grid is not None and isinstance(dofs.source, Topology):
        return grid.side_nodes(dofs.degree, sides)
    return torch.nonzero(marked(mesh, elements, dofs, lambda i: facet_cells(mesh, tag, i))).flatten()


def dofs_where_sides_meet(mesh: Mesh, elements: Sequence[Any], dofs: CellDofs, meet: Meet) -> Int[Tensor, "k"]:
    """Nodes of the space at a corner or on an edge of a grid, in ascending order."""
    grid = mesh.topology.grid
    assert grid is not None
    if isinstance(dofs.source, Topology):
        return grid.meeting_nodes(dofs.degree, meet)
    on_all = torch.ones(dofs.count, dtype=torch.bool, device=mesh.device)
    for side in meet.sides:
        cells = [grid.side_cells((side,), local) for local in range(len(grid.cell.facets))]
        on_all &= marked(mesh, elements, dofs, lambda _, cells=cells: cells)
    return torch.nonzero(on_all).flatten()


def marked(
    mesh: Mesh, elements: Sequence[Any], dofs: CellDofs, cells_of: Callable[[int], list[Tensor]]
) -> Bool[Tensor, "n"]:
    """True at the nodes on local facets 0, 1, … of the cells that `cells_of` lists for each block."""
    found = torch.zeros(dofs.count, dtype=torch.bool, device=mesh.device)
    for i, element in enumerate(elements):
        for nodes, cells in zip(element.facet_nodes, cells_of(i), strict=True):
            found[dofs.of(i, cells)[:, list(nodes)]] = True
    return found


def check_index(index: Any, count: int, what: str, key: Any) -> int:
    if not is_integer(index, 0) or index >= count:
        raise ValueError(f"`Dirichlet` key {key!r}: the {what} must be an integer in [0, {count}); got {index!r}.")
    return int(index)


def insert_values(space: Any, full: Tensor, component: int | None, dofs: Tensor, values: Tensor) -> Tensor:
    """`full` "*b n (c)" with one entry's values written in, batched where either is."""
    if component is not None:
        column = insert_values_at(full[..., component], dofs, values, -1)
        full = full.expand(*column.shape, full.shape[-1])
        parts = [column if i == component else full[..., i] for i in range(full.shape[-1])]
        return torch.stack(parts, -1)
    return insert_values_at(full, dofs, values, -1 if space.components is None else -2)


def insert_values_at(full: Tensor, dofs: Tensor, values: Tensor, dim: int) -> Tensor:
    batch = common_batch(full.shape[:dim], values.shape[:dim])
    full, values = full.expand(*batch, *full.shape[dim:]), values.expand(*batch, *values.shape[dim:])
    return full.index_copy(full.ndim + dim, dofs, values)
