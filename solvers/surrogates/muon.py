"""Muon: steps of matrices that are as long in every direction, for the kernels of networks.

The momentum of a kernel, as a matrix M of output channels by everything else, is replaced by the nearest matrix with
orthonormal rows or columns, U Vᵀ where M = U Σ Vᵀ, by the Newton–Schulz iteration (K. Jordan and others, Muon: an
optimizer for hidden layers in neural networks, 2024)

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X,    (a, b, c) = (3.4445, −4.7750, 2.0315).

`torch.optim.Muon` takes matrices alone, one at a time; here kernels of equal shape are one batch, and what is no matrix
(biases, norms, a last layer of one channel) or is complex follows AdamW in the same optimiser.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fem.support.checks import check_numbers, shown

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
BETAS = (0.9, 0.999)  # of AdamW
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for kernels and matrices, AdamW (Loshchilov & Hutter, 2019) for all else.

    Args:
        named: the network's `named_parameters()`.
        lr: of matrices: how far a step goes along each singular direction, times √(rows / columns) where that is more.
        adam_lr: of everything else; a tenth of `lr` by default.
        weight_decay: per unit of lr.

    Raises:
        ValueError, TypeError: settings out of range, or parameters without names.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        lr: float = 1e-2,
        adam_lr: float | None = None,
        weight_decay: float = 0.0,
    ):
        check_numbers("Muon", "positive", lr=lr)
        check_numbers("Muon", "positive", optional=True, adam_lr=adam_lr)
        check_numbers("Muon", "non-negative", weight_decay=weight_decay)
        named = [] if isinstance(named, nn.Module) else list(named)
        if not named or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in named):
            raise TypeError(f"`Muon(named=...)` must be a network's `named_parameters()`; got {shown(named)}.")
        kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for _, p in named:
            if p.requires_grad:
                kinds[p.ndim >= 2 and min(len(p), p[0].numel()) > 1 and not p.is_complex()].append(p)
        rates = {True: lr, False: 0.1 * lr if adam_lr is None else adam_lr}
        groups = [{"params": kinds[k], "lr": rates[k], "matrices": k} for k in (True, False) if kinds[k]]
        super().__init__(groups, {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            for p in moved:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self._orthogonal if group["matrices"] else self._adam)(moved, group["lr"])
        return loss

    def _orthogonal(self, parameters: list[nn.Parameter], lr: float) -> None:
        alike = defaultdict(list)
        for p in parameters:
            gradient = gradient_of(p)
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            alike[len(p), p[0].numel()].append((p, gradient.lerp(momentum, MOMENTUM)))
        for (rows, columns), pairs in alike.items():
            steps = orthogonalised(torch.stack([m.reshape(rows, columns) for _, m in pairs]))
            for (p, _), step in zip(pairs, steps, strict=True):
                p.sub_(step.reshape(p.shape), alpha=lr * max(1, rows / columns) ** 0.5)

    def _adam(self, parameters: list[nn.Parameter], lr: float) -> None:
        first, second = BETAS
        for p in parameters:
            state = self.state[p]
            x, gradient = (torch.view_as_real(t) if t.is_complex() else t for t in (p, gradient_of(p)))
            if not state:
                state.update(step=0, mean=torch.zeros_like(x), square=torch.zeros_like(x))
            state["step"] += 1
            state["mean"].lerp_(gradient, 1 - first)
            state["square"].lerp_(gradient.square(), 1 - second)
            size = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
            x.addcdiv_(state["mean"], size, value=-lr / (1 - first ** state["step"]))


def gradient_of(p: nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


def orthogonalised(m: Tensor) -> Tensor:
    """Matrices "b r c" with singular values near 1 and the singular vectors of m; zero stays zero."""
    wide = m.mT if m.shape[-2] > m.shape[-1] else m
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if m.shape[-2] > m.shape[-1] else x
