"""Parameters of densities: numbers, batches, constants, callables, fields, gradients, materials."""

from inspect import unwrap

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import (
    Constant,
    Dirichlet,
    Energy,
    FunctionSpace,
    Lagrange,
    MixedSpace,
    by_cell_tag,
    gradient,
    integrate,
    unit_square,
)
from fem.forms.parameters import CellPoints, PointValues, values_at_points
from tests.problems import distorted, mixed_mesh, polynomial


@pytest.fixture(name="V")
def space() -> FunctionSpace:
    return FunctionSpace(distorted(unit_square(2, 3)), Lagrange(2))


def values_of(parameter, V: FunctionSpace, tag: str | None = None) -> PointValues:
    domain = V.quadrature.domains(tag)[0]
    return values_at_points(parameter, "parameter 0", V, domain, V.quadrature.geometry(domain))


def points_of(V: FunctionSpace) -> Tensor:
    return V.quadrature.geometry(V.quadrature.domains()[0]).points


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_numbers(V: FunctionSpace) -> None:
    for number in (2, 2.0):
        assert values_of(number, V) == PointValues(2.0)
        assert values_of(number, V).batch == ()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_bare_tensors_are_batches_of_numbers(V: FunctionSpace, batch: tuple) -> None:
    found = values_of(torch.ones(batch, dtype=torch.float64), V)
    assert found.value.shape == (*batch, 1, 1)
    assert (found.rank, found.batch) == (0, batch)


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("shape", [(2,), (2, 2)])
def test_constants_have_trailing_axes(V: FunctionSpace, shape: tuple, batch: tuple) -> None:
    value = torch.rand(*batch, *shape, dtype=torch.float64)
    found = values_of(Constant(value, shape=shape), V)
    assert found.value.shape == (*batch, 1, 1, *shape)
    assert torch.equal(found.value.reshape(*batch, *shape), value)
    assert (found.rank, found.batch) == (len(shape), batch)


def test_constants_check_their_shape() -> None:
    with pytest.raises(ValueError, match=r"`Constant\(shape=\(3,\)\)` got a tensor of shape \(2,\)"):
        Constant(tensor(1, 2), shape=(3,))


def test_callables_see_the_points(V: FunctionSpace) -> None:
    x = points_of(V)
    for function, rank in (
        (lambda x: x[..., 0] * x[..., 1], 0),
        (lambda x: 2 * x, 1),
        (lambda x: x[..., None] * x[..., None, :], 2),
    ):
        found = values_of(function, V)
        assert torch.equal(found.value, function(x))
        assert (found.rank, found.batch) == (rank, ())


def test_callables_may_return_a_number(V: FunctionSpace) -> None:
    assert values_of(lambda x: 3, V) == PointValues(3.0)
    assert values_of(lambda x: tensor(3)[0], V).value.shape == (1, 1)


@pytest.mark.parametrize("tag", [None, "left"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_fields_on_this_and_other_spaces(V: FunctionSpace, degree: int, tag: str | None) -> None:
    function = polynomial(2, degree)
    other = FunctionSpace(V.mesh, Lagrange(degree))
    domain = V.quadrature.domains(tag)[0]
    x = V.quadrature.geometry(domain).points
    field = other.function(other.interpolate(function))
    found = values_of(field, V, tag)
    assert found.rank == 0
    torch.testing.assert_close(found.value, function(x))
    found = values_of(gradient(field), V, tag)
    assert found.rank == 1
    torch.testing.assert_close(found.value, function.gradient(x), rtol=1e-10, atol=1e-10)


def test_vector_fields_and_batches(V: FunctionSpace) -> None:
    vector = FunctionSpace(V.mesh, Lagrange(1), components=3)
    field = vector.function(torch.rand(4, *vector.shape, dtype=torch.float64))
    e, q = points_of(V).shape[:2]
    for parameter, shape in ((field, (3,)), (gradient(field), (3, 2))):
        found = values_of(parameter, V)
        assert found.value.shape == (4, e, q, *shape)
        assert (found.rank, found.batch) == (len(shape), (4,))


def test_fields_over_a_moved_mesh_share_its_cells(V: FunctionSpace) -> None:
    """Same topology, other nodes: the field is evaluated on the geometry of the space of integration."""
    other = FunctionSpace(V.mesh.with_nodes(2 * V.mesh.nodes), Lagrange(1))
    found = values_of(gradient(other.function(other.interpolate(lambda x: x[:, 0]))), V)
    torch.testing.assert_close(found.value, tensor(2, 0).expand(found.value.shape), rtol=0, atol=1e-12)


# -- materials ---------------------------------------------------------------------------------------------------------


def halves() -> FunctionSpace:
    """A unit square, "left" half of the cells and "right" half."""
    return FunctionSpace(
        unit_square(4, 2).with_tags(cell_tags={"west": lambda x: x[:, 0] < 0.5, "east": lambda x: x[:, 0] > 0.5}),
        Lagrange(1),
    )


@pytest.mark.parametrize("mesh", [unit_square(3), unit_square(48), mixed_mesh()])
def test_values_at_points_of_cells_are_those_of_a_callable(mesh) -> None:
    """On a grid or not, on one block or more, with a batch."""
    V = FunctionSpace(mesh, Lagrange(1))
    scale = tensor(1, -2)
    there = lambda x: torch.stack([x[..., 0] ** 2, x.sum(-1)], -1)  # noqa: E731
    known = [scale[:, None, None, None] * there(V.quadrature.geometry(d).points) for d in V.quadrature.domains()]
    with_points = Energy(V, lambda x, u, g, p: (g * p).sum(-1) + u.square())
    with_callable = Energy(V, lambda x, u, g, s, p: s * (g * p).sum(-1) + u.square())
    u = V.interpolate(lambda x: torch.sin(x).prod(-1))
    found = with_points.residual(u, CellPoints(tuple(known), 1))
    torch.testing.assert_close(found, with_callable.residual(u, scale, there))


def test_values_at_points_of_cells_belong_to_their_quadrature(V: FunctionSpace) -> None:
    known = CellPoints(tuple(V.quadrature.geometry(d).points[..., 0] for d in V.quadrature.domains()))
    assert values_of(known, V).rank == 0
    with pytest.raises(ValueError, match="has values at 9 points of 6 cells, which are not those of the integral"):
        values_of(known, V, "left")
    finer = FunctionSpace(V.mesh, Lagrange(2), quadrature_degree=9)
    with pytest.raises(ValueError, match="has values at 9 points of 6 cells, which are not those of the integral"):
        values_of(known, finer)


def test_materials_by_cell_tag() -> None:
    V = halves()
    found = values_of(by_cell_tag({"west": 2, "east": tensor(5)[0]}), V)
    wanted = torch.where(points_of(V)[..., 0] < 0.5, 2.0, 5.0).double()
    torch.testing.assert_close(found.value.expand(wanted.shape), wanted)


def test_batched_materials_and_later_tags_win() -> None:
    V = halves()
    V = FunctionSpace(V.mesh.with_tags(cell_tags={"all": range(8)}), Lagrange(1))
    found = values_of(by_cell_tag({"all": 1.0, "east": tensor(3, 4)}), V)
    assert found.batch == (2,)
    west = points_of(V)[..., :1, 0] < 0.5
    assert torch.equal(found.value, torch.stack([torch.where(west, 1.0, 3.0), torch.where(west, 1.0, 4.0)]).double())
    assert torch.equal(values_of(by_cell_tag({"east": 7.0, "all": 1.0}), V).value.unique(), tensor(1))


def test_materials_on_facets_belong_to_the_cell_behind() -> None:
    V = halves()
    material = by_cell_tag({"west": 2.0, "east": 5.0})
    assert values_of(material, V, "left").value.unique().tolist() == [2]
    assert values_of(material, V, "right").value.unique().tolist() == [5]


def test_materials_on_mixed_meshes() -> None:
    """West are the quadrilaterals, east the triangles."""
    mesh = mixed_mesh().with_tags(cell_tags={"west": lambda x: x[:, 0] < 0.5, "east": lambda x: x[:, 0] > 0.5})
    V = FunctionSpace(mesh, Lagrange(1))
    for domain in (*V.quadrature.domains(), *V.quadrature.domains("boundary")):
        geometry = V.quadrature.geometry(domain)
        found = values_at_points(by_cell_tag({"west": 1.0, "east": 2.0}), "f", V, domain, geometry).value
        wanted = torch.where(geometry.points[..., 0] < 0.5, 1.0, 2.0).double()
        assert torch.equal(found.expand(wanted.shape), wanted)


def test_gradients_reach_materials() -> None:
    V = halves()
    (domain,) = V.quadrature.domains()
    weights = V.quadrature.geometry(domain).weights.expand(8, -1)

    def total(west: Tensor, east: Tensor) -> Tensor:
        found = values_of(by_cell_tag({"west": west, "east": east}), V).value
        return (found.square() * weights).sum((-2, -1))

    assert gradcheck(total, (tensor(2)[0].requires_grad_(), tensor(3, 4).requires_grad_()))


def test_materials_must_cover_all_cells() -> None:
    V = halves()
    with pytest.raises(ValueError, match=r"parameter 0: 4 cells \(the first is 2\) have none of the tags west"):
        values_of(by_cell_tag({"west": 1.0}), V)
    with pytest.raises(ValueError, match="parameter 0: unknown cell tag 'steel'; this mesh has west, east"):
        values_of(by_cell_tag({"steel": 1.0}), V)
    with pytest.raises(ValueError, match="this mesh has none"):
        values_of(by_cell_tag({"steel": 1.0}), FunctionSpace(unit_square(1), Lagrange(1)))


# -- differentiability and errors --------------------------------------------------------------------------------------


def test_gradients_reach_whatever_a_parameter_is_made_of(V: FunctionSpace) -> None:
    other = FunctionSpace(V.mesh, Lagrange(1))
    dofs = torch.rand(other.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = tensor(2)[0].requires_grad_()
    for make in (
        lambda dofs, scale: other.function(dofs * scale),
        lambda dofs, scale: gradient(other.function(dofs * scale)),
        lambda dofs, scale: lambda x: scale * x[..., 0] + dofs[0],
        lambda dofs, scale: Constant(torch.stack([scale, dofs[1]]), (2,)),
        lambda dofs, scale: scale * dofs[2],
    ):
        assert gradcheck(lambda d, s, make=make: values_of(make(d, s), V).value, (dofs, scale))


@pytest.mark.parametrize(
    "make",
    [
        lambda V: torch.ones(()),
        lambda V: Constant(torch.ones(2), (2,)),
        lambda V: lambda x: x[..., 0].float(),
        lambda V: by_cell_tag({"all": torch.ones(())}),
    ],
    ids=["tensor", "constant", "callable", "material"],
)
def test_types_are_not_mixed(make) -> None:
    V = FunctionSpace(unit_square(2).with_tags(cell_tags={"all": range(4)}), Lagrange(1))
    with pytest.raises(TypeError, match=r"parameter 0 is torch\.float32 but the space is torch\.float64"):
        values_of(make(V), V)


@pytest.mark.parametrize("shape", [(5,), (6,), (1, 1), (2, 6, 9)])
def test_callables_must_return_a_value_for_each_point(V: FunctionSpace, shape: tuple) -> None:
    with pytest.raises(
        ValueError, match=r"parameter 0: the callable got points x of shape \(6, 9, 2\) .* shape \(6, 9\)"
    ):
        values_of(lambda x: x.new_zeros(shape), V)


@pytest.mark.parametrize("parameter", [True, None, "steel", [1.0], {}])
def test_things_that_are_no_parameter(V: FunctionSpace, parameter) -> None:
    (domain,) = V.quadrature.domains()
    with pytest.raises(TypeError, match="parameter 0 must be a number, tensor, field, callable or material; got"):
        unwrap(values_at_points)(
            parameter, "parameter 0", V, domain, V.quadrature.geometry(domain)
        )  # annotations not executed


def test_fields_over_another_mesh(V: FunctionSpace) -> None:
    other = FunctionSpace(unit_square(2, 3), Lagrange(2))
    field = other.function(other.interpolate(1.0))
    for parameter in (field, gradient(field)):
        with pytest.raises(ValueError, match="parameter 0 is a field over another mesh"):
            values_of(parameter, V)


def test_gradients_are_taken_of_fields(V: FunctionSpace) -> None:
    with pytest.raises(TypeError, match=r"`gradient` takes a field, `V\.function\(values\)`; got float"):
        unwrap(gradient)(1.0)


# -- what is no batch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(35,), (4, 35), (35, 2), (12,), (6,), (3, 6), (6, 2, 2), (7, 5), (2, 4, 3), (3, 2)],
    ids=["dofs", "batch of dofs", "vectors", "nodes", "cells", "batch of cells", "matrices", *["image"] * 3],
)
def test_tensors_that_look_like_fields_are_refused_with_what_they_may_mean(V: FunctionSpace, shape: tuple) -> None:
    """35 dofs on 3 × 2 cells with 12 nodes: images have 7 × 5, 4 × 3 or 3 × 2 entries."""
    given = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`V\.function\(t\)`.*`V\.per_cell\(t\)`.*`Constant\(t, shape=\(\)\)`"):
        values_of(given, V)
    assert values_of(Constant(given, shape=()), V).batch == shape


def test_the_size_of_a_batch_is_free_where_nothing_can_be_meant(V: FunctionSpace) -> None:
    one = FunctionSpace(unit_square(1, 1), Lagrange(1))
    assert values_of(torch.ones(1, dtype=torch.float64), one).batch == (1,)
    assert values_of(torch.ones(5, 7, dtype=torch.float64), V).batch == (5, 7)


@pytest.mark.parametrize("field", [0, 1])
def test_dofs_of_each_field_of_a_mixed_space_are_refused(field: int) -> None:
    mesh = unit_square(2, 3)
    W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    energy = Energy(W, lambda x, u, grad_u, k: k * u[1])
    for count in (W.num_dofs, W.fields[field].num_dofs, W.fields[field].num_nodes):
        with pytest.raises(ValueError, match=f"there are {count}"):
            energy(torch.zeros(W.shape, dtype=torch.float64), torch.ones(count, dtype=torch.float64))


def test_every_entry_point_refuses_a_field_that_would_be_a_batch(V: FunctionSpace) -> None:
    energy = Energy(V, lambda x, u, grad_u, k: 0.5 * k * grad_u.square().sum(-1) - u, Dirichlet(V, {"boundary": 0.0}))
    u, given = torch.zeros(V.shape, dtype=torch.float64), torch.ones(V.num_dofs, dtype=torch.float64)
    calls = [
        lambda: energy(u, given),
        lambda: energy.residual(u, given),
        lambda: energy.hessian(u, given),
        lambda: energy.hessian_product(u, u, given),
        lambda: integrate(V, given),
        lambda: integrate(V, given, tag="left"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"V\.function"):
            call()


# -- materials with vectors and matrices -----------------------------------------------------------------------------


def two_materials(n: int) -> FunctionSpace:
    tags = {"a": lambda x: x[:, 0] < 0.5, "b": lambda x: x[:, 0] > 0.5}
    return FunctionSpace(unit_square(n).with_tags(cell_tags=tags), Lagrange(1))


@pytest.mark.parametrize("n", [4, 48], ids=["values at points", "a loop over a grid"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_matrix_per_tag_is_the_same_callable_of_x(n: int, batch: tuple) -> None:
    V = two_materials(n)
    A, B = (torch.rand(*batch, 2, 2, dtype=torch.float64) + 2 * torch.eye(2, dtype=torch.float64) for _ in range(2))
    energy = Energy(V, lambda x, u, g, K: 0.5 * (g * (K @ g[..., None])[..., 0]).sum(-1))
    u = V.interpolate(lambda x: x[..., 0] ** 2 + x[..., 1] * x[..., 0])
    found = energy(u, by_cell_tag({"a": A, "b": B}))
    assert found.shape == batch
    for i in range(max(len(batch) * 3, 1)):
        a, b = (A[i], B[i]) if batch else (A, B)
        expected = energy(u, lambda x, a=a, b=b: torch.where(x[..., :1, None] < 0.5, a, b))
        assert torch.allclose(found[i] if batch else found, expected, rtol=1e-13)


def test_the_shape_of_a_material_says_what_is_a_batch() -> None:
    V, square, vector = two_materials(4), torch.rand(2, 2, dtype=torch.float64), tensor(1.0, 2.0)
    assert values_of(by_cell_tag({"a": square, "b": square}), V).rank == 2
    numbers = values_of(by_cell_tag({"a": square, "b": square}, shape=()), V)
    assert (numbers.rank, numbers.batch) == (0, (2, 2))
    vectors = values_of(by_cell_tag({"a": vector, "b": 2 * vector}, shape=(2,)), V)
    assert (vectors.rank, vectors.batch) == (1, ())
    assert torch.equal(vectors.value[0, 0], vector)
    assert values_of(by_cell_tag({"a": vector, "b": 3.0}), V).batch == (2,)
    batches = values_of(by_cell_tag({"a": square, "b": vector}, shape=(2,)), V)
    assert (batches.rank, batches.batch) == (1, (2,))


@pytest.mark.parametrize("values", [{"a": torch.eye(2), "b": 1.0}, {"a": torch.eye(2), "b": torch.eye(3)}])
def test_materials_of_different_shapes_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=r"by_cell_tag\(\{'b'.*last axes are \(2, 2\)"):
        by_cell_tag(values)
    with pytest.raises(ValueError, match="shape"):
        by_cell_tag({"a": 1.0}, shape=(0,))


def test_gradients_reach_the_matrices_of_a_material() -> None:
    V = two_materials(4)
    energy = Energy(V, lambda x, u, g, K: 0.5 * (g * (K @ g[..., None])[..., 0]).sum(-1))
    u = V.interpolate(lambda x: x[..., 0] ** 2 + x[..., 1])
    A, B = (torch.rand(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda a, b: energy(u, by_cell_tag({"a": a, "b": b})), (A, B))
