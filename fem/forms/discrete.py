"""Discrete forms: energies and weak forms as functions of dofs and of explicit tensors, nothing else.

A discrete form is a sum of integrals (`fem.forms.cell_integral`, `grid_integral`, `traced.mesh_integral`) of the
constrained u. The tensors behind it (geometry, parameters, prescribed values) are explicit, so that an adjoint can
differentiate with respect to them. `fem.forms.lowering` makes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fem.forms.assembly import Pattern, pattern_of
from fem.forms.cell_integral import BatchShape, CellHessian, CellIntegral, Parts
from fem.forms.constraints import Constraint, Dirichlet, MeanZero
from fem.forms.grid_integral import GridHessian, GridIntegral
from fem.forms.traced.mesh_integral import MeshHessian, MeshIntegral
from fem.forms.traced.patch_integral import PatchHessian, PatchIntegral
from fem.space.facets.pairs import FacetPairs
from fem.space.space import AnySpace
from fem.support.arithmetic import common_batch, sum_of
from fem.support.transforms import transformed

Hessian = CellHessian | GridHessian | MeshHessian | PatchHessian


@dataclass(frozen=True, eq=False)
class FormValues:
    """J (None for weak forms), ∂J/∂u and the sum of its contributions by absolute value, against which it is small."""

    value: Tensor | None
    residual: Tensor
    magnitude: Tensor


@dataclass(frozen=True, eq=False)
class DiscreteForm:
    """A form as a function of the dofs, given its tensors; `data` is what the constraint is made of."""

    space: AnySpace
    constraint: Constraint
    integrals: tuple[CellIntegral | GridIntegral | MeshIntegral | PatchIntegral, ...]
    data: Tensor | None

    # -- its explicit tensors ------------------------------------------------------------------------------------------

    def tensors(self) -> list[Tensor]:
        """All tensors that this form depends on, in a fixed order."""
        return ([] if self.data is None else [self.data]) + [t for i in self.integrals for t in i.tensors()]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "DiscreteForm":
        """The same form of other tensors, in the order of `tensors()`."""
        rest = iter(tensors)
        data = None if self.data is None else next(rest)
        return replace(self, data=data, integrals=tuple(i.with_tensors(rest) for i in self.integrals))

    def detach(self) -> "DiscreteForm":
        return self.with_tensors([t.detach() for t in self.tensors()])

    @cached_property
    def item_axes(self) -> list[int | None]:
        """How many trailing axes of each of `tensors()` belong to one item; None where all items share a tensor."""
        own: list[int | None] = [] if self.data is None else [len(self.space.shape)]
        if isinstance(self.constraint, MeanZero):
            own = [None]
        return own + [axes for i in self.integrals for axes in i.item_axes]

    def item(self, index: tuple[int, ...]) -> "DiscreteForm":
        """One item of the batch."""
        return self.with_tensors([item_of(t, k, index) for t, k in zip(self.tensors(), self.item_axes, strict=True)])

    @cached_property
    def batch(self) -> BatchShape:
        """The batch shape of parameters and prescribed values together."""
        shapes = [i.batch for i in self.integrals]
        if self.data is not None:
            shapes.append(tuple(self.data.shape[: self.data.ndim - len(self.space.shape)]))
        return common_batch(*shapes)

    def full_batch(self, u: Tensor) -> BatchShape:
        own = tuple(u.shape[: u.ndim - len(self.space.shape)])
        return own if own == self.batch else common_batch(self.batch, own)

    def constrained(self, u: Tensor, batch: BatchShape | None = None) -> tuple[BatchShape, Tensor]:
        """The full batch shape, and u with its constraint applied, expanded to it."""
        batch = self.full_batch(u) if batch is None else batch
        return batch, self.constraint.insert(u, self.data).expand(*batch, *self.space.shape)

    def inserted(self, u: Tensor) -> tuple[BatchShape, Tensor]:
        """The same without a graph; u itself where it has its prescribed values."""
        if u.is_cpu and isinstance(self.constraint, Dirichlet) and self.data is not None and not transformed():
            batch = self.full_batch(u)
            if batch == u.shape[: u.ndim - len(self.space.shape)] and self.constraint.holds(u, self.data):
                return batch, u
        return self.constrained(u)

    def linear_part(self, v: Tensor) -> Tensor:
        """The constraint's linear part applied to a direction."""
        own = getattr(self.constraint, "linear", None)
        if own is not None:
            return own(v, self.data)
        return (self.constraint.insert if self.constraint.fixed is None else self.constraint.project)(v, self.data)

    # -- the form and its derivatives ----------------------------------------------------------------------------------

    def value(self, u: Tensor) -> Tensor:
        """J "*b"."""
        batch, full = self.constrained(u)
        return sum_of(i.value(full, batch) for i in self.integrals)

    @torch.no_grad()
    def where_not_finite(self, u: Tensor) -> str:
        """The first cell and point where an energy's density is not finite, in words; "" where it is everywhere."""
        batch, full = self.constrained(u)
        for own in (part for i in self.integrals if not i.term.linear_in_test for part in i.all_at_points()):
            points = own.geometry.points
            bad = ~torch.isfinite(own.integrand(own.slots(full), None, batch).expand(*batch, *points.shape[:2]))
            if bool(bad.any()):
                *_, e, q = torch.nonzero(bad)[0].tolist()
                domain = own.domain.sides[0] if isinstance(own.domain, FacetPairs) else own.domain
                start = self.space.mesh.block_starts[domain.block]
                cell = int(start) + (e if domain.cells is None else int(domain.cells[e]))
                return f" in cell {cell}, at x = {[round(float(c), 6) for c in points[e, q]]}"
        return ""

    def residual(self, u: Tensor) -> Tensor:
        """∂J/∂u "*b *shape", differentiable in u and in every tensor of the form."""
        batch, full = self.constrained(u)
        return self._projected([i.residual(full, batch) for i in self.integrals], u, batch)

    @torch.no_grad()
    def evaluate(self, u: Tensor) -> FormValues:
        """Value, residual and magnitude at u, without a graph."""
        batch, full = self.inserted(u)
        values, residuals, sizes = zip(*[i.evaluate(full, batch) for i in self.integrals], strict=True)
        size = self.join(sizes, u, batch)
        gather = getattr(self.constraint, "sized", None)
        size = size if gather is None else gather(size)
        value = None if None in values else sum_of(values).expand(batch)
        if isinstance(self.constraint, Dirichlet):
            residual = self.join(residuals, u, batch)
            self.constraint.clear(residual)
            self.constraint.clear(size)
            return FormValues(value, residual, size)
        if self.constraint.fixed is not None:
            size.masked_fill_(self.constraint.fixed, 0)
        return FormValues(value, self._projected(residuals, u, batch), size)

    def hessian_product(self, u: Tensor, v: Tensor, transpose: bool = False) -> Tensor:
        """The residual's derivative times v (or its transpose times v), differentiable like the residual."""
        batch = common_batch(self.full_batch(u), self.full_batch(v))
        _, full = self.constrained(u, batch)
        along = self.linear_part(v).expand(*batch, *self.space.shape)
        products = [i.hessian_product(full, along, batch, transpose) for i in self.integrals]
        return self._projected(products, u, batch)

    def hessians(self, u: Tensor) -> list[Hessian]:
        """The second derivative of each integral at u, without the constraint."""
        batch, full = self.inserted(u)
        return [i.hessian(full, batch) for i in self.integrals]

    def matrix_values(self, u: Tensor, raw: bool = False, hessians: Sequence[Hessian] | None = None) -> Tensor:
        """CSR values "*b z" of the Hessian; prescribed rows and columns become the identity's unless `raw`."""
        batch, pattern = self.full_batch(u), self.pattern
        with torch.no_grad():
            values = u.new_zeros(*batch, len(pattern.column))
            for h in self.hessians(u) if hessians is None else hessians:
                h.add_to_matrix(pattern, values)
            fixed = self.constraint.fixed
            if fixed is None or raw:
                return values
            fixed = fixed.flatten()
            values.masked_fill_(fixed[pattern.row] | fixed[pattern.column], 0)
            values[..., pattern.diagonal[fixed]] = 1
            return values

    @property
    def pattern(self) -> Pattern:
        """The sparsity of the matrices, made once per space."""
        return pattern_of(self.space, [group for i in self.integrals for group in i.coupled])

    @property
    def couples_neighbours(self) -> bool:
        """Whether integrals over facets couple dofs that no cell has together."""
        return any(i.coupled for i in self.integrals)

    def join(self, shares: Iterable[Parts], like: Tensor, batch: BatchShape) -> Tensor:
        """The sum of the shares of all integrals, given field by field, as one dof tensor of the space."""
        totals = [
            sum_of(present)
            if (present := [p for p in parts if p is not None])
            else like.new_zeros(*batch, *field.shape)
            for field, parts in zip(self.space.fields, zip(*shares, strict=True), strict=True)
        ]
        return self.space.join(totals)

    def _projected(self, shares: Iterable[Parts], like: Tensor, batch: BatchShape) -> Tensor:
        return self.constraint.project(self.join(shares, like, batch), self.data)


def item_of(tensor: Tensor, own: int | None, index: tuple[int, ...]) -> Tensor:
    """What a tensor "*b …", `own` axes after the batch, has for one item; axes that are missing or one serve all."""
    lead = () if own is None else tuple(tensor.shape[: tensor.ndim - own])
    return tensor[tuple(i if n > 1 else 0 for i, n in zip(index[len(index) - len(lead) :], lead, strict=True))]
