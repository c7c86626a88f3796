"""The model problem of the benchmarks: diffusion with a smooth coefficient of large contrast, on grids.

    −∇·(ν∇u) = 1 in the unit square or cube, u = 0 on its boundary,    ν = exp(g),   max ν / min ν = contrast

where g is a random sum of long cosine waves. It is solved to a relative residual ‖b − A u‖ / ‖b‖ of 10⁻⁸.
"""

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_cube, unit_square
from fem.forms.parameters import Parameter
from solvers import Multigrid, Newton, Reuse, Solution, minimize

RTOL = 1e-8
# Newton's method hands 0.3 of its own tolerance on, relative to all contributions: from u = 0 these are b alone.
METHOD = Newton(Multigrid(rtol=RTOL), rtol=3 * RTOL)
WAVES = 4  # along each axis, half waves from none to three


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor, f: float) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1) - f * u


@dataclass(frozen=True)
class Problem:
    """J(u) = ∫ ½ν|∇u|² − f u dx over a space, u = 0 on the boundary; the energy's parameters are ν and f."""

    space: FunctionSpace
    energy: Energy

    def coefficient(self, items: int | None = None, contrast: float = 1e3) -> Tensor:
        """Nodal values "n" or "items n" of fields ν."""
        V, dim = self.space, self.space.mesh.dim
        n = V.to_grid(torch.empty(V.shape, dtype=V.dtype)).shape[-1]
        waves = torch.cos(torch.pi * torch.arange(WAVES)[:, None] * torch.linspace(0, 1, n)).to(V.dtype)
        g = torch.randn(items or 1, *[WAVES] * dim, generator=torch.Generator().manual_seed(0)).to(V.dtype)
        for _ in range(dim):  # the axis at work stands second, and last when it is done
            g = torch.einsum("bk...,kn->b...n", g, waves)
        g = g.flatten(1)
        low, high = g.amin(1, keepdim=True), g.amax(1, keepdim=True)
        nu = torch.exp(log(contrast) * ((g - low) / (high - low) - 0.5))
        return nu[0] if items is None else nu

    def solve(self, nu: Tensor, initial: Tensor | None = None, method: Newton = METHOD) -> Solution:
        """From nodal values of ν to u, as if nothing were known from the solve before."""
        return minimize(self.energy, (self.space.function(nu), 1.0), initial, method, reuse=Reuse())

    @torch.no_grad()
    def residual(self, nu: Tensor, u: Tensor) -> float:
        """The largest ‖b − A u‖ / ‖b‖ of all items."""
        states = (u, torch.zeros_like(u))
        r, b = (self.energy.residual(v, self.space.function(nu), 1.0).norm(dim=-1) for v in states)
        return float((r / b).max())

    @torch.no_grad()
    def matrix(self, nu: Parameter) -> tuple[Any, np.ndarray, np.ndarray]:
        """A and b of the free dofs for SciPy and its friends, and the numbers of these dofs."""
        V = self.space
        zero = torch.zeros(V.shape, dtype=V.dtype)
        H, b = self.energy.hessian(zero, nu, 1.0), -self.energy.residual(zero, nu, 1.0)
        indices = (H.col_indices().numpy().astype(np.int32), H.crow_indices().numpy().astype(np.int32))
        free = np.setdiff1d(np.arange(V.num_dofs), V.dofs("boundary").numpy())
        A = scipy.sparse.csr_matrix((H.values().numpy(), *indices), shape=tuple(H.shape))[free][:, free]
        return A, b.numpy()[free], free


def problem(dim: int, cells: int, degree: int = 1) -> Problem:
    """The unit square or cube with so many cells in each direction."""
    V = FunctionSpace(unit_square(cells) if dim == 2 else unit_cube(cells), Lagrange(degree))
    return Problem(V, Energy(V, density, Dirichlet(V, {"boundary": 0.0})))


def label(dim: int, cells: int) -> str:
    return f"{cells}{'²³'[dim - 2]}"
