"""From dofs on a grid to values at quadrature points and back, by strided slices, direction after direction.

    values:   Y[q] = Σ_a T[q, a] U[a::p]            along one axis: nodes → cells, one array for each point q
    back:     U[a::p] += Σ_q T[q, a] Y[q]           its transpose

with T the basis functions or their derivatives at the points of a one-dimensional rule. No array has an axis for
points, directions or local basis functions, so every operation runs over contiguous memory.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.cells import interval
from fem.lagrange import lagrange_element
from fem.quadrature import quadrature
from fem.space import sum_of

Row = tuple[float, ...]
Tables = list[tuple[list[Row], list[Row]]]


@dataclass(frozen=True)
class GridRule:
    """A tensor-product rule on the cells of a uniform grid, axes x first.

    points: one-dimensional points; weights: of each tuple of points, cell measure included; order: the position of
    each tuple in the rule of the cell.
    """

    cells: tuple[int, ...]
    lower: tuple[float, ...]
    spacing: tuple[float, ...]
    points: tuple[float, ...]
    weights: dict[tuple[int, ...], float]
    order: dict[tuple[int, ...], int]

    @property
    def key(self) -> Hashable:
        return self.cells, self.lower, self.spacing, self.points

    def tables(self, degree: int) -> Tables:
        """For each axis the basis functions and their derivatives (per unit of length) at the points, "q a".

        Rows that differ by round-off are the same one: slopes of degree 1 do not differ between points.
        """
        line = torch.tensor(self.points, dtype=torch.float64)[:, None]
        tabulation = lagrange_element(interval, degree).tabulate(line, 1)
        assert tabulation.grad is not None
        # VTK numbers both ends before the interior.
        order = [0, *range(2, degree + 1), 1]
        value, slope = tabulation.value[0][:, order], tabulation.grad[0, :, order, 0]
        return [(rows(value), rows(slope / h)) for h in self.spacing]

    def coordinates(self, axis: int, q: int, like: Tensor) -> Float[Tensor, "..."]:
        """x_axis at point q of every cell, along its own axis of an image."""
        cell = torch.arange(self.cells[axis], dtype=like.dtype, device=like.device)
        return self.lower[axis] + self.spacing[axis] * (cell + self.points[q])


def grid_rule(space: Any) -> GridRule:
    """The rule with which a space over a uniform grid integrates."""
    mesh = space.mesh
    lower, upper = mesh.box.corners.tolist()
    return rule_on_box(mesh.blocks[0].cell.name, tuple(mesh.grid), tuple(lower), tuple(upper), space.quadrature_degree)


@lru_cache(maxsize=64)
def rule_on_box(
    cell: str, cells: tuple[int, ...], lower: tuple[float, ...], upper: tuple[float, ...], degree: int
) -> GridRule:
    rule, points = quadrature(interval, degree), quadrature(cell, degree).points
    line = rule.points[:, 0].tolist()
    spacing = tuple((b - a) / n for a, b, n in zip(lower, upper, cells, strict=True))
    weights, order = {}, {}
    for q in product(range(len(line)), repeat=len(cells)):
        position = torch.tensor([line[i] for i in q], dtype=torch.float64)
        weights[q] = prod(float(rule.weights[i]) for i in q) * prod(spacing)
        order[q] = int((points - position).abs().sum(1).argmin())
    return GridRule(cells, lower, spacing, tuple(line), weights, order)


def rows(table: Float[Tensor, "q a"]) -> list[Row]:
    """The rows of a table, the first of those that are equal up to round-off for all of them."""
    table = table.masked_fill(table.abs() <= 1e-13 * table.abs().max(), 0.0)
    close = (table[:, None] - table).abs().amax(-1) <= 1e-13 * table.abs().max()
    return [tuple(table[int(same.nonzero()[0])].tolist()) for same in close]


def along(image: Tensor, axis: int, row: Row, degree: int) -> Tensor:
    """Σ_a row[a] U[a::p] along axis x, y or z (0, 1, 2) of an image "… nz ny nx"."""
    dim = image.ndim - 1 - axis
    cells = (image.shape[dim] - 1) // degree
    total = None
    for a, weight in enumerate(row):
        if weight:
            part = image[(slice(None),) * dim + (slice(a, a + degree * (cells - 1) + 1, degree),)]
            total = part * weight if total is None else torch.add(total, part, alpha=weight)
    assert total is not None
    return total


def back_along(parts: list[Tensor | None], axis: int, degree: int) -> Tensor:
    """The transpose: U with U[a::p] += parts[a]."""
    first = next(p for p in parts if p is not None)
    dim = first.ndim - 1 - axis
    cells = first.shape[dim]
    if degree == 1 and torch.compiler.is_compiling():
        pads = [[0, 0] * axis + side for side in ([0, 1], [1, 0])]
        padded = [torch.nn.functional.pad(p, pad) for p, pad in zip(parts, pads, strict=True) if p is not None]
        return padded[0] if len(padded) == 1 else padded[0] + padded[1]
    total = first.new_zeros(*first.shape[:dim], degree * cells + 1, *first.shape[dim + 1 :])
    for a, part in enumerate(parts):
        if part is not None:
            total[(slice(None),) * dim + (slice(a, a + degree * (cells - 1) + 1, degree),)] += part
    return total


class Interpolation:
    """One component of a field at quadrature points, computed when asked for; `at(q, axis)` derives along an axis."""

    def __init__(self, image: Tensor, tables: Tables, degree: int):
        self.tables, self.degree = tables, degree
        self.known: dict[tuple[Row, ...], Tensor] = {(): image}

    def at(self, q: tuple[int, ...], derived: int | None = None) -> Tensor:
        return self._reduced(chain(self.tables, q, derived))

    def _reduced(self, key: tuple[Row, ...]) -> Tensor:
        if key not in self.known:
            self.known[key] = along(self._reduced(key[:-1]), len(key) - 1, key[-1], self.degree)
        return self.known[key]


def chain(tables: Tables, q: tuple[int, ...], derived: int | None) -> tuple[Row, ...]:
    """What interpolates to point q along each axis, and derives along one."""
    return tuple(tables[k][k == derived][i] for k, i in enumerate(q))


def scatter(
    fluxes: dict[tuple[tuple[int, ...], int | None], Tensor], tables: Tables, degree: int, magnitude: bool = False
) -> Tensor:
    """The image of what multiplies a field (axis None) and its derivatives at all points: the transpose of `at`.

    With `magnitude`, of absolute values.
    """
    layer: dict[tuple[Row, ...], list[Tensor]] = {}
    for (q, derived), flux in fluxes.items():
        layer.setdefault(chain(tables, q, derived), []).append(flux.abs() if magnitude else flux)
    for axis in reversed(range(len(tables))):
        below: dict[tuple[Row, ...], list[list[Tensor]]] = {}
        for key, terms in layer.items():
            total = sum_of(terms)
            parts = below.setdefault(key[:-1], [[] for _ in key[-1]])
            for part, weight in zip(parts, key[-1], strict=True):
                if weight:
                    part.append(total * (abs(weight) if magnitude else weight))
        layer = {
            key: [back_along([sum_of(terms) if terms else None for terms in parts], axis, degree)]
            for key, parts in below.items()
        }
    return layer[()][0]
