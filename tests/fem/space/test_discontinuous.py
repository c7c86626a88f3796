"""Functions that jump between cells: numbering, values, one value per cell as a parameter, integrals and files."""

from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    MixedSpace,
    by_cell_tag,
    compilation,
    gradient,
    integrate,
    l2_error,
    read_mesh,
    unit_cube,
    unit_interval,
    unit_square,
    write_pvd,
    write_vtk,
)
from fem.forms.cell_integral import CellIntegral
from fem.forms.grid_integral import GridIntegral
from fem.forms.traced import loops
from solvers import minimize
from tests.problems import conduction, diffusion, mixed_mesh, sine

MESHES = {
    "interval": lambda: unit_interval(5),
    "quadrilaterals": lambda: unit_square(4, 3),
    "triangles": lambda: unit_square(3, 2, cell="triangle"),
    "mixed": mixed_mesh,
    "hexahedra": lambda: unit_cube(2, 3, 2),
    "tetrahedra": lambda: unit_cube(2, 2, 2, cell="tetrahedron"),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5


def cell_by_cell(V: FunctionSpace, values: Tensor) -> Tensor:
    """Dofs of the function with these values "e", one for each cell."""
    sizes = [len(dofs) for dofs in V.cell_dofs]
    rows = zip(values.split(sizes), V.cell_dofs, strict=True)
    return torch.cat([v.repeat_interleave(dofs.shape[1]) for v, dofs in rows])


# -- spaces ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_each_cell_has_its_own_polynomial(name: str, degree: int) -> None:
    """No dof is shared, and any polynomial on any cell is reproduced."""
    mesh = MESHES[name]()
    V, L = FunctionSpace(mesh, Discontinuous(degree)), FunctionSpace(mesh, Lagrange(1), quadrature_degree=6)
    assert V.num_dofs == sum(b.num_cells * e.num_basis for b, e in zip(mesh.blocks, V.elements, strict=True))
    assert sorted(torch.cat([d.flatten() for d in V.cell_dofs]).tolist()) == list(range(V.num_dofs))
    factors = random(mesh.num_cells)
    polynomial = lambda x: (1 + x.sum(-1)) ** degree  # noqa: E731
    u = cell_by_cell(V, factors) * V.interpolate(polynomial)
    difference = Energy(L, lambda x, u, grad_u, a, v: (a * polynomial(x) - v).square())
    assert float(difference(L.interpolate(0.0), L.per_cell(factors), V.function(u))) < 1e-25


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_interpolation_converges(degree: int) -> None:
    """p + 1 in L2, from nodes of the cells alone."""
    spaces = [FunctionSpace(unit_square(n), Discontinuous(degree)) for n in (8, 16)]
    coarse, fine = (float(l2_error(V, V.interpolate(sine), sine)) for V in spaces)
    assert np.log2(coarse / fine) > degree + 0.9


def test_values_at_points_are_those_of_the_cell() -> None:
    mesh = mixed_mesh()
    V = FunctionSpace(mesh, Discontinuous(0), components=2)
    u = random(mesh.num_cells, 2)
    centres = torch.cat([mesh.nodes[b.connectivity].mean(1) for b in mesh.blocks])
    torch.testing.assert_close(V.evaluate(u, centres), u, rtol=0, atol=0)
    torch.testing.assert_close(V.dof_coordinates, centres)


def test_cells_as_images() -> None:
    """Row 0 at the bottom, x fastest, as for nodes."""
    V = FunctionSpace(unit_square(3, 2), Discontinuous(0))
    u = V.interpolate(lambda x: x[:, 0] + 10 * x[:, 1])
    image = V.to_grid(u)
    torch.testing.assert_close(image[:, 0], torch.tensor([1 / 6 + 2.5, 1 / 6 + 7.5], dtype=torch.float64))
    assert torch.equal(V.from_grid(image), u)
    with pytest.raises(ValueError, match="have a grid form"):
        FunctionSpace(unit_square(2, cell="triangle"), Discontinuous(0)).to_grid(torch.zeros(8, dtype=torch.float64))


def test_a_field_of_a_mixed_space() -> None:
    """The L2 projection onto discontinuous polynomials, as one field beside another, is cell by cell."""
    mesh = mixed_mesh()
    V, Q = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Discontinuous(1))
    W = MixedSpace(V, Q)
    energy = Energy(W, lambda x, u, grad_u, f: (u[0] - f).square() + (u[1] - f).square())
    u, q = W.split(minimize(energy, params=(lambda x: x[..., 0] - 2 * x[..., 1],)).value)
    torch.testing.assert_close(q, Q.interpolate(lambda x: x[:, 0] - 2 * x[:, 1]))
    torch.testing.assert_close(u, V.interpolate(lambda x: x[:, 0] - 2 * x[:, 1]))


# -- one value per cell ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESHES)
def test_the_same_as_materials_by_tag(name: str) -> None:
    mesh = MESHES[name]()
    tags = {f"{i}": torch.tensor([i]) for i in range(mesh.num_cells)}
    mesh = mesh.with_tags(cell_tags=tags)
    V, k = FunctionSpace(mesh, Lagrange(2)), random(mesh.num_cells)
    material = by_cell_tag({tag: float(k[i]) for i, tag in enumerate(tags)})
    energy, u = Energy(V, diffusion), random(*V.shape, seed=1)
    torch.testing.assert_close(energy(u, V.per_cell(k)), energy(u, material))
    torch.testing.assert_close(energy.residual(u, V.per_cell(k)), energy.residual(u, material))


@pytest.mark.parametrize("mesh", [unit_square(46, 47), unit_cube(13, 13, 13)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_loops_over_grids_take_one_value_per_cell(mesh: Mesh, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled and plain loops give what values at points give: energy, residual, and the derivatives of both."""
    V = FunctionSpace(mesh, Lagrange(1))
    k, u = random(2, mesh.num_cells).requires_grad_(), random(*V.shape, seed=1).requires_grad_()
    v = random(2, *V.shape, seed=2)

    def figures() -> list[Tensor]:
        energy = Energy(V, conduction, Dirichlet(V, {"left": 0.0}))
        value, residual = energy(u, V.per_cell(k), 1.0), energy.residual(u, V.per_cell(k), 1.0)
        found = torch.autograd.grad(value.sum(), (u, k), create_graph=True)
        return [value, residual, *found, *torch.autograd.grad((residual * v).sum(), (u, k))]

    with compilation(mode):
        by_loop = figures()
    assert isinstance(Energy(V, conduction).discrete_form((V.per_cell(k), 1.0)).integrals[0], GridIntegral)
    monkeypatch.setattr(loops, "GRID_CELLS", mesh.num_cells + 1)
    assert isinstance(Energy(V, conduction).discrete_form((V.per_cell(k), 1.0)).integrals[0], CellIntegral)
    for a, b in zip(by_loop, figures(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_vectors_and_matrices() -> None:
    """One vector or matrix per cell equals that of its components; on grids and elsewhere, batched."""
    density = lambda x, u, grad_u, K, b: 0.5 * ((K @ grad_u[..., None])[..., 0] * grad_u).sum(-1) - (b * grad_u).sum(-1)  # noqa: E731
    for mesh in (unit_square(50, 50), unit_square(5, cell="triangle")):
        V = FunctionSpace(mesh, Lagrange(1))
        K, b = random(3, mesh.num_cells, 2, 2), random(mesh.num_cells, 2, seed=1)
        u = random(*V.shape, seed=2)
        found = Energy(V, density)(u, V.per_cell(K, shape=(2, 2)), V.per_cell(b, shape=(2,)))
        split = lambda x, u, g, a, b, c, d, e, f: (  # noqa: E731
            0.5 * (a * g[..., 0] ** 2 + (b + c) * g[..., 0] * g[..., 1] + d * g[..., 1] ** 2)
            - e * g[..., 0]
            - f * g[..., 1]
        )
        parts = [V.per_cell(K[..., i, j]) for i in (0, 1) for j in (0, 1)] + [V.per_cell(b[:, i]) for i in (0, 1)]
        torch.testing.assert_close(found, Energy(V, split)(u, *parts))


def test_derivatives_per_cell() -> None:
    V = FunctionSpace(mixed_mesh(), Lagrange(1))
    energy, u = Energy(V, diffusion), random(*V.shape).requires_grad_()
    k = random(V.mesh.num_cells).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, k: energy(u, V.per_cell(k)), (u, k))
    assert torch.autograd.gradgradcheck(lambda u, k: energy(u, V.per_cell(k**2)), (u, k))


def test_boundary_terms_see_the_cell_behind_the_facet() -> None:
    mesh = unit_square(2, 2)
    V, k = FunctionSpace(mesh, Lagrange(1)), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    energy = Energy(V, lambda x, u, grad_u, k: 0 * u, boundary={"left": lambda x, u, normal, k: k * u})
    assert float(energy(V.interpolate(1.0), V.per_cell(k))) == pytest.approx(0.5 * (1 + 3))
    assert float(integrate(V, V.per_cell(k), "right")) == pytest.approx(0.5 * (2 + 4))
    assert float(integrate(V, V.per_cell(k))) == pytest.approx(2.5)


def test_files_hold_cells_and_jumps(tmp_path: Path) -> None:
    """One value per cell is cell data; where a field jumps, cells share no nodes, and every corner has its value."""
    mesh = mixed_mesh()
    V, D = FunctionSpace(mesh, Lagrange(1)), FunctionSpace(mesh, Discontinuous(1))
    k, u = random(mesh.num_cells), V.interpolate(lambda x: x[:, 0])
    found = meshio.read(write_vtk(tmp_path / "a.vtu", V, {"u": u, "k": V.per_cell(k)}, {"twice": V.per_cell(2 * k)}))
    np.testing.assert_array_equal(np.concatenate(found.cell_data["k"]), k)
    np.testing.assert_array_equal(np.concatenate(found.cell_data["twice"]), 2 * k)
    assert len(found.points) == mesh.num_nodes
    jumps = cell_by_cell(D, k)
    found = meshio.read(write_vtk(tmp_path / "b.vtu", V, {"u": u, "d": D.function(jumps)}))
    np.testing.assert_array_equal(found.point_data["d"], jumps)
    np.testing.assert_allclose(found.point_data["u"], found.points[:, 0], atol=1e-15)
    path = write_pvd(tmp_path / "c.pvd", V, [0.0, 1.0], {"k": V.per_cell(torch.stack([k, 3 * k]))})
    last = meshio.read(path.with_suffix("") / "c_0001.vtu")
    np.testing.assert_array_equal(np.concatenate(last.cell_data["k"]), 3 * k)
    with pytest.raises(ValueError, match="'k' is both a field of one value per cell and cell data"):
        write_vtk(tmp_path / "d.vtu", V, {"k": V.per_cell(k)}, {"k": k})


def test_matrices_per_cell_are_tensors_of_a_file(tmp_path: Path) -> None:
    """Nine components row by row, as ParaView wants them, and back as parameters on the mesh that is read."""
    for mesh in (mixed_mesh(), unit_cube(2, 1, 1)):
        d = mesh.dim
        V, K = FunctionSpace(mesh, Lagrange(1)), random(mesh.num_cells, d, d)
        path = write_vtk(tmp_path / "a.vtu", V, {"K": V.per_cell(K, shape=(d, d))}, {"twice": 2 * K})
        found = np.concatenate(meshio.read(path).cell_data["K"]).reshape(-1, 3, 3)
        np.testing.assert_array_equal(found[:, :d, :d], K)
        assert found.sum() == pytest.approx(float(K.sum()))
        again, data = read_mesh(path, fields=True)
        W = FunctionSpace(again, Lagrange(1))
        density = lambda x, u, g, K: ((K @ g[..., None])[..., 0] * g).sum(-1)  # noqa: E731
        u = lambda space: space.interpolate(lambda x: x[:, 0] * x[:, 1])  # noqa: E731
        given = W.per_cell(data["twice"].unflatten(-1, (d, d)), shape=(d, d))
        wanted = 2 * Energy(V, density)(u(V), V.per_cell(K, shape=(d, d)))
        torch.testing.assert_close(Energy(W, density)(u(W), given), wanted)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("name", MESHES)
def test_what_jumps_is_in_the_file_with_all_its_values(name: str, degree: int, tmp_path: Path) -> None:
    """On any kind of cell, beside a field of a mixed space and curved geometry: what a file holds is the function."""
    mesh = MESHES[name]()
    D, L = FunctionSpace(mesh, Discontinuous(degree), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(D, L)
    jumping, smooth = random(*D.shape), L.interpolate(lambda x: x[:, 0])
    fields = {k: V.function(u) for k, V, u in zip("ds", W.fields, W.split(W.join([jumping, smooth])), strict=True)}
    found = meshio.read(write_vtk(tmp_path / "a.vtu", W, fields))
    np.testing.assert_allclose(found.point_data["s"], found.points[:, 0], atol=1e-14)
    if degree == 0:
        np.testing.assert_array_equal(np.concatenate(found.cell_data["d"])[:, :2], jumping)
    else:
        assert len(found.points) == D.num_nodes
        np.testing.assert_allclose(found.point_data["d"][:, :2], jumping, rtol=1e-13)
        torch.testing.assert_close(torch.tensor(found.points[:, : mesh.dim]), D.dof_coordinates)


def test_wrong_values() -> None:
    V = FunctionSpace(unit_square(4, 4), Lagrange(1))
    with pytest.raises(ValueError, match=r"one value of shape \(\) for each of 16 cells, .*16\); got \(25,\)"):
        V.per_cell(torch.ones(25, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"\(\.\.\., 16, 2, 2\); got \(16, 4\)"):
        V.per_cell(torch.ones(16, 4, dtype=torch.float64), shape=(2, 2))
    with pytest.raises(TypeError, match=r"float32 but the space is torch\.float64"):
        V.per_cell(torch.ones(16))
    with pytest.raises(ValueError, match=r"`V\.per_cell\(t\)` for one value per cell"):
        Energy(V, diffusion)(V.interpolate(0.0), torch.ones(16, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"must be 0, 1, 2 or 3; got 4"):
        Discontinuous(4)
    with pytest.raises(ValueError, match="`gradient` of one value per cell is zero"):
        gradient(V.per_cell(torch.ones(16, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"impose values on Discontinuous\(degree=1\) weakly"):
        Dirichlet(FunctionSpace(V.mesh, Discontinuous(1)), {"left": 0.0})
