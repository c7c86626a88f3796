"""Function spaces: a basis on every cell of a mesh, its dofs numbered, and the quadrature that integrates it.

A function is a tensor of dofs: "*b n" for scalars, "*b n c" for vectors, "*b N" (fields one after another, each
flattened) for mixed spaces. Leading axes are a batch. All integration goes through two maps that are each other's
transpose: `at_points`, dofs to values and derivatives at quadrature points, and `assembly.scatter_fluxes`, back.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.geometry import Domain, Geometry, cell_domains, facet_cells, facet_domains, geometry
from fem.mesh.mesh import Mesh
from fem.reference.element import Element, ElementFamily
from fem.reference.lagrange import LagrangeElement
from fem.space.field import Function
from fem.space.gather_scatter import Incidence

Slots = list[Tensor]


class Space(ABC):
    """What single spaces and products have in common: dofs of one shape, over one mesh."""

    mesh: Mesh
    pattern: Any = None  # sparsity of matrices, made by the first assembly
    workspace: Any = None  # what solvers leave here for the next solve on this space

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one function's dofs."""

    @property
    def dtype(self) -> torch.dtype:
        return self.mesh.dtype

    @property
    def device(self) -> torch.device:
        return self.mesh.device

    def check(self, u: Tensor, name: str = "u") -> Tensor:
        """The dofs, if their shape, type and device fit this space.

        Raises:
            ValueError: the trailing shape is not the space's.
            TypeError: not a tensor of the space's dtype, or on another device.
        """
        if not isinstance(u, Tensor):
            raise TypeError(f"`{name}` must be a tensor of shape (..., {', '.join(map(str, self.shape))}); got {u!r}.")
        if tuple(u.shape[u.ndim - len(self.shape) :]) != self.shape or u.ndim < len(self.shape):
            raise ValueError(
                f"`{name}` must have the trailing shape {self.shape} of the space's dofs; got {tuple(u.shape)}."
            )
        if u.dtype != self.dtype:
            raise TypeError(
                f"`{name}` is {u.dtype} but the space is {self.dtype}; convert one of them with `.to(dtype=...)`."
            )
        if u.device != self.device:
            raise TypeError(
                f"`{name}` is on {u.device} but the space is on {self.device}; move one of them with `.to`."
            )
        return u


class FunctionSpace(Space):
    """Functions that belong to `element` on every cell of `mesh`, continuous across cells.

    Args:
        mesh: the cells.
        element: `Lagrange(degree)`, or any family whose `on(cell)` gives an element.
        components: None for scalars, c for vectors with c components (dofs "*b n c").
        quadrature_degree: polynomials up to this degree are integrated exactly; 2p + 1 by default.
    """

    def __init__(
        self, mesh: Mesh, element: ElementFamily, components: int | None = None, quadrature_degree: int | None = None
    ):
        self.family = element
        self._set(mesh, tuple(element.on(block.cell) for block in mesh.blocks), components, quadrature_degree)
        if self.is_lagrange:
            self.num_nodes = mesh.topology.num_lagrange_nodes(self.degree)
        else:
            self.num_nodes = num_patch_dofs(mesh, self.elements)

    def _set(
        self, mesh: Mesh, elements: tuple[Element, ...], components: int | None, quadrature_degree: int | None
    ) -> None:
        if components is not None and (isinstance(components, bool) or int(components) != components or components < 1):
            raise ValueError(f"`FunctionSpace(components=...)` must be None or a positive integer; got {components!r}.")
        self.mesh, self.elements, self.components = mesh, elements, components
        self.is_lagrange = all(isinstance(e, LagrangeElement) for e in self.elements)
        self.quadrature_degree = 2 * self.degree + 1 if quadrature_degree is None else quadrature_degree
        self._domains: dict[tuple[str | None, int], tuple[Domain, ...]] = {}
        self._geometry: dict[tuple[Domain, int], tuple[int, Geometry]] = {}
        self._tables: dict[tuple[Domain, int], Tensor] = {}
        self._incidence: dict[int | Domain, Incidence] = {}

    # -- shapes --------------------------------------------------------------------------------------------------------

    @property
    def degree(self) -> int:
        return max(element.degree for element in self.elements)

    @property
    def continuity(self) -> int:
        """How many derivatives are continuous across cells."""
        return min(getattr(element, "continuity", 0) for element in self.elements)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one function's dofs: (n,) or (n, c)."""
        return (self.num_nodes,) if self.components is None else (self.num_nodes, self.components)

    @property
    def num_dofs(self) -> int:
        """Number of unknowns, n times the number of components."""
        return prod(self.shape)

    @property
    def fields(self) -> "tuple[FunctionSpace, ...]":
        return (self,)

    def split(self, u: Tensor) -> tuple[Tensor, ...]:
        return (u,)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0]

    # -- numbering -----------------------------------------------------------------------------------------------------

    @cached_property
    def cell_dofs(self) -> tuple[Int[Tensor, "_ _"], ...]:
        """Numbers "e a" of the local nodes of every cell, block by block."""
        if self.is_lagrange:
            return self.mesh.topology.lagrange_numbering(self.degree)[0]
        return (self.elements[0].cell_dofs.to(self.device),)  # type: ignore[attr-defined]

    def with_components(self, components: int | None) -> "FunctionSpace":
        """The same functions, as scalars or as components of vectors."""
        return FunctionSpace(self.mesh, self.family, components, self.quadrature_degree)

    def dofs_of(self, block: int, cells: Int[Tensor, "e"] | None) -> Int[Tensor, "e a"]:
        """The rows of `cell_dofs` of some cells, or all: those of a grid need no others."""
        grid = self.mesh.topology.grid
        if cells is not None and grid is not None and self.is_lagrange:
            return grid.cell_nodes(self.degree, cells)
        return self.cell_dofs[block] if cells is None else self.cell_dofs[block][cells]

    def dofs(self, tag: str) -> Int[Tensor, "k"]:
        """Nodes of the space on the facets with that tag, in ascending order."""
        sides, grid = self.mesh.sides_tagged(tag), self.mesh.topology.grid
        if not self.is_lagrange:
            raise ValueError("only Lagrange spaces have dofs on facets; impose values on splines weakly.")
        if sides is not None and grid is not None:
            return grid.side_nodes(self.degree, sides)
        marked = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.device)
        for i, element in enumerate(self.elements):
            assert isinstance(element, LagrangeElement)
            for nodes, cells in zip(element.facet_nodes, facet_cells(self.mesh, tag, i), strict=True):
                marked[self.dofs_of(i, cells)[:, list(nodes)]] = True
        return torch.nonzero(marked).flatten()

    # -- functions -----------------------------------------------------------------------------------------------------

    def function(self, values: Tensor) -> Function:
        """A field with these dofs, as a parameter of a density."""
        return Function(self, self.check(values, "values"))

    @property
    def dof_coordinates(self) -> Float[Tensor, "n d"]:
        """Where each node's dofs sit, differentiable with respect to `mesh.nodes`."""
        return self.coordinates_of(None)

    def coordinates_of(self, dofs: Int[Tensor, "k"] | None) -> Float[Tensor, "k d"]:
        """The rows of `dof_coordinates` of some nodes, without making the others; all for None."""
        if not self.is_lagrange:
            raise ValueError("only Lagrange spaces have nodes; project onto a spline space instead.")
        return self.mesh.lagrange_nodes(self.degree, dofs)

    def trace(self, tag: str, dofs: Int[Tensor, "k"], value: Callable[[Tensor], Tensor]) -> Tensor:
        """Values "*b k" or "*b k c" of the tag's dofs for the boundary values `value` of x "k d"."""
        return value(self.coordinates_of(dofs))

    def interpolate(self, value: Callable[[Tensor], Tensor] | float) -> Tensor:
        """Dofs of the function that equals `value`, a number or a callable of x "n d", at every node."""
        x = self.dof_coordinates
        result = value(x) if callable(value) else torch.as_tensor(value, dtype=self.dtype, device=self.device)
        if result.dtype != self.dtype:
            raise TypeError(f"`interpolate` got {result.dtype} values; the space is {self.dtype}.")
        try:
            if result.ndim > len(self.shape):
                return self.check(result)
            return result.expand(self.shape).clone()
        except (RuntimeError, ValueError):
            raise ValueError(f"`interpolate` needs values of shape {self.shape}; got {tuple(result.shape)}.") from None

    def evaluate(self, u: Tensor, points: Float[Tensor, "m d"], outside: float | None = None) -> Tensor:
        """Values "*b m" or "*b m c" at arbitrary points, differentiable in u, the points and the mesh nodes.

        Raises:
            ValueError: a point lies outside the mesh (named), unless `outside` gives a value for such points.
        """
        from fem.mesh.location import evaluate

        return evaluate(self, self.check(u), points, outside)

    def to_grid(self, u: Tensor) -> Tensor:
        """The field as an image: "*b n" → "*b (nz) ny nx" with x fastest and row 0 at the bottom; "*b c …" for vectors.

        Raises:
            ValueError: the mesh was not made as a grid.
        """
        shape = self._grid_nodes()
        self.check(u)
        if self.components is None:
            return u.reshape(*u.shape[:-1], *shape)
        return u.mT.reshape(*u.shape[:-2], self.components, *shape)

    def from_grid(self, image: Tensor) -> Tensor:
        """The inverse of `to_grid`."""
        shape = self._grid_nodes()
        lead = len(shape) if self.components is None else len(shape) + 1
        expected = shape if self.components is None else (self.components, *shape)
        if tuple(image.shape[-lead:]) != expected:
            raise ValueError(f"`from_grid` needs an image of shape (..., {expected}); got {tuple(image.shape)}.")
        flat = image.flatten(-len(shape))
        return flat if self.components is None else flat.mT

    def _grid_nodes(self) -> tuple[int, ...]:
        if self.mesh.grid is None or not self.is_lagrange:
            raise ValueError("only Lagrange spaces on meshes made as grids (`unit_square`, `box`, …) have a grid form.")
        return tuple(self.degree * n + 1 for n in self.mesh.grid[::-1])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "FunctionSpace":
        """The space on another device or in another floating-point type."""
        return FunctionSpace(self.mesh.to(device, dtype), self.family, self.components, self.quadrature_degree)

    def __repr__(self) -> str:
        kind = "" if self.components is None else f", components={self.components}"
        return f"FunctionSpace({self.family}{kind}; {self.num_dofs} dofs on {self.mesh})"

    # -- at quadrature points ------------------------------------------------------------------------------------------

    def domains(self, tag: str | None = None, degree: int | None = None) -> tuple[Domain, ...]:
        """All cells (tag None) or tagged facets with quadrature of the given degree, the space's own by default."""
        key = (tag, self.quadrature_degree if degree is None else degree)
        if key not in self._domains:
            make = cell_domains(self.mesh, key[1]) if tag is None else facet_domains(self.mesh, tag, key[1])
            self._domains[key] = make
        return self._domains[key]

    def geometry(self, domain: Domain, derivatives: int = 1) -> Geometry:
        """Geometry at the domain's points; kept while the nodes stay as they are and need no gradient."""
        key, version = (domain, derivatives), self.mesh.version
        if version is None:
            return geometry(self.mesh, domain, derivatives)
        if key not in self._geometry or self._geometry[key][0] != version:
            self._geometry[key] = (version, geometry(self.mesh, domain, derivatives))
        return self._geometry[key][1]

    def table(self, domain: Domain, derivatives: int = 1) -> Float[Tensor, "#e q s a"]:
        """Reference tabulation with the value and all derivatives in one axis s = 1 + r (+ r²)."""
        key = (domain, derivatives)
        if key not in self._tables:
            tabulation = self.elements[domain.block].tabulate(domain.points, derivatives)
            parts = [tabulation.value[..., None], tabulation.grad, tabulation.hess]
            stacked = torch.cat([p.flatten(3) for p in parts[: derivatives + 1] if p is not None], -1).mT
            if len(stacked) > 1 and domain.cells is not None:
                stacked = stacked[domain.cells]
            self._tables[key] = stacked.contiguous()
        return self._tables[key]

    def domain_dofs(self, domain: Domain) -> Int[Tensor, "e a"]:
        return self.incidence(domain).dofs

    def incidence(self, domain: Domain) -> Incidence:
        """The dofs of the domain's cells; the same for whatever quadrature all cells of a block are given."""
        key = domain.block if domain.cells is None else domain
        if key not in self._incidence:
            self._incidence[key] = Incidence(self.dofs_of(domain.block, domain.cells), self.num_nodes)
        return self._incidence[key]

    def at_points(self, u: Tensor, domain: Domain, geometry: Geometry, derivatives: int = 1) -> Slots:
        """[u "*b e q (c)", ∇u "*b e q (c) d", ∇∇u …] at the domain's points, up to the given derivative."""
        reference = self.to_points(u[..., None] if self.components is None else u, domain, derivatives)
        slots = push_forward(reference, geometry, derivatives)
        if self.components is None:
            return [slot.squeeze(-2 - k) for k, slot in enumerate(slots)]
        return [slot.transpose(-2 - k, -1 - k) for k, slot in enumerate(slots)]

    def to_points(self, u: Float[Tensor, "*b n c"], domain: Domain, derivatives: int) -> Float[Tensor, "*b e c q s"]:
        """Values and derivatives s in reference coordinates at the domain's points."""
        table = self.table(domain, derivatives)
        local = self.incidence(domain).gather(u).mT  # "*b e c a"
        if len(table) == 1:
            return (local @ table[0].flatten(0, 1).T).unflatten(-1, table.shape[1:3])
        return torch.einsum("...eca,eqsa->...ecqs", local, table)

    def from_points(
        self, values: Float[Tensor, "*b e c q s"], domain: Domain, derivatives: int, magnitude: bool = False
    ) -> Float[Tensor, "*b n c"]:
        """The transpose of `to_points`; `magnitude` adds contributions by absolute value."""
        table = self.table(domain, derivatives)
        if magnitude:
            values, table = values.abs(), table.abs()
        if len(table) == 1:
            local = values.flatten(-2) @ table[0].flatten(0, 1)
        else:
            local = torch.einsum("...ecqs,eqsa->...eca", values, table)
        return self.incidence(domain).sum(local.mT)


class MixedSpace(Space):
    """The product of spaces over one mesh, `MixedSpace(V, Q)`: dofs concatenated, densities get tuples for u and ∇u.

    Raises:
        ValueError: fewer than two spaces, or spaces over different meshes.
    """

    components = None

    def __init__(self, *spaces: FunctionSpace):
        if len(spaces) < 2 or any(space.mesh is not spaces[0].mesh for space in spaces):
            raise ValueError("`MixedSpace` needs two or more spaces over the same mesh object.")
        self.fields = spaces
        self.mesh = spaces[0].mesh
        self.quadrature_degree = max(space.quadrature_degree for space in spaces)
        self.num_dofs = sum(space.num_dofs for space in spaces)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_dofs,)

    @property
    def degree(self) -> int:
        return max(space.degree for space in self.fields)

    def split(self, u: Tensor) -> tuple[Tensor, ...]:
        """The dofs of each field, "*b n" or "*b n c"."""
        parts = u.split([space.num_dofs for space in self.fields], -1)
        return tuple(p.unflatten(-1, space.shape) for p, space in zip(parts, self.fields, strict=True))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([p.flatten(-len(s.shape)) for p, s in zip(parts, self.fields, strict=True)], -1)

    def evaluate(self, u: Tensor, points: Float[Tensor, "m d"], outside: float | None = None) -> tuple[Tensor, ...]:
        """Values of each field, "*b m" or "*b m c", at arbitrary points; see `FunctionSpace.evaluate`."""
        from fem.mesh.location import evaluate_fields

        return evaluate_fields(self, self.check(u), points, outside)

    def domains(self, tag: str | None = None, degree: int | None = None) -> tuple[Domain, ...]:
        return self.fields[0].domains(tag, self.quadrature_degree if degree is None else degree)

    def geometry(self, domain: Domain, derivatives: int = 1) -> Geometry:
        return self.fields[0].geometry(domain, derivatives)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "MixedSpace":
        """The product on another device or in another floating-point type."""
        mesh = self.mesh.to(device, dtype)
        return MixedSpace(*(FunctionSpace(mesh, s.family, s.components, s.quadrature_degree) for s in self.fields))

    def __repr__(self) -> str:
        return f"MixedSpace({', '.join(map(repr, self.fields))})"


AnySpace = FunctionSpace | MixedSpace


def push_forward(reference: Tensor, geometry: Geometry, derivatives: int) -> Slots:
    """Physical values and derivatives from reference ones "*b e c q s".

    ∂u/∂x_d = Σ_r ∂u/∂ξ_r ∂ξ_r/∂x_d,    ∇∇u = J⁻ᵀ (∂²u/∂ξ² − Σ_d ∂u/∂x_d ∂²x_d/∂ξ²) J⁻¹.
    """
    r = geometry.inverse.shape[-2]
    slots = [reference[..., 0]]
    if derivatives == 0:
        return slots
    inverse = geometry.inverse[:, None]
    # A sum over at most three terms: einsum would run one tiny matrix product per point.
    grad = sum_of(reference[..., 1 + k, None] * inverse[..., k, :] for k in range(r))
    slots.append(grad)
    if derivatives == 2:
        assert geometry.second is not None
        hess = reference[..., 1 + r :].unflatten(-1, (r, r))
        hess = hess - torch.einsum(
            "...ecqd,eqdrs->...ecqrs", grad, geometry.second.expand(*grad.shape[-4:-3], -1, -1, -1, -1)
        )
        slots.append(inverse.mT @ hess @ inverse)
    return slots


def sum_of(terms) -> Tensor:
    """The sum of a few tensors, without the copy that starting from 0 would cost."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    assert total is not None
    return total


def num_patch_dofs(mesh: Mesh, elements: Sequence[Element]) -> int:
    """Number of dofs of a basis that brings its own numbering, such as a spline patch with one span per grid cell."""
    element, grid = elements[0], mesh.grid
    if grid is None or tuple(getattr(element, "grid_shape", ())) != tuple(grid):
        raise ValueError(
            f"a spline basis needs one knot span per cell of a grid; got spans {getattr(element, 'grid_shape', None)} "
            f"on a mesh with grid {grid}."
        )
    return element.num_dofs  # type: ignore[attr-defined]
