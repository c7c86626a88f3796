"""Constraints: prescribed values in all their forms, and vanishing means."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fem import Dirichlet, Energy, FunctionSpace, Lagrange, MeanZero, MixedSpace, Periodic, integrate, unit_square
from fem.forms.constraints import Constraint, Free
from fem.reference.spline_element import BSpline
from tests.problems import bend, distorted, hard_mesh, polynomial, scrambled

CELLS_2D = pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])


@pytest.fixture(name="V")
def space() -> FunctionSpace:
    return FunctionSpace(scrambled(unit_square(2, 3, cell="triangle")), Lagrange(2))


def random(V, *batch: int, seed: int = 0) -> Tensor:
    return torch.rand(*batch, *V.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- values ------------------------------------------------------------------------------------------------------------


def test_numbers_are_written_on_the_tag_and_nothing_else_changes(V: FunctionSpace) -> None:
    u = random(V)
    applied = Dirichlet(V, {"left": 3}).apply(u)
    on_left = V.dof_coordinates[:, 0] == 0
    assert (applied[on_left] == 3).all()
    assert torch.equal(applied[~on_left], u[~on_left])
    dirichlet = Dirichlet(V, {"left": 3})
    assert torch.equal(dirichlet.fixed, on_left)
    assert dirichlet.mask is dirichlet.fixed


def test_apply_is_a_projection_and_leaves_its_argument_alone(V: FunctionSpace) -> None:
    dirichlet, u = Dirichlet(V, {"boundary": lambda x: x[:, 0]}), random(V, 2)
    before = u.clone()
    once = dirichlet.apply(u)
    assert torch.equal(u, before)
    assert torch.equal(dirichlet.apply(once), once)


def test_callables_see_the_coordinates_of_the_dofs(V: FunctionSpace) -> None:
    function = polynomial(2, 2)
    applied = Dirichlet(V, {"boundary": function}).apply(torch.zeros(V.shape, dtype=torch.float64))
    dofs = V.dofs("boundary")
    torch.testing.assert_close(applied[dofs], function(V.dof_coordinates)[dofs])


@pytest.mark.parametrize("batch", [(), (3,)])
def test_tensors_per_dof_of_the_tag_or_of_the_space(V: FunctionSpace, batch: tuple) -> None:
    whole = random(V, *batch, seed=1)
    dofs = V.dofs("top")
    for value in (whole, whole[..., dofs], V.function(whole)):
        applied = Dirichlet(V, {"top": value}).apply(random(V))
        assert applied.shape == (*batch, *V.shape)
        assert torch.equal(applied[..., dofs], whole[..., dofs])


def test_a_tensor_without_axes_is_a_number(V: FunctionSpace) -> None:
    value = torch.tensor(2.0, dtype=torch.float64)
    assert (Dirichlet(V, {"top": value}).apply(random(V))[V.dofs("top")] == 2).all()


def test_later_entries_win_where_they_meet(V: FunctionSpace) -> None:
    corner = int(torch.nonzero((V.dof_coordinates == 0).all(1)))
    u = random(V)
    assert Dirichlet(V, {"left": 1.0, "bottom": 2.0}).apply(u)[corner] == 2
    assert Dirichlet(V, {"bottom": 2.0, "left": 1.0}).apply(u)[corner] == 1
    assert Dirichlet(V, {"boundary": 5.0, "left": lambda x: x[:, 1]}).apply(u)[corner] == 0


# -- vectors and products ----------------------------------------------------------------------------------------------


def test_vectors_by_component_and_as_a_whole() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    u, left, right = random(V), V.dofs("left"), V.dofs("right")
    pair = torch.tensor([7.0, 8.0], dtype=torch.float64)
    dirichlet = Dirichlet(V, {("left", 1): 4.0, "right": pair})
    applied = dirichlet.apply(u)
    assert (applied[left, 1] == 4).all()
    assert torch.equal(applied[left, 0], u[left, 0])
    assert torch.equal(applied[right], pair.expand(3, 2))
    assert dirichlet.fixed.sum() == 3 + 6
    whole = random(V, seed=1)
    for value in (whole, whole[right]):
        assert torch.equal(Dirichlet(V, {"right": value}).apply(u)[right], whole[right])
    assert (Dirichlet(V, {"right": 1.0}).apply(u)[right] == 1).all()
    assert torch.equal(Dirichlet(V, {"right": lambda x: x}).apply(u)[right], V.dof_coordinates[right])


@pytest.mark.parametrize("batch", [(), (3,)])
def test_components_take_tensors_too(batch: tuple) -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    whole, dofs = torch.rand(*batch, 9, dtype=torch.float64), V.dofs("top")
    for value in (whole, whole[..., dofs]):
        applied = Dirichlet(V, {"boundary": 0.0, ("top", 1): value}).apply(random(V))
        assert applied.shape == (*batch, 9, 2)
        assert torch.equal(applied[..., dofs, 1], whole[..., dofs])
        assert (applied[..., dofs, 0] == 0).all()


def test_mixed_spaces_by_field_and_component() -> None:
    mesh = unit_square(2)
    V, Q = FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Q)
    dirichlet = Dirichlet(W, {("left", 0, 1): 2.0, ("top", 1): lambda x: x[:, 0], ("right", 0): 3.0})
    v, q = W.split(dirichlet.apply(random(W, 4)))
    assert (v[:, V.dofs("left"), 1] == 2).all()
    assert (v[:, V.dofs("right")] == 3).all()
    assert torch.equal(q[:, Q.dofs("top")], Q.dof_coordinates[Q.dofs("top"), 0].expand(4, -1))
    mask_v, mask_q = W.split(dirichlet.fixed)
    assert (int(mask_v.sum()), int(mask_q.sum())) == (5 + 10, 3)
    everywhere = W.split(Dirichlet(W, {"boundary": 0.0}).fixed)
    assert [int(m.sum()) for m in everywhere] == [32, 8]


def test_mixed_spaces_join_batched_and_plain_values() -> None:
    mesh = unit_square(2)
    V, Q = FunctionSpace(mesh, Lagrange(2)), FunctionSpace(mesh, Lagrange(1))
    W = MixedSpace(V, Q)
    values = torch.rand(3, Q.num_dofs, dtype=torch.float64)
    applied = Dirichlet(W, {("left", 0): 1.0, ("left", 1): values}).apply(random(W))
    v, q = W.split(applied)
    assert (v[:, V.dofs("left")] == 1).all()
    assert torch.equal(q[:, Q.dofs("left")], values[:, Q.dofs("left")])


# -- transposes and derivatives ----------------------------------------------------------------------------------------


def test_project_is_the_transpose_of_the_linear_part(V: FunctionSpace) -> None:
    """⟨A v, w⟩ = ⟨v, Aᵀ w⟩ with A v = apply(v) − apply(0)."""
    zero, v, w = torch.zeros(V.shape, dtype=torch.float64), random(V, seed=1), random(V, seed=2)
    for constraint in (Dirichlet(V, {"left": 1.0, "top": lambda x: x[:, 0]}), MeanZero(V)):
        linear = constraint.apply(v) - constraint.apply(zero)
        torch.testing.assert_close((linear * w).sum(), (v * constraint.project(w, constraint.data())).sum())


def test_apply_differentiates_in_everything() -> None:
    mesh = distorted(unit_square(2, 1))
    V = FunctionSpace(mesh, Lagrange(2))
    W = FunctionSpace(mesh, Lagrange(1), components=2)
    value = random(V).requires_grad_()
    u = random(V, 2, seed=1).requires_grad_()
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def applied(u: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        entries = {"left": value, "top": lambda x: scale * x[:, 0] ** 2, "right": scale}
        return Dirichlet(V, entries).apply(u)

    assert gradcheck(applied, (u, value, scale))
    w = random(W, seed=2).requires_grad_()
    assert gradcheck(lambda w, s: Dirichlet(W, {("left", 1): s, "top": lambda x: s * x}).apply(w), (w, scale))


def test_values_follow_the_nodes() -> None:
    mesh = unit_square(2, 1)
    nodes = bend(mesh.nodes).requires_grad_()

    def applied(nodes: Tensor) -> Tensor:
        V = FunctionSpace(mesh.with_nodes(nodes), Lagrange(2))
        return Dirichlet(V, {"boundary": lambda x: x[:, 0] * x[:, 1]}).apply(torch.zeros(V.shape, dtype=torch.float64))

    assert gradcheck(applied, nodes)


def test_values_are_read_anew_each_time(V: FunctionSpace) -> None:
    """A tensor closed over may change between calls, as it does in an optimisation."""
    value = torch.tensor(1.0, dtype=torch.float64)
    dirichlet = Dirichlet(V, {"left": value, "right": lambda x: value * x[:, 0]})
    value.fill_(2.0)
    applied = dirichlet.apply(random(V))
    assert (applied[V.dofs("left")] == 2).all()
    assert (applied[V.dofs("right")] == 2).all()


# -- mean zero ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "curved"])
@CELLS_2D
def test_the_mean_vanishes(cell: str, kind: str) -> None:
    mesh = hard_mesh(cell, kind)
    for components in (None, 2):
        V = FunctionSpace(mesh, Lagrange(2), components, quadrature_degree=9)
        u = MeanZero(V).apply(random(V, 3))
        means = integrate(V, V.function(u), degree=9)
        assert means.shape == (3,) if components is None else (3, 2)
        assert means.abs().max() < 1e-14
        torch.testing.assert_close(MeanZero(V).apply(u), u)
        assert (u - random(V, 3)).std(1).max() < 1e-14  # a constant was subtracted


def test_mean_zero_on_spline_spaces() -> None:
    V = FunctionSpace(unit_square(3, 2), BSpline.uniform((3, 2), 2))
    u = MeanZero(V).apply(random(V))
    assert integrate(V, V.function(u)).abs() < 1e-15


def test_projected_loads_balance(V: FunctionSpace) -> None:
    """What pure Neumann problems need: the load does no work on constants."""
    constraint = MeanZero(V)
    load = constraint.project(random(V, 3), constraint.data())
    assert load.sum(-1).abs().max() < 1e-14


def test_mean_differentiates_in_nodes() -> None:
    mesh = unit_square(2, 1)
    nodes, u = bend(mesh.nodes).requires_grad_(), torch.rand(15, dtype=torch.float64).requires_grad_()

    def applied(nodes: Tensor, u: Tensor) -> Tensor:
        return MeanZero(FunctionSpace(mesh.with_nodes(nodes), Lagrange(2))).apply(u)

    assert gradcheck(applied, (nodes, u))


def test_mean_zero_takes_one_space(V: FunctionSpace) -> None:
    with pytest.raises(TypeError, match="`MeanZero` takes a single function space"):
        unwrap(MeanZero.__init__)(object.__new__(MeanZero), MixedSpace(V, V))


def test_all_are_constraints(V: FunctionSpace) -> None:
    for constraint in (Dirichlet(V, {"left": 0.0}), MeanZero(V), Free(V)):
        assert isinstance(constraint, Constraint)
    u = random(V)
    assert Free(V).insert(u, None) is u
    assert Free(V).project(u, None) is u


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_unknown_tags_are_told_the_known_ones(V: FunctionSpace) -> None:
    with pytest.raises(
        ValueError, match="unknown facet tag 'wall'; this mesh has 'boundary', 'left', 'right', 'bottom', 'top'"
    ):
        Dirichlet(V, {"wall": 0.0})


@pytest.mark.parametrize("length", [0, 3, 36])
def test_values_of_the_wrong_shape(V: FunctionSpace, length: int) -> None:
    with pytest.raises(
        ValueError, match=r"the Dirichlet value on 'left' must be a number or have the trailing shape \(7,\)"
    ):
        Dirichlet(V, {"left": torch.zeros(length, dtype=torch.float64)})


def test_vectors_of_the_wrong_shape() -> None:
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    for shape in ((3,), (3, 3), (9,)):
        with pytest.raises(ValueError, match=r"\(3, 2\) \(dofs of the tag\) or \(9, 2\) \(all dofs\); got "):
            Dirichlet(V, {"left": torch.zeros(shape, dtype=torch.float64)})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), lambda x: x[:, 0].log() * 0 / 0], ids=["nan", "infinity", "callable"]
)
def test_values_that_are_not_finite(V: FunctionSpace, value) -> None:
    with pytest.raises(ValueError, match="the Dirichlet value on 'left' is not finite: got "):
        Dirichlet(V, {"left": value})


@pytest.mark.parametrize("value", [None, True, "hot"])
def test_values_that_are_none(V: FunctionSpace, value) -> None:
    with pytest.raises(TypeError, match="the Dirichlet value on 'left' must be a number, tensor, field or callable"):
        Dirichlet(V, {"left": value})


def test_types_are_not_mixed(V: FunctionSpace) -> None:
    with pytest.raises(
        TypeError, match=r"the Dirichlet value on 'left' is torch\.float32 but the space is torch\.float64"
    ):
        Dirichlet(V, {"left": lambda x: x[:, 0].float()})
    with pytest.raises(TypeError, match=r"`u` is torch\.float32"):
        Dirichlet(V, {"left": 0.0}).apply(random(V).float())


def test_keys_that_mean_nothing(V: FunctionSpace) -> None:
    with pytest.raises(ValueError, match=r"key \('left', 0\) names a component, but the space is scalar"):
        Dirichlet(V, {("left", 0): 0.0})
    vector = FunctionSpace(V.mesh, Lagrange(1), components=2)
    for component in (2, -1, True, "x"):
        with pytest.raises(ValueError, match=r"the component must be an integer in \[0, 2\)"):
            Dirichlet(vector, {("left", component): 0.0})
    with pytest.raises(ValueError, match="has too many parts"):
        Dirichlet(vector, {("left", 0, 1): 0.0})
    with pytest.raises(ValueError, match=r"the field must be an integer in \[0, 2\)"):
        Dirichlet(MixedSpace(V, vector), {("left", 2): 0.0})


def test_a_field_on_another_space_is_refused(V: FunctionSpace) -> None:
    other = FunctionSpace(V.mesh, Lagrange(1))
    with pytest.raises(ValueError, match="the Dirichlet value on 'left'"):
        Dirichlet(V, {"left": other.function(other.interpolate(1.0))})


def test_spline_spaces_have_no_dofs_on_facets() -> None:
    V = FunctionSpace(unit_square(3, 2), BSpline.uniform((3, 2), 2))
    with pytest.raises(ValueError, match="share values at nodes"):
        Dirichlet(V, {"left": 0.0})


def test_constraints_are_shown_in_one_line(V: FunctionSpace) -> None:
    held = Dirichlet(V, {"left": 0.0, ("right"): torch.ones((), dtype=V.dtype)})
    assert repr(held).startswith("Dirichlet('left': 0.0, 'right': a tensor of value 1.0; ")
    assert repr(Dirichlet(V, {})) == f"Dirichlet(no values; 0 of {V.num_dofs} dofs)"
    many = Dirichlet(V, dict.fromkeys(("left", "right", "bottom", "top", "boundary"), 0.0))
    assert ", …; " in repr(many)
    assert repr(MeanZero(FunctionSpace(V.mesh, Lagrange(1), components=2))) == "MeanZero(2 components)"


def test_values_that_are_numbers_whatever_gives_them(V: FunctionSpace) -> None:
    wanted = Dirichlet(V, {"left": 2.0}).data()
    for value in (2, np.float32(2), np.int64(2), lambda x: 2, lambda x: 2.0):
        assert torch.equal(Dirichlet(V, {"left": value}).data(), wanted)


def test_a_scalar_field_prescribes_one_component(V: FunctionSpace) -> None:
    vectors = FunctionSpace(V.mesh, Lagrange(2), components=2)
    scalar = FunctionSpace(V.mesh, Lagrange(2))
    field = scalar.function(scalar.interpolate(lambda x: x[..., 1]))
    data = Dirichlet(vectors, {("left", np.int64(1)): field}).data()
    wanted = Dirichlet(vectors, {("left", 1): lambda x: x[..., 1]}).data()
    assert torch.equal(data, wanted)


# -- the mean of one field beside prescribed values -------------------------------------------------------------------


def enclosed(n: int = 2) -> tuple[MixedSpace, Dirichlet]:
    mesh = distorted(unit_square(n))
    W = MixedSpace(FunctionSpace(mesh, Lagrange(2), components=2), FunctionSpace(mesh, Lagrange(1)))
    return W, Dirichlet(W, {("boundary", 0): 0.0, ("top", 0, 0): 1.0})


@pytest.mark.parametrize("field", [0, 1])
def test_one_field_of_a_mixed_space_loses_its_mean(field: int) -> None:
    W, _ = enclosed()
    u = random(W, 3)
    applied = MeanZero(W, field=field).apply(u)
    kept, changed = W.split(applied)[1 - field], W.split(applied)[field]
    assert torch.equal(kept, W.split(u)[1 - field])
    V = W.fields[field]
    assert integrate(V, V.function(changed)).abs().max() < 1e-14
    own, single = MeanZero(V), W.split(u)[field]
    torch.testing.assert_close(changed, own.apply(single))
    torch.testing.assert_close(
        W.split(MeanZero(W, field).project(u, MeanZero(W, field).data()))[field], own.project(single, own.data())
    )


def test_prescribed_values_and_a_mean_hold_together() -> None:
    W, walls = enclosed()
    u = random(W, 3)
    both = walls & MeanZero(W, field=1)
    for other in (MeanZero(W, field=1) & walls, MeanZero(W, 1, walls)):
        assert torch.equal(other.apply(u), both.apply(u))
    applied = both.apply(u)
    assert torch.equal(W.split(applied)[0], W.split(walls.apply(u))[0])
    assert torch.equal(W.split(applied)[1], W.split(MeanZero(W, field=1).apply(u))[1])
    torch.testing.assert_close(both.apply(applied), applied)
    assert both.fixed is walls.fixed
    assert isinstance(both, Constraint)
    assert isinstance(both, MeanZero)
    assert repr(both).endswith(" & MeanZero(field 1)")
    v, w, zero = random(W, seed=1), random(W, seed=2), torch.zeros(W.shape, dtype=torch.float64)
    linear = both.apply(v) - both.apply(zero)
    torch.testing.assert_close((linear * w).sum(), (v * both.project(w, both.data())).sum())


def test_a_mean_and_a_batch_of_prescribed_values_differentiate() -> None:
    W, _ = enclosed()
    u, speed = random(W, 2).requires_grad_(), torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def applied(u: Tensor, speed: Tensor) -> Tensor:
        nodes = W.fields[0].dofs("top")
        lid = Dirichlet(W, {("top", 0, 0): speed[:, None].expand(2, len(nodes))})
        return (lid & MeanZero(W, field=1)).apply(u)

    assert applied(u, speed).shape == (2, *W.shape)
    assert gradcheck(applied, (u, speed))


def test_a_mean_that_cannot_be_held_is_refused(V: FunctionSpace) -> None:
    W, walls = enclosed()
    with pytest.raises(ValueError, match=r"values of field 0, whose mean .* prescribes field 0 alone"):
        walls & MeanZero(W, field=0)
    with pytest.raises(ValueError, match="values of field 0"):
        Dirichlet(V, {"left": 0.0}) & MeanZero(V)
    with pytest.raises(ValueError, match="one and the same space"):
        walls & MeanZero(V)
    with pytest.raises(ValueError, match=r"`MeanZero\(field=\.\.\.\)` must be an integer in \[0, 2\); got 2"):
        MeanZero(W, field=2)


def test_prescribed_values_join_unless_they_differ() -> None:
    """The order is of no account; where both hold a dof, their values must be one."""
    V = FunctionSpace(unit_square(2), Lagrange(1), components=2)
    left, top = Dirichlet(V, {"left": 1.0}), Dirichlet(V, {("top", 1): 1.0})
    u = torch.rand(V.shape, dtype=V.dtype, generator=torch.manual_seed(0))
    at_once = Dirichlet(V, {"left": 1.0, ("top", 1): 1.0})
    for both in (left & top, top & left, left & (top & left)):
        assert torch.equal(both.apply(u), at_once.apply(u))
        assert torch.equal(both.fixed, at_once.fixed)
    moving = torch.tensor([1.0, 1.0], dtype=V.dtype, requires_grad=True)
    (g,) = torch.autograd.grad((Dirichlet(V, {"right": moving}) & left).apply(u).sum(), moving)
    assert g.tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match=r"dof 13 is prescribed twice, as 1\.0 and as 2\.0; within one"):
        left & Dirichlet(V, {("top", 1): 2.0})
    with pytest.raises(ValueError, match=r"dof 0 is prescribed twice, as 1\.0 and as 3\.0"):
        left & Dirichlet(V, {"left": torch.tensor([[1.0, 1.0], [3.0, 1.0]], dtype=V.dtype)[:, None].expand(2, 3, 2)})
    with pytest.raises(ValueError, match="one and the same space"):
        left & Dirichlet(FunctionSpace(V.mesh, Lagrange(1), components=2), {"top": 0.0})
    W, walls = enclosed()
    assert torch.equal((walls & MeanZero(W, field=1) & walls).fixed, walls.fixed)


def test_prescribed_values_of_time() -> None:
    """Values of (x, t) are those of x at a time, alone, with a mean and with ties, and cannot do without one."""
    V = FunctionSpace(unit_square(2), Lagrange(1))
    held = Dirichlet(V, {"left": 1.0, "right": lambda x, t: t * x[..., 1]})
    fixed = Dirichlet(V, {"left": 1.0, "right": lambda x: 3.0 * x[..., 1]})
    for other in (held.at(3.0), Dirichlet(V, {"left": 1.0}) & Dirichlet(V, {"right": lambda x, t: t * x[..., 1]})):
        assert torch.equal(other.data(3.0), fixed.data())
    assert torch.equal(held.data(3.0), fixed.data())
    assert held.time_dependent
    assert not held.at(3.0).time_dependent
    for make in (lambda: held.data(), lambda: Energy(V, lambda x, u, g: u, held)(torch.zeros(V.shape, dtype=V.dtype))):
        with pytest.raises(ValueError, match=r"functions of \(x, t\): solve by `evolve`"):
            make()
    bottom = Dirichlet(V, {"left": 0.0, "right": lambda x, t: t + 0 * x[..., 0]}) & Periodic(V, {"top": "bottom"})
    assert float(bottom.data(2.0).max()) == 2.0
    with pytest.raises(ValueError, match="are one by `Periodic`, but different values"):
        (held & Periodic(V, {"top": "bottom"})).data(2.0)
