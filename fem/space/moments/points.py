"""Vector fields at quadrature points: tables of a reference basis, turned cell by cell, under a Piola map."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from fem.mesh.geometry import Domain
from fem.space.gather_scatter import GatherScatter
from fem.space.moments.dofs import Moments
from fem.space.moments.orientation import OrientedGather
from fem.space.quadrature_points import QuadraturePoints


class MomentPoints(QuadraturePoints):
    """The quadrature points of a space whose dofs are moments."""

    def __init__(self, moments: Moments, *args: Any):
        super().__init__(*args)
        self.moments, self.mapping = moments, moments.mapping

    def orientation(self, domain: Domain) -> Float[Tensor, "#e a a"]:
        T = self.moments.orientations[domain.block]
        return T if domain.cells is None or len(T) == 1 else T[domain.cells]

    def _gather(self, domain: Domain) -> GatherScatter:
        dofs = self.cell_dofs.of(domain.block, domain.cells)
        return OrientedGather(dofs, self.cell_dofs.count, self.orientation(domain))
