"""Global unknowns: numbers that are the same everywhere, as a space that goes into a product with others."""

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.reference.cells import Cell
from fem.reference.discontinuous import discontinuous_element
from fem.reference.element import Tabulation
from fem.space.cell_dofs import CellDofs
from fem.space.field import Function
from fem.space.space import FunctionSpace
from fem.support.checks import check_integers, check_kind


@dataclass(frozen=True)
class GlobalElement:
    """The function 1, which all cells share."""

    cell: Cell
    degree = 0
    num_basis = 1
    continuity = 2  # as many derivatives as anybody asks for

    def tabulate(self, points: Tensor, derivatives: int = 1) -> Tabulation:
        """1 and its vanishing derivatives."""
        return discontinuous_element(self.cell, 0).tabulate(points, derivatives)


@dataclass(frozen=True)
class Global:
    """The family of `GlobalElement`."""

    def on(self, cell: Cell) -> GlobalElement:
        return GlobalElement(cell)


class Reals(FunctionSpace):
    """Unknown numbers λ as a field of a product, `MixedSpace(V, Reals(mesh))`: Lagrange multipliers of integrals, the
    pressure of a cavity, an arc length.

    A density gets λ "…", for `count` > 1 λ "… count", at every point the same, and its gradient, which is zero. What is
    integrated over the domain is the condition that λ belongs to: λ u in the density of an energy makes ∫ u = 0, and
    `solve` finds u and λ, which are a saddle point. Dofs are "*b 1", or "*b 1 count"; each is coupled with all others
    that a density brings together, by one full row of the matrix.

    Args:
        mesh: that of the other spaces.
        count: how many.
    """

    def __init__(self, mesh: Mesh, count: int = 1):
        check_kind("Reals", "mesh", mesh, Mesh, "a `Mesh`, such as `unit_square(8)`")
        check_integers("Reals", count=count)
        self.family = Global()
        elements = tuple(self.family.on(block.cell) for block in mesh.blocks)
        nothing = torch.zeros(1, 1, dtype=torch.int64, device=mesh.device)
        numbers = tuple(nothing.expand(block.num_cells, 1) for block in mesh.blocks)
        self._set(mesh, elements, None if count == 1 else count, CellDofs(numbers, 1), None)

    @property
    def count(self) -> int:
        """How many unknowns there are."""
        return self.components or 1

    def over(self, mesh: Mesh) -> "Reals":
        return Reals(mesh, self.count)

    def dofs(self, tag: Any) -> NoReturn:
        """Raise: no tag means a number that is the same everywhere."""
        raise ValueError(
            f"a global unknown stands at no facet and no node, {tag!r} or other; prescribe values of other fields, "
            f"`Dirichlet(W, {{({tag!r}, 0): ...}})`, and give a number that is known as a parameter."
        )

    @property
    def dof_coordinates(self) -> NoReturn:
        """Raise: a number that is the same everywhere has no place."""
        raise ValueError("global unknowns have no nodes; they are numbers, `torch.tensor([1.0])`.")

    def interpolate(self, value: Any, outside: Any = None) -> Tensor:
        """Dofs of given numbers: one, or "*b" with a last axis of `count`."""
        if callable(value) or isinstance(value, Function):
            raise TypeError(f"`interpolate` into `Reals` needs numbers, {self.count} of them; got a function.")
        return super().interpolate(value, outside)

    def __repr__(self) -> str:
        return f"Reals({self.count}; {self.num_dofs} dofs on {self.mesh})"
