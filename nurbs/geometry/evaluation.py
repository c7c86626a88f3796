"""Sums of B-spline functions on tensor grids and at scattered points, and quotients of such sums.

A rational map is the quotient of two splines, S = A / W with A = Σ w_i P_i N_i and W = Σ w_i N_i (The NURBS Book,
eqs. 4.15 and 4.5): both are summed, and divided at the end. On a tensor grid the p + 1 functions that live at each
parameter stand in one matrix per direction, and the sum is a product of matrices, one direction after the other. At
scattered points the (p+1)^r control points around each parameter are gathered, and gathered again in the backward pass:
kept are the spans and the functions only, p + 1 numbers per direction and point.

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997.
"""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import basis_functions, basis_matrix, find_span
from fem.reference.rational import MultiIndex, divide, lower_orders
from fem.support.arithmetic import common_batch
from fem.support.modes import outside_modes
from fem.support.portions import at_a_time


@outside_modes
def evaluate_grid(
    control_points: Float[Tensor, "..."],
    weights: Float[Tensor, "..."] | None,
    knots: Sequence[Float[Tensor, "..."]],
    degree: Sequence[int],
    parameters: Sequence[Float[Tensor, "..."]],
    orders: Sequence[MultiIndex],
    sigma: float | None = None,
    check: bool = True,
) -> list[Float[Tensor, "..."]]:
    """Derivatives of S on the tensor grid of the parameters ("*b q" per direction): "*b *q d" per multi-index.

    The functional form of a patch: control points "*b *n d", weights "*b *n" or None, knots "*b n+p+1" per direction,
    not checked; `sigma` and `check` as `sigma` and `check_finite` of `Patch`.
    """
    points, w = homogeneous(control_points, weights)
    wanted = list(orders) if w is None else lower_orders(orders)
    tables = [
        basis_matrix(t, p, u, max(order[axis] for order in wanted), sigma, check)
        for axis, (t, p, u) in enumerate(zip(knots, degree, parameters, strict=True))
    ]
    numerator = _grid_sums(points, tables, wanted)
    if w is None:
        return [numerator[order] for order in orders]
    # W once per coordinate: a few more columns in a matrix product, for divisions that run along memory
    return divide(numerator, _grid_sums(w.expand(points.shape), tables, wanted), orders)


def _grid_sums(
    coefficients: Tensor, tables: Sequence[Tensor], orders: Sequence[MultiIndex]
) -> dict[MultiIndex, Tensor]:
    """Derivatives of Σ_i c_i N_i: one matrix product per direction, last direction first, shared by multi-indices.

    The layout is such that the largest product, the last, leaves the components varying fastest; the transposition
    that this takes is that of the smallest intermediate.
    """
    r = len(tables)
    partial: dict[MultiIndex, Tensor] = {(): coefficients}

    def contracted(order: MultiIndex) -> Tensor:
        if order not in partial:
            axis, rest = r - len(order), contracted(order[1:])
            table = tables[axis][..., order[0], :, :]
            if len(order) == 1 and r > 1:
                rest = rest.movedim(-1, -2)  # "*b i j D k"
                lead = rest.shape[-r - 1 : -1]
                partial[order] = (rest.flatten(-r - 1, -2) @ table.mT).unflatten(-2, lead).movedim(-2, -1)
            else:
                trail = rest.shape[-len(order) :]
                table = table.reshape(*table.shape[:-2], *[1] * axis, *table.shape[-2:])
                partial[order] = (table @ rest.flatten(-len(order))).unflatten(-1, trail)
        return partial[order]

    return {order: contracted(order) for order in orders}


@outside_modes
def evaluate_scattered(
    control_points: Float[Tensor, "..."],
    weights: Float[Tensor, "..."] | None,
    knots: Sequence[Float[Tensor, "..."]],
    degree: Sequence[int],
    points: Float[Tensor, "*#b q r"],
    orders: Sequence[MultiIndex],
    sigma: float | None = None,
    check: bool = True,
) -> list[Float[Tensor, "*b q d"]]:
    """Derivatives of S at scattered parameters, "*b q d" per multi-index; otherwise as `evaluate_grid`."""
    r = len(degree)
    control_points, w = homogeneous(control_points, weights)
    coefficients = control_points if w is None else torch.cat([control_points, w], -1)
    wanted = list(orders) if w is None else lower_orders(orders)
    shape, own = coefficients.shape[-r - 1 : -1], coefficients.shape[: -r - 1]
    batch = common_batch(own, points.shape[:-2], *(t.shape[:-1] for t in knots))
    first = (torch.arange(prod(own), device=points.device) * prod(shape)).reshape(*own, 1)
    around = torch.zeros(1, dtype=torch.int64, device=points.device)
    lines = []
    for axis, (t, p, u) in enumerate(zip(knots, degree, points.unbind(-1), strict=True)):
        order, stride = max(order[axis] for order in wanted), prod(shape[axis + 1 :])
        if sigma is None:
            span = find_span(t, p, u, check)
            line, first = basis_functions(t, p, u, order, span), first + (span - p) * stride
        else:
            line = basis_matrix(t, p, u, order, sigma, check)
        lines.append(line.expand(*batch, *line.shape[-3:]))
        around = (around[:, None] + stride * torch.arange(line.shape[-1], device=u.device)).flatten()
    first = first.expand(*batch, points.shape[-2]).flatten()
    table = coefficients.reshape(-1, coefficients.shape[-1])
    values = {}
    for order in wanted:
        functions = [line[..., k, :, :].reshape(-1, line.shape[-1]) for line, k in zip(lines, order, strict=True)]
        value = _LocalSum.apply(table, first, around, *functions)
        values[order] = value.reshape(*batch, points.shape[-2], -1)  # pyright: ignore[reportAttributeAccessIssue]
    if w is None:
        return [values[order] for order in orders]
    return divide({o: v[..., :-1] for o, v in values.items()}, {o: v[..., -1:] for o, v in values.items()}, orders)


def homogeneous(points: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """w P "*b *n d" and w "*b *n 1", with the same batch; P and None where there are no weights."""
    if weights is None:
        return points, None
    product = points * weights[..., None]
    return product, weights[..., None].expand(*product.shape[:-1], 1)


class _LocalSum(torch.autograd.Function):
    """Σ_{a,c,…} f_a g_c … H[first + around_{ac…}] at each point, "q D": table "N D", first "q", around "ac…" and
    functions "q a". The rows of the table are gathered in portions, in both passes, and not kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(table: Tensor, first: Tensor, around: Tensor, *functions: Tensor) -> Tensor:
        sizes = [f.shape[1] for f in functions]
        portions = _portions(len(around) * table.shape[-1], first, *functions)
        return torch.cat([_contract(table[at[:, None] + around].unflatten(1, sizes), fs) for at, *fs in portions])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        table, first, around, *functions = ctx.saved_tensors
        sizes = [f.shape[1] for f in functions]
        into_table = torch.zeros_like(table) if ctx.needs_input_grad[0] else None
        into_functions: list[list[Tensor]] = [[] for _ in functions]
        for at, grad, *local in _portions(len(around) * table.shape[-1], first, grads[0], *functions):
            rows = at[:, None] + around
            if into_table is not None:
                contributions = (_outer(local).flatten(1)[..., None] * grad[:, None]).flatten(0, 1)
                into_table = into_table.index_add(0, rows.flatten(), contributions)
            if any(ctx.needs_input_grad[3:]):
                pairing = (table[rows] @ grad[..., None]).unflatten(1, sizes)  # "q a c … 1"
                for axis, parts in enumerate(into_functions):
                    moved = pairing.movedim(axis + 1, -1)
                    parts.append(_contract(moved, [f for other, f in enumerate(local) if other != axis])[:, 0])
        return into_table, None, None, *(torch.cat(parts) if parts else None for parts in into_functions)


def _portions(width: int, *tensors: Tensor):
    """The tensors, cut along their points, at each of which `width` numbers are gathered."""
    return zip(*(tensor.split(at_a_time(width, tensors[-1])) for tensor in tensors), strict=True)


def _contract(values: Tensor, functions: Sequence[Tensor]) -> Tensor:
    """Σ_{a,c,…} f_a g_c … V_{ac…} for values "q a c … D"."""
    for f in functions:
        values = (f[:, None] @ values.flatten(2))[:, 0].unflatten(1, values.shape[2:])
    return values


def _outer(functions: Sequence[Tensor]) -> Tensor:
    result = functions[0]
    for f in functions[1:]:
        result = result[..., None] * f.reshape(len(f), *[1] * (result.ndim - 1), -1)
    return result
