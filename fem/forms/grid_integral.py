"""Integrals over all cells of a uniform grid, by a loop that never has values at points (`fem.kernels.integrand`).

The face is that of `fem.forms.cell_integral`; the explicit tensors are the parameters themselves, dofs of fields above
all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.assembly import Coefficient, Pattern
from fem.forms.cell_integral import BatchShape, CellIntegral, add_coefficients, add_layers, finite_coefficients
from fem.forms.parameters import point_values
from fem.forms.traced.integral import TracedHessian, TracedIntegral
from fem.kernels.c_source import Targets
from fem.kernels.grid_inputs import Chunk
from fem.kernels.grid_integrand import GridIntegrand
from fem.kernels.tensor_interpolation import grid_order


@dataclass(frozen=True, eq=False)
class GridIntegral(TracedIntegral):
    """A term on all cells of a uniform grid."""

    integrand: GridIntegrand

    def at_points(self) -> CellIntegral:
        params = tuple(point_values(p, self.domain, self.geometry) for p in self.params)
        return CellIntegral(self.space, self.term, self.domain, params)

    def hessian(self, u: Tensor, batch: BatchShape) -> "GridHessian":
        return GridHessian(self, u, batch)


@dataclass(frozen=True, eq=False)
class GridHessian(TracedHessian):
    """The second derivative of a `GridIntegral` at u."""

    @property
    def known(self) -> bool:
        return self.integral.integrand.uniform

    @cached_property
    @torch.no_grad()
    def coefficients(self) -> list[Coefficient]:
        """Second derivatives of the density at all points; those that are the same in all cells are never stored."""
        integral = self.integral
        if not integral.integrand.uniform:
            return integral.at_points().hessian(self.u, self.batch).coefficients
        space, hessian = integral.space, self._uniform
        slots = [space.shape[1:], (*space.shape[1:], space.mesh.dim)][: integral.term.derivatives + 1]
        points, found = (space.mesh.num_cells, len(integral.domain.weights)), []
        for i, rows in enumerate(hessian.split([prod(s) for s in slots], -2)):
            for j, block in enumerate(rows.split([prod(s) for s in slots], -1)):
                if bool((block != 0).any()):
                    value = block.reshape(*block.shape[:-2], 1, 1, *slots[i], *slots[j])
                    found.append(Coefficient((0, i), (0, j), value.expand(*self.batch, *points, *slots[i], *slots[j])))
        return found

    @cached_property
    @torch.no_grad()
    def _uniform(self) -> Float[Tensor, "*b s s"]:
        """The second derivatives at a point where they are the same at all."""
        return self.integral.integrand.constant_hessian(self.integral.arguments(self.u))

    def finite(self) -> Bool[Tensor, "*b"]:
        if not self.known:
            return finite_coefficients(self.coefficients, self.batch, self.u)
        return torch.isfinite(self._uniform).all((-2, -1)).expand(self.batch)

    def add_to_matrix(self, pattern: Pattern, values: Tensor) -> None:
        """Add the element matrices to CSR values, both entries of each pair of local dofs, layer by layer of cells."""
        if self.known or values.device.type != "cpu":
            add_coefficients(self, pattern, values)
            return
        integral, position = self.integral, pattern.positions[self.integral.domain.block]
        space, flat = integral.space, values.view(-1, values.shape[-1])
        order, c = torch.tensor(grid_order(integral.domain.cell, space.degree), device="cpu"), space.components or 1
        local = (order[:, None] * c + torch.arange(c, device="cpu")).flatten()
        first, second = torch.triu_indices(len(local), len(local), device="cpu")
        off, position = first != second, position.flatten(1)
        at = local[first] * len(local) + local[second], local[second[off]] * len(local) + local[first[off]]
        for (items, layers), entries in integral.integrand.element_matrices(integral.arguments(self.u)):
            share, layer = entries.flatten(2).movedim(0, -1), prod(entries.shape[3:])  # "b e k"
            own = position[layers.start * layer : layers.stop * layer]
            for chosen, part in zip(at, (share, share[..., off]), strict=True):
                part = part.flatten(1)
                flat[items].scatter_add_(-1, own[:, chosen].flatten().long().expand(part.shape), part)

    def add_to_images(self, images: Sequence[Tensor], targets: Targets, within: Chunk | None = None) -> None:
        """Add the element matrices, of all cells or of a portion, to images of vertices; see `CellHessian`."""
        integrand, arguments = self.integral.integrand, self.integral.arguments(self.u)
        if integrand.add_element_matrices(arguments, images, targets, within):
            return
        first = (0, 0) if within is None else (within[0].start, within[1].start)
        for (items, layers), entries in integrand.element_matrices(arguments, within):
            some = slice(items.start - first[0], items.stop - first[0])
            for (image, corner), values in zip(targets, entries, strict=True):
                add_layers(images[image][some], layers.start - first[1], corner, values)

    def add_product(self, v: Tensor, total: Tensor) -> None:
        """Add H v to dofs "*b n" of a scalar space."""
        self.integral.integrand.add_hessian_product(self.integral.arguments(self.u), v, total)
