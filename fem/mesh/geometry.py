"""Geometry at quadrature points: where they are, how much each counts, and how reference gradients are pushed forward.

A domain is a group of cells, or one local facet of a group of cells, with a quadrature rule; every integral is a sum
over domains. Whatever maps reference cells into space (`Mesh`, later a NURBS patch) gives positions and Jacobians
through `map`; this module turns them into weights |det J| w, inverse Jacobians and facet normals, differentiably.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.jacobian import determinant, inverse, measure
from fem.mesh.mesh import Mesh
from fem.mesh.tags import FacetTag
from fem.reference.cells import Cell
from fem.reference.quadrature import quadrature
from fem.support.checks import did_you_mean


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


def facet_domains(mesh: Mesh, tag: FacetTag, degree: int) -> tuple[Domain, ...]:
    """The facets with that name, grouped by block and local facet, each seen from one cell: see `facet_cells`."""
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


def facet_cells(mesh: Mesh, tag: FacetTag, block: int) -> list[Int[Tensor, "_"]]:
    """For each local facet of a block, the cells there that facets with that name are seen from.

    Of two that share a facet it is the first, or with a pair (facet tag, cell tag) the one with that cell tag.
    """
    count, grid = len(mesh.blocks[block].cell.facets), mesh.topology.grid
    if isinstance(tag, str):
        sides = mesh.sides_tagged(tag)
        if sides is not None and grid is not None:
            return [grid.side_cells(sides, local) for local in range(count)]
        facets, chosen = mesh.topology.facets, mesh.facets_tagged(tag)
        owners = torch.stack([facets.block[chosen], facets.cell[chosen], facets.local[chosen]])
    else:
        owners = one_sided(mesh, *tag)
    _, cell, local = owners[:, owners[0] == block]
    return [cell[local == k] for k in range(count)]


def one_sided(mesh: Mesh, tag: str, side: str) -> Int[Tensor, "3 f"]:
    """(block, cell, local facet) of the facets with one name, each seen from its cell with the other.

    Raises:
        ValueError: no such tags, or a facet both or neither of whose cells have that cell tag.
    """
    chosen = mesh.facets_tagged(tag)
    if side not in mesh.cell_tags:
        known, meant = ", ".join(map(repr, mesh.cell_tags)) or "none", did_you_mean(side, mesh.cell_tags)
        raise ValueError(f"{(tag, side)!r}: unknown cell tag {side!r}; this mesh has {known}.{meant}")
    number, owner = mesh.topology.facets_of_cells()
    starts = torch.tensor(mesh.block_starts, device=mesh.device)
    seen = torch.isin(starts[owner[0]] + owner[1], mesh.cell_tags[side])
    count = torch.bincount(number[seen], minlength=len(mesh.topology.facets.num_cells))[chosen]
    if bool((count != 1).any()):
        wrong = chosen[count != 1]
        both = "more than one" if int(count[count != 1][0]) else "none"
        x = mesh.nodes[[n for n in mesh.facets[wrong[0]].tolist() if n >= 0]].mean(0).tolist()
        raise ValueError(
            f"{(tag, side)!r}: exactly one of the cells at each facet must have the cell tag {side!r}; at {len(wrong)} "
            f"of {len(chosen)} facets {both} has it (the first is at x = {x}). Name the cells of one side."
        )
    return owner[:, seen & torch.isin(number, chosen)]


def check_side(mesh: Mesh, tag: FacetTag) -> None:
    """Raise where facets have two sides, and so two normals and two gradients, and the tag says not which is meant.

    Raises:
        ValueError: with the remedy, or unknown tags.
    """
    if not isinstance(tag, str) or mesh.sides_tagged(tag) is not None:
        return
    inside = int((mesh.topology.facets.num_cells[mesh.facets_tagged(tag)] > 1).sum())
    if inside:
        known = ", ".join(map(repr, mesh.cell_tags)) or "none yet: `mesh.with_tags(cell_tags=...)`"
        example = next(iter(mesh.cell_tags), "steel")
        raise ValueError(
            f"{inside} facets of {tag!r} lie inside the domain, where the normal points one way or the other and "
            f"gradients have two values: say from which cells they are seen, as in `({tag!r}, {example!r})`, with a "
            f"cell tag that one of the two cells has. Cell tags of this mesh: {known}."
        )


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
