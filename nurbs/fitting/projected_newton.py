"""Many small minimisation problems under bounds, side by side: damped Newton steps, projected.

    x⁺ = Π(x - (H + μ D)⁻¹ g),    D = diag H,    Π the projection onto lower ≤ x ≤ upper

Variables at a bound towards which the gradient pushes are left out of the system (Bertsekas' two-metric projection);
the damping μ grows until the step reduces f, as in Levenberg and Marquardt. H may be the Gauss–Newton matrix or the
Hessian; where H + μ D is not positive definite the damping grows as well.

Source: D. P. Bertsekas, Projected Newton methods for optimization problems with simple constraints, SIAM J. Control
Optim. 20 (1982); J. Nocedal, S. Wright, *Numerical Optimization*, 2nd ed., Springer 2006, section 10.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
LARGEST, SMALLEST = 1e8, 1e-12  # of the damping μ


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where each of `b` problems ended: `converged`, or else `stalled` (no step reduces f), or out of iterations."""

    x: Float[Tensor, "b k"]
    value: Float[Tensor, "b"]
    iterations: Int[Tensor, "b"]
    converged: Bool[Tensor, "b"]
    stalled: Bool[Tensor, "b"]
    history: Float[Tensor, "b i"]


def minimize_bounded(
    evaluate: Evaluate,
    x: Float[Tensor, "b k"],
    lower: Float[Tensor, "b k"],
    upper: Float[Tensor, "b k"],
    *,
    max_iterations: int = 100,
    rtol: float = 1e-9,
    atol: float | Float[Tensor, "b"] = 0.0,
    damping: float = 1e-3,
    tick: Callable[[int, Tensor], None] | None = None,
    over: Callable[[], bool] | None = None,
) -> Minimum:
    """Local minima of b problems in k variables each, from the starts x.

    Args:
        evaluate: (x "a k", items "a") to f "a", gradient "a k" and matrix "a k k" of those items; not finite where f is
            not defined, which a start must not be.
        max_iterations: steps tried, accepted or not.
        rtol, atol: an item is done when its model, not much damped, promises a reduction of less than rtol f + atol,
            or where f is below atol.
        damping: the first μ.
        tick: told the iteration and f after each.
        over: asked before each iteration whether to end there.
    """
    items = torch.arange(len(x), device=x.device)
    atol = torch.as_tensor(atol, dtype=x.dtype, device=x.device).expand(len(x))
    x = torch.minimum(torch.maximum(x, lower), upper)
    f, g, H = evaluate(x, items)
    mu = torch.full_like(f, damping)
    active = torch.ones_like(items, dtype=torch.bool)
    converged, stalled = torch.zeros_like(active), torch.zeros_like(active)
    iterations, history = torch.zeros_like(items), [f.clone()]
    for iteration in range(1, max_iterations + 1):
        items = active.nonzero()[:, 0]
        if not len(items) or (over is not None and over()):
            break
        at, slope = x[items], g[items]
        bound = ((at <= lower[items]) & (slope > 0)) | ((at >= upper[items]) & (slope < 0))
        step, definite = _step(H[items], slope.masked_fill(bound, 0), bound, mu[items])
        trial = torch.minimum(torch.maximum(at + step, lower[items]), upper[items])
        step = trial - at
        promised = -(slope * step).sum(-1) - 0.5 * (step * (H[items] @ step[..., None])[..., 0]).sum(-1)
        value, gradient, matrix = evaluate(trial, items)
        reduction = f[items] - value
        accept = definite & value.isfinite() & (reduction > 0)
        done = f[items] <= atol[items]
        done |= definite & (mu[items] <= 1) & (promised >= 0) & (promised <= rtol * f[items] + atol[items])
        good = accept & (reduction > 0.5 * promised)
        chosen = items[accept]
        x[chosen], f[chosen], g[chosen], H[chosen] = (part[accept] for part in (trial, value, gradient, matrix))
        factor = torch.where(good, 0.2, torch.where(accept, 1.0, 4.0)).to(mu)
        mu[items] = (mu[items] * factor).clamp_min(SMALLEST)
        stuck = ~done & (mu[items] > LARGEST)
        converged[items], stalled[items], active[items] = done, stuck, ~(done | stuck)
        iterations[items] = iteration
        history.append(f.clone())
        if tick is not None:
            tick(iteration, f)
    return Minimum(x, f, iterations, converged, stalled, torch.stack(history, -1))


def _step(H: Tensor, g: Tensor, bound: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """-(H + μ D)⁻¹ g on the free variables, and whether that matrix is positive definite."""
    free = ~bound
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    least = torch.finfo(H.dtype).eps * diagonal.amax(-1, keepdim=True).clamp_min(torch.finfo(H.dtype).tiny)
    scale = torch.where(free, torch.maximum(diagonal, least), 1).rsqrt()
    system = H * (free[..., :, None] & free[..., None, :]) * scale[..., :, None] * scale[..., None, :]
    system = system + torch.diag_embed(torch.where(free, mu[..., None], 1.0))
    factor, info = torch.linalg.cholesky_ex(system)
    definite = info == 0
    factor = torch.where(definite[..., None, None], factor, torch.eye(g.shape[-1], dtype=g.dtype, device=g.device))
    return -scale * torch.cholesky_solve((scale * g)[..., None], factor)[..., 0], definite
