"""Patches as meshes: the knot spans of an analysis basis are the cells, and the patches map them, exactly.

Each patch is a block of cells, numbered with u fastest. Where sides of patches coincide they are glued: what lies on
one lies on the other. The vertices only tell who touches whom and where pictures are; positions, Jacobians and second
derivatives come from the patches, differentiable in their control points, weights and knots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.jacobian import determinant
from fem.mesh.mesh import Mesh
from fem.mesh.topology import Block, Topology
from fem.reference.quadrature import quadrature
from fem.reference.spline_element import BSpline
from fem.space.factors import layers_of
from fem.support.arithmetic import sum_of
from fem.support.portions import at_a_time
from fem.support.transforms import carries
from nurbs.errors import GeometryError
from nurbs.geometry.directions import UVW
from nurbs.geometry.patch import Patch

SIDE_NAMES = ("left", "right", "bottom", "top", "back", "front")
SIDE_SAMPLES = 5  # points per direction at which sides are compared
NEAR = 1e-9  # how far sides that coincide may lie apart, relative to the size of all patches, in double precision


@dataclass(frozen=True, order=True)
class PatchSide:
    """One end of a direction of a patch."""

    patch: int
    axis: int
    end: int

    def of(self, lattice: Tensor) -> Tensor:
        """What lies on this side of a lattice whose axes are those of the patch."""
        return lattice.select(self.axis, -self.end)


@dataclass(frozen=True)
class Seam:
    """Two sides that coincide: the second's axes, in the order `axes` and reversed where `flips`, are the first's."""

    one: PatchSide
    two: PatchSide
    axes: tuple[int, ...]
    flips: tuple[int, ...]

    def pair(self, lattices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The entries of two patches' lattices that are the same."""
        return self.one.of(lattices[self.one.patch]), self.turned(self.two.of(lattices[self.two.patch]))

    def closes(self, patch: int) -> bool:
        """Whether it joins both ends of a direction of a patch as they lie, and so closes a ring."""
        own = self.one.patch == self.two.patch == patch and self.one.axis == self.two.axis
        return own and not self.flips and self.axes == tuple(range(len(self.axes)))

    def turned(self, lattice: Tensor) -> Tensor:
        """A lattice (…) on the second side as the first side counts it."""
        rest = range(len(self.axes), lattice.ndim)
        return lattice.permute(*self.axes, *rest).flip(self.flips)


def find_seams(patches: Sequence[Patch]) -> list[Seam]:
    """The pairs of sides that coincide, with the way they are turned against each other.

    Raises:
        GeometryError: sides that share their corners, but not what lies between, or with another parametrisation.
    """
    r, near = patches[0].directions, NEAR if patches[0].dtype == torch.float64 else 1e-4
    sides = [
        PatchSide(i, axis, end)
        for i, patch in enumerate(patches)
        for axis in range(r)
        for end in (0, 1)
        if not patch.periodic[axis]
    ]
    with torch.no_grad():
        samples = [sampled(patches[s.patch], s) for s in sides]
    scale = extent(torch.cat([x.reshape(-1, x.shape[-1]) for x in samples])) or 1.0
    seams: list[Seam] = []
    taken: set[int] = set()
    for i, j in combinations(range(len(sides)), 2):
        if i in taken or j in taken or (r > 1 and min(extent(samples[i]), extent(samples[j])) < near * scale):
            continue
        best, corners = float("inf"), float("inf")
        for axes in permutations(range(r - 1)):
            for k in range(r):
                for flips in combinations(range(r - 1), k):
                    seam = Seam(sides[i], sides[j], axes, flips)
                    apart = (samples[i] - seam.turned(samples[j])).norm(dim=-1)
                    ends = apart[tuple(slice(None, None, SIDE_SAMPLES - 1) for _ in range(r - 1))]
                    corners = min(corners, float(ends.max()))
                    if float(apart.max()) < best:
                        best, found = float(apart.max()), seam
        if best < near * scale:
            seams.append(found)
            taken |= {i, j}
        elif r > 1 and corners < near * scale:
            raise GeometryError(
                f"{name_of(patches, sides[i])} and {name_of(patches, sides[j])} share their corners, but lie up to "
                f"{best:.3g} apart at equal parameters: patches are glued along sides of one shape and "
                "parametrisation. Reparametrise one of them, or pass `glue=False`."
            )
    return seams


def sampled(patch: Patch, side: PatchSide) -> Float[Tensor, "..."]:
    """Points on a side, "*s d" with SIDE_SAMPLES points along each direction of the side."""
    lines = [
        torch.lerp(start, end, torch.linspace(0, 1, SIDE_SAMPLES, dtype=patch.dtype, device=patch.device))
        for start, end in patch.domain()
    ]
    lines[side.axis] = patch.domain()[side.axis][side.end][None]
    return patch.detach()(*lines).squeeze(side.axis)


def extent(points: Tensor) -> float:
    flat = points.reshape(-1, points.shape[-1])
    return float((flat.amax(0) - flat.amin(0)).max())


def name_of(patches: Sequence[Patch], side: PatchSide) -> str:
    given = patches[side.patch].sides or SIDE_NAMES
    own = f"side {given[2 * side.axis + side.end]!r}"
    return own if len(patches) == 1 else f"{own} of patch {side.patch}"


def number_glued(lattices: Sequence[Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], int]:
    """Common numbers for the entries of lattices, of which pairs are the same: in order of their first appearance."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = sum(lattice.numel() for lattice in lattices)
    one, two = (torch.cat([p[k].flatten() for p in pairs]).cpu().numpy() if pairs else np.zeros(0, int) for k in (0, 1))
    label = connected_components(coo_matrix((np.ones(len(one)), (one, two)), (count, count)), directed=False)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    number = torch.from_numpy(order[inverse]).to(lattices[0].device)
    return [number[lattice] for lattice in lattices], len(first)


def numbered(shapes: Sequence[tuple[int, ...]], device: torch.device) -> list[Tensor]:
    """Lattices (axes in the order of directions) of numbers with the first direction fastest, one after another."""
    found, start = [], 0
    for shape in shapes:
        found.append(
            start + torch.arange(prod(shape), device=device).view(shape[::-1]).permute(*range(len(shape))[::-1])
        )
        start += prod(shape)
    return found


class PatchMesh(Mesh):
    """Knot spans of patches as cells; made by `isogeometric_space`.

    Attributes:
        patches: what maps the cells.
        elements: the analysis basis of each patch, whose spans are the cells.
        seams: sides that are glued.
        sides: {name: sides}; a facet tag each.
    """

    patches: tuple[Patch, ...]
    elements: tuple[BSpline, ...]
    seams: tuple[Seam, ...]
    sides: dict[str, list[PatchSide]]

    @classmethod
    def of(cls, patches: Sequence[Patch], elements: Sequence[BSpline], seams: Sequence[Seam]) -> "PatchMesh":
        shapes = [tuple(n + 1 for n in e.grid_shape) for e in elements]
        lattices = numbered(shapes, patches[0].device)
        vertices, count = number_glued(lattices, glued_pairs(lattices, patches, seams))
        cell, nodes = elements[0].cell, patches[0].control_points.new_zeros(count, patches[0].dim)
        blocks = []
        with torch.no_grad():
            for patch, element, lattice in zip(patches, elements, vertices, strict=True):
                nodes[lattice] = patch.detach()(*element.breakpoints)
                corners = torch.tensor(cell.vertices, device="cpu")
                parts = [
                    lattice[tuple(slice(c, n + c) for c, n in zip(corner, element.grid_shape, strict=True))]
                    for corner in corners.tolist()
                ]
                order = range(len(element.grid_shape))[::-1]
                connectivity = torch.stack([p.permute(*order).flatten() for p in parts], 1)
                if cell.dim and bool((connectivity.sort(1).values.diff(dim=1) == 0).any()):
                    raise GeometryError("a patch that closes on itself needs three or more spans in that direction.")
                blocks.append(Block(cell, 1, connectivity))
        mesh = Mesh.from_topology.__func__(cls, nodes, Topology(blocks, count), {}, {})
        mesh.patches, mesh.elements, mesh.seams = tuple(patches), tuple(elements), tuple(seams)
        mesh._name_sides()
        return mesh

    @property
    def curved_degree(self) -> int:
        """2 (q − p): the degree q of the patches counts like that of the basis, p, where it is higher."""
        own, basis = max(max(p.degree) for p in self.patches), max(max(e.degrees) for e in self.elements)
        return 2 * max(own - basis, 0)

    @property
    def default_quadrature(self) -> int:
        """The degree of quadrature where none is asked for."""
        return 2 * max(max(e.degrees) for e in self.elements) + 1 + self.curved_degree

    def _name_sides(self) -> None:
        hidden = {s for seam in self.seams for s in (seam.one, seam.two)}
        self.sides = {"boundary": []}
        facets = self.topology.facets
        for i, patch in enumerate(self.patches):
            names = patch.sides or SIDE_NAMES
            for axis, end in product(range(patch.directions), (0, 1)):
                side = PatchSide(i, axis, end)
                if side in hidden or patch.periodic[axis]:
                    continue
                own = dict.fromkeys(("boundary", names[2 * axis + end], SIDE_NAMES[2 * axis + end]))
                for name in (*own, f"{i}:{names[2 * axis + end]}"):
                    self.sides.setdefault(name, []).append(side)
        for name, sides in self.sides.items():
            if name == "boundary":
                continue
            marked = torch.zeros(len(facets.vertices), dtype=torch.bool, device=self.device)
            for side in sides:
                element = self.elements[side.patch]
                corners = torch.tensor(element.cell.vertices, device=self.device)
                local = next(
                    k
                    for k, facet in enumerate(element.cell.facets)
                    if bool((corners[list(facet), side.axis] == side.end).all())
                )
                here = (facets.block == side.patch) & (facets.local == local)
                (cells,) = numbered([element.grid_shape], self.device)
                marked |= here & torch.isin(facets.cell, side.of(cells).flatten())
            self.facet_tags[name] = marked.nonzero()[:, 0]

    @property
    def version(self) -> int | None:
        moving = any(carries(t) for p in self.patches for t in (p.control_points, p.weights, *p.knots) if t is not None)
        return None if moving else 0

    def with_patches(self, patches: Sequence[Patch]) -> "PatchMesh":
        """The same cells mapped by other patches, of the same kind and range of parameters."""
        return PatchMesh.of(patches, self.elements, self.seams)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "PatchMesh":
        patches = [p.to(device=device, dtype=dtype) for p in self.patches]
        return PatchMesh.of(patches, [moved(e, patches[0]) for e in self.elements], self.seams)

    def map(
        self, block: int, cells: Int[Tensor, "e"] | None, points: Float[Tensor, "q r"], derivatives: int = 1
    ) -> tuple[Float[Tensor, "e q d"], Float[Tensor, "#e #q d r"], Float[Tensor, "#e #q d r r"] | None]:
        """Positions, Jacobians and second derivatives from the patch, in coordinates of the reference cell."""
        patch, element = self.patches[block], self.elements[block]
        points = points.to(self.device, self.dtype)
        r = element.cell.dim
        units = [tuple(int(k == axis) for k in range(r)) for axis in range(r)]
        twice = [tuple(a + b for a, b in zip(units[i], units[j], strict=True)) for i in range(r) for j in range(r)]
        orders = [(0,) * r, *units, *(twice if derivatives > 1 else ())]
        values = self._evaluated(patch, element, cells, points, orders)
        widths = self._widths(element, cells)  # "e r"
        jacobian = torch.stack(values[1 : 1 + r], -1) * widths[:, None, None, :]
        if derivatives < 2:
            return values[0], jacobian, None
        second = torch.stack(values[1 + r :], -1).unflatten(-1, (r, r))
        return values[0], jacobian, second * (widths[:, :, None] * widths[:, None, :])[:, None, None]

    def positions(
        self, block: int, cells: Int[Tensor, "e"] | None, points: Float[Tensor, "q r"]
    ) -> Float[Tensor, "e q d"]:
        """What `map` gives first."""
        patch, element = self.patches[block], self.elements[block]
        return self._evaluated(patch, element, cells, points.to(self.device, self.dtype), [(0,) * element.cell.dim])[0]

    def _evaluated(
        self, patch: Patch, element: BSpline, cells: Tensor | None, points: Tensor, orders: list[Any]
    ) -> list[Tensor]:
        """Derivatives "e q d" at reference points of cells; on a tensor grid where whole layers of them are wanted."""
        lines, layers = [t.unique(return_inverse=True) for t in points.unbind(-1)], layers_of(element, cells)
        if layers is not None and prod(len(line) for line, _ in lines) <= 2 * len(points):
            corners = [t.to(points) for t in element.breakpoints]
            corners[-1] = corners[-1][layers.start : layers.stop + 1]
            u = [torch.lerp(c[:-1, None], c[1:, None], line) for c, (line, _) in zip(corners, lines, strict=True)]
            grids = patch.derivatives(*[t.flatten() for t in u], orders=orders)
            r = len(lines)
            found = []
            for grid in grids:
                for axis, (c, (line, _)) in enumerate(zip(corners, lines, strict=True)):
                    grid = grid.unflatten(2 * axis, (len(c) - 1, len(line)))
                grid = grid.permute(*range(0, 2 * r, 2)[::-1], *range(1, 2 * r, 2), 2 * r).flatten(0, r - 1)
                found.append(grid[(slice(None), *(index for _, index in lines))])
            return found
        u = element.parameters(points).to(points)
        u = u if cells is None else u[cells]
        return [v.unflatten(0, u.shape[:2]) for v in patch.derivatives_at(u.flatten(0, 1), orders=orders)]

    def _widths(self, element: BSpline, cells: Tensor | None) -> Float[Tensor, "e r"]:
        widths = torch.stack(torch.meshgrid(*[c.diff().to(self.nodes) for c in element.breakpoints], indexing="ij"), -1)
        flat = widths.permute(*range(widths.ndim - 1)[::-1], -1).flatten(0, -2)
        return flat if cells is None else flat[cells]

    def check(self, degree: int) -> None:
        """Raise where a patch is folded at the points of a quadrature.

        Raises:
            GeometryError: det J ≤ 0 somewhere; the patch and its parameters are named.
        """
        if self.dim != self.num_coordinates:
            return
        with torch.no_grad():
            for i, (patch, element) in enumerate(zip(self.patches, self.elements, strict=True)):
                rule = quadrature(element.cell, degree)
                for cells in slabs(element, len(rule.points)):
                    _, jacobian, _ = self.map(i, cells, rule.points)
                    det = determinant(jacobian)
                    size = sum_of(row.square() for row in jacobian.unbind(-2)).sqrt().prod(-1)  # `norm` is slow here
                    wrong = ~(det > 10 * torch.finfo(det.dtype).eps * size)
                    if not bool(wrong.any()):
                        continue
                    e, q = wrong.nonzero()[0].tolist()
                    u = element.parameters(rule.points.to(self.nodes))[int(cells[e]), q].tolist()
                    where = ", ".join(f"{n} = {x:.6g}" for n, x in zip(UVW, u, strict=False))
                    which = "the patch" if len(self.patches) == 1 else f"patch {i}"
                    turn = " `nurbs.reverse` turns it." if bool((det < 0).all()) else ""
                    raise GeometryError(
                        f"{which}, {patch}, is folded: det J = {float(det[e, q]):.3g} at {where}, and must be positive "
                        f"everywhere.{turn}"
                    )


def glued_pairs(
    lattices: Sequence[Tensor], patches: Sequence[Patch], seams: Sequence[Seam]
) -> list[tuple[Tensor, Tensor]]:
    """Pairs of numbers of vertices that are the same: along seams, and at the ends of periodic directions."""
    pairs = [seam.pair(lattices) for seam in seams]
    for lattice, patch in zip(lattices, patches, strict=True):
        pairs += [
            (lattice.select(axis, 0), lattice.select(axis, -1)) for axis, closed in enumerate(patch.periodic) if closed
        ]
    return pairs


def slabs(element: BSpline, points: int) -> list[Int[Tensor, "e"]]:
    """All cells, in portions of whole layers along the last direction, or one layer."""
    *layer, count = element.grid_shape
    step = at_a_time(64 * prod(layer) * points, element.knots[0], roomy=True)  # numbers at a point, roughly
    ends = [(prod(layer) * k, prod(layer) * min(k + step, count)) for k in range(0, count, step)]
    return [torch.arange(*pair, device=element.knots[0].device) for pair in ends]


def moved(element: BSpline, patch: Patch) -> BSpline:
    """The basis in the patch's dtype and on its device."""
    like = patch.control_points
    weights = None if element.weights is None else element.weights.to(like)
    return BSpline([t.to(like) for t in element.knots], element.degrees, weights)
