"""Linear methods: conjugate gradients on any device, and which method serves by default."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.direct import Direct
from solvers.solution import dot, norm, per_item
from solvers.system import LinearMethod, Preconditioner, System


@dataclass(frozen=True)
class Jacobi:
    """z = D⁻¹ r, with the absolute values of the diagonal."""

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        diagonal = system.diagonal
        inverse = torch.where(diagonal == 0, 1, 1 / diagonal.abs())
        return lambda r: inverse * r


@dataclass(frozen=True)
class CG:
    """Preconditioned conjugate gradients, all batch items at once, on any device.

    Args:
        rtol: stop at ‖r‖ ≤ rtol ‖b‖; by default at the tolerance of the solver that calls.
        max_iterations: at most this many.
        preconditioner: what approximates the inverse; by default that of the diagonal (Jacobi).
    """

    rtol: float | None = None
    max_iterations: int = 20_000
    preconditioner: Preconditioner = Jacobi()

    def prepare(self, system: System) -> "PreparedCG":
        if not system.symmetric:
            raise ValueError("`CG()` needs a symmetric operator, and a weak form has none; use `Direct()`.")
        return PreparedCG(system, self)


class PreparedCG:
    def __init__(self, system: System, method: CG):
        self.system, self.method = system, method
        self.precondition = method.preconditioner.preconditioner(system)
        diagonal = system.diagonal
        lead = len(system.batch)
        self.singular = (diagonal == 0).flatten(lead).any(-1)
        self.indefinite = (diagonal < 0).flatten(lead).any(-1)
        self.iterations = torch.zeros(system.batch, dtype=torch.int64, device=system.u.device)

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """x with ‖b − H x‖ ≤ max(rtol ‖b‖, atol); items whose curvature turns negative stop there and are flagged."""
        b, target = self.goal(rhs, atol)
        self.iterations = torch.zeros_like(self.iterations)
        return self.iterate(b, target, self.method.max_iterations)[0]

    def goal(self, rhs: Tensor, atol: Tensor | None) -> tuple[Tensor, Tensor]:
        """The right-hand side of the whole batch, and the norms of residuals "*b" that will do."""
        system, lead = self.system, len(self.system.batch)
        b = system.project(rhs).expand(*system.batch, *system.lowered.space.shape)
        rtol = self.method.rtol if self.method.rtol is not None else 0.1 * torch.finfo(b.dtype).eps ** 0.75
        target = rtol * norm(b, lead)
        return b, target if atol is None else torch.maximum(target, atol)

    def iterate(self, b: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """x and what remains of b, from x = 0; nothing remains of items that stop at negative curvature."""
        system, lead = self.system, len(self.system.batch)
        # Vectors are updated in place: on large meshes fresh memory costs more than the arithmetic.
        x, r = (
            torch.zeros_like(b, memory_format=torch.contiguous_format),
            b.clone(memory_format=torch.contiguous_format),
        )
        z = self.precondition(r)
        p, rz = z.clone(), dot(r, z, lead)
        stopped = torch.zeros_like(self.indefinite)
        # A look at the residual waits for a GPU; on the CPU it costs nothing.
        every = 1 if b.device.type == "cpu" else 10
        for k in range(limit):
            running = (norm(r, lead) > target) & ~stopped
            if k % every == 0 and not bool(running.any()):
                break
            Ap = system.apply(p)
            curvature = dot(p, Ap, lead)
            turned = running & (curvature <= 0)
            if every > 1 or bool(turned.any()):
                # Negative curvature: hand back that direction, downhill, for a search along it.
                stopped, self.indefinite = stopped | turned, self.indefinite | turned
                x = torch.where(per_item(turned, x), p, x)
                running = running & ~turned
            alpha = per_item(torch.where(running, rz / curvature, 0), x)
            x.addcmul_(alpha, p)
            r.addcmul_(alpha, Ap, value=-1)
            z = self.precondition(r)
            rz, before = dot(r, z, lead), rz
            torch.addcmul(z, per_item(torch.where(running, rz / before, 0), x), p, out=p)
            self.iterations += running
        return x, r.masked_fill_(per_item(stopped, r), 0)


def default_linear(system_space: Any, symmetric: bool) -> LinearMethod:
    """Direct on the CPU unless three dimensions would fill the factors; conjugate gradients otherwise."""
    small = system_space.mesh.dim < 3 or system_space.num_dofs <= 8_000
    if system_space.device.type == "cpu" and (small or not symmetric):
        return Direct()
    return CG()
