"""What stands for the Schur complement of a multiplier p, as the pressure of a flow: a weighted mass matrix.

With densities ½ ∇u : a : ∇u + p β : ∇u − ½ c p², waves exp(i k·x) see A(k) = k·a·k and i β·k, and p among them

    S = C + B A⁻¹ Bᵀ,        s(k) = c + (β·k)ᵀ A(k)⁻¹ (β·k),

which does not depend on |k|. So S is like the mass matrix of the weight s, whatever the mesh: 1/ν for Stokes' equations
in ½ ν |∇u|², 1/(2μ) + 1/λ for elasticity. Here s is the mean over the directions of the axes, cell by cell. Where
½ ρ |u|² is added, as by time steps, long waves see B (ρ M)⁻¹ Bᵀ instead, and S⁻¹ is taken as the sum of both inverses
(Cahouet and Chabard, International Journal for Numerical Methods in Fluids 8, 1988), the second by multigrid.

Sources: Elman, Silvester and Wathen, Finite Elements and Fast Iterative Solvers, 2014, chapter 4; Olshanskii, Peters
and Reusken, Uniform preconditioners for a parameter dependent saddle point problem, Numerische Mathematik 105, 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.assembly import Coefficient, chunks, element_matrices, flat_dofs, pattern_of
from fem.mesh.geometry import Domain
from fem.reference.lagrange import Lagrange
from fem.space.space import AnySpace, FunctionSpace
from fem.support.conjugate_gradients import conjugate_gradients
from solvers.linear.algebra.blocks import BlockMatrix
from solvers.linear.algebraic_multigrid import Cycles
from solvers.linear.assembled import Assembled, with_entries
from solvers.operators.system import System

STEPS, ENOUGH = 30, 1e-2  # of conjugate gradients for a mass matrix, and the relative residual at which they stop


def is_taylor_hood(space: AnySpace) -> bool:
    """Whether it is a vector field of degree p + 1 with a scalar one of degree p, both continuous: a stable pair."""
    if len(space.fields) != 2 or any(not isinstance(f.family, Lagrange) for f in space.fields):
        return False
    u, p = sorted(space.fields, key=lambda f: f.components is None)
    return u.components == space.mesh.dim and p.components is None and u.degree == p.degree + 1


@dataclass(frozen=True, eq=False)
class SaddlePointStructure:
    """Which field is u and which the multiplier p, and of each block of cells the weights s and what multiplies u².

    Weak forms may have the equations of the multiplier with another sign, −1, than makes the matrix symmetric.
    """

    primal: int
    multiplier: int
    sign: int
    weights: dict[int, Float[Tensor, "*b e"]]
    reaction: dict[int, Float[Tensor, "*b e c c"]]

    @classmethod
    def of(cls, system: System) -> "SaddlePointStructure | None":
        """That of a system, or None where it has another one."""
        fields = system.form.space.fields
        if len(fields) != 2:
            return None
        means = cell_means(system)
        if not system.symmetric and any({r, s} == {(k, 0), (k, 1)} for _, r, s in means for k in (0, 1)):
            return None  # convection, even where it vanishes here
        for i, j in ((0, 1), (1, 0)):
            u, p = fields[i], fields[j]
            if u.components is None or p.components is not None or not (u.is_nodal and p.is_nodal):
                continue
            for sign in (1,) if system.symmetric else (1, -1):
                weights = schur_weights(means, len(u.mesh.blocks), i, j, sign)
                if weights is not None:
                    reaction = {k: t for (k, *slots), t in means.items() if slots == [(i, 0), (i, 0)]}
                    return cls(i, j, sign, weights, reaction)
        return None


def schur_weights(means: dict[tuple, Tensor], blocks: int, i: int, j: int, sign: int) -> dict[int, Tensor] | None:
    """s by block of cells, where field j is a multiplier of constraints on the gradient of field i; else None.

    Its equations have been multiplied by `sign`.
    """
    found = {}
    for block in range(blocks):
        stiffness, coupling = means.get((block, (i, 1), (i, 1))), means.get((block, (i, 1), (j, 0)))
        back = means.get((block, (j, 0), (i, 1)))
        if stiffness is None or coupling is None or back is None or not torch.allclose(back, sign * coupling):
            return None
        c, k = means.get((block, (j, 0), (j, 0))), means.get((block, (j, 1), (j, 1)))
        k = None if k is None else k.diagonal(dim1=-2, dim2=-1)
        if any(t is not None and bool((sign * t > 0).any()) for t in (c, k)):
            return None
        A = stiffness.diagonal(dim1=-3, dim2=-1).movedim(-1, -3)  # "*b e d c c"
        beta = coupling.mT[..., None]
        solved, failed = torch.linalg.solve_ex(A, beta)
        s = (beta * solved).sum((-2, -1)).mean(-1) - (0 if c is None else sign * c)
        finite = torch.isfinite(s)  # items that are not have failed already
        if bool((finite & ((s <= 0) | failed.any(-1))).any()):
            return None
        found[block] = torch.where(finite, s, 1)
    return found


def cell_means(system: System) -> dict[tuple, Tensor]:
    """Coefficients of the integrals over cells by block and pair of slots, averaged over each cell, "*b e …"."""
    space, batch, found = system.form.space, system.batch, {}
    for h in system.hessians:
        domain, geometry = h.integral.domain, h.integral.geometry
        if h.integral.space is not space or not isinstance(domain, Domain) or domain.facet is not None:
            continue
        for c in h.coefficients:
            value = c.value
            e, q = geometry.points.shape[:2]
            inner = value.shape[len(batch) + 2 :]
            w = geometry.weights.expand(e, q)
            w = (w / w.sum(-1, keepdim=True)).reshape(e, q, *[1] * len(inner))
            mean = (value * w).sum(len(batch) + 1).expand(*batch, e, *inner)
            key, count = (domain.block, c.row, c.column), space.mesh.blocks[domain.block].num_cells
            total = found.get(key, mean.new_zeros(*batch, count, *inner))
            cells = torch.arange(e, device=mean.device) if domain.cells is None else domain.cells
            found[key] = total.index_add(len(batch), cells, mean)
    return found


def weighted_mass(space: FunctionSpace, weights: dict[int, Tensor], batch: tuple[int, ...]) -> Assembled:
    """∫ s φ_a φ_b."""
    pattern = pattern_of(space)
    values = next(iter(weights.values())).new_zeros(*batch, len(pattern.column))
    for domain in space.quadrature.domains():
        geometry = space.quadrature.geometry(domain)
        points = weights[domain.block][..., None].expand(*batch, *geometry.points.shape[:2])
        own = [Coefficient((0, 0), (0, 0), points)]
        for cells in chunks(space, domain, batch):
            pattern.add(values, domain, cells, element_matrices(space, own, domain, geometry, batch, False, cells))
    return Assembled(space, pattern, batch, values, None, space)


def reaction_diagonal(space: FunctionSpace, reaction: dict[int, Tensor], batch: tuple[int, ...]) -> Tensor:
    """The diagonal "*b n" of ∫ ρ_ij φ_a φ_b, flattened dof-major."""
    total = space.mesh.nodes.new_zeros(*batch, space.num_dofs)
    for domain in space.quadrature.domains():
        if domain.block in reaction:
            geometry = space.quadrature.geometry(domain)
            rho = reaction[domain.block].unsqueeze(len(batch) + 1)
            rho = rho.expand(*batch, *geometry.points.shape[:2], *rho.shape[-2:])
            own = [Coefficient((0, 0), (0, 0), rho)]
            local = element_matrices(space, own, domain, geometry, batch, diagonal=True)
            index = flat_dofs(space, domain).flatten().expand(*batch, -1)
            total.scatter_add_(-1, index, local.flatten(-2))
    return total


def long_waves(
    transposed: list[Tensor],
    diagonal: Float[Tensor, "b n"],
    space: FunctionSpace,
    fixed: Tensor | None,
    owner: AnySpace,
) -> list[Cycles]:
    """Multigrid for B D⁻¹ Bᵀ of each item, with D the diagonal of ρ M at free dofs, infinite elsewhere."""
    found = []
    for B, d in zip(transposed, diagonal, strict=True):
        scale = torch.where(d > 0, torch.where(d > 0, d, 1).rsqrt(), 0).cpu()
        crow, column, values = B.crow_indices().cpu(), B.col_indices().cpu(), B.values().cpu()
        matrix = BlockMatrix(crow, column, values[:, None, None], space.num_dofs).scaled(scale[:, None], None)
        product = matrix.transposed() @ matrix
        row, column, values = (t.to(d.device) for t in (product.row.long(), product.column.long(), product.values))
        absent = torch.ones(space.num_dofs, dtype=torch.bool, device=d.device)
        absent[row[row == column]] = False  # of the diagonal, which products may leave out where it is zero
        more = torch.nonzero(absent).flatten()
        row, column, values = (
            torch.cat([row, more]),
            torch.cat([column, more]),
            torch.cat([values.flatten(), values.new_zeros(len(more))]),
        )
        order = torch.argsort(row * space.num_dofs + column)
        pattern = with_entries(row[order], column[order], space.num_dofs)
        found.append(Cycles(Assembled(space, pattern, (), values[order], fixed, owner), lagged=True))
    return found


class SchurInverse:
    """r ↦ S⁻¹ r: a few steps of conjugate gradients for the mass matrix, item by item, and cycles for `long` waves."""

    long: Sequence[Cycles] = ()

    def __init__(self, mass: Assembled, fixed: Tensor | None):
        self.batch, n = mass.batch, mass.space.num_dofs
        values = mass.values.reshape(-1, mass.values.shape[-1])
        self.matrices = [mass.pattern.csr(v, short=True) for v in values]
        self.inverse = 1 / mass.values[..., mass.pattern.diagonal]
        self.fixed = torch.zeros(n, dtype=torch.bool, device=values.device) if fixed is None else fixed

    def apply(self, v: Tensor) -> Tensor:
        flat = v.masked_fill(self.fixed, 0).reshape(len(self.matrices), -1)
        product = torch.stack([m @ x for m, x in zip(self.matrices, flat, strict=True)])
        return product.reshape(v.shape).masked_fill_(self.fixed, 0)

    def __call__(self, r: Float[Tensor, "*b n"]) -> Tensor:
        r = r.masked_fill(self.fixed, 0)
        x, p, target = torch.zeros_like(r), torch.empty_like(r), ENOUGH * torch.linalg.vector_norm(r, dim=-1)
        rest = r.clone()
        conjugate_gradients(self.apply, lambda r: self.inverse * r, x, rest, p, target, STEPS)
        for k, cycles in enumerate(self.long):
            x.view(len(self.matrices), -1)[k] += cycles(r.reshape(len(self.matrices), -1)[k])
        return x
