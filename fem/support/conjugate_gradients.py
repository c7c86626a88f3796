"""The iteration of conjugate gradients, for whoever has a symmetric positive definite map."""

from collections.abc import Callable

import torch
from torch import Tensor

from fem.support.arithmetic import dot, norm, per_item


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    x: Tensor,
    r: Tensor,
    p: Tensor,
    target: Tensor,
    max_iterations: int,
    energy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Iterate in place until ‖r‖ ≤ target "*b": the count of each item, and whether its curvature turned negative.

    Args:
        apply, precondition: what they return may be overwritten by their next call.
        x, r, p: the start "*b …", its residual, and room for directions: always handed to `apply` as this very tensor.
        energy: the target is one of √(rᵀz), z ≈ A⁻¹ r, about the size of the error in the energy norm.
    """
    lead = target.ndim
    z = precondition(r)
    p.copy_(z)
    rz = dot(r, z, lead)
    stopped = torch.zeros(target.shape, dtype=torch.bool, device=target.device)
    iterations = torch.zeros(target.shape, dtype=torch.int64, device=target.device)
    # A look at the residual waits for a GPU; on the CPU it costs nothing.
    every = 1 if r.device.type == "cpu" else 10
    for k in range(max_iterations):
        size = rz.clamp(min=0).sqrt() if energy else norm(r, lead)
        running = (size > target) & ~stopped
        if k % every == 0 and not bool(running.any()):
            break
        Ap = apply(p)
        curvature = dot(p, Ap, lead)
        turned = running & (curvature <= 0)
        if every > 1 or bool(turned.any()):
            # Negative curvature: hand back that direction, downhill, for a search along it.
            stopped |= turned
            x.copy_(torch.where(per_item(turned, x), p, x))
        running = running & ~turned
        alpha = per_item(torch.where(running, rz / curvature, 0), x)
        x.addcmul_(alpha, p)
        r.addcmul_(alpha, Ap, value=-1)
        z = precondition(r)
        rz, before = dot(r, z, lead), rz
        p.mul_(per_item(torch.where(running, rz / before, 0), x)).add_(z)
        iterations += running
    return iterations, stopped
