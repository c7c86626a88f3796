"""What is done on the spans of a patch: interpolate direction by direction, run a density's program, scatter back.

In PyTorch all points of some layers of spans are taken at once, with one matrix per direction; generated C code
(`source.py`) takes one line of spans at a time.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor

from fem.kernels.grid_inputs import Input
from fem.kernels.grid_loop import as_image
from fem.kernels.patches.basis import Order, PatchBasis
from fem.kernels.program import Program
from fem.space.factors import along
from fem.support.arithmetic import common_batch
from fem.support.portions import at_a_time

TEMPORARIES = 16  # arrays of a portion that are alive at once, more or less
Slope = tuple[int, int, Order]  # an input, its component, and orders of derivative per direction


class PatchInputs:
    """The tensors of an integral over a patch with one batch axis.

    Fields "b n c" on the patch, constants "b k", and values at points "b P i q k": lines of spans P, spans i in a line,
    points q, axes that are 1 or strides that are 0 where nothing varies along them.
    """

    def __init__(self, inputs: Sequence[Input], tensors: Sequence[Tensor], bases: Mapping[Hashable, PatchBasis]):
        self.inputs, self.bases, self.like = inputs, bases, tensors[0]
        basis = next(iter(bases.values()))
        self.spans, self.points = basis.num_spans, basis.num_points
        batches = [t.shape[: t.ndim - i.rank] for t, i in zip(tensors, inputs, strict=True)]
        self.batch = common_batch(*batches)
        self.size = prod(self.batch)
        self.tensors: list[Tensor] = []
        for tensor, given, own in zip(tensors, inputs, batches, strict=True):
            b = 1 if prod(own) == 1 else self.size
            full = tensor if b == 1 else tensor.expand(*self.batch, *tensor.shape[len(own) :])
            k, rest = prod(given.shape), tensor.shape[len(own) : tensor.ndim - len(given.shape)]
            full = full.reshape(b, *rest, k)
            if given.kind == "field":
                full = bases[given.basis].local(full)
            elif given.kind == "points":
                full = full.expand(b, prod(self.spans), prod(self.points), k).unflatten(1, (-1, self.spans[0]))
            elif given.kind == "lines" and full.shape[2] > 1 and full.stride(2) != 1:
                full = full.movedim(2, -1).contiguous().movedim(-1, 2)
            self.tensors.append(full)

    @property
    def num_cells(self) -> int:
        return prod(self.spans)

    def zeros(self, i: int) -> Tensor:
        """Room for the derivative with respect to an input, on the patch."""
        given, k = self.inputs[i], prod(self.inputs[i].shape)
        if given.kind == "points":
            return self.like.new_zeros(self.size, prod(self.spans), prod(self.points), k)
        if given.kind == "field":
            return self.like.new_zeros(self.size, prod(self.bases[given.basis].shape), k)
        return self.like.new_zeros(self.size, k)

    def shaped(self, i: int, result: Tensor, count: int) -> Tensor:
        """A derivative as the input is shaped (fields with `count` dofs), with the full batch."""
        given = self.inputs[i]
        if given.kind == "field" and self.bases[given.basis].numbers is not None:
            total = result.new_zeros(self.size, count, result.shape[-1])
            self.bases[given.basis].add_to(total, result)
            result = total
        return result.reshape((*self.batch, *result.shape[1:-1], *given.shape))


class PatchLoop:
    """What is done at each point, and where what comes out goes.

    The outputs of the program are ψ (with `has_value`), then slopes: (input, component, orders) each. `scatters` are
    the ways in which they are added up: "plain", by "size", or with "pairs" of functions (for diagonals of matrices).
    Without any, outputs are written as they are at all points.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        program: Program,
        sources: Sequence[Slope | None],
        slopes: Sequence[Slope],
        wrt: Sequence[int],
        scatters: tuple[str, ...],
        dim: int,
        points: tuple[int, ...],
        widths: Mapping[Hashable, tuple[int, ...]],
    ):
        self.inputs, self.program, self.sources, self.slopes = inputs, program, sources, slopes
        self.wrt, self.scatters, self.dim, self.points, self.widths = tuple(wrt), scatters, dim, points, widths
        self.families = list(widths)
        self.generated: dict[Any, Any] = {}  # as C code, where it has been tried

    @property
    def has_value(self) -> bool:
        return bool(self.scatters or not self.wrt) and len(self.program.outputs) > len(self.slopes)

    def run(self, data: PatchInputs, results: list[list[Tensor]]) -> Tensor:
        """The sums of ψ "b" in PyTorch; derivatives are added to `results`, values at points written there."""
        total, r = data.like.new_zeros(data.size), self.dim
        layer = prod(data.spans[:-1]) * prod(data.points)
        step = at_a_time(data.size * layer * TEMPORARIES, data.like) if r > 1 else data.spans[0]
        for start in range(0, data.spans[-1], step):
            layers = slice(start, min(start + step, data.spans[-1]))
            shape = (
                data.size,
                *(n * q for n, q in zip((*data.spans[:-1], layers.stop - start), data.points, strict=True)),
            )
            shape = (shape[0], *shape[:0:-1])
            known: dict[Any, Tensor] = {}
            arrays = [None if s is None else self.array(data, s, layers, known) for s in self.sources]
            outputs = [as_image(o, shape, data.like) for o in self.program.run(*arrays)]
            if not self.scatters and self.wrt:
                places = slice(start * prod(data.spans[1:-1]), layers.stop * prod(data.spans[1:-1]))
                for k, o in enumerate(outputs):
                    results[0][0][:, places, :, :, k] = by_lines(o, data, layers).expand_as(
                        results[0][0][:, places, :, :, k]
                    )
                continue
            if self.has_value:
                total += outputs.pop(0).flatten(1).sum(1)
            for kind, found in zip(self.scatters, results, strict=True):
                for i, result in zip(self.wrt, found, strict=True):
                    own = [
                        (s, o.abs() if kind == "size" else o)
                        for s, o in zip(self.slopes, outputs, strict=True)
                        if s[0] == i
                    ]
                    self.send(data, i, own, layers, kind, result)
        return total

    def array(self, data: PatchInputs, source: Slope, layers: slice, known: dict[Any, Tensor]) -> Tensor:
        """An input of the program at all points "b (z) y x" of some layers."""
        i, k, orders = source
        given, tensor, r = self.inputs[i], data.tensors[i], self.dim
        if given.kind == "constant":
            return tensor[:, k].reshape(-1, *[1] * r)
        if given.kind != "field":
            lines = prod(data.spans[1:-1])
            part = tensor.expand(-1, prod(data.spans[1:]), data.spans[0], prod(data.points), -1)
            return by_grid(part[:, layers.start * lines : layers.stop * lines, :, :, k], data, layers)
        basis = data.bases[given.basis]
        grid = tensor[..., k].unflatten(1, basis.shape[::-1])
        for axis in reversed(range(r)):
            name = i, k, orders[axis:]
            if name not in known:
                rows = layers if axis == r - 1 else slice(None)
                matrix = basis.matrix(axis, orders[axis], "plain", rows).to(tensor)
                known[name] = along(matrix, grid, -1 - axis)
            grid = known[name]
        return grid

    def send(
        self, data: PatchInputs, i: int, own: Sequence[tuple[Slope, Tensor]], layers: slice, kind: str, result: Tensor
    ) -> None:
        """Add what outputs at points "b (z) y x" of some layers contribute to the derivative by input i."""
        given, r = self.inputs[i], self.dim
        if given.kind == "constant":
            for (_, k, _), value in own:
                result[:, k] += value.flatten(1).sum(1)
            return
        if given.kind != "field":
            layer = prod(data.spans[:-1])
            for (_, k, _), value in own:
                flat = by_lines(value, data, layers).flatten(1, 2)
                result[:, layers.start * layer : layers.stop * layer, :, k] += flat
            return
        basis = data.bases[given.basis]
        for (_, k, orders), value in own:
            for axis in range(r):
                rows = layers if axis == r - 1 else slice(None)
                value = along(basis.matrix(axis, orders[axis], kind, rows).to(value).mT, value, -1 - axis)
            result[..., k] += value.flatten(1)


def by_lines(values: Tensor, data: PatchInputs, layers: slice) -> Tensor:
    """From the tensor grid of points "b (z) y x" of some layers to lines of spans, "b P i q"."""
    spans, r = (*data.spans[:-1], layers.stop - layers.start), len(data.spans)
    pairs = [m for n, q in zip(spans[::-1], data.points[::-1], strict=True) for m in (n, q)]
    split = values.reshape(len(values), *pairs).permute(0, *range(1, 2 * r, 2), *range(2, 2 * r + 1, 2))
    return split.reshape(len(values), -1, spans[0], prod(data.points))


def by_grid(values: Tensor, data: PatchInputs, layers: slice) -> Tensor:
    """The inverse of `by_lines`."""
    spans, r = (*data.spans[:-1], layers.stop - layers.start), len(data.spans)
    split = values.reshape(len(values), *spans[::-1], *data.points[::-1])
    split = split.permute(0, *(1 + k // 2 + (k % 2) * r for k in range(2 * r)))
    return split.reshape(len(values), *(n * q for n, q in zip(spans[::-1], data.points[::-1], strict=True)))
