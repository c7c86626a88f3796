"""Generalised conjugate residuals solve what conjugate gradients cannot, and stop where nothing is gained."""

import pytest
import torch

from solvers.linear.blocks.conjugate_residuals import conjugate_residuals

DOUBLE = torch.float64


def systems(seed=0, n=40, batch=3):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, n, n, dtype=DOUBLE, generator=generator) / n**0.5 + 2 * torch.eye(n, dtype=DOUBLE)
    return A, torch.randn(batch, n, dtype=DOUBLE, generator=generator)


def solved(A, b, limit=200, rtol=1e-10, precondition=lambda r: r, weights=None):
    weights = torch.ones_like(b) if weights is None else weights
    apply = lambda v: (A @ v[..., None])[..., 0]  # noqa: E731
    return conjugate_residuals(apply, precondition, b, weights, rtol * b.norm(dim=-1), limit)


def test_nonsymmetric_systems_are_solved_item_by_item():
    A, b = systems()
    x, r, iterations = solved(A, b)
    torch.testing.assert_close(x, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-8)
    assert bool((r.norm(dim=-1) <= 1e-10 * b.norm(dim=-1)).all())
    assert bool((iterations <= 40).all())
    one = solved(A[1], b[1])
    torch.testing.assert_close(one[0], x[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spread", [0, 2])
def test_the_weighted_residual_is_the_least_over_the_krylov_space(spread):
    A, b = (t[0] for t in systems())
    weights = torch.logspace(-spread, spread, len(b), dtype=DOUBLE)
    for k in (1, 3, 6):
        _, r, iterations = solved(A, b, limit=k, rtol=0.0, weights=weights)
        assert int(iterations) == k
        basis = [A @ b]
        while len(basis) < k:
            basis.append(A @ basis[-1])
        basis, whole = torch.linalg.qr(weights[:, None] * torch.stack(basis, -1))[0], weights * b
        torch.testing.assert_close((weights * r).norm(), (whole - basis @ (basis.T @ whole)).norm())


def test_a_preconditioner_may_change_from_step_to_step():
    A, b = (t[0] for t in systems())
    inverse, calls = torch.linalg.inv(A), []

    def rough(r):
        calls.append(0)
        noise = torch.randn(len(r), dtype=DOUBLE, generator=torch.Generator().manual_seed(len(calls)))
        return inverse @ r + 0.01 * r.norm() * noise / len(r) ** 0.5

    x, _, iterations = solved(A, b, precondition=rough)
    torch.testing.assert_close(x, inverse @ b, rtol=1e-8, atol=1e-8)
    assert int(iterations) <= 8


def test_singular_systems_are_given_up_early():
    A, b = (t[0] for t in systems())
    A = A - torch.outer(A[:, 0], torch.eye(len(A), dtype=DOUBLE)[0])
    _, r, iterations = solved(A, b, limit=10_000)
    assert float(r.norm()) > 1e-4 * float(b.norm())
    assert int(iterations) < 500
