"""The polynomial F of a piece and a point: its values, halves, and what its coefficients say."""

import pytest
import torch

from fem.reference.bspline import basis_functions
from nurbs.fitting.distance_bounds import Pieces, nearer
from nurbs.geometry.patch import Patch
from nurbs.geometry.spans import flat_batch
from tests.nurbs.patches import PATCHES, random

SMOOTH = {name: patch for name, patch in PATCHES.items() if 0 not in patch.degree}


def flat(patch: Patch) -> Patch:
    return flat_batch(patch.unwrapped(), patch.batch)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_coefficients_are_those_of_the_squared_distance(name: str) -> None:
    patch = flat(SMOOTH[name])
    pieces = Pieces.of(patch)
    r, count = patch.directions, len(pieces.item)
    t, q = random(count, r), 2 * random(count, patch.dim, seed=1) - 0.5
    shift = q - pieces.middle
    factors = torch.cat([shift.square().sum(-1, keepdim=True), shift, torch.ones_like(shift[:, :1])], -1)
    F, M = torch.einsum("cj,cj...->c...", factors, pieces.table), pieces.table[:, 0]
    for x, p in zip(t.unbind(-1), patch.degree, strict=True):
        knots = torch.tensor([0.0, 1.0]).double().repeat_interleave(2 * p + 1)
        basis = basis_functions(knots, 2 * p, x)[0]
        F, M = (torch.einsum("ck,ck...->c...", basis, y) for y in (F, M))
    points = patch[pieces.item].at((pieces.start + t * pieces.width)[:, None])[:, 0]
    torch.testing.assert_close(F / M, (points - q).square().sum(-1))
    assert (torch.linalg.vector_norm(points - pieces.middle, dim=-1) <= pieces.radius + 1e-14).all()
    assert pieces.table[:, 0].amax() <= 1


@pytest.mark.parametrize("name", SMOOTH)
def test_nearer_places_are_found_and_are_nearer(name: str) -> None:
    """From any parameters: those that are named lie on the piece that is named and are nearer."""
    patch = flat(SMOOTH[name])
    pieces = Pieces.of(patch)
    m, b = 12, len(patch.control_points)
    item = torch.arange(b).repeat_interleave(m)
    q = 2 * random(b * m, patch.dim, seed=2) - 0.5
    start, end = (torch.stack(side, -1)[item] for side in zip(*patch.domain(), strict=True))
    u = start + (end - start) * random(b * m, patch.directions, seed=3)

    def squared(u: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (patch[item[rows]].at(u[:, None])[:, 0] - q[rows]).square().sum(-1)

    D = squared(u, torch.arange(b * m))
    which, found, piece = nearer(pieces, q, item, u, D, torch.ones_like(D))
    assert len(which) > m // 2
    assert (squared(found, which) < D[which]).all()
    assert (pieces.item[piece] == item[which]).all()
    low = pieces.start[piece]
    assert ((found >= low) & (found <= low + pieces.width[piece])).all()
