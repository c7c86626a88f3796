"""Facets that two cells share, seen from both: quadrature points that coincide, and geometry on either side.

The two cells may count the vertices of their facet in any order. Facets of one kind (which local facet of which kind of
cell on either side, and how one order becomes the other) are one group, for which both sides have one set of reference
points each.
"""

from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.geometry import Domain, Geometry, geometry, one_sided
from fem.mesh.mesh import Mesh
from fem.mesh.tags import FacetTag
from fem.reference.lagrange import lagrange_element
from fem.reference.quadrature import quadrature

_numbers = count(1)  # of all groups of a process: no two threads get the same


@dataclass(frozen=True, eq=False)
class FacetPairs(Domain):
    """A group of facets with a cell on either side, as the minus side sees them; all its rows count.

    `block` is a number of its own, below zero, which no block of cells has: where its couplings stand in the pattern of
    a matrix.
    """

    sides: tuple[Domain, ...] = ()


@dataclass(frozen=True, eq=False)
class PairGeometry(Geometry):
    """Points, measure and normal of facets as the minus side has them, and what pushes gradients forward on the other.

    `size` "f 1" is the diameter of a facet; in one dimension, where facets are points, the mean length of both cells.
    """

    other: Float[Tensor, "#e #q r d"] | None = None
    other_second: Float[Tensor, "#e #q d r r"] | None = None
    size: Float[Tensor, "e 1"] | None = None

    def seen_from(self, side: int) -> Geometry:
        """What one side needs: 0 is minus, 1 is plus."""
        inverse, second = ((self.inverse, self.second), (self.other, self.other_second))[side]
        assert inverse is not None
        return Geometry(self.points, inverse, self.weights, self.normal, second)


def facet_pairs(mesh: Mesh, tag: FacetTag, degree: int) -> tuple[FacetPairs, ...]:
    """The facets inside the domain with that name, "" all of them, with a rule exact to `degree`.

    Minus is the cell with the lower number, or with a pair (facet tag, cell tag) the one with that cell tag.

    Raises:
        ValueError: no such facets, tagged ones on the boundary, or such that more than two cells share.
    """
    if tag == "" and mesh.topology.hanging is not None:
        raise ValueError(
            "`interior` terms on all facets would leave out those where nodes hang, whose cells are not one to one; "
            "name others by a tag."
        )
    number, owners = mesh.topology.facets_of_cells()
    chosen = torch.zeros(len(mesh.topology.facets.num_cells), dtype=torch.bool, device=mesh.device)
    chosen[slice(None) if tag == "" else mesh.facets_tagged(tag)] = True
    owned = mesh.topology.facets.num_cells
    inside, where = chosen & (owned == 2), "" if tag == "" else f" with the tag {tag!r}"
    if bool((chosen & (owned > 2)).any()):
        raise ValueError(
            f"{int((chosen & (owned > 2)).sum())} facets{where} have more than two cells, where a surface branches: "
            "which two are meant is not known. Name others by a tag."
        )
    if not bool(inside.any()):
        raise ValueError(f"no facet{where} lies inside the domain between two cells; boundary facets have one side.")
    if tag != "" and not torch.equal(inside, chosen):
        raise ValueError(
            f"{int((chosen & ~inside).sum())} of {int(chosen.sum())} facets{where} lie on the boundary and have one "
            "side; integrate over them by `boundary=`, under a tag of their own."
        )
    chosen = inside
    number, order = number.sort(stable=True)
    pairs = owners[:, order[chosen[number]]].unflatten(1, (-1, 2))  # "3 f 2": block, cell, local facet; first the lower
    if isinstance(tag, tuple):
        first = one_sided(mesh, *tag)
        keys = lambda o: (o[0] * mesh.num_cells + o[1]) * 8 + o[2]  # noqa: E731
        swapped = ~torch.isin(keys(pairs[:, :, 0]), keys(first))
        pairs = torch.where(swapped[:, None], pairs.flip(2), pairs)
    vertices = vertices_of(mesh, pairs)
    turn = (vertices[:, 0, :, None] == vertices[:, 1, None, :]).long().argmax(2)  # where the plus side has each
    width = vertices.shape[2]
    kind = torch.cat([pairs[0], pairs[2], turn], 1)  # "f 4+v"
    kinds, number_of_kind = torch.unique(kind, dim=0, return_inverse=True)
    found = []
    for k, row in enumerate(kinds.tolist()):
        cells = pairs[1, number_of_kind == k]
        blocks, locals_, order = row[:2], row[2:4], row[4 : 4 + width]
        shape = mesh.blocks[blocks[0]].cell.facet_cell
        rule, sides = quadrature(shape, degree), []
        for side, (block, local) in enumerate(zip(blocks, locals_, strict=True)):
            cell = mesh.blocks[block].cell
            corners = torch.tensor([cell.vertices[v] for v in cell.facets[local]], dtype=torch.float64, device="cpu")
            corners = corners.reshape(-1, cell.dim)
            if side:
                corners = corners[order[: len(corners)]]
            shares = rule.points.new_ones(1, 1)  # of the corners, of a facet that is a point
            if shape.dim:
                shares = lagrange_element(shape, 1).tabulate(rule.points, 0).value[0]
            points = (shares @ corners).to(mesh.device, mesh.dtype)
            sides.append(Domain(block, cell, cells[:, side], points, rule.weights.to(mesh.device, mesh.dtype), local))
        first = sides[0]
        group = FacetPairs(-next(_numbers), first.cell, None, first.points, first.weights, first.facet, tuple(sides))
        found.append(group)
    return tuple(found)


def vertices_of(mesh: Mesh, pairs: Int[Tensor, "3 f 2"]) -> Int[Tensor, "f 2 v"]:
    """The vertices of each facet as its cell on either side counts them, padded with −1."""
    width = max(len(f) for block in mesh.blocks for f in block.cell.facets)
    found = torch.full((*pairs.shape[1:], width), -1, dtype=torch.int64, device=pairs.device)
    for i, (block, numbers) in enumerate(zip(mesh.blocks, mesh.topology.cell_vertices, strict=True)):
        for local, facet in enumerate(block.cell.facets):
            own = (pairs[0] == i) & (pairs[2] == local)
            found[..., : len(facet)][own] = numbers[pairs[1][own]][:, list(facet)]
    return found


def geometry_on(mesh: Mesh, domain: Domain, derivatives: int = 1) -> Geometry:
    """Geometry on cells, on facets seen from one side, or on those seen from both."""
    return (pair_geometry if isinstance(domain, FacetPairs) else geometry)(mesh, domain, derivatives)  # type: ignore[arg-type]


def pair_geometry(mesh: Mesh, pairs: FacetPairs, derivatives: int = 1) -> PairGeometry:
    """Geometry on both sides of facets, differentiable with respect to `mesh.nodes`."""
    minus, plus = (geometry(mesh, side, derivatives) for side in pairs.sides)
    lengths = []
    for side in pairs.sides:
        block = mesh.blocks[side.block]
        assert side.cells is not None
        local = list(range(2)) if block.cell.dim == 1 else list(block.cell.facets[side.facet or 0])
        corners = mesh.nodes[block.nodes_of(side.cells)[:, local]]
        lengths.append((corners[:, :, None] - corners[:, None]).square().sum(-1).flatten(1).amax(1).sqrt())
    size = 0.5 * (lengths[0] + lengths[1]) if mesh.dim == 1 else lengths[0]
    return PairGeometry(**vars(minus), other=plus.inverse, other_second=plus.second, size=size[:, None])
