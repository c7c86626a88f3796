"""Elements of Abaqus: what meshio calls them, their faces, and the order of their nodes (Abaqus Elements Guide)."""

import re

import numpy as np

from fem.files.raw import RawBlock

# Families of element types; the number that follows is that of the nodes, of beams one more than their degree.
FAMILIES = (
    (
        r"(?:C|DC|AC|DCC|QC)3D(\d+)|SC(\d)",
        {4: "tetra", 5: "pyramid", 6: "wedge", 8: "hexahedron", 10: "tetra10", 13: "pyramid13"}
        | {15: "wedge15", 20: "hexahedron20", 27: "hexahedron27"},
    ),
    (
        r"(?:CPS|CPEG|CPE|CGAX|CAX|DC2D|DCC2D|AC2D|DCAX|DCCAX|ACAX|STRI|S|DS|M3D|SFM3D|R3D)(\d)",
        {3: "triangle", 4: "quad", 6: "triangle6", 8: "quad8", 9: "quad9"},
    ),
    (r"(?:T2D|T3D|R2D|RAX)(\d)", {2: "line", 3: "line3"}),
    (r"(?:B|PIPE)[23]([123])|(?:SAX|DSAX|MAX)([12])", {1: "line", 2: "line3", 3: "line"}),
)
POINTLIKE = r"MASS|ROTARYI|SPRING|DASHPOT|CONN|DCOUP|GAP|HEATCAP|JOINT|ITT|FRAME|DGAP"
# Faces of solids, S1, S2, …; edges of plane elements and shells, S1 or E1, ….
FACES = {
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 1, 2), (0, 3, 1), (1, 3, 2), (2, 3, 0)),
    "pyramid": ((0, 1, 2, 3), (0, 4, 1), (1, 4, 2), (2, 4, 3), (3, 4, 0)),
    "wedge": ((0, 1, 2), (3, 5, 4), (0, 3, 4, 1), (1, 4, 5, 2), (2, 5, 3, 0)),
    "hexahedron": ((0, 1, 2, 3), (4, 7, 6, 5), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0)),
}
STRAIGHT = {"line": 2, "triangle": 3, "quad": 4, "tetra": 4, "pyramid": 5, "wedge": 6, "hexahedron": 8}

# Where the nodes of VTK's order stand in that of Abaqus, if it is another, and the vertices among them.
ORDER = {
    "line3": ((0, 2, 1), 2),
    "hexahedron27": ((*range(20), 26, 24, 23, 25, 21, 22, 20), 8),
}


def kind_of(element_type: str) -> str | None:
    """What meshio calls elements of a type of Abaqus."""
    for pattern, kinds in FAMILIES:
        found = re.match(pattern, element_type)
        if found is not None:
            return kinds.get(int(found[1] or found[2]))
    return None


def in_vtk_order(kind: str, cells: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Cells of Abaqus in VTK's order; meshio writes that into its files, and the node in the middle tells it."""
    if kind not in ORDER:
        return cells
    order, vertices = ORDER[kind]

    def off_centre(x: np.ndarray) -> float:
        return float(np.linalg.norm(x[:, -1] - x[:, :vertices].mean(1), axis=1).sum())

    other = cells[:, list(order)]
    return other if off_centre(points[other]) < off_centre(points[cells]) else cells


def exposed(blocks: list[RawBlock], tuples: np.ndarray) -> np.ndarray:
    """Those of some facets "f v" that belong to one cell alone."""
    known = []
    for block in blocks:
        for face in FACES.get(block.type.rstrip("0123456789"), ()):
            if len(face) == tuples.shape[1]:
                known.append(block.data[:, list(face)])
    rows = np.sort(np.concatenate([*known, tuples]), axis=1)
    _, number, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return tuples[counts[number.reshape(-1)[len(rows) - len(tuples) :]] == 2]
