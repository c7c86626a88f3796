"""Derivatives of a density at one point, by automatic differentiation: functions of the same arguments to be traced."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fem.kernels.program import UntraceableError


def value_and_gradient(function: Callable[..., Tensor], wrt: Sequence[int]) -> Callable[..., list[Tensor]]:
    """(ψ, ∂ψ/∂arguments of the given positions)."""

    def both(*args: Any) -> list[Tensor]:
        value = function(*args)
        return [value, *gradients(value, [args[i] for i in wrt])]

    return both


def value_gradient_and_curvature(
    function: Callable[..., Tensor], wrt: Sequence[int], along: Sequence[int] | None = None
) -> Callable[..., tuple[list[Tensor], list[Tensor]]]:
    """What `value_and_gradient` gives, and the slopes of ψ′ in arguments `along`, by default the same.

    See `directional`; directions are last.
    """
    along = wrt if along is None else along

    def both(*args: Any) -> tuple[list[Tensor], list[Tensor]]:
        arguments, directions = args[: len(args) - len(along)], args[len(args) - len(along) :]
        slots, unknowns = [arguments[i] for i in wrt], [arguments[i] for i in along]
        value = function(*arguments)
        first = gradients(value, slots)
        other = first if list(wrt) == list(along) else gradients(value, unknowns)
        change = torch.stack([(g * w).sum() for g, w in zip(other, directions, strict=True)]).sum()
        return [value, *first], gradients(change, slots)

    return both


def directional(function: Callable[..., Tensor], wrt: Sequence[int]) -> Callable[..., Tensor]:
    """ψ′: a function of the arguments and of one direction for each position of `wrt`, Σ ⟨∂ψ/∂aᵢ, wᵢ⟩."""

    def along(*args: Any) -> Tensor:
        arguments, directions = args[: len(args) - len(wrt)], args[len(args) - len(wrt) :]
        slopes = gradients(function(*arguments), [arguments[i] for i in wrt])
        return torch.stack([(g * w).sum() for g, w in zip(slopes, directions, strict=True)]).sum()

    return along


def hessian(
    function: Callable[..., Tensor], wrt: Sequence[int], columns: Sequence[int] | None = None
) -> Callable[..., list[Tensor]]:
    """All second derivatives in entries of arguments `wrt` and `columns`, by default the same; rows are the former."""

    def rows(*args: Any) -> list[Tensor]:
        fluxes = [f for g in gradients(function(*args), [args[i] for i in wrt]) for f in g.reshape(-1)]
        slots = [args[i] for i in (wrt if columns is None else columns)]
        return [torch.cat([r.reshape(-1) for r in gradients(flux, slots)]) for flux in fluxes]

    return rows


def gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """∂value/∂inputs, zero where nothing depends on them."""
    if value.shape != ():
        raise UntraceableError(f"it gives {tuple(value.shape)} numbers at a point, not one")
    if value.dtype in (torch.float16, torch.bfloat16):
        raise UntraceableError(f"it gives {value.dtype}")  # which `Term.check` refuses
    if not inputs or not value.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    found = torch.autograd.grad(value, list(inputs), create_graph=True, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]
