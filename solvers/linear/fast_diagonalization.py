"""Fast diagonalisation: the exact inverse of separable problems on box grids, axis by axis.

With constant coefficients, the 1-D stiffness and mass matrices K_k and M_k of each axis make up the whole matrix,

    H = Σ_k c_k K_k ⊗ (M on the other axes) + m M ⊗ … ⊗ M,        Vᵀ K V = diag(κ),   Vᵀ M V = diag(μ)   on each axis,
    H⁻¹ = (⊗ V) diag(Σ_k c_k κ_k Π_{l≠k} μ_l + m Π_l μ_l)⁻¹ (⊗ V)ᵀ,

so that a solve is a transform along each axis, a division, and the transforms back: with fast Fourier transforms
O(N log N) operations. With mean coefficients it is a preconditioner for problems whose coefficients vary.

Source: Lynch, Rice and Thomas, Direct solution of partial difference equations by tensor product methods (1964).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from fem.forms.constraints import MeanZero
from fem.mesh.geometry import Domain
from fem.space.space import AnySpace, FunctionSpace
from fem.support.sums import sum_of
from solvers.linear.axis_modes import Axis, modes, supported_modes
from solvers.operators.system import System
from solvers.operators.tensor_operator import diagonalized
from solvers.solution import per_item

ROUND_OFF = 16  # coefficients that differ by no more than so many ε count as equal


@dataclass(frozen=True)
class FastDiagonalization:
    """The exact solution of problems with constant coefficients on box grids; for others, a preconditioner.

    As a linear method, for Lagrange spaces on intervals, quadrilaterals or hexahedra made by `box` and its kin, with
    values prescribed on whole sides: diffusion that may differ between axes, a reaction, Robin terms on whole sides,
    all constant but for differences between batch items; components of vectors must not couple. Degree 1 without Robin
    terms is transformed by FFT, all else by a matrix product along each axis.

    As a preconditioner (`CG(preconditioner=FastDiagonalization())`), on the same grids and for the same sides,

        z = S L⁻¹ S r,        S² = diag(L) / diag(H),

    where L has the mean coefficients and no couplings of components or derivatives. Where coefficients vary smoothly,
    even by factors of 100, few iterations suffice, as many on every grid.

    On splines of one patch (`isogeometric_space`) it preconditions as well, with mean coefficients in the patch's
    parameters, and no matrix is made.

    Args:
        scaled: False leaves out S. That is the better preconditioner where coefficients jump: the number of iterations
            then grows with the root of their contrast, but not with the grid, as it does with S.

    Raises:
        ValueError: when it meets a system, if the grid, the prescribed sides or the coefficients are not of that kind.
    """

    scaled: bool = True

    def prepare(self, system: System) -> "Diagonalized":
        return Diagonalized(system)

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        if system.tensor is not None:
            element: Any = system.form.space.elements[0]  # type: ignore[union-attr]
            return diagonalized(system, fixed_sides(system, (*element.dof_shape[::-1], 1)))
        separable = Separable(system, exact=False)
        solves = [c.inverse(definite(c.eigenvalues), system.u.dtype) for c in separable.components]
        scales: list[Any] = [1.0] * len(solves)
        if self.scaled:
            diagonals = zip(separable.components, separable.split(system.diagonal), strict=True)
            scales = [(c.diagonal.to(d) / torch.where(d == 0, 1, d)).abs().sqrt() for c, d in diagonals]

        def precondition(r: Tensor) -> Tensor:
            parts = zip(solves, scales, separable.split(r), strict=True)
            return separable.join([s * solve(s * part) for solve, s, part in parts])

        return precondition


class Diagonalized:
    """A separable system made ready; with `MeanZero` the constants, an eigenspace then, are left out."""

    exact = True

    def __init__(self, system: System):
        self.system, self.separable, self.solves = system, Separable(system, exact=True), []
        self.singular, self.indefinite = torch.zeros(2, *system.batch, dtype=torch.bool, device=system.u.device)
        for component in self.separable.components:
            values = component.eigenvalues
            known = torch.zeros(values.shape[1:], dtype=torch.bool, device=values.device)
            if isinstance(system.form.constraint, MeanZero):
                if not component.constant:
                    raise refuse("`MeanZero` beside supported or prescribed sides", "`Direct()`")
                known.view(-1)[0] = True
            null = values.abs() <= 0.5 * torch.finfo(system.u.dtype).eps * largest(values)
            self.singular |= (null & ~known).flatten(1).any(1).reshape(system.batch)
            self.indefinite |= ((values < 0) & ~null & ~known).flatten(1).any(1).reshape(system.batch)
            self.solves.append(component.inverse(torch.where(null | known, 0, 1 / values), system.u.dtype))

    def solve(self, rhs: Tensor, atol: Tensor | None = None, transpose: bool = False) -> Tensor:
        """H⁻¹ rhs on free dofs, to round-off; modes that H does not see get nothing."""
        parts = zip(self.solves, self.separable.split(rhs), strict=True)
        return self.separable.join([solve(part) for solve, part in parts])


class Separable:
    """The separable operators of a system, one per component, and the way from dofs to their free nodes and back.

    `exact` asks for operators that are the system's own, and raises where there are none.
    """

    def __init__(self, system: System, exact: bool):
        space = check_space(system.form.space)
        cells = space.mesh.grid
        assert cells is not None
        self.shape = (*system.batch, *space.shape)
        self.count = prod(system.batch)
        self.grid = (*(space.degree * n + 1 for n in cells[::-1]), space.components or 1)
        spacing = 1 / space.quadrature.geometry(space.quadrature.domains()[0]).inverse[0, 0].diagonal().double()
        diffusion, reaction, supports = separable_coefficients(system, space, exact)
        self.components = []
        for c, fixed in enumerate(fixed_sides(system, self.grid)):
            axes = [Axis(n, space.degree, space.quadrature_degree, ends) for n, ends in zip(cells, fixed, strict=True)]
            self.components.append(Component(axes, spacing, diffusion[:, c], reaction[:, c], supports[:, c]))

    def split(self, v: Tensor) -> list[Tensor]:
        """The free nodes "b *grid" of each component."""
        v = v.expand(self.shape).reshape(self.count, *self.grid)
        return [v[(slice(None), *component.box, c)] for c, component in enumerate(self.components)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The dofs "*b *shape" with these values at free nodes, zeros elsewhere."""
        v = parts[0].new_zeros(self.count, *self.grid)
        for c, (component, part) in enumerate(zip(self.components, parts, strict=True)):
            v[(slice(None), *component.box, c)] = part
        return v.reshape(self.shape)


class Component:
    """H = Σ_k (c_k K_k + supports of both ends) ⊗ (M on the other axes) + m M ⊗ … ⊗ M, for one component.

    Args:
        axes: x first, whereas fields on the grid "b *grid" have x last.
        spacing: the cells' extents "d".
        diffusion, reaction: c "b d" and m "b".
        supports: what is added to the first and last diagonal entry of each axis, "b d 2".
    """

    def __init__(
        self,
        axes: list[Axis],
        spacing: Float[Tensor, "d"],
        diffusion: Float[Tensor, "b d"],
        reaction: Float[Tensor, "b"],
        supports: Float[Tensor, "b d 2"],
    ):
        self.box, self.modes = tuple(axis.free for axis in axes[::-1]), []
        eigenvalues, diagonals = ([], []), ([], [])  # of stiffness and mass, axis by axis
        for axis, h, c, ends in zip(axes, spacing, diffusion.T, supports.unbind(1), strict=True):
            ends = ends.masked_fill(torch.tensor(axis.fixed, device=ends.device), 0)
            supported, scale = bool(ends.any()), c / h
            found = supported_modes(axis, scale, ends) if supported else modes(axis)
            self.modes.append(found)
            stiffness, mass = found.stiffness.to(c), found.mass.to(c)
            eigenvalues[0].append(stiffness if supported else scale[:, None] * stiffness)
            eigenvalues[1].append(h * mass)
            stiffness, mass = (diagonal.to(c) for diagonal in axis.diagonals())
            stiffness = scale[:, None] * stiffness
            stiffness[:, :1] += ends[:, :1]
            stiffness[:, -1:] += ends[:, 1:]
            diagonals[0].append(stiffness)
            diagonals[1].append(h * mass[None])
        self.constant = all(found.constant for found in self.modes)
        self.eigenvalues = tensor_sum(*eigenvalues, reaction)
        self._diagonals, self._reaction = diagonals, reaction

    @property
    def diagonal(self) -> Float[Tensor, "b *grid"]:
        """The diagonal of H at free nodes."""
        return tensor_sum(*self._diagonals, self._reaction)

    def inverse(self, reciprocal: Float[Tensor, "b *grid"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """r "b *grid" ↦ (⊗ V) diag(reciprocal) (⊗ V)ᵀ r."""
        transforms = [found.transform.to(reciprocal.device, dtype) for found in self.modes]
        for _ in transforms[1:]:
            reciprocal = reciprocal.movedim(-1, 1)
        reciprocal = reciprocal.to(dtype).contiguous()

        def solve(r: Tensor) -> Tensor:
            if r.numel() == 0:
                return r
            # The axis at work stands last: x, then y, then z, and back.
            y = r[:, None] if r.ndim == 2 else r
            for k, transform in enumerate(transforms):
                y = transform(y.movedim(-1, 1) if k else y)
            y = y.mul_(reciprocal.reshape(y.shape))
            for k, transform in reversed(list(enumerate(transforms))):
                y = transform.mT(y)
                y = y.movedim(1, -1) if k else y
            return y.reshape(r.shape)

        return solve


def tensor_sum(stiffness: list[Tensor], mass: list[Tensor], reaction: Float[Tensor, "b"]) -> Float[Tensor, "b *grid"]:
    """Σ_k K_k ⊗ (M on the other axes) + m M ⊗ … ⊗ M for diagonals "#b n" of each axis; x is the last of the result."""
    terms = [outer([*mass[:k], part, *mass[k + 1 :]]) for k, part in enumerate(stiffness)]
    terms.append(outer([reaction[:, None] * mass[0], *mass[1:]]))
    return sum_of(terms)


def outer(factors: list[Tensor]) -> Tensor:
    """The products of all entries "#b n" of each axis."""
    result = factors[0]
    for factor in factors[1:]:
        result = per_item(factor, result[:, None]) * result[:, None]
    return result


def largest(values: Float[Tensor, "b *grid"]) -> Tensor:
    """max |values| of each item "b 1 … 1", zero where there are none."""
    return per_item(pad(values.abs().flatten(1), (0, 1)).amax(1), values)


def definite(values: Float[Tensor, "b *grid"]) -> Float[Tensor, "b *grid"]:
    """Reciprocals of the absolute values, the smallest of the others in place of zeros."""
    size = values.abs()
    null = size <= torch.finfo(values.dtype).eps * largest(values)
    others = pad(size.masked_fill(null, torch.inf).flatten(1), (0, 1), value=torch.inf)
    return 1 / torch.where(null, per_item(others.amin(1), values), size)


def separable_coefficients(
    system: System, space: FunctionSpace, exact: bool
) -> tuple[Float[Tensor, "b c d"], Float[Tensor, "b c"], Float[Tensor, "b c d 2"]]:
    """Diffusion per axis, reaction, and what Robin terms add at both ends of each axis, for every component.

    The constants that all coefficients are, or their means over cells and points unless `exact`.
    """
    d, c, nb = space.mesh.dim, space.components or 1, len(system.batch)
    like = torch.empty((), dtype=torch.float64, device=system.u.device)
    cells = [like.new_zeros(*system.batch, c * k, c * k) for k in (1, d)]  # what multiplies u, and ∇u, twice
    sides = like.new_zeros(*system.batch, d, 2, c, c)
    for integral, entries in ((h.integral, h.coefficients) for h in system.hessians):
        for entry in entries:
            order, on_side = entry.row[1], integral.domain.facet is not None
            if entry.column[1] != order or order > (0 if on_side else 1):
                if exact and bool((entry.value != 0).any()):
                    raise refuse(f"a {integral.term.name} that couples derivatives of different or higher order")
                continue
            size = c if order == 0 else c * d
            value = entry.value.reshape(*entry.value.shape[: nb + 2], size, size)
            value = constant(value, nb, integral.term.name) if exact else mean(value, integral.geometry.weights, nb)
            if not on_side:
                cells[order] += value
                continue
            axis, end, share = side(integral.domain, space)
            if exact and share != 1:
                raise refuse(f"a {integral.term.name} that covers no whole side of the box")
            sides[..., axis, end, :, :] += share * value
    for total, name in ((cells[1], "diffusion tensor"), (cells[0], "reaction"), (sides, "Robin term")):
        diagonal = total.diagonal(dim1=-2, dim2=-1)
        limit = ROUND_OFF * torch.finfo(system.u.dtype).eps * diagonal.abs().amax(-1)
        if exact and bool(((total - diagonal.diag_embed()).abs().amax((-2, -1)) > limit).any()):
            raise refuse(
                f"a {name} with entries off its diagonal, which couple {'' if c == 1 else 'components or '}axes"
            )
    # Items that are not finite become zero, and singular.
    parts = (cells[1].diagonal(dim1=-2, dim2=-1).unflatten(-1, (c, d)), cells[0].diagonal(dim1=-2, dim2=-1))
    parts = (*parts, sides.diagonal(dim1=-2, dim2=-1).movedim(-1, -3))
    finite = torch.stack([part.isfinite().flatten(nb).all(-1) for part in parts]).all(0)
    diffusion, reaction, supports = (
        torch.where(per_item(finite, p), p, 0).flatten(0, nb - 1) if nb else p[None] for p in parts
    )
    return diffusion, reaction, supports


def constant(value: Float[Tensor, "*b e q i j"], lead: int, name: str) -> Float[Tensor, "*b i j"]:
    """The one value that a coefficient has in all cells and at all points."""
    for axis in (lead, lead + 1):
        if value.stride(axis) == 0:
            value = value.narrow(axis, 0, 1)
    # Cells first: all that is left then lies side by side.
    low, high = value.amin(lead).amin(lead), value.amax(lead).amax(lead)
    size = torch.maximum(low.abs(), high.abs()).amax((-2, -1), keepdim=True)
    varies = (high - low) > ROUND_OFF * torch.finfo(value.dtype).eps * size
    if bool(varies.any()):
        raise refuse(
            f"second derivatives of the {name} that vary between {float(low[varies][0]):.6g} and "
            f"{float(high[varies][0]):.6g}"
        )
    return value.select(lead + 1, 0).select(lead, 0).double()


def mean(value: Float[Tensor, "*b #e #q i j"], weights: Float[Tensor, "#e #q"], lead: int) -> Float[Tensor, "*b i j"]:
    """The mean over cells, all of one size, and their points."""
    share = (weights[0] / weights[0].sum())[:, None, None].double()
    return (value.mean(lead).double() * share).sum(lead)


def side(domain: Domain, space: FunctionSpace) -> tuple[int, int, float]:
    """The axis and the end of the box that a domain of facets looks at, and its share of that side (0 if inside)."""
    facet, owners, cells = domain.facet, domain.cells, space.mesh.grid
    assert facet is not None
    assert owners is not None
    assert cells is not None
    normal = domain.cell.facet_normals[facet]
    axis = int(normal.abs().argmax())
    end = int(normal[axis] > 0)
    position = owners // prod(cells[:axis]) % cells[axis]
    outermost = bool((position == end * (cells[axis] - 1)).all())
    return axis, end, len(owners) * cells[axis] / prod(cells) if outermost else 0.0


def fixed_sides(system: System, grid: tuple[int, ...]) -> list[list[tuple[bool, bool]]]:
    """Whether the first and the last side of each axis (x first) are fixed, for every component; grid "z y x c"."""
    if system.fixed is None:
        return [[(False, False)] * (len(grid) - 1) for _ in range(grid[-1])]
    found = []
    for mask in system.fixed.reshape(-1, *grid).unbind(-1):
        ends, whole = [], torch.zeros_like(mask[0])
        for dim in reversed(range(whole.ndim)):
            sides = [mask[0].select(dim, i) for i in (0, -1)]
            ends.append((bool(sides[0].all()), bool(sides[1].all())))
            for i, fixed in zip((0, -1), ends[-1], strict=True):
                if fixed:
                    whole.select(dim, i).fill_(True)
        if bool((mask != whole).any()):
            raise ValueError(
                "`FastDiagonalization()` needs values prescribed on whole sides of the box, the same in all batch "
                f"items; got {int((mask != whole).any(0).sum())} fixed dofs apart from whole sides (tags of part of a "
                "side, or bounds that hold dofs). Use `Direct()`, `Multigrid()` or `CG()`."
            )
        found.append(ends)
    return found


def check_space(space: AnySpace) -> FunctionSpace:
    """The space, if it is one of Lagrange elements on a box grid."""
    mesh = space.mesh
    if not isinstance(space, FunctionSpace) or not space.is_lagrange or mesh.grid is None or not mesh.is_uniform:
        raise ValueError(
            "`FastDiagonalization()` needs a single Lagrange space on a grid of intervals, quadrilaterals or hexahedra "
            f"whose nodes nobody moved (`box`, `unit_square`, …); got {space} on {mesh}. Use `Direct()` or `CG()`."
        )
    return space


def refuse(found: str, remedy: str = "`Multigrid()`, or `CG(preconditioner=FastDiagonalization())`") -> ValueError:
    return ValueError(
        "`FastDiagonalization()` solves problems with constant coefficients that couple neither axes nor components; "
        f"found {found}. Use {remedy}."
    )
