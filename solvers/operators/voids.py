"""Dofs that an energy does not see, as between cells of zero stiffness: they stay as they are, if no load acts on them.

A dof is *empty* where its row of the Hessian H is zero, beside the start too. The others of a scalar problem fall into
parts that couple, and a part *floats* where H 1 = 0 on it, so that nothing holds its constant. With the residual
r = J'(u) at the start,

    r_i = 0 at an empty dof, Σ r_i = 0 over a part that floats:    any value minimises J, and the dof, or one dof of the
                                                                   part, keeps the value that it had;
    otherwise:                                                     J falls without end, and the problem is singular.

Displacements are looked at for empty dofs alone: a part of them may float in more ways than graphs can tell.
"""

from math import prod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.space.space import FunctionSpace
from fem.support.arithmetic import per_item
from solvers.operators.system import System

NEAR = 1e-6  # how far another state is from a start, relative to its size
LOST = 1e3  # a sum of so many units of round-off of its terms, or less, is zero


@torch.no_grad()
def unseen(form: DiscreteForm, u: Tensor) -> tuple[Bool[Tensor, "..."], str]:
    """The dofs that may stay as they are in u "*b *shape", none in items where a load forbids it; and where one does.

    None either where nothing at all is seen of a component or of constants: that is a mistake, and no void.
    """
    space, u = form.space, form.constraint.insert(u, form.data)
    if not isinstance(space, FunctionSpace) or not space.is_nodal:
        return torch.zeros_like(u, dtype=torch.bool), ""
    # Zero may be the one u at which a Hessian vanishes, as that of |∇u|⁴: what counts is a state beside it.
    generator = torch.Generator(u.device).manual_seed(0)
    away = torch.rand(u.shape, generator=generator, device=u.device, dtype=u.dtype) - 0.5
    largest = u.abs().flatten(len(form.full_batch(u))).amax(-1)
    beside = u + NEAR * per_item(torch.where(largest > 0, largest, 1), u) * away
    system = System(form, form.constraint.insert(beside, form.data), form.constraint.fixed, True)
    items = system.finite.clone()
    for _, lost in system.unconstrained_directions():
        items &= ~lost
    if not system.holds_dofs_alone or not bool(items.any()):
        return torch.zeros_like(u, dtype=torch.bool), ""
    state = form.evaluate(u)
    numbers = torch.linspace(1, 2, prod(space.shape), dtype=u.dtype, device=u.device).view(space.shape)
    fixed = torch.zeros_like(u, dtype=torch.bool) if system.fixed is None else system.fixed.expand(u.shape)
    tensors = fixed, system.diagonal, system.apply(numbers.expand(u.shape)), state.residual, state.magnitude
    fixed, diagonal, product, r, size = (t.reshape(items.numel(), space.num_nodes, -1) for t in tensors)
    round_off = LOST * torch.finfo(u.dtype).eps
    empty = ~fixed & (diagonal == 0) & (product == 0)
    items = items.flatten() & ~((empty | fixed).all(1) & empty.any(1)).any(1)
    held, loaded = empty, empty & (r.abs() > round_off * size)
    if space.components is None:
        one = torch.ones_like(u).masked_fill(fixed.view(u.shape), 0)
        floating = afloat(system, ~fixed & ~empty, system.apply(one).reshape(r.shape).abs() > round_off * diagonal)
        number = floating.clamp(min=0).flatten()
        force, most = (
            torch.zeros_like(r).flatten().index_add_(0, number, (t * (floating >= 0)).flatten()) for t in (r, size)
        )
        loaded |= (floating >= 0) & (force.abs() > round_off * most)[number].view(r.shape)
        first = torch.arange(r.numel(), device=u.device).view(r.shape) == floating
        held = held | first
    detail, where = "", loaded & items.view(-1, 1, 1)
    if bool(where.any()):
        x = space.dof_coordinates[where.any(2).any(0)][0]
        near = ", ".join(f"{float(c):.3g}" for c in x)
        detail = (
            f" (a load acts near x = ({near}) on dofs that nothing holds: no cell of any stiffness joins them to "
            "prescribed ones. Leave it out there, as by `torch.where(k > 0, f, 0.0)`, or prescribe values)"
        )
    items &= ~loaded.any(2).any(1)
    return (held & items.view(-1, 1, 1)).view(u.shape), detail


def afloat(system: System, seen: Tensor, supported: Tensor) -> Int[Tensor, "b n 1"]:
    """For each node the first one of its part, all nodes of all items being numbered, where that floats; else −1.

    Args:
        seen, supported: the nodes that are asked for, and those at which constants are seen.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row, column = (t.cpu().numpy() for t in edges(system))
    found, label = connected_components(coo_array((row >= 0, (row, column)), shape=(seen.numel(),) * 2), directed=False)
    part = torch.from_numpy(label).to(device=seen.device, dtype=torch.int64)
    held = torch.zeros(found, dtype=torch.bool, device=seen.device)
    held[part[supported.flatten() & seen.flatten()]] = True
    first = torch.full((found,), seen.numel(), device=seen.device).scatter_reduce_(
        0, part, torch.arange(seen.numel(), device=seen.device), "amin"
    )
    return torch.where(seen & ~held[part].view(seen.shape), first[part].view(seen.shape), -1)


def edges(system: System) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """The pairs of free nodes that couple, those of all items being numbered one after another."""
    if (stencil := system.stencil) is not None:
        grid = stencil.grid
        count = grid.batch * system.form.space.num_dofs
        node = torch.empty(len(grid.types), grid.size, dtype=torch.int64, device=system.u.device)
        grid.pack(torch.arange(count, device=system.u.device).view(grid.batch, -1, 1), node)
        pairs = []
        for (a, b, offset), k in grid.keys.items():
            if k >= len(grid.types):
                at = grid.shifted(stencil.data[k]).nonzero()[:, 0]
                pairs.append(torch.stack([node[a][at], node[b][at + grid.shift(offset)]]))
        both = torch.cat(pairs, 1)
    else:
        pattern, n = system.form.pattern, system.form.space.num_dofs
        item, entry = system.values.reshape(-1, len(pattern.column)).nonzero().unbind(1)
        both = torch.stack([pattern.row[entry], pattern.column[entry]]) + item * n
        if system.fixed is not None:
            both = both[:, ~system.fixed.expand(system.u.shape).flatten()[both].any(0)]
    return both[0], both[1]
