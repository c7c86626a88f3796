"""Sparse assembly of a stiffness matrix, beside scikit-fem in the same run.

    K_ab = ∫ ∇φ_a·∇φ_b dx on n × n quadrilaterals

is assembled by both from the same cells with the same quadrature: ritz differentiates the density ½|∇u|² twice,
scikit-fem evaluates the bilinear form. Cold times include mesh, basis and sparsity pattern, repeated ones only the
matrix. Runs are interleaved, and medians compared. Claim: both matrices agree entry by entry, dofs matched by their
coordinates; and the ratios printed, which depend on the machine: set OMP_NUM_THREADS=1 where others use it too.

Source of the peer: Gustafsson and McBain, scikit-fem, Journal of Open Source Software 5, 2020.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import skfem
import torch
from skfem.models.poisson import laplace
from torch import Tensor

from examples.benchmarks.timing import timed
from examples.command_line import run
from fem import Energy, FunctionSpace, Lagrange, unit_square

ELEMENTS = {1: skfem.ElementQuad1, 2: skfem.ElementQuad2}


def density(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * grad_u.square().sum(-1)


def moved(x: Any) -> Any:
    """A displacement that makes every cell different, for arrays of either library."""
    return x * (1 + 0.1 * x * (1 - x))


def ours(cells: int, degree: int) -> Callable[[], Tensor]:
    """Everything up to the first matrix; returns its assembly."""
    mesh = unit_square(cells)
    V = FunctionSpace(mesh.with_nodes(moved(mesh.nodes)), Lagrange(degree))
    energy, u = Energy(V, density), torch.zeros(V.shape, dtype=V.dtype)
    return lambda: energy.hessian(u)


def theirs(cells: int, degree: int) -> Callable[[], Any]:
    side = moved(np.linspace(0, 1, cells + 1))
    basis = skfem.Basis(skfem.MeshQuad.init_tensor(side, side), ELEMENTS[degree](), intorder=2 * degree + 1)
    return lambda: laplace.assemble(basis)


def difference(cells: int, degree: int) -> float:
    """Largest difference of two entries, relative to the largest entry, with dofs matched by their coordinates."""
    mesh = unit_square(cells)
    V = FunctionSpace(mesh.with_nodes(moved(mesh.nodes)), Lagrange(degree))
    K = Energy(V, density).hessian(torch.zeros(V.shape, dtype=V.dtype))
    side = moved(np.linspace(0, 1, cells + 1))
    basis = skfem.Basis(skfem.MeshQuad.init_tensor(side, side), ELEMENTS[degree](), intorder=2 * degree + 1)
    mine, other = order(V.dof_coordinates.numpy()), order(basis.doflocs.T)
    arrays = (K.values().numpy(), K.col_indices().numpy(), K.crow_indices().numpy())
    A = scipy.sparse.csr_matrix(arrays, shape=tuple(K.shape))[mine][:, mine]
    B = laplace.assemble(basis).tocsr()[other][:, other]
    return float(abs(A - B).max() / abs(B).max())


def order(points: np.ndarray) -> np.ndarray:
    """The permutation that sorts points by their coordinates, up to round-off."""
    return np.lexsort(np.round(points, 9).T)


def main(cells: int = 256, degree: int = 2, repeats: int = 7) -> dict[str, float]:
    """Assemble in turns and compare.

    Args:
        cells: cells in each direction
        degree: polynomial degree, 1 or 2
        repeats: cold and repeated assemblies of each library

    Returns:
        "cold ratio" and "repeated ratio" (scikit-fem's median time over ours), the medians in seconds, "difference".
    """
    cold: dict[str, list[float]] = {"ritz": [], "scikit-fem": []}
    repeated: dict[str, list[float]] = {"ritz": [], "scikit-fem": []}
    for _ in range(repeats):
        for name, make in (("ritz", ours), ("scikit-fem", theirs)):
            seconds, assemble = timed(lambda make=make: make(cells, degree))
            first, _ = timed(assemble)
            cold[name].append(seconds + first)
            repeated[name] += [timed(assemble)[0] for _ in range(2)]
    figures = {"difference": difference(cells, degree)}
    print(f"{cells}² cells, degree {degree}; largest difference of two entries {figures['difference']:.1e}")
    print("            ritz   scikit-fem   ratio")
    for name, times in (("cold", cold), ("repeated", repeated)):
        mine, other = (statistics.median(times[who]) for who in ("ritz", "scikit-fem"))
        figures |= {f"{name} ritz": mine, f"{name} scikit-fem": other, f"{name} ratio": other / mine}
        print(f"{name:8}  {mine:6.3f} s   {other:8.3f} s   {other / mine:5.2f}")
    return figures


if __name__ == "__main__":
    run(main)
