"""From dofs to values and derivatives at quadrature points, and back: all integration goes through these two maps.

They are each other's transpose. What does not depend on dofs (the points themselves, the geometry there, the tables of
basis functions) is made once for each domain.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.geometry import Domain, Geometry, cell_domains, facet_domains
from fem.mesh.mesh import Mesh
from fem.mesh.tags import FacetTag
from fem.reference.element import Element, Tabulation
from fem.reference.vector_element import VectorTabulation
from fem.space.cell_dofs import CellDofs
from fem.space.facets.pairs import FacetPairs, facet_pairs, geometry_on
from fem.space.gather_scatter import GatherScatter
from fem.space.mappings import Gradients, Mapping, Slots
from fem.support.cache import ByObject
from fem.support.transforms import outside_transforms


class QuadraturePoints:
    """The quadrature points of one function space.

    Args:
        degree: of the quadrature where none is asked for.
    """

    mapping: Mapping = Gradients()

    def __init__(
        self, mesh: Mesh, elements: tuple[Element, ...], components: int | None, cell_dofs: CellDofs, degree: int
    ):
        self.mesh, self.elements, self.components, self.cell_dofs = mesh, elements, components, cell_dofs
        self.degree = degree
        self._domains: dict[tuple[FacetTag | None, int], tuple[Domain, ...]] = {}
        self._pairs: dict[FacetTag, tuple[FacetPairs, ...]] = {}
        self.merged: dict[Any, Any] = {}  # what loops over all facets of a tag know of them
        # Certificates and others make domains of their own, again and again: what is known of one dies with it.
        self._geometry: MutableMapping[Domain, dict[int, tuple[int, Geometry]]] = ByObject()
        self._tables: MutableMapping[Domain, dict[int, Tensor]] = ByObject()
        self._cells: MutableMapping[Domain, GatherScatter] = ByObject()
        self._blocks: dict[int, GatherScatter] = {}

    def domains(self, tag: FacetTag | None = None, degree: int | None = None) -> tuple[Domain, ...]:
        """All cells (tag None) or tagged facets with quadrature of the given degree, the space's own by default.

        A pair (facet tag, cell tag) are facets seen from the cells with that tag.
        """
        key = (tag, self.degree if degree is None else degree)
        if key not in self._domains:
            with outside_transforms():
                make = cell_domains(self.mesh, key[1]) if tag is None else facet_domains(self.mesh, tag, key[1])
            self._domains.setdefault(key, make)  # of several threads the first one's counts: domains are keys
        return self._domains[key]

    def wholes(self, tag: FacetTag | None = None) -> tuple[Domain, ...]:
        """As `domains`, for loops that take all cells of a kind at once, however many."""
        return self.domains(tag)

    def pairs(self, tag: FacetTag) -> tuple[FacetPairs, ...]:
        """Facets inside the domain with that name, "" all of them, seen from both sides."""
        if tag not in self._pairs:
            self._pairs.setdefault(tag, facet_pairs(self.mesh, tag, self.degree))  # as for domains
        return self._pairs[tag]

    def geometry(self, domain: Domain, derivatives: int = 1) -> Geometry:
        """Geometry at the domain's points; kept while the nodes stay as they are and need no gradient."""
        version = self.mesh.version
        if version is None:
            return geometry_on(self.mesh, domain, derivatives)
        kept = self._geometry.setdefault(domain, {})
        if derivatives not in kept or kept[derivatives][0] != version:
            with outside_transforms():
                kept[derivatives] = (version, geometry_on(self.mesh, domain, derivatives))
        return kept[derivatives][1]

    def table(self, domain: Domain, derivatives: int = 1) -> Float[Tensor, "#e q s a"]:
        """Reference tabulation with the value and all derivatives in one axis s = 1 + r (+ r²)."""
        kept = self._tables.setdefault(domain, {})
        if derivatives not in kept:
            kept[derivatives] = self._tabulated(domain, derivatives)
        return kept[derivatives]

    @outside_transforms()
    def _tabulated(self, domain: Domain, derivatives: int) -> Tensor:
        stacked = stacked_slots(self.elements[domain.block].tabulate(domain.points, derivatives), derivatives)
        if len(stacked) > 1 and domain.cells is not None:
            stacked = stacked[domain.cells]
        return stacked.contiguous()

    def cells(self, domain: Domain) -> GatherScatter:
        """The dofs of the domain's cells; the same for whatever quadrature all cells of a block are given."""
        kept: MutableMapping[Any, GatherScatter] = self._blocks if domain.cells is None else self._cells
        key: Any = domain.block if domain.cells is None else domain
        if key not in kept:
            with outside_transforms():
                kept.setdefault(key, self._gather(domain))
        return kept[key]

    def _gather(self, domain: Domain) -> GatherScatter:
        return GatherScatter(self.cell_dofs.of(domain.block, domain.cells), self.cell_dofs.count)

    def orientation(self, domain: Domain) -> Float[Tensor, "#e a a"] | None:
        """What makes the local functions of the domain's cells of those tabulated, where they are not the same."""
        return None

    def dofs(self, domain: Domain) -> Int[Tensor, "e a"]:
        """Numbers of the local dofs of the domain's cells."""
        return self.cells(domain).dofs

    def rank(self, order: int) -> int:
        """How many axes u or its derivative of that order has at a point."""
        return self.mapping.rank(order) + (self.components is not None)

    def values(self, u: Tensor, domain: Domain, geometry: Geometry, derivatives: int = 1) -> Slots:
        """[u "*b e q (c)", ∇u "*b e q (c) d", ∇∇u …] at the domain's points, up to the given derivative."""
        reference = self.to_points(u[..., None] if self.components is None else u, domain, derivatives)
        slots = self.mapping.push(reference, geometry.inverse, derivatives, geometry.second)
        if self.components is None:
            return [slot.squeeze(-2 - self.mapping.rank(k)) for k, slot in enumerate(slots)]
        return [slot.transpose(-2 - k, -1 - k) for k, slot in enumerate(slots)]

    def to_points(self, u: Float[Tensor, "*b n c"], domain: Domain, derivatives: int) -> Float[Tensor, "*b e c q s"]:
        """Values and derivatives s in reference coordinates at the domain's points."""
        table = self.table(domain, derivatives)
        local = self.cells(domain).gather(u).mT  # "*b e c a"
        if len(table) == 1:
            return (local @ table[0].flatten(0, 1).T).unflatten(-1, table.shape[1:3])
        return torch.einsum("...eca,eqsa->...ecqs", local, table)

    def from_points(
        self, values: Float[Tensor, "*b e c q s"], domain: Domain, derivatives: int, magnitude: bool = False
    ) -> Float[Tensor, "*b n c"]:
        """The transpose of `to_points`; `magnitude` adds contributions by absolute value."""
        table = self.table(domain, derivatives)
        if magnitude:
            values, table = values.abs(), table.abs()
        if len(table) == 1:
            local = values.flatten(-2) @ table[0].flatten(0, 1)
        else:
            local = torch.einsum("...ecqs,eqsa->...eca", values, table)
        return self.cells(domain).sum(local.mT, magnitude)


def stacked_slots(tabulation: Tabulation | VectorTabulation, derivatives: int) -> Float[Tensor, "#e q s a"]:
    """Value and derivatives of a basis one after another in one axis s."""
    if isinstance(tabulation, VectorTabulation):
        parts = [tabulation.value, tabulation.derivative]
    else:
        parts = [tabulation.value[..., None], tabulation.grad, tabulation.hess]
    return torch.cat([p.flatten(3) for p in parts[: derivatives + 1] if p is not None], -1).mT
