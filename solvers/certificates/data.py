"""The data f and g that a balanced flux is made of, held against much finer rules than that of the flux.

Cell by cell (facet by facet for g) f is given the mean that the finer rule finds, and what the points of the flux do
not see of its variation is added to what the flux leaves over. Where they see something else altogether, as when f
jumps inside a cell, the flux balances the mean alone, and all of f − f̄ is left. What two fine rules disagree in, the
means themselves, is balanced by nothing: it adds

    ∫ ε e ≤ d / √λ ‖ε‖ ‖e‖

with the diameter d of the domain in the place of the constant in Friedrichs' inequality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.parameters import Parameter
from fem.forms.term import Term
from fem.mesh.geometry import Domain
from fem.reference.cells import interval
from fem.space.space import FunctionSpace
from solvers.certificates.fine_quadrature import Moments, batch_size, integral_on, moments, portions

MEAN, SQUARE = 1e-3, 1e-2  # differences between rules that quadrature of smooth data does not make
ROUNDING = 1e2


@dataclass(frozen=True, eq=False)
class Data:
    """f "*b e q" block by block; g "*b e q" by groups of facets; what their points do not see, and what nothing sees.

    unseen: ‖·‖ of it in each cell "*b e" and on each facet of each group; unknown: ‖ε‖² in all "*b".
    """

    loads: list[Float[Tensor, "..."]]
    unseen: Float[Tensor, "..."]
    traces: Sequence[tuple[Domain, Float[Tensor, "..."], Float[Tensor, "..."] | float]]
    unknown: Float[Tensor, "..."]


def data(
    space: FunctionSpace,
    term: Term,
    outer: Sequence[Term],
    params: Sequence[Parameter],
    free: Bool[Tensor, "f"],
    finer: tuple[Moments, int, int] | None,
) -> Data:
    """f = −∂ψ/∂u at the space's points and g on facets where nothing is prescribed.

    Args:
        finer: the degrees of two finer rules, after the moments by the first; None where data are smooth.
    """
    if finer is None:
        zero = torch.zeros(space.mesh.num_cells, dtype=space.dtype, device=space.device)
        groups = [(domain, g, 0.0) for domain, g in traces(space, outer, params, free)]
        return Data(loads(space, term, params), zero, groups, zero.new_zeros(()))
    fine, *degrees = finer
    items = batch_size(space, term, params)
    (own,) = moments(space, term, params, space.quadrature_degree, items)
    jumps = load_jumps(own, fine)
    unknown = own.load.new_zeros(())
    if bool(jumps.any()):
        unknown = unknown + disagreement(fine, moments(space, term, params, degrees[1], items)[0])
    found, start = [], 0
    for part in loads(space, term, params):
        cells = slice(start, start + part.shape[-2])
        found.append(balanced(part, own[cells], fine[cells], jumps[..., cells]))
        start = cells.stop
    groups = []
    for term in outer:
        given = traces(space, [term], params, free)
        own_g, fine_g, other_g = (moments(space, term, params, d, items) for d in (space.quadrature_degree, *degrees))
        for (domain, g), own_f, fine_f, other_f in zip(given, own_g, fine_g, other_g, strict=True):
            here = free[space.mesh.topology.entities(interval).of_cells[domain.block][domain.cells, domain.facet]]
            jumps_g = load_jumps(own_f, fine_f)
            groups.append(
                (domain, balanced(g, own_f, fine_f, jumps_g) * here[:, None], unseen(own_f, fine_f, jumps_g) * here)
            )
            unknown = unknown + disagreement(fine_f, other_f)
    return Data(found, unseen(own, fine, jumps), groups, unknown)


def load_jumps(own: Moments, fine: Moments) -> Bool[Tensor, "*b e"]:
    """Where a rule sees another function than a finer one: the mean or the mean square differ."""
    scale = (fine.load_square.sum(-1, keepdim=True) / fine.size.sum()).sqrt()
    return differs(own.load, fine.load, own.load_square, fine.load_square, scale, fine.size)


def stiffness_jumps(own: Moments, fine: Moments) -> Bool[Tensor, "*b e"]:
    size = fine.size[:, None]
    scale = (fine.stiffness_square.sum(-1, keepdim=True) / size).sqrt()
    pairs = own.stiffness, fine.stiffness, own.stiffness_square, fine.stiffness_square
    return differs(*pairs, scale, size).any(-1)


def differs(mean: Tensor, better: Tensor, square: Tensor, better_square: Tensor, scale: Tensor, size: Tensor) -> Tensor:
    first = (mean - better).abs() > MEAN * scale * size
    return first | ((square - better_square).abs() > SQUARE * scale.square() * size)


def balanced(f: Float[Tensor, "*b e q"], own: Moments, fine: Moments, jumps: Bool[Tensor, "*b e"]) -> Tensor:
    """f with the right mean in each cell; the mean alone where it jumps."""
    shifted = f + ((fine.load - own.load) / fine.size)[..., None]
    return torch.where(jumps[..., None], (fine.load / fine.size)[..., None], shifted)


def unseen(own: Moments, fine: Moments, jumps: Bool[Tensor, "*b e"]) -> Float[Tensor, "*b e"]:
    """‖·‖ of what the points of a rule do not see of f − f̄; all of it where f jumps."""
    rounding = ROUNDING * torch.finfo(fine.size.dtype).eps * fine.load_square
    more = fine.variation - torch.where(jumps, 0, own.variation)
    return torch.where(more > rounding, more, 0).sqrt()


def disagreement(fine: Moments, other: Moments) -> Float[Tensor, "*b"]:
    """‖ε‖² where ε is the difference of the means."""
    return ((fine.load - other.load).square() / fine.size).sum(-1)


def loads(space: FunctionSpace, term: Term, params: Sequence[Parameter]) -> list[Float[Tensor, "..."]]:
    """f = −∂ψ/∂u "*b e q" at the space's points, block by block."""
    parts: list[list[Tensor]] = [[] for _ in space.quadrature.domains()]
    for domain in portions(space, batch_size(space, term, params)):
        parts[domain.block].append(load(space, term, domain, params))
    return [torch.cat(part, -2) for part in parts]


def traces(
    space: FunctionSpace, terms: Sequence[Term], params: Sequence[Parameter], free: Bool[Tensor, "f"]
) -> list[tuple[Domain, Float[Tensor, "..."]]]:
    """g = −∂ψ/∂u "*b e q" of boundary terms, on facets where nothing is prescribed."""
    found = []
    for term in terms:
        for domain in space.quadrature.domains(term.tag):
            numbers = space.mesh.topology.entities(interval).of_cells[domain.block][domain.cells, domain.facet]
            found.append((domain, load(space, term, domain, params) * free[numbers, None]))
    return found


def load(space: FunctionSpace, term: Term, domain: Domain, params: Sequence[Parameter]) -> Float[Tensor, "*b e q"]:
    """Minus the derivative of a density in u, which does not depend on u."""
    integral = integral_on(space, term, domain, params)
    zero = torch.zeros(space.shape, dtype=space.dtype, device=space.device)
    u, *grad = integral.slots(zero.expand(*integral.batch, -1))
    with torch.enable_grad():
        u.requires_grad_()
        value = integral.integrand([u, *grad], None, integral.batch).expand(u.shape).sum()
        (slope,) = torch.autograd.grad(value, u, allow_unused=True) if value.requires_grad else (None,)
    return torch.zeros_like(u.detach()) if slope is None else -slope
