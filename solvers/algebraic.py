"""Algebraic multigrid, for meshes without any structure: coarse spaces found from the matrix alone.

Smoothed aggregation joins strongly coupled dofs into aggregates; on each, the coarse functions are the near-kernel of
the operator (constants, for displacements rigid motions), smoothed by one step of Jacobi. With P the interpolation from
them, coarse matrices are Pᵀ A P. pyamg makes this hierarchy once; the cycles run here, on any device, for all right-hand
sides of a matrix at a time, in single precision inside conjugate gradients that are not.

On every level the matrix is scaled to a unit diagonal, S⁻¹ A S⁻¹. Jacobi smoothing then needs no diagonal, single
precision does not overflow, whatever the units; and −∇·ν∇ = √ν (−Δ + Δ√ν/√ν) √ν for smooth ν is scaled to −Δ and a
lower-order term (Concus and Golub, SIAM Journal on Numerical Analysis 10, 1973), so that a hierarchy made for one
coefficient serves others. Fixed dofs have rows and columns of zeros, which no part of a cycle ever fills.

Source: Vaněk, Mandel and Brezina, Algebraic multigrid by smoothed aggregation for second and fourth order elliptic
problems, Computing 56, 1996. Ruge–Stüben coarsening takes as long to set up and up to three times as long to solve.
"""

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.boundary import MeanZero
from fem.lagrange import LagrangeElement
from fem.space import AnySpace, FunctionSpace
from solvers.linear import CG, PreparedCG
from solvers.solution import norm
from solvers.system import System

COARSEST = 300  # dofs at most of the level that is solved by a dense matrix
STRENGTH = 0.02  # couplings |a_ij| below this times √(a_ii a_jj) do not count when aggregates form
DAMPED = 8  # the smoother damps eigenvalues in [λ/8, λ]
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


@dataclass(frozen=True)
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
        """As for `CG`; a second pass, with new hierarchies, starts from what a first one has left."""
        cycles, lead, most = self.cycles, len(self.system.batch), self.method.max_iterations
        b, target = self.goal(rhs, atol)
        self.iterations = torch.zeros_like(self.iterations)
        digits = (norm(b, lead) / target).log10()
        limit = min(cycles.limit(digits), most)
        x, r = self.iterate(b, target, limit)
        late = norm(r, lead) > target
        if limit == most or not bool(late.any()):
            cycles.learn(self.iterations, digits)
            return x
        cycles.renew(late)
        digits, before = (norm(r, lead) / target).log10(), self.iterations.clone()
        x += self.iterate(r, target, most)[0]
        cycles.learn(self.iterations - before, digits)
        return x


class Cycles:
    """V-cycles for all items of a system, one hierarchy for each distinct matrix; `lagged` ones may be of another."""

    def __init__(self, system: System, lagged: bool):
        if not system.symmetric:
            raise ValueError(
                "`AlgebraicMultigrid()` needs a symmetric operator, and a weak form has none; use `Direct()`."
            )
        import_pyamg()
        self.system = system
        space, n = system.lowered.space, system.lowered.space.num_dofs
        self.values = system.values.reshape(-1, system.values.shape[-1])
        diagonal = self.values[:, system.lowered.pattern.diagonal]
        usable = (diagonal > 0) & torch.isfinite(diagonal)
        if system.fixed is not None:
            usable &= ~system.fixed.expand(*system.batch, *space.shape).reshape(-1, n)
        self.scale = torch.where(usable, torch.where(usable, diagonal, 1).rsqrt(), 0)
        # Items of one matrix are neighbours, as a rule: those that differ from the one before begin a new group.
        starts = [i for i in range(len(self.values)) if i == 0 or not self.same(i, i - 1)]
        self.groups = [slice(*ends) for ends in zip(starts, [*starts[1:], len(self.values)], strict=True)]
        kept = KEPT.get(space, [])
        self.hierarchies: list[Hierarchy] = []
        for number, group in enumerate(self.groups):
            values, scale = self.values[group.start], self.scale[group.start]
            h = next((h for h in kept if h.fits(values, scale) and (lagged or not h.lagged)), None)
            if h is None and lagged and kept:
                other = kept[min(number, len(kept) - 1)]
                if other.rate and torch.equal(other.scale > 0, scale > 0):
                    h = other.with_matrix(system, values, scale)
            self.hierarchies.append(make_hierarchy(system, values, scale) if h is None else h)
        KEPT[space] = self.hierarchies

    def same(self, i: int, j: int) -> bool:
        return torch.equal(self.scale[i], self.scale[j]) and torch.equal(self.values[i], self.values[j])

    def __call__(self, r: Tensor) -> Tensor:
        system, n = self.system, self.values.shape[1]
        flat = r.expand(*system.batch, *system.lowered.space.shape).reshape(len(self.values), -1)
        size = torch.linalg.vector_norm(flat, float("inf"), -1, keepdim=True)
        size = torch.where(size > 0, size, 1)
        z = torch.empty_like(flat)
        for group, hierarchy in zip(self.groups, self.hierarchies, strict=True):
            scaled = flat[group] * (self.scale[group.start] / size[group])
            b = scaled[0] if len(scaled) == 1 else scaled.mT
            out = hierarchy.cycle(b.to(hierarchy.dtype).contiguous())
            torch.mul(out.mT if out.ndim > 1 else out[None], self.scale[group.start] * size[group], out=z[group])
        z = z.reshape(*system.batch, *system.lowered.space.shape)
        return system.lowered.linear_part(z) if isinstance(system.lowered.constraint, MeanZero) else z

    def limit(self, digits: Tensor) -> int:
        """Iterations after which items with a hierarchy of another matrix are called late; without any, no limit."""
        found = 0
        for group, h in zip(self.groups, self.hierarchies, strict=True):
            if h.lagged and h.rate:
                found = max(found, int(SLOWER * h.rate[0] * float(digits.flatten()[group].max().clamp(min=1))) + 5)
        return found or 2**62

    def renew(self, late: Bool[Tensor, "*b"]) -> None:
        """Give late items of another matrix's hierarchy their own."""
        for number, (group, h) in enumerate(zip(self.groups, self.hierarchies, strict=True)):
            if h.lagged and bool(late.flatten()[group].any()):
                values, scale = self.values[group.start], self.scale[group.start]
                self.hierarchies[number] = make_hierarchy(self.system, values, scale)

    def learn(self, iterations: Tensor, digits: Tensor) -> None:
        """Note how many iterations a digit takes with hierarchies of the very matrix, at their first use."""
        rates = (iterations / digits.clamp(min=1)).flatten()
        for group, h in zip(self.groups, self.hierarchies, strict=True):
            if not h.lagged and not h.rate and bool(iterations.flatten()[group].any()):
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

    @property
    def dtype(self) -> torch.dtype:
        return self.inverse.dtype

    def fits(self, values: Tensor, scale: Tensor) -> bool:
        return torch.equal(self.scale, scale) and torch.equal(self.values, values)

    def with_matrix(self, system: System, values: Tensor, scale: Tensor) -> "Hierarchy":
        """The same coarse levels below another matrix."""
        if not self.levels:
            return self
        matrix = finest(system, values, scale, self.dtype)
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

    space, dtype = system.lowered.space, torch.float32
    matrix = finest(system, values, scale, torch.float64)
    parts = [t.cpu().numpy().copy() for t in (matrix.values(), matrix.col_indices(), matrix.crow_indices())]
    A = scipy.sparse.csr_matrix(tuple(parts), shape=tuple(matrix.shape))
    A.eliminate_zeros()
    block = space.components if isinstance(space, FunctionSpace) else None
    if block is not None and block > 1:
        A = A.tobsr((block, block))
    held = scale == 0
    modes = (near_kernel(space) / torch.where(held, 1, scale)[:, None]).masked_fill_(held[:, None], 0)
    aggregation = import_pyamg().smoothed_aggregation_solver(
        A,
        modes.double().cpu().numpy(),
        strength=("symmetric", {"theta": STRENGTH}),
        smooth=("jacobi", {"weighting": "local"}),
        improve_candidates=None,
        max_coarse=COARSEST // modes.shape[1],
        presmoother=None,
        postsmoother=None,
    )
    below = aggregation.levels
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


def finest(system: System, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix of one item with its rows and columns multiplied by `scale`, in CSR."""
    pattern = system.lowered.pattern
    scaled = (values * scale[pattern.row] * scale[pattern.column]).to(dtype)
    return csr(pattern.crow, pattern.column, scaled, (len(scale), len(scale)))


def csr(crow: Tensor, column: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A sparse tensor with short indices: MKL takes no others, and would convert them for every product."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow.int(), column.int(), values, size=size, check_invariants=False)


def to_torch(matrix: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A SciPy matrix as a CSR tensor."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    arrays = (torch.from_numpy(a).to(device) for a in (matrix.indptr, matrix.indices, matrix.data))
    crow, column, values = arrays
    return csr(crow, column, values.to(dtype), matrix.shape)


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
    if not all(isinstance(e, LagrangeElement) for e in space.elements):
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
