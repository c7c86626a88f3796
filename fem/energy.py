"""Energies and weak forms: integrals of a pointwise expression of x, u and ∇u, as differentiable functions of dofs.

The user writes the density at a point; everything else follows by differentiating the *density* at quadrature points:
the residual from its first derivatives, the Hessian from its second. Nothing differentiates twice through the gather.

Evaluation has two steps. `lower` turns whatever lies outside (mesh nodes, parameters, prescribed values) into tensors
at quadrature points and dofs; the `Lowered` functional works on those alone: the adjoint's explicit inputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fem.assembly import Coefficient, Pattern, element_matrices, make_pattern, scatter_fluxes
from fem.boundary import Constraint, Free
from fem.geometry import Domain, Geometry
from fem.parameters import Constant, Function, Gradient, Parameter, PointValues, at_points
from fem.space import AnySpace, MixedSpace, Slots, sum_of

Density = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Term:
    """One integrand over all cells (tag None) or over tagged facets; `linear_in_test` marks weak forms."""

    density: Density
    tag: str | None
    derivatives: int
    linear_in_test: bool

    @property
    def name(self) -> str:
        kind = "form" if self.linear_in_test else "density"
        return kind if self.tag is None else f"boundary {kind} on {self.tag!r}"


class Functional:
    """What energies and weak forms share: their space, terms and constraint, and evaluation by lowering."""

    linear_in_test = False

    def __init__(
        self,
        space: AnySpace,
        density: Density,
        dirichlet: Constraint | None = None,
        boundary: Mapping[str, Density] | None = None,
        derivatives: int | tuple[int, int] = 1,
    ):
        kind = type(self).__name__
        inner, outer = derivatives if isinstance(derivatives, tuple) else (derivatives, max(derivatives - 1, 0))
        if inner not in (0, 1, 2) or outer not in (0, 1, 2):
            raise ValueError(f"`{kind}(derivatives=...)` must be 0, 1 or 2, or a pair of them; got {derivatives!r}.")
        if not callable(density):
            raise TypeError(f"`{kind}` needs a callable; got {type(density).__name__}.")
        if dirichlet is not None and dirichlet.space is not space:
            raise ValueError(f"`{kind}(dirichlet=...)` belongs to another space; make it on the one given here.")
        self.space = space
        self.constraint: Constraint = Free(space) if dirichlet is None else dirichlet
        self.terms = (Term(density, None, inner, self.linear_in_test),)
        for tag, term in (boundary or {}).items():
            space.domains(tag)  # unknown tags are told now, not at the first evaluation
            self.terms += (Term(term, tag, outer, self.linear_in_test),)
        smooth = min(f.continuity for f in space.fields)
        if max(inner, outer) == 2 and smooth < 1:
            raise ValueError(
                "second derivatives need a basis with continuous first ones, and Lagrange elements have kinks between "
                "cells; use a spline space of degree 2 or more, or a mixed form."
            )

    def lower(self, params: Sequence[Parameter] = ()) -> "Lowered":
        """Everything outside the functional as tensors at quadrature points and dofs.

        Raises:
            ValueError, TypeError: a parameter that does not fit the space (its position named).
        """
        lowered = []
        for term in self.terms:
            for domain in self.space.domains(term.tag):
                geometry = self.space.geometry(domain, max(term.derivatives, 1))
                values = [at_points(p, f"parameter {i}", self.space, domain, geometry) for i, p in enumerate(params)]
                lowered.append(LoweredTerm(term, domain, geometry, tuple(values)))
        return Lowered(self.space, self.constraint, tuple(lowered), self.constraint.data())

    def residual(self, u: Tensor, *params: Parameter) -> Tensor:
        """The first derivative, shaped like the dofs; zero at prescribed dofs."""
        return self.lower(params).residual(self.space.check(u))

    def hessian_product(self, u: Tensor, v: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual at u in the direction v, without a matrix; zero at prescribed dofs."""
        return self.lower(params).hessian_product(self.space.check(u), self.space.check(v, "v"))

    def hessian(self, u: Tensor, *params: Parameter) -> Tensor:
        """The derivative of the residual as `sparse_csr` "*b N N", dofs flattened node-major.

        Rows and columns of prescribed dofs are zero, with ones on the diagonal.
        """
        lowered = self.lower(params)
        return lowered.pattern.csr(lowered.matrix_values(self.space.check(u)))

    def __add__(self, other: "Functional") -> "Functional":
        """The sum of two functionals over one space; both get the same parameters."""
        if type(other) is not type(self) or other.space is not self.space:
            return NotImplemented
        if not isinstance(other.constraint, Free) and other.constraint is not self.constraint:
            if not isinstance(self.constraint, Free):
                raise ValueError("the two have different constraints; give both the same `Dirichlet`, or only one.")
            return other + self
        total = object.__new__(type(self))
        total.__dict__.update(self.__dict__ | {"terms": self.terms + other.terms})
        return total


class Energy(Functional):
    """J(u) = ∫ ψ(x, u, ∇u, *params) dx + Σ_tags ∫ g(x, u, n, *params) ds, of the constrained u.

    Args:
        space: the space of u.
        density: ψ, any differentiable expression in PyTorch. x is "… d", u "…" (vectors "… c"), ∇u "… d" ("… c d"); on
            a mixed space u and ∇u are tuples. Every operation must broadcast over leading axes.
        dirichlet: `Dirichlet` or `MeanZero`; `energy(u)` is J(dirichlet.apply(u)).
        boundary: {tag: g} with g(x, u, normal, *params); it gets one order of derivatives less than ψ.
        derivatives: highest derivative that ψ takes: 0, 1, or 2, which adds ∇∇u after ∇u (smooth spaces only). A pair
            (cells, boundary) sets both: g(x, u, ∇u, normal, *params) for 1.

    The value has the batch shape "*b" of u and the parameters together.

    Raises:
        ValueError: unknown tags, or second derivatives on a Lagrange space.
    """

    def __call__(self, u: Tensor, *params: Parameter) -> Tensor:
        lowered = self.lower(params)
        value = lowered.value(self.space.check(u))
        check_finite(value, u, params, lowered)
        return value


class WeakForm(Functional):
    """Find u with a(u; v) = ∫ form(x, u, ∇u, v, ∇v, *params) dx + boundary terms = 0 for all v.

    The form must be linear in v and ∇v. For operators without an energy: advection, non-symmetric couplings.

    Args:
        space, dirichlet, boundary: as for `Energy`; boundary forms are g(x, u, v, normal, *params).
        form: the integrand; on mixed spaces u, ∇u, v and ∇v are tuples.
    """

    linear_in_test = True


@dataclass(frozen=True)
class LoweredTerm:
    """A term on one domain, with its geometry and parameters as tensors."""

    term: Term
    domain: Domain
    geometry: Geometry
    params: tuple[PointValues, ...]


@dataclass(frozen=True)
class Lowered:
    """A functional of the dofs alone, given tensors at quadrature points; `data` is what the constraint is made of."""

    space: AnySpace
    constraint: Constraint
    terms: tuple[LoweredTerm, ...]
    data: Tensor | None

    # -- its explicit inputs -----------------------------------------------------------------------------------------

    def tensors(self) -> list[Tensor]:
        """All tensors this functional depends on, in a fixed order."""
        found = [] if self.data is None else [self.data]
        for lowered in self.terms:
            found += [t for t in vars(lowered.geometry).values() if t is not None]
            found += [p.value for p in lowered.params if isinstance(p.value, Tensor)]
        return found

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Lowered":
        """The same functional of other tensors, in the order of `tensors()`."""
        rest = iter(tensors)
        data = None if self.data is None else next(rest)
        terms = []
        for lowered in self.terms:
            names = [f.name for f in fields(Geometry) if getattr(lowered.geometry, f.name) is not None]
            geometry = replace(lowered.geometry, **{name: next(rest) for name in names})
            params = tuple(
                PointValues(next(rest), p.rank) if isinstance(p.value, Tensor) else p for p in lowered.params
            )
            terms.append(replace(lowered, geometry=geometry, params=params))
        return replace(self, terms=tuple(terms), data=data)

    def detach(self) -> "Lowered":
        return self.with_tensors([t.detach() for t in self.tensors()])

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch shape of parameters and prescribed values together."""
        shapes = [p.batch for lowered in self.terms for p in lowered.params]
        if self.data is not None:
            shapes.append(tuple(self.data.shape[: self.data.ndim - len(self.space.shape)]))
        return tuple(torch.broadcast_shapes(*shapes))

    def constrained(self, u: Tensor, batch: tuple[int, ...] | None = None) -> tuple[tuple[int, ...], Tensor]:
        """The full batch shape, and u with its constraint applied, expanded to it."""
        batch = self.full_batch(u) if batch is None else batch
        return batch, self.constraint.insert(u, self.data).expand(*batch, *self.space.shape)

    def full_batch(self, u: Tensor) -> tuple[int, ...]:
        return tuple(torch.broadcast_shapes(self.batch, u.shape[: u.ndim - len(self.space.shape)]))

    # -- at points ---------------------------------------------------------------------------------------------------

    def slots(self, lowered: LoweredTerm, u: Tensor) -> Slots:
        """u and its derivatives at the points of one term, field after field."""
        parts = zip(self.space.fields, self.space.split(u), strict=True)
        order = lowered.term.derivatives
        return [s for f, part in parts for s in f.at_points(part, lowered.domain, lowered.geometry, order)]

    def integrand(self, lowered: LoweredTerm, slots: Slots, test: Slots | None, batch: tuple[int, ...]) -> Tensor:
        """The user's expression at the points of one term, "*b e q" up to broadcasting."""
        geometry, term = lowered.geometry, lowered.term
        arguments = [geometry.points, *self._arguments(slots, term.derivatives)]
        if test is not None:
            arguments += self._arguments(test, term.derivatives)
        if geometry.normal is not None:
            arguments.append(geometry.normal)
        value = term.density(*arguments, *(p.value for p in lowered.params))
        return check_integrand(value, term, (*batch, *geometry.points.shape[:2]))

    def _arguments(self, slots: Slots, derivatives: int) -> list[Any]:
        if not isinstance(self.space, MixedSpace):
            return list(slots)
        return [tuple(slots[k :: derivatives + 1]) for k in range(derivatives + 1)]

    def fluxes(
        self, lowered: LoweredTerm, slots: Slots, batch: tuple[int, ...], create_graph: bool
    ) -> list[Tensor | None]:
        """∂ψ/∂s for every slot (weak forms: the factor of every slot of the test function); None where it vanishes."""
        with torch.enable_grad():
            if not lowered.term.linear_in_test:
                target, test = slots, None
            else:
                target = test = [torch.zeros_like(s, requires_grad=True) for s in slots]
            value = self.integrand(lowered, slots, test, batch)
            if not value.requires_grad:
                return [None] * len(slots)
            points = (*batch, *lowered.geometry.points.shape[:2])
            total = value.expand(points).sum()
            return list(torch.autograd.grad(total, target, create_graph=create_graph, allow_unused=True))

    # -- the functional and its derivatives ----------------------------------------------------------------------------

    def value(self, u: Tensor) -> Tensor:
        """J "*b"."""
        batch, full = self.constrained(u)
        parts = []
        for lowered in self.terms:
            density = self.integrand(lowered, self.slots(lowered, full), None, batch)
            points = (*batch, *lowered.geometry.points.shape[:2])
            parts.append((density * lowered.geometry.weights).expand(points).sum((-2, -1)))
        return sum_of(parts)

    def residual(self, u: Tensor, magnitude: bool = False) -> Tensor:
        """∂J/∂u "*b *shape", or with `magnitude` the sum of its contributions by absolute value.

        Differentiable in u and in every tensor of the functional.
        """
        (batch, full), graph = self.constrained(u), torch.is_grad_enabled()
        totals: list[list[Tensor]] = [[] for _ in self.space.fields]
        for lowered in self.terms:
            fluxes = self.fluxes(lowered, differentiable(self.slots(lowered, full)), batch, graph)
            self.scatter_terms(totals, lowered, fluxes, batch, magnitude)
        total = self.join_totals(totals, u, batch)
        if magnitude:
            return total if self.constraint.mask is None else total.masked_fill(self.constraint.mask, 0)
        return self.constraint.project(total, self.data)

    def hessian_product(self, u: Tensor, v: Tensor, transpose: bool = False) -> Tensor:
        """The residual's derivative times v (or its transpose times v), differentiable like the residual."""
        batch = tuple(torch.broadcast_shapes(self.full_batch(u), self.full_batch(v)))
        _, full = self.constrained(u, batch)
        direction = self.linear_part(v).expand(*batch, *self.space.shape)
        totals: list[list[Tensor]] = [[] for _ in self.space.fields]
        graph = torch.is_grad_enabled()
        for lowered in self.terms:
            slots = differentiable(self.slots(lowered, full))
            along = self.slots(lowered, direction)
            with torch.enable_grad():
                fluxes = self.fluxes(lowered, slots, batch, True)
                if transpose or not lowered.term.linear_in_test:
                    products = derivative_transposed(fluxes, slots, along, graph)
                else:
                    products = derivative(fluxes, slots, along, graph)
            self.scatter_terms(totals, lowered, products, batch, False)
        return self.constraint.project(self.join_totals(totals, u, batch), self.data)

    def coefficients(self, u: Tensor) -> list[tuple[LoweredTerm, list[Coefficient]]]:
        """Second derivatives of the density with respect to pairs of slots at all points, detached."""
        found = []
        with torch.no_grad():
            batch, full = self.constrained(u)
            for lowered in self.terms:
                per_field, entries = lowered.term.derivatives + 1, []
                slots = differentiable(self.slots(lowered, full))
                with torch.enable_grad():
                    for i, flux in enumerate(self.fluxes(lowered, slots, batch, True)):
                        for j, value in pointwise_jacobian(flux, slots, len(batch) + 2):
                            entries.append(Coefficient(divmod(i, per_field), divmod(j, per_field), value.detach()))
                found.append((lowered, entries))
        return found

    def matrix_values(self, u: Tensor, raw: bool = False, coefficients: list | None = None) -> Tensor:
        """CSR values "*b z" of the Hessian; prescribed rows and columns become the identity's unless `raw`."""
        batch, pattern = self.full_batch(u), self.pattern
        with torch.no_grad():
            parts = [
                (t.domain, element_matrices(self.space, entries, t.domain, t.geometry, batch))
                for t, entries in (self.coefficients(u) if coefficients is None else coefficients)
            ]
            values = pattern.scatter(parts, batch)
            mask = self.constraint.mask
            if mask is None or raw:
                return values
            mask = mask.flatten()
            values.masked_fill_(mask[pattern.row] | mask[pattern.column], 0)
            values[..., pattern.diagonal[mask]] = 1
            return values

    @property
    def pattern(self) -> Pattern:
        """The sparsity of the space's matrices, made once per space."""
        if self.space.pattern is None:
            self.space.pattern = make_pattern(self.space)
        return self.space.pattern

    def linear_part(self, v: Tensor) -> Tensor:
        """The constraint's linear part applied to a direction."""
        if self.constraint.mask is not None:
            return self.constraint.project(v, self.data)
        return self.constraint.insert(v, self.data)

    def scatter_terms(
        self,
        totals: list[list[Tensor]],
        lowered: LoweredTerm,
        fluxes: Sequence[Tensor | None],
        batch: tuple[int, ...],
        magnitude: bool = False,
    ) -> None:
        """Append each field's share of one term's fluxes to `totals`."""
        per_field = lowered.term.derivatives + 1
        for i, field in enumerate(self.space.fields):
            own = {k: f for k, f in enumerate(fluxes[i * per_field : (i + 1) * per_field]) if f is not None}
            if own:
                totals[i].append(scatter_fluxes(field, own, lowered.domain, lowered.geometry, batch, magnitude))

    def join_totals(self, totals: list[list[Tensor]], like: Tensor, batch: tuple[int, ...]) -> Tensor:
        """The sum over terms, as one dof tensor of the space."""
        parts = [
            sum_of(total) if total else like.new_zeros(*batch, *field.shape)
            for field, total in zip(self.space.fields, totals, strict=True)
        ]
        return self.space.join(parts)


def differentiable(slots: Slots) -> Slots:
    """Slots that the density can be differentiated with respect to, part of the graph where there is one."""
    graph = torch.is_grad_enabled()
    return [s if graph and s.requires_grad else s.detach().requires_grad_() for s in slots]


def derivative_transposed(fluxes, slots: Slots, along: Slots, graph: bool) -> list[Tensor | None]:
    """Σ_i (∂f_i/∂s_j) along_i by one backward pass; for energies, whose Jacobian is symmetric, the product itself."""
    terms = [(f * a).sum() for f, a in zip(fluxes, along, strict=True) if f is not None and f.requires_grad]
    if not terms:
        return [None] * len(slots)
    return list(torch.autograd.grad(sum_of(terms), slots, create_graph=graph, allow_unused=True))


def derivative(fluxes, slots: Slots, along: Slots, graph: bool) -> list[Tensor | None]:
    """Σ_j (∂f_i/∂s_j) along_j by differentiating the transposed product with respect to its (dummy) factor."""
    dummies = [None if f is None else torch.zeros_like(f, requires_grad=True) for f in fluxes]
    terms = [(f * d).sum() for f, d in zip(fluxes, dummies, strict=True) if f is not None and f.requires_grad]
    if not terms:
        return [None] * len(slots)
    back = torch.autograd.grad(sum_of(terms), slots, create_graph=True, allow_unused=True)
    pairs = [(b * a).sum() for b, a in zip(back, along, strict=True) if b is not None and b.requires_grad]
    if not pairs:
        return [None] * len(slots)
    live = [d for d in dummies if d is not None]
    result = iter(torch.autograd.grad(sum_of(pairs), live, create_graph=graph, allow_unused=True))
    return [None if d is None else next(result) for d in dummies]


def pointwise_jacobian(flux: Tensor | None, slots: Slots, lead: int):
    """(j, ∂flux/∂slot_j "*b e q *i *j") for every slot the flux depends on: one backward pass per entry of the flux."""
    if flux is None or not flux.requires_grad:
        return
    entries = flux.flatten(lead).unbind(-1) if flux.ndim > lead else (flux,)
    rows = [torch.autograd.grad(e.sum(), slots, retain_graph=True, allow_unused=True) for e in entries]
    for j, slot in enumerate(slots):
        column = [row[j] for row in rows]
        if any(c is not None for c in column):
            stacked = torch.stack([torch.zeros_like(slot) if c is None else c for c in column], lead)
            yield j, stacked.reshape(*slot.shape[:lead], *flux.shape[lead:], *slot.shape[lead:])


def check_integrand(value: Any, term: Term, shape: tuple[int, ...]) -> Tensor:
    """The user's value, if it is one number per point.

    Raises:
        TypeError: not a tensor.
        ValueError: a shape that is not one number per point.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"the {term.name} must return a tensor with one number per point; got {type(value).__name__}.")
    try:
        fits = torch.broadcast_shapes(tuple(value.shape), shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"the {term.name} must return one number per point, shape {shape}; got {tuple(value.shape)}. "
            "Sum over components and directions, as in `grad_u.square().sum(-1)`."
        )
    return value


def check_finite(value: Tensor, u: Tensor, params: Sequence[Any], lowered: Lowered) -> None:
    """Raise where an energy is not finite, naming the argument to blame. Skipped on a GPU, where it would wait."""
    if value.is_cuda or torch.compiler.is_compiling():
        return
    try:
        if bool(torch.isfinite(value).all()):
            return
    except RuntimeError:  # under `torch.vmap` values cannot be looked at
        return
    for name, tensor in [("u", u)] + [(f"parameter {i}", made_of(p)) for i, p in enumerate(params)]:
        if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            bad = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
            raise ValueError(f"{name} holds {float(tensor[tuple(bad)])}" + (f" at index {bad}." if bad else "."))
    for term in lowered.terms:
        for i, parameter in enumerate(term.params):
            bad = ~torch.isfinite(torch.atleast_2d(torch.as_tensor(parameter.value)))
            if bool(bad.any()):
                cell, q = torch.nonzero(bad)[0][len(parameter.batch) :][:2].tolist()
                raise ValueError(f"parameter {i} is not finite at x = {term.geometry.points[cell, q].tolist()}.")
    raise ValueError(
        f"the energy is {float(value[~torch.isfinite(value)].flatten()[0])}: the density is not finite for finite "
        "arguments. Look for logarithms, roots or divisions outside their domain."
    )


def made_of(parameter: Any) -> Any:
    """The tensor that a number, tensor, constant, field or gradient is made of; anything else as it is."""
    if isinstance(parameter, int | float):
        return torch.tensor(float(parameter))
    if isinstance(parameter, Constant):
        return parameter.value
    function = parameter.function if isinstance(parameter, Gradient) else parameter
    return function.values if isinstance(function, Function) else parameter
