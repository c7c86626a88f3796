"""Sparse direct factorisations on the CPU, and what they tell: singularity, and the signs of eigenvalues."""

import warnings
import weakref
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fem.constraints.rigid_motion import RigidMotionFree
from fem.constraints.ties import ties_of
from fem.forms.constraints import MeanZero
from fem.support.checks import check_choice, shown
from solvers.operators.system import System

FEW = 64  # rows with a zero on the diagonal, up to which a factorisation does without exchanging rows where it can


@dataclass(frozen=True)
class Direct:
    """Sparse LU or LDLᵀ on the CPU, one factorisation per batch item.

    Args:
        backend: "superlu" (SciPy), "pardiso" (the extra `ritz[direct]`, faster and parallel), or None: PARDISO where it
            is installed.
    """

    backend: str | None = None

    def __post_init__(self):
        check_choice("Direct", "backend", self.backend, ("superlu", "pardiso", None))

    def prepare(self, system: System) -> "DirectFactors":
        if system.u.device.type != "cpu":
            other = "Use `CG()`." if system.symmetric else 'Bring the space there, by `V.to("cpu")`.'
            raise ValueError(f"`Direct()` works on the CPU; these tensors are on {system.u.device}. {other}")
        constraint = system.form.constraint
        served = isinstance(constraint, MeanZero | RigidMotionFree) or ties_of(constraint) is not None
        if not served and not system.holds_dofs_alone:
            raise ValueError(
                "`Direct()` serves constraints that prescribe or tie dofs, `MeanZero` and `RigidMotionFree`; got "
                f"{shown(constraint)}, which does more than its mask `fixed` says. `CG()` applies any projection, "
                "for energies."
            )
        return DirectFactors(system, factoriser(self.backend))


class DirectFactors:
    """One factorisation per batch item of the matrix without its fixed rows and columns, scaled to S⁻¹ A S⁻¹."""

    exact = True
    iterations = reduction = None

    def __init__(self, system: System, factorise: Any):
        import scipy.sparse

        self.system = system
        space, pattern = system.form.space, system.form.pattern
        n, self.count = space.num_dofs, max(int(np.prod(system.batch)), 1)
        values = system.values.reshape(self.count, -1).double().numpy()
        border, limit = mean_border(system), 2 / torch.finfo(system.u.dtype).eps
        none = torch.zeros(space.shape, dtype=torch.bool, device="cpu")
        held = none if system.fixed is None else system.fixed
        fixed = held.expand(*system.batch, *space.shape).reshape(-1, n)
        ties = ties_of(system.form.constraint)
        self.free, self.scales, self.factors = [], [], []
        failed, indefinite = [], []
        for item in range(self.count):
            free = ~fixed[item].numpy()
            keep, indices, indptr = [t.numpy() for t in pattern.among(~fixed[item])]
            size, factor = len(indptr) - 1, None
            if ties is None:
                # Zeros are eliminated in place later on: the pattern's own arrays stay as they are.
                matrix = scipy.sparse.csr_array((values[item][keep], indices.copy(), indptr.copy()), shape=(size, size))
                indices, indptr = matrix.indices, matrix.indptr
            else:
                whole = scipy.sparse.csr_array((values[item], pattern.column, pattern.crow), shape=(n, n))
                some = ties.matrix[:, free]
                matrix = scipy.sparse.csr_array(some.T @ whole @ some)
                matrix.sort_indices()
                indices, indptr = matrix.indices, matrix.indptr
            scale = equilibration(matrix)
            if size and np.isfinite(matrix.data).all():
                matrix.data = matrix.data / np.repeat(scale, np.diff(indptr)) / scale[indices]
                factor = factorise(matrix, None if border is None else border[free] / scale[:, None], system.symmetric)
            self.free.append(free)
            self.scales.append(scale)
            self.factors.append(factor)
            failed.append(size > 0 and (factor is None or is_singular(factor, size, limit)))
            indefinite.append(factor is not None and factor.negative > (0 if border is None else border.shape[1]))
        self.singular = torch.tensor(failed, device="cpu").reshape(system.batch)
        self.indefinite = torch.tensor(indefinite, device="cpu").reshape(system.batch)

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        shape = self.system.form.space.shape
        b = self.system.project(rhs).expand(*self.system.batch, *shape).reshape(self.count, -1).double().numpy()
        x = np.zeros(b.shape)
        for item, (free, scale, factor) in enumerate(zip(self.free, self.scales, self.factors, strict=True)):
            if free.any():
                x[item, free] = np.nan if factor is None else factor.solve(b[item, free] / scale, transpose) / scale
        return torch.from_numpy(x).to(rhs.dtype).reshape(*self.system.batch, *shape)


def equilibration(matrix: Any) -> np.ndarray:
    """s > 0 such that the entries A_ij / (s_i s_j) are of order one, whatever the units of each field.

    The root of the diagonal, and where that is zero (a pressure) the largest entry of the row in the scaled columns.
    """
    scale = np.sqrt(np.abs(matrix.diagonal()))
    empty = scale == 0
    if empty.any():
        columns = np.where(empty, 0, 1 / np.where(empty, 1, scale))
        largest = (abs(matrix[empty]) * columns).max(axis=1).toarray().ravel()
        scale[empty] = np.where(largest > 0, largest, 1)
    return scale


def mean_border(system: System) -> np.ndarray | None:
    """Columns that border the matrix of a problem with `MeanZero` or `RigidMotionFree`: what is to vanish."""
    mean, space = system.form.constraint, system.form.space
    if isinstance(mean, RigidMotionFree) and system.form.data is not None:
        return mean.border(system.form.data.detach()).double().numpy()
    if not isinstance(mean, MeanZero):
        return None
    assert system.form.data is not None
    field, weights = space.fields[mean.field], mean.weights(system.form.data.detach())
    weights = weights.reshape(-1, *weights.shape[mean.dim :])[0]  # prescribed values may be a batch, the mean is not
    start = sum(f.num_dofs for f in space.fields[: mean.field])
    border = np.zeros((space.num_dofs, field.components or 1))
    weights = weights.reshape(field.num_nodes, -1)[:, 0].double().numpy()
    border[start : start + field.num_dofs] = np.kron(weights[:, None], np.eye(field.components or 1))
    return border  # with ties too: any columns that see the constants make the matrix regular


def bordered(matrix: Any, border: np.ndarray | None) -> Any:
    """[[A, B], [Bᵀ, 0]] with the columns of B scaled to entries of order one."""
    import scipy.sparse

    if border is None:
        return matrix
    sides = scipy.sparse.csr_array(border / np.abs(border).max(axis=0))
    return scipy.sparse.block_array([[matrix, sides], [sides.T, None]], format="csr")


def factoriser(backend: str | None) -> Any:
    """The class that factorises, told by name or by what is installed."""
    if backend == "pardiso":
        pardiso_is_there.cache_clear()  # it may have been installed since
        if not pardiso_is_there():
            raise ImportError('`Direct("pardiso")` needs pypardiso: pip install "ritz[direct]".')
    return PardisoFactor if backend != "superlu" and pardiso_is_there() else SuperLUFactor


@cache
def pardiso_is_there() -> bool:
    """Whether pypardiso can be imported: looking for what is missing takes long."""
    try:
        import pypardiso  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


class SuperLUFactor:
    """SciPy's SuperLU of a scaled, perhaps bordered matrix.

    Rows given in CSR order are the columns of the transpose, which is what gets factorised. `negative` is the number of
    negative eigenvalues of a symmetric matrix, or 1 where all that is known is that there are some.
    """

    def __init__(self, matrix: Any, border: np.ndarray | None, symmetric: bool):
        import scipy.sparse

        self.size, self.negative = matrix.shape[0], 0
        # An entry on the diagonal that is zero (as for pressures) or negative tells beforehand that a matrix is not
        # definite; with a border only zeros do, negative ones may be seen by vectors of another mean alone.
        diagonal, more = matrix.diagonal(), 0 if border is None else border.shape[1]
        saddle = symmetric and bool(((diagonal == 0) if more else (diagonal <= 0)).any())
        matrix = bordered(matrix, border)
        matrix = scipy.sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        matrix.eliminate_zeros()
        # A positive definite matrix needs no pivoting: the ordering alone decides the fill, and without row exchanges
        # the signs of the pivots are those of the eigenvalues. Panels of several columns cost more than they gain where
        # there is little fill, and gain nothing elsewhere.
        options = {"permc_spec": "MMD_AT_PLUS_A", "panel_size": 1, "options": {"SymmetricMode": True}}
        if symmetric and not saddle:
            self.lu = lu(matrix, diag_pivot_thresh=0.0, **options)
            if self.lu is None:
                return
            # Rows are exchanged for a zero pivot alone, in a matrix that is not singular (a border has them anyway).
            ordered = np.array_equal(self.lu.perm_r, self.lu.perm_c)
            self.negative = int((self.lu.U.diagonal() < 0).sum()) if ordered else 1
            if border is None and (not self.negative or (ordered and is_stable(self.lu, matrix))):
                return
        # Full rows (a border, multipliers of integrals) come last in this ordering; exchanged early they would fill it.
        full = symmetric and (border is not None or saddle) and np.count_nonzero(diagonal == 0) <= FEW
        for threshold in (1e-8, 0.1) if full else ():
            self.negative = more + 1 if saddle else self.negative
            self.lu = lu(matrix, diag_pivot_thresh=threshold, **options)
            if self.lu is None or is_stable(self.lu, matrix):
                return
        # Pivots off the diagonal ruin an ordering that counts on symmetry; this one bounds the fill whatever they are.
        self.negative = more + 1 if saddle else self.negative
        self.lu = lu(matrix, permc_spec="COLAMD", diag_pivot_thresh=0.1)

    def solve(self, b: np.ndarray, transpose: bool = False) -> np.ndarray:
        if self.lu is None:
            return np.full_like(b, np.nan)
        more = self.lu.shape[0] - self.size
        return self.lu.solve(np.pad(b, (0, more)) if more else b, "N" if transpose else "T")[: self.size]


def lu(matrix: Any, **options) -> Any:
    """SuperLU, or None of a matrix that is exactly singular."""
    import scipy.sparse.linalg

    try:
        return scipy.sparse.linalg.splu(matrix, **options)
    except RuntimeError as error:
        if "singular" not in str(error):
            raise
        return None


def is_stable(factor: Any, matrix: Any) -> bool:
    """Whether pivots as they came, of a symmetric matrix that is not definite, solve it to round-off all the same."""
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    with np.errstate(all="ignore"):
        x = factor.solve(b)
        left = np.abs(matrix @ x - b).max()
        return bool(left <= np.finfo(float).eps ** 0.75 * (np.abs(matrix).sum(0).max() * np.abs(x).max()))


class PardisoFactor:
    """MKL PARDISO through pypardiso: real nonsymmetric, or symmetric indefinite with its inertia."""

    def __init__(self, matrix: Any, border: np.ndarray | None, symmetric: bool):
        import scipy.sparse
        from pypardiso.pardiso_wrapper import PyPardisoError  # pyright: ignore[reportMissingImports]

        self.size, self.negative, self.failed = matrix.shape[0], 0, False
        matrix = bordered(matrix, border)
        # Zeros on the diagonal are far from any pivot order that is stable: let PARDISO match and scale there.
        matching = int(not symmetric or bool((matrix.diagonal() == 0).any()))
        self.matrix = with_diagonal(scipy.sparse.triu(matrix) if symmetric else matrix)
        # The same arrays read by columns are the transpose: that is how pypardiso is asked to solve with it.
        arrays = (self.matrix.data, self.matrix.indices, self.matrix.indptr)
        self.transposed = self.matrix if symmetric else scipy.sparse.csc_matrix(arrays, shape=self.matrix.shape)
        self.solver = pardiso_solver()
        self.solver.set_matrix_type(-2 if symmetric else 11)
        # All parameters given (1), ordering by METIS (2), no pivot replaced by a larger one that would hide a singular
        # matrix (10), scaling and matching (11, 13), Bunch–Kaufman pivots (21).
        for index, value in {1: 1, 2: 2, 10: 20, 11: matching, 13: matching, 21: 1}.items():
            self.solver.set_iparm(index, value)
        weakref.finalize(self, self.solver.free_memory, everything=True)
        try:
            self.solver.factorize(self.matrix)
        except PyPardisoError as error:
            if error.value not in (-4, -7):  # a zero pivot, a singular diagonal matrix
                raise
            self.failed = True
        if symmetric:
            self.negative = int(self.solver.get_iparm(23))

    def solve(self, b: np.ndarray, transpose: bool = False) -> np.ndarray:
        if self.failed:
            return np.full_like(b, np.nan)
        padded = np.pad(b, (0, self.matrix.shape[0] - self.size))
        return self.solver.solve(self.transposed if transpose else self.matrix, padded)[: self.size]


@cache
def pardiso_library() -> Any:
    """pypardiso with the MKL found: it looks through the file system for it each time it is asked."""
    from pypardiso.pardiso_wrapper import PyPardisoSolver  # pyright: ignore[reportMissingImports]

    return PyPardisoSolver()


def pardiso_solver() -> Any:
    """A solver without any factorisation yet."""
    solver = copy(pardiso_library())
    solver.pt, solver.iparm = np.zeros_like(solver.pt), np.zeros_like(solver.iparm)
    return solver


def with_diagonal(matrix: Any) -> Any:
    """The matrix with every diagonal entry stored, zero or not, as PARDISO wants it."""
    import scipy.sparse

    n = matrix.shape[0]
    coo, index = matrix.tocoo(), np.arange(n)
    data = (np.r_[coo.data, np.zeros(n)], (np.r_[coo.row, index], np.r_[coo.col, index]))
    full = scipy.sparse.csr_matrix(data, shape=(n, n))
    full.sort_indices()
    return full


def is_singular(factor: Any, n: int, limit: float) -> bool:
    """Whether ‖A⁻¹‖ of a scaled matrix, by two steps of inverse iteration from a random vector, exceeds the limit.

    With a limit of 2/ε: a change of A in its last digits would make it singular, so that nothing can be solved with it.
    """
    z, grown = np.random.default_rng(0).standard_normal(n), []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for _ in range(2):
            z = factor.solve(z / np.linalg.norm(z))
            grown.append(np.linalg.norm(z))
    return not max(grown) < limit
