"""Medit's `.mesh` files as text: a keyword, how many, and as many rows (INRIA RT-0253, "MEDIT, an interactive mesh …").

Read here rather than by meshio, which stops reading where a count says so and knows no cells of degree 2.
"""

import re

import numpy as np

from fem.errors import MeshError
from fem.files.formats.scanner import without_comments
from fem.files.raw import RawBlock, RawMesh

CELLS = """
    Edges line 2, Triangles triangle 3, Quadrilaterals quad 4, Tetrahedra tetra 4, Hexahedra hexahedron 8,
    Hexaedra hexahedron 8, Prisms wedge 6, Pyramids pyramid 5, EdgesP2 line3 3, TrianglesP2 triangle6 6,
    TetrahedraP2 tetra10 10, QuadrilateralsQ2 quad9 9, HexahedraQ2 hexahedron27 27
"""
KINDS = {key: (name, int(size)) for key, name, size in re.findall(r"(\w+) (\w+) (\d+)", CELLS)}

# What describes the geometry, not the mesh.
OTHERS = r"Corners|Ridges|Required\w+|Normals?\w*|Tangents?\w*|\w+OnGeometric\w+|SubDomain\w+|AngleOfCornerBound"


def read_medit(data: bytes) -> RawMesh:
    """The contents of a file; references of vertices and cells are data "medit:ref".

    Raises:
        MeshError: with the line where the file stops making sense.
    """
    scanner = without_comments(data)
    dim, points, point_refs, cells, refs = 0, None, np.empty(0), [], []
    while re.compile(rb"\s*\S").match(scanner.data, scanner.at):
        word = scanner.word("a keyword")
        if not word[0].isalpha():
            scanner.at += 1
            raise scanner.wrong("a keyword, after as many rows as the last one announces", word)
        if word == "End":
            break
        if word in ("MeshVersionFormatted", "Dimension"):
            (value,) = scanner.record("N", f"the number of {word}")
            dim = value if word == "Dimension" else dim
            continue
        if word in ("Identifier", "Geometry"):
            scanner.word(word)
            continue
        if word != "Vertices" and word not in KINDS and not re.fullmatch(OTHERS, word):
            scanner.at += 1
            raise scanner.wrong("a keyword, such as Vertices or Triangles", word)
        (count,) = scanner.record("N", f"the number of {word}")
        if word == "Vertices":
            if dim not in (2, 3) or points is not None:
                raise MeshError(f"{scanner.place}: Vertices need a Dimension of 2 or 3 before them, and come once.")
            *x, point_refs = scanner.table("d" * dim + "i", count, word)
            points = np.stack(x, 1)
        elif word in KINDS:
            name, size = KINDS[word]
            *nodes, ref = scanner.table("i" * (size + 1), count, word)
            cells.append(RawBlock(name, np.stack(nodes, 1) - 1))
            refs.append(ref)
        else:
            scanner.enough(count, count, word)
            scanner.rest_of_line(count, word)
    if points is None:
        raise MeshError("it has no section Vertices.")
    return RawMesh(points, cells, {"medit:ref": point_refs}, {"medit:ref": refs})
