"""Splines on patches as a function space: dofs shared along seams, values at points by sum factorisation, traces.

See `isogeometric_space`, which makes them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.forms.parameters import check_like
from fem.mesh.geometry import Domain
from fem.reference.bspline import basis_matrix
from fem.reference.spline_element import BSpline
from fem.space.cell_dofs import CellDofs
from fem.space.evaluation import filling_of
from fem.space.factors import Factors
from fem.space.field import Function
from fem.space.interpolation import check_components, check_no_outside
from fem.space.space import FunctionSpace
from fem.space.tagged_dofs import check_index
from fem.support.checks import check_choice
from fem.support.modes import outside_modes
from fem.support.transforms import carries
from nurbs.fitting.foot_points import foot_points
from nurbs.geometry.patch import Patch
from nurbs.isogeometric.patch_mesh import PatchMesh, number_glued, numbered
from nurbs.isogeometric.spline_points import SplinePoints
from nurbs.modelling.refinement import along


class SplineSpace(FunctionSpace):
    """Splines on patches; see `isogeometric_space`. Dofs are coefficients, numbered patch after patch, u fastest, with
    those that patches share counted once.

    The basis stays as it is when the patches move (`with_patches`): derivatives in control points, weights and knots of
    the patches are those of functionals with the basis held.
    """

    mesh: PatchMesh
    elements: tuple[BSpline, ...]
    quadrature: SplinePoints

    def __init__(self, mesh: PatchMesh, components: int | None = None, quadrature_degree: int | None = None):
        lattices = numbered([e.dof_shape for e in mesh.elements], mesh.device)
        pairs = [seam.pair(lattices) for seam in mesh.seams]
        for lattice, patch, element in zip(lattices, mesh.patches, mesh.elements, strict=True):
            for axis, closed in enumerate(patch.periodic):
                if closed:
                    p, n = element.degrees[axis], lattice.shape[axis]
                    pairs.append((lattice.narrow(axis, 0, p), lattice.narrow(axis, n - p, p)))
        self.lattices, count = number_glued(lattices, pairs)
        local = [t.permute(*range(t.ndim)[::-1]).flatten() for t in self.lattices]
        pairs = zip(local, mesh.elements, strict=True)
        cell_dofs = CellDofs(tuple(numbers[e.cell_dofs.to(mesh.device)] for numbers, e in pairs), count)
        if quadrature_degree is None:
            quadrature_degree = mesh.default_quadrature
        self.family = mesh.elements[0]
        self._set(mesh, mesh.elements, components, cell_dofs, quadrature_degree, SplinePoints)
        self.quadrature.lattices = self.lattices

    @property
    def continuity(self) -> int:
        """How many derivatives are continuous across cells; 0 where patches are glued."""
        return 0 if self.mesh.seams else min(e.continuity for e in self.elements)

    def with_patches(self, patches: Patch | Sequence[Patch]) -> "SplineSpace":
        """The same basis over other patches of the same kind: steps of a shape optimisation.

        Raises:
            GeometryError: a patch is folded.
        """
        patches = (patches,) if isinstance(patches, Patch) else tuple(patches)
        mesh = self.mesh.with_patches(patches)
        mesh.check(self.quadrature_degree)
        return SplineSpace(mesh, self.components, self.quadrature_degree)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SplineSpace":
        return SplineSpace(self.mesh.to(device, dtype), self.components, self.quadrature_degree)

    def factors(self, domain: Domain, derivatives: int) -> Factors | None:
        """The 1-D matrices that stand for the table of basis functions on all cells of the only patch, if they do."""
        return self.quadrature.factors(domain, derivatives)

    @property
    def is_tensor(self) -> bool:
        """Whether there is but one patch, which meets itself nowhere."""
        return self.quadrature.is_tensor

    def dofs(self, tag: str) -> Int[Tensor, "k"]:
        """Dofs of the functions that do not vanish on the sides with that name, in ascending order."""
        self.mesh.facets_tagged(tag)  # the tag exists
        sides = self.mesh.sides[tag]
        return torch.cat([side.of(self.lattices[side.patch]).flatten() for side in sides]).unique()

    @property
    def dof_coordinates(self) -> Float[Tensor, "n d"]:
        """The points of the patches at the Greville abscissae of each function: near where it is largest."""
        found = self.mesh.nodes.new_zeros(self.num_nodes, self.mesh.num_coordinates)
        for lattice, patch, element in zip(self.lattices, self.mesh.patches, self.elements, strict=True):
            lines = [t.clamp(*(b.detach() for b in patch.domain()[k])) for k, t in enumerate(element.greville())]
            found = found.index_put((lattice.flatten(),), patch(*lines).flatten(0, -2))
        return found

    @outside_modes
    def interpolate(
        self, value: Callable[[Tensor], Tensor] | Function | float, outside: float | str | None = None
    ) -> Tensor:
        """Dofs of the function that equals `value` at the Greville points (with `rational`, up to its weights).

        Args:
            value: a number, a callable of x, or a field `W.function(u)` of any other space.
            outside: of a field, what it is at points outside its mesh; as for `evaluate`.

        Raises:
            ValueError: a periodic patch, whose Greville points would be fewer than its functions.
        """
        if any(c for p in self.mesh.patches for c in p.periodic):
            raise ValueError("`interpolate` on periodic patches is not there; `project(V, f)` is, the L2 projection.")
        x = self.dof_coordinates
        if isinstance(value, Function):
            check_components(self, value)
            given = value.space.evaluate(value.values, x, outside)
        else:
            check_no_outside(outside)
            given = value(x) if callable(value) else torch.as_tensor(value, dtype=self.dtype, device=self.device)
        check_like(self, given, "the values to interpolate")
        given = given.expand(self.shape) if given.ndim <= len(self.shape) else given
        trailing = () if self.components is None else (self.components,)
        result = torch.zeros_like(given)
        axis = given.ndim - 1 - len(trailing)
        for lattice, element in zip(self.lattices, self.elements, strict=True):
            part = given.index_select(axis, lattice.flatten()).unflatten(axis, lattice.shape)
            lines = element.greville()
            r = len(lines)
            plain = BSpline(element.knots, element.degrees)
            if element.weights is not None:  # coefficients of W f, then of f
                w = element.weights.view(element.dof_shape[::-1]).permute(*range(r)[::-1])
                total = w
                for k, u in enumerate(lines):
                    total = along(collocation(plain, k, u), total, k - r)
                part = part * total.view(*total.shape, *[1] * len(trailing))
            for k, u in enumerate(lines):
                part = along(torch.linalg.inv(collocation(plain, k, u)), part, k - r - len(trailing))
            if element.weights is not None:
                part = part / w.view(*w.shape, *[1] * len(trailing))
            result = result.index_copy(axis, lattice.flatten(), part.flatten(axis, axis + r - 1))
        return result

    def trace(self, tag: str, dofs: Int[Tensor, "k"], value: Callable[[Tensor], Tensor]) -> Tensor:
        """The best coefficients on the sides with that name: Σ_c ∫ N_a N_c ds u_c = ∫ N_a g ds (L2 projection)."""
        index = torch.full((self.num_nodes,), -1, dtype=torch.int64, device=self.device)
        index[dofs] = torch.arange(len(dofs), device=self.device)
        k = len(dofs)
        M, b = self.mesh.nodes.new_zeros(k * k), None
        for domain in self.quadrature.domains(tag, self.quadrature_degree + 2):
            geometry = self.quadrature.geometry(domain)
            table = self.quadrature.table(domain, 0)[:, :, 0]
            local = index[self.cell_dofs.of(domain.block, domain.cells)]
            on = (local >= 0).to(table)
            N = table * on[:, None]
            local = local.clamp(min=0)
            M = M.index_add(
                0,
                (local[:, :, None] * k + local[:, None]).flatten(),
                torch.einsum("eqa,eq,eqc->eac", N, geometry.weights.expand(N.shape[:2]), N).flatten(),
            )
            g = value(geometry.points)
            check_like(self, g, f"the Dirichlet value on {tag!r}")
            inner = g.ndim - geometry.points.ndim + 1  # 0 for scalars, 1 for vectors
            g = g[..., None] if inner <= 0 else g
            part = torch.einsum("eqa,eq,...eqc->...eac", N, geometry.weights.expand(N.shape[:2]), g)
            add = part.new_zeros(*part.shape[:-3], k, part.shape[-1]).index_add(
                -2, local.flatten(), part.flatten(-3, -2)
            )
            b = add if b is None else b + add
        assert b is not None
        found = torch.linalg.solve(M.view(k, k), b)
        return found[..., 0] if found.shape[-1] == 1 and inner <= 0 else found

    @outside_modes
    def evaluate(
        self, u: Tensor, points: Float[Tensor, "m d"], outside: float | str | None = None, derivatives: int = 0
    ) -> Any:
        """Values "*b m" or "*b m c" at arbitrary points, by their foot points on the patches; for `derivatives=1` also
        gradients "*b m d" or "*b m c d", on surfaces and curves in space the tangential ones.

        Args:
            outside: a number for points on no patch, or "nearest": what is found at their foot points.
            derivatives: 0 or 1.

        Raises:
            ValueError: a point lies on no patch (named), unless `outside` says what to do.
        """
        self.check(u)
        check_choice("evaluate", "derivatives", derivatives, (0, 1))
        filling = filling_of(outside)
        patch, parameters = self.locate(points, nearest=outside == "nearest")
        lost = patch < 0
        if outside is None and bool(lost.any()):
            first = int(lost.nonzero()[0])
            raise ValueError(
                f"`points[{first}]` = {points[first].tolist()} lies on no patch (in all {int(lost.sum())} of "
                f"{len(points)} points do not); leave it out, pass `outside=math.nan` or a number, or take the nearest "
                'points of the patches by `outside="nearest"`.'
            )
        coefficients = u[..., None] if self.components is None else u
        shape = (*u.shape[: u.ndim - len(self.shape)], len(points), coefficients.shape[-1])
        found = [coefficients.new_full(shape, filling)]
        if derivatives:  # of a constant
            found.append(coefficients.new_full((*shape, self.mesh.num_coordinates), 0.0 * filling))
        for i, own in enumerate(self.mesh.patches):
            rows = (patch == i).nonzero()[:, 0]
            if len(rows):
                value, *slope = self._at(coefficients, parameters[rows], i, derivatives)
                found[0] = found[0].index_copy(-2, rows, value)
                if slope:
                    grad = slope[0] @ torch.linalg.pinv(own.jacobian_at(parameters[rows]))
                    found[1] = found[1].index_copy(-3, rows, grad)
        found = [part.squeeze(-1 - k) if self.components is None else part for k, part in enumerate(found)]
        return tuple(found) if derivatives else found[0]

    def at_parameters(self, u: Tensor, parameters: Float[Tensor, "m r"], patch: int = 0) -> Tensor:
        """Values "*b m" or "*b m c" at parameters of a patch."""
        self.check(u)
        check_index(patch, len(self.mesh.patches), "patch", patch)
        found = self._at(u[..., None] if self.components is None else u, parameters, patch)[0]
        return found[..., 0] if self.components is None else found

    def _at(
        self, coefficients: Tensor, parameters: Float[Tensor, "m r"], patch: int, derivatives: int = 0
    ) -> list[Tensor]:
        """Values "*b m c", and derivatives in the parameters "*b m c r"."""
        element, cell, reference, widths, stride = self.elements[patch], 0, [], [], 1
        for corners, x in zip(element.breakpoints, parameters.unbind(-1), strict=True):
            span = (torch.searchsorted(corners, x.detach().contiguous(), right=True) - 1).clamp(0, len(corners) - 2)
            widths.append(corners[span + 1] - corners[span])
            reference.append((x - corners[span]) / widths[-1])
            cell, stride = cell + stride * span, stride * (len(corners) - 1)
        assert isinstance(cell, Tensor)
        table = element.tabulate_at(cell, torch.stack(reference, -1), derivatives)
        local = coefficients[..., self.cell_dofs[patch][cell], :]
        found = [torch.einsum("ma,...mac->...mc", table.value[0], local)]
        if table.grad is not None:
            slope = table.grad[0] / torch.stack(widths, -1)[:, None]
            found.append(torch.einsum("mar,...mac->...mcr", slope, local))
        return found

    def locate(
        self, points: Float[Tensor, "m d"], nearest: bool = False
    ) -> tuple[Int[Tensor, "m"], Float[Tensor, "m r"]]:
        """The first patch that each point lies on and its parameters there, differentiable; else −1, or with `nearest`
        the patch with the nearest foot point."""
        size = float((self.mesh.nodes.amax(0) - self.mesh.nodes.amin(0)).max())
        near = 1e3 * torch.finfo(self.dtype).eps * size
        found = torch.full((len(points),), -1, device=self.device)
        parameters = points.new_zeros(len(points), self.mesh.dim)
        least = torch.full((len(points),), torch.inf if nearest else near, dtype=points.dtype, device=self.device)
        for i, patch in enumerate(self.mesh.patches):
            rows = ((found < 0) | (least > near)).nonzero()[:, 0]
            if not len(rows):
                break
            u = foot_points(patch, points[rows])
            distance = (patch.detach().at(u) - points[rows].detach()).norm(dim=-1)
            on = (distance <= least[rows]) if not nearest else (distance < least[rows])
            rows, u, distance = rows[on], u[on], distance[on]
            if len(rows) and (carries(points) or self.mesh.version is None):
                u = followed(patch, u, points[rows], near)
            found[rows] = i
            least = least.index_copy(0, rows, distance)
            parameters = parameters.index_copy(0, rows, u)
        return found, parameters

    def __repr__(self) -> str:
        kind = "" if self.components is None else f", components={self.components}"
        degrees = self.elements[0].degrees
        degree = degrees[0] if len(set(degrees)) == 1 else degrees
        return f"SplineSpace(degree {degree}{kind}; {self.num_dofs} dofs on {self.mesh})"


def collocation(element: BSpline, axis: int, u: Float[Tensor, "q"]) -> Float[Tensor, "q n"]:
    """All functions of one direction at parameters."""
    return basis_matrix(element.knots[axis], element.degrees[axis], u, 0)[0]


def followed(patch: Patch, u: Float[Tensor, "m r"], x: Float[Tensor, "m d"], near: float) -> Float[Tensor, "m r"]:
    """Foot points as functions of the points and the patch: u + H⁻¹ Jᵀ (x − S(u)), H = JᵀJ − Σ_d (x − S)_d ∂²S_d.

    Newton's step is zero there but has their derivative. Parameters at an end of their range that are held there by the
    distance stay; within `near` a point lies on the patch, at its boundary too, and nothing is held.
    """
    first = [tuple(int(axis == k) for axis in range(patch.directions)) for k in range(patch.directions)]
    second = [[tuple(map(sum, zip(a, b, strict=True))) for b in first] for a in first]
    J, gap = patch.jacobian_at(u), x - patch.at(u)
    bend = torch.stack([torch.stack(patch.derivatives_at(u, orders=row), -1) for row in second], -2)
    slope = (J.mT @ gap[..., None])[..., 0]
    start, end = (torch.stack([t.detach() for t in side]) for side in zip(*patch.domain(), strict=True))
    room = 1e3 * torch.finfo(u.dtype).eps * (end - start)
    closed = torch.tensor(patch.periodic, device=u.device)
    held = ((u <= start + room) & (slope < 0) | (u >= end - room) & (slope > 0)) & ~closed
    size = gap.detach().norm(dim=-1, keepdim=True) * J.detach().norm(dim=-2)
    held = held & (slope.detach().abs() > torch.finfo(u.dtype).eps ** 0.5 * size)
    held = held & (gap.detach().norm(dim=-1, keepdim=True) > near)
    H = J.mT @ J - torch.einsum("md,mdrs->mrs", gap, bend)
    either = held[:, :, None] | held[:, None]
    H = torch.where(either, torch.eye(patch.directions, dtype=u.dtype, device=u.device), H)
    found = u + (torch.linalg.pinv(H) @ torch.where(held, 0, slope)[..., None])[..., 0]
    ended = torch.where(closed, found, found.clamp(start, end))
    return found + (ended - found).detach()  # round-off may have left the range; the derivative stays
