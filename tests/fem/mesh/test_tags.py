"""Tags of nodes: they hold the dofs that stand there, and those of a facet all of whose nodes they hold."""

import pytest
import torch

from fem.errors import MeshError
from fem.forms.constraints import Dirichlet
from fem.forms.energy import Energy
from fem.mesh.generators import box, unit_cube, unit_square
from fem.mesh.mesh import Mesh
from fem.reference.lagrange import Lagrange
from fem.space.space import FunctionSpace
from solvers.minimization import minimize

SIDES = {"left": lambda x: x[..., 0] < 1e-9}
NODES = {
    "left nodes": lambda x: x[:, 0] < 1e-9,
    "outside": lambda x: ((x < 1e-9) | (x > 1 - 1e-9)).any(1),
    "all": lambda x: torch.ones(len(x), dtype=torch.bool),
    "corner": [0],
}


@pytest.mark.parametrize("cell", ["interval", "triangle", "quadrilateral", "tetrahedron", "hexahedron"])
@pytest.mark.parametrize("geometry", [1, 2, 3])
@pytest.mark.parametrize("grid", [True, False])
def test_nodes_of_whole_facets_hold_all_dofs_there(cell: str, geometry: int, grid: bool):
    dim = {"interval": 1, "triangle": 2, "quadrilateral": 2}.get(cell, 3)
    mesh = box((0.0,) * dim, (1.0,) * dim, (3,) * dim, cell=cell).curved(geometry)
    mesh = mesh if grid else Mesh(mesh.nodes, mesh.cells, cell)
    mesh = mesh.with_tags(SIDES, node_tags=NODES)
    for degree in (1, 2, 3):
        V = FunctionSpace(mesh, Lagrange(degree))
        assert torch.equal(V.dofs("left nodes"), V.dofs("left"))
        assert torch.equal(V.dofs("outside"), V.dofs("boundary"))  # edges that cut a corner are inside, not held
        assert len(V.dofs("all")) == V.num_dofs
        assert torch.equal(V.dof_coordinates[V.dofs("corner")], mesh.nodes[:1])
        again = mesh.curved(degree)
        assert torch.equal(again.nodes[again.nodes_tagged("left nodes")], V.dof_coordinates[V.dofs("left")])


def test_mixed_cells_and_other_meshes_keep_their_node_tags():
    nodes = torch.tensor([[0.0, 0], [1, 0], [2, 0.5], [1, 1], [0, 1]], dtype=torch.float64)
    cells = {"quadrilateral": [[0, 1, 3, 4]], "triangle": [[1, 2, 3]]}
    mesh = Mesh(nodes, cells, node_tags={"middle": [3, 1, 3], "top": torch.tensor([False, False, False, True, True])})
    assert mesh.nodes_tagged("middle").tolist() == [1, 3]
    V = FunctionSpace(mesh, Lagrange(2))
    assert V.dof_coordinates[V.dofs("middle")].tolist() == [[1, 0], [1, 1]]  # the facet between them is inside
    assert sorted(V.dof_coordinates[V.dofs("top")].tolist()) == [[0, 1], [0.5, 1], [1, 1]]
    for other in (mesh.with_nodes(2 * nodes), mesh.to(dtype=torch.float32), mesh.with_tags(node_tags={"more": [0]})):
        assert torch.equal(other.nodes_tagged("top"), mesh.nodes_tagged("top"))


def test_one_name_for_facets_and_nodes_means_both():
    mesh = unit_square(2).with_tags(node_tags={"left": [2], "right nodes": [2, 5, 8]})
    V = FunctionSpace(mesh, Lagrange(1), components=2)
    assert V.dofs("left").tolist() == [0, 2, 3, 6]
    assert len(mesh.facets_tagged("left")) == 2
    fixed = Dirichlet(V, {("right nodes", 1): 3.0}).apply(torch.zeros(V.shape, dtype=torch.float64))
    assert fixed.nonzero().tolist() == [[2, 1], [5, 1], [8, 1]]


def test_clamped_nodes_solve_like_clamped_facets():
    mesh = unit_cube(2, cell="tetrahedron").with_tags(SIDES, node_tags=NODES)
    V = FunctionSpace(mesh, Lagrange(2))
    found = []
    for tag in ("left", "left nodes"):
        energy = Energy(V, lambda x, u, grad_u: 0.5 * grad_u.square().sum(-1) - u, Dirichlet(V, {tag: 0.0}))
        found.append(minimize(energy).value)
    torch.testing.assert_close(found[0], found[1], atol=1e-13, rtol=0)


def test_what_node_tags_refuse():
    mesh = unit_square(2).with_tags(node_tags={"pin": [4]})
    for wrong, cause in (
        ({"boundary": [0]}, "node tag 'boundary' always means the whole boundary"),
        ({"a": [9]}, r"node tag 'a': indices must lie in \[0, 9\); got up to 9"),
        ({"a": [-1]}, r"must lie in \[0, 9\); got up to -1"),
        ({"a": torch.ones(4, dtype=torch.bool)}, r"a mask needs 9 entries; got \(4,\)"),
        ({"a": [0.5]}, "node tag 'a' must be integers, a mask or a callable"),
    ):
        with pytest.raises(MeshError, match=cause):
            mesh.with_tags(node_tags=wrong)
    V = FunctionSpace(mesh, Lagrange(1))
    with pytest.raises(ValueError, match=r"unknown facet tag 'pim'; .* at nodes, 'pin'\. Did you mean 'pin'"):
        V.dofs("pim")
    with pytest.raises(ValueError, match="prescribed at nodes, but integrals need facets"):
        mesh.facets_tagged("pin")
    curved = unit_square(2).curved(2)
    middle = int((curved.nodes - torch.tensor([0.25, 0.0])).norm(dim=1).argmin())
    with pytest.raises(ValueError, match=r"no dof of degree 1 stands at a node with the tag 'm'"):
        FunctionSpace(curved.with_tags(node_tags={"m": [middle]}), Lagrange(1)).dofs("m")
