"""B-splines and rational B-splines: knots, spans and the Cox–de Boor recursion.

A knot vector t_0 ≤ … ≤ t_{m-1} and a degree p carry m - p - 1 basis functions, piecewise polynomials of degree p that
are C^{p-k} at a knot of multiplicity k. On the non-empty span [t_i, t_{i+1}) exactly p + 1 of them live, N_{i-p} to
N_i, and the recursion gives these from the 2p knots around the span. Which span a parameter lies in is an integer and
carries no gradient; on a frozen span all else is a rational function of the parameter and the knots, and is
differentiated as such. Every width in the recursion then contains the span itself, so that repeated knots never divide
by zero. Knots may differ per batch item; the only loop is the one over the degree.

Source: L. Piegl, W. Tiller, *The NURBS Book*, 2nd ed., Springer 1997 (equation and algorithm numbers below);
C. de Boor, *A Practical Guide to Splines*, Springer 2001.
"""

from math import pi, sqrt
from typing import Any

import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

from fem.support.arithmetic import common_batch
from fem.support.checks import shown


def uniform_knots(
    num_basis: int, degree: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Float[Tensor, "{num_basis+degree+1}"]:
    """The clamped knot vector on [0, 1] with equal spans: 0 and 1 repeated p + 1 times, simple knots between.

    Raises:
        ValueError: negative degree, or fewer than degree + 1 basis functions.
    """
    if degree < 0 or num_basis < degree + 1:
        raise ValueError(
            f"`uniform_knots(num_basis, degree)` needs degree >= 0 and num_basis >= degree + 1; "
            f"got num_basis={num_basis}, degree={degree}."
        )
    breakpoints = torch.linspace(0, 1, num_basis - degree + 1, dtype=dtype, device=device)
    return torch.cat([breakpoints[:1].expand(degree), breakpoints, breakpoints[-1:].expand(degree)])


def check_knots(knots: Shaped[Tensor, "*b m"], degree: int, num_basis: int | None = None) -> None:
    """Check that the knots carry a basis of this degree (and of `num_basis` functions); reads values: syncs a GPU.

    Raises:
        ValueError: knots that are not floating point, too few, not finite, decreasing, with an empty parameter range
            [t_p, t_{m-p-1}], or repeated more than degree + 1 times (a basis function would vanish identically).
    """
    if not knots.is_floating_point():
        raise ValueError(f"`knots` must be floating point; got {knots.dtype}. Convert with `knots.double()`.")
    _check_length(knots, degree)
    if num_basis is not None and knots.shape[-1] != num_basis + degree + 1:
        raise ValueError(
            f"{num_basis} basis functions of degree {degree} need {num_basis + degree + 1} knots "
            f"(num_basis + degree + 1); got {knots.shape[-1]}."
        )
    t, p = knots.detach(), degree
    start, end = _range(t, p)
    rules = (  # where broken, the rule, the remedy, and which knots to show
        (~t.isfinite(), "be finite", "Remove NaN and infinity", 0, 1),
        (t.diff() < 0, "not decrease", "Sort them, or learn positive spans and take their cumulative sum", 0, 2),
        (start == end, f"span a range [knots[{p}], knots[-{p + 1}]]", "Give two different knots there", p, 2),
        (t[..., p + 1 :] == t[..., : -p - 1], f"repeat at most {p + 1} times", "Remove the surplus knots", 0, p + 2),
    )
    for broken, rule, remedy, offset, count in rules:
        if broken.any():
            *item, i = _first(broken)
            i += offset
            shown = t[(*item, slice(i, i + count))].tolist()
            raise ValueError(f"`knots` of degree {p} must {rule}; got {shown} from index {[*item, i]} on. {remedy}.")


def find_span(
    knots: Float[Tensor, "*#b m"], degree: int, u: Float[Tensor, "*#b q"], check: bool = True
) -> Int64[Tensor, "*b q"]:
    """The index i with t_i ≤ u < t_{i+1} and p ≤ i < m - p - 1 (The NURBS Book, A2.1); no gradient.

    Spans are half-open; the end of the range belongs to the last non-empty span. The check synchronises a GPU; with
    `check=False` parameters outside the range get the first or last non-empty span: polynomial extrapolation.

    Raises:
        TypeError: `u` and `knots` differ in dtype.
        ValueError: too few knots; a parameter outside [t_p, t_{m-p-1}].
    """
    _check_length(knots, degree)
    check_dtype("u", u, knots)
    batch = common_batch(knots.shape[:-1], u.shape[:-1])
    t, u = knots.detach(), u.detach().expand(*batch, -1).contiguous()
    start, end = _range(t, degree)
    if check and (bad := ~((u >= start) & (u <= end))).any():
        index = _first(bad)
        lower, upper = (bound.expand(*batch, 1)[index[:-1]].item() for bound in (start, end))
        raise ValueError(
            f"`u` must lie in the range of the knots, [{lower}, {upper}]; got {u[index].item()} "
            f"at index {list(index)}. Clamp it, or choose knots that cover it."
        )
    t = (t.expand(*batch, -1) if t.ndim > 1 else t).contiguous()  # a single knot vector serves any batch of u
    start, end = (bound.contiguous() for bound in _range(t, degree))
    first, last = torch.searchsorted(t, start, right=True) - 1, torch.searchsorted(t, end) - 1
    return (torch.searchsorted(t, u, right=True) - 1).clamp(first, last)


def basis_functions(
    knots: Float[Tensor, "*#b m"],
    degree: int,
    u: Float[Tensor, "*#b q"],
    derivatives: int = 0,
    span: Int[Tensor, "*#b q"] | None = None,
) -> Float[Tensor, "*b {derivatives+1} q {degree+1}"]:
    """The p + 1 functions N_{i-p}, …, N_i that live on the span i of u, and their derivatives in u, "*b order q a".

        N_{j,p}(u)  = (u - t_j) / (t_{j+p} - t_j) N_{j,p-1}(u) + (t_{j+p+1} - u) / (t_{j+p+1} - t_{j+1}) N_{j+1,p-1}(u)
        N'_{j,p}(u) = p N_{j,p-1}(u) / (t_{j+p} - t_j) - p N_{j+1,p-1}(u) / (t_{j+p+1} - t_{j+1})

    (The NURBS Book, eqs. 2.5 and 2.9; A2.2 in the order of its operations, so that clamped ends are exact.)
    Differentiable in `u` and `knots`. `span` defaults to `find_span(knots, degree, u)`; a span given by the caller
    must not be empty, and is not checked.

    Raises:
        TypeError: `u` and `knots` differ in dtype.
        ValueError: too few knots; a parameter outside the range; negative order.
    """
    if derivatives < 0:
        raise ValueError(f"`derivatives` must be 0 or more; got {derivatives}.")
    check_dtype("u", u, knots)
    span = find_span(knots, degree, u) if span is None else span
    around = torch.arange(1 - degree, degree + 1, device=knots.device)
    t = _gather(knots, span[..., None] + around)  # t_{i-p+1}, …, t_{i+p}: "*b q 2p"
    u = u[..., None]
    one = torch.ones(common_batch(t.shape[:-1], u.shape[:-1]), dtype=u.dtype, device=u.device)[..., None]
    orders = [one] + [torch.zeros_like(one)] * derivatives
    for d in range(1, degree + 1):
        low, high = t[..., degree - d : degree], t[..., degree : degree + d]
        scaled = [order / (high - low) for order in orders]  # high - low ≥ t_{i+1} - t_i > 0
        value = pad((high - u) * scaled[0], (0, 1)) + pad((u - low) * scaled[0], (1, 0))
        orders = [value] + [d * (pad(lower, (1, 0)) - pad(lower, (0, 1))) for lower in scaled[:-1]]
    return torch.stack(orders, -3)


def greville(knots: Float[Tensor, "*b m"], degree: int) -> Float[Tensor, "*b n"]:
    """Greville abscissae g_i = (t_{i+1} + … + t_{i+p}) / p, for which Σ_i g_i N_i(u) = u; span midpoints for p = 0."""
    _check_length(knots, degree)
    return (knots[..., 1:-1].unfold(-1, degree, 1) if degree else knots.unfold(-1, 2, 1)).mean(-1)


def basis_change(
    knots: Float[Tensor, "*#b m"], degree: int, new_knots: Float[Tensor, "*#b k"], new_degree: int | None = None
) -> Float[Tensor, "*b j i"]:
    """The matrix A "*b j i" that writes a spline on other knots, of equal or higher degree, of a space that holds it.

        Σ_i c_i N_i = Σ_j (A c)_j M_j,    (A c)_j = f(s_{j+1}, …, s_{j+q})

    with the blossom f of the polynomial piece next to s_j: the multi-affine symmetric function with f(u, …, u) = c(u)
    (Ramshaw 1989). With one argument per step the recursion of `basis_functions` yields the row of f; for q > p a
    blossom of degree q is the mean of that of degree p over the p-subsets of its arguments, gathered on the way by
    mean_{i+1,d+1} = (d+1)/(i+1) step(mean_{i,d}) + (i-d)/(i+1) mean_{i,d+1}. One rule thus inserts knots, raises
    degrees, cuts off and clamps, exactly up to round-off: rows are convex combinations where the new knots include the
    old. Differentiable in both knot vectors; loops run over degrees only. The parameter range may shrink.

    Source: L. Ramshaw, *Blossoms are polar forms*, CAGD 6 (1989); E. Cohen, T. Lyche, R. Riesenfeld, CGIP 14 (1980),
    for the choice of the piece.

    Raises:
        TypeError: the knot vectors differ in dtype.
        ValueError: a lower degree, a range outside the old one, or an old knot that the new ones lack.
    """
    p, q, t, s = degree, degree if new_degree is None else new_degree, knots, new_knots
    check_dtype("new_knots", s, t)
    _check_length(t, p)
    _check_length(s, q)
    _check_nested(t.detach(), p, s.detach(), q)
    n, num = t.shape[-1] - p - 1, s.shape[-1] - q - 1
    start, _ = _range(s, q)
    span = find_span(t, p, torch.maximum(s[..., :num], start), check=False)
    around = _gather(t, span[..., None] + torch.arange(1 - p, p + 1, device=t.device))  # "*b j 2p"
    mean = {0: torch.ones_like(around[..., :1]) if p else torch.ones_like(span[..., None], dtype=t.dtype)}
    for i in range(q):
        argument = s[..., i + 1 : i + 1 + num, None]
        for d in reversed(range(max(0, p - q + i), min(i + 1, p))):  # means that p arguments can still grow from
            low, high = around[..., p - d - 1 : p], around[..., p : p + d + 1]
            left, right = (high - argument) / (high - low), (argument - low) / (high - low)
            row = pad(left * mean[d], (0, 1)) + pad(right * mean[d], (1, 0))
            share = (d + 1) / (i + 1)
            mean[d + 1] = share * row + (1 - share) * mean[d + 1] if d < i else row
    index = span[..., None] + torch.arange(-p, 1, device=t.device)
    return t.new_zeros(*index.shape[:-1], n).scatter(-1, index, mean[p].expand(index.shape))


def _gather(knots: Tensor, index: Tensor) -> Tensor:
    """knots[..., index] for an index "*b q j"; one knot vector for the whole batch is not copied."""
    if knots.ndim > 1:
        batch = common_batch(knots.shape[:-1], index.shape[:-2])
        knots, index = knots.expand(*batch, -1), index.expand(*batch, -1, -1)
    return knots.gather(-1, index.reshape(*knots.shape[:-1], -1)).reshape(index.shape)


def _range(knots: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Start and end "*b 1" of the parameter range [t_p, t_{m-p-1}]."""
    last = knots.shape[-1] - degree - 1
    return knots[..., degree : degree + 1], knots[..., last : last + 1]


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _check_nested(t: Tensor, p: int, s: Tensor, q: int) -> None:
    """A knot that is there m times breaks the derivative of order p - m + 1; in degree q that takes m + q - p."""
    if q < p:
        raise ValueError(f"`basis_change` does not lower the degree; got new_degree={q} < degree={p}.")
    batch = common_batch(t.shape[:-1], s.shape[:-1])
    t, s = (x.expand(*batch, -1).contiguous() for x in (t, s))
    (old_start, old_end), (start, end) = _range(t, p), _range(s, q)
    if ((start < old_start) | (end > old_end)).any():
        raise ValueError("The range of `new_knots` must lie in that of `knots`. Choose knots inside.")
    times, there = (torch.searchsorted(x, t, right=True) - torch.searchsorted(x, t) for x in (t, s))
    if (lost := (t > start) & (t < end) & (there < times + q - p)).any():
        i = _first(lost)
        raise ValueError(
            f"`new_knots` of degree {q} must hold the knot {t[i].item()} at least {times[i].item() + q - p} times to "
            f"keep a spline of degree {p}; got {there[i].item()}. Add it."
        )


def _check_length(knots: Tensor, degree: int) -> None:
    if degree < 0:
        raise ValueError(f"`degree` must be 0 or more; got {degree}.")
    if knots.shape[-1] < 2 * (degree + 1):
        raise ValueError(
            f"`knots` of degree {degree} must be at least 2 (degree + 1) = {2 * (degree + 1)}; got {knots.shape[-1]}."
        )


def check_dtype(name: str, given: Any, reference: Tensor) -> None:
    """Raise where an argument is no tensor, or one of another dtype."""
    if not isinstance(given, Tensor):
        raise TypeError(f"`{name}` must be a tensor of {reference.dtype}; got {shown(given)}.")
    if given.dtype != reference.dtype:
        raise TypeError(f"`{name}` must be {reference.dtype} like the rest; got {given.dtype}. Convert one of them.")


def basis_matrix(
    knots: Float[Tensor, "*#b m"],
    degree: int,
    u: Float[Tensor, "*#b q"],
    order: int = 0,
    sigma: float | None = None,
    check: bool = True,
) -> Float[Tensor, "*b {order+1} q n"]:
    """All functions and their derivatives at u; only the p + 1 that live on the span of each u are evaluated.

    With `sigma`, the derivatives in the knots are those of the Gaussian smoothing; see `Patch`.
    """
    span = find_span(knots, degree, u, check)
    values = basis_functions(knots, degree, u, order, span)
    index = _local(span, degree)
    if sigma is not None:
        extra, where = _smoothed_jumps(knots, degree, u, order, sigma)
        values, index = torch.cat([values, extra], -1), torch.cat([index, where], -1)
    matrix = values.new_zeros(*values.shape[:-1], knots.shape[-1] - degree - 1)
    return matrix.scatter_add(-1, index.unsqueeze(-3).expand(values.shape), values)


def _smoothed_jumps(
    knots: Tensor, degree: int, u: Tensor, order: int, sigma: float
) -> tuple[Float[Tensor, "*b k q ja"], Int64[Tensor, "*b q ja"]]:
    """Terms of value 0 whose derivative in t_j is (N⁻ - N⁺)(u) G_σ(u - t_j): the Gaussian in the place of the δ that
    the box functions 1_{[t_i, t_{i+1})} leave, with N⁻ and N⁺ the polynomial pieces left and right of the knot."""
    batch = common_batch(knots.shape[:-1], u.shape[:-1])
    knots, v = knots.expand(*batch, -1).contiguous(), u.detach().expand(*batch, -1)
    t = knots.detach()
    inner = slice(degree + 1, t.shape[-1] - degree - 1)
    moving = (knots - t)[..., None, inner]
    at = t[..., inner].contiguous()
    left, right = torch.searchsorted(t, at) - 1, torch.searchsorted(t, at, right=True) - 1
    ends = t[..., degree : degree + 1], t[..., -degree - 1 :][..., :1]
    first, last = at.diff(prepend=ends[0]) > 0, at.diff(append=ends[1]) > 0  # of equal knots the outer ones jump
    gauss = torch.exp(-((v[..., :, None] - at[..., None, :]) ** 2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))
    terms, where = [], []
    for span, counts, sign in ((left, first, 1), (right, last, -1)):
        q, j = v.shape[-1], at.shape[-1]
        spans = span.clamp(degree, t.shape[-1] - degree - 2)[..., None, :].expand(*batch, q, j)
        pieces = basis_functions(t, degree, v[..., None].expand(*batch, q, j).flatten(-2), order, spans.flatten(-2))
        factor = sign * gauss * counts[..., None, :] * moving
        terms.append((pieces.unflatten(-2, (q, j)) * factor[..., None, :, :, None]).flatten(-2))
        where.append(_local(spans, degree).flatten(-2))
    return torch.cat(terms, -1), torch.cat(where, -1)


def _local(span: Tensor, degree: int) -> Tensor:
    """Indices of the p + 1 functions that live on each span."""
    return span[..., None] + torch.arange(-degree, 1, device=span.device)
