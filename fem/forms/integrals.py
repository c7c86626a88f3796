"""Integrals and error norms of functions on a space, with quadrature strong enough to see what they measure."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fem.forms.derivatives import observable
from fem.forms.parameters import (
    CellPoints,
    Parameter,
    PointValues,
    check_like,
    may_jump,
    resolved,
    values_at_points,
)
from fem.forms.pointwise import check_pointwise, each
from fem.mesh.geometry import Domain, Geometry, check_side
from fem.mesh.tags import FacetTag
from fem.space.field import Function, Gradient
from fem.space.space import FunctionSpace
from fem.support.arithmetic import common_batch, sum_of
from fem.support.checks import check_callable, check_flags, check_integers, check_kind, check_params, shown
from fem.support.modes import outside_modes

Exact = Callable[[Tensor], Tensor] | Function | Tensor | float
Integrand = Parameter | Callable[..., Tensor]


@outside_modes
def integrate(
    space: FunctionSpace,
    value: Integrand,
    tag: FacetTag | None = None,
    degree: int | None = None,
    *,
    u: Tensor | Function | Sequence[Function] | None = None,
    params: Sequence[Parameter] = (),
    per_cell: bool = False,
) -> Tensor:
    """∫ value over the mesh, or over the facets with that tag.

    Args:
        space: gives mesh and quadrature.
        value: a callable of x, a field `V.function(u)`, its `gradient`, a number, or any other parameter of a density;
            with `u` an expression of it, `lambda x, u, grad_u, *params: ...`, on facets with the outward normal after
            `grad_u`.
        tag: facets, or (facet tag, cell tag): facets inside the domain as seen from the cells with that tag, where it
            matters (gradients, materials).
        degree: of the quadrature; by default 2p + 4, and more on curved cells as in `FunctionSpace`.
        u: dofs on the space, a field on any space over the same mesh, or several of them (the parts of a mixed space),
            which the expression gets as tuples.
        params: of the expression, whatever a density may be given.
        per_cell: give the integral over each cell, in the order of the mesh (facets: of the cell that they are seen
            from).

    Returns:
        "*b", or "*b c" for vectors; "*b e" and "*b e c" per cell.
    """
    check_kind("integrate", "space", space, FunctionSpace, "a `FunctionSpace`")
    check_integers("integrate", 0, optional=True, degree=degree)
    check_flags("integrate", per_cell=per_cell)
    if tag is not None and (u is not None or may_jump(value)):
        check_side(space.mesh, tag)
    at = integrand("integrate", space, value, u, params)
    parts = []
    for domain in space.quadrature.domains(tag, own_degree(space) if degree is None else degree):
        geometry = space.quadrature.geometry(domain)
        point = at(domain, geometry)
        values = torch.as_tensor(point.value, dtype=space.dtype, device=space.device)
        if values.ndim == 0:
            values = values[None, None]
        weights = geometry.weights.expand(geometry.points.shape[:2])
        of_cells = (values * weights[(..., *[None] * point.rank)]).sum(-1 - point.rank)  # "*b e *rank"
        axis = of_cells.ndim - 1 - point.rank
        if per_cell:
            start, stop = space.mesh.block_starts[domain.block : domain.block + 2]
            cells = torch.arange(start, stop, device=space.device)
            shape = (*of_cells.shape[:axis], space.mesh.num_cells, *of_cells.shape[axis + 1 :])
            cells = cells if domain.cells is None else cells[domain.cells]
            parts.append(of_cells.new_zeros(shape).index_add(axis, cells, of_cells))
        else:
            parts.append(of_cells.sum(axis))
    return sum_of(parts)


@outside_modes
def at_quadrature(
    space: FunctionSpace,
    value: Integrand,
    u: Tensor | Function | Sequence[Function] | None = None,
    params: Sequence[Parameter] = (),
) -> CellPoints:
    """An expression of a field at the quadrature points of the cells, where densities over the space see it again.

    A parameter like any other, with one value for each point: internal variables of materials with memory above all,
    updated after each increment, `plastic = at_quadrature(V, lambda x, u, grad_u, old: ..., u, (plastic,))`.
    Differentiable in whatever the expression is made of. Another space sees other points, and refuses it.

    Args:
        space, value, u, params: as for `integrate`; without u a callable of x, a field or another parameter.

    Returns:
        `CellPoints` with values "*b e q *shape" for each block of cells.
    """
    check_kind("at_quadrature", "space", space, FunctionSpace, "a `FunctionSpace`")
    at = integrand("at_quadrature", space, value, u, params)
    found, ranks = [], set()
    for domain in space.quadrature.domains(None):
        geometry = space.quadrature.geometry(domain)
        point = at(domain, geometry)
        values = torch.as_tensor(point.value, dtype=space.dtype, device=space.device)
        values = values if values.ndim else values[None, None]
        lead = values.ndim - 2 - point.rank
        shape = values.shape[:lead], geometry.points.shape[:2], values.shape[lead + 2 :]
        found.append(values.expand(*(n for part in shape for n in part)))
        ranks.add(point.rank)
    return CellPoints(tuple(found), ranks.pop())


def integrand(
    call: str, space: FunctionSpace, value: Any, u: Any, params: Sequence[Parameter]
) -> Callable[[Domain, Geometry], PointValues]:
    """`value` at the points of a domain: a parameter of a density where u is None, else an expression of u.

    Raises:
        TypeError: no expression, no fields, or values of another type than the space's.
        ValueError: fields over another mesh, or not one value of the expression for each point.
    """
    params = check_params(call, params)
    if u is None:
        if params:
            raise ValueError(f"`{call}(params=...)` are those of an expression of a field; give that by `u=`.")
        return lambda domain, geometry: values_at_points(value, "the integrand", space, domain, geometry)
    check_callable(call, "value", value, "an expression `lambda x, u, grad_u, *params: ...` of the field u")
    several = isinstance(u, tuple | list)
    fields = [f if isinstance(f, Function) else space.function(f) for f in (u if several else [u])]

    known: set[str] = set()

    def at(domain: Domain, geometry: Geometry) -> PointValues:
        for i, f in enumerate(fields):
            resolved(f, f"field {i} of `{call}(u=...)`", space, domain, geometry)
        points = [slots_of(f, domain, geometry) for f in fields]
        both = [tuple(own[k] for own in points) if several else points[0][k] for k in range(2)]
        normal = [] if geometry.normal is None else [PointValues(geometry.normal, 1)]
        given = [values_at_points(p, f"params[{i}]", space, domain, geometry) for i, p in enumerate(params)]
        arguments: list[Any] = [PointValues(geometry.points, 1), *both, *normal, *given]
        lead = [f.values.shape[: f.values.ndim - len(f.space.shape)] for f in fields]
        lead = (*common_batch(*lead, *[p.batch for p in given]), *geometry.points.shape[:2])
        found = value(*each(lambda p: p.value, arguments))
        if isinstance(found, Real) and not isinstance(found, bool):
            return PointValues(float(found))
        check_kind(call, "value", found, Tensor, "an expression that returns a tensor with a value for each point x")
        found = check_like(space, found, "the value of the expression")
        rank = max(found.ndim - len(lead), 0)
        if not known and observable():
            known.add("an expression at a point")
            total = lambda *a: value(*a).flatten(-rank).sum(-1) if rank else value(*a)  # noqa: E731
            check_pointwise("expression", total, arguments, 2)
        if tuple(found.shape) == lead[-2:] or not found.ndim:  # of x alone, or constant
            return PointValues(found)
        try:
            if found.ndim < len(lead):
                raise RuntimeError
            return PointValues(found.expand(*lead, *found.shape[len(lead) :]), rank)
        except RuntimeError:
            raise ValueError(
                f"`{call}(value=...)` must return one value for each point, shape {lead} or {(*lead, '...')}; got "
                f"{tuple(found.shape)}."
            ) from None

    return at


def slots_of(field: Function, domain: Domain, geometry: Geometry) -> list[PointValues]:
    """A field and its gradient at the points of a domain."""
    shape, points = field.shape, field.space.quadrature
    values = enumerate(points.values(field.values, domain, geometry, 1))
    if shape is None:
        return [PointValues(s, points.rank(k)) for k, s in values]
    return [PointValues(s.unflatten(s.ndim - 1 - k, shape), len(shape) + k) for k, s in values]


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
        gradient: ∇exact as a callable "… d" → "… d" (vectors "… c d"); by default `exact` is differentiated. Of
            `RaviartThomas` and `Nedelec` the exact divergence or curl, whose error is measured.
    """
    check_callable("h1_error", "gradient", gradient, "a callable of x, or None", optional=True)
    if gradient is not None:
        exact = gradient
    elif callable(exact) and not isinstance(exact, Tensor):
        if getattr(space, "moments", None) is not None:
            raise ValueError(f"`h1_error` of {space.family} is that of its divergence or curl: give it by `gradient=`.")
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
        rank = space.quadrature.rank(order)
        if isinstance(exact, Function):
            wanted = values_at_points(Gradient(exact) if order else exact, "`exact`", space, domain, geometry).value
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
