"""Which dofs each cell draws on: values gathered from dofs to cells, and contributions summed from cells to dofs.

The two maps are each other's transpose, and so each other's derivative: whatever is made of them differentiates to any
order with nothing else. On a GPU, sums whose terms race for their place are neither repeatable nor fast where many
cells share a node; there the terms of every sum are listed once, by one sort, and added one after another.
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.support.transforms import outside_transforms


def sums_by_segments(device: torch.device) -> bool:
    """Whether to list the terms of sums: on CPUs `scatter_add` is repeatable too, and two to ten times faster."""
    return device.type != "cpu"


class Segments:
    """Sums of what shares a number: r_n = Σ_{m: number(m) = n} x_m, always in the order of m."""

    def __init__(self, numbers: Int[Tensor, "m"], count: int):
        ordered, order = numbers.sort(stable=True)
        self.order = order.int() if len(order) < 2**31 else order
        self.offsets = torch.searchsorted(ordered, torch.arange(count + 1, device=numbers.device))

    def sum(self, values: Float[Tensor, "*b m c"]) -> Float[Tensor, "*b n c"]:
        """The sums, zero for numbers that do not occur."""
        flat = values.index_select(-2, self.order).movedim(-2, 0).flatten(1)
        total = torch.segment_reduce(flat, "sum", offsets=self.offsets, unsafe=True, initial=0)
        return total.unflatten(1, (*values.shape[:-2], values.shape[-1])).movedim(0, -2)


class GatherScatter:
    """The local dofs of some cells: `dofs` "e a" with numbers below `count`."""

    def __init__(self, dofs: Int[Tensor, "e a"], count: int):
        self.dofs, self.count = dofs, count
        self.by_segments = sums_by_segments(dofs.device)

    @cached_property
    @outside_transforms()
    def segments(self) -> Segments:
        return Segments(self.dofs.flatten(), self.count)

    def gather(self, values: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b e a c"]:
        """The values at the local dofs of every cell."""
        found = Gather.apply(values, self) if self.by_segments else gather(values, self)
        return found.unflatten(-2, self.dofs.shape)

    def sum(self, values: Float[Tensor, "*b e a c"], magnitude: bool = False) -> Float[Tensor, "*b n c"]:
        """The contributions of all cells to every dof: the transpose of `gather`; of `magnitude` where all are ≥ 0."""
        flat = values.flatten(-3, -2)
        if self.by_segments:
            return Sum.apply(flat, self)
        total = flat.new_zeros(*flat.shape[:-2], self.count, flat.shape[-1])
        return total.scatter_add(-2, index_like(flat, self), flat)


def index_like(values: Float[Tensor, "*b _ c"], cells: GatherScatter) -> Int[Tensor, "*b m c"]:
    return cells.dofs.reshape(-1, 1).expand(*values.shape[:-2], cells.dofs.numel(), values.shape[-1])


def gather(values: Float[Tensor, "*b n c"], cells: GatherScatter) -> Float[Tensor, "*b m c"]:
    return values.gather(-2, index_like(values, cells))


class Gather(torch.autograd.Function):
    """`GatherScatter.gather`, with the sum as its derivative."""

    @staticmethod
    def forward(values: Tensor, cells: GatherScatter) -> Tensor:
        return gather(values, cells)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.cells = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return Sum.apply(grad, ctx.cells), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return Gather.apply(tangent, ctx.cells)

    @staticmethod
    def vmap(info: Any, axes: tuple, values: Tensor, cells: GatherScatter) -> tuple[Tensor, int]:
        return Gather.apply(values.movedim(axes[0], 0), cells), 0


class Sum(torch.autograd.Function):
    """`GatherScatter.sum` by segments, with the gather as its derivative."""

    @staticmethod
    def forward(values: Tensor, cells: GatherScatter) -> Tensor:
        return cells.segments.sum(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.cells = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return Gather.apply(grad, ctx.cells), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return Sum.apply(tangent, ctx.cells)

    @staticmethod
    def vmap(info: Any, axes: tuple, values: Tensor, cells: GatherScatter) -> tuple[Tensor, int]:
        return Sum.apply(values.movedim(axes[0], 0), cells), 0
