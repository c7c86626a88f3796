"""Guaranteed bounds of the error in the energy norm, discretisation included, by an equilibrated flux.

For −div(A∇u) = 0 and any σ that is balanced, div σ = 0 inside and σ·n = 0 where nothing is prescribed (Prager & Synge,
1947),

    ‖u − v‖² = ∫ (∇u − ∇v)·A(∇u − ∇v) ≤ ∫ (σ − A∇v)·A⁻¹(σ − A∇v)

for every v with the right boundary values. In two dimensions on a domain without holes σ = rot φ = (∂φ/∂y, −∂φ/∂x) is
balanced for every φ that is constant along each stretch of natural boundary. The least right-hand side is the minimum
of an energy of φ, with A⁻¹ for A: the dual problem, solved by the same code. As both sides meet when u and φ are exact,
the bound is as good as v is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.boundary import Dirichlet, MeanZero
from fem.energy import Energy
from fem.lowered import differentiable
from fem.parameters import Parameter, gradient
from fem.space import FunctionSpace
from solvers.minimization import minimize
from solvers.solution import dot

POINTS = 6  # added to the degree of the quadrature, since A⁻¹ is no polynomial


def flux_bound(energy: Energy, v: Tensor, params: Sequence[Parameter]) -> Float[Tensor, "*b"] | None:
    """What ‖u − v‖ is at most, u being the exact solution with v's boundary values; None where no flux is at hand.

    One is where the space is scalar on a plane domain without holes, the density depends on x and ∇u alone and is
    quadratic, and there are no boundary terms.

    Args:
        v: dofs that meet the constraint.
    """
    space = energy.space
    if not is_pure_diffusion(energy, v, params):
        return None
    assert isinstance(space, FunctionSpace)
    arcs = natural_arcs(energy)
    named = {f"natural boundary {i}": vertices for i, vertices in enumerate(arcs)}
    mesh = space.mesh.with_tags(facet_tags=named)
    W = FunctionSpace(mesh, space.family, quadrature_degree=space.quadrature_degree + POINTS)
    density, given = dual_density(energy.terms[0].density), (gradient(space.function(v)), *params)

    def solved(level: int) -> Tensor:
        """The best φ that is 1 on one stretch of natural boundary and 0 on the others."""
        held: Any = Dirichlet(W, {name: float(i == level) for i, name in enumerate(named)}) if named else MeanZero(W)
        return minimize(Energy(W, density, held), given, throw=False).value

    free, phi = Energy(W, density), solved(-1)
    # φ depends linearly on its constants: the best ones make the energy stationary in them.
    steps = [solved(i) - phi for i in range(1, len(arcs))]
    if steps:
        lead = phi.ndim - 1
        slope = -free.residual(phi, *given)
        images = [free.hessian_product(phi, s, *given) for s in steps]
        matrix = torch.stack([torch.stack([dot(s, i, lead) for i in images], -1) for s in steps], -2)
        right = torch.stack([dot(slope, s, lead) for s in steps], -1)
        levels = torch.linalg.solve(matrix, right[..., None])[..., 0]
        for s, level in zip(steps, levels.unbind(-1), strict=True):
            phi = phi + level[..., None] * s
    return (2 * free(phi, *given)).clamp(min=0).sqrt()


def is_pure_diffusion(energy: Energy, v: Tensor, params: Sequence[Parameter]) -> bool:
    """Whether the energy is ∫ ½∇u·A∇u over a plane domain without holes, u prescribed on parts of its boundary."""
    space, mesh = energy.space, energy.space.mesh
    plain = isinstance(space, FunctionSpace) and space.components is None and space.is_lagrange
    if not plain or mesh.dim != 2 or mesh.nodes.shape[-1] != 2 or not isinstance(energy.constraint, Dirichlet):
        return False
    if len(energy.terms) != 1 or energy.terms[0].derivatives != 1:
        return False
    facets = mesh.facets
    if int(torch.unique(facets[facets >= 0]).numel()) - len(facets) + mesh.num_cells != 1:
        return False  # Euler: a disk has characteristic one
    lowered = energy.lower(params, fused=False).detach()
    # ∂ψ/∂u is affine in u and ∇u: where it vanishes at random it does so everywhere, which v alone might not show.
    u = torch.randn(v.shape, generator=torch.Generator(v.device).manual_seed(0), dtype=v.dtype, device=v.device)
    for t in lowered.terms:
        source, _ = lowered.fluxes(t, differentiable(lowered.slots(t, u)), lowered.full_batch(u), False)
        if source is not None and bool((source != 0).any()):
            return False
    return True


def natural_arcs(energy: Energy) -> list[Int[Tensor, "f v"]]:
    """The facets, by their vertices, of each connected stretch of boundary where nothing is prescribed."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    mesh, constraint = energy.space.mesh, energy.constraint
    assert isinstance(constraint, Dirichlet)
    free = torch.zeros(len(mesh.facets), dtype=torch.bool)
    free[mesh.facets_tagged("boundary").cpu()] = True
    for key in constraint.values:
        free[mesh.facets_tagged(key[0] if isinstance(key, tuple) else key).cpu()] = False
    vertices = mesh.facets.cpu()[free]
    ends, pairs = torch.unique(vertices, return_inverse=True)
    graph = coo_matrix((torch.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ends), len(ends)))
    count, label = connected_components(graph, directed=False)
    labels = torch.from_numpy(label)[pairs[:, 0]]
    return [vertices[labels == i].to(mesh.device) for i in range(count)]


def dual_density(density: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """½ (rot φ − A∇v)·A⁻¹(rot φ − A∇v), with A∇v = ∂ψ/∂∇u from the density ψ itself."""

    def dual(x: Tensor, phi: Tensor, grad_phi: Tensor, grad_v: Tensor, *params: Any) -> Tensor:
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
        p, q = (torch.stack([grad_phi[..., 1], -grad_phi[..., 0]], -1) - flux(grad_v)).unbind(-1)
        return 0.5 * (d * p * p - (b + c) * p * q + a * q * q) / (a * d - b * c)

    return dual
