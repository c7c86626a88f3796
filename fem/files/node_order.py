"""Kinds of cells as meshio calls them, and where the nodes of our order stand in theirs."""

from pathlib import Path

import torch

from fem.errors import MeshError
from fem.reference.cells import CELLS, Cell, point
from fem.reference.lagrange import lagrange_element

PREFIXES = {
    "line": "interval",
    "triangle": "triangle",
    "quad": "quadrilateral",
    "tetra": "tetrahedron",
    "hexahedron": "hexahedron",
}
LAGRANGE = {
    "VTK_LAGRANGE_CURVE": "interval",
    "VTK_LAGRANGE_TRIANGLE": "triangle",
    "VTK_LAGRANGE_QUADRILATERAL": "quadrilateral",
    "VTK_LAGRANGE_TETRAHEDRON": "tetrahedron",
    "VTK_LAGRANGE_HEXAHEDRON": "hexahedron",
}
# Gmsh numbers the interiors of edges and faces in this order and orientation (reference manual, "Node ordering").
GMSH_EDGES = {
    "quadrilateral": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetrahedron": ((0, 1), (1, 2), (2, 0), (3, 0), (3, 2), (3, 1)),
    "hexahedron": (
        *((0, 1), (0, 3), (0, 4), (1, 2), (1, 5), (2, 3)),
        *((2, 6), (3, 7), (4, 5), (4, 7), (5, 6), (6, 7)),
    ),
}
GMSH_FACES = {
    "quadrilateral": ((0, 1, 2, 3),),
    "tetrahedron": ((0, 2, 1), (0, 1, 3), (0, 3, 2), (3, 1, 2)),
    "hexahedron": ((0, 3, 2, 1), (0, 1, 5, 4), (0, 4, 7, 3), (1, 2, 6, 5), (2, 3, 7, 6), (4, 5, 6, 7)),
}


# Dimension and number of nodes of straight cells of all kinds, ours or not.
STRAIGHT = {
    "vertex": (0, 1),
    "line": (1, 2),
    "triangle": (2, 3),
    "quad": (2, 4),
    "tetra": (3, 4),
    "hexahedron": (3, 8),
    "wedge": (3, 6),
    "pyramid": (3, 5),
}


def dimension(name: str) -> int:
    """Of one of meshio's kinds of cells."""
    return STRAIGHT[name.rstrip("0123456789")][0]


def num_nodes(name: str) -> int | None:
    """Of one of meshio's kinds of cells: the number at the end of its name, or None where any will do."""
    straight = name.rstrip("0123456789")
    if straight not in STRAIGHT:
        return None
    return STRAIGHT[name][1] if name == straight else int(name[len(straight) :])


def cell_of(path: Path, name: str) -> Cell:
    """The reference cell of one of meshio's kinds."""
    if name == "vertex":
        return point
    if name in LAGRANGE:
        return CELLS[LAGRANGE[name]]
    supported = {}
    for prefix, cell in PREFIXES.items():
        sizes = [lagrange_element(CELLS[cell], degree).num_basis for degree in (1, 2, 3)]
        supported |= {prefix: cell} | {f"{prefix}{size}": cell for size in sizes[1:]}
    if name not in supported:
        raise MeshError(
            f"{path} contains {name} cells; supported are {', '.join(supported)} and VTK's Lagrange cells."
            + remedy(name)
        )
    return CELLS[supported[name]]


def remedy(name: str) -> str:
    """What to do about a kind of cells that there is not."""
    kind = name.rstrip("0123456789")
    if name in ("wedge", "pyramid"):
        return " `read_mesh(path, split=True)` divides them, and hexahedra beside them, into tetrahedra."
    if kind in ("wedge", "pyramid"):
        return " Have such parts meshed by tetrahedra, which any volume can be."
    if name in ("triangle9", "quad12", "tetra16", "hexahedron32"):
        return " These have no nodes in their interior: write complete ones (Gmsh: Mesh.SecondOrderIncomplete = 0)."
    if kind in ("polygon", "polyhedron", "pentagonal_prism", "hexagonal_prism"):
        return " Divide them into triangles or tetrahedra."
    if name.startswith("VTK_BEZIER"):
        return " Write them as Lagrange cells of degree 1 to 3."
    return " Write the mesh with cells of degree 1 to 3." if kind in PREFIXES else ""


def vtk_order(name: str, cell: Cell, size: int) -> list[int]:
    """Where each node of our order stands in the file's; cubic cells come in Gmsh's own order."""
    natural = list(range(size))
    if name in LAGRANGE or cell.name not in GMSH_EDGES or size != lagrange_element(cell, 3).num_basis:
        return natural
    vertices = torch.tensor(cell.vertices, dtype=torch.float64, device="cpu")
    nodes = [vertices]
    for edge in GMSH_EDGES[cell.name]:
        ends = vertices[list(edge)]
        nodes.append((2 * ends + ends.flip(0)) / 3)
    for face in GMSH_FACES[cell.name]:
        corners = vertices[list(face)]
        nodes.append((corners + 2 * corners.mean(0)) / 3 if len(face) == 4 else corners.mean(0, keepdim=True))
    if cell.name == "hexahedron":
        nodes.append((vertices + 2 * vertices.mean(0)) / 3)
    return torch.cdist(lagrange_element(cell, 3).nodes, torch.cat(nodes)).argmin(1).tolist()


def exchanged_edges(size: int) -> list[int]:
    """Lagrange hexahedra with the last two vertical edges exchanged, as VTK did in version 9; its own inverse."""
    inner = round(size ** (1 / 3)) - 2
    start = 8 + 10 * inner
    swapped = [*range(start + inner, start + 2 * inner), *range(start, start + inner)]
    return [*range(start), *swapped, *range(start + 2 * inner, size)]
