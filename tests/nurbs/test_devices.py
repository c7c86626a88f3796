"""Everything stays on the device and in the dtype of its input, and gives there what it gives on the CPU."""

import pytest
import torch

from nurbs import (
    Surface,
    bezier,
    chamfer,
    elevate_degree,
    fit_clouds,
    fit_surface,
    foot_points,
    hausdorff,
    insert_knots,
    sphere,
    tessellate,
)
from nurbs.geometry.measure import measure
from tests.test_devices import DEVICES

LINE = torch.linspace(0, 1, 17, dtype=torch.float64)


def surface(device: str) -> Surface:
    generator = torch.Generator().manual_seed(0)
    points, weights = (torch.rand(2, 6, 5, *d, dtype=torch.float64, generator=generator) for d in ((3,), ()))
    return Surface(points.to(device), weights.to(device) + 0.5, degree=(3, 2))


def results(device: str) -> dict[str, torch.Tensor]:
    patch, u = surface(device), LINE.to(device)
    layer = patch.learn("control_points", "weights", "knots")
    layer.patch(u, u).square().sum().backward()
    x, y = torch.meshgrid(u, u, indexing="ij")
    free = ("control_points", "knots", "weights")
    fit = fit_surface(torch.stack([x, y, (x - y**2).abs()], -1), (5, 6), free=free, max_iterations=4)
    cloud = patch(u, u).flatten(1, 2)
    ball = sphere(torch.ones((), dtype=torch.float64, device=device))
    return {
        "points": cloud,
        "normals": patch.normal(u, u),
        "area": measure(patch),
        **{name: p.grad for name, p in layer.named_parameters() if p.grad is not None},
        "inserted": insert_knots(patch, u[3:5], None).control_points,
        "elevated": elevate_degree(patch, (1, 0)).control_points,
        "pieces": bezier(patch).control_points,
        "sphere": ball(u, u),
        "mesh": tessellate(ball, 4).points,
        "feet": foot_points(patch, cloud + 0.01),
        "residual": fit.residual,
        "fitted knots": fit.surface.knots[0],
        "chamfer": chamfer(cloud, cloud[:, ::3]),
        "hausdorff": hausdorff(cloud, cloud[:, ::3]),
        "clouds": fit_clouds(cloud.float(), (4, 4), steps=3).control_points.double(),
    }


@pytest.mark.parametrize("device", DEVICES)
def test_results_stay_where_the_patch_is_and_are_those_of_the_cpu(device: str) -> None:
    expected = results("cpu")
    for name, value in results(device).items():
        assert (value.device.type, value.dtype) == (device, torch.float64), name
        tolerance = 1e-3 if name == "clouds" else 1e-8
        torch.testing.assert_close(value.cpu(), expected[name], rtol=tolerance, atol=tolerance, msg=name)
