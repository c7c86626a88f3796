"""Which linear method serves where the user names none."""

from math import prod

import torch
from torch import Tensor

from fem.constraints.ties import ties_of
from fem.forms.discrete import DiscreteForm
from fem.space.space import AnySpace, FunctionSpace
from solvers.linear.algebraic_multigrid import AlgebraicMultigrid
from solvers.linear.blocks.saddle_point import SaddlePoint
from solvers.linear.blocks.schur import SaddlePointStructure, is_taylor_hood
from solvers.linear.conjugate_gradients import CG
from solvers.linear.direct import Direct
from solvers.linear.fast_diagonalization import FastDiagonalization
from solvers.linear.multigrid import Multigrid
from solvers.linear.patchwise import serves
from solvers.operators.periodic_grid import grid_of_form
from solvers.operators.stencil import grid_of
from solvers.operators.system import LinearMethod, System

MEDIUM = 20_000  # dofs in two dimensions up to which factorisations are as fast as algebraic multigrid
LARGE = 100_000  # the same of coupled components and of what couples cells, where hierarchies are worse
PLANE = 30_000  # dofs of saddle points in two dimensions up to which they are solved directly
SMALL = 8_000  # dofs up to which a factorisation is a matter of milliseconds, whatever the dimension
FEW = 2_000  # dofs of splines from which on fast diagonalisation takes less time than factors, which fill up


def default_method(form: DiscreteForm, u: Tensor, symmetric: bool, minimum: bool) -> LinearMethod:
    """What serves a form at u "*b *shape": as `default_linear` says, but for saddle points of many unknowns."""
    items = prod(u.shape[: u.ndim - len(form.space.shape)])
    candidate = not minimum and large_saddle_point(form.space, items)
    if candidate and SaddlePointStructure.of(System(form, u, None, symmetric)) is not None:
        return SaddlePoint()
    return default_linear(form.space, symmetric and minimum, items, beyond_cells(form))


def large_saddle_point(space: AnySpace, items: int) -> bool:
    """Whether it is the product of a Taylor–Hood pair, which no pressure is left undetermined by, and large.

    On other devices than the CPU there is no factorisation, and everything is large.
    """
    if not is_taylor_hood(space):
        return False
    return space.device.type != "cpu" or space.num_dofs * items > (SMALL if space.mesh.dim == 3 else PLANE)


def default_linear(space: AnySpace, symmetric: bool, items: int = 1, couples_neighbours: bool = False) -> LinearMethod:
    """Multigrid on large grids, direct elsewhere on the CPU unless the factors would fill up, else iterations.

    Those are preconditioned by algebraic multigrid, by the diagonal where there are several fields.

    Args:
        symmetric: whether the operator is that of an energy with a minimum.
        items: how many systems are solved at once.
        couples_neighbours: see `beyond_cells`.
    """
    on_cpu, large = space.device == torch.device("cpu"), space.num_dofs * items > SMALL
    if any(field.moments is not None for field in space.fields):
        return Direct() if on_cpu else CG()  # grad-div and curl-curl have large kernels, which no hierarchy here knows
    # Couplings of components slow multigrid down, and in two dimensions a factorisation does not mind them.
    coupled = space.components is not None and space.mesh.dim < 3
    on_grid = grid_of(space, 1) is not None and not couples_neighbours
    if symmetric and (large or not on_cpu) and not (coupled and on_cpu) and on_grid:
        return Multigrid()
    if symmetric and not couples_neighbours and serves(space) and (space.num_dofs * items > FEW or not on_cpu):
        return CG(preconditioner=FastDiagonalization())
    scalar = isinstance(space, FunctionSpace) and space.components is None and space.is_nodal and space.continuity >= 0
    most = SMALL if space.mesh.dim == 3 else MEDIUM if scalar and not couples_neighbours else LARGE
    if on_cpu and (space.num_dofs <= most or not symmetric):
        return Direct()
    if isinstance(space, FunctionSpace):
        return AlgebraicMultigrid()
    return Direct() if on_cpu and space.mesh.dim < 3 else CG()


def beyond_cells(form: DiscreteForm) -> bool:
    """Whether terms on facets or ties couple dofs of different cells, which stencils and hierarchies of grids lack.

    Stencils know the ties that make a grid periodic.
    """
    return form.couples_neighbours or (ties_of(form.constraint) is not None and grid_of_form(form, 1) is None)
