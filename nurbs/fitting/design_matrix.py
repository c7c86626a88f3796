"""The matrix Φ of B-spline functions at data points, as an operator: Φ c, Φᵀ f, Φᵀ diag(ω) Φ, and Φ's change in knots.

On a tensor grid Φ is a Kronecker product of one small matrix per direction, and all of these are contractions of one
direction after the other: a weighted Gram matrix, for instance, of ω with the tables N_i N_k (u) and N_j N_l (v). At
scattered points the (p+1)^r functions that do not vanish are kept with their indices, and summed in place.

Everything has one batch axis; data points "q" and control points "n" are flattened, the last direction fastest.
"""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fem.reference.bspline import basis_functions, find_span
from fem.support.portions import at_a_time


class GridDesign:
    """Φ on the tensor grid of the parameters, "b q" per direction.

    Args:
        knots: "b m" per direction.
        degree: per direction.
        parameters: "b q" per direction, inside the range.
        tangents: per direction ∂t/∂x "b k m", where `changes` is wanted.
    """

    def __init__(
        self,
        knots: Sequence[Float[Tensor, "b _"]],
        degree: Sequence[int],
        parameters: Sequence[Float[Tensor, "b _"]],
        tangents: Sequence[Float[Tensor, "b _ _"]] = (),
    ):
        self.tables, self._changes = [], []
        for axis, (t, p, u) in enumerate(zip(knots, degree, parameters, strict=True)):
            span, values, changes = _functions(t, p, u, tangents[axis] if tangents else None)
            index, n = span[..., None] + torch.arange(-p, 1, device=u.device), t.shape[-1] - p - 1
            self.tables.append(values.new_zeros(*u.shape, n).scatter(-1, index, values))
            if changes is not None:
                table = changes.new_zeros(*changes.shape[:-1], n)
                self._changes.append(table.scatter(-1, index[:, None].expand(changes.shape), changes))
        self.counts, self.shape = ([table.shape[axis] for table in self.tables] for axis in (-2, -1))

    def synthesise(self, c: Float[Tensor, "b n D"]) -> Float[Tensor, "b q D"]:
        """Φ c"""
        return _contract(self.tables, c.unflatten(1, self.shape)).flatten(1, -2)

    def analyse(self, f: Float[Tensor, "b q D"]) -> Float[Tensor, "b n D"]:
        """Φᵀ f"""
        return _contract([table.mT for table in self.tables], f.unflatten(1, self.counts)).flatten(1, -2)

    def gram(self, omega: Float[Tensor, "b q D"]) -> Float[Tensor, "b D n n"]:
        """Φᵀ diag(ω) Φ for each ω."""
        pairs = [(table[..., :, None] * table[..., None, :]).flatten(-2).mT for table in self.tables]
        sums = _contract(pairs, omega.unflatten(1, self.counts))
        split = sums.unflatten(1, (self.shape[0], self.shape[0]))
        for axis, n in enumerate(self.shape[1:], 1):
            split = split.unflatten(1 + 2 * axis, (n, n))  # "b i k j l D"
        r = len(self.shape)
        order = (0, -1, *range(1, 2 * r, 2), *range(2, 2 * r + 1, 2))
        return split.permute([axis % split.ndim for axis in order]).flatten(2 + r).flatten(2, 1 + r)

    def changes(self, c: Float[Tensor, "b n D"]) -> Float[Tensor, "b k q D"]:
        """(∂Φ/∂x_k) c for the tangents of all directions, one direction after the other."""
        grid, fields = c.unflatten(1, self.shape), []
        for axis, change in enumerate(self._changes):
            others = [None if other == axis else table for other, table in enumerate(self.tables)]
            rest = _contract(others, grid).movedim(axis + 1, 1)  # "b n_axis others D"
            field = (change.flatten(1, 2) @ rest.flatten(2)).unflatten(1, change.shape[1:3])
            fields.append(field.unflatten(-1, rest.shape[2:]).movedim(2, axis + 2).flatten(2, -2))
        return torch.cat(fields, 1)


class CloudDesign:
    """Φ at scattered parameters "b q r"; arguments and methods otherwise as those of `GridDesign`."""

    def __init__(
        self,
        knots: Sequence[Float[Tensor, "b _"]],
        degree: Sequence[int],
        parameters: Float[Tensor, "b q r"],
        tangents: Sequence[Float[Tensor, "b _ _"]] = (),
    ):
        self.shape = [t.shape[-1] - p - 1 for t, p in zip(knots, degree, strict=True)]
        lines, changes, index = [], [], parameters.new_zeros(1, 1, 1, dtype=torch.int64)
        for axis, (t, p, u) in enumerate(zip(knots, degree, parameters.unbind(-1), strict=True)):
            span, values, change = _functions(t, p, u, tangents[axis] if tangents else None)
            lines.append(values)
            changes.append(change)
            local = span[..., None] + torch.arange(-p, 1, device=u.device)
            index = (index[..., :, None] * self.shape[axis] + local[..., None, :]).flatten(-2)
        self.index: Int64[Tensor, "b q a"] = index
        self.values: Float[Tensor, "b q a"] = _outer(lines)
        self._changes = [  # per direction "b k q a"
            _outer([change if other == axis else line[:, None] for other, line in enumerate(lines)])
            for axis, change in enumerate(changes)
            if change is not None
        ]

    def dense(self) -> Float[Tensor, "b q n"]:
        zeros = self.values.new_zeros(*self.values.shape[:-1], prod(self.shape))
        return zeros.scatter(-1, self.index, self.values)

    def synthesise(self, c: Float[Tensor, "b n D"]) -> Float[Tensor, "b q D"]:
        return (self.values[..., None, :] @ self._gathered(c))[..., 0, :]

    def analyse(self, f: Float[Tensor, "b q D"]) -> Float[Tensor, "b n D"]:
        terms = self.values[..., None] * f[..., None, :]
        zeros = f.new_zeros(len(f), prod(self.shape), f.shape[-1])
        return zeros.scatter_add(1, self.index.flatten(1)[..., None].expand(-1, -1, f.shape[-1]), terms.flatten(1, 2))

    def gram(self, omega: Float[Tensor, "b q D"]) -> Float[Tensor, "b D n n"]:
        n, (b, _, a), D = prod(self.shape), self.values.shape, omega.shape[-1]
        sums = omega.new_zeros(b, n * n, D)
        size = at_a_time(b * a * a * D, omega)
        for values, index, factor in zip(*(x.split(size, 1) for x in (self.values, self.index, omega)), strict=True):
            pairs = (values[..., :, None] * values[..., None, :])[..., None] * factor[..., None, None, :]
            where = (index[..., :, None] * n + index[..., None, :]).flatten(1)
            sums.scatter_add_(1, where[..., None].expand(-1, -1, D), pairs.flatten(1, 3))
        return sums.movedim(-1, 1).unflatten(-1, (n, n))

    def changes(self, c: Float[Tensor, "b n D"]) -> Float[Tensor, "b k q D"]:
        gathered = self._gathered(c)
        return torch.cat([torch.einsum("bkqa,bqaD->bkqD", change, gathered) for change in self._changes], 1)

    def _gathered(self, c: Tensor) -> Float[Tensor, "b q a D"]:
        q, a = self.index.shape[1:]
        rows = self.index.expand(len(c), q, a).flatten(1)
        return c.gather(1, rows[..., None].expand(-1, -1, c.shape[-1])).unflatten(1, (q, a))


Design = GridDesign | CloudDesign


def _functions(
    knots: Tensor, degree: int, u: Tensor, tangents: Tensor | None
) -> tuple[Int64[Tensor, "b q"], Float[Tensor, "b q a"], Float[Tensor, "b k q a"] | None]:
    """Spans, functions, and the derivatives of these along the tangents of the knots, differentiated."""
    span = find_span(knots, degree, u, check=False)
    if tangents is None:
        return span, basis_functions(knots, degree, u, span=span)[..., 0, :, :], None
    with torch.enable_grad():  # the derivative, in the cotangents, of the derivative in the knots: both are linear
        moved = knots[:, None].expand(tangents.shape).clone().requires_grad_()
        values = basis_functions(moved, degree, u[:, None], span=span[:, None])[..., 0, :, :]
        cotangents = torch.zeros_like(values, requires_grad=True)
        (gradient,) = torch.autograd.grad(values, moved, cotangents, create_graph=True)
        (changes,) = torch.autograd.grad((gradient * tangents).sum(), cotangents)
    return span, values.detach()[:, 0], changes


def _contract(tables: Sequence[Tensor | None], values: Tensor) -> Tensor:
    """Each table "b q n" applied along its axis of values "b n … D"."""
    for axis, table in enumerate(tables, 1):
        if table is not None:
            moved = values.movedim(axis, 1)
            values = (table @ moved.flatten(2)).unflatten(-1, moved.shape[2:]).movedim(1, axis)
    return values


def _outer(lines: Sequence[Tensor]) -> Tensor:
    result = lines[0]
    for line in lines[1:]:
        result = (result[..., :, None] * line[..., None, :]).flatten(-2)
    return result
