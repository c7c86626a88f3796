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
from functools import cache
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.support.arithmetic import sum_of
from fem.support.c_function import CFunction, c_text
from solvers.linear.grids.corner_table import Bits, Products, below, corner_table
from solvers.operators.stencil import Stencil, StencilGrid

NOTHING = 1e-14  # of the diagonal entry: a row that sums to so little does not say what a vertex should be


class OperatorCoarsening:
    """Every second vertex along some axes; interpolation follows a stencil of one type of dofs.

    Args:
        stencil: with zeros in rows and columns of `fixed` dofs.
        axes: those that are coarsened, at once.
    """

    def __init__(self, stencil: Stencil, axes: Sequence[int], fixed: Bool[Tensor, "1 k"]):
        self.table = corner_table(stencil.grid, tuple(axes))
        self.grid, self.axes, self.coarse = stencil.grid, self.table.axes, self.table.coarse
        self.weights = self.coarse.buffer(stencil.data, len(self.table.rows))
        for (t, corner), values in weights_of(stencil, self.axes, fixed).items():
            for phase, places, source in homes(self.grid, self.axes, t):
                moved = tuple(c + p - q for c, p, q in zip(corner, phase, t, strict=True))
                self.image(self.weights[self.table.rows[phase, moved]])[places] = values[source]

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
        down = compiled(self.table.restriction, coarse, weights, fine)
        up = compiled(self.table.interpolation, x_fine, weights, x_coarse)

        def restrict() -> None:
            coarse.zero_()
            if not down():
                for weight, f, c in self.terms(weights, fine, coarse):
                    c.addcmul_(weight, f)

        def interpolate() -> None:
            if not up():
                for weight, f, c in self.terms(weights, x_fine, x_coarse):
                    f.addcmul_(weight, c)

        return restrict, interpolate

    def terms(self, weights: Tensor, fine: Tensor, coarse: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """P[τ, o](I), the vertices 2I + τ and I + o wherever the former exist, as views."""
        for (t, corner), k in self.table.rows.items():
            low, high = self.table.range_of(t)
            yield (
                box(self.image(weights[k]), low, high),
                self.vertices(fine[0], t),
                box(self.image(coarse[0]), low, high, corner),
            )

    def operator(self, stencil: Stencil) -> Stencil:
        """PᵀAP: the coupling of two vertices adds to those of all corners that they depend on."""
        coarse = Stencil.zeros(self.coarse, stencil.data, stencil.memory)
        if compiled(self.table.galerkin, coarse.data, stencil.data, self.weights, True)():
            return coarse
        images, P = [self.image(row) for row in coarse.data], [self.image(row) for row in self.weights]
        for k, t, offset, pairs in self.table.couplings:
            low, high = self.table.range_of(t, offset)
            values = box(self.vertices(stencil.data[k], t), low, high)
            for mine, theirs, step, target, start, factor in pairs:
                both = box(P[mine], low, high) * box(P[theirs], low, high, step)
                box(images[target], low, high, start).addcmul_(values, both, value=factor)
        return coarse


@cache
def function(dtype: torch.dtype) -> CFunction:
    return CFunction(c_text("solvers.linear.grids", "operator_coarsening.c"), T=dtype)


def compiled(products: Products, target: Tensor, a: Tensor, b: Tensor, twice: bool = False) -> Callable[[], bool]:
    """Sums of products a b, or of a b b, over boxes of the coarse grid by C code; calls tell whether it did them."""
    if not target.is_cpu or target.dtype not in (torch.float32, torch.float64):
        return lambda: False
    code = function(target.dtype).bind(*products.boxes)
    for data, places in zip((target, a, b), products.operands, strict=True):
        code = code.bind(data, *places)
    code = code.bind(b if twice else None, products.last)

    def run() -> bool:
        return code.ready(products.work) and code() == 0

    return run


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
