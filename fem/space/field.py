"""Fields as values: the dofs of a function together with the space that they belong to, and its gradient."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fem.support.checks import check_integers, check_kind, shown


@dataclass(frozen=True, eq=False)
class Function:
    """A field with dofs `values` "*b n (c)" on a `FunctionSpace`: made by `space.function(values)`.

    `shape` says that the components are those of a matrix: of `space.per_cell(values, shape=(i, j))`.
    """

    space: Any
    values: Tensor
    shape: tuple[int, ...] | None = None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of one value."""
        return self.space.value_shape if self.shape is None else self.shape


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of a field: made by `gradient(space.function(values))`."""

    function: Function


def gradient(function: Function) -> Gradient:
    """The gradient "… d" (vectors: "… c d") of a field, as a parameter of a density; of `RaviartThomas` functions the
    divergence, of `Nedelec` ones the curl.
    """
    if not isinstance(function, Function):
        raise TypeError(f"`gradient` takes a field, `V.function(values)`; got {type(function).__name__}.")
    if function.space.degree == 0 and function.space.continuity < 0:
        raise ValueError(
            "`gradient` of one value per cell is zero wherever it exists; interpolate it first, "
            "`V.interpolate(lambda x: p.space.evaluate(p.values, x))`."
        )
    return Gradient(function)


def check_dofs(space: Any, u: Any, name: str) -> Tensor:
    """The dofs, if their shape, type and device fit the space."""
    if not isinstance(u, Tensor):
        shape = f"(..., {', '.join(map(str, space.shape))})"
        meant = " Its `.value` may be meant." if isinstance(getattr(u, "value", None), Tensor) else ""
        raise TypeError(f"`{name}` must be a tensor of shape {shape}; got {shown(u)}.{meant}")
    if tuple(u.shape[u.ndim - len(space.shape) :]) != space.shape or u.ndim < len(space.shape):
        raise ValueError(
            f"`{name}` must have the trailing shape {space.shape} of the space's dofs; got {tuple(u.shape)}."
        )
    if u.dtype != space.dtype:
        raise TypeError(
            f"`{name}` is {u.dtype} but the space is {space.dtype}; convert one of them with `.to(dtype=...)`."
        )
    if u.device != space.device:
        raise TypeError(f"`{name}` is on {u.device} but the space is on {space.device}; move one of them with `.to`.")
    return u


def check_per_cell(values: Any, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape of one value, if `values` are one such value for each of so many cells, "*b e *shape"."""
    check_kind("per_cell", "values", values, Tensor, "a tensor with one value per cell")
    for n in shape:
        check_integers("per_cell", shape=n)
    if tuple(values.shape[max(values.ndim - len(shape) - 1, 0) :]) != (count, *shape):
        raise ValueError(
            f"`per_cell(values)` needs one value of shape {shape} for each of {count} cells, (..., "
            f"{', '.join(map(str, (count, *shape)))}); got {tuple(values.shape)}."
        )
    return shape
