"""Which linear method serves where the user names none."""

import torch

from fem.space import AnySpace
from solvers.direct import Direct
from solvers.linear import CG
from solvers.multigrid import Multigrid
from solvers.stencil import grid_of
from solvers.system import LinearMethod

SMALL = 8_000  # dofs up to which a factorisation is a matter of milliseconds, whatever the dimension


def default_linear(space: AnySpace, symmetric: bool, items: int = 1) -> LinearMethod:
    """Multigrid on large grids, direct elsewhere on the CPU unless three dimensions would fill the factors, else CG.

    Args:
        symmetric: whether the operator is that of an energy with a minimum.
        items: how many systems are solved at once.
    """
    on_cpu, large = space.device == torch.device("cpu"), space.num_dofs * items > SMALL
    # Couplings of components slow multigrid down, and in two dimensions a factorisation does not mind them.
    coupled = space.components is not None and space.mesh.dim < 3
    if symmetric and (large or not on_cpu) and not (coupled and on_cpu) and grid_of(space, 1) is not None:
        return Multigrid()
    if on_cpu and (space.mesh.dim < 3 or space.num_dofs <= SMALL or not symmetric):
        return Direct()
    return CG()
