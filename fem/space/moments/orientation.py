"""Dofs on shared edges and faces, oriented by global numbers of vertices, so that all cells mean the same by them.

An entity is oriented by its vertices in ascending order (a quadrilateral: from the lowest towards the lower of its two
neighbours). Moments in that orientation are combinations g = S ĝ of those in the cell's own, whose basis they test; the
cell's functions are therefore those tabulated times T = S⁻¹.
"""

from collections.abc import Sequence
from itertools import permutations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.reference.vector_element import VectorElement
from fem.space.gather_scatter import GatherScatter

# Ways to count the vertices of an entity, by how many there are.
WAYS = {2: tuple(permutations(range(2))), 3: tuple(permutations(range(3)))}
WAYS[4] = tuple(tuple((k + step * n) % 4 for n in range(4)) for k in range(4) for step in (1, -1))


def orientations(mesh: Mesh, elements: Sequence[VectorElement]) -> tuple[Float[Tensor, "_ _ _"], ...]:
    """T "e a a" of every cell, block by block, of length one where all cells of a block are alike."""
    found = []
    for element, vertices in zip(elements, mesh.topology.cell_vertices, strict=True):
        shared = {e: dofs for e, dofs in element.entity_dofs.items() if len(e) < element.cell.num_vertices}
        codes = torch.stack([way_of(vertices[:, list(entity)]) for entity in shared], 1)
        if bool((codes == codes[:1]).all()):
            codes = codes[:1]
        T = torch.eye(element.num_basis, dtype=mesh.dtype, device=mesh.device).repeat(len(codes), 1, 1)
        for code, (entity, dofs) in zip(codes.T, shared.items(), strict=True):
            rows = torch.tensor(dofs, device=mesh.device)
            T[:, rows[:, None], rows] = turns(element, entity).to(T)[code]
        found.append(T)
    return tuple(found)


def way_of(vertices: Int[Tensor, "e v"]) -> Int[Tensor, "e"]:
    """The way to count the vertices of an entity of each cell that gives the smallest numbers, first ones first."""
    ways = vertices[:, WAYS[vertices.shape[1]]]  # "e w v"
    return (ways[..., 0] * (int(vertices.max()) + 1) + ways[..., 1]).argmin(1)


def turns(element: VectorElement, entity: tuple[int, ...]) -> Float[Tensor, "w k k"]:
    """S⁻¹ for each way to count the vertices of one entity of the reference cell."""
    dofs, found = list(element.entity_dofs[entity]), []
    for way in WAYS[len(entity)]:
        points, weights = element.moments(tuple(entity[k] for k in way), 2 * element.degree)
        found.append(torch.einsum("kqr,qar->ka", weights, element.tabulate(points, 0).value[0, :, dofs]))
    inverse = torch.linalg.inv(torch.stack(found))
    return inverse.round(decimals=12) + 0.0  # whole numbers up to round-off on triangles, signs elsewhere


class OrientedGather(GatherScatter):
    """The local dofs of some cells, as coefficients of the functions that are tabulated: T "#e a a" times dofs."""

    def __init__(self, dofs: Int[Tensor, "e a"], count: int, T: Float[Tensor, "#e a a"]):
        super().__init__(dofs, count)
        self.T = T

    def gather(self, values: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b e a c"]:
        return self.T @ super().gather(values)

    def sum(self, values: Float[Tensor, "*b e a c"], magnitude: bool = False) -> Float[Tensor, "*b n c"]:
        return super().sum((self.T.abs() if magnitude else self.T).mT @ values)
