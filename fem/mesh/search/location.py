"""Points in a mesh: the cell and reference coordinates of each.

Bounding boxes narrow the search, Newton's method settles it. Which cell a point lies in is discrete and has no
derivative; that of its reference coordinates is the inverse Jacobian, attached by a Newton step at the result.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.mesh.search.box_search import Boxes
from fem.mesh.search.inverse_map import bounds, invert, is_affine, pull_back, push
from fem.support.cache import Store
from fem.support.portions import at_a_time


def attach(
    mesh: Mesh, block: int, cells: Int[Tensor, "m"], reference: Float[Tensor, "m r"], points: Float[Tensor, "m d"]
) -> Float[Tensor, "m r"]:
    """The same reference coordinates as a function of points and nodes, by Newton's step ξ + J(ξ)⁻¹ (x − X(ξ)).

    The step is zero but its derivative is that of the inverse map; each further one doubles the orders that are right.
    """
    element = mesh.blocks[block].element
    corners = mesh.nodes[mesh.blocks[block].nodes_of(cells)]
    for _ in range(1 if is_affine(element) else 2):
        position, jacobian = push(element, corners, reference)
        reference = reference + (invert(jacobian) @ (points - position)[..., None])[..., 0]
    return reference


# -- which cell ----------------------------------------------------------------------------------------------------


def locate(mesh: Mesh, points: Float[Tensor, "m d"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
    """The cell that contains each point, numbered over all blocks, and ξ = X⁻¹(x) in it; −1 and NaN outside the mesh.

    Of several cells that share the point the lowest-numbered is taken. Cells are closed, and wider by ε^(2/3) in
    reference coordinates (4e-11 in float64) and by round-off in the coordinates. On curves and surfaces in space,
    points off them by up to 100 times that, relative to the size of the cell, still count. No gradient.

    Raises:
        TypeError: points that are no tensor of the mesh's dtype on its device.
        ValueError: points of another shape, or not finite.
    """
    points = check_points(mesh, points).detach()
    if mesh.is_uniform and mesh.grid is not None:
        return locate_in_grid(mesh, points)
    (boxes, slack), allowed = cell_boxes(mesh), tolerances(mesh)
    cell = torch.full((len(points),), mesh.num_cells, device=points.device)
    reference = points.new_full((len(points), mesh.dim), torch.nan)
    for point, candidate in boxes.pairs(points):
        for i, block in enumerate(mesh.blocks):
            start, stop = mesh.block_starts[i : i + 2]
            own = (candidate >= start) & (candidate < stop)
            pairs = torch.stack([point[own], candidate[own]])
            width = 8 * block.connectivity[0].numel() * points.shape[1]  # what is made of each coordinate of a node
            for p, c in pairs.split(at_a_time(width, points, roomy=True), 1):
                corners = mesh.nodes.detach()[block.connectivity[c - start]]
                at, inside = pull_back(block.element, corners, points[p], slack[c], *allowed)
                p, c, at = p[inside], c[inside], at[inside]
                cell = cell.scatter_reduce(0, p, c, "amin")
                chosen = cell[p] == c
                reference[p[chosen]] = at[chosen]
    return torch.where(cell == mesh.num_cells, -1, cell), reference


def check_points(mesh: Mesh, points: Any) -> Tensor:
    """The points, if they are coordinates "m d" like the mesh's nodes, and finite."""
    d = mesh.num_coordinates
    if not isinstance(points, Tensor):
        raise TypeError(f"`points` must be a tensor of shape (m, {d}); got {type(points).__name__}.")
    if points.dtype != mesh.dtype or points.device != mesh.device:
        raise TypeError(
            f"`points` must be {mesh.dtype} on {mesh.device} like the mesh; got {points.dtype} on {points.device}. "
            "Convert with `points.to(mesh.nodes)`."
        )
    if points.ndim != 2 or points.shape[1] != d:
        raise ValueError(f"`points` must have shape (m, {d}), one row per point; got {tuple(points.shape)}.")
    finite = torch.isfinite(points).all(1)
    if not bool(finite.all()):
        wrong = int(torch.nonzero(~finite)[0])
        raise ValueError(f"`points` must be finite; `points[{wrong}]` is {points[wrong].tolist()}.")
    return points


def tolerances(mesh: Mesh) -> tuple[float, float]:
    """How far outside a cell still counts, in reference coordinates, and round-off in physical ones."""
    eps = torch.finfo(mesh.dtype).eps
    coordinates = (mesh.nodes.detach(),) if mesh.box is None else mesh.box.axes
    return eps ** (2 / 3), 8 * eps * max(float(x.abs().max()) for x in coordinates)


def locate_in_grid(mesh: Mesh, points: Float[Tensor, "m d"]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
    """Boxes cut into equal cells need no search."""
    assert mesh.grid is not None
    assert mesh.box is not None
    count = torch.tensor(mesh.grid, device=points.device)
    lower, upper = mesh.box.corners.unbind()
    width = (upper - lower) / count
    tolerance = sum(t / s for t, s in zip(tolerances(mesh), (1, width), strict=True))
    scaled = (points - lower) / width
    # Rounded up less one: a point between two cells is the lower one's.
    index = torch.minimum((scaled - tolerance).ceil() - 1, count - 1).clamp(min=0)
    lost = ((scaled < -tolerance) | (scaled > count + tolerance)).any(1, keepdim=True)
    strides = torch.cumprod(torch.cat([count.new_ones(1), count[:-1]]), 0)
    cell = (index.long() * strides).sum(1)
    return cell.masked_fill(lost[:, 0], -1), (scaled - index).masked_fill(lost, torch.nan)


_boxes = Store("boxes around cells", 64)


def cell_boxes(mesh: Mesh) -> tuple[Boxes, Float[Tensor, "e"]]:
    """A box around every cell, and by how much it is wider than the cell: the distance that still counts as zero.

    They serve until the nodes of the mesh change.
    """

    def make() -> tuple[int, Boxes, Tensor]:
        nodes = mesh.nodes.detach()
        lower, upper = bounds(nodes, mesh.blocks)
        tolerance, roundoff = tolerances(mesh)
        slack = 100 * tolerance * (upper - lower).amax(1) + 2 * roundoff
        return nodes._version, Boxes(lower - slack[:, None], upper + slack[:, None]), slack

    found = _boxes.get("boxes", make, mesh)
    if found[0] != mesh.nodes._version:
        found = _boxes.put("boxes", make(), mesh)
    return found[1:]
