"""Fields as values: the dofs of a function together with the space that they belong to, and its gradient."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


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
        if self.shape is not None:
            return self.shape
        return () if self.space.components is None else (self.space.components,)


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of a field: made by `gradient(space.function(values))`."""

    function: Function


def gradient(function: Function) -> Gradient:
    """The gradient "… d" (vectors: "… c d") of a field, as a parameter of a density."""
    if not isinstance(function, Function):
        raise TypeError(f"`gradient` takes a field, `V.function(values)`; got {type(function).__name__}.")
    if function.space.degree == 0 and function.space.continuity < 0:
        raise ValueError(
            "`gradient` of one value per cell is zero wherever it exists; interpolate it first, "
            "`V.interpolate(lambda x: p.space.evaluate(p.values, x))`."
        )
    return Gradient(function)
