"""√det(JᵀJ) integrated over boxes of parameters, which are halved until two Gauss rules agree.

A rule of g points per direction is held against the same on both halves in one direction, which tells how much that
direction adds to the error. Where this is too much the box is halved in the directions to blame. All boxes of all items
of a batch are worked on at a time, in double precision and without gradient; what comes out is where to integrate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fem.mesh.jacobian import determinant
from fem.reference.bspline import find_span
from fem.reference.quadrature import quadrature
from fem.support.checks import check_integers
from fem.support.portions import at_a_time
from nurbs.geometry.patch import Patch
from nurbs.geometry.spans import on_spans

MARGIN = 0.1  # of the tolerance is aimed at, because an estimate is no bound
MOST = 2**21  # quadrature points of one item
DEEPEST = 48  # halvings of one direction


def gauss_rule(patch: Patch, num_points: int | None) -> tuple[Float[Tensor, "g"], Float[Tensor, "g"]]:
    """Gauss–Legendre points and weights on [0, 1] in the patch's dtype; 2 degree + 4 of them by default."""
    check_integers("measure", optional=True, num_points=num_points)
    rule = quadrature("interval", 2 * (num_points or 2 * max(patch.degree) + 4) - 1)
    return rule.points[:, 0].to(patch.device, patch.dtype), rule.weights.to(patch.device, patch.dtype)


def density(jacobian: Float[Tensor, "*q d r"]) -> Float[Tensor, "*q"]:
    """√det(JᵀJ) = √Σ (det of r rows of J)² (Cauchy and Binet), which keeps its digits where J is nearly singular."""
    d, r = jacobian.shape[-2:]
    if r == 1:
        return torch.linalg.vector_norm(jacobian[..., 0], dim=-1)
    minors = [determinant(jacobian[..., list(rows), :]) for rows in combinations(range(d), r)]
    return minors[0].abs() if d == r else torch.linalg.vector_norm(torch.stack(minors, -1), dim=-1)


@dataclass(frozen=True, eq=False)
class Cells:
    """Boxes of parameters, each inside one span of its item.

    Attributes:
        patch: with one batch axis and no periodic directions.
        item: of each box.
        start, end: per direction.
    """

    patch: Patch
    item: Int64[Tensor, "c"]
    start: Float[Tensor, "c r"]
    end: Float[Tensor, "c r"]

    @staticmethod
    def of(patch: Patch, corners: Sequence[Float[Tensor, "b _"]], index: Int64[Tensor, "c one_r"]) -> "Cells":
        """The cells with these indices (item, then one per direction) of the grids of corners."""
        item, *cells = index.unbind(-1)
        ends = [torch.stack([c[item, i + side] for c, i in zip(corners, cells, strict=True)], -1) for side in (0, 1)]
        return Cells(patch, item, *ends)

    def spans(self) -> Patch:
        """The patch on the span of each cell."""
        middle = ((self.start + self.end) / 2).detach()
        pairs = zip(self.patch.knots, self.patch.degree, middle.unbind(-1), strict=True)
        spans = [find_span(t[self.item], p, u[:, None], check=False)[:, 0] for t, p, u in pairs]
        return on_spans(self.patch, self.item, spans)

    def integrals(
        self, spans: Patch, leaves: "Leaves", rules: Sequence[tuple[Float[Tensor, "_"], Float[Tensor, "_"]]]
    ) -> Float[Tensor, "s"]:
        """Over leaves, with Gauss points and weights per direction."""
        width = self.end - self.start
        low = self.start[leaves.cell] + width[leaves.cell] * leaves.low
        extent = width[leaves.cell] * leaves.extent
        lines = [low[:, axis, None] + extent[:, axis, None] * x for axis, (x, _) in enumerate(rules)]
        value = density(spans[leaves.cell].jacobian(*lines))
        for _, w in reversed(rules):
            value = value @ w
        return value * extent.prod(-1)


@dataclass(frozen=True, eq=False)
class Leaves:
    """Parts of cells, low + [0, 2^-halvings] in shares of them; the integral over each, and its error by direction."""

    cell: Int64[Tensor, "s"]
    low: Float[Tensor, "s r"]
    halvings: Int64[Tensor, "s r"]
    value: Float[Tensor, "s"]
    error: Float[Tensor, "s r"]

    def __getitem__(self, rows: Tensor) -> "Leaves":
        return Leaves(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def extent(self) -> Float[Tensor, "s r"]:
        return torch.exp2(-self.halvings.to(self.low))

    def of_cells(self, cell: Int64[Tensor, "s"], dtype: torch.dtype) -> "Leaves":
        """The same parts of cells that have other numbers, in another dtype."""
        return Leaves(cell, self.low.to(dtype), self.halvings, self.value.to(dtype), self.error.to(dtype))

    def and_others(self, others: "Leaves") -> "Leaves":
        return Leaves(*(torch.cat([getattr(self, f.name), getattr(others, f.name)]) for f in fields(self)))

    def halved(self) -> "Leaves":
        """Halves in all directions whose share of the error is not small."""
        found = self
        to_blame = self.error >= 0.1 * self.error.amax(-1, keepdim=True)
        for axis in range(self.low.shape[1]):
            blamed = to_blame[:, axis].nonzero()[:, 0]
            halvings, low = found.halvings.clone(), found.low.clone()
            halvings[blamed, axis] += 1
            low[:, axis] += torch.exp2(-halvings[:, axis].to(low))
            first = Leaves(found.cell, found.low, halvings, found.value, found.error)
            second = Leaves(found.cell, low, halvings, found.value, found.error)[blamed]
            found, to_blame = first.and_others(second), torch.cat([to_blame, to_blame[blamed]])
        return found


def measured(cells: Cells, spans: Patch, leaves: Leaves, num_points: int | None) -> Leaves:
    """With their integrals and errors."""
    x, w = rule = gauss_rule(cells.patch, num_points)
    halves = torch.cat([x, 1 + x]) / 2, torch.cat([w, w]) / 2
    r, found = cells.patch.directions, []
    size = at_a_time(2 * len(x) ** r * cells.patch.dim * r, cells.start)
    for rows in torch.arange(len(leaves.cell), device=leaves.cell.device).split(size):
        part = leaves[rows]
        value = cells.integrals(spans, part, [rule] * r)
        rules = [[halves if other == axis else rule for other in range(r)] for axis in range(r)]
        finer = [cells.integrals(spans, part, each) for each in rules]
        error = torch.stack([(fine - value).abs() for fine in finer], -1)
        found.append(Leaves(part.cell, part.low, part.halvings, value, error))
    return Leaves(*(torch.cat([getattr(part, f.name) for part in found]) for f in fields(Leaves)))


@torch.no_grad()
def adapted(cells: Cells, items: int, rtol: float) -> tuple[Leaves, Bool[Tensor, "c"], Float[Tensor, "b"]]:
    """Leaves on which Gauss rules integrate each of the items to rtol of its whole, which cells are cut into them, and
    the relative errors that are left where that was not to be reached, zero elsewhere."""
    spans = cells.spans()
    count, r = len(cells.item), cells.patch.directions
    zeros = cells.start.new_zeros(count, r)
    each = torch.arange(count, device=zeros.device)
    leaves = measured(cells, spans, Leaves(each, zeros, zeros.long(), zeros[:, 0], zeros), None)
    points = cells.patch.control_points.flatten(1, r)
    size = torch.linalg.vector_norm(points.amax(1) - points.amin(1), dim=-1)
    eps = torch.finfo(zeros.dtype).eps
    most = MOST // len(gauss_rule(cells.patch, None)[0]) ** r
    while True:
        item, error = cells.item[leaves.cell], leaves.error.sum(-1)
        none = zeros.new_zeros(items)
        whole, left = none.index_add(0, item, leaves.value), none.index_add(0, item, error)
        allowed, parts = rtol * whole + 100 * eps * size**r, torch.bincount(item, minlength=items)
        aim = MARGIN * allowed
        open_ = (left > aim) & (parts < most)
        cut = open_[item] & (error > (aim / parts)[item]) & (leaves.halvings < DEEPEST).all(-1)
        if not cut.any():
            break
        halves = measured(cells, spans, leaves[cut.nonzero()[:, 0]].halved(), None)
        leaves = leaves[(~cut).nonzero()[:, 0]].and_others(halves)
    refined = torch.zeros_like(each, dtype=torch.bool)
    refined[leaves.cell[(leaves.halvings > 0).any(-1)]] = True
    return leaves, refined, torch.where(left > allowed, left / whole, 0)
