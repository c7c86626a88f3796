"""Functions carried from one space to another: exact where they fit, by name where they do not, differentiable."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import BSpline, Discontinuous, FunctionSpace, Lagrange, box, l2_error, unit_square
from tests.fem.mesh.search.test_location import NAMES, curved, grid, mixed_mesh, rand


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_polynomials_survive_other_meshes_and_degrees(name, degree):
    coarse, fine = FunctionSpace(grid(name, 2), Lagrange(degree), 2), FunctionSpace(grid(name, 3), Lagrange(3), 2)
    function = lambda x: torch.stack([x.sum(1) ** degree, 1 - x[:, 0] ** degree], 1)  # noqa: E731
    u = torch.stack([coarse.interpolate(function), 2 * coarse.interpolate(function)])
    expected = torch.stack([fine.interpolate(function), 2 * fine.interpolate(function)])
    assert torch.allclose(fine.interpolate(coarse.function(u)), expected, rtol=0, atol=1e-12)


def test_there_and_back_on_one_mesh():
    mesh = mixed_mesh()
    V, W, D = (FunctionSpace(mesh, e) for e in (Lagrange(1), Lagrange(3), Discontinuous(2)))
    u = rand(2, *V.shape)
    for other in (W, D):
        w = other.interpolate(V.function(u))
        assert torch.allclose(other.evaluate(w, mesh.nodes), V.evaluate(u, mesh.nodes), rtol=0, atol=1e-12)
    back = V.interpolate(W.function(W.interpolate(V.function(u))))
    assert torch.allclose(back, u, rtol=0, atol=1e-13)
    jumps = rand(*FunctionSpace(mesh, Discontinuous(0)).shape)
    d = D.interpolate(V.per_cell(jumps))  # each cell its own value, at all of its nodes
    for i, start in enumerate(mesh.block_starts[:-1]):
        dofs = D.cell_dofs[i]
        assert torch.equal(d[dofs], jumps[start : start + len(dofs), None].expand(dofs.shape))
    with pytest.raises(ValueError, match=r"that jumps between cells has no value at nodes .* `project\(V, field\)`"):
        V.interpolate(D.function(d))


def test_refined_meshes_lose_nothing_and_rates_hold():
    f = lambda x: torch.sin(3 * x[..., 0]) * x[..., 1].exp()  # noqa: E731
    errors = []
    for n in (8, 16, 32):
        V = FunctionSpace(unit_square(n), Lagrange(2))
        W = FunctionSpace(unit_square(n + 3, cell="triangle"), Lagrange(2))
        errors.append(float(l2_error(W, W.interpolate(V.function(V.interpolate(f))), f)))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 2.7
    coarse, fine = FunctionSpace(unit_square(4), Lagrange(2)), FunctionSpace(unit_square(8), Lagrange(2))
    u = rand(*coarse.shape)
    w = fine.interpolate(coarse.function(u))
    assert torch.allclose(coarse.interpolate(fine.function(w)), u, rtol=0, atol=1e-13)


def test_splines_take_and_give():
    mesh = unit_square(4)
    S, V = FunctionSpace(mesh, BSpline.uniform((4, 4), 2)), FunctionSpace(unit_square(5, cell="triangle"), Lagrange(2))
    u = rand(*S.shape)
    expected = S.evaluate(u, V.dof_coordinates)
    assert torch.equal(V.interpolate(S.function(u)), expected)


def test_nodes_outside_are_named_or_nearest():
    small, large = FunctionSpace(unit_square(2), Lagrange(1)), FunctionSpace(box((0, 0), (2, 1), (4, 2)), Lagrange(1))
    field = small.function(small.interpolate(lambda x: x[:, 0]))
    with pytest.raises(ValueError, match=r"`points\[3\]` = \[1.5, 0.0\] lies outside the mesh .*nearest"):
        large.interpolate(field)
    assert torch.allclose(large.interpolate(field, outside="nearest"), large.dof_coordinates[:, 0].clamp(max=1))
    assert int(large.interpolate(field, outside=math.nan).isnan().sum()) == 6
    with pytest.raises(ValueError, match=r"`interpolate\(outside=...\)` is for fields"):
        large.interpolate(1.0, outside=0.0)
    with pytest.raises(ValueError, match="into a space of 2 components needs a field of as many; got one of no"):
        FunctionSpace(large.mesh, Lagrange(1), 2).interpolate(field)


@pytest.mark.parametrize("family", [Lagrange(2), Discontinuous(1)], ids=repr)
def test_derivatives_in_dofs_and_nodes(family):
    source, target = curved("triangle", 2), unit_square(2)
    target = target.with_nodes(0.6 + 0.8 * target.nodes)

    def carried(u: Tensor, nodes: Tensor, others: Tensor) -> Tensor:
        V = FunctionSpace(source.with_nodes(nodes), Lagrange(2))
        return FunctionSpace(target.with_nodes(others), family).interpolate(V.function(u), outside="nearest")

    u = rand(*FunctionSpace(source, Lagrange(2)).shape)
    inputs = [t.clone().requires_grad_() for t in (u, source.nodes, target.nodes)]
    assert gradcheck(carried, inputs, fast_mode=True)
