"""Meshes: node coordinates, blocks of cells in VTK order, and names for facets, cells and nodes.

Plain tensors, frozen once made. Geometry of degree 2 or 3 makes cells curved: a cell is the image of its reference
cell under the Lagrange element of that degree. `with_nodes` moves a mesh without renumbering anything, and whatever is
computed from `mesh.nodes` differentiates with respect to them.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.errors import MeshError
from fem.mesh.conformity import check_facets
from fem.mesh.construction import check_nodes, make_block, turn_if_reversed
from fem.mesh.gaps import gaps, merged
from fem.mesh.grid import BoxNodes, Meet, Side
from fem.mesh.hanging import hanging_facets
from fem.mesh.jacobian import check_jacobians, is_curved
from fem.mesh.refinement.refine import refined
from fem.mesh.tags import (
    FacetTag,
    Selector,
    at_degree,
    numbers_of,
    select_cells,
    select_facets,
    select_nodes,
    without_meets,
)
from fem.mesh.topology import Block, Topology
from fem.reference.lagrange import Lagrange, lagrange_element
from fem.support.checks import check_callable, check_floating, check_kind, check_numbers, did_you_mean
from fem.support.transforms import carries, outside_transforms

Cells = Tensor | Mapping[str, Tensor] | Any


class Mesh:
    """Cells over nodes.

    Args:
        nodes: coordinates "n d", floating point; d may exceed the cells' dimension (curves and surfaces in space).
        cells: connectivity "e v" in VTK node order, or a mapping from cell name to connectivity for mixed meshes. The
            number of columns tells the geometry degree (triangles: 3, 6 or 10).
        cell: interval, triangle, quadrilateral, tetrahedron or hexahedron.
        facet_tags: name → facets, given as vertex tuples "f v", indices into `mesh.facets`, a mask of them, or a
            callable of coordinates "... d" that is true on all vertices of the boundary facets meant. "boundary" always
            exists, and means nothing else.
        cell_tags: name → cells, given as indices, a mask "e", or a callable of the cells' centres.
        node_tags: name → nodes, given as indices, a mask "n", or a callable of coordinates "n d".
        merge: nodes that lie within this distance of each other become one, the lowest-numbered, in cells and tags
            (`nodes` stay as they are). None: parts that touch without sharing nodes, or with a node that hangs on a
            neighbour, are warned of. False: they are meant (cracks, bodies in contact), and are not looked for.
        hanging: nodes may hang where small facets divide a large one, which are then no boundary; `hanging_nodes(V)`
            ties continuous functions there.

    Cells that all run the wrong way round are turned; anything else that is inverted or flat raises. So do cells that
    stand twice or overlap; curves and surfaces in space may branch and cross.

    Raises:
        MeshError: unusable connectivity or tags; inverted, degenerate or overlapping cells, named.
        TypeError: nodes that are neither float64 nor float32.
    """

    def __init__(
        self,
        nodes: Tensor,
        cells: Cells,
        cell: str = "triangle",
        facet_tags: Mapping[str, Selector] | None = None,
        cell_tags: Mapping[str, Selector] | None = None,
        node_tags: Mapping[str, Selector] | None = None,
        *,
        merge: float | bool | None = None,
        hanging: bool = False,
    ):
        self.nodes, self._box = check_nodes(nodes), None
        given = cells if isinstance(cells, Mapping) else {cell: cells}
        blocks = [make_block(self.nodes, name, c) for name, c in given.items()]
        dims = {block.cell.dim for block in blocks}
        if len(dims) != 1:
            raise MeshError(f"`Mesh(cells=...)` must hold cells of one dimension; got {', '.join(given)}.")
        if dims.pop() > self.nodes.shape[1]:
            raise MeshError(f"{', '.join(given)} cells need more than {self.nodes.shape[1]} coordinates per node.")
        number = None
        if merge is not None and merge is not False:
            check_numbers("Mesh", "non-negative", merge=merge)
            number = merged(self.nodes, blocks, float(merge))
            blocks = [Block(block.cell, block.degree, number[block.connectivity]) for block in blocks]
        topology = Topology([turn_if_reversed(self.nodes, block) for block in blocks], len(self.nodes))
        self._set(topology, {}, {}, {})
        check_jacobians(self)
        check_facets(self.nodes.detach(), topology)
        if merge is not False and (text := gaps(self.nodes, topology, hanging)):
            warnings.warn(text, stacklevel=2)
        if hanging:
            topology.hang(hanging_facets(self.nodes.detach(), topology))
        self._tag(facet_tags or {}, cell_tags or {}, node_tags or {}, number)

    def _set(self, topology: Topology, facet_tags: dict, cell_tags: dict, node_tags: dict) -> None:
        self.topology, self.cell_tags = topology, cell_tags
        self.facet_tags: dict[str, Tensor | Side] = facet_tags
        self.node_tags: dict[str, Tensor | Meet] = node_tags

    def _tag(
        self,
        facet_tags: Mapping[str, Selector],
        cell_tags: Mapping[str, Selector],
        node_tags: Mapping[str, Selector],
        merged: Int[Tensor, "n"] | None = None,
    ) -> None:
        for what, tags in (("facet_tags", facet_tags), ("cell_tags", cell_tags), ("node_tags", node_tags)):
            check_kind("Mesh", what, tags, Mapping, "a mapping from names to indices, masks or callables")
        if "boundary" in node_tags:
            raise MeshError("the node tag 'boundary' always means the whole boundary; choose another name.")
        given = self.topology, lambda: self.nodes.detach()
        facets = {name: select_facets(*given, name, s, merged) for name, s in facet_tags.items()}
        own = facets.pop("boundary", None)
        if own is not None and not torch.equal(own.sort().values, whole := self.topology.boundary):
            raise MeshError(
                f"the facet tag 'boundary' always means the whole boundary, which has {len(whole)} facets; "
                f"got {len(own)} facets. Choose another name."
            )
        self.facet_tags = self.facet_tags | facets
        self.cell_tags = self.cell_tags | {name: select_cells(*given, name, s) for name, s in cell_tags.items()}
        chosen = {name: select_nodes(*given, name, s, merged) for name, s in node_tags.items()}
        self.node_tags = without_meets(self.node_tags, {*facet_tags, *cell_tags}) | chosen

    @classmethod
    def from_topology(
        cls,
        nodes: Tensor | BoxNodes,
        topology: Topology,
        facet_tags: dict,
        cell_tags: dict,
        node_tags: dict | None = None,
    ) -> "Mesh":
        """A mesh of parts known to be sound."""
        mesh = cls.__new__(cls)
        mesh._box = nodes if isinstance(nodes, BoxNodes) else None
        if isinstance(nodes, Tensor):
            mesh.nodes = check_nodes(nodes)
        mesh._set(topology, facet_tags, cell_tags, node_tags or {})
        return mesh

    # -- what it is made of ------------------------------------------------------------------------------------------

    @cached_property
    @outside_transforms()
    def nodes(self) -> Float[Tensor, "n d"]:
        """Coordinates; those of a box grid are made when first asked for."""
        assert self._box is not None
        return self._box.nodes

    @property
    def num_nodes(self) -> int:
        return self.topology.num_nodes

    @property
    def num_coordinates(self) -> int:
        """Dimension of the space that the mesh lies in."""
        return self.nodes.shape[1] if self._box is None else len(self._box.axes)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.topology.blocks

    @property
    def cells(self) -> Int[Tensor, "e v"]:
        """Connectivity of the only block; mixed meshes have `blocks`."""
        if len(self.blocks) != 1:
            raise ValueError("this mesh mixes kinds of cells; use `mesh.blocks`, each with its `connectivity`.")
        return self.blocks[0].connectivity

    @property
    def facets(self) -> Int[Tensor, "f v"]:
        """Mesh nodes at the vertices of every facet, padded with −1 where triangles and quadrilaterals mix."""
        return self.topology.facet_nodes

    @property
    def dim(self) -> int:
        """Dimension of the cells."""
        return self.topology.dim

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Cells per direction, x first, where the mesh was made as a grid."""
        return None if self.topology.grid is None else self.topology.grid.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.nodes.dtype if self._box is None else self._box.axes[0].dtype

    @property
    def device(self) -> torch.device:
        return self.topology.device

    @property
    def num_cells(self) -> int:
        return self.topology.num_cells

    @property
    def is_uniform(self) -> bool:
        """Whether all cells are translates of each other: a box grid whose nodes nobody touched since."""
        return self.box is not None and all(factor == 1 for factor in self.blocks[0].cell.factors)

    @property
    def box(self) -> BoxNodes | None:
        """What tells where the nodes are, on a grid over a box until somebody moves one or asks for their gradient."""
        return self._box if self._box is not None and self._box.untouched else None

    @property
    def version(self) -> int | None:
        """Counts changes of the nodes in place; None while they need a gradient, when nothing made of them may stay."""
        if self.box is not None:
            return 0
        return None if carries(self.nodes) else self.nodes._version

    @property
    def curved_degree(self) -> int:
        """How much finer quadrature must be than on straight cells to see the same: d (g − 1), 0 if all are straight.

        |det J| is a polynomial of that degree in the reference coordinates where the geometry has degree g > 1
        (simplices; on products of intervals, of degree d g − 1 in each, against d − 1 for g = 1). Cells whose nodes
        stand where they would for g = 1 are straight, unless somebody asks for their gradient, which sees every
        direction.
        """
        return max(b.cell.dim * (b.degree - 1) if is_curved(self, b) else 0 for b in self.blocks)

    @property
    def block_starts(self) -> list[int]:
        """Number of the first cell of each block: cells are numbered block after block."""
        return self.topology.block_starts

    def facets_tagged(self, tag: FacetTag) -> Int[Tensor, "f"]:
        """Indices into `facets` of the facets with that name, from whatever side they are seen.

        Raises:
            ValueError: no such tag; the message lists those there are.
        """
        tag = tag if isinstance(tag, str) else tag[0]
        if tag == "boundary":
            return self.topology.boundary
        chosen = self._tagged(tag)
        return self.topology.facets_on(chosen) if isinstance(chosen, Side) else chosen

    def nodes_tagged(self, tag: str) -> Int[Tensor, "k"]:
        """Indices of the mesh nodes with that node tag."""
        return numbers_of(self.topology, self.node_tags[tag])

    def sides_tagged(self, tag: str) -> tuple[Side, ...] | None:
        """The whole sides of a grid that have that name, so that nobody need number facets; None where others do.

        Raises:
            ValueError: no such tag.
        """
        if tag == "boundary":
            return None if self.topology.grid is None else self.topology.grid.sides
        chosen = self._tagged(tag)
        return (chosen,) if isinstance(chosen, Side) else None

    def _tagged(self, tag: str) -> Tensor | Side:
        if tag not in self.facet_tags:
            known = ", ".join(repr(name) for name in ("boundary", *self.facet_tags))
            others = [repr(name) for name, own in self.node_tags.items() if isinstance(own, Tensor)]
            known += f" and, at nodes, {', '.join(others)}" if others else ""
            meant = did_you_mean(tag, ("boundary", *self.facet_tags, *self.node_tags))
            meant = " Values are prescribed at nodes, but integrals need facets." if tag in self.node_tags else meant
            raise ValueError(f"unknown facet tag {tag!r}; this mesh has {known}.{meant}")
        return self.facet_tags[tag]

    def lagrange_nodes(self, degree: int, numbers: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        """Where the equispaced nodes of that degree sit, all or some of them, as the topology numbers them.

        Differentiable in `nodes`: one of the cells that share a node speaks for it.
        """
        if self.box is not None:
            return self.box.refined(degree, numbers)
        if self.grid is not None and degree == self.blocks[0].degree:
            return self.nodes.clone() if numbers is None else self.nodes[numbers]
        owner, start = self.topology.owners(degree), 0
        owner = owner if numbers is None else owner[numbers]
        found = self.nodes.new_zeros(len(owner), self.num_coordinates)
        for block in self.blocks:
            points = lagrange_element(block.cell, degree).nodes.to(self.device, self.dtype)
            end = start + block.num_cells * len(points)
            rows = torch.nonzero((owner >= start) & (owner < end)).flatten()
            cell, local = (owner[rows] - start) // len(points), (owner[rows] - start) % len(points)
            weights = block.element.tabulate(points, 0).value[0, local]
            position = torch.einsum("nv,nvd->nd", weights, self.nodes[block.nodes_of(cell)])
            found, start = found.index_copy(0, rows, position), end
        return found

    # -- other meshes from this one ------------------------------------------------------------------------------------

    def with_nodes(self, nodes: Float[Tensor, "n d"]) -> "Mesh":
        """The same cells over other coordinates; numberings and tags are shared, gradients reach `nodes`."""
        check_kind("with_nodes", "nodes", nodes, Tensor, f"a tensor of shape {tuple(self.nodes.shape)}")
        if nodes.shape != self.nodes.shape:
            raise ValueError(f"`with_nodes` needs nodes of shape {tuple(self.nodes.shape)}; got {tuple(nodes.shape)}.")
        mesh = Mesh.from_topology(nodes, self.topology, self.facet_tags, self.cell_tags, self.node_tags)
        check_jacobians(mesh)
        return mesh

    def with_tags(
        self,
        facet_tags: Mapping[str, Selector] | None = None,
        cell_tags: Mapping[str, Selector] | None = None,
        node_tags: Mapping[str, Selector] | None = None,
    ) -> "Mesh":
        """The same mesh with more names, given as to the constructor."""
        nodes = self.nodes if self._box is None else self._box
        mesh = Mesh.from_topology(nodes, self.topology, self.facet_tags, self.cell_tags, self.node_tags)
        mesh._tag(facet_tags or {}, cell_tags or {}, node_tags or {})
        return mesh

    def curved(self, degree: int, mapping: Callable[[Tensor], Tensor] | None = None) -> "Mesh":
        """The same cells with geometry of the given degree, its equispaced nodes moved by `mapping` "n d" → "n d"."""
        family = Lagrange(degree)
        check_callable("curved", "mapping", mapping, "a callable of coordinates, or None", optional=True)
        nodes = self.lagrange_nodes(family.degree)
        if self.topology.grid is not None:
            sources = [self.topology.grid]
        else:
            sources = self.topology.lagrange_numbering(degree)[0]
        blocks = [Block(block.cell, degree, source) for block, source in zip(self.blocks, sources, strict=True)]
        topology = self.topology.curved(blocks, len(nodes))
        if mapping is not None:
            nodes = mapping(nodes)
            check_kind("curved", "mapping", nodes, Tensor, "a callable that returns coordinates as a tensor")
        node_tags = at_degree(self.topology, self.node_tags, degree)
        mesh = Mesh.from_topology(nodes, topology, self.facet_tags, self.cell_tags, node_tags)
        check_jacobians(mesh)
        return mesh

    def refine(self, cells: Selector | None = None) -> "Mesh":
        """A finer mesh: all cells divided at the midpoints of their edges, or those named, by indices or a mask "e".

        Triangles and tetrahedra are halved until all edges of those named are, and no node hangs; angles stay bounded.
        Of quadrilaterals, hexahedra and mixed meshes nodes hang, one level deep: `hanging_nodes(V)` ties them. Tags
        and curved geometry follow, gradients reach `nodes`, grids divided as a whole stay grids. Functions follow by
        `V.interpolate(W.function(u))`, exactly where spaces are nested, values per cell by `values[..., fine.parents]`.

        Raises:
            MeshError: no such cells.
            ValueError: some of several kinds of solids; hanging nodes that are not of refinement.
        """
        return Mesh.from_topology(*refined(self, cells))

    @property
    def parents(self) -> Int[Tensor, "e"] | None:
        """Of a refined mesh, the number that each cell's parent had in the mesh before; None of others."""
        return self.topology.history and self.topology.history.parents

    def to(self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None) -> "Mesh":
        """The mesh on another device or in another floating-point type."""
        if isinstance(device, torch.dtype):  # `to(torch.float32)`, as for tensors
            device, dtype = None, device
        if dtype is not None:
            check_floating("Mesh.to", dtype)
        nodes, topology = (self.box or self.nodes).to(device=device, dtype=dtype), self.topology
        device = (nodes.axes[0] if isinstance(nodes, BoxNodes) else nodes).device
        if device != self.device:
            topology = topology.to(device)
        moved = lambda tags: {k: v.to(device) if isinstance(v, Tensor) else v for k, v in tags.items()}  # noqa: E731
        return Mesh.from_topology(nodes, topology, *map(moved, (self.facet_tags, self.cell_tags, self.node_tags)))

    def map(
        self, block: int, cells: Int[Tensor, "e"] | None, points: Float[Tensor, "q r"], derivatives: int = 1
    ) -> tuple[Float[Tensor, "e q d"], Float[Tensor, "#e #q d r"], Float[Tensor, "#e #q d r r"] | None]:
        """Positions, Jacobian ∂x/∂ξ and, for `derivatives=2`, its gradient at reference points of some cells.

        Axes are of length one where nothing varies along them: q on straight simplices, e on uniform grids.
        """
        shape, points = self.blocks[block], points.to(self.device, self.dtype)
        table = shape.element.tabulate(points, derivatives)
        if self.is_uniform and (box := self.box) is not None:
            position, corners = box.at(points, cells), box.first_cell(shape.cell)
        else:
            corners = self.nodes[shape.connectivity if cells is None else shape.nodes_of(cells)]
            position = torch.einsum("qa,ead->eqd", table.value[0], corners)
        assert table.grad is not None
        affine = shape.degree == 1 and (shape.cell.is_simplex or self.is_uniform)
        grad = table.grad[0, :1] if affine else table.grad[0]
        jacobian = torch.einsum("qar,ead->eqdr", grad, corners)
        if derivatives < 2:
            return position, jacobian, None
        assert table.hess is not None
        return position, jacobian, torch.einsum("qars,ead->eqdrs", table.hess[0], corners)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{b.num_cells} {b.cell.name}s of degree {b.degree}" for b in self.blocks)
        tags = ", ".join(map(str, ("boundary", *self.facet_tags)))
        return f"Mesh({kinds}; {self.num_nodes} nodes in {self.num_coordinates}-D; facet tags {tags})"
