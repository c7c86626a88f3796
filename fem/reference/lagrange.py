"""Lagrange elements of degree 1 to 3 on every reference cell, with equispaced nodes.

A cell is a product of simplices, so one formula serves all of them: with the barycentric coordinates λ of each factor
and a node given by its multi-index α (Σ α = p in each factor),

    φ_α(ξ) = Π_i f_{α_i}(λ_i),    f_m(λ) = Π_{j<m} (p λ − j) / (j + 1).

Nodes are numbered as VTK numbers them: vertices, then the interior of each edge along its direction, then of each face
(first axis fastest), then of the cell. The same basis describes curved geometry.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from fem.reference.cells import Cell, entity_cell
from fem.reference.element import Tabulation
from fem.support.checks import is_integer, refuse
from fem.support.transforms import outside_transforms


@dataclass(frozen=True)
class Lagrange:
    """Continuous piecewise polynomials of the given degree, 1 to 3.

    On simplices all polynomials of total degree p, on quadrilaterals and hexahedra those of degree p in each variable.

    Raises:
        ValueError: the degree is not 1, 2 or 3.
    """

    degree: int

    def __post_init__(self):
        if not is_integer(self.degree, 1) or self.degree > 3:
            refuse("Lagrange", "degree", "1, 2 or 3", self.degree)

    def on(self, cell: Cell) -> "LagrangeElement":
        return lagrange_element(cell, int(self.degree))


@dataclass(frozen=True)
class LagrangeElement:
    """The Lagrange basis of one degree on one reference cell."""

    cell: Cell
    degree: int

    @cached_property
    @outside_transforms()
    def entity_nodes(self) -> dict[int, tuple[tuple[int, ...], ...]]:
        """Local nodes in the interior of each vertex (key 0), edge (1), face (2) and cell (3), entity by entity."""
        numbers: dict[int, tuple[tuple[int, ...], ...]] = {}
        start = 0
        for dim in range(self.cell.dim + 1):
            count = interior_nodes(entity_cell_of(self.cell, dim), self.degree).shape[0]
            entities = sub_entities(self.cell, dim)
            numbers[dim] = tuple(tuple(range(start + i * count, start + (i + 1) * count)) for i in range(len(entities)))
            start += count * len(entities)
        return numbers

    @cached_property
    @outside_transforms()
    def nodes(self) -> Float[Tensor, "a r"]:
        """Reference coordinates of the nodes."""
        coordinates = []
        for dim in range(self.cell.dim + 1):
            inner = interior_nodes(entity_cell_of(self.cell, dim), self.degree)
            for entity in sub_entities(self.cell, dim):
                origin, tangents = self.cell.frame(entity)
                coordinates.append(origin + inner @ tangents)
        return torch.cat(coordinates)

    @cached_property
    @outside_transforms()
    def facet_nodes(self) -> tuple[tuple[int, ...], ...]:
        """Local nodes on the closure of each facet: its own and those of its edges and vertices."""
        return nodes_on_facets(self.cell, self.nodes)

    @property
    def entity_dofs(self) -> tuple[int, ...]:
        """How many nodes are on each vertex, edge, face and inside the cell."""
        return tuple(len(nodes[0]) for nodes in self.entity_nodes.values())

    @property
    def num_basis(self) -> int:
        return self.nodes.shape[0]

    @cached_property
    @outside_transforms()
    def _multi_indices(self) -> Tensor:
        """Multi-indices "a i" of the nodes: p times their barycentric coordinates, factor after factor."""
        matrix, offset = barycentric_map(self.cell)
        return torch.round(self.degree * (self.nodes @ matrix.T + offset)).long()

    def tabulate(self, points: Float[Tensor, "q r"], derivatives: int = 1) -> Tabulation:
        """Basis functions and derivatives up to order 0, 1 or 2 at reference points; `dtype` and device follow them."""
        matrix, offset = (t.to(points) for t in barycentric_map(self.cell))
        coordinates = points @ matrix.T + offset
        factors = [one_dimensional(coordinates, self.degree, order) for order in range(derivatives + 1)]
        alpha = self._multi_indices.to(points.device)
        index = torch.arange(alpha.shape[1], device=points.device)
        picked = [f[:, index, alpha] for f in factors]  # each "q a i": the factor of barycentric i in node a
        value = product_of(picked, [])[None]
        if derivatives == 0:
            return Tabulation(value)
        axes = range(len(index))
        grad = torch.stack([product_of(picked, [i]) for i in axes], -1) @ matrix
        if derivatives == 1:
            return Tabulation(value, grad[None])
        rows = [torch.stack([product_of(picked, [i, j]) for j in axes], -1) for i in axes]
        hess = torch.einsum("qaij,ir,js->qars", torch.stack(rows, -2), matrix, matrix)
        return Tabulation(value, grad[None], hess[None])


def nodes_on_facets(cell: Cell, nodes: Float[Tensor, "a r"]) -> tuple[tuple[int, ...], ...]:
    """Which of some reference points are on the closure of each facet."""
    origins_normals = [(cell.frame(f)[0], n) for f, n in zip(cell.facets, cell.facet_normals, strict=True)]
    return tuple(
        tuple(torch.nonzero(((nodes - origin) @ normal).abs() < 1e-9).flatten().tolist())
        for origin, normal in origins_normals
    )


def product_of(picked: list[Tensor], derived: list[int]) -> Float[Tensor, "q a"]:
    """Π_i of the factors "q a i", each differentiated as often as its axis stands in `derived`."""
    axes = range(picked[0].shape[-1])
    return torch.stack([picked[derived.count(i)][..., i] for i in axes]).prod(0)


@cache
@outside_transforms()
def lagrange_element(cell: Cell, degree: int) -> LagrangeElement:
    """The shared element instance (its tables are computed once)."""
    return LagrangeElement(cell, degree)


def sub_entities(cell: Cell, dim: int) -> tuple[tuple[int, ...], ...]:
    """Vertex tuples of the vertices, edges, faces or the cell itself."""
    if dim == cell.dim:
        return (tuple(range(cell.num_vertices)),)
    return (tuple((i,) for i in range(cell.num_vertices)), cell.edges, cell.faces)[dim]


def entity_cell_of(cell: Cell, dim: int) -> Cell:
    """The reference cell of the sub-entities of one dimension."""
    return cell if dim == cell.dim else entity_cell(len(sub_entities(cell, dim)[0]))


@cache
@outside_transforms()
def interior_nodes(cell: Cell, degree: int) -> Float[Tensor, "a r"]:
    """Equispaced nodes strictly inside a reference cell, first axis fastest."""
    indices = [index[::-1] for index in product(range(1, degree), repeat=cell.dim)]
    points = torch.tensor(indices, dtype=torch.float64, device="cpu").reshape(len(indices), cell.dim) / degree
    if cell.is_simplex:
        points = points[points.sum(1) < 1 - 1e-9]
    return points


@cache
@outside_transforms()
def barycentric_map(cell: Cell) -> tuple[Float[Tensor, "i r"], Float[Tensor, "i"]]:
    """Matrix and offset of λ = M ξ + c: for each factor first 1 − Σ ξ, then the ξ themselves."""
    blocks = [torch.cat([-torch.ones(1, k, device="cpu"), torch.eye(k, device="cpu")]) for k in cell.factors]
    offsets = [torch.eye(k + 1, device="cpu")[0] for k in cell.factors]
    return torch.block_diag(*blocks).double(), torch.cat(offsets).double()


def one_dimensional(coordinates: Float[Tensor, "q i"], degree: int, order: int) -> Float[Tensor, "q i m"]:
    """The derivative of the given order of f_m(λ) for m = 0 … p."""
    families = [[torch.ones_like(coordinates)], [torch.zeros_like(coordinates)], [torch.zeros_like(coordinates)]]
    for j in range(degree):
        line, slope = (degree * coordinates - j) / (j + 1), degree / (j + 1)
        f, df, ddf = (family[-1] for family in families)
        families[0].append(f * line)
        families[1].append(df * line + f * slope)
        families[2].append(ddf * line + 2 * df * slope)
    return torch.stack(families[order], -1)
