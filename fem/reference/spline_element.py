"""Tensor-product B-splines as an element: the knot spans are its cells, and its basis differs from cell to cell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from fem.reference.bspline import basis_functions, check_dtype, check_knots, greville, uniform_knots
from fem.reference.cells import Cell, hexahedron, interval, quadrilateral
from fem.reference.element import Tabulation
from fem.reference.rational import normalize
from fem.support.checks import check_floating, check_kind, is_integer, shown
from fem.support.transforms import outside_transforms


@dataclass(frozen=True, init=False, eq=False)
class BSpline:
    """Tensor-product B-splines, rational where `weights` are given, on the interval, quadrilateral or hexahedron.

    The cells are the non-empty knot spans, numbered with x fastest (ix + nx (iy + ny iz)); so are the local functions,
    a = ax + (px + 1) (ay + (py + 1) az), the global ones, and the weights. The reference cell [0, 1]^r is mapped
    affinely to the span, and `tabulate` differentiates with respect to its coordinates.

        R_a = w_a N_a / Σ_c w_c N_c,    N_a(u) = Π_r N_{a_r, p_r}(u_r)

    Args:
        knots: one knot vector per direction, x first; a single tensor for one direction.
        degree: one for all directions, or one per direction (`degrees`; `degree` is the smallest of them).
        weights: positive, "n" with x fastest, or on the grid of functions with x last, "nz ny nx".

    Raises:
        TypeError: knots or weights differ in dtype.
        ValueError: not one to three directions, a degree missing, knots that `check_knots` rejects, weights that have
            the wrong shape or are not positive.
    """

    knots: tuple[Float[Tensor, "_"], ...]
    degrees: tuple[int, ...]
    weights: Float[Tensor, "_"] | None

    def __init__(
        self,
        knots: Float[Tensor, "_"] | Sequence[Float[Tensor, "_"]],
        degree: int | Sequence[int],
        weights: Float[Tensor, "..."] | None = None,
    ):
        check_kind("BSpline", "knots", knots, Tensor | Sequence, "one knot vector per direction")
        knots = (knots,) if isinstance(knots, Tensor) else tuple(knots)
        for i, t in enumerate(knots):
            check_kind("BSpline", f"knots[{i}]", t, Tensor, "a tensor, one knot vector per direction")
        if weights is not None:
            check_kind("BSpline", "weights", weights, Tensor, "a tensor with one weight per basis function")
        degrees = per_direction(degree, len(knots))
        for t, p in zip(knots, degrees, strict=True):
            check_knots(t, p)
            check_dtype("knots", t, knots[0])
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "degrees", degrees)
        object.__setattr__(self, "weights", None if weights is None else weights.reshape(-1))
        if weights is not None:
            check_dtype("weights", weights, knots[0])
            grid = self.dof_shape[::-1]
            if tuple(weights.shape) not in ((self.num_dofs,), grid):
                raise ValueError(
                    f"`weights` must have shape ({self.num_dofs},) or {grid} (x last), one per basis function; "
                    f"got {tuple(weights.shape)}."
                )
            if not (weights.detach() > 0).all():
                raise ValueError(f"`weights` must be positive; got {weights.detach().min().item()}.")

    @classmethod
    def uniform(
        cls,
        shape: int | Sequence[int],
        degree: int | Sequence[int],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> "BSpline":
        """Clamped splines of maximal smoothness on [0, 1]^r; `shape` is the number of equal spans, x first.

        Raises:
            ValueError: no spans, or a degree missing.
        """
        shape = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        degrees = per_direction(degree, len(shape))
        check_floating("BSpline.uniform", dtype)
        if not all(is_integer(n, 1) for n in shape):
            raise ValueError(
                f"`BSpline.uniform(shape, ...)` needs at least one span per direction; got {shown(shape)}."
            )
        return cls([uniform_knots(n + p, p, dtype, device) for n, p in zip(shape, degrees, strict=True)], degrees)

    @property
    def cell(self) -> Cell:
        return (interval, quadrilateral, hexahedron)[len(self.knots) - 1]

    @property
    def degree(self) -> int:
        """The highest degree that the (polynomial) basis reproduces: the smallest over the directions."""
        return min(self.degrees)

    @property
    def continuity(self) -> int:
        """How many derivatives are continuous across all spans: p − k at a knot of multiplicity k, p where none is."""
        inner = (p - spans.diff() for p, spans in zip(self.degrees, self.spans, strict=True))
        return min((*self.degrees, *(int(orders.min()) for orders in inner if len(orders))))

    @property
    def num_basis(self) -> int:
        return prod(p + 1 for p in self.degrees)

    @property
    def dof_shape(self) -> tuple[int, ...]:
        """Global basis functions per direction, x first."""
        return tuple(len(t) - p - 1 for t, p in zip(self.knots, self.degrees, strict=True))

    @property
    def num_dofs(self) -> int:
        return prod(self.dof_shape)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Cells (non-empty spans) per direction, x first."""
        return tuple(len(spans) for spans in self.spans)

    @property
    def num_cells(self) -> int:
        return prod(self.grid_shape)

    @cached_property
    @outside_transforms()
    def spans(self) -> tuple[Int64[Tensor, "_"], ...]:
        """Indices i of the non-empty spans [t_i, t_{i+1}] per direction."""
        pairs = zip(self.knots, self.degrees, strict=True)
        return tuple(p + (t.detach()[p : len(t) - p].diff() > 0).nonzero()[:, 0] for t, p in pairs)

    @cached_property
    @outside_transforms()
    def cell_dofs(self) -> Int64[Tensor, "e a"]:
        """Global numbers of the functions that live on each cell, x fastest."""
        dofs, stride = torch.zeros(1, 1, dtype=torch.int64, device=self.knots[0].device), 1
        for spans, p, n in zip(self.spans, self.degrees, self.dof_shape, strict=True):
            line = (spans - p)[:, None] + torch.arange(p + 1, device=spans.device)
            dofs = (stride * line[:, None, :, None] + dofs[:, None, :]).flatten(2).flatten(0, 1)
            stride *= n
        return dofs

    @property
    def breakpoints(self) -> tuple[Float[Tensor, "_"], ...]:
        """The different knots of the parameter range, per direction: the corners of the cells.

        Of a repeated knot the last copy counts, for the cells on both sides: these tile the range whichever copy moves,
        and integrals over all cells have the right derivative in every knot.
        """
        pairs = zip(self.knots, self.spans, strict=True)
        return tuple(t[torch.cat([spans, spans[-1:] + 1])] for t, spans in pairs)

    def greville(self) -> tuple[Float[Tensor, "_"], ...]:
        """Greville abscissae per direction, one for each basis function; see `fem.reference.bspline.greville`."""
        return tuple(greville(t, p) for t, p in zip(self.knots, self.degrees, strict=True))

    def on(self, cell: Cell) -> "BSpline":
        """This element.

        Raises:
            ValueError: the cell is not of this element's kind.
        """
        if cell != self.cell:
            raise ValueError(
                f"A B-spline with {len(self.knots)} knot vectors lives on the {self.cell.name}; got the {cell.name}. "
                f"Give one knot vector per direction of a tensor-product cell."
            )
        return self

    def parameters(self, points: Float[Tensor, "q r"]) -> Float[Tensor, "e q r"]:
        """Where the reference points lie in the parameter space of each cell, u = t_i + (t_{i+1} - t_i) x."""
        dim, lines = len(self.knots), self._lines(points)
        views = [
            u.reshape(*[-1 if r == axis else 1 for r in reversed(range(dim))], len(points))
            for axis, u in enumerate(lines)
        ]
        return torch.stack(torch.broadcast_tensors(*views), -1).flatten(0, -3)

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> Tabulation:
        """The functions on every cell at reference points, with derivatives up to order 0, 1 or 2 in reference
        coordinates; differentiable in points, knots and weights.

        Raises:
            TypeError: points and knots differ in dtype.
            ValueError: another order, or points of another dimension.
        """
        if derivatives not in (0, 1, 2):
            raise ValueError(f"`derivatives` must be 0, 1 or 2; got {derivatives}.")
        dim, lines = len(self.knots), []
        for u, t, p, spans, corners in zip(
            self._lines(points), self.knots, self.degrees, self.spans, self.breakpoints, strict=True
        ):
            line = basis_functions(t, p, u, derivatives, spans[:, None].expand(u.shape))
            scale = corners.diff()[:, None] ** torch.arange(derivatives + 1, device=u.device)  # du = (t_{i+1} - t_i) dx
            lines.append(line * scale[..., None, None])

        def product(*axes: int) -> Float[Tensor, "e q a"]:
            """The tensor product of the lines, differentiated once along each of the axes."""
            result = lines[0][:, axes.count(0)]
            for axis in range(1, dim):
                both = torch.einsum("eqa,fqc->feqca", result, lines[axis][:, axes.count(axis)])
                result = both.flatten(3).flatten(0, 1)
            return result

        jet = [product()]
        if derivatives > 0:
            jet.append(torch.stack([product(r) for r in range(dim)], -1))
        if derivatives > 1:
            upper = {(r, s): product(r, s) for r in range(dim) for s in range(r, dim)}
            rows = [torch.stack([upper[min(r, s), max(r, s)] for s in range(dim)], -1) for r in range(dim)]
            jet.append(torch.stack(rows, -2))
        if self.weights is not None:
            local = self.weights[self.cell_dofs][:, None]
            jet = normalize([part * local.reshape(*local.shape, *[1] * k) for k, part in enumerate(jet)])
        return Tabulation(*jet)

    def tabulate_at(self, cells: Int[Tensor, "q"], points: Float[Tensor, "q r"], derivatives: int = 0) -> Tabulation:
        """The functions on the q-th cell at the q-th reference point, with derivatives up to order 0 or 1 there:
        `tabulate` for scattered points, with a cell axis of length one.

        Raises:
            TypeError: points and knots differ in dtype.
        """
        check_dtype("points", points, self.knots[0])
        lines, rest = [], cells
        directions = zip(self.knots, self.degrees, self.spans, self.breakpoints, points.unbind(-1), strict=True)
        for t, p, spans, corners, x in directions:
            span, rest = rest % len(spans), rest // len(spans)
            u = torch.lerp(corners[span], corners[span + 1], x)
            line = basis_functions(t, p, u, derivatives, spans[span])
            width = (corners[span + 1] - corners[span])[:, None]
            lines.append([part * width**k if k else part for k, part in enumerate(line)])

        def product(*axes: int) -> Float[Tensor, "q a"]:
            result = points.new_ones(len(points), 1)
            for axis, line in enumerate(lines):
                result = (line[axes.count(axis)][:, :, None] * result[:, None, :]).flatten(1)
            return result

        jet = [product(), *([torch.stack([product(r) for r in range(len(lines))], -1)] if derivatives else [])]
        if self.weights is not None:
            local = self.weights[self.cell_dofs[cells]]
            jet = normalize([part * local.reshape(*local.shape, *[1] * k) for k, part in enumerate(jet)])
        return Tabulation(*(part[None] for part in jet))

    def _lines(self, points: Tensor) -> list[Tensor]:
        """The parameters of the points on the spans of each direction, "e q" with the spans of that direction."""
        check_dtype("points", points, self.knots[0])
        if points.shape[-1] != len(self.knots):
            raise ValueError(f"`points` must be of dimension {len(self.knots)}; got shape {tuple(points.shape)}.")
        pairs = zip(self.breakpoints, points.unbind(-1), strict=True)
        return [torch.lerp(corners[:-1, None], corners[1:, None], x) for corners, x in pairs]


def per_direction(degree: int | Sequence[int], directions: int) -> tuple[int, ...]:
    if not 1 <= directions <= 3:
        raise ValueError(f"A `BSpline` has one, two or three directions; got {directions}.")
    degrees = tuple(degree) if isinstance(degree, Iterable) else (degree,) * directions
    if len(degrees) != directions or not all(is_integer(p, 0) for p in degrees):
        raise ValueError(f"`degree` must be one integer or one per direction ({directions}); got {shown(degree)}.")
    return tuple(int(p) for p in degrees)
