"""Smoothed aggregation: the hierarchy of one sparse matrix, coarse spaces found from the matrix alone.

Strongly coupled dofs are joined into aggregates. On each, the coarse functions are the near-kernel of the operator
(constants, for displacements rigid motions), smoothed by one step of Jacobi; with P the interpolation from them, coarse
matrices are Pᵀ A P.

Source: Vaněk, Mandel and Brezina, Algebraic multigrid by smoothed aggregation for second and fourth order elliptic
problems, Computing 56, 1996. Ruge–Stüben coarsening takes as long to set up and up to three times as long to solve.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.assembly import Pattern
from fem.space.space import AnySpace, FunctionSpace
from solvers.linear.algebra.aggregates import aggregates
from solvers.linear.algebra.blocks import BlockMatrix
from solvers.linear.assembled import Assembled, csr_of, starts_of
from solvers.linear.conjugate_gradients import ritz_values
from solvers.linear.cycle import Level, chebyshev

COARSEST = 300  # dofs at most of the level that is solved by a dense matrix
STRENGTH = 0.04  # couplings |a_ij| below this times √(a_ii a_jj) do not count when aggregates form on the finest level
WEAKEST, SHRINKING = 1e-4, 0.7  # it is lowered down to there while a coarse level has more than this part of the dofs
DAMPED = 8  # the smoother damps eigenvalues in [λ/8, λ]
STEP = 4 / 3  # of Jacobi, over the largest eigenvalue, that smooths interpolation
INDEPENDENT = 1e-11  # relative squares of modes on an aggregate above which they count as independent
DENSE = 3000  # dofs at most of a level that is solved so because nothing couples them in aggregates
DENSELY = 0.7  # a matrix with fewer entries of its pattern is stored without its zeros
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
    """Stages and a dense or diagonal inverse; the finest matrix, and the rate of the one that this was made for.

    `lagged` says that interpolation and coarse matrices are those of another matrix.
    """

    stages: tuple[Stage, ...]
    inverse: Tensor
    pattern: Pattern
    values: Tensor
    scale: Tensor
    rate: list[float]
    lagged: bool = False

    def distance(self, values: Tensor, scale: Tensor) -> float:
        """How much a few thousand entries of the finest matrix differ from another's."""
        pattern, step = self.pattern, max(len(values) // SAMPLED, 1)
        row, column = pattern.row[::step], pattern.column[::step]
        mine, theirs = (v[::step] * s[row] * s[column] for v, s in ((self.values, self.scale), (values, scale)))
        return float((mine - theirs).norm())

    def with_matrix(self, assembled: Assembled, values: Tensor, scale: Tensor) -> "Aggregation":
        """The same coarse stages below another matrix."""
        matrix = scaled_matrix(assembled, values, scale, self.inverse.dtype)
        first = replace(self.stages[0], matrix=matrix, largest=largest_eigenvalue(matrix))
        stages = (first, *self.stages[1:])
        return replace(self, stages=stages, pattern=assembled.pattern, values=values, scale=scale, lagged=True)

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
        if self.inverse.ndim == 1:
            torch.mul(self.inverse if self.b.ndim == 1 else self.inverse[:, None], self.b, out=self.x)
        else:
            torch.matmul(self.inverse, self.b, out=self.x)


def largest_eigenvalue(matrix: Tensor) -> Float[Tensor, ""]:
    """λ of a symmetric matrix, and 5 % more as Lanczos' iteration stays below it."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(matrix), generator=generator, dtype=torch.float32, device="cpu").to(
        matrix.device, matrix.dtype
    )
    found = ritz_values(lambda q: matrix @ q, lambda r: r, start, steps=10, lead=0).abs().max()
    return (1.05 * found).clamp(min=1).to(matrix.dtype)


def aggregate(assembled: Assembled, values: Tensor, scale: Tensor) -> Aggregation:
    """Smoothed aggregation of one item's matrix, set up on the CPU."""
    device, dtype, stages = values.device, torch.float32, []
    matrix, modes = on_nodes(assembled, values, scale)
    own = matrix.csr(dtype, device)
    theta = STRENGTH
    while matrix.numbers > COARSEST:
        aggregate, count = aggregates(matrix, theta)
        if not 0 < count * modes.shape[2] <= SHRINKING * matrix.numbers:  # too few couplings count as strong
            if theta < WEAKEST:
                break
            theta /= 4
            continue
        theta /= 2  # coarse matrices have more couplings, and weaker ones
        largest = largest_eigenvalue(own)
        up, modes = smoothed_interpolation(matrix, aggregate, count, modes, STEP / float(largest))
        down = up.transposed()
        matrix = down @ (matrix @ up)
        inverse = inverse_root(matrix.diagonal())
        matrix, up, down = matrix.scaled(inverse, inverse), up.scaled(None, inverse), down.scaled(inverse, None)
        modes = modes / torch.where(inverse > 0, inverse, 1)[..., None]
        stages.append(Stage(own, largest, up.csr(dtype, device), down.csr(dtype, device)))
        own = matrix.csr(dtype, device)
    if matrix.numbers <= max(COARSEST, DENSE):
        inverse = torch.from_numpy(positive_inverse(matrix.scipy().toarray()))
    else:  # what does not couple anything is nearly diagonal, and its diagonal is one
        inverse = (matrix.diagonal() > 0).flatten()
    return Aggregation(tuple(stages), inverse.to(device, dtype), assembled.pattern, values, scale, [])


def on_nodes(assembled: Assembled, values: Tensor, scale: Tensor) -> tuple[BlockMatrix, Float[Tensor, "n r k"]]:
    """The scaled matrix in blocks of the components of a node, without blocks of zeros, and its near kernel.

    Components that are not coupled count as nodes of their own, whose near kernel are constants.
    """
    space, pattern = assembled.space, assembled.pattern
    row, column, inverse = pattern.row.cpu(), pattern.column.cpu(), scale.double().cpu()
    scaled, modes = values.double().cpu() * inverse[row] * inverse[column], near_kernel(space).double().cpu()
    kept = torch.nonzero(scaled).flatten()
    row, column, scaled = row[kept], column[kept].int(), scaled[kept]
    c = (space.components or 1) if isinstance(space, FunctionSpace) else 1
    if c > 1 and not bool((row % c != column % c).any()):
        c, modes = 1, modes.new_ones(len(modes), 1)
    crow = starts_of(row, len(scale)).int()
    matrix = BlockMatrix(crow, column, scaled[:, None, None], len(scale)).in_blocks(c)
    modes = torch.where(inverse[:, None] > 0, modes / torch.where(inverse > 0, inverse, 1)[:, None], 0)
    return matrix, modes.unflatten(0, (-1, c))


def smoothed_interpolation(
    matrix: BlockMatrix, aggregate: Tensor, count: int, modes: Float[Tensor, "n r k"], step: float
) -> tuple[BlockMatrix, Float[Tensor, "m k k"]]:
    """P = (I − step A) T, where T has on each aggregate a basis of the modes there, and the modes in that basis."""
    node = torch.nonzero(aggregate >= 0).flatten()
    own, k = aggregate[node], modes.shape[2]
    some = modes[node]
    gram = modes.new_zeros(count, k, k).index_add(0, own, some.mT @ some)
    if k == 1:
        root = gram.sqrt()
        some, coarse = some / torch.where(root > 0, root, 1)[own], root
    else:  # some = basis · coarse, and what the modes of a small aggregate do not span comes out as zero
        size, directions = torch.linalg.eigh(gram)
        size = torch.where(size > INDEPENDENT * size[:, -1:], size, 0).sqrt()
        some = some @ (directions * torch.where(size > 0, 1 / size, 0)[:, None])[own]
        coarse = size[:, :, None] * directions.mT
    crow = torch.cat([aggregate.new_zeros(1), (aggregate >= 0).int().cumsum(0, dtype=torch.int32)])
    values = -step * matrix.values
    values[matrix.row == matrix.column] += torch.eye(values.shape[1], dtype=values.dtype, device="cpu")
    smoother = BlockMatrix(matrix.crow, matrix.column, values, matrix.columns)
    return smoother @ BlockMatrix(crow, own, some.contiguous(), count), coarse


def inverse_root(diagonal: Tensor) -> Tensor:
    """1/√d, zero where d is (a coarse function without support)."""
    empty = diagonal <= 1e-14 * diagonal.max()
    return torch.where(empty, 0, torch.where(empty, 1, diagonal).rsqrt())


def scaled_matrix(assembled: Assembled, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix of one item with its rows and columns multiplied by `scale`, in CSR."""
    pattern = assembled.pattern
    scaled = (values * scale[pattern.row] * scale[pattern.column]).to(dtype)
    kept = torch.nonzero(scaled).flatten()
    if len(kept) > DENSELY * len(scaled):
        return pattern.csr(scaled, short=True)
    return csr_of(pattern.row[kept], pattern.column[kept], scaled[kept], (len(scale), len(scale)))


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
