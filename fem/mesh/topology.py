"""Who touches whom: vertices, edges, faces and facets of a mesh, numbered once and shared by all that needs them.

A topology knows connectivity alone, so meshes that differ only in their node coordinates (the steps of a shape
optimisation) share one, together with every dof numbering made on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fem.mesh.grid import Grid, Side, places
from fem.reference.cells import Cell, quadrilateral
from fem.reference.lagrange import LagrangeElement, entity_cell_of, interior_nodes, lagrange_element, sub_entities
from fem.support.portions import at_a_time
from fem.support.transforms import outside_transforms

Links = dict[tuple[str, str], Int[Tensor, "m 2"]]


@dataclass(frozen=True, eq=False)
class Block:
    """Cells of one kind: their geometry degree and their nodes in VTK order, given or told by a grid."""

    cell: Cell
    degree: int
    source: Int[Tensor, "e v"] | Grid

    @property
    def grid(self) -> Grid | None:
        return self.source if isinstance(self.source, Grid) else None

    @property
    def num_cells(self) -> int:
        return self.source.num_cells if isinstance(self.source, Grid) else self.source.shape[0]

    @cached_property
    @outside_transforms()
    def connectivity(self) -> Int[Tensor, "e v"]:
        return self.source.cell_nodes(self.degree) if isinstance(self.source, Grid) else self.source

    def nodes_of(self, cells: Int[Tensor, "m"]) -> Int[Tensor, "m v"]:
        """The nodes of some cells."""
        return self.connectivity[cells] if self.grid is None else self.grid.cell_nodes(self.degree, cells)

    def portions(self) -> Iterator[Int[Tensor, "e"]]:
        """The cells, so many at a time that what is made of them stays small beside the mesh itself."""
        cells = torch.arange(self.num_cells, device=self.source.device)
        step = at_a_time(64, cells, roomy=True)  # numbers of the geometry of a cell, roughly
        for start in range(0, len(cells), step):
            yield cells[start : start + step]

    def to(self, device: torch.device) -> "Block":
        """The same cells on another device."""
        return Block(self.cell, self.degree, self.source.to(device))

    @property
    def element(self) -> LagrangeElement:
        """The element that maps the reference cell to each cell."""
        return lagrange_element(self.cell, self.degree)


@dataclass(frozen=True, eq=False)
class Entities:
    """All entities of one kind: their vertices "n v" and, block by block, each cell's own numbers "e k"."""

    vertices: Int[Tensor, "n v"]
    of_cells: tuple[Int[Tensor, "_ _"], ...]


@dataclass(frozen=True, eq=False)
class Facets:
    """Codimension-1 entities: vertices (padded with −1), the first cell that owns each, and how many cells share it."""

    vertices: Int[Tensor, "f v"]
    block: Int[Tensor, "f"]
    cell: Int[Tensor, "f"]
    local: Int[Tensor, "f"]
    num_cells: Int[Tensor, "f"]


class Topology:
    """Connectivity of blocks of cells; what is asked of it is made once, and for grids by arithmetic where possible.

    `hanging` says on which facets nodes hang, where that is meant (`fem.mesh.hanging`); `links` which facet tags a file
    says are periodic, {(tag, other): pairs "m 2" of their mesh nodes}; `history` what the cells are pieces of
    (`fem.mesh.refinement`), where `identity` tells that cells are numbered alike.
    """

    def __init__(self, blocks: Sequence[Block], num_nodes: int, hanging: Any = None, links: Links | None = None):
        self.blocks, self.num_nodes, self.hanging, self.links = tuple(blocks), num_nodes, hanging, links or {}
        self.history: Any = None
        self.identity = object()
        self._numberings: dict[int, tuple[tuple[Tensor, ...], int]] = {}
        self._owners: dict[int, Tensor] = {}
        self._sides: dict[Side, Tensor] = {}

    def to(self, device: torch.device) -> "Topology":
        """The same on another device."""
        hanging = self.hanging and self.hanging.to(device)
        links = {sides: pairs.to(device) for sides, pairs in self.links.items()}
        moved = Topology([block.to(device) for block in self.blocks], self.num_nodes, hanging, links)
        return moved.continuing(self.identity, self.history and self.history.to(device))

    def curved(self, blocks: Sequence[Block], num_nodes: int) -> "Topology":
        """The same cells with nodes of another degree, which have other numbers."""
        links = {sides: pairs[:0] for sides, pairs in self.links.items()}
        return Topology(blocks, num_nodes, self.hanging, links).continuing(self.identity, self.history)

    def continuing(self, identity: object, history: Any) -> "Topology":
        """This one, known as one whose cells have the same numbers, or as pieces of others."""
        self.identity, self.history = identity, history
        return self

    def hang(self, hanging: Any) -> None:
        """Take note of where nodes hang, found when the boundary is known."""
        self.hanging = hanging
        vars(self).pop("boundary", None)

    @property
    def dim(self) -> int:
        return self.blocks[0].cell.dim

    @property
    def device(self) -> torch.device:
        return self.blocks[0].source.device

    @property
    def grid(self) -> Grid | None:
        """What tells all numbers of a mesh made as a grid."""
        return self.blocks[0].grid

    @property
    def num_cells(self) -> int:
        return sum(block.num_cells for block in self.blocks)

    @cached_property
    def block_starts(self) -> list[int]:
        """Number of the first cell of each block, and of all cells: they are numbered block after block."""
        return [0, *accumulate(block.num_cells for block in self.blocks)]

    @cached_property
    @outside_transforms()
    def vertex_nodes(self) -> Int[Tensor, "n"]:
        """Mesh node of each vertex."""
        if self.grid is not None:
            return self.grid.vertex_nodes(self.blocks[0].degree)
        used = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.device)
        for block in self.blocks:
            used[block.connectivity[:, : block.cell.num_vertices]] = True
        return torch.nonzero(used).flatten()

    @cached_property
    @outside_transforms()
    def cell_vertices(self) -> tuple[Int[Tensor, "_ _"], ...]:
        """Vertex numbers "e v" of each cell, block by block."""
        if self.grid is not None:
            return self.lagrange_numbering(1)[0]
        number = torch.full((self.num_nodes,), -1, dtype=torch.int64, device=self.device)
        number[self.vertex_nodes] = torch.arange(len(self.vertex_nodes), device=self.device)
        return tuple(number[block.connectivity[:, : block.cell.num_vertices]] for block in self.blocks)

    def entities(self, kind: Cell) -> Entities:
        """Vertices, edges, triangular or quadrilateral faces, or the cells themselves, each numbered once."""
        if kind.name not in self._entities:
            rows, shapes = [], []
            for block, vertices in zip(self.blocks, self.cell_vertices, strict=True):
                own = entity_cell_of(block.cell, kind.dim) is kind
                local = sub_entities(block.cell, kind.dim) if own else ()
                index = torch.tensor(local, dtype=torch.int64, device=self.device)
                index = index.reshape(len(local), kind.num_vertices)  # kept where this kind of cell has none
                rows.append(vertices[:, index].reshape(block.num_cells * len(local), kind.num_vertices))
                shapes.append((block.num_cells, len(local)))
            stacked = torch.cat(rows)
            number = first = torch.arange(len(stacked), device=self.device)
            if kind.dim < self.dim:
                number, first = unique_rows(stacked.sort(1).values)
            parts = number.split([e * k for e, k in shapes])
            of_cells = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
            self._entities[kind.name] = Entities(stacked[first], of_cells)
        return self._entities[kind.name]

    @cached_property
    @outside_transforms()
    def _entities(self) -> dict[str, Entities]:
        return {}

    @property
    def facet_kinds(self) -> list[Cell]:
        """The kinds of cells that facets are, triangles before quadrilaterals."""
        kinds = {b.cell.facet_cell.name: b.cell.facet_cell for b in self.blocks}
        return sorted(kinds.values(), key=lambda kind: kind.num_vertices)

    @cached_property
    @outside_transforms()
    def facets(self) -> Facets:
        """All facets, triangles before quadrilaterals where both occur."""
        vertices = [self.entities(kind).vertices for kind in self.facet_kinds]
        width = vertices[-1].shape[1]
        padded = [torch.nn.functional.pad(v, (0, width - v.shape[1]), value=-1) for v in vertices]
        number, owner = self.facets_of_cells()
        count = sum(map(len, vertices))
        block, cell, local = owner[:, first_positions(number, count)]
        return Facets(torch.cat(padded), block, cell, local, torch.bincount(number, minlength=count))

    def facets_of_cells(self) -> tuple[Int[Tensor, "m"], Int[Tensor, "3 m"]]:
        """Every facet of every cell: its number, and the (block, cell, local facet) that it is; shared ones twice."""
        numbers, owners, start = [], [], 0
        for kind in self.facet_kinds:
            entities = self.entities(kind)
            for i, (block, number) in enumerate(zip(self.blocks, entities.of_cells, strict=True)):
                if block.cell.facet_cell is kind:
                    numbers.append(number.flatten() + start)
                    cell = torch.arange(number.shape[0], device=self.device).repeat_interleave(number.shape[1])
                    local = torch.arange(number.shape[1], device=self.device).repeat(number.shape[0])
                    owners.append(torch.stack([torch.full_like(cell, i), cell, local]))
            start += len(entities.vertices)
        return torch.cat(numbers), torch.cat(owners, 1)

    @property
    def facet_nodes(self) -> Int[Tensor, "f v"]:
        """Mesh nodes at the vertices of every facet, padded with −1."""
        vertices = self.facets.vertices
        return torch.where(vertices < 0, vertices, self.vertex_nodes[vertices])

    @cached_property
    @outside_transforms()
    def boundary(self) -> Int[Tensor, "f"]:
        """Facets that belong to one cell alone, without those where nodes hang."""
        outer = self.facets.num_cells == 1
        if self.hanging is not None:
            outer = outer.index_fill(0, torch.cat([self.hanging.facets, self.hanging.covered]), False)
        return torch.nonzero(outer).flatten()

    def facets_on(self, side: Side) -> Int[Tensor, "f"]:
        """Boundary facets whose vertices all stand at one end of a grid, wherever its nodes have moved since."""
        assert self.grid is not None
        if side not in self._sides:
            place = places(self.facets.vertices[self.boundary], self.grid.node_shape(1))[side.axis]
            self._sides[side] = self.boundary[(place == side.end * self.grid.shape[side.axis]).all(1)]
        return self._sides[side]

    def num_lagrange_nodes(self, degree: int) -> int:
        """How many dofs `lagrange_numbering` numbers."""
        return self.lagrange_numbering(degree)[1] if self.grid is None else prod(self.grid.node_shape(degree))

    def lagrange_numbering(self, degree: int) -> tuple[tuple[Int[Tensor, "_ _"], ...], int]:
        """Global dofs "e a" of each cell's local nodes, block by block, and their number.

        Grids are numbered lexicographically, x fastest, so that a dof vector *is* the image of the field. Other meshes
        number vertices first, then the interiors of edges, faces and cells; interior nodes of a shared edge or face are
        counted from its lowest-numbered vertex, so neighbours agree whatever their local orientation.
        """
        if degree not in self._numberings:
            if self.grid is None:
                self._numberings[degree] = self._by_entities(lambda kind: len(interior_nodes(kind, degree)))
            else:
                (block,) = self.blocks
                same = degree == block.degree
                dofs = block.connectivity if same else self.grid.cell_nodes(degree)
                self._numberings[degree] = (dofs,), self.num_lagrange_nodes(degree)
        return self._numberings[degree]

    def owners(self, degree: int) -> Int[Tensor, "n"]:
        """Where each dof stands first among the local nodes of all cells, block after block."""
        if degree not in self._owners:
            dofs, count = self.lagrange_numbering(degree)
            self._owners[degree] = first_positions(torch.cat([numbers.flatten() for numbers in dofs]), count)
        return self._owners[degree]

    def numbering(self, per_entity: Sequence[int]) -> tuple[tuple[Int[Tensor, "_ _"], ...], int]:
        """Global dofs "e a" of elements with so many on each vertex, edge, face and inside each cell, and their number.

        Local dofs are those of the vertices, one vertex after another, then of the edges, the faces and the cell. Of
        several on an edge, the first is nearest to the edge's first vertex; a face in space carries one at most.

        Raises:
            ValueError: not one count for each dimension of an entity, or several dofs on a face that cells share.
        """
        if len(per_entity) != self.dim + 1 or (self.dim == 3 and per_entity[2] > 1):
            raise ValueError(
                f"dofs per entity must be {self.dim + 1} counts (vertices, edges, … and cells) on cells of dimension "
                f"{self.dim}, at most one on the faces of solids; got {tuple(per_entity)}."
            )
        return self._by_entities(lambda kind: per_entity[kind.dim], per_entity[0])

    def moment_numbering(self, count_of: Callable[[Cell], int]) -> tuple[tuple[Int[Tensor, "_ _"], ...], int]:
        """Global dofs "e a" of elements with so many on each kind of edge, face and cell, block by block, and their
        number; those of an entity stand in its own order, to which cells turn theirs.
        """
        return self._by_entities(count_of, 0, natural_order)

    def _by_entities(
        self,
        count_of: Callable[[Cell], int],
        on_vertices: int = 1,
        order_of: "Callable[[Cell, int, Tensor], Tensor] | None" = None,
    ) -> tuple[tuple[Tensor, ...], int]:
        several = torch.arange(on_vertices, device=self.device)
        columns = [[(v[..., None] * on_vertices + several).flatten(1)] for v in self.cell_vertices]
        start = len(self.vertex_nodes) * on_vertices
        for dim in range(1, self.dim + 1):
            for kind in dict.fromkeys(entity_cell_of(block.cell, dim) for block in self.blocks):
                count = count_of(kind)
                if count == 0:
                    continue
                entities = self.entities(kind)
                for i, block in enumerate(self.blocks):
                    if entity_cell_of(block.cell, dim) is not kind:
                        continue
                    order = torch.arange(count, device=self.device)
                    if dim < self.dim:  # interiors of cells are nobody else's: any order will do
                        local = torch.tensor(sub_entities(block.cell, dim), device=self.device)
                        order = (order_of or interior_order)(kind, count, self.cell_vertices[i][:, local])
                    columns[i].append((start + entities.of_cells[i][..., None] * count + order).flatten(1))
                start += len(entities.vertices) * count
        return tuple(torch.cat(c, 1) for c in columns), start


def unique_rows(rows: Int[Tensor, "m k"]) -> tuple[Int[Tensor, "m"], Int[Tensor, "n"]]:
    """Number of each row among the distinct rows, and the index of one row for each number.

    Columns are folded into one integer key, renumbered before it could overflow: far faster than a sort of rows.
    """
    base = int(rows.max()) + 1 if len(rows) else 1
    key = rows[:, 0]
    for column in rows.T[1:]:
        if int(key.max()) > (2**62) // base:
            key = torch.unique(key, return_inverse=True)[1]
        key = key * base + column
    values, number = torch.unique(key, return_inverse=True)
    return number, first_positions(number, len(values))


def first_positions(numbers: Int[Tensor, "m"], count: int) -> Int[Tensor, "n"]:
    """Where each of 0, …, count − 1 stands first among the numbers; all of them occur."""
    position = torch.arange(len(numbers), device=numbers.device)
    return torch.full((count,), len(numbers), device=numbers.device).scatter_reduce(0, numbers, position, "amin")


def natural_order(kind: Cell, count: int, vertices: Int[Tensor, "e k v"]) -> Int[Tensor, "m"]:
    """As they are counted, on every cell."""
    return torch.arange(count, device=vertices.device)


def interior_order(kind: Cell, count: int, vertices: Int[Tensor, "e k v"]) -> Int[Tensor, "e k m"]:
    """Where each interior node of an edge or face, counted in the cell's own direction, stands in the shared order.

    The shared order starts at the entity's lowest vertex and, on quadrilaterals, runs first towards the lower of its
    two neighbours. Triangular faces carry one node at most up to degree 3.
    """
    natural = torch.arange(count, device=vertices.device)
    if count == 1:
        return natural.expand(*vertices.shape[:2], 1)
    if kind.dim == 1:
        reversed_ = vertices[..., 0] > vertices[..., 1]
        return torch.where(reversed_[..., None], natural.flip(0), natural)
    assert kind is quadrilateral, "triangles have a single interior node up to degree 3"
    lowest = vertices.argmin(-1)
    neighbour = [vertices.gather(-1, ((lowest + step) % 4)[..., None])[..., 0] for step in (1, 3)]
    return quadrilateral_orders(count, vertices.device)[lowest, (neighbour[0] > neighbour[1]).long()]


def quadrilateral_orders(count: int, device: torch.device) -> Int[Tensor, "4 2 m"]:
    """For each lowest corner and each direction, the shared position of each of k × k interior nodes."""
    side = round(count**0.5)
    grid = torch.arange(count, device=device).reshape(side, side)  # shared positions, first axis along columns
    orders = []
    for corner in range(4):
        # A quarter turn of the shared grid for each step of its origin around the square.
        turned = torch.rot90(grid, -corner, (0, 1))
        orders.append(torch.stack([turned.flatten(), torch.rot90(grid.T, -corner, (0, 1)).flatten()]))
    return torch.stack(orders)
