"""Spaces of Raviart–Thomas and Nédélec elements: dofs that are moments, interpolation, traces, values at points."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fem import (
    Dirichlet,
    Discontinuous,
    FunctionSpace,
    Lagrange,
    MeanZero,
    Mesh,
    MixedSpace,
    Nedelec,
    Periodic,
    RaviartThomas,
    at_points,
    gradient,
    h1_error,
    integrate,
    l2_error,
    unit_cube,
    unit_square,
)
from fem.space.field import Function
from fem.support.arithmetic import sum_of
from tests.conformance import assert_traces_continuous
from tests.problems import hard_mesh, irregular, mixed_mesh, polynomial, taylor_rates

CELLS = ("triangle", "quadrilateral", "tetrahedron", "hexahedron")
FAMILIES = (RaviartThomas, Nedelec)


def field(dim: int, degree: int = 3) -> Callable[[Tensor], Tensor]:
    parts = [polynomial(dim, degree, seed=i) for i in range(dim)]
    return lambda x: torch.stack([p(x) for p in parts], -1)


def derivative(dim: int, family: type, degree: int = 3) -> Callable[[Tensor], Tensor]:
    """The divergence or the curl of `field`."""
    p = [polynomial(dim, degree, seed=i) for i in range(dim)]
    if family is RaviartThomas:
        return lambda x: sum_of(q.derivative(i)(x) for i, q in enumerate(p))
    if dim == 2:
        return lambda x: p[1].derivative(0)(x) - p[0].derivative(1)(x)
    return lambda x: torch.stack([p[i - 1].derivative(i - 2)(x) - p[i - 2].derivative(i - 1)(x) for i in range(3)], -1)


def zero(mesh: Mesh, family) -> Function:
    V = FunctionSpace(mesh, family)
    return V.function(torch.zeros(V.num_dofs, dtype=V.dtype))


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cell", CELLS)
def test_traces_are_continuous_across_randomly_oriented_neighbours(cell: str, family, degree: int) -> None:
    assert_traces_continuous(FunctionSpace(hard_mesh(cell, "scrambled"), family(degree)))


@pytest.mark.parametrize("family", FAMILIES)
def test_traces_are_continuous_on_mixed_and_curved_meshes(family) -> None:
    for mesh in (mixed_mesh(), irregular("mixed", 2), hard_mesh("triangle", "curved", 1), unit_cube(2, 2, 2)):
        assert_traces_continuous(FunctionSpace(mesh, family(2)))


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cell", CELLS)
def test_interpolation_commutes_with_div_and_curl(cell: str, family, degree: int) -> None:
    """∫ (div Π v − div v) q = 0 for q of degree k − 1, likewise curls in the plane; curl Π v = Π' curl v in space."""
    mesh = hard_mesh(cell, "scrambled")
    v, own = field(mesh.dim), derivative(mesh.dim, family)
    V = FunctionSpace(mesh, family(degree))
    u = V.interpolate(v)
    if (family, mesh.dim) == (Nedelec, 3):
        curl = FunctionSpace(mesh, RaviartThomas(degree)).interpolate(own)
        flux = FunctionSpace(mesh, RaviartThomas(degree)).function(curl)
        assert integrate(V, lambda x, u, c, w: (c - w).square().sum(-1), u=u, params=(flux,)) < 1e-22
        return
    Q = FunctionSpace(mesh, Discontinuous(degree - 1))
    q = torch.rand(Q.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    miss = integrate(
        V, lambda x, u, d, q: (d - own(x)) * q, u=u, params=(Q.function(q),), per_cell=True, degree=2 * degree + 6
    )
    assert miss.abs().max() < 1e-13


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cell", CELLS)
def test_functions_of_the_space_are_reproduced(cell: str, family) -> None:
    """Π u = u from the same space, from the other mesh, and of vectors of degree k − 1 from anything."""
    n = 2 if cell in ("triangle", "quadrilateral") else 1
    mesh = hard_mesh(cell, "scrambled", n)
    V, W = FunctionSpace(mesh, family(2)), FunctionSpace(mesh, family(1))
    u = torch.rand(W.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fine = V.interpolate(W.function(u))  # lower degrees are contained on every cell
    torch.testing.assert_close(W.interpolate(V.function(fine)), u, rtol=0, atol=1e-12)
    linear = field(mesh.dim, 1)
    whole = V.interpolate(linear)
    if cell in ("triangle", "tetrahedron"):
        assert l2_error(V, whole, linear) < 1e-12
    L = FunctionSpace(mesh, Lagrange(1), components=mesh.dim)
    torch.testing.assert_close(V.interpolate(L.function(L.interpolate(linear))), whole, rtol=0, atol=1e-12)
    other = FunctionSpace(hard_mesh(cell, "plain", n), family(2))
    given = other.function(other.interpolate(linear))
    if cell in ("triangle", "tetrahedron"):
        torch.testing.assert_close(V.interpolate(given), whole, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cell", CELLS)
def test_values_and_derivatives_at_points(cell: str, family) -> None:
    """`evaluate` agrees with the values at quadrature points, and its derivative with autograd in the points."""
    mesh = hard_mesh(cell, "curved" if cell == "quadrilateral" else "scrambled", 1)
    V = FunctionSpace(mesh, family(2))
    u = torch.rand(2, V.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (domain,) = V.quadrature.domains()
    geometry = V.quadrature.geometry(domain)
    x = geometry.points[:, 1].clone().requires_grad_()
    value, slope = V.evaluate(u, x, derivatives=1)
    at_points = V.quadrature.values(u, domain, geometry)
    torch.testing.assert_close(value, at_points[0][:, :, 1], rtol=0, atol=1e-11)
    torch.testing.assert_close(slope, at_points[1][:, :, 1], rtol=0, atol=1e-10)
    rows = [torch.autograd.grad(value[0, :, i].sum(), x, retain_graph=True)[0] for i in range(mesh.dim)]
    if family is RaviartThomas:
        wanted = sum(row[:, i] for i, row in enumerate(rows))
    elif mesh.dim == 2:
        wanted = rows[1][:, 0] - rows[0][:, 1]
    else:
        wanted = torch.stack([rows[i - 1][:, i - 2] - rows[i - 2][:, i - 1] for i in range(3)], 1)
    torch.testing.assert_close(slope[0], wanted, rtol=0, atol=1e-9)
    assert V.evaluate(u, x.detach() + 10, outside=0.0).abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cell", CELLS)
def test_prescribed_traces_are_those_of_the_interpolant(cell: str, family) -> None:
    mesh = hard_mesh(cell, "scrambled", 1)
    V, v = FunctionSpace(mesh, family(2)), field(mesh.dim)
    held = Dirichlet(V, {"boundary": v})
    wanted = torch.where(held.fixed, V.interpolate(v), 0)
    torch.testing.assert_close(held.data(), wanted, rtol=0, atol=1e-13)
    u = torch.rand(V.num_dofs, dtype=torch.float64)
    free = Dirichlet(V, {"boundary": 0.0}).apply(u)

    def trace(x: Tensor, u: Tensor, _: Tensor, n: Tensor) -> Tensor:
        along = (u * n).sum(-1)
        return along.square() if family is RaviartThomas else u.square().sum(-1) - along.square()

    assert integrate(V, trace, "boundary", u=free).abs() < 1e-24
    assert integrate(V, trace, "boundary", u=u) > 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_a_prescribed_flux_points_outwards(cell: str) -> None:
    """A number, a callable of x, and a tensor with gradient; on the sides given alone."""
    mesh = hard_mesh(cell, "scrambled", 1)
    V = FunctionSpace(mesh, RaviartThomas(2))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    held = Dirichlet(V, {"left": scale, "right": lambda x: 1 + x[:, 1]})
    u = held.apply(torch.zeros(V.num_dofs, dtype=torch.float64))
    flux = {tag: integrate(V, lambda x, u, d, n: (u * n).sum(-1), tag, u=u) for tag in ("left", "right", "top")}
    torch.testing.assert_close(flux["left"], scale)
    assert float(flux["right"].detach()) == pytest.approx(1.5)
    assert float(flux["top"].detach()) == pytest.approx(0, abs=1e-14)
    assert float(torch.autograd.grad(flux["left"], scale)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_differentiates_with_the_nodes(family) -> None:
    mesh = hard_mesh("triangle", "scrambled", 1)
    direction = torch.rand(mesh.nodes.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(nodes: Tensor) -> Tensor:
        V = FunctionSpace(mesh.with_nodes(nodes), family(2))
        v = lambda x: torch.stack([torch.sin(2 * x[:, 1]), x.prod(-1).exp()], -1)  # noqa: E731
        u = V.interpolate(v) + Dirichlet(V, {"boundary": v}).data()
        x = V.mesh.nodes.detach().mean(0, keepdim=True)
        inner = integrate(V, lambda x, u, d: u.square().sum(-1) * d.exp(), u=u)
        return inner + sum(t.square().sum() for t in V.evaluate(u, x + 0.01, derivatives=1))

    assert min(taylor_rates(total, mesh.nodes, direction)) > 1.9


def test_a_batch_is_its_items() -> None:
    V = FunctionSpace(hard_mesh("tetrahedron", "scrambled", 1), Nedelec(2))
    scales = torch.tensor([1.0, -2.0], dtype=torch.float64)
    several = V.interpolate(lambda x: scales[:, None, None] * field(3)(x))
    torch.testing.assert_close(several, scales[:, None] * V.interpolate(field(3)))
    held = Dirichlet(V, {"left": lambda x: scales[:, None, None] * field(3)(x)}).data()
    torch.testing.assert_close(held[1], -2 * held[0])


def test_single_precision_stays() -> None:
    V = FunctionSpace(unit_square(2, dtype=torch.float32), RaviartThomas(2))
    u = V.interpolate(lambda x: x)
    assert u.dtype == torch.float32
    assert abs(float(integrate(V, gradient(V.function(u)))) - 2) < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda V: Dirichlet(V, {"left": torch.tensor(1.0)}).data(), "has torch.float32 values; the mesh is"),
        (lambda V: Dirichlet(V, {"left": lambda x: x[:, :1]}).data(), "vectors of shape .* or the flux outwards"),
        (lambda V: Dirichlet(V, {"left": float("nan")}).data(), "'left' is not finite"),
        (
            lambda V: Dirichlet(V, {"inner": 1.0}).data(),
            "'inner' lie inside the domain, where a flux may go",
        ),
        (lambda V: Dirichlet(V, {("left", 0): 1.0}), "names a component"),
        (lambda V: V.dofs("nowhere"), "unknown facet tag 'nowhere'"),
        (lambda V: V.interpolate(1.0), r"a callable of x that returns vectors of shape"),
        (lambda V: V.interpolate(lambda x: x[:, 0]), r"vectors of shape \(\d+, 2\); got"),
        (
            lambda V: V.interpolate(zero(V.mesh, Lagrange(1))),
            "components",
        ),
        (lambda V: V.dof_coordinates, r"RaviartThomas\(degree=1\) has no nodes; `project"),
        (lambda V: MeanZero(V), "`MeanZero` holds scalars"),
        (lambda V: Periodic(V, {"left": "right"}), "`Periodic` pairs values at nodes"),
        (lambda V: h1_error(V, torch.zeros(V.num_dofs).double(), lambda x: x), "give it by `gradient=`"),
        (lambda V: Dirichlet(V, {at_points([0.0, 0.0]): 0.0}), "moments on facets, not values at points"),
        (
            lambda V: FunctionSpace(V.mesh, RaviartThomas(1), components=2),
            "has vectors as values; leave `components=2` out",
        ),
        (
            lambda V: FunctionSpace(V.mesh, Lagrange(1), 2).interpolate(V.function(torch.zeros(V.num_dofs).double())),
            "jumps between cells",
        ),
    ],
)
def test_wrong_calls_are_told_what_would_work(call, message: str) -> None:
    mesh = unit_square(2, cell="triangle")
    middle = (mesh.nodes[mesh.facets][..., 0] - 0.5).abs().amax(1) < 1e-9
    mesh = mesh.with_tags({"inner": torch.nonzero(middle).flatten()})
    with pytest.raises((TypeError, ValueError), match=message):
        call(FunctionSpace(mesh, RaviartThomas(1)))


def test_traces_of_nedelec_take_zero_or_vectors() -> None:
    V = FunctionSpace(unit_cube(1, 1, 1), Nedelec(1))
    assert Dirichlet(V, {"left": 0.0}).fixed.sum() == 4
    with pytest.raises(TypeError, match=r"vectors of shape \(\d+, 3\); got 1.0"):
        Dirichlet(V, {"left": 1.0})


def test_surfaces_in_space_are_refused() -> None:
    flat = unit_square(1, cell="triangle")
    nodes = torch.nn.functional.pad(flat.nodes, (0, 1))
    with pytest.raises(ValueError, match="as there are coordinates; got cells of 2 dimensions in 3-D"):
        FunctionSpace(Mesh(nodes, flat.cells), RaviartThomas(1))


def test_mixed_spaces_split_and_hold_one_field() -> None:
    mesh = unit_square(2)
    W = MixedSpace(FunctionSpace(mesh, RaviartThomas(1)), FunctionSpace(mesh, Discontinuous(0)))
    held = Dirichlet(W, {("boundary", 0): 1.0})
    flux, pressure = W.split(held.fixed)
    assert int(flux.sum()) == 8
    assert not bool(pressure.any())
    (value, _), (divergence, _) = W.evaluate(held.data(), mesh.nodes.mean(0, keepdim=True), derivatives=1)
    assert value.shape == (1, 2)
    assert divergence.shape == (1,)


def test_hanging_nodes_are_refused() -> None:
    nodes = torch.tensor([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1], [0, 2], [2, 2]], dtype=torch.float64)
    mesh = Mesh(nodes, [[0, 1, 4, 3], [1, 2, 5, 4], [3, 5, 7, 6]], "quadrilateral", hanging=True)
    with pytest.raises(ValueError, match="needs cells that share whole facets; take `Lagrange` where nodes hang"):
        FunctionSpace(mesh, RaviartThomas(1))
