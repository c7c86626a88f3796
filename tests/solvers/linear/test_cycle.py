"""One V-cycle is what its formula says, whatever the levels are made of; smoothers are Chebyshev polynomials."""

from math import acosh, cosh

import pytest
import torch

from solvers.linear.cycle import Level, chebyshev, v_cycle

EYE = torch.eye(15, dtype=torch.float64)


class DenseLevel(Level):
    """Linear elements on an interval: every second node is a coarse one."""

    def __init__(self, matrix, coarse=None, smoothing=(2, 6.0)):
        n = len(matrix)
        self.matrix, self.coarse = matrix, coarse
        self.x, self.b, self.r = torch.zeros(3, n, dtype=matrix.dtype)
        omega, self.factors = chebyshev(*smoothing)
        self.weight = omega / (torch.linalg.eigvalsh(matrix).max() / matrix[0, 0]) / matrix.diagonal()
        if coarse is not None:
            centre = 2 * torch.arange(n // 2) + 1
            self.P = torch.zeros(n, n // 2, dtype=matrix.dtype)
            for shift, value in ((-1, 0.5), (0, 1.0), (1, 0.5)):
                self.P[centre + shift, torch.arange(n // 2)] = value

    def residual(self):
        torch.sub(self.b, self.matrix @ self.x, out=self.r)

    def restrict(self):
        self.coarse.b.copy_(self.P.mT @ self.r)

    def interpolate(self):
        self.x += self.P @ self.coarse.x

    def solve(self):
        self.x.copy_(torch.linalg.solve(self.matrix, self.b))

    def smoothing(self):
        """1 − S A of one pass."""
        product = torch.eye(len(self.matrix), dtype=self.matrix.dtype)
        for factor in self.factors:
            product -= factor * self.weight[:, None] * (self.matrix @ product)
        return product


def stiffness(n):
    ones = torch.ones(n, dtype=torch.float64)
    return torch.diag(2 * ones) - torch.diag(ones[1:], 1) - torch.diag(ones[1:], -1)


def levels(count):
    """The finest of 15 nodes, and so many in all; coarse matrices are Galerkin products."""
    matrices = [stiffness(15 // 2**k) / 2**k for k in range(count)]
    found = [DenseLevel(matrices[-1])]
    for matrix in matrices[-2::-1]:
        found.insert(0, DenseLevel(matrix, found[0]))
        torch.testing.assert_close(found[0].P.mT @ matrix @ found[0].P, found[1].matrix)
    return found


def inverse_by(found):
    """The matrix of b ↦ x."""
    columns = []
    for b in EYE:
        found[0].b.copy_(b)
        v_cycle(found)
        columns.append(found[0].x.clone())
    return torch.stack(columns, -1)


def test_two_levels_are_smoothing_coarse_correction_and_smoothing():
    fine, coarse = levels(2)
    correction = EYE - fine.P @ torch.linalg.solve(coarse.matrix, fine.P.mT) @ fine.matrix
    error = EYE - inverse_by([fine, coarse]) @ fine.matrix
    torch.testing.assert_close(error, fine.smoothing() @ correction @ fine.smoothing(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_cycle_is_symmetric_positive_definite_and_close_to_the_inverse(count):
    found = levels(count)
    B, A = inverse_by(found), found[0].matrix
    torch.testing.assert_close(B, B.mT, rtol=0, atol=1e-13)
    values = torch.linalg.eigvals(B @ A).real
    assert float(values.min()) > 0.8
    assert float(values.max()) < 1 + 1e-12


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("ratio", [3.0, 8.0])
def test_damping_makes_the_polynomial_that_is_smallest_on_the_upper_part_of_the_spectrum(steps, ratio):
    omega, factors = chebyshev(steps, ratio)
    assert factors[-1] == 1
    t = torch.linspace(1 / ratio, 1, 1001, dtype=torch.float64)
    left = torch.stack([1 - omega * factor * t for factor in factors]).prod(0).abs().max()
    centre = (ratio + 1) / (ratio - 1)  # of the interval, in units of half its length: where t is 0
    assert abs(float(left) * cosh(steps * acosh(centre)) - 1) < 1e-12
