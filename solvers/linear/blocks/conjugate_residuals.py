"""Generalised conjugate residuals: the least residual over all directions so far, for any matrix and preconditioner.

Source: Eisenstat, Elman and Schultz, SIAM Journal on Numerical Analysis 20, 1983, Algorithm 2.1. As directions are kept
as the preconditioner gave them, it may differ from step to step, and be rough in its last digits.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROOM = 80  # directions that are kept, before the iteration starts anew from what it has


def conjugate_residuals(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    b: Float[Tensor, "*b n"],
    weights: Float[Tensor, "*b n"],
    target: Float[Tensor, "*b"],
    limit: int,
) -> tuple[Tensor, Tensor, Int[Tensor, "*b"]]:
    """x with ‖b − A x‖ ≤ target after at most `limit` steps, that residual, and the steps "*b" of each item.

    It gives up where all of the directions that it keeps have not even halved a residual.

    With z = M r, each step makes W A z orthogonal to those before it, W A Z = Q R with QᵀQ = I, and takes from W r its
    part along the new q. In the end x = Z R⁻¹ Qᵀ W r₀. What becomes least is ‖W r‖, where W are the weights, and what
    stops it ‖r‖: the least sum of forces and of volumes would depend on units.
    """
    x, r = torch.zeros_like(b), weights * b
    iterations = torch.zeros(target.shape, dtype=torch.int64, device=b.device)
    running, room = size(b) > target, min(ROOM, limit)
    batch, n = b.shape[:-1], b.shape[-1]
    Z, Q = (b.new_empty(*batch, room, n) for _ in range(2))
    while limit > 0 and bool(running.any()):
        R, a = torch.eye(room, dtype=b.dtype, device=b.device).repeat(*batch, 1, 1), b.new_zeros(*batch, room)
        start, steps = size(r), 0
        while steps < min(room, limit) and bool(running.any()):
            z = precondition(r / weights)
            q = weights * apply(z)
            Z[..., steps, :], before = z, Q[..., :steps, :]
            length = size(q)
            for _ in range(2):  # once more, as one pass leaves what round-off made of cancellation
                share = before @ q[..., None]
                q = q - (before.mT @ share)[..., 0]
                R[..., :steps, steps] += share[..., 0]
            own = size(q)
            new = own > torch.finfo(b.dtype).eps * length  # a direction that brings nothing counts for nothing
            q = q * torch.where(new, 1 / own, 0)[..., None]
            Q[..., steps, :], R[..., steps, steps] = q, torch.where(new, own, 1)
            along = torch.linalg.vecdot(q, r)
            a[..., steps] = along
            r = r - along[..., None] * q
            iterations += running
            running = running & (size(r / weights) > target)
            steps += 1
        y = torch.linalg.solve_triangular(R[..., :steps, :steps], a[..., :steps, None], upper=True)
        x = x + (Z[..., :steps, :].mT @ y)[..., 0]
        left, limit = b - apply(x), limit - steps
        r = weights * left
        running = (size(left) > target) & (size(r) < start / 2)
    return x, r / weights, iterations


def size(v: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    return torch.linalg.vector_norm(v, dim=-1)
