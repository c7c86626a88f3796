"""From dofs on a grid to values at quadrature points and back, by strided slices, direction after direction.

    values:   Y[q] = Σ_a T[q, a] U[a::p]            along one axis: nodes → cells, one array for each point q
    back:     U[a::p] += Σ_q T[q, a] Y[q]           its transpose

with T the basis functions or their derivatives at the points of a one-dimensional rule. No array has an axis for
points, directions or local basis functions, so every operation runs over contiguous memory.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.cells import interval
from fem.lagrange import lagrange_element
from fem.quadrature import quadrature

Row = tuple[float, ...]


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

    def tables(self, degree: int) -> list[tuple[list[Row], list[Row]]]:
        """For each axis the basis functions and their derivatives (per unit of length) at the points, "q a"."""
        line = torch.tensor(self.points, dtype=torch.float64)[:, None]
        tabulation = lagrange_element(interval, degree).tabulate(line, 1)
        assert tabulation.grad is not None
        # VTK numbers both ends before the interior.
        order = [0, *range(2, degree + 1), 1]
        value, slope = tabulation.value[0][:, order], tabulation.grad[0, :, order, 0]
        rows = lambda t: [tuple(row) for row in t.tolist()]  # noqa: E731
        return [(rows(value), rows(slope / h)) for h in self.spacing]

    def coordinates(self, axis: int, q: int, like: Tensor) -> Float[Tensor, "..."]:
        """x_axis at point q of every cell, along its own axis of an image."""
        cell = torch.arange(self.cells[axis], dtype=like.dtype, device=like.device)
        return self.lower[axis] + self.spacing[axis] * (cell + self.points[q])


def grid_rule(space: Any) -> GridRule:
    """The rule with which a space over a uniform grid integrates."""
    mesh, (domain,) = space.mesh, space.domains()
    dim = mesh.dim
    rule = quadrature(interval, space.quadrature_degree)
    line = rule.points[:, 0].tolist()
    lower, upper = mesh.box.corners.tolist()
    spacing = tuple((b - a) / n for a, b, n in zip(lower, upper, mesh.grid, strict=True))
    points = domain.points.detach().double().cpu()
    weights, order = {}, {}
    for q in product(range(len(line)), repeat=dim):
        position = torch.tensor([line[i] for i in q], dtype=torch.float64)
        weights[q] = prod(float(rule.weights[i]) for i in q) * prod(spacing)
        order[q] = int((points - position).abs().sum(1).argmin())
    return GridRule(tuple(mesh.grid), tuple(lower), spacing, tuple(line), weights, order)


def distinct(rows: list[Row]) -> list[int]:
    """For each row of a table the first one equal to it: slopes of degree 1 are the same at all points."""
    same = lambda a, b: all(abs(x - y) <= 1e-13 * abs(x) for x, y in zip(a, b, strict=True))  # noqa: E731
    return [next(i for i, other in enumerate(rows) if same(row, other)) for row in rows]


def along(image: Tensor, axis: int, row: Row, degree: int) -> Tensor:
    """Σ_a row[a] U[a::p] along axis x, y or z (0, 1, 2) of an image "… nz ny nx"."""
    dim = image.ndim - 1 - axis
    cells = (image.shape[dim] - 1) // degree
    total = None
    for a, weight in enumerate(row):
        index = (slice(None),) * dim + (slice(a, a + degree * (cells - 1) + 1, degree),)
        part = image[index]
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

    def __init__(self, image: Tensor, tables: list[tuple[list[Row], list[Row]]], degree: int):
        self.image, self.tables, self.degree = image, tables, degree
        self.canonical = [tuple(distinct(rows) for rows in pair) for pair in tables]
        self.known: dict[Hashable, Tensor] = {}

    def at(self, q: tuple[int, ...], derived: int | None = None) -> Tensor:
        return self._reduced(tuple((self.canonical[k][k == derived][i], k == derived) for k, i in enumerate(q)))

    def _reduced(self, done: tuple[tuple[int, bool], ...]) -> Tensor:
        if not done:
            return self.image
        if done not in self.known:
            axis, (q, derived) = len(done) - 1, done[-1]
            row = self.tables[axis][derived][q]
            self.known[done] = along(self._reduced(done[:-1]), axis, row, self.degree)
        return self.known[done]


def scatter(
    fluxes: dict[tuple[tuple[int, ...], int | None], Tensor],
    tables: list[tuple[list[Row], list[Row]]],
    degree: int,
    magnitude: bool = False,
) -> Tensor:
    """The image of what multiplies a field (axis None) and its derivatives at all points: the transpose of `at`.

    With `magnitude`, of absolute values.
    """
    layer: dict[Any, list[Tensor]] = {}
    for (q, derived), flux in fluxes.items():
        key = tuple((distinct(tables[k][k == derived])[i], k == derived) for k, i in enumerate(q))
        layer.setdefault(key, []).append(flux.abs() if magnitude else flux)
    for axis in reversed(range(len(tables))):
        below: dict[Any, list[list[Tensor]]] = {}
        for key, terms in layer.items():
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            q, derived = key[-1]
            row = tables[axis][derived][q]
            parts = below.setdefault(key[:-1], [[] for _ in row])
            for a, weight in enumerate(row):
                parts[a].append(total * (abs(weight) if magnitude else weight))
        layer = {}
        for key, parts in below.items():
            summed = []
            for terms in parts:
                total = terms[0]
                for term in terms[1:]:
                    total = total + term
                summed.append(total)
            layer[key] = [back_along(summed, axis, degree)]
    return layer[()][0]
