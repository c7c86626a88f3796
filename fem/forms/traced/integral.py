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
from fem.space.space import FunctionSpace
from fem.support.arithmetic import common_batch


@dataclass(frozen=True, eq=False)
class TracedIntegral:
    """A term on all cells of a mesh; its parameters are kept as they are given.

    The first input of the integrand is u; then come what surrounds the parameters, and the parameters.
    """

    space: FunctionSpace
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

    def arguments(self, u: Tensor) -> list[Tensor]:
        """The tensors of the integrand."""
        return [u, *self.surroundings, *self._tensors]

    @property
    def item_axes(self) -> list[int | None]:
        """See `DiscreteForm.item_axes`."""
        return [i.rank for i in self.integrand.inputs[1 + len(self.surroundings) :]]

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        """The same integral of other tensors, taken in the order of `tensors()`."""
        params = tuple(p if tensor_in(p) is None else with_tensor(p, next(rest)) for p in self.params)
        return replace(self, params=params)

    @property
    def batch(self) -> BatchShape:
        """The batch shape of the parameters together."""
        pairs = zip(self._tensors, self.integrand.inputs[1 + len(self.surroundings) :], strict=True)
        return common_batch(*[t.shape[: t.ndim - i.rank] for t, i in pairs])

    def captures_gradient(self, u: Tensor, batch: BatchShape) -> bool:
        """Never: the trace of the density would have met such a tensor."""
        return False

    def at_points(self) -> CellIntegral:
        """The same integral by values at points."""
        raise NotImplementedError

    # -- the integral and its derivatives ------------------------------------------------------------------------------

    def value(self, u: Tensor, batch: BatchShape) -> Tensor:
        """Its share of J, "*b"."""
        return IntegralValue.apply(self.integrand, *self.arguments(u))

    def residual(self, u: Tensor, batch: BatchShape) -> Parts:
        """Its share of ∂J/∂u, differentiable in u and in all tensors."""
        return list(IntegralSlopes.apply(self.integrand, (0,), *self.arguments(u)))

    def evaluate(self, u: Tensor, batch: BatchShape) -> tuple[Tensor | None, Parts, Parts]:
        """Value, residual and magnitude in one loop over cells, without a graph."""
        value, slopes, magnitudes = self.integrand.evaluate(self.arguments(u), (0,), magnitude=True)
        return value, list(slopes), list(magnitudes)

    def hessian_product(self, u: Tensor, v: Tensor, batch: BatchShape, transpose: bool) -> Parts:
        """The residual's derivative times v, differentiable like the residual."""
        return list(IntegralSlopes.apply(self.integrand.derivative((0,)), (0,), *self.arguments(u), v))


@dataclass(frozen=True, eq=False)
class TracedHessian:
    """The second derivative of a `TracedIntegral` at u; see `CellHessian` for its face."""

    integral: Any
    u: Tensor
    batch: BatchShape

    @property
    def tensors(self) -> list[Tensor]:
        """Those of the user that it depends on."""
        first = 1 + len(self.integral.surroundings)
        own = self.integral.arguments(self.u)
        return [own[i] for i in sorted(self.integral.integrand.hessian_inputs) if i >= first]

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
        integrand, shape = self.integral.integrand, self.integral.space.shape[1:]
        along = integrand.along_constant()
        slots = [self.u.new_zeros(given.shape) for given in along.inputs[len(integrand.inputs) :]]
        slots[0][k if shape else ...] = 1
        _, product, size = along.evaluate([*self.integral.arguments(self.u), *slots], (0,), False, True)
        return list(product), list(size)
