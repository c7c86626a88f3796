"""Integrals over the cells of any mesh, or over facets, by one loop that gathers, evaluates and scatters.

That is `fem.kernels.cells`. Where nothing is compiled for it the loop runs in PyTorch, some cells at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fem.forms.assembly import Coefficient, Pattern
from fem.forms.cell_integral import BatchShape, CellHessian, CellIntegral
from fem.forms.interior_integral import InteriorIntegral
from fem.forms.parameters import PointValues, Resolved, point_values
from fem.forms.traced.facets import listed, listed_names
from fem.forms.traced.integral import TracedHessian, TracedIntegral
from fem.kernels.c_source import Targets
from fem.mesh.geometry import Geometry
from fem.space.facets.two_sides import TwoSides
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
        return [*([None] * len(self.surroundings) if self.moving is not None else []), *super().item_axes]

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        moving = None if self.moving is None else Geometry(next(rest), next(rest), next(rest))
        return replace(super().with_tensors(rest), moving=moving)  # type: ignore[call-arg]

    def at_points(self) -> CellIntegral:
        params = tuple(point_values(p, self.domain, self.geometry) for p in self.params)
        return CellIntegral(self.space, self.term, self.domain, params, self.moving)

    def position(self, pattern: Pattern) -> Int[Tensor, "e A A"]:
        """Where the entries of element matrices go."""
        return pattern.positions[self.domain.block]

    def hessian(self, u: Tensor, batch: BatchShape) -> "MeshHessian":
        return MeshHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class FacetIntegral(MeshIntegral):
    """A term on groups of facets; its parameters have values at all facets, those that are `double` minus and plus."""

    domain: Any
    double: tuple[bool, ...] = ()

    @property
    def sides(self) -> int:
        return self.domain.sides

    @property
    def coupled(self) -> Sequence[Any]:
        return self.domain.groups if self.sides == 2 else ()

    @property
    def geometry(self) -> Geometry:
        return self.moving or self.domain.geometry(self.space)

    @cached_property
    def _surroundings(self) -> list[Tensor]:
        return listed(self.moving) if self.moving is not None else self.domain.tensors(self.space)

    def with_tensors(self, rest: Iterator[Tensor]) -> "TracedIntegral":
        moving = self.moving
        if moving is not None:
            given = dict(zip(listed_names(moving), [next(rest) for _ in self.surroundings], strict=True))
            moving = replace(moving, **given)
        return replace(TracedIntegral.with_tensors(self, rest), moving=moving)  # type: ignore[call-arg]

    def all_at_points(self) -> list[CellIntegral]:
        groups, found = self.domain.groups, []
        split = [self.parted(p) for p in self.params]
        seen = [side for double in self.double for side in ((0, 1) if double else (0,))]
        for k, (group, geometry) in enumerate(zip(groups, self.domain.parted(self.geometry), strict=True)):
            moving = None if self.moving is None else geometry
            sides = group.sides if self.sides == 2 else (group,)
            params = tuple(
                point_values(p[k], sides[side], geometry.seen_from(side) if self.sides == 2 else geometry)
                for p, side in zip(split, seen, strict=True)
            )
            if self.sides == 2:
                found.append(InteriorIntegral(TwoSides(self.space), self.term, group, params, moving, self.double))
            else:
                found.append(CellIntegral(self.space, self.term, group, params, moving))
        return found

    def parted(self, given: Resolved) -> list[Resolved]:
        """What each group has of a parameter."""
        if not isinstance(given, PointValues):
            return [given] * len(self.domain.groups)
        parts = self.domain.parts_of(given.value, given.value.ndim - given.rank - 2)
        return [replace(given, value=part) for part in parts]

    def position(self, pattern: Pattern) -> Int[Tensor, "e A A"]:
        return self.domain.position(pattern)


@dataclass(frozen=True, eq=False)
class MeshHessian(TracedHessian):
    """The second derivative of a `MeshIntegral` at u, by entries of a sparse matrix; all else by values at points."""

    known = False

    @cached_property
    def _at_points(self) -> list[CellHessian]:
        return [part.hessian(self.u, self.batch) for part in self.integral.all_at_points()]

    @property
    def coefficients(self) -> list[Coefficient]:
        (whole,) = self._at_points
        return whole.coefficients

    @torch.no_grad()
    def add_to_matrix(self, pattern: Pattern, values: Tensor) -> None:
        integral, position = self.integral, self.integral.position(pattern)
        flat, worth = values.view(-1, values.shape[-1]), position.numel() >= MATRIX_ENTRIES or policy() == "always"
        if not worth or not integral.integrand.add_element_matrices(integral.arguments(self.u), position, flat):
            for part in self._at_points:
                part.add_to_matrix(pattern, values)

    def finite(self) -> Bool[Tensor, "*b"]:
        found = torch.ones(self.batch, dtype=torch.bool, device=self.u.device)
        for part in self._at_points:
            found = found & part.finite()
        return found

    def add_to_images(self, images: Sequence[Tensor], targets: Targets) -> None:
        for part in self._at_points:
            part.add_to_images(images, targets)
