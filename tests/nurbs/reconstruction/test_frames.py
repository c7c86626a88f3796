"""Frames of clouds: they follow motions and scalings, and lie as the rectangle around the cloud does."""

import pytest
import torch

from nurbs import Surface, cloud_frame, flat_patch
from nurbs.reconstruction.frames import check_clouds, flat_grid


def cloud(batch=3, m=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, m, 3, dtype=torch.float64, generator=generator)
    return torch.stack([2 * x[..., 0], x[..., 1], x[..., 0] ** 2 + 0.3 * x[..., 1] ** 3 + 0.01 * x[..., 2]], -1)


def motion(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q


def test_local_and_world_are_inverse():
    x = cloud()
    frame = cloud_frame(x)
    assert torch.allclose(frame.world(frame.local(x)), x, atol=1e-14)
    assert torch.allclose(frame.axes @ frame.axes.mT, torch.eye(3, dtype=x.dtype).expand(3, 3, 3), atol=1e-14)


@pytest.mark.parametrize("sign", [1, -1])
def test_local_coordinates_do_not_change_under_motions_reflections_and_scaling(sign):
    x = cloud()
    moved = sign * 3.0 * x @ motion().mT + torch.tensor([5.0, -2, 1], dtype=x.dtype)
    assert torch.allclose(cloud_frame(moved).local(moved), cloud_frame(x).local(x), atol=1e-12)


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_a_flat_rectangle_however_it_lies_is_the_square(ratio):
    """Of a square too, whose principal axes are anything."""
    t = torch.linspace(-1, 1, 21, dtype=torch.float64)
    angle = torch.tensor([0.3, 1.2, 2.5], dtype=torch.float64)
    u, v = torch.meshgrid(t, ratio * t, indexing="ij")
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x = torch.stack([c * u - s * v, s * u + c * v, torch.zeros(3, 21, 21, dtype=u.dtype)], -1).flatten(1, 2)
    frame = cloud_frame(x)
    assert torch.allclose(frame.size[:, 0], torch.ones(3, dtype=x.dtype), atol=0.03)  # directions are 2° apart
    assert torch.allclose(frame.size[:, 1], torch.full((3,), ratio, dtype=x.dtype), atol=0.03)
    assert torch.allclose(frame.local(x)[..., :2].abs().amax(1), torch.ones(3, 2, dtype=x.dtype))


def test_the_flat_patch_is_parametrised_along_its_sides():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    values = Surface(flat_grid((5, 9), t))(t, t)
    u, v = torch.meshgrid(2 * t - 1, 2 * t - 1, indexing="ij")
    assert torch.allclose(values, torch.stack([u, v, 0 * u], -1), atol=1e-14)
    x = cloud()
    corners = cloud_frame(x).local(flat_patch(x, (5, 9)))[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    expected = torch.tensor([[-1.0, -1, 0], [-1, 1, 0], [1, -1, 0], [1, 1, 0]], dtype=x.dtype)
    assert torch.allclose(corners, expected.expand(3, 4, 3), atol=1e-13)


def test_points_on_a_line_have_a_frame_and_a_single_point_has_none():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    x = torch.stack([t, 2 * t, -t], -1)[None]
    assert cloud_frame(x).local(x).isfinite().all()
    with pytest.raises(ValueError, match="those of item 0 coincide"):
        cloud_frame(torch.ones(1, 5, 3))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(5, 3), r"shape \(batch, points, 3\); got \(5, 3\). Give a single cloud as `points\[None\]`"),
        (torch.ones(1, 5, 2), r"shape \(batch, points, 3\); got \(1, 5, 2\)"),
        (torch.ones(1, 3, 3), "at least 4 points; got 3"),
        (torch.tensor([[[0.0, 0, 0], [0, torch.inf, 0]]]).repeat(1, 2, 1), r"got inf at index \[0, 1, 1\]"),
    ],
)
def test_bad_clouds(points, message):
    with pytest.raises(ValueError, match=f"`f` needs .*{message}"):
        check_clouds("f", points, 4)
    check_clouds("f", torch.ones(0, 4, 3), 4)
