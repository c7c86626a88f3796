"""What the quadrature of a space does not see of data that jump inside cells, by rules that are much finer.

No rule sees everything, so there are two: what they disagree in is what is not known, and bounds leave room for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.forms.cell_integral import CellIntegral
from fem.forms.derivatives import differentiable
from fem.forms.lowering import cell_integral
from fem.forms.parameters import Parameter
from fem.forms.term import Term
from fem.mesh.geometry import Domain
from fem.space.space import FunctionSpace
from fem.support.portions import at_a_time

POINTS = 2**17  # of the finest rules, all cells and items together
DIRECTION = (0.8, 0.53, 0.31)  # along which a density is sampled, none of the axes
SMOOTH = 1e-4  # relative differences that quadrature of smooth data stays below
MOST = 48  # of them in one direction of a cell


def fine_degrees(space: FunctionSpace, items: int, most: int = MOST) -> tuple[int, int]:
    """The degrees of two rules that share no points, the finer one first."""
    each = POINTS / max(space.mesh.num_cells * items, 1)
    least = space.degree + (space.mesh.curved_degree + 1) // 2
    points = min(max(int(each ** (1 / space.mesh.dim)), least + 5), most)
    return 2 * points - 1, 2 * max(round(0.8 * points), least + 4) - 1


def with_degree(space: FunctionSpace, degree: int) -> FunctionSpace:
    """The same space with another quadrature; what is kept for its points goes with it."""
    return FunctionSpace(space.mesh, space.family, space.components, degree)


def data_jump(space: FunctionSpace, terms: Sequence[Term], params: Sequence[Parameter]) -> bool:
    """Whether a finer rule sees other data than that of the space does: densities at a fixed u, and at a fixed ∇u."""
    items = batch_size(space, terms[0], params)
    least = 2 * space.degree + 3 + space.mesh.curved_degree
    own, fine = max(least, space.quadrature_degree), fine_degrees(space, items)[0]
    return any(
        differ(a, b, SMOOTH)
        for t in terms
        for a, b in zip(*[samples(space, t, params, d) for d in (own, fine)], strict=True)
    )


def samples(space: FunctionSpace, term: Term, params: Sequence[Parameter], degree: int) -> list[Tensor]:
    """∫ ψ and ∫ ψ² "2 *b e" in cells or on facets, at u = 1 and ∇u = 0 and the other way round, and their sizes."""
    found = []
    for domain in space.quadrature.domains(term.tag, degree):
        integral = integral_on(space, term, domain, params)
        points, batch = integral.geometry.points, integral.batch
        weights = integral.geometry.weights.expand(points.shape[:2])
        shape = (*points.shape[:2], *space.shape[1:])
        u, grad = points.new_ones(shape), points.new_tensor(DIRECTION[: space.mesh.dim]).expand(*shape, -1)
        states = [[u, 0 * grad], [0 * u, grad]] if term.derivatives else [[u]]
        for state in states:
            value = integral.integrand(state, None, batch).expand(*batch, *points.shape[:2])
            sums = [(x * weights).sum(-1) for x in (value, value.square())]
            found.append(torch.stack([*sums, weights.sum(-1).expand_as(sums[0])]))
    return found


def differ(own: Tensor, fine: Tensor, tolerance: float) -> bool:
    """Whether means or mean squares differ in some cell, measured by what the function is there."""
    mean, square, size = fine
    scale = (square / size).sqrt()
    return bool(
        (((own[0] - mean).abs() > tolerance * scale * size) | ((own[1] - square).abs() > 10 * tolerance * square)).any()
    )


def tested(
    space: FunctionSpace, terms: Sequence[Term], params: Sequence[Parameter], v: Tensor, e: Tensor, degree: int
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """−J′(v)·e and e·J″e of a quadratic energy J, by a rule of that degree."""
    fine, lead = with_degree(space, degree), v.ndim - len(space.shape)
    found = v.new_zeros(2, *v.shape[:lead])
    for term in terms:
        domains = fine.quadrature.domains(term.tag)
        for domain in portions(fine, prod(found.shape[1:])) if term.tag is None else domains:
            integral = integral_on(fine, term, domain, params)
            at_v, at_e, at_zero = (integral.slots(u) for u in (v, e, torch.zeros_like(e)))
            batch = tuple(found.shape[1:])
            fluxes = [integral.fluxes(differentiable(s), batch, False) for s in (at_v, at_e, at_zero)]
            weights = integral.geometry.weights
            for a, b, c, along in zip(*fluxes, at_e, strict=True):
                if a is not None and b is not None and c is not None:
                    for i, flux in enumerate((-a, b - c)):
                        product = (flux * along).reshape(*along.shape[: lead + 2], -1).sum(-1)
                        found[i] += (product * weights).sum((-2, -1))
    return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Moments:
    """∫ f and ∫ f² "*b e" of a term's load f = −∂ψ/∂u in cells, or on facets; those of ∂²ψ/∂∇u² "*b e k"; sizes "e"."""

    load: Float[Tensor, "*b e"]
    load_square: Float[Tensor, "*b e"]
    stiffness: Float[Tensor, "*b e k"]
    stiffness_square: Float[Tensor, "*b e k"]
    size: Float[Tensor, "e"]

    def __getitem__(self, cells: slice) -> "Moments":
        """Of some cells."""
        over_k = self.stiffness[..., cells, :], self.stiffness_square[..., cells, :]
        return Moments(self.load[..., cells], self.load_square[..., cells], *over_k, self.size[cells])

    @property
    def variation(self) -> Float[Tensor, "*b e"]:
        """∫ (f − f̄)² with the mean f̄ in each cell."""
        return (self.load_square - self.load.square() / self.size).clamp(min=0)


def moments(space: FunctionSpace, term: Term, params: Sequence[Parameter], degree: int, items: int) -> list[Moments]:
    """Of scalar problems by a rule of that degree: of all cells together, or of each group of tagged facets."""
    fine, zero = with_degree(space, degree), torch.zeros(space.shape, dtype=space.dtype, device=space.device)
    parts = []
    for domain in portions(fine, items) if term.tag is None else fine.quadrature.domains(term.tag):
        integral = integral_on(fine, term, domain, params)
        geometry, batch = integral.geometry, integral.batch
        shape = (*batch, *geometry.points.shape[:2])
        weights = geometry.weights.expand(shape[-2:])
        u = zero.expand(*batch, -1)
        flux = integral.fluxes(differentiable(integral.slots(u)), batch, False)[0]
        f = zero.new_zeros(shape) if flux is None else -flux.expand(shape)
        a = zero.new_zeros(*shape, 0)
        if term.tag is None:
            entries = [
                c.value for c in integral.hessian(u, batch).coefficients if (c.row, c.column) == ((0, 1), (0, 1))
            ]
            a = torch.cat([x.expand(*shape, *x.shape[len(shape) :]).flatten(len(shape)) for x in entries], -1)
        values = [(f * weights).sum(-1), (f.square() * weights).sum(-1)]
        values += [torch.einsum("...eqk,eq->...ek", x, weights) for x in (a, a.square())]
        parts.append(Moments(values[0], values[1], values[2], values[3], weights.sum(-1)))
    if term.tag is not None:
        return parts
    names = (("load", -1), ("load_square", -1), ("stiffness", -2), ("stiffness_square", -2), ("size", -1))
    return [Moments(*[torch.cat([getattr(p, name) for p in parts], axis) for name, axis in names])]


def integral_on(space: FunctionSpace, term: Term, domain: Domain, params: Sequence[Parameter]) -> CellIntegral:
    """One term on one domain; its geometry does not stay with the space."""
    return cell_integral(space, term, domain, params, keep=False).detach()


def batch_size(space: FunctionSpace, term: Term, params: Sequence[Parameter]) -> int:
    """How many items the parameters have."""
    first = replace(space.quadrature.domains()[0], cells=some_cells(space, 1))
    return prod(integral_on(space, term, first, params).batch)


def some_cells(space: FunctionSpace, count: int) -> Int[Tensor, "e"]:
    return torch.arange(count, device=space.device)


def portions(space: FunctionSpace, items: int) -> Iterator[Domain]:
    """All cells in order, so many at a time that what is made at their points stays in the caches."""
    for domain in space.quadrature.domains():
        count = space.mesh.blocks[domain.block].num_cells
        vectors = items * len(domain.weights) * space.mesh.dim
        for cells in some_cells(space, count).split(at_a_time(vectors, space)):
            yield replace(domain, cells=cells)
