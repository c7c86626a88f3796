"""Spaces on patches: exact geometry, patch tests, orders of convergence, glued and periodic ones, shape derivatives."""

from collections.abc import Callable
from math import log2, pi, sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fem import Dirichlet, Energy, MeanZero, integrate, l2_error, plot, write_vtk
from nurbs import (
    GeometryError,
    Surface,
    Volume,
    annulus,
    arc,
    ball_patches,
    disk_patches,
    extrude,
    isogeometric_space,
    line,
    permute,
    refine,
    reverse,
    ruled,
    transform,
)
from nurbs.isogeometric.spline_space import SplinePoints, SplineSpace
from solvers import CG, Direct, FastDiagonalization, Newton, minimize
from tests.problems import laplace, poisson

F64 = torch.float64


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def rectangle(x: float = 0.0, y: float = 0.0, width: float = 1.0, height: float = 1.0) -> Surface:
    points = [[[x, y], [x, y + height]], [[x + width, y], [x + width, y + height]]]
    return Surface(torch.tensor(points, dtype=F64), degree=1)


def distorted() -> Surface:
    points = [[[0, 0], [-0.1, 0.6], [0.2, 1]], [[0.5, 0.2], [0.6, 0.4], [0.5, 1.2]], [[1, -0.1], [1.1, 0.5], [0.9, 1]]]
    return Surface(torch.tensor(points, dtype=F64), degree=2)


def one(x: Tensor) -> Tensor:
    return torch.ones_like(x[..., 0])


def linear(x: Tensor) -> Tensor:
    return 2 * x[..., 0] - 3 * x[..., 1] + 1


def ring(r: Tensor) -> Tensor:
    """−Δu = 1 between the circles of radius 1 and 2, where it vanishes."""
    return (1 - r**2) / 4 + 0.75 * r.log() / torch.tensor(2.0, dtype=F64).log()


def test_annulus() -> None:
    """Its integral and a value to round-off and 1e-10; quadrature sees the exact area."""
    V = isogeometric_space(annulus(1.0, 2.0, angle=pi / 2), degree=4, spans=(20, 16))
    assert float(integrate(V, one)) == pytest.approx(3 * pi / 4, rel=1e-14)
    u = minimize(Energy(V, poisson, Dirichlet(V, {"inner": 0.0, "outer": 0.0}))).value
    assert float(integrate(V, V.function(u))) == pytest.approx(0.791581065925269 / 4, abs=1e-12)
    points = torch.stack([tensor(1.5, 0.0), tensor(1.5 / sqrt(2), 1.5 / sqrt(2))])
    assert (V.evaluate(u, points) - 0.126221875541).abs().max() < 1e-10
    assert (V.at_parameters(u, tensor(0.5, 0.3)[None]) - 0.126221875541).abs() < 1e-10


def test_a_ring_closes_on_itself() -> None:
    V = isogeometric_space(annulus(1.0, 2.0), degree=4, spans=(20, 32))
    assert len(V.mesh.seams) == 1
    assert "start" not in V.mesh.sides
    u = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}))).value
    assert float(integrate(V, V.function(u))) == pytest.approx(0.791581065925269, abs=1e-11)
    angle = torch.linspace(0, 2 * pi, 9, dtype=F64)
    values = V.evaluate(u, 1.5 * torch.stack([angle.cos(), angle.sin()], -1))
    assert (values - 0.126221875541).abs().max() < 1e-9


def test_periodic_patches() -> None:
    """Smooth across the seam, and what is rotated stays what it is."""
    angle = torch.arange(12, dtype=F64) * pi / 6
    points = torch.stack([torch.stack([r * angle.cos(), r * angle.sin()], -1) for r in (1.0, 2.0)])
    V = isogeometric_space(Surface(points, degree=(1, 3), periodic=(False, True)), degree=3, spans=(6, 12))
    assert V.continuity == 2
    assert V.num_dofs == 9 * 12
    u = minimize(Energy(V, poisson, Dirichlet(V, {"boundary": 0.0}))).value
    turned = u.view(12, 9)
    assert (turned - turned[:1]).abs().max() < 1e-14
    assert (u - ring(tensor(1.5))).abs().min() < 0.02


def exact(x: Tensor) -> Tensor:
    return torch.sin(2 * x[..., 0]) * torch.exp(x[..., 1] / 2)


def load(x: Tensor) -> Tensor:
    return (4 - 0.25) * exact(x)


def order(space: Callable[[int], SplineSpace], n: int) -> float:
    errors = []
    for spans in (n, 2 * n):
        V = space(spans)
        energy = Energy(V, poisson, Dirichlet(V, {"boundary": exact}))
        errors.append(float(l2_error(V, minimize(energy, params=(load,)).value, exact)))
    return log2(errors[0] / errors[1])


@pytest.mark.parametrize("degree", range(1, 6))
def test_order_on_the_quarter_annulus(degree: int) -> None:
    patch = annulus(1.0, 2.0, angle=pi / 2)
    assert order(lambda n: isogeometric_space(patch, degree, n), 8 if degree < 4 else 6) > degree + 0.85


@pytest.mark.parametrize(
    "degree", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_order_on_the_disk(degree: int) -> None:
    assert order(lambda n: isogeometric_space(disk_patches(), degree, n), 4 if degree < 4 else 7) > degree + 0.85


def test_fewer_points_for_smooth_splines() -> None:
    """Degree − 1 of them per span are enough from degree 4 on, and refused where they are not."""
    patch = annulus(1.0, 2.0, angle=pi / 2)
    for degree in (4, 5):
        assert (
            order(lambda n, p=degree: isogeometric_space(patch, p, n, quadrature_degree=2 * p - 3), 6) > degree + 0.85
        )
    with pytest.raises(ValueError, match="Use 7 or more"):
        isogeometric_space(annulus(), 4, 8, quadrature_degree=5)  # less smooth between its quarters
    with pytest.raises(ValueError, match="Use 7 or more"):
        isogeometric_space(patch, 4, 1, quadrature_degree=5)
    with pytest.raises(ValueError, match="Use 5 or more"):
        isogeometric_space(patch, 3, 8, quadrature_degree=3)


def test_patch_test() -> None:
    """Linear functions are reproduced: by splines on polynomial patches, by rational functions on rational patches."""
    glued = [rectangle(), rectangle(1.0, 0.0), permute(reverse(rectangle(1.0, 1.0), 1), (1, 0))]
    cases = [
        isogeometric_space(distorted(), 2, 3),
        isogeometric_space(distorted(), (3, 4), (2, 3)),
        isogeometric_space(glued, 2, 3),
        isogeometric_space(annulus(1.0, 2.0, angle=pi / 2), 3, 2, rational=True, quadrature_degree=21),
    ]
    for V in cases:
        u = minimize(Energy(V, laplace, Dirichlet(V, {"boundary": linear}))).value
        assert l2_error(V, u, linear) < 1e-12
        assert l2_error(V, V.interpolate(linear), linear) < 1e-12


def test_vectors_and_means() -> None:
    V = isogeometric_space(disk_patches(), 2, 2, components=2)
    fixed = Dirichlet(V, {"outer": lambda x: torch.stack([linear(x), x[..., 1]], -1)})
    u = minimize(Energy(V, lambda x, u, g: 0.5 * g.square().sum((-1, -2)), fixed)).value
    points = torch.stack([tensor(0.1, 0.2), tensor(-0.5, 0.6)])
    assert (V.evaluate(u, points) - torch.stack([linear(points), points[:, 1]], -1)).abs().max() < 5e-3
    one_component = Dirichlet(V, {("outer", 1): linear})
    assert one_component.mask[:, 1].sum() == len(V.dofs("outer"))
    assert not one_component.mask[:, 0].any()
    W = isogeometric_space(disk_patches(), 2, 2)
    w = minimize(Energy(W, lambda x, u, g: laplace(x, u, g) - x[..., 0] * u, MeanZero(W))).value
    assert integrate(W, W.function(w)).abs() < 1e-13


def test_curves() -> None:
    """−u'' = 1 along a quarter of a circle, by its length."""
    V = isogeometric_space(arc(2.0, pi / 2), 4, 24)
    length = pi
    assert float(integrate(V, one)) == pytest.approx(length, rel=1e-14)
    u = minimize(Energy(V, poisson, Dirichlet(V, {"left": 0.0, "right": 0.0}))).value
    assert V.evaluate(u, tensor(sqrt(2), sqrt(2))[None]).item() == pytest.approx(length**2 / 8, rel=1e-8)


def test_volumes() -> None:
    plane = transform(annulus(1.0, 2.0, angle=pi / 2), torch.eye(3, 2))
    tube = extrude(plane, tensor(0.0, 0.0, 1.0))
    V = isogeometric_space(tube, 2, (4, 4, 2))
    assert float(integrate(V, one)) == pytest.approx(3 * pi / 4, rel=1e-9)
    u = minimize(Energy(V, poisson, Dirichlet(V, {"left": 0.0, "right": 0.0}))).value
    values = V.evaluate(u, torch.stack([tensor(1.5, 0.0, 0.2), tensor(0.0, 1.5, 0.9)]))
    assert (values - ring(tensor(1.5))).abs().max() < 1e-4


def test_the_ball() -> None:
    V = isogeometric_space(ball_patches(), 2, 2)
    assert len(V.mesh.seams) == 18
    assert float(integrate(V, one)) == pytest.approx(4 * pi / 3, rel=1e-7)
    u = minimize(Energy(V, poisson, Dirichlet(V, {"outer": 0.0}))).value
    assert l2_error(V, u, lambda x: (1 - x.square().sum(-1)) / 6) < 1e-3


def test_plates() -> None:
    """A square Kirchhoff plate, simply supported under a uniform load: its deflection in the middle (Timoshenko)."""

    def density(x: Tensor, u: Tensor, grad_u: Tensor, h: Tensor) -> Tensor:
        gauss = h[..., 0, 0] * h[..., 1, 1] - h[..., 0, 1] ** 2
        return 0.5 * (h[..., 0, 0] + h[..., 1, 1]).square() - 0.7 * gauss - u

    V = isogeometric_space(rectangle(), 4, 16)
    u = minimize(Energy(V, density, Dirichlet(V, {"boundary": 0.0}), derivatives=2)).value
    assert V.evaluate(u, tensor(0.5, 0.5)[None]).item() == pytest.approx(0.00406235266, rel=1e-6)
    W = isogeometric_space([rectangle(), rectangle(1.0)], 4, 2)
    with pytest.raises(ValueError, match="derivatives"):
        Energy(W, density, derivatives=2)


def stress(x: Tensor, tension: float) -> Tensor:
    """Around a hole of radius 1 in an infinite plate under tension along x (Kirsch)."""
    a, angle = 1 / x.square().sum(-1), torch.atan2(x[..., 1], x[..., 0])
    b, (c2, c4, s2, s4) = 1.5 * a**2, (f(k * angle) for f in (torch.cos, torch.sin) for k in (2, 4))
    xx, yy = 1 - a * (1.5 * c2 + c4) + b * c4, -a * (0.5 * c2 - c4) - b * c4
    xy = -a * (0.5 * s2 + s4) + b * s4
    return tension * torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)


def plate_with_hole() -> list[Surface]:
    """A quarter of it, side 4."""
    corners = [tensor(4.0, 0.0), tensor(4.0, 4.0), tensor(0.0, 4.0)]
    patches = []
    for k in range(2):
        patch = permute(ruled(arc(1.0, pi / 4, k * pi / 4), line(corners[k], corners[k + 1])), (1, 0))
        patches.append(patch.replace(sides=("hole", "outer", "first", "last")))
    return patches


def kirsch(spans: int) -> tuple[float, float]:
    """σ_xx(0, 1) and the strain energy in plane stress, E = 1e5, ν = 0.3, tension 10, degree 4."""
    E, nu, tension = 1e5, 0.3, 10.0

    def density(x: Tensor, u: Tensor, g: Tensor) -> Tensor:
        e = 0.5 * (g + g.mT)
        trace = e.diagonal(dim1=-2, dim2=-1).sum(-1)
        return 0.5 * E / (1 - nu**2) * ((1 - nu) * e.square().sum((-1, -2)) + nu * trace**2)

    V = isogeometric_space(plate_with_hole(), 4, spans, components=2)
    traction = {"outer": lambda x, u, normal: -((stress(x, tension) @ normal[..., None])[..., 0] * u).sum(-1)}
    energy = Energy(V, density, Dirichlet(V, {("0:first", 1): 0.0, ("1:last", 0): 0.0}), boundary=traction)
    u = minimize(energy).value
    x = tensor(0.0, 1.0)[None].requires_grad_()
    values = V.evaluate(u, x)[0]
    xx, yy = (torch.autograd.grad(v, x, retain_graph=True)[0][0, k] for k, v in enumerate(values))
    return float(E / (1 - nu**2) * (xx + nu * yy)), float(Energy(V, density)(u))


def test_plate_with_a_hole() -> None:
    found, energy = kirsch(12)
    assert found == pytest.approx(30, rel=1e-3)
    assert energy == pytest.approx(8.4449127114e-3, rel=3e-7)


@pytest.mark.slow
def test_plate_with_a_hole_to_many_digits() -> None:
    found, energy = kirsch(48)
    assert found == pytest.approx(30, abs=1e-4)
    assert energy == pytest.approx(8.4449127114e-3, rel=1e-7)


@pytest.mark.parametrize("which", ["points", "weights", "knots"])
@pytest.mark.parametrize("functional", ["integral", "compliance"])
def test_shape_derivatives(which: str, functional: str) -> None:
    """Taylor tests of first and second derivatives, with the basis held."""
    patch = refine(annulus(1.0, 2.0, angle=pi / 2), 2)
    V = isogeometric_space(patch, 3, 4)
    assert patch.weights is not None
    start = {"points": patch.control_points, "weights": patch.weights, "knots": patch.knots[1]}[which]
    direction = 0.05 * torch.randn(start.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    if which == "knots":
        direction[:3], direction[-3:] = 0, 0

    def functional_of(t: Tensor) -> Tensor:
        moved = {"control_points": t} if which == "points" else {"weights": t}
        W = V.with_patches(patch.replace(**(moved if which != "knots" else {"knots": (patch.knots[0], t)})))
        traction = {"outer": lambda x, u, normal: -(1 + x[..., 0]) * u} if functional == "compliance" else {}
        u = minimize(Energy(W, poisson, Dirichlet(W, {"inner": 0.0}), boundary=traction)).value
        if functional == "integral":
            return integrate(W, W.function(u))
        return -2 * Energy(W, poisson, boundary=traction)(u)

    x = start.clone().requires_grad_()
    value = functional_of(x)
    (g,) = torch.autograd.grad(value, x, create_graph=True)
    slope = (g * direction).sum()
    (h,) = torch.autograd.grad(slope, x)
    first, second = [], []
    for step in (0.1, 0.05):
        rest = functional_of(start + step * direction).detach() - value.detach() - step * slope.detach()
        first.append(abs(float(rest)))
        second.append(abs(float(rest - 0.5 * step**2 * (h * direction).sum())))
    assert log2(first[0] / first[1]) > 1.9
    assert log2(second[0] / second[1]) > 2.8


def test_files_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    V = isogeometric_space(disk_patches(), 3, 2)
    u = V.interpolate(lambda x: x[..., 0] ** 2)
    write_vtk(tmp_path / "disk.vtu", V, {"u": u})
    assert (tmp_path / "disk.vtu").stat().st_size > 0
    axes = plot(V, u)
    assert axes.get_xlim()[0] < -0.99


def test_other_types() -> None:
    V = isogeometric_space(disk_patches(), 2, 2).to(dtype=torch.float32)
    assert integrate(V, one).dtype == torch.float32
    assert float(integrate(V, one)) == pytest.approx(pi, rel=1e-5)


def test_points_on_no_patch() -> None:
    V = isogeometric_space(disk_patches(), 2, 2)
    u = V.interpolate(1.0)
    points = torch.stack([tensor(0.0, 0.0), tensor(1.5, 0.0)])
    with pytest.raises(ValueError, match=r"`points\[1\]` = \[1.5, 0.0\] lies on no patch"):
        V.evaluate(u, points)
    assert torch.equal(V.evaluate(u, points, outside=-7.0).round(), tensor(1.0, -7.0))


def shifted(patch: Surface) -> Surface:
    points = patch.control_points.clone()
    points[0, 0] = tensor(0.9, 0.9)
    return patch.replace(control_points=points)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: isogeometric_space(reverse(rectangle()), 2),
            GeometryError,
            "is folded: det J = -.* `nurbs.reverse` turns",
        ),
        (
            lambda: isogeometric_space(shifted(rectangle()), 2),
            GeometryError,
            r"folded: det J = -\S+ at u = \S+, v = \S+,",
        ),
        (lambda: isogeometric_space(rectangle(), 0), ValueError, "degree >= 1 .* Functions of degree 0 jump"),
        (
            lambda: isogeometric_space(rectangle(), 3, quadrature_degree=4),
            ValueError,
            "is too coarse for degree 3.* Use 5",
        ),
        (
            lambda: isogeometric_space([rectangle(), refine(rectangle(1.0), (1, 3))], 2, 2),
            GeometryError,
            "'right' of patch 0 and side 'left' of patch 1 coincide, but their splines do not: 2 and 2 .* 7 and 10",
        ),
        (
            lambda: isogeometric_space([rectangle(), line(tensor(0.0, 0.0), tensor(1.0, 0.0))], 2),
            ValueError,
            "one kind",
        ),
        (lambda: isogeometric_space(annulus(), 1, rational=True), ValueError, r"degree of at least \(1, 2\)"),
    ],
)
def test_errors(make: Callable[[], SplineSpace], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_sides_that_share_corners_alone() -> None:
    bent = torch.tensor([[[1, 0], [1.2, 0.5], [1, 1]], [[2, 0], [2, 0.5], [2, 1]]], dtype=F64)
    patches = [rectangle(), Surface(bent, degree=(1, 2))]
    with pytest.raises(
        GeometryError, match=r"'right' of patch 0 and side 'left' of patch 1 share their corners.* up to 0\.1 "
    ):
        isogeometric_space(patches, 2)
    assert isogeometric_space(patches, 2, glue=False).num_dofs == 2 * 9


def test_tags_name_sides() -> None:
    V = isogeometric_space([rectangle(), rectangle(1.0)], 2, 2)
    assert len(V.dofs("left")) == len(V.dofs("0:left")) == 4
    assert len(V.dofs("bottom")) == 7
    assert len(V.dofs("boundary")) == 18
    with pytest.raises(ValueError, match="unknown facet tag '1:left'"):
        V.dofs("1:left")
    assert isinstance(ball_patches()[1], Volume)


@pytest.mark.parametrize("derivatives", [1, 2])
def test_sum_factorisation(derivatives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values at points and sums over them as by tables, in slabs or at once; and each the other's transpose."""

    tube = extrude(transform(annulus(1.0, 2.0, angle=pi / 2), torch.eye(3, 2)), tensor(0.0, 0.0, 1.0))
    V = isogeometric_space(tube, (2, 3, 2), (2, 3, 5))
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, V.num_dofs, 1, dtype=F64, generator=generator)
    (whole,), plain = V.quadrature.domains(), super(SplinePoints, V.quadrature)
    values = V.quadrature.to_points(u, whole, derivatives)
    assert (values - plain.to_points(u, whole, derivatives)).abs().max() < 1e-12
    weights = torch.randn(values.shape, dtype=F64, generator=generator)
    sums = V.quadrature.from_points(weights, whole, derivatives)
    assert (sums - plain.from_points(weights, whole, derivatives)).abs().max() < 1e-11
    size = V.quadrature.from_points(weights, whole, derivatives, magnitude=True)
    assert (size - plain.from_points(weights, whole, derivatives, True)).abs().max() < 1e-11
    assert float((values * weights).sum()) == pytest.approx(float((sums * u).sum()), rel=1e-12)
    monkeypatch.setattr("fem.support.portions.MEMORY", 512 * 700)
    W = SplineSpace(V.mesh, None, V.quadrature_degree)
    slabs = W.quadrature.domains()
    assert len(slabs) == 5
    parts = [W.quadrature.to_points(u, slab, derivatives) for slab in slabs]
    assert (torch.cat(parts, 1) - values).abs().max() < 1e-13
    total = sum(
        W.quadrature.from_points(w, slab, derivatives)
        for w, slab in zip(weights.split([len(s.cells) for s in slabs if s.cells is not None], 1), slabs, strict=True)
    )
    assert (total - sums).abs().max() < 1e-12


@pytest.mark.parametrize("slab", [2**19, 500])
def test_iterations_without_a_matrix(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast diagonalisation makes iterations equally many for all degrees and spans; the solution is `Direct`'s."""
    from solvers.operators.system import System

    monkeypatch.setattr("fem.support.portions.MEMORY", 512 * slab)
    counts = []
    for degree, spans in ((1, 12), (3, 6), (4, 12)):
        V = isogeometric_space(distorted(), degree, spans)
        energy = Energy(
            V,
            lambda x, u, g: 0.5 * (1 + x[..., 0]) * g.square().sum(-1) + 0.5 * u**2 - u,
            Dirichlet(V, {"left": 0.0, "top": 0.0}),
        )
        method = CG(preconditioner=FastDiagonalization())
        u = minimize(energy, method=Newton(linear=method)).value
        assert (u - minimize(energy, method=Newton(linear=Direct())).value).abs().max() < 1e-9
        form = energy.discrete_form()
        system = System(form, torch.zeros(V.shape, dtype=F64))
        assert system.tensor is not None
        H = energy.hessian(torch.zeros(V.shape, dtype=F64)).to_dense()
        v = torch.randn(V.num_dofs, dtype=F64, generator=torch.Generator().manual_seed(1))
        assert (system.apply(v) - system.project(H @ system.project(v))).abs().max() < 1e-11
        assert (system.diagonal - H.diagonal()).abs().max() < 1e-11
        prepared = method.prepare(system)
        prepared.solve(system.project(v))
        counts.append(int(prepared.iterations))
    assert max(counts) < 40
    assert max(counts) < 2 * min(counts)


def test_default_quadrature_sees_patches_of_a_higher_degree():
    """One span of degree 1 on a cubic patch: its area is a polynomial, which the energy integrates exactly."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 4, dtype=F64)] * 2, indexing="ij"), -1)
    patch = Surface(grid + 0.2 * torch.sin(2 * grid.flip(-1)), degree=3)
    V, W = isogeometric_space(patch, 1), isogeometric_space(patch, 1, quadrature_degree=25)
    assert (V.quadrature_degree, isogeometric_space(patch, 4).quadrature_degree) == (7, 9)
    area = Energy(V, lambda x, u, grad_u: 1 + 0 * u)(torch.zeros(V.num_dofs, dtype=F64))
    torch.testing.assert_close(area, integrate(W, one, degree=25), rtol=1e-13, atol=0)
    torch.testing.assert_close(integrate(V, one), area, rtol=1e-13, atol=0)
