"""Assembly: from fluxes and coefficients at quadrature points to global vectors and sparse matrices.

A slot is u or one of its derivatives. The derivative of an integrand with respect to a slot (a flux) tested against the
basis gives a vector; its derivative with respect to two slots (a coefficient) gives a matrix,

    r_a = Σ_q w ∂ψ/∂s_i  T_i(q, a),        K_ab = Σ_q w ∂²ψ/∂s_i∂s_j  T_i(q, a) T_j(q, b).

Coefficients are pulled back to reference coordinates first, so that all element matrices of a domain are one matrix
product with a table of products of basis functions that never sees a cell.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.forms.sparsity.compiled import compiled_pattern
from fem.mesh.geometry import Domain, Geometry
from fem.space.facets.pairs import FacetPairs
from fem.space.facets.two_sides import SideField, TwoSides, side_of
from fem.space.gather_scatter import Segments, sums_by_segments
from fem.space.space import AnySpace, FunctionSpace
from fem.support.portions import at_a_time
from fem.support.transforms import outside_transforms

# Spaces, and functions of them, or what facets with two sides see of them.
Fields = AnySpace | TwoSides
Field = FunctionSpace | SideField


def scatter_fluxes(
    space: Field,
    fluxes: dict[int, Tensor],
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
    magnitude: bool = False,
) -> Tensor:
    """r "*b n (c)" with r_a = Σ_q w (f₀ φ_a + f₁·∇φ_a + f₂:∇∇φ_a) summed over cells.

    The transpose of `QuadraturePoints.values`.

    Args:
        fluxes: by order of derivative, "*b e q (c)", "*b e q (c) d", …; a missing order is zero.
        magnitude: add contributions by absolute value, the scale against which a residual is small.
    """
    derivatives, r, mapping = max(fluxes, default=0), domain.cell.dim, space.quadrature.mapping
    slots_in_all = mapping.slots(derivatives, r).stop
    geometry = side_of(geometry, space)
    c, points = space.components or 1, geometry.points.shape[:2]
    stacked = geometry.weights.new_zeros(*batch, *points, c, slots_in_all)
    for order, flux in fluxes.items():
        rank = mapping.rank(order)
        if space.components is None:
            flux = flux.unsqueeze(flux.ndim - rank)
        flux = flux.flatten(flux.ndim - rank) if rank else flux[..., None]
        flux = mapping.pull(flux * geometry.weights[..., None, None], order, geometry, len(batch))
        slots = mapping.slots(order, r)
        before, after = slots.start, slots_in_all - slots.stop
        stacked = stacked + torch.nn.functional.pad(flux, (before, after))
    total = space.quadrature.from_points(stacked.transpose(-3, -2), domain, derivatives, magnitude)
    return total[..., 0] if space.components is None else total


@dataclass(frozen=True, eq=False)
class Coefficient:
    """∂²ψ/∂s_i∂s_j at the points of a domain: fields and orders of both slots, and "*b e q (c) (d…) (c) (d…)"."""

    row: tuple[int, int]
    column: tuple[int, int]
    value: Tensor


def chunks(space: Fields, domain: Domain, batch: tuple[int, ...]) -> list[slice]:
    """The cells of a domain in portions whose element matrices stay in the caches: memory holds the sum alone."""
    e = space.fields[0].quadrature.dofs(domain).shape[0]
    size = sum((f.components or 1) * f.quadrature.dofs(domain).shape[1] for f in space.fields)
    step = at_a_time(prod(batch) * size**2, space)
    if sums_by_segments(space.device):  # lists of terms are kept for each portion: few, and the same for every batch
        step = at_a_time(4 * size**2, space, roomy=True)
    return [slice(start, min(start + step, e)) for start in range(0, e, step)]


def element_matrices(
    space: Fields,
    coefficients: list[Coefficient],
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
    diagonal: bool = False,
    cells: slice = slice(None),
) -> Tensor:
    """K "*b e A A" of some cells of a domain (or its diagonal "*b e A"), local dofs field after field, node-major."""
    fields = space.fields
    turned = [f.quadrature.orientation(domain) for f in fields]
    if diagonal and any(T is not None for T in turned):
        return element_matrices(space, coefficients, domain, geometry, batch, False, cells).diagonal(dim1=-2, dim2=-1)
    widths = [(f.components or 1) * f.quadrature.dofs(domain).shape[1] for f in fields]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    e, size = len(range(*cells.indices(fields[0].quadrature.dofs(domain).shape[0]))), sum(widths)
    total = geometry.weights.new_zeros((*batch, e, size) if diagonal else (*batch, e, size, size))
    for coefficient in coefficients:
        i, j = coefficient.row[0], coefficient.column[0]
        if diagonal and i != j:
            continue
        value = local_matrices(fields[i], fields[j], coefficient, domain, geometry, batch, diagonal, cells)
        if diagonal:
            total[..., starts[i] : starts[i] + widths[i]] += value
        else:
            total[..., starts[i] : starts[i] + widths[i], starts[j] : starts[j] + widths[j]] += value
    for T, start, width in zip(turned, starts, widths, strict=True):
        if T is not None:
            own, rows = slice(start, start + width), of_cells(T, cells)
            total[..., own, :] = rows.mT @ total[..., own, :]
            total[..., own] = total[..., own] @ rows
    return total


def local_matrices(
    test: Field,
    trial: Field,
    coefficient: Coefficient,
    domain: Domain,
    geometry: Geometry,
    batch: tuple[int, ...],
    diagonal: bool,
    cells: slice,
) -> Tensor:
    """One coefficient's share of some cells' matrices, "*b e (a c) (a c)" or its diagonal "*b e (a c)"."""
    rows, columns, nb = coefficient.row[1], coefficient.column[1], len(batch)
    chosen = {name: of_cells(t, cells) for name, t in vars(geometry).items() if t is not None}
    bulky = ("inverse", "weights", "second", "other", "other_second")
    chosen |= {name: cells_inmost(chosen[name], 0) for name in bulky if name in chosen}
    geometry, d = replace(geometry, **chosen), geometry.points.shape[-1]
    value = cells_inmost(coefficient.value.movedim(nb, 0)[cells].movedim(0, nb), nb)
    ci, cj = test.components or 1, trial.components or 1
    own, other, r = test.quadrature.mapping, trial.quadrature.mapping, domain.cell.dim
    value = value.reshape(*value.shape[: nb + 2], ci, d ** own.rank(rows), cj, d ** other.rank(columns))
    value = value * geometry.weights[..., None, None, None, None]
    value = other.pull(value, columns, side_of(geometry, trial), nb).movedim(-3, -1)  # "*b e q c c s s", rows last
    value = own.pull(value, rows, side_of(geometry, test), nb).movedim(nb + 1, -3)  # "*b e c c q s s", columns first
    left = of_cells(test.quadrature.table(domain, rows), cells)[:, :, own.slots(rows, r)]
    right = of_cells(trial.quadrature.table(domain, columns), cells)[:, :, other.slots(columns, r)]
    pattern = "eqjb,eqia->eqjiab"
    if diagonal:
        # Only equal components meet on the diagonal.
        value, pattern = value.diagonal(dim1=nb + 1, dim2=nb + 2).movedim(-1, nb + 1), "eqja,eqia->eqjia"
    table = torch.einsum(pattern, right, left)
    if len(table) == 1:
        flat = value.flatten(-3)
        local = (flat.flatten(0, -2) @ table[0].flatten(0, 2).flatten(1)).unflatten(0, flat.shape[:-1])
    else:
        local = torch.einsum("e...k,ekm->e...m", value.flatten(-3).movedim(nb, 0), table.flatten(1, 3).flatten(2))
        local = local.movedim(0, nb)
    if diagonal:
        return local.expand(*batch, *local.shape[-3:]).mT.flatten(-2)
    local = local.expand(*batch, *local.shape[-4:]).unflatten(-1, (left.shape[-1], right.shape[-1]))
    order = [nb, nb + 3, nb + 1, nb + 4, nb + 2]  # e a c, b c
    return local.permute(*range(nb), *order).flatten(-4, -3).flatten(-2)


def of_cells(tensor: Float[Tensor, "#e ..."], cells: slice) -> Tensor:
    """Some cells' entries of a tensor whose first axis is of length one where cells do not differ."""
    return tensor if len(tensor) == 1 else tensor[cells]


def cells_inmost(tensor: Tensor, axis: int) -> Tensor:
    """The same tensor, its axis of cells contiguous in memory: elementwise products then run along it, vectorised."""
    return tensor.movedim(axis, -1).contiguous().movedim(-1, axis)


@dataclass(frozen=True, eq=False)
class Pattern:
    """The sparsity of a space's matrices: CSR rows and columns, and where each entry of each element matrix goes."""

    crow: Int[Tensor, "n1"]
    column: Int[Tensor, "z"]
    row: Int[Tensor, "z"]
    positions: Mapping[int, Int[Tensor, "_ _ _"]]  # "e A A" of each block of cells and each group of facets with two
    diagonal: Int[Tensor, "n"]

    @cached_property
    @outside_transforms()
    def short(self) -> tuple[Int[Tensor, "n1"], Int[Tensor, "z"]]:
        """`crow` and `column` in 32 bits, which MKL and cuSPARSE take as they are: products save their conversion."""
        return self.crow.int(), self.column.int()

    def among(self, free: Bool[Tensor, "n"]) -> tuple[Bool[Tensor, "z"], Int[Tensor, "m"], Int[Tensor, "m1"]]:
        """Which entries have a free row and column, and CSR columns and rows of these alone; kept for the last mask."""
        last = next(iter(self._last), None)
        if last is None or not torch.equal(last[0], free):
            keep = free[self.row] & free[self.column]
            number = free.cumsum(0) - 1
            counts = torch.bincount(number[self.row[keep]], minlength=int(free.sum()))
            rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            self._last[:] = [last := (free, keep, number[self.column[keep]].int(), rows.int())]
        return last[1:]

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return []

    def csr(self, values: Float[Tensor, "*b z"], short: bool = False) -> Tensor:
        """The sparse matrix "*b N N" with these values; `short` indices make faster products."""
        n, batch = len(self.diagonal), values.shape[:-1]
        crow, column = self.short if short else (self.crow, self.column)
        return sparse_csr(crow.expand(*batch, -1), column.expand(*batch, -1), values, (*batch, n, n))

    def add(
        self, values: Float[Tensor, "*b z"], domain: Domain, cells: slice, local: Float[Tensor, "*b e A A"]
    ) -> None:
        """Add element matrices of some cells of a domain to CSR values."""
        if sums_by_segments(values.device):
            entries, segments = self.segments(domain, cells)
            values.index_add_(-1, entries, segments.sum(local.flatten(-3)[..., None])[..., 0])
        else:
            position = self.positions_of(domain, cells).long()
            values.scatter_add_(-1, position.expand(*values.shape[:-1], -1), local.flatten(-3))

    def positions_of(self, domain: Domain, cells: slice) -> Int[Tensor, "m"]:
        """Where the entries of some cells' matrices go."""
        position = self.positions[domain.block]
        return (position if domain.cells is None else position[domain.cells])[cells].flatten()

    def segments(self, domain: Domain, cells: slice) -> tuple[Int[Tensor, "z"], Segments]:
        """The entries of the sparse matrix that some cells contribute to, each once, and the sums for them."""
        key = (domain.block if domain.cells is None else domain, cells.start, cells.stop)
        if key not in self._segments:
            entries, number = torch.unique(self.positions_of(domain, cells), return_inverse=True)
            self._segments[key] = entries, Segments(number, len(entries))
        return self._segments[key]

    @cached_property
    def _segments(self) -> dict[tuple[int | Domain, int, int], tuple[Tensor, Segments]]:
        return {}


def sparse_csr(crow: Tensor, column: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A sparse tensor from its arrays, taken as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow, column, values, size=size, check_invariants=False, device=values.device)


def flat_dofs(space: Fields, domain: Domain) -> Int[Tensor, "e A"]:
    """Numbers of each cell's local dofs in the flattened dof vector of the whole space, in element-matrix order."""
    parts, start = [], 0
    for field in space.fields:
        c = field.components or 1
        dofs = field.quadrature.dofs(domain)
        parts.append((start + dofs[..., None] * c + torch.arange(c, device=dofs.device)).flatten(-2))
        start += field.num_dofs
    return torch.cat(parts, -1)


def pattern_of(space: AnySpace, pairs: Sequence[FacetPairs] = ()) -> Pattern:
    """The sparsity of matrices over a space, which keeps it; with couplings across some facets where they are named."""
    key = tuple(group.block for group in pairs)
    if key not in space._patterns:
        with outside_transforms():
            space._patterns[key] = make_pattern(space, pairs)
    return space._patterns[key]


def make_pattern(space: AnySpace, pairs: Sequence[FacetPairs] = ()) -> Pattern:
    """The sparsity of matrices over a space."""
    none = torch.empty(0, space.mesh.dim, device="cpu")
    wholes = [Domain(i, block.cell, None, none, none[:, 0]) for i, block in enumerate(space.mesh.blocks)]
    blocks = {whole.block: flat_dofs(space, whole) for whole in wholes}
    blocks |= {group.block: flat_dofs(TwoSides(space), group) for group in pairs}
    if space.device.type == "cpu":
        found = pattern_on_cpu(list(blocks.values()), space.num_dofs)
    else:
        found = pattern_by_keys(list(blocks.values()), space.num_dofs)
    return replace(found, positions=dict(zip(blocks, found.positions.values(), strict=True)))


def pattern_on_cpu(blocks: list[Tensor], n: int) -> Pattern:
    """The pattern by C code where it is compiled, else by SciPy."""
    found = compiled_pattern(blocks, n)
    if found is None:
        return pattern_by_rows([block.numpy() for block in blocks], n)
    crow, column, positions = found
    row = torch.repeat_interleave(torch.arange(n, device="cpu"), crow.diff())
    return Pattern(crow, column, row, dict(enumerate(positions)), torch.nonzero(row == column).flatten())


def pattern_by_keys(blocks: list[Tensor], n: int) -> Pattern:
    """The pattern on any device, by one sort of all couplings as keys row · n + column."""
    keys = [(dofs[:, :, None] * n + dofs[:, None, :]).flatten() for dofs in blocks]
    distinct, position = torch.unique(torch.cat(keys), return_inverse=True)
    row, column = distinct // n, distinct % n
    crow = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=n).cumsum(0)])
    parts = zip(position.split([len(key) for key in keys]), blocks, strict=True)
    positions = [part.reshape(*dofs.shape, dofs.shape[1]) for part, dofs in parts]
    return Pattern(crow, column, row, dict(enumerate(positions)), torch.nonzero(row == column).flatten())


def pattern_by_rows(blocks: list[np.ndarray], n: int) -> Pattern:
    """The same on the CPU, two to three times faster: each row of the matrix is sorted by itself."""
    import scipy.sparse

    width, starts = max(b.shape[1] for b in blocks), np.cumsum([0] + [len(b) for b in blocks])
    index = np.int32 if starts[-1] * width**2 < 2**31 else np.int64  # SciPy's tools run faster on short integers
    # Dofs "e A" of all cells; where blocks differ in width, a dof n that does not exist fills the gaps.
    dofs = np.full((starts[-1], width), n, dtype=index)
    for block, start in zip(blocks, starts, strict=False):
        dofs[start : start + len(block), : block.shape[1]] = block
    # Which dof each element row has: the transpose lists, dof by dof, the element rows that feed a matrix row.
    local = np.arange(dofs.size + 1, dtype=index)
    transpose = scipy.sparse.csr_array((local[:-1], dofs.reshape(-1), local), shape=(dofs.size, n + 1)).tocsc()
    rows, starts_of_rows = transpose.indices, np.asarray(transpose.indptr * index(width), dtype=index)
    entries = rows[:, None] * index(width) + np.arange(width, dtype=index)
    columns = dofs[rows // index(width)]
    unsummed = scipy.sparse.csr_array((entries.reshape(-1), columns.reshape(-1), starts_of_rows), shape=(n + 1, n + 1))
    unsummed.sort_indices()
    first = np.ones(entries.size + 1, dtype=bool)  # of the entries that share a row and a column
    np.not_equal(unsummed.indices[1:], unsummed.indices[:-1], out=first[1:-1])
    first[starts_of_rows] = True
    first[:-1] &= unsummed.indices < n
    total = np.zeros(entries.size + 1, dtype=index)
    np.cumsum(first[:-1], out=total[1:])
    crow = total[starts_of_rows[:-1]].astype(np.int64)
    column = unsummed.indices[first[:-1]][: crow[-1]].astype(np.int64)
    row = np.repeat(np.arange(n), np.diff(crow))
    position = np.empty(entries.size, dtype=index)
    position[unsummed.data.astype(index, copy=False)] = total[1:] - 1
    position = position.reshape(-1, width, width)
    to = lambda a: torch.from_numpy(np.ascontiguousarray(a))  # noqa: E731
    positions = [
        to(position[start : start + len(b), : b.shape[1], : b.shape[1]])
        for b, start in zip(blocks, starts, strict=False)
    ]
    return Pattern(to(crow), to(column), to(row), dict(enumerate(positions)), to(np.flatnonzero(column == row)))
