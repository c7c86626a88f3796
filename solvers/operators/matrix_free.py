"""Hessians on grids without their matrix: products by the loop over cells, a stencil in single precision beside them.

A scalar in three dimensions couples with 26 others, so that its row takes 112 bytes even where symmetry halves it, and
reading them takes as long as the loop over cells does from the coefficients. So conjugate gradients get their products
from the loop, in the precision of the system; only what preconditions them has a stencil, in single precision (56
bytes), assembled some layers at a time.
"""

from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.discrete import Hessian
from fem.forms.grid_integral import GridHessian
from fem.kernels.grid_inputs import Chunk, even
from fem.support.arithmetic import per_item
from fem.support.portions import at_a_time, large_zeros
from solvers.operators.stencil import Stencil, StencilGrid
from solvers.operators.workspace import Buffers

LEAST = 2**19  # dofs of all items together, from which on memory counts
LEAST_ELSEWHERE = 2**27  # the same on other devices, which take a stencil faster than a loop that is not C
LAYERS = 16, 32  # of cells at a time, the least and the most: fewer do not keep several threads at work
RANGE = 2.0**40  # how far the largest entry may be from one


class MatrixFree:
    """H of energies over scalars on grids in three dimensions.

    Args:
        hessians: of the integrals.
        grid: whose batch is that of the system.
        shape: of dofs "*b n".
        fixed: dofs whose rows and columns are the identity's, "*b n".
        images: the same in the layout of the stencil.
    """

    def __init__(
        self,
        hessians: list[GridHessian],
        grid: StencilGrid,
        shape: tuple[int, ...],
        fixed: Bool[Tensor, "..."] | None,
        images: Bool[Tensor, "t k"],
        memory: Buffers,
    ):
        self.hessians, self.grid, self.shape, self.memory, self.images = hessians, grid, shape, memory, images
        self.fixed = None if fixed is None else torch.nonzero(fixed.expand(shape).flatten()).flatten()

    @property
    def stencil(self) -> Stencil:
        """H in single precision, each item times its `scale`."""
        return self.assembled[0]

    @property
    def scale(self) -> Float[Tensor, "b"]:
        return self.assembled[1]

    @property
    def finite(self) -> Bool[Tensor, "b"]:
        """Which items are finite."""
        return self.assembled[2]

    @cached_property
    @torch.no_grad()
    def assembled(self) -> tuple[Stencil, Float[Tensor, "b"], Bool[Tensor, "b"]]:
        stencil = Stencil.zeros(self.grid, self.hessians[0].u, self.memory, torch.float32)
        scale, size = self.assemble(stencil, None)
        finite, largest = torch.isfinite(size), size * scale
        if bool((finite & (largest > 0) & ((largest < 1 / RANGE) | (largest > RANGE))).any()):
            stencil.data.zero_()
            scale, _ = self.assemble(stencil, reciprocal(size))
        stencil.fix(self.images, 1.0)
        return stencil, scale, finite

    def assemble(self, stencil: Stencil, scale: Float[Tensor, "b"] | None) -> tuple[Tensor, Tensor]:
        """Add up element matrices, items scaled by these numbers, and tell the sizes "b" of their largest entries.

        By default those of the first layers decide on the scale.
        """
        grid = self.grid
        target = grid.shifted(stencil.data).unflatten(-1, (grid.batch, *grid.vertices))
        sizes = torch.zeros(grid.batch, dtype=self.hessians[0].u.dtype, device=target.device)
        scales, memory = torch.ones_like(sizes) if scale is None else scale, Buffers()
        for items, layers in portions(grid, sizes):
            memory.rewind()
            part = self.part((items, layers), memory)
            own = part.grid.shifted(part.data).unflatten(-1, (part.grid.batch, *part.grid.vertices))
            size = torch.maximum(own.amax((0, 2, 3, 4)), -own.amin((0, 2, 3, 4)))
            if scale is None and layers.start == 0:
                scales[items] = reciprocal(size)
            sizes[items] = torch.maximum(sizes[items], size)
            own.mul_(scales[items][:, None, None, None])
            place = target[:, items, layers.start : layers.stop + 1]
            place[:, :, :1] += own[:, :, :1]  # vertices between two portions
            place[:, :, 1:].copy_(own[:, :, 1:])
        return scales, sizes

    @torch.no_grad()
    def sample(self) -> Stencil:
        """The stencil of a few layers of cells in the middle, of a few items."""
        cells = self.grid.vertices[0] - 1
        layers = slice(cells // 2, min(cells // 2 + 2, cells))
        return self.part((slice(0, min(self.grid.batch, 4)), layers), Buffers())

    def part(self, chunk: Chunk, memory: Buffers) -> Stencil:
        """What a portion of the cells adds to the stencil of its vertices."""
        (items, layers), like = chunk, self.hessians[0].u
        vertices = (layers.stop - layers.start + 1, *self.grid.vertices[1:])
        grid = StencilGrid(vertices, self.grid.degrees, self.grid.components, items.stop - items.start)
        stencil = Stencil.zeros(grid, like, memory)
        for hessian in self.hessians:
            stencil.add(hessian, chunk)
        return stencil

    @property
    def diagonal(self) -> Float[Tensor, "*b n"]:
        """That of H, ones at fixed dofs."""
        values = self.grid.unpack(self.stencil.diagonal, self.scale.dtype)[..., 0]
        values = (values / per_item(self.scale, values)).view(self.shape)
        return values if self.fixed is None else values.flatten().index_fill_(0, self.fixed, 1).view(self.shape)

    def product(self, v: Float[Tensor, "*b n"], out: Float[Tensor, "..."]) -> None:
        """H v into a contiguous tensor of as many entries; zero at fixed dofs, as v is there."""
        out.zero_()
        for hessian in self.hessians:
            hessian.add_product(v.view(self.shape), out)
        self.clear(out)

    def clear(self, v: Float[Tensor, "..."]) -> None:
        """Zero at fixed dofs, in place."""
        if self.fixed is not None:
            v.view(-1).index_fill_(0, self.fixed, 0)

    def __call__(self, v: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        found = large_zeros(v, *self.shape)
        self.product(v.expand(self.shape), found)
        return found


def reciprocal(values: Tensor) -> Tensor:
    return 1 / torch.where((values > 0) & torch.isfinite(values), values, 1)


def portions(grid: StencilGrid, like: Tensor) -> list[Chunk]:
    """Portions of cells whose stencils are small beside memory."""
    layer = len(grid.keys) * prod(grid.vertices[1:])
    cells, (least, most) = slice(0, grid.vertices[0] - 1), LAYERS
    items = even(slice(0, grid.batch), at_a_time(layer * min(least, cells.stop), like, roomy=True))
    count = at_a_time(layer * (items[0].stop - items[0].start), like, roomy=True)
    return [(some, layers) for some in items for layers in even(cells, min(max(count, least), most))]


def without_matrix(hessians: list[Hessian], grid: StencilGrid, dofs: int) -> list[GridHessian] | None:
    """The Hessians that make H, if products by the loop over cells serve better than a stencil."""
    least = LEAST if hessians[0].u.is_cpu else LEAST_ELSEWHERE
    if grid.dim < 3 or grid.components > 1 or grid.periodic or dofs * grid.batch < least:
        return None
    found: list[Any] = [h for h in hessians if isinstance(h, GridHessian) or h.coefficients]  # others are loads
    quadratic = all(isinstance(h, GridHessian) and h.integral.integrand.quadratic for h in found)
    return found if found and quadratic else None
