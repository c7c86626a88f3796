"""Separable operators on grids of nodes, Lagrange nodes or splines alike, and their inverses axis by axis.

    H = Σ_k c_k K_k ⊗ (M on the other axes) + m M ⊗ … ⊗ M,        Vᵀ K V = diag(κ),   Vᵀ M V = diag(μ)   on each axis,
    H⁻¹ = (⊗ V) diag(Σ_k c_k κ_k Π_{l≠k} μ_l + m Π_l μ_l)⁻¹ (⊗ V)ᵀ.

A solve is a transform along each axis, a division, and the transforms back. Only the 1-D matrices and their modes tell
one kind of element from another (`solvers/linear/axis_modes.py`).
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from fem.support.arithmetic import per_item, sum_of
from solvers.linear.axis_modes import LagrangeLine, modes, supported_modes


class Separable:
    """One separable operator per component, and the way from dofs to their free nodes and back.

    Args:
        shape: of the whole batch of dofs.
        grid: the nodes and the components, "(z) y x c".
    """

    def __init__(self, shape: tuple[int, ...], grid: tuple[int, ...], components: "list[Component]"):
        self.shape, self.grid, self.components = shape, grid, components
        self.count = prod(shape) // prod(grid)

    def split(self, v: Tensor) -> list[Tensor]:
        """The free nodes "b *grid" of each component."""
        v = v.expand(self.shape).reshape(self.count, *self.grid)
        return [v[(slice(None), *component.box, c)] for c, component in enumerate(self.components)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The dofs "*b *shape" with these values at free nodes, zeros elsewhere."""
        v = parts[0].new_zeros(self.count, *self.grid)
        for c, (component, part) in enumerate(zip(self.components, parts, strict=True)):
            v[(slice(None), *component.box, c)] = part
        return v.reshape(self.shape)


class Component:
    """H = Σ_k (c_k K_k + supports of both ends) ⊗ (M on the other axes) + m M ⊗ … ⊗ M, for one component.

    Args:
        lines: the axes, x first, whereas fields on the grid "b *grid" have x last.
        spacing: the extents "d" of what has length one in the lines' matrices.
        diffusion, reaction: c "b d" and m "b".
        supports: what is added to the first and last diagonal entry of each axis, "b d 2".
    """

    def __init__(
        self,
        lines: Sequence[LagrangeLine],
        spacing: Float[Tensor, "d"],
        diffusion: Float[Tensor, "b d"],
        reaction: Float[Tensor, "b"],
        supports: Float[Tensor, "b d 2"],
    ):
        self.box, self.modes = tuple(line.free for line in lines[::-1]), []
        eigenvalues, diagonals = ([], []), ([], [])  # of stiffness and mass, axis by axis
        for line, h, c, ends in zip(lines, spacing, diffusion.T, supports.unbind(1), strict=True):
            ends = ends.masked_fill(torch.tensor(line.fixed, device=ends.device), 0)
            supported, scale = bool(ends.any()), c / h
            found = supported_modes(line, scale, ends) if supported else modes(line)
            self.modes.append(found)
            stiffness, mass = found.stiffness.to(c), found.mass.to(c)
            eigenvalues[0].append(stiffness if supported else scale[:, None] * stiffness)
            eigenvalues[1].append(h * mass)
            stiffness, mass = (diagonal.to(c) for diagonal in line.diagonals())
            stiffness = scale[:, None] * stiffness
            stiffness[:, :1] += ends[:, :1]
            stiffness[:, -1:] += ends[:, 1:]
            diagonals[0].append(stiffness)
            diagonals[1].append(h * mass[None])
        self.constant = all(found.constant for found in self.modes)
        self.eigenvalues = tensor_sum(*eigenvalues, reaction)
        self._diagonals, self._reaction = diagonals, reaction

    @property
    def diagonal(self) -> Float[Tensor, "b *grid"]:
        """The diagonal of H at free nodes."""
        return tensor_sum(*self._diagonals, self._reaction)

    def inverse(self, reciprocal: Float[Tensor, "b *grid"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """r "b *grid" ↦ (⊗ V) diag(reciprocal) (⊗ V)ᵀ r."""
        transforms = [found.transform.to(reciprocal.device, dtype) for found in self.modes]
        for _ in transforms[1:]:
            reciprocal = reciprocal.movedim(-1, 1)
        reciprocal = reciprocal.to(dtype).contiguous()

        def solve(r: Tensor) -> Tensor:
            if r.numel() == 0:
                return r
            # The axis at work stands last: x, then y, then z, and back.
            y = r[:, None] if r.ndim == 2 else r
            for k, transform in enumerate(transforms):
                y = transform(y.movedim(-1, 1) if k else y)
            y = y.mul_(reciprocal.reshape(y.shape))
            for k, transform in reversed(list(enumerate(transforms))):
                y = transform.mT(y)
                y = y.movedim(1, -1) if k else y
            return y.reshape(r.shape)

        return solve


def tensor_sum(stiffness: list[Tensor], mass: list[Tensor], reaction: Float[Tensor, "b"]) -> Float[Tensor, "b *grid"]:
    """Σ_k K_k ⊗ (M on the other axes) + m M ⊗ … ⊗ M for diagonals "#b n" of each axis; x is the last of the result."""
    terms = [outer([*mass[:k], part, *mass[k + 1 :]]) for k, part in enumerate(stiffness)]
    terms.append(outer([reaction[:, None] * mass[0], *mass[1:]]))
    return sum_of(terms)


def outer(factors: list[Tensor]) -> Tensor:
    """The products of all entries "#b n" of each axis."""
    result = factors[0]
    for factor in factors[1:]:
        result = per_item(factor, result[:, None]) * result[:, None]
    return result


def largest(values: Float[Tensor, "b *grid"]) -> Tensor:
    """max |values| of each item "b 1 … 1", zero where there are none."""
    return per_item(pad(values.abs().flatten(1), (0, 1)).amax(1), values)


def definite(values: Float[Tensor, "b *grid"]) -> Float[Tensor, "b *grid"]:
    """Reciprocals of the absolute values, the smallest of the others in place of zeros."""
    size = values.abs()
    null = size <= torch.finfo(values.dtype).eps * largest(values)
    others = pad(size.masked_fill(null, torch.inf).flatten(1), (0, 1), value=torch.inf)
    return 1 / torch.where(null, per_item(others.amin(1), values), size)
