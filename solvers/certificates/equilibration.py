"""Guaranteed bounds of the error in the energy norm, discretisation included, by an equilibrated flux.

For −div(A∇u) = f and any σ that is balanced, −div σ = f inside and σ·n = g where nothing is prescribed (Prager & Synge,
1947),

    ‖u − v‖² = ∫ (∇u − ∇v)·A(∇u − ∇v) ≤ ∫ (σ − A∇v)·A⁻¹(σ − A∇v)

for every v with the right boundary values. In two dimensions on a domain without holes these are σ = σ_p + rot φ, with
one that is balanced (`solvers.certificates.particular_flux`; none is needed where f = g = 0), rot φ = (∂φ/∂y, −∂φ/∂x),
and φ constant along each stretch of natural boundary. The least right-hand side is the minimum of an energy of φ, with
A⁻¹ for A: the dual problem, solved by the same code. As both sides meet when u and φ are exact, the bound is as good as
v is. What σ_p leaves of f and g adds to the share of each cell, with λ the least eigenvalue of A there:

    ‖u − v‖² ≤ Σ_K (‖A^(−½)(σ − A∇v)‖_K + rest_K / √λ)².
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.forms.constraints import Dirichlet, MeanZero
from fem.forms.derivatives import differentiable
from fem.forms.energy import Energy
from fem.forms.lowering import cell_integrals
from fem.forms.parameters import CellPoints, Parameter
from fem.forms.term import Term
from fem.mesh.mesh import Mesh
from fem.mesh.tags import whole_facets
from fem.reference.lagrange import lagrange_element
from fem.space.field import gradient
from fem.space.space import FunctionSpace
from fem.support.arithmetic import dot
from fem.support.modes import outside_modes
from solvers.certificates.data import data, stiffness_jumps
from solvers.certificates.fine_quadrature import (
    Moments,
    batch_size,
    fine_degrees,
    integral_on,
    moments,
    portions,
    with_degree,
)
from solvers.certificates.particular_flux import particular_flux
from solvers.minimization import minimize

SEVERAL = 20  # points in one direction of cells in which A jumps
POINTS = 6  # added to the degree of the quadrature, since A⁻¹ is no polynomial


@dataclass(frozen=True, eq=False)
class FluxBound:
    """½ ∫ (σ − A∇v)·A⁻¹(σ − A∇v) as an energy of φ, the best φ, and what each cell adds as σ leaves it unbalanced.

    unknown: what is added to the bound because fine rules disagree about data that jump inside cells.
    """

    energy: Energy
    phi: Float[Tensor, "*b n"]
    params: tuple[Parameter, ...]
    rest: Float[Tensor, "*b e"] | None
    unknown: Float[Tensor, "*b"]

    @cached_property
    @outside_modes
    @torch.no_grad()
    def total(self) -> Float[Tensor, "*b"]:
        """What ‖u − v‖ is at most."""
        bound = (2 * self.energy(self.phi, *self.params)).clamp(min=0).sqrt()
        return bound + self.unknown if self.rest is None else bound + self.rest.norm(dim=-1) + self.unknown

    @property
    @outside_modes
    @torch.no_grad()
    def in_cells(self) -> Float[Tensor, "*b e"]:
        """Shares η of the cells with ‖u − v‖² ≤ Σ η²."""
        space, (term,) = self.energy.space, self.energy.terms
        assert isinstance(space, FunctionSpace)
        batch, parts = self.phi.shape[:-1], []
        for domain in portions(space, prod(batch)):
            integral = integral_on(space, term, domain, self.params)
            density = integral.integrand(integral.slots(self.phi), None, batch)
            parts.append((density * integral.geometry.weights).sum(-1))
        shares = (2 * torch.cat(parts, -1)).clamp(min=0).sqrt()
        if self.rest is not None:
            shares = shares + self.rest
        whole = shares.norm(dim=-1, keepdim=True)
        return shares * (1 + torch.where(whole > 0, self.unknown[..., None] / whole, 0))


@outside_modes
@torch.no_grad()
def flux_bound(energy: Energy, v: Tensor, params: Sequence[Parameter], jumps: bool = True) -> FluxBound | None:
    """What ‖u − v‖ is at most, u being the exact solution with v's boundary values; None where no flux is at hand.

    One is where the space is scalar on a plane domain without holes, the density is quadratic in ∇u plus −f u, and
    boundary terms are −g u, with f and g functions of x and parameters alone; cells are straight where there are such.

    Args:
        v: dofs that meet the constraint.
        jumps: whether data may jump inside cells, so that they are held against finer rules.
    """
    space = energy.space
    if not is_plane(energy):
        return None
    assert isinstance(space, FunctionSpace)
    term = energy.terms[0]
    free = natural_facets(energy)
    arcs = natural_arcs(space.mesh.facets[free])
    named = {f"natural boundary {i}": vertices for i, vertices in enumerate(arcs)}
    mesh = space.mesh.with_tags(facet_tags=named)
    W = FunctionSpace(mesh, space.family, quadrature_degree=space.quadrature_degree + POINTS)
    loaded = is_loaded(energy, v, params)
    if loaded is None or (loaded and any(block.degree > 1 for block in mesh.blocks)):
        return None
    names = list(named)
    if not jumps:
        return best_flux(W, energy, v, params, loaded, free, names)
    items = batch_size(W, term, params)
    degrees = fine_degrees(W, items)
    own, fine = (moments(W, term, params, degree, items)[0] for degree in (W.quadrature_degree, degrees[0]))
    make = lambda W: best_flux(W, energy, v, params, loaded, free, names, (fine, *degrees))  # noqa: E731
    if not bool(stiffness_jumps(own, fine).any()):
        return make(W)
    # Two rules that see the jumps, and the worse of both bounds with their difference on top.
    one, two = (make(with_degree(W, degree)) for degree in fine_degrees(W, items, SEVERAL))
    if one is None or two is None:
        return None
    return replace(one, unknown=one.unknown + (two.total - one.total).clamp(min=0) + (two.total - one.total).abs())


def best_flux(
    W: FunctionSpace,
    energy: Energy,
    v: Tensor,
    params: Sequence[Parameter],
    loaded: bool,
    free: Bool[Tensor, "f"],
    named: Sequence[str],
    finer: tuple[Moments, int, int] | None = None,
) -> FluxBound | None:
    """The bound by the space that φ is in; None where a part of the mesh has no way out.

    Args:
        free: facets where nothing is prescribed, which are tagged by `named`, stretch by stretch.
        finer: where data may jump, the degrees of two rules, after what the first of them says.
    """
    (term, *outer), rest, unknown = energy.terms, None, v.new_zeros(())
    given: tuple[Parameter, ...] = (gradient(energy.space.function(v)), *params)  # type: ignore[union-attr]
    if loaded:
        known = data(W, term, outer, params, free, finer)
        flux = particular_flux(W, known.loads, known.traces, ~free)
        if flux is None:
            return None
        rest, unknown = flux.rest + known.unseen * flux.per_load, known.unknown.sqrt() * extent(W.mesh)
        given = (CellPoints(flux.values, 1), *given)
    lowest = lowest_stiffness(W, term, params)
    if rest is not None or bool((lowest <= 0).any()):  # nothing is bounded where A is not positive
        rest = 0 if rest is None else rest
        rest = torch.where(lowest > 0, rest / lowest.clamp(min=0).sqrt(), torch.inf)
    least = lowest.amin(-1)
    unknown = torch.where((least > 0) & (unknown > 0), unknown / least.clamp(min=0).sqrt(), 0)
    density = dual_density(term.density, loaded)

    def solved(level: int) -> Tensor:
        """The best φ that is 1 on one stretch of natural boundary and 0 on the others."""
        held: Any = Dirichlet(W, {name: float(i == level) for i, name in enumerate(named)}) if named else MeanZero(W)
        return minimize(Energy(W, density, held), given, throw=False).value

    dual, phi = Energy(W, density), solved(-1)
    # φ depends linearly on its constants: the best ones make the energy stationary in them.
    steps = [solved(i) - phi for i in range(1, len(named))]
    if steps:
        lead = phi.ndim - 1
        slope = -dual.residual(phi, *given)
        images = [dual.hessian_product(phi, s, *given) for s in steps]
        matrix = torch.stack([torch.stack([dot(s, i, lead) for i in images], -1) for s in steps], -2)
        right = torch.stack([dot(slope, s, lead) for s in steps], -1)
        levels = torch.linalg.solve(matrix, right[..., None])[..., 0]
        for s, level in zip(steps, levels.unbind(-1), strict=True):
            phi = phi + level[..., None] * s
    return FluxBound(dual, phi, given, rest, unknown.expand(phi.shape[:-1]))


def extent(mesh: Mesh) -> Float[Tensor, ""]:
    """A length that no distance in the mesh exceeds."""
    return (mesh.nodes.amax(0) - mesh.nodes.amin(0)).norm()


def is_plane(energy: Energy) -> bool:
    """Whether u is scalar over a plane domain without holes, prescribed on parts of its boundary, with one density."""
    space, mesh = energy.space, energy.space.mesh
    plain = isinstance(space, FunctionSpace) and space.components is None and space.is_lagrange
    if not plain or mesh.dim != 2 or mesh.nodes.shape[-1] != 2 or not isinstance(energy.constraint, Dirichlet):
        return False
    if any(prescribed_facets(mesh, key) is None for key in energy.constraint.values):
        return False
    term, *outer = energy.terms
    if term.tag is not None or term.derivatives != 1 or any(t.tag is None or t.derivatives for t in outer):
        return False
    if any(bool((mesh.topology.facets.num_cells[mesh.facets_tagged(t.tag)] > 1).any()) for t in outer if t.tag):
        return False
    facets = mesh.facets
    # Euler: a disk has characteristic one
    return int(torch.unique(facets[facets >= 0]).numel()) - len(facets) + mesh.num_cells == 1


def is_loaded(energy: Energy, v: Tensor, params: Sequence[Parameter]) -> bool | None:
    """Whether densities depend on u; None where not by terms −f u and −g u alone, f and g being functions of x."""
    integrals = cell_integrals(energy.space, energy.terms, params)
    # ∂ψ/∂u is affine in u and ∇u: what is the same at 0 and at random is so everywhere, which v might not show.
    random = torch.randn(
        v.shape[-1:], generator=torch.Generator(v.device).manual_seed(0), dtype=v.dtype, device=v.device
    )
    found = False
    for integral in integrals:
        batch = integral.batch
        slots = [integral.slots(u.expand(*batch, -1)) for u in (random, torch.zeros_like(random))]
        moved, still = (integral.fluxes(differentiable(s), batch, False)[0] for s in slots)
        if moved is None or still is None:
            continue
        if bool((moved != still).any()):
            return None
        found = True
    return found


def lowest_stiffness(space: FunctionSpace, term: Term, params: Sequence[Parameter]) -> Float[Tensor, "*b e"]:
    """The lowest eigenvalue λ of A = ∂²ψ/∂∇u² at the nodes of degree 2 and at the quadrature points of each cell.

    λ is concave in A, so its minimum is at a vertex wherever A is linear in between.
    """
    zero, found = torch.zeros(space.shape, dtype=space.dtype, device=space.device), []
    for domain in portions(space, batch_size(space, term, params)):
        nodes = lagrange_element(domain.cell, 2).nodes
        inside = nodes.lerp(nodes.mean(0), 1e-6).to(zero)  # coefficients may jump between cells
        inside = torch.cat([inside, domain.points])
        domain = replace(domain, points=inside, weights=torch.ones_like(inside[:, 0]))
        integral = integral_on(space, term, domain, params)
        entries = integral.hessian(zero.expand(*integral.batch, -1), integral.batch).coefficients
        (matrix,) = (c.value for c in entries if (c.row, c.column) == ((0, 1), (0, 1)))
        (a, b), (_, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        found.append((0.5 * (a + d) - (0.25 * (a - d).square() + b * b).sqrt()).amin(-1))
    return torch.cat(found, -1)


def natural_facets(energy: Energy) -> Bool[Tensor, "f"]:
    """Boundary facets where nothing is prescribed."""
    mesh, constraint = energy.space.mesh, energy.constraint
    assert isinstance(constraint, Dirichlet)
    free = torch.zeros(len(mesh.facets), dtype=torch.bool, device=mesh.device)
    free[mesh.facets_tagged("boundary")] = True
    for key in constraint.values:
        free[prescribed_facets(mesh, key)] = False
    return free


def prescribed_facets(mesh: Mesh, key: Any) -> Int[Tensor, "f"] | None:
    """The facets that a key of `Dirichlet` holds; None where it holds single nodes or cells, which no flux knows of."""
    tag = key[0] if isinstance(key, tuple) else key
    if tag not in ("boundary", *mesh.facet_tags, *mesh.node_tags):
        return None
    facets = [] if tag in mesh.node_tags and tag not in mesh.facet_tags else [mesh.facets_tagged(tag)]
    if tag in mesh.node_tags:
        inside = torch.zeros(mesh.num_nodes, dtype=torch.bool, device=mesh.device)
        inside[mesh.nodes_tagged(tag)] = True
        facets.append(whole_facets(mesh.topology, inside))
        inside[mesh.topology.facet_nodes[facets[-1]]] = False
        if bool(inside[mesh.topology.vertex_nodes].any()):
            return None
    return torch.cat(facets)


def natural_arcs(facets: Int[Tensor, "f v"]) -> list[Int[Tensor, "_ v"]]:
    """The facets, by their vertices, of each connected stretch of them."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends, pairs = torch.unique(facets.cpu(), return_inverse=True)
    graph = coo_matrix(
        (torch.ones(len(pairs), dtype=torch.float32, device="cpu"), (pairs[:, 0], pairs[:, 1])),
        shape=(len(ends), len(ends)),
    )
    count, label = connected_components(graph, directed=False)
    labels = torch.from_numpy(label)[pairs[:, 0]].to(facets.device)
    return [facets[labels == i] for i in range(count)]


def dual_density(density: Callable[..., Tensor], loaded: bool) -> Callable[..., Tensor]:
    """½ (σ − A∇v)·A⁻¹(σ − A∇v), with A∇v = ∂ψ/∂∇u from the density ψ itself and σ = rot φ, plus σ_p where loaded.

    Arguments: x, φ, ∇φ, σ_p where loaded, ∇v, and those of ψ.
    """

    def dual(x: Tensor, phi: Tensor, grad_phi: Tensor, *given: Any) -> Tensor:
        *particular, grad_v = given[: 1 + loaded]
        params = given[1 + loaded :]

        def flux(g: Tensor) -> Tensor:
            with torch.enable_grad():
                g = g.detach().requires_grad_()
                value = density(x, torch.zeros_like(g[..., 0]), g, *params)
                return torch.autograd.grad(value.sum(), g)[0]

        start = flux(torch.zeros_like(grad_v))
        x_unit, y_unit = (
            torch.zeros_like(grad_v) + torch.eye(2, dtype=grad_v.dtype, device=grad_v.device)[i] for i in (0, 1)
        )
        (a, c), (b, d) = ((flux(e) - start).unbind(-1) for e in (x_unit, y_unit))
        sigma = torch.stack([grad_phi[..., 1], -grad_phi[..., 0]], -1)
        for part in particular:
            sigma = sigma + part
        p, q = (sigma - flux(grad_v)).unbind(-1)
        return 0.5 * (d * p * p - (b + c) * p * q + a * q * q) / (a * d - b * c)

    return dual
