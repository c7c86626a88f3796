"""Interpolation that follows the operator, for coefficients that jump from cell to cell (black-box multigrid).

Every second vertex of some axes stays. A vertex between them, odd along the axes T, gets what the operator says that it
should be: its row, summed over the offsets along all other axes to S_o, o ∈ {−1, 0, 1}^T, and solved for the middle,

    u(i) = Σ_{o≠0} (−S_o / den) u(i + o),        den = S_0 if S_0 > (1 + ε) t else t,        t = −Σ_{o≠0} S_o,

where ε is the least |Σ_{o on a face} S_o| / S_0 of the faces of {−1, 0, 1}^T: constants are kept, unless the row is
definite by itself, as beside prescribed values. Neighbours that are odd along fewer axes come first. So each vertex
depends on the corners of one coarse cell, and the Galerkin product PᵀAP reaches one coarse cell again.

The weights lie on the coarse grid, P[τ, o](I) for the vertex 2I + τ and the corner I + o, o ≤ τ. Where the last vertex
of an axis is odd it is a coarse one all the same, the corner I + 1.

Source: J. E. Dendy, Black box multigrid, J. Comput. Phys. 48, 1982.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.support.arithmetic import sum_of
from fem.support.c_function import CFunction, c_text
from solvers.linear.grids.coarsening import coarsened_grid
from solvers.operators.stencil import Stencil, StencilGrid

Bits = tuple[int, ...]  # an entry for each axis, slowest first
NOTHING = 1e-14  # of the diagonal entry: a row that sums to so little does not say what a vertex should be


class OperatorCoarsening:
    """Every second vertex along some axes; interpolation follows a stencil of one type of dofs.

    Args:
        stencil: with zeros in rows and columns of `fixed` dofs.
        axes: those that are coarsened, at once.
    """

    def __init__(self, stencil: Stencil, axes: Sequence[int], fixed: Bool[Tensor, "1 k"]):
        self.grid = self.coarse = stencil.grid
        self.axes = tuple(axes)
        for axis in self.axes:
            self.coarse = coarsened_grid(self.coarse, axis)
        self.rows = {pair: k for k, pair in enumerate((t, o) for t in below(self.all_axes) for o in below(t))}
        self.weights = self.coarse.buffer(stencil.data, len(self.rows))
        for (t, corner), values in weights_of(stencil, self.axes, fixed).items():
            for phase, places, source in homes(self.grid, self.axes, t):
                moved = tuple(c + p - q for c, p, q in zip(corner, phase, t, strict=True))
                self.image(self.weights[self.rows[phase, moved]])[places] = values[source]

    @property
    def all_axes(self) -> Bits:
        """τ of vertices that are odd along all coarsened axes."""
        return tuple(int(k in self.axes) for k in range(self.grid.dim))

    def image(self, row: Float[Tensor, "m"]) -> Float[Tensor, "b *vertices"]:
        """One image on the coarse grid."""
        return self.coarse.shifted(row).view(self.grid.batch, *self.coarse.vertices)

    def vertices(self, row: Float[Tensor, "m"], t: Bits, shift: int = 0) -> Float[Tensor, "b *vertices"]:
        """The vertices 2I + τ of one image on the fine grid."""
        image = self.grid.shifted(row, shift).view(self.grid.batch, *self.grid.vertices)
        steps = (slice(q, None, 2) if k in self.axes else slice(None) for k, q in enumerate(t))
        return image[(slice(None), *steps)]

    def fixed(self, fixed: Bool[Tensor, "1 k"]) -> Bool[Tensor, "1 c"]:
        shaped = fixed.view(self.grid.batch, *self.grid.vertices)
        for axis in self.axes:
            shaped = shaped.index_select(1 + axis, coarse_vertices(self.grid, axis, fixed.device))
        return shaped.reshape(1, -1)

    def bind(self, fine: Tensor, coarse: Tensor, x_fine: Tensor, x_coarse: Tensor) -> tuple[Callable, Callable]:
        """Restriction from `fine` to `coarse` (set), and interpolation from `x_coarse` to `x_fine` (added)."""
        weights = self.weights.to(fine.dtype)
        down, up = (list(self.terms(weights, *pair)) for pair in ((fine, coarse), (x_fine, x_coarse)))
        fine_places, coarse_places, boxes = [], [], []
        for t, corner in self.rows:
            low, high = self.range_of(t)
            boxes.append((low, high, corner, 1.0))
            fine_places.append(self.grid.start(0, self.grid.shift(t)))
            coarse_places.append(self.coarse.start(0, self.coarse.shift(corner)))
        rows = Operand(weights, [self.coarse.start(k) for k in self.rows.values()], self.coarse)
        compiled_down = compiled(
            self, boxes, Operand(coarse, coarse_places, self.coarse), rows, Operand(fine, fine_places, self.grid)
        )
        boxes = [(low, high, (0,) * self.grid.dim, 1.0) for low, high, *_ in boxes]
        compiled_up = compiled(
            self, boxes, Operand(x_fine, fine_places, self.grid), rows, Operand(x_coarse, coarse_places, self.coarse)
        )

        def restrict() -> None:
            coarse.zero_()
            if not compiled_down():
                for weight, f, c in down:
                    c.addcmul_(weight, f)

        def interpolate() -> None:
            if not compiled_up():
                for weight, f, c in up:
                    f.addcmul_(weight, c)

        return restrict, interpolate

    def terms(self, weights: Tensor, fine: Tensor, coarse: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """P[τ, o](I), the vertices 2I + τ and I + o wherever the former exist, as views."""
        for (t, corner), k in self.rows.items():
            low, high = self.range_of(t)
            yield (
                box(self.image(weights[k]), low, high),
                self.vertices(fine[0], t),
                box(self.image(coarse[0]), low, high, corner),
            )

    def range_of(self, t: Bits, offset: Bits | None = None) -> tuple[list[int], list[int]]:
        """The range of I, axis by axis, where 2I + τ and 2I + τ + δ are vertices."""
        low, high = [], []
        for k, (n, q, o) in enumerate(zip(self.grid.vertices, t, offset or (0,) * len(t), strict=True)):
            step = 2 if k in self.axes else 1
            low.append(-((q + o) // step) if q + o < 0 else 0)
            high.append((n - 1 - max(q, q + o)) // step + 1)
        return low, high

    def operator(self, stencil: Stencil) -> Stencil:
        """PᵀAP: the coupling of two vertices adds to those of all corners that they depend on."""
        coarse = Stencil.zeros(self.coarse, stencil.data, stencil.memory)
        if self.compiled_operator(stencil, coarse)():
            return coarse
        images, P = [self.image(row) for row in coarse.data], [self.image(row) for row in self.weights]
        for k, t, offset, pairs in self.couplings():
            low, high = self.range_of(t, offset)
            values = box(self.vertices(stencil.data[k], t), low, high)
            for mine, theirs, step, target, start, factor in pairs:
                both = box(P[mine], low, high) * box(P[theirs], low, high, step)
                box(images[target], low, high, start).addcmul_(values, both, value=factor)
        return coarse

    def compiled_operator(self, stencil: Stencil, coarse: Stencil) -> Callable[[], bool]:
        boxes, targets, values, mine, theirs = [], [], [], [], []
        for k, t, offset, pairs in self.couplings():
            low, high = self.range_of(t, offset)
            for one, other, step, target, start, factor in pairs:
                boxes.append((low, high, start, factor))
                targets.append(self.coarse.start(target, self.coarse.shift(start)))
                values.append(self.grid.start(k, self.grid.shift(t)))
                mine.append(self.coarse.start(one))
                theirs.append(self.coarse.start(other, self.coarse.shift(step)))
        operands = Operand(coarse.data, targets, self.coarse), Operand(stencil.data, values, self.grid)
        return compiled(self, boxes, *operands, Operand(self.weights, mine, self.coarse), theirs)

    def couplings(self) -> Iterator[tuple[int, Bits, Bits, list[tuple[int, int, Bits, int, Bits, float]]]]:
        """For each coupling of a vertex 2I + τ, kept in row k, with 2I + τ + δ, and each pair of corners of both:

        the rows of their weights, how far on those of the latter lie, the row of the coarse stencil where the coupling
        of the corners is kept, where, and how often it is met: that of one corner with itself from both sides.
        """
        zero = (0,) * self.grid.dim
        for t in below(self.all_axes):
            for (_, _, offset), k in self.grid.keys.items():
                moved = [q + o for q, o in zip(t, offset, strict=True)]
                other = tuple(m % 2 if a in self.axes else 0 for a, m in enumerate(moved))
                step = tuple(m // 2 if a in self.axes else m for a, m in enumerate(moved))
                pairs = []
                for mine, theirs in product(below(t), below(other)):
                    end = tuple(s + o for s, o in zip(step, theirs, strict=True))
                    between = tuple(e - o for e, o in zip(end, mine, strict=True))
                    start, row = mine, self.coarse.keys.get((0, 0, between))
                    if row is None:
                        if k == 0:  # the other way round it has been there already
                            continue
                        start, row = end, self.coarse.keys[0, 0, tuple(-d for d in between)]
                    twice = 2.0 if between == zero and k > 0 else 1.0
                    pairs.append((self.rows[t, mine], self.rows[other, theirs], step, row, start, twice))
                yield k, t, offset, pairs


@dataclass(frozen=True, eq=False)
class Operand:
    """Images in a buffer, and where the entry of each term for I = 0 stands in it."""

    data: Float[Tensor, "t m"]
    places: list[int]
    grid: StencilGrid


@cache
def function(dtype: torch.dtype) -> CFunction:
    return CFunction(c_text("solvers.linear.grids", "operator_coarsening.c"), T=dtype)


def compiled(
    step: OperatorCoarsening,
    boxes: Sequence[tuple[Sequence[int], Sequence[int], Bits, float]],
    target: Operand,
    a: Operand,
    b: Operand,
    c: list[int] | None = None,
) -> Callable[[], bool]:
    """Sums of products a b, or of a b c, over boxes of the coarse grid by C code; calls tell whether it did them.

    Args:
        boxes: for each term the least I and the one after the largest, how far the target lies from I, and a factor.
        c: the places of a third operand in the data of b.
    """
    data = target.data
    if not data.is_cpu or data.dtype not in (torch.float32, torch.float64):
        return lambda: False

    def padded(values: Sequence[int], fill: int) -> list[int]:
        """Rows first: axes that are missing stand between."""
        first = values[:-1]
        return [*first[:1], *[fill] * (3 - len(values)), *first[1:], values[-1]]

    def strides(operand: Operand) -> list[int]:
        fine = operand.grid is step.grid
        pairs = enumerate(operand.grid.strides)
        return padded([s * (2 if fine and k in step.axes else 1) for k, s in pairs], 0)

    low, high, lag, factor = zip(*boxes, strict=True)
    rows = padded(step.coarse.vertices, 1)[:2]
    code = function(data.dtype).bind(
        len(boxes),
        step.grid.batch,
        *rows,
        [x for least in low for x in padded(least, 0)],
        [x for most in high for x in padded(most, 1)],
        [x for g in lag for x in padded(g, 0)[:2]],
        list(factor),
    )
    for operand in (target, a, b):
        code = code.bind(operand.data, operand.places, strides(operand), operand.grid.size // operand.grid.batch)
    code = code.bind(None if c is None else b.data, c or [])
    work = len(boxes) * step.coarse.size

    def run() -> bool:
        return code.ready(work) and code() == 0

    return run


def below(bits: Bits) -> list[Bits]:
    """All bits o ≤ τ."""
    return list(product(*((0, 1)[: 1 + bit] for bit in bits)))


def box(image: Tensor, low: Sequence[int], high: Sequence[int], shift: Sequence[int] | None = None) -> Tensor:
    """The part of an image "b *vertices" from `low` to `high`, or so many places on."""
    shift = (0,) * len(low) if shift is None else shift
    return image[(slice(None), *(slice(a + s, b + s) for a, b, s in zip(low, high, shift, strict=True)))]


def offsets(grid: StencilGrid) -> Iterator[Bits]:
    """All offsets along which vertices couple."""
    return product(*((-1, 0, 1) if n > 1 else (0,) for n in grid.vertices))


def coarse_vertices(grid: StencilGrid, axis: int, device: torch.device) -> Tensor:
    """Every second vertex of an axis, and the last."""
    n = grid.vertices[axis]
    return (2 * torch.arange(n // 2 + 1, device=device)).clamp(max=n - 1)


def homes(grid: StencilGrid, axes: Sequence[int], t: Bits) -> Iterator[tuple[Bits, tuple, tuple]]:
    """Where the weights of vertices odd along T belong: their τ, their places I, and which of them go there.

    The coarse vertices among them include the last one of each axis, which may be odd.
    """
    choices, all_ = [], slice(None)
    for axis, n in enumerate(grid.vertices):
        if axis not in axes:
            choices.append([(0, all_, all_)])
        elif t[axis]:
            choices.append([(1, slice((n - 1) // 2), all_)])
        else:
            choices.append([(0, slice((n + 1) // 2), slice((n + 1) // 2))])
            if n % 2 == 0:
                choices[-1].append((1, slice(n // 2 - 1, n // 2), slice(n // 2, None)))
    for choice in product(*choices):
        phase, places, source = zip(*choice, strict=True)
        yield phase, (all_, *places), (all_, *source)


def weights_of(
    stencil: Stencil, axes: Sequence[int], fixed: Bool[Tensor, "1 k"]
) -> dict[tuple[Bits, Bits], Float[Tensor, "b ..."]]:
    """For all T and corners o ≤ T the weights of vertices odd along T, between coarse ones along the other axes."""
    grid, found = stencil.grid, {}
    shape, zero = (grid.batch, *grid.vertices), (0,) * grid.dim
    for t in sorted(below(tuple(int(k in axes) for k in range(grid.dim))), key=sum):

        def here(image: Tensor, t: Bits = t) -> Tensor:
            image = image.reshape(shape)
            for axis in axes:
                if t[axis]:
                    image = image[(slice(None),) * (1 + axis) + (slice(1, grid.vertices[axis] - 1, 2),)]
                else:
                    image = image.index_select(1 + axis, coarse_vertices(grid, axis, image.device))
            return image

        free = (~here(fixed)).to(stencil.data)
        if t == zero:
            found[t, zero] = free
            continue
        odd, sums = [k for k, bit in enumerate(t) if bit], collapsed(stencil, t, here)
        around = [o for o in sums if o != zero]
        middle, total = sums[zero], -sum_of(sums[o] for o in around)
        faces = [sum_of(sums[o] for o in around if o[k] == end).abs() for k in odd for end in (-1, 1)]
        least = torch.stack(faces).amin(0) / middle
        den = torch.where(middle > (1 + least) * total, middle, total)
        lost = ~(den > NOTHING * here(stencil.diagonal))
        scale = torch.where(lost, 0, -1 / den) * free
        for corner in below(t):
            found[t, corner] = lost * free / 2 ** len(odd)
        for o in around:
            inner = tuple(int(bit and not step) for bit, step in zip(t, o, strict=True))
            for corner in below(inner):
                values = found[inner, corner]
                for axis in (k for k in odd if o[k]):
                    values = values.narrow(1 + axis, (o[axis] + 1) // 2, (grid.vertices[axis] - 1) // 2)
                whole = tuple((step + 1) // 2 if step else c for step, c in zip(o, corner, strict=True))
                found[t, whole] = torch.addcmul(found[t, whole], scale * sums[o], values)
    return found


def collapsed(stencil: Stencil, t: Bits, here: Callable[[Tensor], Tensor]) -> dict[Bits, Float[Tensor, "b ..."]]:
    """S_o of the vertices that are odd along T, at both ends of periodic axes the mean."""
    sums: dict[Bits, Tensor] = {}
    for offset in offsets(stencil.grid):
        k, shift = stencil.place(0, 0, offset)
        values = here(stencil.grid.shifted(stencil.data[k], shift))
        o = tuple(step * bit for step, bit in zip(offset, t, strict=True))
        sums[o] = sums[o] + values if o in sums else values
    for axis, periodic in enumerate(stencil.grid.periodic):
        if periodic and not t[axis]:
            for o, values in sums.items():
                ends = values.narrow(1 + axis, 0, 1) + values.narrow(1 + axis, values.shape[1 + axis] - 1, 1)
                inside = values.narrow(1 + axis, 1, values.shape[1 + axis] - 2)
                sums[o] = torch.cat([0.5 * ends, inside, 0.5 * ends], 1 + axis)
    return sums
