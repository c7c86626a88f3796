"""The coarsest level of multigrid on a grid, solved directly: by band factors in compiled code, or by a dense inverse.

A grid of n vertices has a matrix of bandwidth w, about one layer of the slowest axis: n w² operations for its factors
and n w for a solve, where an inverse takes n³ and n². Both work in double precision where the stencil does.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.support.c_function import CFunction, c_text
from solvers.operators.stencil import Stencil, StencilGrid

LEAST = {torch.float32: 1e-5, torch.float64: 1e-12}  # pivots of less than that, relative to the diagonal, are none


@cache
def function(dtype: torch.dtype) -> CFunction:
    return CFunction(c_text("solvers.linear.grids", "banded.c"), T=dtype)


def bandwidth(grid: StencilGrid) -> int:
    """The largest distance of two vertices that couple, an item being numbered along its longest axis last."""
    grid = turned(grid)[0]
    return sum(stride for stride, n in zip(grid.strides, grid.vertices, strict=True) if n > 1)


def turned(grid: StencilGrid) -> tuple[StencilGrid, list[int]]:
    """The grid with its longest axes slowest, and which axes these are."""
    axes = sorted(range(grid.dim), key=lambda k: -grid.vertices[k])
    return replace(grid, vertices=tuple(grid.vertices[k] for k in axes)), axes


def has_factors(grid: StencilGrid, like: Tensor, dtype: torch.dtype) -> bool:
    """Whether band factors can be had for cycles of this precision: compiled code, one type of dofs, not periodic."""
    if not like.is_cpu or len(grid.types) > 1 or any(grid.periodic):
        return False
    return function(dtype).ready(grid.size * bandwidth(grid) ** 2)


def solver(stencil: Stencil, b: Float[Tensor, "t k"], x: Float[Tensor, "t k"]) -> Callable[[], None]:
    """What solves A x = b between two buffers of flattened images."""
    grid = stencil.grid
    if stencil.data.dtype == torch.float64 and has_factors(grid, b, b.dtype):
        items, (band, order) = grid.batch, banded(stencil)
        code = function(b.dtype).bind(items, len(order), bandwidth(grid), band, LEAST[torch.float64], order)
        code(None, None)
        solve = code.bind(b[0], x[0])
        return lambda: none_failed(solve())
    inverse = dense_inverse(stencil)

    def run() -> None:
        rhs = grid.items(b).reshape(grid.batch, -1, 1).to(inverse.dtype)
        grid.items(x).copy_((inverse @ rhs).view(grid.batch, len(grid.types), -1))

    return run


def none_failed(count: int) -> None:
    if count:
        raise MemoryError("No room for a right-hand side of the coarsest level of multigrid.")


def banded(stencil: Stencil) -> tuple[Float[Tensor, "b n w"], Int[Tensor, "n"]]:
    """The rows of each item's matrix from the diagonal on, and the vertices that they belong to."""
    grid, (other, axes) = stencil.grid, turned(stencil.grid)
    n = grid.size // grid.batch
    band = stencil.data.new_zeros(grid.batch, n, bandwidth(grid) + 1)
    for (_, _, offset), k in grid.keys.items():
        image = grid.shifted(stencil.data[k]).view(grid.batch, *grid.vertices)
        values = image.permute(0, *(1 + axis for axis in axes)).reshape(grid.batch, n)
        shift = other.shift(tuple(offset[axis] for axis in axes))
        band[:, : n + min(shift, 0), abs(shift)] += values[:, max(-shift, 0) :]
    numbers = torch.arange(n, device=band.device).view(grid.vertices)
    return band, numbers.permute(axes).flatten()


def dense_inverse(stencil: Stencil) -> Float[Tensor, "b N N"]:
    """The inverse of each item's matrix, on periodic grids that of TᵀAT between dofs that are different."""
    matrix, least = stencil.dense().double(), LEAST[stencil.data.dtype]
    if stencil.grid.periodic:
        T = stencil.grid.periodic_basis(matrix)
        return (T @ definite_inverse(T.T @ matrix @ T, least) @ T.T).to(stencil.data.dtype)
    return definite_inverse(matrix, least).to(stencil.data.dtype)


def definite_inverse(matrix: Float[Tensor, "b N N"], least: float) -> Float[Tensor, "b N N"]:
    """The inverse of each matrix; of those that are nearly singular or indefinite, one that is definite.

    Constants are mostly what a singular one does not see: with something added for them it is tried again.
    """
    root = matrix.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    root = torch.where(root > 0, root, 1)
    matrix = matrix / root[:, :, None] / root[:, None]
    inverse, bad = by_cholesky(matrix, least)
    if bool(bad.any()):
        constants = torch.nn.functional.normalize(root[bad], dim=-1)
        inverse[bad], still = by_cholesky(matrix[bad] + 1e-5 * constants[:, :, None] * constants[:, None], least)
        bad = bad.masked_scatter(bad, still)
    if bool(bad.any()):
        values, vectors = torch.linalg.eigh(matrix[bad])
        sizes = values.abs()
        largest = sizes.amax(-1, keepdim=True)
        reciprocal = 1 / torch.where(sizes > least * largest, sizes, 1e-5 * largest)
        inverse[bad] = vectors * reciprocal[:, None] @ vectors.mT
    return inverse / root[:, :, None] / root[:, None]


def by_cholesky(matrix: Float[Tensor, "b N N"], least: float) -> tuple[Float[Tensor, "b N N"], Bool[Tensor, "b"]]:
    """Inverses, and which of them are none: pivots of less than that."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    bad = (info != 0) | ~(factor.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2 > least)
    eye = torch.eye(len(matrix[0]), device=matrix.device, dtype=matrix.dtype)
    return torch.cholesky_inverse(torch.where(bad[:, None, None], eye, factor)), bad
