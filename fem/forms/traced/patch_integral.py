"""Integrals over patches of splines by one loop of sum factorisation (`fem.kernels.patches`).

Nothing is kept at points but values of parameters: the geometry is computed on the way from homogeneous control points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import Coefficient, Pattern
from fem.forms.cell_integral import BatchShape, CellHessian, CellIntegral, add_coefficients
from fem.forms.parameters import point_values
from fem.forms.traced.integral import TracedHessian, TracedIntegral
from fem.kernels.c_source import Targets


@dataclass(frozen=True, eq=False)
class PatchIntegral(TracedIntegral):
    """A term on all spans of a patch; `moving` are the homogeneous control points where they need gradients."""

    moving: Float[Tensor, "n k"] | None = None

    @property
    def surroundings(self) -> Sequence[Tensor]:
        """Homogeneous control points, and the weights of the points of a span."""
        return self._surroundings

    @cached_property
    def _surroundings(self) -> list[Tensor]:
        found = self.space.quadrature.patch_geometry(self.domain)  # type: ignore[attr-defined]
        return [found.points if self.moving is None else self.moving, self.domain.weights[None]]

    def tensors(self) -> list[Tensor]:
        return [*([] if self.moving is None else [self.moving]), *self._tensors]

    @property
    def item_axes(self) -> list[int | None]:
        return [*([] if self.moving is None else [None]), *super().item_axes]

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        moving = None if self.moving is None else next(rest)
        return replace(super().with_tensors(rest), moving=moving)  # type: ignore[call-arg]

    def at_points(self) -> CellIntegral:
        params = tuple(point_values(p, self.domain, self.geometry) for p in self.params)
        return CellIntegral(self.space, self.term, self.domain, params)

    def hessian(self, u: Tensor, batch: BatchShape) -> "PatchHessian":
        return PatchHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class PatchHessian(TracedHessian):
    """The second derivative of a `PatchIntegral` at u, by its coefficients in reference coordinates."""

    known = True

    @cached_property
    @torch.no_grad()
    def reference(self) -> tuple[list[list[int | None]], Float[Tensor, "b P i q k"]]:
        """See `PatchIntegrand.coefficients`."""
        return self.integral.integrand.coefficients(self.integral.arguments(self.u))

    def finite(self) -> Bool[Tensor, "*b"]:
        found = torch.isfinite(self.reference[1].sum((1, 2, 3, 4)))
        own = self.integral.integrand.given(self.integral.arguments(self.u)).batch
        return found.reshape(own).expand(self.batch)

    @cached_property
    def _at_points(self) -> CellHessian:
        return self.integral.at_points().hessian(self.u, self.batch)

    @property
    def coefficients(self) -> list[Coefficient]:
        return self._at_points.coefficients

    def add_to_matrix(self, pattern: Pattern, values: Tensor) -> None:
        add_coefficients(self, pattern, values)

    def add_to_images(self, images: Sequence[Tensor], targets: Targets) -> None:
        self._at_points.add_to_images(images, targets)
