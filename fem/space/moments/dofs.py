"""Dofs that are moments: their numbering, those of given functions (interpolation), and those on tagged facets.

Moments are taken on the reference cell, of u pulled back by the Piola map, which keeps them: ∫ u·n m ds over a facet is
that of û. So interpolation commutes, div Π u = P div u and curl Π u = P curl u (in space Π' curl u of Raviart–Thomas).
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.geometry import facet_cells
from fem.mesh.jacobian import inverse, measure
from fem.mesh.mesh import Mesh
from fem.mesh.topology import first_positions
from fem.reference.cells import Cell
from fem.reference.element import ElementFamily
from fem.reference.lagrange import entity_cell_of
from fem.reference.vector_element import VectorElement
from fem.space.cell_dofs import CellDofs
from fem.space.mappings import Piola
from fem.space.moments.orientation import orientations
from fem.support.checks import shown
from fem.support.transforms import mapped, outside_transforms


class Moments:
    """The dofs of Raviart–Thomas or Nédélec elements on the blocks of a mesh.

    Raises:
        ValueError: components, hanging nodes, or a mesh in a space of more dimensions than its cells.
    """

    def __init__(self, mesh: Mesh, elements: Sequence[VectorElement], family: ElementFamily, components: Any = None):
        name = repr(family)
        if components is not None:
            raise ValueError(f"`{name}` has vectors as values; leave `components={components!r}` out.")
        if mesh.num_coordinates != mesh.dim:
            raise ValueError(
                f"`{name}` needs cells of as many dimensions as there are coordinates; got cells of {mesh.dim} "
                f"dimensions in {mesh.num_coordinates}-D. `Lagrange` and `Discontinuous` serve curves and surfaces."
            )
        if mesh.topology.hanging is not None:
            raise ValueError(f"`{name}` needs cells that share whole facets; take `Lagrange` where nodes hang.")
        self.mesh, self.elements, self.name = mesh, elements, name
        self.mapping = Piola(elements[0].derivative, mesh.dim)

    @cached_property
    @outside_transforms()
    def cell_dofs(self) -> CellDofs:
        counts: dict[Cell, int] = {}
        for element in self.elements:
            for kind in (entity_cell_of(element.cell, dim) for dim in range(1, self.mesh.dim + 1)):
                counts[kind] = len(element.tests(kind))
        return CellDofs(*self.mesh.topology.moment_numbering(counts.__getitem__))

    @cached_property
    @outside_transforms()
    def orientations(self) -> tuple[Float[Tensor, "_ _ _"], ...]:
        """T of every cell, block by block: see `fem.space.moments.orientation`."""
        return orientations(self.mesh, self.elements)

    @property
    def quadrature_degree(self) -> int:
        """Of the moments of given functions."""
        return 2 * self.elements[0].degree + 4 + self.mesh.curved_degree

    def dofs(self, tag: Any) -> Int[Tensor, "k"]:
        """Numbers of the dofs on the facets with that tag and on their edges, in ascending order.

        Raises:
            ValueError: no such tag, or what is no tag of facets.
        """
        if not isinstance(tag, str):
            raise ValueError(f"dofs of `{self.name}` are moments on facets, not values at points; got {tag!r}.")
        self.mesh.facets_tagged(tag)  # the tag exists
        return torch.cat([self.numbers(*part).flatten() for part in self.parts(tag)]).unique()

    def parts(self, tag: str) -> list[tuple[int, Int[Tensor, "e"], int]]:
        """Block, cells and local facet of all facets with that tag."""
        every = [
            (i, cells, k) for i in range(len(self.elements)) for k, cells in enumerate(facet_cells(self.mesh, tag, i))
        ]
        return [part for part in every if len(part[1])]

    def numbers(self, block: int, cells: Int[Tensor, "e"], facet: int) -> Int[Tensor, "e k"]:
        """The dofs on one local facet of some cells."""
        return self.cell_dofs.of(block, cells)[:, list(self.elements[block].facet_dofs[facet])]

    # -- of given functions --------------------------------------------------------------------------------------------

    def interpolate(self, value: Callable[[int, Tensor, Tensor], Tensor]) -> Float[Tensor, "*b n"]:
        """Dofs of the function that has the moments of a field u "*b e q d", given as a function of the block, the
        points x "e q d" and where they lie in the reference cell; of cells that share a dof the first one speaks.
        """
        blocks = range(len(self.elements))
        parts = [self.local(i, None, None, lambda x, _, at, i=i: value(i, x, at)) for i in blocks]
        return torch.cat([p.flatten(-2) for p in parts], -1)[..., self._owners]

    @cached_property
    @outside_transforms()
    def _owners(self) -> Int[Tensor, "n"]:
        """Where each dof stands first among the local dofs of all cells."""
        return first_positions(torch.cat([numbers.flatten() for numbers in self.cell_dofs]), self.cell_dofs.count)

    def trace(self, tag: str, dofs: Int[Tensor, "k"], value: Any, name: str) -> Float[Tensor, "*b k"]:
        """Values of the tag's dofs for the normal component (RT) or the tangential ones (Nédélec) of a vector field.

        Args:
            value: a vector-valued callable of x "k d"; for RT also the flux outwards itself, as a number or a callable;
                for Nédélec 0.

        Raises:
            ValueError: a number that means no tangential trace, a flux through facets inside the domain, whose sign is
                not told, or values of another shape.
        """
        if isinstance(value, Real) and not isinstance(value, bool) and value == 0:
            return torch.zeros(len(dofs), dtype=self.mesh.dtype, device=self.mesh.device)

        def at(x: Tensor, normal: Tensor, _: Tensor) -> Tensor:
            given = self.called(name, value, x, self.mapping.derivative == "div")
            if given.shape[-3:] == x.shape:
                return given
            if bool((self.mesh.topology.facets.num_cells[self.mesh.facets_tagged(tag)] > 1).any()):
                raise ValueError(
                    f"facets of {tag!r} lie inside the domain, where a flux may go either way; give the vector field, "
                    "a callable of x with values (k, d), whose normal part is taken."
                )
            return given[..., None] * normal

        found = [self.local(i, cells, facet, at).flatten(-2) for i, cells, facet in self.parts(tag)]
        place = torch.searchsorted(dofs, torch.cat([self.numbers(*part).flatten() for part in self.parts(tag)]))
        return torch.cat(found, -1)[..., first_positions(place, len(dofs))]

    def called(self, name: str, value: Any, x: Float[Tensor, "e q d"], scalars: bool = False) -> Tensor:
        """A field, or where `scalars` are allowed a number for each point, at points: "*b e q d" or "*b e q".

        Raises:
            TypeError, ValueError: anything else.
        """
        points = x.flatten(0, 1)
        found = value(points) if callable(value) and not isinstance(value, Tensor) else value
        if scalars and isinstance(found, Real) and not isinstance(found, bool):
            found = torch.tensor(float(found), dtype=x.dtype, device=x.device)
        wanted = f"a callable of x that returns vectors of shape {tuple(points.shape)}"
        wanted += ", or the flux outwards as a number or a callable" if scalars else ""
        if not isinstance(found, Tensor):
            raise TypeError(f"{name} must be {wanted}; got {shown(found)}.")
        if found.dtype != x.dtype:
            raise TypeError(f"{name} has {found.dtype} values; the mesh is {x.dtype}. Convert them, by `.to(x.dtype)`.")
        if found.shape[-2:] == points.shape or found.shape == points.shape[1:]:
            found = found.expand(*found.shape[:-2], *points.shape).unflatten(-2, x.shape[:2])
        elif scalars and (found.ndim == 0 or found.shape[-1] == len(points)):
            found = found.expand(*found.shape[:-1], len(points)).unflatten(-1, x.shape[:2])
        else:
            raise ValueError(f"{name} must be {wanted}; got {tuple(found.shape)}.")
        if not mapped(found) and not bool(torch.isfinite(found).all()):
            raise ValueError(f"{name} is not finite: got {float(found[~torch.isfinite(found)][0])}.")
        return found

    def local(
        self, block: int, cells: Tensor | None, facet: int | None, value: Callable[[Tensor, Any, Tensor], Tensor]
    ) -> Float[Tensor, "*b e k"]:
        """Dofs of a field on some cells: all of a cell, or those on one of its facets.

        Args:
            value: u "*b e q d" from x "e q d", outward unit normals of the facet (else None), reference points "q r".
        """
        element, mesh, degree = self.elements[block], self.mesh, self.quadrature_degree
        rows = range(element.num_basis) if facet is None else element.facet_dofs[facet]
        entities = [e for e, dofs in element.entity_dofs.items() if set(dofs) <= set(rows)]
        points, weights = zip(*(element.moments(entity, degree) for entity in entities), strict=True)
        at = torch.cat(points).to(mesh.device, mesh.dtype)
        x, jacobian, _ = mesh.map(block, cells, at)
        normal = None
        if facet is not None:
            normal = element.cell.facet_normals[facet].to(jacobian) @ inverse(jacobian, measure(jacobian))
            normal = (normal / normal.norm(dim=-1, keepdim=True)).expand(x.shape)
        given = self.mapping.reference(value(x, normal, at), jacobian).split([len(p) for p in points], -2)
        own = [torch.einsum("kqr,...qr->...k", w.to(g), g) for w, g in zip(weights, given, strict=True)]
        T, rows = self.orientations[block], list(rows)
        T = T if cells is None or len(T) == 1 else T[cells]
        return torch.linalg.solve(T[:, rows][:, :, rows], torch.cat(own, -1)[..., None])[..., 0]
