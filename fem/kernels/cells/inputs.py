"""The tensors of an integral over the cells of any mesh, with one batch axis."""

from collections.abc import Sequence
from math import prod

from torch import Tensor

from fem.kernels.grid_inputs import Input
from fem.support.arithmetic import common_batch


class CellInputs:
    """Fields "b n c", constants "b k" and values at points "b e q k"; axes are 1 where nothing varies along them.

    `nodes` "n d" are those of the mesh, where points, inverse Jacobians and measures follow from them.
    """

    def __init__(
        self, inputs: Sequence[Input], tensors: Sequence[Tensor], cells: int, points: int, nodes: Tensor | None = None
    ):
        self.nodes = nodes
        self.inputs, self.like = inputs, tensors[0]
        batches = [t.shape[: t.ndim - i.rank] for t, i in zip(tensors, inputs, strict=True)]
        self.batch = common_batch(*batches)
        self.size, self.cells, self.points = prod(self.batch), cells, points
        self.tensors = []
        for tensor, given, own in zip(tensors, inputs, batches, strict=True):
            rest = tensor.shape[len(own) : tensor.ndim - len(given.shape)]
            b = 1 if prod(own) == 1 else self.size
            assert given.kind != "points" or rest[1] == points, "values at the points of another rule"
            full = tensor if b == 1 else tensor.expand(*self.batch, *tensor.shape[len(own) :])
            self.tensors.append(full.reshape(b, *rest, prod(given.shape)))

    def zeros(self, i: int) -> Tensor:
        """Room for the derivative with respect to an input."""
        given, entries = self.inputs[i], prod(self.inputs[i].shape)
        middle = {
            "field": self.tensors[i].shape[1:-1],
            "constant": (),
            "steady": (self.cells,),
            "points": (self.cells, self.points),
        }[given.kind]
        return self.like.new_zeros(self.size, *middle, entries)

    def shaped(self, i: int, result: Tensor) -> Tensor:
        """A derivative as the input is shaped, with the full batch, and with all cells."""
        given = self.inputs[i]
        middle = result.shape[1:-1] if given.kind != "steady" else (self.cells, 1)
        return result.reshape((*self.batch, *middle, *given.shape))
