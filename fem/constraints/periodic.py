"""Periodic functions: sides of a mesh of any kind that are one another's images under a translation or a rotation."""

from collections.abc import Mapping
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.constraints.ties import Ties, held_by_both
from fem.forms.constraints import Dirichlet, Free
from fem.mesh.topology import first_positions
from fem.space.space import AnySpace, FunctionSpace, Space
from fem.support.checks import check_choice, check_kind, is_integer
from fem.support.transforms import mapped, outside_transforms


class Periodic(Ties):
    """u on one side equals u on another, `Periodic(V, {"right": "left", "top": "bottom"})`.

    Sides match under a translation, or under the rotation that takes the one's mean normal to the other's; nodes need
    not be numbered alike, but must lie at images of one another. Vectors are rotated along. Where directions meet,
    corners and edges are all one dof.

    Args:
        space: Lagrange, or a mixed space of such: all fields are periodic unless `field` names one.
        sides: {tag: tag} of facets; by default those that `$Periodic` in a file of Gmsh names.
        sign: −1 for antiperiodic functions, u on one side equals −u on the other.
        field: of a mixed space.

    Raises:
        ValueError: sides whose nodes do not match, and by how much; functions that would have to vanish.
    """

    @outside_transforms()
    def __init__(
        self, space: AnySpace, sides: Mapping[str, str] | None = None, sign: int = 1, field: int | None = None
    ):
        check_kind("Periodic", "space", space, Space, "a `FunctionSpace` or `MixedSpace`")
        sides = dict(space.mesh.topology.links.keys()) if sides is None else sides
        check_kind("Periodic", "sides", sides, Mapping, 'a mapping {tag: tag}, such as {"right": "left"}')
        check_choice("Periodic", "sign", sign, (1, -1))
        for a, b in sides.items():
            if a == b:
                raise ValueError(f"`Periodic({{{a!r}: {b!r}}})` needs two sides.")
        if not sides:
            raise ValueError(
                '`Periodic(sides=...)` must name sides, such as {"right": "left"}; got none, and the mesh is of no '
                "file that says which."
            )
        if field is not None and not (is_integer(field, 0) and field < len(space.fields)):
            raise ValueError(f"`Periodic(field=...)` must lie in [0, {len(space.fields)}); got {field!r}.")
        self.sides, self.sign, self.fields = (
            dict(sides),
            sign,
            [field] if field is not None else range(len(space.fields)),
        )
        parts, start = [], 0
        for i, own in enumerate(space.fields):
            if i in self.fields:
                for a, b in self.sides.items():
                    parts += [(left + start, right + start, c) for left, right, c in pairs(own, a, b, sign)]
            start += own.num_dofs
        self.edges = tuple(torch.cat(given) for given in zip(*parts, strict=True))
        self._choose(space, None)

    def _choose(self, space: AnySpace, dirichlet: Dirichlet | None) -> None:
        """Ties to one dof of each class, a prescribed one where there is one."""
        left, right, coefficient = self.edges
        rotated = bool((coefficient.abs() != 1).any())
        fixed = torch.zeros(space.num_dofs, dtype=torch.bool, device=space.device)
        if dirichlet is not None:
            fixed = dirichlet.fixed.flatten()
        if rotated:
            free = torch.nonzero(~fixed[left]).flatten()
            # Where sides that turn alike meet, a tie stands once for each of them.
            keys, number = (left[free] * space.num_dofs + right[free]).unique(return_inverse=True)
            free = free[first_positions(number, len(keys))]
            slaves, row = left[free].unique(return_inverse=True)
            column, coefficient = right[free], coefficient[free]
            length = torch.zeros(len(slaves), dtype=space.dtype, device=space.device)
            length = length.index_add(0, row, coefficient.square())  # 1 for one row of one rotation
            if bool(((length - 1).abs() > 1e-6).any()):
                k = int((length - 1).abs().argmax())
                raise ValueError(
                    f"dof {int(slaves[k])} would follow several others, where a side that is turned meets other "
                    "periodic sides; such corners are not there: prescribe values there, or tie dofs by `Ties`."
                )
        else:
            master, sign = representatives(left, right, coefficient, fixed)
            slaves = torch.nonzero((master != torch.arange(len(master), device=master.device)) & ~fixed).flatten()
            row = torch.arange(len(slaves), device=slaves.device)
            column, coefficient = master[slaves], sign[slaves]
        self.space, self.held = space, Free(space) if dirichlet is None else dirichlet
        self._tie(slaves, row, column, coefficient, None)
        if dirichlet is not None and not dirichlet.time_dependent:
            self._check_values(dirichlet.fixed, dirichlet.data())

    def data(self, time: float | None = None) -> Tensor | None:
        """As of all ties; values that change with time are looked at whenever they are asked for."""
        found = super().data(time)
        if self.time_dependent and self.held.fixed is not None and found is not None:
            self._check_values(self.held.fixed, found)
        return found

    def _check_values(self, fixed: Tensor, data: Tensor) -> None:
        """Raise where values prescribed on both sides differ."""
        left, right, coefficient = self.edges
        fixed, values = fixed.flatten(), data.detach().flatten(-len(self.space.shape))
        both = fixed[left] & fixed[right]
        if bool((coefficient.abs() != 1).any()) or not bool(both.any()) or mapped(values):
            return
        a, b = (values.index_select(-1, side[both]) for side in (left, right))
        b = b * coefficient[both]
        wrong = (a - b).abs() > 1e-8 * (1 + values.abs().max())
        if bool(wrong.any()):
            place = torch.nonzero(wrong)[0]
            k = int(place[-1])
            raise ValueError(
                f"dofs {int(left[both][k])} and {int(right[both][k])} are one by `Periodic`, but different values are "
                f"prescribed, {float(a[tuple(place)])} and {float(b[tuple(place)])}."
            )

    def holding(self, dirichlet: Dirichlet) -> "Periodic":
        """The same where values are prescribed too: a class with a prescribed dof is prescribed as a whole."""
        found = self._like(self.sides, self.edges)
        found._parts = self.parts
        found._choose(self.space, held_by_both(self.held, dirichlet))
        return found

    def merged(self, other: Ties) -> Ties | None:
        """Both directions at once: where they meet, dofs are one."""
        if not isinstance(other, Periodic):
            return None
        edges = tuple(torch.cat(pair) for pair in zip(self.edges, other.edges, strict=True))
        found = self._like(self.sides | other.sides, edges)
        found._choose(self.space, None)
        return found

    def _like(self, sides: dict[str, str], edges: tuple[Tensor, ...]) -> "Periodic":
        found = object.__new__(Periodic)
        found.sides, found.sign, found.fields, found.edges = sides, self.sign, self.fields, edges
        return found

    def __repr__(self) -> str:
        own = f"Periodic({self.sides}{'' if self.sign == 1 else ', sign=-1'}; {len(self.slaves)} dofs follow others)"
        return f"{self.held} & {own}" if isinstance(self.held, Dirichlet) else own


def pairs(V: FunctionSpace, a: str, b: str, sign: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(dof on side a, dof on side b, coefficient): u_a = Σ c u_b, dofs flattened."""
    if V.moments is not None:
        raise ValueError(f"`Periodic` pairs values at nodes, and {V.family} has moments; take `Lagrange`.")
    here, there = V.dofs(a), V.dofs(b)
    rotation, image = matched(V, a, b, here, there)
    there = there[image]
    c = V.components or 1
    if c == 1 or rotation is None:
        each = torch.arange(c, device=here.device)
        left, right = ((dofs[:, None] * c + each).flatten() for dofs in (here, there))
        return [(left, right, torch.full_like(left, sign, dtype=V.dtype))]
    if c != V.mesh.num_coordinates:
        raise ValueError(
            f"`Periodic({{{a!r}: {b!r}}})` is a rotation, which turns vectors with a component for each of the "
            f"{V.mesh.num_coordinates} coordinates; this field has {c} components."
        )
    # u_a = Rᵀ u_b where x_b = R x_a + t.
    i, j = torch.meshgrid(torch.arange(c, device=here.device), torch.arange(c, device=here.device), indexing="ij")
    left, right = (here[:, None] * c + i.flatten()).flatten(), (there[:, None] * c + j.flatten()).flatten()
    return [(left, right, (sign * rotation.T).flatten().repeat(len(here)))]


def matched(
    V: FunctionSpace, a: str, b: str, here: Int[Tensor, "k"], there: Int[Tensor, "m"]
) -> tuple[Float[Tensor, "d d"] | None, Int[Tensor, "k"]]:
    """The rotation R of the motion x ↦ R x + t from side a to b, None for none, and where images of nodes stand."""
    call, x = f"Periodic({{{a!r}: {b!r}}})", V.dof_coordinates.detach()
    if len(here) != len(there):
        raise ValueError(
            f"`{call}`: the sides have {len(here)} and {len(there)} nodes, which cannot match; mesh them alike."
        )
    first, second = x[here], x[there]
    size, start, end = float((x.amax(0) - x.amin(0)).max()), -mean_normal(V, a), mean_normal(V, b)
    # Normals of a file that rounds differ a little: such sides are translated, if that takes one to the other.
    apart = float((start - end).norm())
    ways = ["translation"] * (apart < 1e-3) + ["rotation"] * (apart > 1e-8)
    least = float("inf")
    for way in ways:
        rotation = rotation_between(start, end) if way == "rotation" else None
        moved = first if rotation is None else first @ rotation.T
        gap, image = nearest(moved + (second.mean(0) - moved.mean(0)), second)
        least = min(least, float(gap.max()))
        if float(gap.max()) <= 1e-6 * size and len(image.unique()) == len(image):
            check_links(V, a, b, rotation, second.mean(0) - moved.mean(0), 1e-6 * size)
            return rotation, image
    raise ValueError(
        f"`{call}`: the sides do not match under a {' or '.join(ways)}: the image of a node misses the nearest one by "
        f"{least:.3g}, and {1e-6 * size:.3g} is allowed. Mesh them alike."
    )


def check_links(
    V: FunctionSpace, a: str, b: str, rotation: Float[Tensor, "d d"] | None, shift: Float[Tensor, "d"], near: float
) -> None:
    """Raise where a file pairs nodes in another way than the motion that was found."""
    links, x = V.mesh.topology.links, V.mesh.nodes.detach()
    nodes = links[a, b] if (a, b) in links else links[b, a].flip(1) if (b, a) in links else None
    if nodes is None or len(nodes) == 0:
        return
    moved = x[nodes[:, 0]] if rotation is None else x[nodes[:, 0]] @ rotation.T
    apart = (moved + shift - x[nodes[:, 1]]).norm(dim=1)
    if float(apart.max()) > near:
        i, j = nodes[apart.argmax()].tolist()
        raise ValueError(
            f"`Periodic({{{a!r}: {b!r}}})`: the file pairs nodes {i} and {j}, which the motion found here leaves "
            f"{float(apart.max()):.3g} apart: sides that are one another's images in other ways are not there; "
            "`Ties(V, dofs, matrix)` says any."
        )


def nearest(points: Float[Tensor, "k d"], others: Float[Tensor, "m d"]) -> tuple[Float[Tensor, "k"], Int[Tensor, "k"]]:
    """How far the nearest of the others is, and which."""
    from scipy.spatial import KDTree

    gap, image = KDTree(others.cpu().numpy()).query(points.cpu().numpy())
    return torch.from_numpy(gap).to(points), torch.from_numpy(image).to(points.device)


def mean_normal(V: FunctionSpace, tag: str) -> Float[Tensor, "d"]:
    """∫ n over facets, scaled to 1."""
    total = torch.zeros(V.mesh.num_coordinates, dtype=V.dtype, device=V.device)
    for domain in V.quadrature.domains(tag):
        place = V.quadrature.geometry(domain)
        assert place.normal is not None
        weights = place.weights.expand(place.points.shape[:2])[..., None].detach()
        total += (place.normal.detach() * weights).sum((0, 1))
    return total / total.norm()


def rotation_between(start: Float[Tensor, "d"], end: Float[Tensor, "d"]) -> Float[Tensor, "d d"] | None:
    """The smallest rotation that takes one unit vector to another (Rodrigues); None where they are equal."""
    cosine = torch.dot(start, end)
    if len(start) == 1 or float((start - end).norm()) < 1e-8:
        return None
    cross = torch.outer(end, start) - torch.outer(start, end)  # turns `start` towards `end`
    eye = torch.eye(len(start), dtype=start.dtype, device=start.device)
    if float(cosine) < -1 + 1e-8:
        if len(start) == 2:
            return -eye
        raise ValueError(
            "half a turn from one side to the other may be about any axis; cut the domain into two sectors."
        )
    return eye + cross + cross @ cross / (1 + cosine)


def representatives(
    left: Int[Tensor, "m"], right: Int[Tensor, "m"], sign: Float[Tensor, "m"], fixed: Tensor
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """One dof for each class of tied ones, a prescribed one if possible, and how each is related to it: u = ± u_master.

    Raises:
        ValueError: u = −u for some dof.
    """
    n = len(fixed)
    order = torch.arange(n, device=left.device) + n * (~fixed).long()  # prescribed dofs come first
    master, relation = torch.arange(n, device=left.device), torch.ones(n, dtype=sign.dtype, device=left.device)
    ends = (torch.cat([left, right]), torch.cat([right, left]), torch.cat([sign, sign]))
    for _ in count():
        a, b, s = ends
        best = order[master].scatter_reduce(0, a, order[master[b]], "amin")
        better = (order[master[b]] == best[a]) & (best[a] < order[master[a]])
        if not bool(better.any()):
            break
        relation[a[better]] = (s * relation[b])[better]
        master[a[better]] = master[b[better]]
    a, b, s = ends
    wrong = (relation[a] != s * relation[b]) & (a != b)
    if bool(wrong.any()):
        raise ValueError(
            f"dof {int(a[wrong][0])} would have to be its own negative, where antiperiodic directions meet: let one "
            "direction alone be antiperiodic, `Periodic(V, {...}, sign=-1) & Periodic(V, {...})`."
        )
    return master, relation
