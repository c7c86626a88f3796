"""Hanging nodes: continuity, patch tests, rates, prescribed values, what is refused."""

import warnings
from math import log2
from typing import Any

import pytest
import torch
from torch import Tensor

from fem import (
    CrouzeixRaviart,
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    MeshError,
    Mini,
    MixedSpace,
    RaviartThomas,
    Serendipity,
    Ties,
    box,
    hanging_nodes,
    integrate,
    jump,
    l2_error,
    read_mesh,
    write_vtk,
)
from fem.reference.cells import CELLS
from solvers import CG, AlgebraicMultigrid, Direct, minimize
from tests.problems import laplace, poisson, sine, sine_load

KINDS = ["triangle", "quadrilateral", "tetrahedron", "hexahedron"]


def graded(cell: str, n: int = 2, levels: int = 2) -> Mesh:
    """A unit box in n cells per direction, halved towards its upper corner beyond ½, ¾, …."""
    d = CELLS[cell].dim
    sides = {name: (lambda x, k=k, end=end: x[..., k] == end) for k in range(d) for end, name in enumerate(NAMES[k])}
    nodes, cells, count = [], [], 0
    for level in range(levels):
        own = box([0.0] * d, [1.0] * d, [n * 2**level] * d, cell=cell)
        inside = own.nodes[own.cells].mean(1).amin(1)
        last = level == levels - 1
        kept = own.cells[(inside > 1 - 0.5**level) & ((inside < 1 - 0.5 ** (level + 1)) | last)]
        nodes.append(own.nodes)
        cells.append(kept + count)
        count += own.num_nodes
    return Mesh(torch.cat(nodes), torch.cat(cells), cell, sides, merge=1e-9, hanging=True)


NAMES = (("left", "right"), ("bottom", "top"), ("back", "front"))


@pytest.mark.parametrize("cell", KINDS)
def test_small_and_large_facets_are_no_boundary(cell: str) -> None:
    mesh = graded(cell, 2, 3)
    V = FunctionSpace(mesh, Discontinuous(0))
    d = mesh.dim
    assert float(integrate(V, 1.0)) == pytest.approx(1, rel=1e-13)
    assert float(integrate(V, 1.0, "boundary")) == pytest.approx(2 * d, rel=1e-13)
    assert mesh.curved(2).topology.boundary.equal(mesh.topology.boundary)


@pytest.mark.parametrize(
    ("family", "cell"), [(Mini(), "triangle"), (Mini(), "tetrahedron"), (Serendipity(2), KINDS[1])]
)
def test_patch_of_other_elements_with_nodes(family: Mini | Serendipity, cell: str) -> None:
    V = FunctionSpace(graded(cell), family)
    exact = lambda x: 1 + x @ torch.arange(1.0, V.mesh.dim + 1, dtype=V.dtype)  # noqa: E731
    u = minimize(Energy(V, laplace, hanging_nodes(V) & Dirichlet(V, {"boundary": exact}))).value
    assert (u - V.interpolate(exact)).abs().max() < 1e-11
    with pytest.raises(ValueError, match="functions of the space would jump"):
        Energy(V, laplace)


@pytest.mark.parametrize("family", [CrouzeixRaviart(), RaviartThomas(1)])
def test_elements_that_share_moments_alone_are_refused(family: Any) -> None:
    with pytest.raises(ValueError, match=r"knows no ties; use Lagrange|take `Lagrange` where nodes hang"):
        Energy(FunctionSpace(graded("triangle"), family), lambda x, u, grad_u: grad_u.square())


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", KINDS)
def test_patch(cell: str, degree: int) -> None:
    """Polynomials of the degree are exact, over two levels that touch the third too."""
    mesh = graded(cell, 2, 2 if cell == "hexahedron" and degree == 3 else 3)
    V = FunctionSpace(mesh, Lagrange(degree))
    weights = torch.arange(1.0, mesh.dim + 1, dtype=torch.float64)
    exact = lambda x: 1 + (x @ weights) ** degree  # noqa: E731
    twice = degree * (degree - 1) * float(weights.square().sum())
    source = lambda x: -twice * (x @ weights) ** max(degree - 2, 0)  # noqa: E731
    ties = hanging_nodes(V)
    u = V.interpolate(exact)
    torch.testing.assert_close(ties.apply(u), u, rtol=0, atol=1e-12)
    solution = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": exact}) & ties), (source,), method=Direct()).value
    torch.testing.assert_close(solution, u, rtol=0, atol=1e-12 * float(u.abs().max()))


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_rates(cell: str, degree: int) -> None:
    errors = []
    for n in (4, 8):
        V = FunctionSpace(graded(cell, n), Lagrange(degree))
        u = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}) & hanging_nodes(V)), (sine_load,)).value
        errors.append(float(l2_error(V, u, sine)))
    assert log2(errors[0] / errors[1]) > degree + 0.8


def test_functions_do_not_jump() -> None:
    """Any dofs, tied, are continuous: at points of small facets both cells agree; vectors and products too."""
    mesh = graded("hexahedron", 2, 2)
    V = FunctionSpace(mesh, Lagrange(2), components=2)
    W = MixedSpace(V, FunctionSpace(mesh, Lagrange(1)), FunctionSpace(mesh, Discontinuous(0)))
    u = W.split(hanging_nodes(W).apply(torch.rand(W.num_dofs, dtype=W.dtype, generator=torch.manual_seed(0))))
    y = 0.5 + 0.5 * torch.rand(20, 2, dtype=torch.float64, generator=torch.manual_seed(1))
    for part, field in zip(u[:2], W.fields, strict=False):
        near = [torch.cat([torch.full((20, 1), 0.5 + s, dtype=torch.float64), y], 1) for s in (-1e-9, 1e-9)]
        torch.testing.assert_close(*[field.evaluate(part, x) for x in near], rtol=0, atol=1e-6)


def test_with_all_methods_and_a_mean() -> None:
    V = FunctionSpace(graded("quadrilateral", 4, 3), Lagrange(1))
    held = hanging_nodes(V) & Dirichlet(V, {"left": 0.0, "right": 1.0})
    wanted = V.interpolate(lambda x: x[:, 0])
    for method in (None, CG(), Direct(), AlgebraicMultigrid()):
        torch.testing.assert_close(minimize(Energy(V, laplace, held), method=method).value, wanted)
    free = hanging_nodes(V) & MeanZero(V)
    u = minimize(Energy(V, poisson, free), (lambda x: x[..., 0] - 0.5,)).value
    torch.testing.assert_close(free.apply(u), u)


def test_what_is_told() -> None:
    mesh = graded("quadrilateral")
    V = FunctionSpace(mesh, Lagrange(1))
    other = Ties(V, [0], torch.zeros(1, V.num_dofs, dtype=V.dtype))
    for constraint in (None, Dirichlet(V, {"left": 0.0}), MeanZero(V), other):
        with pytest.raises(ValueError, match=r"would jump: .*hanging_nodes\(V\)"):
            Energy(V, laplace, constraint)
    W = FunctionSpace(mesh, Discontinuous(1))
    Energy(W, laplace)
    with pytest.raises(ValueError, match="would leave out those where nodes hang"):
        Energy(W, laplace, interior={"": lambda x, u, grad_u, normal, size: jump(u).square()})
    with pytest.raises(ValueError, match="ties continuous functions with nodes"):
        hanging_nodes(W)
    tagged = mesh.with_tags(node_tags={"it": lambda x: (x - torch.tensor([0.5, 0.75])).norm(dim=1) == 0})
    V = FunctionSpace(tagged, Lagrange(1))
    held = Dirichlet(V, {"it": 0.0})
    with pytest.raises(ValueError, match=r"dof \d+ hangs on others and is prescribed, but dof \d+, .* is free"):
        hanging_nodes(V) & held
    with pytest.raises(ValueError, match="this mesh has none that were looked for"):
        hanging_nodes(FunctionSpace(box((0.0, 0.0), (1.0, 1.0), (2, 2)), Lagrange(1)))
    moving = mesh.with_nodes(mesh.nodes.clone().requires_grad_())
    with pytest.raises(ValueError, match="no derivatives in the nodes"):
        hanging_nodes(FunctionSpace(moving, Lagrange(1)))


def three(extra: Tensor | None = None, **kwargs) -> Mesh:
    """Two cells on one, with a hanging node."""
    n = torch.tensor([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1], [0, 2], [2, 2]], dtype=torch.float64)
    n = n if extra is None else n + extra
    return Mesh(n, [[0, 1, 4, 3], [1, 2, 5, 4], [3, 5, 7, 6]], "quadrilateral", **kwargs)


def test_the_mesh_must_be_told() -> None:
    with pytest.warns(UserWarning, match=r"Hanging nodes: 1, .*`Mesh\(..., hanging=True\)`, with `hanging_nodes\(V\)`"):
        three()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh = three(hanging=True)
    assert mesh.topology.hanging.cells.tolist() == [2, 2]
    assert len(mesh.topology.boundary) == 7


def test_what_does_not_fit() -> None:
    square = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    twice = torch.cat([square, square + torch.tensor([1.0, 0.0])])
    with pytest.warns(UserWarning, match="coincide"), pytest.raises(MeshError, match="neither holds the other"):
        Mesh(twice, [[0, 1, 2, 3], [4, 5, 6, 7]], "quadrilateral", hanging=True)
    shifted = torch.cat([square, square + torch.tensor([1.0, 0.4])])
    with pytest.raises(MeshError, match="neither holds the other"):
        Mesh(shifted, [[0, 1, 2, 3], [4, 5, 6, 7]], "quadrilateral", hanging=True)
    small = torch.cat([square, 0.5 * square + torch.tensor([1.0, 0.0])])
    with pytest.raises(MeshError, match=r"cover 50 % of a facet of quadrilateral 0"):
        Mesh(small, [[0, 1, 2, 3], [4, 5, 6, 7]], "quadrilateral", merge=1e-9, hanging=True)


def test_files(tmp_path) -> None:
    mesh = graded("triangle")
    write_vtk(tmp_path / "hanging.vtu", FunctionSpace(mesh, Lagrange(1)), {})
    again = read_mesh(tmp_path / "hanging.vtu", hanging=True)
    assert len(again.topology.boundary) == len(mesh.topology.boundary)
    V = FunctionSpace(again, Lagrange(2))
    assert len(hanging_nodes(V).slaves) > 0
