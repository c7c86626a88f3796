"""Functions on facets inside the domain, where they have two values: each field of a space as one field for each side.

Seen so, an integral over facets is one over cells of twice as many dofs, and nothing else needs to know of sides.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.geometry import Domain, Geometry
from fem.space.facets.pairs import FacetPairs, PairGeometry
from fem.space.mappings import Mapping, Slots
from fem.space.space import AnySpace, FunctionSpace
from fem.support.checks import shown

REMEDY = "compute with `.minus`, `.plus`, `jump(…)` or `average(…)` (`from fem import jump, average`)"


class TwoSided:
    """What has two values on a facet, `.minus` and `.plus`; see `jump` and `average`."""

    __slots__ = ("minus", "plus")

    def __init__(self, minus: Any, plus: Any):
        self.minus, self.plus = minus, plus

    def map(self, function: Callable[[Any], Any]) -> "TwoSided":
        """Some function of both."""
        return TwoSided(function(self.minus), function(self.plus))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there are two values at a facet, with no `.{name}`: {REMEDY}.")

    def __getitem__(self, index: Any) -> "TwoSided":
        """The same entry of both."""
        return self.map(lambda value: value[index])

    def _refused(self, *_: Any) -> Any:
        raise TypeError(f"there are two values at a facet: {REMEDY}.")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refused
    __neg__ = __matmul__ = __rmatmul__ = __lt__ = __gt__ = __le__ = __ge__ = __bool__ = __float__ = __len__ = _refused
    __iter__ = _refused

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        raise TypeError(f"there are two values at a facet: {REMEDY}.")


def jump(value: Any) -> Tensor:
    """plus − minus.

    Raises:
        TypeError: something that has one value at a facet.
    """
    check_sides("jump", value)
    return value.plus - value.minus


def average(value: Any) -> Tensor:
    """½ (minus + plus).

    Raises:
        TypeError: something that has one value at a facet.
    """
    check_sides("average", value)
    return 0.5 * (value.minus + value.plus)


def check_sides(call: str, value: Any) -> None:
    if not isinstance(value, TwoSided):
        raise TypeError(
            f"`{call}` is of what has two values at a facet: u, its derivatives, and parameters that may jump (one "
            f"value per cell, materials by cell tag, gradients); got {shown(value)}, which has one. Take it as it is."
        )


class SideField:
    """A function space as one side of facets sees it: 0 is minus, 1 is plus. It has the face that integrals look at."""

    def __init__(self, space: FunctionSpace, side: int):
        self.space, self.side = space, side
        self.components, self.mesh = space.components, space.mesh
        self.points = space.quadrature

    @property
    def quadrature(self) -> "SideField":
        return self

    @property
    def num_dofs(self) -> int:
        """Both sides draw on the same dofs, which are counted once: after the plus side."""
        return self.side * self.space.num_dofs

    def own(self, pairs: Domain) -> Domain:
        """The facets as this side sees them."""
        assert isinstance(pairs, FacetPairs)
        return pairs.sides[self.side]

    def values(self, u: Tensor, pairs: Domain, geometry: PairGeometry, derivatives: int = 1) -> Slots:
        return self.points.values(u, self.own(pairs), geometry.seen_from(self.side), derivatives)

    @property
    def mapping(self) -> Mapping:
        return self.points.mapping

    def rank(self, order: int) -> int:
        return self.points.rank(order)

    def orientation(self, pairs: Domain) -> Float[Tensor, "#e a a"] | None:
        return self.points.orientation(self.own(pairs))

    def table(self, pairs: Domain, derivatives: int = 1) -> Float[Tensor, "#e q s a"]:
        return self.points.table(self.own(pairs), derivatives)

    def dofs(self, pairs: Domain) -> Int[Tensor, "e a"]:
        return self.points.dofs(self.own(pairs))

    def from_points(self, values: Tensor, pairs: Domain, derivatives: int, magnitude: bool = False) -> Tensor:
        return self.points.from_points(values, self.own(pairs), derivatives, magnitude)


class TwoSides:
    """A space with two fields, minus and plus, for each of its own."""

    def __init__(self, space: AnySpace):
        self.space, self.mesh, self.quadrature = space, space.mesh, space.quadrature
        self.device, self.dtype = space.device, space.dtype
        self.fields = tuple(SideField(field, side) for field in space.fields for side in (0, 1))

    def split(self, u: Tensor) -> list[Tensor]:
        return [part for part in self.space.split(u) for _ in (0, 1)]


def side_of(geometry: Geometry, field: Any) -> Geometry:
    """The geometry that a field needs: that of its side on facets with two."""
    return geometry.seen_from(field.side) if isinstance(geometry, PairGeometry) else geometry
