"""The quadrature points of spaces of splines on patches: what sum factorisation takes there, and where they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.kernels.patches.basis import PatchBasis
from fem.mesh.geometry import Domain
from fem.mesh.tags import FacetTag
from fem.reference.spline_element import BSpline
from fem.space.factors import Factors, layers_of, slot_orders
from fem.space.quadrature_points import QuadraturePoints
from fem.support.transforms import carries
from nurbs.isogeometric.patch_mesh import PatchMesh, slabs

KEPT = 2**22  # points whose positions are kept


@dataclass(frozen=True, eq=False)
class PatchPlace:
    """A patch as a field on its spans: homogeneous control points "n k" of its own basis, x fastest."""

    basis: PatchBasis
    points: Float[Tensor, "n k"]
    rational: bool


@dataclass(frozen=True, eq=False)
class Positions:
    """The points "e q d" of a domain."""

    points: Tensor


class SplinePoints(QuadraturePoints):
    """The quadrature points of a spline space: values by sum factorisation where there is but one patch."""

    mesh: PatchMesh
    elements: tuple[BSpline, ...]
    lattices: list[Tensor]  # numbers of the dofs of each patch, axes in the order of directions

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def wholes(self, tag: FacetTag | None = None) -> tuple[Domain, ...]:
        return super().domains(tag)

    def kept(self, name: str, domain: Domain, make: Callable[[], Any]) -> Any:
        if (name, domain) not in self._made:
            self._made[name, domain] = make()
        return self._made[name, domain]

    def patch_basis(self, domain: Domain) -> PatchBasis | None:
        """The basis on a patch for loops over its spans; None for rational functions and points on no tensor grid."""

        def make() -> PatchBasis | None:
            element, lattice = self.elements[domain.block], self.lattices[domain.block]
            layers = layers_of(element, domain.cells)
            lines = tensor_lines(domain.points)
            if element.weights is not None or domain.facet is not None or layers is None:
                return None
            numbers = lattice.permute(*range(lattice.ndim)[::-1]).flatten()
            alone = len(self.elements) == 1 and len(numbers) == self.cell_dofs.count
            corners = [*element.breakpoints]
            corners[-1] = corners[-1][layers.start : layers.stop + 1]
            args = (element.knots, element.degrees, corners, lines, None if alone else numbers)
            return None if lines is None else PatchBasis.of(*args)  # type: ignore[arg-type]

        return self.kept("basis", domain, make)

    def patch_geometry(self, domain: Domain) -> PatchPlace | None:
        """The patch itself for such loops; None where derivatives in its knots are wanted."""
        patch = self.mesh.patches[domain.block]
        if any(carries(t) for t in patch.knots) or domain.facet is not None:
            return None

        def basis() -> PatchBasis | None:
            corners, lines = self.elements[domain.block].breakpoints, tensor_lines(domain.points)
            return None if lines is None else PatchBasis.of(patch.unwrapped_knots, patch.degree, corners, lines)

        def place() -> PatchPlace:
            points = patch.unwrapped().homogeneous
            flat = points.permute(*range(points.ndim - 1)[::-1], -1).flatten(0, -2).contiguous()
            return PatchPlace(found, flat, patch.weights is not None)

        found = self.kept("patch", domain, basis)
        if found is None:
            return None
        return place() if self.mesh.version is None else self.kept("place", domain, place)

    def positions(self, domain: Domain) -> Iterator[Positions]:
        """The points of all spans of a patch, some layers at a time; kept where they are not many."""
        element, moving = self.elements[domain.block], self.mesh.version is None
        few = element.num_cells * len(domain.weights) <= KEPT and not moving
        for k, cells in enumerate(slabs(element, len(domain.weights))):
            make = partial(self.mesh.positions, domain.block, cells, domain.points)
            yield Positions(self.kept(f"positions {k}", domain, make) if few else make())

    @cached_property
    def _factors(self) -> dict[tuple[Domain, int], Factors | None]:
        return {}

    def factors(self, domain: Domain, derivatives: int) -> Factors | None:
        """The 1-D matrices that stand for the table of basis functions on all cells of the only patch, if they do."""
        if not self.is_tensor or domain.facet is not None:
            return None
        key = (domain, derivatives)
        if key not in self._factors:
            layers = layers_of(self.elements[0], domain.cells)
            found = None if layers is None else Factors.of(self.elements[0], domain.points, derivatives, layers)
            self._factors[key] = found
        return self._factors[key]

    @property
    def is_tensor(self) -> bool:
        """Whether there is but one patch, which meets itself nowhere."""
        return len(self.elements) == 1 and not self.mesh.seams and not any(self.mesh.patches[0].periodic)

    def domains(self, tag: FacetTag | None = None, degree: int | None = None) -> tuple[Domain, ...]:
        """As for any space; the cells of a large patch in slabs, so that what is made at their points stays small."""
        wholes = super().domains(tag, degree)
        if tag is not None or not self.is_tensor:
            return wholes
        (whole,) = wholes
        key = ("slabs", self.degree if degree is None else degree)
        if key not in self._domains:
            cells = slabs(self.elements[0], len(whole.weights))
            self._domains[key] = wholes if len(cells) == 1 else tuple(replace(whole, cells=c) for c in cells)
        return self._domains[key]

    def to_points(self, u: Float[Tensor, "*b n c"], domain: Domain, derivatives: int) -> Float[Tensor, "*b e c q s"]:
        factors = self.factors(domain, derivatives)
        if factors is None:
            return super().to_points(u, domain, derivatives)
        values = factors.values(u.mT, slot_orders(domain.cell.dim, derivatives))
        return torch.stack([factors.by_cells(v) for v in values], -1).transpose(-4, -3)

    def from_points(
        self, values: Float[Tensor, "*b e c q s"], domain: Domain, derivatives: int, magnitude: bool = False
    ) -> Float[Tensor, "*b n c"]:
        factors = self.factors(domain, derivatives)
        if factors is None:
            return super().from_points(values, domain, derivatives, magnitude)
        values = values.abs() if magnitude else values
        parts = [factors.by_grid(v) for v in values.transpose(-4, -3).unbind(-1)]
        return factors.sums(parts, slot_orders(domain.cell.dim, derivatives), magnitude).mT


def tensor_lines(points: Float[Tensor, "q r"]) -> list[Tensor] | None:
    """The 1-D points whose tensor grid, x fastest, these are, if they are one."""
    lines = [t.unique() for t in points.unbind(-1)]
    grid = torch.stack(torch.meshgrid(*lines[::-1], indexing="ij")[::-1], -1).flatten(0, -2)
    return lines if grid.shape == points.shape and torch.equal(grid, points) else None
