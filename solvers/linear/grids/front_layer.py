"""The same grid with one more layer of vertices in front: every second of its vertices then is another one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.operators.stencil import Stencil, StencilGrid


class FrontLayer:
    """Fixed vertices before the first one of some axes; the others are what they were, one place further on."""

    def __init__(self, grid: StencilGrid, axes: Sequence[int]):
        vertices = tuple(n + (k in axes) for k, n in enumerate(grid.vertices))
        self.axes, self.grid, self.coarse = (), grid, replace(grid, vertices=vertices)
        self.inside = tuple(slice(int(k in axes), None) for k in range(grid.dim))

    def behind(self, buffer: Float[Tensor, "t m"]) -> Float[Tensor, "t b *vertices"]:
        """The images in a buffer of the new grid without its first layers."""
        images = self.coarse.shifted(buffer).unflatten(-1, (self.grid.batch, *self.coarse.vertices))
        return images[(..., *self.inside)]

    def images(self, buffer: Float[Tensor, "t m"]) -> Float[Tensor, "t b *vertices"]:
        return self.grid.shifted(buffer).unflatten(-1, (self.grid.batch, *self.grid.vertices))

    def operator(self, stencil: Stencil) -> Stencil:
        larger = Stencil.zeros(self.coarse, stencil.data, stencil.memory)
        self.behind(larger.data).copy_(self.images(stencil.data))
        return larger

    def fixed(self, fixed: Bool[Tensor, "t k"]) -> Bool[Tensor, "t c"]:
        larger = torch.ones(len(fixed), self.grid.batch, *self.coarse.vertices, dtype=torch.bool, device=fixed.device)
        larger[(..., *self.inside)] = fixed.unflatten(-1, (self.grid.batch, *self.grid.vertices))
        return larger.flatten(1)

    def bind(self, fine: Tensor, coarse: Tensor, x_fine: Tensor, x_coarse: Tensor) -> tuple[Callable, Callable]:
        """Copies from `fine` to `coarse`, and what is in `x_coarse` added to `x_fine`."""
        down, up = self.behind(coarse).copy_, self.images(x_fine).add_
        return partial(down, self.images(fine)), partial(up, self.behind(x_coarse))
