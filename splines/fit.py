"""Piecewise polynomials with free break points: a fit, and the same as a layer."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fem.support.checks import check_flags, check_kind, is_integer, named_options
from fem.support.modes import outside_modes
from fem.support.status import Status, check_fit, nest, worst
from fem.support.transforms import mapped, plainly, transformed
from splines.partition import Wish, partition
from splines.pieces import Pieces
from splines.projection import SquaredError, project

HIGHEST = 5


@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseFit:
    """The best piecewise polynomial h of a signal x, or a good one.

    Attributes:
        values: h at the samples, "*b n", or "*b n c" for vectors.
        breakpoints: 0 = t_0 < t_1 < …, "*b k+1": piece j holds the samples t_j ≤ i < t_{j+1}; padded with n where there
            are fewer than k pieces. Integers: nothing differentiates through them.
        coefficients: "*b k degree+1", or "*b k degree+1 c", in the polynomials orthonormal on the samples of each piece
            (`splines.orthonormal`); zeros for pieces that are not there.
        error: Σ_i w_i (x_i − h_i)², "*b", over all components.
    """

    values: Float[Tensor, "*shape"]
    breakpoints: Int[Tensor, "*b t"]
    coefficients: Float[Tensor, "*rest"]
    error: Float[Tensor, "*b"]

    @property
    def num_pieces(self) -> Int[Tensor, "*b"]:
        """How many pieces there are."""
        return (self.breakpoints.diff() > 0).sum(-1)

    @property
    def status(self) -> Any:
        """A `Status`, for a batch nested tuples of them: `CONVERGED`, or `NOT_FINITE` where the error is not.

        Nothing is iterated: "exact" finds the optimum, and "merge" ends with what it does.
        """
        finite = self.error.detach().isfinite()
        return nest(
            [Status.CONVERGED if fine else Status.NOT_FINITE for fine in finite.flatten().tolist()], finite.shape
        )

    def __repr__(self) -> str:
        batch, vector = self.error.shape, self.values.ndim - self.error.ndim > 1
        n, degree = self.values.shape[len(batch)], self.coefficients.shape[-2 if vector else -1] - 1
        signals = f"{' × '.join(map(str, batch))} signals" if batch else "a signal"
        found = ""
        if self.error.numel():
            few, many = (int(x) for x in self.num_pieces.aminmax())
            found = f", {few if few == many else f'{few} to {many}'} pieces, error ≤ {float(self.error.max()):.2e}"
        components = f" of {self.values.shape[-1]} components" if vector else ""
        return f"PiecewiseFit({worst(self.status).name}, {signals} of {n} samples{components}; degree {degree}{found})"


@dataclass(frozen=True, eq=False)
class PiecewiseOptions:
    """The arguments of `fit_piecewise` besides the signal, checked."""

    pieces: int | None
    degree: int | Sequence[int]
    method: str
    penalty: float | None
    max_error: float | None
    min_size: int | None
    vector: bool
    check_finite: bool

    def __post_init__(self):
        name = "fit_piecewise"
        if self.method not in ("exact", "merge"):
            raise ValueError(f'`{name}(method=...)` must be "exact" or "merge"; got {self.method!r}.')
        given = [f for f in ("pieces", "penalty", "max_error") if getattr(self, f) is not None]
        if len(given) != 1:
            got = " and ".join(f"{f}={getattr(self, f)}" for f in given) or "none of them"
            raise ValueError(
                f"`{name}` takes one of `pieces` (their number), `penalty` (what each costs) and `max_error` (for as "
                f"few as reach it); got {got}."
            )
        if self.pieces is not None and not is_integer(self.pieces, 1):
            raise ValueError(f"`{name}(pieces=...)` must be a positive whole number; got {self.pieces!r}.")
        for f in ("penalty", "max_error"):
            value: Any = getattr(self, f)
            number = isinstance(value, Real) or (isinstance(value, Tensor) and value.ndim == 0)
            if value is not None and not (number and 0 <= float(value) < float("inf")):
                raise ValueError(f"`{name}({f}=...)` must be a finite number of at least 0; got {value!r}.")
        degrees = list(self.degree) if isinstance(self.degree, Sequence) else [self.degree]
        if not degrees or any(not is_integer(d, 0) or d > HIGHEST for d in degrees):
            raise ValueError(f"`{name}(degree=...)` must be 0 to {HIGHEST}, one or one per piece; got {self.degree!r}.")
        if isinstance(self.degree, Sequence) and len(degrees) != self.pieces:
            raise ValueError(
                f"`{name}(degree=...)` names {len(degrees)} degrees for pieces={self.pieces}: give one for all, or as "
                "many as `pieces`."
            )
        if self.min_size is not None and (not is_integer(self.min_size) or self.min_size <= max(degrees)):
            raise ValueError(
                f"`{name}(min_size=...)` must exceed the degree, as d + 1 samples determine a polynomial; got min_size "
                f"{self.min_size!r} and degree {max(degrees)}."
            )
        check_flags(name, vector=self.vector, check_finite=self.check_finite)

    def wish(self, n: int) -> Wish:
        """For signals of n samples.

        Raises:
            ValueError: the pieces do not fit in.
        """
        degrees = tuple(self.degree) if isinstance(self.degree, Sequence) else (self.degree,) * (self.pieces or 1)
        least = tuple(self.min_size or d + 1 for d in degrees)
        if sum(least) > n:
            raise ValueError(
                f"{len(degrees)} pieces of at least {max(least)} samples (degree {max(degrees)}) need {sum(least)} "
                f"samples; the signal has {n}. Use fewer pieces or a lower degree."
            )
        penalty, limit = self.penalty, self.max_error
        return Wish(
            degrees, least, -1.0 if penalty is None else float(penalty), float("-inf" if limit is None else limit)
        )


@named_options
def fit_piecewise(
    x: Shaped[Tensor, "*shape"],
    pieces: int | None = None,
    degree: int | Sequence[int] = 1,
    method: str = "exact",
    *,
    penalty: float | None = None,
    max_error: float | None = None,
    min_size: int | None = None,
    weights: Float[Tensor, "*w"] | None = None,
    mask: Bool[Tensor, "*m"] | None = None,
    vector: bool = False,
    check_finite: bool = True,
    throw: bool = True,
) -> PiecewiseFit:
    """Project signals onto piecewise polynomials whose break points are free:

        min over break points t and polynomials p_j of  Σ_j Σ_{t_j ≤ i < t_{j+1}} w_i (x_i − p_j(i))².

    `values`, `coefficients` and `error` differentiate in x to any order: with the break points held, h is the
    orthogonal projection of x onto polynomials on each piece, which is the exact derivative wherever the best partition
    is unique, that is, almost everywhere. Ties are broken the same way each time.

    Args:
        x: signals "*b n", or "*b n c" with `vector` (break points common to the components). A batch is one search.
        pieces: how many at most; all of them are used unless fewer reach the same error.
        degree: 0 to 5, one for all pieces, or a sequence with one for each, from left to right (all are then used).
        method: "exact", the optimum; O(n) to O(n log n) in practice for degree 0, O(k n²) for a given number of pieces
            of higher degrees, and close to linear with a penalty where there are many pieces. "merge", a good partition
            in O(n log n): pairs of blocks are merged, round by round, all but the 2k whose error would grow most, which
            leaves 4k pieces with an error of at most 1 + log₂(n/k) times the optimum of k pieces (plus what blocks of
            2 (degree + 1) samples cost; after Acharya, Diakonikolas, Li and Schmidt, "Fast algorithms for segmented
            regression", 2016); of their breaks and those of binary segmentation the best are chosen by dynamic
            programming, and moved to their best places. On CPUs it is never worse than binary segmentation.
        penalty: in the place of `pieces`: what each piece adds to the error; 2σ² (degree + 2) log n is usual for noise
            of variance σ².
        max_error: in the place of `pieces`: the fewest pieces whose squared error is at most this.
        min_size: least number of (observed) samples of a piece, degree + 1 if not given.
        weights: w ≥ 0, "*b n" or "n".
        mask: True where a sample is observed, "*b n" or "n"; others have weight 0, and may be NaN.
        vector: whether the last axis of x holds components.
        check_finite: look for NaN and infinity; without it they are the caller's affair.
        throw: raise where the fit of a signal fails; False returns it with that status. Only with `check_finite`.

    Raises:
        ConvergenceError: the error of a signal is not finite (it is so large that its squares overflow), unless
            `throw=False`; the fit is its `.solution`.
        TypeError: x is not floating-point.
        ValueError: arguments contradict each other, the signal is empty, too short or not finite, weights are negative.

    On CPUs with a C compiler the search is compiled; else, and on GPUs, it runs in PyTorch, where "merge" refines its
    breaks between neighbours at ever smaller distances and may come out a little different. The search is in double
    precision.
    """
    check_flags("fit_piecewise", throw=throw)
    options = PiecewiseOptions(pieces, degree, method, penalty, max_error, min_size, vector, check_finite)
    fit = fitted(x, options, weights, mask)
    sound = not (throw and check_finite) or mapped(fit.error) or bool(fit.error.isfinite().all())
    return fit if sound else check_fit("fit_piecewise(x)", fit, throw)


class PiecewisePolynomial(nn.Module):
    """`fit_piecewise` as a layer: x ↦ its piecewise-polynomial projection, of the same shape, dtype and device.

    Arguments as there. Backward multiplies by the block-diagonal orthogonal projector of the pieces, in O(n). In a
    network it pays to switch the layer on when the rest has learnt the rough shape: with its break points held, the
    derivative does not tell where they should lie (see `examples/signals/learn_through_projection.py`).
    """

    @named_options
    def __init__(
        self,
        pieces: int | None = None,
        degree: int | Sequence[int] = 1,
        method: str = "exact",
        *,
        penalty: float | None = None,
        max_error: float | None = None,
        min_size: int | None = None,
        vector: bool = False,
        check_finite: bool = True,
    ):
        super().__init__()
        self.options = PiecewiseOptions(pieces, degree, method, penalty, max_error, min_size, vector, check_finite)

    def forward(
        self,
        x: Shaped[Tensor, "*shape"],
        weights: Float[Tensor, "*w"] | None = None,
        mask: Bool[Tensor, "*m"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        return fitted(x, self.options, weights, mask).values

    def extra_repr(self) -> str:
        shown = {f.name: getattr(self.options, f.name) for f in fields(self.options)}
        usual = {"vector": False, "check_finite": True}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items() if v is not None and usual.get(k) != v)


@outside_modes
def fitted(x: Tensor, options: PiecewiseOptions, weights: Tensor | None, mask: Tensor | None) -> PiecewiseFit:
    """The fit itself."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"`fit_piecewise(x)` takes a floating-point tensor; got {got}. `x.double()` makes one.")
    need = 2 if options.vector else 1
    if x.ndim < need or x.numel() == 0:
        axes = '"*b n c"' if options.vector else '"*b n"'
        raise ValueError(f"`fit_piecewise(x)` takes signals {axes} with samples; got shape {tuple(x.shape)}.")
    shape = x.shape[: x.ndim - need + 1]  # "*b n"
    if transformed():
        return fitted_plainly(x, options, weights, mask)
    n, batch = shape[-1], shape[:-1]
    wish = options.wish(n)
    w = weights_of(weights, mask, shape, x)
    y = (x if options.vector else x[..., None]).reshape(-1, n, x.shape[-1] if options.vector else 1)
    if mask is not None:
        y = torch.where(w[..., None] > 0, y, 0)  # type: ignore[index]
    if options.check_finite:
        bad = (~y.detach().isfinite()).nonzero()
        if len(bad):
            item, sample, component = bad[0].tolist()
            where = f"sample {sample}" + (f" of signal {item}" if len(y) > 1 else "")
            where += f", component {component}" if options.vector else ""
            raise ValueError(
                f"`fit_piecewise(x)`: {where} is {float(y[item, sample, component])}, the first of {len(bad)}. Leave "
                "such samples out with `mask=x.isfinite()`."
            )
    y = y.to(torch.float64)
    # Projections reproduce constants: what is left has no offset to lose digits to.
    count = n if w is None else (w > 0).sum(1).clamp(min=1)[:, None, None]
    middle = y.detach().sum(1, keepdim=True) / count
    rest = y - middle if mask is None else torch.where(w[..., None] > 0, y - middle, 0)  # type: ignore[index]
    breaks = partition(rest.detach(), w, wish, options.method)
    count = breaks.shape[1] - 1
    split = Pieces(breaks, (*wish.degrees, *[wish.degrees[-1]] * count)[:count], n, w)
    values, coefficients = project(rest, split)
    error: Any = SquaredError.apply(rest, values, split)
    coefficients = with_constant(coefficients, split, middle)
    values = values + middle
    found = values.reshape(x.shape), coefficients.view(*batch, *coefficients.shape[1:])
    if not options.vector:
        found = found[0], found[1][..., 0]
    return PiecewiseFit(
        found[0].to(x.dtype), breaks.view(*batch, -1), found[1].to(x.dtype), error.view(batch).to(x.dtype)
    )


def fitted_plainly(x: Tensor, options: PiecewiseOptions, weights: Tensor | None, mask: Tensor | None) -> PiecewiseFit:
    """The fit under transformations of PyTorch."""
    names = [f.name for f in fields(PiecewiseFit)]

    def plain(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = iter(rest)
        fit = fitted(x, options, None if weights is None else next(given), None if mask is None else next(given))
        return tuple(getattr(fit, name) for name in names)

    found = plainly(plain, [x, *(t for t in (weights, mask) if t is not None)])
    return PiecewiseFit(**dict(zip(names, found, strict=True)))


def with_constant(c: Tensor, pieces: Pieces, level: Tensor) -> Tensor:
    """Coefficients of h + level: the first polynomial of a piece is 1/√(Σ w)."""
    if pieces.weights is None:
        mass = pieces.breaks.diff().to(c.dtype)
    else:
        mass = pieces.sum(pieces.owners(slice(0, pieces.length)), pieces.weights[..., None])[..., 0]
    first = c[:, :, :1] + mass.sqrt()[:, :, None, None] * level[:, None]
    return torch.cat([first, c[:, :, 1:]], 2)


def weights_of(weights: Any, mask: Any, shape: torch.Size, x: Tensor) -> Tensor | None:
    """Weights "b n" in double precision, 0 where nothing is observed; None for ones."""
    for name, given in (("weights", weights), ("mask", mask)):
        if given is None:
            continue
        check_kind("fit_piecewise", name, given, Tensor, "a tensor, or None")
        if tuple(given.shape) not in (tuple(shape), tuple(shape[-1:])):
            raise ValueError(
                f"`{name}` must have the shape {tuple(shape)} or {tuple(shape[-1:])}; got {tuple(given.shape)}."
            )
        if given.device != x.device:
            raise ValueError(f"`{name}` is on {given.device} and the signal on {x.device}: move one to the other.")
    if weights is None and mask is None:
        return None
    found = torch.ones(shape, dtype=torch.float64, device=x.device)
    if weights is not None:
        if weights.requires_grad:
            raise ValueError("nothing differentiates in `weights`: pass `weights.detach()`.")
        if not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(f"`weights` must be finite and at least 0; got {float(weights.min())} among them.")
        found = found * weights
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"`mask` must be a tensor of bool; got {mask.dtype}.")
        found = found * mask
    return found.reshape(-1, shape[-1])
