"""Integrals and error norms of functions on a space, with quadrature strong enough to see what they measure."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fem.forms.parameters import CellValues, Parameter, at_points, field_of
from fem.mesh.geometry import check_side
from fem.mesh.tags import FacetTag
from fem.space.field import Function, Gradient
from fem.space.space import FunctionSpace
from fem.support.arithmetic import sum_of
from fem.support.checks import check_callable, check_integers, check_kind, shown
from fem.support.modes import outside_modes

Exact = Callable[[Tensor], Tensor] | Function | Tensor | float


@outside_modes
def integrate(space: FunctionSpace, value: Parameter, tag: FacetTag | None = None, degree: int | None = None) -> Tensor:
    """∫ value over the mesh, or over the facets with that tag.

    Args:
        space: gives mesh and quadrature.
        value: a callable of x, a field `V.function(u)`, its `gradient`, a number, or any other parameter of a density.
        tag: facets, or (facet tag, cell tag): facets inside the domain as seen from the cells with that tag, where it
            matters (gradients, materials).
        degree: of the quadrature; by default 2p + 4, and more on curved cells as in `FunctionSpace`.

    Returns:
        "*b", or "*b c" for vectors.
    """
    check_kind("integrate", "space", space, FunctionSpace, "a `FunctionSpace`")
    check_integers("integrate", 0, optional=True, degree=degree)
    one_sided = isinstance(value, CellValues)
    if isinstance(value, Function | Gradient):
        function, order = field_of(value)
        one_sided = function.space.continuity < order
    if tag is not None and one_sided:
        check_side(space.mesh, tag)
    parts = []
    for domain in space.quadrature.domains(tag, own_degree(space) if degree is None else degree):
        geometry = space.quadrature.geometry(domain)
        point = at_points(value, "the integrand", space, domain, geometry)
        values = torch.as_tensor(point.value, dtype=space.dtype, device=space.device)
        if values.ndim == 0:
            values = values[None, None]
        weights = geometry.weights.expand(geometry.points.shape[:2])
        weights = weights[(..., *[None] * point.rank)]
        parts.append((values * weights).sum((-2 - point.rank, -1 - point.rank)))
    return sum_of(parts)


@outside_modes
def l2_error(space: FunctionSpace, u: Tensor, exact: Exact) -> Tensor:
    """‖u − exact‖_L2 = (∫ |u − exact|²)^½, "*b", with quadrature of degree 2p + 4, more on curved cells.

    Args:
        exact: a callable of x "… d", a number, a tensor of dofs on the same space, or a field `W.function(values)`.
    """
    return error("l2_error", space, u, exact, 0)


@outside_modes
def h1_error(
    space: FunctionSpace, u: Tensor, exact: Exact, gradient: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """|u − exact|_H1 = (∫ |∇u − ∇exact|²)^½, "*b": the seminorm, with quadrature as in `l2_error`.

    Args:
        exact: a callable of x "… d" in PyTorch, a number, a tensor of dofs on the same space, or a field.
        gradient: ∇exact as a callable "… d" → "… d" (vectors "… c d"); by default `exact` is differentiated.
    """
    check_callable("h1_error", "gradient", gradient, "a callable of x, or None", optional=True)
    if gradient is not None:
        exact = gradient
    elif callable(exact) and not isinstance(exact, Tensor):
        exact = gradient_of(exact)
    return error("h1_error", space, u, exact, 1)


def own_degree(space: FunctionSpace) -> int:
    """Of quadrature that sees more than that of the space does."""
    return 2 * space.degree + 4 + space.mesh.curved_degree


def error(call: str, space: FunctionSpace, u: Tensor, exact: Any, order: int) -> Tensor:
    """(∫ |∂u − exact|²)^½ with the derivative ∂u of that order; a field or dofs are differentiated as u is."""
    check_kind(call, "space", space, FunctionSpace, "a `FunctionSpace`")
    space.check(u)
    if isinstance(exact, Tensor) and exact.ndim:
        exact = space.function(space.check(exact, "exact"))
    if not callable(exact):
        check_kind(call, "exact", exact, Real | Tensor | Function, "a callable of x, a number, dofs or a field")
    parts = []
    for domain in space.quadrature.domains(None, own_degree(space)):
        geometry = space.quadrature.geometry(domain)
        found = space.quadrature.values(u, domain, geometry, order)[order]
        rank = order + (space.components is not None)
        if isinstance(exact, Function):
            wanted = at_points(Gradient(exact) if order else exact, "`exact`", space, domain, geometry).value
        elif callable(exact):
            wanted = check_values(call, exact(geometry.points), tuple(found.shape[found.ndim - rank - 2 :]), order)
        else:
            wanted = exact if order == 0 else 0.0
        difference = found - torch.as_tensor(wanted, dtype=space.dtype, device=space.device)
        square = difference.square().flatten(difference.ndim - rank).sum(-1) if rank else difference.square()
        parts.append((square * geometry.weights).sum((-2, -1)))
    return sum_of(parts).sqrt()


def check_values(call: str, value: Any, shape: tuple[int, ...], order: int) -> Any:
    """What a callable of x returned, if it has that shape, "e q" and then those of the value; it may be a batch.

    The same value everywhere may lack the axes of the points, and a number is no gradient unless it is zero.

    Raises:
        TypeError, ValueError: with the shape it must have.
    """
    if not isinstance(value, Tensor):
        fits = Real if order == 0 or value == 0 else Tensor
        check_kind(call, "exact", value, fits, "a callable that returns a tensor with a value for each point x")
        return value
    given = tuple(value.shape)
    if given[-len(shape) :] != shape and given != shape[2:] and (given or order):
        raise ValueError(f"the exact values must have shape {shape}, one for each point x; got {shown(value)}.")
    return value


def gradient_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Any]:
    """∇f at points by automatic differentiation: values at different points do not depend on each other."""

    def gradient(x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = function(x)
            if not isinstance(value, Tensor):
                return 0.0 if isinstance(value, Real) else value
            if not value.requires_grad:
                raise ValueError("`exact` leaves PyTorch, or is constant: give its gradient, `gradient=lambda x: ...`.")
            entries = value.flatten(2).unbind(-1) if value.ndim > 2 else (value,)
            rows = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0] for entry in entries]
        return rows[0] if value.ndim == 2 else torch.stack(rows, -2).unflatten(-2, value.shape[2:])

    return gradient
