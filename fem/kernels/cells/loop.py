"""What is done with the cells of any mesh: gather, interpolate, run a density's program at each point, scatter back.

A program of cells works in reference coordinates: its fields come as values and derivatives there, the inverse
Jacobians and the measures of points among its arguments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.kernels.cells.inputs import CellInputs
from fem.kernels.grid_inputs import Input
from fem.kernels.grid_loop import as_image
from fem.kernels.program import Program
from fem.mesh.geometry import Domain
from fem.reference.cells import Cell
from fem.support.portions import at_a_time
from fem.support.transforms import outside_transforms

TEMPORARIES = 16  # arrays of a chunk that are alive at once, more or less


@dataclass(frozen=True)
class CellRule:
    """Quadrature on reference cells: points "q r" as numbers for each group of cells and each side, and weights "q".

    Cells have one side and are one group; facets have the cell on one side of them, or those on both, and are a group
    where they are the same local facets of their cells.
    """

    cells: tuple[Cell, ...]
    points: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, *groups: Sequence[Domain]) -> "CellRule":
        """That of some groups of cells, each given by its domain on either side."""
        points = tuple(tuple(tuple(map(tuple, side.points.tolist())) for side in group) for group in groups)
        return cls(tuple(side.cell for side in groups[0]), points, tuple(groups[0][0].weights.tolist()))

    @outside_transforms()
    def table(self, family: Any, side: int = 0) -> Float[Tensor, "g q s a"]:
        """Values and derivatives s = 1 + r of a family's basis at the points; what is round-off is zero, or equal."""
        element, tables = family.on(self.cells[side]), []
        for group in self.points:
            points = torch.tensor(group[side], dtype=torch.float64, device="cpu").reshape(len(self.weights), -1)
            tabulation = element.tabulate(points, 1)
            assert tabulation.grad is not None
            tables.append(torch.cat([tabulation.value[0][:, None], tabulation.grad[0].mT], 1))
        found = torch.stack(tables)
        small = 1e-13 * found.abs().amax()
        found = found.masked_fill(found.abs() <= small, 0.0)
        same = (found - found[:, :1]).abs().amax((0, 1, 3)) <= small
        found = torch.where(same[:, None], found[:, :1], found)
        return torch.where((found - found.round()).abs() <= small, found.round(), found)


class CellLoop:
    """What is done with each cell.

    Gradients: the sums of ψ "b", then for each way of scattering (by value, by size) and each input of `wrt` the
    derivative. Hessians: with `columns`, second derivatives in inputs of `wrt` and of `columns`, which only generated
    code makes matrices of.

    Args:
        place: the inputs that are points, inverse Jacobians and measures, where those follow from the nodes of the mesh
            as `geometry`, a table, tells.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        arguments: Sequence[Any],
        entries: Sequence[tuple[int, int]],
        rule: CellRule,
        program: Program,
        wrt: Sequence[int],
        scatters: tuple[bool, ...] = (),
        columns: Sequence[int] | None = None,
        place: Sequence[int] = (),
        geometry: Any = None,
    ):
        self.inputs, self.arguments, self.program = inputs, arguments, program
        self.wrt, self.columns = tuple(wrt), None if columns is None else tuple(columns)
        self.scatters, self.rule, self.dim = scatters, rule, rule.cells[0].dim
        self.families: list[Any] = list(dict.fromkeys(i.basis for i in inputs if i.kind == "field"))
        self.tables = [rule.table(*family) for family in self.families]
        self.place, self.geometry = tuple(place), None if geometry is None else rule.table(geometry)
        self.sources = [self.source(*name) if used else None for name, used in zip(entries, program.used, strict=True)]
        self.generated: dict[Any, Any] = {}  # as C code, where it has been tried

    def source(self, argument: int, entry: int) -> tuple[int, int, int]:
        """Where an entry of an argument comes from: input, its component, and the slot of a field's table."""
        for i, given in enumerate(self.inputs):
            for order, place in given.places:
                if place == argument:
                    return (i, *self.slot(order, entry))
        raise AssertionError("every argument of a program that matters belongs to an input")

    def slot(self, order: int, entry: int) -> tuple[int, int]:
        """Component of an input and slot of its table of an entry of its value or its derivative."""
        return (entry // self.dim, 1 + entry % self.dim) if order else (entry, 0)

    def slots_of(self, inputs: Sequence[int]) -> list[tuple[int, int, int]]:
        """(input, component, slot) of all entries of some inputs."""
        return [
            (i, *self.slot(order, k))
            for i in inputs
            for order, place in self.inputs[i].places
            for k in range(prod(self.arguments[place]))
        ]

    @cached_property
    def slopes(self) -> list[tuple[int, int, int]]:
        """Those of each slope among the outputs of the program."""
        return self.slots_of(self.wrt)

    @property
    def has_value(self) -> bool:
        return len(self.program.outputs) > len(self.slopes)

    def basis(self, i: int) -> int:
        """The number of the table of a field."""
        return self.families.index(self.inputs[i].basis)

    @cached_property
    def fields(self) -> list[int]:
        """The fields that the program sees."""
        return sorted({s[0] for s in self.sources if s is not None and self.inputs[s[0]].kind == "field"})

    # -- in PyTorch ----------------------------------------------------------------------------------------------------

    def run(
        self,
        data: CellInputs,
        counts: Sequence[int],
        dofs: Sequence[Int[Tensor, "e a"]],
        results: list[list[Tensor]],
    ) -> Tensor:
        """The sums of ψ "b"; derivatives are added to `results`, "b …" as `CellInputs.zeros` makes them.

        Args:
            counts: cells of each group.
        """
        total, all_tables = data.like.new_zeros(data.size), [t.to(data.like) for t in self.tables]
        for group, cells in self.chunks(data, counts):
            tables = [t[group] for t in all_tables]
            shape = (data.size, data.points, cells.stop - cells.start)
            at = [
                interpolated(data.tensors[i], dofs[self.basis(i)][cells], tables[self.basis(i)])
                if i in self.fields
                else None
                for i in range(len(self.inputs))
            ]
            outputs = self.program.run(*[None if s is None else self.scalar(data, at, s, cells) for s in self.sources])
            arrays = [as_image(o, shape, data.like) for o in outputs]
            if self.has_value:
                total += arrays.pop(0).sum((1, 2))
            for size, found in zip(self.scatters, results, strict=True):
                for i, result in zip(self.wrt, found, strict=True):
                    own = [(s[1:], a) for s, a in zip(self.slopes, arrays, strict=True) if s[0] == i]
                    own = [(s, a.abs() if size else a) for s, a in own]
                    if self.inputs[i].kind == "field":
                        table = tables[self.basis(i)].abs() if size else tables[self.basis(i)]
                        scatter(result, own, dofs[self.basis(i)][cells], table)
                    else:
                        stacked = torch.stack([a for _, a in own], -1).movedim(1, 2)  # "b e q k"
                        if self.inputs[i].kind == "constant":
                            result += stacked.sum((1, 2))
                        else:
                            result[:, cells] = stacked.sum(2) if self.inputs[i].kind == "steady" else stacked
        return total

    def chunks(self, data: CellInputs, counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
        """Some cells of a group at a time."""
        step, end = at_a_time(data.size * data.points * TEMPORARIES, data.like), 0
        for group, count in enumerate(counts):
            start, end = end, end + count
            yield from ((group, slice(first, min(first + step, end))) for first in range(start, end, step))

    def scalar(self, data: CellInputs, at: Sequence[Any], source: tuple[int, int, int], cells: slice) -> Tensor:
        """An input of the program at all points of some cells, "b q e" up to broadcasting."""
        i, k, s = source
        tensor, kind = data.tensors[i], self.inputs[i].kind
        if kind == "field":
            return at[i][:, k, s]
        if kind == "constant":
            return tensor[:, k, None, None]
        return (tensor if tensor.shape[1] == 1 else tensor[:, cells])[..., k].mT


def interpolated(
    values: Float[Tensor, "b n c"], dofs: Int[Tensor, "e a"], table: Float[Tensor, "q s a"]
) -> Float[Tensor, "b c s q e"]:
    """Values and derivatives of a field at all points of some cells."""
    local = values.mT[:, :, dofs.T]  # "b c a e"
    return (table.transpose(0, 1).flatten(0, 1) @ local).unflatten(2, (table.shape[1], table.shape[0]))


def scatter(
    result: Float[Tensor, "b n c"],
    slopes: Sequence[tuple[tuple[int, int], Float[Tensor, "b q e"]]],
    dofs: Int[Tensor, "e a"],
    table: Float[Tensor, "q s a"],
) -> None:
    """Add what multiplies components and slots of a field, sent to its nodes: the transpose of `interpolated`."""
    local: list[Any] = [0.0] * result.shape[-1]
    for (c, s), slope in slopes:
        local[c] = local[c] + table[:, s].T @ slope  # "b a e"
    for c, values in enumerate(local):
        if isinstance(values, Tensor):
            index = dofs.T.flatten().expand(len(result), -1)
            result[..., c].scatter_add_(-1, index, values.flatten(1))
