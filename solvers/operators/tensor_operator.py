"""Hessians over splines without a matrix: products by sum factorisation, patch by patch.

With coefficients C_mn at quadrature points between the value and the reference derivatives s_m of u,

    H v = Σ_mn T_mᵀ C_mn T_n v,    T_m = ⊗ of one small matrix per direction (`fem/kernels/patches`),

and matrices of single cells at facets. What the coefficients are along each direction of a patch serves a
preconditioner (`solvers/linear/patchwise.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.forms.assembly import element_matrices
from fem.forms.discrete import DiscreteForm, Hessian
from fem.forms.traced.patch_integral import PatchHessian
from fem.kernels.patches.basis import PatchBasis
from fem.kernels.patches.integrand import QuadraticIntegrand
from fem.space.space import AnySpace, FunctionSpace

Numbers = list[list[int | None]]  # which coefficient stands between two slots; None is zero


def has_factors(form: DiscreteForm) -> bool:
    """Whether the Hessian is one of splines on patches, from integrals over cells and facets at the boundary."""
    space: Any = form.space
    return (
        isinstance(space, FunctionSpace)
        and hasattr(space.quadrature, "patch_basis")
        and not form.couples_neighbours
        and all(
            space.quadrature.patch_basis(t.domain) is not None  # type: ignore[attr-defined]
            for t in form.integrals
            if t.domain.facet is None
        )
    )


@dataclass(frozen=True, eq=False)
class PatchPart:
    """The coefficients "b P i q k" on some layers of spans of a patch."""

    block: int
    basis: PatchBasis
    numbers: Numbers
    values: Float[Tensor, "b P i q k"]
    integrand: QuadraticIntegrand

    def has(self, m: int) -> bool:
        """Whether C_mm is not known to be zero."""
        return m < len(self.numbers) and self.numbers[m][m] is not None

    def along(self, m: int) -> list[Float[Tensor, "b k"]] | None:
        """|C_mm| summed over all points of a plane, for each 1-D point of each direction (x first); None for zero."""
        k = self.numbers[m][m] if m < len(self.numbers) else None
        if k is None:
            return None
        spans, points = self.basis.num_spans, self.basis.num_points
        r, grid = len(spans), self.values[..., k].abs()
        grid = grid.reshape(len(grid), *spans[::-1], *points[::-1])
        found = []
        for axis in range(r):
            others = [d for d in range(1, 2 * r + 1) if d not in (r - axis, 2 * r - axis)]
            found.append((grid.sum(others) if others else grid).flatten(1))
        return found


class TensorOperator:
    """The Hessian at a state: coefficients at the points of patches, applied by sum factorisation.

    Args:
        space: of splines on patches.
        hessians: of the integrals over it.
        batch: their batch shape.
    """

    def __init__(self, space: AnySpace, hessians: Sequence[Hessian], batch: tuple[int, ...]):
        assert isinstance(space, FunctionSpace)
        self.space, self.batch = space, batch
        self.parts: list[PatchPart] = []
        self.facets: list[tuple[Int[Tensor, "e A"], Float[Tensor, "b e A A"]]] = []
        for h in hessians:
            t = h.integral
            if t.domain.facet is None:
                numbers, values = h.reference if isinstance(h, PatchHessian) else pulled(h, batch)
                if values.shape[-1]:
                    basis = space.quadrature.patch_basis(t.domain)  # type: ignore[attr-defined]
                    name = "splines", basis.widths
                    made = QuadraticIntegrand.of(
                        space, t.domain, {name: basis}, name, t.term.derivatives, numbers, values.shape[-1]
                    )
                    self.parts.append(PatchPart(t.domain.block, basis, numbers, values, made))
            elif h.coefficients:
                K = element_matrices(space, h.coefficients, t.domain, t.geometry, batch)
                dofs, c = space.quadrature.dofs(t.domain), space.components or 1
                dofs = (dofs[..., None] * c + torch.arange(c, device=dofs.device)).flatten(1)
                self.facets.append((dofs, K.reshape(-1, *K.shape[-3:])))

    def flat(self, v: Tensor) -> Tensor:
        return v.expand(*self.batch, *self.space.shape).reshape(prod(self.batch), *self.space.shape)

    def __call__(self, v: Float[Tensor, "..."]) -> Tensor:
        flat = self.flat(v)
        total = torch.zeros_like(flat)
        for part in self.parts:
            total += part.integrand.times(flat, part.values)
        for dofs, K in self.facets:
            products = (K @ flat.flatten(1)[:, dofs, None])[..., 0]
            total.view(len(total), -1).index_add_(1, dofs.flatten(), products.flatten(1))
        return total.reshape(*self.batch, *self.space.shape)

    def diagonal(self) -> Tensor:
        """The diagonal of H, as dofs."""
        total = self.space.mesh.nodes.new_zeros(prod(self.batch), *self.space.shape)
        for part in self.parts:
            total += part.integrand.diagonal(total, part.values)
        for dofs, K in self.facets:
            entries = K.diagonal(dim1=-2, dim2=-1).flatten(1).expand(len(total), -1)
            total.view(len(total), -1).index_add_(1, dofs.flatten(), entries)
        return total.reshape(*self.batch, *self.space.shape)


def pulled(h: Any, batch: tuple[int, ...]) -> tuple[Numbers, Float[Tensor, "b P i q k"]]:
    """Coefficients at points as those of reference derivatives times weights, of which there is one of each pair."""
    t, lead = h.integral, len(batch)
    space, geometry, dim, order = t.space, t.geometry, t.domain.cell.dim, t.term.derivatives
    mapping, c, d = space.quadrature.mapping, space.components or 1, geometry.points.shape[-1]
    points = geometry.points.shape[:2]
    starts = [0, *[sum(c * dim**j for j in range(k + 1)) for k in range(order)]]
    place = [(k, axis) for k in range(order + 1) for axis in range(dim**k)]  # of each reference slot
    entry = lambda i, s: starts[place[s][0]] + i * dim ** place[s][0] + place[s][1]  # noqa: E731
    found: dict[tuple[int, int], Tensor] = {}
    for a in h.coefficients:
        rows, columns = a.row[1], a.column[1]
        value = a.value.reshape(*a.value.shape[: lead + 2], c, d**rows, c, d**columns)
        value = value * geometry.weights[..., None, None, None, None]
        value = mapping.pull(value, columns, geometry, lead).movedim(-3, -1)
        value = mapping.pull(value, rows, geometry, lead)  # "*b e q c c s s", columns' components and slots last
        slots = [range(*mapping.slots(k, dim).indices(len(place))) for k in (rows, columns)]
        for i in range(c):
            for j in range(c):
                for p, s in enumerate(slots[0]):
                    for q, u in enumerate(slots[1]):
                        m, n, part = entry(i, s), entry(j, u), value[..., i, j, q, p]
                        if m <= n and bool((part != 0).any()):
                            found[m, n] = found[m, n] + part if (m, n) in found else part
    size = sum(c * dim**k for k in range(order + 1))
    number = {name: k for k, name in enumerate(found)}
    numbers = [[number.get((min(i, j), max(i, j))) for j in range(size)] for i in range(size)]
    if not found:
        return numbers, geometry.weights.new_zeros(1, 1, 1, 1, 0)
    full = [part.expand(*batch, *points).reshape(prod(batch), *points) for part in found.values()]
    first = space.quadrature.patch_basis(t.domain).num_spans[0]
    values = torch.stack(full, 1).unflatten(2, (-1, first)).permute(0, 2, 4, 1, 3).contiguous()  # spans inmost
    return numbers, values.permute(0, 1, 4, 2, 3)
