"""Surfaces: normals, curvatures and area."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.rational import MultiIndex
from nurbs.geometry.measure import measure
from nurbs.geometry.patch import Patch

FIRST: list[MultiIndex] = [(1, 0), (0, 1)]
SECOND: list[MultiIndex] = [*FIRST, (2, 0), (1, 1), (0, 2)]


class Surface(Patch):
    """S(u, v) = Σ_ij w_ij P_ij N_i(u) N_j(v) / Σ_ij w_ij N_i(u) N_j(v); see `Patch` for the arguments.

    `surface(u, v)` "*b u v d"; `surface.at(uv)`; `surface.learn("control_points", "knots")` is a module.
    """

    directions: ClassVar[int] = 2

    def normal(self, u: Float[Tensor, "*#b u"], v: Float[Tensor, "*#b v"]) -> Float[Tensor, "*b u v 3"]:
        """S_u × S_v / |S_u × S_v| in three dimensions.

        Where the product vanishes because a side is drawn together to a point (the poles of a sphere), the limit from
        inside the patch; zero where that vanishes too.

        Raises:
            ValueError: a surface that is not in three dimensions.
        """
        self._check_space("normal")
        su, sv, *second = self.derivatives(u, v, orders=SECOND)
        start_u, end_u, start_v, end_v = (b[..., None] for bounds in self.domain() for b in bounds)
        inwards = (((start_u + end_u) / 2 - u)[..., :, None, None], ((start_v + end_v) / 2 - v)[..., None, :, None])
        return _normal(su, sv, second, inwards)

    def normal_at(self, points: Float[Tensor, "*#b q 2"]) -> Float[Tensor, "*b q 3"]:
        """The unit normal at scattered parameters; see `normal`."""
        self._check_space("normal_at")
        su, sv, *second = self.derivatives_at(points, orders=SECOND)
        (start_u, end_u), (start_v, end_v) = ((start[..., None], end[..., None]) for start, end in self.domain())
        inwards = (
            ((start_u + end_u) / 2 - points[..., 0])[..., None],
            ((start_v + end_v) / 2 - points[..., 1])[..., None],
        )
        return _normal(su, sv, second, inwards)

    def curvatures(
        self, u: Float[Tensor, "*#b u"], v: Float[Tensor, "*#b v"]
    ) -> tuple[Float[Tensor, "*b u v"], Float[Tensor, "*b u v"]]:
        """Gaussian and mean curvature from the fundamental forms E F G, L M N (do Carmo, 1976, section 3-3).

            K = (L N - M²) / (E G - F²),    H = (E N - 2 F M + G L) / (2 (E G - F²))

        The sign of H is that of the normal S_u × S_v: a sphere whose normal points outwards has H = -1/R. Undefined
        (not finite) where the surface is singular.
        """
        self._check_space("curvatures")
        su, sv, suu, suv, svv = self.derivatives(u, v, orders=SECOND)
        cross = torch.linalg.cross(su, sv)
        normal = cross / torch.linalg.vector_norm(cross, dim=-1, keepdim=True)
        e, f, g = ((a * b).sum(-1) for a, b in ((su, su), (su, sv), (sv, sv)))
        ll, mm, nn = ((a * normal).sum(-1) for a in (suu, suv, svv))
        det = e * g - f * f
        return (ll * nn - mm * mm) / det, (e * nn - 2 * f * mm + g * ll) / (2 * det)

    def area(self, num_points: int | None = None, rtol: float | None = None) -> Float[Tensor, "*b"]:
        """∫ |S_u × S_v| du dv; see `measure`."""
        return measure(self, num_points, rtol)

    def _check_space(self, name: str) -> None:
        if self.dim != 3:
            raise ValueError(f"`Surface.{name}` needs a surface in three dimensions; this one has {self.dim}.")


def _normal(su: Tensor, sv: Tensor, second: list[Tensor], inwards: tuple[Tensor, Tensor]) -> Tensor:
    suu, suv, svv = second
    cross = torch.linalg.cross(su, sv)
    size = torch.linalg.vector_norm(cross, dim=-1, keepdim=True).detach()
    largest = torch.maximum(*(x.detach().square().sum(-1, keepdim=True) for x in (su, sv)))
    degenerate = size <= 1e3 * torch.finfo(su.dtype).eps * largest
    limit = inwards[0].sign() * (torch.linalg.cross(suu, sv) + torch.linalg.cross(su, suv))
    limit = limit + inwards[1].sign() * (torch.linalg.cross(suv, sv) + torch.linalg.cross(su, svv))
    return torch.nn.functional.normalize(torch.where(degenerate, limit, cross), dim=-1, eps=torch.finfo(su.dtype).tiny)
