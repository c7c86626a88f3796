"""Loops over the cells of uniform grids: which spaces they serve, and how their integrands get u and the parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fem.forms.derivatives import observable
from fem.forms.parameters import Constant, PointValues, Resolved, field_of
from fem.forms.term import Term
from fem.kernels.grid_inputs import Input
from fem.kernels.grid_integrand import GridIntegrand
from fem.kernels.tape import Tape
from fem.reference.discontinuous import Discontinuous
from fem.space.space import AnySpace, FunctionSpace

GRID_CELLS = 2**11  # on smaller grids the trace of a density costs more than it saves

Given = tuple[Any, Input | None]  # an argument of an integrand, its shape or the number that it is, and its tensor


def is_traceable(term: Term) -> bool:
    """Whether a term's density may be traced: `torch.func`, forward differentiation and `torch.compile` must see it."""
    return observable() and term.derivatives < 2


def shape_of(value: Resolved, dim: int) -> Any:
    """A parameter at one point: its shape, or the number that it is."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Constant):
        return tuple(value.shape)
    if isinstance(value, PointValues):
        return tuple(value.value.shape[value.value.ndim - value.rank :])
    function, order = field_of(value)
    return (*function.value_shape, dim) if order else function.value_shape


@dataclass(frozen=True)
class GridCells:
    """All cells of a uniform grid."""

    space: FunctionSpace
    term: Term

    @classmethod
    def of(cls, space: AnySpace, term: Term) -> "GridCells | None":
        """If the loop serves the space and the term."""
        if not is_traceable(term) or not isinstance(space, FunctionSpace) or not space.mesh.is_uniform:
            return None
        served = space.mesh.num_cells >= GRID_CELLS and space.is_lagrange and not term.linear_in_test
        return cls(space, term) if served else None

    @property
    def key(self) -> Any:
        return None

    @property
    def facet_values(self) -> list[PointValues]:
        """What a density gets of facets."""
        return []

    def physical(self) -> list[Any]:
        """Shapes of x, u and its derivatives as the density gets them."""
        return self.slots()[0]

    def arranged(self, arguments: Sequence[Any]) -> list[Any]:
        """Arguments one after another as the density gets them."""
        return list(arguments)

    def slots(self) -> tuple[list[Any], list[Input]]:
        """x, u and its derivatives."""
        dim, shape, order = self.space.mesh.dim, self.space.shape[1:], self.term.derivatives
        places = tuple((k, k + 1) for k in range(order + 1))
        return [(dim,), shape, *[(*shape, dim)][:order]], [Input("field", places, shape, self.space.degree)]

    def sides_of(self, values: Sequence[Resolved]) -> list[int]:
        """From which side each parameter is seen."""
        return [0] * len(values)

    def parameter(self, value: Resolved, place: int, side: int = 0) -> Given | None:
        """What stands at a place for a parameter; None for what the loop does not serve."""
        shape = shape_of(value, self.space.mesh.dim)
        if isinstance(value, int | float):
            return shape, None
        if isinstance(value, Constant | PointValues):
            return shape, Input("constant" if isinstance(value, Constant) else "points", ((0, place),), shape)
        function, order = field_of(value)
        if function.space.family == Discontinuous(0):
            return shape, Input("cells", ((0, place),), function.space.shape[1:])
        given = Input("field", ((order, place),), function.value_shape, function.space.degree)
        return (shape, given) if function.space.is_lagrange else None

    def integrand(
        self, tape: Tape, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> GridIntegrand:
        return GridIntegrand(self.space, tape, self.term.derivatives, tape.run, tuple(arguments), tuple(inputs))
