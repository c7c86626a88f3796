"""The same energy over a richer space, in which any function of the poorer one can be compared with better ones."""

from copy import copy
from typing import Any

import torch
from torch import Tensor

from fem.forms.constraints import Dirichlet, Free, MeanZero
from fem.forms.energy import Energy
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace


def next_degree(energy: Energy, v: Tensor) -> tuple[Energy, Tensor] | None:
    """The energy over the Lagrange space of the next degree, and v there, whose values it keeps where prescribed."""
    V, held = energy.space, energy.constraint
    if not isinstance(V, FunctionSpace) or not V.is_lagrange or V.degree == 3:
        return None
    degree = max(2 * V.degree + 3 + V.mesh.curved_degree, V.quadrature_degree)
    W = FunctionSpace(V.mesh, Lagrange(V.degree + 1), V.components, degree)
    axis = -len(W.shape)
    same = v.new_empty(*v.shape[:axis], *W.shape)
    for own, old, new, numbers in zip(V.elements, V.cell_dofs, W.elements, W.cell_dofs, strict=True):
        table = own.tabulate(new.nodes, 0).value[0].to(v)  # type: ignore[attr-defined]
        local = v.index_select(v.ndim + axis, old.flatten()).unflatten(axis, old.shape)
        values = torch.tensordot(table, local.movedim(v.ndim + axis + 1, 0), 1).movedim(0, v.ndim + axis + 1)
        same.index_copy_(v.ndim + axis, numbers.flatten(), values.flatten(v.ndim + axis, v.ndim + axis + 1))
    constraint: Any = Free(W)
    if isinstance(held, MeanZero):
        constraint = MeanZero(W)
    elif isinstance(held, Dirichlet):
        component = lambda key: isinstance(key, tuple) and len(key) > 1  # noqa: E731
        constraint = Dirichlet(W, {key: same[..., key[1]] if component(key) else same for key in held.values})
    richer = copy(energy)
    richer.space, richer.constraint = W, constraint
    return richer, same
