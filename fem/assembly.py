"""Assembly: from fluxes and coefficients at quadrature points to global vectors and sparse matrices.

A slot is u or one of its derivatives. The derivative of an integrand with respect to a slot (a flux) tested against the
basis gives a vector; its derivative with respect to two slots (a coefficient) gives a matrix,

    r_a = Σ_q w ∂ψ/∂s_i  T_i(q, a),        K_ab = Σ_q w ∂²ψ/∂s_i∂s_j  T_i(q, a) T_j(q, b).

Coefficients are pulled back to reference coordinates first, so that all element matrices of a domain are one matrix
product with a table of products of basis functions that never sees a cell.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.geometry import Domain, Geometry
from fem.space import AnySpace, FunctionSpace, sum_of

CHUNK = 2**22  # entries of element matrices made at a time, so that they stay near the caches


def reference_slots(order: int, r: int) -> slice:
    """The slots of a table that a physical derivative of the given order draws on (∇∇u on curved cells: ∂ξ too)."""
    return (slice(0, 1), slice(1, 1 + r), slice(1, 1 + r + r * r))[order]


def pull_back(flux: Float[Tensor, "*b e q *c s"], order: int, geometry: Geometry, batch: int) -> Tensor:
    """Reference components, on the last axis, of what multiplies a physical derivative of the given order.

    Order 1: f̂_r = Σ_d J⁻¹_rd f_d. Order 2: P = J⁻¹ f J⁻ᵀ for ∂²φ/∂ξ², and −J⁻¹ (∂²x/∂ξ² : P) for ∂φ/∂ξ before it.
    """
    if order == 0:
        return flux
    extra = (None,) * (flux.ndim - batch - 3)
    inverse = geometry.inverse[(slice(None), slice(None), *extra)]
    if order == 1:
        return sum_of(flux[..., None, d] * inverse[..., d] for d in range(flux.shape[-1]))
    d = inverse.shape[-1]
    pulled = inverse @ flux.unflatten(-1, (d, d)) @ inverse.mT
    assert geometry.second is not None
    second = geometry.second[(slice(None), slice(None), *extra)]
    bend = (second * pulled[..., None, :, :]).sum((-2, -1))
    return torch.cat([-(inverse @ bend[..., None])[..., 0], pulled.flatten(-2)], -1)


def scatter_fluxes(
    space: FunctionSpace, fluxes: dict[int, Tensor], domain: Domain, geometry: Geometry, batch: tuple[int, ...]
) -> Tensor:
    """r "*b n (c)" with r_a = Σ_q w (f₀ φ_a + f₁·∇φ_a + f₂:∇∇φ_a) summed over cells: the transpose of `at_points`.

    Args:
        fluxes: by order of derivative, "*b e q (c)", "*b e q (c) d", …; a missing order is zero.
    """
    derivatives = max(fluxes, default=0)
    table, dofs = space.table(domain, derivatives), space.domain_dofs(domain)
    c, points = space.components or 1, (dofs.shape[0], table.shape[1])
    stacked = geometry.weights.new_zeros(*batch, *points, c, table.shape[2])
    for order, flux in fluxes.items():
        if space.components is None:
            flux = flux.unsqueeze(flux.ndim - order)
        flux = flux.flatten(flux.ndim - order) if order else flux[..., None]
        flux = pull_back(flux * geometry.weights[..., None, None], order, geometry, len(batch))
        slots = reference_slots(order, domain.cell.dim)
        before, after = slots.start, table.shape[2] - slots.stop
        stacked = stacked + torch.nn.functional.pad(flux, (before, after))
    stacked = stacked.transpose(-3, -2)  # "*b e c q s"
    if len(table) == 1:
        local = stacked.flatten(-2) @ table[0].flatten(0, 1)
    else:
        local = torch.einsum("...ecqs,eqsa->...eca", stacked, table)
    index = dofs.reshape(-1, 1).expand(*batch, dofs.numel(), c)
    total = local.new_zeros(*batch, space.num_nodes, c)
    total = total.scatter_add(-2, index, local.mT.flatten(-3, -2))
    return total[..., 0] if space.components is None else total


@dataclass(frozen=True)
class Coefficient:
    """∂²ψ/∂s_i∂s_j at the points of a domain: fields and orders of both slots, and "*b e q (c) (d…) (c) (d…)"."""

    row: tuple[int, int]
    column: tuple[int, int]
    value: Tensor


def element_matrices(
    space: AnySpace, coefficients: list[Coefficient], domain: Domain, geometry: Geometry, batch: tuple[int, ...],
    diagonal: bool = False,
) -> Tensor:
    """K "*b e A A" of one domain (or its diagonal "*b e A"), local dofs of all fields one after another, node-major."""
    fields = space.fields
    widths = [(f.components or 1) * f.domain_dofs(domain).shape[1] for f in fields]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    e = fields[0].domain_dofs(domain).shape[0]
    size = sum(widths)
    shape = (*batch, e, size) if diagonal else (*batch, e, size, size)
    total = geometry.weights.new_zeros(shape)
    for coefficient in coefficients:
        (i, rows), (j, columns) = coefficient.row, coefficient.column
        if diagonal and i != j:
            continue
        value = local_matrices(fields[i], fields[j], coefficient, domain, geometry, batch, diagonal)
        if diagonal:
            total[..., starts[i] : starts[i] + widths[i]] += value
        else:
            total[..., starts[i] : starts[i] + widths[i], starts[j] : starts[j] + widths[j]] += value
    return total


def local_matrices(
    test: FunctionSpace, trial: FunctionSpace, coefficient: Coefficient, domain: Domain, geometry: Geometry,
    batch: tuple[int, ...], diagonal: bool,
) -> Tensor:
    """One coefficient's share of the element matrices, "*b e (a c) (a c)" or its diagonal "*b e (a c)"."""
    rows, columns, nb = coefficient.row[1], coefficient.column[1], len(batch)
    value, d = coefficient.value, geometry.points.shape[-1]
    ci, cj = test.components or 1, trial.components or 1
    value = value.reshape(*value.shape[: nb + 2], ci, d**rows, cj, d**columns)
    value = value * geometry.weights[..., None, None, None, None]
    value = pull_back(value, columns, geometry, nb).movedim(-3, -1)  # "*b e q c c s s", rows last
    value = pull_back(value, rows, geometry, nb).movedim(nb + 1, -3)  # "*b e c c q s s", columns before rows
    left = test.table(domain, rows)[:, :, reference_slots(rows, domain.cell.dim)]
    right = trial.table(domain, columns)[:, :, reference_slots(columns, domain.cell.dim)]
    pattern = "eqjb,eqia->eqjiab"
    if diagonal:
        # Only equal components meet on the diagonal.
        value, pattern = value.diagonal(dim1=nb + 1, dim2=nb + 2).movedim(-1, nb + 1), "eqja,eqia->eqjia"
    table = torch.einsum(pattern, right, left)
    if len(table) == 1:
        local = value.flatten(-3) @ table[0].flatten(0, 2).flatten(1)
    else:
        local = torch.einsum("e...k,ekm->e...m", value.flatten(-3).movedim(nb, 0), table.flatten(1, 3).flatten(2))
        local = local.movedim(0, nb)
    e = geometry.points.shape[0]
    if diagonal:
        return local.expand(*batch, e, *local.shape[-2:]).mT.flatten(-2)
    local = local.expand(*batch, e, *local.shape[-3:]).unflatten(-1, (left.shape[-1], right.shape[-1]))
    return local.movedim(-4, -2).movedim(-4, -2).movedim(-3, -2).flatten(-4, -3).flatten(-2)
