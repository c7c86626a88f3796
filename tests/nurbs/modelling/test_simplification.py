"""Removal undoes insertion and reduction elevation; otherwise the bound holds, ends stay, errors fall at their rate."""

import pytest
import torch
from torch.nn.functional import pad

from nurbs import Curve, circle, elevate_degree, insert_knots, reduce_degree, refine, remove_knots, torus
from tests.nurbs.patches import PATCHES, assert_same, grid, random


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_undoes_insertion_and_elevation(patch):
    start, end = patch.domain()[0]
    if not patch.batch and patch.degree[0] > 0:
        new = (0.7 * start + 0.3 * end)[..., None].repeat_interleave(min(patch.degree[0], 2), -1)
        others = [None] * (patch.directions - 1)
        back, bound = remove_knots(insert_knots(patch, new, *others), new, *others)
        assert back.shape == patch.shape
        assert bound.max() < 1e-13
        assert_same(patch, back, 1e-14)
    lower, bound = reduce_degree(elevate_degree(patch, 2), 2)
    assert lower.degree == patch.degree
    assert lower.periodic == patch.periodic
    assert bound.max() < 1e-13
    assert_same(patch, lower, 1e-14)


@pytest.mark.parametrize("patch", [PATCHES["curve"], PATCHES["surface"], PATCHES["volume"]])
def test_the_bound_holds_and_ends_are_kept(patch):
    r = patch.directions
    fine = refine(patch)
    wrinkled = fine.replace(control_points=fine.control_points + 1e-2 * random(*fine.control_points.shape, seed=1))
    inner = wrinkled.domain()[0]
    knot = wrinkled.knots[0].unique()[1:2]
    assert inner[0] < knot < inner[1]
    for result, bound in (
        remove_knots(wrinkled, knot, *[None] * (r - 1)),
        reduce_degree(wrinkled, [1] + [0] * (r - 1)),
    ):
        box = grid(wrinkled)
        distance = (result(*box) - wrinkled(*box)).norm(dim=-1)
        deviation = distance.flatten(-r).amax(-1)
        assert (deviation <= bound).all()
        assert (bound < 50 * deviation).all()
        assert deviation.min() > 1e-5
        assert distance.movedim(-r, 0)[[0, -1]].max() < 1e-14


def test_reduction_on_finer_spans_converges_at_the_rate_of_the_lower_degree():
    curve = Curve(random(6, 2))
    gaps = torch.stack([reduce_degree(refine(curve, parts))[1] for parts in (8, 16, 32)])
    assert ((gaps[:-1] / gaps[1:]).log2() > 2.8).all()  # third order


def test_circles_lose_no_knot_without_a_trace():
    flat, bound = remove_knots(circle(), [0.25])
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    deviation = (flat(u) - circle()(u)).norm(dim=-1).max()
    assert 1e-3 < deviation <= bound
    assert torch.allclose(flat(u[[0, -1]]), circle()(u[[0, -1]]), atol=1e-15)


def test_errors_name_what_was_given():
    curve = PATCHES["curve"]
    with pytest.raises(ValueError, match=r"needs inner knots of u.*got \[0.5\], and there are \[0.33"):
        remove_knots(curve, [0.5])
    third = curve.knots[0][4]
    with pytest.raises(ValueError, match="no more often"):
        remove_knots(curve, torch.stack([third, third]))
    with pytest.raises(ValueError, match="0 <= by <= degree"):
        reduce_degree(curve, 4)
    with pytest.raises(ValueError, match="one argument per direction"):
        remove_knots(torus(), [0.5])
    inner = torch.tensor([[0.5, 0.5], [0.4, 0.5]], dtype=torch.float64)
    uneven = Curve(random(6, 2), None, pad(pad(inner, (4, 0)), (0, 4), value=1))
    with pytest.raises(ValueError, match="repeat different knots"):
        reduce_degree(uneven)
