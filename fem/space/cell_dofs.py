"""Which dofs belong to which cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.mesh.topology import Topology
from fem.reference.discontinuous import DiscontinuousElement
from fem.reference.element import Element
from fem.reference.lagrange import LagrangeElement
from fem.support.transforms import outside_transforms


@dataclass(frozen=True, eq=False)
class CellDofs:
    """Numbers "e a" below `count` of the local dofs of every cell, one tensor for each block of the mesh.

    They are listed, or follow from a topology and the degree of Lagrange elements: those of a grid are made only for
    the cells that somebody asks for.
    """

    source: Topology | tuple[Int[Tensor, "_ _"], ...]
    count: int
    degree: int = 0

    @cached_property
    @outside_transforms()
    def blocks(self) -> tuple[Int[Tensor, "_ _"], ...]:
        return self.source.lagrange_numbering(self.degree)[0] if isinstance(self.source, Topology) else self.source

    def __iter__(self) -> Iterator[Int[Tensor, "_ _"]]:
        return iter(self.blocks)

    def __getitem__(self, block: int) -> Int[Tensor, "e a"]:
        return self.blocks[block]

    def of(self, block: int, cells: Int[Tensor, "e"] | None) -> Int[Tensor, "e a"]:
        """The rows of some cells of a block, or all."""
        if cells is not None and isinstance(self.source, Topology) and self.source.grid is not None:
            return self.source.grid.cell_nodes(self.degree, cells)
        return self[block] if cells is None else self[block][cells]


def cell_dofs(mesh: Mesh, elements: Sequence[Element]) -> CellDofs:
    """The numbering of Lagrange elements, of those that share no dof (cell by cell), of elements that say how many dofs
    each entity carries (`entity_dofs`), or of a spline patch, which brings its own: one span for each grid cell.

    Raises:
        ValueError: the spans are not the cells of the grid.
    """
    if all(isinstance(e, LagrangeElement) for e in elements):
        degree = max(e.degree for e in elements)
        return CellDofs(mesh.topology, mesh.topology.num_lagrange_nodes(degree), degree)
    if all(isinstance(e, DiscontinuousElement) for e in elements):
        sizes = [block.num_cells * e.num_basis for block, e in zip(mesh.blocks, elements, strict=True)]
        numbers = torch.arange(sum(sizes), device=mesh.device).split(sizes)
        return CellDofs(tuple(n.view(-1, e.num_basis) for n, e in zip(numbers, elements, strict=True)), sum(sizes))
    element, grid = elements[0], mesh.grid
    if hasattr(element, "entity_dofs"):
        counts = {e.entity_dofs: e for e in elements}  # type: ignore[attr-defined]
        if len(counts) > 1:
            raise ValueError(
                f"{' and '.join(map(str, counts.values()))} share no dofs: {' and '.join(map(str, counts))}."
            )
        return CellDofs(*mesh.topology.numbering(element.entity_dofs))  # type: ignore[attr-defined]
    spans = getattr(element, "grid_shape", None)
    if grid is None or tuple(spans or ()) != tuple(grid):
        raise ValueError(
            f"a spline basis needs one knot span per cell of a grid; got spans {spans} on a mesh with grid {grid}. "
            "`BSpline.uniform(mesh.grid, degree)` fits."
        )
    return CellDofs((element.cell_dofs.to(mesh.device),), element.num_dofs)  # type: ignore[attr-defined]
