"""Reference cells: the shapes that elements, quadrature and meshes agree on.

Every cell is a product of simplices on the unit interval or unit simplex, and its vertices, edges and faces follow
VTK's order (counterclockwise quadrilaterals; in three dimensions the bottom first, then the top). Edges are directed
and faces have an origin and two axes: the interior nodes of high-order elements are counted along them.

    interval          triangle          quadrilateral        tetrahedron          hexahedron
                      2                 3 ---- 2             3                    7 ---- 6
                      | \\               |      |             | \\ `2               4 ---- 5 |
    0 ---- 1          0 - 1             0 ---- 1             0 -- 1               | 3 -- | 2
                                                                                  0 ---- 1
"""

from dataclasses import dataclass
from functools import cached_property
from math import factorial, prod

import torch
from torch import Tensor

from fem.support.checks import did_you_mean, shown
from fem.support.transforms import outside_transforms


@dataclass(frozen=True)
class Cell:
    """A reference cell: `factors` are the dimensions of the simplices whose product it is, (1, 1) for the square."""

    name: str
    factors: tuple[int, ...]
    vertices: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, ...], ...] = ()
    faces: tuple[tuple[int, ...], ...] = ()

    @property
    def dim(self) -> int:
        return sum(self.factors)

    @property
    def num_vertices(self) -> int:
        return len(self.vertices)

    @property
    def volume(self) -> float:
        """Length, area or volume of the reference cell."""
        return 1 / prod(factorial(k) for k in self.factors)

    @property
    def is_simplex(self) -> bool:
        return len(self.factors) <= 1

    @cached_property
    def facets(self) -> tuple[tuple[int, ...], ...]:
        """Vertices of each codimension-1 entity."""
        points = tuple((i,) for i in range(self.num_vertices))
        return {0: (), 1: points, 2: self.edges, 3: self.faces}[self.dim]

    @property
    def facet_cell(self) -> "Cell":
        return entity_cell(len(self.facets[0]))

    def frame(self, entity: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Origin "r" and tangents "k r" of the affine map from the reference cell of a sub-entity into this cell."""
        if len(entity) == self.num_vertices:
            return torch.zeros(self.dim, dtype=torch.float64, device="cpu"), torch.eye(
                self.dim, dtype=torch.float64, device="cpu"
            )
        corners = torch.tensor([self.vertices[i] for i in entity], dtype=torch.float64, device="cpu").reshape(
            len(entity), self.dim
        )
        axes = {1: [], 2: [1], 3: [1, 2], 4: [1, 3]}[len(entity)]
        return corners[0], corners[axes] - corners[0]

    @cached_property
    @outside_transforms()
    def facet_normals(self) -> Tensor:
        """Outward unit normals "f r" of the reference facets."""
        centre = torch.tensor(self.vertices, dtype=torch.float64, device="cpu").mean(0)
        normals = []
        for facet in self.facets:
            origin, tangents = self.frame(facet)
            normal = (
                torch.linalg.svd(tangents)[2][-1] if len(tangents) else torch.ones(1, dtype=torch.float64, device="cpu")
            )
            normals.append(normal * torch.sign(torch.dot(normal, origin - centre)))
        return torch.stack(normals)


point = Cell("point", (), ((),))
interval = Cell("interval", (1,), ((0,), (1,)), ((0, 1),))
triangle = Cell("triangle", (2,), ((0, 0), (1, 0), (0, 1)), ((0, 1), (1, 2), (2, 0)), ((0, 1, 2),))
quadrilateral = Cell(
    "quadrilateral",
    (1, 1),
    ((0, 0), (1, 0), (1, 1), (0, 1)),
    ((0, 1), (1, 2), (3, 2), (0, 3)),
    ((0, 1, 2, 3),),
)
tetrahedron = Cell(
    "tetrahedron",
    (3,),
    ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)),
    ((0, 1, 3), (1, 2, 3), (0, 2, 3), (0, 1, 2)),
)
hexahedron = Cell(
    "hexahedron",
    (1, 1, 1),
    ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
    ((0, 1), (1, 2), (3, 2), (0, 3), (4, 5), (5, 6), (7, 6), (4, 7), (0, 4), (1, 5), (2, 6), (3, 7)),
    ((0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4), (3, 2, 6, 7), (0, 1, 2, 3), (4, 5, 6, 7)),
)

CELLS = {cell.name: cell for cell in (interval, triangle, quadrilateral, tetrahedron, hexahedron)}


def entity_cell(num_vertices: int) -> Cell:
    """The reference cell of a vertex, edge or face, told by its number of vertices."""
    return (point, interval, triangle, quadrilateral)[num_vertices - 1]


def get_cell(name: "str | Cell") -> Cell:
    """The cell of that name.

    Raises:
        ValueError: no such cell.
    """
    if isinstance(name, Cell):
        return name
    if not isinstance(name, str) or name not in CELLS:
        divided = name in ("wedge", "prism", "pyramid") if isinstance(name, str) else False
        meant = " Divide such cells into tetrahedra, as any volume can be." if divided else did_you_mean(name, CELLS)
        raise ValueError(f"`cell` must be one of {', '.join(CELLS)}; got {shown(name)}.{meant}")
    return CELLS[name]
