"""The three kinds of loops over cells: which spaces they serve, and how their integrands get u and the parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fem.forms.derivatives import observable
from fem.forms.parameters import Constant, PointValues, Resolved, field_of
from fem.forms.term import Term
from fem.kernels.cells.integrand import CellIntegrand, in_reference
from fem.kernels.grid_inputs import Input
from fem.kernels.grid_integrand import GridIntegrand
from fem.kernels.patches.integrand import PatchIntegrand, on_patch
from fem.kernels.tape import Tape
from fem.mesh.geometry import Domain
from fem.reference.discontinuous import Discontinuous
from fem.reference.lagrange import Lagrange
from fem.space.field import Function, Gradient
from fem.space.quadrature_points import QuadraturePoints
from fem.space.space import AnySpace, FunctionSpace

GRID_CELLS = 2**11  # on smaller grids the trace of a density costs more than it saves
MESH_POINTS = 2**14  # the same for quadrature points of other meshes

Given = tuple[Any, Input | None]  # an argument of an integrand, its shape or the number that it is, and its tensor


def is_traceable(term: Term) -> bool:
    """Whether a term's density may be traced: `torch.func`, forward differentiation and `torch.compile` must see it."""
    return observable() and term.tag is None and not term.linear_in_test and term.derivatives < 2


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

    @classmethod
    def of(cls, space: AnySpace, term: Term) -> "GridCells | None":
        """If the loop serves the space and the term."""
        if not isinstance(space, FunctionSpace) or not is_traceable(term) or not space.mesh.is_uniform:
            return None
        return cls(space) if space.mesh.num_cells >= GRID_CELLS and space.is_lagrange else None

    @property
    def key(self) -> Any:
        return None

    def slots(self, order: int) -> tuple[list[Any], list[Input]]:
        """x, u and its derivatives."""
        dim, shape = self.space.mesh.dim, self.space.shape[1:]
        places = tuple((k, k + 1) for k in range(order + 1))
        return [(dim,), shape, *[(*shape, dim)][:order]], [Input("field", places, shape, self.space.degree)]

    def parameter(self, value: Resolved, place: int) -> Given | None:
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
        self, tape: Tape, order: int, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> GridIntegrand:
        return GridIntegrand(self.space, tape, order, tape.run, tuple(arguments), tuple(inputs))


@dataclass(frozen=True)
class MeshCells:
    """All cells of one kind of any mesh, with points x, inverse Jacobians and measures among the arguments."""

    space: FunctionSpace
    domain: Domain

    @classmethod
    def of(cls, space: AnySpace, term: Term, domain: Domain) -> "MeshCells | None":
        """If the loop serves the space and the term."""
        if not isinstance(space, FunctionSpace) or not is_traceable(term) or not has_table(space):
            return None
        if space.mesh.is_uniform and space.is_lagrange:
            return None  # grids are for `GridCells`, or too small
        few = space.mesh.num_cells * len(domain.weights) < MESH_POINTS
        return None if few or space.degree == 0 or space.device.type != "cpu" else cls(space, domain)

    @property
    def key(self) -> Any:
        return self.domain

    def slots(self, order: int) -> tuple[list[Any], list[Input]]:
        """x, u and its derivatives in reference coordinates, ∂ξ/∂x and the measure of a point."""
        mesh, shape, family = self.space.mesh, self.space.shape[1:], self.space.family
        r, d = mesh.dim, mesh.num_coordinates
        first = torch.zeros(1, dtype=torch.int64, device=self.space.device)
        straight = mesh.map(self.domain.block, first, self.domain.points)[1].shape[1] == 1
        arguments = [(d,), shape, *[(*shape, r)][:order], (r, d), ()]
        return arguments, [
            Input("field", tuple((k, k + 1) for k in range(order + 1)), shape, self.space.degree, family),
            Input("points", ((0, 0),), arguments[0]),
            Input("steady" if straight else "points", ((0, order + 2),), arguments[-2]),
            Input("points", ((0, order + 3),)),
        ]

    def parameter(self, value: Resolved, place: int) -> Given | None:
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
        given = Input("field", ((order, place),), space.shape[1:], space.degree, space.family)
        return (shape, given) if has_table(space) else None

    def integrand(
        self, tape: Tape, order: int, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> CellIntegrand:
        spaces = [self.space, *[field_of(v)[0].space for v in values if isinstance(v, Function | Gradient)]]
        dofs = {V.family: V.quadrature.dofs(self.domain) for V in spaces}
        slopes = [i for i, v in enumerate(values) if isinstance(v, Gradient)]
        return CellIntegrand(
            *(self.space, tape, ("cells", order, tuple(slopes)), in_reference(tape.run, order, slopes)),
            *(tuple(arguments), tuple(inputs)),
            domain=self.domain,
            dofs=dofs,
        )


@dataclass(frozen=True)
class PatchCells:
    """All spans of a patch of splines, with the patch's homogeneous control points among the fields."""

    space: FunctionSpace
    domain: Domain

    @classmethod
    def of(cls, space: AnySpace, term: Term, domain: Domain) -> "PatchCells | None":
        """If the loop serves the space and the term."""
        if (
            not isinstance(space, FunctionSpace)
            or not is_traceable(term)
            or not has_patches(space)
            or space.mesh.dim < 2
        ):
            return None
        count = space.mesh.blocks[domain.block].num_cells
        whole = domain.cells is None and space.mesh.num_cells * len(domain.weights) >= MESH_POINTS and count > 0
        known = whole and space.quadrature.patch_basis(domain) and space.quadrature.patch_geometry(domain)  # type: ignore[attr-defined]
        return cls(space, domain) if known else None

    @property
    def key(self) -> Any:
        return self.domain

    def positions(self) -> Iterator[Any]:
        """Where callables are looked at, some spans at a time."""
        return self.space.quadrature.positions(self.domain)  # type: ignore[attr-defined]

    @property
    def own(self) -> Any:
        return "u", self.space.quadrature.patch_basis(self.domain).widths  # type: ignore[attr-defined]

    def basis_of(self, space: FunctionSpace) -> Any:
        """The name of a space's basis: one for all that are equal."""
        return self.own if same_knots(space, self.space, self.domain.block) else knots_of(space, self.domain.block)

    def slots(self, order: int) -> tuple[list[Any], list[Input]]:
        """The patch's (P̂, ŵ), u and its reference derivatives, those of the first, and the weight."""
        shape, r = self.space.shape[1:], self.space.mesh.dim
        place = self.space.quadrature.patch_geometry(self.domain)  # type: ignore[attr-defined]
        k = place.points.shape[-1]
        return [(k,), shape, *[(*shape, r)][:order], (k, r), ()], [
            Input("field", tuple((o, o + 1) for o in range(order + 1)), shape, basis=self.own),
            Input("field", ((0, 0), (1, order + 2)), (k,), basis=("patch", place.basis.widths)),
            Input("points", ((0, order + 3),)),
        ]

    def parameter(self, value: Resolved, place: int) -> Given | None:
        """What stands at a place for a parameter; None for what the loop does not serve."""
        shape = shape_of(value, self.space.mesh.dim)  # gradients are those in reference coordinates
        if isinstance(value, int | float):
            return shape, None
        if isinstance(value, Constant | PointValues):
            return shape, Input("constant" if isinstance(value, Constant) else "points", ((0, place),), shape)
        function, order = field_of(value)
        space = function.space
        served = has_patches(space) and space.quadrature.patch_basis(self.domain) is not None  # type: ignore[attr-defined]
        given = Input("field", ((order, place),), space.shape[1:], basis=self.basis_of(space)) if served else None
        return None if given is None else (shape, given)

    def integrand(
        self, tape: Tape, order: int, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> PatchIntegrand:
        place = self.space.quadrature.patch_geometry(self.domain)  # type: ignore[attr-defined]
        spaces = [self.space, *[field_of(v)[0].space for v in values if isinstance(v, Function | Gradient)]]
        bases = {self.basis_of(V): V.quadrature.patch_basis(self.domain) for V in spaces}  # type: ignore[attr-defined]
        bases["patch", place.basis.widths] = place.basis
        slopes = [i for i, v in enumerate(values) if isinstance(v, Gradient)]
        return PatchIntegrand(
            *(self.space, tape, ("patch", order, tuple(slopes), place.rational)),
            *(on_patch(tape.run, order, slopes, place.rational), tuple(arguments), tuple(inputs)),
            domain=self.domain,
            bases=bases,
        )


def has_patches(space: FunctionSpace) -> bool:
    """Whether a space is one of splines on patches."""
    return hasattr(space.quadrature, "patch_basis")


def same_knots(one: Any, two: Any, block: int) -> bool:
    mine, theirs = one.elements[block], two.elements[block]
    if mine is theirs:
        return True
    return mine.degrees == theirs.degrees and all(
        s.shape == t.shape and torch.equal(s, t) for s, t in zip(mine.knots, theirs.knots, strict=True)
    )


def knots_of(space: Any, block: int) -> Any:
    """What tells two bases on one patch apart."""
    element = space.elements[block]
    return element.degrees, *[tuple(t.tolist()) for t in element.knots]


def has_table(space: FunctionSpace) -> bool:
    """Whether a space has one and the same basis of polynomials on all cells of a kind."""
    return type(space.family) in (Lagrange, Discontinuous) and type(space.quadrature) is QuadraturePoints
