"""Eigenvalues against exact ones, the discrete spectrum of splines, derivatives, errors."""

from math import pi

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, Periodic, Ties, unit_square
from nurbs import disk_patches, isogeometric_space, line
from solvers import eigenmodes
from tests.problems import diffusion, laplace


def mass(x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
    return 0.5 * u.square()


def test_the_square() -> None:
    V = FunctionSpace(unit_square(16), Lagrange(3))
    found = eigenmodes(Energy(V, laplace, Dirichlet(V, {"boundary": 0.0})), Energy(V, mass), 4)
    expected = pi**2 * torch.tensor([2.0, 5.0, 5.0, 8.0], dtype=torch.float64)
    assert (found.values / expected - 1).abs().max() < 1e-6
    assert (found.values >= expected).all()  # Rayleigh and Ritz
    assert found.residual.max() < 1e-10
    M = Energy(V, mass).hessian(torch.zeros(V.shape, dtype=torch.float64)).to_dense()
    assert (found.modes @ M @ found.modes.T - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-10


def test_the_disk() -> None:
    """The first zero of the Bessel function J₀, squared."""
    V = isogeometric_space(disk_patches(), 4, 7)
    found = eigenmodes(Energy(V, laplace, Dirichlet(V, {"outer": 0.0})), Energy(V, mass), 1)
    assert float(found.values[0]) == pytest.approx(5.78318596294678, abs=1e-9)


def test_a_torus() -> None:
    """4π²(k² + l²), in multiples, the constants first; a band 4π²k² + π²l²; antiperiodic (2k + 1)²π²."""
    V = FunctionSpace(unit_square(9), Lagrange(3))
    torus, band = Periodic(V, {"right": "left", "top": "bottom"}), Periodic(V, {"right": "left"})
    walls = Dirichlet(V, {"bottom": 0.0, "top": 0.0})
    turned = walls & Periodic(V, {"right": "left"}, sign=-1)
    cases = [(torus, [0, 4, 4, 4, 4, 8]), (walls & band, [1, 4, 5, 5, 8, 8]), (turned, [2, 2, 5, 5, 10, 10])]
    for constraint, squares in cases:
        for mass_constraint in (None, constraint):
            M = Energy(V, mass, mass_constraint)
            found = eigenmodes(Energy(V, laplace, constraint), M, 6, near=-0.1)
            expected = pi**2 * torch.tensor(squares, dtype=V.dtype)
            assert (found.values - expected).abs().max() < 3e-5 * float(expected.max())
            assert found.residual[1:].max() < 1e-9
            assert torch.equal(constraint.apply(found.modes), found.modes)
            gram = torch.stack([Energy(V, mass).hessian_product(u, u) for u in found.modes]) @ found.modes.T
            assert (gram - torch.eye(6, dtype=V.dtype)).abs().max() < 1e-9


def test_different_ties_are_refused() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    other = Ties(V, [3], torch.eye(V.num_dofs, dtype=V.dtype)[:1])
    with pytest.raises(ValueError, match="one and the same ties in energy and mass"):
        eigenmodes(Energy(V, laplace, Periodic(V, {"right": "left"})), Energy(V, mass, other), 2)


def test_the_spectrum_of_splines() -> None:
    """ω_h / ω of waves on an endless line at ω h, from the rows of the matrices, and of modes on an interval.

    Source: J. Cottrell, A. Reali, Y. Bazilevs and T. Hughes, CMAME 195, 2006.
    """
    n = 12
    V = isogeometric_space(line(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)), 2, n)
    zero = torch.zeros(V.shape, dtype=torch.float64)
    K, M = (Energy(V, density).hessian(zero).to_dense()[7] for density in (laplace, mass))
    steps = torch.arange(len(K), dtype=torch.float64) - 7
    for wave, ratio in ((0.5, 1.00004574900), (1.0, 1.00084811208), (2.0, 1.02076201381)):
        phase = torch.cos(wave * steps)
        assert float((K @ phase / (M @ phase)).sqrt() / (n * wave)) == pytest.approx(ratio, abs=1e-9)
    found = eigenmodes(Energy(V, laplace, Dirichlet(V, {"boundary": 0.0})), Energy(V, mass), 3)
    assert (found.values.sqrt() / (pi * torch.arange(1, 4)) - 1).abs().max() < 2e-3


def test_derivatives() -> None:
    V = FunctionSpace(unit_square(6), Lagrange(2))
    clamped = Dirichlet(V, {"left": 0.0, "bottom": 0.0})
    J = Energy(V, lambda x, u, g, a: 0.5 * (1 + a * x[..., 0]) * g.square().sum(-1), clamped)

    def values(a: Tensor) -> Tensor:
        return eigenmodes(J, Energy(V, mass), 3, params=(a,)).values

    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    slopes = torch.stack([torch.autograd.grad(v, a, retain_graph=True)[0] for v in values(a)])
    differences = (values(a.detach() + 1e-4) - values(a.detach() - 1e-4)) / 2e-4
    assert (slopes / differences - 1).abs().max() < 1e-6


def test_errors() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    J, M = Energy(V, laplace), Energy(V, mass)
    assert eigenmodes(J, M, 2, near=-1.0).values[0].abs() < 1e-12
    with pytest.raises(ValueError, match="over the same space"):
        eigenmodes(J, Energy(FunctionSpace(unit_square(3), Lagrange(1)), mass))
    with pytest.raises(ValueError, match=r"`eigenmodes\(count=16\)` needs 0 < count < 16"):
        eigenmodes(J, M, 16)
    with pytest.raises(ValueError, match="homogeneous Dirichlet values"):
        eigenmodes(Energy(V, laplace, Dirichlet(V, {"left": 1.0})), M, 2)
    with pytest.raises(ValueError, match="and no others"):
        eigenmodes(Energy(V, laplace, MeanZero(V)), M, 2)
    weighted = Energy(V, diffusion)
    with pytest.raises(ValueError, match="one problem at a time"):
        eigenmodes(weighted, M, 2, params=(torch.ones(3, dtype=torch.float64),))


def test_modes_are_shown_in_one_line_and_compare_by_identity():
    V = FunctionSpace(unit_square(4), Lagrange(1))
    found = eigenmodes(Energy(V, laplace, Dirichlet(V, {"boundary": 0.0})), Energy(V, mass), 5)
    assert repr(found).startswith("Eigenmodes(5 eigenvalues 20.7733, 58.3866, 58.3866, ")
    assert ", …; modes (5, 25), residual ≤ " in repr(found)
    assert found == found != eigenmodes(Energy(V, laplace, Dirichlet(V, {"boundary": 0.0})), Energy(V, mass), 5)


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e30, 1e200])
def test_units_do_not_matter(unit: float) -> None:
    V = FunctionSpace(unit_square(6), Lagrange(1))
    energy, weighted = (
        Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0})),
        Energy(V, lambda x, u, g, k: k * mass(x, u, g)),
    )
    wanted = eigenmodes(energy, weighted, 3, (1.0,), (1.0,), near=40.0)
    stiff = eigenmodes(energy, weighted, 3, (unit,), (1.0,), near=40.0 * unit)
    light = eigenmodes(energy, weighted, 3, (1.0,), (unit,), near=40.0 / unit)
    torch.testing.assert_close(stiff.values / unit, wanted.values)
    torch.testing.assert_close(light.values * unit, wanted.values)
    torch.testing.assert_close(weighted(light.modes, unit), weighted(wanted.modes, 1.0))
    assert max(float(found.residual.max()) for found in (stiff, light)) < 1e-10
