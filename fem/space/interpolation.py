"""Dofs from values at nodes: of numbers, of callables of x, of functions of other spaces, on this mesh or another."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.space.field import Function
from fem.support.checks import shown


def nodal_values(space: Any, value: Any, outside: float | str | None) -> Tensor:
    """What `FunctionSpace.interpolate` gives."""
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
    if same and source.continuity < 0:
        raise ValueError(
            "`interpolate` of a field that jumps between cells has no value at nodes that cells share; `project(V, "
            "field)` (from fem) finds the nearest function, and `Discontinuous` spaces can hold the jumps."
        )
    return source.evaluate(field.values, space.dof_coordinates, outside)


def check_components(space: Any, field: Function) -> None:
    """Raise where a field has another number of components than the space."""
    if field.space.components != space.components:
        raise ValueError(
            f"`interpolate` into a space of {space.components or 'no'} components needs a field of as many; got one of "
            f"{field.space.components or 'no'} components."
        )


def cell_by_cell(space: Any, field: Function) -> Float[Tensor, "..."]:
    """The same on the same cells, whose nodes are numbered one cell after another."""
    source, found = field.space, []
    u = field.values[..., None] if space.components is None else field.values
    for i, (element, own) in enumerate(zip(space.elements, source.elements, strict=True)):
        table = own.tabulate(element.nodes.to(u), 0).value
        local = u[..., source.cell_dofs[i], :]
        found.append((table @ local).flatten(-3, -2))
    values = torch.cat(found, -2)
    return values[..., 0] if space.components is None else values
