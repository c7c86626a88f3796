"""The points of a mesh nearest to points outside it.

Such a point is a vertex, or lies inside an edge or a face of the boundary (of a curve or surface in space: of any cell)
and is where the distance is stationary along it. Vertices come first, then edges and faces that may be nearer than what
is known by then; one Newton step answers on straight ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.jacobian import determinant, inverse
from fem.mesh.mesh import Mesh
from fem.mesh.search.inverse_map import is_affine, push, to_bernstein
from fem.mesh.search.location import attach, locate_in_grid
from fem.reference.cells import Cell
from fem.reference.lagrange import LagrangeElement, barycentric_map, entity_cell_of, lagrange_element, sub_entities
from fem.support.portions import at_a_time
from fem.support.transforms import carries


def nearest(mesh: Mesh, points: Float[Tensor, "m d"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
    """Cell (numbered over all blocks) and reference coordinates of the point of the mesh nearest to each point outside.

    Differentiable in points and nodes as the foot point is, as long as it stays on the same face, edge or vertex. Every
    point is compared with a box around each facet of the boundary, O(m f); only grids need no comparison.
    """
    if mesh.is_uniform and mesh.grid is not None and mesh.box is not None:
        points = points.clamp(*mesh.box.corners.unbind())
        cell, reference = locate_in_grid(mesh, points.detach())
        return cell, attach(mesh, 0, cell, reference, points) if carries(points) else reference
    cell, reference, entity = feet(mesh, points.detach())
    if carries(points) or mesh.version is None:
        for i, block in enumerate(mesh.blocks):
            start, stop = mesh.block_starts[i : i + 2]
            for k, part in enumerate(entities(block.element)):
                rows = torch.nonzero((cell >= start) & (cell < stop) & (entity == k)).flatten()
                if len(rows) and part.shape.dim:
                    corners = mesh.nodes[block.nodes_of(cell[rows] - start)[:, list(part.nodes)]]
                    tangents, at = part.tangents.to(reference), reference[rows]
                    for _ in range(1 if is_affine(part.element) else 2):  # as in `attach`
                        eta = (at - part.origin.to(at)) @ torch.linalg.pinv(tangents)
                        at = at + newton(part.element, corners, points[rows], eta)[0] @ tangents
                    reference = reference.index_copy(0, rows, at)
    return cell, reference


@dataclass(frozen=True, eq=False)
class Entity:
    """A vertex, edge or face of a cell, or the cell itself, as a cell of its own with some of the nodes."""

    shape: Cell
    vertices: tuple[int, ...]
    nodes: tuple[int, ...]
    origin: Float[Tensor, "r"]
    tangents: Float[Tensor, "k r"]
    degree: int

    @property
    def element(self) -> LagrangeElement:
        return lagrange_element(self.shape, self.degree)


@cache
def entities(element: LagrangeElement) -> tuple[Entity, ...]:
    """Those of all dimensions, vertices first."""
    cell, found = element.cell, []
    for k in range(cell.dim + 1):
        for vertices in sub_entities(cell, k):
            shape, (origin, tangents) = entity_cell_of(cell, k), cell.frame(vertices)
            at = origin[None] if k == 0 else origin + lagrange_element(shape, element.degree).nodes @ tangents
            nodes = tuple(torch.cdist(at, element.nodes).argmin(1).tolist())
            found.append(Entity(shape, vertices, nodes, origin, tangents, element.degree))
    return tuple(found)


# -- what may be nearest -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pieces:
    """The k-th entity of some cells (numbered over all blocks): its nodes, and points whose convex hull holds it."""

    k: int
    entity: Entity
    cells: Int[Tensor, "f"]
    corners: Float[Tensor, "f a d"]
    hull: Float[Tensor, "f a d"]


def pieces(mesh: Mesh, dim: int) -> Iterator[Pieces]:
    """The vertices, edges or faces of the boundary, once each; of a curve or surface in space those of all cells."""
    solid = mesh.dim == mesh.num_coordinates
    table, boundary = mesh.topology.facets, mesh.topology.boundary
    found = []
    for i, block in enumerate(mesh.blocks):
        every = torch.arange(block.num_cells, device=mesh.device)
        groups = {tuple(range(block.cell.num_vertices)): every}
        if solid:
            own = boundary[table.block[boundary] == i]
            groups = {v: table.cell[own[table.local[own] == k]] for k, v in enumerate(block.cell.facets)}
        for vertices, cells in groups.items():
            for k, entity in enumerate(entities(block.element)):
                if entity.shape.dim == dim and set(entity.vertices) <= set(vertices) and len(cells):
                    found.append((i, k, entity, cells))
    if not found:
        return
    width = max(len(entity.vertices) for _, _, entity, _ in found)
    keys = []
    for i, _, entity, cells in found:
        own = mesh.blocks[i].nodes_of(cells)[:, list(entity.vertices)].sort(1).values
        keys.append(torch.nn.functional.pad(own, (0, width - own.shape[1]), value=-1))
    number = torch.unique(torch.cat(keys), dim=0, return_inverse=True)[1]
    row = torch.arange(len(number), device=mesh.device)
    first = torch.full_like(row, len(row)).scatter_reduce(0, number, row, "amin")[number] == row
    for (i, k, entity, cells), once in zip(found, first.split([len(c) for *_, c in found]), strict=True):
        own = cells[once]
        if len(own):
            corners = mesh.nodes.detach()[mesh.blocks[i].nodes_of(own)[:, list(entity.nodes)]]
            curved = dim > 0 and entity.degree > 1
            hull = to_bernstein(entity.element).to(corners) @ corners if curved else corners
            yield Pieces(k, entity, mesh.block_starts[i] + own, corners, hull)


def feet(mesh: Mesh, points: Float[Tensor, "m d"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"], Int[Tensor, "m"]]:
    """Cell, reference coordinates, and the number in `entities` of what the nearest point lies on."""
    m = len(points)
    best = points.new_full((m,), torch.inf)
    cell, entity = torch.zeros(m, dtype=torch.int64, device=mesh.device), torch.zeros_like(best, dtype=torch.int64)
    reference = points.new_zeros(m, mesh.dim)
    below = mesh.dim if mesh.dim == mesh.num_coordinates else mesh.dim + 1
    for group in (group for dim in range(below) for group in pieces(mesh, dim)):
        lower, upper = group.hull.amin(1), group.hull.amax(1)
        for rows in torch.arange(m, device=mesh.device).split(at_a_time(3 * lower.numel(), points, roomy=True)):
            p, f = near(points[rows], best[rows], lower, upper, group.hull)
            at, valid = stationary(group.entity.element, group.corners[f], points[rows[p]], group.entity.shape)
            p, f, at = rows[p[valid]], f[valid], at[valid]
            distance = (place(group, f, at) - points[p]).norm(dim=1)
            least = best.scatter_reduce(0, p, distance, "amin")
            won = torch.nonzero((distance == least[p]) & (distance < best[p])).flatten()
            first = torch.full_like(cell, len(p)).scatter_reduce(0, p[won], won, "amin")  # of several the first
            q = torch.nonzero(first < len(p)).flatten()
            first = first[q]
            best, cell = least, cell.index_copy(0, q, group.cells[f[first]])
            at = group.entity.origin.to(at) + at[first] @ group.entity.tangents.to(at)
            reference, entity = reference.index_copy(0, q, at), entity.index_fill(0, q, group.k)
    return cell, reference, entity


def near(
    x: Float[Tensor, "m d"],
    best: Float[Tensor, "m"],
    lower: Float[Tensor, "f d"],
    upper: Float[Tensor, "f d"],
    hull: Float[Tensor, "f a d"],
) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """Pairs of a point and a piece that may be nearer than the best so far: by its box, then by the plane between them.

    No point of a hull is nearer than min_a n·(x − c_a), whatever the direction n: here the one to its middle.
    """
    if hull.shape[1] == 1:  # of points the nearest
        distance = torch.cdist(x, hull[:, 0], compute_mode="donot_use_mm_for_euclid_dist")
        return torch.arange(len(x), device=x.device), distance.argmin(1)
    gap = torch.maximum(lower - x[:, None], x[:, None] - upper).clamp(min=0).norm(dim=-1)
    p, f = (gap <= (1 + 1e-6) * best[:, None]).nonzero().unbind(1)
    apart = x[p] - hull.mean(1)[f]
    direction = apart / apart.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    bound = ((x[p][:, None] - hull[f]) @ direction[..., None])[..., 0].amin(1)
    keep = bound <= (1 + 1e-6) * best[p]
    return p[keep], f[keep]


# -- on one piece ------------------------------------------------------------------------------------------------------


def place(group: Pieces, f: Int[Tensor, "m"], eta: Float[Tensor, "m k"]) -> Float[Tensor, "m d"]:
    """Positions on pieces f."""
    if group.entity.shape.dim == 0:
        return group.corners[f, 0]
    return (group.entity.element.tabulate(eta, 0).value[0, :, None] @ group.corners[f])[:, 0]


def stationary(
    element: LagrangeElement, corners: Float[Tensor, "m a d"], x: Float[Tensor, "m d"], shape: Cell
) -> tuple[Float[Tensor, "m k"], Bool[Tensor, "m"]]:
    """Where |X(η) − x| is stationary on each piece, by Newton's method, and whether that lies on it.

    Steps are halved until the distance shrinks, and cut where they would leave the piece by more than half its size.
    """
    if shape.dim == 0:
        return x.new_zeros(len(x), 0), torch.ones(len(x), dtype=torch.bool, device=x.device)
    matrix, offset = (t.to(x) for t in barycentric_map(shape))
    centre = torch.tensor(shape.vertices, dtype=x.dtype, device=x.device).mean(0)
    affine = is_affine(element)
    starts = centre[None] if affine else lagrange_element(shape, max(2, element.degree)).nodes.to(x)
    starts = centre + 0.8 * (starts - centre)
    samples = element.tabulate(starts, 0).value[0] @ corners
    eta = starts[(samples - x[:, None]).norm(dim=-1).argmin(1)]
    small, going = torch.finfo(x.dtype).eps ** (1 / 3), torch.ones_like(x[:, 0], dtype=torch.bool)
    step, best = torch.zeros_like(eta), torch.full_like(x[:, 0], torch.inf)
    for _ in range(1 if affine else 60):
        newtons, distance = newton(element, corners, x, eta + step)
        better = (distance < best) | (step.abs().amax(1) < small)
        eta = torch.where((better & going)[:, None], eta + step, eta)
        if not affine:
            change = newtons @ matrix.T
            room = (eta @ matrix.T + offset + 0.5).clamp(min=0) / -change
            newtons = newtons * torch.where(change < 0, room, 1).amin(1, keepdim=True).clamp(max=1)
        step = torch.where(going[:, None], torch.where(better[:, None], newtons, step / 2), 0)
        best = torch.where(better, distance, best)
        going = going & (step.abs().amax(1) > small**2)
        if not bool(going.any()):
            break
    eta = eta + step
    return eta, (eta @ matrix.T + offset >= -(small**2)).all(1)


def newton(
    element: LagrangeElement, corners: Float[Tensor, "m a d"], x: Float[Tensor, "m d"], eta: Float[Tensor, "m k"]
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m"]]:
    """Newton's step for ½ |X − x|², and |X − x|.

    With A = ∂X/∂η: (AᵀA − Σ_d (x − X)_d ∂²X_d/∂η²)⁻¹ Aᵀ (x − X); without the second term where it is not positive.
    """
    position, A = push(element, corners, eta)
    gap = x - position
    H = gram = A.mT @ A
    if not is_affine(element):
        second = element.tabulate(eta, 2).hess
        assert second is not None
        H = gram - ((corners @ gap[..., None])[..., None] * second[0]).sum(1)
        scale = gram.diagonal(dim1=-2, dim2=-1).prod(-1)
        positive = (H[:, 0, 0] > 0) & (determinant(H) > torch.finfo(x.dtype).eps * scale)
        H = torch.where(positive[:, None, None], H, gram)
    step = inverse(H, determinant(H)) @ (A.mT @ gap[..., None])
    return step[..., 0], gap.norm(dim=1)
