"""The tensors of an integral over a uniform grid as images, cut into chunks that stay in the caches."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

from torch import Tensor

from fem.kernels.tensor_interpolation import GridRule, add_types, split_types
from fem.support.arithmetic import common_batch
from fem.support.portions import at_a_time, large_zeros

Chunk = tuple[slice, slice]  # batch items, and layers of cells along the last axis of the grid (the first of an image)


@dataclass(frozen=True)
class Input:
    """One tensor that an integral depends on, and where its values and derivatives stand among the arguments.

    kind: "field" (dofs "*b n (c)" of a Lagrange space of this degree, or with any `basis`), "constant" ("*b *shape"),
    "cells" ("*b e *shape", one value per cell), "points" ("*b e q *shape", values at quadrature points) or "steady"
    ("*b e 1 *shape", the same at all points of a cell) or "lines" ("*b P i q *shape", cells by lines).
    places: (order of derivative, position) pairs.
    """

    kind: str
    places: tuple[tuple[int, int], ...]
    shape: tuple[int, ...] = ()
    degree: int = 0
    basis: Hashable = None

    @property
    def rank(self) -> int:
        """How many trailing axes are not batch."""
        return (
            len(self.shape) + {"field": 1, "constant": 0, "cells": 1, "points": 2, "steady": 2, "lines": 3}[self.kind]
        )

    @property
    def by_cell(self) -> bool:
        """Whether it is read and written cell by cell."""
        return self.kind in ("cells", "points")


class GridInputs:
    """The tensors of an integral as images with one batch axis, cut into chunks."""

    def __init__(self, inputs: Sequence[Input], rule: GridRule, tensors: Sequence[Tensor]):
        self.inputs, self.rule = inputs, rule
        self.cells = self.rule.cells[::-1]  # as the axes of an image
        batches = [t.shape[: t.ndim - i.rank] for t, i in zip(tensors, self.inputs, strict=True)]
        self.batch = common_batch(*batches)
        self.size, self.like = prod(self.batch), tensors[0]
        self.fields: list[Tensor] = []
        self.constants: list[Tensor] = []
        self.points: list[Tensor] = []
        for tensor, given, own in zip(tensors, self.inputs, batches, strict=True):
            rest = tensor.shape[len(own) :]
            b = 1 if prod(own) == 1 else self.size
            flat = (tensor if prod(own) == 1 else tensor.expand(*self.batch, *rest)).reshape(b, *rest)
            if given.kind == "field":
                images = flat.reshape(b, *self.nodes(given.degree), prod(given.shape))
                self.fields += images.unbind(-1)
            elif given.kind == "constant":
                self.constants += flat.reshape(b, *[1] * len(self.cells), prod(given.shape)).unbind(-1)
            else:
                flat = flat.unsqueeze(2) if given.kind == "cells" else flat
                full = flat.expand(b, prod(self.cells), len(self.rule.weights), *given.shape)
                full = full.reshape(b, *self.cells, len(self.rule.weights), prod(given.shape))
                self.points.append(full.movedim(-1, 0).movedim(-1, 1))

    def nodes(self, degree: int) -> tuple[int, ...]:
        return tuple(degree * n + 1 for n in self.cells)

    @property
    def whole(self) -> Chunk:
        return slice(0, self.size), slice(0, self.cells[0])

    def chunks(self, within: Chunk | None = None) -> list[Chunk]:
        """Portions of all cells, or of a larger portion."""
        items, layers = within or self.whole
        items = even(items, at_a_time(prod(self.cells), self.like))
        layers = even(layers, at_a_time(prod(self.cells[1:]), self.like))
        return [(i, k) for i in items for k in layers]

    def cut(self, chunk: Chunk, coordinates: Sequence[tuple[int, int]]) -> tuple[list[Tensor], ...]:
        """Images, constants, values at points and coordinates of one chunk."""
        items, layers = chunk
        some = lambda t, axis: t if t.shape[axis] == 1 else t.narrow(axis, items.start, items.stop - items.start)  # noqa: E731
        degrees = [i.degree for i in self.inputs if i.kind == "field" for _ in range(prod(i.shape))]
        fields = [
            part
            for f, p in zip(self.fields, degrees, strict=True)
            for part in split_types(some(f, 0)[:, nodes(layers, p)], p, len(self.cells))
        ]
        constants = [some(c, 0) for c in self.constants]
        points = [some(p, 2)[:, :, :, layers] for p in self.points]
        last, lines = len(self.cells) - 1, []
        for axis, q in coordinates:
            line = self.rule.coordinates(axis, q, self.like)
            line = line[layers] if axis == last else line
            lines.append(line.reshape(-1, *[1] * axis))
        return fields, constants, points, lines

    def zeros(self, given: Input) -> Tensor:
        entries = prod(given.shape)
        if given.kind == "field":
            return large_zeros(self.like, entries, self.size, *self.nodes(given.degree))
        if given.kind == "constant":
            return large_zeros(self.like, entries, self.size)
        if given.kind == "cells":
            return large_zeros(self.like, entries, self.size, *self.cells)
        return large_zeros(self.like, entries, len(self.rule.weights), self.size, *self.cells)

    def add(self, given: Input, result: Tensor, chunk: Chunk, entry: int, parts: list[Tensor]) -> None:
        items, layers = chunk
        if given.kind == "field":
            add_types(result[entry, items, nodes(layers, given.degree)], parts, given.degree, len(self.cells))
        elif given.kind == "constant":
            result[entry, items] += parts[0]
        elif given.kind == "cells":
            result[entry, items, layers] = parts[0]
        else:
            result[entry, :, items, layers] = parts[0]

    def shaped(self, given: Input, result: Tensor) -> Tensor:
        """A derivative as the input is shaped, with the full batch."""
        if given.kind in ("field", "cells"):
            flat = result.flatten(2).movedim(0, -1)
        elif given.kind == "constant":
            flat = result.movedim(0, -1)
        else:
            flat = result.flatten(3).permute(2, 3, 1, 0)
        return flat.reshape((*self.batch, *flat.shape[1:-1], *given.shape))


def nodes(layers: slice, degree: int) -> slice:
    """The nodes of some layers of cells."""
    return slice(degree * layers.start, degree * layers.stop + 1)


def even(whole: slice, size: int) -> list[slice]:
    """A range in portions of nearly equal length, at most `size`."""
    count = whole.stop - whole.start
    parts = max(ceil(count / size), 1)
    bounds = [whole.start + count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]
