"""Abaqus input files: sets, surfaces, parts and instances are found as Abaqus finds them, and clamp and load."""

import random
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch

from fem.errors import MeshError
from fem.files.formats.abaqus.elements import FACES, exposed, in_vtk_order, kind_of
from fem.files.formats.abaqus.keywords import Keyword, keyword, keywords
from fem.files.formats.abaqus.model import generated, moved, read_abaqus
from fem.files.raw import RawBlock
from fem.files.reading import read_mesh
from fem.forms.constraints import Dirichlet
from fem.forms.energy import Energy
from fem.mesh.generators import unit_cube
from fem.mesh.mesh import Mesh
from fem.output.vtk import KINDS
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace
from solvers.minimization import minimize

PLATE = """*Heading
 with a comment, that goes on for a while
** and another
*Node, nset=all nodes
 1, 0., 0.
 2, 1.0D0, 0.
 3, 1., 1.
 4, 0., 1
 10, 2,
 20, 2, 1, 0
 99, 7, 7, 7
*Element, type=CPS4R, elset=Left Half
 1, 1,2,
 3,4
*element, TYPE=cps4, Elset=RIGHT
2, 2,10,20,3
*Element, type=T2D2, elset=bars
7, 1, 4
*Nset, nset=Clamp
 1,
 4
*NSET,NSET="two words"
clamp, 10
*NSET, NSET=of right, ELSET=right
*nset, nset=odd, generate
 1, 3, 2
*elset, elset=both
LEFT HALF, Right
*Surface, type=ELEMENT, name=Pull
right, S2
*Surface, name=free
both,
*SURFACE, TYPE=NODE, NAME=nodes
Clamp, 1.
*Surface, combine=union, name=Both
pull, free
"""
ASSEMBLY = """*PART, NAME=Wheel
*NODE
1, 0, 0
2, 1, 0
3, 1, 1
4, 0, 1
*ELEMENT, TYPE=CPS4, ELSET=ALL
5, 1, 2, 3, 4
*NSET, NSET=Hub
1, 2
*SURFACE, NAME=Rim
ALL, S3
*END PART
*ASSEMBLY, NAME=A
*INSTANCE, NAME=Front, PART=Wheel
*END INSTANCE
*INSTANCE, NAME=Rear, PART=WHEEL
10., 0., 0.
10., 0., 0., 10., 0., 1., 90.
*END INSTANCE
*NODE
1, 5, 5, 5
*NSET, NSET=Pins, INSTANCE=Rear
Hub, 4
*NSET, NSET=Mixed
front.3, Rear.Hub, 1
*ELSET, ELSET=_picked, INTERNAL, INSTANCE=front
5
*SURFACE, NAME=Ground
_Picked, S1
rear.ALL, S1
*END ASSEMBLY
"""


def write(folder: Path, text: str, name: str = "m.inp") -> Path:
    (folder / name).write_text(text)
    return folder / name


def points(mesh: Mesh, name: str) -> list[list[float]]:
    return sorted(mesh.nodes[mesh.nodes_tagged(name)].round(decimals=12).tolist())


def ends(mesh: Mesh, name: str) -> list[list[list[float]]]:
    return sorted(
        sorted(facet) for facet in mesh.nodes[mesh.facets[mesh.facets_tagged(name)]].round(decimals=12).tolist()
    )


def test_sets_and_surfaces_of_a_flat_file(tmp_path: Path):
    mesh = read_mesh(write(tmp_path, PLATE))
    assert {k: v.tolist() for k, v in mesh.cell_tags.items()} == {"Left Half": [0], "RIGHT": [1], "both": [0, 1]}
    assert len(mesh.nodes_tagged("all nodes")) == 6  # the seventh belongs to no cell
    assert points(mesh, "Clamp") == points(mesh, "nodes") == [[0, 0], [0, 1]]
    assert points(mesh, "two words") == [[0, 0], [0, 1], [2, 0]]
    assert points(mesh, "of right") == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert points(mesh, "odd") == [[0, 0], [1, 1]]
    assert ends(mesh, "Pull") == [[[2, 0], [2, 1]]]
    assert ends(mesh, "Clamp") == ends(mesh, "bars") == [[[0, 0], [0, 1]]]
    assert set(mesh.facets_tagged("free").tolist()) == set(mesh.facets_tagged("boundary").tolist())
    assert set(mesh.facets_tagged("Both").tolist()) == set(mesh.facets_tagged("boundary").tolist())


def test_parts_and_instances(tmp_path: Path):
    mesh = read_mesh(write(tmp_path, ASSEMBLY))
    assert points(mesh, "Front.Hub") == [[0, 0], [1, 0]]
    assert points(mesh, "Rear.Hub") == [[10, 0], [10, 1]]
    assert points(mesh, "Pins") == [[9, 0], [10, 0], [10, 1]]
    assert points(mesh, "Mixed") == [[1, 1], [10, 0], [10, 1]]
    assert ends(mesh, "Ground") == [[[0, 0], [1, 0]], [[10, 0], [10, 1]]]
    assert ends(mesh, "Rear.Rim") == [[[9, 0], [9, 1]]]
    assert {k: v.tolist() for k, v in mesh.cell_tags.items()} == {"_picked": [0], "Front.ALL": [0], "Rear.ALL": [1]}
    one = (
        ASSEMBLY.replace(", INSTANCE=Rear", ", INSTANCE=Front")
        .replace("Rear.Hub", "front.4")
        .replace("rear.ALL, S1", "")
    )
    start, end = one.index("*INSTANCE, NAME=Rear"), one.index("*NODE\n1, 5")
    mesh = read_mesh(write(tmp_path, one[:start] + one[end:]))
    assert set(mesh.facet_tags) == {"Pins", "Hub", "Mixed", "Ground", "Rim"}  # one instance needs no prefix
    parts_alone = ASSEMBLY[: ASSEMBLY.index("*ASSEMBLY")]
    assert set(read_mesh(write(tmp_path, parts_alone)).cell_tags) == {"ALL"}


@pytest.mark.parametrize("degree", [1, 2])
def test_sets_and_surfaces_clamp_and_load_a_plate(degree: int, tmp_path: Path):
    """A bar in tension, u = x, whatever names its ends: sets of the vertices or of all nodes of a face, or surfaces."""
    mesh = unit_cube(2).curved(degree)
    contents = meshio.Mesh(mesh.nodes.numpy(), [(KINDS["hexahedron"][degree - 1], mesh.cells.numpy())])
    if degree == 1:
        contents.write(tmp_path / "m.inp", file_format="abaqus")
        text = (tmp_path / "m.inp").read_text()
    else:
        rows = [f"{i + 1}, {', '.join(map(str, x))}" for i, x in enumerate(mesh.nodes.tolist())]
        cells = [f"{i + 1}, {', '.join(str(n + 1) for n in c)}" for i, c in enumerate(mesh.cells.tolist())]
        text = "\n".join(["*NODE", *rows, "*ELEMENT, TYPE=C3D27", *cells, ""])
    left = [str(n + 1) for n in torch.nonzero(mesh.nodes[:, 0] == 0).flatten().tolist()]
    right = torch.nonzero(mesh.nodes[mesh.cells].amax(1)[:, 0] == 1).flatten() + 1
    text += "*NSET, NSET=Clamp\n" + ",\n".join(left) + "\n*ELSET, ELSET=ends\n" + "\n".join(map(str, right.tolist()))
    mesh = read_mesh(write(tmp_path, text + "\n*SURFACE, NAME=Pull\nEnds, S4\n"))
    assert ends(mesh, "Pull")[0][0][0] == 1
    assert len(mesh.facets_tagged("Pull")) == len(mesh.facets_tagged("Clamp")) == 4
    V = FunctionSpace(mesh, Lagrange(2))
    energy = Energy(
        V,
        lambda x, u, grad_u: 0.5 * grad_u.square().sum(-1),
        Dirichlet(V, {"Clamp": 0.0}),
        boundary={"Pull": lambda x, u, normal: -u * normal[..., 0]},
    )
    torch.testing.assert_close(minimize(energy).value, V.dof_coordinates[:, 0], atol=1e-12, rtol=0)


def test_faces_stand_on_the_elements_that_bear_them():
    """Each face lies on one side of its element, and all vertices are on as many faces as in the solid."""
    for kind, faces in FACES.items():
        counts = np.bincount([corner for face in faces for corner in face])
        assert set(counts.tolist()) <= ({2} if kind in ("triangle", "quad") else {3, 4})
        edges = [frozenset(pair) for face in faces for pair in zip(face, (*face[1:], face[0]), strict=True)]
        if kind not in ("triangle", "quad"):
            assert all(edges.count(edge) == 2 for edge in edges)


def test_kinds_of_elements():
    kinds = {"C3D4H": "tetra", "c3d20r".upper(): "hexahedron20", "DC3D10": "tetra10", "SC8R": "hexahedron"}
    kinds |= {"CPE6M": "triangle6", "CAX4P": "quad", "S4R5": "quad", "STRI65": "triangle6", "S9R5": "quad9"}
    kinds |= {"M3D3": "triangle", "R3D4": "quad", "B31": "line", "B22H": "line3", "T3D2": "line", "SAX1": "line"}
    kinds |= {"CPEG8": "quad8", "DC2D3": "triangle", "AC3D20": "hexahedron20", "C3D15": "wedge15", "SAX2": "line3"}
    assert {name: kind_of(name) for name in kinds} == kinds
    for unknown in ("COH3D8", "CIN3D8", "U1", "C3D9"):
        assert kind_of(unknown) is None


def test_nodes_in_the_middle_tell_the_order():
    x = np.array([[0.0], [1], [2], [3], [4]])
    assert in_vtk_order("line3", np.array([[0, 1, 2]]), x).tolist() == [[0, 2, 1]]
    assert in_vtk_order("line3", np.array([[0, 4, 2]]), x).tolist() == [[0, 4, 2]]
    assert in_vtk_order("line", np.array([[0, 4]]), x).tolist() == [[0, 4]]


def test_exposed_facets():
    blocks = [RawBlock("quad", np.array([[0, 1, 2, 3], [1, 4, 5, 2]]))]
    assert exposed(blocks, np.array([[1, 2], [0, 1], [2, 5]])).tolist() == [[0, 1], [2, 5]]


def test_placement():
    x = np.array([[1.0, 0, 0]])
    turned = moved(x, np.array([1.0, 0, 0, 0, 0, 0, 0, 1, 1, 180]), "i")
    np.testing.assert_allclose(turned, [[-2, 0, 0]], atol=1e-15)
    with pytest.raises(MeshError, match="placed by three numbers"):
        moved(x, np.zeros(2), "i")
    with pytest.raises(MeshError, match="an axis of length 0"):
        moved(x, np.zeros(10), "i")


def test_syntax(tmp_path: Path):
    found = keyword('*Nset , nset = "a, b=c", Generate', "line 3")
    assert (found.name, found.parameters) == ("NSET", {"NSET": "a, b=c", "GENERATE": ""})
    assert generated(Keyword("NSET", {}, ["1, 7, 3", "20,21"], "")).tolist() == [1, 4, 7, 20, 21]
    write(tmp_path, "*NODE\n1, 0\n", "nodes.inc")
    path = write(tmp_path, "*INCLUDE, INPUT=nodes.inc\n*NSET,\n NSET=a\n1\n*NODE, INPUT=nodes.inc\n")
    assert [(k.name, k.lines) for k in keywords(path)] == [("NODE", ["1, 0"]), ("NSET", ["1"]), ("NODE", ["1, 0"])]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1, 2\n", "line 1: a file for Abaqus begins with a keyword"),
        ("*INCLUDE, INPUT=../secret.inp\n", r"line 1: it refers to \.\./secret\.inp, outside of its folder"),
        ("*INCLUDE, INPUT=/etc/hostname\n", "outside of its folder"),
        ("*INCLUDE, INPUT=none.inp\n", "no such file"),
        ("*INCLUDE, INPUT=m.inp\n", "files in a circle"),
        ("*NODE\n1, 0, x\n", r"line 1: \*NODE needs numbers; got 'x'"),
        ("*NODE\n1, 0, 0, 0, 0, 0, 1\n", "one to three coordinates"),
        ("*NODE\n1.5, 0\n", "numbers of nodes must be positive integers"),
        ("*NODE\n1, 0\n1, 1\n*ELEMENT, TYPE=T2D2\n1, 1, 1\n", "two nodes or two elements have the number 1"),
        ("*NODE\n1, 0, 0\n*ELEMENT, TYPE=CPS3\n1, 1, 1\n", r"\*ELEMENT needs 4 numbers for each row"),
        ("*NODE\n1, 0, 0\n*ELEMENT\n1, 1, 1\n", "needs the parameter TYPE"),
        ("*NODE\n1, 0, 0\n*ELEMENT, TYPE=T2D2\n1, 1, 2\n", "names node 2, which is not defined"),
        ("*ELEMENT, TYPE=COH3D8\n1, 1, 2\n", "elements of type COH3D8 are not supported"),
        ("*NGEN\n1, 2\n", r"\*NGEN has Abaqus generate or move nodes; write the mesh out in full"),
        ("*NODE, SYSTEM=C\n1, 2\n", "generate or move nodes"),
        (PLATE + "*NSET, NSET=x\nnowhere\n", "line 37: the nset 'nowhere' is not defined"),
        (PLATE + "*ELSET, ELSET=x\nx\n", "the elset 'x' leads in a circle to itself"),
        (PLATE + "*ELSET, ELSET=x\n77\n", "the elset 'x' names element 77, which is not defined"),
        (PLATE + "*SURFACE, NAME=x\nboth, S5\n", "a quad has no face 'S5'"),
        (PLATE + "*SURFACE, NAME=x\nboth, bottom\n", "a quad has no face 'bottom'"),
        (PLATE + "*NSET, NSET=x, GENERATE\n3, 1\n", "a generated set goes from first to last"),
        (PLATE + "*NSET, NSET=x, INSTANCE=i\n3\n", "there is no instance 'I'"),
        (PLATE + "*INSTANCE, NAME=i, PART=p\n*END INSTANCE\n", "instance i is of part p, which is not defined"),
        (PLATE + "*SURFACE, NAME=x, COMBINE=UNION\nx\n", "is not defined, or is part of itself"),
    ],
)
def test_what_is_refused(text: str, cause: str, tmp_path: Path):
    with pytest.raises(MeshError, match=cause) as error:
        read_mesh(write(tmp_path, text))
    assert "m.inp" in str(error.value)


def test_what_is_left_out_is_named(tmp_path: Path):
    text = PLATE + "*ELEMENT, TYPE=MASS, ELSET=m\n50, 1\n*NSET, NSET=ref\n99\n"
    text += "*SURFACE, TYPE=CUTTING SURFACE, NAME=cut\n1\n"
    with pytest.warns(
        UserWarning, match=r"elements of type MASS, the surface 'cut' .*, 'ref', whose nodes belong to no"
    ):
        read_mesh(write(tmp_path, text))


def test_mutations_end_in_meshes_or_in_one_error(tmp_path: Path):
    dice = random.Random(0)
    for number in range(400):
        text = list(dice.choice((PLATE, ASSEMBLY)))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text))
            text[at : at + dice.choice((0, 1, 1, 5, 40))] = dice.choice(
                ("", "9", ",", "\n", "*", "-1", "x", ".", "Hub")
            )
        path = write(tmp_path, "".join(text), f"{number}.inp")
        try:
            found = read_abaqus(path)
        except MeshError:
            continue
        assert len(found.points) < 100
