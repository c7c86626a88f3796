"""Smoothed aggregation: the hierarchy of one sparse matrix, coarse spaces found from the matrix alone.

Strongly coupled dofs are joined into aggregates. On each, the coarse functions are the near-kernel of the operator
(constants, for displacements rigid motions), smoothed by one step of Jacobi; with P the interpolation from them, coarse
matrices are Pᵀ A P. pyamg makes this hierarchy once.

Source: Vaněk, Mandel and Brezina, Algebraic multigrid by smoothed aggregation for second and fourth order elliptic
problems, Computing 56, 1996. Ruge–Stüben coarsening takes as long to set up and up to three times as long to solve.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.assembly import sparse_csr
from fem.space.space import AnySpace, FunctionSpace
from solvers.linear.conjugate_gradients import ritz_values
from solvers.linear.cycle import Level, chebyshev
from solvers.operators.system import System

COARSEST = 300  # dofs at most of the level that is solved by a dense matrix
STRENGTH = 0.02  # couplings |a_ij| below this times √(a_ii a_jj) do not count when aggregates form
DAMPED = 8  # the smoother damps eigenvalues in [λ/8, λ]
SAMPLED = 4096  # entries of two matrices that are compared


@dataclass(frozen=True, eq=False)
class Stage:
    """A matrix of unit diagonal with its largest eigenvalue, and interpolation from the next one with its transpose."""

    matrix: Tensor
    largest: Tensor
    up: Tensor
    down: Tensor


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Stages and a dense inverse; `values` and `scale` of the finest matrix, and the rate of the one it was made for.

    `lagged` says that interpolation and coarse matrices are those of another matrix.
    """

    stages: tuple[Stage, ...]
    inverse: Tensor
    values: Tensor
    scale: Tensor
    rate: list[float]
    lagged: bool = False

    def distance(self, matrix: Tensor) -> float:
        """How much a few thousand entries of the finest matrix differ from another's."""
        mine, theirs = self.stages[0].matrix.values(), matrix.values()
        step = max(len(mine) // SAMPLED, 1)
        return float((mine[::step] - theirs[::step]).norm())

    def with_matrix(self, matrix: Tensor, values: Tensor, scale: Tensor) -> "Aggregation":
        """The same coarse stages below another matrix."""
        first = replace(self.stages[0], matrix=matrix, largest=largest_eigenvalue(matrix))
        return replace(self, stages=(first, *self.stages[1:]), values=values, scale=scale, lagged=True)

    def levels(self, columns: int) -> "list[MatrixLevel]":
        """Levels for so many right-hand sides at a time, with room of their own."""
        found: list[MatrixLevel] = [CoarsestMatrix(self.inverse, columns)]
        for stage in self.stages[::-1]:
            found.insert(0, StageLevel(stage, columns, found[0]))
        return found


class MatrixLevel(Level):
    """A level whose x, b and r are vectors, or matrices with one column for each right-hand side."""

    def __init__(self, matrix: Tensor, columns: int):
        shape = (len(matrix),) if columns == 1 else (len(matrix), columns)
        self.x, self.b, self.r = (torch.zeros(shape, dtype=matrix.dtype, device=matrix.device) for _ in range(3))


class StageLevel(MatrixLevel):
    def __init__(self, stage: Stage, columns: int, coarse: MatrixLevel):
        super().__init__(stage.matrix, columns)
        self.stage, self.coarse = stage, coarse
        omega, self.factors = chebyshev(2, DAMPED)
        self.weight = omega / stage.largest
        self.add_product = torch.addmv if columns == 1 else torch.addmm

    def residual(self) -> None:
        self.add_product(self.b, self.stage.matrix, self.x, alpha=-1, out=self.r)

    def restrict(self) -> None:
        self.add_product(self.coarse.b, self.stage.down, self.r, beta=0, out=self.coarse.b)

    def interpolate(self) -> None:
        self.add_product(self.x, self.stage.up, self.coarse.x, out=self.x)


class CoarsestMatrix(MatrixLevel):
    def __init__(self, inverse: Tensor, columns: int):
        super().__init__(inverse, columns)
        self.inverse = inverse

    def solve(self) -> None:
        torch.matmul(self.inverse, self.b, out=self.x)


def largest_eigenvalue(matrix: Tensor) -> Float[Tensor, ""]:
    """λ of a symmetric matrix, and 5 % more as Lanczos' iteration stays below it."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(matrix), generator=generator, dtype=torch.float32, device="cpu").to(
        matrix.device, matrix.dtype
    )
    found = ritz_values(lambda q: matrix @ q, lambda r: r, start, steps=10, lead=0).abs().max()
    return (1.05 * found).clamp(min=1).to(matrix.dtype)


def aggregate(system: System, values: Tensor, scale: Tensor) -> Aggregation:
    """Smoothed aggregation of one item's matrix."""
    import scipy.sparse

    space, pattern, dtype = system.form.space, system.form.pattern, torch.float32
    matrix = scaled_matrix(system, values, scale, torch.float64)
    fixed = scale == 0
    full = matrix.values().index_add(0, pattern.diagonal, fixed.double())  # ones: pyamg divides by the diagonal
    parts = [t.cpu().numpy().copy() for t in (full, matrix.col_indices(), matrix.crow_indices())]
    A = scipy.sparse.csr_matrix(tuple(parts), shape=tuple(matrix.shape))
    A.eliminate_zeros()
    block, weighting = (space.components if isinstance(space, FunctionSpace) else None), "local"
    if block is not None and block > 1:
        A, weighting = A.tobsr((block, block)), "block"
    modes = (near_kernel(space) / torch.where(fixed, 1, scale)[:, None]).masked_fill_(fixed[:, None], 0)
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
    stages = []
    for k, level in enumerate(below[:-1]):
        fine, coarse = scaled[k][1], scaled[k + 1][1]
        up = scipy.sparse.diags(np.where(fine > 0, 1 / np.where(fine > 0, fine, 1), 0)) @ level.P.tocsr()
        up = up @ scipy.sparse.diags(coarse)
        own = matrix.to(dtype) if k == 0 else to_torch(scaled[k][0], dtype, values.device)
        transfers = (to_torch(t, dtype, values.device) for t in (up, up.T))
        stages.append(Stage(own, largest_eigenvalue(own), *transfers))
    inverse = torch.from_numpy(positive_inverse(scaled[-1][0].toarray())).to(values.device, dtype)
    return Aggregation(tuple(stages), inverse, values, scale, [])


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
    if not space.is_nodal:
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
