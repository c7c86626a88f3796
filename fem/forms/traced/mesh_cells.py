"""Loops over cells and facets of any mesh: which they serve, and how their integrands get u and the parameters.

Arguments of a density stand one after another here: x, each field of u (on facets with two sides first minus, then
plus) with its derivatives, the same of test functions, on facets normal and size, and the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fem.forms.parameters import Constant, PointValues, Resolved, field_of
from fem.forms.term import Term
from fem.forms.traced.facets import Facets
from fem.forms.traced.loops import Given, is_traceable, shape_of
from fem.forms.traced.places import cells_of
from fem.kernels.cells.integrand import CellIntegrand, in_reference
from fem.kernels.grid_inputs import Input
from fem.kernels.tape import Tape
from fem.mesh.geometry import Domain
from fem.reference.discontinuous import Discontinuous
from fem.reference.lagrange import Lagrange
from fem.space.facets.two_sides import TwoSided
from fem.space.field import Function, Gradient
from fem.space.quadrature_points import QuadraturePoints
from fem.space.space import AnySpace, FunctionSpace, MixedSpace

MESH_POINTS = 2**14  # on fewer quadrature points the trace of a density costs more than it saves
FACET_POINTS, GROUPS = 2**11, 16  # the same on facets; each group of them costs as much as many points


@dataclass(frozen=True)
class MeshCells:
    """All cells of one kind, or facets; points x, inverse Jacobians and measures are among the integrand's arguments.

    `double` tells the parameters of the user that have two values on facets with two sides, which are two here.
    """

    space: AnySpace
    term: Term
    domain: Domain | Facets
    double: tuple[bool, ...] = ()

    @classmethod
    def of(cls, space: AnySpace, term: Term, domain: Domain) -> "MeshCells | None":
        """All cells of a domain, if the loop serves the space and the term."""
        if term.tag is not None or not serves(space, term):
            return None
        grid = space.mesh.is_uniform and not term.linear_in_test
        if isinstance(space, FunctionSpace) and (space.degree == 0 or (grid and space.is_lagrange)):
            return None  # grids are for `GridCells`, or too small
        return None if space.mesh.num_cells * len(domain.weights) < MESH_POINTS else cls(space, term, domain)

    @classmethod
    def of_facets(cls, space: AnySpace, term: Term, facets: Facets, double: tuple[bool, ...]) -> "MeshCells | None":
        """Facets, if the loop serves the space and the term. Those of grids are few, and solvers know them."""
        if not serves(space, term) or space.mesh.is_uniform:
            return None
        few = sum(facets.counts) * len(facets.weights) < FACET_POINTS and len(facets.groups) < GROUPS
        return None if few else cls(space, term, facets, double)

    @property
    def key(self) -> Any:
        return self.domain

    @property
    def sides(self) -> int:
        return self.domain.sides if isinstance(self.domain, Facets) else 1

    @property
    def fields(self) -> list[tuple[FunctionSpace, int]]:
        """Those of u, and those of the test functions of weak forms, with their sides."""
        own = [(field, side) for field in self.space.fields for side in range(self.sides)]
        return own * (2 if self.term.linear_in_test else 1)

    def physical(self) -> list[Any]:
        """Shapes of all arguments before the parameters, as the density gets them."""
        dim, order = self.space.mesh.num_coordinates, self.term.derivatives
        slots = [s for f, _ in self.fields for s in (f.shape[1:], (*f.shape[1:], dim))[: order + 1]]
        return [(dim,), *slots, *[(dim,), ()][: self.num_facet]]

    @property
    def num_facet(self) -> int:
        """How many arguments tell of a facet: the normal, and between two cells the size."""
        return self.sides if isinstance(self.domain, Facets) else 0

    @property
    def facet_values(self) -> list[PointValues]:
        """Normals and sizes, as a density gets them."""
        return [PointValues(t, 1 - k) for k, t in enumerate(self.geometry[2 + self.sides :])]

    def arranged(self, arguments: Sequence[Any]) -> list[Any]:
        """Arguments one after another as the density gets them: both sides together, fields in tuples."""
        width, sides, count = self.term.derivatives + 1, self.sides, len(self.space.fields)
        end = 1 + len(self.fields) * width
        (x, *own), facet, rest = (
            arguments[:end],
            arguments[end : end + self.num_facet],
            arguments[end + self.num_facet :],
        )
        both = lambda values: TwoSided(*values) if sides == 2 else values[0]  # noqa: E731
        found = []
        for first in range(0, len(own), count * sides * width):
            for k in range(width):
                starts = range(first + k, first + count * sides * width, sides * width)
                slots = tuple(both(own[i : i + sides * width : width]) for i in starts)
                found.append(slots if isinstance(self.space, MixedSpace) else slots[0])
        params, values = iter(rest), []
        for double in self.double or [False] * len(rest):
            values.append(TwoSided(next(params), next(params)) if double else next(params))
        return [x, *found, *facet, *values]

    def slots(self) -> tuple[list[Any], list[Input]]:
        """All arguments before the parameters in reference coordinates, with ∂ξ/∂x and measure after test functions."""
        mesh, order = self.space.mesh, self.term.derivatives
        r, d = mesh.dim, mesh.num_coordinates
        arguments: list[Any] = [(d,)]
        inputs = []
        for f, side in self.fields:
            places = tuple((k, len(arguments) + k) for k in range(order + 1))
            arguments += [f.shape[1:], (*f.shape[1:], r)][: order + 1]
            inputs.append(Input("field", places, f.shape[1:], f.degree, (f.family, side)))
        shapes = [(d,), *[(r, d)] * self.sides, (), *[(d,), ()][: self.num_facet]]
        places = [0, *range(len(arguments), len(arguments) + len(shapes) - 1)]
        kinds = ["points"] * len(shapes)
        for k, t in enumerate(self.geometry):
            if 1 <= k <= self.sides or k > 1 + self.sides:
                kinds[k] = "steady" if t.shape[1] == 1 else "points"
        found = [Input(kind, ((0, at),), shape) for kind, at, shape in zip(kinds, places, shapes, strict=True)]
        return [*arguments, *shapes[1:]], [*inputs, *found]

    @property
    def geometry(self) -> list[torch.Tensor]:
        """x, ∂ξ/∂x of each side, the measure, and on facets the normal and the size."""
        if isinstance(self.domain, Facets):
            return self.domain.tensors(self.space)
        place = self.space.quadrature.geometry(self.domain)
        return [place.points, place.inverse, place.weights]

    def sides_of(self, values: Sequence[Resolved]) -> list[int]:
        """From which side each parameter is seen."""
        return [side for double in self.double for side in ((0, 1) if double else (0,))] or [0] * len(values)

    def parameter(self, value: Resolved, place: int, side: int = 0) -> Given | None:
        """What stands at a place for a parameter; None for what the loop does not serve."""
        shape = shape_of(value, self.space.mesh.dim)  # gradients are those in reference coordinates
        if isinstance(value, int | float):
            return shape, None
        if isinstance(value, Constant):
            return shape, Input("constant", ((0, place),), shape)
        if isinstance(value, PointValues):
            steady = value.value.shape[-1 - value.rank] == 1
            return shape, Input("steady" if steady else "points", ((0, place),), shape)
        function, order = field_of(value)
        space = function.space
        given = Input("field", ((order, place),), space.shape[1:], space.degree, (space.family, side))
        return (shape, given) if has_table(space) else None

    def integrand(
        self, tape: Tape, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> CellIntegrand:
        order, count, seen = self.term.derivatives, len(self.space.fields) * self.sides, self.sides_of(values)
        others = [side if isinstance(v, Gradient) else None for v, side in zip(values, seen, strict=True)]
        own = [side if k else None for _, side in self.fields for k in range(order + 1)]
        pairs = [(field, side) for field, side in self.fields]
        pairs += [
            (field_of(v)[0].space, side)
            for v, side in zip(values, seen, strict=True)
            if isinstance(v, Function | Gradient)
        ]
        if isinstance(self.domain, Facets):
            cells = self.domain.cells(pairs)
        else:
            cells = cells_of(self.space, self.domain, [space for space, _ in pairs])
        return CellIntegrand(
            *(self.space, tape, ("cells", order, count, self.term.linear_in_test, tuple(others), self.num_facet)),
            in_reference(tape.run, own, [*[None] * self.num_facet, *others], self.sides),
            *(tuple(arguments), tuple(inputs)),
            unknowns=tuple(range(count)),
            tests=tuple(range(len(self.fields) - count, len(self.fields))),
            cells=cells,
        )


def serves(space: AnySpace, term: Term) -> bool:
    """Whether loops over cells of any mesh serve a space and a term."""
    return is_traceable(term) and space.device.type == "cpu" and all(map(has_table, space.fields))


def has_table(space: FunctionSpace) -> bool:
    """Whether a space has one and the same basis of polynomials on all cells of a kind."""
    return type(space.family) in (Lagrange, Discontinuous) and type(space.quadrature) is QuadraturePoints
