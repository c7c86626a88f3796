"""Refinement changes the description and not the map, whatever the kind, the knots and the batch."""

import pytest
import torch
from torch.autograd import gradcheck

from nurbs import (
    Curve,
    Surface,
    Volume,
    bezier,
    circle,
    clamp,
    elevate_degree,
    insert_knots,
    refine,
    restrict,
    reverse,
    sphere,
    split,
)
from tests.nurbs.patches import PATCHES, assert_same, grid, knots, random


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_the_map_stays_the_same(patch):
    r = patch.directions
    start, end = patch.domain()[0]
    middle = torch.stack([0.7 * start + 0.3 * end, 0.45 * start + 0.55 * end], -1)
    new = insert_knots(patch, middle, *[None] * (r - 1))
    assert new.shape == (patch.shape[0] + 2, *patch.shape[1:])
    assert new.periodic == patch.periodic
    assert_same(patch, new)
    higher = elevate_degree(patch, [k + 1 for k in range(r)])
    assert higher.degree == tuple(p + k + 1 for k, p in enumerate(patch.degree))
    assert higher.periodic == patch.periodic
    assert_same(patch, higher)
    fine = refine(patch, 3)
    assert_same(patch, fine)
    assert all(f.shape[-1] > t.shape[-1] for f, t in zip(fine.knots, patch.knots, strict=True))
    ends = clamp(patch)
    assert_same(patch, ends)
    assert not any(ends.periodic)
    corner = ends.control_points[(..., *[0] * r, slice(None))]
    values = patch(*[bound[..., None] for bound, _ in patch.domain()])
    assert torch.allclose(corner, values.reshape(corner.shape), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_parts_and_pieces_are_the_map_there(patch):
    r = patch.directions
    for direction in range(r):
        start, end = patch.domain()[direction]
        before, after = split(patch, 0.63 * start + 0.37 * end, direction)
        for part in (before, after):
            assert (part(*grid(part)) - patch(*grid(part))).abs().max() < 4e-15 or patch.degree[direction] == 0
    pieces = bezier(patch)
    assert pieces.shape == tuple(p + 1 for p in patch.degree)
    depth = len(patch.batch)
    assert len(pieces.batch) == depth + r
    for index in torch.cartesian_prod(*[torch.arange(n) for n in pieces.batch]).reshape(-1, depth + r).tolist():
        piece, whole = pieces[tuple(index)], patch[tuple(index[:depth])] if depth else patch
        inner = [0.001 * start + 0.999 * end for start, end in piece.domain()]
        box = [
            torch.stack([start, (start + end) / 2, last])
            for (start, end), last in zip(piece.domain(), inner, strict=True)
        ]
        assert (piece(*box) - whole(*box)).abs().max() < 4e-15


def test_inserting_everything_twice_gives_the_bezier_points_of_the_book():
    """A circle is four quadratic arcs already: the pieces' control points are its own."""
    pieces = bezier(circle())
    for k in range(4):
        assert torch.allclose(pieces[k].control_points, circle().control_points[2 * k : 2 * k + 3], atol=1e-15)


def test_control_polygons_converge_to_the_curve():
    curve = PATCHES["curve"]
    gaps = []
    for parts in (8, 16, 32):
        fine = refine(curve, parts)
        t = fine.knots[0]
        places = t[1:-1].unfold(-1, 3, 1).mean(-1)
        gaps.append((fine.control_points - curve(places)).norm(dim=-1).max())
    assert gaps[0] / gaps[1] > 3.3
    assert gaps[1] / gaps[2] > 3.6


def test_gradients_pass_through_knots_and_control_points():
    points, weights, t = random(7, 2), random(7) + 0.5, knots(1, 1, 1)
    u = torch.linspace(0.05, 0.95, 5, dtype=torch.float64)

    def evaluate(points, weights, inner, new):
        curve = Curve(points, weights, torch.cat([t[:4], inner, t[-4:]]))
        return refine(elevate_degree(insert_knots(curve, new)), 2)(u)

    inputs = [points, weights, t[4:-4].clone(), torch.tensor([0.3], dtype=torch.float64)]
    assert gradcheck(evaluate, [x.requires_grad_() for x in inputs])


def test_restrictions_of_a_batch_at_places_of_their_own():
    curves = Curve(random(2, 4, 2))
    part = restrict(curves, (torch.tensor([0.1, 0.2], dtype=torch.float64), 0.9))
    assert torch.allclose(part.domain()[0][0], torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert (part(grid(part)[0]) - curves(grid(part)[0])).abs().max() < 1e-15


@pytest.mark.parametrize(("r", "direction"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_items_with_knots_of_their_own_are_refined_in_every_direction(r, direction):
    own = torch.tensor([[0.0, 0, 0, s, 1, 1, 1] for s in (0.3, 0.5, 0.8)], dtype=torch.float64)
    common = torch.tensor([0.0, 0, 0, 0.6, 1, 1, 1], dtype=torch.float64)
    t = [own if k == direction else common for k in range(r)]
    patch = (Surface, Volume)[r - 2](random(3, *[4] * r, 3), knots=t, degree=(2,) * r)
    assert_same(patch, elevate_degree(patch))
    assert_same(patch, refine(patch))
    assert_same(patch, insert_knots(patch, *[[0.4]] * r))


def test_errors_name_what_was_given():
    curve, surface = PATCHES["curve"], sphere()
    with pytest.raises(ValueError, match=r"in the range of u, \[0.0, 1.0\]; got 1.5"):
        insert_knots(curve, [1.5])
    with pytest.raises(ValueError, match="one argument per direction of a `Surface`"):
        insert_knots(surface, [0.5])
    with pytest.raises(ValueError, match="repeat at most 4 times"):
        insert_knots(curve, [0.5, 0.5, 0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="raises degrees; got"):
        elevate_degree(curve, -1)
    with pytest.raises(ValueError, match="1 or more parts"):
        refine(curve, 0)
    with pytest.raises(ValueError, match="ranges inside that of the patch"):
        restrict(curve, (0.4, 0.4))
    with pytest.raises(ValueError, match="ranges inside that of the patch"):
        split(surface, 1.0, 1)
    uneven = Curve(random(9, 2), None, torch.stack([knots(2, 3), knots(3, 2)]))
    with pytest.raises(ValueError, match="repeat different knots"):
        bezier(uneven)
    with pytest.raises(ValueError, match=r"`direction` of a `Curve` must be 0; got 1"):
        reverse(curve, 1)
