"""Fast diagonalisation: the exact inverse of separable problems on box grids, axis by axis.

With constant coefficients, the 1-D stiffness and mass matrices of each axis make up the whole matrix, and a solve is a
transform along each axis, a division, and the transforms back (`solvers/linear/separable.py`): with fast Fourier
transforms O(N log N) operations. With mean coefficients it is a preconditioner for problems whose coefficients vary, on
grids and on splines of one patch.

Sources: Lynch, Rice and Thomas, Direct solution of partial difference equations by tensor product methods (1964); for
splines G. Sangalli and M. Tani, Isogeometric preconditioners based on fast solvers for the Sylvester equation, SIAM J.
Sci. Comput. 38, 2016.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fem.forms.constraints import MeanZero
from fem.mesh.geometry import Domain
from fem.space.space import AnySpace, FunctionSpace
from fem.support.arithmetic import per_item
from fem.support.checks import check_flags, shown
from solvers.linear.axis_modes import LagrangeLine
from solvers.linear.patchwise import patchwise
from solvers.linear.separable import Component, Separable, definite, largest
from solvers.operators.system import System

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

    On splines (`isogeometric_space`), of one patch or several, it preconditions as well, and no matrix is made: L has
    coefficients that are products of one function per direction of a patch, is inverted across seams too, and takes
    any dofs that are held; several patches go without S (`solvers/linear/patchwise.py`).

    Args:
        scaled: False leaves out S. That is the better preconditioner where coefficients jump: the number of iterations
            then grows with the root of their contrast, but not with the grid, as it does with S.

    Raises:
        ValueError: when it meets a system, if the grid, the prescribed sides or the coefficients are not of that kind.
    """

    scaled: bool = True

    def __post_init__(self):
        check_flags("FastDiagonalization", scaled=self.scaled)

    def prepare(self, system: System) -> "Diagonalized":
        constraint = system.form.constraint
        if not system.holds_dofs_alone and not isinstance(constraint, MeanZero):
            raise refuse(shown(constraint), "`CG(preconditioner=FastDiagonalization())`")
        return Diagonalized(system)

    def preconditioner(self, system: System) -> Callable[[Tensor], Tensor]:
        if system.tensor is not None:
            return patchwise(system, system.tensor, self.scaled)
        operator = separable(system, exact=False)
        solves = [c.inverse(definite(c.eigenvalues), system.u.dtype) for c in operator.components]
        scales: list[Any] = [1.0] * len(solves)
        if self.scaled:
            diagonals = zip(operator.components, operator.split(system.diagonal), strict=True)
            scales = [(c.diagonal.to(d) / torch.where(d == 0, 1, d)).abs().sqrt() for c, d in diagonals]

        def precondition(r: Tensor) -> Tensor:
            parts = zip(solves, scales, operator.split(r), strict=True)
            return operator.join([s * solve(s * part) for solve, s, part in parts])

        return precondition


class Diagonalized:
    """A separable system made ready; with `MeanZero` the constants, an eigenspace then, are left out."""

    exact = True
    iterations = reduction = None

    def __init__(self, system: System):
        self.system, self.operator, self.solves = system, separable(system, exact=True), []
        self.singular, self.indefinite = torch.zeros(2, *system.batch, dtype=torch.bool, device=system.u.device)
        for component in self.operator.components:
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
        parts = zip(self.solves, self.operator.split(rhs), strict=True)
        return self.operator.join([solve(part) for solve, part in parts])


def separable(system: System, exact: bool) -> Separable:
    """The separable operator that a system is, or the one nearest to it unless it must be `exact`.

    Raises:
        ValueError: there is none.
    """
    space = check_space(system.form.space)
    cells = space.mesh.grid
    assert cells is not None
    grid = (*(space.degree * n + 1 for n in cells[::-1]), space.components or 1)
    spacing = 1 / space.quadrature.geometry(space.quadrature.domains()[0]).inverse[0, 0].diagonal().double()
    parts, components = separable_coefficients(system, space, exact), []
    for c, fixed in enumerate(fixed_sides(system, grid)):
        lines = [
            LagrangeLine(n, space.degree, space.quadrature_degree, ends) for n, ends in zip(cells, fixed, strict=True)
        ]
        components.append(Component(lines, spacing, *(part[:, c] for part in parts)))
    return Separable((*system.batch, *space.shape), grid, components)


def separable_coefficients(
    system: System, space: FunctionSpace, exact: bool
) -> tuple[Float[Tensor, "b c d"], Float[Tensor, "b c"], Float[Tensor, "b c d 2"]]:
    """Diffusion per axis, reaction, and what Robin terms add at both ends of each axis, for every component.

    The constants that all coefficients are, or their means over cells and points unless `exact`.
    """
    if system.form.couples_neighbours:
        raise refuse("terms on interior facets", "`Direct()` or `CG()`")
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
    for fixed in system.fixed.reshape(-1, *grid).unbind(-1):
        ends, whole = [], torch.zeros_like(fixed[0])
        for dim in reversed(range(whole.ndim)):
            sides = [fixed[0].select(dim, i) for i in (0, -1)]
            ends.append((bool(sides[0].all()), bool(sides[1].all())))
            for i, side in zip((0, -1), ends[-1], strict=True):
                if side:
                    whole.select(dim, i).fill_(True)
        if bool((fixed != whole).any()):
            raise ValueError(
                "`FastDiagonalization()` needs values prescribed on whole sides of the box, the same in all batch "
                f"items; got {int((fixed != whole).any(0).sum())} fixed dofs apart from whole sides (tags of part of a "
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


def refuse(
    found: str, remedy: str = "`Multigrid()`, or `CG(preconditioner=FastDiagonalization())`; weak forms need `Direct()`"
) -> ValueError:
    return ValueError(
        "`FastDiagonalization()` solves problems with constant coefficients that couple neither axes nor components; "
        f"found {found}. Use {remedy}."
    )
