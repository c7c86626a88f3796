"""Algebraic multigrid, for meshes without any structure: coarse spaces found from the matrix alone.

Smoothed aggregation joins strongly coupled dofs into aggregates. On each, the coarse functions are the near-kernel of
the operator (constants, for displacements rigid motions), smoothed by one step of Jacobi; with P the interpolation from
them, coarse matrices are Pᵀ A P. pyamg makes this hierarchy once. The cycles run here, on any device, for all
right-hand sides of a matrix at a time, in single precision inside conjugate gradients that are not.

On every level the matrix is scaled to a unit diagonal, S⁻¹ A S⁻¹. Jacobi smoothing then needs no diagonal, single
precision does not overflow, whatever the units; and −∇·ν∇ = √ν (−Δ + Δ√ν/√ν) √ν for smooth ν is scaled to −Δ and a
lower-order term (Concus and Golub, SIAM Journal on Numerical Analysis 10, 1973), so that a hierarchy made for one
coefficient serves others. Fixed dofs have rows and columns of zeros, which no part of a cycle ever fills.

Source: Vaněk, Mandel and Brezina, Algebraic multigrid by smoothed aggregation for second and fourth order elliptic
problems, Computing 56, 1996. Ruge–Stüben coarsening takes as long to set up and up to three times as long to solve.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import sparse_csr
from fem.forms.constraints import MeanZero
from fem.space.space import AnySpace, FunctionSpace
from solvers.linear.conjugate_gradients import CG, PreparedCG
from solvers.operators.system import System
from solvers.solution import norm

COARSEST = 300  # dofs at most of the level that is solved by a dense matrix
STRENGTH = 0.02  # couplings |a_ij| below this times √(a_ii a_jj) do not count when aggregates form
DAMPED = 8  # the smoother damps eigenvalues in [λ/8, λ]
OLDER = 3  # hierarchies of earlier systems that a space keeps
SAMPLED = 4096  # entries of two matrices that are compared
SLOWER = 1.5  # a hierarchy of another matrix is given up after so many times its own number of iterations, and 5 more


@dataclass(frozen=True)
class AlgebraicMultigrid:
    """Conjugate gradients preconditioned by one V-cycle of algebraic multigrid; or that cycle, for `CG` to use.

    As a linear method it keeps the hierarchies it made last on each space, and takes them for the next matrix as well:
    training, time steps and Newton steps pay the set-up once. An item whose conjugate gradients need more than 1.5
    times as many iterations per digit as the matrix that its hierarchy was made for, and 5 more, goes on with a
    hierarchy of its own. `CG(preconditioner=AlgebraicMultigrid())` makes one for every matrix it has not just met.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.

    Raises:
        ImportError: pyamg is missing.
        ValueError: the operator is not symmetric.
    """

    rtol: float | None = None
    max_iterations: int = 1_000

    def prepare(self, system: System) -> "PreparedMultigrid":
        return PreparedMultigrid(system, self)

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        """r ↦ V r with a hierarchy of each item's very matrix."""
        return Cycles(system, lagged=False)


@dataclass(frozen=True, eq=False)
class Given:
    """A preconditioner made already."""

    apply: Callable[[Tensor], Tensor]

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        return self.apply


class PreparedMultigrid(PreparedCG):
    """Conjugate gradients that replace a hierarchy of another matrix where it serves badly."""

    def __init__(self, system: System, method: AlgebraicMultigrid):
        self.cycles = Cycles(system, lagged=True)
        super().__init__(system, CG(method.rtol, method.max_iterations, Given(self.cycles)))

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """As for `CG`; where a first pass is late, a second one with new hierarchies starts from what it has left."""
        b, target = self.goal(rhs, atol)
        digits, most = self.digits(b, target), self.method.max_iterations
        limit = self.cycles.limit(digits)
        x, r, self.iterations = self.iterate(b, target, most if limit is None else min(limit, most))
        late = norm(r, len(self.system.batch)) > target
        if limit is None or not bool(late.any()):
            self.cycles.learn(self.iterations, digits)
            return x
        self.cycles.renew(late)
        more, _, iterations = self.iterate(r, target, most)
        self.cycles.learn(iterations, self.digits(r, target))
        self.iterations = self.iterations + iterations
        return x + more

    def digits(self, r: Tensor, target: Tensor) -> Float[Tensor, "*b"]:
        """Decimal digits that a residual is above its target, one at least."""
        found = (norm(r, len(self.system.batch)) / target).log10()
        return found.nan_to_num(1, posinf=16).clamp(min=1)


class Cycles:
    """V-cycles for all items of a system, one hierarchy for each distinct matrix; `lagged`: perhaps one of another."""

    def __init__(self, system: System, lagged: bool):
        if not system.symmetric:
            raise ValueError(
                "`AlgebraicMultigrid()` needs a symmetric operator, and a weak form has none; use `Direct()`."
            )
        import_pyamg()
        self.system = system
        space, pattern = system.form.space, system.form.pattern
        values = system.values.reshape(-1, len(pattern.column))
        if not bool(torch.isfinite(values).all()):
            values = values.nan_to_num(0, 0, 0)  # of items that have failed already
        diagonal = values[:, pattern.diagonal]
        usable = diagonal > 0
        if system.fixed is not None:
            usable &= ~system.fixed.expand(*system.batch, *space.shape).reshape(len(values), -1)
        self.values, self.scale = values, torch.where(usable, torch.where(usable, diagonal, 1).rsqrt(), 0)
        # Items of one matrix are neighbours, as a rule: each that differs from the one before begins a new group.
        starts = [i for i in range(len(values)) if i == 0 or not self.is_same(i, values[i - 1], self.scale[i - 1])]
        self.groups = [slice(*ends) for ends in zip(starts, [*starts[1:], len(values)], strict=True)]
        kept = KEPT.get(space, [])
        self.hierarchies: list[Hierarchy] = []
        for group in self.groups:
            self.hierarchies.append(self.hierarchy(group.start, [*self.hierarchies, *kept], lagged))
        self.keep()

    def is_same(self, item: int, values: Tensor, scale: Tensor) -> bool:
        """Whether the item has that matrix up to round-off, which differs with the place in a batch."""
        tolerance = 1e3 * torch.finfo(scale.dtype).eps
        if not torch.allclose(self.scale[item], scale, rtol=tolerance, atol=0):
            return False
        pattern = self.system.form.pattern
        difference = (self.values[item] - values) * scale[pattern.row] * scale[pattern.column]
        return float(difference.abs().max()) <= tolerance

    def hierarchy(self, item: int, kept: "list[Hierarchy]", lagged: bool) -> "Hierarchy":
        """One made for the item's very matrix, or one of the nearest if `lagged`, or else a new one."""
        values, scale = self.values[item], self.scale[item]
        for h in kept:
            if (lagged or not h.lagged) and self.is_same(item, h.values, h.scale):
                return h
        near = [h for h in kept if h.levels and h.rate and torch.equal(h.scale > 0, scale > 0)] if lagged else []
        if not near:
            return make_hierarchy(self.system, values, scale)
        matrix = scaled_matrix(self.system, values, scale, near[0].inverse.dtype)
        return min(near, key=lambda h: h.distance(matrix)).with_matrix(matrix, values, scale)

    def keep(self) -> None:
        """Leave these hierarchies, and a few of earlier systems, for the systems to come."""
        space = self.system.form.space
        older = [h for h in KEPT.get(space, []) if h not in self.hierarchies and not h.lagged]
        KEPT[space] = [*self.hierarchies, *older[:OLDER]]

    def __call__(self, r: Tensor) -> Tensor:
        system = self.system
        flat = r.expand(*system.batch, *system.form.space.shape).reshape(len(self.values), -1)
        size = torch.linalg.vector_norm(flat, float("inf"), -1, keepdim=True)
        size = torch.where(size > 0, size, 1)
        parts = []
        for group, h in zip(self.groups, self.hierarchies, strict=True):
            scale = self.scale[group.start]
            b = (flat[group] * (scale / size[group])).to(h.inverse.dtype)
            z = h.cycle(b[0])[None] if len(b) == 1 else h.cycle(b.mT.contiguous()).mT
            parts.append(z * (scale * size[group]))
        z = torch.cat(parts).reshape(*system.batch, *system.form.space.shape)
        return system.form.linear_part(z) if isinstance(system.form.constraint, MeanZero) else z

    def limit(self, digits: Float[Tensor, "*b"]) -> int | None:
        """Iterations after which items with a hierarchy of another matrix count as late; None where there is none."""
        lagged = [(g, h) for g, h in zip(self.groups, self.hierarchies, strict=True) if h.lagged]
        expected = [h.rate[0] * float(digits.flatten()[g].max()) for g, h in lagged]
        return int(SLOWER * max(expected)) + 5 if expected else None

    def renew(self, late: Bool[Tensor, "*b"]) -> None:
        """Give late items with a hierarchy of another matrix their own."""
        for k, (group, h) in enumerate(zip(self.groups, self.hierarchies, strict=True)):
            if h.lagged and bool(late.flatten()[group].any()):
                self.hierarchies[k] = self.hierarchy(group.start, [], lagged=False)
        self.keep()

    def learn(self, iterations: Tensor, digits: Float[Tensor, "*b"]) -> None:
        """Note how many iterations a digit takes with hierarchies of the very matrix, at their first use."""
        rates = (iterations / digits).flatten()
        for group, h in zip(self.groups, self.hierarchies, strict=True):
            if not h.lagged and not h.rate and bool(rates[group].any()):
                h.rate.append(float(rates[group].max()))


@dataclass(frozen=True, eq=False)
class Level:
    """A matrix of unit diagonal with its smoother, and interpolation from the next level with its transpose."""

    matrix: Tensor
    largest: float
    up: Tensor
    down: Tensor


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Levels and a dense inverse; `values` and `scale` of the finest matrix, and the rate of the one it was made for.

    `lagged` says that interpolation and coarse matrices are those of another matrix.
    """

    levels: tuple[Level, ...]
    inverse: Tensor
    values: Tensor
    scale: Tensor
    rate: list[float]
    lagged: bool = False

    def distance(self, matrix: Tensor) -> float:
        """How much a few thousand entries of the finest matrix differ from another's."""
        mine, theirs = self.levels[0].matrix.values(), matrix.values()
        step = max(len(mine) // SAMPLED, 1)
        return float((mine[::step] - theirs[::step]).norm())

    def with_matrix(self, matrix: Tensor, values: Tensor, scale: Tensor) -> "Hierarchy":
        """The same coarse levels below another matrix."""
        first = replace(self.levels[0], matrix=matrix, largest=largest_eigenvalue(matrix))
        return replace(self, levels=(first, *self.levels[1:]), values=values, scale=scale, lagged=True)

    def cycle(self, b: Tensor, k: int = 0) -> Tensor:
        """V b for a vector or the columns of a matrix, which is used up."""
        if k == len(self.levels):
            return self.inverse @ b
        level = self.levels[k]
        x = smooth(level, b, None)
        y = level.up @ self.cycle(level.down @ b, k + 1)
        x += y
        subtract_product(b, level.matrix, y)
        return smooth(level, b, x)


def smooth(level: Level, b: Tensor, x: Tensor | None) -> Tensor:
    """x plus two steps of the Chebyshev iteration for A x = b; b becomes the residual, unless x was given.

    Source: Adams, Brezina, Hu and Tuminaro, Parallel multigrid smoothing, J. Comput. Phys. 188, 2003.
    """
    middle, half = level.largest * (1 + 1 / DAMPED) / 2, level.largest * (1 - 1 / DAMPED) / 2
    sigma = middle / half
    rho = 1 / (2 * sigma - 1 / sigma)
    d, last = b / middle, x is not None
    x = d.clone() if x is None else x.add_(d)
    subtract_product(b, level.matrix, d)
    d.mul_(rho / sigma).add_(b, alpha=2 * rho / half)
    x += d
    if not last:
        subtract_product(b, level.matrix, d)
    return x


def subtract_product(b: Tensor, matrix: Tensor, x: Tensor) -> None:
    """b −= A x in place."""
    if b.ndim == 1:
        b.addmv_(matrix, x, alpha=-1)
    else:
        b.addmm_(matrix, x, alpha=-1)


def largest_eigenvalue(matrix: Tensor, steps: int = 10) -> float:
    """λ of a symmetric matrix, by Lanczos' iteration from a random vector, and 5 % more as that stays below it."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(matrix.shape[0], generator=generator).to(matrix.device, matrix.dtype)
    v /= v.norm()
    before, beta = torch.zeros_like(v), v.new_zeros(())
    tridiagonal = torch.zeros(steps, steps)
    for k in range(steps):
        w = matrix @ v - beta * before
        alpha = w @ v
        w -= alpha * v
        beta = w.norm()
        tridiagonal[k, k] = alpha
        if k + 1 == steps or beta <= 1e-6 * abs(alpha):
            break
        tridiagonal[k, k + 1] = tridiagonal[k + 1, k] = beta
        before, v = v, w / beta
    found = torch.linalg.eigvalsh(tridiagonal.double()).abs().max()
    return max(1.05 * float(found), 1.0)


def make_hierarchy(system: System, values: Tensor, scale: Tensor) -> Hierarchy:
    """Smoothed aggregation of one item's matrix."""
    import scipy.sparse

    space, pattern, dtype = system.form.space, system.form.pattern, torch.float32
    matrix = scaled_matrix(system, values, scale, torch.float64)
    held = scale == 0
    full = matrix.values().index_add(0, pattern.diagonal, held.double())  # ones: pyamg divides by the diagonal
    parts = [t.cpu().numpy().copy() for t in (full, matrix.col_indices(), matrix.crow_indices())]
    A = scipy.sparse.csr_matrix(tuple(parts), shape=tuple(matrix.shape))
    A.eliminate_zeros()
    block, weighting = (space.components if isinstance(space, FunctionSpace) else None), "local"
    if block is not None and block > 1:
        A, weighting = A.tobsr((block, block)), "block"
    modes = (near_kernel(space) / torch.where(held, 1, scale)[:, None]).masked_fill_(held[:, None], 0)
    state = np.random.get_state()  # noqa: NPY002 - pyamg draws from the global generator: leave it as it was
    np.random.seed(0)  # noqa: NPY002
    below = (
        import_pyamg()
        .smoothed_aggregation_solver(
            A,
            modes.double().cpu().numpy(),
            strength=("symmetric", {"theta": STRENGTH}),
            smooth=("jacobi", {"weighting": weighting}),
            improve_candidates=None,
            max_coarse=COARSEST // modes.shape[1],
            presmoother=None,
            postsmoother=None,
        )
        .levels
    )
    np.random.set_state(state)  # noqa: NPY002
    scaled = [scaled_to_unit_diagonal(level.A.tocsr()) for level in below]
    levels = []
    for k, level in enumerate(below[:-1]):
        fine, coarse = scaled[k][1], scaled[k + 1][1]
        up = scipy.sparse.diags(np.where(fine > 0, 1 / np.where(fine > 0, fine, 1), 0)) @ level.P.tocsr()
        up = up @ scipy.sparse.diags(coarse)
        own = matrix.to(dtype) if k == 0 else to_torch(scaled[k][0], dtype, values.device)
        transfers = (to_torch(t, dtype, values.device) for t in (up, up.T))
        levels.append(Level(own, largest_eigenvalue(own), *transfers))
    inverse = torch.from_numpy(positive_inverse(scaled[-1][0].toarray())).to(values.device, dtype)
    return Hierarchy(tuple(levels), inverse, values, scale, [])


def scaled_matrix(system: System, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix of one item with its rows and columns multiplied by `scale`, in CSR."""
    pattern = system.form.pattern
    return pattern.csr((values * scale[pattern.row] * scale[pattern.column]).to(dtype), short=True)


def to_torch(matrix: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A SciPy matrix as a CSR tensor."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    crow, column, values = (torch.from_numpy(a).to(device) for a in (matrix.indptr, matrix.indices, matrix.data))
    return sparse_csr(crow.int(), column.int(), values.to(dtype), matrix.shape)


def scaled_to_unit_diagonal(matrix: Any) -> tuple[Any, np.ndarray]:
    """S⁻¹ A S⁻¹ and the diagonal of S⁻¹, zero where that of A is (a coarse function without support)."""
    import scipy.sparse

    diagonal = matrix.diagonal()
    empty = diagonal <= 1e-14 * max(diagonal.max(initial=0), 1e-300)
    inverse = np.where(empty, 0, 1 / np.sqrt(np.where(empty, 1, diagonal)))
    return scipy.sparse.diags(inverse) @ matrix @ scipy.sparse.diags(inverse), inverse


def positive_inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of the absolute value |A| of a symmetric matrix, zero on its kernel."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    size = np.abs(eigenvalues)
    size[size <= 1e-12 * size.max(initial=0)] = np.inf
    return vectors / size @ vectors.T


def near_kernel(space: AnySpace) -> Float[Tensor, "N k"]:
    """Functions that an elliptic operator hardly sees, as dofs: constants, and where u may be a displacement rotations.

    Columns: one constant per component and field; u_i = −x_j, u_j = x_i for all pairs i < j.
    """
    constants, start = [], 0
    for f in space.fields:
        for k in range(f.components or 1):
            mode = torch.zeros(space.num_dofs, dtype=space.dtype, device=space.device)
            mode[start + k : start + f.num_dofs : f.components or 1] = 1
            constants.append(mode)
        start += f.num_dofs
    if not isinstance(space, FunctionSpace) or space.components != space.mesh.dim or space.components == 1:
        return torch.stack(constants, -1)
    if not space.is_lagrange:
        return torch.stack(constants, -1)
    x = space.dof_coordinates.detach()
    x = (x - x.mean(0)) / (x.amax(0) - x.amin(0)).max()
    for i, j in combinations(range(x.shape[1]), 2):
        mode = torch.zeros_like(x)
        mode[:, i], mode[:, j] = -x[:, j], x[:, i]
        constants.append(mode.flatten())
    return torch.stack(constants, -1)


def import_pyamg() -> Any:
    try:
        import pyamg
    except ImportError:
        raise ImportError('`AlgebraicMultigrid()` needs pyamg: pip install "ritz[amg]".') from None
    return pyamg


KEPT: weakref.WeakKeyDictionary[AnySpace, list[Hierarchy]] = weakref.WeakKeyDictionary()  # the last system's, by space
