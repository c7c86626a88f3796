"""The modes of one axis of a grid or a patch: vectors that make its 1-D stiffness and mass matrices diagonal together.

Either end is fixed or natural; for Lagrange elements on n cells of length one, with an integral's own quadrature, and
for splines in their parameter,

    Vᵀ K V = diag(κ),    Vᵀ M V = diag(μ).

Linear elements have one stencil at all nodes and half of it at a natural end, so that sines or cosines serve both
matrices, with eigenvalues in closed form; fast Fourier transforms apply V. Other degrees, splines and ends with a
support take the generalised eigenvalue problem K V = M V diag(κ) and matrix products.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import pi, prod

import torch
from jaxtyping import Float
from torch import Tensor

from fem.mesh.grid import grid_order
from fem.reference.cells import interval
from fem.reference.lagrange import lagrange_element
from fem.reference.quadrature import quadrature
from fem.support.portions import at_a_time

DENSE = 64  # up to so many modes, a product with the matrix takes less time than a Fourier transform


@dataclass(frozen=True)
class LagrangeLine:
    """One direction of a Lagrange space on a grid, and which of its two ends are fixed."""

    cells: int
    degree: int
    quadrature_degree: int
    fixed: tuple[bool, bool]

    @property
    def free(self) -> slice:
        """The nodes that are not fixed."""
        return slice(int(self.fixed[0]), self.degree * self.cells + 1 - int(self.fixed[1]))

    def diagonals(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """The diagonals of K and M at free nodes."""
        return tuple(  # type: ignore[return-value]
            torch.zeros(self.degree * self.cells + 1, dtype=torch.float64, device="cpu").index_add_(
                0, self._nodes().flatten(), local.diagonal().repeat(self.cells)
            )[self.free]
            for local in element_matrices(self.degree, self.quadrature_degree)
        )

    def matrices(self) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
        """K and M between free nodes."""
        nodes, found = self._nodes(), []
        for local in element_matrices(self.degree, self.quadrature_degree):
            matrix = torch.zeros(2 * (self.degree * self.cells + 1,), dtype=torch.float64, device="cpu")
            values = local.expand(self.cells, -1, -1)
            matrix.index_put_((nodes[:, :, None], nodes[:, None, :]), values, accumulate=True)
            found.append(matrix[self.free, self.free])
        return found[0], found[1]

    def _nodes(self) -> Tensor:
        """Nodes "e a" of each cell, from left to right."""
        return self.degree * torch.arange(self.cells, device="cpu")[:, None] + torch.arange(
            self.degree + 1, device="cpu"
        )


def element_matrices(degree: int, quadrature_degree: int) -> tuple[Float[Tensor, "a a"], Float[Tensor, "a a"]]:
    """∫ φ_a' φ_b' and ∫ φ_a φ_b over the unit interval by the rule of that degree, nodes from left to right."""
    element, rule = lagrange_element(interval, degree), quadrature(interval, quadrature_degree)
    table, order = element.tabulate(rule.points), list(grid_order(interval, degree))
    assert table.grad is not None
    parts = (table.grad[0, :, order, 0], table.value[0, :, order])
    return tuple(torch.einsum("q,qa,qb->ab", rule.weights, part, part) for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Matrix:
    """r ↦ r V on the last axis, for one V "n m" or one per batch item "b n m"."""

    matrix: Tensor

    @property
    def mT(self) -> "Matrix":  # noqa: N802
        return Matrix(self.matrix.mT)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Matrix":
        return Matrix(self.matrix.to(device, dtype))

    def __call__(self, r: Float[Tensor, "b *a n"]) -> Float[Tensor, "b *a m"]:
        if self.matrix.ndim == 2:
            return r @ self.matrix
        return (r.flatten(1, -2) @ self.matrix).unflatten(1, r.shape[1:-1])


@dataclass(frozen=True)
class Fourier:
    """r ↦ r V on the last axis with V_st the imaginary or real part of exp(−2πi s t / length), by real transforms.

    The numbers r stand at the places s of `source` in a sequence that is zero elsewhere; t runs through `target`.
    """

    length: int
    source: range
    target: range
    sine: bool

    @property
    def mT(self) -> "Fourier":  # noqa: N802
        return Fourier(self.length, self.target, self.source, self.sine)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Fourier":
        return self

    def matrix(self) -> Float[Tensor, "s t"]:
        """V itself, with arguments reduced in whole numbers to keep their digits."""
        turn = (
            torch.outer(torch.tensor(self.source, device="cpu"), torch.tensor(self.target, device="cpu")) % self.length
        )
        angle = 2 * pi * turn.double() / self.length
        return -angle.sin() if self.sine else angle.cos()

    def __call__(self, r: Float[Tensor, "b a *c s"]) -> Float[Tensor, "b a *c t"]:
        source, target = (slice(places.start, places.stop, places.step) for places in (self.source, self.target))
        result = r.new_empty(*r.shape[:-1], len(self.target))
        padded = spectrum = None
        for place in portions(r.shape[:2], at_a_time(prod(r.shape[2:-1]) * self.length, r)):
            block = r[place]
            if padded is None or spectrum is None:
                padded = r.new_zeros(*block.shape[:-1], self.length)
                spectrum = padded.new_empty(*block.shape[:-1], self.length // 2 + 1, dtype=r.dtype.to_complex())
            rows = (slice(block.shape[0]), slice(block.shape[1]))
            padded[rows][..., source] = block
            torch.fft.rfft(padded[rows], out=spectrum[rows])
            part = spectrum[rows].imag if self.sine else spectrum[rows].real
            result[place] = part[..., target]
        return result


def portions(shape: tuple[int, ...], rows: int) -> Iterator[tuple[slice, slice]]:
    """Parts of two leading axes of at most so many rows (one at least), the largest first."""
    items, step = max(rows // shape[1], 1), max(min(rows, shape[1]), 1)
    for i in range(0, shape[0], items):
        for j in range(0, shape[1], step):
            yield slice(i, i + items), slice(j, j + step)


@dataclass(frozen=True, eq=False)
class Modes:
    """κ and μ "#b m" of an axis with cells of length one, and r ↦ r V; `constant` says that mode 0 is the constant."""

    stiffness: Tensor
    mass: Tensor
    transform: Matrix | Fourier
    constant: bool


@lru_cache(maxsize=8)  # of degree 2 and more they are dense matrices
def modes(line: LagrangeLine, dense: bool | None = None) -> Modes:
    """The modes of an axis in float64 on the CPU; `dense` decides whether V is a matrix, by default where it is small.

    Raises:
        ValueError: a quadrature too weak for a mass matrix that is positive definite.
    """
    constant = not any(line.fixed)
    if line.degree > 1:
        kappa, vectors = eigenvectors(*line.matrices())
        if constant:
            kappa[0] = 0  # not round-off: a weak reaction shows beside it
        return Modes(kappa[None], torch.ones_like(kappa)[None], Matrix(vectors), constant)
    n, (left, right) = line.cells, line.fixed
    # Nodes times wave numbers over the length: sin(π i j / n), cos(π i j / n), sin or cos(π i (2j − 1) / 2n).
    nodes = range(int(left), n + 1 - int(right))
    waves, length = (nodes, 2 * n) if left == right else (range(1, 2 * n, 2), 4 * n)
    fourier = Fourier(length, nodes, waves, left)
    half = pi * torch.tensor(waves, dtype=torch.float64, device="cpu") / length
    (a, _), (alpha, beta) = (local[0].tolist() for local in element_matrices(1, line.quadrature_degree))
    # With θ the phase from node to node, 2a − 2a cos θ and 2α + 2β cos θ; θ/2 keeps the digits of small ones.
    kappa, mu = 4 * a * half.sin() ** 2, 2 * (alpha - beta) + 4 * beta * half.cos() ** 2
    squares = torch.full_like(half, n / 2)  # Σ_i v_i², half at natural ends
    if constant:
        squares[[0, -1]] = n
    if dense is None:
        dense = len(nodes) <= DENSE
    return Modes(
        (kappa * squares)[None], (mu * squares)[None], Matrix(fourier.matrix()) if dense else fourier, constant
    )


def supported_modes(line: LagrangeLine, scale: Float[Tensor, "b"], ends: Float[Tensor, "b 2"]) -> Modes:
    """Modes, per batch item, of `scale` K with `ends` added to its first and last diagonal entry."""
    stiffness, mass = line.matrices()
    stiffness = scale[:, None, None].cpu() * stiffness
    stiffness[:, 0, 0] += ends[:, 0].cpu()
    stiffness[:, -1, -1] += ends[:, 1].cpu()
    kappa, vectors = eigenvectors(stiffness, mass)
    return Modes(kappa, torch.ones_like(kappa), Matrix(vectors), False)


def eigenvectors(
    stiffness: Float[Tensor, "*b n n"], mass: Float[Tensor, "*#b n n"]
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n n"]]:
    """κ, ascending, and V with K V = M V diag(κ) and Vᵀ M V = 1, from the Cholesky factors of M."""
    factor, failed = torch.linalg.cholesky_ex(mass)
    if bool(failed.any()):
        raise ValueError(
            "`FastDiagonalization()` needs a positive definite mass matrix, and the space's quadrature is too weak for "
            "one; give `FunctionSpace` a higher `quadrature_degree`, or use `Direct()`."
        )
    half = torch.linalg.solve_triangular(factor, stiffness, upper=False)
    whole = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    kappa, vectors = torch.linalg.eigh(0.5 * (whole + whole.mT))
    return kappa, torch.linalg.solve_triangular(factor.mT, vectors, upper=True)
