"""A flux that balances given loads cell by cell, on every plane mesh of straight triangles and quadrilaterals.

    −div σ = f inside,    σ·n = g where nothing is prescribed

up to what polynomials on each cell and facet leave of f and g. Flows through facets come first: a tree of cells, rooted
outside where values are prescribed, carries the load of each cell there. Then, in a cell with ρ̂ = −f det J,

    σ = J / det J (Σ_k,m F_km ℓ_m R_k + τ),    div̂ τ ≈ ρ̂ − Σ_k,m F_km div̂ (ℓ_m R_k).

R_k is the lowest-order field of Raviart and Thomas with flow 1 through facet k alone, ℓ_m the Legendre polynomial along
it; m > 0 serves g alone. τ is the least polynomial field without flow through any facet that leaves least. The flux of
least energy among those with the same divergence is found elsewhere (`solvers.certificates.equilibration`): here any
will do.

What is left, r = f + div σ and s = g − σ·n, has mean zero in each cell and on each facet γ. In convex cells K of
diameter h, with the triangle T between γ and another corner of K,

    ∫_K r e ≤ (h / π) ‖r‖_K ‖∇e‖_K,    ∫_γ s e ≤ h √(|γ| / |T| (1/π + 1/π²)) ‖s‖_γ ‖∇e‖_K

by the inequality of Payne and Weinberger (1960; Bebendorf, 2003) and div((e − ē)² (x − corner)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.mesh.geometry import Domain
from fem.mesh.mesh import Mesh
from fem.reference.cells import Cell, interval
from fem.reference.quadrature import quadrature
from fem.space.space import FunctionSpace
from fem.support.arithmetic import common_batch
from fem.support.transforms import outside_transforms


@dataclass(frozen=True, eq=False)
class ParticularFlux:
    """σ at the space's quadrature points, "*b e q d" block by block, and what ∫ r e + ∫ s e is at most, over ‖∇e‖_K.

    per_load: what a unit of ‖r‖_K adds to the latter.
    """

    values: tuple[Float[Tensor, "*b _ _ 2"], ...]
    rest: Float[Tensor, "*b e"]
    per_load: Float[Tensor, "e"]


def particular_flux(
    space: FunctionSpace,
    loads: Sequence[Float[Tensor, "*b _ _"]],
    traces: Sequence[tuple[Domain, Float[Tensor, "..."], Float[Tensor, "..."] | float]],
    prescribed: Bool[Tensor, "f"],
) -> ParticularFlux | None:
    """A flux for given f and g; None where a part of the mesh has no way out.

    Args:
        loads: f "*b e q" at the quadrature points of each block.
        traces: g "*b e q" at the points of groups of boundary facets, zero on all others, and ‖·‖_γ of what these
            points do not see.
        prescribed: which boundary facets let flux out.
    """
    mesh, parts = space.mesh, list(zip(space.quadrature.domains(), loads, strict=True))
    total = torch.cat([(f * space.quadrature.geometry(domain).weights).sum(-1) for domain, f in parts], -1)
    given, left_on_facets = boundary_flows(space, traces)
    flows = cell_flows(mesh, total, given, prescribed)
    if flows is None:
        return None
    values, rest = [], []
    per_load = torch.cat([diameters(mesh, i) / pi for i in range(len(mesh.blocks))])
    for (domain, f), flow in zip(parts, flows, strict=True):
        tables = reference_fields(domain.cell, space.degree, space.quadrature_degree, given.shape[-1])
        lowest, divergence, bubble, projection = (t.to(f) for t in tables)
        geometry, weights = space.quadrature.geometry(domain), domain.weights.to(f)
        det = geometry.weights / weights
        density = -f * det - torch.einsum("...ekm,kmq->...eq", flow, divergence)
        field = torch.einsum("...ekm,kmqr->...eqr", flow, lowest) + torch.einsum("...eq,qpr->...epr", density, bubble)
        (a, b), (c, d) = (row.unbind(-1) for row in geometry.inverse.unbind(-2))
        x, y = field.unbind(-1)
        values.append(torch.stack([d * x - b * y, a * y - c * x], -1))  # J / det J is the adjugate of ∂ξ/∂x
        left = ((density - density @ projection).square() / det * weights).sum(-1).sqrt()
        rest.append(left)
    return ParticularFlux(tuple(values), torch.cat(rest, -1) * per_load + left_on_facets, per_load)


def diameters(mesh: Mesh, block: int) -> Float[Tensor, "e"]:
    """The largest distance in each cell of a block."""
    corners = mesh.nodes[mesh.blocks[block].connectivity[:, : mesh.blocks[block].cell.num_vertices]]
    return torch.cdist(corners, corners).flatten(1).amax(1)


def boundary_flows(
    space: FunctionSpace, traces: Sequence[tuple[Domain, Float[Tensor, "..."], Float[Tensor, "..."] | float]]
) -> tuple[Float[Tensor, "*b f m"], Float[Tensor, "*b e"]]:
    """F_m outward through all facets, zero where g is, and what is left of g, as it adds to each cell's rest."""
    mesh, modes = space.mesh, space.degree + 2 if traces else 1
    batch = common_batch(*[g.shape[:-2] for _, g, _ in traces])
    flows = torch.zeros(*batch, len(mesh.facets), modes, dtype=space.dtype, device=space.device)
    rest = flows.new_zeros(*batch, mesh.num_cells)
    for domain, g, unseen in traces:
        assert domain.cells is not None
        assert domain.facet is not None
        block, facet, weights = mesh.blocks[domain.block], domain.cell.facets[domain.facet], domain.weights.to(g)
        origin, tangents = domain.cell.frame(facet)
        t = (domain.points.to(g) - origin.to(g)) @ tangents[0].to(g) / tangents[0].square().sum()
        shapes = legendre(t, modes)  # "m q"
        length = space.quadrature.geometry(domain).weights / weights
        moments = ((g * length) @ (weights * shapes).T) * (2 * torch.arange(modes, device="cpu").to(g) + 1)
        numbers = mesh.topology.entities(interval).of_cells[domain.block][domain.cells, domain.facet]
        flows.index_add_(-2, numbers, moments.expand(*batch, *moments.shape[-2:]))
        left = ((g - moments @ shapes / length).square() * length * weights).sum(-1).sqrt() + unseen
        away = next(i for i in range(domain.cell.num_vertices) if i not in facet)
        a, b, c = mesh.nodes[block.connectivity[domain.cells][:, [*facet, away]]].unbind(1)
        (x, y), (z, w) = (b - a).unbind(-1), (c - a).unbind(-1)
        area = 0.5 * (x * w - y * z).abs()
        h = diameters(mesh, domain.block)[domain.cells]
        left = h * (length[..., 0] / area * (1 / pi + 1 / pi**2)).sqrt() * left
        rest.index_add_(-1, domain.cells + mesh.block_starts[domain.block], left.expand(*batch, -1))
    return flows, rest


def cell_flows(
    mesh: Mesh, load: Float[Tensor, "*b e"], given: Float[Tensor, "*#b f m"], prescribed: Bool[Tensor, "f"]
) -> list[Float[Tensor, "*_ _ _ m"]] | None:
    """Outward flows "*b e k m" through the facets of each cell that add up to minus its load, block by block.

    Args:
        given: outward flows through the boundary where nothing is prescribed, zero elsewhere.
    """
    numbers = mesh.topology.entities(interval).of_cells
    flat = torch.cat([n.flatten() for n in numbers])
    widths = torch.cat([torch.full_like(n[:, 0], n.shape[1]) for n in numbers])
    cells = torch.arange(mesh.num_cells, device=flat.device).repeat_interleave(widths)
    outside, count = mesh.num_cells, len(mesh.facets)
    # The two sides of each facet: its first cell, and its last or the outside.
    first = torch.full((count,), outside, device=flat.device).scatter_reduce(0, flat, cells, "amin")
    last = torch.full((count,), -1, device=flat.device).scatter_reduce(0, flat, cells, "amax")
    last = torch.where(first == last, torch.where(prescribed, outside, -1), last)
    tree = flow_tree(first, last, outside)
    if tree is None:
        return None
    order, parent, facet, levels = tree
    batch = common_batch(load.shape[:-1], given.shape[:-2])
    carried = load.new_zeros(*batch, outside + 1)
    carried[..., :-1] = load
    carried.index_add_(-1, first, given[..., 0].expand(*batch, -1))
    carried = carried[..., order]
    for start, end in levels[::-1]:
        carried.index_add_(-1, parent[start:end], carried[..., start:end].clone())
    flow = given.expand(*batch, -1, -1).clone()  # from the first cell of each facet to the last
    flow[..., facet, 0] = torch.where(first[facet] == order[1:], -carried[..., 1:], carried[..., 1:])
    outward = torch.where((first[flat] == cells)[:, None], flow[..., flat, :], -flow[..., flat, :])
    parts = outward.split([n.numel() for n in numbers], -2)
    return [part.unflatten(-2, n.shape) for part, n in zip(parts, numbers, strict=True)]


def flow_tree(
    first: Int[Tensor, "f"], last: Int[Tensor, "f"], root: int
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "_"], list[tuple[int, int]]] | None:
    """The shortest ways of all cells to the root, through facets between `first` and `last` (−1: closed).

    Returns:
        Cells in the order of their distance, the root first; where in that order the next on each one's way stands; the
        facet in between, for all but the root; and the slices of the order that share a distance, without the root's.
        None if some cell has no way.
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
    order, before = order.astype(np.int64), before[order[1:]].astype(np.int64)
    key = np.concatenate([a * (root + 1) + b, b * (root + 1) + a])
    sort = key.argsort(kind="stable")
    between = sort[np.searchsorted(key[sort], order[1:] * (root + 1) + before)] % len(a)
    parent = np.concatenate([[-1], order.argsort()[before]])
    # Parents stand in ascending order, so a level starts with the first whose parent belongs to the level before.
    bounds = [0, 1]
    while bounds[-1] <= root:
        bounds.append(int(np.searchsorted(parent, bounds[-1])))
    order, parent, between = (torch.from_numpy(t).to(first.device) for t in (order, parent, between))
    return order, parent, facets[between], list(pairwise(bounds[1:]))


@lru_cache(maxsize=16)
@outside_transforms()
def reference_fields(
    cell: Cell, degree: int, quadrature_degree: int, modes: int
) -> tuple[Float[Tensor, "k m q r"], Float[Tensor, "k m q"], Float[Tensor, "q q r"], Float[Tensor, "q q"]]:
    """At quadrature points: ℓ_m R_k, their divergence, and τ with its divergence for a density of 1 at one point.

    τ has no normal component on the boundary: it is λ_i λ_j times the tangent of each edge on the triangle, a bubble
    along each axis on the square, both times polynomials of the given degree.
    """
    rule = quadrature(cell, quadrature_degree)
    lowest, spread = tabulated(lambda x: facet_fields(cell, modes, x), rule.points)
    values, divergence = tabulated(lambda x: bubbles(cell, degree, x), rule.points)
    # Combinations of norm one, so that least coefficients make the least field.
    root = rule.weights.sqrt()
    _, s, v = torch.linalg.svd((root[:, None, None] * values).transpose(1, 2).flatten(0, 1), full_matrices=False)
    some = s > 1e-10 * s[0]
    change = v[some].T / s[some]
    inverse = torch.linalg.pinv(root[:, None] * (divergence @ change), rtol=1e-10).T * root[:, None]  # "q n"
    return (
        lowest.movedim(0, 1).unflatten(0, (-1, modes)),
        spread.T.unflatten(0, (-1, modes)),
        torch.einsum("qn,pmr,mn->qpr", inverse, values, change),
        torch.einsum("qn,pm,mn->qp", inverse, divergence, change),
    )


def tabulated(
    fields: Callable[[Tensor], Tensor], points: Float[Tensor, "q r"]
) -> tuple[Float[Tensor, "q m r"], Float[Tensor, "q m"]]:
    """Fields "m r" of one point, and their divergence, at many."""
    jacobian = torch.func.vmap(torch.func.jacrev(fields))(points)
    return torch.func.vmap(fields)(points), jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


def facet_fields(cell: Cell, modes: int, x: Float[Tensor, "r"]) -> Float[Tensor, "m r"]:
    """ℓ_m R_k, all modes of one facet after those of another."""
    found = []
    for facet, normal in zip(cell.facets, cell.facet_normals, strict=True):
        corners = torch.tensor(cell.vertices, dtype=x.dtype, device="cpu")
        ray = x - next(corner for i, corner in enumerate(corners) if i not in facet)
        origin, (along,) = cell.frame(facet)
        if cell.is_simplex:  # from 0 to 1 along the facet, ½ at the corner away from it
            i, j = facet
            weights = torch.stack([1 - x.sum(), *x])
            t = 0.5 * (1 + weights[j] - weights[i])
        else:
            ray, t = (ray @ normal) * normal, (x - origin) @ along
        found.append(legendre(t, modes)[:, None] * ray)
    return torch.cat(found)


def legendre(t: Float[Tensor, "*q"], count: int) -> Float[Tensor, "m *q"]:
    """Legendre polynomials of degree 0, 1, … on [0, 1]: (m + 1) ℓ_{m+1} = (2m + 1)(2t − 1) ℓ_m − m ℓ_{m−1}."""
    found = [torch.ones_like(t), 2 * t - 1]
    for m in range(1, count - 1):
        found.append(((2 * m + 1) * (2 * t - 1) * found[m] - m * found[m - 1]) / (m + 1))
    return torch.stack(found[:count])


def bubbles(cell: Cell, degree: int, x: Float[Tensor, "r"]) -> Float[Tensor, "m r"]:
    """Polynomial fields without normal component on the boundary of the cell."""
    corners, axes = torch.tensor(cell.vertices, dtype=x.dtype, device="cpu"), torch.eye(2, dtype=x.dtype, device="cpu")
    if cell.is_simplex:
        weights = torch.stack([1 - x.sum(), *x])
        shapes = [weights[i] * weights[j] * (corners[j] - corners[i]) for i, j in cell.edges]
    else:
        shapes = [y * (1 - y) * axis for y, axis in zip(x, axes, strict=True)]
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1) if not cell.is_simplex or i + j <= degree]
    return torch.stack([shape * x[0] ** i * x[1] ** j for shape in shapes for i, j in powers])
