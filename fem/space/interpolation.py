"""Dofs from values at nodes: of numbers, of callables of x, of functions of other spaces, on this mesh or another."""

from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.mesh.refinement.refine import positions
from fem.mesh.topology import first_positions
from fem.reference.lagrange import lagrange_element
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
    if (space.is_discontinuous or source.continuity >= 0) and is_piece(space.mesh, source.mesh):
        return from_parents(space, field)
    return source.evaluate(field.values, space.dof_coordinates, outside)


def is_piece(fine: Mesh, coarse: Mesh) -> bool:
    """Whether a mesh is the refinement of another, and nobody moved either since."""
    history = fine.topology.history
    if history is None or history.identity is not coarse.topology.identity:
        return False
    if fine.version is None or coarse.version is None or (fine.dtype, fine.device) != (coarse.dtype, coarse.device):
        return False
    if fine.box is not None and coarse.box is not None:
        return all(torch.equal(f[::2], c) for f, c in zip(fine.box.axes, coarse.box.axes, strict=True))
    away = (positions(coarse, fine.topology) - fine.nodes).abs().max()
    return bool(away <= 64 * torch.finfo(fine.dtype).eps * fine.nodes.abs().max())


def from_parents(space: Any, field: Function) -> Tensor:
    """What `transferred` gives, read within the parent of a cell at each node: of those that share one, the first."""
    owner = first_positions(torch.cat([own.flatten() for own in space.cell_dofs]), space.cell_dofs.count)
    coarse, start = field.space.mesh, 0
    cell = torch.empty_like(owner)
    at = torch.empty(len(owner), coarse.dim, dtype=space.dtype, device=space.device)
    for i, (element, own) in enumerate(zip(space.elements, space.mesh.topology.history.pieces, strict=True)):
        local = lagrange_element(element.cell, 1).tabulate(element.nodes, 0).value[0].to(at)
        places = torch.einsum("av,svr->sar", local, own.shapes.to(at))
        end = start + len(own.parents) * len(local)
        rows = torch.nonzero((owner >= start) & (owner < end)).flatten()
        piece, a = (owner[rows] - start) // len(local), (owner[rows] - start) % len(local)
        cell[rows], at[rows] = coarse.block_starts[i] + own.parents[piece], places[own.kind[piece], a]
        start = end
    return fields_at((field.space,), (field.values,), cell, at)[0][0]


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
