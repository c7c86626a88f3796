"""Integrals over uniform grids without gather or scatter: images, a program for the density, chunk by chunk.

The arguments of the program come by sum factorisation (`fem.kernels.tensor_interpolation`): value and gradient from one
loop over chunks that stay in the caches, compiled where that pays.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.kernels.c_source import Targets, generated
from fem.kernels.grid_inputs import Chunk, GridInputs
from fem.kernels.grid_loop import GridLoop, as_image
from fem.kernels.integrand import Integrand
from fem.kernels.tensor_interpolation import GridRule, grid_rule

PRODUCTS = 3000  # in a cell, from second derivatives to element matrices: more are better done by matrix products


@dataclass(frozen=True, eq=False)
class GridIntegrand(Integrand):
    """ψ(x, arguments) on the cells of a uniform grid."""

    @cached_property
    def rule(self) -> GridRule:
        return grid_rule(self.space)

    @property
    def place(self) -> Hashable:
        return self.rule.key

    def loop(self, kind: str, wrt: Sequence[int], scatters: tuple[bool, ...] = ()) -> GridLoop:
        make = lambda: GridLoop(self.inputs, self.entries, self.rule, self.program(kind, wrt), wrt, scatters)  # noqa: E731
        return self.kept((kind, tuple(wrt), scatters, self.rule.key), make)

    def evaluate(
        self,
        tensors: Sequence[Tensor],
        wrt: Sequence[int] = (),
        value: bool = True,
        magnitude: bool = False,
        into: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        data = GridInputs(self.inputs, self.rule, tensors)
        scatters = ((False, True) if magnitude else (False,)) if wrt else ()
        loop = self.loop("gradient" if value else "slope", wrt, scatters)
        total = data.like.new_zeros(data.size)
        results = [[data.zeros(self.inputs[i]) for i in wrt] if into is None else list(into) for _ in scatters]
        if not self.evaluate_natively(loop, data, total, results):
            for chunk in data.chunks():
                part, *derivatives = loop.kernel(*data.cut(chunk, loop.coordinates))
                total[chunk[0]] += part
                parts = iter(derivatives)
                for kind in results:
                    for i, result in zip(wrt, kind, strict=True):
                        for entry in range(prod(self.inputs[i].shape)):
                            count = self.inputs[i].degree ** len(data.cells) if self.inputs[i].kind == "field" else 1
                            data.add(self.inputs[i], result, chunk, entry, [next(parts) for _ in range(count)])
        found = [[data.shaped(self.inputs[i], r) for i, r in zip(wrt, kind, strict=True)] for kind in results]
        slopes, magnitudes, *_ = [*found, [], []]
        return total.reshape(data.batch), slopes, magnitudes

    def evaluate_natively(self, loop: GridLoop, data: GridInputs, total: Tensor, results: list[list[Tensor]]) -> bool:
        """The same by compiled C code, where there is some."""
        code = generated(loop, data)
        if code is None:
            return False
        kinds = [self.inputs[i].kind for i in loop.wrt]
        pairs = [(kind, r) for found in results for kind, r in zip(kinds, found, strict=True)]
        images = [
            image for kind, r in pairs if kind != "constant" for image in (r.flatten(0, 1) if kind == "points" else r)
        ]
        sums = code(data, data.whole, images)
        if sums is None:
            return False
        first, *others = sums.to(total.dtype).unbind(-1)
        total.copy_(first)
        constants = [entry for kind, r in pairs if kind == "constant" for entry in r]
        for target, value in zip(constants, others, strict=True):
            target.copy_(value)
        return True

    def add_hessian_product(self, tensors: Sequence[Tensor], v: Tensor, total: Tensor) -> None:
        """Add ∂²J/∂U² v of the first input, one of scalars, to dofs "*b n" without holes between them."""
        inner = self.derivative((0,))
        assert isinstance(inner, GridIntegrand)
        image = total.view(1, -1, *(self.inputs[0].degree * n + 1 for n in self.rule.cells[::-1]))
        inner.evaluate([*tensors, v], (0,), value=False, into=[image])

    def element_matrices(
        self, tensors: Sequence[Tensor], within: Chunk | None = None
    ) -> Iterator[tuple[Chunk, Tensor]]:
        """∂²J/∂U_A∂U_B of the first input, chunk by chunk: "k b nz ny nx" over pairs A ≤ B of local dofs.

        Local dofs are numbered with x fastest, components inmost; pairs as `torch.triu_indices` lists them.
        """
        data = GridInputs(self.inputs, self.rule, tensors)
        loop = self.loop("hessian", (0,))
        if not loop.different:
            return  # J is linear
        table = loop.products.to(data.like)
        for chunk in data.chunks(within):
            stacked = self.second_derivatives(loop, data, chunk)
            yield chunk, (table @ stacked.flatten(1)).unflatten(1, stacked.shape[1:])

    def add_element_matrices(
        self, tensors: Sequence[Tensor], images: Sequence[Tensor], targets: Targets, within: Chunk | None = None
    ) -> bool:
        """The same added up by compiled C code, where there is some: each entry to an image "b …" of vertices.

        Args:
            targets: for each pair the number of its image, and the corner of the cell where it is added.
            within: the chunk of cells; images are those of its vertices.
        """
        data, loop = GridInputs(self.inputs, self.rule, tensors), self.loop("hessian", (0,))
        if len(targets) * len(self.rule.weights) * len(loop.different) > PRODUCTS:
            return False
        code = generated(loop, data, targets) if loop.different else None
        return code is not None and code(data, within or data.whole, images) is not None

    def second_derivatives(self, loop: GridLoop, data: GridInputs, chunk: Chunk) -> Tensor:
        """Those that differ, at all points of a chunk: "m b nz ny nx"."""
        code = generated(loop, data)
        if code is not None:
            (items, layers), count = chunk, len(loop.different) * len(self.rule.weights)
            cells = (items.stop - items.start, layers.stop - layers.start, *data.cells[1:])
            found = data.like.new_empty(count, *cells)
            if code(data, chunk, found.unbind()) is not None:
                return found
        return torch.stack(loop.kernel(*data.cut(chunk, loop.coordinates)))

    def constant_hessian(self, tensors: Sequence[Tensor]) -> Float[Tensor, "*b s s"]:
        """The second derivatives in the first input where no cell differs from another: u (its components), then ∇u."""
        data, loop = GridInputs(self.inputs, self.rule, tensors), self.loop("hessian", (0,))
        values = self.program("hessian", (0,)).run(*loop.scalars((), [[], data.constants, [], []]))
        found = [as_image(v, (data.size,), data.like) for v in flat_items(values)]
        size = round(len(found) ** 0.5)
        return torch.stack(found, -1).reshape((*data.batch, size, size))


def flat_items(values: Sequence[Any]) -> list[Any]:
    """Constants "b 1 … 1" as "b"."""
    return [v.flatten() if isinstance(v, Tensor) else v for v in values]
