"""Operators of B-spline functions at data points: the same as dense matrices, on grids and at scattered points."""

import pytest
import torch
from torch import Tensor

from fem.reference.bspline import basis_matrix, uniform_knots
from nurbs.fitting.design_matrix import CloudDesign, Design, GridDesign

DEGREE, SHAPE, SIZES = (3, 2), (6, 4), (9, 7)


def problem(tangents: bool = False) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Knots and parameters of two items, and directions in which the knots change."""
    torch.manual_seed(0)
    knots, moves = [], []
    for n, p in zip(SHAPE, DEGREE, strict=True):
        t = uniform_knots(n, p).repeat(2, 1)
        t[1, p + 1 : n] += 0.05 * torch.rand(n - p - 1).double()
        knots.append(t)
        moves.append(torch.nn.functional.pad(torch.randn(2, 3, n - p - 1).double(), (p + 1, p + 1)))
    return knots, [torch.rand(2, q).double().sort().values for q in SIZES], moves if tangents else []


def designs(tangents: bool = False) -> list[Design]:
    knots, u, moves = problem(tangents)
    grid = torch.stack([u[0][:, :, None].expand(2, *SIZES), u[1][:, None].expand(2, *SIZES)], -1).flatten(1, 2)
    return [GridDesign(knots, DEGREE, u, moves), CloudDesign(knots, DEGREE, grid, moves)]


def dense(knots: list[Tensor]) -> Tensor:
    _, u, _ = problem()
    one, other = (basis_matrix(t, p, x)[:, 0] for t, p, x in zip(knots, DEGREE, u, strict=True))
    return torch.stack([torch.kron(a, b) for a, b in zip(one, other, strict=True)])


@pytest.mark.parametrize("which", [0, 1])
def test_products_are_those_of_the_dense_matrix(which: int) -> None:
    design, Phi = designs()[which], dense(problem()[0])
    c, f = torch.randn(2, 24, 3).double(), torch.randn(2, 63, 3).double()
    torch.testing.assert_close(design.synthesise(c), Phi @ c)
    torch.testing.assert_close(design.analyse(f), Phi.mT @ f)
    torch.testing.assert_close(design.gram(f), torch.einsum("bqi,bqD,bqj->bDij", Phi, f, Phi))


@pytest.mark.parametrize("which", [0, 1])
def test_changes_are_derivatives_along_the_tangents(which: int) -> None:
    knots, _, moves = problem(tangents=True)
    c = torch.randn(2, 24, 3).double()
    changes = designs(tangents=True)[which].changes(c)
    for axis in range(2):
        for k in range(3):
            moved = [
                [t + s * 1e-6 * m[:, k] if a == axis else t for a, (t, m) in enumerate(zip(knots, moves, strict=True))]
                for s in (1, -1)
            ]
            difference = (dense(moved[0]) - dense(moved[1])) @ c / 2e-6
            torch.testing.assert_close(changes[:, 3 * axis + k], difference, rtol=1e-6, atol=1e-7)


def test_scattered_rows_written_out() -> None:
    torch.testing.assert_close(designs()[1].dense(), dense(problem()[0]))  # type: ignore[attr-defined]
