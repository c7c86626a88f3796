"""Disks and balls of patches: on the circle and the sphere to round-off, and nowhere folded."""

from math import pi

import pytest
import torch

from fem import integrate
from nurbs import ball_patches, disk_patches, isogeometric_space


def test_outer_sides_are_exact() -> None:
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    end = torch.ones(1, dtype=torch.float64)
    for patch in disk_patches(2.0)[1:]:
        assert (patch(end, u).norm(dim=-1) - 2).abs().max() < 1e-14
    for patch in ball_patches(3.0)[1:]:
        assert (patch(u, u, end).norm(dim=-1) - 3).abs().max() < 1e-14


@pytest.mark.parametrize("core", [0.2, 0.5])
def test_measures(core: float) -> None:
    for patches, size in ((disk_patches(1.5, core), pi * 1.5**2), (ball_patches(1.5, core), 4 / 3 * pi * 1.5**3)):
        V = isogeometric_space(patches, 2, 2, quadrature_degree=9)
        assert float(integrate(V, lambda x: torch.ones_like(x[..., 0]))) == pytest.approx(size, rel=1e-7)


@pytest.mark.parametrize("make", [disk_patches, ball_patches])
def test_cores_that_do_not_fit(make) -> None:
    with pytest.raises(ValueError, match=r"must lie between 0 and 0\.\d+; got 0.8"):
        make(core=0.8)
