"""Volumes: trivariate patches."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from nurbs.geometry.measure import measure
from nurbs.geometry.patch import Patch


class Volume(Patch):
    """V(u, v, w) = Σ_ijk w_ijk P_ijk N_i(u) N_j(v) N_k(w) / Σ_ijk w_ijk N_i(u) N_j(v) N_k(w); see `Patch`.

    `volume(u, v, w)` "*b u v w d"; `volume.at(uvw)`; `volume.learn("control_points")` is a module.
    """

    directions: ClassVar[int] = 3

    def volume(self, num_points: int | None = None, rtol: float | None = None) -> Float[Tensor, "*b"]:
        """∫ |det J| du dv dw; see `measure`."""
        return measure(self, num_points, rtol)
