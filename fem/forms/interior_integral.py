"""Integrals over facets inside the domain, of both values of u and of whatever else has two.

An `InteriorIntegral` is a `CellIntegral` over a space whose fields are the sides of the given ones; what differs is how
arguments are handed to the density, and that contributions of both sides are added up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fem.forms.cell_integral import BatchShape, CellHessian, CellIntegral, Parts
from fem.forms.derivatives import Fluxes
from fem.forms.parameters import PointValues
from fem.space.facets.pairs import FacetPairs, PairGeometry
from fem.space.facets.two_sides import TwoSided, TwoSides
from fem.space.space import MixedSpace
from fem.support.arithmetic import sum_of


@dataclass(frozen=True, eq=False)
class InteriorIntegral(CellIntegral):
    """A term on a group of facets with two sides; `double` tells the parameters that have two values, minus first."""

    double: tuple[bool, ...] = ()

    @property
    def pairs(self) -> FacetPairs:
        """Its domain."""
        assert isinstance(self.domain, FacetPairs)
        return self.domain

    @property
    def coupled(self) -> Sequence[FacetPairs]:
        return (self.pairs,)

    def integrand(self, slots: Any, test: Any, batch: BatchShape) -> Tensor:
        """The user's expression at all points, "*b f q" up to broadcasting."""
        given, own = self._at_points(slots, test)
        facets, points = self.geometry.points.shape[:2]
        # Meshes in any order have hundreds of groups of one kind; a single facet tells less than several.
        kind = *(side.block for side in self.pairs.sides), min(facets, 2), points, batch
        self.term.check_pointwise(kind, lambda: (given, own))
        value = self.term.density(*[values(argument) for argument in given])
        return self.term.check(value, (*batch, *self.geometry.points.shape[:2]))

    def _at_points(self, slots: Any, test: Any) -> tuple[list[Any], int]:
        geometry = self.geometry
        assert isinstance(geometry, PairGeometry)
        ranks = [f.quadrature.rank(k) for f in self.space.fields for k in range(self.term.derivatives + 1)]
        own = [
            argument
            for given in (slots, test)
            if given is not None
            for argument in self._arguments([PointValues(s, r) for s, r in zip(given, ranks, strict=True)])
        ]
        rest, params = iter(self.params), []
        for double in self.double:
            params.append(TwoSided(next(rest), next(rest)) if double else next(rest))
        facet = [PointValues(geometry.normal, 1), PointValues(geometry.size)]
        return [PointValues(geometry.points, 1), *own, *facet, *params], len(own)

    def _arguments(self, slots: Sequence[Any]) -> list[Any]:
        per_field, count = self.term.derivatives + 1, len(self.space.fields) // 2
        both = [
            [TwoSided(*(slots[(2 * i + side) * per_field + k] for side in (0, 1))) for i in range(count)]
            for k in range(per_field)
        ]
        mixed = isinstance(self.space, TwoSides) and isinstance(self.space.space, MixedSpace)
        return [tuple(fields) if mixed else fields[0] for fields in both]

    def scatter(self, fluxes: Fluxes, batch: BatchShape, magnitude: bool = False) -> Parts:
        parts = super().scatter(fluxes, batch, magnitude)
        both = zip(parts[::2], parts[1::2], strict=True)
        return [sum_of(present) if (present := [p for p in pair if p is not None]) else None for pair in both]

    def hessian(self, u: Tensor, batch: BatchShape) -> "InteriorHessian":
        return InteriorHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class InteriorHessian(CellHessian):
    """The second derivative of an `InteriorIntegral` at u."""

    def times_constant(self, i: int, k: int) -> tuple[Parts, Parts]:
        per_field = self.integral.term.derivatives + 1
        total: list[list[Tensor]] = [[] for _ in range(per_field * len(self.integral.space.fields))]
        for c in (c for c in self.coefficients if c.column in ((2 * i, 0), (2 * i + 1, 0))):
            scalar = self.integral.space.fields[2 * i].components is None
            total[c.row[0] * per_field + c.row[1]].append(c.value if scalar else c.value[..., k])
        fluxes = [sum_of(values) if values else None for values in total]
        return self.integral.scatter(fluxes, self.batch), self.integral.scatter(fluxes, self.batch, True)


def values(argument: Any) -> Any:
    """What the density sees of values at points, in tuples of fields and for both sides."""
    if isinstance(argument, PointValues):
        return argument.value
    return argument.map(values) if isinstance(argument, TwoSided) else tuple(map(values, argument))
