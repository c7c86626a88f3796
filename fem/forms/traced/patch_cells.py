"""Loops over patches of splines: which spaces they serve, and how their integrands get u and the parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fem.forms.parameters import Constant, PointValues, Resolved, field_of
from fem.forms.term import Term
from fem.forms.traced.loops import Given, GridCells, is_traceable, shape_of
from fem.forms.traced.mesh_cells import MESH_POINTS
from fem.kernels.grid_inputs import Input
from fem.kernels.patches.integrand import PatchIntegrand, on_patch
from fem.kernels.tape import Tape
from fem.mesh.geometry import Domain
from fem.space.field import Function, Gradient
from fem.space.space import AnySpace, FunctionSpace


@dataclass(frozen=True)
class PatchCells(GridCells):
    """All spans of a patch of splines, with the patch's homogeneous control points among the fields."""

    domain: Domain

    @classmethod
    def on(cls, space: AnySpace, term: Term, domain: Domain) -> "PatchCells | None":
        """All spans of a domain, if the loop serves the space and the term."""
        if term.tag is not None or term.linear_in_test or not is_traceable(term) or space.mesh.dim < 2:
            return None
        if not isinstance(space, FunctionSpace) or not has_patches(space):
            return None
        count = space.mesh.blocks[domain.block].num_cells
        whole = domain.cells is None and space.mesh.num_cells * len(domain.weights) >= MESH_POINTS and count > 0
        known = whole and space.quadrature.patch_basis(domain) and space.quadrature.patch_geometry(domain)  # type: ignore[attr-defined]
        return cls(space, term, domain) if known else None

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

    def physical(self) -> list[Any]:
        dim, shape, order = self.space.mesh.num_coordinates, self.space.shape[1:], self.term.derivatives
        return [(dim,), shape, *[(*shape, dim)][:order]]

    def slots(self) -> tuple[list[Any], list[Input]]:
        """The patch's (P̂, ŵ), u and its reference derivatives, those of the first, and the weight."""
        shape, r, order = self.space.shape[1:], self.space.mesh.dim, self.term.derivatives
        place = self.space.quadrature.patch_geometry(self.domain)  # type: ignore[attr-defined]
        k = place.points.shape[-1]
        return [(k,), shape, *[(*shape, r)][:order], (k, r), ()], [
            Input("field", tuple((o, o + 1) for o in range(order + 1)), shape, basis=self.own),
            Input("field", ((0, 0), (1, order + 2)), (k,), basis=("patch", place.basis.widths)),
            Input("points", ((0, order + 3),)),
        ]

    def parameter(self, value: Resolved, place: int, side: int = 0) -> Given | None:
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
        self, tape: Tape, arguments: Sequence[Any], inputs: Sequence[Input], values: Sequence[Resolved]
    ) -> PatchIntegrand:
        order = self.term.derivatives
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
