"""What is told of a problem before it is solved: values that are not finite, hidden tensors, forms not linear in v."""

from typing import Any

import torch
from torch import Tensor

from fem.forms.discrete import DiscreteForm
from fem.forms.parameters import Constant, PointValues, field_of, tensor_in
from fem.space.field import Function, Gradient


def check_tensors(form: DiscreteForm, some: bool = False) -> str:
    """Raise where geometry, parameters or prescribed values are not finite; with `some` only if they are in all items.

    Raises:
        ValueError: the parameter is named by its position.
    """
    lost, found = torch.zeros(form.batch, dtype=torch.bool, device=form.space.device), ""
    for integral in form.integrals:
        for i, p in enumerate(integral.params):
            tensor = tensor_in(p)
            given = tensor if tensor is not None else p.value if isinstance(p, PointValues) else p
            value = torch.as_tensor(given, dtype=form.space.dtype, device=form.space.device)
            bad = ~torch.isfinite(value)
            if not bool(bad.any()):
                continue
            first = torch.nonzero(bad)[0].tolist()
            where = "dof" if isinstance(p, Function | Gradient) else "quadrature point"
            found = f"parameter {i} is {float(value[tuple(first)])} at a {where} of the {integral.term.name} "
            found += f"(index {first})"
            lost = lost | bad[..., None].flatten(batch_axes(p, value)).any(-1)
            if not some or bool(lost.all()):
                raise ValueError(f"{found}; every parameter must be finite wherever it is integrated.")
    return f" ({found})" if found else ""


def batch_axes(parameter: Any, value: Tensor) -> int:
    """How many leading axes of a parameter's values count the items of a batch."""
    if isinstance(parameter, PointValues):
        return len(parameter.batch)
    if isinstance(parameter, Function | Gradient):
        return value.ndim - len(field_of(parameter)[0].space.shape)
    return value.ndim - (len(parameter.shape) if isinstance(parameter, Constant) else 0)


def check_capture(form: DiscreteForm, u: Tensor) -> None:
    """Raise where a density holds on to a tensor that needs a gradient: the adjoint would not see it.

    Raises:
        ValueError: with the remedy.
    """
    batch, full = form.constrained(u)
    for integral in form.integrals:
        if integral.captures_gradient(full, batch):
            raise ValueError(
                f"the {integral.term.name} captures a tensor that requires a gradient (or is mapped), which the "
                "adjoint cannot reach. Pass it in `params` and take it as an argument, or detach it."
            )


@torch.no_grad()
def check_linear(form: DiscreteForm, u: Tensor) -> None:
    """Raise where a weak form is not linear in v and ∇v: what does not depend on them would be left out in silence.

    Raises:
        ValueError: form(2v) is not 2 form(v).
    """
    batch, full = form.constrained(u)
    numbers = torch.linspace(0.3, 0.9, form.space.num_dofs, dtype=u.dtype, device=u.device)
    other = full + numbers.view(form.space.shape)  # where u is zero much else vanishes
    for integral in (part for i in form.integrals for part in i.all_at_points()):
        for slots in (integral.slots(full), integral.slots(other)):
            v = [torch.full_like(s, 0.7 + 0.4 * k) for k, s in enumerate(slots)]
            once, twice = (integral.integrand(slots, [f * s for s in v], batch) for f in (1, 2))
            size = twice.abs().nan_to_num(0, posinf=0).max()
            if bool(((twice - 2 * once).abs() > torch.finfo(u.dtype).eps ** 0.5 * size).any()):
                raise ValueError(
                    f"the {integral.term.name} is not linear in v and grad_v: each of its summands must have one of "
                    "them as a factor, once. (Arguments come as x, u, grad_u, v, grad_v and the parameters; on "
                    "boundaries as x, u, v, normal.)"
                )
