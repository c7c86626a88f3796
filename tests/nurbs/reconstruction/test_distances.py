"""Distances between clouds against SciPy's search tree and a matrix of all pairs; exactness, memory, errors."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch.autograd import gradcheck

import nurbs.reconstruction.distances
from fem.support.portions import CACHE
from nurbs import chamfer, hausdorff, laplacian, nearest, squared_distance


def clouds(m=40, n=57, batch=(2, 3), dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(*batch, k, dim, dtype=torch.float64, generator=generator) for k in (m, n))


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_nearest_points_are_those_of_a_search_tree(dim):
    a, b = clouds(dim=dim)
    index, distance = nearest(a, b), squared_distance(a, b)
    for item in np.ndindex(2, 3):
        reference, where = KDTree(b[item].numpy()).query(a[item].numpy())
        assert np.array_equal(where, index[item].numpy())
        assert np.allclose(reference**2, distance[item].numpy(), rtol=1e-13, atol=0)


def test_chamfer_and_hausdorff_are_those_of_all_pairs():
    a, b = clouds()
    pairs = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    there, back = pairs.amin(-1), pairs.amin(-2)
    assert torch.allclose(chamfer(a, b), there.square().mean(-1) + back.square().mean(-1), rtol=1e-13)
    assert torch.allclose(chamfer(a, b, one_sided=True), there.square().mean(-1), rtol=1e-13)
    assert torch.allclose(hausdorff(a, b), torch.maximum(there.amax(-1), back.amax(-1)), rtol=1e-13)
    assert torch.allclose(hausdorff(a, b, one_sided=True), there.amax(-1), rtol=1e-13)
    assert torch.equal(chamfer(a, b), chamfer(b, a))


def test_batches_broadcast():
    a, b = clouds()
    together = chamfer(a[:, :1], b[:1])
    assert together.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(together[i, j], chamfer(a[i, 0], b[0, j]))


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_the_size_of_the_blocks_changes_nothing(size, monkeypatch):
    a, b = clouds()
    whole = nearest(a, b), chamfer(a, b), hausdorff(a, b)
    monkeypatch.setattr("fem.support.portions.CACHE", 8 * size)
    assert all(torch.equal(x, y) for x, y in zip(whole, (nearest(a, b), chamfer(a, b), hausdorff(a, b)), strict=True))


def test_no_block_holds_more_pairs_than_it_may(monkeypatch):
    """Memory is O(m + n): of 20 000 × 20 000 pairs never more than a block at a time."""
    sizes, closest = [], nurbs.reconstruction.distances._closest

    def watched(rows, columns):
        sizes.append(rows.shape[0] * rows.shape[-1] * columns.shape[-1])
        return closest(rows, columns)

    monkeypatch.setattr(nurbs.reconstruction.distances, "_closest", watched)
    a, b = (torch.rand(1500, 3) for _ in range(2))
    nearest(a, b)
    assert 4 * max(sizes) <= CACHE  # float32
    assert len(sizes) > 1


def test_distances_far_from_the_origin_do_not_cancel():
    a, b = (x.float() for x in clouds())
    far = 1024.0  # coordinates rounded to 2⁻¹³
    a, b = a + far, b + far
    exact = chamfer(a.double() - far, b.double() - far)
    assert torch.allclose(chamfer(a, b).double(), exact, rtol=1e-6)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("distance", [chamfer, hausdorff])
def test_gradients(distance, one_sided):
    a, b = clouds(m=7, n=9, batch=(2,))
    assert gradcheck(lambda a, b: distance(a, b, one_sided), (a.requires_grad_(), b.requires_grad_()))


def test_equal_clouds_have_distance_and_gradient_zero():
    a = clouds()[0].requires_grad_()
    for distance in (chamfer, hausdorff):
        value = distance(a, a.detach().flip(-2))
        (gradient,) = torch.autograd.grad(value.sum(), a)
        assert not value.any()
        assert not gradient.any()


def test_laplacian_is_the_mean_square_of_second_differences():
    x = torch.arange(5.0, dtype=torch.float64)
    flat = torch.stack(torch.meshgrid(x, 2 * x, indexing="ij"), -1)
    assert not laplacian(flat).any()
    assert laplacian(flat.square()) == pytest.approx((2**2 + 8**2) / 2)
    assert gradcheck(laplacian, torch.rand(2, 4, 5, 3, dtype=torch.float64, requires_grad=True))
    with pytest.raises(ValueError, match="at least 3 x 3"):
        laplacian(flat[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a[..., :0, :], b), r"at least one point; `a` has shape \(2, 3, 0, 3\)"),
        (lambda a, b: (a, b.where(b < 0.9, torch.nan)), "finite coordinates; `b` is nan"),
    ],
)
@pytest.mark.parametrize("call", [nearest, chamfer])
def test_errors(call, change, message):
    with pytest.raises(ValueError, match=message):
        call(*change(*clouds()))
    a, b = clouds()
    with pytest.raises(TypeError, match="`b` must be"):
        call(a, b.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a, b[..., :2]), r"as many coordinates in both; got \(2, 3, 40, 3\) and \(2, 3, 57, 2\)"),
        (lambda a, b: (a[:1, :2], b), r"must broadcast; got \(1, 2, 40, 3\) and \(2, 3, 57, 3\)"),
    ],
)
def test_shapes_that_annotations_would_catch_here_have_errors_of_their_own(change, message):
    with pytest.raises(ValueError, match=message):
        nurbs.reconstruction.distances._checked("chamfer", *change(*clouds()))
