"""Quadrature rules: exactness, sharpness, positive weights, interior points, few points."""

from inspect import unwrap
from itertools import product
from math import comb, factorial, prod

import pytest
import torch

from fem.reference.cells import CELLS, Cell, point
from fem.reference.quadrature import Quadrature, quadrature

cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def exponents(cell: Cell, degree: int) -> torch.Tensor:
    """All monomials "m r" that a rule of this degree promises on the cell."""
    every = product(range(degree + 1), repeat=cell.dim)
    return torch.tensor([powers for powers in every if not cell.is_simplex or sum(powers) <= degree])


def exact_integrals(cell: Cell, powers: torch.Tensor) -> torch.Tensor:
    """∫ x^i y^j z^k: i! j! k! / (i + j + k + r)! on simplices, 1 / ((i + 1)(j + 1)(k + 1)) on products of intervals."""
    return torch.tensor(
        [
            prod(map(factorial, i)) / factorial(sum(i) + cell.dim) if cell.is_simplex else 1 / prod(j + 1 for j in i)
            for i in powers.tolist()
        ],
        dtype=torch.float64,
    )


def relative_errors(rule: Quadrature, cell: Cell, powers: torch.Tensor) -> torch.Tensor:
    values = torch.stack([(rule.points**i).prod(-1) for i in powers])
    return (values @ rule.weights / exact_integrals(cell, powers) - 1).abs()


@cells
@pytest.mark.parametrize("degree", range(13))
def test_every_monomial_up_to_the_degree_is_integrated_exactly(cell: Cell, degree: int) -> None:
    assert relative_errors(quadrature(cell, degree), cell, exponents(cell, degree)).max() < 3e-14


@cells
@pytest.mark.parametrize("degree", [17, 30])
def test_high_degrees_are_exact(cell: Cell, degree: int) -> None:
    powers = exponents(cell, degree)
    sample = powers[torch.randperm(len(powers), generator=torch.Generator().manual_seed(0))[:500]]
    assert relative_errors(quadrature(cell, degree), cell, sample).max() < 5e-14


@pytest.mark.parametrize("n", range(1, 8))
def test_n_gauss_points_miss_the_power_2n_by_the_known_amount(n: int) -> None:
    rule = quadrature("interval", 2 * n - 1)
    assert len(rule.weights) == n
    # The error of x^(2n) is the squared norm of the monic Legendre polynomial of degree n on [0, 1].
    missing = 1 / (2 * n + 1) - rule.weights @ rule.points[:, 0] ** (2 * n)
    assert missing.item() == pytest.approx(1 / ((2 * n + 1) * comb(2 * n, n) ** 2), rel=1e-4)


@cells
@pytest.mark.parametrize("degree", range(13))
def test_a_rule_is_not_exact_beyond_the_degrees_it_serves(cell: Cell, degree: int) -> None:
    rule = quadrature(cell, degree)
    while len(quadrature(cell, degree + 1).weights) == len(rule.weights):
        degree += 1
    assert relative_errors(rule, cell, exponents(cell, degree + 1)).max() > 1e-8


@cells
@pytest.mark.parametrize("degree", [*range(13), 17, 30])
def test_points_lie_strictly_inside_and_weights_are_positive_and_sum_to_the_volume(cell: Cell, degree: int) -> None:
    rule = quadrature(cell, degree)
    assert rule.points.shape == (len(rule.weights), cell.dim)
    assert rule.points.dtype == rule.weights.dtype == torch.float64
    assert rule.weights.min() > 0
    assert rule.weights.sum().item() == pytest.approx(cell.volume, rel=1e-14)
    assert rule.points.min() > 0
    assert (rule.points.sum(-1) if cell.is_simplex else rule.points).max() < 1


@pytest.mark.parametrize(
    ("cell", "counts"),
    [
        ("interval", [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7]),
        ("quadrilateral", [1, 1, 4, 4, 9, 9, 16, 16, 25, 25, 36, 36, 49]),
        ("hexahedron", [1, 1, 8, 8, 27, 27, 64, 64, 125, 125, 216, 216, 343]),
        ("triangle", [1, 1, 3, 6, 6, 7, 12, 15, 16, 19, 25, 28, 33, 49]),
        ("tetrahedron", [1, 1, 4, 8, 14, 14, 24, 35, 46, 59, 81, 216]),
    ],
)
def test_number_of_points_by_degree(cell: str, counts: list[int]) -> None:
    assert [len(quadrature(cell, degree).weights) for degree in range(len(counts))] == counts


def test_x_runs_fastest() -> None:
    t = quadrature("interval", 5).points[:, 0]
    z, y, x = torch.meshgrid(t, t, t, indexing="ij")
    assert torch.equal(quadrature("hexahedron", 5).points, torch.stack([x, y, z], -1).reshape(-1, 3))
    assert torch.equal(quadrature("quadrilateral", 5).points, torch.stack([x[0], y[0]], -1).reshape(-1, 2))
    assert (t.diff() > 0).all()


def test_any_product_of_simplices_has_rules() -> None:
    prism = Cell("prism", (2, 1), ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)))
    rule = quadrature(prism, 8)
    x, y, z = rule.points.unbind(-1)
    integral = (rule.weights * x**3 * y**5 * z**8).sum().item()
    assert integral == pytest.approx(factorial(3) * factorial(5) / factorial(10) / 9, rel=1e-13)


def test_point_cell_evaluates() -> None:
    rule = quadrature(point, 3)
    assert rule.points.shape == (1, 0)
    assert torch.equal(rule.weights, torch.ones(1, dtype=torch.float64))


def test_a_rule_is_the_callers_own() -> None:
    before = quadrature("triangle", 4).weights.clone()
    quadrature("triangle", 4).weights.zero_()
    assert torch.equal(quadrature("triangle", 4).weights, before)
    with torch.inference_mode():
        quadrature("triangle", 13)
    assert not quadrature("triangle", 13).weights.is_inference()


@pytest.mark.parametrize("degree", [-1, 2.0, "2", True, None])
def test_degree_must_be_a_non_negative_integer(degree) -> None:
    message = rf"`quadrature\(degree=\.\.\.\)` must be a non-negative integer; got {degree!r}\."
    with pytest.raises(ValueError, match=message):
        unwrap(quadrature)("triangle", degree)  # as outside the tests, where annotations are not executed


def test_unknown_cell_is_named() -> None:
    with pytest.raises(ValueError, match=r"`cell` must be one of interval, .*; got 'pentagon'\."):
        quadrature("pentagon", 2)
