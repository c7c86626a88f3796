"""Curves: tangents, normals, curvature and arc length."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from fem.reference.bspline import find_span
from fem.support.arithmetic import common_batch
from fem.support.modes import outside_modes
from nurbs.geometry.measure import cell_measures, measure
from nurbs.geometry.patch import Patch


class Curve(Patch):
    """C(u) = Σ_i w_i P_i N_i(u) / Σ_i w_i N_i(u); see `Patch` for the arguments.

    `curve(u)` "*b u d"; `curve.derivative(u, order=2)`; `curve.learn("control_points")` is a module.
    """

    directions: ClassVar[int] = 1

    def tangent(self, u: Float[Tensor, "*#b u"]) -> Float[Tensor, "*b u d"]:
        """C' / |C'|; zero where the curve stands still."""
        return normalize(self.derivative(u, order=1), dim=-1, eps=torch.finfo(self.dtype).tiny)

    def normal(self, u: Float[Tensor, "*#b u"]) -> Float[Tensor, "*b u d"]:
        """In the plane the tangent turned left; otherwise the unit vector towards the centre of curvature.

        Zero where that is not defined (a straight piece in space).
        """
        tangent = self.tangent(u)
        if self.dim == 2:
            return torch.stack([-tangent[..., 1], tangent[..., 0]], -1)
        return normalize(self._bend(u), dim=-1, eps=torch.finfo(self.dtype).tiny)

    def curvature(self, u: Float[Tensor, "*#b u"]) -> Float[Tensor, "*b u"]:
        """κ = |C'' - (C''·T) T| / |C'|²; in the plane det(C', C'') / |C'|³, positive where the curve turns left.

        Infinite where the curve stands still without being straight.
        """
        if self.dim == 2:
            first, second = self.derivatives(u, orders=[(1,), (2,)])
            return torch.linalg.det(torch.stack([first, second], -1)) / torch.linalg.vector_norm(first, dim=-1) ** 3
        return torch.linalg.vector_norm(self._bend(u), dim=-1)

    def _bend(self, u: Tensor) -> Tensor:
        """The curvature vector (C'' - (C''·T) T) / |C'|²."""
        first, second = self.derivatives(u, orders=[(1,), (2,)])
        square = first.square().sum(-1, keepdim=True)
        return (second - (second * first).sum(-1, keepdim=True) / square * first) / square

    def length(self, num_points: int | None = None, rtol: float | None = None) -> Float[Tensor, "*b"]:
        """∫ |C'| du; see `measure`."""
        return measure(self, num_points, rtol)

    @outside_modes
    def arc_length(
        self, u: Float[Tensor, "*#b u"], num_points: int | None = None, rtol: float | None = None
    ) -> Float[Tensor, "*b u"]:
        """The length from the start to each u, ∫ |C'| up to u, as `measure` has it; rtol is relative to the whole.

        Raises:
            ValueError: parameters outside the range of the knots; of a periodic curve, outside its first period.
        """
        p, knots = self.degree[0], self.unwrapped_knots[0]
        if self.check_finite:
            find_span(knots, p, u)
        batch = common_batch(self.batch, u.shape[:-1])
        both = torch.cat([x.expand(*batch, -1) for x in (knots[..., p : knots.shape[-1] - p], u)], -1)
        corners, order = both.sort(stable=True)
        parts = cell_measures(self, [corners], num_points, rtol)
        place = order.argsort()[..., -u.shape[-1] :] if u.shape[-1] else order[..., :0]
        return pad(parts.cumsum(-1), (1, 0)).gather(-1, place)
