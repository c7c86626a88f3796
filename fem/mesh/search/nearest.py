"""The points of a mesh nearest to points outside it.

Such a point is a vertex, or lies inside an edge or a face of the boundary (of a curve or surface in space: of any cell)
and is where the distance is stationary along it. So all of these are asked, on every piece of the boundary that may be
nearest; one Newton step answers on straight ones.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.jacobian import determinant, inverse
from fem.mesh.mesh import Mesh
from fem.mesh.search.inverse_map import is_affine, to_bernstein
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
            for k, (_, vertices) in enumerate(entities(block.cell)):
                rows = torch.nonzero((cell >= start) & (cell < stop) & (entity == k)).flatten()
                if len(rows) and len(vertices) > 1:
                    tangents = block.cell.frame(vertices)[1].to(reference)
                    corners, at = mesh.nodes[block.nodes_of(cell[rows] - start)], reference[rows]
                    for _ in range(1 if is_affine(block.element) else 2):  # as in `attach`
                        at = at + newton(block.element, corners, points[rows], at, tangents)[0] @ tangents
                    reference = reference.index_copy(0, rows, at)
    return cell, reference


@cache
def entities(cell: Cell) -> tuple[tuple[Cell, tuple[int, ...]], ...]:
    """Vertices, edges, faces and the cell itself: what they are, and their vertices."""
    return tuple((entity_cell_of(cell, k), e) for k in range(cell.dim + 1) for e in sub_entities(cell, k))


@dataclass(frozen=True, eq=False)
class Pieces:
    """Cells of one block, or their facets of one local number, that make up the boundary, with a box around each."""

    block: int
    vertices: tuple[int, ...]
    cells: Int[Tensor, "f"]
    lower: Float[Tensor, "f d"]
    upper: Float[Tensor, "f d"]
    centre: Float[Tensor, "f d"]


def pieces(mesh: Mesh) -> list[Pieces]:
    """The boundary, or all cells of a curve or surface in space."""
    found, nodes, table, boundary = [], mesh.nodes.detach(), None, None
    if mesh.dim == mesh.num_coordinates:
        table, boundary = mesh.topology.facets, mesh.topology.boundary
    for i, block in enumerate(mesh.blocks):
        groups = {tuple(range(block.cell.num_vertices)): torch.arange(block.num_cells, device=mesh.device)}
        if table is not None and boundary is not None:
            own = boundary[table.block[boundary] == i]
            groups = {v: table.cell[own[table.local[own] == k]] for k, v in enumerate(block.cell.facets)}
        for k, (vertices, cells) in enumerate(groups.items()):
            if len(cells):
                control = nodes[block.nodes_of(cells)]
                if block.degree > 1:
                    control = to_bernstein(block.element).to(nodes) @ control
                if table is not None:  # the coefficients on a facet are those of its own Bernstein form
                    control = control[:, list(block.element.facet_nodes[k])]
                centre = torch.tensor([block.cell.vertices[v] for v in vertices], dtype=mesh.dtype, device=mesh.device)
                at = mesh.map(i, cells, centre.mean(0, keepdim=True))[0][:, 0].detach()
                found.append(Pieces(i, vertices, cells, control.amin(1), control.amax(1), at))
    return found


def feet(mesh: Mesh, points: Float[Tensor, "m d"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"], Int[Tensor, "m"]]:
    """Cell, reference coordinates, and the number in `entities` of what the nearest point lies on."""
    groups, parts = pieces(mesh), []
    lower, upper, centre = (torch.cat([getattr(g, name) for g in groups]) for name in ("lower", "upper", "centre"))
    sizes = [len(g.cells) for g in groups]
    for x in points.split(at_a_time(3 * lower.numel(), points, roomy=True)):
        gap = torch.maximum(lower - x[:, None], x[:, None] - upper).clamp(min=0).norm(dim=-1)
        reach = torch.cdist(x, centre, compute_mode="donot_use_mm_for_euclid_dist").amin(1, keepdim=True)
        found = []
        for group, near in zip(groups, (gap <= (1 + 1e-6) * reach).split(sizes, 1), strict=True):
            p, f = near.nonzero().unbind(1)
            found += candidates(mesh, group, x, p, f)
        parts.append(chosen(len(x), *map(torch.cat, zip(*found, strict=True))))
    cell, reference, entity = (
        (torch.cat(part) for part in zip(*parts, strict=True))
        if parts
        else (
            torch.zeros(0, dtype=torch.int64, device=mesh.device),
            points.new_zeros(0, mesh.dim),
            torch.zeros(0, dtype=torch.int64, device=mesh.device),
        )
    )
    return cell, reference, entity


def candidates(
    mesh: Mesh, group: Pieces, x: Float[Tensor, "m d"], p: Int[Tensor, "k"], f: Int[Tensor, "k"]
) -> list[tuple[Tensor, ...]]:
    """(Point, distance, cell, reference coordinates, entity) of the stationary points on the pieces f, for points p."""
    block, found = mesh.blocks[group.block], []
    corners = mesh.nodes.detach()[block.nodes_of(group.cells[f])]
    for k, (shape, vertices) in enumerate(entities(block.cell)):
        if set(vertices) <= set(group.vertices):
            reference, valid = stationary(block.element, corners, x[p], shape, vertices)
            q, at = p[valid], reference[valid]
            position = (block.element.tabulate(at, 0).value[0, :, None] @ corners[valid])[:, 0]
            cells = mesh.block_starts[group.block] + group.cells[f[valid]]
            found.append((q, (position - x[q]).norm(dim=1), cells, at, torch.full_like(cells, k)))
    return found


def chosen(count: int, p: Tensor, distance: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The rest of the row with the least distance for each of so many points p; of several the first."""
    least = distance.new_full((count,), torch.inf).scatter_reduce(0, p, distance, "amin")
    rows = torch.nonzero(distance == least[p]).flatten()
    first = torch.full((count,), len(p), device=p.device).scatter_reduce(0, p[rows], rows, "amin")
    return tuple(t[first] for t in rest)


def stationary(
    element: LagrangeElement,
    corners: Float[Tensor, "m a d"],
    x: Float[Tensor, "m d"],
    shape: Cell,
    vertices: tuple[int, ...],
) -> tuple[Float[Tensor, "m r"], Bool[Tensor, "m"]]:
    """Where |X(ξ) − x| is stationary along an entity of each cell, by Newton's method, and whether that lies on it.

    Steps are halved until the distance shrinks, and cut where they would leave the entity by more than half its size.
    """
    origin, tangents = (t.to(x) for t in element.cell.frame(vertices))
    if shape.dim == 0:
        return origin.expand(len(x), -1), torch.ones(len(x), dtype=torch.bool, device=x.device)
    matrix, offset = (t.to(x) for t in barycentric_map(shape))
    centre = torch.tensor(shape.vertices, dtype=x.dtype, device=x.device).mean(0)
    affine = is_affine(element) or (element.degree == 1 and shape.dim == 1)
    starts = centre[None] if affine else lagrange_element(shape, max(2, element.degree)).nodes.to(x)
    starts = centre + 0.8 * (starts - centre)
    samples = element.tabulate(origin + starts @ tangents, 0).value[0] @ corners
    eta = starts[(samples - x[:, None]).norm(dim=-1).argmin(1)]
    small, going = torch.finfo(x.dtype).eps ** (1 / 3), torch.ones_like(x[:, 0], dtype=torch.bool)
    step, best = torch.zeros_like(eta), torch.full_like(x[:, 0], torch.inf)
    for _ in range(1 if affine else 60):
        newtons, distance = newton(element, corners, x, origin + (eta + step) @ tangents, tangents)
        better = (distance < best) | (step.abs().amax(1) < small)
        eta = torch.where((better & going)[:, None], eta + step, eta)
        if not affine:
            change = newtons @ matrix.T
            room = (eta @ matrix.T + offset + 0.5).clamp(min=0) / -change
            newtons = newtons * torch.where(change < 0, room, 1).amin(1, keepdim=True).clamp(max=1)
        step, best = torch.where(better[:, None], newtons, step / 2), torch.where(better, distance, best)
        going = going & (step.abs().amax(1) > small**2)
        if not bool(going.any()):
            break
    eta = eta + step
    return origin + eta @ tangents, (eta @ matrix.T + offset >= -(small**2)).all(1)


def newton(
    element: LagrangeElement,
    corners: Float[Tensor, "m a d"],
    x: Float[Tensor, "m d"],
    reference: Float[Tensor, "m r"],
    tangents: Float[Tensor, "k r"],
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m"]]:
    """Newton's step for ½ |X − x|² along the tangents, and |X − x|.

    With A = ∂X/∂η: (AᵀA − Σ_d (x − X)_d ∂²X_d/∂η²)⁻¹ Aᵀ (x − X); without the second term where it is not positive.
    """
    flat = is_affine(element)
    table = element.tabulate(reference, 1 if flat else 2)
    assert table.grad is not None
    gap = x - (table.value[0, :, None] @ corners)[:, 0]
    A = corners.mT @ table.grad[0] @ tangents.T
    H = gram = A.mT @ A
    if not flat:
        assert table.hess is not None
        bend = torch.einsum("md,mad,mars,kr,ls->mkl", gap, corners, table.hess[0], tangents, tangents)
        H = gram - bend
        scale = gram.diagonal(dim1=-2, dim2=-1).prod(-1)
        positive = (H[:, 0, 0] > 0) & (determinant(H) > torch.finfo(x.dtype).eps * scale)
        H = torch.where(positive[:, None, None], H, gram)
    step = inverse(H, determinant(H)) @ (A.mT @ gap[..., None])
    return step[..., 0], gap.norm(dim=1)
