"""Assembly: from fluxes and coefficients at quadrature points to global vectors and sparse matrices.

A slot is u or one of its derivatives. The derivative of an integrand with respect to a slot (a flux) tested against the
basis gives a vector; its derivative with respect to two slots (a coefficient) gives a matrix,

    r_a = Σ_q w ∂ψ/∂s_i  T_i(q, a),        K_ab = Σ_q w ∂²ψ/∂s_i∂s_j  T_i(q, a) T_j(q, b).

Coefficients are pulled back to reference coordinates first, so that all element matrices of a domain are one matrix
product with a table of products of basis functions that never sees a cell.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.geometry import Domain, Geometry
from fem.space import AnySpace, FunctionSpace, sum_of

CHUNK = 2**22  # entries of element matrices made at a time, so that they stay near the caches


def reference_slots(order: int, r: int) -> slice:
    """The slots of a table that a physical derivative of the given order draws on (∇∇u on curved cells: ∂ξ too)."""
    return (slice(0, 1), slice(1, 1 + r), slice(1, 1 + r + r * r))[order]


def pull_back(flux: Float[Tensor, "... s"], order: int, geometry: Geometry, batch: int) -> Tensor:
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
    space: FunctionSpace,
    fluxes: dict[int, Tensor],
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
    magnitude: bool = False,
) -> Tensor:
    """r "*b n (c)" with r_a = Σ_q w (f₀ φ_a + f₁·∇φ_a + f₂:∇∇φ_a) summed over cells: the transpose of `at_points`.

    Args:
        fluxes: by order of derivative, "*b e q (c)", "*b e q (c) d", …; a missing order is zero.
        magnitude: add contributions by absolute value, the scale against which a residual is small.
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
    if magnitude:
        stacked, table = stacked.abs(), table.abs()
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
    space: AnySpace,
    coefficients: list[Coefficient],
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
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
        i, j = coefficient.row[0], coefficient.column[0]
        if diagonal and i != j:
            continue
        value = local_matrices(fields[i], fields[j], coefficient, domain, geometry, batch, diagonal)
        if diagonal:
            total[..., starts[i] : starts[i] + widths[i]] += value
        else:
            total[..., starts[i] : starts[i] + widths[i], starts[j] : starts[j] + widths[j]] += value
    return total


def local_matrices(
    test: FunctionSpace,
    trial: FunctionSpace,
    coefficient: Coefficient,
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
    diagonal: bool,
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
    order = [nb, nb + 3, nb + 1, nb + 4, nb + 2]  # e a c, b c
    return local.permute(*range(nb), *order).flatten(-4, -3).flatten(-2)


@dataclass(frozen=True, eq=False)
class Pattern:
    """The sparsity of a space's matrices: CSR rows and columns, and where each entry of each element matrix goes."""

    crow: Int[Tensor, "n1"]
    column: Int[Tensor, "z"]
    row: Int[Tensor, "z"]
    positions: tuple[Int[Tensor, "_ _ _"], ...]  # "e A A" of each block
    diagonal: Int[Tensor, "n"]

    def csr(self, values: Float[Tensor, "*b z"]) -> Tensor:
        """The sparse matrix "*b N N" with these values."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            n, batch = len(self.diagonal), values.shape[:-1]
            return torch.sparse_csr_tensor(
                self.crow.expand(*batch, -1),
                self.column.expand(*batch, -1),
                values,
                size=(*batch, n, n),
                check_invariants=False,
            )

    def scatter(self, matrices: list[tuple[Domain, Tensor]], batch: tuple[int, ...]) -> Float[Tensor, "*b z"]:
        """CSR values from element matrices "*b e A A", domain by domain."""
        values = matrices[0][1].new_zeros(*batch, len(self.column))
        for domain, local in matrices:
            position = self.positions[domain.block]
            position = (position if domain.cells is None else position[domain.cells]).flatten()
            values.scatter_add_(-1, position.expand(*batch, -1), local.expand(*batch, -1, -1, -1).flatten(-3))
        return values


def flat_dofs(space: AnySpace, domain: Domain) -> Int[Tensor, "e A"]:
    """Numbers of each cell's local dofs in the flattened dof vector of the whole space, in element-matrix order."""
    parts, start = [], 0
    for field in space.fields:
        c = field.components or 1
        dofs = field.domain_dofs(domain)
        parts.append((start + dofs[..., None] * c + torch.arange(c, device=dofs.device)).flatten(-2))
        start += field.num_dofs
    return torch.cat(parts, -1)


def make_pattern(space: AnySpace) -> Pattern:
    """The sparsity of matrices over a space, by sorting each row of the cells' couplings once."""
    import scipy.sparse

    n, blocks = space.num_dofs, [flat_dofs(space, domain).cpu().numpy() for domain in space.domains()]
    # Incidence of dofs and (cell, local dof): its transpose lists, dof by dof, whose element rows feed a matrix row.
    local = np.concatenate([b.ravel() for b in blocks])
    width = np.concatenate([np.full(b.size, b.shape[1]) for b in blocks])
    first = np.concatenate([[0], np.cumsum(width)])  # where each element row starts among all element entries
    order = scipy.sparse.csr_array(
        (np.arange(len(local)), local, np.arange(len(local) + 1)), shape=(len(local), n)
    ).tocsc()
    rows = order.indices  # element rows sorted by dof
    entries = ranges(first[rows], width[rows])
    columns = np.concatenate([np.repeat(b, b.shape[1], axis=0).reshape(-1) for b in blocks])[entries]
    row_starts = np.concatenate([[0], np.cumsum(width[rows])])[order.indptr]
    unsummed = scipy.sparse.csr_array((entries, columns, row_starts), shape=(n, n))
    unsummed.sort_indices()
    row_of = np.repeat(np.arange(n), np.diff(row_starts))
    new = np.ones(len(entries), dtype=bool)
    new[1:] = (np.diff(unsummed.indices) != 0) | (np.diff(row_of) != 0)
    position = np.empty(len(entries), dtype=np.int64)
    position[unsummed.data.astype(np.int64)] = np.cumsum(new) - 1
    column, row = unsummed.indices[new].astype(np.int64), row_of[new]
    crow = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
    split = np.split(position, np.cumsum([b.size * b.shape[1] for b in blocks])[:-1])
    to = lambda a: torch.from_numpy(np.ascontiguousarray(a)).to(space.device)  # noqa: E731
    positions = tuple(to(p.reshape(*b.shape, b.shape[1])) for p, b in zip(split, blocks, strict=True))
    return Pattern(to(crow), to(column), to(row), positions, to(np.flatnonzero(column == row)))


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ranges [start, start + count) one after another."""
    offsets = np.cumsum(counts) - counts
    return np.repeat(starts - offsets, counts) + np.arange(counts.sum())
