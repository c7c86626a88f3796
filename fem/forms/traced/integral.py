"""What integrals by the program of a density have in common, whatever cells they are over (`fem.kernels.integrand`).

The face is that of `fem.forms.cell_integral`; the explicit tensors are the parameters themselves, dofs of fields above
all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from fem.forms.cell_integral import BatchShape, CellIntegral, Parts
from fem.forms.parameters import Resolved, tensor_in, with_tensor
from fem.forms.term import Term
from fem.kernels.integrand import IntegralSlopes, IntegralValue
from fem.mesh.geometry import Domain, Geometry
from fem.space.space import AnySpace
from fem.support.arithmetic import common_batch, sum_of


@dataclass(frozen=True, eq=False)
class TracedIntegral:
    """A term on all cells of a mesh; its parameters are kept as they are given.

    The first inputs of the integrand are the fields of u, and zeros for test functions; then come what surrounds the
    parameters, and the parameters.
    """

    space: AnySpace
    term: Term
    domain: Domain
    params: tuple[Resolved, ...]
    integrand: Any

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        return self.space.quadrature.geometry(self.domain)

    @property
    def surroundings(self) -> Sequence[Tensor]:
        """Tensors beside u and the parameters."""
        return ()

    def tensors(self) -> list[Tensor]:
        """All tensors that it depends on besides u."""
        return self._tensors

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return [t for t in map(tensor_in, self.params) if t is not None]

    @property
    def sides(self) -> int:
        """How many values a field has at a point."""
        return 1

    def split(self, u: Tensor) -> list[Tensor]:
        """Field after field, once for each side."""
        return [part for part in self.space.split(u) for _ in range(self.sides)]

    def joined(self, parts: Sequence[Tensor]) -> Parts:
        """The sums over sides, field after field."""
        return [sum_of(parts[k : k + self.sides]) for k in range(0, len(parts), self.sides)]

    def arguments(self, u: Tensor) -> list[Tensor]:
        """The tensors of the integrand."""
        fields = [f for f in self.space.fields for _ in range(self.sides)] if self.term.linear_in_test else []
        return [*self.split(u), *[u.new_zeros(f.shape) for f in fields], *self.surroundings, *self._tensors]

    @property
    def num_given(self) -> int:
        """How many inputs of the integrand come before the parameters."""
        return len({*self.integrand.unknowns, *self.integrand.tests}) + len(self.surroundings)

    @property
    def item_axes(self) -> list[int | None]:
        """See `DiscreteForm.item_axes`."""
        return [i.rank for i in self.integrand.inputs[self.num_given :]]

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        """The same integral of other tensors, taken in the order of `tensors()`."""
        params = tuple(p if tensor_in(p) is None else with_tensor(p, next(rest)) for p in self.params)
        return replace(self, params=params)

    @property
    def batch(self) -> BatchShape:
        """The batch shape of the parameters together."""
        pairs = zip(self._tensors, self.integrand.inputs[self.num_given :], strict=True)
        return common_batch(*[t.shape[: t.ndim - i.rank] for t, i in pairs])

    def captures_gradient(self, u: Tensor, batch: BatchShape) -> bool:
        """Never: the trace of the density would have met such a tensor."""
        return False

    @property
    def coupled(self) -> Sequence[Any]:
        """Groups of facets across which dofs of two cells are coupled."""
        return ()

    def at_points(self) -> CellIntegral:
        """The same integral by values at points."""
        raise NotImplementedError

    def all_at_points(self) -> list[CellIntegral]:
        """The same as a sum of integrals by values at points."""
        return [self.at_points()]

    # -- the integral and its derivatives ------------------------------------------------------------------------------

    def value(self, u: Tensor, batch: BatchShape) -> Tensor:
        """Its share of J, "*b"."""
        return IntegralValue.apply(self.integrand, *self.arguments(u))

    def residual(self, u: Tensor, batch: BatchShape) -> Parts:
        """Its share of ∂J/∂u, differentiable in u and in all tensors."""
        return self.joined(IntegralSlopes.apply(self.integrand, self.integrand.tests, *self.arguments(u)))

    def evaluate(self, u: Tensor, batch: BatchShape) -> tuple[Tensor | None, Parts, Parts]:
        """Value (None for weak forms), residual and magnitude in one loop over cells, without a graph."""
        value = not self.term.linear_in_test
        found, slopes, magnitudes = self.integrand.evaluate(self.arguments(u), self.integrand.tests, value, True)
        return found if value else None, self.joined(slopes), self.joined(magnitudes)

    def hessian_product(self, u: Tensor, v: Tensor, batch: BatchShape, transpose: bool) -> Parts:
        """The residual's derivative times v (or its transpose times v), differentiable like the residual."""
        first, second = self.integrand.unknowns, self.integrand.tests
        first, second = (second, first) if transpose else (first, second)
        along = self.integrand.derivative(first)
        return self.joined(IntegralSlopes.apply(along, second, *self.arguments(u), *self.split(v)))


@dataclass(frozen=True, eq=False)
class TracedHessian:
    """The second derivative of a `TracedIntegral` at u; see `CellHessian` for its face."""

    integral: Any
    u: Tensor
    batch: BatchShape

    @property
    def tensors(self) -> list[Tensor]:
        """Those of the user that it depends on."""
        own = self.integral.arguments(self.u)
        return [own[i] for i in sorted(self.integral.integrand.hessian_inputs) if i >= self.integral.num_given]

    def equals(self, other: Any) -> bool:
        return (
            type(other) is type(self)
            and self.integral.domain is other.integral.domain
            and self.integral.term.derivatives == other.integral.term.derivatives
            and self.integral.integrand.same_hessian(
                self.integral.arguments(self.u), other.integral.integrand, other.integral.arguments(other.u)
            )
        )

    def times_constant(self, i: int, k: int) -> tuple[Parts, Parts]:
        integral, width = self.integral, self.integral.term.derivatives + 1
        along, field = integral.integrand.along_constant(), integral.space.fields[i]
        slots = [self.u.new_zeros(given.shape) for given in along.inputs[len(integral.integrand.inputs) :]]
        for side in range(integral.sides):
            slots[(i * integral.sides + side) * width][k if field.shape[1:] else ...] = 1
        given = [*integral.arguments(self.u), *slots]
        _, product, size = along.evaluate(given, integral.integrand.tests, False, True)
        return integral.joined(product), integral.joined(size)
