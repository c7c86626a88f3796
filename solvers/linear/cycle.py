"""V-cycles of multigrid, whatever the levels are made of: grids or matrices.

With P the interpolation from the next level and S a smoother, one cycle from x = 0,

    x ← S x,    x ← x + P A_c⁻¹ Pᵀ (b − A x),    x ← S x,

is a symmetric positive definite approximation of A⁻¹. S is a Chebyshev polynomial in D⁻¹A on the upper part of its
spectrum, applied as damped Jacobi steps x ← x + ω D⁻¹ (b − A x), one for each root, in one order before and in the
other after the coarse levels (Trottenberg, Oosterlee & Schüller, Multigrid, 2001; Adams, Brezina, Hu and Tuminaro,
Parallel multigrid smoothing, J. Comput. Phys. 188, 2003). All works in place.
"""

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import Tensor


class Level:
    """An operator A with its smoother, and room for a solution x, a right-hand side b and the residual r = b − A x.

    One step of smoothing is x ← x + factor · weight · r, for each of the factors.
    """

    x: Tensor
    b: Tensor
    r: Tensor
    weight: Tensor
    factors: Sequence[float]

    def residual(self) -> None:
        """r ← b − A x."""
        raise NotImplementedError

    def restrict(self) -> None:
        """Pᵀ r into b of the next level."""
        raise NotImplementedError

    def interpolate(self) -> None:
        """x ← x + P x of the next level."""
        raise NotImplementedError

    def solve(self) -> None:
        """x ← A⁻¹ b, on the coarsest level."""
        raise NotImplementedError

    def presmooth(self) -> None:
        """x ← S 0, r ← b − A x."""
        torch.mul(self.weight, self.b, out=self.x)
        for factor in self.factors[-2::-1]:
            self.residual()
            self.x.addcmul_(self.weight, self.r, value=factor)
        self.residual()

    def smooth(self) -> None:
        """x ← S x."""
        for factor in self.factors:
            self.residual()
            self.x.addcmul_(self.weight, self.r, value=factor)


def v_cycle(levels: Sequence[Level]) -> None:
    """One cycle on b of the finest level, the first, into its x."""
    *smoothed, coarsest = levels
    for level in smoothed:
        level.presmooth()
        level.restrict()
    coarsest.solve()
    for level in reversed(smoothed):
        level.interpolate()
        level.smooth()


def chebyshev(steps: int, ratio: float) -> tuple[float, list[float]]:
    """Damping ω of the last of so many Jacobi steps, and of all steps relative to it, for a spectrum up to 1.

    ω are the reciprocals of the roots of the Chebyshev polynomial on [1/ratio, 1]. The last step comes with factor one:
    where its weight is one it solves, and so removes what interpolation left at fixed dofs.
    """
    middle, radius = (1 + 1 / ratio) / 2, (1 - 1 / ratio) / 2
    omegas = [1 / (middle + radius * cos(pi * (2 * j + 1) / (2 * steps))) for j in range(steps)]
    return omegas[-1], [omega / omegas[-1] for omega in omegas]
