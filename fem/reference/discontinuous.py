"""Polynomials of degree 0 to 3 on every cell by itself: a Lagrange basis whose nodes are not shared.

Degree 0 is one value for each cell.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell
from fem.reference.element import Tabulation
from fem.reference.lagrange import lagrange_element
from fem.support.checks import is_integer, refuse
from fem.support.transforms import outside_transforms


@dataclass(frozen=True)
class Discontinuous:
    """Piecewise polynomials of the given degree, 0 to 3, that may jump between cells; see `Lagrange` for degrees.

    Raises:
        ValueError: the degree is not 0, 1, 2 or 3.
    """

    degree: int

    def __post_init__(self):
        if not is_integer(self.degree, 0) or self.degree > 3:
            refuse("Discontinuous", "degree", "0, 1, 2 or 3", self.degree)

    def on(self, cell: Cell) -> "DiscontinuousElement":
        return discontinuous_element(cell, int(self.degree))


@dataclass(frozen=True)
class DiscontinuousElement:
    """The Lagrange basis of one degree on one reference cell, of degree 0 the function 1; no node is shared."""

    cell: Cell
    degree: int
    continuity = -1

    @cached_property
    @outside_transforms()
    def nodes(self) -> Float[Tensor, "a r"]:
        """Reference coordinates of the nodes: those of Lagrange elements, of degree 0 the centre."""
        if self.degree:
            return lagrange_element(self.cell, self.degree).nodes
        return torch.tensor(self.cell.vertices, dtype=torch.float64, device="cpu").mean(0, keepdim=True)

    @property
    def num_basis(self) -> int:
        return len(self.nodes)

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> Tabulation:
        """Basis functions and derivatives up to order 0, 1 or 2 at reference points; `dtype` and device follow them."""
        if self.degree:
            return lagrange_element(self.cell, self.degree).tabulate(points, derivatives)
        dim = points.shape[1]
        value, *slopes = [points.new_zeros(1, len(points), 1, *[dim] * k) for k in range(derivatives + 1)]
        return Tabulation(value + 1, *slopes)


@cache
def discontinuous_element(cell: Cell, degree: int) -> DiscontinuousElement:
    """The shared element instance."""
    return DiscontinuousElement(cell, degree)
