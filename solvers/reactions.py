"""Reactions: the forces (or fluxes) and moments that hold prescribed values, from the residual without the constraint.

At a solution J′ vanishes but for prescribed dofs, where ∂J/∂uₙ is what holds uₙ. Their sum is the resultant to
round-off, as accurate as the energy: it balances all loads exactly, which an integral of stresses does not.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.constraints import Dirichlet, Free
from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Functional, differentiated
from fem.forms.parameters import Parameter
from fem.space.space import MixedSpace
from fem.support.checks import check_kind, check_params, is_integer, shown
from fem.support.modes import outside_modes


@outside_modes
def reaction(
    energy: Functional,
    u: Float[Tensor, "..."],
    tag: Any,
    params: Sequence[Parameter] = (),
    about: Sequence[float] | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """Σ ∂J/∂uₙ over the dofs of a tag, the constraint of the energy put aside: what holds them there.

    For J = strain energy − work of loads this is the force of the support on the body, so that all reactions and loads
    together vanish; for ½κ|∇u|² − f u it is the flux into the body.

    Args:
        energy: an `Energy` or `WeakForm`.
        u: dofs, such as `minimize(energy, params).value`; prescribed values are written into them.
        tag: as a key of `Dirichlet`: a tag, (tag, component), on mixed spaces (tag, field) or (tag, field, component).
        params: the parameters of the energy.
        about: a point "d": the moment Σ (xₙ − about) × ∂J/∂uₙ instead of the force, for displacements.

    Returns:
        "*b" of scalars or where a component is named, else "*b c"; moments "*b" in two dimensions, "*b 3" in three.
        Differentiable in u, the parameters and the nodes. Dofs that two tags share count in both.

    Raises:
        ValueError: an unknown tag; a mixed space without a field; moments of what is no displacement.
    """
    check_kind("reaction", "energy", energy, Functional, "an `Energy` or a `WeakForm`")
    space = energy.space
    key: tuple[Any, ...] = tag if isinstance(tag, tuple) else (tag,)
    mask = Dirichlet(space, {tag: 0.0}).fixed
    form = energy.discrete_form(check_params("reaction", params))
    full = form.constrained(space.check(u))[1]
    free = replace(form, constraint=Free(space), data=None)
    forces = differentiated(free, DiscreteForm.residual, full)
    field: Any = space
    chosen = mask
    if isinstance(space, MixedSpace):
        masks, parts = space.split(mask), space.split(forces)
        touched = [i for i, m in enumerate(masks) if bool(m.any())]
        if len(touched) != 1:
            raise ValueError(
                f"`reaction` on a mixed space is that of one field, (tag, field); {tag!r} has dofs of fields {touched}."
            )
        field, chosen, forces = space.fields[touched[0]], masks[touched[0]], parts[touched[0]]
        key = (key[0], *key[2:])
    if field.moments is not None:
        raise ValueError(
            f"`reaction` sums what holds values at nodes, and {field.family} has none. The flux through a side is "
            "`integrate(V, lambda x, u, div_u, n: (u * n).sum(-1), tag, u=u)` (from fem)."
        )
    forces = torch.where(chosen, forces, 0)
    if about is None:
        total = forces.sum(-1 if field.components is None else -2)
        named = field.components is not None and len(key) == 2 and is_integer(key[1])
        return total[..., key[1]] if named else total
    if field.components is None or field.components != field.mesh.num_coordinates or field.components == 1:
        raise ValueError(
            f"`reaction(about=...)` is a moment of forces, of a displacement with as many components as the "
            f"{field.mesh.num_coordinates} coordinates; this field has {field.components}."
        )
    point = torch.as_tensor(about, dtype=field.dtype, device=field.device)
    if tuple(point.shape) != (field.components,):
        raise ValueError(
            f"`reaction(about=...)` must be a point of {field.components} coordinates; got {shown(about)}."
        )
    arm = field.dof_coordinates - point
    if field.components == 2:
        return (arm[:, 0] * forces[..., 1] - arm[:, 1] * forces[..., 0]).sum(-1)
    return torch.linalg.cross(arm.expand_as(forces), forces).sum(-2)
