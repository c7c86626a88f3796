"""Algebraic multigrid agrees with factorisations, takes as many iterations on any mesh, and is set up once."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

import solvers.linear.aggregation
import solvers.linear.algebraic_multigrid
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
    unit_cube,
    unit_square,
)
from fem.support.compilation import compilation
from fem.support.native import find_compiler
from solvers import CG, AlgebraicMultigrid, Direct, Newton, minimize
from solvers.linear.aggregation import aggregate
from solvers.operators.system import System
from tests.problems import conduction, diffusion, laplace, poisson
from tests.solvers.systems import elasticity, system_of


@pytest.fixture(autouse=True)
def small_coarsest_level(monkeypatch):
    """Several levels on small meshes."""
    monkeypatch.setattr(solvers.linear.aggregation, "COARSEST", 40)


@pytest.fixture
def setups(monkeypatch):
    """The sizes of the matrices that hierarchies were made for."""
    sizes, original = [], aggregate

    def counted(assembled, values, scale):
        sizes.append(len(scale))
        return original(assembled, values, scale)

    monkeypatch.setattr(solvers.linear.algebraic_multigrid, "aggregate", counted)
    return sizes


def jittered(dim, n):
    """A Delaunay mesh of the unit square or cube, its points moved and its cells in no order."""
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * dim, indexing="ij"), -1).reshape(-1, dim)
    x += 0.5 / n * (rng.random(x.shape) - 0.5) * ((x > 0) & (x < 1))
    cells = Delaunay(x).simplices.astype(np.int64)
    volume = np.linalg.det(x[cells[:, 1:]] - x[cells[:, :1]])
    cells[volume < 0] = cells[volume < 0][:, [1, 0, *range(2, dim + 1)]]
    cells = cells[abs(volume) > 1e-2 / n**dim]
    cell = ("triangle", "tetrahedron")[dim - 2]
    return Mesh(torch.from_numpy(x), torch.from_numpy(rng.permutation(cells)), cell, {"left": lambda x: x[..., 0] == 0})


def mixed_cells(n):
    """Quadrilaterals on the left half of the unit square, triangles on the right."""
    square = unit_square(n)
    quads = square.cells[square.nodes[square.cells].mean(1)[:, 0] < 0.5]
    rest = square.cells[square.nodes[square.cells].mean(1)[:, 0] >= 0.5]
    return Mesh(square.nodes, {"quadrilateral": quads, "triangle": torch.cat([rest[:, [0, 1, 2]], rest[:, [0, 2, 3]]])})


def smooth(amplitude):
    return lambda x: 1 + amplitude * torch.sin(3 * x[..., 0]) * torch.cos(4 * x[..., 1])


def poisson_system(mesh, degree=1, nu=None):
    """The system of −∇·ν∇, zero on the boundary."""
    V = FunctionSpace(mesh, Lagrange(degree))
    return system(Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0})), smooth(0.5) if nu is None else nu)


def system(energy, *params):
    form = energy.discrete_form(params)
    return System(form, torch.zeros(*form.batch, *energy.space.shape, dtype=energy.space.dtype))


def random_rhs(system, seed=1):
    shape = (*system.batch, *system.form.space.shape)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=system.u.dtype, generator=generator)


def agrees_with_direct(system, tolerance=1e-9):
    """Whether x is Direct's, and the prepared multigrid."""
    rhs, prepared = random_rhs(system), AlgebraicMultigrid(rtol=1e-12).prepare(system)
    expected, found = Direct("superlu").prepare(system).solve(rhs), prepared.solve(rhs)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert not prepared.singular.any()
    assert not prepared.indefinite.any()
    return prepared


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_it_agrees_with_direct_on_jittered_simplices(dim, degree):
    prepared = agrees_with_direct(poisson_system(jittered(dim, {2: 12, 3: 6}[dim] // degree), degree))
    assert len(prepared.cycles.hierarchies[0].stages) >= 1
    assert int(prepared.iterations) <= 60


@pytest.mark.parametrize("name", ["scalar", "robin", "vector", "batch", "mean zero"])
def test_it_agrees_with_direct_whatever_the_functional(name):
    agrees_with_direct(system_of(name, 8)[0])


def test_it_agrees_with_direct_on_mixed_cells():
    agrees_with_direct(poisson_system(mixed_cells(10), 2))


def test_it_agrees_with_direct_with_means_of_vectors_and_for_splines():
    W = FunctionSpace(jittered(2, 10), Lagrange(1), components=2)
    vector = lambda x, u, g: 0.5 * g.square().sum((-2, -1))  # noqa: E731
    agrees_with_direct(system(Energy(W, vector, MeanZero(W))))
    S = FunctionSpace(unit_square(12), BSpline.uniform((12, 12), 2), components=2)
    agrees_with_direct(system(Energy(S, lambda x, u, g: elasticity(x, u, g) + u.square().sum(-1))))


def test_it_agrees_with_direct_for_coupled_fields():
    mesh = jittered(2, 10)
    X = MixedSpace(FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1)))
    density = lambda x, u, g: g[0].square().sum(-1) + g[1].square().sum(-1) + (g[0] * g[1]).sum(-1)  # noqa: E731
    agrees_with_direct(system(Energy(X, density, Dirichlet(X, {"boundary": 0.0}))))


def test_displacements_take_a_number_of_iterations_that_only_rigid_motions_explain(monkeypatch):
    mesh = unit_cube(12, 3, 3, cell="tetrahedron")
    beam = mesh.with_nodes(mesh.nodes * mesh.nodes.new_tensor([4.0, 1.0, 1.0]))
    W = FunctionSpace(beam, Lagrange(1), components=3)
    energy = Energy(W, elasticity, Dirichlet(W, {"left": 0.0}))
    with_rotations = agrees_with_direct(system(energy)).iterations
    original = solvers.linear.aggregation.near_kernel
    monkeypatch.setattr(solvers.linear.aggregation, "near_kernel", lambda space: original(space)[:, :3])
    W._workspace.hierarchies.clear()
    constants_alone = agrees_with_direct(system(energy)).iterations
    assert 1.5 * int(with_rotations) < int(constants_alone)


def test_rigid_motions_have_no_strain():
    for mesh in (jittered(2, 4), jittered(3, 2)):
        W = FunctionSpace(mesh, Lagrange(2), components=mesh.dim)
        modes = solvers.linear.aggregation.near_kernel(W).T.unflatten(-1, W.shape)
        assert len(modes) == {2: 3, 3: 6}[mesh.dim]
        assert float(Energy(W, elasticity)(modes).abs().max()) < 1e-14
        assert int(torch.linalg.matrix_rank(modes.flatten(1))) == len(modes)


@pytest.mark.parametrize("name", ["scalar", "vector", "mean zero"])
def test_the_preconditioner_is_symmetric_and_positive_definite(name):
    system, *_ = system_of(name, 6)
    V = AlgebraicMultigrid().preconditioner(system)
    n, shape = system.form.space.num_dofs, system.form.space.shape
    P = torch.stack([system.project(e) for e in torch.eye(n, dtype=torch.float64).unflatten(-1, shape)])
    Z = torch.stack([V(p).flatten() for p in P])
    P = P.flatten(1)
    M = Z @ P.T
    torch.testing.assert_close(M, M.T, rtol=0, atol=1e-5 * float(M.abs().max()))
    eigenvalues = torch.linalg.eigvalsh((M + M.T) / 2)
    rank = int(torch.linalg.matrix_rank(P))
    assert float(eigenvalues[-rank]) > 1e-4 * float(eigenvalues[-1])
    if system.fixed is not None:
        assert not Z[:, system.fixed.flatten()].any()


@pytest.mark.parametrize(("dim", "sizes", "most"), [(2, (20, 60), 14), (3, (8, 16), 20)])
def test_iterations_hardly_grow_with_the_mesh(dim, sizes, most):
    counts = []
    for n in sizes:
        prepared = AlgebraicMultigrid(rtol=1e-8).prepare(poisson_system(jittered(dim, n)))
        prepared.solve(torch.ones_like(prepared.system.u))
        counts.append(int(prepared.iterations))
    assert counts[1] <= 1.5 * counts[0] + 3  # in three dimensions larger meshes have worse slivers, too
    assert counts[1] <= most


@pytest.mark.parametrize("contrast", [1e-6, 1e6])
def test_coefficients_that_jump_between_cells_cost_little(contrast):
    mesh = jittered(2, 40)
    V = FunctionSpace(mesh, Lagrange(1))
    squares = (4 * mesh.nodes[mesh.cells].mean(1)).floor().sum(-1) % 2 == 0
    jumping = system(conduction_energy(V), V.per_cell(torch.where(squares, contrast, 1.0).double()))
    assert iterations(jumping) <= 2.5 * iterations(system(conduction_energy(V), 1.0))


@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_anisotropic_coefficients_converge_whatever_their_direction(angle):
    V = FunctionSpace(jittered(2, 30), Lagrange(1))
    along = torch.tensor([np.cos(angle), np.sin(angle)])
    k = Constant(1e-3 * torch.eye(2, dtype=torch.float64) + torch.outer(along, along), shape=(2, 2))
    energy = Energy(V, lambda x, u, g, k: 0.5 * ((k @ g[..., None])[..., 0] * g).sum(-1), Dirichlet(V, {"left": 0.0}))
    assert iterations(system(energy, k)) <= 80


def conduction_energy(V):
    return Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))


def iterations(system):
    prepared = AlgebraicMultigrid(rtol=1e-8).prepare(system)
    prepared.solve(random_rhs(system))
    return int(prepared.iterations)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["scalar", "vector"])
def test_hierarchies_are_the_same_compiled_or_not(name):
    """Interpolation and coarse matrices up to round-off, and levels of the same sizes."""
    found = []
    for when in ("always", "never"):
        with compilation(when):
            found.append(AlgebraicMultigrid().prepare(system_of(name, 10)[0]).cycles.hierarchies[0])
    one, two = found
    assert len(one.stages) == len(two.stages) >= 1
    for mine, theirs in zip(one.stages, two.stages, strict=True):
        assert mine.up.shape == theirs.up.shape
        torch.testing.assert_close((mine.up @ mine.down).to_dense(), (theirs.up @ theirs.down).to_dense())
        product = (mine.down @ mine.matrix @ mine.up).to_dense()
        torch.testing.assert_close(product, (theirs.down @ theirs.matrix @ theirs.up).to_dense())
    torch.testing.assert_close(one.inverse, two.inverse, rtol=1e-3, atol=1e-3)


def test_units_do_not_matter():
    """Single precision holds 1e±38; the scaling keeps coefficients and residuals far beyond that."""
    counts = []
    mesh = jittered(2, 12)
    for unit in (1e-60, 1.0, 1e60):
        system = poisson_system(mesh, nu=lambda x, unit=unit: unit * smooth(0.5)(x))
        prepared = AlgebraicMultigrid(rtol=1e-12).prepare(system)
        x = prepared.solve(random_rhs(system) * unit**2)
        torch.testing.assert_close(
            system.apply(x), system.project(random_rhs(system) * unit**2), rtol=0, atol=1e-9 * unit**2
        )
        counts.append(int(prepared.iterations))
    assert max(counts) <= min(counts) + 1


def test_a_batch_is_the_same_as_its_items():
    V = FunctionSpace(jittered(2, 12), Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    nu = 1 + torch.rand(3, V.num_nodes, dtype=V.dtype, generator=torch.Generator().manual_seed(0))
    whole = system(energy, V.function(nu))
    rhs, found = random_rhs(whole), agrees_with_direct(whole).solve(random_rhs(whole))
    for i in range(3):
        alone = AlgebraicMultigrid(rtol=1e-12).prepare(system(energy, V.function(nu[i]))).solve(rhs[i])
        torch.testing.assert_close(found[i], alone, rtol=1e-9, atol=1e-9 * float(alone.abs().max()))


def test_right_hand_sides_of_one_matrix_share_its_hierarchy(setups):
    base = poisson_system(jittered(2, 12))
    many = System(base.form, base.u.expand(2, 3, -1))
    prepared = agrees_with_direct(many)
    assert prepared.cycles.groups == [slice(0, 6)]
    assert len(setups) == 1
    CG(preconditioner=AlgebraicMultigrid()).prepare(base)
    assert len(setups) == 1


def test_round_off_does_not_make_another_matrix(setups):
    V = FunctionSpace(jittered(2, 12), Lagrange(1))
    nu = 1 + 1e-14 * torch.rand(4, V.num_nodes, dtype=V.dtype, generator=torch.Generator().manual_seed(0))
    batch = system(Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0})), V.function(nu))
    assert not torch.equal(batch.values[0], batch.values[1])
    assert agrees_with_direct(batch).cycles.groups == [slice(0, 4)]
    assert len(setups) == 1


def test_one_matrix_is_set_up_once(setups):
    mesh = jittered(2, 12)
    V = FunctionSpace(mesh, Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    for method in (AlgebraicMultigrid(), AlgebraicMultigrid(), CG(preconditioner=AlgebraicMultigrid())):
        method.prepare(system(energy, smooth(0.5))).solve(random_rhs(system(energy, smooth(0.5))))
    assert len(setups) == 1
    W = FunctionSpace(mesh, Lagrange(1))  # another space keeps its own
    AlgebraicMultigrid().prepare(system(Energy(W, diffusion, Dirichlet(W, {"boundary": 0.0})), smooth(0.5)))
    assert len(setups) == 2
    AlgebraicMultigrid().prepare(system(Energy(V, diffusion, Dirichlet(V, {"left": 0.0})), smooth(0.5)))
    assert len(setups) == 3  # and other fixed dofs need another


def test_similar_matrices_are_served_by_the_first_hierarchy(setups):
    V = FunctionSpace(jittered(2, 24), Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    counts = []
    for amplitude in (0.5, -0.5, 0.8, -0.8):
        prepared = AlgebraicMultigrid(rtol=1e-10).prepare(system(energy, smooth(amplitude)))
        prepared.solve(random_rhs(prepared.system))
        counts.append(int(prepared.iterations))
    assert len(setups) == 1
    assert max(counts) <= counts[0] + 4
    CG(preconditioner=AlgebraicMultigrid()).prepare(system(energy, smooth(0.3)))
    assert len(setups) == 2  # as a preconditioner it is one of the very matrix


def test_a_hierarchy_that_serves_badly_is_replaced_in_the_middle_of_a_solve(setups):
    V = FunctionSpace(jittered(2, 24), Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    stripes = lambda x: torch.where((6 * x[..., 0]).floor() % 2 == 0, 1.0, 1e4).to(x.dtype)  # noqa: E731
    first = AlgebraicMultigrid(rtol=1e-10).prepare(system(energy, smooth(0.5)))
    first.solve(random_rhs(first.system))
    agrees_with_direct(system(energy, stripes))
    assert len(setups) == 2
    again = AlgebraicMultigrid(rtol=1e-10).prepare(system(energy, smooth(0.4)))
    again.solve(random_rhs(again.system))
    assert len(setups) == 2  # the older one is nearer to this matrix
    assert int(again.iterations) <= int(first.iterations) + 3


def test_only_the_items_of_a_batch_that_are_late_get_hierarchies_of_their_own(setups):
    V = FunctionSpace(jittered(2, 24), Lagrange(1))
    energy = Energy(V, diffusion, Dirichlet(V, {"boundary": 0.0}))
    first = AlgebraicMultigrid(rtol=1e-10).prepare(system(energy, smooth(0.5)))
    first.solve(random_rhs(first.system))
    x = V.dof_coordinates
    stripes = torch.where((6 * x[:, 0]).floor() % 2 == 0, 1.0, 1e4).to(x.dtype)
    batch = system(energy, V.function(torch.stack([smooth(0.4)(x), stripes, smooth(0.3)(x)])))
    prepared = agrees_with_direct(batch)
    assert [h.lagged for h in prepared.cycles.hierarchies] == [True, False, True]
    assert len(setups) == 2


def test_gradients_are_those_of_direct(setups):
    V = FunctionSpace(jittered(2, 10), Lagrange(1))
    density = lambda x, u, g, nu: diffusion(x, u, g, nu) + 0.25 * u**4 - u  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    found = []
    for linear in (Direct("superlu"), AlgebraicMultigrid()):
        nu = (1 + torch.linspace(0, 1, V.num_nodes, dtype=V.dtype)).requires_grad_()
        solution = minimize(energy, (V.function(nu),), method=Newton(linear))
        assert solution.converged
        solution.value.square().sum().backward()
        found.append(nu.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9 * float(found[0].abs().max()))
    assert len(setups) == 1  # for all Newton steps and the adjoint


def test_gradcheck():
    V = FunctionSpace(jittered(2, 7), Lagrange(1))
    energy = Energy(V, conduction, Dirichlet(V, {"boundary": 0.0}))
    k = torch.tensor([0.7, 1.3], dtype=V.dtype, requires_grad=True)
    method = Newton(AlgebraicMultigrid())
    assert torch.autograd.gradcheck(lambda k: minimize(energy, (k,), method=method).value.sum(-1), k)


def test_single_precision_problems_are_solved_in_it():
    mesh = jittered(2, 12).to(dtype=torch.float32)
    V = FunctionSpace(mesh, Lagrange(1))
    solution = minimize(
        Energy(V, poisson, Dirichlet(V, {"boundary": 0.0})),
        method=Newton(AlgebraicMultigrid()),
    )
    assert solution.converged
    assert solution.value.dtype == torch.float32


def test_negative_curvature_is_flagged():
    V = FunctionSpace(jittered(2, 10), Lagrange(1))
    density = lambda x, u, g, r: laplace(x, u, g) - 0.5 * r * u.square()  # noqa: E731
    energy = Energy(V, density, Dirichlet(V, {"boundary": 0.0}))
    reaction = torch.tensor([0.0, 100.0, 1e6], dtype=V.dtype)  # definite, indefinite, negative on the diagonal
    prepared = AlgebraicMultigrid().prepare(system(energy, reaction))
    x = prepared.solve(torch.ones(3, *V.shape, dtype=V.dtype))
    assert prepared.indefinite.tolist() == [False, True, True]
    assert bool(torch.isfinite(x).all())


def test_a_system_without_free_dofs_has_the_solution_zero():
    V = FunctionSpace(unit_square(1), Lagrange(1))
    prepared = AlgebraicMultigrid().prepare(system(Energy(V, laplace, Dirichlet(V, {"boundary": 1.0}))))
    assert not prepared.solve(torch.ones(V.shape, dtype=V.dtype)).any()


@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("part", [0.9, 1.0])
def test_scattered_dofs_may_be_fixed_and_even_all(components, part):
    V = FunctionSpace(jittered(2, 12), Lagrange(1), components)
    energy = Energy(V, laplace if components is None else elasticity)
    fixed = torch.rand(V.shape, generator=torch.Generator().manual_seed(0)) < part
    agrees_with_direct(System(energy.discrete_form(()), torch.zeros(V.shape, dtype=V.dtype), fixed))


@pytest.mark.parametrize("unit", [1e-200, 1e-100, 1e-40, 1e40, 1e100, 1e200])
@pytest.mark.parametrize("method", [AlgebraicMultigrid(), CG(preconditioner=AlgebraicMultigrid())])
def test_units_beyond_single_precision_do_not_matter(method, unit):
    """Cycles run in single precision, and see neither the scale of the matrix nor that of the residual."""
    V = FunctionSpace(jittered(2, 12), Lagrange(1))
    energy = Energy(V, lambda x, u, g, k: k * (laplace(x, u, g) - u), Dirichlet(V, {"boundary": 0.0}))
    found, wanted = (minimize(energy, (k,), method=method) for k in (unit, 1.0))
    torch.testing.assert_close(found.value, wanted.value)
    assert int(found.iterations) == int(wanted.iterations)


def test_it_needs_a_symmetric_operator():
    system, *_ = system_of("weak")
    for make in (AlgebraicMultigrid().prepare, AlgebraicMultigrid().preconditioner):
        with pytest.raises(ValueError, match=r"needs a symmetric operator.*use `Direct\(\)`"):
            make(system)


def test_the_global_generators_are_left_alone():
    system, *_ = system_of("vector", 8)
    before, state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    AlgebraicMultigrid().prepare(system)
    assert np.array_equal(state, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    assert torch.equal(before, torch.get_rng_state())
