"""Tensor interpolation: polynomials and their slopes are exact at quadrature points; scattering is its transpose."""

import pytest
import torch
from torch import Tensor

from fem import FunctionSpace, Lagrange, box
from fem.kernels.tensor_interpolation import (
    TensorInterpolation,
    add_types,
    grid_rule,
    node_types,
    rows,
    scatter,
    split_types,
)
from tests.problems import polynomial

CELLS = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}
every = pytest.mark.parametrize(("dim", "degree"), [(d, p) for d in (1, 2, 3) for p in (1, 2, 3)])


def grid_space(dim: int, degree: int, **options) -> FunctionSpace:
    """On a box with another lower corner, size and number of cells along each axis."""
    lower, upper = (-0.5, 0.25, 1.0)[:dim], (1.0, 1.25, 3.0)[:dim]
    return FunctionSpace(box(lower, upper, CELLS[dim]), Lagrange(degree), **options)


def interpolation(V: FunctionSpace, degree: int, image: Tensor) -> TensorInterpolation:
    return TensorInterpolation(split_types(image, degree, V.mesh.dim), grid_rule(V).tables(degree), degree)


def joined(parts: dict[tuple[int, ...], Tensor], rule, degree: int) -> Tensor:
    """The image of all nodes from those of each type."""
    like = next(iter(parts.values()))
    image = like.new_zeros(len(like), *[degree * n + 1 for n in rule.cells[::-1]])
    for kind, part in parts.items():
        add_types(
            image, [part if k == kind else part.new_zeros(()) for k in node_types(degree, len(kind))], degree, len(kind)
        )
    return image


def coordinates(rule, q: tuple[int, ...]) -> Tensor:
    """Quadrature point q of all cells, "nz ny nx d"."""
    like = torch.zeros((), dtype=torch.float64)
    lines = [rule.coordinates(axis, i, like) for axis, i in enumerate(q)]
    return torch.stack(torch.meshgrid(*lines[::-1], indexing="ij")[::-1], -1)


@every
def test_the_rule_is_that_of_the_space(dim: int, degree: int) -> None:
    V = grid_space(dim, degree)
    rule, (domain,) = grid_rule(V), V.quadrature.domains()
    points, weights = V.quadrature.geometry(domain).points, V.quadrature.geometry(domain).weights
    assert sorted(rule.order.values()) == list(range(len(rule.weights)))
    for q, position in rule.order.items():
        torch.testing.assert_close(coordinates(rule, q).reshape(-1, dim), points[:, position])
        torch.testing.assert_close(torch.tensor(rule.weights[q]).double(), weights[0, position])


@every
def test_polynomials_and_their_slopes_are_exact(dim: int, degree: int) -> None:
    V = grid_space(dim, degree)
    exact = polynomial(dim, degree, tensor=True)
    found, rule = interpolation(V, degree, V.to_grid(V.interpolate(exact))[None]), grid_rule(V)
    for q in rule.weights:
        x = coordinates(rule, q)
        torch.testing.assert_close(found.at(q)[0], exact(x), rtol=1e-12, atol=1e-12)
        for axis in range(dim):
            torch.testing.assert_close(found.at(q, axis)[0], exact.derivative(axis)(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("compiling", [False, True])
@every
def test_scattering_is_the_transpose_of_interpolation(dim: int, degree: int, compiling: bool, monkeypatch) -> None:
    """⟨I u, f⟩ = ⟨u, Iᵀ f⟩ with different f at all points, for values and slopes together; and |I|ᵀ |f| for sizes."""
    V = grid_space(dim, degree)
    rule = grid_rule(V)
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    keys = [(q, axis) for q in rule.weights for axis in (None, *range(dim))]
    fluxes = {key: random(2, *rule.cells[::-1]) for key in keys}
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: compiling)
        image = joined(scatter(fluxes, rule.tables(degree), degree), rule, degree)
        sizes = joined(scatter(fluxes, rule.tables(degree), degree, magnitude=True), rule, degree)
    u = random(*image.shape)
    applied = interpolation(V, degree, u)
    total = sum((applied.at(*key) * flux).sum() for key, flux in fluxes.items())
    torch.testing.assert_close((u * image).sum(), total, rtol=1e-12, atol=1e-11)
    columns = torch.eye(u[0].numel(), dtype=torch.float64).reshape(-1, *u[0].shape)
    basis = interpolation(V, degree, columns)
    wanted = sum(torch.einsum("n...,b...->bn", basis.at(*key).abs(), flux.abs()) for key, flux in fluxes.items())
    torch.testing.assert_close(sizes.flatten(1), wanted)


@every
def test_a_single_flux(dim: int, degree: int) -> None:
    """Where only one slope matters nothing else is needed."""
    rule = grid_rule(grid_space(dim, degree))
    (q, *_), flux = rule.weights, torch.ones(1, *rule.cells[::-1], dtype=torch.float64)
    image = joined(scatter({(q, dim - 1): flux}, rule.tables(degree), degree), rule, degree)
    assert image.sum().abs() < 1e-12  # slopes of a constant


def test_values_are_shared_between_points() -> None:
    """Slopes of degree 1 do not differ along their own axis."""
    V = grid_space(2, 1)
    found = interpolation(V, 1, torch.rand(1, 5, 4, dtype=torch.float64))
    (a, b) = range(2)
    assert found.at((a, a), 0) is found.at((b, a), 0)
    assert found.at((a, a), 0) is not found.at((a, b), 0)
    first, second, third = rows(torch.tensor([[1.0, 2.0, 1e-17], [1.0, 2.0 + 1e-15, 0.0], [0.0, 1.0, 0.0]]).double())
    assert first == second == (1.0, 2.0, 0.0)
    assert third == (0.0, 1.0, 0.0)
