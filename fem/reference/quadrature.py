"""Quadrature: an integral over a reference cell as a weighted sum of values at points inside it.

A rule of degree p integrates every polynomial of degree p exactly: of total degree p on simplices, of degree p in each
variable on products of intervals. Gauss–Legendre serves the interval, its tensor products the square and the cube. On
triangles and tetrahedra a stored rule with the fewest points is used, symmetric so that integrals do not depend on the
numbering of a cell's vertices; past the stored degrees, Gauss–Jacobi rules on the square or cube are collapsed onto the
simplex. All weights are positive and all points lie strictly inside.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell, get_cell
from fem.reference.simplex_rules import SIMPLEX_RULES, expand
from fem.support.checks import check_integers


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Points and weights with ∫ f ≈ Σ_q weights[q] f(points[q]) over a reference cell, in float64 on the CPU."""

    points: Float[Tensor, "q r"]
    weights: Float[Tensor, "q"]


def quadrature(cell: Cell | str, degree: int) -> Quadrature:
    """A rule that is exact to `degree` on the reference cell.

    ∫ f = Σ_q weights[q] f(points[q]) for every polynomial f of total degree at most `degree` on simplices, and for
    every one of degree at most `degree` in each variable on intervals, quadrilaterals and hexahedra.

    Rules on simplices do not depend on the numbering of the vertices up to degree 12 on the triangle and 10 on the
    tetrahedron; the collapsed rules beyond do.

    Args:
        cell: a `Cell` or its name.
        degree: polynomial degree, 0 or more; any is available.

    Returns:
        points "q r", strictly inside the cell, and positive weights "q" whose sum is the cell's volume. On products of
        intervals x runs fastest along `q`. The point cell has one point of shape (1, 0) and weight 1.

    Raises:
        ValueError: the degree is negative or not an integer, or there is no such cell.

    Sources: Golub and Welsch, Calculation of Gauss quadrature rules (1969); Stroud, Approximate calculation of multiple
    integrals (1971), for collapsed products; `fem.reference.simplex_rules` for the symmetric ones.
    """
    cell = get_cell(cell)
    check_integers("quadrature", 0, degree=degree)
    points, weights = _product_rule(cell.factors, int(degree))
    # The cache holds NumPy arrays and every call copies: no caller can change, or mark for autograd, what others get.
    return Quadrature(torch.tensor(points, device="cpu"), torch.tensor(weights, device="cpu"))


@lru_cache(maxsize=64)
def _product_rule(factors: tuple[int, ...], degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Tensor product of the rules of a cell's simplices; the first factor runs fastest."""
    points, weights = np.zeros((1, 0)), np.ones(1)
    for dim in factors:
        factor_points, factor_weights = _simplex_rule(dim, degree)
        repeated = np.repeat(factor_points, len(weights), axis=0)
        points = np.hstack([np.tile(points, (len(factor_weights), 1)), repeated])
        weights = np.outer(factor_weights, weights).ravel()
    return points, weights


def _simplex_rule(dim: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest stored rule that is exact enough; among equals the one of lowest degree."""
    stored = [expand(orbits) for exact, orbits in SIMPLEX_RULES.get(dim, {}).items() if exact >= degree]
    return min(stored, key=lambda rule: len(rule[1]), default=None) or _collapsed_rule(dim, degree // 2 + 1)


def _collapsed_rule(dim: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n Gauss points in each of the collapsed coordinates of the unit simplex, exact to degree 2n − 1.

    With x₁ = t₁, x₂ = (1 − t₁) t₂, x₃ = (1 − t₁)(1 − t₂) t₃ the Jacobian is Π_j (1 − t_j)^(dim − j), which becomes the
    weight function of the rule in t_j. In one dimension this is Gauss–Legendre.
    """
    points, weights, rest = np.zeros((1, 0)), np.ones(1), np.ones(1)
    for alpha in reversed(range(dim)):
        t, w = _gauss_jacobi(n, alpha)
        points = np.hstack([np.repeat(points, n, axis=0), np.outer(rest, t).reshape(-1, 1)])
        weights, rest = np.outer(weights, w).ravel(), np.outer(rest, 1 - t).ravel()
    return points, weights


def _gauss_jacobi(n: int, alpha: int) -> tuple[np.ndarray, np.ndarray]:
    """The n Gauss points t and weights with Σ w f(t) = ∫₀¹ (1 − t)^alpha f(t) dt for polynomials of degree ≤ 2n − 1.

    The points are the eigenvalues of the Jacobi matrix, the symmetric tridiagonal matrix of the three-term recurrence;
    the weights are the squares of the first entries of its eigenvectors (Golub and Welsch, 1969).
    """
    k = np.arange(1.0, n)
    m = 2 * k + alpha
    diagonal = np.concatenate([[-alpha / (alpha + 2)], -(alpha**2) / (m * (m + 2))])
    off_diagonal = 2 * k * (k + alpha) / (m * np.sqrt(m**2 - 1))
    x, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off_diagonal, -1))
    return (1 + x) / 2, vectors[0] ** 2 / (alpha + 1)
