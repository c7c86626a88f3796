"""Integrals over the cells or facets of any mesh: gather dofs, evaluate the density at quadrature points, scatter back.

Values, residuals and Hessians come from one user expression: fluxes are its first derivatives with respect to u and ∇u
at a point, the coefficients of the Hessian its second. The tensors behind it (geometry, parameters) are explicit.
`fem.forms.grid_integral` does the same on uniform grids without values at points; both have one face, in which u is
always the whole dof tensor, its constraint applied and its batch complete.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import Coefficient, Pattern, chunks, element_matrices, scatter_fluxes
from fem.forms.derivatives import (
    Fluxes,
    derivative,
    derivative_transposed,
    differentiable,
    pointwise_jacobian,
)
from fem.forms.parameters import PointValues, tensor_in, with_tensor
from fem.forms.term import Term
from fem.kernels.c_source import Targets
from fem.mesh.geometry import Domain, Geometry
from fem.mesh.grid import grid_order, number, places
from fem.space.mappings import Slots
from fem.space.space import MixedSpace
from fem.support.arithmetic import common_batch
from fem.support.portions import at_a_time
from fem.support.transforms import depends

BatchShape = tuple[int, ...]
Parts = list[Tensor | None]  # of a dof tensor, field by field; None where there is nothing


@dataclass(frozen=True, eq=False)
class CellIntegral:
    """A term on one domain, its parameters as values at points, and its geometry too where the nodes need gradients."""

    space: Any  # or the two sides of one (`fem.forms.interior_integral`)
    term: Term
    domain: Domain
    params: tuple[PointValues, ...]
    moving: Geometry | None = None

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        return self.moving or self.space.quadrature.geometry(self.domain, max(self.term.derivatives, 1))

    def tensors(self) -> list[Tensor]:
        """All tensors that it depends on besides u."""
        moving = [] if self.moving is None else vars(self.moving).values()
        return [t for t in (*moving, *map(tensor_in, self.params)) if t is not None]

    @property
    def item_axes(self) -> list[int | None]:
        """See `DiscreteForm.item_axes`."""
        moving = [] if self.moving is None else [None for t in vars(self.moving).values() if t is not None]
        return moving + [t.ndim - len(p.batch) for p in self.params if (t := tensor_in(p)) is not None]

    def with_tensors(self, rest: Iterator[Tensor]) -> "CellIntegral":
        """The same integral of other tensors, taken in the order of `tensors()`."""
        moving = self.moving
        if moving is not None:
            names = [f.name for f in fields(moving) if getattr(moving, f.name) is not None]
            moving = replace(moving, **{name: next(rest) for name in names})
        params = tuple(p if tensor_in(p) is None else with_tensor(p, next(rest)) for p in self.params)
        return replace(self, moving=moving, params=params)

    def detach(self) -> "CellIntegral":
        return self.with_tensors(t.detach() for t in self.tensors())

    @property
    def batch(self) -> BatchShape:
        """The batch shape of the parameters together."""
        return common_batch(*[p.batch for p in self.params])

    @property
    def coupled(self) -> Sequence[Any]:
        """Groups of facets across which dofs of two cells are coupled."""
        return ()

    def all_at_points(self) -> "list[CellIntegral]":
        """This integral, as a sum of those by values at points."""
        return [self]

    # -- at points -----------------------------------------------------------------------------------------------------

    def slots(self, u: Tensor) -> Slots:
        """u and its derivatives at all points, field after field."""
        parts, order = zip(self.space.fields, self.space.split(u), strict=True), self.term.derivatives
        return [s for f, part in parts for s in f.quadrature.values(part, self.domain, self.geometry, order)]

    def integrand(self, slots: Slots, test: Slots | None, batch: BatchShape) -> Tensor:
        """The user's expression at all points, "*b e q" up to broadcasting."""
        geometry = self.geometry
        arguments = [geometry.points, *self._arguments(slots)]
        if test is not None:
            arguments += self._arguments(test)
        if geometry.normal is not None:
            arguments.append(geometry.normal)
        kind = self.domain.block, self.domain.facet, len(self.domain.weights), batch
        self.term.check_pointwise(kind, lambda: self._at_points(slots, test))
        value = self.term.density(*arguments, *[p.value for p in self.params])
        return self.term.check(value, (*batch, *geometry.points.shape[:2]))

    def _at_points(self, slots: Slots, test: Slots | None) -> tuple[list[Any], int]:
        """All arguments with their ranks, and how many after x are u, its test function and their derivatives."""
        order, geometry = self.term.derivatives, self.geometry
        ranks = [f.quadrature.rank(k) for f in self.space.fields for k in range(order + 1)]
        own = [
            argument
            for given in (slots, test)
            if given is not None
            for argument in self._arguments([PointValues(s, r) for s, r in zip(given, ranks, strict=True)])
        ]
        normal = [] if geometry.normal is None else [PointValues(geometry.normal, 1)]
        return [PointValues(geometry.points, 1), *own, *normal, *self.params], len(own)

    def _arguments(self, slots: Sequence[Any]) -> list[Any]:
        if not isinstance(self.space, MixedSpace):
            return list(slots)
        per_field = self.term.derivatives + 1
        return [tuple(slots[k::per_field]) for k in range(per_field)]

    def fluxes(self, slots: Slots, batch: BatchShape, create_graph: bool) -> list[Tensor | None]:
        """∂ψ/∂s for every slot (weak forms: the factor of every slot of the test function); None where it vanishes."""
        with torch.enable_grad():
            if not self.term.linear_in_test:
                target, test = slots, None
            else:
                target = test = [torch.zeros_like(s, requires_grad=True) for s in slots]
            value = self.integrand(slots, test, batch)
            if not value.requires_grad:
                return [None] * len(slots)
            total = value.expand(*batch, *self.geometry.points.shape[:2]).sum()
            return list(torch.autograd.grad(total, target, create_graph=create_graph, allow_unused=True))

    def scatter(self, fluxes: Fluxes, batch: BatchShape, magnitude: bool = False) -> Parts:
        """Fluxes tested against the basis, field by field; with `magnitude` all contributions by absolute value."""
        found, per_field = [], self.term.derivatives + 1
        for i, field in enumerate(self.space.fields):
            own = {k: f for k, f in enumerate(fluxes[i * per_field : (i + 1) * per_field]) if f is not None}
            found.append(scatter_fluxes(field, own, self.domain, self.geometry, batch, magnitude) if own else None)
        return found

    def captures_gradient(self, u: Tensor, batch: BatchShape) -> bool:
        """Whether the density holds on to a tensor that needs a gradient, the explicit ones being detached."""
        slots = [s.detach() for s in self.slots(u)]
        with torch.enable_grad():
            return depends(self.integrand(slots, slots if self.term.linear_in_test else None, batch))

    def _needs_graph(self, slots: Slots, u: Tensor, batch: BatchShape) -> bool:
        """Whether derivatives are recorded: something that is given, or that the density holds, needs a gradient."""
        if not torch.is_grad_enabled():
            return False
        return any(t.requires_grad for t in (*slots, *self.tensors())) or self.captures_gradient(u, batch)

    # -- the integral and its derivatives ------------------------------------------------------------------------------

    def value(self, u: Tensor, batch: BatchShape) -> Tensor:
        """Its share of J, "*b"."""
        return self._value(self.slots(u), batch)

    def _value(self, slots: Slots, batch: BatchShape) -> Tensor:
        weighted = self.integrand(slots, None, batch) * self.geometry.weights
        return weighted.expand(*batch, *self.geometry.points.shape[:2]).sum((-2, -1))

    def residual(self, u: Tensor, batch: BatchShape) -> Parts:
        """Its share of ∂J/∂u, differentiable in u and in all tensors."""
        slots = self.slots(u)
        graph = self._needs_graph(slots, u, batch)
        return self.scatter(self.fluxes(differentiable(slots), batch, graph), batch)

    def evaluate(self, u: Tensor, batch: BatchShape) -> tuple[Tensor | None, Parts, Parts]:
        """Value (None for weak forms), residual and magnitude together, without a graph."""
        slots = differentiable(self.slots(u))
        fluxes = self.fluxes(slots, batch, False)
        value = None if self.term.linear_in_test else self._value(slots, batch)
        return value, self.scatter(fluxes, batch), self.scatter(fluxes, batch, True)

    def hessian_product(self, u: Tensor, v: Tensor, batch: BatchShape, transpose: bool) -> Parts:
        """The residual's derivative times v (or its transpose times v), differentiable like the residual."""
        slots, along = self.slots(u), self.slots(v)
        graph, slots = self._needs_graph([*slots, *along], u, batch), differentiable(slots)
        with torch.enable_grad():
            fluxes = self.fluxes(slots, batch, True)
            multiply = derivative_transposed if transpose or not self.term.linear_in_test else derivative
            products = multiply(fluxes, slots, along, graph)
        return self.scatter(products, batch)

    def hessian(self, u: Tensor, batch: BatchShape) -> "CellHessian":
        return CellHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class CellHessian:
    """The second derivative of a `CellIntegral` at u, by its coefficients at quadrature points."""

    integral: CellIntegral
    u: Tensor
    batch: BatchShape

    known = True  # whether the coefficients cost little
    tensors = ()  # those of the user that it depends on: none, since coefficients are values

    @cached_property
    @torch.no_grad()
    def coefficients(self) -> list[Coefficient]:
        """Second derivatives of the density with respect to pairs of slots at all points, detached."""
        integral, per_field, found = self.integral, self.integral.term.derivatives + 1, []
        slots = differentiable(integral.slots(self.u))
        with torch.enable_grad():
            for i, flux in enumerate(integral.fluxes(slots, self.batch, True)):
                for j, value in pointwise_jacobian(flux, slots, len(self.batch) + 2):
                    found.append(Coefficient(divmod(i, per_field), divmod(j, per_field), value.detach()))
        return found

    def equals(self, other: Any) -> bool:
        """Whether both are the same matrix: true between any two states of a quadratic energy."""
        if not isinstance(other, CellHessian) or self.integral.domain is not other.integral.domain:
            return False
        if self.integral.term.derivatives != other.integral.term.derivatives:
            return False
        mine, theirs = self.coefficients, other.coefficients
        return len(mine) == len(theirs) and all(
            (a.row, a.column) == (b.row, b.column) and torch.equal(a.value, b.value)
            for a, b in zip(mine, theirs, strict=True)
        )

    def finite(self) -> Bool[Tensor, "*b"]:
        """Whether all coefficients are."""
        return finite_coefficients(self.coefficients, self.batch, self.u)

    def times_constant(self, i: int, k: int) -> tuple[Parts, Parts]:
        """H·1 for component k of field i, and the sum of its contributions by absolute value.

        As ∇1 = 0 it has no contribution but those of ∂²ψ/∂s∂u for all slots s.
        """
        integral, per_field = self.integral, self.integral.term.derivatives + 1
        fluxes: list[Tensor | None] = [None] * (per_field * len(integral.space.fields))
        for c in (c for c in self.coefficients if c.column == (i, 0)):
            value = c.value if integral.space.fields[i].components is None else c.value[..., k]
            fluxes[c.row[0] * per_field + c.row[1]] = value
        return integral.scatter(fluxes, self.batch), integral.scatter(fluxes, self.batch, True)

    def add_to_matrix(self, pattern: Pattern, values: Float[Tensor, "*b z"]) -> None:
        """Add the element matrices to the entries of a sparse matrix."""
        add_coefficients(self, pattern, values)

    def add_to_images(self, images: Sequence[Tensor], targets: Targets) -> None:
        """Add the element matrices, on a grid, to images "b *vertices" of vertices, slowest axis first.

        Args:
            targets: for each pair A ≤ B of the local dofs in grid order, components inmost (as `torch.triu_indices`
                lists them), the number of its image and the corner of the cell where it is added, slowest axis first.
        """
        if not self.coefficients:  # a load
            return
        integral, field = self.integral, self.integral.space.fields[0]
        c, b = field.components or 1, prod(self.batch)
        order = torch.tensor(grid_order(integral.domain.cell, field.degree), device="cpu")
        local = (order[:, None] * c + torch.arange(c, device="cpu")).flatten()
        size, cells = len(local), [n - 1 for n in images[0].shape[1:]]
        first, second = local[torch.triu_indices(size, size, device="cpu")]
        chosen, layer = (first * size + second).to(self.u.device), prod(cells[1:])
        if integral.domain.cells is not None:
            values = self._matrices(slice(None)).reshape(b, -1, size * size)[..., chosen].unbind(-1)
            vertices = images[0].shape[:0:-1]  # x first
            place = places(integral.domain.cells, [n - 1 for n in vertices])
            at = {
                corner: number([p + o for p, o in zip(place, corner[::-1], strict=True)], vertices)
                for corner in {corner for _, corner in targets}
            }
            for (image, corner), value in zip(targets, values, strict=True):
                images[image].view(b, -1).index_add_(-1, at[corner], value)
            return
        step = at_a_time(b * size**2 * layer, self.u)
        for start in range(0, cells[0], step):
            stop = min(start + step, cells[0])
            flat = self._matrices(slice(start * layer, stop * layer)).reshape(-1, size * size)
            values = flat.T[chosen].view(len(chosen), b, stop - start, *cells[1:])
            for (image, corner), value in zip(targets, values, strict=True):
                add_layers(images[image], start, corner, value)

    def _matrices(self, cells: slice) -> Tensor:
        """The element matrices "*b e A A" of some cells."""
        integral = self.integral
        domain, geometry = integral.domain, integral.geometry
        return element_matrices(integral.space, self.coefficients, domain, geometry, self.batch, False, cells)


def add_coefficients(hessian: Any, pattern: Pattern, values: Float[Tensor, "*b z"]) -> None:
    """Add the element matrices of a Hessian's coefficients to the entries of a sparse matrix, some cells at a time."""
    space, domain, geometry = hessian.integral.space, hessian.integral.domain, hessian.integral.geometry
    coefficients, batch = hessian.coefficients, hessian.batch
    for cells in chunks(space, domain, batch):
        local = element_matrices(space, coefficients, domain, geometry, batch, False, cells)
        pattern.add(values, domain, cells, local)


def add_layers(image: Tensor, start: int, corner: tuple[int, ...], values: Float[Tensor, "b *cells"]) -> None:
    """Add values of whole layers of cells, from the one at `start` on."""
    first = (start + corner[0], *corner[1:])
    place = (slice(f, f + n) for f, n in zip(first, values.shape[1:], strict=True))
    image[(slice(None), *place)] += values


def finite_coefficients(coefficients: list[Coefficient], batch: BatchShape, like: Tensor) -> Bool[Tensor, "*b"]:
    """Whether all of them are finite."""
    finite = torch.ones(batch, dtype=torch.bool, device=like.device)
    for c in coefficients:
        finite &= torch.isfinite(c.value).flatten(len(batch)).all(-1)
    return finite
