"""Dofs from values at nodes: of numbers, of callables of x, of functions of other spaces, on this mesh or another."""

from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.mesh.search.inverse_map import push
from fem.mesh.topology import first_positions
from fem.space.evaluation import fields_at, values_in_cells
from fem.space.field import Function
from fem.support.checks import shown


def nodal_values(space: Any, value: Any, outside: float | str | None) -> Tensor:
    """What `FunctionSpace.interpolate` gives."""
    if space.moments is not None:
        return interpolated(space, value, outside)
    if isinstance(value, Function):
        return transferred(space, value, outside)
    check_no_outside(outside)
    result = value(space.dof_coordinates) if callable(value) else value
    if not isinstance(result, Tensor):
        try:
            if isinstance(result, bool):
                raise TypeError
            result = torch.as_tensor(result, dtype=space.dtype, device=space.device)
        except (TypeError, ValueError, RuntimeError):
            wanted = "a number, or a callable of x that returns numbers or a tensor"
            raise TypeError(f"`interpolate` needs {wanted}; got {shown(result)}.") from None
    if result.dtype != space.dtype:
        raise TypeError(
            f"`interpolate` got {result.dtype} values; the space is {space.dtype}. Convert them, by `.to(x.dtype)`."
        )
    try:
        if result.ndim > len(space.shape):
            return space.check(result)
        return result.expand(space.shape).clone()
    except (RuntimeError, ValueError):
        raise ValueError(f"`interpolate` needs values of shape {space.shape}; got {tuple(result.shape)}.") from None


def check_no_outside(outside: float | str | None) -> None:
    if outside is not None:
        raise ValueError(
            "`interpolate(outside=...)` is for fields, `W.function(values)`: nothing else has an outside; leave it out."
        )


def transferred(space: Any, field: Function, outside: float | str | None) -> Tensor:
    """The dofs "*b n (c)" of the function that equals a field of another space at the nodes.

    A field that jumps is read within each cell where the nodes belong to one cell each, and nowhere else.
    """
    check_components(space, field)
    source, same = field.space, field.space.mesh is space.mesh
    if same and space.is_discontinuous:
        return cell_by_cell(space, field)
    if same and space.is_nodal and source.elements == space.elements:
        return field.values.clone()
    if same and source.continuity < 0:
        raise ValueError(
            "`interpolate` of a field that jumps between cells has no value at nodes that cells share; `project(V, "
            "field)` (from fem) finds the nearest function, and `Discontinuous` spaces can hold the jumps."
        )
    if space.is_discontinuous or source.continuity >= 0:
        placed = places_before(space, source.mesh)
        if placed is not None:
            return fields_at((source,), (field.values,), *placed)[0][0]
    return source.evaluate(field.values, space.dof_coordinates, outside)


def places_before(space: Any, coarse: Mesh) -> tuple[Int[Tensor, "n"], Float[Tensor, "n r"]] | None:
    """Where the nodes of a space over a refined mesh are in the cells of a mesh that it was made of: of the cells that
    share one, the first speaks. None of other meshes, and where somebody moved one of both since.
    """
    mesh, history = space.mesh, space.mesh.topology.history
    while history is not None and history.identity is not coarse.topology.identity:
        history = history.before
    if history is None or mesh.version is None or coarse.version is None:
        return None
    if (mesh.dtype, mesh.device) != (coarse.dtype, coarse.device):
        return None
    owner = first_positions(torch.cat([own.flatten() for own in space.cell_dofs]), space.cell_dofs.count)
    cell, at = torch.empty_like(owner), torch.empty(len(owner), mesh.dim, dtype=mesh.dtype, device=mesh.device)
    start = 0
    for i, element in enumerate(space.elements):
        width = len(element.nodes)
        end = start + mesh.blocks[i].num_cells * width
        rows = torch.nonzero((owner >= start) & (owner < end)).flatten()
        cell[rows] = mesh.block_starts[i] + (owner[rows] - start) // width
        at[rows] = element.nodes.to(at)[(owner[rows] - start) % width]
        start = end
    kinds, step = [block.cell for block in mesh.blocks], mesh.topology.history
    while True:
        cell, at = step.seen_from_parents(kinds, cell, at)
        if step is history:
            break
        step = step.before
    x = space.dof_coordinates
    away = (places_at(coarse, cell, at) - x).abs().max()
    return (cell, at) if bool(away <= 64 * torch.finfo(x.dtype).eps * x.abs().max()) else None


def places_at(mesh: Mesh, cell: Int[Tensor, "n"], at: Float[Tensor, "n r"]) -> Float[Tensor, "n d"]:
    """The points with some reference coordinates in some cells."""
    x = torch.empty(len(at), mesh.num_coordinates, dtype=mesh.dtype, device=mesh.device)
    for i, start in enumerate(mesh.block_starts[:-1]):
        rows = torch.nonzero((cell >= start) & (cell < mesh.block_starts[i + 1])).flatten()
        x[rows] = push(mesh.blocks[i].element, mesh.nodes[mesh.blocks[i].nodes_of(cell[rows] - start)], at[rows])[0]
    return x


def interpolated(space: Any, value: Any, outside: float | str | None) -> Float[Tensor, "*b n"]:
    """The dofs of the vector field that has the moments of a callable, or of a field over any mesh."""
    moments, name = space.moments, "the value of `interpolate`"
    if not isinstance(value, Function):
        check_no_outside(outside)
        if isinstance(value, Real) and not isinstance(value, bool) and value == 0:
            return torch.zeros(space.shape, dtype=space.dtype, device=space.device)
        return moments.interpolate(lambda block, x, at: moments.called(name, value, x))
    check_components(space, value)
    source = value.space
    if source.mesh is not space.mesh:

        def elsewhere(block: int, x: Tensor, at: Tensor) -> Tensor:
            return source.evaluate(value.values, x.flatten(0, 1), outside).unflatten(-2, x.shape[:2])

        return moments.interpolate(elsewhere)
    alike = source.moments is not None and source.moments.mapping == moments.mapping
    if source.continuity < 0 and not alike:
        raise ValueError(
            "`interpolate` of a field that jumps between cells has no moments on facets that cells share; `project(V, "
            "field)` (from fem) finds the nearest function."
        )
    return moments.interpolate(lambda block, x, at: values_in_cells(source, value.values, block, None, at))


def check_components(space: Any, field: Function) -> None:
    """Raise where a field has values of another shape than the space's."""
    if field.value_shape != space.value_shape:
        raise ValueError(
            f"`interpolate` into a space of {len_of(space.value_shape)} needs a field of as many; got one of "
            f"{len_of(field.value_shape)}."
        )


def len_of(shape: tuple[int, ...]) -> str:
    """The number of components, in words."""
    return f"{' × '.join(map(str, shape)) or 'no'} components"


def cell_by_cell(space: Any, field: Function) -> Float[Tensor, "..."]:
    """The same on the same cells, whose nodes are numbered one cell after another."""
    values = [values_in_cells(field.space, field.values, i, None, e.nodes) for i, e in enumerate(space.elements)]
    rank = len(space.value_shape)
    return torch.cat([v.flatten(-2 - rank, -1 - rank) for v in values], -1 - rank)
