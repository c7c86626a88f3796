"""Integrals over all cells of a uniform grid, by a loop that never has values at points (`fem.kernels.integrand`).

The face is that of `fem.forms.cell_integral`; the explicit tensors are the parameters themselves, dofs of fields above
all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import Coefficient
from fem.forms.cell_integral import BatchShape, CellIntegral, Parts, add_layers, finite_coefficients
from fem.forms.parameters import Resolved, point_values, tensor_in, with_tensor
from fem.forms.term import Term
from fem.kernels.c_source import Targets
from fem.kernels.integrand import IntegralSlopes, IntegralValue, Integrand
from fem.mesh.geometry import Domain, Geometry
from fem.space.space import FunctionSpace
from fem.support.arithmetic import common_batch


@dataclass(frozen=True, eq=False)
class GridIntegral:
    """A term on all cells of a uniform grid; its parameters are kept as they are given."""

    space: FunctionSpace
    term: Term
    domain: Domain
    params: tuple[Resolved, ...]
    integrand: Integrand

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        return self.space.quadrature.geometry(self.domain)

    def tensors(self) -> list[Tensor]:
        """All tensors that it depends on besides u."""
        return self._tensors

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return [t for t in map(tensor_in, self.params) if t is not None]

    @property
    def item_axes(self) -> list[int | None]:
        """See `DiscreteForm.item_axes`."""
        return [i.rank for i in self.integrand.inputs[1:]]

    def with_tensors(self, rest: Iterator[Tensor]) -> "GridIntegral":
        """The same integral of other tensors, taken in the order of `tensors()`."""
        params = tuple(p if tensor_in(p) is None else with_tensor(p, next(rest)) for p in self.params)
        return replace(self, params=params)

    @property
    def batch(self) -> BatchShape:
        """The batch shape of the parameters together."""
        pairs = zip(self._tensors, self.integrand.inputs[1:], strict=True)
        return common_batch(*[t.shape[: t.ndim - i.rank] for t, i in pairs])

    def captures_gradient(self, u: Tensor, batch: BatchShape) -> bool:
        """Never: the trace of the density would have met such a tensor."""
        return False

    def at_points(self) -> CellIntegral:
        """The same integral by values at points."""
        params = tuple(point_values(p, self.domain, self.geometry) for p in self.params)
        return CellIntegral(self.space, self.term, self.domain, params)

    # -- the integral and its derivatives ------------------------------------------------------------------------------

    def value(self, u: Tensor, batch: BatchShape) -> Tensor:
        """Its share of J, "*b"."""
        return IntegralValue.apply(self.integrand, u, *self._tensors)

    def residual(self, u: Tensor, batch: BatchShape) -> Parts:
        """Its share of ∂J/∂u, differentiable in u and in all tensors."""
        return list(IntegralSlopes.apply(self.integrand, (0,), u, *self._tensors))

    def evaluate(self, u: Tensor, batch: BatchShape) -> tuple[Tensor | None, Parts, Parts]:
        """Value, residual and magnitude in one loop over cells, without a graph."""
        value, slopes, magnitudes = self.integrand.evaluate([u, *self._tensors], (0,), magnitude=True)
        return value, list(slopes), list(magnitudes)

    def hessian_product(self, u: Tensor, v: Tensor, batch: BatchShape, transpose: bool) -> Parts:
        """The residual's derivative times v, differentiable like the residual."""
        return list(IntegralSlopes.apply(self.integrand.derivative((0,)), (0,), u, *self._tensors, v))

    def hessian(self, u: Tensor, batch: BatchShape) -> "GridHessian":
        return GridHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class GridHessian:
    """The second derivative of a `GridIntegral` at u; see `CellHessian` for its face."""

    integral: GridIntegral
    u: Tensor
    batch: BatchShape

    @property
    def known(self) -> bool:
        return self.integral.integrand.uniform

    @property
    def tensors(self) -> list[Tensor]:
        return [self.integral.tensors()[i - 1] for i in sorted(self.integral.integrand.hessian_inputs) if i > 0]

    @cached_property
    @torch.no_grad()
    def coefficients(self) -> list[Coefficient]:
        """Second derivatives of the density at all points; those that are the same in all cells are never stored."""
        integral = self.integral
        if not integral.integrand.uniform:
            return integral.at_points().hessian(self.u, self.batch).coefficients
        space, hessian = integral.space, self._uniform
        slots = [space.shape[1:], (*space.shape[1:], space.mesh.dim)][: integral.term.derivatives + 1]
        points, found = (space.mesh.num_cells, len(integral.domain.weights)), []
        for i, rows in enumerate(hessian.split([prod(s) for s in slots], -2)):
            for j, block in enumerate(rows.split([prod(s) for s in slots], -1)):
                if bool((block != 0).any()):
                    value = block.reshape(*block.shape[:-2], 1, 1, *slots[i], *slots[j])
                    found.append(Coefficient((0, i), (0, j), value.expand(*self.batch, *points, *slots[i], *slots[j])))
        return found

    @cached_property
    @torch.no_grad()
    def _uniform(self) -> Float[Tensor, "*b s s"]:
        """The second derivatives at a point where they are the same at all."""
        return self.integral.integrand.constant_hessian(self._arguments)

    @property
    def _arguments(self) -> list[Tensor]:
        return [self.u, *self.integral.tensors()]

    def equals(self, other: Any) -> bool:
        return (
            isinstance(other, GridHessian)
            and self.integral.domain is other.integral.domain
            and self.integral.term.derivatives == other.integral.term.derivatives
            and self.integral.integrand.same_hessian(self._arguments, other.integral.integrand, other._arguments)
        )

    def finite(self) -> Bool[Tensor, "*b"]:
        if not self.known:
            return finite_coefficients(self.coefficients, self.batch, self.u)
        return torch.isfinite(self._uniform).all((-2, -1)).expand(self.batch)

    def times_constant(self, i: int, k: int) -> tuple[Parts, Parts]:
        space, dim = self.integral.space, self.integral.space.mesh.dim
        shape = space.shape[1:]
        value, slope = self.u.new_zeros(shape), self.u.new_zeros(*shape, dim)
        value[k if shape else ...] = 1
        direction = [value, slope][: self.integral.term.derivatives + 1]
        _, product, size = self.integral.integrand.along_constant().evaluate(
            [*self._arguments, *direction], (0,), value=False, magnitude=True
        )
        return list(product), list(size)

    def add_to_images(self, images: Sequence[Tensor], targets: Targets) -> None:
        integrand, arguments = self.integral.integrand, self._arguments
        if integrand.add_element_matrices(arguments, images, targets):
            return
        for (items, layers), entries in integrand.element_matrices(arguments):
            for (image, corner), values in zip(targets, entries, strict=True):
                add_layers(images[image][items], layers.start, corner, values)
