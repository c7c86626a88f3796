"""Degrees of polynomials: sums take the larger, products add, everything else is told to be none."""

from math import inf

import pytest
import torch

from fem.kernels.polynomial_degree import polynomial_degrees
from fem.kernels.tracing import trace

DEGREES = {
    3: lambda u, k: k * u + 4 * u,
    2: lambda u, k: u.square() - 1,
    6: lambda u, k: u**4 * k.pow(2) / 3,
    5: lambda u, k: (2 - u) ** 3 * (-u) ** 2,
    inf: lambda u, k: u / k,
    0: lambda u, k: torch.exp(torch.tensor(2.0, dtype=torch.float64)) * torch.ones_like(u),
}


@pytest.mark.parametrize("wanted", DEGREES)
def test_degrees(wanted: float) -> None:
    program = trace(lambda *a: [DEGREES[wanted](*a)], [(), ()], torch.float64)
    given = [1.0, 2.0] if wanted == 3 else [1.0, 1.0]
    assert polynomial_degrees(program, given) == [wanted]


def test_functions_are_no_polynomials_unless_of_constants() -> None:
    for function in (torch.sin, torch.abs, torch.sqrt, lambda u: torch.where(u > 0, u, 2 * u), lambda u: u**0.5):
        program = trace(lambda u, function=function: [function(u)], [()], torch.float64)
        assert polynomial_degrees(program, [1.0]) == [inf]
        assert polynomial_degrees(program, [0.0]) == [0]
