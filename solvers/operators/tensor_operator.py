"""Hessians over splines of one patch without a matrix: products by sum factorisation.

With coefficients C_ij at quadrature points between the value and the reference derivatives, i, j = 0 … r,

    H v = Σ_ij T_iᵀ C_ij T_j v,    T_i = ⊗ of one small matrix per direction (`fem/space/factors.py`).

Mean coefficients in the patch's parameters serve a preconditioner (`solvers/linear/fast_diagonalization.py`).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.discrete import DiscreteForm, Hessian
from fem.space.factors import layers_of, slot_orders
from fem.space.mappings import Gradients
from fem.space.space import AnySpace


def has_factors(form: DiscreteForm) -> bool:
    """Whether the Hessian is one of scalar splines on one patch, from integrals over its cells."""
    space: Any = form.space
    return (
        getattr(space, "factors", None) is not None
        and space.components is None
        and not form.couples_neighbours
        and all(
            t.domain.facet is None and space.factors(t.domain, t.term.derivatives) is not None
            for t in form.integrals
            if t.term.tag is None
        )
    )


class TensorOperator:
    """The Hessian at a state: coefficients on the tensor grid of points, applied by sum factorisation.

    Args:
        space: of scalar splines on one patch.
        hessians: of the integrals over it.
        batch: their batch shape.
    """

    def __init__(self, space: AnySpace, hessians: Sequence[Hessian], batch: tuple[int, ...]):
        factors_of: Any = space.factors  # type: ignore[union-attr]
        self.element: Any = space.elements[0]  # type: ignore[union-attr]
        self.batch, self.parts = batch, []
        lead, mapping = len(batch), Gradients()
        for t, entries in ((h.integral, h.coefficients) for h in hessians):
            if not entries:
                continue
            factors = factors_of(t.domain, t.term.derivatives)
            orders = slot_orders(t.domain.cell.dim, t.term.derivatives)
            found: dict[tuple[int, int], Tensor] = {}
            for c in entries:
                rows, columns, d = c.row[1], c.column[1], t.geometry.points.shape[-1]
                value = c.value.reshape(*c.value.shape[: lead + 2], d**rows, d**columns)
                value = value * t.geometry.weights[..., None, None]
                value = mapping.pull(value, columns, t.geometry, lead).mT
                value = mapping.pull(value, rows, t.geometry, lead).mT
                for a, i in enumerate(range(*mapping.slots(rows, t.domain.cell.dim).indices(len(orders)))):
                    for b, j in enumerate(range(*mapping.slots(columns, t.domain.cell.dim).indices(len(orders)))):
                        part = value[..., a, b]
                        if i <= j and bool((part != 0).any()):  # C is symmetric
                            part = factors.by_grid(part.expand(*part.shape[:-2], *t.geometry.points.shape[:2]))
                            found[i, j] = found[i, j] + part if (i, j) in found else part.contiguous()
            self.parts.append((t.domain, factors, orders, found))

    def __call__(self, v: Float[Tensor, "*b n"]) -> Tensor:
        total: Any = 0
        for _, factors, orders, found in self.parts:
            used = sorted({k for pair in found for k in pair})
            values = dict(zip(used, factors.values(v, [orders[j] for j in used]), strict=True))
            fluxes: dict[int, Tensor] = {}
            for pair, c in found.items():
                for i, j in {pair, pair[::-1]}:
                    fluxes[i] = torch.addcmul(fluxes[i], c, values[j]) if i in fluxes else c * values[j]
            total = total + factors.sums(list(fluxes.values()), [orders[i] for i in fluxes])
        return total

    def diagonal(self) -> Tensor:
        """Σ_ij C_ij T_i ∘ T_j summed over points."""
        total: Any = 0
        for _, factors, orders, found in self.parts:
            for (i, j), c in found.items():
                total = total + (1 if i == j else 2) * factors.pair_sums(c, orders[i], orders[j])
        return total

    def means(self) -> tuple[Float[Tensor, "*b r"], Float[Tensor, "*b"]]:
        """Mean coefficients of the derivatives in each parameter and of the value."""
        widths = [corners.diff() for corners in self.element.breakpoints]
        r, volume = len(widths), prod(float(w.sum()) for w in widths)
        diffusion, reaction = widths[0].new_zeros(*self.batch, r), widths[0].new_zeros(self.batch)
        for domain, factors, _, found in self.parts:
            for k in range(r):
                c = found.get((1 + k, 1 + k))
                if c is not None:
                    width = widths[k] if k + 1 < r else widths[k][layers_of(self.element, domain.cells)]
                    square = width.repeat_interleave(len(factors.lines[k])) ** 2
                    square = square.view(*square.shape, *[1] * k)
                    diffusion[..., k] += (c * square).sum(tuple(range(-r, 0))) / volume
            if (0, 0) in found:
                reaction += found[0, 0].sum(tuple(range(-r, 0))) / volume
        return diffusion, reaction
