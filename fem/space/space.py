"""Function spaces: a basis on every cell of a mesh, its dofs numbered, and the quadrature that integrates it.

A function is a tensor of dofs: "*b n" for scalars, "*b n c" for vectors, "*b N" (fields one after another, each
flattened) for mixed spaces. Leading axes are a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.reference.discontinuous import Discontinuous, DiscontinuousElement
from fem.reference.element import Element, ElementFamily
from fem.reference.lagrange import LagrangeElement
from fem.reference.vector_element import VectorElement
from fem.space.cell_dofs import CellDofs, cell_dofs
from fem.space.evaluation import evaluate_fields
from fem.space.field import Function, check_dofs, check_per_cell
from fem.space.interpolation import nodal_values
from fem.space.moments.dofs import Moments
from fem.space.moments.points import MomentPoints
from fem.space.quadrature_points import QuadraturePoints
from fem.space.tagged_dofs import NearestNodes, NumberedNodes, node_coordinates, tagged_dofs
from fem.support.checks import check_integers, check_kind, shown
from fem.support.modes import outside_modes


class Space(ABC):
    """What single spaces and products have in common: dofs of one shape, over one mesh."""

    mesh: Mesh
    _workspace: Any = None  # what solvers leave here for the next solve on this space

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one function's dofs."""

    @property
    def dtype(self) -> torch.dtype:
        """That of the mesh: dofs have it too."""
        return self.mesh.dtype

    @property
    def device(self) -> torch.device:
        """Where the mesh and all dofs are."""
        return self.mesh.device

    def check(self, u: Tensor, name: str = "u") -> Tensor:
        """The dofs, if their shape, type and device fit this space.

        Raises:
            ValueError: the trailing shape is not the space's.
            TypeError: not a tensor of the space's dtype, or on another device.
        """
        return check_dofs(self, u, name)

    def per_cell(self, values: Tensor, shape: Sequence[int] = ()) -> Function:
        """One value for each cell, "*b e *shape", as a parameter of a density: cells in the order of the mesh.

        Args:
            shape: of one value: `(3,)` for vectors, `(2, 2)` for matrices.

        Raises:
            ValueError: another number of cells, or values of another shape.
            TypeError: not a tensor of the space's dtype, or on another device.
        """
        shape = check_per_cell(values, tuple(shape), self.mesh.num_cells)
        components = prod(shape) if shape else None
        if components not in self._per_cell:
            self._per_cell[components] = FunctionSpace(self.mesh, Discontinuous(0), components)
        space = self._per_cell[components]
        flat = values.flatten(values.ndim - len(shape)) if len(shape) > 1 else values
        return Function(space, space.check(flat, "values"), shape if len(shape) > 1 else None)

    @cached_property
    def _patterns(self) -> dict[tuple[int, ...], Any]:
        """See `fem.forms.assembly.pattern_of`."""
        return {}

    @cached_property
    def _per_cell(self) -> "dict[int | None, FunctionSpace]":
        """Spaces of one value per cell, by how many components they have."""
        return {}


class FunctionSpace(Space):
    """Functions that belong to `element` on every cell of `mesh`, as continuous across cells as it says.

    Args:
        mesh: the cells.
        element: `Lagrange(degree)`, or any family whose `on(cell)` gives an element.
        components: None for scalars, c for vectors with c components (dofs "*b n c").
        quadrature_degree: polynomials in reference coordinates up to this degree are integrated exactly; by default
            2p + 1 (bubbles: twice theirs), two at least in space, d (g − 1) more on curved cells of geometry degree g;
            fewer where an integrand on straight simplices is known to be a polynomial of lower degree.

    Attributes:
        elements: the element of each block of the mesh.
        cell_dofs: numbers "e a" of the local nodes of every cell, block by block.
        quadrature: the points where integrals look, and the maps between dofs and values there.
        moments: where dofs are moments of vector fields (`RaviartThomas`, `Nedelec`) what is known of them, else None.
        chosen_degree: the quadrature degree that was asked for.
    """

    moments: Moments | None = None

    def __init__(
        self, mesh: Mesh, element: ElementFamily, components: int | None = None, quadrature_degree: int | None = None
    ):
        check_kind("FunctionSpace", "mesh", mesh, Mesh, "a `Mesh`, such as `unit_square(8)`")
        check_kind("FunctionSpace", "element", element, ElementFamily, "an element, such as `Lagrange(1)`")
        self.family = element
        elements = tuple(element.on(block.cell) for block in mesh.blocks)
        if vectors := [e for e in elements if isinstance(e, VectorElement)]:
            self.moments = m = Moments(mesh, vectors, element, components)
            self._set(mesh, elements, None, m.cell_dofs, quadrature_degree, partial(MomentPoints, m))
            return
        self._set(mesh, elements, components, cell_dofs(mesh, elements), quadrature_degree)

    def _set(
        self,
        mesh: Mesh,
        elements: tuple[Element, ...],
        components: int | None,
        cell_dofs: CellDofs,
        quadrature_degree: int | None,
        points: Callable[..., QuadraturePoints] = QuadraturePoints,
    ) -> None:
        check_integers("FunctionSpace", optional=True, components=components)
        check_integers("FunctionSpace", 0, optional=True, quadrature_degree=quadrature_degree)
        self.mesh, self.elements, self.components, self.cell_dofs = mesh, elements, components, cell_dofs
        self.chosen_degree = quadrature_degree
        if quadrature_degree is None:  # on straight hexahedra |J| is of degree d − 1 in each coordinate
            quadrature_degree = max(2 * self.degree + 1, 2 * self.superdegree, mesh.dim - 1) + mesh.curved_degree
        self.quadrature = points(mesh, elements, components, cell_dofs, quadrature_degree)

    # -- shapes --------------------------------------------------------------------------------------------------------

    @property
    def is_lagrange(self) -> bool:
        """Whether dofs are values at nodes that cells share."""
        return all(isinstance(e, LagrangeElement) for e in self.elements)

    @property
    def is_discontinuous(self) -> bool:
        """Whether dofs are values at nodes of one cell each."""
        return all(isinstance(e, DiscontinuousElement) for e in self.elements)

    @property
    def is_nodal(self) -> bool:
        """Whether dofs are values at nodes, of one cell each or shared."""
        return all(hasattr(e, "nodes") for e in self.elements)

    @property
    def degree(self) -> int:
        """The highest degree p of the polynomials that the elements reproduce."""
        return max(element.degree for element in self.elements)

    @property
    def superdegree(self) -> int:
        """The lowest degree of polynomials among which all functions of the elements are."""
        return max(getattr(element, "superdegree", element.degree) for element in self.elements)

    @property
    def quadrature_degree(self) -> int:
        """Polynomials up to this degree are integrated exactly."""
        return self.quadrature.degree

    @property
    def num_nodes(self) -> int:
        """Number n of basis functions of one component."""
        return self.cell_dofs.count

    @property
    def continuity(self) -> int:
        """How many derivatives are continuous across cells; −1 where not even values are."""
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
    def value_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        components = self.components if self.moments is None else self.mesh.dim
        return () if components is None else (components,)

    @property
    def fields(self) -> "tuple[FunctionSpace, ...]":
        """The spaces that a mixed space is made of; of this one itself."""
        return (self,)

    def split(self, u: Tensor) -> tuple[Tensor, ...]:
        """The dofs of each field."""
        return (u,)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return parts[0]

    # -- numbering -----------------------------------------------------------------------------------------------------

    def dofs(self, tag: str | NearestNodes | NumberedNodes) -> Int[Tensor, "k"]:
        """Nodes of the space on the facets with that tag and at the nodes with that tag, in ascending order.

        A node tag that holds all nodes of a boundary facet holds all dofs of that facet; see `nodes_between`. A tag of
        cells alone means all dofs of these; `at_points` the nearest nodes, in the order of the points.

        Raises:
            ValueError: no such tag, or no dof of this space at any node that has it.
        """
        if self.moments is not None:
            return self.moments.dofs(tag)
        if not self.is_nodal or self.is_discontinuous:
            if isinstance(tag, str):
                self.mesh.facets_tagged(tag)  # the tag exists
            raise ValueError(
                "only spaces whose cells share values at nodes, such as Lagrange, have dofs on facets; impose values "
                f"on {shown(self.family)} weakly, by boundary terms."
            )
        return tagged_dofs(self.mesh, self.elements, self.cell_dofs, tag)

    # -- functions -----------------------------------------------------------------------------------------------------

    def function(self, values: Tensor) -> Function:
        """A field with these dofs, as a parameter of a density."""
        return Function(self, self.check(values, "values"))

    @property
    def dof_coordinates(self) -> Float[Tensor, "n d"]:
        """Where each node's dofs sit, differentiable with respect to `mesh.nodes`."""
        if not self.is_nodal:
            raise ValueError(f"{shown(self.family)} has no nodes; `project(V, lambda x: ...)` finds dofs of it.")
        return node_coordinates(self.mesh, self.elements, self.cell_dofs)

    def trace(self, tag: Any, dofs: Int[Tensor, "k"], value: Callable[[Tensor], Any]) -> Any:
        """Values "*b k" or "*b k c", or a number, of the tag's dofs for the boundary values `value` of x "k d"."""
        return value(node_coordinates(self.mesh, self.elements, self.cell_dofs, dofs))

    @outside_modes
    def interpolate(
        self, value: Callable[[Tensor], Tensor | float] | Function | Tensor | float, outside: float | str | None = None
    ) -> Tensor:
        """Dofs of the function that equals `value` at every node: a number, a callable of x "n d" that gives one, or a
        field `W.function(u)` of any other space, over this mesh or another, differentiably in u and both meshes.
        Of `RaviartThomas` and `Nedelec`: that has the moments of a vector field.

        Args:
            outside: of a field, what it is at nodes outside its mesh; as for `evaluate`.

        Raises:
            ValueError: a node outside the mesh of the field (named); a field that jumps at shared nodes.
        """
        return nodal_values(self, value, outside)

    @outside_modes
    def evaluate(
        self, u: Tensor, points: Float[Tensor, "m d"], outside: float | str | None = None, derivatives: int = 0
    ) -> Any:
        """Values "*b m" or "*b m c" at arbitrary points; for `derivatives=1` also gradients "*b m d" or "*b m c d", of
        `RaviartThomas` functions the divergence, of `Nedelec` ones the curl.

        Differentiable in u, the points and the mesh nodes. Where cells meet, the lowest-numbered one speaks.

        Args:
            outside: a number for points outside the mesh (whose gradients are 0, or NaN for `math.nan`), or "nearest":
                value and gradient at the nearest point of the mesh, found by looking at every facet of the boundary
                once for each such point; on uniform grids for nothing.
            derivatives: 0 or 1. On curves and surfaces in space the gradient is the tangential one.

        Raises:
            ValueError: a point lies outside the mesh (named), unless `outside` says what to do.
        """
        (value,), *grad = evaluate_fields((self,), (self.check(u),), points, outside, derivatives)
        return (value, grad[0][0]) if grad else value

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
        if self.mesh.grid is not None and self.is_discontinuous and self.num_nodes == prod(self.mesh.grid):
            return tuple(self.mesh.grid[::-1])
        if self.mesh.grid is None or not self.is_lagrange:
            raise ValueError(
                "only Lagrange spaces on meshes made as grids (`unit_square`, `box`, …) have a grid form, and "
                "`Discontinuous(0)` there on intervals, quadrilaterals and hexahedra."
            )
        return tuple(self.degree * n + 1 for n in self.mesh.grid[::-1])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "FunctionSpace":
        """The space on another device or in another floating-point type."""
        return self.over(self.mesh.to(device, dtype))

    def over(self, mesh: Mesh) -> "FunctionSpace":
        """The same space over another mesh of the same cells."""
        return FunctionSpace(mesh, self.family, self.components, self.chosen_degree)

    def __repr__(self) -> str:
        kind = "" if self.components is None else f", components={self.components}"
        return f"FunctionSpace({self.family}{kind}; {self.num_dofs} dofs on {self.mesh})"


class MixedSpace(Space):
    """The product of spaces over one mesh, `MixedSpace(V, Q)`: dofs concatenated, densities get tuples for u and ∇u.

    Raises:
        ValueError: fewer than two spaces, or spaces over different meshes.
    """

    components = None

    def __init__(self, *spaces: FunctionSpace):
        for i, space in enumerate(spaces):
            check_kind("MixedSpace", f"space {i}", space, FunctionSpace, "a `FunctionSpace`")
        if len(spaces) < 2 or any(space.mesh is not spaces[0].mesh for space in spaces):
            raise ValueError("`MixedSpace` needs two or more spaces over the same mesh object.")
        self.fields: tuple[FunctionSpace, ...] = spaces
        self.mesh = spaces[0].mesh
        self.quadrature_degree = max(space.quadrature_degree for space in spaces)
        self.num_dofs = sum(space.num_dofs for space in spaces)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one function's dofs: (N,)."""
        return (self.num_dofs,)

    @property
    def degree(self) -> int:
        """The highest degree of the fields."""
        return max(space.degree for space in self.fields)

    @property
    def quadrature(self) -> QuadraturePoints:
        """Those of the field that needs the finest quadrature: it serves all of them."""
        return max(self.fields, key=lambda space: space.quadrature_degree).quadrature

    def split(self, u: Tensor) -> tuple[Tensor, ...]:
        """The dofs of each field, "*b n" or "*b n c"."""
        parts = u.split([space.num_dofs for space in self.fields], -1)
        return tuple(p.unflatten(-1, space.shape) for p, space in zip(parts, self.fields, strict=True))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([p.flatten(-len(s.shape)) for p, s in zip(parts, self.fields, strict=True)], -1)

    @outside_modes
    def evaluate(
        self, u: Tensor, points: Float[Tensor, "m d"], outside: float | str | None = None, derivatives: int = 0
    ) -> tuple[Any, ...]:
        """Values of each field, "*b m" or "*b m c", at arbitrary points; see `FunctionSpace.evaluate`.

        For `derivatives=1` a tuple of the values and a tuple of the gradients, as densities get them.
        """
        found = evaluate_fields(self.fields, self.split(self.check(u)), points, outside, derivatives)
        return found if derivatives else found[0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "MixedSpace":
        """The product on another device or in another floating-point type."""
        mesh = self.mesh.to(device, dtype)
        return MixedSpace(*(space.over(mesh) for space in self.fields))

    def __repr__(self) -> str:
        fields = ", ".join(repr(V).partition("; ")[0] + ")" for V in self.fields)
        return f"MixedSpace({fields}; {self.num_dofs} dofs on {self.mesh})"


AnySpace = FunctionSpace | MixedSpace
