"""From dofs on a grid to values at quadrature points and back, by slices, direction after direction.

    values:   Y[q] = Σ_a T[q, a] U[a::p]            along one axis: nodes → cells, one array for each point q
    back:     U[a::p] += Σ_q T[q, a] Y[q]           its transpose

with T the basis functions or their derivatives at the points of a one-dimensional rule. No array has an axis for
points, directions or local basis functions, and nodes of one type, U[t::p], lie side by side (of degree p there are
pᵈ), so every operation runs over contiguous memory.
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

from fem.mesh.grid import grid_order
from fem.reference.cells import interval
from fem.reference.lagrange import lagrange_element
from fem.reference.quadrature import quadrature
from fem.support.arithmetic import sum_of
from fem.support.transforms import outside_transforms

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
        line = torch.tensor(self.points, dtype=torch.float64, device="cpu")[:, None]
        tabulation = lagrange_element(interval, degree).tabulate(line, 1)
        assert tabulation.grad is not None
        order = list(grid_order(interval, degree))
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
    return rule_on_box(tuple(mesh.grid), tuple(lower), tuple(upper), space.quadrature_degree)


@lru_cache(maxsize=64)
@outside_transforms()
def rule_on_box(cells: tuple[int, ...], lower: tuple[float, ...], upper: tuple[float, ...], degree: int) -> GridRule:
    rule = quadrature(interval, degree)
    line = rule.points[:, 0].tolist()
    spacing = tuple((b - a) / n for a, b, n in zip(lower, upper, cells, strict=True))
    weights, order = {}, {}
    for position, z_first in enumerate(product(range(len(line)), repeat=len(cells))):  # x fastest, as in any rule
        q = z_first[::-1]
        weights[q] = prod(float(rule.weights[i]) for i in q) * prod(spacing)
        order[q] = position
    return GridRule(cells, lower, spacing, tuple(line), weights, order)


def rows(table: Float[Tensor, "q a"]) -> list[Row]:
    """The rows of a table, the first of those that are equal up to round-off for all of them."""
    table = table.masked_fill(table.abs() <= 1e-13 * table.abs().max(), 0.0)
    close = (table[:, None] - table).abs().amax(-1) <= 1e-13 * table.abs().max()
    return [tuple(table[int(same.nonzero()[0])].tolist()) for same in close]


def split_types(image: Tensor, degree: int, dim: int) -> list[Tensor]:
    """The nodes of each type, those at the same position in all cells, as contiguous images; slowest axis first.

    Degree 1 has one type, the vertices. Of others, the images have one entry more along axes where they hold vertices.
    """
    if degree == 1:
        return [image]
    return [image[(..., *(slice(t, None, degree) for t in kind))].contiguous() for kind in node_types(degree, dim)]


def add_types(image: Tensor, parts: list[Tensor], degree: int, dim: int) -> None:
    """Add images of types to an image of all nodes."""
    for kind, part in zip(node_types(degree, dim), parts, strict=True):
        image[(..., *(slice(t, None, degree) for t in kind))] += part


def node_types(degree: int, dim: int) -> list[tuple[int, ...]]:
    return list(product(range(degree), repeat=dim))


def cells_at(image: Tensor, axis: int, end: int) -> Tensor:
    """The vertices at the lower (0) or upper (1) end of each cell along axis x, y or z (0, 1, 2)."""
    dim = image.ndim - 1 - axis
    return image.narrow(dim, end, image.shape[dim] - 1)


def back_on_vertices(lower: Tensor | None, upper: Tensor | None, axis: int) -> Tensor:
    """The transpose: what cells send to their lower and upper ends, summed at vertices."""
    parts = [(p, side) for p, side in ((lower, (0, 1)), (upper, (1, 0))) if p is not None]
    if torch.compiler.is_compiling():
        return sum_of(torch.nn.functional.pad(p, (0, 0) * axis + side) for p, side in parts)
    first, _ = parts[0]
    dim = first.ndim - 1 - axis
    total = first.new_zeros(*first.shape[:dim], first.shape[dim] + 1, *first.shape[dim + 1 :])
    for part, (start, _) in parts:
        total.narrow(dim, start, first.shape[dim]).add_(part)
    return total


class TensorInterpolation:
    """One component of a field, given by types, at quadrature points: computed when asked for.

    `at(q)` is the value at point q of every cell, `at(q, axis)` the derivative along an axis.
    """

    def __init__(self, types: list[Tensor], tables: Tables, degree: int):
        self.tables, self.degree = tables, degree
        kinds = node_types(degree, len(tables))
        self.known: dict[Any, Tensor] = {((), kind): image for kind, image in zip(kinds, types, strict=True)}

    def at(self, q: tuple[int, ...], derived: int | None = None) -> Tensor:
        return self._reduced(chain(self.tables, q, derived), ())

    def _reduced(self, key: tuple[Row, ...], kind: tuple[int, ...]) -> Tensor:
        """Interpolated along the first axes, for nodes of one kind along the others."""
        if (key, kind) not in self.known:
            axis, total = len(key) - 1, None
            for a, weight in enumerate(key[-1]):
                if weight:
                    end, t = divmod(a, self.degree)
                    part = self._reduced(key[:-1], (*kind, t))
                    part = part if t else cells_at(part, axis, end)
                    total = part * weight if total is None else torch.add(total, part, alpha=weight)
            assert total is not None
            self.known[key, kind] = total
        return self.known[key, kind]


def chain(tables: Tables, q: tuple[int, ...], derived: int | None) -> tuple[Row, ...]:
    """What interpolates to point q along each axis, and derives along one."""
    return tuple(tables[k][int(k == derived)][i] for k, i in enumerate(q))


def scatter(
    fluxes: dict[tuple[tuple[int, ...], int | None], Tensor], tables: Tables, degree: int, magnitude: bool = False
) -> dict[tuple[int, ...], Tensor]:
    """What multiplies a field (axis None) and its derivatives at all points, sent to its nodes: the transpose of `at`.

    By types of nodes, those that get anything; with `magnitude`, of absolute values.
    """
    layer: dict[Any, list[Tensor]] = {}
    for (q, derived), flux in fluxes.items():
        layer.setdefault((chain(tables, q, derived), ()), []).append(flux.abs() if magnitude else flux)
    for axis in reversed(range(len(tables))):
        below: dict[Any, list[list[Tensor]]] = {}
        for (key, kind), terms in layer.items():
            total = sum_of(terms)
            parts = below.setdefault((key[:-1], kind), [[] for _ in key[-1]])
            for part, weight in zip(parts, key[-1], strict=True):
                if weight:
                    part.append(total * (abs(weight) if magnitude else weight))
        layer = {}
        for (key, kind), parts in below.items():
            lower, upper = (sum_of(parts[a]) if parts[a] else None for a in (0, degree))
            if parts[0] or parts[degree]:
                layer[key, (*kind, 0)] = [back_on_vertices(lower, upper, axis)]
            for t in range(1, degree):
                if parts[t]:
                    layer[key, (*kind, t)] = [sum_of(parts[t])]
    return {kind: terms[0] for (_, kind), terms in layer.items()}
