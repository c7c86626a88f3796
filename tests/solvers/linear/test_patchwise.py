"""Fast diagonalisation on patches of splines: exact where coefficients are separable, bounded by them elsewhere."""

from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers.linear.patchwise
from fem import Dirichlet, Energy, MeanZero
from nurbs import Surface, Volume, annulus, ball_patches, disk_patches, isogeometric_space
from nurbs.isogeometric.spline_space import SplineSpace
from solvers import CG, Direct, FastDiagonalization, minimize
from solvers.linear.choice import default_linear
from solvers.linear.conjugate_gradients import ritz_values
from solvers.linear.patchwise import PatchModes, patches_of, profiles_of
from solvers.operators.system import System
from tests.fem.kernels.patches.test_patch_integrand import closed, path
from tests.solvers.systems import elasticity

F64: Any = {"dtype": torch.float64}
METHOD = CG(preconditioner=FastDiagonalization())


def brick(*corners: tuple[float, float]) -> Surface | Volume:
    grid = torch.stack(torch.meshgrid(*[torch.tensor(c, **F64) for c in corners], indexing="ij"), -1)
    kind = Surface if len(corners) == 2 else Volume
    return kind(grid, degree=(1,) * len(corners))


def iterations(V: SplineSpace, density: Any, constraint: Any, boundary: Any = None) -> tuple[int, System]:
    """Of conjugate gradients to 1e-9 for any right-hand side."""
    energy = Energy(V, density, constraint, boundary)
    system = System(energy.discrete_form(), torch.zeros(V.shape, **F64))
    prepared = CG(rtol=1e-9, preconditioner=FastDiagonalization()).prepare(system)
    prepared.solve(torch.randn(V.shape, **F64, generator=torch.Generator().manual_seed(0)))
    return int(prepared.iterations), system


def same_as_direct(energy: Energy, **options: Any) -> None:
    found, expected = (minimize(energy, method=m, **options).value for m in (METHOD, Direct()))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("degree", [1, 3])
def test_coefficients_that_are_products_are_inverted_exactly(degree: int) -> None:
    """On an annulus the Laplacian's coefficients are r and 1/r in its parameters."""
    V = isogeometric_space(annulus(1, 2, angle=pi / 2), degree, 9)
    radius = lambda x: x.square().sum(-1).sqrt()  # noqa: E731
    count, _ = iterations(V, lambda x, u, g: torch.exp(radius(x)) * g.square().sum(-1), Dirichlet(V, {"inner": 0.0}))
    assert count <= 2


@pytest.mark.parametrize(
    "bricks",
    [
        [((0, 1), (0, 1)), ((1, 3), (0, 1))],
        [((a, a + 1.0), (b, b + 1.0)) for a in (0.0, 1.0) for b in (0.0, 1.0)],  # a cross point
        [((0, 1), (0, 1), (0, 1)), ((1, 3), (0, 1), (0, 1)), ((0, 1), (1, 2), (0, 1))],  # an edge of two seams
    ],
)
def test_glued_bricks_of_different_materials_are_inverted_exactly(bricks: list[Any]) -> None:
    """Each brick's operator is separable with its own conductivity and reaction, so that L is the matrix."""
    V = isogeometric_space([brick(*b) for b in bricks], 2, 3)
    side = lambda x: (x[..., 0] > 1).to(x) + 3 * (x[..., 1] > 1).to(x)  # noqa: E731
    density = lambda x, u, g: (1 + 1e3 * side(x)) * (g.square().sum(-1) + u**2)  # noqa: E731
    count, _ = iterations(V, density, Dirichlet(V, {"1:right" if len(bricks) < 4 else "3:right": 0.0}))
    assert count <= 3


@pytest.mark.parametrize("degree", [2, 4])
def test_no_mesh_is_worse_than_its_coefficients(degree: int) -> None:
    """All eigenvalues of L⁻¹H lie between those of C against its separable part at points, whatever the spans."""
    for spans in (4, 8, 16):
        V = isogeometric_space(disk_patches(), degree, spans)
        density = lambda x, u, g: (1 + 0.5 * torch.sin(3 * x[..., 0])) * g.square().sum(-1)  # noqa: E731
        _, system = iterations(V, density, Dirichlet(V, {"boundary": 0.0}))
        assert system.tensor is not None
        least, most = [], []
        for part in system.tensor.parts:
            (tau_x, mu_x), (tau_y, mu_y) = profiles_of([part], [0, 1, 2])[0]
            sizes = profiles_of([part], [0, 1, 2])[1]
            lines = [sizes[0] * tau_x * mu_y.T, sizes[1] * mu_x * tau_y.T]  # "y x" of all points
            (nx, ny), (qx, qy) = part.basis.num_spans, part.basis.num_points
            grid = part.values[0].reshape(ny, nx, qy, qx, -1).permute(0, 2, 1, 3, 4).reshape(ny * qy, nx * qx, -1)
            entry = lambda a, b: grid[..., k] if (k := part.numbers[a][b]) is not None else 0 * grid[..., 0]  # noqa: B023, E731
            C = torch.stack([torch.stack([entry(a, b) for b in (1, 2)], -1) for a in (1, 2)], -2)
            scale = torch.stack(lines, -1).rsqrt()
            values = torch.linalg.eigvalsh(scale[..., None] * C * scale[..., None, :])
            least.append(float(values.min()))
            most.append(float(values.max()))
        r = system.project(torch.randn(V.shape, **F64, generator=torch.Generator().manual_seed(1)))
        found = ritz_values(system.apply, FastDiagonalization().preconditioner(system), r, 25, 0)
        assert float(found[-1]) < 1.001 * max(most)
        assert float(found[0]) > 0.9 * min(least)  # less than all: patches that nothing holds have a little more energy


CASES: dict[str, Any] = {
    "ring": lambda: isogeometric_space(annulus(1, 2), 3, (4, 9)),
    "periodic": lambda: isogeometric_space(closed(), 2, (4, 9)),
    "disk": lambda: isogeometric_space(disk_patches(), 3, 6),
    "ball": lambda: isogeometric_space(ball_patches(), 2, 2),
    "curved": lambda: isogeometric_space(annulus(1, 3, angle=1.0), (2, 3), (7, 5)),
}


def laplace(x: Tensor, u: Tensor, g: Tensor) -> Tensor:
    return 0.5 * (1 + x[..., 0] ** 2) * g.square().sum(-1) + 0.1 * u**4 - u


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("by_loops", [False, True])
def test_solutions_are_those_of_factorisations(name: str, by_loops: bool) -> None:
    with path(by_loops):
        V = CASES[name]()
        same_as_direct(Energy(V, laplace, Dirichlet(V, {next(iter(V.mesh.sides)): 0.0})))


@pytest.mark.parametrize("name", ["disk", "curved"])
def test_vectors(name: str) -> None:
    V = CASES[name]()
    V = SplineSpace(V.mesh, 2, V.quadrature_degree)
    same_as_direct(Energy(V, lambda x, u, g: elasticity(x, u, g) - u[..., 0], Dirichlet(V, {"outer": 0.0})))


def test_dofs_that_are_no_sides_may_be_held() -> None:
    """Sides of some patches, obstacles, and none at all."""
    V = CASES["disk"]()
    density = lambda x, u, g: 0.5 * g.square().sum(-1) - u  # noqa: E731
    same_as_direct(Energy(V, density, Dirichlet(V, {"1:outer": 0.0})))
    same_as_direct(Energy(V, density, Dirichlet(V, {"outer": 0.0})), upper=0.1)
    W = CASES["ring"]()
    same_as_direct(Energy(W, lambda x, u, g: 0.5 * (g.square().sum(-1) + u**2) - u * x[..., 0]))


def test_terms_on_sides_are_part_of_the_operator() -> None:
    V = CASES["disk"]()
    boundary = {"outer": lambda x, u, normal: (1 + x[..., 0] ** 2) * u**2 - u}
    energy = Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1), boundary=boundary)
    same_as_direct(energy)
    system = System(energy.discrete_form(), torch.zeros(V.shape, **F64))
    H, v = energy.hessian(torch.zeros(V.shape, **F64)).to_dense(), torch.randn(V.num_dofs, **F64)
    torch.testing.assert_close(system.apply(v), H @ v, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(system.diagonal, H.diagonal(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["disk", "curved"])
def test_single_precision(name: str) -> None:
    V = CASES[name]()
    found = []
    for W in (V, V.to(dtype=torch.float32)):
        energy = Energy(W, lambda x, u, g: 0.5 * g.square().sum(-1) - u, Dirichlet(W, {"outer": 0.0}))
        found.append(minimize(energy, method=METHOD).value)
    assert found[1].dtype == torch.float32
    assert (found[1] - found[0]).abs().max() < 1e-4 * found[0].abs().max()


def test_pure_neumann_problems() -> None:
    V = CASES["disk"]()
    same_as_direct(Energy(V, lambda x, u, g: 0.5 * g.square().sum(-1) - u * x[..., 0], MeanZero(V)))


def test_patches_alone_where_seams_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers.linear.patchwise, "INTERFACE", 0)
    V = CASES["disk"]()
    same_as_direct(Energy(V, laplace, Dirichlet(V, {"outer": 0.0})))
    assert not isinstance(default_linear(V, True), CG)


def test_batches_have_their_own_coefficients() -> None:
    """Items of a batch are solved as if they were alone, in as many iterations."""
    V = CASES["curved"]()
    k = torch.tensor([[0.0], [5.0], [-0.9]], **F64) * V.dof_coordinates[:, 0] / 3 + 1
    energy = Energy(V, lambda x, u, g, k: 0.5 * k * g.square().sum(-1) - u, Dirichlet(V, {"inner": 0.0}))
    with path(True):
        together = minimize(energy, params=(V.function(k),), method=METHOD).value
        for item, own in zip(together, k, strict=True):
            alone = minimize(energy, params=(V.function(own),), method=Direct()).value
            torch.testing.assert_close(item, alone, rtol=1e-10, atol=1e-11)


def test_rings_and_periodic_directions_are_folded_and_seams_found() -> None:
    folds = {name: patches_of(CASES[name]()) for name in ("ring", "periodic", "disk")}
    assert folds["ring"][0] == [[0, 1]]
    assert folds["periodic"][0] == [[0, 2]]
    assert len(folds["ring"][1]) == len(folds["periodic"][1]) == 0
    n = 9  # functions along a side: four sides of the core and four seams between the others
    assert len(folds["disk"][1]) == 4 * (n - 1) + 4 * (n - 1)


def test_modes_make_the_operator_diagonal() -> None:
    V = CASES["curved"]()
    _, system = iterations(V, lambda x, u, g: g.square().sum(-1) + u**2, Dirichlet(V, {"inner": 0.0}))
    assert system.tensor is not None
    held = torch.zeros(V.num_dofs, dtype=torch.bool)
    held[V.dofs("inner")] = True
    modes = PatchModes(system.tensor.parts, [0, 1, 2], V.lattices[0], [0, 0], held)
    r = torch.randn(1, *modes.numbers.shape, **F64)
    V_y, V_x = (torch.linalg.inv(v[0]) for v in modes.vectors[::-1])
    back = V_y.T @ (modes.eigenvalues[0] * (V_y @ modes.solve(r)[0] @ V_x.T)) @ V_x
    torch.testing.assert_close(back, r[0], rtol=1e-9, atol=1e-9)


def test_large_spaces_take_it_by_themselves() -> None:
    assert default_linear(isogeometric_space(annulus(1, 2, angle=1.0), 3, 60), True) == METHOD
    assert default_linear(isogeometric_space(disk_patches(), 4, 24), True) == METHOD
    assert default_linear(isogeometric_space(annulus(1, 2, angle=1.0), 3, 60), False) == Direct()
    assert default_linear(isogeometric_space(annulus(1, 2, angle=1.0), 3, 8), True) == Direct()
