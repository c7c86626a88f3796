"""Functions on patches at arbitrary points: gradients, nearest points, derivatives."""

from math import pi

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import FunctionSpace, Lagrange, project, unit_square
from nurbs import annulus, disk_patches, extrude, isogeometric_space, transform
from nurbs.geometry.patch import Patch
from nurbs.isogeometric.spline_space import SplineSpace
from tests.nurbs.isogeometric.test_construction import distorted, rectangle


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inside(patch: Patch, count: int) -> Tensor:
    u = 0.02 + 0.95 * rand(count, patch.directions)
    return patch.at(u).detach()


@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("name", ["distorted", "annulus", "volume"])
def test_gradients_equal_those_by_automatic_differentiation(name, components):
    patch = {
        "distorted": distorted(),
        "annulus": annulus(1.0, 2.0),
        "volume": extrude(
            transform(distorted(), torch.eye(3, 2, dtype=torch.float64)),
            torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64),
        ),
    }[name]
    V = isogeometric_space(patch, 2, 2, components=components)
    points = inside(V.mesh.patches[0], 12).requires_grad_()
    u = rand(3, *V.shape)
    value, grad = V.evaluate(u, points, derivatives=1)
    assert torch.equal(value, V.evaluate(u, points))
    entries = value.movedim(1, -1).flatten(0, -2)
    for entry, found in zip(entries, grad.movedim(1, -2).flatten(0, -3), strict=True):
        (expected,) = torch.autograd.grad(entry.sum(), points, retain_graph=True)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_gradients_at_the_boundary() -> None:
    """On sides, corners and seams both ways see both directions: such points are on the patch, not held at its end."""
    V = isogeometric_space([annulus(1.0, 2.0, angle=pi / 2), annulus(2.0, 3.0, angle=pi / 2)], 4, 6)
    angle = torch.tensor([0.0, pi / 8, pi / 4, pi / 2], dtype=torch.float64)
    points = torch.cat([r * torch.stack([angle.cos(), angle.sin()], 1) for r in (1, 2, 3)]).requires_grad_()
    u = V.interpolate(lambda x: x[..., 0] ** 2 + 3 * x[..., 0] * x[..., 1])
    value, grad = V.evaluate(u, points, derivatives=1)
    (found,) = torch.autograd.grad(value.sum(), points)
    exact = torch.stack([2 * points[:, 0] + 3 * points[:, 1], 3 * points[:, 0]], 1)
    assert torch.allclose(found, grad, atol=1e-10)
    assert torch.allclose(grad, exact, atol=0.01)


def test_points_outside_take_the_value_of_the_nearest() -> None:
    V = isogeometric_space(disk_patches(), 2, 3)
    u = V.interpolate(lambda x: x[..., 0])
    angle = 6.28 * rand(30)
    ray = torch.stack([angle.cos(), angle.sin()], 1)
    value = V.evaluate(u, 2.5 * ray, outside="nearest")
    assert torch.allclose(value, V.evaluate(u, 0.99999999999 * ray), atol=1e-9)
    assert torch.equal(V.evaluate(u, 0.5 * ray, outside="nearest"), V.evaluate(u, 0.5 * ray))
    same, grad = V.evaluate(u, 2.5 * ray, outside="nearest", derivatives=1)
    assert torch.allclose(same, value, atol=1e-12)
    assert torch.allclose(grad, V.evaluate(u, 0.99999999999 * ray, derivatives=1)[1], atol=1e-6)


def test_derivatives_at_nearest_points() -> None:
    V = isogeometric_space(distorted(), 2, 2)
    points = torch.tensor([[0.5, 0.6], [1.7, 0.6], [0.5, -0.9], [-1.0, -1.0]], dtype=torch.float64)

    def value(u: Tensor, points: Tensor, control: Tensor) -> Tensor:
        W: SplineSpace = V.with_patches(V.mesh.patches[0].replace(control_points=control))
        return W.evaluate(u, points, outside="nearest")

    control = V.mesh.patches[0].control_points.clone()
    inputs = [rand(*V.shape), points, control]
    assert gradcheck(value, [t.requires_grad_() for t in inputs], fast_mode=True)
    assert gradcheck(lambda u, x: V.evaluate(u, x, derivatives=1)[1], (inputs[0], points[:1].detach().requires_grad_()))


def test_fields_on_meshes_and_on_patches_become_each_other() -> None:
    square = FunctionSpace(unit_square(4), Lagrange(2), 2)
    V = isogeometric_space(rectangle(0.0, 0.0, 1.2), 2, 3, components=2)
    linear = lambda x: torch.stack([1 + x[..., 0], x[..., 1] - x[..., 0]], -1)  # noqa: E731
    u = square.interpolate(linear)
    with pytest.raises(ValueError, match="lies outside the mesh"):
        V.interpolate(square.function(u))
    V = isogeometric_space(rectangle(0.1, 0.1, 0.8, 0.8), 2, 3, components=2)
    assert torch.allclose(V.interpolate(square.function(u)), V.interpolate(linear), rtol=0, atol=1e-12)
    back = square.interpolate(V.function(V.interpolate(linear)), outside="nearest")
    expected = linear(square.dof_coordinates.clamp(0.1, 0.9))
    assert torch.allclose(back, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["one", "several"])
def test_functions_on_patches_are_their_own_projections(name) -> None:
    V = isogeometric_space(annulus(1.0, 2.0) if name == "one" else disk_patches(), 3, 2, components=2)
    u = rand(2, *V.shape)
    assert torch.allclose(project(V, lambda x, u, grad_u: u, u), u, rtol=0, atol=1e-11)
