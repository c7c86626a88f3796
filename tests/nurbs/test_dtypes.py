"""The dtype of what is made follows what it is made of, argument by argument: float64 for numbers and integers."""

from collections.abc import Callable
from math import pi
from typing import Any

import pytest
import torch

from nurbs import (
    annulus,
    arc,
    ball_patches,
    circle,
    cylinder,
    disk,
    disk_patches,
    extrude,
    fit_clouds,
    fit_curve,
    fit_surface,
    insert_knots,
    line,
    restrict,
    revolve,
    ruled,
    sphere,
    torus,
    transform,
)
from nurbs.geometry.numbers import floating

E = (1.0, 0.0, 0.0), (1.0, 0.0, 1.0)  # a line beside the z axis
BOW = [[0, 0], [1, 1], [2, 3], [4, 4], [5, 0]]
CLOUD = [[x, y, (x * y) % 3] for x in range(8) for y in range(6)]
MAKERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "line(start)": (lambda x: line(x, (3.0, 4.0)), [1, 2]),
    "line(end)": (lambda x: line((3.0, 4.0), x), [1, 2]),
    "arc(radius)": (arc, 2),
    "arc(angle)": (lambda x: arc(angle=x), 3),
    "arc(start)": (lambda x: arc(start=x), 1),
    "arc(center)": (lambda x: arc(center=x), [1, 2]),
    "circle(radius)": (circle, 2),
    "circle(center)": (lambda x: circle(center=x), [1, 2]),
    "disk(radius)": (disk, 2),
    "disk(center)": (lambda x: disk(center=x), [1, 2]),
    "annulus(inner)": (lambda x: annulus(x, 3.0), 2),
    "annulus(outer)": (lambda x: annulus(1.0, x), 2),
    "annulus(angle)": (lambda x: annulus(angle=x), 2),
    "annulus(start)": (lambda x: annulus(start=x), 2),
    "annulus(center)": (lambda x: annulus(center=x), [1, 2]),
    "cylinder(radius)": (cylinder, 2),
    "cylinder(height)": (lambda x: cylinder(height=x), 2),
    "cylinder(angle)": (lambda x: cylinder(angle=x), 2),
    "cylinder(center)": (lambda x: cylinder(center=x), [1, 2, 3]),
    "sphere(radius)": (sphere, 2),
    "sphere(center)": (lambda x: sphere(center=x), [1, 2, 3]),
    "torus(major)": (torus, 2),
    "torus(minor)": (lambda x: torus(2.0, x), 1),
    "torus(center)": (lambda x: torus(center=x), [1, 2, 3]),
    "extrude(line)": (lambda x: extrude(line(x, (3.0, 4.0, 5.0)), (0, 0, 1)), [1, 2, 3]),
    "revolve(line)": (lambda x: revolve(line(x, (1.0, 0.0, 0.0))), [1, 0, 1]),
    "ruled(lines)": (lambda x: ruled(line(x, (3.0, 4.0)), line((3.0, 4.0), x)), [1, 2]),
    "disk_patches(radius)": (lambda x: disk_patches(x)[1], 2),
    "ball_patches(radius)": (lambda x: ball_patches(x)[1], 2),
    "fit_curve(points)": (lambda x: fit_curve(x, 4).curve, BOW),
    "fit_surface(points)": (lambda x: fit_surface(x, (4, 4), projections=1).surface, CLOUD),
    "fit_clouds(points)": (lambda x: fit_clouds(x, (4, 4), steps=1, grid=(6, 6)).surface, [CLOUD]),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_dtype_is_that_of_the_argument(name: str) -> None:
    make, value = MAKERS[name]
    found = {
        "numbers": make(value),
        "integers": make(torch.tensor(value)),
        "double": make(torch.tensor(value, dtype=torch.float64)),
        "single": make(torch.tensor(value, dtype=torch.float32)),
    }
    for kind, patch in found.items():
        wanted = torch.float32 if kind == "single" else torch.float64
        assert {patch.dtype, *(t.dtype for t in patch.knots)} == {wanted}, kind
        assert patch.shape == found["double"].shape
        near = 3e-2 if name.startswith("fit") and kind == "single" else 1e-5 if kind == "single" else 1e-12
        assert torch.allclose(patch.control_points.double(), found["double"].control_points, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_made_of_a_patch_keeps_its_dtype(dtype: torch.dtype) -> None:
    segment = line(*E).to(dtype)
    double, single = (torch.tensor([0.5], dtype=d) for d in (torch.float64, torch.float32))
    made = [
        extrude(segment, double.expand(3)),
        extrude(segment, single.expand(3)),
        revolve(segment, double[0], axis=single.expand(3)),
        transform(segment, [[1, 0, 0], [0, 1, 0]], single.expand(2)),
        transform(segment, torch.eye(3), (0, 0, 1)),
        insert_knots(segment, single),
        insert_knots(segment, double),
        restrict(segment, (single[0], double.new_tensor(0.75))),
    ]
    assert {patch.dtype for patch in made} == {dtype}


def test_given_dtypes_of_patches_around_the_middle() -> None:
    for make in (disk_patches, ball_patches):
        assert make(2, dtype=torch.float32)[0].dtype == torch.float32
        assert make(torch.tensor(2.0), dtype=torch.float64)[0].dtype == torch.float64


def test_full_turns_in_single_precision_close() -> None:
    for patch in (circle(torch.tensor(2.0)), revolve(line(*E).to(torch.float32), torch.tensor(2 * pi))):
        points = patch.control_points
        assert torch.equal(points[0], points[-1])
        assert len(points) == 9


def test_mixed_arguments() -> None:
    """The most precise dtype wins, and vectors of tensors keep their gradients."""
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert circle(torch.tensor(2.0), center=(x, 0)).dtype == torch.float64
    (gradient,) = torch.autograd.grad(circle(2, center=(x, 0.0)).control_points.sum(), x)
    assert gradient == 9
    batch = circle(1.0, center=(torch.zeros(4), 1.0))
    assert (batch.batch, batch.dtype) == ((4,), torch.float32)
    with pytest.raises(TypeError, match=r"the second patch` must be torch.float64 like the rest; got torch.float32"):
        ruled(circle(), circle(torch.tensor(1.0)))
    for wrong in ("wide", None, [1, "a"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(TypeError, match=r"`arc\(radius=\.\.\.\)` must be numbers or a tensor of them; got "):
            floating("arc", radius=wrong)
