"""Integrals over the cells of any mesh by one loop that gathers, evaluates and scatters (`fem.kernels.cells`).

Where nothing is compiled for it the loop runs in PyTorch, some cells at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from fem.forms.assembly import Coefficient, Pattern
from fem.forms.cell_integral import BatchShape, CellHessian, CellIntegral, add_coefficients
from fem.forms.parameters import point_values
from fem.forms.traced.integral import TracedHessian, TracedIntegral
from fem.kernels.c_source import Targets
from fem.mesh.geometry import Geometry
from fem.support.compilation import policy

MATRIX_ENTRIES = 2**18  # of all element matrices: with fewer the trace of second derivatives costs more than it saves


@dataclass(frozen=True, eq=False)
class MeshIntegral(TracedIntegral):
    """A term on all cells of any mesh; `moving` is the geometry where the nodes need gradients."""

    moving: Geometry | None = None

    @property
    def geometry(self) -> Geometry:
        return self.moving or self.space.quadrature.geometry(self.domain)

    @property
    def surroundings(self) -> Sequence[Tensor]:
        """Points, inverse Jacobians and measures."""
        return self._surroundings

    @cached_property
    def _surroundings(self) -> list[Tensor]:
        place = self.geometry
        return [place.points, place.inverse, place.weights]

    def tensors(self) -> list[Tensor]:
        return [*(self.surroundings if self.moving is not None else []), *self._tensors]

    @property
    def item_axes(self) -> list[int | None]:
        return [*([None] * 3 if self.moving is not None else []), *super().item_axes]

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        moving = None if self.moving is None else Geometry(next(rest), next(rest), next(rest))
        return replace(super().with_tensors(rest), moving=moving)  # type: ignore[call-arg]

    def at_points(self) -> CellIntegral:
        params = tuple(point_values(p, self.domain, self.geometry) for p in self.params)
        return CellIntegral(self.space, self.term, self.domain, params, self.moving)

    def hessian(self, u: Tensor, batch: BatchShape) -> "MeshHessian":
        return MeshHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class MeshHessian(TracedHessian):
    """The second derivative of a `MeshIntegral` at u, by entries of a sparse matrix; all else by values at points."""

    known = False

    @cached_property
    def _at_points(self) -> CellHessian:
        return self.integral.at_points().hessian(self.u, self.batch)

    @property
    def coefficients(self) -> list[Coefficient]:
        return self._at_points.coefficients

    @torch.no_grad()
    def add_to_matrix(self, pattern: Pattern, values: Tensor) -> None:
        integral, position = self.integral, pattern.positions[self.integral.domain.block]
        flat, worth = values.view(-1, values.shape[-1]), position.numel() >= MATRIX_ENTRIES or policy() == "always"
        if not worth or not integral.integrand.add_element_matrices(integral.arguments(self.u), position, flat):
            add_coefficients(self, pattern, values)

    def finite(self) -> Bool[Tensor, "*b"]:
        return self._at_points.finite()

    def add_to_images(self, images: Sequence[Tensor], targets: Targets) -> None:
        self._at_points.add_to_images(images, targets)
