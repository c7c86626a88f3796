"""Quotients of splines and their derivatives: what makes a B-spline basis or map a rational one.

    (A/W)_α = (A_α - Σ_{0<β≤α} C(α, β) W_β (A/W)_{α-β}) / W,    α, β multi-indices

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997, eqs. 4.8 and 4.20.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import comb, prod

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import check_dtype

MultiIndex = tuple[int, ...]


def divide(
    numerator: Mapping[MultiIndex, Tensor], denominator: Mapping[MultiIndex, Tensor], orders: Sequence[MultiIndex]
) -> list[Tensor]:
    """Derivatives of A / W from those of A and W, which broadcast, at all multi-indices up to `orders`."""
    known: dict[MultiIndex, Tensor] = {}
    zero = (0,) * len(orders[0])

    def derivative(alpha: MultiIndex) -> Tensor:
        if alpha not in known:
            above = numerator[alpha]
            for beta in lower_orders([alpha]):
                if beta != zero:
                    rest = tuple(a - b for a, b in zip(alpha, beta, strict=True))
                    factor = prod(comb(a, b) for a, b in zip(alpha, beta, strict=True))
                    above = above - factor * denominator[beta] * derivative(rest)
            below = denominator[zero].expand(above.shape)
            known[alpha] = _Quotient.apply(above, below)  # pyright: ignore[reportArgumentType]
        return known[alpha]

    return [derivative(tuple(order)) for order in orders]


def lower_orders(orders: Sequence[MultiIndex]) -> list[MultiIndex]:
    """All multi-indices at or below one of `orders`."""
    return sorted({below for order in orders for below in product(*(range(k + 1) for k in order))})


def quotient(numerator: Sequence[Tensor], denominator: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`divide` for value "… a", gradient "… a r" and second derivatives "… a r s", as many as are wanted.

    `a` counts basis functions or coordinates; `denominator` holds the same without `a`.

    Raises:
        ValueError: the two differ in length, or hold more than three orders.
    """
    if len(numerator) != len(denominator) or not 1 <= len(numerator) <= 3:
        raise ValueError(
            "`quotient(numerator, denominator)` takes the same one to three orders (value, gradient, second "
            f"derivatives) of both; got {len(numerator)} and {len(denominator)}."
        )
    r = numerator[1].shape[-1] if len(numerator) > 1 else 0
    places = [list(product(range(r), repeat=k)) for k in range(len(numerator))]  # (), (r,), (r, s)
    above, below = {}, {}
    for at, A, W in zip(places, numerator, denominator, strict=True):
        above |= {_order(place, r): A[(..., *place)] for place in at}
        below |= {_order(place, r): W[(..., *place)][..., None] for place in at}
    found = dict(zip(above, divide(above, below, list(above)), strict=True))
    shape = numerator[0].shape
    return tuple(
        torch.stack([found[_order(place, r)] for place in at], -1).reshape(*shape, *[r] * k)
        for k, at in enumerate(places)
    )


def normalize(jet: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A / Σ_a A for A given by value "… a", gradient "… a r" and second derivatives "… a r s"."""
    return quotient(jet, [part.sum(-1 - k) for k, part in enumerate(jet)])


def rational(
    values: Float[Tensor, "*#b order q a"], weights: Float[Tensor, "*#b #q a"]
) -> Float[Tensor, "*b order q a"]:
    """The rational basis R_a = w_a N_a / Σ_c w_c N_c and its derivatives (The NURBS Book, eq. 4.2), differentiably.

    `values` are those of `basis_functions` with up to two derivatives, `weights` the weights of the same local
    functions; Σ w N must not vanish, for which positive weights suffice.

    Raises:
        TypeError: `weights` and `values` differ in dtype.
        ValueError: more than two derivatives.
    """
    check_dtype("weights", weights, values)
    orders = (values * weights.unsqueeze(-3)).unbind(-3)
    jet = [order.reshape(*order.shape, *[1] * k) for k, order in enumerate(orders)]
    return torch.stack([part.reshape(orders[0].shape) for part in normalize(jet)], -3)


def _order(place: Sequence[int], r: int) -> MultiIndex:
    """How often each direction is differentiated in an entry (r, s) of the second derivatives."""
    return tuple(place.count(axis) for axis in range(r))


class _Quotient(torch.autograd.Function):
    """A / W for tensors of the same shape, with a backward pass that reads and writes as little as it can."""

    generate_vmap_rule = True

    @staticmethod
    def forward(numerator: Tensor, denominator: Tensor) -> Tensor:
        return numerator / denominator

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[1], output)
        ctx.save_for_forward(inputs[1], output)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        denominator, result = ctx.saved_tensors
        ratio = grads[0] / denominator
        return ratio, -(ratio * result)

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):
        denominator, result = ctx.saved_tensors
        above, below = (torch.zeros_like(result) if t is None else t for t in tangents)
        return (above - result * below) / denominator
