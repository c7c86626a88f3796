"""What curves, surfaces and volumes share: the tensors that define them, evaluation, and change of representation."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.bspline import check_dtype, check_knots, uniform_knots
from fem.reference.rational import MultiIndex
from fem.support.arithmetic import common_batch
from fem.support.checks import check_numbers, is_integer, shown
from nurbs.geometry.directions import UVW, continued, per_direction
from nurbs.geometry.evaluation import evaluate_grid, evaluate_scattered, homogeneous
from nurbs.geometry.learned import LearnedPatch

AnyPatch = TypeVar("AnyPatch", bound="Patch")
KnotGradient = Literal["exact", "gaussian"]


@dataclass(frozen=True, init=False, eq=False)
class Patch:
    """A map S(u) = Σ_i w_i P_i N_i(u) / Σ_i w_i N_i(u) from a box of parameters: `Curve`, `Surface` or `Volume`.

    The tensors are used as they are, so that gradients flow to what is passed in. Leading axes are a batch; control
    points, weights, knots and parameters broadcast against each other, and each item may have knots of its own.

    Args:
        control_points: "*b *n d", Euclidean (not multiplied by their weights), one axis *n per direction.
        weights: "*b *n", positive; None for a polynomial patch.
        knots: per direction "*b n+p+1", not decreasing, at most p + 1 equal ones; clamped or not. None, for
            all or for one direction: clamped with equal spans on [0, 1]. In a periodic direction one period, "*b n+1".
        degree: per direction, 0 or more; one integer for all of them.
        periodic: per direction; a periodic direction has no ends, and any real number is a parameter of it.
        knot_gradient: "exact" differentiates the Cox–de Boor recursion on the span of each parameter, which is the
            derivative in the knots almost everywhere for degrees ≥ 1:

                ∂C/∂t_j = Σ_{i=j-p}^{j} Ñ_i (P_{i-1} - P_i) / (t_{i+p} - t_i),    Ñ on the knots with t_j once more.

            At degree 0 the map is constant on each span and this derivative is zero. "gaussian" adds what smoothing
            the box functions by a Gaussian of standard deviation `sigma` leaves of their jumps,

                (C⁻ - C⁺)(u) G_σ(u - t_j),    C⁻ and C⁺ the polynomial pieces left and right of the inner knot t_j.

            It converges to the exact derivative as σ → 0 for degrees ≥ 1 and gives a useful direction at degree 0; it
            is there for this and for comparison. (The matrix rule U' = N·U, Algorithm 1 of Cho et al., 2021, is no
            gradient: its direction has nothing to do with the derivative. Their smoothing, by the chain rule, is the
            one above.)
        sigma: standard deviation for "gaussian", in units of the parameter.
        sides: names of the ends of the parameter ranges, (start of u, end of u, start of v, …), for boundary
            conditions; "left", "right", "bottom", "top", "back", "front" without them.
        check_finite: look at the values: NaN, infinity, decreasing knots, weights that are not positive, and
            parameters outside the range are errors. This synchronises a GPU; False leaves it out, and parameters
            outside the range then extrapolate the first or last polynomial piece.

    Raises:
        TypeError: tensors that differ in dtype or are not floating point.
        ValueError: shapes, knots, weights or values as above.
    """

    control_points: Float[Tensor, "..."]
    weights: Float[Tensor, "..."] | None
    knots: tuple[Float[Tensor, "..."], ...]
    degree: tuple[int, ...]
    periodic: tuple[bool, ...]
    knot_gradient: KnotGradient
    sigma: float | None
    check_finite: bool
    sides: tuple[str, ...] | None

    directions: ClassVar[int]

    def __init__(
        self,
        control_points: Float[Tensor, "..."],
        weights: Float[Tensor, "..."] | None = None,
        knots: Float[Tensor, "..."] | Sequence[Float[Tensor, "..."] | None] | None = None,
        degree: int | Sequence[int] = 3,
        *,
        periodic: bool | Sequence[bool] = False,
        knot_gradient: KnotGradient = "exact",
        sigma: float | None = None,
        check_finite: bool = True,
        sides: Sequence[str] | None = None,
    ):
        r, kind = self.directions, type(self).__name__
        if not isinstance(control_points, Tensor) or not control_points.is_floating_point():
            got = control_points.dtype if isinstance(control_points, Tensor) else shown(control_points)
            raise TypeError(f"`control_points` must be a floating point tensor; got {got}. Convert them.")
        if control_points.ndim < r + 1:
            raise ValueError(
                f"`{kind}(control_points)` needs {r} axes of points and one of coordinates, after any batch axes; "
                f"got shape {tuple(control_points.shape)}."
            )
        shape = control_points.shape[-r - 1 : -1]
        degree = per_direction("degree", degree, r, kind, int)
        periodic = per_direction("periodic", periodic, r, kind, bool)
        for axis, (n, p) in enumerate(zip(shape, degree, strict=True)):
            if p < 0 or n < p + 1:
                raise ValueError(
                    f"`{kind}` of degree {p} in {UVW[axis]} needs a degree >= 0 and at least degree + 1 control "
                    f"points there; got {n} of them (shape {tuple(control_points.shape)})."
                )
        knots = (None,) * r if knots is None else tuple(knots) if isinstance(knots, Sequence) else (knots,)
        if len(knots) != r:
            raise ValueError(f"`{kind}` needs {r} knot vector(s), one per direction; got {len(knots)}.")
        like = {"dtype": control_points.dtype, "device": control_points.device}
        knots = tuple(
            t if t is not None else torch.linspace(0, 1, n + 1, **like) if closed else uniform_knots(n, p, **like)
            for t, n, p, closed in zip(knots, shape, degree, periodic, strict=True)
        )
        if knot_gradient not in ("exact", "gaussian") or (knot_gradient == "gaussian") != (sigma is not None):
            raise ValueError(
                '`knot_gradient` must be "exact", or "gaussian" together with `sigma`; '
                f"got {knot_gradient!r} with sigma={sigma}."
            )
        check_numbers(kind, "positive", optional=True, sigma=sigma)
        if sides is not None and (not isinstance(sides, list | tuple) or len(sides) != 2 * r):
            raise ValueError(f"`{kind}(sides=...)` names {2 * r} ends of parameter ranges; got {sides!r}.")
        sides = None if sides is None else tuple(sides)
        values = (control_points, weights, knots, degree, periodic, knot_gradient, sigma, check_finite, sides)
        for field, value in zip(fields(Patch), values, strict=True):
            object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        kind, shape = type(self).__name__, self.shape
        for name, tensor in [("weights", self.weights), *((f"knots[{a}]", t) for a, t in enumerate(self.knots))]:
            if tensor is not None:
                check_dtype(name, tensor, self.control_points)
        if self.weights is not None and self.weights.shape[-len(shape) :] != shape:
            raise ValueError(
                f"`weights` must have shape (*batch, {', '.join(map(str, shape))}), one per control point; "
                f"got {tuple(self.weights.shape)}."
            )
        for axis, (t, n, p, closed) in enumerate(zip(self.knots, shape, self.degree, self.periodic, strict=True)):
            wanted = n + 1 if closed else n + p + 1
            if t.ndim < 1 or t.shape[-1] != wanted:
                raise ValueError(
                    f"{n} control points of {'periodic ' if closed else ''}degree {p} in {UVW[axis]} need {wanted} "
                    f"knots ({'n + 1, one period' if closed else 'n + degree + 1'}); got shape {tuple(t.shape)}."
                )
        try:
            _ = self.batch
        except ValueError as error:
            weights = None if self.weights is None else tuple(self.weights.shape)
            raise ValueError(
                f"The batch axes of a `{kind}` must broadcast; got control points {tuple(self.control_points.shape)}, "
                f"weights {weights}, knots {[tuple(t.shape) for t in self.knots]}."
            ) from error
        if self.check_finite:
            if not (finite := self.control_points.detach().isfinite()).all():
                index = (~finite).nonzero()[0].tolist()
                raise ValueError(
                    f"`control_points` must be finite; got {self.control_points[tuple(index)].item()} at index {index}."
                )
            if self.weights is not None:
                w = self.weights.detach()
                if not (good := (w > 0) & w.isfinite()).all():
                    index = (~good).nonzero()[0].tolist()
                    raise ValueError(
                        f"`weights` must be positive and finite; got {w[tuple(index)].item()} at index {index}."
                    )
            for t, p in zip(self.unwrapped_knots, self.degree, strict=True):
                check_knots(t, p)

    @classmethod
    def from_homogeneous(
        cls: type[AnyPatch],
        homogeneous: Float[Tensor, "..."],
        knots: Float[Tensor, "..."] | Sequence[Float[Tensor, "..."] | None] | None = None,
        degree: int | Sequence[int] = 3,
        rational: bool = True,
        **options,
    ) -> AnyPatch:
        """The patch with control points (w P, w) "*b *n d+1"; `rational=False`: P alone, "*b *n d"."""
        if not rational:
            return cls(homogeneous, None, knots, degree, **options)
        w = homogeneous[..., -1]
        return cls(homogeneous[..., :-1] / w[..., None], w, knots, degree, **options)

    @property
    def homogeneous(self) -> Float[Tensor, "..."]:
        """(w P, w) "*b *n d+1"; P itself, "*b *n d", for a polynomial patch (`weights` is None)."""
        points, w = homogeneous(self.control_points, self.weights)
        return points if w is None else torch.cat([points, w], -1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Control points per direction, those of one period where periodic."""
        return tuple(self.control_points.shape[-self.directions - 1 : -1])

    @property
    def dim(self) -> int:
        return self.control_points.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        return self.control_points.dtype

    @property
    def device(self) -> torch.device:
        return self.control_points.device

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes of control points, weights and knots, broadcast."""
        shapes = [self.control_points.shape[: -self.directions - 1], *(t.shape[:-1] for t in self.knots)]
        if self.weights is not None:
            shapes.append(self.weights.shape[: -self.directions])
        return common_batch(*shapes)

    @cached_property
    def unwrapped_knots(self) -> tuple[Float[Tensor, "..."], ...]:
        """Knot vectors "*b n+p+1" as the recursion needs them; periodic ones continued by p spans at both ends."""
        return tuple(
            continued(t, p) if closed else t
            for t, p, closed in zip(self.knots, self.degree, self.periodic, strict=True)
        )

    def unwrapped(self: AnyPatch) -> AnyPatch:
        """The same patch without periodic directions: the first p control points repeated at the end."""
        if not any(self.periodic):
            return self
        return self.replace(
            control_points=self._wrap(self.control_points, 1),
            weights=None if self.weights is None else self._wrap(self.weights, 0),
            knots=self.unwrapped_knots,
            periodic=False,
        )

    def _wrap(self, values: Tensor, trailing: int) -> Tensor:
        for axis, (p, closed) in enumerate(zip(self.degree, self.periodic, strict=True)):
            if closed and p:
                where = axis - self.directions - trailing
                values = torch.cat([values, values.narrow(where, 0, p)], where)
        return values

    def domain(self) -> tuple[tuple[Float[Tensor, "..."], Float[Tensor, "..."]], ...]:
        """Start and end of the parameters per direction, "*b" each: [t_p, t_n]."""
        return tuple((t[..., p], t[..., -p - 1]) for t, p in zip(self.unwrapped_knots, self.degree, strict=True))

    def replace(self: AnyPatch, **changes) -> AnyPatch:
        """This patch with some of its arguments changed."""
        return type(self)(**{f.name: getattr(self, f.name) for f in fields(Patch)} | changes)

    def to(self: AnyPatch, *args, **kwargs) -> AnyPatch:
        """This patch with its tensors moved or converted as by `Tensor.to`."""
        weights = None if self.weights is None else self.weights.to(*args, **kwargs)
        knots = tuple(t.to(*args, **kwargs) for t in self.knots)
        return self.replace(control_points=self.control_points.to(*args, **kwargs), weights=weights, knots=knots)

    def detach(self: AnyPatch) -> AnyPatch:
        weights = None if self.weights is None else self.weights.detach()
        knots = tuple(t.detach() for t in self.knots)
        return self.replace(control_points=self.control_points.detach(), weights=weights, knots=knots)

    def learn(self: AnyPatch, *names: str, floor: float = 1e-4) -> LearnedPatch[AnyPatch]:
        """A module that owns some of "control_points", "weights" and "knots" as parameters; see `LearnedPatch`.

        Args:
            floor: no knot span that is not empty becomes shorter than this times the mean one.
        """
        return LearnedPatch(self, *names, floor=floor)

    def __repr__(self) -> str:
        batch = f"{tuple(self.batch)} × " if self.batch else ""
        kind = ("rational " if self.weights is not None else "") + ("periodic " if any(self.periodic) else "")
        points = " × ".join(map(str, self.shape))
        degree = self.degree[0] if self.directions == 1 else self.degree
        return f"{type(self).__name__}({batch}{points} control points in {self.dim}-D, {kind}degree {degree})"

    def __getitem__(self: AnyPatch, item) -> AnyPatch:
        """Items of the batch."""
        r, batch = self.directions, self.batch

        def pick(tensor: Tensor, own: int) -> Tensor:
            return tensor.expand(*batch, *tensor.shape[tensor.ndim - own :])[item]

        if not batch:
            raise IndexError(f"This `{type(self).__name__}` has no batch axes to index.")
        return self.replace(
            control_points=pick(self.control_points, r + 1),
            weights=None if self.weights is None else pick(self.weights, r),
            knots=tuple(pick(t, 1) for t in self.knots),
        )

    def __call__(self, *parameters: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Points on the tensor grid of the parameters ("*b q" per direction): "*b *q d".

        Raises:
            TypeError: parameters of another dtype.
            ValueError: parameters outside the range, or not one tensor per direction.
        """
        return self.derivatives(*parameters, orders=[(0,) * self.directions])[0]

    def at(self, points: Float[Tensor, "*#b q r"]) -> Float[Tensor, "*b q d"]:
        """Points at scattered parameters; errors as for `__call__`."""
        return self.derivatives_at(points, orders=[(0,) * self.directions])[0]

    def derivative(self, *parameters: Float[Tensor, "..."], order: int | Sequence[int]) -> Float[Tensor, "..."]:
        """The derivative of that order in each direction, on the tensor grid of the parameters: "*b *q d".

        Across a knot of multiplicity k derivatives above p - k jump; the value is the one from the right.
        """
        return self.derivatives(*parameters, orders=[self._order(order)])[0]

    def derivative_at(self, points: Float[Tensor, "*#b q r"], order: int | Sequence[int]) -> Float[Tensor, "*b q d"]:
        """The derivative of that order in each direction at scattered parameters."""
        return self.derivatives_at(points, orders=[self._order(order)])[0]

    def derivatives(
        self, *parameters: Float[Tensor, "..."], orders: Sequence[MultiIndex]
    ) -> list[Float[Tensor, "..."]]:
        """Several derivatives on the tensor grid at the price of little more than one."""
        if len(parameters) != self.directions:
            raise ValueError(
                f"A `{type(self).__name__}` takes {self.directions} tensor(s) of parameters; got {len(parameters)}."
            )
        return self._evaluate(evaluate_grid, [self.wrapped(u, axis) for axis, u in enumerate(parameters)], orders)

    def derivatives_at(
        self, points: Float[Tensor, "*#b q r"], orders: Sequence[MultiIndex]
    ) -> list[Float[Tensor, "..."]]:
        """Several derivatives at scattered parameters."""
        if points.ndim < 2 or points.shape[-1] != self.directions:
            raise ValueError(
                f"Scattered parameters of a `{type(self).__name__}` have shape (*batch, q, {self.directions}); "
                f"got {tuple(points.shape)}."
            )
        if any(self.periodic):
            points = torch.stack([self.wrapped(u, axis) for axis, u in enumerate(points.unbind(-1))], -1)
        return self._evaluate(evaluate_scattered, points, orders)

    def jacobian(self, *parameters: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """∂S_d/∂u_r on the tensor grid of the parameters, "*b *q d r"."""
        return torch.stack(self.derivatives(*parameters, orders=self._units), -1)

    def jacobian_at(self, points: Float[Tensor, "*#b q r"]) -> Float[Tensor, "*b q d r"]:
        """∂S_d/∂u_r at scattered parameters."""
        return torch.stack(self.derivatives_at(points, orders=self._units), -1)

    @property
    def _units(self) -> list[MultiIndex]:
        return [tuple(int(r == axis) for r in range(self.directions)) for axis in range(self.directions)]

    def _evaluate(self, evaluate, parameters, orders: Sequence[MultiIndex]) -> list[Tensor]:
        given = parameters if isinstance(parameters, list) else [parameters]
        for u in given:
            check_dtype("parameters", u, self.control_points)
        patch = self._open
        return evaluate(
            patch.control_points,
            patch.weights,
            patch.knots,
            patch.degree,
            parameters,
            [self._order(order) for order in orders],
            self.sigma,
            self.check_finite,
        )

    @cached_property
    def _open(self: AnyPatch) -> AnyPatch:
        return self.unwrapped()

    def wrapped(self, u: Tensor, axis: int) -> Tensor:
        """Parameters of a periodic direction brought into its first period."""
        if not self.periodic[axis]:
            return u
        start, end = (bound[..., None] for bound in self.domain()[axis])
        u = u - ((u - start) / (end - start)).detach().floor() * (end - start)
        return u + (u.clamp(start, end) - u).detach()  # round-off may have left the period; the derivative stays 1

    def _order(self, order: int | Sequence[int]) -> MultiIndex:
        orders = tuple(order) if isinstance(order, Sequence) else (order,)
        if len(orders) != self.directions or not all(is_integer(k, 0) for k in orders):
            raise ValueError(f"`order` must be {self.directions} integer(s) >= 0, one per direction; got {order!r}.")
        return orders


def check_patch(call: str, patch: Any, kind: type[Patch] = Patch) -> None:
    """Raise where the argument of a call is no patch of this kind.

    Raises:
        TypeError: with the remedy where it is a module that learns a patch.
    """
    if not isinstance(patch, kind):
        wanted = "`Curve`, `Surface` or `Volume`" if kind is Patch else f"`{kind.__name__}`"
        remedy = " Give its `.patch`." if isinstance(patch, LearnedPatch) else ""
        raise TypeError(f"`{call}` takes a {wanted}; got {shown(patch)}.{remedy}")
