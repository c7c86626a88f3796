"""Sampling of fields and meshes for pictures: points, segments and triangles inside the cells, as NumPy arrays.

There are as many as the eye needs, so that polynomials of high degree and curved cells look like what they are, not
like their corner values. Of a solid the boundary is sampled.
"""

import numpy as np
import torch
from torch import Tensor

from fem.mesh.mesh import Mesh
from fem.reference.cells import Cell, entity_cell, get_cell
from fem.reference.lagrange import sub_entities
from fem.space.evaluation import values_in_cells
from fem.space.space import FunctionSpace

# Block, cells, shape, and in the reference cell the origin "r" and the tangents "k r".
Piece = tuple[int, Tensor | None, Cell, Tensor, Tensor]
SUBCELLS = {1: 2000, 2: 20000, 3: 6000}  # sub-cells of a picture, by the dimension of the space it is drawn in


class View:
    """What is drawn: positions, displaced where the field says so, and values, at reference points of chosen cells."""

    def __init__(self, mesh: Mesh, field: tuple[FunctionSpace, Tensor] | None, scale: float):
        self.mesh, self.field, self.scale = mesh, field, scale
        self.num_coordinates = mesh.num_coordinates
        self.is_vector = field is not None and len(field[0].value_shape) > 0
        self.moves = (
            self.is_vector and field is not None and field[0].components == mesh.num_coordinates > 1 and scale != 0
        )

    def at(
        self, block: int, cells: Tensor | None, points: Tensor, still: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions "e q d" and the values "e q c" of the field, where there is one; `still` before displacement."""
        with torch.no_grad():
            points = points.to(self.mesh.device, self.mesh.dtype)
            x, _, _ = self.mesh.map(block, cells, points)
            if self.field is None:
                return x.cpu().numpy(), None
            space, values = self.field
            found = values_in_cells(space, values.to(self.mesh.dtype), block, cells, points)
            found = found if self.is_vector else found[..., None]
            if self.moves and not still:
                x = x + self.scale * found
        return x.cpu().numpy(), found.cpu().numpy()

    def subdivisions(self, cells: int, dim: int) -> int:
        """Into how many parts to cut each edge: none where everything is linear."""
        spaces = [] if self.field is None else [self.field[0]]
        linear = all(block.degree == 1 and block.cell.is_simplex for block in self.mesh.blocks) and all(
            space.superdegree == 1 and all(element.cell.is_simplex for element in space.elements) for space in spaces
        )
        # In space small triangles are needed in any case: matplotlib paints each in one colour, sorted by its depth.
        if linear and self.num_coordinates < 3:
            return 1
        return int(np.clip(np.ceil((SUBCELLS[self.num_coordinates] / cells) ** (1 / dim)), 1, 24))

    def scalar(self, values: np.ndarray) -> np.ndarray:
        """What colours show: the value, or the magnitude of vectors."""
        return np.linalg.norm(values, axis=-1) if self.is_vector else values[..., 0]


def subdivision(cell: Cell, n: int) -> tuple[Tensor, np.ndarray]:
    """Reference points of a cell cut into n parts per edge, and the segments or triangles "t v" between them."""
    if cell.dim == 1:
        index = np.arange(n)
        return torch.linspace(0, 1, n + 1, dtype=torch.float64, device="cpu")[:, None], np.stack([index, index + 1], 1)
    j, i = np.divmod(np.arange((n + 1) ** 2), n + 1)
    corner = np.flatnonzero((i < n) & (j < n))
    lower = np.stack([corner, corner + 1, corner + n + 1], 1)
    upper = np.stack([corner + 1, corner + n + 2, corner + n + 1], 1)
    triangles = np.concatenate([lower, upper])
    if cell.is_simplex:  # without the points beyond it, which would count where axes are fitted
        inside = i + j <= n
        triangles = (np.cumsum(inside) - 1)[triangles[inside[triangles].all(1)]]
        i, j = i[inside], j[inside]
    return torch.tensor(np.stack([i, j], 1) / n, device="cpu"), triangles


def pieces(view: View) -> list[Piece]:
    """What is painted: the cells, or the boundary faces of a solid."""
    mesh = view.mesh
    if mesh.dim < 3:
        every = [(block.cell, *block.cell.frame(sub_entities(block.cell, mesh.dim)[0])) for block in mesh.blocks]
        return [(i, None, *frame) for i, frame in enumerate(every)]
    return facets(mesh, mesh.topology.boundary)


def facets(mesh: Mesh, chosen: Tensor) -> list[Piece]:
    """The facets chosen, each seen from the first cell that owns it, grouped by block and local facet."""
    table, found = mesh.topology.facets, []
    for i, block in enumerate(mesh.blocks):
        for local, vertices in enumerate(block.cell.facets):
            rows = chosen[(table.block[chosen] == i) & (table.local[chosen] == local)]
            if len(rows):
                found.append((i, table.cell[rows], entity_cell(len(vertices)), *block.cell.frame(vertices)))
    return found


def mosaic(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """All pieces cut up: points "m d", segments or triangles "t v" between them, scalar values "m"."""
    parts = pieces(view)
    count = sum(view.mesh.blocks[i].num_cells if cells is None else len(cells) for i, cells, *_ in parts)
    n = view.subdivisions(count, parts[0][2].dim)
    positions, corners, values, start = [], [], [], 0
    for i, cells, shape, origin, tangents in parts:
        points, cut = subdivision(shape, n)
        x, found = view.at(i, cells, origin + points @ tangents)
        offsets = start + len(points) * np.arange(len(x))
        corners.append((offsets[:, None, None] + cut).reshape(-1, cut.shape[1]))
        positions.append(x.reshape(-1, x.shape[-1]))
        start += len(points) * len(x)
        if found is not None:
            values.append(view.scalar(found).reshape(-1))
    return np.concatenate(positions), np.concatenate(corners), np.concatenate(values) if values else None


def edges(
    view: View, only_boundary: bool = False, still: bool = False, observer: np.ndarray | None = None
) -> list[np.ndarray]:
    """The edges of the pieces as polylines "e q d": of plane cells once each, of a solid those the observer may see."""
    mesh, interval = view.mesh, get_cell("interval")
    if mesh.dim == 2:
        table = mesh.topology.facets
        chosen = mesh.topology.boundary if only_boundary else torch.arange(len(table.vertices), device=mesh.device)
        sides = [(i, cells, origin, tangents) for i, cells, _, origin, tangents in facets(mesh, chosen)]
    else:
        sides = []
        for i, cells, shape, origin, tangents in pieces(view):
            if cells is not None and observer is not None:
                cells = cells[torch.as_tensor(faces(view, i, cells, origin, tangents, observer), device=cells.device)]
            for edge in shape.edges:
                start, along = shape.frame(edge)
                sides.append((i, cells, origin + start @ tangents, along @ tangents))
    n = view.subdivisions(sum(len(cells) for _, cells, *_ in sides if cells is not None), 1)
    points, _ = subdivision(interval, min(n, 16))
    return [view.at(i, cells, origin + points @ tangents, still)[0] for i, cells, origin, tangents in sides]


def faces(view: View, block: int, cells: Tensor, origin: Tensor, tangents: Tensor, observer: np.ndarray) -> np.ndarray:
    """Whether boundary faces look towards the observer, or not much away: curved ones may still show a part."""
    corners, _ = view.at(block, cells, torch.stack([origin, origin + tangents[0], origin + tangents[1]]))
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = torch.tensor(view.mesh.blocks[block].cell.vertices, dtype=torch.float64, device="cpu").mean(0)
    outward = torch.sign(torch.linalg.cross(tangents[0], tangents[1]) @ (origin - centre))
    return float(outward) * (normal @ observer) > -0.2 * np.linalg.norm(normal, axis=1)
