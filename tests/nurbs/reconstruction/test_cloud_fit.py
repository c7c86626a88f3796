"""Fits of surfaces to single clouds: nearer than where they start, whatever size and place, and honest endings."""

import pytest
import torch

from fem import ConvergenceError, Status
from nurbs import RandomPatches, Surface, fit_clouds, flat_patch, surface_distance


def test_fits_come_closer_than_the_flat_patch_and_ignore_size_and_place():
    points, surface = RandomPatches(num_points=150)(0, 4)
    fit = fit_clouds(points, (6, 6), steps=60, grid=(16, 16))
    before, after = (surface_distance(s, surface, 20) for s in (Surface(flat_patch(points, (6, 6))), fit.surface))
    assert (after < before).all()
    assert after.mean() < 0.3 * before.mean()
    moved = fit_clouds(8 * points + 4, (6, 6), steps=60, grid=(16, 16))
    assert torch.allclose(moved.control_points, 8 * fit.control_points + 4, atol=0.05)
    alone = fit_clouds(points[1:2], (6, 6), steps=20, grid=(16, 16))
    assert torch.allclose(
        alone.control_points[0], fit_clouds(points, (6, 6), steps=20, grid=(16, 16)).control_points[1], atol=1e-3
    )
    again = fit_clouds(points, (6, 6), fit.control_points, steps=0)
    assert torch.allclose(again.control_points, fit.control_points, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(4, 6, 6, 3\); got \(4, 5, 6, 3\)"):
        fit_clouds(points, (6, 6), fit.control_points[:, 1:])
    with pytest.raises(
        ValueError, match=r"`fit_clouds\(points\)` needs finite coordinates; got nan at index \[0, 0, 0\]"
    ):
        fit_clouds(points * torch.nan)


def test_clouds_whose_descent_runs_away_are_named_and_keep_their_last_surface():
    points, _ = RandomPatches(num_points=60)(0, 2)
    start = flat_patch(points, (4, 4))
    start[1] *= 1e30  # squares overflow in single precision
    with pytest.raises(
        ConvergenceError, match=r"`fit_clouds\(points\)`: 1 of 2 batch items \(the first is 1\)"
    ) as caught:
        fit_clouds(points, (4, 4), start, steps=3, grid=(8, 8))
    fit = caught.value.solution
    assert fit.status == (Status.BUDGET, Status.NOT_FINITE)
    assert repr(fit).startswith(
        "CloudFit(NOT_FINITE, Surface((2,) × 4 × 4 control points in 3-D, degree (3, 3)); 3 steps"
    )
    assert fit.control_points.isfinite().all()
    again = fit_clouds(points, (4, 4), start, steps=3, grid=(8, 8), throw=False)
    assert torch.equal(again.control_points, fit.control_points)
    alone = fit_clouds(points[:1], (4, 4), start[:1], steps=3, grid=(8, 8))
    assert alone.status == (Status.BUDGET,)
    torch.testing.assert_close(alone.control_points[0], fit.control_points[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.loss[0], fit.loss[0], atol=0, rtol=1e-3)
