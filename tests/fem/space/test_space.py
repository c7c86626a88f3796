"""Function spaces: numbering, interpolation, images, values at points, products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import (
    Discontinuous,
    Energy,
    FunctionSpace,
    Lagrange,
    Mesh,
    MixedSpace,
    integrate,
    l2_error,
    unit_cube,
    unit_interval,
    unit_square,
)
from fem.reference.cells import CELLS, Cell, triangle
from fem.reference.element import Tabulation
from fem.reference.spline_element import BSpline
from solvers import minimize
from tests.conformance import assert_continuous
from tests.problems import bend, disk, hard_mesh, mixed_mesh, polynomial, scrambled, small_mesh

cells = pytest.mark.parametrize("cell", CELLS)
degrees = pytest.mark.parametrize("degree", [1, 2, 3])


def exact(cell: str, degree: int, seed: int = 0):
    """What the element reproduces on straight cells that are affine images of the reference cell."""
    kind = CELLS[cell]
    return polynomial(kind.dim, degree, tensor=not kind.is_simplex, seed=seed)


# -- numbering and interpolation ---------------------------------------------------------------------------------------


@cells
@degrees
def test_sizes(cell: str, degree: int) -> None:
    mesh = small_mesh(cell)
    n = (2 * degree + 1) ** mesh.dim
    scalar, vector = FunctionSpace(mesh, Lagrange(degree)), FunctionSpace(mesh, Lagrange(degree), components=3)
    assert (scalar.num_dofs, scalar.shape) == (n, (n,))
    assert (vector.num_dofs, vector.shape) == (3 * n, (n, 3))
    assert scalar.degree == degree
    assert scalar.continuity == 0
    assert scalar.quadrature_degree == 2 * degree + 1
    assert FunctionSpace(mesh, Lagrange(degree), quadrature_degree=8).quadrature_degree == 8


@pytest.mark.parametrize("kind", ["plain", "scrambled", "curved"])
@cells
@degrees
def test_dof_coordinates_agree_between_the_cells_that_share_them(cell: str, degree: int, kind: str) -> None:
    mesh = hard_mesh(cell, kind)
    space = FunctionSpace(mesh, Lagrange(degree))
    positions, _, _ = mesh.map(0, None, space.elements[0].nodes)  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(space.dof_coordinates[space.cell_dofs[0]], positions, rtol=0, atol=1e-14)


@degrees
def test_dof_coordinates_differentiate_in_the_nodes(degree: int) -> None:
    """Nodes that many cells share count once."""
    mesh = scrambled(mixed_mesh())
    nodes = mesh.nodes.clone().requires_grad_()
    assert gradcheck(lambda x: FunctionSpace(mesh.with_nodes(x), Lagrange(degree)).dof_coordinates, nodes)


def test_dof_coordinates_of_a_grid_are_its_finer_grid() -> None:
    x = FunctionSpace(unit_square(2, 1), Lagrange(3)).dof_coordinates
    wanted = torch.cartesian_prod(torch.arange(4) / 3.0, torch.arange(7) / 6.0).flip(1)
    torch.testing.assert_close(x, wanted.double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["plain", "scrambled"])
@cells
@degrees
def test_interpolation_reproduces_polynomials_and_their_gradients(cell: str, degree: int, kind: str) -> None:
    """On distorted tensor cells total degree 1 only, whatever the element: their maps are multilinear."""
    mesh = hard_mesh(cell, kind)
    function = exact(cell, degree)
    if kind == "scrambled" and not CELLS[cell].is_simplex:
        function = polynomial(mesh.dim, degree)  # of total degree p: composed with a multilinear map still in Q_p
    space = FunctionSpace(mesh, Lagrange(degree))
    u = space.interpolate(function)
    for domain in space.quadrature.domains():
        geometry = space.quadrature.geometry(domain)
        value, gradient = space.quadrature.values(u, domain, geometry)
        torch.testing.assert_close(value, function(geometry.points))
        torch.testing.assert_close(gradient, function.gradient(geometry.points), rtol=1e-10, atol=1e-10)


@degrees
def test_interpolation_on_mixed_meshes(degree: int) -> None:
    space = FunctionSpace(scrambled(mixed_mesh()), Lagrange(degree))
    function = polynomial(2, degree)
    u = space.interpolate(function)
    for domain in space.quadrature.domains():
        geometry = space.quadrature.geometry(domain)
        value, gradient = space.quadrature.values(u, domain, geometry)
        torch.testing.assert_close(value, function(geometry.points))
        torch.testing.assert_close(gradient, function.gradient(geometry.points), rtol=1e-10, atol=1e-10)


def test_interpolation_is_not_exact_beyond_the_degree() -> None:
    space = FunctionSpace(unit_square(2), Lagrange(2))
    u = space.interpolate(lambda x: x[:, 0] ** 3)
    (domain,) = space.quadrature.domains()
    geometry = space.quadrature.geometry(domain)
    assert (space.quadrature.values(u, domain, geometry)[0] - geometry.points[..., 0] ** 3).abs().max() > 1e-3


def test_interpolation_of_vectors_and_numbers() -> None:
    space = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    assert torch.equal(space.interpolate(lambda x: x), space.dof_coordinates)
    assert torch.equal(space.interpolate(3.0), torch.full(space.shape, 3.0, dtype=torch.float64))
    assert torch.equal(
        space.interpolate(lambda x: torch.tensor([1.0, 2.0]).to(x))[5], torch.tensor([1.0, 2.0]).double()
    )
    with pytest.raises(TypeError, match=r"float32 values; the space is torch\.float64"):
        space.interpolate(lambda x: x.float())
    with pytest.raises(ValueError, match=r"needs values of shape \(9, 2\); got \(9, 3\)"):
        space.interpolate(lambda x: x.new_zeros(9, 3))


def test_interpolation_refuses_values_with_too_many_axes_that_do_not_fit() -> None:
    space = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match=r"needs values of shape \(9,\); got \(9, 1\)"):
        space.interpolate(lambda x: x[:, :1])
    batch = space.interpolate(lambda x: torch.stack([x[:, 0], x[:, 1]]))
    assert torch.equal(batch, space.dof_coordinates.T)


# -- images ------------------------------------------------------------------------------------------------------------


@cells
@degrees
def test_images_have_x_fastest_on_the_last_axis_and_row_zero_at_the_bottom(cell: str, degree: int) -> None:
    dim = CELLS[cell].dim
    shape = (4, 3, 2)[:dim]
    mesh = {1: lambda: unit_interval(4), 2: lambda: unit_square(4, 3, cell), 3: lambda: unit_cube(4, 3, 2, cell)}[dim]()
    space = FunctionSpace(mesh, Lagrange(degree))
    axes = [torch.linspace(0, 1, degree * n + 1, dtype=torch.float64) for n in shape]
    for k in range(dim):
        image = space.to_grid(space.interpolate(lambda x, k=k: x[:, k]))
        assert image.shape == tuple(degree * n + 1 for n in reversed(shape))
        along = axes[k].reshape(-1, *[1] * k)  # direction k is the axis k from the end
        torch.testing.assert_close(image, along.expand(image.shape), rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_from_grid_is_the_inverse_of_to_grid(dim: int, components: int | None, batch: tuple) -> None:
    mesh = (unit_interval(4), unit_square(4, 3), unit_cube(4, 3, 2))[dim - 1]
    space = FunctionSpace(mesh, Lagrange(2), components)
    u = torch.rand(*batch, *space.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = space.to_grid(u)
    pixels = (9, 7, 5)[:dim][::-1]
    assert image.shape == (*batch, *pixels) if components is None else (*batch, components, *pixels)
    assert torch.equal(space.from_grid(image), u)
    if components is not None:
        alone = FunctionSpace(mesh, Lagrange(2))
        assert torch.equal(image.select(len(batch), 1), alone.to_grid(u[..., 1].contiguous()))


def test_only_lagrange_spaces_on_grids_are_images() -> None:
    for space in (
        FunctionSpace(scrambled(unit_square(2)), Lagrange(1)),
        FunctionSpace(unit_square(2), BSpline.uniform((2, 2), 2)),
    ):
        with pytest.raises(ValueError, match="only Lagrange spaces on meshes made as grids"):
            space.to_grid(torch.zeros(space.shape, dtype=torch.float64))
    space = FunctionSpace(unit_square(3, 2), Lagrange(1))
    with pytest.raises(ValueError, match=r"`from_grid` needs an image of shape .*\(3, 4\).*; got \(4, 3\)"):
        space.from_grid(torch.zeros(4, 3))


# -- at points ---------------------------------------------------------------------------------------------------------


@cells
@degrees
def test_gradients_at_points_are_those_of_autograd(cell: str, degree: int) -> None:
    """∂u/∂x by moving reference points: du/dξ = ∇u · ∂x/∂ξ, on curved cells."""
    space = FunctionSpace(hard_mesh(cell, "curved"), Lagrange(degree))
    u = torch.rand(space.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (domain,) = space.quadrature.domains(degree=2)
    geometry = space.quadrature.geometry(domain)
    value, gradient = space.quadrature.values(u, domain, geometry)
    points = domain.points.clone().requires_grad_()
    local = torch.einsum("qa,ea->eq", space.elements[0].tabulate(points, 0).value[0], u[space.cell_dofs[0]])
    torch.testing.assert_close(value, local.detach())
    _, jacobian, _ = space.mesh.map(0, None, domain.points)
    for e in (0, local.shape[0] - 1):
        (slope,) = torch.autograd.grad(local[e].sum(), points, retain_graph=True)
        torch.testing.assert_close(torch.einsum("qd,qdr->qr", gradient[e], jacobian[e]), slope)


@pytest.mark.parametrize("mesh", [unit_square(3, 2), unit_square(3, 2).curved(3, bend)], ids=["straight", "curved"])
def test_second_derivatives_at_points(mesh) -> None:
    """A quadratic has the same ∇∇u everywhere: exactly on straight cells, on curved cells against x itself.

    On curved cells the coordinates belong to the cubic space, and their second derivatives vanish.
    """
    if mesh.blocks[0].degree == 1:
        space = FunctionSpace(mesh, Lagrange(2))
        function = polynomial(2, 2, tensor=True)
        u = space.interpolate(function)
    else:
        space = FunctionSpace(mesh, Lagrange(3))
        function = polynomial(2, 1)
        u = space.interpolate(function)
    (domain,) = space.quadrature.domains()
    geometry = space.quadrature.geometry(domain, 2)
    value, gradient, hessian = space.quadrature.values(u, domain, geometry, 2)
    torch.testing.assert_close(value, function(geometry.points))
    torch.testing.assert_close(gradient, function.gradient(geometry.points), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(hessian, function.hessian(geometry.points), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_vectors_and_batches_are_loops(order: int) -> None:
    mesh = unit_square(2).curved(2, bend)
    vector, scalar = FunctionSpace(mesh, Lagrange(2), components=3), FunctionSpace(mesh, Lagrange(2))
    u = torch.rand(2, 4, *vector.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (domain,) = vector.quadrature.domains()
    geometry = vector.quadrature.geometry(domain, max(order, 1))
    slots = vector.quadrature.values(u, domain, geometry, order)
    e, q = geometry.points.shape[:2]
    for k, slot in enumerate(slots):
        assert slot.shape == (2, 4, e, q, 3, *[2] * k)
        for c in range(3):
            alone = scalar.quadrature.values(u[1, 2, :, c], domain, geometry, order)[k]
            torch.testing.assert_close(slot[1, 2].select(2, c), alone)


def test_values_on_facets_are_the_traces() -> None:
    space = FunctionSpace(scrambled(unit_cube(2, cell="tetrahedron")), Lagrange(2))
    function = polynomial(3, 2)
    u = space.interpolate(function)
    for domain in space.quadrature.domains("top"):
        geometry = space.quadrature.geometry(domain)
        value, gradient = space.quadrature.values(u, domain, geometry)
        assert (geometry.points[..., 1] - 1).abs().max() < 1e-14
        torch.testing.assert_close(value, function(geometry.points))
        torch.testing.assert_close(gradient, function.gradient(geometry.points), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", [Lagrange(2), BSpline.uniform((2, 1), 2)], ids=["Lagrange", "BSpline"])
def test_at_points_differentiates_in_dofs_and_nodes(family) -> None:
    mesh = unit_square(2, 1)
    shape = FunctionSpace(mesh, family).shape
    u = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nodes = bend(mesh.nodes).requires_grad_()

    def slots(u: Tensor, nodes: Tensor):
        space = FunctionSpace(mesh.with_nodes(nodes), family, quadrature_degree=1)
        (domain,) = space.quadrature.domains()
        return tuple(space.quadrature.values(u, domain, space.quadrature.geometry(domain, 2), 2))

    assert gradcheck(slots, (u, nodes))


# -- splines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_spline_spaces_reproduce_the_coordinates_smoothly(dim: int) -> None:
    """Greville abscissae as dofs give x itself; gradients have no jump between cells."""
    shape = (4, 3, 2)[:dim]
    mesh = (unit_interval(4), unit_square(4, 3), unit_cube(4, 3, 2))[dim - 1]
    spline = BSpline.uniform(shape, 2)
    space = FunctionSpace(mesh, spline)
    assert space.continuity == 1
    assert space.num_dofs == spline.num_dofs
    grid = torch.meshgrid(*spline.greville()[::-1], indexing="ij")
    for k in range(dim):
        u = grid[dim - 1 - k].flatten()
        (domain,) = space.quadrature.domains()
        geometry = space.quadrature.geometry(domain, 2)
        value, gradient, hessian = space.quadrature.values(u, domain, geometry, 2)
        torch.testing.assert_close(value, geometry.points[..., k])
        torch.testing.assert_close(
            gradient, torch.eye(dim, dtype=torch.float64)[k].expand(gradient.shape), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(hessian, torch.zeros_like(hessian), rtol=0, atol=1e-10)


def test_splines_on_facets_are_the_traces() -> None:
    """Each facet draws on the functions of its own span."""
    spline = BSpline.uniform((4, 3), 2)
    space = FunctionSpace(unit_square(4, 3), spline)
    u = torch.stack(torch.meshgrid(*spline.greville()[::-1], indexing="ij")[::-1], -1).sum(-1).flatten()
    for tag in ("left", "right", "bottom", "top"):
        for domain in space.quadrature.domains(tag):
            geometry = space.quadrature.geometry(domain)
            value, gradient = space.quadrature.values(u, domain, geometry)
            torch.testing.assert_close(value, geometry.points.sum(-1))
            torch.testing.assert_close(gradient, torch.ones_like(gradient))


def test_splines_need_one_span_per_cell() -> None:
    with pytest.raises(
        ValueError, match=r"one knot span per cell of a grid; got spans \(3, 2\) on a mesh with grid \(2, 3\)"
    ):
        FunctionSpace(unit_square(2, 3), BSpline.uniform((3, 2), 2))
    with pytest.raises(ValueError, match="lives on the quadrilateral; got the triangle"):
        FunctionSpace(unit_square(3, 2, cell="triangle"), BSpline.uniform((3, 2), 2))
    with pytest.raises(ValueError, match="has no nodes; `project"):
        _ = FunctionSpace(unit_square(3, 2), BSpline.uniform((3, 2), 2)).dof_coordinates


# -- dofs of tags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "scrambled"])
@cells
@degrees
def test_dofs_of_a_tag_are_those_that_sit_on_it(cell: str, degree: int, kind: str) -> None:
    space = FunctionSpace(hard_mesh(cell, kind), Lagrange(degree))
    x = space.dof_coordinates
    on_left = torch.nonzero(x[:, 0].abs() < 1e-12).flatten()
    assert torch.equal(space.dofs("left"), on_left)
    on_boundary = ((x.abs() < 1e-12) | ((x - 1).abs() < 1e-12)).any(1)
    assert torch.equal(space.dofs("boundary"), torch.nonzero(on_boundary).flatten())


def test_dofs_of_the_rim_of_a_disk_and_of_mixed_meshes() -> None:
    space = FunctionSpace(disk(2), Lagrange(3))
    radius = space.dof_coordinates.norm(dim=1)
    assert torch.equal(space.dofs("boundary"), torch.nonzero(radius > 1 - 1e-12).flatten())
    space = FunctionSpace(mixed_mesh(), Lagrange(2))
    x = space.dof_coordinates
    assert torch.equal(space.dofs("right"), torch.nonzero(x[:, 0] == 1).flatten())
    assert len(space.dofs("boundary")) == 16


# -- another type ------------------------------------------------------------------------------------------------------


def test_spaces_follow_the_dtype_of_their_mesh() -> None:
    space = FunctionSpace(unit_square(2, dtype=torch.float32), Lagrange(2))
    assert space.dtype == torch.float32
    assert space.interpolate(1.0).dtype == torch.float32
    assert space.dof_coordinates.dtype == torch.float32
    double = space.to(dtype=torch.float64)
    assert double.dtype == torch.float64
    assert double.shape == space.shape
    assert double.quadrature_degree == space.quadrature_degree


# -- products ----------------------------------------------------------------------------------------------------------


def test_mixed_spaces_concatenate_and_split() -> None:
    mesh = unit_square(2, cell="triangle")
    V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Q)
    assert (W.num_dofs, W.shape) == (59, (59,))
    assert (W.degree, W.quadrature_degree) == (2, 5)
    u = torch.rand(3, 59, dtype=torch.float64)
    v, q = W.split(u)
    assert (v.shape, q.shape) == ((3, 25, 2), (3, 9))
    assert torch.equal(v[1, 4], u[1, 8:10])
    assert torch.equal(q[2], u[2, 50:])
    assert torch.equal(W.join([v, q]), u)
    single = W.to(dtype=torch.float32)
    assert single.dtype == torch.float32
    assert single.fields[0].mesh is single.fields[1].mesh


def test_mixed_spaces_need_two_spaces_over_one_mesh() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match="two or more spaces over the same mesh object"):
        MixedSpace(V)
    with pytest.raises(ValueError, match="two or more spaces over the same mesh object"):
        MixedSpace(V, FunctionSpace(unit_square(2), Lagrange(1)))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [0, -1, True])
def test_components_must_be_positive(components) -> None:
    with pytest.raises(ValueError, match=r"`FunctionSpace\(components=\.\.\.\)` must be None or a positive integer"):
        FunctionSpace(unit_square(2), Lagrange(1), components)


@pytest.mark.parametrize("space", ["scalar", "vector", "mixed"])
def test_dofs_of_the_wrong_shape_or_type(space: str) -> None:
    scalar, vector = (
        FunctionSpace(unit_square(2), Lagrange(1)),
        FunctionSpace(unit_square(2), Lagrange(1), components=2),
    )
    V = {"scalar": scalar, "vector": vector, "mixed": MixedSpace(scalar, FunctionSpace(scalar.mesh, Lagrange(2)))}[
        space
    ]
    good = torch.zeros(3, *V.shape, dtype=torch.float64)
    assert V.check(good) is good
    with pytest.raises(
        ValueError, match=rf"`u` must have the trailing shape .* of the space's dofs; got \({V.shape[0] - 1}"
    ):
        V.check(torch.zeros(V.shape[0] - 1, *V.shape[1:], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got \(\)"):
        V.check(torch.zeros((), dtype=torch.float64))
    with pytest.raises(TypeError, match=r"`w` is torch.float32 but the space is torch.float64"):
        V.check(good.float(), "w")


def test_dofs_that_are_no_tensor() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(TypeError):
        V.check([0.0] * 9)  # pyright: ignore[reportArgumentType]


def test_functions_check_their_values() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1))
    with pytest.raises(ValueError, match="`values` must have the trailing shape"):
        V.function(torch.zeros(8, dtype=torch.float64))


def test_repr() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    assert repr(V).startswith("FunctionSpace(Lagrange(degree=1), components=2; 18 dofs on Mesh(4 quadrilaterals")
    assert "MixedSpace(FunctionSpace(" in repr(MixedSpace(V, V))


def test_numbers_are_constants_for_interpolation() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    two = torch.full(V.shape, 2.0, dtype=V.dtype)
    functions: list[Any] = [lambda x: 2, lambda x: 2.0, lambda x: (2.0, 2.0), lambda x: torch.full_like(x, 2.0)]
    for value in (2, 2.0, *functions):
        assert torch.equal(V.interpolate(value), two)


def test_mixed_spaces_are_shown_in_one_line() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(2), components=2)
    text = repr(MixedSpace(V, FunctionSpace(V.mesh, Lagrange(2))))
    assert text.startswith(
        "MixedSpace(FunctionSpace(Lagrange(degree=2), components=2), FunctionSpace(Lagrange(degree=2)); "
    )
    assert "75 dofs on Mesh(" in text
    assert "\n" not in text


@dataclass(frozen=True)
class OnTriangles:
    """A basis given as polynomials in λ₀, λ₁, λ₂ (barycentric coordinates), with its dofs per entity."""

    functions: Callable[[Tensor, Tensor, Tensor], list[Tensor]]
    entity_dofs: tuple[int, int, int]
    num_basis: int
    cell = triangle
    degree = 1

    def on(self, cell: Cell) -> "OnTriangles":
        assert cell is triangle
        return self

    def tabulate(self, points: Tensor, derivatives: int = 1) -> Tabulation:
        def values(p: Tensor) -> Tensor:
            return torch.stack(self.functions(1 - p.sum(-1), p[..., 0], p[..., 1]), -1)

        gradient = torch.func.vmap(torch.func.jacrev(values))(points)
        return Tabulation(values(points)[None], gradient[None] if derivatives else None)


MINI = OnTriangles(lambda a, b, c: [a, b, c, 27 * a * b * c], (1, 0, 1), 4)  # Arnold, Brezzi and Fortin, 1984
EDGES = OnTriangles(lambda a, b, c: [1 - 2 * c, 1 - 2 * a, 1 - 2 * b], (0, 1, 0), 3)  # Crouzeix and Raviart, 1973


def test_elements_on_any_mesh_say_how_many_dofs_each_entity_carries() -> None:
    """Neighbours share them, traces of MINI agree, and linear functions are projected exactly."""
    grid = unit_square(3, 4, cell="triangle")
    mesh = Mesh(grid.nodes, grid.cells[torch.randperm(24, generator=torch.Generator().manual_seed(0))])
    mini, edges = FunctionSpace(mesh, MINI), FunctionSpace(mesh, EDGES)
    assert (mini.num_dofs, edges.num_dofs) == (20 + 24, 3 * 5 + 4 * 4 + 12)
    assert_continuous(mini)
    facets = mesh.topology.facets
    assert all(len(set(row.tolist())) == 3 for row in edges.cell_dofs[0])
    assert torch.equal(edges.cell_dofs[0].flatten().bincount(), facets.num_cells)
    f = lambda x: 1 + 2 * x[..., 0] - 3 * x[..., 1]  # noqa: E731
    for V in (mini, edges):
        u = minimize(Energy(V, lambda x, u, g: 0.5 * (u - f(x)).square())).value
        assert l2_error(V, u, f) < 1e-13
    with pytest.raises(ValueError, match="dofs per entity must be 3 counts"):
        mesh.topology.numbering((1, 0))


# -- quadrature --------------------------------------------------------------------------------------------------------


@cells
@degrees
@pytest.mark.parametrize("geometry", [2, 3])
def test_default_quadrature_sees_curved_cells(cell: str, degree: int, geometry: int) -> None:
    """Measure and first moments of a product of two functions, by an energy, are those of a much finer rule."""
    mesh = scrambled(small_mesh(cell).curved(geometry, bend))
    V, W = (FunctionSpace(mesh, Lagrange(degree), quadrature_degree=q) for q in (None, 24))
    assert V.quadrature_degree == 2 * degree + 1 + mesh.dim * (geometry - 1)
    u = torch.rand(V.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    densities = [lambda x, u: 1 + 0 * u, lambda x, u: u]
    if (
        cell != "hexahedron"
    ):  # |J| is of degree 3 g − 1 in each coordinate, one more than the rule has room for beside u²
        densities.append(lambda x, u: u.square())
    for density in densities:
        found, wanted = (Energy(S, density, derivatives=0)(u) for S in (V, W))
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=0)
    for S in (V, FunctionSpace(mesh, Lagrange(degree), 2)):
        assert integrate(S, 1.0).item() == pytest.approx(integrate(W, 1.0).item(), rel=1e-13)
    one = V.interpolate(1.0)
    assert l2_error(V, one, 0.0).square().item() == pytest.approx(integrate(W, 1.0).item(), rel=1e-13)


def test_curved_disks_have_their_area_whatever_the_degree() -> None:
    mesh = disk(3, 3)
    for degree in (1, 2, 3):
        V = FunctionSpace(mesh, Lagrange(degree))
        area = Energy(V, lambda x, u: 1 + 0 * u, derivatives=0)(V.interpolate(0.0))
        length = Energy(V, lambda x, u: 0 * u, boundary={"boundary": lambda x, u, n: 1 + 0 * u}, derivatives=0)
        assert area.item() == pytest.approx(integrate(V, 1.0, degree=20).item(), rel=1e-13)
        exact = integrate(V, 1.0, "boundary", degree=20).item()
        assert length(V.interpolate(0.0)).item() == pytest.approx(exact, rel=1e-8)


@cells
@pytest.mark.parametrize("geometry", [1, 2, 3])
def test_straight_cells_pay_nothing_for_their_degree(cell: str, geometry: int) -> None:
    for mesh in (hard_mesh(cell, "scrambled").curved(geometry), small_mesh(cell).curved(geometry).to(torch.float32)):
        assert mesh.curved_degree == 0
        assert FunctionSpace(mesh, Lagrange(2)).quadrature_degree == 5
        moved = mesh.nodes.clone()
        moved[mesh.blocks[0].connectivity[0, -1]] += 1e-3
        bent = mesh.dim * (geometry - 1)
        assert mesh.with_nodes(moved).curved_degree == bent
        assert mesh.with_nodes(mesh.nodes.requires_grad_()).curved_degree == bent


@cells
def test_constants_on_cells_see_their_size(cell: str) -> None:
    """The measure of hexahedra with plane edges is no constant."""
    for mesh in (hard_mesh(cell, "scrambled"), hard_mesh(cell, "curved")):
        V = FunctionSpace(mesh, Discontinuous(0))
        volume = Energy(V, lambda x, u: u, derivatives=0)(V.interpolate(1.0))
        assert volume.item() == pytest.approx(integrate(V, 1.0, degree=20).item(), rel=1e-13)


def test_one_curved_block_counts() -> None:
    quads, straight = unit_square(1).curved(2), unit_square(1, cell="triangle").nodes + torch.tensor([2.0, 0.0])
    nodes = torch.cat([quads.nodes, straight])
    mesh = Mesh(nodes, {"quadrilateral": quads.cells, "triangle": torch.tensor([[9, 10, 12], [9, 12, 11]])})
    assert mesh.curved_degree == 0
    nodes = nodes.clone()
    nodes[int(quads.cells[0, 4])] -= 0.1
    assert mesh.with_nodes(nodes).curved_degree == 2
