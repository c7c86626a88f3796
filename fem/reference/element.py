"""The one contract between bases and everything that integrates them: values and derivatives at reference points.

An element is anything with a `cell` and a pure `tabulate(points)`. It never sees a mesh. Bases that are the same on
every cell (Lagrange) tabulate with a cell axis of length one; bases that differ from cell to cell (splines) fill it.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell


@dataclass(frozen=True, eq=False)
class Tabulation:
    """Values, gradients and second derivatives of the local basis functions in *reference* coordinates.

    `e` is 1 where all cells share the basis; derivatives that were not asked for are None.
    """

    value: Float[Tensor, "#e q a"]
    grad: Float[Tensor, "#e q a r"] | None = None
    hess: Float[Tensor, "#e q a r r"] | None = None


@runtime_checkable
class Element(Protocol):
    """A basis on a reference cell; `degree` is the highest polynomial degree that the basis reproduces."""

    @property
    def cell(self) -> Cell: ...

    @property
    def degree(self) -> int: ...

    @property
    def num_basis(self) -> int: ...

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> Tabulation:
        """Basis functions and their derivatives up to the given order (0, 1 or 2) at reference points."""
        ...


@runtime_checkable
class ElementFamily(Protocol):
    """What a user passes to `FunctionSpace`: a recipe that gives an element on each kind of cell of a mesh."""

    def on(self, cell: Cell) -> Any:
        """An `Element`, or one of vector fields (`fem.reference.vector_element`)."""
        ...
