"""Linear systems with the Hessian of an energy: a sparse direct factorisation, or conjugate gradients.

A `System` is the Hessian of a lowered functional at one state, with some dofs held fixed; a method is a small frozen
value whose `prepare(system)` gives something that solves for right-hand sides, with the matrix or its transpose.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.assembly import Coefficient, element_matrices, flat_dofs
from fem.boundary import MeanZero
from fem.energy import Lowered, LoweredTerm
from solvers.solution import dot, norm, per_item


class System:
    """H(u) restricted to the dofs that are not `fixed` "*b *shape": zero rows and columns elsewhere."""

    def __init__(self, lowered: Lowered, u: Tensor, fixed: Tensor | None = None, symmetric: bool = True):
        self.lowered, self.u, self.symmetric = lowered, u, symmetric
        self.batch = lowered.full_batch(u)
        self.fixed = lowered.constraint.mask if fixed is None else fixed

    @cached_property
    def coefficients(self) -> list[tuple[LoweredTerm, list[Coefficient]]]:
        return self.lowered.coefficients(self.u)

    def same_matrix(self, other: "System") -> bool:
        """Whether both have the same matrix: true between any two states of a quadratic energy."""
        if (self.fixed is None) != (other.fixed is None):
            return False
        if self.fixed is not other.fixed and not torch.equal(self.fixed, other.fixed):  # type: ignore[arg-type]
            return False
        for (_, mine), (_, theirs) in zip(self.coefficients, other.coefficients, strict=True):
            if len(mine) != len(theirs):
                return False
            if not all(torch.equal(a.value, b.value) for a, b in zip(mine, theirs, strict=True)):
                return False
        return True

    def project(self, v: Tensor) -> Tensor:
        """Zero at fixed dofs, balanced where the mean is."""
        v = self.lowered.constraint.project(v, self.lowered.data)
        return v if self.fixed is None else v.masked_fill(self.fixed, 0)

    def apply(self, v: Float[Tensor, "..."]) -> Tensor:
        """H v without a matrix, from the density's second derivatives at quadrature points."""
        space = self.lowered.space
        v = self.lowered.linear_part(v if self.fixed is None else v.masked_fill(self.fixed, 0))
        totals: list[list[Tensor]] = [[] for _ in space.fields]
        for lowered, entries in self.coefficients:
            per_field, lead = lowered.term.derivatives + 1, len(self.batch) + 2
            slots = self.lowered.slots(lowered, v)
            fluxes: list[Tensor | None] = [None] * len(slots)
            for c in entries:
                i, j = c.row[0] * per_field + c.row[1], c.column[0] * per_field + c.column[1]
                part = contract(c.value, slots[j], lead)
                fluxes[i] = part if fluxes[i] is None else fluxes[i] + part
            self.lowered.scatter_terms(totals, lowered, fluxes, self.batch)
        return self.project(self.lowered.join_totals(totals, self.u, self.batch))

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of H, ones at fixed dofs."""
        space = self.lowered.space
        total = self.u.new_zeros(*self.batch, space.num_dofs)
        for t, entries in self.coefficients:
            local = element_matrices(space, entries, t.domain, t.geometry, self.batch, diagonal=True)
            index = flat_dofs(space, t.domain).flatten().expand(*self.batch, -1)
            total.scatter_add_(-1, index, local.flatten(-2))
        total = total.unflatten(-1, space.shape)
        return total if self.fixed is None else total.masked_fill(self.fixed, 1)

    @cached_property
    def values(self) -> Float[Tensor, "*b z"]:
        """CSR values of the unconstrained matrix."""
        return self.lowered.matrix_values(self.u, raw=True, coefficients=self.coefficients)

    def unconstrained_direction(self) -> str | None:
        """The field or component whose constants H does not see, in words: the usual cause of a singular problem."""
        if isinstance(self.lowered.constraint, MeanZero):
            return None
        space = self.lowered.space
        for i, field in enumerate(space.fields):
            for c in range(field.components or 1):
                parts = [torch.zeros(f.shape, dtype=f.dtype, device=f.device) for f in space.fields]
                (parts[i] if field.components is None else parts[i][..., c]).fill_(1)
                one = space.join(parts).expand(*self.batch, *space.shape)
                if self.fixed is not None:
                    if bool((self.fixed & (one != 0)).flatten(len(self.batch)).any(-1).all()):
                        continue
                    one = one.masked_fill(self.fixed, 0)
                scale = norm(self.diagonal * one, len(self.batch)) + torch.finfo(one.dtype).tiny
                seen = norm(self.apply(one), len(self.batch)) / scale
                # Round-off in H·1 grows with the entries cancelled, not with their number.
                if bool((seen < 1e3 * torch.finfo(one.dtype).eps).any()):
                    which = "u" if len(space.fields) == 1 else f"field {i}"
                    return f"constants of {which}" if field.components is None else f"component {c} of {which}"
        return None


def contract(value: Tensor, slot: Tensor, lead: int) -> Tensor:
    """Σ_j D_ij s_j over the trailing axes of a slot."""
    inner = slot.shape[lead:].numel()
    matrix = value.reshape(*value.shape[:lead], -1, inner)
    flat = slot.reshape(*slot.shape[:lead], 1, inner)
    return (matrix * flat).sum(-1).reshape(*value.shape[: value.ndim - (slot.ndim - lead)])


@runtime_checkable
class Prepared(Protocol):
    """A system made ready: `solve` gives x "*b *shape", zero at fixed dofs, and the items that failed "*b"."""

    singular: Tensor
    indefinite: Tensor

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor: ...


@runtime_checkable
class LinearMethod(Protocol):
    def prepare(self, system: System) -> Prepared: ...


# -- sparse direct -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direct:
    """Sparse LU or LDLᵀ on the CPU, one factorisation per batch item.

    Args:
        backend: "superlu" (SciPy), "pardiso" (the extra `ritz[direct]`, faster and parallel), or None: PARDISO where it
            is installed.
    """

    backend: str | None = None

    def __post_init__(self):
        if self.backend not in (None, "superlu", "pardiso"):
            raise ValueError(f'`Direct(backend=...)` must be "superlu", "pardiso" or None; got {self.backend!r}.')

    def prepare(self, system: System) -> "DirectFactors":
        if system.u.device.type != "cpu":
            raise ValueError(f"`Direct()` works on the CPU; these tensors are on {system.u.device}. Use `CG()`.")
        return DirectFactors(system, factoriser(self.backend))


class DirectFactors:
    """One factorisation per batch item of the matrix without its fixed rows and columns."""

    def __init__(self, system: System, factorise: Any):
        self.system = system
        space, pattern = system.lowered.space, system.lowered.pattern
        n, self.count = space.num_dofs, max(int(np.prod(system.batch)), 1)
        values = system.values.reshape(self.count, -1).double().numpy()
        row, column = pattern.row.numpy(), pattern.column.numpy()
        border = mean_border(system)
        fixed = None if system.fixed is None else system.fixed.expand(*system.batch, *space.shape).reshape(-1, n)
        self.free, self.factors = [], []
        failed, negative = [], []
        free, keep, indices, indptr = np.ones(n, dtype=bool), slice(None), column, pattern.crow.numpy()
        for item in range(self.count):
            if fixed is not None and (item == 0 or not torch.equal(fixed[item], fixed[item - 1])):
                free = ~fixed[item].numpy()
                number = np.cumsum(free) - 1
                keep = free[row] & free[column]
                indices = number[column[keep]]
                indptr = np.concatenate([[0], np.cumsum(np.bincount(number[row[keep]], minlength=int(free.sum())))])
            factor = factorise(values[item][keep], indices, indptr, border, system.symmetric)
            self.free.append(free)
            self.factors.append(factor)
            failed.append(factor.singular)
            negative.append(factor.negative > (0 if border is None else border.shape[1]))
        self.singular = torch.tensor(failed).reshape(system.batch)
        self.indefinite = torch.tensor(negative).reshape(system.batch)

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        shape = self.system.lowered.space.shape
        b = self.system.project(rhs).expand(*self.system.batch, *shape).reshape(self.count, -1).double().numpy()
        x = np.zeros(b.shape)
        for item, (free, factor) in enumerate(zip(self.free, self.factors, strict=True)):
            if free.any():
                x[item, free] = factor.solve(b[item, free], transpose)
        return torch.from_numpy(x).to(rhs.dtype).reshape(*self.system.batch, *shape)


def mean_border(system: System) -> np.ndarray | None:
    """Columns that border the matrix of a problem with `MeanZero`: the weights of the mean, per component."""
    constraint = system.lowered.constraint
    if not isinstance(constraint, MeanZero):
        return None
    assert system.lowered.data is not None
    c = system.lowered.space.components or 1
    weights = system.lowered.data.detach().double().numpy()
    return np.kron(weights[:, None], np.eye(c)) * (float(system.diagonal.abs().mean()) / weights.mean())


def factoriser(backend: str | None) -> Any:
    """The class that factorises, told by name or by what is installed."""
    if backend == "superlu":
        return SuperLUFactor
    try:
        import pypardiso  # noqa: F401
    except ImportError:
        if backend == "pardiso":
            raise ImportError('`Direct("pardiso")` needs pypardiso: pip install "ritz[direct]".') from None
        return SuperLUFactor
    return PardisoFactor


class SuperLUFactor:
    """SciPy's SuperLU. Rows given in CSR order are the columns of the transpose, which is what gets factorised."""

    def __init__(self, values, indices, indptr, border, symmetric: bool):
        import scipy.sparse
        import scipy.sparse.linalg

        n = len(indptr) - 1
        self.size, self.singular, self.negative, self.lu = n, False, 0, None
        matrix = scipy.sparse.csc_array((values, indices.astype(np.intc), indptr.astype(np.intc)), shape=(n, n))
        matrix.eliminate_zeros()
        if n == 0:
            return
        definite = symmetric and border is None
        if border is not None:
            sides = scipy.sparse.csc_array(border)
            matrix = scipy.sparse.block_array([[matrix, sides], [sides.T, None]], format="csc")
        # Symmetric positive definite matrices need no pivoting: the ordering alone decides the fill.
        options = {
            "permc_spec": "MMD_AT_PLUS_A" if symmetric else "COLAMD",
            "diag_pivot_thresh": 0.0 if definite else 0.1,
            "options": {"SymmetricMode": symmetric},
        }
        try:
            self.lu = scipy.sparse.linalg.splu(matrix, **options)
        except RuntimeError as error:
            if "singular" not in str(error):
                raise
            self.singular = True
            return
        if definite:
            # Without row exchanges the signs of the pivots are those of the eigenvalues.
            pivots = self.lu.U.diagonal()
            same_order = np.array_equal(self.lu.perm_r, self.lu.perm_c)
            self.negative = int((pivots < 0).sum()) if same_order else 0
        self.singular = is_singular(matrix.diagonal(), lambda b: self.solve(b, False), n)

    def solve(self, b: np.ndarray, transpose: bool) -> np.ndarray:
        if self.lu is None:
            return np.full_like(b, np.nan)
        padded = np.pad(b, (0, self.lu.shape[0] - self.size))
        return self.lu.solve(padded, "N" if transpose else "T")[: self.size]


class PardisoFactor:
    """MKL PARDISO through pypardiso: real nonsymmetric, or symmetric indefinite with its inertia."""

    def __init__(self, values, indices, indptr, border, symmetric: bool):
        import pypardiso
        import scipy.sparse

        n = len(indptr) - 1
        self.size, self.singular, self.negative, self.solver = n, False, 0, None
        matrix = scipy.sparse.csr_matrix((values, indices, indptr), shape=(n, n))
        if n == 0:
            return
        if border is not None:
            sides = scipy.sparse.csr_matrix(border)
            matrix = scipy.sparse.bmat([[matrix, sides], [sides.T, None]], format="csr")
        diagonal = matrix.diagonal()
        self.symmetric = symmetric
        self.matrix = scipy.sparse.csr_matrix(with_diagonal(scipy.sparse.triu(matrix)) if symmetric else matrix)
        self.matrix.sort_indices()
        self.solver = pypardiso.PyPardisoSolver(mtype=-2 if symmetric else 11)
        self.solver.factorize(self.matrix)
        if symmetric:
            self.negative = int(self.solver.get_iparm(23))
        self.singular = is_singular(diagonal, lambda b: self.solve(b, False), n)

    def solve(self, b: np.ndarray, transpose: bool) -> np.ndarray:
        assert self.solver is not None
        self.solver.set_iparm(12, 2 if transpose and not self.symmetric else 0)
        self.solver.set_phase(33)
        padded = np.pad(b, (0, self.matrix.shape[0] - self.size))
        return self.solver._call_pardiso(self.matrix, padded)[: self.size]

    def __del__(self):
        if getattr(self, "solver", None) is not None:
            self.solver.free_memory(everything=True)


def with_diagonal(upper: Any) -> Any:
    """The upper triangle with every diagonal entry stored, zero or not, as PARDISO wants it."""
    import scipy.sparse

    n = upper.shape[0]
    coo = upper.tocoo()
    index = np.arange(n)
    data = (np.r_[coo.data, np.zeros(n)], (np.r_[coo.row, index], np.r_[coo.col, index]))
    return scipy.sparse.csr_matrix(data, shape=(n, n))


def is_singular(diagonal: np.ndarray, solve: Any, n: int) -> bool:
    """Whether ‖D^½ A⁻¹ D^½ z‖ for one random z shows a condition number at the limit of double precision."""
    scale = np.sqrt(np.abs(diagonal[:n]))
    scale[scale == 0] = 1
    z = np.random.default_rng(0).standard_normal(n)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        grown = np.linalg.norm(scale * solve(scale * z)) / np.linalg.norm(z)
    return not grown < 1e13


# -- conjugate gradients -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CG:
    """Conjugate gradients preconditioned by the diagonal, matrix-free, all batch items at once, on any device.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.
    """

    rtol: float | None = None
    max_iterations: int = 20_000

    def prepare(self, system: System) -> "PreparedCG":
        if not system.symmetric:
            raise ValueError("`CG()` needs a symmetric operator, and a weak form has none; use `Direct()`.")
        return PreparedCG(system, self)


class PreparedCG:
    def __init__(self, system: System, method: CG):
        self.system, self.method = system, method
        diagonal = system.diagonal
        lead = len(system.batch)
        self.singular = (diagonal == 0).flatten(lead).any(-1)
        self.indefinite = (diagonal < 0).flatten(lead).any(-1)
        self.inverse_diagonal = torch.where(diagonal == 0, 1, 1 / diagonal.abs())
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=system.u.device)

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """x with ‖b − H x‖ ≤ max(rtol ‖b‖, atol); items whose curvature turns negative stop there and are flagged."""
        system, lead = self.system, len(self.system.batch)
        b = system.project(rhs).expand(*system.batch, *system.lowered.space.shape)
        rtol = self.method.rtol if self.method.rtol is not None else 0.1 * torch.finfo(b.dtype).eps ** 0.75
        target = rtol * norm(b, lead)
        if atol is not None:
            target = torch.maximum(target, atol)
        x, r = torch.zeros_like(b), b
        z = self.inverse_diagonal * r
        p, rz = z, dot(r, z, lead)
        self.iterations = torch.zeros_like(self.iterations)
        # A look at the residual waits for a GPU; on the CPU it costs nothing.
        every = 1 if b.device.type == "cpu" else 10
        for k in range(self.method.max_iterations):
            running = (norm(r, lead) > target) & ~self.indefinite
            if k % every == 0 and not bool(running.any()):
                break
            Ap = system.apply(p)
            curvature = dot(p, Ap, lead)
            turned = running & (curvature <= 0)
            self.indefinite = self.indefinite | turned
            # Negative curvature: hand back that direction, downhill, for a search along it.
            x = torch.where(per_item(turned, x), p, x)
            running = running & ~turned
            alpha = per_item(torch.where(running, rz / curvature, 0), x)
            x, r = x + alpha * p, r - alpha * Ap
            z = self.inverse_diagonal * r
            rz, before = dot(r, z, lead), rz
            p = z + per_item(torch.where(running, rz / before, 0), x) * p
            self.iterations += running
        return x


def default_linear(system_space: Any, symmetric: bool) -> LinearMethod:
    """Direct on the CPU unless three dimensions would fill the factors; conjugate gradients otherwise."""
    small = system_space.mesh.dim < 3 or system_space.num_dofs <= 8_000
    if system_space.device.type == "cpu" and (small or not symmetric):
        return Direct()
    return CG()


def fixed_mask(lowered: Lowered, active: Bool[Tensor, "..."] | None) -> Tensor | None:
    """Dofs held fixed: prescribed, or at a bound."""
    mask = lowered.constraint.mask
    return mask if active is None else active if mask is None else active | mask
