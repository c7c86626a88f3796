"""Bodies that nothing holds: displacements without mean translation and mean rotation."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.constraints import MeanZero
from fem.space.space import FunctionSpace
from fem.support.checks import shown
from fem.support.modes import outside_modes


class RigidMotionFree:
    """No mean translation and no mean rotation: what makes a problem of tractions alone well posed.

    ∫ u = 0 and Σ_a m_a x_a × u_a = 0, with the weights m_a = ∫ φ_a of the nodes. `apply` takes the rigid motions z_k
    out, u ↦ u − Z (Zᵀ m Z)⁻¹ Zᵀ m u. Loads out of balance are met in the least-squares sense, as by `MeanZero`.

    Args:
        space: of displacements, a component for each coordinate.

    Raises:
        TypeError, ValueError: another space.
    """

    fixed = None

    def __init__(self, space: FunctionSpace):
        single = isinstance(space, FunctionSpace)
        nodal = single and space.is_nodal and not space.is_discontinuous
        if not nodal or space.components != space.mesh.num_coordinates:
            raise ValueError(
                "`RigidMotionFree` takes a space of displacements with values at nodes, such as Lagrange, and a "
                "component for each coordinate; got "
                f"{shown(space)}."
            )
        self.space, self._mean = space, MeanZero(space)

    def __repr__(self) -> str:
        return f"RigidMotionFree({self.modes.shape[-1]} motions)"

    def __and__(self, other: Any) -> Any:
        raise ValueError(
            "`RigidMotionFree` is for bodies that nothing holds and goes with no other constraint; prescribe values "
            "without it."
        )

    __rand__ = __and__

    @property
    def modes(self) -> Float[Tensor, "n d k"]:
        """Translations, and rotations about the centre of the nodes, scaled to size one."""
        x = self.space.dof_coordinates.detach()
        x = (x - x.mean(0)) / (x.amax(0) - x.amin(0)).max()
        d, found = x.shape[1], []
        for i in range(d):
            found.append(torch.zeros_like(x))
            found[-1][:, i] = 1
        for i in range(d):
            for j in range(i + 1, d):
                found.append(torch.zeros_like(x))
                found[-1][:, i], found[-1][:, j] = -x[:, j], x[:, i]
        return torch.stack(found, -1)

    def data(self) -> Tensor:
        """m_a "n d", the same for all components.

        Raises:
            ValueError: nodes that need a gradient, which the motions to be taken out would need too.
        """
        if self.space.mesh.version is None:
            raise ValueError(
                "`RigidMotionFree` has no derivatives in the nodes of the mesh; hold the body at points instead, "
                "`Dirichlet(V, {at_points(...): 0.0, (at_points(...), 1): 0.0})`."
            )
        return self._mean.data()[:, None].expand(self.space.shape)

    @outside_modes
    def apply(self, u: Tensor) -> Tensor:
        """`u` without its rigid motion."""
        return self.insert(self.space.check(u), self.data())

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        Z = self.modes.flatten(0, 1)
        weighted, flat = data.flatten(-2)[:, None] * Z, u.flatten(-2)
        shares = torch.linalg.solve(Z.T @ weighted, (flat @ weighted)[..., None])[..., 0]
        return (flat - shares @ Z.T).unflatten(-1, self.space.shape)

    def linear(self, v: Tensor, data: Tensor | None) -> Tensor:
        """The linear part of `insert`."""
        return self.insert(v, data)

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        Z = self.modes.flatten(0, 1)
        weighted, flat = data.flatten(-2)[:, None] * Z, residual.flatten(-2)
        shares = torch.linalg.solve(Z.T @ weighted, (flat @ Z)[..., None])[..., 0]
        return (flat - shares @ weighted.T).unflatten(-1, self.space.shape)

    def border(self, data: Tensor) -> Float[Tensor, "m k"]:
        """The columns that hold the rigid motions in a bordered matrix."""
        return data.flatten(-2)[:, None] * self.modes.flatten(0, 1)
