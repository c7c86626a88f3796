"""Matrices in CSR, one for each item of a batch, over one space: those of a system, or of one of its fields."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import Pattern, sparse_csr
from fem.space.space import AnySpace
from solvers.operators.system import System


@dataclass(frozen=True, eq=False)
class Assembled:
    """Values of matrices that have one pattern, and the dofs whose rows and columns count as zero."""

    space: AnySpace
    pattern: Pattern
    batch: tuple[int, ...]
    values: Float[Tensor, "*b z"]
    fixed: Bool[Tensor, "..."] | None
    owner: AnySpace  # with which hierarchies of such matrices lie

    @classmethod
    def of(cls, system: System, zeros: bool = True) -> "Assembled":
        """The matrices of a system, perhaps without the entries that are zero in all of them."""
        space, pattern, values = system.form.space, system.form.pattern, system.values
        if not zeros:
            kept = (values != 0).reshape(prod(system.batch), -1).any(0)
            kept[pattern.diagonal] = True
            entries = torch.nonzero(kept).flatten()
            pattern = with_entries(pattern.row[entries], pattern.column[entries], space.num_dofs)
            values = values[..., entries]
        return cls(space, pattern, system.batch, values, system.fixed, space)

    def block(self, i: int, j: int) -> tuple[Tensor, Tensor, Tensor]:
        """The entries that couple field i with field j, and their rows and columns there."""
        starts = [sum(f.num_dofs for f in self.space.fields[:k]) for k in (i, j)]
        height, width = (self.space.fields[k].num_dofs for k in (i, j))
        first, last = (int(self.pattern.crow[row]) for row in (starts[0], starts[0] + height))
        column = self.pattern.column[first:last] - starts[1]
        inside = torch.nonzero((column >= 0) & (column < width)).flatten()
        return first + inside, self.pattern.row[first + inside] - starts[0], column[inside]

    def of_field(self, i: int) -> "Assembled":
        """The block of one field with itself."""
        field, (entries, row, column) = self.space.fields[i], self.block(i, i)
        fixed = None if self.fixed is None else self.space.split(self.fixed)[i]
        pattern = with_entries(row, column, field.num_dofs)
        return Assembled(field, pattern, self.batch, self.values[..., entries], fixed, self.owner)


def with_entries(row: Tensor, column: Tensor, n: int) -> Pattern:
    """The pattern of a square matrix with these entries, row by row."""
    return Pattern(starts_of(row, n), column, row, {}, torch.nonzero(row == column).flatten())


def starts_of(row: Tensor, n: int) -> Tensor:
    """Where each of n rows begins in a list of entries, and where the last one ends."""
    count = torch.bincount(row, minlength=n)
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def csr_of(row: Tensor, column: Tensor, values: Float[Tensor, "z"], size: tuple[int, int]) -> Tensor:
    """A sparse matrix of these entries, row by row."""
    return sparse_csr(starts_of(row, size[0]).int(), column.int(), values, size)
