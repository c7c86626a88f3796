"""What is done with one chunk of cells: interpolate, run a density's program at each quadrature point, scatter back."""

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.kernels.grid_inputs import Input
from fem.kernels.program import Program
from fem.kernels.tensor_interpolation import GridRule, TensorInterpolation, node_types, scatter
from fem.support.arithmetic import sum_of
from fem.support.compilation import Kernel
from fem.support.transforms import outside_transforms


class GridLoop:
    """What is done with one chunk: interpolate, run the program at each quadrature point, scatter back.

    Gradients: the sums of ψ "b", then for each way of scattering (by value, by size), each input of `wrt` and each of
    its entries the derivative. Hessians: the distinct second derivatives at the points, to multiply with `products`.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        names: Sequence[tuple[int, int]],
        rule: GridRule,
        program: Program,
        wrt: Sequence[int],
        scatters: tuple[bool, ...],
    ):
        self.inputs, self.program, self.wrt, self.scatters = inputs, program, tuple(wrt), scatters
        self.rule, self.dim = rule, len(rule.cells)
        self.tables = {i.degree: self.rule.tables(i.degree) for i in self.inputs if i.kind == "field"}
        self.degrees = [i.degree for i in self.inputs if i.kind == "field" for _ in range(prod(i.shape))]
        axes = sorted({k for (i, k), used in zip(names, program.used, strict=True) if i == 0 and used})
        self.coordinates = [(axis, q) for axis in axes for q in range(len(self.rule.points))]
        self.sources = [self.source(*name) if used else None for name, used in zip(names, program.used, strict=True)]
        self.generated: dict[Any, Any] = {}  # as C code, where it has been tried
        self.kernel = Kernel(self.run if scatters or not wrt else self.second_derivatives)

    def source(self, argument: int, entry: int) -> tuple[Any, ...]:
        """Where an input of the program comes from: (kind, which list entry, which derivative or entry)."""
        if argument == 0:
            return "x", entry, None
        starts = {"field": 0, "constant": 0, "points": 0}  # one value per cell is the same at all its points
        for given in self.inputs:
            for order, place in given.places:
                if place == argument:
                    if given.by_cell:
                        return "points", starts["points"], entry
                    component, axis = (entry // self.dim, entry % self.dim) if order else (entry, None)
                    return given.kind, starts[given.kind] + component, axis
            if given.by_cell:
                starts["points"] += 1
            else:
                starts[given.kind] += prod(given.shape)
        raise AssertionError("every argument of a program is x or belongs to an input")

    def scalars(self, q: tuple[int, ...], lists: Sequence[list[Any]]) -> list[Any]:
        """The program's inputs at quadrature point q of all cells."""
        fields, constants, points, coordinates = lists
        found: list[Any] = []
        for source in self.sources:
            match source:
                case ("x", axis, _):
                    found.append(coordinates[self.coordinates.index((axis, q[axis]))])
                case ("field", i, axis):
                    found.append(fields[i].at(q, axis))
                case ("constant", i, _):
                    found.append(constants[i])
                case ("points", i, entry):
                    found.append(points[i][entry, self.rule.order[q]])
                case _:
                    found.append(None)
        return found

    def run(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor], lines: list[Tensor]
    ) -> list[Tensor]:
        shape, like = self.chunk_shape(fields, constants, points)
        lists = [self.interpolations(fields), constants, points, lines]
        slots = self.slots
        has_value = len(self.program.outputs) > len(slots)
        total: Any = None
        fluxes: dict[tuple[int, int], dict[Any, Tensor]] = {
            (i, c): {} for i in self.wrt for c in range(prod(self.inputs[i].shape))
        }
        for q, weight in self.rule.weights.items():
            outputs = self.program.run(*self.scalars(q, lists))
            if has_value:
                part = as_image(outputs[0], shape, like) * weight
                total = part if total is None else total + part
            for (i, order, k), output in zip(slots, outputs[int(has_value) :], strict=True):
                if isinstance(output, Tensor) or output != 0:
                    component, axis = (k // self.dim, k % self.dim) if order else (k, None)
                    fluxes[i, component][q, axis] = as_image(output, shape, like) * weight
        value = like.new_zeros(shape[0]) if total is None else total.flatten(1).sum(1)
        return [
            value,
            *[
                part
                for size in self.scatters
                for (i, _), f in fluxes.items()
                for part in self.spread(i, f, size, shape, like)
            ],
        ]

    @property
    def slots(self) -> list[tuple[int, int, int]]:
        """(input, order of derivative, entry) of each slope among the outputs of the program."""
        return [
            (i, order, k) for i in self.wrt for order, _ in self.inputs[i].places for k in self.entry_range(i, order)
        ]

    def spread(
        self, i: int, fluxes: dict[Any, Tensor], size: bool, shape: tuple[int, ...], like: Tensor
    ) -> list[Tensor]:
        """A derivative with respect to one entry of an input from what multiplies its values and slopes at points."""
        given = self.inputs[i]
        if given.kind == "field":
            parts = scatter(fluxes, self.tables[given.degree], given.degree, size) if fluxes else {}
            return [
                parts[kind] if kind in parts else like.new_zeros(shape[0], *vertices_of(kind, shape[1:]))
                for kind in node_types(given.degree, self.dim)
            ]
        at_points = {self.rule.order[q]: f for (q, _), f in fluxes.items()}
        if given.kind == "points":
            zero = like.new_zeros(shape)
            return [torch.stack([at_points.get(k, zero) for k in range(len(self.rule.weights))])]
        if given.kind == "cells":
            return [sum_of(at_points.values()) if at_points else like.new_zeros(shape)]
        total = like.new_zeros(shape[0])
        for flux in at_points.values():
            total = total + flux.flatten(1).sum(1)
        return [total]

    def second_derivatives(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor], lines: list[Tensor]
    ) -> list[Tensor]:
        shape, like = self.chunk_shape(fields, constants, points)
        lists = [self.interpolations(fields), constants, points, lines]
        first = {name: self.program.outputs.index(name) for name in self.different}
        found = []
        for q in self.rule.weights:
            outputs = self.program.run(*self.scalars(q, lists))
            found += [as_image(outputs[k], shape, like) for k in first.values()]
        return found

    @cached_property
    def different(self) -> list[Any]:
        """The second derivatives that differ from each other and from zero."""
        return [name for name in dict.fromkeys(self.program.outputs) if isinstance(name, str) or name != 0]

    @cached_property
    @outside_transforms()
    def products(self) -> Float[Tensor, "k m"]:
        """What each different second derivative at each point contributes to each entry A ≤ B of an element matrix."""
        given = self.inputs[0]
        tables, columns = self.tables[given.degree], []
        components = prod(given.shape)
        for q, weight in self.rule.weights.items():
            rows = []  # of each slot: how each local dof enters it
            for order, _ in given.places:
                for k in self.entry_range(0, order):
                    component, axis = (k // self.dim, k % self.dim) if order else (k, None)
                    local = torch.ones(1, dtype=torch.float64, device="cpu")
                    for d in range(self.dim):
                        line = torch.tensor(tables[d][d == axis][q[d]], dtype=torch.float64, device="cpu")
                        local = (line[:, None] * local).reshape(-1)
                    rows.append(local[:, None] * torch.eye(components, dtype=torch.float64, device="cpu")[component])
            slots = torch.stack(rows).flatten(1)
            for name in self.different:
                mask = torch.tensor(
                    [o is name or o == name for o in self.program.outputs], dtype=torch.float64, device="cpu"
                )
                columns.append(weight * slots.T @ mask.reshape(len(slots), -1) @ slots)
        size = len(columns[0])
        i, j = torch.triu_indices(size, size, device="cpu")
        return torch.stack([c[i, j] for c in columns], -1)

    def entry_range(self, i: int, order: int) -> range:
        return range(prod(self.inputs[i].shape) * (self.dim if order else 1))

    def interpolations(self, fields: list[Tensor]) -> list[TensorInterpolation]:
        parts = iter(fields)
        return [
            TensorInterpolation([next(parts) for _ in node_types(p, self.dim)], self.tables[p], p) for p in self.degrees
        ]

    def chunk_shape(
        self, fields: list[Tensor], constants: list[Tensor], points: list[Tensor]
    ) -> tuple[tuple[int, ...], Tensor]:
        """ "b nz ny nx" of the cells of a chunk, and a tensor of the right type."""
        b = max(t.shape[0] for t in [*fields, *constants, *[p[0, 0] for p in points]])
        return (b, *[n - 1 for n in fields[0].shape[1:]]), fields[0]  # the first type of nodes are vertices


def vertices_of(kind: tuple[int, ...], cells: Sequence[int]) -> list[int]:
    """How many nodes of a type there are along each axis."""
    return [n + (t == 0) for n, t in zip(cells, kind, strict=True)]


def as_image(value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An output of a program as an image, whatever it depends on."""
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=like.dtype, device=like.device)
    return value if value.shape == shape else value.expand(shape)
