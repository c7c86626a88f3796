"""Ties that make a grid periodic: the last nodes of some axes are its first ones again.

With Q the orthogonal projection onto periodic functions, which gives nodes at both ends of an axis their mean, the
operator on them is Q A Q for the stencil A of the grid without ties. Nothing else of multigrid knows of it: since
interpolation leaves periodic functions periodic, the coarse operator is Q PᵀAP Q, and smoothing divides by Q diag(A).
"""

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from fem.constraints.ties import Ties, ties_of
from fem.forms.discrete import DiscreteForm
from fem.support.cache import Store
from solvers.operators.stencil import StencilGrid, grid_of

_axes = Store("axes of grids that ties make periodic", 64)


def grid_of_form(form: DiscreteForm, batch: int) -> StencilGrid | None:
    """The grid on whose stencils the Hessians of a form are; None where they couple more than the nodes of a cell."""
    grid, ties = grid_of(form.space, batch), ties_of(form.constraint)
    if grid is None or form.couples_neighbours or ties is None:
        return None if form.couples_neighbours else grid
    periodic = _axes.get("axes", lambda: periodic_axes(ties, grid), owner=ties)
    return None if periodic is None else replace(grid, periodic=periodic)


def held_dofs(ties: Ties) -> Bool[Tensor, "..."]:
    """Prescribed dofs and those that follow one, of the space's shape; ties to one dof each."""
    if (fixed := ties.held.fixed) is None:
        return torch.zeros_like(ties.tied)
    found = fixed.flatten().clone()
    found[ties.slaves[ties.row]] = found[ties.column]
    return found.view(fixed.shape)


def periodic_axes(ties: Ties, grid: StencilGrid) -> tuple[bool, ...] | None:
    """The axes whose ends are one, slowest axis first, if that is all that the ties do."""
    count = ties.space.num_dofs
    number = torch.arange(count, device=ties.space.device)
    master, row = number.clone(), ties.row
    if len(row) != len(ties.slaves) or len(row.unique()) != len(row) or bool((ties.coefficient != 1).any()):
        return None
    master[ties.slaves[row]] = ties.column
    held = held_dofs(ties).flatten()
    master = torch.where(held, -1, master)
    shape = (*(p * (n - 1) + 1 for n, p in zip(grid.vertices, grid.degrees, strict=True)), grid.components)
    image, periodic = number.view(shape), []
    for k in range(grid.dim):
        first, last = (master.view(shape).select(k, i) for i in (0, -1))
        periodic.append(torch.equal(first, last) and bool((first >= 0).any()))
        if periodic[-1]:
            image = torch.cat([image.narrow(k, 0, shape[k] - 1), image.narrow(k, 0, 1)], k)
    image = image.flatten()
    # Nodes that are one by the grid are so by the ties; and as many are tied.
    alike = torch.equal(master[image], master)
    tied = [int(((other != number) & ~held).sum()) for other in (image, master)]
    return tuple(periodic) if alike and tied[0] == tied[1] else None
