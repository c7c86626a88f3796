"""A flux that balances given loads cell by cell, on every plane mesh of straight triangles and quadrilaterals.

    −div σ = f inside,    σ·n = g where nothing is prescribed

up to what polynomials on each cell leave of f and g. Flows through facets come first: a tree of cells, rooted outside
where values are prescribed, carries the load of each cell there. In a cell with outward flows F_k and ρ̂ = −f det J,

    σ = J / det J (Σ_k F_k R_k + τ),    div̂ Σ_k F_k R_k = Σ_k F_k / |K̂| = mean ρ̂,    div̂ τ ≈ ρ̂ − mean ρ̂,

R_k being the lowest-order field of Raviart and Thomas with flow 1 through facet k alone, and τ the least polynomial
field without flow through any facet that leaves least of ρ̂. The flux of least energy among those with the same
divergence is found elsewhere (`solvers.equilibration`): here any will do.

What is left, r = f + div σ, has mean zero in each cell, so that by the inequality of Payne and Weinberger (1960; Bebendorf,
2003) for convex cells of diameter h

    ∫_K r e ≤ (h / π) ‖r‖_K ‖∇e‖_K.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.cells import Cell, interval
from fem.mesh import Mesh
from fem.quadrature import quadrature
from fem.space import FunctionSpace


@dataclass(frozen=True, eq=False)
class ParticularFlux:
    """values: σ at the space's quadrature points, "*b e q d" block by block; rest: (h / π) ‖f + div σ‖ "*b e"."""

    values: tuple[Float[Tensor, "*b _ _ 2"], ...]
    rest: Float[Tensor, "*b e"]


def particular_flux(
    space: FunctionSpace, loads: Sequence[Float[Tensor, "..."]], prescribed: Bool[Tensor, "f"]
) -> ParticularFlux | None:
    """A flux for loads f "*b e q" at the quadrature points of each block; None where a part of the mesh has no way out.

    Args:
        prescribed: which boundary facets let flux out.
    """
    mesh = space.mesh
    domains = space.domains()
    geometries = [space.geometry(d) for d in domains]
    total = torch.cat([(f * g.weights).sum(-1) for f, g in zip(loads, geometries, strict=True)], -1)
    flows = cell_flows(mesh, total, prescribed)
    if flows is None:
        return None
    values, rest = [], []
    for domain, geometry, f, flow in zip(domains, geometries, loads, flows, strict=True):
        raviart_thomas, bubble, projection = (
            t.to(f) for t in reference_fields(domain.cell, space.degree, space.quadrature_degree)
        )
        weights = domain.weights.to(f)
        det = geometry.weights / weights
        density = -f * det
        density = density - (density @ weights)[..., None] / weights.sum()
        field = torch.einsum("...ek,kqr->...eqr", flow, raviart_thomas)
        field = field + torch.einsum("...eq,qpr->...epr", density, bubble)
        (a, b), (c, d) = (row.unbind(-1) for row in geometry.inverse.unbind(-2))
        x, y = field.unbind(-1)
        values.append(torch.stack([d * x - b * y, a * y - c * x], -1))  # J / det J is the adjugate of ∂ξ/∂x
        left = density - density @ projection
        corners = mesh.nodes[mesh.blocks[domain.block].connectivity[:, : domain.cell.num_vertices]]
        diameter = torch.cdist(corners, corners).flatten(1).amax(1)
        rest.append(diameter / pi * (left.square() / det * weights).sum(-1).sqrt())
    return ParticularFlux(tuple(values), torch.cat(rest, -1))


def cell_flows(
    mesh: Mesh, load: Float[Tensor, "*b e"], prescribed: Bool[Tensor, "f"]
) -> list[Float[Tensor, "*b _ _"]] | None:
    """Outward flows "*b e k" through the facets of each cell that add up to minus its load, block by block."""
    numbers = mesh.topology.entities(interval).of_cells
    cells = torch.cat([torch.arange(n.shape[0], device=n.device).repeat_interleave(n.shape[1]) + s for n, s in zip(
        numbers, mesh.block_starts, strict=False)])
    flat = torch.cat([n.flatten() for n in numbers])
    outside, count = mesh.num_cells, len(mesh.facets)
    # The two sides of each facet: its first cell, and its last or the outside.
    first, last = (
        torch.full((count,), fill, device=flat.device).scatter_reduce(0, flat, cells, how)
        for fill, how in ((outside, "amin"), (-1, "amax"))
    )
    last = torch.where(first == last, torch.where(prescribed, outside, -1), last)
    tree = flow_tree(first, last, outside)
    if tree is None:
        return None
    order, parent, facet, levels = tree
    carried = torch.cat([load, torch.zeros_like(load[..., :1])], -1)[..., order]
    for start, end in levels[::-1]:
        carried.index_add_(-1, parent[start:end], carried[..., start:end])
    flow = load.new_zeros(*load.shape[:-1], count)  # from the first cell of each facet to the last
    flow[..., facet] = torch.where(first[facet] == order[1:], -carried[..., 1:], carried[..., 1:])
    outward = torch.where(first[flat] == cells, flow[..., flat], -flow[..., flat])
    parts = outward.split([n.numel() for n in numbers], -1)
    return [part.unflatten(-1, n.shape) for part, n in zip(parts, numbers, strict=True)]


def flow_tree(
    first: Int[Tensor, "f"], last: Int[Tensor, "f"], root: int
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "m"], list[tuple[int, int]]] | None:
    """The shortest ways of all cells to the root, through facets between `first` and `last` (−1: closed).

    Returns:
        Cells in the order of their distance, the root first; where in that order the next on each one's way stands; the
        facet in between, for all but the root; and the slices of the order that share a distance. None if some cell
        has no way.
    """
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order

    facets = torch.nonzero(last >= 0).flatten()
    a, b = first[facets].cpu().numpy(), last[facets].cpu().numpy()
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(root + 1, root + 1)).tocsr()
    order, before = breadth_first_order(graph, root, directed=False)
    if len(order) <= root:
        return None
    key = np.concatenate([a * (root + 1) + b, b * (root + 1) + a])
    sort = key.argsort(kind="stable")
    at = np.searchsorted(key[sort], order[1:].astype(np.int64) * (root + 1) + before[order[1:]])
    position = np.empty(root + 1, dtype=np.int64)
    position[order] = np.arange(root + 1)
    parent = np.concatenate([[-1], position[before[order[1:]]]])
    # Parents stand in ascending order, so a level starts with the first whose parent belongs to the level before.
    bounds = [0, 1]
    while bounds[-1] <= root:
        bounds.append(int(np.searchsorted(parent, bounds[-1])))
    to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(first.device, torch.int64)  # noqa: E731
    levels = list(zip(bounds[1:], bounds[2:], strict=False))
    return to(order), to(parent), facets[to(sort[at] % len(a))], levels


@cache
def reference_fields(
    cell: Cell, degree: int, quadrature_degree: int
) -> tuple[Float[Tensor, "k q r"], Float[Tensor, "q q r"], Float[Tensor, "q q"]]:
    """At quadrature points: R_k; the least τ, and its divergence, for a density 1 at each point and 0 at all others.

    τ is a polynomial without normal component on the boundary: λ_i λ_j times the tangent of each edge on the triangle, a
    bubble along each axis on the square, both times polynomials of the given degree.
    """
    rule = quadrature(cell, quadrature_degree)
    x, root = rule.points, rule.weights.sqrt()
    lowest = []
    for facet, normal in zip(cell.facets, cell.facet_normals, strict=True):
        away = next(v for i, v in enumerate(cell.vertices) if i not in facet)
        ray = x - torch.tensor(away, dtype=x.dtype)
        lowest.append(ray if cell.is_simplex else (ray @ normal)[:, None] * normal)
    values = bubbles(cell, degree, x)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda p: bubbles(cell, degree, p[None])[0]))(x)
    divergence = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Combinations of norm one, so that least coefficients make the least field.
    _, s, v = torch.linalg.svd((root[:, None, None] * values).transpose(1, 2).flatten(0, 1), full_matrices=False)
    some = s > 1e-10 * s[0]
    change = v[some].T / s[some]
    weighted = root[:, None] * (divergence @ change)
    inverse = torch.linalg.pinv(weighted, rtol=1e-10).T * root[:, None]  # "q m"
    return (
        torch.stack(lowest),
        torch.einsum("qm,pnr,nm->qpr", inverse, values, change),
        torch.einsum("qm,pn,nm->qp", inverse, divergence, change),
    )


def bubbles(cell: Cell, degree: int, x: Float[Tensor, "q r"]) -> Float[Tensor, "q m r"]:
    """Polynomial fields without normal component on the boundary of the cell."""
    s, t = x.unbind(-1)
    if cell.is_simplex:
        corner = (1 - s - t, s, t)
        edges = [(i, j, torch.tensor(cell.vertices[j], dtype=x.dtype) - torch.tensor(cell.vertices[i])) for i, j in cell.edges]
        shapes = [(corner[i] * corner[j])[:, None] * tangent for i, j, tangent in edges]
    else:
        axes = torch.eye(2, dtype=x.dtype)
        shapes = [(y * (1 - y))[:, None] * axis for y, axis in zip((s, t), axes, strict=True)]
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1) if not cell.is_simplex or i + j <= degree]
    return torch.stack([shape * (s**i * t**j)[:, None] for shape in shapes for i, j in powers], 1)
