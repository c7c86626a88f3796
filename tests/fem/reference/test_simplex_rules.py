"""Stored simplex rules: each is exact to the degree it declares and no further, and has the symmetry of its orbits."""

from itertools import permutations, product
from math import factorial, prod

import numpy as np
import pytest

from fem.reference.simplex_rules import SIMPLEX_RULES, Orbit, expand

rules = pytest.mark.parametrize(
    ("degree", "orbits"),
    [
        pytest.param(degree, orbits, id=f"{dim}d-{degree}")
        for dim, by_degree in SIMPLEX_RULES.items()
        for degree, orbits in by_degree.items()
    ],
)


def barycentric(points: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - points.sum(1), points])


def relative_error(orbits: tuple[Orbit, ...], degree: int) -> float:
    """The largest over all monomials of exactly this degree in the barycentric coordinates (they span all lower)."""
    points, weights = expand(orbits)
    dim = points.shape[1]
    powers = np.array([i for i in product(range(degree + 1), repeat=dim + 1) if sum(i) == degree])
    exact = [prod(map(factorial, i)) / factorial(degree + dim) for i in powers.tolist()]
    return np.abs(weights @ np.prod(barycentric(points)[:, None] ** powers, axis=-1) / exact - 1).max()


@rules
def test_declared_degree_is_sharp(degree: int, orbits: tuple[Orbit, ...]) -> None:
    assert relative_error(orbits, degree) < 5e-14
    assert relative_error(orbits, degree + 1) > 1e-6


@rules
def test_points_lie_strictly_inside_and_weights_are_positive(degree: int, orbits: tuple[Orbit, ...]) -> None:
    points, weights = expand(orbits)
    assert barycentric(points).min() > 0
    assert weights.min() > 0


@rules
def test_permuting_the_vertices_permutes_the_points(degree: int, orbits: tuple[Orbit, ...]) -> None:
    points, weights = expand(orbits)
    table = barycentric(points)
    for image in permutations(range(table.shape[1])):
        distance = np.abs(table[:, None] - table[:, image]).max(-1)
        partner = distance.argmin(1)
        assert sorted(partner) == list(range(len(table)))
        assert distance.min(1).max() < 1e-15
        np.testing.assert_array_equal(weights, weights[partner])


@pytest.mark.parametrize("by_degree", SIMPLEX_RULES.values(), ids=SIMPLEX_RULES)
def test_rules_stand_in_order_of_degree_and_none_is_superseded(by_degree: dict[int, tuple[Orbit, ...]]) -> None:
    assert list(by_degree) == sorted(by_degree)
    counts = [len(expand(orbits)[1]) for orbits in by_degree.values()]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("name", "free", "size"),
    [
        ("S3", 0, 1),
        ("S21", 1, 3),
        ("S111", 2, 6),
        ("S4", 0, 1),
        ("S31", 1, 4),
        ("S22", 1, 6),
        ("S211", 2, 12),
        ("S1111", 3, 24),
    ],
)
def test_number_of_points_of_an_orbit(name: str, free: int, size: int) -> None:
    points, weights = expand(((name, 0.5, *(0.1, 0.15, 0.2)[:free]),))
    assert len(np.unique(np.round(points, 12), axis=0)) == len(weights) == size
    assert weights.tolist() == [0.5 / factorial(points.shape[1])] * size
