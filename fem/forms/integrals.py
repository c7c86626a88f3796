"""Integrals and error norms of functions on a space, with quadrature strong enough to see what they measure."""

from collections.abc import Callable

import torch
from torch import Tensor

from fem.forms.parameters import Parameter, at_points
from fem.space.space import FunctionSpace
from fem.support.sums import sum_of


def integrate(space: FunctionSpace, value: Parameter, tag: str | None = None, degree: int | None = None) -> Tensor:
    """∫ value over the mesh, or over the facets with that tag.

    Args:
        space: gives mesh and quadrature.
        value: a callable of x, a field `V.function(u)`, its `gradient`, a number, or any other parameter of a density.
        degree: of the quadrature; 2p + 4 by default.

    Returns:
        "*b", or "*b c" for vectors.
    """
    parts = []
    for domain in space.quadrature.domains(tag, 2 * space.degree + 4 if degree is None else degree):
        geometry = space.quadrature.geometry(domain)
        point = at_points(value, "the integrand", space, domain, geometry)
        values = torch.as_tensor(point.value, dtype=space.dtype, device=space.device)
        if values.ndim == 0:
            values = values[None, None]
        weights = geometry.weights.expand(geometry.points.shape[:2])
        weights = weights[(..., *[None] * point.rank)]
        parts.append((values * weights).sum((-2 - point.rank, -1 - point.rank)))
    return sum_of(parts)


def l2_error(space: FunctionSpace, u: Tensor, exact: Callable[[Tensor], Tensor] | Tensor | float) -> Tensor:
    """‖u − exact‖_L2 = (∫ |u − exact|²)^½, "*b", with quadrature of degree 2p + 4.

    Args:
        exact: a callable of x "… d", a number, or a tensor of dofs on the same space.
    """
    return _error(space, u, exact, None)


def h1_error(
    space: FunctionSpace,
    u: Tensor,
    exact: Callable[[Tensor], Tensor] | Tensor | float,
    gradient: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """|u − exact|_H1 = (∫ |∇u − ∇exact|²)^½, "*b": the seminorm, with quadrature of degree 2p + 4.

    Args:
        exact: a callable of x "… d" in PyTorch, or a tensor of dofs on the same space.
        gradient: ∇exact as a callable "… d" → "… d" (vectors "… c d"); by default `exact` is differentiated.
    """
    return _error(space, u, exact, _gradient_of(exact) if gradient is None and callable(exact) else gradient, 1)


def _error(space, u, exact, gradient, order: int = 0) -> Tensor:
    space.check(u)
    total = []
    for domain in space.quadrature.domains(None, 2 * space.degree + 4):
        geometry = space.quadrature.geometry(domain)
        found = space.quadrature.values(u, domain, geometry, order)[order]
        if isinstance(exact, Tensor) and exact.ndim:
            wanted = space.quadrature.values(space.check(exact, "exact"), domain, geometry, order)[order]
        elif order == 1:
            wanted = gradient(geometry.points) if gradient is not None else 0.0
        else:
            wanted = exact(geometry.points) if callable(exact) else exact
        square = (found - wanted).square()
        square = square.flatten(found.ndim - _rank(space, order)).sum(-1) if _rank(space, order) else square
        total.append((square * geometry.weights).sum((-2, -1)))
    return sum_of(total).sqrt()


def _rank(space: FunctionSpace, order: int) -> int:
    return order + (space.components is not None)


def _gradient_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """∇f at points by automatic differentiation: values at different points do not depend on each other."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = function(x)
            entries = value.flatten(2).unbind(-1) if value.ndim > 2 else (value,)
            rows = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0] for entry in entries]
        return rows[0] if value.ndim == 2 else torch.stack(rows, -2).unflatten(-2, value.shape[2:])

    return gradient
