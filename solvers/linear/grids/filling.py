"""Cells of zero stiffness filled with very little, for cycles alone, which do not see clusters beside voids else."""

from jaxtyping import Bool
from torch import Tensor

from solvers.operators.stencil import Stencil

LITTLE = 1e-9  # of the largest diagonal entry of each item; anything between rounding and real coefficients will do


def filled(stencil: Stencil, empty: Bool[Tensor, "1 k"], fixed: Bool[Tensor, "1 k"]) -> Stencil:
    """A + ε L, with L the graph Laplacian of the edges of the grid that end at an `empty` dof; `fixed` ones stay so."""
    grid, images = stencil.grid, (stencil.grid.batch, *stencil.grid.vertices)
    sum_of_edges = Stencil(grid, stencil.data.clone(), stencil.memory)
    diagonal = sum_of_edges.diagonal[0].view(images)
    largest = grid.items(stencil.diagonal).abs().flatten(1).amax(-1)
    little = LITTLE * largest.view(-1, *[1] * grid.dim)
    diagonal.masked_fill_(empty.view(images), 0)
    for axis, n in enumerate(grid.vertices):
        if n > 1:
            ends = empty.view(images).narrow(1 + axis, 0, n - 1), empty.view(images).narrow(1 + axis, 1, n - 1)
            edge = (ends[0] | ends[1]) * little
            offset = tuple(int(k == axis) for k in range(grid.dim))
            row = grid.shifted(sum_of_edges.data[grid.keys[0, 0, offset]]).view(images)
            row.narrow(1 + axis, 0, n - 1).sub_(edge)
            diagonal.narrow(1 + axis, 0, n - 1).add_(edge)
            diagonal.narrow(1 + axis, 1, n - 1).add_(edge)
    sum_of_edges.fix(fixed, 1.0)
    return sum_of_edges
