"""The type of numbers follows the input: what is made from a mesh or an image of one type is of that type."""

from collections.abc import Callable

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
    Mesh,
    MixedSpace,
    WeakForm,
    box,
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


# -- dtypes that cannot work -----------------------------------------------------------------------------------------

WRONG = [torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.int64, torch.bool]
CELLS, MESH = torch.tensor([[0, 1, 2]]), unit_square(2)


@pytest.mark.parametrize("dtype", WRONG)
@pytest.mark.parametrize(
    "enter",
    [
        lambda dtype: Mesh(torch.tensor([[0, 0], [1, 0], [0, 1]]).to(dtype), CELLS),
        lambda dtype: unit_interval(4, dtype=dtype),
        lambda dtype: unit_square(4, dtype=dtype),
        lambda dtype: unit_cube(2, dtype=dtype),
        lambda dtype: box((0, 0), (1, 1), (2, 2), dtype=dtype),
        lambda dtype: unit_square(2).to(dtype=dtype),
        lambda dtype: unit_square(2).curved(2, lambda x: x.to(dtype)),
        lambda dtype: FunctionSpace(unit_square(2), Lagrange(1)).to(dtype=dtype),
        lambda dtype: MixedSpace(*[FunctionSpace(MESH, Lagrange(1))] * 2).to(dtype=dtype),
    ],
    ids=["Mesh", "interval", "square", "cube", "box", "to", "curved", "space", "mixed"],
)
def test_meshes_and_spaces_are_of_single_or_double_precision(enter: Callable, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"must be a floating-point.*; got {dtype}"):
        enter(dtype)
    for fine in (torch.float32, torch.float64):
        assert enter(fine).dtype == fine


@pytest.mark.parametrize("dtype", WRONG)
def test_what_densities_are_given_is_of_the_dtype_of_the_space(dtype: torch.dtype) -> None:
    V = FunctionSpace(MESH, Lagrange(1))
    u, ones = torch.zeros(V.shape, dtype=V.dtype), torch.ones(V.shape, dtype=dtype)
    energy = Energy(V, lambda x, u, grad_u, k: k * u.square())
    for parameter in (ones[0], Constant(ones[0], ()), lambda x: torch.ones(x.shape[:-1], dtype=dtype)):
        with pytest.raises(TypeError, match=f"parameter 0 is {dtype} but the space is torch.float64"):
            energy(u, parameter)
    for call in (
        lambda: energy(ones, 1.0),
        lambda: energy(u, V.function(ones)),
        lambda: Dirichlet(V, {"left": ones[0]}).apply(u),
        lambda: V.interpolate(lambda x: torch.ones(x.shape[:-1], dtype=dtype)),
    ):
        with pytest.raises(TypeError, match=str(dtype)):
            call()


@pytest.mark.parametrize("dtype", WRONG[:4])
@pytest.mark.parametrize("n", [4, 48], ids=["values at points", "a loop over a grid"])
def test_densities_return_real_numbers_of_enough_digits(dtype: torch.dtype, n: int) -> None:
    V = FunctionSpace(unit_square(n), Lagrange(1))
    energy = Energy(V, lambda x, u, grad_u: (grad_u.square().sum(-1) - u).to(dtype), Dirichlet(V, {"left": 0.0}))
    for call in (energy, energy.residual, lambda u: minimize(energy, initial=u)):
        with pytest.raises(TypeError, match=f"must return real numbers in float64 or float32; got {dtype}"):
            call(torch.zeros(V.shape, dtype=V.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nodes_in_a_half_precision_default_are_refused(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        assert unit_square(2).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    for make in (lambda: Mesh(nodes, CELLS), lambda: unit_square(2).with_nodes(unit_square(2).nodes.to(dtype))):
        with pytest.raises(TypeError, match=r"must be float64 or float32.*`nodes\.double\(\)` converts"):
            make()
