"""Elements whose dofs are values at nodes, other than Lagrange's: Crouzeix–Raviart, MINI, serendipity.

Each is a span of functions ψ_k, given by their values S_ka at the nodes of a Lagrange basis L_a that holds them,
and its own nodes x_j. The functions that are one at their own node and zero at the others are

    φ_i = Σ_a C_ia L_a,    C = V⁻¹ S,    V_kj = ψ_k(x_j) = Σ_a S_ka L_a(x_j).
"""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell
from fem.reference.element import Element, Tabulation
from fem.reference.lagrange import LagrangeElement, lagrange_element, nodes_on_facets
from fem.support.checks import refuse
from fem.support.transforms import outside_transforms


@dataclass(frozen=True)
class CrouzeixRaviart:
    """Linear on triangles and tetrahedra, with a value at the centre of each facet: continuous there, not elsewhere.

    With `Discontinuous(0)` for the pressure a stable pair for incompressible flow whose velocity is free of divergence
    on every cell; gradients in its energies are those within cells. Crouzeix and Raviart, Conforming and nonconforming
    finite element methods for solving the stationary Stokes equations (1973).
    """

    def on(self, cell: Cell) -> Element:
        if not cell.is_simplex or cell.dim < 2:
            raise ValueError(
                f"`CrouzeixRaviart()` is for triangles and tetrahedra; got {cell.name}s. `Discontinuous(1)` with terms "
                "on facets serves all cells."
            )
        return crouzeix_raviart(cell)


@dataclass(frozen=True)
class Mini:
    """`Lagrange(1)` and a bubble on each triangle or tetrahedron, which vanishes on the facets: MINI's velocity.

    The dofs are the values at vertices and at centres of cells. With `Lagrange(1)` for the pressure a stable pair for
    incompressible flow. Arnold, Brezzi and Fortin, A stable finite element for the Stokes equations (1984). (On
    quadrilaterals a single bubble does not make the pair stable.)
    """

    def on(self, cell: Cell) -> Element:
        if not cell.is_simplex or cell.dim < 2:
            raise ValueError(
                f"`Mini()` is for triangles and tetrahedra; got {cell.name}s. For incompressible flow `Lagrange(2)` "
                "with `Lagrange(1)` serves all cells."
            )
        return mini(cell)


@dataclass(frozen=True)
class Serendipity:
    """Quadrilaterals with 8 and hexahedra with 20 nodes: `Lagrange(2)` without those inside faces and cells.

    Polynomials with one variable squared at most. On intervals, triangles and tetrahedra it is `Lagrange(2)`. Cells
    that are no parallelograms lose an order, which `Lagrange(2)` does not (Arnold, Boffi and Falk, Approximation by
    quadrilateral finite elements, 2002).

    Raises:
        ValueError: another degree than 2.
    """

    degree: int = 2

    def __post_init__(self):
        if self.degree != 2 or isinstance(self.degree, bool):
            refuse("Serendipity", "degree", "2", self.degree)

    def on(self, cell: Cell) -> Element:
        return lagrange_element(cell, 2) if cell.is_simplex else serendipity(cell)


@dataclass(frozen=True, eq=False)
class NodalElement:
    """φ_i of the module's formula: `span` S "k a" over the Lagrange basis `base`, own `nodes` x_j "j r".

    `entity_dofs` says how many nodes are on each vertex, edge, face and inside the cell, `degree` which polynomials the
    functions reproduce, `superdegree` which ones hold them.
    """

    name: str
    base: LagrangeElement
    degree: int
    entity_dofs: tuple[int, ...]
    nodes: Float[Tensor, "j r"]
    span: Float[Tensor, "k a"]
    continuity: int = 0

    @property
    def cell(self) -> Cell:
        return self.base.cell

    @property
    def superdegree(self) -> int:
        return self.base.degree

    @property
    def num_basis(self) -> int:
        return len(self.nodes)

    @cached_property
    @outside_transforms()
    def facet_nodes(self) -> tuple[tuple[int, ...], ...]:
        """Local nodes on the closure of each facet."""
        return nodes_on_facets(self.cell, self.nodes)

    @cached_property
    @outside_transforms()
    def combination(self) -> Float[Tensor, "i a"]:
        """C."""
        return torch.linalg.solve(self.span @ self.base.tabulate(self.nodes, 0).value[0].T, self.span)

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> Tabulation:
        """Basis functions and derivatives up to order 0, 1 or 2 at reference points; `dtype` and device follow them."""
        table, C = self.base.tabulate(points, derivatives), self.combination.to(points)
        parts = (part for part in (table.value, table.grad, table.hess) if part is not None)
        return Tabulation(*(torch.einsum("ia,eqa...->eqi...", C, part) for part in parts))

    def __repr__(self) -> str:
        return f"{self.name} on {self.cell.name}s"


@cache
@outside_transforms()
def crouzeix_raviart(cell: Cell) -> NodalElement:
    """All linear functions; a node on each facet."""
    base = lagrange_element(cell, 1)
    centres = torch.stack([base.nodes[list(facet)].mean(0) for facet in cell.facets])
    per_entity = tuple(int(dim == cell.dim - 1) for dim in range(cell.dim + 1))
    return NodalElement("CrouzeixRaviart", base, 1, per_entity, centres, identity(base), -1)


@cache
@outside_transforms()
def mini(cell: Cell) -> NodalElement:
    """Linear functions λ_i and the bubble Π λ_i, up to a factor the Lagrange function of degree d + 1 at the centre."""
    base, linear = lagrange_element(cell, cell.dim + 1), lagrange_element(cell, 1)
    span = torch.cat([linear.tabulate(base.nodes, 0).value[0].T, identity(base)[-1:]])
    per_entity = (1, *[0] * (cell.dim - 1), 1)
    return NodalElement("Mini", base, 1, per_entity, torch.cat([linear.nodes, base.nodes[-1:]]), span)


@cache
@outside_transforms()
def serendipity(cell: Cell) -> NodalElement:
    """Monomials that square one variable at most; nodes at vertices and midpoints of edges."""
    base = lagrange_element(cell, 2)
    powers = torch.tensor([p for p in product(range(3), repeat=cell.dim) if p.count(2) <= 1], device="cpu")
    span = (base.nodes[:, None] ** powers).prod(-1).T
    per_entity = (1, 1, *[0] * (cell.dim - 1))
    return NodalElement("Serendipity", base, 2, per_entity, base.nodes[: len(powers)], span)


def identity(base: LagrangeElement) -> Float[Tensor, "a a"]:
    """The span that is all of a basis."""
    return torch.eye(base.num_basis, dtype=torch.float64, device="cpu")
