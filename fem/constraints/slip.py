"""Slip: the normal component u·n = g is prescribed on a wall, the tangential ones are free.

The normal at a node is the mean of those of the facets there, weighted by their areas; on flat facets ∫ φ_a n has that
direction, so that ∫ u·n vanishes where all u_a·n_a do (Engelman, Sani and Gresho, The implementation of normal and/or
tangential boundary conditions, 1982). Where walls meet at an angle, the condition of each holds.
Elimination with pivots turns the conditions of a node, N u = g, into

    u_i = Σ_j c_ij u_j + g_i

for as many components i as there are independent conditions: prescribed values where no j is left, else ties.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.constraints.ties import Ties
from fem.forms import constraints
from fem.forms.constraints import prescribed
from fem.mesh.geometry import geometry
from fem.space.space import AnySpace, FunctionSpace, MixedSpace
from fem.space.tagged_dofs import NumberedNodes, check_index
from fem.support.arithmetic import common_batch
from fem.support.checks import shown

CORNER = cos(pi / 6) + 0.005  # facets whose normals are this near their mean are one smooth wall
DEGENERATE = 0.05  # pivots of conditions that all but contradict others


class Dirichlet(constraints.Dirichlet):
    """Prescribed values on tagged facets, at tagged nodes and at points, inserted exactly and differentiably.

    Args:
        space: the space whose dofs are prescribed.
        values: {tag: value} or {(tag, component): value}; on a mixed space (tag, field) or (tag, field, component).
            Later entries win where they meet. A tag names facets, nodes (`mesh.node_tags`), or both: then it is all of
            them; or cells, or it is `at_points([[0.0, 0.0]])`. A value is a number, a callable of x "k d", a field on
            the space, or a tensor: a number (), one value per component (c,), one per dof of the tag as
            `space.dofs(tag)` lists them "*b k (c)", or one per dof of the whole space "*b n (c)".

            `(tag, "normal")`, on a mixed space (tag, field, "normal"), prescribes u·n of vectors on boundary facets:
            slip. Components that other entries prescribe stay so; a node with all of them prescribed is left alone.
            Facets whose normals at a node differ by less than about 60° are one smooth wall; at sharper corners each
            side's condition holds. On walls that are not along an axis the result is `Dirichlet(...) & Ties(...)`.

    Raises:
        ValueError: an unknown tag, component or field, values of the wrong shape or not finite; conditions on u·n that
            contradict one another, or that need a derivative in the nodes of the mesh.
        TypeError: values of another dtype than the space's.
    """

    def __new__(cls, space: Any = None, values: Any = None) -> Any:
        found = super().__new__(cls)
        known = isinstance(space, FunctionSpace | MixedSpace) and isinstance(values, Mapping)
        if known and any(map(is_normal, values)):
            found.values, ties = without_normals(space, values)
            if ties is not None:
                return Dirichlet(space, found.values) & ties if found.values else ties
        return found

    def __init__(self, space: AnySpace, values: Mapping[Any, Any]):
        super().__init__(space, getattr(self, "values", values))


def nothing(like: Tensor) -> float:
    """Below it, components of unit normals are round-off."""
    return torch.finfo(like.dtype).eps ** 0.6


def is_normal(key: Any) -> bool:
    return isinstance(key, tuple) and len(key) > 1 and isinstance(key[-1], str) and key[-1] == "normal"


def without_normals(space: AnySpace, values: Mapping[Any, Any]) -> "tuple[dict[Any, Any], Slip | None]":
    """What is prescribed where conditions on u·n leave nothing free, and ties where they do."""
    plain = {key: value for key, value in values.items() if not is_normal(key)}
    walls: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        if is_normal(key):
            walls.setdefault(field_of(space, key), {})[key[0]] = value
    fixed, ties = space.split(Dirichlet(space, plain).fixed), None
    for i, own in walls.items():
        V, start = space.fields[i], sum(f.num_dofs for f in space.fields[:i])
        conditions = conditions_of(V, own, fixed[i])
        for component in range(V.components or 1):
            nodes, value = conditions.prescribed(component)
            if len(nodes):
                tag = NumberedNodes(V.cell_dofs, nodes, f"u·n on {', '.join(map(repr, own))}")
                plain[(tag, i, component) if isinstance(space, MixedSpace) else (tag, component)] = value
        tied = Slip(space, conditions, start)
        if len(tied.slaves):
            ties = tied if ties is None else ties & tied
    return plain, ties


def field_of(space: AnySpace, key: tuple[Any, ...]) -> int:
    """Which field a key with "normal" means.

    Raises:
        ValueError: a field that is no vector with a component for each coordinate, or not told by values at nodes.
    """
    mixed, tag = isinstance(space, MixedSpace), key[0]
    if len(key) != 2 + mixed or not isinstance(tag, str):
        wanted = '(tag, field, "normal")' if mixed else '(tag, "normal")'
        raise ValueError(f"`Dirichlet` key {key!r}: the normal component on facets with a tag is {wanted}.")
    i = check_index(key[1], len(space.fields), "field", key) if mixed else 0
    V = space.fields[i]
    if V.components != V.mesh.num_coordinates or not V.is_nodal:
        raise ValueError(
            f"`Dirichlet` key {key!r} needs a vector with values at nodes and a component for each of the "
            f"{V.mesh.num_coordinates} coordinates; got {shown(V)}."
        )
    facets = V.mesh.facets_tagged(tag)
    if bool((V.mesh.topology.facets.num_cells[facets] > 1).any()):
        raise ValueError(
            f"`Dirichlet` key {key!r}: facets inside the domain have two normals; name those of a boundary."
        )
    if V.mesh.version is None:
        raise ValueError(
            f"`Dirichlet` key {key!r} has no derivatives in the nodes of the mesh, which normals depend on; on a wall "
            f"along an axis prescribe the component, ({tag!r}, 0), or penalise u·n by a term `boundary=`."
        )
    return i


@dataclass(frozen=True, eq=False)
class Conditions:
    """What N u = g says at each node, solved for some of its components: `matrix` u = `transform` g.

    Args:
        nodes: "k", ascending.
        matrix: "k m d" after elimination: 1 at a pivot, 0 in the other rows of its column.
        transform: "k m m", the same row operations, to be applied to g.
        row: "k d", which row has its pivot at a component, −1 where none.
        source: "k m", where among the values of all tags each condition's g stands, −1 for none.
        values: the prescribed u·n of all tags "*b s", made anew at each call.
    """

    nodes: Int[Tensor, "k"]
    matrix: Float[Tensor, "k m d"]
    transform: Float[Tensor, "k m m"]
    row: Int[Tensor, "k d"]
    source: Int[Tensor, "k m"]
    values: Callable[[], Float[Tensor, "..."]]

    def given(self) -> Float[Tensor, "*b k m"]:
        """g of each row after elimination."""
        values = self.values()
        values = torch.cat([values, values.new_zeros(*values.shape[:-1], 1)], -1)
        return torch.einsum("kmn,...kn->...km", self.transform, values[..., self.source])

    def coefficients(self) -> Float[Tensor, "k i j"]:
        """c_ij of component i, zero where i is no pivot."""
        rows = self.matrix.gather(1, self.row.clamp(min=0)[..., None].expand(-1, -1, self.matrix.shape[2]))
        eye = torch.eye(rows.shape[2], dtype=rows.dtype, device=rows.device)
        c = torch.where(self.row[..., None] >= 0, eye - rows, 0)
        return torch.where(c.abs() > nothing(c), c, 0)

    def offsets(self, nodes: Int[Tensor, "l"], components: Int[Tensor, "l"]) -> Float[Tensor, "*b l"]:
        """g_i at some nodes, counted from 0 in `nodes`."""
        return self.given()[..., nodes, self.row[nodes, components]]

    def prescribed(self, component: int) -> tuple[Int[Tensor, "l"], Callable[[Tensor], Tensor]]:
        """The nodes where u_i = g_i alone is left of the conditions, and these values."""
        alone = (self.row[:, component] >= 0) & (self.coefficients()[:, component] == 0).all(1)
        at = torch.nonzero(alone).flatten()
        return self.nodes[at], lambda x: self.offsets(at, torch.full_like(at, component))


class Slip(Ties):
    """u_i = Σ c_ij u_j + g_i at the nodes of walls that are not along an axis."""

    agreement = 0.5  # where a wall ends at periodic sides, the normals of its two ends differ a little

    def __init__(self, space: AnySpace, conditions: Conditions, start: int):
        d = conditions.matrix.shape[2]
        c = conditions.coefficients()
        node, component = torch.nonzero((c != 0).any(2), as_tuple=True)
        row, master = torch.nonzero(c[node, component], as_tuple=True)
        slaves = start + conditions.nodes[node] * d + component
        columns = start + conditions.nodes[node[row]] * d + master
        self.space, self.held = space, constraints.Free(space)
        self._tie(
            slaves, row, columns, c[node[row], component[row], master], lambda: conditions.offsets(node, component)
        )


def conditions_of(V: FunctionSpace, walls: Mapping[str, Any], fixed: Bool[Tensor, "n d"]) -> Conditions:
    """The conditions u·n = g on some walls, solved for components that nothing else prescribes."""
    tags, dofs = list(walls), [V.dofs(tag) for tag in walls]
    nodes, normals, tag = normals_of(V, tags)
    starts = torch.tensor([0, *map(len, dofs)], device=V.device).cumsum(0)
    source = torch.full_like(tag, -1)
    for t, own in enumerate(dofs):
        place = torch.searchsorted(own, nodes).clamp(max=len(own) - 1)
        source = torch.where(tag == t, starts[t] + place[:, None], source)
    matrix, transform, row, smallest = eliminated(normals, ~fixed[nodes])
    x = V.dof_coordinates.detach()[nodes]
    if bool((smallest < DEGENERATE).any()):
        k = int(smallest.argmin())
        raise ValueError(
            f"u·n on {', '.join(map(repr, tags))}: at x = {x[k].tolist()} the normals {normals[k].tolist()} and what "
            "else is prescribed there all but contradict each other; prescribe all components there, by `at_points`."
        )

    def values() -> Tensor:
        parts = [prescribed(V, 0, name, own, walls[name]) for name, own in zip(tags, dofs, strict=True)]
        batch = common_batch(*[part.shape[:-1] for part in parts])
        return torch.cat([part.expand(*batch, -1) for part in parts], -1)

    found = Conditions(nodes, matrix, transform, row, source, values)
    with torch.no_grad():
        g, left = found.given(), torch.ones_like(matrix[..., 0], dtype=torch.bool)
    left[torch.arange(len(row), device=row.device)[:, None].expand_as(row)[row >= 0], row[row >= 0]] = False
    wrong = left & (matrix.abs().amax(2) < nothing(g)) & (g.abs() > nothing(g) * g.abs().amax())
    if bool(wrong.any()):
        k = int(torch.nonzero(wrong)[0][-2])
        raise ValueError(
            f"u·n on {', '.join(map(repr, tags))}: at x = {x[k].tolist()} the values for the normals "
            f"{normals[k].tolist()} contradict one another."
        )
    return found


def normals_of(
    V: FunctionSpace, tags: Sequence[str]
) -> tuple[Int[Tensor, "k"], Float[Tensor, "k m d"], Int[Tensor, "k m"]]:
    """The nodes on facets with these tags, the unit normals of the walls at each, one for each side of a corner (zero
    beyond), and the tag that prescribes u·n there, the last of several."""
    parts = []  # for each node of each facet: the node, the area of the facet times the normal there, the tag
    for t, tag in enumerate(tags):
        for domain in V.quadrature.domains(tag):
            assert domain.facet is not None
            element, inner = V.elements[domain.block], V.quadrature.geometry(domain)
            local = list(element.facet_nodes[domain.facet])  # type: ignore[attr-defined]
            at = element.nodes[local].to(V.device, V.dtype)  # type: ignore[attr-defined]
            place = geometry(V.mesh, replace(domain, points=at, weights=torch.ones_like(at[:, 0])))
            assert place.normal is not None
            area = inner.weights.expand(inner.points.shape[:2]).sum(1)
            own = V.quadrature.dofs(domain)[:, local]
            normal = (area[:, None, None] * place.normal).expand(*own.shape, -1).detach()
            parts.append((own, normal, torch.full_like(own, t)))
    numbers, sized, tag = (torch.cat([p.flatten(0, 1) for p in part]) for part in zip(*parts, strict=True))
    nodes, number = numbers.unique(return_inverse=True)
    total = lambda values: values.new_zeros(len(nodes), *values.shape[1:]).index_add(0, number, values)  # noqa: E731
    direction = torch.nn.functional.normalize(sized, dim=-1)
    mean = torch.nn.functional.normalize(total(sized), dim=-1)
    near = (direction * mean[number]).sum(-1)
    smooth = near.new_ones(len(nodes)).scatter_reduce(0, number, near, "amin")[number] > CORNER
    index, waiting = torch.arange(len(number), device=V.device), torch.ones_like(smooth)
    normals, owners = [], []
    while bool(waiting.any()):  # the first facet that waits, and all with nearly its normal, are a side
        seed = index.new_full((len(nodes),), len(index)).scatter_reduce(0, number[waiting], index[waiting], "amin")
        beside = (direction * direction[seed[number].clamp(max=len(index) - 1)]).sum(-1) > cos(pi / 4)
        side = waiting & (smooth | beside)
        normals.append(torch.nn.functional.normalize(total(sized * side[:, None]), dim=-1))
        last = torch.where(side, tag, -1)
        owners.append(last.new_full((len(nodes),), -1).scatter_reduce(0, number, last, "amax"))
        waiting = waiting & ~side
    return nodes, torch.stack(normals, 1), torch.stack(owners, 1)


def eliminated(
    N: Float[Tensor, "k m d"], free: Bool[Tensor, "k d"]
) -> tuple[Float[Tensor, "k m d"], Float[Tensor, "k m m"], Int[Tensor, "k d"], Float[Tensor, "k"]]:
    """Gauss–Jordan elimination with the largest pivot among free components: the rows, what was done to them, the row
    whose pivot a component is (−1 for none), and the smallest pivot."""
    k, m, d = N.shape
    A = torch.cat([N, torch.eye(m, dtype=N.dtype, device=N.device).expand(k, m, m)], 2)
    every = torch.arange(k, device=N.device)
    row, used = torch.full((k, d), -1, device=N.device), torch.zeros(k, m, dtype=torch.bool, device=N.device)
    smallest = N.new_ones(k)
    for _ in range(min(m, d)):
        open_ = (free & (row < 0))[:, None] & ~used[..., None]
        pivot, at = (A[..., :d].abs() * open_).flatten(1).max(1)
        r, c = at // d, at % d
        found = pivot > nothing(N)
        line = A[every, r] / torch.where(found, A[every, r, c], 1)[:, None]
        reduced = (A - A[every, :, c][..., None] * line[:, None]).index_put((every, r), line)
        A = torch.where(found[:, None, None], reduced, A)
        row[every[found], c[found]] = r[found]
        used[every[found], r[found]] = True
        smallest = torch.where(found, torch.minimum(smallest, pivot), smallest)
    return A[..., :d], A[..., d:], row, smallest
