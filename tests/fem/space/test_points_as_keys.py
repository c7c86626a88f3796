"""Values prescribed at points and on cells."""

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MixedSpace, at_points, unit_cube, unit_square
from solvers import minimize, reaction
from tests.problems import irregular, laplace, poisson


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_the_nearest_nodes(cell: str, degree: int) -> None:
    """In the order of the points, which values follow; of the space, not of the mesh."""
    V = FunctionSpace(unit_square(3, 3, cell=cell), Lagrange(degree))
    points = [[1.0, 1.0], [0.0, 1 / 3], [0.0, 0.0]]
    dofs = V.dofs(at_points(points))
    torch.testing.assert_close(V.dof_coordinates[dofs], torch.tensor(points, dtype=V.dtype))
    values = torch.tensor([3.0, -1.0, 7.0], dtype=V.dtype)
    u = Dirichlet(V, {at_points(points): values}).apply(V.interpolate(0.0))
    assert torch.equal(u[dofs], values)
    assert int((u != 0).sum()) == 3


def test_three_points_hold_a_body() -> None:
    """A self-balanced traction: the supports carry nothing, and strains are those of any other support."""
    V = FunctionSpace(irregular("triangle", 4), Lagrange(2), components=2)

    def elastic(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        strain = 0.5 * (grad_u + grad_u.mT)
        return strain.square().sum((-2, -1)) + 0.5 * strain.diagonal(dim1=-2, dim2=-1).sum(-1).square()

    mesh = V.mesh.with_tags({"ends": lambda x: (x[..., 0] == 0) | (x[..., 0] == 1)})
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    pull = {"boundary": lambda x, u, normal: -(u[..., 0] * normal[..., 0])}
    corners = {at_points([[0.0, 0.0]]): 0.0, (at_points([1.0, 0.0]), 1): 0.0}
    held = Dirichlet(V, corners)
    energy = Energy(V, elastic, held, boundary=pull)
    u = minimize(energy).value
    for key in corners:
        assert float(reaction(energy, u, key).abs().max()) < 1e-12
    # σ = (1, 0): ε = (3/8, −1/8) for λ = μ = 1, and u = (3/8 x, −1/8 y).
    exact = V.interpolate(lambda x: torch.stack([0.375 * x[:, 0], -0.125 * x[:, 1]], -1))
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-12)


def test_cells_hold_all_their_dofs() -> None:
    mesh = unit_square(4, 4).with_tags(cell_tags={"core": lambda x: ((x - 0.5).abs() < 0.3).all(-1)})
    V = FunctionSpace(mesh, Lagrange(2))
    inside = (V.dof_coordinates - 0.5).abs().amax(1) < 0.26
    assert torch.equal(V.dofs("core"), torch.nonzero(inside).flatten())
    u = minimize(Energy(V, laplace, Dirichlet(V, {"boundary": 0.0, "core": 1.0}))).value
    torch.testing.assert_close(u[inside], torch.ones_like(u[inside]))
    assert float(u.min()) > -1e-12


def test_fields_of_mixed_spaces() -> None:
    mesh = unit_cube(2, 2, 2)
    W = MixedSpace(FunctionSpace(mesh, Lagrange(1), components=3), FunctionSpace(mesh, Lagrange(1)))
    key = at_points([0.5, 0.5, 0.5])
    fixed = [f.nonzero().tolist() for f in W.split(Dirichlet(W, {(key, 0, 2): 1.0, (key, 1): 2.0}).fixed)]
    middle = int(W.fields[1].dofs(key))
    assert fixed == [[[middle, 2]], [[middle]]]


def test_wrong_calls() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match=r"no node lies within 1e-06 of \[0\.3, 0\.0\]; the nearest is 0\.2 away, at"):
        Dirichlet(V, {at_points([0.3, 0.0]): 0.0})
    assert V.dofs(at_points([0.3, 0.0], tolerance=0.25)).tolist() == [1]
    with pytest.raises(ValueError, match="two of the points mean one node"):
        V.dofs(at_points([[0.0, 0.0], [1e-9, 0.0]]))
    with pytest.raises(ValueError, match="points of 3 coordinates; the mesh has 2"):
        V.dofs(at_points([0.0, 0.0, 0.0]))
    with pytest.raises(TypeError, match=r"must be numbers \(k, d\)"):
        at_points("left")
    with pytest.raises(ValueError, match=r"must be finite numbers \(k, d\)"):
        at_points([])
    with pytest.raises(ValueError, match="tolerance"):
        at_points([0.0, 0.0], tolerance=-1.0)
    assert minimize(Energy(V, poisson, Dirichlet(V, {at_points([0.0, 0.0]): 0.0}))).status
