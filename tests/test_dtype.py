"""The type of numbers follows the input: what is made from a mesh or an image of one type is of that type."""

import pytest
import torch

from fem import (
    BSpline,
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MeanZero,
    MixedSpace,
    WeakForm,
    by_cell_tag,
    gradient,
    h1_error,
    integrate,
    l2_error,
    unit_cube,
    unit_interval,
    unit_square,
)
from segmentation import piecewise_constant
from solvers import (
    CG,
    Direct,
    ExponentialSeries,
    FastDiagonalization,
    GaussianField,
    Multigrid,
    ReducedBasis,
    UNet,
    certify,
    eigenmodes,
    gauss_points,
    minimize,
    solve,
)

DTYPES = (torch.float32, torch.float64)


def density(x, u, grad_u, k):
    return 0.5 * k * grad_u.square().sum(-1) - u


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [unit_interval, unit_square, unit_cube])
def test_meshes_spaces_and_fields(make, dtype: torch.dtype) -> None:
    straight = make(2, dtype=dtype)
    other = torch.float64 if dtype == torch.float32 else torch.float32
    assert straight.to(other).dtype == straight.to(dtype=other).nodes.dtype == other
    for mesh in (straight, straight.curved(2), make(2).to(dtype)):
        V = FunctionSpace(mesh, Lagrange(2))
        u = V.interpolate(lambda x: x[..., 0])
        values = (V.interpolate(1), V.interpolate(lambda x: 2.0), V.evaluate(u, mesh.nodes), V.dof_coordinates)
        assert {t.dtype for t in (mesh.nodes, u, *values)} == {dtype}
        exact = lambda x: x[..., 0].double()  # noqa: E731
        figures = (integrate(V, 1.0), integrate(V, V.function(u)), l2_error(V, u, exact), h1_error(V, u, exact))
        assert {t.dtype for t in figures} == {dtype}
        assert Dirichlet(V, {"left": 1.0, "right": lambda x: 0.5}).apply(u).dtype == MeanZero(V).apply(u).dtype == dtype
        assert {t.dtype for t in gauss_points(mesh, 3)} == {dtype}


@pytest.mark.parametrize("dtype", DTYPES)
def test_energies_and_their_derivatives(dtype: torch.dtype) -> None:
    mesh = unit_square(3, dtype=dtype).with_tags(cell_tags={"all": list(range(9))})
    V = FunctionSpace(mesh, Lagrange(1))
    u = V.interpolate(lambda x: x.square().sum(-1))
    for k in (2, 2.0, torch.ones(2, dtype=dtype), V.function(u), lambda x: 1.0, by_cell_tag({"all": 3})):
        energy = Energy(V, density, Dirichlet(V, {"left": 0.0}))
        made = (energy(u, k), energy.residual(u, k), energy.hessian_product(u, u, k))
        assert {t.dtype for t in made} == {dtype}
    slope, axis = gradient(V.function(u)), Constant(torch.ones(2, dtype=dtype), (2,))
    tilted = Energy(V, lambda x, u, g, s, a: (g * (s + a)).sum(-1))
    assert tilted(u, slope, axis).dtype == tilted.hessian(u, slope, axis).dtype == dtype
    splines = FunctionSpace(mesh, BSpline.uniform((3, 3), 2, dtype=dtype))
    assert Energy(splines, density)(torch.ones(splines.shape, dtype=dtype), 1.0).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [None, Direct(), CG(), Multigrid(), FastDiagonalization()])
def test_solutions(method, dtype: torch.dtype) -> None:
    V = FunctionSpace(unit_square(4, dtype=dtype), Lagrange(1))
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    solution = minimize(energy, (torch.ones(2, dtype=dtype),), method=method)
    assert solution.value.dtype == solution.residual.dtype == solution.energy.dtype == dtype
    assert solve(energy, (1.0,), method=method if method in (None, Direct()) else None).value.dtype == dtype
    certificate = certify(energy, solution.value, (1.0,))
    assert certificate.energy_error.dtype == certificate.relative.dtype == certificate.indicator.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_modes_bases_and_mixed_problems(dtype: torch.dtype) -> None:
    V = FunctionSpace(unit_square(4, dtype=dtype), Lagrange(1))
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    found = eigenmodes(energy, Energy(V, lambda x, u, g: 0.5 * u**2), 2, params=(1.0,))
    assert found.values.dtype == found.modes.dtype == found.residual.dtype == dtype
    basis = ReducedBasis.of_snapshots(energy, (torch.tensor([1.0, 2.0, 3.0], dtype=dtype),), 1)
    assert basis((2.0,)).dtype == dtype
    W = MixedSpace(V, V)
    form = lambda x, u, g, v, gv: (g[0] * gv[0]).sum(-1) + u[1] * v[1] - v[0]  # noqa: E731
    assert solve(WeakForm(W, form, Dirichlet(W, {("left", 0): 0}))).value.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_families_and_images(dtype: torch.dtype) -> None:
    x = torch.rand(5, 2, dtype=dtype)
    for family in (GaussianField(2, modes=3), ExponentialSeries()):
        assert family(family.sample(2), x).dtype == family.sample(2, like=x).dtype == dtype
    image = torch.rand(1, 1, 5, 5, dtype=dtype)
    assert UNet(width=2, depth=1).to(dtype)(image).dtype == piecewise_constant(image).dtype == dtype
