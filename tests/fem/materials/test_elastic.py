"""Elastic materials: derivatives, invariance under rotations, limits of small strain, solutions in closed form."""

from collections.abc import Callable
from math import pi

import pytest
import torch
from torch import Tensor

from fem import (
    Constant,
    ConvergenceError,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MixedSpace,
    Status,
    compilation,
    integrate,
    unit_cube,
    unit_square,
)
from fem.materials import (
    anisotropic_diffusion,
    axisymmetric_strain,
    deformation_gradient,
    diffusion,
    in_space,
    isotropic,
    lame,
    mooney_rivlin,
    nearly_incompressible,
    neo_hookean,
    p_laplace,
    plane_stress,
    power_law,
    saint_venant_kirchhoff,
    strain,
    stress,
    thermal_strain,
    transversely_isotropic,
    viscous,
    von_mises,
)
from solvers import minimize, solve

EYE = torch.eye(3, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


FINITE: dict[str, Callable[[Tensor], Tensor]] = {
    "neo-Hookean": lambda F: neo_hookean(F, 1.3, 2.0),
    "Mooney–Rivlin": lambda F: mooney_rivlin(F, 0.4, 0.25, 2.0 + 2 / 3 * 1.3),
    "Saint Venant–Kirchhoff": lambda F: saint_venant_kirchhoff(F, 1.3, 2.0),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_strain_does_not_see_rotations_and_is_linear_elasticity_when_small(name: str) -> None:
    energy, F = FINITE[name], EYE + 0.2 * random(5, 3, 3)
    Q = torch.linalg.qr(random(3, 3, seed=1))[0]
    Q = Q * torch.linalg.det(Q)
    torch.testing.assert_close(energy(Q @ F), energy(F), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energy(F @ Q), energy(F), rtol=1e-12, atol=1e-12)  # isotropic
    lam, mu = 2.0, 1.3
    young, poisson = mu * (3 * lam + 2 * mu) / (lam + mu), lam / 2 / (lam + mu)
    torch.testing.assert_close(torch.tensor(lame(young, poisson)), torch.tensor((lam, mu)))
    small = 1e-4 * random(5, 3, 3)
    found, expected = energy(EYE + small), isotropic(strain(small), young, poisson)
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=1e-15)
    assert float(abs(energy(EYE))) < 1e-14
    at_rest = stress(energy, EYE[None])
    assert float(at_rest.abs().max()) < 1e-13


@pytest.mark.parametrize("name", ["neo-Hookean", "Mooney–Rivlin"])
def test_matter_turned_inside_out_has_infinite_energy_and_no_nan(name: str) -> None:
    F = torch.stack([EYE, torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)), 0 * EYE]).requires_grad_()
    value = FINITE[name](F)
    assert torch.isfinite(value).tolist() == [True, False, False]
    assert bool((value[1:] == float("inf")).all())
    (slope,) = torch.autograd.grad(value[0], F)
    assert bool(torch.isfinite(slope).all())


def test_plane_stress_is_space_without_stress_in_the_third_direction() -> None:
    """The least energy over ε₃₃."""
    e = strain(random(2, 2))
    lam, mu = lame(3.0, 0.3)
    third = -lam / (lam + 2 * mu) * (e[0, 0] + e[1, 1])
    whole = in_space(e) + torch.diag(torch.tensor([0, 0, float(third)], dtype=torch.float64))
    torch.testing.assert_close(plane_stress(e, 3.0, 0.3), isotropic(whole, 3.0, 0.3))
    torch.testing.assert_close(stress(isotropic, whole, 3.0, 0.3)[2, 2], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(isotropic(e, 3.0, 0.3), isotropic(in_space(e), 3.0, 0.3))


def test_stresses_are_those_of_hooke_and_differentiate() -> None:
    e = strain(random(4, 3, 3))
    lam, mu = lame(3.0, 0.3)
    hooke = lam * e.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * EYE + 2 * mu * e
    torch.testing.assert_close(stress(isotropic, e, 3.0, 0.3), hooke)
    young = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(stress(isotropic, e, young, 0.3).sum(), young)
    torch.testing.assert_close(slope, hooke.sum() / 3)
    pure = torch.diag(torch.tensor([2.0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(von_mises(pure), torch.tensor(2.0, dtype=torch.float64))
    fibre = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    stiff = transversely_isotropic(e, fibre, 3.0, 0.3, 5.0)
    torch.testing.assert_close(stiff, isotropic(e, 3.0, 0.3) + 2.5 * e[..., 0, 0] ** 2)


def test_diffusion_and_flow() -> None:
    g = random(5, 2)
    K = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(anisotropic_diffusion(g, 3 * torch.eye(2, dtype=g.dtype)), diffusion(g, 3.0))
    torch.testing.assert_close(stress(anisotropic_diffusion, g, K), g @ K)
    torch.testing.assert_close(p_laplace(g, 2.0), diffusion(g, 1.0))
    torch.testing.assert_close(p_laplace(g, 1.0, 1.0), (1 + g.square().sum(-1)).sqrt())
    grad_u = random(5, 2, 2)
    torch.testing.assert_close(power_law(grad_u, 1.7, 1.0, 0.0), viscous(grad_u, 1.7))


def test_a_heated_cube_expands_freely_and_a_held_one_is_pressed() -> None:
    V = FunctionSpace(unit_cube(2, 2, 2), Lagrange(1), components=3)

    def density(x, u, g, young, poisson, heat):
        return isotropic(thermal_strain(strain(g), 1e-5, heat), young, poisson)

    free = Dirichlet(V, {("left", 0): 0.0, ("bottom", 1): 0.0, ("back", 2): 0.0})
    u = minimize(Energy(V, density, free), params=(210e3, 0.3, 100.0)).value
    torch.testing.assert_close(u, 1e-3 * V.dof_coordinates, rtol=1e-10, atol=1e-14)
    held = stress(isotropic, thermal_strain(0 * EYE, 1e-5, 100.0), 210e3, 0.3)
    torch.testing.assert_close(held, -210e3 * 1e-3 / (1 - 2 * 0.3) * EYE)


def test_a_thick_tube_under_pressure_around_its_axis() -> None:
    """Lamé: u_r = A r + B / r in plane strain along the axis."""
    a, b, young, poisson, pressure = 1.0, 2.0, 3.0, 0.3, 0.1
    square = unit_square(16, 1)
    V = FunctionSpace(square.with_nodes(square.nodes + torch.tensor([1.0, 0.0])), Lagrange(3), components=2)

    def density(x, u, g):
        return 2 * pi * x[..., 0] * isotropic(axisymmetric_strain(x, u, g), young, poisson)

    energy = Energy(
        V,
        density,
        Dirichlet(V, {("boundary", 1): 0.0}),
        boundary={"left": lambda x, u, normal: -2 * pi * x[..., 0] * pressure * u[..., 0]},
    )
    u = minimize(energy).value
    r = V.dof_coordinates[:, 0]
    factor = (1 + poisson) * pressure * a**2 / young / (b**2 - a**2)
    torch.testing.assert_close(u[:, 0], factor * ((1 - 2 * poisson) * r + b**2 / r), rtol=1e-6, atol=0)


@pytest.mark.parametrize("when", ["never", "always"])
def test_a_block_is_pulled_as_in_closed_form(when: str) -> None:
    """Uniaxial stress of a neo-Hookean block: stretches that make the sides free, found by minimisation."""
    V = FunctionSpace(unit_cube(2, 2, 2, cell="tetrahedron"), Lagrange(1), components=3)
    held = Dirichlet(V, {("left", 0): 0.0, ("bottom", 1): 0.0, ("back", 2): 0.0, ("right", 0): 0.5})
    with compilation(when):
        energy = Energy(V, lambda x, u, g, mu, lam: neo_hookean(deformation_gradient(g), mu, lam), held)
        u = minimize(energy, params=(1.0, 1.5)).value
    side = float(1 + u[:, 1].min())
    J = 1.5 * side**2
    lateral = side - 1 / side + 1.5 * torch.log(torch.tensor(J)) / side  # ∂ψ/∂λ₂ with μ = 1
    assert float(abs(lateral)) < 1e-6
    linear = V.dof_coordinates * torch.tensor([0.5, side - 1, side - 1], dtype=torch.float64)
    torch.testing.assert_close(u, linear, rtol=1e-8, atol=1e-8)


def test_nearly_incompressible_blocks_keep_their_volume() -> None:
    mesh = unit_square(4)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))

    def density(x, w, grad_w, mu, bulk):
        return nearly_incompressible(deformation_gradient(in_space(grad_w[0])), w[1], mu, bulk)

    held = Dirichlet(X, {("left", 0): 0.0})
    energy = Energy(X, density, held, boundary={"right": lambda x, w, n, mu, bulk: -0.2 * w[0][..., 0]})
    u, _ = X.split(solve(energy, params=(1.0, 1e8)).value)
    volume = integrate(
        X.fields[0],
        lambda x, u, g: torch.linalg.det(deformation_gradient(g)),
        u=u,  # type: ignore[arg-type]
    )
    assert float(volume) == pytest.approx(1, abs=1e-7)
    assert float(u[:, 0].max()) > 0.03


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lame(1.0, 0.5), r"`lame\(poisson=...\)` must be between -1 and 0.5, these excluded; got 0.5. At ½"),
        (lambda: isotropic(EYE, -1.0, 0.3), r"`lame\(young=...\)` must be above 0; got -1.0"),
        (lambda: mooney_rivlin(EYE[:2, :2], 1, 1, 1), r"takes F of three dimensions; got 2 × 2"),
        (lambda: von_mises(EYE[:2, :2]), r"deviators are those of matrices of three dimensions; got 2 × 2"),
        (lambda: p_laplace(EYE[0], 0.5), r"`p_laplace\(p=...\)` must be above 1; got 0.5"),
        (lambda: power_law(EYE, 1.0, 0.0), r"`power_law\(n=...\)` must be above 0; got 0.0"),
    ],
)
def test_numbers_out_of_range_are_told(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_parameters_may_be_fields_and_batches() -> None:
    V = FunctionSpace(unit_square(3), Lagrange(1), components=2)
    held = Dirichlet(V, {"left": 0.0})
    energy = Energy(V, lambda x, u, g, E, nu, b: plane_stress(strain(g), E, nu) - (b * u).sum(-1), held)
    young = V.per_cell(1 + torch.rand(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    load = Constant(torch.tensor([0.0, -1.0], dtype=torch.float64), (2,))
    both = minimize(energy, params=(young, 0.3, load)).value
    for i in range(2):
        alone = minimize(energy, params=(V.per_cell(young.values[i, :]), 0.3, load)).value
        torch.testing.assert_close(both[i], alone)


def test_where_matter_is_turned_inside_out_is_told() -> None:
    """By the energy, and by a solver that starts there."""
    V = FunctionSpace(unit_cube(2, 2, 2), Lagrange(1), components=3)
    energy = Energy(V, lambda x, u, g: neo_hookean(deformation_gradient(g), 1.0, 1.0), Dirichlet(V, {"left": 0.0}))
    u = torch.zeros(V.shape, dtype=V.dtype)
    u[-1] = torch.tensor([-3.0, 0.0, 0.0])  # the corner of the last cell
    where = r"in cell 7, at x = \[0\.\d+, 0\.\d+, 0\.\d+\]"
    with pytest.raises(ValueError, match=where + ".* det F ≤ 0 at finite strain"):
        energy(u)
    with pytest.raises(ConvergenceError, match=where) as caught:
        minimize(energy, initial=u)
    assert caught.value.solution.status is Status.NOT_FINITE
    both = minimize(energy, initial=torch.stack([0 * u, u]), throw=False)
    assert both.status == (Status.CONVERGED, Status.NOT_FINITE)
