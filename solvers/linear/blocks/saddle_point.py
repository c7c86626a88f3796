"""Saddle points of a vector field and a multiplier: Stokes' equations, nearly incompressible solids in (u, p).

The matrix and what its inverse is approximated by, with S the Schur complement's weighted mass matrix (`schur`),

    [ A  Bᵀ ]      M = [ A_V  Bᵀ ]⁻¹
    [ B  −C ],         [ 0   −S  ]   ,      z_p = −S⁻¹ r_p,    z_u = V (r_u − Bᵀ z_p),

where V ≈ A⁻¹ is one V-cycle of algebraic multigrid. The number of iterations depends neither on the mesh nor, by the
weight in S, on the viscosity or on how incompressible a solid is; it grows with how thin the domain is, since pressures
in a gap are held by little.

Source: Elman, Silvester and Wathen, Finite Elements and Fast Iterative Solvers, 2014, chapter 4.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from fem.support.arithmetic import dot, norm, per_item
from fem.support.checks import check_integers, check_numbers
from solvers.linear.algebraic_multigrid import Cycles, PreparedAlgebraicMultigrid
from solvers.linear.assembled import Assembled, csr_of
from solvers.linear.blocks.conjugate_residuals import conjugate_residuals
from solvers.linear.blocks.schur import (
    SaddlePointStructure,
    SchurInverse,
    is_taylor_hood,
    long_waves,
    reaction_diagonal,
    weighted_mass,
)
from solvers.operators.system import System

UNSEEN = 1e-3  # of the part that one of so many vectors has in a random one
STUCK = 0.1  # of its first residual is what a solve may leave that another step of Newton's method goes on from
ROUGH = 1e-6  # is what one may leave that nothing comes after, as in an adjoint


@dataclass(frozen=True)
class SaddlePoint:
    """Generalised conjugate residuals for a vector field with a multiplier, as velocity and pressure, on any device.

    Preconditioned by algebraic multigrid for the field and a weighted mass matrix for the multiplier. It serves
    energies, and weak forms that are symmetric up to the sign of the multiplier's equations. Hierarchies are kept as
    `AlgebraicMultigrid()` keeps them. Pairs of spaces other than Taylor and Hood's are first asked for any right-hand
    side, which singular matrices do not reach.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.

    Raises:
        ValueError: settings out of range; later, an operator of another structure: convection, more than two fields, a
            multiplier that does not go with the gradient of a vector field.
    """

    rtol: float | None = None
    max_iterations: int = 300

    def __post_init__(self):
        check_numbers("SaddlePoint", "a tolerance", optional=True, rtol=self.rtol)
        check_integers("SaddlePoint", max_iterations=self.max_iterations)

    def prepare(self, system: System) -> "PreparedSaddlePoint":
        structure = SaddlePointStructure.of(system)
        if structure is None:
            raise ValueError(
                "`SaddlePoint()` serves two fields, a vector u and a scalar p, of an energy that is elliptic in grad_u "
                "and has p times derivatives of u, and perhaps −p² and the like, or the weak form of one; this is "
                "neither. Use `Direct()`."
            )
        return PreparedSaddlePoint(system, self, structure)


class PreparedSaddlePoint(PreparedAlgebraicMultigrid):
    """Replaces a hierarchy of another matrix where it serves badly; `unsolved` are items whose last solve got stuck."""

    exact = True

    def __init__(self, system: System, method: SaddlePoint, structure: SaddlePointStructure):
        self.system, self.method, self.structure = system, method, structure
        space, i, j = system.form.space, structure.primal, structure.multiplier
        whole = Assembled.of(system, zeros=False)
        signs = self.turned(torch.ones(space.shape, dtype=whole.values.dtype, device=whole.values.device))
        whole = replace(whole, values=whole.values * signs.flatten()[whole.pattern.row])
        values = whole.values.reshape(-1, whole.values.shape[-1])
        self.cycles = Cycles(whole.of_field(i), lagged=True)
        fixed = None if system.fixed is None else space.split(system.fixed)[j]
        self.schur = SchurInverse(weighted_mass(space.fields[j], structure.weights, system.batch), fixed)
        entries, row, column = whole.block(i, j)
        size = space.fields[i].num_dofs, space.fields[j].num_dofs
        self.transposed = [csr_of(row, column, v, size) for v in values[:, entries]]
        if structure.reaction:
            free = torch.ones(space.shape, device=values.device) if system.fixed is None else ~system.fixed
            free = space.split(free.expand(*system.batch, *space.shape))[i].reshape(len(values), -1)
            diagonal = reaction_diagonal(space.fields[i], structure.reaction, system.batch).reshape(len(values), -1)
            self.schur.long = long_waves(self.transposed, diagonal * free, space.fields[j], fixed, space)
        self.matrices = [whole.pattern.csr(v, short=True) for v in values]
        self.singular = torch.zeros(system.batch, dtype=torch.bool, device=values.device)
        self.indefinite = ~self.singular
        roots = [torch.where(self.cycles.scale > 0, self.cycles.scale, 1), self.schur.inverse.sqrt()]
        roots = [t.reshape(*system.batch, *space.fields[k].shape) for t, k in zip(roots, (i, j), strict=True)]
        self.weights = space.join(roots[:: 1 if i == 0 else -1])  # one over the roots of both diagonals
        self.above = self.unsolved = self.singular
        self.reduction = torch.ones(system.batch, dtype=values.dtype, device=values.device)
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=values.device)
        if not system.symmetric:
            self.check_symmetric()
        if not is_taylor_hood(space):
            self.singular = self.misses_something()

    def turned(self, v: Tensor) -> Tensor:
        """v with the sign of the multiplier's part that makes the matrix symmetric."""
        if self.structure.sign > 0:
            return v
        parts = list(self.system.form.space.split(v))
        parts[self.structure.multiplier] = -parts[self.structure.multiplier]
        return self.system.form.space.join(parts)

    def misses_something(self) -> Bool[Tensor, "*b"]:
        """Whether no u and p give some right-hand side p, up to much less than any one vector's part in it."""
        space, j = self.system.form.space, self.structure.multiplier
        parts = [torch.zeros_like(t) for t in space.split(self.weights)]
        sample = torch.randn(parts[j].shape, generator=torch.Generator().manual_seed(0), dtype=parts[j].dtype)
        parts[j] = sample.to(parts[j].device)
        b, _ = self.goal(space.join(parts), None)
        size = norm(b, len(self.system.batch))
        _, _, self.iterations, _ = self.iterate(
            b, UNSEEN / parts[j].shape[-1] ** 0.5 * size, self.method.max_iterations
        )
        return self.above

    def check_symmetric(self) -> None:
        """Raise where a weak form, with that sign, has no symmetric matrix."""
        generator, like = torch.Generator().manual_seed(0), self.weights
        v, w = torch.randn(2, *like.shape, generator=generator, dtype=like.dtype, device="cpu").to(like.device)
        v, w = (like * self.system.form.linear_part(self.system.masked(t)) for t in (v, w))
        one, two, lead = self.apply(v), self.apply(w), len(self.system.batch)
        gap = (dot(one, w, lead) - dot(two, v, lead)).abs()
        if bool((gap > torch.finfo(v.dtype).eps ** 0.5 * norm(one, lead) * norm(w, lead)).any()):
            raise ValueError(
                "`SaddlePoint()` serves weak forms whose matrix is symmetric, up to the sign of the multiplier's "
                "equations; this one's is not. Use `Direct()`."
            )

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """x with ‖b − H x‖ ≤ max(rtol ‖b‖, atol), but for items that are `unsolved` then."""
        x = super().solve(rhs if transpose else self.turned(rhs), atol)
        x = self.turned(x) if transpose else x
        self.unsolved = self.above & (self.reduction > (ROUGH if atol is None else STUCK))
        return x

    def iterate(self, b: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, what it leaves of b, the count of iterations "*b" and ‖r‖ / ‖b‖; NaN where b or H is not finite."""
        size = norm(b, target.ndim)
        known = torch.isfinite(size) & self.system.finite
        size = torch.where((size > 0) & known, size, 1)
        unit = torch.where(per_item(known, b), b / per_item(size, b), 0)
        found = conjugate_residuals(self.apply, self.precondition, unit, self.weights, target / size, limit)
        x, r, iterations = found
        left = norm(r, target.ndim)
        self.above, reduction = known & (left > target / size), torch.where(iterations > 0, left, 1)
        scale = torch.where(known, size, torch.nan)
        return x * per_item(scale, x), r * per_item(size, r), iterations, reduction

    def apply(self, v: Tensor) -> Tensor:
        """H v."""
        system = self.system
        flat = system.form.linear_part(system.masked(v)).reshape(len(self.matrices), -1)
        products = torch.stack([matrix @ x for matrix, x in zip(self.matrices, flat, strict=True)])
        return system.project(products.reshape(v.shape))

    def precondition(self, r: Tensor) -> Tensor:
        system, structure = self.system, self.structure
        parts = list(system.form.space.split(r))
        u, p = parts[structure.primal], parts[structure.multiplier]
        p = -self.schur(p)
        flat = p.reshape(len(self.transposed), -1)
        load = torch.stack([B @ x for B, x in zip(self.transposed, flat, strict=True)])
        u = self.cycles(u - load.reshape(u.shape))
        parts[structure.primal], parts[structure.multiplier] = u, p
        return system.form.linear_part(system.masked(system.form.space.join(parts)))
