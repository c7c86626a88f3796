"""Products with stencils: y = A x and residuals y = b − A x between buffers with halos."""

from functools import cache, cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from fem.support.c_function import CFunction, c_text
from solvers.operators.stencil import Stencil


@cache
def function(dtype: torch.dtype) -> CFunction:
    return CFunction(c_text("solvers.operators", "stencil_product.c"), True, T=dtype)


def bound(stencil: Stencil, x: Float[Tensor, "t m"], y: Float[Tensor, "t m"]) -> CFunction:
    """The C function of b and of the distance between its rows."""
    grid, counts = stencil.grid, [len(row) for row in stencil.grid.terms]
    flat = [term for row in grid.terms for term in row]
    s = [grid.start(k, shift) for k, shift, _, _ in flat]
    d = [grid.start(c, shift) for _, _, c, shift in flat]
    return function(y.dtype).bind(grid.size, y.shape[1], grid.halo, len(counts), counts, s, d, stencil.data, x, y)


class Product:
    """y = A x or y = b − A x between two buffers, as C code or by passes over views made beforehand."""

    def __init__(self, stencil: Stencil, x: Float[Tensor, "t m"], y: Float[Tensor, "t m"]):
        grid = stencil.grid
        self.stencil, self.buffers = stencil, (x, y)
        self.x, self.y = grid.shifted(x), grid.shifted(y)
        self.work, self.code = stencil.data.numel(), None
        if y.is_cpu and y.dtype in (torch.float32, torch.float64):
            self.code = bound(stencil, x, y)
            self.whole, self.b = self.code.bind([], 0), None

    def __call__(self) -> None:
        if self.code is not None and self.code.ready(self.work):
            self.whole()
        else:
            torch.mul(self.stencil.diagonal, self.x, out=self.y)
            for y, S, x in self.passes:
                y.addcmul_(S, x)

    def residual(self, b: Float[Tensor, "t k"]) -> None:
        if self.code is not None and b.stride(-1) == 1 and self.code.ready(self.work):
            if b is not self.b:  # mostly the same one
                self.b, self.rest = b, self.code.bind([b], b.stride(0))
            self.rest()
        else:
            torch.addcmul(b, self.stencil.diagonal, self.x, value=-1, out=self.y)
            for y, S, x in self.passes:
                y.addcmul_(S, x, value=-1)

    @cached_property
    def passes(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What is added to what: y += S x, off the diagonal."""
        grid, (x, y), found = self.stencil.grid, self.buffers, []
        for (a, b, offset), k in grid.keys.items():
            if k >= len(grid.types):
                shift, S = grid.shift(offset), grid.shifted(self.stencil.data[k])
                found.append((grid.shifted(y[a]), S, grid.shifted(x[b], shift)))
                found.append((grid.shifted(y[b], shift), S, grid.shifted(x[a])))
        return found
