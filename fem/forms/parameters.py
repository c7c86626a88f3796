"""What a density may be given beside u: numbers, tensors, constants, fields and gradients, callables, materials.

Every parameter becomes a tensor of values at quadrature points (or one that broadcasts against them) before the density
sees it; `rank` counts the trailing axes of one value, so that leading axes can be told apart as a batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fem.mesh.geometry import Domain, Geometry
from fem.space.field import Function, Gradient
from fem.support.checks import check_kind, did_you_mean, is_integer, shown, signature


@dataclass(frozen=True, eq=False)
class Constant:
    """A vector or matrix, the same at every point: `value` is "*b *shape".

    With `shape=()` it is a batch of numbers "*b", even of as many as there are dofs or cells.

    Raises:
        ValueError, TypeError: a value that is no tensor of that shape.
    """

    value: Tensor
    shape: tuple[int, ...]

    def __post_init__(self):
        check_kind("Constant", "value", self.value, Tensor, "a tensor, `torch.tensor(...)`")
        check_shape("Constant", self.shape)
        rank = len(self.shape)
        if tuple(self.value.shape[self.value.ndim - rank :]) != tuple(self.shape):
            raise ValueError(
                f"`Constant(shape={self.shape})` got a tensor of shape {tuple(self.value.shape)}, whose last axes must "
                "be these."
            )


@dataclass(frozen=True, eq=False)
class CellValues:
    """One value per cell, by tag, "*b *shape" each: made by `by_cell_tag`."""

    values: Mapping[str, Any]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class CellPoints:
    """Values that are known at the quadrature points of all cells and nowhere else: "*b e q *shape", block by block."""

    values: tuple[Tensor, ...]
    rank: int = 0


Parameter = float | Tensor | Constant | Function | Gradient | CellValues | CellPoints | Callable[[Tensor], Tensor]


def by_cell_tag(values: Mapping[str, Any], shape: tuple[int, ...] | None = None) -> CellValues:
    """A piecewise constant material: {"steel": 210.0, …}; tags must cover all cells.

    Where tags overlap the later one holds.

    Args:
        values: by cell tag, numbers or tensors "*b"; with a `shape`, tensors "*b *shape".
        shape: of one value, `(2,)` for vectors. By default square matrices, "*b k k", are told by their last two axes;
            `shape=()` says that those are a batch.

    Raises:
        TypeError: no mapping, or values that are neither numbers nor tensors.
        ValueError: a value that does not have that shape.
    """
    check_kind("by_cell_tag", "values", values, Mapping, 'a mapping {tag: value}, such as {"steel": 210.0}')
    for tag, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real | Tensor):
            raise TypeError(f"`by_cell_tag({{{tag!r}: ...}})` must be a number or a tensor; got {shown(value)}.")
    matrices = [tuple(v.shape[-2:]) for v in values.values() if isinstance(v, Tensor) and is_square(v)]
    shape = (matrices[0] if matrices else ()) if shape is None else shape
    check_shape("by_cell_tag", shape)
    for tag, value in values.items():
        given = tuple(value.shape) if isinstance(value, Tensor) else ()
        if given[max(len(given) - len(shape), 0) :] != tuple(shape):
            raise ValueError(
                f"`by_cell_tag({{{tag!r}: ...}})` must be a tensor whose last axes are {tuple(shape)}, as for every "
                f"tag; got {shown(value)}. `shape=()` says that all values are numbers, or batches of them."
            )
    return CellValues(dict(values), tuple(shape))


def is_square(value: Tensor) -> bool:
    """Whether a tensor looks like matrices: its last two axes are equal, and longer than one."""
    return value.ndim >= 2 and value.shape[-1] == value.shape[-2] > 1


def check_shape(call: str, shape: Any) -> None:
    """Raise where the shape of one value is no tuple of positive integers."""
    if not isinstance(shape, tuple | list) or not all(is_integer(n, 1) for n in shape):
        raise ValueError(f"`{call}(shape=...)` must be a tuple, such as `(2,)`; got {shown(shape)}.")


@dataclass(frozen=True)
class PointValues:
    """A parameter at the points of one domain: `value` is a number, or a tensor "*b #e #q *rank"."""

    value: Any
    rank: int = 0

    @property
    def batch(self) -> tuple[int, ...]:
        if not isinstance(self.value, Tensor):
            return ()
        return tuple(self.value.shape[: max(self.value.ndim - 2 - self.rank, 0)])


Resolved = float | Constant | Function | Gradient | PointValues


def values_at_points(parameter: Parameter, name: str, space: Any, domain: Domain, geometry: Geometry) -> PointValues:
    """The parameter at the points of a domain, differentiable in whatever it is made of; raises as `resolved` does."""
    return point_values(resolved(parameter, name, space, domain, geometry), domain, geometry)


def point_values(given: Resolved, domain: Domain, geometry: Geometry) -> PointValues:
    """What integrals know of a parameter, at the points of a domain."""
    if isinstance(given, int | float):
        return PointValues(given)
    if isinstance(given, Constant):
        return PointValues(given.value[(..., None, None, *[slice(None)] * len(given.shape))], len(given.shape))
    if isinstance(given, PointValues):
        return given
    function, order = field_of(given)
    value = function.space.quadrature.values(function.values, domain, geometry, order)[order]
    if function.shape is not None:
        return PointValues(value.unflatten(-1, function.shape), len(function.shape))
    return PointValues(value, function.space.quadrature.rank(order))


def resolved(parameter: Any, name: str, space: Any, domain: Domain, geometry: Any) -> Resolved:
    """The parameter as one of the few kinds of values that integrals know; only callables look at the geometry, at its
    `points` alone.

    Raises:
        TypeError: a dtype other than the space's, or something that is no parameter.
        ValueError: a field on another mesh, a callable whose values fit no point, a cell without a material.
    """
    if isinstance(parameter, int | float | Real) and not isinstance(parameter, bool):
        return float(parameter)
    if isinstance(parameter, Function | Gradient):
        function, order = field_of(parameter)
        if function.space.mesh.topology is not space.mesh.topology:
            raise ValueError(
                f"{name} is a field over another mesh; `V.interpolate(lambda x: W.evaluate(w, x))` carries it over."
            )
        function = replace(function, values=check_like(space, function.values, name))
        return Gradient(function) if order else function
    if isinstance(parameter, CellValues):
        rank, value = len(parameter.shape), check_like(space, cell_values(parameter, name, space, domain), name)
        return PointValues(value.unsqueeze(value.ndim - rank), rank)
    if isinstance(parameter, CellPoints):
        value, rank = check_like(space, parameter.values[domain.block], name), parameter.rank
        e, q = value.shape[value.ndim - rank - 2 : value.ndim - rank]
        if domain.facet is not None or q != len(domain.weights) or e != space.mesh.blocks[domain.block].num_cells:
            raise ValueError(f"{name} has values at {q} points of {e} cells, which are not those of the integral.")
        return PointValues(
            value if domain.cells is None else value.index_select(value.ndim - rank - 2, domain.cells), rank
        )
    if isinstance(parameter, Constant):
        return replace(parameter, value=check_like(space, parameter.value, name))
    if isinstance(parameter, Tensor):
        check_batch(parameter, name, space)
        return Constant(check_like(space, parameter, name), ())
    if callable(parameter) and not isinstance(parameter, type):
        assert geometry is not None
        value = parameter(geometry.points)
        points = tuple(geometry.points.shape[:2])
        if not isinstance(value, Tensor) or value.ndim == 0:
            return resolved(value, name, space, domain, geometry)
        value = check_like(space, value, name)
        if tuple(value.shape[:2]) != points:
            raise ValueError(
                f"{name}: the callable got points x of shape {tuple(geometry.points.shape)} and must return one value "
                f"for each, shape {points} or {(*points, '...')}; got {tuple(value.shape)}."
            )
        return PointValues(value, value.ndim - 2)
    raise TypeError(f"{name} must be a number, tensor, field, callable or material; got {shown(parameter)}.")


def field_of(given: Function | Gradient) -> tuple[Function, int]:
    """The field itself, and the order of the derivative that is meant: 0, or 1 for its gradient."""
    return (given.function, 1) if isinstance(given, Gradient) else (given, 0)


def may_jump(parameter: Any) -> bool:
    """Whether a parameter may have two values at a facet between two cells."""
    if isinstance(parameter, Function | Gradient):
        function, order = field_of(parameter)
        return function.space.continuity < order
    return isinstance(parameter, CellValues | CellPoints)


def tensor_in(given: Any) -> Tensor | None:
    """The tensor that a parameter is made of, if it is made of one."""
    if isinstance(given, Function | Gradient):
        return field_of(given)[0].values
    value = given.value if isinstance(given, Constant | PointValues) else given
    return value if isinstance(value, Tensor) else None


def with_tensor(given: Any, tensor: Tensor) -> Any:
    """The same kind of parameter made of another tensor."""
    if isinstance(given, Gradient):
        return Gradient(replace(given.function, values=tensor))
    return replace(given, **{"values" if isinstance(given, Function) else "value": tensor})


def cell_values(parameter: CellValues, name: str, space: Any, domain: Domain) -> Tensor:
    """One value per cell of the domain, "*b e *shape"."""
    mesh = space.mesh
    unknown = [tag for tag in parameter.values if tag not in mesh.cell_tags]
    if unknown:
        raise ValueError(
            f"{name}: unknown cell tag {unknown[0]!r}; this mesh has {', '.join(mesh.cell_tags) or 'none'}."
            f"{did_you_mean(unknown[0], mesh.cell_tags)}"
        )
    index = torch.full((mesh.num_cells,), -1, dtype=torch.int64, device=mesh.device)
    for i, tag in enumerate(parameter.values):
        index[mesh.cell_tags[tag]] = i
    if bool((index < 0).any()):
        missing = int((index < 0).sum())
        raise ValueError(
            f"{name}: {missing} cells (the first is {int(torch.nonzero(index < 0)[0])}) have none of the tags "
            f"{', '.join(parameter.values)}, and every cell needs a value."
        )
    like = {"dtype": space.dtype, "device": space.device}
    entries = [v if isinstance(v, Tensor) else torch.tensor(float(v), **like) for v in parameter.values.values()]
    dim = -1 - len(parameter.shape)
    table = torch.stack(torch.broadcast_tensors(*entries), dim)
    index = index[mesh.block_starts[domain.block] : mesh.block_starts[domain.block + 1]]
    return table.index_select(dim, index if domain.cells is None else index[domain.cells])


def check_batch(parameter: Tensor, name: str, space: Any) -> None:
    """Raise where a bare tensor, always a batch of numbers, looks like the values of a field or one per cell.

    Told by any axis with as many entries as there are dofs, nodes or cells ("*b n", "*b n c", "*b e i j"), and by the
    last axes where they are those of an image on a grid. One entry is one number, whatever it counts.

    Raises:
        ValueError: with what the tensor may have been meant for.
    """
    shape, mesh = tuple(parameter.shape), space.mesh
    if max(shape, default=1) == 1:
        return
    counts = {count: "dofs" for f in (space, *space.fields) for count in (f.num_dofs, f.shape[0])}
    counts = {mesh.num_cells: "cells", mesh.num_nodes: "nodes"} | counts
    images = [] if mesh.grid is None else [mesh.grid, *(mesh.topology.grid.node_shape(p) for p in (1, space.degree))]
    found = [n for n in shape if n > 1 and n in counts]
    found += [prod(image) for image in images if shape[-len(image) :] == image[::-1]]
    if found:
        degree, kind = mesh.blocks[0].degree, counts.get(found[0], "points")
        where = f" (a V = `FunctionSpace(mesh, Lagrange({degree}))`)" if kind == "nodes" else ""
        raise ValueError(
            f"{name} is a tensor of shape {shape}, which would be a batch of numbers, but there are {found[0]} "
            f"{kind} here. Write `V.function(t)` for a field with these dofs{where}; "
            "`V.per_cell(t)` for one value per cell; and `Constant(t, shape=())` for a batch that happens to have this "
            "size."
        )


def check_like(space: Any, value: Tensor, name: str) -> Tensor:
    """The tensor, if it has the space's dtype and device."""
    if value.dtype != space.dtype:
        raise TypeError(f"{name} is {value.dtype} but the space is {space.dtype}; convert one of them.")
    if value.device != space.device:
        raise TypeError(f"{name} is on {value.device} but the space is on {space.device}; move one of them.")
    # What a user's inference mode made takes no part in derivatives.
    return value.clone() if value.is_inference() and not torch.is_inference_mode_enabled() else value


def of_time(value: Any) -> bool:
    """Whether a prescribed value is a callable of x and t."""
    takes = signature(value) if callable(value) and not isinstance(value, Tensor | Function) else None
    return takes is not None and takes.least == 2


def at_time(value: Any, time: float | None) -> Any:
    """A prescribed value at one time."""
    if not of_time(value):
        return value
    if time is None:
        raise ValueError("prescribed values are functions of (x, t): solve by `evolve`, or fix t, `dirichlet.at(t)`.")
    return lambda x: value(x, time)
