"""Terms on facets inside the domain: both values at every point, however cells are oriented, and all derivatives."""

from collections.abc import Callable
from math import log2
from typing import Any

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
    WeakForm,
    average,
    by_cell_tag,
    gradient,
    integrate,
    jump,
    l2_error,
    unit_interval,
    unit_square,
)
from solvers import CG, AlgebraicMultigrid, Direct, FastDiagonalization, Multigrid, certify, minimize, solve
from tests.problems import (
    bend,
    diffusion,
    disk,
    distorted,
    hard_mesh,
    irregular,
    laplace,
    mixed_mesh,
    poisson,
    scrambled,
    sine,
    sine_load,
    small_mesh,
)

MESHES = {
    "interval": lambda: scrambled(unit_interval(5)),
    "triangles": lambda: hard_mesh("triangle", "scrambled"),
    "quadrilaterals": lambda: hard_mesh("quadrilateral", "scrambled"),
    "tetrahedra": lambda: hard_mesh("tetrahedron", "scrambled"),
    "hexahedra": lambda: hard_mesh("hexahedron", "scrambled"),
    "mixed": mixed_mesh,
    "curved": lambda: disk(2),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.3


def nothing(x: Tensor, u: Any, grad_u: Any, *params: Any) -> Tensor:
    return 0 * x[..., 0]


def halves(n: int = 4, cell: str = "triangle", seed: int = 0) -> Mesh:
    """The unit square with cells "a" on the left and "b" on the right of the facets "middle"."""
    mesh = scrambled(unit_square(n, cell=cell), seed)
    sides = {"a": lambda x: x[..., 0] < 0.5, "b": lambda x: x[..., 0] > 0.5}
    ends = mesh.nodes[mesh.facets]
    middle = torch.nonzero(((ends[..., 0] - 0.5).abs() < 1e-12).all(1)).flatten()
    return mesh.with_tags({"middle": middle}, sides)


# -- what the density sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_continuous_functions_do_not_jump(name: str, degree: int) -> None:
    """Both sides see the same points, however they count the vertices of their facet."""
    V = FunctionSpace(MESHES[name](), Lagrange(degree))
    u = random(*V.shape)
    energy = Energy(V, nothing, interior={"": lambda x, u, grad_u, normal, size: jump(u).square()})
    assert float(energy(u)) < 1e-26
    tangential = lambda g, n: g - (g * n).sum(-1, keepdim=True) * n  # noqa: E731
    along = lambda x, u, grad_u, normal, size: tangential(jump(grad_u), normal).square().sum(-1)  # noqa: E731
    assert float(Energy(V, nothing, interior={"": along})(u)) < 1e-22


@pytest.mark.parametrize("name", MESHES)
def test_jumps_of_cell_values(name: str) -> None:
    """The same of a field and of a parameter; the divergence theorem, as normals point from minus to plus."""
    mesh = MESHES[name]()
    V = FunctionSpace(mesh, Discontinuous(0), quadrature_degree=8)
    W = FunctionSpace(mesh, Lagrange(1), quadrature_degree=8)
    k = random(mesh.num_cells)
    squares = Energy(V, nothing, interior={"": lambda x, u, grad_u, normal, size: jump(u).square()})
    by_parameter = Energy(W, nothing, interior={"": lambda x, u, grad_u, normal, size, k: jump(k).square()})
    zero = W.interpolate(0.0)
    torch.testing.assert_close(squares(k), by_parameter(zero, W.per_cell(k)))
    # Σ ∫ (k₊ − k₋) n·x + Σ_boundary ∫ −k n·x = −Σ_cells k ∫ div x, cell by cell.
    flux = Energy(
        V,
        lambda x, u, grad_u: mesh.dim * u,
        boundary={"boundary": lambda x, u, normal: -u * (x * normal).sum(-1)},
        interior={"": lambda x, u, grad_u, normal, size: jump(u) * (x * normal).sum(-1)},
    )
    assert abs(float(flux(k))) < 1e-12 * mesh.num_cells


def test_sizes_and_sides() -> None:
    """The diameter of a facet; minus is the lower-numbered cell, or the one with the cell tag that is named."""
    mesh = halves()
    V = FunctionSpace(mesh, Discontinuous(0))
    value = lambda term, tag: float(Energy(V, nothing, interior={tag: term})(V.interpolate(0.0)))  # noqa: E731
    assert value(lambda x, u, grad_u, normal, size: size + 0 * x[..., 0], "middle") == pytest.approx(4 * 0.25**2)
    assert value(lambda x, u, grad_u, normal, size: normal[..., 0], ("middle", "a")) == pytest.approx(1)
    assert value(lambda x, u, grad_u, normal, size: normal[..., 0], ("middle", "b")) == pytest.approx(-1)
    line = FunctionSpace(unit_interval(4), Discontinuous(0))
    term = lambda x, u, grad_u, normal, size: size + 0 * x[..., 0]  # noqa: E731
    assert float(Energy(line, nothing, interior={"": term})(line.interpolate(0.0))) == pytest.approx(3 / 4)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("seed", range(3))
def test_flux_through_an_interface(side: str, seed: int) -> None:
    """Two layers of conductivity 1 and 10 between 0 and 1: κ ∂u/∂n = ±20/11 from either side, for any numbering."""
    mesh = halves(seed=seed).with_tags({"left": lambda x: x[..., 0] == 0, "right": lambda x: x[..., 0] == 1})
    V, layers = FunctionSpace(mesh, Lagrange(1)), by_cell_tag({"a": 1.0, "b": 10.0})
    ends = Dirichlet(V, {"left": 0.0, "right": 1.0})
    u = minimize(Energy(V, diffusion, ends), (layers,)).value
    flux = lambda x, u, grad_u, normal, size, k: k.minus * (grad_u.minus * normal).sum(-1)  # noqa: E731
    found = float(Energy(V, nothing, interior={("middle", side): flux})(u, layers))
    assert found == pytest.approx(20 / 11 if side == "a" else -20 / 11, abs=1e-11)


def test_kinks_of_gradients_are_parameters_too() -> None:
    """The gradient of a continuous field has two values at a facet, the field itself has one."""
    V = FunctionSpace(halves(), Lagrange(1))
    u = V.interpolate(lambda x: (x[:, 0] - 0.5).abs())
    term = lambda x, v, grad_v, normal, size, w, slope: (jump(slope) * normal).sum(-1) + 0 * w  # noqa: E731
    energy = Energy(V, nothing, interior={"middle": term})
    assert float(energy(u, V.function(u), gradient(V.function(u)))) == pytest.approx(2)


# -- derivatives -------------------------------------------------------------------------------------------------------


def penalised(x: Tensor, u: Any, grad_u: Any, normal: Tensor, size: Tensor, k: Any) -> Tensor:
    """Something nonlinear in everything."""
    flux = (average(grad_u) * normal).sum(-1)
    return jump(u).square() * average(k) / size + flux.sin() * jump(u) + (u.plus * u.minus).square() * k.minus


@pytest.mark.parametrize("name", ["interval", "triangles", "mixed", "curved", "tetrahedra"])
def test_derivatives(name: str) -> None:
    """Residual, Hessian and its products against automatic differentiation of the energy, batched."""
    mesh = MESHES[name]()
    V = FunctionSpace(mesh, Discontinuous(1))
    energy = Energy(V, lambda x, u, grad_u, k: poisson(x, u, grad_u), interior={"": penalised})
    k, u, v = V.per_cell(1 + random(2, mesh.num_cells)), random(2, V.num_dofs).requires_grad_(), random(2, V.num_dofs)
    slope = torch.autograd.grad(energy(u, k).sum(), u, create_graph=True)[0]
    torch.testing.assert_close(energy.residual(u, k), slope)
    product = torch.autograd.grad((slope * v).sum(), u)[0]
    torch.testing.assert_close(energy.hessian_product(u, v, k), product)
    matrix = energy.hessian(u.detach(), k)
    torch.testing.assert_close(torch.stack([m @ w for m, w in zip(matrix, v, strict=True)]), product)


def test_derivatives_in_parameters_and_nodes() -> None:
    mesh = distorted(mixed_mesh())
    nodes = mesh.nodes.clone().requires_grad_()

    def value(nodes: Tensor, u: Tensor, k: Tensor) -> Tensor:
        V = FunctionSpace(mesh.with_nodes(nodes), Discontinuous(1))
        return Energy(V, lambda x, u, grad_u, k: laplace(x, u, grad_u), interior={"": penalised})(u, V.per_cell(k))

    V = FunctionSpace(mesh, Discontinuous(1))
    u, k = random(V.num_dofs).requires_grad_(), (1 + random(mesh.num_cells)).requires_grad_()
    assert torch.autograd.gradcheck(value, (nodes, u, k), atol=1e-6, fast_mode=True)


def test_weak_forms_and_mixed_spaces() -> None:
    """Upwind transport of a linear function is exact; on mixed spaces every field has its own two sides."""
    mesh = unit_square(4, cell="triangle")
    V = FunctionSpace(mesh, Discontinuous(1))
    b = torch.tensor([1.0, 0.5], dtype=torch.float64)
    exact = lambda x: 1 + x[..., 0] - 2 * x[..., 1]  # noqa: E731
    upwind = lambda u, n: torch.where((b * n).sum(-1) > 0, u.minus, u.plus)  # noqa: E731
    form = WeakForm(
        V,
        lambda x, u, grad_u, v, grad_v: -u * (b * grad_v).sum(-1) - v * (1 - 1.0),
        boundary={"boundary": lambda x, u, v, n: (b * n).sum(-1) * torch.where((b * n).sum(-1) > 0, u, exact(x)) * v},
        interior={"": lambda x, u, grad_u, v, grad_v, n, size: -(b * n).sum(-1) * upwind(u, n) * jump(v)},
    )
    torch.testing.assert_close(solve(form).value, V.interpolate(exact))
    W = MixedSpace(V, FunctionSpace(mesh, Lagrange(1)))
    both = lambda x, u, grad_u, n, size: jump(u[0]).square() + 3 * jump(u[1]).square() + average(u[1])  # noqa: E731
    w = W.join([random(V.num_dofs), random(W.fields[1].num_dofs)])
    single = Energy(V, nothing, interior={"": lambda x, u, grad_u, n, size: jump(u).square()})(W.split(w)[0])
    means = Energy(W.fields[1], nothing, interior={"": lambda x, u, grad_u, n, size: u.plus})(W.split(w)[1])
    torch.testing.assert_close(Energy(W, nothing, interior={"": both})(w), single + means)


# -- solves ------------------------------------------------------------------------------------------------------------


def interior_penalty(V: FunctionSpace, exact: Callable[[Tensor], Tensor] | None = None) -> Energy:
    """Symmetric interior penalty for −Δu = f with u = exact around, or 0."""
    weight, size = 5 * (V.degree + 1) ** 2, integrate(V, 1.0, per_cell=True) ** (1 / V.mesh.dim)

    def outer(x: Tensor, u: Tensor, grad_u: Tensor, normal: Tensor, *params: Any) -> Tensor:
        gap = u if exact is None else u - exact(x)
        return -(grad_u * normal).sum(-1) * gap + weight / float(size.min()) * gap.square()

    inner = lambda x, u, grad_u, normal, size, *f: (  # noqa: E731
        (average(grad_u) * normal).sum(-1) * jump(u) + weight / size * jump(u).square()
    )
    return Energy(V, poisson, boundary={"boundary": outer}, derivatives=(1, 1), interior={"": inner})


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("cell", ["triangle", "mixed"])
def test_interior_penalty_converges(cell: str, degree: int) -> None:
    """p + 1 in L2 on distorted cells (Arnold, An interior penalty finite element method, 1982)."""
    errors = []
    for n in (6, 12):
        V = FunctionSpace(irregular(cell, n), Discontinuous(degree))
        errors.append(float(l2_error(V, minimize(interior_penalty(V), (sine_load,)).value, sine)))
    assert log2(errors[0] / errors[1]) > degree + 0.8


def wave(x: Tensor) -> Tensor:
    """Not zero at the boundary; −Δ of it is `wave_load`."""
    return torch.cos(2 * x[..., 0] + 1) * torch.exp(x[..., 1:].sum(-1))


def wave_load(x: Tensor) -> Tensor:
    return (4 - (x.shape[-1] - 1)) * wave(x)


RATES: dict[str, tuple[Any, tuple[int, int]]] = {
    "quadrilaterals": (lambda n: scrambled(irregular("quadrilateral", n)), (4, 8)),
    "curved": (lambda n: disk(n), (2, 4)),
    "curved quadrilaterals": (lambda n: hard_mesh("quadrilateral", "curved", n), (3, 6)),
    "tetrahedra": (lambda n: hard_mesh("tetrahedron", "distorted", n), (2, 4)),
    "hexahedra": (lambda n: hard_mesh("hexahedron", "distorted", n), (2, 4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", RATES)
def test_interior_penalty_converges_on_every_kind_of_cell(name: str, degree: int) -> None:
    make, counts = RATES[name]
    errors = []
    for n in counts:
        V = FunctionSpace(make(n), Discontinuous(degree))
        errors.append(float(l2_error(V, minimize(interior_penalty(V, wave), (wave_load,)).value, wave)))
    assert log2(errors[0] / errors[1]) > degree + 0.7


def test_linear_methods_know_neighbours() -> None:
    V = FunctionSpace(unit_square(8), Discontinuous(2))
    energy = interior_penalty(V)
    u = minimize(energy).value
    for method in (Direct(), CG(), AlgebraicMultigrid()):
        torch.testing.assert_close(minimize(energy, method=method).value, u, rtol=0, atol=1e-9)
    on_nodes = Energy(
        W := FunctionSpace(unit_square(48), Lagrange(1)),
        poisson,
        Dirichlet(W, {"boundary": 0.0}),
        interior={"": lambda x, u, grad_u, n, size: 0.01 * size * jump(grad_u).square().sum(-1)},
    )
    solution = minimize(on_nodes)
    assert "Direct" in solution.method
    for method in (Multigrid(), FastDiagonalization()):
        with pytest.raises(ValueError, match="terms on interior facets"):
            minimize(on_nodes, method=method)
    with pytest.raises(ValueError, match="certificates know no terms on interior facets"):
        certify(on_nodes, solution.value)


# -- wrong calls -------------------------------------------------------------------------------------------------------


SIDES = [
    "grid",
    "mixed",
    "curved",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("triangles", "tetrahedra", "hexahedra")),
]


def two_parts(name: str, seed: int) -> Mesh:
    """The unit box, maybe bent, with cells "a" and "b" on either side of the facets "middle" at x = ½, in any order."""
    if name == "mixed":
        mesh = mixed_mesh()
    else:
        mesh = small_mesh({"curved": "quadrilateral", "grid": "quadrilateral"}.get(name, CELL.get(name, name)))
    low = mesh.nodes[mesh.facets.clamp(min=0)][..., 0]
    middle = (((low - 0.5).abs() < 1e-9) | (mesh.facets < 0)).all(1)
    mesh = mesh.with_tags({"middle": middle}, {"a": lambda x: x[..., 0] < 0.5, "b": lambda x: x[..., 0] > 0.5})
    mesh = mesh.curved(3, bend) if name == "curved" else mesh
    return mesh if name == "grid" and seed == 0 else scrambled(mesh, seed)


CELL = {"triangles": "triangle", "tetrahedra": "tetrahedron", "hexahedra": "hexahedron"}


@pytest.mark.parametrize("name", SIDES)
def test_tagged_facets_are_seen_from_the_side_named(name: str) -> None:
    """∫ κ ∂u/∂n + n u of one side, by boundary and by interior terms, is that of any order of the cells; normals of one
    are minus those of the other, and the divergence theorem says which way they point."""
    found, u = {}, lambda x: x[:, 0] + x[:, 1:].sum(-1) * x[:, 0]
    boundary = lambda x, u, grad_u, normal, k: k * (grad_u * normal).sum(-1) + normal[..., 0] * u  # noqa: E731
    interior = lambda x, u, grad_u, n, size, k: k.minus * (grad_u.minus * n).sum(-1) + n[..., 0] * u.minus  # noqa: E731
    for seed in range(2):
        mesh = two_parts(name, seed)
        V, k = FunctionSpace(mesh, Lagrange(2)), by_cell_tag({"a": 1.0, "b": 10.0})
        w = V.interpolate(u)
        for side in ("a", "b"):
            one = Energy(V, nothing, boundary={("middle", side): boundary}, derivatives=(1, 1))(w, k)
            two = Energy(V, nothing, interior={("middle", side): interior})(w, k)
            torch.testing.assert_close(one, two)
            torch.testing.assert_close(one, found.setdefault(side, one), rtol=1e-11, atol=1e-12)
        normals = [integrate(V, lambda x, u, g, n: n, ("middle", s), u=w) for s in ("a", "b")]
        torch.testing.assert_close(normals[0], -normals[1])
        # Out of "a" flows what all its sides together enclose: ∫_a div x dx = ∮ x·n.
        inside = lambda x, u, g, k: mesh.dim * k  # noqa: B023, E731
        around = lambda x, u, n, k: k * (x * n).sum(-1)  # noqa: E731
        only = by_cell_tag({"a": 1.0, "b": 0.0})
        volume = Energy(V, inside)(w, only)
        flux = Energy(V, nothing, boundary={"boundary": around, ("middle", "a"): around})(w, only)
        torch.testing.assert_close(flux, volume, rtol=1e-10, atol=0)


def test_facets_without_exactly_two_cells_are_told() -> None:
    """What could be left out in silence: a part of a tag that lies on the boundary, edges where a surface branches."""
    mesh = halves()
    some = torch.cat([mesh.facets_tagged("middle"), mesh.topology.boundary[:2]])
    V = FunctionSpace(mesh.with_tags({"some": some}), Discontinuous(0))
    with pytest.raises(ValueError, match=r"2 of 6 facets with the tag 'some' lie on the boundary and have one side"):
        Energy(V, nothing, interior={"some": nothing})
    nodes = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    branching = Mesh(nodes, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    with pytest.raises(ValueError, match="1 facets have more than two cells, where a surface branches"):
        Energy(FunctionSpace(branching, Discontinuous(0)), nothing, interior={"": nothing})


def test_wrong_calls() -> None:
    V = FunctionSpace(halves(), Discontinuous(1))
    u = random(V.num_dofs)

    def value(term: Any, tag: Any = "") -> Tensor:
        return Energy(V, nothing, interior={tag: term})(u)

    with pytest.raises(TypeError, match=r"two values at a facet: compute with `\.minus`"):
        value(lambda x, u, grad_u, n, size: u * u)
    for function in (torch.sin, lambda u: torch.stack([u, u]).sum(0), lambda u: torch.ones(2) * u):
        with pytest.raises(TypeError, match=r"two values at a facet: compute with `\.minus`"):
            value(lambda x, u, grad_u, n, size: function(u))  # noqa: B023
    for function in (jump, average):
        with pytest.raises(
            TypeError, match=rf"`{function.__name__}` is of what has two values .* has one\. Take it as"
        ):
            value(lambda x, u, grad_u, n, size: function(size))  # noqa: B023
    with pytest.raises(AttributeError, match=r"no `\.square`"):
        value(lambda x, u, grad_u, n, size: u.square())
    with pytest.raises(ValueError, match=r"interior density is no expression at a point"):
        value(lambda x, u, grad_u, n, size: jump(grad_u).square().sum() + 0 * x[..., 0])
    with pytest.raises(TypeError, match=r"it must take \(x, u, grad_u, normal, size\)"):
        value(lambda x, u: jump(u))
    with pytest.raises(ValueError, match="unknown facet tag 'centre'"):
        value(lambda x, u, grad_u, n, size: jump(u), "centre")
    left = FunctionSpace(V.mesh.with_tags({"left": lambda x: x[..., 0] == 0}), Lagrange(1))
    with pytest.raises(ValueError, match="no facet with the tag 'left' lies inside the domain"):
        Energy(left, nothing, interior={"left": nothing})
    with pytest.raises(ValueError, match="no facet lies inside the domain"):
        Energy(FunctionSpace(unit_square(1), Lagrange(1)), nothing, interior={"": nothing})
