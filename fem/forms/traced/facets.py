"""Facets that one loop goes over: groups of them, each the same local facets of their cells, as one domain."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from fem.forms.assembly import Pattern
from fem.kernels.cells.integrand import Cells
from fem.kernels.cells.loop import CellRule
from fem.mesh.geometry import Domain, Geometry
from fem.space.facets.pairs import FacetPairs, PairGeometry
from fem.space.gather_scatter import GatherScatter
from fem.space.space import AnySpace, FunctionSpace
from fem.support.cache import ByObject
from fem.support.transforms import outside_transforms

G = TypeVar("G", bound=Geometry)


@dataclass(frozen=True, eq=False)
class Facets:
    """Groups of facets of cells of one kind, or between cells of two kinds."""

    groups: tuple[Domain, ...]
    counts: tuple[int, ...]
    kept: dict[Any, Any] = field(default_factory=dict)
    maps: MutableMapping[Any, dict[int, GatherScatter]] = field(default_factory=ByObject)
    positions: MutableMapping[Pattern, Tensor] = field(default_factory=ByObject)

    @property
    def sides(self) -> int:
        return 2 if isinstance(self.groups[0], FacetPairs) else 1

    @property
    def weights(self) -> Tensor:
        return self.groups[0].weights

    @property
    def facet(self) -> int | None:
        return self.groups[0].facet

    def seen_from(self, side: int) -> list[Domain]:
        """The groups as one side sees them."""
        return [g.sides[side] if isinstance(g, FacetPairs) else g for g in self.groups]

    @cached_property
    def wholes(self) -> list[Domain]:
        """For each side all facets as one domain, the points aside."""
        found = [self.seen_from(side) for side in range(self.sides)]
        cells = [[d.cells for d in own if d.cells is not None] for own in found]
        return [replace(own[0], cells=torch.cat(given)) for own, given in zip(found, cells, strict=True)]

    @cached_property
    def rule(self) -> CellRule:
        return CellRule.of(*zip(*[self.seen_from(side) for side in range(self.sides)], strict=True))

    def cells(self, pairs: Sequence[tuple[FunctionSpace, int]]) -> Cells:
        """For fields of some spaces, seen from some sides."""
        return Cells(self, self.rule, self.counts, {(V.family, side): self.map(V, side) for V, side in pairs})

    def map(self, space: FunctionSpace, side: int) -> GatherScatter:
        """The dofs of the cells on one side of all facets."""
        known = self.maps.setdefault(space.quadrature, {})
        if side not in known:
            with outside_transforms():
                dofs = [space.quadrature.dofs(domain) for domain in self.seen_from(side)]
                known.setdefault(side, GatherScatter(torch.cat(dofs), space.cell_dofs.count))
        return known[side]

    def geometry(self, space: AnySpace) -> Geometry:
        """Of all groups together; kept while the nodes stay as they are and need no gradient."""
        version = space.mesh.version
        if version is None:
            return self.joined([space.quadrature.geometry(g) for g in self.groups])
        if self.kept.get("version") != version:
            with outside_transforms():
                made = self.joined([space.quadrature.geometry(g) for g in self.groups])
            self.kept.update(geometry=made, tensors=listed(made), version=version)
        return self.kept["geometry"]

    def tensors(self, space: AnySpace) -> list[Tensor]:
        """x, ∂ξ/∂x of each side, the measure, the normal, and between two cells the size."""
        geometry = self.geometry(space)
        return self.kept["tensors"] if space.mesh.version is not None else listed(geometry)

    def joined(self, parts: Sequence[G]) -> G:
        """Geometries of all groups as one, whose tensors have all facets; points too where some group needs them."""
        found = {}
        for name in (f.name for f in fields(parts[0])):
            tensors = [getattr(part, name) for part in parts]
            if tensors[0] is not None:
                points = max(t.shape[1] for t in tensors)
                if name == "weights":
                    points = len(self.weights)
                found[name] = torch.cat(
                    [t.expand(n, points, *t.shape[2:]) for n, t in zip(self.counts, tensors, strict=True)]
                )
        return replace(parts[0], **found)

    def parted(self, geometry: Geometry) -> list[Geometry]:
        """The transpose of `joined`."""
        given = {f.name: self.parts_of(t, 0) for f in fields(geometry) if (t := getattr(geometry, f.name)) is not None}
        return [replace(geometry, **{n: t[k] for n, t in given.items()}) for k in range(len(self.groups))]

    def parts_of(self, tensor: Tensor, axis: int) -> list[Tensor]:
        """What each group has of a tensor with an axis of facets, which may be of length one."""
        if tensor.shape[axis] == 1:
            return [tensor] * len(self.groups)
        starts = accumulate(self.counts, initial=0)
        return [tensor.narrow(axis, start, n) for start, n in zip(starts, self.counts, strict=False)]

    def position(self, pattern: Pattern) -> Int[Tensor, "e A A"]:
        """Where the entries of the matrices of all facets go."""
        if pattern not in self.positions:
            found = [pattern.positions[g.block] for g in self.groups]
            found = [p if g.cells is None else p[g.cells] for g, p in zip(self.groups, found, strict=True)]
            self.positions[pattern] = torch.cat(found)
        return self.positions[pattern]


def listed_names(geometry: Geometry) -> list[str]:
    """The tensors of a geometry in the order of an integrand's arguments, by name."""
    two = isinstance(geometry, PairGeometry)
    return ["points", "inverse", *(["other"] if two else []), "weights", "normal", *(["size"] if two else [])]


def listed(geometry: Geometry) -> list[Tensor]:
    return [getattr(geometry, name) for name in listed_names(geometry)]


def facets_of(space: AnySpace, tag: Any, domains: Sequence[Domain]) -> list[Facets]:
    """The groups of facets of one tag in as few `Facets` as possible, which the space's quadrature keeps."""
    key = tag, any(isinstance(d, FacetPairs) for d in domains)
    if key not in space.quadrature.merged:
        kinds: dict[Any, list[Domain]] = {}
        for domain in domains:
            blocks = [side.block for side in domain.sides] if isinstance(domain, FacetPairs) else [domain.block]
            kinds.setdefault(tuple(blocks), []).append(domain)
        found = [Facets(tuple(groups), tuple(map(number, groups))) for groups in kinds.values()]
        space.quadrature.merged.setdefault(key, found)
    return space.quadrature.merged[key]


def number(domain: Domain) -> int:
    """How many facets a group has."""
    cells = (domain.sides[0] if isinstance(domain, FacetPairs) else domain).cells
    assert cells is not None
    return len(cells)
