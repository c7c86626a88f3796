"""Derivatives of a density at quadrature points by automatic differentiation.

A slot is u or one of its derivatives at all points of a domain, a flux f_i = ∂ψ/∂s_i the derivative of the density with
respect to one. Points do not see each other, so that one backward pass differentiates at all of them.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fem.space.mappings import Slots
from fem.support.arithmetic import sum_of
from fem.support.transforms import transformed

Fluxes = Sequence[Tensor | None]  # one for each slot; None where it vanishes


def observable() -> bool:
    """Whether tensors are what they seem: not within `torch.func`, forward differentiation or `torch.compile`."""
    return not transformed() and not torch.compiler.is_compiling()


def differentiable(slots: Slots) -> Slots:
    """Slots that the density can be differentiated with respect to, part of the graph where there is one."""
    graph = torch.is_grad_enabled()
    return [s if graph and s.requires_grad else s.detach().requires_grad_() for s in slots]


def derivative_transposed(fluxes: Fluxes, slots: Slots, along: Slots, graph: bool) -> list[Tensor | None]:
    """Σ_i (∂f_i/∂s_j) along_i by one backward pass; for energies, whose Jacobian is symmetric, the product itself."""
    terms = [(f * a).sum() for f, a in zip(fluxes, along, strict=True) if f is not None and f.requires_grad]
    if not terms:
        return [None] * len(slots)
    return list(torch.autograd.grad(sum_of(terms), slots, create_graph=graph, allow_unused=True))


def derivative(fluxes: Fluxes, slots: Slots, along: Slots, graph: bool) -> list[Tensor | None]:
    """Σ_j (∂f_i/∂s_j) along_j by differentiating the transposed product with respect to its (dummy) factor."""
    dummies = [None if f is None else torch.zeros_like(f, requires_grad=True) for f in fluxes]
    terms = [
        (f * d).sum()
        for f, d in zip(fluxes, dummies, strict=True)
        if f is not None and d is not None and f.requires_grad
    ]
    if not terms:
        return [None] * len(slots)
    back = torch.autograd.grad(sum_of(terms), slots, create_graph=True, allow_unused=True)
    pairs = [(b * a).sum() for b, a in zip(back, along, strict=True) if b is not None and b.requires_grad]
    if not pairs:
        return [None] * len(slots)
    live = [d for d in dummies if d is not None]
    result = iter(torch.autograd.grad(sum_of(pairs), live, create_graph=graph, allow_unused=True))
    return [None if d is None else next(result) for d in dummies]


def pointwise_jacobian(flux: Tensor | None, slots: Slots, lead: int) -> Iterator[tuple[int, Tensor]]:
    """(j, ∂flux/∂slot_j "*b e q *i *j") for every slot the flux depends on: one backward pass per entry of the flux."""
    if flux is None or not flux.requires_grad:
        return
    entries = flux.flatten(lead).unbind(-1) if flux.ndim > lead else (flux,)
    rows = [torch.autograd.grad(e.sum(), slots, retain_graph=True, allow_unused=True) for e in entries]
    for j, slot in enumerate(slots):
        column = [row[j] for row in rows]
        if any(c is not None for c in column):
            stacked = torch.stack([torch.zeros_like(slot) if c is None else c for c in column], lead)
            yield j, stacked.reshape(*slot.shape[:lead], *flux.shape[lead:], *slot.shape[lead:])
