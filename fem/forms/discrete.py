"""Lowered functionals: integrals of a density as functions of dofs and of tensors at quadrature points, nothing else.

Value, residual, Hessian product and the coefficients of the Hessian come from one user expression: fluxes are its first
derivatives with respect to u and ∇u at a point, coefficients its second. The tensors (geometry, parameters, prescribed
values) are explicit, so that an adjoint can differentiate with respect to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from fem.forms.assembly import Coefficient, Pattern, chunks, element_matrices, make_pattern, scatter_fluxes
from fem.forms.constraints import Constraint
from fem.forms.parameters import Function, Gradient, NodalValues, PointValues, at_points, nodal
from fem.kernels.grid_inputs import Input
from fem.kernels.grid_integral import Integral, Integrand, Slopes
from fem.kernels.program import UntraceableError
from fem.mesh.geometry import Domain, Geometry
from fem.space.space import AnySpace, FunctionSpace, MixedSpace, Slots, sum_of

Density = Callable[..., Tensor]
FUSED_CELLS = 2**11  # on smaller grids the trace of a density costs more than it saves


def outside_inference(method: Callable[..., Any]) -> Callable[..., Any]:
    """A user's `torch.inference_mode()` records no derivatives, and spoils what is kept: the method runs without it."""

    @wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return method(*args, **options)
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **options)

    return call


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


@dataclass(frozen=True)
class LoweredTerm:
    """A term on one domain with its parameters as tensors, and its geometry too where the nodes need gradients.

    `fused` evaluates it without a gather, on grids: its parameters stay dofs then.
    """

    space: AnySpace
    term: Term
    domain: Domain
    params: tuple[PointValues | NodalValues, ...]
    moving: Geometry | None = None
    fused: Integrand | None = None

    @property
    def geometry(self) -> Geometry:
        return self.moving or self.space.geometry(self.domain, max(self.term.derivatives, 1))

    def values(self) -> list[Any]:
        """The parameters at quadrature points."""
        points = [p.at_points(self.domain, self.geometry) if isinstance(p, NodalValues) else p for p in self.params]
        return [p.value for p in points]

    def tensors(self) -> list[Tensor]:
        """What `fused` depends on besides u."""
        found = []
        for p in self.params:
            if isinstance(p, PointValues) and isinstance(p.value, Tensor) and not varies(p):
                points = p.value.ndim - 2 - p.rank
                found.append(p.value.squeeze((points, points + 1)))
            elif isinstance(p.value, Tensor):
                found.append(p.value)
        return found


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
            found += [] if lowered.moving is None else [t for t in vars(lowered.moving).values() if t is not None]
            found += [p.value for p in lowered.params if isinstance(p.value, Tensor)]
        return found

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Lowered":
        """The same functional of other tensors, in the order of `tensors()`."""
        rest = iter(tensors)
        data = None if self.data is None else next(rest)
        terms = []
        for lowered in self.terms:
            moving = lowered.moving
            if moving is not None:
                names = [f.name for f in fields(Geometry) if getattr(moving, f.name) is not None]
                moving = replace(moving, **{name: next(rest) for name in names})
            params = tuple(replace(p, value=next(rest)) if isinstance(p.value, Tensor) else p for p in lowered.params)
            terms.append(replace(lowered, moving=moving, params=params))
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
        value = term.density(*arguments, *lowered.values())
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
            if lowered.fused is not None:
                parts.append(Integral.apply(lowered.fused, full, *lowered.tensors()))
                continue
            parts.append(self.integral(lowered, self.slots(lowered, full), batch))
        return sum_of(parts)

    def integral(self, lowered: LoweredTerm, slots: Slots, batch: tuple[int, ...]) -> Tensor:
        """One term's share of J."""
        density = self.integrand(lowered, slots, None, batch)
        points = (*batch, *lowered.geometry.points.shape[:2])
        return (density * lowered.geometry.weights).expand(points).sum((-2, -1))

    def residual(self, u: Tensor) -> Tensor:
        """∂J/∂u "*b *shape", differentiable in u and in every tensor of the functional."""
        (batch, full), graph = self.constrained(u), torch.is_grad_enabled()
        totals: list[list[Tensor]] = [[] for _ in self.space.fields]
        for lowered in self.terms:
            if lowered.fused is not None:
                totals[0].append(Slopes.apply(lowered.fused, (0,), full, *lowered.tensors())[0])
                continue
            fluxes = self.fluxes(lowered, differentiable(self.slots(lowered, full)), batch, graph)
            self.scatter_terms(totals, lowered, fluxes, batch)
        return self.constraint.project(self.join_totals(totals, u, batch), self.data)

    def state(self, u: Tensor) -> "State":
        """Value, residual and magnitude at u, without a graph: one sweep where a term is fused."""
        with torch.no_grad():
            batch, full = self.constrained(u)
            totals, sizes = ([[] for _ in self.space.fields] for _ in range(2))
            values = []
            for t in self.terms:
                if t.fused is not None:
                    value, slopes, magnitudes = t.fused.evaluate([full, *t.tensors()], (0,), magnitude=True)
                    totals[0].append(slopes[0])
                    sizes[0].append(magnitudes[0])
                else:
                    slots = differentiable(self.slots(t, full))
                    fluxes = self.fluxes(t, slots, batch, False)
                    self.scatter_terms(totals, t, fluxes, batch)
                    self.scatter_terms(sizes, t, fluxes, batch, True)
                    value = None if t.term.linear_in_test else self.integral(t, slots, batch)
                values.append(value)
            size = self.join_totals(sizes, u, batch)
            if self.constraint.mask is not None:
                size.masked_fill_(self.constraint.mask, 0)
            residual = self.constraint.project(self.join_totals(totals, u, batch), self.data)
            return State(None if None in values else sum_of(values).expand(batch), residual, size)

    def hessian_product(self, u: Tensor, v: Tensor, transpose: bool = False) -> Tensor:
        """The residual's derivative times v (or its transpose times v), differentiable like the residual."""
        batch = tuple(torch.broadcast_shapes(self.full_batch(u), self.full_batch(v)))
        _, full = self.constrained(u, batch)
        direction = self.linear_part(v).expand(*batch, *self.space.shape)
        totals: list[list[Tensor]] = [[] for _ in self.space.fields]
        graph = torch.is_grad_enabled()
        for lowered in self.terms:
            if lowered.fused is not None:
                along = lowered.fused.derivative((0,))
                totals[0].append(Slopes.apply(along, (0,), full, *lowered.tensors(), direction)[0])
                continue
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

    def coefficients(self, u: Tensor, fused: bool = True) -> list[tuple[LoweredTerm, list[Coefficient]]]:
        """Second derivatives of the density with respect to pairs of slots at all points, detached.

        Those of fused terms can be left out.
        """
        found = []
        with torch.no_grad():
            batch, full = self.constrained(u)
            for lowered in (t for t in self.terms if fused or t.fused is None):
                if lowered.fused is not None and lowered.fused.uniform:
                    found.append((lowered, constant_coefficients(lowered, full, batch)))
                    continue
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
            parts = (
                (t.domain, cells, element_matrices(self.space, entries, t.domain, t.geometry, batch, False, cells))
                for t, entries in (self.coefficients(u) if coefficients is None else coefficients)
                for cells in chunks(self.space, t.domain, batch)
            )
            values = pattern.scatter(parts, u.new_empty(batch))
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


def varies(values: PointValues) -> bool:
    """Whether a parameter differs between the points of a domain."""
    ndim = values.value.ndim - values.rank
    return values.value.shape[ndim - 2 : ndim] != (1, 1)


def lower_fused(space: AnySpace, term: Term, domain: Domain, params: Sequence[Any]) -> LoweredTerm | None:
    """A term on the cells of a uniform grid, if the space and the density allow to integrate it without a gather."""
    if not is_fusable(space, term):
        return None
    assert isinstance(space, FunctionSpace)
    dim, shape = space.mesh.dim, () if space.components is None else (space.components,)
    arguments: list[Any] = [(dim,), shape, (*shape, dim)][: term.derivatives + 2]
    inputs = [Input("field", tuple((k, k + 1) for k in range(term.derivatives + 1)), shape, space.degree)]
    values = []
    for i, parameter in enumerate(params):
        name, place = f"parameter {i}", len(arguments)
        if isinstance(parameter, Function | Gradient):
            value = nodal(parameter, name, space)
            if not value.space.is_lagrange:
                return None
            own = () if value.space.components is None else (value.space.components,)
            arguments.append((*own, dim) if value.order else own)
            inputs.append(Input("field", ((value.order, place),), own, value.space.degree))
        else:
            at_every_point = callable(parameter)
            geometry = space.geometry(domain) if at_every_point else None
            value = at_points(parameter, name, space, domain, geometry)
            own = tuple(value.value.shape[value.value.ndim - value.rank :]) if isinstance(value.value, Tensor) else None
            arguments.append(value.value if own is None else own)
            if own is not None:
                inputs.append(Input("points" if varies(value) else "constant", ((0, place),), own))
        values.append(value)
    fused = Integrand(space, term.density, term.derivatives, term.density, tuple(arguments), tuple(inputs))
    try:
        fused.program("gradient", (0,))
        fused.derivative((0,)).program("slope", (0,))  # an operation may have one derivative, but not two
    except UntraceableError:
        return None
    return LoweredTerm(space, term, domain, tuple(values), None, fused)


def is_fusable(space: AnySpace, term: Term) -> bool:
    if peek_interpreter_stack() is not None or forward_ad._current_level >= 0 or torch.compiler.is_compiling():
        return False  # `torch.func`, forward differentiation and `torch.compile` must see the density
    if term.tag is not None or term.linear_in_test or term.derivatives > 1 or not isinstance(space, FunctionSpace):
        return False
    return space.mesh.is_uniform and space.mesh.num_cells >= FUSED_CELLS and space.is_lagrange


@dataclass(frozen=True)
class State:
    """J (None for weak forms), ∂J/∂u and the sum of its contributions by absolute value, against which it is small."""

    value: Tensor | None
    residual: Tensor
    magnitude: Tensor


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


def constant_coefficients(lowered: LoweredTerm, u: Tensor, batch: tuple[int, ...]) -> list[Coefficient]:
    """The coefficients of a fused term that are the same in all cells, expanded and never stored."""
    assert lowered.fused is not None
    hessian = lowered.fused.constant_hessian([u, *lowered.tensors()])
    shape, dim = lowered.space.shape[1:], lowered.space.mesh.dim
    slots = [shape, (*shape, dim)][: lowered.term.derivatives + 1]
    points = (lowered.space.mesh.num_cells, len(lowered.domain.weights))
    entries, parts = [], hessian.split([prod(s) for s in slots], -2)
    for i, rows in enumerate(parts):
        for j, block in enumerate(rows.split([prod(s) for s in slots], -1)):
            if bool((block != 0).any()):
                value = block.reshape(*block.shape[:-2], 1, 1, *slots[i], *slots[j])
                value = value.expand(*batch, *points, *slots[i], *slots[j])
                entries.append(Coefficient((0, i), (0, j), value))
    return entries


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
