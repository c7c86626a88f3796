"""Materials with memory: increments against closed forms, consistency of energies with updates, derivatives."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, at_quadrature, compilation, unit_cube, unit_square
from fem.materials import (
    damage,
    damage_history,
    in_space,
    isotropic,
    j2_plasticity,
    j2_return,
    lame,
    maxwell,
    maxwell_strain,
    strain,
    stress,
)
from solvers import minimize

YOUNG, POISSON, YIELD, HARDENING = 200.0, 0.3, 1.0, 20.0
PLASTIC = (YOUNG, POISSON, YIELD, HARDENING)


def random_strain(*batch: int, size: float = 0.02) -> Tensor:
    return strain(size * torch.randn(*batch, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def test_stresses_after_return_are_on_the_yield_surface_and_are_slopes_of_the_energy() -> None:
    e, start = random_strain(50), torch.zeros(50, 3, 3, dtype=torch.float64)
    alpha = torch.zeros(50, dtype=torch.float64)
    for factor in (0.3, 1.0, -0.5, 2.0):
        sigma = stress(j2_plasticity, factor * e, start, alpha, *PLASTIC)
        after, longer = j2_return(factor * e, start, alpha, *PLASTIC)
        lam, mu = lame(YOUNG, POISSON)
        elastic = factor * e - after
        trace = elastic.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        torch.testing.assert_close(
            sigma, lam * trace * torch.eye(3, dtype=e.dtype) + 2 * mu * elastic, atol=1e-12, rtol=0
        )
        s = sigma - sigma.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / 3 * torch.eye(3, dtype=e.dtype)
        q, limit = (1.5 * s.square().sum((-2, -1))).sqrt(), YIELD + HARDENING * longer
        grew = longer > alpha
        assert bool(grew.any())
        torch.testing.assert_close(q[grew], limit[grew], rtol=1e-12, atol=0)
        assert bool((q <= limit * (1 + 1e-12)).all())
        assert float(after.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max()) < 1e-15
        start, alpha = after, longer


def test_the_energy_is_the_least_over_plastic_increments() -> None:
    """½ε^e:C:ε^e + σ_y Δα + ½H Δα², over Δε^p = Δα n with any direction n of the deviator, |n| = √(3/2)."""
    e, zero = random_strain(), torch.zeros(3, 3, dtype=torch.float64)
    alpha = torch.tensor(0.0, dtype=torch.float64)
    least = j2_plasticity(e, zero, alpha, *PLASTIC)
    after, longer = j2_return(e, zero, alpha, *PLASTIC)
    cost = lambda p, a: isotropic(e - p, YOUNG, POISSON) + YIELD * a + 0.5 * HARDENING * a**2  # noqa: E731
    torch.testing.assert_close(least, cost(after, longer), rtol=1e-12, atol=0)
    for seed in range(20):
        n = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        n = strain(n)
        n = n - n.trace() / 3 * torch.eye(3, dtype=n.dtype)
        other = after + 1e-3 * n
        length = (other.square().sum() / 1.5).sqrt()
        assert float(cost(other, length)) >= float(least) - 1e-14


@pytest.mark.parametrize("when", ["never", "always"])
@pytest.mark.parametrize("cell", ["hexahedron", "tetrahedron"])
def test_a_bar_hardens_as_in_closed_form(cell: str, when: str) -> None:
    """Uniaxial stress: σ = Eε up to σ_y, then with the tangent EH / (E + H); unloading is elastic."""
    V = FunctionSpace(unit_cube(2, 2, 2, cell=cell), Lagrange(1), components=3)

    def density(x, u, g, plastic, alpha):
        return j2_plasticity(strain(g), plastic, alpha, *PLASTIC)

    plastic = at_quadrature(V, lambda x: x.new_zeros(*x.shape[:2], 3, 3))
    alpha = at_quadrature(V, lambda x: 0 * x[..., 0])
    tangent, pulled = YOUNG * HARDENING / (YOUNG + HARDENING), 0.0
    start, u = YIELD / YOUNG, None
    with compilation(when):
        for pulled in (0.5 * start, 2 * start, 5 * start, 4.5 * start):
            held = Dirichlet(V, {("left", 0): 0.0, ("bottom", 1): 0.0, ("back", 2): 0.0, ("right", 0): pulled})
            u = minimize(Energy(V, density, held), params=(plastic, alpha), initial=u).value
            old = plastic, alpha
            plastic = at_quadrature(V, lambda x, u, g, p, a: j2_return(strain(g), p, a, *PLASTIC)[0], u, old)
            alpha = at_quadrature(V, lambda x, u, g, p, a: j2_return(strain(g), p, a, *PLASTIC)[1], u, old)
            elastic = at_quadrature(V, lambda x, u, g, p: strain(g) - p, u, (plastic,)).values[0]
            lam, mu = lame(YOUNG, POISSON)
            sigma = lam * elastic.diagonal(dim1=-2, dim2=-1).sum(-1) + 2 * mu * elastic[..., 0, 0]
            if pulled == 4.5 * start:
                expected = YIELD + tangent * 4 * start - YOUNG * 0.5 * start
            else:
                expected = min(YOUNG * pulled, YIELD + tangent * (pulled - start))
            torch.testing.assert_close(sigma, torch.full_like(sigma, expected), rtol=1e-9, atol=0)


def test_gradients_go_through_increments() -> None:
    """From a tip after two increments back to the yield stress."""
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    held = Dirichlet(V, {"left": 0.0})

    def tip(yields: Tensor) -> Tensor:
        def density(x, u, g, p, a, sy, load):
            return j2_plasticity(in_space(strain(g)), p, a, YOUNG, POISSON, sy, HARDENING) - load * u[..., 1]

        energy, zero = Energy(V, density, held), at_quadrature(V, lambda x: 0 * x[..., 0])
        state = at_quadrature(V, lambda x: x.new_zeros(*x.shape[:2], 3, 3)), zero
        value = None
        for load in (0.4, 0.6):
            value = minimize(energy, params=(*state, yields, load)).value
            update = lambda i, u=value, old=state: at_quadrature(  # noqa: E731
                V,
                lambda x, u, g, p, a, sy: j2_return(in_space(strain(g)), p, a, YOUNG, POISSON, sy, HARDENING)[i],
                u,
                (*old, yields),
            )
            state = update(0), update(1)
        assert value is not None
        return value[-1, 1]

    at = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(tip(at), at)[0]
    with torch.no_grad():
        central = (tip(at + 1e-5) - tip(at - 1e-5)) / 2e-5
    assert float(abs(slope)) > 1e-4
    torch.testing.assert_close(slope, central, rtol=1e-6, atol=0)


def test_a_branch_relaxes_as_backward_euler_does() -> None:
    """Under a strain that is held the stress falls by τ / (τ + Δt) in each step."""
    e, viscous = random_strain(), torch.zeros(3, 3, dtype=torch.float64)
    mu, relaxation, step = 3.0, 2.0, 0.1
    sizes = []
    for _ in range(5):
        sizes.append(stress(maxwell, e, viscous, mu, relaxation, step).norm())
        viscous = maxwell_strain(e, viscous, relaxation, step)
    ratios = torch.stack(sizes[1:]) / torch.stack(sizes[:-1])
    torch.testing.assert_close(ratios, torch.full_like(ratios, relaxation / (relaxation + step)))


def test_damage_softens_and_is_kept() -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    energy = lambda e, k: damage(isotropic(e, YOUNG, POISSON), k, 0.01, 0.05)  # noqa: E731
    e = random_strain(8)
    assert gradcheck(lambda e: energy(e, zero), e.clone().requires_grad_())
    elastic = isotropic(e, YOUNG, POISSON)
    whole = torch.exp(-(elastic.clamp(min=0.01) - 0.01) / 0.05)
    hooke = stress(isotropic, e, YOUNG, POISSON)
    torch.testing.assert_close(stress(energy, e, zero), whole[..., None, None] * hooke)
    kept = damage_history(elastic, zero)
    torch.testing.assert_close(stress(energy, 0.5 * e, kept), whole[..., None, None] * 0.5 * hooke)
    assert bool((elastic > 0.01).any())


def test_values_at_points_belong_to_their_space() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1))
    values = at_quadrature(V, lambda x, u, g: g.square().sum(-1) + u, V.interpolate(lambda x: x.sum(-1)))
    energy = Energy(V, lambda x, u, g, a: a * u)
    assert float(energy(V.interpolate(lambda x: 1 + 0 * x[..., 0]), values)) == pytest.approx(3)
    W = FunctionSpace(unit_square(3), Lagrange(2))
    with pytest.raises(ValueError, match="which are not those of the integral"):
        Energy(W, lambda x, u, g, a: a * u)(W.interpolate(lambda x: x[..., 0]), values)
    assert at_quadrature(V, lambda x, u, g: 2.0, V.interpolate(lambda x: x[..., 0])).values[0].shape[0] == 9


def test_numbers_out_of_range_are_told() -> None:
    zero = torch.zeros(3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`j2_plasticity\(yield_stress=...\)` must be above 0; got 0.0"):
        j2_plasticity(zero, zero, zero[0, 0], YOUNG, POISSON, 0.0)
    with pytest.raises(ValueError, match=r"`j2_plasticity\(hardening=...\)` must be above -230.769; got -300.0"):
        j2_return(zero, zero, zero[0, 0], YOUNG, POISSON, YIELD, -300.0)
    with pytest.raises(ValueError, match=r"`damage\(softening=...\)` must be above 0; got -1.0"):
        damage(zero[0, 0], zero[0, 0], 0.1, -1.0)
