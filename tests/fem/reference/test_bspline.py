"""B-splines: the recursion against SciPy and its own identities, derivatives in parameter, knots and weights, and the
tensor-product element."""

import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy.interpolate import BSpline as Reference
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fem.reference.bspline import (
    basis_change,
    basis_functions,
    check_knots,
    find_span,
    greville,
    uniform_knots,
)
from fem.reference.cells import hexahedron, interval, quadrilateral, triangle
from fem.reference.rational import quotient, rational
from fem.reference.spline_element import BSpline


def random_knots(degree: int, seed: int = 0, repeat: bool = True) -> Tensor:
    """Clamped knots on [-1, 2] with interior knots of multiplicity 1 and, with `repeat`, also 2 and `degree`."""
    generator = torch.Generator().manual_seed(seed)
    interior = 3 * torch.rand(4, dtype=torch.float64, generator=generator).sort()[0] - 1
    times = torch.tensor([1, max(degree, 1), min(2, max(degree, 1)), 1] if repeat else [1, 1, 1, 1])
    ends = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    return torch.cat([ends[:1].expand(degree + 1), interior.repeat_interleave(times), ends[1:].expand(degree + 1)])


def inside(knots: Tensor, num: int = 3) -> Tensor:
    """Points strictly inside every non-empty span."""
    corners = knots.detach().unique()
    share = torch.linspace(0.2, 0.7, num, dtype=torch.float64)
    return (corners[:-1, None] + share * corners.diff()[:, None]).flatten()


def dense(knots: Tensor, degree: int, u: Tensor, derivatives: int = 0) -> Tensor:
    """Every global function at u, "order q n"."""
    span = find_span(knots, degree, u)
    values = basis_functions(knots, degree, u, derivatives, span)
    columns = (span[:, None] - degree + torch.arange(degree + 1)).expand(values.shape)
    full = torch.zeros(*values.shape[:-1], len(knots) - degree - 1, dtype=values.dtype)
    return full.scatter(-1, columns, values)


@pytest.mark.parametrize("degree", range(6))
@pytest.mark.parametrize("seed", range(3))
def test_values_and_derivatives_agree_with_scipy(degree, seed):
    knots = random_knots(degree, seed)
    u = torch.cat([inside(knots, 7), knots[[0, -1]]])
    values = dense(knots, degree, u, derivatives=2)
    design = Reference.design_matrix(u.numpy(), knots.numpy(), degree).toarray()
    assert torch.allclose(values[0], torch.from_numpy(design), rtol=1e-13, atol=1e-13)
    identity = torch.eye(values.shape[-1], dtype=torch.float64)
    for order in (1, 2):
        reference = torch.from_numpy(Reference(knots.numpy(), identity.numpy(), degree)(u.numpy(), nu=order))
        scale = 1 + reference.abs().max()
        assert torch.allclose(values[order] / scale, reference / scale, rtol=1e-13, atol=1e-13)
    assert not values[degree + 1 :].any()


@pytest.mark.parametrize("degree", range(6))
def test_partition_of_unity_and_non_negativity(degree):
    knots = random_knots(degree)
    u = torch.cat([inside(knots), knots.unique()])
    values = basis_functions(knots, degree, u, derivatives=2)
    assert torch.allclose(values[0].sum(-1), torch.ones_like(u), rtol=0, atol=1e-15)
    assert (values[0] >= 0).all()
    for order in (1, 2):
        assert (values[order].sum(-1).abs() <= 1e-14 * (1 + values[order].abs().amax())).all()


@pytest.mark.parametrize("degree", range(6))
def test_clamped_ends_are_exact(degree):
    knots = random_knots(degree)
    values = dense(knots, degree, knots[[0, -1]])[0]
    expected = torch.zeros_like(values)
    expected[0, 0] = expected[1, -1] = 1
    assert torch.equal(values, expected)


@pytest.mark.parametrize("degree", range(1, 6))
def test_greville_abscissae_reproduce_the_parameter(degree):
    knots = random_knots(degree)
    u = inside(knots)
    values = dense(knots, degree, u, derivatives=2) @ greville(knots, degree)
    assert torch.allclose(values[0], u, rtol=0, atol=1e-14)
    assert torch.allclose(values[1], torch.ones_like(u), rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", range(1, 5))
def test_marsden_reproduces_every_power(degree):
    """Marsden's identity: (y - u)^p = Σ_i Π_{j=1..p} (y - t_{i+j}) N_i(u) for every y."""
    knots = random_knots(degree)
    u, y = inside(knots), torch.tensor([-0.7, 0.4, 1.3], dtype=torch.float64)
    dual = (y[:, None, None] - knots[1:-1].unfold(0, degree, 1)).prod(-1)
    assert torch.allclose(dense(knots, degree, u)[0] @ dual.T, (y - u[:, None]) ** degree, rtol=0, atol=1e-12)


def test_greville_of_degree_zero_are_midpoints():
    assert greville(torch.tensor([0.0, 1.0, 3.0]), 0).tolist() == [0.5, 2.0]


def test_spans_are_half_open_and_never_empty():
    knots = torch.tensor([0, 0, 0, 0.25, 0.5, 0.5, 0.75, 1, 1, 1], dtype=torch.float64)
    u = torch.tensor([0, 0.25, math.nextafter(0.25, 0), 0.5, 0.6, 1], dtype=torch.float64)
    assert find_span(knots, 2, u).tolist() == [2, 3, 2, 5, 5, 6]
    u = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    span = find_span(knots, 2, u)
    assert ((knots[span] <= u) & (u < knots[span + 1])).all()


def test_unclamped_knots_use_the_range_that_carries_all_functions():
    knots = torch.arange(8, dtype=torch.float64)
    assert find_span(knots, 2, torch.tensor([2.0, 5.0], dtype=torch.float64)).tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"\[2\.0, 5\.0\]; got 5\.5 at index \[1\]"):
        find_span(knots, 2, torch.tensor([3.0, 5.5], dtype=torch.float64))
    outside = torch.tensor([-9.0, 9.0], dtype=torch.float64)
    assert find_span(knots, 2, outside, check=False).tolist() == [2, 4]


@pytest.mark.parametrize("degree", range(1, 5))
def test_derivatives_are_those_of_autograd(degree):
    knots = random_knots(degree)
    u = inside(knots).requires_grad_()
    values = basis_functions(knots, degree, u, derivatives=2)
    for a in range(degree + 1):
        first = torch.autograd.grad(values[0, :, a].sum(), u, retain_graph=True)[0]
        second = torch.autograd.grad(values[1, :, a].sum(), u, retain_graph=True)[0] if degree > 1 else torch.zeros(1)
        for order, reference in ((1, first), (2, second)):
            scale = 1 + values[order].detach().abs().amax()
            assert torch.allclose(values[order, :, a] / scale, reference.to(u) / scale, rtol=0, atol=1e-14)


@pytest.mark.parametrize("degree", range(1, 5))
@pytest.mark.parametrize("repeat", [False, True])
def test_gradcheck_in_parameter_and_knots(degree, repeat):
    """Also at repeated knots: on a frozen span the functions are smooth in every knot."""
    interior = torch.tensor([1, 2] + [2] * (degree - 1) * repeat + [3.5], dtype=torch.float64)
    ends = torch.tensor([0, 5], dtype=torch.float64)
    knots = torch.cat([ends[:1].expand(degree + 1), interior, ends[1:].expand(degree + 1)])
    u = inside(knots, 1)
    span = find_span(knots, degree, u)

    def evaluate(knots, u):
        return basis_functions(knots, degree, u, 2, span)

    inputs = (knots.requires_grad_(), u.requires_grad_())
    assert gradcheck(evaluate, inputs)
    assert gradgradcheck(evaluate, inputs)


@pytest.mark.parametrize("degree", range(1, 5))
def test_gradcheck_of_rational_functions_in_everything(degree):
    knots = uniform_knots(degree + 2, degree)
    u = inside(knots, 2)
    span = find_span(knots, degree, u)
    weights = 0.5 + torch.rand(degree + 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def evaluate(knots, u, weights):
        local = weights[span[:, None] - degree + torch.arange(degree + 1)]
        return rational(basis_functions(knots, degree, u, 2, span), local)

    inputs = tuple(tensor.requires_grad_() for tensor in (knots, u, weights))
    assert gradcheck(evaluate, inputs)
    assert gradgradcheck(evaluate, inputs)


@pytest.mark.parametrize("degree", range(1, 5))
@pytest.mark.parametrize("repeat", [False, True])
def test_knot_gradient_is_the_closed_formula(degree, repeat):
    """∂C/∂t_j = Σ_{i=j-p}^{j} Ñ_i (P_{i-1} - P_i) / (t_{i+p} - t_i), Ñ on the knots with t_j inserted once more.

    (L. Piegl, W. Tiller, "Computing the derivative of NURBS with respect to a knot", CAGD 15 (1998) 925-934.)
    """
    knots = random_knots(degree, seed=1, repeat=repeat).requires_grad_()
    n = len(knots) - degree - 1
    control = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    u = inside(knots, 2)
    span = find_span(knots, degree, u)
    local = control[span[:, None] - degree + torch.arange(degree + 1)]
    curve = (basis_functions(knots, degree, u, 0, span)[0] * local).sum(-1)
    gradient = torch.stack([torch.autograd.grad(value, knots, retain_graph=True)[0] for value in curve])  # "q m"
    t = knots.detach()
    for j in range(degree + 1, n):
        inserted = torch.cat([t[: j + 1], t[j:]])
        functions = dense(inserted, degree, u)[0]
        i = torch.arange(j - degree, j + 1)
        closed = functions[:, i] @ ((control[i - 1] - control[i]) / (t[i + degree] - t[i]))
        assert torch.allclose(gradient[:, j], closed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_repeated_knots_give_finite_values_and_gradients(degree, times):
    times = min(times, degree + 1)  # degree + 1 is a jump
    interior = torch.full((times,), 0.5, dtype=torch.float64)
    knots = torch.cat([torch.zeros(degree + 1), interior, torch.ones(degree + 1)]).double().requires_grad_()
    check_knots(knots, degree)
    u = torch.tensor([0, 0.3, 0.5, 0.8, 1], dtype=torch.float64, requires_grad=True)
    values = basis_functions(knots, degree, u, derivatives=2)
    first = torch.autograd.grad(values.square().sum(), (knots, u), create_graph=True)
    second = torch.autograd.grad(sum((part.square().sum() for part in first), torch.zeros(())), (knots, u))
    assert all(part.isfinite().all() for part in (values, *first, *second))


def test_knots_per_item_equal_single_evaluations():
    knots = torch.stack([random_knots(3, seed) for seed in range(6)]).reshape(2, 3, -1)
    u = 3 * torch.rand(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    together = basis_functions(knots, 3, u, derivatives=2)
    shared = basis_functions(knots, 3, u[0, 0], derivatives=2)
    one = basis_functions(knots[0, 0], 3, u, derivatives=2)
    broadcast = basis_functions(knots[:, :1], 3, u, derivatives=2)
    for i in range(2):
        for j in range(3):
            assert torch.equal(together[i, j], basis_functions(knots[i, j], 3, u[i, j], derivatives=2))
            assert torch.equal(shared[i, j], basis_functions(knots[i, j], 3, u[0, 0], derivatives=2))
            assert torch.equal(one[i, j], basis_functions(knots[0, 0], 3, u[i, j], derivatives=2))
            assert torch.equal(broadcast[i, j], basis_functions(knots[i, 0], 3, u[i, j], derivatives=2))


def test_float32_stays_float32():
    knots = uniform_knots(6, 2, dtype=torch.float32)
    assert basis_functions(knots, 2, torch.rand(4)).dtype == torch.float32
    assert BSpline.uniform(3, 2, dtype=torch.float32).tabulate(torch.rand(4, 1)).value.dtype == torch.float32


def test_rational_functions_with_equal_weights_are_polynomial():
    knots = random_knots(3)
    values = basis_functions(knots, 3, inside(knots), derivatives=2)
    difference = rational(values, torch.full((1, 4), 2.0, dtype=torch.float64)) - values
    assert (difference.abs().amax((-1, -2)) <= 1e-14 * values.abs().amax((-1, -2))).all()


def test_rational_derivatives_are_those_of_autograd():
    knots = uniform_knots(3, 2)
    u = torch.linspace(0.05, 0.95, 9, dtype=torch.float64, requires_grad=True)
    values = rational(basis_functions(knots, 2, u, 2), torch.tensor([[1.0, 0.3, 2.0]], dtype=torch.float64))
    for a in range(3):
        for order in range(2):
            reference = torch.autograd.grad(values[order, :, a].sum(), u, retain_graph=True)[0]
            assert torch.allclose(values[order + 1, :, a], reference, rtol=1e-12, atol=1e-12)


def test_quarter_circle_is_exact():
    knots = uniform_knots(3, 2)
    control = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    weights = torch.tensor([[1, math.sqrt(0.5), 1]], dtype=torch.float64)
    values = rational(basis_functions(knots, 2, torch.linspace(0, 1, 101, dtype=torch.float64), 1), weights)
    point, velocity = values @ control
    assert torch.allclose(point.norm(dim=-1), torch.ones(101, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.allclose((point * velocity).sum(-1), torch.zeros(101, dtype=torch.float64), rtol=0, atol=1e-15)


def element(dim: int, weighted: bool) -> BSpline:
    """Different degrees and knots, some of them repeated, in every direction."""
    knots = [random_knots(2, 1), random_knots(3, 2, repeat=False)[:-1], uniform_knots(3, 1)][:dim]
    spline = BSpline(knots, (2, 3, 1)[:dim])
    if not weighted:
        return spline
    weights = 0.5 + torch.rand(spline.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return BSpline(knots, (2, 3, 1)[:dim], weights)


def points_in(dim: int, num: int = 3) -> Tensor:
    return torch.rand(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_element_shapes_and_partition_of_unity(dim, weighted):
    spline = element(dim, weighted)
    e, a = spline.num_cells, spline.num_basis
    table = spline.tabulate(points_in(dim, 4), derivatives=2)
    assert table.value.shape == (e, 4, a)
    assert table.grad.shape == (e, 4, a, dim)
    assert table.hess.shape == (e, 4, a, dim, dim)
    assert torch.allclose(table.value.sum(-1), torch.ones(e, 4, dtype=torch.float64), rtol=0, atol=1e-14)
    assert table.grad.sum(2).abs().max() < 1e-13
    assert table.hess.sum(2).abs().max() < 1e-12
    assert table.hess is not None
    assert torch.equal(table.hess, table.hess.mT) or torch.allclose(table.hess, table.hess.mT, rtol=0, atol=1e-14)
    assert spline.tabulate(points_in(dim), derivatives=0).grad is None
    assert spline.tabulate(points_in(dim)).hess is None
    assert spline.cell == (interval, quadrilateral, hexahedron)[dim - 1]
    assert spline.cell_dofs.shape == (e, a)
    assert spline.cell_dofs.unique().tolist() == list(range(spline.num_dofs))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_element_derivatives_are_those_of_autograd(dim, weighted):
    spline = element(dim, weighted)
    points = points_in(dim).requires_grad_()
    table = spline.tabulate(points, derivatives=2)
    for a in range(spline.num_basis):
        for cell in (0, spline.num_cells // 2, spline.num_cells - 1):
            grad = torch.autograd.grad(table.value[cell, :, a].sum(), points, retain_graph=True)[0]
            assert torch.allclose(table.grad[cell, :, a], grad, rtol=1e-12, atol=1e-12)
            for r in range(dim):
                hess = torch.autograd.grad(table.grad[cell, :, a, r].sum(), points, retain_graph=True)[0]
                assert torch.allclose(table.hess[cell, :, a, r], hess, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_element_is_the_tensor_product_in_parameter_space(dim):
    """Global functions at `parameters(points)`, x fastest, are products of the lines', and so are dof numbers."""
    spline = element(dim, weighted=False)
    points = points_in(dim)
    u = spline.parameters(points)
    table = spline.tabulate(points)
    full = torch.zeros(spline.num_cells, len(points), spline.num_dofs, dtype=torch.float64)
    full.scatter_(-1, spline.cell_dofs[:, None].expand(table.value.shape), table.value)
    lines = [
        dense(t, p, u[..., r].flatten())[0] for r, (t, p) in enumerate(zip(spline.knots, spline.degrees, strict=True))
    ]
    product = lines[0]
    for line in lines[1:]:
        product = (line[:, :, None] * product[:, None, :]).flatten(1)
    assert torch.allclose(full.flatten(0, 1), product, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_element_reproduces_its_parameters(dim):
    """Greville abscissae as coefficients give the map from the cell into parameter space, and its gradient."""
    spline = element(dim, weighted=False)
    points = points_in(dim).requires_grad_()
    table, u = spline.tabulate(points, derivatives=2), spline.parameters(points)
    grid = torch.stack(torch.meshgrid(*reversed(spline.greville()), indexing="ij")[::-1], -1).flatten(0, -2)
    local = grid[spline.cell_dofs]
    assert torch.allclose(torch.einsum("eqa,ead->eqd", table.value, local), u, rtol=0, atol=1e-13)
    jacobian = torch.einsum("eqar,ead->eqdr", table.grad, local)
    widths = torch.autograd.grad(u[:, :, 0].sum(), points)[0][0, 0]
    assert torch.allclose(jacobian[:, 0, 0, 0].sum(), widths, rtol=0, atol=1e-12)
    assert torch.einsum("eqars,ead->eqdrs", table.hess, local).abs().max() < 1e-12


@pytest.mark.parametrize("derivatives", [0, 1, 2])
def test_element_gradcheck_in_points_knots_and_weights(derivatives):
    knots = (uniform_knots(4, 2), uniform_knots(3, 1))
    weights = 0.5 + torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def evaluate(points, weights, interior_x, interior_y):
        x = torch.cat([knots[0][:3], interior_x, knots[0][4:]])
        y = torch.cat([knots[1][:2], interior_y, knots[1][3:]])
        table = BSpline((x, y), (2, 1), weights).tabulate(points, derivatives)
        return (table.value, table.grad, table.hess)[derivatives]

    inputs = [points_in(2, 2), weights, knots[0][3:4].clone(), knots[1][2:3].clone()]
    inputs = tuple(tensor.requires_grad_() for tensor in inputs)
    assert gradcheck(evaluate, inputs)
    assert gradgradcheck(evaluate, inputs, fast_mode=True)


@pytest.mark.parametrize("degree", range(1, 5))
def test_integrals_have_the_right_derivative_in_every_knot(degree):
    """∫ N_i = (t_{i+p+1} - t_i) / (p + 1), also in each copy of a repeated knot on its own."""
    knots = random_knots(degree).requires_grad_()
    nodes, weights = (torch.from_numpy(array) for array in leggauss(degree // 2 + 1))
    spline = BSpline(knots, degree)
    value = spline.tabulate((nodes[:, None] + 1) / 2, derivatives=0).value
    widths = spline.breakpoints[0].diff()
    coefficients = torch.rand(spline.num_dofs, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    integral = torch.einsum("e,q,eqa,ea->", widths, weights / 2, value, coefficients[spline.cell_dofs])
    exact = (coefficients * (knots[degree + 1 :] - knots[: -degree - 1])).sum() / (degree + 1)
    assert torch.allclose(integral, exact, rtol=1e-13)
    found, expected = (torch.autograd.grad(total, knots)[0] for total in (integral, exact))
    interior = slice(degree + 1, -degree - 1)  # copies of an end knot move the range instead
    assert torch.allclose(found[interior], expected[interior], rtol=1e-12, atol=1e-12)


def test_element_skips_empty_spans():
    spline = BSpline(torch.tensor([0, 0, 0, 0.25, 0.5, 0.5, 1, 1, 1], dtype=torch.float64), 2)
    assert spline.spans[0].tolist() == [2, 3, 5]
    assert spline.breakpoints[0].tolist() == [0, 0.25, 0.5, 1]
    assert spline.cell_dofs.tolist() == [[0, 1, 2], [1, 2, 3], [3, 4, 5]]
    ends = spline.parameters(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert ends[..., 0].tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 1]]


def test_uniform_element_counts_and_order():
    spline = BSpline.uniform((4, 3), (2, 1))
    assert spline.grid_shape == (4, 3)
    assert (spline.num_cells, spline.num_dofs, spline.num_basis) == (12, 24, 6)
    assert (spline.dof_shape, spline.degrees, spline.degree) == ((6, 4), (2, 1), 1)
    assert spline.cell_dofs[1 + 4 * 2].tolist() == [13, 14, 15, 19, 20, 21]
    corner = spline.parameters(torch.zeros(1, 2, dtype=torch.float64))[1 + 4 * 2, 0]
    assert corner.tolist() == pytest.approx([0.25, 2 / 3])
    assert spline.on(quadrilateral) is spline


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_constant_splines(dim):
    spline = BSpline.uniform((2,) * dim, 0)
    table = spline.tabulate(points_in(dim), derivatives=2)
    assert torch.equal(table.value, torch.ones(2**dim, 3, 1, dtype=torch.float64))
    assert not table.grad.any()
    assert spline.cell_dofs.flatten().tolist() == list(range(2**dim))


def test_weights_on_the_grid_have_x_last():
    shape = BSpline.uniform((2, 3, 1), 1).dof_shape
    weights = 1 + torch.arange(math.prod(shape), dtype=torch.float64)
    knots = BSpline.uniform((2, 3, 1), 1).knots
    flat, grid = BSpline(knots, 1, weights), BSpline(knots, 1, weights.reshape(shape[::-1]))
    torch.testing.assert_close(flat.weights, grid.weights, rtol=0, atol=0)
    torch.testing.assert_close(flat.tabulate(points_in(3)).grad, grid.tabulate(points_in(3)).grad, rtol=0, atol=0)


def knots_of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("knots", "degree", "message"),
    [
        (torch.tensor([0, 0, 1, 1]), 1, r"floating point; got torch.int64"),
        (knots_of(0, 0, 1), 1, r"at least 2 \(degree \+ 1\) = 4; got 3"),
        (knots_of(0, 1), -1, r"`degree` must be 0 or more; got -1"),
        (knots_of(0, 0, math.nan, 1, 1), 1, r"be finite; got \[nan\] from index \[2\]"),
        (knots_of(0, 0, 0.7, 0.2, 1, 1), 1, r"not decrease; got \[0.7, 0.2\] from index \[2\]"),
        (
            torch.stack([knots_of(0, 0, 1, 1), knots_of(0, 0, 1, 0)]),
            1,
            r"not decrease; got \[1.0, 0.0\] from index \[1, 2\]",
        ),
        (knots_of(0, 1, 1, 2), 1, r"range \[knots\[1\], knots\[-2\]\]; got \[1.0, 1.0\] from index \[1\]"),
        (knots_of(0, 0, 0.5, 0.5, 0.5, 1, 1), 1, r"at most 2 times; got \[0.5, 0.5, 0.5\] from index \[2\]"),
    ],
)
def test_bad_knots_are_named(knots, degree, message):
    with pytest.raises(ValueError, match=message):
        check_knots(knots, degree)


def test_bad_calls_are_named():
    knots = uniform_knots(4, 2)
    u = knots_of(0.5)
    with pytest.raises(ValueError, match=r"5 basis functions of degree 2 need 8 knots .* got 7"):
        check_knots(knots, 2, num_basis=5)
    with pytest.raises(ValueError, match=r"num_basis >= degree \+ 1; got num_basis=2, degree=2"):
        uniform_knots(2, 2)
    with pytest.raises(ValueError, match=r"\[0\.0, 1\.0\]; got nan at index \[0, 1\]"):
        find_span(knots, 2, torch.stack([u, u * math.nan], -1))
    with pytest.raises(TypeError, match=r"`u` must be torch.float64 like the rest; got torch.float32"):
        basis_functions(knots, 2, u.float(), span=torch.tensor([3]))
    with pytest.raises(ValueError, match="`derivatives` must be 0 or more; got -1"):
        basis_functions(knots, 2, u, derivatives=-1)
    with pytest.raises(TypeError, match=r"`weights` must be torch.float64 like the rest; got torch.float32"):
        rational(basis_functions(knots, 2, u), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"one to three orders .* got 4 and 4"):
        rational(basis_functions(knots, 2, u, 3), torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="got 1 and 0"):
        quotient([u], [])


def test_bad_elements_are_named():
    knots = uniform_knots(4, 2)
    ones = torch.ones(16, dtype=torch.float64)
    with pytest.raises(ValueError, match="one, two or three directions; got 4"):
        BSpline([knots] * 4, 2)
    with pytest.raises(ValueError, match=r"one per direction \(2\); got \(2, 2, 2\)"):
        BSpline([knots] * 2, (2, 2, 2))
    with pytest.raises(ValueError, match="decrease"):
        BSpline([knots, knots.flip(0)], 2)
    with pytest.raises(TypeError, match=r"`knots` must be torch.float64 like the rest; got torch.float32"):
        BSpline([knots, knots.float()], 2)
    with pytest.raises(ValueError, match=r"shape \(16,\) or \(4, 4\) \(x last\).* got \(15,\)"):
        BSpline([knots] * 2, 2, ones[1:])
    with pytest.raises(ValueError, match=r"`weights` must be positive; got 0\.0"):
        BSpline([knots] * 2, 2, ones * 0)
    with pytest.raises(TypeError, match=r"`weights` must be torch.float64 like the rest; got torch.float32"):
        BSpline([knots] * 2, 2, ones.float())
    with pytest.raises(ValueError, match=r"at least one span per direction; got \(0, 2\)"):
        BSpline.uniform((0, 2), 2)
    spline = BSpline([knots] * 2, 2)
    with pytest.raises(ValueError, match="lives on the quadrilateral; got the triangle"):
        spline.on(triangle)
    with pytest.raises(ValueError, match=r"dimension 2; got shape \(3, 1\)"):
        spline.tabulate(points_in(1))
    with pytest.raises(ValueError, match="must be 0, 1 or 2; got 3"):
        spline.tabulate(points_in(2), derivatives=3)
    with pytest.raises(TypeError, match=r"`points` must be torch.float64"):
        spline.tabulate(points_in(2).float())


@pytest.mark.parametrize(
    ("interior", "degree", "continuity"),
    [
        ([], 3, 3),
        ([0.4], 3, 2),
        ([0.2, 0.4, 0.4], 3, 1),
        ([0.4, 0.4], 2, 0),
        ([0.5, 0.5, 0.5], 2, -1),
        ([0.3, 0.6], 1, 0),
    ],
)
def test_continuity_is_the_degree_less_the_multiplicity(interior, degree, continuity):
    knots = torch.tensor([0.0] * (degree + 1) + interior + [1.0] * (degree + 1), dtype=torch.float64)
    assert BSpline(knots, degree).continuity == continuity
    assert BSpline([uniform_knots(8, 4), knots], (4, degree)).continuity == min(continuity, 3)


@pytest.mark.parametrize("raised", [0, 1, 2])
@pytest.mark.parametrize("degree", range(6))
def test_changes_of_basis_carry_the_functions_over(degree, raised):
    """N = M A for knots with old ones, new ones and a smaller range; the functions still sum to one."""
    old, q = random_knots(degree), degree + raised
    inner = old[degree + 1 : -degree - 1].unique()
    start, end = torch.lerp(old[0], inner[0], 0.5), torch.lerp(inner[-1], old[-1], 0.5)
    middle = torch.cat([inner.repeat_interleave(q + 1), torch.lerp(inner[:-1], inner[1:], 0.3)])
    new = torch.cat([start.expand(q + 1), middle, end.expand(q + 1)]).sort().values
    A = basis_change(old, degree, new, q)
    u = inside(new)
    assert torch.allclose(dense(new, q, u)[0] @ A, dense(old, degree, u)[0], rtol=0, atol=2e-14)
    assert torch.allclose(A.sum(-1), torch.ones(len(A), dtype=torch.float64), rtol=0, atol=1e-13)
    if raised == 0:
        everything = basis_change(
            old, degree, torch.cat([old, torch.tensor([0.01, 0.5], dtype=torch.float64)]).sort()[0]
        )
        assert everything.min() >= 0  # convex combinations


def test_changes_of_basis_are_differentiable_in_both_knot_vectors():
    old = torch.tensor([[0, 0, 0, 0.3, 0.6, 1, 1, 1], [0, 0, 0, 0.4, 0.5, 1, 1, 1]], dtype=torch.float64)
    new = torch.tensor([0.45, 0.55], dtype=torch.float64)

    def change(inner, new):
        knots = torch.cat([old[:, :3], inner, old[:, 5:]], -1)
        finer = torch.cat([knots, new.expand(2, -1)], -1).sort(-1).values
        return basis_change(knots, 2, finer)

    assert gradcheck(change, (old[:, 3:5].clone().requires_grad_(), new.requires_grad_()))


def test_changes_of_basis_refuse_what_loses_something():
    knots = uniform_knots(6, 2)
    with pytest.raises(ValueError, match=r"does not lower the degree; got new_degree=1 < degree=2"):
        basis_change(knots, 2, knots, 1)
    with pytest.raises(ValueError, match="must lie in that of `knots`"):
        basis_change(knots, 2, 2 * knots)
    with pytest.raises(ValueError, match=r"must hold the knot 0.25 at least 1 times"):
        basis_change(knots, 2, uniform_knots(4, 2))
