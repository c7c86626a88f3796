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
        return motions(self.space.dof_coordinates.detach())

    def data(self) -> Float[Tensor, "n d1"]:
        """m_a and x_a, side by side, differentiable in the nodes of the mesh."""
        return torch.cat([self._mean.data()[:, None], self.space.dof_coordinates], 1)

    @outside_modes
    def apply(self, u: Tensor) -> Tensor:
        """`u` without its rigid motion."""
        return self.insert(self.space.check(u), self.data())

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        (Z, weighted), flat = self._columns(data), u.flatten(-2)
        shares = torch.linalg.solve(Z.T @ weighted, (flat @ weighted)[..., None])[..., 0]
        return (flat - shares @ Z.T).unflatten(-1, self.space.shape)

    def linear(self, v: Tensor, data: Tensor | None) -> Tensor:
        """The linear part of `insert`."""
        return self.insert(v, data)

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        (Z, weighted), flat = self._columns(data), residual.flatten(-2)
        shares = torch.linalg.solve(Z.T @ weighted, (flat @ Z)[..., None])[..., 0]
        return (flat - shares @ weighted.T).unflatten(-1, self.space.shape)

    def border(self, data: Tensor) -> Float[Tensor, "m k"]:
        """The columns that hold the rigid motions in a bordered matrix."""
        return self._columns(data)[1]

    def _columns(self, data: Float[Tensor, "n d1"]) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
        """Z, and m Z with the same weight for all components."""
        Z = motions(data[:, 1:])
        return Z.flatten(0, 1), (data[:, :1, None] * Z).flatten(0, 1)


def motions(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d k"]:
    """Translations and rotations at some places; they span the same whatever the centre and the scale, which are
    chosen for the sake of round-off."""
    rough = x.detach()
    x, d, found = (x - rough.mean(0)) / (rough.amax(0) - rough.amin(0)).max(), x.shape[1], []
    for i in range(d):
        found.append(torch.zeros_like(x).index_fill(1, torch.tensor([i], device=x.device), 1))
    for i in range(d):
        for j in range(i + 1, d):
            columns = [torch.zeros_like(x[:, 0])] * d
            columns[i], columns[j] = -x[:, j], x[:, i]
            found.append(torch.stack(columns, 1))
    return torch.stack(found, -1)
