"""Geometry at quadrature points: where they are, how much each counts, and how reference gradients are pushed forward.

A domain is a group of cells, or one local facet of a group of cells, with a quadrature rule; every integral is a sum
over domains. Whatever maps reference cells into space (`Mesh`, later a NURBS patch) gives positions and Jacobians
through `map`; this module turns them into weights |det J| w, inverse Jacobians and facet normals, differentiably.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.jacobian import determinant, inverse, measure
from fem.mesh.mesh import Mesh
from fem.reference.cells import Cell
from fem.reference.quadrature import quadrature


@dataclass(frozen=True, eq=False)
class Domain:
    """Cells of one block (None: all), or their local facet number `facet`, with quadrature in the reference cell."""

    block: int
    cell: Cell
    cells: Int[Tensor, "e"] | None
    points: Float[Tensor, "q r"]
    weights: Float[Tensor, "q"]
    facet: int | None = None


@dataclass(frozen=True, eq=False)
class Geometry:
    """What integrands need at quadrature points; axes e and q have length one where nothing varies along them.

    `inverse` is ∂ξ/∂x (the pseudo-inverse on curves and surfaces in space), `weights` the measure of each point,
    `normal` the outward unit normal on facets, `second` ∂²x/∂ξ² where second derivatives were asked for.
    """

    points: Float[Tensor, "e q d"]
    inverse: Float[Tensor, "#e #q r d"]
    weights: Float[Tensor, "#e q"]
    normal: Float[Tensor, "#e #q d"] | None = None
    second: Float[Tensor, "#e #q d r r"] | None = None


def cell_domains(mesh: Mesh, degree: int) -> tuple[Domain, ...]:
    """All cells, block by block, with a rule exact to `degree`."""
    domains = []
    for i, block in enumerate(mesh.blocks):
        rule = quadrature(block.cell, degree)
        points, weights = (t.to(mesh.device, mesh.dtype) for t in (rule.points, rule.weights))
        domains.append(Domain(i, block.cell, None, points, weights))
    return tuple(domains)


def facet_domains(mesh: Mesh, tag: str, degree: int) -> tuple[Domain, ...]:
    """The facets with that name, grouped by block and local facet, each seen from the first cell that owns it."""
    domains = []
    for i, block in enumerate(mesh.blocks):
        rule = quadrature(block.cell.facet_cell, degree)
        weights = rule.weights.to(mesh.device, mesh.dtype)
        for local, cells in enumerate(facet_cells(mesh, tag, i)):
            if len(cells):
                origin, tangents = block.cell.frame(block.cell.facets[local])
                points = (origin + rule.points @ tangents).to(mesh.device, mesh.dtype)
                domains.append(Domain(i, block.cell, cells, points, weights, local))
    return tuple(domains)


def facet_cells(mesh: Mesh, tag: str, block: int) -> list[Int[Tensor, "_"]]:
    """For each local facet of a block, the cells that own the facets with that name there."""
    count, sides, grid = len(mesh.blocks[block].cell.facets), mesh.sides_tagged(tag), mesh.topology.grid
    if sides is not None and grid is not None:
        return [grid.side_cells(sides, local) for local in range(count)]
    facets, chosen = mesh.topology.facets, mesh.facets_tagged(tag)
    chosen = chosen[facets.block[chosen] == block]
    return [facets.cell[chosen[facets.local[chosen] == local]] for local in range(count)]


def geometry(mesh: Mesh, domain: Domain, derivatives: int = 1) -> Geometry:
    """Geometry of a mesh on a domain, differentiable with respect to `mesh.nodes`.

    Cells: dx = w √det JᵀJ. Facets with reference tangents T: ds = w √det (JT)ᵀ(JT), n ∝ J⁻ᵀ n̂.

    Raises:
        MeshError: a cell is inverted or degenerate.
    """
    positions, jacobian, second = mesh.map(domain.block, domain.cells, domain.points, derivatives)
    scale = measure(jacobian, domain.cell.name, mesh.block_starts[domain.block], domain.cells)
    pushed = inverse(jacobian, scale)
    if domain.facet is None:
        return Geometry(positions, pushed, scale * domain.weights, None, second)
    _, tangents = domain.cell.frame(domain.cell.facets[domain.facet])
    along = jacobian @ tangents.T.to(jacobian)
    area = determinant(along.mT @ along).sqrt()
    normal = domain.cell.facet_normals[domain.facet].to(jacobian) @ pushed
    normal = normal / normal.norm(dim=-1, keepdim=True)
    return Geometry(positions, pushed, area * domain.weights, normal, second)
