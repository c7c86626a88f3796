"""How functions go between reference cells and the cells of a mesh: values, derivatives, and what multiplies them.

A *slot* is a value or a derivative in physical coordinates, numbered by its order; a table of a basis holds what all of
them draw on, one after another, in its axis s. `push` maps from reference to physical coordinates, `pull` is its
transpose: it maps what multiplies a physical slot (a flux) to what multiplies the reference ones.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fem.mesh.geometry import Geometry
from fem.mesh.jacobian import adjugate, determinant
from fem.support.arithmetic import sum_of

Slots = list[Tensor]  # u and its derivatives at points


@runtime_checkable
class Mapping(Protocol):
    """What a basis needs to be one on the cells of a mesh."""

    def rank(self, order: int) -> int:
        """How many axes of length d a slot has."""
        ...

    def slots(self, order: int, r: int) -> slice:
        """The reference slots that a physical one draws on, on cells of r dimensions."""
        ...

    def push(
        self,
        reference: Float[Tensor, "*b e c q s"],
        inverse: Float[Tensor, "#e #q r d"] | None,
        derivatives: int,
        second: Float[Tensor, "#e #q d r r"] | None = None,
    ) -> Slots:
        """Physical slots "*b e c q (d…)" up to the given derivative, by `inverse` ∂ξ/∂x and `second` ∂²x/∂ξ²,
        which may be None where nothing needs them.
        """
        ...

    def pull(self, flux: Float[Tensor, "... s"], order: int, geometry: Geometry, batch: int) -> Tensor:
        """Reference components, on the last axis, of what multiplies the slot of the given order: "*b e q … d^rank"."""
        ...


class Gradients:
    """Functions that keep their values, u(x) = û(ξ), and their gradients,

    ∂u/∂x_d = Σ_r ∂u/∂ξ_r ∂ξ_r/∂x_d,    ∇∇u = J⁻ᵀ (∂²u/∂ξ² − Σ_d ∂u/∂x_d ∂²x_d/∂ξ²) J⁻¹.
    """

    def rank(self, order: int) -> int:
        return order

    def slots(self, order: int, r: int) -> slice:
        """Of ∇∇u on curved cells: those of ∂u/∂ξ too."""
        return (slice(0, 1), slice(1, 1 + r), slice(1, 1 + r + r * r))[order]

    def push(self, reference: Tensor, inverse: Tensor | None, derivatives: int, second: Tensor | None = None) -> Slots:
        slots = [reference[..., 0]]
        if derivatives == 0:
            return slots
        assert inverse is not None
        r = inverse.shape[-2]
        inverse = inverse[:, None]
        # A sum over at most three terms: einsum would run one tiny matrix product per point.
        grad = sum_of(reference[..., 1 + k, None] * inverse[..., k, :] for k in range(r))
        slots.append(grad)
        if derivatives == 2:
            assert second is not None
            hess = reference[..., 1 + r :].unflatten(-1, (r, r))
            hess = hess - torch.einsum(
                "...ecqd,eqdrs->...ecqrs", grad, second.expand(*grad.shape[-4:-3], -1, -1, -1, -1)
            )
            slots.append(inverse.mT @ hess @ inverse)
        return slots

    def pull(self, flux: Tensor, order: int, geometry: Geometry, batch: int) -> Tensor:
        """Order 1: f̂_r = Σ_d J⁻¹_rd f_d. Order 2: P = J⁻¹ f J⁻ᵀ for ∂²φ/∂ξ², and −J⁻¹ (∂²x/∂ξ² : P) for ∂φ/∂ξ."""
        if order == 0:
            return flux
        extra = (None,) * (flux.ndim - batch - 3)
        inverse = geometry.inverse[(slice(None), slice(None), *extra)]
        if order == 1:
            return sum_of(flux[..., None, d] * inverse[..., d] for d in range(flux.shape[-1]))
        d = inverse.shape[-1]
        pulled = inverse @ flux.unflatten(-1, (d, d)) @ inverse.mT
        assert geometry.second is not None
        second = geometry.second[(slice(None), slice(None), *extra)]
        bend = (second * pulled[..., None, :, :]).sum((-2, -1))
        return torch.cat([-(inverse @ bend[..., None])[..., 0], pulled.flatten(-2)], -1)


@dataclass(frozen=True)
class Piola:
    """Vector fields that keep their fluxes through facets, or their integrals along edges: order 1 is `derivative`,

    "div" (contravariant):  u = J û / det J,    div u = div̂ û / det J,
    "curl" (covariant):     u = J⁻ᵀ û,          curl u = J curl̂ û / det J, in two dimensions curl̂ û / det J.

    J / det J is the adjugate of J⁻¹, which is what a geometry brings.
    """

    derivative: str
    dim: int

    def rank(self, order: int) -> int:
        return 1 if order == 0 or (self.derivative == "curl" and self.dim == 3) else 0

    def slots(self, order: int, r: int) -> slice:
        return slice(0, r) if order == 0 else slice(r, r + self.dim ** self.rank(1))

    def factor(self, order: int, inverse: Float[Tensor, "#e #q r d"]) -> Float[Tensor, "#e #q p s"]:
        """The matrix from reference components s to physical ones p."""
        if order == 1 and self.rank(1) == 0:
            return determinant(inverse)[..., None, None]
        return inverse.mT if order == 0 and self.derivative == "curl" else adjugate(inverse)

    def push(self, reference: Tensor, inverse: Tensor | None, derivatives: int, second: Tensor | None = None) -> Slots:
        found = []
        assert inverse is not None
        for order in range(derivatives + 1):
            given, factor = reference[..., self.slots(order, self.dim)], self.factor(order, inverse)[:, None]
            pushed = sum_of(given[..., s, None] * factor[..., s] for s in range(factor.shape[-1]))
            found.append(pushed if self.rank(order) else pushed[..., 0])
        return found

    def pull(self, flux: Tensor, order: int, geometry: Geometry, batch: int) -> Tensor:
        extra = (None,) * (flux.ndim - batch - 3)
        factor = self.factor(order, geometry.inverse)[(slice(None), slice(None), *extra)]
        return sum_of(flux[..., p, None] * factor[..., p, :] for p in range(factor.shape[-2]))

    def reference(self, value: Float[Tensor, "*b e q d"], jacobian: Float[Tensor, "#e #q d d"]) -> Tensor:
        """û from u: det J J⁻¹ u, or Jᵀ u."""
        back = jacobian.mT if self.derivative == "curl" else adjugate(jacobian)
        return sum_of(value[..., d, None] * back[..., d] for d in range(self.dim))
